/* Stages that wait for each other: schedules, depths and micro-batch counts with every message a
 * rendezvous, so that no order of calls is saved by a buffer of MPI's; evaluation; what a skipped
 * step leaves; and the times that are recorded. Run under mpirun with 2, 3, 4 and 8 ranks. */
#include "support.h"

#include "base/hash.h"
#include "recorded.h"
#include "trained.h"

static struct comm *world;
static char data_path[64];

static const struct optimizer_options optimizer = {
    .learning_rate = 1e-3,
    .min_learning_rate = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .epsilon = 1e-2,
    .clip_norm = 0.25,
};

/* ---- schedules ---- */

struct piped {
    enum schedule schedule;
    int stages, chunks;
    int64_t micro_batches;
    bool is_uneven; /* the first stage as long as it can be */
};

/* Of two sequences a micro-batch; false: the model has not enough layers, or there is no such
 * schedule. */
static bool piped_plan(struct plan *out, const char *model, const struct piped *what)
{
    struct parity_case one = {.model = model, .ranks = 1};
    size_t stages = (size_t)(what->stages * what->chunks);
    struct error err = {0};
    one.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    assert_ok(parity_plan(out, &one, &err), &err);
    out->ranks = out->pipeline = what->stages;
    out->virtual_stages = what->chunks;
    out->schedule = what->stages > 1 ? what->schedule : SCHEDULE_1F1B;
    out->micro_batch = 2;
    out->micro_batches = what->micro_batches;
    out->global_batch = 2 * what->micro_batches;
    size_t layers = out->layer_count, first = layers - stages + 1;
    for (size_t i = 0; i < layers && stages <= layers; i++)
        out->layers[i].stage = !what->is_uneven ? (int)(i * stages / layers)
                               : i < first      ? 0
                                                : (int)(i - first + 1);
    if (stages <= layers && plan_validate(out, "test", &err) == STATUS_OK)
        return true;
    plan_clear(out);
    return false;
}

enum { WINDOW_COUNTS = 3 };

struct piped_outcome {
    double loss, evaluated[WINDOW_COUNTS];
};

/* One step, and evaluations of odd numbers of windows before and after it. */
static void train(const char *model, const struct piped *what, struct comm *comm,
                  struct piped_outcome *out)
{
    static const int64_t windows[WINDOW_COUNTS] = {1, 5, 7};
    struct plan plan;
    struct trained trained;
    struct error err = {0};
    assert_true(piped_plan(&plan, model, what));
    trained_open_plan(&trained, &plan, data_path, &optimizer, comm);
    assert_ok(trainer_evaluate(trained.trainer, windows[0], &out->evaluated[0], &err), &err);
    trained_steps(&trained, 1, &out->loss);
    assert_int_equal(trainer_peak_activation_bytes(trained.trainer),
                     trainer_term_bytes(trained.trainer, MEMORY_ACTIVATIONS));
    for (int i = 1; i < WINDOW_COUNTS; i++)
        assert_ok(trainer_evaluate(trained.trainer, windows[i], &out->evaluated[i], &err), &err);
    trained_close(&trained);
}

/* Losses of stages are those of one device to the bit; after an update of a tied table, whose
 * gradients are added in another order, up to rounding. */
static void assert_as_alone(const char *model, const struct piped *what)
{
    struct piped one = {.stages = 1, .chunks = 1, .micro_batches = what->micro_batches};
    struct piped_outcome expected, got;
    struct comm *alone = NULL;
    struct plan plan;
    struct error err = {0};
    if (!piped_plan(&plan, model, what))
        return;
    plan_clear(&plan);
    assert_ok(comm_open_alone(&alone, &err), &err);
    train(model, &one, alone, &expected);
    train(model, what, world, &got);
    comm_close(alone);
    assert_true(got.loss == expected.loss && got.evaluated[0] == expected.evaluated[0]);
    for (int i = 1; i < WINDOW_COUNTS; i++) {
        double difference = got.evaluated[i] / expected.evaluated[i] - 1;
        assert_true(difference < 1e-5 && difference > -1e-5);
    }
}

static void check_schedule(enum schedule schedule, int chunks, int64_t micro_batches)
{
    for (int uneven = 0; uneven <= 1; uneven++) {
        const struct piped what = {schedule, comm_size(world), chunks, micro_batches, uneven == 1};
        assert_as_alone("gpt2", &what);
        assert_as_alone("llama", &what);
    }
}

static void test_pipeline__schedules_need_no_buffering(void **state)
{
    (void)state;
    static const int64_t counts[] = {1, 3, 9};
    int stages = comm_size(world);
    for (size_t i = 0; i < COUNT(counts); i++) {
        check_schedule(SCHEDULE_GPIPE, 1, counts[i]);
        check_schedule(SCHEDULE_1F1B, 1, counts[i]);
    }
    for (int chunks = 2; chunks <= 5; chunks++)
        for (int turns = 1; turns <= 2; turns++)
            check_schedule(SCHEDULE_INTERLEAVED, chunks, (int64_t)turns * stages);
}

/* ---- a skipped step ---- */

static void replace_line(char **text, const char *key, const char *line)
{
    char *at = strstr(*text, key);
    assert_non_null(at);
    char *rest = strchr(at, '\n');
    size_t bytes = strlen(*text) + strlen(line) + 1;
    char *whole = malloc(bytes);
    assert_non_null(whole);
    (void)snprintf(whole, bytes, "%.*s%s%s", (int)(at - *text), *text, line, rest);
    free(*text);
    *text = whole;
}

/* The only way to a loss scale that no gradient fits. Rank 0 rewrites the checkpoint. */
static void set_scale(const char *folder, double scale)
{
    char path[TEST_PATH_BYTES], line[64], hash[HASH_TEXT_BYTES];
    struct error err = {0};
    size_t bytes;
    if (comm_rank(world) == 0) {
        (void)snprintf(path, sizeof path, "%s/step-00000001/state.json", folder);
        (void)snprintf(line, sizeof line, "\"loss_scale\": %.1f,", scale);
        char *text = get_bytes(path, &bytes);
        replace_line(&text, "\"loss_scale\"", line);
        char *digits = text + strlen(text) - strlen("0123456789abcdef\"\n}\n");
        memset(digits, '0', HASH_TEXT_BYTES - 1);
        memcpy(digits, hash_format(hash_bytes(text, strlen(text)), hash), HASH_TEXT_BYTES - 1);
        put_bytes(path, text, strlen(text));
        free(text);
    }
    assert_ok(comm_barrier(world, &err), &err);
}

static struct step_result step(struct trained *trained)
{
    struct step_result result = {0};
    struct error err = {0};
    assert_ok(trainer_step(trained->trainer, &result, &err), &err);
    return result;
}

static double evaluated(struct trained *trained)
{
    double loss = 0;
    struct error err = {0};
    assert_ok(trainer_evaluate(trained->trainer, 5, &loss, &err), &err);
    return loss;
}

static void open_case(struct trained *out, const struct parity_case *what)
{
    struct plan plan;
    struct error err = {0};
    assert_ok(parity_plan(&plan, what, &err), &err);
    trained_open_plan(out, &plan, data_path, &optimizer, world);
}

static void assert_same_state(const struct trained_state *a, const struct trained_state *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t bytes = a->tensors[i].count * sizeof(float);
        assert_memory_equal(a->tensors[i].weights, b->tensors[i].weights, bytes);
        assert_memory_equal(a->tensors[i].first_moment, b->tensors[i].first_moment, bytes);
        assert_memory_equal(a->tensors[i].second_moment, b->tensors[i].second_moment, bytes);
    }
}

/* Two steps whose gradients are infinite: masters, moments and the copies that kernels read are to
 * the bit what they were, and the scale goes down. */
static void assert_skips(struct trained *trained)
{
    const double scale = 0x1p60;
    struct trained_state before, after;
    char folder[64];
    double loss = evaluated(trained);
    trained_folder(world, folder);
    trained_read(trained, folder, &before);
    for (int i = 0; i < 2; i++) {
        struct step_result result = step(trained);
        assert_true(result.skipped && result.complete);
        assert_true(result.loss_scale == (i == 0 ? scale : scale / 2));
    }
    assert_int_equal(trainer_skipped_count(trained->trainer), 2);
    assert_true(evaluated(trained) == loss);
    trained_read(trained, folder, &after);
    assert_same_state(&before, &after);
    trained_state_clear(&before);
    trained_state_clear(&after);
}

static void check_skipping(const struct parity_case *what)
{
    struct trained trained, resumed;
    struct error err = {0};
    char folder[64];
    trained_folder(world, folder);
    open_case(&trained, what);
    assert_false(step(&trained).skipped);
    assert_ok(trainer_save_checkpoint(trained.trainer, folder, 1, &err), &err);
    open_case(&resumed, what);
    set_scale(folder, 0x1p60);
    assert_ok(trainer_load_checkpoint(resumed.trainer, folder, &err), &err);
    assert_skips(&resumed);
    /* Nothing is left of it: the same scale as before makes the same steps. */
    set_scale(folder, 65536);
    assert_ok(trainer_load_checkpoint(resumed.trainer, folder, &err), &err);
    assert_true(step(&resumed).loss == step(&trained).loss);
    assert_true(evaluated(&resumed) == evaluated(&trained));
    trained_close(&resumed);
    trained_close(&trained);
    if (comm_rank(world) == 0)
        assert_ok(folder_remove(folder, &err), &err);
}

static struct parity_case fp16_case(const char *model)
{
    struct parity_case what = {.model = model, .ranks = comm_size(world)};
    what.value[PARITY_MESH] = parity_mesh(comm_size(world), 1, 1);
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_PRECISION] = PRECISION_FP16;
    what.value[PARITY_MICRO_BATCH] = 1;
    return what;
}

static void test_pipeline__skipped_step_changes_nothing(void **state)
{
    (void)state;
    int ranks = comm_size(world);
    if (ranks != 2 && ranks != 4)
        return;
    struct parity_case what = fp16_case("gpt2");
    for (int zero = 0; zero <= 3; zero++) {
        what.value[PARITY_ZERO] = zero;
        check_skipping(&what);
    }
    what.value[PARITY_ZERO] = ranks > 2 ? 2 : 0;
    what.value[PARITY_MESH] = parity_mesh(ranks / 2, 1, 2);
    check_skipping(&what);
}

/* The scale that a checkpoint has, be it the smallest; one without leaves that of the beginning. */
static void test_pipeline__resume_restores_the_scale(void **state)
{
    (void)state;
    static const double scales[] = {1, 4, 0};
    if (comm_size(world) != 2)
        return;
    const struct parity_case what = fp16_case("llama");
    struct trained trained;
    struct error err = {0};
    char folder[64];
    trained_folder(world, folder);
    for (size_t i = 0; i < COUNT(scales); i++) {
        open_case(&trained, &what);
        (void)step(&trained);
        assert_ok(trainer_save_checkpoint(trained.trainer, folder, 1, &err), &err);
        trained_close(&trained);
        set_scale(folder, scales[i]);
        open_case(&trained, &what);
        assert_ok(trainer_load_checkpoint(trained.trainer, folder, &err), &err);
        assert_true(step(&trained).loss_scale == (scales[i] > 0 ? scales[i] : 65536));
        trained_close(&trained);
    }
    if (comm_rank(world) == 0)
        assert_ok(folder_remove(folder, &err), &err);
}

/* ---- the trace ---- */

static bool is_within(const struct event *inner, const struct event *outer)
{
    return inner->end_ns - inner->waited_ns >= outer->start_ns && inner->end_ns <= outer->end_ns;
}

/* Compute events come one after the other, and each knows the waiting inside of it to the
 * nanosecond. Returns the time that the events account for. */
static int64_t check_compute(const struct recorded *recorded)
{
    int64_t end_ns = recorded->start_ns, accounted_ns = 0;
    for (size_t i = 0; i < recorded->count; i++) {
        const struct event *work = &recorded->events[i];
        int64_t waited_ns = 0;
        if (work->stream != STREAM_COMPUTE)
            continue;
        assert_true(work->start_ns >= end_ns);
        end_ns = work->end_ns;
        for (size_t k = 0; k < recorded->count; k++)
            if (recorded->events[k].stream == STREAM_COMM && is_within(&recorded->events[k], work))
                waited_ns += recorded->events[k].waited_ns;
        assert_int_equal(work->waited_ns, waited_ns);
        assert_true(waited_ns <= work->end_ns - work->start_ns);
        accounted_ns += work->end_ns - work->start_ns - waited_ns;
    }
    assert_true(end_ns <= recorded->end_ns);
    return accounted_ns;
}

static void check_trace(const struct parity_case *what)
{
    struct recorded recorded;
    recorded_step(&recorded, what, world);
    int64_t accounted_ns = check_compute(&recorded);
    for (size_t i = 0; i < recorded.count; i++) {
        const struct event *event = &recorded.events[i];
        assert_true(event->start_ns >= recorded.start_ns && event->end_ns <= recorded.end_ns);
        if (event->stream != STREAM_COMM)
            continue;
        assert_true(event->waited_ns >= 0);
        assert_true(event->waited_ns <= event->end_ns - event->start_ns);
        accounted_ns += event->waited_ns;
    }
    assert_true(accounted_ns <= recorded.end_ns - recorded.start_ns);
    recorded_clear(&recorded);
}

static void test_pipeline__times_are_counted_once(void **state)
{
    (void)state;
    int ranks = comm_size(world);
    if (ranks == 3)
        return;
    struct parity_case what = {.model = "gpt2", .ranks = ranks};
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_MESH] = parity_mesh(1, 1, ranks);
    check_trace(&what);
    what.value[PARITY_MESH] = parity_mesh(ranks / 2, 2, 1);
    what.value[PARITY_SEQUENCE] = 1;
    check_trace(&what);
    what.value[PARITY_SEQUENCE] = 0;
    what.value[PARITY_MESH] = parity_mesh(ranks, 1, 1);
    for (int zero = 0; zero <= 3; zero++) {
        what.value[PARITY_ZERO] = zero;
        check_trace(&what);
    }
}

/* What a rank waits for at a boundary is counted for the layer and micro-batch that wanted it. */
static void test_pipeline__waiting_is_for_the_layer_at_the_boundary(void **state)
{
    (void)state;
    struct recorded recorded;
    struct parity_case what = {.model = "llama", .ranks = 2};
    if (comm_size(world) != 2)
        return;
    what.value[PARITY_SCHEDULE] = SCHEDULE_GPIPE;
    what.value[PARITY_MESH] = parity_mesh(1, 1, 2);
    what.value[PARITY_MICRO_BATCH] = 2; /* four of them */
    recorded_step(&recorded, &what, world);
    int32_t last_of_first = (int32_t)recorded.layers / 2 - 1;
    int received[4] = {0};
    for (size_t i = 0; i < recorded.count; i++) {
        const struct event *event = &recorded.events[i];
        if (event->phase != PHASE_PIPELINE || event->layer == EVENT_NO_LAYER ||
            event->live_bytes == 0)
            continue;
        assert_int_equal(event->layer, last_of_first + comm_rank(world));
        received[event->micro_batch]++;
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(received[i], 1);
    recorded_clear(&recorded);
}

static void share_data(void)
{
    struct error err = {0};
    if (comm_rank(world) == 0)
        write_tokens(data_path, 20000, 251);
    assert_int_equal(comm_broadcast(world, data_path, sizeof data_path, 0, &err), STATUS_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pipeline__schedules_need_no_buffering),
        cmocka_unit_test(test_pipeline__skipped_step_changes_nothing),
        cmocka_unit_test(test_pipeline__resume_restores_the_scale),
        cmocka_unit_test(test_pipeline__times_are_counted_once),
        cmocka_unit_test(test_pipeline__waiting_is_for_the_layer_at_the_boundary),
    };
    struct error err = {0};
    /* Of Open MPI over shared memory; others do not know these. */
    setenv("OMPI_MCA_btl_vader_eager_limit", "256", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_size(world) == 1) {
        comm_close(world);
        return 0;
    }
    share_data();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comm_rank(world) == 0)
        unlink(data_path);
    comm_close(world);
    return failed;
}
