/* Where everything lives, under every plan of the parity matrix: no two things that are in use at
 * one time share a byte, and each region is used up to its last page. */
#include "support.h"

#include "executor/layout.h"
#include "ir/footprint.h"
#include "ir/mesh.h"
#include "parity_cases.h"

enum { SPANS_MAX = 4096 };

/* Things that stand side by side in one region. */
struct spans {
    struct span_of {
        const char *name;
        uint64_t first, end; /* bytes from the region's base */
    } of[SPANS_MAX];
    size_t count;
    const struct region *region;
};

static void put(struct spans *spans, const char *name, const void *data, uint64_t bytes)
{
    if (bytes == 0)
        return;
    if (data == NULL)
        fail_msg("%s of %llu bytes is nowhere", name, (unsigned long long)bytes);
    const char *base = spans->region->base, *at = data;
    if (at < base || at + bytes > base + spans->region->bytes)
        fail_msg("%s is not in its region", name);
    assert_true((uintptr_t)at % 64 == 0);
    assert_true(spans->count < SPANS_MAX);
    uint64_t first = (uint64_t)(at - base);
    spans->of[spans->count++] = (struct span_of){name, first, first + bytes};
}

static int by_place(const void *a, const void *b)
{
    const struct span_of *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Apart from each other; returns the end of the last. */
static uint64_t assert_apart(struct spans *spans)
{
    uint64_t end = 0;
    qsort(spans->of, spans->count, sizeof spans->of[0], by_place);
    for (size_t i = 0; i < spans->count; i++) {
        if (spans->of[i].first < end)
            fail_msg("%s overlaps %s", spans->of[i].name, spans->of[i - 1].name);
        end = spans->of[i].end;
    }
    return end;
}

/* No page of the region is never used: neither behind the last thing nor between two. */
static void assert_filled(struct spans *spans)
{
    uint64_t end = 0;
    assert_int_equal(footprint_region_bytes(assert_apart(spans)), spans->region->bytes);
    for (size_t i = 0; i < spans->count; i++) {
        assert_true(spans->of[i].first < end + FOOTPRINT_ALIGN_BYTES);
        end = spans->of[i].end;
    }
}

static struct spans *spans_of(const struct memory_layout *layout, enum memory_term term)
{
    static struct spans spans;
    spans.count = 0;
    spans.region = &layout->regions[term];
    return &spans;
}

/* ---- what stays ---- */

static void check_parameters(const struct memory_layout *layout)
{
    struct spans *spans = spans_of(layout, MEMORY_PARAMETERS);
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        const struct layer_state *state = &layer->state;
        put(spans, "whole_fp32", layer->whole_fp32, state->whole_fp32 * 4);
        put(spans, "whole_16", layer->whole_16, state->whole_16 * 2);
        put(spans, "shard_fp32", layer->shard_fp32, state->shard_fp32 * 4);
        put(spans, "shard_16", layer->shard_16, state->shard_16 * 2);
        put(spans, "table_16", layer->table_16, state->table_16 * 2);
        put(spans, "vectors", layer->vectors, state->vectors * 4);
    }
    assert_filled(spans);
}

static void check_gradients_and_moments(const struct memory_layout *layout)
{
    struct spans *spans = spans_of(layout, MEMORY_GRADIENTS);
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        put(spans, "gradients", layer->gradients,
            layer->state.gradients * precision_bytes(layer->state.gradient_precision));
        put(spans, "vector gradients", layer->vector_gradients, layer->state.vectors * 4);
    }
    assert_filled(spans);
    spans = spans_of(layout, MEMORY_OPTIMIZER);
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        put(spans, "first moment", layer->first_moment, layer->state.moments * 4);
        put(spans, "second moment", layer->second_moment, layer->state.moments * 4);
        put(spans, "vectors' first", layer->vector_first_moment, layer->state.vectors * 4);
        put(spans, "vectors' second", layer->vector_second_moment, layer->state.vectors * 4);
    }
    assert_filled(spans);
}

/* ---- activations and scratch ---- */

struct layer_buffers {
    struct buffer_spec specs[LAYER_BUFFERS_MAX];
    size_t count;
};

static struct layer_buffers buffers_of(const struct memory_layout *layout,
                                       const struct local_layer *layer)
{
    struct layer_buffers buffers;
    struct layer_precision_mode mode = strategy_mode(&layer->strategy);
    buffers.count =
        layer_part_buffers(&layout->plan->model, &layer->part, mode, &layer->shape, buffers.specs);
    return buffers;
}

static void put_slots(struct spans *spans, const struct layer_buffers *buffers,
                      const struct flight *flight, enum buffer_life life)
{
    for (size_t i = 0; i < buffers->count; i++)
        if (buffers->specs[i].life == life)
            put(spans, life == BUFFER_SAVED ? "a saved buffer" : "a scratch buffer",
                flight->slots[buffers->specs[i].slot], buffers->specs[i].bytes);
}

static void put_flights(struct spans *spans, const struct memory_layout *layout,
                        const struct local_layer *layer)
{
    const struct layer_buffers buffers = buffers_of(layout, layer);
    enum layer_kind kind = layer->part.kind;
    uint64_t tokens = (uint64_t)(layer->shape.sequences * layer->shape.seq_length);
    uint64_t stream = part_boundary_bytes(&layout->plan->model, &layer->part, &layer->shape);
    for (int64_t k = 0; k < layer->flight_count; k++) {
        const struct flight *flight = layer_flight(layer, layer->flight_count + k);
        assert_ptr_equal(flight, &layer->flights[k]);
        put_slots(spans, &buffers, flight, BUFFER_SAVED);
        put(spans, "input", flight->input, kind != LAYER_EMBEDDING ? stream : 0);
        put(spans, "tokens", flight->tokens, kind == LAYER_EMBEDDING ? tokens * 4 : 0);
        put(spans, "targets", flight->targets, kind == LAYER_HEAD ? tokens * 4 : 0);
    }
}

static void check_activations(const struct memory_layout *layout)
{
    struct spans *spans = spans_of(layout, MEMORY_ACTIVATIONS);
    for (int i = 0; i < layout->stream_count; i++)
        put(spans, "a stream", layout->streams[i], footprint_stream_bytes(layout->plan));
    for (size_t i = 0; i < layout->layer_count; i++)
        put_flights(spans, layout, &layout->layers[i]);
    assert_filled(spans);
}

static void put_ring(struct spans *spans, const struct ring *ring)
{
    for (int i = 0; i < 2; i++)
        put(spans, "a ring's buffer", ring->buffers[i], ring->bytes);
}

/* What a layer works on while the rings hold its neighbours' parameters and gradients; returns
 * where its own scratch ends. */
static uint64_t check_layer_scratch(const struct memory_layout *layout,
                                    const struct local_layer *layer)
{
    struct spans *spans = spans_of(layout, MEMORY_SCRATCH);
    const struct layer_buffers buffers = buffers_of(layout, layer);
    put_slots(spans, &buffers, &layer->flights[0], BUFFER_SCRATCH);
    for (int64_t k = 1; k < layer->flight_count; k++)
        for (size_t i = 0; i < buffers.count; i++)
            if (buffers.specs[i].life == BUFFER_SCRATCH)
                assert_ptr_equal(layer->flights[k].slots[buffers.specs[i].slot],
                                 layer->flights[0].slots[buffers.specs[i].slot]);
    if (layer->own_parameters != NULL)
        put(spans, "own parameters", layer->own_parameters, layer->state.gather_bytes);
    else
        assert_true(layer->state.gather_bytes <= layout->parameter_ring.bytes);
    if (layer->own_gradient != NULL)
        put(spans, "own gradient", layer->own_gradient, layer->state.gradient_bytes);
    else
        assert_true(layer->state.gradient_bytes <= layout->gradient_ring.bytes);
    uint64_t end = assert_apart(spans);
    put_ring(spans, &layout->gradient_ring);
    put_ring(spans, &layout->parameter_ring);
    (void)assert_apart(spans);
    return end;
}

/* The high-water mark of the scratch: some layer needs all of it, and behind that come the rings,
 * up to the region's end. */
static void check_scratch(const struct memory_layout *layout)
{
    uint64_t most = 0;
    for (size_t i = 0; i < layout->layer_count; i++) {
        uint64_t end = check_layer_scratch(layout, &layout->layers[i]);
        most = end > most ? end : most;
    }
    struct spans *spans = spans_of(layout, MEMORY_SCRATCH);
    put(spans, "the fullest layer's scratch", spans->region->base, most);
    put_ring(spans, &layout->gradient_ring);
    put_ring(spans, &layout->parameter_ring);
    assert_filled(spans);
}

/* ---- ownership ---- */

/* The blocks of master parameters are all of the shard, each element once. */
static void check_master(const struct local_layer *layer)
{
    const struct partition *partition = &layer->state.partition;
    uint64_t owned = 0;
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        const float *at = layer_master(layer, i);
        const float *base = layer->shard_fp32 != NULL ? layer->shard_fp32 : layer->whole_fp32;
        uint64_t first =
            layer->shard_fp32 != NULL ? owned : piece.first + (uint64_t)layer->block * piece.block;
        assert_ptr_equal(at, base + first);
        owned += piece.block;
    }
    assert_int_equal(owned, partition_share(partition));
}

static void check_layout(struct device *device, const struct plan *plan, int rank)
{
    struct memory_layout layout;
    struct footprint footprint;
    struct error err = {0};
    assert_ok(layout_open(&layout, device, plan, rank, true, &err), &err);
    plan_footprint(plan, layout.stage, &footprint);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        assert_int_equal(layout.regions[term].bytes, footprint.term_bytes[term]);
    assert_int_equal(layout.bytes, footprint_total_bytes(&footprint));
    check_parameters(&layout);
    check_gradients_and_moments(&layout);
    check_activations(&layout);
    check_scratch(&layout);
    for (size_t i = 0; i < layout.layer_count; i++) {
        check_master(&layout.layers[i]);
        assert_ptr_equal(layout_layer(&layout, layout.layers[i].index), &layout.layers[i]);
    }
    assert_null(layout_layer(&layout, plan->layer_count));
    layout_close(&layout);
    layout_close(&layout); /* a zeroed one is allowed */
}

/* Every stage of every plan; the ranks of a stage are laid out alike, so the last of each. */
static void check_plans(struct device *device, const char *model, int ranks)
{
    struct parity_cases cases;
    struct error err = {0};
    assert_ok(parity_cases_all(&cases, model, ranks, &err), &err);
    parity_cases_select(&cases, 150);
    for (size_t i = 0; i < cases.count; i++) {
        struct plan plan;
        assert_ok(parity_plan(&plan, &cases.rows[i], &err), &err);
        for (int stage = 0; stage < plan.pipeline; stage++)
            check_layout(device, &plan, mesh_rank_at(&plan, stage, mesh_stage_ranks(&plan) - 1));
        plan_clear(&plan);
    }
    parity_cases_clear(&cases);
}

static void test_layout__every_byte_has_one_use(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err = {0};
    assert_ok(device_open(&device, 1, &err), &err);
    for (int ranks = 1; ranks <= 8; ranks *= 2) {
        check_plans(device, "gpt2", ranks);
        check_plans(device, "llama", ranks);
    }
    device_close(device);
}

static void test_layout__without_training_keeps_no_gradients(void **state)
{
    (void)state;
    struct parity_case what = {.model = "gpt2", .ranks = 1};
    struct plan plan;
    struct device *device = NULL;
    struct memory_layout layout;
    struct error err = {0};
    what.value[PARITY_SCHEDULE] = SCHEDULE_1F1B;
    assert_ok(parity_plan(&plan, &what, &err), &err);
    assert_ok(device_open(&device, 1, &err), &err);
    assert_ok(layout_open(&layout, device, &plan, 0, false, &err), &err);
    assert_null(layout.regions[MEMORY_GRADIENTS].base);
    assert_null(layout.regions[MEMORY_OPTIMIZER].base);
    assert_null(layout.layers[1].gradients);
    check_parameters(&layout);
    check_activations(&layout);
    layout_close(&layout);
    device_close(device);
    plan_clear(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout__every_byte_has_one_use),
        cmocka_unit_test(test_layout__without_training_keeps_no_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
