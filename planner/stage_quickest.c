#include "planner/stage_quickest.h"

#include "planner/mix_front.h"
#include "planner/stage_options.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is remembered ---- */

struct front_table {
    struct mix_group groups[BLOCK_KINDS_MAX]; /* class by class */
    size_t group_count;
    double levels[MIX_LEVELS_MAX]; /* bytes that kinds need while they work, the least first */
    size_t level_count;
    size_t sizes;             /* items 0 .. sizes - 1 */
    struct mix_front *fronts; /* [group_count * level_count * sizes], owned */
};

void front_table_free(struct front_table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->group_count * table->level_count * table->sizes; i++)
        mix_front_free(&table->fronts[i]);
    free(table->fronts);
    free(table);
}

static void add_level(struct front_table *table, double bytes)
{
    size_t at = 0;
    while (at < table->level_count && table->levels[at] < bytes)
        at++;
    if (at < table->level_count && table->levels[at] == bytes)
        return;
    memmove(&table->levels[at + 1], &table->levels[at],
            (table->level_count - at) * sizeof(*table->levels));
    table->levels[at] = bytes;
    table->level_count++;
}

static void find_groups(const struct shape *shape, const struct kind_measures *measures,
                        struct front_table *table)
{
    for (size_t class = 0; class < shape->class_count; class ++)
        table->group_count += mix_groups(measures, shape->classes[class].admitted, class,
                                         &table->groups[table->group_count]);
    for (size_t i = 0; i < table->group_count; i++)
        for (size_t j = 0; j < table->groups[i].kind_count; j++)
            add_level(table, measures->of[table->groups[i].kinds[j]][MIX_WORKING]);
}

/* NULL: out of memory. */
static struct front_table *table_of(struct shape *shape, size_t group)
{
    struct front_table *table = shape->fronts[group];
    if (table)
        return table;
    table = calloc(1, sizeof(*table));
    if (!table)
        return NULL;
    find_groups(shape, &shape->measures[group], table);
    table->sizes = shape->items + 1;
    table->fronts =
        calloc(table->group_count * table->level_count * table->sizes, sizeof(*table->fronts));
    if (!table->fronts) {
        free(table);
        return NULL;
    }
    return shape->fronts[group] = table;
}

/* ---- a content at work ---- */

struct quickest {
    struct shape *shape;
    const struct content *content;
    const struct kind_measures *measures;
    struct front_table *table;
    struct stage_bytes bytes;        /* with what blocks keep and need on trial */
    unsigned items[BLOCK_KINDS_MAX]; /* of each group: the split at work */
    const struct mix_front *fronts[BLOCK_KINDS_MAX];
    size_t points[BLOCK_KINDS_MAX]; /* of each front, the one chosen */
};

static enum status find_fronts(struct quickest *quickest, size_t level, struct error *err)
{
    struct front_table *table = quickest->table;
    for (size_t i = 0; i < table->group_count; i++) {
        size_t index = (i * table->level_count + level) * table->sizes + quickest->items[i];
        struct mix_front *front = &table->fronts[index];
        if (!front->is_built)
            TRY(mix_front_build(quickest->measures, &table->groups[i], quickest->items[i],
                                quickest->shape->item_blocks, table->levels[level], front, err));
        quickest->fronts[i] = front;
    }
    return STATUS_OK;
}

/* The chosen points in blocks of each kind. */
static void take_points(const struct quickest *quickest, uint16_t kinds[BLOCK_KINDS_MAX],
                        struct stage_entry *entry)
{
    const struct front_table *table = quickest->table;
    memset(kinds, 0, BLOCK_KINDS_MAX * sizeof(*kinds));
    for (size_t i = 0; i < table->group_count; i++) {
        assert(quickest->fronts[i] != NULL);
        const struct mix_point *point = &quickest->fronts[i]->points[quickest->points[i]];
        for (size_t j = 0; j < table->groups[i].kind_count; j++)
            kinds[table->groups[i].kinds[j]] =
                (uint16_t)(point->items[j] * quickest->shape->item_blocks);
    }
    *entry = quickest->content->entry;
    stage_set_kinds(quickest->shape, kinds, entry);
}

/* All mixes of a split hide as much behind their forward passes, and under zb-h1 behind the
 * gradients of their weights. */
static struct stage_work slowest_of_split(const struct quickest *quickest,
                                          const struct stage_entry *entry)
{
    const struct shape *shape = quickest->shape;
    struct stage_work slowest = quickest->content->slowest, own;
    stage_work_fill(&shape->space->step.prices[entry->group], entry, &own);
    slowest.renew_s = own.renew_s;
    if (shape->layout.schedule == SCHEDULE_ZB_H1)
        slowest.reduce_s = own.reduce_s;
    return slowest;
}

static struct stage_option price_points(struct quickest *quickest, bool *fits)
{
    uint16_t kinds[BLOCK_KINDS_MAX];
    struct stage_entry entry;
    struct stage_memory memory;
    take_points(quickest, kinds, &entry);
    stage_memory_fill(&quickest->shape->bytes[entry.group], &entry, &memory);
    *fits = stage_fits(quickest->shape, &memory);
    const struct stage_work slowest = slowest_of_split(quickest, &entry);
    return stage_price_mix(quickest->shape, &entry, &slowest, kinds, &memory);
}

/* ---- memory ---- */

/* Does the split fit whose blocks on the device keep so many bytes each? */
static bool keeps(struct quickest *quickest, const struct stage_entry *entry, double bytes)
{
    struct stage_memory memory;
    for (size_t kind = 0; kind < quickest->shape->kind_count; kind++)
        if (!quickest->shape->kinds[kind].mode.offload)
            quickest->bytes.blocks[kind].kept = bytes;
    stage_memory_fill(&quickest->bytes, entry, &memory);
    return stage_fits(quickest->shape, &memory);
}

/* Bytes that blocks on the device can keep where none needs more than those of a level while it
 * works; what a stage needs rises with what its blocks keep. Below 0: nothing fits. */
static double most_kept(struct quickest *quickest, size_t level)
{
    const double same_share = 1e-13;
    uint16_t kinds[BLOCK_KINDS_MAX];
    struct stage_entry entry;
    double least = INFINITY, most = 0, blocks = 0;
    for (size_t i = 0; i < quickest->table->group_count; i++) {
        const struct mix_group *group = &quickest->table->groups[i];
        if (quickest->measures->of[group->kinds[0]][MIX_AWAY] > 0)
            continue;
        blocks += (double)quickest->items[i] * quickest->shape->item_blocks;
        for (size_t j = 0; j < group->kind_count && quickest->items[i] > 0; j++) {
            least = fmin(least, quickest->measures->of[group->kinds[j]][MIX_KEPT]);
            most = fmax(most, quickest->measures->of[group->kinds[j]][MIX_KEPT]);
        }
    }
    take_points(quickest, kinds, &entry);
    for (size_t kind = 0; kind < quickest->shape->kind_count; kind++)
        quickest->bytes.blocks[kind].working = quickest->table->levels[level];
    if (keeps(quickest, &entry, most))
        return INFINITY;
    if (blocks == 0 || !keeps(quickest, &entry, least))
        return -1;
    while (most - least > same_share * most) {
        double middle = (least + most) / 2;
        if (keeps(quickest, &entry, middle))
            least = middle;
        else
            most = middle;
    }
    return blocks * most;
}

/* ---- splits ---- */

static double backward_s(const struct quickest *quickest)
{
    double sum_s = 0;
    for (size_t i = 0; i < quickest->table->group_count; i++) {
        assert(quickest->fronts[i] != NULL);
        sum_s += quickest->fronts[i]->points[quickest->points[i]].backward_s;
    }
    return sum_s;
}

/* False: a group has items, but no kind that needs so little. */
static bool take_quickest(struct quickest *quickest)
{
    for (size_t i = 0; i < quickest->table->group_count; i++) {
        assert(quickest->fronts[i] != NULL);
        if (quickest->fronts[i]->count == 0)
            return false;
        quickest->points[i] = quickest->fronts[i]->count - 1;
    }
    return true;
}

/* The quickest mix of the split that fits and whose blocks need no more than those of the level.
 * Sums in another order differ, so that the last word is the cost model's. */
static enum status solve_level(struct quickest *quickest, size_t level, double *least_s,
                               struct stage_option *best, struct error *err)
{
    const double rounding = 1e-12;
    struct stage_option option;
    bool found = true, fits = false;
    TRY(find_fronts(quickest, level, err));
    if (!take_quickest(quickest) || backward_s(quickest) >= *least_s)
        return STATUS_OK;
    double bytes = most_kept(quickest, level) * (1 + rounding);
    if (bytes < 0)
        return STATUS_OK;
    while (!fits) {
        TRY(mix_fronts_least(quickest->fronts, quickest->table->group_count, bytes,
                             quickest->points, &found, err));
        if (!found || backward_s(quickest) >= *least_s)
            return STATUS_OK;
        option = price_points(quickest, &fits);
        double kept = 0;
        for (size_t i = 0; i < quickest->table->group_count; i++)
            kept += quickest->fronts[i]->points[quickest->points[i]].kept;
        bytes = kept * (1 - rounding);
    }
    *least_s = backward_s(quickest);
    *best = option;
    return STATUS_OK;
}

/* Only where a stage cannot be quicker with a block more: see longest_from in stage_columns.c. */
static bool is_too_slow(const struct shape *shape, const struct stage_option *option)
{
    return !shape_waits_for_host(shape) && !shape->is_mixed &&
           option->repeat_s >= shape->most_repeat_s;
}

static enum status solve_split(struct quickest *quickest, struct error *err)
{
    struct shape *shape = quickest->shape;
    struct option_list *list = quickest->content->list;
    size_t last = quickest->table->level_count - 1;
    struct stage_option best;
    double least_s = INFINITY;
    bool fits;

    TRY(find_fronts(quickest, last, err));
    take_quickest(quickest);
    const struct stage_option quick = price_points(quickest, &fits);
    if (is_too_slow(shape, &quick) || stage_option_is_replaced(shape, list, &quick))
        return STATUS_OK;
    if (fits)
        return stage_offer_option(shape, list, &quick, err);
    for (size_t level = 0; level <= last; level++)
        TRY(solve_level(quickest, level, &least_s, &best, err));
    return least_s < INFINITY ? stage_offer_option(shape, list, &best, err) : STATUS_OK;
}

/* `left`: items of the group's class that no group before has. */
static enum status each_split(struct quickest *quickest, size_t group, unsigned left,
                              struct error *err)
{
    const struct front_table *table = quickest->table;
    if (shape_is_cut(quickest->shape))
        return STATUS_OK;
    if (group == table->group_count)
        return solve_split(quickest, err);
    size_t next = group + 1;
    bool is_last = next == table->group_count;
    bool ends_class = is_last || table->groups[next].class != table->groups[group].class;
    unsigned begins = is_last ? 0 : quickest->content->list->content[table->groups[next].class];
    for (unsigned items = left + 1; items-- > (ends_class ? left : 0);) {
        quickest->items[group] = items;
        TRY(each_split(quickest, next, ends_class ? begins : left - items, err));
    }
    return STATUS_OK;
}

/* ---- is it worth it ---- */

/* Ways to have so many of so many. */
static double ways(double items, size_t of)
{
    double count = 1;
    for (size_t i = 1; i < of; i++)
        count *= (items + (double)i) / (double)i;
    return count;
}

/* Splits, times the points that one is searched in when groups share alike. */
static double work_of(const struct shape *shape, const struct content *content,
                      const struct front_table *table)
{
    double splits = 1, joined = 1, largest = 1, sum = 0;
    for (size_t class = 0; class < shape->class_count; class ++) {
        double items = content->list->content[class];
        size_t groups = 0;
        for (size_t i = 0; i < table->group_count; i++)
            groups += table->groups[i].class == class;
        splits *= ways(items, groups);
        for (size_t i = 0; i < table->group_count; i++) {
            if (table->groups[i].class != class)
                continue;
            double points = ways(ceil(items / (double)groups), table->groups[i].kind_count);
            joined *= points;
            largest = fmax(largest, points);
            sum += points;
        }
    }
    return splits * (joined / largest + sum);
}

bool stage_quickest_serves(struct shape *shape, const struct content *content, double work_most)
{
    if (shape->prices.byte > 0 || shape->prices.joule > 0)
        return false;
    const struct front_table *table = table_of(shape, content->entry.group);
    return table && work_of(shape, content, table) <= work_most;
}

enum status stage_quickest_price(struct shape *shape, const struct content *content,
                                 struct error *err)
{
    size_t group = content->entry.group;
    struct quickest quickest = {
        .shape = shape,
        .content = content,
        .measures = &shape->measures[group],
        .table = shape->fronts[group],
        .bytes = shape->bytes[group],
    };
    size_t class = quickest.table->groups[0].class;
    return each_split(&quickest, 0, content->list->content[class], err);
}
