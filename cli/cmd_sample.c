#include "base/host.h"
#include "cli/cli.h"
#include "executor/checkpoint.h"
#include "executor/ops/device.h"
#include "executor/sampler.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sample_options {
    const char *load;
    const char *prompt;
    int64_t tokens;
    double temperature;
    int64_t top_k;
    int64_t seed;
    int64_t threads;
    bool json;
};

static const struct option_spec rows[] = {
    {.name = "load",
     .type = OPTION_STRING,
     .offset = offsetof(struct sample_options, load),
     .metavar = "PATH",
     .doc = "checkpoint, or a folder of them (required)"},
    {.name = "prompt",
     .type = OPTION_STRING,
     .offset = offsetof(struct sample_options, prompt),
     .metavar = "TEXT",
     .fallback = "\n",
     .doc = "text to go on from"},
    {.name = "tokens",
     .type = OPTION_INT,
     .offset = offsetof(struct sample_options, tokens),
     .metavar = "N",
     .fallback = "300",
     .doc = "tokens to write",
     .minimum = 1,
     .maximum = 1e7},
    {.name = "temperature",
     .type = OPTION_REAL,
     .offset = offsetof(struct sample_options, temperature),
     .metavar = "X",
     .fallback = "0.8",
     .doc = "below 1 prefers likely tokens; 0 takes the most likely one",
     .minimum = 0,
     .maximum = 100},
    {.name = "top-k",
     .type = OPTION_INT,
     .offset = offsetof(struct sample_options, top_k),
     .metavar = "N",
     .fallback = "0",
     .doc = "draw from the N most likely tokens; 0 from all",
     .minimum = 0,
     .maximum = 1e9},
    {.name = "seed",
     .type = OPTION_INT,
     .offset = offsetof(struct sample_options, seed),
     .metavar = "N",
     .fallback = "1337",
     .doc = "seed of the draws",
     .minimum = 0,
     .maximum = 9e15},
    {.name = "threads",
     .type = OPTION_INT,
     .offset = offsetof(struct sample_options, threads),
     .metavar = "N",
     .doc = "compute threads (all cores)",
     .minimum = 1,
     .maximum = 4096},
    JSON_OPTION_ROW(struct sample_options),
};
static const struct option_table groups[] = {
    {.rows = rows, .count = COUNT_OF(rows), .heading = "Options"},
};
static const struct command_spec spec = {
    .name = "sample",
    .summary = "write text from a checkpoint",
    .synopsis = "--load PATH [options]",
    .description =
        "Draws one token after the other from the model of a checkpoint. Tokens are bytes, as "
        "`temper run` reads text; for a vocabulary of more than 256 tokens the token numbers are "
        "printed, since temper has no tokenizer.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper sample --load ckpt --prompt \"ROMEO:\" --tokens 400",
};

static bool is_bytes(const struct model *model)
{
    return model->vocab <= 256;
}

static void print_token(const struct model *model, int32_t token)
{
    if (is_bytes(model))
        putchar((int)token);
    else
        printf("%d ", token);
    fflush(stdout);
}

/* JSON strings are Unicode: bytes stand for the code points of the same number. */
static void append_token(const struct model *model, int32_t token, struct text *out)
{
    if (!is_bytes(model))
        text_printf(out, "%d ", token);
    else if (token < 0x80)
        text_printf(out, "%c", (int)token);
    else
        text_printf(out, "%c%c", 0xc0 | (int)(token >> 6), 0x80 | (int)(token & 0x3f));
}

static enum status write_json(const struct sample_options *options, const struct model *model,
                              const int32_t *tokens, int64_t count, struct error *err)
{
    struct text text = {0};
    int64_t first = (int64_t)strlen(options->prompt);
    for (int64_t i = first; i < count; i++)
        append_token(model, tokens[i], &text);
    enum status status = text_check(&text, err);
    if (status == STATUS_OK) {
        struct jout *out = jout_new();
        jout_string(out, "prompt", options->prompt);
        jout_string(out, "text", text.data);
        jout_begin_array(out, "tokens");
        for (int64_t i = first; i < count; i++)
            jout_int(out, NULL, tokens[i]);
        jout_end(out);
        status = console_json(out, err);
    }
    text_free(&text);
    return status;
}

static enum status write_tokens(const struct sample_options *options, struct sampler *sampler,
                                const struct model *model, int32_t *tokens, struct error *err)
{
    int64_t count = (int64_t)strlen(options->prompt);
    for (int64_t i = 0; i < count; i++)
        tokens[i] = (unsigned char)options->prompt[i];
    if (!options->json && is_bytes(model))
        fputs(options->prompt, stdout);
    for (int64_t i = 0; i < options->tokens; i++, count++) {
        TRY(sampler_next(sampler, tokens, count, &tokens[count], err));
        if (!options->json)
            print_token(model, tokens[count]);
    }
    if (options->json)
        return write_json(options, model, tokens, count, err);
    putchar('\n');
    return STATUS_OK;
}

static enum status check_prompt(const struct sample_options *options, const struct model *model,
                                struct error *err)
{
    if (options->prompt[0] == '\0')
        return error_set(err, STATUS_USAGE, "--prompt is empty: give at least one character");
    for (const char *at = options->prompt; *at != '\0'; at++)
        if ((unsigned char)*at >= model->vocab)
            return error_set(err, STATUS_USAGE,
                             "--prompt: byte %d is outside the model's vocabulary of %lld tokens",
                             (unsigned char)*at, (long long)model->vocab);
    return STATUS_OK;
}

static enum status sample(const struct sample_options *options, const struct model *model,
                          const char *resolved, struct device *device, struct error *err)
{
    struct sampler *sampler = NULL;
    struct sampler_options drawing = {.temperature = options->temperature,
                                      .top_k = options->top_k,
                                      .seed = (uint64_t)options->seed};
    TRY(check_prompt(options, model, err));
    size_t capacity = strlen(options->prompt) + (size_t)options->tokens;
    int32_t *tokens = calloc(capacity, sizeof *tokens);
    if (tokens == NULL)
        return error_memory(err, capacity * sizeof *tokens, "the tokens");
    enum status status = sampler_open(&sampler, resolved, model, device, &drawing, err);
    if (status == STATUS_OK)
        status = write_tokens(options, sampler, model, tokens, err);
    sampler_close(sampler);
    free(tokens);
    return status;
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct sample_options options = {0};
    struct positionals positionals = {0};
    struct model model;
    struct device *device = NULL;
    struct host_info host;
    char resolved[4096];
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    if (options.load == NULL)
        return error_set(err, STATUS_USAGE,
                         "--load is missing: a checkpoint that `temper run --save` wrote");
    TRY(checkpoint_model(options.load, &model, resolved, sizeof resolved, err));
    host_query(&host);
    int threads = options.threads > 0 ? (int)options.threads : host.cores;
    TRY(device_open(&device, threads, err));
    enum status status = sample(&options, &model, resolved, device, err);
    device_close(device);
    return status;
}

const struct command command_sample = {.spec = &spec, .run = run};
