/* Tiles of bf16 pairs, added up in fp32 by the CPU's product of pairs (AVX512-BF16). What is an
 * exponential or a gradient by scores is rounded to bf16 where it becomes an operand. */
#include "executor/ops/impls/tile.h"

#ifdef TILE_X86
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx512bf16,fma")
#include <immintrin.h>

#define TILE_LANES        16
#define TILE_VECTORS      4
#define TILE_ACCUMULATORS 24
#define TILE_EXP2_DEGREE  4
#define TILE_MAX(a, b)    ((vec)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define TILE_MULTIPLY_ADD(c, a, b)                                                                 \
    ((vec)_mm512_dpbf16_ps((__m512)(c), (__m512bh)(a), (__m512bh)(b)))
#include "executor/ops/impls/tile_vectors.h"

static bool is_supported(void)
{
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw");
}

/* 32 values in 16 bit: [a0 a1 .. a15 b0 .. b15] to [a0 b0 a1 b1 ..]. */
TILE_INLINE __m512i zip(__m512i halves)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, halves);
}

/* Pairs (first, second) of each lane. */
TILE_INLINE __m512i pairs_of(vec first, vec second)
{
    return zip((__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

static void bf16_interleave(const void *along, size_t rows, size_t width, void *across)
{
    const uint16_t *from = along;
    uint32_t *to = across;
    for (size_t i = 0; i < rows; i += 2) {
        for (size_t j = 0; j < width; j += TILE_LANES) {
            const uint16_t *at = from + i * width + j;
            __m256i first = _mm256_loadu_si256((const __m256i_u *)at);
            __m256i second = _mm256_loadu_si256((const __m256i_u *)(at + width));
            __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
            _mm512_storeu_si512(to + i / 2 * width + j, zip(both));
        }
    }
}

static bool bf16_softmax(const struct tile_scores *s, const struct tile_softmax *softmax)
{
    float maxima[TILE];
    memcpy(maxima, softmax->maximum, sizeof(maxima));
    raise_maxima(s, maxima);
    bool changed = correct_sums(s, softmax, maxima);
    for (size_t i = 0; i < s->chunk_count; i++) {
        const struct tile_chunk *c = &s->chunks[i];
        for (size_t lane = c->lane; lane < c->lane + c->lanes; lane += TILE_LANES) {
            vec maximum = load(maxima + lane) * s->factor, sum = load(softmax->sum + lane);
            for (size_t key = c->key; key < c->key + c->keys; key += 2) {
                const float *at = s->scores + key * TILE + lane;
                vec first = weight_of(s, c, load(at), maximum), second = {0};
                if (key + 1 < c->key + c->keys)
                    second = weight_of(s, c, load(at + TILE), maximum);
                sum += first + second;
                _mm512_storeu_si512((uint32_t *)softmax->weights + key / 2 * TILE + lane,
                                    pairs_of(first, second));
            }
            store(softmax->sum + lane, sum);
        }
    }
    return changed;
}

/* The probability and the gradient by the scores of one key, rounded into rows along. */
struct slope {
    vec probability, slope;
};

TILE_INLINE struct slope slope_at(const struct tile_scores *s, const struct tile_chunk *c,
                                  const struct tile_slopes *slopes, size_t key, size_t lane)
{
    vec log_sum = load(slopes->log_sum + lane), dot = load(slopes->dot + lane);
    vec probability = exp2_of(load(s->scores + key * TILE + lane) * s->factor - log_sum);
    if (c->is_masked)
        probability = choose(visible(s, key, lane), probability, (vec){0});
    vec slope = probability * (load(slopes->slopes + key * TILE + lane) - dot);
    size_t at = key * TILE + lane;
    _mm256_storeu_si256((__m256i_u *)((uint16_t *)slopes->probs_along + at),
                        (__m256i)_mm512_cvtneps_pbh((__m512)probability));
    _mm256_storeu_si256((__m256i_u *)((uint16_t *)slopes->slopes_along + at),
                        (__m256i)_mm512_cvtneps_pbh((__m512)slope));
    return (struct slope){probability, slope};
}

static void bf16_slope(const struct tile_scores *s, const struct tile_slopes *slopes)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        const struct tile_chunk *c = &s->chunks[i];
        for (size_t lane = c->lane; lane < c->lane + c->lanes; lane += TILE_LANES) {
            for (size_t key = c->key; key < c->key + c->keys; key += 2) {
                vec first = slope_at(s, c, slopes, key, lane).slope, second = {0};
                if (key + 1 < c->key + c->keys)
                    second = slope_at(s, c, slopes, key + 1, lane).slope;
                _mm512_storeu_si512((uint32_t *)slopes->slopes_across + key / 2 * TILE + lane,
                                    pairs_of(first, second));
            }
        }
    }
}

const struct tile_ops tile_bf16_avx512 = {
    .name = "bf16 avx512",
    .pack = 2,
    .is_supported = is_supported,
    .product = tile_product,
    .transpose = tile_transpose,
    .interleave = bf16_interleave,
    .softmax = bf16_softmax,
    .slope = bf16_slope,
};
#else
typedef int tile_not_for_this_machine;
#endif
