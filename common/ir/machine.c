#include "ir/machine.h"

#include "base/json.h"
#include "ir/fields.h"
#include <ctype.h>
#include <string.h>

static const char format_name[] = "temper-machine";

/* clang-format off */
#define ROW(key_, member_, ...) FIELD_ROW(struct machine, key_, member_, __VA_ARGS__)
static const struct field machine_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = MACHINE_NAME_BYTES),
    ROW("price_per_device_hour", price_per_device_hour, FIELD_REAL, .optional = true),
    ROW("carbon_grams_per_kwh", carbon_grams_per_kwh, FIELD_REAL, .optional = true),
    ROW("carbon_date", carbon_date, FIELD_TEXT, .capacity = 16, .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct node_group, key_, member_, __VA_ARGS__)
static const struct field group_rows[] = {
    ROW("name", name, FIELD_TEXT, .capacity = MACHINE_NAME_BYTES),
    ROW("nodes", nodes, FIELD_INT64, FIELD_RANGE(1, 1 << 20)),
    ROW("devices_per_node", devices_per_node, FIELD_INT64, FIELD_RANGE(1, 1 << 16)),
    ROW("device_memory_bytes", device_memory_bytes, FIELD_BYTES, FIELD_RANGE(1, INT64_MAX),
        .optional = true),
};
#undef ROW
#define ROW(key_, member_, ...) FIELD_ROW(struct power_model, key_, member_, __VA_ARGS__)
static const struct field power_rows[] = {
    ROW("idle_watts", idle_watts, FIELD_REAL),
    ROW("active_watts", active_watts, FIELD_REAL),
};
#undef ROW
/* clang-format on */

#define TABLE(rows)                                                                                \
    {                                                                                              \
        rows, sizeof(rows) / sizeof((rows)[0])                                                     \
    }
static const struct field_table machine_table = TABLE(machine_rows);
static const struct field_table group_table = TABLE(group_rows);
static const struct field_table power_table = TABLE(power_rows);

static enum status power_read(struct power_model *out, const struct jin *at, struct error *err)
{
    TRY(keys_check(&power_table, NULL, at, err));
    TRY(fields_read(&power_table, at, out, err));
    if (out->idle_watts < 0.0)
        return jin_invalid(at, "idle_watts", err, "must be 0 or more, is %g", out->idle_watts);
    if (out->active_watts < out->idle_watts)
        return jin_invalid(at, "active_watts", err, "%g is below idle_watts %g", out->active_watts,
                           out->idle_watts);
    return STATUS_OK;
}

static enum status group_read(struct node_group *out, const struct jin *at, struct error *err)
{
    static const char *const others[] = {"power", NULL};
    struct jin power;

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "expected an object that describes a node group");
    *out = (struct node_group){.power = {.idle_watts = -1.0, .active_watts = -1.0}};
    TRY(keys_check(&group_table, others, at, err));
    TRY(fields_read(&group_table, at, out, err));
    if (!jin_has(at, "power"))
        return STATUS_OK;
    TRY(jin_object(at, "power", &power, err));
    return power_read(&out->power, &power, err);
}

static enum status groups_read(struct machine *out, const struct jin *root, struct error *err)
{
    struct jin groups;
    TRY(jin_array(root, "groups", &groups, err));
    size_t count = jin_length(&groups);
    if (count < 1 || count > MACHINE_GROUPS_MAX)
        return jin_invalid(root, "groups", err, "must have from 1 to %d node groups, has %zu",
                           MACHINE_GROUPS_MAX, count);
    for (size_t i = 0; i < count; i++) {
        struct jin group = jin_element(&groups, i);
        TRY(group_read(&out->groups[i], &group, err));
    }
    out->group_count = count;
    return STATUS_OK;
}

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

static enum status check_rates(const struct machine *machine, const struct jin *at,
                               struct error *err)
{
    bool has_carbon = jin_has(at, "carbon_grams_per_kwh");

    if (jin_has(at, "price_per_device_hour") && machine->price_per_device_hour < 0.0)
        return jin_invalid(at, "price_per_device_hour", err, "must be 0 or more, is %g",
                           machine->price_per_device_hour);
    if (has_carbon && machine->carbon_grams_per_kwh < 0.0)
        return jin_invalid(at, "carbon_grams_per_kwh", err, "must be 0 or more, is %g",
                           machine->carbon_grams_per_kwh);
    if (has_carbon != jin_has(at, "carbon_date"))
        return jin_invalid(at, has_carbon ? "carbon_date" : "carbon_grams_per_kwh", err,
                           "missing; carbon_grams_per_kwh and carbon_date go together");
    if (has_carbon && !is_date(machine->carbon_date))
        return jin_invalid(at, "carbon_date", err, "'%s' is not a date like 2026-11-01",
                           machine->carbon_date);
    return STATUS_OK;
}

static enum status machine_read(struct machine *out, const struct jin *at, struct error *err)
{
    static const char *const others[] = {"format", "version", "groups", NULL};

    if (!jin_is_object(at))
        return jin_invalid(at, NULL, err, "a machine must be a JSON object");
    TRY(format_check(at, format_name, MACHINE_VERSION, err));
    TRY(keys_check(&machine_table, others, at, err));
    *out = (struct machine){.price_per_device_hour = -1.0, .carbon_grams_per_kwh = -1.0};
    TRY(fields_read(&machine_table, at, out, err));
    TRY(groups_read(out, at, err));
    return check_rates(out, at, err);
}

enum status machine_load(struct machine *out, const char *path, struct error *err)
{
    struct json_document *document;
    struct machine machine;

    TRY(json_parse_file(&document, path, err));
    struct jin root = json_root(document);
    enum status status = machine_read(&machine, &root, err);
    json_document_free(document);
    if (status == STATUS_OK)
        *out = machine;
    return status;
}
