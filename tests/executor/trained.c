#include "trained.h"

#include "base/file.h"
#include "executor/safetensors.h"
#include <dirent.h>
#include <limits.h>
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

enum { TEXT_BYTES = 40000, PATH_BYTES = 160 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error check_err_ = {0};                                                             \
        if ((call) != STATUS_OK)                                                                   \
            fail_msg("%s: %s", #call, check_err_.message);                                         \
    } while (0)
#define ERR (&check_err_)

/* ---- data ---- */

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

void write_tokens(char path[64], int64_t count, int64_t vocab)
{
    enum { HEADER = 256, MAGIC = 20240520, VERSION = 1 };
    int32_t header[HEADER] = {MAGIC, VERSION, (int32_t)count};
    snprintf(path, 64, "/tmp/temper-tokens-XXXXXX.bin");
    int file = mkstemps(path, 4);
    assert_true(file >= 0);
    FILE *stream = fdopen(file, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(header, sizeof header[0], HEADER, stream), HEADER);
    uint32_t state = 7, token = 1;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1103515245u + 12345u;
        token = (5 * token + (state >> 16) % 4) % (uint32_t)vocab;
        uint16_t value = (uint16_t)token;
        assert_int_equal(fwrite(&value, sizeof value, 1, stream), 1);
    }
    assert_int_equal(fclose(stream), 0);
}

/* ---- a training ---- */

static int or_one(int degree)
{
    return degree > 0 ? degree : 1;
}

static void choose_strategy(struct plan *plan, size_t layer, const struct trained_case *what)
{
    enum layer_kind kind = model_layer(&plan->model, layer).kind;
    struct layer_strategy *strategy = &plan->layers[layer];
    strategy->stage = (int)(layer * (size_t)plan->pipeline / plan->layer_count);
    strategy->tensor_parallel = plan->tensor_parallel;
    strategy->sequence_parallel = what->sequence_parallel;
    strategy->zero_stage = what->zero_stage;
    if (layer_admits_precision(kind, what->mode.precision))
        strategy->precision = what->mode.precision;
    if (layer_admits_recompute(kind, what->mode.recompute))
        strategy->recompute = what->mode.recompute;
    if (layer_admits_kernel(kind, what->mode.attention))
        strategy->attention = what->mode.attention;
}

static void build_plan(struct plan *plan, const struct trained_case *what)
{
    bool is_llama = strcmp(what->model, "llama") == 0;
    struct model_overrides sizes = {.layers = 2,
                                    .hidden = 32,
                                    .heads = 4,
                                    .kv_heads = is_llama ? 2 : 4,
                                    .ffn = is_llama ? 48 : 128,
                                    .vocab_size = what->vocab > 0 ? what->vocab : 256,
                                    .positions = what->seq_length > 0 ? what->seq_length : 24,
                                    .seq_length = what->seq_length > 0 ? what->seq_length : 17};
    *plan = (struct plan){
        .data_parallel = or_one(what->data_parallel),
        .tensor_parallel = or_one(what->tensor_parallel),
        .pipeline = or_one(what->pipeline),
        .virtual_stages = 1,
        .schedule = SCHEDULE_1F1B,
        .threads = what->threads,
        .global_batch = what->global_batch,
        .micro_batch = what->micro_batch,
    };
    plan->ranks = plan->data_parallel * plan->tensor_parallel * plan->pipeline;
    plan->micro_batches = what->global_batch / plan->data_parallel / what->micro_batch;
    CHECK(model_load(&plan->model, is_llama ? "tinyllama-1.1b" : "gpt2", &sizes, ERR));
    plan->layer_count = model_layer_count(&plan->model);
    plan->layers = calloc(plan->layer_count, sizeof *plan->layers);
    assert_non_null(plan->layers);
    for (size_t i = 0; i < plan->layer_count; i++)
        choose_strategy(plan, i, what);
    CHECK(plan_validate(plan, "test", ERR));
}

void trained_open_plan(struct trained *out, const struct plan *plan, const char *data_path,
                       const struct optimizer_options *optimizer, struct comm *comm)
{
    memset(out, 0, sizeof *out);
    out->plan = *plan;
    out->comm = comm;
    snprintf(out->data_path, sizeof out->data_path, "%s", data_path);
    CHECK(device_open(&out->device, plan->threads, ERR));
    struct dataset_options data = {.path = out->data_path,
                                   .vocab = plan->model.vocab,
                                   .seq_length = plan->model.seq_length,
                                   .seed = 11};
    CHECK(dataset_open(&out->dataset, &data, ERR));
    struct trainer_setup setup = {
        .plan = &out->plan,
        .comm = comm,
        .device = out->device,
        .dataset = out->dataset,
        .optimizer = *optimizer,
        .seed = 11,
        .skip_limit = 3,
    };
    CHECK(trainer_open(&out->trainer, &setup, ERR));
}

void trained_open(struct trained *out, const struct trained_case *what, struct comm *comm)
{
    struct plan plan;
    char data_path[64];
    const struct optimizer_options optimizer = {
        .learning_rate = what->learning_rate,
        .min_learning_rate = what->learning_rate / 10,
        .warmup_steps = 2,
        .decay_steps = 40,
        .beta1 = 0.9,
        .beta2 = 0.95,
        /* Large, so that Adam does not blow rounding noise in tiny gradients up to whole steps and
         * trainings can be compared closely. */
        .epsilon = 1e-3,
        .weight_decay = 0.1,
        .clip_norm = what->clip_norm,
    };
    write_text(data_path);
    build_plan(&plan, what);
    trained_open_plan(out, &plan, data_path, &optimizer, comm);
    out->owns_data = true;
}

void trained_close(struct trained *trained)
{
    trainer_close(trained->trainer);
    dataset_close(trained->dataset);
    device_close(trained->device);
    plan_clear(&trained->plan);
    if (trained->owns_data)
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

/* ---- what was learnt ---- */

static void list_tensors(struct trained_state *out, const struct model *model)
{
    size_t layers = model_layer_count(model);
    out->tensors = calloc(layers * LAYER_TENSORS_MAX, sizeof *out->tensors);
    assert_non_null(out->tensors);
    for (size_t i = 0; i < layers; i++) {
        struct layer layer = model_layer(model, i);
        struct tensor_spec specs[LAYER_TENSORS_MAX];
        size_t count = layer_tensors(model, layer.kind, specs);
        for (size_t k = 0; k < count; k++) {
            struct trained_tensor *tensor = &out->tensors[out->count++];
            tensor_name(&specs[k], layer.block, tensor->name);
            tensor->count = tensor_count(&specs[k]);
            tensor->decays = specs[k].decays;
        }
    }
}

/* Where the checkpoint's tensor of this name goes; NULL: nobody wants it. */
static float **place_of(struct trained_state *state, const char *name)
{
    static const char *const prefixes[] = {"", "first_moment.", "second_moment."};
    for (size_t i = 0; i < state->count; i++) {
        struct trained_tensor *tensor = &state->tensors[i];
        float **const places[] = {&tensor->weights, &tensor->first_moment, &tensor->second_moment};
        for (size_t k = 0; k < 3; k++) {
            size_t length = strlen(prefixes[k]);
            if (strncmp(name, prefixes[k], length) == 0 && strcmp(name + length, tensor->name) == 0)
                return places[k];
        }
    }
    return NULL;
}

static uint64_t count_of(const struct safetensors *file, const char *name)
{
    int64_t shape[SAFETENSORS_RANK_MAX];
    int rank = safetensors_shape(file, name, shape);
    uint64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= (uint64_t)shape[i];
    return count;
}

static void read_file_of(struct trained_state *out, const char *path)
{
    struct safetensors *file = NULL;
    CHECK(safetensors_open(&file, path, ERR));
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_name(file, i);
        float **place = place_of(out, name);
        if (place == NULL)
            continue;
        uint64_t count = count_of(file, name);
        assert_null(*place);
        *place = calloc(count, sizeof **place);
        assert_non_null(*place);
        CHECK(safetensors_read(file, name, *place, count, ERR));
    }
    safetensors_close(file);
}

/* A checkpoint has one file or one a rank. */
static void read_checkpoint(const char *folder, int64_t step, const struct model *model,
                            struct trained_state *out)
{
    char path[PATH_BYTES], file[PATH_BYTES + NAME_MAX + 2];
    snprintf(path, sizeof path, "%s/step-%08lld", folder, (long long)step);
    list_tensors(out, model);
    DIR *entries = opendir(path);
    assert_non_null(entries);
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        const char *end = strrchr(entry->d_name, '.');
        if (end == NULL || strcmp(end, ".safetensors") != 0)
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        read_file_of(out, file);
    }
    closedir(entries);
    for (size_t i = 0; i < out->count; i++)
        if (out->tensors[i].weights == NULL || out->tensors[i].first_moment == NULL ||
            out->tensors[i].second_moment == NULL)
            fail_msg("the checkpoint has no %s", out->tensors[i].name);
}

void trained_read(struct trained *trained, const char *folder, struct trained_state *out)
{
    memset(out, 0, sizeof *out);
    CHECK(trainer_save_checkpoint(trained->trainer, folder, 1, ERR));
    if (comm_rank(trained->comm) == 0) {
        read_checkpoint(folder, trainer_step_count(trained->trainer), &trained->plan.model, out);
        CHECK(folder_remove(folder, ERR));
    }
    CHECK(comm_barrier(trained->comm, ERR));
}

void trained_state_clear(struct trained_state *state)
{
    for (size_t i = 0; i < state->count; i++) {
        free(state->tensors[i].weights);
        free(state->tensors[i].first_moment);
        free(state->tensors[i].second_moment);
    }
    free(state->tensors);
    *state = (struct trained_state){0};
}

void trained_folder(struct comm *comm, char folder[64])
{
    static int64_t used;
    int64_t name[2] = {getpid(), used++};
    CHECK(comm_broadcast(comm, name, sizeof name, 0, ERR));
    snprintf(folder, 64, "/tmp/temper-trained-%lld-%lld", (long long)name[0], (long long)name[1]);
}

double trained_distance(const struct trained_state *a, const struct trained_state *b)
{
    double difference = 0, size = 0;
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const float *x = a->tensors[i].weights, *y = b->tensors[i].weights;
        assert_int_equal(a->tensors[i].count, b->tensors[i].count);
        for (uint64_t k = 0; k < a->tensors[i].count; k++) {
            difference += ((double)x[k] - y[k]) * ((double)x[k] - y[k]);
            size += (double)y[k] * y[k];
        }
    }
    return sqrt(difference / size);
}
