#include "executor/trainer.h"

#include "base/clock.h"
#include "executor/agree.h"
#include "executor/checkpoint.h"
#include "executor/groups.h"
#include "executor/journal.h"
#include "executor/layout.h"
#include "executor/parameters.h"
#include "executor/pass.h"
#include "executor/pipeline.h"
#include "executor/reduction.h"
#include "executor/scaler.h"
#include "executor/weights.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct trainer {
    struct trainer_setup setup;
    struct journal journal;
    struct memory_layout layout;
    struct groups groups;
    struct parameters parameters;
    struct reduction reduction;
    struct pass pass;
    struct schedule_action *actions; /* of a training step, [action_count] */
    size_t action_count;
    int32_t *host_tokens, *host_targets; /* [micro_batch, seq_length] */
    int64_t evaluated_windows;           /* of the evaluation under way */
    struct training_state state;
    struct scaler scaler;
    int64_t skipped_in_a_row;
};

static enum status allocate_host_windows(struct trainer *trainer, struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    size_t count = (size_t)(plan->micro_batch * plan->model.seq_length);
    trainer->host_tokens = calloc(count, sizeof *trainer->host_tokens);
    trainer->host_targets = calloc(count, sizeof *trainer->host_targets);
    if (trainer->host_tokens == NULL || trainer->host_targets == NULL)
        return error_memory(err, 2 * count * sizeof *trainer->host_tokens, "token windows");
    return STATUS_OK;
}

/* What needs no other rank: whoever fails here has not kept anybody waiting. */
static enum status prepare_alone(struct trainer *trainer, struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    int rank = comm_rank(trainer->setup.comm);
    struct schedule_shape schedule = plan_schedule(plan);
    TRY(layout_open(&trainer->layout, trainer->setup.device, plan, rank, true, err));
    TRY(schedule_actions(&schedule, trainer->layout.stage, &trainer->actions,
                         &trainer->action_count, err));
    TRY(parameters_open(&trainer->parameters, &trainer->layout, &trainer->groups, &trainer->journal,
                        err));
    TRY(reduction_open(&trainer->reduction, &trainer->layout, &trainer->groups, &trainer->journal,
                       err));
    return allocate_host_windows(trainer, err);
}

static enum status prepare(struct trainer *trainer, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    TRY(agree(setup->comm, prepare_alone(trainer, err), err));
    TRY(groups_open(&trainer->groups, setup->plan, setup->comm, &trainer->journal, err));
    trainer->journal.rank = comm_rank(setup->comm);
    trainer->pass = (struct pass){
        .plan = setup->plan,
        .layout = &trainer->layout,
        .groups = &trainer->groups,
        .journal = &trainer->journal,
        .parameters = &trainer->parameters,
        .reduction = &trainer->reduction,
        .reshard = reshard_of(&trainer->layout, &trainer->groups, &trainer->journal),
    };
    trainer->scaler = scaler_of(plan_has_fp16(setup->plan));
    trainer->state = (struct training_state){
        .global_batch = setup->plan->global_batch,
        .seed = setup->seed,
    };
    weights_initialise(&trainer->layout, setup->seed);
    return agree(setup->comm, weights_publish(&trainer->parameters, err), err);
}

enum status trainer_open(struct trainer **out, const struct trainer_setup *setup, struct error *err)
{
    struct trainer *trainer = calloc(1, sizeof *trainer);
    enum status allocated =
        trainer != NULL ? STATUS_OK : error_memory(err, sizeof *trainer, "the trainer");
    enum status status = agree(setup->comm, allocated, err);
    if (status != STATUS_OK) {
        free(trainer);
        return status;
    }
    assert(trainer != NULL); /* all ranks have one */
    trainer->setup = *setup;
    trainer->layout.device = setup->device;
    status = prepare(trainer, err);
    if (status != STATUS_OK) {
        trainer_close(trainer);
        return status;
    }
    *out = trainer;
    return STATUS_OK;
}

void trainer_close(struct trainer *trainer)
{
    if (trainer == NULL)
        return;
    free(trainer->actions);
    free(trainer->host_tokens);
    free(trainer->host_targets);
    groups_close(&trainer->groups);
    reduction_close(&trainer->reduction);
    parameters_close(&trainer->parameters);
    layout_close(&trainer->layout);
    free(trainer);
}

void trainer_record(struct trainer *trainer, struct event_sink sink)
{
    trainer->journal.sink = sink;
}

uint64_t trainer_layout_bytes(const struct trainer *trainer)
{
    return trainer->layout.bytes;
}

uint64_t trainer_term_bytes(const struct trainer *trainer, enum memory_term term)
{
    return trainer->layout.regions[term].bytes;
}

uint64_t trainer_peak_activation_bytes(const struct trainer *trainer)
{
    const struct memory_layout *layout = &trainer->layout;
    uint64_t bytes = (uint64_t)layout->stream_count *
                     footprint_region_bytes(footprint_stream_bytes(trainer->setup.plan));
    for (size_t i = 0; i < layout->layer_count; i++)
        bytes += (uint64_t)layout->layers[i].most_flying * layout->layers[i].flight_bytes;
    return bytes;
}

int64_t trainer_step_count(const struct trainer *trainer)
{
    return trainer->state.step;
}

int64_t trainer_skipped_count(const struct trainer *trainer)
{
    return trainer->state.skipped_steps;
}

/* ---- weights and checkpoints ---- */

enum status trainer_load_weights(struct trainer *trainer, const char *path, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    TRY(agree(setup->comm, weights_load_hf(path, &trainer->layout, err), err));
    return weights_publish(&trainer->parameters, err);
}

static void warn_of_other_data_order(const struct trainer *trainer,
                                     const struct training_state *state)
{
    const struct trainer_setup *setup = &trainer->setup;
    if (state->seed != setup->seed)
        report_warning(
            &setup->reporter,
            "the checkpoint was trained with seed %llu, this run has %llu: the data order "
            "differs from here on",
            (unsigned long long)state->seed, (unsigned long long)setup->seed);
    if (state->global_batch != setup->plan->global_batch)
        report_warning(&setup->reporter,
                       "the checkpoint was trained with global batch %lld, this plan has %lld",
                       (long long)state->global_batch, (long long)setup->plan->global_batch);
}

enum status trainer_load_checkpoint(struct trainer *trainer, const char *path, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    struct training_state state = {0};
    TRY(checkpoint_load(path, &trainer->layout, setup->comm, &state, &setup->reporter, err));
    TRY(weights_publish(&trainer->parameters, err));
    if (comm_rank(setup->comm) == 0)
        warn_of_other_data_order(trainer, &state);
    if (trainer->scaler.is_dynamic && state.loss_scale > 0) {
        trainer->scaler.scale = state.loss_scale;
        trainer->scaler.good_steps = state.scale_good_steps;
    }
    trainer->state = state;
    trainer->state.seed = setup->seed;
    trainer->state.global_batch = setup->plan->global_batch;
    return STATUS_OK;
}

enum status trainer_save_checkpoint(struct trainer *trainer, const char *folder, int64_t keep,
                                    struct error *err)
{
    trainer->state.loss_scale = trainer->scaler.is_dynamic ? trainer->scaler.scale : 0;
    trainer->state.scale_good_steps = trainer->scaler.good_steps;
    return checkpoint_save(folder, &trainer->layout, trainer->setup.comm, &trainer->state, keep,
                           err);
}

/* ---- a step ---- */

/* The layer of a chunk that tokens (embedding) or targets (head) are for; NULL: another chunk's. */
static const struct local_layer *layer_of_kind(const struct trainer *trainer, int chunk,
                                               enum layer_kind kind)
{
    size_t first, end;
    pass_chunk_layers(&trainer->pass, chunk, &first, &end);
    const struct local_layer *layer =
        &trainer->layout.layers[kind == LAYER_EMBEDDING ? first : end - 1];
    return layer->part.kind == kind ? layer : NULL;
}

/* Which of a replica's sequences the layer's group works on begin here. */
static int64_t first_sequence(const struct trainer *trainer, const struct local_layer *layer)
{
    int column = trainer->layout.place % trainer->setup.plan->tensor_parallel;
    return column / layer->part.ways * layer->shape.sequences;
}

/* Windows of the data set for a layer of embedding or head kind: [first, first + count), as far as
 * `limit` admits; what is beyond it is not scored. */
typedef enum status (*read_windows)(struct trainer *trainer, int64_t first, int64_t count,
                                    struct error *err);

static enum status load_layer(struct trainer *trainer, const struct local_layer *layer,
                              int64_t replica_first, int64_t micro_batch, read_windows read,
                              struct error *err)
{
    const struct flight *flight = layer_flight(layer, micro_batch);
    size_t bytes = (size_t)(layer->shape.sequences * layer->shape.seq_length) * sizeof(int32_t);
    TRY(read(trainer, replica_first + first_sequence(trainer, layer), layer->shape.sequences, err));
    if (flight->tokens != NULL)
        device_write(trainer->setup.device, flight->tokens, trainer->host_tokens, bytes);
    if (flight->targets != NULL)
        device_write(trainer->setup.device, flight->targets, trainer->host_targets, bytes);
    return STATUS_OK;
}

static enum status load_chunk(struct trainer *trainer, int chunk, int64_t replica_first,
                              int64_t micro_batch, read_windows read, struct error *err)
{
    static const enum layer_kind kinds[] = {LAYER_EMBEDDING, LAYER_HEAD};
    int64_t start_ns = clock_ns();
    bool any = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const struct local_layer *layer = layer_of_kind(trainer, chunk, kinds[i]);
        if (layer == NULL)
            continue;
        any = true;
        TRY(load_layer(trainer, layer, replica_first, micro_batch, read, err));
    }
    if (any)
        journal_other(&trainer->journal, start_ns);
    return STATUS_OK;
}

static enum status read_training(struct trainer *trainer, int64_t first, int64_t count,
                                 struct error *err)
{
    return dataset_train_windows(trainer->setup.dataset, first, count, trainer->host_tokens,
                                 trainer->host_targets, err);
}

/* A replica's share of a global batch is one run of neighbouring samples; micro-batches go through
 * it in order. */
static enum status load_training(void *user, int chunk, int64_t micro_batch, struct error *err)
{
    struct trainer *trainer = user;
    const struct plan *plan = trainer->setup.plan;
    int64_t replica = mesh_replica_of(plan, trainer->layout.rank);
    int64_t share = plan->micro_batch * plan->micro_batches;
    int64_t first = trainer->state.next_sample + replica * share + micro_batch * plan->micro_batch;
    return load_chunk(trainer, chunk, first, micro_batch, read_training, err);
}

/* Of a tensor-parallel group, whose ranks all know its loss, the first speaks. */
static double spoken_loss(const struct trainer *trainer, double loss_sum)
{
    const struct memory_layout *layout = &trainer->layout;
    const struct local_layer *last = &layout->layers[layout->layer_count - 1];
    return last->part.kind == LAYER_HEAD && last->part.index == 0 ? loss_sum : 0;
}

/* Over all ranks. It comes before the gradients' last waits, so that what a stage or a replica
 * waits for slower ones is not taken for the time of their reduction. */
static enum status sum_loss(struct trainer *trainer, double *loss_sum, struct error *err)
{
    int64_t start_ns = clock_ns();
    *loss_sum = spoken_loss(trainer, *loss_sum);
    TRY(comm_all_reduce_sum_f64(trainer->setup.comm, loss_sum, 1, err));
    if (trainer->setup.plan->pipeline > 1)
        journal_communication(&trainer->journal, PHASE_PIPELINE, EVENT_NO_LAYER, start_ns, start_ns,
                              sizeof *loss_sum);
    return STATUS_OK;
}

static enum status accumulate_gradients(struct trainer *trainer, double *loss_sum,
                                        struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    double tokens = (double)plan->global_batch * (double)plan->model.seq_length;
    struct pipeline pipeline = {
        .pass = &trainer->pass,
        .world = trainer->setup.comm,
        .actions = trainer->actions,
        .count = trainer->action_count,
        .micro_batches = plan->micro_batches,
        .load = load_training,
        .user = trainer,
    };
    trainer->journal.step = trainer->state.step;
    trainer->pass.loss_scale = (float)(trainer->scaler.scale / tokens);
    *loss_sum = 0;
    TRY(pipeline_run(&pipeline, loss_sum, err));
    TRY(sum_loss(trainer, loss_sum, err));
    return reduction_finish(&trainer->reduction, err);
}

/* NaN has a sign that means nothing, and printf shows it. */
static double without_sign_of_nan(double value)
{
    return isnan(value) ? (double)NAN : value;
}

static enum status update(struct trainer *trainer, const struct step_result *result,
                          struct error *err)
{
    const struct optimizer_step step = {
        .learning_rate = result->learning_rate,
        .gradient_norm = result->gradient_norm,
        .gradient_scale = 1.0 / result->loss_scale,
        .time = ++trainer->state.optimizer_time,
    };
    trainer->skipped_in_a_row = 0;
    TRY(optimizer_update(&trainer->parameters, &trainer->setup.optimizer, &step, err));
    return parameters_publish_finish(&trainer->parameters, err);
}

static enum status too_many_skipped(const struct trainer *trainer, const struct step_result *result,
                                    struct error *err)
{
    return error_set(err, STATUS_FAILED,
                     "step %lld: the loss or gradient was not finite for %lld steps in a row (loss "
                     "%g, gradient norm %g); lower --lr, or resume from an earlier checkpoint",
                     (long long)result->step + 1, (long long)trainer->skipped_in_a_row,
                     result->loss, result->gradient_norm);
}

static enum status update_or_skip(struct trainer *trainer, struct step_result *result,
                                  struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    double norm = 0;
    TRY(optimizer_gradient_norm(&trainer->layout, setup->comm, &trainer->journal, &norm, err));
    result->gradient_norm = without_sign_of_nan(norm / result->loss_scale);
    result->skipped = !isfinite(result->gradient_norm) || !isfinite(result->loss);
    bool is_of_scale = scaler_update(&trainer->scaler, !result->skipped);
    if (!result->skipped)
        return update(trainer, result, err);
    trainer->state.skipped_steps++;
    if (is_of_scale)
        return STATUS_OK;
    trainer->skipped_in_a_row++;
    if (trainer->skipped_in_a_row < setup->skip_limit)
        return STATUS_OK;
    return agree(setup->comm, too_many_skipped(trainer, result, err), err);
}

enum status trainer_step(struct trainer *trainer, struct step_result *out, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    int64_t tokens = setup->plan->global_batch * setup->plan->model.seq_length;
    struct step_result result = {
        .step = trainer->state.step,
        .learning_rate = learning_rate_at(&setup->optimizer, trainer->state.step),
        .tokens = tokens,
        .loss_scale = trainer->scaler.scale,
    };
    double start_s = clock_s();
    double loss_sum = 0;
    TRY(accumulate_gradients(trainer, &loss_sum, err));
    result.loss = without_sign_of_nan(loss_sum / (double)tokens);
    enum status status = update_or_skip(trainer, &result, err);
    trainer->state.step++;
    trainer->state.next_sample += setup->plan->global_batch;
    result.seconds = clock_s() - start_s;
    result.complete = true;
    *out = result;
    return status;
}

/* ---- evaluation ---- */

/* Windows beyond the last are not scored. */
static enum status read_validation(struct trainer *trainer, int64_t first, int64_t count,
                                   struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    int64_t length = setup->plan->model.seq_length, total = trainer->evaluated_windows;
    int64_t left = total > first ? total - first : 0;
    int64_t real = left < count ? left : count;
    size_t rest = (size_t)((count - real) * length) * sizeof(int32_t);
    memset(trainer->host_tokens + real * length, 0, rest);
    memset(trainer->host_targets + real * length, 0xff, rest); /* -1: ignored */
    if (real == 0)
        return STATUS_OK;
    return dataset_validation_windows(setup->dataset, total, first, real, trainer->host_tokens,
                                      trainer->host_targets, err);
}

/* Micro-batches of windows go to the replicas in turn. */
static enum status load_validation(void *user, int chunk, int64_t micro_batch, struct error *err)
{
    struct trainer *trainer = user;
    const struct plan *plan = trainer->setup.plan;
    int64_t replica = mesh_replica_of(plan, trainer->layout.rank);
    int64_t first = (micro_batch * plan->data_parallel + replica) * plan->micro_batch;
    return load_chunk(trainer, chunk, first, micro_batch, read_validation, err);
}

/* Forward passes only, each micro-batch through all chunks. */
static enum status evaluation_actions(const struct plan *plan, int64_t micro_batches,
                                      struct schedule_action **out, size_t *count,
                                      struct error *err)
{
    *count = (size_t)(micro_batches * plan->virtual_stages);
    *out = calloc(*count, sizeof **out);
    if (*out == NULL)
        return error_memory(err, *count * sizeof **out, "an evaluation");
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = (struct schedule_action){
            .is_forward = true,
            .chunk = (int32_t)(i % (size_t)plan->virtual_stages),
            .micro_batch = (int32_t)(i / (size_t)plan->virtual_stages),
        };
    return STATUS_OK;
}

static enum status evaluate(struct trainer *trainer, double *loss_sum, struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    int64_t windows_at_once = plan->micro_batch * plan->data_parallel;
    int64_t micro_batches = (trainer->evaluated_windows + windows_at_once - 1) / windows_at_once;
    struct schedule_action *actions = NULL;
    struct pass pass = trainer->pass;
    struct pipeline pipeline = {.pass = &pass,
                                .world = trainer->setup.comm,
                                .micro_batches = micro_batches,
                                .load = load_validation,
                                .user = trainer};
    TRY(evaluation_actions(plan, micro_batches, &actions, &pipeline.count, err));
    pipeline.actions = actions;
    pass.reduction = NULL;
    struct event_sink sink = trainer->journal.sink;
    trainer->journal.sink = (struct event_sink){0};
    enum status status = pipeline_run(&pipeline, loss_sum, err);
    trainer->journal.sink = sink;
    free(actions);
    return status;
}

enum status trainer_evaluate(struct trainer *trainer, int64_t windows, double *loss,
                             struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    double sum = 0;
    trainer->evaluated_windows =
        windows > 0 ? windows : dataset_validation_window_count(setup->dataset);
    TRY(evaluate(trainer, &sum, err));
    sum = spoken_loss(trainer, sum);
    TRY(comm_all_reduce_sum_f64(setup->comm, &sum, 1, err));
    *loss = sum / ((double)trainer->evaluated_windows * (double)setup->plan->model.seq_length);
    return STATUS_OK;
}
