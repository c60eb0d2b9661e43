#include "planner/columns.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LABELS_MAX = 20000000, LABELS_BETWEEN_CHECKS = 1024 };

#define NO_NODE   SIZE_MAX
#define NO_PARENT UINT32_MAX

/* One sequence of classes: the labels of every interval that shows it. */
struct node {
    size_t parent, class;
    size_t first;   /* of its intervals; the others by next_like */
    size_t sibling; /* the next of the same parent */
    size_t label_first, label_count;
    /* The loosest bound outside the partial stage, over its places. */
    double contexts[BOUND_VIEWS][MULTIPLIERS_MAX];
    uint64_t rest_bytes; /* least over its places */
    double rest_spend;   /* likewise, of all other layers */
};

struct candidate {
    struct label label;
    size_t group;                 /* labels of different groups do not dominate each other */
    double send_cost, send_spend; /* were its last layer the stage's last */
};

struct candidates {
    struct candidate *items;
    size_t count, capacity;
};

/* Generation for one stage at one level of scratch. */
struct generation {
    const struct problem *problem;
    const struct bounds *bounds;
    const struct stage_bounds *at;
    const struct column_options *options;
    size_t stage;
    struct columns *out;
    struct candidates candidates;
    size_t *by_cost; /* [by_cost_capacity], owned: see drop_dominated */
    size_t by_cost_capacity;
    struct node *nodes, *next_nodes; /* [layer_count] each: a level has no more sequences */
    size_t node_count, next_count;
    size_t *node_of_first, *next_of_first; /* [layer_count]: where the interval from here stands */
    size_t *children;                      /* [layer_count]: each node's first among next_nodes */
    size_t *next_like; /* [layer_count]: the next interval of the same sequence */
};

/* ---- growing arrays ---- */

static enum status grow(void **items, size_t *capacity, size_t needed, size_t item_bytes,
                        struct error *err)
{
    if (needed <= *capacity)
        return STATUS_OK;
    size_t wanted = *capacity < 256 ? 256 : *capacity;
    while (wanted < needed)
        wanted *= 2;
    void *grown = realloc(*items, wanted * item_bytes);
    if (!grown)
        return error_memory(err, wanted * item_bytes, "the search's columns");
    *items = grown;
    *capacity = wanted;
    return STATUS_OK;
}

static enum status push_candidate(struct candidates *to, const struct candidate *item,
                                  struct error *err)
{
    void *items = to->items;
    enum status status = grow(&items, &to->capacity, to->count + 1, sizeof(*item), err);
    to->items = items;
    if (status == STATUS_OK)
        to->items[to->count++] = *item;
    return status;
}

static enum status push_labels(struct columns *to, const struct candidates *from, struct error *err)
{
    void *labels = to->labels;
    enum status status = grow(&labels, &to->label_capacity, to->label_count + from->count,
                              sizeof(struct label), err);
    to->labels = labels;
    for (size_t i = 0; status == STATUS_OK && i < from->count; i++)
        to->labels[to->label_count++] = from->items[i].label;
    return status;
}

static enum status push_column(struct columns *to, const struct column *column, struct error *err)
{
    void *items = to->items;
    enum status status = grow(&items, &to->capacity, to->count + 1, sizeof(*column), err);
    to->items = items;
    if (status == STATUS_OK)
        to->items[to->count++] = *column;
    return status;
}

/* ---- dominance ---- */

static int compare_candidates(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->label.sums.bytes != y->label.sums.bytes)
        return x->label.sums.bytes < y->label.sums.bytes ? -1 : 1;
    if (x->label.sums.cost < y->label.sums.cost || x->label.sums.cost > y->label.sums.cost)
        return x->label.sums.cost < y->label.sums.cost ? -1 : 1;
    return 0;
}

/* Given that a has no more bytes than b: can a replace b in any solution without loss? The other
 * stages' maxima may hide what b saves, never what a adds; the stage may end here or go on. */
static bool exchange_dominates(const struct problem *problem, const struct candidate *a,
                               const struct candidate *b)
{
    const struct partial *x = &a->label.sums, *y = &b->label.sums;
    double change = x->cost - y->cost;
    double tau = x->tau > y->tau ? x->tau - y->tau : 0;
    double gamma = x->gamma > y->gamma ? x->gamma - y->gamma : 0;
    if (a->send_cost > b->send_cost)
        change += a->send_cost - b->send_cost;
    if (change + problem->weight_tau * tau + problem->weight_gamma * gamma > 0)
        return false;
    if (a->label.scratch_bytes > b->label.scratch_bytes &&
        a->label.scratch_bytes - b->label.scratch_bytes > y->bytes - x->bytes)
        return false;
    if (!problem_has_budget(problem))
        return true;
    double spend = x->spend - y->spend;
    if (a->send_spend > b->send_spend)
        spend += a->send_spend - b->send_spend;
    return spend + problem->spend_tau * tau + problem->spend_gamma * gamma <= 0;
}

/* Sort by group and bytes and keep what no other of its group dominates. Only what costs no more
 * can dominate: `by_cost` holds the kept ones of the group, the cheapest last, and what holds more
 * bytes is mostly cheaper, so that few are compared. */
static enum status drop_dominated(struct generation *gen, struct error *err)
{
    struct candidates *set = &gen->candidates;
    size_t kept = 0, count = 0;
    if (set->count > gen->by_cost_capacity) {
        size_t *grown = realloc(gen->by_cost, set->capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, set->capacity * sizeof(*grown), "the search's columns");
        gen->by_cost = grown;
        gen->by_cost_capacity = set->capacity;
    }
    if (set->count > 1)
        qsort(set->items, set->count, sizeof(*set->items), compare_candidates);
    size_t *by_cost = gen->by_cost;
    for (size_t i = 0; i < set->count; i++) {
        const struct candidate item = set->items[i];
        double cost = item.label.sums.cost;
        bool beaten = false;
        if (count > 0 && set->items[by_cost[0]].group != item.group)
            count = 0;
        for (size_t k = count; k-- > 0 && !beaten;) {
            const struct candidate *other = &set->items[by_cost[k]];
            if (other->label.sums.cost > cost)
                break;
            beaten = exchange_dominates(gen->problem, other, &item);
        }
        if (beaten)
            continue;
        size_t at = count++;
        for (; at > 0 && set->items[by_cost[at - 1]].label.sums.cost < cost; at--)
            by_cost[at] = by_cost[at - 1];
        by_cost[at] = kept;
        set->items[kept++] = item;
    }
    set->count = kept;
    return STATUS_OK;
}

static double relaxed_cost(const struct generation *gen, const struct candidate *item)
{
    return bounds_relaxed(gen->bounds, gen->stage, VIEW_MEAN, gen->at->multipliers[0],
                          &item->label.sums);
}

/* Keep the leanest label of a group and of every memory bucket the best by its relaxed cost; writes
 * to `out`, which may be `first`, and returns how many. */
static size_t thin_by_memory(const struct generation *gen, const struct candidate *first,
                             const struct candidate *end, struct candidate *out)
{
    uint64_t low = first->label.sums.bytes, high = (end - 1)->label.sums.bytes;
    double width = (double)(high - low + 1), best = INFINITY;
    size_t bucket_last = SIZE_MAX, kept = 0;
    out[kept++] = *first;
    for (const struct candidate *item = first + 1; item < end; item++) {
        double place = (double)(item->label.sums.bytes - low) / width;
        size_t bucket = (size_t)(place * (double)gen->options->buckets);
        double cost = relaxed_cost(gen, item);
        if (bucket == bucket_last && cost >= best)
            continue;
        out[bucket == bucket_last ? kept - 1 : kept++] = *item;
        bucket_last = bucket;
        best = cost;
    }
    return kept;
}

enum { BUDGET_SIDE_MAX = 12 };

/* Which of `count` equal parts of low .. high the value is in. */
static size_t bucket_of(double value, double low, double high, size_t count)
{
    double place = high > low ? (value - low) / (high - low) * (double)count : 0;
    size_t bucket = place > 0 ? (size_t)place : 0;
    return bucket < count ? bucket : count - 1;
}

/* With a budget: the leanest, the thriftiest, and the best of every bucket of memory and spending.
 */
static size_t thin_by_budget(const struct generation *gen, const struct candidate *first,
                             const struct candidate *end, struct candidate *out)
{
    const struct candidate *best[BUDGET_SIDE_MAX * BUDGET_SIDE_MAX + 2] = {NULL};
    size_t side = (size_t)sqrt((double)gen->options->buckets);
    side = side < BUDGET_SIDE_MAX ? side : BUDGET_SIDE_MAX;
    const size_t leanest = side * side, thriftiest = leanest + 1;
    double low = (double)first->label.sums.bytes, high = (double)(end - 1)->label.sums.bytes;
    double least = INFINITY, most = -INFINITY;
    best[leanest] = best[thriftiest] = first;
    for (const struct candidate *item = first; item < end; item++) {
        if (item->label.sums.spend < least)
            best[thriftiest] = item;
        least = fmin(least, item->label.sums.spend);
        most = fmax(most, item->label.sums.spend);
    }
    for (const struct candidate *item = first; item < end; item++) {
        size_t row = bucket_of((double)item->label.sums.bytes, low, high, side);
        size_t cell = row * side + bucket_of(item->label.sums.spend, least, most, side);
        if (!best[cell] || relaxed_cost(gen, item) < relaxed_cost(gen, best[cell]))
            best[cell] = item;
    }
    size_t kept = 0;
    for (const struct candidate *item = first; item < end; item++) {
        bool is_best = false;
        for (size_t i = 0; i <= thriftiest && !is_best; i++)
            is_best = best[i] == item;
        if (is_best)
            out[kept++] = *item; /* never ahead of `item` */
    }
    return kept;
}

static size_t thin_group(const struct generation *gen, const struct candidate *first,
                         const struct candidate *end, struct candidate *out)
{
    return problem_has_budget(gen->problem) ? thin_by_budget(gen, first, end, out)
                                            : thin_by_memory(gen, first, end, out);
}

static void thin(const struct generation *gen, struct candidates *set)
{
    const struct candidate *first = set->items, *last = set->items + set->count;
    size_t kept = 0;
    while (first < last) {
        const struct candidate *end = first + 1;
        while (end < last && end->group == first->group)
            end++;
        kept += thin_group(gen, first, end, set->items + kept);
        first = end;
    }
    set->count = kept;
}

/* ---- labels ---- */

/* What the label's stage holds, its scratch beyond the level's lower end included. */
static uint64_t label_bytes(const struct label *label)
{
    return label->sums.bytes + label->scratch_bytes;
}

static bool node_prunes(const struct generation *gen, const struct node *node,
                        const struct label *label)
{
    const struct problem *problem = gen->problem;
    const struct partial *sums = &label->sums;
    uint64_t bytes = label_bytes(label);
    if (bytes > gen->at->slack_bytes || node->rest_bytes > gen->at->slack_bytes - bytes)
        return true;
    if (problem_has_budget(problem) &&
        !problem_affords(problem, node->rest_spend + sums->spend + problem->spend_tau * sums->tau +
                                      problem->spend_gamma * sums->gamma))
        return true;
    struct partial held = *sums;
    held.bytes = bytes;
    for (size_t view = 0; view < gen->bounds->view_count; view++) {
        double base = bounds_relaxed(gen->bounds, gen->stage, (int)view, 0, &held);
        for (size_t m = 0; m < gen->at->multiplier_count; m++) {
            double bound = node->contexts[view][m] + gen->at->constants[m] + base +
                           gen->at->multipliers[m] * (double)bytes;
            if (bound >= gen->options->threshold)
                return true;
        }
    }
    return false;
}

static struct partial extend_sums(const struct generation *gen, const struct partial *before,
                                  const struct strategy *strategy, const struct transition *change)
{
    const struct problem *problem = gen->problem;
    const struct stage_terms terms = problem_stage_terms(problem, gen->stage, strategy);
    double tau = terms.tau;
    struct partial sums = *before;
    if (change)
        tau += problem_transition_tau(problem, gen->stage, change);
    sums.cost += terms.cost + (change ? change->cost : 0);
    sums.spend += terms.spend + (change ? change->spend : 0);
    sums.bytes += terms.bytes;
    if (problem->stages == 1) {
        sums.cost += problem->weight_tau * tau + problem->weight_gamma * terms.gamma;
        sums.spend += problem->spend_tau * tau + problem->spend_gamma * terms.gamma;
    } else {
        sums.tau += tau;
        sums.gamma += terms.gamma;
    }
    return sums;
}

static uint64_t extend_scratch(const struct generation *gen, uint64_t before,
                               const struct strategy *strategy)
{
    uint64_t low = gen->at->level.low_bytes;
    uint64_t own = strategy->scratch_bytes > low ? strategy->scratch_bytes - low : 0;
    return own > before ? own : before;
}

static bool out_of_budget(struct generation *gen)
{
    size_t most = gen->options->labels_most > 0 ? gen->options->labels_most : LABELS_MAX;
    if (gen->out->label_count > most ||
        gen->out->label_count + gen->candidates.count > LABELS_MAX ||
        limits_reached(gen->options->limits))
        gen->out->incomplete = true;
    return gen->out->incomplete;
}

/* What follows depends on the last strategy's group and on which traits are still missing. */
static size_t label_group(const struct problem *problem, const struct strategy *last,
                          const struct label *label)
{
    size_t group = problem->transitions ? last->group : 0;
    return group * PROBLEM_TRAIT_SETS + (problem->needs & label->traits);
}

/* One label followed by every admitted strategy of the node's class. */
static enum status extend_label(struct generation *gen, const struct node *parent, size_t index,
                                const struct node *node, struct error *err)
{
    const struct problem *problem = gen->problem;
    const struct label before = gen->out->labels[index];
    const struct layer_class *class = problem_class(problem, gen->stage, node->class);
    const struct admitted *admitted = &gen->at->admitted[node->class];
    const struct strategy *last = NULL;
    bool is_last_stage = gen->stage + 1 == problem->stages;
    if (before.parent != NO_PARENT)
        last = &problem_class(problem, gen->stage, parent->class)->strategies[before.strategy];
    for (size_t a = 0; a < admitted->count; a++) {
        size_t s = admitted->strategies[a];
        const struct strategy *strategy = &class->strategies[s];
        const struct transition *change =
            last ? problem_transition(problem, gen->stage, last, class, strategy) : NULL;
        struct candidate item = {
            .label = {.sums = extend_sums(gen, &before.sums, strategy, change),
                      .scratch_bytes = extend_scratch(gen, before.scratch_bytes, strategy),
                      .parent = (uint32_t)index,
                      .strategy = (uint32_t)s,
                      .traits = before.traits | strategy->traits},
            .send_cost = is_last_stage ? 0 : strategy->send_cost,
            .send_spend = is_last_stage ? 0 : strategy->send_spend};
        item.group = label_group(problem, strategy, &item.label);
        if (!node_prunes(gen, node, &item.label))
            TRY(push_candidate(&gen->candidates, &item, err));
    }
    return STATUS_OK;
}

/* The labels of the node's sequence, from its parent's. */
static enum status extend_node(struct generation *gen, const struct node *parent, struct node *node,
                               struct error *err)
{
    gen->candidates.count = 0;
    for (size_t i = 0; i < parent->label_count; i++) {
        if (i % LABELS_BETWEEN_CHECKS == 0 && out_of_budget(gen))
            return STATUS_OK;
        TRY(extend_label(gen, parent, parent->label_first + i, node, err));
    }
    TRY(drop_dominated(gen, err));
    if (gen->options->buckets > 0)
        thin(gen, &gen->candidates);
    node->label_first = gen->out->label_count;
    node->label_count = gen->candidates.count;
    return push_labels(gen->out, &gen->candidates, err);
}

/* ---- columns ---- */

/* No solution with this finished stage is below the threshold, or it spends too much. */
static bool interval_prunes(const struct generation *gen, size_t first, size_t end,
                            const double *outside, const struct partial *charged)
{
    const struct problem *problem = gen->problem;
    if (problem_has_budget(problem) &&
        bounds_overspends(gen->bounds, first, end,
                          charged->spend + problem->spend_tau * charged->tau +
                              problem->spend_gamma * charged->gamma))
        return true;
    for (size_t view = 0; view < gen->bounds->view_count; view++) {
        if (outside[view] + bounds_relaxed(gen->bounds, gen->stage, (int)view, 0, charged) >=
            gen->options->threshold)
            return true;
    }
    return false;
}

static enum status emit_interval(struct generation *gen, size_t first, size_t end,
                                 struct error *err)
{
    double outside[BOUND_VIEWS];
    for (size_t view = 0; view < gen->bounds->view_count; view++)
        outside[view] = bounds_outside(gen->bounds, (int)view, gen->stage, first, end);
    for (size_t i = 0; i < gen->candidates.count; i++) {
        const struct candidate *item = &gen->candidates.items[i];
        const struct partial *sums = &item->label.sums;
        struct partial charged = *sums;
        charged.bytes = label_bytes(&item->label) + gen->at->level.low_bytes +
                        gen->problem->rules[gen->stage].fixed_bytes;
        if (interval_prunes(gen, first, end, outside, &charged))
            continue;
        const struct column column = {.stage = gen->stage,
                                      .first = first,
                                      .end = end,
                                      .cost = sums->cost,
                                      .tau = sums->tau,
                                      .gamma = sums->gamma,
                                      .spend = sums->spend,
                                      .peak_bytes = charged.bytes,
                                      .label = item->label.parent,
                                      .traits = item->label.traits};
        TRY(push_column(gen->out, &column, err));
    }
    return STATUS_OK;
}

static bool is_interval(const struct generation *gen, size_t first, size_t end)
{
    return bounds_outside(gen->bounds, VIEW_MEAN, gen->stage, first, end) < INFINITY;
}

/* The node's labels as finished stages: `parent` of a candidate is the finished label itself. */
static enum status finish_labels(struct generation *gen, const struct node *node, struct error *err)
{
    const struct problem *problem = gen->problem;
    const struct strategy *strategies = problem_class(problem, gen->stage, node->class)->strategies;
    gen->candidates.count = 0;
    for (size_t i = 0; i < node->label_count; i++) {
        struct candidate item = {.label = gen->out->labels[node->label_first + i]};
        const struct strategy *last = &strategies[item.label.strategy];
        item.label.parent = (uint32_t)(node->label_first + i);
        item.group = problem->needs & item.label.traits;
        if (problem->stages == 1 && (problem->needs & ~item.label.traits) != 0)
            continue;
        if (gen->stage + 1 < problem->stages) {
            item.label.sums.cost += last->send_cost;
            item.label.sums.spend += last->send_spend;
        }
        TRY(push_candidate(&gen->candidates, &item, err));
    }
    return drop_dominated(gen, err);
}

/* Columns of every interval of this length that shows the node's sequence. */
static enum status emit_node(struct generation *gen, const struct node *node, size_t length,
                             struct error *err)
{
    bool is_finished = false;
    for (size_t first = node->first; first != NO_NODE; first = gen->next_like[first]) {
        if (!is_interval(gen, first, first + length))
            continue;
        if (!is_finished)
            TRY(finish_labels(gen, node, err));
        is_finished = true;
        TRY(emit_interval(gen, first, first + length, err));
    }
    return STATUS_OK;
}

/* ---- the tree of sequences ---- */

static size_t child_node(struct generation *gen, size_t parent, size_t class)
{
    for (size_t i = gen->children[parent]; i != NO_NODE; i = gen->next_nodes[i].sibling) {
        if (gen->next_nodes[i].class == class)
            return i;
    }
    struct node *node = &gen->next_nodes[gen->next_count];
    *node = (struct node){.parent = parent,
                          .class = class,
                          .first = NO_NODE,
                          .sibling = gen->children[parent],
                          .rest_bytes = UINT64_MAX,
                          .rest_spend = INFINITY};
    for (int i = 0; i < BOUND_VIEWS * MULTIPLIERS_MAX; i++)
        node->contexts[i / MULTIPLIERS_MAX][i % MULTIPLIERS_MAX] = INFINITY;
    gen->children[parent] = gen->next_count;
    return gen->next_count++;
}

/* The interval is one more place of the node: its bounds are the loosest of all. */
static void add_place(struct generation *gen, struct node *node, size_t first, size_t end)
{
    size_t last = gen->problem->layer_count, width = last + 1;
    const double *spend = gen->bounds->spend_before;
    for (size_t view = 0; view < gen->bounds->view_count; view++) {
        double before = gen->bounds->prefix[view][gen->stage * width + first];
        for (size_t m = 0; m < gen->at->multiplier_count; m++) {
            double after = bounds_rest(gen->bounds, gen->at, (int)view, m)[end];
            node->contexts[view][m] = fmin(node->contexts[view][m], before + after);
        }
    }
    if (gen->at->rest_bytes[end] < node->rest_bytes)
        node->rest_bytes = gen->at->rest_bytes[end];
    node->rest_spend = fmin(node->rest_spend, spend[first] + spend[last] - spend[end]);
    gen->next_like[first] = node->first;
    node->first = first;
}

/* Children of this level's nodes, with all places where they occur. */
static void find_children(struct generation *gen, size_t length)
{
    const struct problem *problem = gen->problem;
    gen->next_count = 0;
    for (size_t i = 0; i < gen->node_count; i++)
        gen->children[i] = NO_NODE;
    for (size_t first = problem->layer_count; first-- > 0;) {
        size_t end = first + length, parent = gen->node_of_first[first];
        gen->next_of_first[first] = NO_NODE;
        if (parent == NO_NODE || end > problem->layer_count || gen->nodes[parent].label_count == 0)
            continue;
        size_t index = child_node(gen, parent, problem->layer_class[end - 1]);
        gen->next_of_first[first] = index;
        add_place(gen, &gen->next_nodes[index], first, end);
    }
}

static enum status generate_level(struct generation *gen, size_t length, struct error *err)
{
    find_children(gen, length);
    for (size_t i = 0; i < gen->next_count && !gen->out->incomplete; i++) {
        struct node *node = &gen->next_nodes[i];
        TRY(extend_node(gen, &gen->nodes[node->parent], node, err));
        if (!gen->out->incomplete)
            TRY(emit_node(gen, node, length, err));
    }
    struct node *nodes = gen->nodes;
    size_t *places = gen->node_of_first;
    gen->nodes = gen->next_nodes;
    gen->next_nodes = nodes;
    gen->node_of_first = gen->next_of_first;
    gen->next_of_first = places;
    gen->node_count = gen->next_count;
    return STATUS_OK;
}

static enum status generate_stage(struct generation *gen, struct error *err)
{
    const struct problem *problem = gen->problem;
    size_t width = problem->layer_count + 1;
    const struct candidate root = {.label = {.parent = NO_PARENT}};
    gen->candidates.count = 0;
    TRY(push_candidate(&gen->candidates, &root, err));
    gen->nodes[0] = (struct node){.label_first = gen->out->label_count, .label_count = 1};
    gen->node_count = 1;
    TRY(push_labels(gen->out, &gen->candidates, err));
    for (size_t first = 0; first < problem->layer_count; first++) {
        bool possible = gen->bounds->prefix[VIEW_MEAN][gen->stage * width + first] < INFINITY;
        gen->node_of_first[first] = possible ? 0 : NO_NODE;
    }
    for (size_t length = 1; length <= problem->layer_count && gen->node_count > 0; length++) {
        TRY(generate_level(gen, length, err));
        if (gen->out->incomplete)
            break;
    }
    return STATUS_OK;
}

/* ---- all ---- */

enum status columns_generate(const struct bounds *bounds, const struct column_options *options,
                             struct columns *out, struct error *err)
{
    size_t layers = bounds->problem->layer_count;
    struct generation gen = {
        .problem = bounds->problem,
        .bounds = bounds,
        .options = options,
        .out = out,
        .nodes = calloc(layers, sizeof(*gen.nodes)),
        .next_nodes = calloc(layers, sizeof(*gen.nodes)),
        .node_of_first = malloc(layers * sizeof(*gen.node_of_first)),
        .next_of_first = malloc(layers * sizeof(*gen.node_of_first)),
        .children = malloc(layers * sizeof(*gen.children)),
        .next_like = malloc(layers * sizeof(*gen.next_like)),
    };
    enum status status = STATUS_OK;
    if (!gen.nodes || !gen.next_nodes || !gen.node_of_first || !gen.next_of_first ||
        !gen.children || !gen.next_like)
        status = error_memory(err, 2 * layers * sizeof(*gen.nodes), "the search's columns");
    for (size_t i = 0; status == STATUS_OK && i < bounds->stage_count && !out->incomplete; i++) {
        gen.at = &bounds->stages[i];
        gen.stage = i / bounds->level_count;
        if (gen.at->multiplier_count > 0)
            status = generate_stage(&gen, err);
    }
    free(gen.next_like);
    free(gen.children);
    free(gen.next_of_first);
    free(gen.node_of_first);
    free(gen.next_nodes);
    free(gen.nodes);
    free(gen.candidates.items);
    free(gen.by_cost);
    return status;
}

void column_assign(const struct columns *columns, const struct column *column,
                   struct assignment *out)
{
    uint32_t label = column->label;
    for (size_t layer = column->end; layer-- > column->first;) {
        out->strategies[layer] = columns->labels[label].strategy;
        out->stages[layer] = column->stage;
        label = columns->labels[label].parent;
    }
}

void columns_free(struct columns *columns)
{
    free(columns->labels);
    free(columns->items);
    *columns = (struct columns){0};
}
