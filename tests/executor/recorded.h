/* One training step of a plan of the parity matrix, and the events that a rank recorded of it. */
#ifndef TEMPER_TESTS_EXECUTOR_RECORDED_H
#define TEMPER_TESTS_EXECUTOR_RECORDED_H

#include "executor/comm/comm.h"
#include "ir/event.h"
#include "parity_cases.h"

struct recorded {
    struct event *events; /* owned; as they came */
    size_t count, capacity;
    size_t layers;            /* of the plan */
    int64_t start_ns, end_ns; /* of the step */
};

/* The second step, when all memory has been touched and all ranks know each other. Fails the test
 * on any error. Collective over `comm`. */
void recorded_step(struct recorded *out, const struct parity_case *what, struct comm *comm);
void recorded_clear(struct recorded *recorded);
/* The last of this phase and layer that began; NULL: none. */
const struct event *recorded_find(const struct recorded *recorded, enum phase phase, int32_t layer);

#endif
