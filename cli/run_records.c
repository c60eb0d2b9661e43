#include "cli/run_records.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/host.h"
#include "base/stats.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/run_power.h"
#include "executor/agree.h"
#include "traces/compare.h"
#include "traces/figures.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PENDING_STEPS = 256 };

static const double FLUSH_INTERVAL_S = 2.0;

struct run_records {
    struct run_context run;
    struct store *store; /* NULL but on rank 0 */
    FILE *log;           /* NULL: none */
    struct run_info info;
    struct run_power *power;
    double step_flops; /* of all ranks */
    struct run_step pending[PENDING_STEPS];
    size_t pending_count;
    double flushed_s;
    double *step_seconds; /* [step_count] of the steps of this run */
    size_t step_count, step_capacity;
    struct run_step last;
    double validation_loss; /* NaN: none yet */
};

static double plan_flops(const struct plan *plan)
{
    struct micro_batch_shape shape = plan_shape(plan);
    double flops = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        flops += 3 * layer_forward_flops(&plan->model, model_layer(&plan->model, i).kind, &shape);
    return flops * (double)plan->micro_batches * plan->data_parallel;
}

/* Before hours of training rather than after them. */
static enum status check_outputs(const struct run_options *options, struct error *err)
{
    if (options->save != NULL) {
        TRY(folder_create(options->save, err));
        if (access(options->save, W_OK | X_OK) != 0)
            return error_set(err, STATUS_IO, "--save %s: cannot write into this folder: %s",
                             options->save, strerror(errno));
    }
    if (options->log == NULL)
        return STATUS_OK;
    int log = open(options->log, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (log < 0)
        return error_set(err, STATUS_IO, "cannot write the log '%s': %s", options->log,
                         strerror(errno));
    close(log);
    return STATUS_OK;
}

/* A rank that was killed may have left half a line. */
static void trim_to_whole_lines(FILE *log)
{
    char piece[4096];
    long whole = 0, read_bytes = 0;
    size_t bytes;
    while ((bytes = fread(piece, 1, sizeof piece, log)) > 0) {
        for (size_t i = 0; i < bytes; i++)
            if (piece[i] == '\n')
                whole = read_bytes + (long)i + 1;
        read_bytes += (long)bytes;
    }
    if (whole < read_bytes && ftruncate(fileno(log), whole) != 0)
        fputc('\n', log); /* then the half is a line of its own */
}

/* A restarted run goes on with its log. */
static enum status open_log(struct run_records *records, struct error *err)
{
    const char *path = records->run.options->log;
    bool goes_on = records->run.options->restart > 0;
    if (path == NULL)
        return STATUS_OK;
    records->log = fopen(path, goes_on ? "a+" : "w");
    if (records->log == NULL)
        return error_set(err, STATUS_IO, "cannot write the log '%s': %s", path, strerror(errno));
    if (goes_on)
        trim_to_whole_lines(records->log);
    return STATUS_OK;
}

static enum status open_files(struct run_records *records, struct error *err)
{
    TRY(check_outputs(records->run.options, err));
    TRY(store_open(&records->store, records->run.options->store, STORE_CREATE, err));
    return store_plan_add(records->store, records->run.plan, &records->info.plan_id, err);
}

enum status run_records_open(struct run_records **out, const struct run_context *run,
                             struct error *err)
{
    struct run_records *records = calloc(1, sizeof *records);
    if (records == NULL)
        return error_memory(err, sizeof *records, "the run's records");
    records->run = *run;
    records->validation_loss = NAN;
    records->step_flops = plan_flops(run->plan);
    enum status status = run->is_first ? open_files(records, err) : STATUS_OK;
    status = agree(run->comm, status, err);
    if (status == STATUS_OK)
        status = run_power_open(&records->power, run, records->store, err);
    if (status != STATUS_OK) {
        run_records_close(records);
        return status;
    }
    *out = records;
    return STATUS_OK;
}

void run_records_close(struct run_records *records)
{
    if (records == NULL)
        return;
    run_power_close(records->power);
    store_close(records->store);
    if (records->log != NULL)
        fclose(records->log);
    free(records->step_seconds);
    free(records);
}

static void print_start(const struct run_records *records)
{
    const struct plan *plan = records->run.plan;
    char parameters[UNIT_TEXT_BYTES], layout[UNIT_TEXT_BYTES], split[FIGURE_LINE_BYTES];
    bool is_plain = plan->ranks == plan->data_parallel;
    if (records->run.options->json)
        return;
    printf("%s, %s parameters; ", plan->model.name,
           format_count((double)model_parameter_count(&plan->model), parameters));
    if (!is_plain)
        printf("%s; ", figure_split(plan, "x", split));
    printf("global batch %lld = %d %s x %lld micro-batches x %lld sequences of %lld tokens; "
           "threads a rank: %d; %s laid out %s\n",
           (long long)plan->global_batch, plan->data_parallel,
           is_plain                   ? "ranks"
           : plan->data_parallel == 1 ? "replica"
                                      : "replicas",
           (long long)plan->micro_batches, (long long)plan->micro_batch,
           (long long)plan->model.seq_length, plan->threads,
           format_bytes((double)records->info.layout_bytes, layout),
           plan->pipeline == 1 ? "a rank" : "on the fullest rank");
}

static enum status begin_first(struct run_records *records, int64_t process_bytes,
                               int64_t layout_bytes, struct error *err)
{
    const struct run_options *options = records->run.options;
    struct run_info *info = &records->info;
    struct host_info host;
    TRY(open_log(records, err));
    host_query(&host);
    snprintf(info->host, sizeof info->host, "%s", host.name);
    snprintf(info->data_path, sizeof info->data_path, "%s", options->data);
    snprintf(info->options, sizeof info->options, "steps %lld, lr %g, weight decay %g, clip %g",
             (long long)options->steps, options->learning_rate, options->weight_decay,
             options->clip_norm);
    snprintf(info->revision, sizeof info->revision, "%s", temper_version());
    info->seed = options->seed;
    info->started_unix_ms = clock_unix_ms();
    info->status = RUN_RUNNING;
    info->process_bytes_at_start = process_bytes;
    info->layout_bytes = layout_bytes;
    info->matmul_flops = run_power_matmul_flops(records->power);
    info->copy_bytes_s = run_power_copy_bytes_s(records->power);
    info->energy_j = quantity_absent();
    pulse_run(records->run.pulse, info->started_unix_ms);
    TRY(store_run_begin(records->store, info, err));
    print_start(records);
    records->flushed_s = clock_s();
    return STATUS_OK;
}

enum status run_records_begin(struct run_records *records, int64_t steps_done, int64_t layout_bytes,
                              struct error *err)
{
    records->last = (struct run_step){.step = steps_done - 1, .loss = NAN};
    /* Of the fullest rank: stages differ. */
    int64_t facts[] = {(int64_t)host_process_rss_bytes() - layout_bytes, layout_bytes};
    enum status status = STATUS_OK;
    TRY(comm_all_reduce_max_i64(records->run.comm, facts, COUNT_OF(facts), err));
    if (records->run.is_first)
        status = begin_first(records, facts[0], facts[1], err);
    return agree(records->run.comm, status, err);
}

static enum status flush_steps(struct run_records *records, struct error *err)
{
    if (records->pending_count == 0)
        return STATUS_OK;
    if (records->log != NULL && fflush(records->log) != 0)
        return error_set(err, STATUS_IO, "%s: writing the log: %s", records->run.options->log,
                         strerror(errno));
    TRY(store_run_steps_add(records->store, records->info.id, records->pending,
                            records->pending_count, err));
    records->pending_count = 0;
    records->flushed_s = clock_s();
    return STATUS_OK;
}

/* A store that cannot be written now, while another command writes say, gets the rows next time:
 * only when there is no more room for them does the run fail. */
static enum status flush_or_keep(struct run_records *records, struct error *err)
{
    enum status status = flush_steps(records, err);
    if (status != STATUS_IO || records->pending_count == PENDING_STEPS)
        return status;
    records->flushed_s = clock_s();
    return STATUS_OK;
}

enum status run_records_flush(struct run_records *records, struct error *err)
{
    if (!records->run.is_first)
        return STATUS_OK;
    if (records->log != NULL && fflush(records->log) != 0)
        return error_set(err, STATUS_IO, "%s: writing the log: %s", records->run.options->log,
                         strerror(errno));
    return flush_or_keep(records, err);
}

static void print_step(const struct run_records *records, const struct run_step *step)
{
    char peak[UNIT_TEXT_BYTES], share[16] = "-";
    if (records->run.options->json)
        return;
    if (records->info.matmul_flops > 0)
        snprintf(share, sizeof share, "%.1f %%",
                 100 * records->step_flops / step->seconds / records->info.matmul_flops);
    printf("step %6lld/%lld  loss %7.4f  norm %8.4f  lr %.2e  %8.1f ms  %8.0f tokens/s  %7s of "
           "matmul peak  %s%s\n",
           (long long)step->step + 1, (long long)records->run.options->steps, step->loss,
           step->gradient_norm, step->learning_rate, 1e3 * step->seconds,
           (double)step->tokens / step->seconds, share,
           format_bytes((double)records->info.peak_bytes, peak), step->skipped ? "  skipped" : "");
    fflush(stdout);
}

/* One object as a line of the log. Frees `out`. */
static enum status log_line(const struct run_records *records, struct jout *out, struct error *err)
{
    struct text line = {0};
    enum status status = jout_finish(out, 0, &line, err);
    if (status == STATUS_OK && fprintf(records->log, "%s\n", line.data) < 0)
        status = error_set(err, STATUS_IO, "%s: writing the log: %s", records->run.options->log,
                           strerror(errno));
    text_free(&line);
    return status;
}

static enum status log_step(const struct run_records *records, const struct run_step *step,
                            struct error *err)
{
    struct jout *out = jout_new();
    jout_int(out, "step", step->step + 1);
    jout_real(out, "loss", step->loss);
    jout_real(out, "gradient_norm", step->gradient_norm);
    jout_real(out, "learning_rate", step->learning_rate);
    jout_real(out, "step_time_s", step->seconds);
    jout_real(out, "tokens_per_s", (double)step->tokens / step->seconds);
    if (records->info.matmul_flops > 0)
        jout_real(out, "matmul_share",
                  records->step_flops / step->seconds / records->info.matmul_flops);
    else
        jout_null(out, "matmul_share");
    jout_int(out, "peak_bytes", records->info.peak_bytes);
    jout_bool(out, "skipped", step->skipped);
    write_energy(&step->energy_j, out);
    return log_line(records, out, err);
}

static enum status log_evaluation(const struct run_records *records, int64_t steps, double loss,
                                  struct error *err)
{
    struct jout *out = jout_new();
    jout_int(out, "step", steps);
    jout_real(out, "validation_loss", loss);
    return log_line(records, out, err);
}

static enum status remember_seconds(struct run_records *records, double seconds, struct error *err)
{
    if (records->step_count == records->step_capacity) {
        size_t capacity = records->step_capacity == 0 ? 1024 : 2 * records->step_capacity;
        double *grown = realloc(records->step_seconds, capacity * sizeof *grown);
        if (grown == NULL)
            return error_memory(err, capacity * sizeof *grown, "step times");
        records->step_seconds = grown;
        records->step_capacity = capacity;
    }
    records->step_seconds[records->step_count++] = seconds;
    return STATUS_OK;
}

void run_records_step_begin(struct run_records *records)
{
    run_power_start(records->power);
}

enum status run_records_step(struct run_records *records, const struct step_result *result,
                             const struct rank_memory *memory, struct error *err)
{
    if (!records->run.is_first)
        return STATUS_OK;
    struct run_step step = {
        .step = result->step,
        .loss = result->loss,
        .gradient_norm = result->gradient_norm,
        .learning_rate = result->learning_rate,
        .seconds = result->seconds,
        .tokens = result->tokens,
        .resident_bytes = memory->resident_bytes,
        .skipped = result->skipped,
        .energy_j = run_power_step_energy(records->power, result->seconds),
    };
    struct run_info *info = &records->info;
    bool is_first_step = records->step_count == 0;
    if (memory->peak_bytes > info->peak_bytes)
        info->peak_bytes = memory->peak_bytes;
    info->energy_j = is_first_step ? step.energy_j : quantity_add(info->energy_j, step.energy_j);
    TRY(remember_seconds(records, step.seconds, err));
    records->last = step;
    records->pending[records->pending_count++] = step;
    if (records->log != NULL)
        TRY(log_step(records, &step, err));
    bool is_last = step.step + 1 == records->run.options->steps;
    if (is_first_step || is_last || step.skipped ||
        (step.step + 1) % records->run.options->log_interval == 0)
        print_step(records, &step);
    if (records->pending_count == PENDING_STEPS ||
        clock_s() - records->flushed_s > FLUSH_INTERVAL_S)
        return flush_or_keep(records, err);
    return STATUS_OK;
}

enum status run_records_evaluation(struct run_records *records, int64_t steps, double loss,
                                   struct error *err)
{
    struct run_evaluation evaluation = {.step = steps, .loss = loss};
    if (!records->run.is_first)
        return STATUS_OK;
    records->validation_loss = loss;
    if (!records->run.options->json)
        printf("step %6lld/%lld  validation loss %.4f\n", (long long)steps,
               (long long)records->run.options->steps, loss);
    if (records->log != NULL)
        TRY(log_evaluation(records, steps, loss, err));
    TRY(flush_steps(records, err));
    return store_run_evaluation_add(records->store, records->info.id, &evaluation, err);
}

/* ---- the end ---- */

/* Rows of every rank's recorder arrive at rank 0, one rank behind the other. */
static enum status gather_trace(struct run_records *records, struct recorder *recorder,
                                struct event **events, size_t *event_count,
                                struct layer_time **times, size_t *time_count, struct error *err)
{
    size_t count = 0;
    int size = comm_size(records->run.comm);
    size_t *bytes_by_rank = calloc((size_t)size, sizeof *bytes_by_rank);
    void *gathered = NULL;
    if (bytes_by_rank == NULL)
        return error_memory(err, (size_t)size * sizeof *bytes_by_rank, "the trace's sizes");
    const struct event *own = recorder_events(recorder, &count);
    enum status status = comm_gather_bytes(records->run.comm, own, count * sizeof *own, &gathered,
                                           bytes_by_rank, err);
    *events = gathered;
    for (int rank = 0; rank < size; rank++)
        *event_count += bytes_by_rank[rank] / sizeof **events;
    if (status == STATUS_OK) {
        const struct layer_time *own_times = recorder_layer_times(recorder, &count);
        gathered = NULL;
        status = comm_gather_bytes(records->run.comm, own_times, count * sizeof *own_times,
                                   &gathered, bytes_by_rank, err);
        *times = gathered;
        for (int rank = 0; rank < size; rank++)
            *time_count += bytes_by_rank[rank] / sizeof **times;
    }
    free(bytes_by_rank);
    return status;
}

static enum status store_trace(struct run_records *records, struct recorder *recorder,
                               struct error *err)
{
    struct event *events = NULL;
    struct layer_time *times = NULL;
    size_t event_count = 0, time_count = 0;
    enum status status =
        gather_trace(records, recorder, &events, &event_count, &times, &time_count, err);
    if (status == STATUS_OK && records->run.is_first) {
        status = store_run_events_add(records->store, records->info.id, events, event_count, err);
        if (status == STATUS_OK)
            status =
                store_run_layer_times_add(records->store, records->info.id, times, time_count, err);
    }
    free(events);
    free(times);
    return status;
}

static void warn_of_dropped(int64_t events)
{
    const struct reporter reporter = console_reporter();
    if (events > 0)
        report_warning(&reporter,
                       "the trace has no room for all events of its steps: a rank dropped %lld; "
                       "times by layer and phase are not affected",
                       (long long)events);
}

enum status run_records_end(struct run_records *records, struct recorder *recorder,
                            enum run_status status, int64_t skipped_steps, struct error *err)
{
    int64_t facts[] = {(int64_t)host_process_peak_rss_bytes(),
                       recorder == NULL ? 0 : (int64_t)recorder_dropped(recorder)};
    TRY(comm_all_reduce_max_i64(records->run.comm, facts, COUNT_OF(facts), err));
    struct error trace_err = {0};
    enum status traced = STATUS_OK;
    if (recorder != NULL)
        traced = store_trace(records, recorder, &trace_err);
    if (!records->run.is_first)
        return STATUS_OK;
    TRY(flush_steps(records, err));
    struct run_info *info = &records->info;
    if (facts[0] > info->peak_bytes)
        info->peak_bytes = facts[0];
    warn_of_dropped(facts[1]);
    info->status = status;
    info->skipped_steps = skipped_steps;
    info->ended_unix_ms = clock_unix_ms();
    TRY(store_run_update(records->store, info, err));
    if (traced != STATUS_OK)
        *err = trace_err;
    return traced;
}

void run_records_abandon(struct run_records *records, int64_t skipped_steps)
{
    struct error ignored = {0}; /* the failure that led here is the one to tell */
    struct run_info *info = &records->info;
    if (info->id == 0)
        return; /* it had not begun */
    (void)flush_steps(records, &ignored);
    info->status = RUN_FAILED;
    info->skipped_steps = skipped_steps;
    info->ended_unix_ms = clock_unix_ms();
    (void)store_run_update(records->store, info, &ignored);
}

static enum status tell_json(const struct run_records *records, double median_s, double tokens_s,
                             struct error *err)
{
    const struct run_info *info = &records->info;
    struct jout *out = jout_new();
    jout_int(out, "run", info->id);
    jout_string(out, "status", run_status_name(info->status));
    jout_int(out, "steps", records->last.step + 1);
    jout_int(out, "skipped_steps", info->skipped_steps);
    jout_real(out, "final_loss", records->last.loss);
    jout_real(out, "validation_loss", records->validation_loss);
    jout_real(out, "step_time_s", median_s);
    jout_int(out, "peak_bytes", info->peak_bytes);
    jout_int(out, "layout_bytes", info->layout_bytes);
    jout_real(out, "tokens_per_s", tokens_s);
    write_energy(&info->energy_j, out);
    return console_json(out, err);
}

enum status run_records_tell(struct run_records *records, struct error *err)
{
    if (!records->run.is_first)
        return STATUS_OK;
    const struct run_info *info = &records->info;
    size_t warmup = records->step_count > COMPARE_WARMUP_STEPS ? COMPARE_WARMUP_STEPS : 0;
    double median_s = stats_median(records->step_seconds + warmup, records->step_count - warmup);
    double tokens_s = median_s > 0 ? (double)records->last.tokens / median_s : 0;
    if (records->run.options->json)
        return tell_json(records, median_s, tokens_s, err);
    char step[UNIT_TEXT_BYTES], peak[UNIT_TEXT_BYTES], joules[UNIT_TEXT_BYTES], energy[64];
    char validation[UNIT_TEXT_BYTES] = "-";
    if (!isnan(records->validation_loss))
        snprintf(validation, sizeof validation, "%.4f", records->validation_loss);
    if (info->energy_j.provenance == PROVENANCE_ABSENT)
        snprintf(energy, sizeof energy, "absent");
    else
        snprintf(energy, sizeof energy, "%s (%s)", format_joules(info->energy_j.value, joules),
                 provenance_name(info->energy_j.provenance));
    printf("run %lld %s: %lld steps (%lld skipped), loss %.4f, validation loss %s, median step "
           "%s, %.0f tokens/s, peak memory %s a rank, energy %s\n",
           (long long)info->id, run_status_name(info->status), (long long)records->last.step + 1,
           (long long)info->skipped_steps, records->last.loss, validation,
           format_seconds(median_s, step), tokens_s, format_bytes((double)info->peak_bytes, peak),
           energy);
    printf("temper report --store %s shows it against the prediction\n",
           records->run.options->store);
    return STATUS_OK;
}
