/* Sums gradients over the ranks that replicate a layer, while the backward pass goes on.
 *
 * ZeRO 0 all-reduces a layer's whole gradient as soon as its last micro-batch is over, ZeRO 1
 * scatters its sum; ZeRO 2 and 3 scatter every micro-batch's and add it to the shard. What was
 * started progresses between kernels and ends before the update. Gradients travel as they stand:
 * vectors in fp32, matrices in the layer's state.gradient_precision. */
#ifndef TEMPER_EXECUTOR_REDUCTION_H
#define TEMPER_EXECUTOR_REDUCTION_H

#include "executor/groups.h"
#include "executor/layout.h"

/* What is under way for one local layer. */
struct layer_reduction {
    struct comm_request *matrices, *vectors; /* NULL: nothing */
    int64_t matrices_start_ns, vectors_start_ns;
    void *transient; /* ZeRO 2, 3: the whole gradient being scattered */
    bool adds;       /* to what the shard holds */
};

struct reduction {
    struct memory_layout *layout;
    const struct groups *groups;
    struct journal *journal;
    struct layer_reduction *layers; /* [layout->layer_count], owned */
    /* The local layer whose gradient was last in each ring buffer; SIZE_MAX: none since the step
     * began. */
    size_t ring_user[2];
    int next_buffer;
};

/* Where a layer's backward writes its gradients, for layer_call. */
struct gradient_view {
    void *matrices; /* in the layer's state.gradient_precision */
    float *vectors;
    void *table; /* as matrices, of a tied head that owns none */
    bool accumulate_matrices, accumulate_vectors;
    bool table_is_written;
};

enum status reduction_open(struct reduction *out, struct memory_layout *layout,
                           const struct groups *groups, struct journal *journal, struct error *err);
void reduction_close(struct reduction *reduction);

/* Before the layer's backward of this micro-batch of the step; makes room in the ring. */
enum status reduction_prepare(struct reduction *reduction, size_t local, int64_t micro_batch,
                              struct gradient_view *out, struct error *err);
/* After it: starts what can be started. `is_last`: of the step's micro-batches. */
enum status reduction_start(struct reduction *reduction, size_t local, int64_t micro_batch,
                            bool is_last, struct error *err);
/* Wait for all, and add up the two copies of a tied table. */
enum status reduction_finish(struct reduction *reduction, struct error *err);

/* Where the sum of the block that this rank owns of piece `piece` stands after that. */
void *reduction_block(const struct local_layer *layer, size_t piece);

#endif
