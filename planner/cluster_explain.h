/* Why a layout on a described cluster is what it is: what each of its choices gains over the best
 * layout that chooses otherwise, and what memory is worth. Each figure is a whole search of its own
 * (planner/cluster_search.h), with that one value left out or with another memory. */
#ifndef TEMPER_PLANNER_CLUSTER_EXPLAIN_H
#define TEMPER_PLANNER_CLUSTER_EXPLAIN_H

#include "planner/cluster_search.h"

/* The best layout that chooses otherwise. */
struct cluster_choice {
    enum layout_choice choice;
    int64_t value;       /* of the layout that is explained */
    bool is_compared;    /* false: there is none that fits and chooses otherwise */
    struct layout other; /* without its block plan */
    double gain;         /* (its objective - that of the explained) / that of the explained */
    double least_gain;   /* no layout that chooses otherwise is closer than this */
    double time_s, memory_bytes;
};

/* The best layout with so much more memory a device. */
struct cluster_memory {
    double more_bytes; /* negative: less */
    bool fits;
    double saving; /* share of the explained layout's objective; negative: a loss */
    double time_s;
};

enum { CLUSTER_MEMORY_COUNT = 4 };

struct cluster_explanation {
    struct cluster_choice choices[LAYOUT_CHOICE_COUNT];
    size_t count;
    struct cluster_memory memory[CLUSTER_MEMORY_COUNT];
    size_t memory_count;
    bool is_stopped; /* by the limits: the rest was not searched */
    size_t searches;
    double seconds;
};

/* `answer` is that of `request`, and has a best layout. */
enum status cluster_explain(const struct cluster_search_request *request,
                            const struct cluster_answer *answer, struct cluster_explanation *out,
                            struct error *err);

#endif
