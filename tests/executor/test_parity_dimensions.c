/* One dimension of a plan at a time, against the plan without it: which of them change no bit, and
 * how much the others do. Prints the table of docs/parity.md. Run under mpirun with 2 ranks. */
#include "parity_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

static const double comparisons = 1e3;

static struct comm *world;
static char data_path[64];

enum { MICRO_BATCH_2 = 1, MICRO_BATCH_4 = 2 }; /* values of PARITY_MICRO_BATCH */

/* What differs from the plan of one device with micro-batches of 4 sequences. */
struct row {
    const char *name;
    int data_parallel, tensor_parallel, pipeline;
    int zero, sequence, recompute, attention, micro_batch;
    /* In these models no bit differs from one device's with gradients in the same precision:
     * "both", "llama" (whose embedding no two stages share), or NULL: some may. */
    const char *exact;
};

static const struct row rows[] = {
    {"recompute selective", 1, 1, 1, 0, 0, RECOMPUTE_SELECTIVE, 0, MICRO_BATCH_4, "both"},
    {"recompute full", 1, 1, 1, 0, 0, RECOMPUTE_FULL, 0, MICRO_BATCH_4, "both"},
    {"tiled attention", 1, 1, 1, 0, 0, 0, ATTENTION_TILED, MICRO_BATCH_4, NULL},
    {"micro-batch 2", 1, 1, 1, 0, 0, 0, 0, MICRO_BATCH_2, NULL},
    {"pp 2", 1, 1, 2, 0, 0, 0, 0, MICRO_BATCH_4, "llama"},
    {"dp 2", 2, 1, 1, 0, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 1", 2, 1, 1, 1, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 2", 2, 1, 1, 2, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 3", 2, 1, 1, 3, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"tp 2", 1, 2, 1, 0, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"tp 2, sequence", 1, 2, 1, 0, 1, 0, 0, MICRO_BATCH_4, NULL},
};

/* The same with gradients in bf16; the first is what no bit of the others may differ from. */
static const struct row narrow_rows[] = {
    {"one device", 1, 1, 1, 0, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"pp 2", 1, 1, 2, 0, 0, 0, 0, MICRO_BATCH_4, "llama"},
    {"dp 2", 2, 1, 1, 0, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 1", 2, 1, 1, 1, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 2", 2, 1, 1, 2, 0, 0, 0, MICRO_BATCH_4, NULL},
    {"dp 2, ZeRO 3", 2, 1, 1, 3, 0, 0, 0, MICRO_BATCH_4, NULL},
};

static struct parity_case case_of(const char *model, enum precision precision,
                                  enum gradient_reduction gradients, const struct row *row)
{
    struct parity_case what = {.model = model,
                               .ranks = row->data_parallel * row->tensor_parallel * row->pipeline};
    what.value[PARITY_MESH] = parity_mesh(row->data_parallel, row->tensor_parallel, row->pipeline);
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_ZERO] = row->zero;
    what.value[PARITY_RECOMPUTE] = row->recompute;
    what.value[PARITY_ATTENTION] = row->attention;
    what.value[PARITY_PRECISION] = (int)precision;
    what.value[PARITY_SEQUENCE] = row->sequence;
    what.value[PARITY_MICRO_BATCH] = row->micro_batch;
    what.value[PARITY_GRADIENTS] = (int)gradients;
    return what;
}

/* Over all ranks, or by rank 0 alone where the plan has one rank. */
static void train(const struct parity_case *what, struct parity_outcome *out)
{
    struct plan plan;
    struct error err = {0};
    struct comm *alone = NULL;
    assert_int_equal(parity_plan(&plan, what, &err), STATUS_OK);
    assert_int_equal(comm_open_alone(&alone, &err), STATUS_OK);
    parity_train(out, &plan, data_path, what->ranks == 1 ? alone : world);
    comm_close(alone);
}

static bool is_exact(const struct row *row, const char *model)
{
    return row->exact != NULL &&
           (strcmp(row->exact, "both") == 0 || strcmp(row->exact, model) == 0);
}

static void assert_same_bits(const struct trained_state *a, const struct trained_state *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        size_t bytes = a->tensors[i].count * sizeof(float);
        assert_memory_equal(a->tensors[i].weights, b->tensors[i].weights, bytes);
        assert_memory_equal(a->tensors[i].first_moment, b->tensors[i].first_moment, bytes);
    }
}

static void compare(struct parity_device *device, const struct parity_case *what,
                    const struct parity_outcome *got, const struct row *row)
{
    struct parity_verdict verdict;
    parity_device_expect(device, what, 1);
    parity_compare(device, got, &verdict);
    printf("| %-19s |", row->name);
    for (int q = 0; q < PARITY_WEIGHTS; q++)
        printf(" %.1e |", verdict.of[q].observed);
    printf(" %s\n", verdict.of[PARITY_MOMENT].where);
    assert_true(parity_worst(&verdict) <= 1);
}

static void run_rows(const char *model, enum precision precision, enum gradient_reduction gradients)
{
    static const struct row one = {"one device", 1, 1, 1, 0, 0, 0, 0, MICRO_BATCH_4, NULL};
    const struct parity_case base = case_of(model, precision, GRADIENTS_FP32, &one);
    bool is_narrow = gradients == GRADIENTS_BF16;
    size_t count =
        is_narrow ? sizeof narrow_rows / sizeof *narrow_rows : sizeof rows / sizeof *rows;
    struct parity_device device = {0};
    struct parity_outcome whole_batch = {0}, first = {0};
    if (comm_rank(world) == 0) {
        parity_device_open(&device, &base, data_path, comparisons);
        /* Compared with instead of the whole batch at once. */
        whole_batch = device.outcome;
        train(&base, &device.outcome);
        printf("%s %s%s\n", model, precision_name(precision),
               is_narrow ? ", gradients in bf16" : "");
    }
    for (size_t i = 0; i < count; i++) {
        const struct row *row = is_narrow ? &narrow_rows[i] : &rows[i];
        const struct parity_case what = case_of(model, precision, gradients, row);
        struct parity_outcome got = {0};
        if (what.ranks > 1 || comm_rank(world) == 0)
            train(&what, &got);
        if (comm_rank(world) == 0) {
            compare(&device, &what, &got, row);
            if (is_exact(row, model))
                assert_same_bits(&got.state, is_narrow ? &first.state : &device.outcome.state);
        }
        if (i == 0)
            first = got;
        else
            parity_outcome_clear(&got);
    }
    parity_outcome_clear(&first);
    parity_outcome_clear(&whole_batch);
    if (comm_rank(world) == 0)
        parity_device_close(&device);
}

static void test_parity_dimensions__one_at_a_time(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    assert_int_equal(device_open(&device, 1, &err), STATUS_OK);
    for (int p = 0; p < PRECISION_COUNT; p++) {
        if (!device_supports(device, (enum precision)p))
            continue;
        run_rows("gpt2", (enum precision)p, GRADIENTS_FP32);
        run_rows("llama", (enum precision)p, GRADIENTS_FP32);
        if (p != PRECISION_BF16)
            continue; /* nobody's gradients but an untied table's are in bf16 */
        run_rows("gpt2", (enum precision)p, GRADIENTS_BF16);
        run_rows("llama", (enum precision)p, GRADIENTS_BF16);
    }
    device_close(device);
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
        cmocka_unit_test(test_parity_dimensions__one_at_a_time),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    if (comm_size(world) != 2) {
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
