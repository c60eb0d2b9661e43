/* Gradients of matrices in bf16 against those in fp32: what is rounded, and how often. */
#include "chain.h"
#include "expect.h"

#include "executor/ops/vector.h"
#include <stdlib.h>
#include <string.h>

enum { SEQUENCES = 3, LENGTH = 21 };

/* All gradients in fp32, of `passes` micro-batches that are the same; freed by the caller. */
static float *gradients_of(struct chain *chain, const struct model *model, enum precision gradients,
                           int64_t head_tokens, int passes)
{
    struct chain_options opts = {.shape = {.sequences = SEQUENCES,
                                           .seq_length = LENGTH,
                                           .threads = 2,
                                           .head_tokens = head_tokens},
                                 .precision = PRECISION_BF16,
                                 .gradients = gradients};
    struct error err;
    double loss_sum;
    expect_ok(chain_open(chain, model, &opts, &err), &err);
    chain_poison(chain);
    expect_ok(chain_randomise(chain, 7, &err), &err);
    for (int i = 0; i < passes; i++) {
        expect_ok(chain_forward(chain, &loss_sum, &err), &err);
        expect_ok(chain_backward(chain, i > 0, &loss_sum, &err), &err);
    }
    assert_true(chain_guards_hold(chain));
    float *all = calloc((size_t)chain->count, sizeof(float));
    assert_non_null(all);
    chain_gradients(chain, all);
    return all;
}

/* Once a micro-batch each element of a block's matrices is rounded, by at most 2^-8 of what it is
 * then; one of the table once a chunk, and by the embedding. Partial sums have norms below the
 * last's here. */
static void check(const struct model *model, int64_t head_tokens, int passes, int chunks)
{
    struct chain wide, narrow;
    float *in_fp32 = gradients_of(&wide, model, PRECISION_FP32, head_tokens, passes);
    float *in_bf16 = gradients_of(&narrow, model, PRECISION_BF16, head_tokens, passes);
    for (size_t i = 0; i < wide.layer_count; i++) {
        const struct chain_layer *layer = &wide.layers[i];
        size_t matrices = (size_t)layer->counts.matrices, at = layer->at;
        bool has_table = layer->part.kind == LAYER_HEAD || layer->part.kind == LAYER_EMBEDDING;
        int sums = has_table ? passes * (chunks + 1) : passes;
        for (size_t k = 0; sums == 1 && k < matrices; k++)
            assert_true(in_bf16[at + k] == float_from_bf16(bf16_from_float(in_fp32[at + k])));
        expect_near("matrices", in_bf16 + at, in_fp32 + at, matrices, sums * 0x1p-8);
        assert_memory_equal(in_bf16 + at + matrices, in_fp32 + at + matrices,
                            (size_t)layer->counts.vectors * sizeof(float));
    }
    free(in_fp32);
    free(in_bf16);
    chain_close(&wide);
    chain_close(&narrow);
}

static bool supports_bf16(void)
{
    struct error err;
    struct device *device;
    expect_ok(device_open(&device, 1, &err), &err);
    bool supports = device_supports(device, PRECISION_BF16);
    device_close(device);
    return supports;
}

static void test_gradients__bf16_rounds_each_sum_once(void **state)
{
    (void)state;
    if (!supports_bf16())
        skip();
    for (int tied = 0; tied < 2; tied++) {
        struct model models[] = {chain_gpt2, chain_llama};
        for (size_t i = 0; i < 2; i++) {
            models[i].tied_head = tied;
            check(&models[i], 0, 1, 1);
            check(&models[i], 0, 4, 1);
            check(&models[i], 10, 1, 7); /* chunks of 63 tokens */
            check(&models[i], 10, 3, 7);
        }
    }
}

/* ---- the token table ---- */

/* Wider than a chunk of each thread's, of a vocabulary of two digits, and a third of the batch is
 * one token: rounded at each of its places its row would stop growing. */
enum { HIDDEN = 1104, VOCAB = 5000, TOKENS = 1200, COMMON = 4097 };

struct table_case {
    struct model model;
    struct device *device;
    int32_t tokens[TOKENS], order[2 * TOKENS];
    float gradient[TOKENS * HIDDEN];
    float table[VOCAB * HIDDEN], expected[VOCAB * HIDDEN];
    uint16_t table_16[VOCAB * HIDDEN];
};

static void table_open(struct table_case *c)
{
    struct error err;
    c->model = chain_llama;
    c->model.hidden = HIDDEN;
    c->model.vocab = VOCAB;
    c->model.positions = TOKENS;
    expect_ok(device_open(&c->device, 2, &err), &err);
    for (size_t t = 0; t < TOKENS; t++)
        c->tokens[t] = t % 3 == 0 ? COMMON : (int32_t)(t * 2749 % 97 * 51);
    ops_fill_normal(c->device, c->gradient, 0, (uint64_t)TOKENS * HIDDEN, 1.0, 3, 0);
    for (size_t i = 0; i < (size_t)TOKENS * HIDDEN; i++)
        c->gradient[i] += 1.0f;
}

static void table_backward(struct table_case *c, void *table, enum precision precision, bool adds)
{
    struct error err;
    struct layer_call call = {
        .model = &c->model,
        .part = layer_whole(LAYER_EMBEDDING),
        .shape = {.sequences = 1, .seq_length = TOKENS, .threads = 2},
        .matrix_gradients = table,
        .gradient_precision = precision,
        .accumulate_matrices = adds,
        .tokens = c->tokens,
        .gradient = c->gradient,
    };
    call.slots[SLOT_ORDER] = c->order;
    expect_ok(layer_backward(c->device, &call, NULL, &err), &err);
}

static void test_gradients__a_tokens_row_is_rounded_once_however_often_it_stands(void **state)
{
    (void)state;
    struct table_case *c = malloc(sizeof(*c));
    assert_non_null(c);
    const size_t count = (size_t)VOCAB * HIDDEN;
    table_open(c);
    memset(c->table_16, 0xff, sizeof(c->table_16));
    table_backward(c, c->table, PRECISION_FP32, false);
    table_backward(c, c->table_16, PRECISION_BF16, false);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(c->table_16[i], bf16_from_float(c->table[i]));

    /* The next micro-batch's sum is rounded with what is there. */
    for (size_t i = 0; i < count; i++)
        c->expected[i] = float_from_bf16(c->table_16[i]) + c->table[i];
    table_backward(c, c->table_16, PRECISION_BF16, true);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(c->table_16[i], bf16_from_float(c->expected[i]));
    device_close(c->device);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients__bf16_rounds_each_sum_once),
        cmocka_unit_test(test_gradients__a_tokens_row_is_rounded_once_however_often_it_stands),
    };
    return cmocka_run_group_tests_name("gradients", tests, NULL, NULL);
}
