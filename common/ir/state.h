/* What a rank keeps of one layer between steps: parameters, gradients, moments, and how ZeRO and
 * mixed precision split them (Rajbhandari et al. 2020). One table for the footprint, the executor's
 * layout and checkpoints.
 *
 * With M matrix and V vector elements of the rank's part, d ranks to shard over:
 *
 *   ZeRO   compute copy              master           gradients  moments     bytes a parameter
 *   0      fp32 M                    the same         M          2 M         16
 *   0      16 bit M                  fp32 M           M          2 M         18
 *   1      fp32 M                    its own blocks   M          2 M/d       8 + 8/d
 *   1      16 bit M                  fp32 M/d         M          2 M/d       6 + 12/d
 *   2      as 1                      as 1             M/d        2 M/d       4 + 12/d; 2 + 16/d
 *   3      gathered when used        fp32 M/d         M/d        2 M/d       16/d
 *   3      gathered when used        fp32 M/d and 16 bit M/d     2 M/d       18/d
 *
 * Vectors (norm weights and biases, and gpt2's position table with them) stay whole in fp32 at
 * every rank: they are less than a hundredth of a model. Gradients of matrices are fp32; those that
 * layer_gradient_precision keeps in bf16 take 2 bytes an element less: 2 of 18 bytes a parameter
 * under ZeRO 0 and 1, 2/d under ZeRO 2 and 3. With ZeRO 2 and 3 a layer's whole gradient stands in
 * a transient buffer until it is scattered, with ZeRO 3 its whole parameters do while it works. */
#ifndef TEMPER_IR_STATE_H
#define TEMPER_IR_STATE_H

#include "base/partition.h"
#include "ir/layer.h"
#include "ir/plan.h"

/* Elements of each array; 0: there is none. */
struct layer_state {
    struct partition partition; /* of the matrices over the data-parallel group; ways 1 under ZeRO
                                   0. Its count is M rounded up to what can be split */
    uint64_t vectors;           /* fp32: parameters, gradients and two moments each */
    uint64_t whole_fp32;        /* parameters */
    uint64_t whole_16;
    uint64_t shard_fp32; /* the master copy, where it is no part of whole_fp32 */
    uint64_t shard_16;
    uint64_t table_16;  /* a 16-bit copy of the token table alone, for a tied head on the same
                           rank that computes in 16 bit; ZeRO 0 to 2 */
    uint64_t gradients; /* of matrices, in gradient_precision */
    uint64_t moments;   /* fp32, each of the two */
    enum precision gradient_precision; /* fp32 or bf16 */
    /* Transient, bytes */
    uint64_t gather_bytes;   /* ZeRO 3: the whole parameters. Of a tied head: the embedding's, and
                                the table in 16 bit where it computes in that */
    uint64_t gradient_bytes; /* ZeRO 2, 3: the whole gradient. Of a tied head: the embedding's */
};

/* As what the gradients of the layer's matrices are stored, added up over micro-batches and ranks,
 * and sent: fp32, or bf16 where the plan asks for it (gradient_reduction) and the layer computes in
 * bf16. Of the token table, which is looked up in fp32, a tied head decides, wherever it stands;
 * without one the plan alone. */
enum precision layer_gradient_precision(const struct plan *plan, size_t layer);

/* The same at every place of its stage. */
void layer_state_of(const struct plan *plan, size_t layer, struct layer_state *out);

/* Bytes by term, each array of them rounded up to FOOTPRINT_ALIGN_BYTES. */
uint64_t layer_state_parameter_bytes(const struct layer_state *state);
uint64_t layer_state_gradient_bytes(const struct layer_state *state);
uint64_t layer_state_optimizer_bytes(const struct layer_state *state);

#endif
