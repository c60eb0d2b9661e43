#include "parity_bound.h"

#include "executor/ops/attention_tile.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

/* Initial deviation of the matrices, and so the size of what is added to them at first. */
static const double initial_deviation = 0.02;

double parity_roundoff(enum precision precision)
{
    static const int digits[PRECISION_COUNT] = {
        [PRECISION_FP32] = 24, [PRECISION_BF16] = 8, [PRECISION_FP16] = 11};
    return ldexp(1.0, -digits[precision]);
}

double parity_confidence(double comparisons, double risk)
{
    return sqrt(2.0 * log(2.0 * comparisons / risk));
}

double parity_norm_confidence(double confidence, const struct model *model)
{
    return 1 + confidence / sqrt((double)model->hidden);
}

/* ---- one pass ---- */

/* Roundings on a path: `terms` adds up the lengths of the fp32 reductions and the single roundings,
 * `points` counts where values are kept in the layer's 16 bit, `single` where only one of the two
 * runs keeps them so. */
struct roundings {
    double terms, points, single;
};

static struct roundings plus(struct roundings a, struct roundings b)
{
    return (struct roundings){a.terms + b.terms, a.points + b.points, a.single + b.single};
}

static struct roundings times(int count, struct roundings a)
{
    return (struct roundings){count * a.terms, count * a.points, count * a.single};
}

/* Constants are single roundings: 4 of a norm, 6 of exp or tanh and what follows, 2 of bias and
 * residual. A weight's 16-bit copy is a point of its own. */
static struct roundings forward_of(const struct model *model, enum layer_kind kind)
{
    double h = (double)model->hidden, d = (double)model->head_dim, s = (double)model->seq_length;
    double context = (double)(model->heads * model->head_dim), ffn = (double)model->ffn;
    double rope = model->family == MODEL_LLAMA ? 1 : 0;
    switch (kind) {
    case LAYER_ATTENTION: /* norm, qkv, scores, softmax, context, projection */
        return (struct roundings){2 * h + d + 2 * s + context + 12 + 3 * rope, 4 + rope + 2, 0};
    case LAYER_MLP: /* norm, up, activation, down */
        return (struct roundings){2 * h + ffn + 12, 3 + 2, 0};
    case LAYER_HEAD: /* norm, logits */
        return (struct roundings){2 * h + 4, 1 + 1, 0};
    default: /* the sum of two embeddings */
        return (struct roundings){1, 0, 0};
    }
}

static struct roundings backward_of(const struct model *model, enum layer_kind kind)
{
    double h = (double)model->hidden, d = (double)model->head_dim, s = (double)model->seq_length;
    double qkv = (double)((model->heads + 2 * model->kv_heads) * model->head_dim);
    double pre = (double)model->ffn * (model->family == MODEL_LLAMA ? 2 : 1);
    double rope = model->family == MODEL_LLAMA ? 1 : 0;
    switch (kind) {
    case LAYER_ATTENTION: /* projection, probabilities, their mean, scores, q k v, norm */
        return (struct roundings){3 * h + d + 3 * s + qkv + 12 + 3 * rope, 2 + rope, 0};
    case LAYER_MLP: /* down, activation, up, norm */
        return (struct roundings){3 * h + pre + 12, 3, 0};
    case LAYER_HEAD: /* softmax, logits, norm */
        return (struct roundings){2 * h + 2 * (double)model->vocab + 12, 1, 0};
    default:
        return (struct roundings){0, 0, 0};
    }
}

static struct roundings sum_over_layers(const struct model *model,
                                        struct roundings (*of)(const struct model *,
                                                               enum layer_kind))
{
    struct roundings sum = {0};
    for (size_t i = 0; i < model_layer_count(model); i++)
        sum = plus(sum, of(model, model_layer(model, i).kind));
    return sum;
}

bool parity_narrow_tiles(enum precision precision)
{
    return tile_ops_for(precision)->pack == 2;
}

struct parity_points parity_points_of(enum attention_kernel kernel, bool narrow_tiles)
{
    if (kernel == ATTENTION_PLAIN)
        return (struct parity_points){2, 1}; /* probabilities, context; gradient of qkv */
    if (!narrow_tiles)
        return (struct parity_points){1, 1}; /* context; gradient of qkv */
    /* exponentials, context; gradient of the context, probabilities, gradient of the scores,
     * gradient of qkv */
    return (struct parity_points){2, 4};
}

/* What an attention layer rounds more, or fewer, where both runs or one of them go tile by tile. */
static struct roundings more_points(int plain, int tiled, bool alike)
{
    if (alike)
        return (struct roundings){0, tiled - plain, 0};
    /* The result's storage is the one point in common. */
    return (struct roundings){0, 1 - plain, plain - 1 + (tiled - 1)};
}

/* A correction by each later tile of keys, of the context and of the sum; backward makes scores and
 * probabilities again. */
static struct roundings tiled_forward(const struct parity_pass *pass, bool alike)
{
    struct roundings more =
        more_points(parity_points_of(ATTENTION_PLAIN, false).forward,
                    parity_points_of(ATTENTION_TILED, pass->narrow_tiles).forward, alike);
    more.terms = 2 * ceil((double)pass->model->seq_length / ATTENTION_TILE);
    return more;
}

static struct roundings tiled_backward(const struct parity_pass *pass, bool alike)
{
    struct roundings more =
        more_points(parity_points_of(ATTENTION_PLAIN, false).backward,
                    parity_points_of(ATTENTION_TILED, pass->narrow_tiles).backward, alike);
    more.terms = 2 * (double)pass->model->head_dim + 12;
    return more;
}

/* Of all layers, forward or backward. */
static struct roundings roundings_of(const struct parity_pass *pass,
                                     struct roundings (*plain)(const struct model *,
                                                               enum layer_kind),
                                     struct roundings (*tiled)(const struct parity_pass *, bool))
{
    struct roundings sum = sum_over_layers(pass->model, plain);
    sum = plus(sum, times(pass->tiled, tiled(pass, true)));
    return plus(sum, times(pass->unlike, tiled(pass, false)));
}

/* They land on different sides of a boundary with probability difference / 2w, and are then 2w
 * apart; at most they are as far apart as two independent roundings. */
double parity_rounded(double difference, int points, double w)
{
    double square = difference * difference;
    for (int i = 0; i < points; i++)
        square += fmin(2 * w * sqrt(square), 2.0 / 3 * w * w);
    return sqrt(square);
}

/* Each is uniform in [-w, w] of what it rounds at worst. */
double parity_single_roundings(double roundings, double w)
{
    return sqrt(roundings / 3) * w;
}

/* Errors of many roundings of mean zero add up like independent ones; two runs make them twice. */
static double difference_of(struct roundings path, double w)
{
    double u = parity_roundoff(PRECISION_FP32);
    double difference = sqrt(2 * path.terms) * u;
    if (w <= u)
        return difference;
    difference = hypot(difference, parity_single_roundings(path.single, w));
    return parity_rounded(difference, (int)path.points, w);
}

struct parity_noise parity_noise_of(const struct parity_pass *pass)
{
    double u = parity_roundoff(PRECISION_FP32), w = parity_roundoff(pass->precision);
    struct roundings forward = roundings_of(pass, forward_of, tiled_forward);
    struct roundings all = plus(forward, roundings_of(pass, backward_of, tiled_backward));
    all.terms += (double)pass->tokens; /* a weight's gradient adds up over them */
    return (struct parity_noise){
        .logits = difference_of(forward, w),
        .gradient = difference_of(all, w),
        .worst_case = 2 * all.terms * u + (w > u ? (2 * all.points + all.single) * w : 0),
    };
}

/* Of n summands of random sign the first i have i / n of the square of all, in the mean: the n
 * partial sums together have (n + 1) / 2 of it. */
double parity_gradient_roundings(const struct parity_gradient_sum *sum)
{
    double m = (double)sum->micro_batches, chunks = (double)sum->chunks;
    double roundings = 0;
    if (sum->zero_stage < 2)
        roundings = (chunks * m + 1) / 2 + (sum->parts - 1) * (m + 1) / 2;
    else /* of each micro-batch's alone; then of the shard, whose first summand is moved */
        roundings = (chunks + 1) / 2 + sum->parts * (m + 1) / 2 - 1 / m;
    if (sum->is_reduced)
        roundings += 1;
    if (sum->has_copies)
        roundings += 1;
    return roundings;
}

static double sum_noise(double roundings)
{
    return parity_single_roundings(roundings, parity_roundoff(PRECISION_BF16));
}

double parity_loss_noise(const struct parity_loss *loss)
{
    double u = parity_roundoff(PRECISION_FP32);
    return sqrt(2 / loss->tokens) * loss->logits * loss->noise +
           M_SQRT2 * u * (sqrt(loss->vocab + 8) + loss->loss);
}

/* A gradient is a sum of paths, each a product of the layers' tensors, once on the way there and
 * once on the way back; what is independent adds up in squares. */
double parity_growth(const double *relative, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += relative[i] * relative[i];
    return sqrt(2 * sum);
}

/* ---- several steps ---- */

/* Where a training stands before a step: differences in absolute terms, by tensor. */
struct spread {
    double *weights;  /* of the parameters */
    double *gradient; /* of the clipped gradients: the largest so far */
    double *moment;   /* of the first moment */
    double *relative; /* of the parameters, relative to their size */
};

/* What the weights' differences do to a gradient. A bias is 0 at first: it is held against values
 * of the size that it is added to. */
static double growth(const struct parity_training *training, const struct spread *spread)
{
    for (size_t i = 0; i < training->tensor_count; i++) {
        const struct parity_tensor *tensor = &training->tensors[i];
        double size = fmax(tensor->weights, initial_deviation * sqrt(tensor->count));
        spread->relative[i] = spread->weights[i] / size;
    }
    return parity_growth(spread->relative, training->tensor_count);
}

/* Of the loss, absolute: its own rounding, and the difference of the weights along the gradient. A
 * logit is the sum of `hidden` weights times values of about 1; a step moves each weight by no more
 * than the learning rate. */
static double loss_bound(const struct parity_training *training, const double *weights, int step)
{
    const struct parity_step *at = &training->steps[step];
    double hidden = (double)training->model->hidden, moved = 0, along = 0;
    for (int i = 0; i < step; i++)
        moved += training->steps[i].learning_rate;
    const struct parity_loss loss = {
        .vocab = (double)training->model->vocab,
        .tokens = (double)training->tokens,
        .logits = initial_deviation * sqrt(hidden) + moved * hidden,
        .noise = training->noise.logits,
        .loss = at->loss,
    };
    double unclipped = training->clip_norm > 0 && at->gradient_norm > training->clip_norm
                           ? at->gradient_norm / training->clip_norm
                           : 1;
    for (size_t i = 0; i < training->tensor_count; i++)
        along += unclipped * training->tensors[i].gradient[step] * weights[i];
    return training->confidence * parity_loss_noise(&loss) + along;
}

/* The supremum of m / sqrt(v) over all gradients, both corrected for their start: Cauchy-Schwarz.
 */
static double moment_ratio(double beta1, double beta2, int step)
{
    double sum = 0;
    for (int i = 0; i <= step; i++) {
        double a = (1 - beta1) * pow(beta1, step - i) / (1 - pow(beta1, step + 1));
        double b = (1 - beta2) * pow(beta2, step - i) / (1 - pow(beta2, step + 1));
        sum += a * a / b;
    }
    return sqrt(sum);
}

/* Of m / (sqrt(v) + epsilon): by m directly, and by v, whose root changes by at most e. */
double parity_update_gain(double size, double beta1, double beta2, int step)
{
    return (1 + moment_ratio(beta1, beta2, step) * size / (1 + size)) / (1 + size);
}

/* Of all gradients together: every tensor's roundings by its share of the square. */
static double norm_roundings(const struct parity_training *training, int step)
{
    double rounded = 0, all = 0;
    for (size_t i = 0; i < training->tensor_count; i++) {
        const struct parity_tensor *tensor = &training->tensors[i];
        double square = tensor->gradient[step] * tensor->gradient[step];
        rounded += tensor->roundings * square;
        all += square;
    }
    return rounded / all;
}

/* Of a gradient that so many roundings add up to, before clipping. */
static double gradient_bound(const struct parity_training *training, double roundings,
                             double growth_so_far)
{
    double confidence = parity_norm_confidence(training->confidence, training->model);
    return confidence * hypot(training->noise.gradient, sum_noise(roundings)) + growth_so_far;
}

static void take_step(const struct parity_training *training, struct spread *spread,
                      double norm_bound, double growth_so_far, int step)
{
    const struct parity_step *at = &training->steps[step];
    double u = parity_roundoff(PRECISION_FP32);
    double ratio = moment_ratio(training->beta1, training->beta2, step);
    bool clips = training->clip_norm > 0 && at->gradient_norm > training->clip_norm;
    for (size_t i = 0; i < training->tensor_count; i++) {
        const struct parity_tensor *tensor = &training->tensors[i];
        double noise = gradient_bound(training, tensor->roundings, growth_so_far);
        if (clips) /* divides by a norm that has an error of its own */
            noise = hypot(noise, norm_bound);
        double gradient = noise * tensor->gradient[step];
        spread->gradient[i] = fmax(spread->gradient[i], gradient);
        spread->moment[i] = training->beta1 * spread->moment[i] + (1 - training->beta1) * gradient +
                            8 * u * (1 - training->beta1) * tensor->gradient[step];
        double update = fmin(tensor->gain[step] * spread->gradient[i] / training->epsilon,
                             2 * ratio * sqrt(tensor->count));
        double decay = tensor->decays ? training->weight_decay * spread->weights[i] : 0;
        spread->weights[i] += at->learning_rate * (update + decay) + 2 * u * tensor->weights +
                              16 * u * tensor->change;
    }
}

static double *zeros(size_t count)
{
    double *values = calloc(count, sizeof *values);
    assert_non_null(values);
    return values;
}

void parity_bound_open(struct parity_bound *out, const struct parity_training *training)
{
    size_t count = training->tensor_count;
    struct spread spread = {zeros(count), zeros(count), zeros(count), zeros(count)};
    *out = (struct parity_bound){.tensors = calloc(count, sizeof *out->tensors)};
    assert_non_null(out->tensors);
    for (int step = 0; step < training->step_count; step++) {
        double grown = growth(training, &spread);
        double norm = gradient_bound(training, norm_roundings(training, step), grown);
        out->loss[step] = loss_bound(training, spread.weights, step) / training->steps[step].loss;
        out->gradient_norm[step] = norm;
        take_step(training, &spread, norm, grown, step);
    }
    for (size_t i = 0; i < count; i++) {
        const struct parity_tensor *tensor = &training->tensors[i];
        out->tensors[i] = (struct parity_tensor_bound){
            .change = spread.weights[i] / tensor->change,
            .weights = spread.weights[i] / tensor->weights,
            .moment = spread.moment[i] / tensor->moment,
        };
    }
    free(spread.weights);
    free(spread.gradient);
    free(spread.moment);
    free(spread.relative);
}

void parity_bound_close(struct parity_bound *bound)
{
    free(bound->tensors);
    *bound = (struct parity_bound){0};
}
