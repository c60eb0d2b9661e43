/* A whole tensor at the rank that writes it, from the ranks that own its parts. Private to
 * checkpoint*.c. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_COLLECT_H
#define TEMPER_EXECUTOR_CHECKPOINT_COLLECT_H

#include "executor/checkpoint_split.h"
#include "executor/comm/comm.h"
#include "executor/shard_copy.h"

/* What a rank needs for it: one whole tensor if it writes any, and one message. */
struct collector {
    const struct memory_layout *layout;
    struct comm *comm;        /* of all ranks of the plan */
    struct holding *holdings; /* [ranks of the stage]: what they hold of `layer` */
    size_t layer;             /* SIZE_MAX: of none yet */
    float *whole;             /* the largest tensor that this rank writes; NULL: it writes none */
    float *message;
};

enum status collector_open(struct collector *out, const struct memory_layout *layout,
                           struct comm *comm, const struct checkpoint_split *split,
                           struct error *err);
void collector_close(struct collector *collector);

/* Every rank of the tensor's stage calls it for the same tensors in the same order. At the rank
 * that writes the tensor it stands in collector->whole afterwards. */
enum status collector_gather(struct collector *collector, const struct split_tensor *tensor,
                             enum tensor_array array, struct error *err);

#endif
