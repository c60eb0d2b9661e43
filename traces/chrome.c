#include "base/json.h"
#include "traces/figures.h"
#include "traces/page.h"
#include <stdio.h>

static double microseconds(int64_t ns)
{
    return (double)ns * 1e-3;
}

static void write_metadata(int32_t rank, int stream, const char *what, const char *name,
                           struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_string(out, "name", what);
    jout_string(out, "ph", "M");
    jout_int(out, "pid", rank);
    jout_int(out, "tid", stream);
    jout_begin_object(out, "args");
    jout_string(out, "name", name);
    jout_end(out);
    jout_end(out);
}

static void write_names(const struct run_record *record, struct jout *out)
{
    for (int32_t rank = 0; rank < record->plan.ranks; rank++) {
        char name[48];
        (void)snprintf(name, sizeof(name), "rank %d", (int)rank);
        write_metadata(rank, STREAM_COMPUTE, "process_name", name, out);
        for (int stream = 0; stream < STREAM_COUNT; stream++)
            write_metadata(rank, stream, "thread_name",
                           event_stream_name((enum event_stream)stream), out);
    }
}

static void write_work(const struct run_record *record, const struct event *event,
                       int64_t origin_ns, struct jout *out)
{
    const struct model *model = &record->plan.model;
    const char *phase = phase_name((enum phase)event->phase);
    bool has_layer = event->layer >= 0 && (size_t)event->layer < model_layer_count(model);
    char label[FIGURE_TEXT_BYTES], name[2 * FIGURE_TEXT_BYTES];
    struct layer layer = {0};
    if (has_layer) {
        layer = model_layer(model, (size_t)event->layer);
        (void)snprintf(name, sizeof(name), "%s %s", figure_layer(layer, label), phase);
    }
    jout_begin_object(out, NULL);
    jout_string(out, "name", has_layer ? name : phase);
    jout_string(out, "cat", phase);
    jout_string(out, "ph", "X");
    jout_real(out, "ts", microseconds(event->start_ns - origin_ns));
    jout_real(out, "dur", microseconds(event->end_ns - event->start_ns));
    jout_int(out, "pid", event->rank);
    jout_int(out, "tid", event->stream);
    jout_begin_object(out, "args");
    jout_int(out, "step", event->step);
    if (has_layer) {
        jout_int(out, "layer", event->layer);
        jout_string(out, "kind", layer_kind_name(layer.kind));
    }
    jout_string(out, "phase", phase);
    jout_int(out, "micro_batch", event->micro_batch);
    jout_int(out, "bytes", (int64_t)event->live_bytes);
    jout_int(out, "waited_ns", event->waited_ns);
    jout_end(out);
    jout_end(out);
}

/* Only forward and backward change what is alive. */
static void write_live_bytes(const struct event *event, int64_t origin_ns, struct jout *out)
{
    if (event->phase != PHASE_FORWARD && event->phase != PHASE_BACKWARD)
        return;
    jout_begin_object(out, NULL);
    jout_string(out, "name", "live activations");
    jout_string(out, "ph", "C");
    jout_real(out, "ts", microseconds(event->end_ns - origin_ns));
    jout_int(out, "pid", event->rank);
    jout_begin_object(out, "args");
    jout_int(out, "bytes", (int64_t)event->live_bytes);
    jout_end(out);
    jout_end(out);
}

enum status chrome_write(const struct run_record *record, struct text *json, struct error *err)
{
    int64_t origin_ns = record->event_count > 0 ? record->events[0].start_ns : 0;
    struct jout *out = jout_new();
    jout_string(out, "displayTimeUnit", "ms");
    jout_begin_object(out, "otherData");
    jout_int(out, "run", record->info.id);
    jout_string(out, "model", record->plan.model.name);
    jout_string(out, "host", record->info.host);
    jout_string(out, "revision", record->info.revision);
    jout_end(out);
    jout_begin_array(out, "traceEvents");
    write_names(record, out);
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        write_work(record, event, origin_ns, out);
        write_live_bytes(event, origin_ns, out);
    }
    jout_end(out);
    return jout_finish(out, 0, json, err);
}
