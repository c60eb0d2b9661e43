#include "traces/roofline.h"

#include "ir/mesh.h"
#include <math.h>

const char *roofline_pass_name(enum roofline_pass pass)
{
    static const char *const names[] = {
        [ROOFLINE_FORWARD] = "forward", [ROOFLINE_BACKWARD] = "backward", [ROOFLINE_BOTH] = "both"};
    return names[pass];
}

/* Of one rank. */
static struct machine_rates rates_of(const struct run_record *record)
{
    double ranks = (double)record->plan.ranks;
    return (struct machine_rates){
        .matmul_flops = isfinite(record->info.matmul_flops) ? record->info.matmul_flops / ranks : 0,
        .copy_bytes_s = isfinite(record->info.copy_bytes_s) ? record->info.copy_bytes_s / ranks : 0,
    };
}

static struct layer_work step_work(const struct plan *plan, size_t index, enum roofline_pass pass)
{
    struct layer_part part = mesh_part(plan, index, 0);
    struct micro_batch_shape shape = mesh_shape(plan, index);
    struct layer_precision_mode mode = strategy_mode(&plan->layers[index]);
    struct layer_work work = {0, 0};
    if (pass != ROOFLINE_BACKWARD)
        work = layer_work_add(work, layer_forward_work(&plan->model, &part, mode, &shape));
    if (pass != ROOFLINE_FORWARD)
        work = layer_work_add(work, layer_backward_work(&plan->model, &part, mode, &shape));
    double count = (double)plan->micro_batches;
    return (struct layer_work){count * work.flops, count * work.bytes};
}

static double phase_seconds(const struct layer_comparison *layer, enum phase phase)
{
    struct quantity seconds = layer->phase_s[phase].measured;
    return seconds.provenance == PROVENANCE_ABSENT ? 0 : seconds.value;
}

static double pass_seconds(const struct layer_comparison *layer, enum roofline_pass pass)
{
    double seconds = 0;
    if (pass != ROOFLINE_BACKWARD)
        seconds += phase_seconds(layer, PHASE_FORWARD);
    if (pass != ROOFLINE_FORWARD)
        seconds += phase_seconds(layer, PHASE_BACKWARD);
    return seconds;
}

static struct roofline_row sum_row(const struct run_record *record,
                                   const struct run_comparison *comparison, enum layer_kind kind,
                                   enum precision precision, enum roofline_pass pass)
{
    struct roofline_row row = {.kind = kind, .precision = precision, .pass = pass};
    for (size_t i = 0; i < comparison->layer_count; i++) {
        const struct layer_comparison *layer = &comparison->layers[i];
        if (layer->layer.kind != kind || layer->strategy.precision != precision)
            continue;
        row.seconds += pass_seconds(layer, pass);
        row.work = layer_work_add(row.work, step_work(&record->plan, i, pass));
    }
    struct machine_rates rates = rates_of(record);
    bool is_known = rates.copy_bytes_s > 0 && rates.matmul_flops > 0 &&
                    (row.work.flops == 0 || precision == plan_main_precision(&record->plan));
    row.is_memory = roofline_is_memory(row.work, rates);
    row.reached = is_known && row.seconds > 0 ? roofline_s(row.work, rates) / row.seconds : NAN;
    return row;
}

size_t roofline_rows(const struct run_record *record, const struct run_comparison *comparison,
                     struct roofline_row out[ROOFLINE_ROWS_MAX])
{
    size_t count = 0;
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        enum roofline_pass first = kind == LAYER_HEAD ? ROOFLINE_BOTH : ROOFLINE_FORWARD;
        enum roofline_pass last = kind == LAYER_HEAD ? ROOFLINE_BOTH : ROOFLINE_BACKWARD;
        for (int precision = 0; precision < PRECISION_COUNT; precision++) {
            for (unsigned pass = first; pass <= last; pass++) {
                out[count] = sum_row(record, comparison, (enum layer_kind)kind,
                                     (enum precision)precision, (enum roofline_pass)pass);
                count += out[count].seconds > 0;
            }
        }
    }
    return count;
}
