/* All layouts on a described cluster against a loop over every combination of degrees. */
#include "layouts.h"
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
    return few_blocks("llama-3-8b", 8);
}

struct tally {
    uint64_t considered, fitting;
    double best_s;
};

/* Whether it fits. */
static bool try_layout(const struct layouts_request *request, const struct layout *layout,
                       struct tally *tally)
{
    struct layout_prediction prediction;
    struct error err;
    if (layout_check(layout, request->model, "test", &err) != STATUS_OK)
        return false;
    tally->considered++;
    assert_int_equal(layout_predict(request->cluster, request->model, layout, &prediction, &err),
                     STATUS_OK);
    double cap = request->memory_cap_bytes > 0 ? (double)request->memory_cap_bytes : INFINITY;
    if (!layout_fits(&prediction) ||
        prediction.memory_bytes.value + 1.6448536 * prediction.memory_bytes.deviation > cap)
        return false;
    tally->fitting++;
    tally->best_s = fmin(tally->best_s, prediction.time_s.value);
    return true;
}

/* Other schedules, ZeRO's state over `part` devices, offload. The space leaves out none of them
 * that could be best; what it counts are those that it cannot tell to be no better. */
static void try_variants(const struct layouts_request *request, struct layout layout, int64_t part,
                         struct tally *tally)
{
    static const enum schedule others[] = {SCHEDULE_1F1B, SCHEDULE_GPIPE, SCHEDULE_ZB_H1};
    struct tally apart = {.best_s = INFINITY};
    int64_t whole = layout.shard;
    for (int code = 0; code < 3 * 2 * 4; code++) {
        if (layout.virtual_stages == 1)
            layout.schedule = others[code % 3];
        layout.shard = code / 3 % 2 != 0 && layout.zero_stage > 0 ? part : whole;
        layout.offload_activations = (code / 6 & 1) != 0;
        layout.offload_optimizer = (code / 6 & 2) != 0;
        bool has_sense =
            (layout.pipeline > 1 || layout.schedule == SCHEDULE_1F1B) &&
            (layout.pipeline == 1 || framework_has_schedule(layout.framework, layout.schedule)) &&
            (layout.shard == whole ||
             framework_has_part_shard(layout.framework, layout.zero_stage));
        if (has_sense)
            try_layout(request, &layout, &apart);
    }
    tally->best_s = fmin(tally->best_s, apart.best_s);
}

/* How blocks are treated, attention fused or not. */
static const struct {
    bool is_fused;
    enum recompute recompute;
} treatments[] = {{true, RECOMPUTE_NONE},  {true, RECOMPUTE_SELECTIVE},  {true, RECOMPUTE_FULL},
                  {false, RECOMPUTE_NONE}, {false, RECOMPUTE_SELECTIVE}, {false, RECOMPUTE_FULL}};

/* Every combination of numbers; what the space leaves out by intention is left out by name. */
static struct tally all_layouts(const struct layouts_request *request, int64_t part)
{
    struct tally tally = {.best_s = INFINITY};
    int64_t devices = cluster_devices(request->cluster), batch = request->global_batch;
    for (int64_t code = 0; code < 4 * 4 * 4 * 5 * 8 * 2 * 4 * 6; code++) {
        int64_t rest = code;
        struct layout layout = {.framework = request->framework,
                                .devices = devices,
                                .expert = 1,
                                .global_batch = batch,
                                .arithmetic = request->arithmetic,
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
        layout.recompute = treatments[rest % 6].recompute;
        layout.fused_attention = treatments[rest % 6].is_fused;
        int64_t replica = layout.pipeline * layout.tensor * layout.context;
        layout.data = devices / replica;
        layout.shard = layout.zero_stage > 0 ? layout.data * layout.context : 1;
        layout.schedule = layout.virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
        bool is_split = layout.data * replica == devices && batch % layout.data == 0 &&
                        batch / layout.data % layout.micro_batch == 0;
        bool has_sense =
            (layout.tensor > 1 || !layout.sequence_parallel) &&
            (layout.fused_attention || layout.context == 1) &&
            (layout.pipeline > 1 || layout.virtual_stages == 1) &&
            (layout.data * layout.context > 1 || layout.zero_stage == 0) &&
            (layout.virtual_stages == 1 || 8 % (layout.pipeline * layout.virtual_stages) == 0 ||
             10 % (layout.pipeline * layout.virtual_stages) == 0);
        if (!is_split || !has_sense)
            continue;
        try_layout(request, &layout, &tally);
        int64_t own_part = part / layout.tensor;
        bool is_part = own_part > 1 && own_part < layout.data * layout.context &&
                       layout.data * layout.context % own_part == 0;
        if (part > 0)
            try_variants(request, layout, is_part ? own_part : layout.shard, &tally);
    }
    return tally;
}

static struct layout_list price(const struct layouts_request *request)
{
    struct layout_list list;
    struct error err;
    if (layouts_price(request, &list, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return list;
}

static void test_layouts__are_all_there_are(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model = small_llama();
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.pins.offload = 0;
    struct tally tally = all_layouts(&request, 0);
    request.pins.schedule = SCHEDULE_1F1B;
    struct layout_list plain = price(&request);
    request.pins.schedule = SCHEDULE_INTERLEAVED;
    struct layout_list list = price(&request);
    assert_true(list.is_whole && plain.is_whole && list.count > 0);
    assert_int_equal(list.considered + plain.considered, tally.considered);
    assert_int_equal(list.count + plain.count, tally.fitting);
    const struct layout_weights weights = {.time = 1};
    double *objectives = calloc(list.count, sizeof(*objectives));
    assert_non_null(objectives);
    assert_int_equal(layouts_rank(&list, &weights, NULL, objectives, &err), STATUS_OK);
    assert_int_equal(layouts_rank(&plain, &weights, NULL, NULL, &err), STATUS_OK);
    double best_s = fmin(list.rows[0].time_s, plain.rows[0].time_s);
    assert_true(fabs(best_s / tally.best_s - 1) < 1e-12);
    assert_true(fabs(objectives[0] - 1) < 1e-12); /* a multiple of the best */
    for (size_t i = 1; i < list.count; i++)
        assert_true(objectives[i - 1] <= objectives[i]);
    free(objectives);
    layouts_free(&list);
    layouts_free(&plain);
}

/* What is left out unpriced is never better: the best of the list is that of every combination,
 * with memory enough for anything, for little, and for nothing without the host. */
static void test_layouts__leave_out_nothing_that_is_better(void **state)
{
    (void)state;
    static const struct {
        const char *cluster;
        enum framework framework;
        uint64_t cap_gib;
        double host_bytes_s;
    } cases[] = {
        {"h100x16", FRAMEWORK_MEGATRON, 0, 20e9},
        {"a100x16", FRAMEWORK_MEGATRON, 6, 20e9},   /* optimizer away */
        {"h100x16", FRAMEWORK_MEGATRON, 8, 300e9},  /* both away */
        {"h100x16", FRAMEWORK_MEGATRON, 12, 300e9}, /* activations away */
        {"h100x16", FRAMEWORK_DEEPSPEED, 8, 20e9},  /* optimizer away */
        {"h100x16", FRAMEWORK_FSDP, 7, 20e9},
        {"a40x16@eth-1x10", FRAMEWORK_FSDP, 0, 20e9},     /* gpipe */
        {"a40x16@eth-1x10", FRAMEWORK_MEGATRON, 0, 20e9}, /* zb-h1 */
        {"a40x16", FRAMEWORK_FSDP, 12, 300e9},            /* zb-h1, optimizer away */
    };
    struct model model = small_llama();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cluster cluster;
        struct error err;
        assert_int_equal(cluster_load(&cluster, cases[i].cluster, &err), STATUS_OK);
        struct device_type *device = &cluster.groups[0].device;
        device->host_bytes_s = cases[i].host_bytes_s;
        device->host_memory_bytes_s = cases[i].host_bytes_s;
        device->host_memory_bytes = UINT64_C(1) << 37;
        struct layouts_request request = request_of(&cluster, &model);
        request.framework = cases[i].framework;
        request.memory_cap_bytes = cases[i].cap_gib << 30;
        struct tally tally = all_layouts(&request, cluster.groups[0].tiers[0].devices);
        struct layout_list list = price(&request);
        const struct layout_weights weights = {.time = 1};
        assert_int_equal(layouts_rank(&list, &weights, NULL, NULL, &err), STATUS_OK);
        assert_true(list.count > 0);
        if (fabs(list.rows[0].time_s / tally.best_s - 1) > 1e-12)
            fail_msg("case %zu: %.12g s, of all %.12g", i, list.rows[0].time_s, tally.best_s);
        layouts_free(&list);
    }
}

/* Fused attention is better where its kernels are: with none to speak of it is not. */
static void test_layouts__fuse_attention_where_that_pays(void **state)
{
    (void)state;
    const struct layout_weights weights = {.time = 1};
    struct model model = small_llama();
    double best_s[2][3];
    for (int poor = 0; poor <= 1; poor++) {
        struct cluster cluster;
        struct error err;
        assert_int_equal(cluster_load(&cluster, "h100x8", &err), STATUS_OK);
        struct efficiency_curve *curve = &cluster.groups[0].device.efficiency[OPERATION_ATTENTION];
        if (poor) {
            *curve = (struct efficiency_curve){0};
            efficiency_curve_add(curve, 1e6, 0.01);
        }
        struct layouts_request request = request_of(&cluster, &model);
        for (int pinned = -1; pinned <= 1; pinned++) {
            request.pins.fused_attention = pinned;
            struct layout_list list = price(&request);
            assert_int_equal(layouts_rank(&list, &weights, NULL, NULL, &err), STATUS_OK);
            const struct layout *best = &list.rows[0].layout;
            assert_int_equal(best->fused_attention, pinned < 0 ? !poor : pinned);
            best_s[poor][pinned + 1] = list.rows[0].time_s;
            layouts_free(&list);
        }
        request.pins.fused_attention = -1;
        struct tally tally = all_layouts(&request, cluster.groups[0].tiers[0].devices);
        assert_true(fabs(best_s[poor][0] / tally.best_s - 1) < 1e-12);
    }
    assert_true(best_s[0][0] == best_s[0][2] && best_s[0][2] < best_s[0][1]);
    assert_true(best_s[1][0] == best_s[1][1] && best_s[1][1] < best_s[1][2]);
}

/* What hides communication is the software's: without it no step is shorter. */
static void test_layouts__overlap_as_told(void **state)
{
    (void)state;
    const struct layout_exclusion overlapping = {LAYOUT_OVERLAP, 1};
    const struct layout_weights weights = {.time = 1};
    struct model model = small_llama();
    struct cluster cluster;
    struct error err;
    double best_s[3];
    assert_int_equal(cluster_load(&cluster, "h100x16", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    for (int way = 0; way < 3; way++) {
        request.pins.overlap = way == 1 ? 0 : -1;
        request.excluded = way == 2 ? &overlapping : NULL;
        struct layout_list list = price(&request);
        assert_int_equal(layouts_rank(&list, &weights, NULL, NULL, &err), STATUS_OK);
        for (size_t i = 0; i < list.count; i++) {
            assert_int_equal(layout_choice_value(&list.rows[i].layout, LAYOUT_OVERLAP), way == 0);
            assert_int_equal(list.rows[i].layout.overlap_tensor, way == 0);
        }
        best_s[way] = list.rows[0].time_s;
        layouts_free(&list);
    }
    assert_true(best_s[0] < best_s[1]);
    assert_true(best_s[1] == best_s[2]);
}

/* A small model on many devices: what counts are the hops of a gathering. */
static void test_layouts__share_state_within_nodes_where_that_pays(void **state)
{
    (void)state;
    const struct model_overrides none = {0};
    const struct layout_weights weights = {.time = 1};
    struct cluster cluster;
    struct model model;
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x256", &err), STATUS_OK);
    assert_int_equal(model_load(&model, "gpt2-xl", &none, &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.framework = FRAMEWORK_FSDP;
    request.global_batch = 256;
    double best_s[3];
    static const int64_t shards[] = {0, 8, 256};
    for (size_t i = 0; i < sizeof(shards) / sizeof(shards[0]); i++) {
        request.pins.shard = shards[i];
        struct layout_list list = price(&request);
        assert_int_equal(layouts_rank(&list, &weights, NULL, NULL, &err), STATUS_OK);
        assert_int_equal(list.rows[0].layout.shard, shards[i] == 0 ? 8 : shards[i]);
        best_s[i] = list.rows[0].time_s;
        layouts_free(&list);
    }
    assert_true(best_s[0] == best_s[1] && best_s[1] < best_s[2]);
}

/* Neighbours share the prices of their layers; each is predicted afresh here, to the last bit. */
static void check_shared_prices(const char *model_name, enum framework framework)
{
    const struct model_overrides none = {0};
    struct cluster cluster;
    struct model model;
    struct layout_list list;
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x32", &err), STATUS_OK);
    assert_int_equal(model_load(&model, model_name, &none, &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.framework = framework;
    request.fused_cross_entropy = framework != FRAMEWORK_DEEPSPEED;
    assert_int_equal(layouts_price(&request, &list, &err), STATUS_OK);
    assert_true(list.count > 100);
    for (size_t i = 0; i < list.count; i++) {
        const struct priced_layout *row = &list.rows[i];
        struct layout_prediction afresh;
        assert_int_equal(layout_predict(&cluster, &model, &row->layout, &afresh, &err), STATUS_OK);
        assert_true(row->time_s == afresh.time_s.value);
        assert_true(row->memory_bytes == afresh.memory_bytes.value);
        assert_true(row->energy_j == afresh.energy_j.value);
    }
    layouts_free(&list);
}

static void test_layouts__prices_are_those_of_each_alone(void **state)
{
    (void)state;
    check_shared_prices("llama-3-8b", FRAMEWORK_MEGATRON);
    check_shared_prices("gpt2-xl", FRAMEWORK_DEEPSPEED);
    check_shared_prices("llama-3-8b", FRAMEWORK_FSDP);
    check_shared_prices("mixtral-8x7b", FRAMEWORK_MEGATRON);
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
        cmocka_unit_test(test_layouts__prices_are_those_of_each_alone),
        cmocka_unit_test(test_layouts__leave_out_nothing_that_is_better),
        cmocka_unit_test(test_layouts__fuse_attention_where_that_pays),
        cmocka_unit_test(test_layouts__overlap_as_told),
        cmocka_unit_test(test_layouts__share_state_within_nodes_where_that_pays),
        cmocka_unit_test(test_layouts__keep_the_cap_and_the_pins),
        cmocka_unit_test(test_layouts__front_is_what_nothing_dominates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
