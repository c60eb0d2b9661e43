#include "ir/cluster.h"

#include "base/file.h"
#include "base/options.h"
#include "ir/cluster_source.h"
#include "ir/names.h"
#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

static const char *const arithmetics[ARITHMETIC_COUNT] = {
    [ARITHMETIC_FP32] = "fp32", [ARITHMETIC_TF32] = "tf32", [ARITHMETIC_BF16] = "bf16",
    [ARITHMETIC_FP16] = "fp16", [ARITHMETIC_FP8] = "fp8",
};
static const char *const operations[OPERATION_COUNT] = {
    [OPERATION_MATMUL] = "matmul",
    [OPERATION_ATTENTION] = "attention",
    [OPERATION_MEMORY] = "memory",
};
const struct name_list arithmetic_names = {arithmetics, ARITHMETIC_COUNT};
const struct name_list operation_names = {operations, OPERATION_COUNT};

const char *arithmetic_name(enum arithmetic arithmetic)
{
    return name_of(&arithmetic_names, arithmetic);
}

bool arithmetic_parse(const char *name, enum arithmetic *out)
{
    unsigned value;
    if (!name_parse(&arithmetic_names, name, &value))
        return false;
    *out = (enum arithmetic)value;
    return true;
}

const char *operation_name(enum operation operation)
{
    return name_of(&operation_names, operation);
}

/* ---- questions ---- */

/* The natural logarithm of a positive, normal number, to within 1e-15 of it. The C library's, which
 * knows every other number as well and is not inlined, took a fifth of the time of planning. With
 * x = 2^e m, m between sqrt(1/2) and sqrt(2), it is e ln 2 + 2 atanh((m - 1) / (m + 1)). */
static double fast_log(double x)
{
    static const uint64_t least_bits = 0x3fe6a09e667f3bcd; /* of m: sqrt(1/2) */
    uint64_t bits;
    double m;

    memcpy(&bits, &x, sizeof(bits));
    int64_t e = (int64_t)(bits - least_bits) >> 52;
    bits -= (uint64_t)e << 52;
    memcpy(&m, &bits, sizeof(m));
    double s = (m - 1) / (m + 1);
    double z = s * s, z2 = z * z, z4 = z2 * z2;
    double series =
        (2.0 + z * (2.0 / 3)) + z2 * (2.0 / 5 + z * (2.0 / 7)) +
        z4 * ((2.0 / 9 + z * (2.0 / 11)) + z2 * (2.0 / 13 + z * (2.0 / 15)) + z4 * (2.0 / 17));
    return (double)e * M_LN2 + s * series;
}

/* How many of the curve's points the size has reached. */
static size_t points_until(const struct efficiency_curve *curve, double size)
{
    size_t points = 0;
    assert(curve->count > 0 && curve->count <= CURVE_POINTS_MAX);
    while (points < curve->count && size >= curve->size[points])
        points++;
    return points;
}

void efficiency_curve_add(struct efficiency_curve *curve, double size, double share)
{
    assert(curve->count < CURVE_POINTS_MAX);
    curve->size[curve->count] = size;
    curve->share[curve->count] = share;
    curve->log_size[curve->count] = fast_log(size);
    if (curve->count > 0) {
        size_t before = curve->count - 1;
        curve->per_log[before] = 1 / (curve->log_size[curve->count] - curve->log_size[before]);
    }
    curve->count++;
}

double efficiency_at(const struct efficiency_curve *curve, double size)
{
    size_t points = points_until(curve, size);
    if (points == 0)
        return curve->share[0];
    size_t at = points - 1;
    if (points == curve->count)
        return curve->share[at];
    double way = (fast_log(size) - curve->log_size[at]) * curve->per_log[at];
    return curve->share[at] + way * (curve->share[points] - curve->share[at]);
}

double efficiency_floor(const struct efficiency_curve *curve, double size)
{
    size_t points = points_until(curve, size);
    double before = curve->share[points > 0 ? points - 1 : 0];
    double after = curve->share[points < curve->count ? points : points - 1];
    return before < after ? before : after;
}

bool cluster_is_slower_in(const struct cluster *cluster, enum arithmetic a, enum arithmetic b)
{
    for (size_t i = 0; i < cluster->group_count; i++) {
        const double *peaks = cluster->groups[i].device.peak_flops;
        if (peaks[a] >= peaks[b])
            return false;
    }
    return true;
}

int64_t cluster_devices(const struct cluster *cluster)
{
    int64_t devices = 0;
    for (size_t i = 0; i < cluster->group_count; i++)
        devices += cluster->groups[i].nodes * cluster->groups[i].node_devices;
    return devices;
}

const struct link_tier *node_group_tier(const struct node_group *group, int64_t ways, int64_t apart)
{
    assert(ways >= 1 && apart >= 1);
    if (group->tier_count == 0)
        return NULL;
    for (size_t i = 0; i + 1 < group->tier_count; i++) {
        int64_t devices = group->tiers[i].devices;
        /* one device sends nothing; the division keeps ways * apart from overflowing */
        if (ways == 1 || (ways <= devices / apart && devices % (ways * apart) == 0))
            return &group->tiers[i];
    }
    return &group->tiers[group->tier_count - 1];
}

static uint64_t curves_hash(const struct device_type *device, uint64_t hash)
{
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        const struct efficiency_curve *curve = &device->efficiency[i];
        hash = hash_mix(hash, &curve->count, sizeof(curve->count));
        hash = hash_mix(hash, curve->size, curve->count * sizeof(double));
        hash = hash_mix(hash, curve->share, curve->count * sizeof(double));
    }
    return hash;
}

uint64_t cluster_hash(const struct cluster *cluster)
{
    /* the first row is the name */
    const struct field_table figures = {cluster_table.rows + 1, cluster_table.count - 1};
    uint64_t hash = fields_hash(&figures, cluster, 0);

    for (size_t i = 0; i < cluster->group_count; i++) {
        const struct node_group *group = &cluster->groups[i];
        hash = fields_hash(&node_group_table, group, hash);
        hash = fields_hash(&device_type_table, &group->device, hash);
        hash = hash_mix(hash, group->device.peak_flops, sizeof(group->device.peak_flops));
        hash = curves_hash(&group->device, hash);
        for (size_t tier = 0; tier < group->tier_count; tier++)
            hash = fields_hash(&link_tier_table, &group->tiers[tier], hash);
    }
    return hash;
}

/* ---- loading ---- */

/* "h100x1024@ib-4x400" in its parts; false: it has no such form. */
struct builtin_source {
    char device[CLUSTER_NAME_BYTES];
    int64_t devices;
    const char *network; /* NULL: the usual one */
};

static bool source_split(const char *source, struct builtin_source *out)
{
    const char *network = strchr(source, '@');
    const char *end = network != NULL ? network : source + strlen(source);
    const char *digits = end;
    char *stop;

    while (digits > source && isdigit((unsigned char)digits[-1]))
        digits--;
    ptrdiff_t name_bytes = digits - source - 1; /* without the x */
    if (digits == end || end - digits > 12 || name_bytes < 1 || name_bytes >= CLUSTER_NAME_BYTES ||
        tolower((unsigned char)digits[-1]) != 'x')
        return false;
    snprintf(out->device, sizeof(out->device), "%.*s", (int)name_bytes, source);
    out->devices = strtoll(digits, &stop, 10);
    out->network = network != NULL ? network + 1 : NULL;
    return out->devices >= 1 && stop == end;
}

bool cluster_of_device(const char *device_name, int64_t devices, struct cluster *out)
{
    int64_t node_devices;
    return cluster_builtin_make(device_name, devices, out, &node_devices) == BUILTIN_FOUND;
}

static enum status unknown_source(const char *source, const char *device, struct error *err)
{
    struct cluster one;
    if (cluster_of_device(source, 1, &one))
        return error_set(err, STATUS_INVALID, "cluster '%s': how many of them? such as %sx8",
                         source, one.groups[0].device.name);
    enum { NAMES_MAX = 32 };
    const char *names[NAMES_MAX];
    size_t count = cluster_builtin_count();
    struct text list = {0};
    struct text hint = {0};

    assert(count <= NAMES_MAX);
    for (size_t i = 0; i < count; i++)
        names[i] = cluster_builtin_name(i);
    const char *near = nearest_word(device, names, count);
    if (near != NULL)
        text_printf(&hint, "; did you mean '%s'?", near);
    cluster_builtin_names(&list);
    enum status status = error_set(
        err, STATUS_INVALID,
        "cluster '%s': neither a cluster file nor a built-in device and how many, such as "
        "h100x1024%s (built-in: %s)",
        source, hint.data != NULL ? hint.data : "", list.data != NULL ? list.data : "");
    text_free(&hint);
    text_free(&list);
    return status;
}

static enum status load_builtin(struct cluster *out, const char *source,
                                const struct builtin_source *parts, struct error *err)
{
    int64_t node_devices = 0;

    switch (cluster_builtin_make(parts->device, parts->devices, out, &node_devices)) {
    case BUILTIN_FOUND:
        break;
    case BUILTIN_UNKNOWN:
        return unknown_source(source, parts->device, err);
    case BUILTIN_PART_NODES:
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': %lld devices are not whole nodes of %lld, nor fewer than "
                         "one node has",
                         source, (long long)parts->devices, (long long)node_devices);
    }
    if (parts->network != NULL && !cluster_set_network(out, parts->network))
        return error_set(err, STATUS_INVALID,
                         "cluster '%s': '%s' is no network; write kind (ib, roce, opa or eth), "
                         "adapters of a node and Gb/s of each, such as ib-8x200",
                         source, parts->network);
    snprintf(out->name, sizeof(out->name), "%s", source);
    return cluster_validate(out, source, err);
}

enum status cluster_load(struct cluster *out, const char *source, struct error *err)
{
    struct builtin_source parts;
    struct cluster cluster;

    if (file_exists(source))
        return cluster_load_file(out, source, err);
    if (!source_split(source, &parts))
        return unknown_source(source, source, err);
    TRY(load_builtin(&cluster, source, &parts, err));
    *out = cluster;
    return STATUS_OK;
}
