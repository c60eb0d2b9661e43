#include "support.h"

#include "ir/layout.h"

static struct model load_model(const char *name, int64_t seq_length)
{
    const struct model_overrides sizes = {.seq_length = seq_length};
    struct model model;
    struct error err;
    assert_ok(model_load(&model, name, &sizes, &err), &err);
    return model;
}

/* Llama 3 70B (80 blocks, 64 heads, 8 of keys and values) on 256 devices: tensor 4, pipeline 4,
 * context 2, data 8; 128 sequences are 16 micro-batches of 1. */
static struct layout base(void)
{
    return (struct layout){
        .framework = FRAMEWORK_MEGATRON,
        .devices = 256,
        .pipeline = 4,
        .virtual_stages = 5,
        .data = 8,
        .tensor = 4,
        .context = 2,
        .expert = 1,
        .schedule = SCHEDULE_INTERLEAVED,
        .sequence_parallel = true,
        .zero_stage = 1,
        .shard = 16,
        .micro_batch = 1,
        .global_batch = 128,
        .recompute = RECOMPUTE_SELECTIVE,
        .arithmetic = ARITHMETIC_BF16,
        .fused_attention = true,
    };
}

static void test_layout__framework_names_read_back(void **state)
{
    (void)state;
    static const char *const names[] = {"megatron", "deepspeed", "fsdp"};
    assert_int_equal(COUNT(names), FRAMEWORK_COUNT);
    for (int i = 0; i < FRAMEWORK_COUNT; i++) {
        enum framework framework = FRAMEWORK_COUNT;
        assert_string_equal(framework_name((enum framework)i), names[i]);
        assert_true(framework_parse(names[i], &framework));
        assert_int_equal(framework, i);
    }
    enum framework none;
    assert_false(framework_parse("alpa", &none));
}

static void test_layout__a_published_split_passes(void **state)
{
    (void)state;
    struct model model = load_model("llama-3-70b", 8192);
    struct layout layout = base();
    struct error err;
    assert_ok(layout_check(&layout, &model, "row 1", &err), &err);
    assert_int_equal(layout_micro_batches(&layout), 16);
}

/* Stages need not have equally many blocks: BLOOM's 70 over 12 (Le Scao et al. 2022). */
static void test_layout__uneven_stages_pass(void **state)
{
    (void)state;
    struct model model = load_model("llama-3-70b", 8192);
    struct layout layout = base();
    struct error err;
    layout.pipeline = 12;
    layout.virtual_stages = 1;
    layout.schedule = SCHEDULE_1F1B;
    layout.devices = 768;
    assert_ok(layout_check(&layout, &model, "row", &err), &err);
}

enum field {
    FRAMEWORK,
    DEVICES,
    PIPELINE,
    VIRTUAL,
    DATA,
    TENSOR,
    CONTEXT,
    EXPERT,
    ZERO,
    SHARD,
    MICRO,
    GLOBAL,
    SCHEDULE,
    RECOMPUTE_MODE,
    ARITHMETIC
};

static void set(struct layout *layout, enum field field, int64_t value)
{
    int64_t *const sizes[] = {
        [DEVICES] = &layout->devices,
        [PIPELINE] = &layout->pipeline,
        [VIRTUAL] = &layout->virtual_stages,
        [DATA] = &layout->data,
        [TENSOR] = &layout->tensor,
        [CONTEXT] = &layout->context,
        [EXPERT] = &layout->expert,
        [SHARD] = &layout->shard,
        [MICRO] = &layout->micro_batch,
        [GLOBAL] = &layout->global_batch,
        [ARITHMETIC] = NULL,
    };
    switch (field) {
    case FRAMEWORK:
        layout->framework = (enum framework)value;
        break;
    case ZERO:
        layout->zero_stage = (int)value;
        break;
    case SCHEDULE:
        layout->schedule = (enum schedule)value;
        break;
    case RECOMPUTE_MODE:
        layout->recompute = (enum recompute)value;
        break;
    case ARITHMETIC:
        layout->arithmetic = (enum arithmetic)value;
        break;
    default:
        *sizes[field] = value;
    }
}

static void test_layout__what_is_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        enum field field;
        int64_t value;
        const char *part;
    } cases[] = {
        {DEVICES, 128, "multiply to 128 devices"},
        {DEVICES, 0, "devices must be"},
        {PIPELINE, 0, "pipeline must be"},
        {PIPELINE, INT64_MAX, "pipeline must be"},
        {DATA, -1, "data must be"},
        {CONTEXT, 0, "context must be"},
        {VIRTUAL, 1, "virtual_stages"},
        {VIRTUAL, 40, "more than the model's 80 blocks"},
        {SCHEDULE, SCHEDULE_1F1B, "virtual stage"},
        {SCHEDULE, SCHEDULE_COUNT, "schedule"},
        {EXPERT, 2, "no experts"},
        {ZERO, 2, "zero_stage of megatron must be from 0 to 1"},
        {ZERO, -1, "zero_stage"},
        {ZERO, 0, "shard must be 1"},
        {FRAMEWORK, FRAMEWORK_FSDP, "zero_stage of fsdp must be from 2 to 3"},
        {FRAMEWORK, FRAMEWORK_COUNT, "framework"},
        {SHARD, 3, "shard 3 does not divide data 8 times context 2"},
        {SHARD, 32, "shard 32 does not divide"},
        {SHARD, 0, "shard must be"},
        {MICRO, 3, "no multiple of micro_batch 3 times data 8"},
        {MICRO, 0, "micro_batch must be"},
        {GLOBAL, 120, "multiples of pipeline 4"}, /* 15 micro-batches */
        {GLOBAL, 4, "no multiple"},
        {RECOMPUTE_MODE, RECOMPUTE_COUNT, "recompute"},
        {ARITHMETIC, ARITHMETIC_COUNT, "arithmetic"},
    };
    struct model model = load_model("llama-3-70b", 8192);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct layout layout = base();
        struct error err;
        set(&layout, cases[i].field, cases[i].value);
        if (layout_check(&layout, &model, "row 7", &err) == STATUS_OK)
            fail_msg("accepted case %zu", i);
        assert_contains(err.message, cases[i].part);
        assert_contains(err.message, "row 7: ");
    }
}

/* Each thing by its framework's own rules. */
static void test_layout__offload_is_what_the_framework_has(void **state)
{
    (void)state;
    const struct {
        enum framework framework;
        int zero_stage;
        enum recompute recompute;
        bool activations, optimizer;
        const char *part; /* NULL: passes */
    } cases[] = {
        {FRAMEWORK_MEGATRON, 1, RECOMPUTE_NONE, true, true, NULL},
        {FRAMEWORK_MEGATRON, 1, RECOMPUTE_FULL, true, false, "of pipeline 1 without recompute"},
        {FRAMEWORK_MEGATRON, 0, RECOMPUTE_NONE, false, true, "needs a zero_stage of 1 or more"},
        {FRAMEWORK_DEEPSPEED, 2, RECOMPUTE_FULL, true, true, NULL},
        {FRAMEWORK_DEEPSPEED, 2, RECOMPUTE_NONE, true, false, "only with recompute full"},
        {FRAMEWORK_DEEPSPEED, 1, RECOMPUTE_NONE, false, true, "2 or more of deepspeed in bf16"},
        {FRAMEWORK_FSDP, 3, RECOMPUTE_FULL, true, true, NULL},
    };
    struct model model = load_model("llama-3-70b", 8192);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct layout layout = base();
        struct error err;
        layout.framework = cases[i].framework;
        layout.zero_stage = cases[i].zero_stage;
        layout.data *= layout.pipeline;
        layout.pipeline = layout.virtual_stages = 1;
        layout.schedule = SCHEDULE_1F1B;
        layout.shard = layout.zero_stage > 0 ? 16 : 1;
        layout.recompute = cases[i].recompute;
        layout.offload_activations = cases[i].activations;
        layout.offload_optimizer = cases[i].optimizer;
        enum status status = layout_check(&layout, &model, "test", &err);
        if (cases[i].part == NULL)
            assert_ok(status, &err);
        else
            assert_int_equal(status, STATUS_INVALID);
        if (cases[i].part != NULL)
            assert_contains(err.message, cases[i].part);
    }
}

static void test_layout__late_gradients_keep_activations_on_the_device(void **state)
{
    (void)state;
    struct model model = load_model("llama-3-70b", 8192);
    struct layout layout = base();
    struct error err;
    layout.schedule = SCHEDULE_ZB_H1;
    layout.virtual_stages = 1;
    layout.framework = FRAMEWORK_FSDP;
    layout.zero_stage = 3;
    assert_ok(layout_check(&layout, &model, "test", &err), &err);
    layout.offload_activations = true;
    assert_int_equal(layout_check(&layout, &model, "test", &err), STATUS_INVALID);
    assert_contains(err.message, "only under another schedule than zb-h1");
}

/* Mixtral 8x7B on 64 devices: tensor 2, data 16, context 2, so that experts have 32 replicas to
 * share out. */
static void test_layout__experts_are_shared_as_megatron_does(void **state)
{
    (void)state;
    const struct {
        enum field field;
        int64_t value;
        const char *part; /* NULL: passes */
    } cases[] = {
        {EXPERT, 1, NULL},
        {EXPERT, 4, NULL},
        {EXPERT, 8, NULL},
        {EXPERT, 16, "does not divide the model's 8 experts"},
        {EXPERT, 3, "does not divide the model's 8 experts"},
        {SHARD, 4, "shard 4 is no multiple of expert 8"},
        {SHARD, 8, NULL},
        {FRAMEWORK, FRAMEWORK_DEEPSPEED, "only framework megatron"},
    };
    struct model model = load_model("mixtral-8x7b", 4096);
    struct layout layout = base(), changed;
    struct error err;
    layout.pipeline = layout.virtual_stages = 1;
    layout.schedule = SCHEDULE_1F1B;
    layout.tensor = 2;
    layout.devices = 64;
    layout.data = 16;
    layout.shard = 32;
    layout.expert = 8;
    for (size_t i = 0; i < COUNT(cases); i++) {
        changed = layout;
        set(&changed, cases[i].field, cases[i].value);
        enum status status = layout_check(&changed, &model, "row", &err);
        if (cases[i].part == NULL)
            assert_ok(status, &err);
        else
            assert_int_not_equal(status, STATUS_OK);
        if (cases[i].part != NULL)
            assert_contains(err.message, cases[i].part);
    }
    changed = layout;
    changed.sequence_parallel = false;
    assert_int_equal(layout_check(&changed, &model, "row", &err), STATUS_INVALID);
    assert_contains(err.message, "need sequence_parallel");
    model.expert_ffn = 14335;
    assert_int_equal(layout_check(&layout, &model, "row", &err), STATUS_INVALID);
    assert_contains(err.message, "does not divide an expert's 14335 columns");
    model.expert_ffn = 14336;
    changed = layout; /* 24 replicas, of which 8 devices share an expert, but not 16 experts 16 */
    model.experts = 16;
    changed.expert = 16;
    changed.data = 12;
    changed.devices = 48;
    changed.shard = 24;
    changed.global_batch = 120;
    assert_int_equal(layout_check(&changed, &model, "row", &err), STATUS_INVALID);
    assert_contains(err.message, "data 12 times context 2");
}

static void test_layout__the_model_must_divide(void **state)
{
    (void)state;
    struct model model = load_model("llama-3-70b", 8192);
    struct layout layout = base();
    struct error err;

    layout.tensor = 16; /* 8 heads of keys and values */
    layout.devices = 1024;
    assert_int_equal(layout_check(&layout, &model, "r", &err), STATUS_INVALID);
    assert_contains(err.message, "kv_heads");

    layout = base();
    model.seq_length = 8190; /* context 2 wants 4 pieces */
    assert_int_equal(layout_check(&layout, &model, "r", &err), STATUS_INVALID);
    assert_contains(err.message, "4 pieces");

    model.seq_length = 8188; /* 4094 tokens of a rank, by tensor 4 */
    assert_int_equal(layout_check(&layout, &model, "r", &err), STATUS_INVALID);
    assert_contains(err.message, "4094 tokens");
    layout.sequence_parallel = false;
    assert_ok(layout_check(&layout, &model, "r", &err), &err);

    layout.tensor = 1;
    layout.devices = 64;
    layout.sequence_parallel = true;
    assert_int_equal(layout_check(&layout, &model, "r", &err), STATUS_INVALID);
    assert_contains(err.message, "tensor of 2 or more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout__framework_names_read_back),
        cmocka_unit_test(test_layout__a_published_split_passes),
        cmocka_unit_test(test_layout__uneven_stages_pass),
        cmocka_unit_test(test_layout__offload_is_what_the_framework_has),
        cmocka_unit_test(test_layout__late_gradients_keep_activations_on_the_device),
        cmocka_unit_test(test_layout__what_is_wrong_is_named),
        cmocka_unit_test(test_layout__experts_are_shared_as_megatron_does),
        cmocka_unit_test(test_layout__the_model_must_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
