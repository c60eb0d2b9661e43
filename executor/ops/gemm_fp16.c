/* Matrix products of fp16 operands on a device without fp16 arithmetic: panels of the operands are
 * widened to fp32, multiplied by OpenBLAS and added up in fp32; the result is rounded once. */
#include "executor/ops/convert.h"
#include "executor/ops/gemm.h"

#include <cblas.h>
#include <string.h>

/* Panels stay in the last-level cache. Each of their elements, once widened, enters PANEL_EXTENT
 * multiplications. */
enum { PANEL_EXTENT = 1024, PANEL_DEPTH = 512 };
enum { PANEL_FLOATS = PANEL_EXTENT * PANEL_DEPTH, TILE_FLOATS = PANEL_EXTENT * PANEL_EXTENT };

struct panels {
    float a[PANEL_FLOATS], b[PANEL_FLOATS];
    float c[TILE_FLOATS]; /* of a result in fp16, until it is complete */
};

/* An operand's piece at (row, column) of its storage, in fp32. */
static void widen_panel(struct device *device, const void *data, size_t stride, struct span rows,
                        struct span columns, float *out)
{
    size_t width = columns.end - columns.begin;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t i = rows.begin; i < rows.end; i++) {
        convert_widen((const uint16_t *)data + i * stride + columns.begin,
                      out + (i - rows.begin) * width, width, PRECISION_FP16);
    }
}

/* Rows and columns of c, and where they are added up. */
struct tile {
    struct span rows, columns;
    float *sum;
    size_t stride;
};

static void add_panels(struct device *device, const struct gemm *g, const struct tile *tile,
                       struct span depth, float beta)
{
    struct panels *panels = device->fp16;
    size_t m = tile->rows.end - tile->rows.begin, n = tile->columns.end - tile->columns.begin;
    size_t k = depth.end - depth.begin;
    if (g->a_transposed)
        widen_panel(device, g->a, g->m, depth, tile->rows, panels->a);
    else
        widen_panel(device, g->a, g->k, tile->rows, depth, panels->a);
    if (g->b_transposed)
        widen_panel(device, g->b, g->k, tile->columns, depth, panels->b);
    else
        widen_panel(device, g->b, g->n, depth, tile->columns, panels->b);
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k,
                1.0f, panels->a, (blasint)(g->a_transposed ? m : k), panels->b,
                (blasint)(g->b_transposed ? k : n), beta, tile->sum, (blasint)tile->stride);
}

static void multiply_tile(struct device *device, const struct gemm *g, const struct tile *tile)
{
    size_t width = tile->columns.end - tile->columns.begin;
    size_t height = tile->rows.end - tile->rows.begin;
    if (g->bias != NULL) {
        for (size_t i = 0; i < height; i++) {
            memcpy(tile->sum + i * tile->stride, g->bias + tile->columns.begin,
                   width * sizeof(float));
        }
    }
    bool adds = g->accumulate || g->bias != NULL;
    for (size_t begin = 0; begin < g->k; begin += PANEL_DEPTH) {
        size_t end = g->k - begin < PANEL_DEPTH ? g->k : begin + PANEL_DEPTH;
        add_panels(device, g, tile, (struct span){begin, end}, adds || begin > 0 ? 1.0f : 0.0f);
    }
    if (g->result == PRECISION_FP32)
        return;
    uint16_t *out = (uint16_t *)g->c + tile->rows.begin * g->n + tile->columns.begin;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t i = 0; i < height; i++)
        convert_narrow(tile->sum + i * tile->stride, out + i * g->n, width, PRECISION_FP16);
}

enum status matmul_fp16(struct device *device, const struct gemm *g, struct error *err)
{
    void *data = device->fp16;
    if (data == NULL)
        TRY(device_allocate(device, sizeof(struct panels), &data, err));
    device->fp16 = data;
    for (size_t row = 0; row < g->m; row += PANEL_EXTENT) {
        for (size_t column = 0; column < g->n; column += PANEL_EXTENT) {
            struct tile tile = {
                .rows = {row, g->m - row < PANEL_EXTENT ? g->m : row + PANEL_EXTENT},
                .columns = {column, g->n - column < PANEL_EXTENT ? g->n : column + PANEL_EXTENT},
            };
            bool in_place = g->result == PRECISION_FP32;
            tile.sum = in_place ? (float *)g->c + row * g->n + column : device->fp16->c;
            tile.stride = in_place ? g->n : tile.columns.end - column;
            multiply_tile(device, g, &tile);
        }
    }
    return STATUS_OK;
}

void matmul_fp16_close(struct device *device)
{
    device_free(device, device->fp16, sizeof(struct panels));
    device->fp16 = NULL;
}
