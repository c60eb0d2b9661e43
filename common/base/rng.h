/* Counter-based random numbers: a value depends on (seed, stream, index) alone, so that weights and
 * data order are the same whatever the plan (Salmon et al. 2011 explain the idea; the mixing is
 * splitmix64, Steele et al. 2014). */
#ifndef TEMPER_BASE_RNG_H
#define TEMPER_BASE_RNG_H

#include <stdint.h>

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t bound); /* bound > 0 */
double rng_uniform(uint64_t seed, uint64_t stream, uint64_t index);                 /* [0, 1) */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index); /* mean 0, deviation 1 */
/* out[i] = (float)(deviation * rng_normal(seed, stream, first + i)) for i < count, to the bit. */
void rng_normals(uint64_t seed, uint64_t stream, uint64_t first, uint64_t count, double deviation,
                 float *out);

#endif
