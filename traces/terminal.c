#include "traces/terminal.h"
#include "base/units.h"
#include "traces/figures.h"
#include <inttypes.h>
#include <math.h>

/* "predicted  measured  error" under a table's own columns. */
static void append_comparison(enum figure_kind kind, const struct comparison *comparison,
                              struct text *out)
{
    char predicted[FIGURE_TEXT_BYTES], measured[FIGURE_TEXT_BYTES], error[FIGURE_TEXT_BYTES];
    text_printf(out, " %16s %16s %9s", figure_value(kind, comparison->predicted, predicted),
                figure_value(kind, comparison->measured, measured),
                figure_error(comparison, error));
}

static void append_field(const char *label, const char *value, struct text *out)
{
    text_printf(out, "  %-10s ", label);
    figure_clean(value, out);
    text_append(out, "\n");
}

static void append_what(const struct run_record *record, struct text *out)
{
    const struct run_info *info = &record->info;
    const struct plan *plan = &record->plan;
    char date[FIGURE_TEXT_BYTES], parameters[UNIT_TEXT_BYTES];
    text_printf(out, "Run %" PRId64 ": %s, started %s\n", info->id, run_status_name(info->status),
                figure_date(info->started_unix_ms, date));
    append_field("host", info->host, out);
    append_field("data", info->data_path, out);
    append_field("model", plan->model.name, out);
    text_printf(out, "             %" PRId64 " blocks, hidden %" PRId64 ", %s parameters\n",
                plan->model.blocks, plan->model.hidden,
                format_grouped(model_parameter_count(&plan->model), parameters));
    text_printf(out,
                "  %-10s %d rank%s x %d thread%s, global batch %" PRId64 " = %" PRId64
                " sequences x %" PRId64 " micro-batches x %d ranks\n",
                "plan", plan->ranks, plan->ranks == 1 ? "" : "s", plan->threads,
                plan->threads == 1 ? "" : "s", plan->global_batch, plan->micro_batch,
                plan->micro_batches, plan->data_parallel);
}

static void append_training(const struct run_record *record,
                            const struct run_comparison *comparison, struct text *out)
{
    text_printf(out, "  %-10s %" PRId64, "steps", comparison->steps);
    if (record->info.skipped_steps > 0)
        text_printf(out, ", %" PRId64 " skipped: gradient not finite", record->info.skipped_steps);
    text_append(out, "\n  loss       ");
    if (isfinite(comparison->final_loss))
        text_printf(out, "%.4f nats a token at the last step", comparison->final_loss);
    else
        text_append(out, comparison->steps > 0 ? "not finite at the last step" : "absent");
    if (isfinite(comparison->validation_loss))
        text_printf(out, ", %.4f on validation data", comparison->validation_loss);
    text_append(out, "\n");
    if (comparison->matmul_share > 0)
        text_printf(out, "  %-10s %.1f %% of the measured matrix-product rate\n", "compute",
                    100 * comparison->matmul_share);
    text_append(out, "\n");
}

static void append_totals(const struct run_comparison *comparison, struct text *out)
{
    text_printf(out, "%-14s %16s %16s %9s  %-13s %s\n", "Total", "predicted", "measured", "error",
                "prediction", "measurement");
    for (size_t i = 0; i < HEADLINE_COUNT; i++) {
        const struct comparison *figure = headline_of(comparison, i);
        text_printf(out, "%-14s", headlines[i].label);
        append_comparison(headlines[i].kind, figure, out);
        text_printf(out, "  %-13s %s\n", provenance_name(figure->predicted.provenance),
                    provenance_name(figure->measured.provenance));
    }
    text_append(out, "\n");
}

static void append_phases(const struct run_comparison *comparison, struct text *out)
{
    char ratio[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s %16s %16s %9s %8s %16s %16s %9s\n", "Phase", "predicted", "measured",
                "error", "max/min", "energy predicted", "energy measured", "error");
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        text_printf(out, "%-14s", phase_name((enum phase)phase));
        append_comparison(FIGURE_SECONDS, &comparison->phase_s[phase], out);
        text_printf(out, " %8s",
                    figure_ratio(&comparison->phase_spread[phase], comparison->rank_count, ratio));
        append_comparison(FIGURE_JOULES, &comparison->phase_energy_j[phase], out);
        text_append(out, "\n");
    }
    text_append(out, "\n");
}

static void append_memory(const struct run_comparison *comparison, struct text *out)
{
    text_printf(out, "%-14s %16s %16s %9s\n", "Memory", "predicted", "measured", "error");
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        text_printf(out, "%-14s", memory_term_name((enum memory_term)term));
        append_comparison(FIGURE_BYTES, &comparison->memory_term_bytes[term], out);
        text_append(out, "\n");
    }
    text_printf(out, "%-14s", "peak");
    append_comparison(FIGURE_BYTES, &comparison->peak_bytes, out);
    text_append(out, "\n\n");
}

static void append_layers(const struct run_comparison *comparison, struct text *out)
{
    char label[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s %-5s %-9s %16s %16s %9s %16s %16s %9s\n", "Layer", "prec.", "recompute",
                "time predicted", "time measured", "error", "energy predicted", "energy measured",
                "error");
    for (size_t i = 0; i < comparison->layer_count; i++) {
        const struct layer_comparison *layer = &comparison->layers[i];
        text_printf(out, "%-14s %-5s %-9s", figure_layer(layer->layer, label),
                    precision_name(layer->strategy.precision),
                    recompute_name(layer->strategy.recompute));
        append_comparison(FIGURE_SECONDS, &layer->total_s, out);
        append_comparison(FIGURE_JOULES, &layer->energy_j, out);
        text_append(out, "\n");
    }
    text_append(out, "\n");
}

static void append_layer_memory(const struct run_comparison *comparison, struct text *out)
{
    char label[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s %-5s %-9s %16s %16s %9s\n", "Layer", "prec.", "recompute",
                "kept predicted", "kept measured", "error");
    for (size_t i = 0; i < comparison->layer_count; i++) {
        const struct layer_comparison *layer = &comparison->layers[i];
        text_printf(out, "%-14s %-5s %-9s", figure_layer(layer->layer, label),
                    precision_name(layer->strategy.precision),
                    recompute_name(layer->strategy.recompute));
        append_comparison(FIGURE_BYTES, &layer->kept_bytes, out);
        text_append(out, "\n");
    }
    text_append(out, "\n");
}

static void append_legend(const struct run_comparison *comparison, struct text *out)
{
    text_printf(out,
                "Legend\n"
                "  error        predicted / measured - 1; '-' where either is absent\n"
                "  step time    measured: median of the steps after the first %zu\n"
                "  throughput   tokens of a step / step time\n"
                "  energy       of one step, all ranks; measured: mean of the same steps;\n"
                "               of a phase or layer: the step's energy x its share of the time\n"
                "  phase        mean over %zu rank%s; max/min: slowest rank / fastest rank\n"
                "  other        step time - forward - backward - grad_reduce - optimizer\n"
                "  layer        sum of its recorded phases in one step, mean over ranks\n"
                "  memory       measured: as laid out; process = peak - layout;\n"
                "               peak: highest resident memory of any rank\n"
                "  kept         activations from a micro-batch's forward to its backward\n"
                "  absent       not known, which is not 0\n",
                comparison->warmup_steps, comparison->rank_count,
                comparison->rank_count == 1 ? "" : "s");
    if (comparison->matmul_share > 0)
        text_append(out, "  compute      3 x forward FLOPs of the global batch / step time / the "
                         "ranks' matrix-product rate\n");
}

enum status terminal_report(const struct run_record *record,
                            const struct run_comparison *comparison, struct text *out,
                            struct error *err)
{
    append_what(record, out);
    append_training(record, comparison, out);
    append_totals(comparison, out);
    append_phases(comparison, out);
    append_memory(comparison, out);
    append_layers(comparison, out);
    append_layer_memory(comparison, out);
    append_legend(comparison, out);
    return text_check(out, err);
}
