#include "executor/reshard.h"

#include "base/clock.h"
#include <assert.h>

struct reshard reshard_of(const struct memory_layout *layout, const struct groups *groups,
                          struct journal *journal)
{
    const struct plan *plan = layout->plan;
    uint64_t tokens = (uint64_t)(plan->micro_batch * plan->model.seq_length);
    return (struct reshard){
        .groups = groups,
        .device = layout->device,
        .journal = journal,
        .column = layout->place % plan->tensor_parallel,
        .ways = plan->tensor_parallel,
        .whole_count = tokens * (uint64_t)plan->model.hidden,
    };
}

int reshard_travel_spread(int have, int want)
{
    return have % want == 0 ? want : 1;
}

static uint64_t offset_of(const struct reshard *reshard, int have, int part)
{
    int column = reshard->column;
    assert(have % part == 0);
    return reshard_count(reshard, column / part * part - column / have * have);
}

float *reshard_at(const struct reshard *reshard, float *data, int have, int part)
{
    return data + offset_of(reshard, have, part);
}

uint64_t reshard_count(const struct reshard *reshard, int spread)
{
    return reshard->whole_count * (uint64_t)spread / (uint64_t)reshard->ways;
}

enum status reshard_copy(const struct reshard *reshard, const float *from, int have, float *to,
                         int want, struct error *err)
{
    if (have % want == 0) {
        device_copy(reshard->device, to, from + offset_of(reshard, have, want),
                    reshard_count(reshard, want) * sizeof(float));
        return STATUS_OK;
    }
    size_t bytes = reshard_count(reshard, 1) * sizeof(float);
    int64_t start_ns = clock_ns();
    TRY(comm_all_gather(groups_of(reshard->groups, want)->tensor,
                        from + offset_of(reshard, have, 1), to, bytes, err));
    journal_communication(reshard->journal, PHASE_TENSOR, reshard->journal->layer, start_ns,
                          start_ns, bytes * (uint64_t)want);
    return STATUS_OK;
}
