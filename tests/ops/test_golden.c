/* Whole tiny models against reference values that golden/make_golden.py took from transformers. */
#include "chain.h"
#include "expect.h"

#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One side of a 16-bit product is off by up to u of itself, u = 2^-9 in bf16 and 2^-12 in fp16, so
 * a product by 2u. Rounding errors of different terms are independent, so a sum of them keeps the
 * relative error of one term. From the loss to the first layer's gradient a value passes about 2
 * products for each of 4 matrices in a block and the same again backward, and 3 stored activations:
 * sqrt(16 blocks + 6) times 2u for 2 blocks, and a factor 2 for the norms and softmax, whose
 * differences cancel. */
static double bound_of(enum precision precision, const struct model *model)
{
    if (precision == PRECISION_FP32)
        return 1e-5;
    double u = precision == PRECISION_BF16 ? 0x1p-9 : 0x1p-12;
    return 2.0 * sqrt(16.0 * (double)model->blocks + 6.0) * 2.0 * u;
}

struct golden {
    struct json_document *document;
    struct jin root, tensors;
    float *data;
    struct model model;
    struct chain_options options;
};

static void golden_open(struct golden *golden, const char *name)
{
    struct error err;
    char path[512];
    size_t bytes;
    const char *folder = TEMPER_SOURCE_DIR "/tests/ops/golden";
    snprintf(path, sizeof(path), "%s/%s/config.json", folder, name);
    struct model_overrides none = {0};
    expect_ok(model_load(&golden->model, path, &none, &err), &err);
    snprintf(path, sizeof(path), "%s/%s/tensors.json", folder, name);
    expect_ok(json_parse_file(&golden->document, path, &err), &err);
    golden->root = json_root(golden->document);
    expect_ok(jin_array(&golden->root, "tensors", &golden->tensors, &err), &err);
    snprintf(path, sizeof(path), "%s/%s/tensors.bin", folder, name);
    expect_ok(file_read(path, (char **)&golden->data, &bytes, &err), &err);
    int64_t sequences, seq_length;
    expect_ok(jin_int(&golden->root, "sequences", &sequences, &err), &err);
    expect_ok(jin_int(&golden->root, "seq_length", &seq_length, &err), &err);
    golden->options.shape.sequences = sequences;
    golden->options.shape.seq_length = seq_length;
}

static void golden_close(struct golden *golden)
{
    json_document_free(golden->document);
    free(golden->data);
}

static const float *golden_find(const struct golden *golden, const char *what, const char *name,
                                uint64_t count)
{
    char wanted[160];
    struct error err;
    snprintf(wanted, sizeof(wanted), "%s%s", what, name);
    for (size_t i = 0; i < jin_length(&golden->tensors); i++) {
        struct jin row = jin_element(&golden->tensors, i);
        const char *found;
        int64_t at, size;
        expect_ok(jin_string(&row, "name", &found, &err), &err);
        if (strcmp(found, wanted) != 0)
            continue;
        expect_ok(jin_int(&row, "at", &at, &err), &err);
        expect_ok(jin_int(&row, "count", &size, &err), &err);
        assert_int_equal(size, count);
        return golden->data + at;
    }
    fail_msg("golden file has no %s", wanted);
    return NULL;
}

static void read_ids(const struct golden *golden, const char *key, int32_t *out, size_t count)
{
    struct error err;
    struct jin list;
    expect_ok(jin_array(&golden->root, key, &list, &err), &err);
    assert_int_equal(jin_length(&list), count);
    for (size_t i = 0; i < count; i++) {
        struct jin element = jin_element(&list, i);
        int64_t value;
        expect_ok(jin_as_int(&element, &value, &err), &err);
        out[i] = (int32_t)value;
    }
}

/* Of the gradients: so small a model's are near the least that fp16 has, as in training without. */
static const float LOSS_SCALE = 1024.0f;

static void load(const struct golden *golden, struct chain *chain)
{
    size_t counted = 0;
    read_ids(golden, "tokens", chain->token_ids, chain->tokens);
    read_ids(golden, "targets", chain->targets, chain->tokens);
    for (size_t t = 0; t < chain->tokens; t++)
        counted += chain->targets[t] >= 0;
    chain->loss_scale = 1.0f / (float)counted;
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(chain, i, tensors);
        for (size_t j = 0; j < count; j++) {
            char name[TENSOR_NAME_BYTES];
            uint64_t elements = tensor_part_count(&tensors[j].part);
            tensor_name(&tensors[j].part.whole, chain->layers[i].layer.block, name);
            memcpy(chain->parameters + tensors[j].at,
                   golden_find(golden, "weight:", name, elements), elements * sizeof(float));
        }
    }
    chain_cast(chain);
}

static void compare_gradients(const struct golden *golden, const struct chain *chain, double bound)
{
    for (size_t i = 0; i < chain->layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(chain, i, tensors);
        for (size_t j = 0; j < count; j++) {
            char name[TENSOR_NAME_BYTES];
            uint64_t elements = tensor_part_count(&tensors[j].part);
            tensor_name(&tensors[j].part.whole, chain->layers[i].layer.block, name);
            expect_near(name, chain->gradients + tensors[j].at,
                        golden_find(golden, "gradient:", name, elements), elements, bound);
        }
    }
}

static void run_kernel(const char *name, enum precision precision, enum recompute recompute,
                       int threads, enum attention_kernel attention)
{
    struct error err;
    struct golden golden = {0};
    struct chain chain;
    double loss_sum = NAN;
    golden_open(&golden, name);
    golden.options.precision = precision;
    golden.options.recompute = recompute;
    golden.options.attention = attention;
    golden.options.shape.threads = threads;
    expect_ok(chain_open(&chain, &golden.model, &golden.options, &err), &err);
    if (!device_supports(chain.device, precision)) {
        chain_close(&chain);
        golden_close(&golden);
        skip();
    }
    double bound = bound_of(precision, &golden.model);

    chain_poison(&chain);
    load(&golden, &chain);
    expect_ok(chain_forward(&chain, &loss_sum, &err), &err);
    uint64_t logits = chain.tokens * (uint64_t)golden.model.vocab;
    float *found = malloc(logits * sizeof(float));
    assert_non_null(found);
    expect_ok(chain_logits(&chain, found, &err), &err);
    expect_near("logits", found, golden_find(&golden, "logits", "", logits), logits, bound);
    free(found);
    float loss = (float)(loss_sum * (double)chain.loss_scale);
    expect_near("loss", &loss, golden_find(&golden, "loss", "", 1), 1, bound);
    chain.loss_scale *= LOSS_SCALE;
    double backward_sum = NAN;
    expect_ok(chain_backward(&chain, false, &backward_sum, &err), &err);
    assert_true(backward_sum == loss_sum);
    for (uint64_t i = 0; i < chain.count; i++)
        chain.gradients[i] /= LOSS_SCALE;
    compare_gradients(&golden, &chain, bound);
    assert_true(chain_guards_hold(&chain));
    chain_close(&chain);
    golden_close(&golden);
}

static void run(const char *name, enum precision precision, enum recompute recompute, int threads)
{
    run_kernel(name, precision, recompute, threads, ATTENTION_PLAIN);
}

static void test_golden__gpt2_fp32(void **state)
{
    (void)state;
    run("gpt2", PRECISION_FP32, RECOMPUTE_NONE, 1);
    run("gpt2", PRECISION_FP32, RECOMPUTE_SELECTIVE, 2);
    run("gpt2", PRECISION_FP32, RECOMPUTE_FULL, 2);
}

static void test_golden__llama_fp32(void **state)
{
    (void)state;
    run("llama", PRECISION_FP32, RECOMPUTE_NONE, 1);
    run("llama", PRECISION_FP32, RECOMPUTE_SELECTIVE, 2);
    run("llama", PRECISION_FP32, RECOMPUTE_FULL, 2);
}

static void test_golden__mistral_window_fp32(void **state)
{
    (void)state;
    run("mistral", PRECISION_FP32, RECOMPUTE_NONE, 1);
    run("mistral", PRECISION_FP32, RECOMPUTE_SELECTIVE, 2);
    run("mistral", PRECISION_FP32, RECOMPUTE_FULL, 2);
}

static void test_golden__bf16(void **state)
{
    (void)state;
    run("gpt2", PRECISION_BF16, RECOMPUTE_NONE, 2);
    run("llama", PRECISION_BF16, RECOMPUTE_SELECTIVE, 1);
    run("mistral", PRECISION_BF16, RECOMPUTE_FULL, 2);
}

static void test_golden__fp16(void **state)
{
    (void)state;
    run("gpt2", PRECISION_FP16, RECOMPUTE_NONE, 2);
    run("llama", PRECISION_FP16, RECOMPUTE_SELECTIVE, 1);
    run("mistral", PRECISION_FP16, RECOMPUTE_FULL, 2);
}

static void run_tiled(enum precision precision)
{
    const char *const names[] = {"gpt2", "llama", "mistral"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        run_kernel(names[i], precision, RECOMPUTE_NONE, 1, ATTENTION_TILED);
        run_kernel(names[i], precision, RECOMPUTE_FULL, 3, ATTENTION_TILED);
    }
}

static void test_golden__tiled_attention_fp32(void **state)
{
    (void)state;
    run_tiled(PRECISION_FP32);
}

static void test_golden__tiled_attention_bf16(void **state)
{
    (void)state;
    run_tiled(PRECISION_BF16);
}

static void test_golden__tiled_attention_fp16(void **state)
{
    (void)state;
    run_tiled(PRECISION_FP16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden__gpt2_fp32),
        cmocka_unit_test(test_golden__llama_fp32),
        cmocka_unit_test(test_golden__mistral_window_fp32),
        cmocka_unit_test(test_golden__bf16),
        cmocka_unit_test(test_golden__fp16),
        cmocka_unit_test(test_golden__tiled_attention_fp32),
        cmocka_unit_test(test_golden__tiled_attention_bf16),
        cmocka_unit_test(test_golden__tiled_attention_fp16),
    };
    return cmocka_run_group_tests_name("golden", tests, NULL, NULL);
}
