#include "base/clock.h"
#include "fixture.h"
#include "planner/bounds.h"
#include "planner/search.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    CASES = 600,
    LAYERS_MAX = 6,
    CLASSES_MAX = 4,
    STRATEGIES_MAX = 4,
    STAGES_MAX = 3,
    GROUPS_MAX = 3,
};

/* ---- random problems ---- */

struct instance {
    struct problem problem;
    size_t layer_class[LAYERS_MAX];
    struct layer_class classes[CLASSES_MAX];
    struct strategy strategies[CLASSES_MAX][STRATEGIES_MAX];
    struct transition transitions[GROUPS_MAX * GROUPS_MAX];
    struct stage_rule rules[STAGES_MAX];
};

static void random_strategy(struct dice *dice, bool coarse, struct strategy *out)
{
    /* Coarse figures make ties and caps that fit to the byte. */
    if (coarse) {
        *out = (struct strategy){.cost = (double)roll(dice, 4),
                                 .tau = (double)roll(dice, 3),
                                 .gamma = (double)roll(dice, 3),
                                 .first_cost = (double)roll(dice, 2),
                                 .group = roll(dice, GROUPS_MAX),
                                 .send_cost = (double)roll(dice, 2),
                                 .static_bytes = roll(dice, 4),
                                 .inflight_bytes = roll(dice, 4),
                                 .scratch_bytes = roll(dice, 4)};
        return;
    }
    *out = (struct strategy){.cost = roll_real(dice),
                             .tau = roll_real(dice),
                             .gamma = roll_real(dice),
                             .first_cost = 0.2 * roll_real(dice),
                             .group = roll(dice, GROUPS_MAX),
                             .send_cost = 0.2 * roll_real(dice),
                             .static_bytes = roll(dice, 1u << 20),
                             .inflight_bytes = roll(dice, 1u << 28),
                             .scratch_bytes = roll(dice, 1u << 29)};
}

static void random_transitions(struct dice *dice, bool coarse, struct instance *out)
{
    out->problem.transitions = out->transitions;
    out->problem.group_count = GROUPS_MAX;
    for (size_t t = 0; t < GROUPS_MAX * GROUPS_MAX; t++) {
        struct transition *change = &out->transitions[t];
        if (t % (GROUPS_MAX + 1) == 0)
            continue;
        *change =
            coarse
                ? (struct transition){.cost = (double)roll(dice, 2), .tau = (double)roll(dice, 2)}
                : (struct transition){.cost = 0.3 * roll_real(dice), .tau = 0.3 * roll_real(dice)};
        change->head = change->tau * roll_real(dice);
    }
}

/* What a schedule makes of the stages; sometimes they are cut in advance. */
static void random_rules(struct dice *dice, struct instance *out)
{
    struct problem *problem = &out->problem;
    bool is_cut = roll_true(dice, 4);
    problem->rules = out->rules;
    for (size_t p = 0; p < problem->stages; p++) {
        size_t least = p > 0 ? out->rules[p - 1].end + 1 : 1;
        size_t most = problem->layer_count - (problem->stages - p - 1);
        out->rules[p] = (struct stage_rule){.in_flight = 1 + roll(dice, 4),
                                            .warm_up = roll_true(dice, 2) ? roll_real(dice) : 0};
        if (is_cut)
            out->rules[p].end = p + 1 < problem->stages ? least + roll(dice, most - least + 1)
                                                        : problem->layer_count;
    }
}

static unsigned random_traits(struct dice *dice, const struct problem *problem, size_t layer)
{
    const struct layer_class *of = &problem->classes[problem->layer_class[layer]];
    return of->strategies[roll(dice, of->strategy_count)].traits;
}

/* Traits that some choice of strategies has together. */
static unsigned possible_traits(struct dice *dice, const struct problem *problem)
{
    unsigned traits = random_traits(dice, problem, 0);
    if (problem->layer_count > 1)
        traits |= random_traits(dice, problem, problem->layer_count - 1);
    return traits;
}

static void random_instance(uint64_t seed, struct instance *out)
{
    struct dice dice = {.seed = seed};
    bool coarse = roll_true(&dice, 3);
    memset(out, 0, sizeof(*out));
    struct problem *problem = &out->problem;
    *problem = (struct problem){
        .layer_count = 1 + roll(&dice, LAYERS_MAX),
        .layer_class = out->layer_class,
        .class_count = 1 + roll(&dice, CLASSES_MAX),
        .classes = out->classes,
        .weight_tau = roll_true(&dice, 3) ? 0 : 2 * roll_real(&dice),
        .weight_gamma = roll_true(&dice, 3) ? 0 : 2 * roll_real(&dice),
        .weight_memory = roll_true(&dice, 2) ? 0 : roll_real(&dice) * (coarse ? 1 : 1e-8),
        .fixed_cost = roll_real(&dice),
        .fixed_bytes = roll(&dice, 3),
        .cap_bytes = PROBLEM_NO_CAP,
    };
    problem->stages = 1 + roll(&dice, STAGES_MAX);
    if (problem->stages > problem->layer_count)
        problem->stages = problem->layer_count;
    for (size_t l = 0; l < problem->layer_count; l++)
        out->layer_class[l] = roll(&dice, problem->class_count);
    for (size_t c = 0; c < problem->class_count; c++) {
        out->classes[c] = (struct layer_class){.strategy_count = 1 + roll(&dice, STRATEGIES_MAX),
                                               .strategies = out->strategies[c]};
        out->classes[c].follows_nothing = roll_true(&dice, 6);
        for (size_t s = 0; s < out->classes[c].strategy_count; s++) {
            random_strategy(&dice, coarse, &out->strategies[c][s]);
            out->strategies[c][s].traits =
                (roll_true(&dice, 4) ? 1u : 0) | (roll_true(&dice, 4) ? 2u : 0);
            out->strategies[c][s].head = out->strategies[c][s].tau * roll_real(&dice);
        }
    }
    random_rules(&dice, out);
    problem->needs = (unsigned)roll(&dice, PROBLEM_TRAIT_SETS) & possible_traits(&dice, problem);
    if (roll_true(&dice, 2))
        random_transitions(&dice, coarse, out);
}

/* ---- full enumeration, written without the library's evaluation ---- */

struct enumeration {
    double best;          /* under the cap; INFINITY: none */
    uint64_t least_bytes; /* of any assignment */
    uint64_t most_bytes;
};

static const struct strategy *picked(const struct problem *problem, const size_t *choice, size_t l)
{
    return &problem->classes[problem->layer_class[l]].strategies[choice[l]];
}

static double slow_value(const struct problem *problem, const size_t *choice, const size_t *stage,
                         uint64_t *peak)
{
    double total = problem->fixed_cost, tau_max = 0, gamma_max = 0;
    *peak = 0;
    for (size_t p = 0; p < problem->stages; p++) {
        const struct stage_rule *rule = &problem->rules[p];
        double tau = 0, gamma = 0;
        uint64_t bytes = problem->fixed_bytes, scratch = 0;
        for (size_t l = 0; l < problem->layer_count; l++) {
            if (stage[l] != p)
                continue;
            const struct strategy *s = picked(problem, choice, l);
            total += s->cost;
            if (p == 0)
                total += s->first_cost;
            tau += s->tau - rule->warm_up * s->head;
            gamma += s->gamma;
            bytes += s->static_bytes + rule->in_flight * s->inflight_bytes;
            scratch = s->scratch_bytes > scratch ? s->scratch_bytes : scratch;
            bool last = l + 1 == problem->layer_count;
            if (!last && stage[l + 1] != p)
                total += s->send_cost;
            if (last || stage[l + 1] != p || !problem->transitions ||
                problem->classes[problem->layer_class[l + 1]].follows_nothing)
                continue;
            const struct transition *change =
                &problem
                     ->transitions[s->group * GROUPS_MAX + picked(problem, choice, l + 1)->group];
            total += change->cost;
            tau += change->tau - rule->warm_up * change->head;
        }
        tau_max = fmax(tau_max, tau);
        gamma_max = fmax(gamma_max, gamma);
        *peak = bytes + scratch > *peak ? bytes + scratch : *peak;
    }
    return total + problem->weight_tau * tau_max + problem->weight_gamma * gamma_max +
           problem->weight_memory * (double)*peak;
}

static void try_strategies(const struct problem *problem, const size_t *stage, size_t layer,
                           size_t *choice, struct enumeration *out)
{
    if (layer < problem->layer_count) {
        size_t count = problem->classes[problem->layer_class[layer]].strategy_count;
        for (choice[layer] = 0; choice[layer] < count; choice[layer]++)
            try_strategies(problem, stage, layer + 1, choice, out);
        return;
    }
    uint64_t peak;
    unsigned traits = 0;
    for (size_t l = 0; l < problem->layer_count; l++)
        traits |= picked(problem, choice, l)->traits;
    if ((problem->needs & ~traits) != 0)
        return;
    double value = slow_value(problem, choice, stage, &peak);
    out->least_bytes = peak < out->least_bytes ? peak : out->least_bytes;
    out->most_bytes = peak > out->most_bytes ? peak : out->most_bytes;
    if (peak <= problem->cap_bytes)
        out->best = fmin(out->best, value);
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
    struct enumeration out = {.best = INFINITY, .least_bytes = UINT64_MAX};
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
        assert_false(solution.found);
        assert_true(solution.bound == INFINITY);
        solution_free(&solution);
        return;
    }
    if (!solution.found || !near(solution.value, truth.best) || !near(solution.bound, truth.best))
        fail_msg("seed %llu: found %d value %.17g bound %.17g, best %.17g",
                 (unsigned long long)seed, solution.found, solution.value, solution.bound,
                 truth.best);
    uint64_t peak;
    double value =
        slow_value(problem, solution.assignment.strategies, solution.assignment.stages, &peak);
    assert_true(near(value, solution.value));
    assert_true(peak <= problem->cap_bytes);
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

static void test_search__equals_enumeration(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES; seed++) {
        random_instance(seed, &instance);
        struct enumeration free_truth = enumerate(&instance.problem);
        struct dice dice = {.seed = seed + 1000000};
        instance.problem.cap_bytes = random_cap(&dice, &free_truth);
        check_against_enumeration(&instance.problem, seed);
    }
}

static void test_search__leanest_is_the_least_of_all(void **state)
{
    (void)state;
    static struct instance instance;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct assignment leanest;
        uint64_t bytes, peak;
        random_instance(seed, &instance);
        struct enumeration truth = enumerate(&instance.problem);
        assert_int_equal(assignment_alloc(&leanest, instance.problem.layer_count, &err), STATUS_OK);
        assert_int_equal(problem_leanest(&instance.problem, &bytes, &leanest, &err), STATUS_OK);
        slow_value(&instance.problem, leanest.strategies, leanest.stages, &peak);
        assert_true(bytes == truth.least_bytes);
        assert_true(peak == truth.least_bytes);
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
        random_instance(seed, &instance);
        struct enumeration truth = enumerate(&instance.problem);
        instance.problem.cap_bytes = (truth.least_bytes + truth.most_bytes) / 2;
        truth = enumerate(&instance.problem);
        assert_int_equal(bounds_init(&bounds, &instance.problem, NULL, &err), STATUS_OK);
        assert_true(bounds_total(&bounds) <= truth.best * (1 + 1e-12));
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
        random_instance(seed, &instance);
        double best = enumerate(&instance.problem).best;
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
        random_instance(seed, &instance);
        struct enumeration truth = enumerate(&instance.problem);
        instance.problem.cap_bytes = (truth.least_bytes + truth.most_bytes) / 2;
        truth = enumerate(&instance.problem);
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
    static const volatile int stop = 1;
    for (uint64_t seed = 0; seed < CASES / 2; seed++) {
        struct error err;
        struct solution solution;
        random_instance(seed, &instance);
        struct enumeration truth = enumerate(&instance.problem);
        instance.problem.cap_bytes = (truth.least_bytes + truth.most_bytes) / 2;
        truth = enumerate(&instance.problem);
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
        out->rules[p] = (struct stage_rule){.in_flight = stages - p, .warm_up = 0.1};
    out->problem = (struct problem){.layer_count = CHAIN_LAYERS,
                                    .layer_class = out->layer_class,
                                    .class_count = 4,
                                    .classes = out->classes,
                                    .stages = stages,
                                    .rules = out->rules,
                                    .weight_tau = 7,
                                    .weight_gamma = 1,
                                    .cap_bytes = PROBLEM_NO_CAP};
}

static void solve_chain(size_t stages, uint64_t seed, double weight_memory, double limit_s)
{
    static struct chain chain;
    struct error err;
    struct solution solution;
    build_chain(&chain, stages, seed);
    uint64_t leanest;
    assert_int_equal(problem_leanest(&chain.problem, &leanest, NULL, &err), STATUS_OK);
    chain.problem.cap_bytes = leanest + leanest / 3;
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
