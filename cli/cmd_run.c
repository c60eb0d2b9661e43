#include "cli/cmd_run.h"

#include "cli/cli.h"
#include "cli/interrupt.h"
#include "cli/launch.h"
#include "cli/supervise.h"
#include "executor/agree.h"
#include "executor/comm/binding.h"
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MINIMUM_S = 3 };

#define RUN_ROW(option, field, kind, meta, initial, low, high, text)                               \
    {                                                                                              \
        .name = option, .type = kind, .offset = offsetof(struct run_options, field),               \
        .metavar = meta, .fallback = initial, .doc = text, .minimum = low, .maximum = high         \
    }

static const struct option_spec data_rows[] = {
    RUN_ROW("data", data, OPTION_STRING, "FILE", NULL, 0, 0,
            "training data: any text as bytes (last tenth: validation), or tokens in llm.c's .bin "
            "format (required)"),
    RUN_ROW("validation-data", validation_data, OPTION_STRING, "FILE", NULL, 0, 0,
            "validation data, when it is not the last tenth of --data"),
    RUN_ROW("seed", seed, OPTION_INT, "N", "1337", 0, 9e15,
            "seed of initial weights and data order; they do not depend on the plan"),
    RUN_ROW("steps", steps, OPTION_INT, "N", "1000", 1, 1e12,
            "training steps, those of a loaded checkpoint included"),
};
static const struct option_spec optimizer_rows[] = {
    RUN_ROW("lr", learning_rate, OPTION_REAL, "RATE", "1e-3", 0, 1e3, "peak learning rate"),
    RUN_ROW("min-lr", min_learning_rate, OPTION_REAL, "RATE", "-1", -1, 1e3,
            "learning rate at the end of the cosine; -1 is a tenth of --lr"),
    RUN_ROW("warmup", warmup_steps, OPTION_INT, "N", "-1", -1, 1e12,
            "steps of linear warm-up; -1 is a tenth of --steps, at most 100"),
    RUN_ROW("beta1", beta1, OPTION_REAL, "X", "0.9", 0, 1, "AdamW's decay of the first moment"),
    RUN_ROW("beta2", beta2, OPTION_REAL, "X", "0.95", 0, 1, "AdamW's decay of the second moment"),
    RUN_ROW("eps", epsilon, OPTION_REAL, "X", "1e-8", 1e-30, 1, "AdamW's epsilon"),
    RUN_ROW("weight-decay", weight_decay, OPTION_REAL, "X", "0.1", 0, 1e3,
            "decoupled weight decay of matrices"),
    RUN_ROW("clip", clip_norm, OPTION_REAL, "NORM", "1", 0, 1e9,
            "clip the global gradient norm to this; 0 does not"),
    RUN_ROW("skip-limit", skip_limit, OPTION_INT, "N", "10", 1, 1e9,
            "stop after this many steps in a row whose loss or gradient was not finite"),
};
static const struct option_spec report_rows[] = {
    STORE_OPTION_ROW(struct run_options),
    RUN_ROW("eval-interval", eval_interval, OPTION_INT, "N", "250", 0, 1e12,
            "steps between evaluations on the validation split; 0 evaluates at the end only"),
    RUN_ROW("eval-windows", eval_windows, OPTION_INT, "N", "200", 0, 1e12,
            "validation sequences of an evaluation; 0 takes the whole split"),
    RUN_ROW("log-interval", log_interval, OPTION_INT, "N", "0", 0, 1e12,
            "steps between printed lines; 0 prints about fifty lines"),
    RUN_ROW("log", log, OPTION_STRING, "FILE", NULL, 0, 0, "write every step as a line of JSON"),
    RUN_ROW("trace-steps", trace_steps, OPTION_INT, "N", "8", 0, 1e6,
            "steps whose every event is kept, spread over the run"),
    {.name = "no-trace",
     .type = OPTION_FLAG,
     .offset = offsetof(struct run_options, no_trace),
     .doc = "record no events at all"},
    NO_BIND_OPTION_ROW(struct run_options),
    JSON_OPTION_ROW(struct run_options),
};
static const struct option_spec checkpoint_rows[] = {
    RUN_ROW("save", save, OPTION_STRING, "FOLDER", NULL, 0, 0,
            "write checkpoints here, at the end and when interrupted"),
    RUN_ROW("save-interval", save_interval, OPTION_INT, "N", "-1", -1, 1e12,
            "steps between checkpoints; 0 saves at the end only, -1 every tenth of --steps"),
    RUN_ROW("keep", keep, OPTION_INT, "N", "2", 1, 1e9, "checkpoints that stay in the folder"),
    RUN_ROW("load", load, OPTION_STRING, "PATH", NULL, 0, 0,
            "continue from a checkpoint, or the newest whole one of a folder"),
    RUN_ROW("init-from", initial_weights, OPTION_STRING, "PATH", NULL, 0, 0,
            "start from HF safetensors weights"),
};
static const struct option_spec fault_rows[] = {
    RUN_ROW("max-restarts", max_restarts, OPTION_INT, "N", "0", 0, 1e6,
            "when a rank dies or hangs, start the ranks again up to N times, from the newest whole "
            "checkpoint of --save"),
    RUN_ROW("timeout", timeout_s, OPTION_INT, "SECONDS", "600", 0, 1e9,
            "a rank that is silent, or makes the others wait, for so long hangs: it is named and "
            "the run ends; 0 waits for ever"),
};
static const struct option_table groups[] = {
    {.rows = data_rows, .count = COUNT_OF(data_rows), .heading = "Training"},
    {.rows = optimizer_rows, .count = COUNT_OF(optimizer_rows), .heading = "Optimizer (AdamW)"},
    {.rows = checkpoint_rows, .count = COUNT_OF(checkpoint_rows), .heading = "Checkpoints"},
    {.rows = fault_rows, .count = COUNT_OF(fault_rows), .heading = "Faults"},
    {.rows = report_rows, .count = COUNT_OF(report_rows), .heading = "Records"},
};
static const struct command_spec spec = {
    .name = "run",
    .summary = "train as a plan says, on real data, and record a trace",
    .synopsis = "PLAN --data FILE [options]",
    .description =
        "Trains the plan's model from the seed, a checkpoint or given weights. When the plan has "
        "more than one rank and no launcher started this process, it starts itself under mpirun; "
        "under mpirun or srun the number of ranks must be the plan's.\n\n"
        "When a rank dies or hangs, all others are ended and the message names it; with "
        "--max-restarts they start again.\n\n"
        "Each printed line has step, loss, gradient norm, learning rate, time, tokens/s, share of "
        "the measured matmul peak and peak memory. The same seed and global batch give the same "
        "training whatever the plan. Ctrl-C ends after the current step and saves.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper run plan.json --data input.txt --steps 2000 --lr 1e-3 --save ckpt",
    .positional_minimum = 1,
    .positional_maximum = 1,
};

static void fill_defaults(struct run_options *options)
{
    if (options->min_learning_rate < 0)
        options->min_learning_rate = options->learning_rate / 10;
    if (options->warmup_steps < 0)
        options->warmup_steps = options->steps / 10 < 100 ? options->steps / 10 : 100;
    if (options->save_interval < 0)
        options->save_interval = options->save == NULL ? 0 : (options->steps + 9) / 10;
    if (options->log_interval == 0)
        options->log_interval = options->steps > 50 ? options->steps / 50 : 1;
}

static enum status check_options(const struct run_options *options, struct error *err)
{
    if (options->data == NULL)
        return error_set(err, STATUS_USAGE, "--data is missing: a text file or an llm.c .bin");
    if (options->beta1 >= 1 || options->beta2 >= 1)
        return error_set(err, STATUS_USAGE, "--beta1 and --beta2 must be below 1");
    if (options->warmup_steps > options->steps)
        return error_set(err, STATUS_USAGE, "--warmup %lld is more than --steps %lld",
                         (long long)options->warmup_steps, (long long)options->steps);
    if (options->load != NULL && options->initial_weights != NULL)
        return error_set(err, STATUS_USAGE,
                         "--load and --init-from exclude each other: a checkpoint has weights");
    if (options->save_interval > 0 && options->save == NULL)
        return error_set(err, STATUS_USAGE, "--save-interval needs --save FOLDER");
    if (options->max_restarts > 0 && options->save == NULL)
        return error_set(err, STATUS_USAGE,
                         "--max-restarts needs --save FOLDER: a restart continues from there");
    if (options->timeout_s > 0 && options->timeout_s < TIMEOUT_MINIMUM_S)
        return error_set(err, STATUS_USAGE,
                         "--timeout must be 0 or at least %d: ranks give a sign of life every %d s",
                         TIMEOUT_MINIMUM_S, PULSE_INTERVAL_S);
    if (options->max_restarts > 0 && comm_launched_ranks() > 0 && getenv(LAUNCHED_VARIABLE) == NULL)
        return error_set(err, STATUS_USAGE,
                         "--max-restarts: mpirun or srun started this process, and temper can only "
                         "restart ranks that it started itself; leave out one of the two");
    return STATUS_OK;
}

/* What the temper that started this rank has found out since. */
static void adopt_restart(struct run_options *options)
{
    const char *restart = getenv(RESTART_VARIABLE);
    if (getenv(LAUNCHED_VARIABLE) == NULL || restart == NULL)
        return;
    options->restart = strtoll(restart, NULL, 10);
    if (getenv(RESUME_VARIABLE) == NULL)
        return;
    options->load = options->save;
    options->initial_weights = NULL;
}

static enum status check_ranks(const struct plan *plan, const struct run_options *options,
                               int ranks, struct error *err)
{
    if (plan->ranks == ranks)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s: key 'ranks' is %d, but %d were started; start %d (mpirun -np %d, or none "
                     "at all and temper starts them) or make a plan with --ranks %d --pin dp=%d",
                     options->plan_path, plan->ranks, ranks, plan->ranks, plan->ranks, ranks,
                     ranks);
}

static enum status check_device(const struct plan *plan, const struct run_options *options,
                                const struct device *device, struct error *err)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        if (!device_supports(device, plan->layers[i].precision))
            return error_set(err, STATUS_UNSUPPORTED,
                             "%s: key 'layers[%zu].precision' is %s, which this machine cannot "
                             "compute (%s); plan with --pin precision=fp32",
                             options->plan_path, i, precision_name(plan->layers[i].precision),
                             device_libraries(device));
    return STATUS_OK;
}

/* With the device and the data at hand; the same outcome at every rank. */
static enum status train(struct run_context *run, struct error *err)
{
    const struct plan *plan = run->plan;
    struct dataset *dataset = NULL;
    struct dataset_options data = {
        .path = run->options->data,
        .validation_path = run->options->validation_data,
        .vocab = plan->model.vocab,
        .seq_length = plan->model.seq_length,
        .seed = (uint64_t)run->options->seed,
    };
    enum status status = check_device(plan, run->options, run->device, err);
    if (status == STATUS_OK)
        status = dataset_open(&dataset, &data, err);
    status = agree(run->comm, status, err);
    if (status == STATUS_OK)
        status = run_train(run, dataset, err);
    dataset_close(dataset);
    return status;
}

/* In the group of all ranks; the same outcome at every one. */
static enum status join_and_train(struct run_context *run, struct error *err)
{
    const struct plan *plan = run->plan;
    TRY(agree(run->comm, check_ranks(plan, run->options, comm_size(run->comm), err), err));
    if (run->is_first && comm_launched_ranks() > 0 &&
        getenv(LAUNCHED_VARIABLE) == NULL) /* else the launcher has said it */
        warn_when_oversubscribed(comm_local_size(run->comm), plan->threads);
    bool bound;
    if (!run->options->no_bind)
        TRY(comm_bind(run->comm, plan->threads, BIND_NEAR, &bound, err));
    TRY(agree(run->comm, device_open(&run->device, plan->threads, err), err));
    enum status status = train(run, err);
    device_close(run->device);
    return status;
}

/* All ranks have the same message. Said before MPI ends: the first rank to be gone with an exit
 * code makes mpirun end those that still have something to say. */
static void tell_failure(const struct run_context *run, struct error *err)
{
    console_progress_end();
    if (run->is_first && err->message[0] != '\0')
        fprintf(stderr, "temper run: %s\n", err->message);
    err->message[0] = '\0';
}

static enum status work_as_rank(const struct run_options *options, const struct plan *plan,
                                struct error *err)
{
    struct run_context run = {.options = options, .plan = plan};
    struct pulse_setup pulse = {.rank = comm_launched_rank(),
                                .is_watched = getenv(LAUNCHED_VARIABLE) != NULL,
                                .timeout_s = options->timeout_s};
    TRY(interrupt_catch(err));
    /* A reader of the step lines that goes away, such as `| head`, does not end a training. */
    signal(SIGPIPE, SIG_IGN);
    /* Before MPI starts, so that a rank that stops in its beginnings is missed as well. */
    TRY(pulse_start(&run.pulse, &pulse, err));
    enum status status = comm_open(&run.comm, err);
    if (status == STATUS_OK) {
        run.is_first = comm_rank(run.comm) == 0;
        status = join_and_train(&run, err);
        if (status != STATUS_OK)
            tell_failure(&run, err);
    }
    pulse_stop(run.pulse);
    comm_close(run.comm);
    return status;
}

static enum status run_plan(const struct run_options *options, const struct plan *plan, int argc,
                            char **argv, struct error *err)
{
    bool is_rank = comm_launched_ranks() > 0 || getenv(LAUNCHED_VARIABLE) != NULL;
    if (is_rank || (plan->ranks == 1 && options->max_restarts == 0))
        return work_as_rank(options, plan, err);
    struct launch_request request = {
        .ranks = plan->ranks,
        .threads = plan->threads,
        .command = "run",
        .argc = argc,
        .argv = argv,
        .timeout_s = options->timeout_s,
        .on_death =
            options->save != NULL
                ? "what was saved until then is whole: continue with --load and the same folder"
                : "nothing was saved: --save FOLDER --save-interval N keeps checkpoints",
    };
    return supervise(options, &request, err);
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct run_options options = {0};
    struct positionals positionals = {0};
    struct plan plan = {0};
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    fill_defaults(&options);
    TRY(check_options(&options, err));
    adopt_restart(&options);
    options.plan_path = positionals.values[0];
    TRY(plan_load(&plan, options.plan_path, err));
    enum status status = run_plan(&options, &plan, argc, argv, err);
    plan_clear(&plan);
    return status;
}

const struct command command_run = {.spec = &spec, .run = run};
