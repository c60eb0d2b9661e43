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

/* Transfers that nothing hides. Each is waited for once while the pipeline fills or empties. Under
 * 1F1B a stage has no more micro-batches in flight than it takes to bridge the passes behind it, so
 * that the way to the next stage and back is waited for again with each further micro-batch but
 * every p-th. */
static double transfers_s(const struct simulation_input *input)
{
    const struct schedule_shape *shape = &input->shape;
    double sum_s = 0, longest_s = 0;
    for (int i = 0; i + 1 < shape->stages * shape->chunks; i++) {
        double both_s = input->forward_transfer_s[i] + input->backward_transfer_s[i];
        sum_s += both_s;
        longest_s = fmax(longest_s, both_s);
    }
    if (shape->kind != SCHEDULE_1F1B)
        return sum_s;
    int64_t further = shape->micro_batches - 1;
    int64_t free_of_it = (further + shape->stages - 1) / shape->stages;
    return sum_s + (double)(further - free_of_it) * longest_s;
}

double pipeline_time_s(const struct simulation_input *input)
{
    const struct schedule_shape *shape = &input->shape;
    double sum_s = 0, longest_s = 0;
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
