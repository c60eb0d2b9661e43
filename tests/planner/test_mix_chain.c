/* Chains of mixes, against every mix; and the search with them, against every layout. */
#include "base/stats.h"
#include "costmodel/predict.h"
#include "planner/mix_chain.h"
#include "planner/tailor.h"
#include "random_cluster.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLASSES_MOST = 2, BLOCKS_MOST = 6, STAGES_MOST = 2, MODES = 6, INSTANCES = 120 };

static const double same_share = 1e-9;

/* ---- made-up modes ---- */

struct contents {
    struct chain_prices prices;
    struct chain_class classes[CLASSES_MOST];
    size_t class_count;
    double step_s; /* the most that one item can save */
};

static struct contents roll_contents(struct dice *dice)
{
    struct contents out = {.class_count = 1 + (size_t)roll(dice, CLASSES_MOST)};
    size_t kind = 0;
    for (size_t class = 0; class < out.class_count; class ++) {
        size_t modes = 4 + (size_t)roll(dice, 3);
        double least = INFINITY, most = 0;
        out.classes[class].items = (unsigned)roll(dice, class == 0 ? 8 : 4);
        for (size_t i = 0; i < modes; i++, kind++) {
            out.classes[class].kinds |= 1u << kind;
            out.prices.bytes[kind] = (double)roll(dice, 20);
            out.prices.seconds[kind] = 1 + (double)roll(dice, 20);
            least = fmin(least, out.prices.seconds[kind]);
            most = fmax(most, out.prices.seconds[kind]);
        }
        out.step_s = fmax(out.step_s, most - least);
    }
    return out;
}

/* Least seconds within so many bytes, item by item. */
static double least_seconds(const struct contents *of, size_t class, unsigned item, size_t from,
                            double bytes)
{
    double least = INFINITY;
    if (bytes < 0)
        return INFINITY;
    if (class == of->class_count)
        return 0;
    if (item == of->classes[class].items)
        return least_seconds(of, class + 1, 0, 0, bytes);
    for (size_t kind = from; kind < BLOCK_KINDS_MAX; kind++) {
        if ((of->classes[class].kinds >> kind & 1) == 0)
            continue;
        double rest = least_seconds(of, class, item + 1, kind, bytes - of->prices.bytes[kind]);
        least = fmin(least, of->prices.seconds[kind] + rest);
    }
    return least;
}

struct sums {
    double bytes, seconds;
};

static struct sums sums_at(const struct contents *of, const struct mix_chain *chain, size_t index)
{
    struct sums sums = {0, 0};
    uint16_t items[BLOCK_KINDS_MAX];
    mix_chain_at(chain, index, items);
    for (size_t class = 0; class < of->class_count; class ++) {
        unsigned count = 0;
        for (size_t kind = 0; kind < BLOCK_KINDS_MAX; kind++) {
            if ((of->classes[class].kinds >> kind & 1) == 0)
                continue;
            count += items[kind];
            sums.bytes += items[kind] * of->prices.bytes[kind];
            sums.seconds += items[kind] * of->prices.seconds[kind];
        }
        assert_int_equal(count, of->classes[class].items);
    }
    return sums;
}

static void check_chain(const struct contents *of)
{
    struct mix_chain chain;
    mix_chain_build(&of->prices, of->classes, of->class_count, &chain);
    assert_true(mix_chain_least_s(&chain, chain.least_bytes - 1) == INFINITY);
    assert_true(least_seconds(of, 0, 0, 0, chain.least_bytes - 1) == INFINITY);
    for (size_t i = 0; i < chain.count; i++) {
        const struct sums own = sums_at(of, &chain, i);
        /* all bytes are whole numbers: up to the next mix's nothing else fits */
        double next = i + 1 < chain.count ? sums_at(of, &chain, i + 1).bytes : own.bytes + 40;
        for (double bytes = own.bytes; bytes < next; bytes++) {
            double optimum = least_seconds(of, 0, 0, 0, bytes);
            assert_true(mix_chain_least_s(&chain, bytes) <= optimum + same_share);
            assert_true(own.seconds <= optimum + of->step_s + same_share);
        }
        assert_true(fabs(mix_chain_least_s(&chain, own.bytes) - own.seconds) < same_share);
        if (i > 0) {
            const struct sums before = sums_at(of, &chain, i - 1);
            assert_true(before.bytes < own.bytes && before.seconds > own.seconds);
        }
    }
}

static void test_mix_chain__is_one_item_from_the_best_of_all_mixes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct dice dice = {.seed = seed};
        const struct contents contents = roll_contents(&dice);
        check_chain(&contents);
    }
}

/* Bytes 0, 2, 4, 9 and seconds 10, 9, 4, 1: the second lies above the line from the first to the
 * third, which saves 6 for 4 bytes; the last saves 3 for 5. */
static void test_mix_chain__leaves_out_what_lies_above_the_hull(void **state)
{
    const struct chain_prices prices = {.bytes = {0, 2, 4, 9}, .seconds = {10, 9, 4, 1}};
    const struct chain_class class = {.kinds = 15, .items = 2};
    struct mix_chain chain;
    uint16_t items[BLOCK_KINDS_MAX];
    (void)state;
    mix_chain_build(&prices, &class, 1, &chain);
    assert_int_equal(chain.count, 5);
    mix_chain_at(&chain, 3, items);
    assert_int_equal(items[2], 1);
    assert_int_equal(items[3], 1);
    assert_true(fabs(mix_chain_least_s(&chain, 6) - 11) < same_share);     /* 20 - 6 - 3 */
    assert_true(fabs(mix_chain_least_s(&chain, 10.5) - 6.5) < same_share); /* 8 - 0.5 x 3 */
}

/* ---- the search ---- */

struct instance {
    struct cluster cluster;
    struct model model;
    struct layouts_request layouts;
    struct layout_weights weights;
    double optimum;                           /* INFINITY: nothing fits */
    double least_bytes, quick_bytes, quick_s; /* the leanest layout's, the quickest one's */
    /* the layout at work */
    struct layout layout;
    struct block_mode modes[BLOCKS_MOST];
    size_t chosen[BLOCKS_MOST];
    int64_t stage_blocks[STAGES_MOST];
    struct block_plan plan;
};

static const struct priced_layout units = {.time_s = 1, .memory_bytes = 1e9, .energy_j = 1e3};

static struct block_mode mode_at(const struct instance *instance, size_t index)
{
    return (struct block_mode){(enum recompute)(index / 2),
                               index % 2 == 0 ? ARITHMETIC_BF16 : ARITHMETIC_FP8,
                               instance->layout.offload_activations};
}

static void try_layout(struct instance *instance)
{
    struct layout layout = instance->layout;
    struct layout_prediction prediction;
    struct error err;
    layout.own = &instance->plan;
    if (layout_predict(&instance->cluster, &instance->model, &layout, &prediction, &err) !=
        STATUS_OK)
        fail_msg("%s", err.message);
    double deviations = normal_deviations(MEMORY_RISK);
    const struct priced_layout row = {.time_s = prediction.time_s.value,
                                      .memory_bytes = prediction.memory_bytes.value,
                                      .energy_j = prediction.energy_j.value};
    instance->least_bytes = fmin(instance->least_bytes, row.memory_bytes);
    if (row.time_s < instance->quick_s) {
        instance->quick_s = row.time_s;
        instance->quick_bytes = row.memory_bytes;
    }
    if (layout_fits_at(&prediction, deviations))
        instance->optimum =
            fmin(instance->optimum, layout_objective(&instance->weights, &units, &row));
}

/* Blocks of a stage that do the same work may change places: of these orders one is tried. */
static void each_mode(struct instance *instance, int64_t block)
{
    int64_t like = block - 1;
    size_t first = 0;
    if (block >= instance->model.blocks || block >= BLOCKS_MOST) {
        try_layout(instance);
        return;
    }
    bool is_first_of_stage = instance->layout.pipeline == 2 && block == instance->stage_blocks[0];
    while (like >= 0 && model_block_has_experts(&instance->model, like) !=
                            model_block_has_experts(&instance->model, block))
        like--;
    bool is_of_stage = like >= (block >= instance->stage_blocks[0] ? instance->stage_blocks[0] : 0);
    if (!is_first_of_stage && like >= 0 && is_of_stage)
        first = instance->chosen[like];
    for (size_t i = first; i < MODES; i++) {
        instance->chosen[block] = i;
        instance->modes[block] = mode_at(instance, i);
        each_mode(instance, block + 1);
    }
}

static enum status visit(void *user, const struct layout *layout, struct error *err)
{
    struct instance *instance = user;
    int64_t blocks = instance->model.blocks;
    (void)err;
    assert_true(blocks <= BLOCKS_MOST && layout->pipeline <= STAGES_MOST);
    instance->layout = *layout;
    instance->plan = (struct block_plan){instance->modes, instance->stage_blocks, NULL};
    for (int64_t first = layout->pipeline == 1 ? blocks : 1; first <= blocks; first++) {
        if (layout->pipeline == 2 && first == blocks)
            break;
        instance->stage_blocks[0] = first;
        instance->stage_blocks[1] = blocks - first;
        each_mode(instance, 0);
    }
    return STATUS_OK;
}

static unsigned wish_everything(void *user)
{
    (void)user;
    return WISH_EVERYTHING;
}

static void every_layout(struct instance *instance)
{
    struct layouts_request request = instance->layouts;
    const struct layout_visitor visitor = {
        .user = instance, .visit = visit, .wishes = wish_everything};
    struct error err;
    bool is_whole;
    request.pins.recompute = RECOMPUTE_NONE;
    instance->optimum = instance->least_bytes = instance->quick_s = INFINITY;
    if (layouts_each(&request, &visitor, &is_whole, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_true(is_whole);
}

/* Few shapes, without virtual stages. */
static void roll_pins(struct dice *dice, struct instance *out)
{
    static const enum schedule schedules[] = {SCHEDULE_1F1B, SCHEDULE_1F1B, SCHEDULE_GPIPE,
                                              SCHEDULE_ZB_H1};
    struct layout_pins *pins = &out->layouts.pins;
    int64_t devices = cluster_devices(&out->cluster);
    *pins = layout_pins_none();
    pins->pipeline = devices == 1 ? 1 : 1 + (int64_t)roll(dice, 2);
    pins->tensor = devices / pins->pipeline > 1 && roll_true(dice, 2) ? 2 : 1;
    pins->context = pins->expert = 1;
    pins->sequence_parallel = 0;
    pins->virtual_stages = 1;
    pins->schedule = (int)(pins->pipeline == 1 ? SCHEDULE_1F1B : schedules[roll(dice, 4)]);
    pins->micro_batch = 1;
    pins->zero_stage = roll_true(dice, 2) ? 0 : (int)roll(dice, 4);
    pins->fused_attention = roll_true(dice, 2);
}

/* Memory between what the leanest and what the quickest layout takes. False: there is none. */
static bool roll_instance(uint64_t seed, struct instance *out)
{
    static const int64_t devices[] = {1, 2, 4};
    struct dice dice = {.seed = seed};
    memset(out, 0, sizeof(*out));
    random_cluster(&dice, devices[roll(&dice, 3)], 1, &out->cluster);
    struct device_type *device = &out->cluster.groups[0].device;
    device->peak_flops[ARITHMETIC_FP8] = 1.8 * device->peak_flops[ARITHMETIC_BF16];
    out->model = random_model(&dice, 2 + (int64_t)roll(&dice, 4));
    out->weights = (struct layout_weights){.time = 1, .raw = true};
    if (roll_true(&dice, 5))
        out->weights.energy = roll_true(&dice, 2);
    if (roll_true(&dice, 5))
        out->weights.memory = 0.1;
    out->layouts = (struct layouts_request){
        .cluster = &out->cluster,
        .model = &out->model,
        .framework = (enum framework)roll(&dice, FRAMEWORK_COUNT),
        .arithmetic = ARITHMETIC_BF16,
        .global_batch = 4 * (INT64_C(1) << roll(&dice, 3)),
        .overlaps = roll_true(&dice, 2),
        .fused_cross_entropy = roll_true(&dice, 2),
        .limits = {.deadline_s = INFINITY},
    };
    out->layouts.saves_memory = out->weights.memory > 0;
    roll_pins(&dice, out);
    every_layout(out);
    if (out->optimum == INFINITY)
        return false;
    double share = 1.1 * roll_real(&dice);
    device->memory_bytes =
        (uint64_t)(out->least_bytes * 1.12 + share * fmax(out->quick_bytes - out->least_bytes, 0));
    every_layout(out);
    return true;
}

struct tally {
    uint64_t feasible, found, close, bounded;
};

static void check_search(const struct instance *instance, uint64_t seed, struct tally *tally)
{
    const struct tailor_request request = {.layouts = &instance->layouts,
                                           .weights = &instance->weights,
                                           .units = units,
                                           .best_objective = INFINITY,
                                           .arithmetics = {{ARITHMETIC_BF16, ARITHMETIC_FP8}, 2},
                                           .mixes_most = 1};
    struct tailored tailored;
    struct error err;
    double optimum = instance->optimum;
    if (tailor_search(&request, &tailored, &err) != STATUS_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
    assert_true(tailored.is_whole);
    if (tailored.bound > optimum * (1 + same_share))
        fail_msg("seed %llu: the bound %.12g is above the optimum %.12g", (unsigned long long)seed,
                 tailored.bound, optimum);
    if (tailored.found && tailored.objective < optimum * (1 - same_share))
        fail_msg("seed %llu: the answer %.12g is below the optimum %.12g", (unsigned long long)seed,
                 tailored.objective, optimum);
    tally->feasible += optimum < INFINITY;
    tally->found += tailored.found;
    tally->close += tailored.found && tailored.objective <= 1.05 * optimum;
    tally->bounded += tailored.found && tailored.bound >= 0.8 * tailored.objective;
    tailored_free(&tailored);
}

static void test_mix_chain__bounds_every_layout(void **state)
{
    struct tally tally = {0};
    (void)state;
    for (uint64_t seed = 1, instances = 0; instances < INSTANCES; seed++) {
        static struct instance instance;
        if (!roll_instance(seed, &instance))
            continue;
        check_search(&instance, seed, &tally);
        instances++;
    }
    print_message("feasible %llu, found %llu, within 5 %% %llu, gap below 20 %% %llu\n",
                  (unsigned long long)tally.feasible, (unsigned long long)tally.found,
                  (unsigned long long)tally.close, (unsigned long long)tally.bounded);
    assert_true(tally.feasible > INSTANCES / 2);
    assert_true(tally.found == tally.feasible && tally.close > tally.feasible * 9 / 10);
    assert_true(tally.bounded > tally.feasible * 3 / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mix_chain__is_one_item_from_the_best_of_all_mixes),
        cmocka_unit_test(test_mix_chain__leaves_out_what_lies_above_the_hull),
        cmocka_unit_test(test_mix_chain__bounds_every_layout),
    };
    return cmocka_run_group_tests_name("mix_chain", tests, NULL, NULL);
}
