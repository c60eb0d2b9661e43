#include "random_problem.h"
#include <math.h>
#include <string.h>

static void coarse_strategy(struct dice *dice, struct strategy *out)
{
    *out = (struct strategy){.cost = (double)roll(dice, 4),
                             .tau = (double)roll(dice, 3),
                             .gamma = (double)roll(dice, 3),
                             .first_cost = (double)roll(dice, 2),
                             .group = roll(dice, GROUPS_MAX),
                             .send_cost = (double)roll(dice, 2),
                             .spend = (double)roll(dice, 4),
                             .first_spend = (double)roll(dice, 2),
                             .send_spend = (double)roll(dice, 2),
                             .static_bytes = roll(dice, 4),
                             .inflight_bytes = roll(dice, 4),
                             .scratch_bytes = roll(dice, 4)};
    out->head = out->tau * (double)roll(dice, 3) / 2;
}

static void fine_strategy(struct dice *dice, struct strategy *out)
{
    *out = (struct strategy){.cost = roll_real(dice),
                             .tau = roll_real(dice),
                             .gamma = roll_real(dice),
                             .first_cost = 0.2 * roll_real(dice),
                             .group = roll(dice, GROUPS_MAX),
                             .send_cost = 0.2 * roll_real(dice),
                             .spend = roll_real(dice),
                             .first_spend = 0.2 * roll_real(dice),
                             .send_spend = 0.2 * roll_real(dice),
                             .static_bytes = roll(dice, 1u << 20),
                             .inflight_bytes = roll(dice, 1u << 28),
                             .scratch_bytes = roll(dice, 1u << 29)};
    out->head = out->tau * roll_real(dice);
}

static void random_transitions(struct dice *dice, bool coarse, struct instance *out)
{
    out->problem.transitions = out->transitions;
    out->problem.group_count = GROUPS_MAX;
    for (size_t t = 0; t < out->problem.places * GROUPS_MAX * GROUPS_MAX; t++) {
        struct transition *change = &out->transitions[t];
        if (t % (GROUPS_MAX * GROUPS_MAX) % (GROUPS_MAX + 1) == 0)
            continue;
        *change = coarse ? (struct transition){.cost = (double)roll(dice, 2),
                                               .tau = (double)roll(dice, 2),
                                               .spend = (double)roll(dice, 2)}
                         : (struct transition){.cost = 0.3 * roll_real(dice),
                                               .tau = 0.3 * roll_real(dice),
                                               .spend = 0.3 * roll_real(dice)};
        change->head = change->tau * (coarse ? 0.5 : roll_real(dice));
    }
}

/* What a schedule makes of the stages; sometimes they are cut in advance, unevenly. */
static void random_rules(struct dice *dice, bool coarse, struct instance *out)
{
    struct problem *problem = &out->problem;
    bool is_cut = roll_true(dice, 4);
    problem->rules = out->rules;
    for (size_t p = 0; p < problem->stages; p++) {
        size_t least = p > 0 ? out->rules[p - 1].end + 1 : 1;
        size_t most = problem->layer_count - (problem->stages - p - 1);
        double warm_up = coarse ? 0.5 : roll_real(dice);
        out->rules[p] = (struct stage_rule){.in_flight = 1 + roll(dice, 4),
                                            .warm_up = roll_true(dice, 2) ? warm_up : 0,
                                            .place = roll(dice, problem->places),
                                            .fixed_bytes = roll(dice, 3),
                                            .cap_bytes = PROBLEM_NO_CAP};
        if (is_cut)
            out->rules[p].end = p + 1 < problem->stages ? least + roll(dice, most - least + 1)
                                                        : problem->layer_count;
    }
}

static void random_classes(struct dice *dice, const struct instance_shape *shape,
                           struct instance *out)
{
    struct problem *problem = &out->problem;
    for (size_t i = 0; i < problem->places * problem->class_count; i++) {
        size_t place = i / problem->class_count, c = i % problem->class_count;
        struct layer_class *of = &out->classes[i];
        of->strategies = out->strategies[place][c];
        of->strategy_count =
            place == 0 ? 1 + roll(dice, shape->strategies_most) : out->classes[c].strategy_count;
        of->follows_nothing = place == 0 ? roll_true(dice, 6) : out->classes[c].follows_nothing;
        for (size_t s = 0; s < of->strategy_count; s++) {
            struct strategy *strategy = &out->strategies[place][c][s];
            if (shape->is_coarse)
                coarse_strategy(dice, strategy);
            else
                fine_strategy(dice, strategy);
            strategy->traits = (roll_true(dice, 4) ? 1u : 0) | (roll_true(dice, 4) ? 2u : 0);
            if (problem->places > 1 && roll_true(dice, 6))
                strategy->cost = INFINITY;
        }
    }
}

static unsigned random_traits(struct dice *dice, const struct problem *problem, size_t layer)
{
    const struct layer_class *of = &problem->classes[problem->layer_class[layer]];
    return of->strategies[roll(dice, of->strategy_count)].traits;
}

/* Traits that some choice of strategies has together, where all of them are admitted. */
static unsigned possible_traits(struct dice *dice, const struct problem *problem)
{
    unsigned traits = random_traits(dice, problem, 0);
    if (problem->layer_count > 1)
        traits |= random_traits(dice, problem, problem->layer_count - 1);
    return traits;
}

/* Random, or alternating as dense and MoE layers do. */
static void random_layers(struct dice *dice, struct instance *out)
{
    struct problem *problem = &out->problem;
    bool alternates = roll_true(dice, 3);
    for (size_t l = 0; l < problem->layer_count; l++)
        out->layer_class[l] =
            alternates ? l % problem->class_count : roll(dice, problem->class_count);
}

void random_instance(struct dice *dice, const struct instance_shape *shape, struct instance *out)
{
    bool coarse = shape->is_coarse;
    size_t layers = shape->layers_least + roll(dice, shape->layers_most - shape->layers_least + 1);
    size_t stages = 1 + roll(dice, shape->stages_most);
    memset(out, 0, sizeof(*out));
    out->problem = (struct problem){
        .layer_count = layers,
        .layer_class = out->layer_class,
        .places = 1 + roll(dice, PLACES_MAX),
        .class_count = 1 + roll(dice, CLASSES_MAX),
        .classes = out->classes,
        .stages = stages < layers ? stages : layers,
        .weight_tau = roll_true(dice, 3) ? 0 : 2 * roll_real(dice),
        .weight_gamma = roll_true(dice, 3) ? 0 : 2 * roll_real(dice),
        .weight_memory = roll_true(dice, 2) ? 0 : roll_real(dice) * (coarse ? 1 : 1e-8),
        .fixed_cost = roll_real(dice),
        .spend_cap = INFINITY,
        .spend_tau = roll_true(dice, 2) ? 0 : (double)roll(dice, 3),
        .spend_gamma = roll_true(dice, 2) ? 0 : (double)roll(dice, 2),
    };
    random_layers(dice, out);
    random_classes(dice, shape, out);
    random_rules(dice, coarse, out);
    out->problem.needs =
        (unsigned)roll(dice, PROBLEM_TRAIT_SETS) & possible_traits(dice, &out->problem);
    if (roll_true(dice, 2))
        random_transitions(dice, coarse, out);
}

void instance_set_cap(struct instance *instance, uint64_t cap_bytes, double less_share)
{
    for (size_t p = 0; p < instance->problem.stages; p++) {
        struct stage_rule *rule = &instance->rules[p];
        rule->cap_bytes = cap_bytes;
        if (rule->place > 0 && cap_bytes != PROBLEM_NO_CAP)
            rule->cap_bytes -= (uint64_t)(less_share * (double)cap_bytes);
    }
}
