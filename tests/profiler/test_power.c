/* Joules of timed work: counted, modelled or absent. */
#include "base/file.h"
#include "profiler/power.h"
#include "support.h"
#include <stdio.h>
#include <unistd.h>

enum { PATH_BYTES = 128 };

struct fixture {
    char root[48];
    struct heard heard;
    struct measurement_sink sink;
    struct profile_request request;
    struct session session;
};

static void write_number(const struct fixture *fixture, const char *file, const char *text)
{
    struct error err;
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/intel-rapl:0/%s", fixture->root, file);
    assert_int_equal(file_write(path, text, strlen(text), &err), STATUS_OK);
}

static int setup(void **state)
{
    struct error err;
    char folder[PATH_BYTES];
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    (void)snprintf(fixture->root, sizeof(fixture->root), "/tmp/temper-power-XXXXXX");
    assert_non_null(mkdtemp(fixture->root));
    (void)snprintf(folder, sizeof(folder), "%s/intel-rapl:0", fixture->root);
    assert_int_equal(folder_create(folder, &err), STATUS_OK);
    write_number(fixture, "name", "package-0");
    write_number(fixture, "max_energy_range_uj", "262143328850");
    write_number(fixture, "energy_uj", "1000000");
    fixture->sink = (struct measurement_sink){&fixture->heard, hear_row};
    fixture->request.power = (struct power_model){-1, -1};
    fixture->session.request = &fixture->request;
    fixture->session.sink = &fixture->sink;
    assert_int_equal(comm_open(&fixture->session.comm, &err), STATUS_OK);
    assert_int_equal(device_open(&fixture->session.device, 1, &err), STATUS_OK);
    assert_int_equal(energy_open(&fixture->session.meter, fixture->root, &err), STATUS_OK);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    struct error err;
    energy_close(fixture->session.meter);
    device_close(fixture->session.device);
    comm_close(fixture->session.comm);
    assert_int_equal(folder_remove(fixture->root, &err), STATUS_OK);
    free(fixture);
    return 0;
}

static const struct measurement *emit(struct fixture *fixture, const struct energy_tally *tally)
{
    struct error err;
    struct measurement row = {.subject = "work", .metric = METRIC_FORWARD_J};
    struct summary seconds = {.n = 7, .mean = 0.5, .deviation = 0.1};
    assert_int_equal(power_emit(&fixture->session, row, &seconds, tally, &err), STATUS_OK);
    assert_int_equal(fixture->heard.count, 1);
    return &fixture->heard.rows[0];
}

static void test_power__counts_what_a_phase_used(void **state)
{
    struct fixture *fixture = *state;
    struct error err;
    struct energy_reading reading;
    struct energy_tally tally = {0};
    assert_int_equal(power_read(&fixture->session, &reading, &err), STATUS_OK);
    write_number(fixture, "energy_uj", "31000000");
    assert_int_equal(power_add(&fixture->session, &reading, &tally, &err), STATUS_OK);
    assert_near(tally.joules, 30.0, 1e-9);
    assert_true(tally.seconds > 0);
    write_number(fixture, "energy_uj", "36000000");
    assert_int_equal(power_add(&fixture->session, &reading, &tally, &err), STATUS_OK);
    assert_near(tally.joules, 35.0, 1e-9); /* from the last reading on */
}

static void test_power__measured_joules_are_watts_times_seconds(void **state)
{
    struct fixture *fixture = *state;
    struct energy_tally tally = {.joules = 30, .seconds = 2};
    fixture->request.power = (struct power_model){1, 2}; /* the counter stands before it */
    const struct measurement *row = emit(fixture, &tally);
    assert_int_equal(row->provenance, PROVENANCE_MEASURED);
    assert_int_equal(row->n, 7);
    assert_near(row->mean, 7.5, 1e-12);
    assert_near(row->deviation, 1.5, 1e-12);
}

static void test_power__is_modelled_between_idle_and_active(void **state)
{
    struct fixture *fixture = *state;
    struct energy_tally tally = {0};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    energy_close(fixture->session.meter);
    fixture->session.meter = NULL;
    fixture->request.power = (struct power_model){40, 100};
    const struct measurement *row = emit(fixture, &tally);
    assert_int_equal(row->provenance, PROVENANCE_MODELLED);
    assert_near(row->mean, 0.5 * (40 + 60.0 / (double)cores), 1e-9);
}

static void test_power__is_absent_rather_than_zero(void **state)
{
    struct fixture *fixture = *state;
    struct energy_tally tally = {0};
    energy_close(fixture->session.meter);
    fixture->session.meter = NULL;
    fixture->request.power = (struct power_model){-1, 100}; /* half of a model is none */
    const struct measurement *row = emit(fixture, &tally);
    assert_int_equal(row->provenance, PROVENANCE_ABSENT);
    assert_int_equal(row->n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power__counts_what_a_phase_used, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power__measured_joules_are_watts_times_seconds, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_power__is_modelled_between_idle_and_active, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_power__is_absent_rather_than_zero, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
