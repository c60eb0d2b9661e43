#include "support.h"

#include "ir/machine.h"

static enum status load_text(const char *text, struct machine *machine, struct error *err)
{
    const char *path = temporary_file(text);
    enum status status = machine_load(machine, path, err);
    if (status != STATUS_OK)
        assert_contains(err->message, path);
    unlink(path);
    return status;
}

static const char minimal[] = "{\"format\": \"temper-machine\", \"version\": 1, \"name\": \"m\", "
                              "\"groups\": [{\"name\": \"g\", \"nodes\": 1, "
                              "\"devices_per_node\": 2}]}";

static void test_machine__page_example_loads(void **state)
{
    (void)state;
    char *text = page_example("docs/cluster.md");
    struct machine machine;
    struct error err;
    assert_ok(load_text(text, &machine, &err), &err);
    assert_int_equal(machine.group_count, 2);
    assert_true(machine.groups[0].power.idle_watts >= 0.0);
    assert_true(machine.groups[0].power.active_watts > machine.groups[0].power.idle_watts);
    assert_true(machine.groups[0].device_memory_bytes > 0);
    assert_true(machine.price_per_device_hour > 0.0);
    assert_true(machine.carbon_grams_per_kwh > 0.0);
    assert_int_equal(strlen(machine.carbon_date), 10);
    free(text);
}

static void test_machine__what_is_not_given_is_marked(void **state)
{
    (void)state;
    struct machine machine;
    struct error err;
    assert_ok(load_text(minimal, &machine, &err), &err);
    assert_int_equal(machine.groups[0].devices_per_node, 2);
    assert_int_equal(machine.groups[0].device_memory_bytes, 0);
    assert_true(machine.groups[0].power.idle_watts < 0.0);
    assert_true(machine.groups[0].power.active_watts < 0.0);
    assert_true(machine.price_per_device_hour < 0.0);
    assert_true(machine.carbon_grams_per_kwh < 0.0);
    assert_string_equal(machine.carbon_date, "");
}

static void test_machine__hostile_files_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *old, *by, *part;
    } cases[] = {
        {"temper-machine", "temper-plan", "format"},
        {"\"version\": 1", "\"version\": 2", "newer"},
        {"\"version\": 1", "\"version\": 0", "version"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"\"name\": \"m\", ", "", "name"},
        {"\"nodes\": 1", "\"nodes\": 0", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": 1e9", "groups[0].nodes"},
        {"\"nodes\": 1, ", "", "groups[0].nodes"},
        {"\"nodes\": 1", "\"nodes\": 1, \"noddes\": 1", "noddes"},
        {"\"version\": 1", "\"version\": 1, \"price\": 1", "price"},
        {"[{", "[3, {", "groups[0]"},
        {"[{\"name\": \"g\", \"nodes\": 1, \"devices_per_node\": 2}]", "[]", "groups"},
        {"[{\"name\": \"g\", \"nodes\": 1, \"devices_per_node\": 2}]", "{}", "groups"},
        {"\"nodes\": 1", "\"nodes\": 1, \"power\": {\"idle_watts\": 5}", "active_watts"},
        {"\"nodes\": 1", "\"nodes\": 1, \"power\": {\"idle_watts\": 5, \"active_watts\": 4}",
         "active_watts"},
        {"\"nodes\": 1", "\"nodes\": 1, \"power\": {\"idle_watts\": -5, \"active_watts\": 4}",
         "idle_watts"},
        {"\"nodes\": 1", "\"nodes\": 1, \"power\": 5", "power"},
        {"\"nodes\": 1", "\"nodes\": 1, \"device_memory_bytes\": -1", "device_memory_bytes"},
        {"\"name\": \"m\"", "\"name\": \"m\", \"price_per_device_hour\": -2",
         "price_per_device_hour"},
        {"\"name\": \"m\"", "\"name\": \"m\", \"carbon_grams_per_kwh\": 300", "carbon_date"},
        {"\"name\": \"m\"", "\"name\": \"m\", \"carbon_date\": \"2026-01-01\"",
         "carbon_grams_per_kwh"},
        {"\"name\": \"m\"",
         "\"name\": \"m\", \"carbon_grams_per_kwh\": 300, \"carbon_date\": \"2026-13-01\"",
         "carbon_date"},
        {"\"name\": \"m\"",
         "\"name\": \"m\", \"carbon_grams_per_kwh\": 300, \"carbon_date\": \"last year\"",
         "carbon_date"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct machine machine;
        struct error err;
        char *text = replaced(minimal, cases[i].old, cases[i].by);
        if (load_text(text, &machine, &err) == STATUS_OK)
            fail_msg("accepted: %s", text);
        assert_contains(err.message, cases[i].part);
        free(text);
    }
}

static void test_machine__too_many_groups_are_refused(void **state)
{
    (void)state;
    char text[4096] = "{\"format\": \"temper-machine\", \"version\": 1, \"name\": \"m\", "
                      "\"groups\": [";
    for (int i = 0; i <= MACHINE_GROUPS_MAX; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof(text) - used,
                 "%s{\"name\": \"g\", \"nodes\": 1, \"devices_per_node\": 1}", i > 0 ? "," : "");
    }
    strncat(text, "]}", sizeof(text) - strlen(text) - 1);
    struct machine machine;
    struct error err;
    assert_int_equal(load_text(text, &machine, &err), STATUS_INVALID);
    assert_contains(err.message, "groups");
}

static void test_machine__missing_file_is_named(void **state)
{
    (void)state;
    struct machine machine;
    struct error err;
    assert_int_not_equal(machine_load(&machine, "/nonexistent/m.json", &err), STATUS_OK);
    assert_contains(err.message, "/nonexistent/m.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine__page_example_loads),
        cmocka_unit_test(test_machine__what_is_not_given_is_marked),
        cmocka_unit_test(test_machine__hostile_files_name_the_key),
        cmocka_unit_test(test_machine__too_many_groups_are_refused),
        cmocka_unit_test(test_machine__missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
