#include "traces/summary.h"
#include "ir/mesh.h"
#include "traces/figures.h"
#include "traces/roofline.h"
#include <math.h>

static void write_quantity(const char *key, const struct quantity *quantity, struct jout *out)
{
    jout_real(out, key, quantity->provenance == PROVENANCE_ABSENT ? NAN : quantity->value);
}

static void write_comparison(const char *key, const struct comparison *comparison, struct jout *out)
{
    const struct quantity *predicted = &comparison->predicted, *measured = &comparison->measured;
    jout_begin_object(out, key);
    write_quantity("predicted", predicted, out);
    write_quantity("measured", measured, out);
    jout_real(out, "error", comparison->has_error ? comparison->error : NAN);
    jout_string(out, "predicted_provenance", provenance_name(predicted->provenance));
    jout_string(out, "measured_provenance", provenance_name(measured->provenance));
    jout_real(out, "predicted_deviation",
              predicted->provenance == PROVENANCE_ABSENT ? NAN : predicted->deviation);
    jout_real(out, "measured_deviation",
              measured->provenance == PROVENANCE_ABSENT ? NAN : measured->deviation);
    jout_end(out);
}

/* What no plan predicts. */
static void write_measured(const char *key, double value, struct jout *out)
{
    struct comparison comparison = {.predicted = quantity_absent(), .measured = quantity_absent()};
    if (isfinite(value))
        comparison.measured = (struct quantity){value, 0, PROVENANCE_MEASURED};
    write_comparison(key, &comparison, out);
}

static void write_stage(const char *key, int stage, struct jout *out)
{
    if (stage < 0)
        jout_null(out, key);
    else
        jout_int(out, key, stage);
}

static void write_phases(const struct run_comparison *comparison, struct jout *out)
{
    jout_begin_object(out, "phases");
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        const struct rank_spread *spread = &comparison->phase_spread[phase];
        jout_begin_object(out, phase_name((enum phase)phase));
        write_comparison("time_s", &comparison->phase_s[phase], out);
        write_comparison("energy_j", &comparison->phase_energy_j[phase], out);
        bool has_ratio = comparison->rank_count > 1 && spread->minimum_s > 0;
        jout_real(out, "rank_ratio", has_ratio ? spread->maximum_s / spread->minimum_s : NAN);
        jout_end(out);
    }
    jout_end(out);
}

static void write_sum(const struct communication_sum *sum, struct jout *out)
{
    jout_real(out, "calls", sum->calls);
    jout_real(out, "bytes", sum->bytes);
    jout_real(out, "flight_s", sum->flight_s);
    jout_real(out, "waited_s", sum->waited_s);
    jout_real(out, "hidden_s", communication_hidden_s(sum));
    jout_real(out, "hidden_share", communication_hidden_share(sum));
}

/* null without recorded events; a phase that nothing was communicated in is left out. */
static void write_communication(const struct communication *communication, struct jout *out)
{
    struct communication_sum total = communication_total(communication);
    if (communication->step_count == 0) {
        jout_null(out, "communication");
        return;
    }
    jout_begin_object(out, "communication");
    write_sum(&total, out);
    jout_begin_object(out, "phases");
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        const struct communication_sum *sums = communication->sums[phase];
        if (sums[COMMUNICATION_ALL].calls == 0)
            continue;
        jout_begin_object(out, phase_name((enum phase)phase));
        write_sum(&sums[COMMUNICATION_ALL], out);
        jout_begin_object(out, "layers");
        for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
            if (sums[kind].calls == 0)
                continue;
            jout_begin_object(out, layer_kind_name((enum layer_kind)kind));
            write_sum(&sums[kind], out);
            jout_end(out);
        }
        jout_end(out);
        jout_end(out);
    }
    jout_end(out);
    jout_end(out);
}

static void write_layer(const struct plan *plan, size_t index, const struct layer_comparison *layer,
                        struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_int(out, "index", (int64_t)index);
    jout_string(out, "kind", layer_kind_name(layer->layer.kind));
    jout_int(out, "block", layer->layer.block);
    jout_string(out, "precision", precision_name(layer->strategy.precision));
    jout_string(out, "recompute", recompute_name(layer->strategy.recompute));
    jout_string(out, "attention", attention_kernel_name(layer->strategy.attention));
    jout_int(out, "stage", mesh_layer_stage(plan, index));
    jout_int(out, "chunk", mesh_layer_chunk(plan, index));
    jout_int(out, "tensor_parallel", layer->strategy.tensor_parallel);
    jout_bool(out, "sequence_parallel", layer->strategy.sequence_parallel);
    jout_int(out, "zero_stage", layer->strategy.zero_stage);
    write_comparison("kept_bytes", &layer->kept_bytes, out);
    write_comparison("time_s", &layer->total_s, out);
    write_comparison("energy_j", &layer->energy_j, out);
    jout_begin_object(out, "phases");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        write_comparison(phase_name((enum phase)phase), &layer->phase_s[phase], out);
    jout_end(out);
    jout_end(out);
}

static void write_roofline(const struct run_record *record, const struct run_comparison *comparison,
                           struct jout *out)
{
    struct roofline_row rows[ROOFLINE_ROWS_MAX];
    size_t count = roofline_rows(record, comparison, rows);
    jout_begin_array(out, "roofline");
    for (size_t i = 0; i < count; i++) {
        jout_begin_object(out, NULL);
        jout_string(out, "kind", layer_kind_name(rows[i].kind));
        jout_string(out, "pass", roofline_pass_name(rows[i].pass));
        jout_string(out, "precision", precision_name(rows[i].precision));
        jout_real(out, "seconds", rows[i].seconds);
        jout_real(out, "flops", rows[i].work.flops);
        jout_real(out, "bytes", rows[i].work.bytes);
        jout_string(out, "limit", rows[i].is_memory ? "memory" : "compute");
        jout_real(out, "reached", rows[i].reached);
        jout_end(out);
    }
    jout_end(out);
}

void summary_write(const struct run_record *record, const struct run_comparison *comparison,
                   struct jout *out)
{
    jout_int(out, "run", record->info.id);
    jout_string(out, "status", run_status_name(record->info.status));
    jout_string(out, "model", record->plan.model.name);
    jout_string(out, "host", record->info.host);
    jout_int(out, "ranks", record->plan.ranks);
    jout_int(out, "data_parallel", record->plan.data_parallel);
    jout_int(out, "tensor_parallel", record->plan.tensor_parallel);
    jout_int(out, "pipeline", record->plan.pipeline);
    jout_int(out, "virtual_stages", record->plan.virtual_stages);
    jout_string(out, "schedule", schedule_name(record->plan.schedule));
    jout_string(out, "gradient_reduction",
                gradient_reduction_name(record->plan.gradient_reduction));
    jout_int(out, "skipped_steps", record->info.skipped_steps);
    write_measured("steps", (double)comparison->steps, out);
    write_measured("final_loss", comparison->final_loss, out);
    write_measured("validation_loss", comparison->validation_loss, out);
    for (size_t i = 0; i < HEADLINE_COUNT; i++)
        write_comparison(headlines[i].key, headline_of(comparison, i), out);
    write_comparison("memory_bytes", &comparison->peak_bytes, out);
    jout_real(out, "matmul_share", comparison->matmul_share > 0 ? comparison->matmul_share : NAN);
    write_stage("predicted_stage", comparison->predicted_stage, out);
    write_stage("measured_stage", comparison->measured_stage, out);
    write_phases(comparison, out);
    write_communication(&comparison->communication, out);
    jout_begin_object(out, "memory_terms");
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        write_comparison(memory_term_name((enum memory_term)term),
                         &comparison->memory_term_bytes[term], out);
    jout_end(out);
    jout_begin_array(out, "layers");
    for (size_t i = 0; i < comparison->layer_count; i++)
        write_layer(&record->plan, i, &comparison->layers[i], out);
    jout_end(out);
    write_roofline(record, comparison, out);
}
