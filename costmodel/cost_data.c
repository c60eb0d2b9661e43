/* What the ranks that replicate a layer exchange: gradients, and under ZeRO the parameters that
 * each updates or keeps a share of (Rajbhandari et al. 2020). */
#include "costmodel/terms.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include <math.h>

/* A layer's matrices over the ranks that replicate them. */
struct sharded {
    const struct layer_terms *terms;
    struct layer_state state;
    struct collective_group group;
    int zero_stage;
    struct quantity whole_update_s;
};

static struct sharded sharded_of(const struct layer_terms *terms, size_t layer,
                                 struct quantity whole_update_s)
{
    const struct plan *plan = terms->plan;
    struct sharded out = {
        .terms = terms,
        .group = {.ways = mesh_data_ways(plan, layer),
                  .apart = plan->layers[layer].tensor_parallel},
        .zero_stage = plan->layers[layer].zero_stage,
        .whole_update_s = whole_update_s,
    };
    layer_state_of(plan, layer, &out.state);
    return out;
}

/* The part that compute does not hide; more than the whole where it slows compute by more than it
 * hides (ranks that share cores and memory with their own messages). Without a measurement nothing
 * is taken to be hidden. */
static struct quantity exposed(const struct layer_terms *terms, struct quantity seconds)
{
    struct quantity overlap =
        machine_value(terms->profile, placement_of(terms->plan), METRIC_OVERLAP);
    if (is_absent(overlap))
        overlap = (struct quantity){.value = 0, .provenance = PROVENANCE_MODELLED};
    struct quantity out = quantity_scale(seconds, 1 - overlap.value);
    out.deviation = hypot(out.deviation, seconds.value * overlap.deviation);
    if (out.provenance < overlap.provenance)
        out.provenance = overlap.provenance;
    return out;
}

static enum status add_collective(const struct sharded *sharded, enum cost_pass pass,
                                  enum phase phase, enum collective collective, uint64_t bytes,
                                  bool is_hidden, struct error *err)
{
    const struct layer_terms *terms = sharded->terms;
    struct quantity seconds;
    TRY(collective_time(terms->profile, terms->plan, collective, sharded->group, bytes, &seconds,
                        err));
    terms_add(terms, pass, phase, is_hidden ? exposed(terms, seconds) : seconds);
    return STATUS_OK;
}

/* ---- gradients ---- */

/* Of a layer's matrices, `count` elements of them. In bf16 it is taken to last as long as the same
 * bytes of fp32: they travel alike, and its additions read and write as many. */
static enum status add_sum(const struct sharded *sharded, enum cost_pass pass,
                           enum collective collective, uint64_t count, bool is_hidden,
                           struct error *err)
{
    uint64_t bytes = count * precision_bytes(sharded->state.gradient_precision);
    return add_collective(sharded, pass, PHASE_GRAD_REDUCE, collective, bytes, is_hidden, err);
}

/* Every micro-batch's whole gradient is scattered and what arrives added to the shard: two reads, a
 * write. */
static enum status scatter_gradient(const struct sharded *sharded, bool is_hidden,
                                    struct error *err)
{
    const struct layer_state *state = &sharded->state;
    uint64_t share = partition_share(&state->partition);
    terms_add(sharded->terms, COST_BACKWARD, PHASE_GRAD_REDUCE,
              traffic_time(sharded->whole_update_s, state, share,
                           3 * (int)precision_bytes(state->gradient_precision)));
    return add_sum(sharded, COST_BACKWARD, COLLECTIVE_REDUCE_SCATTER, state->partition.count,
                   is_hidden, err);
}

static enum status reduce_terms(const struct sharded *sharded, bool is_last, bool has_ring,
                                struct error *err)
{
    enum collective collective =
        sharded->zero_stage == 0 ? COLLECTIVE_ALL_REDUCE : COLLECTIVE_REDUCE_SCATTER;
    if (sharded->zero_stage < 2)
        TRY(add_sum(sharded, COST_STEP, collective, sharded->state.partition.count, !is_last, err));
    else
        TRY(scatter_gradient(sharded, has_ring, err));
    return add_collective(sharded, COST_STEP, PHASE_GRAD_REDUCE, COLLECTIVE_ALL_REDUCE,
                          sharded->state.vectors * sizeof(float), !is_last, err);
}

/* First and last stage each have a copy of a tied table and a summand of its gradient. */
static enum status table_terms(const struct sharded *sharded, struct error *err)
{
    const struct plan *plan = sharded->terms->plan;
    const struct layer_part part = mesh_part(plan, sharded->terms->layer, 0);
    bool has_copy = part.kind == LAYER_EMBEDDING || part.kind == LAYER_HEAD;
    if (!plan->model.tied_head || plan->pipeline == 1 || !has_copy)
        return STATUS_OK;
    struct sharded pair = *sharded;
    pair.group = (struct collective_group){.ways = 2,
                                           .apart = (plan->pipeline - 1) * mesh_stage_ranks(plan)};
    uint64_t share = partition_share(&sharded->state.partition);
    return add_sum(&pair, COST_STEP, COLLECTIVE_ALL_REDUCE, share, false, err);
}

/* ---- parameters ---- */

/* Training's head works in its backward pass alone. */
static enum cost_pass first_use(const struct layer_terms *terms)
{
    bool is_head = model_layer(&terms->plan->model, terms->layer).kind == LAYER_HEAD;
    return is_head ? COST_BACKWARD : COST_FORWARD;
}

/* Before each use: the rank's own share is copied to its place, the others' arrive. */
static enum status gather_for_use(const struct sharded *sharded, uint64_t element_bytes,
                                  bool is_hidden, struct error *err)
{
    const struct layer_state *state = &sharded->state;
    struct quantity copy_s = traffic_time(
        sharded->whole_update_s, state, partition_share(&state->partition), 2 * (int)element_bytes);
    for (int pass = first_use(sharded->terms); pass <= COST_BACKWARD; pass++) {
        terms_add(sharded->terms, (enum cost_pass)pass, PHASE_PARAM_GATHER, copy_s);
        TRY(add_collective(sharded, (enum cost_pass)pass, PHASE_PARAM_GATHER, COLLECTIVE_ALL_GATHER,
                           state->partition.count * element_bytes, is_hidden, err));
    }
    return STATUS_OK;
}

static enum status gather_terms(const struct sharded *sharded, bool has_ring, struct error *err)
{
    const struct plan *plan = sharded->terms->plan;
    uint64_t element_bytes = precision_bytes(plan->layers[sharded->terms->layer].precision);
    if (sharded->zero_stage == 0)
        return STATUS_OK;
    if (sharded->zero_stage == 3)
        return gather_for_use(sharded, element_bytes, has_ring, err);
    return add_collective(sharded, COST_STEP, PHASE_PARAM_GATHER, COLLECTIVE_ALL_GATHER,
                          sharded->state.partition.count * element_bytes, true, err);
}

/* ---- a tied head on the embedding's ranks ---- */

/* It reads the embedding's table and writes its gradient: what ZeRO 2 and 3 move for that is moved
 * for the head once more, and what it computes in 16 bit is a copy of the table. */
static enum status tied_terms(const struct sharded *table, struct error *err)
{
    const struct layer_terms *terms = table->terms;
    const struct plan *plan = terms->plan;
    bool is_16 = plan->layers[terms->layer].precision != PRECISION_FP32;
    struct quantity cast_s =
        traffic_time(table->whole_update_s, &table->state, table->state.partition.count, 4 + 2);
    if (table->zero_stage >= 2)
        TRY(scatter_gradient(table, false, err));
    if (table->zero_stage == 3)
        TRY(gather_for_use(table, sizeof(float), false, err));
    if (!is_16)
        return STATUS_OK;
    if (table->zero_stage < 3) {
        terms_add(terms, COST_STEP, PHASE_OPTIMIZER, cast_s);
        return STATUS_OK;
    }
    terms_add(terms, COST_BACKWARD, PHASE_PARAM_GATHER, cast_s);
    return STATUS_OK;
}

/* Transient state of attention and mlp stands in rings, where it is moved while other layers work;
 * that of other layers shares memory with the next layer's scratch, so that it is waited for. The
 * embedding's gradients are final only when backward is over: nothing is left to hide theirs. */
enum status data_terms(const struct layer_terms *terms, struct quantity whole_update_s,
                       struct quantity table_update_s, struct error *err)
{
    const struct plan *plan = terms->plan;
    enum layer_kind kind = model_layer(&plan->model, terms->layer).kind;
    const struct sharded sharded = sharded_of(terms, terms->layer, whole_update_s);
    bool is_block = kind == LAYER_ATTENTION || kind == LAYER_MLP;
    uint64_t ring_bytes = is_block ? footprint_ring_bytes(plan) : 0;
    TRY(reduce_terms(&sharded, kind == LAYER_EMBEDDING, sharded.state.gradient_bytes <= ring_bytes,
                     err));
    TRY(table_terms(&sharded, err));
    TRY(gather_terms(&sharded, sharded.state.gather_bytes <= ring_bytes, err));
    if (!reads_tied_table(plan, terms->layer))
        return STATUS_OK;
    const struct sharded table = sharded_of(terms, 0, table_update_s);
    return tied_terms(&table, err);
}
