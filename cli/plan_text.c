#include "cli/plan_text.h"

#include "base/units.h"
#include "ir/mesh.h"
#include <stdio.h>
#include <stdlib.h>

enum { CELL_BYTES = 64 };

typedef const char *format_function(double value, char buffer[UNIT_TEXT_BYTES]);

/* "12.3 ms +- 0.2 ms"; "absent". */
static const char *cell(const struct quantity *quantity, format_function *format,
                        char buffer[CELL_BYTES])
{
    char value[UNIT_TEXT_BYTES], deviation[UNIT_TEXT_BYTES];
    if (quantity->provenance == PROVENANCE_ABSENT)
        snprintf(buffer, CELL_BYTES, "absent");
    else if (quantity->deviation > 0)
        snprintf(buffer, CELL_BYTES, "%s +- %s", format(quantity->value, value),
                 format(quantity->deviation, deviation));
    else
        snprintf(buffer, CELL_BYTES, "%s", format(quantity->value, value));
    return buffer;
}

/* Each virtual stage's layers, by their index in the chain. */
static void stages(const struct plan *plan, struct text *out)
{
    text_printf(out, "schedule: %s", schedule_name(plan->schedule));
    if (plan->virtual_stages > 1)
        text_printf(out, ", %d virtual stages a stage", plan->virtual_stages);
    text_append(out, "\n");
    for (int stage = 0; stage < plan->pipeline; stage++) {
        text_printf(out, "  stage %d: layers", stage);
        for (int chunk = 0; chunk < plan->virtual_stages; chunk++) {
            size_t first, end;
            mesh_chunk_layers(plan, stage, chunk, &first, &end);
            text_printf(out, "%s %zu-%zu", chunk > 0 ? "," : "", first, end - 1);
        }
        text_append(out, "\n");
    }
}

static void head(const struct plan *plan, struct text *out)
{
    char cap[UNIT_TEXT_BYTES];
    const struct model *model = &plan->model;
    text_printf(out, "%s: %lld blocks, hidden %lld, sequence %lld tokens, vocab %lld\n",
                model->name, (long long)model->blocks, (long long)model->hidden,
                (long long)model->seq_length, (long long)model->vocab);
    text_printf(out, "mesh: %d ranks = data %d x tensor %d x pipeline %d; threads a rank: %d\n",
                plan->ranks, plan->data_parallel, plan->tensor_parallel, plan->pipeline,
                plan->threads);
    text_printf(out, "global batch %lld = data parallel %d x micro-batches %lld x sequences %lld\n",
                (long long)plan->global_batch, plan->data_parallel, (long long)plan->micro_batches,
                (long long)plan->micro_batch);
    if (plan->pipeline > 1)
        stages(plan, out);
    if (plan->gradient_reduction != GRADIENTS_FP32)
        text_printf(out, "gradients of layers in bf16 are kept and sent in %s\n",
                    gradient_reduction_name(plan->gradient_reduction));
    if (plan->memory_cap_bytes > 0)
        text_printf(out, "memory cap %s a rank\n",
                    format_bytes((double)plan->memory_cap_bytes, cap));
    if (plan->pins[0] != '\0')
        text_printf(out, "pinned: %s\n", plan->pins);
}

/* Layers of one kind under one strategy, as ranges of their indices. */
static void strategy_row(const struct plan *plan, size_t first, bool *listed, struct text *out)
{
    const struct layer_strategy *strategy = &plan->layers[first];
    enum layer_kind kind = model_layer(&plan->model, first).kind;
    size_t count = 0;
    for (size_t i = first; i < plan->layer_count; i++) {
        bool same =
            model_layer(&plan->model, i).kind == kind && strategy_equal(&plan->layers[i], strategy);
        listed[i] |= same;
        count += same;
    }
    text_printf(out, "  %-10s %5zu   %6d  %-8s  %4d  %-9s  %-16s ", layer_kind_name(kind), count,
                strategy->tensor_parallel, strategy->sequence_parallel ? "on" : "off",
                strategy->zero_stage, precision_name(strategy->precision),
                layer_mode_text(strategy->recompute, strategy->attention));
    for (size_t i = first; i < plan->layer_count; i++) {
        if (model_layer(&plan->model, i).kind != kind ||
            !strategy_equal(&plan->layers[i], strategy))
            continue;
        /* A run of blocks: attention and mlp alternate, so the next of the kind is two on. */
        size_t last = i;
        while (last + 2 < plan->layer_count && model_layer(&plan->model, last + 2).kind == kind &&
               strategy_equal(&plan->layers[last + 2], strategy))
            last += 2;
        if (kind == LAYER_EMBEDDING || kind == LAYER_HEAD)
            continue; /* there is one, in no block */
        if (last == i)
            text_printf(out, " %lld", (long long)model_layer(&plan->model, i).block);
        else
            text_printf(out, " %lld-%lld", (long long)model_layer(&plan->model, i).block,
                        (long long)model_layer(&plan->model, last).block);
        i = last;
    }
    text_append(out, "\n");
}

static void strategies(const struct plan *plan, struct text *out)
{
    bool *listed = calloc(plan->layer_count, sizeof *listed);
    text_append(
        out,
        "\n  layers     count   tensor  sequence  zero  precision  recompute         blocks\n");
    if (listed == NULL) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < plan->layer_count; i++)
        if (!listed[i])
            strategy_row(plan, i, listed, out);
    free(listed);
}

static void term_row(struct text *out, const char *name, const struct quantity *quantity,
                     format_function *format)
{
    char value[CELL_BYTES];
    text_printf(out, "  %-22s %24s   %s\n", name, cell(quantity, format, value),
                provenance_name(quantity->provenance));
}

static void prediction(const struct plan *plan, struct text *out)
{
    const struct prediction *predicted = &plan->prediction;
    text_append(out, "\n  predicted, one training step\n");
    term_row(out, "time", &predicted->time_s, format_seconds);
    for (int phase = 0; phase < PHASE_COUNT; phase++) {
        char name[CELL_BYTES];
        snprintf(name, sizeof name, "  %s", phase_name((enum phase)phase));
        term_row(out, name, &predicted->phase_time_s[phase], format_seconds);
    }
    term_row(out, "memory of a rank", &predicted->memory_bytes, format_bytes);
    for (int term = 0; term < MEMORY_TERM_COUNT; term++) {
        char name[CELL_BYTES];
        snprintf(name, sizeof name, "  %s", memory_term_name((enum memory_term)term));
        term_row(out, name, &predicted->memory_term_bytes[term], format_bytes);
    }
    term_row(out, "energy of all ranks", &predicted->energy_j, format_joules);
    bool has_energy = predicted->energy_j.provenance != PROVENANCE_ABSENT;
    for (int phase = 0; has_energy && phase < PHASE_COUNT; phase++) {
        char name[CELL_BYTES];
        snprintf(name, sizeof name, "  %s", phase_name((enum phase)phase));
        term_row(out, name, &predicted->phase_energy_j[phase], format_joules);
    }
    double tokens = (double)plan->global_batch * (double)plan->model.seq_length;
    text_printf(out, "  %-22s %18.0f tokens/s\n", "throughput", tokens / predicted->time_s.value);
}

static void objective(const struct plan *plan, struct text *out)
{
    const struct plan_objective *terms = &plan->objective;
    text_printf(out, "\nobjective %.6g = %g T + %g M + %g E, %s\n", terms->value,
                terms->weight_time, terms->weight_memory, terms->weight_energy,
                terms->raw ? "in s, GiB, J" : "each as a multiple of its best alone");
    if (plan->status == PLAN_PREDICTED)
        text_append(out, "everything is pinned: predicted, nothing was searched\n");
    else
        text_printf(out, "bound %.6g, gap %.3g %%: %s\n", terms->bound, 100 * terms->gap,
                    plan_status_name(plan->status));
}

void plan_text(const struct plan *plan, struct text *out)
{
    head(plan, out);
    strategies(plan, out);
    prediction(plan, out);
    objective(plan, out);
}
