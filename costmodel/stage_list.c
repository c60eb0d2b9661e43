#include "costmodel/stage_list.h"

#include <string.h>

static size_t kind_index(struct stage_list *list, const struct block_kind *kind)
{
    size_t index = 0;
    while (index < list->kind_count && !block_kind_equal(&list->kinds[index], kind))
        index++;
    if (index == list->kind_count)
        list->kinds[list->kind_count++] = *kind;
    return index;
}

/* Blocks of a uniform layout whose model has one kind of them. */
static bool is_plain(const struct model *model, const struct layout *layout)
{
    return !layout->own && (model->experts == 0 || model->moe_every == 1);
}

static void count_kinds(const struct model *model, const struct layout *layout, int64_t begin,
                        struct stage_list *list, struct stage_entry *entry)
{
    if (is_plain(model, layout)) {
        entry->kinds[0] = entry->blocks;
        return;
    }
    for (int64_t block = begin; block < begin + entry->blocks; block++) {
        const struct block_kind kind = {model_block_has_experts(model, block),
                                        layout_block_mode(layout, block)};
        size_t known = list->kind_count, index = kind_index(list, &kind);
        if (index == known) /* a new one: no entry has any yet */
            for (struct stage_entry *each = list->entries; each <= entry; each++)
                each->kinds[index] = 0;
        entry->kinds[index]++;
    }
}

static bool joins(const struct stage_list *list, const struct stage_entry *before,
                  const struct stage_entry *entry)
{
    return before->group == entry->group && before->blocks == entry->blocks &&
           !before->has_embedding && !entry->has_head &&
           memcmp(before->kinds, entry->kinds, list->kind_count * sizeof(entry->kinds[0])) == 0;
}

/* How many stages from this one on are alike for certain: of plain layouts the first and the last
 * one differ, and those before blocks % p may have one block more. */
static int64_t alike_stages(const struct model *model, const struct layout *layout, int64_t stage)
{
    int64_t p = layout->pipeline, fuller = model->blocks % p;
    if (!is_plain(model, layout) || stage == 0 || stage == p - 1)
        return 1;
    return (stage < fuller && fuller < p - 1 ? fuller : p - 1) - stage;
}

void stage_list(const struct model *model, const struct layout *layout, struct stage_list *out)
{
    int64_t begin = 0;

    out->kind_count = out->count = 0;
    if (is_plain(model, layout)) {
        out->kinds[0] = (struct block_kind){model->experts > 0, layout_block_mode(layout, 0)};
        out->kind_count = 1;
    }
    for (int64_t stage = 0; stage < layout->pipeline;) {
        struct stage_entry *entry = &out->entries[out->count];
        bool has_groups = layout->own && layout->own->stage_groups;
        entry->first = stage;
        entry->count = alike_stages(model, layout, stage);
        entry->group = has_groups ? layout->own->stage_groups[stage] : 0;
        entry->blocks = layout_stage_blocks(layout, model, stage);
        entry->has_embedding = stage == 0;
        entry->has_head = stage == layout->pipeline - 1;
        for (size_t i = 0; i < out->kind_count; i++)
            entry->kinds[i] = 0;
        count_kinds(model, layout, begin, out, entry);
        begin += entry->count * entry->blocks;
        stage += entry->count;
        if (out->count > 0 && joins(out, entry - 1, entry))
            entry[-1].count += entry->count;
        else
            out->count++;
    }
}
