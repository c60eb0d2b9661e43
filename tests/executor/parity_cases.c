#include "parity_cases.h"

#include "ir/state.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCKS_GPT2 = 4,
    BLOCKS_LLAMA = 3,
    MIXED_ZERO = 4,
    MIXED_RECOMPUTE = 3,
    MIXED_PRECISION = 3
};
enum { MESHES_MAX = 16, VALUES_MAX = MESHES_MAX };

static const int64_t micro_batches[] = {1, 2, 4, PARITY_GLOBAL_BATCH};
enum { WHOLE_BATCH = 3 }; /* of the plan to compare with only */

struct mesh {
    int data, tensor, pipeline;
};

/* All ways to write `ranks` as a product of three. */
static int meshes_of(int ranks, struct mesh out[MESHES_MAX])
{
    int count = 0;
    for (int data = 1; data <= ranks; data++)
        for (int tensor = 1; data * tensor <= ranks; tensor++)
            if (ranks % (data * tensor) == 0 && count < MESHES_MAX)
                out[count++] = (struct mesh){data, tensor, ranks / (data * tensor)};
    return count;
}

int parity_values(enum parity_dimension dimension, int ranks)
{
    static const int values[PARITY_DIMENSIONS] = {
        [PARITY_SCHEDULE] = SCHEDULE_RUN_COUNT,
        [PARITY_ZERO] = MIXED_ZERO + 1,
        [PARITY_RECOMPUTE] = MIXED_RECOMPUTE + 1,
        [PARITY_PRECISION] = MIXED_PRECISION + 1,
        [PARITY_SEQUENCE] = 3,
        [PARITY_MICRO_BATCH] = 3,
        [PARITY_DEGREES] = 2,
        [PARITY_STAGES] = 2,
        [PARITY_GRADIENTS] = GRADIENT_REDUCTION_COUNT,
        [PARITY_ATTENTION] = ATTENTION_KERNEL_COUNT,
    };
    struct mesh meshes[MESHES_MAX];
    return dimension == PARITY_MESH ? meshes_of(ranks, meshes) : values[dimension];
}

int parity_mesh(int data_parallel, int tensor_parallel, int pipeline)
{
    struct mesh meshes[MESHES_MAX];
    int count = meshes_of(data_parallel * tensor_parallel * pipeline, meshes), at = 0;
    while (at < count && (meshes[at].data != data_parallel || meshes[at].tensor != tensor_parallel))
        at++;
    assert(at < count);
    return at;
}

static struct mesh mesh_of(const struct parity_case *what)
{
    struct mesh meshes[MESHES_MAX];
    int count = meshes_of(what->ranks, meshes);
    assert(what->value[PARITY_MESH] < count);
    (void)count;
    return meshes[what->value[PARITY_MESH]];
}

enum status parity_model(struct model *out, const char *name, struct error *err)
{
    bool is_llama = strcmp(name, "llama") == 0;
    struct model_overrides sizes = {.layers = is_llama ? BLOCKS_LLAMA : BLOCKS_GPT2,
                                    .hidden = 32,
                                    .heads = 8,
                                    .kv_heads = is_llama ? 4 : 8,
                                    .ffn = is_llama ? 48 : 128,
                                    .vocab_size = 251,
                                    .positions = 16,
                                    .seq_length = 16};
    return model_load(out, is_llama ? "tinyllama-1.1b" : "gpt2", &sizes, err);
}

struct parity_case parity_reference(const struct parity_case *what)
{
    struct parity_case reference = {.model = what->model, .ranks = 1};
    reference.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    reference.value[PARITY_PRECISION] = what->value[PARITY_PRECISION];
    reference.value[PARITY_ATTENTION] = what->value[PARITY_ATTENTION];
    reference.value[PARITY_MICRO_BATCH] = WHOLE_BATCH;
    return reference;
}

/* ---- a layer's strategy ---- */

static int virtual_stage_of(const struct parity_case *what, size_t layer, size_t layers, int stages)
{
    size_t count = (size_t)stages;
    if (what->value[PARITY_STAGES] == 0)
        return (int)(layer * count / layers);
    size_t first = layers - count + 1;
    return layer < first ? 0 : (int)(layer - first + 1);
}

/* A tied head that reads the embedding's table is treated like the embedding. */
static size_t pattern_of(const struct model *model, size_t layer)
{
    return model->tied_head && layer + 1 == model_layer_count(model) ? 0 : layer;
}

/* T, T/2, T, T/4, ... as far as micro-batches can be shared out. */
static int degree_of(const struct parity_case *what, size_t pattern, int tensor)
{
    if (what->value[PARITY_DEGREES] == 0)
        return tensor;
    static const int divisors[] = {1, 2, 1, 4};
    int64_t micro_batch = micro_batches[what->value[PARITY_MICRO_BATCH]];
    int divisor = divisors[pattern % 4];
    while (divisor > 1 && (tensor % divisor != 0 || micro_batch % divisor != 0))
        divisor /= 2;
    return tensor / divisor;
}

static void choose_strategy(const struct parity_case *what, const struct plan *plan, size_t layer,
                            struct layer_strategy *out)
{
    const int *value = what->value;
    enum layer_kind kind = model_layer(&plan->model, layer).kind;
    size_t pattern = pattern_of(&plan->model, layer);
    int recompute = value[PARITY_RECOMPUTE] == MIXED_RECOMPUTE ? (int)(layer % RECOMPUTE_COUNT)
                                                               : value[PARITY_RECOMPUTE];
    int precision = value[PARITY_PRECISION] == MIXED_PRECISION
                        ? ((layer / 2 + layer) % 2 == 0 ? PRECISION_BF16 : PRECISION_FP32)
                        : value[PARITY_PRECISION];
    out->stage =
        virtual_stage_of(what, layer, plan->layer_count, plan->pipeline * plan->virtual_stages);
    out->tensor_parallel = degree_of(what, pattern, plan->tensor_parallel);
    out->sequence_parallel =
        out->tensor_parallel > 1 &&
        (value[PARITY_SEQUENCE] == 1 || (value[PARITY_SEQUENCE] == 2 && pattern % 3 == 0));
    out->zero_stage = value[PARITY_ZERO] == MIXED_ZERO ? (int)(pattern % 4) : value[PARITY_ZERO];
    if (layer_admits_recompute(kind, (enum recompute)recompute))
        out->recompute = (enum recompute)recompute;
    if (layer_admits_precision(kind, (enum precision)precision))
        out->precision = (enum precision)precision;
    enum attention_kernel kernel = (enum attention_kernel)value[PARITY_ATTENTION];
    if (layer_admits_kernel(kind, kernel))
        out->attention = kernel;
}

enum status parity_plan(struct plan *out, const struct parity_case *what, struct error *err)
{
    struct mesh mesh = mesh_of(what);
    struct plan plan = {
        .ranks = what->ranks,
        .data_parallel = mesh.data,
        .tensor_parallel = mesh.tensor,
        .pipeline = mesh.pipeline,
        .virtual_stages = what->value[PARITY_SCHEDULE] == SCHEDULE_INTERLEAVED ? 2 : 1,
        .schedule = (enum schedule)what->value[PARITY_SCHEDULE],
        .gradient_reduction = (enum gradient_reduction)what->value[PARITY_GRADIENTS],
        .threads = 1,
        .global_batch = PARITY_GLOBAL_BATCH,
        .micro_batch = micro_batches[what->value[PARITY_MICRO_BATCH]],
    };
    plan.micro_batches = plan.global_batch / plan.micro_batch / plan.data_parallel;
    TRY(parity_model(&plan.model, what->model, err));
    plan.layer_count = model_layer_count(&plan.model);
    plan.layers = calloc(plan.layer_count, sizeof *plan.layers);
    if (plan.layers == NULL)
        return error_memory(err, plan.layer_count * sizeof *plan.layers, "a plan");
    for (size_t i = 0; i < plan.layer_count; i++)
        choose_strategy(what, &plan, i, &plan.layers[i]);
    enum status status = plan_validate(&plan, "parity", err);
    if (status != STATUS_OK)
        plan_clear(&plan);
    else
        *out = plan;
    return status;
}

const char *parity_case_name(const struct parity_case *what, char name[PARITY_NAME_BYTES])
{
    static const char *const zero[] = {"zero0", "zero1", "zero2", "zero3", "zero*"};
    static const char *const recompute[] = {"none", "selective", "full", "recompute*"};
    static const char *const precision[] = {"fp32", "bf16", "fp16", "fp32+bf16"};
    static const char *const sequence[] = {"", " sp", " sp*"};
    const int *value = what->value;
    struct mesh mesh = mesh_of(what);
    (void)snprintf(
        name, PARITY_NAME_BYTES, "dp%d tp%d%s pp%d%s %s %s %s %s%s mb%lld%s%s", mesh.data,
        mesh.tensor, value[PARITY_DEGREES] ? "*" : "", mesh.pipeline,
        value[PARITY_STAGES] ? "*" : "", schedule_name((enum schedule)value[PARITY_SCHEDULE]),
        zero[value[PARITY_ZERO]], recompute[value[PARITY_RECOMPUTE]],
        precision[value[PARITY_PRECISION]], sequence[value[PARITY_SEQUENCE]],
        (long long)micro_batches[value[PARITY_MICRO_BATCH]],
        value[PARITY_GRADIENTS] ? " grad16" : "", value[PARITY_ATTENTION] ? " tiled" : "");
    return name;
}

/* ---- all of them ---- */

/* Is every value that changes nothing about the plan the first one? */
static bool is_canonical(const struct parity_case *what)
{
    const int *value = what->value;
    struct mesh mesh = mesh_of(what);
    if (mesh.pipeline == 1 && (value[PARITY_SCHEDULE] != SCHEDULE_1F1B || value[PARITY_STAGES] > 0))
        return false;
    if (mesh.tensor == 1 && (value[PARITY_SEQUENCE] > 0 || value[PARITY_DEGREES] > 0))
        return false;
    bool has_replicas = mesh.data > 1 || value[PARITY_DEGREES] > 0;
    return has_replicas || value[PARITY_ZERO] == 0;
}

/* Gradients that are asked for in bf16, of layers that have none. */
static bool asks_for_nothing(const struct plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        if (layer_gradient_precision(plan, i) == PRECISION_BF16)
            return false;
    return plan->gradient_reduction == GRADIENTS_BF16;
}

static bool same_strategies(const struct plan *a, const struct plan *b)
{
    for (size_t i = 0; i < a->layer_count; i++) {
        const struct layer_strategy *x = &a->layers[i], *y = &b->layers[i];
        if (x->stage != y->stage || x->tensor_parallel != y->tensor_parallel ||
            x->sequence_parallel != y->sequence_parallel)
            return false;
    }
    return true;
}

/* Does a value of these dimensions ask for what a lower value gives as well (uneven stages of one
 * layer each, degrees that no micro-batch can be shared out for)? */
static bool repeats_lower(const struct parity_case *what, const struct plan *plan)
{
    static const enum parity_dimension dimensions[] = {PARITY_STAGES, PARITY_DEGREES,
                                                       PARITY_SEQUENCE};
    for (size_t i = 0; i < sizeof dimensions / sizeof dimensions[0]; i++) {
        struct parity_case lower = *what;
        int *value = &lower.value[dimensions[i]];
        while (--*value >= 0) {
            struct plan other;
            struct error err = {0};
            if (parity_plan(&other, &lower, &err) != STATUS_OK)
                continue;
            bool same = same_strategies(plan, &other);
            plan_clear(&other);
            if (same)
                return true;
        }
    }
    return false;
}

static enum status append(struct parity_cases *cases, size_t *capacity,
                          const struct parity_case *row, struct error *err)
{
    if (cases->count == *capacity) {
        size_t wanted = *capacity == 0 ? 256 : 2 * *capacity;
        struct parity_case *rows = realloc(cases->rows, wanted * sizeof *rows);
        if (rows == NULL)
            return error_memory(err, wanted * sizeof *rows, "combinations");
        cases->rows = rows;
        *capacity = wanted;
    }
    cases->rows[cases->count++] = *row;
    return STATUS_OK;
}

/* The next combination in the order of a counter; false: that was the last. */
static bool advance(struct parity_case *what)
{
    for (int d = 0; d < PARITY_DIMENSIONS; d++) {
        if (++what->value[d] < parity_values((enum parity_dimension)d, what->ranks))
            return true;
        what->value[d] = 0;
    }
    return false;
}

enum status parity_cases_all(struct parity_cases *out, const char *model, int ranks,
                             struct error *err)
{
    struct parity_cases cases = {0};
    struct parity_case row = {.model = model, .ranks = ranks};
    size_t capacity = 0;
    do {
        struct plan plan;
        struct error refused = {0};
        if (!is_canonical(&row) || parity_plan(&plan, &row, &refused) != STATUS_OK)
            continue;
        bool repeats = asks_for_nothing(&plan) || repeats_lower(&row, &plan);
        plan_clear(&plan);
        if (!repeats && append(&cases, &capacity, &row, err) != STATUS_OK) {
            parity_cases_clear(&cases);
            return STATUS_MEMORY;
        }
    } while (advance(&row));
    *out = cases;
    return STATUS_OK;
}

void parity_cases_clear(struct parity_cases *cases)
{
    free(cases->rows);
    *cases = (struct parity_cases){0};
}

/* ---- a selection ---- */

/* How often each pair of values was taken. */
struct pairs {
    int taken[PARITY_DIMENSIONS][VALUES_MAX][PARITY_DIMENSIONS][VALUES_MAX];
};

static void take(struct pairs *pairs, const struct parity_case *row)
{
    for (int a = 0; a < PARITY_DIMENSIONS; a++)
        for (int b = 0; b < a; b++)
            pairs->taken[a][row->value[a]][b][row->value[b]]++;
}

/* New pairs count most, rare ones more than frequent ones. */
static double worth(const struct pairs *pairs, const struct parity_case *row, int *new_pairs)
{
    double sum = 0;
    *new_pairs = 0;
    for (int a = 0; a < PARITY_DIMENSIONS; a++)
        for (int b = 0; b < a; b++) {
            int taken = pairs->taken[a][row->value[a]][b][row->value[b]];
            *new_pairs += taken == 0;
            sum += taken == 0 ? 1000 : 1.0 / taken;
        }
    return sum;
}

size_t parity_selection(int ranks)
{
    return ranks == 1 ? 12 : 24;
}

void parity_cases_select(struct parity_cases *cases, size_t count)
{
    struct pairs *pairs = calloc(1, sizeof *pairs);
    assert(pairs != NULL);
    size_t kept = 0;
    while (kept < cases->count) {
        size_t best = kept;
        double best_worth = -1;
        int best_new = 0;
        for (size_t i = kept; i < cases->count; i++) {
            int new_pairs = 0;
            double value = worth(pairs, &cases->rows[i], &new_pairs);
            if (value > best_worth) {
                best = i;
                best_worth = value;
                best_new = new_pairs;
            }
        }
        if (kept >= count && best_new == 0)
            break;
        struct parity_case row = cases->rows[best];
        cases->rows[best] = cases->rows[kept];
        cases->rows[kept++] = row;
        take(pairs, &row);
    }
    cases->count = kept;
    free(pairs);
}

size_t parity_pairs_missing(const struct parity_cases *a, const struct parity_cases *b)
{
    struct pairs *pairs = calloc(1, sizeof *pairs);
    assert(pairs != NULL);
    size_t missing = 0;
    for (size_t i = 0; i < b->count; i++)
        take(pairs, &b->rows[i]);
    for (size_t i = 0; i < a->count; i++) {
        int new_pairs = 0;
        (void)worth(pairs, &a->rows[i], &new_pairs);
        missing += (size_t)new_pairs;
        take(pairs, &a->rows[i]);
    }
    free(pairs);
    return missing;
}
