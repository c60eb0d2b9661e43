#include "executor/ops/gemm.h"

#include <assert.h>
#include <cblas.h>
#include <string.h>

/* BLAS first scales c as a whole and then adds the product to it. A c larger than the caches is
 * therefore computed in slabs of about this size, so that the product finds its slab cached. */
static const size_t SLAB_BYTES = (size_t)4 << 20;

static void sgemm_part(const struct gemm *g, struct span rows, struct span columns)
{
    const float *a = (const float *)g->a + (g->a_transposed ? rows.begin : rows.begin * g->k);
    const float *b = (const float *)g->b + (g->b_transposed ? columns.begin * g->k : columns.begin);
    float *c = (float *)g->c + rows.begin * g->n + columns.begin;
    float beta = g->accumulate || g->bias != NULL ? 1.0f : 0.0f;

    if (g->bias != NULL) {
        for (size_t i = rows.begin; i < rows.end; i++) {
            memcpy((float *)g->c + i * g->n + columns.begin, g->bias + columns.begin,
                   (columns.end - columns.begin) * sizeof(float));
        }
    }
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (blasint)(rows.end - rows.begin),
                (blasint)(columns.end - columns.begin), (blasint)g->k, 1.0f, a,
                (blasint)(g->a_transposed ? g->m : g->k), b,
                (blasint)(g->b_transposed ? g->k : g->n), beta, c, (blasint)g->n);
}

static void sgemm_slabs(const struct gemm *g)
{
    struct span rows = {0, g->m}, columns = {0, g->n};
    size_t slabs = g->m * g->n * sizeof(float) / SLAB_BYTES;

    if (g->accumulate || slabs < 2) {
        sgemm_part(g, rows, columns);
        return;
    }
    bool by_rows = g->m > g->n;
    size_t extent = by_rows ? g->m : g->n;
    const size_t grain = 64; /* a multiple of every kernel's tile */
    size_t step = (extent / slabs + grain - 1) / grain * grain;
    for (size_t begin = 0; begin < extent; begin += step) {
        struct span part = {begin, begin + step < extent ? begin + step : extent};
        sgemm_part(g, by_rows ? part : rows, by_rows ? columns : part);
    }
}

enum status gemm_run(struct device *device, const struct gemm *gemm, struct error *err)
{
    assert(gemm->bias == NULL || !gemm->accumulate);
    assert(gemm->result == PRECISION_FP32 || gemm->result == gemm->operands);
    assert(gemm->result == PRECISION_FP32 || !gemm->accumulate ||
           (gemm->result == PRECISION_BF16 && gemm->a_transposed));
    if (gemm->operands == PRECISION_BF16 || matmul_offers(device->onednn, gemm->operands))
        return matmul_onednn(device, gemm, err);
    if (gemm->operands == PRECISION_FP16)
        return matmul_fp16(device, gemm, err);
    sgemm_slabs(gemm);
    return STATUS_OK;
}

void gemm_piece(size_t m, size_t n, size_t k, float alpha, struct piece a, struct piece b,
                float beta, float *c, size_t c_stride)
{
    cblas_sgemm(CblasRowMajor, a.transposed ? CblasTrans : CblasNoTrans,
                b.transposed ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha,
                a.data, (blasint)a.stride, b.data, (blasint)b.stride, beta, c, (blasint)c_stride);
}
