#include "base/host.h"
#include "cli/cli.h"
#include "cli/cmd_run.h"
#include "cli/interrupt.h"
#include "cli/run_records.h"
#include "executor/agree.h"
#include "traces/compare.h"
#include "traces/recorder.h"

#include <stdio.h>
#include <unistd.h>

enum { ABORT_GRACE_S = 2 };

/* The parts of a running training. */
struct training {
    const struct run_context *run;
    struct trainer *trainer;
    struct recorder *recorder; /* NULL: no trace */
    struct run_records *records;
    struct rank_memory memory; /* of the fullest rank, when last looked at */
    bool interrupted;
};

static struct trainer_setup setup_of(const struct run_context *run, struct dataset *dataset)
{
    const struct run_options *options = run->options;
    struct trainer_setup setup = {
        .plan = run->plan,
        .comm = run->comm,
        .device = run->device,
        .dataset = dataset,
        .optimizer = {.learning_rate = options->learning_rate,
                      .min_learning_rate = options->min_learning_rate,
                      .warmup_steps = options->warmup_steps,
                      .decay_steps = options->steps,
                      .beta1 = options->beta1,
                      .beta2 = options->beta2,
                      .epsilon = options->epsilon,
                      .weight_decay = options->weight_decay,
                      .clip_norm = options->clip_norm},
        .seed = (uint64_t)options->seed,
        .skip_limit = options->skip_limit,
    };
    if (run->is_first)
        setup.reporter = console_reporter();
    return setup;
}

static enum status start_recorder(struct training *training, struct error *err)
{
    const struct run_context *run = training->run;
    trainer_record(training->trainer, pulse_sink(run->pulse, (struct event_sink){0}));
    if (run->options->no_trace)
        return STATUS_OK;
    size_t layers = run->plan->layer_count;
    struct recorder_options options = {
        .layer_count = layers,
        .first_step = trainer_step_count(training->trainer),
        .end_step = run->options->steps,
        .kept_steps = run->options->trace_steps,
        .warmup_steps = COMPARE_WARMUP_STEPS,
        .events_per_step = recorder_step_events(run->plan, comm_rank(run->comm)),
        .rank = comm_rank(run->comm),
    };
    TRY(recorder_open(&training->recorder, &options, err));
    trainer_record(training->trainer, pulse_sink(run->pulse, recorder_sink(training->recorder)));
    return STATUS_OK;
}

static enum status load_weights(struct training *training, struct error *err)
{
    const struct run_options *options = training->run->options;
    if (options->load != NULL)
        return trainer_load_checkpoint(training->trainer, options->load, err);
    if (options->initial_weights != NULL)
        return trainer_load_weights(training->trainer, options->initial_weights, err);
    return STATUS_OK;
}

/* All ranks learn whether any was asked to stop, and how much memory the fullest one holds. */
static enum status look_around(struct training *training, bool with_memory, struct error *err)
{
    struct rank_memory *memory = &training->memory;
    int64_t facts[] = {interrupt_requested, memory->resident_bytes, memory->peak_bytes};
    if (with_memory) {
        facts[1] = (int64_t)host_process_rss_bytes();
        facts[2] = (int64_t)host_process_peak_rss_bytes();
    }
    TRY(comm_all_reduce_max_i64(training->run->comm, facts, COUNT_OF(facts), err));
    training->interrupted = facts[0] != 0;
    *memory = (struct rank_memory){.resident_bytes = facts[1], .peak_bytes = facts[2]};
    return STATUS_OK;
}

static enum status evaluate(struct training *training, struct error *err)
{
    double loss = 0;
    TRY(trainer_evaluate(training->trainer, training->run->options->eval_windows, &loss, err));
    return run_records_evaluation(training->records, trainer_step_count(training->trainer), loss,
                                  err);
}

static bool is_due(int64_t done, int64_t interval)
{
    return interval > 0 && done % interval == 0;
}

static enum status one_step(struct training *training, struct error *err)
{
    const struct run_options *options = training->run->options;
    struct step_result result = {0};
    pulse_step(training->run->pulse, trainer_step_count(training->trainer) + 1);
    run_records_step_begin(training->records);
    enum status status = trainer_step(training->trainer, &result, err);
    int64_t done = trainer_step_count(training->trainer);
    bool is_last = done == options->steps;
    if (!result.complete)
        return status;
    if (training->recorder != NULL)
        recorder_step_end(training->recorder, result.step, result.seconds);
    struct error record_err = {0};
    enum status recorded =
        look_around(training, is_due(result.step, options->log_interval), &record_err);
    if (recorded == STATUS_OK)
        recorded = run_records_step(training->records, &result, &training->memory, &record_err);
    if (status != STATUS_OK)
        return status;
    if (recorded != STATUS_OK) {
        *err = record_err;
        return recorded;
    }
    if (is_last || is_due(done, options->eval_interval))
        TRY(evaluate(training, err));
    bool stops = is_last || training->interrupted;
    bool is_due_to_save = stops || is_due(done, options->save_interval);
    /* After a skipped step the weights may be what made the loss infinite: older checkpoints are
     * worth more than one of these. */
    if (options->save == NULL || !is_due_to_save || result.skipped)
        return STATUS_OK;
    TRY(run_records_flush(training->records, err));
    return trainer_save_checkpoint(training->trainer, options->save, options->keep, err);
}

static enum status all_steps(struct training *training, struct error *err)
{
    const struct run_options *options = training->run->options;
    /* A rank that died after the last checkpoint leaves a restart nothing but to say how it went.
     */
    if (trainer_step_count(training->trainer) >= options->steps)
        return evaluate(training, err);
    while (trainer_step_count(training->trainer) < options->steps && !training->interrupted)
        TRY(one_step(training, err));
    return STATUS_OK;
}

/* A failure that only this rank knows of would leave the others waiting: end them all. Where rank
 * 0 failed as well, it is the one to speak, and must not be ended before the store knows. */
static void abort_if_alone(const struct training *training, enum status status,
                           const struct error *err)
{
    if (status == STATUS_OK || err->is_agreed || comm_size(training->run->comm) == 1)
        return;
    if (!training->run->is_first)
        sleep(ABORT_GRACE_S);
    else if (training->trainer != NULL)
        run_records_abandon(training->records, trainer_skipped_count(training->trainer));
    fprintf(stderr, "temper run: rank %d: %s\n", comm_rank(training->run->comm), err->message);
    comm_abort(training->run->comm, 1);
}

static enum status refuse_too_few_steps(const struct training *training, struct error *err)
{
    const struct run_options *options = training->run->options;
    if (trainer_step_count(training->trainer) < options->steps || options->restart > 0)
        return STATUS_OK;
    return error_set(err, STATUS_USAGE,
                     "--steps %lld: the checkpoint of --load %s has done %lld already; give the "
                     "steps of the whole training",
                     (long long)options->steps, options->load,
                     (long long)trainer_step_count(training->trainer));
}

static enum status begin(struct training *training, struct dataset *dataset, struct error *err)
{
    const struct run_context *run = training->run;
    TRY(run_records_open(&training->records, run, err));
    struct trainer_setup setup = setup_of(run, dataset);
    TRY(trainer_open(&training->trainer, &setup, err));
    TRY(load_weights(training, err));
    TRY(agree(run->comm, refuse_too_few_steps(training, err), err));
    TRY(agree(run->comm, start_recorder(training, err), err));
    return run_records_begin(training->records, trainer_step_count(training->trainer),
                             (int64_t)trainer_layout_bytes(training->trainer), err);
}

static enum status work(struct training *training, struct dataset *dataset, struct error *err)
{
    enum status status = begin(training, dataset, err);
    abort_if_alone(training, status, err);
    if (status != STATUS_OK)
        return status;
    status = all_steps(training, err);
    abort_if_alone(training, status, err);
    enum run_status outcome = status != STATUS_OK     ? RUN_FAILED
                              : training->interrupted ? RUN_INTERRUPTED
                                                      : RUN_DONE;
    struct error record_err = {0};
    enum status recorded = run_records_end(training->records, training->recorder, outcome,
                                           trainer_skipped_count(training->trainer), &record_err);
    if (status == STATUS_OK && recorded != STATUS_OK) {
        *err = record_err;
        return recorded;
    }
    return status == STATUS_OK ? run_records_tell(training->records, err) : status;
}

enum status run_train(const struct run_context *run, struct dataset *dataset, struct error *err)
{
    struct training training = {.run = run};
    enum status status = work(&training, dataset, err);
    run_records_close(training.records);
    trainer_close(training.trainer);
    recorder_close(training.recorder);
    return status;
}
