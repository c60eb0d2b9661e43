/* The weights' initial values. */
#ifndef TEMPER_EXECUTOR_WEIGHTS_H
#define TEMPER_EXECUTOR_WEIGHTS_H

#include "base/error.h"
#include "executor/parameters.h"
#include <stdint.h>

/* Master parameters from the seed alone: a tensor of role r of layer l draws from stream l *
 * WEIGHT_STREAMS + r by its elements' places in the whole, so that every plan starts from the same
 * weights. Moments become zero. Other copies are not made: weights_publish. */
enum { WEIGHT_STREAMS = 32 };
void weights_initialise(struct memory_layout *layout, uint64_t seed);

/* After the master parameters were initialised or loaded: all other copies of them. Collective over
 * the data-parallel groups. */
enum status weights_publish(struct parameters *parameters, struct error *err);

#endif
