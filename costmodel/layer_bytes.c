#include "costmodel/layer_bytes.h"

#include <math.h>
#include <stdbool.h>

/* Of one element: fp32 statistics and sums, the mask that dropout keeps, indices. */
static const double fp32_bytes = 4, mask_bytes = 1, index_bytes = 8;

/* ---- shapes: elements, not bytes ---- */

static double stream_elements(const struct layout_share *share)
{
    return share->stream_tokens * (double)share->model->hidden;
}

/* The residual stream of all of a tensor-parallel group's tokens. */
static double gathered_elements(const struct layout_share *share)
{
    return share->tokens * (double)share->model->hidden;
}

static double qkv_elements(const struct layout_share *share)
{
    return share->tokens * (share->context + 2 * share->kv);
}

static double score_elements(const struct layout_share *share)
{
    return share->tokens * share->heads * (double)share->model->seq_length;
}

static double logit_elements(const struct layout_share *share)
{
    return share->tokens * share->vocab;
}

/* Inner rows that an MLP keeps before its activation: one, or gate and up. */
static double inner_rows(const struct layout_share *share)
{
    return share->model->family == MODEL_LLAMA ? 2 : 1;
}

/* GPT-2's models have dropout; those that are trained under FSDP (torchtitan's, MPT) have none. */
static bool has_dropout(const struct layout_share *share)
{
    return share->model->family == MODEL_GPT2 && share->layout->framework != FRAMEWORK_FSDP;
}

double stream_bytes(const struct layout_share *share)
{
    return share->element_bytes * stream_elements(share);
}

/* ---- what a block keeps without recomputation ---- */

/* Between the query-key-value and the output projection, but for what both ends keep themselves:
 * the logarithms of the sums, or the s x s matrix: softmax's output, the mask of its dropout and
 * what that leaves (Korthikanti et al. 2022: 5 a s^2 b). */
static double core_bytes(const struct layout_share *share)
{
    double e = share->element_bytes;
    if (share->layout->fused_attention)
        return fp32_bytes * share->tokens * share->heads;
    double each = has_dropout(share) ? 2 * e + mask_bytes : e;
    return each * score_elements(share);
}

/* Input and output of both norms. Under FSDP the products read, and so keep, what DTensor gathered
 * of the output. */
static double norm_bytes(const struct layout_share *share)
{
    double e = share->element_bytes;
    bool keeps_gathered = share->layout->framework == FRAMEWORK_FSDP;
    double output = keeps_gathered ? gathered_elements(share) : stream_elements(share);
    double statistics = share->model->family == MODEL_GPT2 ? 2 : 1;
    return 2 * e * (stream_elements(share) + output) +
           2 * fp32_bytes * statistics * share->stream_tokens;
}

static double attention_bytes(const struct layout_share *share)
{
    double e = share->element_bytes;
    double qkv = qkv_elements(share);
    /* torchtitan repeats keys and values for all query heads before the call. */
    if (share->layout->framework == FRAMEWORK_FSDP)
        qkv = 3 * share->tokens * share->context;
    return e * (qkv + share->tokens * share->context) + core_bytes(share);
}

/* Rows of an MLP's inner width that are kept: before and after the activation. */
static double kept_rows(const struct layout_share *share)
{
    double rows = inner_rows(share) + 1;
    /* Eager SwiGLU is two kernels: SiLU's output is kept as well. */
    if (share->layout->framework == FRAMEWORK_FSDP && share->model->family == MODEL_LLAMA)
        rows += 1;
    return rows;
}

/* The softmax of the router in fp32 and the map of tokens to experts; the copies that reached the
 * experts, which their products read; what came back, for the gradient of the router's weights; and
 * where each copy belongs. */
static double experts_bytes(const struct layout_share *share)
{
    const struct expert_share *experts = &share->experts;
    double e = share->element_bytes, hidden = (double)share->model->hidden;
    double inner = experts->copies * experts->ffn + share->tokens * experts->shared;
    return (fp32_bytes + mask_bytes) * share->stream_tokens * experts->router +
           e * hidden * (experts->copies + experts->sent) + index_bytes * experts->sent +
           e * kept_rows(share) * inner;
}

static double mlp_bytes(const struct layout_share *share, bool has_experts)
{
    if (has_experts)
        return experts_bytes(share);
    return share->element_bytes * kept_rows(share) * share->tokens * share->ffn;
}

/* Of the two dropouts before the residual additions. */
static double masks_bytes(const struct layout_share *share)
{
    return has_dropout(share) ? 2 * mask_bytes * stream_elements(share) : 0;
}

static double everything_bytes(const struct layout_share *share, bool has_experts)
{
    return norm_bytes(share) + attention_bytes(share) + mlp_bytes(share, has_experts) +
           masks_bytes(share);
}

/* ---- what recomputation leaves of it ---- */

/* torchtitan keeps the outputs of attention and of every second product: of q, k, v, output, gate,
 * up, down these are q, v, gate and down; of gpt2's four the first and the third. */
static double every_second_bytes(const struct layout_share *share, bool has_experts)
{
    double e = share->element_bytes;
    double attention = e * share->tokens * share->context + core_bytes(share);
    double products = qkv_elements(share) + share->tokens * share->ffn;
    if (share->model->family == MODEL_LLAMA)
        products =
            share->tokens * (share->context + share->kv + share->ffn) + gathered_elements(share);
    if (has_experts) /* of gate and up that is gate, of down all */
        products += share->experts.copies * (share->experts.ffn + (double)share->model->hidden) -
                    share->tokens * share->ffn;
    /* after down, sums over the group are kept as each rank's share of them, too */
    double scattered = share->layout->tensor > 1 ? 2 * stream_bytes(share) : 0;
    return stream_bytes(share) + attention + e * products + scattered;
}

static double kept_bytes(const struct layout_share *share, const struct block_kind *kind)
{
    switch (kind->mode.recompute) {
    case RECOMPUTE_FULL:
        return stream_bytes(share);
    case RECOMPUTE_SELECTIVE:
        if (share->layout->framework == FRAMEWORK_FSDP)
            return every_second_bytes(share, kind->has_experts);
        return everything_bytes(share, kind->has_experts) - core_bytes(share);
    default:
        return everything_bytes(share, kind->has_experts);
    }
}

/* ---- what it needs while it works ---- */

/* At most, of gradients in the block: that of its output stays for the residual addition; in the
 * MLP those of the inner rows, and what sequence parallelism gathers, of experts those of the
 * copies as they come and go; in attention those of q, k, v and of the s x s matrix before and
 * after softmax. */
static double gradient_bytes(const struct layout_share *share, bool has_experts)
{
    double e = share->element_bytes, rows = inner_rows(share), gathered = 0;
    if (share->layout->framework == FRAMEWORK_FSDP)
        rows += 1;
    if (share->layout->sequence_parallel)
        gathered = 2 * gathered_elements(share);
    double mlp = rows * share->tokens * share->ffn + gathered;
    if (has_experts)
        mlp =
            share->experts.copies * (rows * share->experts.ffn + 2 * (double)share->model->hidden);
    double attention = qkv_elements(share) + gathered;
    if (!share->layout->fused_attention)
        attention += 2 * score_elements(share);
    return stream_bytes(share) + e * fmax(mlp, attention);
}

struct layer_bytes block_bytes(const struct layout_share *share, const struct block_kind *kind)
{
    double kept = kept_bytes(share, kind);
    double again = fmax(everything_bytes(share, kind->has_experts) - kept, 0);
    return (struct layer_bytes){.kept = kept,
                                .working = again + gradient_bytes(share, kind->has_experts)};
}

double late_weight_bytes(const struct layout_share *share, bool has_experts)
{
    const struct expert_share *experts = &share->experts;
    double rows = inner_rows(share) + 1, hidden = (double)share->model->hidden;
    double attention =
        2 * stream_elements(share) + qkv_elements(share) + share->tokens * share->context;
    double mlp = 2 * stream_elements(share) + rows * share->tokens * share->ffn;
    if (has_experts) {
        double inner = experts->copies * experts->ffn + share->tokens * experts->shared;
        mlp = 2 * hidden * experts->copies + rows * inner;
        if (experts->shared > 0)
            mlp += 2 * stream_elements(share);
    }
    return share->element_bytes * (attention + mlp);
}

/* ---- head ---- */

/* Bytes of a logit at the loss. Fused, Megatron has the 16-bit logit and its fp32 exponential, and
 * compiled PyTorch the logit and its gradient. Unfused, Megatron has the logit, its fp32 copy, that
 * less the maximum, and the exponential; PyTorch the logit, its fp32 copy, the log-softmax and the
 * gradient, and of a loss over a divided vocabulary one fp32 tensor more. */
static double logit_bytes(const struct layout_share *share)
{
    double e = share->element_bytes;
    bool is_fsdp = share->layout->framework == FRAMEWORK_FSDP;
    if (share->layout->fused_cross_entropy)
        return is_fsdp ? 2 * e : e + fp32_bytes;
    return e + fp32_bytes * (is_fsdp && share->layout->tensor > 1 ? 4 : 3);
}

/* While the head's product is differentiated: the logits' gradient, that of its weight, which
 * autograd is handed even where Megatron adds it to the fp32 sum itself, and that of its input. */
static double head_gradient_bytes(const struct layout_share *share)
{
    double e = share->element_bytes;
    double scattered = share->layout->sequence_parallel ? stream_bytes(share) : 0;
    return e * (logit_elements(share) + table_parameters(share) + gathered_elements(share)) +
           scattered;
}

struct layer_bytes head_bytes(const struct layout_share *share)
{
    double gathered = 0;
    if (share->layout->sequence_parallel)
        gathered = share->element_bytes * gathered_elements(share);
    double loss = logit_bytes(share) * logit_elements(share);
    return (struct layer_bytes){
        .kept = 2 * stream_bytes(share),
        .working = gathered + fmax(loss, head_gradient_bytes(share)),
    };
}
