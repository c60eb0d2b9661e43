/* Whole searches on described clusters, to several gaps: how long, how much better than the best
 * uniform layout, and what was left to solve. One thread.
 *
 * Usage: bench_cluster. Times are of the whole search, uniform layouts included, the least of three
 * runs. */
#include "base/clock.h"
#include "planner/cluster_search.h"
#include <math.h>
#include <stdio.h>

static const struct search_case {
    const char *cluster, *model;
    int64_t seq_length, global_batch;
    enum framework framework;
    struct layout_weights weights;
} cases[] = {
    {"a100-80x1024", "gpt3-175b", 2048, 1536, FRAMEWORK_MEGATRON, {.time = 1}},
    {"a100-80x1024", "gpt3-175b", 2048, 1536, FRAMEWORK_MEGATRON, {1, 0.3, 0, false}},
    {"a100-80x1024", "gpt3-175b", 2048, 1536, FRAMEWORK_MEGATRON, {1, 0.2, 0.5, false}},
    {"a100-40x384", "gpt3-175b", 2048, 1536, FRAMEWORK_MEGATRON, {.time = 1}},
    {"a100-80x64", "gpt3-175b", 2048, 512, FRAMEWORK_DEEPSPEED, {.time = 1}},
    {"h100x16", "llama-3-70b", 8192, 128, FRAMEWORK_MEGATRON, {.time = 1}},
    {"h100x64", "llama-3-70b", 8192, 128, FRAMEWORK_FSDP, {.time = 1}},
    {"a100-40x64", "llama-3-70b", 8192, 128, FRAMEWORK_FSDP, {.time = 1}},
    {"h100x64", "mixtral-8x7b", 4096, 256, FRAMEWORK_MEGATRON, {.time = 1}},
    {"h100x16384", "llama-3.1-405b", 8192, 2048, FRAMEWORK_MEGATRON, {.time = 1}},
};

static const double gaps[] = {0.01, 0.001, 0};

struct outcome {
    double seconds, gap, gain, best_s;
    uint64_t uniform, shapes, solved;
};

static enum status search(const struct cluster *cluster, const struct model *model,
                          const struct search_case *row, double gap, struct outcome *out,
                          struct error *err)
{
    const struct layouts_request layouts = {
        .cluster = cluster,
        .model = model,
        .framework = row->framework,
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = row->global_batch,
        .overlaps = true,
        .fused_cross_entropy = true,
        .pins = layout_pins_none(),
        .limits = {.deadline_s = INFINITY},
    };
    const struct cluster_search_request request = {.layouts = &layouts,
                                                   .weights = row->weights,
                                                   .arithmetics = {{ARITHMETIC_BF16}, 1},
                                                   .gap_target = gap};
    struct cluster_answer answer;
    double start_s = clock_s();
    TRY(cluster_search(&request, &answer, err));
    double seconds = clock_s() - start_s;
    const struct priced_layout *best = cluster_answer_best(&answer);
    *out = (struct outcome){
        .seconds = fmin(out->seconds, seconds),
        .gap = cluster_answer_gap(&answer),
        .gain = answer.uniform.count > 0 ? answer.objectives[0] / answer.objective - 1 : NAN,
        .best_s = best ? best->time_s : NAN,
        .uniform = answer.uniform.considered,
        .shapes = answer.tailored.shapes,
        .solved = answer.tailored.solved,
    };
    cluster_answer_free(&answer);
    return STATUS_OK;
}

static enum status measure(const struct search_case *row, struct error *err)
{
    const struct model_overrides overrides = {.seq_length = row->seq_length};
    struct cluster cluster;
    struct model model;
    TRY(cluster_load(&cluster, row->cluster, err));
    TRY(model_load(&model, row->model, &overrides, err));
    for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
        struct outcome outcome = {.seconds = INFINITY};
        for (int round = 0; round < 3; round++)
            TRY(search(&cluster, &model, row, gaps[i], &outcome, err));
        printf("%-14s %-15s %-9s %.1f %.1f %.1f %8llu %8llu %6llu %7.1f %% %9.4f %% %9.3f s %7.2f "
               "%% %10.3f s\n",
               row->cluster, row->model, framework_name(row->framework), row->weights.time,
               row->weights.memory, row->weights.energy, (unsigned long long)outcome.uniform,
               (unsigned long long)outcome.shapes, (unsigned long long)outcome.solved,
               100 * gaps[i], 100 * outcome.gap, outcome.seconds, 100 * outcome.gain,
               outcome.best_s);
        (void)fflush(stdout);
    }
    return STATUS_OK;
}

int main(void)
{
    struct error err;
    printf("%-14s %-15s %-9s %-11s %8s %8s %6s %9s %11s %11s %9s %12s\n", "cluster", "model",
           "framework", "w1 w2 w3", "uniform", "shapes", "solved", "gap asked", "reached", "search",
           "gain", "step");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (measure(&cases[i], &err) != STATUS_OK) {
            (void)fprintf(stderr, "bench_cluster: %s\n", err.message);
            return 1;
        }
    }
    return 0;
}
