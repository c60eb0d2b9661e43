#include "support.h"

#include "ir/layer.h"
#include "ir/model.h"

static struct model load(const char *name)
{
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, NULL, &err), &err);
    return model;
}

static void test_layer__chain_alternates(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    size_t count = model_layer_count(&model);
    assert_int_equal(count, 26);
    assert_int_equal(model_layer(&model, 0).kind, LAYER_EMBEDDING);
    assert_int_equal(model_layer(&model, count - 1).kind, LAYER_HEAD);
    for (size_t i = 1; i + 1 < count; i += 2) {
        assert_int_equal(model_layer(&model, i).kind, LAYER_ATTENTION);
        assert_int_equal(model_layer(&model, i + 1).kind, LAYER_MLP);
        assert_int_equal(model_layer(&model, i).block, (i - 1) / 2);
        assert_int_equal(model_layer(&model, i + 1).block, (i - 1) / 2);
    }
}

static void test_layer__names_parse_back(void **state)
{
    (void)state;
    for (int i = 0; i < LAYER_KIND_COUNT; i++) {
        enum layer_kind kind;
        assert_true(layer_kind_parse(layer_kind_name((enum layer_kind)i), &kind));
        assert_int_equal(kind, i);
    }
    for (int i = 0; i < PRECISION_COUNT; i++) {
        enum precision precision;
        assert_true(precision_parse(precision_name((enum precision)i), &precision));
        assert_int_equal(precision, i);
    }
    for (int i = 0; i < RECOMPUTE_COUNT; i++) {
        enum recompute recompute;
        assert_true(recompute_parse(recompute_name((enum recompute)i), &recompute));
        assert_int_equal(recompute, i);
    }
    for (int i = 0; i < PHASE_COUNT; i++) {
        enum phase phase;
        assert_true(phase_parse(phase_name((enum phase)i), &phase));
        assert_int_equal(phase, i);
    }
    enum precision precision;
    assert_false(precision_parse("FP32", &precision));
    assert_false(precision_parse("fp3", &precision));
}

static void test_layer__admits_as_documented(void **state)
{
    (void)state;
    static const int modes[LAYER_KIND_COUNT] = {1, 3, 3, 1};
    static const int precisions[LAYER_KIND_COUNT] = {1, 3, 3, 3};
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        int mode_count = 0, precision_count = 0;
        for (int i = 0; i < RECOMPUTE_COUNT; i++)
            mode_count += layer_admits_recompute((enum layer_kind)kind, (enum recompute)i);
        for (int i = 0; i < PRECISION_COUNT; i++)
            precision_count += layer_admits_precision((enum layer_kind)kind, (enum precision)i);
        assert_int_equal(mode_count, modes[kind]);
        assert_int_equal(precision_count, precisions[kind]);
        assert_true(layer_admits_recompute((enum layer_kind)kind, RECOMPUTE_NONE));
        assert_true(layer_admits_precision((enum layer_kind)kind, PRECISION_FP32));
        assert_true(layer_admits_kernel((enum layer_kind)kind, ATTENTION_PLAIN));
        assert_int_equal(layer_admits_kernel((enum layer_kind)kind, ATTENTION_TILED),
                         kind == LAYER_ATTENTION);
    }
    assert_int_equal(precision_bytes(PRECISION_FP32), 4);
    assert_int_equal(precision_bytes(PRECISION_BF16), 2);
    assert_int_equal(precision_bytes(PRECISION_FP16), 2);
}

static void test_layer__phases_have_their_names(void **state)
{
    (void)state;
    static const char *const names[PHASE_COUNT] = {"forward",   "backward",     "tensor",
                                                   "pipeline",  "param_gather", "grad_reduce",
                                                   "optimizer", "other"};
    for (int i = 0; i < PHASE_COUNT; i++)
        assert_string_equal(phase_name((enum phase)i), names[i]);
}

static void check_refused(const struct model *model, const struct layer_part *part,
                          const char *message)
{
    struct error err;
    assert_int_equal(layer_part_check(model, part, &err), STATUS_INVALID);
    assert_string_equal(err.message, message);
}

static void test_layer__what_does_not_divide_is_named(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct error err;
    struct layer_part part = {.kind = LAYER_ATTENTION, .ways = 5};
    check_refused(&model, &part, "attention: 32 heads do not divide by tensor_parallel 5");
    part.ways = 16;
    check_refused(&model, &part, "attention: 8 kv_heads do not divide by tensor_parallel 16");
    part = (struct layer_part){.kind = LAYER_MLP, .ways = 3};
    check_refused(&model, &part, "mlp: 14336 ffn columns do not divide by tensor_parallel 3");
    part = (struct layer_part){.kind = LAYER_MLP, .ways = 1, .sequence_parallel = true};
    check_refused(&model, &part, "mlp: sequence_parallel needs a tensor_parallel of 2 or more");
    part = (struct layer_part){.kind = LAYER_MLP};
    check_refused(&model, &part, "mlp: tensor_parallel is 0, must be 1 or more");
    model.vocab = 9; /* three rows each: the fourth of four would have none */
    part = (struct layer_part){.kind = LAYER_HEAD, .ways = 4};
    check_refused(&model, &part,
                  "head: 9 vocab rows leave the last of tensor_parallel 4 ranks none");
    part.kind = LAYER_EMBEDDING;
    check_refused(&model, &part,
                  "embedding: 9 vocab rows leave the last of tensor_parallel 4 ranks none");
    model.vocab = 10;
    assert_ok(layer_part_check(&model, &part, &err), &err);
}

/* Every rank but the last has as many real rows as there are, and together they have all. */
static void test_layer__vocabulary_is_padded_at_the_end(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct error err;
    for (model.vocab = 1; model.vocab < 120; model.vocab++) {
        for (int ways = 1; ways <= 12; ways++) {
            struct layer_part part = {.kind = LAYER_HEAD, .ways = ways};
            int64_t rows = part_vocab_rows(&model, &part), sum = 0;
            assert_true(rows * ways >= model.vocab && (rows - 1) * ways < model.vocab);
            bool admitted = layer_part_check(&model, &part, &err) == STATUS_OK, all_have = true;
            for (part.index = 0; part.index < ways; part.index++) {
                int64_t valid = part_vocab_valid(&model, &part);
                assert_true(valid >= 0 && valid <= rows);
                all_have = all_have && valid > 0;
                sum += valid;
            }
            assert_int_equal(sum, model.vocab);
            assert_int_equal(admitted, all_have);
        }
    }
}

/* Narayanan et al. 2021, eq. (2): forward of l layers and the logits is
 * 24 B s l h^2 (1 + s/(6h)) + 2 B s h V for multi-head attention and ffn = 4 h. */
static void test_layer__flops_match_the_published_formula(void **state)
{
    (void)state;
    struct model model = load("gpt2-xl");
    struct micro_batch_shape shape = {.sequences = 3, .seq_length = 512, .threads = 2};
    double h = (double)model.hidden, tokens = 3.0 * 512.0, blocks = (double)model.blocks;
    double formula = 24.0 * tokens * blocks * h * h * (1.0 + 512.0 / (6.0 * h)) +
                     2.0 * tokens * h * (double)model.vocab;
    double sum = 0.0;
    for (size_t i = 0; i < model_layer_count(&model); i++)
        sum += layer_forward_flops(&model, model_layer(&model, i).kind, &shape);
    assert_true(sum > formula * (1.0 - 1e-12) && sum < formula * (1.0 + 1e-12));
    assert_true(layer_forward_flops(&model, LAYER_EMBEDDING, &shape) == 0.0);
}

/* Without the s x s products each weight of a matrix is used once a token: 2 FLOPs. */
static void test_layer__llama_flops_follow_the_weights(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct micro_batch_shape shape = {.sequences = 1, .seq_length = 1024, .threads = 1};
    double tokens = 1024.0, norm = (double)model.hidden;
    double context = (double)(model.heads * model.head_dim);
    double mlp = 2.0 * tokens * ((double)layer_parameter_count(&model, LAYER_MLP) - norm);
    double attention =
        2.0 * tokens * ((double)layer_parameter_count(&model, LAYER_ATTENTION) - norm) +
        4.0 * tokens * tokens * context;
    assert_true(layer_forward_flops(&model, LAYER_MLP, &shape) == mlp);
    assert_true(layer_forward_flops(&model, LAYER_ATTENTION, &shape) == attention);
}

static void test_layer__a_token_passes_its_experts_and_the_shared_one(void **state)
{
    (void)state;
    struct model model = load("mixtral-8x7b");
    struct micro_batch_shape shape = {.sequences = 2, .seq_length = 16, .threads = 1};
    double attention = layer_forward_flops(&model, LAYER_ATTENTION, &shape);
    double head = layer_forward_flops(&model, LAYER_HEAD, &shape);
    /* two experts of gate, up and down; a router of eight columns */
    double experts = 2.0 * 32 * 4096 * (3 * 2 * 14336 + 8);
    assert_true(experts_forward_flops(&model, &shape) == experts);
    assert_true(block_forward_flops(&model, true, &shape) == attention + experts);
    assert_true(model_forward_flops(&model, &shape) == head + 32 * (attention + experts));

    model.moe_every = 2;
    model.shared_ffn = 1000; /* and its gate */
    experts += 2.0 * 32 * 4096 * (3 * 1000 + 1);
    assert_true(experts_forward_flops(&model, &shape) == experts);
    double dense = 2.0 * 32 * 4096 * 3 * 14336;
    assert_true(block_forward_flops(&model, false, &shape) == attention + dense);
    assert_true(model_forward_flops(&model, &shape) ==
                head + 16 * (attention + experts) + 16 * (attention + dense));
}

/* The whole square counts, masked or not; the head has a dense layer more. */
static void test_layer__an_encoder_counts_as_a_decoder_does(void **state)
{
    (void)state;
    struct model bert = load("bert-base-uncased"), causal = bert;
    struct micro_batch_shape shape = {.sequences = 2, .seq_length = 16, .threads = 1};
    causal.bidirectional = false;
    assert_true(layer_forward_flops(&bert, LAYER_ATTENTION, &shape) ==
                layer_forward_flops(&causal, LAYER_ATTENTION, &shape));
    assert_true(layer_forward_flops(&bert, LAYER_HEAD, &shape) == 2.0 * 32 * 768 * (30522 + 768));
}

static void test_layer__parts_share_the_flops(void **state)
{
    (void)state;
    struct model gpt2 = load("gpt2"), llama = load("llama-3-8b");
    const struct model *models[] = {&gpt2, &llama};
    struct micro_batch_shape shape = {.sequences = 2, .seq_length = 128, .threads = 1};
    for (size_t m = 0; m < COUNT(models); m++) {
        for (int ways = 1; ways <= 4; ways *= 2) {
            for (int kind = LAYER_ATTENTION; kind <= LAYER_MLP; kind++) {
                struct layer_part part = {.kind = (enum layer_kind)kind, .ways = ways};
                assert_true(layer_part_forward_flops(models[m], &part, &shape) * ways ==
                            layer_forward_flops(models[m], part.kind, &shape));
            }
        }
    }
    /* 50257 rows over 4: 12565 each, three of them padding */
    struct layer_part head = {.kind = LAYER_HEAD, .ways = 4, .index = 3};
    assert_true(layer_part_forward_flops(&gpt2, &head, &shape) == 2.0 * 256 * 768 * 12565);
}

static void test_layer__key_of_a_part_adds_its_split(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    model.seq_length = 256;
    char key[LAYER_KEY_BYTES];
    struct layer_part part = layer_whole(LAYER_MLP);
    assert_string_equal(layer_part_key(&model, &part, key), "mlp/gpt2/h768/f3072/s256");
    part.ways = 2;
    assert_string_equal(layer_part_key(&model, &part, key), "mlp/gpt2/h768/f3072/s256/tp2");
    part.index = 1;
    part.sequence_parallel = true;
    assert_string_equal(layer_part_key(&model, &part, key), "mlp/gpt2/h768/f3072/s256/tp2sp");
    part = layer_whole(LAYER_HEAD);
    part.owns_table = true;
    assert_string_equal(layer_part_key(&model, &part, key), "head/gpt2/h768/v50257/tied/s256/own");
    part.ways = 4;
    assert_string_equal(layer_part_key(&model, &part, key),
                        "head/gpt2/h768/v50257/tied/s256/tp4/own");
}

static void test_layer__key_names_the_work(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    model.seq_length = 256;
    char key[LAYER_KEY_BYTES], other[LAYER_KEY_BYTES];
    assert_string_equal(layer_key(&model, LAYER_ATTENTION, key),
                        "attention/gpt2/h768/a12/k12/d64/s256");
    assert_string_equal(layer_key(&model, LAYER_MLP, key), "mlp/gpt2/h768/f3072/s256");
    struct model untied = model;
    untied.tied_head = false;
    assert_string_not_equal(layer_key(&model, LAYER_HEAD, key),
                            layer_key(&untied, LAYER_HEAD, other));
    assert_string_equal(layer_key(&model, LAYER_MLP, key), layer_key(&untied, LAYER_MLP, other));
    untied.blocks = 99;
    assert_string_equal(layer_key(&model, LAYER_MLP, key), layer_key(&untied, LAYER_MLP, other));
}

static void test_layer__keys_fit_the_largest_sizes(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    model.hidden = model.heads = model.kv_heads = model.head_dim = INT64_MAX;
    model.ffn = model.vocab = model.positions = model.seq_length = INT64_MAX;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        char key[LAYER_KEY_BYTES];
        layer_key(&model, (enum layer_kind)kind, key);
        assert_non_null(strstr(key, "/s9223372036854775807"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer__chain_alternates),
        cmocka_unit_test(test_layer__names_parse_back),
        cmocka_unit_test(test_layer__admits_as_documented),
        cmocka_unit_test(test_layer__phases_have_their_names),
        cmocka_unit_test(test_layer__what_does_not_divide_is_named),
        cmocka_unit_test(test_layer__vocabulary_is_padded_at_the_end),
        cmocka_unit_test(test_layer__flops_match_the_published_formula),
        cmocka_unit_test(test_layer__llama_flops_follow_the_weights),
        cmocka_unit_test(test_layer__a_token_passes_its_experts_and_the_shared_one),
        cmocka_unit_test(test_layer__an_encoder_counts_as_a_decoder_does),
        cmocka_unit_test(test_layer__parts_share_the_flops),
        cmocka_unit_test(test_layer__key_of_a_part_adds_its_split),
        cmocka_unit_test(test_layer__key_names_the_work),
        cmocka_unit_test(test_layer__keys_fit_the_largest_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
