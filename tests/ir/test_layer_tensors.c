#include "support.h"

#include "base/rng.h"
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
        if (model.experts > 0)
            continue;
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
    assert_string_equal(tensor_name(&tensors[0], 11, name), "transformer.h.11.attn.c_attn.weight");
    assert_int_equal(tensors[0].role, ROLE_Q_WEIGHT);
    assert_int_equal(tensors[0].rows, 768);
    assert_int_equal(tensors[0].cols, 2304);
    assert_int_equal(layer_tensors(&model, LAYER_MLP, tensors), 6);
    assert_string_equal(tensor_name(&tensors[1], 0, name), "transformer.h.0.mlp.c_proj.weight");
    assert_int_equal(tensors[1].rows, 3072);
    assert_near(tensors[1].init_deviation, 0.02 / sqrt(24.0), 1e-15);
    assert_int_equal(layer_tensors(&model, LAYER_HEAD, tensors), 2);
    model.tied_head = false;
    assert_int_equal(layer_tensors(&model, LAYER_HEAD, tensors), 3);
    assert_string_equal(tensor_name(&tensors[0], 0, name), "lm_head.weight");
    assert_int_equal(tensors[0].role, ROLE_HEAD_WEIGHT);
}

static void test_layer_tensors__llama_neighbours_form_one_matrix(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    char name[TENSOR_NAME_BYTES];

    assert_int_equal(layer_tensors(&model, LAYER_ATTENTION, tensors), 5);
    assert_int_equal(tensors[0].role, ROLE_Q_WEIGHT);
    assert_int_equal(tensors[1].role, ROLE_K_WEIGHT);
    assert_int_equal(tensors[2].role, ROLE_V_WEIGHT);
    assert_int_equal(tensors[0].rows, 4096);
    assert_int_equal(tensors[1].rows, 1024);
    assert_string_equal(tensor_name(&tensors[1], 31, name),
                        "model.layers.31.self_attn.k_proj.weight");
    assert_int_equal(layer_tensors(&model, LAYER_MLP, tensors), 4);
    assert_int_equal(tensors[0].role, ROLE_GATE_WEIGHT);
    assert_int_equal(tensors[1].role, ROLE_UP_WEIGHT);
    assert_int_equal(tensors[0].cols, tensors[1].cols);
}

static void test_layer_tensors__wide_heads_shape_the_projections(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    struct tensor_spec tensors[LAYER_TENSORS_MAX];
    model.head_dim = 256; /* heads * head_dim is twice hidden */
    layer_tensors(&model, LAYER_ATTENTION, tensors);
    assert_int_equal(tensors[0].rows, 8192);
    assert_int_equal(tensors[0].cols, 4096);
    assert_int_equal(tensors[3].rows, 4096);
    assert_int_equal(tensors[3].cols, 8192);
}

/* Of what the executor can run, the tensors are all that there is to count. */
static void test_layer_tensors__executable_layers_have_no_other_parameters(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model = load(model_builtin_name(i));
        struct error err;
        if (model_check_executable(&model, "here", &err) != STATUS_OK)
            continue;
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct tensor_spec tensors[LAYER_TENSORS_MAX];
            size_t count = layer_tensors(&model, (enum layer_kind)kind, tensors);
            uint64_t sum = 0;
            for (size_t t = 0; t < count; t++)
                sum += tensor_count(&tensors[t]);
            assert_true(sum == layer_parameter_count(&model, (enum layer_kind)kind));
        }
    }
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

static bool is_norm(enum tensor_role role)
{
    return role == ROLE_NORM_WEIGHT || role == ROLE_NORM_BIAS;
}

static void test_layer_tensors__matrices_come_first_then_norms(void **state)
{
    (void)state;
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model model = load(model_builtin_name(i));
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct tensor_spec tensors[LAYER_TENSORS_MAX];
            size_t count = layer_tensors(&model, (enum layer_kind)kind, tensors);
            for (size_t t = 1; t < count; t++) {
                assert_true(tensors[t].is_vector || !tensors[t - 1].is_vector);
                if (is_norm(tensors[t].role))
                    assert_true(!tensors[t - 1].is_vector || is_norm(tensors[t - 1].role));
            }
        }
    }
}

/* ---- parts ---- */

/* A small model whose heads and columns, but not always its vocabulary, divide by `ways`. */
static struct model splittable_model(uint64_t seed, int ways)
{
    struct model model = load(seed % 2 == 0 ? "gpt2" : "llama-3-8b");
    model.kv_heads = ways * (1 + (int64_t)rng_below(seed, 0, 1, 2));
    model.heads = model.kv_heads * (1 + (int64_t)rng_below(seed, 0, 2, 2));
    model.head_dim = 2 + 2 * (int64_t)rng_below(seed, 0, 3, 2);
    model.hidden = 1 + (int64_t)rng_below(seed, 0, 4, 30);
    model.ffn = ways * (1 + (int64_t)rng_below(seed, 0, 5, 9));
    model.vocab = ways * ways + (int64_t)rng_below(seed, 0, 6, 50);
    model.positions = 1 + (int64_t)rng_below(seed, 0, 7, 9);
    model.tied_head = rng_below(seed, 0, 8, 2) == 0;
    return model;
}

static void cover(unsigned char *map, int64_t rows, int64_t cols, int64_t row, int64_t col,
                  const struct tensor_slice *slice)
{
    assert_true(slice->rows > 0 && slice->cols > 0);
    assert_true(row >= 0 && row + slice->rows <= rows);
    assert_true(col >= 0 && col + slice->cols <= cols);
    for (int64_t r = row; r < row + slice->rows; r++)
        for (int64_t c = col; c < col + slice->cols; c++)
            map[r * cols + c]++;
}

/* How many of the map's elements were covered once; none may be more often. */
static uint64_t covered(const unsigned char *map, uint64_t count)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        assert_in_range(map[i], 0, 1);
        sum += map[i];
    }
    return sum;
}

/* Tensor `index` of the layer: what the ranks hold of it makes the whole, each element once. */
static void check_tiles(const struct model *model, struct layer_part part, size_t index)
{
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    struct tensor_spec whole;
    unsigned char *map = NULL;
    for (part.index = 0; part.index < part.ways; part.index++) {
        (void)layer_part_tensors(model, &part, tensors);
        const struct tensor_part *tensor = &tensors[index];
        uint64_t held = tensor_part_count(tensor), real = 0;
        whole = tensor->whole;
        if (map == NULL)
            map = calloc(tensor_count(&whole), 1);
        unsigned char *local = calloc(held, 1);
        assert_true(map != NULL && local != NULL);
        for (size_t i = 0; i < tensor->slice_count; i++) {
            const struct tensor_slice *s = &tensor->slices[i];
            if (tensor->is_split || part.index == 0)
                cover(map, whole.rows, whole.cols, s->row, s->col, s);
            cover(local, tensor->rows, tensor->cols, s->local_row, s->local_col, s);
            real += (uint64_t)(s->rows * s->cols);
        }
        assert_true(covered(local, held) == real);
        free(local);
        if (whole.role == ROLE_TOKEN_EMBEDDING || whole.role == ROLE_HEAD_WEIGHT)
            real += (uint64_t)((part_vocab_rows(model, &part) - part_vocab_valid(model, &part)) *
                               model->hidden);
        assert_true(real == held);
        assert_true(tensor->is_split || held == tensor_count(&whole));
    }
    assert_true(covered(map, tensor_count(&whole)) == tensor_count(&whole));
    free(map);
}

static void test_layer_tensors__slices_of_all_ranks_tile_every_tensor(void **state)
{
    (void)state;
    struct error err;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct layer_part part = {.ways = 1 + (int)(seed / 2 % 6)};
        struct model model = splittable_model(seed, part.ways);
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct tensor_part tensors[LAYER_TENSORS_MAX];
            part.kind = (enum layer_kind)kind;
            part.owns_table = part.kind == LAYER_HEAD && model.tied_head && seed % 3 == 0;
            part.index = 0;
            assert_ok(layer_part_check(&model, &part, &err), &err);
            size_t count = layer_part_tensors(&model, &part, tensors);
            for (size_t i = 0; i < count; i++)
                check_tiles(&model, part, i);
        }
    }
}

static void test_layer_tensors__only_norms_positions_and_last_biases_are_replicated(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct model model = splittable_model(seed, 2);
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct tensor_part tensors[LAYER_TENSORS_MAX];
            struct layer_part part = {.kind = (enum layer_kind)kind, .ways = 2};
            size_t count = layer_part_tensors(&model, &part, tensors);
            for (size_t i = 0; i < count; i++) {
                enum tensor_role role = tensors[i].whole.role;
                bool whole = is_norm(role) || role == ROLE_POSITION_EMBEDDING ||
                             role == ROLE_OUT_BIAS || role == ROLE_DOWN_BIAS;
                assert_int_equal(tensors[i].is_split, !whole);
            }
        }
    }
}

/* The ranks' counts, less what they replicate and pad, add up to the layer's parameters. */
static void test_layer_tensors__counts_of_all_ranks_sum_to_the_layer(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct layer_part part = {.ways = 1 + (int)(seed / 2 % 6)};
        struct model model = splittable_model(seed, part.ways);
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            uint64_t sum = 0;
            part.kind = (enum layer_kind)kind;
            for (part.index = 0; part.index < part.ways; part.index++) {
                struct tensor_part tensors[LAYER_TENSORS_MAX];
                struct part_counts counts = layer_part_counts(&model, &part);
                size_t count = layer_part_tensors(&model, &part, tensors);
                uint64_t matrices = 0, vectors = 0, partial = 0;
                for (size_t i = 0; i < count; i++) {
                    uint64_t held = tensor_part_count(&tensors[i]);
                    *(tensors[i].whole.stays_whole ? &vectors : &matrices) += held;
                    partial += is_norm(tensors[i].whole.role) ? held : 0;
                    for (size_t s = 0; s < tensors[i].slice_count; s++)
                        if (tensors[i].is_split || part.index == 0)
                            sum +=
                                (uint64_t)(tensors[i].slices[s].rows * tensors[i].slices[s].cols);
                }
                assert_true(counts.matrices == (matrices + 15) / 16 * 16);
                assert_true(counts.vectors == (vectors + 15) / 16 * 16);
                assert_true(counts.partial == partial);
            }
            assert_true(sum == layer_parameter_count(&model, (enum layer_kind)kind));
        }
    }
}

/* gpt2's c_attn is q, k, v side by side, 768 columns each: the last of four ranks has the columns
 * 576 .. 767 of each, 3 heads of 64. */
static void test_layer_tensors__a_part_of_c_attn_by_hand(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct layer_part part = {.kind = LAYER_ATTENTION, .ways = 4, .index = 3};
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    assert_int_equal(layer_part_tensors(&model, &part, tensors), 6);
    const struct tensor_part *qkv = &tensors[0];
    assert_int_equal(qkv->whole.role, ROLE_Q_WEIGHT);
    assert_int_equal(qkv->rows, 768);
    assert_int_equal(qkv->cols, 576);
    assert_int_equal(qkv->slice_count, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(qkv->slices[i].col, 768 * i + 576);
        assert_int_equal(qkv->slices[i].local_col, 192 * i);
        assert_int_equal(qkv->slices[i].rows, 768);
        assert_int_equal(qkv->slices[i].cols, 192);
    }
    assert_int_equal(tensors[1].whole.role, ROLE_OUT_WEIGHT);
    assert_int_equal(tensors[1].rows, 192);
    assert_int_equal(tensors[1].slices[0].row, 576);
    struct part_counts counts = layer_part_counts(&model, &part);
    assert_int_equal(counts.matrices, 768 * 576 + 192 * 768);
    assert_int_equal(counts.vectors, 2 * 768 + 576 + 768);
    assert_int_equal(counts.partial, 2 * 768);
}

/* gpt2's positions stay whole: they count with the vectors, though no norm's. */
static void test_layer_tensors__positions_stand_apart_from_the_table(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct layer_part part = {.kind = LAYER_EMBEDDING, .ways = 2};
    struct part_counts counts = layer_part_counts(&model, &part);
    assert_int_equal(counts.matrices, 25129 * 768);
    assert_int_equal(counts.vectors, 1024 * 768);
    assert_int_equal(counts.partial, 0);
}

static void test_layer_tensors__an_owned_table_is_the_embeddings(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct tensor_part tensors[LAYER_TENSORS_MAX];
    struct layer_part part = {.kind = LAYER_HEAD, .ways = 2, .index = 1};
    char name[TENSOR_NAME_BYTES];
    assert_int_equal(layer_part_tensors(&model, &part, tensors), 2);
    part.owns_table = true;
    assert_int_equal(layer_part_tensors(&model, &part, tensors), 3);
    assert_int_equal(tensors[0].whole.role, ROLE_HEAD_WEIGHT);
    assert_string_equal(tensor_name(&tensors[0].whole, 0, name), "transformer.wte.weight");
    assert_near(tensors[0].whole.init_deviation, 0.02, 0.0);
    assert_int_equal(tensors[0].rows, 25129);
    assert_int_equal(tensors[0].slices[0].row, 25129);
    assert_int_equal(tensors[0].slices[0].rows, 25128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_tensors__layers_sum_to_the_model),
        cmocka_unit_test(test_layer_tensors__roles_and_names_are_unique),
        cmocka_unit_test(test_layer_tensors__gpt2_names_and_shapes),
        cmocka_unit_test(test_layer_tensors__llama_neighbours_form_one_matrix),
        cmocka_unit_test(test_layer_tensors__wide_heads_shape_the_projections),
        cmocka_unit_test(test_layer_tensors__executable_layers_have_no_other_parameters),
        cmocka_unit_test(test_layer_tensors__flat_count_is_aligned),
        cmocka_unit_test(test_layer_tensors__matrices_come_first_then_norms),
        cmocka_unit_test(test_layer_tensors__slices_of_all_ranks_tile_every_tensor),
        cmocka_unit_test(test_layer_tensors__only_norms_positions_and_last_biases_are_replicated),
        cmocka_unit_test(test_layer_tensors__counts_of_all_ranks_sum_to_the_layer),
        cmocka_unit_test(test_layer_tensors__a_part_of_c_attn_by_hand),
        cmocka_unit_test(test_layer_tensors__positions_stand_apart_from_the_table),
        cmocka_unit_test(test_layer_tensors__an_owned_table_is_the_embeddings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
