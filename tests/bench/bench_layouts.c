/* How fast one core plans a cluster.
 *
 * Usage: bench_layouts. A row a case: the whole search (layouts_price), with the layouts that it
 * considered a second; it looks at memory first, and what does not fit ends there. Then evaluations
 * a second of time, memory and energy together, of all layouts that layouts_each visits, in its
 * order: each alone (layout_predict), and with what neighbours share remembered
 * (costmodel/layer_prices.h). Each figure is the fastest of some rounds; the ways alternate. */
#include "base/clock.h"
#include "costmodel/layout_parts.h"
#include "planner/layouts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 15 };

static const struct search_case {
    const char *cluster, *model;
    int64_t global_batch;
} cases[] = {
    {"a100-80x1024", "gpt3-175b", 1536},   {"h100x1024", "llama-3-70b", 1024},
    {"h100x64", "llama-3-8b", 256},        {"h100x256", "llama-3-70b", 512},
    {"h100x4096", "llama-3.1-405b", 2048}, {"h100x16384", "llama-3.1-405b", 2048},
};

struct layout_array {
    struct layout *rows; /* [count], owned */
    size_t count, capacity;
};

/* Fastest round of each way. The sums of the steps' times say that both ways did the same. */
struct times {
    double search_s, alone_s, shared_s;
    double alone_sum_s, shared_sum_s;
};

static enum status collect(void *user, const struct layout *layout, struct error *err)
{
    struct layout_array *array = user;
    if (array->count == array->capacity) {
        size_t capacity = array->capacity > 0 ? 2 * array->capacity : 1024;
        struct layout *grown = realloc(array->rows, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "the layouts");
        array->rows = grown;
        array->capacity = capacity;
    }
    array->rows[array->count++] = *layout;
    return STATUS_OK;
}

static enum status search(const struct layouts_request *request, struct times *times,
                          struct layout_list *list, struct error *err)
{
    double start_s = clock_s();
    layouts_free(list);
    TRY(layouts_price(request, list, err));
    times->search_s = fmin(times->search_s, clock_s() - start_s);
    return STATUS_OK;
}

static enum status evaluate_alone(const struct layouts_request *request,
                                  const struct layout_array *array, struct times *times,
                                  struct error *err)
{
    double start_s = clock_s();
    times->alone_sum_s = 0;
    for (size_t i = 0; i < array->count; i++) {
        struct layout_prediction prediction;
        TRY(layout_predict(request->cluster, request->model, &array->rows[i], &prediction, err));
        times->alone_sum_s += prediction.time_s.value;
    }
    times->alone_s = fmin(times->alone_s, clock_s() - start_s);
    return STATUS_OK;
}

static enum status evaluate_shared(const struct layouts_request *request,
                                   const struct layout_array *array, struct times *times,
                                   struct error *err)
{
    double start_s = clock_s();
    struct layer_memory *layers = layer_memory_new(request->model);
    enum status status = layers ? STATUS_OK : error_memory(err, 0, "the prices of layers");
    times->shared_sum_s = 0;
    for (size_t i = 0; i < array->count && status == STATUS_OK; i++) {
        struct layout_prediction prediction = {.model_flops = 0};
        struct layout_parts parts;
        layout_parts_fill(request->cluster, request->model, &array->rows[i], layers, &parts);
        parts_memory(&parts, &prediction);
        status = parts_time(&parts, &prediction, err);
        times->shared_sum_s += prediction.time_s.value;
    }
    layer_memory_free(layers);
    times->shared_s = fmin(times->shared_s, clock_s() - start_s);
    return status;
}

static enum status measure_rounds(const struct layouts_request *request,
                                  const struct layout_array *array, struct layout_list *list,
                                  struct times *times, struct error *err)
{
    *times = (struct times){.search_s = INFINITY, .alone_s = INFINITY, .shared_s = INFINITY};
    for (int round = 0; round < ROUNDS; round++) {
        TRY(search(request, times, list, err));
        TRY(evaluate_alone(request, array, times, err));
        TRY(evaluate_shared(request, array, times, err));
    }
    if (times->alone_sum_s != times->shared_sum_s)
        return error_set(err, STATUS_INVALID, "the two ways differ: steps of %.17g and %.17g s",
                         times->alone_sum_s, times->shared_sum_s);
    return STATUS_OK;
}

static enum status measure_case(const struct search_case *row, struct error *err)
{
    const struct model_overrides none = {0};
    struct layout_array array = {.rows = NULL};
    const struct layout_visitor visitor = {.user = &array, .visit = collect};
    struct layout_list list = {.rows = NULL};
    struct cluster cluster;
    struct model model;
    struct times times;
    bool is_whole;
    TRY(cluster_load(&cluster, row->cluster, err));
    TRY(model_load(&model, row->model, &none, err));
    const struct layouts_request request = {
        .cluster = &cluster,
        .model = &model,
        .framework = FRAMEWORK_MEGATRON,
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = row->global_batch,
        .overlaps = true,
        .fused = true,
        .pins = layout_pins_none(),
        .limits = {.deadline_s = INFINITY},
    };
    enum status status = layouts_each(&request, &visitor, &is_whole, err);
    if (status == STATUS_OK)
        status = measure_rounds(&request, &array, &list, &times, err);
    if (status == STATUS_OK)
        printf("%-12s %-14s %6lld %9llu %8zu %7.1f ms %10.0f %9zu %9.0f %9.0f\n", row->cluster,
               row->model, (long long)row->global_batch, (unsigned long long)list.considered,
               list.count, 1e3 * times.search_s, (double)list.considered / times.search_s,
               array.count, (double)array.count / times.alone_s,
               (double)array.count / times.shared_s);
    layouts_free(&list);
    free(array.rows);
    return status;
}

static enum status measure(struct error *err)
{
    printf("%-12s %-14s %6s %9s %8s %10s %10s %9s %9s %9s\n", "cluster", "model", "batch", "priced",
           "fit", "search", "priced/s", "evaluated", "alone/s", "shared/s");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        TRY(measure_case(&cases[i], err));
    return STATUS_OK;
}

int main(void)
{
    struct error err;
    if (measure(&err) == STATUS_OK)
        return 0;
    (void)fprintf(stderr, "bench_layouts: %s\n", err.message);
    return 1;
}
