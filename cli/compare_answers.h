/* Two answers of `temper plan --cluster ... --json` side by side: their first layouts. */
#ifndef TEMPER_CLI_COMPARE_ANSWERS_H
#define TEMPER_CLI_COMPARE_ANSWERS_H

#include "cli/answer_file.h"

/* Of other models, batches, clusters or aims, too; it is said. */
enum status compare_answers(const struct answer_file *a, const struct answer_file *b, bool json,
                            struct error *err);

#endif
