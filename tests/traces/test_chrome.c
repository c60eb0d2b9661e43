#include "base/json.h"
#include "fixture.h"
#include "traces/page.h"
#include <stdio.h>

static struct json_document *trace(const struct run_record *record)
{
    struct text text = {0};
    struct json_document *document = NULL;
    struct error err;
    assert_ok(chrome_write(record, &text, &err), &err);
    assert_ok(json_parse_text(&document, text.data, text.bytes, "trace", &err), &err);
    text_free(&text);
    return document;
}

static struct jin events_of(const struct json_document *document)
{
    struct jin root = json_root(document), events;
    struct error err;
    assert_ok(jin_array(&root, "traceEvents", &events, &err), &err);
    return events;
}

static double real(const struct jin *at, const char *key)
{
    double value = NAN;
    struct error err;
    assert_ok(jin_real(at, key, &value, &err), &err);
    return value;
}

static const char *string(const struct jin *at, const char *key)
{
    const char *value = NULL;
    struct error err;
    assert_ok(jin_string(at, key, &value, &err), &err);
    return value;
}

/* Every recorded event is there with its time, in microseconds from the first one. */
static void test_chrome__events_come_back(void **state)
{
    (void)state;
    struct run_record record;
    fixture_make(&record, &fixture_full);
    struct json_document *document = trace(&record);
    struct jin events = events_of(document);
    size_t work = 0, counters = 0, names = 0;
    for (size_t i = 0; i < jin_length(&events); i++) {
        struct jin event = jin_element(&events, i);
        const char *kind = string(&event, "ph");
        counters += strcmp(kind, "C") == 0 ? 1 : 0;
        names += strcmp(kind, "M") == 0 ? 1 : 0;
        if (strcmp(kind, "X") != 0)
            continue;
        const struct event *expected = &record.events[work++];
        assert_near(real(&event, "ts"),
                    (double)(expected->start_ns - record.events[0].start_ns) / 1000, 1e-6);
        assert_near(real(&event, "dur"), (double)(expected->end_ns - expected->start_ns) / 1000,
                    1e-9);
        assert_near(real(&event, "pid"), expected->rank, 0);
        assert_near(real(&event, "tid"), expected->stream, 0);
        struct jin arguments;
        struct error err;
        assert_ok(jin_object(&event, "args", &arguments, &err), &err);
        assert_near(real(&arguments, "waited_ns"), (double)expected->waited_ns, 0);
        assert_string_equal(string(&event, "cat"), phase_name((enum phase)expected->phase));
    }
    assert_int_equal(work, record.event_count);
    assert_int_equal(names, 2 * 3);                 /* a process and two threads a rank */
    assert_int_equal(counters, 4 * 2 * 2 * 2 * 10); /* forward and backward of ten layers */
    json_document_free(document);
    run_record_free(&record);
}

static void test_chrome__no_events_is_a_valid_trace(void **state)
{
    (void)state;
    const struct fixture_options options = {.blocks = 1, .ranks = 1, .micro_batches = 1};
    struct run_record record;
    fixture_make(&record, &options);
    struct json_document *document = trace(&record);
    struct jin events = events_of(document);
    assert_int_equal(jin_length(&events), 3);
    json_document_free(document);
    run_record_free(&record);
}

static void test_chrome__hostile_names_stay_text(void **state)
{
    (void)state;
    static const char nasty[] = "\"}],\"x\":\xff\x01</script>";
    struct run_record record;
    fixture_make(&record, &fixture_full);
    (void)snprintf(record.plan.model.name, sizeof(record.plan.model.name), "%s", nasty);
    (void)snprintf(record.info.host, sizeof(record.info.host), "%s", nasty);
    struct json_document *document = trace(&record);
    struct jin root = json_root(document), other;
    struct error err;
    assert_ok(jin_object(&root, "otherData", &other, &err), &err);
    assert_contains(string(&other, "host"), "\"}],\"x\":");
    json_document_free(document);
    run_record_free(&record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chrome__events_come_back),
        cmocka_unit_test(test_chrome__no_events_is_a_valid_trace),
        cmocka_unit_test(test_chrome__hostile_names_stay_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
