/* Tables of a struct's members: one row serves writing, strict reading, range checks and hashing.
 *
 * An object in a file has exactly the keys of its table: a missing key, a key of another type, a
 * value out of range and a key that the table does not know are errors that name file and key. */
#ifndef TEMPER_IR_FIELDS_H
#define TEMPER_IR_FIELDS_H

#include "base/error.h"
#include "base/json.h"
#include "ir/names.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum field_type {
    FIELD_INT,        /* int, in [minimum, maximum] */
    FIELD_INT64,      /* int64_t, in [minimum, maximum] */
    FIELD_BYTES,      /* uint64_t, in [minimum, maximum] */
    FIELD_REAL,       /* double */
    FIELD_BOOL,       /* bool */
    FIELD_TEXT,       /* char[capacity] */
    FIELD_NAME,       /* an enum, written as its name in `names` */
    FIELD_QUANTITY,   /* struct quantity; an absent one has null as value and deviation */
    FIELD_QUANTITIES, /* struct quantity[names->count], an object with one member a name */
};

struct field {
    const char *key;
    enum field_type type;
    size_t offset; /* in the struct */
    int64_t minimum, maximum;
    size_t capacity;
    const struct name_list *names;
    bool optional; /* absent or null leaves the member as it was */
};

struct field_table {
    const struct field *rows;
    size_t count;
};

/* A row for `member_` of `object_`; what follows is the type and then designated initialisers. */
#define FIELD_ROW(object_, key_, member_, ...)                                                     \
    {                                                                                              \
        .key = (key_), .offset = offsetof(object_, member_), .type = __VA_ARGS__                   \
    }
#define FIELD_RANGE(minimum_, maximum_) .minimum = (minimum_), .maximum = (maximum_)

void fields_write(const struct field_table *table, const void *object, struct jout *out);
enum status fields_read(const struct field_table *table, const struct jin *at, void *object,
                        struct error *err);
/* STATUS_INVALID "WHERE: key 'PREFIXkey': ..." for the first integer out of its range. */
enum status fields_check(const struct field_table *table, const void *object, const char *where,
                         const char *prefix, struct error *err);
/* `hash` mixed with the values of all rows but quantities. */
uint64_t fields_hash(const struct field_table *table, const void *object, uint64_t hash);

/* Every member of the object is in `table` or in `others` (NULL-terminated; NULL: none). */
enum status keys_check(const struct field_table *table, const char *const *others,
                       const struct jin *at, struct error *err);

/* The object's "format" is `format` and its "version" is 1 to `version`. */
enum status format_check(const struct jin *at, const char *format, int64_t version,
                         struct error *err);

uint64_t hash_mix(uint64_t hash, const void *data, size_t bytes);

#endif
