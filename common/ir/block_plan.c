#include "ir/block_plan.h"

#include "base/json.h"
#include "base/text.h"
#include "ir/layout.h"
#include "ir/model.h"

/* ---- what a block does, feature by feature ---- */

enum feature { FEATURE_RECOMPUTE, FEATURE_ARITHMETIC, FEATURE_OFFLOAD, FEATURE_COUNT };

static int value_of(struct block_mode mode, enum feature feature)
{
    switch (feature) {
    case FEATURE_RECOMPUTE:
        return (int)mode.recompute;
    case FEATURE_ARITHMETIC:
        return (int)mode.arithmetic;
    default:
        return mode.offload;
    }
}

/* Neighbouring blocks with the same value. */
struct run {
    int64_t first, blocks;
    int value;
};

/* The run that begins with this block; it ends before `end`. */
static struct run run_from(const struct layout *layout, enum feature feature, int64_t first,
                           int64_t end)
{
    struct run run = {first, 1, value_of(layout_block_mode(layout, first), feature)};
    while (first + run.blocks < end &&
           value_of(layout_block_mode(layout, first + run.blocks), feature) == run.value)
        run.blocks++;
    return run;
}

/* ---- stages ---- */

struct stage {
    int64_t first_block, blocks;
    size_t group;
};

static struct stage stage_of(const struct layout *layout, const struct model *model, int64_t number,
                             int64_t first_block)
{
    bool has_groups = layout->own != NULL && layout->own->stage_groups != NULL;
    return (struct stage){
        .first_block = first_block,
        .blocks = layout_stage_blocks(layout, model, number),
        .group = has_groups ? layout->own->stage_groups[number] : 0,
    };
}

static bool are_alike(const struct layout *layout, const struct stage *a, const struct stage *b)
{
    if (a->group != b->group || a->blocks != b->blocks)
        return false;
    for (int64_t i = 0; i < a->blocks; i++) {
        struct block_mode x = layout_block_mode(layout, a->first_block + i);
        struct block_mode y = layout_block_mode(layout, b->first_block + i);
        for (int feature = 0; feature < FEATURE_COUNT; feature++)
            if (value_of(x, (enum feature)feature) != value_of(y, (enum feature)feature))
                return false;
    }
    return true;
}

/* ---- as JSON ---- */

static void write_runs(const struct layout *layout, const struct stage *stage, enum feature feature,
                       struct jout *out)
{
    static const char *const keys[FEATURE_COUNT] = {"recompute", "arithmetic", "offload"};
    int64_t end = stage->first_block + stage->blocks;

    jout_begin_array(out, keys[feature]);
    for (int64_t block = stage->first_block; block < end;) {
        struct run run = run_from(layout, feature, block, end);
        jout_begin_object(out, NULL);
        if (feature == FEATURE_RECOMPUTE)
            jout_string(out, "mode", recompute_name((enum recompute)run.value));
        else if (feature == FEATURE_ARITHMETIC)
            jout_string(out, "mode", arithmetic_name((enum arithmetic)run.value));
        else
            jout_bool(out, "mode", run.value != 0);
        jout_int(out, "blocks", run.blocks);
        jout_end(out);
        block += run.blocks;
    }
    jout_end(out);
}

void block_plan_write(const struct layout *layout, const struct model *model, struct jout *out)
{
    int64_t first = 0;

    jout_begin_array(out, "stages");
    for (int64_t number = 0; number < layout->pipeline; number++) {
        struct stage stage = stage_of(layout, model, number, first);
        jout_begin_object(out, NULL);
        jout_int(out, "group", (int64_t)stage.group);
        jout_int(out, "first_block", stage.first_block);
        jout_int(out, "blocks", stage.blocks);
        for (int feature = 0; feature < FEATURE_COUNT; feature++)
            write_runs(layout, &stage, (enum feature)feature, out);
        jout_end(out);
        first += stage.blocks;
    }
    jout_end(out);
}

/* ---- in words ---- */

/* "3" or "3-7" */
static void append_range(int64_t first, int64_t count, struct text *out)
{
    text_printf(out, "%lld", (long long)first);
    if (count > 1)
        text_printf(out, "-%lld", (long long)(first + count - 1));
}

/* What goes without saying, and what the rest is called. */
static int plain_value(const struct layout *layout, enum feature feature)
{
    static const int plain[FEATURE_COUNT] = {[FEATURE_RECOMPUTE] = RECOMPUTE_NONE};
    return feature == FEATURE_ARITHMETIC ? (int)layout->arithmetic : plain[feature];
}

static const char *value_name(enum feature feature, int value)
{
    if (feature == FEATURE_RECOMPUTE)
        return recompute_name((enum recompute)value);
    return feature == FEATURE_ARITHMETIC ? arithmetic_name((enum arithmetic)value) : "offload";
}

/* ", recompute full 0-2, selective 3-5". Without numbers where all of the stage's blocks do the
 * same, nothing where that goes without saying; of one stage's blocks the model's numbers. */
static void append_feature(const struct layout *layout, const struct stage *stage, bool has_numbers,
                           enum feature feature, struct text *out)
{
    static const char *const titles[FEATURE_COUNT] = {[FEATURE_RECOMPUTE] = "recompute "};
    int64_t end = stage->first_block + stage->blocks;
    const char *title = titles[feature] != NULL ? titles[feature] : "";
    int last = plain_value(layout, feature);

    for (int64_t block = stage->first_block; block < end;) {
        struct run run = run_from(layout, feature, block, end);
        block += run.blocks;
        if (run.value == plain_value(layout, feature)) {
            if (run.blocks == stage->blocks && feature == FEATURE_RECOMPUTE)
                text_append(out, ", no recompute");
            continue;
        }
        text_append(out, ", ");
        if (run.value != last)
            text_printf(out, "%s%s", title, value_name(feature, run.value));
        if (run.blocks < stage->blocks) {
            text_append(out, run.value != last ? " " : "");
            append_range(run.first - (has_numbers ? 0 : stage->first_block), run.blocks, out);
            text_append(out, has_numbers ? "" : " of each");
        }
        title = "";
        last = run.value;
    }
}

/* The blocks' numbers say which of the model they are only where a stage's stand together. */
static void append_stages(const struct layout *layout, const struct stage *stage, int64_t first,
                          int64_t count, struct text *out)
{
    bool is_interleaved = layout->virtual_stages > 1, is_one = count == 1;

    text_append(out, is_one ? "stage " : "stages ");
    append_range(first, count, out);
    text_append(out, ": ");
    if (is_interleaved) {
        text_printf(out, "%lld blocks%s in %lld chunks", (long long)stage->blocks,
                    is_one ? "" : " each", (long long)layout->virtual_stages);
    } else {
        text_append(out, count * stage->blocks > 1 ? "blocks " : "block ");
        append_range(stage->first_block, count * stage->blocks, out);
        text_printf(out, " (%lld%s)", (long long)stage->blocks, is_one ? "" : " each");
    }
    if (layout->own != NULL && layout->own->stage_groups != NULL && stage->group > 0)
        text_printf(out, " on node group %zu", stage->group);
    for (int feature = 0; feature < FEATURE_COUNT; feature++)
        append_feature(layout, stage, is_one && !is_interleaved, (enum feature)feature, out);
    text_append(out, "\n");
}

void block_plan_text(const struct layout *layout, const struct model *model, struct text *out)
{
    int64_t first_block = 0;

    for (int64_t number = 0; number < layout->pipeline;) {
        struct stage stage = stage_of(layout, model, number, first_block);
        int64_t count = 1;
        for (; number + count < layout->pipeline; count++) {
            struct stage next =
                stage_of(layout, model, number + count, first_block + count * stage.blocks);
            if (!are_alike(layout, &stage, &next))
                break;
        }
        append_stages(layout, &stage, number, count, out);
        number += count;
        first_block += count * stage.blocks;
    }
}
