/* state.json: what a checkpoint holds and how to tell that it is whole. Private to checkpoint*.c
 * and weights_hf.c; the format is in docs/checkpoint.md. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_RECORD_H
#define TEMPER_EXECUTOR_CHECKPOINT_RECORD_H

#include "executor/checkpoint.h"
#include "executor/checkpoint_split.h"
#include <limits.h>

#define CHECKPOINT_STATE_FILE   "state.json"
#define CHECKPOINT_CONFIG_FILE  "config.json"
#define CHECKPOINT_INDEX_FILE   "model.safetensors.index.json"
#define CHECKPOINT_WEIGHTS_STEM "model"
#define CHECKPOINT_MOMENTS_STEM "optimizer"

struct file_record {
    char name[CHECKPOINT_FILE_BYTES];
    int64_t bytes;
    uint64_t hash; /* of 256 KiB pieces, chained */
};

struct checkpoint_record {
    struct training_state state;
    struct model model;
    struct file_record *files; /* [file_count], all but state.json; owned */
    size_t file_count;
};

void checkpoint_record_clear(struct checkpoint_record *record);
/* Does this file hold moments? A checkpoint of weights alone has none. */
bool checkpoint_is_moments(const struct file_record *file);

/* Read the file of this name for its size and hash. */
enum status checkpoint_file_measure(const char *folder, struct file_record *file,
                                    struct error *err);
/* Write state.json. */
enum status checkpoint_record_write(const char *folder, const struct checkpoint_record *record,
                                    struct error *err);
/* Read state.json and check its own hash. STATUS_UNSUPPORTED: a newer format; STATUS_CORRUPT,
 * STATUS_INVALID or STATUS_IO: torn, foreign or missing. The caller clears *record. */
enum status checkpoint_record_read(const char *folder, struct checkpoint_record *record,
                                   struct error *err);
/* Hold every `step`-th file from the `first` against its size and hash; STATUS_CORRUPT names the
 * first that differs. */
enum status checkpoint_record_verify(const char *folder, const struct checkpoint_record *record,
                                     size_t first, size_t step, struct error *err);

/* All files of a checkpoint into `folder`, which is empty. Collective; every rank has the same
 * outcome, but for a failure of `comm` itself. */
enum status checkpoint_contents_write(const char *folder, const struct memory_layout *layout,
                                      struct comm *comm, const struct training_state *state,
                                      struct error *err);

/* FOLDER/NAME; a path that is too long is STATUS_INVALID. */
enum status checkpoint_path(char path[PATH_MAX], const char *folder, const char *name,
                            struct error *err);

#endif
