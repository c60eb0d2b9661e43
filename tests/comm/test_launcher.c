#include "executor/comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const variables[] = {
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE",     "PMI_RANK",     "PMIX_RANK",
    "SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID",        "SLURM_PROCID", "SLURM_NTASKS",
};

static void clear_environment(void)
{
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        assert_int_equal(unsetenv(variables[i]), 0);
}

struct setting {
    const char *name, *value;
};

static void expect(const struct setting *settings, size_t count, int ranks, int rank)
{
    clear_environment();
    for (size_t i = 0; i < count; i++)
        assert_int_equal(setenv(settings[i].name, settings[i].value, 1), 0);
    assert_int_equal(comm_launched_ranks(), ranks);
    assert_int_equal(comm_launched_rank(), rank);
    clear_environment();
}

#define EXPECT(ranks, rank, ...)                                                                   \
    do {                                                                                           \
        const struct setting settings_[] = {__VA_ARGS__};                                          \
        expect(settings_, sizeof(settings_) / sizeof(settings_[0]), ranks, rank);                  \
    } while (0)

static void test_launcher__nothing_set_is_not_launched(void **state)
{
    (void)state;
    clear_environment();
    assert_int_equal(comm_launched_ranks(), 0);
    assert_int_equal(comm_launched_rank(), 0);
}

static void test_launcher__every_launcher_is_seen(void **state)
{
    (void)state;
    EXPECT(4, 3, {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "3"});
    EXPECT(2, 0, {"PMI_SIZE", "2"}, {"PMI_RANK", "0"});
    EXPECT(8, 5, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "5"}, {"SLURM_STEP_NUM_TASKS", "8"},
           {"PMIX_RANK", "5"});
    EXPECT(1, 0, {"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"});
}

static void test_launcher__mpirun_inside_a_batch_job_wins(void **state)
{
    (void)state;
    EXPECT(3, 2, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"},
           {"PMIX_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "3"}, {"OMPI_COMM_WORLD_RANK", "2"});
}

static void test_launcher__a_batch_script_is_not_a_rank(void **state)
{
    (void)state;
    EXPECT(0, 0, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"});
    EXPECT(0, 0, {"SLURM_STEP_NUM_TASKS", "4"}, {"PMIX_RANK", "0"});
}

/* MPI cannot join such ranks and says so, which is better than as many whole jobs side by side. */
static void test_launcher__srun_without_pmi_counts_from_two_tasks_on(void **state)
{
    (void)state;
    EXPECT(4, 1, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "4"});
    EXPECT(0, 0, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"});
}

static void test_launcher__half_or_broken_settings_are_not_a_launch(void **state)
{
    (void)state;
    EXPECT(0, 0, {"OMPI_COMM_WORLD_SIZE", "4"});
    EXPECT(0, 0, {"OMPI_COMM_WORLD_RANK", "0"});
    EXPECT(0, 0, {"PMI_RANK", "0"});
    static const struct setting broken[][2] = {
        {{"OMPI_COMM_WORLD_SIZE", ""}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", "4x"}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", " 4"}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", "-4"}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", "0"}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "4"}},
        {{"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_RANK", "-1"}},
        {{"OMPI_COMM_WORLD_SIZE", "4294967297"}, {"OMPI_COMM_WORLD_RANK", "0"}},
        {{"OMPI_COMM_WORLD_SIZE", "99999999999999999999999"}, {"OMPI_COMM_WORLD_RANK", "0"}},
    };
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
        expect(broken[i], 2, 0, 0);
}

static void test_launcher__a_broken_row_lets_the_next_speak(void **state)
{
    (void)state;
    EXPECT(2, 1, {"OMPI_COMM_WORLD_SIZE", "junk"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"PMI_SIZE", "2"},
           {"PMI_RANK", "1"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launcher__nothing_set_is_not_launched),
        cmocka_unit_test(test_launcher__every_launcher_is_seen),
        cmocka_unit_test(test_launcher__mpirun_inside_a_batch_job_wins),
        cmocka_unit_test(test_launcher__a_batch_script_is_not_a_rank),
        cmocka_unit_test(test_launcher__srun_without_pmi_counts_from_two_tasks_on),
        cmocka_unit_test(test_launcher__half_or_broken_settings_are_not_a_launch),
        cmocka_unit_test(test_launcher__a_broken_row_lets_the_next_speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
