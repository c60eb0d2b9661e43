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

enum { LAYERS_MAX = 6, CASES = 240 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

/* ---- every plan there is, through predict_plan ---- */

struct totals {
    double time_s, memory_bytes, quantile_bytes, energy_j;
};

struct enumeration {
    const struct planner_request *request;
    const struct profile_options *options;
    struct totals *plans; /* those that the pins allow */
    size_t count, capacity;
};

static bool mode_allowed(const struct pins *pins, enum layer_kind kind,
                         struct layer_strategy strategy)
{
    enum recompute recompute = pins->recompute[kind];
    enum precision precision = pins->precision[kind];
    if (!layer_admits_recompute(kind, strategy.recompute) ||
        !layer_admits_precision(kind, strategy.precision))
        return false;
    if (!layer_admits_recompute(kind, recompute))
        recompute = RECOMPUTE_NONE;
    if (!layer_admits_precision(kind, precision))
        precision = PRECISION_FP32;
    return (!pins->recompute_fixed[kind] || strategy.recompute == recompute) &&
           (!pins->precision_fixed[kind] || strategy.precision == precision);
}

static void keep(struct enumeration *all, const struct plan *plan)
{
    struct prediction prediction = {0};
    struct error err;
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
        prediction.energy_j.provenance == PROVENANCE_ABSENT ? NAN : prediction.energy_j.value};
    prediction_clear(&prediction);
}

static void try_layers(struct enumeration *all, struct plan *plan, size_t layer)
{
    if (layer == plan->layer_count) {
        keep(all, plan);
        return;
    }
    enum layer_kind kind = model_layer(&plan->model, layer).kind;
    int precisions = all->options->bf16 ? PRECISION_COUNT : 1;
    for (int p = 0; p < precisions; p++) {
        for (int r = 0; r < RECOMPUTE_COUNT; r++) {
            plan->layers[layer] = (struct layer_strategy){.tensor_parallel = 1,
                                                          .recompute = (enum recompute)r,
                                                          .precision = (enum precision)p};
            if (mode_allowed(&all->request->pins, kind, plan->layers[layer]))
                try_layers(all, plan, layer + 1);
        }
    }
}

static bool shape_allowed(const struct enumeration *all, struct placement placement,
                          int64_t micro_batch)
{
    const struct planner_request *request = all->request;
    const struct pins *pins = &request->pins;
    if (placement.ranks > request->ranks ||
        request->global_batch % (placement.ranks * micro_batch) != 0)
        return false;
    int64_t micro_batches = request->global_batch / placement.ranks / micro_batch;
    int64_t largest = all->options->micro_batches[all->options->micro_batch_count - 1];
    if (!pins->micro_batch && !pins->micro_batches && micro_batch > 4 * largest)
        return false; /* too far beyond what was measured */
    return (!pins->data_parallel || placement.ranks == pins->data_parallel) &&
           (!pins->threads || placement.threads == pins->threads) &&
           (!pins->micro_batch || micro_batch == pins->micro_batch) &&
           (!pins->micro_batches || micro_batches == pins->micro_batches);
}

static void enumerate(struct enumeration *all)
{
    struct layer_strategy layers[LAYERS_MAX];
    for (size_t i = 0; i < all->options->placement_count; i++) {
        struct placement placement = all->options->placements[i];
        for (int64_t b = 1; b <= all->request->global_batch; b++) {
            if (!shape_allowed(all, placement, b))
                continue;
            struct plan plan = {.model = *all->request->model,
                                .ranks = placement.ranks,
                                .data_parallel = placement.ranks,
                                .pipeline = 1,
                                .threads = placement.threads,
                                .global_batch = all->request->global_batch,
                                .micro_batch = b,
                                .layers = layers,
                                .layer_count = model_layer_count(all->request->model)};
            plan.micro_batches = plan.global_batch / placement.ranks / b;
            try_layers(all, &plan, 0);
        }
    }
}

struct truth {
    size_t fitting;
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

static struct truth judge(const struct enumeration *all)
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
        truth.time_s = fmin(truth.time_s, plan->time_s);
        truth.memory_bytes = fmin(truth.memory_bytes, plan->memory_bytes);
        truth.energy_j = fmin(truth.energy_j, plan->energy_j);
    }
    struct truth units = truth;
    if (request->raw_weights)
        units = (struct truth){.time_s = 1, .memory_bytes = 1024.0 * 1024 * 1024, .energy_j = 1};
    for (size_t i = 0; i < all->count; i++) {
        if (fits(request, &all->plans[i]))
            truth.objective = fmin(truth.objective, value_of(request, &units, &all->plans[i]));
    }
    return truth;
}

/* ---- random requests ---- */

static void random_pins(struct dice *dice, struct pins *pins)
{
    *pins = (struct pins){0};
    if (roll_true(dice, 4))
        pins->micro_batch = 1 + (int64_t)roll(dice, 2);
    if (roll_true(dice, 8))
        pins->micro_batches = 1 + (int64_t)roll(dice, 3);
    if (roll_true(dice, 6))
        pins->data_parallel = 1 + (int)roll(dice, 2);
    if (roll_true(dice, 6))
        pins->threads = 1 + (int)roll(dice, 2);
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        pins->recompute_fixed[kind] = roll_true(dice, 4);
        pins->recompute[kind] = (enum recompute)roll(dice, RECOMPUTE_COUNT);
        pins->precision_fixed[kind] = roll_true(dice, 4);
        pins->precision[kind] = (enum precision)roll(dice, PRECISION_COUNT);
    }
}

static struct profile_options random_options(struct dice *dice)
{
    struct profile_options options = {
        .placements = {{1, 1}, {1, 2}, {2, 1}},
        .placement_count = 1 + roll(dice, 3),
        .micro_batches = {1, 2, 4},
        .micro_batch_count = 1 + roll(dice, 3),
        .bf16 = !roll_true(dice, 4),
        .energy = !roll_true(dice, 3),
    };
    return options;
}

static void random_request(struct dice *dice, const struct profile_options *options,
                           struct planner_request *request)
{
    static const int64_t batches[] = {1, 2, 4, 6};
    request->ranks = 1 + (int)roll(dice, 2);
    request->global_batch = batches[roll(dice, 4)];
    request->weight_time = roll_true(dice, 4) ? 0 : roll_real(dice);
    request->weight_memory = roll_true(dice, 2) ? 0 : roll_real(dice);
    request->weight_energy = options->energy && roll_true(dice, 2) ? roll_real(dice) : 0;
    if (request->weight_time + request->weight_memory + request->weight_energy <= 0)
        request->weight_time = 1;
    request->raw_weights = roll_true(dice, 4);
    random_pins(dice, &request->pins);
    if (!options->bf16)
        memset(request->pins.precision_fixed, 0, sizeof(request->pins.precision_fixed));
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

static void check_plan(const struct planner_request *request, const struct planner_result *result,
                       const struct truth *truth, uint64_t seed)
{
    const struct plan *plan = &result->plan;
    struct prediction again = {0};
    struct error err;
    if (!near(plan->objective.value, truth->objective))
        fail_msg("seed %llu: found %.17g, best %.17g", (unsigned long long)seed,
                 plan->objective.value, truth->objective);
    assert_true(plan->objective.gap == 0);
    assert_true(near(plan->objective.bound, truth->objective));
    assert_true(plan->status != PLAN_GAP);
    assert_int_equal(plan_validate(plan, "found", &err), STATUS_OK);
    assert_int_equal(predict_plan(request->profile, plan, &again, &err), STATUS_OK);
    assert_true(near(planner_objective(&plan->objective, &again), plan->objective.value));
    if (request->memory_cap_bytes > 0)
        assert_true(memory_quantile_bytes(again.memory_bytes) <= (double)request->memory_cap_bytes);
    if (!request->raw_weights && request->weight_time > 0)
        assert_true(near(plan->objective.time_unit_s, truth->time_s));
    prediction_clear(&again);
}

static size_t check_case(uint64_t seed)
{
    struct dice dice = {.seed = seed};
    struct model model = tiny_model(roll_true(&dice, 12) ? 2 : 1, roll_true(&dice, 2));
    struct profile_options options = random_options(&dice);
    struct profile *profile = random_profile(&dice, &model, &options);
    struct planner_request request = {.model = &model, .profile = profile};
    struct planner_result result = {0};
    struct error err;
    random_request(&dice, &options, &request);
    struct enumeration all = {.request = &request, .options = &options};
    enumerate(&all);
    request.memory_cap_bytes = random_cap(&dice, &all);
    struct truth truth = judge(&all);
    enum status status = planner_search(&request, &result, &err);
    if (truth.fitting > 0) {
        if (status != STATUS_OK)
            fail_msg("seed %llu: %s", (unsigned long long)seed, err.message);
        check_plan(&request, &result, &truth, seed);
    } else if (all.count > 0) {
        assert_int_equal(status, STATUS_INFEASIBLE);
        assert_true(result.infeasibility.leanest_bytes ==
                    (uint64_t)ceil(truth.least_quantile_bytes));
        assert_true(result.infeasibility.missing_bytes > 0);
    } else {
        assert_true(status == STATUS_INFEASIBLE || status == STATUS_INVALID);
        assert_true(err.message[0] != '\0');
    }
    plan_clear(&result.plan);
    profile_close(profile);
    free(all.plans);
    return truth.fitting;
}

static void test_planner__equals_enumeration_of_all_plans(void **state)
{
    (void)state;
    size_t feasible = 0;
    for (uint64_t seed = 0; seed < CASES; seed++)
        feasible += check_case(seed) > 0;
    print_message("%zu of %d cases feasible\n", feasible, CASES);
    assert_true(feasible > CASES / 2);
}

/* ---- single behaviours ---- */

struct setting {
    struct model model;
    struct profile *profile;
    struct planner_request request;
    struct planner_result result;
    struct error err;
};

static void open_setting(struct setting *setting, int64_t blocks, bool energy)
{
    struct dice dice = {.seed = 77};
    const struct profile_options options = {.placements = {{1, 1}, {1, 2}, {2, 1}},
                                            .placement_count = 3,
                                            .micro_batches = {1, 2, 4},
                                            .micro_batch_count = 3,
                                            .bf16 = true,
                                            .energy = energy};
    *setting = (struct setting){.model = tiny_model(blocks, true)};
    setting->profile = random_profile(&dice, &setting->model, &options);
    setting->request = (struct planner_request){.model = &setting->model,
                                                .profile = setting->profile,
                                                .ranks = 2,
                                                .global_batch = 8,
                                                .weight_time = 1};
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

static const char all_pins[] = "dp=2,threads=1,micro-batch=2,recompute=full,precision=bf16";

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
    assert_int_equal(search(&setting, NULL), STATUS_OK);
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
    static const volatile int stop = 1;
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

static void test_planner__plans_a_24_block_model_in_well_under_a_second(void **state)
{
    (void)state;
    struct setting setting;
    open_setting(&setting, 24, true);
    setting.request.global_batch = 48;
    setting.request.weight_memory = 0.2;
    setting.request.weight_energy = 0.5;
    assert_int_equal(search(&setting, NULL), STATUS_OK);
    double memory = memory_quantile_bytes(setting.result.plan.prediction.memory_bytes);
    setting.request.memory_cap_bytes = (uint64_t)(memory * 1.05);
    setting.request.weight_memory = 0;
    double started_s = clock_s();
    assert_int_equal(search(&setting, NULL), STATUS_OK);
    double seconds = clock_s() - started_s;
    const struct search_statistics *statistics = &setting.result.statistics;
    print_message("%.3f s: %llu candidates, %llu bounded away, %llu solved, %llu labels, %llu "
                  "columns\n",
                  seconds, (unsigned long long)statistics->candidates,
                  (unsigned long long)statistics->bounded_away,
                  (unsigned long long)statistics->solved, (unsigned long long)statistics->labels,
                  (unsigned long long)statistics->columns);
    assert_int_equal(setting.result.plan.status, PLAN_OPTIMAL);
    assert_int_equal(statistics->bounded_away + statistics->solved, statistics->candidates);
    assert_true(seconds < 1);
    close_setting(&setting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planner__equals_enumeration_of_all_plans),
        cmocka_unit_test(test_planner__only_predicts_what_is_pinned_throughout),
        cmocka_unit_test(test_planner__names_the_pin_to_drop),
        cmocka_unit_test(test_planner__names_the_global_batch_that_divides),
        cmocka_unit_test(test_planner__more_pinned_ranks_than_allowed_are_named),
        cmocka_unit_test(test_planner__missing_measurements_are_named),
        cmocka_unit_test(test_planner__refuses_bad_requests),
        cmocka_unit_test(test_planner__stopped_search_keeps_a_plan_and_an_honest_bound),
        cmocka_unit_test(test_planner__plans_a_24_block_model_in_well_under_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
