/* Micro-batches with different numbers of targets: the mean over all targets against a mean of the
 * micro-batches' means, a bug that several trainers had. With equal numbers both are the same, so
 * that no plan of ours can show it: the layers are called directly. */
#include "parity_bound.h"
#include "parity_cases.h"
#include "tests/ops/chain.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { MICRO_BATCHES = 2, SEQUENCES = 4, COMPARISONS = 1000 };

/* The second micro-batch is padding but for this many tokens of each sequence. */
enum { SHORT = 3 };

struct result {
    double loss;
    double logits; /* root mean square, of the last pass */
    int64_t targets;
    float *gradients; /* [count] */
    uint64_t count;
};

static void open_chain(struct chain *chain, const char *model_name, enum precision precision,
                       int64_t sequences)
{
    struct model model;
    struct error err = {0};
    assert_int_equal(parity_model(&model, model_name, &err), STATUS_OK);
    const struct chain_options options = {
        .shape = {.sequences = sequences, .seq_length = model.seq_length, .threads = 1},
        .precision = precision};
    if (chain_open(chain, &model, &options, &err) != STATUS_OK ||
        chain_randomise(chain, 3, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    chain_cast(chain);
}

/* Sequences [first, first + the chain's) of the batch; returns how many targets they have. */
static int64_t fill(struct chain *chain, int64_t first)
{
    int64_t length = chain->model.seq_length, vocab = chain->model.vocab, targets = 0;
    for (int64_t i = 0; i < chain->options.shape.sequences; i++) {
        int64_t sequence = first + i;
        int64_t used = sequence < SEQUENCES / MICRO_BATCHES ? length : SHORT;
        for (int64_t t = 0; t < length; t++) {
            int64_t token = (sequence * 101 + t * t * 7 + t) % vocab;
            chain->token_ids[i * length + t] = (int32_t)token;
            chain->targets[i * length + t] = t < used ? (int32_t)((5 * token + 1) % vocab) : -1;
        }
        targets += used;
    }
    return targets;
}

static double logit_size(struct chain *chain)
{
    size_t count = chain->tokens * (size_t)chain->model.vocab;
    float *logits = malloc(count * sizeof *logits);
    struct error err = {0};
    double sum = 0;
    assert_non_null(logits);
    if (chain_logits(chain, logits, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < count; i++)
        sum += (double)logits[i] * logits[i];
    free(logits);
    return sqrt(sum / (double)count);
}

/* One pass over the chain's share of the batch, every target's weight being `scale`. Adds to the
 * result's loss. */
static void pass(struct chain *chain, double scale, bool accumulate, struct result *out)
{
    struct error err = {0};
    double loss_sum = 0;
    chain->loss_scale = (float)scale;
    if (chain_forward(chain, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    out->logits = logit_size(chain);
    if (chain_backward(chain, accumulate, &loss_sum, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    out->loss += scale * loss_sum;
}

static void keep(struct chain *chain, struct result *out)
{
    out->count = chain->count;
    out->gradients = calloc(chain->count, sizeof *out->gradients);
    assert_non_null(out->gradients);
    memcpy(out->gradients, chain->gradients, chain->count * sizeof *out->gradients);
    chain_close(chain);
}

static void whole_batch(const char *model, enum precision precision, struct result *out)
{
    struct chain chain;
    *out = (struct result){0};
    open_chain(&chain, model, precision, SEQUENCES);
    out->targets = fill(&chain, 0);
    pass(&chain, 1 / (double)out->targets, false, out);
    keep(&chain, out);
}

static void in_micro_batches(const char *model, enum precision precision, bool mean_of_means,
                             struct result *out)
{
    const int64_t share = SEQUENCES / MICRO_BATCHES;
    struct chain chain;
    *out = (struct result){0};
    open_chain(&chain, model, precision, share);
    for (int64_t i = 0; i < MICRO_BATCHES; i++)
        out->targets += fill(&chain, i * share);
    for (int64_t i = 0; i < MICRO_BATCHES; i++) {
        double targets = (double)fill(&chain, i * share);
        double scale = 1 / (mean_of_means ? targets * MICRO_BATCHES : (double)out->targets);
        pass(&chain, scale, i > 0, out);
    }
    keep(&chain, out);
}

static double gradient_distance(const struct result *a, const struct result *b)
{
    double difference = 0, size = 0;
    assert_int_equal(a->count, b->count);
    for (uint64_t i = 0; i < a->count; i++) {
        difference += pow((double)a->gradients[i] - b->gradients[i], 2);
        size += pow(b->gradients[i], 2);
    }
    return sqrt(difference / size);
}

struct limits {
    double loss, gradient;
};

static struct limits limits_of(const struct model *model, enum precision precision,
                               const struct result *whole)
{
    double lambda = parity_confidence(COMPARISONS, 1e-2);
    const struct parity_pass pass = {
        .model = model, .precision = precision, .tokens = whole->targets};
    struct parity_noise noise = parity_noise_of(&pass);
    const struct parity_loss loss = {.vocab = (double)model->vocab,
                                     .tokens = (double)whole->targets,
                                     .logits = whole->logits,
                                     .noise = noise.logits,
                                     .loss = whole->loss};
    return (struct limits){.loss = lambda * parity_loss_noise(&loss) / whole->loss,
                           .gradient = parity_norm_confidence(lambda, model) * noise.gradient};
}

static void assert_separated(const char *model_name, enum precision precision)
{
    static const double least_factors[PRECISION_COUNT] = {
        [PRECISION_FP32] = 100, [PRECISION_BF16] = 1.5, [PRECISION_FP16] = 5};
    struct result whole, right, wrong;
    struct model model;
    struct error err = {0};
    assert_int_equal(parity_model(&model, model_name, &err), STATUS_OK);
    whole_batch(model_name, precision, &whole);
    in_micro_batches(model_name, precision, false, &right);
    in_micro_batches(model_name, precision, true, &wrong);
    struct limits limits = limits_of(&model, precision, &whole);
    double sound = gradient_distance(&right, &whole) / limits.gradient;
    double sound_loss = fabs(right.loss / whole.loss - 1) / limits.loss;
    double factor = gradient_distance(&wrong, &whole) / limits.gradient;
    printf("%7.4f loss %7.4f gradient; without the fault %.4f, %.4f: %s %s: mean of means\n",
           fabs(wrong.loss / whole.loss - 1) / limits.loss, factor, sound_loss, sound, model_name,
           precision_name(precision));
    assert_true(sound <= 1 && sound_loss <= 1);
    assert_true(factor >= least_factors[precision]);
    free(whole.gradients);
    free(right.gradients);
    free(wrong.gradients);
}

static void test_parity_means__mean_of_means_is_caught(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    for (int p = 0; p < PRECISION_COUNT; p++) {
        if (!device_supports(device, (enum precision)p))
            continue;
        assert_separated("gpt2", (enum precision)p);
        assert_separated("llama", (enum precision)p);
    }
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_means__mean_of_means_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
