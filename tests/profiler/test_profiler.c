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
            row->attention != key->attention || row->micro_batch != key->micro_batch ||
            row->bytes != key->bytes)
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

static struct measurement part_row(const struct model *model, const struct layer_part *part,
                                   enum metric metric)
{
    struct measurement row = {.metric = metric};
    char key[LAYER_KEY_BYTES];
    strncpy(row.subject, layer_part_key(model, part, key), sizeof(row.subject) - 1);
    return row;
}

static size_t rows_of(const struct heard *heard, enum metric metric)
{
    size_t count = 0;
    for (size_t i = 0; i < heard->count; i++)
        count += heard->rows[i].metric == metric;
    return count;
}

static bool is_measured(const struct profile_request *request, unsigned precision)
{
    return request->precisions[precision] && device_supports(device, (enum precision)precision);
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
    key.metric = METRIC_HOST_RANKS;
    assert_near(expect_row(heard, key, PROVENANCE_MEASURED)->mean, comm_local_size(comm), 0);
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

/* Whole layers exchange nothing; nor do of parts an embedding's backward without sequence
 * parallelism, and a head's forward, which leaves all to backward. */
static void expect_exchange(const struct heard *heard, const struct layer_part *part,
                            struct measurement key)
{
    bool is_silent = (part->kind == LAYER_EMBEDDING && !part->sequence_parallel &&
                      key.metric == METRIC_BACKWARD_TENSOR_S) ||
                     (part->kind == LAYER_HEAD && key.metric == METRIC_FORWARD_TENSOR_S);
    if (part->ways == 1)
        assert_null(find(heard, &key));
    else
        assert_int_equal(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 0, !is_silent);
}

/* All rows of one part under one mode and micro-batch; none and false where its kind does not admit
 * the mode: no duplicates of the nearest. */
static bool expect_mode(const struct heard *heard, const struct model *model,
                        const struct layer_part *part, struct layer_precision_mode mode,
                        int64_t micro_batch, enum provenance power)
{
    struct measurement key = part_row(model, part, METRIC_FORWARD_S);
    struct micro_batch_shape shape = {.sequences = micro_batch,
                                      .seq_length = model->seq_length,
                                      .threads = device_threads(device)};
    key.precision = mode.precision;
    key.recompute = mode.recompute;
    key.attention = mode.attention;
    key.micro_batch = micro_batch;
    if (!layer_admits_precision(part->kind, mode.precision) ||
        !layer_admits_recompute(part->kind, mode.recompute) ||
        !layer_admits_kernel(part->kind, mode.attention)) {
        assert_null(find(heard, &key));
        return false;
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
    key.metric = METRIC_FORWARD_TENSOR_S;
    expect_exchange(heard, part, key);
    key.metric = METRIC_BACKWARD_TENSOR_S;
    expect_exchange(heard, part, key);
    key.metric = METRIC_SAVED_BYTES;
    assert_near(expect_row(heard, key, PROVENANCE_MODELLED)->mean,
                (double)part_saved_bytes(model, part, mode, &shape), 0);
    key.metric = METRIC_SCRATCH_BYTES;
    assert_near(expect_row(heard, key, PROVENANCE_MODELLED)->mean,
                (double)part_scratch_bytes(model, part, mode, &shape), 0);
    return true;
}

struct layer_rows {
    size_t modes, optimizers;
};

static void expect_part(const struct heard *heard, const struct profile_request *request,
                        const struct layer_part *part, enum provenance power,
                        struct layer_rows *found)
{
    for (unsigned p = 0; p < PRECISION_COUNT; p++) {
        if (!is_measured(request, p))
            continue;
        struct measurement key = part_row(request->model, part, METRIC_OPTIMIZER_S);
        key.precision = (enum precision)p;
        assert_true(expect_row(heard, key, PROVENANCE_MEASURED)->mean > 0);
        key.metric = METRIC_OPTIMIZER_J;
        (void)expect_row(heard, key, power);
        found->optimizers++;
        for (unsigned m = 0; m < RECOMPUTE_COUNT * ATTENTION_KERNEL_COUNT; m++) {
            struct layer_precision_mode mode = {
                .precision = (enum precision)p,
                .recompute = (enum recompute)(m % RECOMPUTE_COUNT),
                .attention = (enum attention_kernel)(m / RECOMPUTE_COUNT),
            };
            for (size_t i = 0; i < request->micro_batch_count; i++)
                found->modes += expect_mode(heard, request->model, part, mode,
                                            request->micro_batches[i], power);
        }
    }
}

/* Every part that the model admits for a number of ways that divides the ranks, and none else. */
static void expect_layers(const struct heard *heard, const struct profile_request *request,
                          enum provenance power)
{
    struct layer_rows found = {0};
    struct error ignored;
    for (int ways = 1; ways <= comm_size(comm); ways++) {
        for (unsigned variant = 0; variant < 4 * LAYER_KIND_COUNT; variant++) {
            struct layer_part part = {.kind = (enum layer_kind)(variant / 4), .ways = ways};
            part.sequence_parallel = variant % 2 > 0;
            part.owns_table = variant % 4 > 1;
            bool is_own = part.kind == LAYER_HEAD && comm_size(comm) > 1;
            if (comm_size(comm) % ways == 0 && (!part.owns_table || is_own) &&
                layer_part_check(request->model, &part, &ignored) == STATUS_OK)
                expect_part(heard, request, &part, power, &found);
        }
    }
    assert_int_equal(rows_of(heard, METRIC_FORWARD_S), found.modes);
    assert_int_equal(rows_of(heard, METRIC_BACKWARD_S), found.modes);
    assert_int_equal(rows_of(heard, METRIC_OPTIMIZER_S), found.optimizers);
}

/* ---- links ---- */

enum { ALWAYS_BYTES = 1 << 20 }; /* sizes that no lack of time leaves out */

/* Returns how many rows the subject has: those expected, and larger ones. */
static size_t expect_link(const struct heard *heard, const char *subject, int64_t factor)
{
    struct measurement key = {.metric = METRIC_LINK_S};
    size_t count = 0;
    (void)snprintf(key.subject, sizeof(key.subject), "%s", subject);
    for (int64_t bytes = 4096; bytes <= ALWAYS_BYTES; bytes *= factor) {
        key.bytes = bytes; /* which divides by all groups of 2 and 4 */
        const struct measurement *row = expect_row(heard, key, PROVENANCE_MEASURED);
        assert_true(row->mean > 0 && row->n >= 1);
    }
    for (size_t i = 0; i < heard->count; i++)
        count += strcmp(heard->rows[i].subject, subject) == 0;
    return count;
}

/* The gradients that groups of ranks `apart` reduce: those of parts as so many ways hold them. */
static void expect_gradients(const struct heard *heard, const struct model *model,
                             const char *subject, int apart)
{
    struct measurement key = {.metric = METRIC_LINK_S};
    (void)snprintf(key.subject, sizeof(key.subject), "%s", subject);
    for (unsigned kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        struct layer_part part = {.kind = (enum layer_kind)kind, .ways = apart};
        struct error ignored;
        if (layer_part_check(model, &part, &ignored) != STATUS_OK)
            continue;
        key.bytes = (int64_t)(layer_part_counts(model, &part).matrices * sizeof(float));
        if (key.bytes > 0)
            (void)expect_row(heard, key, PROVENANCE_MEASURED);
    }
}

static size_t expect_groups(const struct heard *heard, const struct model *model, int ways,
                            int apart)
{
    static const char *const names[] = {"all-reduce", "all-gather", "reduce-scatter",
                                        "tensor-all-gather", "tensor-reduce-scatter"};
    size_t count = 0;
    for (size_t i = 0; i < (apart == 1 ? 5 : 3); i++) {
        char subject[SUBJECT_BYTES];
        (void)snprintf(subject, sizeof(subject), "%s/n%d/x%d", names[i], ways, apart);
        count += expect_link(heard, subject, ways > 2 ? 16 : 4);
        if (i == 0)
            expect_gradients(heard, model, subject, apart);
    }
    return count;
}

/* For 1, 2 and 4 ranks; with 4 stages of one rank the first and the last are 3 apart. */
static void expect_links(const struct heard *heard, const struct model *model)
{
    int ranks = comm_size(comm);
    size_t count = 0;
    for (int ways = 2; ways <= ranks; ways++)
        for (int apart = 1; apart <= ranks; apart++)
            if (ranks % (ways * apart) == 0)
                count += expect_groups(heard, model, ways, apart);
    if (ranks > 1)
        count += expect_link(heard, "point-to-point/x1", 4);
    if (ranks == 4) {
        count += expect_link(heard, "point-to-point/x2", 4);
        count += expect_link(heard, "point-to-point/x3", 4);
        count += expect_link(heard, "all-reduce/n2/x3", 4);
    }
    assert_int_equal(rows_of(heard, METRIC_LINK_S), count); /* and no other subject */
}

static double mean_of(const struct heard *heard, const struct model *model, enum layer_kind kind,
                      enum metric metric, int64_t micro_batch)
{
    struct layer_part whole = layer_whole(kind);
    struct measurement key = part_row(model, &whole, metric);
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
        bool is_head = layer == LAYER_HEAD; /* whose forward pass has nothing to do */
        assert_true(is_head || (large_s > 4 * small_s && large_s < 200 * small_s));
        double forward_s = large_s;
        small_s = mean_of(heard, &model, layer, METRIC_BACKWARD_S, 1);
        large_s = mean_of(heard, &model, layer, METRIC_BACKWARD_S, 32);
        assert_true(large_s > 4 * small_s && large_s < 200 * small_s);
        assert_true(!is_head || forward_s < 0.1 * large_s);
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

/* fp16 is measured when it is asked for, the optimizer with a copy in it. */
static void test_profiler__measures_fp16_when_asked(void **state)
{
    (void)state;
    struct model model = tiny_model();
    struct heard *heard = calloc(1, sizeof(*heard));
    assert_non_null(heard);
    struct profile_request request = tiny_request(&model, heard);
    struct error err;
    request.micro_batch_count = 1;
    request.precisions[PRECISION_BF16] = false;
    request.precisions[PRECISION_FP16] = true;
    (void)profile(&request, STATUS_OK, &err);
    const struct measurement power_key = {.subject = "machine", .metric = METRIC_ACTIVE_W};
    expect_layers(heard, &request, find(heard, &power_key)->provenance);
    free(heard);
}

/* Half of the products, in the same place of the chain. */
static void test_profiler__a_part_of_a_wide_layer_is_faster_than_the_whole(void **state)
{
    (void)state;
    struct model model;
    struct model_overrides sizes = {.layers = 2,
                                    .hidden = 256,
                                    .heads = 4,
                                    .vocab_size = 512,
                                    .positions = 64,
                                    .seq_length = 64};
    struct heard *heard = calloc(1, sizeof(*heard));
    struct error err;
    assert_non_null(heard);
    assert_int_equal(model_load(&model, "gpt2", &sizes, &err), STATUS_OK);
    struct profile_request request = tiny_request(&model, heard);
    request.micro_batches[0] = 4;
    request.micro_batch_count = 1;
    request.precisions[PRECISION_BF16] = false;
    request.relative_error = 0.05;
    (void)profile(&request, STATUS_OK, &err);
    for (int sp = 0; leads() && sp <= 1; sp++) {
        struct layer_part half = {.kind = LAYER_MLP, .ways = 2, .sequence_parallel = sp > 0};
        static const enum metric metrics[] = {METRIC_FORWARD_S, METRIC_BACKWARD_S};
        for (size_t i = 0; i < 2; i++) {
            struct measurement key = part_row(&model, &half, metrics[i]);
            key.micro_batch = 4;
            double part_s = expect_row(heard, key, PROVENANCE_MEASURED)->mean;
            double whole_s = mean_of(heard, &model, LAYER_MLP, metrics[i], 4);
            assert_true(part_s < 0.85 * whole_s && part_s > 0.15 * whole_s);
        }
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
    };
    const struct CMUnitTest few_ranks[] = {
        cmocka_unit_test(test_profiler__models_energy_from_the_power_that_is_given),
        cmocka_unit_test(test_profiler__warns_of_sizes_that_the_budget_leaves_out),
        cmocka_unit_test(test_profiler__refuses_what_cannot_be_measured),
    };
    const struct CMUnitTest one_rank[] = {
        cmocka_unit_test(test_profiler__times_grow_with_the_micro_batch),
        cmocka_unit_test(test_profiler__chooses_sizes_within_its_budget),
        cmocka_unit_test(test_profiler__measures_fp16_when_asked),
    };
    const struct CMUnitTest two_ranks[] = {
        cmocka_unit_test(test_profiler__a_part_of_a_wide_layer_is_faster_than_the_whole),
    };
    if (comm_open(&comm, &err) != STATUS_OK || device_open(&device, 1, &err) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(any_ranks, NULL, NULL);
    if (comm_size(comm) <= 2)
        failed += cmocka_run_group_tests(few_ranks, NULL, NULL);
    if (comm_size(comm) == 2)
        failed += cmocka_run_group_tests(two_ranks, NULL, NULL);
    if (comm_size(comm) == 1)
        failed += cmocka_run_group_tests(one_rank, NULL, NULL);
    device_close(device);
    comm_close(comm);
    return failed;
}
