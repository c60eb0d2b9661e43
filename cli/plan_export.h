/* `temper plan --export TARGET[=FILE]`: a plan handed over to what people train with, and what the
 * target's one strategy for all layers costs against the plan's. */
#ifndef TEMPER_CLI_PLAN_EXPORT_H
#define TEMPER_CLI_PLAN_EXPORT_H

#include "base/json.h"
#include "costmodel/profile.h"
#include "ir/export.h"

struct export_request {
    bool wanted;
    enum export_target target;
    const char *path; /* borrowed; NULL: the file's text is printed */
    double risk;      /* that memory exceeds the plan's cap; 0: MEMORY_RISK */
};

/* "megatron" or "megatron=FILE"; NULL wants nothing. STATUS_USAGE lists the targets. */
enum status export_request_parse(struct export_request *out, const char *option, struct error *err);

/* Before a search: does the target train such models? STATUS_UNSUPPORTED says what differs. */
enum status export_request_check(const struct export_request *request, const struct model *model,
                                 struct error *err);

/* A field that the target does not run as planned. */
struct export_loss {
    const char *field; /* as export_field_name or handover_field_name says it */
    struct export_way way;
    double time_share;    /* of the plan's step time, added; NAN: could not be predicted */
    double memory_bytes;  /* added; NAN likewise */
    struct error unknown; /* why not */
};

enum { EXPORT_LOSSES_MAX = 12 };

struct exported {
    struct export_request request;
    struct plan
        plan; /* as the target runs it, with its prediction; of a layout that alone; owned */
    struct export_loss losses[EXPORT_LOSSES_MAX];
    size_t loss_count;
    bool is_predicted; /* the whole of what the target runs */
    double time_share; /* of the plan's step time, that the target's is longer */
    struct text file, notes;
};

/* Level, predict and write. Of the ways in which the target can run a field, the one with the best
 * objective of those that fit into the plan's memory cap is taken. STATUS_INFEASIBLE: none fits.
 * STATUS_UNSUPPORTED: the target trains no such model or has no way. `profile` NULL: nothing is
 * predicted. Release with exported_free. */
enum status plan_export(const struct export_request *request, const struct profile *profile,
                        const struct plan *plan, struct exported *out, struct error *err);
void exported_free(struct exported *exported);

/* What is lost and where the file is, or the file's text. */
void exported_text(const struct exported *exported, struct text *out);
/* The member "export" of the open object. */
void exported_json(const struct exported *exported, struct jout *out);

/* `temper plan PLAN.json --export`: a plan from a file, handed over and told. Costs are predicted
 * from `store` where that file is there; `host` NULL: the plan's. */
struct export_source {
    const char *plan, *store, *host;
    bool json;
};
enum status plan_export_file(const struct export_request *request,
                             const struct export_source *source, struct error *err);

/* Write the file that the request names, if it names one. */
enum status exported_save(const struct exported *exported, struct error *err);

#endif
