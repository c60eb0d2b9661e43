#include "support.h"

#include "base/rng.h"
#include "ir/layer.h"
#include "ir/model.h"

static struct model load(const char *name)
{
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, NULL, &err), &err);
    return model;
}

/* A small model of odd sizes, different for each seed. */
static struct model random_model(uint64_t seed)
{
    struct model model = load(rng_below(seed, 0, 0, 2) == 0 ? "gpt2" : "llama-3-8b");
    model.kv_heads = 1 + (int64_t)rng_below(seed, 0, 1, 3);
    model.heads = model.kv_heads;
    if (model.family == MODEL_LLAMA)
        model.heads *= 1 + (int64_t)rng_below(seed, 0, 2, 4);
    model.head_dim = 2 + 2 * (int64_t)rng_below(seed, 0, 3, 9);
    model.hidden = model.heads * model.head_dim;
    model.ffn = 1 + (int64_t)rng_below(seed, 0, 4, 99);
    model.vocab = 1 + (int64_t)rng_below(seed, 0, 5, 300);
    model.seq_length = 1 + (int64_t)rng_below(seed, 0, 6, 70);
    return model;
}

static struct micro_batch_shape random_shape(const struct model *model, uint64_t seed)
{
    return (struct micro_batch_shape){
        .sequences = 1 + (int64_t)rng_below(seed, 1, 0, 5),
        .seq_length = model->seq_length,
        .threads = 1 + (int)rng_below(seed, 1, 1, 4),
    };
}

static bool find(const struct buffer_spec *rows, size_t count, enum buffer_slot slot,
                 struct buffer_spec *out)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].slot == slot) {
            *out = rows[i];
            return true;
        }
    }
    return false;
}

static void check_rows(const struct model *model, enum layer_kind kind,
                       struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    struct buffer_spec rows[LAYER_BUFFERS_MAX];
    size_t count = layer_buffers(model, kind, mode, shape, rows);
    uint64_t saved = 0, scratch = 0;
    bool seen[SLOT_COUNT] = {false};

    assert_in_range(count, 0, LAYER_BUFFERS_MAX);
    for (size_t i = 0; i < count; i++) {
        assert_true(rows[i].bytes > 0 && rows[i].bytes % BUFFER_ALIGN_BYTES == 0);
        assert_false(seen[rows[i].slot]);
        seen[rows[i].slot] = true;
        *(rows[i].life == BUFFER_SAVED ? &saved : &scratch) += rows[i].bytes;
    }
    assert_true(saved == layer_saved_bytes(model, kind, mode, shape));
    assert_true(scratch == layer_scratch_bytes(model, kind, mode, shape));
    if (mode.recompute == RECOMPUTE_FULL)
        assert_true(saved == 0);
}

static void test_layer_buffers__properties_hold_for_random_shapes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        struct model model = random_model(seed);
        struct micro_batch_shape shape = random_shape(&model, seed);
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            for (int precision = 0; precision < PRECISION_COUNT; precision++) {
                for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
                    struct layer_precision_mode mode = {(enum precision)precision,
                                                        (enum recompute)recompute, ATTENTION_PLAIN};
                    check_rows(&model, (enum layer_kind)kind, mode, &shape);
                    mode.attention = ATTENTION_TILED;
                    if (layer_admits_kernel((enum layer_kind)kind, mode.attention, mode.recompute))
                        check_rows(&model, (enum layer_kind)kind, mode, &shape);
                }
            }
        }
    }
}

static void test_layer_buffers__selective_drops_the_probabilities_alone(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct model model = random_model(seed);
        struct micro_batch_shape shape = random_shape(&model, seed);
        for (int p = 0; p < PRECISION_COUNT; p++) {
            struct layer_precision_mode none = {(enum precision)p, RECOMPUTE_NONE, ATTENTION_PLAIN};
            struct layer_precision_mode selective = {(enum precision)p, RECOMPUTE_SELECTIVE,
                                                     ATTENTION_PLAIN};
            struct buffer_spec rows[LAYER_BUFFERS_MAX], probs = {0};
            size_t count = layer_buffers(&model, LAYER_ATTENTION, none, &shape, rows);
            assert_true(find(rows, count, SLOT_PROBS, &probs));
            assert_true(layer_saved_bytes(&model, LAYER_ATTENTION, none, &shape) - probs.bytes ==
                        layer_saved_bytes(&model, LAYER_ATTENTION, selective, &shape));
            uint64_t exact =
                (uint64_t)(shape.sequences * model.heads * shape.seq_length * shape.seq_length) *
                precision_bytes((enum precision)p);
            assert_true(probs.bytes >= exact && probs.bytes < exact + BUFFER_ALIGN_BYTES);
        }
    }
}

/* Twice the length: twice the bytes kept; of scratch not more than twice, because a thread's tiles
 * stay as they are. What plain attention keeps of gpt2 at 1024 grows to the square. */
static void test_layer_buffers__tiled_attention_is_linear_in_the_length(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    for (int p = 0; p < PRECISION_COUNT; p++) {
        struct layer_precision_mode mode = {(enum precision)p, RECOMPUTE_NONE, ATTENTION_TILED};
        struct micro_batch_shape shape = {.sequences = 1, .seq_length = 1024, .threads = 2};
        struct micro_batch_shape twice = {.sequences = 1, .seq_length = 2048, .threads = 2};
        struct buffer_spec rows[LAYER_BUFFERS_MAX], row = {0};
        size_t count = layer_buffers(&model, LAYER_ATTENTION, mode, &shape, rows);
        assert_false(find(rows, count, SLOT_PROBS, &row));
        assert_true(find(rows, count, SLOT_LOG_SUMS, &row));
        assert_int_equal(row.bytes, 12 * 1024 * 4);
        assert_true(find(rows, count, SLOT_THREAD, &row));
        assert_int_equal(row.bytes, 2 * 4 * ((4 * 1024 + 9 * 64) * 64 + 4 * 64 * 64 + 8 * 64));

        uint64_t saved = layer_saved_bytes(&model, LAYER_ATTENTION, mode, &shape);
        uint64_t scratch = layer_scratch_bytes(&model, LAYER_ATTENTION, mode, &shape);
        assert_int_equal(layer_saved_bytes(&model, LAYER_ATTENTION, mode, &twice), 2 * saved);
        assert_true(layer_scratch_bytes(&model, LAYER_ATTENTION, mode, &twice) < 2 * scratch);
        mode.attention = ATTENTION_PLAIN;
        uint64_t plain = layer_saved_bytes(&model, LAYER_ATTENTION, mode, &shape);
        assert_true(plain > 3 * saved);
        assert_true(layer_saved_bytes(&model, LAYER_ATTENTION, mode, &twice) > 3 * plain);
    }
}

static void test_layer_buffers__head_and_embedding(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct micro_batch_shape shape = {.sequences = 4, .seq_length = 64, .threads = 2};
    struct layer_precision_mode fp32 = {PRECISION_FP32, RECOMPUTE_NONE, ATTENTION_PLAIN};
    struct layer_precision_mode bf16 = {PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN};
    struct buffer_spec rows[LAYER_BUFFERS_MAX], row = {0};

    size_t count = layer_buffers(&model, LAYER_EMBEDDING, fp32, &shape, rows);
    assert_int_equal(count, 1);
    assert_true(find(rows, count, SLOT_ORDER, &row));
    assert_true(row.bytes == 256 * 2 * 4 && row.life == BUFFER_SCRATCH);
    count = layer_buffers(&model, LAYER_HEAD, fp32, &shape, rows);
    assert_true(find(rows, count, SLOT_LOGITS, &row));
    assert_true(row.bytes == UINT64_C(4) * 256 * 50257 && row.life == BUFFER_SCRATCH);
    assert_false(find(rows, count, SLOT_GRAD_B, &row));
    count = layer_buffers(&model, LAYER_HEAD, bf16, &shape, rows);
    assert_true(find(rows, count, SLOT_GRAD_B, &row));
    assert_true(row.bytes == UINT64_C(2) * 256 * 50257 && row.life == BUFFER_SCRATCH);
    assert_int_equal(layer_saved_bytes(&model, LAYER_HEAD, fp32, &shape), 0);
}

static int64_t chunk_of(const struct model *model, int64_t tokens, int64_t most)
{
    struct layer_part whole = layer_whole(LAYER_HEAD);
    struct micro_batch_shape shape = {
        .sequences = 1, .seq_length = tokens, .threads = 2, .head_tokens = most};
    return head_chunk_tokens(model, &whole, &shape);
}

static void test_layer_buffers__head_goes_in_even_chunks(void **state)
{
    (void)state;
    struct model gpt2 = load("gpt2"), llama = load("llama-3-8b");
    assert_int_equal(chunk_of(&gpt2, 256, 0), 256);
    assert_int_equal(chunk_of(&gpt2, 333, 0), 333); /* 64 MiB of 50257 logits */
    assert_int_equal(chunk_of(&gpt2, 334, 0), 176); /* two: 167, as a multiple of 16 */
    assert_int_equal(chunk_of(&gpt2, 1024, 0), 256);
    assert_int_equal(chunk_of(&llama, 8192, 0), HEAD_CHUNK_TOKENS); /* 64 MiB have 130 */
    assert_int_equal(chunk_of(&gpt2, 21, 5), 5);
    assert_int_equal(chunk_of(&gpt2, 21, 21), 21);
    struct micro_batch_shape shape = {.sequences = 4, .seq_length = 1024, .threads = 2};
    struct layer_precision_mode bf16 = {PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN};
    struct buffer_spec rows[LAYER_BUFFERS_MAX], row = {0};
    size_t count = layer_buffers(&gpt2, LAYER_HEAD, bf16, &shape, rows);
    assert_true(find(rows, count, SLOT_LOGITS, &row) && row.bytes == 320 * 50257 * 4);
    assert_true(find(rows, count, SLOT_GRAD_B, &row) && row.bytes == 320 * 50257 * 2);
    assert_true(find(rows, count, SLOT_GRAD_A, &row) && row.bytes == 4096 * 768 * 4);
}

/* What is kept, written out by hand for one case of each family: T = 256, s = 64. */
static void test_layer_buffers__kept_sizes_of_one_case(void **state)
{
    (void)state;
    static const struct {
        enum layer_kind kind;
        enum buffer_slot slot;
        uint64_t gpt2_bytes, llama_bytes;
    } kept[] = {
        {LAYER_ATTENTION, SLOT_NORM_STATS, 256 * 8, 256 * 8},
        {LAYER_ATTENTION, SLOT_NORM_OUT, 256 * 768 * 2, 256 * 4096 * 2},
        {LAYER_ATTENTION, SLOT_QKV, 256 * 2304 * 2, 256 * 6144 * 2},
        {LAYER_ATTENTION, SLOT_PROBS, 4 * 12 * 64 * 64 * 2, 4 * 32 * 64 * 64 * 2},
        {LAYER_ATTENTION, SLOT_CONTEXT, 256 * 768 * 2, 256 * 4096 * 2},
        {LAYER_MLP, SLOT_NORM_OUT, 256 * 768 * 2, 256 * 4096 * 2},
        {LAYER_MLP, SLOT_PRE, 256 * 3072 * 2, 256 * 28672 * 2},
        {LAYER_MLP, SLOT_ACT, 256 * 3072 * 2, 256 * 14336 * 2},
    };
    struct model gpt2 = load("gpt2"), llama = load("llama-3-8b");
    struct micro_batch_shape shape = {.sequences = 4, .seq_length = 64, .threads = 2};
    struct layer_precision_mode bf16 = {PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN};
    struct buffer_spec rows[LAYER_BUFFERS_MAX], row = {0};

    for (size_t i = 0; i < COUNT(kept); i++) {
        size_t count = layer_buffers(&gpt2, kept[i].kind, bf16, &shape, rows);
        assert_true(find(rows, count, kept[i].slot, &row));
        assert_int_equal(row.life, BUFFER_SAVED);
        assert_int_equal(row.bytes, kept[i].gpt2_bytes);
        count = layer_buffers(&llama, kept[i].kind, bf16, &shape, rows);
        assert_true(find(rows, count, kept[i].slot, &row));
        assert_int_equal(row.bytes, kept[i].llama_bytes);
    }
}

static void test_layer_buffers__boundary_is_fp32(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    struct micro_batch_shape shape = {.sequences = 3, .seq_length = 5, .threads = 1};
    assert_int_equal(boundary_bytes(&model, &shape), 15 * 768 * 4);
    model.hidden = 3;
    assert_int_equal(boundary_bytes(&model, &shape), 192);
}

/* ---- parts ---- */

static uint64_t bytes_at(const struct model *model, const struct layer_part *part,
                         struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                         enum buffer_slot slot)
{
    struct buffer_spec rows[LAYER_BUFFERS_MAX], row = {0};
    size_t count = layer_part_buffers(model, part, mode, shape, rows);
    return find(rows, count, slot, &row) ? row.bytes : 0;
}

/* Everything of parts of gpt2 with t = 4, b = 4, s = 64, T = 256 in bf16, by hand. */
static void test_layer_buffers__parts_of_one_case(void **state)
{
    (void)state;
    static const struct {
        enum layer_kind kind;
        enum buffer_slot slot;
        uint64_t split_bytes, sequence_bytes; /* without and with sequence parallelism */
    } rows[] = {
        {LAYER_EMBEDDING, SLOT_GROUP, 0, 256 * 768 * 4},
        {LAYER_EMBEDDING, SLOT_ORDER, 256 * 8, 256 * 8},
        {LAYER_ATTENTION, SLOT_NORM_STATS, 256 * 8, 64 * 8},
        {LAYER_ATTENTION, SLOT_NORM_OUT, 256 * 768 * 2, 64 * 768 * 2},
        {LAYER_ATTENTION, SLOT_QKV, 256 * 576 * 2, 256 * 576 * 2},
        {LAYER_ATTENTION, SLOT_PROBS, 4 * 3 * 64 * 64 * 2, 4 * 3 * 64 * 64 * 2},
        {LAYER_ATTENTION, SLOT_CONTEXT, 256 * 192 * 2, 256 * 192 * 2},
        {LAYER_ATTENTION, SLOT_GRAD_A, 256 * 768 * 4, 256 * 768 * 4},
        {LAYER_ATTENTION, SLOT_GRAD_B, 256 * 576 * 2, 256 * 576 * 2},
        {LAYER_ATTENTION, SLOT_GRAD_C, 256 * 768 * 2, 256 * 768 * 2},
        {LAYER_ATTENTION, SLOT_GATHER, 0, 256 * 768 * 2},
        {LAYER_ATTENTION, SLOT_GROUP, 0, 256 * 768 * 4},
        {LAYER_MLP, SLOT_NORM_OUT, 256 * 768 * 2, 64 * 768 * 2},
        {LAYER_MLP, SLOT_PRE, 256 * 768 * 2, 256 * 768 * 2},
        {LAYER_MLP, SLOT_ACT, 256 * 768 * 2, 256 * 768 * 2},
        {LAYER_MLP, SLOT_GRAD_B, 256 * 768 * 2, 256 * 768 * 2},
        {LAYER_MLP, SLOT_GRAD_C, 256 * 768 * 4, 256 * 768 * 4},
        {LAYER_MLP, SLOT_GATHER, 0, 256 * 768 * 2},
        {LAYER_MLP, SLOT_GROUP, 0, 256 * 768 * 4},
        {LAYER_HEAD, SLOT_NORM_STATS, 256 * 8, 64 * 8},
        {LAYER_HEAD, SLOT_LOGITS, 256 * 12565 * 4, 256 * 12565 * 4},
        {LAYER_HEAD, SLOT_GRAD_B, 256 * 12565 * 2, 256 * 12565 * 2},
        {LAYER_HEAD, SLOT_GATHER, 0, 256 * 768 * 2},
        {LAYER_HEAD, SLOT_GROUP, 0, 256 * 768 * 4},
        {LAYER_HEAD, SLOT_LOSS, 256 * 16, 256 * 16},
    };
    struct model model = load("gpt2");
    struct micro_batch_shape shape = {.sequences = 4, .seq_length = 64, .threads = 2};
    struct layer_precision_mode bf16 = {PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct layer_part part = {.kind = rows[i].kind, .ways = 4};
        assert_int_equal(bytes_at(&model, &part, bf16, &shape, rows[i].slot), rows[i].split_bytes);
        part.sequence_parallel = true;
        assert_int_equal(bytes_at(&model, &part, bf16, &shape, rows[i].slot),
                         rows[i].sequence_bytes);
    }
}

static void test_layer_buffers__fp16_takes_what_bf16_takes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct model model = random_model(seed);
        struct micro_batch_shape shape = random_shape(&model, seed);
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            struct buffer_spec bf16[LAYER_BUFFERS_MAX], fp16[LAYER_BUFFERS_MAX];
            struct layer_precision_mode mode = {PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN};
            size_t count = layer_buffers(&model, (enum layer_kind)kind, mode, &shape, bf16);
            mode.precision = PRECISION_FP16;
            assert_int_equal(layer_buffers(&model, (enum layer_kind)kind, mode, &shape, fp16),
                             count);
            for (size_t i = 0; i < count; i++) {
                assert_int_equal(bf16[i].slot, fp16[i].slot);
                assert_int_equal(bf16[i].bytes, fp16[i].bytes);
            }
        }
    }
}

/* Bytes that one rank keeps of an attention and an mlp layer, with the stream that they read. */
static uint64_t kept_bytes(const struct model *model, struct layer_part part,
                           struct layer_precision_mode mode, const struct micro_batch_shape *shape)
{
    uint64_t bytes = 0;
    for (int kind = LAYER_ATTENTION; kind <= LAYER_MLP; kind++) {
        part.kind = (enum layer_kind)kind;
        struct layer_precision_mode own = mode;
        if (part.kind == LAYER_MLP)
            own.recompute = RECOMPUTE_NONE;
        bytes +=
            part_saved_bytes(model, &part, own, shape) + part_boundary_bytes(model, &part, shape);
    }
    return bytes;
}

/* Korthikanti et al. 2022, section 4: a transformer layer keeps, in 16 bit, sbh(34 + 5as/h) bytes;
 * under tensor parallelism sbh(10 + 24/t + 5as/(ht)); with sequence parallelism all of it over t.
 * Theirs in parts, in sbh: the two norms' inputs 4, the two norms' outputs 4, two dropout masks 2
 * (these make the 10); q, k, v 6, the context 2, before and after the activation 8 + 8 (these make
 * the 24); and in as/h the probabilities 2, their dropout mask 1, the dropped-out ones 2.
 * Ours are the same but for two things. There is no dropout: - 2 sbh and - 3 as/h. The stream,
 * which is the norms' inputs, is fp32: + 4 sbh; and each norm keeps mean and reciprocal deviation
 * in fp32, 16 sb for both. So 10 becomes 12, 34 becomes 36 and 5 becomes 2: TP: sbh(12 + 24/t +
 * 2as/(ht)) + 16 sb;  TP + SP: (sbh(36 + 2as/h) + 16 sb) / t. */
static void test_layer_buffers__kept_bytes_follow_korthikanti(void **state)
{
    (void)state;
    struct model model = load("gpt2");
    model.seq_length = 512;
    for (int precision = PRECISION_BF16; precision <= PRECISION_FP16; precision++) {
        for (int64_t b = 1; b <= 3; b++) {
            for (int t = 1; t <= 4; t++) {
                int64_t s = 512, h = 768, a = 12, probs = 2 * a * s * s * b / t;
                struct micro_batch_shape shape = {.sequences = b, .seq_length = s, .threads = 1};
                struct layer_precision_mode none = {(enum precision)precision, RECOMPUTE_NONE,
                                                    ATTENTION_PLAIN};
                struct layer_precision_mode selective = {none.precision, RECOMPUTE_SELECTIVE,
                                                         ATTENTION_PLAIN};
                struct layer_part part = {.ways = t};
                int64_t split = 12 * s * b * h + 24 * s * b * h / t + 16 * s * b;
                assert_int_equal(kept_bytes(&model, part, none, &shape), split + probs);
                assert_int_equal(kept_bytes(&model, part, selective, &shape), split);
                if (t == 1 || s * b % t != 0)
                    continue;
                part.sequence_parallel = true;
                int64_t tokens_split = (36 * s * b * h + 16 * s * b) / t;
                assert_int_equal(kept_bytes(&model, part, none, &shape), tokens_split + probs);
                assert_int_equal(kept_bytes(&model, part, selective, &shape), tokens_split);
            }
        }
    }
}

/* A size beyond any machine must not come back as a small one. */
static void test_layer_buffers__huge_sizes_do_not_wrap(void **state)
{
    (void)state;
    struct model model = load("llama-3-8b");
    model.heads = model.kv_heads = 1 << 16;
    model.hidden = 1 << 20;
    model.ffn = 1 << 22;
    model.vocab = model.seq_length = 1 << 24;
    struct micro_batch_shape shape = {
        .sequences = 1 << 20, .seq_length = 1 << 24, .threads = 1 << 16};
    struct layer_precision_mode mode = {PRECISION_FP32, RECOMPUTE_NONE, ATTENTION_PLAIN};
    for (int kind = LAYER_ATTENTION; kind < LAYER_HEAD; kind++) {
        uint64_t bytes = layer_saved_bytes(&model, (enum layer_kind)kind, mode, &shape);
        assert_true(bytes >= UINT64_C(1) << 56 && bytes < UINT64_C(1) << 62);
    }
    uint64_t bytes = layer_scratch_bytes(&model, LAYER_HEAD, mode, &shape);
    assert_true(bytes >= UINT64_C(1) << 56 && bytes < UINT64_C(1) << 62);
    assert_true(boundary_bytes(&model, &shape) == UINT64_C(1) << 56);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_buffers__properties_hold_for_random_shapes),
        cmocka_unit_test(test_layer_buffers__selective_drops_the_probabilities_alone),
        cmocka_unit_test(test_layer_buffers__tiled_attention_is_linear_in_the_length),
        cmocka_unit_test(test_layer_buffers__head_and_embedding),
        cmocka_unit_test(test_layer_buffers__head_goes_in_even_chunks),
        cmocka_unit_test(test_layer_buffers__kept_sizes_of_one_case),
        cmocka_unit_test(test_layer_buffers__boundary_is_fp32),
        cmocka_unit_test(test_layer_buffers__parts_of_one_case),
        cmocka_unit_test(test_layer_buffers__fp16_takes_what_bf16_takes),
        cmocka_unit_test(test_layer_buffers__kept_bytes_follow_korthikanti),
        cmocka_unit_test(test_layer_buffers__huge_sizes_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
