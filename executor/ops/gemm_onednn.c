/* Matrix products through oneDNN: of bf16 operands, and of fp32 where the CPU has AVX-512. A
 * primitive is generated code for one shape; it is made when a shape is first seen and kept. */
#include "executor/ops/convert.h"
#include "executor/ops/gemm.h"

#include <stdio.h>

#ifdef TEMPER_HAS_ONEDNN

#include <assert.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

struct shape_key {
    size_t m, n, k;
    size_t a_stride; /* elements between rows of a, as stored */
    bool a_transposed, b_transposed, accumulate, has_bias;
    enum precision operands, result;
};

struct matmul {
    struct shape_key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, bias; /* without data of their own */
};

struct matmul_cache {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    bool has_bf16, has_amx;
    struct matmul *entries;
    size_t count, capacity;
    float *slab; /* [SLAB_COUNT]; NULL before the first weight gradient in bf16 */
};

/* Elements of c that a weight's gradient in bf16 is made of at once: 4 MiB of fp32, in cache until
 * they are rounded. */
enum { SLAB_COUNT = 1 << 20, SLAB_GRAIN = 16 };

/* From so many rows of c on, packing both operands of bf16 pays. */
enum { PACKED_ROWS_MIN = 512 };
/* A row of b that long, of bf16, is read more than once otherwise. */
enum { PACKED_DEPTH_MIN = 8192 };

static bool key_equal(const struct shape_key *x, const struct shape_key *y)
{
    return x->m == y->m && x->n == y->n && x->k == y->k && x->a_stride == y->a_stride &&
           x->a_transposed == y->a_transposed && x->b_transposed == y->b_transposed &&
           x->accumulate == y->accumulate && x->has_bias == y->has_bias &&
           x->operands == y->operands && x->result == y->result;
}

static enum status refused(struct error *err, const struct gemm *g, const char *what,
                           dnnl_status_t code)
{
    return error_set(err, code == dnnl_out_of_memory ? STATUS_MEMORY : STATUS_FAILED,
                     "oneDNN could not %s a matrix product in %s of %zu x %zu x %zu: status %d",
                     what, precision_name(g->operands), g->m, g->n, g->k, (int)code);
}

/* The sets of instructions contain each other's bits. */
static bool cpu_has(dnnl_cpu_isa_t isa)
{
    return (dnnl_get_effective_cpu_isa() & isa) == isa;
}

enum status matmul_cache_open(struct matmul_cache **out, struct error *err)
{
    *out = NULL;
    if (!cpu_has(dnnl_cpu_isa_avx512_core))
        return STATUS_OK;
    struct matmul_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL)
        return error_memory(err, sizeof(*cache), "the cache of matrix products");
    cache->has_bf16 = cpu_has(dnnl_cpu_isa_avx512_core_bf16);
    cache->has_amx = cpu_has(dnnl_cpu_isa_avx512_core_amx);
    if (dnnl_engine_create(&cache->engine, dnnl_cpu, 0) != dnnl_success)
        goto free_cache;
    if (dnnl_stream_create(&cache->stream, cache->engine, dnnl_stream_default_flags) !=
        dnnl_success)
        goto destroy_engine;
    *out = cache;
    return STATUS_OK;

destroy_engine:
    dnnl_engine_destroy(cache->engine);
free_cache:
    free(cache);
    return error_set(err, STATUS_FAILED, "oneDNN could not be started on this machine's CPU");
}

static void matmul_release(struct matmul *entry)
{
    if (entry->bias != NULL)
        dnnl_memory_destroy(entry->bias);
    if (entry->c != NULL)
        dnnl_memory_destroy(entry->c);
    if (entry->b != NULL)
        dnnl_memory_destroy(entry->b);
    if (entry->a != NULL)
        dnnl_memory_destroy(entry->a);
    if (entry->primitive != NULL)
        dnnl_primitive_destroy(entry->primitive);
}

void matmul_cache_close(struct matmul_cache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < cache->count; i++)
        matmul_release(&cache->entries[i]);
    free(cache->entries);
    free(cache->slab);
    dnnl_stream_destroy(cache->stream);
    dnnl_engine_destroy(cache->engine);
    free(cache);
}

bool matmul_offers(const struct matmul_cache *cache, enum precision operands)
{
    return cache != NULL &&
           (operands == PRECISION_FP32 || (operands == PRECISION_BF16 && cache->has_bf16));
}

struct descriptions {
    dnnl_memory_desc_t a, b, c, bias;
};

static dnnl_data_type_t data_type(enum precision precision)
{
    return precision == PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
}

static dnnl_status_t describe(dnnl_memory_desc_t *out, size_t rows, size_t columns, bool transposed,
                              size_t stride, dnnl_data_type_t type)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)stride,
                           transposed ? (dnnl_dim_t)stride : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

static dnnl_status_t describe_all(const struct shape_key *key, struct descriptions *out)
{
    dnnl_data_type_t operands = data_type(key->operands);
    dnnl_status_t code =
        describe(&out->a, key->m, key->k, key->a_transposed, key->a_stride, operands);
    if (code == dnnl_success)
        code = describe(&out->b, key->k, key->n, key->b_transposed,
                        key->b_transposed ? key->k : key->n, operands);
    if (code == dnnl_success)
        code = describe(&out->c, key->m, key->n, false, key->n, data_type(key->result));
    if (code == dnnl_success && key->has_bias)
        code = describe(&out->bias, 1, key->n, false, key->n, dnnl_f32);
    return code;
}

static dnnl_status_t make_attributes(bool accumulate, dnnl_primitive_attr_t *out)
{
    dnnl_primitive_attr_t attributes;
    dnnl_status_t code = dnnl_primitive_attr_create(&attributes);
    if (code != dnnl_success)
        return code;
    if (accumulate) {
        dnnl_post_ops_t operations;
        code = dnnl_post_ops_create(&operations);
        if (code != dnnl_success)
            goto destroy_attributes;
        code = dnnl_post_ops_append_sum(operations, 1.0f);
        if (code == dnnl_success)
            code = dnnl_primitive_attr_set_post_ops(attributes, operations);
        dnnl_post_ops_destroy(operations);
        if (code != dnnl_success)
            goto destroy_attributes;
    }
    *out = attributes;
    return dnnl_success;

destroy_attributes:
    dnnl_primitive_attr_destroy(attributes);
    return code;
}

/* oneDNN offers a kernel that packs b alone, a strip at a time, before one that packs both operands
 * in blocks that fit the caches ("gemm:jit"). Which is faster where, measured on GPT-2's and
 * Llama's shapes, is in docs/benchmarks.md; it is a rule and not a race, so that a product has the
 * same bits in every run. The packing one would want a second c for a result of 16 bit. */
static bool wants_packing(const struct matmul_cache *cache, const struct shape_key *key)
{
    if (cache->has_amx)
        return false; /* not measured */
    if (key->a_transposed)
        return true;
    if (key->result != PRECISION_FP32)
        return false;
    if (key->operands == PRECISION_FP32)
        return !key->b_transposed;
    return key->m >= PACKED_ROWS_MIN || (!key->b_transposed && key->k >= PACKED_DEPTH_MIN);
}

static bool packs(dnnl_primitive_desc_t description)
{
    const char *name = "";
    return dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name) ==
               dnnl_success &&
           strncmp(name, "gemm:", strlen("gemm:")) == 0;
}

static bool find_packing(dnnl_primitive_desc_iterator_t iterator, dnnl_primitive_desc_t *out)
{
    do {
        dnnl_primitive_desc_t description = dnnl_primitive_desc_iterator_fetch(iterator);
        if (description == NULL)
            return false;
        if (packs(description)) {
            *out = description;
            return true;
        }
        dnnl_primitive_desc_destroy(description);
    } while (dnnl_primitive_desc_iterator_next(iterator) == dnnl_success);
    return false;
}

static dnnl_status_t choose(struct matmul_cache *cache, const struct shape_key *key,
                            const dnnl_matmul_desc_t *operation, dnnl_primitive_attr_t attributes,
                            dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_iterator_t iterator;
    bool is_found = false;
    if (wants_packing(cache, key) &&
        dnnl_primitive_desc_iterator_create(&iterator, operation, attributes, cache->engine,
                                            NULL) == dnnl_success) {
        is_found = find_packing(iterator, out);
        dnnl_primitive_desc_iterator_destroy(iterator);
    }
    if (is_found)
        return dnnl_success;
    return dnnl_primitive_desc_create(out, operation, attributes, cache->engine, NULL);
}

static dnnl_status_t make_primitive(struct matmul_cache *cache, const struct shape_key *key,
                                    const struct descriptions *d, dnnl_primitive_t *out)
{
    dnnl_matmul_desc_t operation;
    dnnl_primitive_attr_t attributes;
    dnnl_primitive_desc_t description;
    dnnl_status_t code =
        dnnl_matmul_desc_init(&operation, &d->a, &d->b, key->has_bias ? &d->bias : NULL, &d->c);
    if (code != dnnl_success)
        return code;
    code = make_attributes(key->accumulate, &attributes);
    if (code != dnnl_success)
        return code;
    code = choose(cache, key, &operation, attributes, &description);
    dnnl_primitive_attr_destroy(attributes);
    if (code != dnnl_success)
        return code;
    code = dnnl_primitive_create(out, description);
    dnnl_primitive_desc_destroy(description);
    return code;
}

static dnnl_status_t matmul_make(struct matmul_cache *cache, struct matmul *entry)
{
    struct descriptions d = {0};
    dnnl_status_t code = describe_all(&entry->key, &d);
    if (code == dnnl_success)
        code = make_primitive(cache, &entry->key, &d, &entry->primitive);
    if (code == dnnl_success)
        code = dnnl_memory_create(&entry->a, &d.a, cache->engine, DNNL_MEMORY_NONE);
    if (code == dnnl_success)
        code = dnnl_memory_create(&entry->b, &d.b, cache->engine, DNNL_MEMORY_NONE);
    if (code == dnnl_success)
        code = dnnl_memory_create(&entry->c, &d.c, cache->engine, DNNL_MEMORY_NONE);
    if (code == dnnl_success && entry->key.has_bias)
        code = dnnl_memory_create(&entry->bias, &d.bias, cache->engine, DNNL_MEMORY_NONE);
    if (code != dnnl_success)
        matmul_release(entry);
    return code;
}

static enum status find(struct matmul_cache *cache, const struct gemm *gemm, size_t a_stride,
                        struct matmul **out, struct error *err)
{
    struct shape_key key = {gemm->m,
                            gemm->n,
                            gemm->k,
                            a_stride,
                            gemm->a_transposed,
                            gemm->b_transposed,
                            gemm->accumulate,
                            gemm->bias != NULL,
                            gemm->operands,
                            gemm->result};
    for (size_t i = 0; i < cache->count; i++) {
        if (key_equal(&cache->entries[i].key, &key)) {
            *out = &cache->entries[i];
            return STATUS_OK;
        }
    }
    if (cache->count == cache->capacity) {
        size_t capacity = cache->capacity == 0 ? 32 : 2 * cache->capacity;
        struct matmul *grown = realloc(cache->entries, capacity * sizeof(*grown));
        if (grown == NULL)
            return error_memory(err, capacity * sizeof(*grown), "matrix products");
        cache->entries = grown;
        cache->capacity = capacity;
    }
    struct matmul made = {.key = key};
    dnnl_status_t code = matmul_make(cache, &made);
    if (code != dnnl_success)
        return refused(err, gemm, "prepare", code);
    cache->entries[cache->count] = made;
    *out = &cache->entries[cache->count++];
    return STATUS_OK;
}

/* oneDNN takes all data as void *, also what it only reads. */
static dnnl_status_t set_data(dnnl_memory_t memory, const void *data)
{
    void *writable;
    memcpy(&writable, &data, sizeof(writable));
    return dnnl_memory_set_data_handle(memory, writable);
}

static enum status multiply(struct matmul_cache *cache, const struct gemm *gemm, size_t a_stride,
                            struct error *err)
{
    struct matmul *entry = NULL;
    TRY(find(cache, gemm, a_stride, &entry, err));
    dnnl_status_t code = set_data(entry->a, gemm->a);
    if (code == dnnl_success)
        code = set_data(entry->b, gemm->b);
    if (code == dnnl_success)
        code = set_data(entry->c, gemm->c);
    if (code == dnnl_success && gemm->bias != NULL)
        code = set_data(entry->bias, gemm->bias);
    const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, entry->a},
                                         {DNNL_ARG_WEIGHTS, entry->b},
                                         {DNNL_ARG_DST, entry->c},
                                         {DNNL_ARG_BIAS, entry->bias}};
    if (code == dnnl_success) {
        code = dnnl_primitive_execute(entry->primitive, cache->stream, gemm->bias != NULL ? 4 : 3,
                                      arguments);
    }
    if (code == dnnl_success)
        code = dnnl_stream_wait(cache->stream);
    return code == dnnl_success ? STATUS_OK : refused(err, gemm, "compute", code);
}

/* A weight's gradient in bf16, a few rows of c at a time: in fp32 into the slab, from there into c.
 * By itself the packing kernel would allocate a second c of fp32 for each thread, and the other one
 * is slower. */
static enum status multiply_in_slabs(struct device *device, const struct gemm *gemm,
                                     struct error *err)
{
    struct matmul_cache *cache = device->onednn;
    size_t rows = SLAB_COUNT / gemm->n;
    assert(rows > 0 && gemm->a_transposed);
    if (rows > SLAB_GRAIN)
        rows -= rows % SLAB_GRAIN;
    if (cache->slab == NULL)
        cache->slab = aligned_alloc(BUFFER_ALIGN_BYTES, SLAB_COUNT * sizeof(float));
    if (cache->slab == NULL)
        return error_memory(err, SLAB_COUNT * sizeof(float), "gradients in bf16");
    for (size_t row = 0; row < gemm->m; row += rows) {
        uint16_t *c = (uint16_t *)gemm->c + row * gemm->n;
        struct gemm part = *gemm;
        part.m = gemm->m - row < rows ? gemm->m - row : rows;
        part.a = (const uint16_t *)gemm->a + row;
        part.c = cache->slab;
        part.accumulate = false;
        part.result = PRECISION_FP32;
        TRY(multiply(cache, &part, gemm->m, err));
#pragma omp parallel num_threads(device->threads)
        {
            struct span span = span_of_thread(part.m * part.n, SLAB_GRAIN);
            if (gemm->accumulate)
                convert_add_bf16(cache->slab + span.begin, c + span.begin, span.end - span.begin);
            else
                convert_narrow(cache->slab + span.begin, c + span.begin, span.end - span.begin,
                               PRECISION_BF16);
        }
    }
    return STATUS_OK;
}

enum status matmul_onednn(struct device *device, const struct gemm *gemm, struct error *err)
{
    if (gemm->result == PRECISION_BF16 && gemm->a_transposed)
        return multiply_in_slabs(device, gemm, err);
    return multiply(device->onednn, gemm, gemm->a_transposed ? gemm->m : gemm->k, err);
}

const char *matmul_version(char *text, size_t bytes)
{
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, bytes, "oneDNN %d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

#else

enum status matmul_cache_open(struct matmul_cache **out, struct error *err)
{
    (void)err;
    *out = NULL;
    return STATUS_OK;
}

void matmul_cache_close(struct matmul_cache *cache)
{
    (void)cache;
}

bool matmul_offers(const struct matmul_cache *cache, enum precision operands)
{
    (void)cache;
    (void)operands;
    return false;
}

enum status matmul_onednn(struct device *device, const struct gemm *gemm, struct error *err)
{
    (void)device;
    return error_set(err, STATUS_UNSUPPORTED,
                     "a matrix product in %s of %zu x %zu x %zu: temper was built without oneDNN",
                     precision_name(gemm->operands), gemm->m, gemm->n, gemm->k);
}

const char *matmul_version(char *text, size_t bytes)
{
    if (bytes > 0)
        text[0] = '\0';
    return text;
}

#endif
