/* Checkpoints that do not depend on the plan: weights under HF names, AdamW's moments, where the
 * run stood. Format in docs/checkpoint.md.
 *
 * FOLDER/step-00000200/{model.safetensors, optimizer.safetensors, config.json, state.json}. Written
 * under a temporary name, synced, then renamed; only then are older ones (beyond `keep`) removed.
 */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_H
#define TEMPER_EXECUTOR_CHECKPOINT_H

#include "base/error.h"
#include "base/reporter.h"
#include "ir/model.h"
#include <stdbool.h>
#include <stdint.h>

enum { CHECKPOINT_VERSION = 1 };

/* Where a run stands between two steps. */
struct training_state {
    int64_t step;           /* steps done */
    int64_t next_sample;    /* of the training data */
    int64_t global_batch;   /* sequences a step, of the run that wrote it */
    int64_t optimizer_time; /* AdamW's t: steps that were not skipped */
    int64_t skipped_steps;
    uint64_t seed;
};

/* The flat arrays in the order of model_layer / layer_tensors, each layer rounded up to
 * layer_flat_count elements. Host-readable; moments may be NULL when only weights are wanted. */
struct weight_arrays {
    float *parameters, *first_moment, *second_moment;
};

/* keep: how many checkpoints up to this step stay in the folder (>= 1). One of the same step is
 * replaced. A full disk leaves the older ones as they were and no partial one behind. While another
 * process saves in the folder, STATUS_IO. */
enum status checkpoint_save(const char *folder, const struct model *model,
                            const struct weight_arrays *arrays, const struct training_state *state,
                            int64_t keep, struct error *err);

/* `path`: a checkpoint, or a folder of them (the newest whole one; a torn one is passed over with a
 * warning that names it). Refuses a checkpoint of another model by the differing fields. On failure
 * the arrays may have been written to. */
enum status checkpoint_load(const char *path, const struct model *model,
                            const struct weight_arrays *arrays, struct training_state *state,
                            const struct reporter *reporter, struct error *err);

/* The model of a checkpoint (from its state.json), for sampling. `resolved` receives the folder of
 * the checkpoint itself; PATH_MAX bytes are always enough. */
enum status checkpoint_model(const char *path, struct model *model, char *resolved,
                             size_t resolved_bytes, struct error *err);

/* Initial weights from HF safetensors: a file, a sharded folder (model.safetensors.index.json), or
 * a folder with model.safetensors. Names with and without "transformer." or "model." are found; a
 * missing tensor, another shape or a tensor of no use is an error by name; masks, rotary
 * frequencies and a tied head's copy are ignored. On failure `parameters` may have been written
 * to. */
enum status weights_load_hf(const char *path, const struct model *model, float *parameters,
                            struct error *err);

#endif
