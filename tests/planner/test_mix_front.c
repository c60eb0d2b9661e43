/* Points of mixes, against every mix. */
#include "fixture.h"
#include "planner/mix_front.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { GROUPS_MOST = 4, ITEMS_MOST = 5, INSTANCES = 400 };

static const double same_share = 1e-9;

/* Kinds of up to four groups: forward seconds tell them apart. */
struct instance {
    struct kind_measures kinds;
    struct mix_group groups[BLOCK_KINDS_MAX];
    size_t group_count;
    unsigned items[GROUPS_MOST];
    unsigned item_blocks;
    double working; /* no kind of more */
};

static struct instance roll_instance(struct dice *dice)
{
    struct instance out = {.item_blocks = 1 + (unsigned)roll(dice, 2), .working = 2};
    size_t groups = 1 + (size_t)roll(dice, GROUPS_MOST);
    for (size_t group = 0; group < groups; group++) {
        size_t kinds = 1 + (size_t)roll(dice, MIX_GROUP_KINDS);
        for (size_t i = 0; i < kinds; i++) {
            double *of = out.kinds.of[out.kinds.count++];
            of[MIX_FORWARD] = 1 + (double)group;
            of[MIX_BACKWARD] = 1 + (double)roll(dice, 12);
            of[MIX_KEPT] = (double)roll(dice, 12);
            of[MIX_WORKING] = i == 0 ? 1 : 1 + (double)roll(dice, 3);
        }
    }
    unsigned admitted = (1u << out.kinds.count) - 1;
    out.group_count = mix_groups(&out.kinds, admitted, 0, out.groups);
    assert_true(out.group_count <= GROUPS_MOST);
    for (size_t i = 0; i < out.group_count; i++)
        out.items[i] = (unsigned)roll(dice, ITEMS_MOST);
    return out;
}

/* Least backward seconds of all ways to have the items, one after the other. */
static double least_seconds(const struct instance *of, size_t group, unsigned item, double bytes)
{
    double least = INFINITY;
    if (bytes < -same_share)
        return INFINITY;
    if (group == of->group_count)
        return 0;
    if (item == of->items[group])
        return least_seconds(of, group + 1, 0, bytes);
    for (size_t i = 0; i < of->groups[group].kind_count; i++) {
        const double *kind = of->kinds.of[of->groups[group].kinds[i]];
        if (kind[MIX_WORKING] > of->working)
            continue;
        double rest = least_seconds(of, group, item + 1, bytes - of->item_blocks * kind[MIX_KEPT]);
        least = fmin(least, of->item_blocks * kind[MIX_BACKWARD] + rest);
    }
    return least;
}

static void check_front(const struct instance *of, size_t group, const struct mix_front *front)
{
    for (size_t i = 0; i < front->count; i++) {
        const struct mix_point *point = &front->points[i];
        unsigned items = 0;
        double kept = 0;
        for (size_t j = 0; j < of->groups[group].kind_count; j++) {
            const double *kind = of->kinds.of[of->groups[group].kinds[j]];
            items += point->items[j];
            kept += (double)point->items[j] * of->item_blocks * kind[MIX_KEPT];
            assert_true(point->items[j] == 0 || kind[MIX_WORKING] <= of->working);
        }
        assert_int_equal(items, of->items[group]);
        assert_true(fabs(kept - point->kept) < same_share);
        assert_true(i == 0 || (front->points[i - 1].kept < point->kept &&
                               front->points[i - 1].backward_s > point->backward_s));
    }
}

static void check_instance(const struct instance *of, uint64_t seed)
{
    struct mix_front fronts[GROUPS_MOST];
    const struct mix_front *all[GROUPS_MOST];
    size_t chosen[GROUPS_MOST];
    struct error err;
    bool is_empty = false;
    for (size_t i = 0; i < of->group_count; i++) {
        assert_int_equal(mix_front_build(&of->kinds, &of->groups[i], of->items[i], of->item_blocks,
                                         of->working, &fronts[i], &err),
                         STATUS_OK);
        check_front(of, i, &fronts[i]);
        all[i] = &fronts[i];
        is_empty = is_empty || fronts[i].count == 0;
    }
    for (double bytes = 0; bytes < 60 && !is_empty; bytes += 3) {
        double optimum = least_seconds(of, 0, 0, bytes), own = 0, kept = 0;
        bool found;
        assert_int_equal(mix_fronts_least(all, of->group_count, bytes, chosen, &found, &err),
                         STATUS_OK);
        assert_int_equal(found, optimum < INFINITY);
        for (size_t i = 0; i < of->group_count && found; i++) {
            own += fronts[i].points[chosen[i]].backward_s;
            kept += fronts[i].points[chosen[i]].kept;
        }
        if (found && (fabs(own - optimum) > same_share || kept > bytes + same_share))
            fail_msg("seed %llu, %g bytes: %g s, the optimum is %g", (unsigned long long)seed,
                     bytes, own, optimum);
    }
    for (size_t i = 0; i < of->group_count; i++)
        mix_front_free(&fronts[i]);
}

static void test_mix_front__has_the_best_of_all_mixes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= INSTANCES; seed++) {
        struct dice dice = {.seed = seed};
        const struct instance instance = roll_instance(&dice);
        check_instance(&instance, seed);
    }
}

/* The second is quicker and leaner than the first; the third waits on the host; the fourth has
 * another forward pass. */
static void test_mix_front__groups_what_differs_in_memory_alone(void **state)
{
    struct kind_measures kinds = {.count = 5};
    struct mix_group groups[BLOCK_KINDS_MAX];
    (void)state;
    for (size_t i = 0; i < kinds.count; i++) {
        kinds.of[i][MIX_FORWARD] = i == 3 ? 1 : 2;
        kinds.of[i][MIX_BACKWARD] = i == 0 ? 9 : 4 + (double)i;
        kinds.of[i][MIX_KEPT] = i == 2 ? 0 : 20 - (double)i;
        kinds.of[i][MIX_AWAY] = i == 2 ? 5 : 0;
        kinds.of[i][MIX_FP8] = i == 3 ? 1 : 0;
    }
    assert_int_equal(mix_groups(&kinds, 31, 7, groups), 3);
    assert_int_equal(groups[0].kind_count, 1);
    assert_int_equal(groups[0].kinds[0], 3);
    assert_int_equal(groups[1].kind_count, 2);
    assert_int_equal(groups[1].kinds[0], 1);
    assert_int_equal(groups[1].kinds[1], 4);
    assert_int_equal(groups[2].kinds[0], 2);
    assert_int_equal(groups[2].class, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mix_front__has_the_best_of_all_mixes),
        cmocka_unit_test(test_mix_front__groups_what_differs_in_memory_alone),
    };
    return cmocka_run_group_tests_name("mix_front", tests, NULL, NULL);
}
