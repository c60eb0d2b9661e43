#include "profiler/process.h"
#include "base/host.h"
#include <stdlib.h>

/* MPI's pools of buffers grow over the first reductions; the libraries' buffers grow with the
 * products' sizes, but little beyond this many tokens, from which on oneDNN packs both operands. */
enum { REDUCTION_ROUNDS = 3, USUAL_TOKENS = 512 };

static enum status reduce_gradients(struct chain *chain, struct comm_request **requests,
                                    struct error *err)
{
    struct comm *comm = chain->session->comm;
    for (size_t i = chain->layer_count; i-- > 0;) {
        const struct chain_layer *layer = &chain->layers[i];
        TRY(comm_all_reduce_start(comm, chain->gradients + layer->first, layer->count, &requests[i],
                                  err));
    }
    for (size_t i = chain->layer_count; i-- > 0;)
        TRY(comm_wait(comm, requests[i], err));
    return STATUS_OK;
}

/* A setting that does not fit is left out here; that nothing fits is for the sweep to say. */
static enum status run_layers(struct chain *chain, enum precision precision,
                              struct chain_time *times, struct error *err)
{
    int64_t usual = USUAL_TOKENS / chain->session->request->model->seq_length;
    struct chain_setting setting = {
        .precision = precision,
        .recompute = RECOMPUTE_NONE,
        .micro_batch = usual > 1 ? usual : 1,
        .split = {.ways = 1},
        .with_head = true,
    };
    uint64_t bytes = chain_activation_bytes(chain, setting);
    if (bytes + chain_static_bytes(chain) > chain->session->memory_limit_bytes)
        return STATUS_OK;
    TRY(chain_reserve(chain, bytes, err));
    TRY(chain_bind(chain, setting, err));
    TRY(chain_forward(chain, times, err));
    return chain_backward(chain, false, NULL, times, err);
}

static enum status run_step(struct chain *chain, enum precision precision, struct error *err)
{
    struct comm_request **requests = calloc(chain->layer_count, sizeof(requests[0]));
    struct chain_time *times = calloc(chain->layer_count, sizeof(times[0]));
    int64_t *update_ns = calloc(chain->layer_count + 1, sizeof(update_ns[0]));
    struct chain_update update = {.ways = 1, .precision = precision, .time = 1};
    enum status status;
    if (!requests || !times || !update_ns)
        status = error_memory(err, chain->layer_count * sizeof(times[0]), "a step's times");
    else
        status = run_layers(chain, precision, times, err);
    for (int round = 0; round < REDUCTION_ROUNDS && status == STATUS_OK; round++)
        status = reduce_gradients(chain, requests, err);
    if (status == STATUS_OK)
        chain_optimize(chain, &update, update_ns);
    free(update_ns);
    free(times);
    free(requests);
    return status;
}

enum status process_measure(struct chain *chain, enum precision precision, struct error *err)
{
    struct session *session = chain->session;
    host_give_back_free_memory(); /* what an earlier precision freed is not this one's */
    TRY(run_step(chain, precision, err));
    int64_t resident = (int64_t)host_process_rss_bytes();
    int64_t bytes = resident - (int64_t)session->allocated_bytes;
    bytes = bytes > 0 ? bytes : 0;
    TRY(comm_all_reduce_max_i64(session->comm, &bytes, 1, err));
    struct measurement row = {
        .subject = "machine", .metric = METRIC_PROCESS_BYTES, .precision = precision};
    row.provenance = bytes > 0 ? PROVENANCE_MEASURED : PROVENANCE_ABSENT;
    if (bytes == 0)
        return session_emit(session, row, err);
    return session_emit_value(session, row, (double)bytes, err);
}
