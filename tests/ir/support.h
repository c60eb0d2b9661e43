/* What the tests of this folder share: temporary files, and checks that show the message. */
#ifndef TEMPER_TESTS_IR_SUPPORT_H
#define TEMPER_TESTS_IR_SUPPORT_H

/* cmocka needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline void assert_ok(enum status status, const struct error *err)
{
    if (status != STATUS_OK)
        fail_msg("failed: %s", err->message);
}

static inline void assert_near(double value, double expected, double tolerance)
{
    if (!(value >= expected - tolerance && value <= expected + tolerance))
        fail_msg("%.17g is not %.17g", value, expected);
}

static inline void assert_contains(const char *message, const char *part)
{
    if (strstr(message, part) == NULL)
        fail_msg("'%s' does not contain '%s'", message, part);
}

/* Write `text` to a file of this test's process; returns its path (static storage). */
static inline const char *temporary_file(const char *text)
{
    static char path[128];
    struct error err;
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/temper-ir-%ld.json", folder != NULL ? folder : "/tmp",
             (long)getpid());
    assert_ok(file_write(path, text, strlen(text), &err), &err);
    return path;
}

/* A copy of `text` with the first `old` replaced; the caller frees it. `old` must be there. */
static inline char *replaced(const char *text, const char *old, const char *by)
{
    const char *at = strstr(text, old);
    if (at == NULL)
        fail_msg("nothing to replace: '%s'", old);
    size_t bytes = strlen(text) - strlen(old) + strlen(by) + 1;
    char *copy = malloc(bytes);
    assert_non_null(copy);
    snprintf(copy, bytes, "%.*s%s%s", (int)(at - text), text, by, at + strlen(old));
    return copy;
}

/* The first ```json block of a page under the source folder; the caller frees it. */
static inline char *page_example(const char *page)
{
    static const char open[] = "```json\n", close[] = "\n```";
    char path[512];
    char *text;
    size_t bytes;
    struct error err;
    snprintf(path, sizeof(path), "%s/%s", TEMPER_SOURCE_DIR, page);
    assert_ok(file_read(path, &text, &bytes, &err), &err);
    const char *start = strstr(text, open);
    assert_non_null(start);
    start += strlen(open);
    const char *end = strstr(start, close);
    assert_non_null(end);
    char *example = strndup(start, (size_t)(end - start));
    assert_non_null(example);
    free(text);
    return example;
}

#endif
