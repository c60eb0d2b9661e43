/* The Pareto front: plans that no other plan is better than in one of time, memory and energy
 * without being worse in another of them.
 *
 * A weighted sum finds only the front's convex hull. So memory, which is the constraint that the
 * search holds exactly, is swept: minimise the other quantity among plans of at most C bytes, set C
 * below what the plan found needs, and again until none fits (epsilon constraints: Haimes, Lasdon,
 * Wismer 1971). That finds every point of a front of memory and one other quantity.
 *
 * Time against energy has no such constraint. At each C the hull of the two is found by bisection:
 * between two neighbours, minimise the weighted sum that is the same for both (Aneja, Nair 1979). A
 * plan between two neighbours of a hull, above the line between them, may be missing. (The hulls of
 * smaller families of plans would show more points, but some of them dominated by a missing plan.)
 *
 * Memory is that of the fullest rank at the 95th percentile, as the cap is held. */
#ifndef TEMPER_PLANNER_FRONT_H
#define TEMPER_PLANNER_FRONT_H

#include "planner/planner.h"

enum front_axis { FRONT_TIME = 1, FRONT_MEMORY = 2, FRONT_ENERGY = 4 };

struct front_request {
    /* Its weights are not read; its cap is where the sweep begins, gap target and time limit are
     * those of each search. */
    struct planner_request search;
    unsigned axes; /* two or three of enum front_axis */
    /* About so many steps of memory from the most to the least that plans need, and no hull finer
     * than as many; 0: every point. */
    int points_most;
};

struct front_point {
    /* Owned. Its objective is that of its own search, in raw weights, and its bound that of all
     * plans of at most plan.memory_cap_bytes. */
    struct plan plan;
    double time_s;
    double memory_bytes; /* at the 95th percentile */
    double energy_j;     /* NAN: absent, which it is not where energy is an axis */
};

/* Zero-initialise; release with front_clear. */
struct front {
    struct front_point *points; /* [count], none dominated, by rising time; owned */
    size_t count, capacity;
    bool is_hull;      /* time and energy both: see above */
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
