#include "support.h"

#include "ir/layer.h"
#include "ir/model.h"

static struct model load(const char *source, const struct model_overrides *overrides)
{
    struct model model;
    struct error err;
    assert_ok(model_load(&model, source, overrides, &err), &err);
    return model;
}

static void test_model__parameter_counts_are_the_published_ones(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t parameters;
    } published[] = {
        {"gpt2", 124439808},
        {"gpt2-medium", 354823168},
        {"gpt2-large", 774030080},
        {"gpt2-xl", 1557611200},
        {"llama-2-7b", 6738415616},
        {"llama-3-8b", 8030261248},
        {"llama-3-70b", 70553706496},
        {"llama-3.1-405b", 405853388800},
        {"tinyllama-1.1b", 1100048384},
        {"mistral-7b", 7241732096},
        /* 32 blocks of attention 41943040, 8 experts of 176160768, router 32768, two norms */
        {"mixtral-8x7b", 46702792704},
        /* 28 blocks of which each has biases 3584 + 2 x 512 */
        {"qwen2.5-7b", 7615616512},
        /* with the head for masked tokens (622650: dense 590592, norm 1536, bias 30522) and
         * without the pooler: HF's BertForMaskedLM */
        {"bert-base-uncased", 109514298},
    };
    for (size_t i = 0; i < COUNT(published); i++) {
        struct model model = load(published[i].name, NULL);
        assert_true(model_parameter_count(&model) == published[i].parameters);
    }
    struct model gpt3 = load("gpt3-175b", NULL);
    double billions = (double)model_parameter_count(&gpt3) / 1e9;
    assert_true(billions > 174.5 && billions < 175.5);
}

/* Qwen1.5-MoE-A2.7B: "14.3B parameters in total and 2.7B activated" (its model card). */
static struct model qwen_moe(void)
{
    return (struct model){.name = "qwen1.5-moe",
                          .family = MODEL_LLAMA,
                          .blocks = 24,
                          .hidden = 2048,
                          .heads = 16,
                          .kv_heads = 16,
                          .head_dim = 128,
                          .ffn = 5632,
                          .vocab = 151936,
                          .positions = 8192,
                          .seq_length = 4096,
                          .norm_epsilon = 1e-6,
                          .rope_theta = 1e6,
                          .experts = 60,
                          .experts_per_token = 4,
                          .expert_ffn = 1408,
                          .shared_ffn = 5632,
                          .moe_every = 1,
                          .qkv_bias = true};
}

static void test_model__active_parameters_leave_out_idle_experts(void **state)
{
    (void)state;
    struct model model = load("mixtral-8x7b", NULL);
    assert_true(model_active_parameter_count(&model) == 12879925248); /* 6 experts less a block */
    model = load("llama-3-8b", NULL);
    assert_true(model_active_parameter_count(&model) == model_parameter_count(&model));
    model = qwen_moe();
    assert_true(model_parameter_count(&model) == 14315784192);
    assert_true(model_active_parameter_count(&model) == 2689173504);
}

static void test_model__dense_and_expert_blocks_alternate(void **state)
{
    (void)state;
    struct model model = qwen_moe();
    struct error err;
    model.moe_every = 2;
    assert_ok(model_validate(&model, "here", &err), &err);
    assert_int_equal(model_expert_blocks(&model), 12);
    assert_false(model_block_has_experts(&model, 0));
    assert_true(model_block_has_experts(&model, 1));
    assert_true(model_block_has_experts(&model, 23));
    /* twelve blocks have an MLP of 3 x 2048 x 5632 + 2048 in place of 553775104 for experts */
    assert_true(model_parameter_count(&model) ==
                14315784192 - INT64_C(12) * (553775104 - 34605056));
    model.moe_every = 5;
    assert_int_equal(model_expert_blocks(&model), 4);
    assert_true(model_block_has_experts(&model, 4));
    assert_false(model_block_has_experts(&model, 22));
    model = load("gpt2", NULL);
    assert_int_equal(model_expert_blocks(&model), 0);
    assert_false(model_block_has_experts(&model, 0));
}

static void test_model__what_the_executor_lacks_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *name, *property;
    } cases[] = {{"mixtral-8x7b", "8 experts (mixtral)"},
                 {"qwen2.5-7b", "biases (qwen2)"},
                 {"bert-base-uncased", "bidirectional (bert)"}};
    struct error err;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model model = load(cases[i].name, NULL);
        assert_int_equal(model_check_executable(&model, "here", &err), STATUS_UNSUPPORTED);
        assert_contains(err.message, "here: ");
        assert_contains(err.message, cases[i].property);
        assert_contains(err.message, "temper plan --cluster");
    }
    struct model dense = load("mistral-7b", NULL);
    assert_ok(model_check_executable(&dense, "here", &err), &err);
}

static void test_model__default_seq_length(void **state)
{
    (void)state;
    assert_int_equal(load("gpt2", NULL).seq_length, 1024);
    assert_int_equal(load("mistral-7b", NULL).seq_length, 4096);
    assert_int_equal(load("llama-3.1-405b", NULL).seq_length, 8192);
    struct model_overrides shorter = {.positions = 100};
    assert_int_equal(load("mistral-7b", &shorter).seq_length, 100);
}

static void test_model__unknown_name_lists_what_there_is(void **state)
{
    (void)state;
    struct model model;
    struct error err;
    assert_int_equal(model_load(&model, "gpt2-mediun", NULL, &err), STATUS_INVALID);
    assert_contains(err.message, "did you mean 'gpt2-medium'");
    for (size_t i = 0; i < model_builtin_count(); i++)
        assert_contains(err.message, model_builtin_name(i));
    assert_contains(err.message, "gpt2, llama, mistral, mixtral, qwen2, qwen2_moe, bert");
    assert_int_not_equal(model_load(&model, "", NULL, &err), STATUS_OK);
    char long_name[4096];
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_not_equal(model_load(&model, long_name, NULL, &err), STATUS_OK);
}

static void test_model__overrides_keep_the_model_consistent(void **state)
{
    (void)state;
    struct model_overrides small = {
        .layers = 4, .hidden = 128, .heads = 4, .seq_length = 64, .vocab_size = 256};
    struct model model = load("gpt2", &small);
    assert_int_equal(model.blocks, 4);
    assert_int_equal(model.head_dim, 32);
    assert_int_equal(model.kv_heads, 4);
    assert_int_equal(model.ffn, 512);
    assert_int_equal(model.vocab, 256);
    assert_int_equal(model.positions, 1024);
    assert_int_equal(model.seq_length, 64);

    model = load("llama-3-8b", &small);
    assert_int_equal(model.kv_heads, 4); /* 8 no longer divides 4 */
    assert_int_equal(model.ffn, 14336);
    struct model_overrides narrow = {.ffn = 512};
    model = load("mixtral-8x7b", &narrow);
    assert_int_equal(model.expert_ffn, 512);
    struct model_overrides grouped = {.hidden = 128, .heads = 8, .kv_heads = 2, .ffn = 344};
    model = load("llama-3-8b", &grouped);
    assert_int_equal(model.kv_heads, 2);
    assert_int_equal(model.head_dim, 16);
    assert_int_equal(model.ffn, 344);
}

static void test_model__bad_overrides_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        struct model_overrides overrides;
        const char *part;
    } cases[] = {
        {"gpt2", {.heads = 7}, "heads"},
        {"gpt2", {.hidden = 100}, "heads"},
        {"gpt2", {.layers = -1}, "layers"},
        {"gpt2", {.hidden = INT64_MAX}, "hidden"},
        {"gpt2", {.vocab_size = INT64_MAX}, "vocab-size"},
        {"gpt2", {.ffn = INT64_C(1) << 40}, "ffn"},
        {"gpt2", {.seq_length = 1025}, "seq_length"},
        {"gpt2", {.positions = 64, .seq_length = 65}, "seq_length"},
        {"gpt2", {.kv_heads = 4}, "kv_heads"},
        {"llama-3-8b", {.kv_heads = 3}, "kv_heads"},
        {"llama-3-8b", {.hidden = 96, .heads = 32}, "head_dim"},
        {"mistral-7b", {.seq_length = 4097}, "sliding window"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model model = {.blocks = 77};
        struct error err;
        enum status status = model_load(&model, cases[i].source, &cases[i].overrides, &err);
        assert_int_not_equal(status, STATUS_OK);
        assert_contains(err.message, cases[i].part);
        assert_contains(err.message, cases[i].source);
        assert_int_equal(model.blocks, 77);
    }
}

static void test_model__each_broken_relation_is_named(void **state)
{
    (void)state;
    struct error err;
#define BREAK(source, change, part)                                                                \
    do {                                                                                           \
        struct model m = load(source, NULL);                                                       \
        change;                                                                                    \
        assert_int_not_equal(model_validate(&m, "here", &err), STATUS_OK);                         \
        assert_contains(err.message, "here: key '" part "'");                                      \
    } while (0)
    BREAK("gpt2", m.family = (enum model_family)7, "family");
    BREAK("gpt2", m.blocks = 0, "blocks");
    BREAK("gpt2", m.hidden = -1, "hidden");
    BREAK("gpt2", m.heads = 0, "heads");
    BREAK("gpt2", m.kv_heads = 0, "kv_heads");
    BREAK("gpt2", m.head_dim = 0, "head_dim");
    BREAK("gpt2", m.ffn = INT64_MAX, "ffn");
    BREAK("gpt2", m.vocab = 0, "vocab");
    BREAK("gpt2", m.positions = 0, "positions");
    BREAK("gpt2", m.seq_length = 0, "seq_length");
    BREAK("gpt2", m.seq_length = 2000, "seq_length");
    BREAK("gpt2", m.hidden = 769, "head_dim");
    BREAK("gpt2", m.kv_heads = 6, "kv_heads");
    BREAK("gpt2", m.norm_epsilon = 0.0, "norm_epsilon");
    BREAK("gpt2", m.norm_epsilon = 0.0 / 0.0, "norm_epsilon");
    BREAK("llama-3-8b", m.kv_heads = 5, "kv_heads");
    BREAK("llama-3-8b", m.head_dim = 127, "head_dim");
    BREAK("llama-3-8b", (m.heads = 65536, m.head_dim = 65536), "head_dim");
    BREAK("llama-3-8b", m.rope_theta = 0.0, "rope_theta");
    BREAK("llama-3-8b", m.rope_theta = 1.0 / 0.0, "rope_theta");
    BREAK("llama-3-8b", m.sliding_window = -1, "sliding_window");
    BREAK("llama-3-8b", m.sliding_window = 4, "seq_length");
    BREAK("llama-3-8b", m.expert_ffn = 8, "expert_ffn");
    BREAK("llama-3-8b", m.moe_every = 1, "moe_every");
    BREAK("llama-3-8b", m.bidirectional = true, "bidirectional");
    BREAK("llama-3-8b", m.segments = 2, "segments");
    BREAK("gpt2", m.segments = 2, "segments");
    BREAK("gpt2", m.qkv_bias = true, "qkv_bias");
    BREAK("gpt2", (m.experts = m.experts_per_token = m.expert_ffn = m.moe_every = 1), "experts");
    BREAK("mixtral-8x7b", m.experts = -1, "experts");
    BREAK("mixtral-8x7b", m.experts = 0, "experts_per_token");
    BREAK("mixtral-8x7b", m.experts_per_token = 9, "experts_per_token");
    BREAK("mixtral-8x7b", m.experts_per_token = 0, "experts_per_token");
    BREAK("mixtral-8x7b", m.expert_ffn = 0, "expert_ffn");
    BREAK("mixtral-8x7b", m.experts = 65536, "expert_ffn");
    BREAK("mixtral-8x7b", m.moe_every = 0, "moe_every");
    BREAK("mixtral-8x7b", m.moe_every = 33, "moe_every");
    BREAK("mixtral-8x7b", m.shared_ffn = -1, "shared_ffn");
#undef BREAK
}

static void test_model__survives_json(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model = load(model_builtin_name(i), NULL), back;
        struct jout *out = jout_new();
        struct text text = {0};
        struct json_document *document;
        struct jin at;
        struct error err;

        model_write(&model, "model", out);
        assert_ok(jout_finish(out, 1, &text, &err), &err);
        assert_ok(json_parse_text(&document, text.data, text.bytes, "text", &err), &err);
        struct jin root = json_root(document);
        assert_ok(jin_object(&root, "model", &at, &err), &err);
        assert_ok(model_read(&back, &at, &err), &err);
        assert_true(model_same_weights(&model, &back));
        assert_string_equal(model.name, back.name);
        assert_int_equal(model.seq_length, back.seq_length);
        assert_int_equal(model.sliding_window, back.sliding_window);
        assert_int_equal(model.positions, back.positions);
        assert_int_equal(model.experts, back.experts);
        assert_int_equal(model.moe_every, back.moe_every);
        assert_int_equal(model.segments, back.segments);
        assert_true((strstr(text.data, "experts") != NULL) == (model.experts > 0));
        json_document_free(document);
        text_free(&text);
    }
}

/* Plans and checkpoints hold these: fields that came later do not change them. */
static void test_model__hashes_of_old_models_stay(void **state)
{
    (void)state;
    struct model gpt2 = load("gpt2", NULL), llama = load("llama-3-8b", NULL);
    assert_true(model_hash(&gpt2) == 0xd1606f0ebbf06d73);
    assert_true(model_hash(&llama) == 0xd785fca660f0f8fe);
}

static void test_model__hash_changes_with_each_size(void **state)
{
    (void)state;
    struct model base = load("gpt2", NULL);
#define CHANGES(expected, change)                                                                  \
    do {                                                                                           \
        struct model m = base;                                                                     \
        change;                                                                                    \
        assert_true((model_hash(&m) != model_hash(&base)) == (expected));                          \
        assert_true(model_same_weights(&m, &base) != (expected));                                  \
    } while (0)
    CHANGES(false, (void)m);
    CHANGES(false, m.seq_length = 7);
    CHANGES(false, m.name[0] = 'X');
    CHANGES(true, m.family = MODEL_LLAMA);
    CHANGES(true, m.blocks++);
    CHANGES(true, m.hidden++);
    CHANGES(true, m.heads++);
    CHANGES(true, m.kv_heads++);
    CHANGES(true, m.head_dim++);
    CHANGES(true, m.ffn++);
    CHANGES(true, m.vocab++);
    CHANGES(true, m.positions++);
    CHANGES(true, m.norm_epsilon *= 2.0);
    CHANGES(true, m.rope_theta += 1.0);
    CHANGES(true, m.tied_head = false);
    base = load("llama-3-8b", NULL);
    CHANGES(false, m.positions++);
    CHANGES(true, m.rope_theta += 1.0);
    CHANGES(true, m.qkv_bias = true);
    base = load("mixtral-8x7b", NULL);
    CHANGES(true, m.experts++);
    CHANGES(true, m.experts_per_token++);
    CHANGES(true, m.expert_ffn++);
    CHANGES(true, m.shared_ffn++);
    CHANGES(true, m.moe_every++);
    base = load("bert-base-uncased", NULL);
    CHANGES(true, m.bidirectional = false);
    CHANGES(true, m.segments++);
#undef CHANGES
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model__parameter_counts_are_the_published_ones),
        cmocka_unit_test(test_model__active_parameters_leave_out_idle_experts),
        cmocka_unit_test(test_model__dense_and_expert_blocks_alternate),
        cmocka_unit_test(test_model__what_the_executor_lacks_is_named),
        cmocka_unit_test(test_model__default_seq_length),
        cmocka_unit_test(test_model__hashes_of_old_models_stay),
        cmocka_unit_test(test_model__unknown_name_lists_what_there_is),
        cmocka_unit_test(test_model__overrides_keep_the_model_consistent),
        cmocka_unit_test(test_model__bad_overrides_are_refused),
        cmocka_unit_test(test_model__each_broken_relation_is_named),
        cmocka_unit_test(test_model__survives_json),
        cmocka_unit_test(test_model__hash_changes_with_each_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
