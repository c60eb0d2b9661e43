#include "every_plan.h"
#include "planner/explain.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEEDS = 6 };

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-8 * fmax(1, fmax(fabs(a), fabs(b)));
}

struct explained {
    struct small_world world;
    struct planner_result result;
    struct explanation explanation;
};

static void find_best(struct explained *of)
{
    struct error err;
    if (planner_search(&of->world.request, &of->result, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void explain(struct explained *of)
{
    struct error err;
    if (explain_plan(&of->world.request, &of->result.plan, &of->explanation, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void close_explained(struct explained *of)
{
    explanation_clear(&of->explanation);
    plan_clear(&of->result.plan);
    close_small_world(&of->world);
}

static const struct explained_choice *choice_of(const struct explained *of, const char *name)
{
    for (size_t i = 0; i < of->explanation.count; i++) {
        if (strcmp(of->explanation.choices[i].name, name) == 0)
            return &of->explanation.choices[i];
    }
    return NULL;
}

/* ---- what enumeration says ---- */

typedef bool plan_filter(const struct listed_plan *plan, const struct plan *best);

static double least_time(const struct explained *of, plan_filter *filter, double cap_bytes)
{
    const struct every_plan *all = &of->world.all;
    double least = INFINITY;
    for (size_t i = 0; i < all->count; i++) {
        const struct listed_plan *plan = &all->items[i];
        if (plan->memory_bytes <= cap_bytes && (!filter || filter(plan, &of->result.plan)))
            least = fmin(least, plan->time_s);
    }
    return least;
}

static double least_memory(const struct every_plan *all)
{
    double least = INFINITY;
    for (size_t i = 0; i < all->count; i++)
        least = fmin(least, all->items[i].memory_bytes);
    return least;
}

static bool has_other_threads(const struct listed_plan *plan, const struct plan *best)
{
    return plan->threads != best->threads;
}

static bool has_other_ranks(const struct listed_plan *plan, const struct plan *best)
{
    return plan->ranks != best->ranks;
}

static bool has_other_micro_batch(const struct listed_plan *plan, const struct plan *best)
{
    return plan->micro_batch != best->micro_batch;
}

/* All layers of the kind alike, and not as in the best plan. */
static bool recomputes_alike(const struct listed_plan *plan, const struct plan *best,
                             enum layer_kind kind)
{
    size_t own[RECOMPUTE_COUNT] = {0}, layers = 0;
    for (size_t i = 0; i < best->layer_count; i++) {
        if (model_layer(&best->model, i).kind == kind) {
            own[best->layers[i].recompute]++;
            layers++;
        }
    }
    for (int r = 0; r < RECOMPUTE_COUNT; r++) {
        if (plan->recomputed[kind][r] == layers)
            return own[r] != layers;
    }
    return false;
}

static bool recomputes_attention_otherwise(const struct listed_plan *plan, const struct plan *best)
{
    return recomputes_alike(plan, best, LAYER_ATTENTION);
}

static bool recomputes_mlp_otherwise(const struct listed_plan *plan, const struct plan *best)
{
    return recomputes_alike(plan, best, LAYER_MLP);
}

static const struct {
    const char *name;
    plan_filter *filter;
} compared[] = {
    {"threads", has_other_threads},
    {"ranks", has_other_ranks},
    {"data parallel", has_other_ranks},
    {"micro-batch", has_other_micro_batch},
    {"recompute of attention", recomputes_attention_otherwise},
    {"recompute of mlp", recomputes_mlp_otherwise},
};

static void check_choices(const struct explained *of)
{
    double best_s = of->result.plan.prediction.time_s.value;
    double cap_bytes = of->world.request.memory_cap_bytes > 0
                           ? (double)of->world.request.memory_cap_bytes
                           : INFINITY;
    for (size_t i = 0; i < sizeof(compared) / sizeof(*compared); i++) {
        const struct explained_choice *choice = choice_of(of, compared[i].name);
        double other_s = least_time(of, compared[i].filter, cap_bytes);
        assert_non_null(choice);
        if (isinf(other_s)) {
            assert_int_equal(choice->state, CHOICE_TOO_BIG);
            continue;
        }
        assert_int_equal(choice->state, CHOICE_COMPARED);
        if (!near(choice->gain, (other_s - best_s) / best_s))
            fail_msg("%s: gain %g, by enumeration %g", choice->name, choice->gain,
                     (other_s - best_s) / best_s);
        assert_true(near(choice->least_gain, choice->gain));
        assert_true(near(choice->time_s, other_s));
        assert_true(choice->other[0] != '\0' && strcmp(choice->other, choice->value) != 0);
    }
    assert_int_equal(choice_of(of, "pipeline")->state, CHOICE_PINNED);
    assert_int_equal(choice_of(of, "tensor parallel")->state, CHOICE_PINNED);
    assert_int_equal(choice_of(of, "precision of mlp")->state, CHOICE_PINNED);
    assert_null(choice_of(of, "schedule"));
    assert_null(choice_of(of, "recompute of head"));
}

static void check_memory(const struct explained *of)
{
    const struct explanation *explanation = &of->explanation;
    double best_s = of->result.plan.prediction.time_s.value;
    double free_s = least_time(of, NULL, INFINITY);
    for (size_t i = 0; i < explanation->memory_count; i++) {
        const struct explained_memory *memory = &explanation->memory[i];
        double least_s = least_time(of, NULL, memory->cap_bytes);
        assert_int_equal(memory->fits, isfinite(least_s));
        if (memory->fits)
            assert_true(near(memory->saving, (best_s - least_s) / best_s));
    }
    assert_int_equal(explanation->cap_binds, free_s < best_s * (1 - 1e-8));
}

static void test_explain__gains_are_those_of_enumeration(void **state)
{
    (void)state;
    size_t binding = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct explained of = {0};
        open_small_world(&of.world, seed);
        find_best(&of);
        explain(&of);
        check_choices(&of);
        check_memory(&of);
        assert_false(of.explanation.has_cap);
        assert_int_equal(of.explanation.memory_count, 1);
        double cap_bytes = 0.5 * (of.explanation.memory_bytes + least_memory(&of.world.all));
        explanation_clear(&of.explanation);
        plan_clear(&of.result.plan);
        of.world.request.memory_cap_bytes = (uint64_t)ceil(cap_bytes);
        find_best(&of);
        explain(&of);
        check_choices(&of);
        check_memory(&of);
        assert_int_equal(of.explanation.memory_count, 4);
        binding += of.explanation.cap_binds;
        close_explained(&of);
    }
    assert_true(binding > 0);
}

static void test_explain__stopped_says_what_is_unknown(void **state)
{
    (void)state;
    static const atomic_int stop = 1;
    struct explained of = {0};
    open_small_world(&of.world, 2);
    find_best(&of);
    of.world.request.stop = &stop;
    explain(&of);
    assert_true(of.explanation.is_stopped);
    assert_int_equal(choice_of(&of, "micro-batch")->state, CHOICE_UNKNOWN);
    assert_int_equal(choice_of(&of, "recompute of mlp")->state, CHOICE_UNKNOWN);
    assert_int_equal(choice_of(&of, "pipeline")->state, CHOICE_PINNED);
    assert_int_equal(of.explanation.searches, 0);
    close_explained(&of);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_explain__gains_are_those_of_enumeration),
        cmocka_unit_test(test_explain__stopped_says_what_is_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
