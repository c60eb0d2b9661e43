#include "profiler/layers.h"
#include <stdio.h>
#include <stdlib.h>

enum { PASSES_MAXIMUM = 400, OVERWRITE_EVERY = 4, WHAT_BYTES = 96 };

/* Passes are repeated at least this long, unless the time allowed is shorter. */
#define BURST_MINIMUM_S 0.05
/* Kinds that take less of a pass need not be settled for it to stop. */
#define SHARE_THAT_MATTERS 0.01

enum direction { FORWARD, BACKWARD, DIRECTION_COUNT };

/* By the mode that the kind ran in. */
typedef struct samples mode_samples[PRECISION_COUNT][RECOMPUTE_COUNT][ATTENTION_KERNEL_COUNT]
                                   [LAYER_KIND_COUNT][DIRECTION_COUNT];

/* One micro-batch size of one split. */
struct size_samples {
    mode_samples compute;  /* of every layer, on this rank */
    mode_samples exchange; /* one a pass: the mean over the kind's layers and the ranks */
    /* By the precision of the setting. */
    struct energy_tally tallies[PRECISION_COUNT][DIRECTION_COUNT];
};

/* What the optimizer is timed by: the kinds, and a tied head that owns a table. */
enum { OPTIMIZER_OWN_HEAD = LAYER_KIND_COUNT, OPTIMIZER_COUNT };

struct layers {
    struct session *session;
    struct chain *chain;
    struct sweep *sweep;
    double until_s;
    struct chain_time *times[DIRECTION_COUNT]; /* [layer_count] of the latest pass */
    int64_t *update_ns;                        /* [layer_count + 1] of the latest update */
    struct size_samples *sizes;                /* [PROFILE_MICRO_BATCHES_MAX][split_count] */
    struct size_samples *current;              /* the size and split under way */
    struct samples optimizer[OPTIMIZER_COUNT];
    int64_t optimizer_time;
};

static struct samples *samples_in(mode_samples samples, struct layer_precision_mode mode,
                                  unsigned kind, unsigned direction)
{
    return &samples[mode.precision][mode.recompute][mode.attention][kind][direction];
}

static void free_samples(mode_samples samples)
{
    struct samples *all = &samples[0][0][0][0][0];
    for (size_t i = 0; i < sizeof(mode_samples) / sizeof(*all); i++)
        samples_free(&all[i]);
}

static void free_size(struct size_samples *size)
{
    free_samples(size->compute);
    free_samples(size->exchange);
}

void layers_close(struct layers *layers)
{
    if (!layers)
        return;
    size_t count = PROFILE_MICRO_BATCHES_MAX * layers->sweep->split_count;
    for (size_t i = 0; layers->sizes && i < count; i++)
        free_size(&layers->sizes[i]);
    free(layers->sizes);
    for (size_t i = 0; i < OPTIMIZER_COUNT; i++)
        samples_free(&layers->optimizer[i]);
    for (size_t i = 0; i < DIRECTION_COUNT; i++)
        free(layers->times[i]);
    free(layers->update_ns);
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
    size_t size_count = PROFILE_MICRO_BATCHES_MAX * sweep->split_count;
    bool has_all = (layers->sizes = calloc(size_count, sizeof(layers->sizes[0]))) != NULL;
    for (size_t i = 0; i < DIRECTION_COUNT; i++) {
        layers->times[i] = calloc(chain->layer_count, sizeof(layers->times[i][0]));
        has_all = has_all && layers->times[i];
    }
    layers->update_ns = calloc(chain->layer_count + 1, sizeof(layers->update_ns[0]));
    has_all = has_all && layers->update_ns;
    if (!has_all) {
        layers_close(layers);
        return error_memory(err, size_count * sizeof(struct size_samples), "layer timings");
    }
    *out = layers;
    return STATUS_OK;
}

static struct size_samples *samples_at(const struct layers *layers, size_t size_index, size_t split)
{
    return &layers->sizes[size_index * layers->sweep->split_count + split];
}

/* ---- one setting ---- */

static struct samples *samples_of(mode_samples samples, enum layer_kind kind,
                                  struct chain_setting setting, enum direction direction)
{
    struct layer_precision_mode mode = chain_mode(kind, setting);
    return samples_in(samples, mode, kind, direction);
}

static enum status run_pass(struct layers *layers, struct chain_setting setting, bool accumulate,
                            struct error *err)
{
    struct energy_tally *tallies = layers->current->tallies[setting.precision];
    struct energy_reading reading;
    TRY(comm_barrier(layers->session->comm, err));
    TRY(power_read(layers->session, &reading, err));
    TRY(chain_forward(layers->chain, layers->times[FORWARD], err));
    TRY(power_add(layers->session, &reading, &tallies[FORWARD], err));
    TRY(chain_backward(layers->chain, accumulate, NULL, layers->times[BACKWARD], err));
    return power_add(layers->session, &reading, &tallies[BACKWARD], err);
}

static enum status keep_compute(struct layers *layers, struct chain_setting setting,
                                struct error *err)
{
    for (size_t i = 0; i < layers->chain->layer_count; i++) {
        const struct chain_layer *layer = &layers->chain->layers[i];
        for (unsigned d = 0; d < DIRECTION_COUNT && layer->takes_part; d++) {
            struct samples *samples =
                samples_of(layers->current->compute, layer->kind, setting, (enum direction)d);
            TRY(samples_add(samples, (double)layers->times[d][i].compute * 1e-9, err));
        }
    }
    return STATUS_OK;
}

/* Which rank waits for which differs from call to call: their mean goes into a step as much as each
 * one's compute does. */
static enum status keep_exchange(struct layers *layers, struct chain_setting setting,
                                 struct error *err)
{
    struct comm *comm = layers->session->comm;
    size_t counts[LAYER_KIND_COUNT] = {0};
    double seconds[LAYER_KIND_COUNT][DIRECTION_COUNT] = {{0}};
    if (setting.split.ways == 1)
        return STATUS_OK;
    for (size_t i = 0; i < layers->chain->layer_count; i++) {
        const struct chain_layer *layer = &layers->chain->layers[i];
        for (unsigned d = 0; d < DIRECTION_COUNT && layer->takes_part; d++)
            seconds[layer->kind][d] += (double)layers->times[d][i].exchange * 1e-9;
        counts[layer->kind] += layer->takes_part;
    }
    TRY(comm_all_reduce_sum_f64(comm, &seconds[0][0], (size_t)LAYER_KIND_COUNT * DIRECTION_COUNT,
                                err));
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        double shares = (double)counts[kind] * comm_size(comm);
        for (unsigned d = 0; d < DIRECTION_COUNT && counts[kind] > 0; d++)
            TRY(samples_add(samples_of(layers->current->exchange, (enum layer_kind)kind, setting,
                                       (enum direction)d),
                            seconds[kind][d] / shares, err));
    }
    return STATUS_OK;
}

static double pass_seconds(const struct layers *layers)
{
    int64_t total_ns = 0;
    for (size_t i = 0; i < layers->chain->layer_count; i++)
        total_ns += layers->times[FORWARD][i].compute + layers->times[BACKWARD][i].compute;
    return (double)total_ns * 1e-9;
}

static bool is_settled(struct layers *layers, struct chain_setting setting)
{
    double matters_s = SHARE_THAT_MATTERS * pass_seconds(layers);
    double wanted = layers->session->request->relative_error;
    for (size_t i = 0; i < layers->chain->layer_count; i++) {
        for (unsigned d = 0; d < DIRECTION_COUNT && layers->chain->layers[i].takes_part; d++) {
            struct samples *samples =
                samples_of(layers->current->compute, layers->chain->layers[i].kind, setting,
                           (enum direction)d);
            if (samples_summary(samples).mean > matters_s && !samples_settled(samples, wanted))
                return false;
        }
    }
    return true;
}

/* Every block is a sample; the embedding's and the head's of a few passes are pooled over ranks. */
static bool has_enough_samples(struct layers *layers, struct chain_setting setting)
{
    for (unsigned kind = LAYER_ATTENTION; kind <= LAYER_MLP; kind++) {
        bool takes_part = chain_admits(layers->chain, (enum layer_kind)kind, setting.split);
        struct samples *samples =
            samples_of(layers->current->compute, (enum layer_kind)kind, setting, FORWARD);
        if (takes_part && samples->count < SAMPLES_MINIMUM)
            return false;
    }
    return true;
}

static void announce(struct layers *layers, struct chain_setting setting)
{
    char what[WHAT_BYTES], split[CHAIN_SPLIT_BYTES];
    (void)snprintf(what, sizeof(what), "layers%s, %s, recompute %s, micro-batch %lld",
                   chain_split_text(setting.split, split), precision_name(setting.precision),
                   recompute_name(setting.recompute), (long long)setting.micro_batch);
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
        TRY(keep_compute(layers, setting, err));
        TRY(keep_exchange(layers, setting, err));
        double seconds = pass_seconds(layers);
        burst_s += seconds;
        fastest_s = passes == 1 || seconds < fastest_s ? seconds : fastest_s;
        bool is_over = session_elapsed_s(session) - start_s > allowed_s || passes > PASSES_MAXIMUM;
        bool is_known = burst_s > BURST_MINIMUM_S && is_settled(layers, setting);
        more = passes + 1 < SWEEP_PASSES_MINIMUM || !has_enough_samples(layers, setting) ||
               (!is_over && !is_known);
        TRY(session_agree(session, &more, err));
    }
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
    TRY(reserve_for(layers, size, err));
    for (size_t i = 0; i < size->setting_count; i++) {
        layers->current = samples_at(layers, size_index, size->settings[i].split);
        left_s = layers->until_s - session_elapsed_s(session);
        double allowed_s = left_s / LAYERS_ROUNDS * sweep_share(layers->sweep, size_index, i);
        TRY(measure_setting(layers, &size->settings[i], allowed_s, err));
    }
    return STATUS_OK;
}

static enum status revisit(struct layers *layers, int rounds_left, struct error *err)
{
    struct session *session = layers->session;
    for (size_t s = 0; s < layers->sweep->size_count; s++) {
        struct sweep_size *size = &layers->sweep->sizes[s];
        TRY(reserve_for(layers, size, err));
        for (size_t i = 0; i < size->setting_count; i++) {
            struct sweep_setting *planned = &size->settings[i];
            double left_s = layers->until_s - session_elapsed_s(session);
            double allowed_s = left_s / rounds_left * sweep_share(layers->sweep, s, i);
            double needed_s =
                SWEEP_PASSES_MINIMUM * layers->sweep->calibration * planned->estimate_s;
            bool again = needed_s < allowed_s;
            layers->current = samples_at(layers, s, planned->split);
            TRY(session_agree(session, &again, err));
            if (again)
                TRY(measure_setting(layers, planned, allowed_s, err));
        }
    }
    return STATUS_OK;
}

enum status layers_revisit(struct layers *layers, struct error *err)
{
    for (int rounds_left = LAYERS_ROUNDS - 1; rounds_left > 0; rounds_left--)
        TRY(revisit(layers, rounds_left, err));
    return STATUS_OK;
}

/* ---- rows ---- */

static struct measurement row_of(const struct layers *layers, const struct layer_part *part,
                                 enum metric metric)
{
    struct measurement row = {.metric = metric};
    char key[LAYER_KEY_BYTES];
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   layer_part_key(layers->session->request->model, part, key));
    return row;
}

static enum status emit_bytes(struct layers *layers, struct measurement row,
                              const struct layer_part *part, struct error *err)
{
    const struct model *model = layers->session->request->model;
    struct layer_precision_mode mode = {row.precision, row.recompute, row.attention};
    struct micro_batch_shape shape = {.sequences = row.micro_batch,
                                      .seq_length = model->seq_length,
                                      .threads = device_threads(layers->session->device)};
    row.provenance = PROVENANCE_MODELLED;
    row.metric = METRIC_SAVED_BYTES;
    TRY(session_emit_value(layers->session, row,
                           (double)part_saved_bytes(model, part, mode, &shape), err));
    row.metric = METRIC_SCRATCH_BYTES;
    return session_emit_value(layers->session, row,
                              (double)part_scratch_bytes(model, part, mode, &shape), err);
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

static enum status emit_mode(struct layers *layers, const struct layer_part *part,
                             struct layer_precision_mode mode, int64_t micro_batch,
                             struct error *err)
{
    static const enum metric seconds_metrics[] = {METRIC_FORWARD_S, METRIC_BACKWARD_S};
    static const enum metric joules_metrics[] = {METRIC_FORWARD_J, METRIC_BACKWARD_J};
    static const enum metric exchange_metrics[] = {METRIC_FORWARD_TENSOR_S,
                                                   METRIC_BACKWARD_TENSOR_S};
    struct measurement row = row_of(layers, part, METRIC_FORWARD_S);
    row.precision = mode.precision;
    row.recompute = mode.recompute;
    row.attention = mode.attention;
    row.micro_batch = micro_batch;
    for (unsigned d = 0; d < DIRECTION_COUNT; d++) {
        struct size_samples *size = layers->current;
        struct samples *samples = samples_in(size->compute, mode, part->kind, d);
        struct samples *exchange = samples_in(size->exchange, mode, part->kind, d);
        struct summary seconds;
        row.metric = seconds_metrics[d];
        TRY(session_emit_samples(layers->session, row, samples, &seconds, err));
        row.metric = joules_metrics[d];
        TRY(power_emit(layers->session, row, &seconds,
                       tally_of(layers, mode.precision, (enum direction)d), err));
        row.metric = exchange_metrics[d];
        if (exchange->count > 0)
            TRY(session_emit_waiting(layers->session, row, exchange, err));
    }
    return emit_bytes(layers, row, part, err);
}

/* Pipeline stages, and with them heads that own their table, take several ranks. */
static bool has_own_head(const struct layers *layers)
{
    return layers->chain->model.tied_head && comm_size(layers->session->comm) > 1;
}

/* A tied head that owns a table does the same work on the same sizes, but in another table: one
 * timing is both's. */
static enum status emit_part(struct layers *layers, struct layer_part part,
                             struct layer_precision_mode mode, int64_t micro_batch,
                             struct error *err)
{
    TRY(emit_mode(layers, &part, mode, micro_batch, err));
    part.owns_table = part.kind == LAYER_HEAD && has_own_head(layers);
    return part.owns_table ? emit_mode(layers, &part, mode, micro_batch, err) : STATUS_OK;
}

static enum status emit_size(struct layers *layers, struct chain_split split, int64_t micro_batch,
                             struct error *err)
{
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        struct layer_part part = chain_part(layers->chain, (enum layer_kind)kind, split);
        for (unsigned p = 0; p < PRECISION_COUNT; p++) {
            for (unsigned m = 0; m < RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT; m++) {
                struct layer_precision_mode mode = {
                    .precision = (enum precision)p,
                    .recompute = (enum recompute)(m % RECOMPUTE_COUNT),
                    .attention = (enum attention_kernel)(m / RECOMPUTE_COUNT),
                };
                if (samples_in(layers->current->compute, mode, kind, FORWARD)->count > 0)
                    TRY(emit_part(layers, part, mode, micro_batch, err));
            }
        }
    }
    return STATUS_OK;
}

enum status layers_emit(struct layers *layers, struct error *err)
{
    const struct sweep *sweep = layers->sweep;
    for (size_t i = 0; i < sweep->size_count; i++) {
        for (size_t split = 0; split < sweep->split_count; split++) {
            layers->current = samples_at(layers, i, split);
            TRY(emit_size(layers, sweep->splits[split], sweep->sizes[i].micro_batch, err));
        }
    }
    return STATUS_OK;
}

/* ---- optimizer ---- */

static enum status optimize_once(struct layers *layers, struct chain_update update, bool keep,
                                 struct energy_tally *tally, struct error *err)
{
    struct chain *chain = layers->chain;
    struct energy_reading reading;
    TRY(comm_barrier(layers->session->comm, err));
    TRY(power_read(layers->session, &reading, err));
    update.time = ++layers->optimizer_time;
    chain_optimize(chain, &update, layers->update_ns);
    TRY(power_add(layers->session, &reading, tally, err));
    for (size_t i = 0; keep && i <= chain->layer_count; i++) {
        size_t row = i < chain->layer_count ? chain->layers[i].kind : OPTIMIZER_OWN_HEAD;
        if (layers->update_ns[i] > 0)
            TRY(samples_add(&layers->optimizer[row], (double)layers->update_ns[i] * 1e-9, err));
    }
    return STATUS_OK;
}

static bool is_optimizer_settled(struct layers *layers)
{
    for (unsigned row = 0; row < OPTIMIZER_COUNT; row++) {
        enum layer_kind kind = row == OPTIMIZER_OWN_HEAD ? LAYER_EMBEDDING : (enum layer_kind)row;
        bool matters = layer_parameter_count(&layers->chain->model, kind) *
                           (uint64_t)layers->chain->layer_count >
                       (uint64_t)(SHARE_THAT_MATTERS * (double)layers->chain->flat_count);
        struct samples *samples = &layers->optimizer[row];
        if (matters && samples->count > 0 &&
            !samples_settled(samples, layers->session->request->relative_error))
            return false;
    }
    return true;
}

/* It is the same without and with sequence parallelism. */
static enum status emit_optimizer(struct layers *layers, struct chain_update update, unsigned row,
                                  const struct energy_tally *tally, struct error *err)
{
    bool owns_table = row == OPTIMIZER_OWN_HEAD;
    enum layer_kind kind = owns_table ? LAYER_HEAD : (enum layer_kind)row;
    if (layers->optimizer[row].count == 0 || (owns_table && !has_own_head(layers)))
        return STATUS_OK;
    int splits = update.ways > 1 ? 2 : 1; /* without and with sequence parallelism */
    for (int i = 0; i < splits; i++) {
        struct chain_split split = {update.ways, i == 1};
        struct layer_part part = chain_part(layers->chain, kind, split);
        part.owns_table = owns_table;
        struct measurement measured = row_of(layers, &part, METRIC_OPTIMIZER_S);
        struct summary summary;
        measured.precision = update.precision;
        TRY(session_emit_samples(layers->session, measured, &layers->optimizer[row], &summary,
                                 err));
        measured.metric = METRIC_OPTIMIZER_J;
        TRY(power_emit(layers->session, measured, &summary, tally, err));
    }
    return STATUS_OK;
}

static enum status measure_optimizer(struct layers *layers, struct chain_update update,
                                     double seconds, struct error *err)
{
    struct session *session = layers->session;
    struct energy_tally tally = {0};
    double until_s = session_elapsed_s(session) + seconds;
    char what[WHAT_BYTES], split[CHAIN_SPLIT_BYTES];
    (void)snprintf(what, sizeof(what), "optimizer%s, %s",
                   chain_split_text((struct chain_split){.ways = update.ways}, split),
                   precision_name(update.precision));
    session_progress(session, what);
    TRY(optimize_once(layers, update, false, &tally, err));
    for (bool more = true; more;) {
        TRY(optimize_once(layers, update, true, &tally, err));
        size_t passes = layers->optimizer[LAYER_EMBEDDING].count;
        bool is_over = session_elapsed_s(session) > until_s || passes > PASSES_MAXIMUM;
        more = passes < SAMPLES_MINIMUM || (!is_over && !is_optimizer_settled(layers));
        TRY(session_agree(session, &more, err));
    }
    for (unsigned row = 0; row < OPTIMIZER_COUNT; row++) {
        TRY(emit_optimizer(layers, update, row, &tally, err));
        samples_clear(&layers->optimizer[row]);
    }
    return STATUS_OK;
}

static bool updates_in(const struct layers *layers, unsigned precision)
{
    return precision == PRECISION_FP32 || layers->session->precisions[precision];
}

size_t layers_optimizer_pieces(const struct layers *layers)
{
    size_t pieces = 0;
    for (size_t s = 0; s < layers->sweep->split_count; s++)
        for (unsigned p = 0; p < PRECISION_COUNT && !layers->sweep->splits[s].sequence_parallel;
             p++)
            pieces += updates_in(layers, p);
    return pieces;
}

enum status layers_measure_optimizer(struct layers *layers, double seconds, struct error *err)
{
    double each_s = seconds / (double)layers_optimizer_pieces(layers);
    for (size_t s = 0; s < layers->sweep->split_count; s++) {
        for (unsigned p = 0; p < PRECISION_COUNT; p++) {
            struct chain_update update = {.ways = layers->sweep->splits[s].ways,
                                          .precision = (enum precision)p};
            if (updates_in(layers, p) && !layers->sweep->splits[s].sequence_parallel)
                TRY(measure_optimizer(layers, update, each_s, err));
        }
    }
    return STATUS_OK;
}
