/* A row of a table of runs as its cells say it, before anything is made of it. */
#ifndef TEMPER_IR_CASE_ROW_H
#define TEMPER_IR_CASE_ROW_H

#include "base/csv.h"
#include "base/error.h"
#include <stdint.h>

enum { CASE_EMPTY = -1 }; /* of a whole number; an empty real is NAN, an empty text "" */

/* Texts are borrowed from the table. Units as the columns have them: s, tokens/s, GiB,
 * J. A column that the table does not have is empty in every row. */
struct case_row {
    const char *source, *model, *gpu, *recompute, *precision, *notes, *framework, *network;
    const char *partition;
    int64_t layers, hidden, heads, kv_heads, ffn, vocab, seq, experts, topk;
    int64_t gpus, gpus_per_node, tp, pp, vp, cp, ep, dp, zero, seqpar, mbs, gbs, plan;
    int64_t fused_attention, fused_cross_entropy;
    int64_t overlap_gradients, overlap_parameters, overlap_tensor;
    double iter_time_s, tokens_s_gpu, mem_gib, iter_energy_j;
};

enum { CASE_COLUMNS_MAX = 48 };

/* Where the columns stand in a table. */
struct case_columns {
    bool is_there[CASE_COLUMNS_MAX];
    size_t place[CASE_COLUMNS_MAX];
};

/* STATUS_INVALID names a column that every table has and this one does not. */
enum status case_columns_find(const struct csv_table *table, const char *path,
                              struct case_columns *out, struct error *err);
/* STATUS_INVALID by file, line and column for what is no number, not whole or out of range. */
enum status case_row_read(const struct csv_table *table, const struct case_columns *columns,
                          size_t index, const char *path, struct case_row *out, struct error *err);

#endif
