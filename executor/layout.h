/* Where every tensor of a rank lives: all memory is laid out from the plan before the first step,
 * in the very sizes that ir/footprint.h predicts. */
#ifndef TEMPER_EXECUTOR_LAYOUT_H
#define TEMPER_EXECUTOR_LAYOUT_H

#include "base/error.h"
#include "executor/ops/device.h"
#include "ir/plan.h"
#include "ir/state.h"
#include <stdbool.h>

/* One contiguous allocation. */
struct region {
    char *base;
    uint64_t bytes;
};

/* What one micro-batch in flight leaves at a layer between its forward and its backward. */
struct flight {
    float *input; /* [S, hidden] residual stream before the layer; NULL for the embedding */
    void *slots[SLOT_COUNT];
    int32_t *tokens;  /* [T] of the group; embedding, else NULL */
    int32_t *targets; /* [T] of the group; head, else NULL */
};

/* A layer of this rank. Arrays have the counts of `state`; what a count of 0 says is not there is
 * NULL. */
struct local_layer {
    size_t index; /* in the chain */
    struct layer_part part;
    struct layer_strategy strategy;
    struct layer_state state;
    struct micro_batch_shape shape; /* of its tensor-parallel group */
    int chunk;
    int data_index; /* of this rank in the layer's data-parallel group */
    int block;  /* which of each piece's blocks this rank owns: data_index, or 0 when unsharded */
    int spread; /* ranks that hold the same tokens before and after it: 1 when sequence parallel,
                   else its tensor-parallel degree */

    /* Matrices. The master copy is shard_fp32, or this rank's blocks of whole_fp32: layer_master.
     */
    float *whole_fp32, *shard_fp32;
    uint16_t *whole_16, *shard_16, *table_16;
    void *gradients; /* in state.gradient_precision; whole under ZeRO 0 and 1, else the shard */
    float *first_moment, *second_moment; /* the shard; whole under ZeRO 0 */
    /* Vectors, whole: [state.vectors] each. */
    float *vectors, *vector_gradients, *vector_first_moment, *vector_second_moment;

    /* Transient parameters and gradient of a layer that does not use the rings; NULL where it does
     * or needs none. */
    char *own_parameters, *own_gradient;

    struct flight *flights; /* [flight_count]; micro-batch i uses flights[i % flight_count] */
    int64_t flight_count;
    uint64_t flight_bytes;       /* of each: footprint_saved_bytes */
    int64_t flying, most_flying; /* flights in use: now, at most so far */
};

/* Two buffers for transient parameters or gradients of neighbouring layers. */
struct ring {
    char *buffers[2];
    uint64_t bytes; /* of each; 0: no ring */
};

enum { LAYOUT_STREAMS_MAX = 8 };

struct memory_layout {
    struct device *device;
    const struct plan *plan; /* borrowed */
    int rank, stage, place;
    struct region regions[MEMORY_TERM_COUNT]; /* MEMORY_PROCESS stays empty */
    struct local_layer *layers; /* [layer_count]: this stage's, in the order of the chain */
    size_t layer_count;
    float *streams[LAYOUT_STREAMS_MAX]; /* [stream_count], footprint_stream_bytes each */
    int stream_count;
    struct ring gradient_ring, parameter_ring;
    uint64_t bytes; /* of all regions */
};

/* `training` false leaves out gradients, moments and rings. The layout keeps `device` but does not
 * own it. */
enum status layout_open(struct memory_layout *out, struct device *device, const struct plan *plan,
                        int rank, bool training, struct error *err);
void layout_close(struct memory_layout *layout); /* a zeroed layout is allowed */

/* This rank's layer of that index in the chain; NULL: another stage's. */
struct local_layer *layout_layer(const struct memory_layout *layout, size_t index);

/* What a micro-batch leaves at the layer; its tokens or targets are written before its forward. */
struct flight *layer_flight(const struct local_layer *layer, int64_t micro_batch);
/* The master parameters of piece `piece` of the layer's partition that this rank owns: `block`
 * elements of it (base/partition.h). */
float *layer_master(const struct local_layer *layer, size_t piece);

#endif
