/* A layer's parameters as its kernels read them: whole, in the layer's precision. Under ZeRO 3 they
 * are gathered ahead of use and let go of after it; under ZeRO 1 and 2 each rank updates its blocks
 * and all gather the rest. */
#ifndef TEMPER_EXECUTOR_PARAMETERS_H
#define TEMPER_EXECUTOR_PARAMETERS_H

#include "executor/groups.h"
#include "executor/layout.h"

/* A gather under way or done; one a local layer. */
struct gathering {
    char *buffer;                 /* where the whole stands; NULL: not gathered */
    struct comm_request *request; /* NULL: none under way */
    int64_t start_ns;
    uint64_t bytes;
};

struct parameters {
    struct memory_layout *layout;
    const struct groups *groups;
    struct journal *journal;
    struct gathering *gatherings; /* [layout->layer_count], owned */
    int next_buffer;              /* of the parameter ring */
};

enum status parameters_open(struct parameters *out, struct memory_layout *layout,
                            const struct groups *groups, struct journal *journal,
                            struct error *err);
void parameters_close(struct parameters *parameters);

/* What a layer_call reads of one local layer (index into layout->layers). */
struct parameter_view {
    const float *matrices;
    const uint16_t *matrices_16;
    const float *table; /* of a tied head that owns none */
    const uint16_t *table_16;
};

/* Start gathering a layer that will be used soon, when it has a ring buffer; else nothing. Of the
 * layers whose use is not over, at most one may come before it. */
enum status parameters_prefetch(struct parameters *parameters, size_t local, struct error *err);
/* The layer's parameters; waits for their gathering, or gathers them now. */
enum status parameters_use(struct parameters *parameters, size_t local, struct parameter_view *out,
                           struct error *err);
/* Its use is over; a gathered copy is worth nothing from here on. */
void parameters_release(struct parameters *parameters, size_t local);

/* After master parameters have changed: make the 16-bit copies of this rank's blocks (unless the
 * optimizer has: `cast` false), and start gathering the layer's whole arrays. */
enum status parameters_publish(struct parameters *parameters, size_t local, bool cast,
                               struct error *err);
/* Wait for all that parameters_publish started. */
enum status parameters_publish_finish(struct parameters *parameters, struct error *err);

#endif
