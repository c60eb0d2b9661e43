#include "expect.h"

#include "executor/ops/device.h"
#include <string.h>
#include <sys/mman.h>

static struct device *open_device(int threads)
{
    struct device *device;
    struct error err;
    expect_ok(device_open(&device, threads, &err), &err);
    return device;
}

static void test_device__refuses_to_have_no_threads(void **state)
{
    (void)state;
    struct device *device = NULL;
    struct error err;
    assert_int_equal(device_open(&device, 0, &err), STATUS_INVALID);
    assert_int_equal(device_open(&device, -3, &err), STATUS_INVALID);
    assert_non_null(strstr(err.message, "-3"));
    assert_null(device);
    device_close(NULL);
}

static void test_device__says_what_it_is(void **state)
{
    (void)state;
    struct device *device = open_device(2);
    assert_int_equal(device_threads(device), 2);
    assert_true(device_supports(device, PRECISION_FP32));
    assert_true(device_supports(device, PRECISION_FP16));
    assert_int_equal(strncmp(device_libraries(device), "OpenBLAS ", 9), 0);
    assert_non_null(strchr(device_libraries(device), '('));
    device_close(device);
}

static void check_allocation(struct device *device, size_t bytes)
{
    struct error err;
    void *data = NULL;
    static unsigned char resident[8192];
    expect_ok(device_allocate(device, bytes, &data, &err), &err);
    assert_int_equal((uintptr_t)data % 4096, 0);
    size_t pages = (bytes + 4095) / 4096;
    assert_int_equal(mincore(data, bytes, resident), 0);
    for (size_t i = 0; i < pages; i++)
        assert_true(resident[i] & 1);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(((unsigned char *)data)[i], 0);
    memset(data, 0xff, bytes);
    device_zero(device, data, bytes);
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(((unsigned char *)data)[i], 0);
    device_free(device, data, bytes);
    assert_int_equal(mincore(data, bytes, resident), -1); /* given back */
}

static void test_device__memory_is_zero_resident_and_given_back(void **state)
{
    (void)state;
    struct device *device = open_device(2);
    check_allocation(device, 1);
    check_allocation(device, 4096);
    check_allocation(device, 4097);
    check_allocation(device, (size_t)2 << 20);
    check_allocation(device, ((size_t)5 << 20) + 123);
    device_free(device, NULL, 100);
    device_close(device);
}

static void test_device__memory_beyond_the_machine_is_an_error(void **state)
{
    (void)state;
    struct device *device = open_device(1);
    struct error err;
    void *data = NULL;
    assert_int_equal(device_allocate(device, (size_t)1 << 60, &data, &err), STATUS_MEMORY);
    assert_int_equal(device_allocate(device, SIZE_MAX, &data, &err), STATUS_MEMORY);
    assert_null(data);
    expect_ok(device_allocate(device, 0, &data, &err), &err);
    device_free(device, data, 0);
    device_close(device);
}

static void test_device__writes_and_reads_back(void **state)
{
    (void)state;
    struct device *device = open_device(2);
    struct error err;
    void *data = NULL;
    char out[6] = {0};
    expect_ok(device_allocate(device, 6, &data, &err), &err);
    device_write(device, data, "hello", 6);
    device_read(device, out, data, 6);
    assert_string_equal(out, "hello");
    device_write(device, data, NULL, 0);
    device_free(device, data, 6);
    device_close(device);
}

static void test_device__measures_its_rates(void **state)
{
    (void)state;
    struct device *device = open_device(2);
    struct error err;
    double flops = 0.0, bytes_per_s = 0.0;
    expect_ok(device_measure_matmul(device, PRECISION_FP32, 0.01, &flops, &err), &err);
    assert_true(flops > 1e8 && flops < 1e16);
    expect_ok(device_measure_matmul(device, PRECISION_FP16, 0.01, &flops, &err), &err);
    assert_true(flops > 1e8 && flops < 1e16);
    expect_ok(device_measure_copy(device, 0.01, &bytes_per_s, &err), &err);
    assert_true(bytes_per_s > 1e7 && bytes_per_s < 1e14);
    enum status status = device_measure_matmul(device, PRECISION_BF16, 0.01, &flops, &err);
    if (device_supports(device, PRECISION_BF16))
        expect_ok(status, &err);
    else
        assert_int_equal(status, STATUS_UNSUPPORTED);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device__refuses_to_have_no_threads),
        cmocka_unit_test(test_device__says_what_it_is),
        cmocka_unit_test(test_device__memory_is_zero_resident_and_given_back),
        cmocka_unit_test(test_device__memory_beyond_the_machine_is_an_error),
        cmocka_unit_test(test_device__writes_and_reads_back),
        cmocka_unit_test(test_device__measures_its_rates),
    };
    return cmocka_run_group_tests_name("device", tests, NULL, NULL);
}
