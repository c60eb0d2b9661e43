#include "ir/case_model.h"

#include <string.h>

/* merak/examples/language-modeling of ml-energy/zeus@38cb3f90: sizes in config.py, which changes
 * Hugging Face's gpt2, bert-large-uncased and bigscience/bloom-3b; tokens of a sequence in utils.py
 * (as many as the tokenizer takes, at most 1024); layers before the blocks in run_gpt.py,
 * run_bert.py and run_bloom.py. */
#define PERSEUS "ml-energy/zeus"

/* clang-format off */
static const struct case_model models[] = {
    /*  blocks hidden heads ffn    vocab   seq   embedding layers */
    {PERSEUS, "gpt3-xl", NULL, MODEL_GPT2,
        24,    2048,  16,   8192,  50257,  1024, 2, ELEMENTWISE_HF_GPT2, false},
    {PERSEUS, "bert-huge-uncased", NULL, MODEL_GPT2,
        24,    2048,  16,   8192,  30522,  512,  1, ELEMENTWISE_HF_BERT, true},
    {PERSEUS, "bloom-3b", NULL, MODEL_GPT2,
        30,    2560,  32,   10240, 250880, 1024, 1, ELEMENTWISE_HF_BLOOM, false},
    {.source = PERSEUS, .name = "t5-3b",
     .unlike = "it has an encoder and a decoder, whose blocks differ"},
    {.source = PERSEUS, .name = "wide-resnet101_8", .unlike = "it is a convolutional network"},
};
/* clang-format on */

const struct case_model *case_model_find(const char *source, const char *name)
{
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
        if (strncmp(source, models[i].source, strlen(models[i].source)) == 0 &&
            strcmp(name, models[i].name) == 0)
            return &models[i];
    return NULL;
}
