/* Matrix products of bf16 operands through oneDNN. A primitive is generated code for one shape; it
 * is made when a shape is first seen and kept. */
#include "executor/ops/gemm.h"

#include <stdio.h>

#ifdef TEMPER_HAS_ONEDNN

#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

struct shape_key {
    size_t m, n, k;
    bool a_transposed, b_transposed, accumulate, has_bias;
    enum precision result;
};

struct matmul {
    struct shape_key key;
    dnnl_primitive_t primitive;
    dnnl_memory_t a, b, c, bias; /* without data of their own */
};

struct matmul_cache {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct matmul *entries;
    size_t count, capacity;
};

static bool key_equal(const struct shape_key *x, const struct shape_key *y)
{
    return x->m == y->m && x->n == y->n && x->k == y->k && x->a_transposed == y->a_transposed &&
           x->b_transposed == y->b_transposed && x->accumulate == y->accumulate &&
           x->has_bias == y->has_bias && x->result == y->result;
}

static enum status refused(struct error *err, const struct gemm *g, const char *what,
                           dnnl_status_t code)
{
    return error_set(err, code == dnnl_out_of_memory ? STATUS_MEMORY : STATUS_FAILED,
                     "oneDNN could not %s a bf16 matrix product of %zu x %zu x %zu: status %d",
                     what, g->m, g->n, g->k, (int)code);
}

enum status matmul_cache_open(struct matmul_cache **out, struct error *err)
{
    *out = NULL;
    if ((dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) !=
        dnnl_cpu_isa_avx512_core_bf16)
        return STATUS_OK;
    struct matmul_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL)
        return error_memory(err, sizeof(*cache), "the cache of bf16 matrix products");
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
    dnnl_stream_destroy(cache->stream);
    dnnl_engine_destroy(cache->engine);
    free(cache);
}

struct descriptions {
    dnnl_memory_desc_t a, b, c, bias;
};

static dnnl_status_t describe(dnnl_memory_desc_t *out, size_t rows, size_t columns, bool transposed,
                              dnnl_data_type_t type)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {transposed ? 1 : (dnnl_dim_t)columns, transposed ? (dnnl_dim_t)rows : 1};
    return dnnl_memory_desc_init_by_strides(out, 2, dims, type, strides);
}

static dnnl_status_t describe_all(const struct shape_key *key, struct descriptions *out)
{
    dnnl_data_type_t result = key->result == PRECISION_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_status_t code = describe(&out->a, key->m, key->k, key->a_transposed, dnnl_bf16);
    if (code == dnnl_success)
        code = describe(&out->b, key->k, key->n, key->b_transposed, dnnl_bf16);
    if (code == dnnl_success)
        code = describe(&out->c, key->m, key->n, false, result);
    if (code == dnnl_success && key->has_bias)
        code = describe(&out->bias, 1, key->n, false, dnnl_f32);
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
    code = dnnl_primitive_desc_create(&description, &operation, attributes, cache->engine, NULL);
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

static enum status find(struct matmul_cache *cache, const struct gemm *gemm, struct matmul **out,
                        struct error *err)
{
    struct shape_key key = {gemm->m,
                            gemm->n,
                            gemm->k,
                            gemm->a_transposed,
                            gemm->b_transposed,
                            gemm->accumulate,
                            gemm->bias != NULL,
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
            return error_memory(err, capacity * sizeof(*grown), "bf16 matrix products");
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

enum status matmul_bf16(struct matmul_cache *cache, const struct gemm *gemm, struct error *err)
{
    struct matmul *entry = NULL;
    TRY(find(cache, gemm, &entry, err));
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

enum status matmul_bf16(struct matmul_cache *cache, const struct gemm *gemm, struct error *err)
{
    (void)cache;
    return error_set(err, STATUS_UNSUPPORTED,
                     "a bf16 matrix product of %zu x %zu x %zu: temper was built without oneDNN",
                     gemm->m, gemm->n, gemm->k);
}

const char *matmul_version(char *text, size_t bytes)
{
    if (bytes > 0)
        text[0] = '\0';
    return text;
}

#endif
