/* Dynamic loss scaling for fp16 (Micikevicius et al. 2018): the loss is multiplied by a power of
 * two so that small gradients stay above fp16's smallest numbers. A step whose gradient is not
 * finite is skipped and halves the scale; after SCALER_GROWTH_STEPS good ones in a row it is
 * doubled. */
#ifndef TEMPER_EXECUTOR_SCALER_H
#define TEMPER_EXECUTOR_SCALER_H

#include <stdbool.h>
#include <stdint.h>

#define SCALER_INITIAL 65536.0
#define SCALER_LARGEST 16777216.0
enum { SCALER_GROWTH_STEPS = 1000 };

struct scaler {
    double scale;       /* 1 and fixed where nothing computes in fp16 */
    int64_t good_steps; /* in a row at this scale */
    bool is_dynamic;
};

struct scaler scaler_of(bool has_fp16);
/* After a step. True: a skipped one was the scale's fault, and the next has a smaller one. */
bool scaler_update(struct scaler *scaler, bool was_finite);

#endif
