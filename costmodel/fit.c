#include "costmodel/fit.h"

#include "costmodel/layout_cost.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The search: steps are factors of a share. */
static const double FIRST_STEP = 0.2, LAST_STEP = 0.01;
static const double LEAST_SHARE = 0.005;
enum { SWEEPS_MAX = 80 };
/* What leaving the given shares costs, beside the mean of |log(predicted / measured)|: a share that
 * hardly any run depends on stays where it was. */
static const double STAY = 0.002;

enum { SHARES_MAX = OPERATION_COUNT * CURVE_POINTS_MAX + CLUSTER_TIERS_MAX };

/* The free shares of a group, curves first. */
struct shares {
    size_t count;
    double value[SHARES_MAX];
};

static const size_t NO_FOLD = SIZE_MAX;

struct fit_row {
    struct run_case *row;
    double weight; /* 1 / rows of its table */
    size_t fold;
};

struct fit {
    struct fit_row *rows; /* [count], owned */
    size_t count;
    size_t tables;
    struct node_group group; /* as given */
    struct shares start;     /* of it */
};

/* ---- shares ---- */

static struct shares shares_read(const struct node_group *group)
{
    struct shares shares = {0};
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        for (size_t k = 0; k < group->device.efficiency[i].count; k++)
            shares.value[shares.count++] = group->device.efficiency[i].share[k];
    for (size_t i = 0; i < group->tier_count; i++)
        shares.value[shares.count++] = group->tiers[i].share;
    return shares;
}

/* Into a group of the same curves and of no more tiers. A tier of another name than that of the
 * fitted group is another network, and keeps its share. */
static void shares_write(const struct shares *shares, const struct node_group *fitted,
                         struct node_group *group)
{
    size_t at = 0;
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        for (size_t k = 0; k < group->device.efficiency[i].count; k++)
            group->device.efficiency[i].share[k] = shares->value[at++];
    for (size_t i = 0; i < group->tier_count; i++, at++)
        if (strcmp(group->tiers[i].name, fitted->tiers[i].name) == 0)
            group->tiers[i].share = shares->value[at];
    assert(at <= shares->count);
}

/* ---- errors ---- */

static bool is_in(const struct fit_row *row, size_t fold, bool inside)
{
    return fold == NO_FOLD || (row->fold == fold) == inside;
}

/* Predicted / measured of one row under these shares. */
static enum status ratio_of(const struct fit *fit, size_t index, const struct shares *shares,
                            double *out, struct error *err)
{
    struct layout_prediction prediction;
    struct run_case *run = fit->rows[index].row;
    shares_write(shares, &fit->group, &run->cluster.groups[0]);
    TRY(layout_time(&run->cluster, &run->model, &run->layout, &prediction, err));
    *out = prediction.time_s.value / run->step_s.value;
    return STATUS_OK;
}

/* What the search minimises, over the rows outside of `fold`. */
static enum status objective(const struct fit *fit, size_t fold, const struct shares *shares,
                             double *out, struct error *err)
{
    double sum = 0, weight = 0, moved = 0;
    for (size_t i = 0; i < fit->count; i++) {
        double ratio;
        if (!is_in(&fit->rows[i], fold, false))
            continue;
        TRY(ratio_of(fit, i, shares, &ratio, err));
        sum += fit->rows[i].weight * fabs(log(ratio));
        weight += fit->rows[i].weight;
    }
    for (size_t i = 0; i < shares->count; i++)
        moved += pow(log(shares->value[i] / fit->start.value[i]), 2);
    *out = sum / weight + STAY * moved;
    return STATUS_OK;
}

/* Adds the weighted absolute errors of the rows inside of `fold` to *sum. */
static enum status add_errors(const struct fit *fit, size_t fold, const struct shares *shares,
                              double *sum, struct error *err)
{
    for (size_t i = 0; i < fit->count; i++) {
        double ratio;
        if (!is_in(&fit->rows[i], fold, true))
            continue;
        TRY(ratio_of(fit, i, shares, &ratio, err));
        *sum += fit->rows[i].weight * fabs(ratio - 1) / (double)fit->tables;
    }
    return STATUS_OK;
}

/* ---- search ---- */

/* One share times exp(step). Larger work never reaches a smaller share of a peak: the other points
 * of its curve are taken along where they would contradict that. */
static void move_share(const struct node_group *group, struct shares *shares, size_t index,
                       double step)
{
    double value = fmin(fmax(shares->value[index] * exp(step), LEAST_SHARE), 1);
    size_t first = 0, curve = 0;
    while (curve < OPERATION_COUNT && index >= first + group->device.efficiency[curve].count)
        first += group->device.efficiency[curve++].count;
    shares->value[index] = value;
    if (curve == OPERATION_COUNT)
        return; /* a link's */
    for (size_t i = first; i < first + group->device.efficiency[curve].count; i++) {
        double *other = &shares->value[i];
        *other = i < index ? fmin(*other, value) : i > index ? fmax(*other, value) : value;
    }
}

/* Steps of one share in one direction for as long as they help. */
static enum status slide(const struct fit *fit, size_t fold, struct shares *shares, size_t index,
                         double step, double *best, struct error *err)
{
    for (;;) {
        struct shares moved = *shares;
        double value;
        move_share(&fit->group, &moved, index, step);
        if (moved.value[index] == shares->value[index])
            return STATUS_OK;
        TRY(objective(fit, fold, &moved, &value, err));
        if (!(value < *best - 1e-9))
            return STATUS_OK;
        *shares = moved;
        *best = value;
    }
}

/* Coordinate search without the rows of `fold`: each share in turn, finer when none moves. */
static enum status search(const struct fit *fit, size_t fold, struct shares *shares,
                          struct error *err)
{
    double best, step = FIRST_STEP;
    *shares = fit->start;
    TRY(objective(fit, fold, shares, &best, err));
    for (int sweep = 0; sweep < SWEEPS_MAX && step >= LAST_STEP; sweep++) {
        double before = best;
        for (size_t i = 0; i < shares->count; i++) {
            TRY(slide(fit, fold, shares, i, step, &best, err));
            TRY(slide(fit, fold, shares, i, -step, &best, err));
        }
        /* Small gains at a coarse step are cheaper had at a finer one. */
        if (before - best < 1e-3 * step)
            step /= 2;
    }
    return STATUS_OK;
}

static enum status run(const struct fit *fit, size_t folds, const struct reporter *reporter,
                       struct shares *shares, struct fit_report *report, struct error *err)
{
    struct shares held_out;
    TRY(add_errors(fit, NO_FOLD, &fit->start, &report->error_before, err));
    for (size_t fold = 0; fold < folds; fold++) {
        report_progress(reporter, "fitting without a part of the runs", fold, folds + 1);
        TRY(search(fit, fold, &held_out, err));
        TRY(add_errors(fit, fold, &held_out, &report->error_held_out, err));
    }
    report_progress(reporter, "fitting to all runs", folds, folds + 1);
    TRY(search(fit, NO_FOLD, shares, err));
    return add_errors(fit, NO_FOLD, shares, &report->error_after, err);
}

/* ---- rows ---- */

static bool has_time(const struct run_case *row)
{
    return row->skipped[0] == '\0' && row->step_s.provenance != PROVENANCE_ABSENT;
}

static void collect_table(struct fit *fit, struct run_cases *table, size_t folds)
{
    size_t usable = 0;
    for (size_t i = 0; i < table->count; i++)
        usable += has_time(&table->rows[i]) ? 1 : 0;
    fit->tables += usable > 0 ? 1 : 0;
    for (size_t i = 0; i < table->count; i++) {
        if (!has_time(&table->rows[i]))
            continue;
        fit->rows[fit->count] = (struct fit_row){
            .row = &table->rows[i],
            .weight = 1 / (double)usable,
            .fold = fit->count % folds,
        };
        fit->count++;
    }
}

static enum status collect(struct fit *fit, struct run_cases *tables, size_t table_count,
                           size_t folds, struct error *err)
{
    size_t capacity = 1;
    for (size_t i = 0; i < table_count; i++)
        capacity += tables[i].count;
    fit->rows = calloc(capacity, sizeof(fit->rows[0]));
    if (fit->rows == NULL)
        return error_memory(err, capacity * sizeof(fit->rows[0]), "the runs of a fit");
    for (size_t i = 0; i < table_count; i++)
        collect_table(fit, &tables[i], folds);
    if (fit->count < 2 * folds)
        return error_set(err, STATUS_INVALID,
                         "%zu runs with a step time that can be predicted on this cluster; "
                         "%zu folds need %zu or more",
                         fit->count, folds, 2 * folds);
    return STATUS_OK;
}

static void give_shares(const struct fit *fit, const struct shares *shares,
                        struct run_cases *tables, size_t table_count)
{
    for (size_t i = 0; i < table_count; i++)
        for (size_t k = 0; k < tables[i].count; k++)
            if (tables[i].rows[k].skipped[0] == '\0')
                shares_write(shares, &fit->group, &tables[i].rows[k].cluster.groups[0]);
}

enum status fit_cluster(struct cluster *cluster, struct run_cases *tables, size_t table_count,
                        size_t folds, const struct reporter *reporter, struct fit_report *out,
                        struct error *err)
{
    struct fit fit = {.group = cluster->groups[0], .start = shares_read(&cluster->groups[0])};
    struct shares shares = fit.start;
    struct fit_report report = {.folds = folds, .shares = fit.start.count};
    assert(folds >= 2 && folds <= FIT_FOLDS_MAX);
    enum status status = collect(&fit, tables, table_count, folds, err);
    if (status == STATUS_OK)
        status = run(&fit, folds, reporter, &shares, &report, err);
    report.rows = fit.count;
    report.tables = fit.tables;
    free(fit.rows);
    give_shares(&fit, status == STATUS_OK ? &shares : &fit.start, tables, table_count);
    if (status != STATUS_OK)
        return status;
    shares_write(&shares, &fit.group, &cluster->groups[0]);
    *out = report;
    return STATUS_OK;
}
