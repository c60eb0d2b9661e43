#include "support.h"

#include "base/json.h"
#include "base/text.h"
#include "ir/layout.h"
#include "ir/model.h"

enum { BLOCKS = 12 };

/* Twelve blocks of gpt2 on stages of the given sizes; the caller changes modes. */
struct planned {
    struct model model;
    struct block_mode modes[BLOCKS];
    int64_t stage_blocks[4];
    size_t stage_groups[4];
    struct block_plan plan;
    struct layout layout;
};

static void plan(struct planned *out, const int64_t *stage_blocks, int64_t stages)
{
    struct model_overrides none = {0};
    struct error err;
    *out = (struct planned){.layout = {.framework = FRAMEWORK_FSDP,
                                       .devices = stages,
                                       .pipeline = stages,
                                       .virtual_stages = 1,
                                       .data = 1,
                                       .tensor = 1,
                                       .context = 1,
                                       .expert = 1,
                                       .schedule = SCHEDULE_1F1B,
                                       .zero_stage = 2,
                                       .shard = 1,
                                       .micro_batch = 1,
                                       .global_batch = 8,
                                       .arithmetic = ARITHMETIC_BF16}};
    assert_ok(model_load(&out->model, "gpt2", &none, &err), &err);
    assert_int_equal(out->model.blocks, BLOCKS);
    for (int64_t i = 0; i < stages; i++)
        out->stage_blocks[i] = stage_blocks[i];
    for (size_t i = 0; i < BLOCKS; i++)
        out->modes[i] = (struct block_mode){RECOMPUTE_NONE, ARITHMETIC_BF16, false};
    out->plan = (struct block_plan){out->modes, out->stage_blocks, NULL};
    out->layout.own = &out->plan;
    assert_ok(layout_check(&out->layout, &out->model, "test", &err), &err);
}

static void assert_text(const struct planned *planned, const char *expected)
{
    struct text text = {0};
    struct error err;
    assert_ok(layout_check(&planned->layout, &planned->model, "test", &err), &err);
    block_plan_text(&planned->layout, &planned->model, &text);
    assert_non_null(text.data);
    assert_string_equal(text.data, expected);
    text_free(&text);
}

static void test_block_plan_text__unlike_stages(void **state)
{
    const int64_t sizes[] = {5, 3, 3, 1};
    struct planned planned;
    (void)state;
    plan(&planned, sizes, 4);
    planned.modes[0].recompute = planned.modes[1].recompute = RECOMPUTE_FULL;
    planned.modes[2].recompute = RECOMPUTE_SELECTIVE;
    planned.modes[4].recompute = RECOMPUTE_FULL;
    planned.modes[3].offload = true;
    planned.modes[11].recompute = RECOMPUTE_FULL;
    planned.modes[11].arithmetic = ARITHMETIC_FP8;
    assert_text(&planned, "stage 0: blocks 0-4 (5), recompute full 0-1, selective 2, full 4, "
                          "offload 3\n"
                          "stages 1-2: blocks 5-10 (3 each), no recompute\n"
                          "stage 3: block 11 (1), recompute full, fp8\n");
}

static void test_block_plan_text__alike_stages_have_no_numbers(void **state)
{
    const int64_t sizes[] = {3, 3, 3, 3};
    struct planned planned;
    (void)state;
    plan(&planned, sizes, 4);
    for (size_t i = 0; i < BLOCKS; i += 3)
        planned.modes[i].recompute = planned.modes[i + 1].recompute = RECOMPUTE_FULL;
    assert_text(&planned, "stages 0-3: blocks 0-11 (3 each), recompute full 0-1 of each\n");
    planned.plan.stage_groups = planned.stage_groups;
    planned.stage_groups[2] = planned.stage_groups[3] = 1;
    assert_text(&planned, "stages 0-1: blocks 0-5 (3 each), recompute full 0-1 of each\n"
                          "stages 2-3: blocks 6-11 (3 each) on node group 1, recompute full 0-1 of "
                          "each\n");
}

/* Chunks of a stage lie apart in the model, so its blocks have no numbers. */
static void test_block_plan_text__interleaved(void **state)
{
    const int64_t sizes[] = {8, 4};
    struct planned planned;
    (void)state;
    plan(&planned, sizes, 2);
    planned.layout.schedule = SCHEDULE_INTERLEAVED;
    planned.layout.virtual_stages = 2;
    planned.modes[0].recompute = RECOMPUTE_FULL;
    assert_text(&planned, "stage 0: 8 blocks in 2 chunks, recompute full 0 of each\n"
                          "stage 1: 4 blocks in 2 chunks, no recompute\n");
}

/* A layout without a block plan has stages, too. */
static void test_block_plan_text__uniform(void **state)
{
    const int64_t sizes[] = {3, 3, 3, 3};
    struct planned planned;
    (void)state;
    plan(&planned, sizes, 4);
    planned.layout.own = NULL;
    planned.layout.recompute = RECOMPUTE_FULL;
    planned.layout.pipeline = planned.layout.devices = 3;
    assert_text(&planned, "stages 0-2: blocks 0-11 (4 each), recompute full\n");
}

static void test_block_plan_write__runs(void **state)
{
    const int64_t sizes[] = {7, 5};
    struct planned planned;
    struct text text = {0};
    struct error err;
    struct jout *out = jout_new();
    (void)state;
    plan(&planned, sizes, 2);
    for (size_t i = 0; i < 3; i++)
        planned.modes[i].recompute = RECOMPUTE_FULL;
    planned.modes[7].recompute = RECOMPUTE_SELECTIVE;
    planned.modes[11].arithmetic = ARITHMETIC_FP8;
    planned.modes[6].offload = true;
    block_plan_write(&planned.layout, &planned.model, out);
    assert_ok(jout_finish(out, 0, &text, &err), &err);
    assert_string_equal(
        text.data, "{\"stages\":["
                   "{\"group\":0,\"first_block\":0,\"blocks\":7,"
                   "\"recompute\":[{\"mode\":\"full\",\"blocks\":3},{\"mode\":\"none\",\"blocks\":"
                   "4}],"
                   "\"arithmetic\":[{\"mode\":\"bf16\",\"blocks\":7}],"
                   "\"offload\":[{\"mode\":false,\"blocks\":6},{\"mode\":true,\"blocks\":1}]},"
                   "{\"group\":0,\"first_block\":7,\"blocks\":5,"
                   "\"recompute\":[{\"mode\":\"selective\",\"blocks\":1},"
                   "{\"mode\":\"none\",\"blocks\":4}],"
                   "\"arithmetic\":[{\"mode\":\"bf16\",\"blocks\":4},{\"mode\":\"fp8\",\"blocks\":"
                   "1}],"
                   "\"offload\":[{\"mode\":false,\"blocks\":5}]}]}");
    text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_plan_text__unlike_stages),
        cmocka_unit_test(test_block_plan_text__alike_stages_have_no_numbers),
        cmocka_unit_test(test_block_plan_text__interleaved),
        cmocka_unit_test(test_block_plan_text__uniform),
        cmocka_unit_test(test_block_plan_write__runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
