/* Trains a model as a plan says: micro-batches, gradient reduction over the ranks, the update.
 *
 * The same seed and global batch give the same training whatever the plan: weights and data order
 * come from (seed, index) alone, and the loss of a step is the mean over all tokens of the global
 * batch. Every call is collective over the ranks of `comm`.
 *
 * trainer_open and what loads and saves fail alike at all ranks. In a step or an evaluation a rank
 * may fail alone, and then others wait for it: whoever called ends them (comm_abort). */
#ifndef TEMPER_EXECUTOR_TRAINER_H
#define TEMPER_EXECUTOR_TRAINER_H

#include "base/error.h"
#include "base/reporter.h"
#include "executor/comm/comm.h"
#include "executor/data.h"
#include "executor/ops/device.h"
#include "executor/optimizer.h"
#include "ir/event.h"
#include "ir/plan.h"

struct trainer;

/* Borrowed for the trainer's life, but for the options. */
struct trainer_setup {
    const struct plan *plan;
    struct comm *comm;
    struct device *device;
    struct dataset *dataset; /* NULL: no training, weights only */
    struct optimizer_options optimizer;
    uint64_t seed;
    int64_t skip_limit; /* this many skipped steps in a row are a failure */
    struct reporter reporter;
};

struct step_result {
    int64_t step; /* from 0 */
    double loss;  /* mean over the global batch's tokens, nats; before the update */
    double gradient_norm;
    double learning_rate;
    double seconds;
    int64_t tokens;    /* of all ranks */
    double loss_scale; /* of fp16, in this step; else 1 */
    bool skipped;      /* the gradient was not finite: weights and moments are as before */
    bool complete;     /* all ranks came to the step's end and return the same status */
};

/* Lays out all memory and initialises the weights from the seed. */
enum status trainer_open(struct trainer **out, const struct trainer_setup *setup,
                         struct error *err);
void trainer_close(struct trainer *trainer); /* NULL allowed */

/* Record what later steps do; without this nothing is recorded. */
void trainer_record(struct trainer *trainer, struct event_sink sink);

uint64_t trainer_layout_bytes(const struct trainer *trainer);
/* Bytes of activations that were in use at some time: for each layer the most micro-batches that it
 * held at once, and the streams. After a step this is all that the layout keeps for activations. */
uint64_t trainer_peak_activation_bytes(const struct trainer *trainer);
/* Of a region of the layout. */
uint64_t trainer_term_bytes(const struct trainer *trainer, enum memory_term term);
int64_t trainer_step_count(const struct trainer *trainer);    /* steps done */
int64_t trainer_skipped_count(const struct trainer *trainer); /* of them skipped */

/* Weights from HF safetensors; the moments stay zero. */
enum status trainer_load_weights(struct trainer *trainer, const char *path, struct error *err);
/* A checkpoint of this model, and where its run stood. A checkpoint of another seed or global batch
 * is continued with a warning: the data order then differs from the run that wrote it. */
enum status trainer_load_checkpoint(struct trainer *trainer, const char *path, struct error *err);
/* Each rank writes tensors that it owns a part of; every rank learns whether it worked. */
enum status trainer_save_checkpoint(struct trainer *trainer, const char *folder, int64_t keep,
                                    struct error *err);

/* One training step. STATUS_FAILED when skip_limit steps in a row were skipped. */
enum status trainer_step(struct trainer *trainer, struct step_result *out, struct error *err);
/* Mean loss over `windows` windows of the validation split (0: all that do not overlap). */
enum status trainer_evaluate(struct trainer *trainer, int64_t windows, double *loss,
                             struct error *err);

#endif
