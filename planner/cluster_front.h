/* The Pareto front on a described cluster: of all uniform layouts, and of layouts whose blocks
 * differ.
 *
 * The uniform ones are all priced, so theirs is the true front. The others are searched
 * (planner/tailor.h): memory is swept by epsilon constraints (Haimes, Lasdon, Wismer 1971). Find
 * the quickest of at most C bytes a device, set C a step below what it needs, and again until
 * nothing fits. What a search at C proves holds for every layout of up to C bytes. So for each
 * layout of the space, of m bytes, there is a row of at most m / (1 - step) bytes that is worse
 * than it by no more than the largest gap of the searches.
 *
 * The search knows no cap of energy. Time against energy is therefore the convex hull, at each C:
 * between two neighbours, minimise the weighted sum that is the same for both (Aneja, Nair 1979).
 * No layout is below the lines of the hull; between two of its corners one whose blocks differ may
 * be missing.
 *
 * All devices are used and the price of an hour is theirs, so that cost is proportional to time;
 * carbon is to energy. They stand for these in what is said above. */
#ifndef TEMPER_PLANNER_CLUSTER_FRONT_H
#define TEMPER_PLANNER_CLUSTER_FRONT_H

#include "planner/cluster_search.h"

struct cluster_front_request {
    /* Its weights and units are not read; its gap is that of each search. `saves_memory` of its
     * layouts is as the axes ask. */
    const struct cluster_search_request *search;
    unsigned axes; /* at least two of enum front_axis; memory: of a cluster of one group */
    /* About so many steps of memory from the most to the least, all of one ratio, and no hull finer
     * than as many; 0: every point. */
    int points_most;
};

struct cluster_front_row {
    struct priced_layout priced; /* its layout.own points to what is owned, NULL: uniform */
    /* No layout of at most this memory (where that is an axis, else none at all) is better in all
     * of the other axes by more than this share: proven. 1: nothing is. */
    double gap;
};

/* Zero-initialise; release with cluster_front_free. */
struct cluster_front {
    struct cluster_front_row *rows; /* [count], none dominated, by rising time; owned */
    size_t count, capacity;
    struct layout_list uniform; /* all that fit */
    double step;                /* share by which memory falls from search to search, at least */
    double gap;                 /* the largest that a search left */
    double empty_below_bytes;   /* no layout needs less; 0: not known, or memory is no axis */
    bool is_hull;               /* time (or cost) and energy (or carbon) are both axes */
    bool is_whole;              /* the limits did not end it early */
    size_t searches;            /* made */
    double seconds;
};

/* What the limits leave undone is missing, and what was proven holds. No row: nothing fits. */
enum status cluster_front_find(const struct cluster_front_request *request,
                               struct cluster_front *out, struct error *err);
void cluster_front_free(struct cluster_front *front);

#endif
