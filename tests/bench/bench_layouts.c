/* How fast one core plans a cluster.
 *
 * Usage: bench_layouts. A row a case: the whole search (layouts_price), with the layouts that it
 * considered a second; it looks at memory first, and what does not fit ends there. Then evaluations
 * a second of time, memory and energy together, of all layouts that layouts_each visits, in its
 * order: each alone (layout_predict), and with what neighbours share remembered
 * (costmodel/layer_prices.h). The ways alternate for some rounds. A search counts with its fastest
 * round, evaluations with the fastest round of each 64th of the list, so that whatever else the
 * machine does for a moment counts little. */
#include "base/clock.h"
#include "costmodel/layout_parts.h"
#include "planner/layouts.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 15, PIECES = 64 };

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

/* Of evaluations in one way. The sum of the steps' times says whether two ways did the same. */
struct way {
    double fastest_s[PIECES];
    double sum_s;
};

struct times {
    double search_s;
    struct way alone, shared;
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
                                  const struct layout_array *array, struct way *way,
                                  struct error *err)
{
    way->sum_s = 0;
    for (size_t piece = 0; piece < PIECES; piece++) {
        double start_s = clock_s();
        for (size_t i = array->count * piece / PIECES; i < array->count * (piece + 1) / PIECES;
             i++) {
            struct layout_prediction out;
            TRY(layout_predict(request->cluster, request->model, &array->rows[i], &out, err));
            way->sum_s += out.time_s.value;
        }
        way->fastest_s[piece] = fmin(way->fastest_s[piece], clock_s() - start_s);
    }
    return STATUS_OK;
}

static enum status evaluate_shared(const struct layouts_request *request,
                                   const struct layout_array *array, struct layer_memory *layers,
                                   struct way *way, struct error *err)
{
    way->sum_s = 0;
    for (size_t piece = 0; piece < PIECES; piece++) {
        double start_s = clock_s();
        for (size_t i = array->count * piece / PIECES; i < array->count * (piece + 1) / PIECES;
             i++) {
            struct layout_prediction out = {.model_flops = 0};
            struct layout_parts parts;
            layout_parts_fill(request->cluster, request->model, &array->rows[i], layers, &parts);
            parts_memory(&parts, &out);
            TRY(parts_time(&parts, &out, err));
            way->sum_s += out.time_s.value;
        }
        way->fastest_s[piece] = fmin(way->fastest_s[piece], clock_s() - start_s);
    }
    return STATUS_OK;
}

static enum status evaluate_both(const struct layouts_request *request,
                                 const struct layout_array *array, struct times *times,
                                 struct error *err)
{
    struct layer_memory *layers = layer_memory_new(request->model); /* of this round only */
    if (!layers)
        return error_set(err, STATUS_MEMORY, "no memory for the prices of layers");
    enum status status = evaluate_shared(request, array, layers, &times->shared, err);
    layer_memory_free(layers);
    if (status == STATUS_OK)
        status = evaluate_alone(request, array, &times->alone, err);
    if (status == STATUS_OK && times->alone.sum_s != times->shared.sum_s)
        return error_set(err, STATUS_INVALID, "the two ways differ: steps of %.17g and %.17g s",
                         times->alone.sum_s, times->shared.sum_s);
    return status;
}

static double evaluations_per_s(const struct layout_array *array, const struct way *way)
{
    double seconds = 0;
    for (size_t piece = 0; piece < PIECES; piece++)
        seconds += way->fastest_s[piece];
    return (double)array->count / seconds;
}

static enum status measure_rounds(const struct layouts_request *request,
                                  const struct layout_array *array, struct layout_list *list,
                                  struct times *times, struct error *err)
{
    times->search_s = INFINITY;
    for (size_t piece = 0; piece < PIECES; piece++)
        times->alone.fastest_s[piece] = times->shared.fastest_s[piece] = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        TRY(search(request, times, list, err));
        TRY(evaluate_both(request, array, times, err));
    }
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
        .fused_cross_entropy = true,
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
               array.count, evaluations_per_s(&array, &times.alone),
               evaluations_per_s(&array, &times.shared));
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
