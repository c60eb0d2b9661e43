#include "export_names.h"
#include "ir/mesh.h"

/* ---- plans ---- */

struct degrees {
    int data, tensor, pipeline, virtual_stages;
};

/* Every layer alike: bf16 (but the embedding), ZeRO 1 where there is data parallelism, sequence
 * parallelism where there is tensor parallelism, probabilities recomputed; two sequences a
 * micro-batch, 16 micro-batches, blocks in equal numbers. */
static struct plan make(const char *source, int64_t blocks, struct degrees degrees)
{
    struct model_overrides sizes = {.layers = blocks};
    int stages = degrees.pipeline * degrees.virtual_stages;
    struct plan plan = {
        .ranks = degrees.data * degrees.tensor * degrees.pipeline,
        .data_parallel = degrees.data,
        .tensor_parallel = degrees.tensor,
        .pipeline = degrees.pipeline,
        .virtual_stages = degrees.virtual_stages,
        .schedule = degrees.virtual_stages > 1 ? SCHEDULE_INTERLEAVED : SCHEDULE_1F1B,
        .threads = 1,
        .micro_batch = 2,
        .micro_batches = 16,
        .global_batch = (int64_t)32 * degrees.data,
    };
    struct error err;
    assert_ok(model_load(&plan.model, source, &sizes, &err), &err);
    plan.layer_count = model_layer_count(&plan.model);
    plan.layers = calloc(plan.layer_count, sizeof(*plan.layers));
    assert_non_null(plan.layers);
    for (size_t i = 0; i < plan.layer_count; i++) {
        struct layer layer = model_layer(&plan.model, i);
        plan.layers[i] = (struct layer_strategy){
            .stage = (int)(layer.block * stages / plan.model.blocks),
            .tensor_parallel = degrees.tensor,
            .sequence_parallel = degrees.tensor > 1,
            .zero_stage = degrees.data > 1,
            .recompute = layer.kind == LAYER_ATTENTION ? RECOMPUTE_SELECTIVE : RECOMPUTE_NONE,
            .precision = layer.kind == LAYER_EMBEDDING ? PRECISION_FP32 : PRECISION_BF16,
        };
    }
    plan.layers[plan.layer_count - 1].stage = stages - 1;
    assert_ok(plan_validate(&plan, "test", &err), &err);
    return plan;
}

static struct export_way level(enum export_target target, enum export_field field, size_t way,
                               struct plan *plan)
{
    struct export_way out;
    struct error err;
    assert_ok(export_level(target, field, way, plan, &out, &err), &err);
    return out;
}

/* One field in its first way that changes nothing, or the first that gives a valid plan. */
static bool level_field(enum export_target target, enum export_field field, bool as_planned,
                        struct plan *plan)
{
    for (size_t way = 0;; way++) {
        struct plan copy;
        struct error err;
        assert_ok(plan_copy(&copy, plan, &err), &err);
        struct export_way taken = level(target, field, way, &copy);
        bool is_taken =
            taken.exists &&
            (as_planned ? taken.changed == 0 : plan_validate(&copy, "test", &err) == STATUS_OK);
        if (is_taken) {
            plan_clear(plan);
            *plan = copy;
        } else {
            plan_clear(&copy);
        }
        if (is_taken || !taken.exists)
            return is_taken;
    }
}

static void level_all(enum export_target target, struct plan *plan)
{
    for (int i = 0; i < EXPORT_FIELD_COUNT; i++) {
        enum export_field field = (enum export_field)i;
        if (!level_field(target, field, true, plan) && !level_field(target, field, false, plan))
            fail_msg("%s: no way for %s", export_target_name(target), export_field_name(field));
    }
}

/* What export_write makes of a levelled plan; the caller frees it. */
static char *write_plan(enum export_target target, const struct plan *plan)
{
    struct text file = {0}, notes = {0};
    struct error err;
    assert_ok(export_write(target, plan, &file, &notes, &err), &err);
    assert_true(notes.bytes > 0 && notes.data[notes.bytes - 1] == '\n');
    text_free(&notes);
    return file.data;
}

static void assert_refused(enum export_target target, const struct plan *plan, const char *word)
{
    struct text file = {0}, notes = {0};
    struct error err;
    assert_int_equal(export_write(target, plan, &file, &notes, &err), STATUS_UNSUPPORTED);
    assert_contains(err.message, word);
    text_free(&file);
    text_free(&notes);
}

static void check_names(enum export_target target, const struct plan *plan)
{
    char *file = write_plan(target, plan);
    check_file(target, file);
    free(file);
}

/* Degrees, precisions, ZeRO stages and recompute modes of every kind that a target takes. */
static void test_export__option_names(void **state)
{
    static const struct degrees degrees[] = {
        {1, 1, 1, 1}, {2, 1, 1, 1}, {4, 2, 1, 1}, {1, 1, 2, 1}, {2, 2, 2, 1}, {2, 1, 2, 2},
    };
    size_t checked = 0;
    (void)state;
    for (size_t d = 0; d < COUNT(degrees); d++) {
        for (int choice = 0; choice < 4 * PRECISION_COUNT * RECOMPUTE_COUNT; choice++) {
            for (int target = 0; target < EXPORT_TARGET_COUNT; target++) {
                bool is_llama = target == EXPORT_TORCHTITAN || choice % 2 == 0;
                struct plan plan = make(is_llama ? "llama-3-8b" : "gpt2", 4, degrees[d]);
                struct error err;
                for (size_t i = 0; i < plan.layer_count; i++) {
                    enum recompute recompute = (enum recompute)(choice / 4 % RECOMPUTE_COUNT);
                    enum layer_kind kind = model_layer(&plan.model, i).kind;
                    plan.layers[i].zero_stage = degrees[d].data > 1 ? choice % 4 : 0;
                    plan.gradient_reduction = choice % 3 ? GRADIENTS_FP32 : GRADIENTS_BF16;
                    /* two of the four blocks, so that partial recomputation is written, too */
                    plan.layers[i].recompute = RECOMPUTE_NONE;
                    if (layer_admits_recompute(kind, recompute) && i < 5)
                        plan.layers[i].recompute = recompute;
                    if (kind != LAYER_EMBEDDING)
                        plan.layers[i].precision = (enum precision)(choice / 4 / RECOMPUTE_COUNT);
                }
                bool is_taken =
                    export_check((enum export_target)target, &plan, &err) == STATUS_OK &&
                    !(target == EXPORT_TORCHTITAN &&
                      (plan.layers[1].precision == PRECISION_FP16 || degrees[d].data == 1));
                if (is_taken) {
                    level_all((enum export_target)target, &plan);
                    check_names((enum export_target)target, &plan);
                    checked++;
                }
                plan_clear(&plan);
            }
        }
    }
    assert_true(checked > 500);
}

/* Of several micro-batches, too: both add them up in bf16. */
static void test_export__gradients_in_bf16(void **state)
{
    static const struct {
        int64_t micro_batches;
        enum precision precision;
        bool is_written;
    } cases[] = {{1, PRECISION_BF16, true}, {16, PRECISION_BF16, true}, {1, PRECISION_FP32, false}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct plan plan = make("gpt2", 4, (struct degrees){2, 1, 1, 1});
        struct text file = {0}, notes = {0};
        struct error err;
        plan.gradient_reduction = GRADIENTS_BF16;
        plan.micro_batches = cases[i].micro_batches;
        plan.global_batch = 2 * 2 * plan.micro_batches;
        for (size_t layer = 1; layer < plan.layer_count; layer++)
            plan.layers[layer].precision = cases[i].precision;
        level_all(EXPORT_MEGATRON, &plan);
        assert_ok(export_write(EXPORT_MEGATRON, &plan, &file, &notes, &err), &err);
        bool is_written = strstr(file.data, "--grad-reduce-in-bf16") != NULL;
        bool is_noted = strstr(notes.data, "kept and summed in fp32") != NULL;
        assert_true(is_written == cases[i].is_written && is_noted != is_written);
        text_free(&file);
        text_free(&notes);
        level_all(EXPORT_DEEPSPEED, &plan);
        assert_ok(export_write(EXPORT_DEEPSPEED, &plan, &file, &notes, &err), &err);
        is_written = strstr(file.data, "\"communication_data_type\": \"bf16\"") != NULL &&
                     strstr(file.data, "\"grad_accum_dtype\": \"bf16\"") != NULL;
        is_noted = strstr(notes.data, "kept and summed in fp32") != NULL;
        assert_true(is_written == cases[i].is_written && is_noted != is_written);
        text_free(&file);
        text_free(&notes);
        plan_clear(&plan);
    }
}

/* ---- documented examples ---- */

/* The first block of docs/export.md with this fence; the caller frees it. */
static char *documented(const char *fence)
{
    char path[512], open[32];
    char *text;
    size_t bytes;
    struct error err;
    snprintf(path, sizeof(path), "%s/docs/export.md", TEMPER_SOURCE_DIR);
    snprintf(open, sizeof(open), "```%s\n", fence);
    assert_ok(file_read(path, &text, &bytes, &err), &err);
    const char *start = strstr(text, open);
    if (start == NULL)
        fail_msg("docs/export.md has no block '%s'", fence);
    start += strlen(open);
    const char *end = strstr(start, "```");
    assert_non_null(end);
    char *block = strndup(start, (size_t)(end - start));
    assert_non_null(block);
    free(text);
    return block;
}

static void assert_documented(enum export_target target, struct plan *plan, const char *fence)
{
    level_all(target, plan);
    char *file = write_plan(target, plan), *expected = documented(fence);
    assert_string_equal(file, expected);
    free(file);
    free(expected);
    plan_clear(plan);
}

static void test_export__documented_examples(void **state)
{
    const struct degrees staged = {2, 4, 2, 1}, sharded = {16, 1, 1, 1};
    (void)state;
    struct plan plan = make("llama-3-8b", 32, staged);
    assert_documented(EXPORT_MEGATRON, &plan, "text");
    plan = make("llama-3-8b", 8, staged);
    assert_documented(EXPORT_TORCHTITAN, &plan, "toml");
    plan = make("gpt3-175b", 96, staged);
    assert_documented(EXPORT_NEMO, &plan, "properties");
    plan = make("llama-3-8b", 32, sharded);
    for (size_t i = 0; i < plan.layer_count; i++)
        plan.layers[i].zero_stage = 3;
    assert_documented(EXPORT_DEEPSPEED, &plan, "json");
}

/* ---- levelling ---- */

/* Embedding and head of degree 1 under T = 2: 2 layers of 10 change, or the other 8. */
static void test_export_level__tensor_degree(void **state)
{
    const struct degrees degrees = {2, 2, 1, 1};
    (void)state;
    for (size_t way = 0; way < 3; way++) {
        struct plan plan = make("llama-3-8b", 4, degrees);
        struct error err;
        struct layer_strategy *ends[] = {&plan.layers[0], &plan.layers[plan.layer_count - 1]};
        for (size_t i = 0; i < COUNT(ends); i++) {
            ends[i]->tensor_parallel = 1;
            ends[i]->sequence_parallel = false;
        }
        assert_ok(plan_validate(&plan, "test", &err), &err);
        struct export_way taken = level(EXPORT_MEGATRON, EXPORT_TENSOR, way, &plan);
        assert_int_equal(taken.exists, way < 2);
        if (taken.exists) {
            assert_ok(plan_validate(&plan, "test", &err), &err);
            assert_int_equal(taken.changed, way == 0 ? 2 : 8);
            assert_int_equal(plan.tensor_parallel, way == 0 ? 2 : 1);
            assert_int_equal(plan.data_parallel, way == 0 ? 2 : 4);
            assert_int_equal(plan.micro_batch, way == 0 ? 2 : 1);
            assert_int_equal(plan.micro_batches, 16);
            assert_int_equal(plan.global_batch, 64);
        }
        plan_clear(&plan);
    }
}

/* 4 blocks, cut between the second's attention and mlp: embedding and layers 1-3 on stage 0. */
static void test_export_level__stages_between_blocks(void **state)
{
    const struct degrees degrees = {1, 1, 2, 1};
    const int64_t first_stage_blocks[] = {2, 1, 2};
    const size_t changed[] = {1, 1, 1};
    (void)state;
    for (size_t way = 0; way < 3; way++) {
        struct plan plan = make("gpt2", 4, degrees);
        struct error err;
        plan.layers[4].stage = 1;
        assert_ok(plan_validate(&plan, "test", &err), &err);
        struct export_way taken = level(EXPORT_MEGATRON, EXPORT_STAGES, way, &plan);
        assert_true(taken.exists);
        assert_int_equal(taken.changed, changed[way]);
        int64_t blocks = 0;
        for (size_t i = 1; i + 1 < plan.layer_count; i += 2) {
            assert_int_equal(plan.layers[i].stage, plan.layers[i + 1].stage);
            blocks += plan.layers[i].stage == 0;
        }
        assert_int_equal(blocks, first_stage_blocks[way]);
        plan_clear(&plan);
    }
}

static void test_export_level__uneven_stages(void **state)
{
    const struct degrees degrees = {1, 1, 2, 1};
    struct plan plan = make("gpt2", 5, degrees);
    struct export_way way;
    struct error err;
    (void)state;
    char *file = write_plan(EXPORT_MEGATRON, &plan);
    assert_contains(file, "\n--decoder-first-pipeline-num-layers 3\n"
                          "--decoder-last-pipeline-num-layers 2\n");
    free(file);
    assert_int_equal(export_level(EXPORT_NEMO, EXPORT_STAGES, 0, &plan, &way, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "5 blocks do not divide by 2 stages");
    plan_clear(&plan);
}

static void test_export_level__schedule(void **state)
{
    const struct degrees degrees = {1, 1, 2, 2};
    struct plan plan = make("gpt2", 8, degrees);
    struct error err;
    (void)state;
    assert_int_equal(level(EXPORT_MEGATRON, EXPORT_SCHEDULE, 0, &plan).changed, 0);
    char *file = write_plan(EXPORT_MEGATRON, &plan);
    assert_contains(file, "\n--num-layers-per-virtual-pipeline-stage 2\n");
    free(file);
    assert_int_equal(level(EXPORT_DEEPSPEED, EXPORT_SCHEDULE, 0, &plan).changed, 1);
    assert_int_equal(plan.schedule, SCHEDULE_1F1B);
    assert_int_equal(plan.virtual_stages, 1);
    assert_ok(plan_validate(&plan, "test", &err), &err);
    plan_clear(&plan);
}

/* The next leaner stage that the target has, else its leanest. */
static void test_export_level__zero_stage(void **state)
{
    const struct {
        enum export_target target;
        struct degrees degrees;
        int planned, levelled;
    } cases[] = {
        {EXPORT_MEGATRON, {2, 1, 1, 1}, 3, 3},   {EXPORT_MEGATRON, {2, 1, 2, 1}, 3, 1},
        {EXPORT_MEGATRON, {2, 1, 2, 1}, 0, 0},   {EXPORT_DEEPSPEED, {2, 1, 2, 1}, 2, 1},
        {EXPORT_DEEPSPEED, {2, 2, 1, 1}, 3, 2},  {EXPORT_DEEPSPEED, {2, 1, 1, 1}, 3, 3},
        {EXPORT_TORCHTITAN, {2, 1, 1, 1}, 1, 2}, {EXPORT_TORCHTITAN, {2, 1, 1, 1}, 0, 0},
        {EXPORT_TORCHTITAN, {2, 2, 1, 1}, 0, 2}, {EXPORT_NEMO, {2, 1, 1, 1}, 1, 1},
        {EXPORT_NEMO, {2, 1, 1, 1}, 3, 2},       {EXPORT_NEMO, {1, 1, 1, 1}, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct plan plan = make("llama-3-8b", 4, cases[i].degrees);
        for (size_t layer = 0; layer < plan.layer_count; layer++)
            plan.layers[layer].zero_stage = cases[i].planned;
        struct export_way way = level(cases[i].target, EXPORT_ZERO, 0, &plan);
        assert_true(way.exists);
        assert_int_equal(plan.layers[3].zero_stage, cases[i].levelled);
        assert_int_equal(way.changed, cases[i].planned == cases[i].levelled ? 0 : plan.layer_count);
        assert_false(level(cases[i].target, EXPORT_ZERO, 1, &plan).exists);
        plan_clear(&plan);
    }
}

/* Stages 0 and 3 in one plan: DeepSpeed has 3, 2, 1 and 0 between them. */
static void test_export_level__mixed_zero_stages(void **state)
{
    const struct degrees degrees = {2, 1, 1, 1};
    (void)state;
    for (size_t way = 0; way < 4; way++) {
        struct plan plan = make("llama-3-8b", 4, degrees);
        for (size_t i = 0; i < plan.layer_count; i++)
            plan.layers[i].zero_stage = i == 2 ? 3 : 0;
        struct export_way taken = level(EXPORT_DEEPSPEED, EXPORT_ZERO, way, &plan);
        const size_t changed[] = {9, 10, 10, 1};
        assert_true(taken.exists);
        assert_int_equal(plan.layers[2].zero_stage, 3 - (int)way);
        assert_int_equal(taken.changed, changed[way]);
        plan_clear(&plan);
    }
}

/* Stages 0 and 1 in one plan: torchtitan has 0 of them, and 2 should that not fit. */
static void test_export_level__leaner_zero_stage(void **state)
{
    const struct degrees degrees = {2, 1, 1, 1};
    const int levelled[] = {2, 0};
    (void)state;
    for (size_t way = 0; way < 3; way++) {
        struct plan plan = make("llama-3-8b", 4, degrees);
        plan.layers[2].zero_stage = 0;
        assert_int_equal(level(EXPORT_TORCHTITAN, EXPORT_ZERO, way, &plan).exists, way < 2);
        if (way < 2)
            assert_int_equal(plan.layers[5].zero_stage, levelled[way]);
        plan_clear(&plan);
    }
}

static void test_export_level__precision_is_never_lowered(void **state)
{
    const struct degrees degrees = {2, 1, 1, 1};
    struct plan plan = make("llama-3-8b", 4, degrees);
    struct export_way way;
    struct error err;
    (void)state;
    plan.layers[plan.layer_count - 1].precision = PRECISION_FP32;
    assert_int_equal(level(EXPORT_MEGATRON, EXPORT_PRECISION, 0, &plan).changed, 8);
    for (size_t i = 0; i < plan.layer_count; i++)
        assert_int_equal(plan.layers[i].precision, PRECISION_FP32);
    for (size_t i = 1; i < plan.layer_count; i++)
        plan.layers[i].precision = PRECISION_FP16;
    assert_int_equal(level(EXPORT_NEMO, EXPORT_PRECISION, 0, &plan).changed, 0);
    assert_int_equal(export_level(EXPORT_TORCHTITAN, EXPORT_PRECISION, 0, &plan, &way, &err),
                     STATUS_UNSUPPORTED);
    assert_contains(err.message, "fp16");
    plan_clear(&plan);
}

static void test_export_level__sequence_parallelism(void **state)
{
    const struct degrees degrees = {2, 2, 1, 1};
    struct plan plan = make("llama-3-8b", 4, degrees);
    (void)state;
    assert_int_equal(level(EXPORT_TORCHTITAN, EXPORT_SEQUENCE, 0, &plan).changed, 0);
    assert_int_equal(level(EXPORT_DEEPSPEED, EXPORT_SEQUENCE, 0, &plan).changed, 10);
    assert_false(plan.layers[1].sequence_parallel);
    assert_int_equal(level(EXPORT_MEGATRON, EXPORT_SEQUENCE, 0, &plan).changed, 0);
    assert_int_equal(level(EXPORT_TORCHTITAN, EXPORT_SEQUENCE, 0, &plan).changed, 10);
    assert_true(plan.layers[1].sequence_parallel);
    plan_clear(&plan);
}

static void recompute_blocks(struct plan *plan, const char *full)
{
    for (size_t block = 0; full[block] != '\0'; block++) {
        enum recompute recompute = full[block] == 'x' ? RECOMPUTE_FULL : RECOMPUTE_NONE;
        plan->layers[2 * block + 1].recompute = recompute;
        plan->layers[2 * block + 2].recompute = recompute;
    }
}

/* On each of two stages the first block or two, or every second one. */
static void test_export_level__some_blocks_recomputed(void **state)
{
    const struct degrees degrees = {2, 1, 2, 1};
    struct plan plan = make("llama-3-8b", 8, degrees);
    (void)state;
    recompute_blocks(&plan, "xx--xx--");
    char *file = write_plan(EXPORT_MEGATRON, &plan);
    assert_contains(file, "--recompute-granularity full\n--recompute-method block\n"
                          "--recompute-num-layers 2\n");
    free(file);

    recompute_blocks(&plan, "xx--x---");
    struct export_way way = level(EXPORT_MEGATRON, EXPORT_RECOMPUTE, 1, &plan);
    assert_int_equal(way.changed, 2);
    assert_int_equal(plan.layers[2 * 5 + 1].recompute, RECOMPUTE_FULL);
    assert_int_equal(plan.layers[2 * 6 + 1].recompute, RECOMPUTE_NONE);

    recompute_blocks(&plan, "-x-x-x-x");
    for (size_t i = 0; i < plan.layer_count; i++)
        plan.layers[i].zero_stage = 2;
    file = write_plan(EXPORT_TORCHTITAN, &plan);
    assert_contains(file, "mode = \"selective\"\nselective_ac_option = \"2\"\n");
    free(file);
    plan_clear(&plan);
}

/* Attention and mlp of every block: what each of the kinds writes. Attention in tiles keeps no
 * probabilities that a target could make again. */
static void test_export_level__recompute_kinds(void **state)
{
    const struct {
        enum attention_kernel kernel;
        enum recompute attention, mlp;
        const char *megatron;
    } cases[] = {
        {ATTENTION_PLAIN, RECOMPUTE_FULL, RECOMPUTE_FULL,
         "--recompute-method uniform\n--recompute-num-layers 1\n"},
        {ATTENTION_PLAIN, RECOMPUTE_SELECTIVE, RECOMPUTE_FULL,
         "--recompute-modules core_attn mlp\n"},
        {ATTENTION_PLAIN, RECOMPUTE_SELECTIVE, RECOMPUTE_NONE,
         "--recompute-granularity selective\n"},
        {ATTENTION_PLAIN, RECOMPUTE_NONE, RECOMPUTE_NONE, "--bf16\n"},
        {ATTENTION_TILED, RECOMPUTE_NONE, RECOMPUTE_NONE, "--bf16\n"},
        {ATTENTION_TILED, RECOMPUTE_FULL, RECOMPUTE_FULL,
         "--recompute-method uniform\n--recompute-num-layers 1\n"},
    };
    const struct degrees degrees = {1, 1, 1, 1};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct plan plan = make("llama-3-8b", 4, degrees);
        for (size_t layer = 1; layer + 1 < plan.layer_count; layer++)
            plan.layers[layer].recompute = layer % 2 == 1 ? cases[i].attention : cases[i].mlp;
        for (size_t layer = 1; layer + 1 < plan.layer_count; layer += 2)
            plan.layers[layer].attention = cases[i].kernel;
        char *file = write_plan(EXPORT_MEGATRON, &plan);
        size_t tail = strlen(cases[i].megatron);
        assert_true(strlen(file) > tail);
        assert_string_equal(file + strlen(file) - tail, cases[i].megatron);
        free(file);
        plan_clear(&plan);
    }
}

/* No target makes only the outputs of norms and of activation functions again. Theirs that is
 * selective keeps the norms' outputs: a note says so. */
static void test_export_level__selective_is_that_of_the_probabilities(void **state)
{
    static const struct {
        enum attention_kernel kernel;
        enum recompute wanted;
        size_t changed;
    } cases[] = {{ATTENTION_PLAIN, RECOMPUTE_SELECTIVE, 4}, {ATTENTION_TILED, RECOMPUTE_NONE, 8}};
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct plan plan = make("llama-3-8b", 4, (struct degrees){2, 1, 1, 1});
        struct text file = {0}, notes = {0};
        struct error err;
        for (size_t layer = 1; layer + 1 < plan.layer_count; layer++) {
            plan.layers[layer].recompute = RECOMPUTE_SELECTIVE;
            plan.layers[layer].zero_stage = 2;
            if (layer % 2 == 1)
                plan.layers[layer].attention = cases[i].kernel;
        }
        plan.layers[0].zero_stage = plan.layers[plan.layer_count - 1].zero_stage = 2;
        assert_refused(EXPORT_TORCHTITAN, &plan, "'recompute'");
        struct export_way taken = level(EXPORT_TORCHTITAN, EXPORT_RECOMPUTE, 1, &plan);
        assert_int_equal(taken.changed, cases[i].changed);
        assert_int_equal(plan.layers[1].recompute, cases[i].wanted);
        assert_int_equal(plan.layers[2].recompute, RECOMPUTE_NONE);
        assert_ok(export_write(EXPORT_TORCHTITAN, &plan, &file, &notes, &err), &err);
        assert_contains(file.data, "mode = \"none\"");
        bool is_noted = strstr(notes.data, "what the attention's norm puts out is kept") != NULL;
        assert_int_equal(is_noted, cases[i].wanted == RECOMPUTE_SELECTIVE);
        text_free(&file);
        text_free(&notes);
        plan_clear(&plan);
    }
}

/* ---- refusals ---- */

static void test_export_write__refuses_what_is_not_level(void **state)
{
    const struct degrees degrees = {2, 2, 1, 1};
    struct plan plan = make("llama-3-8b", 4, degrees);
    (void)state;
    plan.layers[3].zero_stage = 0;
    assert_refused(EXPORT_MEGATRON, &plan, "'zero_stage'");
    plan.layers[3].zero_stage = 1;
    plan.layers[3].sequence_parallel = false;
    assert_refused(EXPORT_NEMO, &plan, "'sequence_parallel'");
    plan.layers[3].sequence_parallel = true;
    plan.layers[3].precision = PRECISION_FP32;
    assert_refused(EXPORT_DEEPSPEED, &plan, "'sequence_parallel'");
    assert_refused(EXPORT_MEGATRON, &plan, "'precision'");
    plan_clear(&plan);
}

static void test_export_check__refuses_other_models(void **state)
{
    const struct degrees alone = {1, 1, 1, 1}, both = {1, 2, 2, 1}, staged = {1, 1, 2, 1};
    struct plan plan = make("gpt2", 4, alone);
    (void)state;
    assert_refused(EXPORT_TORCHTITAN, &plan, "gpt2");
    plan_clear(&plan);
    plan = make("llama-3-8b", 4, alone);
    plan.model.tied_head = true;
    assert_refused(EXPORT_TORCHTITAN, &plan, "tied_head");
    plan.model.tied_head = false;
    plan.model.head_dim = 64;
    assert_refused(EXPORT_TORCHTITAN, &plan, "head_dim");
    plan.model.rope_theta = 10000.5;
    assert_refused(EXPORT_MEGATRON, &plan, "rope_theta");
    assert_refused(EXPORT_NEMO, &plan, "rope_theta");
    plan_clear(&plan);
    plan = make("llama-3-8b", 4, both);
    assert_refused(EXPORT_DEEPSPEED, &plan, "pp=1");
    plan_clear(&plan);
    /* mixed precision is FSDP's or DDP's there */
    plan = make("llama-3-8b", 4, staged);
    assert_refused(EXPORT_TORCHTITAN, &plan, "data parallelism");
    plan_clear(&plan);
}

static void test_export_target__names(void **state)
{
    struct text names = {0};
    enum export_target target;
    (void)state;
    export_target_names(&names);
    assert_string_equal(names.data, "megatron, deepspeed, torchtitan, nemo");
    text_free(&names);
    assert_true(export_target_parse("nemo", &target));
    assert_int_equal(target, EXPORT_NEMO);
    assert_false(export_target_parse("Megatron", &target));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export__option_names),
        cmocka_unit_test(test_export__gradients_in_bf16),
        cmocka_unit_test(test_export__documented_examples),
        cmocka_unit_test(test_export_level__tensor_degree),
        cmocka_unit_test(test_export_level__stages_between_blocks),
        cmocka_unit_test(test_export_level__uneven_stages),
        cmocka_unit_test(test_export_level__schedule),
        cmocka_unit_test(test_export_level__zero_stage),
        cmocka_unit_test(test_export_level__mixed_zero_stages),
        cmocka_unit_test(test_export_level__leaner_zero_stage),
        cmocka_unit_test(test_export_level__precision_is_never_lowered),
        cmocka_unit_test(test_export_level__sequence_parallelism),
        cmocka_unit_test(test_export_level__some_blocks_recomputed),
        cmocka_unit_test(test_export_level__recompute_kinds),
        cmocka_unit_test(test_export_level__selective_is_that_of_the_probabilities),
        cmocka_unit_test(test_export_write__refuses_what_is_not_level),
        cmocka_unit_test(test_export_check__refuses_other_models),
        cmocka_unit_test(test_export_target__names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
