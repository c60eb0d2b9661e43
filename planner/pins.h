/* What the user fixed of a plan: `--pin`. */
#ifndef TEMPER_PLANNER_PINS_H
#define TEMPER_PLANNER_PINS_H

#include "ir/layer.h"
#include "ir/model.h"
#include "ir/names.h"
#include "ir/plan.h"
#include "ir/schedule.h"

/* What can be pinned by kind of layer and for a range of blocks. */
enum pin_mode {
    PIN_TENSOR_PARALLEL,
    PIN_SEQUENCE_PARALLEL,
    PIN_ZERO,
    PIN_RECOMPUTE,
    PIN_PRECISION,
    PIN_ATTENTION,  /* the kernel, on a measured machine */
    PIN_ARITHMETIC, /* of a range only, on a described cluster */
    PIN_MODE_COUNT
};

/* Blocks `first` to `last`, both included, counted from 0. */
struct range_pin {
    enum pin_mode mode;
    enum layer_kind kind; /* LAYER_KIND_COUNT: attention and mlp */
    int64_t first, last;
    int value; /* t, 0 or 1, stage, enum recompute, enum precision,
                  enum attention_kernel, enum arithmetic */
};

enum { RANGE_PINS_MAX = 32 };

/* What waits on the host: bits of pins.offload. */
enum pinned_offload { OFFLOAD_ACTIVATIONS = 1, OFFLOAD_OPTIMIZER = 2 };
extern const struct name_list offload_names; /* "none", "activations", "optimizer", "both" */

/* Zero or false: free. */
struct pins {
    int64_t micro_batch;   /* sequences */
    int64_t micro_batches; /* accumulated a step */
    int data_parallel;
    int pipeline;
    int virtual_stages;
    bool schedule_fixed;
    enum schedule schedule;
    int threads;
    /* fp32 unless pinned: no plan rounds gradients that was not asked to. bf16 not where pins leave
     * no layer in bf16. Measured machines only. */
    bool gradients_fixed;
    enum gradient_reduction gradients;
    /* Of described clusters only: */
    int context, expert, shard;
    bool offload_fixed;
    unsigned offload;
    bool fused_attention_fixed, fused_attention;
    bool overlap_fixed, overlap; /* of communication with compute */
    /* By kind; a pinned mode that a kind does not admit leaves the kind at its nearest one: none
     * for recompute, fp32 for precision, off for sequence parallelism of a layer that is not
     * shared. */
    int tensor_parallel[LAYER_KIND_COUNT]; /* t of the kind's layers */
    bool sequence_parallel_fixed[LAYER_KIND_COUNT];
    bool sequence_parallel[LAYER_KIND_COUNT];
    bool zero_fixed[LAYER_KIND_COUNT];
    int zero_stage[LAYER_KIND_COUNT];
    bool recompute_fixed[LAYER_KIND_COUNT];
    enum recompute recompute[LAYER_KIND_COUNT];
    bool precision_fixed[LAYER_KIND_COUNT];
    enum precision precision[LAYER_KIND_COUNT];
    bool attention_fixed[LAYER_KIND_COUNT];
    enum attention_kernel attention[LAYER_KIND_COUNT];
    /* [range_count]; they stand before what holds for a kind, those of one kind before those of
     * both. No two of the same mode and kind have a block in common. */
    struct range_pin ranges[RANGE_PINS_MAX];
    size_t range_count;
};

/* "pp=2,schedule=1f1b,tp=2,sp=on,zero=1,zero:mlp=2,micro-batch=4,recompute:attention=selective,
 * recompute:3-5=full,zero:mlp:0=3": what is named for one kind stands before what is named for all,
 * what is named for blocks before both. Unknown keys and values are named with what is possible,
 * and so are pins that exclude each other. */
enum status pins_parse(struct pins *out, const char *text, struct error *err);

/* STATUS_USAGE: a range reaches beyond the model's blocks. */
enum status pins_check_model(const struct pins *pins, const struct model *model, struct error *err);
/* STATUS_USAGE: something that only described clusters have. */
enum status pins_check_measured(const struct pins *pins, struct error *err);

/* The pins as they hold for the layer of this kind in this block (-1: in none): without ranges, and
 * for other kinds without meaning. */
struct pins pins_of_layer(const struct pins *pins, enum layer_kind kind, int64_t block);
/* Do two of these pin layers of the kind alike? */
bool pins_are_alike(const struct pins *a, const struct pins *b, enum layer_kind kind);
/* Frees the mode wherever it is pinned; was it? */
bool pins_drop_mode(struct pins *pins, enum pin_mode mode);

const char *pin_mode_name(enum pin_mode mode); /* "tp", "sp", "zero", ... */

#endif
