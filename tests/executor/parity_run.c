#include "parity_run.h"

#include "ir/mesh.h"
#include "ir/state.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

enum { ATTEMPTS_MAX = 40 };

static const double risk = 1e-2;

const char *const parity_quantity_names[PARITY_QUANTITIES] = {"loss", "norm", "moment", "change",
                                                              "weights"};

/* A constant learning rate, an epsilon above the size of most of the gradients' elements, so that
 * AdamW passes differences on about as they are (docs/parity.md), and clipping in every step. */
static const struct optimizer_options optimizer = {
    .learning_rate = 1e-3,
    .min_learning_rate = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.95,
    .epsilon = 1e-2,
    .weight_decay = 0.1,
    .clip_norm = 0.25,
};

/* ---- training ---- */

/* Until one step was not skipped. */
static void do_step(struct trained *trained, struct parity_outcome *out, int step)
{
    struct step_result result = {.skipped = true};
    struct error err = {0};
    while (result.skipped) {
        if (out->attempts++ == ATTEMPTS_MAX)
            fail_msg("%d steps were tried, and %d were not skipped", ATTEMPTS_MAX, step);
        if (trainer_step(trained->trainer, &result, &err) != STATUS_OK)
            fail_msg("step %d: %s", step + 1, err.message);
    }
    out->steps[step] =
        (struct parity_step){result.learning_rate, result.loss, result.gradient_norm};
}

void parity_train(struct parity_outcome *out, const struct plan *plan, const char *data_path,
                  struct comm *comm)
{
    struct trained trained;
    char folder[64];
    *out = (struct parity_outcome){0};
    trained_folder(comm, folder);
    trained_open_plan(&trained, plan, data_path, &optimizer, comm);
    for (int i = 0; i < PARITY_STEPS; i++)
        do_step(&trained, out, i);
    /* The high-water mark: what the layout keeps for activations is what was used of it. */
    assert_int_equal(trainer_peak_activation_bytes(trained.trainer),
                     trainer_term_bytes(trained.trainer, MEMORY_ACTIVATIONS));
    trained_read(&trained, folder, &out->state);
    trained_close(&trained);
}

void parity_outcome_clear(struct parity_outcome *outcome)
{
    trained_state_clear(&outcome->state);
}

/* ---- one device ---- */

static double norm_of(const float *a, const float *b, double factor, uint64_t count)
{
    double sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        double value = (double)a[i] - (b != NULL ? factor * (double)b[i] : 0);
        sum += value * value;
    }
    return sqrt(sum);
}

static double gain_of(const struct trained_tensor *tensor, int step)
{
    double correction = 1 - pow(optimizer.beta2, step + 1), sum = 0;
    for (uint64_t i = 0; i < tensor->count; i++) {
        double size = sqrt((double)tensor->second_moment[i] / correction) / optimizer.epsilon;
        double gain = parity_update_gain(size, optimizer.beta1, optimizer.beta2, step);
        sum += gain * gain;
    }
    return sqrt(sum / (double)tensor->count);
}

/* The gradients of a step stand in the first moment: m = beta1 m' + (1 - beta1) g. */
static void note_step(struct parity_device *device, const struct trained_state *before,
                      const struct trained_state *after, int step)
{
    for (size_t i = 0; i < after->count; i++) {
        const struct trained_tensor *tensor = &after->tensors[i];
        device->tensors[i].gradient[step] =
            norm_of(tensor->first_moment, before->tensors[i].first_moment, optimizer.beta1,
                    tensor->count) /
            (1 - optimizer.beta1);
        device->tensors[i].gain[step] = gain_of(tensor, step);
    }
}

static void note_sizes(struct parity_device *device)
{
    const struct trained_state *state = &device->outcome.state;
    for (size_t i = 0; i < state->count; i++) {
        const struct trained_tensor *tensor = &state->tensors[i];
        struct parity_tensor *sizes = &device->tensors[i];
        sizes->count = (double)tensor->count;
        sizes->decays = tensor->decays;
        sizes->weights = norm_of(tensor->weights, NULL, 0, tensor->count);
        sizes->moment = norm_of(tensor->first_moment, NULL, 0, tensor->count);
        sizes->change =
            norm_of(tensor->weights, device->initial.tensors[i].weights, 1, tensor->count);
        /* Else there is nothing to compare. */
        assert_true(sizes->change > 0 && sizes->moment > 0 && isfinite(sizes->change));
    }
}

static void train_and_measure(struct parity_device *device, const struct plan *plan,
                              const char *data_path, struct comm *alone)
{
    struct trained trained;
    struct trained_state before, after;
    char folder[64];
    trained_folder(alone, folder);
    trained_open_plan(&trained, plan, data_path, &optimizer, alone);
    trained_read(&trained, folder, &device->initial);
    device->tensors = calloc(device->initial.count, sizeof *device->tensors);
    assert_non_null(device->tensors);
    before = device->initial;
    for (int i = 0; i < PARITY_STEPS; i++) {
        do_step(&trained, &device->outcome, i);
        trained_read(&trained, folder, &after);
        note_step(device, &before, &after, i);
        if (i > 0)
            trained_state_clear(&before);
        before = after;
    }
    device->outcome.state = after;
    trained_close(&trained);
}

static enum precision coarsest_precision(const struct plan *plan)
{
    enum precision coarsest = PRECISION_FP32;
    for (size_t i = 0; i < plan->layer_count; i++)
        if (parity_roundoff(plan->layers[i].precision) > parity_roundoff(coarsest))
            coarsest = plan->layers[i].precision;
    return coarsest;
}

static bool is_tiled(const struct plan *plan, size_t layer)
{
    return plan->layers[layer].attention == ATTENTION_TILED;
}

/* Two runs of one pass: under the plan, and under that of the device. */
static struct parity_noise noise_of(const struct plan *plan, const struct plan *device)
{
    struct parity_pass pass = {
        .model = &plan->model,
        .precision = coarsest_precision(plan),
        .tokens = plan->global_batch * plan->model.seq_length,
    };
    pass.narrow_tiles = parity_narrow_tiles(pass.precision);
    for (size_t i = 0; i < plan->layer_count; i++) {
        pass.tiled += is_tiled(plan, i) && is_tiled(device, i);
        pass.unlike += is_tiled(plan, i) != is_tiled(device, i);
    }
    return parity_noise_of(&pass);
}

/* Of the layer's matrices. */
static double gradient_roundings(const struct plan *plan, size_t layer)
{
    size_t head = plan->layer_count - 1;
    bool is_tied_table = plan->model.tied_head && layer == 0;
    struct parity_gradient_sum sum = {
        .zero_stage = plan->layers[layer].zero_stage,
        .micro_batches = plan->micro_batches,
        .chunks = 1,
        .parts = is_tied_table && plan->pipeline == 1 ? 2 : 1,
        .is_reduced = mesh_data_ways(plan, layer) > 1,
        .has_copies = is_tied_table && plan->pipeline > 1,
    };
    if (layer_gradient_precision(plan, layer) != PRECISION_BF16)
        return 0;
    if (is_tied_table || layer == head) {
        struct layer_part part = mesh_part(plan, head, 0);
        struct micro_batch_shape shape = mesh_shape(plan, head);
        int64_t tokens = shape.sequences * shape.seq_length;
        int64_t chunk = head_chunk_tokens(&plan->model, &part, &shape);
        sum.chunks = (tokens + chunk - 1) / chunk;
    }
    return parity_gradient_roundings(&sum);
}

size_t parity_tensor_roundings(const struct plan *plan, double *out)
{
    size_t total = 0;
    for (size_t layer = 0; layer < plan->layer_count; layer++) {
        struct tensor_spec specs[LAYER_TENSORS_MAX];
        size_t count = layer_tensors(&plan->model, model_layer(&plan->model, layer).kind, specs);
        double roundings = gradient_roundings(plan, layer);
        for (size_t i = 0; i < count && out != NULL; i++)
            out[total + i] = specs[i].stays_whole ? 0 : roundings;
        total += count;
    }
    return total;
}

/* Raises the device's to those of the plan. */
static void raise_roundings(struct parity_device *device, const struct plan *plan)
{
    double *roundings = calloc(device->initial.count, sizeof *roundings);
    assert_non_null(roundings);
    assert_int_equal(parity_tensor_roundings(plan, NULL), device->initial.count);
    (void)parity_tensor_roundings(plan, roundings);
    for (size_t i = 0; i < device->initial.count; i++)
        device->tensors[i].roundings = fmax(device->tensors[i].roundings, roundings[i]);
    free(roundings);
}

void parity_device_expect(struct parity_device *device, const struct parity_case *cases,
                          size_t count)
{
    struct plan plan, one;
    struct error err = {0};
    struct parity_noise *noise = &device->training.noise;
    *noise = (struct parity_noise){0};
    for (size_t i = 0; i < device->initial.count; i++)
        device->tensors[i].roundings = 0;
    assert_int_equal(parity_plan(&one, &device->what, &err), STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(parity_plan(&plan, &cases[i], &err), STATUS_OK);
        assert_int_equal(coarsest_precision(&plan), coarsest_precision(&one));
        struct parity_noise of_case = noise_of(&plan, &one);
        noise->logits = fmax(noise->logits, of_case.logits);
        noise->gradient = fmax(noise->gradient, of_case.gradient);
        raise_roundings(device, &plan);
        plan_clear(&plan);
    }
    plan_clear(&one);
    parity_bound_close(&device->bound);
    parity_bound_open(&device->bound, &device->training);
}

void parity_device_open(struct parity_device *out, const struct parity_case *what,
                        const char *data_path, double comparisons)
{
    struct plan plan;
    struct comm *alone = NULL;
    struct error err = {0};
    *out = (struct parity_device){.what = parity_reference(what)};
    if (comm_open_alone(&alone, &err) != STATUS_OK ||
        parity_plan(&plan, &out->what, &err) != STATUS_OK)
        fail_msg("%s", err.message);
    out->model = plan.model;
    out->training = (struct parity_training){
        .model = &out->model,
        .tokens = plan.global_batch * plan.model.seq_length,
        .beta1 = optimizer.beta1,
        .beta2 = optimizer.beta2,
        .epsilon = optimizer.epsilon,
        .weight_decay = optimizer.weight_decay,
        .clip_norm = optimizer.clip_norm,
        .confidence = parity_confidence(comparisons, risk),
        .step_count = PARITY_STEPS,
    };
    train_and_measure(out, &plan, data_path, alone);
    note_sizes(out);
    out->training.tensors = out->tensors;
    out->training.tensor_count = out->initial.count;
    memcpy(out->training.steps, out->outcome.steps, sizeof out->outcome.steps);
    parity_device_expect(out, what, 1);
    comm_close(alone);
}

void parity_device_close(struct parity_device *device)
{
    parity_bound_close(&device->bound);
    free(device->tensors);
    trained_state_clear(&device->initial);
    parity_outcome_clear(&device->outcome);
}

/* ---- comparison ---- */

/* A difference that is no number exceeds every bound. */
static void find(struct parity_finding *finding, double observed, double bound, const char *where)
{
    double ratio = observed / bound;
    if (isnan(ratio))
        ratio = INFINITY;
    if (ratio < finding->ratio)
        return;
    *finding = (struct parity_finding){.observed = observed, .bound = bound, .ratio = ratio};
    snprintf(finding->where, sizeof finding->where, "%s", where);
}

static void compare_tensor(const struct parity_device *device, size_t index,
                           const struct trained_tensor *got, struct parity_verdict *out)
{
    const struct trained_tensor *expected = &device->outcome.state.tensors[index];
    const struct parity_tensor *sizes = &device->tensors[index];
    const struct parity_tensor_bound *bound = &device->bound.tensors[index];
    assert_string_equal(got->name, expected->name);
    assert_int_equal(got->count, expected->count);
    /* Both began with the same weights, so that their changes differ as they do. */
    double apart = norm_of(got->weights, expected->weights, 1, got->count);
    double moments = norm_of(got->first_moment, expected->first_moment, 1, got->count);
    find(&out->of[PARITY_MOMENT], moments / sizes->moment, bound->moment, got->name);
    find(&out->of[PARITY_CHANGE], apart / sizes->change, bound->change, got->name);
    find(&out->of[PARITY_WEIGHTS], apart / sizes->weights, bound->weights, got->name);
}

void parity_compare(const struct parity_device *device, const struct parity_outcome *outcome,
                    struct parity_verdict *out)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < PARITY_STEPS; i++) {
        const struct parity_step *got = &outcome->steps[i], *expected = &device->outcome.steps[i];
        char where[16];
        snprintf(where, sizeof where, "step %d", i + 1);
        find(&out->of[PARITY_LOSS], fabs(got->loss / expected->loss - 1), device->bound.loss[i],
             where);
        find(&out->of[PARITY_NORM], fabs(got->gradient_norm / expected->gradient_norm - 1),
             device->bound.gradient_norm[i], where);
    }
    assert_int_equal(outcome->state.count, device->outcome.state.count);
    for (size_t i = 0; i < outcome->state.count; i++)
        compare_tensor(device, i, &outcome->state.tensors[i], out);
    if (outcome->attempts != device->outcome.attempts)
        find(&out->of[PARITY_LOSS], INFINITY, 1, "skipped steps");
}

double parity_worst(const struct parity_verdict *verdict)
{
    double worst = 0;
    for (int q = 0; q < PARITY_QUANTITIES; q++)
        worst = fmax(worst, verdict->of[q].ratio);
    return worst;
}

void parity_print(FILE *out, const struct parity_verdict *verdict, const char *what)
{
    int worst = PARITY_MOMENT;
    for (int q = PARITY_MOMENT; q < PARITY_QUANTITIES; q++)
        if (verdict->of[q].ratio > verdict->of[worst].ratio)
            worst = q;
    fprintf(out, "%7.4f loss %7.4f norm %7.4f %s of %-40s %s\n", verdict->of[PARITY_LOSS].ratio,
            verdict->of[PARITY_NORM].ratio, verdict->of[worst].ratio, parity_quantity_names[worst],
            verdict->of[worst].where, what);
}
