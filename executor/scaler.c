#include "executor/scaler.h"

struct scaler scaler_of(bool has_fp16)
{
    return (struct scaler){.scale = has_fp16 ? SCALER_INITIAL : 1.0, .is_dynamic = has_fp16};
}

bool scaler_update(struct scaler *scaler, bool was_finite)
{
    if (!scaler->is_dynamic)
        return false;
    if (!was_finite) {
        bool can_shrink = scaler->scale > 1.0;
        scaler->good_steps = 0;
        if (can_shrink)
            scaler->scale /= 2;
        return can_shrink;
    }
    if (++scaler->good_steps == SCALER_GROWTH_STEPS) {
        scaler->good_steps = 0;
        if (scaler->scale < SCALER_LARGEST)
            scaler->scale *= 2;
    }
    return false;
}
