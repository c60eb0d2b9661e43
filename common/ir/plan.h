/* A plan: how to run one training step of one model, and what it is predicted to cost.
 * JSON form in docs/plan.md. */
#ifndef TEMPER_IR_PLAN_H
#define TEMPER_IR_PLAN_H

#include "base/error.h"
#include "base/text.h"
#include "ir/layer.h"
#include "ir/model.h"
#include "ir/quantity.h"
#include "ir/schedule.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PLAN_VERSION = 3, PLAN_PINS_BYTES = 256 };

/* How one layer is split, kept and computed. */
struct layer_strategy {
    int stage;              /* virtual stage, 0 .. pipeline * virtual_stages - 1, rising */
    int tensor_parallel;    /* t: ranks that share the layer; divides the plan's */
    bool sequence_parallel; /* with t > 1: norms and residual stream are split along the tokens */
    int zero_stage;         /* 0 .. 3, over the layer's data-parallel ranks */
    enum recompute recompute;
    enum precision precision;
    enum attention_kernel attention; /* of attention layers; else plain */
};

struct layer_precision_mode strategy_mode(const struct layer_strategy *strategy);
/* Alike in all but the stage. */
bool strategy_equal(const struct layer_strategy *a, const struct layer_strategy *b);

/* Ranks that hold the same tokens of the residual stream before and after a layer: 1 under sequence
 * parallelism, else its tensor-parallel degree. */
int strategy_spread(const struct layer_strategy *strategy);

/* As what the gradients of matrices are stored, added up over micro-batches and ranks, and sent:
 * with bf16 in that, of the layers that layer_gradient_precision (ir/state.h) names. Each sum is
 * made in fp32 and rounded when it is stored. */
enum gradient_reduction { GRADIENTS_FP32, GRADIENTS_BF16, GRADIENT_REDUCTION_COUNT };
const char *gradient_reduction_name(enum gradient_reduction reduction); /* "fp32", "bf16" */

/* The terms of a prediction (and of a measurement of the same things). */
enum memory_term {
    MEMORY_PARAMETERS, /* fp32 master weights and 16-bit copies */
    MEMORY_GRADIENTS,
    MEMORY_OPTIMIZER,   /* AdamW's two moments */
    MEMORY_ACTIVATIONS, /* saved buffers and boundaries of all micro-batches in flight */
    MEMORY_SCRATCH,     /* what layers need while they work, and ZeRO's rings */
    MEMORY_PROCESS,     /* code, libraries, MPI, BLAS buffers: measured when profiling */
    MEMORY_TERM_COUNT
};
const char *memory_term_name(enum memory_term term);

struct layer_prediction {
    struct quantity time_s[PHASE_COUNT];   /* of a whole step, all micro-batches, one rank */
    struct quantity energy_j[PHASE_COUNT]; /* of a whole step, all ranks */
    uint64_t saved_bytes;                  /* activations kept for backward, with the boundary */
    uint64_t scratch_bytes;
    uint64_t static_bytes; /* parameters, gradients, optimizer state */
};

/* Predicted cost of one training step. */
struct prediction {
    struct quantity time_s; /* step time: the sum of the phases */
    struct quantity phase_time_s[PHASE_COUNT];
    struct quantity memory_bytes; /* peak of the fullest rank: the sum of the terms */
    struct quantity memory_term_bytes[MEMORY_TERM_COUNT];
    struct quantity energy_j; /* of all ranks and the idle machine under them */
    struct quantity phase_energy_j[PHASE_COUNT];
    struct layer_prediction *layers; /* [layer_count], owned; NULL in an empty prediction */
    size_t layer_count;
};

/* Frees what the struct owns and zeroes it. */
void prediction_clear(struct prediction *prediction);

enum plan_status { PLAN_OPTIMAL, PLAN_GAP, PLAN_PREDICTED };
const char *plan_status_name(enum plan_status status); /* "optimal", "gap", "predicted" */

struct plan_objective {
    double weight_time, weight_memory, weight_energy;
    bool raw;           /* weights multiply s, GiB, J; else shares of the best of each alone */
    double time_unit_s; /* T is divided by this: the best of it alone, or 1 */
    double memory_unit_bytes; /* likewise; 1 GiB when raw */
    double energy_unit_j;     /* likewise; 0 when energy is absent */
    double value;             /* of this plan */
    double bound;             /* no plan of the searched space is below this */
    double gap;               /* (value - bound) / value, 0 for a proven optimum */
};

struct plan {
    struct model model;
    int ranks;              /* processes: pipeline * data_parallel * tensor_parallel; ir/mesh.h */
    int data_parallel;      /* dp: replicas of the model */
    int tensor_parallel;    /* T: ranks of a replica in each stage; the largest t of any layer */
    int pipeline;           /* p: stages */
    int virtual_stages;     /* v: chunks of each stage; 1 but for interleaved */
    enum schedule schedule; /* of more than one stage; 1f1b with one */
    enum gradient_reduction gradient_reduction;
    int threads;               /* compute threads of each rank */
    int64_t global_batch;      /* sequences a step, all ranks */
    int64_t micro_batch;       /* sequences a micro-batch, one replica */
    int64_t micro_batches;     /* a step and replica: global = micro_batch * micro_batches * dp */
    uint64_t memory_cap_bytes; /* of one rank; 0: none */
    struct layer_strategy *layers; /* [layer_count], owned */
    size_t layer_count;
    enum plan_status status;
    struct plan_objective objective;
    struct prediction prediction;
    char pins[PLAN_PINS_BYTES]; /* what the user fixed, as given */
    char model_hash[17];        /* of the model it was made for */
    char profile_hash[17];      /* of the measurements it was computed from */
    char host[64];              /* whose measurements */
    int64_t created_unix_ms;
};

void plan_clear(struct plan *plan);
/* Deep copy. */
enum status plan_copy(struct plan *out, const struct plan *plan, struct error *err);

/* Every relation between the fields; messages name `where` and the key. */
enum status plan_validate(const struct plan *plan, const char *where, struct error *err);

enum status plan_write_json(const struct plan *plan, struct text *out, struct error *err);
enum status plan_save(const struct plan *plan, const char *path, struct error *err);
/* A newer version, another format, a broken relation: an error by file and key. */
enum status plan_load(struct plan *out, const char *path, struct error *err);
enum status plan_parse(struct plan *out, const char *json_text, const char *name,
                       struct error *err);
uint64_t plan_hash(const struct plan *plan); /* of all but the prediction, the creation time and the
                                                model's name */

/* A replica's micro-batch, b sequences; what a layer of it sees is mesh_shape. */
struct micro_batch_shape plan_shape(const struct plan *plan);
struct schedule_shape plan_schedule(const struct plan *plan);
/* Does any layer compute in fp16, so that losses are scaled? */
bool plan_has_fp16(const struct plan *plan);
/* bf16 where more than half of the layers have it, else fp32: what a run's matrix-product rate is
 * of. */
enum precision plan_main_precision(const struct plan *plan);

#endif
