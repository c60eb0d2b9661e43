#include "executor/ops/device.h"

#include "executor/ops/gemm.h"
#include "executor/ops/internal.h"
#include "executor/ops/rope.h"
#include <assert.h>
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const size_t PAGE_BYTES = 4096;
static const size_t HUGE_PAGE_BYTES = (size_t)2 << 20;

/* OpenBLAS describes itself as "OpenBLAS 0.3.21 NO_LAPACKE ... MAX_THREADS=64". */
static void describe_libraries(struct device *device)
{
    char blas[64], dnnl[32];
    const char *config = openblas_get_config();
    const char *version_end = strchr(config, ' ');
    version_end = version_end != NULL ? strchr(version_end + 1, ' ') : NULL;
    int length = version_end != NULL ? (int)(version_end - config) : (int)strlen(config);
    snprintf(blas, sizeof(blas), "%.*s (%s)", length, config, openblas_get_corename());
    matmul_version(dnnl, sizeof(dnnl));
    snprintf(device->libraries, sizeof(device->libraries), "%s%s%s", blas,
             dnnl[0] != '\0' ? ", " : "", dnnl);
}

void device_claim(const struct device *device)
{
    if (omp_get_max_threads() != device->threads)
        omp_set_num_threads(device->threads);
    if (openblas_get_num_threads() != device->threads)
        openblas_set_num_threads(device->threads);
}

enum status device_open(struct device **out, int threads, struct error *err)
{
    if (threads < 1) {
        return error_set(err, STATUS_INVALID, "a device needs at least 1 thread, not %d", threads);
    }
    struct device *device = calloc(1, sizeof(*device));
    if (device == NULL)
        return error_memory(err, sizeof(*device), "a device");
    device->threads = threads;
    omp_set_dynamic(0);
    device_claim(device);
    if (matmul_cache_open(&device->onednn, err) != STATUS_OK)
        goto free_device;
    describe_libraries(device);
    *out = device;
    return STATUS_OK;

free_device:
    free(device);
    return err->status;
}

void device_close(struct device *device)
{
    if (device == NULL)
        return;
    matmul_cache_close(device->onednn);
    matmul_fp16_close(device);
    rope_release(device);
    free(device);
}

int device_threads(const struct device *device)
{
    return device->threads;
}

bool device_supports(const struct device *device, enum precision precision)
{
    return precision != PRECISION_BF16 || matmul_offers(device->onednn, precision);
}

const char *device_libraries(const struct device *device)
{
    return device->libraries;
}

static size_t round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* Bytes from the system that begin on a huge page when there are enough of them to fill one. */
static char *map_pages(size_t bytes)
{
    size_t slack = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
    char *base =
        mmap(NULL, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (slack == 0)
        return base;
    char *start = base + (HUGE_PAGE_BYTES - (uintptr_t)base % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    size_t before = (size_t)(start - base);
    if (before > 0)
        munmap(base, before);
    if (slack > before)
        munmap(start + bytes, slack - before);
    madvise(start, bytes, MADV_HUGEPAGE); /* a hint: refused where the system has none */
    return start;
}

enum status device_allocate(struct device *device, size_t bytes, void **out, struct error *err)
{
    if (bytes > SIZE_MAX / 2)
        return error_memory(err, bytes, "device memory");
    size_t rounded = round_up(bytes > 0 ? bytes : 1, PAGE_BYTES);
    char *data = map_pages(rounded);
    if (data == NULL)
        return error_memory(err, bytes, "device memory");
    /* Fresh pages are zero; writing to each makes it resident, near the thread that will use it. */
    size_t pages = rounded / PAGE_BYTES;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (size_t page = 0; page < pages; page++)
        *(volatile char *)(data + page * PAGE_BYTES) = 0;
    *out = data;
    return STATUS_OK;
}

void device_free(struct device *device, void *data, size_t bytes)
{
    (void)device;
    if (data == NULL)
        return;
    int failed = munmap(data, round_up(bytes > 0 ? bytes : 1, PAGE_BYTES));
    assert(failed == 0);
    (void)failed;
}

void device_write(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (bytes > 0)
        memcpy(to, from, bytes);
}

void device_read(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    if (bytes > 0)
        memcpy(to, from, bytes);
}

void device_zero(struct device *device, void *data, size_t bytes)
{
#pragma omp parallel num_threads(device->threads)
    {
        struct span span = span_of_thread(bytes, PAGE_BYTES);
        if (span.end > span.begin)
            memset((char *)data + span.begin, 0, span.end - span.begin);
    }
}

void device_copy(struct device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to, from, bytes);
}
