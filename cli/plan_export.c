#include "cli/plan_export.h"

#include "base/file.h"
#include "base/units.h"
#include "cli/cli.h"
#include "costmodel/predict.h"
#include "planner/planner.h"
#include "store/store.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the option ---- */

enum status export_request_parse(struct export_request *out, const char *option, struct error *err)
{
    char name[32] = "";
    *out = (struct export_request){.wanted = option != NULL};
    if (option == NULL)
        return STATUS_OK;
    size_t length = strcspn(option, "=");
    if (length < sizeof(name))
        memcpy(name, option, length);
    if (!export_target_parse(name, &out->target)) {
        struct text names = {0};
        export_target_names(&names);
        enum status status =
            error_set(err, STATUS_USAGE, "option --export: '%.*s' is no target; there are %s",
                      (int)length, option, names.data != NULL ? names.data : "");
        text_free(&names);
        return status;
    }
    if (option[length] == '=')
        out->path = option + length + 1;
    if (out->path != NULL && out->path[0] == '\0')
        return error_set(err, STATUS_USAGE, "option --export: no file is named behind '%s='", name);
    return STATUS_OK;
}

enum status export_request_check(const struct export_request *request, const struct model *model,
                                 struct error *err)
{
    const struct plan plan = {.model = *model, .pipeline = 1, .tensor_parallel = 1};
    return request->wanted ? export_check(request->target, &plan, err) : STATUS_OK;
}

/* ---- levelling ---- */

/* One way of a field, tried on a copy of the plan. */
struct trial {
    struct plan plan; /* owned */
    struct export_way way;
    bool is_predicted;
    struct error unknown;
    double objective;
};

struct leveller {
    const struct export_request *request;
    const struct profile *profile;
    struct trial now;           /* with the fields so far levelled */
    double planned_s;           /* step time of the plan as it was */
    struct error refused;       /* why the last way cannot run */
    double least_missing_bytes; /* of the ways that do not fit; INFINITY: all others do */
};

/* The way's plan with its prediction; false in `runs`: it breaks a relation or does not fit. */
static enum status run_trial(struct leveller *work, struct trial *trial, bool *runs,
                             struct error *err)
{
    struct plan *plan = &trial->plan;

    *runs = plan_validate(plan, "levelled", &work->refused) == STATUS_OK;
    trial->is_predicted = false;
    if (!*runs || work->profile == NULL)
        return STATUS_OK;
    enum status status = predict_plan(work->profile, plan, &plan->prediction, &trial->unknown);
    if (status == STATUS_MEMORY) {
        *err = trial->unknown;
        return status;
    }
    trial->is_predicted = status == STATUS_OK;
    if (!trial->is_predicted)
        return STATUS_OK;
    trial->objective = planner_objective(&plan->objective, &plan->prediction);
    double missing = memory_held_bytes(plan->prediction.memory_bytes, work->request->risk) -
                     (double)plan->memory_cap_bytes;
    if (plan->memory_cap_bytes > 0 && missing > 0) {
        *runs = false;
        work->least_missing_bytes = fmin(work->least_missing_bytes, missing);
    }
    return STATUS_OK;
}

static enum status try_way(struct leveller *work, enum export_field field, size_t way,
                           struct trial *out, bool *runs, struct error *err)
{
    *out = (struct trial){.is_predicted = work->now.is_predicted, .objective = work->now.objective};
    *runs = true;
    TRY(plan_copy(&out->plan, &work->now.plan, err));
    enum status status =
        export_level(work->request->target, field, way, &out->plan, &out->way, err);
    if (status == STATUS_OK && out->way.exists && out->way.changed > 0)
        status = run_trial(work, out, runs, err);
    if (status != STATUS_OK)
        plan_clear(&out->plan);
    return status;
}

/* As planned is best of all; what is predicted stands before what is not. */
static bool is_better(const struct trial *a, const struct trial *b)
{
    if (b->plan.layers == NULL || a->way.changed == 0)
        return true;
    if (b->way.changed == 0)
        return false;
    if (a->is_predicted != b->is_predicted)
        return a->is_predicted;
    return a->is_predicted && a->objective < b->objective;
}

static enum status no_way(const struct leveller *work, enum export_field field, struct error *err)
{
    char missing[UNIT_TEXT_BYTES];
    const char *target = export_target_name(work->request->target);
    if (isfinite(work->least_missing_bytes))
        return error_set(err, STATUS_INFEASIBLE,
                         "export to %s: one '%s' for all layers does not fit: %s missing under the "
                         "memory cap. Raise --memory-cap, or --pin what the target can run",
                         target, export_field_name(field),
                         format_bytes(work->least_missing_bytes, missing));
    return error_set(err, STATUS_UNSUPPORTED, "export to %s: %s", target, work->refused.message);
}

/* The best of the field's ways; the caller owns out->plan. */
static enum status best_way(struct leveller *work, enum export_field field, struct trial *out,
                            struct error *err)
{
    struct trial best = {.plan = {.layers = NULL}};

    work->least_missing_bytes = INFINITY;
    for (size_t way = 0; best.plan.layers == NULL || best.way.changed > 0; way++) {
        struct trial trial;
        bool runs;
        enum status status = try_way(work, field, way, &trial, &runs, err);
        if (status != STATUS_OK) {
            plan_clear(&best.plan);
            return status;
        }
        if (!trial.way.exists) {
            plan_clear(&trial.plan);
            break;
        }
        if (runs && is_better(&trial, &best)) {
            plan_clear(&best.plan);
            best = trial;
        } else {
            plan_clear(&trial.plan);
        }
    }
    if (best.plan.layers == NULL)
        return no_way(work, field, err);
    *out = best;
    return STATUS_OK;
}

static void note_loss(const struct leveller *work, enum export_field field,
                      const struct trial *best, struct exported *out)
{
    const struct prediction *before = &work->now.plan.prediction, *after = &best->plan.prediction;
    bool is_known = work->now.is_predicted && best->is_predicted;
    out->losses[out->loss_count++] = (struct export_loss){
        .field = export_field_name(field),
        .way = best->way,
        .time_share =
            is_known ? (after->time_s.value - before->time_s.value) / work->planned_s : NAN,
        .memory_bytes = is_known ? after->memory_bytes.value - before->memory_bytes.value : NAN,
        .unknown = best->unknown,
    };
}

static enum status level_all(struct leveller *work, struct exported *out, struct error *err)
{
    for (int field = 0; field < EXPORT_FIELD_COUNT; field++) {
        struct trial best;
        TRY(best_way(work, (enum export_field)field, &best, err));
        if (best.way.changed > 0)
            note_loss(work, (enum export_field)field, &best, out);
        plan_clear(&work->now.plan);
        work->now = best;
    }
    return STATUS_OK;
}

/* ---- writing ---- */

enum status exported_save(const struct exported *exported, struct error *err)
{
    const struct text *file = &exported->file;
    if (exported->request.path == NULL)
        return STATUS_OK;
    return file_write(exported->request.path, file->data, file->bytes, err);
}

/* Both sides of a cost come from the same measurements, whatever those of the plan's file were. */
static enum status predict_planned(struct leveller *work, struct error *err)
{
    struct plan *plan = &work->now.plan;
    if (work->profile == NULL)
        return STATUS_OK;
    TRY(predict_plan(work->profile, plan, &plan->prediction, err));
    work->now.is_predicted = true;
    work->planned_s = plan->prediction.time_s.value;
    return STATUS_OK;
}

enum status plan_export(const struct export_request *request, const struct profile *profile,
                        const struct plan *plan, struct exported *out, struct error *err)
{
    struct leveller work = {.request = request, .profile = profile};

    *out = (struct exported){.request = *request};
    TRY(export_check(request->target, plan, err));
    TRY(plan_copy(&work.now.plan, plan, err));
    enum status status = predict_planned(&work, err);
    if (status == STATUS_OK)
        status = level_all(&work, out, err);
    out->plan = work.now.plan;
    out->is_predicted = work.now.is_predicted;
    out->time_share =
        out->is_predicted ? out->plan.prediction.time_s.value / work.planned_s - 1.0 : NAN;
    if (status == STATUS_OK)
        status = export_write(request->target, &out->plan, &out->file, &out->notes, err);
    if (status == STATUS_OK)
        status = exported_save(out, err);
    if (status != STATUS_OK)
        exported_free(out);
    return status;
}

void exported_free(struct exported *exported)
{
    plan_clear(&exported->plan);
    text_free(&exported->file);
    text_free(&exported->notes);
    exported->loss_count = 0;
}

/* ---- a plan from a file ---- */

static enum status open_profile(const struct export_source *source, const struct plan *plan,
                                struct store **store, struct profile **profile, struct error *err)
{
    const char *host = plan->host[0] != '\0' ? plan->host : NULL;
    if (!file_exists(source->store)) {
        console_warning("there is no store '%s': what the export costs is not known",
                        source->store);
        return STATUS_OK;
    }
    TRY(store_open(store, source->store, STORE_READ, err));
    return profile_open(profile, *store, source->host != NULL ? source->host : host, err);
}

static enum status tell(const struct exported *exported, bool json, struct error *err)
{
    if (json) {
        struct jout *out = jout_new();
        exported_json(exported, out);
        return console_json(out, err);
    }
    struct text said = {0};
    exported_text(exported, &said);
    enum status status = text_check(&said, err);
    if (status == STATUS_OK)
        fputs(said.data, stdout);
    text_free(&said);
    return status;
}

enum status plan_export_file(const struct export_request *request,
                             const struct export_source *source, struct error *err)
{
    struct plan plan;
    struct store *store = NULL;
    struct profile *profile = NULL;
    struct exported exported;

    TRY(plan_load(&plan, source->plan, err));
    enum status status = open_profile(source, &plan, &store, &profile, err);
    if (status == STATUS_OK)
        status = plan_export(request, profile, &plan, &exported, err);
    if (status == STATUS_OK) {
        status = tell(&exported, source->json, err);
        exported_free(&exported);
    }
    if (profile != NULL)
        profile_close(profile);
    if (store != NULL)
        store_close(store);
    plan_clear(&plan);
    return status;
}

/* ---- telling ---- */

static void loss_row(const struct export_loss *loss, struct text *out)
{
    char memory[UNIT_TEXT_BYTES];
    text_printf(out, "  %s: %s instead of the plan's; ", loss->field, loss->way.text);
    if (isnan(loss->time_share))
        text_printf(out, "what it costs is not known%s%s\n",
                    loss->unknown.message[0] != '\0' ? ": " : "", loss->unknown.message);
    else
        text_printf(out, "%+.2f %% of the step time, %s%s a rank\n", 100.0 * loss->time_share,
                    loss->memory_bytes < 0 ? "-" : "+",
                    format_bytes(fabs(loss->memory_bytes), memory));
}

static void note_rows(const struct text *notes, struct text *out)
{
    const char *at = notes->data;
    while (at != NULL && *at != '\0') {
        size_t length = strcspn(at, "\n");
        text_append(out, "  note: ");
        text_append_bytes(out, at, length);
        text_append(out, "\n");
        at += length + (at[length] == '\n');
    }
}

void exported_text(const struct exported *exported, struct text *out)
{
    char seconds[UNIT_TEXT_BYTES];
    text_printf(out, "export to %s: ", export_target_name(exported->request.target));
    if (exported->loss_count == 0)
        text_append(out, "it runs the plan as it is\n");
    else if (!exported->is_predicted)
        text_append(out, "it does not run the plan as it is, and part of the cost is not known\n");
    else
        text_printf(out, "it does not run the plan as it is: %+.2f %%, predicted %s a step\n",
                    100.0 * exported->time_share,
                    format_seconds(exported->plan.prediction.time_s.value, seconds));
    for (size_t i = 0; i < exported->loss_count; i++)
        loss_row(&exported->losses[i], out);
    note_rows(&exported->notes, out);
    if (exported->request.path != NULL)
        text_printf(out, "written to %s\n", exported->request.path);
    else
        text_printf(out, "\n%s", exported->file.data);
}

static void notes_json(const struct text *notes, struct jout *out)
{
    struct text line = {0};
    const char *at = notes->data;
    jout_begin_array(out, "notes");
    while (at != NULL && *at != '\0') {
        size_t length = strcspn(at, "\n");
        text_free(&line);
        line = (struct text){0};
        text_append_bytes(&line, at, length);
        jout_string(out, NULL, line.data);
        at += length + (at[length] == '\n');
    }
    jout_end(out);
    text_free(&line);
}

void exported_json(const struct exported *exported, struct jout *out)
{
    jout_begin_object(out, "export");
    jout_string(out, "target", export_target_name(exported->request.target));
    jout_string(out, "file", exported->request.path);
    jout_string(out, "text", exported->file.data);
    jout_real(out, "time_share", exported->time_share);
    jout_begin_array(out, "losses");
    for (size_t i = 0; i < exported->loss_count; i++) {
        const struct export_loss *loss = &exported->losses[i];
        jout_begin_object(out, NULL);
        jout_string(out, "field", loss->field);
        jout_string(out, "runs", loss->way.text);
        jout_int(out, "layers", (int64_t)loss->way.changed);
        jout_real(out, "time_share", loss->time_share);
        jout_real(out, "memory_bytes", loss->memory_bytes);
        jout_end(out);
    }
    jout_end(out);
    notes_json(&exported->notes, out);
    jout_end(out);
}
