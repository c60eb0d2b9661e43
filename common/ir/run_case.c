#include "ir/run_case.h"

#include "base/csv.h"
#include "ir/case_model.h"
#include "ir/case_row.h"
#include "ir/case_system.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const double GIB = 1073741824.0;

/* A row on its way to a case. The functions below return false when the row cannot be predicted,
 * and have then said why. */
struct builder {
    const struct case_row *row;
    const struct case_model *named;  /* what the source calls so; NULL: not known by name */
    const struct cluster *described; /* NULL: built in */
    struct case_system system;
    struct run_case *out;
    enum status status; /* STATUS_MEMORY where that is why a function returned false */
};

__attribute__((format(printf, 2, 3))) static bool skip(struct builder *builder, const char *format,
                                                       ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(builder->out->skipped, CASE_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return false;
}

/* The first empty cell of those that a row cannot do without. */
static bool needs(struct builder *builder, const int64_t *counts, const char *const *columns)
{
    for (size_t i = 0; columns[i] != NULL; i++)
        if (counts[i] == CASE_EMPTY)
            return skip(builder, "column '%s' is empty", columns[i]);
    return true;
}

static bool says(const struct builder *builder, const char *words)
{
    return strcasestr(builder->row->notes, words) != NULL;
}

/* ---- model ---- */

/* The number that follows the word: "vocab 51200", "vocab config default 50257". */
static int64_t noted_vocab(const char *notes)
{
    for (const char *at = strcasestr(notes, "vocab"); at != NULL;
         at = strcasestr(at + 1, "vocab")) {
        const char *digits = at + strcspn(at, "0123456789;");
        long long vocab = strtoll(digits, NULL, 10);
        if (vocab > 0 && vocab <= INT32_MAX)
            return vocab;
    }
    return CASE_EMPTY;
}

/* A public model is known by its sizes. */
static int64_t builtin_vocab(const struct model *model)
{
    for (size_t i = 0; i < model_builtin_count(); i++) {
        struct model known;
        struct error err;
        if (model_load(&known, model_builtin_name(i), NULL, &err) == STATUS_OK &&
            known.family == model->family && known.blocks == model->blocks &&
            known.hidden == model->hidden && known.heads == model->heads &&
            known.kv_heads == model->kv_heads && known.ffn == model->ffn)
            return known.vocab;
    }
    return CASE_EMPTY;
}

static bool find_family(struct builder *builder, enum model_family *out)
{
    static const char *const llamas[] = {"llama", "mistral", "mixtral", "grok"};
    static const char *const gpts[] = {"gpt", "mpt", "megatron", "bloom"};
    const struct case_row *row = builder->row;
    if (builder->named != NULL) {
        *out = builder->named->family;
        return true;
    }
    *out = MODEL_LLAMA;
    for (size_t i = 0; i < sizeof(llamas) / sizeof(llamas[0]); i++)
        if (strcasestr(row->model, llamas[i]) != NULL)
            return true;
    *out = MODEL_GPT2;
    for (size_t i = 0; i < sizeof(gpts) / sizeof(gpts[0]); i++)
        if (strcasestr(row->model, gpts[i]) != NULL)
            return true;
    return skip(builder,
                "column 'model': '%.60s' names no family that temper knows: llama, "
                "mistral, mixtral, grok; gpt, mpt, megatron, bloom",
                row->model);
}

/* Every block has them in place of its MLP, whose width is one expert's. */
static bool add_experts(struct builder *builder, struct model *model)
{
    const struct case_row *row = builder->row;
    const int64_t counts[] = {row->topk, row->ep};
    static const char *const names[] = {"topk", "ep", NULL};
    if (row->experts <= 0)
        return true;
    model->experts = row->experts;
    model->experts_per_token = row->topk;
    model->expert_ffn = model->ffn;
    model->moe_every = 1;
    return needs(builder, counts, names);
}

static bool check_model(struct builder *builder, const struct model *model)
{
    struct error err;
    if (model_validate(model, "the model", &err) == STATUS_OK)
        return true;
    return skip(builder, "%s", err.message);
}

static bool build_model(struct builder *builder)
{
    const struct case_row *row = builder->row;
    struct model *model = &builder->out->model;
    const int64_t sizes[] = {row->layers, row->hidden, row->heads, row->seq};
    static const char *const names[] = {"layers", "hidden", "heads", "seq", NULL};
    enum model_family family;
    if (builder->named != NULL && builder->named->unlike != NULL)
        return skip(builder, "column 'model': %.60s is no chain of alike blocks: %s", row->model,
                    builder->named->unlike);
    if (!needs(builder, sizes, names) || !find_family(builder, &family))
        return false;
    if (row->hidden % row->heads != 0)
        return skip(builder, "column 'heads': heads do not divide hidden");
    bool is_gpt = family == MODEL_GPT2;
    *model = (struct model){
        .family = family,
        .blocks = row->layers,
        .hidden = row->hidden,
        .heads = row->heads,
        .kv_heads = is_gpt && row->kv_heads == CASE_EMPTY ? row->heads : row->kv_heads,
        .head_dim = row->hidden / row->heads,
        .ffn = row->ffn == CASE_EMPTY && says(builder, "ffn=4h") ? 4 * row->hidden : row->ffn,
        .vocab = row->vocab == CASE_EMPTY ? noted_vocab(row->notes) : row->vocab,
        .positions = row->seq,
        .seq_length = row->seq,
        .norm_epsilon = 1e-5,
        .rope_theta = is_gpt ? 0 : 5e5,
        .tied_head = is_gpt,
    };
    model->bidirectional = builder->named != NULL && builder->named->bidirectional;
    model->segments = model->bidirectional ? 2 : 0;
    (void)snprintf(model->name, sizeof(model->name), "%s", row->model);
    if (model->vocab == CASE_EMPTY)
        model->vocab = builtin_vocab(model);
    const int64_t rest[] = {model->kv_heads, model->ffn, model->vocab};
    static const char *const rest_names[] = {"kv_heads", "ffn", "vocab", NULL};
    return needs(builder, rest, rest_names) && add_experts(builder, model) &&
           check_model(builder, model);
}

/* ---- system ---- */

static void prefer(bool *value, int64_t cell)
{
    if (cell != CASE_EMPTY)
        *value = cell != 0;
}

/* Only Megatron's kind has tensor or pipeline parallelism; ZeRO 2 or 3 without them is FSDP's. */
static bool framework_of_split(const struct case_row *row, enum framework *out)
{
    *out = row->tp > 1 || row->pp > 1 ? FRAMEWORK_MEGATRON : FRAMEWORK_FSDP;
    return *out == FRAMEWORK_MEGATRON || row->zero >= 2;
}

static bool build_system(struct builder *builder)
{
    const struct case_row *row = builder->row;
    struct case_system *system = &builder->system;
    const struct case_system *known = case_system_find(row->source);
    bool is_known = known != NULL || case_system_from_words(row->notes, system) ||
                    case_system_from_words(row->source, system);
    if (known != NULL)
        *system = *known;
    if (!is_known) {
        enum framework framework;
        is_known = framework_of_split(row, &framework);
        *system = case_system_of(framework);
    }
    case_system_refine(system, row->notes);
    if (row->framework[0] != '\0')
        is_known = framework_parse(row->framework, &system->framework);
    if (!is_known && row->framework[0] != '\0')
        return skip(builder, "column 'framework': '%.60s' is none of megatron, deepspeed, fsdp",
                    row->framework);
    if (!is_known)
        return skip(builder,
                    "columns 'source' and 'notes' name no framework, and the split does not "
                    "say: Megatron, DeepSpeed or FSDP");
    prefer(&system->fused_attention, row->fused_attention);
    prefer(&system->fused_cross_entropy, row->fused_cross_entropy);
    prefer(&system->overlap_gradients, row->overlap_gradients);
    prefer(&system->overlap_parameters, row->overlap_parameters);
    prefer(&system->overlap_tensor, row->overlap_tensor);
    if (row->network[0] != '\0')
        system->network = row->network;
    if (row->plan != CASE_EMPTY && row->plan >= system->full_clock_plans)
        return skip(builder, "column 'plan': clocks or power limits below the device's full ones, "
                             "which the cost model does not know");
    return true;
}

/* ---- layout ---- */

/* "amp_bf16", "fp8-rowwise": the first word that names an arithmetic. */
static bool find_arithmetic(struct builder *builder, enum arithmetic *out)
{
    const char *cell = builder->row->precision;
    if (cell[0] == '\0' && builder->system.arithmetic == SYSTEM_UNSTATED)
        return skip(builder, "column 'precision' is empty");
    if (cell[0] == '\0') {
        *out = (enum arithmetic)builder->system.arithmetic;
        return true;
    }
    for (int i = 0; i < ARITHMETIC_COUNT; i++) {
        *out = (enum arithmetic)i;
        if (strcasestr(cell, arithmetic_name(*out)) != NULL)
            return true;
    }
    return skip(builder, "column 'precision': '%.60s' is none of fp32, tf32, bf16, fp16, fp8",
                cell);
}

static bool find_recompute(struct builder *builder, enum recompute *out)
{
    const char *cell = builder->row->recompute;
    if (cell[0] == '\0')
        return skip(builder, "column 'recompute' is empty");
    if (!recompute_parse(cell, out))
        return skip(builder, "column 'recompute': '%.60s' is none of none, selective, full", cell);
    return true;
}

/* pp, tp, cp and dp, which multiply to gpus. */
static bool find_degrees(struct builder *builder, struct layout *layout)
{
    const struct case_row *row = builder->row;
    const int64_t counts[] = {row->gpus, row->tp, row->pp, row->cp};
    static const char *const names[] = {"gpus", "tp", "pp", "cp", NULL};
    if (!needs(builder, counts, names))
        return false;
    double model_devices = (double)row->tp * (double)row->pp * (double)row->cp;
    if (row->dp == CASE_EMPTY && fmod((double)row->gpus, model_devices) != 0)
        return skip(builder, "column 'dp' is empty, and tp x pp x cp does not divide gpus");
    if (row->dp != CASE_EMPTY && model_devices * (double)row->dp != (double)row->gpus)
        return skip(builder, "column 'gpus' is not dp x tp x pp x cp");
    layout->devices = row->gpus;
    layout->tensor = row->tp;
    layout->pipeline = row->pp;
    layout->context = row->cp;
    layout->data = (int64_t)((double)row->gpus / model_devices);
    layout->expert = row->ep != CASE_EMPTY ? row->ep : 1;
    if (row->pp > 1 && row->vp == CASE_EMPTY)
        return skip(builder, "column 'vp' is empty");
    layout->virtual_stages = row->pp > 1 ? row->vp : 1;
    layout->schedule = layout->virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B;
    return true;
}

static bool find_batch(struct builder *builder, struct layout *layout)
{
    const struct case_row *row = builder->row;
    const int64_t counts[] = {row->mbs, row->gbs};
    static const char *const names[] = {"mbs", "gbs", NULL};
    if (!needs(builder, counts, names))
        return false;
    if (fmod((double)row->gbs, (double)row->mbs * (double)layout->data) != 0)
        return skip(builder, "column 'gbs' is no multiple of mbs x dp");
    layout->micro_batch = row->mbs;
    layout->global_batch = row->gbs;
    return true;
}

static bool find_sharing(struct builder *builder, struct layout *layout)
{
    const struct case_row *row = builder->row;
    const struct case_system *system = &builder->system;
    int64_t zero = row->zero != CASE_EMPTY ? row->zero : system->zero_stage;
    int64_t sequence = row->seqpar != CASE_EMPTY ? row->seqpar : system->sequence_parallel;
    int64_t replicas = layout->data * layout->context;
    if (zero == SYSTEM_UNSTATED && replicas > 1)
        return skip(builder, "column 'zero' is empty");
    if (sequence == SYSTEM_UNSTATED && layout->tensor > 1)
        return skip(builder, "column 'seqpar' is empty");
    layout->zero_stage = zero == SYSTEM_UNSTATED ? 0 : (int)zero;
    layout->shard = layout->zero_stage > 0 ? replicas : 1;
    layout->sequence_parallel = layout->tensor > 1 && sequence == 1;
    return true;
}

/* "custom:0,8,14,20,26": the first layer of each stage, and how many layers there are. */
static bool parse_partition(const char *cell, int64_t stages, int64_t *starts)
{
    static const char custom[] = "custom:";
    const char *at = cell + strlen(custom);
    if (strncmp(cell, custom, strlen(custom)) != 0)
        return false;
    for (int64_t i = 0; i <= stages; i++) {
        size_t digits = strspn(at, "0123456789");
        if (digits == 0 || digits > 9 || at[digits] != (i < stages ? ',' : '\0'))
            return false;
        starts[i] = strtoll(at, NULL, 10);
        if (i > 0 && starts[i] <= starts[i - 1])
            return false;
        at += digits + 1;
    }
    return starts[0] == 0;
}

/* What `own` of a layout points to, in one piece that free() ends: the stages' blocks are as in
 * `counts`, all blocks as the layout says. NULL: no memory. */
static struct block_plan *block_plan_of(const struct layout *layout, int64_t blocks,
                                        const int64_t *counts)
{
    size_t stages = (size_t)layout->pipeline, modes = (size_t)blocks;
    size_t count_bytes = stages * sizeof(int64_t), mode_bytes = modes * sizeof(struct block_mode);
    struct block_plan *plan = calloc(1, sizeof(*plan) + count_bytes + mode_bytes);
    if (plan == NULL)
        return NULL;
    int64_t *stage_blocks = (int64_t *)(plan + 1);
    struct block_mode *block_modes = (struct block_mode *)(stage_blocks + stages);
    memcpy(stage_blocks, counts, count_bytes);
    for (int64_t block = 0; block < blocks; block++)
        block_modes[block] = layout_block_mode(layout, block);
    plan->stage_blocks = stage_blocks;
    plan->modes = block_modes;
    return plan;
}

/* Layers of a partition are the embeddings, the blocks and the head. */
static bool find_stages(struct builder *builder, struct layout *layout)
{
    const struct case_row *row = builder->row;
    int64_t starts[LAYOUT_STAGES_MAX + 1], counts[LAYOUT_STAGES_MAX], stages = layout->pipeline;
    int64_t before = builder->named != NULL ? builder->named->embedding_layers : 1;
    if (row->partition[0] == '\0')
        return true;
    if (stages > LAYOUT_STAGES_MAX || !parse_partition(row->partition, stages, starts))
        return skip(builder,
                    "column 'partition': '%.60s' is not custom: with the first layers of %lld "
                    "stages and the number of layers, ascending from 0",
                    row->partition, (long long)stages);
    if (starts[stages] != before + row->layers + 1)
        return skip(builder,
                    "column 'partition': %lld layers are not %lld of embedding, %lld blocks and a "
                    "head",
                    (long long)starts[stages], (long long)before, (long long)row->layers);
    for (int64_t i = 0; i < stages; i++)
        counts[i] = starts[i + 1] - starts[i] - (i == 0 ? before : 0) - (i == stages - 1 ? 1 : 0);
    layout->own = builder->out->blocks = block_plan_of(layout, row->layers, counts);
    if (layout->own == NULL)
        builder->status = STATUS_MEMORY;
    return layout->own != NULL;
}

static bool build_layout(struct builder *builder)
{
    struct layout *layout = &builder->out->layout;
    const struct case_system *system = &builder->system;
    *layout = (struct layout){
        .framework = system->framework,
        .fused_attention = system->fused_attention,
        .fused_cross_entropy = system->fused_cross_entropy,
        .gradients_16_bit = system->gradients_16_bit,
        .overlap_gradients = system->overlap_gradients,
        .overlap_parameters = system->overlap_parameters,
        .overlap_tensor = system->overlap_tensor,
        .elementwise = builder->named != NULL ? builder->named->elementwise : ELEMENTWISE_FUSED,
    };
    return find_degrees(builder, layout) && find_batch(builder, layout) &&
           find_sharing(builder, layout) && find_recompute(builder, &layout->recompute) &&
           find_arithmetic(builder, &layout->arithmetic) && find_stages(builder, layout);
}

static bool check_layout(struct builder *builder)
{
    const struct run_case *out = builder->out;
    enum arithmetic arithmetic = out->layout.arithmetic;
    struct error err;
    if (!(out->cluster.groups[0].device.peak_flops[arithmetic] > 0))
        return skip(builder, "column 'precision': %s has no rate in %s",
                    out->cluster.groups[0].device.name, arithmetic_name(arithmetic));
    if (cluster_check_planning(&out->cluster, arithmetic, "--cluster", &err) != STATUS_OK)
        return skip(builder, "%s", err.message);
    if (layout_check(&out->layout, &out->model, "the layout", &err) != STATUS_OK)
        return skip(builder, "%s", err.message);
    return true;
}

/* ---- cluster ---- */

bool cluster_resized(const struct cluster *cluster, int64_t devices, struct cluster *out)
{
    struct cluster resized = *cluster;
    struct node_group *group = &resized.groups[0];
    struct error err;
    resized.group_count = 1;
    if (devices > group->nodes * group->node_devices && group->tier_count < 2)
        return false;
    if (devices >= group->node_devices && devices % group->node_devices != 0)
        return false;
    if (devices < group->node_devices)
        group->node_devices = devices;
    group->nodes = devices / group->node_devices;
    /* The narrowest tier that holds all of them joins the group, and else the widest. */
    size_t last = 0;
    while (last + 1 < group->tier_count && group->tiers[last].devices < devices)
        last++;
    if (group->tier_count > 0) {
        group->tiers[last].devices = devices;
        group->tier_count = last + 1;
    }
    if (cluster_validate(&resized, "the cluster", &err) != STATUS_OK)
        return false;
    *out = resized;
    return true;
}

/* Are the two names of one device? Those that temper knows may be written in many ways. */
static bool same_device(const char *cell, const char *device)
{
    struct cluster a, b;
    if (strcasecmp(cell, device) == 0)
        return true;
    return cluster_of_device(cell, 1, &a) && cluster_of_device(device, 1, &b) &&
           strcmp(a.groups[0].device.name, b.groups[0].device.name) == 0;
}

static bool take_described(struct builder *builder)
{
    const struct case_row *row = builder->row;
    const char *device = builder->described->groups[0].device.name;
    if (!same_device(row->gpu, device))
        return skip(builder, "column 'gpu': '%.60s' is not the %s of --cluster", row->gpu, device);
    if (!cluster_resized(builder->described, row->gpus, &builder->out->cluster))
        return skip(builder, "column 'gpus': --cluster describes no links that join so many, or "
                             "nodes that they do not fill");
    return true;
}

static bool take_builtin(struct builder *builder)
{
    const struct case_row *row = builder->row;
    struct cluster *cluster = &builder->out->cluster;
    if (!cluster_of_device(row->gpu, row->gpus, cluster))
        return skip(builder,
                    "column 'gpu': '%.60s' is no device that temper knows, or 'gpus' no "
                    "whole number of its nodes; describe it with --cluster",
                    row->gpu);
    const struct node_group *group = &cluster->groups[0];
    if (row->gpus_per_node != CASE_EMPTY && row->gpus > row->gpus_per_node &&
        row->gpus_per_node != group->node_devices)
        return skip(builder,
                    "column 'gpus_per_node': nodes of %s have %lld; describe others with "
                    "--cluster",
                    group->device.name, (long long)group->node_devices);
    return true;
}

static bool build_cluster(struct builder *builder)
{
    const struct case_row *row = builder->row;
    const char *network = builder->system.network;
    if (row->gpu[0] == '\0')
        return skip(builder, "column 'gpu' is empty");
    if (!(builder->described != NULL ? take_described(builder) : take_builtin(builder)))
        return false;
    if (network != NULL && !cluster_set_network(&builder->out->cluster, network))
        return skip(builder, "column 'network': '%.60s' is no network such as ib-8x200", network);
    return true;
}

/* ---- measurement ---- */

static struct quantity measured(double value)
{
    return (struct quantity){.value = value, .provenance = PROVENANCE_MEASURED};
}

/* Is one of the notes, which ';' separates, just this? */
static bool has_note(const char *notes, const char *word)
{
    size_t bytes = strlen(word);
    for (const char *at = notes; at != NULL; at = strchr(at, ';')) {
        at += strspn(at, "; ");
        if (strncasecmp(at, word, bytes) != 0)
            continue;
        const char *rest = at + bytes + strspn(at + bytes, " ");
        if (*rest == '\0' || *rest == ';')
            return true;
    }
    return false;
}

static bool build_measured(struct builder *builder)
{
    const struct case_row *row = builder->row;
    struct run_case *out = builder->out;
    out->step_s = out->memory_bytes = out->energy_j = quantity_absent();
    out->out_of_memory = has_note(row->notes, "OOM") || has_note(row->notes, "out of memory");
    out->memory_of_allocator = !says(builder, "nvidia-smi");
    if (!isnan(row->iter_time_s))
        out->step_s = measured(row->iter_time_s);
    else if (!isnan(row->tokens_s_gpu) && row->gbs > 0 && row->seq > 0 && row->gpus > 0)
        out->step_s =
            measured((double)row->gbs * (double)row->seq / (row->tokens_s_gpu * (double)row->gpus));
    if (!isnan(row->mem_gib))
        out->memory_bytes = measured(row->mem_gib * GIB);
    if (!isnan(row->iter_energy_j))
        out->energy_j = measured(row->iter_energy_j);
    if (out->out_of_memory)
        out->step_s = out->memory_bytes = out->energy_j = quantity_absent();
    if (!out->out_of_memory && out->step_s.provenance == PROVENANCE_ABSENT &&
        out->memory_bytes.provenance == PROVENANCE_ABSENT &&
        out->energy_j.provenance == PROVENANCE_ABSENT)
        return skip(builder, "columns 'iter_time_s', 'tokens_s_gpu', 'mem_gib' and "
                             "'iter_energy_j' are empty");
    return true;
}

/* ---- the file ---- */

static void append_degree(char name[CASE_TEXT_BYTES], const char *label, int64_t degree)
{
    size_t used = strlen(name);
    if (degree != CASE_EMPTY)
        (void)snprintf(name + used, CASE_TEXT_BYTES - used, " %s %lld", label, (long long)degree);
}

static void name_case(const struct case_row *row, char name[CASE_TEXT_BYTES])
{
    (void)snprintf(name, CASE_TEXT_BYTES, "%.60s, %lld x %.60s,", row->model,
                   (long long)(row->gpus == CASE_EMPTY ? 0 : row->gpus), row->gpu);
    append_degree(name, "tp", row->tp);
    append_degree(name, "pp", row->pp);
    append_degree(name, "dp", row->dp);
    if (row->cp > 1)
        append_degree(name, "cp", row->cp);
    append_degree(name, "mb", row->mbs);
}

/* Cells that are empty in every run of a system, since all of them are alike there. */
static void fill_from_system(const struct case_system *system, struct case_row *row)
{
    if (row->cp == CASE_EMPTY && system->context_parallel > 0)
        row->cp = system->context_parallel;
    if (row->vp == CASE_EMPTY && system->virtual_stages > 0)
        row->vp = system->virtual_stages;
    if (row->recompute[0] == '\0' && system->recomputes_all)
        row->recompute = recompute_name(RECOMPUTE_FULL);
}

/* A model that is named without sizes, where the source says which sizes it means. */
static const struct case_model *fill_from_name(struct case_row *row)
{
    int64_t *const sizes[] = {&row->layers, &row->hidden, &row->heads, &row->kv_heads,
                              &row->ffn,    &row->vocab,  &row->seq};
    const struct case_model *named = case_model_find(row->source, row->model);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        if (*sizes[i] != CASE_EMPTY)
            return NULL;
    if (named == NULL || named->unlike != NULL)
        return named;
    const int64_t known[] = {named->blocks, named->hidden, named->heads, named->heads,
                             named->ffn,    named->vocab,  named->seq};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        *sizes[i] = known[i];
    return named;
}

static enum status build_case(struct case_row *row, const struct cluster *described,
                              struct run_case *out)
{
    const struct case_system *system = case_system_find(row->source);
    struct builder builder = {.row = row, .described = described, .out = out};
    if (system != NULL)
        fill_from_system(system, row);
    builder.named = fill_from_name(row);
    name_case(row, out->name);
    (void)(build_measured(&builder) && build_model(&builder) && build_system(&builder) &&
           build_layout(&builder) && build_cluster(&builder) && check_layout(&builder));
    return builder.status;
}

static void name_cases(const char *path, char name[CASE_TEXT_BYTES])
{
    const char *slash = strrchr(path, '/');
    (void)snprintf(name, CASE_TEXT_BYTES, "%s", slash != NULL ? slash + 1 : path);
    char *ending = strrchr(name, '.');
    if (ending != NULL && ending != name && strcasecmp(ending, ".csv") == 0)
        *ending = '\0';
}

static enum status build_cases(const struct csv_table *table, const char *path,
                               const struct cluster *described, struct run_cases *out,
                               struct error *err)
{
    struct case_columns columns;
    TRY(case_columns_find(table, path, &columns, err));
    name_cases(path, out->name);
    if (table->row_count == 0)
        return STATUS_OK;
    out->rows = calloc(table->row_count, sizeof(out->rows[0]));
    if (out->rows == NULL)
        return error_memory(err, table->row_count * sizeof(out->rows[0]), "the runs of a table");
    for (size_t i = 0; i < table->row_count; i++) {
        struct case_row row;
        TRY(case_row_read(table, &columns, i, path, &row, err));
        out->rows[i].line = table->lines[i];
        out->count++;
        if (build_case(&row, described, &out->rows[i]) != STATUS_OK)
            return error_memory(err, sizeof(struct block_plan), "the stages of a run");
    }
    return STATUS_OK;
}

enum status run_cases_load(struct run_cases *out, const char *path, const struct cluster *described,
                           struct error *err)
{
    struct csv_table table;
    struct run_cases cases = {0};
    TRY(csv_load(&table, path, err));
    enum status status = build_cases(&table, path, described, &cases, err);
    csv_free(&table);
    if (status != STATUS_OK) {
        run_cases_free(&cases);
        return status;
    }
    *out = cases;
    return STATUS_OK;
}

void run_cases_free(struct run_cases *cases)
{
    for (size_t i = 0; i < cases->count; i++)
        free(cases->rows[i].blocks);
    free(cases->rows);
    *cases = (struct run_cases){0};
}
