/* A whole placement of a tiny model: alone, and as one rank of several under MPI. Only rank 0 hears
 * rows; the others work along. */
#include "support.h"
#include <stdio.h>

static struct comm *comm;
static struct device *device;

static bool leads(void)
{
    return comm_rank(comm) == 0;
}

static struct heard *profile(const struct profile_request *request, enum status expected,
                             struct error *err)
{
    struct heard *heard = request->reporter.user;
    struct measurement_sink sink = {heard, hear_row};
    enum status status = profile_placement(request, comm, device, leads() ? &sink : NULL, err);
    if (status != STATUS_OK && expected == STATUS_OK)
        fail_msg("%s", err->message);
    assert_int_equal(status, expected);
    return heard;
}

static const struct measurement *find(const struct heard *heard, const struct measurement *key)
{
    const struct measurement *found = NULL;
    for (size_t i = 0; i < heard->count; i++) {
        const struct measurement *row = &heard->rows[i];
        if (strcmp(row->subject, key->subject) != 0 || row->metric != key->metric ||
            row->precision != key->precision || row->recompute != key->recompute ||
            row->micro_batch != key->micro_batch || row->bytes != key->bytes)
            continue;
        assert_null(found); /* every key once */
        found = row;
    }
    return found;
}

static void expect_sane(const struct measurement *row)
{
    assert_non_null(row);
    assert_int_equal(row->ranks, comm_size(comm));
    assert_int_equal(row->threads, device_threads(device));
    assert_true(row->measured_unix_ms > 0);
    assert_true(isfinite(row->mean) && isfinite(row->deviation) && row->deviation >= 0);
    if (row->provenance == PROVENANCE_ABSENT) {
        assert_int_equal(row->n, 0);
        assert_near(row->mean, 0, 0);
    } else {
        assert_true(row->n >= 1);
        assert_true(row->mean >= 0 || row->metric == METRIC_OVERLAP);
    }
}

static const struct measurement *expect_row(const struct heard *heard, struct measurement key,
                                            enum provenance provenance)
{
    const struct measurement *row = find(heard, &key);
    if (!row)
        fail_msg("no row: %s, %s, %s, %s, micro-batch %d", key.subject, metric_name(key.metric),
                 precision_name(key.precision), recompute_name(key.recompute),
                 (int)key.micro_batch);
    expect_sane(row);
    assert_int_equal(row->provenance, provenance);
    return row;
}

static struct measurement layer_row(const struct model *model, enum layer_kind kind,
                                    enum metric metric)
{
    struct measurement row = {.metric = metric};
    char key[LAYER_KEY_BYTES];
    strncpy(row.subject, layer_key(model, kind, key), sizeof(row.subject) - 1);
    return row;
}

static void expect_machine(const struct heard *heard, enum provenance power)
{
    struct measurement key = {.subject = "machine", .metric = METRIC_MATMUL_FLOPS};
    assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 1e8);
    key.precision = PRECISION_BF16;
    if (device_supports(device, PRECISION_BF16))
        assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 1e8);
    else
        assert_null(find(heard, &key));
    key.precision = PRECISION_FP32;
    key.metric = METRIC_COPY_BYTES_S;
    assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 1e8);
    key.metric = METRIC_PROCESS_BYTES;
    double process_bytes = expect_row(heard, key, PROVENANCE_MEASURED)->mean;
    assert_true(process_bytes > 1e6 && process_bytes < 1e9);
    key.precision = PRECISION_BF16;
    if (device_supports(device, PRECISION_BF16))
        assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean < 1e9);
    key.precision = PRECISION_FP32;
    key.metric = METRIC_STEP_OVERHEAD_S;
    assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean < 1.0);
    key.metric = METRIC_IDLE_W;
    (void)expect_row(heard, key, power);
    key.metric = METRIC_ACTIVE_W;
    (void)expect_row(heard, key, power);
    key.metric = METRIC_OVERLAP;
    if (comm_size(comm) > 1)
        assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean <= 1.0);
    else
        assert_null(find(heard, &key));
}

/* All rows of one layer kind under one mode and micro-batch. */
static void expect_mode(const struct heard *heard, const struct model *model, enum layer_kind kind,
                        struct layer_precision_mode mode, int64_t micro_batch,
                        enum provenance power)
{
    struct measurement key = layer_row(model, kind, METRIC_FORWARD_S);
    struct micro_batch_shape shape = {micro_batch, model->seq_length, device_threads(device)};
    key.precision = mode.precision;
    key.recompute = mode.recompute;
    key.micro_batch = micro_batch;
    if (!layer_admits_precision(kind, mode.precision) ||
        !layer_admits_recompute(kind, mode.recompute)) {
        assert_null(find(heard, &key)); /* no duplicates of the nearest mode */
        return;
    }
    const struct measurement *forward = expect_row(heard, key, PROVENANCE_MEASURED);
    assert_true(forward->mean > 0 && forward->n >= 2);
    key.metric = METRIC_BACKWARD_S;
    const struct measurement *backward = expect_row(heard, key, PROVENANCE_MEASURED);
    assert_true(backward->mean > 0 && backward->n >= 2);
    key.metric = METRIC_FORWARD_J;
    (void)expect_row(heard, key, power);
    key.metric = METRIC_BACKWARD_J;
    (void)expect_row(heard, key, power);
    key.metric = METRIC_SAVED_BYTES;
    assert_near(expect_row(heard, key, PROVENANCE_MODELLED)->mean,
                (double)layer_saved_bytes(model, kind, mode, &shape), 0);
    key.metric = METRIC_SCRATCH_BYTES;
    assert_near(expect_row(heard, key, PROVENANCE_MODELLED)->mean,
                (double)layer_scratch_bytes(model, kind, mode, &shape), 0);
}

static void expect_layers(const struct heard *heard, const struct profile_request *request,
                          enum provenance power)
{
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        for (unsigned p = 0; p < PRECISION_COUNT; p++) {
            if (!device_supports(device, (enum precision)p))
                continue;
            struct measurement key =
                layer_row(request->model, (enum layer_kind)kind, METRIC_OPTIMIZER_S);
            key.precision = (enum precision)p;
            assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 0);
            key.metric = METRIC_OPTIMIZER_J;
            (void)expect_row(heard, key, power);
            for (unsigned r = 0; r < RECOMPUTE_COUNT; r++) {
                struct layer_precision_mode mode = {(enum precision)p, (enum recompute)r};
                for (size_t i = 0; i < request->micro_batch_count; i++)
                    expect_mode(heard, request->model, (enum layer_kind)kind, mode,
                                request->micro_batches[i], power);
            }
        }
    }
}

static void expect_links(const struct heard *heard, const struct model *model)
{
    static const char *const subjects[] = {"all-reduce", "all-gather", "reduce-scatter",
                                           "point-to-point"};
    int64_t quantum = (int64_t)sizeof(float) * comm_size(comm);
    for (size_t s = 0; s < sizeof(subjects) / sizeof(subjects[0]); s++) {
        struct measurement key = {.metric = METRIC_LINK_S};
        strncpy(key.subject, subjects[s], sizeof(key.subject) - 1);
        for (int64_t bytes = 4096; bytes <= 64 << 20; bytes *= 4) {
            bool in_pieces = s == 1 || s == 2;
            key.bytes = in_pieces ? (bytes + quantum - 1) / quantum * quantum : bytes;
            if (comm_size(comm) == 1)
                assert_null(find(heard, &key));
            else
                assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 0);
        }
    }
    struct measurement key = {.subject = "all-reduce", .metric = METRIC_LINK_S};
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT && comm_size(comm) > 1; kind++) {
        key.bytes = (int64_t)(layer_flat_count(model, (enum layer_kind)kind) * sizeof(float));
        (void)expect_row(heard, key, PROVENANCE_MEASURED);
    }
}

static double mean_of(const struct heard *heard, const struct model *model, enum layer_kind kind,
                      enum metric metric, int64_t micro_batch)
{
    struct measurement key = layer_row(model, kind, metric);
    key.micro_batch = micro_batch;
    const struct measurement *row = find(heard, &key);
    assert_non_null(row);
    return row->mean;
}

static void test_profiler__gives_every_row_that_it_promises(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.memory_limit_bytes = 0;
    (void)profile(&request, STATUS_OK, &err);
    if (leads()) {
        const struct measurement power_key = {.subject = "machine", .metric = METRIC_ACTIVE_W};
        const struct measurement *watts = find(heard, &power_key);
        assert_non_null(watts);
        assert_true(watts->provenance == PROVENANCE_MEASURED ||
                    watts->provenance == PROVENANCE_ABSENT);
        expect_machine(heard, watts->provenance);
        expect_layers(heard, &request, watts->provenance);
        expect_links(heard, &model);
        assert_int_equal(warnings_about(heard, "not measured"), 0);
        assert_int_equal(heard->last_done, heard->last_total);
        assert_true(heard->progress_calls > 10);
        for (size_t i = 0; i < heard->count; i++)
            expect_sane(&heard->rows[i]);
    } else {
        assert_int_equal(heard->count, 0);
        assert_int_equal(heard->progress_calls, 0);
    }
    free(heard);
}

static void test_profiler__times_grow_with_the_micro_batch(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.precisions[PRECISION_BF16] = false;
    (void)profile(&request, STATUS_OK, &err);
    for (unsigned kind = LAYER_ATTENTION; leads() && kind <= LAYER_HEAD; kind++) {
        enum layer_kind layer = (enum layer_kind)kind;
        double small_s = mean_of(heard, &model, layer, METRIC_FORWARD_S, 1);
        double large_s = mean_of(heard, &model, layer, METRIC_FORWARD_S, 32);
        assert_true(large_s > 4 * small_s && large_s < 200 * small_s);
        small_s = mean_of(heard, &model, layer, METRIC_BACKWARD_S, 1);
        large_s = mean_of(heard, &model, layer, METRIC_BACKWARD_S, 32);
        assert_true(large_s > 4 * small_s && large_s < 200 * small_s);
    }
    free(heard);
}

static void test_profiler__models_energy_from_the_power_that_is_given(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.power = (struct power_model){50.0, 50.0}; /* the same for any use of the cores */
    request.micro_batch_count = 1;
    (void)profile(&request, STATUS_OK, &err);
    const struct measurement power_key = {.subject = "machine", .metric = METRIC_ACTIVE_W};
    const struct measurement *watts = leads() ? find(heard, &power_key) : NULL;
    if (watts && watts->provenance == PROVENANCE_MODELLED) {
        assert_near(watts->mean, 50.0, 0);
        expect_machine(heard, PROVENANCE_MODELLED);
        expect_layers(heard, &request, PROVENANCE_MODELLED);
        double seconds = mean_of(heard, &model, LAYER_MLP, METRIC_BACKWARD_S, 1);
        double joules = mean_of(heard, &model, LAYER_MLP, METRIC_BACKWARD_J, 1);
        assert_near(joules, 50.0 * seconds / comm_local_size(comm), 1e-9 * joules);
    }
    free(heard);
}

static void test_profiler__chooses_sizes_within_its_budget(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.micro_batch_count = 0;
    (void)profile(&request, STATUS_OK, &err);
    if (leads()) {
        assert_true(mean_of(heard, &model, LAYER_MLP, METRIC_FORWARD_S, 1) > 0);
        assert_true(mean_of(heard, &model, LAYER_MLP, METRIC_FORWARD_S, 2) > 0);
        assert_int_equal(warnings_about(heard, "not measured"), 0);
    }
    free(heard);
}

static void test_profiler__warns_of_sizes_that_the_budget_leaves_out(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.budget_s = 0;
    (void)profile(&request, STATUS_OK, &err);
    if (leads()) {
        assert_true(mean_of(heard, &model, LAYER_MLP, METRIC_FORWARD_S, 1) > 0);
        assert_int_equal(warnings_about(heard, "micro-batch 4, 32 not measured"), 1);
    }
    free(heard);
}

static void test_profiler__refuses_what_cannot_be_measured(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.memory_limit_bytes = 4096;
    (void)profile(&request, STATUS_INVALID, &err);
    assert_non_null(strstr(err.message, "4.00 KiB"));
    request.memory_limit_bytes = 0;
    request.precisions[PRECISION_FP32] = request.precisions[PRECISION_BF16] = false;
    (void)profile(&request, STATUS_UNSUPPORTED, &err);
    free(heard);
}

int main(void)
{
    struct error err;
    const struct CMUnitTest any_ranks[] = {
        cmocka_unit_test(test_profiler__gives_every_row_that_it_promises),
        cmocka_unit_test(test_profiler__models_energy_from_the_power_that_is_given),
        cmocka_unit_test(test_profiler__warns_of_sizes_that_the_budget_leaves_out),
        cmocka_unit_test(test_profiler__refuses_what_cannot_be_measured),
    };
    const struct CMUnitTest one_rank[] = {
        cmocka_unit_test(test_profiler__times_grow_with_the_micro_batch),
        cmocka_unit_test(test_profiler__chooses_sizes_within_its_budget),
    };
    if (comm_open(&comm, &err) != STATUS_OK || device_open(&device, 1, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(any_ranks, NULL, NULL);
    if (comm_size(comm) == 1)
        failed += cmocka_run_group_tests(one_rank, NULL, NULL);
    device_close(device);
    comm_close(comm);
    return failed;
}
