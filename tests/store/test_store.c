#include "support.h"

#include "base/clock.h"
#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Without a sync, unlike file_write: some tests write hundreds of files. */
static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* A store with `rows` measurements at `path`, closed. */
static void make_store(const char *path, int rows)
{
    struct store *store = open_new(path);
    struct profile_session session = example_session("box");
    OK(store_begin(store, &err_));
    OK(store_profile_begin(store, &session, &err_));
    for (int i = 0; i < rows; i++) {
        struct measurement row = example_measurement();
        row.bytes = i;
        OK(store_measurement_add(store, session.id, &row, &err_));
    }
    OK(store_commit(store, &err_));
    store_close(store);
}

/* Run `body` in a child, whose exit code must be 0: what it does to the process is gone after. */
static void in_child(void (*body)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with status 0x%x", (unsigned)status);
}

/* In a child cmocka's own checks cannot report: say it and end. */
#define CHILD_CHECK(condition, text)                                                               \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, text);              \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* ---- what is a store, and what is none ---- */

static void test_store__made_once_and_kept(void **state)
{
    (void)state;
    const char *path = in_folder("made.db");
    make_store(path, 3);
    struct store *store;
    OK(store_open(&store, path, STORE_CREATE, &err_));
    assert_int_equal(query(store, "SELECT count(*) FROM measurement"), 3);
    assert_int_equal(query(store, "PRAGMA application_id"), 0x746d7072);
    assert_int_equal(query(store, "PRAGMA user_version"), 3);
    assert_int_equal(query(store, "PRAGMA foreign_keys"), 1);
    assert_sound(store);
    store_close(store);
    store_close(NULL);
}

static void test_store__a_missing_one_is_named_with_its_cure(void **state)
{
    (void)state;
    struct store *store = NULL;
    const char *path = in_folder("missing.db");
    FAILS(STATUS_INVALID, store_open(&store, path, STORE_READ, &err_), path, "no such store",
          "temper profile --store");
    assert_false(file_exists(path));
    FAILS(STATUS_INVALID, store_open(&store, "", STORE_CREATE, &err_), "empty");
    FAILS(STATUS_IO, store_open(&store, in_folder("no/such/folder.db"), STORE_CREATE, &err_),
          "no/such/folder.db", "No such file");
    FAILS(STATUS_IO, store_open(&store, folder, STORE_CREATE, &err_), folder);
    assert_null(store);
}

static void test_store__reading_cannot_write(void **state)
{
    (void)state;
    const char *path = in_folder("reading.db");
    make_store(path, 1);
    struct store *store;
    struct profile_session session = example_session("box");
    OK(store_open(&store, path, STORE_READ, &err_));
    FAILS(STATUS_IO, store_profile_begin(store, &session, &err_), path, "cannot be written");
    assert_int_equal(query(store, "SELECT count(*) FROM session"), 1);
    store_close(store);
}

static void test_store__an_empty_file_is_filled_but_not_read(void **state)
{
    (void)state;
    const char *path = in_folder("empty.db");
    struct store *store;
    write_file(path, "", 0);
    FAILS(STATUS_INVALID, store_open(&store, path, STORE_READ, &err_), path, "empty",
          "temper profile");
    OK(store_open(&store, path, STORE_CREATE, &err_));
    store_close(store);
    OK(store_open(&store, path, STORE_READ, &err_));
    store_close(store);
}

static void test_store__a_newer_version_is_refused_by_number(void **state)
{
    (void)state;
    const char *path = in_folder("newer.db");
    static const char *const versions[] = {"4", "41", "2147483647"};
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct store *store = open_new(path);
        char pragma[64];
        snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %s", versions[i]);
        OK(sql_execute(store, pragma, "testing", &err_));
        store_close(store);
        char expected[64];
        snprintf(expected, sizeof(expected), "version %s,", versions[i]);
        for (int mode = STORE_READ; mode <= STORE_CREATE; mode++)
            FAILS(STATUS_UNSUPPORTED, store_open(&store, path, (enum store_mode)mode, &err_), path,
                  expected, "newer temper", "reads versions 1 to 3");
    }
    struct store *store = open_new(path);
    OK(sql_execute(store, "PRAGMA user_version = -3", "testing", &err_));
    store_close(store);
    FAILS(STATUS_CORRUPT, store_open(&store, path, STORE_READ, &err_), path, "-3");
}

static void test_store__databases_of_others_are_refused_and_left_alone(void **state)
{
    (void)state;
    const char *path = in_folder("other.db");
    static const char *const others[] = {
        "PRAGMA application_id = 7",
        "PRAGMA application_id = 0; PRAGMA user_version = 0",
        "PRAGMA application_id = 0; PRAGMA user_version = 2",
    };
    for (size_t i = 0; i < COUNT(others); i++) {
        struct store *store = open_new(path);
        char *before, *after;
        size_t bytes_before, bytes_after;
        OK(sql_execute(store, others[i], "testing", &err_));
        store_close(store);
        OK(file_read(path, &before, &bytes_before, &err_));
        for (int mode = STORE_READ; mode <= STORE_CREATE; mode++)
            FAILS(STATUS_INVALID, store_open(&store, path, (enum store_mode)mode, &err_), path,
                  "another program");
        OK(file_read(path, &after, &bytes_after, &err_));
        assert_int_equal(bytes_before, bytes_after);
        assert_memory_equal(before, after, bytes_before);
        free(before);
        free(after);
    }
}

static void test_store__files_that_are_no_database_are_refused(void **state)
{
    (void)state;
    const char *path = in_folder("text.db");
    struct store *store;
    char noise[8192];
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (char)(i * 37 + i / 256);
    static const size_t lengths[] = {1, 15, 16, 99, 100, 511, 512, 4096, sizeof(noise)};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        for (int mode = STORE_READ; mode <= STORE_CREATE; mode++) {
            write_file(path, noise, lengths[i]);
            FAILS(STATUS_INVALID, store_open(&store, path, (enum store_mode)mode, &err_), path,
                  "not a temper store");
        }
    }
}

/* Cut anywhere, a store is refused at the opening: it never passes for a shorter one. */
static void test_store__truncated_stores_are_refused(void **state)
{
    (void)state;
    const char *path = in_folder("whole.db"), *cut = in_folder("cut.db");
    char *data;
    size_t bytes;
    make_store(path, 400);
    OK(file_read(path, &data, &bytes, &err_));
    assert_true(bytes > 40000);
    for (size_t length = 1; length < bytes; length += length < 600 ? 37 : 1021) {
        for (int mode = STORE_READ; mode <= STORE_CREATE; mode++) {
            struct store *store = NULL;
            struct error err = {0};
            write_file(cut, data, length);
            enum status status = store_open(&store, cut, (enum store_mode)mode, &err);
            if (status != STATUS_CORRUPT && status != STATUS_INVALID)
                fail_msg("cut to %zu bytes: status %d: %s", length, status, err.message);
            assert_non_null(strstr(err.message, cut));
        }
    }
    free(data);
}

/* Bytes overwritten in the middle: an error or some rows, but never a crash or a hang. */
static void test_store__damaged_pages_do_no_harm(void **state)
{
    (void)state;
    const char *path = in_folder("sane.db"), *hurt = in_folder("hurt.db");
    char *data;
    size_t bytes, refused = 0;
    make_store(path, 200);
    OK(file_read(path, &data, &bytes, &err_));
    for (size_t at = 100; at + 64 < bytes; at += 997) {
        struct store *store;
        struct error err = {0};
        struct measurement_list list;
        char kept[64];
        memcpy(kept, data + at, sizeof(kept));
        memset(data + at, (int)(at % 3 * 127), sizeof(kept));
        write_file(hurt, data, bytes);
        memcpy(data + at, kept, sizeof(kept));
        if (store_open(&store, hurt, STORE_READ, &err) != STATUS_OK) {
            assert_non_null(strstr(err.message, hurt));
            refused++;
            continue;
        }
        if (store_measurements_load(store, NULL, &list, NULL, &err) == STATUS_OK)
            measurement_list_free(&list);
        else
            refused++;
        store_close(store);
    }
    assert_true(refused > 10);
    free(data);
}

/* ---- transactions ---- */

static void test_store__a_batch_is_whole_or_absent(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("batch.db"));
    struct profile_session session = example_session("box");
    struct measurement row = example_measurement();
    OK(store_begin(store, &err_));
    OK(store_profile_begin(store, &session, &err_));
    OK(store_measurement_add(store, session.id, &row, &err_));
    store_rollback(store);
    store_rollback(store);
    assert_int_equal(query(store, "SELECT count(*) FROM session"), 0);
    assert_int_equal(query(store, "SELECT count(*) FROM measurement"), 0);
    OK(store_begin(store, &err_));
    OK(store_profile_begin(store, &session, &err_));
    OK(store_commit(store, &err_));
    assert_int_equal(query(store, "SELECT count(*) FROM session"), 1);
    store_close(store);
}

static void test_store__a_writer_waits_for_another(void **state)
{
    (void)state;
    const char *path = in_folder("busy.db");
    make_store(path, 1);
    int ready[2], go[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct error err;
        struct store *store;
        CHILD_CHECK(store_open(&store, path, STORE_CREATE, &err) == STATUS_OK, err.message);
        CHILD_CHECK(store_begin(store, &err) == STATUS_OK, err.message);
        CHILD_CHECK(write(ready[1], &byte, 1) == 1, strerror(errno));
        CHILD_CHECK(read(go[0], &byte, 1) == 1, strerror(errno));
        usleep(300000);
        CHILD_CHECK(store_commit(store, &err) == STATUS_OK, err.message);
        store_close(store);
        _exit(0);
    }
    struct store *store;
    struct profile_session session = example_session("box");
    OK(store_open(&store, path, STORE_CREATE, &err_));
    assert_int_equal(read(ready[0], &byte, 1), 1);

    OK(sql_execute(store, "PRAGMA busy_timeout = 50", "testing", &err_));
    FAILS(STATUS_IO, store_profile_begin(store, &session, &err_), path, "another process");
    assert_int_equal(query(store, "SELECT count(*) FROM measurement"), 1); /* readers go on */
    OK(sql_execute(store, "PRAGMA busy_timeout = 10000", "testing", &err_));
    assert_int_equal(write(go[1], &byte, 1), 1);
    OK(store_profile_begin(store, &session, &err_));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    for (size_t i = 0; i < 2; i++) {
        close(ready[i]);
        close(go[i]);
    }
    store_close(store);
}

static void test_store__many_may_make_it_at_once(void **state)
{
    (void)state;
    const char *path = in_folder("race.db");
    enum { MAKERS = 6 };
    pid_t children[MAKERS];
    for (size_t i = 0; i < MAKERS; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            struct error err;
            struct store *store;
            struct profile_session session = example_session("box");
            CHILD_CHECK(store_open(&store, path, STORE_CREATE, &err) == STATUS_OK, err.message);
            CHILD_CHECK(store_profile_begin(store, &session, &err) == STATUS_OK, err.message);
            store_close(store);
            _exit(0);
        }
    }
    for (size_t i = 0; i < MAKERS; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    struct store *store;
    OK(store_open(&store, path, STORE_READ, &err_));
    assert_int_equal(query(store, "SELECT count(*) FROM session"), MAKERS);
    assert_sound(store);
    store_close(store);
}

/* ---- a machine that refuses ---- */

/* Add sessions until it fails; returns how many were stored. */
static int64_t fill_until_full(struct store *store, enum status *status, struct error *err)
{
    int64_t stored = 0;
    struct profile_session session = example_session("box");
    while ((*status = store_profile_begin(store, &session, err)) == STATUS_OK && stored < 100000)
        stored++;
    return stored;
}

static void test_store__a_full_store_keeps_its_rows(void **state)
{
    (void)state;
    const char *path = in_folder("full.db");
    struct store *store = open_new(path);
    struct error err = {0};
    enum status status;
    OK(sql_execute(store, "PRAGMA max_page_count = 40", "testing", &err_));
    int64_t stored = fill_until_full(store, &status, &err);
    assert_int_equal(status, STATUS_IO);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "disk is full"));
    assert_false(store_in_transaction(store));
    assert_true(stored > 10);
    assert_int_equal(query(store, "SELECT count(*) FROM session"), stored);

    /* The same inside the caller's own transaction: all of it is gone, the rest stays. */
    OK(store_begin(store, &err_));
    (void)fill_until_full(store, &status, &err);
    assert_int_equal(status, STATUS_IO);
    store_rollback(store);
    assert_int_equal(query(store, "SELECT count(*) FROM session"), stored);
    assert_sound(store);

    /* With room again the same connection goes on. */
    OK(sql_execute(store, "PRAGMA max_page_count = 4000", "testing", &err_));
    struct profile_session session = example_session("box");
    OK(store_profile_begin(store, &session, &err_));
    store_close(store);
}

static void on_a_small_disk(void)
{
    struct error err = {0};
    struct store *store;
    enum status status;
    char path[128];
    snprintf(path, sizeof(path), "%s/disk/full.db", folder);
    if (mkdir(in_folder("disk"), 0755) != 0 || unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", in_folder("disk"), "tmpfs", 0, "size=192k") != 0)
        return; /* only where one may mount: the limit on pages above stands for it elsewhere */
    CHILD_CHECK(store_open(&store, path, STORE_CREATE, &err) == STATUS_OK, err.message);
    int64_t stored = fill_until_full(store, &status, &err), found;
    CHILD_CHECK(status == STATUS_IO, err.message);
    CHILD_CHECK(strstr(err.message, "disk is full"), err.message);
    store_close(store);
    CHILD_CHECK(store_open(&store, path, STORE_READ, &err) == STATUS_OK, err.message);
    CHILD_CHECK(sql_integer(store, "SELECT count(*) FROM session", 0, &found, &err) == STATUS_OK,
                err.message);
    CHILD_CHECK(stored > 10 && found == stored, "rows that were committed are gone");
    store_close(store);
}

static void test_store__a_really_full_disk(void **state)
{
    (void)state;
    in_child(on_a_small_disk);
}

static void under_a_file_limit(void)
{
    struct error err = {0};
    struct store *store;
    enum status status;
    const struct rlimit limit = {200 * 1024, 200 * 1024};
    signal(SIGXFSZ, SIG_IGN);
    CHILD_CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0, strerror(errno));
    CHILD_CHECK(store_open(&store, in_folder("limit.db"), STORE_CREATE, &err) == STATUS_OK,
                err.message);
    int64_t stored = fill_until_full(store, &status, &err), found;
    CHILD_CHECK(status == STATUS_IO, err.message);
    CHILD_CHECK(strstr(err.message, "system refused"), err.message);
    CHILD_CHECK(sql_integer(store, "SELECT count(*) FROM session", 0, &found, &err) == STATUS_OK,
                err.message);
    CHILD_CHECK(stored > 10 && found == stored, "rows that were committed are gone");
    store_close(store);
}

static void test_store__a_refused_write_keeps_its_rows(void **state)
{
    (void)state;
    in_child(under_a_file_limit);
}

/* As a user who may write neither folder nor file. */
static void as_nobody(void)
{
    struct error err = {0};
    struct store *store;
    struct measurement_list list;
    const char *path = in_folder("readonly/store.db");
    CHILD_CHECK(geteuid() != 0 || setuid(65534) == 0, strerror(errno));
    CHILD_CHECK(store_open(&store, path, STORE_READ, &err) == STATUS_OK, err.message);
    CHILD_CHECK(store_measurements_load(store, NULL, &list, NULL, &err) == STATUS_OK, err.message);
    CHILD_CHECK(list.count == 5, "not all rows");
    measurement_list_free(&list);
    store_close(store);
    CHILD_CHECK(store_open(&store, path, STORE_CREATE, &err) == STATUS_IO, "opened for writing");
    CHILD_CHECK(strstr(err.message, path) && strstr(err.message, "cannot be written"), err.message);
    CHILD_CHECK(store_open(&store, in_folder("readonly/new.db"), STORE_CREATE, &err) == STATUS_IO,
                "made in a read-only folder");
    CHILD_CHECK(strstr(err.message, "readonly/new.db"), err.message);
}

/* The file may be written, its folder not: no journal can stand beside it. */
static void as_nobody_without_a_journal(void)
{
    struct error err = {0};
    struct store *store;
    struct profile_session session = example_session("box");
    CHILD_CHECK(geteuid() != 0 || setuid(65534) == 0, strerror(errno));
    CHILD_CHECK(store_open(&store, in_folder("readonly/store.db"), STORE_CREATE, &err) == STATUS_OK,
                err.message);
    CHILD_CHECK(store_profile_begin(store, &session, &err) == STATUS_IO, "written");
    CHILD_CHECK(strstr(err.message, "its folder cannot be written"), err.message);
    store_close(store);
}

static void test_store__a_read_only_folder_can_be_read(void **state)
{
    (void)state;
    assert_int_equal(mkdir(in_folder("readonly"), 0755), 0);
    make_store(in_folder("readonly/store.db"), 5);
    assert_int_equal(chmod(in_folder("readonly/store.db"), 0444), 0);
    assert_int_equal(chmod(in_folder("readonly"), 0555), 0);
    in_child(as_nobody);
    assert_int_equal(chmod(in_folder("readonly/store.db"), 0666), 0);
    in_child(as_nobody_without_a_journal);
    assert_int_equal(chmod(in_folder("readonly"), 0755), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__made_once_and_kept),
        cmocka_unit_test(test_store__a_missing_one_is_named_with_its_cure),
        cmocka_unit_test(test_store__reading_cannot_write),
        cmocka_unit_test(test_store__an_empty_file_is_filled_but_not_read),
        cmocka_unit_test(test_store__a_newer_version_is_refused_by_number),
        cmocka_unit_test(test_store__databases_of_others_are_refused_and_left_alone),
        cmocka_unit_test(test_store__files_that_are_no_database_are_refused),
        cmocka_unit_test(test_store__truncated_stores_are_refused),
        cmocka_unit_test(test_store__damaged_pages_do_no_harm),
        cmocka_unit_test(test_store__a_batch_is_whole_or_absent),
        cmocka_unit_test(test_store__a_writer_waits_for_another),
        cmocka_unit_test(test_store__many_may_make_it_at_once),
        cmocka_unit_test(test_store__a_full_store_keeps_its_rows),
        cmocka_unit_test(test_store__a_really_full_disk),
        cmocka_unit_test(test_store__a_refused_write_keeps_its_rows),
        cmocka_unit_test(test_store__a_read_only_folder_can_be_read),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
