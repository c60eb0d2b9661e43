#include "executor/checkpoint_record.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "ir/fields.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE_BYTES = 256 * 1024, HASH_DIGITS = HASH_TEXT_BYTES - 1 };

static const char format_name[] = "temper-checkpoint";
static const char blank_hash[] = "0000000000000000";

/* What stands around the digits of the document's own hash, which is its last member. */
static const char before_hash[] = "\"hash\": \"", after_hash[] = "\"\n}\n";

#define AT(member) offsetof(struct training_state, member)
static const struct field state_rows[] = {
    {.key = "step", .type = FIELD_INT64, .offset = AT(step), .maximum = INT64_MAX},
    {.key = "next_sample", .type = FIELD_INT64, .offset = AT(next_sample), .maximum = INT64_MAX},
    {.key = "global_batch",
     .type = FIELD_INT64,
     .offset = AT(global_batch),
     .minimum = 1,
     .maximum = INT64_MAX},
    {.key = "optimizer_time",
     .type = FIELD_INT64,
     .offset = AT(optimizer_time),
     .maximum = INT64_MAX},
    {.key = "skipped_steps",
     .type = FIELD_INT64,
     .offset = AT(skipped_steps),
     .maximum = INT64_MAX},
    /* All 64 bits, in JSON as a signed integer. */
    {.key = "seed",
     .type = FIELD_BYTES,
     .offset = AT(seed),
     .minimum = INT64_MIN,
     .maximum = INT64_MAX},
    /* Not in version 1. */
    {.key = "loss_scale", .type = FIELD_REAL, .offset = AT(loss_scale), .optional = true},
    {.key = "scale_good_steps",
     .type = FIELD_INT64,
     .offset = AT(scale_good_steps),
     .maximum = INT64_MAX,
     .optional = true},
};
#undef AT

static const struct field_table state_table = {state_rows,
                                               sizeof(state_rows) / sizeof(state_rows[0])};

void checkpoint_record_clear(struct checkpoint_record *record)
{
    free(record->files);
    *record = (struct checkpoint_record){0};
}

bool checkpoint_is_moments(const struct file_record *file)
{
    return strncmp(file->name, CHECKPOINT_MOMENTS_STEM, strlen(CHECKPOINT_MOMENTS_STEM)) == 0;
}

enum status checkpoint_path(char path[PATH_MAX], const char *folder, const char *name,
                            struct error *err)
{
    int bytes = snprintf(path, PATH_MAX, "%s/%s", folder, name);
    if (bytes < 0 || bytes >= PATH_MAX)
        return error_set(err, STATUS_INVALID, "path '%.200s...' is longer than %d bytes", folder,
                         PATH_MAX - 1);
    return STATUS_OK;
}

/* ---- files ---- */

/* Fill `piece` as far as the file goes; 0 at its end, negative on failure. */
static ssize_t read_piece(int fd, char *piece)
{
    size_t done = 0;
    while (done < PIECE_BYTES) {
        ssize_t got = read(fd, piece + done, PIECE_BYTES - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return got;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static enum status measure_file(const char *path, struct file_record *record, struct error *err)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, STATUS_IO, "cannot open '%s': %s", path, strerror(errno));
    char *piece = malloc(PIECE_BYTES);
    struct file_record measured = *record;
    measured.bytes = 0;
    measured.hash = 0;
    enum status status =
        piece ? STATUS_OK : error_memory(err, PIECE_BYTES, "a piece of a checkpoint");
    ssize_t got = 0;
    while (status == STATUS_OK && (got = read_piece(fd, piece)) > 0) {
        measured.hash = hash_mix(measured.hash, piece, (size_t)got);
        measured.bytes += got;
    }
    if (got < 0)
        status = error_set(err, STATUS_IO, "cannot read '%s': %s", path, strerror(errno));
    free(piece);
    (void)close(fd);
    if (status == STATUS_OK)
        *record = measured;
    return status;
}

static enum status verify_file(const char *path, const struct file_record *record,
                               struct error *err)
{
    struct file_record found = {0};
    TRY(measure_file(path, &found, err));
    if (found.bytes != record->bytes)
        return error_set(err, STATUS_CORRUPT, "%s: has %lld bytes, was saved with %lld", path,
                         (long long)found.bytes, (long long)record->bytes);
    char found_hash[HASH_TEXT_BYTES], saved_hash[HASH_TEXT_BYTES];
    if (found.hash != record->hash)
        return error_set(
            err, STATUS_CORRUPT, "%s: its hash is %s, it was saved with %s: its bytes have changed",
            path, hash_format(found.hash, found_hash), hash_format(record->hash, saved_hash));
    return STATUS_OK;
}

enum status checkpoint_file_measure(const char *folder, struct file_record *file, struct error *err)
{
    char path[PATH_MAX];
    TRY(checkpoint_path(path, folder, file->name, err));
    return measure_file(path, file, err);
}

enum status checkpoint_record_verify(const char *folder, const struct checkpoint_record *record,
                                     size_t first, size_t step, struct error *err)
{
    char path[PATH_MAX];
    for (size_t i = first; i < record->file_count; i += step) {
        TRY(checkpoint_path(path, folder, record->files[i].name, err));
        TRY(verify_file(path, &record->files[i], err));
    }
    return STATUS_OK;
}

/* ---- writing ---- */

static enum status build_document(const struct checkpoint_record *record, struct text *text,
                                  struct error *err)
{
    struct jout *json = jout_new();
    char digits[HASH_TEXT_BYTES];
    jout_string(json, "format", format_name);
    jout_int(json, "version", CHECKPOINT_VERSION);
    fields_write(&state_table, &record->state, json);
    model_write(&record->model, "model", json);
    jout_begin_object(json, "files");
    for (size_t i = 0; i < record->file_count; i++) {
        jout_begin_object(json, record->files[i].name);
        jout_int(json, "bytes", record->files[i].bytes);
        jout_string(json, "hash", hash_format(record->files[i].hash, digits));
        jout_end(json);
    }
    jout_end(json);
    jout_string(json, "hash", blank_hash);
    TRY(jout_finish(json, 2, text, err));
    text_append(text, "\n");
    return text_check(text, err);
}

/* The digits of the document's own hash inside it, or NULL if it does not end with them. */
static char *find_own_hash(char *text, size_t bytes)
{
    const size_t before_bytes = strlen(before_hash), after_bytes = strlen(after_hash);
    if (bytes < before_bytes + HASH_DIGITS + after_bytes)
        return NULL;
    char *digits = text + bytes - after_bytes - HASH_DIGITS;
    if (memcmp(digits - before_bytes, before_hash, before_bytes) != 0 ||
        memcmp(digits + HASH_DIGITS, after_hash, after_bytes) != 0)
        return NULL;
    return digits;
}

enum status checkpoint_record_write(const char *folder, const struct checkpoint_record *record,
                                    struct error *err)
{
    char path[PATH_MAX], digits[HASH_TEXT_BYTES];
    TRY(checkpoint_path(path, folder, CHECKPOINT_STATE_FILE, err));
    struct text text = {0};
    enum status status = build_document(record, &text, err);
    if (status == STATUS_OK) {
        hash_format(hash_bytes(text.data, text.bytes), digits);
        memcpy(find_own_hash(text.data, text.bytes), digits, HASH_DIGITS);
        status = file_write(path, text.data, text.bytes, err);
    }
    text_free(&text);
    return status;
}

/* ---- reading ---- */

static enum status read_hash(const struct jin *at, uint64_t *hash, struct error *err)
{
    const char *digits = NULL;
    TRY(jin_string(at, "hash", &digits, err));
    if (strlen(digits) != HASH_DIGITS || strspn(digits, "0123456789abcdef") != HASH_DIGITS)
        return jin_invalid(at, "hash", err, "must be %d hexadecimal digits, is '%s'", HASH_DIGITS,
                           digits);
    *hash = strtoull(digits, NULL, 16);
    return STATUS_OK;
}

static bool is_file_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && !strchr(name, '/') &&
           strlen(name) < CHECKPOINT_FILE_BYTES;
}

static enum status read_file(const struct jin *at, const char *name, struct file_record *file,
                             struct error *err)
{
    if (!is_file_name(name))
        return jin_invalid(at, NULL, err, "is not the name of a file in the same folder");
    memcpy(file->name, name, strlen(name) + 1);
    TRY(jin_int(at, "bytes", &file->bytes, err));
    return read_hash(at, &file->hash, err);
}

static enum status read_files(const struct jin *root, struct checkpoint_record *record,
                              struct error *err)
{
    struct jin files, file;
    void *iterator = NULL;
    const char *name = NULL;
    size_t count = 0;
    TRY(jin_object(root, "files", &files, err));
    while (jin_next_member(&files, &iterator, &name, &file))
        count++;
    record->files = calloc(count + 1, sizeof(*record->files));
    if (!record->files)
        return error_memory(err, (count + 1) * sizeof(*record->files), "the list of files");
    iterator = NULL;
    while (jin_next_member(&files, &iterator, &name, &file)) {
        TRY(read_file(&file, name, &record->files[record->file_count], err));
        record->file_count++;
    }
    return STATUS_OK;
}

static enum status check_own_hash(char *data, size_t bytes, const char *path, struct error *err)
{
    char found[HASH_TEXT_BYTES];
    char *digits = find_own_hash(data, bytes);
    if (!digits)
        return error_set(err, STATUS_CORRUPT,
                         "%s: does not end with its own hash: it was cut short or edited", path);
    char saved[HASH_TEXT_BYTES] = {0};
    memcpy(saved, digits, HASH_DIGITS);
    memcpy(digits, blank_hash, HASH_DIGITS);
    if (strcmp(hash_format(hash_bytes(data, bytes), found), saved) != 0)
        return error_set(err, STATUS_CORRUPT,
                         "%s: its hash is %s, it says %s: its bytes have changed", path, found,
                         saved);
    return STATUS_OK;
}

/* The format and version come before the hash: a newer format may be sealed in another way. */
static enum status read_document(char *data, size_t bytes, const struct json_document *document,
                                 const char *path, struct checkpoint_record *record,
                                 struct error *err)
{
    struct jin root = json_root(document), model;
    TRY(format_check(&root, format_name, CHECKPOINT_VERSION, err));
    TRY(check_own_hash(data, bytes, path, err));
    TRY(fields_read(&state_table, &root, &record->state, err));
    TRY(jin_object(&root, "model", &model, err));
    TRY(model_read(&record->model, &model, err));
    return read_files(&root, record, err);
}

enum status checkpoint_record_read(const char *folder, struct checkpoint_record *record,
                                   struct error *err)
{
    char path[PATH_MAX];
    char *data = NULL;
    size_t bytes = 0;
    struct json_document *document = NULL;
    struct checkpoint_record found = {0};
    TRY(checkpoint_path(path, folder, CHECKPOINT_STATE_FILE, err));
    TRY(file_read(path, &data, &bytes, err));
    enum status status = json_parse_text(&document, data, bytes, path, err);
    if (status == STATUS_INVALID)
        status = err->status = STATUS_CORRUPT;
    if (status == STATUS_OK)
        status = read_document(data, bytes, document, path, &found, err);
    json_document_free(document);
    free(data);
    if (status == STATUS_OK)
        *record = found;
    else
        checkpoint_record_clear(&found);
    return status;
}
