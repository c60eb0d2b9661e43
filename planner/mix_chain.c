#include "planner/mix_chain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double slope(const struct chain_edge *edge)
{
    return edge->seconds / edge->bytes;
}

/* Kinds in the order of bytes; of equal ones the quicker first. */
static size_t sorted_kinds(const struct chain_prices *prices, unsigned kinds,
                           size_t out[BLOCK_KINDS_MAX])
{
    size_t count = 0;
    for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++) {
        if ((kinds >> kind & 1) == 0)
            continue;
        size_t at = count++;
        for (; at > 0; at--) {
            size_t other = out[at - 1];
            bool is_before = prices->bytes[other] < prices->bytes[kind] ||
                             (prices->bytes[other] == prices->bytes[kind] &&
                              prices->seconds[other] <= prices->seconds[kind]);
            if (is_before)
                break;
            out[at] = other;
        }
        out[at] = kind;
    }
    return count;
}

/* Append the edges of a class's lower hull: its leanest kind is returned. */
static size_t add_hull(const struct chain_prices *prices, const struct chain_class *class,
                       struct mix_chain *chain)
{
    size_t kinds[BLOCK_KINDS_MAX], count = sorted_kinds(prices, class->kinds, kinds);
    size_t first = chain->edge_count, last = kinds[0];
    for (size_t i = 1; i < count; i++) {
        size_t kind = kinds[i];
        if (prices->seconds[kind] >= prices->seconds[last])
            continue;
        struct chain_edge edge = {.from = last, .to = kind, .items = class->items};
        for (;;) {
            edge.bytes = prices->bytes[kind] - prices->bytes[edge.from];
            edge.seconds = prices->seconds[edge.from] - prices->seconds[kind];
            if (chain->edge_count == first ||
                slope(&chain->edges[chain->edge_count - 1]) > slope(&edge))
                break;
            edge.from = chain->edges[--chain->edge_count].from;
        }
        chain->edges[chain->edge_count++] = edge;
        last = kind;
    }
    return kinds[0];
}

/* By what they save per byte; those of one class stay in their order. */
static void sort_edges(struct mix_chain *chain)
{
    for (size_t i = 1; i < chain->edge_count; i++) {
        const struct chain_edge edge = chain->edges[i];
        size_t at = i;
        for (; at > 0 && slope(&chain->edges[at - 1]) < slope(&edge); at--)
            chain->edges[at] = chain->edges[at - 1];
        chain->edges[at] = edge;
    }
}

void mix_chain_build(const struct chain_prices *prices, const struct chain_class *classes,
                     size_t class_count, struct mix_chain *out)
{
    *out = (struct mix_chain){.count = 1};
    for (size_t i = 0; i < class_count; i++) {
        if (classes[i].items == 0)
            continue;
        size_t leanest = add_hull(prices, &classes[i], out);
        out->leanest[leanest] = (uint16_t)classes[i].items;
        out->least_bytes += classes[i].items * prices->bytes[leanest];
        out->most_s += classes[i].items * prices->seconds[leanest];
    }
    sort_edges(out);
    for (size_t i = 0; i < out->edge_count; i++)
        out->count += out->edges[i].items;
}

void mix_chain_at(const struct mix_chain *chain, size_t index, uint16_t items[BLOCK_KINDS_MAX])
{
    memcpy(items, chain->leanest, sizeof(chain->leanest));
    for (size_t i = 0; i < chain->edge_count && index > 0; i++) {
        const struct chain_edge *edge = &chain->edges[i];
        size_t moved = index < edge->items ? index : edge->items;
        items[edge->from] = (uint16_t)(items[edge->from] - moved);
        items[edge->to] = (uint16_t)(items[edge->to] + moved);
        index -= moved;
    }
}

double mix_chain_least_s(const struct mix_chain *chain, double bytes)
{
    double left = bytes - chain->least_bytes, seconds = chain->most_s;
    if (left < 0)
        return INFINITY;
    for (size_t i = 0; i < chain->edge_count; i++) {
        const struct chain_edge *edge = &chain->edges[i];
        double items = fmin(left / edge->bytes, edge->items);
        seconds -= items * edge->seconds;
        left -= items * edge->bytes;
        if (items < edge->items)
            break;
    }
    return seconds;
}
