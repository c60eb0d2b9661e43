#include "rows.h"
#include "ir/mesh.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct rows shared_rows;

bool near(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fmax(fabs(a), fabs(b));
}

struct measurement *add_row(struct rows *rows, struct measurement row)
{
    assert_true(rows->count < ROWS_MAX);
    rows->items[rows->count] = row;
    return &rows->items[rows->count++];
}

/* ---- layers ---- */

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

static void add_part_rows(struct rows *rows, const struct model *model,
                          const struct layer_part *part, struct placement placement)
{
    char key[LAYER_KEY_BYTES];
    struct measurement row = {.ranks = placement.ranks, .threads = placement.threads};
    layer_part_key(model, part, key);
    assert_true(strlen(key) < sizeof(row.subject));
    memcpy(row.subject, key, strlen(key) + 1);
    for (int p = 0; p < PRECISION_COUNT; p++) {
        row.precision = (enum precision)p;
        row.recompute = RECOMPUTE_NONE;
        row.micro_batch = 0;
        row.metric = METRIC_OPTIMIZER_S;
        row.mean = p == PRECISION_FP32 ? 0.01 : 0.02;
        add_row(rows, row);
        row.metric = METRIC_OPTIMIZER_J;
        row.mean *= 10;
        add_row(rows, row);
        for (int r = 0; r < RECOMPUTE_COUNT; r++) {
            row.recompute = (enum recompute)r;
            if (layer_admits_precision(part->kind, row.precision) &&
                layer_admits_recompute(part->kind, row.recompute))
                add_mode_rows(rows, row, 0.001 * (1 + (int)part->kind) / part->ways);
        }
    }
}

static void add_kind_rows(struct rows *rows, const struct model *model, enum layer_kind kind,
                          struct placement placement)
{
    for (int ways = 1; ways <= 4; ways *= 2) {
        for (int variant = 0; variant < 4; variant++) {
            struct layer_part part = layer_whole(kind);
            part.ways = ways;
            part.sequence_parallel = variant & 1;
            part.owns_table = variant & 2;
            if ((ways > 1 || !part.sequence_parallel) &&
                (!part.owns_table || (kind == LAYER_HEAD && model->tied_head)))
                add_part_rows(rows, model, &part, placement);
        }
    }
}

/* ---- links ---- */

double link_s(enum collective collective, int ways, int apart, double bytes)
{
    static const double latency_s[COLLECTIVE_COUNT] = {
        [COLLECTIVE_ALL_REDUCE] = 1e-4,
        [COLLECTIVE_ALL_GATHER] = 2e-5,
        [COLLECTIVE_REDUCE_SCATTER] = 3e-5,
        [COLLECTIVE_POINT_TO_POINT] = 1e-5,
    };
    static const double byte_s[COLLECTIVE_COUNT] = {
        [COLLECTIVE_ALL_REDUCE] = 1e-9,
        [COLLECTIVE_ALL_GATHER] = 5e-10,
        [COLLECTIVE_REDUCE_SCATTER] = 4e-10,
        [COLLECTIVE_POINT_TO_POINT] = 1e-10,
    };
    return (latency_s[collective] + byte_s[collective] * bytes) * (1 + 0.1 * ways + 0.01 * apart);
}

static void add_link_rows(struct rows *rows, struct placement placement)
{
    struct measurement row = {
        .metric = METRIC_LINK_S, .ranks = placement.ranks, .threads = placement.threads};
    /* Not the tensor-parallel ones: those that stand for them are there. */
    for (int collective = 0; collective <= COLLECTIVE_POINT_TO_POINT; collective++) {
        for (int ways = 2; ways <= 8; ways *= 2) {
            for (int apart = 1; apart <= 8; apart++) {
                struct collective_group group = {ways, apart};
                collective_subject((enum collective)collective, group, row.subject);
                if (collective == COLLECTIVE_POINT_TO_POINT && ways != 2)
                    continue;
                for (row.bytes = 1000; row.bytes <= 1000000; row.bytes *= 1000) {
                    row.mean = link_s((enum collective)collective, ways, apart, (double)row.bytes);
                    add_row(rows, row);
                }
            }
        }
    }
}

void add_model_rows(struct rows *rows, const struct model *model, struct placement placement)
{
    static const struct {
        enum metric metric;
        double mean;
    } figures[] = {{METRIC_STEP_OVERHEAD_S, 0.005},
                   {METRIC_OVERLAP, 0.75},
                   {METRIC_ACTIVE_W, 50},
                   {METRIC_IDLE_W, 20}};
    struct measurement row = {.subject = "machine",
                              .metric = METRIC_PROCESS_BYTES,
                              .ranks = placement.ranks,
                              .threads = placement.threads,
                              .mean = 1e6,
                              .deviation = 1e4};
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        add_kind_rows(rows, model, (enum layer_kind)kind, placement);
    add_row(rows, row);
    row.deviation = 0;
    for (size_t i = 0; i < sizeof(figures) / sizeof(*figures); i++) {
        row.metric = figures[i].metric;
        row.mean = figures[i].mean;
        add_row(rows, row);
    }
    add_link_rows(rows, placement);
}

struct profile *open_rows(const struct rows *rows)
{
    struct profile *profile = NULL;
    struct error err;
    if (profile_from_rows(&profile, rows->items, rows->count, "testhost", &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return profile;
}

/* ---- plans ---- */

struct model small_model(void)
{
    return (struct model){.name = "small",
                          .family = MODEL_GPT2,
                          .blocks = 2,
                          .hidden = 48,
                          .heads = 4,
                          .kv_heads = 4,
                          .head_dim = 12,
                          .ffn = 192,
                          .vocab = 101,
                          .positions = 24,
                          .seq_length = 24,
                          .norm_epsilon = 1e-5,
                          .tied_head = true};
}

static int or_one(int degree)
{
    return degree > 0 ? degree : 1;
}

void open_setting(struct setting *out, struct degrees degrees)
{
    int data = or_one(degrees.data), tensor = or_one(degrees.tensor);
    int pipeline = or_one(degrees.pipeline), virtual_stages = or_one(degrees.virtual_stages);
    *out = (struct setting){
        .plan = {.model = small_model(),
                 .ranks = data * tensor * pipeline,
                 .data_parallel = data,
                 .tensor_parallel = tensor,
                 .pipeline = pipeline,
                 .virtual_stages = virtual_stages,
                 .schedule = pipeline > 1 ? degrees.schedule : SCHEDULE_1F1B,
                 .threads = 1,
                 .global_batch = 12 * data,
                 .micro_batch = 4,
                 .micro_batches = 3,
                 .layer_count = LAYERS,
                 .status = PLAN_PREDICTED},
    };
    out->plan.model.tied_head = !degrees.untied;
    out->plan.layers = out->layers;
    for (int i = 0; i < LAYERS; i++)
        out->layers[i] = (struct layer_strategy){.stage = i * pipeline * virtual_stages / LAYERS,
                                                 .tensor_parallel = tensor};
    shared_rows.count = 0;
    add_model_rows(&shared_rows, &out->plan.model, (struct placement){out->plan.ranks, 1});
    out->profile = open_rows(&shared_rows);
}

static void reopen(struct setting *setting)
{
    profile_close(setting->profile);
    setting->profile = open_rows(&shared_rows);
}

void drop_rows(struct setting *setting, enum metric metric, const char *subject)
{
    for (size_t i = 0; i < shared_rows.count; i++) {
        struct measurement *row = &shared_rows.items[i];
        if (row->metric == metric && (!subject || strcmp(row->subject, subject) == 0))
            row->provenance = PROVENANCE_ABSENT;
    }
    reopen(setting);
}

void drop_precision(struct setting *setting, enum metric metric, enum precision precision)
{
    for (size_t i = 0; i < shared_rows.count; i++) {
        struct measurement *row = &shared_rows.items[i];
        if (row->metric == metric && row->precision == precision)
            row->provenance = PROVENANCE_ABSENT;
    }
    reopen(setting);
}

void set_value(struct setting *setting, enum metric metric, double value)
{
    for (size_t i = 0; i < shared_rows.count; i++) {
        if (shared_rows.items[i].metric == metric)
            shared_rows.items[i].mean = value;
    }
    reopen(setting);
}

void add_value(struct setting *setting, enum metric metric, enum precision precision, double value)
{
    add_row(&shared_rows, (struct measurement){.subject = "machine",
                                               .metric = metric,
                                               .precision = precision,
                                               .ranks = setting->plan.ranks,
                                               .threads = setting->plan.threads,
                                               .mean = value});
    reopen(setting);
}

void add_layer_value(struct setting *setting, size_t layer, enum metric metric, double value)
{
    const struct layer_strategy *strategy = &setting->plan.layers[layer];
    const struct layer_part part = mesh_part(&setting->plan, layer, 0);
    struct measurement row = {.metric = metric,
                              .precision = strategy->precision,
                              .recompute = strategy->recompute,
                              .micro_batch = mesh_shape(&setting->plan, layer).sequences,
                              .ranks = setting->plan.ranks,
                              .threads = setting->plan.threads,
                              .mean = value};
    char key[LAYER_KEY_BYTES];
    (void)snprintf(row.subject, sizeof(row.subject), "%s",
                   layer_part_key(&setting->plan.model, &part, key));
    add_row(&shared_rows, row);
    reopen(setting);
}

void close_setting(struct setting *setting)
{
    profile_close(setting->profile);
    setting->profile = NULL;
}

void check_plan(const struct setting *setting)
{
    struct error err;
    if (plan_validate(&setting->plan, "the test's plan", &err) != STATUS_OK)
        fail_msg("%s", err.message);
}
