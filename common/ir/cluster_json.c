/* A cluster as JSON; the format is described in docs/cluster.md. */
#include "ir/cluster_source.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char format_name[] = "temper-cluster";

/* ---- tables ---- */

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct cluster, key_, member_, __VA_ARGS__)
static const struct field cluster_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = CLUSTER_NAME_BYTES),
    /* cluster_hash: all but the first row */
    ROW("currency", currency, FIELD_TEXT, .capacity = 8, .optional = true),
    ROW("price_date", price_date, FIELD_TEXT, .capacity = 16, .optional = true),
    ROW("carbon_g_kwh", carbon_g_kwh, FIELD_REAL, .optional = true),
    ROW("carbon_date", carbon_date, FIELD_TEXT, .capacity = 16, .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct node_group, key_, member_, __VA_ARGS__)
static const struct field group_rows[] = {
    ROW("nodes", nodes, FIELD_INT64, FIELD_RANGE(1, CLUSTER_NODES_MAX)),
    ROW("node_devices", node_devices, FIELD_INT64, FIELD_RANGE(1, CLUSTER_NODE_DEVICES_MAX), .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct device_type, key_, member_, __VA_ARGS__)
static const struct field device_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = CLUSTER_NAME_BYTES, .optional = true),
    ROW("memory_bytes", memory_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX), .optional = true),
    ROW("memory_bytes_s", memory_bytes_s, FIELD_REAL, .optional = true),
    ROW("launch_s", launch_s, FIELD_REAL, .optional = true),
    ROW("host_bytes_s", host_bytes_s, FIELD_REAL, .optional = true),
    ROW("host_memory_bytes_s", host_memory_bytes_s, FIELD_REAL, .optional = true),
    ROW("host_memory_bytes", host_memory_bytes, FIELD_BYTES, FIELD_RANGE(0, INT64_MAX), .optional = true),
    ROW("idle_w", idle_w, FIELD_REAL, .optional = true),
    ROW("peak_w", peak_w, FIELD_REAL, .optional = true),
    ROW("unlimited_w", unlimited_w, FIELD_REAL, .optional = true),
    ROW("price_hour", price_hour, FIELD_REAL, .optional = true),
    ROW("source", source, FIELD_TEXT, .capacity = CLUSTER_SOURCE_BYTES, .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct link_tier, key_, member_, __VA_ARGS__)
static const struct field tier_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = CLUSTER_NAME_BYTES),
    ROW("devices", devices, FIELD_INT64, FIELD_RANGE(1, INT64_MAX)),
    ROW("latency_s", latency_s, FIELD_REAL),
    ROW("bytes_s", bytes_s, FIELD_REAL),
    ROW("share", share, FIELD_REAL),
    ROW("source", source, FIELD_TEXT, .capacity = CLUSTER_SOURCE_BYTES, .optional = true),
};
#undef ROW
#define TABLE(rows) {rows, sizeof(rows) / sizeof((rows)[0])}
/* clang-format on */

const struct field_table cluster_table = TABLE(cluster_rows);
const struct field_table node_group_table = TABLE(group_rows);
const struct field_table device_type_table = TABLE(device_rows);
const struct field_table link_tier_table = TABLE(tier_rows);

/* ---- writing ---- */

static void curve_write(const struct efficiency_curve *curve, const char *key, struct jout *out)
{
    jout_begin_array(out, key);
    for (size_t i = 0; i < curve->count; i++) {
        jout_begin_array(out, NULL);
        jout_real(out, NULL, curve->size[i]);
        jout_real(out, NULL, curve->share[i]);
        jout_end(out);
    }
    jout_end(out);
}

static void device_write(const struct device_type *device, struct jout *out)
{
    jout_begin_object(out, "device");
    fields_write(&device_type_table, device, out);
    jout_begin_object(out, "peak_flops");
    for (size_t i = 0; i < ARITHMETIC_COUNT; i++) {
        if (device->peak_flops[i] > 0.0)
            jout_real(out, name_of(&arithmetic_names, i), device->peak_flops[i]);
    }
    jout_end(out);
    jout_begin_object(out, "efficiency");
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        if (device->efficiency[i].count > 0)
            curve_write(&device->efficiency[i], name_of(&operation_names, i), out);
    }
    jout_end(out);
    jout_end(out);
}

static void group_write(const struct node_group *group, struct jout *out)
{
    jout_begin_object(out, NULL);
    fields_write(&node_group_table, group, out);
    device_write(&group->device, out);
    jout_begin_array(out, "tiers");
    for (size_t i = 0; i < group->tier_count; i++) {
        jout_begin_object(out, NULL);
        fields_write(&link_tier_table, &group->tiers[i], out);
        jout_end(out);
    }
    jout_end(out);
    jout_end(out);
}

enum status cluster_write_json(const struct cluster *cluster, struct text *out, struct error *err)
{
    struct jout *json = jout_new();

    jout_string(json, "format", format_name);
    jout_int(json, "version", CLUSTER_VERSION);
    fields_write(&cluster_table, cluster, json);
    jout_begin_array(json, "groups");
    for (size_t i = 0; i < cluster->group_count; i++)
        group_write(&cluster->groups[i], json);
    jout_end(json);
    return jout_finish(json, 1, out, err);
}

/* ---- reading a device ---- */

static enum status point_read(const struct jin *at, double *size, double *share, struct error *err)
{
    if (!jin_is_array(at) || jin_length(at) != 2)
        return jin_invalid(at, NULL, err, "expected a pair [size, share]");
    struct jin first = jin_element(at, 0), second = jin_element(at, 1);
    TRY(jin_as_real(&first, size, err));
    return jin_as_real(&second, share, err);
}

static enum status curve_read(const struct jin *parent, const char *key,
                              struct efficiency_curve *out, struct error *err)
{
    struct jin points;

    TRY(jin_array(parent, key, &points, err));
    size_t count = jin_length(&points);
    if (count < 1 || count > CURVE_POINTS_MAX)
        return jin_invalid(parent, key, err, "must have from 1 to %d points, has %zu",
                           CURVE_POINTS_MAX, count);
    *out = (struct efficiency_curve){.count = 0};
    for (size_t i = 0; i < count; i++) {
        struct jin point = jin_element(&points, i);
        double size, share;
        TRY(point_read(&point, &size, &share, err));
        efficiency_curve_add(out, size, share);
    }
    return STATUS_OK;
}

/* The members of an object are all names of the list. */
static enum status check_names(const struct jin *at, const struct name_list *names,
                               struct error *err)
{
    void *iterator = NULL;
    const char *key;
    struct jin value;
    unsigned index;

    while (jin_next_member(at, &iterator, &key, &value)) {
        if (name_parse(names, key, &index))
            continue;
        struct text list = {0};
        names_append(names, &list);
        enum status status = jin_invalid(at, key, err, "unknown key; must be one of: %s",
                                         list.data != NULL ? list.data : "");
        text_free(&list);
        return status;
    }
    return STATUS_OK;
}

static enum status peaks_read(const struct jin *device, double peaks[ARITHMETIC_COUNT],
                              struct error *err)
{
    struct jin at;

    if (!jin_has(device, "peak_flops"))
        return STATUS_OK;
    TRY(jin_object(device, "peak_flops", &at, err));
    TRY(check_names(&at, &arithmetic_names, err));
    for (size_t i = 0; i < ARITHMETIC_COUNT; i++)
        TRY(jin_real_opt(&at, name_of(&arithmetic_names, i), &peaks[i], err));
    return STATUS_OK;
}

static enum status curves_read(const struct jin *device,
                               struct efficiency_curve curves[OPERATION_COUNT], struct error *err)
{
    struct jin at;

    if (!jin_has(device, "efficiency"))
        return STATUS_OK;
    TRY(jin_object(device, "efficiency", &at, err));
    TRY(check_names(&at, &operation_names, err));
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        const char *name = name_of(&operation_names, i);
        if (jin_has(&at, name))
            TRY(curve_read(&at, name, &curves[i], err));
    }
    return STATUS_OK;
}

/* What the file gives replaces what stands in *out. */
static enum status device_read(struct device_type *out, const struct jin *group, struct error *err)
{
    static const char *const others[] = {"peak_flops", "efficiency", NULL};
    struct jin at;

    if (out->name[0] != '\0' && !jin_has(group, "device"))
        return STATUS_OK;
    TRY(jin_object(group, "device", &at, err));
    TRY(keys_check(&device_type_table, others, &at, err));
    TRY(fields_read(&device_type_table, &at, out, err));
    if (out->name[0] == '\0')
        TRY(jin_string_copy(&at, "name", out->name, sizeof(out->name), err));
    TRY(peaks_read(&at, out->peak_flops, err));
    return curves_read(&at, out->efficiency, err);
}

/* ---- reading a group ---- */

static enum status tiers_read(struct node_group *out, const struct jin *group, struct error *err)
{
    struct jin tiers;

    if (!jin_has(group, "tiers"))
        return STATUS_OK;
    TRY(jin_array(group, "tiers", &tiers, err));
    size_t count = jin_length(&tiers);
    if (count > CLUSTER_TIERS_MAX)
        return jin_invalid(group, "tiers", err, "has %zu tiers; at most %d", count,
                           CLUSTER_TIERS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct jin at = jin_element(&tiers, i);
        if (!jin_is_object(&at))
            return jin_invalid(&at, NULL, err, "expected an object that describes a link tier");
        out->tiers[i] = (struct link_tier){0};
        TRY(keys_check(&link_tier_table, NULL, &at, err));
        TRY(fields_read(&link_tier_table, &at, &out->tiers[i], err));
    }
    out->tier_count = count;
    return STATUS_OK;
}

static enum status unknown_device(const struct jin *group, const char *like, struct error *err)
{
    struct text names = {0};
    cluster_builtin_names(&names);
    enum status status = jin_invalid(group, "like", err, "'%s' is not one of: %s", like,
                                     names.data != NULL ? names.data : "");
    text_free(&names);
    return status;
}

/* Fill the group with a built-in device in its usual nodes. `out` has nodes, and node_devices if
 * the file gives them. */
static enum status like_read(struct node_group *out, const struct jin *group, struct error *err)
{
    const char *like, *network = NULL;
    struct cluster usual;
    int64_t node_devices;

    TRY(jin_string(group, "like", &like, err));
    TRY(jin_string_opt(group, "network", &network, err));
    if (cluster_builtin_make(like, 1, &usual, &node_devices) != BUILTIN_FOUND)
        return unknown_device(group, like, err);
    int64_t nodes = out->nodes;
    if (out->node_devices == 0)
        out->node_devices = node_devices;
    int64_t devices = nodes * out->node_devices;
    /* Part of one node and whole nodes are as usual; other nodes need tiers of their own. */
    if (cluster_builtin_make(like, devices, &usual, &node_devices) == BUILTIN_FOUND &&
        usual.groups[0].node_devices == out->node_devices) {
        if (network != NULL && !cluster_set_network(&usual, network))
            return jin_invalid(group, "network", err, "'%s' is no network such as ib-8x200",
                               network);
        *out = usual.groups[0];
        return STATUS_OK;
    }
    if (!jin_has(group, "tiers"))
        return jin_invalid(group, "tiers", err,
                           "missing; usual nodes of '%s' have %lld devices, these %lld", like,
                           (long long)node_devices, (long long)out->node_devices);
    out->device = usual.groups[0].device;
    return STATUS_OK;
}

static enum status group_read(struct node_group *out, const struct jin *at, struct error *err)
{
    static const char *const others[] = {"like", "network", "device", "tiers", NULL};

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "expected an object that describes a node group");
    *out = (struct node_group){.device.price_hour = NAN};
    TRY(keys_check(&node_group_table, others, at, err));
    TRY(fields_read(&node_group_table, at, out, err));
    if (jin_has(at, "like"))
        TRY(like_read(out, at, err));
    else if (jin_has(at, "network"))
        return jin_invalid(at, "network", err, "only beside 'like'; write it into 'tiers'");
    if (jin_has(at, "network") && jin_has(at, "tiers"))
        return jin_invalid(at, "network", err, "does not go with 'tiers', which say it all");
    if (out->node_devices == 0)
        TRY(jin_int(at, "node_devices", &out->node_devices, err));
    TRY(device_read(&out->device, at, err));
    return tiers_read(out, at, err);
}

/* ---- reading a cluster ---- */

static enum status cluster_read(struct cluster *out, const struct jin *at, struct error *err)
{
    static const char *const others[] = {"format", "version", "groups", NULL};
    struct jin groups;

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "a cluster must be a JSON object");
    TRY(format_check(at, format_name, CLUSTER_VERSION, err));
    TRY(keys_check(&cluster_table, others, at, err));
    *out = (struct cluster){.carbon_g_kwh = NAN};
    TRY(fields_read(&cluster_table, at, out, err));
    TRY(jin_array(at, "groups", &groups, err));
    size_t count = jin_length(&groups);
    if (count < 1 || count > CLUSTER_GROUPS_MAX)
        return jin_invalid(at, "groups", err, "must have from 1 to %d node groups, has %zu",
                           CLUSTER_GROUPS_MAX, count);
    for (size_t i = 0; i < count; i++) {
        struct jin group = jin_element(&groups, i);
        TRY(group_read(&out->groups[i], &group, err));
    }
    out->group_count = count;
    return cluster_validate(out, at->file, err);
}

enum status cluster_load_file(struct cluster *out, const char *path, struct error *err)
{
    struct json_document *document;
    struct cluster cluster;

    TRY(json_parse_file(&document, path, err));
    struct jin root = json_root(document);
    enum status status = cluster_read(&cluster, &root, err);
    json_document_free(document);
    if (status == STATUS_OK)
        *out = cluster;
    return status;
}
