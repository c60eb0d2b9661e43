/* Sums of bf16 against roundings by hand, on any number of ranks: by itself and under mpirun with 1
 * to 5 and 8 ranks. */
#include "harness.h"

#include "base/bf16.h"
#include "base/partition.h"

static struct comm *comm;

static const size_t counts[] = {0, 1, 17, 1000, 100003, PARTITION_PIECE, 300001, (5 << 18) + 1};
enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };

static const uint16_t SENTINEL_16 = 0x4711;

/* To 8 significant bits, ties to even, by arithmetic instead of bits. */
static float rounded(float x)
{
    int exponent;
    if (!isfinite(x) || x == 0)
        return x;
    double fraction = frexp(x, &exponent);
    return (float)ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

static uint16_t *filled_16(size_t count, float (*value)(int rank, size_t index))
{
    uint16_t *data = malloc((count + 1) * sizeof(*data));
    assert_non_null(data);
    for (size_t i = 0; i < count; i++)
        data[i] = bf16_from_float(value(comm_rank(comm), i));
    data[count] = SENTINEL_16;
    return data;
}

/* Added in the order of the ranks and rounded once. */
static float sum_of(size_t index, float (*value)(int rank, size_t index))
{
    float sum = rounded(value(0, index));
    for (int rank = 1; rank < comm_size(comm); rank++)
        sum += rounded(value(rank, index));
    return rounded(sum);
}

static void test_bf16__reduce_scatter_adds_in_fp32_and_rounds_once(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        int ways = comm_size(comm);
        struct partition partition = {.count = partition_padded(counts[c], ways), .ways = ways};
        struct comm_request *request;
        uint16_t *data = filled_16(partition.count, rough_value);
        OK(comm_reduce_scatter_bf16_start(comm, data, partition.count, &request, &err_));
        OK(comm_wait(comm, request, &err_));
        assert_true(data[partition.count] == SENTINEL_16);
        for (size_t p = 0; p < partition_piece_count(&partition); p++) {
            struct partition_piece piece = partition_piece_at(&partition, p);
            size_t own = piece.first + (size_t)comm_rank(comm) * piece.block;
            for (size_t i = 0; i < piece.block; i++)
                assert_true(float_from_bf16(data[piece.first + i]) == sum_of(own + i, rough_value));
        }
        free(data);
    }
}

static void test_bf16__all_reduce_has_the_same_sums_everywhere(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS + 70; c++) {
        size_t count = c < COUNTS ? counts[c] : c - COUNTS;
        struct comm_request *request;
        uint16_t *data = filled_16(count, rough_value);
        OK(comm_all_reduce_bf16_start(comm, data, count, &request, &err_));
        OK(comm_wait(comm, request, &err_));
        for (size_t i = 0; i < count; i++)
            assert_true(float_from_bf16(data[i]) == sum_of(i, rough_value));
        assert_true(data[count] == SENTINEL_16);
        expect_same_bits(comm, data, count * sizeof(*data));
        free(data);
    }
}

/* What a step is skipped for still shows after the sum. */
static void test_bf16__infinite_and_no_numbers_stay_so(void **state)
{
    (void)state;
    enum { COUNT = 1001, CASES = 5 };
    static const uint16_t specials[CASES] = {
        0x7fff, 0x7f81, /* NaN whose carry would leave them */
        0x7f80, 0xff80, /* infinities */
        0x7f7f,         /* the largest: twice of it is infinite */
    };
    bool is_alone = comm_size(comm) == 1;
    struct comm_request *request;
    uint16_t *data = filled_16(COUNT, exact_value);
    for (size_t i = 0; i < CASES; i++)
        data[i] = comm_rank(comm) == 0 || i == CASES - 1 ? specials[i] : 0;
    OK(comm_all_reduce_bf16_start(comm, data, COUNT, &request, &err_));
    OK(comm_wait(comm, request, &err_));
    assert_true(isnan(float_from_bf16(data[0])) && isnan(float_from_bf16(data[1])));
    assert_int_equal(data[2], specials[2]);
    assert_int_equal(data[3], specials[3]);
    assert_int_equal(data[4], is_alone ? specials[4] : 0x7f80);
    free(data);
}

/* In one queue with those of fp32, and with what they leave in the windows' scratch. */
static void test_bf16__mixes_with_other_sums(void **state)
{
    (void)state;
    enum { REQUESTS = 12, COUNT = 300001 };
    float *data[REQUESTS];
    uint16_t *data_16[REQUESTS];
    struct comm_request *requests[REQUESTS];
    for (size_t i = 0; i < REQUESTS; i++) {
        data[i] = filled(comm_rank(comm), COUNT, exact_value);
        data_16[i] = filled_16(COUNT, exact_value);
        if (i % 2 == 0)
            OK(comm_all_reduce_bf16_start(comm, data_16[i], COUNT, &requests[i], &err_));
        else
            OK(comm_all_reduce_start(comm, data[i], COUNT, &requests[i], &err_));
    }
    for (size_t i = REQUESTS; i-- > 0;) {
        OK(comm_wait(comm, requests[i], &err_));
        for (size_t k = 0; k < COUNT; k++) {
            float sum = 0;
            for (int rank = 0; rank < comm_size(comm); rank++)
                sum += exact_value(rank, k); /* at most 125: whole in bf16 */
            if (i % 2 == 0)
                assert_true(float_from_bf16(data_16[i][k]) == rounded(sum));
            else
                assert_true(data[i][k] == sum);
        }
        free(data[i]);
        free(data_16[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16__reduce_scatter_adds_in_fp32_and_rounds_once),
        cmocka_unit_test(test_bf16__all_reduce_has_the_same_sums_everywhere),
        cmocka_unit_test(test_bf16__infinite_and_no_numbers_stay_so),
        cmocka_unit_test(test_bf16__mixes_with_other_sums),
    };
    struct error err = {0};
    if (comm_open(&comm, &err) != STATUS_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failed;
}
