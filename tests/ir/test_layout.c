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
        cmocka_unit_test(test_layout__what_is_wrong_is_named),
        cmocka_unit_test(test_layout__the_model_must_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
