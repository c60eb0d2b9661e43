/* Checkpoints that do not depend on the plan: weights under HF names, AdamW's moments, where the
 * run stood. Format in docs/checkpoint.md.
 *
 * FOLDER/step-00000200/{model*.safetensors, optimizer*.safetensors, config.json, state.json}.
 * Each tensor is written whole by one of the ranks that hold it, so that a checkpoint of more than
 * one rank is in as many files; which ranks and how they split the model is not to be seen in a
 * tensor. Written under a temporary name, synced, then renamed; only then are older ones (beyond
 * `keep`) removed. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_H
#define TEMPER_EXECUTOR_CHECKPOINT_H

#include "base/error.h"
#include "base/reporter.h"
#include "executor/comm/comm.h"
#include "executor/layout.h"
#include "ir/model.h"
#include <stdint.h>

enum { CHECKPOINT_VERSION = 2 };

/* Where a run stands between two steps. */
struct training_state {
    int64_t step;           /* steps done */
    int64_t next_sample;    /* of the training data */
    int64_t global_batch;   /* sequences a step, of the run that wrote it */
    int64_t optimizer_time; /* AdamW's t: steps that were not skipped */
    int64_t skipped_steps;
    uint64_t seed;
    double loss_scale;        /* of fp16; 0: none yet */
    int64_t scale_good_steps; /* since the scale last changed */
};

/* Collective over the ranks of the layout's plan, `comm`; all of them have the same outcome. The
 * folder is one that all ranks see. keep: how many checkpoints up to this step stay in the folder
 * (>= 1). One of the same step is replaced. A full disk at any rank leaves the older ones as they
 * were and no partial one behind. While another process saves in the folder, STATUS_IO. A layout
 * without moments saves weights alone. */
enum status checkpoint_save(const char *folder, const struct memory_layout *layout,
                            struct comm *comm, const struct training_state *state, int64_t keep,
                            struct error *err);

/* Collective likewise. `path`: a checkpoint, or a folder of them (the newest whole one; a torn one
 * is passed over with a warning at rank 0 that names it). Refuses a checkpoint of another model by
 * the differing fields. Every rank reads what it holds: parameters in fp32 (whole and master copy)
 * and, where the layout has them, moments; the 16-bit copies are the caller's to make anew. On
 * failure the arrays may have been written to. */
enum status checkpoint_load(const char *path, const struct memory_layout *layout, struct comm *comm,
                            struct training_state *state, const struct reporter *reporter,
                            struct error *err);

/* The model of a checkpoint (from its state.json), for sampling; not collective. `resolved`
 * receives the folder of the checkpoint itself; PATH_MAX bytes are always enough. */
enum status checkpoint_model(const char *path, struct model *model, char *resolved,
                             size_t resolved_bytes, struct error *err);

/* Initial weights from HF safetensors: a file, a sharded folder (model.safetensors.index.json), or
 * a folder with model.safetensors. Names with and without "transformer." or "model." are found; a
 * missing tensor, another shape or a tensor of no use is an error by name; masks, rotary
 * frequencies and a tied head's copy are ignored. Into fp32 as checkpoint_load does; not
 * collective: each rank reads what it holds. On failure the parameters may have been written to. */
enum status weights_load_hf(const char *path, const struct memory_layout *layout,
                            struct error *err);

#endif
