/* How far two runs of the same training may differ by rounding alone: the formulas of
 * docs/parity.md. */
#ifndef TEMPER_TESTS_EXECUTOR_PARITY_BOUND_H
#define TEMPER_TESTS_EXECUTOR_PARITY_BOUND_H

#include "ir/layer.h"
#include "ir/model.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PARITY_STEPS_MAX = 8 };

/* Half the distance between 1 and the next number: 2^-24, 2^-8, 2^-11. */
double parity_roundoff(enum precision precision);
/* lambda: a sum of bounded roundings of mean zero exceeds lambda of its deviations in none of
 * `comparisons` with probability 1 - `risk` (Hoeffding, as in Higham and Mary 2019). */
double parity_confidence(double comparisons, double risk);
/* The same for a norm of `hidden` or more independent errors, which deviates little from its mean:
 * 1 + lambda / sqrt(hidden). */
double parity_norm_confidence(double confidence, const struct model *model);

/* Two values that differ by `difference` (relative, root of the mean square) are rounded to unit
 * roundoff `w` at `points` places one behind the other: their difference afterwards. */
double parity_rounded(double difference, int points, double w);
/* What `roundings` of mean zero, independent of each other, do to one value: relative, root of the
 * mean square. */
double parity_single_roundings(double roundings, double w);
/* A difference of at most e in an element's gradients so far changes AdamW's update of it in this
 * step (from 0), before the learning rate, by at most this times e / epsilon, to first order.
 * `size` is the root of its second moment, corrected for its start, in epsilons. */
double parity_update_gain(double size, double beta1, double beta2, int step);

/* What rounding does in one pass through a model: relative mean-square differences of two runs, as
 * their roots. */
struct parity_noise {
    double logits;     /* after the forward pass */
    double gradient;   /* of any tensor, after the backward pass and sums in fp32 */
    double worst_case; /* of a gradient, when every rounding goes the same way */
};

/* A pass of which there are two runs. */
struct parity_pass {
    const struct model *model;
    enum precision precision; /* the coarsest of any layer */
    int64_t tokens;           /* of the global batch */
    bool narrow_tiles;        /* the tiled kernel's operands are rounded: parity_narrow_tiles */
    int tiled, unlike;        /* attention layers that both runs, or one of them, compute by it */
};

/* Does this CPU's tiled kernel round its operands to the layer's 16 bit? */
bool parity_narrow_tiles(enum precision precision);
/* How often a kernel of attention rounds to 16 bit from qkv to the context, and from the context's
 * gradient to that of qkv; the last one each is the result's storage. */
struct parity_points {
    int forward, backward;
};
struct parity_points parity_points_of(enum attention_kernel kernel, bool narrow_tiles);

struct parity_noise parity_noise_of(const struct parity_pass *pass);
/* How a matrix's gradient is added up in bf16. */
struct parity_gradient_sum {
    int zero_stage;
    int64_t micro_batches; /* of a replica */
    int64_t chunks;        /* in which a micro-batch's gradient comes: a head's, else 1 */
    int parts;             /* 2 of a table to which embedding and head of one stage add, else 1 */
    bool is_reduced;       /* over replicas */
    bool has_copies;       /* of a tied table, on two stages, which are added up */
};

/* As many roundings of its final value make the same mean-square error, of summands of random sign:
 * a rounding of a partial sum counts by its share of the square of all. */
double parity_gradient_roundings(const struct parity_gradient_sum *sum);
/* Where a loss comes from. */
struct parity_loss {
    double vocab, tokens;
    double logits; /* root mean square of the logits */
    double noise;  /* their relative difference */
    double loss;   /* nats */
};

/* The absolute difference of two losses, root of the mean square: rounding in the logits, which is
 * independent in every token, and in the log-sum-exp, which need not be. */
double parity_loss_noise(const struct parity_loss *loss);

/* How far a gradient (relative) can be moved by weights that differ: `relative` [count] are the
 * relative differences of all tensors. An assumption, which test_parity_bound.c measures. */
double parity_growth(const double *relative, size_t count);

/* Sizes of one tensor in the run on one device; norms are those of Frobenius. */
struct parity_tensor {
    double count;                      /* elements */
    double gradient[PARITY_STEPS_MAX]; /* norm of each step's gradient after clipping */
    double gain[PARITY_STEPS_MAX];     /* root mean square of parity_update_gain of its elements */
    double weights, change, moment;    /* norms at the end: values, values less initial values,
                                          AdamW's first moment */
    bool decays;
    double roundings; /* parity_gradient_roundings of this training; 0: added up in fp32 */
};

struct parity_step {
    double learning_rate, loss, gradient_norm;
};

/* A training whose bounds are wanted, and its sizes. */
struct parity_training {
    const struct model *model;
    int64_t tokens;            /* of the global batch */
    struct parity_noise noise; /* of each pass; sums in bf16 are the tensors' */
    double beta1, beta2, epsilon, weight_decay, clip_norm;
    double confidence; /* lambda */
    struct parity_step steps[PARITY_STEPS_MAX];
    int step_count;
    const struct parity_tensor *tensors;
    size_t tensor_count;
};

/* Relative differences that rounding explains. */
struct parity_tensor_bound {
    double change;  /* || change - change' || / || change || */
    double weights; /* || w - w' || / || w || */
    double moment;  /* of AdamW's first moment: the gradients' decaying mean */
};

struct parity_bound {
    double loss[PARITY_STEPS_MAX];          /* | L' - L | / L of each step */
    double gradient_norm[PARITY_STEPS_MAX]; /* likewise */
    struct parity_tensor_bound *tensors;    /* [tensor_count], owned */
};

/* Fails the process's test when memory is short. */
void parity_bound_open(struct parity_bound *out, const struct parity_training *training);
void parity_bound_close(struct parity_bound *bound);

#endif
