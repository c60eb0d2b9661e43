/* Layouts whose blocks differ, against every cut into stages and every mode of every block. */
#include "base/stats.h"
#include "costmodel/predict.h"
#include "planner/stage_columns.h"
#include "planner/tailor.h"
#include "random_cluster.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCKS_MOST = 7, MODES_MOST = 12, TRIALS_MOST = 2500, INSTANCES = 600 };

struct instance {
    struct cluster cluster;
    struct model model;
    struct layouts_request layouts;
    struct layout_weights weights;
    struct layout_list uniform; /* owned */
    struct priced_layout units;
    double best_uniform; /* INFINITY: none fits */
    struct arithmetic_list arithmetics;
    double gap_target;
    bool blocks_offload;
};

/* ---- every layout ---- */

struct every {
    const struct instance *instance;
    bool only_counts;
    uint64_t count, fitting;
    double best, best_of_any; /* of those that fit, of all */
    double shape_best_of_any; /* of the shape at work */
    struct shape_space *space;
    /* the shape at work */
    struct layout layout;
    int64_t item_blocks, items;
    int64_t stage_blocks[BLOCKS_MOST], stage_items[BLOCKS_MOST];
    size_t stage_groups[BLOCKS_MOST];
    struct block_mode modes[BLOCKS_MOST];
    size_t chosen[BLOCKS_MOST]; /* by item: index of its mode */
    struct block_plan plan;
};

static const struct block_pin *pin_of(const struct layout_pins *pins, int64_t block)
{
    for (size_t i = 0; i < pins->block_count; i++)
        if (pins->blocks[i].first <= block && block <= pins->blocks[i].last)
            return &pins->blocks[i];
    return NULL;
}

static bool is_admitted(const struct every *every, int64_t block, const struct block_mode *mode)
{
    const struct layout_pins *pins = &every->instance->layouts.pins;
    const struct block_pin *pin = pin_of(pins, block);
    int recompute = pins->recompute;
    if (pin && pin->recompute >= 0)
        recompute = pin->recompute;
    if (recompute >= 0 && (int)mode->recompute != recompute)
        return false;
    return !pin || pin->arithmetic < 0 || (int)mode->arithmetic == pin->arithmetic;
}

/* What one software stores: 32 bit, or one of 16 bit with fp8. */
static bool goes_with(enum arithmetic layout, enum arithmetic block)
{
    static const bool go[ARITHMETIC_COUNT][ARITHMETIC_COUNT] = {
        [ARITHMETIC_FP32] = {[ARITHMETIC_FP32] = true, [ARITHMETIC_TF32] = true},
        [ARITHMETIC_TF32] = {[ARITHMETIC_FP32] = true, [ARITHMETIC_TF32] = true},
        [ARITHMETIC_BF16] = {[ARITHMETIC_BF16] = true, [ARITHMETIC_FP8] = true},
        [ARITHMETIC_FP16] = {[ARITHMETIC_FP16] = true, [ARITHMETIC_FP8] = true},
        [ARITHMETIC_FP8] = {[ARITHMETIC_FP8] = true},
    };
    return go[layout][block];
}

static size_t modes_of(const struct every *every, int64_t block, struct block_mode out[MODES_MOST])
{
    size_t count = 0;
    const struct layout *layout = &every->layout;
    const struct layout_pins *pins = &every->instance->layouts.pins;
    bool chooses = every->instance->blocks_offload && pins->offload < 0;
    bool all_go = layout->offload_activations && !chooses;
    for (int away = layout->offload_activations ? 1 : 0; away >= 0; away--) {
        bool has_none = count == 0 && pins->offload < 0;
        bool is_left_out =
            away == 0 && !has_none && (all_go || (count > 0 && pins->block_count > 0));
        for (int recompute = 0; recompute < RECOMPUTE_COUNT && !is_left_out; recompute++) {
            if (away && !layout_admits_activations_away(layout, (enum recompute)recompute))
                continue;
            for (size_t i = 0; i < every->instance->arithmetics.count; i++) {
                const struct block_mode mode = {(enum recompute)recompute,
                                                every->instance->arithmetics.items[i], away != 0};
                const struct block_pin *pin = pin_of(pins, block);
                /* random_cluster.c: tf32 is quicker */
                bool is_beaten =
                    mode.arithmetic == ARITHMETIC_FP32 && (!pin || pin->arithmetic < 0);
                if (goes_with(layout->arithmetic, mode.arithmetic) && !is_beaten &&
                    is_admitted(every, block, &mode))
                    out[count++] = mode;
            }
        }
    }
    return count;
}

static bool fits(const struct layouts_request *request, const struct layout_prediction *prediction)
{
    double deviations = normal_deviations(request->risk > 0 ? request->risk : MEMORY_RISK);
    double bytes = prediction->memory_bytes.value + deviations * prediction->memory_bytes.deviation;
    return layout_fits_at(prediction, deviations) &&
           (request->memory_cap_bytes == 0 || bytes <= (double)request->memory_cap_bytes);
}

static void try_layout(struct every *every)
{
    const struct instance *instance = every->instance;
    struct layout_prediction prediction;
    struct error err;
    every->count++;
    if (every->only_counts)
        return;
    struct layout layout = every->layout;
    layout.own = &every->plan;
    if (layout_check(&layout, &instance->model, "trial", &err) != STATUS_OK ||
        layout_predict(&instance->cluster, &instance->model, &layout, &prediction, &err) !=
            STATUS_OK)
        fail_msg("%s", err.message);
    const struct priced_layout row = {.time_s = prediction.time_s.value,
                                      .memory_bytes = prediction.memory_bytes.value,
                                      .energy_j = prediction.energy_j.value};
    double objective = layout_objective(&instance->weights, &instance->units, &row);
    every->best_of_any = fmin(every->best_of_any, objective);
    every->shape_best_of_any = fmin(every->shape_best_of_any, objective);
    if (!fits(&instance->layouts, &prediction))
        return;
    every->fitting++;
    every->best = fmin(every->best, objective);
}

/* Blocks of a stage that do the same work may change places: of these orders one is tried. */
static size_t least_choice(const struct every *every, int64_t item, int64_t stage_begin)
{
    const struct model *model = &every->instance->model;
    const struct layout_pins *pins = &every->instance->layouts.pins;
    int64_t block = item * every->item_blocks;
    for (int64_t before = item; before-- > stage_begin;) {
        int64_t other = before * every->item_blocks;
        if (model_block_has_experts(model, other) == model_block_has_experts(model, block) &&
            pin_of(pins, other) == pin_of(pins, block))
            return every->chosen[before];
    }
    return 0;
}

static int64_t stage_begin(const struct every *every, int64_t item)
{
    int64_t begin = 0;
    for (int64_t stage = 0; begin + every->stage_items[stage] <= item; stage++)
        begin += every->stage_items[stage];
    return begin;
}

static void each_mode(struct every *every, int64_t item)
{
    struct block_mode modes[MODES_MOST];
    if (every->only_counts && every->count > TRIALS_MOST)
        return;
    if (item == every->items) {
        try_layout(every);
        return;
    }
    size_t count = modes_of(every, item * every->item_blocks, modes);
    for (size_t i = least_choice(every, item, stage_begin(every, item)); i < count; i++) {
        every->chosen[item] = i;
        for (int64_t block = 0; block < every->item_blocks; block++)
            every->modes[item * every->item_blocks + block] = modes[i];
        each_mode(every, item + 1);
    }
}

static void each_cut(struct every *every, int64_t stage, int64_t left)
{
    int64_t behind = every->layout.pipeline - 1 - stage;
    for (int64_t items = behind > 0 ? 1 : left; items <= left - behind; items++) {
        every->stage_items[stage] = items;
        every->stage_blocks[stage] = items * every->item_blocks;
        if (behind == 0)
            each_mode(every, 0);
        else
            each_cut(every, stage + 1, left - items);
    }
}

/* False: a group does not divide into whole stages. */
static bool place_stages(struct every *every, bool swaps)
{
    const struct cluster *cluster = &every->instance->cluster;
    int64_t devices = every->layout.devices / every->layout.pipeline, stage = 0;
    for (size_t i = 0; i < cluster->group_count; i++) {
        size_t group = swaps ? cluster->group_count - 1 - i : i;
        int64_t has = cluster->groups[group].nodes * cluster->groups[group].node_devices;
        if (has % devices != 0)
            return false;
        for (int64_t k = 0; k < has / devices; k++)
            every->stage_groups[stage++] = group;
    }
    return true;
}

static void check_shape(struct every *every)
{
    const struct instance *instance = every->instance;
    const struct tailor_request request = {.layouts = &instance->layouts,
                                           .weights = &instance->weights,
                                           .units = instance->units,
                                           .best_objective = INFINITY,
                                           .arithmetics = instance->arithmetics,
                                           .blocks_offload = instance->blocks_offload};
    struct shape shape;
    struct error err;
    bool is_empty;
    if (shape_open(&shape, &request, &every->layout, every->stage_groups, every->space, &is_empty,
                   &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_false(is_empty);
    if (shape.least > every->shape_best_of_any * (1 + 1e-9))
        fail_msg("a shape of pipeline %lld is bounded by %.12g, its best is %.12g",
                 (long long)shape.layout.pipeline, shape.least, every->shape_best_of_any);
    shape_close(&shape);
}

static enum status visit(void *user, const struct layout *layout, struct error *err)
{
    struct every *every = user;
    const struct instance *instance = every->instance;
    bool is_plain = instance->model.experts == 0 || instance->model.moe_every == 1;
    int64_t v = layout->virtual_stages;
    (void)err;
    if (v > 1 &&
        (instance->model.blocks % v != 0 || !is_plain || instance->layouts.pins.block_count > 0))
        return STATUS_OK;
    for (size_t i = 0; i < instance->layouts.pins.block_count; i++) {
        int pinned = instance->layouts.pins.blocks[i].arithmetic;
        if (pinned >= 0 && !goes_with(layout->arithmetic, (enum arithmetic)pinned))
            return STATUS_OK;
    }
    every->layout = *layout;
    every->item_blocks = v;
    every->items = instance->model.blocks / v;
    if (every->items < layout->pipeline)
        return STATUS_OK;
    for (size_t order = 0; order < instance->cluster.group_count; order++) {
        if (!place_stages(every, order > 0))
            return STATUS_OK;
        every->shape_best_of_any = INFINITY;
        each_cut(every, 0, every->items);
        if (!every->only_counts)
            check_shape(every);
    }
    return STATUS_OK;
}

static unsigned every_wish(void *user)
{
    (void)user;
    return WISH_QUICKER | WISH_ACTIVATIONS_AWAY | WISH_OPTIMIZER_AWAY | WISH_BOTH_AWAY;
}

static struct every every_layout(const struct instance *instance, bool only_counts)
{
    struct every every = {.instance = instance,
                          .only_counts = only_counts,
                          .best = INFINITY,
                          .best_of_any = INFINITY,
                          .space = malloc(sizeof(*every.space))};
    struct layouts_request request = instance->layouts;
    const struct layout_visitor visitor = {.user = &every, .visit = visit, .wishes = every_wish};
    struct error err;
    bool is_whole;
    assert_non_null(every.space);
    every.plan = (struct block_plan){every.modes, every.stage_blocks, every.stage_groups};
    request.pins.recompute =
        request.framework == FRAMEWORK_DEEPSPEED ? RECOMPUTE_FULL : RECOMPUTE_NONE;
    if (layouts_each(&request, &visitor, &is_whole, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_true(is_whole);
    free(every.space);
    return every;
}

/* ---- instances ---- */

static void roll_block_pins(struct dice *dice, struct instance *out)
{
    struct layout_pins *pins = &out->layouts.pins;
    int64_t blocks = out->model.blocks, first = (int64_t)roll(dice, (uint64_t)blocks);
    struct block_pin pin = {.first = first,
                            .last = first + (int64_t)roll(dice, (uint64_t)(blocks - first)),
                            .recompute = (int)roll(dice, RECOMPUTE_COUNT + 1) - 1,
                            .arithmetic = -1};
    if (out->arithmetics.count > 1 && roll_true(dice, 2))
        pin.arithmetic = (int)out->arithmetics.items[roll(dice, out->arithmetics.count)];
    pins->blocks[pins->block_count++] = pin;
}

static bool has_hosts(const struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->group_count; i++)
        if (cluster->groups[i].device.host_memory_bytes == 0)
            return false;
    return true;
}

static void roll_pins(struct dice *dice, struct instance *out)
{
    struct layout_pins *pins = &out->layouts.pins;
    int64_t devices = out->cluster.groups[0].nodes * out->cluster.groups[0].node_devices;
    *pins = layout_pins_none();
    if (roll_true(dice, 2))
        pins->pipeline = 1 + (int64_t)roll(dice, 4);
    if (roll_true(dice, 3))
        pins->tensor = 1 + (int64_t)roll(dice, (uint64_t)devices);
    if (roll_true(dice, 2))
        pins->micro_batch = 1 + (int64_t)roll(dice, 2);
    if (roll_true(dice, 2))
        pins->context = 1;
    if (roll_true(dice, 3))
        pins->zero_stage = (int)roll(dice, 4);
    if (roll_true(dice, 6))
        pins->schedule = (int)roll(dice, SCHEDULE_COUNT);
    if (roll_true(dice, 6))
        pins->recompute = (int)roll(dice, RECOMPUTE_COUNT);
    if (!roll_true(dice, 3))
        pins->fused_attention = roll_true(dice, 2);
    if (roll_true(dice, 4))
        roll_block_pins(dice, out);
    if (has_hosts(&out->cluster) && roll_true(dice, 6))
        pins->offload = (int)roll(dice, 4);
}

/* Of one storage or of several, with what their blocks can choose from. */
static void roll_arithmetics(struct dice *dice, struct instance *out)
{
    static const struct {
        struct arithmetic_list layouts, blocks;
    } choices[] = {
        {{{ARITHMETIC_BF16}, 1}, {{ARITHMETIC_BF16}, 1}},
        {{{ARITHMETIC_BF16}, 1}, {{ARITHMETIC_BF16}, 1}},
        {{{ARITHMETIC_BF16}, 1}, {{ARITHMETIC_BF16, ARITHMETIC_FP8}, 2}},
        {{{ARITHMETIC_BF16}, 1}, {{ARITHMETIC_BF16, ARITHMETIC_FP8}, 2}},
        {{{ARITHMETIC_TF32}, 1}, {{ARITHMETIC_FP32, ARITHMETIC_TF32}, 2}},
        {{{ARITHMETIC_FP32}, 1}, {{ARITHMETIC_FP32, ARITHMETIC_TF32}, 2}},
        {{{ARITHMETIC_FP16, ARITHMETIC_BF16}, 2}, {{ARITHMETIC_BF16, ARITHMETIC_FP16}, 2}},
        {{{ARITHMETIC_TF32, ARITHMETIC_BF16}, 2},
         {{ARITHMETIC_FP32, ARITHMETIC_TF32, ARITHMETIC_BF16, ARITHMETIC_FP8}, 4}},
    };
    size_t of = roll(dice, sizeof(choices) / sizeof(choices[0]));
    const struct arithmetic_list *layouts = &choices[of].layouts;
    out->arithmetics = choices[of].blocks;
    out->layouts.arithmetic = layouts->items[0];
    for (size_t i = 1; i < layouts->count; i++)
        out->layouts.others.items[out->layouts.others.count++] = layouts->items[i];
}

static void roll_weights(struct dice *dice, struct instance *out)
{
    out->weights = (struct layout_weights){.time = 1, .raw = roll_true(dice, 4)};
    if (roll_true(dice, 3))
        out->weights.energy = roll_true(dice, 3) ? 10 : roll_real(dice);
    if (roll_true(dice, 3))
        out->weights.memory = roll_true(dice, 3) ? 10 : roll_real(dice);
    if (out->weights.energy + out->weights.memory > 0 && roll_true(dice, 4))
        out->weights.time = 0;
}

/* All devices in one group of one tier, so that uniform layouts can be priced. */
static struct cluster as_one_group(const struct cluster *cluster)
{
    struct cluster out = *cluster;
    int64_t devices = cluster_devices(cluster);
    if (cluster->group_count == 1)
        return out;
    out.group_count = 1;
    out.groups[0].nodes = devices;
    out.groups[0].node_devices = 1;
    out.groups[0].tier_count = 1;
    out.groups[0].tiers[0].devices = devices;
    return out;
}

/* Units, and memory that binds in every second instance. False: there is no layout. */
static bool roll_memory(struct dice *dice, struct instance *out)
{
    static const struct layout_weights time_alone = {.time = 1};
    static const double risks[] = {0, 0.01, 0.2};
    struct cluster cluster = as_one_group(&out->cluster);
    struct layouts_request request = out->layouts;
    struct layout_list list;
    struct error err;
    request.cluster = &cluster;
    if (layouts_price(&request, &list, &err) != STATUS_OK ||
        layouts_rank(&list, &time_alone, NULL, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    out->units = layouts_units(&list, out->weights.raw);
    out->layouts.risk = risks[roll(dice, 3)];
    double least = 0.97 * list.leanest_bytes;
    double most = list.count > 0 ? 1.05 * list.rows[0].memory_bytes : 0;
    bool binds = roll_true(dice, 2), is_cap = roll_true(dice, 4);
    for (size_t i = 0; binds && i < out->cluster.group_count; i++) {
        double bytes = least + roll_real(dice) * fmax(most - least, 0);
        if (is_cap)
            out->layouts.memory_cap_bytes = (uint64_t)bytes;
        else
            out->cluster.groups[i].device.memory_bytes = (uint64_t)bytes;
    }
    bool has_any = list.count > 0;
    layouts_free(&list);
    return has_any;
}

static void price_uniform(struct instance *out)
{
    struct error err;
    double *objectives;
    out->best_uniform = INFINITY;
    out->uniform = (struct layout_list){.rows = NULL};
    if (out->cluster.group_count > 1 || out->layouts.pins.block_count > 0)
        return;
    if (layouts_price(&out->layouts, &out->uniform, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    objectives = calloc(out->uniform.count + 1, sizeof(*objectives));
    assert_non_null(objectives);
    assert_int_equal(layouts_rank(&out->uniform, &out->weights, NULL, objectives, &err), STATUS_OK);
    if (out->uniform.count > 0)
        out->best_uniform = objectives[0];
    free(objectives);
}

/* False: it has no layout, or too many to try them all. */
static bool roll_instance(uint64_t seed, struct instance *out)
{
    static const int64_t devices[] = {1, 2, 3, 4, 4, 6, 8, 8};
    struct dice dice = {.seed = seed};
    int64_t count = devices[roll(&dice, 8)];
    memset(out, 0, sizeof(*out));
    random_cluster(&dice, count, count > 1 && roll_true(&dice, 4) ? 2 : 1, &out->cluster);
    out->model = random_model(&dice, 3 + (int64_t)roll(&dice, 5));
    roll_arithmetics(&dice, out);
    out->blocks_offload = roll_true(&dice, 2);
    out->gap_target = roll_true(&dice, 2) ? 0 : 0.01;
    out->layouts = (struct layouts_request){
        .cluster = &out->cluster,
        .model = &out->model,
        .framework = (enum framework)roll(&dice, FRAMEWORK_COUNT),
        .arithmetic = out->layouts.arithmetic,
        .others = out->layouts.others,
        .global_batch = count * (INT64_C(1) << roll(&dice, 4)),
        .overlaps = roll_true(&dice, 2),
        .fused_cross_entropy = roll_true(&dice, 2),
        .limits = {.deadline_s = INFINITY},
    };
    roll_pins(&dice, out);
    roll_weights(&dice, out);
    const struct every counted = every_layout(out, true);
    return counted.count > 0 && counted.count <= TRIALS_MOST && roll_memory(&dice, out);
}

struct tally {
    uint64_t instances, feasible, improved, bound_by_memory, groups, behind, unfused;
    uint64_t wide, several; /* answers that store 32 bit; of instances with several storages */
};

/* Free to fuse attention, the best layout does not. */
static bool chooses_unfused(const struct instance *instance, const struct tailored *tailored)
{
    const struct priced_layout *best = NULL;
    if (tailored->found)
        best = &tailored->priced;
    else if (instance->uniform.count > 0)
        best = &instance->uniform.rows[0];
    return best && instance->layouts.pins.fused_attention < 0 && !best->layout.fused_attention;
}

static void check_instance(const struct instance *instance, uint64_t seed, struct tally *tally)
{
    const struct tailor_request request = {.layouts = &instance->layouts,
                                           .weights = &instance->weights,
                                           .units = instance->units,
                                           .best_objective = instance->best_uniform,
                                           .arithmetics = instance->arithmetics,
                                           .gap_target = instance->gap_target,
                                           .blocks_offload = instance->blocks_offload};
    struct tailored tailored;
    struct error err;
    const struct every every = every_layout(instance, false);
    if (tailor_search(&request, &tailored, &err) != STATUS_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
    double optimum = fmin(every.best, instance->best_uniform);
    double answer = tailored.found ? tailored.objective : instance->best_uniform;
    assert_true(tailored.is_whole);
    if (tailored.bound > optimum * (1 + 1e-9) || answer < optimum * (1 - 1e-9))
        fail_msg("seed %llu: the answer %.12g, bounded by %.12g; the optimum %.12g",
                 (unsigned long long)seed, answer, tailored.bound, optimum);
    tally->instances++;
    tally->behind += answer > optimum * (1 + instance->gap_target) * (1 + 1e-9);
    tally->feasible += optimum < INFINITY;
    tally->improved += tailored.found && instance->best_uniform < INFINITY;
    tally->bound_by_memory += every.best_of_any < every.best;
    tally->unfused += chooses_unfused(instance, &tailored);
    tally->groups += instance->cluster.group_count > 1 && optimum < INFINITY;
    enum arithmetic answered = tailored.priced.layout.arithmetic;
    tally->wide += tailored.found && (answered == ARITHMETIC_TF32 || answered == ARITHMETIC_FP32);
    tally->several += tailored.found && instance->layouts.others.count > 0;
    tailored_free(&tailored);
}

static void test_tailor__finds_the_best_of_all_layouts(void **state)
{
    struct tally tally = {0};
    (void)state;
    for (uint64_t seed = 1; tally.instances < INSTANCES; seed++) {
        static struct instance instance;
        if (!roll_instance(seed, &instance))
            continue;
        price_uniform(&instance);
        check_instance(&instance, seed, &tally);
        layouts_free(&instance.uniform);
    }
    assert_true(tally.feasible > INSTANCES / 2);
    assert_true(tally.improved > INSTANCES / 30);
    assert_true(tally.bound_by_memory > INSTANCES / 4);
    assert_true(tally.groups > INSTANCES / 20);
    assert_true(tally.wide > INSTANCES / 30 && tally.several > INSTANCES / 30);
    assert_true(tally.unfused > INSTANCES / 100);
    /* What a step waits for once is added up stage by stage: now and then that tells too little,
     * and the bound says so. */
    assert_true(tally.behind < INSTANCES / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tailor__finds_the_best_of_all_layouts),
    };
    return cmocka_run_group_tests_name("tailor", tests, NULL, NULL);
}
