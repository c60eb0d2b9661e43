/* What of a model's tensors one rank holds, owns and speaks for: the pure mapping between a whole
 * tensor, as it stands in files, and the arrays of a rank under a plan.
 *
 * A rank holds its part of every layer of its stage (ir/layer.h) in two arrays, matrices and
 * vectors. It owns what it keeps moments of and updates: its blocks of the matrices
 * (base/partition.h) and all vectors. Several ranks can own the same elements: replicas under ZeRO
 * 0, all of them the vectors, the ranks of a tensor-parallel group what is not split, and the tied
 * head's own table is the embedding's once more. The first of them speaks: over all ranks, what
 * they own and speak for is every element of every tensor exactly once. */
#ifndef TEMPER_EXECUTOR_SHARDS_H
#define TEMPER_EXECUTOR_SHARDS_H

#include "executor/layout.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct held_tensor {
    struct tensor_part tensor;
    uint64_t first; /* its first element in the part's matrices, or vectors */
    /* Ranks of the stage that own the same of its elements have the same number. */
    int share;
    bool speaks; /* for what the rank owns of it */
    /* A tied head's own table: in files it is the embedding's, which speaks for it. */
    bool is_copy;
};

/* What one rank holds of one layer. */
struct holding {
    struct held_tensor tensors[LAYER_TENSORS_MAX];
    size_t tensor_count;
    struct partition partition; /* of the matrices */
    int block; /* which of each piece's blocks is the rank's; 0 when there is one */
};

/* Of a layer of this rank. */
void holding_of(const struct model *model, const struct local_layer *layer, struct holding *out);
/* Of the rank at any place of the layer's stage. */
void holding_at(const struct plan *plan, size_t layer, int place, struct holding *out);
/* Which of them has this role; false: none. */
bool holding_find(const struct holding *holding, enum tensor_role role, size_t *tensor);

/* ---- runs: neighbours in the whole tensor and in the rank's arrays ---- */

struct shard_run {
    uint64_t whole; /* first element in the whole tensor, row-major */
    uint64_t part;  /* in the part's matrices (whole_fp32, ...), or vectors */
    uint64_t shard; /* in the rank's shard (shard_fp32, first_moment, ...); of vectors as `part` */
    uint64_t count;
};

/* Where a walk stands; made by shard_runs. */
struct shard_walk {
    const struct holding *holding; /* borrowed */
    const struct held_tensor *held;
    bool owned_only;
    size_t slice;
    int64_t row;     /* of the slice */
    uint64_t column; /* elements of the row that are behind it */
};

/* Walk over what a rank holds of a tensor, or only over what it owns (only then `shard` is set).
 * Padding is left out. */
struct shard_walk shard_runs(const struct holding *holding, size_t tensor, bool owned_only);
/* The next run; false at the end. */
bool shard_run_next(struct shard_walk *walk, struct shard_run *out);

/* ---- segments: what the optimizer works on ---- */

/* Neighbours in the rank's arrays that are treated alike. */
struct shard_segment {
    bool is_vector; /* of the vector arrays; else of the matrices */
    uint64_t part;  /* first element in the part's array: whole_fp32, whole_16, ZeRO 0 and 1's
                       gradients; vectors */
    uint64_t shard; /* in the rank's shard: shard_fp32, shard_16, the moments, ZeRO 2 and 3's
                       gradients; of vectors as `part` */
    uint64_t count;
    size_t piece; /* of the partition, where it has more than one block a piece; else 0 */
    bool decays;  /* weight decay applies */
    bool speaks;  /* counts in the gradient norm */
};

struct segment_walk {
    const struct holding *holding; /* borrowed */
    size_t tensor;
    uint64_t done; /* elements of the tensor, as held, that are behind it */
};

/* All that the rank owns of a layer, in the order of its arrays: matrices, then vectors. A padded
 * vocabulary's rows are in it (they are 0 and stay so), what only aligns the arrays is not. No
 * segment of a partition of more than one rank goes over a piece's end. */
struct segment_walk shard_segments(const struct holding *holding);
bool shard_segment_next(struct segment_walk *walk, struct shard_segment *out);

#endif
