#include "costmodel/elementwise.h"

/* clang-format off */

/* Kernels that each do several operations, as Megatron-LM and compiled PyTorch have them. */
static const struct elementwise_passes fused[MODEL_FAMILY_COUNT][PASS_COUNT] = {
    /* two norms (2 each), two times bias, dropout, residual (3.5 with a mask of one byte); GELU;
     * scaled masked softmax, dropout with its mask */
    [MODEL_GPT2] =  {{.stream = 11, .ffn = 2, .heads = 2, .scores = 2 + 2.5},
                     {.stream = 15, .ffn = 4, .heads = 2, .scores = 3 + 2.5}},
    /* two norms, two residuals (3 each); SwiGLU reads gate and up; rotation of q and k; softmax */
    [MODEL_LLAMA] = {{.stream = 10, .ffn = 3, .heads = 2, .scores = 2},
                     {.stream = 14, .ffn = 5, .heads = 2, .scores = 3}},
};

/* A kernel for each operation that transformers 4.15 and merak/examples/language-modeling/bloom
 * spell out, in fp32: an operation with a scalar is 2, with another tensor 3, dropout 2.25 (its mask
 * has one byte), a bias 2 and its gradient's sum 1, a norm 2 and backward 5 (its input's gradient,
 * then its weights'), a copy that reorders 2, what adds up the gradients of two uses 3. */
static const struct elementwise_passes eager[][PASS_COUNT] = {
    [ELEMENTWISE_HF_GPT2] =
        /* 2 x (norm, bias, dropout, residual), merging; bias, 0.5 x (1 + tanh(c (x + d x^3))) in 8
         * kernels; copies, bias; quotient, where, softmax, dropout */
        {{.stream = 20.5, .ffn = 2 + 18, .heads = 4, .scores = 2 + 2 + 2 + 2.25},
         {.stream = 24.5, .ffn = 1 + 28, .heads = 3, .scores = 2 + 4 + 3 + 2.25}},
    [ELEMENTWISE_HF_BERT] =
        /* the same; GELU is one kernel; q, k and v have products of their own, whose inputs'
         * gradients add up; a sum in place of where */
        {{.stream = 20.5, .ffn = 2 + 2, .heads = 4, .scores = 2 + 2 + 2 + 2.25},
         {.stream = 30.5, .ffn = 1 + 3, .heads = 3, .scores = 2 + 0 + 3 + 2.25}},
    [ELEMENTWISE_HF_BLOOM] =
        /* dropout of 0 is none; GELU and its gradient written out, 9 and 18 kernels; biases of
         * position are written before the product adds to them; masked_fill copies first */
        {{.stream = 16, .ffn = 2 + 21, .heads = 4, .scores = 2 + 4.25 + 2},
         {.stream = 20, .ffn = 1 + 44, .heads = 3, .scores = 0 + 4.25 + 3}},
};

/* clang-format on */

struct elementwise_passes elementwise_passes(const struct layout_share *share, int pass)
{
    enum elementwise kernels = share->layout->elementwise;
    return kernels == ELEMENTWISE_FUSED ? fused[share->model->family][pass] : eager[kernels][pass];
}

/* Logarithm of the softmax: read for its maximum, its sum and the result, and written; backward the
 * gradient is cleared, read for its sum and again with the result, and written. Models that predict
 * the next token copy all logits but the last token's first (2), and back (3). */
static double eager_loss_bytes(const struct layout_share *share, int pass)
{
    bool shifts = share->layout->elementwise != ELEMENTWISE_HF_BERT;
    double passes = pass == PASS_FORWARD ? 4 + (shifts ? 2 : 0) : 1 + 4 + (shifts ? 3 : 0);
    return passes * share->element_bytes;
}

/* Unfused: copied to fp32, maximum, difference, exponential, sum, quotient; fused: read once, and
 * written once as its gradient. */
double loss_bytes(const struct layout_share *share, int pass)
{
    if (share->layout->fused_cross_entropy)
        return pass == PASS_FORWARD ? share->element_bytes : 2 * share->element_bytes;
    if (share->layout->elementwise != ELEMENTWISE_FUSED)
        return eager_loss_bytes(share, pass);
    return pass == PASS_FORWARD ? share->element_bytes + 4 + 4 + 8 + 8
                                : 8 + 4 + share->element_bytes;
}
