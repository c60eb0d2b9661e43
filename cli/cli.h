/* The command line: what all commands share. Nobody below includes anything from here. */
#ifndef TEMPER_CLI_CLI_H
#define TEMPER_CLI_CLI_H

#include "base/error.h"
#include "base/json.h"
#include "base/options.h"
#include "base/reporter.h"
#include "ir/layer.h"
#include "ir/model.h"
#include "ir/quantity.h"
#include <stdbool.h>
#include <stdint.h>

/* A command: its table of options and its function, listed in main.c. */
struct command {
    const struct command_spec *spec;
    /* argv without the program's and the command's names. */
    enum status (*run)(int argc, char **argv, struct error *err);
};

extern const struct command command_model, command_profile, command_plan, command_run,
    command_report, command_sample, command_validate, command_bench;

/* "0.1.0 (git revision)". */
const char *temper_version(void);

/* ---- options that several commands have ---- */

struct model_arguments {
    const char *source;
    struct model_overrides sizes;
};

/* Rows for a struct that holds a `struct model_arguments model`. */
#define MODEL_OPTION_ROWS(owner)                                                                   \
    {.name = "model",                                                                              \
     .type = OPTION_STRING,                                                                        \
     .offset = offsetof(owner, model.source),                                                      \
     .metavar = "MODEL",                                                                           \
     .doc = "HF config.json, or a built-in: gpt2, gpt2-medium, gpt2-large, gpt2-xl, gpt3-175b, "   \
            "llama-2-7b, llama-3-8b, llama-3-70b, llama-3.1-405b, tinyllama-1.1b, mistral-7b, "    \
            "mixtral-8x7b, qwen2.5-7b, bert-base-uncased"},                                        \
        MODEL_SIZE_ROW(owner, "layers", layers, "transformer blocks (each attention + MLP)"),      \
        MODEL_SIZE_ROW(owner, "hidden", hidden, "width of the residual stream"),                   \
        MODEL_SIZE_ROW(owner, "heads", heads, "attention heads"),                                  \
        MODEL_SIZE_ROW(owner, "kv-heads", kv_heads, "key/value heads (grouped-query attention)"),  \
        MODEL_SIZE_ROW(owner, "ffn", ffn, "width of the MLP's inner layer"),                       \
        MODEL_SIZE_ROW(owner, "vocab-size", vocab_size, "tokens of the vocabulary"),               \
        MODEL_SIZE_ROW(owner, "positions", positions,                                              \
                       "longest sequence (rows of gpt2's positions)"),                             \
        MODEL_SIZE_ROW(owner, "seq-length", seq_length, "tokens of a training sequence")

#define MODEL_SIZE_ROW(owner, option, field, text)                                                 \
    {                                                                                              \
        .name = option, .type = OPTION_INT, .offset = offsetof(owner, model.sizes.field),          \
        .metavar = "N", .doc = text " (from the model)", .minimum = 1, .maximum = 1e9              \
    }

#define JSON_OPTION_ROW(owner)                                                                     \
    {                                                                                              \
        .name = "json", .type = OPTION_FLAG, .offset = offsetof(owner, json),                      \
        .doc = "print one JSON object on standard output and nothing else there"                   \
    }

/* Of the commands whose ranks compute side by side. */
#define NO_BIND_OPTION_ROW(owner)                                                                  \
    {                                                                                              \
        .name = "no-bind", .type = OPTION_FLAG, .offset = offsetof(owner, no_bind),                \
        .doc = "leave it to the system which cores a rank's threads run on; else ranks whose "     \
               "threads fill a host of several NUMA nodes or last-level caches get cores of "      \
               "their own"                                                                         \
    }

#define STORE_OPTION_ROW(owner)                                                                    \
    {                                                                                              \
        .name = "store", .type = OPTION_STRING, .offset = offsetof(owner, store),                  \
        .metavar = "FILE", .fallback = "temper.db",                                                \
        .doc = "SQLite file with profiles, plans and runs"                                         \
    }

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* --model is required; its absence is a usage error. */
enum status model_from_arguments(const struct model_arguments *arguments, struct model *out,
                                 struct error *err);

/* ---- output ---- */

/* Progress on a terminal (one rewritten line on stderr), warnings on stderr. */
struct reporter console_reporter(void);
/* End the progress line, if one is shown. */
void console_progress_end(void);
void console_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Warn when this host has fewer cores than `ranks` x `threads`. */
void warn_when_oversubscribed(int ranks, int threads);

/* The value under `key`; null when absent. */
void write_quantity(const char *key, const struct quantity *quantity, struct jout *out);
/* "energy_j" (null when absent) and "energy_provenance", as every command has them. */
void write_energy(const struct quantity *energy_j, struct jout *out);

/* Print a finished JSON document and a newline on stdout. Frees `out`. */
enum status console_json(struct jout *out, struct error *err);

/* "3,5,8" as up to `capacity` integers, ascending; an empty or wrong list is a usage error that
 * names the option. */
enum status parse_int_list(const char *text, const char *option, int64_t *out, size_t capacity,
                           size_t *count, struct error *err);

/* "fp32,bf16" of option --precision. */
enum status parse_precisions(const char *text, bool wanted[PRECISION_COUNT], struct error *err);

#endif
