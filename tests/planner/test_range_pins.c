/* Plans under pins of blocks against every plan that keeps them. What each pin means is written out
 * here, layer by layer; planner/pins.c is not asked. */
#include "costmodel/predict.h"
#include "every_plan.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 6 };
/* The layers of two blocks. */
enum { EMBEDDING, ATTENTION_0, MLP_0, ATTENTION_1, MLP_1, HEAD, LAYERS };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static void search(const struct planner_request *request, const char *pins, struct plan *plan)
{
    struct planner_request pinned = *request;
    struct planner_result result = {.statistics = {.seconds = 0}};
    struct error err;
    pinned.pins_text = pins;
    if (pins_parse(&pinned.pins, pins, &err) != STATUS_OK ||
        planner_search(&pinned, &result, &err) != STATUS_OK)
        fail_msg("%s: %s", pins, err.message);
    assert_true(result.plan.status != PLAN_GAP);
    *plan = result.plan;
}

/* ---- recompute ---- */

enum { ANY = -1 };

static const struct {
    const char *pins;
    int recompute[LAYERS]; /* enum recompute, or ANY */
} recompute_cases[] = {
    {EVERY_PLAN_PINS ",recompute:0=full", {ANY, RECOMPUTE_FULL, RECOMPUTE_FULL, ANY, ANY, ANY}},
    {EVERY_PLAN_PINS ",recompute:mlp:0-1=full",
     {ANY, ANY, RECOMPUTE_FULL, ANY, RECOMPUTE_FULL, ANY}},
    {EVERY_PLAN_PINS ",recompute:1=full,recompute=none",
     {RECOMPUTE_NONE, RECOMPUTE_NONE, RECOMPUTE_NONE, RECOMPUTE_FULL, RECOMPUTE_FULL,
      RECOMPUTE_NONE}},
    {EVERY_PLAN_PINS ",recompute:attention:1=selective,recompute:0-1=full",
     {ANY, RECOMPUTE_FULL, RECOMPUTE_FULL, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL, ANY}},
    {EVERY_PLAN_PINS ",recompute:attention=full,recompute:1=none",
     {ANY, RECOMPUTE_FULL, ANY, RECOMPUTE_NONE, RECOMPUTE_NONE, ANY}},
};

static bool keeps(const struct listed_plan *plan, const int recompute[LAYERS])
{
    for (int l = 0; l < LAYERS; l++)
        if (recompute[l] != ANY && (int)plan->recompute[l] != recompute[l])
            return false;
    return true;
}

static double best_time(const struct every_plan *all, const int recompute[LAYERS], double cap_bytes)
{
    double best_s = INFINITY;
    for (size_t i = 0; i < all->count; i++)
        if (keeps(&all->items[i], recompute) && all->items[i].memory_bytes <= cap_bytes)
            best_s = fmin(best_s, all->items[i].time_s);
    return best_s;
}

static void check_recompute(const struct small_world *world, size_t at)
{
    struct planner_request request = world->request;
    const int *recompute = recompute_cases[at].recompute;
    double least_bytes = INFINITY, fastest_bytes = 0;
    double best_s = best_time(&world->all, recompute, INFINITY);
    struct plan plan;
    search(&request, recompute_cases[at].pins, &plan);
    for (int l = 0; l < LAYERS; l++)
        assert_true(recompute[l] == ANY || (int)plan.layers[l].recompute == recompute[l]);
    assert_true(near(plan.prediction.time_s.value, best_s));
    fastest_bytes = memory_quantile_bytes(plan.prediction.memory_bytes);
    plan_clear(&plan);
    for (size_t i = 0; i < world->all.count; i++)
        if (keeps(&world->all.items[i], recompute))
            least_bytes = fmin(least_bytes, world->all.items[i].memory_bytes);
    request.memory_cap_bytes = (uint64_t)ceil(0.5 * (least_bytes + fastest_bytes));
    search(&request, recompute_cases[at].pins, &plan);
    assert_true(near(plan.prediction.time_s.value,
                     best_time(&world->all, recompute, (double)request.memory_cap_bytes)));
    plan_clear(&plan);
}

static void test_range_pins__of_recompute_leave_the_best_plan_that_keeps_them(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct small_world world;
        open_small_world(&world, seed);
        for (size_t i = 0; i < sizeof(recompute_cases) / sizeof(*recompute_cases); i++)
            check_recompute(&world, i);
        close_small_world(&world);
    }
}

/* ---- splits and precision ---- */

/* Both tables whole, one micro-batch a step, nothing recomputed. */
static const char *const split_ranges[] = {
    "pp=1,dp=1,micro-batch=4,micro-batches=1,recompute=none,sp=off,zero:embedding=0,zero:head=0,"
    "tp:embedding=1,tp:head=1,zero:mlp:1=1,tp:attention:0=2,precision:1=fp32",
    "pp=1,dp=1,micro-batch=4,micro-batches=1,recompute=none,sp=off,zero:embedding=0,zero:head=0,"
    "tp:embedding=1,tp:head=1,tp:0=1,zero:0=0,zero:attention:1=2,precision:mlp:0-1=bf16",
};

static bool split_is_kept(size_t at, int layer, const struct layer_strategy *s)
{
    bool is_table = layer == EMBEDDING || layer == HEAD;
    bool is_block_0 = layer == ATTENTION_0 || layer == MLP_0;
    if (is_table)
        return s->tensor_parallel == 1 && s->zero_stage == 0 &&
               (layer == HEAD || s->precision == PRECISION_FP32);
    if (at == 0)
        return (layer != MLP_1 || s->zero_stage == 1) &&
               (layer != ATTENTION_0 || s->tensor_parallel == 2) &&
               (is_block_0 || s->precision == PRECISION_FP32);
    return (!is_block_0 || (s->tensor_parallel == 1 && s->zero_stage == 0)) &&
           (layer != ATTENTION_1 || s->zero_stage == 2) &&
           ((layer != MLP_0 && layer != MLP_1) || s->precision == PRECISION_BF16);
}

struct brute {
    const struct profile *profile;
    struct plan plan;
    size_t at, count;
    double best_s;
};

static void try_split(struct brute *brute, int layer)
{
    struct layer_strategy *own = &brute->plan.layers[layer];
    struct error err;
    if (layer == LAYERS) {
        struct prediction prediction = {0};
        if (plan_validate(&brute->plan, "test", &err) != STATUS_OK)
            return;
        if (predict_plan(brute->profile, &brute->plan, &prediction, &err) != STATUS_OK)
            fail_msg("%s", err.message);
        brute->best_s = fmin(brute->best_s, prediction.time_s.value);
        brute->count++;
        prediction_clear(&prediction);
        return;
    }
    for (int code = 0; code < 2 * 4 * 2; code++) {
        *own = (struct layer_strategy){.tensor_parallel = 1 + code % 2,
                                       .zero_stage = code / 2 % 4,
                                       .precision = code / 8 ? PRECISION_BF16 : PRECISION_FP32};
        if (split_is_kept(brute->at, layer, own))
            try_split(brute, layer + 1);
    }
}

static void check_split(uint64_t seed, size_t at)
{
    struct dice dice = {.seed = seed};
    const struct profile_options options = {.placements = {{2, 1}},
                                            .placement_count = 1,
                                            .micro_batches = {1, 2, 4},
                                            .micro_batch_count = 3,
                                            .bf16 = true};
    struct model model = tiny_model(2, true);
    struct profile *profile = random_profile(&dice, &model, &options);
    const struct planner_request request = {
        .model = &model, .profile = profile, .ranks = 2, .global_batch = 4, .weight_time = 1};
    struct layer_strategy layers[LAYERS];
    struct brute brute = {.profile = profile, .at = at, .best_s = INFINITY};
    struct plan found;
    search(&request, split_ranges[at], &found);
    assert_true(plan_copy(&brute.plan, &found, &(struct error){0}) == STATUS_OK);
    free(brute.plan.layers);
    brute.plan.layers = layers;
    try_split(&brute, 0);
    assert_true(brute.count > 40);
    if (!near(found.prediction.time_s.value, brute.best_s))
        fail_msg("seed %llu, %zu: found %.17g, best %.17g of %zu", (unsigned long long)seed, at,
                 found.prediction.time_s.value, brute.best_s, brute.count);
    for (int l = 0; l < LAYERS; l++)
        assert_true(split_is_kept(at, l, &found.layers[l]));
    prediction_clear(&brute.plan.prediction);
    plan_clear(&found);
    profile_close(profile);
}

static void test_range_pins__of_splits_leave_the_best_plan_that_keeps_them(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3; seed++) {
        check_split(seed, 0);
        check_split(seed, 1);
    }
}

/* ---- pipelines ---- */

/* Boundaries cut in advance and free ones: classes by group, not by kind. */
static void test_range_pins__hold_in_pipelines(void **state)
{
    (void)state;
    static const char *const pins[] = {
        "pp=2,schedule=1f1b,recompute:1-2=full,recompute=none,precision=fp32",
        "pp=2,schedule=interleaved,v=2,recompute:1-2=full,recompute=none,precision=fp32",
    };
    struct dice dice = {.seed = 5};
    const struct profile_options options = {.placements = {{2, 1}},
                                            .placement_count = 1,
                                            .micro_batches = {1, 2, 4},
                                            .micro_batch_count = 3};
    struct model model = tiny_model(4, false);
    struct profile *profile = random_profile(&dice, &model, &options);
    struct planner_request request = {
        .model = &model, .profile = profile, .ranks = 2, .global_batch = 4, .weight_time = 1};
    for (size_t i = 0; i < 2; i++) {
        struct planner_result result = {.statistics = {.seconds = 0}};
        struct error err;
        assert_int_equal(pins_parse(&request.pins, pins[i], &err), STATUS_OK);
        if (planner_search(&request, &result, &err) != STATUS_OK)
            fail_msg("%s", err.message);
        for (size_t l = 0; l < result.plan.layer_count; l++) {
            int64_t block = model_layer(&model, l).block;
            bool is_pinned = block == 1 || block == 2;
            assert_int_equal(result.plan.layers[l].recompute,
                             is_pinned ? RECOMPUTE_FULL : RECOMPUTE_NONE);
        }
        plan_clear(&result.plan);
    }
    profile_close(profile);
}

/* ---- refusals ---- */

static void test_range_pins__refuse_what_is_no_block(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "recompute:3-1=full",
        "recompute:1-=full",
        "recompute:-1=full",
        "recompute:0-1-2=full",
        "recompute:x-2=full",
        "recompute:embedding:0=none",
        "zero:head:0=1",
        "zero:0:mlp=1",
        "zero:mlp:head=1",
        "zero:mlp:=1",
        "micro-batch:0=4",
        "dp:0-1=2",
        "recompute:0-2=full,recompute:2-3=none",
        "attention:mlp:0=tiled",
        "zero:mlp:0:1=1",
        "recompute:99999999999=full",
        "arithmetic=fp8",
        "arithmetic:0=int4",
        "offload=disk",
        "cp=0",
        "ep=x",
        "shard=2,shard=2",
    };
    struct pins pins;
    struct error err;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        if (pins_parse(&pins, wrong[i], &err) != STATUS_USAGE)
            fail_msg("'%s' was accepted", wrong[i]);
    struct model model = tiny_model(2, true);
    assert_int_equal(pins_parse(&pins, "zero:mlp:1-2=1", &err), STATUS_OK);
    assert_int_equal(pins_check_model(&pins, &model, &err), STATUS_USAGE);
    assert_non_null(strstr(err.message, "zero:mlp:1-2"));
    assert_non_null(strstr(err.message, "blocks 0 to 1"));
    assert_int_equal(pins_check_measured(&pins, &err), STATUS_OK);
    static const char *const elsewhere[] = {"cp=2",         "ep=2",           "shard=8",
                                            "offload=both", "schedule=zb-h1", "arithmetic:0-1=fp8"};
    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(*elsewhere); i++) {
        assert_int_equal(pins_parse(&pins, elsewhere[i], &err), STATUS_OK);
        assert_int_equal(pins_check_measured(&pins, &err), STATUS_USAGE);
        assert_non_null(strstr(err.message, "--cluster"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_range_pins__of_recompute_leave_the_best_plan_that_keeps_them),
        cmocka_unit_test(test_range_pins__of_splits_leave_the_best_plan_that_keeps_them),
        cmocka_unit_test(test_range_pins__hold_in_pipelines),
        cmocka_unit_test(test_range_pins__refuse_what_is_no_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
