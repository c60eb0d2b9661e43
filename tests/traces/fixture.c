#include "fixture.h"
#include "ir/footprint.h"
#include <stdio.h>
#include <stdlib.h>

const struct fixture_options fixture_full = {
    .blocks = 4,
    .ranks = 2,
    .micro_batches = 2,
    .steps = 2000,
    .evaluations = 21,
    .kept_steps = 4,
    .has_energy = true,
    .has_prediction = true,
    .has_layer_times = true,
};

/* Shares of a step: what the prediction says and what the run measures. */
static const double predicted_share[PHASE_COUNT] = {
    [PHASE_FORWARD] = 0.30,   [PHASE_BACKWARD] = 0.58, [PHASE_GRAD_REDUCE] = 0.03,
    [PHASE_OPTIMIZER] = 0.06, [PHASE_OTHER] = 0.03,
};
static const double measured_share[PHASE_COUNT] = {
    [PHASE_FORWARD] = 0.31,    [PHASE_BACKWARD] = 0.56, [PHASE_GRAD_REDUCE] = 0.045,
    [PHASE_OPTIMIZER] = 0.055, [PHASE_OTHER] = 0.03,
};

void *fixture_allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count + 1, bytes);
    assert_non_null(memory);
    return memory;
}

static void fill_plan(struct plan *plan, const struct fixture_options *options)
{
    struct model_overrides sizes = {.layers = options->blocks,
                                    .hidden = 128,
                                    .heads = 4,
                                    .vocab_size = 256,
                                    .positions = 64,
                                    .seq_length = 64};
    struct error err;
    assert_ok(model_load(&plan->model, "gpt2", &sizes, &err), &err);
    plan->ranks = options->ranks;
    plan->data_parallel = options->ranks;
    plan->pipeline = 1;
    plan->tensor_parallel = 1;
    plan->virtual_stages = 1;
    plan->schedule = SCHEDULE_1F1B;
    plan->threads = 1;
    plan->micro_batch = 6;
    plan->micro_batches = options->micro_batches;
    plan->global_batch = 6 * options->micro_batches * options->ranks;
    plan->memory_cap_bytes = (uint64_t)2 << 30;
    plan->layer_count = model_layer_count(&plan->model);
    plan->layers = fixture_allocate(plan->layer_count, sizeof(plan->layers[0]));
    for (size_t i = 0; i < plan->layer_count; i++) {
        enum layer_kind kind = model_layer(&plan->model, i).kind;
        plan->layers[i] = (struct layer_strategy){.tensor_parallel = 1};
        if (i > plan->layer_count / 2 && layer_admits_recompute(kind, RECOMPUTE_SELECTIVE))
            plan->layers[i].recompute = RECOMPUTE_SELECTIVE;
        if (layer_admits_precision(kind, PRECISION_BF16))
            plan->layers[i].precision = PRECISION_BF16;
    }
    (void)snprintf(plan->pins, sizeof(plan->pins), "micro-batch=6,precision=bf16");
}

struct quantity fixture_predicted(double value)
{
    return (struct quantity){value, 0.03 * fabs(value), PROVENANCE_INTERPOLATED};
}

/* A layer's share of a phase: attention 3, MLP 4, the ends 1, OTHER belongs to none. */
static double layer_share(const struct plan *plan, size_t index)
{
    static const double weights[LAYER_KIND_COUNT] = {1, 3, 4, 1};
    double sum = 2 + 7 * (double)plan->model.blocks;
    return weights[model_layer(&plan->model, index).kind] / sum;
}

static void fill_prediction(struct plan *plan)
{
    struct prediction *prediction = &plan->prediction;
    struct footprint footprint;
    struct micro_batch_shape shape = plan_shape(plan);
    prediction->layer_count = plan->layer_count;
    prediction->layers = fixture_allocate(plan->layer_count, sizeof(prediction->layers[0]));
    prediction->time_s = fixture_predicted(FIXTURE_PREDICTED_S);
    prediction->energy_j = (struct quantity){1.4, 0.1, PROVENANCE_MODELLED};
    plan_footprint(plan, 0, &footprint);
    double bytes = FIXTURE_PROCESS_BYTES;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        prediction->memory_term_bytes[term] =
            (struct quantity){(double)footprint.term_bytes[term], 0, PROVENANCE_MODELLED};
        bytes += (double)footprint.term_bytes[term];
    }
    prediction->memory_term_bytes[MEMORY_PROCESS] =
        (struct quantity){FIXTURE_PROCESS_BYTES, 0, PROVENANCE_MEASURED};
    prediction->memory_bytes = (struct quantity){bytes, 1e5, PROVENANCE_MODELLED};
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        double share = predicted_share[phase];
        prediction->phase_time_s[phase] = fixture_predicted(share * FIXTURE_PREDICTED_S);
        prediction->phase_energy_j[phase] =
            (struct quantity){1.4 * share, 0.1, PROVENANCE_MODELLED};
        for (size_t i = 0; i < plan->layer_count && phase != PHASE_OTHER; i++) {
            double part = share * layer_share(plan, i);
            prediction->layers[i].time_s[phase] = fixture_predicted(part * FIXTURE_PREDICTED_S);
            prediction->layers[i].energy_j[phase] =
                (struct quantity){1.4 * part, 0.1 * part, PROVENANCE_MODELLED};
        }
    }
    for (size_t i = 0; i < plan->layer_count; i++) {
        struct layer_precision_mode mode = strategy_mode(&plan->layers[i]);
        struct layer_part part = layer_whole(model_layer(&plan->model, i).kind);
        prediction->layers[i].saved_bytes =
            footprint_saved_bytes(&plan->model, &part, mode, &shape);
    }
}

static void fill_steps(struct run_record *record, const struct fixture_options *options)
{
    record->steps = fixture_allocate(options->steps, sizeof(record->steps[0]));
    record->step_count = options->steps;
    for (size_t i = 0; i < options->steps; i++) {
        double t = (double)i, noise = 0.5 * sin(12.9898 * t) + 0.5 * sin(78.233 * t + 1);
        double rest = 0.5 * (1 + cos(3.14159265 * t / (double)options->steps));
        record->steps[i] = (struct run_step){
            .step = (int64_t)i,
            .loss = 1.75 + 3.8 * exp(-t / 90) + 0.75 * exp(-t / 700) + 0.07 * noise,
            .gradient_norm = 0.6 + 2.5 * exp(-t / 60) + 0.12 * fabs(noise),
            .learning_rate = i < 100 ? 1e-3 * (t + 1) / 101 : 1e-4 + 9e-4 * rest,
            /* even: the median of symmetric noise is the middle */
            .seconds = i < 3 ? 0.2 : FIXTURE_STEP_S + (i % 2 == 0 ? 1e-4 : -1e-4) * (double)(i % 7),
            .tokens = record->plan.global_batch * record->plan.model.seq_length,
            .resident_bytes = (int64_t)(57e6 + fmin(t, 40) * 2e4),
            .energy_j = quantity_absent(),
        };
        if (options->has_energy)
            record->steps[i].energy_j = (struct quantity){FIXTURE_STEP_J, 0, PROVENANCE_MEASURED};
    }
    record->evaluations = fixture_allocate(options->evaluations, sizeof(record->evaluations[0]));
    record->evaluation_count = options->evaluations;
    for (size_t i = 0; i < options->evaluations; i++) {
        double t = (double)(options->steps * i) / fmax((double)options->evaluations - 1, 1);
        record->evaluations[i].step = (int64_t)t;
        record->evaluations[i].loss = 1.86 + 3.7 * exp(-t / 90) + 0.65 * exp(-t / 700);
    }
}

static void add_event(struct run_record *record, struct event event, double seconds,
                      int64_t *now_ns)
{
    event.start_ns = *now_ns;
    event.end_ns = *now_ns + (int64_t)(seconds * 1e9);
    *now_ns = event.end_ns;
    record->events[record->event_count++] = event;
}

/* One rank's step with the measured shares. */
static void add_step(struct run_record *record, int64_t step, int32_t rank, int64_t now_ns)
{
    const struct plan *plan = &record->plan;
    struct event event = {
        .step = step, .rank = rank, .layer = EVENT_NO_LAYER, .phase = PHASE_OTHER};
    double part = FIXTURE_STEP_S / (double)plan->micro_batches;
    for (int32_t micro = 0; micro < plan->micro_batches; micro++) {
        event.micro_batch = micro;
        event.live_bytes = 0;
        event.layer = EVENT_NO_LAYER;
        event.phase = PHASE_OTHER;
        add_event(record, event, part * measured_share[PHASE_OTHER], &now_ns);
        event.phase = PHASE_FORWARD;
        for (size_t i = 0; i < plan->layer_count; i++) {
            event.layer = (int32_t)i;
            event.live_bytes +=
                plan->prediction.layers ? plan->prediction.layers[i].saved_bytes : 1000;
            add_event(record, event, part * measured_share[PHASE_FORWARD] * layer_share(plan, i),
                      &now_ns);
        }
        event.phase = PHASE_BACKWARD;
        for (size_t i = plan->layer_count; i-- > 0;) {
            event.layer = (int32_t)i;
            event.live_bytes -=
                plan->prediction.layers ? plan->prediction.layers[i].saved_bytes : 1000;
            add_event(record, event, part * measured_share[PHASE_BACKWARD] * layer_share(plan, i),
                      &now_ns);
        }
    }
    event.live_bytes = 12345;
    for (enum phase phase = PHASE_GRAD_REDUCE; phase <= PHASE_OPTIMIZER; phase++) {
        event.phase = (uint8_t)phase;
        event.stream = phase == PHASE_GRAD_REDUCE ? STREAM_COMM : STREAM_COMPUTE;
        for (size_t i = 0; i < plan->layer_count; i++) {
            double seconds = FIXTURE_STEP_S * measured_share[phase] * layer_share(plan, i);
            event.layer = (int32_t)i;
            event.waited_ns = phase == PHASE_GRAD_REDUCE ? (int64_t)(seconds * 1e9) : 0;
            add_event(record, event, seconds, &now_ns);
        }
    }
}

static int by_start(const void *left, const void *right)
{
    const struct event *a = left, *b = right;
    return (a->start_ns > b->start_ns) - (a->start_ns < b->start_ns);
}

static void fill_events(struct run_record *record, const struct fixture_options *options)
{
    size_t a_step = record->plan.layer_count * 2 * ((size_t)options->micro_batches + 1) +
                    (size_t)options->micro_batches;
    size_t capacity = a_step * (size_t)options->kept_steps * (size_t)options->ranks;
    record->events = fixture_allocate(capacity, sizeof(record->events[0]));
    for (int kept = 0; kept < options->kept_steps; kept++) {
        int64_t step = 3 + (int64_t)options->steps * kept / options->kept_steps;
        for (int32_t rank = 0; rank < options->ranks; rank++)
            add_step(record, step, rank, 5000000000 + step * 60000000 + rank * 400000);
    }
    assert_int_equal(record->event_count, capacity);
    qsort(record->events, record->event_count, sizeof(record->events[0]), by_start);
}

static void add_time(struct run_record *record, int32_t rank, int32_t layer, int phase,
                     double mean_s)
{
    /* Ranks 1 % apart around the mean. */
    double middle = 0.5 * (double)(record->plan.ranks - 1);
    double skew = 1 + 0.01 * ((double)rank - middle);
    record->layer_times[record->layer_time_count++] =
        (struct layer_time){rank, layer, (enum phase)phase, 1997, mean_s * skew, 0.01 * mean_s};
}

static void fill_layer_times(struct run_record *record)
{
    const struct plan *plan = &record->plan;
    size_t rows = (plan->layer_count + 1) * PHASE_COUNT * (size_t)plan->ranks;
    record->layer_times = fixture_allocate(rows, sizeof(record->layer_times[0]));
    for (int32_t rank = 0; rank < plan->ranks; rank++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            double whole_s = FIXTURE_STEP_S * measured_share[phase];
            add_time(record, rank, EVENT_NO_LAYER, phase, whole_s);
            for (size_t i = 0; i < plan->layer_count && times_is_of_layer((enum phase)phase); i++)
                add_time(record, rank, (int32_t)i, phase, whole_s * layer_share(plan, i));
        }
    }
}

void fixture_make(struct run_record *out, const struct fixture_options *options)
{
    struct footprint footprint;
    *out = (struct run_record){0};
    fill_plan(&out->plan, options);
    if (options->has_prediction)
        fill_prediction(&out->plan);
    plan_footprint(&out->plan, 0, &footprint);
    int64_t layout = (int64_t)footprint_total_bytes(&footprint);
    out->info = (struct run_info){
        .id = 7,
        .plan_id = 3,
        .host = "workshop",
        .data_path = "tinyshakespeare.txt",
        .options = "--steps 2000",
        .revision = "0.1.0",
        .seed = 1234,
        .started_unix_ms = 1795248000000,
        .ended_unix_ms = 1795248120000,
        .status = RUN_DONE,
        .layout_bytes = layout,
        .peak_bytes = layout + (int64_t)(FIXTURE_PROCESS_BYTES * 1.02),
        .matmul_flops = 150e9 * options->ranks,
        .copy_bytes_s = 20e9 * options->ranks,
        .energy_j = quantity_absent(),
    };
    fill_steps(out, options);
    fill_events(out, options);
    if (options->has_layer_times)
        fill_layer_times(out);
}
