/* Which rank writes which tensor of a checkpoint into which file. Private to checkpoint*.c. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_SPLIT_H
#define TEMPER_EXECUTOR_CHECKPOINT_SPLIT_H

#include "executor/shard_copy.h"
#include "executor/tensor_place.h"
#include "ir/plan.h"
#include <stdbool.h>

struct split_tensor {
    struct tensor_place place;
    int stage; /* whose ranks hold it */
    int rank;  /* that writes it, one of the stage's */
};

/* The same at every rank: every tensor goes to the rank of its stage that has least so far, the
 * largest first. */
struct checkpoint_split {
    struct split_tensor *tensors; /* [count], in the order of tensor_places; owned */
    size_t count;
    int *files; /* [ranks]: the number of the rank's file, from 1; 0: it writes none; owned */
    int ranks, file_count;
};

enum status checkpoint_split_make(struct checkpoint_split *out, const struct plan *plan,
                                  struct error *err);
void checkpoint_split_clear(struct checkpoint_split *split);

enum { CHECKPOINT_FILE_BYTES = 64 };

/* Before the HF names in the files, by enum tensor_array: "", "first_moment.", "second_moment.". */
extern const char *const checkpoint_prefixes[ARRAY_COUNT];

/* "model.safetensors" of one file, else "model-00001-of-00004.safetensors" as Hugging Face's
 * libraries name them. */
void checkpoint_shard_name(char name[CHECKPOINT_FILE_BYTES], const char *stem, int file,
                           int file_count);

#endif
