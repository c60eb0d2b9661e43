/* How long work below cli/ tells its progress without printing: cli/ supplies the functions. */
#ifndef TEMPER_BASE_REPORTER_H
#define TEMPER_BASE_REPORTER_H

#include <stddef.h>

struct reporter {
    void *user;
    /* `done` of `total` pieces of work; `what` names the current one. May be called often. */
    void (*progress)(void *user, const char *what, size_t done, size_t total);
    void (*warning)(void *user, const char *message);
};

/* Both do nothing for a NULL reporter or a NULL function. */
void report_progress(const struct reporter *reporter, const char *what, size_t done, size_t total);
void report_warning(const struct reporter *reporter, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
