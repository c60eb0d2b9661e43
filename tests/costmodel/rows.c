#include "rows.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

struct measurement *add_row(struct rows *rows, struct measurement row)
{
    assert_true(rows->count < ROWS_MAX);
    rows->items[rows->count] = row;
    return &rows->items[rows->count++];
}

static void add_mode_rows(struct rows *rows, struct measurement row, double forward_s)
{
    for (row.micro_batch = 1; row.micro_batch <= 4; row.micro_batch += 3) {
        double seconds = forward_s * (double)row.micro_batch;
        const struct {
            enum metric metric;
            double mean;
        } figures[] = {{METRIC_FORWARD_S, seconds},
                       {METRIC_BACKWARD_S, 2 * seconds},
                       {METRIC_FORWARD_J, 10 * seconds},
                       {METRIC_BACKWARD_J, 20 * seconds}};
        for (size_t i = 0; i < 4; i++) {
            row.metric = figures[i].metric;
            row.mean = figures[i].mean;
            add_row(rows, row);
        }
    }
}

static void add_kind_rows(struct rows *rows, const struct model *model, enum layer_kind kind,
                          struct placement placement)
{
    char key[LAYER_KEY_BYTES];
    struct measurement row = {.ranks = placement.ranks, .threads = placement.threads};
    (void)snprintf(row.subject, sizeof(row.subject), "%s", layer_key(model, kind, key));
    for (int p = 0; p < PRECISION_COUNT; p++) {
        row.precision = (enum precision)p;
        row.recompute = RECOMPUTE_NONE;
        row.micro_batch = 0;
        row.metric = METRIC_OPTIMIZER_S;
        row.mean = 0.01 * (1 + p);
        add_row(rows, row);
        row.metric = METRIC_OPTIMIZER_J;
        row.mean = 0.1 * (1 + p);
        add_row(rows, row);
        for (int r = 0; r < RECOMPUTE_COUNT; r++) {
            row.recompute = (enum recompute)r;
            if (layer_admits_precision(kind, row.precision) &&
                layer_admits_recompute(kind, row.recompute))
                add_mode_rows(rows, row, 0.001 * (1 + (int)kind));
        }
    }
}

void add_model_rows(struct rows *rows, const struct model *model, struct placement placement)
{
    struct measurement row = {
        .subject = "machine", .ranks = placement.ranks, .threads = placement.threads};
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        add_kind_rows(rows, model, (enum layer_kind)kind, placement);
    row.metric = METRIC_PROCESS_BYTES;
    row.mean = 1e6;
    row.deviation = 1e4;
    add_row(rows, row);
    row.deviation = 0;
    row.metric = METRIC_STEP_OVERHEAD_S;
    row.mean = 0.005;
    add_row(rows, row);
    row.metric = METRIC_OVERLAP;
    row.mean = 0.75;
    add_row(rows, row);
    row.metric = METRIC_ACTIVE_W;
    row.mean = 50;
    add_row(rows, row);
    (void)snprintf(row.subject, sizeof(row.subject), "all-reduce");
    row.metric = METRIC_LINK_S;
    for (row.bytes = 1000; row.bytes <= 1000000; row.bytes *= 1000) {
        row.mean = 1e-4 + 1e-9 * (double)row.bytes;
        add_row(rows, row);
    }
}

struct profile *open_rows(const struct rows *rows)
{
    struct profile *profile = NULL;
    struct error err;
    if (profile_from_rows(&profile, rows->items, rows->count, "testhost", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return profile;
}

struct model small_model(void)
{
    return (struct model){.name = "small",
                          .family = MODEL_GPT2,
                          .blocks = 2,
                          .hidden = 48,
                          .heads = 3,
                          .kv_heads = 3,
                          .head_dim = 16,
                          .ffn = 192,
                          .vocab = 101,
                          .positions = 24,
                          .seq_length = 24,
                          .norm_epsilon = 1e-5,
                          .tied_head = true};
}
