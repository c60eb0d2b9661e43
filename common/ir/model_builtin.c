/* The built-in models. Sizes: Radford et al. 2019 (GPT-2), Brown et al. 2020 with the vocabulary
 * padded as Narayanan et al. 2021 train it (GPT-3), Touvron et al. 2023, Dubey et al. 2024 (Llama),
 * Zhang et al. 2024 (TinyLlama), Jiang et al. 2023 (Mistral) and 2024 (Mixtral), Qwen Team 2024
 * (Qwen2.5), Devlin et al. 2019 (BERT). */
#include "ir/model_source.h"

#include <string.h>

/* clang-format off */
#define GPT2(name_, blocks_, hidden_, heads_, vocab_, positions_)                                  \
    {.name = name_, .family = MODEL_GPT2, .blocks = blocks_, .hidden = hidden_, .heads = heads_,   \
     .kv_heads = heads_, .head_dim = (hidden_) / (heads_), .ffn = 4 * (hidden_), .vocab = vocab_,  \
     .positions = positions_, .norm_epsilon = 1e-5, .tied_head = true}
#define LLAMA_FIELDS(name_, blocks_, hidden_, heads_, kv_heads_, ffn_, vocab_, positions_,         \
                     window_, theta_)                                                              \
    .name = name_, .family = MODEL_LLAMA, .blocks = blocks_, .hidden = hidden_, .heads = heads_,   \
    .kv_heads = kv_heads_, .head_dim = (hidden_) / (heads_), .ffn = ffn_, .vocab = vocab_,         \
    .positions = positions_, .sliding_window = window_, .rope_theta = theta_
#define LLAMA(...) {LLAMA_FIELDS(__VA_ARGS__), .norm_epsilon = 1e-5}

static const struct model builtins[] = {
    /*    name              blocks hidden heads vocab  positions */
    GPT2("gpt2",            12,    768,   12,   50257, 1024),
    GPT2("gpt2-medium",     24,    1024,  16,   50257, 1024),
    GPT2("gpt2-large",      36,    1280,  20,   50257, 1024),
    GPT2("gpt2-xl",         48,    1600,  25,   50257, 1024),
    GPT2("gpt3-175b",       96,    12288, 96,   51200, 2048),
    /*    name              blocks hidden heads kv  ffn    vocab   positions window theta */
    LLAMA("llama-2-7b",     32,    4096,  32,   32, 11008, 32000,  4096,     0,     1e4),
    LLAMA("llama-3-8b",     32,    4096,  32,   8,  14336, 128256, 8192,     0,     5e5),
    LLAMA("llama-3-70b",    80,    8192,  64,   8,  28672, 128256, 8192,     0,     5e5),
    LLAMA("llama-3.1-405b", 126,   16384, 128,  8,  53248, 128256, 131072,   0,     5e5),
    LLAMA("tinyllama-1.1b", 22,    2048,  32,   4,  5632,  32000,  2048,     0,     1e4),
    LLAMA("mistral-7b",     32,    4096,  32,   8,  14336, 32000,  32768,    4096,  1e4),
    {LLAMA_FIELDS("mixtral-8x7b", 32, 4096, 32, 8, 14336, 32000, 32768, 0, 1e6),
     .norm_epsilon = 1e-5, .experts = 8, .experts_per_token = 2, .expert_ffn = 14336,
     .moe_every = 1},
    {LLAMA_FIELDS("qwen2.5-7b", 28, 3584, 28, 4, 18944, 152064, 131072, 0, 1e6),
     .norm_epsilon = 1e-6, .qkv_bias = true},
    {.name = "bert-base-uncased", .family = MODEL_GPT2, .blocks = 12, .hidden = 768, .heads = 12,
     .kv_heads = 12, .head_dim = 64, .ffn = 3072, .vocab = 30522, .positions = 512,
     .norm_epsilon = 1e-12, .tied_head = true, .bidirectional = true, .segments = 2},
};
/* clang-format on */

size_t model_builtin_count(void)
{
    return sizeof(builtins) / sizeof(builtins[0]);
}

const char *model_builtin_name(size_t index)
{
    return builtins[index].name;
}

const struct model *model_builtin_find(const char *name)
{
    for (size_t i = 0; i < model_builtin_count(); i++) {
        if (strcmp(builtins[i].name, name) == 0)
            return &builtins[i];
    }
    return NULL;
}

void model_builtin_names(struct text *out)
{
    for (size_t i = 0; i < model_builtin_count(); i++)
        text_printf(out, "%s%s", i > 0 ? ", " : "", builtins[i].name);
}
