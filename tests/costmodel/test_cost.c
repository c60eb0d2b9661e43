#include "costmodel/cost.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include "rows.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { EMBEDDING = 0, ATTENTION = 1, MLP = 2, HEAD = LAYERS - 1 };

/* Elements of the small model, by hand: matrices and vectors of a whole layer and of half of one.
 */
enum {
    ATTENTION_MATRICES = 48 * 144 + 48 * 48, /* qkv, out */
    ATTENTION_VECTORS = 2 * 48 + 144 + 48,   /* norm, biases */
    MLP_MATRICES = 2 * 48 * 192,
    MLP_VECTORS = 2 * 48 + 192 + 48,
    TABLE = 101 * 48,    /* the embedding's only matrix: positions are kept with the vectors */
    TABLE_PADDED = 4864, /* to two blocks of a multiple of 16 */
    HALF_TABLE = 51 * 48,
    HALF_TABLE_PADDED = 2464,
    POSITIONS = 24 * 48,
    HEAD_VECTORS = 2 * 48,
    STREAM_BYTES = 4 * 24 * 48 * 4 /* 4 sequences of 24 tokens */
};

static struct layer_cost cost_of(const struct setting *setting, size_t layer)
{
    struct layer_cost cost;
    struct error err;
    check_plan(setting);
    if (cost_layer(setting->profile, &setting->plan, layer, &cost, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return cost;
}

static void expect_s(const struct layer_cost *cost, enum cost_pass pass, enum phase phase,
                     double seconds)
{
    struct quantity found = cost->time_s[pass][phase];
    if (!near(found.value, seconds))
        fail_msg("pass %d, %s: %.12g s, expected %.12g s", (int)pass, phase_name(phase),
                 found.value, seconds);
}

static double all_reduce(int ways, int apart, double bytes)
{
    return link_s(COLLECTIVE_ALL_REDUCE, ways, apart, bytes);
}

static double all_gather(int ways, int apart, double bytes)
{
    return link_s(COLLECTIVE_ALL_GATHER, ways, apart, bytes);
}

static double scatter(int ways, int apart, double bytes)
{
    return link_s(COLLECTIVE_REDUCE_SCATTER, ways, apart, bytes);
}

/* ---- compute ---- */

static void test_cost__compute_is_what_was_measured(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    setting.layers[MLP].precision = PRECISION_BF16;
    setting.layers[MLP].recompute = RECOMPUTE_FULL;
    setting.plan.micro_batch = 2;
    setting.plan.micro_batches = 6;
    struct layer_cost cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_FORWARD, PHASE_FORWARD, 0.001 * 3 * 2);
    expect_s(&cost, COST_BACKWARD, PHASE_BACKWARD, 0.002 * 3 * 2);
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.02);
    assert_int_equal(cost.time_s[COST_FORWARD][PHASE_FORWARD].provenance, PROVENANCE_INTERPOLATED);
    assert_true(near(cost.energy_j[COST_BACKWARD][PHASE_BACKWARD].value, 0.02 * 3 * 2));
    assert_true(near(cost.energy_j[COST_STEP][PHASE_OPTIMIZER].value, 0.2));
    setting.plan.micro_batch = 4;
    setting.plan.micro_batches = 3;
    setting.layers[MLP].precision = PRECISION_FP32;
    cost = cost_of(&setting, MLP);
    assert_int_equal(cost.time_s[COST_FORWARD][PHASE_FORWARD].provenance, PROVENANCE_MEASURED);
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.01);
    close_setting(&setting);
}

/* A group of two ranks works on both their sequences; a narrower layer's groups on a share. */
static void test_cost__a_group_computes_its_sequences(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.tensor = 4});
    setting.layers[ATTENTION].tensor_parallel = 2;
    setting.layers[MLP].tensor_parallel = 1;
    struct layer_cost cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_FORWARD, PHASE_FORWARD, 0.001 * 2 / 2 * 2);
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_FORWARD, PHASE_FORWARD, 0.001 * 3 * 1);
    cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_FORWARD, PHASE_FORWARD, 0.001 * 4 / 4 * 4);
    close_setting(&setting);
}

static void test_cost__16_bit_updates_stand_for_each_other(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 1});
    setting.layers[MLP].precision = PRECISION_FP16;
    struct layer_cost cost = cost_of(&setting, MLP);
    assert_int_equal(cost.time_s[COST_STEP][PHASE_OPTIMIZER].provenance, PROVENANCE_MEASURED);
    drop_precision(&setting, METRIC_OPTIMIZER_S, PRECISION_FP16);
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.02);
    assert_int_equal(cost.time_s[COST_STEP][PHASE_OPTIMIZER].provenance, PROVENANCE_INTERPOLATED);
    close_setting(&setting);
}

/* ---- gradients and ZeRO ---- */

static void test_cost__zero_0_reduces_once_a_step(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    struct layer_cost cost = cost_of(&setting, MLP);
    double whole_s = all_reduce(2, 1, 4 * MLP_MATRICES) + all_reduce(2, 1, 4 * MLP_VECTORS);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE, 0.25 * whole_s);
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE, 0);
    expect_s(&cost, COST_STEP, PHASE_PARAM_GATHER, 0);
    assert_true(near(cost.energy_j[COST_STEP][PHASE_GRAD_REDUCE].value, 50 * 0.25 * whole_s / 2));
    assert_int_equal(cost.parameter_bytes, footprint_region_bytes(4 * MLP_MATRICES) +
                                               footprint_region_bytes(4 * MLP_VECTORS));
    close_setting(&setting);
}

static void test_cost__zero_1_scatters_and_gathers_once(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    setting.layers[ATTENTION].zero_stage = 1;
    struct layer_cost cost = cost_of(&setting, ATTENTION);
    double vectors_s = all_reduce(2, 1, 4 * ATTENTION_VECTORS);
    double share =
        (ATTENTION_MATRICES / 2.0 + ATTENTION_VECTORS) / (ATTENTION_MATRICES + ATTENTION_VECTORS);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             0.25 * (scatter(2, 1, 4 * ATTENTION_MATRICES) + vectors_s));
    expect_s(&cost, COST_STEP, PHASE_PARAM_GATHER, 0.25 * all_gather(2, 1, 4 * ATTENTION_MATRICES));
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.01 * share);
    assert_true(near(cost.energy_j[COST_STEP][PHASE_OPTIMIZER].value, 0.1 * share));
    setting.layers[ATTENTION].precision = PRECISION_BF16; /* whose copy is gathered */
    cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_STEP, PHASE_PARAM_GATHER, 0.25 * all_gather(2, 1, 2 * ATTENTION_MATRICES));
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.02 * share);
    close_setting(&setting);
}

/* 12 bytes an element to add to the shard what was scattered; the update of 32 bytes an element is
 * the measure. */
static double add_to_shard_s(double elements, double whole)
{
    return 0.01 * 12 * elements / (32 * whole);
}

/* In bf16 half the bytes travel, but for the vectors', and the update reads half of the gradients:
 * 30 bytes of 34. */
static void test_cost__bf16_gradients_move_half(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 4});
    setting.plan.gradient_reduction = GRADIENTS_BF16;
    setting.layers[MLP].precision = PRECISION_BF16;
    struct layer_cost cost = cost_of(&setting, MLP);
    double vectors_s = 0.25 * all_reduce(4, 1, 4 * MLP_VECTORS);
    double update_share =
        (30.0 * MLP_MATRICES + 32.0 * MLP_VECTORS) / (34.0 * MLP_MATRICES + 32.0 * MLP_VECTORS);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             0.25 * all_reduce(4, 1, 2 * MLP_MATRICES) + vectors_s);
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.02 * update_share);
    assert_int_equal(cost.gradient_bytes, footprint_region_bytes(2 * MLP_MATRICES) +
                                              footprint_region_bytes(4 * MLP_VECTORS));
    setting.layers[MLP].zero_stage = 2;
    cost = cost_of(&setting, MLP);
    /* 6 bytes an element of an update that takes 0.02: as 12 of one that takes 0.01 */
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE,
             add_to_shard_s(MLP_MATRICES / 4.0, MLP_MATRICES + MLP_VECTORS) +
                 0.25 * scatter(4, 1, 2 * MLP_MATRICES));
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE, vectors_s);

    /* other precisions know nothing of it */
    setting.layers[MLP].zero_stage = 0;
    setting.layers[MLP].precision = PRECISION_FP32;
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             0.25 * all_reduce(4, 1, 4 * MLP_MATRICES) + vectors_s);
    expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.01);
    close_setting(&setting);
}

static void test_cost__zero_2_scatters_every_micro_batch(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 4});
    setting.layers[MLP].zero_stage = 2;
    struct layer_cost cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE,
             add_to_shard_s(MLP_MATRICES / 4.0, MLP_MATRICES + MLP_VECTORS) +
                 0.25 * scatter(4, 1, 4 * MLP_MATRICES));
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE, 0.25 * all_reduce(4, 1, 4 * MLP_VECTORS));
    expect_s(&cost, COST_STEP, PHASE_PARAM_GATHER, 0.25 * all_gather(4, 1, 4 * MLP_MATRICES));
    expect_s(&cost, COST_FORWARD, PHASE_PARAM_GATHER, 0);
    close_setting(&setting);
}

static void test_cost__zero_3_gathers_for_each_use(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 4});
    setting.layers[MLP].zero_stage = 3;
    setting.layers[MLP].precision = PRECISION_FP16;
    struct layer_cost cost = cost_of(&setting, MLP);
    double own_share_s = 0.02 * 4 * (MLP_MATRICES / 4.0) / (32.0 * (MLP_MATRICES + MLP_VECTORS));
    double use_s = own_share_s + 0.25 * all_gather(4, 1, 2 * MLP_MATRICES);
    expect_s(&cost, COST_FORWARD, PHASE_PARAM_GATHER, use_s);
    expect_s(&cost, COST_BACKWARD, PHASE_PARAM_GATHER, use_s);
    expect_s(&cost, COST_STEP, PHASE_PARAM_GATHER, 0);
    close_setting(&setting);
}

/* Nothing is left to hide the embedding's gradients; what has no ring is waited for. */
static void test_cost__embedding_is_wholly_exposed(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2, .untied = true});
    struct layer_cost cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             all_reduce(2, 1, 4 * TABLE) + all_reduce(2, 1, 4 * POSITIONS));
    setting.layers[EMBEDDING].zero_stage = 3;
    cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE,
             add_to_shard_s(TABLE_PADDED / 2.0, TABLE_PADDED + POSITIONS) +
                 scatter(2, 1, 4 * TABLE_PADDED));
    expect_s(&cost, COST_FORWARD, PHASE_PARAM_GATHER,
             0.01 * 8 * (TABLE_PADDED / 2.0) / (32.0 * (TABLE_PADDED + POSITIONS)) +
                 all_gather(2, 1, 4 * TABLE_PADDED));
    close_setting(&setting);
}

static void test_cost__one_replica_exchanges_no_gradients(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 1});
    for (int zero = 0; zero < 2; zero++) {
        setting.layers[MLP].zero_stage = zero;
        struct layer_cost cost = cost_of(&setting, MLP);
        for (int pass = 0; pass < COST_PASS_COUNT; pass++) {
            expect_s(&cost, (enum cost_pass)pass, PHASE_GRAD_REDUCE, 0);
            expect_s(&cost, (enum cost_pass)pass, PHASE_PARAM_GATHER, 0);
            assert_int_equal(cost.energy_j[pass][PHASE_GRAD_REDUCE].provenance,
                             PROVENANCE_MEASURED);
        }
        expect_s(&cost, COST_STEP, PHASE_OPTIMIZER, 0.01);
    }
    close_setting(&setting);
}

static void test_cost__zero_never_holds_more(void **state)
{
    (void)state;
    for (int data = 2; data <= 4; data += 2) {
        for (int p = 0; p < PRECISION_COUNT; p++) {
            struct setting setting;
            open_setting(&setting, (struct degrees){.data = data});
            uint64_t before = UINT64_MAX;
            double optimizer_s = INFINITY;
            for (int zero = 0; zero <= 3; zero++) {
                setting.layers[MLP].zero_stage = zero;
                setting.layers[MLP].precision = (enum precision)p;
                struct layer_cost cost = cost_of(&setting, MLP);
                struct layer_price price = layer_cost_price(&setting.plan, &cost);
                assert_true(price.static_bytes <= before);
                assert_true(cost.time_s[COST_STEP][PHASE_OPTIMIZER].value <= optimizer_s);
                before = price.static_bytes;
                optimizer_s = cost.time_s[COST_STEP][PHASE_OPTIMIZER].value;
            }
            close_setting(&setting);
        }
    }
}

/* Compute slowed by messages in the background costs more than the messages alone. */
static void test_cost__overlap_may_be_negative_or_unknown(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    double whole_s = all_reduce(2, 1, 4 * MLP_MATRICES) + all_reduce(2, 1, 4 * MLP_VECTORS);
    set_value(&setting, METRIC_OVERLAP, -0.5);
    struct layer_cost cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE, 1.5 * whole_s);
    drop_rows(&setting, METRIC_OVERLAP, NULL);
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE, whole_s);
    assert_int_equal(cost.time_s[COST_STEP][PHASE_GRAD_REDUCE].provenance, PROVENANCE_MODELLED);
    close_setting(&setting);
}

/* ---- tensor and sequence parallel ---- */

static void test_cost__tensor_parallel_sums_once_each_way(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.tensor = 2});
    double stream_s = all_reduce(2, 1, STREAM_BYTES);
    for (size_t layer = ATTENTION; layer <= MLP; layer++) {
        for (int full = 0; full < 2; full++) {
            setting.layers[layer].recompute = full ? RECOMPUTE_FULL : RECOMPUTE_NONE;
            struct layer_cost cost = cost_of(&setting, layer);
            expect_s(&cost, COST_FORWARD, PHASE_TENSOR, stream_s);
            expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, stream_s);
            expect_s(&cost, COST_STEP, PHASE_TENSOR, 0);
            assert_true(near(cost.energy_j[COST_FORWARD][PHASE_TENSOR].value, 50 * stream_s / 2));
        }
    }
    struct layer_cost cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, stream_s);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, 0);
    cost = cost_of(&setting, HEAD); /* 96 tokens: a maximum and two sums each */
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, 0);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR,
             all_reduce(2, 1, 4 * 96) + all_reduce(2, 1, 8 * 96) + stream_s);
    close_setting(&setting);
}

/* Each chunk of tokens has its maxima and sums. These are too many for one: of half the vocabulary
 * a row has 51 logits. */
static void test_cost__head_exchanges_chunk_after_chunk(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.tensor = 2});
    const struct model *model = &setting.plan.model;
    setting.plan.micro_batch = HEAD_CHUNK_BYTES / (4 * 51 * model->seq_length) + 1;
    setting.plan.global_batch = setting.plan.micro_batch * setting.plan.micro_batches;
    struct layer_part part = mesh_part(&setting.plan, HEAD, 0);
    struct micro_batch_shape shape = mesh_shape(&setting.plan, HEAD);
    double chunk = (double)head_chunk_tokens(model, &part, &shape);
    double tokens = (double)(shape.sequences * shape.seq_length);
    assert_true(chunk < tokens && 2 * chunk >= tokens);
    struct layer_cost cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR,
             2 * all_reduce(2, 1, 4 * chunk) + 2 * all_reduce(2, 1, 8 * chunk) +
                 all_reduce(2, 1, 4 * tokens * (double)model->hidden));
    close_setting(&setting);
}

static void test_cost__sequence_parallel_gathers_and_scatters(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.tensor = 2});
    for (size_t i = 0; i < LAYERS; i++)
        setting.layers[i].sequence_parallel = true;
    setting.layers[MLP].precision = PRECISION_BF16;
    double gather_s = all_gather(2, 1, STREAM_BYTES), scatter_s = scatter(2, 1, STREAM_BYTES);
    double gather_16_s = all_gather(2, 1, STREAM_BYTES / 2.0);
    double norms_s = all_reduce(2, 1, 4 * 2 * 48);
    struct layer_cost cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, gather_s + scatter_s);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, 2 * gather_s + scatter_s);
    expect_s(&cost, COST_STEP, PHASE_TENSOR, norms_s);
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, gather_16_s + scatter_s);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, gather_16_s + gather_s + scatter_s);
    cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, scatter_s);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, gather_s);
    expect_s(&cost, COST_STEP, PHASE_TENSOR, 0);
    cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, 0);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR,
             gather_s + all_reduce(2, 1, 4 * 96) + all_reduce(2, 1, 8 * 96) + scatter_s);
    close_setting(&setting);
}

/* Exchanges timed in layers at work replace what links add up to; both directions, or neither. */
static void test_cost__measured_exchanges_come_before_links(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.tensor = 2});
    for (size_t i = 0; i < LAYERS; i++)
        setting.layers[i].sequence_parallel = true;
    double gather_s = all_gather(2, 1, STREAM_BYTES), scatter_s = scatter(2, 1, STREAM_BYTES);
    add_layer_value(&setting, ATTENTION, METRIC_FORWARD_TENSOR_S, 0.25);
    struct layer_cost cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, gather_s + scatter_s);
    add_layer_value(&setting, ATTENTION, METRIC_BACKWARD_TENSOR_S, 0.5);
    cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, 0.25);
    expect_s(&cost, COST_BACKWARD, PHASE_TENSOR, 0.5);
    expect_s(&cost, COST_STEP, PHASE_TENSOR, all_reduce(2, 1, 4 * 2 * 48));
    assert_true(near(cost.energy_j[COST_BACKWARD][PHASE_TENSOR].value, 50 * 0.5 / 2));
    setting.layers[ATTENTION].sequence_parallel = false; /* another part */
    cost = cost_of(&setting, ATTENTION);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, all_reduce(2, 1, STREAM_BYTES));
    cost = cost_of(&setting, MLP);
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, gather_s + scatter_s);
    close_setting(&setting);
}

/* Replicas of a part are its degree apart. */
static void test_cost__replicas_stand_apart_by_the_degree(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2, .tensor = 4});
    setting.layers[MLP].tensor_parallel = 2;
    struct layer_cost cost = cost_of(&setting, MLP);
    double vectors = 2 * 48 + 192 / 2 + 48;
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             0.25 * (all_reduce(4, 2, 4 * MLP_MATRICES / 2.0) + all_reduce(4, 2, 4 * vectors)));
    expect_s(&cost, COST_FORWARD, PHASE_TENSOR, all_reduce(2, 1, STREAM_BYTES / 2.0));
    close_setting(&setting);
}

/* ---- the tied table ---- */

static void test_cost__table_copy_is_charged_to_the_head(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    struct layer_cost embedding = cost_of(&setting, EMBEDDING), head = cost_of(&setting, HEAD);
    setting.layers[HEAD].precision = PRECISION_BF16;
    struct layer_cost embedding_16 = cost_of(&setting, EMBEDDING);
    struct layer_cost head_16 = cost_of(&setting, HEAD);
    assert_int_equal(embedding_16.parameter_bytes, embedding.parameter_bytes);
    assert_int_equal(head_16.parameter_bytes - head.parameter_bytes,
                     footprint_region_bytes(2 * TABLE));
    /* its own update, and 6 bytes of each of the table's elements */
    expect_s(&head_16, COST_STEP, PHASE_OPTIMIZER,
             0.02 + 0.01 * 6 * TABLE / (32.0 * (TABLE + POSITIONS)));
    expect_s(&embedding_16, COST_STEP, PHASE_OPTIMIZER, 0.01);
    close_setting(&setting);
}

/* Under ZeRO 3 the table is gathered for the head, too, whose work is all in its backward pass, and
 * under ZeRO 2 what the head adds to its gradient is scattered. */
static void test_cost__tied_head_moves_the_table_again(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2});
    double whole = TABLE_PADDED + POSITIONS;
    double scatter_s = add_to_shard_s(TABLE_PADDED / 2.0, whole) + scatter(2, 1, 4 * TABLE_PADDED);
    setting.layers[EMBEDDING].zero_stage = setting.layers[HEAD].zero_stage = 2;
    struct layer_cost cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE, scatter_s);
    expect_s(&cost, COST_FORWARD, PHASE_PARAM_GATHER, 0);
    setting.layers[EMBEDDING].zero_stage = setting.layers[HEAD].zero_stage = 3;
    cost = cost_of(&setting, HEAD);
    double gather_s =
        0.01 * 8 * (TABLE_PADDED / 2.0) / (32 * whole) + all_gather(2, 1, 4 * TABLE_PADDED);
    expect_s(&cost, COST_BACKWARD, PHASE_GRAD_REDUCE, scatter_s);
    expect_s(&cost, COST_FORWARD, PHASE_PARAM_GATHER, 0);
    expect_s(&cost, COST_BACKWARD, PHASE_PARAM_GATHER, gather_s);
    setting.layers[HEAD].precision = PRECISION_FP16;
    cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_BACKWARD, PHASE_PARAM_GATHER,
             gather_s + 0.01 * 6 * TABLE_PADDED / (32 * whole));
    close_setting(&setting);
}

static void test_cost__table_on_two_stages_is_reduced_over_both(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){
                               .data = 2, .tensor = 2, .pipeline = 2, .schedule = SCHEDULE_GPIPE});
    double reduce_s = all_reduce(2, 4, 4 * HALF_TABLE);
    struct layer_cost cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             all_reduce(2, 2, 4 * HALF_TABLE) + all_reduce(2, 2, 4 * POSITIONS) + reduce_s);
    cost = cost_of(&setting, HEAD);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             0.25 * (all_reduce(2, 2, 4 * HALF_TABLE) + all_reduce(2, 2, 4 * HEAD_VECTORS)) +
                 reduce_s);
    /* under ZeRO, of its shard */
    setting.layers[EMBEDDING].zero_stage = setting.layers[HEAD].zero_stage = 1;
    cost = cost_of(&setting, EMBEDDING);
    expect_s(&cost, COST_STEP, PHASE_GRAD_REDUCE,
             scatter(2, 2, 4 * HALF_TABLE_PADDED) + all_reduce(2, 2, 4 * POSITIONS) +
                 all_reduce(2, 4, 4 * HALF_TABLE_PADDED / 2.0));
    close_setting(&setting);
}

/* ---- between layers ---- */

static struct layer_strategy spread(int tensor_parallel, bool sequence_parallel)
{
    return (struct layer_strategy){.tensor_parallel = tensor_parallel,
                                   .sequence_parallel = sequence_parallel};
}

static void test_cost__resharding_gathers_where_it_grows(void **state)
{
    (void)state;
    struct setting setting;
    struct reshard_cost cost;
    struct error err;
    open_setting(&setting, (struct degrees){.tensor = 4});
    const struct {
        struct layer_strategy from, to;
        double forward_s, backward_s;
    } cases[] = {
        {spread(4, false), spread(4, false), 0, 0},
        {spread(4, true), spread(1, false), 0, 0},
        {spread(4, true), spread(2, true), 0, 0},
        {spread(1, false), spread(4, false), all_gather(4, 1, STREAM_BYTES), 0},
        {spread(2, false), spread(4, false), all_gather(4, 1, STREAM_BYTES), 0},
        {spread(2, true), spread(2, false), all_gather(2, 1, STREAM_BYTES / 2.0), 0},
        {spread(4, false), spread(2, false), 0, all_gather(4, 1, STREAM_BYTES)},
        {spread(2, false), spread(1, false), 0, all_gather(2, 1, STREAM_BYTES / 2.0)},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(
            cost_reshard(setting.profile, &setting.plan, &cases[i].from, &cases[i].to, &cost, &err),
            STATUS_OK);
        assert_true(near(cost.forward_s.value, cases[i].forward_s));
        assert_true(near(cost.backward_s.value, cases[i].backward_s));
        assert_true(near(cost.forward_j.value, 50 * cases[i].forward_s / 4));
        assert_true(near(cost.backward_j.value, 50 * cases[i].backward_s / 4));
    }
    close_setting(&setting);
}

static double message(int apart, double bytes)
{
    return link_s(COLLECTIVE_POINT_TO_POINT, 2, apart, bytes);
}

static void test_cost__the_narrower_spread_travels(void **state)
{
    (void)state;
    struct setting setting;
    struct handover_cost cost;
    struct error err;
    open_setting(&setting, (struct degrees){.tensor = 2,
                                            .pipeline = 3,
                                            .virtual_stages = 2,
                                            .schedule = SCHEDULE_INTERLEAVED});
    const struct {
        struct layer_strategy from, to;
        int virtual_stage, apart;
        double forward_bytes, backward_bytes;
    } cases[] = {
        {spread(2, false), spread(2, false), 0, 2, STREAM_BYTES, STREAM_BYTES},
        {spread(2, false), spread(2, true), 1, 2, STREAM_BYTES / 2.0, STREAM_BYTES / 2.0},
        {spread(1, false), spread(2, false), 0, 2, STREAM_BYTES / 2.0, STREAM_BYTES / 2.0},
        /* from the last stage back to the first */
        {spread(2, true), spread(1, false), 2, 4, STREAM_BYTES / 2.0, STREAM_BYTES / 2.0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(cost_handover(setting.profile, &setting.plan, cases[i].virtual_stage,
                                       &cases[i].from, &cases[i].to, &cost, &err),
                         STATUS_OK);
        assert_true(near(cost.forward_s.value, message(cases[i].apart, cases[i].forward_bytes)));
        assert_true(near(cost.backward_s.value, message(cases[i].apart, cases[i].backward_bytes)));
    }
    close_setting(&setting);
}

/* ---- what is missing ---- */

static void expect_missing(const struct setting *setting, size_t layer, const char *what)
{
    struct layer_cost cost;
    struct error err;
    assert_int_equal(cost_layer(setting->profile, &setting->plan, layer, &cost, &err),
                     STATUS_INVALID);
    if (!strstr(err.message, what) || !strstr(err.message, "temper profile --ranks 4"))
        fail_msg("'%s' does not name '%s'", err.message, what);
}

static void test_cost__names_what_is_missing(void **state)
{
    (void)state;
    struct setting setting;
    struct handover_cost handover;
    struct reshard_cost reshard;
    struct step_cost step;
    struct error err;
    open_setting(&setting, (struct degrees){.data = 2, .tensor = 2});
    setting.layers[ATTENTION].sequence_parallel = true;
    setting.layers[MLP].zero_stage = 2;
    drop_rows(&setting, METRIC_LINK_S, "all-gather/n2/x1");
    expect_missing(&setting, ATTENTION, "all-gather/n2/x1");
    drop_rows(&setting, METRIC_LINK_S, "reduce-scatter/n2/x2");
    expect_missing(&setting, MLP, "reduce-scatter/n2/x2");
    const struct layer_strategy one = spread(1, false), two = spread(2, false);
    assert_int_equal(cost_reshard(setting.profile, &setting.plan, &one, &two, &reshard, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "all-gather/n2/x1"));
    drop_rows(&setting, METRIC_BACKWARD_S, NULL);
    setting.layers[ATTENTION].precision = PRECISION_BF16;
    setting.layers[ATTENTION].recompute = RECOMPUTE_SELECTIVE;
    expect_missing(&setting, ATTENTION, "attention/gpt2/h48/a4/k4/d12/s24/tp2sp");
    expect_missing(&setting, ATTENTION, "in bf16, recompute selective");
    drop_rows(&setting, METRIC_STEP_OVERHEAD_S, NULL);
    assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "--ranks 4"));
    close_setting(&setting);

    open_setting(&setting, (struct degrees){.data = 2, .pipeline = 2});
    drop_rows(&setting, METRIC_LINK_S, "point-to-point/x2");
    assert_int_equal(cost_handover(setting.profile, &setting.plan, 0, &one, &one, &handover, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.message, "point-to-point/x2"));
    drop_rows(&setting, METRIC_LINK_S, "all-reduce/n2/x2");
    expect_missing(&setting, HEAD, "all-reduce/n2/x2");
    drop_rows(&setting, METRIC_OPTIMIZER_S, NULL);
    expect_missing(&setting, HEAD, "/own");
    close_setting(&setting);
}

static void test_cost__absent_energy_stays_absent(void **state)
{
    (void)state;
    struct setting setting;
    struct step_cost step;
    struct error err;
    open_setting(&setting, (struct degrees){.data = 2});
    drop_rows(&setting, METRIC_ACTIVE_W, NULL);
    struct layer_cost cost = cost_of(&setting, HEAD);
    assert_int_equal(cost.energy_j[COST_STEP][PHASE_GRAD_REDUCE].provenance, PROVENANCE_ABSENT);
    assert_int_equal(cost.energy_j[COST_FORWARD][PHASE_FORWARD].provenance, PROVENANCE_MEASURED);
    assert_true(isnan(layer_cost_price(&setting.plan, &cost).energy_j));
    assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_OK);
    assert_int_equal(step.other_j.provenance, PROVENANCE_ABSENT);
    assert_int_equal(step.active_watts.provenance, PROVENANCE_ABSENT);
    assert_true(step.idle_watts.value == 20);
    close_setting(&setting);
}

/* ---- prices and what is beside the layers ---- */

static void test_cost__price_adds_up(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, (struct degrees){.data = 2, .tensor = 2});
    setting.layers[ATTENTION].zero_stage = 1;
    setting.layers[ATTENTION].sequence_parallel = true;
    struct layer_cost cost = cost_of(&setting, ATTENTION);
    struct layer_price price = layer_cost_price(&setting.plan, &cost);
    double tau_s = 0.001 * 2 / 2 * 4 * 3 + cost.time_s[COST_FORWARD][PHASE_TENSOR].value +
                   cost.time_s[COST_BACKWARD][PHASE_TENSOR].value;
    assert_true(near(price.tau_s, tau_s));
    assert_true(near(price.gamma_s, cost.time_s[COST_STEP][PHASE_GRAD_REDUCE].value +
                                        all_reduce(2, 1, 4 * 2 * 48)));
    assert_true(near(price.update_s, cost.time_s[COST_STEP][PHASE_OPTIMIZER].value +
                                         cost.time_s[COST_STEP][PHASE_PARAM_GATHER].value));
    /* 10 W while it computes and updates, 50 W of all ranks while it waits */
    double waits_s = 3 * (tau_s - 0.001 * 2 / 2 * 4 * 3) + price.gamma_s +
                     cost.time_s[COST_STEP][PHASE_PARAM_GATHER].value;
    double works_s = 3 * 0.001 * 2 / 2 * 4 * 3 + cost.time_s[COST_STEP][PHASE_OPTIMIZER].value;
    assert_true(near(price.energy_j, 4 * 10 * works_s + 50 * waits_s));
    assert_int_equal(price.static_bytes,
                     cost.parameter_bytes + cost.gradient_bytes + cost.optimizer_bytes);
    close_setting(&setting);
}

/* The bytes of the layers, the streams and the rings are the footprint of a stage. */
static void test_cost__bytes_add_up_to_the_footprint(void **state)
{
    (void)state;
    for (int variant = 0; variant < 6; variant++) {
        struct setting setting;
        struct footprint footprint;
        struct step_cost step;
        struct error err;
        open_setting(&setting, (struct degrees){.data = 2, .tensor = variant % 2 ? 2 : 1});
        for (size_t i = 0; i < LAYERS; i++) {
            setting.layers[i].zero_stage = variant % 4;
            setting.layers[i].sequence_parallel = variant % 2 && i == 2;
            if (i > 0)
                setting.layers[i].precision = (enum precision)(variant % 3);
        }
        assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_OK);
        plan_footprint(&setting.plan, 0, &footprint);
        uint64_t kept = step.stream_bytes, scratch = 0;
        for (size_t i = 0; i < LAYERS; i++) {
            struct layer_cost cost = cost_of(&setting, i);
            struct layer_price price = layer_cost_price(&setting.plan, &cost);
            kept += price.static_bytes + price.inflight_bytes;
            scratch = price.scratch_bytes > scratch ? price.scratch_bytes : scratch;
        }
        assert_int_equal(kept + scratch + step.ring_bytes, footprint_total_bytes(&footprint));
        close_setting(&setting);
    }
}

static void test_cost__16_bit_has_its_own_process_memory(void **state)
{
    (void)state;
    struct setting setting;
    struct step_cost step;
    struct error err;
    open_setting(&setting, (struct degrees){.data = 2});
    setting.layers[MLP].precision = PRECISION_BF16;
    assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 1e6)); /* fp32's: the nearest that is known */
    assert_int_equal(step.process_bytes.provenance, PROVENANCE_INTERPOLATED);
    add_value(&setting, METRIC_PROCESS_BYTES, PRECISION_BF16, 3e6);
    assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 3e6));
    assert_int_equal(step.process_bytes.provenance, PROVENANCE_MEASURED);
    setting.layers[MLP].precision = PRECISION_FP32;
    assert_int_equal(cost_step(setting.profile, &setting.plan, &step, &err), STATUS_OK);
    assert_true(near(step.process_bytes.value, 1e6));
    close_setting(&setting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cost__compute_is_what_was_measured),
        cmocka_unit_test(test_cost__a_group_computes_its_sequences),
        cmocka_unit_test(test_cost__16_bit_updates_stand_for_each_other),
        cmocka_unit_test(test_cost__zero_0_reduces_once_a_step),
        cmocka_unit_test(test_cost__zero_1_scatters_and_gathers_once),
        cmocka_unit_test(test_cost__bf16_gradients_move_half),
        cmocka_unit_test(test_cost__zero_2_scatters_every_micro_batch),
        cmocka_unit_test(test_cost__zero_3_gathers_for_each_use),
        cmocka_unit_test(test_cost__embedding_is_wholly_exposed),
        cmocka_unit_test(test_cost__one_replica_exchanges_no_gradients),
        cmocka_unit_test(test_cost__zero_never_holds_more),
        cmocka_unit_test(test_cost__overlap_may_be_negative_or_unknown),
        cmocka_unit_test(test_cost__tensor_parallel_sums_once_each_way),
        cmocka_unit_test(test_cost__head_exchanges_chunk_after_chunk),
        cmocka_unit_test(test_cost__sequence_parallel_gathers_and_scatters),
        cmocka_unit_test(test_cost__measured_exchanges_come_before_links),
        cmocka_unit_test(test_cost__replicas_stand_apart_by_the_degree),
        cmocka_unit_test(test_cost__table_copy_is_charged_to_the_head),
        cmocka_unit_test(test_cost__tied_head_moves_the_table_again),
        cmocka_unit_test(test_cost__table_on_two_stages_is_reduced_over_both),
        cmocka_unit_test(test_cost__resharding_gathers_where_it_grows),
        cmocka_unit_test(test_cost__the_narrower_spread_travels),
        cmocka_unit_test(test_cost__names_what_is_missing),
        cmocka_unit_test(test_cost__absent_energy_stays_absent),
        cmocka_unit_test(test_cost__price_adds_up),
        cmocka_unit_test(test_cost__bytes_add_up_to_the_footprint),
        cmocka_unit_test(test_cost__16_bit_has_its_own_process_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
