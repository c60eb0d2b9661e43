/* A group of ranks that passes everything on to another, but for one planted fault: what a bug in
 * the reduction of gradients looks like to the rest of the program. */
#ifndef TEMPER_TESTS_EXECUTOR_PARITY_COMM_H
#define TEMPER_TESTS_EXECUTOR_PARITY_COMM_H

#include "executor/comm/comm.h"
#include "ir/plan.h"

/* Which groups of a plan's ranks (ir/mesh.h). */
enum fault_group {
    FAULT_DATA,   /* ranks that replicate a layer */
    FAULT_TENSOR, /* ranks that share one */
    FAULT_TABLE,  /* ranks of different stages that hold copies of a tied token table */
};

enum fault_kind {
    FAULT_NONE,
    FAULT_MISSING, /* every sum of fp32 is left out */
    FAULT_ONE,     /* the `at`-th of them is, from 0, and no other */
    FAULT_SCALED,  /* every sum is multiplied by the ranks of the group */
};

struct fault {
    enum fault_kind kind;
    enum fault_group group;
    int at;
    int planted; /* how often it has struck this rank */
};

/* Wraps `inner` (borrowed, plan->ranks ranks); groups split from it are wrapped as well. `plan` and
 * `fault` are borrowed for the life of all of them. Release with comm_close. */
enum status comm_open_faulty(struct comm **out, struct comm *inner, const struct plan *plan,
                             struct fault *fault, struct error *err);

#endif
