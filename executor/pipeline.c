#include "executor/pipeline.h"

#include "base/clock.h"
#include "ir/mesh.h"
#include <assert.h>

/* ---- neighbours ---- */

/* The boundary before or behind a chunk, with the virtual stage on its other side. */
struct boundary {
    bool exists;
    int rank;         /* that holds the other side's layer for this place */
    int tag_chunk;    /* chunk of the boundary's later side, which names its messages */
    int inner_spread; /* of this chunk's layer there */
    int outer_spread; /* of the other side's */
};

static struct boundary boundary_of(const struct pipeline *pipeline, int chunk, bool behind)
{
    const struct memory_layout *layout = pipeline->pass->layout;
    const struct plan *plan = layout->plan;
    size_t first, end;
    mesh_chunk_layers(plan, layout->stage, chunk, &first, &end);
    if (behind ? end == plan->layer_count : first == 0)
        return (struct boundary){.exists = false};
    size_t inner = behind ? end - 1 : first, outer = behind ? end : first - 1;
    return (struct boundary){
        .exists = plan->pipeline > 1,
        .rank = mesh_rank_at(plan, mesh_layer_stage(plan, outer), layout->place),
        .tag_chunk = mesh_layer_chunk(plan, behind ? outer : inner),
        .inner_spread = strategy_spread(&plan->layers[inner]),
        .outer_spread = strategy_spread(&plan->layers[outer]),
    };
}

enum direction { FORWARD, BACKWARD };

static int tag_of(const struct boundary *boundary, enum direction direction)
{
    return 2 * boundary->tag_chunk + (int)direction;
}

/* ---- streams ---- */

static float *stream_at(const struct pipeline *pipeline, int stream)
{
    return pipeline->pass->layout->streams[stream];
}

static enum status wait_for_send(struct pipeline *pipeline, int stream, struct error *err)
{
    struct comm_request *request = pipeline->sends[stream];
    if (request == NULL)
        return STATUS_OK;
    int64_t wait_ns = clock_ns();
    pipeline->sends[stream] = NULL;
    TRY(comm_wait(pipeline->world, request, err));
    journal_communication(pipeline->pass->journal, PHASE_PIPELINE, pipeline->pass->journal->layer,
                          wait_ns, wait_ns, 0);
    return STATUS_OK;
}

/* The part of the stream that the other side wants sets out. */
static enum status send(struct pipeline *pipeline, int stream, const struct boundary *boundary,
                        enum direction direction, struct error *err)
{
    const struct reshard *reshard = &pipeline->pass->reshard;
    int travel = reshard_travel_spread(boundary->inner_spread, boundary->outer_spread);
    const float *data =
        reshard_at(reshard, stream_at(pipeline, stream), boundary->inner_spread, travel);
    return comm_send_start(pipeline->world, data, reshard_count(reshard, travel) * sizeof *data,
                           boundary->rank, tag_of(boundary, direction), &pipeline->sends[stream],
                           err);
}

static enum status post(struct pipeline *pipeline, struct posted *posted, size_t action, int stream,
                        enum direction direction, struct error *err)
{
    const struct reshard *reshard = &pipeline->pass->reshard;
    struct boundary boundary =
        boundary_of(pipeline, pipeline->actions[action].chunk, direction == BACKWARD);
    int travel = reshard_travel_spread(boundary.outer_spread, boundary.inner_spread);
    TRY(wait_for_send(pipeline, stream, err));
    *posted = (struct posted){.action = action, .stream = stream, .start_ns = clock_ns()};
    return comm_receive_start(pipeline->world, stream_at(pipeline, stream),
                              reshard_count(reshard, travel) * sizeof(float), boundary.rank,
                              tag_of(&boundary, direction), &posted->request, err);
}

static enum status arrive(struct pipeline *pipeline, struct posted *posted,
                          const struct boundary *boundary, struct error *err)
{
    const struct reshard *reshard = &pipeline->pass->reshard;
    int travel = reshard_travel_spread(boundary->outer_spread, boundary->inner_spread);
    struct comm_request *request = posted->request;
    int64_t wait_ns = clock_ns();
    posted->request = NULL;
    TRY(comm_wait(pipeline->world, request, err));
    journal_communication(pipeline->pass->journal, PHASE_PIPELINE, pipeline->pass->journal->layer,
                          posted->start_ns, wait_ns,
                          reshard_count(reshard, travel) * sizeof(float));
    return STATUS_OK;
}

/* ---- forward ---- */

static bool is_forward_receive(const struct pipeline *pipeline, size_t action)
{
    const struct schedule_action *at = &pipeline->actions[action];
    return at->is_forward && boundary_of(pipeline, at->chunk, false).exists;
}

static enum status post_forward(struct pipeline *pipeline, size_t action, struct error *err)
{
    int stream = STREAM_FORWARD_IN + (int)(pipeline->received_forward++ % FORWARD_STREAMS);
    return post(pipeline, &pipeline->forward, action, stream, FORWARD, err);
}

/* The next forward pass that waits for another stage finds its receive posted. */
static enum status post_next_forward(struct pipeline *pipeline, size_t after, struct error *err)
{
    for (size_t i = after + 1; i < pipeline->count; i++)
        if (is_forward_receive(pipeline, i))
            return post_forward(pipeline, i, err);
    return STATUS_OK;
}

static enum status receive_forward(struct pipeline *pipeline, size_t action,
                                   struct pass_forward_call *call, struct error *err)
{
    struct boundary before = boundary_of(pipeline, call->chunk, false);
    if (!before.exists)
        return STATUS_OK;
    if (pipeline->forward.request == NULL)
        TRY(post_forward(pipeline, action, err));
    assert(pipeline->forward.action == action);
    call->incoming = stream_at(pipeline, pipeline->forward.stream);
    call->incoming_spread = reshard_travel_spread(before.outer_spread, before.inner_spread);
    TRY(arrive(pipeline, &pipeline->forward, &before, err));
    return post_next_forward(pipeline, action, err);
}

static enum status run_forward(struct pipeline *pipeline, size_t action, double *loss_sum,
                               struct error *err)
{
    const struct schedule_action *at = &pipeline->actions[action];
    struct pass_forward_call call = {
        .chunk = at->chunk, .micro_batch = at->micro_batch, .loss_sum = loss_sum};
    struct boundary behind = boundary_of(pipeline, at->chunk, true);
    int stream = STREAM_FORWARD_OUT + (int)(pipeline->sent_forward % FORWARD_STREAMS);
    TRY(pipeline->load(pipeline->user, at->chunk, at->micro_batch, err));
    TRY(receive_forward(pipeline, action, &call, err));
    if (behind.exists) {
        TRY(wait_for_send(pipeline, stream, err));
        call.outgoing = stream_at(pipeline, stream);
        pipeline->sent_forward++;
    }
    TRY(pass_forward(pipeline->pass, &call, err));
    return behind.exists ? send(pipeline, stream, &behind, FORWARD, err) : STATUS_OK;
}

/* ---- backward ---- */

static int gradient_stream(const struct pipeline *pipeline, uint64_t backward_pass)
{
    if (pipeline->pass->plan->pipeline == 1)
        return 0;
    return STREAM_GRADIENT + (int)(backward_pass % GRADIENT_STREAMS);
}

/* The backward pass that comes next finds its receive posted. */
static enum status post_next_backward(struct pipeline *pipeline, size_t after, struct error *err)
{
    size_t i = after + 1;
    while (i < pipeline->count && pipeline->actions[i].is_forward)
        i++;
    if (i == pipeline->count || !boundary_of(pipeline, pipeline->actions[i].chunk, true).exists)
        return STATUS_OK;
    return post(pipeline, &pipeline->backward, i,
                gradient_stream(pipeline, pipeline->backward_passes + 1), BACKWARD, err);
}

static enum status receive_gradient(struct pipeline *pipeline, size_t action, int stream,
                                    const struct boundary *behind, struct error *err)
{
    const struct pass *pass = pipeline->pass;
    if (pipeline->backward.request == NULL)
        TRY(post(pipeline, &pipeline->backward, action, stream, BACKWARD, err));
    assert(pipeline->backward.action == action && pipeline->backward.stream == stream);
    TRY(arrive(pipeline, &pipeline->backward, behind, err));
    int travel = reshard_travel_spread(behind->outer_spread, behind->inner_spread);
    if (travel == behind->inner_spread)
        return STATUS_OK;
    float *gradient = stream_at(pipeline, stream);
    float *other = stream_at(pipeline, pass->layout->stream_count - 1);
    TRY(reshard_copy(&pass->reshard, gradient, travel, other, behind->inner_spread, err));
    device_copy(pass->layout->device, gradient, other,
                reshard_count(&pass->reshard, behind->inner_spread) * sizeof *gradient);
    return STATUS_OK;
}

static enum status run_backward(struct pipeline *pipeline, size_t action, double *loss_sum,
                                struct error *err)
{
    const struct schedule_action *at = &pipeline->actions[action];
    struct boundary behind = boundary_of(pipeline, at->chunk, true);
    struct boundary before = boundary_of(pipeline, at->chunk, false);
    int stream = gradient_stream(pipeline, pipeline->backward_passes);
    if (behind.exists)
        TRY(receive_gradient(pipeline, action, stream, &behind, err));
    else
        TRY(wait_for_send(pipeline, stream, err));
    TRY(post_next_backward(pipeline, action, err));
    pipeline->backward_passes++;
    const struct pass_backward_call call = {
        .chunk = at->chunk,
        .micro_batch = at->micro_batch,
        .is_last = at->micro_batch + 1 == pipeline->micro_batches,
        .loss_sum = loss_sum,
        .gradient = stream_at(pipeline, stream),
    };
    TRY(pass_backward(pipeline->pass, &call, err));
    return before.exists ? send(pipeline, stream, &before, BACKWARD, err) : STATUS_OK;
}

/* What the rank waits for from here on, it waits for on behalf of this action. */
static void stand_at(const struct pipeline *pipeline, const struct schedule_action *action)
{
    const struct pass *pass = pipeline->pass;
    size_t first, end;
    mesh_chunk_layers(pass->plan, pass->layout->stage, action->chunk, &first, &end);
    pass->journal->micro_batch = action->micro_batch;
    pass->journal->layer = (int32_t)(action->is_forward ? first : end - 1);
}

enum status pipeline_run(struct pipeline *pipeline, double *loss_sum, struct error *err)
{
    for (size_t i = 0; i < pipeline->count; i++) {
        stand_at(pipeline, &pipeline->actions[i]);
        if (pipeline->actions[i].is_forward)
            TRY(run_forward(pipeline, i, loss_sum, err));
        else
            TRY(run_backward(pipeline, i, loss_sum, err));
    }
    for (int stream = 0; stream < LAYOUT_STREAMS_MAX; stream++)
        TRY(wait_for_send(pipeline, stream, err));
    return STATUS_OK;
}
