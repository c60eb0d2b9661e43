#include "costmodel/pipeline.h"

#include <math.h>

/* Of one micro-batch on all chunks of a stage. */
static double stage_s(const struct simulation_input *input, int stage)
{
    double seconds = 0;
    for (int chunk = 0; chunk < input->shape.chunks; chunk++) {
        int virtual_stage = chunk * input->shape.stages + stage;
        seconds += input->forward_s[virtual_stage] + input->backward_s[virtual_stage];
    }
    return seconds;
}

/* A stage has no more micro-batches in flight than it takes to bridge the passes behind it, so that
 * the way to the next stage and back is waited for again with each further micro-batch but every
 * p-th. Under zb-h1 gradients of weights are done meanwhile. */
double waits_s(int64_t stages, int64_t micro_batches, double both_s, double weights_s)
{
    int64_t further = micro_batches - 1;
    int64_t free_of_it = (further + stages - 1) / stages;
    return (double)(further - free_of_it) * fmax(both_s - weights_s, 0);
}

struct transfers {
    double sum_s, longest_s; /* there and back */
};

static struct transfers transfers_of(const struct simulation_input *input)
{
    struct transfers out = {0};
    for (int i = 0; i + 1 < input->shape.stages * input->shape.chunks; i++) {
        double both_s = input->forward_transfer_s[i] + input->backward_transfer_s[i];
        out.sum_s += both_s;
        out.longest_s = fmax(out.longest_s, both_s);
    }
    return out;
}

/* Transfers that nothing hides. Each is waited for once while the pipeline fills or empties. */
static double transfers_s(const struct simulation_input *input)
{
    const struct schedule_shape *shape = &input->shape;
    struct transfers transfers = transfers_of(input);
    if (shape->kind != SCHEDULE_1F1B)
        return transfers.sum_s;
    return transfers.sum_s + waits_s(shape->stages, shape->micro_batches, transfers.longest_s, 0);
}

/* ---- zb-h1 ---- */

/* Micro-batches whose weights' gradients the last stage leaves for the end. */
static double late_count(int64_t stages, int64_t micro_batches)
{
    return (double)(micro_batches < stages ? micro_batches : stages) - 1;
}

double split_fill_s(const struct split_pass *pass, int64_t stages, int64_t micro_batches)
{
    double longer_s = fmax(pass->weights_s - fmin(pass->forward_s, pass->inputs_s), 0);
    double late = stages > 1 ? late_count(stages, micro_batches) / (double)(stages - 1) : 0;
    return pass->forward_s + pass->inputs_s + longer_s * late;
}

double split_repeat_s(const struct split_pass *pass, int64_t stages, int64_t micro_batches)
{
    double all_s = pass->forward_s + pass->inputs_s + pass->weights_s;
    return (double)micro_batches * all_s - split_fill_s(pass, stages, micro_batches) -
           late_count(stages, micro_batches) * pass->weights_s;
}

static double split_time_s(const struct simulation_input *input)
{
    const struct schedule_shape *shape = &input->shape;
    struct transfers transfers = transfers_of(input);
    double fill_s = transfers.sum_s, repeat_s = -INFINITY;
    for (int stage = 0; stage < shape->stages; stage++) {
        double weights_s = input->weights_s[stage];
        const struct split_pass pass = {input->forward_s[stage],
                                        input->backward_s[stage] - weights_s, weights_s};
        fill_s += split_fill_s(&pass, shape->stages, shape->micro_batches);
        double waited_s =
            waits_s(shape->stages, shape->micro_batches, transfers.longest_s, weights_s);
        repeat_s =
            fmax(repeat_s, split_repeat_s(&pass, shape->stages, shape->micro_batches) + waited_s);
    }
    return fill_s + repeat_s;
}

double pipeline_time_s(const struct simulation_input *input)
{
    const struct schedule_shape *shape = &input->shape;
    double sum_s = 0, longest_s = 0;
    if (shape->kind == SCHEDULE_ZB_H1)
        return split_time_s(input);
    for (int stage = 0; stage < shape->stages; stage++) {
        sum_s += stage_s(input, stage);
        longest_s = fmax(longest_s, stage_s(input, stage));
    }
    return (double)shape->micro_batches * longest_s + (sum_s - longest_s) / shape->chunks +
           transfers_s(input);
}

double pipeline_step_s(const struct simulation_input *input, const double *reduce_s)
{
    double exposed_s = 0, hidden_s = 0;
    for (int stage = 0; stage < input->shape.stages; stage++) {
        exposed_s = fmax(exposed_s, reduce_s[stage] - hidden_s);
        hidden_s += input->backward_s[stage];
    }
    return pipeline_time_s(input) + exposed_s;
}
