#include "planner/incumbent.h"

#include "costmodel/predict.h"
#include <math.h>

double rates_value(const struct objective_rates *rates, const struct prediction *prediction)
{
    double energy = rates->per_joule > 0 ? rates->per_joule * prediction->energy_j.value : 0;
    return rates->per_second * prediction->time_s.value +
           rates->per_byte * prediction->memory_bytes.value + energy;
}

bool prediction_fits(const struct planner_request *request, const struct prediction *prediction)
{
    if (request->energy_cap_j > 0 &&
        !(prediction->energy_j.value <= request->energy_cap_j * (1 + 2 * PROBLEM_SPEND_SHARE)))
        return false;
    return request->memory_cap_bytes == 0 ||
           memory_held_bytes(prediction->memory_bytes, request->risk) <=
               (double)request->memory_cap_bytes;
}

void incumbent_offer(struct incumbent *best, const struct planner_request *request,
                     const struct objective_rates *rates, struct plan *plan)
{
    double value = rates_value(rates, &plan->prediction);
    if (!part_is_consistent(plan) || !prediction_fits(request, &plan->prediction) || isnan(value) ||
        (best->found && value >= best->value)) {
        plan_clear(plan);
        return;
    }
    plan_clear(&best->plan);
    best->plan = *plan;
    best->value = value;
    best->found = true;
}

/* The plan as changed by the caller replaces the incumbent where it is as good. */
static enum status try_change(struct incumbent *best, const struct planner_request *request,
                              const struct objective_rates *rates, size_t layer,
                              enum recompute recompute, bool *taken, struct error *err)
{
    struct layer_strategy *strategy = &best->plan.layers[layer];
    enum recompute before = strategy->recompute;
    struct prediction prediction = {0};
    strategy->recompute = recompute;
    enum status status = predict_plan(request->profile, &best->plan, &prediction, err);
    double value = status == STATUS_OK ? rates_value(rates, &prediction) : INFINITY;
    *taken = value <= best->value * (1 + SAME_SHARE) && prediction_fits(request, &prediction);
    if (*taken) {
        prediction_clear(&best->plan.prediction);
        best->plan.prediction = prediction;
        best->value = value;
    } else {
        prediction_clear(&prediction);
        strategy->recompute = before;
    }
    return status == STATUS_INVALID ? STATUS_OK : status; /* not measured: not to be had */
}

enum status incumbent_recompute_least(struct incumbent *best, const struct planner_request *request,
                                      const struct objective_rates *rates, struct error *err)
{
    struct plan *plan = &best->plan;
    for (size_t l = 0; best->found && l < plan->layer_count; l++) {
        const struct layer layer = model_layer(&plan->model, l);
        enum layer_kind kind = layer.kind;
        const struct pins pins = pins_of_layer(&request->pins, kind, layer.block);
        bool taken = pins.recompute_fixed[kind];
        for (int r = RECOMPUTE_NONE; !taken && r < (int)plan->layers[l].recompute; r++) {
            if (layer_admits_recompute(kind, (enum recompute)r))
                TRY(try_change(best, request, rates, l, (enum recompute)r, &taken, err));
        }
    }
    return STATUS_OK;
}
