#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[64];

static const char *in_folder(const char *name)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/temper-file-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    struct error err;
    return folder_remove(folder, &err) == STATUS_OK ? 0 : -1;
}

static void put(const char *name, const char *content)
{
    struct error err;
    if (file_write(in_folder(name), content, strlen(content), &err) != STATUS_OK)
        fail_msg("%s", err.message);
}

static void assert_content(const char *name, const char *expected)
{
    char *data = NULL;
    size_t bytes = 0;
    struct error err;
    if (file_read(in_folder(name), &data, &bytes, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(data, expected);
    free(data);
}

/* Temporary files left behind would be found here. */
static void assert_entries(int expected)
{
    char command[128];
    int count = -1;
    (void)snprintf(command, sizeof(command), "ls -A %s | wc -l", folder);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%d", &count), 1);
    pclose(pipe);
    assert_int_equal(count, expected);
}

static void test_file__write_then_read(void **state)
{
    (void)state;
    put("a", "");
    assert_content("a", "");
    put("a", "second");
    assert_content("a", "second");
    assert_entries(1);
}

static void test_file__pieces_of_any_size_are_kept_in_order(void **state)
{
    (void)state;
    const size_t sizes[] = {0, 1, 65535, 65536, 65537, 3, 200000, 65536, 7, 0, 131072};
    struct file_out *out = NULL;
    struct error err;
    size_t total = 0, bytes = 0;
    char *piece = malloc(200000), *data = NULL;
    assert_non_null(piece);
    assert_int_equal(file_out_open(&out, in_folder("pieces"), &err), STATUS_OK);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t j = 0; j < sizes[i]; j++)
            piece[j] = (char)((total + j) % 251);
        assert_int_equal(file_out_write(out, piece, sizes[i], &err), STATUS_OK);
        total += sizes[i];
    }
    assert_false(file_exists(in_folder("pieces")));
    assert_int_equal(file_out_commit(out, &err), STATUS_OK);
    assert_int_equal(file_read(in_folder("pieces"), &data, &bytes, &err), STATUS_OK);
    assert_int_equal(bytes, total);
    for (size_t i = 0; i < total; i++)
        if (data[i] != (char)(i % 251))
            fail_msg("byte %zu differs", i);
    assert_int_equal(data[bytes], '\0');
    free(data);
    free(piece);
    assert_entries(1);
}

/* In what is still buffered and in what has been written; what follows goes behind the end. */
static void test_file__bytes_can_be_written_over(void **state)
{
    (void)state;
    struct file_out *out = NULL;
    struct error err;
    char *block = calloc(100000, 1), *data = NULL;
    size_t bytes = 0;
    assert_non_null(block);
    assert_int_equal(file_out_open(&out, in_folder("over"), &err), STATUS_OK);
    assert_int_equal(file_out_write(out, "head", 4, &err), STATUS_OK);
    assert_int_equal(file_out_rewrite(out, 1, "EA", 2, &err), STATUS_OK);
    assert_int_equal(file_out_write(out, block, 100000, &err), STATUS_OK);
    assert_int_equal(file_out_write(out, "tail", 4, &err), STATUS_OK);
    assert_int_equal(file_out_rewrite(out, 0, "H", 1, &err), STATUS_OK);
    assert_int_equal(file_out_rewrite(out, 100006, "IL", 2, &err), STATUS_OK);
    assert_int_equal(file_out_write(out, "!", 1, &err), STATUS_OK);
    assert_int_equal(file_out_commit(out, &err), STATUS_OK);
    assert_int_equal(file_read(in_folder("over"), &data, &bytes, &err), STATUS_OK);
    assert_int_equal(bytes, 100009);
    assert_memory_equal(data, "HEAd", 4);
    assert_memory_equal(data + 4, block, 100000);
    assert_memory_equal(data + 100004, "taIL!", 5);
    free(block);
    free(data);
}

static void test_file__discard_leaves_the_target(void **state)
{
    (void)state;
    struct file_out *out = NULL;
    struct error err;
    put("a", "old");
    assert_int_equal(file_out_open(&out, in_folder("a"), &err), STATUS_OK);
    assert_int_equal(file_out_write(out, "new", 3, &err), STATUS_OK);
    file_out_discard(out);
    file_out_discard(NULL);
    assert_content("a", "old");
    assert_entries(1);
}

static void test_file__a_process_that_dies_leaves_the_target(void **state)
{
    (void)state;
    put("a", "old");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct file_out *out = NULL;
        struct error err;
        char block[100000] = "new";
        if (file_out_open(&out, in_folder("a"), &err) == STATUS_OK)
            (void)file_out_write(out, block, sizeof(block), &err);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_content("a", "old");
    put("a", "newer"); /* what the dead process left is not in the way */
    assert_content("a", "newer");
}

/* The limit on a file's size stands in for a full disk: the write fails half-way. */
static void test_file__a_write_that_fails_leaves_the_target(void **state)
{
    (void)state;
    static char big[300000];
    struct rlimit before, limited;
    struct error err;
    put("a", "old");
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limited = before;
    limited.rlim_cur = 100000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
    memset(big, 'n', sizeof(big));
    enum status whole = file_write(in_folder("a"), big, sizeof(big), &err);
    struct file_out *out = NULL;
    struct error late;
    enum status open = file_out_open(&out, in_folder("a"), &late);
    enum status status = STATUS_OK;
    for (int i = 0; open == STATUS_OK && status == STATUS_OK && i < 300; i++)
        status = file_out_write(out, big, 1000, &late);
    file_out_discard(out);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(whole, STATUS_IO);
    assert_non_null(strstr(err.message, in_folder("a")));
    assert_non_null(strstr(err.message, "File too large"));
    assert_int_equal(open, STATUS_OK);
    assert_int_equal(status, STATUS_IO);
    assert_content("a", "old");
    assert_entries(1);
}

static void test_file__a_full_device_is_reported(void **state)
{
    (void)state;
    struct error err;
    if (access("/dev/full", W_OK) != 0)
        skip();
    assert_int_equal(file_write("/dev/full", "x", 1, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "No space left"));
    assert_non_null(strstr(err.message, "/dev/full"));
}

static void test_file__devices_and_pipes_are_not_replaced(void **state)
{
    (void)state;
    struct stat info;
    struct error err;
    char got[8] = "";
    assert_int_equal(file_write("/dev/null", "x", 1, &err), STATUS_OK);
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    assert_int_equal(mkfifo(in_folder("pipe"), 0600), 0);
    int reader = open(in_folder("pipe"), O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    put("pipe", "hello");
    assert_int_equal(read(reader, got, sizeof(got)), 5);
    assert_string_equal(got, "hello");
    close(reader);
    assert_int_equal(stat(in_folder("pipe"), &info), 0);
    assert_true(S_ISFIFO(info.st_mode));
}

static void test_file__links_and_permissions_survive(void **state)
{
    (void)state;
    struct stat info;
    put("real", "old");
    assert_int_equal(chmod(in_folder("real"), 0640), 0);
    assert_int_equal(symlink("real", in_folder("link")), 0);
    put("link", "new");
    assert_content("real", "new");
    assert_int_equal(lstat(in_folder("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(in_folder("real"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0640);
    mode_t mask = umask(027);
    put("fresh", "x");
    umask(mask);
    assert_int_equal(stat(in_folder("fresh"), &info), 0);
    assert_int_equal(info.st_mode & 07777, 0640);
}

static void test_file__errors_name_path_and_cause(void **state)
{
    (void)state;
    char *data = NULL;
    size_t bytes = 0;
    struct error err;
    struct file_out *out = NULL;
    assert_int_equal(file_read(in_folder("none"), &data, &bytes, &err), STATUS_IO);
    assert_non_null(strstr(err.message, in_folder("none")));
    assert_non_null(strstr(err.message, "No such file"));
    assert_int_equal(file_read(folder, &data, &bytes, &err), STATUS_IO);
    assert_non_null(strstr(err.message, "folder"));
    assert_int_equal(file_out_open(&out, folder, &err), STATUS_IO);
    assert_int_equal(file_out_open(&out, in_folder("no/such/place"), &err), STATUS_IO);
    assert_non_null(strstr(err.message, "no/such/place"));
    assert_int_equal(file_out_open(&out, "", &err), STATUS_IO);
    assert_null(out);
    assert_null(data);
}

static void test_file__a_file_of_unknown_size_is_read_whole(void **state)
{
    (void)state;
    char *data = NULL;
    size_t bytes = 0;
    struct error err;
    assert_int_equal(file_read("/proc/self/smaps", &data, &bytes, &err), STATUS_OK);
    assert_true(bytes > 16384);
    assert_int_equal(strlen(data), bytes);
    free(data);
}

struct writer {
    const char *path;
    char letter;
};

static void *write_often(void *argument)
{
    const struct writer *writer = argument;
    char block[50000];
    struct error err;
    memset(block, writer->letter, sizeof(block));
    for (int i = 0; i < 10; i++)
        if (file_write(writer->path, block, sizeof(block), &err) != STATUS_OK)
            return argument;
    return NULL;
}

static void test_file__writers_side_by_side_never_mix(void **state)
{
    (void)state;
    const char *path = in_folder("shared");
    struct writer writers[4] = {{path, 'a'}, {path, 'b'}, {path, 'c'}, {path, 'd'}};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_often, &writers[i]), 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    char *data = NULL;
    size_t bytes = 0;
    struct error err;
    assert_int_equal(file_read(in_folder("shared"), &data, &bytes, &err), STATUS_OK);
    assert_int_equal(bytes, 50000);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(data[i], data[0]);
    free(data);
    assert_entries(1);
}

static void test_file__folders_are_made_and_removed(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(folder_create(in_folder("x/y//z/"), &err), STATUS_OK);
    assert_true(folder_exists(in_folder("x/y/z")));
    assert_int_equal(folder_create(in_folder("x/y/z"), &err), STATUS_OK);
    assert_int_equal(folder_create("/", &err), STATUS_OK);
    assert_int_equal(folder_create("", &err), STATUS_IO);
    put("x/y/file", "1");
    assert_true(file_exists(in_folder("x/y/file")));
    assert_false(folder_exists(in_folder("x/y/file")));
    assert_false(file_exists(in_folder("x/y")));
    assert_int_equal(folder_create(in_folder("x/y/file/below"), &err), STATUS_IO);
    assert_int_equal(folder_create(in_folder("x/y/file"), &err), STATUS_IO);
    assert_non_null(strstr(err.message, "is a file"));
    assert_int_equal(folder_sync(in_folder("x"), &err), STATUS_OK);
    assert_int_equal(folder_sync(in_folder("none"), &err), STATUS_IO);
    assert_int_equal(folder_remove(in_folder("x/y/file"), &err), STATUS_IO);
    assert_int_equal(folder_remove(in_folder("x"), &err), STATUS_OK);
    assert_false(folder_exists(in_folder("x")));
    assert_int_equal(folder_remove(in_folder("x"), &err), STATUS_IO);
    assert_non_null(strstr(err.message, in_folder("x")));
}

static void test_file__removing_a_folder_does_not_follow_links(void **state)
{
    (void)state;
    struct error err;
    assert_int_equal(folder_create(in_folder("kept"), &err), STATUS_OK);
    put("kept/precious", "1");
    assert_int_equal(folder_create(in_folder("doomed/in"), &err), STATUS_OK);
    assert_int_equal(symlink("../../kept", in_folder("doomed/in/link")), 0);
    assert_int_equal(symlink("kept", in_folder("direct")), 0);
    assert_int_equal(folder_remove(in_folder("direct"), &err), STATUS_IO);
    assert_int_equal(folder_remove(in_folder("doomed"), &err), STATUS_OK);
    assert_content("kept/precious", "1");
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_file__write_then_read),
        IN_FOLDER(test_file__pieces_of_any_size_are_kept_in_order),
        IN_FOLDER(test_file__bytes_can_be_written_over),
        IN_FOLDER(test_file__discard_leaves_the_target),
        IN_FOLDER(test_file__a_process_that_dies_leaves_the_target),
        IN_FOLDER(test_file__a_write_that_fails_leaves_the_target),
        IN_FOLDER(test_file__a_full_device_is_reported),
        IN_FOLDER(test_file__devices_and_pipes_are_not_replaced),
        IN_FOLDER(test_file__links_and_permissions_survive),
        IN_FOLDER(test_file__errors_name_path_and_cause),
        IN_FOLDER(test_file__a_file_of_unknown_size_is_read_whole),
        IN_FOLDER(test_file__writers_side_by_side_never_mix),
        IN_FOLDER(test_file__folders_are_made_and_removed),
        IN_FOLDER(test_file__removing_a_folder_does_not_follow_links),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
