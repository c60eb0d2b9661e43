/* Sums whose elements travel as bf16 against roundings by hand, on any number of ranks: by itself
 * and under mpirun with 1 to 5 and 8 ranks. */
#include "harness.h"

#include "base/partition.h"

static struct comm *comm;

static const size_t counts[] = {0, 1, 17, 1000, 100003, PARTITION_PIECE, 300001, (5 << 18) + 1};
enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };

/* To 8 significant bits, ties to even, by arithmetic instead of bits; of one rank as it is. */
static float rounded(float x)
{
    int exponent;
    if (!isfinite(x) || x == 0 || comm_size(comm) == 1)
        return x;
    double fraction = frexp(x, &exponent);
    return (float)ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

static float sum_of_rounded(size_t index, float (*value)(int rank, size_t index))
{
    float sum = rounded(value(0, index));
    for (int rank = 1; rank < comm_size(comm); rank++)
        sum += rounded(value(rank, index));
    return sum;
}

static void test_bf16__reduce_scatter_adds_rounded_summands_in_fp32(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        int ways = comm_size(comm);
        struct partition partition = {.count = partition_padded(counts[c], ways), .ways = ways};
        struct comm_request *request;
        float *data = filled(comm_rank(comm), partition.count, rough_value);
        OK(comm_reduce_scatter_bf16_start(comm, data, partition.count, &request, &err_));
        OK(comm_wait(comm, request, &err_));
        assert_true(data[partition.count] == SENTINEL);
        for (size_t p = 0; p < partition_piece_count(&partition); p++) {
            struct partition_piece piece = partition_piece_at(&partition, p);
            size_t own = piece.first + (size_t)comm_rank(comm) * piece.block;
            for (size_t i = 0; i < piece.block; i++)
                assert_true(data[piece.first + i] == sum_of_rounded(own + i, rough_value));
        }
        free(data);
    }
}

static void test_bf16__all_reduce_rounds_the_sum_once_more(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS + 70; c++) {
        size_t count = c < COUNTS ? counts[c] : c - COUNTS;
        struct comm_request *request;
        float *data = filled(comm_rank(comm), count, rough_value);
        OK(comm_all_reduce_bf16_start(comm, data, count, &request, &err_));
        OK(comm_wait(comm, request, &err_));
        for (size_t i = 0; i < count; i++)
            assert_true(data[i] == rounded(sum_of_rounded(i, rough_value)));
        assert_true(data[count] == SENTINEL);
        free(data);
    }
}

/* What a step is skipped for still shows after the sum. */
static void test_bf16__infinite_and_no_numbers_stay_so(void **state)
{
    (void)state;
    enum { COUNT = 1001, CASES = 6 };
    bool is_alone = comm_size(comm) == 1, is_first = comm_rank(comm) == 0;
    uint32_t quiet = 0x7fffffff, payload = 0x7f800001; /* NaN whose carry would leave them */
    struct comm_request *request;
    float *data = filled(comm_rank(comm), COUNT, exact_value);
    for (size_t i = 0; i < CASES; i++)
        data[i] = 0;
    if (is_first) {
        memcpy(&data[0], &quiet, sizeof(quiet));
        memcpy(&data[1], &payload, sizeof(payload));
        data[2] = INFINITY;
        data[3] = -INFINITY;
        data[4] = 3.4e38F;   /* beyond the largest bf16 */
        data[5] = 0x1.01p0F; /* halfway: to even */
    }
    OK(comm_all_reduce_bf16_start(comm, data, COUNT, &request, &err_));
    OK(comm_wait(comm, request, &err_));
    assert_true(isnan(data[0]) && isnan(data[1]));
    assert_true(data[2] == INFINITY && data[3] == -INFINITY);
    assert_true(is_alone || (data[4] == INFINITY && data[5] == 1));
    free(data);
}

/* In one queue with those that travel in fp32, and with what they leave in the windows' scratch. */
static void test_bf16__mixes_with_other_sums(void **state)
{
    (void)state;
    enum { REQUESTS = 12, COUNT = 300001 };
    float *data[REQUESTS];
    struct comm_request *requests[REQUESTS];
    for (size_t i = 0; i < REQUESTS; i++) {
        data[i] = filled(comm_rank(comm), COUNT, exact_value);
        if (i % 2 == 0)
            OK(comm_all_reduce_bf16_start(comm, data[i], COUNT, &requests[i], &err_));
        else
            OK(comm_all_reduce_start(comm, data[i], COUNT, &requests[i], &err_));
    }
    for (size_t i = REQUESTS; i-- > 0;) {
        OK(comm_wait(comm, requests[i], &err_));
        for (size_t k = 0; k < COUNT; k++) {
            float sum = 0;
            for (int rank = 0; rank < comm_size(comm); rank++)
                sum += exact_value(rank, k); /* at most 125: whole in bf16 */
            assert_true(data[i][k] == (i % 2 == 0 ? rounded(sum) : sum));
        }
        free(data[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16__reduce_scatter_adds_rounded_summands_in_fp32),
        cmocka_unit_test(test_bf16__all_reduce_rounds_the_sum_once_more),
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
