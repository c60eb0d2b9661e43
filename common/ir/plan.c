#include "ir/plan.h"

#include "base/hash.h"
#include "ir/mesh.h"
#include "ir/model_source.h"
#include "ir/plan_fields.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const statuses[] = {
    [PLAN_OPTIMAL] = "optimal",
    [PLAN_GAP] = "gap",
    [PLAN_PREDICTED] = "predicted",
};
static const char *const memory_terms[MEMORY_TERM_COUNT] = {
    [MEMORY_PARAMETERS] = "parameters", [MEMORY_GRADIENTS] = "gradients",
    [MEMORY_OPTIMIZER] = "optimizer",   [MEMORY_ACTIVATIONS] = "activations",
    [MEMORY_SCRATCH] = "scratch",       [MEMORY_PROCESS] = "process",
};
static const char *const reductions[GRADIENT_REDUCTION_COUNT] = {
    [GRADIENTS_FP32] = "fp32",
    [GRADIENTS_BF16] = "bf16",
};
const struct name_list plan_status_names = {statuses, sizeof(statuses) / sizeof(statuses[0])};
const struct name_list memory_term_names = {memory_terms, MEMORY_TERM_COUNT};
const struct name_list gradient_reduction_names = {reductions, GRADIENT_REDUCTION_COUNT};

const char *plan_status_name(enum plan_status status)
{
    return name_of(&plan_status_names, status);
}

const char *gradient_reduction_name(enum gradient_reduction reduction)
{
    return name_of(&gradient_reduction_names, reduction);
}

const char *memory_term_name(enum memory_term term)
{
    return name_of(&memory_term_names, term);
}

int strategy_spread(const struct layer_strategy *strategy)
{
    return strategy->sequence_parallel ? 1 : strategy->tensor_parallel;
}

/* ---- ownership ---- */

void prediction_clear(struct prediction *prediction)
{
    free(prediction->layers);
    *prediction = (struct prediction){0};
}

void plan_clear(struct plan *plan)
{
    prediction_clear(&plan->prediction);
    free(plan->layers);
    *plan = (struct plan){0};
}

static enum status copy_array(void **out, const void *array, size_t count, size_t width,
                              const char *what, struct error *err)
{
    if (array == NULL || count == 0) {
        *out = NULL;
        return STATUS_OK;
    }
    *out = malloc(count * width);
    if (*out == NULL)
        return error_memory(err, count * width, what);
    memcpy(*out, array, count * width);
    return STATUS_OK;
}

enum status plan_copy(struct plan *out, const struct plan *plan, struct error *err)
{
    struct plan copy = *plan;
    void *layers = NULL, *predictions = NULL;

    TRY(copy_array(&layers, plan->layers, plan->layer_count, sizeof(*plan->layers),
                   "a plan's layers", err));
    enum status status =
        copy_array(&predictions, plan->prediction.layers, plan->prediction.layer_count,
                   sizeof(*plan->prediction.layers), "a plan's prediction", err);
    if (status != STATUS_OK) {
        free(layers);
        return status;
    }
    copy.layers = layers;
    copy.prediction.layers = predictions;
    *out = copy;
    return STATUS_OK;
}

/* ---- validation ---- */

static enum status check_schedule(const struct plan *plan, const char *where, struct error *err)
{
    struct schedule_shape shape = plan_schedule(plan);

    if (plan->pipeline == 1 && plan->virtual_stages != 1)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'virtual_stages': must be 1 with pipeline 1, is %d", where,
                         plan->virtual_stages);
    if (plan->pipeline == 1 && plan->schedule != SCHEDULE_1F1B)
        return error_set(err, STATUS_INVALID, "%s: key 'schedule': must be '%s' with pipeline 1",
                         where, schedule_name(SCHEDULE_1F1B));
    if (schedule_check(&shape, err) != STATUS_OK)
        return error_prefix(err, "%s: key 'schedule'", where);
    if (plan->schedule >= SCHEDULE_RUN_COUNT)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'schedule': '%s' is planned but not run: has to be gpipe, 1f1b "
                         "or interleaved",
                         where, schedule_name(plan->schedule));
    return STATUS_OK;
}

static enum status check_degrees(const struct plan *plan, const char *where, struct error *err)
{
    /* the bounds of the tables keep these products below 2^63 */
    int64_t ranks = (int64_t)plan->pipeline * plan->data_parallel * plan->tensor_parallel;
    int64_t batch = plan->micro_batch * plan->micro_batches * plan->data_parallel;

    if (ranks != plan->ranks)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'ranks': must be pipeline %d times data_parallel %d times "
                         "tensor_parallel %d = %lld, is %d",
                         where, plan->pipeline, plan->data_parallel, plan->tensor_parallel,
                         (long long)ranks, plan->ranks);
    if (batch != plan->global_batch)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'global_batch': must be micro_batch %lld times micro_batches "
                         "%lld times data_parallel %d = %lld, is %lld",
                         where, (long long)plan->micro_batch, (long long)plan->micro_batches,
                         plan->data_parallel, (long long)batch, (long long)plan->global_batch);
    if (plan->memory_cap_bytes > INT64_MAX)
        return error_set(err, STATUS_INVALID, "%s: key 'memory_cap_bytes': must be below 2^63",
                         where);
    if ((unsigned)plan->status > PLAN_PREDICTED)
        return error_set(err, STATUS_INVALID, "%s: key 'status': %u is not a plan status", where,
                         (unsigned)plan->status);
    return check_schedule(plan, where, err);
}

static enum status check_mode(const struct layer_strategy *strategy, enum layer_kind kind,
                              const char *where, const char *prefix, struct error *err)
{
    if ((unsigned)strategy->recompute >= RECOMPUTE_COUNT ||
        !layer_admits_recompute(kind, strategy->recompute))
        return error_set(
            err, STATUS_INVALID, "%s: key '%srecompute': a layer of kind %s does not admit '%s'",
            where, prefix, layer_kind_name(kind),
            (unsigned)strategy->recompute < RECOMPUTE_COUNT ? recompute_name(strategy->recompute)
                                                            : "?");
    if ((unsigned)strategy->precision >= PRECISION_COUNT ||
        !layer_admits_precision(kind, strategy->precision))
        return error_set(
            err, STATUS_INVALID, "%s: key '%sprecision': a layer of kind %s does not admit '%s'",
            where, prefix, layer_kind_name(kind),
            (unsigned)strategy->precision < PRECISION_COUNT ? precision_name(strategy->precision)
                                                            : "?");
    return STATUS_OK;
}

static enum status check_kernel(const struct layer_strategy *strategy, enum layer_kind kind,
                                const char *where, const char *prefix, struct error *err)
{
    if ((unsigned)strategy->attention < ATTENTION_KERNEL_COUNT &&
        layer_admits_kernel(kind, strategy->attention))
        return STATUS_OK;
    if (kind != LAYER_ATTENTION)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%sattention': must be 'plain' in a layer of kind %s", where,
                         prefix, layer_kind_name(kind));
    return error_set(err, STATUS_INVALID, "%s: key '%sattention': %u is not a kernel of attention",
                     where, prefix, (unsigned)strategy->attention);
}

/* How the layer is shared: what must divide. */
static enum status check_part(const struct plan *plan, size_t layer, const char *where,
                              const char *prefix, struct error *err)
{
    const struct layer_strategy *strategy = &plan->layers[layer];
    int64_t tokens = plan->micro_batch * plan->model.seq_length;

    if (plan->tensor_parallel % strategy->tensor_parallel != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%stensor_parallel': must divide the plan's tensor_parallel %d, "
                         "is %d",
                         where, prefix, plan->tensor_parallel, strategy->tensor_parallel);
    if (strategy->sequence_parallel && strategy->tensor_parallel == 1)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%ssequence_parallel': must be false where tensor_parallel is 1",
                         where, prefix);
    if (strategy->sequence_parallel && tokens % plan->tensor_parallel != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%ssequence_parallel': must be false unless the micro-batch's "
                         "%lld tokens divide by the plan's tensor_parallel %d",
                         where, prefix, (long long)tokens, plan->tensor_parallel);
    if (plan->micro_batch * strategy->tensor_parallel % plan->tensor_parallel != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%stensor_parallel': %d of the plan's %d leaves %d groups to "
                         "share a micro_batch of %lld, which must divide by them",
                         where, prefix, strategy->tensor_parallel, plan->tensor_parallel,
                         plan->tensor_parallel / strategy->tensor_parallel,
                         (long long)plan->micro_batch);
    struct layer_part part = mesh_part(plan, layer, 0);
    if (layer_part_check(&plan->model, &part, err) != STATUS_OK)
        return error_prefix(err, "%s: key '%stensor_parallel'", where, prefix);
    return STATUS_OK;
}

/* Virtual stages are intervals of the chain, each with a layer at least. */
static enum status check_stage(const struct plan *plan, size_t layer, const char *where,
                               const char *prefix, struct error *err)
{
    int stage = plan->layers[layer].stage;
    int last = plan->pipeline * plan->virtual_stages - 1;
    int least = layer > 0 ? plan->layers[layer - 1].stage : 0;
    int most = layer > 0 && least < last ? least + 1 : least;

    if (stage < least || stage > most)
        return error_set(err, STATUS_INVALID, "%s: key '%sstage': must be from %d to %d, is %d",
                         where, prefix, least, most, stage);
    if (layer + 1 == plan->layer_count && stage != last)
        return error_set(err, STATUS_INVALID,
                         "%s: key '%sstage': must be the last of pipeline %d times virtual_stages "
                         "%d, %d, is %d",
                         where, prefix, plan->pipeline, plan->virtual_stages, last, stage);
    return STATUS_OK;
}

/* A tied head and the embedding share one table, and so how it is split. */
static enum status check_tied(const struct plan *plan, const char *where, struct error *err)
{
    const struct layer_strategy *embedding = &plan->layers[0];
    const struct layer_strategy *head = &plan->layers[plan->layer_count - 1];
    const struct {
        const char *key;
        int embedding, head;
    } shared[] = {
        {"tensor_parallel", embedding->tensor_parallel, head->tensor_parallel},
        {"zero_stage", embedding->zero_stage, head->zero_stage},
    };

    for (size_t i = 0; plan->model.tied_head && i < sizeof(shared) / sizeof(shared[0]); i++) {
        if (shared[i].embedding != shared[i].head)
            return error_set(err, STATUS_INVALID,
                             "%s: key 'layers[%zu].%s': must be the embedding's %d, whose table "
                             "this tied head reads, is %d",
                             where, plan->layer_count - 1, shared[i].key, shared[i].embedding,
                             shared[i].head);
    }
    return STATUS_OK;
}

static enum status check_layers(const struct plan *plan, const char *where, struct error *err)
{
    size_t expected = model_layer_count(&plan->model);
    int widest = 1;

    if (plan->layers == NULL || plan->layer_count != expected)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'layers': has %zu rows, the model has %zu layers", where,
                         plan->layers != NULL ? plan->layer_count : 0, expected);
    for (size_t i = 0; i < plan->layer_count; i++) {
        const struct layer_strategy *strategy = &plan->layers[i];
        char prefix[48];
        snprintf(prefix, sizeof(prefix), "layers[%zu].", i);
        TRY(fields_check(&strategy_table, strategy, where, prefix, err));
        TRY(check_mode(strategy, model_layer(&plan->model, i).kind, where, prefix, err));
        TRY(check_kernel(strategy, model_layer(&plan->model, i).kind, where, prefix, err));
        TRY(check_stage(plan, i, where, prefix, err));
        TRY(check_part(plan, i, where, prefix, err));
        if (strategy->tensor_parallel > widest)
            widest = strategy->tensor_parallel;
    }
    if (widest != plan->tensor_parallel)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'tensor_parallel': must be the largest of any layer, %d, is %d",
                         where, widest, plan->tensor_parallel);
    return check_tied(plan, where, err);
}

static enum status check_objective(const struct plan *plan, const char *where, struct error *err)
{
    const struct plan_objective *objective = &plan->objective;

    for (size_t i = 0; i < objective_table.count; i++) {
        const struct field *row = &objective_table.rows[i];
        if (row->type != FIELD_REAL)
            continue;
        double value;
        memcpy(&value, (const char *)objective + row->offset, sizeof(value));
        if (!(isfinite(value) && value >= 0.0))
            return error_set(err, STATUS_INVALID,
                             "%s: key 'objective.%s': must be finite and 0 or more, is %g", where,
                             row->key, value);
    }
    if (objective->gap > 1.0)
        return error_set(err, STATUS_INVALID, "%s: key 'objective.gap': must be 1 or less, is %g",
                         where, objective->gap);
    /* the bound comes from a solver and may differ from the value in the last digits */
    if (plan->status != PLAN_PREDICTED && objective->bound > objective->value * (1.0 + 1e-6))
        return error_set(err, STATUS_INVALID, "%s: key 'objective.bound': %g is above value %g",
                         where, objective->bound, objective->value);
    return STATUS_OK;
}

/* A known total is the sum of its known terms. */
static enum status check_sum(const struct quantity *total, const struct quantity *terms,
                             size_t count, const char *key, const char *where, struct error *err)
{
    struct quantity sum = terms[0];

    for (size_t i = 1; i < count; i++)
        sum = quantity_add(sum, terms[i]);
    if (total->provenance == PROVENANCE_ABSENT || sum.provenance == PROVENANCE_ABSENT)
        return STATUS_OK;
    if (!(fabs(total->value - sum.value) <= 1e-6 * fabs(sum.value)))
        return error_set(err, STATUS_INVALID,
                         "%s: key 'prediction.%s': %.9g is not the sum of its terms, %.9g", where,
                         key, total->value, sum.value);
    return STATUS_OK;
}

static enum status check_prediction(const struct plan *plan, const char *where, struct error *err)
{
    const struct prediction *p = &plan->prediction;

    if (p->layers == NULL)
        return STATUS_OK;
    if (p->layer_count != plan->layer_count)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'prediction.layers': has %zu rows, the plan has %zu layers",
                         where, p->layer_count, plan->layer_count);
    TRY(check_sum(&p->time_s, p->phase_time_s, PHASE_COUNT, "time_s", where, err));
    return check_sum(&p->memory_bytes, p->memory_term_bytes, MEMORY_TERM_COUNT, "memory_bytes",
                     where, err);
}

enum status plan_validate(const struct plan *plan, const char *where, struct error *err)
{
    char hash[HASH_TEXT_BYTES];

    TRY(model_validate_at(&plan->model, where, "model.", err));
    TRY(model_check_executable(&plan->model, where, err));
    TRY(fields_check(&plan_table, plan, where, "", err));
    TRY(check_degrees(plan, where, err));
    TRY(check_layers(plan, where, err));
    TRY(check_objective(plan, where, err));
    TRY(check_prediction(plan, where, err));
    hash_format(model_hash(&plan->model), hash);
    if (plan->model_hash[0] != '\0' && strcmp(plan->model_hash, hash) != 0)
        return error_set(err, STATUS_INVALID,
                         "%s: key 'model_hash': '%s' is not the hash of the plan's model, '%s': "
                         "the model was changed after planning",
                         where, plan->model_hash, hash);
    return STATUS_OK;
}

/* ---- identity ---- */

uint64_t plan_hash(const struct plan *plan)
{
    uint64_t hash = model_hash(&plan->model);
    int64_t lengths[] = {plan->model.seq_length, plan->model.positions, plan->model.sliding_window};
    hash = hash_mix(hash, lengths, sizeof(lengths));
    hash = fields_hash(&plan_table, plan, hash);
    hash = fields_hash(&objective_table, &plan->objective, hash);
    for (size_t i = 0; i < plan->layer_count; i++)
        hash = fields_hash(&strategy_table, &plan->layers[i], hash);
    return hash;
}

struct micro_batch_shape plan_shape(const struct plan *plan)
{
    return (struct micro_batch_shape){
        .sequences = plan->micro_batch,
        .seq_length = plan->model.seq_length,
        .threads = plan->threads,
    };
}

struct schedule_shape plan_schedule(const struct plan *plan)
{
    return (struct schedule_shape){
        .kind = plan->schedule,
        .stages = plan->pipeline,
        .chunks = plan->virtual_stages,
        .micro_batches = plan->micro_batches,
    };
}

bool plan_has_fp16(const struct plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (plan->layers[i].precision == PRECISION_FP16)
            return true;
    }
    return false;
}

enum precision plan_main_precision(const struct plan *plan)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        count += plan->layers[i].precision == PRECISION_BF16;
    return 2 * count > plan->layer_count ? PRECISION_BF16 : PRECISION_FP32;
}

struct layer_precision_mode strategy_mode(const struct layer_strategy *strategy)
{
    return (struct layer_precision_mode){.precision = strategy->precision,
                                         .recompute = strategy->recompute,
                                         .attention = strategy->attention};
}

bool strategy_equal(const struct layer_strategy *a, const struct layer_strategy *b)
{
    return a->tensor_parallel == b->tensor_parallel &&
           a->sequence_parallel == b->sequence_parallel && a->zero_stage == b->zero_stage &&
           a->recompute == b->recompute && a->precision == b->precision &&
           a->attention == b->attention;
}
