#include "cli/cluster_pins.h"

static enum status refuse(const char *key, const char *why, struct error *err)
{
    return error_set(err, STATUS_USAGE, "--pin %s: %s with --cluster", key, why);
}

/* What is pinned for attention must be pinned for all kinds. */
static enum status check_alike(const struct pins *pins, struct error *err)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        bool is_alike =
            pins->tensor_parallel[kind] == pins->tensor_parallel[LAYER_ATTENTION] &&
            pins->sequence_parallel_fixed[kind] == pins->sequence_parallel_fixed[LAYER_ATTENTION] &&
            pins->sequence_parallel[kind] == pins->sequence_parallel[LAYER_ATTENTION] &&
            pins->zero_fixed[kind] == pins->zero_fixed[LAYER_ATTENTION] &&
            pins->zero_stage[kind] == pins->zero_stage[LAYER_ATTENTION] &&
            pins->recompute_fixed[kind] == pins->recompute_fixed[LAYER_ATTENTION] &&
            pins->recompute[kind] == pins->recompute[LAYER_ATTENTION];
        if (!is_alike)
            return refuse(layer_kind_name((enum layer_kind)kind), "all layers have the same split",
                          err);
        if (pins->attention_fixed[kind])
            return refuse("attention", "use fused-attention=on or off", err);
        if (pins->precision_fixed[kind])
            return refuse("precision", "use --arithmetic, or arithmetic:A-B for some blocks", err);
    }
    return STATUS_OK;
}

static enum status check_range(const struct range_pin *range, struct error *err)
{
    if (range->kind != LAYER_KIND_COUNT)
        return refuse(pin_mode_name(range->mode),
                      "a block has one mode for attention and mlp: pin its blocks without a kind",
                      err);
    if (range->mode == PIN_PRECISION)
        return refuse("precision", "use arithmetic:A-B", err);
    if (range->mode == PIN_ATTENTION)
        return refuse("attention", "use fused-attention=on or off for all blocks", err);
    if (range->mode != PIN_RECOMPUTE && range->mode != PIN_ARITHMETIC)
        return refuse(pin_mode_name(range->mode), "all blocks have the same split", err);
    return STATUS_OK;
}

static struct block_pin pin_of_block(const struct pins *pins, int64_t block)
{
    struct block_pin pin = {.first = block, .last = block, .recompute = -1, .arithmetic = -1};
    for (size_t i = 0; i < pins->range_count; i++) {
        const struct range_pin *range = &pins->ranges[i];
        if (block < range->first || block > range->last)
            continue;
        if (range->mode == PIN_RECOMPUTE)
            pin.recompute = range->value;
        else
            pin.arithmetic = range->value;
    }
    return pin;
}

/* Ranges of recompute and of arithmetic may overlap: as runs of blocks that are pinned alike. */
static enum status take_blocks(const struct pins *pins, const struct model *model,
                               struct layout_pins *out, struct error *err)
{
    for (size_t i = 0; i < pins->range_count; i++)
        TRY(check_range(&pins->ranges[i], err));
    for (int64_t block = 0; pins->range_count > 0 && block < model->blocks; block++) {
        const struct block_pin pin = pin_of_block(pins, block);
        struct block_pin *last = out->block_count > 0 ? &out->blocks[out->block_count - 1] : NULL;
        if (pin.recompute < 0 && pin.arithmetic < 0)
            continue;
        if (last != NULL && last->last == block - 1 && last->recompute == pin.recompute &&
            last->arithmetic == pin.arithmetic)
            last->last = block;
        else
            out->blocks[out->block_count++] = pin;
    }
    return STATUS_OK;
}

enum status cluster_pins_take(const struct pins *pins, const struct model *model,
                              struct layout_pins *out, struct error *err)
{
    *out = layout_pins_none();
    TRY(check_alike(pins, err));
    TRY(pins_check_model(pins, model, err));
    TRY(take_blocks(pins, model, out, err));
    if (pins->threads > 0)
        return refuse("threads", "devices have none", err);
    if (pins->micro_batches > 0)
        return refuse("micro-batches", "pin micro-batch", err);
    if (pins->gradients_fixed)
        return refuse("gradients", "each framework sums as it does by default", err);
    if (pins->expert > 1 && model->experts == 0)
        return error_set(err, STATUS_USAGE, "--pin ep=%d: %s has no experts", pins->expert,
                         model->name);
    if (pins->context > 1 && pins->fused_attention_fixed && !pins->fused_attention)
        return error_set(err, STATUS_USAGE,
                         "--pin cp=%d,fused-attention=off: over a ring of devices attention is "
                         "fused",
                         pins->context);
    out->pipeline = pins->pipeline;
    out->virtual_stages = pins->virtual_stages;
    out->data = pins->data_parallel;
    out->micro_batch = pins->micro_batch;
    out->context = pins->context;
    out->expert = pins->expert;
    out->shard = pins->shard;
    out->tensor = pins->tensor_parallel[LAYER_ATTENTION];
    if (pins->schedule_fixed)
        out->schedule = (int)pins->schedule;
    if (pins->offload_fixed)
        out->offload = (int)pins->offload;
    if (pins->fused_attention_fixed)
        out->fused_attention = pins->fused_attention;
    if (pins->overlap_fixed)
        out->overlap = pins->overlap;
    if (pins->sequence_parallel_fixed[LAYER_ATTENTION])
        out->sequence_parallel = pins->sequence_parallel[LAYER_ATTENTION];
    if (pins->zero_fixed[LAYER_ATTENTION])
        out->zero_stage = pins->zero_stage[LAYER_ATTENTION];
    if (pins->recompute_fixed[LAYER_ATTENTION])
        out->recompute = (int)pins->recompute[LAYER_ATTENTION];
    return STATUS_OK;
}

enum status cluster_pins_check_executable(const struct layout_pins *pins, struct error *err)
{
    const char *key = pins->context > 1                           ? "cp"
                      : pins->expert > 1                          ? "ep"
                      : pins->offload > 0                         ? "offload"
                      : pins->schedule >= (int)SCHEDULE_RUN_COUNT ? "schedule"
                                                                  : NULL;
    for (size_t i = 0; i < pins->block_count; i++) {
        int arithmetic = pins->blocks[i].arithmetic;
        if (arithmetic == ARITHMETIC_FP8 || arithmetic == ARITHMETIC_TF32)
            key = "arithmetic";
    }
    if (key == NULL)
        return STATUS_OK;
    return error_set(err, STATUS_USAGE,
                     "--pin %s: it is plan-only, and --executable leaves such plans out", key);
}
