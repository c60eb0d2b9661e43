#include "base/clock.h"
#include "costmodel/predict.h"
#include "fixture.h"
#include "ir/footprint.h"
#include "planner/planner.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS_MAX = 6, CASES = 240, PLANS_MAX = 20000, STRATEGIES_MAX = 256 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

/* ---- every plan there is, through plan_validate and predict_plan ---- */

struct totals {
    double time_s, memory_bytes, quantile_bytes, energy_j;
    bool is_pipeline;
};

struct enumeration {
    const struct planner_request *request;
    const struct profile_options *options;
    struct totals *plans; /* those that the pins allow */
    size_t count, capacity;
    bool only_count; /* an upper bound of how many there are, nothing is predicted */
};

static bool mode_allowed(const struct enumeration *all, enum layer_kind kind,
                         struct layer_strategy strategy)
{
    const struct pins *pins = &all->request->pins;
    const struct profile_options *options = all->options;
    enum recompute recompute = pins->recompute[kind];
    enum precision precision = pins->precision[kind];
    enum attention_kernel attention = pins->attention[kind];
    if (!layer_admits_recompute(kind, strategy.recompute) ||
        !layer_admits_kernel(kind, strategy.attention) ||
        !layer_admits_precision(kind, strategy.precision))
        return false;
    if ((strategy.precision == PRECISION_BF16 && !options->bf16) ||
        (strategy.precision == PRECISION_FP16 && !options->fp16) ||
        (strategy.attention != ATTENTION_PLAIN && !options->tiled) ||
        (strategy.recompute != RECOMPUTE_NONE && options->plain))
        return false; /* not measured */
    if (kind != LAYER_ATTENTION)
        attention = ATTENTION_PLAIN;
    if (!layer_admits_recompute(kind, recompute))
        recompute = RECOMPUTE_NONE;
    if (!layer_admits_precision(kind, precision))
        precision = PRECISION_FP32;
    return (!pins->recompute_fixed[kind] || strategy.recompute == recompute) &&
           (!pins->attention_fixed[kind] || strategy.attention == attention) &&
           (!pins->precision_fixed[kind] || strategy.precision == precision);
}

static bool split_allowed(const struct enumeration *all, const struct plan *plan,
                          enum layer_kind kind, struct layer_strategy strategy)
{
    const struct pins *pins = &all->request->pins;
    int t = strategy.tensor_parallel;
    int64_t largest = all->options->micro_batches[all->options->micro_batch_count - 1];
    bool wants_sequence = pins->sequence_parallel[kind] && t > 1;
    if (plan->tensor_parallel % t != 0 || plan->micro_batch * t % plan->tensor_parallel != 0 ||
        (strategy.sequence_parallel && t == 1))
        return false;
    if (!pins->micro_batch && !pins->micro_batches &&
        plan->micro_batch * t / plan->tensor_parallel > 4 * largest)
        return false; /* too far beyond what was measured */
    if (!pins->zero_fixed[kind] && strategy.zero_stage > 0 &&
        plan->data_parallel * plan->tensor_parallel == t)
        return false; /* there is nobody to share with */
    return (pins->tensor_parallel[kind] == 0 || pins->tensor_parallel[kind] == t) &&
           (!pins->sequence_parallel_fixed[kind] || strategy.sequence_parallel == wants_sequence) &&
           (!pins->zero_fixed[kind] || strategy.zero_stage == pins->zero_stage[kind]);
}

static size_t list_strategies(const struct enumeration *all, const struct plan *plan,
                              enum layer_kind kind, struct layer_strategy *out)
{
    size_t count = 0;
    int modes = RECOMPUTE_COUNT * PRECISION_COUNT * ATTENTION_KERNEL_COUNT;
    for (int i = 0; i < plan->tensor_parallel * 2 * 4 * modes; i++) {
        int rest = i;
        struct layer_strategy strategy = {.tensor_parallel = 1 + rest % plan->tensor_parallel};
        rest /= plan->tensor_parallel;
        strategy.sequence_parallel = rest % 2 != 0;
        rest /= 2;
        strategy.zero_stage = rest % 4;
        rest /= 4;
        strategy.recompute = (enum recompute)(rest % RECOMPUTE_COUNT);
        rest /= RECOMPUTE_COUNT;
        strategy.precision = (enum precision)(rest % PRECISION_COUNT);
        strategy.attention = (enum attention_kernel)(rest / PRECISION_COUNT);
        if (mode_allowed(all, kind, strategy) && split_allowed(all, plan, kind, strategy)) {
            assert_true(count < STRATEGIES_MAX);
            out[count++] = strategy;
        }
    }
    return count;
}

/* Both 16-bit precisions. */
static bool mixes_halves(const struct plan *plan)
{
    bool has[PRECISION_COUNT] = {false};
    for (size_t l = 0; l < plan->layer_count; l++)
        has[plan->layers[l].precision] = true;
    return has[PRECISION_BF16] && has[PRECISION_FP16];
}

static void keep(struct enumeration *all, const struct plan *plan)
{
    struct prediction prediction = {0};
    struct error err;
    if (mixes_halves(plan) || plan_validate(plan, "enumerated", &err) != STATUS_OK)
        return;
    if (predict_plan(all->request->profile, plan, &prediction, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    if (all->count == all->capacity) {
        all->capacity = all->capacity ? 2 * all->capacity : 1024;
        all->plans = realloc(all->plans, all->capacity * sizeof(*all->plans));
        assert_non_null(all->plans);
    }
    all->plans[all->count++] = (struct totals){
        prediction.time_s.value, prediction.memory_bytes.value,
        memory_quantile_bytes(prediction.memory_bytes),
        prediction.energy_j.provenance == PROVENANCE_ABSENT ? NAN : prediction.energy_j.value,
        plan->pipeline > 1};
    prediction_clear(&prediction);
}

struct offers {
    struct layer_strategy items[LAYER_KIND_COUNT][STRATEGIES_MAX];
    size_t count[LAYER_KIND_COUNT];
};

static void try_strategies(struct enumeration *all, struct plan *plan, const struct offers *offers,
                           size_t layer)
{
    if (layer == plan->layer_count) {
        keep(all, plan);
        return;
    }
    enum layer_kind kind = model_layer(&plan->model, layer).kind;
    for (size_t i = 0; i < offers->count[kind]; i++) {
        int stage = plan->layers[layer].stage;
        plan->layers[layer] = offers->items[kind][i];
        plan->layers[layer].stage = stage;
        try_strategies(all, plan, offers, layer + 1);
    }
}

static void try_cut(struct enumeration *all, struct plan *plan)
{
    static struct offers offers;
    double product = 1;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        offers.count[kind] = list_strategies(all, plan, (enum layer_kind)kind, offers.items[kind]);
    for (size_t l = 0; l < plan->layer_count; l++)
        product *= (double)offers.count[model_layer(&plan->model, l).kind];
    if (all->only_count)
        all->count += (size_t)fmin(product, 1e9);
    else
        try_strategies(all, plan, &offers, 0);
}

/* Stages are cut anywhere, but for interleaved ones: the blocks' layers in equal numbers. */
static void try_cuts(struct enumeration *all, struct plan *plan, size_t layer)
{
    int last = plan->pipeline * plan->virtual_stages - 1;
    if (layer == plan->layer_count) {
        if (plan->layers[layer - 1].stage == last)
            try_cut(all, plan);
        return;
    }
    int before = layer > 0 ? plan->layers[layer - 1].stage : 0;
    for (int stage = before; stage <= before + (layer > 0) && stage <= last; stage++) {
        size_t inner = plan->layer_count - 2;
        int even = layer == 0      ? 0
                   : layer > inner ? last
                                   : (int)((layer - 1) * (size_t)(last + 1) / inner);
        if (plan->schedule == SCHEDULE_INTERLEAVED && stage != even)
            continue;
        plan->layers[layer].stage = stage;
        try_cuts(all, plan, layer + 1);
    }
}

static void try_schedules(struct enumeration *all, struct plan *plan)
{
    static const int chunks[] = {1, 2, 4};
    const struct pins *pins = &all->request->pins;
    if ((pins->micro_batch && plan->micro_batch != pins->micro_batch) ||
        (pins->micro_batches && plan->micro_batches != pins->micro_batches))
        return;
    for (int schedule = 0; schedule < SCHEDULE_COUNT; schedule++) {
        for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
            plan->schedule = (enum schedule)schedule;
            plan->virtual_stages = chunks[i];
            const struct schedule_shape shape = plan_schedule(plan);
            struct error ignored;
            if ((pins->schedule_fixed ? pins->schedule != plan->schedule
                                      : plan->schedule == SCHEDULE_GPIPE) ||
                (pins->virtual_stages && pins->virtual_stages != chunks[i]) ||
                schedule_check(&shape, &ignored) != STATUS_OK ||
                (plan->pipeline == 1 && plan->schedule != SCHEDULE_1F1B) ||
                (chunks[i] > 1 && (size_t)(chunks[i] * plan->pipeline) > plan->layer_count - 2))
                continue;
            try_cuts(all, plan, 0);
        }
    }
}

static void try_degrees(struct enumeration *all, struct plan *plan)
{
    const struct pins *pins = &all->request->pins;
    for (int p = 1; p <= plan->ranks; p++) {
        for (int t = 1; t <= plan->ranks; t++) {
            int dp = plan->ranks / p / t;
            if (p * t * dp != plan->ranks || (pins->pipeline && p != pins->pipeline) ||
                (pins->data_parallel && dp != pins->data_parallel) ||
                plan->global_batch % dp != 0 || (size_t)p > plan->layer_count)
                continue;
            plan->pipeline = p;
            plan->tensor_parallel = t;
            plan->data_parallel = dp;
            for (int64_t b = 1; b <= plan->global_batch / dp; b++) {
                if (plan->global_batch / dp % b != 0)
                    continue;
                plan->micro_batch = b;
                plan->micro_batches = plan->global_batch / dp / b;
                try_schedules(all, plan);
            }
        }
    }
}

static void enumerate(struct enumeration *all)
{
    struct layer_strategy layers[LAYERS_MAX];
    const struct planner_request *request = all->request;
    for (size_t i = 0; i < all->options->placement_count; i++) {
        struct placement placement = all->options->placements[i];
        struct plan plan = {.model = *request->model,
                            .ranks = placement.ranks,
                            .threads = placement.threads,
                            .gradient_reduction = request->pins.gradients,
                            .global_batch = request->global_batch,
                            .layers = layers,
                            .layer_count = model_layer_count(request->model)};
        memset(layers, 0, sizeof(layers));
        if (placement.ranks <= request->ranks &&
            (!request->pins.threads || placement.threads == request->pins.threads))
            try_degrees(all, &plan);
    }
}

struct truth {
    size_t fitting;
    bool some_pipeline;                    /* among those that fit */
    double time_s, memory_bytes, energy_j; /* the best of each alone, of those that fit */
    double objective;
    double least_quantile_bytes; /* of all */
};

static double value_of(const struct planner_request *request, const struct truth *units,
                       const struct totals *plan)
{
    double value = 0;
    if (request->weight_time > 0)
        value += request->weight_time * plan->time_s / units->time_s;
    if (request->weight_memory > 0)
        value += request->weight_memory * plan->memory_bytes / units->memory_bytes;
    if (request->weight_energy > 0)
        value += request->weight_energy * plan->energy_j / units->energy_j;
    return value;
}

static bool fits(const struct planner_request *request, const struct totals *plan)
{
    return request->memory_cap_bytes == 0 ||
           plan->quantile_bytes <= (double)request->memory_cap_bytes;
}

/* The objective is in the units of `found`, where there is one: a pipeline's are as good as the
 * search for each quantity alone. */
static struct truth judge(const struct enumeration *all, const struct plan_objective *found)
{
    const struct planner_request *request = all->request;
    struct truth truth = {.time_s = INFINITY,
                          .memory_bytes = INFINITY,
                          .energy_j = INFINITY,
                          .objective = INFINITY,
                          .least_quantile_bytes = INFINITY};
    for (size_t i = 0; i < all->count; i++) {
        const struct totals *plan = &all->plans[i];
        truth.least_quantile_bytes = fmin(truth.least_quantile_bytes, plan->quantile_bytes);
        if (!fits(request, plan))
            continue;
        truth.fitting++;
        truth.some_pipeline |= plan->is_pipeline;
        truth.time_s = fmin(truth.time_s, plan->time_s);
        truth.memory_bytes = fmin(truth.memory_bytes, plan->memory_bytes);
        truth.energy_j = fmin(truth.energy_j, plan->energy_j);
    }
    struct truth units = truth;
    if (request->raw_weights)
        units = (struct truth){.time_s = 1, .memory_bytes = 1024.0 * 1024 * 1024, .energy_j = 1};
    if (found)
        units = (struct truth){.time_s = found->time_unit_s,
                               .memory_bytes = found->memory_unit_bytes,
                               .energy_j = found->energy_unit_j};
    for (size_t i = 0; i < all->count; i++) {
        if (fits(request, &all->plans[i]))
            truth.objective = fmin(truth.objective, value_of(request, &units, &all->plans[i]));
    }
    return truth;
}

/* ---- random requests ---- */

/* The tighter, the more is pinned. */
static void random_pins(struct dice *dice, uint64_t tightness, struct pins *pins)
{
    enum precision half = roll_true(dice, 4) ? PRECISION_FP16 : PRECISION_BF16;
    uint64_t loose = tightness < 12 ? 24 / (1 + tightness) : 1;
    *pins = (struct pins){0};
    if (roll_true(dice, 2 + loose))
        pins->micro_batch = 1 + (int64_t)roll(dice, 2);
    if (roll_true(dice, 2 * loose))
        pins->micro_batches = 1 + (int64_t)roll(dice, 4);
    if (roll_true(dice, 2 + loose))
        pins->data_parallel = 1 + (int)roll(dice, 2);
    if (roll_true(dice, 2 + loose))
        pins->pipeline = 1 << roll(dice, 3);
    if (roll_true(dice, 8)) {
        pins->schedule_fixed = true;
        pins->schedule = (enum schedule)roll(dice, SCHEDULE_RUN_COUNT);
    }
    if (roll_true(dice, 6))
        pins->threads = 1 + (int)roll(dice, 2);
    pins->gradients = roll_true(dice, 2) ? GRADIENTS_BF16 : GRADIENTS_FP32;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        pins->recompute_fixed[kind] = roll_true(dice, loose);
        pins->recompute[kind] = (enum recompute)roll(dice, RECOMPUTE_COUNT);
        pins->precision_fixed[kind] = roll_true(dice, loose);
        pins->precision[kind] = (enum precision)roll(dice, PRECISION_COUNT);
        if (pins->precision[kind] != PRECISION_FP32)
            pins->precision[kind] = half;
        pins->attention_fixed[kind] = roll_true(dice, loose);
        pins->attention[kind] = (enum attention_kernel)roll(dice, ATTENTION_KERNEL_COUNT);
        pins->zero_fixed[kind] = roll_true(dice, loose);
        pins->zero_stage[kind] = (int)roll(dice, 4);
        pins->sequence_parallel_fixed[kind] = roll_true(dice, loose);
        pins->sequence_parallel[kind] = roll_true(dice, 2);
        pins->tensor_parallel[kind] = roll_true(dice, 2 * loose) ? 1 + (int)roll(dice, 2) : 0;
    }
}

static struct profile_options random_options(struct dice *dice)
{
    struct profile_options options = {
        .placements = {{1, 1}, {1, 2}, {2, 1}, {4, 1}},
        .placement_count = 1 + roll(dice, 4),
        .micro_batches = {1, 2, 4},
        .micro_batch_count = 1 + roll(dice, 3),
        .bf16 = roll_true(dice, 2),
        .fp16 = roll_true(dice, 8),
        .energy = !roll_true(dice, 3),
        .tiled = roll_true(dice, 2),
        .plain = false,
    };
    return options;
}

static void random_request(struct dice *dice, const struct profile_options *options,
                           struct planner_request *request)
{
    static const int64_t batches[] = {1, 2, 4, 6, 8};
    static const int ranks[] = {1, 2, 4, 4};
    request->ranks = ranks[roll(dice, 4)];
    request->global_batch = batches[roll(dice, 5)];
    request->weight_time = roll_true(dice, 4) ? 0 : roll_real(dice);
    request->weight_memory = roll_true(dice, 2) ? 0 : roll_real(dice);
    request->weight_energy = options->energy && roll_true(dice, 2) ? roll_real(dice) : 0;
    if (request->weight_time + request->weight_memory + request->weight_energy <= 0)
        request->weight_time = 1;
    request->raw_weights = roll_true(dice, 4);
    for (uint64_t tightness = 0;; tightness++) {
        struct enumeration counted = {.request = request, .options = options, .only_count = true};
        random_pins(dice, tightness, &request->pins);
        enumerate(&counted);
        if (counted.count <= PLANS_MAX)
            return;
    }
}

static uint64_t random_cap(struct dice *dice, const struct enumeration *all)
{
    if (all->count == 0 || roll_true(dice, 4))
        return 0;
    const struct totals *plan = &all->plans[roll(dice, all->count)];
    double bytes = ceil(plan->quantile_bytes); /* some plan's own memory: fits to the byte */
    return (uint64_t)bytes - (roll_true(dice, 8) ? 1 : 0);
}

/* ---- the comparison ---- */

struct tally {
    size_t feasible, pipelines, exact_pipelines;
    double worst_gap;
};

static void check_pins(const struct pins *pins, const struct plan *plan)
{
    assert_true(!pins->micro_batch || plan->micro_batch == pins->micro_batch);
    assert_true(!pins->micro_batches || plan->micro_batches == pins->micro_batches);
    assert_true(!pins->data_parallel || plan->data_parallel == pins->data_parallel);
    assert_true(!pins->pipeline || plan->pipeline == pins->pipeline);
    assert_true(!pins->threads || plan->threads == pins->threads);
    assert_true(!pins->schedule_fixed || plan->schedule == pins->schedule);
    for (size_t l = 0; l < plan->layer_count; l++) {
        const struct layer_strategy *strategy = &plan->layers[l];
        enum layer_kind kind = model_layer(&plan->model, l).kind;
        assert_true(!pins->tensor_parallel[kind] ||
                    strategy->tensor_parallel == pins->tensor_parallel[kind]);
        assert_true(!pins->zero_fixed[kind] || strategy->zero_stage == pins->zero_stage[kind]);
        assert_true(!pins->sequence_parallel_fixed[kind] ||
                    strategy->sequence_parallel ==
                        (pins->sequence_parallel[kind] && strategy->tensor_parallel > 1));
        assert_true(!pins->attention_fixed[kind] || kind != LAYER_ATTENTION ||
                    strategy->attention == pins->attention[kind]);
    }
}

/* Where a pipeline is the best, the plan is within the gap that it states, and no plan is below the
 * bound; else it is the best to the last digits. */
static void check_value(const struct plan *plan, const struct truth *truth, uint64_t seed,
                        struct tally *tally)
{
    const struct plan_objective *objective = &plan->objective;
    bool is_exact = near(objective->value, truth->objective);
    if (objective->bound > truth->objective * (1 + 1e-9) ||
        objective->value < truth->objective * (1 - 1e-9) ||
        (plan->status != PLAN_GAP && !is_exact) || (!truth->some_pipeline && !is_exact))
        fail_msg("seed %llu: found %.17g, bound %.17g, best %.17g", (unsigned long long)seed,
                 objective->value, objective->bound, truth->objective);
    assert_true(near(objective->gap, (objective->value - objective->bound) / objective->value) ||
                objective->gap < 1e-9);
    if (!truth->some_pipeline) {
        if (objective->gap > 0 || plan->status == PLAN_GAP)
            fail_msg("seed %llu: gap %g", (unsigned long long)seed, objective->gap);
    }
    tally->pipelines += plan->pipeline > 1;
    tally->exact_pipelines += plan->pipeline > 1 && is_exact;
    tally->worst_gap = fmax(tally->worst_gap, objective->gap);
}

static void check_plan(const struct planner_request *request, const struct planner_result *result,
                       const struct truth *truth)
{
    const struct plan *plan = &result->plan;
    struct prediction again = {0};
    struct error err;
    if (plan_validate(plan, "found", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    check_pins(&request->pins, plan);
    assert_int_equal(predict_plan(request->profile, plan, &again, &err), STATUS_OK);
    assert_true(near(planner_objective(&plan->objective, &again), plan->objective.value));
    if (request->memory_cap_bytes > 0)
        assert_true(memory_quantile_bytes(again.memory_bytes) <= (double)request->memory_cap_bytes);
    if (!request->raw_weights && request->weight_time > 0 && !truth->some_pipeline)
        assert_true(near(plan->objective.time_unit_s, truth->time_s));
    prediction_clear(&again);
}

static void check_case(uint64_t seed, struct tally *tally)
{
    struct dice dice = {.seed = seed};
    struct model model = tiny_model(roll_true(&dice, 4) ? 2 : 1, roll_true(&dice, 2));
    struct profile_options options = random_options(&dice);
    struct profile *profile = random_profile(&dice, &model, &options);
    struct planner_request request = {.model = &model, .profile = profile};
    struct planner_result result = {0};
    struct error err;
    random_request(&dice, &options, &request);
    struct enumeration all = {.request = &request, .options = &options};
    enumerate(&all);
    request.memory_cap_bytes = random_cap(&dice, &all);
    enum status status = planner_search(&request, &result, &err);
    struct truth truth = judge(&all, status == STATUS_OK ? &result.plan.objective : NULL);
    if (truth.fitting > 0) {
        if (status != STATUS_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        tally->feasible++;
        check_value(&result.plan, &truth, seed, tally);
        check_plan(&request, &result, &truth);
    } else if (all.count > 0) {
        assert_int_equal(status, STATUS_INFEASIBLE);
        if (result.infeasibility.leanest_bytes != (uint64_t)ceil(truth.least_quantile_bytes))
            fail_msg("seed %llu: leanest %llu, is %.17g", (unsigned long long)seed,
                     (unsigned long long)result.infeasibility.leanest_bytes,
                     truth.least_quantile_bytes);
        assert_true(result.infeasibility.missing_bytes > 0);
    } else {
        if (status != STATUS_INFEASIBLE && status != STATUS_INVALID)
            fail_msg("seed %llu: found what is not there", (unsigned long long)seed);
        assert_true(err.message[0] != '\0');
    }
    plan_clear(&result.plan);
    profile_close(profile);
    free(all.plans);
}

static void test_planner__equals_enumeration_of_all_plans(void **state)
{
    (void)state;
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < CASES; seed++)
        check_case(seed, &tally);
    print_message("%zu of %d cases feasible; %zu pipelines, %zu of them the best, worst gap %.3g\n",
                  tally.feasible, CASES, tally.pipelines, tally.exact_pipelines, tally.worst_gap);
    assert_true(tally.feasible > CASES / 2);
    assert_true(tally.pipelines > 0);
}

/* ---- single behaviours ---- */

struct setting {
    struct model model;
    struct profile *profile;
    struct planner_request request;
    struct planner_result result;
    struct error err;
};

static struct profile_options setting_options(void)
{
    return (struct profile_options){.placements = {{1, 1}, {1, 2}, {2, 1}, {4, 1}},
                                    .placement_count = 4,
                                    .micro_batches = {1, 2, 4},
                                    .micro_batch_count = 3,
                                    .bf16 = true};
}

static void open_setting(struct setting *setting, int64_t blocks, bool energy)
{
    struct dice dice = {.seed = 77};
    struct profile_options options = setting_options();
    options.energy = energy;
    *setting = (struct setting){.model = tiny_model(blocks, true)};
    setting->profile = random_profile(&dice, &setting->model, &options);
    setting->request = (struct planner_request){.model = &setting->model,
                                                .profile = setting->profile,
                                                .ranks = 2,
                                                .global_batch = 8,
                                                .weight_time = 1};
}

static void even_times(struct setting *setting, bool narrow)
{
    struct dice dice = {.seed = 77};
    struct profile_options options = setting_options();
    options.even = true;
    options.tiled = true;
    options.narrow = narrow;
    profile_close(setting->profile);
    setting->profile = random_profile(&dice, &setting->model, &options);
    setting->request.profile = setting->profile;
}

static enum status search(struct setting *setting, const char *pins)
{
    setting->request.pins_text = pins;
    setting->request.pins = (struct pins){0};
    if (pins)
        assert_int_equal(pins_parse(&setting->request.pins, pins, &setting->err), STATUS_OK);
    plan_clear(&setting->result.plan);
    return planner_search(&setting->request, &setting->result, &setting->err);
}

static void close_setting(struct setting *setting)
{
    plan_clear(&setting->result.plan);
    profile_close(setting->profile);
}

static const char all_pins[] = "dp=2,threads=1,zero=1,micro-batch=2,recompute=full,precision=bf16";

static void test_planner__only_predicts_what_is_pinned_throughout(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 2, true);
    assert_int_equal(search(&setting, all_pins), STATUS_OK);
    const struct plan *plan = &setting.result.plan;
    assert_int_equal(plan->status, PLAN_PREDICTED);
    assert_string_equal(plan->pins, all_pins);
    assert_int_equal(plan->data_parallel, 2);
    assert_int_equal(plan->micro_batch, 2);
    assert_int_equal(plan->micro_batches, 2);
    assert_int_equal(plan->layers[0].precision, PRECISION_FP32);
    assert_int_equal(plan->layers[1].recompute, RECOMPUTE_FULL);
    assert_int_equal(plan->layers[1].precision, PRECISION_BF16);
    assert_int_equal(plan->layers[5].recompute, RECOMPUTE_NONE);
    assert_true(near(plan->objective.value, 1));
    close_setting(&setting);
}

static void test_planner__names_the_pin_to_drop(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 2, true);
    setting.request.weight_time = 0;
    setting.request.weight_memory = 1;
    assert_int_equal(search(&setting, NULL), STATUS_OK);
    double least = memory_quantile_bytes(setting.result.plan.prediction.memory_bytes);
    setting.request.memory_cap_bytes = (uint64_t)ceil(least * 1.001);
    assert_int_equal(search(&setting, "micro-batch=4"), STATUS_INFEASIBLE);
    assert_non_null(strstr(setting.result.infeasibility.relaxation, "micro-batch"));
    assert_non_null(strstr(setting.result.infeasibility.constraint, "memory"));
    assert_true(setting.result.infeasibility.missing_bytes ==
                setting.result.infeasibility.leanest_bytes - setting.request.memory_cap_bytes);
    setting.request.memory_cap_bytes = setting.result.infeasibility.leanest_bytes;
    assert_int_equal(search(&setting, "micro-batch=4"), STATUS_OK);
    setting.request.memory_cap_bytes--;
    assert_int_equal(search(&setting, "micro-batch=4"), STATUS_INFEASIBLE);
    setting.request.memory_cap_bytes = 1;
    assert_int_equal(search(&setting, "micro-batch=4"), STATUS_INFEASIBLE);
    assert_non_null(strstr(setting.result.infeasibility.relaxation, "--memory-cap"));
    assert_null(strstr(setting.result.infeasibility.relaxation, "pin"));
    close_setting(&setting);
}

static void test_planner__more_memory_is_never_worse(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 3, true);
    setting.request.raw_weights = true;
    setting.request.ranks = 4;
    assert_int_equal(search(&setting, "pp=1"), STATUS_OK);
    double best = setting.result.plan.objective.value, before = best;
    double most = memory_quantile_bytes(setting.result.plan.prediction.memory_bytes);
    for (double share = 1.0; share > 0.4; share -= 0.05) {
        setting.request.memory_cap_bytes = (uint64_t)(share * most);
        if (search(&setting, "pp=1") != STATUS_OK)
            break;
        assert_int_equal(setting.result.plan.status, PLAN_OPTIMAL);
        assert_true(setting.result.plan.objective.value >= before * (1 - 1e-9));
        before = setting.result.plan.objective.value;
    }
    assert_true(before > best);
    close_setting(&setting);
}

/* Where less recompute would cost nothing and fit, there is none: off the critical stage say. */
static void expect_no_idle_recompute(struct setting *setting)
{
    struct plan *plan = &setting->result.plan;
    for (size_t l = 0; l < plan->layer_count; l++) {
        enum recompute planned = plan->layers[l].recompute;
        enum layer_kind kind = model_layer(&plan->model, l).kind;
        for (int r = 0; r < (int)planned; r++) {
            struct prediction prediction = {0};
            plan->layers[l].recompute = (enum recompute)r;
            if (!layer_admits_recompute(kind, plan->layers[l].recompute))
                continue;
            assert_int_equal(predict_plan(setting->profile, plan, &prediction, &setting->err),
                             STATUS_OK);
            bool fits = memory_quantile_bytes(prediction.memory_bytes) <=
                        (double)setting->request.memory_cap_bytes;
            assert_true(!fits ||
                        planner_objective(&plan->objective, &prediction) > plan->objective.value);
            prediction_clear(&prediction);
        }
        plan->layers[l].recompute = planned;
    }
}

static void test_planner__recomputes_only_where_it_gains(void **state)
{
    (void)state;
    static const char *const pins[] = {"pp=1", "pp=2,micro-batch=1"};
    struct setting setting;
    open_setting(&setting, 3, false);
    even_times(&setting, false);
    for (size_t p = 0; p < sizeof(pins) / sizeof(pins[0]); p++) {
        setting.request.memory_cap_bytes = UINT64_C(1) << 40;
        assert_int_equal(search(&setting, pins[p]), STATUS_OK);
        double most = memory_quantile_bytes(setting.result.plan.prediction.memory_bytes);
        for (int i = 0; i < 6; i++) {
            setting.request.memory_cap_bytes = (uint64_t)((1 - 0.03 * i) * most);
            if (search(&setting, pins[p]) == STATUS_OK)
                expect_no_idle_recompute(&setting);
        }
    }
    close_setting(&setting);
}

/* Layers of attention and mlp in this mode. */
static size_t recomputing(const struct plan *plan, enum recompute recompute)
{
    size_t count = 0;
    for (size_t l = 1; l + 1 < plan->layer_count; l++)
        count += plan->layers[l].recompute == recompute;
    return count;
}

#define TILED_PINS "pp=1,dp=1,tp=1,threads=1,micro-batch=8,precision=bf16,attention=tiled"

/* It saves less than full recompute and takes less time: planned where memory is short, of as many
 * layers as it takes, and nowhere else. Of attention in tiles and of the mlp it is the norm's and
 * the activation function's output alone. */
static void test_planner__recomputes_selectively_under_a_cap(void **state)
{
    (void)state;
    struct setting setting;
    struct plan *plan = &setting.result.plan;
    open_setting(&setting, 3, false);
    even_times(&setting, false);
    assert_int_equal(search(&setting, TILED_PINS), STATUS_OK);
    assert_int_equal(recomputing(plan, RECOMPUTE_NONE), 6);
    double most = memory_quantile_bytes(plan->prediction.memory_bytes);
    double value = plan->objective.value;
    assert_int_equal(search(&setting, TILED_PINS ",recompute=selective"), STATUS_OK);
    double least = memory_quantile_bytes(plan->prediction.memory_bytes);
    assert_true(least < most);

    setting.request.memory_cap_bytes = (uint64_t)((least + most) / 2);
    assert_int_equal(search(&setting, TILED_PINS), STATUS_OK);
    size_t count = recomputing(plan, RECOMPUTE_SELECTIVE);
    assert_true(count > 0 && count < 6);
    assert_int_equal(recomputing(plan, RECOMPUTE_FULL), 0);
    assert_true(near(plan->objective.value, value));
    setting.request.memory_cap_bytes = (uint64_t)ceil(least);
    assert_int_equal(search(&setting, TILED_PINS), STATUS_OK);
    assert_int_equal(recomputing(plan, RECOMPUTE_SELECTIVE), 6);
    assert_true(near(plan->objective.value, value));
    close_setting(&setting);
}

/* What a profile does not have is not planned, and named where it is pinned. */
static void test_planner__plans_without_unmeasured_selective_modes(void **state)
{
    (void)state;
    struct setting setting;
    struct plan *plan = &setting.result.plan;
    open_setting(&setting, 3, false);
    even_times(&setting, true);
    assert_int_equal(search(&setting, TILED_PINS), STATUS_OK);
    double most = memory_quantile_bytes(plan->prediction.memory_bytes);
    setting.request.memory_cap_bytes = (uint64_t)(most - 1);
    assert_int_equal(search(&setting, TILED_PINS), STATUS_OK);
    assert_int_equal(recomputing(plan, RECOMPUTE_SELECTIVE), 0);
    assert_true(recomputing(plan, RECOMPUTE_FULL) > 0);
    setting.request.memory_cap_bytes = 0;
    assert_int_equal(search(&setting, "pp=1,recompute:attention=selective"), STATUS_OK);
    assert_int_equal(recomputing(plan, RECOMPUTE_SELECTIVE), 3);
    assert_int_equal(search(&setting, "pp=1,recompute:mlp=selective"), STATUS_INVALID);
    assert_non_null(strstr(setting.err.message, "mlp/gpt2"));
    assert_non_null(strstr(setting.err.message, "recompute selective"));
    close_setting(&setting);
}

static void test_planner__names_the_global_batch_that_divides(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, false);
    setting.request.global_batch = 7;
    assert_int_equal(search(&setting, "dp=2"), STATUS_INFEASIBLE);
    assert_non_null(strstr(setting.result.infeasibility.relaxation, "--global-batch 6"));
    assert_non_null(strstr(setting.result.infeasibility.relaxation, "dp pin"));
    assert_int_equal(setting.result.infeasibility.missing_bytes, 0);
    assert_int_equal(search(&setting, "pp=1,tp=1"), STATUS_OK);
    assert_int_equal(setting.result.plan.ranks, 1);
    close_setting(&setting);
}

static void test_planner__more_pinned_ranks_than_allowed_are_named(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, false);
    assert_int_equal(search(&setting, "dp=4"), STATUS_INFEASIBLE);
    assert_non_null(strstr(setting.result.infeasibility.constraint, "dp=4"));
    assert_non_null(strstr(setting.result.infeasibility.relaxation, "--ranks 4"));
    close_setting(&setting);
}

static void test_planner__missing_measurements_are_named(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, false);
    assert_int_equal(search(&setting, "threads=7"), STATUS_INVALID);
    assert_non_null(strstr(setting.err.message, "1 x 2"));
    assert_non_null(strstr(setting.err.message, "temper profile"));
    setting.request.weight_energy = 1;
    assert_int_equal(search(&setting, NULL), STATUS_INVALID);
    assert_non_null(strstr(setting.err.message, "energy"));
    setting.request.weight_energy = 0;
    setting.model.seq_length = 8;
    assert_int_equal(search(&setting, NULL), STATUS_INVALID);
    assert_non_null(strstr(setting.err.message, "/s8"));
    close_setting(&setting);
}

static void test_planner__refuses_bad_requests(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 1, true);
    setting.request.weight_time = 0;
    assert_int_equal(search(&setting, NULL), STATUS_USAGE);
    setting.request.weight_time = NAN;
    assert_int_equal(search(&setting, NULL), STATUS_USAGE);
    setting.request.weight_time = -1;
    assert_int_equal(search(&setting, NULL), STATUS_USAGE);
    setting.request.weight_time = 1;
    setting.request.global_batch = 0;
    assert_int_equal(search(&setting, NULL), STATUS_USAGE);
    close_setting(&setting);
}

static void test_planner__stopped_search_keeps_a_plan_and_an_honest_bound(void **state)
{
    (void)state;
    static const atomic_int stop = 1;
    struct setting setting;
    open_setting(&setting, 12, true);
    setting.request.weight_memory = 0.3;
    setting.request.raw_weights = true;
    assert_int_equal(search(&setting, NULL), STATUS_OK);
    double best = setting.result.plan.objective.value;
    assert_int_equal(setting.result.plan.status, PLAN_OPTIMAL);
    setting.request.stop = &stop;
    assert_int_equal(search(&setting, NULL), STATUS_OK);
    const struct plan_objective *objective = &setting.result.plan.objective;
    assert_true(objective->bound <= best * (1 + 1e-9));
    assert_true(objective->value >= best * (1 - 1e-9));
    assert_true((setting.result.plan.status == PLAN_GAP) == (objective->gap > 0));
    assert_true(near(objective->gap, (objective->value - objective->bound) / objective->value));
    close_setting(&setting);
}

static void report_search(const char *what, const struct planner_result *result)
{
    const struct search_statistics *statistics = &result->statistics;
    const struct plan *plan = &result->plan;
    print_message("%s: %.3f s, %llu candidates, %llu bounded away, %llu solved, %llu labels, %llu "
                  "columns; pp %d dp %d tp %d, gap %.3g\n",
                  what, statistics->seconds, (unsigned long long)statistics->candidates,
                  (unsigned long long)statistics->bounded_away,
                  (unsigned long long)statistics->solved, (unsigned long long)statistics->labels,
                  (unsigned long long)statistics->columns, plan->pipeline, plan->data_parallel,
                  plan->tensor_parallel, plan->objective.gap);
}

static void test_planner__plans_a_24_block_model_in_seconds(void **state)
{
    (void)state;
    static const char *const pins[] = {NULL, "pp=2", "pp=4", "pp=2,dp=1", "pp=1,dp=1", "tp=2"};
    struct setting setting;
    open_setting(&setting, 24, true);
    setting.request.ranks = 4;
    setting.request.global_batch = 48;
    for (size_t i = 0; i < sizeof(pins) / sizeof(*pins); i++) {
        setting.request.memory_cap_bytes = 0;
        setting.request.weight_memory = 0.2;
        setting.request.weight_energy = 0.5;
        assert_int_equal(search(&setting, pins[i]), STATUS_OK);
        report_search(pins[i] ? pins[i] : "free", &setting.result);
        double memory = memory_quantile_bytes(setting.result.plan.prediction.memory_bytes);
        setting.request.memory_cap_bytes = (uint64_t)(memory * 1.05);
        setting.request.weight_memory = setting.request.weight_energy = 0;
        assert_int_equal(search(&setting, pins[i]), STATUS_OK);
        report_search("  capped", &setting.result);
        const struct search_statistics *statistics = &setting.result.statistics;
        assert_int_equal(statistics->bounded_away + statistics->solved, statistics->candidates);
        assert_true(setting.result.plan.objective.gap < 0.25);
        if (setting.result.plan.pipeline == 1)
            assert_true(setting.result.plan.objective.gap < 1e-3);
    }
    close_setting(&setting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planner__equals_enumeration_of_all_plans),
        cmocka_unit_test(test_planner__only_predicts_what_is_pinned_throughout),
        cmocka_unit_test(test_planner__names_the_pin_to_drop),
        cmocka_unit_test(test_planner__more_memory_is_never_worse),
        cmocka_unit_test(test_planner__recomputes_only_where_it_gains),
        cmocka_unit_test(test_planner__recomputes_selectively_under_a_cap),
        cmocka_unit_test(test_planner__plans_without_unmeasured_selective_modes),
        cmocka_unit_test(test_planner__names_the_global_batch_that_divides),
        cmocka_unit_test(test_planner__more_pinned_ranks_than_allowed_are_named),
        cmocka_unit_test(test_planner__missing_measurements_are_named),
        cmocka_unit_test(test_planner__refuses_bad_requests),
        cmocka_unit_test(test_planner__stopped_search_keeps_a_plan_and_an_honest_bound),
        cmocka_unit_test(test_planner__plans_a_24_block_model_in_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
