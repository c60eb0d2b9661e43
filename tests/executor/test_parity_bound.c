/* The parts of the bounds of docs/parity.md against experiments: sums in two orders, values rounded
 * twice, AdamW with disturbed gradients, a training with disturbed weights. */
#include "parity_run.h"

#include "executor/ops/device.h"
#include "executor/ops/update.h"
#include "executor/safetensors.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value / expected - 1) <= tolerance))
        fail_msg("%g instead of %g", value, expected);
}

/* Uniform in (0, 1), the same in every run. */
static double draw(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

static double draw_normal(void)
{
    return sqrt(-2 * log(draw())) * cos(2 * M_PI * draw());
}

static struct model model_of(const char *name)
{
    struct model model;
    struct error err = {0};
    assert_int_equal(parity_model(&model, name, &err), STATUS_OK);
    return model;
}

static void test_parity_bound__roundoff_is_that_of_the_formats(void **state)
{
    (void)state;
    /* The least number that 1 can be told from lies two roundoffs above it. */
    assert_true(1.0f + (float)(2 * parity_roundoff(PRECISION_FP32)) > 1.0f);
    assert_true(1.0f + (float)parity_roundoff(PRECISION_FP32) == 1.0f);
    assert_true(parity_roundoff(PRECISION_BF16) == 1.0 / 256);
    assert_true(parity_roundoff(PRECISION_FP16) == 1.0 / 2048);
}

static void test_parity_bound__confidence_by_hand(void **state)
{
    (void)state;
    /* sqrt(2 ln(2 * 1000 / 0.01)) = sqrt(2 * 12.206) */
    assert_near(parity_confidence(1000, 0.01), 4.9409, 1e-4);
}

/* Dot products of random vectors, added up in two orders: their differences stay below lambda
 * sqrt(2 n) u of the result's size. */
static void test_parity_bound__sums_in_two_orders(void **state)
{
    (void)state;
    enum { TRIES = 400, LONGEST = 4096 };
    static float products[LONGEST];
    double u = parity_roundoff(PRECISION_FP32), lambda = parity_confidence(TRIES, 1e-2);
    for (int n = 16; n <= LONGEST; n *= 4)
        for (int t = 0; t < TRIES; t++) {
            float forwards = 0, halves[2] = {0, 0};
            for (int i = 0; i < n; i++)
                products[i] = (float)(draw_normal() * draw_normal());
            for (int i = 0; i < n; i++)
                forwards += products[i];
            for (int i = 0; i < n; i++)
                halves[i % 2] += products[n - 1 - i];
            double difference = fabs((double)forwards - (double)(halves[0] + halves[1]));
            assert_true(difference <= lambda * sqrt(2.0 * n) * u * sqrt(n));
        }
}

/* Pairs of values that differ by a given share of the roundoff, rounded to bf16. */
static void test_parity_bound__rounding_of_two_near_values(void **state)
{
    (void)state;
    enum { PAIRS = 200000 };
    static float from[2 * PAIRS];
    static uint16_t to[2 * PAIRS];
    struct device *device = NULL;
    struct error err = {0};
    double w = parity_roundoff(PRECISION_BF16);
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    for (double difference = w / 512; difference < 4 * w; difference *= 4) {
        double sum = 0;
        for (int i = 0; i < PAIRS; i++) {
            double value = exp2(draw()); /* of one binade */
            from[2 * i] = (float)value;
            from[2 * i + 1] = (float)(value * (1 + (draw() < 0.5 ? -difference : difference)));
        }
        ops_cast_16(device, from, to, 2 * PAIRS, PRECISION_BF16);
        for (int i = 0; i < PAIRS; i++) {
            float rounded[2];
            for (int k = 0; k < 2; k++) {
                uint32_t bits = (uint32_t)to[2 * i + k] << 16;
                memcpy(&rounded[k], &bits, sizeof bits);
            }
            double relative = ((double)rounded[0] - rounded[1]) / from[2 * i];
            sum += relative * relative;
        }
        double measured = sqrt(sum / PAIRS), bound = parity_rounded(difference, 1, w);
        assert_true(measured <= bound);
        assert_true(measured >= bound / 3);
    }
    device_close(device);
}

static void test_parity_bound__rounding_saturates(void **state)
{
    (void)state;
    double w = parity_roundoff(PRECISION_BF16), few = parity_rounded(1e-7, 3, w);
    /* A disturbance a thousand times larger makes next to no difference after a few layers: that is
     * why in 16 bit every other order of additions looks the same. */
    double small = parity_rounded(1e-7, 60, w), large = parity_rounded(1e-4, 60, w);
    assert_true(few < w);
    assert_near(large / small, 1, 0.05);
    assert_near(small, w * sqrt(2.0 / 3 * 60), 0.1);
}

static struct parity_noise noise_of(const struct model *model, enum precision precision,
                                    int64_t tokens)
{
    const struct parity_pass pass = {.model = model, .precision = precision, .tokens = tokens};
    return parity_noise_of(&pass);
}

static void test_parity_bound__noise_follows_the_sizes(void **state)
{
    (void)state;
    struct model model = model_of("gpt2"), deep = model;
    deep.blocks *= 4;
    for (int p = 0; p < PRECISION_COUNT; p++) {
        enum precision precision = (enum precision)p;
        struct parity_noise noise = noise_of(&model, precision, 256);
        struct parity_noise deeper = noise_of(&deep, precision, 256);
        assert_true(noise.logits < noise.gradient);
        /* The worst case grows with the depth, rounding of mean zero with its root. */
        assert_true(deeper.gradient > 1.5 * noise.gradient);
        assert_true(deeper.gradient < 2 * noise.gradient);
        assert_true(deeper.worst_case > 2.5 * noise.worst_case);
        assert_true(parity_confidence(1e5, 1e-2) * noise.gradient < noise.worst_case);
    }
    struct parity_noise fp32 = noise_of(&model, PRECISION_FP32, 256);
    struct parity_noise fp16 = noise_of(&model, PRECISION_FP16, 256);
    struct parity_noise bf16 = noise_of(&model, PRECISION_BF16, 256);
    assert_true(fp32.gradient < fp16.gradient / 100);
    assert_near(bf16.gradient / fp16.gradient, 8, 0.1);
}

/* The figures that docs/parity.md gives for models of known names. */
static void test_parity_bound__figures_of_the_page(void **state)
{
    (void)state;
    static const struct {
        const char *model;
        int64_t seq_length, tokens;
        double loss;
        double bounds[PRECISION_COUNT][2]; /* of the loss and of a gradient, relative */
        double tiled; /* of a gradient, bf16, where the tiled kernel's operands are rounded */
    } rows[] = {
        {"gpt2",
         1024,
         4096,
         3.3,
         {[PRECISION_FP32] = {2.2e-5, 5.8e-5},
          [PRECISION_FP16] = {5.2e-4, 6.2e-3},
          [PRECISION_BF16] = {4.0e-3, 5.0e-2}},
         5.4e-2},
        {"gpt2",
         1024,
         524288,
         3.3,
         {[PRECISION_FP32] = {1.9e-5, 8.9e-5},
          [PRECISION_FP16] = {6.3e-5, 6.2e-3},
          [PRECISION_BF16] = {3.7e-4, 5.0e-2}},
         5.4e-2},
        {"llama-3-8b",
         8192,
         4194304,
         2.0,
         {[PRECISION_FP32] = {5.0e-5, 2.6e-4},
          [PRECISION_FP16] = {9.3e-5, 1.0e-2},
          [PRECISION_BF16] = {4.0e-4, 8.1e-2}},
         8.7e-2},
    };
    double lambda = parity_confidence(1, 1e-2);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int p = 0; p < PRECISION_COUNT; p++) {
            const struct model_overrides sizes = {.seq_length = rows[i].seq_length};
            struct model model;
            struct error err = {0};
            if (model_load(&model, rows[i].model, &sizes, &err) != STATUS_OK)
                fail_msg("%s", err.message);
            struct parity_noise noise = noise_of(&model, (enum precision)p, rows[i].tokens);
            const struct parity_loss loss = {.vocab = (double)model.vocab,
                                             .tokens = (double)rows[i].tokens,
                                             .logits = 5,
                                             .noise = noise.logits,
                                             .loss = rows[i].loss};
            assert_near(lambda * parity_loss_noise(&loss) / rows[i].loss, rows[i].bounds[p][0],
                        0.03);
            double confidence = parity_norm_confidence(lambda, &model);
            assert_near(confidence * noise.gradient, rows[i].bounds[p][1], 0.03);
            const struct parity_pass tiled = {.model = &model,
                                              .precision = PRECISION_BF16,
                                              .tokens = rows[i].tokens,
                                              .narrow_tiles = true,
                                              .tiled = (int)model.blocks};
            assert_near(confidence * parity_noise_of(&tiled).gradient, rows[i].tiled, 0.03);
        }
}

struct element {
    double update, size; /* size: the root of the second moment, in epsilons */
};

/* One element after `steps` gradients. */
static struct element element_after(const double *gradients, int steps, double epsilon)
{
    double m = 0, v = 0;
    for (int i = 0; i < steps; i++) {
        m = 0.9 * m + 0.1 * gradients[i];
        v = 0.95 * v + 0.05 * gradients[i] * gradients[i];
    }
    double root = sqrt(v / (1 - pow(0.95, steps)));
    return (struct element){m / (1 - pow(0.9, steps)) / (root + epsilon), root / epsilon};
}

/* Gradients of every size against epsilon, each disturbed a little. */
static void test_parity_bound__adamw_passes_differences_on(void **state)
{
    (void)state;
    enum { STEPS = 4 };
    const double epsilon = 1e-2;
    double largest = 0;
    for (int t = 0; t < 200000; t++) {
        double gradients[STEPS], disturbed[STEPS], size = epsilon * exp2(12 * draw() - 8);
        double difference = 1e-6 * size;
        int steps = 1 + t % STEPS;
        for (int i = 0; i < steps; i++) {
            gradients[i] = size * draw_normal();
            disturbed[i] = gradients[i] + difference * (draw() < 0.5 ? -1 : 1);
        }
        struct element plain = element_after(gradients, steps, epsilon);
        struct element other = element_after(disturbed, steps, epsilon);
        double bound = parity_update_gain(plain.size, 0.9, 0.95, steps - 1) * difference / epsilon;
        double ratio = fabs(other.update - plain.update) / bound;
        assert_true(ratio <= 1.001);
        largest = fmax(largest, ratio);
    }
    assert_true(largest > 0.5);
}

/* ---- the growth factor ---- */

static void disturb(struct trained_state *weights, double relative)
{
    for (size_t i = 0; i < weights->count; i++) {
        const struct trained_tensor *tensor = &weights->tensors[i];
        double sum = 0;
        for (uint64_t k = 0; k < tensor->count; k++)
            sum += (double)tensor->weights[k] * tensor->weights[k];
        /* Biases are 0 and are added to values of the initial weights' size. */
        double size = relative * fmax(sqrt(sum / (double)tensor->count), 0.02);
        for (uint64_t k = 0; k < tensor->count; k++)
            tensor->weights[k] += (float)(size * draw_normal());
    }
}

static size_t list_tensors(const struct model *model, struct safetensor_out *out)
{
    size_t count = 0;
    for (size_t i = 0; i < model_layer_count(model); i++) {
        struct layer layer = model_layer(model, i);
        struct tensor_spec specs[LAYER_TENSORS_MAX];
        size_t tensors = layer_tensors(model, layer.kind, specs);
        for (size_t k = 0; k < tensors; k++, count++) {
            out[count] =
                (struct safetensor_out){.shape = {specs[k].rows, specs[k].cols}, .rank = 2};
            if (specs[k].is_vector)
                out[count] = (struct safetensor_out){.shape = {specs[k].cols}, .rank = 1};
            tensor_name(&specs[k], layer.block, out[count].name);
        }
    }
    return count;
}

static void write_weights(const struct trained_state *weights, const struct model *model,
                          const char *path)
{
    struct safetensors_writer *writer = NULL;
    struct error err = {0};
    struct safetensor_out *tensors =
        calloc(model_layer_count(model) * LAYER_TENSORS_MAX, sizeof *tensors);
    assert_non_null(tensors);
    assert_int_equal(list_tensors(model, tensors), weights->count);
    assert_int_equal(safetensors_writer_open(&writer, path, tensors, weights->count, &err),
                     STATUS_OK);
    for (size_t i = 0; i < weights->count; i++)
        assert_int_equal(safetensors_writer_add(writer, weights->tensors[i].weights, &err),
                         STATUS_OK);
    assert_int_equal(safetensors_writer_commit(writer, &err), STATUS_OK);
    free(tensors);
}

/* The state after one step, from initial weights that were disturbed. */
static void learn_once(const char *model, double relative, const char *data_path,
                       struct trained_state *out)
{
    static const struct optimizer_options optimizer = {
        .learning_rate = 1e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-2};
    const struct parity_case what = {.model = model, .ranks = 1};
    const struct parity_case one = parity_reference(&what);
    struct trained trained;
    struct trained_state initial;
    struct plan plan;
    struct comm *alone = NULL;
    struct step_result result;
    struct error err = {0};
    char folder[64], path[96];
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    assert_int_equal(parity_plan(&plan, &one, &err), STATUS_OK);
    trained_folder(alone, folder);
    trained_open_plan(&trained, &plan, data_path, &optimizer, alone);
    trained_read(&trained, folder, &initial);
    disturb(&initial, relative);
    snprintf(path, sizeof path, "%s.safetensors", folder);
    write_weights(&initial, &trained.plan.model, path);
    if (trainer_load_weights(trained.trainer, path, &err) != STATUS_OK ||
        trainer_step(trained.trainer, &result, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    trained_read(&trained, folder, out);
    trained_state_clear(&initial);
    trained_close(&trained);
    unlink(path);
    comm_close(alone);
}

/* A disturbance of every weight by eta, far above rounding and far below the weights, changes no
 * tensor's gradient by more than the growth that is assumed. */
static void test_parity_bound__growth_is_within_its_factor(void **state)
{
    (void)state;
    static const char *const models[] = {"gpt2", "llama"};
    const double eta = 1e-3;
    char data_path[64];
    write_tokens(data_path, 20000, 251);
    for (size_t m = 0; m < 2; m++) {
        struct trained_state plain, disturbed;
        double worst = 0, assumed = 0;
        learn_once(models[m], 0, data_path, &plain);
        learn_once(models[m], eta, data_path, &disturbed);
        double *relative = calloc(plain.count, sizeof *relative);
        assert_non_null(relative);
        for (size_t i = 0; i < plain.count; i++)
            relative[i] = eta;
        assumed = parity_growth(relative, plain.count) / eta;
        free(relative);
        for (size_t i = 0; i < plain.count; i++) {
            const struct trained_tensor *a = &plain.tensors[i], *b = &disturbed.tensors[i];
            double difference = 0, size = 0;
            for (uint64_t k = 0; k < a->count; k++) {
                double apart = (double)a->first_moment[k] - b->first_moment[k];
                difference += apart * apart;
                size += (double)a->first_moment[k] * a->first_moment[k];
            }
            double growth = sqrt(difference / size) / eta;
            if (growth > assumed)
                fail_msg("%s: %s grows by %g, more than %g", models[m], a->name, growth, assumed);
            worst = fmax(worst, growth);
        }
        printf("%s: a gradient grows by at most %.2f, assumed %.2f\n", models[m], worst, assumed);
        trained_state_clear(&plain);
        trained_state_clear(&disturbed);
    }
    unlink(data_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_bound__roundoff_is_that_of_the_formats),
        cmocka_unit_test(test_parity_bound__confidence_by_hand),
        cmocka_unit_test(test_parity_bound__sums_in_two_orders),
        cmocka_unit_test(test_parity_bound__rounding_of_two_near_values),
        cmocka_unit_test(test_parity_bound__rounding_saturates),
        cmocka_unit_test(test_parity_bound__noise_follows_the_sizes),
        cmocka_unit_test(test_parity_bound__figures_of_the_page),
        cmocka_unit_test(test_parity_bound__adamw_passes_differences_on),
        cmocka_unit_test(test_parity_bound__growth_is_within_its_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
