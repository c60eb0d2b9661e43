#include "profiler/chain_group.h"

#include "base/clock.h"
#include <assert.h>

static enum status all_reduce_sum(void *user, float *data, size_t count, struct error *err)
{
    struct chain_group *group = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_sum(group->comm, data, count, err));
    group->exchange_ns += clock_ns() - start_ns;
    return STATUS_OK;
}

static enum status all_reduce_max(void *user, float *data, size_t count, struct error *err)
{
    struct chain_group *group = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_max(group->comm, data, count, err));
    group->exchange_ns += clock_ns() - start_ns;
    return STATUS_OK;
}

static enum status all_gather(void *user, const void *in, void *out, size_t bytes,
                              struct error *err)
{
    struct chain_group *group = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_gather(group->comm, in, out, bytes, err));
    group->exchange_ns += clock_ns() - start_ns;
    return STATUS_OK;
}

static enum status reduce_scatter(void *user, const float *in, float *out, size_t count,
                                  struct error *err)
{
    struct chain_group *group = user;
    int64_t start_ns = clock_ns();
    TRY(comm_reduce_scatter(group->comm, in, out, count, err));
    group->exchange_ns += clock_ns() - start_ns;
    return STATUS_OK;
}

enum status chain_group_join(struct chain_group *group, struct comm *world, int ways,
                             struct error *err)
{
    assert(ways >= 1 && comm_size(world) % ways == 0);
    if (group->ways == ways)
        return STATUS_OK;
    chain_group_close(group);
    if (ways > 1)
        TRY(comm_split(world, comm_rank(world) / ways, &group->comm, err));
    group->ways = ways;
    group->calls = (struct layer_group){
        .user = group,
        .all_reduce_sum = all_reduce_sum,
        .all_reduce_max = all_reduce_max,
        .all_gather = all_gather,
        .reduce_scatter = reduce_scatter,
    };
    return STATUS_OK;
}

void chain_group_close(struct chain_group *group)
{
    comm_close(group->comm);
    *group = (struct chain_group){.exchange_ns = group->exchange_ns};
}
