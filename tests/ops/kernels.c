#include "kernels.h"

#include <cblas.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

struct kernel {
    enum kernel_kind kind;
    const struct gemm *gemm;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t product, packing;
    dnnl_memory_t a, b, c, plain_b;
    void *own_a, *own_b; /* quantised, packed */
    float *scales;       /* [m] */
};

const char *kernel_name(enum kernel_kind kind)
{
    static const char *const names[KERNEL_COUNT] = {"strips", "panels", "packed", "int8", "blas"};
    return names[kind];
}

static void must(dnnl_status_t code)
{
    if (code != dnnl_success)
        abort(); /* a benchmark of kernels has nothing to say without them */
}

static dnnl_memory_desc_t plain(size_t rows, size_t columns, bool transposed, dnnl_data_type_t type)
{
    dnnl_memory_desc_t description;
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)columns, transposed ? (dnnl_dim_t)rows : 1};
    must(dnnl_memory_desc_init_by_strides(&description, 2, dims, type, strides));
    return description;
}

/* The first implementation whose name begins so; NULL: there is none. */
static dnnl_primitive_desc_t find(const struct kernel *kernel, const dnnl_matmul_desc_t *operation,
                                  const char *prefix)
{
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t operations;
    must(dnnl_primitive_attr_create(&attributes));
    must(dnnl_post_ops_create(&operations));
    if (kernel->gemm->accumulate)
        must(dnnl_post_ops_append_sum(operations, 1.0f));
    must(dnnl_primitive_attr_set_post_ops(attributes, operations));
    dnnl_primitive_desc_iterator_t iterator;
    must(dnnl_primitive_desc_iterator_create(&iterator, operation, attributes, kernel->engine,
                                             NULL));
    dnnl_primitive_desc_t found = NULL;
    do {
        const char *name = "";
        dnnl_primitive_desc_t at = dnnl_primitive_desc_iterator_fetch(iterator);
        must(dnnl_primitive_desc_query(at, dnnl_query_impl_info_str, 0, (void *)&name));
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            found = at;
        else
            must(dnnl_primitive_desc_destroy(at));
    } while (found == NULL && dnnl_primitive_desc_iterator_next(iterator) == dnnl_success);
    must(dnnl_primitive_desc_iterator_destroy(iterator));
    must(dnnl_post_ops_destroy(operations));
    must(dnnl_primitive_attr_destroy(attributes));
    return found;
}

static void *allocate(size_t bytes)
{
    void *data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (data == NULL)
        abort();
    memset(data, 1, bytes);
    return data;
}

/* oneDNN takes all data as void *, also what it only reads. */
static dnnl_memory_t memory_of(const struct kernel *kernel, const dnnl_memory_desc_t *description,
                               const void *data)
{
    dnnl_memory_t memory;
    void *writable;
    memcpy(&writable, &data, sizeof(writable));
    must(dnnl_memory_create(&memory, description, kernel->engine, writable));
    return memory;
}

static void make_packing(struct kernel *kernel, const dnnl_memory_desc_t *from,
                         const dnnl_memory_desc_t *to)
{
    dnnl_primitive_desc_t description;
    kernel->own_b = allocate(dnnl_memory_desc_get_size(to));
    kernel->plain_b = memory_of(kernel, from, kernel->gemm->b);
    must(dnnl_reorder_primitive_desc_create(&description, from, kernel->engine, to, kernel->engine,
                                            NULL));
    must(dnnl_primitive_create(&kernel->packing, description));
    must(dnnl_primitive_desc_destroy(description));
}

/* False: there is no such kernel. */
static bool make_product(struct kernel *kernel)
{
    const struct gemm *g = kernel->gemm;
    bool is_int8 = kernel->kind == KERNEL_INT8, is_packed = kernel->kind == KERNEL_PACKED;
    dnnl_data_type_t type = g->operands == PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t a = plain(g->m, g->k, g->a_transposed, is_int8 ? dnnl_u8 : type);
    dnnl_memory_desc_t plain_b = plain(g->k, g->n, g->b_transposed, is_int8 ? dnnl_s8 : type);
    dnnl_memory_desc_t b = plain_b;
    dnnl_memory_desc_t c =
        plain(g->m, g->n, false, g->result == PRECISION_BF16 ? dnnl_bf16 : dnnl_f32);
    if (is_packed)
        must(dnnl_memory_desc_init_by_tag(&b, 2, plain_b.dims, type, dnnl_format_tag_any));
    dnnl_matmul_desc_t operation;
    must(dnnl_matmul_desc_init(&operation, &a, &b, NULL, &c));
    dnnl_primitive_desc_t found =
        find(kernel, &operation, kernel->kind == KERNEL_PANELS ? "gemm:" : "brg:");
    if (found == NULL)
        return false;
    b = *dnnl_primitive_desc_query_md(found, dnnl_query_weights_md, 0);
    must(dnnl_primitive_create(&kernel->product, found));
    must(dnnl_primitive_desc_destroy(found));
    if (is_packed)
        make_packing(kernel, &plain_b, &b);
    if (is_int8) {
        kernel->own_a = allocate(g->m * g->k);
        kernel->own_b = allocate(g->k * g->n);
        kernel->scales = allocate(g->m * sizeof(float));
    }
    kernel->a = memory_of(kernel, &a, is_int8 ? kernel->own_a : g->a);
    kernel->b = memory_of(kernel, &b, kernel->own_b != NULL ? kernel->own_b : g->b);
    kernel->c = memory_of(kernel, &c, g->c);
    return true;
}

enum status kernel_open(struct kernel **out, enum kernel_kind kind, const struct gemm *gemm,
                        struct error *err)
{
    *out = NULL;
    bool is_int8 = kind == KERNEL_INT8, is_blas = kind == KERNEL_BLAS;
    if ((is_blas && gemm->operands != PRECISION_FP32) ||
        (is_int8 && (gemm->operands != PRECISION_BF16 || gemm->result != PRECISION_FP32 ||
                     gemm->a_transposed || gemm->accumulate)))
        return STATUS_OK;
    struct kernel *kernel = calloc(1, sizeof(*kernel));
    if (kernel == NULL)
        return error_memory(err, sizeof(*kernel), "a kernel");
    kernel->kind = kind;
    kernel->gemm = gemm;
    bool is_made = is_blas;
    if (!is_blas) {
        must(dnnl_engine_create(&kernel->engine, dnnl_cpu, 0));
        must(dnnl_stream_create(&kernel->stream, kernel->engine, dnnl_stream_default_flags));
        is_made = make_product(kernel);
    }
    if (is_made)
        *out = kernel;
    else
        kernel_close(kernel);
    return STATUS_OK;
}

void kernel_close(struct kernel *kernel)
{
    if (kernel == NULL)
        return;
    dnnl_memory_t memories[] = {kernel->a, kernel->b, kernel->c, kernel->plain_b};
    for (size_t i = 0; i < sizeof(memories) / sizeof(memories[0]); i++)
        if (memories[i] != NULL)
            must(dnnl_memory_destroy(memories[i]));
    if (kernel->product != NULL)
        must(dnnl_primitive_destroy(kernel->product));
    if (kernel->packing != NULL)
        must(dnnl_primitive_destroy(kernel->packing));
    if (kernel->stream != NULL)
        must(dnnl_stream_destroy(kernel->stream));
    if (kernel->engine != NULL)
        must(dnnl_engine_destroy(kernel->engine));
    free(kernel->own_a);
    free(kernel->own_b);
    free(kernel->scales);
    free(kernel);
}

/* A row to [1, 255] around 128, its largest modulus to 127. */
static void quantise_row(const uint16_t *row, uint8_t *out, size_t count, float *scale)
{
    float largest = 0.0f;
#pragma omp simd reduction(max : largest)
    for (size_t j = 0; j < count; j++) {
        uint32_t bits = ((uint32_t)row[j] << 16) & 0x7fffffff;
        float size;
        memcpy(&size, &bits, sizeof(size));
        largest = size > largest ? size : largest;
    }
    *scale = largest / 127.0f;
    float factor = largest > 0.0f ? 127.0f / largest : 0.0f;
#pragma omp simd
    for (size_t j = 0; j < count; j++) {
        uint32_t bits = (uint32_t)row[j] << 16;
        float value;
        memcpy(&value, &bits, sizeof(value));
        out[j] = (uint8_t)(int)(value * factor + 128.5f);
    }
}

bool kernel_prepare(struct kernel *kernel)
{
    const struct gemm *g = kernel->gemm;
    if (kernel->kind == KERNEL_PACKED) {
        const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, kernel->plain_b},
                                             {DNNL_ARG_TO, kernel->b}};
        must(dnnl_primitive_execute(kernel->packing, kernel->stream, 2, arguments));
        must(dnnl_stream_wait(kernel->stream));
        return true;
    }
    if (kernel->kind != KERNEL_INT8)
        return false;
    for (size_t i = 0; i < g->m; i++) {
        quantise_row((const uint16_t *)g->a + i * g->k, (uint8_t *)kernel->own_a + i * g->k, g->k,
                     &kernel->scales[i]);
    }
    return true;
}

void kernel_run(struct kernel *kernel)
{
    const struct gemm *g = kernel->gemm;
    if (kernel->kind == KERNEL_BLAS) {
        cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                    g->b_transposed ? CblasTrans : CblasNoTrans, (blasint)g->m, (blasint)g->n,
                    (blasint)g->k, 1.0f, g->a, (blasint)(g->a_transposed ? g->m : g->k), g->b,
                    (blasint)(g->b_transposed ? g->k : g->n), g->accumulate ? 1.0f : 0.0f, g->c,
                    (blasint)g->n);
        return;
    }
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, kernel->a}, {DNNL_ARG_WEIGHTS, kernel->b}, {DNNL_ARG_DST, kernel->c}};
    must(dnnl_primitive_execute(kernel->product, kernel->stream, 3, arguments));
    must(dnnl_stream_wait(kernel->stream));
}
