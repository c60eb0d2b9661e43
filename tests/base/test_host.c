#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/host.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_host__describes_this_machine(void **state)
{
    (void)state;
    struct host_info host;
    char name[64] = "";
    host_query(&host);
    assert_int_equal(gethostname(name, sizeof(name) - 1), 0);
    assert_string_equal(host.name, name);
    assert_true(host.cpu[0] != '\0');
    assert_null(strchr(host.cpu, '\n'));
    assert_true(host.cores >= 1);
    assert_true(host.cores <= sysconf(_SC_NPROCESSORS_CONF));
    assert_true(host.memory_bytes > 64u << 20);
}

/* In a child, so that the other tests keep their cores. */
static void test_host__cores_follow_the_affinity(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cpu_set_t allowed, one;
        size_t cpu = 0;
        struct host_info host;
        if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
            _exit(2);
        while (!CPU_ISSET(cpu, &allowed))
            cpu++;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (sched_setaffinity(0, sizeof(one), &one) != 0)
            _exit(3);
        host_query(&host);
        _exit(host.cores == 1 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_host__memory_in_use_follows_what_is_touched(void **state)
{
    (void)state;
    const size_t block_bytes = 64u << 20;
    uint64_t before = host_process_rss_bytes();
    assert_true(before > 0);
    volatile char *block = malloc(block_bytes);
    assert_non_null(block);
    for (size_t i = 0; i < block_bytes; i += 1024)
        block[i] = 1;
    uint64_t during = host_process_rss_bytes();
    free((void *)block);
    assert_true(during >= before + block_bytes * 9 / 10);
    assert_true(host_process_peak_rss_bytes() + (4u << 20) >= during); /* counted in batches */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host__describes_this_machine),
        cmocka_unit_test(test_host__cores_follow_the_affinity),
        cmocka_unit_test(test_host__memory_in_use_follows_what_is_touched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
