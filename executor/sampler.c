#include "executor/sampler.h"

#include "base/rng.h"
#include "executor/checkpoint.h"
#include "executor/layout.h"
#include "executor/pass.h"
#include "executor/weights.h"
#include <math.h>
#include <stdlib.h>

/* Streams of the random numbers below this are the weights' (executor/weights.h). */
static const uint64_t SAMPLE_STREAM = UINT64_C(1) << 62;

struct candidate {
    double logit;
    int32_t token;
};

struct sampler {
    struct sampler_options options;
    struct plan plan;
    struct comm *comm; /* of this process alone */
    struct journal journal;
    struct memory_layout layout;
    struct groups groups;
    struct parameters parameters;
    float *logits;                /* [vocab] */
    struct candidate *candidates; /* [vocab] */
    uint64_t drawn;
};

/* Inference as a plan: one sequence, one rank, nothing to train. */
static enum status inference_plan(struct plan *plan, const struct model *model, int threads,
                                  struct error *err)
{
    *plan = (struct plan){
        .model = *model,
        .ranks = 1,
        .data_parallel = 1,
        .tensor_parallel = 1,
        .pipeline = 1,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = threads,
        .global_batch = 1,
        .micro_batch = 1,
        .micro_batches = 1,
        .layer_count = model_layer_count(model),
    };
    plan->layers = calloc(plan->layer_count, sizeof *plan->layers);
    if (plan->layers == NULL)
        return error_memory(err, plan->layer_count * sizeof *plan->layers, "the sampler's plan");
    for (size_t i = 0; i < plan->layer_count; i++)
        plan->layers[i] = (struct layer_strategy){.tensor_parallel = 1};
    return STATUS_OK;
}

static enum status allocate(struct sampler *sampler, struct error *err)
{
    size_t vocab = (size_t)sampler->plan.model.vocab;
    sampler->logits = calloc(vocab, sizeof *sampler->logits);
    sampler->candidates = calloc(vocab, sizeof *sampler->candidates);
    if (sampler->logits == NULL || sampler->candidates == NULL)
        return error_memory(err, vocab * sizeof *sampler->candidates, "the sampler");
    return STATUS_OK;
}

static enum status prepare(struct sampler *sampler, const char *path, const struct model *model,
                           struct device *device, struct error *err)
{
    TRY(inference_plan(&sampler->plan, model, device_threads(device), err));
    TRY(allocate(sampler, err));
    TRY(comm_open_alone(&sampler->comm, err));
    TRY(layout_open(&sampler->layout, device, &sampler->plan, 0, false, err));
    TRY(groups_open(&sampler->groups, &sampler->plan, sampler->comm, &sampler->journal, err));
    TRY(parameters_open(&sampler->parameters, &sampler->layout, &sampler->groups, &sampler->journal,
                        err));
    TRY(weights_load_hf(path, &sampler->layout, err));
    return weights_publish(&sampler->parameters, err);
}

enum status sampler_open(struct sampler **out, const char *path, const struct model *model,
                         struct device *device, const struct sampler_options *options,
                         struct error *err)
{
    struct sampler *sampler = calloc(1, sizeof *sampler);
    if (sampler == NULL)
        return error_memory(err, sizeof *sampler, "the sampler");
    sampler->options = *options;
    sampler->layout.device = device;
    enum status status = prepare(sampler, path, model, device, err);
    if (status != STATUS_OK) {
        sampler_close(sampler);
        return status;
    }
    *out = sampler;
    return STATUS_OK;
}

void sampler_close(struct sampler *sampler)
{
    if (sampler == NULL)
        return;
    parameters_close(&sampler->parameters);
    groups_close(&sampler->groups);
    layout_close(&sampler->layout);
    comm_close(sampler->comm);
    plan_clear(&sampler->plan);
    free(sampler->logits);
    free(sampler->candidates);
    free(sampler);
}

static int by_falling_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

static int32_t draw(struct sampler *sampler)
{
    size_t vocab = (size_t)sampler->plan.model.vocab;
    struct candidate *candidates = sampler->candidates;
    for (size_t i = 0; i < vocab; i++)
        candidates[i] = (struct candidate){sampler->logits[i], (int32_t)i};
    qsort(candidates, vocab, sizeof *candidates, by_falling_logit);
    if (sampler->options.temperature <= 0)
        return candidates[0].token;
    size_t kept = vocab;
    if (sampler->options.top_k > 0 && (size_t)sampler->options.top_k < vocab)
        kept = (size_t)sampler->options.top_k;
    double sum = 0;
    for (size_t i = 0; i < kept; i++)
        sum += exp((candidates[i].logit - candidates[0].logit) / sampler->options.temperature);
    double left = sum * rng_uniform(sampler->options.seed, SAMPLE_STREAM, sampler->drawn++);
    for (size_t i = 0; i < kept; i++) {
        left -= exp((candidates[i].logit - candidates[0].logit) / sampler->options.temperature);
        if (left < 0)
            return candidates[i].token;
    }
    return candidates[kept - 1].token;
}

enum status sampler_next(struct sampler *sampler, const int32_t *tokens, int64_t count,
                         int32_t *next, struct error *err)
{
    struct memory_layout *layout = &sampler->layout;
    const struct model *model = &sampler->plan.model;
    int64_t length = count < model->seq_length ? count : model->seq_length;
    size_t bytes = (size_t)length * sizeof(int32_t);
    const struct local_layer *head = &layout->layers[layout->layer_count - 1];
    for (size_t i = 0; i < layout->layer_count; i++)
        layout->layers[i].shape.seq_length = length;
    struct pass pass = {
        .plan = &sampler->plan,
        .layout = layout,
        .groups = &sampler->groups,
        .journal = &sampler->journal,
        .parameters = &sampler->parameters,
    };
    device_write(layout->device, layer_flight(&layout->layers[0], 0)->tokens,
                 tokens + count - length, bytes);
    const struct pass_forward_call call = {.logits_token = length - 1};
    TRY(pass_forward(&pass, &call, err));
    device_read(layout->device, sampler->logits, layer_flight(head, 0)->slots[SLOT_LOGITS],
                (size_t)model->vocab * sizeof(float));
    *next = draw(sampler);
    return STATUS_OK;
}
