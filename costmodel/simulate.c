#include "costmodel/simulate.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* Not over yet, of the end of an action. */
static const double not_ended = -1;

struct timeline {
    const struct simulation_input *input;
    int32_t virtual_stages;
    double *forward_end_s;  /* [virtual_stages * micro_batches], owned; not_ended */
    double *backward_end_s; /* the same */
    size_t *next;           /* [stages]: the action that each stage comes to, owned */
    int *waking;            /* [stages]: those that may go on, owned */
    bool *is_waking;        /* [stages], owned */
    int waking_count;
    struct simulated_stage *stages; /* borrowed */
};

static void timeline_free(struct timeline *timeline)
{
    free(timeline->forward_end_s);
    free(timeline->backward_end_s);
    free(timeline->next);
    free(timeline->waking);
    free(timeline->is_waking);
}

static enum status timeline_open(struct timeline *out, const struct simulation_input *input,
                                 struct simulated_stage *stages, struct error *err)
{
    const struct schedule_shape *shape = &input->shape;
    size_t stage_count = (size_t)shape->stages;
    int32_t virtual_stages = (int32_t)(shape->stages * shape->chunks);
    size_t passes = (size_t)virtual_stages * (size_t)shape->micro_batches;
    *out = (struct timeline){.input = input, .virtual_stages = virtual_stages, .stages = stages};
    out->forward_end_s = calloc(passes, sizeof(*out->forward_end_s));
    out->backward_end_s = calloc(passes, sizeof(*out->backward_end_s));
    out->next = calloc(stage_count, sizeof(*out->next));
    out->waking = calloc(stage_count, sizeof(*out->waking));
    out->is_waking = calloc(stage_count, sizeof(*out->is_waking));
    if (!out->forward_end_s || !out->backward_end_s || !out->next || !out->waking ||
        !out->is_waking) {
        timeline_free(out);
        return error_memory(err, 2 * passes * sizeof(double), "the simulation of a schedule");
    }
    for (size_t i = 0; i < passes; i++)
        out->forward_end_s[i] = out->backward_end_s[i] = not_ended;
    return STATUS_OK;
}

static double *end_of(const struct timeline *timeline, bool is_forward, int32_t virtual_stage,
                      int32_t micro_batch)
{
    double *ends = is_forward ? timeline->forward_end_s : timeline->backward_end_s;
    return &ends[(int64_t)virtual_stage * timeline->input->shape.micro_batches + micro_batch];
}

static int32_t virtual_stage_of(const struct timeline *timeline, int stage,
                                const struct schedule_action *action)
{
    return (int32_t)(action->chunk * timeline->input->shape.stages + stage);
}

/* When the action's input is there; not_ended: what makes it is not over. */
static double ready_s(const struct timeline *timeline, int32_t virtual_stage,
                      const struct schedule_action *action)
{
    const struct simulation_input *input = timeline->input;
    int32_t micro_batch = action->micro_batch;
    if (action->is_weights) /* after the stage's own backward pass in its list */
        return 0;
    if (action->is_forward) {
        if (virtual_stage == 0)
            return 0;
        double before_s = *end_of(timeline, true, virtual_stage - 1, micro_batch);
        return before_s < 0 ? not_ended : before_s + input->forward_transfer_s[virtual_stage - 1];
    }
    double own_s = *end_of(timeline, true, virtual_stage, micro_batch);
    if (own_s < 0 || virtual_stage == timeline->virtual_stages - 1)
        return own_s;
    double after_s = *end_of(timeline, false, virtual_stage + 1, micro_batch);
    return after_s < 0 ? not_ended
                       : fmax(own_s, after_s + input->backward_transfer_s[virtual_stage]);
}

static void wake(struct timeline *timeline, int32_t virtual_stage)
{
    if (virtual_stage < 0 || virtual_stage >= timeline->virtual_stages)
        return;
    int stage = virtual_stage % timeline->input->shape.stages;
    if (timeline->is_waking[stage])
        return;
    timeline->is_waking[stage] = true;
    timeline->waking[timeline->waking_count++] = stage;
}

static double work_s(const struct simulation_input *input, int32_t virtual_stage,
                     const struct schedule_action *action)
{
    if (action->is_forward)
        return input->forward_s[virtual_stage];
    if (action->is_weights)
        return input->weights_s[virtual_stage];
    double weights_s = input->shape.kind == SCHEDULE_ZB_H1 ? input->weights_s[virtual_stage] : 0;
    return input->backward_s[virtual_stage] - weights_s;
}

/* Work through the stage's list until an input is missing. */
static void advance(struct timeline *timeline, int stage)
{
    struct simulated_stage *at = &timeline->stages[stage];
    for (; timeline->next[stage] < at->count; timeline->next[stage]++) {
        struct simulated_action *timed = &at->actions[timeline->next[stage]];
        const struct schedule_action *action = &timed->action;
        int32_t virtual_stage = virtual_stage_of(timeline, stage, action);
        double input_s = ready_s(timeline, virtual_stage, action);
        if (input_s < 0)
            return;
        double seconds = work_s(timeline->input, virtual_stage, action);
        timed->start_s = fmax(at->end_s, input_s);
        timed->end_s = timed->start_s + seconds;
        at->end_s = timed->end_s;
        at->busy_s += seconds;
        if (action->is_weights)
            continue; /* nobody waits for it */
        *end_of(timeline, action->is_forward, virtual_stage, action->micro_batch) = timed->end_s;
        wake(timeline, action->is_forward ? virtual_stage + 1 : virtual_stage - 1);
    }
}

static enum status run_timeline(struct timeline *timeline, struct error *err)
{
    int stages = timeline->input->shape.stages;
    for (int stage = stages - 1; stage >= 0; stage--)
        wake(timeline, stage);
    while (timeline->waking_count > 0) {
        int stage = timeline->waking[--timeline->waking_count];
        timeline->is_waking[stage] = false;
        advance(timeline, stage);
    }
    for (int stage = 0; stage < stages; stage++) {
        if (timeline->next[stage] < timeline->stages[stage].count)
            return error_set(err, STATUS_FAILED,
                             "the %s schedule of %d stages never ends: stage %d waits for its "
                             "action %zu of %zu",
                             schedule_name(timeline->input->shape.kind), stages, stage,
                             timeline->next[stage], timeline->stages[stage].count);
    }
    return STATUS_OK;
}

static enum status list_actions(const struct schedule_shape *shape, struct simulation *simulation,
                                struct error *err)
{
    for (int stage = 0; stage < shape->stages; stage++) {
        struct simulated_stage *at = &simulation->stages[stage];
        struct schedule_action *actions;
        TRY(schedule_actions(shape, stage, &actions, &at->count, err));
        at->actions = calloc(at->count, sizeof(*at->actions));
        for (size_t i = 0; at->actions && i < at->count; i++)
            at->actions[i].action = actions[i];
        free(actions);
        if (!at->actions)
            return error_memory(err, at->count * sizeof(*at->actions), "a stage's timeline");
    }
    return STATUS_OK;
}

static enum status time_actions(const struct simulation_input *input, struct simulation *simulation,
                                struct error *err)
{
    struct timeline timeline;
    TRY(timeline_open(&timeline, input, simulation->stages, err));
    enum status status = run_timeline(&timeline, err);
    timeline_free(&timeline);
    if (status != STATUS_OK)
        return status;
    for (int stage = 0; stage < simulation->stage_count; stage++)
        simulation->makespan_s = fmax(simulation->makespan_s, simulation->stages[stage].end_s);
    for (int stage = 0; stage < simulation->stage_count; stage++) {
        struct simulated_stage *at = &simulation->stages[stage];
        at->idle_s = simulation->makespan_s - at->busy_s;
    }
    return STATUS_OK;
}

enum status simulate(const struct simulation_input *input, struct simulation *out,
                     struct error *err)
{
    size_t stages = (size_t)input->shape.stages;
    struct simulation simulation = {.stages = calloc(stages, sizeof(*simulation.stages)),
                                    .stage_count = input->shape.stages};
    if (!simulation.stages)
        return error_memory(err, stages * sizeof(*simulation.stages), "a simulation");
    enum status status = list_actions(&input->shape, &simulation, err);
    if (status == STATUS_OK)
        status = time_actions(input, &simulation, err);
    if (status != STATUS_OK) {
        simulation_free(&simulation);
        return status;
    }
    *out = simulation;
    return STATUS_OK;
}

void simulation_free(struct simulation *simulation)
{
    for (int stage = 0; simulation->stages && stage < simulation->stage_count; stage++)
        free(simulation->stages[stage].actions);
    free(simulation->stages);
    *simulation = (struct simulation){0};
}
