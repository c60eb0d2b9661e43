/* Against computations by hand: a device of round figures, whose curves are flat, so that a time is
 * FLOPs or bytes divided by one rate. */
#include "costmodel/device_ops.h"
#include "costmodel/layer_bytes.h"
#include "costmodel/layout_cost.h"
#include "costmodel/layout_step.h"
#include "ir/run_case.h"
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const double peak = 100e12, share = 0.5, memory_rate = 1e12;

static struct efficiency_curve flat(double value)
{
    return (struct efficiency_curve){.count = 1, .size = {1}, .share = {value}};
}

/* Nodes of 8 over links of 100 GB/s, between them 10 GB/s for each device; no latency. */
static struct cluster round_cluster(int64_t nodes)
{
    struct cluster cluster = {.name = "round", .group_count = 1, .carbon_g_kwh = NAN};
    struct node_group *group = &cluster.groups[0];
    group->nodes = nodes;
    group->node_devices = 8;
    group->tiers[0] =
        (struct link_tier){.name = "near", .devices = 8, .bytes_s = 100e9, .share = 1};
    group->tiers[1] =
        (struct link_tier){.name = "far", .devices = 8 * nodes, .bytes_s = 10e9, .share = 1};
    group->tier_count = 2;
    struct device_type *device = &group->device;
    snprintf(device->name, sizeof(device->name), "round-100");
    device->memory_bytes = UINT64_C(1) << 40;
    device->peak_flops[ARITHMETIC_BF16] = peak;
    device->memory_bytes_s = memory_rate;
    device->idle_w = 100;
    device->peak_w = 300;
    device->price_hour = NAN;
    device->efficiency[OPERATION_MATMUL] = flat(share);
    device->efficiency[OPERATION_ATTENTION] = flat(share / 2);
    device->efficiency[OPERATION_MEMORY] = flat(1);
    return cluster;
}

/* No byte takes time: what is left is FLOPs. */
static struct cluster infinite_memory(int64_t nodes)
{
    struct cluster cluster = round_cluster(nodes);
    cluster.groups[0].device.memory_bytes_s = 1e30;
    return cluster;
}

static const struct model small = {
    .name = "small",
    .family = MODEL_LLAMA,
    .blocks = 8,
    .hidden = 1024,
    .heads = 16,
    .kv_heads = 16,
    .head_dim = 64,
    .ffn = 4096,
    .vocab = 1024,
    .positions = 512,
    .seq_length = 512,
    .norm_epsilon = 1e-5,
    .rope_theta = 1e4,
};

static struct layout_prediction predict(const struct cluster *cluster, const struct layout *layout)
{
    struct layout_prediction out = {0};
    struct error err;
    if (layout_check(layout, &small, "test", &err) != STATUS_OK ||
        layout_time(cluster, &small, layout, &out, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return out;
}

/* Seconds of the products of one block's weights, forward, of `tokens`: 4 h^2 + 3 h f of them. */
static double block_products_s(double tokens)
{
    double weights = 4.0 * 1024 * 1024 + 3.0 * 1024 * 4096;
    return 2 * tokens * weights / (peak * share);
}

/* Causal: half of 4 s^2 h FLOPs a sequence, at half of the products' share. */
static double block_attention_s(double sequences)
{
    return sequences * 2 * 512.0 * 512 * 1024 / (peak * share / 2);
}

static double head_products_s(double tokens)
{
    return 2 * tokens * 1024.0 * 1024 / (peak * share);
}

/* ---- operations ---- */

static void test_device_ops__take_the_longer_of_work_and_bytes(void **state)
{
    (void)state;
    const struct cluster cluster = round_cluster(1);
    const struct device_type *device = &cluster.groups[0].device;
    /* 2 x 4096^3 FLOPs against 3 x 4096^2 elements of 2 bytes */
    const struct product square = {4096, 4096, 4096, 1};
    check_near(product_flops(&square), 137438953472.0, "FLOPs");
    check_near(product_s(device, ARITHMETIC_BF16, &square, 2, 2), 137438953472.0 / 50e12, "square");
    /* 2 x 4096 x 64 x 4096 x 8 FLOPs take 0.34 ms; 8 x (2 x 4096 x 64 x 2 + 4096^2 x 2) bytes 0.28
     * at 2 bytes of a result, 1.08 at 8 */
    const struct product flat_product = {4096, 64, 4096, 8};
    check_near(product_s(device, ARITHMETIC_BF16, &flat_product, 2, 2), 17179869184.0 / 50e12,
               "flat product");
    check_near(product_s(device, ARITHMETIC_BF16, &flat_product, 2, 8), 1082130432.0 / 1e12,
               "flat product into a wide sum");
    check_near(traffic_s(device, 5e9), 5e-3, "traffic");
    check_near(fused_attention_s(device, ARITHMETIC_BF16, 25e9), 1e-3, "attention");
}

/* 4092 x 2 bytes are no multiple of 16, 4104 x 2 are, but none of 128. */
static void test_device_ops__unaligned_products_are_slow(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(1);
    const struct device_type *device = &cluster.groups[0].device;
    const struct product whole = {4096, 4096, 4096, 1}, part = {4096, 4104, 4096, 1},
                         odd = {4096, 4092, 4096, 1};
    double whole_s = product_s(device, ARITHMETIC_BF16, &whole, 2, 2) / product_flops(&whole);
    double part_s = product_s(device, ARITHMETIC_BF16, &part, 2, 2) / product_flops(&part);
    double odd_s = product_s(device, ARITHMETIC_BF16, &odd, 2, 2) / product_flops(&odd);
    assert_true(whole_s < part_s && part_s < odd_s);
}

/* ---- collectives ---- */

static void test_tier_collective__by_hand(void **state)
{
    (void)state;
    const struct cluster cluster = round_cluster(4);
    const struct node_group *group = &cluster.groups[0];
    /* in a node: 7/8 of 80 MB over 100 GB/s */
    struct tier_ring ring = tier_ring(group, (struct tier_group){8, 1});
    check_near(ring_all_gather_s(&ring, 80e6), 0.7e-3, "all-gather");
    check_near(ring_all_reduce_s(&ring, 80e6), 1.4e-3, "all-reduce");
    /* one of each node: 3/4 over its own link of 10 GB/s */
    ring = tier_ring(group, (struct tier_group){4, 8});
    check_near(ring_reduce_scatter_s(&ring, 40e6), 3e-3, "across nodes");
    /* two of each node share the links of two */
    ring = tier_ring(group, (struct tier_group){8, 4});
    check_near(ring_all_gather_s(&ring, 80e6), 3.5e-3, "two of each node");
    /* all: 8 x 10 GB/s leave a node, less than the 100 within */
    ring = tier_ring(group, (struct tier_group){32, 1});
    check_near(ring_all_gather_s(&ring, 320e6), 31.0 / 32 * 320e6 / 80e9, "all");
    ring = tier_ring(group, (struct tier_group){1, 1});
    check_near(ring_all_reduce_s(&ring, 1e9) + 1, 1, "alone");
    ring = tier_ring(group, (struct tier_group){2, 8});
    check_near(ring_message_s(&ring, 10e6), 1e-3, "message");
}

/* A ring has as many hops as members: those of a node over its links, one more to the next. */
static void test_tier_collective__latencies_add_up_around_the_ring(void **state)
{
    (void)state;
    struct cluster cluster = round_cluster(4);
    cluster.groups[0].tiers[0].latency_s = 1e-6;
    cluster.groups[0].tiers[1].latency_s = 1e-3;
    struct tier_ring ring = tier_ring(&cluster.groups[0], (struct tier_group){32, 1});
    check_near(ring.latency_s, 28e-6 + 3e-3, "latency");
}

/* ---- a step ---- */

static void test_layout_time__of_one_device_is_its_products(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(1);
    const struct layout layout = one_device(2);
    struct layout_prediction out = predict(&cluster, &layout);
    double forward_s = 8 * (block_products_s(1024) + block_attention_s(2)) + head_products_s(1024);
    double backward_s =
        8 * (2 * block_products_s(1024) + 2.5 * block_attention_s(2)) + 2 * head_products_s(1024);
    check_near(out.phase_time_s[PHASE_FORWARD].value, 4 * forward_s, "forward");
    check_near(out.phase_time_s[PHASE_BACKWARD].value, 4 * backward_s, "backward");
    check_near(out.time_s.value, 4 * (forward_s + backward_s), "step");
    assert_int_equal(out.time_s.provenance, PROVENANCE_MODELLED);
    /* the whole square, three times forward */
    double model_flops = 8 * 3 * 512 *
                         (8 * 2 * (4.0 * 1024 * 1024 + 3.0 * 1024 * 4096) + 8 * 4 * 512.0 * 1024 +
                          2 * 1024.0 * 1024);
    check_near(out.model_flops, model_flops, "model FLOPs");
    check_near(out.mfu, model_flops / (out.time_s.value * peak), "share of the peak");
}

static void test_layout_time__full_recompute_is_one_forward_more(void **state)
{
    (void)state;
    const struct cluster cluster = round_cluster(1);
    struct layout layout = one_device(2);
    double none_s = predict(&cluster, &layout).time_s.value;
    layout.recompute = RECOMPUTE_FULL;
    double full_s = predict(&cluster, &layout).time_s.value;
    struct layout_share whole = layout_share(&cluster.groups[0], &small, &layout);
    const struct block_kind kind = {.mode = layout_block_mode(&layout, 0)};
    struct pass_time passes[PASS_COUNT];
    block_passes(&whole, &kind, passes);
    check_near(full_s - none_s, 4 * 8 * pass_s(&passes[PASS_FORWARD]), "recompute");
}

/* Kernels that a slow host launches cannot come faster than it. */
static void test_layout_time__small_work_waits_for_the_host(void **state)
{
    (void)state;
    struct cluster cluster = infinite_memory(1);
    const struct layout layout = one_device(2);
    cluster.groups[0].device.launch_s = 1;
    double second_s = predict(&cluster, &layout).time_s.value;
    cluster.groups[0].device.launch_s = 2;
    check_near(predict(&cluster, &layout).time_s.value, 2 * second_s, "launches");
}

static void test_layout_time__gradients_are_reduced_at_the_end(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(4);
    struct layout layout = one_device(2);
    layout.devices = layout.data = 32;
    layout.global_batch = 2 * 4 * 32;
    struct layout_prediction out = predict(&cluster, &layout);
    /* blocks' matrices, embedding and head (1024 x 1024 each), fp32 */
    double bytes = 4 * (8 * (4.0 * 1024 * 1024 + 3.0 * 1024 * 4096) + 2 * 1024.0 * 1024);
    double reduce_s = 2 * 31.0 / 32 * bytes / 80e9;
    check_near(out.phase_time_s[PHASE_GRAD_REDUCE].value, reduce_s, "all-reduce");
    layout.zero_stage = 1;
    layout.shard = 32;
    out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_GRAD_REDUCE].value, reduce_s / 2, "reduce-scatter");
    check_near(out.phase_time_s[PHASE_PARAM_GATHER].value, reduce_s / 4, "16 bit gathered");
    layout.overlap_gradients = layout.overlap_parameters = true;
    assert_true(predict(&cluster, &layout).time_s.value < out.time_s.value);
}

static void test_layout_time__tensor_parallel_all_reduces(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(1);
    struct layout layout = one_device(2);
    layout.framework = FRAMEWORK_DEEPSPEED;
    layout.devices = layout.tensor = 8;
    struct layout_prediction out = predict(&cluster, &layout);
    /* of 1024 tokens x 1024 x 2 bytes: 4 a block, one of the embedding, one of the head, each of
     * the 4 micro-batches */
    double once_s = 2 * 7.0 / 8 * 1024 * 1024 * 2 / 100e9;
    check_near(out.phase_time_s[PHASE_TENSOR].value, 4 * (8 * 4 + 2) * once_s, "all-reduces");
    layout.framework = FRAMEWORK_MEGATRON;
    double async_s = predict(&cluster, &layout).phase_time_s[PHASE_TENSOR].value;
    assert_true(async_s < out.phase_time_s[PHASE_TENSOR].value);
}

/* Links without end leave the schedule's bubble: (m - 1) max T + sum T. */
static void test_layout_time__pipeline_fills_and_empties(void **state)
{
    (void)state;
    struct cluster cluster = infinite_memory(1);
    struct layout layout = one_device(2);
    cluster.groups[0].tiers[0].bytes_s = 1e30;
    layout.devices = layout.pipeline = 4;
    double block_s = 3 * block_products_s(1024) + 3.5 * block_attention_s(2);
    double last_s = 2 * block_s + 3 * head_products_s(1024);
    struct layout_prediction out = predict(&cluster, &layout);
    check_near(out.time_s.value, 4 * last_s + 3 * 2 * block_s, "1F1B");
    check_near(out.phase_time_s[PHASE_PIPELINE].value, 3 * 2 * block_s, "bubble");
    layout.schedule = SCHEDULE_INTERLEAVED;
    layout.virtual_stages = 2;
    out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_PIPELINE].value, 3 * block_s, "half of the bubble");
}

/* Of the bubble of 1F1B, zb-h1 fills twice the gradients of weights (Qi et al. 2024): of each of
 * the two blocks of a stage they are one of the three products. */
static void test_layout_time__zero_bubble_fills_with_gradients_of_weights(void **state)
{
    (void)state;
    struct cluster cluster = infinite_memory(1);
    struct layout layout = one_device(2);
    cluster.groups[0].tiers[0].bytes_s = 1e30;
    layout.devices = layout.pipeline = 4;
    layout.schedule = SCHEDULE_ZB_H1;
    double block_s = 3 * block_products_s(1024) + 3.5 * block_attention_s(2);
    double filled_s = 2 * block_products_s(1024);
    struct layout_prediction out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_PIPELINE].value, 3 * 2 * (block_s - filled_s), "bubble");
    layout.global_batch = 4; /* two micro-batches: one gradient of weights is late */
    out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_PIPELINE].value,
               3 * 2 * (block_s - block_products_s(1024)) - 2 * block_products_s(1024),
               "bubble of two micro-batches");
}

/* Megatron's all-reduces hide behind gradients of weights, which zb-h1 does later. */
static void test_layout_time__zero_bubble_leaves_all_reduces_in_the_open(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(1);
    struct layout layout = one_device(2);
    layout.devices = 8;
    layout.pipeline = 4;
    layout.tensor = 2;
    double plain_s = predict(&cluster, &layout).phase_time_s[PHASE_TENSOR].value;
    layout.schedule = SCHEDULE_ZB_H1;
    struct layout_prediction out = predict(&cluster, &layout);
    /* the last stage: 4 micro-batches, two blocks and the head's gradient; of 1024 tokens x 1024 x
     * 2 bytes, 4 all-reduces a block */
    double once_s = 2 * 0.5 * 1024 * 1024 * 2 / 100e9;
    check_near(out.phase_time_s[PHASE_TENSOR].value, 4 * (2 * 4 + 1) * once_s, "all-reduces");
    assert_true(plain_s < out.phase_time_s[PHASE_TENSOR].value);
}

/* Of 4 micro-batches 1F1B waits twice more for the way to the neighbour and back, gpipe and zb-h1,
 * whose gradients of weights take longer than it, do not. */
static void test_layout_time__gpipe_waits_for_fewer_messages(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(1);
    struct layout layout = one_device(2);
    layout.devices = layout.pipeline = 4;
    double both_s = 2 * 1024.0 * 1024 * 2 / 100e9;
    double plain_s = predict(&cluster, &layout).time_s.value;
    layout.schedule = SCHEDULE_GPIPE;
    check_near(plain_s - predict(&cluster, &layout).time_s.value, 2 * both_s, "gpipe");
    layout.schedule = SCHEDULE_ZB_H1;
    double filled_s = 3 * 2 * 2 * block_products_s(1024);
    check_near(plain_s - predict(&cluster, &layout).time_s.value, filled_s + 2 * both_s, "zb-h1");
}

/* ZeRO's state over the 8 devices of each of 4 nodes: scattered and gathered within them, the
 * eighth summed over the nodes. */
static void test_layout_time__part_of_the_replicas_shares_state(void **state)
{
    (void)state;
    const struct cluster cluster = infinite_memory(4);
    struct layout layout = one_device(2);
    layout.devices = layout.data = 32;
    layout.global_batch = 2 * 4 * 32;
    layout.zero_stage = 1;
    layout.shard = 8;
    struct layout_prediction out = predict(&cluster, &layout);
    double bytes = 4 * (8 * (4.0 * 1024 * 1024 + 3.0 * 1024 * 4096) + 2 * 1024.0 * 1024);
    double reduce_s = 7.0 / 8 * bytes / 100e9 + 2 * 3.0 / 4 * (bytes / 8) / 10e9;
    check_near(out.phase_time_s[PHASE_GRAD_REDUCE].value, reduce_s, "scattered, then all-reduced");
    check_near(out.phase_time_s[PHASE_PARAM_GATHER].value, 7.0 / 8 * bytes / 2 / 100e9, "gathered");
}

/* ---- offload ---- */

static struct cluster with_host(struct cluster cluster, double bytes_s, double memory_bytes_s)
{
    struct device_type *device = &cluster.groups[0].device;
    device->host_bytes_s = bytes_s;
    device->host_memory_bytes_s = memory_bytes_s;
    device->host_memory_bytes = UINT64_C(1) << 40;
    return cluster;
}

static double small_parameters(void)
{
    return 8 * (4.0 * 1024 * 1024 + 3.0 * 1024 * 4096) + 2 * 1024.0 * 1024;
}

/* Of an owned parameter 4 bytes go down, Adam moves 30, 2 come back. */
static void test_layout_time__the_host_does_the_optimizers_step(void **state)
{
    (void)state;
    const struct cluster cluster = with_host(infinite_memory(1), 10e9, 5e9);
    struct layout layout = one_device(1);
    layout.devices = layout.data = 8;
    layout.zero_stage = 1;
    layout.shard = 8;
    layout.offload_optimizer = true;
    double owned = small_parameters() / 8;
    struct layout_prediction out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_OPTIMIZER].value, owned * (4 / 10e9 + 30 / 5e9 + 2 / 10e9),
               "one after the other");
    check_near(out.phase_time_s[PHASE_OTHER].value + 1, 1, "nothing with each micro-batch");
    layout.overlap_parameters = true;
    out = predict(&cluster, &layout);
    check_near(out.phase_time_s[PHASE_OPTIMIZER].value, owned * 30 / 5e9, "all at once");
}

/* DeepSpeed sends 2 bytes of each owned gradient behind 7 of 8 blocks' backward passes. */
static void test_layout_time__deepspeed_sends_every_gradient(void **state)
{
    (void)state;
    const struct cluster cluster = with_host(infinite_memory(1), 1e9, 5e9);
    struct layout layout = one_device(1);
    layout.framework = FRAMEWORK_DEEPSPEED;
    layout.devices = layout.data = 2;
    layout.zero_stage = 2;
    layout.shard = 2;
    layout.offload_optimizer = true;
    double owned = small_parameters() / 2;
    struct layout_prediction out = predict(&cluster, &layout);
    double backward_s = out.phase_time_s[PHASE_BACKWARD].value / 4;
    check_near(out.phase_time_s[PHASE_OTHER].value, 4 * (owned * 2 / 1e9 - backward_s * 7 / 8),
               "gradients");
    check_near(out.phase_time_s[PHASE_OPTIMIZER].value, owned * 30 / 5e9, "Adam");
}

/* FSDP fetches 4 bytes of each owned parameter for both passes, and sends as many of gradients, the
 * link both ways at once. */
static void test_layout_time__fsdp_fetches_parameters(void **state)
{
    (void)state;
    const struct cluster cluster = with_host(infinite_memory(1), 1e9, 5e9);
    struct layout layout = one_device(1);
    layout.framework = FRAMEWORK_FSDP;
    layout.devices = layout.data = layout.shard = 2;
    layout.zero_stage = 3;
    layout.offload_optimizer = true;
    double owned = small_parameters() / 2;
    struct layout_prediction out = predict(&cluster, &layout);
    double waits_s = out.phase_time_s[PHASE_OTHER].value / 4;
    double passes_s =
        (out.phase_time_s[PHASE_FORWARD].value + out.phase_time_s[PHASE_BACKWARD].value) / 4;
    check_near(waits_s, 2 * owned * 4 / 1e9 - passes_s * 7 / 8, "parameters and gradients");
}

/* What blocks keep goes to the host behind 7 of 8 blocks' passes, and comes back the same way. */
static void test_layout_time__activations_wait_on_the_host(void **state)
{
    (void)state;
    struct layout layout = one_device(2);
    struct cluster cluster = with_host(infinite_memory(1), 1e9, 5e9);
    struct layout_prediction plain = predict(&cluster, &layout);
    double plain_s = plain.time_s.value;
    layout.offload_activations = true;
    struct layout_share whole = layout_share(&cluster.groups[0], &small, &layout);
    const struct block_kind kind = {.mode = layout_block_mode(&layout, 0)};
    double away_s = 8 * block_bytes(&whole, &kind).kept / 1e9;
    double forward_s = 8 * (block_products_s(1024) + block_attention_s(2)) + head_products_s(1024);
    double backward_s =
        8 * (2 * block_products_s(1024) + 2.5 * block_attention_s(2)) + 2 * head_products_s(1024);
    double waits_s = 4 * (2 * away_s - (forward_s + backward_s) * 7 / 8);
    struct layout_prediction out = predict(&cluster, &layout);
    assert_true(away_s > backward_s);
    check_near(out.phase_time_s[PHASE_OTHER].value, waits_s, "waits");
    check_near(out.time_s.value, plain_s + waits_s, "step");
    check_near(out.energy_j.value - plain.energy_j.value, 100 * waits_s, "at rest meanwhile");
    cluster = with_host(infinite_memory(1), 1e15, 5e9);
    check_near(predict(&cluster, &layout).time_s.value, plain_s, "a link without end");
}

static void test_layout_time__phases_sum_to_the_step(void **state)
{
    (void)state;
    const struct cluster cluster = round_cluster(8);
    struct layout layout = one_device(2);
    layout.devices = 64;
    layout.pipeline = layout.tensor = layout.context = 2;
    layout.data = 8;
    layout.sequence_parallel = true;
    layout.global_batch = 8 * 8;
    for (int zero = 0; zero <= 3; zero++) {
        layout.zero_stage = zero;
        layout.shard = zero == 0 ? 1 : 8;
        layout.framework = zero > 1 ? FRAMEWORK_DEEPSPEED : FRAMEWORK_MEGATRON;
        struct layout_prediction out = predict(&cluster, &layout);
        double sum_s = 0;
        for (int phase = 0; phase < PHASE_COUNT; phase++) {
            assert_true(out.phase_time_s[phase].value >= 0);
            sum_s += out.phase_time_s[phase].value;
        }
        check_near(sum_s, out.time_s.value, "sum of the phases");
    }
}

/* ---- errors ---- */

static void refuse(const struct cluster *cluster, const struct layout *layout, const char *words)
{
    struct layout_prediction out;
    struct error err;
    assert_int_not_equal(layout_time(cluster, &small, layout, &out, &err), STATUS_OK);
    if (!strstr(err.message, words))
        fail_msg("'%s' does not say '%s'", err.message, words);
}

static void test_layout_time__refuses_what_the_cluster_lacks(void **state)
{
    (void)state;
    struct cluster cluster = round_cluster(1);
    struct layout layout = one_device(2);
    layout.arithmetic = ARITHMETIC_FP8;
    refuse(&cluster, &layout, "round-100 has no peak rate in fp8");
    layout.arithmetic = ARITHMETIC_BF16;
    layout.devices = layout.data = 16;
    refuse(&cluster, &layout, "takes 16 devices of group 1, which has 8");
    layout.devices = layout.data = 8;
    cluster.groups[0].tier_count = 0;
    refuse(&cluster, &layout, "no links");
    layout = one_device(2);
    layout.offload_activations = true;
    refuse(&cluster, &layout, "host of device round-100 is not given");
    layout = one_device(2);
    cluster.groups[0].device.efficiency[OPERATION_ATTENTION].count = 0;
    refuse(&cluster, &layout, "no efficiency curve for attention");
    cluster.groups[0].device.memory_bytes_s = 0;
    refuse(&cluster, &layout, "memory rate");
}

/* ---- published runs ---- */

/* Mean absolute error over the rows that the curves were not fitted to: those of odd lines, of
 * simumax_b200 the lines from 6 on (docs/layout-model.md). */
static double held_out_error(const char *path, size_t first_line, size_t step)
{
    struct run_cases cases;
    struct error err;
    double sum = 0, count = 0;
    if (run_cases_load(&cases, path, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < cases.count; i++) {
        const struct run_case *row = &cases.rows[i];
        struct layout_prediction out;
        bool is_held = row->line >= first_line && (row->line - first_line) % step == 0;
        if (!is_held || row->skipped[0] != '\0' || row->step_s.provenance == PROVENANCE_ABSENT)
            continue;
        if (layout_time(&row->cluster, &row->model, &row->layout, &out, &err) != STATUS_OK)
            fail_msg("%s:%zu: %s", path, row->line, err.message);
        sum += fabs(out.time_s.value / row->step_s.value - 1);
        count++;
    }
    run_cases_free(&cases);
    assert_true(count > 0);
    return sum / count;
}

static void test_layout_time__predicts_published_runs(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        size_t first_line, step;
        double limit;
    } tables[] = {
        {"korthikanti_tab5", 3, 2, 0.035}, {"dgxc", 3, 2, 0.06},
        {"vtrain_single", 3, 2, 0.08},     {"llm_foundry", 3, 2, 0.08},
        {"bigscience_a100", 3, 2, 0.08},   {"simumax_b200", 6, 1, 0.05},
    };
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/validation/%s.csv", TEMPER_SHARED_DIR,
                       tables[i].file);
        if (access(path, R_OK) != 0) {
            print_message("%s is not there: skipped\n", path);
            skip();
        }
        double error = held_out_error(path, tables[i].first_line, tables[i].step);
        if (error > tables[i].limit)
            fail_msg("%s: mean absolute error %.1f %%, at most %.1f", tables[i].file, 100 * error,
                     100 * tables[i].limit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_ops__take_the_longer_of_work_and_bytes),
        cmocka_unit_test(test_device_ops__unaligned_products_are_slow),
        cmocka_unit_test(test_tier_collective__by_hand),
        cmocka_unit_test(test_tier_collective__latencies_add_up_around_the_ring),
        cmocka_unit_test(test_layout_time__of_one_device_is_its_products),
        cmocka_unit_test(test_layout_time__full_recompute_is_one_forward_more),
        cmocka_unit_test(test_layout_time__small_work_waits_for_the_host),
        cmocka_unit_test(test_layout_time__gradients_are_reduced_at_the_end),
        cmocka_unit_test(test_layout_time__tensor_parallel_all_reduces),
        cmocka_unit_test(test_layout_time__pipeline_fills_and_empties),
        cmocka_unit_test(test_layout_time__zero_bubble_fills_with_gradients_of_weights),
        cmocka_unit_test(test_layout_time__zero_bubble_leaves_all_reduces_in_the_open),
        cmocka_unit_test(test_layout_time__gpipe_waits_for_fewer_messages),
        cmocka_unit_test(test_layout_time__part_of_the_replicas_shares_state),
        cmocka_unit_test(test_layout_time__the_host_does_the_optimizers_step),
        cmocka_unit_test(test_layout_time__deepspeed_sends_every_gradient),
        cmocka_unit_test(test_layout_time__fsdp_fetches_parameters),
        cmocka_unit_test(test_layout_time__activations_wait_on_the_host),
        cmocka_unit_test(test_layout_time__phases_sum_to_the_step),
        cmocka_unit_test(test_layout_time__refuses_what_the_cluster_lacks),
        cmocka_unit_test(test_layout_time__predicts_published_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
