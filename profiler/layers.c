#include "profiler/layers.h"
#include <stdio.h>
#include <stdlib.h>

enum { PASSES_MAXIMUM = 400, OVERWRITE_EVERY = 4, WHAT_BYTES = 96 };

/* Passes are repeated at least this long, unless the time allowed is shorter. */
#define BURST_MINIMUM_S 0.05
/* Shorter bursts may lie in one good or bad moment of the machine: they are visited twice. */
#define BURST_LONG_S 1.0
/* Kinds that take less of a pass need not be settled for it to stop. */
#define SHARE_THAT_MATTERS 0.01

enum direction { FORWARD, BACKWARD, DIRECTION_COUNT };

/* One micro-batch size. */
struct size_samples {
    /* By the mode that the kind ran in. */
    struct samples of[PRECISION_COUNT][RECOMPUTE_COUNT][LAYER_KIND_COUNT][DIRECTION_COUNT];
    /* By the precision of the setting. */
    struct energy_tally tallies[PRECISION_COUNT][DIRECTION_COUNT];
};

struct layers {
    struct session *session;
    struct chain *chain;
    struct sweep *sweep;
    double until_s;
    int64_t *times_ns[DIRECTION_COUNT]; /* [layer_count] of the latest pass */
    struct size_samples sizes[PROFILE_MICRO_BATCHES_MAX];
    struct size_samples *current; /* the size under way */
    struct samples optimizer[LAYER_KIND_COUNT];
    int64_t optimizer_time;
};

static void free_size(struct size_samples *size)
{
    for (unsigned p = 0; p < PRECISION_COUNT; p++)
        for (unsigned r = 0; r < RECOMPUTE_COUNT; r++)
            for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++)
                for (unsigned d = 0; d < DIRECTION_COUNT; d++)
                    samples_free(&size->of[p][r][kind][d]);
}

void layers_close(struct layers *layers)
{
    if (!layers)
        return;
    for (size_t i = 0; i < PROFILE_MICRO_BATCHES_MAX; i++)
        free_size(&layers->sizes[i]);
    for (size_t i = 0; i < LAYER_KIND_COUNT; i++)
        samples_free(&layers->optimizer[i]);
    for (size_t i = 0; i < DIRECTION_COUNT; i++)
        free(layers->times_ns[i]);
    free(layers);
}

enum status layers_open(struct layers **out, struct chain *chain, struct sweep *sweep,
                        double until_s, struct error *err)
{
    struct layers *layers = calloc(1, sizeof(*layers));
    if (!layers)
        return error_memory(err, sizeof(*layers), "layer timings");
    layers->session = chain->session;
    layers->chain = chain;
    layers->sweep = sweep;
    layers->until_s = until_s;
    for (size_t i = 0; i < DIRECTION_COUNT; i++) {
        layers->times_ns[i] = calloc(chain->layer_count, sizeof(int64_t));
        if (!layers->times_ns[i]) {
            layers_close(layers);
            return error_memory(err, chain->layer_count * sizeof(int64_t), "layer timings");
        }
    }
    *out = layers;
    return STATUS_OK;
}

/* ---- one setting ---- */

static struct samples *samples_of(struct layers *layers, enum layer_kind kind,
                                  struct chain_setting setting, enum direction direction)
{
    struct layer_precision_mode mode = chain_mode(kind, setting);
    return &layers->current->of[mode.precision][mode.recompute][kind][direction];
}

static enum status run_pass(struct layers *layers, struct chain_setting setting, bool accumulate,
                            struct error *err)
{
    struct energy_tally *tallies = layers->current->tallies[setting.precision];
    struct energy_reading reading;
    TRY(comm_barrier(layers->session->comm, err));
    TRY(power_read(layers->session, &reading, err));
    TRY(chain_forward(layers->chain, layers->times_ns[FORWARD], err));
    TRY(power_add(layers->session, &reading, &tallies[FORWARD], err));
    TRY(chain_backward(layers->chain, accumulate, NULL, layers->times_ns[BACKWARD], err));
    return power_add(layers->session, &reading, &tallies[BACKWARD], err);
}

static enum status keep_times(struct layers *layers, struct chain_setting setting,
                              struct error *err)
{
    for (size_t i = 0; i < layers->chain->bound_count; i++) {
        for (unsigned d = 0; d < DIRECTION_COUNT; d++) {
            struct samples *samples =
                samples_of(layers, layers->chain->layers[i].kind, setting, (enum direction)d);
            TRY(samples_add(samples, (double)layers->times_ns[d][i] * 1e-9, err));
        }
    }
    return STATUS_OK;
}

static double pass_seconds(const struct layers *layers)
{
    int64_t total_ns = 0;
    for (size_t i = 0; i < layers->chain->bound_count; i++)
        total_ns += layers->times_ns[FORWARD][i] + layers->times_ns[BACKWARD][i];
    return (double)total_ns * 1e-9;
}

static bool is_settled(struct layers *layers, struct chain_setting setting)
{
    double matters_s = SHARE_THAT_MATTERS * pass_seconds(layers);
    double wanted = layers->session->request->relative_error;
    for (size_t i = 0; i < layers->chain->bound_count; i++) {
        for (unsigned d = 0; d < DIRECTION_COUNT; d++) {
            struct samples *samples =
                samples_of(layers, layers->chain->layers[i].kind, setting, (enum direction)d);
            if (samples_summary(samples).mean > matters_s && !samples_settled(samples, wanted))
                return false;
        }
    }
    return true;
}

static bool has_enough_samples(struct layers *layers, struct chain_setting setting)
{
    return samples_of(layers, LAYER_ATTENTION, setting, FORWARD)->count >= SAMPLES_MINIMUM;
}

static void announce(struct layers *layers, struct chain_setting setting)
{
    char what[WHAT_BYTES];
    (void)snprintf(what, sizeof(what), "layers, %s, recompute %s, micro-batch %lld",
                   precision_name(setting.precision), recompute_name(setting.recompute),
                   (long long)setting.micro_batch);
    session_progress(layers->session, what);
}

static enum status measure_setting(struct layers *layers, struct sweep_setting *planned,
                                   double allowed_s, struct error *err)
{
    struct session *session = layers->session;
    struct chain_setting setting = planned->setting;
    double start_s = session_elapsed_s(session), burst_s = 0, fastest_s = 0;
    announce(layers, setting);
    TRY(chain_bind(layers->chain, setting, err));
    TRY(run_pass(layers, setting, false, err)); /* warm-up */
    int passes = 1;
    for (bool more = true; more; passes++) {
        TRY(run_pass(layers, setting, passes % OVERWRITE_EVERY != 0, err));
        TRY(keep_times(layers, setting, err));
        double seconds = pass_seconds(layers);
        burst_s += seconds;
        fastest_s = passes == 1 || seconds < fastest_s ? seconds : fastest_s;
        bool is_over = session_elapsed_s(session) - start_s > allowed_s || passes > PASSES_MAXIMUM;
        bool is_known = burst_s > BURST_MINIMUM_S && is_settled(layers, setting);
        more = passes + 1 < SWEEP_PASSES_MINIMUM || !has_enough_samples(layers, setting) ||
               (!is_over && !is_known);
        TRY(session_agree(session, &more, err));
    }
    planned->burst_s += burst_s;
    layers->sweep->calibration = fastest_s / planned->estimate_s;
    return STATUS_OK;
}

static enum status reserve_for(struct layers *layers, const struct sweep_size *size,
                               struct error *err)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < size->setting_count; i++) {
        uint64_t wanted = size->settings[i].activation_bytes;
        bytes = wanted > bytes ? wanted : bytes;
    }
    return chain_reserve(layers->chain, bytes, err);
}

enum status layers_measure_size(struct layers *layers, size_t size_index, bool *measured,
                                struct error *err)
{
    struct session *session = layers->session;
    struct sweep_size *size = &layers->sweep->sizes[size_index];
    double left_s = layers->until_s - session_elapsed_s(session);
    *measured = size_index == 0 || sweep_minimum_s(layers->sweep, size) <= left_s;
    TRY(session_agree(session, measured, err));
    if (!*measured)
        return STATUS_OK;
    layers->current = &layers->sizes[size_index];
    TRY(reserve_for(layers, size, err));
    for (size_t i = 0; i < size->setting_count; i++) {
        left_s = layers->until_s - session_elapsed_s(session);
        double allowed_s = left_s * sweep_share(layers->sweep, size_index, i);
        TRY(measure_setting(layers, &size->settings[i], allowed_s, err));
    }
    return STATUS_OK;
}

enum status layers_revisit(struct layers *layers, struct error *err)
{
    struct session *session = layers->session;
    for (size_t s = 0; s < layers->sweep->size_count; s++) {
        struct sweep_size *size = &layers->sweep->sizes[s];
        layers->current = &layers->sizes[s];
        TRY(reserve_for(layers, size, err));
        for (size_t i = 0; i < size->setting_count; i++) {
            struct sweep_setting *planned = &size->settings[i];
            double left_s = layers->until_s - session_elapsed_s(session);
            double needed_s =
                SWEEP_PASSES_MINIMUM * layers->sweep->calibration * planned->estimate_s;
            bool again = planned->burst_s < BURST_LONG_S && needed_s < left_s;
            TRY(session_agree(session, &again, err));
            if (again)
                TRY(measure_setting(layers, planned, left_s * sweep_share(layers->sweep, s, i),
                                    err));
        }
    }
    return STATUS_OK;
}

/* ---- rows ---- */

static struct measurement row_of(const struct layers *layers, enum layer_kind kind,
                                 enum metric metric)
{
    struct measurement row = {.metric = metric};
    char key[LAYER_KEY_BYTES];
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   layer_key(layers->session->request->model, kind, key));
    return row;
}

static enum status emit_bytes(struct layers *layers, struct measurement row, enum layer_kind kind,
                              struct error *err)
{
    const struct model *model = layers->session->request->model;
    struct layer_precision_mode mode = {row.precision, row.recompute};
    struct micro_batch_shape shape = {row.micro_batch, model->seq_length,
                                      device_threads(layers->session->device)};
    row.provenance = PROVENANCE_MODELLED;
    row.metric = METRIC_SAVED_BYTES;
    TRY(session_emit_value(layers->session, row,
                           (double)layer_saved_bytes(model, kind, mode, &shape), err));
    row.metric = METRIC_SCRATCH_BYTES;
    return session_emit_value(layers->session, row,
                              (double)layer_scratch_bytes(model, kind, mode, &shape), err);
}

/* The embedding is fp32 in settings of any precision: the first that was measured stands for it. */
static const struct energy_tally *tally_of(const struct layers *layers, enum precision precision,
                                           enum direction direction)
{
    for (unsigned p = precision; p < PRECISION_COUNT; p++) {
        if (layers->current->tallies[p][direction].seconds > 0)
            return &layers->current->tallies[p][direction];
    }
    return &layers->current->tallies[precision][direction];
}

static enum status emit_mode(struct layers *layers, enum layer_kind kind,
                             struct layer_precision_mode mode, int64_t micro_batch,
                             struct error *err)
{
    static const enum metric seconds_metrics[] = {METRIC_FORWARD_S, METRIC_BACKWARD_S};
    static const enum metric joules_metrics[] = {METRIC_FORWARD_J, METRIC_BACKWARD_J};
    struct measurement row = row_of(layers, kind, METRIC_FORWARD_S);
    row.precision = mode.precision;
    row.recompute = mode.recompute;
    row.micro_batch = micro_batch;
    for (unsigned d = 0; d < DIRECTION_COUNT; d++) {
        struct samples *samples = &layers->current->of[mode.precision][mode.recompute][kind][d];
        struct summary seconds;
        row.metric = seconds_metrics[d];
        TRY(session_emit_samples(layers->session, row, samples, &seconds, err));
        row.metric = joules_metrics[d];
        TRY(power_emit(layers->session, row, &seconds,
                       tally_of(layers, mode.precision, (enum direction)d), err));
    }
    return emit_bytes(layers, row, kind, err);
}

static enum status emit_size(struct layers *layers, int64_t micro_batch, struct error *err)
{
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (unsigned p = 0; p < PRECISION_COUNT; p++) {
            for (unsigned r = 0; r < RECOMPUTE_COUNT; r++) {
                struct layer_precision_mode mode = {(enum precision)p, (enum recompute)r};
                if (layers->current->of[p][r][kind][FORWARD].count > 0)
                    TRY(emit_mode(layers, (enum layer_kind)kind, mode, micro_batch, err));
            }
        }
    }
    return STATUS_OK;
}

enum status layers_emit(struct layers *layers, struct error *err)
{
    for (size_t i = 0; i < layers->sweep->size_count; i++) {
        layers->current = &layers->sizes[i];
        TRY(emit_size(layers, layers->sweep->sizes[i].micro_batch, err));
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

static enum status optimize_once(struct layers *layers, bool with_bf16, bool keep,
                                 struct energy_tally *tally, struct error *err)
{
    struct chain *chain = layers->chain;
    struct energy_reading reading;
    TRY(comm_barrier(layers->session->comm, err));
    TRY(power_read(layers->session, &reading, err));
    chain_optimize(chain, with_bf16, ++layers->optimizer_time, layers->times_ns[FORWARD]);
    TRY(power_add(layers->session, &reading, tally, err));
    for (size_t i = 0; keep && i < chain->layer_count; i++)
        TRY(samples_add(&layers->optimizer[chain->layers[i].kind],
                        (double)layers->times_ns[FORWARD][i] * 1e-9, err));
    return STATUS_OK;
}

static bool is_optimizer_settled(struct layers *layers)
{
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        bool matters = layer_parameter_count(&layers->chain->model, (enum layer_kind)kind) *
                           (uint64_t)layers->chain->layer_count >
                       (uint64_t)(SHARE_THAT_MATTERS * (double)layers->chain->flat_count);
        struct samples *samples = &layers->optimizer[kind];
        if (samples->count < SAMPLES_MINIMUM)
            return false;
        if (matters && !samples_settled(samples, layers->session->request->relative_error))
            return false;
    }
    return true;
}

static enum status measure_optimizer(struct layers *layers, enum precision precision,
                                     double seconds, struct error *err)
{
    struct session *session = layers->session;
    struct energy_tally tally = {0};
    bool with_bf16 = precision == PRECISION_BF16;
    double until_s = session_elapsed_s(session) + seconds;
    session_progress(session, with_bf16 ? "optimizer, bf16" : "optimizer, fp32");
    TRY(optimize_once(layers, with_bf16, false, &tally, err));
    for (bool more = true; more;) {
        TRY(optimize_once(layers, with_bf16, true, &tally, err));
        size_t passes = layers->optimizer[LAYER_EMBEDDING].count;
        bool is_over = session_elapsed_s(session) > until_s || passes > PASSES_MAXIMUM;
        more = passes < SAMPLES_MINIMUM || (!is_over && !is_optimizer_settled(layers));
        TRY(session_agree(session, &more, err));
    }
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        struct measurement row = row_of(layers, (enum layer_kind)kind, METRIC_OPTIMIZER_S);
        struct summary summary;
        row.precision = precision;
        TRY(session_emit_samples(session, row, &layers->optimizer[kind], &summary, err));
        row.metric = METRIC_OPTIMIZER_J;
        TRY(power_emit(session, row, &summary, &tally, err));
        samples_clear(&layers->optimizer[kind]);
    }
    return STATUS_OK;
}

enum status layers_measure_optimizer(struct layers *layers, double seconds, struct error *err)
{
    bool has_bf16 = layers->chain->parameters_bf16 != NULL;
    double each_s = has_bf16 ? seconds / 2 : seconds;
    TRY(measure_optimizer(layers, PRECISION_FP32, each_s, err));
    if (has_bf16)
        TRY(measure_optimizer(layers, PRECISION_BF16, each_s, err));
    return STATUS_OK;
}
