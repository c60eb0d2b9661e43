#include "ir/layer_work.h"

enum { FP32 = 4 }; /* bytes of one element */

/* Pairs of a query and a key that it sees, of one sequence. */
static double seen_pairs(const struct model *model, int64_t length)
{
    double s = (double)length, window = (double)model->sliding_window;
    if (model->bidirectional)
        return s * s;
    if (window > 0 && window < s)
        return window * (window + 1) / 2 + (s - window) * window;
    return s * (s + 1) / 2;
}

static double seen_flops(const struct model *model, const struct layer_part *part,
                         const struct micro_batch_shape *shape)
{
    double flops = layer_part_forward_flops(model, part, shape);
    if (part->kind != LAYER_ATTENTION)
        return flops;
    double context = (double)model->heads * (double)model->head_dim / (double)part->ways;
    double square = (double)shape->seq_length * (double)shape->seq_length;
    double unseen = square - seen_pairs(model, shape->seq_length);
    return flops - 4 * context * unseen * (double)shape->sequences;
}

/* Two of the products' six passes over the scores: selective recompute and attention in tiles make
 * the scores once more. What else selective recompute makes again is no product. */
static double recomputed_flops(const struct model *model, const struct layer_part *part,
                               struct layer_precision_mode mode,
                               const struct micro_batch_shape *shape)
{
    if (mode.recompute == RECOMPUTE_FULL)
        return seen_flops(model, part, shape);
    bool remakes_scores =
        mode.recompute == RECOMPUTE_SELECTIVE || mode.attention == ATTENTION_TILED;
    if (part->kind != LAYER_ATTENTION || !remakes_scores)
        return 0;
    double context = (double)model->heads * (double)model->head_dim / (double)part->ways;
    return 2 * context * seen_pairs(model, shape->seq_length) * (double)shape->sequences;
}

static double parameter_bytes(const struct model *model, const struct layer_part *part,
                              uint64_t matrix_bytes)
{
    struct part_counts counts = layer_part_counts(model, part);
    return (double)counts.matrices * (double)matrix_bytes + (double)counts.vectors * FP32;
}

/* The rows of a table that tokens name; a tied head reads all of the embedding's. */
static double read_parameter_bytes(const struct model *model, const struct layer_part *part,
                                   struct layer_precision_mode mode,
                                   const struct micro_batch_shape *shape)
{
    double tokens = (double)shape->sequences * (double)shape->seq_length;
    double element = (double)precision_bytes(mode.precision);
    if (part->kind == LAYER_EMBEDDING)
        return tokens * (double)model->hidden * FP32;
    double bytes = parameter_bytes(model, part, precision_bytes(mode.precision));
    if (part->kind == LAYER_HEAD && model->tied_head && !part->owns_table)
        bytes += (double)part_vocab_rows(model, part) * (double)model->hidden * element;
    return bytes;
}

static double gradient_bytes(const struct model *model, const struct layer_part *part,
                             const struct micro_batch_shape *shape)
{
    double tokens = (double)shape->sequences * (double)shape->seq_length;
    if (part->kind == LAYER_EMBEDDING)
        return tokens * (double)model->hidden * FP32;
    double bytes = parameter_bytes(model, part, FP32);
    if (part->kind == LAYER_HEAD && model->tied_head && !part->owns_table)
        bytes += (double)part_vocab_rows(model, part) * (double)model->hidden * FP32;
    return bytes;
}

/* Once for the embedding, which has none before it, and the head, which has none behind it. */
static double stream_bytes(const struct model *model, const struct layer_part *part,
                           const struct micro_batch_shape *shape)
{
    bool at_end = part->kind == LAYER_EMBEDDING || part->kind == LAYER_HEAD;
    return (double)part_boundary_bytes(model, part, shape) * (at_end ? 1 : 2);
}

struct layer_work layer_forward_work(const struct model *model, const struct layer_part *part,
                                     struct layer_precision_mode mode,
                                     const struct micro_batch_shape *shape)
{
    return (struct layer_work){
        .flops = seen_flops(model, part, shape),
        .bytes = read_parameter_bytes(model, part, mode, shape) + stream_bytes(model, part, shape) +
                 (double)part_saved_bytes(model, part, mode, shape),
    };
}

struct layer_work layer_backward_work(const struct model *model, const struct layer_part *part,
                                      struct layer_precision_mode mode,
                                      const struct micro_batch_shape *shape)
{
    struct layer_work forward = layer_forward_work(model, part, mode, shape);
    return (struct layer_work){
        .flops = 2 * forward.flops + recomputed_flops(model, part, mode, shape),
        .bytes =
            forward.bytes + stream_bytes(model, part, shape) + gradient_bytes(model, part, shape),
    };
}

struct layer_work layer_update_work(const struct model *model, const struct layer_part *part,
                                    enum precision precision, enum precision gradients)
{
    enum { GRADIENT_READS = 2 };
    struct part_counts counts = layer_part_counts(model, part);
    double copied = precision == PRECISION_FP32 ? 0 : (double)precision_bytes(precision);
    double saved = GRADIENT_READS * (double)(sizeof(float) - precision_bytes(gradients));
    return (struct layer_work){.bytes = (double)(counts.matrices + counts.vectors) * UPDATE_BYTES +
                                        (double)counts.matrices * (copied - saved)};
}

struct layer_work layer_work_add(struct layer_work a, struct layer_work b)
{
    return (struct layer_work){a.flops + b.flops, a.bytes + b.bytes};
}

static double product_s(struct layer_work work, struct machine_rates rates)
{
    return rates.matmul_flops > 0 ? work.flops / rates.matmul_flops : 0;
}

static double memory_s(struct layer_work work, struct machine_rates rates)
{
    return rates.copy_bytes_s > 0 ? work.bytes / rates.copy_bytes_s : 0;
}

double roofline_s(struct layer_work work, struct machine_rates rates)
{
    double product = product_s(work, rates), memory = memory_s(work, rates);
    return product > memory ? product : memory;
}

bool roofline_is_memory(struct layer_work work, struct machine_rates rates)
{
    return memory_s(work, rates) > product_s(work, rates);
}
