#include "executor/reduction.h"

#include "base/clock.h"
#include <stdlib.h>

enum status reduction_open(struct reduction *out, struct comm *comm, struct pass *pass,
                           struct error *err)
{
    size_t count = pass->layout->layer_count;
    struct comm_request **requests = calloc(count, sizeof(struct comm_request *));
    if (requests == NULL)
        return error_memory(err, count * sizeof(struct comm_request *), "gradient reductions");
    *out = (struct reduction){.comm = comm, .pass = pass, .requests = requests};
    return STATUS_OK;
}

void reduction_close(struct reduction *reduction)
{
    free(reduction->requests);
    reduction->requests = NULL;
}

static uint64_t layer_bytes(const struct reduction *reduction, size_t layer)
{
    return reduction->pass->layout->layers[layer].count * sizeof(float);
}

enum status reduction_start(void *user, size_t layer, struct error *err)
{
    struct reduction *reduction = user;
    const struct layout *layout = reduction->pass->layout;
    const struct layer_place *place = &layout->layers[layer];
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_start(reduction->comm, layout->gradients + place->first, place->count,
                              &reduction->requests[layer], err));
    comm_poll(reduction->comm);
    pass_record(reduction->pass, STREAM_COMM, (int32_t)layer, PHASE_GRAD_REDUCE, start_ns,
                layer_bytes(reduction, layer));
    return STATUS_OK;
}

enum status reduction_finish(struct reduction *reduction, struct error *err)
{
    for (size_t i = reduction->pass->layout->layer_count; i-- > 0;) {
        if (reduction->requests[i] == NULL)
            continue;
        int64_t start_ns = clock_ns();
        TRY(comm_wait(reduction->comm, reduction->requests[i], err));
        reduction->requests[i] = NULL;
        pass_record(reduction->pass, STREAM_COMM, (int32_t)i, PHASE_GRAD_REDUCE, start_ns,
                    layer_bytes(reduction, i));
    }
    return STATUS_OK;
}
