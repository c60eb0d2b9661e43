/* What must hold of a cluster, whether read from a file or put together. */
#include "ir/cluster_source.h"
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PLACE_BYTES = 128 };

/* Where a figure stands: "cluster.json" and "groups[0].device.". */
struct place {
    const char *where;
    char prefix[PLACE_BYTES];
};

static struct place place_group(const char *where, size_t group, const char *member)
{
    struct place place = {.where = where};
    snprintf(place.prefix, sizeof(place.prefix), "groups[%zu].%s", group, member);
    return place;
}

static enum status invalid(const struct place *place, const char *key, struct error *err,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

static enum status invalid(const struct place *place, const char *key, struct error *err,
                           const char *format, ...)
{
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    return error_set(err, STATUS_INVALID, "%s: key '%s%s': %s", place->where, place->prefix, key,
                     what);
}

/* Every real of the table is 0 or more; `but` may be NAN. */
static enum status check_reals(const struct field_table *table, const void *object, const char *but,
                               const struct place *place, struct error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        if (row->type != FIELD_REAL)
            continue;
        double value;
        memcpy(&value, (const char *)object + row->offset, sizeof(value));
        if (isnan(value) && but != NULL && strcmp(but, row->key) == 0)
            continue;
        if (!(isfinite(value) && value >= 0.0))
            return invalid(place, row->key, err, "must be 0 or more, is %g", value);
    }
    return STATUS_OK;
}

static enum status check_name(const char *name, const struct place *place, struct error *err)
{
    return name[0] != '\0' ? STATUS_OK : invalid(place, "name", err, "must not be empty");
}

/* ---- device ---- */

static enum status check_curve(const struct efficiency_curve *curve, const char *key,
                               const struct place *place, struct error *err)
{
    if (curve->count > CURVE_POINTS_MAX)
        return invalid(place, key, err, "has %zu points; at most %d", curve->count,
                       CURVE_POINTS_MAX);
    for (size_t i = 0; i < curve->count; i++) {
        double size = curve->size[i], share = curve->share[i];
        if (!(isfinite(size) && size > 0.0))
            return invalid(place, key, err, "point %zu: size %g must be above 0", i, size);
        if (i > 0 && size <= curve->size[i - 1])
            return invalid(place, key, err,
                           "point %zu: size %g must be above the one before it, %g", i, size,
                           curve->size[i - 1]);
        if (!(share > 0.0 && share <= 1.0))
            return invalid(place, key, err, "point %zu: share %g must be above 0 and at most 1", i,
                           share);
    }
    return STATUS_OK;
}

static enum status check_peaks(const struct device_type *device, const struct place *place,
                               struct error *err)
{
    for (size_t i = 0; i < ARITHMETIC_COUNT; i++) {
        char key[64];
        double peak = device->peak_flops[i];
        snprintf(key, sizeof(key), "peak_flops.%s", name_of(&arithmetic_names, i));
        if (!(isfinite(peak) && peak >= 0.0))
            return invalid(place, key, err, "must be 0 or more, is %g", peak);
    }
    return STATUS_OK;
}

static enum status check_device(const struct device_type *device, const struct place *place,
                                struct error *err)
{
    TRY(check_name(device->name, place, err));
    TRY(check_reals(&device_type_table, device, "price_hour", place, err));
    if (device->idle_w > device->peak_w)
        return invalid(place, "peak_w", err, "%g is below idle_w %g", device->peak_w,
                       device->idle_w);
    if (device->unlimited_w > 0.0 && device->unlimited_w < device->peak_w)
        return invalid(place, "unlimited_w", err, "%g is below peak_w %g", device->unlimited_w,
                       device->peak_w);
    TRY(check_peaks(device, place, err));
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        char key[64];
        snprintf(key, sizeof(key), "efficiency.%s", name_of(&operation_names, i));
        TRY(check_curve(&device->efficiency[i], key, place, err));
    }
    return STATUS_OK;
}

/* ---- links ---- */

static enum status check_tier(const struct link_tier *tier, const struct place *place,
                              struct error *err)
{
    TRY(check_name(tier->name, place, err));
    TRY(check_reals(&link_tier_table, tier, NULL, place, err));
    if (tier->bytes_s <= 0.0)
        return invalid(place, "bytes_s", err, "must be above 0");
    if (!(tier->share > 0.0 && tier->share <= 1.0))
        return invalid(place, "share", err, "must be above 0 and at most 1, is %g", tier->share);
    if (tier->devices < 1)
        return invalid(place, "devices", err, "must be 1 or more, is %lld",
                       (long long)tier->devices);
    return STATUS_OK;
}

/* Each domain consists of whole ones of the tier before, and the last is the group. */
static enum status check_tiers(const struct node_group *group, const char *where, size_t index,
                               struct error *err)
{
    struct place place = place_group(where, index, "");
    int64_t devices = group->nodes * group->node_devices;

    if (group->tier_count > CLUSTER_TIERS_MAX)
        return invalid(&place, "tiers", err, "has %zu tiers; at most %d", group->tier_count,
                       CLUSTER_TIERS_MAX);
    for (size_t i = 0; i < group->tier_count; i++) {
        const struct link_tier *tier = &group->tiers[i];
        int64_t inner = i > 0 ? tier[-1].devices : 1;
        char member[32];
        snprintf(member, sizeof(member), "tiers[%zu].", i);
        struct place at = place_group(where, index, member);
        TRY(check_tier(tier, &at, err));
        if (tier->devices % inner != 0 || (i > 0 && tier->devices == inner))
            return invalid(&at, "devices", err,
                           "a domain of %lld does not consist of several of the tier before, "
                           "which have %lld",
                           (long long)tier->devices, (long long)inner);
    }
    if (group->tier_count > 0 && group->tiers[group->tier_count - 1].devices != devices)
        return invalid(&place, "tiers", err,
                       "the last tier must join all %lld devices of the group, joins %lld",
                       (long long)devices, (long long)group->tiers[group->tier_count - 1].devices);
    return STATUS_OK;
}

/* ---- cluster ---- */

/* "2026-11-01", as far as a calendar without leap years knows. */
static bool is_date(const char *text)
{
    static const char shape[] = "dddd-dd-dd";
    if (strlen(text) != sizeof(shape) - 1)
        return false;
    for (size_t i = 0; shape[i] != '\0'; i++) {
        if (shape[i] == 'd' ? !isdigit((unsigned char)text[i]) : text[i] != shape[i])
            return false;
    }
    int month = (text[5] - '0') * 10 + text[6] - '0';
    int day = (text[8] - '0') * 10 + text[9] - '0';
    return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

static enum status check_dates(const struct cluster *cluster, const struct place *place,
                               struct error *err)
{
    bool has_carbon = !isnan(cluster->carbon_g_kwh);

    if (has_carbon != (cluster->carbon_date[0] != '\0'))
        return invalid(place, has_carbon ? "carbon_date" : "carbon_g_kwh", err,
                       "missing; carbon_g_kwh and carbon_date go together");
    if (has_carbon && !is_date(cluster->carbon_date))
        return invalid(place, "carbon_date", err, "'%s' is not a date like 2026-11-01",
                       cluster->carbon_date);
    if (cluster->price_date[0] != '\0' && !is_date(cluster->price_date))
        return invalid(place, "price_date", err, "'%s' is not a date like 2026-11-01",
                       cluster->price_date);
    return STATUS_OK;
}

static enum status check_group(const struct cluster *cluster, size_t index, const char *where,
                               struct error *err)
{
    const struct node_group *group = &cluster->groups[index];
    struct place place = place_group(where, index, "");
    struct place device = place_group(where, index, "device.");

    TRY(fields_check(&node_group_table, group, where, place.prefix, err));
    TRY(check_device(&group->device, &device, err));
    if (!isnan(group->device.price_hour) && cluster->currency[0] == '\0')
        return invalid(&(struct place){.where = where}, "currency", err,
                       "missing; groups[%zu].device has a price", index);
    return check_tiers(group, where, index, err);
}

enum status cluster_validate(const struct cluster *cluster, const char *where, struct error *err)
{
    struct place place = {.where = where};

    if (cluster->group_count < 1 || cluster->group_count > CLUSTER_GROUPS_MAX)
        return invalid(&place, "groups", err, "must have from 1 to %d node groups, has %zu",
                       CLUSTER_GROUPS_MAX, cluster->group_count);
    TRY(check_reals(&cluster_table, cluster, "carbon_g_kwh", &place, err));
    TRY(check_dates(cluster, &place, err));
    for (size_t i = 0; i < cluster->group_count; i++)
        TRY(check_group(cluster, i, where, err));
    return STATUS_OK;
}

/* ---- is it enough to plan with? ---- */

static enum status missing(const struct place *place, const char *key, struct error *err)
{
    return invalid(place, key, err, "missing; predicting time and memory needs it");
}

static enum status check_device_planning(const struct device_type *device,
                                         enum arithmetic arithmetic, const struct place *place,
                                         struct error *err)
{
    char key[64];

    if (device->memory_bytes == 0)
        return missing(place, "memory_bytes", err);
    if (device->memory_bytes_s <= 0.0)
        return missing(place, "memory_bytes_s", err);
    snprintf(key, sizeof(key), "peak_flops.%s", arithmetic_name(arithmetic));
    if (device->peak_flops[arithmetic] <= 0.0)
        return invalid(place, key, err, "missing; device '%s' has no %s arithmetic", device->name,
                       arithmetic_name(arithmetic));
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        snprintf(key, sizeof(key), "efficiency.%s", name_of(&operation_names, i));
        if (device->efficiency[i].count == 0)
            return missing(place, key, err);
    }
    return STATUS_OK;
}

enum status cluster_check_planning(const struct cluster *cluster, enum arithmetic arithmetic,
                                   const char *where, struct error *err)
{
    for (size_t i = 0; i < cluster->group_count; i++) {
        const struct node_group *group = &cluster->groups[i];
        struct place place = place_group(where, i, "");
        struct place device = place_group(where, i, "device.");
        TRY(check_device_planning(&group->device, arithmetic, &device, err));
        if (group->tier_count == 0)
            return missing(&place, "tiers", err);
    }
    return STATUS_OK;
}
