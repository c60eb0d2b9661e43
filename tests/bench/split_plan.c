#include "split_plan.h"

#include <stdlib.h>

/* A layer goes to the stage in whose share of the FLOPs its middle lies; every stage gets one. */
static void choose_stages(struct plan *plan)
{
    struct micro_batch_shape shape = plan_shape(plan);
    double total = 0, before = 0;
    int stage = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        total += layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
    for (size_t i = 0; i < plan->layer_count; i++) {
        double flops = layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
        int wanted = (int)((before + flops / 2) / total * plan->pipeline);
        size_t left = plan->layer_count - i;
        if (i > 0 && stage + 1 < plan->pipeline &&
            (wanted > stage || left == (size_t)(plan->pipeline - stage - 1)))
            stage++;
        plan->layers[i].stage = stage;
        before += flops;
    }
}

enum status split_plan(struct plan *out, const struct model *model, const struct split *split,
                       struct error *err)
{
    struct plan plan = {
        .model = *model,
        .ranks = split->data_parallel * split->tensor_parallel * split->pipeline,
        .data_parallel = split->data_parallel,
        .tensor_parallel = split->tensor_parallel,
        .pipeline = split->pipeline,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = split->threads,
        .global_batch = split->micro_batch * split->micro_batches * split->data_parallel,
        .micro_batch = split->micro_batch,
        .micro_batches = split->micro_batches,
        .layer_count = model_layer_count(model),
    };
    plan.layers = calloc(plan.layer_count, sizeof *plan.layers);
    if (plan.layers == NULL)
        return error_memory(err, plan.layer_count * sizeof *plan.layers, "a plan");
    for (size_t i = 0; i < plan.layer_count; i++) {
        enum layer_kind kind = model_layer(model, i).kind;
        plan.layers[i] = (struct layer_strategy){
            .tensor_parallel = split->tensor_parallel,
            .sequence_parallel = split->sequence_parallel,
            .zero_stage = split->zero_stage,
            .precision =
                layer_admits_precision(kind, split->precision) ? split->precision : PRECISION_FP32,
        };
    }
    choose_stages(&plan);
    enum status status = plan_validate(&plan, "the benchmark's plan", err);
    if (status != STATUS_OK) {
        plan_clear(&plan);
        return status;
    }
    *out = plan;
    return STATUS_OK;
}

enum status split_training_open(struct split_training *out, const struct plan *plan,
                                struct comm *comm, const char *data_path, struct error *err)
{
    struct dataset_options data = {.path = data_path,
                                   .vocab = plan->model.vocab,
                                   .seq_length = plan->model.seq_length,
                                   .seed = 1};
    *out = (struct split_training){0};
    TRY(device_open(&out->device, plan->threads, err));
    TRY(dataset_open(&out->dataset, &data, err));
    struct trainer_setup setup = {
        .plan = plan,
        .comm = comm,
        .device = out->device,
        .dataset = out->dataset,
        .optimizer = {.learning_rate = 1e-4,
                      .decay_steps = 1000,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      .epsilon = 1e-8,
                      .weight_decay = 0.1,
                      .clip_norm = 1},
        .seed = 1,
        .skip_limit = 3,
    };
    return trainer_open(&out->trainer, &setup, err);
}

void split_training_close(struct split_training *training)
{
    trainer_close(training->trainer);
    dataset_close(training->dataset);
    device_close(training->device);
}
