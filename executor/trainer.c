#include "executor/trainer.h"

#include "base/clock.h"
#include "executor/agree.h"
#include "executor/checkpoint.h"
#include "executor/layout.h"
#include "executor/ops/update.h"
#include "executor/pass.h"
#include "executor/reduction.h"
#include "executor/weights.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct trainer {
    struct trainer_setup setup;
    struct layout layout;
    struct pass pass;
    struct reduction reduction;
    int32_t *host_tokens, *host_targets; /* [micro_batch, seq_length] */
    struct training_state state;
    int64_t skipped_in_a_row;
};

static int64_t window_tokens(const struct trainer *trainer)
{
    return trainer->setup.plan->micro_batch * trainer->setup.plan->model.seq_length;
}

static enum status allocate_host_windows(struct trainer *trainer, struct error *err)
{
    size_t count = (size_t)window_tokens(trainer);
    trainer->host_tokens = calloc(count, sizeof *trainer->host_tokens);
    trainer->host_targets = calloc(count, sizeof *trainer->host_targets);
    if (trainer->host_tokens == NULL || trainer->host_targets == NULL)
        return error_memory(err, 2 * count * sizeof *trainer->host_tokens, "token windows");
    return STATUS_OK;
}

static enum status prepare(struct trainer *trainer, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    TRY(layout_open(&trainer->layout, setup->device, setup->plan, true, err));
    trainer->pass = (struct pass){
        .plan = setup->plan,
        .layout = &trainer->layout,
        .shape = plan_shape(setup->plan),
        .rank = comm_rank(setup->comm),
    };
    TRY(reduction_open(&trainer->reduction, setup->comm, &trainer->pass, err));
    TRY(allocate_host_windows(trainer, err));
    weights_initialise(&trainer->layout, &setup->plan->model, setup->seed);
    trainer->state = (struct training_state){
        .global_batch = setup->plan->global_batch,
        .seed = setup->seed,
    };
    return STATUS_OK;
}

enum status trainer_open(struct trainer **out, const struct trainer_setup *setup, struct error *err)
{
    struct trainer *trainer = calloc(1, sizeof *trainer);
    if (trainer == NULL)
        return error_memory(err, sizeof *trainer, "the trainer");
    trainer->setup = *setup;
    trainer->layout.device = setup->device;
    enum status status = agree(setup->comm, prepare(trainer, err), err);
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
    free(trainer->host_tokens);
    free(trainer->host_targets);
    reduction_close(&trainer->reduction);
    layout_close(&trainer->layout);
    free(trainer);
}

void trainer_record(struct trainer *trainer, struct event_sink sink)
{
    trainer->pass.sink = sink;
}

uint64_t trainer_layout_bytes(const struct trainer *trainer)
{
    return trainer->layout.bytes;
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
    enum status status = STATUS_OK;
    if (comm_rank(setup->comm) == 0)
        status = weights_load_hf(path, &setup->plan->model, trainer->layout.parameters, err);
    TRY(agree(setup->comm, status, err));
    return weights_broadcast(&trainer->layout, setup->comm, false, err);
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
    struct layout *layout = &trainer->layout;
    struct weight_arrays arrays = {layout->parameters, layout->first_moment, layout->second_moment};
    struct training_state state = {0};
    enum status status = STATUS_OK;
    if (comm_rank(setup->comm) == 0)
        status = checkpoint_load(path, &setup->plan->model, &arrays, &state, &setup->reporter, err);
    TRY(agree(setup->comm, status, err));
    TRY(comm_broadcast(setup->comm, &state, sizeof state, 0, err));
    TRY(weights_broadcast(layout, setup->comm, true, err));
    if (comm_rank(setup->comm) == 0)
        warn_of_other_data_order(trainer, &state);
    trainer->state = state;
    trainer->state.seed = setup->seed;
    trainer->state.global_batch = setup->plan->global_batch;
    return STATUS_OK;
}

enum status trainer_save_checkpoint(struct trainer *trainer, const char *folder, int64_t keep,
                                    struct error *err)
{
    struct layout *layout = &trainer->layout;
    struct weight_arrays arrays = {layout->parameters, layout->first_moment, layout->second_moment};
    enum status status = STATUS_OK;
    if (comm_rank(trainer->setup.comm) == 0)
        status = checkpoint_save(folder, &trainer->setup.plan->model, &arrays, &trainer->state,
                                 keep, err);
    return agree(trainer->setup.comm, status, err);
}

/* ---- a step ---- */

static void hand_over_windows(struct trainer *trainer, int64_t sequences)
{
    size_t bytes = (size_t)(sequences * trainer->setup.plan->model.seq_length) * sizeof(int32_t);
    device_write(trainer->setup.device, trainer->layout.tokens, trainer->host_tokens, bytes);
    device_write(trainer->setup.device, trainer->layout.targets, trainer->host_targets, bytes);
}

/* The rank's share of a global batch is one run of neighbouring samples; micro-batches go through
 * it in order. */
static enum status load_micro_batch(struct trainer *trainer, int64_t index, struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    int64_t share = plan->micro_batch * plan->micro_batches;
    int64_t first = trainer->state.next_sample + comm_rank(trainer->setup.comm) * share +
                    index * plan->micro_batch;
    int64_t start_ns = clock_ns();
    TRY(dataset_train_windows(trainer->setup.dataset, first, plan->micro_batch,
                              trainer->host_tokens, trainer->host_targets, err));
    hand_over_windows(trainer, plan->micro_batch);
    pass_record(&trainer->pass, STREAM_COMPUTE, EVENT_NO_LAYER, PHASE_OTHER, start_ns, 0);
    return STATUS_OK;
}

static enum status accumulate_gradients(struct trainer *trainer, double *loss_sum,
                                        struct error *err)
{
    const struct plan *plan = trainer->setup.plan;
    struct pass *pass = &trainer->pass;
    pass->step = trainer->state.step;
    pass->loss_scale = (float)(1.0 / ((double)plan->global_batch * (double)plan->model.seq_length));
    *loss_sum = 0;
    for (int64_t i = 0; i < plan->micro_batches; i++) {
        bool is_last = i + 1 == plan->micro_batches;
        double micro_batch_loss = 0;
        pass->micro_batch = (int32_t)i;
        pass->accumulate = i > 0;
        bool reduces = is_last && comm_size(trainer->setup.comm) > 1;
        pass->layer_done = reduces ? reduction_start : NULL;
        pass->layer_done_user = &trainer->reduction;
        TRY(load_micro_batch(trainer, i, err));
        TRY(pass_forward(pass, &micro_batch_loss, err));
        TRY(pass_backward(pass, err));
        *loss_sum += micro_batch_loss;
    }
    return reduction_finish(&trainer->reduction, err);
}

/* NaN has a sign that means nothing, and printf shows it. */
static double without_sign_of_nan(double value)
{
    return isnan(value) ? (double)NAN : value;
}

static enum status update_or_skip(struct trainer *trainer, struct step_result *result,
                                  struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    result->gradient_norm = without_sign_of_nan(optimizer_gradient_norm(&trainer->pass));
    result->skipped = !isfinite(result->gradient_norm) || !isfinite(result->loss);
    if (!result->skipped) {
        trainer->skipped_in_a_row = 0;
        trainer->state.optimizer_time++;
        optimizer_update(&trainer->pass, &setup->optimizer, result->learning_rate,
                         result->gradient_norm, trainer->state.optimizer_time);
        return STATUS_OK;
    }
    trainer->state.skipped_steps++;
    trainer->skipped_in_a_row++;
    if (trainer->skipped_in_a_row < setup->skip_limit)
        return STATUS_OK;
    return error_set(err, STATUS_FAILED,
                     "step %lld: the loss or gradient was not finite for %lld steps in a row (loss "
                     "%g, gradient norm %g); lower --lr, or resume from an earlier checkpoint",
                     (long long)result->step + 1, (long long)trainer->skipped_in_a_row,
                     result->loss, result->gradient_norm);
}

enum status trainer_step(struct trainer *trainer, struct step_result *out, struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    int64_t tokens = setup->plan->global_batch * setup->plan->model.seq_length;
    struct step_result result = {
        .step = trainer->state.step,
        .learning_rate = learning_rate_at(&setup->optimizer, trainer->state.step),
        .tokens = tokens,
    };
    double start_s = clock_s();
    double loss_sum = 0;
    TRY(accumulate_gradients(trainer, &loss_sum, err));
    TRY(comm_all_reduce_sum_f64(setup->comm, &loss_sum, 1, err));
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

/* Window w of the validation set is rank (w / micro_batch) mod size's. */
static enum status evaluate_share(struct trainer *trainer, int64_t windows, double *loss_sum,
                                  struct error *err)
{
    int64_t size = comm_size(trainer->setup.comm);
    int64_t micro_batch = trainer->setup.plan->micro_batch;
    struct pass pass = trainer->pass;
    pass.sink = (struct event_sink){0};
    for (int64_t first = comm_rank(trainer->setup.comm) * micro_batch; first < windows;
         first += size * micro_batch) {
        int64_t count = windows - first < micro_batch ? windows - first : micro_batch;
        double sum = 0;
        pass.shape.sequences = count;
        TRY(dataset_validation_windows(trainer->setup.dataset, windows, first, count,
                                       trainer->host_tokens, trainer->host_targets, err));
        hand_over_windows(trainer, count);
        TRY(pass_forward(&pass, &sum, err));
        *loss_sum += sum;
    }
    return STATUS_OK;
}

enum status trainer_evaluate(struct trainer *trainer, int64_t windows, double *loss,
                             struct error *err)
{
    const struct trainer_setup *setup = &trainer->setup;
    int64_t total = windows > 0 ? windows : dataset_validation_window_count(setup->dataset);
    double sum = 0;
    enum status status = evaluate_share(trainer, total, &sum, err);
    TRY(agree(setup->comm, status, err));
    TRY(comm_all_reduce_sum_f64(setup->comm, &sum, 1, err));
    *loss = sum / ((double)total * (double)setup->plan->model.seq_length);
    return STATUS_OK;
}
