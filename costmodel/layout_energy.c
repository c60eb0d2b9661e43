#include "costmodel/layout_energy.h"

#include <math.h>

/* The equations and where the figures are from: docs/layout-model.md, "Energy". */

/* Of its limit, what a device that the limit holds back draws. */
static const double limit_share = 0.98;
/* Of the span between idle power and that of products without a limit. */
static const double traffic_share = 0.6;
/* Of the span between idle power and the limit: while collectives move, and while a kernel waits
 * for a neighbour's message. */
static const double exchange_share = 0.3, wait_share = 0.15;

static const double joules_per_kwh = 3.6e6, seconds_per_hour = 3600;

/* The deviation of a power model over published joules is not known well: that of the time and a
 * tenth. */
static const double power_deviation = 0.1;

/* Watts of a device by what it does. */
struct device_power {
    double product_w, traffic_w, exchange_w, rest_w;
};

static struct device_power device_power(const struct device_type *device,
                                        const struct layout *layout)
{
    double limit_w = limit_share * device->peak_w, span_w = device->peak_w - device->idle_w;
    double unlimited_w = fmax(device->unlimited_w, device->peak_w);
    double traffic_w = device->idle_w + traffic_share * (unlimited_w - device->idle_w);
    /* A stage waits for its neighbours in a kernel; a device without a pipeline, for the host. */
    double rest_share = layout->pipeline > 1 ? wait_share : 0;
    return (struct device_power){
        .product_w = fmax(limit_w, device->idle_w),
        .traffic_w = fmin(traffic_w, fmax(limit_w, device->idle_w)),
        .exchange_w = device->idle_w + exchange_share * span_w,
        .rest_w = device->idle_w + rest_share * span_w,
    };
}

/* Of one device of this stage in a step of so many seconds. */
static double device_joules(const struct layout_step *step, const struct stage_work *stage,
                            const struct device_power *power, double step_s)
{
    double m = step->micro_batches, product_s = 0, traffic_s = 0;
    double exchange_s = m * (stage->gather_s + stage->scatter_s) + step->reduce_s + step->gather_s;

    if (!step->layout->offload_optimizer) /* else the device waits for its host */
        traffic_s = step->optimizer_s;
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        product_s += m * stage->pass[pass].product_s;
        traffic_s += m * stage->pass[pass].traffic_s;
        exchange_s += m * stage->pass[pass].exchange_s;
    }
    double rest_s = step_s - product_s - traffic_s - exchange_s;
    return power->product_w * product_s + power->traffic_w * traffic_s +
           power->exchange_w * exchange_s + power->rest_w * fmax(rest_s, 0);
}

static double stage_devices(const struct layout_step *step, const struct stage_work *stage)
{
    return stage->count * (double)step->layout->devices / (double)step->layout->pipeline;
}

static struct quantity energy_of(const struct layout_step *step, struct quantity time_s)
{
    struct device_power power = {0};
    double joules = 0;
    for (size_t i = 0; i < step->stage_count; i++) {
        const struct stage_work *stage = &step->stages[i];
        const struct device_type *device = step->prices[stage->group].share.device;
        if (!(device->peak_w > 0) || !(device->idle_w >= 0))
            return quantity_absent();
        if (i == 0 || stage->group != stage[-1].group)
            power = device_power(device, step->layout);
        joules += stage_devices(step, stage) * device_joules(step, stage, &power, time_s.value);
    }
    double relative = hypot(time_s.deviation / time_s.value, power_deviation);
    return (struct quantity){joules, relative * joules, PROVENANCE_MODELLED};
}

static double price_of_hour(const struct layout_step *step)
{
    double price = 0;
    for (size_t i = 0; i < step->stage_count; i++) {
        const struct stage_work *stage = &step->stages[i];
        price += stage_devices(step, stage) * step->prices[stage->group].share.device->price_hour;
    }
    return price;
}

void layout_energy(const struct cluster *cluster, const struct layout_step *step,
                   struct layout_prediction *out)
{
    double price_hour = price_of_hour(step); /* NAN where one is not given */

    out->energy_j = energy_of(step, out->time_s);
    out->price = isnan(price_hour) || cluster->currency[0] == '\0'
                     ? quantity_absent()
                     : quantity_scale(out->time_s, price_hour / seconds_per_hour);
    out->carbon_g = isnan(cluster->carbon_g_kwh)
                        ? quantity_absent()
                        : quantity_scale(out->energy_j, cluster->carbon_g_kwh / joules_per_kwh);
}
