/* What the tests of the store share: a folder of their own, small rows, a plan. */
#ifndef TEMPER_TESTS_STORE_SUPPORT_H
#define TEMPER_TESTS_STORE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/sql.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The call must succeed; it writes its error into `err_`. */
#define OK(call)                                                                                   \
    do {                                                                                           \
        struct error err_ = {0};                                                                   \
        if ((call) != STATUS_OK)                                                                   \
            fail_msg("%s: %s", #call, err_.message);                                               \
    } while (0)

/* The call must fail with this status and words that contain all the given parts. */
#define FAILS(status_, call, ...)                                                                  \
    do {                                                                                           \
        struct error err_ = {0};                                                                   \
        const char *const parts_[] = {__VA_ARGS__};                                                \
        assert_failure((call), status_, &err_, parts_, COUNT(parts_));                             \
    } while (0)

void assert_failure(enum status found, enum status expected, const struct error *err,
                    const char *const *parts, size_t count);

/* Group fixtures: a new folder that anyone may enter, with a path for one store; removed after. */
int make_folder(void **state);
int remove_folder(void **state);
extern char folder[64];
const char *in_folder(const char *name); /* static storage, valid until the fourth next call */

struct store *open_new(const char *path); /* any file of that name is removed first */
/* The first value of `sql`, which must yield one. */
int64_t query(struct store *store, const char *sql);
/* PRAGMA integrity_check and foreign_key_check find nothing. */
void assert_sound(struct store *store);

struct profile_session example_session(const char *host);
struct measurement example_measurement(void);
/* A valid plan of a tiny model with a whole prediction; plan_clear it. */
struct plan example_plan(void);
struct run_info example_run(int64_t plan_id);

#endif
