#include "costmodel/host_exchange.h"

#include <math.h>

/* Bytes of an owned parameter on the link. `element` stands for those of a 16-bit parameter, 4 in
 * fp32. Megatron-Core's HybridDeviceOptimizer copies fp32 gradients once a step and casts
 * parameters on the host. DeepSpeed sends each micro-batch's gradients and fetches the sum of those
 * before to add to it (ZeRO-Offload). FSDP's CPUOffloadPolicy has all of it on the host: fp32
 * parameters come up for every gathering, fp32 gradients go down after every scattering. */
enum { ELEMENT = -1 };
static const struct {
    int forward_up, backward_up, backward_down, step_down, step_up;
} bytes_of[FRAMEWORK_COUNT] = {
    [FRAMEWORK_MEGATRON] = {.step_down = 4, .step_up = ELEMENT},
    [FRAMEWORK_DEEPSPEED] = {.backward_up = ELEMENT, .backward_down = ELEMENT, .step_up = ELEMENT},
    [FRAMEWORK_FSDP] = {.forward_up = 4, .backward_up = 4, .backward_down = 4},
};

/* That Adam moves in the host's memory: gradient, parameter and two moments read, the last three
 * written; and the copy that layouts of 16 bit multiply with. */
static const double adam_bytes = 28, copy_bytes = 2;

/* fp32 parameter, gradient, two moments. */
static const double state_bytes = 16;

static double bytes_on_link(const struct layout_share *share, int bytes, double owned)
{
    return owned * (bytes == ELEMENT ? share->element_bytes : bytes);
}

/* Does a micro-batch's backward pass fetch something? DeepSpeed: a sum, but for the first one's.
 * FSDP: parameters that were dropped after the forward pass. */
static bool fetches_backward(const struct layout *layout)
{
    if (layout->framework == FRAMEWORK_FSDP)
        return layout->zero_stage == 3;
    return layout_micro_batches(layout) > 1;
}

/* A link works in both directions at once. */
double host_wait_s(const struct layout_share *share, const struct host_load *load)
{
    const struct layout *layout = share->layout;
    enum framework framework = layout->framework;
    double up[PASS_COUNT] = {[PASS_BACKWARD] = load->away_bytes};
    double down[PASS_COUNT] = {[PASS_FORWARD] = load->away_bytes};
    double wait_s = 0;

    if (layout->offload_optimizer) {
        up[PASS_FORWARD] = bytes_on_link(share, bytes_of[framework].forward_up, load->owned);
        down[PASS_BACKWARD] = bytes_on_link(share, bytes_of[framework].backward_down, load->owned);
        if (fetches_backward(layout))
            up[PASS_BACKWARD] += bytes_on_link(share, bytes_of[framework].backward_up, load->owned);
    }
    for (int pass = 0; pass < PASS_COUNT; pass++) {
        double bytes = fmax(up[pass], down[pass]);
        if (bytes > 0)
            wait_s += fmax(bytes / share->device->host_bytes_s - load->hides_s[pass], 0);
    }
    return wait_s;
}

/* DeepSpeed sends back what is ready while Adam goes on; Megatron does all three at once where it
 * overlaps (--overlap-cpu-optimizer-d2h-h2d). */
double host_update_s(const struct layout_share *share, double owned)
{
    const struct layout *layout = share->layout;
    const struct device_type *device = share->device;
    enum framework framework = layout->framework;
    bool has_copy = share->element_bytes == copy_bytes;
    double moved = adam_bytes + (has_copy ? copy_bytes : 0);
    double adam_s = owned * moved / device->host_memory_bytes_s;
    double down_s =
        bytes_on_link(share, bytes_of[framework].step_down, owned) / device->host_bytes_s;
    double up_s = bytes_on_link(share, bytes_of[framework].step_up, owned) / device->host_bytes_s;

    if (framework == FRAMEWORK_DEEPSPEED || layout->overlap_parameters)
        return fmax(adam_s, fmax(down_s, up_s));
    return adam_s + down_s + up_s;
}

double host_state_bytes(const struct layout *layout)
{
    return layout->offload_optimizer ? state_bytes : 0;
}
