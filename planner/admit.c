#include "planner/admit.h"
#include <math.h>
#include <stdlib.h>

/* ---- strategies ---- */

/* What replacing b by a adds to the maxima at most. With one stage they are sums: tau and gamma are
 * costs like any other; else the other stages may hide what a saves. */
static struct stage_terms added_maxima(const struct problem *problem, const struct stage_terms *a,
                                       const struct stage_terms *b)
{
    struct stage_terms added = {.tau = a->tau - b->tau, .gamma = a->gamma - b->gamma};
    if (problem->stages > 1) {
        added.tau = fmax(added.tau, 0);
        added.gamma = fmax(added.gamma, 0);
    }
    return added;
}

/* And to the objective. */
static double added_cost(const struct problem *problem, const struct stage_terms *a,
                         const struct stage_terms *b)
{
    const struct stage_terms maxima = added_maxima(problem, a, b);
    return a->cost - b->cost + problem->weight_tau * maxima.tau +
           problem->weight_gamma * maxima.gamma;
}

static double added_spend(const struct problem *problem, const struct stage_terms *a,
                          const struct stage_terms *b)
{
    const struct stage_terms maxima = added_maxima(problem, a, b);
    return a->spend - b->spend + problem->spend_tau * maxima.tau +
           problem->spend_gamma * maxima.gamma;
}

/* What replacing b by a adds to a stage's scratch at most, at this level. */
static uint64_t added_scratch(const struct scratch_level *level, const struct strategy *a,
                              const struct strategy *b)
{
    uint64_t with = a->scratch_bytes > level->low_bytes ? a->scratch_bytes : level->low_bytes;
    uint64_t before = b->scratch_bytes > level->low_bytes ? b->scratch_bytes : level->low_bytes;
    return with > before ? with - before : 0;
}

/* Replacing b by a never costs or spends more and never needs more bytes. */
static bool strategy_dominates(const struct problem *problem, size_t stage,
                               const struct scratch_level *level, const struct strategy *a,
                               const struct strategy *b)
{
    if ((problem->transitions && a->group != b->group) ||
        (problem->needs & b->traits & ~a->traits) != 0)
        return false;
    const struct stage_terms x = problem_stage_terms(problem, stage, a);
    const struct stage_terms y = problem_stage_terms(problem, stage, b);
    bool sends = problem->stages > 1;
    if (x.bytes + added_scratch(level, a, b) > y.bytes)
        return false;
    if (problem_has_budget(problem) &&
        added_spend(problem, &x, &y) + (sends ? fmax(a->send_spend - b->send_spend, 0) : 0) > 0)
        return false;
    return added_cost(problem, &x, &y) + (sends ? fmax(a->send_cost - b->send_cost, 0) : 0) <= 0;
}

void admit_class(const struct problem *problem, size_t stage, const struct scratch_level *level,
                 size_t class, struct admitted *out)
{
    const struct layer_class *of = problem_class(problem, stage, class);
    out->count = 0;
    for (size_t s = 0; s < of->strategy_count; s++) {
        const struct strategy *candidate = &of->strategies[s];
        if (candidate->scratch_bytes > level->high_bytes || !strategy_is_admitted(candidate))
            continue;
        size_t kept = 0;
        bool beaten = false;
        for (size_t i = 0; i < out->count && !beaten; i++)
            beaten = strategy_dominates(problem, stage, level, &of->strategies[out->strategies[i]],
                                        candidate);
        if (beaten)
            continue;
        for (size_t i = 0; i < out->count; i++) {
            const struct strategy *other = &of->strategies[out->strategies[i]];
            if (!strategy_dominates(problem, stage, level, candidate, other))
                out->strategies[kept++] = out->strategies[i];
        }
        out->strategies[kept++] = s;
        out->count = kept;
    }
}

/* ---- levels of scratch ---- */

static int compare_bytes(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* With one stage, which has layers of all classes, a limit below this admits nothing for some. */
static uint64_t least_limit(const struct problem *problem, const size_t *class_layers)
{
    uint64_t most = 0;
    for (size_t c = 0; problem->stages == 1 && c < problem->class_count; c++) {
        const struct layer_class *of = problem_class(problem, 0, c);
        uint64_t least = UINT64_MAX;
        if (class_layers[c] == 0)
            continue;
        for (size_t s = 0; s < of->strategy_count; s++) {
            uint64_t bytes = of->strategies[s].scratch_bytes;
            if (strategy_is_admitted(&of->strategies[s]) && bytes < least)
                least = bytes;
        }
        most = least > most && least < UINT64_MAX ? least : most;
    }
    return most;
}

/* The distinct sizes of at least `least`, ascending; returns how many. */
static size_t scratch_sizes(const struct problem *problem, uint64_t least, uint64_t *sizes)
{
    size_t count = 0, kept = 0;
    for (size_t c = 0; c < problem->places * problem->class_count; c++) {
        const struct layer_class *of = &problem->classes[c];
        for (size_t s = 0; s < of->strategy_count; s++) {
            uint64_t bytes = of->strategies[s].scratch_bytes;
            if (strategy_is_admitted(&of->strategies[s]))
                sizes[count++] = bytes > least ? bytes : least;
        }
    }
    if (count > 0)
        qsort(sizes, count, sizeof(*sizes), compare_bytes);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || sizes[i] != sizes[kept - 1])
            sizes[kept++] = sizes[i];
    }
    return kept;
}

static bool memory_matters(const struct problem *problem)
{
    return problem_most_cap(problem) != PROBLEM_NO_CAP || problem->weight_memory > 0;
}

/* One level a size, or neighbouring sizes in one where there are too many. */
static size_t divide_sizes(const struct problem *problem, const uint64_t *sizes, size_t count,
                           struct scratch_level *levels)
{
    size_t kept = 0;
    if (count == 0 || !memory_matters(problem)) {
        uint64_t most = count > 0 ? sizes[count - 1] : 0;
        levels[0] = (struct scratch_level){most, most};
        return 1;
    }
    uint64_t span = sizes[count - 1] - sizes[0];
    uint64_t width = count > SCRATCH_LEVELS_MAX ? span / SCRATCH_LEVELS_MAX + 1 : 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && sizes[i] - levels[kept - 1].low_bytes < width)
            levels[kept - 1].high_bytes = sizes[i];
        else
            levels[kept++] = (struct scratch_level){sizes[i], sizes[i]};
    }
    return kept;
}

enum status scratch_levels(const struct problem *problem, const size_t *class_layers,
                           struct scratch_level *levels, size_t *level_count, struct error *err)
{
    size_t total = 0;
    for (size_t c = 0; c < problem->places * problem->class_count; c++)
        total += problem->classes[c].strategy_count;
    uint64_t *sizes = calloc(total + 1, sizeof(*sizes));
    if (!sizes)
        return error_memory(err, total * sizeof(*sizes), "the search's levels of scratch");
    size_t count = scratch_sizes(problem, least_limit(problem, class_layers), sizes);
    *level_count = divide_sizes(problem, sizes, count, levels);
    free(sizes);
    return STATUS_OK;
}
