/* How fast a laptop plans a cluster: layouts priced a second on one core, and whole searches.
 *
 * Usage: bench_layouts. Prints a table of searches and, for the first, evaluations of time, memory
 * and energy together. */
#include "base/clock.h"
#include "planner/layouts.h"
#include <math.h>
#include <stdio.h>

enum { ROUNDS = 20 };

static const struct search_case {
    const char *cluster, *model;
    int64_t global_batch;
} cases[] = {
    {"a100-80x1024", "gpt3-175b", 1536},   {"h100x1024", "llama-3-70b", 1024},
    {"h100x64", "llama-3-8b", 256},        {"h100x256", "llama-3-70b", 512},
    {"h100x4096", "llama-3.1-405b", 2048}, {"h100x16384", "llama-3.1-405b", 2048},
};

static enum status search(const struct cluster *cluster, const struct model *model,
                          int64_t global_batch, struct layout_list *out, struct error *err)
{
    const struct layouts_request request = {
        .cluster = cluster,
        .model = model,
        .framework = FRAMEWORK_MEGATRON,
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = global_batch,
        .overlaps = true,
        .fused = true,
        .pins = layout_pins_none(),
        .limits = {.deadline_s = INFINITY},
    };
    return layouts_price(&request, out, err);
}

static enum status measure_search(const struct search_case *row, struct error *err)
{
    const struct model_overrides none = {0};
    struct cluster cluster;
    struct model model;
    struct layout_list list;
    double fastest_s = INFINITY;
    TRY(cluster_load(&cluster, row->cluster, err));
    TRY(model_load(&model, row->model, &none, err));
    for (int round = 0; round < 3; round++) {
        double start_s = clock_s();
        TRY(search(&cluster, &model, row->global_batch, &list, err));
        fastest_s = fmin(fastest_s, clock_s() - start_s);
        if (round == 2)
            printf("%-14s %-16s %6lld %9llu %9zu %10.1f ms %12.0f\n", row->cluster, row->model,
                   (long long)row->global_batch, (unsigned long long)list.considered, list.count,
                   1e3 * fastest_s, (double)list.considered / fastest_s);
        layouts_free(&list);
    }
    return STATUS_OK;
}

/* Time, memory and energy of every layout that fits the first case. */
static enum status measure_evaluations(struct error *err)
{
    const struct model_overrides none = {0};
    struct cluster cluster;
    struct model model;
    struct layout_list list;
    double sum_s = 0;
    TRY(cluster_load(&cluster, cases[0].cluster, err));
    TRY(model_load(&model, cases[0].model, &none, err));
    TRY(search(&cluster, &model, cases[0].global_batch, &list, err));
    double start_s = clock_s();
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < list.count; i++) {
            struct layout_prediction prediction;
            TRY(layout_predict(&cluster, &model, &list.rows[i].layout, &prediction, err));
            sum_s += prediction.time_s.value;
        }
    }
    double seconds = clock_s() - start_s;
    printf("\n%.0f evaluations of time, memory and energy a second (one core; mean step %.3g s)\n",
           ROUNDS * (double)list.count / seconds, sum_s / (ROUNDS * (double)list.count));
    layouts_free(&list);
    return STATUS_OK;
}

static enum status measure(struct error *err)
{
    printf("%-14s %-16s %6s %9s %9s %13s %12s\n", "cluster", "model", "batch", "priced", "fit",
           "search", "layouts/s");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        TRY(measure_search(&cases[i], err));
    return measure_evaluations(err);
}

int main(void)
{
    struct error err;
    if (measure(&err) == STATUS_OK)
        return 0;
    (void)fprintf(stderr, "bench_layouts: %s\n", err.message);
    return 1;
}
