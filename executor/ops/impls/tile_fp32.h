/* Tiles in fp32, whatever the vectors: included once by each implementation, behind what
 * tile_vectors.h wants to know. */
#include "executor/ops/impls/tile_vectors.h"

static bool fp32_softmax(const struct tile_scores *s, const struct tile_softmax *softmax)
{
    float maxima[TILE];
    memcpy(maxima, softmax->maximum, sizeof(maxima));
    raise_maxima(s, maxima);
    bool changed = correct_sums(s, softmax, maxima);
    for (size_t i = 0; i < s->chunk_count; i++) {
        const struct tile_chunk *c = &s->chunks[i];
        for (size_t lane = c->lane; lane < c->lane + c->lanes; lane += TILE_LANES) {
            vec maximum = load(maxima + lane) * s->factor, sum = load(softmax->sum + lane);
            for (size_t key = c->key; key < c->key + c->keys; key++) {
                float *at = s->scores + key * TILE + lane;
                vec weight = weight_of(s, c, load(at), maximum);
                sum += weight;
                store(at, weight);
            }
            store(softmax->sum + lane, sum);
        }
    }
    return changed;
}

static void fp32_slope(const struct tile_scores *s, const struct tile_slopes *slopes)
{
    for (size_t i = 0; i < s->chunk_count; i++) {
        const struct tile_chunk *c = &s->chunks[i];
        for (size_t lane = c->lane; lane < c->lane + c->lanes; lane += TILE_LANES) {
            vec log_sum = load(slopes->log_sum + lane), dot = load(slopes->dot + lane);
            for (size_t key = c->key; key < c->key + c->keys; key++) {
                float *score = s->scores + key * TILE + lane;
                float *slope = slopes->slopes + key * TILE + lane;
                vec probability = exp2_of(load(score) * s->factor - log_sum);
                if (c->is_masked)
                    probability = choose(visible(s, key, lane), probability, (vec){0});
                store(score, probability);
                store(slope, probability * (load(slope) - dot));
            }
        }
    }
}

#define TILE_OPS_FP32(name_text, supported)                                                        \
    {                                                                                              \
        .name = (name_text), .pack = 1, .is_supported = (supported), .product = tile_product,      \
        .transpose = tile_transpose, .softmax = fp32_softmax, .slope = fp32_slope                  \
    }
