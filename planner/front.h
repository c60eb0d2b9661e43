/* The Pareto front: plans that no other plan is better than in one of time, memory and energy
 * without being worse in another of them.
 *
 * A weighted sum finds only the front's convex hull. So memory and energy, which the search holds
 * as constraints, are swept: minimise the other quantity among plans of at most C bytes and E
 * joules, set C (or E) below what the plan found needs, and again until none fits (epsilon
 * constraints: Haimes, Lasdon, Wismer 1971). That finds every point of a front of two quantities.
 *
 * Of all three, energy is swept at each C, and C is then set below what the fullest of the plans
 * found needs. Nothing is lost: a plan of the front that is missing at a C that it fits into is
 * beaten in time and energy by some plan found there, which has more memory, so that the next C is
 * not below what the missing one needs.
 *
 * With more than one stage the search knows energy from below only, as it does time: a plan that
 * seems to be within E may turn out not to be, and what it hid is missing. There the convex hull of
 * time and energy is found as well, by bisection: between two neighbours, minimise the weighted sum
 * that is the same for both (Aneja, Nair 1979).
 *
 * Memory is that of the fullest rank at the percentile at which the cap is held. */
#ifndef TEMPER_PLANNER_FRONT_H
#define TEMPER_PLANNER_FRONT_H

#include "planner/planner.h"

/* Money and carbon are known of described clusters only. */
enum front_axis {
    FRONT_TIME = 1,
    FRONT_MEMORY = 2,
    FRONT_ENERGY = 4,
    FRONT_COST = 8,
    FRONT_CARBON = 16,
    FRONT_MEASURED = FRONT_TIME | FRONT_MEMORY | FRONT_ENERGY
};

struct front_request {
    /* Its weights are not read; its cap is where the sweep begins, gap target and time limit are
     * those of each search. */
    struct planner_request search;
    unsigned axes; /* two or three of FRONT_MEASURED */
    /* About so many steps of memory, and of energy, from the most to the least that plans need, and
     * no hull finer than as many; 0: every point. */
    int points_most;
};

struct front_point {
    /* Owned. Its objective is that of its own search, in raw weights, and its bound that of all
     * plans of at most plan.memory_cap_bytes. */
    struct plan plan;
    double time_s;
    double memory_bytes; /* at the percentile at which the cap is held */
    double energy_j;     /* NAN: absent, which it is not where energy is an axis */
};

/* Zero-initialise; release with front_clear. */
struct front {
    struct front_point *points; /* [count], none dominated, by rising time; owned */
    size_t count, capacity;
    bool is_hull;      /* time and energy both, and more than one stage: see above */
    bool is_thinned;   /* points may have been passed over for points_most */
    bool is_stopped;   /* by the user: the rest was not searched */
    double step_bytes; /* thinned: memory of swept points differs by about this at least */
    size_t searches;   /* made */
    double seconds;
    struct infeasibility infeasibility; /* where STATUS_INFEASIBLE */
};

/* STATUS_INFEASIBLE fills only out->infeasibility. STATUS_USAGE: fewer than two axes. Else as
 * planner_search. A stopped search keeps what was found. */
enum status front_find(const struct front_request *request, struct front *out, struct error *err);
void front_clear(struct front *front);

#endif
