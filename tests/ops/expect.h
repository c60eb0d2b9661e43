/* What the tests of this folder expect of a call. cmocka wants its own includes first. */
#ifndef TEMPER_TESTS_OPS_EXPECT_H
#define TEMPER_TESTS_OPS_EXPECT_H

#include "base/error.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline void expect_ok(enum status status, const struct error *err)
{
    if (status != STATUS_OK)
        fail_msg("%s", err->message);
}

/* |a - b| / |b| in the Frobenius norm; |a| where b is 0. */
static inline double relative_error(const float *a, const float *b, size_t count)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
}

static inline void expect_near(const char *name, const float *a, const float *b, size_t count,
                               double bound)
{
    double error = relative_error(a, b, count);
    if (!(error <= bound))
        fail_msg("%s: relative error %.3g, allowed %.3g", name, error, bound);
}

#endif
