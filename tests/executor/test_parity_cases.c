/* The combinations that test_parity.c runs: how many, that every plan is valid, that every value
 * and every pair of values is among them. */
#include "parity_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const char *const models[] = {"gpt2", "llama"};
static const int rank_counts[] = {1, 2, 4, 8};

static void all_of(struct parity_cases *out, const char *model, int ranks)
{
    struct error err = {0};
    if (parity_cases_all(out, model, ranks, &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

/* For each model and rank count. */
static void for_each(void (*check)(const char *model, int ranks))
{
    for (size_t m = 0; m < 2; m++)
        for (size_t r = 0; r < sizeof rank_counts / sizeof rank_counts[0]; r++)
            check(models[m], rank_counts[r]);
}

static void check_valid(const char *model, int ranks)
{
    struct parity_cases cases;
    all_of(&cases, model, ranks);
    for (size_t i = 0; i < cases.count; i++) {
        struct plan plan;
        struct error err = {0};
        if (parity_plan(&plan, &cases.rows[i], &err) != STATUS_OK)
            fail_msg("%s", err.message);
        assert_int_equal(plan.ranks, ranks);
        assert_int_equal(plan.global_batch, PARITY_GLOBAL_BATCH);
        plan_clear(&plan);
    }
    parity_cases_clear(&cases);
}

static void test_parity_cases__are_valid_plans(void **state)
{
    (void)state;
    for_each(check_valid);
}

/* On one rank most dimensions have one value. */
static bool is_possible(int ranks, enum parity_dimension dimension, int value)
{
    static const bool is_of_one[PARITY_DIMENSIONS] = {
        [PARITY_RECOMPUTE] = true, [PARITY_PRECISION] = true, [PARITY_MICRO_BATCH] = true,
        [PARITY_GRADIENTS] = true, [PARITY_ATTENTION] = true,
    };
    if (dimension == PARITY_SCHEDULE)
        return ranks > 1 || value == SCHEDULE_1F1B;
    return ranks > 1 || is_of_one[dimension] || value == 0;
}

static void check_values(const char *model, int ranks)
{
    struct parity_cases cases;
    all_of(&cases, model, ranks);
    for (int d = 0; d < PARITY_DIMENSIONS; d++)
        for (int v = 0; v < parity_values((enum parity_dimension)d, ranks); v++) {
            bool found = false;
            for (size_t i = 0; i < cases.count && !found; i++)
                found = cases.rows[i].value[d] == v;
            if (found != is_possible(ranks, (enum parity_dimension)d, v))
                fail_msg("%s on %d ranks: value %d of dimension %d is%s there", model, ranks, v, d,
                         found ? "" : " not");
        }
    parity_cases_clear(&cases);
}

static void test_parity_cases__have_every_value(void **state)
{
    (void)state;
    for_each(check_values);
}

static void check_no_plan_twice(const char *model, int ranks)
{
    struct parity_cases cases;
    all_of(&cases, model, ranks);
    size_t count = cases.count < 400 ? cases.count : 400;
    uint64_t *hashes = calloc(count, sizeof *hashes);
    assert_non_null(hashes);
    for (size_t i = 0; i < count; i++) {
        struct plan plan;
        struct error err = {0};
        assert_int_equal(parity_plan(&plan, &cases.rows[i * cases.count / count], &err), STATUS_OK);
        hashes[i] = plan_hash(&plan);
        plan_clear(&plan);
        for (size_t k = 0; k < i; k++)
            assert_true(hashes[i] != hashes[k]);
    }
    free(hashes);
    parity_cases_clear(&cases);
}

static void test_parity_cases__have_no_plan_twice(void **state)
{
    (void)state;
    for_each(check_no_plan_twice);
}

static void test_parity_cases__selection_has_every_pair(void **state)
{
    (void)state;
    size_t all = 0, selected = 0;
    for (size_t m = 0; m < 2; m++)
        for (size_t r = 0; r < sizeof rank_counts / sizeof rank_counts[0]; r++) {
            struct parity_cases cases, selection;
            all_of(&cases, models[m], rank_counts[r]);
            all_of(&selection, models[m], rank_counts[r]);
            assert_int_equal(parity_pairs_missing(&cases, &selection), 0);
            parity_cases_select(&selection, parity_selection(rank_counts[r]));
            assert_int_equal(parity_pairs_missing(&cases, &selection), 0);
            printf("%s on %d ranks: %zu of %zu\n", models[m], rank_counts[r], selection.count,
                   cases.count);
            all += cases.count;
            selected += selection.count;
            parity_cases_clear(&cases);
            parity_cases_clear(&selection);
        }
    printf("%zu of %zu\n", selected, all);
    assert_true(selected >= 150);
}

static void test_parity_cases__a_selection_of_too_few_lacks_pairs(void **state)
{
    (void)state;
    struct parity_cases cases, selection;
    all_of(&cases, "gpt2", 4);
    all_of(&selection, "gpt2", 4);
    selection.count = 3;
    assert_true(parity_pairs_missing(&cases, &selection) > 0);
    parity_cases_clear(&cases);
    parity_cases_clear(&selection);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parity_cases__are_valid_plans),
        cmocka_unit_test(test_parity_cases__have_every_value),
        cmocka_unit_test(test_parity_cases__have_no_plan_twice),
        cmocka_unit_test(test_parity_cases__selection_has_every_pair),
        cmocka_unit_test(test_parity_cases__a_selection_of_too_few_lacks_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
