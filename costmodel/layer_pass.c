#include "costmodel/layer_pass.h"

#include "costmodel/device_ops.h"
#include <math.h>
#include <stdbool.h>

/* Kernels that a block launches, counted in the software named: attention of separate kernels
 * (Megatron-LM's baddbmm, softmax, dropout, bmm, their copies) against one call of it. Backward
 * launches two products for each and a kernel for each elementwise one; a recomputed block also
 * saves and restores the random numbers' state. */
static const double forward_launches = 24, fused_forward_launches = 18;
static const double backward_launches = 48, fused_backward_launches = 36;
static const double recompute_launches = 16;
/* A framework that runs layer by layer from Python issues a kernel every so many launch intervals
 * of the device (fitted: small models on A100s, docs/layout-model.md). */
static const double dispatch_intervals = 7.7;

/* Multi-pass elementwise work, in elements of a token's row that are read or written. */
struct passes_of {
    double stream; /* of the hidden row: norms, residual, bias and dropout */
    double ffn;    /* of the MLP's inner row: activation */
    double heads;  /* of q, k and v: bias, rotation, reordering */
};
static const struct passes_of traffic_of[MODEL_FAMILY_COUNT][PASS_COUNT] = {
    /* two norms (2 each), two times bias, dropout, residual (3.5 with a mask of one byte); GELU */
    [MODEL_GPT2] = {{11, 2, 2}, {15, 4, 2}},
    /* two norms, two residuals (3 each); SwiGLU reads gate and up; rotation of q and k */
    [MODEL_LLAMA] = {{10, 3, 2}, {14, 5, 2}},
};

/* Of the s x s matrix of unfused attention: scaled masked softmax, dropout with its mask. */
static const double softmax_passes[PASS_COUNT] = {2, 3}, dropout_passes[PASS_COUNT] = {2.5, 2.5};

/* Curves of fused attention are of cuDNN's kernels, which TransformerEngine calls; those that come
 * with PyTorch and Triton reach half of it (fitted, H100). */
static const double attention_rate[FRAMEWORK_COUNT] = {
    [FRAMEWORK_MEGATRON] = 1, [FRAMEWORK_DEEPSPEED] = 0.5, [FRAMEWORK_FSDP] = 0.5};

/* Fused attention's backward recomputes the scores: 5 products against 2 (Dao et al. 2022). */
static const double fused_backward_ratio = 2.5;

/* ---- shares ---- */

/* Megatron-LM pads the table to a multiple of 128 rows for each of the t devices. */
static double padded_vocab(const struct model *model, const struct layout *layout)
{
    double step = layout->framework == FRAMEWORK_FSDP ? (double)layout->tensor
                                                      : 128.0 * (double)layout->tensor;
    return ceil((double)model->vocab / step) * step;
}

struct layout_share layout_share(const struct cluster *cluster, const struct model *model,
                                 const struct layout *layout)
{
    const struct node_group *group = &cluster->groups[0];
    double t = (double)layout->tensor;
    double tokens =
        (double)layout->micro_batch * (double)model->seq_length / (double)layout->context;
    bool is_wide = layout->arithmetic == ARITHMETIC_FP32 || layout->arithmetic == ARITHMETIC_TF32;
    return (struct layout_share){
        .device = &group->device,
        .model = model,
        .layout = layout,
        .core_arithmetic =
            layout->arithmetic == ARITHMETIC_FP8 ? ARITHMETIC_BF16 : layout->arithmetic,
        .element_bytes = is_wide ? 4 : 2,
        .tokens = tokens,
        .stream_tokens = layout->sequence_parallel ? tokens / t : tokens,
        .heads = (double)model->heads / t,
        .context = (double)(model->heads * model->head_dim) / t,
        .kv = (double)(model->kv_heads * model->head_dim) / t,
        .ffn = (double)model->ffn / t,
        .vocab = padded_vocab(model, layout) / t,
        .tensor = tier_ring(group, (struct tier_group){layout->tensor, 1}),
        .ring = tier_ring(group, (struct tier_group){layout->context, layout->tensor}),
    };
}

static double mlp_matrices(const struct model *model)
{
    return model->family == MODEL_LLAMA ? 3 : 2;
}

double block_parameters(const struct layout_share *share)
{
    double hidden = (double)share->model->hidden;
    return hidden * (2 * share->context + 2 * share->kv + mlp_matrices(share->model) * share->ffn);
}

double table_parameters(const struct layout_share *share)
{
    return share->vocab * (double)share->model->hidden;
}

double pass_s(const struct pass_time *pass)
{
    return fmax(pass->product_s + pass->traffic_s + pass->exchange_s, pass->host_s);
}

void pass_add(struct pass_time *sum, const struct pass_time *pass, double count)
{
    sum->product_s += count * pass->product_s;
    sum->traffic_s += count * pass->traffic_s;
    sum->host_s += count * pass->host_s;
    sum->exchange_s += count * pass->exchange_s;
}

/* From one kernel to the next on the host. */
static double issue_s(const struct layout_share *share)
{
    return dispatch_intervals * share->device->launch_s;
}

/* ---- products ---- */

/* A weight's products: `inner` columns of the input become `columns` of the output. */
struct weight {
    double inner, columns;
};

static double forward_product_s(const struct layout_share *share, enum arithmetic arithmetic,
                                struct weight weight)
{
    const struct product product = {share->tokens, weight.inner, weight.columns, 1};
    return product_s(share->device, arithmetic, &product, share->element_bytes,
                     share->element_bytes);
}

/* Megatron's products add to an fp32 sum as they write: read and written. */
static double gradient_bytes(const struct layout_share *share)
{
    return share->layout->framework == FRAMEWORK_MEGATRON ? 8 : share->element_bytes;
}

/* DeepSpeed adds a micro-batch's gradients to the sum of those before: both read, one written. FSDP
 * adds them after scattering, when they are few. */
static double accumulate_s(const struct layout_share *share, struct weight weight)
{
    if (share->layout->framework != FRAMEWORK_DEEPSPEED)
        return 0;
    return traffic_s(share->device, 3 * share->element_bytes * weight.inner * weight.columns);
}

static double gradient_product_s(const struct layout_share *share, enum arithmetic arithmetic,
                                 struct weight weight)
{
    const struct product product = {weight.inner, share->tokens, weight.columns, 1};
    return product_s(share->device, arithmetic, &product, share->element_bytes,
                     gradient_bytes(share));
}

static double input_product_s(const struct layout_share *share, enum arithmetic arithmetic,
                              struct weight weight)
{
    return forward_product_s(share, arithmetic, (struct weight){weight.columns, weight.inner});
}

/* fp8 products read casts of both operands, and of their transposes for the backward pass: each is
 * read in 16 bit, written twice in 8. */
static double cast_s(const struct layout_share *share, struct weight weight)
{
    if (share->layout->arithmetic != ARITHMETIC_FP8)
        return 0;
    return traffic_s(share->device, 4 * weight.inner * (share->tokens + weight.columns));
}

enum { BLOCK_WEIGHTS = 4 };

static void block_weights(const struct layout_share *share, struct weight out[BLOCK_WEIGHTS])
{
    double hidden = (double)share->model->hidden;
    out[0] = (struct weight){hidden, share->context + 2 * share->kv};
    out[1] = (struct weight){share->context, hidden};
    out[2] = (struct weight){hidden, (mlp_matrices(share->model) - 1) * share->ffn};
    out[3] = (struct weight){share->ffn, hidden};
}

/* ---- attention's core ---- */

/* Pairs of a query and a key that a device computes, all heads and sequences. */
static double query_keys(const struct layout_share *share)
{
    double keys = (double)share->model->seq_length;
    if (share->model->sliding_window > 0)
        keys = fmin(keys, (double)share->model->sliding_window);
    return share->tokens * keys * share->heads;
}

static void fused_core(const struct layout_share *share, int pass, struct pass_time *out)
{
    /* causal: the upper half is skipped; a ring balances it over its devices */
    double flops = 4 * query_keys(share) * (double)share->model->head_dim / 2;
    double calls = (double)share->layout->context;
    double once_s = fused_attention_s(share->device, share->core_arithmetic, flops / calls) *
                    calls / attention_rate[share->layout->framework];
    out->product_s += pass == PASS_BACKWARD ? fused_backward_ratio * once_s : once_s;
}

static void unfused_core(const struct layout_share *share, int pass, struct pass_time *out)
{
    double dim = (double)share->model->head_dim, keys = (double)share->model->seq_length;
    double rows = keys / (double)share->layout->context, bytes = share->element_bytes;
    double batch = (double)share->layout->micro_batch * share->heads;
    const struct product scores = {rows, dim, keys, batch}, context = {rows, keys, dim, batch};
    double both_s = product_s(share->device, share->core_arithmetic, &scores, bytes, bytes) +
                    product_s(share->device, share->core_arithmetic, &context, bytes, bytes);
    double passes = softmax_passes[pass];
    if (share->model->family == MODEL_GPT2)
        passes += dropout_passes[pass];
    out->product_s += pass == PASS_BACKWARD ? 2 * both_s : both_s;
    out->traffic_s += traffic_s(share->device, passes * query_keys(share) * bytes);
}

static void add_core(const struct layout_share *share, int pass, struct pass_time *out)
{
    if (share->layout->fused_attention)
        fused_core(share, pass, out);
    else
        unfused_core(share, pass, out);
}

/* Keys and values go around the ring while the device works on those that it has; gradients come
 * back the same way. */
static double ring_exchange_s(const struct layout_share *share, int pass, double core_s)
{
    double steps = (double)share->layout->context - 1;
    double bytes = 2 * share->tokens * share->kv * share->element_bytes;
    if (steps < 1)
        return 0;
    double each_s = ring_message_s(&share->ring, pass == PASS_BACKWARD ? 2 * bytes : bytes);
    return steps * exposed_s(each_s, core_s / (steps + 1));
}

/* ---- tensor parallelism ---- */

/* Two all-reduces, or as many bytes in all-gathers and reduce-scatters (Korthikanti et al. 2022). A
 * product that is cut into t pieces sends one while it computes the next: the first is not hidden.
 */
static double forward_exchange_s(const struct layout_share *share, double products_s)
{
    double bytes = share->tokens * (double)share->model->hidden * share->element_bytes;
    double whole_s = 2 * ring_all_reduce_s(&share->tensor, bytes);
    if (!share->layout->overlap_tensor)
        return whole_s;
    double first_s = whole_s / (double)share->layout->tensor;
    return first_s + exposed_s(whole_s - first_s, products_s);
}

/* Megatron reduces the gradient of a layer's input while it multiplies that of its weight, and
 * under sequence parallelism gathers the input again for the latter: what is left in the open is
 * the gathering of the output's gradient. */
static double backward_exchange_s(const struct layout_share *share, double input_s,
                                  double gradient_s)
{
    double bytes = share->tokens * (double)share->model->hidden * share->element_bytes;
    double once_s = ring_all_gather_s(&share->tensor, bytes);
    bool is_split = share->layout->sequence_parallel;
    if (share->layout->tensor == 1)
        return 0;
    if (share->layout->overlap_tensor) {
        double whole_s = (is_split ? 6 : 4) * once_s;
        double first_s = 4 * once_s / (double)share->layout->tensor;
        return first_s + exposed_s(whole_s - first_s, input_s + gradient_s);
    }
    if (share->layout->framework != FRAMEWORK_MEGATRON)
        return (is_split ? 6 : 4) * once_s;
    if (!is_split)
        return exposed_s(4 * once_s, gradient_s / 2);
    return 2 * once_s + exposed_s(2 * once_s, input_s) + exposed_s(2 * once_s, gradient_s);
}

/* ---- layers ---- */

static void add_elementwise(const struct layout_share *share, int pass, struct pass_time *out)
{
    const struct passes_of *of = &traffic_of[share->model->family][pass];
    double bytes = share->element_bytes;
    double stream = of->stream * share->stream_tokens * (double)share->model->hidden;
    double inner =
        share->tokens * (of->ffn * share->ffn + of->heads * (share->context + 2 * share->kv));
    /* two norms, two residuals, and the activation are calls of their own */
    out->traffic_s +=
        4 * traffic_s(share->device, stream / 4 * bytes) + traffic_s(share->device, inner * bytes);
}

static void block_forward(const struct layout_share *share, struct pass_time *out)
{
    struct weight weights[BLOCK_WEIGHTS];
    bool is_fused = share->layout->fused_attention;
    struct pass_time core = {0};

    *out = (struct pass_time){0};
    block_weights(share, weights);
    for (int i = 0; i < BLOCK_WEIGHTS; i++) {
        out->product_s += forward_product_s(share, share->layout->arithmetic, weights[i]);
        out->traffic_s += cast_s(share, weights[i]);
    }
    double products_s = out->product_s;
    add_core(share, PASS_FORWARD, &core);
    pass_add(out, &core, 1);
    add_elementwise(share, PASS_FORWARD, out);
    out->exchange_s = forward_exchange_s(share, products_s) +
                      ring_exchange_s(share, PASS_FORWARD, core.product_s + core.traffic_s);
    out->host_s = (is_fused ? fused_forward_launches : forward_launches) * issue_s(share);
}

/* PyTorch's checkpointing stops when all that the backward pass reads is there, before the last
 * product (torch.utils.checkpoint, early stopping); Megatron's does the whole block again. */
static double unneeded_s(const struct layout_share *share)
{
    if (share->layout->framework != FRAMEWORK_FSDP)
        return 0;
    const struct weight down = {share->ffn, (double)share->model->hidden};
    return forward_product_s(share, share->layout->arithmetic, down);
}

/* What of the forward pass is done again before the backward pass. */
static void add_recompute(const struct layout_share *share, const struct pass_time *forward,
                          struct pass_time *out)
{
    if (share->layout->recompute == RECOMPUTE_FULL) {
        pass_add(out, forward, 1);
        out->product_s -= unneeded_s(share);
        out->host_s += recompute_launches * issue_s(share);
    }
    if (share->layout->recompute != RECOMPUTE_SELECTIVE)
        return;
    if (share->layout->framework == FRAMEWORK_FSDP) {
        /* torchtitan keeps attention's output and every second product's */
        struct weight weights[BLOCK_WEIGHTS];
        block_weights(share, weights);
        for (int i = 0; i < BLOCK_WEIGHTS; i++)
            out->product_s += forward_product_s(share, share->layout->arithmetic, weights[i]) / 2;
        add_elementwise(share, PASS_FORWARD, out);
        out->host_s += forward->host_s / 2;
        return;
    }
    struct pass_time core = {0};
    add_core(share, PASS_FORWARD, &core);
    pass_add(out, &core, 1);
    out->host_s += recompute_launches * issue_s(share);
}

static void block_backward(const struct layout_share *share, const struct pass_time *forward,
                           struct pass_time *out)
{
    struct weight weights[BLOCK_WEIGHTS];
    bool is_fused = share->layout->fused_attention;
    double input_s = 0, gradient_s = 0;
    struct pass_time core = {0};

    *out = (struct pass_time){0};
    block_weights(share, weights);
    for (int i = 0; i < BLOCK_WEIGHTS; i++) {
        input_s += input_product_s(share, share->layout->arithmetic, weights[i]);
        gradient_s += gradient_product_s(share, share->layout->arithmetic, weights[i]);
        out->traffic_s += cast_s(share, weights[i]) + accumulate_s(share, weights[i]);
    }
    out->product_s = input_s + gradient_s;
    add_core(share, PASS_BACKWARD, &core);
    pass_add(out, &core, 1);
    add_elementwise(share, PASS_BACKWARD, out);
    out->exchange_s = backward_exchange_s(share, input_s, gradient_s) +
                      ring_exchange_s(share, PASS_BACKWARD, core.product_s + core.traffic_s);
    out->host_s = (is_fused ? fused_backward_launches : backward_launches) * issue_s(share);
    add_recompute(share, forward, out);
}

void block_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT])
{
    block_forward(share, &out[PASS_FORWARD]);
    block_backward(share, &out[PASS_FORWARD], &out[PASS_BACKWARD]);
}

/* Rows are looked up, added to those of positions, dropped out; with a split table the sum over
 * its owners is due. Backward adds rows into the table. */
void embedding_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT])
{
    double row_bytes = (double)share->model->hidden * share->element_bytes;
    double passes = share->model->family == MODEL_GPT2 ? 6.5 : 2;
    double bytes = share->tokens * row_bytes;
    double exchange_s = share->layout->sequence_parallel
                            ? ring_reduce_scatter_s(&share->tensor, bytes)
                            : ring_all_reduce_s(&share->tensor, bytes);
    for (int pass = 0; pass < PASS_COUNT; pass++)
        out[pass] = (struct pass_time){
            .traffic_s = traffic_s(share->device, passes * bytes),
            .host_s = 6 * issue_s(share),
        };
    out[PASS_FORWARD].exchange_s = exchange_s;
    /* sequence parallelism gathers the gradient of all tokens before it adds rows */
    if (share->layout->sequence_parallel)
        out[PASS_BACKWARD].exchange_s = exchange_s;
}

/* Bytes that move of one logit beyond its products. Unfused: copied to fp32, maximum, difference,
 * exponential, sum, quotient; fused: read once, and written once as its gradient. */
static double loss_bytes(const struct layout_share *share, int pass)
{
    if (share->layout->fused_cross_entropy)
        return pass == PASS_FORWARD ? share->element_bytes : 2 * share->element_bytes;
    return pass == PASS_FORWARD ? share->element_bytes + 4 + 4 + 8 + 8
                                : 8 + 4 + share->element_bytes;
}

void head_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT])
{
    double hidden = (double)share->model->hidden;
    struct weight weight = {hidden, share->vocab};
    double stream_bytes = share->stream_tokens * hidden * share->element_bytes;
    double bytes = share->tokens * hidden * share->element_bytes;
    double logits = share->tokens * share->vocab;
    double once_s = ring_all_gather_s(&share->tensor, bytes);

    out[PASS_FORWARD] = (struct pass_time){
        .product_s = forward_product_s(share, share->core_arithmetic, weight),
        .traffic_s = traffic_s(share->device, 2 * stream_bytes) +
                     traffic_s(share->device, logits * loss_bytes(share, PASS_FORWARD)),
        .exchange_s = share->layout->sequence_parallel ? once_s : 0,
        .host_s = 12 * issue_s(share),
    };
    out[PASS_BACKWARD] = (struct pass_time){
        .product_s = input_product_s(share, share->core_arithmetic, weight) +
                     gradient_product_s(share, share->core_arithmetic, weight),
        .traffic_s = traffic_s(share->device, 4 * stream_bytes) +
                     traffic_s(share->device, logits * loss_bytes(share, PASS_BACKWARD)),
        .exchange_s = 2 * once_s,
        .host_s = 12 * issue_s(share),
    };
}
