#include "cli/run_power.h"

#include "base/host.h"
#include "executor/agree.h"
#include "profiler/energy.h"
#include <stdlib.h>

static const double PEAK_MEASURE_S = 0.15;

struct run_power {
    double matmul_flops;
    double watts; /* of the hosts while this placement works; below zero: not known */
    struct energy_meter *meter;
    bool metered;
    double joules; /* the counter, when last read */
};

static enum precision main_precision(const struct plan *plan)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->layer_count; i++)
        count += plan->layers[i].precision == PRECISION_BF16;
    return 2 * count > plan->layer_count ? PRECISION_BF16 : PRECISION_FP32;
}

/* NULL when the host was never profiled this way. */
static const struct measurement *find_row(const struct measurement_list *list, enum metric metric,
                                          enum precision precision, const struct plan *plan)
{
    for (size_t i = 0; i < list->count; i++) {
        const struct measurement *row = &list->rows[i];
        if (row->metric == metric && row->precision == precision && row->ranks == plan->ranks &&
            row->threads == plan->threads && row->provenance != PROVENANCE_ABSENT)
            return row;
    }
    return NULL;
}

static void read_profile(struct run_power *power, const struct plan *plan, struct store *store)
{
    struct measurement_list list = {0};
    struct host_info host;
    struct error ignored = {0}; /* a store without a profile is no obstacle to a run */
    host_query(&host);
    if (store_measurements_load(store, host.name, &list, NULL, &ignored) != STATUS_OK)
        return;
    const struct measurement *peak =
        find_row(&list, METRIC_MATMUL_FLOPS, main_precision(plan), plan);
    const struct measurement *active = find_row(&list, METRIC_ACTIVE_W, PRECISION_FP32, plan);
    if (peak != NULL)
        power->matmul_flops = peak->mean * plan->ranks;
    if (active != NULL)
        power->watts = active->mean;
    measurement_list_free(&list);
}

static enum status measure_peak(struct run_power *power, const struct run_context *run,
                                struct error *err)
{
    double flops = 0;
    TRY(comm_broadcast(run->comm, &power->matmul_flops, sizeof power->matmul_flops, 0, err));
    if (power->matmul_flops > 0)
        return STATUS_OK;
    TRY(comm_barrier(run->comm, err));
    enum status status =
        device_measure_matmul(run->device, main_precision(run->plan), PEAK_MEASURE_S, &flops, err);
    TRY(agree(run->comm, status, err));
    host_reset_peak_rss(); /* the operands were none of the training's memory */
    TRY(comm_all_reduce_sum_f64(run->comm, &flops, 1, err));
    power->matmul_flops = flops;
    return STATUS_OK;
}

enum status run_power_open(struct run_power **out, const struct run_context *run,
                           struct store *store, struct error *err)
{
    struct run_power *power = calloc(1, sizeof *power);
    if (power == NULL)
        return error_memory(err, sizeof *power, "the power figures");
    power->watts = -1;
    enum status status = STATUS_OK;
    if (store != NULL) {
        read_profile(power, run->plan, store);
        status = energy_open(&power->meter, NULL, err);
        /* The counter is of one host: with several it would miss the others'. */
        power->metered = status == STATUS_OK && energy_available(power->meter) &&
                         comm_local_size(run->comm) == comm_size(run->comm);
    }
    status = agree(run->comm, status, err);
    if (status == STATUS_OK)
        status = measure_peak(power, run, err);
    if (status != STATUS_OK) {
        run_power_close(power);
        return status;
    }
    *out = power;
    return STATUS_OK;
}

void run_power_close(struct run_power *power)
{
    if (power == NULL)
        return;
    energy_close(power->meter);
    free(power);
}

double run_power_matmul_flops(const struct run_power *power)
{
    return power->matmul_flops;
}

void run_power_start(struct run_power *power)
{
    struct error ignored = {0};
    if (power->metered && energy_read_joules(power->meter, &power->joules, &ignored) != STATUS_OK)
        power->metered = false;
}

struct quantity run_power_step_energy(struct run_power *power, double seconds)
{
    struct error ignored = {0};
    double joules = 0;
    if (power->metered && energy_read_joules(power->meter, &joules, &ignored) == STATUS_OK) {
        return (struct quantity){.value = joules - power->joules,
                                 .provenance = PROVENANCE_MEASURED};
    }
    power->metered = false; /* a counter that fails once is not relied on again */
    if (power->watts >= 0)
        return (struct quantity){.value = power->watts * seconds,
                                 .provenance = PROVENANCE_MODELLED};
    return quantity_absent();
}
