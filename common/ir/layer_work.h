/* The work that a layer's pass cannot do without: the floating-point operations of its matrix
 * products and the bytes that have to be read or written at least once. What a machine's rates make
 * of them is the least time that the pass can take (the roofline: Williams, Waterman, Patterson
 * 2009). */
#ifndef TEMPER_IR_LAYER_WORK_H
#define TEMPER_IR_LAYER_WORK_H

#include "ir/layer.h"

struct layer_work {
    double flops;
    double bytes; /* read + written */
};

/* Measured on the machine, all threads of a rank at work. */
struct machine_rates {
    double matmul_flops; /* FLOP/s of a large product in the layer's precision */
    double copy_bytes_s; /* read + written, of a copy larger than the caches */
};

/* One micro-batch through one rank's part. FLOPs are those of the keys that a query sees: half of
 * what layer_part_forward_flops counts for causal attention, less with a sliding window. Bytes:
 * parameters, the residual stream in and out, what is kept for the backward pass. */
struct layer_work layer_forward_work(const struct model *model, const struct layer_part *part,
                                     struct layer_precision_mode mode,
                                     const struct micro_batch_shape *shape);
/* With what the mode recomputes. Bytes: besides those of forward the gradient of the stream, in
 * and out, and the gradients of the parameters, written. */
struct layer_work layer_backward_work(const struct model *model, const struct layer_part *part,
                                      struct layer_precision_mode mode,
                                      const struct micro_batch_shape *shape);
/* A step's end, of each parameter: clipping's norm reads the gradient; AdamW reads parameter,
 * gradient and moments and writes all but the gradient: 8 accesses of 4 bytes, of which those of
 * the gradient can be of 2. */
enum { UPDATE_BYTES = 32 };
/* Of all parameters; in 16 bit the copy that layers read is written, too. `gradients`: of the
 * matrices. */
struct layer_work layer_update_work(const struct model *model, const struct layer_part *part,
                                    enum precision precision, enum precision gradients);
struct layer_work layer_work_add(struct layer_work a, struct layer_work b);

/* Seconds: products and memory at the same time, each at its rate; a rate of 0 is unknown and does
 * not count. */
double roofline_s(struct layer_work work, struct machine_rates rates);
/* Is it the memory's rate that sets the limit? */
bool roofline_is_memory(struct layer_work work, struct machine_rates rates);

#endif
