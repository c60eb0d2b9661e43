/* The systems that published runs were made on: what of their software and network time and memory
 * depend on, and a table of runs has no column for. */
#ifndef TEMPER_IR_CASE_SYSTEM_H
#define TEMPER_IR_CASE_SYSTEM_H

#include "ir/layout.h"

enum { SYSTEM_UNSTATED = -1 };

struct case_system {
    const char *source; /* how the column 'source' of its runs begins */
    enum framework framework;
    bool fused_attention, fused_cross_entropy, gradients_16_bit;
    bool overlap_gradients, overlap_parameters, overlap_tensor;
    const char *network; /* between nodes, as cluster_set_network reads it; NULL: the usual one */
    /* What an empty column says there; SYSTEM_UNSTATED: nothing, the row is skipped. */
    int sequence_parallel, zero_stage, arithmetic;
    int context_parallel, virtual_stages; /* 0: nothing */
    bool recomputes_all;                  /* 'recompute': full; false: nothing */
    /* Runs whose column 'plan' is below this ran at the device's full clock and power limit; 0: the
     * system has no such plans. */
    int full_clock_plans;
};

/* NULL: none of the table's. */
const struct case_system *case_system_find(const char *source);
/* What the words of a run's notes or source say about a system that is not in the table. False:
 * they name no framework. */
bool case_system_from_words(const char *words, struct case_system *out);
/* Of which only the framework is known. */
struct case_system case_system_of(enum framework framework);
/* What notes say beyond the system: "fused attention", "fused cross-entropy", "async TP",
 * "distributed Adam". */
void case_system_refine(struct case_system *system, const char *notes);

#endif
