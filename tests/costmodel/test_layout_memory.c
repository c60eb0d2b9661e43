/* Against counts by hand of models of round sizes, and against published measurements. */
#include "costmodel/layer_bytes.h"
#include "costmodel/layout_memory.h"
#include "ir/run_case.h"
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* A block: 64 (2 x 64 + 2 x 32 + 3 x 128) = 36864 in matrices and 128 in norms. */
enum { BLOCK_MATRICES = 36864, BLOCK = BLOCK_MATRICES + 128, TABLE = 256 * 64, FINAL_NORM = 64 };
enum { TOKENS = 32, STREAM = TOKENS * 64 };

static const struct model small = {
    .name = "small",
    .family = MODEL_LLAMA,
    .blocks = 4,
    .hidden = 64,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .ffn = 128,
    .vocab = 256,
    .positions = 32,
    .seq_length = 32,
    .norm_epsilon = 1e-5,
    .rope_theta = 1e4,
};

static struct cluster cluster_for(int64_t devices)
{
    struct cluster cluster;
    assert_true(cluster_of_device("A100-80GB", devices, &cluster));
    return cluster;
}

static struct layout_prediction predict(const struct model *model, const struct layout *layout)
{
    struct cluster cluster = cluster_for(layout->devices);
    struct layout_prediction out = {0};
    struct error err;
    if (layout_check(layout, model, "test", &err) != STATUS_OK ||
        layout_memory(&cluster, model, layout, &out, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return out;
}

static double term(const struct layout_prediction *prediction, enum memory_term which)
{
    return prediction->memory_term_bytes[which].value;
}

/* ---- state ---- */

static void test_layout_memory__state_is_that_of_the_framework(void **state)
{
    (void)state;
    const double whole = 4.0 * BLOCK + 2 * TABLE + FINAL_NORM;
    const struct {
        enum framework framework;
        enum arithmetic arithmetic;
        int zero_stage;
        double parameters, gradients, optimizer; /* bytes each, of four replicas */
    } cases[] = {
        {FRAMEWORK_MEGATRON, ARITHMETIC_BF16, 0, 2, 4, 12},
        {FRAMEWORK_MEGATRON, ARITHMETIC_BF16, 1, 2, 4, 3},
        {FRAMEWORK_MEGATRON, ARITHMETIC_FP32, 0, 4, 4, 8},
        {FRAMEWORK_DEEPSPEED, ARITHMETIC_FP16, 1, 2, 2, 3},
        {FRAMEWORK_DEEPSPEED, ARITHMETIC_FP16, 2, 2, 0.5, 3},
        {FRAMEWORK_DEEPSPEED, ARITHMETIC_FP16, 3, 0.5, 0.5, 3},
        {FRAMEWORK_DEEPSPEED, ARITHMETIC_BF16, 1, 2, 6, 3},
        {FRAMEWORK_FSDP, ARITHMETIC_BF16, 3, 1, 1, 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct layout layout = one_device(1);
        layout.framework = cases[i].framework;
        layout.arithmetic = cases[i].arithmetic;
        layout.zero_stage = cases[i].zero_stage;
        layout.devices = layout.data = 4;
        layout.shard = layout.zero_stage > 0 ? 4 : 1;
        struct layout_prediction out = predict(&small, &layout);
        check_near(term(&out, MEMORY_PARAMETERS), cases[i].parameters * whole, "parameters");
        check_near(term(&out, MEMORY_GRADIENTS), cases[i].gradients * whole, "gradients");
        check_near(term(&out, MEMORY_OPTIMIZER), cases[i].optimizer * whole, "optimizer");
    }
}

/* Two ways: half of each matrix, all of each norm; 300 rows padded to 512. */
static void test_layout_memory__tensor_parallel_halves_matrices_and_pads_the_table(void **state)
{
    (void)state;
    struct model model = small;
    model.vocab = 300;
    struct layout layout = one_device(1);
    layout.devices = layout.tensor = 2;
    struct layout_prediction out = predict(&model, &layout);
    double count = 4.0 * (BLOCK_MATRICES / 2.0 + 128) + 2 * 256.0 * 64 + FINAL_NORM;
    check_near(term(&out, MEMORY_PARAMETERS), 2 * count, "parameters");
}

/* ---- activations ---- */

static double kept(const struct model *model, const struct layout *layout)
{
    struct cluster cluster = cluster_for(layout->devices);
    struct layout_share share = layout_share(&cluster.groups[0], model, layout);
    const struct block_kind kind = {.mode = layout_block_mode(layout, 0)};
    return block_bytes(&share, &kind).kept;
}

static void test_layout_memory__one_device_by_hand(void **state)
{
    (void)state;
    struct layout layout = one_device(1);
    struct layout_prediction out = predict(&small, &layout);
    double norms = 2 * (2.0 + 2) * STREAM + 2 * 4.0 * TOKENS;
    double attention = 2.0 * TOKENS * (64 + 2 * 32) + 2 * STREAM + 4.0 * TOKENS * 4;
    double mlp = 2 * 3.0 * TOKENS * 128;
    double block = norms + attention + mlp;
    check_near(kept(&small, &layout), block, "a block");
    check_near(term(&out, MEMORY_ACTIVATIONS), 4 * block + 2 * 2.0 * STREAM, "activations");
    /* the gradients of logits, table and stream are more than the loss's 6 bytes a logit */
    double head = 2.0 * (TOKENS * 256 + TABLE + STREAM);
    assert_true(head > 6.0 * TOKENS * 256);
    double fixed = 3 * 32.0 * 1048576 + 2.0 * BLOCK_MATRICES;
    check_near(term(&out, MEMORY_SCRATCH), head + fixed, "scratch");
    check_near(term(&out, MEMORY_PROCESS), 1.3e9, "process");
    double sum = 0;
    for (int i = 0; i < MEMORY_TERM_COUNT; i++)
        sum += out.memory_term_bytes[i].value;
    check_near(out.memory_bytes.value, sum, "the sum");
}

/* GPT of 22B parameters: s b h (34 + 5 a s / h) bytes, Korthikanti et al. 2022, equation 1; divided
 * by t with sequence parallelism (4), 34 / t with selective recomputation (6), 2 / t with full.
 * They leave out the norms' means and deviations. */
static void test_layout_memory__blocks_keep_what_korthikanti_counts(void **state)
{
    (void)state;
    const struct model gpt = {.family = MODEL_GPT2,
                              .blocks = 48,
                              .hidden = 6144,
                              .heads = 64,
                              .kv_heads = 64,
                              .head_dim = 96,
                              .ffn = 24576,
                              .vocab = 51200,
                              .positions = 2048,
                              .seq_length = 2048,
                              .tied_head = true};
    struct layout layout = one_device(1);
    double sbh = 2048.0 * 4 * 6144, scores = 5.0 * 64 * 2048 / 6144,
           statistics = 2 * 8.0 * 2048 * 4;
    layout.micro_batch = 4;
    layout.fused_attention = false;
    check_near(kept(&gpt, &layout), sbh * (34 + scores) + statistics, "one device");
    layout.devices = layout.tensor = 8;
    check_near(kept(&gpt, &layout), sbh * (10 + 24 / 8.0 + scores / 8) + statistics, "tensor");
    layout.sequence_parallel = true;
    check_near(kept(&gpt, &layout), (sbh * (34 + scores) + statistics) / 8, "sequence");
    layout.recompute = RECOMPUTE_SELECTIVE;
    check_near(kept(&gpt, &layout), (sbh * 34 + statistics) / 8, "selective");
    layout.recompute = RECOMPUTE_FULL;
    check_near(kept(&gpt, &layout), sbh * 2 / 8, "full");
    struct cluster cluster = cluster_for(8);
    struct layout_share share = layout_share(&cluster.groups[0], &gpt, &layout);
    /* Qi et al. 2024, table 1 */
    check_near(late_weight_bytes(&share, false), sbh * 32 / 8, "gradients of weights");
}

/* ---- schedules ---- */

static double activations_of_stage(const struct layout *layout, size_t index)
{
    struct cluster cluster = cluster_for(layout->devices);
    struct layout_parts parts;
    const struct stage_list *list = &parts.stages;
    struct stage_bytes bytes;
    struct stage_memory memory;
    layout_parts_fill(&cluster, &small, layout, NULL, &parts);
    stage_bytes_fill(parts.layers[0], layout, list->kinds, list->kind_count, &bytes);
    stage_memory_fill(&bytes, &list->entries[index], &memory);
    return memory.terms[MEMORY_ACTIVATIONS];
}

/* Four stages of a block, eight micro-batches. Stage i of zb-h1 has 4 - i between their passes and
 * i whose gradients of weights are late; the two stages in the middle are one entry. */
static void test_layout_memory__of_gpipe_and_zero_bubble(void **state)
{
    (void)state;
    struct layout layout = one_device(1);
    layout.devices = layout.pipeline = 4;
    double block = kept(&small, &layout), head = 2 * 2.0 * STREAM;
    /* inputs: of qkv, output, up, down; gradients of their outputs */
    double late = 2.0 * (2 * STREAM + TOKENS * (64 + 2 * 32 + 64) + 2 * STREAM + TOKENS * 3 * 128);
    assert_true(late < block);
    check_near(activations_of_stage(&layout, 1), 3 * block, "1F1B");
    layout.schedule = SCHEDULE_GPIPE;
    check_near(activations_of_stage(&layout, 0), 8 * block, "gpipe, the first");
    check_near(activations_of_stage(&layout, 2), 8 * block + head, "gpipe, the last");
    layout.schedule = SCHEDULE_ZB_H1;
    check_near(activations_of_stage(&layout, 0), 4 * block, "zb-h1, the first");
    check_near(activations_of_stage(&layout, 1), 3 * block + late, "zb-h1, the second");
    check_near(activations_of_stage(&layout, 2), block + 3 * late + head, "zb-h1, the last");
    layout.recompute = RECOMPUTE_FULL; /* keeps less than what is late: of that one more, of this
                                          one less */
    check_near(activations_of_stage(&layout, 0), 3 * 2.0 * STREAM + late, "full, the first");
    check_near(activations_of_stage(&layout, 2), 4 * late + head, "full, the last");
    layout.global_batch = 2;
    check_near(activations_of_stage(&layout, 2), 2 * late + head, "full, two micro-batches");
}

/* ---- offload ---- */

/* Four blocks of one device: two pass through it, four wait on the host. */
static void test_layout_memory__offloaded_activations_leave_two_buffers(void **state)
{
    (void)state;
    struct layout layout = one_device(1);
    double block = kept(&small, &layout);
    layout.offload_activations = true;
    struct layout_prediction out = predict(&small, &layout);
    check_near(term(&out, MEMORY_ACTIVATIONS), 2 * block + 2 * 2.0 * STREAM, "on the device");
    check_near(out.host_bytes, 4 * block, "on the host");
    assert_true(layout_fits(&out));
    out.host_memory_bytes = 4 * block - 1;
    assert_false(layout_fits(&out));
}

static void test_layout_memory__the_host_keeps_the_optimizers_state(void **state)
{
    (void)state;
    const double whole = 4.0 * BLOCK + 2 * TABLE + FINAL_NORM;
    const struct {
        enum framework framework;
        int zero_stage;
        double parameters, gradients; /* bytes each, of four replicas */
    } cases[] = {
        {FRAMEWORK_MEGATRON, 1, 2, 4},
        {FRAMEWORK_DEEPSPEED, 2, 2, 0},
        {FRAMEWORK_DEEPSPEED, 3, 0.5, 0},
        {FRAMEWORK_FSDP, 3, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct layout layout = one_device(1);
        layout.framework = cases[i].framework;
        layout.zero_stage = cases[i].zero_stage;
        layout.devices = layout.data = layout.shard = 4;
        layout.offload_optimizer = true;
        struct layout_prediction out = predict(&small, &layout);
        check_near(term(&out, MEMORY_PARAMETERS) + 1, cases[i].parameters * whole + 1,
                   "parameters");
        check_near(term(&out, MEMORY_GRADIENTS) + 1, cases[i].gradients * whole + 1, "gradients");
        check_near(term(&out, MEMORY_OPTIMIZER) + 1, 1, "optimizer");
        check_near(out.host_bytes, 16 * whole / 4, "on the host");
    }
}

/* A stage has p micro-batches of L / p blocks in flight; 1 + (p - 1) / (p v) times as much where it
 * has v chunks (Narayanan et al. 2021); m where there are fewer. */
static void test_layout_memory__first_stage_has_most_in_flight(void **state)
{
    (void)state;
    struct layout layout = one_device(1);
    layout.recompute = RECOMPUTE_FULL;
    layout.devices = layout.pipeline = 2;
    double each = 2.0 * STREAM;
    struct layout_prediction out = predict(&small, &layout);
    check_near(term(&out, MEMORY_ACTIVATIONS), 2 * 2 * each, "1F1B");
    layout.schedule = SCHEDULE_INTERLEAVED;
    layout.virtual_stages = 2;
    out = predict(&small, &layout);
    check_near(term(&out, MEMORY_ACTIVATIONS), 4 * each * (1 + 1 / 4.0), "interleaved");
    layout.schedule = SCHEDULE_1F1B;
    layout.virtual_stages = 1;
    layout.framework = FRAMEWORK_DEEPSPEED; /* keeps the stage's output, too */
    out = predict(&small, &layout);
    check_near(term(&out, MEMORY_ACTIVATIONS), 2 * (2 + 1) * each, "DeepSpeed");
}

/* Six blocks on four stages: embedding, 2, 2, 2 + head would be uneven; as one block each of eight
 * they are 1, 2, 2, 1. The first stage's table is worth less than the second one's block here. */
static void test_layout_memory__tables_count_as_blocks_where_that_is_even(void **state)
{
    (void)state;
    struct model model = small;
    model.blocks = 6;
    model.tied_head = true;
    struct layout layout = one_device(1);
    layout.devices = layout.pipeline = 4;
    struct layout_prediction out = predict(&model, &layout);
    check_near(term(&out, MEMORY_PARAMETERS), 2 * (2.0 * BLOCK), "parameters of the second stage");
    model.vocab = 65536; /* a table of 114 blocks */
    out = predict(&model, &layout);
    check_near(term(&out, MEMORY_PARAMETERS), 2 * (BLOCK + 65536 * 64.0 + FINAL_NORM),
               "parameters of the last stage, which has the logits, too");
}

static void test_layout_memory__fits_with_a_margin(void **state)
{
    (void)state;
    const double memory = 80e9;
    struct layout_prediction out = {.memory_bytes = {.value = memory - 2e9, .deviation = 1e9},
                                    .device_bytes = memory};
    assert_true(layout_fits(&out));
    out.memory_bytes.value = memory - 1.5e9; /* 1.645 deviations are more than that */
    assert_false(layout_fits(&out));
}

/* ---- published measurements ---- */

struct held {
    size_t memory_rows, refused, missed;
    size_t missed_line;            /* of the last one */
    double error_sum, least, most; /* predicted / measured - 1 */
};

static void hold_row(const char *file, const struct run_case *row, struct held *held)
{
    struct layout_prediction prediction = {0};
    struct error err;
    if (layout_memory(&row->cluster, &row->model, &row->layout, &prediction, &err) != STATUS_OK)
        fail_msg("%s:%zu: %s", file, row->line, err.message);
    bool fits = layout_fits(&prediction);
    if (row->out_of_memory && fits) {
        held->missed++;
        held->missed_line = row->line;
    }
    if (!row->out_of_memory && !fits) {
        held->refused++;
        print_message("%s:%zu: %s: refused\n", file, row->line, row->name);
    }
    if (row->memory_bytes.provenance == PROVENANCE_ABSENT)
        return;
    double bytes = prediction.memory_bytes.value;
    if (row->memory_of_allocator)
        bytes -= term(&prediction, MEMORY_PROCESS);
    double error = bytes / row->memory_bytes.value - 1;
    held->memory_rows++;
    held->error_sum += fabs(error);
    held->least = fmin(held->least, error);
    held->most = fmax(held->most, error);
    if (getenv("TEST_SHOW") != NULL)
        print_message("%s:%zu: %s: %.2f GiB, measured %.2f, %+.1f %%\n", file, row->line, row->name,
                      bytes / 1073741824, row->memory_bytes.value / 1073741824, 100 * error);
}

/* False: the file is not there. TEST_SHOW=1 prints every row that measured memory. */
static bool hold(const char *file, struct held *out)
{
    char path[512];
    struct run_cases cases;
    struct error err;
    *out = (struct held){.least = INFINITY, .most = -INFINITY};
    (void)snprintf(path, sizeof(path), "%s/validation/%s.csv", TEMPER_SHARED_DIR, file);
    if (access(path, R_OK) != 0)
        return false;
    if (run_cases_load(&cases, path, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < cases.count; i++)
        if (cases.rows[i].skipped[0] == '\0')
            hold_row(file, &cases.rows[i], out);
    run_cases_free(&cases);
    return true;
}

/* The allocator's own count on the fullest rank: within 1 %, and never less. */
static void test_layout_memory__megatron_core_to_the_percent(void **state)
{
    (void)state;
    struct held held;
    if (!hold("simumax_b200", &held))
        skip();
    assert_int_equal(held.memory_rows, 12);
    if (!(held.least >= 0 && held.most <= 0.01))
        fail_msg("errors from %g to %g", held.least, held.most);
}

static void test_layout_memory__published_runs_within_5_percent(void **state)
{
    (void)state;
    static const char *const files[] = {"bigscience_a100", "torchtitan"};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct held held;
        if (!hold(files[i], &held))
            skip();
        assert_true(held.memory_rows >= 12);
        if (!(held.error_sum <= 0.05 * (double)held.memory_rows))
            fail_msg("%s: mean error %g", files[i], held.error_sum / (double)held.memory_rows);
    }
}

/* Nothing that ran is refused, and what ran out of memory is: but for one row, which should need as
 * much as its neighbours of 67 GB (docs/layout-memory.md). */
static void test_layout_memory__tells_what_fits(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        size_t missed, missed_line;
    } files[] = {{"bigscience_a100", 1, 151}, {"korthikanti_tab5", 0, 0}, {"dgxc", 0, 0},
                 {"vtrain_single", 0, 0},     {"llm_foundry", 0, 0},      {"torchtitan", 0, 0},
                 {"simumax_b200", 0, 0}};
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        struct held held;
        if (!hold(files[i].file, &held))
            skip();
        assert_int_equal(held.refused, 0);
        assert_int_equal(held.missed, files[i].missed);
        assert_int_equal(held.missed_line, files[i].missed_line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_memory__state_is_that_of_the_framework),
        cmocka_unit_test(test_layout_memory__tensor_parallel_halves_matrices_and_pads_the_table),
        cmocka_unit_test(test_layout_memory__one_device_by_hand),
        cmocka_unit_test(test_layout_memory__blocks_keep_what_korthikanti_counts),
        cmocka_unit_test(test_layout_memory__of_gpipe_and_zero_bubble),
        cmocka_unit_test(test_layout_memory__offloaded_activations_leave_two_buffers),
        cmocka_unit_test(test_layout_memory__the_host_keeps_the_optimizers_state),
        cmocka_unit_test(test_layout_memory__first_stage_has_most_in_flight),
        cmocka_unit_test(test_layout_memory__tables_count_as_blocks_where_that_is_even),
        cmocka_unit_test(test_layout_memory__fits_with_a_margin),
        cmocka_unit_test(test_layout_memory__megatron_core_to_the_percent),
        cmocka_unit_test(test_layout_memory__published_runs_within_5_percent),
        cmocka_unit_test(test_layout_memory__tells_what_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
