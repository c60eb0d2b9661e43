/* Measurements with figures that are easy to check by hand. */
#ifndef TEMPER_TESTS_COSTMODEL_ROWS_H
#define TEMPER_TESTS_COSTMODEL_ROWS_H

#include "costmodel/profile.h"
#include "ir/model.h"

enum { ROWS_MAX = 512 };

struct rows {
    struct measurement items[ROWS_MAX];
    size_t count;
};

struct measurement *add_row(struct rows *rows, struct measurement row);
/* For every kind and mode of `model`: forward 0.001 (1 + kind) b, backward twice that, optimizer
 * 0.01 (bf16 copy 0.02), joules 10 times the seconds, at micro-batches 1 and 4; process 1e6 +- 1e4
 * bytes, overhead 0.005 s, overlap 0.75, 50 W; all-reduce 1e-4 s + 1e-9 s per byte at 1e3 and 1e6
 * bytes. */
void add_model_rows(struct rows *rows, const struct model *model, struct placement placement);
struct profile *open_rows(const struct rows *rows);
struct model small_model(void);

#endif
