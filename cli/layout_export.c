#include "cli/layout_export.h"

#include "base/stats.h"
#include "base/units.h"
#include "ir/own_layout.h"
#include <math.h>

/* One way of a field, tried on a copy of the layout. */
struct trial {
    struct own_layout own; /* owned */
    struct export_way way;
    struct priced_layout priced;
    double objective;
    double missing_bytes; /* above zero: it does not fit */
};

struct work {
    const struct export_request *request;
    const struct layout_handover *handover;
    struct priced_layout units;
    struct trial now; /* with the fields so far levelled */
    double planned_s;
    struct error refused;  /* why the last way cannot run */
    const char *overflows; /* the field since which it does not fit */
};

static double known_or_nan(const struct quantity *quantity)
{
    return quantity->provenance != PROVENANCE_ABSENT ? quantity->value : NAN;
}

/* Bytes that no way around would free: above zero where it does not fit. */
static double missing_bytes(const struct layout_handover *handover,
                            const struct layout_prediction *prediction)
{
    double deviations = normal_deviations(handover->risk);
    const struct quantity *bytes = &prediction->memory_bytes;
    double held = bytes->value + deviations * bytes->deviation;
    double cap = (double)handover->memory_cap_bytes;

    if (!layout_fits_at(prediction, deviations))
        return fmax(1, fmax(held - prediction->cached_bytes - prediction->device_bytes,
                            prediction->host_bytes - prediction->host_memory_bytes));
    return cap > 0 ? held - cap : 0;
}

/* false in `runs`: it breaks a relation. */
static enum status price(struct work *work, struct trial *trial, bool *runs, struct error *err)
{
    const struct layout_handover *handover = work->handover;
    const struct layout *layout = &trial->own.layout;
    struct layout_prediction prediction;

    *runs =
        layout_check(layout, handover->model, "as the target runs it", &work->refused) == STATUS_OK;
    if (!*runs)
        return STATUS_OK;
    TRY(layout_predict(handover->cluster, handover->model, layout, &prediction, err));
    trial->priced = (struct priced_layout){
        .time_s = prediction.time_s.value,
        .memory_bytes = prediction.memory_bytes.value,
        .energy_j = known_or_nan(&prediction.energy_j),
    };
    trial->objective = layout_objective(handover->weights, &work->units, &trial->priced);
    trial->missing_bytes = fmax(0, missing_bytes(handover, &prediction));
    return STATUS_OK;
}

static enum status try_way(struct work *work, const struct handover_choice *choice, size_t way,
                           struct trial *out, bool *runs, struct error *err)
{
    const struct model *model = work->handover->model;

    *out = work->now;
    *runs = true;
    TRY(own_layout_open(&out->own, &work->now.own.layout, model, err));
    enum status status =
        export_layout_level(work->request->target, choice, way, model, &out->own, &out->way, err);
    if (status == STATUS_OK && out->way.exists && out->way.changed > 0)
        status = price(work, out, runs, err);
    if (status != STATUS_OK)
        own_layout_free(&out->own);
    return status;
}

/* What fits stands before what does not; of that what misses least. */
static bool is_better(const struct trial *a, const struct trial *b)
{
    if (b->own.blocks == NULL || a->missing_bytes != b->missing_bytes)
        return b->own.blocks == NULL || a->missing_bytes < b->missing_bytes;
    return a->objective < b->objective;
}

/* The best of the field's ways; the caller owns out->own. */
static enum status best_way(struct work *work, const struct handover_choice *choice,
                            struct trial *out, struct error *err)
{
    struct trial best = {.own = {.blocks = NULL}}, trial;
    bool is_end = false;

    for (size_t way = 0; !is_end; way++) {
        bool runs;
        enum status status = try_way(work, choice, way, &trial, &runs, err);
        if (status != STATUS_OK) {
            own_layout_free(&best.own);
            return status;
        }
        is_end = !trial.way.exists;
        if (is_end || !runs || !is_better(&trial, &best)) {
            own_layout_free(&trial.own);
        } else {
            own_layout_free(&best.own);
            best = trial;
        }
    }
    if (best.own.blocks == NULL)
        return error_set(err, STATUS_UNSUPPORTED, "export to %s: %s",
                         export_target_name(work->request->target), work->refused.message);
    *out = best;
    return STATUS_OK;
}

static enum status level(struct work *work, const struct handover_choice *choice,
                         struct exported *out, struct error *err)
{
    struct trial best;
    TRY(best_way(work, choice, &best, err));
    if (best.way.changed > 0)
        out->losses[out->loss_count++] = (struct export_loss){
            .field = handover_field_name(choice->field),
            .way = best.way,
            .time_share = (best.priced.time_s - work->now.priced.time_s) / work->planned_s,
            .memory_bytes = best.priced.memory_bytes - work->now.priced.memory_bytes,
        };
    if (best.missing_bytes > 0 && work->now.missing_bytes <= 0)
        work->overflows = handover_field_name(choice->field);
    own_layout_free(&work->now.own);
    work->now = best;
    return STATUS_OK;
}

/* What does not fit for a field that the target has its own way of may do so when more is
 * recomputed. */
static enum status level_all(struct work *work, struct exported *out, struct error *err)
{
    const struct handover_choice recompute = {HANDOVER_RECOMPUTE, true};
    const struct handover_choice offload = {HANDOVER_OFFLOAD_ACTIVATIONS, false};
    char missing[UNIT_TEXT_BYTES];

    for (int field = 0; field < HANDOVER_FIELD_COUNT; field++) {
        const struct handover_choice choice = {(enum handover_field)field, false};
        TRY(level(work, &choice, out, err));
    }
    if (work->now.missing_bytes > 0) {
        TRY(level(work, &recompute, out, err));
        TRY(level(work, &offload, out, err));
    }
    if (work->now.missing_bytes > 0)
        return error_set(err, STATUS_INFEASIBLE,
                         "export to %s: what it can run as '%s' does not fit: %s missing. Raise "
                         "--memory-cap, or --pin what the target can run",
                         export_target_name(work->request->target), work->overflows,
                         format_bytes(work->now.missing_bytes, missing));
    return STATUS_OK;
}

/* The layout as it was: whoever planned it knows whether it fits. */
static enum status open_work(struct work *work, struct error *err)
{
    const struct layout_handover *handover = work->handover;
    bool runs;

    work->units = handover->units != NULL
                      ? *handover->units
                      : (struct priced_layout){.time_s = 1, .memory_bytes = 1, .energy_j = 1};
    TRY(own_layout_open(&work->now.own, handover->layout, handover->model, err));
    TRY(price(work, &work->now, &runs, err));
    if (!runs) {
        *err = work->refused;
        return STATUS_INVALID;
    }
    work->now.missing_bytes = 0;
    work->planned_s = work->now.priced.time_s;
    if (handover->units == NULL)
        work->units = work->now.priced;
    work->now.objective = layout_objective(handover->weights, &work->units, &work->now.priced);
    return STATUS_OK;
}

enum status layout_export(const struct export_request *request,
                          const struct layout_handover *handover, struct exported *out,
                          struct error *err)
{
    struct work work = {.request = request, .handover = handover};
    _Static_assert((int)EXPORT_LOSSES_MAX > (int)HANDOVER_FIELD_COUNT + 1,
                   "one loss a field, two more of recompute and offload");

    *out = (struct exported){.request = *request, .is_predicted = true};
    TRY(export_layout_check(request->target, handover->model, handover->layout, err));
    enum status status = open_work(&work, err);
    if (status == STATUS_OK)
        status = level_all(&work, out, err);
    out->plan.prediction.time_s.value = work.now.priced.time_s;
    out->time_share = work.now.priced.time_s / work.planned_s - 1.0;
    if (status == STATUS_OK)
        status = export_layout(request->target, handover->model, &work.now.own, &out->file,
                               &out->notes, err);
    if (status == STATUS_OK)
        status = exported_save(out, err);
    own_layout_free(&work.now.own);
    if (status != STATUS_OK)
        exported_free(out);
    return status;
}
