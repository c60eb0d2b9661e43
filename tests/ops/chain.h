/* A whole model on a device with everything a training step needs: for tests and benchmarks of the
 * layers. Every buffer ends in a guard, and before each forward pass what the layers must write by
 * themselves can be poisoned with NaN. */
#ifndef TEMPER_TESTS_OPS_CHAIN_H
#define TEMPER_TESTS_OPS_CHAIN_H

#include "executor/ops/layer.h"
#include "executor/ops/update.h"

struct chain_options {
    struct micro_batch_shape shape; /* threads: of the device too */
    enum precision precision;       /* of the layers that admit it, */
    enum recompute recompute;       /* as this; the others do without */
};

struct chain_region {
    void *data;
    size_t bytes; /* without the guard */
};

struct chain_layer {
    struct layer layer;
    struct layer_precision_mode mode;
    size_t at; /* of its parameters in the flat arrays */
    struct chain_region slots[SLOT_COUNT];
    struct chain_region output; /* [T, hidden]; not of the head */
};

struct chain {
    struct device *device;
    struct model model;
    struct chain_options options;
    size_t layer_count, tokens;
    struct chain_layer *layers;
    struct chain_region scratch[SLOT_COUNT]; /* shared by all layers */
    uint64_t count;                          /* elements of the flat arrays */
    float *parameters, *gradients;
    uint16_t *parameters_bf16;
    struct chain_region gradient; /* [T, hidden] */
    int32_t *token_ids, *targets; /* [T] */
    float loss_scale;
};

enum status chain_open(struct chain *chain, const struct model *model,
                       const struct chain_options *options, struct error *err);
void chain_close(struct chain *chain);

/* Normal weights as layer_tensors says, but with norm weights and biases random too. */
void chain_randomise(struct chain *chain, uint64_t seed);
/* After the parameters changed. */
void chain_cast(struct chain *chain);
struct layer_call chain_call(struct chain *chain, size_t index);

void chain_poison(struct chain *chain);
enum status chain_forward(struct chain *chain, double *loss_sum, struct error *err);
enum status chain_backward(struct chain *chain, bool accumulate, struct error *err);
/* Has every guard the value it was given? */
bool chain_guards_hold(const struct chain *chain);

#endif
