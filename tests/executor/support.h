/* What the tests of files share: a folder of their own, and checks that show the message. */
#ifndef TEMPER_TESTS_EXECUTOR_SUPPORT_H
#define TEMPER_TESTS_EXECUTOR_SUPPORT_H

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
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { TEST_PATH_BYTES = 512 };

static char test_folder[64];

static inline int make_test_folder(void **state)
{
    (void)state;
    (void)snprintf(test_folder, sizeof(test_folder), "/tmp/temper-executor-XXXXXX");
    return mkdtemp(test_folder) ? 0 : -1;
}

static inline int remove_test_folder(void **state)
{
    (void)state;
    struct error err;
    return folder_remove(test_folder, &err) == STATUS_OK ? 0 : -1;
}

/* The path of a file in the test's folder, in one of four static buffers in turn. */
static inline const char *in_folder(const char *name)
{
    static char paths[4][TEST_PATH_BYTES];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, TEST_PATH_BYTES, "%s/%s", test_folder, name);
    return path;
}

static inline void assert_ok(enum status status, const struct error *err)
{
    if (status != STATUS_OK)
        fail_msg("failed: %s", err->message);
}

static inline void assert_contains(const char *message, const char *part)
{
    if (strstr(message, part) == NULL)
        fail_msg("'%s' does not contain '%s'", message, part);
}

/* The call failed in this way, and its message has the parts. */
static inline void assert_refused(enum status status, enum status expected, const struct error *err,
                                  const char *part, const char *other_part)
{
    if (status == STATUS_OK)
        fail_msg("accepted; expected a message with '%s' and '%s'", part, other_part);
    if (status != expected || err->status != expected)
        fail_msg("status %d (%d), expected %d: %s", status, err->status, expected, err->message);
    assert_contains(err->message, part);
    assert_contains(err->message, other_part);
}

/* Without the syncs of file_write: there are thousands of these. A new file each time, because file
 * systems also sync what is written over. */
static inline void put_bytes(const char *path, const void *data, size_t bytes)
{
    (void)unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Not inlined: gcc 12 then takes what is found in the text for a pointer to the variable. */
static __attribute__((noinline, unused)) char *get_bytes(const char *path, size_t *bytes)
{
    struct error err;
    char *data = NULL;
    assert_ok(file_read(path, &data, bytes, &err), &err);
    return data;
}

/* The first block of a page under the source folder that is marked ```KIND; freed by the caller. */
static inline char *page_example(const char *page, const char *kind)
{
    char path[TEST_PATH_BYTES], open[32];
    size_t bytes;
    (void)snprintf(path, sizeof(path), "%s/%s", TEMPER_SOURCE_DIR, page);
    (void)snprintf(open, sizeof(open), "```%s\n", kind);
    char *text = get_bytes(path, &bytes);
    const char *start = strstr(text, open);
    assert_non_null(start);
    start += strlen(open);
    const char *end = strstr(start, "\n```");
    assert_non_null(end);
    char *example = strndup(start, (size_t)(end - start) + 1);
    assert_non_null(example);
    free(text);
    return example;
}

#endif
