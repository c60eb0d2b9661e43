#include "planner/stage_mixes.h"

#include <math.h>
#include <stdlib.h>

void mix_set_free(struct mix_set *set)
{
    free(set->items);
    *set = (struct mix_set){.items = NULL};
}

void kind_measures_fill(const struct stage_prices *prices, const struct stage_bytes *bytes,
                        bool energy_counts, struct kind_measures *out)
{
    bool splits = prices->layout->schedule == SCHEDULE_ZB_H1;
    out->count = prices->kind_count;
    for (size_t i = 0; i < prices->kind_count; i++) {
        const struct pass_time *pass = prices->kinds[i];
        double *of = out->of[i];
        bool is_away = bytes->kinds[i].mode.offload;
        bool is_8_bit = bytes->kinds[i].mode.arithmetic == ARITHMETIC_FP8;
        of[MIX_FORWARD] = pass_s(&pass[PASS_FORWARD]);
        of[MIX_BACKWARD] = pass_s(&pass[PASS_BACKWARD]);
        of[MIX_KEPT] = is_away ? 0 : bytes->blocks[i].kept;
        of[MIX_AWAY] = is_away ? bytes->blocks[i].kept : 0;
        of[MIX_FP8] = is_8_bit ? bytes->matrices[i] : 0;
        of[MIX_WEIGHTS] = splits ? pass[PASS_BACKWARD].weight_s : 0;
        of[MIX_WORKING] = bytes->blocks[i].working;
        double counts = energy_counts ? 1 : 0;
        of[MIX_PRODUCTS] = counts * (pass[PASS_FORWARD].product_s + pass[PASS_BACKWARD].product_s);
        of[MIX_TRAFFIC] = counts * (pass[PASS_FORWARD].traffic_s + pass[PASS_BACKWARD].traffic_s);
        of[MIX_EXCHANGES] =
            counts * (pass[PASS_FORWARD].exchange_s + pass[PASS_BACKWARD].exchange_s);
    }
}

static enum status push(struct mix_set *set, const struct mix *mix, struct error *err)
{
    if (set->count == set->capacity) {
        size_t capacity = set->capacity > 0 ? 2 * set->capacity : 64;
        struct mix *grown = realloc(set->items, capacity * sizeof(*grown));
        if (!grown)
            return error_memory(err, capacity * sizeof(*grown), "what stages can have");
        set->items = grown;
        set->capacity = capacity;
    }
    set->items[set->count++] = *mix;
    return STATUS_OK;
}

static double passes_s(const struct mix *mix)
{
    return mix->measures[MIX_FORWARD] + mix->measures[MIX_BACKWARD];
}

/* The quickest first; of those the leanest. */
static int compare(const void *a, const void *b)
{
    const struct mix *x = a, *y = b;
    double difference = passes_s(x) - passes_s(y);
    if (difference == 0)
        difference = x->measures[MIX_KEPT] - y->measures[MIX_KEPT];
    return (difference > 0) - (difference < 0);
}

static bool is_near(double a, double b)
{
    const double same_share = 1e-12; /* sums in another order differ by less */
    return fabs(a - b) <= same_share * fmax(a, b);
}

bool mix_same_split(const struct mix *a, const struct mix *b)
{
    const double *one = a->measures, *other = b->measures;
    bool splits = one[MIX_WEIGHTS] > 0 || other[MIX_WEIGHTS] > 0;
    return !splits || (is_near(one[MIX_WEIGHTS], other[MIX_WEIGHTS]) &&
                       is_near(one[MIX_FORWARD], other[MIX_FORWARD]));
}

/* Buffers of what goes to the host are of up to two blocks of a kind. */
static bool has_no_more_away(const struct kind_measures *kinds, const struct mix *a,
                             const struct mix *b)
{
    for (size_t kind = 0; kind < kinds->count; kind++)
        if (kinds->of[kind][MIX_AWAY] > 0 && a->kinds[kind] > b->kinds[kind] && b->kinds[kind] < 2)
            return false;
    return true;
}

bool mix_covers(const struct kind_measures *kinds, const struct mix *a, const struct mix *b)
{
    if (!mix_same_split(a, b) || !has_no_more_away(kinds, a, b))
        return false;
    for (int measure = 0; measure < MIX_MEASURES; measure++)
        if (measure != MIX_WEIGHTS && a->measures[measure] > b->measures[measure])
            return false;
    return true;
}

/* Among mixes in compare's order one can only be covered by those before it. */
static void prune(const struct kind_measures *kinds, struct mix_set *set)
{
    size_t kept = 0;
    double leanest = INFINITY; /* of those kept: who is leaner yet is not covered */
    qsort(set->items, set->count, sizeof(*set->items), compare);
    for (size_t i = 0; i < set->count; i++) {
        double bytes = set->items[i].measures[MIX_KEPT];
        bool is_covered = false;
        for (size_t j = kept; j > 0 && !is_covered && bytes >= leanest; j--)
            is_covered = mix_covers(kinds, &set->items[j - 1], &set->items[i]);
        leanest = fmin(leanest, bytes);
        if (!is_covered)
            set->items[kept++] = set->items[i];
    }
    set->count = kept;
}

enum status mix_set_begin(struct mix_set *out, struct error *err)
{
    const struct mix none = {.kinds = {0}};
    *out = (struct mix_set){.items = NULL};
    return push(out, &none, err);
}

/* From the counts and in one order, so that equal mixes have equal measures. */
void mix_measure(const struct kind_measures *kinds, struct mix *mix)
{
    for (int measure = 0; measure < MIX_MEASURES; measure++)
        mix->measures[measure] = 0;
    for (size_t kind = 0; kind < kinds->count; kind++) {
        const double *of = kinds->of[kind];
        if (mix->kinds[kind] == 0)
            continue;
        for (int measure = 0; measure < MIX_WORKING; measure++)
            mix->measures[measure] += mix->kinds[kind] * of[measure];
        mix->measures[MIX_WORKING] = fmax(mix->measures[MIX_WORKING], of[MIX_WORKING]);
    }
}

enum status mix_set_extend(const struct kind_measures *kinds, const struct mix_set *from,
                           unsigned admitted, unsigned blocks, struct mix_set *out,
                           struct error *err)
{
    out->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        for (size_t kind = 0; kind < kinds->count; kind++) {
            struct mix mix = from->items[i];
            if ((admitted >> kind & 1) == 0)
                continue;
            mix.kinds[kind] = (uint16_t)(mix.kinds[kind] + blocks);
            mix_measure(kinds, &mix);
            TRY(push(out, &mix, err));
        }
    }
    prune(kinds, out);
    return STATUS_OK;
}

enum status mix_set_join(const struct kind_measures *kinds, const struct mix_set *a,
                         const struct mix_set *b, struct mix_set *out, struct error *err)
{
    out->count = 0;
    for (size_t i = 0; i < a->count; i++) {
        for (size_t j = 0; j < b->count; j++) {
            struct mix mix = a->items[i];
            for (size_t kind = 0; kind < kinds->count; kind++)
                mix.kinds[kind] = (uint16_t)(mix.kinds[kind] + b->items[j].kinds[kind]);
            mix_measure(kinds, &mix);
            TRY(push(out, &mix, err));
        }
    }
    prune(kinds, out);
    return STATUS_OK;
}
