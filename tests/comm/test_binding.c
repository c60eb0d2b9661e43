/* Ranks get units of their own where their threads fill the host, and are left alone elsewhere. */
#include "harness.h"

#include "executor/comm/binding.h"
#include <sched.h>
#include <stdlib.h>

static struct comm *comm;

static cpu_set_t allowed_units(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return set;
}

static void test_bind__threads_that_do_not_fill_the_host_are_left_alone(void **state)
{
    (void)state;
    cpu_set_t before = allowed_units(), after;
    bool bound = true;
    OK(comm_bind(comm, CPU_COUNT(&before) + 1, BIND_ALWAYS, &bound, &err_));
    assert_false(bound);
    after = allowed_units();
    assert_true(CPU_EQUAL(&before, &after));
}

/* Of all ranks together each unit is one's. The last test: what is bound stays so. */
static void test_bind__ranks_that_fill_the_host_share_it_out(void **state)
{
    (void)state;
    cpu_set_t before = allowed_units(), after;
    int size = comm_size(comm), units = CPU_COUNT(&before), threads = units / size;
    bool bound = false, fills = size > 1 && threads > 0 && threads * size == units;
    OK(comm_bind(comm, threads > 0 ? threads : 1, BIND_ALWAYS, &bound, &err_));
    assert_int_equal(bound, fills);
    after = allowed_units();
    if (!bound) {
        assert_true(CPU_EQUAL(&before, &after));
        return;
    }
    assert_int_equal(CPU_COUNT(&after), threads);
    cpu_set_t *all = calloc((size_t)size, sizeof(*all)), together;
    assert_non_null(all);
    OK(comm_all_gather(comm, &after, all, sizeof(after), &err_));
    CPU_ZERO(&together);
    for (int rank = 0; rank < size; rank++)
        CPU_OR(&together, &together, &all[rank]);
    assert_true(CPU_EQUAL(&together, &before));
    free(all);
}

int main(void)
{
    struct error err;
    if (comm_open(&comm, &err) != STATUS_OK) {
        fprintf(stderr, "comm_open: %s\n", err.message);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bind__threads_that_do_not_fill_the_host_are_left_alone),
        cmocka_unit_test(test_bind__ranks_that_fill_the_host_share_it_out),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failures;
}
