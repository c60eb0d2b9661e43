#include "base/reporter.h"
#include <stdarg.h>
#include <stdio.h>

enum { WARNING_BYTES = 1024 };

void report_progress(const struct reporter *reporter, const char *what, size_t done, size_t total)
{
    if (reporter && reporter->progress)
        reporter->progress(reporter->user, what, done, total);
}

void report_warning(const struct reporter *reporter, const char *format, ...)
{
    if (!reporter || !reporter->warning)
        return;
    char message[WARNING_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (length >= 0)
        reporter->warning(reporter->user, message);
}
