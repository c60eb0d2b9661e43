/* Lists of names that stand for the values 0, 1, ... of an enum in files and messages. */
#ifndef TEMPER_IR_NAMES_H
#define TEMPER_IR_NAMES_H

#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>

struct name_list {
    const char *const *names;
    size_t count;
};

extern const struct name_list layer_kind_names, precision_names, recompute_names, phase_names;
extern const struct name_list provenance_names, model_family_names;
extern const struct name_list plan_status_names, memory_term_names, schedule_names;
extern const struct name_list attention_kernel_names, gradient_reduction_names;
extern const struct name_list arithmetic_names, operation_names, framework_names;

const char *name_of(const struct name_list *list, size_t value); /* value < count */
bool name_parse(const struct name_list *list, const char *name, unsigned *out);
/* "none, selective, full" */
void names_append(const struct name_list *list, struct text *out);

#endif
