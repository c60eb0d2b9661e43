#include "cli/plan_cluster.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/units.h"
#include "cli/cli.h"
#include "cli/plan_front.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the request ---- */

static enum status refuse_pin(const char *key, const char *why, struct error *err)
{
    return error_set(err, STATUS_USAGE, "--pin %s: %s with --cluster", key, why);
}

/* What is pinned for attention must be pinned for all kinds. */
static enum status check_alike(const struct pins *pins, struct error *err)
{
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++) {
        bool is_alike =
            pins->tensor_parallel[kind] == pins->tensor_parallel[LAYER_ATTENTION] &&
            pins->sequence_parallel_fixed[kind] == pins->sequence_parallel_fixed[LAYER_ATTENTION] &&
            pins->sequence_parallel[kind] == pins->sequence_parallel[LAYER_ATTENTION] &&
            pins->zero_fixed[kind] == pins->zero_fixed[LAYER_ATTENTION] &&
            pins->zero_stage[kind] == pins->zero_stage[LAYER_ATTENTION] &&
            pins->recompute_fixed[kind] == pins->recompute_fixed[LAYER_ATTENTION] &&
            pins->recompute[kind] == pins->recompute[LAYER_ATTENTION];
        if (!is_alike)
            return refuse_pin(layer_kind_name((enum layer_kind)kind),
                              "all layers have the same split", err);
    }
    return STATUS_OK;
}

static enum status take_pins(const struct pins *pins, struct layout_pins *out, struct error *err)
{
    *out = layout_pins_none();
    TRY(check_alike(pins, err));
    for (int kind = 0; kind < LAYER_KIND_COUNT; kind++)
        if (pins->precision_fixed[kind])
            return refuse_pin("precision", "use --arithmetic", err);
    if (pins->threads > 0)
        return refuse_pin("threads", "devices have none", err);
    if (pins->micro_batches > 0)
        return refuse_pin("micro-batches", "pin micro-batch", err);
    if (pins->schedule_fixed)
        return refuse_pin("schedule", "pin v: 1 is 1f1b, more is interleaved", err);
    out->pipeline = pins->pipeline;
    out->virtual_stages = pins->virtual_stages;
    out->data = pins->data_parallel;
    out->micro_batch = pins->micro_batch;
    out->tensor = pins->tensor_parallel[LAYER_ATTENTION];
    if (pins->sequence_parallel_fixed[LAYER_ATTENTION])
        out->sequence_parallel = pins->sequence_parallel[LAYER_ATTENTION];
    if (pins->zero_fixed[LAYER_ATTENTION])
        out->zero_stage = pins->zero_stage[LAYER_ATTENTION];
    if (pins->recompute_fixed[LAYER_ATTENTION])
        out->recompute = (int)pins->recompute[LAYER_ATTENTION];
    return STATUS_OK;
}

static enum status make_request(const struct cluster_plan_options *options,
                                const struct cluster *cluster, struct layouts_request *out,
                                struct error *err)
{
    *out = (struct layouts_request){
        .cluster = cluster,
        .model = options->model,
        .global_batch = options->global_batch,
        .memory_cap_bytes = options->memory_cap_bytes,
        .overlaps = true,
        .fused = true,
        .limits = {.deadline_s =
                       options->time_limit_s > 0 ? clock_s() + options->time_limit_s : INFINITY,
                   .stop = &interrupt_requested},
        .reporter = console_reporter(),
    };
    if (!framework_parse(options->framework, &out->framework))
        return error_set(err, STATUS_USAGE, "--framework %s: expected megatron, deepspeed or fsdp",
                         options->framework);
    if (!arithmetic_parse(options->arithmetic, &out->arithmetic))
        return error_set(err, STATUS_USAGE,
                         "--arithmetic %s: expected fp32, tf32, bf16, fp16 or fp8",
                         options->arithmetic);
    TRY(cluster_check_planning(cluster, out->arithmetic, cluster->name, err));
    if (cluster->group_count > 1)
        return error_set(err, STATUS_UNSUPPORTED,
                         "the cluster '%s' has %zu node groups: layouts over unlike devices are "
                         "not planned yet; give a cluster of one group",
                         cluster->name, cluster->group_count);
    return take_pins(options->pins, &out->pins, err);
}

/* ---- the answer ---- */

static void print_head(const struct cluster_plan_options *options, const struct cluster *cluster)
{
    const struct model *model = options->model;
    printf("%s: %lld blocks, hidden %lld, sequence %lld tokens, vocab %lld\n", model->name,
           (long long)model->blocks, (long long)model->hidden, (long long)model->seq_length,
           (long long)model->vocab);
    printf("cluster %s: %lld x %s; %s, %s; global batch %lld\n\n", cluster->name,
           (long long)cluster_devices(cluster), cluster->groups[0].device.name, options->framework,
           options->arithmetic, (long long)options->global_batch);
    printf("%4s %4s %4s %4s %3s %5s %4s %5s %6s  %-9s %12s %12s %12s %9s\n", "dp", "tp", "pp", "cp",
           "v", "sp", "zero", "mb", "count", "recompute", "time", "memory", "energy", "");
}

/* A whole layout in one line of launch-script words. */
static void print_row(const struct priced_layout *row, double objective, double best)
{
    const struct layout *layout = &row->layout;
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], energy[UNIT_TEXT_BYTES];
    printf("%4lld %4lld %4lld %4lld %3lld %5s %4d %5lld %6lld  %-9s %12s %12s %12s %+7.1f %%\n",
           (long long)layout->data, (long long)layout->tensor, (long long)layout->pipeline,
           (long long)layout->context, (long long)layout->virtual_stages,
           layout->sequence_parallel ? "on" : "off", layout->zero_stage,
           (long long)layout->micro_batch, (long long)layout_micro_batches(layout),
           recompute_name(layout->recompute), format_seconds(row->time_s, time),
           format_bytes(row->memory_bytes, memory), format_joules(row->energy_j, energy),
           100 * (objective / best - 1));
}

/* What the user's figures make of the energy and the hours. */
static void print_costs(const struct cluster *cluster, const struct layout_prediction *prediction)
{
    if (prediction->price.provenance != PROVENANCE_ABSENT)
        printf("  %-24s %12.4g %s\n", "price of a step", prediction->price.value,
               cluster->currency);
    if (prediction->carbon_g.provenance != PROVENANCE_ABSENT)
        printf("  %-24s %12.4g g CO2e (intensity of %s)\n", "carbon of a step",
               prediction->carbon_g.value, cluster->carbon_date);
}

static void print_terms(const struct layout_prediction *prediction)
{
    char text[UNIT_TEXT_BYTES];
    printf("\n  predicted, one training step (modelled)\n  %-24s %12s\n", "time",
           format_seconds(prediction->time_s.value, text));
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        if (prediction->phase_time_s[phase].value > 0)
            printf("    %-22s %12s\n", phase_name((enum phase)phase),
                   format_seconds(prediction->phase_time_s[phase].value, text));
    printf("  %-24s %12s\n", "memory of a device",
           format_bytes(prediction->memory_bytes.value, text));
    for (int term = 0; term < MEMORY_TERM_COUNT; term++)
        printf("    %-22s %12s\n", memory_term_name((enum memory_term)term),
               format_bytes(prediction->memory_term_bytes[term].value, text));
    if (prediction->energy_j.provenance != PROVENANCE_ABSENT)
        printf("  %-24s %12s\n", "energy of all devices",
               format_joules(prediction->energy_j.value, text));
}

static void print_answer(const struct cluster_plan_options *options, const struct cluster *cluster,
                         const struct layout_list *list, const double *objectives,
                         const struct layout_prediction *best)
{
    int64_t tokens = options->global_batch * options->model->seq_length;
    size_t shown = list->count < (size_t)options->top ? list->count : (size_t)options->top;
    char rate[UNIT_TEXT_BYTES];
    print_head(options, cluster);
    for (size_t i = 0; i < shown; i++)
        print_row(&list->rows[i], objectives[i], objectives[0]);
    print_terms(best);
    print_costs(cluster, best);
    printf("  %-24s %12s tokens/s, MFU %.1f %%\n\n", "throughput",
           format_count((double)tokens / best->time_s.value, rate), 100 * best->mfu);
    printf("%llu layouts priced, %zu fit: the first is the best %s\n",
           (unsigned long long)list->considered, list->count,
           list->is_whole ? "of all that are the same for every layer"
                          : "so far; the search was stopped");
}

static void write_layout(const struct priced_layout *row, double objective, struct jout *out)
{
    const struct layout *layout = &row->layout;
    jout_begin_object(out, NULL);
    jout_int(out, "data_parallel", layout->data);
    jout_int(out, "tensor_parallel", layout->tensor);
    jout_int(out, "pipeline", layout->pipeline);
    jout_int(out, "context_parallel", layout->context);
    jout_int(out, "virtual_stages", layout->virtual_stages);
    jout_bool(out, "sequence_parallel", layout->sequence_parallel);
    jout_int(out, "zero_stage", layout->zero_stage);
    jout_int(out, "micro_batch", layout->micro_batch);
    jout_int(out, "micro_batches", layout_micro_batches(layout));
    jout_string(out, "recompute", recompute_name(layout->recompute));
    jout_real(out, "time_s", row->time_s);
    jout_real(out, "memory_bytes", row->memory_bytes);
    jout_real(out, "energy_j", row->energy_j);
    jout_real(out, "objective", objective);
    jout_end(out);
}

static enum status write_answer(const struct cluster_plan_options *options,
                                const struct cluster *cluster, const struct layout_list *list,
                                const double *objectives, const struct layout_prediction *best,
                                const struct exported *exported, struct error *err)
{
    size_t shown = list->count < (size_t)options->top ? list->count : (size_t)options->top;
    struct jout *out = jout_new();
    jout_string(out, "cluster", cluster->name);
    jout_string(out, "model", options->model->name);
    jout_int(out, "devices", cluster_devices(cluster));
    jout_int(out, "considered", (int64_t)list->considered);
    jout_int(out, "fitting", (int64_t)list->count);
    jout_bool(out, "whole", list->is_whole);
    jout_real(out, "time_s", best->time_s.value);
    jout_real(out, "memory_bytes", best->memory_bytes.value);
    jout_real(out, "mfu", best->mfu);
    write_quantity("price", &best->price, out);
    write_quantity("carbon_g", &best->carbon_g, out);
    jout_begin_array(out, "layouts");
    for (size_t i = 0; i < shown; i++)
        write_layout(&list->rows[i], objectives[i], out);
    jout_end(out);
    if (exported != NULL)
        exported_json(exported, out);
    return console_json(out, err);
}

static enum status print_export(const struct exported *exported, struct error *err)
{
    struct text text = {0};
    exported_text(exported, &text);
    enum status status = text_check(&text, err);
    if (status == STATUS_OK)
        printf("\n%s", text.data);
    text_free(&text);
    return status;
}

static enum status tell_best(const struct cluster_plan_options *options,
                             const struct cluster *cluster, const struct layout_list *list,
                             const double *objectives, struct error *err)
{
    struct layout_prediction best;
    struct exported exported;
    const struct layout *layout = &list->rows[0].layout;
    TRY(layout_predict(cluster, options->model, layout, &best, err));
    if (!options->handover->wanted && options->json)
        return write_answer(options, cluster, list, objectives, &best, NULL, err);
    if (!options->json)
        print_answer(options, cluster, list, objectives, &best);
    if (!options->handover->wanted)
        return STATUS_OK;
    TRY(layout_export(options->handover, options->model, layout, &exported, err));
    enum status status =
        options->json ? write_answer(options, cluster, list, objectives, &best, &exported, err)
                      : print_export(&exported, err);
    exported_free(&exported);
    return status;
}

static enum status tell(const struct cluster_plan_options *options, const struct cluster *cluster,
                        struct layout_list *list, struct error *err)
{
    double *objectives = calloc(list->count, sizeof(*objectives));
    if (objectives == NULL)
        return error_memory(err, list->count * sizeof(*objectives), "the layouts");
    enum status status = layouts_rank(list, &options->weights, objectives, err);
    if (status == STATUS_OK)
        status = tell_best(options, cluster, list, objectives, err);
    free(objectives);
    return status;
}

/* ---- the front ---- */

static enum status write_csv(const struct layout_list *list, const char *path, struct error *err)
{
    struct text out = {0};
    text_append(&out, "data_parallel,tensor_parallel,pipeline,context_parallel,virtual_stages,"
                      "sequence_parallel,zero_stage,micro_batch,micro_batches,recompute,time_s,"
                      "memory_bytes,energy_j\n");
    for (size_t i = 0; i < list->count; i++) {
        const struct priced_layout *row = &list->rows[i];
        const struct layout *layout = &row->layout;
        text_printf(&out, "%lld,%lld,%lld,%lld,%lld,%d,%d,%lld,%lld,%s,%.17g,%.17g,%.17g\n",
                    (long long)layout->data, (long long)layout->tensor, (long long)layout->pipeline,
                    (long long)layout->context, (long long)layout->virtual_stages,
                    layout->sequence_parallel, layout->zero_stage, (long long)layout->micro_batch,
                    (long long)layout_micro_batches(layout), recompute_name(layout->recompute),
                    row->time_s, row->memory_bytes, row->energy_j);
    }
    enum status status = text_check(&out, err);
    if (status == STATUS_OK)
        status = file_write(path, out.data, out.bytes, err);
    text_free(&out);
    return status;
}

static enum status write_front(const struct cluster *cluster, const struct layout_list *list,
                               struct error *err)
{
    struct jout *out = jout_new();
    jout_string(out, "cluster", cluster->name);
    jout_int(out, "considered", (int64_t)list->considered);
    jout_bool(out, "whole", list->is_whole);
    jout_begin_array(out, "layouts");
    for (size_t i = 0; i < list->count; i++)
        write_layout(&list->rows[i], NAN, out);
    jout_end(out);
    return console_json(out, err);
}

static enum status tell_front(const struct cluster_plan_options *options,
                              const struct cluster *cluster, struct layout_list *list,
                              struct error *err)
{
    unsigned axes;
    TRY(front_axes_parse(options->pareto, &axes, err));
    layouts_keep_front(list, axes);
    if (options->csv != NULL)
        TRY(write_csv(list, options->csv, err));
    if (options->json)
        return write_front(cluster, list, err);
    print_head(options, cluster);
    double fastest_s = list->rows[0].time_s;
    for (size_t i = 0; i < list->count; i++)
        print_row(&list->rows[i], list->rows[i].time_s, fastest_s);
    printf("\n%zu layouts of %llu priced: those that no other is better than in %s%s\n",
           list->count, (unsigned long long)list->considered, options->pareto,
           list->is_whole ? "" : ", so far; the search was stopped");
    return STATUS_OK;
}

static enum status refuse_all(const struct cluster *cluster, const struct layouts_request *request,
                              const struct layout_list *list, struct error *err)
{
    char least[UNIT_TEXT_BYTES], cap[UNIT_TEXT_BYTES];
    uint64_t cap_bytes = request->memory_cap_bytes > 0 ? request->memory_cap_bytes
                                                       : cluster->groups[0].device.memory_bytes;
    if (!list->is_whole)
        return error_set(err, STATUS_FAILED, "the search was stopped before a layout was found");
    if (list->considered == 0)
        return error_set(err, STATUS_INFEASIBLE,
                         "no layout of %lld devices divides the model and global batch %lld as "
                         "pinned; drop a pin or change --global-batch",
                         (long long)cluster_devices(cluster), (long long)request->global_batch);
    return error_set(
        err, STATUS_INFEASIBLE,
        "no layout fits: the leanest (tp %lld, pp %lld, dp %lld, ZeRO %d, recompute %s) takes %s "
        "of %s a device; take more devices, or a smaller sequence",
        (long long)list->leanest.tensor, (long long)list->leanest.pipeline,
        (long long)list->leanest.data, list->leanest.zero_stage,
        recompute_name(list->leanest.recompute), format_bytes(list->leanest_bytes, least),
        format_bytes((double)cap_bytes, cap));
}

enum status plan_for_cluster(const struct cluster_plan_options *options, struct error *err)
{
    struct cluster cluster;
    struct layouts_request request;
    struct layout_list list;
    TRY(cluster_load(&cluster, options->cluster, err));
    TRY(make_request(options, &cluster, &request, err));
    interrupt_catch();
    enum status status = layouts_price(&request, &list, err);
    console_progress_end();
    TRY(status);
    if (list.count == 0)
        status = refuse_all(&cluster, &request, &list, err);
    else if (options->pareto != NULL)
        status = tell_front(options, &cluster, &list, err);
    else
        status = tell(options, &cluster, &list, err);
    layouts_free(&list);
    return status;
}
