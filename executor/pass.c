#include "executor/pass.h"

#include "executor/ops/layer.h"
#include <assert.h>
#include <string.h>

void pass_chunk_layers(const struct pass *pass, int chunk, size_t *first, size_t *end)
{
    const struct memory_layout *layout = pass->layout;
    *first = 0;
    while (*first < layout->layer_count && layout->layers[*first].chunk != chunk)
        (*first)++;
    *end = *first;
    while (*end < layout->layer_count && layout->layers[*end].chunk == chunk)
        (*end)++;
}

static void poll(void *user)
{
    comm_poll(user);
}

static struct layer_call call_of(const struct pass *pass, const struct local_layer *layer,
                                 const struct flight *flight)
{
    const struct degree_groups *groups = groups_of(pass->groups, layer->strategy.tensor_parallel);
    struct layer_call call = {
        .model = &pass->plan->model,
        .part = layer->part,
        .mode = strategy_mode(&layer->strategy),
        .shape = layer->shape,
        .group = layer->part.ways > 1 ? &groups->collectives : NULL,
        .vectors = layer->vectors,
        .tokens = flight->tokens,
        .targets = flight->targets,
        .loss_scale = pass->loss_scale,
        .input = flight->input,
    };
    if (comm_size(pass->groups->world) > 1) {
        call.poll = poll;
        call.poll_user = pass->groups->world;
    }
    memcpy(call.slots, flight->slots, sizeof call.slots);
    return call;
}

static void use_parameters(struct layer_call *call, const struct parameter_view *view)
{
    call->matrices = view->matrices;
    call->matrices_16 = view->matrices_16;
    call->table = view->table;
    call->table_16 = view->table_16;
}

/* ---- between layers ---- */

/* The last stream, which a plan whose layers differ in spread always has. */
static float *reshard_stream(const struct pass *pass)
{
    assert(pass->layout->stream_count > 1);
    return pass->layout->streams[pass->layout->stream_count - 1];
}

/* A gradient changes its spread in place. */
static enum status reshard_gradient(struct pass *pass, float *gradient, int have, int want,
                                    struct error *err)
{
    if (have == want)
        return STATUS_OK;
    float *other = reshard_stream(pass);
    TRY(reshard_copy(&pass->reshard, gradient, have, other, want, err));
    device_copy(pass->layout->device, gradient, other,
                reshard_count(&pass->reshard, want) * sizeof *gradient);
    return STATUS_OK;
}

/* ---- what a micro-batch holds ---- */

static void take_off(struct pass *pass, struct local_layer *layer)
{
    assert(layer->flying < layer->flight_count);
    layer->flying++;
    if (layer->flying > layer->most_flying)
        layer->most_flying = layer->flying;
    pass->journal->live_bytes += layer->flight_bytes;
}

static void land(struct pass *pass, struct local_layer *layer)
{
    layer->flying--;
    pass->journal->live_bytes -= layer->flight_bytes;
}

/* ---- forward ---- */

/* Where the layer writes its output: straight into what the next one reads, if both spread alike.
 */
static float *output_of(const struct pass *pass, size_t local, size_t end,
                        const struct pass_forward_call *call)
{
    const struct local_layer *layer = &pass->layout->layers[local];
    if (layer->part.kind == LAYER_HEAD)
        return NULL;
    if (local + 1 == end)
        return call->outgoing;
    const struct local_layer *next = layer + 1;
    if (next->spread != layer->spread)
        return reshard_stream(pass);
    return layer_flight(next, call->micro_batch)->input;
}

static enum status run_forward(struct pass *pass, const struct local_layer *layer,
                               const struct layer_call *work, const struct pass_forward_call *call,
                               struct error *err)
{
    struct device *device = pass->layout->device;
    double layer_loss = 0;
    if (layer->part.kind != LAYER_HEAD)
        return layer_forward(device, work, NULL, err);
    if (call->loss_sum == NULL)
        return layer_logits(device, work, call->logits_token, 1, err);
    TRY(layer_forward(device, work, &layer_loss, err));
    *call->loss_sum += layer_loss;
    return STATUS_OK;
}

/* Training's head works in its backward pass alone. */
static bool waits_for_backward(const struct pass *pass, const struct local_layer *layer)
{
    return layer->part.kind == LAYER_HEAD && pass->reduction != NULL;
}

static enum status forward_layer(struct pass *pass, size_t local, float *output, bool prefetches,
                                 const struct pass_forward_call *call, struct error *err)
{
    struct local_layer *layer = &pass->layout->layers[local];
    struct layer_call work = call_of(pass, layer, layer_flight(layer, call->micro_batch));
    struct parameter_view view;
    int64_t start_ns = journal_begin(pass->journal, (int32_t)layer->index);
    take_off(pass, layer);
    if (!waits_for_backward(pass, layer)) {
        TRY(parameters_use(pass->parameters, local, &view, err));
        if (prefetches)
            TRY(parameters_prefetch(pass->parameters, local + 1, err));
        use_parameters(&work, &view);
        work.output = output;
        TRY(run_forward(pass, layer, &work, call, err));
        parameters_release(pass->parameters, local);
    }
    journal_end(pass->journal, PHASE_FORWARD, start_ns);
    if (pass->reduction == NULL)
        land(pass, layer);
    return STATUS_OK;
}

enum status pass_forward(struct pass *pass, const struct pass_forward_call *call, struct error *err)
{
    size_t first, end;
    pass_chunk_layers(pass, call->chunk, &first, &end);
    const struct local_layer *entry = &pass->layout->layers[first];
    pass->journal->micro_batch = (int32_t)call->micro_batch;
    pass->journal->layer = (int32_t)entry->index;
    if (call->incoming != NULL)
        TRY(reshard_copy(&pass->reshard, call->incoming, call->incoming_spread,
                         layer_flight(entry, call->micro_batch)->input, entry->spread, err));
    for (size_t i = first; i < end; i++) {
        const struct local_layer *layer = &pass->layout->layers[i];
        float *output = output_of(pass, i, end, call);
        TRY(forward_layer(pass, i, output, i + 1 < end, call, err));
        if (i + 1 < end && layer[1].spread != layer->spread)
            TRY(reshard_copy(&pass->reshard, output, layer->spread,
                             layer_flight(layer + 1, call->micro_batch)->input, layer[1].spread,
                             err));
    }
    return STATUS_OK;
}

/* ---- backward ---- */

static enum status backward_layer(struct pass *pass, size_t local, bool prefetches,
                                  const struct pass_backward_call *call, struct error *err)
{
    struct local_layer *layer = &pass->layout->layers[local];
    struct layer_call work = call_of(pass, layer, layer_flight(layer, call->micro_batch));
    struct parameter_view view;
    struct gradient_view gradients;
    double layer_loss = 0;
    int64_t start_ns = journal_begin(pass->journal, (int32_t)layer->index);
    TRY(parameters_use(pass->parameters, local, &view, err));
    if (prefetches)
        TRY(parameters_prefetch(pass->parameters, local - 1, err));
    TRY(reduction_prepare(pass->reduction, local, call->micro_batch, &gradients, err));
    use_parameters(&work, &view);
    work.gradient = call->gradient;
    work.matrix_gradients = gradients.matrices;
    work.vector_gradients = gradients.vectors;
    work.table_gradients = gradients.table;
    work.gradient_precision = layer->state.gradient_precision;
    work.accumulate_matrices = gradients.accumulate_matrices;
    work.accumulate_vectors = gradients.accumulate_vectors;
    work.table_is_written = gradients.table_is_written;
    TRY(layer_backward(pass->layout->device, &work,
                       layer->part.kind == LAYER_HEAD ? &layer_loss : NULL, err));
    *call->loss_sum += layer_loss;
    parameters_release(pass->parameters, local);
    land(pass, layer);
    journal_end(pass->journal, PHASE_BACKWARD, start_ns);
    return reduction_start(pass->reduction, local, call->micro_batch, call->is_last, err);
}

enum status pass_backward(struct pass *pass, const struct pass_backward_call *call,
                          struct error *err)
{
    size_t first, end;
    pass_chunk_layers(pass, call->chunk, &first, &end);
    pass->journal->micro_batch = (int32_t)call->micro_batch;
    for (size_t i = end; i-- > first;) {
        const struct local_layer *layer = &pass->layout->layers[i];
        TRY(backward_layer(pass, i, i > first, call, err));
        if (i > first)
            TRY(reshard_gradient(pass, call->gradient, layer->spread, layer[-1].spread, err));
    }
    return STATUS_OK;
}
