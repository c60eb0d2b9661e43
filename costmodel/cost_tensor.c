/* What the ranks that share a layer exchange while it works: the calls of executor/ops/parts.h
 * (Shoeybi et al. 2019; under sequence parallelism Korthikanti et al. 2022). They block: compute
 * hides nothing of them. What the profiler measured in layers at work comes before what links add
 * up to: it has the ranks' waiting for each other in it. */
#include "costmodel/terms.h"
#include "ir/mesh.h"

/* What one exchange moves, T tokens of the group; where the head exchanges what it knows of rows of
 * logits, a chunk of them after the other (head_chunk_tokens). */
enum payload {
    PAYLOAD_STREAM, /* fp32 [T, hidden] */
    PAYLOAD_NORMED, /* [T, hidden] in the layer's precision */
    PAYLOAD_MAXIMA, /* fp32 [chunk] */
    PAYLOAD_SUMS,   /* fp32 [2, chunk] */
    PAYLOAD_COUNT
};

struct exchange {
    enum cost_pass pass;
    enum collective collective;
    enum payload payload;
};

enum { EXCHANGES_MAX = 5 };

struct exchange_list {
    size_t count;
    struct exchange items[EXCHANGES_MAX];
};

#define FORWARD_SUM(payload)                                                                       \
    {                                                                                              \
        COST_FORWARD, COLLECTIVE_ALL_REDUCE, payload                                               \
    }
#define BACKWARD_SUM(payload)                                                                      \
    {                                                                                              \
        COST_BACKWARD, COLLECTIVE_ALL_REDUCE, payload                                              \
    }
#define FORWARD_GATHER(payload)                                                                    \
    {                                                                                              \
        COST_FORWARD, COLLECTIVE_TENSOR_ALL_GATHER, payload                                        \
    }
#define BACKWARD_GATHER(payload)                                                                   \
    {                                                                                              \
        COST_BACKWARD, COLLECTIVE_TENSOR_ALL_GATHER, payload                                       \
    }
#define FORWARD_SCATTER(payload)                                                                   \
    {                                                                                              \
        COST_FORWARD, COLLECTIVE_TENSOR_REDUCE_SCATTER, payload                                    \
    }
#define BACKWARD_SCATTER(payload)                                                                  \
    {                                                                                              \
        COST_BACKWARD, COLLECTIVE_TENSOR_REDUCE_SCATTER, payload                                   \
    }

/* By kind, and whether under sequence parallelism. The gathered norm is not kept, so every
 * recompute mode gathers it once more. Training's head works in its backward pass alone. */
static const struct exchange_list exchanges[LAYER_KIND_COUNT][2] = {
    [LAYER_EMBEDDING] = {{1, {FORWARD_SUM(PAYLOAD_STREAM)}},
                         {2, {FORWARD_SCATTER(PAYLOAD_STREAM), BACKWARD_GATHER(PAYLOAD_STREAM)}}},
    [LAYER_ATTENTION] = {{2, {FORWARD_SUM(PAYLOAD_STREAM), BACKWARD_SUM(PAYLOAD_STREAM)}},
                         {5,
                          {FORWARD_GATHER(PAYLOAD_NORMED), FORWARD_SCATTER(PAYLOAD_STREAM),
                           BACKWARD_GATHER(PAYLOAD_NORMED), BACKWARD_GATHER(PAYLOAD_STREAM),
                           BACKWARD_SCATTER(PAYLOAD_STREAM)}}},
    [LAYER_MLP] = {{2, {FORWARD_SUM(PAYLOAD_STREAM), BACKWARD_SUM(PAYLOAD_STREAM)}},
                   {5,
                    {FORWARD_GATHER(PAYLOAD_NORMED), FORWARD_SCATTER(PAYLOAD_STREAM),
                     BACKWARD_GATHER(PAYLOAD_NORMED), BACKWARD_GATHER(PAYLOAD_STREAM),
                     BACKWARD_SCATTER(PAYLOAD_STREAM)}}},
    [LAYER_HEAD] = {{3,
                     {BACKWARD_SUM(PAYLOAD_MAXIMA), BACKWARD_SUM(PAYLOAD_SUMS),
                      BACKWARD_SUM(PAYLOAD_STREAM)}},
                    {4,
                     {BACKWARD_GATHER(PAYLOAD_NORMED), BACKWARD_SUM(PAYLOAD_MAXIMA),
                      BACKWARD_SUM(PAYLOAD_SUMS), BACKWARD_SCATTER(PAYLOAD_STREAM)}}},
};

static enum status add_exchange(const struct layer_terms *terms, const struct layer_part *part,
                                const struct exchange *exchange, struct collective_group group,
                                struct error *err)
{
    const struct plan *plan = terms->plan;
    const struct micro_batch_shape shape = mesh_shape(plan, terms->layer);
    uint64_t tokens = (uint64_t)(shape.sequences * shape.seq_length);
    uint64_t hidden = (uint64_t)plan->model.hidden;
    uint64_t chunk = (uint64_t)head_chunk_tokens(&plan->model, part, &shape);
    bool is_chunk = exchange->payload == PAYLOAD_MAXIMA || exchange->payload == PAYLOAD_SUMS;
    uint64_t calls = is_chunk ? (tokens + chunk - 1) / chunk : 1;
    const uint64_t bytes[PAYLOAD_COUNT] = {
        [PAYLOAD_STREAM] = tokens * hidden * sizeof(float),
        [PAYLOAD_NORMED] = tokens * hidden * precision_bytes(plan->layers[terms->layer].precision),
        [PAYLOAD_MAXIMA] = chunk * sizeof(float),
        [PAYLOAD_SUMS] = 2 * chunk * sizeof(float),
    };
    struct quantity seconds;
    TRY(collective_time(terms->profile, plan, exchange->collective, group, bytes[exchange->payload],
                        &seconds, err));
    terms_add(terms, exchange->pass, PHASE_TENSOR, quantity_scale(seconds, (double)calls));
    return STATUS_OK;
}

/* From the links, each exchange of the table. */
static enum status add_exchanges(const struct layer_terms *terms, const struct layer_part *part,
                                 struct collective_group group, struct error *err)
{
    const struct exchange_list *list = &exchanges[part->kind][part->sequence_parallel];
    for (size_t i = 0; i < list->count; i++)
        TRY(add_exchange(terms, part, &list->items[i], group, err));
    return STATUS_OK;
}

/* As the ranks spent it on each other between kernels, or nothing. */
static bool add_measured(const struct layer_terms *terms)
{
    enum { PASSES = 2 };
    static const enum metric metrics[PASSES] = {
        [COST_FORWARD] = METRIC_FORWARD_TENSOR_S, [COST_BACKWARD] = METRIC_BACKWARD_TENSOR_S};
    struct quantity seconds[PASSES];
    struct part_subject subject;
    part_subject(terms->plan, terms->layer, &subject);
    for (size_t i = 0; i < PASSES; i++) {
        subject.series.metric = metrics[i];
        seconds[i] = profile_at_micro_batch(terms->profile, &subject.series, subject.sequences);
        if (is_absent(seconds[i]))
            return false;
    }
    for (size_t i = 0; i < PASSES; i++)
        terms_add(terms, (enum cost_pass)i, PHASE_TENSOR, seconds[i]);
    return true;
}

enum status tensor_terms(const struct layer_terms *terms, struct error *err)
{
    const struct plan *plan = terms->plan;
    const struct layer_part part = mesh_part(plan, terms->layer, 0);
    const struct collective_group group = {.ways = part.ways, .apart = 1};
    if (part.ways == 1)
        return STATUS_OK;
    if (!add_measured(terms))
        TRY(add_exchanges(terms, &part, group, err));
    if (!part.sequence_parallel)
        return STATUS_OK;
    struct quantity seconds;
    uint64_t partial_bytes = layer_part_counts(&plan->model, &part).partial * sizeof(float);
    TRY(collective_time(terms->profile, plan, COLLECTIVE_ALL_REDUCE, group, partial_bytes, &seconds,
                        err));
    terms_add(terms, COST_STEP, PHASE_TENSOR, seconds);
    return STATUS_OK;
}
