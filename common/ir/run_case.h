/* Measured training runs, one a line of a CSV file: what temper validate predicts. The columns and
 * the rules by which a row becomes a model, a cluster and a layout are in docs/validate.md. */
#ifndef TEMPER_IR_RUN_CASE_H
#define TEMPER_IR_RUN_CASE_H

#include "ir/layout.h"
#include "ir/model.h"
#include "ir/quantity.h"

enum { CASE_TEXT_BYTES = 256 };

struct run_case {
    size_t line; /* in the file, from 1 */
    struct model model;
    struct cluster cluster; /* one group of layout.devices devices */
    struct layout layout;
    struct block_plan *blocks; /* owned by the table: layout.own; NULL: stages share out evenly */
    struct quantity step_s;    /* measured, or derived from tokens/s; absent */
    struct quantity memory_bytes;  /* of the fullest device; absent */
    struct quantity energy_j;      /* of all devices in a step; absent */
    bool memory_of_allocator;      /* memory_bytes leaves out what lies outside the framework's
                                      allocator (MEMORY_PROCESS) */
    bool out_of_memory;            /* the run failed for it */
    char name[CASE_TEXT_BYTES];    /* "megatron-22B, 8 x A100-80GB, tp 8 pp 1 dp 1 mb 4" */
    char skipped[CASE_TEXT_BYTES]; /* why the row cannot be predicted, naming the column; empty: it
                                      can. Model, cluster and layout are valid in that case only */
};

struct run_cases {
    char name[CASE_TEXT_BYTES]; /* the file's, without folder and ".csv" */
    struct run_case *rows;      /* [count], owned */
    size_t count;
};

/* `described`: rows of the device of its first group are predicted on it, in as many nodes as they
 * need, and rows of other devices are skipped; NULL: every row on the built-in description of its
 * device. Either way nodes are joined by the network of the row's system, where that is known to be
 * another one. A row that lacks a value is kept with `skipped` set, never guessed. STATUS_INVALID
 * for a file that is no such table (a column that every table has is missing, a row of another
 * length, text where a number is due), by file, line and column. */
enum status run_cases_load(struct run_cases *out, const char *path, const struct cluster *described,
                           struct error *err);
void run_cases_free(struct run_cases *cases);

/* `cluster` cut or grown to `devices` of its first group: whole nodes, or a part of one. False:
 * more than a node, and no whole number of them; or more than it has, and only one tier of links,
 * so that nothing says what would join them. */
bool cluster_resized(const struct cluster *cluster, int64_t devices, struct cluster *out);

#endif
