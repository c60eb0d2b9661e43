#include "support.h"

#include "base/file.h"
#include "base/hash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char folder[64];

void assert_failure(enum status found, enum status expected, const struct error *err,
                    const char *const *parts, size_t count)
{
    if (found != expected)
        fail_msg("status %d, not %d: %s", found, expected, err->message);
    assert_int_equal(err->status, expected);
    for (size_t i = 0; i < count; i++) {
        if (!strstr(err->message, parts[i]))
            fail_msg("'%s' does not say '%s'", err->message, parts[i]);
    }
}

int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/temper-store-XXXXXX");
    return mkdtemp(folder) && chmod(folder, 0777) == 0 ? 0 : -1;
}

int remove_folder(void **state)
{
    (void)state;
    struct error err;
    return folder_remove(folder, &err) == STATUS_OK ? 0 : -1;
}

const char *in_folder(const char *name)
{
    static char paths[4][128];
    static size_t next;
    char *path = paths[next++ % COUNT(paths)];
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

struct store *open_new(const char *path)
{
    struct store *store = NULL;
    (void)unlink(path);
    OK(store_open(&store, path, STORE_CREATE, &err_));
    assert_string_equal(store_path(store), path);
    return store;
}

int64_t query(struct store *store, const char *sql)
{
    int64_t value = 0;
    OK(sql_integer(store, sql, INT64_MIN, &value, &err_));
    assert_true(value != INT64_MIN);
    return value;
}

void assert_sound(struct store *store)
{
    assert_int_equal(query(store, "SELECT count(*) FROM pragma_integrity_check WHERE "
                                  "integrity_check <> 'ok'"),
                     0);
    assert_int_equal(query(store, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
}

struct profile_session example_session(const char *host)
{
    struct profile_session session = {
        .host = {.cpu = "A processor",
                 .cores = 2,
                 .memory_bytes = 8ull << 30,
                 .has_amx_bf16 = true},
        .libraries = "OpenBLAS 0.3.21, Open MPI 4.1.4",
        .revision = "0.1.0 (abc)",
        .model_name = "gpt2",
        .options = "profile --model gpt2",
        .started_unix_ms = 1700000000123,
    };
    snprintf(session.host.name, sizeof(session.host.name), "%s", host);
    return session;
}

struct measurement example_measurement(void)
{
    return (struct measurement){
        .subject = "attention/gpt2/h8/a2/k2/d4/s16",
        .metric = METRIC_FORWARD_S,
        .precision = PRECISION_BF16,
        .recompute = RECOMPUTE_SELECTIVE,
        .micro_batch = 4,
        .ranks = 2,
        .threads = 1,
        .n = 17,
        .mean = 0.1 + 0.2,
        .deviation = 1e-300,
        .provenance = PROVENANCE_MEASURED,
        .measured_unix_ms = 1700000000456,
    };
}

struct plan example_plan(void)
{
    const struct model_overrides small = {
        .layers = 1, .hidden = 8, .heads = 2, .vocab_size = 32, .positions = 16, .seq_length = 16};
    struct plan plan = {
        .ranks = 2,
        .data_parallel = 2,
        .pipeline = 1,
        .tensor_parallel = 1,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = 1,
        .global_batch = 24,
        .micro_batch = 4,
        .micro_batches = 3,
        .memory_cap_bytes = 1ull << 31,
        .status = PLAN_GAP,
        .objective = {.weight_time = 1,
                      .time_unit_s = 0.5,
                      .memory_unit_bytes = 1e9,
                      .value = 1.25,
                      .bound = 1.0,
                      .gap = 0.2},
        .pins = "micro-batch=4",
        .profile_hash = "0123456789abcdef",
        .host = "box",
        .created_unix_ms = 1700000000000,
    };
    OK(model_load(&plan.model, "gpt2", &small, &err_));
    hash_format(model_hash(&plan.model), plan.model_hash);
    plan.layer_count = plan.prediction.layer_count = model_layer_count(&plan.model);
    plan.layers = calloc(plan.layer_count, sizeof(*plan.layers));
    plan.prediction.layers = calloc(plan.layer_count, sizeof(*plan.prediction.layers));
    assert_non_null(plan.layers);
    assert_non_null(plan.prediction.layers);
    for (size_t i = 0; i < plan.layer_count; i++)
        plan.layers[i].tensor_parallel = 1;

    struct prediction *prediction = &plan.prediction;
    for (size_t i = 0; i < PHASE_COUNT; i++) {
        prediction->phase_time_s[i] = (struct quantity){0.25, 0.0, PROVENANCE_MEASURED};
        prediction->phase_energy_j[i] = quantity_absent();
    }
    for (size_t i = 0; i < MEMORY_TERM_COUNT; i++)
        prediction->memory_term_bytes[i] = (struct quantity){1e6, 0.0, PROVENANCE_MODELLED};
    prediction->time_s = (struct quantity){0.25 * PHASE_COUNT, 0.01, PROVENANCE_MEASURED};
    prediction->memory_bytes = (struct quantity){1e6 * MEMORY_TERM_COUNT, 5.0, PROVENANCE_MODELLED};
    prediction->energy_j = quantity_absent();
    OK(plan_validate(&plan, "example", &err_));
    return plan;
}

struct run_info example_run(int64_t plan_id)
{
    return (struct run_info){
        .plan_id = plan_id,
        .host = "box",
        .data_path = "/data/it's \"text\".txt",
        .options = "run plan.json --steps 3",
        .revision = "0.1.0",
        .seed = -5,
        .started_unix_ms = 1700000001000,
        .status = RUN_RUNNING,
        .process_bytes_at_start = 30000000,
        .layout_bytes = 123456789,
        .matmul_flops = 5e10,
        .copy_bytes_s = 9e9,
        .energy_j = quantity_absent(),
    };
}
