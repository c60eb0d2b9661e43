#include "base/units.h"
#include "cli/cli.h"
#include "ir/layer.h"

#include <stddef.h>
#include <stdio.h>

struct model_options {
    struct model_arguments model;
    int64_t micro_batch;
    bool json;
};

static const struct option_spec model_rows[] = {MODEL_OPTION_ROWS(struct model_options)};
static const struct option_spec other_rows[] = {
    {.name = "micro-batch",
     .type = OPTION_INT,
     .offset = offsetof(struct model_options, micro_batch),
     .metavar = "N",
     .fallback = "1",
     .doc = "sequences of the micro-batch that FLOPs and activations are given for",
     .minimum = 1,
     .maximum = 1e6},
    JSON_OPTION_ROW(struct model_options),
};
static const struct option_table groups[] = {
    {.rows = model_rows, .count = COUNT_OF(model_rows), .heading = "Model"},
    {.rows = other_rows, .count = COUNT_OF(other_rows), .heading = "Output"},
};
static const struct command_spec spec = {
    .name = "model",
    .summary = "print a model's chain of layers: parameters, FLOPs, activation bytes",
    .synopsis = "--model MODEL [options]",
    .description =
        "Prints each kind of layer of the model with its parameters, the floating-point operations "
        "of one forward pass and the activation bytes kept for the backward pass under each "
        "recompute mode that the kind knows, and by attention in tiles, in fp32 and bf16. Backward "
        "takes twice the forward FLOPs.",
    .groups = groups,
    .group_count = COUNT_OF(groups),
    .example = "temper model --model gpt2 --seq-length 256 --micro-batch 4",
};

/* One row of the table: all layers of one kind. */
struct kind_row {
    enum layer_kind kind;
    bool has_experts; /* LAYER_MLP: experts in its place */
    int64_t layers;
};

static uint64_t row_parameters(const struct model *model, const struct kind_row *row)
{
    return row->has_experts ? experts_parameter_count(model, model->experts)
                            : layer_parameter_count(model, row->kind);
}

static double row_flops(const struct model *model, const struct kind_row *row,
                        const struct micro_batch_shape *shape)
{
    return row->has_experts ? experts_forward_flops(model, shape)
                            : layer_forward_flops(model, row->kind, shape);
}

/* What a layer can keep, by name. */
static const struct {
    const char *name;
    enum recompute recompute;
    enum attention_kernel attention;
} keeps[] = {
    {"none", RECOMPUTE_NONE, ATTENTION_PLAIN},
    {"selective", RECOMPUTE_SELECTIVE, ATTENTION_PLAIN},
    {"tiled", RECOMPUTE_NONE, ATTENTION_TILED},
    {"full", RECOMPUTE_FULL, ATTENTION_PLAIN},
};

/* False where the kind of layer does not admit the mode, or the executor cannot run the model: it
 * has no figure then. */
static bool saved_bytes(const struct model *model, enum layer_kind kind,
                        struct layer_precision_mode mode, const struct micro_batch_shape *shape,
                        uint64_t *bytes)
{
    struct error ignored;
    if (model_check_executable(model, model->name, &ignored) != STATUS_OK ||
        !layer_admits_precision(kind, mode.precision) ||
        !layer_admits_recompute(kind, mode.recompute) || !layer_admits_kernel(kind, mode.attention))
        return false;
    *bytes = layer_saved_bytes(model, kind, mode, shape);
    return true;
}

static void print_row(const struct model *model, const struct kind_row *row,
                      const struct micro_batch_shape *shape)
{
    char parameters[UNIT_TEXT_BYTES], flops[UNIT_TEXT_BYTES];
    printf("%-10s %6lld %16s %14s", row->has_experts ? "experts" : layer_kind_name(row->kind),
           (long long)row->layers, format_grouped(row_parameters(model, row), parameters),
           format_flops(row_flops(model, row, shape), flops));
    static const enum precision shown[] = {PRECISION_FP32, PRECISION_BF16};
    for (size_t i = 0; i < COUNT_OF(shown); i++)
        for (size_t k = 0; k < COUNT_OF(keeps); k++) {
            char text[UNIT_TEXT_BYTES] = "-";
            struct layer_precision_mode mode = {shown[i], keeps[k].recompute, keeps[k].attention};
            uint64_t bytes;
            if (saved_bytes(model, row->kind, mode, shape, &bytes))
                format_bytes((double)bytes, text);
            printf(" %11s", text);
        }
    putchar('\n');
}

static void print_experts(const struct model *model)
{
    char active[UNIT_TEXT_BYTES];
    printf("%lld experts of %lld columns in %lld of the blocks, %lld a token",
           (long long)model->experts, (long long)model->expert_ffn,
           (long long)model_expert_blocks(model), (long long)model->experts_per_token);
    if (model->shared_ffn > 0)
        printf(", beside a shared one of %lld", (long long)model->shared_ffn);
    printf("; a token passes %s parameters\n",
           format_grouped(model_active_parameter_count(model), active));
}

static void print_model(const struct model *model, const struct micro_batch_shape *shape)
{
    int64_t expert_blocks = model_expert_blocks(model);
    const struct kind_row rows[] = {
        {LAYER_EMBEDDING, false, 1},
        {LAYER_ATTENTION, false, model->blocks},
        {LAYER_MLP, false, model->blocks - expert_blocks},
        {LAYER_MLP, true, expert_blocks},
        {LAYER_HEAD, false, 1},
    };
    char count[UNIT_TEXT_BYTES], bytes[UNIT_TEXT_BYTES];
    printf("%s: %s, %lld blocks, hidden %lld, %lld heads (%lld kv), head dim %lld, ffn %lld, vocab "
           "%lld, %s head\n",
           model->name, model_type_name(model), (long long)model->blocks, (long long)model->hidden,
           (long long)model->heads, (long long)model->kv_heads, (long long)model->head_dim,
           (long long)model->ffn, (long long)model->vocab, model->tied_head ? "tied" : "untied");
    if (expert_blocks > 0)
        print_experts(model);
    printf("micro-batch %lld x %lld tokens\n\n", (long long)shape->sequences,
           (long long)shape->seq_length);
    printf("%-10s %6s %16s %14s %47s %47s\n", "", "", "", "", "activations kept, fp32",
           "activations kept, bf16 or fp16");
    printf("%-10s %6s %16s %14s", "layer", "count", "parameters", "forward");
    for (size_t i = 0; i < 2 * COUNT_OF(keeps); i++)
        printf(" %11s", keeps[i % COUNT_OF(keeps)].name);
    putchar('\n');
    double flops = 0;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (rows[i].layers > 0)
            print_row(model, &rows[i], shape);
        flops += (double)rows[i].layers * row_flops(model, &rows[i], shape);
    }
    printf("%-10s %6zu %16s %14s\n\n", "total", model_layer_count(model),
           format_grouped(model_parameter_count(model), count), format_flops(flops, bytes));
    struct error reason;
    if (model_check_executable(model, model->name, &reason) != STATUS_OK)
        printf("Activations are not known: %s\n", reason.message);
    else
        printf("Figures are of one layer, '-' where it does not know the mode; between layers the "
               "residual stream keeps %s more each.\n",
               format_bytes((double)boundary_bytes(model, shape), bytes));
}

static void write_layer(const struct model *model, size_t index,
                        const struct micro_batch_shape *shape, struct jout *out)
{
    struct layer layer = model_layer(model, index);
    bool has_experts = layer.kind == LAYER_MLP && model_block_has_experts(model, layer.block);
    const struct kind_row row = {layer.kind, has_experts, 1};
    double flops = row_flops(model, &row, shape);
    jout_begin_object(out, NULL);
    jout_int(out, "index", (int64_t)index);
    jout_string(out, "kind", layer_kind_name(layer.kind));
    if (layer.kind == LAYER_ATTENTION || layer.kind == LAYER_MLP)
        jout_int(out, "block", layer.block);
    if (has_experts)
        jout_int(out, "experts", model->experts);
    jout_int(out, "parameters", (int64_t)row_parameters(model, &row));
    jout_real(out, "forward_flops", flops);
    jout_real(out, "backward_flops", 2 * flops);
    jout_begin_object(out, "activation_bytes");
    for (int precision = 0; precision < PRECISION_COUNT; precision++) {
        jout_begin_object(out, precision_name((enum precision)precision));
        for (size_t k = 0; k < COUNT_OF(keeps); k++) {
            struct layer_precision_mode mode = {(enum precision)precision, keeps[k].recompute,
                                                keeps[k].attention};
            uint64_t bytes;
            if (saved_bytes(model, layer.kind, mode, shape, &bytes))
                jout_int(out, keeps[k].name, (int64_t)bytes);
            else
                jout_null(out, keeps[k].name);
        }
        jout_end(out);
    }
    jout_end(out);
    jout_end(out);
}

static enum status print_json(const struct model *model, const struct micro_batch_shape *shape,
                              struct error *err)
{
    struct jout *out = jout_new();
    model_write(model, "model", out);
    jout_int(out, "parameters", (int64_t)model_parameter_count(model));
    if (model->experts > 0)
        jout_int(out, "active_parameters", (int64_t)model_active_parameter_count(model));
    jout_int(out, "micro_batch", shape->sequences);
    jout_int(out, "seq_length", shape->seq_length);
    jout_int(out, "boundary_bytes", (int64_t)boundary_bytes(model, shape));
    jout_begin_array(out, "layers");
    for (size_t i = 0; i < model_layer_count(model); i++)
        write_layer(model, i, shape, out);
    jout_end(out);
    return console_json(out, err);
}

static enum status run(int argc, char **argv, struct error *err)
{
    struct model_options options = {0};
    struct positionals positionals = {0};
    struct model model;
    TRY(options_parse(&spec, argc, argv, &options, &positionals, err));
    TRY(model_from_arguments(&options.model, &model, err));
    struct micro_batch_shape shape = {
        .sequences = options.micro_batch, .seq_length = model.seq_length, .threads = 1};
    if (options.json)
        return print_json(&model, &shape, err);
    print_model(&model, &shape);
    return STATUS_OK;
}

const struct command command_model = {.spec = &spec, .run = run};
