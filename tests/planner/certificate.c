#include "certificate.h"
#include <math.h>
#include <stdlib.h>

/* The first layers of the chain. */
struct prefix {
    size_t stage, group;
    unsigned traits;
    double cost, spend;
    double tau, gamma;           /* of the stage that is open */
    double tau_most, gamma_most; /* of all stages so far, the open one included */
    double tau_sum, gamma_sum;   /* of all stages so far */
    uint64_t bytes, scratch;     /* of the open stage, its fixed bytes included */
    uint64_t peak;               /* of all stages so far */
};

struct list {
    struct prefix *items; /* owned */
    size_t count, capacity;
};

struct proof {
    const struct problem *problem;
    double threshold;
    bool tau_matters, gamma_matters, memory_matters, budget_matters;
    double *rest_cost; /* [layer_count + 1]: the least cost of the layers from here, alone */
    double *rest_mean; /* the same with the maxima's weights spread over the stages */
    double *rest_spend;
};

static void append(struct list *list, const struct prefix *item)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 64;
        list->items = realloc(list->items, list->capacity * sizeof(*list->items));
        if (!list->items)
            abort();
    }
    list->items[list->count++] = *item;
}

/* ---- the least that layers add ---- */

static void fill_rest(struct proof *proof)
{
    const struct problem *problem = proof->problem;
    double tau_mean = problem->weight_tau / (double)problem->stages;
    double gamma_mean = problem->weight_gamma / (double)problem->stages;
    size_t last = problem->layer_count;
    proof->rest_cost[last] = proof->rest_mean[last] = proof->rest_spend[last] = 0;
    for (size_t l = last; l-- > 0;) {
        double cost = INFINITY, mean = INFINITY, spend = INFINITY;
        for (size_t p = 0; p < problem->stages; p++) {
            const struct stage_rule *rule = &problem->rules[p];
            const struct layer_class *of =
                &problem->classes[rule->place * problem->class_count + problem->layer_class[l]];
            for (size_t i = 0; i < of->strategy_count; i++) {
                const struct strategy *s = &of->strategies[i];
                double tau = s->tau - rule->warm_up * s->head;
                cost = fmin(cost, s->cost);
                mean = fmin(mean, s->cost + tau_mean * tau + gamma_mean * s->gamma);
                spend = fmin(spend, s->spend);
            }
        }
        proof->rest_cost[l] = proof->rest_cost[l + 1] + cost;
        proof->rest_mean[l] = proof->rest_mean[l + 1] + mean;
        proof->rest_spend[l] = proof->rest_spend[l + 1] + spend;
    }
}

/* What the prefix of layers before `end` is sure to come to is the threshold or more, or too much
 * for a cap or the budget. */
static bool is_hopeless(const struct proof *proof, const struct prefix *prefix, size_t end)
{
    const struct problem *problem = proof->problem;
    double stages = (double)problem->stages;
    double memory = problem->weight_memory * (double)prefix->peak;
    if (prefix->bytes + prefix->scratch > problem->rules[prefix->stage].cap_bytes)
        return true;
    double spend = prefix->spend + proof->rest_spend[end] + problem->spend_tau * prefix->tau_most +
                   problem->spend_gamma * prefix->gamma_most;
    if (proof->budget_matters && spend > problem->spend_cap + 2e-9 * fabs(problem->spend_cap))
        return true;
    double by_most = prefix->cost + proof->rest_cost[end] + problem->weight_tau * prefix->tau_most +
                     problem->weight_gamma * prefix->gamma_most;
    double by_mean = prefix->cost + proof->rest_mean[end] +
                     problem->weight_tau / stages * prefix->tau_sum +
                     problem->weight_gamma / stages * prefix->gamma_sum;
    return fmax(by_most, by_mean) + memory >= proof->threshold;
}

/* ---- dominance ---- */

static bool is_no_worse(const struct proof *proof, const struct prefix *a, const struct prefix *b)
{
    if (a->cost > b->cost || (proof->problem->needs & b->traits & ~a->traits) != 0)
        return false;
    if (proof->budget_matters && a->spend > b->spend)
        return false;
    if (proof->tau_matters && (a->tau > b->tau || a->tau_most > b->tau_most))
        return false;
    if (proof->gamma_matters && (a->gamma > b->gamma || a->gamma_most > b->gamma_most))
        return false;
    return !proof->memory_matters ||
           (a->bytes <= b->bytes && a->scratch <= b->scratch && a->peak <= b->peak);
}

static int by_place_and_cost(const void *a, const void *b)
{
    const struct prefix *x = a, *y = b;
    if (x->stage != y->stage)
        return x->stage < y->stage ? -1 : 1;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->cost < y->cost || x->cost > y->cost)
        return x->cost < y->cost ? -1 : 1;
    return (x->tau_most > y->tau_most) - (x->tau_most < y->tau_most);
}

static void keep_the_best(const struct proof *proof, struct list *list)
{
    size_t kept = 0, first = 0;
    if (list->count > 1)
        qsort(list->items, list->count, sizeof(*list->items), by_place_and_cost);
    for (size_t i = 0; i < list->count; i++) {
        const struct prefix item = list->items[i];
        bool is_beaten = false;
        if (kept > first &&
            (list->items[first].stage != item.stage || list->items[first].group != item.group))
            first = kept;
        for (size_t k = first; k < kept && !is_beaten; k++)
            is_beaten = is_no_worse(proof, &list->items[k], &item);
        if (!is_beaten)
            list->items[kept++] = item;
    }
    list->count = kept;
}

/* ---- one layer more ---- */

/* `before`: NULL where the layer opens its stage or nothing before it matters. */
static struct prefix with_layer(const struct proof *proof, const struct prefix *prefix,
                                const struct strategy *s, const struct strategy *before)
{
    const struct problem *problem = proof->problem;
    const struct stage_rule *rule = &problem->rules[prefix->stage];
    struct prefix next = *prefix;
    double tau = s->tau - rule->warm_up * s->head;
    next.cost += s->cost;
    next.spend += s->spend;
    if (prefix->stage == 0) {
        next.cost += s->first_cost;
        next.spend += s->first_spend;
    }
    if (before && problem->transitions) {
        size_t groups = problem->group_count;
        const struct transition *change =
            &problem
                 ->transitions[rule->place * groups * groups + before->group * groups + s->group];
        next.cost += change->cost;
        next.spend += change->spend;
        tau += change->tau - rule->warm_up * change->head;
    }
    next.tau += tau;
    next.tau_sum += tau;
    next.gamma += s->gamma;
    next.gamma_sum += s->gamma;
    next.bytes += s->static_bytes + rule->in_flight * s->inflight_bytes;
    next.scratch = s->scratch_bytes > next.scratch ? s->scratch_bytes : next.scratch;
    next.tau_most = fmax(next.tau_most, next.tau);
    next.gamma_most = fmax(next.gamma_most, next.gamma);
    if (next.bytes + next.scratch > next.peak)
        next.peak = next.bytes + next.scratch;
    next.traits |= s->traits;
    next.group = s->group;
    return next;
}

/* A layer's place in the list of prefixes carries its last strategy only as far as the future reads
 * it: the group. So sending is charged when the layer is added and closes its stage. */
static void add_layer(const struct proof *proof, const struct prefix *prefix, size_t layer,
                      bool opens, struct list *out)
{
    const struct problem *problem = proof->problem;
    struct prefix from = *prefix;
    if (opens) {
        from.tau = from.gamma = 0;
        from.bytes = problem->rules[from.stage].fixed_bytes;
        from.scratch = 0;
    }
    const struct layer_class *of =
        &problem->classes[problem->rules[from.stage].place * problem->class_count +
                          problem->layer_class[layer]];
    const struct strategy before = {.group = prefix->group};
    bool has_neighbour = !opens && !of->follows_nothing;
    size_t end = problem->rules[from.stage].end;
    bool must_stay = end > 0 && layer + 1 < end, must_close = end == layer + 1;
    bool is_last = layer + 1 == problem->layer_count;
    for (size_t i = 0; i < of->strategy_count; i++) {
        const struct strategy *s = &of->strategies[i];
        if (isinf(s->cost))
            continue;
        struct prefix next = with_layer(proof, &from, s, has_neighbour ? &before : NULL);
        if (!must_close || is_last) {
            if (!is_hopeless(proof, &next, layer + 1))
                append(out, &next);
        }
        if (is_last || must_stay || from.stage + 1 == problem->stages)
            continue;
        next.cost += s->send_cost;
        next.spend += s->send_spend;
        if (is_hopeless(proof, &next, layer + 1))
            continue;
        next.stage++; /* its layers begin with the next: `opens` */
        next.tau = next.gamma = 0;
        next.bytes = next.scratch = 0;
        next.group = SIZE_MAX;
        append(out, &next);
    }
}

/* A prefix whose group is SIZE_MAX stands before the first layer of its stage. */
static void add_to_all(const struct proof *proof, const struct list *from, size_t layer,
                       struct list *out)
{
    out->count = 0;
    for (size_t i = 0; i < from->count; i++)
        add_layer(proof, &from->items[i], layer, from->items[i].group == SIZE_MAX, out);
}

/* ---- the whole chain ---- */

static double least_value(const struct proof *proof, const struct list *list)
{
    const struct problem *problem = proof->problem;
    double least = INFINITY;
    for (size_t i = 0; i < list->count; i++) {
        const struct prefix *all = &list->items[i];
        double spend = all->spend + problem->spend_tau * all->tau_most +
                       problem->spend_gamma * all->gamma_most;
        if (all->stage + 1 != problem->stages || all->group == SIZE_MAX ||
            (problem->needs & ~all->traits) != 0 ||
            (proof->budget_matters && spend > problem->spend_cap + 1e-9 * fabs(problem->spend_cap)))
            continue;
        least = fmin(least, all->cost + problem->weight_tau * all->tau_most +
                                problem->weight_gamma * all->gamma_most +
                                problem->weight_memory * (double)all->peak);
    }
    return least;
}

static struct certificate run(const struct proof *proof, size_t labels_most)
{
    const struct problem *problem = proof->problem;
    struct list lists[2] = {{0}, {0}};
    struct certificate out = {.verdict = VERDICT_NONE_BELOW, .value = INFINITY};
    const struct prefix start = {.group = SIZE_MAX, .cost = problem->fixed_cost};
    append(&lists[0], &start);
    for (size_t l = 0; l < problem->layer_count; l++) {
        struct list *next = &lists[(l + 1) % 2];
        add_to_all(proof, &lists[l % 2], l, next);
        if (next->count > 20 * labels_most)
            out.verdict = VERDICT_TOO_LARGE;
        else
            keep_the_best(proof, next);
        out.labels_peak = next->count > out.labels_peak ? next->count : out.labels_peak;
        if (next->count > labels_most)
            out.verdict = VERDICT_TOO_LARGE;
        if (out.verdict == VERDICT_TOO_LARGE)
            break;
    }
    double least = least_value(proof, &lists[problem->layer_count % 2]);
    if (out.verdict == VERDICT_NONE_BELOW && least < proof->threshold) {
        out.verdict = VERDICT_FOUND;
        out.value = least;
    }
    free(lists[0].items);
    free(lists[1].items);
    return out;
}

struct certificate certificate_check(const struct problem *problem, double value,
                                     size_t labels_most)
{
    size_t width = problem->layer_count + 1;
    bool has_budget = problem->spend_cap < INFINITY, has_cap = false;
    for (size_t p = 0; p < problem->stages; p++)
        has_cap |= problem->rules[p].cap_bytes != PROBLEM_NO_CAP;
    struct proof proof = {
        .problem = problem,
        .threshold = value,
        .tau_matters = problem->weight_tau > 0 || (has_budget && problem->spend_tau > 0),
        .gamma_matters = problem->weight_gamma > 0 || (has_budget && problem->spend_gamma > 0),
        .memory_matters = has_cap || problem->weight_memory > 0,
        .budget_matters = has_budget,
        .rest_cost = malloc(3 * width * sizeof(double)),
    };
    if (!proof.rest_cost)
        abort();
    proof.rest_mean = proof.rest_cost + width;
    proof.rest_spend = proof.rest_mean + width;
    fill_rest(&proof);
    struct certificate out = run(&proof, labels_most);
    free(proof.rest_cost);
    return out;
}
