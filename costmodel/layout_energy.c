#include "costmodel/layout_energy.h"

#include <math.h>

/* Share of the span between idle and peak power that work of a kind draws: products all of it; what
 * is bound by memory or by links leaves the arithmetic units idle. The docs say how far measured
 * joules are from this. */
static const double product_power = 1.0, traffic_power = 0.6, exchange_power = 0.3;

static const double joules_per_kwh = 3.6e6, seconds_per_hour = 3600;

/* The deviation of a power model over published joules is not known well: that of the time and a
 * tenth. */
static const double power_deviation = 0.1;

/* Seconds of all stages' devices, one of each, weighted by what they draw above idle. */
static double active_s(const struct layout_step *step)
{
    double sum_s = 0;
    for (int make = 0; make < STAGE_MAKE_COUNT; make++) {
        const struct stage_work *stage = &step->stages[make];
        double micro_batch_s = exchange_power * (stage->gather_s + stage->scatter_s);
        for (int pass = 0; pass < PASS_COUNT; pass++) {
            const struct pass_time *time = &stage->pass[pass];
            micro_batch_s += product_power * time->product_s + traffic_power * time->traffic_s +
                             exchange_power * time->exchange_s;
        }
        sum_s += stage->count * (step->micro_batches * micro_batch_s);
    }
    double once_s =
        exchange_power * (step->reduce_s + step->gather_s) + traffic_power * step->optimizer_s;
    return sum_s + (double)step->share.layout->pipeline * once_s;
}

static struct quantity energy_of(const struct layout_step *step, struct quantity time_s)
{
    const struct device_type *device = step->share.device;
    const struct layout *layout = step->share.layout;
    if (!(device->peak_w > 0) || !(device->idle_w >= 0))
        return quantity_absent();
    double devices = (double)layout->devices;
    double stage_devices = devices / (double)layout->pipeline;
    double joules = devices * device->idle_w * time_s.value +
                    stage_devices * (device->peak_w - device->idle_w) * active_s(step);
    double relative = hypot(time_s.deviation / time_s.value, power_deviation);
    return (struct quantity){joules, relative * joules, PROVENANCE_MODELLED};
}

void layout_energy(const struct cluster *cluster, const struct layout_step *step,
                   struct layout_prediction *out)
{
    double hours = (double)step->share.layout->devices / seconds_per_hour;
    double price_hour = step->share.device->price_hour;

    out->energy_j = energy_of(step, out->time_s);
    out->price = isnan(price_hour) || cluster->currency[0] == '\0'
                     ? quantity_absent()
                     : quantity_scale(out->time_s, hours * price_hour);
    out->carbon_g = isnan(cluster->carbon_g_kwh)
                        ? quantity_absent()
                        : quantity_scale(out->energy_j, cluster->carbon_g_kwh / joules_per_kwh);
}
