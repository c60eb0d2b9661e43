#include "ir/case_row.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum cell_type { CELL_TEXT, CELL_COUNT, CELL_REAL };

struct column {
    const char *name;
    enum cell_type type;
    size_t offset; /* in struct case_row */
    bool is_optional;
    int64_t minimum, maximum; /* of a count */
};

/* clang-format off */
#define CELL(name_, type_, ...) \
    {.name = #name_, .type = (type_), .offset = offsetof(struct case_row, name_), __VA_ARGS__}
#define TEXT(name_, ...)  CELL(name_, CELL_TEXT, __VA_ARGS__)
#define REAL(name_, ...)  CELL(name_, CELL_REAL, __VA_ARGS__)
#define COUNT(name_, ...) CELL(name_, CELL_COUNT, __VA_ARGS__)
#define NEEDED            .is_optional = false
#define OPTIONAL          .is_optional = true
#define FROM_1            .minimum = 1, .maximum = INT32_MAX
#define UP_TO(maximum_)   .minimum = 0, .maximum = (maximum_)

static const struct column columns[] = {
    TEXT(source, NEEDED), TEXT(model, NEEDED), TEXT(gpu, NEEDED), TEXT(notes, NEEDED),
    COUNT(gpus, FROM_1), COUNT(tp, FROM_1), COUNT(pp, FROM_1), COUNT(dp, FROM_1),
    COUNT(mbs, FROM_1), COUNT(gbs, FROM_1), REAL(iter_time_s, NEEDED),
    /* what a known system or model says where the table does not */
    COUNT(layers, FROM_1, OPTIONAL), COUNT(hidden, FROM_1, OPTIONAL),
    COUNT(heads, FROM_1, OPTIONAL), COUNT(kv_heads, FROM_1, OPTIONAL),
    COUNT(ffn, FROM_1, OPTIONAL), COUNT(vocab, FROM_1, OPTIONAL), COUNT(seq, FROM_1, OPTIONAL),
    COUNT(vp, FROM_1, OPTIONAL), COUNT(cp, FROM_1, OPTIONAL), COUNT(zero, UP_TO(3), OPTIONAL),
    COUNT(seqpar, UP_TO(1), OPTIONAL), TEXT(recompute, OPTIONAL), TEXT(precision, OPTIONAL),
    REAL(tokens_s_gpu, OPTIONAL), REAL(mem_gib, OPTIONAL), REAL(iter_energy_j, OPTIONAL),
    TEXT(partition, OPTIONAL), COUNT(plan, UP_TO(INT32_MAX), OPTIONAL),
    COUNT(experts, UP_TO(INT32_MAX), OPTIONAL), COUNT(topk, FROM_1, OPTIONAL),
    COUNT(ep, FROM_1, OPTIONAL),
    COUNT(gpus_per_node, FROM_1, OPTIONAL),
    TEXT(framework, OPTIONAL), TEXT(network, OPTIONAL),
    COUNT(fused_attention, UP_TO(1), OPTIONAL), COUNT(fused_cross_entropy, UP_TO(1), OPTIONAL),
    COUNT(overlap_gradients, UP_TO(1), OPTIONAL), COUNT(overlap_parameters, UP_TO(1), OPTIONAL),
    COUNT(overlap_tensor, UP_TO(1), OPTIONAL),
};
/* clang-format on */
enum { COLUMN_COUNT = sizeof(columns) / sizeof(columns[0]) };

enum status case_columns_find(const struct csv_table *table, const char *path,
                              struct case_columns *out, struct error *err)
{
    static_assert((int)COLUMN_COUNT <= (int)CASE_COLUMNS_MAX, "struct case_columns holds them all");
    struct case_columns found = {0};
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        found.is_there[i] = csv_column(table, columns[i].name, &found.place[i]);
        if (!found.is_there[i] && !columns[i].is_optional)
            return error_set(err, STATUS_INVALID,
                             "%s: column '%s' is missing: this is no table of training runs", path,
                             columns[i].name);
    }
    *out = found;
    return STATUS_OK;
}

/* Where a cell stands, for messages. */
struct place {
    const char *path, *column;
    size_t line;
};

static enum status wrong(const struct place *place, const char *cell, const char *expected,
                         struct error *err)
{
    return error_set(err, STATUS_INVALID, "%s: line %zu: column '%s': expected %s, found '%.60s'",
                     place->path, place->line, place->column, expected, cell);
}

/* A decimal number alone: strtod would also take blanks, "0x1p3", "inf" and "nan". */
static enum status read_number(const char *cell, const struct place *place, double *out,
                               struct error *err)
{
    char *end = NULL;
    size_t bytes = strlen(cell);
    errno = 0;
    double value = strtod(cell, &end);
    if (strspn(cell, "0123456789.eE+-") != bytes || *end != '\0' || end == cell || !isfinite(value))
        return wrong(place, cell, "a number", err);
    *out = value;
    return STATUS_OK;
}

static enum status read_count(const char *cell, const struct column *column,
                              const struct place *place, int64_t *out, struct error *err)
{
    double value = CASE_EMPTY;
    if (cell[0] != '\0') {
        TRY(read_number(cell, place, &value, err));
        if (value != floor(value) || value < (double)column->minimum ||
            value > (double)column->maximum)
            return error_set(err, STATUS_INVALID,
                             "%s: line %zu: column '%s': expected a whole number from %lld to "
                             "%lld, found '%.60s'",
                             place->path, place->line, place->column, (long long)column->minimum,
                             (long long)column->maximum, cell);
    }
    *out = (int64_t)value;
    return STATUS_OK;
}

static enum status read_real(const char *cell, const struct place *place, double *out,
                             struct error *err)
{
    double value = NAN;
    if (cell[0] != '\0') {
        TRY(read_number(cell, place, &value, err));
        if (!(value > 0))
            return wrong(place, cell, "a number above 0", err);
    }
    *out = value;
    return STATUS_OK;
}

static enum status read_cell(const char *cell, const struct column *column,
                             const struct place *place, struct case_row *out, struct error *err)
{
    void *member = (char *)out + column->offset;
    switch (column->type) {
    case CELL_COUNT:
        return read_count(cell, column, place, member, err);
    case CELL_REAL:
        return read_real(cell, place, member, err);
    case CELL_TEXT:
        break;
    }
    memcpy(member, &cell, sizeof(cell));
    return STATUS_OK;
}

enum status case_row_read(const struct csv_table *table, const struct case_columns *found,
                          size_t index, const char *path, struct case_row *out, struct error *err)
{
    struct case_row row = {0};
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        const char *cell = found->is_there[i] ? csv_cell(table, index, found->place[i]) : "";
        struct place place = {path, columns[i].name, table->lines[index]};
        TRY(read_cell(cell, &columns[i], &place, &row, err));
    }
    *out = row;
    return STATUS_OK;
}
