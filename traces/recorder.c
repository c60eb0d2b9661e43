#include "traces/recorder.h"
#include "base/stats.h"
#include "ir/mesh.h"
#include <assert.h>
#include <stdlib.h>

/* Keep the products of the two within int64_t. */
enum { KEPT_STEPS_MAX = 1 << 20 };
#define STEPS_MAX ((int64_t)1 << 42)

/* One layer's phase: what the step at hand has so far, and the steps before it. */
struct phase_sum {
    int64_t step_ns;
    bool seen; /* in any step */
    struct stats steps_s;
};

struct recorder {
    struct recorder_options options;
    int64_t sum_begin;                   /* first step that enters the sums */
    int64_t kept_begin, kept_span, kept; /* `kept` of the `kept_span` steps from `kept_begin` on */
    struct phase_sum (*sums)[PHASE_COUNT]; /* [layer_count + 1]; the last is the whole step */
    struct layer_time *times;              /* [(layer_count + 1) * PHASE_COUNT] */
    struct event *events;                  /* [event_capacity]: kept * events_per_step */
    size_t event_count, event_capacity;
    int64_t current_step;
    bool current_is_kept;
    size_t current_events;
    uint64_t dropped;
};

static void choose_steps(struct recorder *recorder)
{
    const struct recorder_options *options = &recorder->options;
    int64_t steps = options->end_step - options->first_step;
    int64_t warmup = options->warmup_steps;
    if (warmup >= steps)
        warmup = steps > 0 ? steps - 1 : 0;
    recorder->sum_begin = options->first_step + warmup;
    recorder->kept_begin = recorder->sum_begin;
    recorder->kept_span = steps - warmup;
    int64_t wanted = options->kept_steps < KEPT_STEPS_MAX ? options->kept_steps : KEPT_STEPS_MAX;
    recorder->kept = wanted < recorder->kept_span ? wanted : recorder->kept_span;
}

/* Kept step number k is kept_begin + floor(k * span / kept): does one of them fall on `step`? */
static bool step_is_kept(const struct recorder *recorder, int64_t step)
{
    int64_t offset = step - recorder->kept_begin;
    if (recorder->kept <= 0 || offset < 0 || offset >= recorder->kept_span)
        return false;
    /* The smallest k with floor(k * span / kept) >= offset, that is k * span >= offset * kept. */
    int64_t k = (offset * recorder->kept + recorder->kept_span - 1) / recorder->kept_span;
    return k * recorder->kept_span / recorder->kept == offset;
}

/* ---- how many events ---- */

/* Collectives of a layer that several ranks share, in one forward or one backward pass, at most:
 * backward gathers what forward gathered (once more where that is recomputed) and the gradient, and
 * sums or scatters one; a head's forward has two for its loss. */
enum { TENSOR_CALLS = 4 };
/* Of one action of the schedule: what comes arrived, what went before has left, twice; of a step:
 * its last sends, and the sums of losses and norms.
 */
enum { PIPELINE_CALLS = 3, LAST_SENDS = 8, STEP_SUMS = 2 };

/* What a micro-batch makes a layer record: its two passes, each perhaps with collectives inside and
 * one to hand over to a layer that is spread differently, with gathering its parameters before and
 * scattering its gradient behind. */
static size_t micro_batch_events(const struct plan *plan, const struct layer_strategy *strategy)
{
    size_t events = 2;
    if (plan->tensor_parallel > 1)
        events += 2 * (TENSOR_CALLS + 1);
    if (strategy->zero_stage >= 2)
        events += 3;
    return events;
}

size_t recorder_step_events(const struct plan *plan, int rank)
{
    int stage = mesh_stage_of(plan, rank);
    size_t micro_batches = (size_t)plan->micro_batches, chunks = (size_t)plan->virtual_stages;
    size_t events = 2 * micro_batches; /* data: tokens and targets */
    for (size_t i = 0; i < plan->layer_count; i++) {
        if (mesh_layer_stage(plan, i) != stage)
            continue;
        events += micro_batches * micro_batch_events(plan, &plan->layers[i]);
        /* Norm and update; gradients of matrices, of vectors, of vectors among the layer's ranks,
         * of a tied table; parameters after the update. */
        events += 2 + 4 + 1;
    }
    if (plan->pipeline > 1)
        events += 2 * micro_batches * chunks * PIPELINE_CALLS + LAST_SENDS + STEP_SUMS;
    return events;
}

/* ---- recording ---- */

enum status recorder_open(struct recorder **out, const struct recorder_options *options,
                          struct error *err)
{
    assert(options->end_step >= options->first_step);
    assert(options->end_step - options->first_step < STEPS_MAX);
    assert(options->warmup_steps >= 0 && options->kept_steps >= 0);
    struct recorder *recorder = calloc(1, sizeof(*recorder));
    if (!recorder)
        return error_memory(err, sizeof(*recorder), "the trace recorder");
    recorder->options = *options;
    recorder->current_step = options->first_step - 1;
    choose_steps(recorder);
    size_t rows = options->layer_count + 1, events = 0;
    if (__builtin_mul_overflow((size_t)recorder->kept, options->events_per_step, &events)) {
        recorder_close(recorder);
        return error_memory(err, SIZE_MAX, "the events of a trace");
    }
    recorder->event_capacity = events;
    recorder->sums = calloc(rows, sizeof(recorder->sums[0]));
    recorder->times = calloc(rows * PHASE_COUNT, sizeof(recorder->times[0]));
    if (events > 0)
        recorder->events = calloc(events, sizeof(recorder->events[0]));
    if (!recorder->sums || !recorder->times || (events > 0 && !recorder->events)) {
        recorder_close(recorder);
        return error_memory(err, events * sizeof(struct event), "the events of a trace");
    }
    *out = recorder;
    return STATUS_OK;
}

void recorder_close(struct recorder *recorder)
{
    if (!recorder)
        return;
    free(recorder->events);
    free(recorder->times);
    free(recorder->sums);
    free(recorder);
}

static void keep_event(struct recorder *recorder, const struct event *event)
{
    if (event->step != recorder->current_step) {
        recorder->current_step = event->step;
        recorder->current_is_kept = step_is_kept(recorder, event->step);
        recorder->current_events = 0;
    }
    if (!recorder->current_is_kept)
        return;
    if (recorder->current_events == recorder->options.events_per_step ||
        recorder->event_count == recorder->event_capacity) {
        recorder->dropped++;
        return;
    }
    recorder->events[recorder->event_count++] = *event;
    recorder->current_events++;
}

static int64_t cost_ns(const struct event *event)
{
    if (event->stream == STREAM_COMM)
        return event->waited_ns;
    return event->end_ns - event->start_ns - event->waited_ns;
}

static void record_event(void *user, const struct event *event)
{
    struct recorder *recorder = user;
    assert(event->phase < PHASE_COUNT && event->stream < STREAM_COUNT);
    assert(event->layer >= EVENT_NO_LAYER);
    assert(event->layer == EVENT_NO_LAYER || (size_t)event->layer < recorder->options.layer_count);
    keep_event(recorder, event);
    int64_t ns = cost_ns(event);
    recorder->sums[recorder->options.layer_count][event->phase].step_ns += ns;
    if (event->layer != EVENT_NO_LAYER) {
        struct phase_sum *sum = &recorder->sums[event->layer][event->phase];
        sum->step_ns += ns;
        sum->seen = true;
    }
}

struct event_sink recorder_sink(struct recorder *recorder)
{
    return (struct event_sink){.user = recorder, .record = record_event};
}

void recorder_step_end(struct recorder *recorder, int64_t step, double seconds)
{
    size_t rows = recorder->options.layer_count + 1;
    bool counts = step >= recorder->sum_begin;
    double other_s = seconds;
    for (size_t row = 0; row < rows; row++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            struct phase_sum *sum = &recorder->sums[row][phase];
            double step_s = (double)sum->step_ns * 1e-9;
            if (row == rows - 1 && phase != PHASE_OTHER)
                other_s -= step_s;
            if (row == rows - 1 && phase == PHASE_OTHER)
                continue;
            if (counts)
                stats_add(&sum->steps_s, step_s);
            sum->step_ns = 0;
        }
    }
    struct phase_sum *other = &recorder->sums[rows - 1][PHASE_OTHER];
    other->step_ns = 0;
    if (counts)
        stats_add(&other->steps_s, other_s > 0 ? other_s : 0.0);
}

uint64_t recorder_dropped(const struct recorder *recorder)
{
    return recorder->dropped;
}

const struct event *recorder_events(const struct recorder *recorder, size_t *count)
{
    *count = recorder->event_count;
    return recorder->events;
}

const struct layer_time *recorder_layer_times(struct recorder *recorder, size_t *count)
{
    size_t layer_count = recorder->options.layer_count, filled = 0;
    for (size_t row = 0; row <= layer_count; row++) {
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            const struct phase_sum *sum = &recorder->sums[row][phase];
            bool is_whole = row == layer_count;
            if (sum->steps_s.n == 0 || !(sum->seen || is_whole))
                continue;
            recorder->times[filled++] = (struct layer_time){
                .rank = recorder->options.rank,
                .layer = is_whole ? EVENT_NO_LAYER : (int32_t)row,
                .phase = (enum phase)phase,
                .n = sum->steps_s.n,
                .mean_s = sum->steps_s.mean,
                .deviation_s = stats_deviation(&sum->steps_s),
            };
        }
    }
    *count = filled;
    return recorder->times;
}
