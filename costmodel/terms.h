/* What the files of the cost model share; not part of the public interface. */
#ifndef TEMPER_COSTMODEL_TERMS_H
#define TEMPER_COSTMODEL_TERMS_H

#include "costmodel/cost.h"
#include "ir/state.h"

bool is_absent(struct quantity quantity);
struct placement placement_of(const struct plan *plan);

/* STATUS_INVALID: "the profile has no WHAT of SUBJECT with ...; measure it with: ...". */
enum status refuse_missing(const char *what, const char *subject, struct placement placement,
                           struct error *err);

/* A figure of the placement's machine. */
struct quantity machine_value(const struct profile *profile, struct placement placement,
                              enum metric metric);

/* Joules of `seconds` at `watts`: a product of two figures, so never itself measured. */
struct quantity energy_at(struct quantity watts, struct quantity seconds);

/* cost_collective; where that is absent an error that names the collective. */
enum status collective_time(const struct profile *profile, const struct plan *plan,
                            enum collective collective, struct collective_group group,
                            uint64_t bytes, struct quantity *out, struct error *err);

/* A layer being costed. */
struct layer_terms {
    const struct profile *profile;
    const struct plan *plan;
    size_t layer;
    struct layer_cost *cost;
};

/* Add communication of `seconds` to a term, with its energy at the placement's working power. */
void terms_add(const struct layer_terms *terms, enum cost_pass pass, enum phase phase,
               struct quantity seconds);

/* The part as the profile knows it. */
struct part_subject {
    char key[LAYER_KEY_BYTES];
    struct series_key series; /* its subject points to `key`; the metric is the caller's */
    int64_t sequences;        /* of the group's micro-batch */
};
void part_subject(const struct plan *plan, size_t layer, struct part_subject *out);

/* Collectives inside the layer, and gradients of norms that are sums over its ranks. */
enum status tensor_terms(const struct layer_terms *terms, struct error *err);
/* Gradient synchronisation, and ZeRO's gathering. `whole_update_s` is the optimizer's time for the
 * whole state of the part, `table_update_s` for that of the embedding where a tied head reads its
 * table on the same ranks. */
enum status data_terms(const struct layer_terms *terms, struct quantity whole_update_s,
                       struct quantity table_update_s, struct error *err);

/* Does the layer work on the embedding's table, which stands on the same ranks? */
bool reads_tied_table(const struct plan *plan, size_t layer);

/* Elements, and bytes moved for each, as a share of an update of the whole state of `state`, which
 * is as bound by memory. */
struct quantity traffic_time(struct quantity whole_update_s, const struct layer_state *state,
                             uint64_t count, int bytes);

#endif
