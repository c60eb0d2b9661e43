/* A growing string with a sticky failure: append freely, check once at the end. */
#ifndef TEMPER_BASE_TEXT_H
#define TEMPER_BASE_TEXT_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise ({0}) before use; release with text_free. `data` is NUL-terminated, or NULL
 * while nothing was appended. */
struct text {
    char *data;
    size_t bytes;    /* without the terminating NUL */
    size_t capacity; /* bytes allocated */
    bool failed;     /* an append ran out of memory; later appends do nothing */
};

void text_append(struct text *text, const char *string);
void text_append_bytes(struct text *text, const void *data, size_t bytes);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Append `string` with &, <, >, " and ' as entities. */
void text_append_html(struct text *text, const char *string);
/* STATUS_MEMORY if any append failed. */
enum status text_check(const struct text *text, struct error *err);
void text_free(struct text *text);

#endif
