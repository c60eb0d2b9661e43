#include "executor/optimizer.h"

#include "base/clock.h"
#include "executor/ops/update.h"
#include "executor/reduction.h"
#include "executor/shards.h"
#include <math.h>

double learning_rate_at(const struct optimizer_options *options, int64_t step)
{
    if (step < options->warmup_steps)
        return options->learning_rate * (double)(step + 1) / (double)(options->warmup_steps + 1);
    if (step >= options->decay_steps)
        return options->min_learning_rate;
    double progress = (double)(step - options->warmup_steps) /
                      (double)(options->decay_steps - options->warmup_steps);
    double share = 0.5 * (1.0 + cos(M_PI * progress));
    return options->min_learning_rate +
           share * (options->learning_rate - options->min_learning_rate);
}

/* Where the arrays of a segment begin. */
struct segment_arrays {
    float *parameters, *first_moment, *second_moment;
    const void *gradients;
    enum precision gradient_precision;
    uint16_t *parameters_16; /* NULL: no such copy */
};

static struct segment_arrays vector_arrays(const struct local_layer *layer,
                                           const struct shard_segment *segment)
{
    return (struct segment_arrays){
        .parameters = layer->vectors + segment->part,
        .gradients = layer->vector_gradients + segment->part,
        .first_moment = layer->vector_first_moment + segment->part,
        .second_moment = layer->vector_second_moment + segment->part,
    };
}

/* ZeRO 1 leaves the sum of a rank's block at its piece's beginning (comm_reduce_scatter_start). */
static const void *matrix_gradients(const struct local_layer *layer,
                                    const struct shard_segment *segment)
{
    const char *from = layer->gradients;
    uint64_t at = segment->part;
    if (layer->state.partition.ways > 1) {
        struct partition_piece piece = partition_piece_at(&layer->state.partition, segment->piece);
        from = reduction_block(layer, segment->piece);
        at -= piece.first + (uint64_t)layer->block * piece.block;
    }
    return from + at * precision_bytes(layer->state.gradient_precision);
}

static struct segment_arrays arrays_of(const struct local_layer *layer,
                                       const struct shard_segment *segment)
{
    if (segment->is_vector)
        return vector_arrays(layer, segment);
    struct segment_arrays arrays = {
        .parameters = layer->shard_fp32 != NULL ? layer->shard_fp32 + segment->shard
                                                : layer->whole_fp32 + segment->part,
        .gradients = matrix_gradients(layer, segment),
        .gradient_precision = layer->state.gradient_precision,
        .first_moment = layer->first_moment + segment->shard,
        .second_moment = layer->second_moment + segment->shard,
    };
    if (layer->shard_16 != NULL)
        arrays.parameters_16 = layer->shard_16 + segment->shard;
    else if (layer->whole_16 != NULL)
        arrays.parameters_16 = layer->whole_16 + segment->part;
    return arrays;
}

enum status optimizer_gradient_norm(const struct memory_layout *layout, struct comm *world,
                                    struct journal *journal, double *norm, struct error *err)
{
    double sum = 0;
    for (size_t i = 0; i < layout->layer_count; i++) {
        const struct local_layer *layer = &layout->layers[i];
        int64_t start_ns = journal_begin(journal, (int32_t)layer->index);
        struct holding holding;
        struct shard_segment segment;
        holding_of(&layout->plan->model, layer, &holding);
        struct segment_walk walk = shard_segments(&holding);
        while (shard_segment_next(&walk, &segment)) {
            struct segment_arrays arrays = arrays_of(layer, &segment);
            if (segment.speaks)
                sum += ops_sum_squares(layout->device, arrays.gradients, arrays.gradient_precision,
                                       segment.count);
        }
        journal_end(journal, PHASE_OPTIMIZER, start_ns);
    }
    int64_t start_ns = clock_ns();
    TRY(comm_all_reduce_sum_f64(world, &sum, 1, err));
    if (layout->plan->pipeline > 1) /* stages have unlike amounts to reduce */
        journal_communication(journal, PHASE_PIPELINE, EVENT_NO_LAYER, start_ns, start_ns,
                              sizeof sum);
    *norm = sqrt(sum);
    return STATUS_OK;
}

static void update_layer(const struct memory_layout *layout, const struct local_layer *layer,
                         const struct adamw_call *common)
{
    struct holding holding;
    struct shard_segment segment;
    holding_of(&layout->plan->model, layer, &holding);
    struct segment_walk walk = shard_segments(&holding);
    while (shard_segment_next(&walk, &segment)) {
        struct segment_arrays arrays = arrays_of(layer, &segment);
        struct adamw_call call = *common;
        call.parameters = arrays.parameters;
        call.gradients = arrays.gradients;
        call.gradient_precision = arrays.gradient_precision;
        call.first_moment = arrays.first_moment;
        call.second_moment = arrays.second_moment;
        call.parameters_16 = arrays.parameters_16;
        call.precision_16 = layer->strategy.precision;
        call.count = segment.count;
        if (!segment.decays)
            call.weight_decay = 0;
        ops_adamw(layout->device, &call);
    }
}

enum status optimizer_update(struct parameters *parameters, const struct optimizer_options *options,
                             const struct optimizer_step *step, struct error *err)
{
    const struct memory_layout *layout = parameters->layout;
    struct adamw_call call = {
        .learning_rate = step->learning_rate,
        .beta1 = options->beta1,
        .beta2 = options->beta2,
        .epsilon = options->epsilon,
        .weight_decay = options->weight_decay,
        .time = step->time,
        .grad_scale = step->gradient_scale,
    };
    if (options->clip_norm > 0 && step->gradient_norm > options->clip_norm)
        call.grad_scale *= options->clip_norm / step->gradient_norm;
    for (size_t i = 0; i < layout->layer_count; i++) {
        int64_t start_ns = journal_begin(parameters->journal, (int32_t)layout->layers[i].index);
        update_layer(layout, &layout->layers[i], &call);
        TRY(parameters_publish(parameters, i, false, err));
        comm_poll(parameters->groups->world);
        journal_end(parameters->journal, PHASE_OPTIMIZER, start_ns);
    }
    return STATUS_OK;
}
