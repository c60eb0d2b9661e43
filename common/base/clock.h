/* Time: one monotonic clock for intervals, one wall clock for records. */
#ifndef TEMPER_BASE_CLOCK_H
#define TEMPER_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_ns(void); /* monotonic, nanoseconds; the same origin for all processes of a host */
double clock_s(void);   /* the same in seconds */
int64_t clock_unix_ms(void); /* wall clock, milliseconds since 1970 */

#endif
