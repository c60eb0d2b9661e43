/* Plans for tests of what follows from a plan: a gpt2 of one block, small enough to size by hand.
 */
#ifndef TEMPER_TESTS_IR_PLANS_H
#define TEMPER_TESTS_IR_PLANS_H

#include "support.h"

#include "ir/layer.h"
#include "ir/plan.h"

enum { SMALL_LAYERS = 4 }; /* embedding, attention, mlp, head */

struct small_plan {
    struct plan plan;
    struct layer_strategy layers[SMALL_LAYERS];
};

/* hidden 64, 2 heads, ffn 256, vocab 512, 64 positions, s = 32; b = 4: 128 tokens. Every layer in
 * fp32, degree 1, ZeRO 0, one stage; `plan.layers` points into `out`. */
static inline void small_plan_init(struct small_plan *out, int data_parallel, int tensor_parallel)
{
    const struct model_overrides sizes = {.layers = 1,
                                          .hidden = 64,
                                          .heads = 2,
                                          .kv_heads = 2,
                                          .ffn = 256,
                                          .vocab_size = 512,
                                          .positions = 64,
                                          .seq_length = 32};
    struct error err;
    *out = (struct small_plan){0};
    out->plan = (struct plan){.ranks = data_parallel * tensor_parallel,
                              .data_parallel = data_parallel,
                              .tensor_parallel = tensor_parallel,
                              .pipeline = 1,
                              .virtual_stages = 1,
                              .schedule = SCHEDULE_1F1B,
                              .threads = 1,
                              .global_batch = 16 * data_parallel,
                              .micro_batch = 4,
                              .micro_batches = 4,
                              .layers = out->layers,
                              .layer_count = SMALL_LAYERS};
    assert_ok(model_load(&out->plan.model, "gpt2", &sizes, &err), &err);
    assert_int_equal(model_layer_count(&out->plan.model), SMALL_LAYERS);
    for (size_t i = 0; i < SMALL_LAYERS; i++)
        out->layers[i] = (struct layer_strategy){.tensor_parallel = 1};
}

#endif
