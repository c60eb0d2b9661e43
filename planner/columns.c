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
    size_t label_first, label_count;
    double contexts[MULTIPLIERS_MAX]; /* loosest bound outside the partial stage, over its places */
    uint64_t rest_bytes;              /* least over its places */
};

struct candidate {
    struct label label;
    size_t group;     /* labels of different groups do not dominate each other */
    double send_cost; /* were its last layer the stage's last */
};

struct candidates {
    struct candidate *items;
    size_t count, capacity;
};

/* Generation for one stage at one scratch limit. */
struct generation {
    const struct problem *problem;
    const struct bounds *bounds;
    const struct stage_bounds *at;
    const struct column_options *options;
    size_t stage;
    struct columns *out;
    struct candidates candidates;
    struct node *nodes, *next_nodes; /* [layer_count] each: a level has no more sequences */
    size_t node_count, next_count;
    size_t *node_of_first, *next_of_first; /* [layer_count]: where the interval from here stands */
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
    if (a->send_cost > b->send_cost)
        change += a->send_cost - b->send_cost;
    if (x->tau > y->tau)
        change += problem->weight_tau * (x->tau - y->tau);
    if (x->gamma > y->gamma)
        change += problem->weight_gamma * (x->gamma - y->gamma);
    return change <= 0;
}

/* Sort by group and bytes and keep what no other of its group dominates. */
static void drop_dominated(const struct problem *problem, struct candidates *set)
{
    bool cost_alone = problem->stages == 1;
    if (set->count > 1)
        qsort(set->items, set->count, sizeof(*set->items), compare_candidates);
    size_t kept = 0, group_first = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct candidate *item = &set->items[i];
        if (kept > group_first && set->items[group_first].group != item->group)
            group_first = kept;
        /* By cost alone the cheapest so far is the last one kept. */
        size_t from = cost_alone && kept > group_first ? kept - 1 : group_first;
        bool beaten = false;
        for (size_t k = from; k < kept && !beaten; k++)
            beaten = exchange_dominates(problem, &set->items[k], item);
        if (!beaten)
            set->items[kept++] = *item;
    }
    set->count = kept;
}

/* Keep the leanest label of a group and of every memory bucket the best by its relaxed cost; writes
 * to `out`, which may be `first`, and returns how many. */
static size_t thin_group(const struct generation *gen, const struct candidate *first,
                         const struct candidate *end, struct candidate *out)
{
    uint64_t low = first->label.sums.bytes, high = (end - 1)->label.sums.bytes;
    double width = (double)(high - low + 1), best = INFINITY;
    size_t bucket_last = SIZE_MAX, kept = 0;
    out[kept++] = *first;
    for (const struct candidate *item = first + 1; item < end; item++) {
        double place = (double)(item->label.sums.bytes - low) / width;
        size_t bucket = (size_t)(place * (double)gen->options->buckets);
        double cost =
            bounds_relaxed(gen->bounds, gen->stage, gen->at->multipliers[0], &item->label.sums);
        if (bucket == bucket_last && cost >= best)
            continue;
        out[bucket == bucket_last ? kept - 1 : kept++] = *item;
        bucket_last = bucket;
        best = cost;
    }
    return kept;
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

static bool node_prunes(const struct generation *gen, const struct node *node,
                        const struct partial *sums)
{
    if (sums->bytes > gen->at->slack_bytes || node->rest_bytes > gen->at->slack_bytes - sums->bytes)
        return true;
    for (size_t m = 0; m < gen->at->multiplier_count; m++) {
        double bound = node->contexts[m] + gen->at->constants[m] +
                       bounds_relaxed(gen->bounds, gen->stage, gen->at->multipliers[m], sums);
        if (bound >= gen->options->threshold)
            return true;
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
    sums.bytes += terms.bytes;
    if (problem->stages == 1) {
        sums.cost += problem->weight_tau * tau + problem->weight_gamma * terms.gamma;
    } else {
        sums.tau += tau;
        sums.gamma += terms.gamma;
    }
    return sums;
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

/* The parent's labels, each followed by every admitted strategy of the node's class. */
static enum status extend_node(struct generation *gen, const struct node *parent, struct node *node,
                               struct error *err)
{
    const struct problem *problem = gen->problem;
    const struct layer_class *class = &problem->classes[node->class];
    const struct admitted *admitted = &gen->at->admitted[node->class];
    bool is_last_stage = gen->stage + 1 == problem->stages;
    gen->candidates.count = 0;
    for (size_t i = 0; i < parent->label_count; i++) {
        size_t index = parent->label_first + i;
        const struct label before = gen->out->labels[index];
        if (i % LABELS_BETWEEN_CHECKS == 0 && out_of_budget(gen))
            return STATUS_OK;
        for (size_t a = 0; a < admitted->count; a++) {
            size_t s = admitted->strategies[a];
            const struct strategy *strategy = &class->strategies[s];
            const struct transition *change =
                before.parent == NO_PARENT
                    ? NULL
                    : problem_transition(
                          problem, &problem->classes[parent->class].strategies[before.strategy],
                          class, strategy);
            struct candidate item = {
                .label = {.sums = extend_sums(gen, &before.sums, strategy, change),
                          .parent = (uint32_t)index,
                          .strategy = (uint32_t)s,
                          .traits = before.traits | strategy->traits},
                .send_cost = is_last_stage ? 0 : strategy->send_cost};
            item.group = label_group(problem, strategy, &item.label);
            if (!node_prunes(gen, node, &item.label.sums))
                TRY(push_candidate(&gen->candidates, &item, err));
        }
    }
    drop_dominated(problem, &gen->candidates);
    if (gen->options->buckets > 0)
        thin(gen, &gen->candidates);
    node->label_first = gen->out->label_count;
    node->label_count = gen->candidates.count;
    return push_labels(gen->out, &gen->candidates, err);
}

/* ---- columns ---- */

static enum status emit_interval(struct generation *gen, size_t first, size_t end,
                                 struct error *err)
{
    const struct problem *problem = gen->problem;
    size_t width = problem->layer_count + 1;
    double outside = gen->bounds->prefix[gen->stage * width + first] +
                     gen->bounds->suffix[(gen->stage + 1) * width + end];
    for (size_t i = 0; i < gen->candidates.count; i++) {
        const struct candidate *item = &gen->candidates.items[i];
        const struct partial *sums = &item->label.sums;
        uint64_t peak_bytes = sums->bytes + problem->fixed_bytes + gen->at->limit_bytes;
        struct partial charged = *sums;
        charged.bytes = peak_bytes;
        if (outside + bounds_relaxed(gen->bounds, gen->stage, 0, &charged) >=
            gen->options->threshold)
            continue;
        const struct column column = {.stage = gen->stage,
                                      .first = first,
                                      .end = end,
                                      .cost = sums->cost,
                                      .tau = sums->tau,
                                      .gamma = sums->gamma,
                                      .peak_bytes = peak_bytes,
                                      .label = item->label.parent,
                                      .traits = item->label.traits};
        TRY(push_column(gen->out, &column, err));
    }
    return STATUS_OK;
}

static bool is_interval(const struct generation *gen, size_t first, size_t end)
{
    size_t width = gen->problem->layer_count + 1;
    return gen->bounds->prefix[gen->stage * width + first] < INFINITY &&
           gen->bounds->suffix[(gen->stage + 1) * width + end] < INFINITY;
}

/* Columns of every interval of this length that shows the node's sequence. A finished stage is its
 * label's successor: `parent` of the candidates is the finished label itself. */
static enum status emit_node(struct generation *gen, size_t node_index, size_t length,
                             struct error *err)
{
    const struct problem *problem = gen->problem;
    const struct node *node = &gen->next_nodes[node_index];
    const struct strategy *strategies = problem->classes[node->class].strategies;
    bool collected = false;
    for (size_t first = 0; first + length <= problem->layer_count; first++) {
        if (gen->next_of_first[first] != node_index || !is_interval(gen, first, first + length))
            continue;
        gen->candidates.count = collected ? gen->candidates.count : 0;
        for (size_t i = 0; !collected && i < node->label_count; i++) {
            struct candidate item = {.label = gen->out->labels[node->label_first + i]};
            item.label.parent = (uint32_t)(node->label_first + i);
            item.group = problem->needs & item.label.traits;
            if (problem->stages == 1 && (problem->needs & ~item.label.traits) != 0)
                continue;
            if (gen->stage + 1 < problem->stages)
                item.label.sums.cost += strategies[item.label.strategy].send_cost;
            TRY(push_candidate(&gen->candidates, &item, err));
        }
        if (!collected)
            drop_dominated(problem, &gen->candidates);
        collected = true;
        TRY(emit_interval(gen, first, first + length, err));
    }
    return STATUS_OK;
}

/* ---- the tree of sequences ---- */

static size_t child_node(struct generation *gen, size_t parent, size_t class)
{
    for (size_t i = 0; i < gen->next_count; i++) {
        if (gen->next_nodes[i].parent == parent && gen->next_nodes[i].class == class)
            return i;
    }
    struct node *node = &gen->next_nodes[gen->next_count];
    *node = (struct node){.parent = parent, .class = class, .rest_bytes = UINT64_MAX};
    for (int m = 0; m < MULTIPLIERS_MAX; m++)
        node->contexts[m] = INFINITY;
    return gen->next_count++;
}

/* Children of this level's nodes, with the loosest bounds of all places where they occur. */
static void find_children(struct generation *gen, size_t length)
{
    const struct problem *problem = gen->problem;
    size_t width = problem->layer_count + 1;
    gen->next_count = 0;
    for (size_t first = 0; first < problem->layer_count; first++) {
        size_t end = first + length, parent = gen->node_of_first[first];
        gen->next_of_first[first] = NO_NODE;
        if (parent == NO_NODE || end > problem->layer_count || gen->nodes[parent].label_count == 0)
            continue;
        size_t index = child_node(gen, parent, problem->layer_class[end - 1]);
        struct node *node = &gen->next_nodes[index];
        gen->next_of_first[first] = index;
        for (size_t m = 0; m < gen->at->multiplier_count; m++) {
            double context =
                gen->bounds->prefix[gen->stage * width + first] + gen->at->rest[m * width + end];
            node->contexts[m] = fmin(node->contexts[m], context);
        }
        if (gen->at->rest_bytes[end] < node->rest_bytes)
            node->rest_bytes = gen->at->rest_bytes[end];
    }
}

static enum status generate_level(struct generation *gen, size_t length, struct error *err)
{
    find_children(gen, length);
    for (size_t i = 0; i < gen->next_count && !gen->out->incomplete; i++) {
        struct node *node = &gen->next_nodes[i];
        TRY(extend_node(gen, &gen->nodes[node->parent], node, err));
        if (!gen->out->incomplete)
            TRY(emit_node(gen, i, length, err));
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
        bool possible = gen->bounds->prefix[gen->stage * width + first] < INFINITY;
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
        .nodes = malloc(layers * sizeof(*gen.nodes)),
        .next_nodes = malloc(layers * sizeof(*gen.nodes)),
        .node_of_first = malloc(layers * sizeof(*gen.node_of_first)),
        .next_of_first = malloc(layers * sizeof(*gen.node_of_first)),
    };
    enum status status = STATUS_OK;
    if (!gen.nodes || !gen.next_nodes || !gen.node_of_first || !gen.next_of_first)
        status = error_memory(err, 2 * layers * sizeof(*gen.nodes), "the search's columns");
    for (size_t i = 0; status == STATUS_OK && i < bounds->stage_count && !out->incomplete; i++) {
        gen.at = &bounds->stages[i];
        gen.stage = i / bounds->limit_count;
        if (gen.at->multiplier_count > 0)
            status = generate_stage(&gen, err);
    }
    free(gen.next_of_first);
    free(gen.node_of_first);
    free(gen.next_nodes);
    free(gen.nodes);
    free(gen.candidates.items);
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
