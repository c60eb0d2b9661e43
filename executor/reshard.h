/* Between layers of different spread: who holds which tokens of a replica's micro-batch.
 *
 * A replica's b * s tokens are T = plan->tensor_parallel equal shares, share r for the rank at
 * place r of the replica. With spread g a rank holds the g shares [r / g * g, r / g * g + g), as
 * its g neighbours do: g is a layer's degree, or 1 under sequence parallelism. */
#ifndef TEMPER_EXECUTOR_RESHARD_H
#define TEMPER_EXECUTOR_RESHARD_H

#include "executor/groups.h"
#include "executor/layout.h"

struct reshard {
    const struct groups *groups;
    struct device *device;
    struct journal *journal;
    int column, ways;     /* this rank's r; T */
    uint64_t whole_count; /* elements of all shares: b * s * hidden */
};

struct reshard reshard_of(const struct memory_layout *layout, const struct groups *groups,
                          struct journal *journal);
/* `from` of spread `have` becomes `to` of spread `want`: cut out where `want` divides `have` (a
 * copy), else gathered over the `want` ranks that will hold it. The buffers do not overlap. */
enum status reshard_copy(const struct reshard *reshard, const float *from, int have, float *to,
                         int want, struct error *err);
/* Between stages the narrower spread that both sides know travels: `want` where it divides `have`,
 * else single shares. */
int reshard_travel_spread(int have, int want);
/* Where the shares of spread `part` (a divisor of `have`) begin in a buffer of spread `have`. */
float *reshard_at(const struct reshard *reshard, float *data, int have, int part);
uint64_t reshard_count(const struct reshard *reshard, int spread); /* elements held */

#endif
