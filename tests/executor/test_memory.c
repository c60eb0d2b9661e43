/* What a rank's memory grows by when it trains is what its layout says, within 5 %: opening a
 * trainer and two steps, of a model of 25 MiB of weights under each way to split it; and what
 * happens where there is too little. Run under mpirun with 2 and 4 ranks. */
#include "support.h"

#include "base/host.h"
#include "trained.h"
#include <sys/resource.h>

/* Sanitizers keep memory of their own beside the program's. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

static struct comm *world;
static char data_path[64];

static const struct optimizer_options optimizer = {
    .learning_rate = 1e-3,
    .min_learning_rate = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .epsilon = 1e-3,
    .clip_norm = 1,
};

enum { VOCAB = 4096, HIDDEN = 256, SEQUENCE = 32, MICRO_BATCH = 2 };

struct split {
    const char *name;
    int tensor_parallel, pipeline; /* over as many ranks as there are; the rest is data parallel */
    int zero_stage;
    bool sequence_parallel;
    enum precision precision;
};

static const struct split splits[] = {
    {"data parallel", 1, 1, 0, false, PRECISION_FP32},
    {"ZeRO 1", 1, 1, 1, false, PRECISION_FP32},
    {"ZeRO 2", 1, 1, 2, false, PRECISION_FP32},
    {"ZeRO 3", 1, 1, 3, false, PRECISION_FP32},
    {"ZeRO 3, fp16", 1, 1, 3, false, PRECISION_FP16},
    {"tensor parallel", 2, 1, 0, false, PRECISION_FP32},
    {"sequence parallel, ZeRO 1", 2, 1, 1, true, PRECISION_FP32},
    {"pipeline", 1, 2, 0, false, PRECISION_FP32},
};

static void split_plan(struct plan *out, const struct split *split, int64_t blocks)
{
    struct model_overrides sizes = {.layers = blocks,
                                    .hidden = HIDDEN,
                                    .heads = 8,
                                    .kv_heads = 8,
                                    .ffn = 4 * HIDDEN,
                                    .vocab_size = VOCAB,
                                    .positions = SEQUENCE,
                                    .seq_length = SEQUENCE};
    struct error err = {0};
    *out = (struct plan){
        .ranks = comm_size(world),
        .data_parallel = comm_size(world) / split->tensor_parallel / split->pipeline,
        .tensor_parallel = split->tensor_parallel,
        .pipeline = split->pipeline,
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = 1,
        .micro_batch = MICRO_BATCH,
        .micro_batches = 2,
    };
    out->global_batch = MICRO_BATCH * out->micro_batches * out->data_parallel;
    assert_ok(model_load(&out->model, "tinyllama-1.1b", &sizes, &err), &err);
    out->layer_count = model_layer_count(&out->model);
    out->layers = calloc(out->layer_count, sizeof *out->layers);
    assert_non_null(out->layers);
    for (size_t i = 0; i < out->layer_count; i++) {
        struct layer_strategy *strategy = &out->layers[i];
        *strategy = (struct layer_strategy){
            .stage = (int)(i * (size_t)split->pipeline / out->layer_count),
            .tensor_parallel = split->tensor_parallel,
            .sequence_parallel = split->sequence_parallel,
            .zero_stage = split->zero_stage,
        };
        if (layer_admits_precision(model_layer(&out->model, i).kind, split->precision))
            strategy->precision = split->precision;
    }
    assert_ok(plan_validate(out, "test", &err), &err);
}

/* What the process grows by, and what the layout says. */
struct growth {
    int64_t process_bytes, layout_bytes;
};

static struct growth grow(const struct split *split, int64_t blocks)
{
    struct plan plan;
    struct trained trained;
    split_plan(&plan, split, blocks);
    int64_t before_bytes = (int64_t)host_process_rss_bytes();
    trained_open_plan(&trained, &plan, data_path, &optimizer, world);
    trained_steps(&trained, 2, NULL);
    struct growth growth = {(int64_t)host_process_rss_bytes() - before_bytes,
                            (int64_t)trainer_layout_bytes(trained.trainer)};
    trained_close(&trained);
    return growth;
}

/* Libraries, the windows of MPI's groups, the device's panels: the process's constant is what a
 * training of one block, of layers of the same sizes, takes beside its layout. The very first one
 * wakes the libraries. */
static void test_memory__grows_by_the_layout(void **state)
{
    (void)state;
    if (IS_SANITIZED)
        skip();
    for (size_t i = 0; i < COUNT(splits); i++) {
        if (i == 0)
            (void)grow(&splits[i], 1);
        struct growth small = grow(&splits[i], 1), large = grow(&splits[i], 4);
        int64_t constant_bytes = small.process_bytes - small.layout_bytes;
        int64_t above_bytes = large.process_bytes - constant_bytes;
        double difference = (double)(above_bytes - large.layout_bytes) / (double)large.layout_bytes;
        if (getenv("TEST_VERBOSE") != NULL)
            printf("rank %d, %s: layout %.1f MiB, grown by %.1f MiB above %.1f: %+.1f %%\n",
                   comm_rank(world), splits[i].name, (double)large.layout_bytes / (1 << 20),
                   (double)above_bytes / (1 << 20), (double)constant_bytes / (1 << 20),
                   100 * difference);
        if (!(difference < 0.05 && difference > -0.05))
            fail_msg("%s: the layout has %lld bytes, the process has grown by %lld above a "
                     "constant of %lld",
                     splits[i].name, (long long)large.layout_bytes, (long long)above_bytes,
                     (long long)constant_bytes);
    }
}

/* ---- too little ---- */

enum { SPARE_BYTES = 8 << 20 };

/* No more than a few MiB beyond what the process has mapped now. */
static struct rlimit limit_memory(void)
{
    struct rlimit before, limited;
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    assert_non_null(statm);
    assert_int_equal(fscanf(statm, "%lu", &pages), 1);
    assert_int_equal(fclose(statm), 0);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    limited = before;
    limited.rlim_cur = pages * (rlim_t)sysconf(_SC_PAGESIZE) + SPARE_BYTES;
    assert_int_equal(setrlimit(RLIMIT_AS, &limited), 0);
    return before;
}

/* One rank has no room for its layout: all of them say so, and none waits for it. With its memory
 * back they train. */
static void test_memory__too_little_at_one_rank_is_told_to_all(void **state)
{
    (void)state;
    if (IS_SANITIZED)
        skip();
    bool is_poor = comm_rank(world) == comm_size(world) - 1;
    struct rlimit before = {0};
    struct plan plan;
    struct device *device = NULL;
    struct trainer *trainer = NULL;
    struct error err = {0};
    split_plan(&plan, &splits[0], 4);
    assert_ok(device_open(&device, plan.threads, &err), &err);
    const struct trainer_setup setup = {
        .plan = &plan, .comm = world, .device = device, .optimizer = optimizer, .skip_limit = 1};
    if (is_poor)
        before = limit_memory();
    enum status status = trainer_open(&trainer, &setup, &err);
    if (is_poor)
        assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_refused(status, STATUS_MEMORY, &err, "laying out", "out of memory");
    assert_null(trainer);
    assert_ok(trainer_open(&trainer, &setup, &err), &err);
    trainer_close(trainer);
    device_close(device);
    plan_clear(&plan);
}

/* glibc's heap would keep what is freed now and then: large blocks are to come from the system and
 * go back to it. It reads this when a program starts. */
static void start_again_with_plain_malloc(char **argv)
{
    static const char variable[] = "MALLOC_MMAP_THRESHOLD_";
    if (getenv(variable) != NULL)
        return;
    setenv(variable, "65536", 1);
    (void)execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    (void)argc;
    start_again_with_plain_malloc(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory__grows_by_the_layout),
        cmocka_unit_test(test_memory__too_little_at_one_rank_is_told_to_all),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_size(world) == 1) {
        comm_close(world);
        return 0;
    }
    if (comm_rank(world) == 0)
        write_tokens(data_path, 20000, VOCAB);
    assert_int_equal(comm_broadcast(world, data_path, sizeof data_path, 0, &err), STATUS_OK);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (comm_rank(world) == 0)
        unlink(data_path);
    comm_close(world);
    return failed;
}
