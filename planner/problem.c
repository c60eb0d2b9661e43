#include "planner/problem.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t problem_stage_bytes(const struct problem *problem, size_t stage,
                             const struct strategy *strategy)
{
    uint64_t in_flight = problem->stages - stage;
    if ((uint64_t)problem->micro_batches < in_flight)
        in_flight = (uint64_t)problem->micro_batches;
    return strategy->static_bytes + in_flight * strategy->inflight_bytes;
}

const struct transition *problem_transition(const struct problem *problem, size_t from_class,
                                            size_t from_strategy, size_t to_class,
                                            size_t to_strategy)
{
    if (!problem->transitions)
        return NULL;
    const struct transition *table =
        problem->transitions[from_class * problem->class_count + to_class];
    if (!table)
        return NULL;
    return &table[from_strategy * problem->classes[to_class].strategy_count + to_strategy];
}

enum status assignment_alloc(struct assignment *out, size_t layer_count, struct error *err)
{
    *out = (struct assignment){
        .strategies = calloc(layer_count, sizeof(size_t)),
        .stages = calloc(layer_count, sizeof(size_t)),
    };
    if (out->strategies && out->stages)
        return STATUS_OK;
    assignment_free(out);
    return error_memory(err, 2ull * layer_count * sizeof(size_t), "a plan's assignment");
}

void assignment_copy(struct assignment *to, const struct assignment *from, size_t layer_count)
{
    memcpy(to->strategies, from->strategies, layer_count * sizeof(size_t));
    memcpy(to->stages, from->stages, layer_count * sizeof(size_t));
}

void assignment_free(struct assignment *assignment)
{
    free(assignment->strategies);
    free(assignment->stages);
    *assignment = (struct assignment){0};
}

/* ---- evaluation ---- */

struct stage_sums {
    double cost, tau, gamma;
    uint64_t bytes, scratch_bytes;
};

static const struct strategy *chosen(const struct problem *problem,
                                     const struct assignment *assignment, size_t layer)
{
    return &problem->classes[problem->layer_class[layer]].strategies[assignment->strategies[layer]];
}

/* Add the layers of the stage that begins at `first`; returns the layer after its last. */
static size_t sum_stage(const struct problem *problem, const struct assignment *assignment,
                        size_t first, struct stage_sums *sums)
{
    size_t stage = assignment->stages[first];
    size_t layer = first;
    for (; layer < problem->layer_count && assignment->stages[layer] == stage; layer++) {
        const struct strategy *strategy = chosen(problem, assignment, layer);
        sums->cost += strategy->cost;
        sums->tau += strategy->tau;
        sums->gamma += strategy->gamma;
        sums->bytes += problem_stage_bytes(problem, stage, strategy);
        if (strategy->scratch_bytes > sums->scratch_bytes)
            sums->scratch_bytes = strategy->scratch_bytes;
        if (layer == first)
            continue;
        const struct transition *change = problem_transition(
            problem, problem->layer_class[layer - 1], assignment->strategies[layer - 1],
            problem->layer_class[layer], assignment->strategies[layer]);
        if (change) {
            sums->cost += change->cost;
            sums->tau += change->tau;
        }
    }
    if (layer < problem->layer_count)
        sums->cost += chosen(problem, assignment, layer - 1)->send_cost;
    return layer;
}

double problem_evaluate(const struct problem *problem, const struct assignment *assignment,
                        uint64_t *peak_bytes)
{
    double cost = problem->fixed_cost, tau = 0, gamma = 0;
    uint64_t peak = 0;
    for (size_t layer = 0; layer < problem->layer_count;) {
        struct stage_sums sums = {.bytes = problem->fixed_bytes};
        layer = sum_stage(problem, assignment, layer, &sums);
        cost += sums.cost;
        tau = fmax(tau, sums.tau);
        gamma = fmax(gamma, sums.gamma);
        if (sums.bytes + sums.scratch_bytes > peak)
            peak = sums.bytes + sums.scratch_bytes;
    }
    if (peak_bytes)
        *peak_bytes = peak;
    if (peak > problem->cap_bytes)
        return INFINITY;
    return cost + problem->weight_tau * tau + problem->weight_gamma * gamma +
           problem->weight_memory * (double)peak;
}

/* ---- the leanest assignment ---- */

/* One cell of the search over stage boundaries: layers [0, end) on the first stages. */
struct lean_cell {
    uint64_t bytes;         /* of the fullest stage; UINT64_MAX: impossible */
    size_t first;           /* where the last of these stages begins */
    uint64_t scratch_bytes; /* its strategies' limit */
};

/* Strategy of least bytes whose scratch is within the limit; strategy_count when there is none. */
static size_t leanest_strategy(const struct problem *problem, size_t stage, size_t class,
                               uint64_t scratch_limit, uint64_t *bytes)
{
    const struct layer_class *of = &problem->classes[class];
    size_t best = of->strategy_count;
    *bytes = UINT64_MAX;
    for (size_t s = 0; s < of->strategy_count; s++) {
        uint64_t own = problem_stage_bytes(problem, stage, &of->strategies[s]);
        if (of->strategies[s].scratch_bytes <= scratch_limit && own < *bytes) {
            *bytes = own;
            best = s;
        }
    }
    return best;
}

/* Improve row [stage] by stages whose scratch limit is `limit`, from the row before. */
static void relax_leanest(const struct problem *problem, size_t stage, uint64_t limit,
                          const uint64_t *class_bytes, const struct lean_cell *before,
                          struct lean_cell *row)
{
    for (size_t first = stage; first < problem->layer_count; first++) {
        uint64_t so_far = stage == 0 ? (first == 0 ? 0 : UINT64_MAX) : before[first].bytes;
        if (so_far == UINT64_MAX)
            continue;
        uint64_t bytes = problem->fixed_bytes + limit;
        for (size_t end = first + 1; end <= problem->layer_count; end++) {
            uint64_t own = class_bytes[problem->layer_class[end - 1]];
            if (own == UINT64_MAX)
                break;
            bytes += own;
            uint64_t peak = bytes > so_far ? bytes : so_far;
            if (peak < row[end].bytes)
                row[end] = (struct lean_cell){peak, first, limit};
        }
    }
}

static void read_leanest(const struct problem *problem, const struct lean_cell *cells,
                         struct assignment *out)
{
    size_t width = problem->layer_count + 1;
    size_t end = problem->layer_count;
    for (size_t stage = problem->stages; stage-- > 0;) {
        const struct lean_cell *cell = &cells[stage * width + end];
        for (size_t layer = cell->first; layer < end; layer++) {
            uint64_t bytes;
            out->stages[layer] = stage;
            out->strategies[layer] = leanest_strategy(problem, stage, problem->layer_class[layer],
                                                      cell->scratch_bytes, &bytes);
        }
        end = cell->first;
    }
}

/* A stage's peak is its sum plus its largest scratch: try every scratch size as the limit. */
static void fill_leanest(const struct problem *problem, size_t stage, uint64_t *class_bytes,
                         struct lean_cell *cells)
{
    size_t width = problem->layer_count + 1;
    for (size_t c = 0; c < problem->class_count; c++) {
        for (size_t s = 0; s < problem->classes[c].strategy_count; s++) {
            uint64_t limit = problem->classes[c].strategies[s].scratch_bytes;
            for (size_t other = 0; other < problem->class_count; other++)
                leanest_strategy(problem, stage, other, limit, &class_bytes[other]);
            relax_leanest(problem, stage, limit, class_bytes,
                          stage > 0 ? &cells[(stage - 1) * width] : NULL, &cells[stage * width]);
        }
    }
}

enum status problem_leanest(const struct problem *problem, uint64_t *bytes,
                            struct assignment *assignment, struct error *err)
{
    size_t width = problem->layer_count + 1;
    size_t cell_count = problem->stages * width;
    struct lean_cell *cells = malloc(cell_count * sizeof(*cells));
    uint64_t *class_bytes = malloc(problem->class_count * sizeof(*class_bytes));
    enum status status = STATUS_OK;
    if (!cells || !class_bytes) {
        status = error_memory(err, cell_count * sizeof(*cells), "the leanest plan");
        goto free_cells;
    }
    for (size_t i = 0; i < cell_count; i++)
        cells[i] = (struct lean_cell){.bytes = UINT64_MAX};
    for (size_t stage = 0; stage < problem->stages; stage++)
        fill_leanest(problem, stage, class_bytes, cells);
    *bytes = cells[cell_count - 1].bytes;
    assert(*bytes != UINT64_MAX);
    if (assignment)
        read_leanest(problem, cells, assignment);
free_cells:
    free(class_bytes);
    free(cells);
    return status;
}
