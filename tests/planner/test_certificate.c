/* What the search proves, proven again by a way that shares nothing with it. */
#include "certificate.h"
#include "planner/bounds.h"
#include "planner/columns.h"
#include "planner/master.h"
#include "planner/search.h"
#include "planner/tiling.h"
#include "random_problem.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LABELS_MOST = 30000 };

struct tally {
    size_t checked, feasible, too_large, labels_peak, pipelines, unlike, budgets;
};

static const double rounding = 1e-9;

/* The search's value and bound: nothing is below the one, something at the other. */
static void check_proof(const struct problem *problem, double gap_target, uint64_t seed,
                        struct tally *tally)
{
    const struct search_options options = {
        .upper_bound = INFINITY, .gap_target = gap_target, .limits = {.deadline_s = INFINITY}};
    struct solution solution;
    struct error err;
    assert_int_equal(problem_solve(problem, &options, &solution, &err), STATUS_OK);
    double bound = fmin(solution.bound, solution.found ? solution.value : INFINITY);
    double below = solution.found ? bound - rounding * fmax(1, fabs(bound)) : INFINITY;
    const struct certificate proof = certificate_check(problem, below, LABELS_MOST);
    if (proof.verdict == VERDICT_FOUND)
        fail_msg("seed %llu: the search proves %.17g (found %d), but there is %.17g",
                 (unsigned long long)seed, bound, solution.found, proof.value);
    tally->checked++;
    tally->feasible += solution.found;
    tally->too_large += proof.verdict == VERDICT_TOO_LARGE;
    tally->pipelines += problem->stages > 1;
    tally->unlike += problem->places > 1;
    tally->budgets += problem->spend_cap < INFINITY;
    if (proof.labels_peak > tally->labels_peak)
        tally->labels_peak = proof.labels_peak;
    if (solution.found && proof.verdict == VERDICT_NONE_BELOW) {
        double above = solution.value + rounding * fmax(1, fabs(solution.value));
        const struct certificate other = certificate_check(problem, above, LABELS_MOST);
        if (other.verdict == VERDICT_NONE_BELOW)
            fail_msg("seed %llu: the search has %.17g, but nothing is there",
                     (unsigned long long)seed, solution.value);
    }
    solution_free(&solution);
}

/* Caps and budget somewhere between the least and what the best without them takes. */
static void tighten(struct dice *dice, struct instance *instance)
{
    const struct search_options options = {.upper_bound = INFINITY,
                                           .limits = {.deadline_s = INFINITY}};
    struct problem *problem = &instance->problem;
    struct solution free_solution;
    struct error err;
    uint64_t least, peak;
    assert_int_equal(problem_leanest(problem, &least, NULL, &err), STATUS_OK);
    if (least == UINT64_MAX)
        return;
    assert_int_equal(problem_solve(problem, &options, &free_solution, &err), STATUS_OK);
    assert_true(free_solution.found);
    (void)problem_evaluate(problem, &free_solution.assignment, &peak);
    solution_free(&free_solution);
    if (peak > least && !roll_true(dice, 5))
        instance_set_cap(instance, least + roll(dice, peak - least + 1), 0.2 * roll_real(dice));
    if (roll_true(dice, 2))
        problem->spend_cap = (0.5 + roll_real(dice)) * (double)problem->layer_count;
}

static void check_random(const struct instance_shape *shape, size_t cases, struct tally *tally)
{
    static struct instance instance;
    for (uint64_t seed = 0; seed < cases; seed++) {
        struct dice dice = {.seed = seed + 500000};
        random_instance(&dice, shape, &instance);
        tighten(&dice, &instance);
        check_proof(&instance.problem, seed % 4 == 3 ? 0.05 : 0, seed, tally);
    }
    print_message(
        "%zu proofs (%zu feasible, %zu pipelines, %zu unlike places, %zu budgets), at most "
        "%zu labels, %zu too large\n",
        tally->checked, tally->feasible, tally->pipelines, tally->unlike, tally->budgets,
        tally->labels_peak, tally->too_large);
}

static void test_certificate__long_chains_of_whole_numbers(void **state)
{
    (void)state;
    const struct instance_shape shape = {.layers_least = 12,
                                         .layers_most = 20,
                                         .strategies_most = 6,
                                         .stages_most = 4,
                                         .is_coarse = true};
    struct tally tally = {0};
    check_random(&shape, 150, &tally);
    assert_true(tally.too_large < tally.checked / 20);
    assert_true(tally.feasible > tally.checked / 3);
}

static void test_certificate__short_chains_of_any_numbers(void **state)
{
    (void)state;
    const struct instance_shape shape = {
        .layers_least = 6, .layers_most = 9, .strategies_most = 5, .stages_most = 3};
    struct tally tally = {0};
    check_random(&shape, 350, &tally);
    assert_true(tally.too_large < tally.checked / 20);
    assert_true(tally.feasible > tally.checked / 3);
}

/* Of the assignment that the columns make together. */
static double choice_value(const struct problem *problem, const struct columns *columns,
                           const size_t *chosen)
{
    struct assignment assignment;
    struct error err;
    assert_int_equal(assignment_alloc(&assignment, problem->layer_count, &err), STATUS_OK);
    for (size_t p = 0; p < problem->stages; p++)
        column_assign(columns, &columns->items[chosen[p]], &assignment);
    double value = problem_evaluate(problem, &assignment, NULL);
    assignment_free(&assignment);
    return value;
}

/* GLPK's tree and the boxes of the tiling choose among the same columns, whatever is coupled. */
static void test_certificate__glpk_and_the_boxes_agree(void **state)
{
    (void)state;
    static struct instance instance;
    const struct instance_shape shape = {
        .layers_least = 3, .layers_most = 6, .strategies_most = 3, .stages_most = 3};
    const size_t columns_most = 150; /* GLPK's tree grows quickly */
    const struct search_limits limits = {.deadline_s = INFINITY};
    const struct column_options all = {.threshold = INFINITY, .limits = &limits};
    const struct tiling_options options = {.threshold = INFINITY, .limits = &limits};
    size_t found = 0, budgets = 0;
    for (uint64_t seed = 0; seed < 150; seed++) {
        struct dice dice = {.seed = seed + 900000};
        struct problem *problem = &instance.problem;
        size_t by_boxes[STAGES_MAX], by_glpk[STAGES_MAX];
        struct tiling tiling = {.chosen = by_boxes};
        struct master_result master = {.chosen = by_glpk};
        struct columns columns = {0};
        struct bounds bounds;
        struct error err;
        random_instance(&dice, &shape, &instance);
        tighten(&dice, &instance);
        assert_int_equal(bounds_init(&bounds, problem, NULL, INFINITY, &err), STATUS_OK);
        assert_int_equal(columns_generate(&bounds, &all, &columns, &err), STATUS_OK);
        if (columns.count > columns_most) {
            columns_free(&columns);
            bounds_free(&bounds);
            continue;
        }
        assert_int_equal(tiling_solve(problem, &columns, &options, &tiling, &err), STATUS_OK);
        assert_int_equal(master_solve(problem, &columns, INFINITY, 0, &limits, &master, &err),
                         STATUS_OK);
        assert_true(tiling.proven && master.proven);
        assert_true(tiling.found == master.found);
        if (tiling.found) {
            double boxes = choice_value(problem, &columns, by_boxes);
            double glpk = choice_value(problem, &columns, by_glpk);
            if (fabs(boxes - glpk) > 1e-6 * fmax(1, fabs(boxes)))
                fail_msg("seed %llu: boxes %.17g, GLPK %.17g", (unsigned long long)seed, boxes,
                         glpk);
            found++;
            budgets += problem->spend_cap < INFINITY;
        }
        columns_free(&columns);
        bounds_free(&bounds);
    }
    print_message("%zu problems, %zu with a budget\n", found, budgets);
    assert_true(found > 30 && budgets > 10);
}

/* The certificate itself can say no: a value above the best is refuted, and by the best. */
static void test_certificate__finds_what_is_below(void **state)
{
    (void)state;
    static struct instance instance;
    const struct instance_shape shape = {
        .layers_least = 5, .layers_most = 8, .strategies_most = 4, .stages_most = 3};
    const struct search_options options = {.upper_bound = INFINITY,
                                           .limits = {.deadline_s = INFINITY}};
    size_t found = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct dice dice = {.seed = seed};
        struct solution solution;
        struct error err;
        random_instance(&dice, &shape, &instance);
        assert_int_equal(problem_solve(&instance.problem, &options, &solution, &err), STATUS_OK);
        if (solution.found) {
            const struct certificate proof =
                certificate_check(&instance.problem, 1.01 * solution.value + 1e-6, LABELS_MOST);
            assert_int_equal(proof.verdict, VERDICT_FOUND);
            assert_true(fabs(proof.value - solution.value) <= rounding * fmax(1, solution.value));
            found++;
        }
        solution_free(&solution);
    }
    assert_true(found > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificate__long_chains_of_whole_numbers),
        cmocka_unit_test(test_certificate__short_chains_of_any_numbers),
        cmocka_unit_test(test_certificate__glpk_and_the_boxes_agree),
        cmocka_unit_test(test_certificate__finds_what_is_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
