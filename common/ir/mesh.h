/* Which rank does what under a plan.
 *
 * A stage has D = data_parallel * tensor_parallel ranks; rank = stage * D + place. The tensor
 * parallel ranks of a replica are neighbours, so that a launcher that fills hosts in order keeps
 * them on one host. Within a stage, a layer of degree t (a divisor of the plan's tensor_parallel T)
 * is shared by the t ranks of places [place / t * t, ... + t) and replicated over the D / t ranks
 * whose places are equal modulo t: these are its data-parallel group, over which ZeRO shards it.
 *
 * A micro-batch of a replica has b = micro_batch sequences. A layer of degree t works on b * t / T
 * of them in each of its groups: the sequences [g b t / T, (g+1) b t / T) of the replica in its
 * group g = place % T / t. */
#ifndef TEMPER_IR_MESH_H
#define TEMPER_IR_MESH_H

#include "ir/layer.h"
#include "ir/plan.h"

/* Ranks of one stage: D. */
int mesh_stage_ranks(const struct plan *plan);
int mesh_stage_of(const struct plan *plan, int rank);   /* physical, 0 .. pipeline - 1 */
int mesh_place_of(const struct plan *plan, int rank);   /* 0 .. D - 1 */
int mesh_replica_of(const struct plan *plan, int rank); /* 0 .. data_parallel - 1 */
int mesh_rank_at(const struct plan *plan, int stage, int place);

/* Physical stage and chunk of a layer: its virtual stage modulo and divided by the stages. */
int mesh_layer_stage(const struct plan *plan, size_t layer);
int mesh_layer_chunk(const struct plan *plan, size_t layer);
/* The layers [*first, *end) of one chunk of one stage. */
void mesh_chunk_layers(const struct plan *plan, int stage, int chunk, size_t *first, size_t *end);

/* The part of the layer that a rank at this place of its stage holds. */
struct layer_part mesh_part(const struct plan *plan, size_t layer, int place);
/* Size of the layer's data-parallel group, D / t, and this place's index in it. */
int mesh_data_ways(const struct plan *plan, size_t layer);
int mesh_data_index(const struct plan *plan, size_t layer, int place);
/* A micro-batch as the layer's groups see it: b * t / T sequences. */
struct micro_batch_shape mesh_shape(const struct plan *plan, size_t layer);

#endif
