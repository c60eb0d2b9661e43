/* Small random problems of the search, with everything that a problem can have: unlike places,
 * stages cut in advance or not, resharding, traits, scratch, a budget. */
#ifndef TEMPER_TESTS_PLANNER_RANDOM_PROBLEM_H
#define TEMPER_TESTS_PLANNER_RANDOM_PROBLEM_H

#include "fixture.h"
#include "planner/problem.h"

enum {
    LAYERS_MAX = 20,
    CLASSES_MAX = 4,
    STRATEGIES_MAX = 6,
    STAGES_MAX = 4,
    GROUPS_MAX = 3,
    PLACES_MAX = 2,
};

struct instance {
    struct problem problem;
    size_t layer_class[LAYERS_MAX];
    struct layer_class classes[PLACES_MAX * CLASSES_MAX];
    struct strategy strategies[PLACES_MAX][CLASSES_MAX][STRATEGIES_MAX];
    struct transition transitions[PLACES_MAX * GROUPS_MAX * GROUPS_MAX];
    struct stage_rule rules[STAGES_MAX];
};

/* The largest of each; the coarse draw whole numbers, which make ties and caps that fit to the
 * byte, and whose sums are exact in any order. */
struct instance_shape {
    size_t layers_least, layers_most, strategies_most, stages_most;
    bool is_coarse;
};

void random_instance(struct dice *dice, const struct instance_shape *shape, struct instance *out);
/* The cap of place 0; the other's is `less_share` of it smaller. */
void instance_set_cap(struct instance *instance, uint64_t cap_bytes, double less_share);

#endif
