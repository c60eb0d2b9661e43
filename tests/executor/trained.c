#include "trained.h"

#include "executor/checkpoint.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { TEXT_BYTES = 40000 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error check_err_ = {0};                                                             \
        if ((call) != STATUS_OK)                                                                   \
            fail_msg("%s: %s", #call, check_err_.message);                                         \
    } while (0)
#define ERR (&check_err_)

/* A text with enough pattern to be learnt: sentences over a few words, drawn in a fixed order. */
static void write_text(char path[64])
{
    static const char *const words[] = {"the ",    "plan ", "of ", "a ",    "model ",  "is ",
                                        "always ", "good",  ". ",  "time ", "energy ", "\n"};
    snprintf(path, 64, "/tmp/temper-trained-XXXXXX");
    int file = mkstemp(path);
    assert_true(file >= 0);
    FILE *stream = fdopen(file, "w");
    assert_non_null(stream);
    unsigned state = 7;
    for (int bytes = 0; bytes < TEXT_BYTES;) {
        state = state * 1103515245u + 12345u;
        bytes += fprintf(stream, "%s", words[(state >> 16) % 12]);
    }
    assert_int_equal(fclose(stream), 0);
}

static void build_plan(struct plan *plan, const struct trained_case *what)
{
    bool is_llama = strcmp(what->model, "llama") == 0;
    struct model_overrides sizes = {.layers = 2,
                                    .hidden = 32,
                                    .heads = 4,
                                    .kv_heads = is_llama ? 2 : 4,
                                    .ffn = is_llama ? 48 : 128,
                                    .vocab_size = 256,
                                    .positions = 24,
                                    .seq_length = 17};
    *plan = (struct plan){
        .ranks = what->data_parallel,
        .data_parallel = what->data_parallel,
        .pipeline = 1,
        .threads = what->threads,
        .global_batch = what->global_batch,
        .micro_batch = what->micro_batch,
        .micro_batches = what->global_batch / what->data_parallel / what->micro_batch,
    };
    CHECK(model_load(&plan->model, is_llama ? "tinyllama-1.1b" : "gpt2", &sizes, ERR));
    plan->layer_count = model_layer_count(&plan->model);
    plan->layers = calloc(plan->layer_count, sizeof *plan->layers);
    assert_non_null(plan->layers);
    for (size_t i = 0; i < plan->layer_count; i++) {
        enum layer_kind kind = model_layer(&plan->model, i).kind;
        struct layer_strategy *strategy = &plan->layers[i];
        strategy->tensor_parallel = 1;
        if (layer_admits_precision(kind, what->mode.precision))
            strategy->precision = what->mode.precision;
        if (layer_admits_recompute(kind, what->mode.recompute))
            strategy->recompute = what->mode.recompute;
    }
    CHECK(plan_validate(plan, "test", ERR));
}

void trained_open(struct trained *out, const struct trained_case *what, struct comm *comm)
{
    memset(out, 0, sizeof *out);
    write_text(out->data_path);
    build_plan(&out->plan, what);
    CHECK(device_open(&out->device, what->threads, ERR));
    struct dataset_options data = {.path = out->data_path,
                                   .vocab = out->plan.model.vocab,
                                   .seq_length = out->plan.model.seq_length,
                                   .seed = 11};
    CHECK(dataset_open(&out->dataset, &data, ERR));
    struct trainer_setup setup = {
        .plan = &out->plan,
        .comm = comm,
        .device = out->device,
        .dataset = out->dataset,
        .optimizer = {.learning_rate = what->learning_rate,
                      .min_learning_rate = what->learning_rate / 10,
                      .warmup_steps = 2,
                      .decay_steps = 40,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      /* Large, so that Adam does not blow rounding noise in tiny gradients up to
                       * whole steps and trainings can be compared closely. */
                      .epsilon = 1e-3,
                      .weight_decay = 0.1,
                      .clip_norm = what->clip_norm},
        .seed = 11,
        .skip_limit = 3,
    };
    CHECK(trainer_open(&out->trainer, &setup, ERR));
}

void trained_close(struct trained *trained)
{
    trainer_close(trained->trainer);
    dataset_close(trained->dataset);
    device_close(trained->device);
    plan_clear(&trained->plan);
    unlink(trained->data_path);
}

void trained_steps(struct trained *trained, int count, double *losses)
{
    for (int i = 0; i < count; i++) {
        struct step_result result = {0};
        CHECK(trainer_step(trained->trainer, &result, ERR));
        if (losses != NULL)
            losses[i] = result.loss;
    }
}

float *trained_weights(struct trained *trained, const char *folder, uint64_t *count)
{
    *count = 0;
    for (size_t i = 0; i < trained->plan.layer_count; i++)
        *count += layer_flat_count(&trained->plan.model, model_layer(&trained->plan.model, i).kind);
    float *weights = calloc(*count, sizeof *weights);
    assert_non_null(weights);
    CHECK(trainer_save_checkpoint(trained->trainer, folder, 1, ERR));
    struct weight_arrays arrays = {.parameters = weights};
    struct training_state state;
    CHECK(checkpoint_load(folder, &trained->plan.model, &arrays, &state, NULL, ERR));
    return weights;
}

double relative_distance(const float *a, const float *b, uint64_t count)
{
    double difference = 0, size = 0;
    for (uint64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    return sqrt(difference / size);
}
