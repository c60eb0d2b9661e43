#include "costmodel/predict.h"
#include "ir/footprint.h"
#include "rows.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 6 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b));
}

struct setting {
    struct plan plan;
    struct layer_strategy layers[LAYERS];
    struct profile *profile;
    struct prediction prediction;
};

static void open_setting(struct setting *setting, int ranks, int threads)
{
    static struct rows rows;
    *setting = (struct setting){
        .plan = {.model = small_model(),
                 .ranks = ranks,
                 .data_parallel = ranks,
                 .pipeline = 1,
                 .threads = threads,
                 .global_batch = 12 * ranks,
                 .micro_batch = 4,
                 .micro_batches = 3,
                 .layer_count = LAYERS},
    };
    setting->plan.layers = setting->layers;
    for (size_t i = 0; i < LAYERS; i++)
        setting->layers[i] = (struct layer_strategy){.tensor_parallel = 1};
    rows.count = 0;
    add_model_rows(&rows, &setting->plan.model, (struct placement){ranks, threads});
    setting->profile = open_rows(&rows);
}

static void close_setting(struct setting *setting)
{
    prediction_clear(&setting->prediction);
    profile_close(setting->profile);
}

static void predict(struct setting *setting)
{
    struct error err;
    if (predict_plan(setting->profile, &setting->plan, &setting->prediction, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void test_predict__time_by_hand(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, 2);
    predict(&setting);
    const struct prediction *p = &setting.prediction;
    /* kinds: embedding 1, attention 2, mlp 3, twice, head 4: 15 units of 1 ms a sequence */
    double forward_s = 3 * 4 * 0.001 * 15;
    assert_true(near(p->phase_time_s[PHASE_FORWARD].value, forward_s));
    assert_true(near(p->phase_time_s[PHASE_BACKWARD].value, 2 * forward_s));
    assert_true(near(p->phase_time_s[PHASE_OPTIMIZER].value, 6 * 0.01));
    assert_true(near(p->phase_time_s[PHASE_OTHER].value, 0.005));
    assert_true(p->phase_time_s[PHASE_GRAD_REDUCE].value == 0);
    assert_true(near(p->time_s.value, 3 * forward_s + 0.065));
    assert_true(near(p->energy_j.value, 30 * forward_s + 6 * 0.1 + 50 * 0.005));
    close_setting(&setting);
}

static void test_predict__energy_counts_all_ranks(void **state)
{
    (void)state;
    struct setting one, two;
    open_setting(&one, 1, 1);
    open_setting(&two, 2, 1);
    predict(&one);
    predict(&two);
    for (int phase = PHASE_FORWARD; phase <= PHASE_BACKWARD; phase++)
        assert_true(near(two.prediction.phase_energy_j[phase].value,
                         2 * one.prediction.phase_energy_j[phase].value));
    assert_true(near(two.prediction.phase_energy_j[PHASE_GRAD_REDUCE].value,
                     50 * two.prediction.phase_time_s[PHASE_GRAD_REDUCE].value));
    assert_true(two.prediction.phase_time_s[PHASE_GRAD_REDUCE].value > 0);
    close_setting(&one);
    close_setting(&two);
}

/* The list in ir/footprint.h once more, by hand. */
static uint64_t pages(uint64_t bytes)
{
    return (bytes + 4095) / 4096 * 4096;
}

static uint64_t layout_by_hand(const struct plan *plan)
{
    struct micro_batch_shape shape = {plan->micro_batch, plan->model.seq_length, plan->threads};
    uint64_t count = 0, activations = 0, scratch = 0, boundary = 4ull * 48 * 4 * 24;
    bool bf16 = false;
    for (size_t i = 0; i < plan->layer_count; i++) {
        enum layer_kind kind = model_layer(&plan->model, i).kind;
        struct layer_precision_mode mode = {plan->layers[i].precision, plan->layers[i].recompute};
        struct buffer_spec buffers[LAYER_BUFFERS_MAX];
        size_t buffer_count = layer_buffers(&plan->model, kind, mode, &shape, buffers);
        uint64_t saved = 0, used = 0;
        for (size_t b = 0; b < buffer_count; b++)
            *(buffers[b].life == BUFFER_SAVED ? &saved : &used) += buffers[b].bytes;
        activations += pages(saved) + (i > 0 ? pages(boundary) : 0);
        scratch = pages(used) > scratch ? pages(used) : scratch;
        count += layer_flat_count(&plan->model, kind);
        bf16 = bf16 || mode.precision == PRECISION_BF16;
    }
    activations += pages(boundary) + 2 * pages(4ull * 4 * 24);
    return 4 * pages(4 * count) + (bf16 ? pages(2 * count) : 0) + activations + scratch;
}

static void test_predict__memory_is_the_layout_and_the_process(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 2, 1);
    for (int round = 0; round < 4; round++) {
        setting.layers[1].recompute = round & 1 ? RECOMPUTE_FULL : RECOMPUTE_SELECTIVE;
        setting.layers[2].recompute = round & 1 ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        setting.layers[5].precision = round & 2 ? PRECISION_BF16 : PRECISION_FP32;
        predict(&setting);
        const struct prediction *p = &setting.prediction;
        struct footprint footprint;
        plan_footprint(&setting.plan, &footprint);
        assert_int_equal(footprint_total_bytes(&footprint), layout_by_hand(&setting.plan));
        assert_true(p->memory_bytes.value == (double)footprint_total_bytes(&footprint) + 1e6);
        assert_true(p->memory_bytes.deviation == 1e4);
        assert_true(
            near(memory_quantile_bytes(p->memory_bytes), p->memory_bytes.value + 1.645 * 1e4));
        assert_true(p->memory_term_bytes[MEMORY_PROCESS].value == 1e6);
    }
    close_setting(&setting);
}

static void test_predict__sums_hold_exactly(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 2, 1);
    setting.layers[3].precision = PRECISION_BF16;
    setting.layers[4].recompute = RECOMPUTE_FULL;
    predict(&setting);
    const struct prediction *p = &setting.prediction;
    double time_s = 0, energy_j = 0, bytes = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        double layers_s = 0, layers_j = 0;
        for (size_t i = 0; i < LAYERS; i++) {
            layers_s += p->layers[i].time_s[phase].value;
            layers_j += p->layers[i].energy_j[phase].value;
        }
        if (phase != PHASE_OTHER) {
            assert_true(layers_s == p->phase_time_s[phase].value);
            assert_true(layers_j == p->phase_energy_j[phase].value);
        }
        time_s += p->phase_time_s[phase].value;
        energy_j += p->phase_energy_j[phase].value;
    }
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        bytes += p->memory_term_bytes[term].value;
    assert_true(time_s == p->time_s.value);
    assert_true(energy_j == p->energy_j.value);
    assert_true(bytes == p->memory_bytes.value);
    close_setting(&setting);
}

static void test_predict__bf16_anywhere_writes_copies_everywhere(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, 1);
    predict(&setting);
    uint64_t before = setting.prediction.layers[0].static_bytes;
    setting.layers[5].precision = PRECISION_BF16;
    predict(&setting);
    const struct prediction *p = &setting.prediction;
    assert_true(near(p->phase_time_s[PHASE_OPTIMIZER].value, 6 * 0.02));
    uint64_t count = layer_flat_count(&setting.plan.model, LAYER_EMBEDDING);
    assert_int_equal(p->layers[0].static_bytes - before, 2 * count);
    close_setting(&setting);
}

static void test_predict__failure_leaves_the_output(void **state)
{
    (void)state;
    struct setting setting;
    struct error err;
    open_setting(&setting, 1, 1);
    predict(&setting);
    double before_s = setting.prediction.time_s.value;
    setting.plan.threads = 9;
    assert_int_equal(predict_plan(setting.profile, &setting.plan, &setting.prediction, &err),
                     STATUS_INVALID);
    assert_true(setting.prediction.time_s.value == before_s);
    assert_non_null(setting.prediction.layers);
    close_setting(&setting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predict__time_by_hand),
        cmocka_unit_test(test_predict__energy_counts_all_ranks),
        cmocka_unit_test(test_predict__memory_is_the_layout_and_the_process),
        cmocka_unit_test(test_predict__sums_hold_exactly),
        cmocka_unit_test(test_predict__bf16_anywhere_writes_copies_everywhere),
        cmocka_unit_test(test_predict__failure_leaves_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
