#include "export_names.h"

enum { MAX_BLOCKS = 128, MAX_STAGES = 16 };

/* A layout to hand over, with room for a block plan. */
struct made {
    struct model model;
    struct layout layout;
    struct block_mode modes[MAX_BLOCKS];
    int64_t stage_blocks[MAX_STAGES];
    size_t stage_groups[MAX_STAGES];
    struct block_plan plan;
};

static struct model load_builtin(const char *name)
{
    struct model_overrides none = {0};
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, &none, &err), &err);
    return model;
}

static struct layout make_layout(void)
{
    return (struct layout){
        .framework = FRAMEWORK_MEGATRON,
        .devices = 32,
        .pipeline = 2,
        .virtual_stages = 1,
        .data = 4,
        .tensor = 2,
        .context = 2,
        .expert = 1,
        .schedule = SCHEDULE_1F1B,
        .sequence_parallel = true,
        .zero_stage = 1,
        .shard = 8,
        .micro_batch = 1,
        .global_batch = 64,
        .recompute = RECOMPUTE_FULL,
        .arithmetic = ARITHMETIC_BF16,
        .fused_attention = true,
        .overlap_gradients = true,
        .overlap_parameters = true,
    };
}

/* Stages of llama-3-8b's 32 blocks, two replicas each, nothing recomputed. */
static void plan(struct made *out, const int64_t *stage_blocks, int64_t stages)
{
    struct error err;
    *out = (struct made){.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    out->layout.pipeline = stages;
    out->layout.devices = 2 * stages;
    out->layout.data = out->layout.shard = 2;
    out->layout.context = out->layout.tensor = 1;
    out->layout.sequence_parallel = false;
    out->layout.recompute = RECOMPUTE_NONE;
    for (int64_t i = 0; i < stages; i++)
        out->stage_blocks[i] = stage_blocks[i];
    for (int64_t i = 0; i < out->model.blocks; i++)
        out->modes[i] = (struct block_mode){RECOMPUTE_NONE, ARITHMETIC_BF16, false};
    out->plan = (struct block_plan){out->modes, out->stage_blocks, out->stage_groups};
    out->layout.own = &out->plan;
    assert_ok(layout_check(&out->layout, &out->model, "test", &err), &err);
}

static void recompute(struct made *made, int64_t first, int64_t count)
{
    for (int64_t i = first; i < first + count; i++)
        made->modes[i].recompute = RECOMPUTE_FULL;
}

static struct own_layout open_layout(const struct made *made)
{
    struct own_layout own;
    struct error err;
    assert_ok(layout_check(&made->layout, &made->model, "test", &err), &err);
    assert_ok(own_layout_open(&own, &made->layout, &made->model, &err), &err);
    return own;
}

/* The first way of a field, or the first of `count` where it is not below zero; how many change. */
static size_t level(enum export_target target, enum handover_field field, size_t way,
                    const struct model *model, struct own_layout *own, char *text)
{
    const struct handover_choice choice = {field, false};
    struct export_way out;
    struct error err;
    assert_ok(export_layout_level(target, &choice, way, model, own, &out, &err), &err);
    assert_true(out.exists);
    if (text != NULL)
        memcpy(text, out.text, sizeof(out.text));
    return out.changed;
}

/* Every field in the first way whose layout is valid; returns the changed fields as bits. */
static unsigned level_all(enum export_target target, const struct model *model,
                          struct own_layout *own)
{
    unsigned fields = 0;
    struct error err;
    for (int i = 0; i < HANDOVER_FIELD_COUNT; i++) {
        const struct handover_choice choice = {(enum handover_field)i, false};
        for (size_t way = 0;; way++) {
            struct own_layout trial;
            struct export_way out;
            assert_ok(own_layout_open(&trial, &own->layout, model, &err), &err);
            assert_ok(export_layout_level(target, &choice, way, model, &trial, &out, &err), &err);
            if (!out.exists)
                fail_msg("%s: no way for %s", export_target_name(target),
                         handover_field_name((enum handover_field)i));
            if (out.changed == 0 || layout_check(&trial.layout, model, "test", &err) == STATUS_OK) {
                fields |= out.changed > 0 ? 1U << i : 0;
                own_layout_free(own);
                *own = trial;
                break;
            }
            own_layout_free(&trial);
        }
    }
    return fields;
}

/* What export_layout makes of a levelled layout; the caller frees it. */
static char *write_own(enum export_target target, const struct model *model,
                       const struct own_layout *own, struct text *notes)
{
    struct text file = {0}, ignored = {0};
    struct error err;
    assert_ok(export_layout(target, model, own, &file, notes != NULL ? notes : &ignored, &err),
              &err);
    text_free(&ignored);
    char *copy = strdup(file.data);
    assert_non_null(copy);
    check_file(target, copy);
    free(copy);
    return file.data;
}

/* Levelled and written; only `fields` may have been changed for it. */
static char *hand_over(enum export_target target, const struct made *made, unsigned fields,
                       struct text *notes)
{
    struct own_layout own = open_layout(made);
    unsigned changed = level_all(target, &made->model, &own);
    if (changed != fields)
        fail_msg("%s: changed fields %x, not %x", export_target_name(target), changed, fields);
    char *file = write_own(target, &made->model, &own, notes);
    own_layout_free(&own);
    return file;
}

static void assert_file(enum export_target target, const struct made *made, unsigned fields,
                        const char *part)
{
    char *file = hand_over(target, made, fields, NULL);
    assert_contains(file, part);
    free(file);
}

enum {
    CHANGED_SCHEDULE = 1U << HANDOVER_SCHEDULE,
    CHANGED_STAGES = 1U << HANDOVER_STAGES,
    CHANGED_SEQUENCE = 1U << HANDOVER_SEQUENCE,
    CHANGED_ARITHMETIC = 1U << HANDOVER_ARITHMETIC,
    CHANGED_ATTENTION = 1U << HANDOVER_ATTENTION,
    CHANGED_RECOMPUTE = 1U << HANDOVER_RECOMPUTE,
    CHANGED_OFFLOAD = 1U << HANDOVER_OFFLOAD_ACTIVATIONS,
    CHANGED_OPTIMIZER = 1U << HANDOVER_OFFLOAD_OPTIMIZER,
    CHANGED_ZERO = 1U << HANDOVER_ZERO
};

/* ---- uniform layouts ---- */

/* Eight replicas of all of llama-3-8b, whose attention is not fused. */
static struct made unfused(enum framework framework, int zero_stage, enum recompute recompute)
{
    struct made made = {.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    made.layout.framework = framework;
    made.layout.devices = made.layout.data = made.layout.shard = 8;
    made.layout.pipeline = made.layout.tensor = made.layout.context = 1;
    made.layout.sequence_parallel = false;
    made.layout.zero_stage = zero_stage;
    made.layout.recompute = recompute;
    made.layout.fused_attention = false;
    return made;
}

static void test_export_layout__attention_that_is_not_fused(void **state)
{
    struct made made = unfused(FRAMEWORK_MEGATRON, 1, RECOMPUTE_SELECTIVE);
    struct text notes = {0};
    (void)state;
    assert_file(EXPORT_MEGATRON, &made, 0,
                "--attention-backend unfused\n--recompute-granularity selective\n");
    free(hand_over(EXPORT_NEMO, &made, 0, &notes));
    assert_contains(notes.data, "NVTE_FLASH_ATTN=0 and NVTE_FUSED_ATTN=0");
    text_free(&notes);
    made.layout.fused_attention = true;
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_null(strstr(file, "--attention-backend"));
    free(file);
    made = unfused(FRAMEWORK_DEEPSPEED, 1, RECOMPUTE_SELECTIVE);
    free(hand_over(EXPORT_DEEPSPEED, &made, 0, &notes));
    assert_contains(notes.data, "attn_implementation='eager'");
    assert_contains(notes.data, "recomputes its probabilities");
    text_free(&notes);
    made = unfused(FRAMEWORK_FSDP, 3, RECOMPUTE_FULL);
    assert_file(EXPORT_TORCHTITAN, &made, CHANGED_ATTENTION, "mode = \"full\"\n");
}

static void test_export_layout__communication_that_does_not_overlap(void **state)
{
    struct made made = unfused(FRAMEWORK_MEGATRON, 1, RECOMPUTE_NONE);
    struct text notes = {0};
    (void)state;
    assert_file(EXPORT_MEGATRON, &made, 0, "--overlap-grad-reduce\n--overlap-param-gather\n");
    made.layout.overlap_gradients = made.layout.overlap_parameters = false;
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_null(strstr(file, "--overlap"));
    free(file);
    made.layout.framework = FRAMEWORK_DEEPSPEED;
    assert_file(EXPORT_DEEPSPEED, &made, 0, "\"overlap_comm\": false");
    made = unfused(FRAMEWORK_FSDP, 3, RECOMPUTE_FULL);
    made.layout.overlap_gradients = made.layout.overlap_parameters = false;
    free(hand_over(EXPORT_TORCHTITAN, &made, CHANGED_ATTENTION, &notes));
    assert_contains(notes.data, "hides communication");
    text_free(&notes);
}

static void test_export_layout__megatron_and_torchtitan(void **state)
{
    struct made made = {.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    (void)state;
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_contains(file, "--context-parallel-size 2\n");
    assert_contains(file, "--use-distributed-optimizer\n");
    assert_contains(file, "--global-batch-size 64\n");
    assert_contains(file, "--recompute-method uniform\n");
    free(file);
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 3;
    file = hand_over(EXPORT_TORCHTITAN, &made, 0, NULL);
    assert_contains(file, "context_parallel_degree = 2\n");
    assert_contains(file, "data_parallel_shard_degree = 4\n");
    /* 64 sequences on 4 replicas */
    assert_contains(file, "local_batch_size = 16\n");
    assert_contains(file, "flavor = \"8B\"\n");
    free(file);
    made.layout.recompute = RECOMPUTE_SELECTIVE;
    assert_file(EXPORT_TORCHTITAN, &made, 0,
                "mode = \"selective\"\nselective_ac_option = \"op\"\n");
    made.layout.recompute = RECOMPUTE_NONE;
    assert_file(EXPORT_TORCHTITAN, &made, 0, "mode = \"none\"\n");
}

/* Mixtral's experts on four of the eight devices that replicate a stage; every second block dense,
 * one more at the end. */
static void test_export_layout__experts(void **state)
{
    struct made made = {.model = load_builtin("mixtral-8x7b"), .layout = make_layout()};
    struct error err;
    (void)state;
    made.layout.expert = 4;
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_contains(file, "--num-experts 8\n--moe-router-topk 2\n");
    assert_contains(file, "--moe-ffn-hidden-size 14336\n");
    assert_contains(file, "--expert-model-parallel-size 4\n");
    assert_null(strstr(file, "--moe-layer-freq"));
    free(file);
    file = hand_over(EXPORT_NEMO, &made, 0, NULL);
    assert_contains(file, "++model.num_moe_experts=8\n++model.moe_router_topk=2\n"
                          "++model.expert_model_parallel_size=4\n");
    assert_contains(file, "++model.context_parallel_size=2\n");
    assert_contains(file, "model.ffn_hidden_size=14336\n");
    free(file);
    made.model.blocks = 7;
    made.model.moe_every = 2;
    assert_file(EXPORT_MEGATRON, &made, 0, "--moe-layer-freq ([0]*1+[1]*1)*3+[0]*1\n");
    assert_int_equal(export_layout_check(EXPORT_NEMO, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "in every block");
    assert_int_equal(export_layout_check(EXPORT_DEEPSPEED, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    made.layout.context = made.layout.expert = 1;
    assert_int_equal(export_layout_check(EXPORT_TORCHTITAN, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "mixture of experts");
}

static void test_export_layout__qwen_and_bert(void **state)
{
    struct made made = {.model = load_builtin("qwen2.5-7b"), .layout = make_layout()};
    struct model bert = load_builtin("bert-base-uncased");
    struct error err;
    (void)state;
    assert_file(EXPORT_MEGATRON, &made, 0, "--disable-bias-linear\n--add-qkv-bias\n");
    assert_int_equal(export_layout_check(EXPORT_TORCHTITAN, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "biases");
    assert_int_equal(export_layout_check(EXPORT_MEGATRON, &bert, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "encoder");
}

/* ---- who shares ZeRO's state, and what waits on the host ---- */

/* ZeRO's state over four of eight data-parallel ranks, two of which share each sequence. */
static void test_export_layout__part_of_the_replicas_shares_state(void **state)
{
    struct made made = {.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    (void)state;
    made.layout.shard = 4;
    assert_file(EXPORT_MEGATRON, &made, 0, "--num-distributed-optimizer-instances 2\n");
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 3;
    char *file = hand_over(EXPORT_TORCHTITAN, &made, 0, NULL);
    assert_contains(file, "data_parallel_replicate_degree = 2\n");
    assert_contains(file, "data_parallel_shard_degree = 2\n");
    free(file);
    made.layout.framework = FRAMEWORK_DEEPSPEED;
    made.layout.sequence_parallel = false;
    made.layout.pipeline = made.layout.tensor = made.layout.context = 1;
    made.layout.data = 32;
    assert_file(EXPORT_DEEPSPEED, &made, 0, "\"mics_shard_size\": 4");
}

/* What the target does not share so it shares out further: the next it has, then all ranks. */
static void test_export_layout_level__shard(void **state)
{
    struct made made = {.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    char text[EXPORT_TEXT_BYTES];
    (void)state;
    made.layout.shard = 4;
    for (size_t way = 0; way < 2; way++) {
        struct own_layout own = open_layout(&made);
        assert_int_equal(level(EXPORT_TORCHTITAN, HANDOVER_ZERO, way, &made.model, &own, text), 32);
        assert_int_equal(own.layout.framework, FRAMEWORK_FSDP);
        assert_int_equal(own.layout.zero_stage, 2);
        assert_int_equal(own.layout.shard, way == 0 ? 4 : 8);
        assert_string_equal(text, way == 0 ? "ZeRO stage 2 over 4 devices of fsdp"
                                           : "ZeRO stage 2 of fsdp");
        own_layout_free(&own);
    }
    struct own_layout own = open_layout(&made);
    assert_int_equal(level(EXPORT_NEMO, HANDOVER_ZERO, 0, &made.model, &own, NULL), 32);
    assert_int_equal(own.layout.shard, 8);
    own_layout_free(&own);
    /* one device's own state: the two of a sequence are the least that torchtitan has */
    made.layout.shard = 1;
    own = open_layout(&made);
    level(EXPORT_TORCHTITAN, HANDOVER_ZERO, 0, &made.model, &own, NULL);
    assert_int_equal(own.layout.shard, 2);
    own_layout_free(&own);
}

static void test_export_layout__offload(void **state)
{
    struct made made = {.model = load_builtin("llama-3-8b"), .layout = make_layout()};
    struct layout *layout = &made.layout;
    (void)state;
    layout->devices = layout->data = layout->shard = 8;
    layout->pipeline = layout->tensor = layout->context = 1;
    layout->sequence_parallel = false;
    layout->recompute = RECOMPUTE_NONE;
    layout->offload_activations = layout->offload_optimizer = true;
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_contains(file, "--cpu-offloading-num-layers 31\n");
    assert_contains(file, "--optimizer-cpu-offload\n--optimizer-offload-fraction 1.0\n");
    free(file);
    file = hand_over(EXPORT_NEMO, &made, CHANGED_OFFLOAD | CHANGED_OPTIMIZER, NULL);
    free(file);
    layout->framework = FRAMEWORK_DEEPSPEED;
    layout->recompute = RECOMPUTE_FULL;
    layout->zero_stage = 2;
    file = hand_over(EXPORT_DEEPSPEED, &made, 0, NULL);
    assert_contains(file, "\"cpu_checkpointing\": true");
    assert_contains(file, "\"device\": \"cpu\"");
    free(file);
    layout->framework = FRAMEWORK_FSDP;
    file = hand_over(EXPORT_TORCHTITAN, &made, CHANGED_OFFLOAD, NULL);
    assert_contains(file, "enable_cpu_offload = true\n");
    free(file);
}

/* Of block plans Megatron-LM takes the first blocks of a model without pipeline. */
static void test_export_layout__offload_of_some_blocks(void **state)
{
    const int64_t sizes[] = {32};
    struct made made;
    (void)state;
    plan(&made, sizes, 1);
    for (int64_t i = 0; i < 5; i++)
        made.modes[i].offload = true;
    assert_file(EXPORT_MEGATRON, &made, 0, "--cpu-offloading-num-layers 5\n");
    made.modes[4].offload = false;
    made.modes[9].offload = true;
    struct own_layout own = open_layout(&made);
    assert_int_equal(
        level(EXPORT_MEGATRON, HANDOVER_OFFLOAD_ACTIVATIONS, 0, &made.model, &own, NULL), 2);
    own_layout_free(&own);
    assert_file(EXPORT_MEGATRON, &made, CHANGED_OFFLOAD, "--cpu-offloading-num-layers 5\n");
}

/* ---- stages ---- */

static void test_export_layout__stages(void **state)
{
    const int64_t ends[] = {7, 9, 9, 7}, mixed[] = {5, 9, 10, 8};
    struct made made;
    (void)state;
    plan(&made, ends, 4);
    assert_file(EXPORT_MEGATRON, &made, 0,
                "--decoder-first-pipeline-num-layers 7\n--decoder-last-pipeline-num-layers 7\n");
    plan(&made, mixed, 4);
    assert_file(EXPORT_MEGATRON, &made, 0,
                "--pipeline-model-parallel-layout Ettttt|ttttttttt|tttttttttt|ttttttttL\n");
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 2;
    char *file = hand_over(EXPORT_TORCHTITAN, &made, 0, NULL);
    assert_contains(file, "  [\"tok_embeddings\", \"layers.0\", \"layers.1\", \"layers.2\", "
                          "\"layers.3\", \"layers.4\"],\n  [\"layers.5\",");
    free(file);
}

/* Stages of 7, 9, 9 and 7 become four of 8: block 7 moves to the first, block 24 to the last. */
static void test_export_layout_level__stages(void **state)
{
    const int64_t ends[] = {7, 9, 9, 7};
    struct made made;
    char text[EXPORT_TEXT_BYTES];
    (void)state;
    plan(&made, ends, 4);
    struct own_layout own = open_layout(&made);
    assert_int_equal(level(EXPORT_NEMO, HANDOVER_STAGES, 0, &made.model, &own, text), 2);
    assert_string_equal(text, "the same number of blocks on every stage");
    assert_null(own.layout.own); /* nothing of it differs any more */
    own_layout_free(&own);
    made.model.blocks = 30;
    made.stage_blocks[1] = made.stage_blocks[2] = 8;
    own = open_layout(&made);
    const struct handover_choice choice = {HANDOVER_STAGES, false};
    struct export_way way;
    struct error err;
    assert_int_equal(export_layout_level(EXPORT_NEMO, &choice, 0, &made.model, &own, &way, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "30 blocks do not divide by 4 stages");
    /* DeepSpeed balances blocks, embedding and head: 7, 8, 8, 7 are what it does by itself */
    assert_int_equal(level(EXPORT_DEEPSPEED, HANDOVER_STAGES, 0, &made.model, &own, NULL), 0);
    own_layout_free(&own);
}

/* Chunk c of stage s is virtual stage c * stages + s. */
static void test_export_layout__interleaved_stages(void **state)
{
    const int64_t sizes[] = {14, 18};
    struct made made;
    (void)state;
    plan(&made, sizes, 2);
    made.layout.schedule = SCHEDULE_INTERLEAVED;
    made.layout.virtual_stages = 2;
    recompute(&made, 0, 3);  /* of the first stage's first chunk */
    recompute(&made, 7, 3);  /* and of its second */
    recompute(&made, 14, 3); /* the second stage's */
    recompute(&made, 23, 3);
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_contains(file,
                    "--pipeline-model-parallel-layout Ettttttt|ttttttttt|ttttttt|tttttttttL\n");
    assert_contains(file, "--recompute-num-layers 3\n");
    free(file);
}

/* 30 blocks of two stages with two chunks: with embedding and head as one each there are four times
 * eight, so the first and the last virtual stage have seven. */
static void test_export_layout__interleaved_with_ends(void **state)
{
    const int64_t sizes[] = {16, 16};
    struct made made;
    (void)state;
    plan(&made, sizes, 2);
    made.model.blocks = 30;
    made.layout.own = NULL;
    made.layout.schedule = SCHEDULE_INTERLEAVED;
    made.layout.virtual_stages = 2;
    assert_file(EXPORT_MEGATRON, &made, 0,
                "--pipeline-model-parallel-layout Ettttttt|tttttttt|tttttttt|tttttttL\n");
}

static void test_export_layout_level__schedule(void **state)
{
    const int64_t sizes[] = {16, 16};
    struct made made;
    char text[EXPORT_TEXT_BYTES];
    (void)state;
    plan(&made, sizes, 2);
    made.layout.schedule = SCHEDULE_ZB_H1;
    struct own_layout own = open_layout(&made);
    assert_int_equal(level(EXPORT_MEGATRON, HANDOVER_SCHEDULE, 0, &made.model, &own, text), 32);
    assert_string_equal(text, "schedule 1f1b");
    assert_int_equal(own.layout.schedule, SCHEDULE_1F1B);
    own_layout_free(&own);
    made.layout.schedule = SCHEDULE_INTERLEAVED;
    made.layout.virtual_stages = 4;
    own = open_layout(&made);
    assert_int_equal(level(EXPORT_DEEPSPEED, HANDOVER_SCHEDULE, 0, &made.model, &own, NULL), 32);
    assert_int_equal(own.layout.virtual_stages, 1);
    own_layout_free(&own);
}

static void test_export_layout__node_groups(void **state)
{
    const int64_t sizes[] = {6, 6, 10, 10};
    struct made made;
    struct text notes = {0};
    (void)state;
    plan(&made, sizes, 4);
    made.stage_groups[2] = made.stage_groups[3] = 1;
    free(hand_over(EXPORT_MEGATRON, &made, 0, &notes));
    assert_contains(notes.data, "list the hosts in the order of the stages: stages 0 to 1 on node "
                                "group 0, stages 2 to 3 on node group 1 of the cluster\n");
    text_free(&notes);
}

/* ---- recompute ---- */

static void test_export_layout__first_blocks_recomputed(void **state)
{
    const int64_t ends[] = {7, 9, 9, 7};
    const int64_t begins[] = {0, 7, 16, 25};
    struct made made;
    struct text notes = {0};
    (void)state;
    plan(&made, ends, 4);
    for (size_t i = 0; i < 4; i++)
        recompute(&made, begins[i], 2);
    assert_file(EXPORT_MEGATRON, &made, 0,
                "--recompute-granularity full\n--recompute-method block\n"
                "--recompute-num-layers 2\n");
    assert_file(EXPORT_NEMO, &made, CHANGED_STAGES | CHANGED_RECOMPUTE, "model.num_layers=32\n");
    made.layout.framework = FRAMEWORK_DEEPSPEED;
    free(hand_over(EXPORT_DEEPSPEED, &made, CHANGED_STAGES, &notes));
    assert_contains(notes.data,
                    "the script recomputes blocks 0-1, 7-8, 16-17, 25-26 and no others");
    text_free(&notes);
}

/* Three, one, none and none of the stages' first blocks: Megatron-LM has one number for all. Three
 * of each change 2 + 3 + 3 blocks, one of each 2 + 1 + 1, none 4, all 28. */
static void test_export_layout_level__unlike_numbers_of_blocks(void **state)
{
    const int64_t sizes[] = {8, 8, 8, 8};
    size_t changed_of_three = 0, changed_of_one = 0, changed_of_none = 0, changed_of_all = 0;
    struct made made;
    (void)state;
    plan(&made, sizes, 4);
    recompute(&made, 0, 3);
    recompute(&made, 8, 1);
    for (size_t way = 0; way < 10; way++) { /* none, selective, full, and of the first 7 to 1 */
        struct own_layout own = open_layout(&made);
        char text[EXPORT_TEXT_BYTES];
        size_t changed = level(EXPORT_MEGATRON, HANDOVER_RECOMPUTE, way, &made.model, &own, text);
        if (strstr(text, "first 3 of each stage's") != NULL)
            changed_of_three = changed;
        if (strstr(text, "first 1 of each stage's") != NULL)
            changed_of_one = changed;
        if (strcmp(text, "no recomputation") == 0)
            changed_of_none = changed;
        if (strcmp(text, "full recomputation of every block") == 0)
            changed_of_all = changed;
        assert_int_equal(level(EXPORT_MEGATRON, HANDOVER_RECOMPUTE, 0, &made.model, &own, NULL), 0);
        own_layout_free(&own);
    }
    assert_int_equal(changed_of_three, 8);
    assert_int_equal(changed_of_one, 4);
    assert_int_equal(changed_of_none, 4);
    assert_int_equal(changed_of_all, 28);
}

/* Asked for all ways there are those that change something, too: none, selective, full, as it is,
 * and of the first seven to one of eight. */
static void test_export_layout_level__all_ways(void **state)
{
    const struct handover_choice choice = {HANDOVER_RECOMPUTE, true};
    const int64_t sizes[] = {8, 8, 8, 8};
    struct made made;
    size_t count = 0;
    bool is_offered = true;
    (void)state;
    plan(&made, sizes, 4);
    recompute(&made, 4, 4);
    for (; is_offered; count++) {
        struct own_layout own = open_layout(&made);
        struct export_way out;
        struct error err;
        assert_ok(
            export_layout_level(EXPORT_DEEPSPEED, &choice, count, &made.model, &own, &out, &err),
            &err);
        is_offered = out.exists;
        assert_true(!is_offered || (out.changed == 0) == (count == 3));
        own_layout_free(&own);
    }
    assert_int_equal(count - 1, 4 + 7);
}

static void test_export_layout__every_second_block_recomputed(void **state)
{
    const int64_t sizes[] = {11, 21};
    struct made made;
    (void)state;
    plan(&made, sizes, 2);
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 2;
    for (int64_t i = 1; i < 11; i += 2)
        recompute(&made, i, 1);
    for (int64_t i = 12; i < 32; i += 2)
        recompute(&made, i, 1);
    assert_file(EXPORT_TORCHTITAN, &made, 0, "mode = \"selective\"\nselective_ac_option = \"2\"\n");
}

/* ---- arithmetic ---- */

static void fp8(struct made *made, int64_t first, int64_t end)
{
    for (int64_t i = first; i < end; i++)
        made->modes[i].arithmetic = ARITHMETIC_FP8;
}

static void test_export_layout__fp8(void **state)
{
    const int64_t sizes[] = {16, 16};
    struct made made;
    (void)state;
    plan(&made, sizes, 2);
    fp8(&made, 2, 31);
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL);
    assert_contains(file, "--bf16\n--fp8-format hybrid\n--fp8-recipe tensorwise\n"
                          "--first-last-layers-bf16\n--num-layers-at-start-in-bf16 2\n"
                          "--num-layers-at-end-in-bf16 1\n");
    free(file);
    /* a target may be less quick, never less exact: all of it in bf16 */
    file = hand_over(EXPORT_NEMO, &made, CHANGED_ARITHMETIC, NULL);
    assert_null(strstr(file, "fp8"));
    free(file);
    made.modes[10].arithmetic = ARITHMETIC_BF16;
    struct own_layout own = open_layout(&made);
    assert_int_equal(level(EXPORT_MEGATRON, HANDOVER_ARITHMETIC, 0, &made.model, &own, NULL), 8);
    own_layout_free(&own);
    assert_file(EXPORT_MEGATRON, &made, CHANGED_ARITHMETIC, "--num-layers-at-start-in-bf16 11\n");
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 2;
    assert_file(EXPORT_TORCHTITAN, &made, 0,
                "filter_fqns = [\"output\", \"layers.0.\", \"layers.1.\", \"layers.10.\", "
                "\"layers.31.\"]\n");
}

/* Of two stages with two chunks of eight the first has the model's blocks 0-7 and 16-23: the ninth
 * of its block plan is 16. */
static void test_export_layout__fp8_of_interleaved_blocks(void **state)
{
    const int64_t sizes[] = {16, 16};
    struct made made;
    (void)state;
    plan(&made, sizes, 2);
    made.layout.framework = FRAMEWORK_FSDP;
    made.layout.zero_stage = 2;
    made.layout.schedule = SCHEDULE_INTERLEAVED;
    made.layout.virtual_stages = 2;
    fp8(&made, 0, 8);
    fp8(&made, 9, 32);
    assert_file(EXPORT_TORCHTITAN, &made, 0, "filter_fqns = [\"output\", \"layers.16.\"]\n");
}

/* Megatron-LM keeps no more blocks of an end in bf16 than a stage has. */
static void test_export_layout__fp8_of_few_blocks(void **state)
{
    const int64_t sizes[] = {8, 8, 8, 8};
    struct made made;
    (void)state;
    plan(&made, sizes, 4);
    fp8(&made, 9, 32);
    char *file = hand_over(EXPORT_MEGATRON, &made, CHANGED_ARITHMETIC, NULL);
    assert_null(strstr(file, "fp8"));
    free(file);
    fp8(&made, 0, 9);
    assert_file(EXPORT_MEGATRON, &made, 0, "--fp8-format hybrid\n");
    assert_file(EXPORT_NEMO, &made, 0, "model.fp8=True\nmodel.fp8_hybrid=True\n");
}

/* ---- the documented example ---- */

/* The block of docs/export.md with this fence; the caller frees it. */
static char *documented(const char *fence)
{
    char path[512];
    char *text;
    size_t bytes;
    struct error err;
    snprintf(path, sizeof(path), "%s/docs/export.md", TEMPER_SOURCE_DIR);
    assert_ok(file_read(path, &text, &bytes, &err), &err);
    const char *start = strstr(text, fence);
    assert_non_null(start);
    start += strlen(fence);
    const char *end = strstr(start, "```");
    assert_non_null(end);
    char *block = strndup(start, (size_t)(end - start));
    assert_non_null(block);
    free(text);
    return block;
}

static void test_export_layout__documented_example(void **state)
{
    const int64_t ends[] = {7, 9, 9, 7};
    const int64_t begins[] = {0, 7, 16, 25};
    struct made made;
    (void)state;
    plan(&made, ends, 4);
    for (size_t i = 0; i < 4; i++)
        recompute(&made, begins[i], 2);
    fp8(&made, 2, 30);
    char *file = hand_over(EXPORT_MEGATRON, &made, 0, NULL), *expected = documented("```shell\n");
    const char *options = strstr(file, "--micro-batch-size");
    assert_non_null(options);
    assert_string_equal(options, expected);
    free(file);
    free(expected);
}

/* ---- what is not level ---- */

static void test_export_layout__refusals(void **state)
{
    const int64_t sizes[] = {7, 9, 9, 7};
    struct text file = {0}, notes = {0};
    struct made made;
    struct error err;
    (void)state;
    plan(&made, sizes, 4);
    struct own_layout own = open_layout(&made);
    assert_int_equal(export_layout(EXPORT_NEMO, &made.model, &own, &file, &notes, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "NeMo cannot run this 'stage'");
    own_layout_free(&own);
    made.layout.arithmetic = ARITHMETIC_FP16;
    for (int64_t i = 0; i < 32; i++)
        made.modes[i].arithmetic = ARITHMETIC_FP16;
    own = open_layout(&made);
    assert_int_equal(export_layout(EXPORT_TORCHTITAN, &made.model, &own, &file, &notes, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "fp16");
    own_layout_free(&own);
    made.layout.tensor = 2;
    made.layout.devices = 16;
    assert_int_equal(export_layout_check(EXPORT_DEEPSPEED, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "--pin pp=1");
    made.layout.context = 2;
    assert_int_equal(export_layout_check(EXPORT_DEEPSPEED, &made.model, &made.layout, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "cp=1");
    text_free(&file);
    text_free(&notes);
}

/* ---- any layout: what is read back from the file ---- */

static unsigned long long seed = 20260;

static int64_t pick(int64_t most)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (int64_t)((seed >> 33) % (unsigned long long)most);
}

static void make_random(struct made *made)
{
    static const enum framework frameworks[] = {FRAMEWORK_MEGATRON, FRAMEWORK_DEEPSPEED,
                                                FRAMEWORK_FSDP};
    int64_t stages = (int64_t)1 << pick(4), sizes[MAX_STAGES], left = 32;
    for (int64_t i = 0; i < stages; i++) {
        sizes[i] = i == stages - 1
                       ? left
                       : 1 + pick(left - (stages - 1 - i) > 8 ? 8 : left - (stages - 1 - i));
        left -= sizes[i];
    }
    plan(made, sizes, stages);
    struct layout *layout = &made->layout;
    layout->framework = frameworks[pick(3)];
    layout->data = (int64_t)1 << pick(4);
    layout->tensor = (int64_t)1 << pick(3);
    layout->context = (int64_t)1 << pick(2);
    layout->devices = stages * layout->data * layout->tensor * layout->context;
    layout->sequence_parallel = layout->tensor > 1;
    layout->global_batch = layout->data * 16;
    layout->schedule =
        layout->framework == FRAMEWORK_DEEPSPEED || pick(2) == 0 ? SCHEDULE_1F1B : SCHEDULE_ZB_H1;
    layout->zero_stage = layout->framework == FRAMEWORK_FSDP ? 2 + (int)pick(2) : (int)pick(2);
    layout->shard = layout->zero_stage > 0 ? layout->data * layout->context : 1;
    if (layout->zero_stage > 0 && layout->framework != FRAMEWORK_DEEPSPEED)
        layout->shard >>= pick(2) == 0 && layout->shard > 1;
    layout->fused_attention = !layout_admits_unfused(layout) || pick(2) == 0;
    for (int64_t i = 0; i < made->model.blocks; i++) {
        made->modes[i].recompute = (enum recompute)pick(RECOMPUTE_COUNT);
        made->modes[i].arithmetic = pick(3) == 0 ? ARITHMETIC_FP8 : ARITHMETIC_BF16;
    }
}

/* The number behind `key`; 1: it is not there. */
static int64_t number_of(const char *file, const char *key)
{
    const char *at = strstr(file, key);
    return at != NULL ? strtoll(at + strlen(key), NULL, 10) : 1;
}

/* Devices, as the file's degrees multiply; blocks that its stages have. */
static int64_t devices_of(enum export_target target, const char *file, int64_t pipeline)
{
    switch (target) {
    case EXPORT_TORCHTITAN:
        return number_of(file, "data_parallel_replicate_degree = ") *
               number_of(file, "data_parallel_shard_degree = ") *
               number_of(file, "tensor_parallel_degree = ") *
               number_of(file, "pipeline_parallel_degree = ") *
               number_of(file, "context_parallel_degree = ");
    case EXPORT_DEEPSPEED: /* the script has the stages */
        return number_of(file, "\"train_batch_size\": ") /
               number_of(file, "\"train_micro_batch_size_per_gpu\": ") /
               number_of(file, "\"gradient_accumulation_steps\": ") *
               number_of(file, "\"autotp_size\": ") * pipeline;
    case EXPORT_MEGATRON: /* replicas are what is left of the devices: 16 micro-batches each */
        return number_of(file, "--global-batch-size ") / number_of(file, "--micro-batch-size ") /
               16 * number_of(file, "--tensor-model-parallel-size ") *
               number_of(file, "--pipeline-model-parallel-size ") *
               number_of(file, "--context-parallel-size ");
    default:
        return number_of(file, "model.global_batch_size=") /
               number_of(file, "model.micro_batch_size=") / 16 *
               number_of(file, "model.tensor_model_parallel_size=") *
               number_of(file, "model.pipeline_model_parallel_size=") *
               number_of(file, "model.context_parallel_size=");
    }
}

static void check_blocks(const struct made *made, const char *file)
{
    const char *at = strstr(file, "--pipeline-model-parallel-layout ");
    if (at == NULL)
        return;
    int64_t stage = 0, blocks = 0;
    for (at += strlen("--pipeline-model-parallel-layout E"); *at != '\n'; at++) {
        blocks += *at == 't';
        if (*at == '|' || *at == 'L') {
            assert_int_equal(blocks, made->stage_blocks[stage++]);
            blocks = 0;
        }
    }
    assert_int_equal(stage, made->layout.pipeline);
}

static void test_export_layout__any(void **state)
{
    size_t written[EXPORT_TARGET_COUNT] = {0};
    (void)state;
    for (int trial = 0; trial < 300; trial++) {
        for (int target = 0; target < EXPORT_TARGET_COUNT; target++) {
            struct made made;
            struct error err;
            make_random(&made);
            enum export_target to = (enum export_target)target;
            if (layout_check(&made.layout, &made.model, "test", &err) != STATUS_OK ||
                export_layout_check(to, &made.model, &made.layout, &err) != STATUS_OK)
                continue;
            if (to == EXPORT_TORCHTITAN && made.layout.data * made.layout.context == 1)
                continue; /* bf16 is a matter of data parallelism there */
            struct own_layout own = open_layout(&made);
            level_all(to, &made.model, &own);
            assert_ok(layout_check(&own.layout, &made.model, "levelled", &err), &err);
            char *file = write_own(to, &made.model, &own, NULL);
            assert_int_equal(devices_of(to, file, own.layout.pipeline), made.layout.devices);
            check_blocks(&made, file);
            free(file);
            own_layout_free(&own);
            written[to]++;
        }
    }
    for (int target = 0; target < EXPORT_TARGET_COUNT; target++)
        assert_true(written[target] > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_layout__megatron_and_torchtitan),
        cmocka_unit_test(test_export_layout__attention_that_is_not_fused),
        cmocka_unit_test(test_export_layout__communication_that_does_not_overlap),
        cmocka_unit_test(test_export_layout__experts),
        cmocka_unit_test(test_export_layout__qwen_and_bert),
        cmocka_unit_test(test_export_layout__part_of_the_replicas_shares_state),
        cmocka_unit_test(test_export_layout_level__shard),
        cmocka_unit_test(test_export_layout__offload),
        cmocka_unit_test(test_export_layout__offload_of_some_blocks),
        cmocka_unit_test(test_export_layout__stages),
        cmocka_unit_test(test_export_layout_level__stages),
        cmocka_unit_test(test_export_layout__interleaved_stages),
        cmocka_unit_test(test_export_layout__interleaved_with_ends),
        cmocka_unit_test(test_export_layout_level__schedule),
        cmocka_unit_test(test_export_layout__node_groups),
        cmocka_unit_test(test_export_layout__first_blocks_recomputed),
        cmocka_unit_test(test_export_layout_level__unlike_numbers_of_blocks),
        cmocka_unit_test(test_export_layout_level__all_ways),
        cmocka_unit_test(test_export_layout__every_second_block_recomputed),
        cmocka_unit_test(test_export_layout__fp8),
        cmocka_unit_test(test_export_layout__fp8_of_interleaved_blocks),
        cmocka_unit_test(test_export_layout__fp8_of_few_blocks),
        cmocka_unit_test(test_export_layout__documented_example),
        cmocka_unit_test(test_export_layout__refusals),
        cmocka_unit_test(test_export_layout__any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
