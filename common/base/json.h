/* JSON in and out; the only part of temper that knows Jansson.
 *
 * Reading is through a `struct jin`: a borrowed place in a parsed document that remembers the file
 * and the path to it, so that every error names both ("plan.json: key 'layers[3].stage': expected
 * an integer, found a string"). Writing is through a `struct jout`: a builder whose failures are
 * sticky and reported once by jout_finish. */
#ifndef TEMPER_BASE_JSON_H
#define TEMPER_BASE_JSON_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_document; /* owns a parsed file */

enum { JIN_PATH_BYTES = 160 };

struct jin {
    const void *node; /* NULL: absent */
    const char *file; /* borrowed from the document */
    char path[JIN_PATH_BYTES];
};

/* Parse a file or a text (`name` stands in messages). Syntax errors name line and column.
 * Duplicate keys are refused. Free with json_document_free (NULL allowed). */
enum status json_parse_file(struct json_document **out, const char *path, struct error *err);
enum status json_parse_text(struct json_document **out, const char *text, size_t bytes,
                            const char *name, struct error *err);
void json_document_free(struct json_document *document);
struct jin json_root(const struct json_document *document);

bool jin_has(const struct jin *at, const char *key); /* present and not null */
bool jin_is_object(const struct jin *at);
bool jin_is_array(const struct jin *at);
size_t jin_length(const struct jin *at); /* elements of an array; 0 for anything else */

/* Required members of an object. Absent or of another type: STATUS_INVALID naming file and key. */
enum status jin_object(const struct jin *at, const char *key, struct jin *out, struct error *err);
enum status jin_array(const struct jin *at, const char *key, struct jin *out, struct error *err);
enum status jin_int(const struct jin *at, const char *key, int64_t *out, struct error *err);
enum status jin_real(const struct jin *at, const char *key, double *out, struct error *err);
enum status jin_bool(const struct jin *at, const char *key, bool *out, struct error *err);
/* The string is borrowed from the document. */
enum status jin_string(const struct jin *at, const char *key, const char **out, struct error *err);
/* Copy a string of at most capacity-1 bytes; longer is STATUS_INVALID. */
enum status jin_string_copy(const struct jin *at, const char *key, char *out, size_t capacity,
                            struct error *err);
/* Optional members: absent or null leaves *out as it was; a wrong type is still an error. */
enum status jin_int_opt(const struct jin *at, const char *key, int64_t *out, struct error *err);
enum status jin_real_opt(const struct jin *at, const char *key, double *out, struct error *err);
enum status jin_bool_opt(const struct jin *at, const char *key, bool *out, struct error *err);
enum status jin_string_opt(const struct jin *at, const char *key, const char **out,
                           struct error *err);
/* Element of an array (index < jin_length). */
struct jin jin_element(const struct jin *array, size_t index);
/* Members of an object in document order: start with iterator NULL; false at the end. */
bool jin_next_member(const struct jin *object, void **iterator, const char **key,
                     struct jin *value);
/* Scalars at the place itself (array elements). */
enum status jin_as_int(const struct jin *at, int64_t *out, struct error *err);
enum status jin_as_real(const struct jin *at, double *out, struct error *err);
enum status jin_as_string(const struct jin *at, const char **out, struct error *err);
/* "FILE: key 'PATH.key': what" for checks of value ranges by the caller. key may be NULL. */
enum status jin_invalid(const struct jin *at, const char *key, struct error *err,
                        const char *format, ...) __attribute__((format(printf, 4, 5)));

struct jout; /* builder: the root is an object, open from the start */

struct jout *jout_new(void); /* NULL-safe: every call on NULL does nothing and finish reports it */
/* `key` is NULL inside an array. */
void jout_begin_object(struct jout *out, const char *key);
void jout_begin_array(struct jout *out, const char *key);
void jout_end(struct jout *out);
void jout_int(struct jout *out, const char *key, int64_t value);
/* Reads back as the same double; NaN and infinities become null. */
void jout_real(struct jout *out, const char *key, double value);
void jout_bool(struct jout *out, const char *key, bool value);
/* NULL becomes null; a byte that is not UTF-8 becomes the replacement character U+FFFD. */
void jout_string(struct jout *out, const char *key, const char *value);
void jout_null(struct jout *out, const char *key);
/* Insert a JSON text as a value (a stored plan inside a command's output, say). */
void jout_raw(struct jout *out, const char *key, const char *json_text);
/* Append the document, without a last newline, to `text` (indent 0: one line) and free the builder,
 * also on failure. A key missing or misplaced and unbalanced ends are STATUS_INVALID here. */
enum status jout_finish(struct jout *out, int indent, struct text *text, struct error *err);

#endif
