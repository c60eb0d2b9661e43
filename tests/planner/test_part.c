/* The search's problems against the cost model: no plan is below what its problem says. */
#include "costmodel/predict.h"
#include "fixture.h"
#include "planner/part.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { CASES = 24, PLANS = 6 };

struct tally {
    size_t plans, pipelines, interleaved, exact;
    double worst_share; /* of a pipeline's time that its problem does not see */
};

static double value_of(const struct objective_rates *rates, const struct prediction *prediction)
{
    double energy = rates->per_joule > 0 ? rates->per_joule * prediction->energy_j.value : 0;
    return rates->per_second * prediction->time_s.value +
           rates->per_byte * prediction->memory_bytes.value + energy;
}

/* Strategies of any kind, stages cut anywhere that the problem allows. */
static void random_assignment(struct dice *dice, const struct problem *problem,
                              struct assignment *out)
{
    size_t layer = 0;
    for (size_t p = 0; p < problem->stages; p++) {
        size_t most = problem->layer_count - (problem->stages - p - 1);
        size_t end = problem->rules[p].end;
        if (p + 1 == problem->stages)
            end = problem->layer_count;
        else if (end == 0)
            end = layer + 1 + roll(dice, most - layer);
        for (; layer < end; layer++) {
            const struct layer_class *of = &problem->classes[problem->layer_class[layer]];
            out->stages[layer] = p;
            out->strategies[layer] = roll(dice, of->strategy_count);
        }
    }
}

static void check_plan(const struct part_problem *work, const struct assignment *assignment,
                       const struct objective_rates *rates, struct tally *tally)
{
    struct plan plan;
    struct error err;
    double model = problem_evaluate(&work->problem, assignment, NULL);
    assert_int_equal(part_plan(work, assignment, &plan, &err), STATUS_OK);
    if (part_is_consistent(&plan) && plan_validate(&plan, "random", &err) == STATUS_OK) {
        assert_int_equal(predict_plan(work->space->request->profile, &plan, &plan.prediction, &err),
                         STATUS_OK);
        double value = value_of(rates, &plan.prediction);
        if (isfinite(model) && model > value * (1 + 1e-11))
            fail_msg("%s, pp %d, v %d, m %lld: the problem says %.17g, the prediction %.17g",
                     schedule_name(plan.schedule), plan.pipeline, plan.virtual_stages,
                     (long long)plan.micro_batches, model, value);
        tally->plans++;
        tally->pipelines += plan.pipeline > 1;
        tally->interleaved += plan.virtual_stages > 1;
        tally->exact += model >= value * (1 - 1e-9);
        if (plan.pipeline > 1)
            tally->worst_share = fmax(tally->worst_share, (value - model) / value);
    }
    plan_clear(&plan);
}

static void check_shape(struct dice *dice, const struct space *space, const struct shape *shape,
                        const struct objective_rates *rates, struct tally *tally)
{
    const struct part whole = part_whole();
    struct part_problem work;
    struct assignment assignment;
    struct error err;
    bool is_empty;
    assert_int_equal(part_open(&work, space, shape, &whole, rates, &is_empty, &err), STATUS_OK);
    if (is_empty)
        return;
    assert_int_equal(assignment_alloc(&assignment, work.problem.layer_count, &err), STATUS_OK);
    for (int i = 0; i < PLANS; i++) {
        random_assignment(dice, &work.problem, &assignment);
        check_plan(&work, &assignment, rates, tally);
    }
    assignment_free(&assignment);
    part_close(&work);
}

/* With free schedules and with GPipe, tied and not; time, memory and energy in random shares. */
static void test_part__no_plan_is_below_its_problem(void **state)
{
    (void)state;
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < CASES; seed++) {
        struct dice dice = {.seed = seed};
        const struct profile_options options = {.placements = {{2, 1}, {4, 1}},
                                                .placement_count = 2,
                                                .micro_batches = {1, 2, 4},
                                                .micro_batch_count = 3,
                                                .bf16 = true,
                                                .energy = true};
        struct model model = tiny_model(1 + (int64_t)roll(&dice, 4), roll_true(&dice, 2));
        struct profile *profile = random_profile(&dice, &model, &options);
        struct planner_request request = {
            .model = &model, .profile = profile, .ranks = 4, .global_batch = 16};
        const struct objective_rates rates = {.per_second = roll_real(&dice),
                                              .per_byte = roll_true(&dice, 2) ? 1e-8 : 0,
                                              .per_joule = roll_true(&dice, 2) ? 1e-2 : 0};
        struct space space;
        struct error err;
        request.pins.schedule_fixed = roll_true(&dice, 4);
        request.pins.schedule = SCHEDULE_GPIPE;
        assert_int_equal(space_open(&space, &request, &err), STATUS_OK);
        for (size_t i = 0; i < space.count; i++)
            check_shape(&dice, &space, &space.shapes[i], &rates, &tally);
        space_close(&space);
        profile_close(profile);
    }
    print_message("%zu plans, %zu pipelines, %zu interleaved, %zu exact; at most %.3g unseen\n",
                  tally.plans, tally.pipelines, tally.interleaved, tally.exact, tally.worst_share);
    assert_true(tally.pipelines > 100 && tally.interleaved > 10);
}

/* ---- the budget of energy ---- */

static const double ample_j = 1e3; /* more than any of the plans takes */

/* A plan is within what it takes, and with one stage not within less. */
static void check_spending(struct part_problem *work, const struct assignment *assignment,
                           struct tally *tally)
{
    struct problem *problem = &work->problem;
    double fixed_j = ample_j - problem->spend_cap;
    struct plan plan;
    struct error err;
    assert_int_equal(part_plan(work, assignment, &plan, &err), STATUS_OK);
    if (isfinite(problem_evaluate(problem, assignment, NULL)) && part_is_consistent(&plan) &&
        plan_validate(&plan, "random", &err) == STATUS_OK) {
        assert_int_equal(predict_plan(work->space->request->profile, &plan, &plan.prediction, &err),
                         STATUS_OK);
        double energy_j = plan.prediction.energy_j.value;
        assert_true(energy_j < ample_j);
        problem->spend_cap = energy_j * (1 + 1e-9) - fixed_j;
        if (!isfinite(problem_evaluate(problem, assignment, NULL)))
            fail_msg("%s, pp %d, v %d: %.17g J are not within themselves",
                     schedule_name(plan.schedule), plan.pipeline, plan.virtual_stages, energy_j);
        problem->spend_cap = energy_j * (1 - 1e-6) - fixed_j;
        bool is_within = isfinite(problem_evaluate(problem, assignment, NULL));
        assert_false(is_within && plan.pipeline == 1);
        problem->spend_cap = ample_j - fixed_j;
        tally->plans++;
        tally->pipelines += plan.pipeline > 1;
        tally->interleaved += plan.virtual_stages > 1;
        tally->exact += !is_within;
    }
    plan_clear(&plan);
}

static void check_shape_spending(struct dice *dice, const struct space *space,
                                 const struct shape *shape, struct tally *tally)
{
    const struct objective_rates rates = {.per_second = 1};
    const struct part whole = part_whole();
    struct part_problem work;
    struct assignment assignment;
    struct error err;
    bool is_empty;
    assert_int_equal(part_open(&work, space, shape, &whole, &rates, &is_empty, &err), STATUS_OK);
    if (is_empty)
        return;
    assert_int_equal(assignment_alloc(&assignment, work.problem.layer_count, &err), STATUS_OK);
    for (int i = 0; i < PLANS; i++) {
        random_assignment(dice, &work.problem, &assignment);
        check_spending(&work, &assignment, tally);
    }
    assignment_free(&assignment);
    part_close(&work);
}

static void test_part__no_plan_takes_less_than_its_problem_spends(void **state)
{
    (void)state;
    struct tally tally = {0};
    for (uint64_t seed = 0; seed < CASES; seed++) {
        struct dice dice = {.seed = seed};
        const struct profile_options options = {.placements = {{2, 1}, {4, 1}},
                                                .placement_count = 2,
                                                .micro_batches = {1, 2, 4},
                                                .micro_batch_count = 3,
                                                .energy = true};
        struct model model = tiny_model(1 + (int64_t)roll(&dice, 4), roll_true(&dice, 2));
        struct profile *profile = random_profile(&dice, &model, &options);
        const struct planner_request request = {.model = &model,
                                                .profile = profile,
                                                .ranks = 4,
                                                .global_batch = 16,
                                                .energy_cap_j = ample_j};
        struct space space;
        struct error err;
        assert_int_equal(space_open(&space, &request, &err), STATUS_OK);
        for (size_t i = 0; i < space.count; i++)
            check_shape_spending(&dice, &space, &space.shapes[i], &tally);
        space_close(&space);
        profile_close(profile);
    }
    print_message("%zu plans, %zu pipelines, %zu interleaved, %zu exact\n", tally.plans,
                  tally.pipelines, tally.interleaved, tally.exact);
    assert_true(tally.pipelines > 100 && tally.interleaved > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part__no_plan_is_below_its_problem),
        cmocka_unit_test(test_part__no_plan_takes_less_than_its_problem_spends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
