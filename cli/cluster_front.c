#include "cli/cluster_front.h"

#include "base/file.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/cluster_front_draw.h"
#include "cli/front_axes.h"
#include "cli/layout_rows.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What each axis needs of the devices. */
static enum status check_devices(const struct cluster *cluster, unsigned axes, struct error *err)
{
    bool has_power = true;
    for (size_t i = 0; i < cluster->group_count; i++)
        has_power &= cluster->groups[i].device.peak_w > 0;
    if ((axes & (FRONT_ENERGY | FRONT_CARBON)) && !has_power)
        return error_set(err, STATUS_USAGE,
                         "option --pareto: energy and carbon: the cluster '%s' gives no power; a "
                         "cluster file gives it as its devices' 'peak_w' and 'idle_w' "
                         "(docs/cluster.md)",
                         cluster->name);
    if ((axes & FRONT_MEMORY) && cluster->group_count > 1)
        return error_set(err, STATUS_USAGE,
                         "option --pareto: memory: of the %zu unlike groups of the cluster '%s' "
                         "each has its own; ask for it on a cluster of one group",
                         cluster->group_count, cluster->name);
    return STATUS_OK;
}

enum status cluster_front_check(const struct cluster_plan_options *options,
                                const struct cluster *cluster, unsigned *axes, struct error *err)
{
    const unsigned all = FRONT_MEASURED | FRONT_COST | FRONT_CARBON;
    TRY(front_axes_parse(options->pareto, all, axes, err));
    bool has_price = cluster->currency[0] != '\0';
    for (size_t i = 0; i < cluster->group_count; i++)
        has_price &= !isnan(cluster->groups[i].device.price_hour);
    if ((*axes & FRONT_COST) && !has_price)
        return error_set(err, STATUS_USAGE,
                         "option --pareto: cost: the cluster '%s' gives no price; a cluster file "
                         "gives it as 'currency' and its devices' 'price_hour' (docs/cluster.md)",
                         cluster->name);
    if ((*axes & FRONT_CARBON) && isnan(cluster->carbon_g_kwh))
        return error_set(err, STATUS_USAGE,
                         "option --pareto: carbon: the cluster '%s' gives no carbon intensity; a "
                         "cluster file gives it as 'carbon_g_kwh' and 'carbon_date' "
                         "(docs/cluster.md)",
                         cluster->name);
    return check_devices(cluster, *axes, err);
}

static enum status write_csv(const struct cluster_plan_options *options,
                             const struct cluster_front *front, struct error *err)
{
    struct text out = {0};
    layout_csv_head(&out);
    text_append(&out, ",uniform,gap\n");
    for (size_t i = 0; i < front->count; i++) {
        const struct cluster_front_row *row = &front->rows[i];
        layout_csv_row(options->model, &row->priced, &out);
        text_printf(&out, ",%d,%.17g\n", row->priced.layout.own == NULL, row->gap);
    }
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        status = file_write(options->csv, out.data, out.bytes, err);
    text_free(&out);
    return status;
}

/* ---- as JSON ---- */

static void write_row(const struct cluster_plan_options *options,
                      const struct cluster_front_row *row, struct jout *out)
{
    jout_begin_object(out, NULL);
    layout_row_json_members(options->model, &row->priced, NAN, out);
    jout_real(out, "gap", row->gap);
    if (row->priced.layout.own != NULL)
        block_plan_write(&row->priced.layout, options->model, out);
    jout_end(out);
}

static enum status tell_json(const struct cluster_plan_options *options,
                             const struct cluster *cluster, const struct cluster_front *front,
                             struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "cluster", cluster->name);
    jout_string(out, "model", options->model->name);
    jout_begin_array(out, "axes");
    for (size_t i = 0; i < FRONT_AXIS_COUNT; i++)
        if (options->axes & front_axis_rows[i].axis)
            jout_string(out, NULL, front_axis_rows[i].name);
    jout_end(out);
    jout_string(out, "currency", cluster->currency[0] != '\0' ? cluster->currency : NULL);
    jout_real(out, "risk", options->risk);
    jout_bool(out, "executable", options->executable);
    jout_int(out, "considered", (int64_t)front->uniform.considered);
    jout_int(out, "fitting", (int64_t)front->uniform.count);
    jout_bool(out, "whole", front->is_whole);
    jout_bool(out, "hull_only", front->is_hull);
    jout_real(out, "memory_step", options->axes & FRONT_MEMORY ? front->step : NAN);
    jout_real(out, "gap", front->gap);
    jout_real(out, "empty_below_bytes",
              front->empty_below_bytes > 0 ? front->empty_below_bytes : NAN);
    jout_int(out, "searches", (int64_t)front->searches);
    jout_real(out, "seconds", front->seconds);
    jout_begin_array(out, "layouts");
    for (size_t i = 0; i < front->count; i++)
        write_row(options, &front->rows[i], out);
    jout_end(out);
    return console_json(out, err);
}

/* ---- in words ---- */

static void append_rows(const struct cluster_plan_options *options, const struct cluster *cluster,
                        const struct cluster_front *front, const struct priced_layout *rows,
                        struct text *out)
{
    const struct layout_table table =
        layout_table_of(cluster, options->model, rows, front->count, options->axes);
    text_append(out, "  #  gap %");
    layout_table_head(&table, out);
    for (size_t i = 0; i < front->count; i++) {
        const struct cluster_front_row *row = &front->rows[i];
        text_printf(out, "%3zu%c", i + 1, row->priced.layout.own != NULL ? '*' : ' ');
        text_printf(out, row->gap < 1 ? "%5.2f" : "    -", 100 * row->gap);
        layout_table_row(&table, &row->priced,
                         row->priced.time_s / front->rows[0].priced.time_s - 1, out);
    }
}

/* What the reader may take for proven. */
static void append_claims(const struct cluster_plan_options *options,
                          const struct cluster_front *front, struct text *out)
{
    bool has_memory = (options->axes & FRONT_MEMORY) != 0;
    char words[64], bytes[UNIT_TEXT_BYTES];
    front_axes_words(options->axes & ~(unsigned)FRONT_MEMORY, words, sizeof(words));
    text_printf(out, "gap: no layout%s is better in %s by more than this\n",
                has_memory ? " of at most this memory" : "", words);
    if (front->uniform.considered > 0)
        text_printf(out, "uniform: all %llu were priced, so of them it is the true front\n",
                    (unsigned long long)front->uniform.considered);
    if (front->is_hull)
        text_append(out, "of those whose blocks differ: the convex hull; between two of its "
                         "corners there may be another, none is below the line between them\n");
    if (has_memory && front->is_whole)
        text_printf(out,
                    "for every layout there is %s of at most %.1f %% more memory that is at most "
                    "%.2g %% worse in %s\n",
                    front->is_hull ? "a row, or a line between two," : "a row",
                    100 / (1 - front->step) - 100, 100 / (1 - front->gap) - 100, words);
    if (front->empty_below_bytes > 0)
        text_printf(out, "no layout needs less than %s\n",
                    format_bytes(front->empty_below_bytes, bytes));
}

static void append_summary(const struct cluster_plan_options *options,
                           const struct cluster_front *front, struct text *out)
{
    size_t unlike = 0;
    char words[64], seconds[UNIT_TEXT_BYTES];
    for (size_t i = 0; i < front->count; i++)
        unlike += front->rows[i].priced.layout.own != NULL;
    front_axes_words(options->axes, words, sizeof(words));
    text_printf(out, "\n%zu layout%s, none better than another in %s%s; ", front->count,
                front->count == 1 ? "" : "s", words, front->is_whole ? "" : ", so far");
    text_printf(out, "%zu uniform, %zu whose blocks differ (*%s)\n", front->count - unlike, unlike,
                unlike > 0 ? ": --json has their stages" : "");
    append_claims(options, front, out);
    text_printf(out, "%zu searches, %s%s\n", front->searches,
                format_seconds(front->seconds, seconds),
                front->is_whole ? "" : "; stopped: the rest of the front was not searched");
}

static enum status tell_text(const struct cluster_plan_options *options,
                             const struct cluster *cluster, const struct cluster_front *front,
                             struct error *err)
{
    struct text out = {0};
    struct priced_layout *rows = malloc(front->count * sizeof(*rows));
    if (rows == NULL)
        return error_memory(err, front->count * sizeof(*rows), "the front");
    for (size_t i = 0; i < front->count; i++)
        rows[i] = front->rows[i].priced;
    cluster_plan_head(options, cluster, &out);
    append_rows(options, cluster, front, rows, &out);
    append_summary(options, front, &out);
    free(rows);
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        fputs(out.data, stdout);
    text_free(&out);
    return status;
}

enum status cluster_front_tell(const struct cluster_plan_options *options,
                               const struct cluster *cluster, const struct cluster_front *front,
                               struct error *err)
{
    if (options->csv != NULL)
        TRY(write_csv(options, front, err));
    if (options->svg != NULL)
        TRY(cluster_front_draw(options, cluster, front, err));
    return options->json ? tell_json(options, cluster, front, err)
                         : tell_text(options, cluster, front, err);
}
