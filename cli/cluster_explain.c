#include "cli/cluster_explain.h"

#include "base/units.h"
#include "cli/layout_rows.h"
#include <math.h>

static const double same_share = 1e-9;

/* ---- text ---- */

static void append_choice(const struct cluster_choice *choice, struct text *out)
{
    char here[LAYOUT_CHOICE_BYTES], there[LAYOUT_CHOICE_BYTES];
    char time[UNIT_TEXT_BYTES], memory[UNIT_TEXT_BYTES];
    text_printf(out, "  %-18s %-12s ", layout_choice_key(choice->choice),
                layout_choice_text(choice->choice, choice->value, here));
    if (!choice->is_compared) {
        text_append(out, "nothing else fits\n");
        return;
    }
    int64_t other = layout_choice_value(&choice->other, choice->choice);
    text_printf(out, "%-12s %8.2f %12s %12s  ", layout_choice_text(choice->choice, other, there),
                100 * choice->gain, format_seconds(choice->time_s, time),
                format_bytes(choice->memory_bytes, memory));
    layout_words(&choice->other, out);
    text_append(out, "\n");
}

static void append_memory(const struct cluster_memory *memory, struct text *out)
{
    char change[UNIT_TEXT_BYTES], time[UNIT_TEXT_BYTES];
    bool is_less = memory->more_bytes < 0;
    text_printf(out, "  %s %s a device", format_bytes(fabs(memory->more_bytes), change),
                is_less ? "less" : "more");
    if (!memory->fits)
        text_append(out, ": no layout fits\n");
    else if (fabs(memory->saving) < same_share)
        text_printf(out, " would %s nothing\n", is_less ? "cost" : "save");
    else
        text_printf(out, " would %s %.2f %%: %s a step\n", memory->saving < 0 ? "cost" : "save",
                    100 * fabs(memory->saving), format_seconds(memory->time_s, time));
}

void cluster_explain_text(const struct cluster_explanation *explanation, struct text *out)
{
    char seconds[UNIT_TEXT_BYTES];
    text_append(out, "\nwhat each choice gains over the best layout that chooses otherwise\n");
    text_printf(out, "  %-18s %-12s %-12s %8s %12s %12s  %s\n", "choice", "here", "next best",
                "gain %", "time", "memory", "which is");
    for (size_t i = 0; i < explanation->count; i++)
        append_choice(&explanation->choices[i], out);
    text_append(out, "\nwhat memory is worth\n");
    for (size_t i = 0; i < explanation->memory_count; i++)
        append_memory(&explanation->memory[i], out);
    if (explanation->is_stopped)
        text_append(out, "stopped: not everything was compared\n");
    text_printf(out, "explained by %zu searches, %s\n", explanation->searches,
                format_seconds(explanation->seconds, seconds));
}

/* ---- JSON ---- */

static void write_value(const char *key, enum layout_choice choice, int64_t value, struct jout *out)
{
    char text[LAYOUT_CHOICE_BYTES];
    if (layout_choice_names(choice) != NULL)
        jout_string(out, key, layout_choice_text(choice, value, text));
    else
        jout_int(out, key, value);
}

static void write_choice(const struct cluster_choice *choice, struct jout *out)
{
    jout_begin_object(out, NULL);
    jout_string(out, "choice", layout_choice_key(choice->choice));
    write_value("value", choice->choice, choice->value, out);
    jout_bool(out, "compared", choice->is_compared);
    if (choice->is_compared) {
        write_value("next_best", choice->choice,
                    layout_choice_value(&choice->other, choice->choice), out);
        jout_real(out, "gain", choice->gain);
        jout_real(out, "least_gain", choice->least_gain);
        jout_real(out, "time_s", choice->time_s);
        jout_real(out, "memory_bytes", choice->memory_bytes);
    }
    jout_end(out);
}

void cluster_explain_json(const struct cluster_explanation *explanation, struct jout *out)
{
    jout_begin_object(out, "explanation");
    jout_begin_array(out, "choices");
    for (size_t i = 0; i < explanation->count; i++)
        write_choice(&explanation->choices[i], out);
    jout_end(out);
    jout_begin_array(out, "memory");
    for (size_t i = 0; i < explanation->memory_count; i++) {
        const struct cluster_memory *memory = &explanation->memory[i];
        jout_begin_object(out, NULL);
        jout_real(out, "more_bytes", memory->more_bytes);
        jout_bool(out, "fits", memory->fits);
        if (memory->fits) {
            jout_real(out, "saving", memory->saving);
            jout_real(out, "time_s", memory->time_s);
        }
        jout_end(out);
    }
    jout_end(out);
    jout_bool(out, "stopped", explanation->is_stopped);
    jout_int(out, "searches", (int64_t)explanation->searches);
    jout_real(out, "seconds", explanation->seconds);
    jout_end(out);
}
