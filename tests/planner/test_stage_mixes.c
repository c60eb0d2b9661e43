/* Mixes of modes: what a stage costs falls in none of the measures that they are compared by. */
#include "planner/stage_mixes.h"
#include "random_cluster.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { STAGES = 60000, BLOCKS_MOST = 12 };

/* A stage of a random layout, as the search tries it in one mix and another. */
struct trial {
    struct cluster cluster;
    struct model model;
    struct layout layout;
    struct block_kind kinds[BLOCK_KINDS_MAX];
    size_t kind_count;
    struct stage_prices prices;
    struct stage_bytes bytes;
    struct kind_measures measures;
    struct stage_entry entry; /* without its blocks */
};

/* A power of 2 of those that divide it. */
static int64_t roll_part(struct dice *dice, int64_t *whole)
{
    int64_t part = 1;
    while (*whole % 2 == 0 && roll_true(dice, 2)) {
        part *= 2;
        *whole /= 2;
    }
    return part;
}

/* False: software that does not exist. */
static bool roll_layout(struct dice *dice, struct trial *out)
{
    int64_t left = INT64_C(1) << roll(dice, 6);
    struct layout *layout = &out->layout;
    struct error err;
    *layout = (struct layout){.framework = (enum framework)roll(dice, FRAMEWORK_COUNT),
                              .devices = left,
                              .virtual_stages = 1,
                              .context = 1,
                              .expert = 1,
                              .shard = 1,
                              .zero_stage = (int)roll(dice, 4),
                              .arithmetic = ARITHMETIC_BF16};
    layout->pipeline = roll_part(dice, &left);
    layout->tensor = roll_part(dice, &left);
    layout->data = left;
    layout->sequence_parallel = layout->tensor > 1 && roll_true(dice, 2);
    if (layout->zero_stage > 0)
        layout->shard = layout->data;
    layout->micro_batch = 1 + (int64_t)roll(dice, 2);
    layout->global_batch = layout->micro_batch * layout->data * (1 + (int64_t)roll(dice, 8));
    layout->fused_attention = layout->fused_cross_entropy = roll_true(dice, 2);
    layout->overlap_gradients = roll_true(dice, 2);
    layout->overlap_parameters = roll_true(dice, 2);
    layout->overlap_tensor = roll_true(dice, 2);
    layout->schedule = roll_true(dice, 2) ? SCHEDULE_1F1B : SCHEDULE_GPIPE;
    if (layout->pipeline > 1 && roll_true(dice, 3))
        layout->schedule = SCHEDULE_ZB_H1;
    random_cluster(dice, layout->devices, 1, &out->cluster);
    out->model = random_model(dice, 2 * layout->pipeline);
    return layout_check(layout, &out->model, "trial", &err) == STATUS_OK;
}

static void fill_kinds(struct dice *dice, struct trial *out)
{
    bool has_experts = out->model.experts > 0, goes = roll_true(dice, 2);
    out->kind_count = 0;
    for (int recompute = 0; recompute < RECOMPUTE_COUNT; recompute++) {
        for (int away = 0; away <= goes; away++) {
            for (int is_8_bit = 0; is_8_bit < 2; is_8_bit++) {
                const struct block_mode mode = {
                    (enum recompute)recompute, is_8_bit ? ARITHMETIC_FP8 : ARITHMETIC_BF16,
                    away != 0 && out->cluster.groups[0].device.host_bytes_s > 0 &&
                        layout_admits_activations_away(&out->layout, (enum recompute)recompute)};
                if ((away != 0) == mode.offload)
                    out->kinds[out->kind_count++] = (struct block_kind){has_experts, mode};
            }
        }
    }
}

static bool roll_trial(struct dice *dice, bool energy_counts, struct trial *out)
{
    const struct node_group *group = &out->cluster.groups[0];
    struct layer_prices layers;
    if (!roll_layout(dice, out))
        return false;
    fill_kinds(dice, out);
    layer_prices_start(group, &out->model, &out->layout, &layers);
    stage_prices_fill(&layers, &out->layout, out->kinds, out->kind_count, &out->prices);
    stage_bytes_fill(&layers, &out->layout, out->kinds, out->kind_count, &out->bytes);
    kind_measures_fill(&out->prices, &out->bytes, energy_counts, &out->measures);
    int64_t stage = (int64_t)roll(dice, (uint64_t)out->layout.pipeline);
    out->entry = (struct stage_entry){.first = stage,
                                      .count = 1,
                                      .has_embedding = stage == 0,
                                      .has_head = stage == out->layout.pipeline - 1};
    return true;
}

struct cost {
    double fill_s, repeat_s, once_s;
    struct stage_memory memory;
};

/* Where a pass hides what the host's link and another carry at once, or what is exchanged once a
 * step and counts for less than one micro-batch, it may hide more than it adds: stage_columns.c
 * takes what the slowest mix leaves of it in the open, which is the same for all. */
static void leave_out_exchanges(const struct trial *trial, struct stage_work *work)
{
    bool waits_for_host = false;
    for (size_t kind = 0; kind < trial->kind_count; kind++)
        waits_for_host = waits_for_host || trial->kinds[kind].mode.offload;
    if (waits_for_host)
        work->gather_s = work->scatter_s = 0;
    if (waits_for_host || trial->layout.schedule == SCHEDULE_ZB_H1)
        work->reduce_s = work->renew_s = 0;
}

static struct cost cost_of(const struct trial *trial, const struct mix *mix)
{
    struct stage_entry entry = trial->entry;
    struct stage_work work;
    struct cost cost;
    for (size_t kind = 0; kind < trial->kind_count; kind++) {
        entry.kinds[kind] = mix->kinds[kind];
        entry.blocks += mix->kinds[kind];
    }
    stage_work_fill(&trial->prices, &entry, &work);
    leave_out_exchanges(trial, &work);
    const struct stage_span span = stage_span(&trial->layout, &work);
    cost.fill_s = span.fill_s;
    cost.repeat_s = span.repeat_s;
    cost.once_s = work.reduce_s + work.renew_s + work.optimizer_s;
    stage_memory_fill(&trial->bytes, &entry, &cost.memory);
    return cost;
}

static bool is_above(double a, double b)
{
    return a > b + 1e-9 * fabs(b);
}

/* Two mixes of as many blocks that differ in one block's mode, or in several. */
static void roll_mixes(struct dice *dice, const struct trial *trial, struct mix out[2])
{
    size_t blocks = 1 + (size_t)roll(dice, BLOCKS_MOST);
    memset(out, 0, 2 * sizeof(*out));
    for (size_t i = 0; i < blocks; i++) {
        size_t kind = (size_t)roll(dice, trial->kind_count);
        bool differs = i == 0 || roll_true(dice, 3);
        out[0].kinds[kind]++;
        out[1].kinds[differs ? (size_t)roll(dice, trial->kind_count) : kind]++;
    }
}

static void test_stage_mixes__costs_fall_in_no_measure(void **state)
{
    uint64_t compared = 0, quicker = 0, leaner = 0, split = 0, away = 0;
    (void)state;
    for (uint64_t seed = 1; seed <= STAGES; seed++) {
        static struct trial trial;
        struct dice dice = {.seed = seed};
        struct mix mixes[2];
        if (!roll_trial(&dice, false, &trial))
            continue;
        roll_mixes(&dice, &trial, mixes);
        mix_measure(&trial.measures, &mixes[0]);
        mix_measure(&trial.measures, &mixes[1]);
        for (int first = 0; first < 2; first++) {
            const struct mix *a = &mixes[first], *b = &mixes[1 - first];
            if (!mix_covers(&trial.measures, a, b))
                continue;
            const struct cost of_a = cost_of(&trial, a), of_b = cost_of(&trial, b);
            away += b->measures[MIX_AWAY] > 0;
            compared++;
            quicker += of_a.fill_s < of_b.fill_s;
            leaner += of_a.memory.sum < of_b.memory.sum;
            split += trial.layout.schedule == SCHEDULE_ZB_H1;
            if (is_above(of_a.repeat_s, of_b.repeat_s) || is_above(of_a.fill_s, of_b.fill_s) ||
                is_above(of_a.fill_s + of_a.once_s, of_b.fill_s + of_b.once_s))
                fail_msg("seed %llu: %.12g %.12g %.12g s, of what it covers %.12g %.12g %.12g",
                         (unsigned long long)seed, of_a.fill_s, of_a.repeat_s, of_a.once_s,
                         of_b.fill_s, of_b.repeat_s, of_b.once_s);
            if (is_above(of_a.memory.sum, of_b.memory.sum) ||
                is_above(of_a.memory.sum - of_a.memory.cached,
                         of_b.memory.sum - of_b.memory.cached) ||
                is_above(stage_memory_deviation(&of_a.memory),
                         stage_memory_deviation(&of_b.memory)) ||
                is_above(of_a.memory.host_bytes, of_b.memory.host_bytes))
                fail_msg("seed %llu: %.12g bytes, %.12g of what it covers",
                         (unsigned long long)seed, of_a.memory.sum, of_b.memory.sum);
        }
    }
    assert_true(compared > STAGES / 20);
    assert_true(quicker > STAGES / 50 && leaner > STAGES / 80);
    assert_true(split > STAGES / 200 && away > STAGES / 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stage_mixes__costs_fall_in_no_measure),
    };
    return cmocka_run_group_tests_name("stage_mixes", tests, NULL, NULL);
}
