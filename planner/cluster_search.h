/* The whole search on a described cluster: all uniform layouts, then from the best of them to
 * layouts whose blocks differ. */
#ifndef TEMPER_PLANNER_CLUSTER_SEARCH_H
#define TEMPER_PLANNER_CLUSTER_SEARCH_H

#include "planner/tailor.h"

struct cluster_search_request {
    const struct layouts_request *layouts;
    struct layout_weights weights;
    const struct priced_layout *units;  /* of the weights; NULL: those of this search */
    struct arithmetic_list arithmetics; /* see tailor.h */
    double gap_target; /* stop when the gap is at most this; 0: prove the optimum */
};

/* Release with cluster_answer_free; does not move in memory. */
struct cluster_answer {
    struct layout_list uniform; /* ranked; empty where blocks are pinned or devices differ */
    double *objectives;         /* of them, owned */
    struct tailored tailored;
    struct priced_layout units; /* of the weights */
    double objective;           /* of the best; INFINITY: nothing fits */
    double bound;               /* no layout of the space has one below */
    bool is_whole;              /* the limits did not end the search early */
};

/* Uniform layouts cannot say what is pinned for some blocks, nor where stages stand: there are none
 * where blocks are pinned or devices differ. */
bool cluster_search_has_uniform(const struct layouts_request *layouts);

enum status cluster_search(const struct cluster_search_request *request, struct cluster_answer *out,
                           struct error *err);
/* NULL: nothing fits. */
const struct priced_layout *cluster_answer_best(const struct cluster_answer *answer);
/* (objective - bound) / objective; 0: the best is the optimum of the space. */
double cluster_answer_gap(const struct cluster_answer *answer);
void cluster_answer_free(struct cluster_answer *answer);

#endif
