#include "ir/own_layout.h"

#include <stdlib.h>
#include <string.h>

static void free_blocks(struct own_blocks *blocks)
{
    if (blocks == NULL)
        return;
    free(blocks->modes);
    free(blocks->stage_blocks);
    free(blocks->stage_groups);
    free(blocks->places);
    free(blocks);
}

static struct own_blocks *new_blocks(size_t count, size_t stages)
{
    struct own_blocks *blocks = calloc(1, sizeof(*blocks));
    if (blocks == NULL)
        return NULL;
    blocks->modes = calloc(count, sizeof(*blocks->modes));
    blocks->places = calloc(count, sizeof(*blocks->places));
    blocks->stage_blocks = calloc(stages, sizeof(*blocks->stage_blocks));
    blocks->stage_groups = calloc(stages, sizeof(*blocks->stage_groups));
    blocks->blocks = (int64_t)count;
    blocks->stages = (int64_t)stages;
    blocks->plan = (struct block_plan){blocks->modes, blocks->stage_blocks, blocks->stage_groups};
    if (blocks->modes != NULL && blocks->places != NULL && blocks->stage_blocks != NULL &&
        blocks->stage_groups != NULL)
        return blocks;
    free_blocks(blocks);
    return NULL;
}

enum status own_layout_open(struct own_layout *out, const struct layout *from,
                            const struct model *model, struct error *err)
{
    size_t count = (size_t)model->blocks, stages = (size_t)from->pipeline;
    struct own_blocks *blocks = new_blocks(count, stages);

    *out = (struct own_layout){.layout = *from, .blocks = blocks};
    if (blocks == NULL)
        return error_memory(err, count * sizeof(struct block_mode), "a layout's blocks");
    for (size_t i = 0; i < count; i++)
        blocks->modes[i] = layout_block_mode(from, (int64_t)i);
    for (size_t i = 0; i < stages; i++) {
        blocks->stage_blocks[i] = layout_stage_blocks(from, model, (int64_t)i);
        if (from->own != NULL && from->own->stage_groups != NULL)
            blocks->stage_groups[i] = from->own->stage_groups[i];
    }
    own_layout_settle(out, model);
    return STATUS_OK;
}

void own_layout_free(struct own_layout *own)
{
    free_blocks(own->blocks);
    own->blocks = NULL;
}

int64_t own_layout_chunk_blocks(const struct own_layout *own, int64_t stage, int64_t chunk)
{
    int64_t blocks = own->blocks->stage_blocks[stage], chunks = own->layout.virtual_stages;
    int64_t from_end = chunks - 1 - chunk;
    return blocks / chunks + ((stage == 0 ? from_end : chunk) < blocks % chunks ? 1 : 0);
}

static void place_blocks(struct own_layout *own)
{
    struct block_place *place = own->blocks->places;

    for (int64_t stage = 0; stage < own->blocks->stages; stage++) {
        int64_t in_stage = 0;
        for (int64_t chunk = 0; chunk < own->layout.virtual_stages; chunk++) {
            int64_t blocks = own_layout_chunk_blocks(own, stage, chunk);
            for (int64_t i = 0; i < blocks; i++)
                *place++ = (struct block_place){stage, chunk, in_stage++, i};
        }
    }
}

static bool same_modes(const struct own_blocks *blocks)
{
    const struct block_mode *first = &blocks->modes[0];
    for (int64_t i = 1; i < blocks->blocks; i++) {
        const struct block_mode *mode = &blocks->modes[i];
        if (mode->recompute != first->recompute || mode->arithmetic != first->arithmetic ||
            mode->offload != first->offload)
            return false;
    }
    return true;
}

static bool plain_stages(const struct own_layout *own, const struct model *model)
{
    struct layout plain = own->layout;
    plain.own = NULL;
    for (int64_t i = 0; i < own->blocks->stages; i++) {
        if (own->blocks->stage_groups[i] != 0 ||
            own->blocks->stage_blocks[i] != layout_stage_blocks(&plain, model, i))
            return false;
    }
    return true;
}

void own_layout_settle(struct own_layout *own, const struct model *model)
{
    struct own_blocks *blocks = own->blocks;
    const struct block_mode *first = &blocks->modes[0];

    place_blocks(own);
    own->layout.own = &blocks->plan;
    bool is_own_arithmetic = first->arithmetic == own->layout.arithmetic;
    if (!same_modes(blocks) || !is_own_arithmetic || !plain_stages(own, model))
        return;
    own->layout.recompute = first->recompute;
    own->layout.offload_activations = first->offload;
    own->layout.own = NULL;
}

void own_layout_cut_evenly(struct own_layout *own, const struct model *model)
{
    struct layout plain = own->layout;
    plain.own = NULL;
    for (int64_t i = 0; i < own->blocks->stages; i++)
        own->blocks->stage_blocks[i] = layout_stage_blocks(&plain, model, i);
}
