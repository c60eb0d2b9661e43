/* Why a plan is what it is: what each of its choices gains over the best plan that chooses
 * otherwise, and what more memory would save. Each figure is a search of its own with that one
 * choice taken away; everything else is free to adapt. A choice of single layers (recompute,
 * precision, ZeRO, sequence parallelism) is held against those plans in which all layers of the
 * kind have one other setting. */
#ifndef TEMPER_PLANNER_EXPLAIN_H
#define TEMPER_PLANNER_EXPLAIN_H

#include "planner/planner.h"

enum choice_state {
    CHOICE_COMPARED,
    CHOICE_PINNED,  /* the user made it */
    CHOICE_ONLY,    /* nothing else is measured, or can be */
    CHOICE_TOO_BIG, /* whatever else there is does not fit into the memory cap */
    CHOICE_UNKNOWN, /* stopped before it was compared */
};

enum { CHOICE_TEXT_BYTES = 64 };

struct explained_choice {
    char name[CHOICE_TEXT_BYTES];  /* "pipeline", "recompute of attention" */
    char value[CHOICE_TEXT_BYTES]; /* "2", "full 3, none 9": layers of each */
    enum choice_state state;
    /* Where CHOICE_COMPARED: the best plan found that chooses otherwise. */
    char other[CHOICE_TEXT_BYTES]; /* its choice */
    double gain;       /* (its objective - this plan's) / this plan's; < 0: it is better */
    double least_gain; /* none of the plans compared with is closer than this */
    double time_s, memory_bytes; /* of it; memory as the cap is held against it */
    double memory_p95_bytes;
    double energy_j; /* NAN: absent */
};

/* The best plan under another memory cap. */
struct explained_memory {
    double cap_bytes;   /* INFINITY: none */
    bool fits;          /* some plan does */
    double saving;      /* (this plan's objective - its) / this plan's; < 0: it is worse */
    double most_saving; /* no plan under that cap saves more */
    double time_s, memory_bytes, memory_p95_bytes;
};

enum { EXPLAINED_MEMORY_MAX = 4 };

/* Zero-initialise; release with explanation_clear. */
struct explanation {
    struct explained_choice *choices; /* [count], owned */
    size_t count, capacity;
    double memory_bytes; /* of the plan, as the cap is held against it */
    double memory_p95_bytes;
    double risk;       /* that memory exceeds the cap */
    double from_bytes; /* the cap, or without one what the plan needs: what `memory` differs from */
    bool has_cap;
    bool cap_binds;                                       /* without it a better plan was found */
    struct explained_memory memory[EXPLAINED_MEMORY_MAX]; /* [memory_count], by rising cap */
    size_t memory_count;
    bool is_stopped; /* by the user: some choices are CHOICE_UNKNOWN */
    size_t searches;
    double seconds;
};

/* `plan` is what planner_search found for the request. */
enum status explain_plan(const struct planner_request *request, const struct plan *plan,
                         struct explanation *out, struct error *err);
void explanation_clear(struct explanation *explanation);

#endif
