#include "base/clock.h"
#include "fixture.h"
#include "planner/bounds.h"
#include "planner/search.h"
#include "random_problem.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CASES = 1200 };

static const struct instance_shape small = {
    .layers_least = 1, .layers_most = 6, .strategies_most = 4, .stages_most = 3};

static void small_instance(uint64_t seed, struct instance *out)
{
    struct dice dice = {.seed = seed};
    struct instance_shape shape = small;
    shape.is_coarse = roll_true(&dice, 3);
    random_instance(&dice, &shape, out);
}

/* ---- full enumeration, written without the library's evaluation ---- */

struct enumeration {
    double best;          /* under the caps and the budget; INFINITY: none */
    uint64_t least_bytes; /* of any assignment: of the fullest stage and what its cap is below the
                             largest */
    uint64_t most_bytes;
    double least_spend, most_spend; /* of any under the caps */
};

struct outcome {
    double value, spend;
    uint64_t bytes; /* as least_bytes */
    bool fits;      /* the caps */
};

/* One stage's sums in words of the formula. */
struct slow_stage {
    double tau, gamma;
    uint64_t bytes, scratch;
};

static const struct strategy *picked(const struct problem *problem, const size_t *choice,
                                     const size_t *stage, size_t l)
{
    size_t row = problem->rules[stage[l]].place * problem->class_count + problem->layer_class[l];
    return &problem->classes[row].strategies[choice[l]];
}

static void add_slow_layer(const struct problem *problem, const size_t *choice, const size_t *stage,
                           size_t l, struct slow_stage *sums, struct outcome *out)
{
    size_t p = stage[l];
    const struct stage_rule *rule = &problem->rules[p];
    const struct strategy *s = picked(problem, choice, stage, l);
    bool last = l + 1 == problem->layer_count;
    out->value += s->cost + (p == 0 ? s->first_cost : 0);
    out->spend += s->spend + (p == 0 ? s->first_spend : 0);
    sums->tau += s->tau - rule->warm_up * s->head;
    sums->gamma += s->gamma;
    sums->bytes += s->static_bytes + rule->in_flight * s->inflight_bytes;
    sums->scratch = s->scratch_bytes > sums->scratch ? s->scratch_bytes : sums->scratch;
    if (!last && stage[l + 1] != p) {
        out->value += s->send_cost;
        out->spend += s->send_spend;
    }
    if (last || stage[l + 1] != p || !problem->transitions ||
        problem->classes[problem->layer_class[l + 1]].follows_nothing)
        return;
    const struct strategy *next = picked(problem, choice, stage, l + 1);
    const struct transition *change = &problem->transitions[rule->place * GROUPS_MAX * GROUPS_MAX +
                                                            s->group * GROUPS_MAX + next->group];
    out->value += change->cost;
    out->spend += change->spend;
    sums->tau += change->tau - rule->warm_up * change->head;
}

static struct outcome slow_outcome(const struct problem *problem, const size_t *choice,
                                   const size_t *stage)
{
    struct outcome out = {.value = problem->fixed_cost, .fits = true};
    double tau_max = 0, gamma_max = 0;
    uint64_t peak = 0, most_cap = 0;
    for (size_t p = 0; p < problem->stages; p++)
        most_cap = problem->rules[p].cap_bytes > most_cap ? problem->rules[p].cap_bytes : most_cap;
    for (size_t p = 0; p < problem->stages; p++) {
        struct slow_stage sums = {.bytes = problem->rules[p].fixed_bytes};
        for (size_t l = 0; l < problem->layer_count; l++) {
            if (stage[l] == p)
                add_slow_layer(problem, choice, stage, l, &sums, &out);
        }
        uint64_t held = sums.bytes + sums.scratch, cap = problem->rules[p].cap_bytes;
        tau_max = fmax(tau_max, sums.tau);
        gamma_max = fmax(gamma_max, sums.gamma);
        peak = held > peak ? held : peak;
        out.bytes = held + (most_cap - cap) > out.bytes ? held + (most_cap - cap) : out.bytes;
        out.fits &= held <= cap;
    }
    out.value += problem->weight_tau * tau_max + problem->weight_gamma * gamma_max +
                 problem->weight_memory * (double)peak;
    out.spend += problem->spend_tau * tau_max + problem->spend_gamma * gamma_max;
    return out;
}

static void try_strategies(const struct problem *problem, const size_t *stage, size_t layer,
                           size_t *choice, struct enumeration *out)
{
    if (layer < problem->layer_count) {
        size_t count = problem->classes[problem->layer_class[layer]].strategy_count;
        for (choice[layer] = 0; choice[layer] < count; choice[layer]++) {
            if (picked(problem, choice, stage, layer)->cost < INFINITY)
                try_strategies(problem, stage, layer + 1, choice, out);
        }
        return;
    }
    unsigned traits = 0;
    for (size_t l = 0; l < problem->layer_count; l++)
        traits |= picked(problem, choice, stage, l)->traits;
    if ((problem->needs & ~traits) != 0)
        return;
    const struct outcome found = slow_outcome(problem, choice, stage);
    out->least_bytes = found.bytes < out->least_bytes ? found.bytes : out->least_bytes;
    out->most_bytes = found.bytes > out->most_bytes ? found.bytes : out->most_bytes;
    if (!found.fits)
        return;
    out->least_spend = fmin(out->least_spend, found.spend);
    out->most_spend = fmax(out->most_spend, found.spend);
    if (found.spend <= problem->spend_cap)
        out->best = fmin(out->best, found.value);
}

static void try_stages(const struct problem *problem, size_t layer, size_t *stage, size_t *choice,
                       struct enumeration *out)
{
    if (layer == problem->layer_count) {
        if (layer > 0 && stage[layer - 1] + 1 == problem->stages)
            try_strategies(problem, stage, 0, choice, out);
        return;
    }
    size_t before = layer == 0 ? 0 : stage[layer - 1];
    for (size_t p = before; p <= before + (layer > 0) && p < problem->stages; p++) {
        size_t cut = problem->rules[before].end;
        if (layer > 0 && cut > 0 && (p > before) != (cut == layer))
            continue;
        stage[layer] = p;
        try_stages(problem, layer + 1, stage, choice, out);
    }
}

static struct enumeration enumerate(const struct problem *problem)
{
    size_t stage[LAYERS_MAX] = {0}, choice[LAYERS_MAX] = {0};
    struct enumeration out = {
        .best = INFINITY, .least_bytes = UINT64_MAX, .least_spend = INFINITY, .most_spend = -1};
    try_stages(problem, 0, stage, choice, &out);
    return out;
}

/* ---- comparisons ---- */

static const struct search_options no_limits = {.upper_bound = INFINITY,
                                                .limits = {.deadline_s = INFINITY}};

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(1.0, fmax(fabs(a), fabs(b)));
}

static void check_against_enumeration(const struct problem *problem, uint64_t seed)
{
    struct error err;
    struct solution solution;
    struct enumeration truth = enumerate(problem);
    assert_int_equal(problem_solve(problem, &no_limits, &solution, &err), STATUS_OK);
    if (truth.best == INFINITY) {
        if (solution.found || solution.bound < INFINITY)
            fail_msg("seed %llu: found %d value %.17g bound %.17g, and there is none",
                     (unsigned long long)seed, solution.found, solution.value, solution.bound);
        solution_free(&solution);
        return;
    }
    if (!solution.found || !near(solution.value, truth.best) || !near(solution.bound, truth.best))
        fail_msg("seed %llu: found %d value %.17g bound %.17g, best %.17g",
                 (unsigned long long)seed, solution.found, solution.value, solution.bound,
                 truth.best);
    const struct outcome found =
        slow_outcome(problem, solution.assignment.strategies, solution.assignment.stages);
    assert_true(near(found.value, solution.value));
    assert_true(found.fits);
    assert_true(problem_affords(problem, found.spend));
    solution_free(&solution);
}

/* A cap between the leanest and the largest; at the ends exactly there or one byte beside. */
static uint64_t random_cap(struct dice *dice, const struct enumeration *truth)
{
    switch (roll(dice, 6)) {
    case 0:
        return truth->least_bytes;
    case 1:
        return truth->least_bytes > 0 ? truth->least_bytes - 1 : 0;
    case 2:
        return truth->most_bytes;
    case 3:
        return PROBLEM_NO_CAP;
    default:
        return truth->least_bytes + roll(dice, truth->most_bytes - truth->least_bytes + 1);
    }
}

/* A budget between the thriftiest and the most that is spent, at whole numbers exactly there. */
static double random_budget(struct dice *dice, const struct enumeration *truth)
{
    double span = truth->most_spend - truth->least_spend;
    switch (roll(dice, 5)) {
    case 0:
        return truth->least_spend;
    case 1:
        return truth->least_spend - 0.25;
    default:
        return truth->least_spend + roll_real(dice) * (roll_true(dice, 2) ? 0.3 : 1) * span;
    }
}

static void test_search__equals_enumeration(void **state)
{
    (void)state;
    static struct instance instance;
    size_t solved = 0, unlike = 0, budgets = 0;
    for (uint64_t seed = 0; seed < CASES; seed++) {
        struct dice dice = {.seed = seed + 1000000};
        small_instance(seed, &instance);
        struct enumeration truth = enumerate(&instance.problem);
        if (truth.least_bytes < UINT64_MAX)
            instance_set_cap(&instance, random_cap(&dice, &truth), 0.4 * roll_real(&dice));
        if (roll_true(&dice, 2)) {
            truth = enumerate(&instance.problem);
            if (truth.least_spend < INFINITY)
                instance.problem.spend_cap = random_budget(&dice, &truth);
        }
        check_against_enumeration(&instance.problem, seed);
        solved += enumerate(&instance.problem).best < INFINITY;
        unlike += instance.problem.places > 1;
        budgets += instance.problem.spend_cap < INFINITY;
    }
    print_message("%zu have a solution, %zu unlike places, %zu a budget\n", solved, unlike,
                  budgets);
    assert_true(solved >= 700 && unlike > 300 && budgets > 300);
}

/* Caps in the middle of what the instance's assignments need. */
static struct enumeration cap_in_the_middle(struct instance *instance)
{
    struct enumeration truth = enumerate(&instance->problem);
    if (truth.least_bytes < UINT64_MAX)
        instance_set_cap(instance, (truth.least_bytes + truth.most_bytes) / 2, 0.1);
    return enumerate(&instance->problem);
}

static void test_search__leanest_is_the_least_of_all(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct assignment leanest;
        uint64_t bytes;
        small_instance(seed, &instance);
        struct enumeration truth = cap_in_the_middle(&instance);
        assert_int_equal(assignment_alloc(&leanest, instance.problem.layer_count, &err), STATUS_OK);
        assert_int_equal(problem_leanest(&instance.problem, &bytes, &leanest, &err), STATUS_OK);
        assert_true(bytes == truth.least_bytes);
        if (bytes < UINT64_MAX)
            assert_true(slow_outcome(&instance.problem, leanest.strategies, leanest.stages).bytes ==
                        bytes);
        assignment_free(&leanest);
    }
}

static void test_search__bound_is_below_every_solution(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct bounds bounds;
        small_instance(seed, &instance);
        struct enumeration truth = cap_in_the_middle(&instance);
        if (seed % 2 == 0 && truth.best < INFINITY)
            instance.problem.spend_cap = 0.7 * truth.least_spend + 0.3 * truth.most_spend;
        truth = enumerate(&instance.problem);
        assert_int_equal(bounds_init(&bounds, &instance.problem, NULL, INFINITY, &err), STATUS_OK);
        if (!(bounds_total(&bounds) <= truth.best * (1 + 1e-12)))
            fail_msg("seed %llu: bound %.17g, best %.17g", (unsigned long long)seed,
                     bounds_total(&bounds), truth.best);
        bounds_free(&bounds);
    }
}

static void test_search__upper_bound_is_respected(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES / 4; seed++) {
        struct error err;
        struct solution solution;
        small_instance(seed, &instance);
        double best = enumerate(&instance.problem).best;
        if (best == INFINITY)
            continue;
        struct search_options options = no_limits;
        options.upper_bound = best * 0.999;
        assert_int_equal(problem_solve(&instance.problem, &options, &solution, &err), STATUS_OK);
        assert_false(solution.found);
        assert_true(solution.bound >= options.upper_bound);
        solution_free(&solution);
        options.upper_bound = best * 1.001 + 1e-6;
        assert_int_equal(problem_solve(&instance.problem, &options, &solution, &err), STATUS_OK);
        assert_true(solution.found);
        assert_true(near(solution.value, best));
        solution_free(&solution);
    }
}

static void test_search__gap_target_is_kept(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct solution solution;
        small_instance(seed, &instance);
        struct enumeration truth = cap_in_the_middle(&instance);
        struct search_options options = no_limits;
        options.gap_target = 0.1;
        assert_int_equal(problem_solve(&instance.problem, &options, &solution, &err), STATUS_OK);
        assert_true(solution.found == (truth.best < INFINITY));
        if (solution.found) {
            assert_true(solution.bound <= truth.best * (1 + 1e-12));
            assert_true(solution.value - solution.bound <= 0.1 * solution.value * (1 + 1e-9));
        }
        solution_free(&solution);
    }
}

static void test_search__stopped_search_is_honest(void **state)
{
    (void)state;
    static struct instance instance;
    static const atomic_int stop = 1;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct solution solution;
        small_instance(seed, &instance);
        struct enumeration truth = cap_in_the_middle(&instance);
        struct search_options options = no_limits;
        options.limits.stop = &stop;
        assert_int_equal(problem_solve(&instance.problem, &options, &solution, &err), STATUS_OK);
        assert_true(solution.found == (truth.best < INFINITY));
        if (solution.found) {
            assert_true(solution.bound <= truth.best * (1 + 1e-12));
            assert_true(solution.value >= truth.best * (1 - 1e-12));
        }
        solution_free(&solution);
    }
}

/* ---- long chains: too large to enumerate, so held against bounds that are easy to see ---- */

enum { CHAIN_LAYERS = 50 };

struct chain {
    struct problem problem;
    size_t layer_class[CHAIN_LAYERS];
    struct layer_class classes[4];
    struct strategy strategies[4][6];
    struct stage_rule rules[4];
};

/* A transformer: embedding, 24 x (attention, mlp), head, with six and four strategies. */
static void build_chain(struct chain *out, size_t stages, uint64_t seed)
{
    static const size_t counts[4] = {1, 6, 4, 2};
    struct dice dice = {.seed = seed};
    memset(out, 0, sizeof(*out));
    for (size_t l = 0; l < CHAIN_LAYERS; l++)
        out->layer_class[l] = l == 0 ? 0 : l + 1 == CHAIN_LAYERS ? 3 : 1 + (l - 1) % 2;
    for (size_t c = 0; c < 4; c++) {
        out->classes[c] =
            (struct layer_class){.strategy_count = counts[c], .strategies = out->strategies[c]};
        for (size_t s = 0; s < counts[c]; s++) {
            double lean = roll_real(&dice);
            out->strategies[c][s] = (struct strategy){
                .cost = 0.01 * (1 + lean + 0.2 * roll_real(&dice)),
                .tau = 0.001 * (1 + lean + 0.2 * roll_real(&dice)),
                .gamma = 0.0001,
                .static_bytes = 1u << 22,
                .inflight_bytes = (uint64_t)(1e8 * (1.05 - lean)),
                .scratch_bytes = (uint64_t)(1e8 * roll_real(&dice)),
            };
        }
    }
    for (size_t p = 0; p < stages; p++)
        out->rules[p] = (struct stage_rule){
            .in_flight = stages - p, .warm_up = 0.1, .cap_bytes = PROBLEM_NO_CAP};
    out->problem = (struct problem){.layer_count = CHAIN_LAYERS,
                                    .layer_class = out->layer_class,
                                    .places = 1,
                                    .class_count = 4,
                                    .classes = out->classes,
                                    .stages = stages,
                                    .rules = out->rules,
                                    .weight_tau = 7,
                                    .weight_gamma = 1,
                                    .spend_cap = INFINITY};
}

static void solve_chain(size_t stages, uint64_t seed, double weight_memory, double limit_s)
{
    static struct chain chain;
    struct error err;
    struct solution solution;
    build_chain(&chain, stages, seed);
    uint64_t leanest;
    assert_int_equal(problem_leanest(&chain.problem, &leanest, NULL, &err), STATUS_OK);
    for (size_t p = 0; p < stages; p++)
        chain.rules[p].cap_bytes = leanest + leanest / 3;
    chain.problem.weight_memory = weight_memory;
    double started_s = clock_s();
    assert_int_equal(problem_solve(&chain.problem, &no_limits, &solution, &err), STATUS_OK);
    double seconds = clock_s() - started_s;
    assert_true(solution.found);
    assert_true(solution.bound >= solution.value * (1 - 1e-9));
    print_message("%zu stages, seed %llu: %.3f s, %llu labels, %llu columns\n", stages,
                  (unsigned long long)seed, seconds, (unsigned long long)solution.labels,
                  (unsigned long long)solution.columns);
    assert_true(seconds < limit_s);
    solution_free(&solution);
}

static void test_search__closes_a_24_block_model_in_well_under_a_second(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++)
        solve_chain(1, seed, seed % 2 ? 1e-11 : 0, 1.0);
}

static void test_search__closes_a_pipeline(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2; seed++)
        solve_chain(4, seed, seed % 2 ? 1e-11 : 0, 20.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search__equals_enumeration),
        cmocka_unit_test(test_search__leanest_is_the_least_of_all),
        cmocka_unit_test(test_search__bound_is_below_every_solution),
        cmocka_unit_test(test_search__upper_bound_is_respected),
        cmocka_unit_test(test_search__gap_target_is_kept),
        cmocka_unit_test(test_search__stopped_search_is_honest),
        cmocka_unit_test(test_search__closes_a_24_block_model_in_well_under_a_second),
        cmocka_unit_test(test_search__closes_a_pipeline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
