#include "ir/state.h"

#include "ir/footprint.h"
#include "ir/mesh.h"
#include <assert.h>

static bool is_16_bit(enum precision precision)
{
    return precision_bytes(precision) == 2;
}

static uint64_t fp32_bytes(uint64_t count)
{
    return count * sizeof(float);
}

static uint64_t half_bytes(uint64_t count)
{
    return count * sizeof(uint16_t);
}

enum precision layer_gradient_precision(const struct plan *plan, size_t layer)
{
    bool is_table = model_layer(&plan->model, layer).kind == LAYER_EMBEDDING;
    if (plan->gradient_reduction != GRADIENTS_BF16)
        return PRECISION_FP32;
    if (is_table && !plan->model.tied_head)
        return PRECISION_BF16;
    const struct layer_strategy *decides = &plan->layers[is_table ? plan->layer_count - 1 : layer];
    return decides->precision == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_FP32;
}

/* Where the matrices' elements are kept: the table in state.h. */
static void split_matrices(struct layer_state *state, int zero_stage, enum precision precision)
{
    uint64_t whole = state->partition.count;
    uint64_t share = partition_share(&state->partition); /* under ZeRO 0 the same */
    bool keeps_whole = zero_stage < 3, halved = is_16_bit(precision);

    state->whole_fp32 = keeps_whole && !halved ? whole : 0;
    state->whole_16 = keeps_whole && halved ? whole : 0;
    state->shard_fp32 = keeps_whole && !halved ? 0 : share;
    state->shard_16 = !keeps_whole && halved ? share : 0;
    state->gradients = zero_stage < 2 ? whole : share;
    state->moments = share;
    state->gather_bytes = keeps_whole ? 0 : halved ? half_bytes(whole) : fp32_bytes(whole);
    state->gradient_bytes = zero_stage < 2 ? 0 : whole * precision_bytes(state->gradient_precision);
}

static uint64_t table_count(const struct plan *plan, const struct layer_part *part)
{
    return (uint64_t)part_vocab_rows(&plan->model, part) * (uint64_t)plan->model.hidden;
}

/* A tied head on the embedding's stage works on the embedding's table: the two share what of it is
 * whole or transient. */
static void share_table(const struct plan *plan, const struct layer_part *part,
                        struct layer_state *state)
{
    const struct layer_strategy *embedding = &plan->layers[0];
    bool halved = is_16_bit(plan->layers[plan->layer_count - 1].precision);

    if (!plan->model.tied_head || plan->pipeline > 1)
        return;
    if (part->kind == LAYER_EMBEDDING && halved && embedding->zero_stage < 3)
        state->table_16 = table_count(plan, part);
    if (part->kind == LAYER_HEAD) {
        struct layer_state owner;
        layer_state_of(plan, 0, &owner);
        state->gradient_bytes = owner.gradient_bytes;
        state->gather_bytes = owner.gather_bytes;
        if (halved && embedding->zero_stage == 3)
            state->gather_bytes += half_bytes(table_count(plan, part));
    }
}

void layer_state_of(const struct plan *plan, size_t layer, struct layer_state *out)
{
    assert(layer < plan->layer_count);
    const struct layer_strategy *strategy = &plan->layers[layer];
    struct layer_part part = mesh_part(plan, layer, 0);
    struct part_counts counts = layer_part_counts(&plan->model, &part);
    int ways = strategy->zero_stage > 0 ? mesh_data_ways(plan, layer) : 1;
    *out = (struct layer_state){
        .partition = {.count = partition_padded(counts.matrices, ways), .ways = ways},
        .vectors = counts.vectors,
        .gradient_precision = layer_gradient_precision(plan, layer),
    };
    split_matrices(out, strategy->zero_stage, strategy->precision);
    share_table(plan, &part, out);
}

uint64_t layer_state_parameter_bytes(const struct layer_state *state)
{
    return footprint_region_bytes(fp32_bytes(state->whole_fp32)) +
           footprint_region_bytes(half_bytes(state->whole_16)) +
           footprint_region_bytes(fp32_bytes(state->shard_fp32)) +
           footprint_region_bytes(half_bytes(state->shard_16)) +
           footprint_region_bytes(half_bytes(state->table_16)) +
           footprint_region_bytes(fp32_bytes(state->vectors));
}

uint64_t layer_state_gradient_bytes(const struct layer_state *state)
{
    uint64_t bytes = state->gradients * precision_bytes(state->gradient_precision);
    return footprint_region_bytes(bytes) + footprint_region_bytes(fp32_bytes(state->vectors));
}

uint64_t layer_state_optimizer_bytes(const struct layer_state *state)
{
    return 2 * (footprint_region_bytes(fp32_bytes(state->moments)) +
                footprint_region_bytes(fp32_bytes(state->vectors)));
}
