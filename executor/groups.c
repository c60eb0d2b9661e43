#include "executor/groups.h"

#include "base/clock.h"
#include "ir/mesh.h"
#include <assert.h>
#include <string.h>

/* ---- a layer's collectives ---- */

/* A blocking collective hides nothing: it is waited for from its start. */
static void note(const struct degree_groups *self, int64_t start_ns, uint64_t bytes)
{
    journal_communication(self->journal, PHASE_TENSOR, self->journal->layer, start_ns, start_ns,
                          bytes);
}

static enum status all_reduce_sum(void *user, float *data, size_t count, struct error *err)
{
    const struct degree_groups *self = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_sum(self->tensor, data, count, err));
    note(self, start_ns, count * sizeof *data);
    return STATUS_OK;
}

static enum status all_reduce_max(void *user, float *data, size_t count, struct error *err)
{
    const struct degree_groups *self = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_max(self->tensor, data, count, err));
    note(self, start_ns, count * sizeof *data);
    return STATUS_OK;
}

static enum status all_gather(void *user, const void *in, void *out, size_t bytes,
                              struct error *err)
{
    const struct degree_groups *self = user;
    int64_t start_ns = clock_ns();
    TRY(comm_all_gather(self->tensor, in, out, bytes, err));
    note(self, start_ns, bytes * (uint64_t)comm_size(self->tensor));
    return STATUS_OK;
}

static enum status reduce_scatter(void *user, const float *in, float *out, size_t count,
                                  struct error *err)
{
    const struct degree_groups *self = user;
    int64_t start_ns = clock_ns();
    TRY(comm_reduce_scatter(self->tensor, in, out, count, err));
    note(self, start_ns, count * sizeof *in * (uint64_t)comm_size(self->tensor));
    return STATUS_OK;
}

/* ---- the groups ---- */

static enum status open_degree(struct groups *groups, const struct plan *plan, int degree,
                               struct journal *journal, struct error *err)
{
    struct degree_groups *out = &groups->degrees[groups->count++];
    int rank = comm_rank(groups->world);
    int stage = mesh_stage_of(plan, rank), place = mesh_place_of(plan, rank);
    int tensor_groups = mesh_stage_ranks(plan) / degree;
    out->degree = degree;
    out->journal = journal;
    TRY(comm_split(groups->world, stage * tensor_groups + place / degree, &out->tensor, err));
    TRY(comm_split(groups->world, stage * degree + place % degree, &out->data, err));
    out->collectives = (struct layer_group){
        .user = out,
        .all_reduce_sum = all_reduce_sum,
        .all_reduce_max = all_reduce_max,
        .all_gather = all_gather,
        .reduce_scatter = reduce_scatter,
    };
    return STATUS_OK;
}

/* Ranks of the stages between get a group that nobody uses. */
static enum status open_table(struct groups *groups, const struct plan *plan, struct error *err)
{
    int rank = comm_rank(groups->world);
    int stage = mesh_stage_of(plan, rank), last = plan->pipeline - 1;
    bool is_of_pair = stage == 0 || stage == last;
    if (!plan->model.tied_head || plan->pipeline == 1)
        return STATUS_OK;
    struct comm *pair = NULL;
    int color = is_of_pair ? mesh_place_of(plan, rank) : mesh_stage_ranks(plan);
    TRY(comm_split(groups->world, color, &pair, err));
    if (is_of_pair)
        groups->table = pair;
    else
        comm_close(pair);
    return STATUS_OK;
}

static bool has_degree(const struct plan *plan, int degree)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        if (plan->layers[i].tensor_parallel == degree)
            return true;
    return false;
}

static enum status open_all(struct groups *groups, const struct plan *plan, struct journal *journal,
                            struct error *err)
{
    for (int degree = 1; degree <= plan->tensor_parallel; degree++) {
        if (!has_degree(plan, degree))
            continue;
        if (groups->count == GROUP_DEGREES_MAX)
            return error_set(err, STATUS_UNSUPPORTED,
                             "the plan has more than %d different tensor-parallel degrees",
                             GROUP_DEGREES_MAX);
        TRY(open_degree(groups, plan, degree, journal, err));
    }
    return open_table(groups, plan, err);
}

enum status groups_open(struct groups *out, const struct plan *plan, struct comm *world,
                        struct journal *journal, struct error *err)
{
    assert(comm_size(world) == plan->ranks);
    *out = (struct groups){.world = world};
    enum status status = open_all(out, plan, journal, err);
    if (status != STATUS_OK)
        groups_close(out);
    return status;
}

void groups_close(struct groups *groups)
{
    comm_close(groups->table);
    for (size_t i = groups->count; i-- > 0;) {
        comm_close(groups->degrees[i].data);
        comm_close(groups->degrees[i].tensor);
    }
    memset(groups, 0, sizeof *groups);
}

const struct degree_groups *groups_of(const struct groups *groups, int degree)
{
    for (size_t i = 0; i < groups->count; i++)
        if (groups->degrees[i].degree == degree)
            return &groups->degrees[i];
    assert(!"a degree of the plan");
    return NULL;
}
