#include "cli/run_power.h"

#include "base/host.h"
#include "executor/agree.h"
#include "profiler/energy.h"
#include <stdlib.h>

static const double RATE_MEASURE_S = 0.1;

struct run_power {
    struct rates {
        double matmul_flops, copy_bytes_s; /* of all ranks together; 0: not profiled */
    } rates;
    double watts; /* of the hosts while this placement works; below zero: not known */
    struct energy_meter *meter;
    bool metered;
    double joules; /* the counter, when last read */
};

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
        find_row(&list, METRIC_MATMUL_FLOPS, plan_main_precision(plan), plan);
    const struct measurement *copy = find_row(&list, METRIC_COPY_BYTES_S, PRECISION_FP32, plan);
    const struct measurement *active = find_row(&list, METRIC_ACTIVE_W, PRECISION_FP32, plan);
    if (peak != NULL)
        power->rates.matmul_flops = peak->mean * plan->ranks;
    if (copy != NULL)
        power->rates.copy_bytes_s = copy->mean * plan->ranks;
    if (active != NULL)
        power->watts = active->mean;
    measurement_list_free(&list);
}

static enum status measure_rates(struct run_power *power, const struct run_context *run,
                                 struct error *err)
{
    double flops = 0, bytes_s = 0;
    TRY(comm_broadcast(run->comm, &power->rates, sizeof power->rates, 0, err));
    bool has_flops = power->rates.matmul_flops > 0, has_bytes = power->rates.copy_bytes_s > 0;
    if (has_flops && has_bytes)
        return STATUS_OK;
    TRY(comm_barrier(run->comm, err));
    enum status status = STATUS_OK;
    if (!has_flops)
        status = device_measure_matmul(run->device, plan_main_precision(run->plan), RATE_MEASURE_S,
                                       &flops, err);
    if (status == STATUS_OK && !has_bytes)
        status = device_measure_copy(run->device, RATE_MEASURE_S, &bytes_s, err);
    TRY(agree(run->comm, status, err));
    host_reset_peak_rss(); /* the operands were none of the training's memory */
    TRY(comm_all_reduce_sum_f64(run->comm, &flops, 1, err));
    TRY(comm_all_reduce_sum_f64(run->comm, &bytes_s, 1, err));
    power->rates.matmul_flops += flops; /* what is there was not measured again */
    power->rates.copy_bytes_s += bytes_s;
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
        status = measure_rates(power, run, err);
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
    return power->rates.matmul_flops;
}

double run_power_copy_bytes_s(const struct run_power *power)
{
    return power->rates.copy_bytes_s;
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
