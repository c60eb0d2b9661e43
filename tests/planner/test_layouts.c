/* All layouts on a described cluster against a loop over every combination of degrees. */
#include "planner/layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct model small_llama(void)
{
    struct model model;
    struct error err;
    const struct model_overrides sizes = {.layers = 8, .seq_length = 2048};
    if (model_load(&model, "llama-3-8b", &sizes, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return model;
}

static struct layouts_request request_of(const struct cluster *cluster, const struct model *model)
{
    return (struct layouts_request){
        .cluster = cluster,
        .model = model,
        .framework = FRAMEWORK_MEGATRON,
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = 16,
        .overlaps = true,
        .fused = true,
        .pins = layout_pins_none(),
        .limits = {.deadline_s = INFINITY},
    };
}

struct tally {
    uint64_t considered, fitting;
    double best_s;
};

static void try_layout(const struct layouts_request *request, const struct layout *layout,
                       struct tally *tally)
{
    struct layout_prediction prediction;
    struct error err;
    if (layout_check(layout, request->model, "test", &err) != STATUS_OK)
        return;
    tally->considered++;
    assert_int_equal(layout_predict(request->cluster, request->model, layout, &prediction, &err),
                     STATUS_OK);
    if (!layout_fits(request->cluster, &prediction))
        return;
    tally->fitting++;
    tally->best_s = fmin(tally->best_s, prediction.time_s.value);
}

/* Every combination of numbers; what the space leaves out by intention is left out by name. */
static struct tally all_layouts(const struct layouts_request *request)
{
    struct tally tally = {.best_s = INFINITY};
    int64_t devices = cluster_devices(request->cluster), batch = request->global_batch;
    for (int64_t code = 0; code < 4 * 4 * 4 * 5 * 8 * 2 * 4 * 2; code++) {
        int64_t rest = code;
        struct layout layout = {.framework = request->framework,
                                .devices = devices,
                                .expert = 1,
                                .global_batch = batch,
                                .arithmetic = request->arithmetic,
                                .fused_attention = true,
                                .fused_cross_entropy = true,
                                .overlap_gradients = true,
                                .overlap_parameters = true,
                                .overlap_tensor = true};
        layout.pipeline = INT64_C(1) << rest % 4, rest /= 4;
        layout.tensor = INT64_C(1) << rest % 4, rest /= 4;
        layout.context = INT64_C(1) << rest % 4, rest /= 4;
        layout.micro_batch = INT64_C(1) << rest % 5, rest /= 5;
        layout.virtual_stages = 1 + rest % 8, rest /= 8; /* of 8 blocks */
        layout.sequence_parallel = rest % 2 != 0, rest /= 2;
        layout.zero_stage = (int)(rest % 4), rest /= 4;
        layout.recompute = rest % 2 != 0 ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        int64_t replica = layout.pipeline * layout.tensor * layout.context;
        layout.data = devices / replica;
        layout.shard = layout.zero_stage > 0 ? layout.data * layout.context : 1;
        layout.schedule = layout.virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
        bool is_split = layout.data * replica == devices && batch % layout.data == 0 &&
                        batch / layout.data % layout.micro_batch == 0;
        bool has_sense =
            (layout.tensor > 1 || !layout.sequence_parallel) &&
            (layout.pipeline > 1 || layout.virtual_stages == 1) &&
            (layout.data * layout.context > 1 || layout.zero_stage == 0) &&
            (layout.virtual_stages == 1 || 8 % (layout.pipeline * layout.virtual_stages) == 0 ||
             10 % (layout.pipeline * layout.virtual_stages) == 0);
        if (is_split && has_sense)
            try_layout(request, &layout, &tally);
    }
    return tally;
}

static void test_layouts__are_all_there_are(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model = small_llama();
    struct layout_list list;
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    assert_int_equal(layouts_price(&request, &list, &err), STATUS_OK);
    struct tally tally = all_layouts(&request);
    assert_true(list.is_whole && list.count > 0);
    assert_int_equal(list.considered, tally.considered);
    assert_int_equal(list.count, tally.fitting);
    const struct layout_weights weights = {.time = 1};
    double *objectives = calloc(list.count, sizeof(*objectives));
    assert_non_null(objectives);
    assert_int_equal(layouts_rank(&list, &weights, objectives, &err), STATUS_OK);
    assert_true(fabs(list.rows[0].time_s / tally.best_s - 1) < 1e-12);
    assert_true(fabs(objectives[0] - 1) < 1e-12); /* a multiple of the best */
    for (size_t i = 1; i < list.count; i++)
        assert_true(objectives[i - 1] <= objectives[i]);
    free(objectives);
    layouts_free(&list);
}

static void test_layouts__keep_the_cap_and_the_pins(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model = small_llama();
    struct layout_list list;
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.memory_cap_bytes = UINT64_C(24) << 30;
    request.pins.tensor = 4;
    request.pins.recompute = RECOMPUTE_FULL;
    assert_int_equal(layouts_price(&request, &list, &err), STATUS_OK);
    assert_true(list.count > 0);
    for (size_t i = 0; i < list.count; i++) {
        assert_true(list.rows[i].memory_bytes <= 24.0 * 1024 * 1024 * 1024);
        assert_int_equal(list.rows[i].layout.tensor, 4);
        assert_int_equal(list.rows[i].layout.recompute, RECOMPUTE_FULL);
    }
    layouts_free(&list);
    request.memory_cap_bytes = 1 << 20;
    assert_int_equal(layouts_price(&request, &list, &err), STATUS_OK);
    assert_int_equal(list.count, 0);
    assert_true(list.considered > 0 && list.leanest_bytes > 1 << 20);
    layouts_free(&list);
}

static bool dominates(const struct priced_layout *a, const struct priced_layout *b, unsigned axes)
{
    const double a_values[] = {a->time_s, a->memory_bytes, a->energy_j};
    const double b_values[] = {b->time_s, b->memory_bytes, b->energy_j};
    bool is_better = false;
    for (unsigned i = 0; i < 3; i++) {
        if (!(axes & (1U << i)))
            continue;
        if (a_values[i] > b_values[i])
            return false;
        is_better |= a_values[i] < b_values[i];
    }
    return is_better;
}

/* On the front, or behind a point of it; never before one. */
static void check_row(const struct layout_list *front, const struct priced_layout *row,
                      unsigned axes)
{
    bool is_known = false;
    for (size_t j = 0; j < front->count; j++) {
        const struct priced_layout *point = &front->rows[j];
        assert_false(dominates(row, point, axes));
        is_known |= dominates(point, row, axes) ||
                    ((!(axes & FRONT_TIME) || !(point->time_s < row->time_s)) &&
                     (!(axes & FRONT_TIME) || !(point->time_s > row->time_s)) &&
                     (!(axes & FRONT_MEMORY) || !(point->memory_bytes < row->memory_bytes)) &&
                     (!(axes & FRONT_MEMORY) || !(point->memory_bytes > row->memory_bytes)) &&
                     (!(axes & FRONT_ENERGY) || !(point->energy_j < row->energy_j)) &&
                     (!(axes & FRONT_ENERGY) || !(point->energy_j > row->energy_j)));
    }
    assert_true(is_known);
}

static void test_layouts__front_is_what_nothing_dominates(void **state)
{
    (void)state;
    static const unsigned choices[] = {FRONT_TIME | FRONT_MEMORY, FRONT_MEMORY | FRONT_ENERGY,
                                       FRONT_TIME | FRONT_ENERGY,
                                       FRONT_TIME | FRONT_MEMORY | FRONT_ENERGY};
    struct cluster cluster;
    struct model model = small_llama();
    struct layout_list all, front;
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    assert_int_equal(layouts_price(&request, &all, &err), STATUS_OK);
    for (size_t c = 0; c < sizeof(choices) / sizeof(choices[0]); c++) {
        assert_int_equal(layouts_price(&request, &front, &err), STATUS_OK);
        layouts_keep_front(&front, choices[c]);
        assert_true(front.count > 0 && front.count < all.count);
        for (size_t i = 0; i < all.count; i++)
            check_row(&front, &all.rows[i], choices[c]);
        for (size_t j = 1; j < front.count; j++)
            assert_true(front.rows[j - 1].time_s <= front.rows[j].time_s);
        layouts_free(&front);
    }
    layouts_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts__are_all_there_are),
        cmocka_unit_test(test_layouts__keep_the_cap_and_the_pins),
        cmocka_unit_test(test_layouts__front_is_what_nothing_dominates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
