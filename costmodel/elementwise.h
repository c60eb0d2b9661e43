/* What lies between a layer's products: norms, bias, dropout, residuals, activation, softmax, loss.
 * All of it is bound by memory, so it counts by how often the software reads and writes it. */
#ifndef TEMPER_COSTMODEL_ELEMENTWISE_H
#define TEMPER_COSTMODEL_ELEMENTWISE_H

#include "costmodel/layer_pass.h"

/* Elements read or written in one pass of a block, for each element of */
struct elementwise_passes {
    double stream; /* a token's hidden row: norms, residuals, bias and dropout, merging of heads */
    double ffn;    /* the MLP's inner row: bias, activation */
    double heads;  /* q, k and v: bias, rotation, reordering */
    double scores; /* the s x s matrix of unfused attention: scaling, mask, softmax, dropout */
};
struct elementwise_passes elementwise_passes(const struct layout_share *share, int pass);
/* Bytes that move of one logit beyond its products. */
double loss_bytes(const struct layout_share *share, int pass);

#endif
