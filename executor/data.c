#include "executor/data.h"
#include "base/rng.h"
#include "executor/token_file.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Apart from the streams that initial weights and sampling draw from. */
static const uint64_t data_stream = UINT64_C(1) << 61;

struct split {
    const struct token_file *file;
    int64_t first, tokens; /* of the file */
};

struct dataset {
    char *path, *validation_path; /* the latter NULL: part of `path` */
    struct token_file files[2];   /* training, validation */
    size_t open_files;
    struct split splits[2]; /* by enum data_split */
    int64_t vocab, seq_length;
    uint64_t seed;
    unsigned char *scratch; /* [seq_length + 1] tokens as stored */
    int32_t *window;        /* [seq_length + 1] */
};

static enum status check_vocab(const struct token_file *file, int64_t vocab, struct error *err)
{
    if (file->token_bytes == 1 && vocab < 256)
        return error_set(err, STATUS_INVALID,
                         "%s: text is read as bytes, which needs a vocabulary of at least 256; the "
                         "model has %lld",
                         file->path, (long long)vocab);
    return STATUS_OK;
}

static enum status check_split(const struct split *split, const char *what, int64_t seq_length,
                               struct error *err)
{
    if (split->tokens > seq_length)
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s: %lld tokens are left for %s, a window of sequence length %lld needs at "
                     "least %lld: give a longer file or a shorter sequence",
                     split->file->path, (long long)split->tokens, what, (long long)seq_length,
                     (long long)seq_length + 1);
}

static enum status open_file(struct dataset *dataset, const char *path, char **kept_path,
                             struct error *err)
{
    *kept_path = strdup(path);
    if (!*kept_path)
        return error_memory(err, strlen(path) + 1, "the data's path");
    struct token_file *file = &dataset->files[dataset->open_files];
    TRY(token_file_open(file, *kept_path, err));
    dataset->open_files++;
    return check_vocab(file, dataset->vocab, err);
}

static enum status open_splits(struct dataset *dataset, const struct dataset_options *options,
                               struct error *err)
{
    const struct token_file *file = &dataset->files[0];
    TRY(open_file(dataset, options->path, &dataset->path, err));
    if (options->validation_path) {
        TRY(open_file(dataset, options->validation_path, &dataset->validation_path, err));
        const struct token_file *validation = &dataset->files[1];
        dataset->splits[SPLIT_TRAIN] = (struct split){file, 0, file->tokens};
        dataset->splits[SPLIT_VALIDATION] = (struct split){validation, 0, validation->tokens};
    } else {
        /* Nine tenths rounded down, without overflow. */
        int64_t train = file->tokens / 10 * 9 + file->tokens % 10 * 9 / 10;
        dataset->splits[SPLIT_TRAIN] = (struct split){file, 0, train};
        dataset->splits[SPLIT_VALIDATION] = (struct split){file, train, file->tokens - train};
    }
    TRY(check_split(&dataset->splits[SPLIT_TRAIN], "training", dataset->seq_length, err));
    return check_split(&dataset->splits[SPLIT_VALIDATION], "validation", dataset->seq_length, err);
}

enum status dataset_open(struct dataset **out, const struct dataset_options *options,
                         struct error *err)
{
    assert(options->vocab >= 1 && options->seq_length >= 1);
    struct dataset *dataset = calloc(1, sizeof(*dataset));
    if (!dataset)
        return error_memory(err, sizeof(*dataset), "a data set");
    dataset->vocab = options->vocab;
    dataset->seq_length = options->seq_length;
    dataset->seed = options->seed;
    enum status status = open_splits(dataset, options, err);
    if (status == STATUS_OK) {
        size_t window_tokens = (size_t)options->seq_length + 1;
        dataset->scratch = malloc(window_tokens * TOKEN_BYTES_MAX);
        dataset->window = malloc(window_tokens * sizeof(*dataset->window));
        if (!dataset->scratch || !dataset->window)
            status = error_memory(err, window_tokens * TOKEN_BYTES_MAX, "a window of tokens");
    }
    if (status != STATUS_OK) {
        dataset_close(dataset);
        return status;
    }
    *out = dataset;
    return STATUS_OK;
}

void dataset_close(struct dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t i = 0; i < dataset->open_files; i++)
        token_file_close(&dataset->files[i]);
    free(dataset->path);
    free(dataset->validation_path);
    free(dataset->scratch);
    free(dataset->window);
    free(dataset);
}

int64_t dataset_tokens(const struct dataset *dataset, enum data_split split)
{
    return dataset->splits[split].tokens;
}

/* One window into row `row` of tokens and targets [.., seq_length]. */
static enum status read_window(struct dataset *dataset, enum data_split name, int64_t offset,
                               int64_t row, int32_t *tokens, int32_t *targets, struct error *err)
{
    const struct split *split = &dataset->splits[name];
    size_t seq_length = (size_t)dataset->seq_length, at = (size_t)row * seq_length;
    TRY(token_file_read(split->file, split->first + offset, dataset->seq_length + 1, dataset->vocab,
                        dataset->scratch, dataset->window, err));
    memcpy(tokens + at, dataset->window, seq_length * sizeof(*tokens));
    memcpy(targets + at, dataset->window + 1, seq_length * sizeof(*targets));
    return STATUS_OK;
}

enum status dataset_train_windows(struct dataset *dataset, int64_t first, int64_t count,
                                  int32_t *tokens, int32_t *targets, struct error *err)
{
    assert(first >= 0 && count >= 0);
    uint64_t offsets = (uint64_t)(dataset->splits[SPLIT_TRAIN].tokens - dataset->seq_length);
    for (int64_t i = 0; i < count; i++) {
        uint64_t offset = rng_below(dataset->seed, data_stream, (uint64_t)(first + i), offsets);
        TRY(read_window(dataset, SPLIT_TRAIN, (int64_t)offset, i, tokens, targets, err));
    }
    return STATUS_OK;
}

/* index / steps of the way, rounded down; quotient and rest apart, so that no product overflows. */
static int64_t spread(int64_t way, int64_t index, int64_t steps)
{
    return way / steps * index + way % steps * index / steps;
}

enum status dataset_validation_windows(struct dataset *dataset, int64_t total, int64_t first,
                                       int64_t count, int32_t *tokens, int32_t *targets,
                                       struct error *err)
{
    assert(first >= 0 && count >= 0 && first <= total - count);
    int64_t last_offset = dataset->splits[SPLIT_VALIDATION].tokens - dataset->seq_length - 1;
    for (int64_t i = 0; i < count; i++) {
        int64_t offset = total > 1 ? spread(last_offset, first + i, total - 1) : 0;
        TRY(read_window(dataset, SPLIT_VALIDATION, offset, i, tokens, targets, err));
    }
    return STATUS_OK;
}

int64_t dataset_validation_window_count(const struct dataset *dataset)
{
    /* Neighbours share one token: the last target of one is the first token of the next. */
    return (dataset->splits[SPLIT_VALIDATION].tokens - 1) / dataset->seq_length;
}
