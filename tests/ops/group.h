/* Ranks of a layer group as threads of one process: the collectives of struct layer_group in shared
 * memory. One of them can be left out, to see whether a test notices. */
#ifndef TEMPER_TESTS_OPS_GROUP_H
#define TEMPER_TESTS_OPS_GROUP_H

#include "executor/ops/layer.h"
#include <pthread.h>

enum { GROUP_WAYS_MAX = 4 };

struct group;

struct group_seat {
    struct group *group;
    int index;
    int calls; /* collectives so far */
    struct layer_group functions;
};

struct group {
    int ways;
    int left_out; /* the collective with this number does not communicate; -1: none */
    pthread_barrier_t barrier;
    const void *published[GROUP_WAYS_MAX];
    struct group_seat seats[GROUP_WAYS_MAX];
};

void group_open(struct group *group, int ways, int left_out);
void group_close(struct group *group);

#endif
