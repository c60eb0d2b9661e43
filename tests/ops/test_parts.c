/* Tensor and sequence parallel parts of a model against the whole of it. The ranks are threads. */
#include "chain.h"
#include "expect.h"
#include "group.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Neither vocabulary divides by 2 or 4. Nor does a rank's share of the tokens, 12 or 6 of 24, end
 * where a sequence of 8 does. */
static const struct model gpt2 = {
    .name = "gpt2",
    .family = MODEL_GPT2,
    .blocks = 1,
    .hidden = 10,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 5,
    .ffn = 36,
    .vocab = 19,
    .positions = 11,
    .seq_length = 8,
    .norm_epsilon = 1e-5,
    .tied_head = true,
};
static const struct model llama = {
    .name = "llama",
    .family = MODEL_LLAMA,
    .blocks = 1,
    .hidden = 14,
    .heads = 8,
    .kv_heads = 4,
    .head_dim = 6,
    .ffn = 20,
    .vocab = 17,
    .positions = 11,
    .seq_length = 8,
    .norm_epsilon = 1e-6,
    .rope_theta = 1e4,
};

enum { SEQUENCES = 3, LENGTH = 8, TOKENS = SEQUENCES * LENGTH };
static const float LOSS_SCALE = 1024.0f; /* keeps the gradients off the least that fp16 has */

/* Parts add up in another order than the whole, and nothing else differs. A sum of n terms is off
 * by about sqrt(n) u of the root of its squared terms, u = 2^-24, either way round; n is at most
 * some 40 here (ffn, context or tokens). From the loss to the first layer's gradient a value passes
 * about 16 products in a block and 6 outside, whose errors are independent, and weights of trained
 * size make the softmax three times as sensitive: 3 sqrt(22) 2 sqrt(40) u = 1.1e-5. In 16 bit such
 * a difference can make any rounding fall the other way, which moves the value by 2 u of that
 * precision: 3 sqrt(22) 2 u. */
static double bound_of(enum precision precision)
{
    double steps = 3.0 * sqrt(22.0);
    if (precision == PRECISION_FP32)
        return steps * 2.0 * sqrt(40.0) * 0x1p-24;
    return steps * 2.0 * (precision == PRECISION_BF16 ? 0x1p-9 : 0x1p-12);
}

/* ---- runs ---- */

struct rank {
    struct chain chain;
    double loss_sum, evaluated; /* of the backward and of the forward passes */
    float *logits;              /* [T, the part's vocabulary] */
    enum status status;
    struct error err;
    pthread_t thread;
};

static void open_rank(struct rank *rank, const struct model *model,
                      const struct chain_options *opts)
{
    struct chain *chain = &rank->chain;
    struct error err;
    expect_ok(chain_open(chain, model, opts, &err), &err);
    chain_poison(chain);
    expect_ok(chain_randomise(chain, 11, &err), &err);
    for (size_t i = 0; i < chain->layer_count; i++) {
        float *matrices = chain->parameters + chain->layers[i].at;
        for (uint64_t j = 0; j < chain->layers[i].counts.matrices; j++)
            matrices[j] *= 20.0f;
    }
    chain_cast(chain);
    chain->targets[5] = -1;
    chain->loss_scale *= LOSS_SCALE;
    size_t rows = (size_t)part_vocab_rows(model, &chain->layers[chain->layer_count - 1].part);
    rank->logits = calloc(TOKENS * rows, sizeof(float));
    assert_non_null(rank->logits);
}

static void close_rank(struct rank *rank)
{
    chain_close(&rank->chain);
    free(rank->logits);
}

/* Two micro-batches, so that gradients are written and then added to. */
static void *run_rank(void *user)
{
    struct rank *rank = user;
    struct chain *chain = &rank->chain;
    rank->status = STATUS_OK;
    rank->loss_sum = rank->evaluated = 0.0;
    for (int i = 0; i < 2 && rank->status == STATUS_OK; i++) {
        double evaluated = NAN, loss_sum = NAN;
        rank->status = chain_forward(chain, &evaluated, &rank->err);
        if (rank->status == STATUS_OK)
            rank->status = chain_backward(chain, i > 0, &loss_sum, &rank->err);
        rank->evaluated += evaluated;
        rank->loss_sum += loss_sum;
    }
    if (rank->status == STATUS_OK)
        rank->status = chain_logits(chain, rank->logits, &rank->err);
    return NULL;
}

struct experiment {
    struct model model;
    struct chain_options options; /* without index and group */
    int left_out;
    struct group group;
    struct rank whole, ranks[GROUP_WAYS_MAX];
};

static void experiment_run(struct experiment *e)
{
    struct chain_options whole = e->options;
    whole.ways = 0;
    whole.sequence_parallel = false;
    whole.owns_table = false;
    whole.shape.head_tokens = 0;
    open_rank(&e->whole, &e->model, &whole);
    run_rank(&e->whole);
    expect_ok(e->whole.status, &e->whole.err);

    int ways = e->options.ways;
    group_open(&e->group, ways, e->left_out);
    for (int i = 0; i < ways; i++) {
        struct chain_options part = e->options;
        part.index = i;
        part.group = &e->group.seats[i].functions;
        open_rank(&e->ranks[i], &e->model, &part);
    }
    for (int i = 0; i < ways; i++)
        assert_int_equal(pthread_create(&e->ranks[i].thread, NULL, run_rank, &e->ranks[i]), 0);
    for (int i = 0; i < ways; i++)
        pthread_join(e->ranks[i].thread, NULL);
    for (int i = 0; i < ways; i++) {
        expect_ok(e->ranks[i].status, &e->ranks[i].err);
        assert_true(chain_guards_hold(&e->ranks[i].chain));
    }
}

static void experiment_close(struct experiment *e)
{
    for (int i = 0; i < e->options.ways; i++)
        close_rank(&e->ranks[i]);
    close_rank(&e->whole);
    group_close(&e->group);
}

/* ---- comparison ---- */

/* The largest relative error seen, and of what. */
struct worst {
    double error;
    char what[TENSOR_NAME_BYTES];
};

static void note(struct worst *worst, const char *what, const float *a, const float *b,
                 size_t count)
{
    double error = relative_error(a, b, count);
    if (error <= worst->error)
        return;
    worst->error = isnan(error) ? INFINITY : error;
    snprintf(worst->what, sizeof(worst->what), "%s", what);
}

/* The residual stream or its gradient. */
static void compare_stream(const struct experiment *e, int index, const char *what,
                           const float *part, const float *whole, struct worst *worst)
{
    size_t share = TOKENS / (size_t)e->options.ways * (size_t)e->model.hidden;
    if (e->options.sequence_parallel)
        note(worst, what, part, whole + (size_t)index * share, share);
    else
        note(worst, what, part, whole, (size_t)(TOKENS * e->model.hidden));
}

static void compare_logits(const struct experiment *e, int index, struct worst *worst)
{
    const struct chain *whole = &e->whole.chain, *part = &e->ranks[index].chain;
    size_t head = whole->layer_count - 1, vocab = (size_t)e->model.vocab;
    size_t rows = (size_t)part_vocab_rows(&e->model, &part->layers[head].part);
    size_t valid = (size_t)part_vocab_valid(&e->model, &part->layers[head].part);
    const float *a = e->ranks[index].logits, *b = e->whole.logits;
    float part_columns[TOKENS * 19], whole_columns[TOKENS * 19];
    for (size_t t = 0; t < TOKENS; t++) {
        memcpy(part_columns + t * valid, a + t * rows, valid * sizeof(float));
        memcpy(whole_columns + t * valid, b + t * vocab + (size_t)index * rows,
               valid * sizeof(float));
    }
    note(worst, "logits", part_columns, whole_columns, TOKENS * valid);
}

/* Put the rank's piece of a gradient into the whole tensor, adding to it when `add`; 0 must stand
 * in what the piece has of padding. */
static void place(const struct chain *part, const struct chain_tensor *tensor, float *whole,
                  bool add)
{
    const float *from = part->gradients + tensor->at;
    size_t placed = 0, others = 0, cols = (size_t)tensor->part.cols;
    for (size_t i = 0; i < tensor->part.slice_count; i++) {
        const struct tensor_slice *s = &tensor->part.slices[i];
        placed += (size_t)(s->rows * s->cols);
        for (int64_t row = 0; row < s->rows; row++) {
            for (int64_t col = 0; col < s->cols; col++) {
                size_t at = (size_t)((s->row + row) * tensor->part.whole.cols + s->col + col);
                float value =
                    from[(size_t)(s->local_row + row) * cols + (size_t)(s->local_col + col)];
                whole[at] = add ? whole[at] + value : value;
            }
        }
    }
    for (size_t i = placed; i < (size_t)tensor_part_count(&tensor->part); i++)
        others += from[i] != 0.0f; /* only whole rows at the end are padding */
    assert_int_equal(others, 0);
}

/* Find the layer's tensor of this role among the part's. */
static const struct chain_tensor *find(const struct chain_tensor *tensors, size_t count,
                                       enum tensor_role role)
{
    for (size_t i = 0; i < count; i++) {
        if (tensors[i].part.whole.role == role)
            return &tensors[i];
    }
    fail_msg("no tensor of role %d", (int)role);
    return NULL;
}

static void compare_tensor(const struct experiment *e, size_t layer,
                           const struct chain_tensor *whole, struct worst *worst)
{
    char name[TENSOR_NAME_BYTES];
    size_t elements = (size_t)tensor_part_count(&whole->part),
           last = e->whole.chain.layer_count - 1;
    enum tensor_role role = whole->part.whole.role;
    bool is_norm = role == ROLE_NORM_WEIGHT || role == ROLE_NORM_BIAS;
    bool is_partial = is_norm && e->options.sequence_parallel;
    float *assembled = malloc(elements * sizeof(float));
    assert_non_null(assembled);
    tensor_name(&whole->part.whole, e->whole.chain.layers[layer].layer.block, name);
    for (size_t i = 0; i < elements; i++)
        assembled[i] = is_partial ? 0.0f : NAN;
    for (int index = 0; index < e->options.ways; index++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        const struct chain *part = &e->ranks[index].chain;
        size_t count = chain_tensors(part, layer, tensors);
        const struct chain_tensor *own = find(tensors, count, role);
        bool is_split = own->part.is_split;
        place(part, own, assembled, is_partial);
        if (e->options.owns_table && role == ROLE_TOKEN_EMBEDDING) {
            count = chain_tensors(part, last, tensors);
            place(part, find(tensors, count, ROLE_HEAD_WEIGHT), assembled, true);
        }
        /* What every rank has whole is compared at every rank. */
        if (!is_partial && !is_split)
            note(worst, name, assembled, e->whole.chain.gradients + whole->at, elements);
    }
    note(worst, name, assembled, e->whole.chain.gradients + whole->at, elements);
    free(assembled);
}

static struct worst compare(const struct experiment *e)
{
    struct worst worst = {0};
    const struct chain *whole = &e->whole.chain;
    for (int index = 0; index < e->options.ways; index++) {
        const struct rank *rank = &e->ranks[index];
        float loss = (float)rank->loss_sum, whole_loss = (float)e->whole.loss_sum;
        note(&worst, "loss", &loss, &whole_loss, 1);
        loss = (float)rank->evaluated;
        note(&worst, "loss of an evaluation", &loss, &whole_loss, 1);
        if (memcmp(&rank->loss_sum, &e->ranks[0].loss_sum, sizeof(double)) != 0 ||
            memcmp(&rank->evaluated, &e->ranks[0].evaluated, sizeof(double)) != 0)
            worst = (struct worst){INFINITY, "the loss of one rank by that of another"};
        for (size_t i = 0; i + 1 < whole->layer_count; i++)
            compare_stream(e, index, "output", rank->chain.layers[i].output.data,
                           whole->layers[i].output.data, &worst);
        compare_stream(e, index, "gradient", rank->chain.gradient.data, whole->gradient.data,
                       &worst);
        compare_logits(e, index, &worst);
    }
    for (size_t i = 0; i < whole->layer_count; i++) {
        struct chain_tensor tensors[LAYER_TENSORS_MAX];
        size_t count = chain_tensors(whole, i, tensors);
        for (size_t j = 0; j < count; j++)
            compare_tensor(e, i, &tensors[j], &worst);
    }
    return worst;
}

static struct experiment make(const struct model *model, int ways, bool sequence_parallel)
{
    return (struct experiment){
        .model = *model,
        .options = {.shape = {.sequences = SEQUENCES, .seq_length = LENGTH, .threads = 1},
                    .ways = ways,
                    .sequence_parallel = sequence_parallel},
        .left_out = -1};
}

static void check(struct experiment *e)
{
    double bound = bound_of(e->options.precision);
    experiment_run(e);
    struct worst worst = compare(e);
    if (!(worst.error <= bound)) {
        fail_msg("%s, %d ways%s, %s, recompute %s: %s is off by %.3g, allowed %.3g", e->model.name,
                 e->options.ways, e->options.sequence_parallel ? ", sequence parallel" : "",
                 precision_name(e->options.precision), recompute_name(e->options.recompute),
                 worst.what, worst.error, bound);
    }
    experiment_close(e);
}

static void check_all(const struct model *model, enum precision precision)
{
    for (int split = 0; split < 4; split++) {
        for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
            struct experiment e = make(model, split & 1 ? 4 : 2, split & 2);
            e.options.precision = precision;
            e.options.recompute = (enum recompute)recompute;
            check(&e);
        }
    }
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

static void test_parts__add_up_to_the_whole_in_fp32(void **state)
{
    (void)state;
    check_all(&gpt2, PRECISION_FP32);
    check_all(&llama, PRECISION_FP32);
}

static void test_parts__add_up_to_the_whole_in_bf16(void **state)
{
    (void)state;
    if (!supports_bf16())
        skip();
    check_all(&gpt2, PRECISION_BF16);
    check_all(&llama, PRECISION_BF16);
}

static void test_parts__add_up_to_the_whole_in_fp16(void **state)
{
    (void)state;
    check_all(&gpt2, PRECISION_FP16);
    check_all(&llama, PRECISION_FP16);
}

/* 24 tokens in chunks of 7, the last of 3, against all at once. */
static void test_parts__a_head_in_chunks_adds_up_to_the_whole(void **state)
{
    (void)state;
    for (int split = 0; split < 4; split++) {
        for (int p = 0; p < PRECISION_COUNT; p++) {
            struct experiment a = make(&gpt2, split & 1 ? 4 : 2, split & 2);
            struct experiment b = make(&llama, split & 1 ? 4 : 2, split & 2);
            if (p == PRECISION_BF16 && !supports_bf16())
                continue;
            a.options.shape.head_tokens = b.options.shape.head_tokens = 7;
            a.options.precision = b.options.precision = (enum precision)p;
            check(&a);
            check(&b);
        }
    }
}

/* The table's gradient is then the sum of the embedding's and the head's. */
static void test_parts__head_may_own_a_tied_table(void **state)
{
    (void)state;
    for (int split = 0; split < 3; split++) {
        struct experiment e = make(&gpt2, split == 0 ? 1 : 4, split == 2);
        e.options.owns_table = true;
        check(&e);
        e.options.precision = PRECISION_FP16;
        check(&e);
    }
}

static void test_parts__untied_and_tied_the_other_way_round(void **state)
{
    (void)state;
    struct model untied = gpt2, tied = llama;
    untied.tied_head = false;
    tied.tied_head = true;
    tied.sliding_window = 3;
    for (int split = 0; split < 2; split++) {
        struct experiment a = make(&untied, 4, split), b = make(&tied, 2, split);
        check(&a);
        check(&b);
    }
}

/* One way is the whole, to the bit, and asks nobody. */
static void test_parts__one_way_is_the_whole(void **state)
{
    (void)state;
    struct experiment e = make(&gpt2, 1, false);
    experiment_run(&e);
    struct worst worst = compare(&e);
    assert_true(worst.error == 0.0);
    assert_int_equal(e.group.seats[0].calls, 0);
    experiment_close(&e);
}

/* The comparison must notice every single collective of a step that does not happen. */
static void check_left_out(const struct model *model, bool sequence_parallel,
                           enum recompute recompute, int64_t head_tokens)
{
    int calls = 1;
    for (int left_out = 0; left_out < calls; left_out++) {
        struct experiment e = make(model, 2, sequence_parallel);
        e.options.recompute = recompute;
        e.options.shape.head_tokens = head_tokens;
        e.left_out = left_out;
        experiment_run(&e);
        struct worst worst = compare(&e);
        if (!(worst.error > 100.0 * bound_of(PRECISION_FP32)))
            fail_msg("collective %d left out: error %.3g only", left_out, worst.error);
        calls = e.group.seats[0].calls;
        experiment_close(&e);
    }
    assert_true(calls > 10);
}

static void test_parts__every_collective_is_needed(void **state)
{
    (void)state;
    check_left_out(&gpt2, false, RECOMPUTE_NONE, 0);
    check_left_out(&gpt2, true, RECOMPUTE_NONE, 10);
    check_left_out(&llama, false, RECOMPUTE_FULL, 10);
    check_left_out(&llama, true, RECOMPUTE_FULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts__add_up_to_the_whole_in_fp32),
        cmocka_unit_test(test_parts__add_up_to_the_whole_in_bf16),
        cmocka_unit_test(test_parts__add_up_to_the_whole_in_fp16),
        cmocka_unit_test(test_parts__a_head_in_chunks_adds_up_to_the_whole),
        cmocka_unit_test(test_parts__head_may_own_a_tied_table),
        cmocka_unit_test(test_parts__untied_and_tied_the_other_way_round),
        cmocka_unit_test(test_parts__one_way_is_the_whole),
        cmocka_unit_test(test_parts__every_collective_is_needed),
    };
    return cmocka_run_group_tests_name("parts", tests, NULL, NULL);
}
