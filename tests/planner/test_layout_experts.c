/* Layouts of a model with experts: every way to share them out that the replicas allow. */
#include "layouts.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { EXPERTS = 8 };

/* Mixtral of four blocks on 16 devices. */
static struct model small_mixtral(void)
{
    return few_blocks("mixtral-8x7b", 4);
}

static struct layout_list price(const struct layouts_request *request)
{
    struct layout_list list;
    struct error err;
    if (layouts_price(request, &list, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    return list;
}

/* With all but the experts fixed, data times context is 16: 1, 2, 4 and 8 divide both that and the
 * 8 experts. */
static void test_layouts__share_experts_in_every_way(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model = small_mixtral();
    struct error err;
    assert_int_equal(cluster_load(&cluster, "h100x16", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.pins.pipeline = request.pins.tensor = request.pins.context = 1;
    request.pins.micro_batch = 1;
    request.pins.zero_stage = 1;
    request.pins.recompute = RECOMPUTE_NONE;
    struct layout_list list = price(&request);
    int64_t counts[EXPERTS + 1] = {0};
    for (size_t i = 0; i < list.count; i++) {
        assert_in_range(list.rows[i].layout.expert, 1, EXPERTS);
        counts[list.rows[i].layout.expert]++;
    }
    for (int64_t ways = 1; ways <= EXPERTS; ways++)
        assert_int_equal(counts[ways] > 0, ways == 1 || ways == 2 || ways == 4 || ways == 8);
    layouts_free(&list);
    request.pins.expert = 4;
    list = price(&request);
    assert_int_equal(list.count, counts[4]);
    layouts_free(&list);
    /* the model's 8 experts, not the 16 devices, are the end of it */
    request.pins.expert = 16;
    list = price(&request);
    assert_int_equal(list.considered, 0);
    layouts_free(&list);
}

/* Without tensor parallelism every replica would hold all experts: sharing them saves both their
 * memory and their gradients' way. */
static void test_layouts__prefer_shared_experts(void **state)
{
    (void)state;
    struct cluster cluster;
    struct model model = small_mixtral();
    struct error err;
    const struct layout_weights weights = {.time = 1};
    assert_int_equal(cluster_load(&cluster, "h100x16", &err), STATUS_OK);
    struct layouts_request request = request_of(&cluster, &model);
    request.pins.pipeline = 1;
    struct layout_list list = price(&request);
    assert_int_equal(layouts_rank(&list, &weights, NULL, NULL, &err), STATUS_OK);
    assert_true(list.count > 0);
    assert_true(list.rows[0].layout.expert > 1);
    for (size_t i = 0; i < list.count; i++)
        assert_true(list.rows[i].layout.tensor == 1 || list.rows[i].layout.sequence_parallel);
    layouts_free(&list);
    /* other frameworks hold all experts everywhere */
    request.framework = FRAMEWORK_FSDP;
    list = price(&request);
    assert_true(list.considered > 0);
    for (size_t i = 0; i < list.count; i++)
        assert_int_equal(list.rows[i].layout.expert, 1);
    layouts_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layouts__share_experts_in_every_way),
        cmocka_unit_test(test_layouts__prefer_shared_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
