/* Which checkpoints a folder holds and which one a path means. Private to checkpoint*.c. */
#ifndef TEMPER_EXECUTOR_CHECKPOINT_FIND_H
#define TEMPER_EXECUTOR_CHECKPOINT_FIND_H

#include "executor/checkpoint_record.h"

enum { CHECKPOINT_NAME_BYTES = 32 };

struct checkpoint_name {
    int64_t step;
    char name[CHECKPOINT_NAME_BYTES]; /* "step-00000200" */
};

/* Newest first, whole or not. Zero-initialise; the caller frees rows with free(). */
struct checkpoint_list {
    struct checkpoint_name *rows;
    size_t count, capacity;
};

enum status checkpoint_list_read(const char *folder, struct checkpoint_list *list,
                                 struct error *err);

/* The newest whole checkpoint at `path`: its folder and record, which the caller clears. Torn ones
 * are passed over with a warning at rank 0 (reporter may be NULL). Collective: the ranks share the
 * work of reading every file. */
enum status checkpoint_find(const char *path, struct comm *comm, const struct reporter *reporter,
                            char resolved[PATH_MAX], struct checkpoint_record *record,
                            struct error *err);

#endif
