#include "support.h"

#include "ir/layer.h"
#include "ir/model.h"
#include <math.h>

static struct model load(const char *name)
{
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, NULL, &err), &err);
    return model;
}

static void test_layer_tensors__layers_sum_to_the_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model = load(model_builtin_name(i));
        uint64_t sum = 0;
        for (size_t l = 0; l < model_layer_count(&model); l++)
            sum += layer_parameter_count(&model, model_layer(&model, l).kind);
        assert_true(sum == model_parameter_count(&model));
    }
}

static void test_layer_tensors__roles_and_names_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model = load(model_builtin_name(i));
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct tensor_spec tensors[LAYER_TENSORS_MAX];
            size_t count = layer_tensors(&model, (enum layer_kind)kind, tensors);
            assert_in_range(count, 1, LAYER_TENSORS_MAX);
            for (size_t a = 0; a < count; a++) {
                char name_a[TENSOR_NAME_BYTES];
                tensor_name(&tensors[a], 3, name_a);
                assert_null(strchr(name_a, '%'));
                assert_true(tensors[a].is_vector == (tensors[a].rows == 1));
                assert_true(tensors[a].decays == !tensors[a].is_vector);
                for (size_t b = 0; b < a; b++) {
                    char name_b[TENSOR_NAME_BYTES];
                    assert_string_not_equal(name_a, tensor_name(&tensors[b], 3, name_b));
                    assert_int_not_equal(tensors[a].role, tensors[b].role);
                }
            }
        }
    }
}

static void test_layer_tensors__gpt2_names_and_shapes(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    char name[TENSOR_NAME_BYTES];

    assert_int_equal(layer_tensors(&model, LAYER_ATTENTION, tensors), 6);
    assert_string_equal(tensor_name(&tensors[2], 11, name), "transformer.h.11.attn.c_attn.weight");
    assert_int_equal(tensors[2].role, ROLE_Q_WEIGHT);
    assert_int_equal(tensors[2].rows, 768);
    assert_int_equal(tensors[2].cols, 2304);
    assert_int_equal(layer_tensors(&model, LAYER_MLP, tensors), 6);
    assert_string_equal(tensor_name(&tensors[4], 0, name), "transformer.h.0.mlp.c_proj.weight");
    assert_int_equal(tensors[4].rows, 3072);
    assert_near(tensors[4].init_deviation, 0.02 / sqrt(24.0), 1e-15);
    assert_int_equal(layer_tensors(&model, LAYER_HEAD, tensors), 2);
    model.tied_head = false;
    assert_int_equal(layer_tensors(&model, LAYER_HEAD, tensors), 3);
    assert_string_equal(tensor_name(&tensors[2], 0, name), "lm_head.weight");
    assert_int_equal(tensors[2].role, ROLE_HEAD_WEIGHT);
}

static void test_layer_tensors__llama_neighbours_form_one_matrix(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    char name[TENSOR_NAME_BYTES];

    assert_int_equal(layer_tensors(&model, LAYER_ATTENTION, tensors), 5);
    assert_int_equal(tensors[1].role, ROLE_Q_WEIGHT);
    assert_int_equal(tensors[2].role, ROLE_K_WEIGHT);
    assert_int_equal(tensors[3].role, ROLE_V_WEIGHT);
    assert_int_equal(tensors[1].rows, 4096);
    assert_int_equal(tensors[2].rows, 1024);
    assert_string_equal(tensor_name(&tensors[2], 31, name),
                        "model.layers.31.self_attn.k_proj.weight");
    assert_int_equal(layer_tensors(&model, LAYER_MLP, tensors), 4);
    assert_int_equal(tensors[1].role, ROLE_GATE_WEIGHT);
    assert_int_equal(tensors[2].role, ROLE_UP_WEIGHT);
    assert_int_equal(tensors[1].cols, tensors[2].cols);
}

static void test_layer_tensors__wide_heads_shape_the_projections(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    model.head_dim = 256; /* heads * head_dim is twice hidden */
    layer_tensors(&model, LAYER_ATTENTION, tensors);
    assert_int_equal(tensors[1].rows, 8192);
    assert_int_equal(tensors[1].cols, 4096);
    assert_int_equal(tensors[4].rows, 4096);
    assert_int_equal(tensors[4].cols, 8192);
}

static void test_layer_tensors__flat_count_is_aligned(void **state)
{
    (void)state;
    struct model model = load("tinyllama-1.1b");
    model.hidden = 6, model.heads = 3, model.kv_heads = 1, model.head_dim = 2;
    for (int64_t ffn = 1; ffn < 40; ffn++) {
        model.ffn = ffn;
        uint64_t exact = layer_parameter_count(&model, LAYER_MLP);
        uint64_t flat = layer_flat_count(&model, LAYER_MLP);
        assert_true(flat % LAYER_ALIGN_ELEMENTS == 0);
        assert_true(flat >= exact && flat < exact + LAYER_ALIGN_ELEMENTS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_tensors__layers_sum_to_the_model),
        cmocka_unit_test(test_layer_tensors__roles_and_names_are_unique),
        cmocka_unit_test(test_layer_tensors__gpt2_names_and_shapes),
        cmocka_unit_test(test_layer_tensors__llama_neighbours_form_one_matrix),
        cmocka_unit_test(test_layer_tensors__wide_heads_shape_the_projections),
        cmocka_unit_test(test_layer_tensors__flat_count_is_aligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
