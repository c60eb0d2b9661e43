/* Levelling: from a plan with a strategy for each layer to one that a target can run. */
#include "ir/export_ops.h"
#include "ir/mesh.h"
#include <stdio.h>
#include <string.h>

/* A value that a field may have, and of what it counts how many. */
struct way {
    int value;
    int64_t count;
};

enum { WAYS_MAX = 16 };

struct ways {
    struct way rows[WAYS_MAX];
    size_t count;
};

/* Ways beyond WAYS_MAX are not offered: more than a chain of layers has in practice. */
static void ways_add(struct ways *ways, int value, int64_t count)
{
    if (ways->count < WAYS_MAX)
        ways->rows[ways->count++] = (struct way){.value = value, .count = count};
}

static size_t attention_of(int64_t block)
{
    return (size_t)(2 * block + 1);
}

static size_t mlp_of(int64_t block)
{
    return (size_t)(2 * block + 2);
}

/* ---- tensor-parallel degree ---- */

static enum status tensor_ways(const struct export_ops *ops, const struct plan *plan,
                               struct ways *out, struct error *err)
{
    (void)ops;
    (void)err;
    for (int degree = plan->tensor_parallel; degree >= 1; degree--) {
        bool is_used = false;
        for (size_t i = 0; i < plan->layer_count; i++)
            is_used = is_used || plan->layers[i].tensor_parallel == degree;
        if (is_used)
            ways_add(out, degree, 0);
    }
    return STATUS_OK;
}

/* A layer of degree t already computes t / T of the micro-batch in each of its groups: as many
 * replicas are what is left of the tensor-parallel ranks. */
static size_t tensor_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;
    int replicas = plan->tensor_parallel / way->value;

    for (size_t i = 0; i < plan->layer_count; i++) {
        struct layer_strategy *strategy = &plan->layers[i];
        changed += strategy->tensor_parallel != way->value;
        strategy->tensor_parallel = way->value;
        strategy->sequence_parallel = strategy->sequence_parallel && way->value > 1;
    }
    plan->tensor_parallel = way->value;
    plan->data_parallel *= replicas;
    plan->micro_batch /= replicas;
    return changed;
}

static void tensor_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    snprintf(text, EXPORT_TEXT_BYTES, "tensor_parallel %d in every layer", way->value);
}

/* ---- schedule ---- */

static enum status schedule_ways(const struct export_ops *ops, const struct plan *plan,
                                 struct ways *out, struct error *err)
{
    (void)err;
    bool is_kept = plan->pipeline == 1 || ops->schedules[plan->schedule];
    ways_add(out, (int)(is_kept ? plan->schedule : SCHEDULE_1F1B), 0);
    return STATUS_OK;
}

size_t export_cut_evenly(struct plan *plan)
{
    int stages = plan->pipeline * plan->virtual_stages;
    size_t changed = 0;

    for (size_t i = 0; i < plan->layer_count; i++) {
        struct layer layer = model_layer(&plan->model, i);
        int stage = (int)(layer.block * stages / plan->model.blocks);
        if (layer.kind == LAYER_HEAD)
            stage = stages - 1;
        changed += plan->layers[i].stage != stage;
        plan->layers[i].stage = stage;
    }
    return changed;
}

static size_t schedule_apply(struct plan *plan, const struct way *way)
{
    if ((int)plan->schedule == way->value)
        return 0;
    plan->schedule = (enum schedule)way->value;
    if (plan->virtual_stages > 1) {
        plan->virtual_stages = 1;
        export_cut_evenly(plan);
    }
    return 1;
}

static void schedule_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    snprintf(text, EXPORT_TEXT_BYTES, "schedule %s", schedule_name((enum schedule)way->value));
}

/* ---- stages ---- */

enum stage_cut { CUT_BY_ATTENTION, CUT_BY_MLP, CUT_EVENLY };

static enum status stage_ways(const struct export_ops *ops, const struct plan *plan,
                              struct ways *out, struct error *err)
{
    int stages = plan->pipeline * plan->virtual_stages;
    bool divides = plan->model.blocks % stages == 0;

    if (!ops->only_even_stages) {
        ways_add(out, CUT_BY_ATTENTION, 0);
        ways_add(out, CUT_BY_MLP, 0);
    }
    if (divides)
        ways_add(out, CUT_EVENLY, 0);
    if (out->count == 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s puts the same number of blocks on every stage, and %lld blocks do not "
                         "divide by %d stages: plan with --pin pp=N whose N divides them",
                         ops->title, (long long)plan->model.blocks, stages);
    return STATUS_OK;
}

static size_t stage_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;

    if (way->value == CUT_EVENLY)
        return export_cut_evenly(plan);
    for (int64_t block = 0; block < plan->model.blocks; block++) {
        int *attention = &plan->layers[attention_of(block)].stage;
        int *mlp = &plan->layers[mlp_of(block)].stage;
        changed += *attention != *mlp;
        if (way->value == CUT_BY_ATTENTION)
            *mlp = *attention;
        else
            *attention = *mlp;
    }
    return changed;
}

static void stage_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    static const char *const texts[] = {
        [CUT_BY_ATTENTION] = "each block's mlp on its attention's stage",
        [CUT_BY_MLP] = "each block's attention on its mlp's stage",
        [CUT_EVENLY] = "the same number of blocks on every stage",
    };
    snprintf(text, EXPORT_TEXT_BYTES, "%s", texts[way->value]);
}

/* ---- sequence parallelism ---- */

static enum status sequence_ways(const struct export_ops *ops, const struct plan *plan,
                                 struct ways *out, struct error *err)
{
    bool is_used[2] = {false, false};

    (void)err;
    for (size_t i = 0; i < plan->layer_count; i++)
        is_used[plan->layers[i].sequence_parallel] = true;
    for (int on = 1; on >= 0; on--) {
        if (plan->tensor_parallel > 1 && is_used[on] && ops->sequence_parallel[on])
            ways_add(out, on, 0);
    }
    if (out->count == 0) /* one rank has nothing to share, or the target has the other one only */
        ways_add(out, plan->tensor_parallel > 1 && ops->sequence_parallel[1], 0);
    return STATUS_OK;
}

static size_t sequence_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;

    for (size_t i = 0; i < plan->layer_count; i++) {
        changed += plan->layers[i].sequence_parallel != (way->value != 0);
        plan->layers[i].sequence_parallel = way->value != 0;
    }
    return changed;
}

static void sequence_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    snprintf(text, EXPORT_TEXT_BYTES, "sequence parallelism %s in every layer",
             way->value ? "on" : "off");
}

/* ---- precision ---- */

/* Of layers that differ, fp32 for all: a target may be slower than the plan, never less exact. */
static enum status precision_ways(const struct export_ops *ops, const struct plan *plan,
                                  struct ways *out, struct error *err)
{
    enum precision precision = plan->layers[plan->layer_count - 1].precision;

    for (size_t i = 1; i < plan->layer_count; i++) {
        if (plan->layers[i].precision != precision)
            precision = PRECISION_FP32;
    }
    if (!ops->precisions[precision])
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s does not train in %s: plan with --pin precision=bf16", ops->title,
                         precision_name(precision));
    ways_add(out, (int)precision, 0);
    return STATUS_OK;
}

static size_t precision_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;

    for (size_t i = 1; i < plan->layer_count; i++) {
        changed += (int)plan->layers[i].precision != way->value;
        plan->layers[i].precision = (enum precision)way->value;
    }
    return changed;
}

static void precision_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    snprintf(text, EXPORT_TEXT_BYTES,
             "%s in every layer; --pin precision=bf16 plans one 16-bit precision instead",
             precision_name((enum precision)way->value));
}

/* ---- ZeRO ---- */

/* The least stage from `first` on that the target has; -1: none. */
static int next_zero(const struct export_ops *ops, const struct plan *plan, int first)
{
    for (int stage = first; stage <= 3; stage++) {
        if (ops->admits_zero(plan, stage))
            return stage;
    }
    return -1;
}

/* Those between the plan's least and most; of a most that the target lacks also the next leaner. */
static enum status zero_ways(const struct export_ops *ops, const struct plan *plan,
                             struct ways *out, struct error *err)
{
    int least = 3, most = 0;

    (void)err;
    if (plan->data_parallel == 1) { /* nobody to share with */
        ways_add(out, 0, 0);
        return STATUS_OK;
    }
    for (size_t i = 0; i < plan->layer_count; i++) {
        int stage = plan->layers[i].zero_stage;
        least = stage < least ? stage : least;
        most = stage > most ? stage : most;
    }
    int leaner = next_zero(ops, plan, most);
    if (leaner > most)
        ways_add(out, leaner, 0);
    for (int stage = most; stage >= 0 && (stage >= least || out->count == 0); stage--) {
        if (ops->admits_zero(plan, stage))
            ways_add(out, stage, 0);
    }
    return STATUS_OK;
}

static size_t zero_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;

    for (size_t i = 0; i < plan->layer_count; i++) {
        changed += plan->layers[i].zero_stage != way->value;
        plan->layers[i].zero_stage = way->value;
    }
    return plan->data_parallel > 1 ? changed : 0;
}

static void zero_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    snprintf(text, EXPORT_TEXT_BYTES, "ZeRO stage %d in every layer", way->value);
}

/* ---- recompute ---- */

static bool is_full(const struct plan *plan, int64_t block)
{
    return plan->layers[attention_of(block)].recompute == RECOMPUTE_FULL &&
           plan->layers[mlp_of(block)].recompute == RECOMPUTE_FULL;
}

/* The block's number on its virtual stage, or on its stage, from 0. */
static int64_t place_on_virtual_stage(const struct plan *plan, int64_t block)
{
    int64_t place = 0;

    for (int64_t i = 0; i < block; i++)
        place += plan->layers[attention_of(i)].stage == plan->layers[attention_of(block)].stage;
    return place;
}

static int64_t place_on_stage(const struct plan *plan, int64_t block)
{
    int64_t place = 0;

    for (int64_t i = 0; i < block; i++)
        place +=
            mesh_layer_stage(plan, attention_of(i)) == mesh_layer_stage(plan, attention_of(block));
    return place;
}

/* Is all of this block recomputed? */
static bool recomputes_block(const struct plan *plan, const struct way *way, int64_t block)
{
    switch ((enum export_recompute)way->value) {
    case EXPORT_FULL:
        return true;
    case EXPORT_FULL_FIRST:
        return place_on_virtual_stage(plan, block) < way->count;
    case EXPORT_FULL_EVERY:
        return (place_on_stage(plan, block) + 1) % way->count == 0;
    default:
        return false;
    }
}

static bool recompute_matches(const struct plan *plan, const struct way *way)
{
    for (int64_t block = 0; block < plan->model.blocks; block++) {
        if (recomputes_block(plan, way, block) != is_full(plan, block))
            return false;
    }
    return true;
}

/* Blocks that are full on the virtual stage that has most of them. */
static int64_t first_count(const struct plan *plan)
{
    int64_t most = 0;

    for (int stage = 0; stage < plan->pipeline * plan->virtual_stages; stage++) {
        int64_t count = 0;
        for (int64_t block = 0; block < plan->model.blocks; block++)
            count += plan->layers[attention_of(block)].stage == stage && is_full(plan, block);
        most = count > most ? count : most;
    }
    return most;
}

/* The distance that fits exactly, else the one that recomputes no less than the plan. */
static int64_t every_count(const struct plan *plan, int64_t full)
{
    for (int64_t count = 2; count <= plan->model.blocks; count++) {
        struct way way = {.value = EXPORT_FULL_EVERY, .count = count};
        if (recompute_matches(plan, &way))
            return count;
    }
    return plan->model.blocks / full > 2 ? plan->model.blocks / full : 2;
}

static enum status recompute_ways(const struct export_ops *ops, const struct plan *plan,
                                  struct ways *out, struct error *err)
{
    int64_t full = 0;

    (void)err;
    for (int64_t block = 0; block < plan->model.blocks; block++)
        full += is_full(plan, block);
    bool is_partial = full > 0 && full < plan->model.blocks;
    for (int i = 0; i < EXPORT_RECOMPUTE_COUNT; i++) {
        if (!ops->recompute[i])
            continue;
        if (i == EXPORT_FULL_FIRST && is_partial)
            ways_add(out, i, first_count(plan));
        else if (i == EXPORT_FULL_EVERY && is_partial)
            ways_add(out, i, every_count(plan, full));
        else if (i != EXPORT_FULL_FIRST && i != EXPORT_FULL_EVERY)
            ways_add(out, i, 0);
    }
    return STATUS_OK;
}

/* Of a block that is not recomputed as a whole. No target makes the outputs of norms and activation
 * functions again by themselves, which is all that is selective in tiles and in an mlp. */
static enum recompute attention_wanted(const struct way *way, const struct layer_strategy *layer)
{
    bool is_selective = way->value == EXPORT_SELECTIVE || way->value == EXPORT_SELECTIVE_MLP;
    return is_selective && layer->attention == ATTENTION_PLAIN ? RECOMPUTE_SELECTIVE
                                                               : RECOMPUTE_NONE;
}

static size_t recompute_apply(struct plan *plan, const struct way *way)
{
    size_t changed = 0;

    for (int64_t block = 0; block < plan->model.blocks; block++) {
        bool full = recomputes_block(plan, way, block);
        enum recompute attention = attention_wanted(way, &plan->layers[attention_of(block)]);
        enum recompute mlp = way->value == EXPORT_SELECTIVE_MLP ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        struct layer_strategy *layers[] = {&plan->layers[attention_of(block)],
                                           &plan->layers[mlp_of(block)]};
        enum recompute wanted[] = {full ? RECOMPUTE_FULL : attention, full ? RECOMPUTE_FULL : mlp};
        for (int i = 0; i < 2; i++) {
            changed += layers[i]->recompute != wanted[i];
            layers[i]->recompute = wanted[i];
        }
    }
    return changed;
}

static void recompute_text(const struct way *way, char text[EXPORT_TEXT_BYTES])
{
    static const char *const texts[EXPORT_RECOMPUTE_COUNT] = {
        [EXPORT_FULL] = "full recomputation of every block",
        [EXPORT_FULL_FIRST] = "full recomputation of the first blocks of every virtual stage: ",
        [EXPORT_FULL_EVERY] = "full recomputation of one block of a stage in ",
        [EXPORT_SELECTIVE_MLP] = "recomputation of attention probabilities and of the mlp",
        [EXPORT_SELECTIVE] = "recomputation of attention probabilities alone",
        [EXPORT_KEEP] = "no recomputation",
    };
    snprintf(text, EXPORT_TEXT_BYTES, "%s", texts[way->value]);
    if (way->count > 0)
        snprintf(text + strlen(text), EXPORT_TEXT_BYTES - strlen(text), "%lld",
                 (long long)way->count);
}

/* ---- all of them ---- */

static const struct field_rule {
    const char *name;
    /* `out` is empty; STATUS_UNSUPPORTED when it stays so. */
    enum status (*ways)(const struct export_ops *ops, const struct plan *plan, struct ways *out,
                        struct error *err);
    size_t (*apply)(struct plan *plan, const struct way *way); /* layers that changed */
    void (*describe)(const struct way *way, char text[EXPORT_TEXT_BYTES]);
} rules[EXPORT_FIELD_COUNT] = {
    [EXPORT_TENSOR] = {"tensor_parallel", tensor_ways, tensor_apply, tensor_text},
    [EXPORT_SCHEDULE] = {"schedule", schedule_ways, schedule_apply, schedule_text},
    [EXPORT_STAGES] = {"stage", stage_ways, stage_apply, stage_text},
    [EXPORT_SEQUENCE] = {"sequence_parallel", sequence_ways, sequence_apply, sequence_text},
    [EXPORT_PRECISION] = {"precision", precision_ways, precision_apply, precision_text},
    [EXPORT_ZERO] = {"zero_stage", zero_ways, zero_apply, zero_text},
    [EXPORT_RECOMPUTE] = {"recompute", recompute_ways, recompute_apply, recompute_text},
};

const char *export_field_name(enum export_field field)
{
    return rules[field].name;
}

enum status export_level(enum export_target target, enum export_field field, size_t way,
                         struct plan *plan, struct export_way *out, struct error *err)
{
    const struct field_rule *rule = &rules[field];
    struct ways ways = {.count = 0};

    TRY(rule->ways(export_ops_of(target), plan, &ways, err));
    *out = (struct export_way){.exists = way < ways.count};
    if (out->exists) {
        out->changed = rule->apply(plan, &ways.rows[way]);
        rule->describe(&ways.rows[way], out->text);
    }
    return STATUS_OK;
}

/* ---- what the levelled layers have in common ---- */

int64_t export_stage_blocks(const struct plan *plan, int virtual_stage)
{
    int64_t count = 0;

    for (int64_t block = 0; block < plan->model.blocks; block++)
        count += plan->layers[attention_of(block)].stage == virtual_stage;
    return count;
}

/* The way that leaves this field of `copy` as it is. */
static enum status level_way(const struct export_ops *ops, enum export_field field,
                             struct plan *copy, const struct plan *plan, struct way *out,
                             struct error *err)
{
    const struct field_rule *rule = &rules[field];
    struct ways ways = {.count = 0};

    TRY(rule->ways(ops, plan, &ways, err));
    for (size_t i = 0; i < ways.count; i++) {
        struct layer_strategy *layers = copy->layers;
        *copy = *plan;
        copy->layers = layers;
        for (size_t layer = 0; layer < plan->layer_count; layer++)
            layers[layer] = plan->layers[layer];
        if (rule->apply(copy, &ways.rows[i]) == 0) {
            *out = ways.rows[i];
            return STATUS_OK;
        }
    }
    char text[EXPORT_TEXT_BYTES];
    rule->describe(&ways.rows[0], text);
    return error_set(err, STATUS_UNSUPPORTED, "%s cannot run this '%s', it would run %s",
                     ops->title, rule->name, text);
}

static enum status find_ways(const struct export_ops *ops, const struct plan *plan,
                             struct way ways[EXPORT_FIELD_COUNT], struct error *err)
{
    struct plan copy;
    enum status status = STATUS_OK;

    TRY(plan_copy(&copy, plan, err));
    struct plan owner = copy; /* of the arrays, whatever is tried on the copy */
    for (int field = 0; field < EXPORT_FIELD_COUNT && status == STATUS_OK; field++)
        status = level_way(ops, (enum export_field)field, &copy, plan, &ways[field], err);
    plan_clear(&owner);
    return status;
}

enum status export_job_of(const struct export_ops *ops, const struct plan *plan,
                          struct export_job *out, struct error *err)
{
    struct way ways[EXPORT_FIELD_COUNT];
    int stages = plan->pipeline * plan->virtual_stages;

    TRY(find_ways(ops, plan, ways, err));
    *out = (struct export_job){
        .plan = plan,
        .sequence_parallel = ways[EXPORT_SEQUENCE].value != 0,
        .zero_stage = ways[EXPORT_ZERO].value,
        .precision = (enum precision)ways[EXPORT_PRECISION].value,
        .recompute = (enum export_recompute)ways[EXPORT_RECOMPUTE].value,
        .recompute_count = ways[EXPORT_RECOMPUTE].count,
        .expert = 1,
        .context = 1,
        .shard = plan->data_parallel,
        .even_stages = true,
    };
    for (int stage = 0; stage < stages; stage++)
        out->even_stages =
            out->even_stages && export_stage_blocks(plan, stage) * stages == plan->model.blocks;
    return STATUS_OK;
}
