/* Measurements with figures that are easy to check by hand, and plans to cost with them. */
#ifndef TEMPER_TESTS_COSTMODEL_ROWS_H
#define TEMPER_TESTS_COSTMODEL_ROWS_H

#include "costmodel/collective.h"
#include "costmodel/profile.h"
#include "ir/model.h"
#include "ir/plan.h"

enum { ROWS_MAX = 8192 };

struct rows {
    struct measurement items[ROWS_MAX];
    size_t count;
};

bool near(double a, double b); /* but for rounding */

struct measurement *add_row(struct rows *rows, struct measurement row);
/* For every kind, mode and part (1, 2 and 4 ways) of `model`: forward 0.001 (1 + kind) b / ways,
 * backward twice that, optimizer 0.01 (16 bit: 0.02), joules 10 times the seconds, at micro-batches
 * 1 and 4; process 1e6 +- 1e4 bytes, overhead 0.005 s, overlap 0.75, 50 W at work and 20 W idle;
 * link_s at 1e3 and 1e6 bytes for every group of at most 8 ranks. */
void add_model_rows(struct rows *rows, const struct model *model, struct placement placement);
/* Seconds that add_model_rows gives a collective: different for each kind and group. */
double link_s(enum collective collective, int ways, int apart, double bytes);
struct profile *open_rows(const struct rows *rows);
/* gpt2, 2 blocks (6 layers), hidden 48, 4 heads, ffn 192, vocab 101, 24 tokens, tied head. */
struct model small_model(void);

enum { LAYERS = 6 };

/* A plan of the small model: micro-batches of 4 sequences, 3 a step, and a profile of its
 * placement. */
struct setting {
    struct plan plan;
    struct layer_strategy layers[LAYERS];
    struct profile *profile;
};

struct degrees {
    int data, tensor, pipeline, virtual_stages; /* 0: 1 */
    enum schedule schedule;                     /* of more than one stage */
    bool untied;
};

/* Every layer is shared by all tensor-parallel ranks, in fp32; stages are cut as evenly as they can
 * be. */
void open_setting(struct setting *out, struct degrees degrees);
/* Drop the rows of a metric, or those under a subject (NULL: none), and open the profile again. */
void drop_rows(struct setting *setting, enum metric metric, const char *subject);
void drop_precision(struct setting *setting, enum metric metric, enum precision precision);
/* Of every row of the metric. */
void set_value(struct setting *setting, enum metric metric, double value);
/* One more row of the machine. */
void add_value(struct setting *setting, enum metric metric, enum precision precision, double value);
/* One more row of a layer as the plan has it. */
void add_layer_value(struct setting *setting, size_t layer, enum metric metric, double value);
void close_setting(struct setting *setting);
/* The plan is valid, or the test fails. */
void check_plan(const struct setting *setting);

#endif
