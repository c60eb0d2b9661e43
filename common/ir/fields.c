#include "ir/fields.h"

#include "base/hash.h"
#include "ir/quantity.h"
#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- writing ---- */

static void quantity_write(const struct quantity *quantity, const char *key, struct jout *out)
{
    jout_begin_object(out, key);
    if (quantity->provenance == PROVENANCE_ABSENT) {
        jout_null(out, "value");
        jout_null(out, "deviation");
    } else {
        jout_real(out, "value", quantity->value);
        jout_real(out, "deviation", quantity->deviation);
    }
    jout_string(out, "provenance", provenance_name(quantity->provenance));
    jout_end(out);
}

static void quantities_write(const struct field *row, const void *member, struct jout *out)
{
    const struct quantity *quantities = member;
    jout_begin_object(out, row->key);
    for (size_t i = 0; i < row->names->count; i++)
        quantity_write(&quantities[i], name_of(row->names, i), out);
    jout_end(out);
}

static void field_write(const struct field *row, const void *member, struct jout *out)
{
    switch (row->type) {
    case FIELD_INT:
        jout_int(out, row->key, *(const int *)member);
        break;
    case FIELD_INT64:
        jout_int(out, row->key, *(const int64_t *)member);
        break;
    case FIELD_BYTES:
        jout_int(out, row->key, (int64_t) * (const uint64_t *)member);
        break;
    case FIELD_REAL:
        jout_real(out, row->key, *(const double *)member);
        break;
    case FIELD_BOOL:
        jout_bool(out, row->key, *(const bool *)member);
        break;
    case FIELD_TEXT:
        jout_string(out, row->key, member);
        break;
    case FIELD_NAME:
        jout_string(out, row->key, name_of(row->names, *(const unsigned *)member));
        break;
    case FIELD_QUANTITY:
        quantity_write(member, row->key, out);
        break;
    case FIELD_QUANTITIES:
        quantities_write(row, member, out);
        break;
    }
}

void fields_write(const struct field_table *table, const void *object, struct jout *out)
{
    for (size_t i = 0; i < table->count; i++)
        field_write(&table->rows[i], (const char *)object + table->rows[i].offset, out);
}

/* ---- reading ---- */

static enum status name_read(const struct field *row, const struct name_list *names,
                             const struct jin *at, unsigned *out, struct error *err)
{
    const char *name;
    TRY(jin_string(at, row->key, &name, err));
    if (name_parse(names, name, out))
        return STATUS_OK;

    struct text list = {0};
    names_append(names, &list);
    enum status status = jin_invalid(at, row->key, err, "'%s' is not one of: %s", name,
                                     list.data != NULL ? list.data : "");
    text_free(&list);
    return status;
}

static enum status quantity_read(const struct jin *parent, const char *key, struct quantity *out,
                                 struct error *err)
{
    static const struct field provenance_row = {.key = "provenance"};
    static const char *const keys[] = {"value", "deviation", "provenance", NULL};
    struct jin at;
    unsigned provenance;

    TRY(jin_object(parent, key, &at, err));
    TRY(keys_check(NULL, keys, &at, err));
    TRY(name_read(&provenance_row, &provenance_names, &at, &provenance, err));
    if (provenance == PROVENANCE_ABSENT) {
        if (jin_has(&at, "value") || jin_has(&at, "deviation"))
            return jin_invalid(&at, NULL, err,
                               "an absent quantity must have null as value and deviation");
        *out = quantity_absent();
        return STATUS_OK;
    }
    struct quantity quantity = {.provenance = (enum provenance)provenance};
    TRY(jin_real(&at, "value", &quantity.value, err));
    TRY(jin_real(&at, "deviation", &quantity.deviation, err));
    if (!(quantity.deviation >= 0.0))
        return jin_invalid(&at, "deviation", err, "must be 0 or more, is %g", quantity.deviation);
    *out = quantity;
    return STATUS_OK;
}

static enum status quantities_read(const struct field *row, const struct jin *parent,
                                   struct quantity *out, struct error *err)
{
    struct jin at, value;
    const char *key;
    void *iterator = NULL;
    unsigned index;

    TRY(jin_object(parent, row->key, &at, err));
    for (size_t i = 0; i < row->names->count; i++)
        TRY(quantity_read(&at, name_of(row->names, i), &out[i], err));
    while (jin_next_member(&at, &iterator, &key, &value)) {
        if (!name_parse(row->names, key, &index))
            return jin_invalid(&at, key, err, "unknown key");
    }
    return STATUS_OK;
}

static enum status integer_read(const struct field *row, const struct jin *at, int64_t *out,
                                struct error *err)
{
    int64_t value;
    TRY(jin_int(at, row->key, &value, err));
    if (value < row->minimum || value > row->maximum)
        return jin_invalid(at, row->key, err, "must be from %lld to %lld, is %lld",
                           (long long)row->minimum, (long long)row->maximum, (long long)value);
    *out = value;
    return STATUS_OK;
}

static enum status real_read(const struct field *row, const struct jin *at, double *out,
                             struct error *err)
{
    double value;
    TRY(jin_real(at, row->key, &value, err));
    if (!isfinite(value))
        return jin_invalid(at, row->key, err, "must be a finite number");
    *out = value;
    return STATUS_OK;
}

static enum status field_read(const struct field *row, const struct jin *at, void *member,
                              struct error *err)
{
    int64_t integer = 0;

    switch (row->type) {
    case FIELD_INT:
        TRY(integer_read(row, at, &integer, err));
        *(int *)member = (int)integer;
        return STATUS_OK;
    case FIELD_INT64:
        return integer_read(row, at, member, err);
    case FIELD_BYTES:
        TRY(integer_read(row, at, &integer, err));
        *(uint64_t *)member = (uint64_t)integer;
        return STATUS_OK;
    case FIELD_REAL:
        return real_read(row, at, member, err);
    case FIELD_BOOL:
        return jin_bool(at, row->key, member, err);
    case FIELD_TEXT:
        return jin_string_copy(at, row->key, member, row->capacity, err);
    case FIELD_NAME:
        return name_read(row, row->names, at, member, err);
    case FIELD_QUANTITY:
        return quantity_read(at, row->key, member, err);
    case FIELD_QUANTITIES:
        return quantities_read(row, at, member, err);
    }
    return STATUS_OK;
}

enum status fields_read(const struct field_table *table, const struct jin *at, void *object,
                        struct error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        if (row->optional && !jin_has(at, row->key))
            continue;
        TRY(field_read(row, at, (char *)object + row->offset, err));
    }
    return STATUS_OK;
}

static bool is_listed(const struct field_table *table, const char *const *others, const char *key)
{
    for (size_t i = 0; table != NULL && i < table->count; i++) {
        if (strcmp(table->rows[i].key, key) == 0)
            return true;
    }
    for (; others != NULL && *others != NULL; others++) {
        if (strcmp(*others, key) == 0)
            return true;
    }
    return false;
}

enum status keys_check(const struct field_table *table, const char *const *others,
                       const struct jin *at, struct error *err)
{
    void *iterator = NULL;
    const char *key;
    struct jin value;

    while (jin_next_member(at, &iterator, &key, &value)) {
        if (!is_listed(table, others, key))
            return jin_invalid(at, key, err, "unknown key");
    }
    return STATUS_OK;
}

enum status format_check(const struct jin *at, const char *format, int64_t version,
                         struct error *err)
{
    const char *found;
    int64_t found_version;

    TRY(jin_string(at, "format", &found, err));
    if (strcmp(found, format) != 0)
        return jin_invalid(at, "format", err, "must be '%s', is '%s'", format, found);
    TRY(jin_int(at, "version", &found_version, err));
    if (found_version > version)
        return error_set(err, STATUS_UNSUPPORTED,
                         "%s: key 'version': %lld was written by a newer temper; this one reads up "
                         "to %lld",
                         at->file, (long long)found_version, (long long)version);
    if (found_version < 1)
        return jin_invalid(at, "version", err, "must be from 1 to %lld, is %lld",
                           (long long)version, (long long)found_version);
    return STATUS_OK;
}

/* ---- checking and hashing ---- */

enum status fields_check(const struct field_table *table, const void *object, const char *where,
                         const char *prefix, struct error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        const void *member = (const char *)object + row->offset;
        int64_t value;

        if (row->type == FIELD_INT)
            value = *(const int *)member;
        else if (row->type == FIELD_INT64)
            value = *(const int64_t *)member;
        else
            continue;
        if (value < row->minimum || value > row->maximum)
            return error_set(err, STATUS_INVALID,
                             "%s: key '%s%s': must be from %lld to %lld, is %lld", where, prefix,
                             row->key, (long long)row->minimum, (long long)row->maximum,
                             (long long)value);
    }
    return STATUS_OK;
}

uint64_t hash_mix(uint64_t hash, const void *data, size_t bytes)
{
    uint64_t pair[2] = {hash, hash_bytes(data, bytes)};
    return hash_bytes(pair, sizeof(pair));
}

uint64_t fields_hash(const struct field_table *table, const void *object, uint64_t hash)
{
    static const size_t widths[] = {
        [FIELD_INT] = sizeof(int),
        [FIELD_INT64] = sizeof(int64_t),
        [FIELD_BYTES] = sizeof(uint64_t),
        [FIELD_REAL] = sizeof(double),
        [FIELD_BOOL] = sizeof(bool),
        [FIELD_NAME] = sizeof(unsigned),
        [FIELD_TEXT] = 0,
        [FIELD_QUANTITY] = 0,
        [FIELD_QUANTITIES] = 0,
    };
    for (size_t i = 0; i < table->count; i++) {
        const struct field *row = &table->rows[i];
        const char *member = (const char *)object + row->offset;
        if (row->type == FIELD_TEXT)
            hash = hash_mix(hash, member, strlen(member));
        else if (widths[row->type] > 0)
            hash = hash_mix(hash, member, widths[row->type]);
    }
    return hash;
}
