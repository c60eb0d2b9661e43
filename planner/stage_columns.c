#include "planner/stage_columns.h"

#include "planner/stage_options.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- intervals ---- */

static bool lean_fits(const struct shape *shape, size_t stage, size_t items)
{
    const struct stage_memory memory = shape_lean_stage(shape, stage, items);
    double cap_bytes = (double)shape->request->layouts->memory_cap_bytes;
    double mean_cap_bytes = shape->request->mean_cap_bytes;
    return memory.sum - memory.cached <= memory.device_bytes &&
           (cap_bytes == 0 || memory.sum <= cap_bytes) &&
           (mean_cap_bytes == 0 || memory.sum <= mean_cap_bytes);
}

/* Can the stages hold all items, each as many as fit at their leanest? Most shapes of a large model
 * end here, before anything else of them is priced. */
static bool lean_stages_hold_all(const struct shape *shape)
{
    size_t stages = (size_t)shape->layout.pipeline, held = 0;
    for (size_t stage = 0; stage < stages && held < shape->items; stage++) {
        size_t most = shape->items - (stages - 1), low = 0;
        while (low < most) {
            size_t middle = (low + most + 1) / 2;
            if (lean_fits(shape, stage, middle))
                low = middle;
            else
                most = middle - 1;
        }
        if (low == 0)
            return false;
        held += low;
    }
    return held >= shape->items;
}

/* Which items a stage can begin with, and how many it can have, in layouts below the threshold. */
struct reach {
    size_t low[LAYOUT_STAGES_MAX + 1], high[LAYOUT_STAGES_MAX + 1]; /* first items */
    size_t most[LAYOUT_STAGES_MAX];
};

/* Of the objective, the repeated passes of a stage of so many items, at the quickest. Only one that
 * waits for its host may be quicker with a block more, behind which it hides more. */
static double least_passes(const struct shape *shape, size_t stage, size_t items)
{
    const struct kind_measures *measures = &shape->measures[shape->stage_groups[stage]];
    double least_s = INFINITY, m = (double)layout_micro_batches(&shape->layout);
    if (!shape_waits_for_host(shape))
        return INFINITY;
    if (shape->layout.schedule == SCHEDULE_ZB_H1)
        return 0;
    for (size_t kind = 0; kind < measures->count; kind++)
        least_s = fmin(least_s, measures->of[kind][MIX_FORWARD] + measures->of[kind][MIX_BACKWARD]);
    return shape->prices.second * (m - 1 / (double)shape->layout.virtual_stages) * least_s *
           (double)(items * shape->item_blocks);
}

/* The end of the longest stage from `first`; `first`: not even one item. */
static enum status longest_from(struct shape *shape, size_t stage, size_t first, double threshold,
                                size_t *end, struct error *err)
{
    size_t last = shape->items - ((size_t)shape->layout.pipeline - 1 - stage);
    double others = shape->least_others;
    size_t longer = last == shape->items && stage == 0 ? last : first + 1; /* one stage has all */
    *end = first;
    for (; longer <= last && !shape_is_cut(shape); longer++) {
        size_t index;
        TRY(stage_options_find(shape, stage, first, longer, &index, err));
        const struct option_list *list = &shape->lists[index];
        bool is_empty = list->count == 0;
        bool is_slow = others + shape->prices.second * list->least_repeat_s >= threshold;
        if (is_empty && shape->is_mixed && lean_fits(shape, stage, longer - first))
            continue;
        if (!is_empty && is_slow && others + least_passes(shape, stage, longer - first) < threshold)
            continue;
        if (is_empty || is_slow)
            return STATUS_OK;
        *end = longer;
    }
    return STATUS_OK;
}

static enum status find_reach(struct shape *shape, double threshold, struct reach *out,
                              struct error *err)
{
    size_t stages = (size_t)shape->layout.pipeline;
    out->low[0] = out->high[0] = 0;
    for (size_t stage = 0; stage < stages; stage++) {
        out->high[stage + 1] = out->most[stage] = 0;
        for (size_t first = stage; first <= out->high[stage] && !shape_is_cut(shape); first++) {
            size_t end;
            TRY(longest_from(shape, stage, first, threshold, &end, err));
            if (end > first && end > out->high[stage + 1])
                out->high[stage + 1] = end;
            if (end - first > out->most[stage])
                out->most[stage] = end - first;
        }
        if (out->most[stage] == 0)
            return STATUS_OK;
    }
    out->low[stages] = shape->items;
    for (size_t stage = stages; stage-- > 1;) {
        size_t behind = out->low[stage + 1], most = out->most[stage];
        out->low[stage] = behind > most + stage ? behind - most : stage;
    }
    return STATUS_OK;
}

/* Of one stage its largest repeats and what is done once are its own. */
static void set_costs(const struct shape *shape, double cost, const struct stage_floor *of,
                      struct column *column)
{
    bool is_alone = shape->layout.pipeline == 1;
    double repeat = shape->prices.second * of->repeat_s;
    double once = shape->prices.second * of->once_s;
    column->cost = cost + (is_alone ? repeat + once : 0);
    column->tau = is_alone ? 0 : repeat;
    column->gamma = is_alone ? 0 : once;
}

void shape_take_floors(const struct shape *shape, struct columns *columns)
{
    for (size_t i = 0; i < columns->count; i++) {
        const struct stage_option *of = &shape->options[columns->items[i].label];
        set_costs(shape, of->floor.cost, &of->floor, &columns->items[i]);
    }
}

void shape_take_options(const struct shape *shape, struct columns *columns)
{
    for (size_t i = 0; i < columns->count; i++) {
        const struct stage_option *of = &shape->options[columns->items[i].label];
        const struct stage_floor own = {of->cost, of->repeat_s, of->once_s};
        set_costs(shape, of->cost, &own, &columns->items[i]);
    }
}

static enum status push_columns(struct shape *shape, size_t stage, size_t first, size_t end,
                                struct columns *out, struct error *err)
{
    size_t index;
    TRY(stage_options_find(shape, stage, first, end, &index, err));
    for (size_t i = 0; i < shape->lists[index].count; i++) {
        size_t option = shape->lists[index].begin + i;
        if (out->count == out->capacity) {
            size_t capacity = out->capacity > 0 ? 2 * out->capacity : 1024;
            struct column *grown = realloc(out->items, capacity * sizeof(*grown));
            if (!grown)
                return error_memory(err, capacity * sizeof(*grown), "the planner's columns");
            out->items = grown;
            out->capacity = capacity;
        }
        out->items[out->count++] = (struct column){
            .stage = stage,
            .first = first,
            .end = end,
            .peak_bytes = (uint64_t)shape->options[option].bytes,
            .label = (uint32_t)option,
        };
    }
    return STATUS_OK;
}

enum status shape_columns(struct shape *shape, double threshold, struct columns *out,
                          struct error *err)
{
    size_t stages = (size_t)shape->layout.pipeline;
    struct reach reach;
    if (shape->least >= threshold || shape->items < stages)
        return STATUS_OK;
    if (!lean_stages_hold_all(shape)) {
        shape->is_too_large = true;
        return STATUS_OK;
    }
    shape->most_repeat_s = (threshold - shape->least_others) / shape->prices.second;
    for (size_t i = 0; i < OPTION_HEADS; i++)
        shape->space->heads[i] = LIST_END;
    TRY(find_reach(shape, threshold, &reach, err));
    for (size_t stage = 0; stage < stages; stage++)
        if (reach.most[stage] == 0)
            return STATUS_OK;
    if (reach.high[stages] < shape->items)
        return STATUS_OK;
    for (size_t stage = 0; stage < stages; stage++) {
        for (size_t first = reach.low[stage]; first <= reach.high[stage] && !shape_is_cut(shape);
             first++) {
            size_t end, least = reach.low[stage + 1] > first + 1 ? reach.low[stage + 1] : first + 1;
            TRY(longest_from(shape, stage, first, threshold, &end, err));
            for (size_t last = least; last <= end; last++)
                TRY(push_columns(shape, stage, first, last, out, err));
        }
    }
    shape_take_options(shape, out);
    return STATUS_OK;
}

/* ---- the answer ---- */

static void assign_stage(const struct shape *shape, const struct column *column,
                         struct block_mode *modes)
{
    struct stage_option option = shape->options[column->label];
    for (size_t item = column->first; item < column->end; item++) {
        unsigned admitted = shape->classes[shape->item_classes[item]].admitted;
        for (unsigned i = 0; i < shape->item_blocks; i++) {
            size_t kind = 0;
            while ((admitted >> kind & 1) == 0 || option.kinds[kind] == 0)
                kind++;
            option.kinds[kind]--;
            modes[item * shape->item_blocks + i] = shape->kinds[kind].mode;
        }
    }
}

void shape_assign(const struct shape *shape, const struct columns *columns, const size_t *chosen,
                  struct block_mode *modes, int64_t *stage_blocks)
{
    for (int64_t stage = 0; stage < shape->layout.pipeline; stage++) {
        const struct column *column = &columns->items[chosen[stage]];
        stage_blocks[stage] = (int64_t)(column->end - column->first) * shape->item_blocks;
        assign_stage(shape, column, modes);
    }
}
