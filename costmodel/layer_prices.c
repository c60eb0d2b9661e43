#include "costmodel/layer_prices.h"

#include <stdlib.h>
#include <string.h>

/* ---- what layers see of a layout ---- */

enum { VIEW_KEY_WORDS = 4 };

struct view_key {
    uint64_t words[VIEW_KEY_WORDS];
};

struct layout layer_view(const struct layout *layout)
{
    return (struct layout){
        .framework = layout->framework,
        .tensor = layout->tensor,
        .context = layout->context,
        .expert = layout->expert,
        .schedule = layout->schedule,
        .sequence_parallel = layout->sequence_parallel,
        .micro_batch = layout->micro_batch,
        .arithmetic = layout->arithmetic,
        .elementwise = layout->elementwise,
        .fused_attention = layout->fused_attention,
        .fused_cross_entropy = layout->fused_cross_entropy,
        .overlap_tensor = layout->overlap_tensor,
    };
}

/* All of a view, and the group. The layout has passed layout_check: its degrees have 31 bits. */
static struct view_key view_key(const struct node_group *group, const struct layout *layout)
{
    uint64_t choices = layout->framework;
    choices = choices << 8 | layout->schedule;
    choices = choices << 8 | layout->arithmetic;
    choices = choices << 8 | layout->elementwise;
    choices = choices << 1 | layout->sequence_parallel;
    choices = choices << 1 | layout->fused_attention;
    choices = choices << 1 | layout->fused_cross_entropy;
    choices = choices << 1 | layout->overlap_tensor;
    return (struct view_key){{
        (uint64_t)(uintptr_t)group,
        choices,
        (uint64_t)layout->tensor << 32 | (uint64_t)layout->context,
        (uint64_t)layout->expert << 32 | (uint64_t)layout->micro_batch,
    }};
}

/* ---- one view ---- */

void layer_prices_start(const struct node_group *group, const struct model *model,
                        const struct layout *layout, struct layer_prices *out)
{
    out->group = group;
    out->view = layer_view(layout);
    out->share = layout_share(group, model, &out->view);
    out->head_bytes = head_bytes(&out->share);
    out->has_tables = false;
    out->kind_count = 0;
}

static void block_prices_fill(const struct layout_share *share, const struct block_kind *kind,
                              struct block_prices *out)
{
    bool puts_off = share->layout->schedule == SCHEDULE_ZB_H1;
    out->kind = *kind;
    out->parameters = block_parameters(share, kind->has_experts);
    out->experts = kind->has_experts ? expert_parameters(share) : 0;
    out->bytes = block_bytes(share, kind);
    out->late_bytes = puts_off ? late_weight_bytes(share, kind->has_experts) : 0;
    out->has_passes = false;
}

static struct block_prices *find_block(struct layer_prices *prices, const struct block_kind *kind,
                                       struct block_prices *spare)
{
    struct block_prices *block = prices->kinds, *end = block + prices->kind_count;
    while (block < end && !block_kind_equal(&block->kind, kind))
        block++;
    if (block < end)
        return block;
    if (prices->kind_count == LAYER_PRICES_KINDS)
        block = spare;
    else
        prices->kind_count++;
    block_prices_fill(&prices->share, kind, block);
    return block;
}

const struct block_prices *layer_prices_block(struct layer_prices *prices,
                                              const struct block_kind *kind,
                                              struct block_prices *spare)
{
    return find_block(prices, kind, spare);
}

const struct block_prices *layer_prices_passes(struct layer_prices *prices,
                                               const struct block_kind *kind,
                                               struct block_prices *spare)
{
    struct block_prices *block = find_block(prices, kind, spare);
    if (!block->has_passes)
        block_passes(&prices->share, kind, block->pass);
    block->has_passes = true;
    return block;
}

void layer_prices_tables(struct layer_prices *prices)
{
    if (prices->has_tables)
        return;
    embedding_passes(&prices->share, prices->embedding);
    head_passes(&prices->share, prices->head);
    prices->has_tables = true;
}

/* ---- many views ---- */

/* Searches of thousands of devices have two or three thousand views. */
enum { ROWS_MAX = 4096, SLOTS = 2 * ROWS_MAX };

struct layer_memory {
    const struct model *model;
    size_t count;
    uint16_t slots[SLOTS]; /* row + 1; 0: empty. Of equal slots the next free one is taken */
    struct view_key keys[ROWS_MAX];     /* [count] */
    struct layer_prices rows[ROWS_MAX]; /* [count] */
};

struct layer_memory *layer_memory_new(const struct model *model)
{
    struct layer_memory *memory = malloc(sizeof(*memory));
    if (!memory)
        return NULL;
    memory->model = model;
    memory->count = 0;
    memset(memory->slots, 0, sizeof(memory->slots));
    return memory;
}

void layer_memory_free(struct layer_memory *memory)
{
    free(memory);
}

static size_t slot_of(const struct view_key *key)
{
    uint64_t mixed = 0;
    for (size_t i = 0; i < VIEW_KEY_WORDS; i++)
        mixed = (mixed ^ key->words[i]) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    return (size_t)(mixed >> 32) % SLOTS;
}

static bool same_key(const struct view_key *a, const struct view_key *b)
{
    return memcmp(a->words, b->words, sizeof(a->words)) == 0;
}

struct layer_prices *layer_memory_prices(struct layer_memory *memory,
                                         const struct node_group *group,
                                         const struct layout *layout)
{
    const struct view_key key = view_key(group, layout);
    size_t slot = slot_of(&key);
    for (; memory->slots[slot] != 0; slot = (slot + 1) % SLOTS) {
        size_t row = memory->slots[slot] - 1u;
        if (same_key(&memory->keys[row], &key))
            return &memory->rows[row];
    }
    if (memory->count == ROWS_MAX)
        return NULL;
    struct layer_prices *row = &memory->rows[memory->count];
    memory->keys[memory->count++] = key;
    layer_prices_start(group, memory->model, layout, row);
    memory->slots[slot] = (uint16_t)memory->count;
    return row;
}
