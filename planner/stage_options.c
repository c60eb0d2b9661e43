#include "planner/stage_options.h"

#include "planner/mix_chain.h"
#include "planner/stage_content.h"
#include "planner/stage_quickest.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- mixes ---- */

/* Modes that are worth it for one block; others are for none. */
static unsigned kinds_of(const struct mix_set *one_item)
{
    unsigned kinds = 0;
    for (size_t i = 0; i < one_item->count; i++)
        for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++)
            kinds |= one_item->items[i].kinds[kind] > 0 ? 1u << kind : 0;
    return kinds;
}

bool shape_is_cut(struct shape *shape)
{
    shape->is_cut = shape->is_cut || limits_reached(&shape->request->layouts->limits);
    return shape->is_cut;
}

/* Sets that are larger are not made: mix_chain.h has a few of their mixes. */
static size_t mixes_most(const struct shape *shape)
{
    enum { MIXES_MOST = 5000 };
    return shape->request->mixes_most > 0 ? shape->request->mixes_most : MIXES_MOST;
}

/* Points of mixes looked at, see stage_quickest_serves. */
static double work_most(const struct shape *shape)
{
    const double usual = 4e6;
    return shape->request->mixes_most > 0 ? (double)shape->request->mixes_most : usual;
}

/* No set after one that is too large. */
static enum status series_reach(struct shape *shape, size_t group, size_t class, size_t items,
                                struct error *err)
{
    struct mix_series *series = &shape->series[group][class];
    if (series->count > items)
        return STATUS_OK;
    if (series->count > 0 && series->sets[series->count - 1].count > mixes_most(shape))
        return STATUS_OK;
    struct mix_set *grown = realloc(series->sets, (items + 1) * sizeof(*grown));
    if (!grown)
        return error_memory(err, (items + 1) * sizeof(*grown), "what stages can have");
    series->sets = grown;
    while (series->count <= items && !shape_is_cut(shape)) {
        if (series->count > 0 && grown[series->count - 1].count > mixes_most(shape))
            break;
        struct mix_set *next = &grown[series->count++];
        *next = (struct mix_set){.items = NULL};
        if (series->count == 1)
            TRY(mix_set_begin(next, err));
        else
            TRY(mix_set_extend(&shape->measures[group], next - 1,
                               series->count > 2 ? kinds_of(&grown[1])
                                                 : shape->classes[class].admitted,
                               shape->item_blocks, next, err));
    }
    return STATUS_OK;
}

/* Of all classes together: a series' own set where the stage has one class, else one in `space`,
 * which the caller frees. NULL: the limits were reached. */
static enum status mixes_of(struct shape *shape, size_t group,
                            const uint16_t content[BLOCK_CLASSES_MAX], struct mix_set *space,
                            const struct mix_set **out, struct error *err)
{
    *out = NULL;
    for (size_t class = 0; class < shape->class_count; class ++) {
        struct mix_set joined = {.items = NULL};
        if (content[class] == 0)
            continue;
        TRY(series_reach(shape, group, class, content[class], err));
        if (shape_is_cut(shape)) {
            *out = NULL;
            return STATUS_OK;
        }
        const struct mix_set *own = &shape->series[group][class].sets[content[class]];
        if (*out) {
            enum status status = mix_set_join(&shape->measures[group], *out, own, &joined, err);
            mix_set_free(space);
            *space = joined;
            TRY(status);
        }
        *out = *out ? space : own;
    }
    return STATUS_OK;
}

/* ---- options ---- */

bool stage_fits(const struct shape *shape, const struct stage_memory *memory)
{
    const struct layouts_request *request = shape->request->layouts;
    double margin = shape->deviations * stage_memory_deviation(memory);
    return memory->sum - memory->cached + margin <= memory->device_bytes &&
           memory->host_bytes <= memory->host_memory_bytes &&
           (request->memory_cap_bytes == 0 ||
            memory->sum + margin <= (double)request->memory_cap_bytes) &&
           (shape->request->mean_cap_bytes == 0 || memory->sum <= shape->request->mean_cap_bytes);
}

static bool replaces(const struct unit_prices *prices, const struct stage_option *a,
                     const struct stage_option *b)
{
    double more = a->cost - b->cost + prices->second * fmax(a->repeat_s - b->repeat_s, 0) +
                  prices->second * fmax(a->once_s - b->once_s, 0);
    return more <= 0 && (prices->byte == 0 || a->bytes <= b->bytes);
}

bool stage_option_is_replaced(const struct shape *shape, const struct option_list *list,
                              const struct stage_option *option)
{
    for (size_t i = 0; i < list->count; i++)
        if (replaces(&shape->prices, &shape->options[list->begin + i], option))
            return true;
    return false;
}

/* Who replaces another has no larger one. */
static double total_cost(const struct unit_prices *prices, const struct stage_option *option)
{
    return option->cost + prices->second * (option->repeat_s + option->once_s);
}

enum status stage_offer_option(struct shape *shape, struct option_list *list,
                               const struct stage_option *option, struct error *err)
{
    struct stage_option *first = shape->options + list->begin;
    double total = total_cost(&shape->prices, option);
    bool is_leanest = shape->prices.byte > 0 && option->bytes < list->least_bytes;
    size_t kept = list->count;
    for (size_t i = 0; i < list->count && !is_leanest; i++)
        if (replaces(&shape->prices, &first[i], option))
            return STATUS_OK;
    if (!(total > list->most_total)) {
        kept = 0;
        for (size_t i = 0; i < list->count; i++)
            if (!replaces(&shape->prices, option, &first[i]))
                first[kept++] = first[i];
    }
    list->least_bytes = list->count > 0 ? fmin(list->least_bytes, option->bytes) : option->bytes;
    list->most_total = list->count > 0 ? fmax(list->most_total, total) : total;
    shape->option_count = list->begin + kept;
    list->count = kept + 1;
    list->least_repeat_s = fmin(list->least_repeat_s, option->floor.repeat_s);
    if (shape->option_count == shape->option_capacity) {
        size_t capacity = shape->option_capacity > 0 ? 2 * shape->option_capacity : 256;
        struct stage_option *grown = realloc(shape->options, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "what stages can be");
        shape->options = grown;
        shape->option_capacity = capacity;
    }
    shape->options[shape->option_count++] = *option;
    return STATUS_OK;
}

/* Is there a pass in which the device waits for its host? */
static bool is_host_bound(const struct stage_prices *prices)
{
    for (size_t kind = 0; kind < prices->kind_count; kind++)
        for (int pass = 0; pass < PASS_COUNT; pass++) {
            const struct pass_time *of = &prices->kinds[kind][pass];
            if (of->host_s > of->product_s + of->traffic_s + of->exchange_s)
                return true;
        }
    return false;
}

/* Such seconds cost less energy than those of exchanges that they hide. */
static double option_joules(struct shape *shape, const struct stage_work *slowest,
                            const struct stage_work *work)
{
    struct stage_work least = *work;
    if (is_host_bound(&shape->space->step.prices[work->group])) {
        stage_hide_exchanges(slowest, &least);
        stage_hide_reductions(slowest, &least);
    }
    return shape_busy_joules(shape, &least);
}

static struct stage_floor span_costs(const struct shape *shape, const struct stage_work *work)
{
    struct stage_span span = stage_span(&shape->layout, work);
    return (struct stage_floor){shape->prices.second * span.fill_s, span.repeat_s,
                                stage_once_s(work)};
}

/* A stage can only hide so much as it may be longer without repeating too much for any layout below
 * the threshold. */
static void show_rest(const struct shape *shape, const struct stage_work *work,
                      struct stage_work *hidden)
{
    double passes =
        (double)layout_micro_batches(&shape->layout) - 1 / (double)shape->layout.virtual_stages;
    double slack_s = shape->most_repeat_s - stage_span(&shape->layout, work).repeat_s;
    double longer_s = fmax(slack_s, 0) / passes;
    hidden->reduce_s = fmax(hidden->reduce_s, work->reduce_s - longer_s);
    hidden->renew_s = fmax(hidden->renew_s, work->renew_s - longer_s);
}

struct stage_option stage_price_mix(struct shape *shape, const struct stage_entry *entry,
                                    const struct stage_work *slowest, const uint16_t *kinds,
                                    const struct stage_memory *memory)
{
    struct stage_work work;
    stage_work_fill(&shape->space->step.prices[entry->group], entry, &work);
    double joules = shape->prices.joule > 0 ? option_joules(shape, slowest, &work) : 0;
    struct stage_work hidden = work;
    shape_hide_most(shape, slowest, &hidden);
    if (shape_is_interleaved(shape))
        show_rest(shape, &work, &hidden);
    struct stage_floor floor = span_costs(shape, &hidden);
    double more_bytes = memory->device_bytes - shape->least_device_bytes;
    floor.cost += shape->prices.joule * joules;
    struct stage_option option = {
        .cost = floor.cost,
        .repeat_s = floor.repeat_s,
        .once_s = floor.once_s,
        .bytes = fmax(memory->sum - more_bytes, 0),
        .floor = floor,
    };
    memcpy(option.kinds, kinds, sizeof(option.kinds));
    return option;
}

/* In all but memory. */
static bool costs_as_much(const struct mix *a, const struct mix *b)
{
    static const enum mix_measure costs[] = {MIX_FORWARD,  MIX_BACKWARD, MIX_AWAY,
                                             MIX_PRODUCTS, MIX_TRAFFIC,  MIX_EXCHANGES};
    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
        if (a->measures[costs[i]] < b->measures[costs[i]])
            return false;
    return mix_same_split(a, b);
}

void stage_set_kinds(const struct shape *shape, const uint16_t *kinds, struct stage_entry *entry)
{
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        entry->kinds[kind] = 0;
    for (size_t kind = 0; kind < shape->kind_count; kind++)
        entry->kinds[shape->twins[kind]] += kinds[kind];
}

static struct content content_of(const struct shape *shape, struct option_list *list)
{
    struct content out = {.list = list};
    out.entry = (struct stage_entry){
        .first = (int64_t)list->stage,
        .count = 1,
        .group = shape->stage_groups[list->stage],
        .has_embedding = list->stage == 0,
        .has_head = (int64_t)list->stage == shape->layout.pipeline - 1,
    };
    for (size_t class = 0; class < shape->class_count; class ++) {
        int64_t blocks = (int64_t)list->content[class] * shape->item_blocks;
        out.entry.blocks += blocks;
        out.entry.kinds[class_first_kind(&shape->classes[class])] = blocks;
    }
    stage_work_fill(&shape->space->slowest[out.entry.group], &out.entry, &out.slowest);
    return out;
}

static enum status price_every_mix(struct shape *shape, const struct content *content,
                                   struct error *err)
{
    struct mix_set space = {.items = NULL};
    const struct mix_set *mixes = NULL;
    struct stage_entry entry = content->entry;
    const struct mix *best = NULL; /* the first that fits */
    enum status status = mixes_of(shape, entry.group, content->list->content, &space, &mixes, err);
    for (size_t i = 0; status == STATUS_OK && mixes && i < mixes->count; i++) {
        const struct mix *mix = &mixes->items[i];
        struct stage_memory memory;
        if (best && shape->prices.byte == 0 && costs_as_much(mix, best))
            continue;
        stage_set_kinds(shape, mix->kinds, &entry);
        stage_memory_fill(&shape->bytes[entry.group], &entry, &memory);
        if (!stage_fits(shape, &memory))
            continue;
        const struct stage_option option =
            stage_price_mix(shape, &entry, &content->slowest, mix->kinds, &memory);
        status = stage_offer_option(shape, content->list, &option, err);
        best = best ? best : mix;
    }
    mix_set_free(&space);
    return status;
}

/* ---- options where mixes are too many ---- */

static enum status are_too_many(struct shape *shape, const struct content *content, bool *out,
                                struct error *err)
{
    double count = 1;
    for (size_t class = 0; class < shape->class_count && !shape_is_cut(shape); class ++) {
        const struct mix_series *series = &shape->series[content->entry.group][class];
        size_t items = content->list->content[class];
        if (items == 0)
            continue;
        TRY(series_reach(shape, content->entry.group, class, items, err));
        if (shape_is_cut(shape))
            break;
        count *= items < series->count ? (double)series->sets[items].count : INFINITY;
    }
    *out = count > (double)mixes_most(shape);
    return STATUS_OK;
}

/* A constraint on memory that a chain is built for. */
enum need { NEED_DEVICE, NEED_CAP, NEED_MEAN, NEED_COUNT };

/* The tangent of what a stage needs, with its margin, at `at`. A norm is nowhere below its tangents
 * (Cauchy and Schwarz): u v = ((u + v)^2 - u^2 - v^2) / 2. */
static double tangent_bytes(const struct shape *shape, enum need need,
                            const struct stage_memory *memory, const struct stage_memory *at)
{
    double own = stage_memory_deviation(memory), other = stage_memory_deviation(at);
    struct stage_memory both = *memory;
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        both.terms[term] += at->terms[term];
    double joined = stage_memory_deviation(&both);
    double product = (joined * joined - own * own - other * other) / 2;
    double margin = shape->deviations * (other > 0 ? product / other : own);
    if (need == NEED_MEAN)
        return memory->sum;
    return memory->sum + margin - (need == NEED_DEVICE ? memory->cached : 0);
}

/* A stage all of whose blocks are of one kind. What a stage needs is the mean of these over its
 * blocks, or more: what its largest block needs while it works counts once, and so do the buffers
 * of what goes to the host, of at least one block. */
static void uniform_memory(const struct shape *shape, const struct stage_entry *of, size_t kind,
                           struct stage_memory *out)
{
    const struct stage_bytes *bytes = &shape->bytes[of->group];
    struct stage_entry entry = *of;
    memset(entry.kinds, 0, sizeof(entry.kinds));
    entry.kinds[kind] = entry.blocks;
    stage_memory_fill(bytes, &entry, out);
    if (shape->kinds[kind].mode.offload && entry.blocks > 1) {
        out->terms[MEMORY_ACTIVATIONS] -= bytes->blocks[kind].kept;
        out->sum -= bytes->blocks[kind].kept;
    }
}

static void build_chain(const struct shape *shape, const struct content *content, enum need need,
                        const struct stage_memory *at, struct mix_chain *out)
{
    const struct stage_entry *entry = &content->entry;
    const struct kind_measures *measures = &shape->measures[entry->group];
    struct chain_class classes[BLOCK_CLASSES_MAX];
    struct chain_prices prices;
    for (size_t kind = 0; kind < shape->kind_count; kind++) {
        struct stage_memory memory;
        uniform_memory(shape, entry, kind, &memory);
        double share = (double)shape->item_blocks / (double)entry->blocks;
        prices.bytes[kind] = share * tangent_bytes(shape, need, &memory, at);
        prices.seconds[kind] = shape->item_blocks *
                               (measures->of[kind][MIX_FORWARD] + measures->of[kind][MIX_BACKWARD]);
    }
    for (size_t class = 0; class < shape->class_count; class ++)
        classes[class] =
            (struct chain_class){shape->classes[class].admitted, content->list->content[class]};
    mix_chain_build(&prices, classes, shape->class_count, out);
}

/* One of the chain's mixes, in blocks. */
static void chain_entry(const struct shape *shape, const struct content *content,
                        const struct mix_chain *chain, size_t index, struct stage_entry *entry,
                        uint16_t kinds[BLOCK_KINDS_MAX])
{
    mix_chain_at(chain, index, kinds);
    for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++)
        kinds[kind] = (uint16_t)(kinds[kind] * shape->item_blocks);
    *entry = content->entry;
    stage_set_kinds(shape, kinds, entry);
}

static bool chain_memory(const struct shape *shape, const struct content *content,
                         const struct mix_chain *chain, size_t index, struct stage_memory *memory)
{
    uint16_t kinds[BLOCK_KINDS_MAX];
    struct stage_entry entry;
    chain_entry(shape, content, chain, index, &entry, kinds);
    stage_memory_fill(&shape->bytes[entry.group], &entry, memory);
    return stage_fits(shape, memory);
}

/* A mix that fits, of which the next does not; false: not even the leanest does. `memory` is its,
 * or the leanest's. */
static bool last_that_fits(const struct shape *shape, const struct content *content,
                           const struct mix_chain *chain, size_t *index,
                           struct stage_memory *memory)
{
    size_t low = 0, high = chain->count - 1;
    struct stage_memory trial;
    *index = 0;
    if (!chain_memory(shape, content, chain, 0, memory))
        return false;
    if (chain_memory(shape, content, chain, high, &trial))
        low = high;
    while (low + 1 < high) {
        size_t middle = (low + high) / 2;
        if (chain_memory(shape, content, chain, middle, &trial))
            low = middle;
        else
            high = middle;
    }
    *index = low;
    return chain_memory(shape, content, chain, low, memory);
}

/* Do chains bound what stages of this shape need and take? Not under zb-h1, where other parts of a
 * micro-batch's work count than their sum and memory is the larger of two stages'; nor where the
 * optimizer's step can take what activations have left. */
static bool chains_bound(const struct shape *shape)
{
    const struct layout *layout = &shape->layout;
    bool shares_scratch = layout->framework == FRAMEWORK_DEEPSPEED &&
                          (layout->arithmetic != ARITHMETIC_BF16 || layout->offload_optimizer);
    return shape->prices.byte == 0 && shape->prices.joule == 0 &&
           layout->schedule != SCHEDULE_ZB_H1 && !shares_scratch;
}

/* Seconds of a micro-batch below which the blocks of no mix come that fits; INFINITY: none does. */
static double least_passes_s(const struct shape *shape, const struct content *content,
                             const struct stage_memory *at)
{
    const double same_share = 1e-12; /* sums in another order differ by less */
    double most_bytes[] = {
        [NEED_DEVICE] = at->device_bytes,
        [NEED_CAP] = (double)shape->request->layouts->memory_cap_bytes,
        [NEED_MEAN] = shape->request->mean_cap_bytes,
    };
    double least_s = 0;
    for (int need = 0; need < NEED_COUNT; need++) {
        struct mix_chain chain;
        if (need != NEED_DEVICE && most_bytes[need] == 0)
            continue;
        build_chain(shape, content, (enum need)need, at, &chain);
        double s = mix_chain_least_s(&chain, most_bytes[need] * (1 + same_share));
        least_s = fmax(least_s, s * (1 - same_share));
    }
    return least_s;
}

/* What a stage costs whose blocks take so many seconds a micro-batch, or more. Which of them are
 * forward is not known: exchanges hide behind the longest forward pass of any mix, and the backward
 * pass that the shortest leaves. A longer pass hides no more than it adds. */
static struct stage_floor stage_floor(struct shape *shape, const struct content *content,
                                      double passes_s)
{
    const struct stage_entry *entry = &content->entry;
    const struct kind_measures *measures = &shape->measures[entry->group];
    struct stage_prices hiding = shape->space->slowest[entry->group];
    double longest_s = 0, shortest_s = 0;
    struct stage_work work;
    for (size_t class = 0; class < shape->class_count; class ++) {
        size_t first = class_first_kind(&shape->classes[class]);
        double most = 0, least = INFINITY;
        for (size_t kind = 0; kind < shape->kind_count; kind++) {
            if ((shape->classes[class].admitted >> kind & 1) == 0)
                continue;
            most = fmax(most, measures->of[kind][MIX_FORWARD]);
            least = fmin(least, measures->of[kind][MIX_FORWARD]);
        }
        hiding.kinds[first][PASS_FORWARD] = (struct pass_time){.product_s = most};
        longest_s += (double)entry->kinds[first] * most;
        shortest_s += (double)entry->kinds[first] * least;
    }
    for (size_t class = 0; class < shape->class_count; class ++)
        hiding.kinds[class_first_kind(&shape->classes[class])][PASS_BACKWARD] =
            (struct pass_time){.product_s = (passes_s - shortest_s) / (double)entry->blocks};
    stage_work_fill(&hiding, entry, &work);
    work.pass_s[PASS_BACKWARD] -= longest_s - shortest_s;
    shape_hide_most(shape, &content->slowest, &work);
    work.host_s = fmin(work.host_s, content->slowest.host_s);
    return span_costs(shape, &work);
}

static enum status price_last(struct shape *shape, const struct content *content,
                              const struct mix_chain *lean, struct error *err)
{
    struct mix_chain chain;
    struct stage_memory memory;
    struct stage_entry entry;
    size_t index;
    uint16_t kinds[BLOCK_KINDS_MAX];
    /* where memory ends the tangent is best */
    last_that_fits(shape, content, lean, &index, &memory);
    build_chain(shape, content, NEED_DEVICE, &memory, &chain);
    bool is_option = last_that_fits(shape, content, &chain, &index, &memory);
    double passes_s = least_passes_s(shape, content, &memory);
    if (!(passes_s < INFINITY))
        return STATUS_OK;
    chain_entry(shape, content, &chain, index, &entry, kinds);
    struct stage_option option = stage_price_mix(shape, &entry, &content->slowest, kinds, &memory);
    option.floor = stage_floor(shape, content, passes_s);
    option.cost = is_option ? option.cost : INFINITY;
    shape->has_floors = true;
    return stage_offer_option(shape, content->list, &option, err);
}

static enum status price_chain(struct shape *shape, const struct content *content,
                               struct error *err)
{
    struct mix_chain chain;
    struct stage_memory memory;
    /* of the slowest mode: its margin stands for all until more is known */
    uniform_memory(shape, &content->entry, class_first_kind(&shape->classes[0]), &memory);
    build_chain(shape, content, NEED_DEVICE, &memory, &chain);
    if (chains_bound(shape))
        return price_last(shape, content, &chain, err);
    shape->lacks_floors = true;
    for (size_t i = 0; i < chain.count && !shape_is_cut(shape); i++) {
        struct stage_entry entry;
        uint16_t kinds[BLOCK_KINDS_MAX];
        if (!chain_memory(shape, content, &chain, i, &memory))
            continue;
        chain_entry(shape, content, &chain, i, &entry, kinds);
        const struct stage_option option =
            stage_price_mix(shape, &entry, &content->slowest, kinds, &memory);
        TRY(stage_offer_option(shape, content->list, &option, err));
    }
    return STATUS_OK;
}

static enum status price_content(struct shape *shape, struct option_list *list, struct error *err)
{
    const struct content content = content_of(shape, list);
    bool is_chain;
    if (stage_quickest_serves(shape, &content, work_most(shape)))
        return stage_quickest_price(shape, &content, err);
    TRY(are_too_many(shape, &content, &is_chain, err));
    if (shape_is_cut(shape))
        return STATUS_OK;
    return is_chain ? price_chain(shape, &content, err) : price_every_mix(shape, &content, err);
}

static size_t hash_of(size_t stage, const uint16_t content[BLOCK_CLASSES_MAX])
{
    size_t hash = stage;
    for (size_t class = 0; class < BLOCK_CLASSES_MAX; class ++)
        hash = hash * 1000003 + content[class];
    return (hash ^ hash >> 17) % OPTION_HEADS;
}

enum status stage_options_find(struct shape *shape, size_t stage, size_t first, size_t end,
                               size_t *index, struct error *err)
{
    struct option_list wanted = {.stage = stage, .least_repeat_s = INFINITY};
    for (size_t item = first; item < end; item++)
        wanted.content[shape->item_classes[item]]++;
    size_t head = hash_of(stage, wanted.content);
    for (*index = shape->space->heads[head]; *index != LIST_END;
         *index = shape->lists[*index].next) {
        const struct option_list *list = &shape->lists[*index];
        if (list->stage == stage &&
            memcmp(list->content, wanted.content, sizeof(wanted.content)) == 0)
            return STATUS_OK;
    }
    if (shape->list_count == shape->list_capacity) {
        size_t capacity = shape->list_capacity > 0 ? 2 * shape->list_capacity : 256;
        struct option_list *grown = realloc(shape->lists, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "what stages can be");
        shape->lists = grown;
        shape->list_capacity = capacity;
    }
    wanted.begin = shape->option_count;
    wanted.next = shape->space->heads[head];
    *index = shape->list_count++;
    shape->lists[*index] = wanted;
    shape->space->heads[head] = *index;
    return price_content(shape, &shape->lists[*index], err);
}
