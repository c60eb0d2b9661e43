#include "costmodel/profile.h"
#include "base/hash.h"
#include "base/text.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct profile {
    struct measurement *rows; /* sorted by series, then micro-batch, then bytes; keys are unique */
    size_t count;
    char host[64];
    uint64_t hash;
};

/* ---- order ---- */

static int compare_numbers(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_series(const struct measurement *row, const struct series_key *key)
{
    int order = strcmp(row->subject, key->subject);
    if (order == 0)
        order = compare_numbers(row->metric, key->metric);
    if (order == 0)
        order = compare_numbers(row->precision, key->precision);
    if (order == 0)
        order = compare_numbers(row->recompute, key->recompute);
    if (order == 0)
        order = compare_numbers(row->attention, key->attention);
    if (order == 0)
        order = compare_numbers(row->ranks, key->placement.ranks);
    if (order == 0)
        order = compare_numbers(row->threads, key->placement.threads);
    return order;
}

static struct series_key series_of(const struct measurement *row)
{
    return (struct series_key){.subject = row->subject,
                               .metric = row->metric,
                               .precision = row->precision,
                               .recompute = row->recompute,
                               .attention = row->attention,
                               .placement = {row->ranks, row->threads}};
}

static int compare_keys(const struct measurement *a, const struct measurement *b)
{
    const struct series_key key = series_of(b);
    int order = compare_series(a, &key);
    if (order == 0)
        order = compare_numbers(a->micro_batch, b->micro_batch);
    if (order == 0)
        order = compare_numbers(a->bytes, b->bytes);
    return order;
}

struct ranked {
    const struct measurement *row;
    size_t place; /* as given */
};

static int compare_ranked(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    int order = compare_keys(x->row, y->row);
    if (order == 0)
        order = compare_numbers(x->row->measured_unix_ms, y->row->measured_unix_ms);
    return order != 0 ? order : (x->place > y->place) - (x->place < y->place);
}

/* ---- building ---- */

static enum status check_row(const struct measurement *row, struct error *err)
{
    if (!memchr(row->subject, '\0', sizeof(row->subject)))
        return error_set(err, STATUS_INVALID, "a measurement's subject is longer than %d bytes",
                         SUBJECT_BYTES - 1);
    /* Only the overlap is a difference of times: it can be below 0. */
    bool may_be_negative = row->metric == METRIC_OVERLAP;
    if (!isfinite(row->mean) || (row->mean < 0 && !may_be_negative) || !isfinite(row->deviation) ||
        row->deviation < 0)
        return error_set(err, STATUS_INVALID,
                         "measurement '%s' of '%s': mean %g and deviation %g must be finite and "
                         "not negative; measure again with: temper profile",
                         metric_name(row->metric), row->subject, row->mean, row->deviation);
    return STATUS_OK;
}

/* Sort a copy of the rows that say something and keep the newest of each key. */
static enum status take_rows(struct profile *profile, const struct measurement *rows, size_t count,
                             struct error *err)
{
    struct ranked *ranked = malloc((count > 0 ? count : 1) * sizeof(*ranked));
    profile->rows = calloc(count > 0 ? count : 1, sizeof(*profile->rows));
    if (!ranked || !profile->rows) {
        free(ranked);
        return error_memory(err, count * sizeof(*profile->rows), "the profile");
    }
    size_t said = 0;
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < count; i++) {
        if (rows[i].provenance == PROVENANCE_ABSENT)
            continue;
        status = check_row(&rows[i], err);
        ranked[said++] = (struct ranked){&rows[i], i};
    }
    if (status == STATUS_OK)
        qsort(ranked, said, sizeof(*ranked), compare_ranked);
    for (size_t i = 0; status == STATUS_OK && i < said; i++) {
        if (i + 1 == said || compare_keys(ranked[i].row, ranked[i + 1].row) != 0)
            profile->rows[profile->count++] = *ranked[i].row;
    }
    free(ranked);
    return status;
}

static enum status hash_rows(struct profile *profile, struct error *err)
{
    struct text text = {0};
    for (size_t i = 0; i < profile->count; i++) {
        const struct measurement *row = &profile->rows[i];
        text_printf(&text, "%s|%d|%d|%d|%d|%lld|%d|%d|%lld|%.17g|%.17g|%d\n", row->subject,
                    (int)row->metric, (int)row->precision, (int)row->recompute, (int)row->attention,
                    (long long)row->micro_batch, row->ranks, row->threads, (long long)row->bytes,
                    row->mean, row->deviation, (int)row->provenance);
    }
    enum status status = text_check(&text, err);
    if (status == STATUS_OK)
        profile->hash = hash_bytes(text.data, text.bytes);
    text_free(&text);
    return status;
}

enum status profile_from_rows(struct profile **out, const struct measurement *rows, size_t count,
                              const char *host_name, struct error *err)
{
    struct profile *profile = calloc(1, sizeof(*profile));
    if (!profile)
        return error_memory(err, sizeof(*profile), "the profile");
    strncpy(profile->host, host_name, sizeof(profile->host) - 1);
    enum status status = take_rows(profile, rows, count, err);
    if (status == STATUS_OK)
        status = hash_rows(profile, err);
    if (status != STATUS_OK) {
        profile_close(profile);
        return status;
    }
    *out = profile;
    return STATUS_OK;
}

enum status profile_open(struct profile **out, struct store *store, const char *host_name,
                         struct error *err)
{
    struct measurement_list list = {0};
    char host[64];
    TRY(store_measurements_load(store, host_name, &list, host, err));
    enum status status = profile_from_rows(out, list.rows, list.count, host, err);
    if (status != STATUS_OK)
        error_prefix(err, "%s", store_path(store));
    measurement_list_free(&list);
    return status;
}

void profile_close(struct profile *profile)
{
    if (!profile)
        return;
    free(profile->rows);
    free(profile);
}

const char *profile_host(const struct profile *profile)
{
    return profile->host;
}

uint64_t profile_hash(const struct profile *profile)
{
    return profile->hash;
}

/* ---- lookup ---- */

struct series {
    const struct measurement *rows;
    size_t count;
};

static struct series find_series(const struct profile *profile, const struct series_key *key)
{
    size_t low = 0, high = profile->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_series(&profile->rows[middle], key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    struct series series = {.rows = &profile->rows[low]};
    while (low + series.count < profile->count &&
           compare_series(&profile->rows[low + series.count], key) == 0)
        series.count++;
    return series;
}

size_t profile_placements(const struct profile *profile, struct placement *out, size_t capacity)
{
    /* Rows are not sorted by placement first: take the least placement above the last one. */
    struct placement last = {0, 0};
    size_t count = 0;
    for (;;) {
        const struct measurement *next = NULL;
        for (size_t i = 0; i < profile->count; i++) {
            const struct measurement *row = &profile->rows[i];
            bool above = row->ranks > last.ranks ||
                         (row->ranks == last.ranks && row->threads > last.threads);
            bool below = !next || row->ranks < next->ranks ||
                         (row->ranks == next->ranks && row->threads < next->threads);
            if (row->metric == METRIC_FORWARD_S && above && below)
                next = row;
        }
        if (!next)
            return count;
        last = (struct placement){next->ranks, next->threads};
        if (count < capacity)
            out[count] = last;
        count++;
    }
}

bool profile_covers(const struct profile *profile, const char *layer_key, enum precision precision,
                    struct placement placement)
{
    for (int mode = 0; mode < RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT; mode++) {
        struct series_key key = {.subject = layer_key,
                                 .metric = METRIC_FORWARD_S,
                                 .precision = precision,
                                 .recompute = (enum recompute)(mode % RECOMPUTE_COUNT),
                                 .attention = (enum attention_kernel)(mode / RECOMPUTE_COUNT),
                                 .placement = placement};
        bool forward = find_series(profile, &key).count > 0;
        key.metric = METRIC_BACKWARD_S;
        if (forward && find_series(profile, &key).count > 0)
            return true;
    }
    return false;
}

int64_t profile_largest_micro_batch(const struct profile *profile, const char *layer_key,
                                    struct placement placement)
{
    int64_t largest = 0;
    for (size_t i = 0; i < profile->count; i++) {
        const struct measurement *row = &profile->rows[i];
        if (row->metric == METRIC_FORWARD_S && row->ranks == placement.ranks &&
            row->threads == placement.threads && row->micro_batch > largest &&
            strcmp(row->subject, layer_key) == 0)
            largest = row->micro_batch;
    }
    return largest;
}

/* ---- interpolation ---- */

struct point {
    double at;
    struct quantity value;
};

typedef struct point point_of(const struct measurement *row);

static struct quantity row_quantity(const struct measurement *row)
{
    return (struct quantity){row->mean, row->deviation, row->provenance};
}

static struct point by_micro_batch(const struct measurement *row)
{
    return (struct point){(double)row->micro_batch, row_quantity(row)};
}

static struct point by_bytes(const struct measurement *row)
{
    return (struct point){(double)row->bytes, row_quantity(row)};
}

static struct quantity proportional(struct point point, double at)
{
    struct quantity value = quantity_scale(point.value, point.at > 0 ? at / point.at : 1);
    if (value.provenance < PROVENANCE_INTERPOLATED)
        value.provenance = PROVENANCE_INTERPOLATED;
    return value;
}

/* On the line through two points; outside them the deviation grows as the value does. */
static struct quantity on_line(struct point a, struct point b, double at)
{
    double share = (at - a.at) / (b.at - a.at);
    enum provenance worse =
        a.value.provenance > b.value.provenance ? a.value.provenance : b.value.provenance;
    struct quantity out = {
        .value = a.value.value + share * (b.value.value - a.value.value),
        .deviation = a.value.deviation + share * (b.value.deviation - a.value.deviation),
        .provenance = worse > PROVENANCE_INTERPOLATED ? worse : PROVENANCE_INTERPOLATED,
    };
    if (share >= 0 && share <= 1)
        return out;
    struct point near = share < 0 ? a : b;
    double floor = share < 0 ? proportional(near, at).value : near.value.value;
    out.value = fmax(out.value, floor);
    out.deviation = near.value.value > 0 ? near.value.deviation * out.value / near.value.value
                                         : near.value.deviation;
    return out;
}

static struct quantity interpolate(struct series series, point_of *point, double at)
{
    if (series.count == 0)
        return quantity_absent();
    struct point first = point(&series.rows[0]);
    if (series.count == 1 && at != first.at)
        return proportional(first, at);
    size_t right = 0;
    while (right < series.count && point(&series.rows[right]).at < at)
        right++;
    if (right < series.count && point(&series.rows[right]).at <= at)
        return point(&series.rows[right]).value;
    if (right == 0)
        right = 1;
    if (right == series.count)
        right--;
    return on_line(point(&series.rows[right - 1]), point(&series.rows[right]), at);
}

struct quantity profile_at_micro_batch(const struct profile *profile, const struct series_key *key,
                                       int64_t micro_batch)
{
    return interpolate(find_series(profile, key), by_micro_batch, (double)micro_batch);
}

struct quantity profile_at_bytes(const struct profile *profile, const struct series_key *key,
                                 int64_t bytes)
{
    return interpolate(find_series(profile, key), by_bytes, (double)bytes);
}

struct quantity profile_value(const struct profile *profile, const struct series_key *key)
{
    struct series series = find_series(profile, key);
    return series.count > 0 ? row_quantity(&series.rows[0]) : quantity_absent();
}
