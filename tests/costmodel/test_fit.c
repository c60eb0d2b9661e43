#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "costmodel/case_cost.h"
#include "costmodel/fit.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 24, FOLDS = 4 };

static void assert_ok(enum status status, const struct error *err)
{
    if (status != STATUS_OK)
        fail_msg("failed: %s", err->message);
}

static struct cluster described(void)
{
    struct cluster cluster;
    struct error err;
    assert_ok(cluster_load(&cluster, "a100-80x32", &err), &err);
    return cluster;
}

static void make_run(struct run_case *row, const struct cluster *cluster, size_t index)
{
    static const int64_t tensors[] = {1, 2, 4, 8}, hiddens[] = {1024, 2048, 4096};
    int64_t tensor = tensors[index % 4], hidden = hiddens[index % 3];
    int64_t devices = index % 2 == 0 ? 8 : 32;
    *row = (struct run_case){
        .line = index + 2,
        .model = {.name = "gpt",
                  .family = MODEL_GPT2,
                  .blocks = 8,
                  .hidden = hidden,
                  .heads = 16,
                  .kv_heads = 16,
                  .head_dim = hidden / 16,
                  .ffn = 4 * hidden,
                  .vocab = 51200,
                  .positions = 1024,
                  .seq_length = 1024,
                  .norm_epsilon = 1e-5,
                  .tied_head = true},
        .layout = {.framework = FRAMEWORK_MEGATRON,
                   .devices = devices,
                   .pipeline = 1,
                   .virtual_stages = 1,
                   .data = devices / tensor,
                   .tensor = tensor,
                   .context = 1,
                   .expert = 1,
                   .schedule = SCHEDULE_1F1B,
                   .shard = 1,
                   .micro_batch = 2,
                   .global_batch = 256,
                   .recompute = RECOMPUTE_FULL,
                   .arithmetic = ARITHMETIC_BF16},
        .memory_bytes = quantity_absent(),
    };
    assert_true(cluster_resized(cluster, devices, &row->cluster));
}

/* Runs that are "measured" as the model predicts them on `cluster`. */
static struct run_cases measured_on(const struct cluster *cluster)
{
    struct run_cases cases = {.name = "made", .count = RUNS};
    cases.rows = calloc(RUNS, sizeof(cases.rows[0]));
    assert_non_null(cases.rows);
    for (size_t i = 0; i < RUNS; i++) {
        struct case_result result;
        struct error err;
        make_run(&cases.rows[i], cluster, i);
        assert_ok(case_predict(&cases.rows[i], &result, &err), &err);
        cases.rows[i].step_s = result.time_s;
        cases.rows[i].step_s.provenance = PROVENANCE_MEASURED;
    }
    return cases;
}

/* The same device as it would be described too slow in its products and too fast in its links. */
static struct cluster spoilt(const struct cluster *truth)
{
    struct cluster cluster = *truth;
    struct node_group *group = &cluster.groups[0];
    struct efficiency_curve *matmul = &group->device.efficiency[OPERATION_MATMUL];
    for (size_t i = 0; i < matmul->count; i++)
        matmul->share[i] *= 0.7;
    for (size_t i = 0; i < group->tier_count; i++)
        group->tiers[i].share = fmin(1, 1.4 * group->tiers[i].share);
    return cluster;
}

static void put_on(struct run_cases *cases, const struct cluster *cluster)
{
    for (size_t i = 0; i < cases->count; i++)
        assert_true(
            cluster_resized(cluster, cases->rows[i].layout.devices, &cases->rows[i].cluster));
}

static double mean_error(const struct run_cases *cases)
{
    double sum = 0;
    for (size_t i = 0; i < cases->count; i++) {
        struct case_result result;
        struct error err;
        assert_ok(case_predict(&cases->rows[i], &result, &err), &err);
        sum += fabs(case_error(result.time_s, cases->rows[i].step_s));
    }
    return sum / (double)cases->count;
}

static void test_fit__finds_back_what_the_runs_were_made_with(void **state)
{
    (void)state;
    struct cluster truth = described(), cluster = spoilt(&truth);
    struct run_cases cases = measured_on(&truth);
    struct fit_report report;
    struct error err;
    put_on(&cases, &cluster);
    double before = mean_error(&cases);
    assert_true(before > 0.08);
    assert_ok(fit_cluster(&cluster, &cases, 1, FOLDS, NULL, &report, &err), &err);
    assert_int_equal(report.rows, RUNS);
    assert_int_equal(report.tables, 1);
    assert_int_equal(report.folds, FOLDS);
    assert_true(fabs(report.error_before - before) < 1e-9);
    assert_true(report.error_after < 0.03);
    assert_true(report.error_after <= report.error_held_out + 0.005);
    assert_true(report.error_held_out < 0.06);
    /* the rows, and rows put on the fitted cluster anew, have its shares */
    assert_true(fabs(mean_error(&cases) - report.error_after) < 1e-9);
    put_on(&cases, &cluster);
    assert_true(fabs(mean_error(&cases) - report.error_after) < 1e-9);
    assert_ok(cluster_validate(&cluster, "fitted", &err), &err);
    run_cases_free(&cases);
}

/* Noise of 10 %, which a curve could follow up and down: it still never falls towards larger work,
 * and another system's network keeps its share. */
static void test_fit__keeps_curves_rising_and_other_networks(void **state)
{
    (void)state;
    struct cluster truth = described(), cluster = spoilt(&truth);
    struct run_cases cases = measured_on(&truth);
    struct node_group *group = &cluster.groups[0];
    struct fit_report report;
    struct error err;
    put_on(&cases, &cluster);
    for (size_t i = 0; i < RUNS; i++)
        cases.rows[i].step_s.value *= i % 3 == 0 ? 1.1 : 0.95;
    assert_true(cluster_set_network(&cases.rows[1].cluster, "opa-4x100"));
    double share = cases.rows[1].cluster.groups[0].tiers[1].share;
    assert_ok(fit_cluster(&cluster, &cases, 1, FOLDS, NULL, &report, &err), &err);
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        const struct efficiency_curve *curve = &group->device.efficiency[i];
        for (size_t k = 1; k < curve->count; k++)
            assert_true(curve->share[k] >= curve->share[k - 1]);
    }
    assert_true(cases.rows[1].cluster.groups[0].tiers[1].share == share);
    assert_true(cases.rows[3].cluster.groups[0].tiers[1].share == group->tiers[1].share);
    assert_true(group->tiers[1].share != share);
    run_cases_free(&cases);
}

/* Nothing is gained by leaving a description that is right. */
static void test_fit__leaves_a_right_description_alone(void **state)
{
    (void)state;
    struct cluster truth = described(), cluster = truth;
    struct run_cases cases = measured_on(&truth);
    struct fit_report report;
    struct error err;
    assert_ok(fit_cluster(&cluster, &cases, 1, FOLDS, NULL, &report, &err), &err);
    assert_true(report.error_before < 1e-9 && report.error_after < 1e-9);
    assert_int_equal(cluster_hash(&cluster), cluster_hash(&truth));
    run_cases_free(&cases);
}

static void test_fit__refuses_too_few_runs(void **state)
{
    (void)state;
    struct cluster truth = described(), cluster = spoilt(&truth), before = cluster;
    struct run_cases cases = measured_on(&truth);
    struct fit_report report;
    struct error err;
    put_on(&cases, &cluster);
    cases.count = 2 * FOLDS;
    snprintf(cases.rows[0].skipped, CASE_TEXT_BYTES, "left out");
    assert_int_equal(fit_cluster(&cluster, &cases, 1, FOLDS, NULL, &report, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "7 runs"));
    assert_non_null(strstr(err.message, "8 or more"));
    assert_int_equal(cluster_hash(&cluster), cluster_hash(&before));
    run_cases_free(&cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fit__finds_back_what_the_runs_were_made_with),
        cmocka_unit_test(test_fit__keeps_curves_rising_and_other_networks),
        cmocka_unit_test(test_fit__leaves_a_right_description_alone),
        cmocka_unit_test(test_fit__refuses_too_few_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
