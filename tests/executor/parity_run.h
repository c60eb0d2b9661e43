/* Trains tiny models under plans and holds what they learn to the bounds of parity_bound.h. */
#ifndef TEMPER_TESTS_EXECUTOR_PARITY_RUN_H
#define TEMPER_TESTS_EXECUTOR_PARITY_RUN_H

#include "executor/comm/comm.h"
#include "parity_bound.h"
#include "parity_cases.h"
#include "trained.h"
#include <stdio.h>

enum { PARITY_STEPS = 3 };

/* Steps that were skipped (fp16, while its loss scale settles) are in `attempts` alone. */
struct parity_outcome {
    struct parity_step steps[PARITY_STEPS];
    int attempts;
    struct trained_state state; /* at rank 0 */
};

/* Trains until PARITY_STEPS steps were done. Fails the test on any error. Collective over `comm`,
 * of as many ranks as the plan, which it takes over. */
void parity_train(struct parity_outcome *out, const struct plan *plan, const char *data_path,
                  struct comm *comm);
void parity_outcome_clear(struct parity_outcome *outcome);

/* The same training on one device: what was learnt, and the bounds that follow from its sizes. */
struct parity_device {
    struct parity_case what;
    struct model model;
    struct parity_outcome outcome;
    struct trained_state initial;
    struct parity_training training; /* borrows model and tensors */
    struct parity_tensor *tensors;
    struct parity_bound bound;
};

/* parity_reference of the case, by this process alone, and the case's bounds. `comparisons` that
 * are made with all bounds of the program: see parity_confidence. */
void parity_device_open(struct parity_device *out, const struct parity_case *what,
                        const char *data_path, double comparisons);
/* From now on the bounds are those of a training under these cases, one behind the other, of the
 * same model and precision. */
void parity_device_expect(struct parity_device *device, const struct parity_case *cases,
                          size_t count);
void parity_device_close(struct parity_device *device);

/* parity_gradient_roundings of every tensor in the order of the chain, 0 where gradients are fp32;
 * `out` may be NULL. Returns how many tensors there are. */
size_t parity_tensor_roundings(const struct plan *plan, double *out);

/* What is compared. */
enum parity_quantity {
    PARITY_LOSS,    /* of each step */
    PARITY_NORM,    /* gradient norm of each step */
    PARITY_MOMENT,  /* tensor by tensor: AdamW's first moment, the mean of the gradients */
    PARITY_CHANGE,  /* tensor by tensor: weights less initial weights */
    PARITY_WEIGHTS, /* tensor by tensor */
    PARITY_QUANTITIES
};
extern const char *const parity_quantity_names[PARITY_QUANTITIES];

/* The difference that comes nearest to its bound, or exceeds it most. */
struct parity_finding {
    double observed, bound, ratio;
    char where[TENSOR_NAME_BYTES]; /* tensor, or "step 2" */
};

struct parity_verdict {
    struct parity_finding of[PARITY_QUANTITIES];
};

/* By the bounds of the last case that was opened or expected. */
void parity_compare(const struct parity_device *device, const struct parity_outcome *outcome,
                    struct parity_verdict *out);
/* The largest ratio; above 1 the difference is not rounding. */
double parity_worst(const struct parity_verdict *verdict);
/* One line: the ratios, the worst tensor, and what was run. */
void parity_print(FILE *out, const struct parity_verdict *verdict, const char *what);

#endif
