/* The search for layouts whose blocks differ: uneven stages, recompute (and arithmetic, offload)
 * block by block, stages on unlike devices. It goes on from the uniform layouts
 * (planner/layouts.h), of which the best is what it has to beat.
 *
 * A *shape* is all that the blocks share: degrees, ZeRO, schedule, micro-batch. For each that its
 * bound does not exclude, columns are made: a stage, its interval of blocks, and a mix of modes
 * (planner/stage_mixes.h) priced exactly by the cost model's own functions, so a column that does
 * not fit into its device is none. Choosing one column a stage is the master's set-partitioning
 * program (planner/master.h):
 *
 *     min  sum fill_q + max repeat_q + max once_q + transfers  (and the same of energy, memory)
 *
 * `once` (exposed reduction, renewal of parameters, optimizer) is added up stage by stage, of which
 * layout_step takes each largest: the sum may be below what is predicted, never above it. So the
 * bound is one, and what is offered is always what layout_predict says. */
#ifndef TEMPER_PLANNER_TAILOR_H
#define TEMPER_PLANNER_TAILOR_H

#include "planner/layouts.h"

/* The shapes of a space, found once for several searches. What a search proves of a shape (it does
 * not fit, or is no better than so much) bounds it in the searches after it. */
struct tailor_pool;

struct tailor_request {
    const struct layouts_request *layouts;
    const struct layout_weights *weights;
    struct priced_layout units; /* layouts_units of the uniform ones */
    double best_objective;      /* of the best uniform layout; INFINITY: none fits */
    /* That blocks may choose from, as far as their layout admits it (layout_admits_arithmetic); of
     * fp32 and tf32, where one has the lower peak on every device, only blocks that are pinned to
     * it take that. */
    struct arithmetic_list arithmetics;
    double gap_target;
    /* Of a stage, up to so many mixes are tried one by one; beyond,
     * planner/mix_chain.h stands for them. 0: the usual. */
    size_t mixes_most;
    /* No device holds more, without deviations; 0: no such cap. Beside that of `layouts`. */
    double mean_cap_bytes;
    /* NULL: the shapes are found anew. */
    struct tailor_pool *pool;
    /* Blocks of a shape with offload choose each for itself. That is more modes than bounds stay
     * sharp for: a better layout may be found, and less is proven of it. */
    bool blocks_offload;
};

/* Zero-initialise; release with tailored_free. */
struct tailored {
    bool found;                  /* better than the best uniform layout */
    struct priced_layout priced; /* its layout.own points to `plan` below */
    double objective;
    struct block_plan plan; /* its arrays owned */
    /* No layout of the space, uniform ones included, has an objective below. */
    double bound;
    uint64_t shapes, bounded_away, solved, columns;
    bool is_whole; /* false: the limits ended it early (the bound holds all the same) */
};

enum status tailor_search(const struct tailor_request *request, struct tailored *out,
                          struct error *err);
void tailored_free(struct tailored *tailored);

/* Of the layouts of `request`, whose weights and caps are not read. In each search that is given
 * the pool they are the same but for these two, the caps no higher than in the search before;
 * weights of memory are 0, and that of energy is where energy is not wanted. `limits` that end it
 * leave a pool of which nothing but what it has is known. Release with tailor_pool_free. */
enum status tailor_pool_new(const struct tailor_request *request, bool energy_is_wanted,
                            struct tailor_pool **out, struct error *err);
void tailor_pool_free(struct tailor_pool *pool); /* NULL: nothing */

#endif
