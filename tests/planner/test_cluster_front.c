/* The front of layouts whose blocks differ, against every layout of small random clusters. */
#include "planner/cluster_front.h"

#include "base/stats.h"
#include "costmodel/predict.h"
#include "random_cluster.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCKS_MOST = 5, LAYOUTS_MOST = 4000, INSTANCES = 500 };

static const double same_share = 1e-9;

struct instance {
    struct cluster cluster;
    struct model model;
    struct layouts_request layouts;
    struct cluster_search_request search;
    struct cluster_front_request request;
};

/* ---- every layout that fits ---- */

struct every {
    const struct instance *instance;
    bool only_counts;
    size_t count;
    struct priced_layout *rows; /* [row_count], owned */
    size_t row_count;
    /* the shape at work */
    struct layout layout;
    int64_t item_blocks, items, stage_blocks[BLOCKS_MOST];
    size_t stage_groups[BLOCKS_MOST];
    struct block_mode modes[BLOCKS_MOST];
    struct block_plan plan;
};

static void keep(struct every *every, const struct priced_layout *row)
{
    every->rows = realloc(every->rows, (every->row_count + 1) * sizeof(*every->rows));
    assert_non_null(every->rows);
    every->rows[every->row_count++] = *row;
}

static bool predict(const struct instance *instance, const struct layout *layout,
                    struct priced_layout *out)
{
    const struct layouts_request *request = &instance->layouts;
    double deviations = normal_deviations(request->risk);
    struct layout_prediction prediction;
    struct error err;
    if (layout_check(layout, &instance->model, "trial", &err) != STATUS_OK ||
        layout_predict(&instance->cluster, &instance->model, layout, &prediction, &err) !=
            STATUS_OK)
        fail_msg("%s", err.message);
    *out = priced_layout_of(layout, &prediction);
    double bytes = prediction.memory_bytes.value + deviations * prediction.memory_bytes.deviation;
    return layout_fits_at(&prediction, deviations) &&
           (request->memory_cap_bytes == 0 || bytes <= (double)request->memory_cap_bytes);
}

static void try_layout(struct every *every)
{
    struct priced_layout row;
    struct layout layout = every->layout;
    layout.own = &every->plan;
    every->count++;
    if (!every->only_counts && predict(every->instance, &layout, &row))
        keep(every, &row);
}

static void each_mode(struct every *every, int64_t item)
{
    bool has_any = false;
    if (every->count > LAYOUTS_MOST)
        return;
    if (item == every->items) {
        try_layout(every);
        return;
    }
    for (int away = every->layout.offload_activations; away >= 0 && !has_any; away--) {
        for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
            if (away && !layout_admits_activations_away(&every->layout, (enum recompute)recompute))
                continue;
            has_any = true;
            for (int64_t i = 0; i < every->item_blocks; i++)
                every->modes[item * every->item_blocks + i] =
                    (struct block_mode){(enum recompute)recompute, ARITHMETIC_BF16, away != 0};
            each_mode(every, item + 1);
        }
    }
}

static void each_cut(struct every *every, int64_t stage, int64_t left)
{
    int64_t behind = every->layout.pipeline - 1 - stage;
    assert_in_range(stage, 0, BLOCKS_MOST - 1);
    for (int64_t items = behind > 0 ? 1 : left; items <= left - behind; items++) {
        every->stage_blocks[stage] = items * every->item_blocks;
        if (behind == 0)
            each_mode(every, 0);
        else
            each_cut(every, stage + 1, left - items);
    }
}

static enum status visit(void *user, const struct layout *layout, struct error *err)
{
    struct every *every = user;
    const struct model *model = &every->instance->model;
    bool is_plain = model->experts == 0 || model->moe_every == 1;
    int64_t v = layout->virtual_stages;
    (void)err;
    if (v > 1 && (model->blocks % v != 0 || !is_plain))
        return STATUS_OK;
    every->layout = *layout;
    every->item_blocks = v;
    every->items = model->blocks / v;
    if (every->items >= layout->pipeline)
        each_cut(every, 0, every->items);
    return STATUS_OK;
}

static unsigned everything(void *user)
{
    (void)user;
    return WISH_EVERYTHING;
}

static struct every every_layout(const struct instance *instance, bool only_counts)
{
    struct every every = {.instance = instance, .only_counts = only_counts};
    struct layouts_request request = instance->layouts;
    const struct layout_visitor visitor = {&every, visit, everything};
    struct layout_list uniform;
    struct error err;
    bool is_whole;
    every.plan = (struct block_plan){every.modes, every.stage_blocks, every.stage_groups};
    request.pins.recompute =
        request.framework == FRAMEWORK_DEEPSPEED ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    assert_int_equal(layouts_each(&request, &visitor, &is_whole, &err), STATUS_OK);
    if (only_counts)
        return every;
    assert_int_equal(layouts_price(&instance->layouts, &uniform, &err), STATUS_OK);
    for (size_t i = 0; i < uniform.count; i++)
        keep(&every, &uniform.rows[i]);
    layouts_free(&uniform);
    return every;
}

/* ---- instances ---- */

static void roll_pins(struct dice *dice, struct layout_pins *out)
{
    *out = layout_pins_none();
    if (roll_true(dice, 2))
        out->pipeline = 1 + (int64_t)roll(dice, 4);
    if (roll_true(dice, 2))
        out->tensor = 1 + (int64_t)roll(dice, 2);
    if (roll_true(dice, 2))
        out->micro_batch = 1;
    if (roll_true(dice, 2))
        out->zero_stage = (int)roll(dice, 4);
    if (roll_true(dice, 3))
        out->offload = 0;
    out->context = 1;
}

/* A cap that binds, of the uniform layouts' range. */
static void roll_cap(struct dice *dice, struct instance *out)
{
    struct layout_list list;
    struct error err;
    double least = INFINITY, most = 0;
    assert_int_equal(layouts_price(&out->layouts, &list, &err), STATUS_OK);
    for (size_t i = 0; i < list.count; i++) {
        least = fmin(least, list.rows[i].memory_bytes);
        most = fmax(most, list.rows[i].memory_bytes);
    }
    if (list.count > 0)
        out->layouts.memory_cap_bytes = (uint64_t)(least + (most - least) * roll_real(dice));
    layouts_free(&list);
}

/* False: it has no layout, or too many to try them all. */
static bool roll_instance(uint64_t seed, struct instance *out)
{
    static const unsigned axes[] = {
        FRONT_TIME | FRONT_MEMORY, FRONT_TIME | FRONT_MEMORY,
        FRONT_TIME | FRONT_MEMORY, FRONT_ENERGY | FRONT_MEMORY,
        FRONT_TIME | FRONT_ENERGY, FRONT_TIME | FRONT_MEMORY | FRONT_ENERGY};
    struct dice dice = {.seed = seed};
    int64_t devices = INT64_C(1) << roll(&dice, 4);
    memset(out, 0, sizeof(*out));
    random_cluster(&dice, devices, 1, &out->cluster);
    out->model = random_model(&dice, 2 + (int64_t)roll(&dice, BLOCKS_MOST - 1));
    out->request = (struct cluster_front_request){.search = &out->search,
                                                  .axes = axes[roll(&dice, 6)],
                                                  .points_most = (int)roll(&dice, 3) * 4};
    out->layouts = (struct layouts_request){
        .cluster = &out->cluster,
        .model = &out->model,
        .framework = (enum framework)roll(&dice, FRAMEWORK_COUNT),
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = devices * (INT64_C(1) << roll(&dice, 3)),
        .risk = roll_true(&dice, 2) ? 0.05 : 0.3,
        .overlaps = roll_true(&dice, 2),
        .saves_memory = (out->request.axes & FRONT_MEMORY) != 0,
        .limits = {.deadline_s = INFINITY},
    };
    roll_pins(&dice, &out->layouts.pins);
    out->search = (struct cluster_search_request){.layouts = &out->layouts,
                                                  .arithmetics = {{ARITHMETIC_BF16}, 1},
                                                  .gap_target = roll_true(&dice, 2) ? 0 : 0.01};
    const struct every counted = every_layout(out, true);
    if (counted.count == 0 || counted.count > LAYOUTS_MOST)
        return false;
    if (roll_true(&dice, 3))
        roll_cap(&dice, out);
    return true;
}

/* ---- what must hold ---- */

static bool minds(const struct instance *instance, unsigned axis)
{
    return (instance->request.axes & axis) != 0;
}

/* What it is said to be, and not worse than another in every axis. */
static void check_row(const struct instance *instance, const struct cluster_front *front,
                      size_t index)
{
    const struct priced_layout *row = &front->rows[index].priced;
    struct priced_layout priced;
    assert_true(predict(instance, &row->layout, &priced));
    assert_true(fabs(priced.time_s - row->time_s) <= same_share * row->time_s);
    assert_true(fabs(priced.memory_bytes - row->memory_bytes) <= same_share * row->memory_bytes);
    assert_true(fabs(priced.energy_j - row->energy_j) <= same_share * row->energy_j);
    for (size_t i = 0; i < front->count; i++) {
        const struct priced_layout *other = &front->rows[i].priced;
        bool is_covered = i != index;
        for (unsigned axis = FRONT_TIME; axis <= FRONT_ENERGY; axis *= 2)
            if (minds(instance, axis) && priced_layout_value(other, (enum front_axis)axis) >
                                             priced_layout_value(row, (enum front_axis)axis))
                is_covered = false;
        assert_false(is_covered);
    }
}

/* No layout is better by more than its gap than a row of no less memory. */
static void check_gap(const struct instance *instance, const struct cluster_front_row *row,
                      const struct priced_layout *layout, uint64_t seed)
{
    double share = (1 - row->gap) * (1 - same_share);
    bool is_better =
        !minds(instance, FRONT_MEMORY) || layout->memory_bytes <= row->priced.memory_bytes;
    if (minds(instance, FRONT_TIME))
        is_better = is_better && layout->time_s < share * row->priced.time_s;
    if (minds(instance, FRONT_ENERGY))
        is_better = is_better && layout->energy_j < share * row->priced.energy_j;
    if (is_better)
        fail_msg("seed %llu: %.12g s, %.12g B, %.12g J is better than %.12g s, %.12g B, %.12g J "
                 "by more than %g",
                 (unsigned long long)seed, layout->time_s, layout->memory_bytes, layout->energy_j,
                 row->priced.time_s, row->priced.memory_bytes, row->priced.energy_j, row->gap);
}

static double weigh(double per_second, double per_joule, const struct priced_layout *row)
{
    return (per_second > 0 ? per_second * row->time_s : 0) +
           (per_joule > 0 ? per_joule * row->energy_j : 0);
}

/* Of hardly more memory there is a row that is no worse, but for the gap, however time and energy
 * are weighed. */
static void check_matched(const struct instance *instance, const struct cluster_front *front,
                          const struct priced_layout *layout, struct dice *dice, uint64_t seed)
{
    double angle = roll_real(dice), least = INFINITY;
    double per_second = minds(instance, FRONT_TIME) ? 1 / layout->time_s : 0;
    double per_joule = minds(instance, FRONT_ENERGY) ? 1 / layout->energy_j : 0;
    double most_bytes = layout->memory_bytes / (1 - front->step) * (1 + same_share);
    if (front->is_hull) {
        per_second *= angle;
        per_joule *= 1 - angle;
    }
    for (size_t i = 0; i < front->count; i++)
        if (!minds(instance, FRONT_MEMORY) || front->rows[i].priced.memory_bytes <= most_bytes)
            least = fmin(least, weigh(per_second, per_joule, &front->rows[i].priced));
    bool is_fine = !front->is_hull || instance->request.points_most == 0;
    if (is_fine &&
        !((1 - front->gap) * least <= weigh(per_second, per_joule, layout) * (1 + same_share)))
        fail_msg("seed %llu: nothing stands for %.12g s, %.12g B, %.12g J (step %g, gap %g)",
                 (unsigned long long)seed, layout->time_s, layout->memory_bytes, layout->energy_j,
                 front->step, front->gap);
}

struct tally {
    size_t instances, unlike, uniform, several, hulls, gaps;
};

static void check_instance(const struct instance *instance, uint64_t seed, struct tally *tally)
{
    struct every every = every_layout(instance, false);
    struct dice dice = {.seed = seed};
    struct cluster_front front;
    struct error err;
    if (cluster_front_find(&instance->request, &front, &err) != STATUS_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
    assert_true(front.is_whole);
    assert_true((front.count > 0) == (every.row_count > 0));
    for (size_t i = 0; i < front.count; i++) {
        check_row(instance, &front, i);
        tally->unlike += front.rows[i].priced.layout.own != NULL;
        tally->uniform += front.rows[i].priced.layout.own == NULL;
    }
    for (size_t k = 0; k < every.row_count; k++) {
        assert_true(every.rows[k].memory_bytes >= front.empty_below_bytes * (1 - same_share));
        check_matched(instance, &front, &every.rows[k], &dice, seed);
        for (size_t i = 0; i < front.count; i++)
            check_gap(instance, &front.rows[i], &every.rows[k], seed);
    }
    tally->instances++;
    tally->several += front.count > 2;
    tally->hulls += front.is_hull && front.count > 1;
    tally->gaps += front.gap > instance->search.gap_target * (1 + same_share);
    cluster_front_free(&front);
    free(every.rows);
}

static void test_cluster_front__stands_for_every_layout(void **state)
{
    struct tally tally = {0};
    (void)state;
    for (uint64_t seed = 1; tally.instances < INSTANCES; seed++) {
        static struct instance instance;
        if (roll_instance(seed, &instance))
            check_instance(&instance, seed, &tally);
    }
    assert_true(tally.unlike > INSTANCES);
    assert_true(tally.uniform > INSTANCES);
    assert_true(tally.several > INSTANCES / 2);
    assert_true(tally.hulls > INSTANCES / 10);
    /* Of a sum of maxima the search knows less than of time alone. */
    assert_true(tally.gaps < INSTANCES / 5);
}

/* What was found before the limits ended it stands, and no more is said than is known. */
static void test_cluster_front__stopped(void **state)
{
    static struct instance instance;
    static const atomic_int stop = 1;
    struct cluster_front front;
    struct error err;
    uint64_t seed = 1;
    (void)state;
    while (!roll_instance(seed, &instance))
        seed++;
    instance.layouts.limits.stop = &stop;
    assert_int_equal(cluster_front_find(&instance.request, &front, &err), STATUS_OK);
    assert_false(front.is_whole);
    assert_true(front.empty_below_bytes == 0);
    for (size_t i = 0; i < front.count; i++)
        assert_true(front.rows[i].gap == 1);
    cluster_front_free(&front);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cluster_front__stands_for_every_layout),
        cmocka_unit_test(test_cluster_front__stopped),
    };
    return cmocka_run_group_tests_name("cluster_front", tests, NULL, NULL);
}
