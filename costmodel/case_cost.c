#include "costmodel/case_cost.h"

#include "costmodel/layout_cost.h"
#include <stdio.h>

enum status case_predict(const struct run_case *row, struct case_result *out, struct error *err)
{
    struct layout_prediction prediction;
    TRY(layout_predict(&row->cluster, &row->model, &row->layout, &prediction, err));
    *out = (struct case_result){
        .time_s = prediction.time_s,
        .memory_bytes = prediction.memory_bytes,
        .energy_j = prediction.energy_j,
        .fits = layout_fits(&prediction),
    };
    if (row->memory_of_allocator)
        out->memory_bytes.value -= prediction.memory_term_bytes[MEMORY_PROCESS].value;
    return STATUS_OK;
}

enum status cases_predict(struct run_cases *cases, struct case_result *results, struct error *err)
{
    for (size_t i = 0; i < cases->count; i++) {
        struct run_case *row = &cases->rows[i];
        results[i] = (struct case_result){.time_s = quantity_absent(),
                                          .memory_bytes = quantity_absent(),
                                          .energy_j = quantity_absent()};
        if (row->skipped[0] != '\0')
            continue;
        enum status status = case_predict(row, &results[i], err);
        if (status == STATUS_UNSUPPORTED || status == STATUS_INVALID)
            (void)snprintf(row->skipped, sizeof(row->skipped), "%.*s", CASE_TEXT_BYTES - 1,
                           err->message);
        else if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}
