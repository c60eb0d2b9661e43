#include "ir/case_system.h"

#include <string.h>

/* One row a system; docs/validate.md says where each value is from. */
static const struct case_system systems[] = {
    /* Megatron-LM of 2022 (Korthikanti et al.): attention unfused, no overlap but of the p2p. */
    {.source = "calculon-ai/calculon",
     .framework = FRAMEWORK_MEGATRON,
     .sequence_parallel = SYSTEM_UNSTATED,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* NeMo on Megatron-Core and TransformerEngine: all overlaps on, distributed Adam, whose
     * gradients are in bf16 (grad_sync_dtype of the repository's hydra files). */
    {.source = "NVIDIA/dgxc-benchmarking",
     .framework = FRAMEWORK_MEGATRON,
     .fused_attention = true,
     .gradients_16_bit = true,
     .overlap_gradients = true,
     .overlap_parameters = true,
     .overlap_tensor = true,
     .sequence_parallel = SYSTEM_UNSTATED,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* Megatron-DeepSpeed on Jean Zay, whose nodes have four Omni-Path adapters of 100 Gb/s (Le Scao
     * et al. 2022, "Hardware"). What its chronicles do not call bf16 they say was in fp16. */
    {.source = "bigscience-workshop/bigscience",
     .framework = FRAMEWORK_DEEPSPEED,
     .network = "opa-4x100",
     .sequence_parallel = 0,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = ARITHMETIC_FP16},
    /* The same software in one node, data parallelism without ZeRO. */
    {.source = "VIA-Research/vTrain",
     .framework = FRAMEWORK_DEEPSPEED,
     .sequence_parallel = 0,
     .zero_stage = 0,
     .arithmetic = ARITHMETIC_FP16},
    /* Composer's FSDP with Triton's FlashAttention and the fused cross entropy of flash-attn. */
    {.source = "mosaicml/llm-foundry",
     .framework = FRAMEWORK_FSDP,
     .fused_attention = true,
     .fused_cross_entropy = true,
     .overlap_gradients = true,
     .overlap_parameters = true,
     .sequence_parallel = 0,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* torchtitan as below; since April 2025 it also compiles the loss (its pull request 1033). */
    {.source = "pytorch/torchtitan@b5bcd76c:benchmarks/llama3-8b_h200_202506",
     .framework = FRAMEWORK_FSDP,
     .fused_attention = true,
     .fused_cross_entropy = true,
     .overlap_gradients = true,
     .overlap_parameters = true,
     .sequence_parallel = 1,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* FSDP2, scaled_dot_product_attention; its tensor parallelism splits the sequence. */
    {.source = "pytorch/torchtitan",
     .framework = FRAMEWORK_FSDP,
     .fused_attention = true,
     .overlap_gradients = true,
     .overlap_parameters = true,
     .sequence_parallel = 1,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* Megatron-Core and TransformerEngine, launched with every overlap off. */
    {.source = "MooreThreads/SimuMax",
     .framework = FRAMEWORK_MEGATRON,
     .fused_attention = true,
     .fused_cross_entropy = true,
     .sequence_parallel = SYSTEM_UNSTATED,
     .zero_stage = SYSTEM_UNSTATED,
     .arithmetic = SYSTEM_UNSTATED},
    /* Merak's pipeline, made from DeepSpeed's, under Hugging Face's models in PyTorch 1.10.1:
     * weights in fp32, products in TF32, which that version switches on; every block recomputed
     * (merak_args.py). Each series of plans begins with two at full clocks (its README). */
    {.source = "ml-energy/zeus",
     .framework = FRAMEWORK_DEEPSPEED,
     .sequence_parallel = 0,
     .zero_stage = 0,
     .arithmetic = ARITHMETIC_TF32,
     .context_parallel = 1,
     .virtual_stages = 1,
     .recomputes_all = true,
     .full_clock_plans = 2},
};

const struct case_system *case_system_find(const char *source)
{
    for (size_t i = 0; i < sizeof(systems) / sizeof(systems[0]); i++)
        if (strncmp(source, systems[i].source, strlen(systems[i].source)) == 0)
            return &systems[i];
    return NULL;
}

static bool says(const char *notes, const char *words)
{
    return strcasestr(notes, words) != NULL;
}

struct case_system case_system_of(enum framework framework)
{
    /* PyTorch's FSDP always prefetches, and reduces while the backward pass goes on. */
    bool overlaps = framework == FRAMEWORK_FSDP;
    return (struct case_system){
        .framework = framework,
        .overlap_gradients = overlaps,
        .overlap_parameters = overlaps,
        .sequence_parallel = SYSTEM_UNSTATED,
        .zero_stage = SYSTEM_UNSTATED,
        .arithmetic = SYSTEM_UNSTATED,
    };
}

bool case_system_from_words(const char *words, struct case_system *out)
{
    enum framework framework;
    /* DeepSpeed first: "Megatron-DeepSpeed" is its memory. */
    if (says(words, "deepspeed"))
        framework = FRAMEWORK_DEEPSPEED;
    else if (says(words, "megatron") || says(words, "nemo"))
        framework = FRAMEWORK_MEGATRON;
    else if (says(words, "fsdp") || says(words, "torchtitan"))
        framework = FRAMEWORK_FSDP;
    else
        return false;
    *out = case_system_of(framework);
    return true;
}

void case_system_refine(struct case_system *system, const char *notes)
{
    if (says(notes, "fused attention") || says(notes, "flash attention") ||
        says(notes, "flashattention"))
        system->fused_attention = true;
    if (says(notes, "no fused attention") || says(notes, "unfused attention"))
        system->fused_attention = false;
    if (says(notes, "fused cross-entropy") || says(notes, "fused cross entropy"))
        system->fused_cross_entropy = true;
    if (says(notes, "async TP") || says(notes, "asyncTP"))
        system->overlap_tensor = true;
    if (system->zero_stage == SYSTEM_UNSTATED &&
        (says(notes, "distributed Adam") || says(notes, "distributed optimizer")))
        system->zero_stage = 1;
}
