/* A sign that this process gets on with its work: a count that whoever works advances, at least
 * once a layer's pass and once a piece of a file, and that another thread watches to tell a slow
 * process from a stuck one. One count for the whole process. */
#ifndef TEMPER_BASE_LIVENESS_H
#define TEMPER_BASE_LIVENESS_H

#include <stdint.h>

void liveness_advance(void); /* a few nanoseconds; from any thread */
uint64_t liveness_count(void);

#endif
