#include "base/json.h"
#include "fixture.h"
#include "traces/summary.h"

/* The summary of a record, which is freed, parsed again. */
static struct json_document *summarise_record(struct run_record *record)
{
    struct run_comparison comparison;
    struct text text = {0};
    struct json_document *document = NULL;
    struct error err;
    assert_ok(compare_run(record, &comparison, &err), &err);
    struct jout *out = jout_new();
    summary_write(record, &comparison, out);
    assert_ok(jout_finish(out, 2, &text, &err), &err);
    assert_ok(json_parse_text(&document, text.data, text.bytes, "summary", &err), &err);
    text_free(&text);
    run_comparison_clear(&comparison);
    run_record_free(record);
    return document;
}

static struct json_document *summarise(const struct fixture_options *options)
{
    struct run_record record;
    fixture_make(&record, options);
    return summarise_record(&record);
}

static double real(const struct jin *at, const char *key, const char *member)
{
    struct jin object;
    struct error err;
    double value = NAN;
    assert_ok(jin_object(at, key, &object, &err), &err);
    assert_ok(jin_real(&object, member, &value, &err), &err);
    return value;
}

static void test_summary__has_the_promised_keys(void **state)
{
    (void)state;
    static const char *const keys[] = {"step_time_s", "peak_bytes", "memory_bytes", "energy_j",
                                       "tokens_per_s"};
    static const char *const losses[] = {"steps", "final_loss", "validation_loss"};
    struct json_document *document = summarise(&fixture_full);
    struct jin root = json_root(document), object;
    struct error err;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        double predicted = real(&root, keys[i], "predicted");
        double measured = real(&root, keys[i], "measured");
        assert_near(real(&root, keys[i], "error"), predicted / measured - 1, 1e-12);
    }
    for (size_t i = 0; i < sizeof(losses) / sizeof(losses[0]); i++) {
        assert_ok(jin_object(&root, losses[i], &object, &err), &err);
        assert_false(jin_has(&object, "predicted"));
        assert_true(jin_has(&object, "measured"));
    }
    assert_near(real(&root, "steps", "measured"), 2000, 0);
    assert_near(real(&root, "step_time_s", "predicted"), FIXTURE_PREDICTED_S, 1e-12);
    json_document_free(document);
}

static void test_summary__has_phases_terms_and_layers(void **state)
{
    (void)state;
    struct json_document *document = summarise(&fixture_full);
    struct jin root = json_root(document), object, phase, layers;
    struct error err;
    assert_ok(jin_object(&root, "phases", &object, &err), &err);
    for (int i = 0; i < PHASE_COUNT; i++) {
        assert_ok(jin_object(&object, phase_name((enum phase)i), &phase, &err), &err);
        bool is_idle = i == PHASE_TENSOR || i == PHASE_PIPELINE || i == PHASE_PARAM_GATHER;
        assert_true(is_idle ? real(&phase, "time_s", "measured") == 0
                            : real(&phase, "time_s", "measured") > 0);
        assert_true(is_idle ? real(&phase, "energy_j", "measured") == 0
                            : real(&phase, "energy_j", "measured") > 0);
    }
    assert_ok(jin_object(&root, "memory_terms", &object, &err), &err);
    for (int i = 0; i < MEMORY_TERM_COUNT; i++)
        assert_true(real(&object, memory_term_name((enum memory_term)i), "measured") > 0);
    assert_ok(jin_array(&root, "layers", &layers, &err), &err);
    assert_int_equal(jin_length(&layers), 10);
    struct jin layer = jin_element(&layers, 1);
    assert_true(real(&layer, "time_s", "predicted") > 0);
    json_document_free(document);
}

static struct jin object_at(const struct jin *at, const char *key)
{
    struct jin object;
    struct error err;
    assert_ok(jin_object(at, key, &object, &err), &err);
    return object;
}

static double number(const struct jin *at, const char *key)
{
    double value = NAN;
    struct error err;
    assert_ok(jin_real(at, key, &value, &err), &err);
    return value;
}

static void test_summary__has_the_communication(void **state)
{
    (void)state;
    struct run_record record;
    fixture_make_split(&record, 2);
    struct json_document *document = summarise_record(&record);
    struct jin root = json_root(document), layers;
    struct jin all = object_at(&root, "communication");
    struct jin phases = object_at(&all, "phases");
    struct jin tensor = object_at(&phases, "tensor");
    struct jin by_layer = object_at(&tensor, "layers");
    struct jin mlp = object_at(&by_layer, "mlp");
    struct error err;
    /* 5 layers of a stage, 4 micro-batches forward and backward; 2 of them are mlp. */
    assert_near(number(&tensor, "calls"), 40, 1e-12);
    assert_near(number(&mlp, "calls"), 16, 1e-12);
    assert_near(number(&tensor, "bytes"), 40 * 98304, 1e-6);
    assert_near(number(&tensor, "waited_s"), 40 * 40e-6, 1e-12);
    assert_near(number(&tensor, "hidden_share"), 0, 1e-12);
    struct jin gather = object_at(&phases, "param_gather");
    assert_near(number(&gather, "flight_s") - number(&gather, "waited_s"),
                number(&gather, "hidden_s"), 1e-15);
    assert_true(number(&gather, "hidden_share") > 0.3);
    assert_false(jin_has(&phases, "forward"));
    assert_near(number(&root, "measured_stage"), 1, 0);
    assert_ok(jin_array(&root, "layers", &layers, &err), &err);
    struct jin layer = jin_element(&layers, 8);
    assert_near(number(&layer, "stage"), 1, 0);
    assert_near(number(&layer, "zero_stage"), 3, 0);
    json_document_free(document);
}

static void test_summary__absent_is_null(void **state)
{
    (void)state;
    const struct fixture_options options = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    struct json_document *document = summarise(&options);
    struct jin root = json_root(document), object;
    struct error err;
    const char *provenance = NULL;
    assert_ok(jin_object(&root, "energy_j", &object, &err), &err);
    assert_false(jin_has(&object, "predicted"));
    assert_false(jin_has(&object, "measured"));
    assert_false(jin_has(&object, "error"));
    assert_ok(jin_string(&object, "measured_provenance", &provenance, &err), &err);
    assert_string_equal(provenance, "absent");
    assert_ok(jin_object(&root, "final_loss", &object, &err), &err);
    assert_false(jin_has(&object, "measured"));
    assert_false(jin_has(&root, "communication"));
    json_document_free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_summary__has_the_promised_keys),
        cmocka_unit_test(test_summary__has_phases_terms_and_layers),
        cmocka_unit_test(test_summary__has_the_communication),
        cmocka_unit_test(test_summary__absent_is_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
