/* Runs a list of schedule actions: passes over chunks, with what comes from and goes to other
 * stages. Receives are posted one ahead, sends are not waited for until their buffer is wanted. */
#ifndef TEMPER_EXECUTOR_PIPELINE_H
#define TEMPER_EXECUTOR_PIPELINE_H

#include "executor/pass.h"
#include "ir/schedule.h"

/* Streams of a plan with more than one stage: ir/footprint.h. */
enum {
    STREAM_FORWARD_IN = 0,
    STREAM_FORWARD_OUT = 2,
    STREAM_GRADIENT = 4,
    FORWARD_STREAMS = 2,
    GRADIENT_STREAMS = 3
};

struct pipeline {
    struct pass *pass;
    struct comm *world;
    const struct schedule_action *actions;
    size_t count;
    int64_t micro_batches;
    /* Before the forward pass of a micro-batch through a chunk: put its tokens and targets in
     * place.
     */
    enum status (*load)(void *user, int chunk, int64_t micro_batch, struct error *err);
    void *user;

    /* A receive that is posted: for which action; NULL request: none. */
    struct posted {
        size_t action;
        struct comm_request *request;
        int64_t start_ns;
        int stream;
    } forward, backward;
    struct comm_request *sends[LAYOUT_STREAMS_MAX]; /* by stream; NULL: the stream is free */
    uint64_t received_forward, sent_forward, backward_passes; /* counted to take streams in turn */
};

/* All actions in order. `loss_sum` receives the sum of this rank's heads. */
enum status pipeline_run(struct pipeline *pipeline, double *loss_sum, struct error *err);

#endif
