/* Matrix products: oneDNN for bf16, and for fp32 where the CPU has AVX-512; else OpenBLAS, for fp16
 * on widened operands. All matrices are row-major. */
#ifndef TEMPER_OPS_GEMM_H
#define TEMPER_OPS_GEMM_H

#include "executor/ops/internal.h"

/* c[m, n] = op(a) op(b) (+ bias) (+ c), by all threads of the device. Matrices are dense. */
struct gemm {
    size_t m, n, k;
    const void *a; /* [m, k], or [k, m] when a_transposed */
    const void *b; /* [k, n], or [n, k] when b_transposed */
    void *c;       /* [m, n] */
    bool a_transposed, b_transposed;
    bool accumulate;   /* add to what c holds; c is then fp32, or bf16 of a transposed a */
    const float *bias; /* [n], added to every row; NULL: none. Not together with `accumulate`. */
    enum precision operands; /* of a and b */
    enum precision result; /* of c; fp32 or that of the operands, to which sums are rounded once */
};

enum status gemm_run(struct device *device, const struct gemm *gemm, struct error *err);

/* A small product of pieces of larger matrices, by the calling thread alone inside a parallel
 * region: c = alpha op(a) op(b) + beta c. */
struct piece {
    const float *data;
    size_t stride; /* elements between rows */
    bool transposed;
};
void gemm_piece(size_t m, size_t n, size_t k, float alpha, struct piece a, struct piece b,
                float beta, float *c, size_t c_stride);

/* gemm_onednn.c. *out is NULL, and the status OK, where oneDNN is used for no precision. */
enum status matmul_cache_open(struct matmul_cache **out, struct error *err);
void matmul_cache_close(struct matmul_cache *cache); /* NULL allowed */
/* Are products of these operands computed here? Of a NULL cache none are. */
bool matmul_offers(const struct matmul_cache *cache, enum precision operands);
enum status matmul_onednn(struct device *device, const struct gemm *gemm, struct error *err);
/* gemm_fp16.c */
enum status matmul_fp16(struct device *device, const struct gemm *gemm, struct error *err);
void matmul_fp16_close(struct device *device);
/* "oneDNN 2.6.3", or "" when built without. Returns `text`. */
const char *matmul_version(char *text, size_t bytes);

#endif
