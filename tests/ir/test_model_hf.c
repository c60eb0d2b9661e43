#include "support.h"

#include "ir/model.h"

static const char gpt2_text[] = "{\"architectures\": [\"GPT2LMHeadModel\"], "
                                "\"model_type\": \"gpt2\", "
                                "\"activation_function\": \"gelu_new\", "
                                "\"n_layer\": 2, "
                                "\"n_embd\": 32, "
                                "\"n_head\": 4, "
                                "\"n_inner\": null, "
                                "\"n_positions\": 64, "
                                "\"n_ctx\": 64, "
                                "\"vocab_size\": 100, "
                                "\"layer_norm_epsilon\": 1e-05, "
                                "\"resid_pdrop\": 0.1, "
                                "\"tie_word_embeddings\": true}";
static const char llama_text[] = "{\"architectures\": [\"LlamaForCausalLM\"], "
                                 "\"model_type\": \"llama\", "
                                 "\"hidden_act\": \"silu\", "
                                 "\"hidden_size\": 32, "
                                 "\"intermediate_size\": 88, "
                                 "\"num_attention_heads\": 4, "
                                 "\"num_key_value_heads\": 2, "
                                 "\"num_hidden_layers\": 2, "
                                 "\"vocab_size\": 100, "
                                 "\"max_position_embeddings\": 64, "
                                 "\"rms_norm_eps\": 1e-05, "
                                 "\"rope_theta\": 10000.0, "
                                 "\"rope_scaling\": null, "
                                 "\"attention_bias\": false, "
                                 "\"tie_word_embeddings\": false}";

static enum status load_text(const char *text, struct model *model, struct error *err)
{
    const char *path = temporary_file(text);
    enum status status = model_load(model, path, NULL, err);
    if (status != STATUS_OK)
        assert_contains(err->message, path);
    unlink(path);
    return status;
}

static struct model load(const char *text)
{
    struct model model;
    struct error err;
    assert_ok(load_text(text, &model, &err), &err);
    return model;
}

static struct model load_changed(const char *text, const char *old, const char *by)
{
    char *changed = replaced(text, old, by);
    struct model model = load(changed);
    free(changed);
    return model;
}

static void test_model_hf__shared_configs_equal_the_builtins(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2",         "gpt2-xl",          "gpt3-175b",
                                        "llama-2-7b",   "llama-3-8b",       "llama-3-70b",
                                        "mistral-7b",   "tinyllama-1.1b",   "llama-3.1-405b",
                                        "mixtral-8x7b", "bert-base-uncased"};
    for (size_t i = 0; i < COUNT(names); i++) {
        char path[256];
        struct model builtin, config;
        struct error err;
        snprintf(path, sizeof(path), "%s/models/%s.json", TEMPER_SHARED_DIR, names[i]);
        if (!file_exists(path))
            skip();
        assert_ok(model_load(&builtin, names[i], NULL, &err), &err);
        assert_ok(model_load(&config, path, NULL, &err), &err);
        assert_true(model_same_weights(&builtin, &config));
        assert_int_equal(builtin.positions, config.positions);
        assert_int_equal(builtin.sliding_window, config.sliding_window);
        assert_int_equal(builtin.seq_length, config.seq_length);
    }
}

/* qwen2.5-7b's file has another epsilon than Qwen published. */
static void test_model_hf__shared_config_of_qwen2(void **state)
{
    (void)state;
    struct model model;
    struct error err;
    const char *path = TEMPER_SHARED_DIR "/models/qwen2.5-7b.json";
    if (!file_exists(path))
        skip();
    assert_ok(model_load(&model, path, NULL, &err), &err);
    assert_true(model.qkv_bias);
    assert_int_equal(model.seq_length, 8192);
    assert_true(model_parameter_count(&model) == 7615616512);
}

static void test_model_hf__megatron_sizes_load(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        double billions;
    } cases[] = {{"megatron-22b", 22.0}, {"megatron-1t", 1008.0}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        char path[256];
        struct model model;
        struct error err;
        snprintf(path, sizeof(path), "%s/models/%s.json", TEMPER_SHARED_DIR, cases[i].file);
        if (!file_exists(path))
            skip();
        assert_ok(model_load(&model, path, NULL, &err), &err);
        double billions = (double)model_parameter_count(&model) / 1e9;
        assert_true(billions > cases[i].billions * 0.98 && billions < cases[i].billions * 1.02);
    }
}

static void test_model_hf__optional_keys_have_their_defaults(void **state)
{
    (void)state;
    struct model model = load(gpt2_text);
    assert_int_equal(model.ffn, 128);
    assert_int_equal(model.kv_heads, 4);
    assert_true(model.tied_head);
    assert_int_equal(load_changed(gpt2_text, "\"n_inner\": null", "\"n_inner\": 50").ffn, 50);
    assert_true(load_changed(gpt2_text, ", \"tie_word_embeddings\": true", "").tied_head);
    assert_false(
        load_changed(gpt2_text, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false")
            .tied_head);
    assert_int_equal(load_changed(gpt2_text, "\"n_ctx\": 64, ", "").positions, 64);

    assert_false(load_changed(llama_text, ", \"tie_word_embeddings\": false", "").tied_head);
    assert_int_equal(load_changed(llama_text, "\"num_key_value_heads\": 2, ", "").kv_heads, 4);
    assert_true(load_changed(llama_text, "\"rope_theta\": 10000.0, ", "").rope_theta == 1e4);
    assert_true(load_changed(llama_text, "\"rms_norm_eps\": 1e-05, ", "").norm_epsilon == 1e-6);
    assert_true(load_changed(llama_text, "10000.0", "500000").rope_theta == 5e5);
}

static void test_model_hf__llama_variants(void **state)
{
    (void)state;
    struct model model = load_changed(llama_text, "\"rope_scaling\": null",
                                      "\"rope_scaling\": {\"rope_type\": \"default\"}");
    assert_int_equal(model.head_dim, 8);
    model = load_changed(llama_text, "\"rope_scaling\": null",
                         "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 7.0}");
    assert_true(model.rope_theta == 7.0);
    model = load_changed(llama_text, "\"rope_scaling\": null", "\"head_dim\": 16");
    assert_int_equal(model.head_dim, 16); /* heads * head_dim need not be hidden */
    model = load_changed(llama_text, "\"num_attention_heads\": 4",
                         "\"head_dim\": 10, \"num_attention_heads\": 6");
    assert_int_equal(model.head_dim, 10); /* nor need heads divide hidden */
}

static void test_model_hf__mistral_window(void **state)
{
    (void)state;
    char *family = replaced(llama_text, "\"llama\"", "\"mistral\"");
    char *text = replaced(family, "LlamaForCausalLM", "MistralForCausalLM");
    assert_int_equal(load(text).sliding_window, 4096);
    assert_int_equal(
        load_changed(text, "\"rope_scaling\": null", "\"sliding_window\": null").sliding_window, 0);
    struct model model = load_changed(text, "\"rope_scaling\": null", "\"sliding_window\": 16");
    assert_int_equal(model.sliding_window, 16);
    assert_int_equal(model.seq_length, 16);
    assert_int_equal(model.family, MODEL_LLAMA);
    free(text);
    free(family);
}

static const char mixtral_text[] = "{\"architectures\": [\"MixtralForCausalLM\"], "
                                   "\"model_type\": \"mixtral\", "
                                   "\"hidden_size\": 32, "
                                   "\"intermediate_size\": 88, "
                                   "\"num_attention_heads\": 4, "
                                   "\"num_key_value_heads\": 2, "
                                   "\"num_hidden_layers\": 4, "
                                   "\"vocab_size\": 100, "
                                   "\"max_position_embeddings\": 64, "
                                   "\"num_local_experts\": 8, "
                                   "\"num_experts_per_tok\": 2}";
static const char qwen2_moe_text[] = "{\"model_type\": \"qwen2_moe\", "
                                     "\"hidden_size\": 32, "
                                     "\"intermediate_size\": 88, "
                                     "\"num_attention_heads\": 4, "
                                     "\"num_hidden_layers\": 4, "
                                     "\"vocab_size\": 100, "
                                     "\"max_position_embeddings\": 64, "
                                     "\"num_experts\": 6, "
                                     "\"num_experts_per_tok\": 2, "
                                     "\"moe_intermediate_size\": 24, "
                                     "\"shared_expert_intermediate_size\": 48, "
                                     "\"mlp_only_layers\": [], "
                                     "\"decoder_sparse_step\": 2}";
static const char bert_text[] = "{\"architectures\": [\"BertForMaskedLM\"], "
                                "\"model_type\": \"bert\", "
                                "\"hidden_act\": \"gelu\", "
                                "\"hidden_size\": 32, "
                                "\"intermediate_size\": 128, "
                                "\"num_attention_heads\": 4, "
                                "\"num_hidden_layers\": 2, "
                                "\"vocab_size\": 100, "
                                "\"max_position_embeddings\": 64, "
                                "\"is_decoder\": false}";

static void test_model_hf__mixtral(void **state)
{
    (void)state;
    struct model model = load(mixtral_text);
    assert_int_equal(model.family, MODEL_LLAMA);
    assert_int_equal(model.experts, 8);
    assert_int_equal(model.experts_per_token, 2);
    assert_int_equal(model.expert_ffn, 88);
    assert_int_equal(model.moe_every, 1);
    assert_true(model.rope_theta == 1e6);
    assert_string_equal(model_type_name(&model), "mixtral");
    model = load_changed(mixtral_text, "\"num_local_experts\"",
                         "\"sliding_window\": 16, \"num_local_experts\"");
    assert_int_equal(model.sliding_window, 16);
}

static void test_model_hf__qwen2_moe(void **state)
{
    (void)state;
    struct model model = load(qwen2_moe_text);
    assert_int_equal(model.experts, 6);
    assert_int_equal(model.expert_ffn, 24);
    assert_int_equal(model.shared_ffn, 48);
    assert_int_equal(model_expert_blocks(&model), 2);
    assert_true(model.qkv_bias);
    assert_string_equal(model_type_name(&model), "qwen2_moe");
    struct text text = {0};
    struct error err;
    assert_ok(model_write_hf_config(&model, &text, &err), &err);
    struct model back = load(text.data);
    assert_true(model_same_weights(&model, &back));
    text_free(&text);
    assert_false(
        load_changed(qwen2_moe_text, "\"num_experts\"", "\"qkv_bias\": false, \"num_experts\"")
            .qkv_bias);
}

static void test_model_hf__bert(void **state)
{
    (void)state;
    struct model model = load(bert_text);
    assert_int_equal(model.family, MODEL_GPT2);
    assert_true(model.bidirectional && model.tied_head);
    assert_int_equal(model.segments, 2);
    assert_true(model.norm_epsilon == 1e-12);
    model = load_changed(bert_text, "\"is_decoder\"", "\"type_vocab_size\": 3, \"is_decoder\"");
    assert_int_equal(model.segments, 3);
}

struct hostile {
    const char *base, *old, *by, *key;
};

static const struct hostile hostile_cases[] = {
    {gpt2_text, "\"gpt2\"", "\"t5\"", "model_type"},
    {gpt2_text, "\"gpt2\"", "\"bert\"", "hidden_size"},
    {gpt2_text, "\"gpt2\"", "3", "model_type"},
    {gpt2_text, "\"model_type\": \"gpt2\", ", "", "model_type"},
    {gpt2_text, "\"n_layer\": 2, ", "", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": null", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 0", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": -3", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 2.5", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": \"2\"", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": [2]", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": true", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 9223372036854775807", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 1e300", "n_layer"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 99999999999999999999", "line 1"},
    {gpt2_text, "\"n_layer\": 2", "\"n_layer\": 2, \"n_layer\": 3", "n_layer"},
    {gpt2_text, "\"n_embd\": 32", "\"n_embd\": 33", "n_head"},
    {gpt2_text, "\"n_embd\": 32", "\"n_embd\": 4611686018427387904", "n_embd"},
    {gpt2_text, "\"n_head\": 4", "\"n_head\": 5", "n_head"},
    {gpt2_text, "\"n_inner\": null", "\"n_inner\": 0", "n_inner"},
    {gpt2_text, "\"n_inner\": null", "\"n_inner\": \"big\"", "n_inner"},
    {gpt2_text, "\"n_positions\": 64, ", "", "n_positions"},
    {gpt2_text, "\"n_ctx\": 64", "\"n_ctx\": 65", "n_ctx"},
    {gpt2_text, "\"n_ctx\": 64", "\"n_ctx\": \"64\"", "n_ctx"},
    {gpt2_text, "\"vocab_size\": 100", "\"vocab_size\": 0", "vocab_size"},
    {gpt2_text, "gelu_new", "relu", "activation_function"},
    {gpt2_text, "\"gelu_new\"", "[]", "activation_function"},
    {gpt2_text, "1e-05", "-1", "'layer_norm_epsilon'"},
    {gpt2_text, "1e-05", "\"x\"", "layer_norm_epsilon"},
    {gpt2_text, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1",
     "tie_word_embeddings"},
    {gpt2_text, "\"resid_pdrop\"", "\"scale_attn_weights\": false, \"resid_pdrop\"",
     "scale_attn_weights"},
    {gpt2_text, "\"resid_pdrop\"", "\"add_cross_attention\": true, \"resid_pdrop\"",
     "add_cross_attention"},
    {gpt2_text, "\"resid_pdrop\"", "\"scale_attn_by_inverse_layer_idx\": true, \"resid_pdrop\"",
     "scale_attn_by_inverse_layer_idx"},
    {gpt2_text, "GPT2LMHeadModel", "LlamaForCausalLM", "architectures"},
    {gpt2_text, "[\"GPT2LMHeadModel\"]", "[3]", "architectures"},
    {gpt2_text, "[\"GPT2LMHeadModel\"]", "\"GPT2LMHeadModel\"", "architectures"},
    {llama_text, "\"silu\"", "\"gelu\"", "hidden_act"},
    {llama_text, "\"num_attention_heads\": 4", "\"num_attention_heads\": 5", "num_attention_heads"},
    {llama_text, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_key_value_heads"},
    {llama_text, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 8", "num_key_value_heads"},
    {llama_text, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0", "num_key_value_heads"},
    {llama_text, "\"intermediate_size\": 88, ", "", "intermediate_size"},
    {llama_text, "\"hidden_size\": 32", "\"hidden_size\": 36", "num_attention_heads"},
    {llama_text, "\"rope_scaling\": null", "\"head_dim\": 7", "head_dim"},
    {llama_text, "\"rope_scaling\": null", "\"head_dim\": 0", "head_dim"},
    {llama_text, "\"rope_scaling\": null", "\"head_dim\": \"x\"", "head_dim"},
    {llama_text, "\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\"}",
     "rope_scaling"},
    {llama_text, "\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"llama3\"}",
     "rope_scaling"},
    {llama_text, "\"rope_scaling\": null", "\"rope_scaling\": {}", "rope_scaling"},
    {llama_text, "\"rope_scaling\": null", "\"rope_scaling\": 2", "rope_scaling"},
    {llama_text, "\"rope_scaling\": null", "\"mlp_bias\": true", "mlp_bias"},
    {llama_text, "\"rope_scaling\": null", "\"partial_rotary_factor\": 0.5",
     "partial_rotary_factor"},
    {llama_text, "\"attention_bias\": false", "\"attention_bias\": true", "attention_bias"},
    {llama_text, "\"attention_bias\": false", "\"attention_bias\": \"no\"", "attention_bias"},
    {mixtral_text, "\"num_local_experts\": 8, ", "", "num_local_experts"},
    {mixtral_text, "\"num_local_experts\": 8", "\"num_local_experts\": 1", "experts_per_token"},
    {mixtral_text, "\"num_local_experts\": 8", "\"num_local_experts\": 0", "num_local_experts"},
    {qwen2_moe_text, "\"moe_intermediate_size\": 24, ", "", "moe_intermediate_size"},
    {qwen2_moe_text, "\"decoder_sparse_step\": 2", "\"decoder_sparse_step\": 9", "moe_every"},
    {qwen2_moe_text, "\"mlp_only_layers\": []", "\"mlp_only_layers\": [0]", "mlp_only_layers"},
    {qwen2_moe_text, "\"decoder_sparse_step\"",
     "\"use_sliding_window\": true, \"decoder_sparse_step\"", "use_sliding_window"},
    {bert_text, "\"is_decoder\": false", "\"is_decoder\": true", "is_decoder"},
    {bert_text, "\"is_decoder\": false", "\"position_embedding_type\": \"relative_key\"",
     "position_embedding_type"},
    {bert_text, "\"gelu\"", "\"relu\"", "hidden_act"},
    {llama_text, "10000.0", "0", "rope_theta"},
    {llama_text, "10000.0", "-5", "rope_theta"},
    {llama_text, "LlamaForCausalLM", "LlamaForSequenceClassification", "architectures"},
};

static void test_model_hf__hostile_configs_name_the_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(hostile_cases); i++) {
        const struct hostile *c = &hostile_cases[i];
        struct model model = {.blocks = 77};
        struct error err;
        char *text = replaced(c->base, c->old, c->by);
        if (load_text(text, &model, &err) == STATUS_OK)
            fail_msg("accepted: %s", text);
        assert_contains(err.message, c->key);
        assert_int_equal(model.blocks, 77);
        free(text);
    }
}

static void test_model_hf__missing_key_lists_what_the_type_needs(void **state)
{
    (void)state;
    struct model model;
    struct error err;
    char *text = replaced(gpt2_text, "\"n_head\": 4, ", "");
    assert_int_equal(load_text(text, &model, &err), STATUS_INVALID);
    assert_contains(err.message, "'n_head'");
    assert_contains(err.message, "n_layer, n_embd, n_head, n_positions, vocab_size");
    free(text);
}

static void test_model_hf__every_truncation_is_refused(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes + 1 < sizeof(llama_text) - 1; bytes += 7) {
        struct model model;
        struct error err;
        char *text = strndup(llama_text, bytes);
        assert_non_null(text);
        assert_int_equal(load_text(text, &model, &err), STATUS_INVALID);
        free(text);
    }
    static const char *const others[] = {"[]", "null", "3", "\"gpt2\"", "{}", "{\"a\": {}}"};
    for (size_t i = 0; i < COUNT(others); i++) {
        struct model model;
        struct error err;
        assert_int_equal(load_text(others[i], &model, &err), STATUS_INVALID);
    }
}

static void test_model_hf__written_configs_load_as_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model;
        struct text text = {0};
        struct error err;
        assert_ok(model_load(&model, model_builtin_name(i), NULL, &err), &err);
        assert_ok(model_write_hf_config(&model, &text, &err), &err);
        struct model back = load(text.data);
        assert_true(model_same_weights(&model, &back));
        assert_int_equal(model.positions, back.positions);
        assert_int_equal(model.sliding_window, back.sliding_window);
        text_free(&text);
    }
}

static void test_model_hf__a_folder_stands_for_its_config(void **state)
{
    (void)state;
    char folder[64], path[96];
    struct model model;
    struct error err;
    snprintf(folder, sizeof(folder), "/tmp/temper-ir-folder-%ld", (long)getpid());
    snprintf(path, sizeof(path), "%s/config.json", folder);
    assert_ok(folder_create(folder, &err), &err);
    assert_int_not_equal(model_load(&model, folder, NULL, &err), STATUS_OK);
    assert_contains(err.message, "config.json");
    assert_ok(file_write(path, llama_text, strlen(llama_text), &err), &err);
    assert_ok(model_load(&model, folder, NULL, &err), &err);
    assert_int_equal(model.ffn, 88);
    assert_string_equal(model.name, "config.json");
    assert_ok(folder_remove(folder, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_hf__shared_configs_equal_the_builtins),
        cmocka_unit_test(test_model_hf__shared_config_of_qwen2),
        cmocka_unit_test(test_model_hf__mixtral),
        cmocka_unit_test(test_model_hf__qwen2_moe),
        cmocka_unit_test(test_model_hf__bert),
        cmocka_unit_test(test_model_hf__megatron_sizes_load),
        cmocka_unit_test(test_model_hf__optional_keys_have_their_defaults),
        cmocka_unit_test(test_model_hf__llama_variants),
        cmocka_unit_test(test_model_hf__mistral_window),
        cmocka_unit_test(test_model_hf__hostile_configs_name_the_key),
        cmocka_unit_test(test_model_hf__missing_key_lists_what_the_type_needs),
        cmocka_unit_test(test_model_hf__every_truncation_is_refused),
        cmocka_unit_test(test_model_hf__written_configs_load_as_the_same),
        cmocka_unit_test(test_model_hf__a_folder_stands_for_its_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
