/* What temper validate prints: for people and as JSON. */
#ifndef TEMPER_CLI_VALIDATE_TEXT_H
#define TEMPER_CLI_VALIDATE_TEXT_H

#include "base/json.h"
#include "base/text.h"
#include "costmodel/fit.h"
#include "ir/case_result.h"

/* The tables of one call, with the paths that they were read from. */
struct validation {
    struct case_table *tables; /* [count], owned by the command */
    const char *const *paths;  /* [count] */
    size_t count;
    bool shows_all;
    struct fit_report fit; /* no folds: nothing was fitted */
};

void validation_print(const struct validation *validation, struct text *out);
/* Members "files" and, after a fit, "fit". Figures: docs/validate.md. */
void validation_write(const struct validation *validation, struct jout *out);

#endif
