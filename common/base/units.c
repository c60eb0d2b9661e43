#include "base/units.h"
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNITS_MAX = 8 };

struct scale {
    double step;                  /* between a unit and the next larger one */
    int base;                     /* index of the unit that values are given in */
    int digits;                   /* significant digits printed */
    const char *units[UNITS_MAX]; /* ascending, ended by NULL when shorter */
};

static const struct scale byte_scale = {1024, 0, 3, {"B", "KiB", "MiB", "GiB", "TiB", "PiB"}};
static const struct scale second_scale = {1000, 3, 3, {"ns", "us", "ms", "s"}};
static const struct scale joule_scale = {1000, 3, 3, {"nJ", "uJ", "mJ", "J", "kJ", "MJ", "GJ"}};
static const struct scale count_scale = {1000, 0, 4, {"", "k", "M", "B", "T"}};
static const struct scale flop_scale = {
    1000, 0, 3, {"FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"}};

static const char *put(char *buffer, int decimals, double value, const char *unit)
{
    const char *space = unit[0] != '\0' ? " " : "";
    if (isfinite(value) && fabs(value) < 1e12)
        (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.*f%s%s", decimals, value, space, unit);
    else
        (void)snprintf(buffer, UNIT_TEXT_BYTES, "%.3g%s%s", value, space, unit);
    return buffer;
}

/* `value` in the largest unit in which it is at least 1, judged after rounding to the digits shown:
 * 999.7 ms is 1.00 s. */
static const char *format_scaled(const struct scale *scale, double value, char *buffer)
{
    if (!isfinite(value) || value == 0.0)
        return put(buffer, 0, value, scale->units[scale->base]);
    double size = fabs(value) * pow(scale->step, scale->base);
    double promote_at = scale->step - 0.5 * pow(10, 3 - scale->digits);
    int unit = 0;
    while (size >= promote_at && unit + 1 < UNITS_MAX && scale->units[unit + 1]) {
        size /= scale->step;
        unit++;
    }
    int decimals = scale->digits - 1;
    for (double limit = 10; decimals > 0 && size >= limit - 0.5 * pow(10, -decimals); limit *= 10)
        decimals--;
    if (unit == 0 && size == floor(size))
        decimals = 0;
    return put(buffer, decimals, copysign(size, value), scale->units[unit]);
}

const char *format_bytes(double bytes, char buffer[UNIT_TEXT_BYTES])
{
    return format_scaled(&byte_scale, bytes, buffer);
}

const char *format_seconds(double seconds, char buffer[UNIT_TEXT_BYTES])
{
    const double minute_s = 60, hour_s = 3600, day_s = 86400;
    double size = fabs(seconds);
    if (!isfinite(seconds) || size < 2 * minute_s)
        return format_scaled(&second_scale, seconds, buffer);
    if (size < 2 * hour_s)
        return put(buffer, 1, seconds / minute_s, "min");
    if (size < 2 * day_s)
        return put(buffer, 1, seconds / hour_s, "h");
    return put(buffer, 1, seconds / day_s, "d");
}

const char *format_joules(double joules, char buffer[UNIT_TEXT_BYTES])
{
    return format_scaled(&joule_scale, joules, buffer);
}

const char *format_count(double count, char buffer[UNIT_TEXT_BYTES])
{
    return format_scaled(&count_scale, count, buffer);
}

const char *format_flops(double flops, char buffer[UNIT_TEXT_BYTES])
{
    return format_scaled(&flop_scale, flops, buffer);
}

const char *format_grouped(uint64_t value, char buffer[UNIT_TEXT_BYTES])
{
    char digits[24];
    int count = snprintf(digits, sizeof(digits), "%" PRIu64, value);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            buffer[used++] = ',';
        buffer[used++] = digits[i];
    }
    buffer[used] = '\0';
    return buffer;
}

/* The factor of "", "B", "k", "kB", "Ki", "KiB", ... in any case; 0 if it is none of these. */
static long double unit_factor(const char *unit)
{
    static const char prefixes[] = "kmgtp";
    long double factor = 1;
    const char *prefix = *unit != '\0' ? strchr(prefixes, tolower((unsigned char)*unit)) : NULL;
    if (prefix) {
        unit++;
        long double step = tolower((unsigned char)*unit) == 'i' ? 1024 : 1000;
        if (step == 1024)
            unit++;
        for (long i = 0; i <= prefix - prefixes; i++)
            factor *= step;
    }
    if (tolower((unsigned char)*unit) == 'b')
        unit++;
    return *unit == '\0' ? factor : 0;
}

/* Bytes of the decimal number that starts `string`; 0 if none does. Only digits, a point and an
 * exponent: strtold would also take "inf", "0x10" and leading blanks. */
static size_t number_length(const char *string)
{
    size_t whole = strspn(string, "0123456789"), length = whole, fraction = 0;
    if (string[length] == '.') {
        fraction = strspn(string + length + 1, "0123456789");
        length += 1 + fraction;
    }
    if (whole + fraction == 0)
        return 0;
    if (tolower((unsigned char)string[length]) == 'e') {
        size_t sign = string[length + 1] == '+' || string[length + 1] == '-' ? 1 : 0;
        size_t exponent = strspn(string + length + 1 + sign, "0123456789");
        if (exponent > 0)
            length += 1 + sign + exponent;
    }
    return length;
}

enum status parse_bytes(const char *string, uint64_t *bytes, struct error *err)
{
    size_t length = number_length(string);
    const char *unit = string + length;
    while (*unit == ' ')
        unit++;
    long double factor = length > 0 ? unit_factor(unit) : 0;
    if (factor <= 0)
        return error_set(err, STATUS_INVALID,
                         "'%s' is not a size in bytes; expected a number and a unit such as "
                         "512MB, 2GiB or 1.5e9",
                         string);
    /* strtold stops where number_length did: the next character is a blank, a unit or the end. */
    long double value = roundl(strtold(string, NULL) * factor);
    if (!(value < 0x1p64L))
        return error_set(err, STATUS_INVALID, "'%s' is more than 2^64 bytes", string);
    *bytes = (uint64_t)value;
    return STATUS_OK;
}
