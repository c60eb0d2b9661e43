/* Levelling of layouts: from one whose blocks do as the search chose to one that a target can run.
 */
#include "ir/export_ops.h"
#include <stdio.h>

struct way {
    int value;
    int64_t count;
};

enum { WAYS_MAX = 512 };

/* Ways beyond WAYS_MAX are not offered: a stage has fewer blocks. */
struct ways {
    struct way rows[WAYS_MAX];
    size_t count;
};

struct leveller {
    const struct export_ops *ops;
    const struct model *model;
    struct own_layout *own;
};

static void ways_add(struct ways *ways, int value, int64_t count)
{
    if (ways->count < WAYS_MAX)
        ways->rows[ways->count++] = (struct way){value, count};
}

static struct layout *layout_of(const struct leveller *leveller)
{
    return &leveller->own->layout;
}

/* ---- schedule ---- */

static enum status schedule_ways(const struct leveller *leveller, struct ways *out,
                                 struct error *err)
{
    const struct layout *layout = layout_of(leveller);
    const struct export_ops *ops = leveller->ops;
    bool is_kept = ops->schedules[layout->schedule] &&
                   framework_has_schedule(ops->framework, layout->schedule);
    (void)err;
    ways_add(out, (int)(is_kept || layout->pipeline == 1 ? layout->schedule : SCHEDULE_1F1B), 0);
    return STATUS_OK;
}

static size_t schedule_apply(const struct leveller *leveller, const struct way *way)
{
    struct layout *layout = layout_of(leveller);
    if ((int)layout->schedule == way->value)
        return 0;
    layout->schedule = (enum schedule)way->value;
    layout->virtual_stages = 1;
    return (size_t)leveller->model->blocks;
}

static void schedule_text(const struct leveller *leveller, const struct way *way,
                          char text[EXPORT_TEXT_BYTES])
{
    (void)leveller;
    snprintf(text, EXPORT_TEXT_BYTES, "schedule %s", schedule_name((enum schedule)way->value));
}

/* ---- stages ---- */

enum stage_way { STAGES_AS_THEY_ARE, STAGES_ALIKE };

static enum status stage_ways(const struct leveller *leveller, struct ways *out, struct error *err)
{
    const struct layout *layout = layout_of(leveller);
    const struct export_ops *ops = leveller->ops;
    int64_t stages = layout->pipeline * layout->virtual_stages, blocks = leveller->model->blocks;

    if (ops->only_even_stages && !ops->balances_stages && blocks % stages != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s puts the same number of blocks on every stage, and %lld blocks do not "
                         "divide by %lld stages: plan with --pin pp=N whose N divides them",
                         ops->title, (long long)blocks, (long long)stages);
    ways_add(out, ops->only_even_stages ? STAGES_ALIKE : STAGES_AS_THEY_ARE, 0);
    return STATUS_OK;
}

static size_t stage_apply(const struct leveller *leveller, const struct way *way)
{
    struct own_layout *own = leveller->own;
    size_t moved = 0;
    int64_t block = 0;

    if (way->value == STAGES_AS_THEY_ARE)
        return 0;
    own_layout_cut_evenly(own, leveller->model);
    for (int64_t stage = 0; stage < own->blocks->stages; stage++)
        for (int64_t i = 0; i < own->blocks->stage_blocks[stage]; i++)
            moved += own->blocks->places[block++].stage != stage;
    return moved;
}

static void stage_text(const struct leveller *leveller, const struct way *way,
                       char text[EXPORT_TEXT_BYTES])
{
    (void)way;
    bool is_even = leveller->model->blocks % layout_of(leveller)->pipeline == 0;
    snprintf(text, EXPORT_TEXT_BYTES, "%s blocks on every stage",
             is_even ? "the same number of" : "numbers as equal as can be of");
}

/* ---- sequence parallelism ---- */

static enum status sequence_ways(const struct leveller *leveller, struct ways *out,
                                 struct error *err)
{
    const struct layout *layout = layout_of(leveller);
    bool is_on = layout->sequence_parallel;
    (void)err;
    bool is_kept = layout->tensor == 1 || leveller->ops->sequence_parallel[is_on];
    ways_add(out, is_kept ? is_on : !is_on, 0);
    return STATUS_OK;
}

static size_t sequence_apply(const struct leveller *leveller, const struct way *way)
{
    struct layout *layout = layout_of(leveller);
    if (layout->sequence_parallel == (way->value != 0))
        return 0;
    layout->sequence_parallel = way->value != 0;
    return (size_t)leveller->model->blocks;
}

static void sequence_text(const struct leveller *leveller, const struct way *way,
                          char text[EXPORT_TEXT_BYTES])
{
    (void)leveller;
    snprintf(text, EXPORT_TEXT_BYTES, "sequence parallelism %s", way->value ? "on" : "off");
}

/* ---- attention ---- */

static enum status attention_ways(const struct leveller *leveller, struct ways *out,
                                  struct error *err)
{
    bool is_fused = layout_of(leveller)->fused_attention;
    (void)err;
    ways_add(out, is_fused || !leveller->ops->unfused_attention, 0);
    return STATUS_OK;
}

static size_t attention_apply(const struct leveller *leveller, const struct way *way)
{
    struct layout *layout = layout_of(leveller);
    if (layout->fused_attention == (way->value != 0))
        return 0;
    layout->fused_attention = way->value != 0;
    return (size_t)leveller->model->blocks;
}

static void attention_text(const struct leveller *leveller, const struct way *way,
                           char text[EXPORT_TEXT_BYTES])
{
    (void)leveller;
    snprintf(text, EXPORT_TEXT_BYTES, "fused attention %s", way->value ? "on" : "off");
}

/* ---- arithmetic ---- */

/* What the layout is in without fp8. */
static enum arithmetic exact_arithmetic(const struct layout *layout)
{
    if (layout->arithmetic == ARITHMETIC_TF32)
        return ARITHMETIC_FP32;
    return layout->arithmetic == ARITHMETIC_FP8 ? ARITHMETIC_BF16 : layout->arithmetic;
}

static enum precision precision_of(enum arithmetic arithmetic)
{
    switch (arithmetic) {
    case ARITHMETIC_BF16:
        return PRECISION_BF16;
    case ARITHMETIC_FP16:
        return PRECISION_FP16;
    default:
        return PRECISION_FP32;
    }
}

/* A way: blocks `value` to before `count` keep their fp8. */
static enum status arithmetic_ways(const struct leveller *leveller, struct ways *out,
                                   struct error *err)
{
    const struct own_blocks *blocks = leveller->own->blocks;
    const struct export_ops *ops = leveller->ops;
    enum arithmetic base = exact_arithmetic(layout_of(leveller));
    int64_t count = blocks->blocks, first = 0, end = 0;
    int64_t reach = count / layout_of(leveller)->pipeline; /* Megatron-LM's, of either end */

    if (!ops->precisions[precision_of(base)])
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s does not train in %s: plan with --arithmetic bf16", ops->title,
                         arithmetic_name(base));
    if (ops->fp8 == EXPORT_FP8_ANY)
        end = count;
    for (int64_t i = 0; i < count && ops->fp8 != EXPORT_FP8_ANY; i++) {
        int64_t run = i;
        while (run < count && blocks->modes[run].arithmetic == ARITHMETIC_FP8)
            run++;
        if (run - i > end - first) {
            first = i;
            end = run;
        }
        i = run;
    }
    bool is_run = ops->fp8 == EXPORT_FP8_ANY ||
                  (ops->fp8 == EXPORT_FP8_INNER && first <= reach && count - end <= reach) ||
                  (ops->fp8 == EXPORT_FP8_ALL && end - first == count);
    if (is_run && end > first && base == ARITHMETIC_BF16)
        ways_add(out, (int)first, end);
    ways_add(out, 0, 0);
    return STATUS_OK;
}

/* Of no fp8 or tf32 at all the layout's own arithmetic is another, too. */
static size_t arithmetic_apply(const struct leveller *leveller, const struct way *way)
{
    struct own_blocks *blocks = leveller->own->blocks;
    struct layout *layout = layout_of(leveller);
    enum arithmetic base = exact_arithmetic(layout);
    size_t changed = 0;

    for (int64_t i = 0; i < blocks->blocks; i++) {
        enum arithmetic *has = &blocks->modes[i].arithmetic;
        bool is_kept = *has == ARITHMETIC_FP8 && i >= way->value && i < way->count;
        changed += !is_kept && *has != base;
        if (!is_kept)
            *has = base;
    }
    if (changed > 0 || layout->arithmetic == ARITHMETIC_TF32)
        layout->arithmetic = base;
    return changed;
}

static void arithmetic_text(const struct leveller *leveller, const struct way *way,
                            char text[EXPORT_TEXT_BYTES])
{
    const char *base = arithmetic_name(exact_arithmetic(layout_of(leveller)));
    if (way->count == 0)
        snprintf(text, EXPORT_TEXT_BYTES, "%s in every block", base);
    else
        snprintf(text, EXPORT_TEXT_BYTES, "fp8 in blocks %d to %lld, %s in the others", way->value,
                 (long long)way->count - 1, base);
}

/* ---- recompute ---- */

static enum recompute wanted_recompute(const struct own_blocks *blocks, const struct way *way,
                                       int64_t block)
{
    const struct block_place *place = &blocks->places[block];
    switch ((enum export_recompute)way->value) {
    case EXPORT_FULL:
        return RECOMPUTE_FULL;
    case EXPORT_FULL_FIRST:
        return place->in_chunk < way->count ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    case EXPORT_FULL_EVERY:
        return (place->in_stage + 1) % way->count == 0 ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    case EXPORT_SELECTIVE:
        return RECOMPUTE_SELECTIVE;
    case EXPORT_OWN:
        return blocks->modes[block].recompute;
    default:
        return RECOMPUTE_NONE;
    }
}

/* Full of every number of first blocks of a chunk, from the most to one, and every distance. */
static void add_partial_ways(const struct leveller *leveller, struct ways *out)
{
    const struct own_blocks *blocks = leveller->own->blocks;
    const bool *has = leveller->ops->recompute;
    bool has_first = has[EXPORT_FULL_FIRST] || leveller->ops->own_recompute;
    int64_t chunk = 0, stage = 0;

    for (int64_t i = 0; i < blocks->blocks; i++) {
        const struct block_place *place = &blocks->places[i];
        chunk = place->in_chunk + 1 > chunk ? place->in_chunk + 1 : chunk;
        stage = place->in_stage + 1 > stage ? place->in_stage + 1 : stage;
    }
    for (int64_t count = chunk - 1; has_first && count > 0; count--)
        ways_add(out, EXPORT_FULL_FIRST, count);
    for (int64_t count = 2; has[EXPORT_FULL_EVERY] && count <= stage; count++)
        ways_add(out, EXPORT_FULL_EVERY, count);
}

static enum status recompute_ways(const struct leveller *leveller, struct ways *out,
                                  struct error *err)
{
    (void)err;
    ways_add(out, EXPORT_KEEP, 0);
    if (leveller->ops->recompute[EXPORT_SELECTIVE])
        ways_add(out, EXPORT_SELECTIVE, 0);
    ways_add(out, EXPORT_FULL, 0);
    if (leveller->ops->own_recompute)
        ways_add(out, EXPORT_OWN, 0);
    add_partial_ways(leveller, out);
    return STATUS_OK;
}

/* What cannot wait on the host any more does not. */
static size_t recompute_apply(const struct leveller *leveller, const struct way *way)
{
    struct own_blocks *blocks = leveller->own->blocks;
    size_t changed = 0;

    for (int64_t i = 0; i < blocks->blocks; i++) {
        struct block_mode *mode = &blocks->modes[i];
        enum recompute wanted = wanted_recompute(blocks, way, i);
        changed += mode->recompute != wanted;
        mode->recompute = wanted;
        mode->offload =
            mode->offload && layout_admits_activations_away(layout_of(leveller), wanted);
    }
    return changed;
}

static void recompute_text(const struct leveller *leveller, const struct way *way,
                           char text[EXPORT_TEXT_BYTES])
{
    const char *of = layout_of(leveller)->virtual_stages > 1 ? "virtual stage" : "stage";
    long long count = way->count;
    switch ((enum export_recompute)way->value) {
    case EXPORT_FULL_FIRST:
        snprintf(text, EXPORT_TEXT_BYTES,
                 "full recomputation of the first %lld of each %s's blocks", count, of);
        break;
    case EXPORT_FULL_EVERY:
        snprintf(text, EXPORT_TEXT_BYTES, "full recomputation of one in %lld of a stage's blocks",
                 count);
        break;
    case EXPORT_FULL:
        snprintf(text, EXPORT_TEXT_BYTES, "full recomputation of every block");
        break;
    case EXPORT_SELECTIVE:
        snprintf(text, EXPORT_TEXT_BYTES, "selective recomputation of every block");
        break;
    default:
        snprintf(text, EXPORT_TEXT_BYTES, "no recomputation");
    }
}

/* ---- offload ---- */

static bool is_offloadable(const struct leveller *leveller, const struct way *way, int64_t block)
{
    const struct block_mode *mode = &leveller->own->blocks->modes[block];
    if (leveller->ops->offload == EXPORT_OFFLOAD_CHECKPOINTS)
        return way->count > 0 && mode->recompute == RECOMPUTE_FULL;
    return block < way->count;
}

/* A way: so many blocks. */
static enum status offload_ways(const struct leveller *leveller, struct ways *out,
                                struct error *err)
{
    const struct own_blocks *blocks = leveller->own->blocks;
    bool keeps_all = layout_of(leveller)->pipeline == 1;
    int64_t planned = 0, full = 0;

    (void)err;
    for (int64_t i = 0; i < blocks->blocks; i++) {
        planned += blocks->modes[i].offload;
        full += blocks->modes[i].recompute == RECOMPUTE_FULL;
        keeps_all = keeps_all && blocks->modes[i].recompute == RECOMPUTE_NONE;
    }
    if (leveller->ops->offload == EXPORT_OFFLOAD_FIRST && keeps_all && planned > 0)
        ways_add(out, 0, planned);
    if (leveller->ops->offload == EXPORT_OFFLOAD_CHECKPOINTS && planned > 0 && full > 0)
        ways_add(out, 0, full);
    ways_add(out, 0, 0);
    return STATUS_OK;
}

static size_t offload_apply(const struct leveller *leveller, const struct way *way)
{
    struct own_blocks *blocks = leveller->own->blocks;
    size_t changed = 0;

    for (int64_t i = 0; i < blocks->blocks; i++) {
        bool wanted = is_offloadable(leveller, way, i);
        changed += blocks->modes[i].offload != wanted;
        blocks->modes[i].offload = wanted;
    }
    return changed;
}

static void offload_text(const struct leveller *leveller, const struct way *way,
                         char text[EXPORT_TEXT_BYTES])
{
    bool is_first = leveller->ops->offload == EXPORT_OFFLOAD_FIRST;
    if (way->count == 0)
        snprintf(text, EXPORT_TEXT_BYTES, "all activations on the device");
    else
        snprintf(text, EXPORT_TEXT_BYTES, "activations of %s%lld blocks on the host",
                 is_first ? "the first " : "all recomputed ", (long long)way->count);
}

static enum status optimizer_ways(const struct leveller *leveller, struct ways *out,
                                  struct error *err)
{
    (void)err;
    ways_add(out, layout_of(leveller)->offload_optimizer && leveller->ops->optimizer_away, 0);
    return STATUS_OK;
}

static size_t optimizer_apply(const struct leveller *leveller, const struct way *way)
{
    struct layout *layout = layout_of(leveller);
    if (layout->offload_optimizer == (way->value != 0))
        return 0;
    layout->offload_optimizer = way->value != 0;
    return (size_t)leveller->model->blocks;
}

static void optimizer_text(const struct leveller *leveller, const struct way *way,
                           char text[EXPORT_TEXT_BYTES])
{
    (void)leveller;
    snprintf(text, EXPORT_TEXT_BYTES, "the optimizer on the %s", way->value ? "host" : "device");
}

/* ---- ZeRO ---- */

static int64_t replicas_of(const struct layout *layout)
{
    return layout->data * layout->context;
}

static bool admits_stage(const struct leveller *leveller, int stage)
{
    const struct layout *layout = layout_of(leveller);
    const struct plan plan = {.pipeline = (int)layout->pipeline,
                              .tensor_parallel = (int)layout->tensor};
    return framework_has_zero_stage(leveller->ops->framework, stage) &&
           leveller->ops->admits_zero(&plan, stage);
}

static bool admits_shard(const struct leveller *leveller, int stage, int64_t shard)
{
    struct layout layout = *layout_of(leveller);
    layout.framework = leveller->ops->framework;
    layout.zero_stage = stage;
    layout.shard = shard;
    if (shard == replicas_of(&layout))
        return true;
    return framework_has_part_shard(layout.framework, stage) && leveller->ops->part_shard[stage] &&
           (!leveller->ops->shards_sequences || shard % layout.context == 0);
}

/* The planned share, or the next smaller one that the target has: over more devices. */
static void add_shards(const struct leveller *leveller, int stage, struct ways *out)
{
    const struct layout *layout = layout_of(leveller);
    int64_t all = replicas_of(layout);

    if (stage == 0) {
        ways_add(out, 0, 1);
        return;
    }
    int64_t shard = layout->zero_stage == 0 ? all : layout->shard;
    while (shard < all && (all % shard != 0 || !admits_shard(leveller, stage, shard)))
        shard++;
    ways_add(out, stage, shard);
    if (shard < all)
        ways_add(out, stage, all);
}

/* The planned stage; else the next leaner, and the next that is less lean. */
static enum status zero_ways(const struct leveller *leveller, struct ways *out, struct error *err)
{
    int planned = layout_of(leveller)->zero_stage;

    if (admits_stage(leveller, planned)) {
        add_shards(leveller, planned, out);
        return STATUS_OK;
    }
    for (int stage = planned + 1; stage <= 3 && out->count == 0; stage++)
        if (admits_stage(leveller, stage))
            add_shards(leveller, stage, out);
    for (int stage = planned - 1; stage >= 0; stage--) {
        if (admits_stage(leveller, stage)) {
            add_shards(leveller, stage, out);
            break;
        }
    }
    if (out->count == 0)
        return error_set(err, STATUS_UNSUPPORTED, "%s has no ZeRO stage for the layout",
                         leveller->ops->title);
    return STATUS_OK;
}

static size_t zero_apply(const struct leveller *leveller, const struct way *way)
{
    struct layout *layout = layout_of(leveller);
    bool is_same = layout->framework == leveller->ops->framework &&
                   layout->zero_stage == way->value && layout->shard == way->count;

    layout->framework = leveller->ops->framework;
    layout->zero_stage = way->value;
    layout->shard = way->count;
    layout->offload_optimizer = layout->offload_optimizer && layout_admits_optimizer_away(layout);
    return is_same ? 0 : (size_t)leveller->model->blocks;
}

static void zero_text(const struct leveller *leveller, const struct way *way,
                      char text[EXPORT_TEXT_BYTES])
{
    const struct layout *layout = layout_of(leveller);
    int bytes = snprintf(text, EXPORT_TEXT_BYTES, "ZeRO stage %d", way->value);
    if (way->value > 0 && way->count < replicas_of(layout))
        bytes += snprintf(text + bytes, EXPORT_TEXT_BYTES - (size_t)bytes, " over %lld devices",
                          (long long)way->count);
    snprintf(text + bytes, EXPORT_TEXT_BYTES - (size_t)bytes, " of %s",
             framework_name(leveller->ops->framework));
}

/* ---- all of them ---- */

static const struct field_rule {
    const char *name;
    /* `out` is empty; STATUS_UNSUPPORTED when it stays so. */
    enum status (*ways)(const struct leveller *leveller, struct ways *out, struct error *err);
    size_t (*apply)(const struct leveller *leveller, const struct way *way); /* blocks changed */
    void (*describe)(const struct leveller *leveller, const struct way *way,
                     char text[EXPORT_TEXT_BYTES]);
} rules[HANDOVER_FIELD_COUNT] = {
    [HANDOVER_SCHEDULE] = {"schedule", schedule_ways, schedule_apply, schedule_text},
    [HANDOVER_STAGES] = {"stage", stage_ways, stage_apply, stage_text},
    [HANDOVER_SEQUENCE] = {"sequence_parallel", sequence_ways, sequence_apply, sequence_text},
    [HANDOVER_ARITHMETIC] = {"arithmetic", arithmetic_ways, arithmetic_apply, arithmetic_text},
    [HANDOVER_ATTENTION] = {"fused_attention", attention_ways, attention_apply, attention_text},
    [HANDOVER_RECOMPUTE] = {"recompute", recompute_ways, recompute_apply, recompute_text},
    [HANDOVER_OFFLOAD_ACTIVATIONS] = {"offload_activations", offload_ways, offload_apply,
                                      offload_text},
    [HANDOVER_OFFLOAD_OPTIMIZER] = {"offload_optimizer", optimizer_ways, optimizer_apply,
                                    optimizer_text},
    [HANDOVER_ZERO] = {"zero_stage", zero_ways, zero_apply, zero_text},
};

const char *handover_field_name(enum handover_field field)
{
    return rules[field].name;
}

/* One that leaves the field as it is is the only one: found by trying each on a copy. */
static enum status keep_exact_way(const struct leveller *leveller, const struct field_rule *rule,
                                  struct ways *ways, struct error *err)
{
    for (size_t i = 0; i < ways->count; i++) {
        struct own_layout copy;
        TRY(own_layout_open(&copy, &leveller->own->layout, leveller->model, err));
        const struct leveller trial = {leveller->ops, leveller->model, &copy};
        bool is_exact = rule->apply(&trial, &ways->rows[i]) == 0;
        own_layout_free(&copy);
        if (is_exact) {
            ways->rows[0] = ways->rows[i];
            ways->count = 1;
            return STATUS_OK;
        }
    }
    return STATUS_OK;
}

static enum status find_ways(const struct leveller *leveller, const struct handover_choice *choice,
                             struct ways *out, struct error *err)
{
    const struct field_rule *rule = &rules[choice->field];
    out->count = 0;
    TRY(rule->ways(leveller, out, err));
    return choice->all ? STATUS_OK : keep_exact_way(leveller, rule, out, err);
}

enum status export_layout_level(enum export_target target, const struct handover_choice *choice,
                                size_t way, const struct model *model, struct own_layout *layout,
                                struct export_way *out, struct error *err)
{
    const struct leveller leveller = {export_ops_of(target), model, layout};
    const struct field_rule *rule = &rules[choice->field];
    struct ways ways;

    TRY(find_ways(&leveller, choice, &ways, err));
    *out = (struct export_way){.exists = way < ways.count};
    if (!out->exists)
        return STATUS_OK;
    rule->describe(&leveller, &ways.rows[way], out->text);
    out->changed = rule->apply(&leveller, &ways.rows[way]);
    if (out->changed > 0)
        own_layout_settle(layout, model);
    return STATUS_OK;
}

/* The way in which the target runs a field that is level. */
static enum status level_way(const struct leveller *leveller, enum handover_field field,
                             struct way *out, struct error *err)
{
    struct own_layout copy;
    struct ways ways;
    char text[EXPORT_TEXT_BYTES];

    const struct handover_choice choice = {field, false};
    TRY(find_ways(leveller, &choice, &ways, err));
    TRY(own_layout_open(&copy, &leveller->own->layout, leveller->model, err));
    const struct leveller trial = {leveller->ops, leveller->model, &copy};
    bool is_level = rules[field].apply(&trial, &ways.rows[0]) == 0;
    own_layout_free(&copy);
    *out = ways.rows[0];
    if (is_level)
        return STATUS_OK;
    rules[field].describe(leveller, &ways.rows[0], text);
    return error_set(err, STATUS_UNSUPPORTED, "%s cannot run this '%s', it would run %s",
                     leveller->ops->title, rules[field].name, text);
}

enum status layout_ways_of(const struct export_ops *ops, const struct model *model,
                           const struct own_layout *layout, struct layout_ways *out,
                           struct error *err)
{
    struct own_layout copy = *layout; /* nothing of it is changed */
    const struct leveller leveller = {ops, model, &copy};
    struct way ways[HANDOVER_FIELD_COUNT];

    for (int field = 0; field < HANDOVER_FIELD_COUNT; field++)
        TRY(level_way(&leveller, (enum handover_field)field, &ways[field], err));
    *out = (struct layout_ways){
        .recompute = (enum export_recompute)ways[HANDOVER_RECOMPUTE].value,
        .recompute_count = ways[HANDOVER_RECOMPUTE].count,
        .first_16_bit = ways[HANDOVER_ARITHMETIC].value,
        .last_16_bit = model->blocks - ways[HANDOVER_ARITHMETIC].count,
        .offloaded = ways[HANDOVER_OFFLOAD_ACTIVATIONS].count,
    };
    return STATUS_OK;
}
