/* Between whole tensors, as files have them, and the arrays of one rank. */
#ifndef TEMPER_EXECUTOR_SHARD_COPY_H
#define TEMPER_EXECUTOR_SHARD_COPY_H

#include "executor/layout.h"
#include "executor/shards.h"
#include "executor/tensor_place.h"
#include <stdbool.h>

/* What of a tensor a checkpoint keeps. */
enum tensor_array { ARRAY_PARAMETERS, ARRAY_FIRST_MOMENT, ARRAY_SECOND_MOMENT, ARRAY_COUNT };

/* Does the layout have moments, that is, was it opened for training? */
bool layout_has_moments(const struct memory_layout *layout);
/* Does this rank hold anything of the tensor (a tied head's copy of the table included)? */
bool shard_is_wanted(const struct memory_layout *layout, const struct tensor_place *place);
/* A whole tensor into all that the rank holds of it: of parameters the working copy in fp32 and the
 * master copy, of moments the shard. 16-bit copies are the caller's to make. */
void shard_scatter(const struct memory_layout *layout, const struct tensor_place *place,
                   enum tensor_array array, const float *whole);

/* Where a run that the rank owns (shard_runs with owned_only) stands in its arrays; parameters are
 * the master copy. */
float *shard_owned_place(const struct local_layer *layer, enum tensor_array array, bool is_vector,
                         const struct shard_run *run);

/* The master copy (or moments) of a run that the rank owns into host memory [run->count]. */
void shard_read(const struct memory_layout *layout, const struct local_layer *layer,
                enum tensor_array array, bool is_vector, const struct shard_run *run, float *out);

#endif
