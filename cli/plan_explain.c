#include "cli/plan_explain.h"
#include "base/units.h"
#include "cli/plan_tell.h"

#include <math.h>
#include <stdio.h>

/* By enum choice_state: for scripts, and for readers. */
static const struct {
    const char *name, *words;
} states[] = {
    [CHOICE_COMPARED] = {"compared", ""},
    [CHOICE_PINNED] = {"pinned", "pinned"},
    [CHOICE_ONLY] = {"only", "nothing else is measured or possible"},
    [CHOICE_TOO_BIG] = {"too_big", "nothing else fits into the memory cap"},
    [CHOICE_UNKNOWN] = {"unknown", "stopped before it was compared"},
};

/* ---- text ---- */

static void append_choice(const struct explained_choice *choice, struct text *out)
{
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES], proven[16];
    text_printf(out, "  %-30s %-28s ", choice->name, choice->value);
    if (choice->state != CHOICE_COMPARED) {
        text_printf(out, "%s\n", states[choice->state].words);
        return;
    }
    (void)snprintf(proven, sizeof(proven), "%.2f", 100 * fmax(choice->least_gain, 0));
    text_printf(out, "%-14s %8.2f %8s  %10s  %12s\n", choice->other, 100 * choice->gain,
                choice->least_gain >= choice->gain - 1e-9 ? "all" : proven,
                format_seconds(choice->time_s, time), format_bytes(choice->memory_bytes, memory));
}

static void append_choices(const struct explanation *explanation, struct text *out)
{
    bool has_better = false;
    char memory[PERCENTILE_BYTES];
    text_printf(
        out,
        "\nwhat each choice gains over the best plan that chooses otherwise\n"
        "  choice                         here                         next best       gain "
        "%%  proven        time  %12s\n",
        plan_percentile_head(explanation->risk, memory));
    for (size_t i = 0; i < explanation->count; i++) {
        const struct explained_choice *choice = &explanation->choices[i];
        append_choice(choice, out);
        has_better |= choice->state == CHOICE_COMPARED && choice->gain < -1e-9;
    }
    text_append(out, "gain: share of the objective that the next best costs more; everything else "
                     "may differ in it, too\n"
                     "proven: how much of the gain is certain; the rest is a search that left a "
                     "gap\n"
                     "of a kind of layers, the next best has all of them alike\n");
    if (has_better)
        text_append(out, "a gain below 0: the search had left a gap, and this found a better "
                         "plan; pin it, or search longer\n");
}

static void append_memory_row(const struct explanation *explanation,
                              const struct explained_memory *memory, struct text *out)
{
    char change[UNIT_TEXT_BYTES], cap[UNIT_TEXT_BYTES];
    char time[UNIT_TEXT_BYTES], needs[UNIT_TEXT_BYTES];
    double more_bytes = memory->cap_bytes - explanation->from_bytes;
    const char *verb = memory->saving < 0 ? "would cost" : "would save";
    if (isinf(memory->cap_bytes))
        text_append(out, "  no cap at all");
    else
        text_printf(out, "  %s %s a rank (%s)", format_bytes(fabs(more_bytes), change),
                    more_bytes < 0 ? "less" : "more", format_bytes(memory->cap_bytes, cap));
    if (!memory->fits)
        text_append(out, ": no plan fits\n");
    else if (fabs(memory->saving) < 1e-9)
        text_printf(out, " %s nothing\n", more_bytes < 0 ? "would cost" : "would save");
    else
        text_printf(out, " %s %.2f %%: %s a step, %s a rank\n", verb, 100 * fabs(memory->saving),
                    format_seconds(memory->time_s, time),
                    format_bytes(memory->memory_bytes, needs));
}

static void append_memory(const struct explanation *explanation, struct text *out)
{
    char needs[UNIT_TEXT_BYTES];
    text_printf(out, "\nmemory: the plan needs %s a rank, in all but %g %% of runs; ",
                format_bytes(explanation->memory_bytes, needs), 100 * explanation->risk);
    text_append(out, !explanation->has_cap     ? "there is no cap, so none binds"
                     : explanation->cap_binds  ? "the cap binds"
                     : explanation->is_stopped ? "not searched to the end"
                                               : "the cap does not bind");
    text_append(out, "\n");
    for (size_t i = 0; i < explanation->memory_count; i++)
        append_memory_row(explanation, &explanation->memory[i], out);
}

void plan_explain_text(const struct explanation *explanation, struct text *out)
{
    char seconds[UNIT_TEXT_BYTES];
    append_choices(explanation, out);
    append_memory(explanation, out);
    if (explanation->is_stopped)
        text_append(out, "stopped: not everything was compared\n");
    text_printf(out, "explained by %zu searches, %s\n", explanation->searches,
                format_seconds(explanation->seconds, seconds));
}

/* ---- JSON ---- */

static void choice_json(const struct explained_choice *choice, struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_string(out, "choice", choice->name);
    jout_string(out, "value", choice->value);
    jout_string(out, "state", states[choice->state].name);
    if (choice->state == CHOICE_COMPARED) {
        jout_string(out, "next_best", choice->other);
        jout_real(out, "gain", choice->gain);
        jout_real(out, "least_gain", choice->least_gain);
        jout_real(out, "time_s", choice->time_s);
        jout_real(out, "memory_p95_bytes", choice->memory_p95_bytes);
        jout_real(out, "memory_held_bytes", choice->memory_bytes);
        jout_real(out, "energy_j", choice->energy_j);
    }
    jout_end(out);
}

static void memory_json(const struct explained_memory *memory, struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_real(out, "cap_bytes", memory->cap_bytes); /* none: null */
    jout_bool(out, "fits", memory->fits);
    if (memory->fits) {
        jout_real(out, "saving", memory->saving);
        jout_real(out, "most_saving", memory->most_saving);
        jout_real(out, "time_s", memory->time_s);
        jout_real(out, "memory_p95_bytes", memory->memory_p95_bytes);
        jout_real(out, "memory_held_bytes", memory->memory_bytes);
    }
    jout_end(out);
}

void plan_explain_json(const struct explanation *explanation, struct jout *out)
{
    jout_begin_object(out, "explanation");
    jout_begin_array(out, "choices");
    for (size_t i = 0; i < explanation->count; i++)
        choice_json(&explanation->choices[i], out);
    jout_end(out);
    jout_bool(out, "has_cap", explanation->has_cap);
    jout_bool(out, "cap_binds", explanation->cap_binds);
    jout_real(out, "risk", explanation->risk);
    jout_real(out, "memory_p95_bytes", explanation->memory_p95_bytes);
    jout_real(out, "memory_held_bytes", explanation->memory_bytes);
    jout_real(out, "from_bytes", explanation->from_bytes);
    jout_begin_array(out, "memory");
    for (size_t i = 0; i < explanation->memory_count; i++)
        memory_json(&explanation->memory[i], out);
    jout_end(out);
    jout_bool(out, "stopped", explanation->is_stopped);
    jout_int(out, "searches", (int64_t)explanation->searches);
    jout_real(out, "seconds", explanation->seconds);
    jout_end(out);
}
