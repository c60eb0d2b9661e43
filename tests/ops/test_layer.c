/* Forward and backward of all layer kinds as one model, on properties that need no reference. */
#include "chain.h"
#include "expect.h"

#include "base/rng.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct model with(const struct model *base, bool tied, int64_t window)
{
    struct model model = *base;
    model.tied_head = tied;
    model.sliding_window = window;
    return model;
}

static struct chain_options options(int64_t sequences, int64_t seq_length, int threads)
{
    return (struct chain_options){
        .shape = {.sequences = sequences, .seq_length = seq_length, .threads = threads}};
}

/* Weights of trained size: with the initial ones every probability is nearly the same. */
static void enlarge_matrices(struct chain *chain)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        float *at = chain->parameters + chain->layers[i].at;
        for (uint64_t j = 0; j < chain->layers[i].counts.matrices; j++)
            at[j] *= 20.0f;
    }
}

static void open_chain(struct chain *chain, const struct model *model, struct chain_options opts)
{
    struct error err;
    expect_ok(chain_open(chain, model, &opts, &err), &err);
    chain_poison(chain);
    expect_ok(chain_randomise(chain, 7, &err), &err);
    enlarge_matrices(chain);
    chain_cast(chain);
}

static double forward(struct chain *chain)
{
    struct error err;
    double loss_sum = NAN;
    expect_ok(chain_forward(chain, &loss_sum, &err), &err);
    return loss_sum * (double)chain->loss_scale;
}

/* The loss is that of the forward pass to the bit. */
static void backward(struct chain *chain, bool accumulate)
{
    struct error err;
    double forward_sum = NAN, loss_sum = NAN;
    expect_ok(chain_forward(chain, &forward_sum, &err), &err);
    expect_ok(chain_backward(chain, accumulate, &loss_sum, &err), &err);
    assert_true(isnan(loss_sum) ? isnan(forward_sum) : loss_sum == forward_sum);
    assert_true(chain_guards_hold(chain));
}

/* Freed by the caller. */
static float *logits_of(struct chain *chain)
{
    struct error err;
    float *logits = malloc(chain->tokens * (size_t)chain->model.vocab * sizeof(float));
    assert_non_null(logits);
    expect_ok(chain_logits(chain, logits, &err), &err);
    return logits;
}

static bool supports_bf16(void)
{
    struct error err;
    struct device *device;
    expect_ok(device_open(&device, 1, &err), &err);
    bool supported = device_supports(device, PRECISION_BF16);
    device_close(device);
    return supported;
}

/* ---- finite differences ---- */

struct tensor {
    float *values;
    const float *gradient;
    size_t count;
};

static double norm_of(const float *values, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += (double)values[i] * (double)values[i];
    return sqrt(sum);
}

/* A unit vector halfway between the gradient and a random one: the derivative along it is large
 * enough to be seen over rounding, and every element has a part in it. */
static double direction(const struct tensor *tensor, uint64_t seed, float *out)
{
    double gradient_norm = norm_of(tensor->gradient, tensor->count);
    double slope = 0.0;
    for (size_t i = 0; i < tensor->count; i++)
        out[i] = (float)rng_normal(seed, 0, i);
    double random_norm = norm_of(out, tensor->count);
    for (size_t i = 0; i < tensor->count; i++)
        out[i] =
            (float)((double)out[i] / random_norm + (double)tensor->gradient[i] / gradient_norm);
    double norm = norm_of(out, tensor->count);
    for (size_t i = 0; i < tensor->count; i++) {
        out[i] = (float)((double)out[i] / norm);
        slope += (double)out[i] * (double)tensor->gradient[i];
    }
    return slope;
}

static double loss_at(struct chain *chain, const struct tensor *tensor, const float *origin,
                      const float *along, double step)
{
    for (size_t i = 0; i < tensor->count; i++)
        tensor->values[i] = (float)((double)origin[i] + step * (double)along[i]);
    double loss = forward(chain);
    memcpy(tensor->values, origin, tensor->count * sizeof(float));
    return loss;
}

/* Central differences of fourth order. */
static void check_tensor(struct chain *chain, const struct tensor *tensor, const char *name)
{
    const double step = 0.005;
    float *origin = malloc(tensor->count * sizeof(float));
    float *along = malloc(tensor->count * sizeof(float));
    assert_true(origin != NULL && along != NULL);
    memcpy(origin, tensor->values, tensor->count * sizeof(float));
    double size = norm_of(tensor->gradient, tensor->count);
    assert_true(size > 1e-6);
    for (uint64_t seed = 0; seed < 3; seed++) {
        double slope = direction(tensor, seed, along);
        double near = loss_at(chain, tensor, origin, along, step) -
                      loss_at(chain, tensor, origin, along, -step);
        double far = loss_at(chain, tensor, origin, along, 2.0 * step) -
                     loss_at(chain, tensor, origin, along, -2.0 * step);
        double measured = (8.0 * near - far) / (12.0 * step);
        /* The loss is known to about 3e-7, which the step divides. */
        double allowed = 1e-3 * size + 3e-7 / step;
        if (!(fabs(measured - slope) <= allowed)) {
            fail_msg("%s: slope %.6g by differences, %.6g by backward, |gradient| %.3g", name,
                     measured, slope, size);
        }
    }
    free(along);
    free(origin);
}

static void check_model(const struct model *model, struct chain_options opts)
{
    struct chain chain;
    open_chain(&chain, model, opts);
    forward(&chain);
    backward(&chain, false);
    for (size_t i = 0; i < chain.layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(&chain, i, tensors);
        for (size_t j = 0; j < count; j++) {
            char name[TENSOR_NAME_BYTES];
            size_t at = tensors[j].at, elements = (size_t)tensor_part_count(&tensors[j].part);
            struct tensor tensor = {chain.parameters + at, chain.gradients + at, elements};
            tensor_name(&tensors[j].part.whole, chain.layers[i].layer.block, name);
            check_tensor(&chain, &tensor, name);
        }
    }
    chain_close(&chain);
}

static void test_layer__gpt2_gradients_match_differences(void **state)
{
    (void)state;
    struct model untied = with(&chain_gpt2, false, 0);
    check_model(&chain_gpt2, options(3, 7, 2));
    check_model(&untied, options(2, 5, 1));
}

static void test_layer__llama_gradients_match_differences(void **state)
{
    (void)state;
    struct model tied_window = with(&chain_llama, true, 3);
    check_model(&chain_llama, options(3, 7, 2));
    check_model(&tied_window, options(2, 9, 1));
}

static void test_layer__gradients_of_several_query_blocks_match_differences(void **state)
{
    (void)state;
    struct model shallow = with(&chain_llama, false, 0), window = with(&chain_gpt2, true, 150);
    shallow.blocks = window.blocks = 1;
    check_model(&shallow, options(1, ATTENTION_BLOCK_ROWS + 5, 2));
    check_model(&window, options(1, 2 * ATTENTION_BLOCK_ROWS + 3, 2));
}

static struct chain_options tiled(struct chain_options opts)
{
    opts.attention = ATTENTION_TILED;
    return opts;
}

static void test_layer__gradients_of_tiled_attention_match_differences(void **state)
{
    (void)state;
    struct model shallow = with(&chain_llama, false, 0),
                 window = with(&chain_gpt2, true, ATTENTION_TILE + 7);
    shallow.blocks = window.blocks = 1;
    check_model(&chain_gpt2, tiled(options(3, 7, 2)));
    check_model(&shallow, tiled(options(1, ATTENTION_TILE + 5, 3)));
    check_model(&window, tiled(options(1, 2 * ATTENTION_TILE + 3, 2)));
}

static struct chain_options in_chunks(struct chain_options opts, int64_t head_tokens)
{
    opts.shape.head_tokens = head_tokens;
    return opts;
}

static void test_layer__gradients_of_a_head_in_chunks_match_differences(void **state)
{
    (void)state;
    struct model untied = with(&chain_gpt2, false, 0);
    check_model(&chain_gpt2, in_chunks(options(3, 7, 2), 4)); /* the last of one token */
    check_model(&untied, in_chunks(options(2, 5, 1), 1));
    check_model(&chain_llama, in_chunks(options(3, 7, 2), 20));
}

/* ---- modes ---- */

/* Gradients of one step in a mode; freed by the caller. */
static float *gradients_of(const struct model *model, struct chain_options opts, double *loss,
                           uint64_t *count)
{
    struct chain chain;
    open_chain(&chain, model, opts);
    *loss = forward(&chain);
    backward(&chain, false);
    *count = chain.count;
    float *copy = calloc((size_t)chain.count, sizeof(float));
    assert_non_null(copy);
    memcpy(copy, chain.gradients, (size_t)chain.count * sizeof(float));
    chain_close(&chain);
    return copy;
}

static void expect_same_bits(const struct model *model, struct chain_options a,
                             struct chain_options b)
{
    double a_loss, b_loss;
    uint64_t a_count, b_count;
    float *a_gradients = gradients_of(model, a, &a_loss, &a_count);
    float *b_gradients = gradients_of(model, b, &b_loss, &b_count);
    assert_memory_equal(&a_loss, &b_loss, sizeof(a_loss));
    assert_int_equal(a_count, b_count);
    assert_memory_equal(a_gradients, b_gradients, a_count * sizeof(float));
    free(a_gradients);
    free(b_gradients);
}

static void check_recompute(const struct model *model, struct chain_options opts)
{
    struct chain_options other = opts;
    other.recompute = RECOMPUTE_FULL;
    expect_same_bits(model, opts, other);
    other.recompute = RECOMPUTE_SELECTIVE;
    expect_same_bits(model, opts, other);
}

static void test_layer__recompute_modes_give_the_same_bits(void **state)
{
    (void)state;
    const int64_t lengths[] = {1, 7, ATTENTION_BLOCK_ROWS, ATTENTION_BLOCK_ROWS + 29};
    struct model window = with(&chain_llama, false, 11);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (int threads = 1; threads <= 2; threads++) {
            check_recompute(&chain_gpt2, options(2, lengths[i], threads));
            check_recompute(&chain_llama, options(1, lengths[i], threads));
            check_recompute(&window, options(1, lengths[i], threads));
        }
    }
}

static void test_layer__recompute_modes_give_the_same_bits_in_bf16(void **state)
{
    (void)state;
    if (!supports_bf16())
        skip();
    struct chain_options opts = options(2, ATTENTION_BLOCK_ROWS + 29, 2);
    opts.precision = PRECISION_BF16;
    check_recompute(&chain_gpt2, opts);
    check_recompute(&chain_llama, opts);
}

static void test_layer__recompute_modes_give_the_same_bits_in_fp16(void **state)
{
    (void)state;
    struct chain_options opts = options(2, ATTENTION_BLOCK_ROWS + 29, 2);
    opts.precision = PRECISION_FP16;
    check_recompute(&chain_gpt2, opts);
    check_recompute(&chain_llama, opts);
}

static void test_layer__recompute_modes_give_the_same_bits_with_tiled_attention(void **state)
{
    (void)state;
    const int64_t lengths[] = {1, 7, ATTENTION_TILE, 2 * ATTENTION_TILE + 29};
    struct model window = with(&chain_llama, false, 11);
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        if (precision == PRECISION_BF16 && !supports_bf16())
            continue;
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            struct chain_options opts = tiled(options(1, lengths[i], 1 + (int)i % 3));
            opts.precision = (enum precision)precision;
            check_recompute(&chain_gpt2, opts);
            check_recompute(&chain_llama, opts);
            check_recompute(&window, opts);
        }
    }
}

static void test_layer__repeats_to_the_bit(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        struct chain_options opts = tiled(options(1, 2 * ATTENTION_TILE + 9, threads));
        expect_same_bits(&chain_llama, opts, opts);
    }
    expect_same_bits(&chain_gpt2, options(3, 33, 2), options(3, 33, 2));
    expect_same_bits(&chain_llama, options(3, 33, 2), options(3, 33, 2));
    expect_same_bits(&chain_gpt2, in_chunks(options(3, 33, 2), 13),
                     in_chunks(options(3, 33, 2), 13));
    expect_same_bits(&chain_gpt2, in_chunks(options(3, 33, 2), 99),
                     options(3, 33, 2)); /* one chunk */
}

static void check_against(const struct model *model, struct chain_options a, struct chain_options b,
                          double bound)
{
    double a_loss, b_loss;
    uint64_t count;
    float *a_gradients = gradients_of(model, a, &a_loss, &count);
    float *b_gradients = gradients_of(model, b, &b_loss, &count);
    assert_true(fabs(a_loss - b_loss) <= bound * fabs(b_loss));
    expect_near("gradients", a_gradients, b_gradients, (size_t)count, bound);
    free(a_gradients);
    free(b_gradients);
}

static void test_layer__thread_counts_agree(void **state)
{
    (void)state;
    check_against(&chain_gpt2, options(2, 21, 1), options(2, 21, 2), 1e-5);
    check_against(&chain_llama, options(2, 21, 1), options(2, 21, 3), 1e-5);
}

static void check_accumulation(const struct model *model, struct chain_options opts)
{
    struct chain chain;
    open_chain(&chain, model, opts);
    forward(&chain);
    backward(&chain, false);
    size_t bytes = (size_t)chain.count * sizeof(float);
    float *once = malloc(bytes);
    assert_non_null(once);
    memcpy(once, chain.gradients, bytes);
    forward(&chain);
    backward(&chain, true);
    for (size_t i = 0; i < chain.layer_count; i++) {
        size_t at = chain.layers[i].at;
        size_t own = (size_t)(chain.layers[i].counts.matrices + chain.layers[i].counts.vectors);
        for (size_t j = 0; j < own; j++)
            once[at + j] *= 2.0f;
        expect_near("twice the gradient", chain.gradients + at, once + at, own, 1e-6);
    }
    free(once);
    chain_close(&chain);
}

/* Chunks add up the weight's gradient in another order; 16-bit roundings are the same. */
static void check_chunks(enum precision precision)
{
    struct chain_options once = options(3, 21, 2);
    once.precision = precision;
    check_against(&chain_gpt2, in_chunks(once, 10), once, 1e-5);
    check_against(&chain_llama, in_chunks(once, 62), once, 1e-5);
    check_accumulation(&chain_gpt2, in_chunks(once, 10));
}

static void test_layer__chunks_of_the_head_agree_with_one(void **state)
{
    (void)state;
    check_chunks(PRECISION_FP32);
    check_chunks(PRECISION_FP16);
    if (supports_bf16())
        check_chunks(PRECISION_BF16);
}

static void check_near_fp32(enum precision precision, double bound)
{
    struct chain_options rounded = options(3, 21, 2);
    rounded.precision = precision;
    check_against(&chain_gpt2, rounded, options(3, 21, 2), bound);
    check_against(&chain_llama, rounded, options(3, 21, 2), bound);
}

static void test_layer__bf16_is_near_fp32(void **state)
{
    (void)state;
    if (!supports_bf16())
        skip();
    /* 2^-8 for each rounded product, and some twenty of them in a row: sqrt(20) / 2^8 = 0.017;
     * weights this large make the softmax three times as sensitive. */
    check_near_fp32(PRECISION_BF16, 0.06);
}

/* Three more digits: an eighth. */
static void test_layer__fp16_is_near_fp32(void **state)
{
    (void)state;
    check_near_fp32(PRECISION_FP16, 0.06 / 8.0);
}

/* ---- accumulation, targets, faults ---- */

static void test_layer__gradients_accumulate(void **state)
{
    (void)state;
    struct model untied = with(&chain_gpt2, false, 0), tied = with(&chain_llama, true, 0);
    check_accumulation(&chain_gpt2, options(2, 7, 2));
    check_accumulation(&untied, options(2, 7, 1));
    check_accumulation(&chain_llama, options(2, 7, 2));
    check_accumulation(&tied, options(1, 1, 2));
    if (supports_bf16()) {
        struct chain_options opts = options(2, 7, 2);
        opts.precision = PRECISION_BF16;
        check_accumulation(&chain_gpt2, opts);
        check_accumulation(&chain_llama, opts);
    }
    struct chain_options fp16 = options(2, 7, 2);
    fp16.precision = PRECISION_FP16;
    check_accumulation(&chain_gpt2, fp16);
    check_accumulation(&chain_llama, fp16);
}

static void test_layer__ignored_targets_count_for_nothing(void **state)
{
    (void)state;
    struct chain chain;
    open_chain(&chain, &chain_gpt2, options(2, 5, 2));
    double all = forward(&chain), kept = 0.0;
    float *logits = logits_of(&chain);
    for (size_t t = 1; t < chain.tokens; t += 2) {
        const float *row = logits + t * 19;
        double sum = 0.0;
        for (size_t j = 0; j < 19; j++)
            sum += exp((double)row[j]);
        kept += log(sum) - (double)row[chain.targets[t]];
        chain.targets[t - 1] = -1;
    }
    free(logits);
    double half = forward(&chain) / (double)chain.loss_scale;
    assert_true(half < all / (double)chain.loss_scale);
    assert_true(fabs(half - kept) < 1e-5 * kept);

    for (size_t t = 0; t < chain.tokens; t++)
        chain.targets[t] = -100;
    assert_true(forward(&chain) == 0.0);
    backward(&chain, false);
    for (uint64_t i = 0; i < chain.count; i++)
        assert_true(chain.gradients[i] == 0.0f);
    chain_close(&chain);
}

/* Any tokens' alone, as a sampler wants them. */
static void test_layer__logits_need_no_targets(void **state)
{
    (void)state;
    struct chain chain;
    struct error err;
    open_chain(&chain, &chain_llama, options(1, 5, 1));
    forward(&chain);
    float *logits = logits_of(&chain);
    struct layer_call call = chain_call(&chain, chain.layer_count - 1);
    size_t vocab = (size_t)chain_llama.vocab;
    call.targets = NULL;
    for (int64_t first = 0; first < 5; first++) {
        for (int64_t count = 1; first + count <= 5; count++) {
            memset(call.slots[SLOT_LOGITS], 0xff, 5 * vocab * sizeof(float));
            expect_ok(layer_logits(chain.device, &call, first, count, &err), &err);
            expect_near("logits", call.slots[SLOT_LOGITS], logits + (size_t)first * vocab,
                        (size_t)count * vocab, 1e-6);
        }
    }
    assert_true(chain_guards_hold(&chain));
    free(logits);
    chain_close(&chain);
}

/* Whose loss comes with the backward pass, it may be asked nothing before: not even parameters are
 * there. */
static void test_layer__a_head_in_training_works_backward_only(void **state)
{
    (void)state;
    struct chain chain;
    struct error err;
    open_chain(&chain, &chain_gpt2, options(2, 5, 2));
    double expected = forward(&chain) / (double)chain.loss_scale, sum = NAN;
    struct layer_call call = chain_call(&chain, chain.layer_count - 1), without = call;
    without.table = NULL;
    without.vectors = NULL;
    for (size_t slot = 0; slot < SLOT_COUNT; slot++)
        without.slots[slot] = NULL;
    expect_ok(layer_forward(chain.device, &without, NULL, &err), &err);
    expect_ok(layer_backward(chain.device, &call, &sum, &err), &err);
    assert_true(fabs(sum - expected) <= 1e-7 * expected);
    chain_close(&chain);
}

static void test_layer__a_query_sees_no_later_token(void **state)
{
    (void)state;
    struct chain chain;
    size_t vocab = (size_t)chain_llama.vocab, length = 9, changed = 5;
    open_chain(&chain, &chain_llama, options(1, (int64_t)length, 2));
    forward(&chain);
    float *before = logits_of(&chain);
    chain.token_ids[changed] = (chain.token_ids[changed] + 1) % (int32_t)vocab;
    forward(&chain);
    float *logits = logits_of(&chain);
    assert_memory_equal(before, logits, changed * vocab * sizeof(float));
    for (size_t t = changed; t < length; t++)
        assert_memory_not_equal(before + t * vocab, logits + t * vocab, vocab * sizeof(float));
    free(logits);
    free(before);
    chain_close(&chain);
}

static void test_layer__a_window_hides_old_tokens(void **state)
{
    (void)state;
    struct chain chain;
    struct model model = with(&chain_llama, false, 3);
    model.blocks = 1;
    size_t vocab = (size_t)model.vocab;
    open_chain(&chain, &model, options(1, 9, 2));
    forward(&chain);
    float *before = logits_of(&chain);
    chain.token_ids[2] = (chain.token_ids[2] + 1) % (int32_t)vocab;
    forward(&chain);
    float *logits = logits_of(&chain);
    for (size_t t = 0; t < 9; t++) {
        bool same = memcmp(before + t * vocab, logits + t * vocab, vocab * sizeof(float)) == 0;
        assert_int_equal(same, t < 2 || t > 4);
    }
    free(logits);
    free(before);
    chain_close(&chain);
}

static void check_nan(struct chain_options opts)
{
    struct chain chain;
    open_chain(&chain, &chain_gpt2, opts);
    chain.parameters[chain.layers[1].at + 40] = NAN;
    assert_true((bool)isnan(forward(&chain)));
    backward(&chain, false);
    double squares = ops_sum_squares(chain.device, chain.gradients, PRECISION_FP32, chain.count);
    assert_false((bool)isfinite(squares));
    chain_close(&chain);
}

static void test_layer__a_nan_reaches_the_loss(void **state)
{
    (void)state;
    check_nan(options(1, 3, 2));
    check_nan(tiled(options(1, 3, 2)));
}

static void test_layer__buffers_for_fewer_threads_are_refused(void **state)
{
    (void)state;
    struct chain chain;
    struct error err;
    open_chain(&chain, &chain_gpt2, options(1, 3, 2));
    struct layer_call call = chain_call(&chain, 1);
    call.shape.threads = 1;
    assert_int_equal(layer_forward(chain.device, &call, NULL, &err), STATUS_INVALID);
    assert_int_equal(layer_backward(chain.device, &call, NULL, &err), STATUS_INVALID);
    chain_close(&chain);
}

static void count(void *user)
{
    ++*(int *)user;
}

/* At least once after each product: attention and mlp have 2 in forward and 4 in backward, the head
 * 1 for its loss and 3; recomputation repeats the first of forward. */
static void check_polls(enum recompute recompute, int repeated)
{
    struct chain chain;
    struct error err;
    struct chain_options opts = options(1, 3, 1);
    opts.recompute = recompute;
    open_chain(&chain, &chain_gpt2, opts);
    forward(&chain);
    for (size_t i = chain.layer_count; i-- > 1;) {
        struct layer_call call = chain_call(&chain, i);
        bool is_head = call.part.kind == LAYER_HEAD;
        int polls = 0;
        call.poll = count;
        call.poll_user = &polls;
        double loss_sum = 0.0;
        expect_ok(layer_forward(chain.device, &call, is_head ? &loss_sum : NULL, &err), &err);
        assert_true(polls >= (is_head ? 1 : 2));
        polls = 0;
        expect_ok(layer_backward(chain.device, &call, NULL, &err), &err);
        assert_true(polls >= (is_head ? 3 : 4 + repeated));
    }
    chain_close(&chain);
}

static void test_layer__polls_between_kernels(void **state)
{
    (void)state;
    check_polls(RECOMPUTE_NONE, 0);
    check_polls(RECOMPUTE_FULL, 1);
}

static void test_layer__bf16_without_support_is_refused(void **state)
{
    (void)state;
    if (supports_bf16())
        skip();
    struct chain chain;
    struct error err;
    struct chain_options opts = options(1, 3, 1);
    opts.precision = PRECISION_BF16;
    open_chain(&chain, &chain_gpt2, opts);
    assert_int_equal(chain_forward(&chain, NULL, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "fp32"));
    chain_close(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer__gpt2_gradients_match_differences),
        cmocka_unit_test(test_layer__llama_gradients_match_differences),
        cmocka_unit_test(test_layer__gradients_of_several_query_blocks_match_differences),
        cmocka_unit_test(test_layer__gradients_of_tiled_attention_match_differences),
        cmocka_unit_test(test_layer__gradients_of_a_head_in_chunks_match_differences),
        cmocka_unit_test(test_layer__recompute_modes_give_the_same_bits),
        cmocka_unit_test(test_layer__recompute_modes_give_the_same_bits_in_bf16),
        cmocka_unit_test(test_layer__recompute_modes_give_the_same_bits_in_fp16),
        cmocka_unit_test(test_layer__recompute_modes_give_the_same_bits_with_tiled_attention),
        cmocka_unit_test(test_layer__repeats_to_the_bit),
        cmocka_unit_test(test_layer__thread_counts_agree),
        cmocka_unit_test(test_layer__chunks_of_the_head_agree_with_one),
        cmocka_unit_test(test_layer__bf16_is_near_fp32),
        cmocka_unit_test(test_layer__fp16_is_near_fp32),
        cmocka_unit_test(test_layer__gradients_accumulate),
        cmocka_unit_test(test_layer__ignored_targets_count_for_nothing),
        cmocka_unit_test(test_layer__logits_need_no_targets),
        cmocka_unit_test(test_layer__a_head_in_training_works_backward_only),
        cmocka_unit_test(test_layer__a_query_sees_no_later_token),
        cmocka_unit_test(test_layer__a_window_hides_old_tokens),
        cmocka_unit_test(test_layer__a_nan_reaches_the_loss),
        cmocka_unit_test(test_layer__buffers_for_fewer_threads_are_refused),
        cmocka_unit_test(test_layer__polls_between_kernels),
        cmocka_unit_test(test_layer__bf16_without_support_is_refused),
    };
    return cmocka_run_group_tests_name("layer", tests, NULL, NULL);
}
