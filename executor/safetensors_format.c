#include "executor/safetensors_format.h"

#include "base/bf16.h"
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors files are little-endian");

static void widen_f32(const unsigned char *data, size_t count, float *out)
{
    memmove(out, data, count * sizeof(*out));
}

static void widen_bf16(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, data + i * sizeof(half), sizeof(half));
        out[i] = float_from_bf16(half);
    }
}

/* IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits. */
static float float_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    uint32_t wide_exponent = exponent == 0x1fu ? 0xffu : exponent + 127 - 15;
    return float_from_bits(sign | wide_exponent << 23 | fraction << 13);
}

static void widen_f16(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        memcpy(&half, data + i * sizeof(half), sizeof(half));
        out[i] = float_from_f16(half);
    }
}

static void narrow_f64(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, data + i * sizeof(value), sizeof(value));
        out[i] = (float)value;
    }
}

static const struct safetensor_dtype dtypes[] = {
    {.name = "F32", .bytes = 4, .widen = widen_f32},
    {.name = "F16", .bytes = 2, .widen = widen_f16},
    {.name = "BF16", .bytes = 2, .widen = widen_bf16},
    {.name = "F64", .bytes = 8, .widen = narrow_f64},
    {.name = "BOOL", .bytes = 1},
    {.name = "U8", .bytes = 1},
    {.name = "I8", .bytes = 1},
    {.name = "F8_E4M3", .bytes = 1},
    {.name = "F8_E5M2", .bytes = 1},
    {.name = "I16", .bytes = 2},
    {.name = "U16", .bytes = 2},
    {.name = "I32", .bytes = 4},
    {.name = "U32", .bytes = 4},
    {.name = "I64", .bytes = 8},
    {.name = "U64", .bytes = 8},
};

enum { DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

const struct safetensor_dtype *safetensor_dtype_find(const char *name)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

void safetensor_dtype_names(struct text *out)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (dtypes[i].widen)
            text_printf(out, "%s%s", i > 0 ? ", " : "", dtypes[i].name);
}
