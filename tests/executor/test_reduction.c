/* Sums of gradients over the ranks that replicate a layer, against sums by hand, under every ZeRO
 * stage; and that they are under way while the backward pass goes on. Gradients are small whole
 * numbers, so that no order of additions rounds, nor bf16. Run alone, and under mpirun with 2 and 4
 * ranks. */
#include "support.h"

#include "base/bf16.h"
#include "executor/reduction.h"
#include "executor/weights.h"
#include "ir/mesh.h"
#include "parity_cases.h"
#include "recorded.h"

enum { MICRO_BATCHES = 3 };

static struct comm *world;

/* One rank's layout with a reduction over it. */
struct reduced {
    struct plan plan;
    struct device *device;
    struct journal journal;
    struct memory_layout layout;
    struct groups groups;
    struct reduction reduction;
};

static void reduced_open(struct reduced *out, const struct parity_case *what)
{
    struct error err = {0};
    *out = (struct reduced){0};
    assert_ok(parity_plan(&out->plan, what, &err), &err);
    assert_ok(device_open(&out->device, 1, &err), &err);
    assert_ok(layout_open(&out->layout, out->device, &out->plan, comm_rank(world), true, &err),
              &err);
    assert_ok(groups_open(&out->groups, &out->plan, world, &out->journal, &err), &err);
    assert_ok(reduction_open(&out->reduction, &out->layout, &out->groups, &out->journal, &err),
              &err);
}

static void reduced_close(struct reduced *reduced)
{
    groups_close(&reduced->groups);
    reduction_close(&reduced->reduction);
    layout_close(&reduced->layout);
    device_close(reduced->device);
    plan_clear(&reduced->plan);
}

/* ---- gradients of one rank, layer and micro-batch ---- */

static float element_of(int rank, size_t layer, int64_t micro_batch, uint64_t element)
{
    return (float)((element * 7 + (uint64_t)rank * 3 + layer * 5 + (uint64_t)micro_batch) % 8);
}

static float load(const void *data, enum precision precision, uint64_t index)
{
    return precision == PRECISION_BF16 ? float_from_bf16(((const uint16_t *)data)[index])
                                       : ((const float *)data)[index];
}

static void put_gradient(void *data, const struct local_layer *layer, bool adds, int rank,
                         size_t index, int64_t micro_batch)
{
    enum precision precision = layer->state.gradient_precision;
    for (uint64_t i = 0; i < layer->state.partition.count; i++) {
        float value = (adds ? load(data, precision, i) : 0);
        value += element_of(rank, index, micro_batch, i);
        if (precision == PRECISION_BF16)
            ((uint16_t *)data)[i] = bf16_from_float(value);
        else
            ((float *)data)[i] = value;
    }
}

/* As a layer's backward would. */
static void backward(struct reduced *reduced, size_t local, int64_t micro_batch)
{
    const struct local_layer *layer = &reduced->layout.layers[local];
    const struct local_layer *table = layout_layer(&reduced->layout, 0);
    struct gradient_view view;
    struct error err = {0};
    int rank = comm_rank(world);
    assert_ok(reduction_prepare(&reduced->reduction, local, micro_batch, &view, &err), &err);
    if (view.matrices != NULL)
        put_gradient(view.matrices, layer, view.accumulate_matrices || view.table_is_written, rank,
                     layer->index, micro_batch);
    if (view.table != NULL)
        put_gradient(view.table, table, view.accumulate_matrices, rank, layer->index, micro_batch);
    for (uint64_t i = 0; i < layer->state.vectors; i++)
        view.vectors[i] = (view.accumulate_vectors ? view.vectors[i] : 0) +
                          element_of(rank, layer->index, micro_batch, i);
    assert_ok(reduction_start(&reduced->reduction, local, micro_batch,
                              micro_batch + 1 == MICRO_BATCHES, &err),
              &err);
}

static void run_step(struct reduced *reduced)
{
    struct error err = {0};
    for (int64_t m = 0; m < MICRO_BATCHES; m++)
        for (size_t i = reduced->layout.layer_count; i-- > 0;)
            backward(reduced, i, m);
    assert_ok(reduction_finish(&reduced->reduction, &err), &err);
    for (size_t i = 0; i < reduced->layout.layer_count; i++) {
        assert_null(reduced->reduction.layers[i].matrices);
        assert_null(reduced->reduction.layers[i].vectors);
    }
}

/* ---- their sums ---- */

static double sum_of(size_t layer, const int *ranks, int count, uint64_t element)
{
    double sum = 0;
    for (int64_t m = 0; m < MICRO_BATCHES; m++)
        for (int r = 0; r < count; r++)
            sum += element_of(ranks[r], layer, m, element);
    return sum;
}

/* The ranks of this rank's data-parallel group in a stage, and, for vectors that are partial, of
 * all tensor-parallel ranks with it. */
static int group_of(const struct reduced *reduced, const struct local_layer *layer, int stage,
                    bool whole_stage, int *ranks)
{
    const struct plan *plan = &reduced->plan;
    int degree = layer->strategy.tensor_parallel, place = reduced->layout.place, count = 0;
    for (int p = 0; p < mesh_stage_ranks(plan); p++)
        if (whole_stage || p % degree == place % degree)
            ranks[count++] = mesh_rank_at(plan, stage, p);
    return count;
}

static double matrices_sum(const struct reduced *reduced, const struct local_layer *layer,
                           uint64_t element)
{
    int ranks[16];
    int count = group_of(reduced, layer, reduced->layout.stage, false, ranks);
    double sum = sum_of(layer->index, ranks, count, element);
    size_t last = reduced->plan.layer_count - 1;
    bool is_end = layer->index == 0 || layer->index == last;
    if (!reduced->plan.model.tied_head || !is_end)
        return sum;
    /* The table's other user: on this stage, or on the other end's. */
    int other = layer->index == 0 ? reduced->plan.pipeline - 1 : 0;
    count = group_of(reduced, layer, other, false, ranks);
    return sum + sum_of(layer->index == 0 ? last : 0, ranks, count, element);
}

static void assert_summed(const struct reduced *reduced, const struct local_layer *layer)
{
    const struct partition *partition = &layer->state.partition;
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        const void *block = reduction_block(layer, i);
        uint64_t first = piece.first + (uint64_t)layer->block * piece.block;
        for (uint64_t k = 0; k < piece.block; k++)
            assert_true((double)load(block, layer->state.gradient_precision, k) ==
                        matrices_sum(reduced, layer, first + k));
    }
    int ranks[16];
    uint64_t partial = layer_part_counts(&reduced->plan.model, &layer->part).partial;
    for (uint64_t k = 0; k < layer->state.vectors; k++) {
        bool is_shared = layer->part.sequence_parallel && k < partial;
        int count = group_of(reduced, layer, reduced->layout.stage, is_shared, ranks);
        assert_true((double)layer->vector_gradients[k] == sum_of(layer->index, ranks, count, k));
    }
}

static void check(const struct parity_case *what)
{
    struct reduced reduced;
    reduced_open(&reduced, what);
    /* The second step finds what the first has left. */
    for (int step = 0; step < 2; step++) {
        run_step(&reduced);
        for (size_t i = 0; i < reduced.layout.layer_count; i++)
            assert_summed(&reduced, &reduced.layout.layers[i]);
    }
    reduced_close(&reduced);
}

static void check_meshes(const char *model, int zero_stage, int precision,
                         enum gradient_reduction gradients)
{
    int ranks = comm_size(world);
    struct parity_case what = {.model = model, .ranks = ranks};
    what.value[PARITY_ZERO] = zero_stage;
    what.value[PARITY_PRECISION] = precision;
    what.value[PARITY_GRADIENTS] = (int)gradients;
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_MESH] = parity_mesh(ranks, 1, 1);
    check(&what);
    if (ranks < 2)
        return;
    what.value[PARITY_MESH] = parity_mesh(ranks / 2, 1, 2);
    check(&what);
    what.value[PARITY_MESH] = parity_mesh(ranks / 2, 2, 1);
    what.value[PARITY_SEQUENCE] = 1;
    check(&what);
}

static void test_reduction__sums_are_those_by_hand(void **state)
{
    (void)state;
    for (int zero = 0; zero <= 4; zero++) { /* 4: a mixture by layer */
        for (int precision = 0; precision <= PRECISION_COUNT; precision++) { /* the last, too */
            check_meshes("gpt2", zero, precision, GRADIENTS_BF16);
            check_meshes("llama", zero, precision, GRADIENTS_BF16);
        }
        check_meshes("gpt2", zero, PRECISION_BF16, GRADIENTS_FP32);
        check_meshes("llama", zero, PRECISION_BF16, GRADIENTS_FP32);
    }
}

/* ---- overlap ---- */

/* Each layer's gradient is on its way before the backward pass has come to the layer before it. */
static void assert_starts_during_backward(const struct recorded *recorded, size_t layers)
{
    for (int32_t layer = 1; layer < (int32_t)layers - 1; layer++) {
        const struct event *reduce = recorded_find(recorded, PHASE_GRAD_REDUCE, layer);
        const struct event *next = recorded_find(recorded, PHASE_BACKWARD, layer - 1);
        assert_non_null(reduce);
        assert_non_null(next);
        assert_true(reduce->start_ns <= next->start_ns);
        /* And nobody has waited for it before that one began. */
        assert_true(reduce->end_ns - reduce->waited_ns >= next->start_ns);
    }
}

static void test_reduction__starts_during_backward(void **state)
{
    (void)state;
    int ranks = comm_size(world);
    struct parity_case what = {.model = "llama", .ranks = ranks};
    what.value[PARITY_MESH] = parity_mesh(ranks, 1, 1);
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    what.value[PARITY_MICRO_BATCH] = 2;
    if (ranks < 2)
        return;
    for (int zero = 0; zero <= 3; zero++) {
        struct recorded recorded;
        what.value[PARITY_ZERO] = zero;
        recorded_step(&recorded, &what, world);
        assert_starts_during_backward(&recorded, recorded.layers);
        recorded_clear(&recorded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reduction__sums_are_those_by_hand),
        cmocka_unit_test(test_reduction__starts_during_backward),
    };
    struct error err = {0};
    if (comm_open(&world, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(world);
    return failed;
}
