#include "traces/terminal.h"
#include "base/units.h"
#include "traces/figures.h"
#include "traces/roofline.h"
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
    char split[FIGURE_LINE_BYTES], schedule[FIGURE_TEXT_BYTES];
    text_printf(out, "Run %" PRId64 ": %s, started %s\n", info->id, run_status_name(info->status),
                figure_date(info->started_unix_ms, date));
    append_field("host", info->host, out);
    append_field("data", info->data_path, out);
    append_field("model", plan->model.name, out);
    text_printf(out, "             %" PRId64 " blocks, hidden %" PRId64 ", %s parameters\n",
                plan->model.blocks, plan->model.hidden,
                format_grouped(model_parameter_count(&plan->model), parameters));
    text_printf(out,
                "  %-10s %s, %d thread%s each, global batch %" PRId64 " = %" PRId64
                " sequences x %" PRId64 " micro-batches x %d replica%s\n",
                "plan", figure_split(plan, "x", split), plan->threads,
                plan->threads == 1 ? "" : "s", plan->global_batch, plan->micro_batch,
                plan->micro_batches, plan->data_parallel, plan->data_parallel == 1 ? "" : "s");
    if (plan->pipeline > 1)
        append_field("schedule", figure_schedule(plan, schedule), out);
    if (plan->gradient_reduction != GRADIENTS_FP32)
        append_field("gradients", "bf16, of layers in bf16", out);
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

/* Of the measured phases, which sum to the step. */
static double share_of_step(const struct run_comparison *comparison, double seconds)
{
    double step_s = 0;
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (comparison->phase_s[phase].measured.provenance != PROVENANCE_ABSENT)
            step_s += comparison->phase_s[phase].measured.value;
    return step_s > 0 ? seconds / step_s : NAN;
}

static void append_phase(const struct run_comparison *comparison, int phase, struct text *out)
{
    const struct comparison *time_s = &comparison->phase_s[phase];
    bool is_known = time_s->measured.provenance != PROVENANCE_ABSENT;
    char text[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s", phase_name((enum phase)phase));
    append_comparison(FIGURE_SECONDS, time_s, out);
    text_printf(
        out, " %8s",
        figure_share(is_known ? share_of_step(comparison, time_s->measured.value) : NAN, text));
    text_printf(out, " %8s",
                figure_ratio(&comparison->phase_spread[phase], comparison->rank_count, text));
    append_comparison(FIGURE_JOULES, &comparison->phase_energy_j[phase], out);
    text_append(out, "\n");
}

/* What the phases say together: waiting for collectives, and for other stages. */
static void append_waiting(const struct run_record *record, const struct run_comparison *comparison,
                           struct text *out)
{
    static const enum phase exposed[] = {PHASE_TENSOR, PHASE_PARAM_GATHER, PHASE_GRAD_REDUCE};
    double bubble_s = comparison->phase_s[PHASE_PIPELINE].measured.value, exposed_s = 0;
    char time[UNIT_TEXT_BYTES], share[FIGURE_TEXT_BYTES], stage[FIGURE_TEXT_BYTES];
    for (size_t i = 0; i < sizeof(exposed) / sizeof(exposed[0]); i++)
        exposed_s += comparison->phase_s[exposed[i]].measured.value;
    if (comparison->rank_count == 0 || record->plan.ranks == 1)
        return;
    if (record->plan.pipeline > 1)
        text_printf(out,
                    "%-14s the stage with most to do is the one shown: %s\n"
                    "%-14s %s, %s of the step: bubble and transfers\n",
                    "stages", figure_stage(comparison, stage), "bubble",
                    format_seconds(bubble_s, time),
                    figure_share(share_of_step(comparison, bubble_s), share));
    text_printf(out, "%-14s %s, %s of the step: collectives that compute does not hide\n\n",
                "exposed", format_seconds(exposed_s, time),
                figure_share(share_of_step(comparison, exposed_s), share));
}

static void append_phases(const struct run_record *record, const struct run_comparison *comparison,
                          struct text *out)
{
    text_printf(out, "%-14s %16s %16s %9s %8s %8s %16s %16s %9s\n", "Phase", "predicted",
                "measured", "error", "share", "max/min", "energy predicted", "energy measured",
                "error");
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (!figure_is_idle(&comparison->phase_s[phase]) ||
            comparison->phase_spread[phase].maximum_s > 0)
            append_phase(comparison, phase, out);
    text_append(out, "\n");
    append_waiting(record, comparison, out);
}

static void append_transfers(const char *name, const struct communication_sum *sum,
                             struct text *out)
{
    char bytes[UNIT_TEXT_BYTES], flight[UNIT_TEXT_BYTES], waited[UNIT_TEXT_BYTES];
    char hidden[UNIT_TEXT_BYTES], share[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s %10.0f %12s %12s %12s %12s %9s\n", name, sum->calls,
                format_bytes(sum->bytes, bytes), format_seconds(sum->flight_s, flight),
                format_seconds(sum->waited_s, waited),
                format_seconds(communication_hidden_s(sum), hidden),
                figure_share(communication_hidden_share(sum), share));
}

static void append_communication(const struct run_comparison *comparison, struct text *out)
{
    const struct communication *communication = &comparison->communication;
    if (communication_total(communication).calls == 0)
        return;
    text_printf(out, "%-14s %10s %12s %12s %12s %12s %9s\n", "Communication", "transfers", "bytes",
                "in flight", "waited", "hidden", "share");
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        const struct communication_sum *sum = &communication->sums[phase][COMMUNICATION_ALL];
        if (sum->calls > 0)
            append_transfers(phase_name((enum phase)phase), sum, out);
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

/* "split" only where the plan splits layers at all. */
static void append_layer_columns(const struct plan *plan, struct text *out)
{
    text_printf(out, "%-14s", "Layer");
    if (figure_has_strategies(plan))
        text_printf(out, " %-30s", "split");
    text_printf(out, " %-5s %-16s", "prec.", "recompute");
}

static void append_layer_name(const struct plan *plan, const struct layer_comparison *layer,
                              struct text *out)
{
    char text[FIGURE_TEXT_BYTES];
    text_printf(out, "%-14s", figure_layer(layer->layer, text));
    if (figure_has_strategies(plan))
        text_printf(out, " %-30s", figure_strategy(plan, &layer->strategy, text));
    text_printf(out, " %-5s %-16s", precision_name(layer->strategy.precision),
                layer_mode_text(layer->strategy.recompute, layer->strategy.attention));
}

static void append_layers(const struct plan *plan, const struct run_comparison *comparison,
                          struct text *out)
{
    append_layer_columns(plan, out);
    text_printf(out, " %16s %16s %9s %16s %16s %9s\n", "time predicted", "time measured", "error",
                "energy predicted", "energy measured", "error");
    for (size_t i = 0; i < comparison->layer_count; i++) {
        const struct layer_comparison *layer = &comparison->layers[i];
        append_layer_name(plan, layer, out);
        append_comparison(FIGURE_SECONDS, &layer->total_s, out);
        append_comparison(FIGURE_JOULES, &layer->energy_j, out);
        text_append(out, "\n");
    }
    text_append(out, "\n");
}

static void append_layer_memory(const struct plan *plan, const struct run_comparison *comparison,
                                struct text *out)
{
    append_layer_columns(plan, out);
    text_printf(out, " %16s %16s %9s\n", "kept predicted", "kept measured", "error");
    for (size_t i = 0; i < comparison->layer_count; i++) {
        const struct layer_comparison *layer = &comparison->layers[i];
        append_layer_name(plan, layer, out);
        append_comparison(FIGURE_BYTES, &layer->kept_bytes, out);
        text_append(out, "\n");
    }
    text_append(out, "\n");
}

static void append_roofline(const struct run_record *record,
                            const struct run_comparison *comparison, struct text *out)
{
    struct roofline_row rows[ROOFLINE_ROWS_MAX];
    size_t count = roofline_rows(record, comparison, rows);
    if (count == 0)
        return;
    text_printf(out, "%-14s %-9s %-5s %12s %9s %9s %-8s %9s\n", "Roofline", "pass", "prec.", "time",
                "GFLOP/s", "GB/s", "limit", "reached");
    for (size_t i = 0; i < count; i++) {
        const struct roofline_row *row = &rows[i];
        char seconds[UNIT_TEXT_BYTES], share[FIGURE_TEXT_BYTES];
        text_printf(out, "%-14s %-9s %-5s %12s %9.1f %9.1f %-8s %9s\n", layer_kind_name(row->kind),
                    roofline_pass_name(row->pass), precision_name(row->precision),
                    format_seconds(row->seconds, seconds), row->work.flops / row->seconds / 1e9,
                    row->work.bytes / row->seconds / 1e9,
                    isnan(row->reached) ? "-"
                    : row->is_memory    ? "memory"
                                        : "compute",
                    figure_share(row->reached, share));
    }
    text_append(out, "\n");
}

static void append_legend(const struct run_comparison *comparison, struct text *out)
{
    text_printf(
        out,
        "Legend\n"
        "  error        predicted / measured - 1; '-' where either is absent\n"
        "  step time    measured: median of the steps after the first %zu\n"
        "  throughput   tokens of a step / step time\n"
        "  energy       of one step, all ranks; measured: mean of the same steps;\n"
        "               of a phase or layer: the step's energy x its share of the time\n"
        "  phase        mean over ranks; max/min: slowest / fastest of %zu rank%s;\n"
        "               of communication what compute does not hide\n"
        "  other        step time - all other phases\n"
        "  transfers    of a step and rank, mean over all; hidden = in flight - waited\n"
        "  layer        sum of its recorded phases in one step, mean over its ranks\n"
        "  memory       measured: as laid out; process = peak - layout;\n"
        "               peak: highest resident memory of any rank\n"
        "  kept         activations from a micro-batch's forward to its backward\n"
        "  roofline     of one rank and step, all layers of a kind; limit: the longer of FLOPs\n"
        "               at the matrix-product rate and least bytes at the copy rate;\n"
        "               reached: limit / time\n"
        "  absent       not known, which is not 0\n",
        comparison->warmup_steps, comparison->rank_count, comparison->rank_count == 1 ? "" : "s");
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
    append_phases(record, comparison, out);
    append_communication(comparison, out);
    append_memory(comparison, out);
    append_layers(&record->plan, comparison, out);
    append_layer_memory(&record->plan, comparison, out);
    append_roofline(record, comparison, out);
    append_legend(comparison, out);
    return text_check(out, err);
}
