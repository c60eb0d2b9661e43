/* A writer is killed with SIGKILL at random moments: what it had committed is there, what it had
 * not is not, and the store is whole. */
#include "support.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS_A_BATCH = 300, ROUNDS = 40 };

/* Commit batch after batch and tell each over the pipe, until killed. With a cache of few pages,
 * SQLite writes into the file long before the commit. */
static void write_forever(const char *path, int told)
{
    struct error err;
    struct store *store;
    if (store_open(&store, path, STORE_CREATE, &err) != STATUS_OK ||
        sql_execute(store, "PRAGMA cache_size = 4", "testing", &err) != STATUS_OK)
        _exit(3);
    for (;;) {
        struct profile_session session = example_session("box");
        if (store_begin(store, &err) != STATUS_OK ||
            store_profile_begin(store, &session, &err) != STATUS_OK)
            _exit(4);
        for (int i = 0; i < ROWS_A_BATCH; i++) {
            struct measurement row = example_measurement();
            row.bytes = i;
            if (store_measurement_add(store, session.id, &row, &err) != STATUS_OK)
                _exit(5);
        }
        char byte = 1;
        if (store_commit(store, &err) != STATUS_OK || write(told, &byte, 1) != 1)
            _exit(6);
    }
}

/* Let a writer work for `us` microseconds, kill it; returns how many commits it told. */
static int64_t kill_a_writer(const char *path, unsigned us)
{
    int told[2];
    char bytes[256];
    int64_t commits = 0;
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        write_forever(path, told[1]);
    close(told[1]);
    usleep(us);
    assert_int_equal(kill(child, SIGKILL), 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status))
        fail_msg("the writer ended by itself with %d", WEXITSTATUS(status));
    for (ssize_t got; (got = read(told[0], bytes, sizeof(bytes))) > 0;)
        commits += got;
    close(told[0]);
    return commits;
}

/* What a reader finds: told commits, or one more that it did not live to tell. */
static int64_t check(const char *path, int64_t least, enum store_mode mode)
{
    struct store *store;
    OK(store_open(&store, path, mode, &err_));
    assert_sound(store);
    int64_t sessions = query(store, "SELECT count(*) FROM session");
    assert_int_equal(query(store, "SELECT count(*) FROM measurement"), sessions * ROWS_A_BATCH);
    if (sessions != least && sessions != least + 1)
        fail_msg("%lld batches committed, %lld found", (long long)least, (long long)sessions);
    if (sessions > 0) {
        struct measurement_list list;
        OK(store_measurements_load(store, NULL, &list, NULL, &err_));
        assert_int_equal(list.count, ROWS_A_BATCH);
        measurement_list_free(&list);
    }
    store_close(store);
    return sessions;
}

static void test_crash__kill_9_at_any_moment_leaves_a_store(void **state)
{
    (void)state;
    const char *path = in_folder("crash.db"), *journal = in_folder("crash.db-journal");
    int64_t sessions = 0;
    int hot = 0;
    struct store *store = open_new(path);
    store_close(store);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        /* On a busy disk a commit takes longer than on an idle one. */
        uint64_t most_us = UINT64_C(40000) << 2 * (round % 4);
        unsigned us = (unsigned)rng_below((uint64_t)clock_ns(), 1, round, most_us);
        sessions += kill_a_writer(path, us);
        hot += file_exists(journal);
        /* `report` after a killed `run` only reads, and must do. */
        sessions = check(path, sessions, round % 2 ? STORE_READ : STORE_CREATE);
    }
    /* The test is worth something only if some writers died in the middle of a transaction. */
    assert_true(hot > 0);
    assert_true(sessions > 0);
}

/* Killed while the store is being made: the next to open it makes it. */
static void test_crash__kill_9_while_the_store_is_made(void **state)
{
    (void)state;
    const char *path = in_folder("birth.db"), *journal = in_folder("birth.db-journal");
    for (uint64_t round = 0; round < ROUNDS; round++) {
        unsigned us = (unsigned)rng_below((uint64_t)clock_ns(), 2, round, 6000);
        (void)unlink(path);
        (void)unlink(journal);
        int64_t told = kill_a_writer(path, us);
        (void)check(path, told, STORE_CREATE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash__kill_9_at_any_moment_leaves_a_store),
        cmocka_unit_test(test_crash__kill_9_while_the_store_is_made),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
