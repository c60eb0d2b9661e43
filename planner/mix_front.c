#include "planner/mix_front.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups ---- */

static bool is_covered(const struct kind_measures *kinds, unsigned admitted, size_t kind)
{
    struct mix own = {.kinds = {0}};
    own.kinds[kind] = 1;
    mix_measure(kinds, &own);
    for (size_t other = 0; other < kinds->count; other++) {
        struct mix trial = {.kinds = {0}};
        if ((admitted >> other & 1) == 0 || other == kind)
            continue;
        trial.kinds[other] = 1;
        mix_measure(kinds, &trial);
        /* of equal ones the first stays */
        if (mix_covers(kinds, &trial, &own) && (other < kind || !mix_covers(kinds, &own, &trial)))
            return true;
    }
    return false;
}

static bool joins(const struct kind_measures *kinds, const struct mix_group *group, size_t kind)
{
    const double *a = kinds->of[group->kinds[0]], *b = kinds->of[kind];
    if (group->kind_count == MIX_GROUP_KINDS || a[MIX_AWAY] > 0 || b[MIX_AWAY] > 0)
        return false;
    for (int measure = 0; measure < MIX_MEASURES; measure++)
        if (measure != MIX_BACKWARD && measure != MIX_KEPT && measure != MIX_WORKING &&
            a[measure] != b[measure])
            return false;
    return true;
}

static double forward_s(const struct kind_measures *kinds, const struct mix_group *group)
{
    return kinds->of[group->kinds[0]][MIX_FORWARD];
}

size_t mix_groups(const struct kind_measures *kinds, unsigned admitted, size_t class,
                  struct mix_group out[BLOCK_KINDS_MAX])
{
    size_t count = 0;
    for (size_t kind = 0; kind < kinds->count; kind++) {
        size_t group = 0;
        if ((admitted >> kind & 1) == 0 || is_covered(kinds, admitted, kind))
            continue;
        while (group < count && !joins(kinds, &out[group], kind))
            group++;
        if (group == count)
            out[count++] = (struct mix_group){.class = class};
        out[group].kinds[out[group].kind_count++] = kind;
    }
    for (size_t i = 1; i < count; i++) {
        const struct mix_group group = out[i];
        size_t at = i;
        for (; at > 0 && forward_s(kinds, &out[at - 1]) > forward_s(kinds, &group); at--)
            out[at] = out[at - 1];
        out[at] = group;
    }
    return count;
}

/* ---- one group ---- */

void mix_front_free(struct mix_front *front)
{
    free(front->points);
    *front = (struct mix_front){.points = NULL};
}

static int compare_points(const void *a, const void *b)
{
    const struct mix_point *x = a, *y = b;
    if (x->kept != y->kept)
        return x->kept > y->kept ? 1 : -1;
    return (x->backward_s > y->backward_s) - (x->backward_s < y->backward_s);
}

/* Keep those that are quicker than all that keep no more. */
static size_t drop_covered(struct mix_point *points, size_t count)
{
    size_t kept = 0;
    qsort(points, count, sizeof(*points), compare_points);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || points[i].backward_s < points[kept - 1].backward_s)
            points[kept++] = points[i];
    return kept;
}

/* Ways to spread `items` over `kinds` kinds. */
static size_t spreads(unsigned items, size_t kinds)
{
    size_t ways = 1;
    for (size_t i = 1; i < kinds; i++)
        ways = ways * (items + i) / i;
    return ways;
}

struct spreading {
    const struct kind_measures *kinds;
    size_t kind[MIX_GROUP_KINDS], place[MIX_GROUP_KINDS]; /* of the group */
    size_t count;
    unsigned item_blocks;
    struct mix_point at;
    struct mix_point *points;
    size_t point_count;
};

/* From the counts and in one order, so that equal spreads have equal sums. */
static void add_point(struct spreading *spreading)
{
    struct mix_point *at = &spreading->at;
    at->kept = at->backward_s = 0;
    for (size_t i = 0; i < spreading->count; i++) {
        const double *of = spreading->kinds->of[spreading->kind[i]];
        double blocks = (double)at->items[spreading->place[i]] * spreading->item_blocks;
        at->kept += blocks * of[MIX_KEPT];
        at->backward_s += blocks * of[MIX_BACKWARD];
    }
    spreading->points[spreading->point_count++] = *at;
}

static_assert(MIX_GROUP_KINDS == 3, "spread_all has a loop for each kind but the first");

static void spread_all(struct spreading *spreading, unsigned items)
{
    uint16_t *at = spreading->at.items;
    const size_t *place = spreading->place;
    for (unsigned second = 0; second <= (spreading->count > 1 ? items : 0); second++) {
        for (unsigned third = 0; third <= (spreading->count > 2 ? items - second : 0); third++) {
            at[place[0]] = (uint16_t)(items - second - third);
            if (spreading->count > 1)
                at[place[1]] = (uint16_t)second;
            if (spreading->count > 2)
                at[place[2]] = (uint16_t)third;
            add_point(spreading);
        }
    }
}

enum status mix_front_build(const struct kind_measures *kinds, const struct mix_group *group,
                            unsigned items, unsigned item_blocks, double working,
                            struct mix_front *out, struct error *err)
{
    struct spreading spreading = {.kinds = kinds, .item_blocks = item_blocks};
    for (size_t i = 0; i < group->kind_count; i++) {
        if (items > 0 && kinds->of[group->kinds[i]][MIX_WORKING] > working)
            continue;
        spreading.place[spreading.count] = i;
        spreading.kind[spreading.count++] = group->kinds[i];
    }
    *out = (struct mix_front){.is_built = true};
    if (spreading.count == 0)
        return STATUS_OK;
    size_t most = spreads(items, spreading.count);
    spreading.points = malloc(most * sizeof(*spreading.points));
    if (!spreading.points)
        return error_memory(err, most * sizeof(*spreading.points), "what stages can have");
    spread_all(&spreading, items);
    out->points = spreading.points;
    out->count = drop_covered(out->points, spreading.point_count);
    return STATUS_OK;
}

/* ---- several ---- */

/* A point of all groups so far: one of those before, and one of the last. */
struct joint {
    double kept, backward_s;
    size_t before, last;
};

struct joints {
    struct joint *items; /* [count], owned; as the points of a front */
    size_t count;
};

static int compare_joints(const void *a, const void *b)
{
    const struct joint *x = a, *y = b;
    if (x->kept != y->kept)
        return x->kept > y->kept ? 1 : -1;
    return (x->backward_s > y->backward_s) - (x->backward_s < y->backward_s);
}

/* With every point of one front more. */
static enum status join(const struct joints *before, const struct mix_front *front, double bytes,
                        struct joints *out, struct error *err)
{
    size_t most = before->count * front->count, count = 0, kept = 0;
    bool is_sorted = before->count == 1 || front->count == 1;
    out->items = malloc((most + 1) * sizeof(*out->items));
    if (!out->items)
        return error_memory(err, most * sizeof(*out->items), "what stages can have");
    for (size_t i = 0; i < before->count; i++)
        for (size_t j = 0; j < front->count; j++) {
            const struct joint joint = {before->items[i].kept + front->points[j].kept,
                                        before->items[i].backward_s + front->points[j].backward_s,
                                        i, j};
            if (joint.kept > bytes)
                break;
            out->items[count++] = joint;
        }
    if (!is_sorted)
        qsort(out->items, count, sizeof(*out->items), compare_joints);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || out->items[i].backward_s < out->items[kept - 1].backward_s)
            out->items[kept++] = out->items[i];
    out->count = kept;
    return STATUS_OK;
}

/* The more one keeps, the less is left to the other. */
static bool least_pair(const struct joints *joints, const struct mix_front *front, double bytes,
                       size_t *joint, size_t *point)
{
    double least = INFINITY;
    size_t end = front->count;
    for (size_t i = 0; i < joints->count && end > 0; i++) {
        const struct joint *of = &joints->items[i];
        while (end > 0 && of->kept + front->points[end - 1].kept > bytes)
            end--;
        if (end == 0 || of->backward_s + front->points[end - 1].backward_s >= least)
            continue;
        least = of->backward_s + front->points[end - 1].backward_s;
        *joint = i;
        *point = end - 1;
    }
    return least < INFINITY;
}

enum status mix_fronts_least(const struct mix_front *const *fronts, size_t count, double bytes,
                             size_t *chosen, bool *found, struct error *err)
{
    struct joint none = {.kept = 0};
    struct joints joints[BLOCK_KINDS_MAX + 1] = {{&none, 1}};
    enum status status = STATUS_OK;
    size_t at = 0, made = 0;

    *found = false;
    for (; made + 1 < count && status == STATUS_OK; made++)
        status = join(&joints[made], fronts[made], bytes, &joints[made + 1], err);
    if (status == STATUS_OK && least_pair(&joints[made], fronts[made], bytes, &at, &chosen[made])) {
        *found = true;
        for (size_t i = made; i > 0; i--) {
            assert(joints[i].items != NULL && at < joints[i].count);
            chosen[i - 1] = joints[i].items[at].last;
            at = joints[i].items[at].before;
        }
    }
    for (size_t i = 1; i <= made; i++)
        free(joints[i].items);
    return status;
}
