#include "fixture.h"
#include "base/rng.h"
#include "costmodel/collective.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROWS_MAX = 65536 };

uint64_t roll(struct dice *dice, uint64_t bound)
{
    return rng_below(dice->seed, 1, dice->index++, bound);
}

double roll_real(struct dice *dice)
{
    return rng_uniform(dice->seed, 2, dice->index++);
}

bool roll_true(struct dice *dice, uint64_t one_in)
{
    return roll(dice, one_in) == 0;
}

struct model tiny_model(int64_t blocks, bool tied_head)
{
    return (struct model){.name = "tiny",
                          .family = MODEL_GPT2,
                          .blocks = blocks,
                          .hidden = 32,
                          .heads = 4,
                          .kv_heads = 4,
                          .head_dim = 8,
                          .ffn = 128,
                          .vocab = 96,
                          .positions = 16,
                          .seq_length = 16,
                          .norm_epsilon = 1e-5,
                          .tied_head = tied_head};
}

struct rows {
    struct measurement *items;
    size_t count;
    struct dice *dice;
};

static void add_row(struct rows *rows, struct measurement row, double mean)
{
    assert_true(rows->count < ROWS_MAX);
    row.mean = mean;
    row.deviation = 0.02 * mean;
    row.n = 10;
    row.provenance = PROVENANCE_MEASURED;
    rows->items[rows->count++] = row;
}

static bool is_measured(const struct profile_options *options, enum precision precision)
{
    return (precision != PRECISION_BF16 || options->bf16) &&
           (precision != PRECISION_FP16 || options->fp16);
}

static bool mode_is_measured(const struct profile_options *options, const struct measurement *row,
                             enum layer_kind kind)
{
    if (!layer_admits_precision(kind, row->precision) ||
        !layer_admits_recompute(kind, row->recompute) || !layer_admits_kernel(kind, row->attention))
        return false;
    bool is_wide = kind == LAYER_MLP || row->attention == ATTENTION_TILED;
    if (row->recompute == RECOMPUTE_SELECTIVE && is_wide && options->narrow)
        return false;
    return row->recompute == RECOMPUTE_NONE || !options->plain;
}

/* One mode of one part over all micro-batches; a part of t ranks is about t times as quick. */
static void add_mode_rows(struct rows *rows, struct measurement row, const struct layer_part *part,
                          const struct profile_options *options)
{
    for (size_t b = 0; b < options->micro_batch_count; b++) {
        row.micro_batch = options->micro_batches[b];
        double scale = 1e-3 * (double)row.micro_batch / part->ways;
        double forward = options->even ? 1 : 0.5 + roll_real(rows->dice);
        double backward = options->even ? 1 : 0.5 + roll_real(rows->dice);
        double again = options->even && row.recompute == RECOMPUTE_FULL ? scale * forward : 0;
        row.metric = METRIC_FORWARD_S;
        add_row(rows, row, scale * forward);
        row.metric = METRIC_BACKWARD_S;
        add_row(rows, row, 2 * scale * backward + again);
        row.metric = METRIC_FORWARD_J;
        if (options->energy)
            add_row(rows, row, 50 * scale * (0.5 + roll_real(rows->dice)));
        row.metric = METRIC_BACKWARD_J;
        if (options->energy)
            add_row(rows, row, 90 * scale * (0.5 + roll_real(rows->dice)));
    }
}

static void add_part_rows(struct rows *rows, const struct model *model,
                          const struct layer_part *part, struct placement placement,
                          const struct profile_options *options)
{
    for (int p = 0; p < PRECISION_COUNT; p++) {
        struct measurement row = {
            .precision = (enum precision)p, .ranks = placement.ranks, .threads = placement.threads};
        char key[LAYER_KEY_BYTES];
        if (!is_measured(options, row.precision))
            continue;
        (void)snprintf(row.subject, sizeof(row.subject), "%s", layer_part_key(model, part, key));
        row.metric = METRIC_OPTIMIZER_S;
        add_row(rows, row, 1e-3 / part->ways * roll_real(rows->dice));
        row.metric = METRIC_OPTIMIZER_J;
        if (options->energy)
            add_row(rows, row, 0.1 / part->ways * roll_real(rows->dice));
        int modes = RECOMPUTE_COUNT * (options->tiled ? ATTENTION_KERNEL_COUNT : 1);
        for (int m = 0; m < modes; m++) {
            row.recompute = (enum recompute)(m % RECOMPUTE_COUNT);
            row.attention = (enum attention_kernel)(m / RECOMPUTE_COUNT);
            if (mode_is_measured(options, &row, part->kind))
                add_mode_rows(rows, row, part, options);
        }
    }
}

static void add_kind_rows(struct rows *rows, const struct model *model, enum layer_kind kind,
                          struct placement placement, const struct profile_options *options)
{
    int widest = options->plain ? 1 : placement.ranks;
    for (int ways = 1; ways <= widest; ways++) {
        for (int sequence = 0; sequence <= (ways > 1); sequence++) {
            for (int owns = 0; owns <= (kind == LAYER_HEAD && model->tied_head); owns++) {
                const struct layer_part part = {.kind = kind,
                                                .ways = ways,
                                                .sequence_parallel = sequence != 0,
                                                .owns_table = owns != 0};
                struct error ignored;
                if (placement.ranks % ways == 0 &&
                    layer_part_check(model, &part, &ignored) == STATUS_OK)
                    add_part_rows(rows, model, &part, placement, options);
            }
        }
    }
}

static void add_link_rows(struct rows *rows, struct placement placement, enum collective collective,
                          struct collective_group group)
{
    struct measurement row = {
        .metric = METRIC_LINK_S, .ranks = placement.ranks, .threads = placement.threads};
    char subject[SUBJECT_BYTES];
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   collective_subject(collective, group, subject));
    for (row.bytes = 1024; row.bytes <= 1 << 20; row.bytes *= 32)
        add_row(rows, row, 1e-5 + 1e-9 * (double)row.bytes * (0.5 + roll_real(rows->dice)));
}

static void add_machine_rows(struct rows *rows, struct placement placement,
                             const struct profile_options *options)
{
    struct measurement row = {
        .subject = "machine", .ranks = placement.ranks, .threads = placement.threads};
    row.metric = METRIC_PROCESS_BYTES;
    for (int p = 0; p < PRECISION_COUNT; p++) {
        row.precision = (enum precision)p;
        if (is_measured(options, row.precision) && (p == 0 || roll_true(rows->dice, 2)))
            add_row(rows, row, 1e6 * (0.5 + roll_real(rows->dice)));
    }
    row.precision = PRECISION_FP32;
    row.metric = METRIC_STEP_OVERHEAD_S;
    add_row(rows, row, 1e-3 * roll_real(rows->dice));
    row.metric = METRIC_OVERLAP;
    add_row(rows, row, roll_real(rows->dice));
    row.metric = METRIC_ACTIVE_W;
    if (options->energy)
        add_row(rows, row, 20 + 80 * roll_real(rows->dice));
    row.metric = METRIC_IDLE_W;
    if (options->energy)
        add_row(rows, row, 20 * roll_real(rows->dice));
    for (int apart = 1; apart < placement.ranks; apart++) {
        for (int collective = 0; collective < COLLECTIVE_COUNT; collective++) {
            for (int ways = 2; ways <= placement.ranks; ways++)
                add_link_rows(rows, placement, (enum collective)collective,
                              (struct collective_group){ways, apart});
        }
    }
}

struct profile *random_profile(struct dice *dice, const struct model *model,
                               const struct profile_options *options)
{
    struct rows rows = {.items = calloc(ROWS_MAX, sizeof(struct measurement)), .dice = dice};
    struct profile *profile = NULL;
    struct error err;
    assert_non_null(rows.items);
    for (size_t i = 0; i < options->placement_count; i++) {
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
            add_kind_rows(&rows, model, (enum layer_kind)kind, options->placements[i], options);
        add_machine_rows(&rows, options->placements[i], options);
    }
    if (profile_from_rows(&profile, rows.items, rows.count, "testhost", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    free(rows.items);
    return profile;
}
