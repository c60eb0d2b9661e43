#include "costmodel/layer_pass.h"

#include "costmodel/device_ops.h"
#include "costmodel/elementwise.h"
#include "costmodel/expert_pass.h"
#include <math.h>
#include <stdbool.h>

/* Kernels that a block launches, counted in the software named: attention of separate kernels
 * (Megatron-LM's baddbmm, softmax, dropout, bmm, their copies) against one call of it. Backward
 * launches two products for each and a kernel for each elementwise one; a recomputed block also
 * saves and restores the random numbers' state. */
static const struct {
    double separate, fused;
} launches[PASS_COUNT] = {{24, 18}, {48, 36}};
static const double recompute_launches = 16;
/* A framework that runs layer by layer from Python issues a kernel every so many launch intervals
 * of the device (fitted: small models on A100s, docs/layout-model.md). */
static const double dispatch_intervals = 7.7;

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

struct layout_share layout_share(const struct node_group *group, const struct model *model,
                                 const struct layout *layout)
{
    double t = (double)layout->tensor;
    double tokens =
        (double)layout->micro_batch * (double)model->seq_length / (double)layout->context;
    bool is_wide = layout->arithmetic == ARITHMETIC_FP32 || layout->arithmetic == ARITHMETIC_TF32;
    double stream_tokens = layout->sequence_parallel ? tokens / t : tokens;
    return (struct layout_share){
        .device = &group->device,
        .model = model,
        .layout = layout,
        .core_arithmetic =
            layout->arithmetic == ARITHMETIC_FP8 ? ARITHMETIC_BF16 : layout->arithmetic,
        .element_bytes = is_wide ? 4 : 2,
        .tokens = tokens,
        .stream_tokens = stream_tokens,
        .heads = (double)model->heads / t,
        .context = (double)(model->heads * model->head_dim) / t,
        .kv = (double)(model->kv_heads * model->head_dim) / t,
        .ffn = (double)model->ffn / t,
        .vocab = padded_vocab(model, layout) / t,
        .experts =
            expert_share(group, model, layout, (struct device_tokens){tokens, stream_tokens}),
        .tensor = tier_ring(group, (struct tier_group){layout->tensor, 1}),
        .ring = tier_ring(group, (struct tier_group){layout->context, layout->tensor}),
    };
}

static double mlp_matrices(const struct model *model)
{
    return model->family == MODEL_LLAMA ? 3 : 2;
}

double expert_parameters(const struct layout_share *share)
{
    const struct expert_share *experts = &share->experts;
    return experts->local * mlp_matrices(share->model) * (double)share->model->hidden *
           experts->ffn;
}

double block_parameters(const struct layout_share *share, bool has_experts)
{
    double hidden = (double)share->model->hidden, matrices = mlp_matrices(share->model);
    double attention = hidden * (2 * share->context + 2 * share->kv);
    if (!has_experts)
        return attention + hidden * matrices * share->ffn;
    return attention + hidden * (matrices * share->experts.shared + share->experts.router) +
           expert_parameters(share);
}

double table_parameters(const struct layout_share *share)
{
    return share->vocab * (double)share->model->hidden;
}

bool block_kind_equal(const struct block_kind *a, const struct block_kind *b)
{
    return a->has_experts == b->has_experts && a->mode.recompute == b->mode.recompute &&
           a->mode.arithmetic == b->mode.arithmetic && a->mode.offload == b->mode.offload;
}

double pass_s(const struct pass_time *pass)
{
    double device_s = pass->product_s + pass->traffic_s + pass->exchange_s;
    return device_s > pass->host_s ? device_s : pass->host_s;
}

void pass_add(struct pass_time *sum, const struct pass_time *pass, double count)
{
    sum->product_s += count * pass->product_s;
    sum->traffic_s += count * pass->traffic_s;
    sum->host_s += count * pass->host_s;
    sum->exchange_s += count * pass->exchange_s;
    sum->weight_s += count * pass->weight_s;
}

/* From one kernel to the next on the host. */
static double issue_s(const struct layout_share *share)
{
    return dispatch_intervals * share->device->launch_s;
}

/* ---- products ---- */

/* A weight's products: `inner` columns of so many rows become `columns`; `count` such weights, each
 * with rows of its own. */
struct weight {
    double rows, inner, columns, count;
    enum arithmetic arithmetic;
    double flops_s; /* of each of its products: they have the same FLOPs */
    bool is_expert; /* its rows come from other devices */
};

static double weight_flops_s(const struct layout_share *share, const struct weight *weight)
{
    const struct product product = {weight->rows, weight->inner, weight->columns, 1};
    return reached_flops_s(share->device, weight->arithmetic, product_flops(&product));
}

static double forward_product_s(const struct layout_share *share, const struct weight *weight)
{
    const struct product product = {weight->rows, weight->inner, weight->columns, 1};
    return weight->count * product_at_s(share->device, weight->flops_s, &product,
                                        share->element_bytes, share->element_bytes);
}

/* Megatron's products add to an fp32 sum as they write: read and written. */
static double gradient_bytes(const struct layout_share *share)
{
    return share->layout->framework == FRAMEWORK_MEGATRON ? 8 : share->element_bytes;
}

/* DeepSpeed adds a micro-batch's gradients to the sum of those before: both read, one written. FSDP
 * adds them after scattering, when they are few. */
static double accumulate_s(const struct layout_share *share, const struct weight *weight)
{
    if (share->layout->framework != FRAMEWORK_DEEPSPEED)
        return 0;
    double elements = weight->inner * weight->columns * weight->count;
    return traffic_s(share->device, 3 * share->element_bytes * elements);
}

static double gradient_product_s(const struct layout_share *share, const struct weight *weight)
{
    const struct product product = {weight->inner, weight->rows, weight->columns, 1};
    return weight->count * product_at_s(share->device, weight->flops_s, &product,
                                        share->element_bytes, gradient_bytes(share));
}

static double input_product_s(const struct layout_share *share, const struct weight *weight)
{
    struct weight turned = *weight;
    turned.inner = weight->columns;
    turned.columns = weight->inner;
    return forward_product_s(share, &turned);
}

/* fp8 products read casts of both operands, and of their transposes for the backward pass: each is
 * read in 16 bit, written twice in 8. */
static double cast_s(const struct layout_share *share, const struct weight *weight)
{
    if (weight->arithmetic != ARITHMETIC_FP8)
        return 0;
    double elements = weight->inner * (weight->rows + weight->columns) * weight->count;
    return traffic_s(share->device, 4 * elements);
}

/* One that all tokens pass beside the blocks. */
static struct weight plain_weight(const struct layout_share *share, double inner, double columns)
{
    struct weight weight = {.rows = share->tokens,
                            .inner = inner,
                            .columns = columns,
                            .count = 1,
                            .arithmetic = share->core_arithmetic};
    weight.flops_s = weight_flops_s(share, &weight);
    return weight;
}

/* An MLP's two weights: gate and up are one. */
static void mlp_weights(const struct layout_share *share, struct weight of, double columns,
                        struct weight out[2])
{
    double hidden = (double)share->model->hidden;
    out[0] = out[1] = of;
    out[0].inner = out[1].columns = hidden;
    out[0].columns = (mlp_matrices(share->model) - 1) * columns;
    out[1].inner = columns;
}

enum { BLOCK_WEIGHTS_MAX = 6 };

struct weight_list {
    struct weight rows[BLOCK_WEIGHTS_MAX];
    int count;
};

static void block_weights(const struct layout_share *share, const struct block_kind *kind,
                          struct weight_list *out)
{
    const struct expert_share *experts = &share->experts;
    const struct weight dense = {
        .rows = share->tokens, .count = 1, .arithmetic = kind->mode.arithmetic};
    const struct weight expert = {.rows = experts->rows,
                                  .count = experts->local,
                                  .arithmetic = kind->mode.arithmetic,
                                  .is_expert = true};
    double hidden = (double)share->model->hidden;

    out->count = 4;
    out->rows[0] = out->rows[1] = dense;
    out->rows[0].inner = out->rows[1].columns = hidden;
    out->rows[0].columns = share->context + 2 * share->kv;
    out->rows[1].inner = share->context;
    if (kind->has_experts)
        mlp_weights(share, expert, experts->ffn, &out->rows[2]);
    else
        mlp_weights(share, dense, share->ffn, &out->rows[2]);
    if (kind->has_experts && experts->shared > 0) {
        mlp_weights(share, dense, experts->shared, &out->rows[4]);
        out->count += 2;
    }
    for (int i = 0; i < out->count; i++)
        out->rows[i].flops_s = weight_flops_s(share, &out->rows[i]);
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

/* Of fp8 blocks what the layout's are otherwise. */
static enum arithmetic core_arithmetic(const struct layout_share *share,
                                       const struct block_kind *kind)
{
    enum arithmetic own = kind->mode.arithmetic;
    return own == ARITHMETIC_FP8 ? share->core_arithmetic : own;
}

/* Its products, forward. */
static double fused_core_s(const struct layout_share *share, enum arithmetic arithmetic)
{
    /* causal: the upper half is skipped; a ring balances it over its devices */
    double half = share->model->bidirectional ? 1 : 0.5;
    double flops = 4 * query_keys(share) * (double)share->model->head_dim * half;
    double calls = (double)share->layout->context;
    return fused_attention_s(share->device, arithmetic, flops / calls) * calls /
           attention_rate[share->layout->framework];
}

static double unfused_core_s(const struct layout_share *share, enum arithmetic arithmetic)
{
    double dim = (double)share->model->head_dim, keys = (double)share->model->seq_length;
    double rows = keys / (double)share->layout->context, bytes = share->element_bytes;
    double batch = (double)share->layout->micro_batch * share->heads;
    const struct product scores = {rows, dim, keys, batch}, context = {rows, keys, dim, batch};
    return product_s(share->device, arithmetic, &scores, bytes, bytes) +
           product_s(share->device, arithmetic, &context, bytes, bytes);
}

static double core_s(const struct layout_share *share, const struct block_kind *kind)
{
    enum arithmetic arithmetic = core_arithmetic(share, kind);
    return share->layout->fused_attention ? fused_core_s(share, arithmetic)
                                          : unfused_core_s(share, arithmetic);
}

/* `once_s`: core_s of it. */
static void add_core(const struct layout_share *share, double once_s, int pass,
                     struct pass_time *out)
{
    bool is_fused = share->layout->fused_attention;
    double again = is_fused ? fused_backward_ratio : 2;
    out->product_s += pass == PASS_BACKWARD ? again * once_s : once_s;
    if (is_fused)
        return;
    double passes = elementwise_passes(share, pass).scores;
    out->traffic_s += traffic_s(share->device, passes * query_keys(share) * share->element_bytes);
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

/* Halves of a block that every token passes on its own device: attention and MLP; of experts only
 * the shared one, the others' exchanges are expert_pass.c's. */
static double tensor_halves(const struct layout_share *share, bool has_experts)
{
    return has_experts && share->experts.shared == 0 ? 1 : 2;
}

/* An all-reduce for each half, or as many bytes in all-gathers and reduce-scatters (Korthikanti et
 * al. 2022). A product that is cut into t pieces sends one while it computes the next: the first is
 * not hidden. */
static double forward_exchange_s(const struct layout_share *share, double halves, double products_s)
{
    double bytes = share->tokens * (double)share->model->hidden * share->element_bytes;
    double whole_s = halves * ring_all_reduce_s(&share->tensor, bytes);
    if (!share->layout->overlap_tensor)
        return whole_s;
    double first_s = whole_s / (double)share->layout->tensor;
    return first_s + exposed_s(whole_s - first_s, products_s);
}

/* Megatron reduces the gradient of a layer's input while it multiplies that of its weight, and
 * under sequence parallelism gathers the input again for the latter: what is left in the open is
 * the gathering of the output's gradient. */
static double backward_exchange_s(const struct layout_share *share, double halves, double input_s,
                                  double gradient_s)
{
    double bytes = share->tokens * (double)share->model->hidden * share->element_bytes;
    double once_s = halves * ring_all_gather_s(&share->tensor, bytes);
    bool is_split = share->layout->sequence_parallel;
    if (share->layout->tensor == 1)
        return 0;
    if (share->layout->overlap_tensor) {
        double whole_s = (is_split ? 3 : 2) * once_s;
        double first_s = 2 * once_s / (double)share->layout->tensor;
        return first_s + exposed_s(whole_s - first_s, input_s + gradient_s);
    }
    if (share->layout->framework != FRAMEWORK_MEGATRON)
        return (is_split ? 3 : 2) * once_s;
    if (!is_split)
        return exposed_s(2 * once_s, gradient_s / 2);
    return once_s + exposed_s(once_s, input_s) + exposed_s(once_s, gradient_s);
}

/* ---- layers ---- */

/* Elements of the activation's output, of all MLPs that a device's tokens pass. */
static double inner_elements(const struct layout_share *share, bool has_experts)
{
    const struct expert_share *experts = &share->experts;
    if (!has_experts)
        return share->tokens * share->ffn;
    return experts->copies * experts->ffn + share->tokens * experts->shared;
}

static void add_elementwise(const struct layout_share *share, bool has_experts, int pass,
                            struct pass_time *out)
{
    const struct elementwise_passes of = elementwise_passes(share, pass);
    double bytes = share->element_bytes;
    double stream = of.stream * share->stream_tokens * (double)share->model->hidden;
    double inner = of.ffn * inner_elements(share, has_experts) +
                   of.heads * share->tokens * (share->context + 2 * share->kv);
    /* two norms, two residuals, and the activation are calls of their own */
    out->traffic_s +=
        4 * traffic_s(share->device, stream / 4 * bytes) + traffic_s(share->device, inner * bytes);
    if (has_experts)
        out->traffic_s += routing_traffic_s(share, pass);
}

static double block_host_s(const struct layout_share *share, bool has_experts, int pass)
{
    bool is_fused = share->layout->fused_attention;
    double count = is_fused ? launches[pass].fused : launches[pass].separate;
    if (has_experts)
        count += expert_launches(share, pass);
    return count * issue_s(share);
}

/* What both passes of a block share. */
struct block_work {
    struct block_kind kind;
    struct weight_list weights;
    double core_s;
};

static void block_forward(const struct layout_share *share, const struct block_work *block,
                          struct pass_time *out)
{
    bool has_experts = block->kind.has_experts;
    double halves = tensor_halves(share, has_experts), own_s = 0;
    struct pass_time core = {0};

    *out = (struct pass_time){0};
    for (int i = 0; i < block->weights.count; i++) {
        const struct weight *weight = &block->weights.rows[i];
        double each_s = forward_product_s(share, weight);
        out->product_s += each_s;
        own_s += weight->is_expert ? 0 : each_s;
        out->traffic_s += cast_s(share, weight);
    }
    add_core(share, block->core_s, PASS_FORWARD, &core);
    pass_add(out, &core, 1);
    add_elementwise(share, has_experts, PASS_FORWARD, out);
    out->exchange_s = forward_exchange_s(share, halves, own_s) +
                      ring_exchange_s(share, PASS_FORWARD, core.product_s + core.traffic_s);
    if (has_experts)
        out->exchange_s += dispatch_exchange_s(share);
    out->host_s = block_host_s(share, has_experts, PASS_FORWARD);
}

/* PyTorch's checkpointing stops when all that the backward pass reads is there, before the last
 * product (torch.utils.checkpoint, early stopping); Megatron's does the whole block again. */
static double unneeded_s(const struct layout_share *share, const struct block_work *block)
{
    if (share->layout->framework != FRAMEWORK_FSDP)
        return 0;
    return forward_product_s(share, &block->weights.rows[3]);
}

/* torchtitan keeps attention's output and every second product's. */
static void add_every_second(const struct layout_share *share, const struct block_work *block,
                             const struct pass_time *forward, struct pass_time *out)
{
    for (int i = 0; i < block->weights.count; i++)
        out->product_s += forward_product_s(share, &block->weights.rows[i]) / 2;
    add_elementwise(share, block->kind.has_experts, PASS_FORWARD, out);
    if (block->kind.has_experts)
        out->exchange_s += dispatch_exchange_s(share);
    out->host_s += forward->host_s / 2;
}

/* What of the forward pass is done again before the backward pass. */
static void add_recompute(const struct layout_share *share, const struct block_work *block,
                          const struct pass_time *forward, struct pass_time *out)
{
    enum recompute recompute = block->kind.mode.recompute;
    struct pass_time core = {0};

    if (recompute == RECOMPUTE_FULL) {
        pass_add(out, forward, 1);
        out->product_s -= unneeded_s(share, block);
        out->host_s += recompute_launches * issue_s(share);
    }
    if (recompute != RECOMPUTE_SELECTIVE)
        return;
    if (share->layout->framework == FRAMEWORK_FSDP) {
        add_every_second(share, block, forward, out);
        return;
    }
    add_core(share, block->core_s, PASS_FORWARD, &core);
    pass_add(out, &core, 1);
    out->host_s += recompute_launches * issue_s(share);
}

static void block_backward(const struct layout_share *share, const struct block_work *block,
                           const struct pass_time *forward, struct pass_time *out)
{
    bool has_experts = block->kind.has_experts;
    double halves = tensor_halves(share, has_experts);
    double input_s = 0, gradient_s = 0, experts_s = 0;
    struct pass_time core = {0};

    *out = (struct pass_time){0};
    for (int i = 0; i < block->weights.count; i++) {
        const struct weight *weight = &block->weights.rows[i];
        double of_input_s = input_product_s(share, weight);
        double of_weight_s = gradient_product_s(share, weight);
        input_s += weight->is_expert ? 0 : of_input_s;
        gradient_s += weight->is_expert ? 0 : of_weight_s;
        experts_s += weight->is_expert ? of_input_s + of_weight_s : 0;
        out->traffic_s += cast_s(share, weight) + accumulate_s(share, weight);
        out->weight_s += of_weight_s + accumulate_s(share, weight);
    }
    out->product_s = input_s + gradient_s + experts_s;
    add_core(share, block->core_s, PASS_BACKWARD, &core);
    pass_add(out, &core, 1);
    add_elementwise(share, has_experts, PASS_BACKWARD, out);
    /* gradients of weights that wait for later hide nothing */
    double beside_s = share->layout->schedule == SCHEDULE_ZB_H1 ? 0 : gradient_s;
    out->exchange_s = backward_exchange_s(share, halves, input_s, beside_s) +
                      ring_exchange_s(share, PASS_BACKWARD, core.product_s + core.traffic_s);
    if (has_experts)
        out->exchange_s += dispatch_exchange_s(share);
    out->host_s = block_host_s(share, has_experts, PASS_BACKWARD);
    add_recompute(share, block, forward, out);
}

void block_passes(const struct layout_share *share, const struct block_kind *kind,
                  struct pass_time out[PASS_COUNT])
{
    struct block_work block = {.kind = *kind, .core_s = core_s(share, kind)};
    block_weights(share, kind, &block.weights);
    block_forward(share, &block, &out[PASS_FORWARD]);
    block_backward(share, &block, &out[PASS_FORWARD], &out[PASS_BACKWARD]);
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
    double once_s = traffic_s(share->device, passes * bytes);
    for (int pass = 0; pass < PASS_COUNT; pass++)
        out[pass] = (struct pass_time){
            .traffic_s = once_s,
            .host_s = 6 * issue_s(share),
        };
    out[PASS_FORWARD].exchange_s = exchange_s;
    /* sequence parallelism gathers the gradient of all tokens before it adds rows */
    if (share->layout->sequence_parallel)
        out[PASS_BACKWARD].exchange_s = exchange_s;
}

/* An encoder's dense layer before its decoder, which is on every device of a tensor group; its
 * activation and the copy of its input are read and written, and so are their gradients. */
static void add_dense(const struct layout_share *share, struct pass_time out[PASS_COUNT])
{
    double hidden = (double)share->model->hidden;
    const struct weight weight = plain_weight(share, hidden, hidden);
    double row_s = traffic_s(share->device, share->tokens * hidden * share->element_bytes);
    out[PASS_FORWARD].product_s += forward_product_s(share, &weight);
    out[PASS_FORWARD].traffic_s += 2 * row_s;
    out[PASS_BACKWARD].product_s +=
        input_product_s(share, &weight) + gradient_product_s(share, &weight);
    out[PASS_BACKWARD].traffic_s += 3 * row_s;
}

void head_passes(const struct layout_share *share, struct pass_time out[PASS_COUNT])
{
    double hidden = (double)share->model->hidden;
    const struct weight weight = plain_weight(share, hidden, share->vocab);
    double stream_bytes = share->stream_tokens * hidden * share->element_bytes;
    double bytes = share->tokens * hidden * share->element_bytes;
    double logits = share->tokens * share->vocab;
    double once_s = ring_all_gather_s(&share->tensor, bytes);

    out[PASS_FORWARD] = (struct pass_time){
        .product_s = forward_product_s(share, &weight),
        .traffic_s = traffic_s(share->device, 2 * stream_bytes) +
                     traffic_s(share->device, logits * loss_bytes(share, PASS_FORWARD)),
        .exchange_s = share->layout->sequence_parallel ? once_s : 0,
        .host_s = 12 * issue_s(share),
    };
    out[PASS_BACKWARD] = (struct pass_time){
        .product_s = input_product_s(share, &weight) + gradient_product_s(share, &weight),
        .traffic_s = traffic_s(share->device, 4 * stream_bytes) +
                     traffic_s(share->device, logits * loss_bytes(share, PASS_BACKWARD)),
        .exchange_s = 2 * once_s,
        .host_s = 12 * issue_s(share),
    };
    if (share->model->bidirectional)
        add_dense(share, out);
}
