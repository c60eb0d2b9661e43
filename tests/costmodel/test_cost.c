#include "costmodel/cost.h"
#include "ir/footprint.h"
#include "rows.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b));
}

static struct profile *open_small(struct placement placement)
{
    static struct rows rows;
    struct model model = small_model();
    rows.count = 0;
    add_model_rows(&rows, &model, placement);
    return open_rows(&rows);
}

static void test_cost__layer_terms(void **state)
{
    (void)state;
    struct model model = small_model();
    struct placement placement = {2, 1};
    struct profile *profile = open_small(placement);
    struct layer_work work = {.kind = LAYER_MLP,
                              .mode = {PRECISION_BF16, RECOMPUTE_FULL},
                              .micro_batch = 2,
                              .placement = placement,
                              .bf16_copy = true};
    struct layer_cost cost;
    struct error err;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    assert_true(near(cost.forward_s.value, 0.001 * 3 * 2));
    assert_int_equal(cost.forward_s.provenance, PROVENANCE_INTERPOLATED);
    assert_true(near(cost.backward_j.value, 0.02 * 3 * 2));
    assert_true(near(cost.optimizer_s.value, 0.02));
    uint64_t count = layer_flat_count(&model, LAYER_MLP);
    double whole_s = 1e-4 + 1e-9 * 4 * (double)count;
    assert_true(near(cost.grad_reduce_s.value, 0.25 * whole_s));
    assert_true(near(cost.grad_reduce_j.value, 50 * 0.25 * whole_s / 2));
    assert_int_equal(cost.parameter_bytes, count * 6);
    assert_int_equal(cost.gradient_bytes, count * 4);
    assert_int_equal(cost.optimizer_bytes, count * 8);
    work.bf16_copy = false;
    work.mode = (struct layer_precision_mode){PRECISION_FP32, RECOMPUTE_NONE};
    work.micro_batch = 4;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    assert_int_equal(cost.forward_s.provenance, PROVENANCE_MEASURED);
    assert_true(near(cost.optimizer_s.value, 0.01));
    assert_int_equal(cost.parameter_bytes, count * 4);
    profile_close(profile);
}

static void test_cost__embedding_reduction_is_wholly_exposed(void **state)
{
    (void)state;
    struct model model = small_model();
    struct placement placement = {2, 1};
    struct profile *profile = open_small(placement);
    const struct layer_work work = {
        .kind = LAYER_EMBEDDING, .micro_batch = 1, .placement = placement};
    struct layer_cost cost;
    struct error err;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    double bytes = 4.0 * (double)layer_flat_count(&model, LAYER_EMBEDDING);
    assert_true(near(cost.grad_reduce_s.value, 1e-4 + 1e-9 * bytes));
    profile_close(profile);
}

static void test_cost__one_rank_reduces_nothing(void **state)
{
    (void)state;
    struct model model = small_model();
    struct placement placement = {1, 2};
    struct profile *profile = open_small(placement);
    const struct layer_work work = {
        .kind = LAYER_EMBEDDING, .micro_batch = 1, .placement = placement};
    struct layer_cost cost;
    struct error err;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    assert_true(cost.grad_reduce_s.value == 0);
    assert_true(cost.grad_reduce_j.value == 0);
    assert_int_equal(cost.grad_reduce_j.provenance, PROVENANCE_MEASURED);
    profile_close(profile);
}

static void test_cost__names_what_is_missing(void **state)
{
    (void)state;
    struct model model = small_model();
    struct profile *profile = open_small((struct placement){2, 1});
    const struct layer_work work = {.kind = LAYER_ATTENTION,
                                    .mode = {PRECISION_BF16, RECOMPUTE_SELECTIVE},
                                    .micro_batch = 1,
                                    .placement = {4, 3}};
    struct layer_cost cost;
    struct step_cost step;
    struct error err;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "attention/gpt2/h48"));
    assert_non_null(strstr(err.message, "bf16"));
    assert_non_null(strstr(err.message, "selective"));
    assert_non_null(strstr(err.message, "temper profile --ranks 4 --threads 3"));
    assert_int_equal(cost_step(profile, work.placement, false, &step, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "--ranks 4"));
    profile_close(profile);
}

static void test_cost__absent_energy_stays_absent(void **state)
{
    (void)state;
    static struct rows rows;
    struct model model = small_model();
    struct placement placement = {2, 1};
    rows.count = 0;
    add_model_rows(&rows, &model, placement);
    for (size_t i = 0; i < rows.count; i++) {
        if (rows.items[i].metric == METRIC_ACTIVE_W)
            rows.items[i].provenance = PROVENANCE_ABSENT;
    }
    struct profile *profile = open_rows(&rows);
    const struct layer_work work = {.kind = LAYER_HEAD, .micro_batch = 1, .placement = placement};
    struct layer_cost cost;
    struct step_cost step;
    struct error err;
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    assert_int_equal(cost.grad_reduce_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(cost.forward_j.provenance, PROVENANCE_MEASURED);
    assert_int_equal(cost_step(profile, placement, false, &step, &err), STATUS_OK);
    assert_int_equal(step.other_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(step.idle_watts.provenance, PROVENANCE_ABSENT);
    profile_close(profile);
}

static void test_cost__bf16_has_its_own_process_memory(void **state)
{
    (void)state;
    static struct rows rows;
    struct model model = small_model();
    struct placement placement = {2, 1};
    struct step_cost step;
    struct error err;
    rows.count = 0;
    add_model_rows(&rows, &model, placement);
    struct profile *profile = open_rows(&rows);
    assert_int_equal(cost_step(profile, placement, true, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 1e6)); /* fp32's: the nearest that is known */
    assert_int_equal(step.process_bytes.provenance, PROVENANCE_INTERPOLATED);
    profile_close(profile);

    struct measurement row = {.subject = "machine",
                              .metric = METRIC_PROCESS_BYTES,
                              .precision = PRECISION_BF16,
                              .ranks = placement.ranks,
                              .threads = placement.threads,
                              .n = 1,
                              .mean = 3e6};
    add_row(&rows, row);
    profile = open_rows(&rows);
    assert_int_equal(cost_step(profile, placement, true, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 3e6));
    assert_int_equal(cost_step(profile, placement, false, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 1e6));
    profile_close(profile);
}

/* Compute slowed by messages in the background costs more than the messages alone. */
static void test_cost__overlap_may_be_negative(void **state)
{
    (void)state;
    static struct rows rows;
    struct model model = small_model();
    struct placement placement = {2, 1};
    struct layer_work work = {.kind = LAYER_MLP, .micro_batch = 2, .placement = placement};
    struct layer_cost cost;
    struct error err;
    rows.count = 0;
    add_model_rows(&rows, &model, placement);
    for (size_t i = 0; i < rows.count; i++)
        if (rows.items[i].metric == METRIC_OVERLAP)
            rows.items[i].mean = -0.5;
    struct profile *profile = open_rows(&rows);
    assert_int_equal(cost_layer(profile, &model, &work, &cost, &err), STATUS_OK);
    double whole_s = 1e-4 + 1e-9 * 4 * (double)layer_flat_count(&model, LAYER_MLP);
    assert_true(near(cost.grad_reduce_s.value, 1.5 * whole_s));
    profile_close(profile);
}

static void test_cost__all_reduce_extrapolates_latency_and_bandwidth(void **state)
{
    (void)state;
    struct placement placement = {2, 1};
    struct profile *profile = open_small(placement);
    static const uint64_t sizes[] = {0, 8, 1000, 5000, 1000000, 400000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        struct quantity time_s = cost_all_reduce(profile, placement, sizes[i]);
        assert_true(near(time_s.value, 1e-4 + 1e-9 * (double)sizes[i]));
    }
    assert_int_equal(cost_all_reduce(profile, (struct placement){3, 1}, 8).provenance,
                     PROVENANCE_ABSENT);
    profile_close(profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost__layer_terms),
        cmocka_unit_test(test_cost__embedding_reduction_is_wholly_exposed),
        cmocka_unit_test(test_cost__one_rank_reduces_nothing),
        cmocka_unit_test(test_cost__names_what_is_missing),
        cmocka_unit_test(test_cost__absent_energy_stays_absent),
        cmocka_unit_test(test_cost__bf16_has_its_own_process_memory),
        cmocka_unit_test(test_cost__overlap_may_be_negative),
        cmocka_unit_test(test_cost__all_reduce_extrapolates_latency_and_bandwidth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
