/* Training data: a text file as bytes, or tokens in llm.c's .bin format.
 *
 * What is trained on depends on (seed, sample index) alone: sample i of a run is a window of
 * seq_length + 1 tokens at a random offset, whatever rank or micro-batch asks for it. Files are
 * read window by window, so that a large file does not count as memory of the run. Formats:
 * docs/data.md. */
#ifndef TEMPER_EXECUTOR_DATA_H
#define TEMPER_EXECUTOR_DATA_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

struct dataset;

enum data_split { SPLIT_TRAIN, SPLIT_VALIDATION };

struct dataset_options {
    const char *path;            /* required */
    const char *validation_path; /* NULL: the last tenth of `path` is the validation split */
    int64_t vocab;               /* tokens must be below it: bytes need vocab >= 256 */
    int64_t seq_length;
    uint64_t seed;
};

/* A file ending in .bin must have llm.c's header (256 int32: magic 20240520 and version 1 for
 * uint16 tokens, 20240801 and 7 for uint32 tokens; token count); anything else is text, one token a
 * byte. With validation_path, all of `path` is trained on. One dataset serves one thread. Too short
 * for one window in either split, a torn .bin (size against header), a magic that is not llm.c's:
 * errors by name with what would be right. */
enum status dataset_open(struct dataset **out, const struct dataset_options *options,
                         struct error *err);
void dataset_close(struct dataset *dataset);
/* Tokens of a split, for the record. */
int64_t dataset_tokens(const struct dataset *dataset, enum data_split split);

/* Training windows [first, first + count): tokens and targets [count, seq_length]; targets are the
 * tokens one place on. A token >= vocab is an error that names file, offset and both figures. */
enum status dataset_train_windows(struct dataset *dataset, int64_t first, int64_t count,
                                  int32_t *tokens, int32_t *targets, struct error *err);
/* Validation windows: `total` windows spread evenly over the validation split; this gives [first,
 * first + count) of them. */
enum status dataset_validation_windows(struct dataset *dataset, int64_t total, int64_t first,
                                       int64_t count, int32_t *tokens, int32_t *targets,
                                       struct error *err);
/* Windows that do not overlap in the validation split: what `total` of a full evaluation is. */
int64_t dataset_validation_window_count(const struct dataset *dataset);

#endif
