#include "fixture.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include "ir/schedule.h"
#include "traces/recorder.h"
#include <stdio.h>
#include <stdlib.h>

/* A made-up executor: every duration is a whole number of nanoseconds from this list. */
enum {
    UNIT_NS = 250000,      /* forward of weight 1; backward is twice that */
    COLLECTIVE_NS = 40000, /* inside a layer, waited for from its start */
    TRAVEL_NS = 90000,     /* between stages */
    GATHER_NS = 300000,
    REDUCE_NS = 500000,
    UPDATE_NS = 60000,
    DATA_NS = 20000,
    KEPT_STEPS = 2,
};

/* One rank in one step. */
struct runner {
    struct recorder *recorder;
    const struct plan *plan;
    int rank, stage;
    int64_t now_ns, step;
    uint64_t live_bytes;
    int32_t micro_batch;
    int64_t *gather_ns, *reduce_ns; /* [layers]: when they started; 0: not under way */
    int64_t posted_ns;              /* the last receive */
};

static int64_t weight_of(const struct runner *runner, size_t layer)
{
    static const int64_t weights[LAYER_KIND_COUNT] = {1, 3, 4, 6};
    return weights[model_layer(&runner->plan->model, layer).kind];
}

static void tell(struct runner *runner, struct event event)
{
    struct event_sink sink = recorder_sink(runner->recorder);
    event.step = runner->step;
    event.rank = runner->rank;
    event.micro_batch = runner->micro_batch;
    event.end_ns = runner->now_ns;
    sink.record(sink.user, &event);
}

/* What started at `start_ns` and flies for `flight_ns` is waited for now; returns for how long. */
static int64_t wait_for(struct runner *runner, enum phase phase, size_t layer, int64_t start_ns,
                        int64_t flight_ns, uint64_t bytes)
{
    int64_t end_ns = start_ns + flight_ns;
    int64_t waited_ns = end_ns > runner->now_ns ? end_ns - runner->now_ns : 0;
    runner->now_ns += waited_ns;
    tell(runner, (struct event){.start_ns = start_ns,
                                .layer = (int32_t)layer,
                                .stream = STREAM_COMM,
                                .phase = (uint8_t)phase,
                                .live_bytes = bytes,
                                .waited_ns = waited_ns});
    return waited_ns;
}

static bool gathers(const struct plan *plan, size_t layer)
{
    return plan->layers[layer].zero_stage == 3 && plan->data_parallel > 1;
}

static void prefetch(struct runner *runner, size_t layer)
{
    if (layer < runner->plan->layer_count && runner->gather_ns[layer] == 0)
        runner->gather_ns[layer] = runner->now_ns;
}

static void work(struct runner *runner, size_t layer, bool is_forward, size_t next)
{
    const struct plan *plan = runner->plan;
    int64_t start_ns = runner->now_ns, waited_ns = 0;
    uint64_t kept = plan->prediction.layers[layer].saved_bytes;
    int64_t busy_ns = weight_of(runner, layer) * UNIT_NS * (is_forward ? 1 : 2);
    if (gathers(plan, layer)) {
        prefetch(runner, layer);
        waited_ns += wait_for(runner, PHASE_PARAM_GATHER, layer, runner->gather_ns[layer],
                              GATHER_NS, 300000);
        runner->gather_ns[layer] = 0;
    }
    if (next < plan->layer_count && gathers(plan, next))
        prefetch(runner, next);
    runner->now_ns += busy_ns / 2;
    waited_ns += wait_for(runner, PHASE_TENSOR, layer, runner->now_ns, COLLECTIVE_NS, 98304);
    runner->now_ns += busy_ns - busy_ns / 2;
    runner->live_bytes += is_forward ? kept : -kept;
    tell(runner, (struct event){.start_ns = start_ns,
                                .layer = (int32_t)layer,
                                .phase = is_forward ? PHASE_FORWARD : PHASE_BACKWARD,
                                .live_bytes = runner->live_bytes,
                                .waited_ns = waited_ns});
}

/* A chunk's layers; `arrival_ns`: when what the other stage sends is here, 0: nothing comes. */
static void act(struct runner *runner, const struct schedule_action *action, int64_t arrival_ns)
{
    size_t first, end;
    runner->micro_batch = action->micro_batch;
    mesh_chunk_layers(runner->plan, runner->stage, action->chunk, &first, &end);
    if (arrival_ns > 0) {
        int64_t start_ns = runner->posted_ns;
        int64_t flight_ns = (arrival_ns > runner->now_ns ? arrival_ns : runner->now_ns) - start_ns;
        (void)wait_for(runner, PHASE_PIPELINE, first, start_ns, flight_ns, 196608);
    }
    runner->posted_ns = runner->now_ns;
    for (size_t i = first; action->is_forward && i < end; i++)
        work(runner, i, true, i + 1 < end ? i + 1 : SIZE_MAX);
    for (size_t i = end; !action->is_forward && i-- > first;) {
        work(runner, i, false, i > first ? i - 1 : SIZE_MAX);
        if (action->micro_batch + 1 == SPLIT_MICRO_BATCHES)
            runner->reduce_ns[i] = runner->now_ns;
    }
}

static void finish(struct runner *runner)
{
    bool is_pair = runner->plan->data_parallel == 1;
    for (size_t i = runner->plan->layer_count; i-- > 0;) {
        /* Without replicas only the tied table's two copies have anybody to reduce with. */
        bool is_table = i == 0 || i + 1 == runner->plan->layer_count;
        if (runner->reduce_ns[i] > 0 && (is_table || !is_pair))
            (void)wait_for(runner, PHASE_GRAD_REDUCE, i, runner->reduce_ns[i], REDUCE_NS, 790528);
    }
    for (size_t i = 0; i < runner->plan->layer_count; i++) {
        int64_t start_ns = runner->now_ns;
        if (runner->reduce_ns[i] == 0)
            continue;
        runner->now_ns += UPDATE_NS * weight_of(runner, i);
        tell(runner,
             (struct event){.start_ns = start_ns, .layer = (int32_t)i, .phase = PHASE_OPTIMIZER});
        runner->reduce_ns[i] = 0;
    }
}

/* ---- a step of all ranks ---- */

struct stage_work {
    struct schedule_action *actions;
    size_t count, done;
    int64_t forward_ns[SPLIT_MICRO_BATCHES], backward_ns[SPLIT_MICRO_BATCHES]; /* ends */
};

/* When what the action needs is there: 0: nothing is needed, -1: it is not known yet. */
static int64_t arrival_of(const struct stage_work *stages, int stage,
                          const struct schedule_action *action)
{
    int other = action->is_forward ? stage - 1 : stage + 1;
    if (other < 0 || other == SPLIT_STAGES)
        return 0;
    const struct stage_work *from = &stages[other];
    int64_t end_ns = action->is_forward ? from->forward_ns[action->micro_batch]
                                        : from->backward_ns[action->micro_batch];
    return end_ns == 0 ? -1 : end_ns + TRAVEL_NS;
}

static bool advance(struct stage_work *stages, int stage, struct runner *runners, int stage_ranks)
{
    struct stage_work *work_of = &stages[stage];
    if (work_of->done == work_of->count)
        return false;
    const struct schedule_action *action = &work_of->actions[work_of->done];
    int64_t arrival_ns = arrival_of(stages, stage, action);
    if (arrival_ns < 0)
        return false;
    for (int i = 0; i < stage_ranks; i++)
        act(&runners[stage * stage_ranks + i], action, arrival_ns);
    int64_t end_ns = runners[stage * stage_ranks].now_ns;
    (action->is_forward ? work_of->forward_ns : work_of->backward_ns)[action->micro_batch] = end_ns;
    work_of->done++;
    return true;
}

static double run_step(const struct plan *plan, struct runner *runners, int64_t step)
{
    struct stage_work stages[SPLIT_STAGES] = {0};
    struct schedule_shape shape = plan_schedule(plan);
    struct error err;
    int64_t begin_ns = 1000000000 + step * 200000000, end_ns = 0;
    int stage_ranks = mesh_stage_ranks(plan);
    for (int i = 0; i < plan->ranks; i++) {
        runners[i].step = step;
        runners[i].posted_ns = runners[i].now_ns = begin_ns;
        runners[i].micro_batch = 0;
        runners[i].now_ns += DATA_NS;
        tell(&runners[i],
             (struct event){.start_ns = begin_ns, .layer = EVENT_NO_LAYER, .phase = PHASE_OTHER});
    }
    for (int i = 0; i < SPLIT_STAGES; i++)
        assert_ok(schedule_actions(&shape, i, &stages[i].actions, &stages[i].count, &err), &err);
    for (bool any = true; any;) {
        any = false;
        for (int i = 0; i < SPLIT_STAGES; i++)
            any = advance(stages, i, runners, stage_ranks) || any;
    }
    for (int i = 0; i < plan->ranks; i++) {
        finish(&runners[i]);
        end_ns = runners[i].now_ns > end_ns ? runners[i].now_ns : end_ns;
    }
    double seconds = (double)(end_ns - begin_ns) * 1e-9;
    for (int i = 0; i < plan->ranks; i++)
        recorder_step_end(runners[i].recorder, step, seconds);
    for (int i = 0; i < SPLIT_STAGES; i++)
        free(stages[i].actions);
    return seconds;
}

/* ---- the record ---- */

static void fill_plan(struct plan *plan, int data_parallel)
{
    struct model_overrides sizes = {.layers = 4,
                                    .hidden = 128,
                                    .heads = 4,
                                    .vocab_size = 256,
                                    .positions = 64,
                                    .seq_length = 64};
    struct error err;
    assert_ok(model_load(&plan->model, "gpt2", &sizes, &err), &err);
    plan->pipeline = SPLIT_STAGES;
    plan->tensor_parallel = SPLIT_TENSOR;
    plan->data_parallel = data_parallel;
    plan->ranks = SPLIT_STAGES * SPLIT_TENSOR * data_parallel;
    plan->virtual_stages = 1;
    plan->schedule = SCHEDULE_1F1B;
    plan->threads = 1;
    plan->micro_batch = 6;
    plan->micro_batches = SPLIT_MICRO_BATCHES;
    plan->global_batch = 6 * SPLIT_MICRO_BATCHES * data_parallel;
    plan->layer_count = model_layer_count(&plan->model);
    plan->layers = fixture_allocate(plan->layer_count, sizeof(plan->layers[0]));
    for (size_t i = 0; i < plan->layer_count; i++) {
        enum layer_kind kind = model_layer(&plan->model, i).kind;
        plan->layers[i] = (struct layer_strategy){
            .stage = i < 5 ? 0 : 1,
            .tensor_parallel = SPLIT_TENSOR,
            .sequence_parallel = kind == LAYER_ATTENTION || kind == LAYER_MLP,
            .zero_stage = kind == LAYER_MLP ? 3 : 1,
        };
    }
}

static void predict_layer(struct plan *plan, size_t index)
{
    static const int64_t weights[LAYER_KIND_COUNT] = {1, 3, 4, 6};
    struct layer_prediction *layer = &plan->prediction.layers[index];
    enum layer_kind kind = model_layer(&plan->model, index).kind;
    struct layer_part part = mesh_part(plan, index, 0);
    struct layer_precision_mode mode = strategy_mode(&plan->layers[index]);
    struct micro_batch_shape shape = mesh_shape(plan, index);
    double unit_s = 1e-9 * UNIT_NS * (double)weights[kind];
    layer->saved_bytes = footprint_saved_bytes(&plan->model, &part, mode, &shape);
    layer->time_s[PHASE_FORWARD] = fixture_predicted(0.97 * SPLIT_MICRO_BATCHES * unit_s);
    layer->time_s[PHASE_BACKWARD] = fixture_predicted(1.02 * SPLIT_MICRO_BATCHES * 2 * unit_s);
    layer->time_s[PHASE_TENSOR] = fixture_predicted(7e-9 * SPLIT_MICRO_BATCHES * COLLECTIVE_NS / 4);
    layer->time_s[PHASE_PARAM_GATHER] = fixture_predicted(kind == LAYER_MLP ? 1e-4 : 0);
    layer->time_s[PHASE_GRAD_REDUCE] = fixture_predicted(1e-4);
    layer->time_s[PHASE_OPTIMIZER] = fixture_predicted(1e-9 * UPDATE_NS * (double)weights[kind]);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        layer->energy_j[phase] = quantity_absent();
}

/* Stage 1, with the head, has most to do. */
static void fill_prediction(struct plan *plan)
{
    struct prediction *prediction = &plan->prediction;
    struct footprint footprint;
    prediction->layer_count = plan->layer_count;
    prediction->layers = fixture_allocate(plan->layer_count, sizeof(prediction->layers[0]));
    for (size_t i = 0; i < plan->layer_count; i++) {
        predict_layer(plan, i);
        for (int phase = 0; phase < PHASE_COUNT && mesh_layer_stage(plan, i) == 1; phase++)
            prediction->phase_time_s[phase] =
                quantity_add(prediction->phase_time_s[phase], prediction->layers[i].time_s[phase]);
    }
    prediction->phase_time_s[PHASE_PIPELINE] = fixture_predicted(5e-3);
    prediction->phase_time_s[PHASE_OTHER] = fixture_predicted(2e-4);
    plan_footprint(plan, plan_fullest_stage(plan), &footprint);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        struct quantity bytes = {(double)footprint.term_bytes[term], 0, PROVENANCE_MODELLED};
        if (term == MEMORY_PROCESS)
            bytes.value = FIXTURE_PROCESS_BYTES;
        prediction->memory_term_bytes[term] = bytes;
        prediction->memory_bytes = quantity_add(prediction->memory_bytes, bytes);
    }
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        prediction->phase_energy_j[phase] = quantity_absent();
        prediction->time_s = quantity_add(prediction->time_s, prediction->phase_time_s[phase]);
    }
    prediction->energy_j = quantity_absent();
}

static int by_start(const void *left, const void *right)
{
    const struct event *a = left, *b = right;
    return (a->start_ns > b->start_ns) - (a->start_ns < b->start_ns);
}

static void collect(struct run_record *record, struct recorder *recorder)
{
    size_t count;
    const struct event *events = recorder_events(recorder, &count);
    memcpy(record->events + record->event_count, events, count * sizeof(*events));
    record->event_count += count;
    const struct layer_time *times = recorder_layer_times(recorder, &count);
    memcpy(record->layer_times + record->layer_time_count, times, count * sizeof(*times));
    record->layer_time_count += count;
    assert_int_equal(recorder_dropped(recorder), 0);
    recorder_close(recorder);
}

static void run_all(struct run_record *record)
{
    const struct plan *plan = &record->plan;
    size_t ranks = (size_t)plan->ranks, capacity = 0;
    struct runner *runners = fixture_allocate(ranks, sizeof(*runners));
    struct error err;
    for (int i = 0; i < plan->ranks; i++) {
        struct recorder_options options = {
            .layer_count = plan->layer_count,
            .end_step = SPLIT_STEPS,
            .kept_steps = KEPT_STEPS,
            .warmup_steps = COMPARE_WARMUP_STEPS,
            .events_per_step = recorder_step_events(plan, i),
            .rank = i,
        };
        runners[i] = (struct runner){.plan = plan, .rank = i, .stage = mesh_stage_of(plan, i)};
        runners[i].gather_ns = fixture_allocate(2 * plan->layer_count, sizeof(int64_t));
        runners[i].reduce_ns = runners[i].gather_ns + plan->layer_count;
        assert_ok(recorder_open(&runners[i].recorder, &options, &err), &err);
        capacity += KEPT_STEPS * options.events_per_step;
    }
    record->events = fixture_allocate(capacity, sizeof(record->events[0]));
    record->layer_times =
        fixture_allocate(ranks * (plan->layer_count + 1) * PHASE_COUNT, sizeof(struct layer_time));
    for (int64_t step = 0; step < SPLIT_STEPS; step++)
        record->steps[step].seconds = run_step(plan, runners, step);
    for (size_t i = 0; i < ranks; i++) {
        collect(record, runners[i].recorder);
        free(runners[i].gather_ns);
    }
    free(runners);
    qsort(record->events, record->event_count, sizeof(record->events[0]), by_start);
}

void fixture_make_split(struct run_record *out, int data_parallel)
{
    *out = (struct run_record){.step_count = SPLIT_STEPS};
    fill_plan(&out->plan, data_parallel);
    fill_prediction(&out->plan);
    struct footprint footprint;
    struct error err;
    assert_ok(plan_validate(&out->plan, "fixture", &err), &err);
    plan_footprint(&out->plan, plan_fullest_stage(&out->plan), &footprint);
    int64_t layout = (int64_t)footprint_total_bytes(&footprint);
    out->info = (struct run_info){
        .id = 8,
        .plan_id = 4,
        .host = "workshop",
        .data_path = "tinyshakespeare.txt",
        .options = "steps 20",
        .revision = "0.1.0",
        .started_unix_ms = 1795248000000,
        .status = RUN_DONE,
        .layout_bytes = layout,
        .peak_bytes = layout + (int64_t)(FIXTURE_PROCESS_BYTES * 1.02),
        .matmul_flops = 150e9 * out->plan.ranks,
        .copy_bytes_s = 20e9 * out->plan.ranks,
        .energy_j = quantity_absent(),
    };
    out->steps = fixture_allocate(SPLIT_STEPS, sizeof(out->steps[0]));
    for (int64_t i = 0; i < SPLIT_STEPS; i++)
        out->steps[i] = (struct run_step){
            .step = i,
            .loss = 5.5 - 0.1 * (double)i,
            .gradient_norm = 1,
            .learning_rate = 1e-3,
            .tokens = out->plan.global_batch * out->plan.model.seq_length,
            .resident_bytes = out->info.peak_bytes,
            .energy_j = quantity_absent(),
        };
    run_all(out);
}
