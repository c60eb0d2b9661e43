/* The energy meter on recorded powercap trees. */
#include "base/file.h"
#include "profiler/energy.h"
#include "support.h"
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH_BYTES = 256 };

struct tree {
    char root[64];
};

static int tree_setup(void **state)
{
    struct tree *tree = calloc(1, sizeof(*tree));
    assert_non_null(tree);
    (void)snprintf(tree->root, sizeof(tree->root), "/tmp/temper-powercap-XXXXXX");
    assert_non_null(mkdtemp(tree->root));
    assert_int_equal(chmod(tree->root, 0755), 0);
    *state = tree;
    return 0;
}

static int tree_teardown(void **state)
{
    struct tree *tree = *state;
    struct error err;
    assert_int_equal(folder_remove(tree->root, &err), STATUS_OK);
    free(tree);
    return 0;
}

static void write_text(const struct tree *tree, const char *domain, const char *file,
                       const char *text)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/%s", tree->root, domain);
    (void)mkdir(path, 0755);
    (void)snprintf(path, sizeof(path), "%s/%s/%s", tree->root, domain, file);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fprintf(out, "%s\n", text) > 0);
    assert_int_equal(fclose(out), 0);
}

static void set_energy(const struct tree *tree, const char *domain, uint64_t energy_uj)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%" PRIu64, energy_uj);
    write_text(tree, domain, "energy_uj", text);
}

static void add_domain(const struct tree *tree, const char *domain, const char *name,
                       uint64_t energy_uj, uint64_t range_uj)
{
    char text[32];
    write_text(tree, domain, "name", name);
    set_energy(tree, domain, energy_uj);
    (void)snprintf(text, sizeof(text), "%" PRIu64, range_uj);
    write_text(tree, domain, "max_energy_range_uj", text);
}

static struct energy_meter *open_meter(const struct tree *tree)
{
    struct energy_meter *meter = NULL;
    struct error err;
    assert_int_equal(energy_open(&meter, tree->root, &err), STATUS_OK);
    return meter;
}

static double read_joules(struct energy_meter *meter)
{
    struct error err;
    double joules = -1;
    assert_int_equal(energy_read_joules(meter, &joules, &err), STATUS_OK);
    return joules;
}

#define RANGE UINT64_C(262143328850)

static void test_energy__counts_packages_once_and_the_memory_beside_them(void **state)
{
    const struct tree *tree = *state;
    static const struct {
        const char *domain, *name;
        uint64_t gain_uj;
    } domains[] = {
        {"intel-rapl:0", "package-0", 1000000},       {"intel-rapl:0:0", "core", 700000},
        {"intel-rapl:0:1", "uncore", 100000},         {"intel-rapl:0:2", "dram", 250000},
        {"intel-rapl:1", "package-1", 3000000},       {"intel-rapl:2", "psys", 9000000},
        {"intel-rapl-mmio:0", "package-0", 50000000},
    };
    size_t count = sizeof(domains) / sizeof(domains[0]);
    for (size_t i = 0; i < count; i++)
        add_domain(tree, domains[i].domain, domains[i].name, 5000, RANGE);
    struct energy_meter *meter = open_meter(tree);
    assert_true(energy_available(meter));
    assert_string_equal(energy_source(meter),
                        "intel-rapl:0 package-0, intel-rapl:0:2 dram, intel-rapl:1 package-1");
    assert_near(read_joules(meter), 0.0, 1e-12);
    for (size_t i = 0; i < count; i++)
        set_energy(tree, domains[i].domain, 5000 + domains[i].gain_uj);
    assert_near(read_joules(meter), 4.25, 1e-9);
    assert_near(read_joules(meter), 4.25, 1e-9);
    energy_close(meter);
}

static void test_energy__goes_on_when_the_counter_wraps(void **state)
{
    const struct tree *tree = *state;
    static const uint64_t ranges[] = {UINT64_C(4294967295), RANGE, UINT64_MAX};
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        add_domain(tree, "intel-rapl:0", "package-0", ranges[i] - 1500000, ranges[i]);
        struct energy_meter *meter = open_meter(tree);
        assert_true(energy_available(meter));
        set_energy(tree, "intel-rapl:0", 500000);
        assert_near(read_joules(meter), 2.0, 1e-6);
        set_energy(tree, "intel-rapl:0", 1500000);
        assert_near(read_joules(meter), 3.0, 1e-6);
        set_energy(tree, "intel-rapl:0", 0);
        double wrapped = read_joules(meter);
        assert_true(wrapped > 4000.0); /* almost a whole range more */
        energy_close(meter);
    }
}

static void test_energy__a_counter_above_its_range_was_reset(void **state)
{
    const struct tree *tree = *state;
    add_domain(tree, "intel-rapl:0", "package-0", 2000000, 1000000);
    struct energy_meter *meter = open_meter(tree);
    set_energy(tree, "intel-rapl:0", 500000);
    assert_near(read_joules(meter), 0.5, 1e-9);
    energy_close(meter);
}

static void expect_unavailable(const struct tree *tree, const char *why)
{
    struct error err;
    double joules = -1;
    struct energy_meter *meter = open_meter(tree);
    assert_false(energy_available(meter));
    assert_non_null(strstr(energy_source(meter), why));
    assert_int_equal(energy_read_joules(meter, &joules, &err), STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, why));
    assert_near(joules, -1, 0);
    energy_close(meter);
}

static void test_energy__is_absent_without_counters(void **state)
{
    const struct tree *tree = *state;
    struct tree missing = {"/tmp/temper-no-such-folder"};
    expect_unavailable(&missing, "No such file or directory");
    expect_unavailable(tree, "no package energy counter");
    write_text(tree, "intel-rapl", "enabled", "1"); /* the control type, which has no counter */
    add_domain(tree, "intel-rapl:2", "psys", 1, RANGE);
    expect_unavailable(tree, "no package energy counter");
}

static void test_energy__one_unusable_package_makes_the_sum_unavailable(void **state)
{
    const struct tree *tree = *state;
    add_domain(tree, "intel-rapl:0", "package-0", 1, RANGE);
    add_domain(tree, "intel-rapl:1", "package-1", 1, RANGE);
    static const char *const bad[] = {"", "-5", "12x", "nan", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(tree, "intel-rapl:1", "energy_uj", bad[i]);
        expect_unavailable(tree, "intel-rapl:1/energy_uj");
    }
    set_energy(tree, "intel-rapl:1", 1);
    write_text(tree, "intel-rapl:1", "max_energy_range_uj", "0");
    expect_unavailable(tree, "intel-rapl:1/max_energy_range_uj");
}

/* As another user when the test runs as root, whom permissions do not stop. */
static void test_energy__is_absent_when_reading_is_denied(void **state)
{
    const struct tree *tree = *state;
    char path[PATH_BYTES];
    add_domain(tree, "intel-rapl:0", "package-0", 1, RANGE);
    (void)snprintf(path, sizeof(path), "%s/intel-rapl:0/energy_uj", tree->root);
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() != 0) {
        expect_unavailable(tree, "Permission denied");
        return;
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct energy_meter *meter = NULL;
        struct error err;
        bool is_denied = setgroups(0, NULL) == 0 && setgid(65534) == 0 && setuid(65534) == 0 &&
                         energy_open(&meter, tree->root, &err) == STATUS_OK &&
                         !energy_available(meter) &&
                         strstr(energy_source(meter), "Permission denied");
        energy_close(meter);
        _exit(is_denied ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_energy__a_counter_that_vanishes_is_an_error(void **state)
{
    const struct tree *tree = *state;
    char path[PATH_BYTES];
    struct error err;
    double joules = -1;
    add_domain(tree, "intel-rapl:0", "package-0", 1, RANGE);
    struct energy_meter *meter = open_meter(tree);
    (void)snprintf(path, sizeof(path), "%s/intel-rapl:0/energy_uj", tree->root);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(energy_read_joules(meter, &joules, &err), STATUS_IO);
    assert_non_null(strstr(err.message, path));
    energy_close(meter);
}

static void test_energy__opens_on_this_machine(void **state)
{
    (void)state;
    struct energy_meter *meter = NULL;
    struct error err;
    assert_int_equal(energy_open(&meter, NULL, &err), STATUS_OK);
    assert_true(strlen(energy_source(meter)) > 0);
    if (energy_available(meter))
        assert_true(read_joules(meter) >= 0);
    energy_close(meter);
    energy_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            test_energy__counts_packages_once_and_the_memory_beside_them, tree_setup,
            tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__goes_on_when_the_counter_wraps, tree_setup,
                                        tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__a_counter_above_its_range_was_reset,
                                        tree_setup, tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__is_absent_without_counters, tree_setup,
                                        tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__one_unusable_package_makes_the_sum_unavailable,
                                        tree_setup, tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__is_absent_when_reading_is_denied, tree_setup,
                                        tree_teardown),
        cmocka_unit_test_setup_teardown(test_energy__a_counter_that_vanishes_is_an_error,
                                        tree_setup, tree_teardown),
        cmocka_unit_test(test_energy__opens_on_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
