/* Figures with units, in and out. Every format function returns `buffer`. */
#ifndef TEMPER_BASE_UNITS_H
#define TEMPER_BASE_UNITS_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

enum { UNIT_TEXT_BYTES = 32 };

const char *format_bytes(double bytes, char buffer[UNIT_TEXT_BYTES]);     /* "1.50 GiB" */
const char *format_seconds(double seconds, char buffer[UNIT_TEXT_BYTES]); /* "12.3 ms" */
const char *format_joules(double joules, char buffer[UNIT_TEXT_BYTES]);   /* "3.20 J", "1.10 kJ" */
const char *format_count(double count, char buffer[UNIT_TEXT_BYTES]);     /* "124.4 M" */
const char *format_flops(double flops, char buffer[UNIT_TEXT_BYTES]);     /* "1.23 GFLOP" */
const char *format_grouped(uint64_t value, char buffer[UNIT_TEXT_BYTES]); /* "124,439,808" */

/* "2GiB", "512 MB", "1.5e9", "800k" (powers of 1000 without an i, of 1024 with); any case, rounded
 * to whole bytes. Anything else is STATUS_INVALID. */
enum status parse_bytes(const char *string, uint64_t *bytes, struct error *err);

#endif
