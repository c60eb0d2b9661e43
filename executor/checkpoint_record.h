/* state.json: what a checkpoint holds and how to tell that it is whole. Private to checkpoint*.c;
 * the format is in docs/checkpoint.md. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_RECORD_H
#define TEMPER_EXECUTOR_CHECKPOINT_RECORD_H

#include "executor/checkpoint.h"
#include <limits.h>

#define CHECKPOINT_STATE_FILE "state.json"

enum checkpoint_file {
    CHECKPOINT_WEIGHTS,
    CHECKPOINT_CONFIG,
    CHECKPOINT_MOMENTS,
    CHECKPOINT_FILES
};

/* By enum checkpoint_file; the moments come last because a checkpoint may lack them. */
extern const char *const checkpoint_file_names[CHECKPOINT_FILES];

struct file_record {
    int64_t bytes;
    uint64_t hash; /* of 256 KiB pieces, chained */
};

struct checkpoint_record {
    struct training_state state;
    struct model model;
    bool has_moments;
    struct file_record files[CHECKPOINT_FILES];
};

size_t checkpoint_file_count(const struct checkpoint_record *record);

/* Measure the files in `folder` into record->files and write state.json beside them. */
enum status checkpoint_record_write(const char *folder, struct checkpoint_record *record,
                                    struct error *err);
/* Read state.json and check its own hash. STATUS_UNSUPPORTED: a newer format; STATUS_CORRUPT,
 * STATUS_INVALID or STATUS_IO: torn, foreign or missing. */
enum status checkpoint_record_read(const char *folder, struct checkpoint_record *record,
                                   struct error *err);
/* Hold every file against its size and hash; STATUS_CORRUPT names the first that differs. */
enum status checkpoint_record_verify(const char *folder, const struct checkpoint_record *record,
                                     struct error *err);

/* All files of a checkpoint into `folder`, which is empty. */
enum status checkpoint_contents_write(const char *folder, const struct model *model,
                                      const struct weight_arrays *arrays,
                                      const struct training_state *state, struct error *err);

/* FOLDER/NAME; a path that is too long is STATUS_INVALID. */
enum status checkpoint_path(char path[PATH_MAX], const char *folder, const char *name,
                            struct error *err);

#endif
