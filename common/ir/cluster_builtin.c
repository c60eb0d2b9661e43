/* The built-in devices, in the nodes that they usually come in.
 *
 * Peaks, memory rates, power limits: the vendors' data sheets, dense. Memory: what the driver tells
 * a process that it has (the "total capacity" of PyTorch's out-of-memory messages), which is up to
 * 2 % less than the sheet's. Idle power: the median of published nvidia-smi and rocm-smi listings
 * of such devices with nothing allocated; a device that waits for others in a kernel draws more.
 * Latency of one message: within what NCCL's tuning tables assume for a ring's hop, by protocol:
 * NVLink 0.5 to 3.4 us, PCIe 1.0 to 5.7 us, network 2.7 to 9.6 us (NCCL 01afd20, tuning.cc). */
#include "ir/cluster_source.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */

/* ---- how much of a peak is reached: one set of curves for each type of GPU ---- */

/* A100, H100, its 500 W variant and B200 are fitted to one half of published runs each
 * (docs/layout-model.md). Sizes that no such run has, and V100, A40 and MI300X, are estimates. The
 * A100's cards have the module's curves, but where large products are held back by the limit of
 * power: cards reach 0.83 of modules of 400 W (107 of 131 TFLOP/s in TF32, 220 of 263 in fp16:
 * artifact description of Fire-Flyer AI-HPC, An et al., SC 2024), taken to be those of 40 GB and
 * 250 W; 0.89 at 300 W lies between in the logarithm. */

enum gpu { GPU_V100, GPU_A100, GPU_A100_300W, GPU_A100_250W, GPU_A40, GPU_H100, GPU_H100_500W,
           GPU_B200, GPU_MI300X, GPU_COUNT };

enum { BUILTIN_POINTS = 5 };

static const struct {
    double size[BUILTIN_POINTS];
    double share[GPU_COUNT][BUILTIN_POINTS];
} curves[OPERATION_COUNT] = {
    [OPERATION_MATMUL] = {    /* size: FLOPs of one product */
        .size =               {1e8,  1e9,  1e10, 1e11, 1e12},
        .share = {
            [GPU_V100]      = {0.15, 0.40, 0.60, 0.70, 0.75},
            [GPU_A100]      = {0.15, 0.40, 0.43, 0.70, 0.73},
            [GPU_A100_300W] = {0.15, 0.40, 0.38, 0.62, 0.65},
            [GPU_A100_250W] = {0.15, 0.40, 0.36, 0.58, 0.61},
            [GPU_A40]       = {0.20, 0.45, 0.60, 0.68, 0.70},
            [GPU_H100]      = {0.07, 0.30, 0.59, 0.62, 0.62},
            [GPU_H100_500W] = {0.07, 0.15, 0.26, 0.27, 0.57},
            [GPU_B200]      = {0.04, 0.08, 0.14, 0.16, 0.48},
            [GPU_MI300X]    = {0.04, 0.16, 0.36, 0.47, 0.51},
        }},
    [OPERATION_ATTENTION] = { /* size: FLOPs of one call */
        .size =               {1e8,  1e9,  1e10, 1e11, 1e12},
        .share = {
            [GPU_V100]      = {0.03, 0.10, 0.20, 0.25, 0.28},
            [GPU_A100]      = {0.05, 0.15, 0.19, 0.32, 0.59},
            [GPU_A100_300W] = {0.05, 0.15, 0.17, 0.28, 0.53},
            [GPU_A100_250W] = {0.05, 0.15, 0.16, 0.27, 0.49},
            [GPU_A40]       = {0.08, 0.25, 0.42, 0.50, 0.55},
            [GPU_H100]      = {0.03, 0.12, 0.41, 0.41, 0.41},
            [GPU_H100_500W] = {0.03, 0.12, 0.20, 0.21, 0.36},
            [GPU_B200]      = {0.02, 0.12, 0.25, 0.25, 0.29},
            [GPU_MI300X]    = {0.02, 0.06, 0.18, 0.28, 0.33},
        }},
    [OPERATION_MEMORY] = {    /* size: bytes moved */
        .size =               {1e5,  1e6,  1e7,  1e8,  1e9},
        .share = {
            [GPU_V100]      = {0.10, 0.40, 0.72, 0.86, 0.90},
            [GPU_A100]      = {0.08, 0.15, 0.18, 0.75, 0.77},
            [GPU_A100_300W] = {0.08, 0.15, 0.18, 0.75, 0.77},
            [GPU_A100_250W] = {0.08, 0.15, 0.18, 0.75, 0.77},
            [GPU_A40]       = {0.15, 0.45, 0.75, 0.85, 0.88},
            [GPU_H100]      = {0.06, 0.28, 0.70, 0.70, 0.70},
            [GPU_H100_500W] = {0.08, 0.32, 0.52, 0.53, 0.74},
            [GPU_B200]      = {0.03, 0.16, 0.41, 0.42, 0.45},
            [GPU_MI300X]    = {0.04, 0.18, 0.50, 0.72, 0.80},
        }},
};

/* ---- links within a node, and the kinds of network between nodes ---- */

enum link { LINK_NVLINK_2, LINK_NVLINK_3, LINK_NVLINK_4, LINK_NVLINK_5, LINK_PCIE_4, LINK_XGMI, LINK_COUNT };

#define GB 1e9
static const struct link_tier links[LINK_COUNT] = {
    [LINK_NVLINK_2] = {.name = "nvlink", .latency_s = 3e-6, .bytes_s = 150 * GB, .share = 0.80,
        .source = "6 NVLink 2 links of 25 GB/s each way: ml-engineering network/README.md"},
    [LINK_NVLINK_3] = {.name = "nvlink", .latency_s = 3e-6, .bytes_s = 300 * GB, .share = 0.58,
        .source = "12 NVLink 3 links of 25 GB/s each way: ml-engineering network/README.md; share: "
                  "fitted (docs/layout-model.md)"},
    [LINK_NVLINK_4] = {.name = "nvlink", .latency_s = 3e-6, .bytes_s = 450 * GB, .share = 0.62,
        .source = "18 NVLink 4 links of 25 GB/s each way: ml-engineering network/README.md; "
                  "share: fitted (docs/layout-model.md)"},
    [LINK_NVLINK_5] = {.name = "nvlink", .latency_s = 3e-6, .bytes_s = 900 * GB, .share = 0.75,
        .source = "18 NVLink 5 links of 50 GB/s each way: ml-engineering network/README.md; "
                  "share: fitted (docs/layout-model.md)"},
    [LINK_PCIE_4]   = {.name = "pcie", .latency_s = 5e-6, .bytes_s = 32 * GB, .share = 0.65,
        .source = "PCIe 4 x16, 32 GB/s each way before encoding: PCI-SIG"},
    [LINK_XGMI]     = {.name = "xgmi", .latency_s = 3e-6, .bytes_s = 448 * GB, .share = 0.70,
        .source = "7 XGMI links of 64 GB/s each way, one to each neighbour: ml-engineering README"},
};

static const struct network {
    const char *kind, *name;
    double latency_s, share;
} networks[] = {
    {"ib",   "infiniband", 5e-6,  0.72},
    {"roce", "roce",       6e-6,  0.90},
    {"opa",  "omni-path",  6e-6,  0.40},
    {"eth",  "ethernet",   25e-6, 0.60},
};

/* ---- devices ---- */

#define TFLOPS 1e12
#define MIB 1048576
#define V100_PEAKS {[ARITHMETIC_FP32] = 15.7 * TFLOPS, [ARITHMETIC_FP16] = 125 * TFLOPS}
#define A100_PEAKS {[ARITHMETIC_FP32] = 19.5 * TFLOPS, [ARITHMETIC_TF32] = 156 * TFLOPS,           \
                    [ARITHMETIC_BF16] = 312 * TFLOPS, [ARITHMETIC_FP16] = 312 * TFLOPS}
#define H100_PEAKS {[ARITHMETIC_FP32] = 67 * TFLOPS, [ARITHMETIC_TF32] = 494.5 * TFLOPS,           \
                    [ARITHMETIC_BF16] = 989 * TFLOPS, [ARITHMETIC_FP16] = 989 * TFLOPS,            \
                    [ARITHMETIC_FP8] = 1979 * TFLOPS}

/* Watts of passes through stages of GPT-3 and BLOOM without a head, the mean of the four kinds, in
 * ml-energy/zeus@38cb3f90, sosp24_data/emulation/stage_profile. A100: a module at its full 1410 MHz,
 * which nothing held back. A40: 247 W at 1320 MHz, where the limit does not bind yet, taken to its
 * full 1740 MHz with the power of 2.4 that the A100's watts above idle rise with from 1095 MHz on. */
#define A100_UNLIMITED_W 472
#define A40_UNLIMITED_W 454

/* Hosts, a device's share of each. Links: pinned copies reach 12 GB/s over PCIe 3 x16 and 25 over
 * PCIe 4 (ZaidQureshi/bam issue 54), 52.8 over PCIe 5 (NVIDIA/nvbandwidth issue 24: eight H100); two
 * devices share a switch's way to the processor in DGX-1 and DGX A100, none in DGX H100 and later,
 * whose devices have the lanes of their adapters. NVLink-C2C: 900 GB/s of a Grace, both directions,
 * for two devices; its memory has less, 14 TB/s of 72 devices (NVIDIA GB200 NVL72 data sheet).
 * Memory: channels of the system's data sheet times 0.46, which is what DeepSpeed's CPU Adam reaches
 * (ZeRO-Offload, Ren et al. 2021, table 4: 1e10 parameters of 30 bytes in 2.57 s on 12 channels of
 * DDR4-2666). Sizes: data sheets, the least that each is sold with. Cards and MI300X stand in hosts
 * of many kinds: none is given. */
#define CPU_ADAM 0.46
#define HOST(link_, memory_, bytes_) .host_bytes_s = (link_) * GB,                                 \
    .host_memory_bytes_s = CPU_ADAM * (memory_) * GB, .host_memory_bytes = (bytes_)
#define GIB UINT64_C(1073741824)
#define HOST_DGX_1       HOST(6, 8 * 17.06 / 8, 64 * GIB)     /* 8 channels of DDR4-2133 */
#define HOST_DGX_A100_40 HOST(12.5, 16 * 25.6 / 8, 128 * GIB) /* 16 of DDR4-3200 */
#define HOST_DGX_A100    HOST(12.5, 16 * 25.6 / 8, 256 * GIB)
#define HOST_DGX_H100    HOST(52.8, 16 * 38.4 / 8, 256 * GIB) /* 16 of DDR5-4800 */
#define HOST_DGX_B200    HOST(52.8, 16 * 44.8 / 8, 256 * GIB) /* 16 of DDR5-5600 */
#define HOST_NVL72       HOST(14000.0 / 72, 14000.0 / 72, UINT64_C(236111111111))

#define ML_ENGINEERING "ml-engineering 744d01e1, compute/accelerator/README.md"

static const struct builtin {
    const char *word, *other_word; /* in published names, lower case; other_word may be NULL */
    int gigabytes[2];              /* that published names say; 0: none */
    bool is_card;                  /* PCIe */
    enum gpu gpu;
    enum link link;
    int64_t node_devices;
    int64_t domain_devices;        /* that `link` joins at most: more than a node's in NVL72 */
    const char *network;           /* as cluster_set_network takes it */
    const char *system;            /* whose network that is */
    struct device_type device;     /* without curves, prices */
} builtins[] = {
    {.word = "v100", .gigabytes = {16}, .gpu = GPU_V100, .link = LINK_NVLINK_2, .node_devices = 8,
     .domain_devices = 8, .network = "ib-4x100", .system = "NVIDIA DGX-1",
     .device = {.name = "v100-16", .memory_bytes = UINT64_C(16148) * MIB, .peak_flops = V100_PEAKS,
        .memory_bytes_s = 900 * GB, .launch_s = 5e-6, .idle_w = 41, .peak_w = 300,
        HOST_DGX_1,
        .source = "NVIDIA V100 data sheet (SXM2, 16 GB)"}},
    {.word = "v100", .gigabytes = {32}, .gpu = GPU_V100, .link = LINK_NVLINK_2, .node_devices = 8,
     .domain_devices = 8, .network = "ib-4x100", .system = "NVIDIA DGX-1",
     .device = {.name = "v100-32", .memory_bytes = UINT64_C(32491) * MIB, .peak_flops = V100_PEAKS,
        .memory_bytes_s = 900 * GB, .launch_s = 5e-6, .idle_w = 41, .peak_w = 300,
        HOST_DGX_1,
        .source = "NVIDIA V100 data sheet (SXM2, 32 GB)"}},
    {.word = "a100", .gigabytes = {80}, .gpu = GPU_A100, .link = LINK_NVLINK_3, .node_devices = 8,
     .domain_devices = 8, .network = "ib-8x200", .system = "NVIDIA DGX A100",
     .device = {.name = "a100-80", .memory_bytes = UINT64_C(81049) * MIB, .peak_flops = A100_PEAKS,
        .memory_bytes_s = 2039 * GB, .launch_s = 4e-6, .idle_w = 59, .peak_w = 400,
        .unlimited_w = A100_UNLIMITED_W,
        HOST_DGX_A100,
        .source = "NVIDIA A100 data sheet (SXM, 80 GB); " ML_ENGINEERING}},
    {.word = "a100", .gigabytes = {40}, .gpu = GPU_A100, .link = LINK_NVLINK_3, .node_devices = 8,
     .domain_devices = 8, .network = "ib-8x200", .system = "NVIDIA DGX A100",
     .device = {.name = "a100-40", .memory_bytes = UINT64_C(40335) * MIB, .peak_flops = A100_PEAKS,
        .memory_bytes_s = 1555 * GB, .launch_s = 4e-6, .idle_w = 51, .peak_w = 400,
        .unlimited_w = A100_UNLIMITED_W,
        HOST_DGX_A100_40,
        .source = "NVIDIA A100 data sheet (SXM, 40 GB); " ML_ENGINEERING}},
    {.word = "a100", .gigabytes = {80}, .is_card = true, .gpu = GPU_A100_300W, .link = LINK_PCIE_4,
     .node_devices = 8, .domain_devices = 8, .network = "ib-1x200", .system = "one adapter a node",
     .device = {.name = "a100-pcie-80", .memory_bytes = UINT64_C(81049) * MIB,
        .peak_flops = A100_PEAKS, .memory_bytes_s = 1935 * GB, .launch_s = 4e-6, .idle_w = 47,
        .peak_w = 300, .unlimited_w = A100_UNLIMITED_W, .source = "NVIDIA A100 data sheet (PCIe, 80 GB)"}},
    {.word = "a100", .gigabytes = {40}, .is_card = true, .gpu = GPU_A100_250W, .link = LINK_PCIE_4,
     .node_devices = 8, .domain_devices = 8, .network = "ib-1x200", .system = "one adapter a node",
     .device = {.name = "a100-pcie-40", .memory_bytes = UINT64_C(40335) * MIB,
        .peak_flops = A100_PEAKS, .memory_bytes_s = 1555 * GB, .launch_s = 4e-6, .idle_w = 37,
        .peak_w = 250, .unlimited_w = A100_UNLIMITED_W, .source = "NVIDIA A100 data sheet (PCIe, 40 GB)"}},
    {.word = "a40", .gigabytes = {48}, .is_card = true, .gpu = GPU_A40, .link = LINK_PCIE_4,
     .node_devices = 4, .domain_devices = 4, .network = "ib-1x100", .system = "one adapter a node",
     .device = {.name = "a40", .memory_bytes = UINT64_C(45404) * MIB,
        .peak_flops = {[ARITHMETIC_FP32] = 37.4 * TFLOPS, [ARITHMETIC_TF32] = 74.8 * TFLOPS,
                       [ARITHMETIC_BF16] = 149.7 * TFLOPS, [ARITHMETIC_FP16] = 149.7 * TFLOPS},
        .memory_bytes_s = 696 * GB, .launch_s = 4e-6, .idle_w = 29, .peak_w = 300,
        .unlimited_w = A40_UNLIMITED_W,
        .source = "NVIDIA A40 data sheet"}},
    {.word = "h100", .gigabytes = {80}, .gpu = GPU_H100, .link = LINK_NVLINK_4, .node_devices = 8,
     .domain_devices = 8, .network = "ib-8x400", .system = "NVIDIA DGX H100",
     .device = {.name = "h100", .memory_bytes = UINT64_C(81080) * MIB, .peak_flops = H100_PEAKS,
        .memory_bytes_s = 3350 * GB, .launch_s = 4e-6, .idle_w = 70, .peak_w = 700,
        HOST_DGX_H100,
        .source = "NVIDIA H100 data sheet (SXM, 80 GB); " ML_ENGINEERING}},
    {.word = "h100", .gigabytes = {96}, .gpu = GPU_H100_500W, .link = LINK_NVLINK_4,
     .node_devices = 8, .domain_devices = 8, .network = "roce-8x400", .system = "Grand Teton",
     .device = {.name = "h100-96", .memory_bytes = UINT64_C(97280) * MIB, .peak_flops = H100_PEAKS,
        .memory_bytes_s = 2400 * GB, .launch_s = 4e-6, .idle_w = 70, .peak_w = 500,
        .source = "96 GB HBM2e of 2.4 TB/s, 500 W, 400 Gb/s a device: pytorch/torchtitan, "
                  "benchmarks/asyncTP_llama3_h100_2025-06_torchtitan.md; peaks of the H100"}},
    {.word = "h200", .gigabytes = {141}, .gpu = GPU_H100, .link = LINK_NVLINK_4, .node_devices = 8,
     .domain_devices = 8, .network = "ib-8x400", .system = "NVIDIA DGX H200",
     .device = {.name = "h200", .memory_bytes = UINT64_C(143155) * MIB, .peak_flops = H100_PEAKS,
        .memory_bytes_s = 4800 * GB, .launch_s = 4e-6, .idle_w = 78, .peak_w = 700,
        HOST_DGX_H100,
        .source = "NVIDIA H200 data sheet (SXM, 141 GB); " ML_ENGINEERING}},
    {.word = "b200", .gigabytes = {180, 192}, .gpu = GPU_B200, .link = LINK_NVLINK_5,
     .node_devices = 8, .domain_devices = 8, .network = "ib-8x400", .system = "NVIDIA DGX B200",
     .device = {.name = "b200", .memory_bytes = UINT64_C(182630) * MIB,
        .peak_flops = {[ARITHMETIC_FP32] = 80 * TFLOPS, [ARITHMETIC_TF32] = 1125 * TFLOPS,
                       [ARITHMETIC_BF16] = 2250 * TFLOPS, [ARITHMETIC_FP16] = 2250 * TFLOPS,
                       [ARITHMETIC_FP8] = 4500 * TFLOPS},
        .memory_bytes_s = 8000 * GB, .launch_s = 4e-6, .idle_w = 141, .peak_w = 1000,
        HOST_DGX_B200,
        .source = "NVIDIA HGX B200 data sheet; " ML_ENGINEERING}},
    {.word = "gb200", .gigabytes = {186, 192}, .gpu = GPU_B200, .link = LINK_NVLINK_5,
     .node_devices = 4, .domain_devices = 72, .network = "ib-4x400",
     .system = "NVIDIA GB200 NVL72",
     .device = {.name = "gb200", .memory_bytes = UINT64_C(188733) * MIB,
        .peak_flops = {[ARITHMETIC_FP32] = 80 * TFLOPS, [ARITHMETIC_TF32] = 1250 * TFLOPS,
                       [ARITHMETIC_BF16] = 2500 * TFLOPS, [ARITHMETIC_FP16] = 2500 * TFLOPS,
                       [ARITHMETIC_FP8] = 5000 * TFLOPS},
        .memory_bytes_s = 8000 * GB, .launch_s = 4e-6, .idle_w = 166, .peak_w = 1200,
        HOST_NVL72,
        .source = "NVIDIA GB200 NVL72 data sheet; " ML_ENGINEERING}},
    {.word = "mi300x", .other_word = "mi300", .gigabytes = {192}, .gpu = GPU_MI300X,
     .link = LINK_XGMI, .node_devices = 8, .domain_devices = 8, .network = "roce-8x400",
     .system = "AMD Instinct MI300X platform",
     .device = {.name = "mi300x", .memory_bytes = UINT64_C(196588) * MIB,
        .peak_flops = {[ARITHMETIC_FP32] = 163.4 * TFLOPS, [ARITHMETIC_TF32] = 653.7 * TFLOPS,
                       [ARITHMETIC_BF16] = 1307.4 * TFLOPS, [ARITHMETIC_FP16] = 1307.4 * TFLOPS,
                       [ARITHMETIC_FP8] = 2614.9 * TFLOPS},
        .memory_bytes_s = 5300 * GB, .launch_s = 6e-6, .idle_w = 146, .peak_w = 750,
        .source = "AMD Instinct MI300X data sheet; " ML_ENGINEERING}},
};
/* clang-format on */

enum { BUILTIN_COUNT = sizeof(builtins) / sizeof(builtins[0]) };

size_t cluster_builtin_count(void)
{
    return BUILTIN_COUNT;
}

const char *cluster_builtin_name(size_t index)
{
    return builtins[index].device.name;
}

void cluster_builtin_names(struct text *out)
{
    for (size_t i = 0; i < BUILTIN_COUNT; i++)
        text_printf(out, "%s%s", i > 0 ? ", " : "", builtins[i].device.name);
}

/* ---- names as published ---- */

/* What a name says: "NVIDIA A100-SXM4-80GB" is the word a100, 80 gigabytes, not a card. */
struct spoken {
    char word[CLUSTER_NAME_BYTES];
    int gigabytes; /* 0: not said */
    bool is_card, is_module;
    bool has_other; /* something else is said that no device is told apart by: unknown */
};

/* Words that say nothing which tells these devices apart: makers, form factors, memory's kind. */
static bool is_filler(const char *word)
{
    static const char *const fillers[] = {"nvidia", "amd",  "tesla", "instinct", "gpu",  "gb",
                                          "hbm",    "hbm2", "hbm2e", "hbm3",     "hbm3e"};
    size_t digits = strspn(word, "0123456789");

    for (size_t i = 0; i < sizeof(fillers) / sizeof(fillers[0]); i++) {
        if (strcmp(word, fillers[i]) == 0)
            return true;
    }
    return strncmp(word, "nvl", 3) == 0 || (digits > 0 && strcmp(word + digits, "w") == 0);
}

static void hear_word(struct spoken *out, const char *word)
{
    size_t digits = strspn(word, "0123456789");
    const char *unit = word + digits;

    if (digits > 0 && digits < 5 &&
        (unit[0] == '\0' || strcmp(unit, "gb") == 0 || strcmp(unit, "g") == 0))
        out->gigabytes = atoi(word);
    else if (strncmp(word, "sxm", 3) == 0)
        out->is_module = true;
    else if (strcmp(word, "pcie") == 0)
        out->is_card = true;
    else if (is_filler(word))
        return;
    else if (out->word[0] == '\0')
        snprintf(out->word, sizeof(out->word), "%s", word);
    else
        out->has_other = true;
}

static struct spoken hear(const char *name)
{
    struct spoken out = {0};
    char word[CLUSTER_NAME_BYTES];
    size_t bytes = 0;

    for (;; name++) {
        if (isalnum((unsigned char)*name) && bytes + 1 < sizeof(word)) {
            word[bytes++] = (char)tolower((unsigned char)*name);
            continue;
        }
        word[bytes] = '\0';
        if (bytes > 0)
            hear_word(&out, word);
        bytes = 0;
        if (*name == '\0')
            return out;
    }
}

static bool is_meant(const struct builtin *row, const struct spoken *spoken)
{
    if (strcmp(spoken->word, row->word) != 0 &&
        (row->other_word == NULL || strcmp(spoken->word, row->other_word) != 0))
        return false;
    if (row->is_card ? spoken->is_module : spoken->is_card)
        return false;
    return spoken->gigabytes == 0 || spoken->gigabytes == row->gigabytes[0] ||
           spoken->gigabytes == row->gigabytes[1];
}

/* The first row that fits: where a name leaves the choice open, that is the module rather than the
 * card, and of the A100 the 80 GB one. */
static const struct builtin *builtin_find(const char *name)
{
    struct spoken spoken = hear(name);
    for (size_t i = 0; i < BUILTIN_COUNT && !spoken.has_other; i++) {
        if (is_meant(&builtins[i], &spoken))
            return &builtins[i];
    }
    return NULL;
}

/* ---- making a cluster ---- */

/* Devices of one domain of the inner link: as many as it can join and the group divides into, in
 * whole nodes. 256 GB200 make four domains of 64. */
static int64_t domain_devices(const struct builtin *row, int64_t devices)
{
    int64_t domain = row->domain_devices < devices ? row->domain_devices : devices;
    while (domain > row->node_devices && (devices % domain != 0 || domain % row->node_devices != 0))
        domain--;
    return domain;
}

static void copy_curves(enum gpu gpu, struct efficiency_curve out[OPERATION_COUNT])
{
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        out[i].count = 0;
        for (size_t k = 0; k < BUILTIN_POINTS; k++)
            efficiency_curve_add(&out[i], curves[i].size[k], curves[i].share[gpu][k]);
    }
}

enum builtin_status cluster_builtin_make(const char *name, int64_t devices, struct cluster *out,
                                         int64_t *node_devices)
{
    const struct builtin *row = builtin_find(name);

    if (row == NULL)
        return BUILTIN_UNKNOWN;
    *node_devices = row->node_devices;
    if (devices < 1 || (devices > row->node_devices && devices % row->node_devices != 0) ||
        devices / row->node_devices > CLUSTER_NODES_MAX)
        return BUILTIN_PART_NODES;

    *out = (struct cluster){.group_count = 1, .carbon_g_kwh = NAN};
    snprintf(out->name, sizeof(out->name), "%.40sx%lld", row->device.name, (long long)devices);
    struct node_group *group = &out->groups[0];
    group->device = row->device;
    group->device.price_hour = NAN;
    copy_curves(row->gpu, group->device.efficiency);
    group->node_devices = devices < row->node_devices ? devices : row->node_devices;
    group->nodes = devices / group->node_devices;
    group->tiers[group->tier_count] = links[row->link];
    group->tiers[group->tier_count++].devices = domain_devices(row, devices);
    if (group->tiers[0].devices == devices)
        return BUILTIN_FOUND;
    group->tiers[group->tier_count++].devices = devices;
    cluster_set_network(out, row->network);
    struct link_tier *tier = &group->tiers[1];
    size_t bytes = strlen(tier->source);
    snprintf(tier->source + bytes, sizeof(tier->source) - bytes, ": %s", row->system);
    return BUILTIN_FOUND;
}

/* ---- networks ---- */

/* A whole number from 1 to 9999 at *at, which moves behind it. */
static bool read_number(const char **at, long *out)
{
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > 4)
        return false;
    *out = strtol(*at, NULL, 10);
    *at += digits;
    return *out > 0;
}

static bool network_parse(const char *text, const struct network **kind, long *adapters,
                          long *gigabits)
{
    size_t bytes = strcspn(text, "-");
    const char *at = text + bytes + 1;

    *kind = NULL;
    for (size_t i = 0; i < sizeof(networks) / sizeof(networks[0]); i++) {
        if (strlen(networks[i].kind) == bytes && strncmp(networks[i].kind, text, bytes) == 0)
            *kind = &networks[i];
    }
    if (*kind == NULL || text[bytes] != '-' || !read_number(&at, adapters) || *at++ != 'x')
        return false;
    return read_number(&at, gigabits) && *at == '\0';
}

bool cluster_set_network(struct cluster *cluster, const char *network)
{
    const struct network *kind;
    long adapters, gigabits;

    if (!network_parse(network, &kind, &adapters, &gigabits))
        return false;
    for (size_t i = 0; i < cluster->group_count; i++) {
        struct node_group *group = &cluster->groups[i];
        if (group->tier_count < 2)
            continue;
        struct link_tier *tier = &group->tiers[group->tier_count - 1];
        int64_t devices = tier->devices;
        *tier = (struct link_tier){
            .devices = devices,
            .latency_s = kind->latency_s,
            .bytes_s = (double)adapters * (double)gigabits / 8 * GB / (double)group->node_devices,
            .share = kind->share,
        };
        snprintf(tier->name, sizeof(tier->name), "%s", kind->name);
        snprintf(tier->source, sizeof(tier->source), "%ld adapters of %ld Gb/s for %lld devices",
                 adapters, gigabits, (long long)group->node_devices);
    }
    return true;
}
