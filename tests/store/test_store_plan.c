#include "support.h"

#include <string.h>

static void assert_same_plan(const struct plan *a, const struct plan *b)
{
    struct text json_a = {0}, json_b = {0};
    OK(plan_write_json(a, &json_a, &err_));
    OK(plan_write_json(b, &json_b, &err_));
    assert_string_equal(json_a.data, json_b.data);
    text_free(&json_a);
    text_free(&json_b);
}

static void test_store_plan__comes_back_whole(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("plan.db"));
    struct plan plan = example_plan(), back;
    int64_t id;
    OK(store_plan_add(store, &plan, &id, &err_));
    OK(store_plan_load(store, id, &back, &err_));
    assert_same_plan(&plan, &back);
    assert_int_equal(back.created_unix_ms, plan.created_unix_ms);
    plan_clear(&back);
    plan_clear(&plan);
    store_close(store);
}

static void test_store_plan__its_figures_can_be_queried(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("figures.db"));
    struct plan plan = example_plan();
    int64_t id;
    OK(store_plan_add(store, &plan, &id, &err_));
    assert_int_equal(
        query(store, "SELECT count(*) FROM plan WHERE model = 'gpt2' AND ranks = 2 AND "
                     "data_parallel = 2 AND pipeline = 1 AND threads = 1 AND global_batch = 24 AND "
                     "micro_batch = 4 AND micro_batches = 3 AND memory_cap_bytes = 2147483648 AND "
                     "status = 'gap' AND objective = 1.25 AND bound = 1.0 AND gap = 0.2 AND "
                     "time_s = 2.0 AND time_deviation_s = 0.01 AND time_provenance = 'measured' "
                     "AND memory_bytes = 6e6 AND memory_deviation_bytes = 5.0 AND "
                     "memory_provenance = 'modelled' AND energy_j IS NULL AND energy_deviation_j "
                     "IS NULL AND energy_provenance = 'absent' AND pins = 'micro-batch=4' AND "
                     "host = 'box' AND profile_hash = '0123456789abcdef' AND "
                     "length(model_hash) = 16 AND created_unix_ms = 1700000000000 AND "
                     "json_valid(json)"),
        1);
    plan_clear(&plan);
    store_close(store);
}

static void test_store_plan__the_same_plan_is_one_row(void **state)
{
    (void)state;
    struct store *store = open_new(in_folder("same.db"));
    struct plan plan = example_plan();
    int64_t first, again, other;
    OK(store_plan_add(store, &plan, &first, &err_));
    OK(store_plan_add(store, &plan, &again, &err_));
    assert_int_equal(first, again);
    plan.created_unix_ms += 1000; /* planned anew, with the same result */
    OK(store_plan_add(store, &plan, &again, &err_));
    assert_int_equal(first, again);
    assert_int_equal(query(store, "SELECT count(*) FROM plan"), 1);

    plan.prediction.energy_j = (struct quantity){3.5, 0.5, PROVENANCE_MODELLED};
    OK(store_plan_add(store, &plan, &other, &err_));
    assert_int_not_equal(first, other);
    plan.layers[1].recompute = RECOMPUTE_FULL;
    OK(store_begin(store, &err_)); /* also inside the caller's transaction */
    OK(store_plan_add(store, &plan, &again, &err_));
    assert_int_not_equal(again, other);
    OK(store_plan_add(store, &plan, &other, &err_));
    assert_int_equal(again, other);
    assert_true(store_in_transaction(store));
    OK(store_commit(store, &err_));
    assert_int_equal(query(store, "SELECT count(*) FROM plan"), 3);
    plan_clear(&plan);
    store_close(store);
}

static void test_store_plan__missing_or_broken_ones_are_named(void **state)
{
    (void)state;
    const char *path = in_folder("broken.db");
    struct store *store = open_new(path);
    struct plan plan = example_plan(), back = {0};
    int64_t id;
    FAILS(STATUS_INVALID, store_plan_load(store, 1, &back, &err_), path, "no plan 1");
    OK(store_plan_add(store, &plan, &id, &err_));
    OK(sql_execute(store, "UPDATE plan SET json = replace(json, '\"micro_batch\"', '\"mb\"')",
                   "testing", &err_));
    FAILS(STATUS_INVALID, store_plan_load(store, id, &back, &err_), path, "plan 1", "'mb'");
    OK(sql_execute(store, "UPDATE plan SET json = substr(json, 1, 100)", "testing", &err_));
    FAILS(STATUS_INVALID, store_plan_load(store, id, &back, &err_), path, "plan 1");
    assert_null(back.layers);
    plan_clear(&plan);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_plan__comes_back_whole),
        cmocka_unit_test(test_store_plan__its_figures_can_be_queried),
        cmocka_unit_test(test_store_plan__the_same_plan_is_one_row),
        cmocka_unit_test(test_store_plan__missing_or_broken_ones_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
