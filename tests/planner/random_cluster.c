#include "random_cluster.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Even in the logarithm. */
static double roll_between(struct dice *dice, double least, double most)
{
    return least * pow(most / least, roll_real(dice));
}

/* Larger work reaches no smaller share. */
static void random_curve(struct dice *dice, double size, struct efficiency_curve *out)
{
    double share = roll_between(dice, 0.05, 0.4);
    size_t points = 1 + (size_t)roll(dice, 3);
    for (size_t i = 0; i < points; i++) {
        efficiency_curve_add(out, size, share);
        size *= roll_between(dice, 4, 1000);
        share = fmin(share * roll_between(dice, 1, 3), 1);
    }
}

/* Far slower than the device, as hosts are: planners take it that nothing gets quicker there. */
static void random_host(struct dice *dice, struct device_type *out)
{
    out->host_bytes_s = out->memory_bytes_s / roll_between(dice, 100, 1000);
    out->host_memory_bytes_s = out->memory_bytes_s / roll_between(dice, 100, 1000);
    out->host_memory_bytes = UINT64_C(1) << 50;
}

static void random_device(struct dice *dice, struct device_type *out)
{
    *out = (struct device_type){.name = "made up", .price_hour = NAN};
    out->memory_bytes = UINT64_C(1) << 50;
    out->peak_flops[ARITHMETIC_BF16] = roll_between(dice, 1e12, 1e15);
    out->peak_flops[ARITHMETIC_FP16] = out->peak_flops[ARITHMETIC_BF16];
    out->peak_flops[ARITHMETIC_FP8] =
        out->peak_flops[ARITHMETIC_BF16] * (roll_true(dice, 3) ? 1 : 1 + roll_real(dice));
    out->peak_flops[ARITHMETIC_FP32] = out->peak_flops[ARITHMETIC_BF16] / 8;
    out->peak_flops[ARITHMETIC_TF32] = out->peak_flops[ARITHMETIC_BF16] / 2;
    out->memory_bytes_s = roll_between(dice, 1e11, 1e13);
    out->launch_s = roll_true(dice, 3) ? 0 : roll_between(dice, 1e-8, 1e-5);
    out->peak_w = roll_between(dice, 100, 1000);
    out->idle_w = out->peak_w * (0.1 + 0.8 * roll_real(dice));
    out->unlimited_w = roll_true(dice, 2) ? 0 : out->peak_w * (1 + roll_real(dice));
    random_curve(dice, 1e6, &out->efficiency[OPERATION_MATMUL]);
    random_curve(dice, 1e6, &out->efficiency[OPERATION_ATTENTION]);
    random_curve(dice, 1e4, &out->efficiency[OPERATION_MEMORY]);
    if (roll_true(dice, 2))
        random_host(dice, out);
}

static void add_tier(struct dice *dice, int64_t devices, struct node_group *group)
{
    struct link_tier *tier = &group->tiers[group->tier_count++];
    *tier = (struct link_tier){.name = "link", .devices = devices};
    tier->latency_s = roll_between(dice, 1e-7, 1e-4);
    tier->bytes_s = roll_between(dice, 1e8, 1e12);
    tier->share = 0.3 + 0.7 * roll_real(dice);
}

static void random_group(struct dice *dice, int64_t devices, struct node_group *out)
{
    int64_t nodes = 1;
    *out = (struct node_group){.nodes = 1};
    while (devices % (2 * nodes) == 0 && roll_true(dice, 2))
        nodes *= 2;
    out->nodes = nodes;
    out->node_devices = devices / nodes;
    random_device(dice, &out->device);
    if (out->node_devices > 1 || nodes == 1)
        add_tier(dice, out->node_devices, out);
    if (nodes > 1)
        add_tier(dice, devices, out);
}

void random_cluster(struct dice *dice, int64_t devices, size_t groups, struct cluster *out)
{
    struct error err;
    *out = (struct cluster){.name = "made up", .carbon_g_kwh = NAN, .group_count = groups};
    int64_t first = groups == 1 ? devices : 1 + (int64_t)roll(dice, (uint64_t)devices - 1);
    if (groups == 2 && roll_true(dice, 2))
        first = devices - devices / 2;
    for (size_t i = 0; i < groups; i++)
        random_group(dice, i == 0 ? first : devices - first, &out->groups[i]);
    if (cluster_validate(out, "made up", &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void add_experts(struct dice *dice, struct model *out)
{
    out->experts = INT64_C(2) << roll(dice, 3);
    out->experts_per_token = 1 + (int64_t)roll(dice, 2);
    out->moe_every = 1 + (int64_t)roll(dice, 2);
    out->expert_ffn = (INT64_C(16) << roll(dice, 2)) * out->heads;
    out->shared_ffn = roll_true(dice, 3) ? 32 * out->heads : 0;
}

struct model random_model(struct dice *dice, int64_t blocks)
{
    struct model model = {.name = "made up",
                          .blocks = blocks,
                          .norm_epsilon = 1e-5,
                          .rope_theta = 1e4,
                          .tied_head = roll_true(dice, 2)};
    struct error err;
    model.family = roll_true(dice, 2) ? MODEL_GPT2 : MODEL_LLAMA;
    model.heads = INT64_C(2) << roll(dice, 5);
    model.kv_heads = model.family == MODEL_LLAMA && roll_true(dice, 2) ? 2 : model.heads;
    model.head_dim = INT64_C(16) << roll(dice, 4);
    model.hidden = model.heads * model.head_dim;
    model.ffn =
        model.family == MODEL_GPT2 ? 4 * model.hidden : model.hidden * (2 + (int)roll(dice, 3));
    model.vocab = 1 + (int64_t)roll(dice, 60000);
    model.seq_length = model.positions = INT64_C(64) << roll(dice, 6);
    if (model.family == MODEL_LLAMA && roll_true(dice, 2))
        add_experts(dice, &model);
    if (model_validate(&model, "made up", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return model;
}
