#include "support.h"

#include "ir/layer_work.h"
#include <math.h>

enum { S = 32, B = 2, H = 64, HEADS = 4, FFN = 256, VOCAB = 96 };

static const struct micro_batch_shape shape = {.sequences = B, .seq_length = S, .threads = 1};

static struct model small(const char *name)
{
    const struct model_overrides sizes = {.layers = 1,
                                          .hidden = H,
                                          .heads = HEADS,
                                          .kv_heads = HEADS,
                                          .ffn = FFN,
                                          .vocab_size = VOCAB,
                                          .positions = S,
                                          .seq_length = S};
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, &sizes, &err), &err);
    return model;
}

static struct layer_precision_mode mode_of(enum precision precision, enum recompute recompute,
                                           enum attention_kernel attention)
{
    return (struct layer_precision_mode){precision, recompute, attention};
}

/* Two products of [s, 64] by a triangle, beside the projections. */
static void test_work__attention_counts_what_is_seen(void **state)
{
    (void)state;
    struct model model = small("gpt2");
    struct layer_part part = layer_whole(LAYER_ATTENTION);
    double projections = 2.0 * B * S * (H * 3 * H + H * H);
    double pairs = S * (S + 1) / 2.0, core = 4.0 * B * pairs * H;
    struct layer_precision_mode plain = mode_of(PRECISION_FP32, RECOMPUTE_NONE, ATTENTION_PLAIN);
    struct layer_work forward = layer_forward_work(&model, &part, plain, &shape);
    assert_true(forward.flops == projections + core);
    assert_true(layer_backward_work(&model, &part, plain, &shape).flops == 2 * forward.flops);

    model.sliding_window = 5;
    pairs = 5 * 6 / 2.0 + (S - 5) * 5;
    forward = layer_forward_work(&model, &part, plain, &shape);
    assert_true(forward.flops == projections + 4.0 * B * pairs * H);
    model.sliding_window = 10 * S; /* sees all that is there */
    assert_true(layer_forward_work(&model, &part, plain, &shape).flops == projections + core);
}

/* Selective recompute and tiles make the scores again, one of the core's two products, both
 * together no more; full recompute all of forward. What an mlp makes again selectively is no
 * product. */
static void test_work__recompute_is_counted(void **state)
{
    (void)state;
    struct model model = small("llama-3-8b");
    struct layer_part part = layer_whole(LAYER_ATTENTION);
    struct layer_precision_mode mode = mode_of(PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_PLAIN);
    double forward = layer_forward_work(&model, &part, mode, &shape).flops;
    double scores = 2.0 * B * (S * (S + 1) / 2.0) * H;
    mode.recompute = RECOMPUTE_SELECTIVE;
    assert_true(layer_backward_work(&model, &part, mode, &shape).flops == 2 * forward + scores);
    mode = mode_of(PRECISION_BF16, RECOMPUTE_NONE, ATTENTION_TILED);
    assert_true(layer_backward_work(&model, &part, mode, &shape).flops == 2 * forward + scores);
    mode.recompute = RECOMPUTE_SELECTIVE;
    assert_true(layer_backward_work(&model, &part, mode, &shape).flops == 2 * forward + scores);
    mode.recompute = RECOMPUTE_FULL;
    assert_true(layer_backward_work(&model, &part, mode, &shape).flops == 3 * forward);

    part = layer_whole(LAYER_MLP);
    mode = mode_of(PRECISION_BF16, RECOMPUTE_SELECTIVE, ATTENTION_PLAIN);
    struct layer_work work = layer_backward_work(&model, &part, mode, &shape);
    forward = layer_forward_work(&model, &part, mode, &shape).flops;
    assert_true(work.flops == 2 * forward);
    mode.recompute = RECOMPUTE_NONE;
    double kept = (double)part_saved_bytes(&model, &part, mode, &shape);
    double bytes = layer_backward_work(&model, &part, mode, &shape).bytes;
    mode.recompute = RECOMPUTE_SELECTIVE;
    assert_true(bytes - work.bytes == kept - (double)part_saved_bytes(&model, &part, mode, &shape));
}

static void test_work__bytes_of_an_mlp(void **state)
{
    (void)state;
    struct model model = small("gpt2");
    struct layer_part part = layer_whole(LAYER_MLP);
    struct layer_precision_mode mode = mode_of(PRECISION_BF16, RECOMPUTE_FULL, ATTENTION_PLAIN);
    struct part_counts counts = layer_part_counts(&model, &part);
    double parameters = 2.0 * (double)counts.matrices + 4.0 * (double)counts.vectors;
    double stream = 4.0 * B * S * H;
    struct layer_work forward = layer_forward_work(&model, &part, mode, &shape);
    assert_true(forward.bytes == parameters + 2 * stream); /* full recompute keeps nothing */
    struct layer_work backward = layer_backward_work(&model, &part, mode, &shape);
    double gradients = 4.0 * (double)(counts.matrices + counts.vectors);
    assert_true(backward.bytes == forward.bytes + 2 * stream + gradients);

    mode.recompute = RECOMPUTE_NONE;
    double saved = (double)part_saved_bytes(&model, &part, mode, &shape);
    assert_true(saved > 0);
    assert_true(layer_forward_work(&model, &part, mode, &shape).bytes == forward.bytes + saved);
}

/* A tied head reads the embedding's table, one with its own that: the same work. */
static void test_work__a_tied_head_reads_the_table(void **state)
{
    (void)state;
    struct model model = small("gpt2");
    struct layer_part shared = layer_whole(LAYER_HEAD), own = shared;
    own.owns_table = true;
    struct layer_precision_mode mode = mode_of(PRECISION_FP32, RECOMPUTE_NONE, ATTENTION_PLAIN);
    struct layer_work a = layer_forward_work(&model, &shared, mode, &shape);
    struct layer_work b = layer_forward_work(&model, &own, mode, &shape);
    assert_true(a.flops == 2.0 * B * S * H * VOCAB);
    assert_true(a.flops == b.flops);
    assert_true(a.bytes == b.bytes);
    assert_true(a.bytes >= 4.0 * H * VOCAB);
}

static void test_work__the_roofline_is_the_longer_of_the_two(void **state)
{
    (void)state;
    struct machine_rates rates = {.matmul_flops = 100, .copy_bytes_s = 10};
    struct layer_work dense = {1000, 50}, thin = {100, 50}, none = {0, 0};
    assert_true(roofline_s(dense, rates) == 10);
    assert_false(roofline_is_memory(dense, rates));
    assert_true(roofline_s(thin, rates) == 5);
    assert_true(roofline_is_memory(thin, rates));
    assert_true(roofline_s(none, rates) == 0);
    struct layer_work both = layer_work_add(dense, thin);
    assert_true(both.flops == 1100);
    assert_true(both.bytes == 100);
    rates.copy_bytes_s = 0; /* not known */
    assert_true(roofline_s(thin, rates) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work__attention_counts_what_is_seen),
        cmocka_unit_test(test_work__recompute_is_counted),
        cmocka_unit_test(test_work__bytes_of_an_mlp),
        cmocka_unit_test(test_work__a_tied_head_reads_the_table),
        cmocka_unit_test(test_work__the_roofline_is_the_longer_of_the_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
