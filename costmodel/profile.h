/* The measurements of one host as the cost model reads them: looked up by key, interpolated between
 * measured points, each answer with its provenance and deviation. */
#ifndef TEMPER_COSTMODEL_PROFILE_H
#define TEMPER_COSTMODEL_PROFILE_H

#include "base/error.h"
#include "ir/layer.h"
#include "ir/quantity.h"
#include "store/store.h"
#include <stdbool.h>

struct profile;

/* Of `host_name`, or of the newest session's host when NULL. */
enum status profile_open(struct profile **out, struct store *store, const char *host_name,
                         struct error *err);
/* The same from rows in memory (copied), for tests and for what does not come from a store. Of rows
 * with the same key the newest counts, of equally new ones the last. Rows of absent provenance are
 * as if they were not there; a value that is negative or not finite is STATUS_INVALID. */
enum status profile_from_rows(struct profile **out, const struct measurement *rows, size_t count,
                              const char *host_name, struct error *err);
void profile_close(struct profile *profile); /* NULL allowed */
const char *profile_host(const struct profile *profile);
uint64_t profile_hash(const struct profile *profile); /* of all rows */

/* How the ranks share the machine: what every measurement is conditional on. */
struct placement {
    int ranks;
    int threads; /* of each rank */
};
/* The placements with layer measurements, ascending by ranks, then threads; fills at most
 * `capacity` of them and returns how many there are in all. */
size_t profile_placements(const struct profile *profile, struct placement *out, size_t capacity);

/* Can layers of this key be predicted in this precision and placement at all? */
bool profile_covers(const struct profile *profile, const char *layer_key, enum precision precision,
                    struct placement placement);

/* The largest micro-batch (sequences) that this layer was measured with; 0: none. */
int64_t profile_largest_micro_batch(const struct profile *profile, const char *layer_key,
                                    struct placement placement);

/* One metric of one subject over the sizes it was measured at. */
struct series_key {
    const char *subject;
    enum metric metric;
    enum precision precision;
    enum recompute recompute;
    enum attention_kernel attention;
    struct placement placement;
};

/* At a micro-batch of this many sequences. A measured size: its row. Between sizes: on the line
 * between the neighbours. Beyond the last: on the last two's line, never below the last. Below the
 * first: on the first two's line, never below what is proportional. One size only: proportional. No
 * row: absent. All but the first are interpolated at best. */
struct quantity profile_at_micro_batch(const struct profile *profile, const struct series_key *key,
                                       int64_t micro_batch);
/* A collective of this many bytes. Outside the measured sizes the line through the two nearest is
 * latency plus bytes over bandwidth (the alpha-beta model, Hockney 1994); one size only:
 * proportional. No row: absent. */
struct quantity profile_at_bytes(const struct profile *profile, const struct series_key *key,
                                 int64_t bytes);
/* What does not depend on a size; absent without a row. */
struct quantity profile_value(const struct profile *profile, const struct series_key *key);

#endif
