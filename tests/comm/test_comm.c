/* Every collective against brute force, on any number of ranks: run by itself (one rank, no MPI)
 * and under mpirun with 1 to 5 and 8 ranks. What rank r contributes at index i is a formula of (r,
 * i), so that each rank can compute what must come out. A failure aborts all ranks, or the others
 * would wait. */
#include "harness.h"

#include <limits.h>

static struct comm *comm;

static const size_t counts[] = {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 1000, 4097, 100003};
enum { COUNTS = sizeof(counts) / sizeof(counts[0]), COUNT_MOST = 100003 };

static float exact_sum(size_t index)
{
    float sum = 0;
    for (int rank = 0; rank < comm_size(comm); rank++)
        sum += exact_value(rank, index);
    return sum;
}

static float *fill(size_t count, float (*value)(int rank, size_t index))
{
    return filled(comm_rank(comm), count, value);
}

static void expect_sums(const float *data, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (data[i] != exact_sum(i))
            fail_msg("count %zu, element %zu: %g, not %g", count, i, (double)data[i],
                     (double)exact_sum(i));
    }
    assert_true(data[count] == SENTINEL);
}

static void test_comm__group_is_as_launched(void **state)
{
    (void)state;
    const char *expected = getenv("TEST_RANKS");
    assert_non_null(expected);
    assert_int_equal(comm_size(comm), atoi(expected));
    assert_int_equal(comm_rank(comm), comm_launched_rank());
    assert_int_equal(comm_local_size(comm), comm_size(comm));
    if (comm_launched_ranks() == 0)
        assert_string_equal(comm_library(comm), "none (one rank)");
    else
        assert_string_not_equal(comm_library(comm), "none (one rank)");
    if (strncmp(comm_library(comm), "Open MPI", 8) == 0) {
        int major, minor;
        assert_int_equal(sscanf(comm_library(comm), "Open MPI %d.%d", &major, &minor), 2);
    }
    OK(comm_barrier(comm, &err_));
}

static void test_comm__broadcast_from_every_root(void **state)
{
    (void)state;
    for (int root = 0; root < comm_size(comm); root++) {
        for (size_t c = 0; c < COUNTS; c++) {
            unsigned char *data = malloc(counts[c] + 1);
            assert_non_null(data);
            for (size_t i = 0; i <= counts[c]; i++)
                data[i] = comm_rank(comm) == root ? (unsigned char)(i * 7 + (size_t)root) : 0xEE;
            data[counts[c]] = 0x55;
            OK(comm_broadcast(comm, data, counts[c], root, &err_));
            for (size_t i = 0; i < counts[c]; i++)
                assert_int_equal(data[i], (unsigned char)(i * 7 + (size_t)root));
            assert_int_equal(data[counts[c]], 0x55);
            free(data);
        }
    }
}

static void test_comm__all_reduce_sum(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        float *data = fill(counts[c], exact_value);
        OK(comm_all_reduce_sum(comm, data, counts[c], &err_));
        expect_sums(data, counts[c]);
        free(data);
    }
}

static void test_comm__all_reduce_f64_and_max(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        size_t count = counts[c];
        double *reals = malloc((count + 1) * sizeof(*reals));
        int64_t *integers = malloc((count + 1) * sizeof(*integers));
        assert_non_null(reals);
        assert_non_null(integers);
        for (size_t i = 0; i < count; i++) {
            reals[i] = exact_value(comm_rank(comm), i) * 1e12 + 1.0;
            /* Every rank is the greatest somewhere; values beyond 2^53 and below zero. */
            bool mine = i % (size_t)comm_size(comm) == (size_t)comm_rank(comm);
            integers[i] = mine ? INT64_MAX - (int64_t)i : INT64_MIN + (int64_t)i;
        }
        OK(comm_all_reduce_sum_f64(comm, reals, count, &err_));
        OK(comm_all_reduce_max_i64(comm, integers, count, &err_));
        for (size_t i = 0; i < count; i++) {
            assert_true(reals[i] == exact_sum(i) * 1e12 + comm_size(comm));
            assert_true(integers[i] == INT64_MAX - (int64_t)i);
        }
        free(reals);
        free(integers);
    }
}

static void test_comm__sums_have_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        float *data = fill(counts[c], rough_value);
        struct comm_request *request;
        OK(comm_all_reduce_sum(comm, data, counts[c], &err_));
        expect_same_bits(comm, data, counts[c] * sizeof(*data));
        free(data);

        data = fill(counts[c], rough_value);
        OK(comm_all_reduce_start(comm, data, counts[c], &request, &err_));
        OK(comm_wait(comm, request, &err_));
        expect_same_bits(comm, data, counts[c] * sizeof(*data));
        for (size_t i = 0; i < counts[c]; i++) {
            double sum = 0, magnitude = 0;
            for (int rank = 0; rank < comm_size(comm); rank++) {
                sum += rough_value(rank, i);
                magnitude += fabs((double)rough_value(rank, i));
            }
            /* One rounding an addition: gamma_(n-1) of Higham 2002, section 4.2. */
            assert_true(fabs((double)data[i] - sum) <= 4 * 6e-8 * magnitude);
        }
        free(data);
    }
}

static void test_comm__many_requests_in_flight(void **state)
{
    (void)state;
    enum { REQUESTS = 150 }; /* more than the first reservation of slots */
    float *data[REQUESTS];
    struct comm_request *requests[REQUESTS];
    for (size_t i = 0; i < REQUESTS; i++) {
        data[i] = fill(counts[i % (COUNTS - 1)], exact_value);
        OK(comm_all_reduce_start(comm, data[i], counts[i % (COUNTS - 1)], &requests[i], &err_));
        if (i % 3 == 0)
            comm_poll(comm);
    }
    /* A blocking collective may pass those under way. */
    float one = 1;
    OK(comm_all_reduce_sum(comm, &one, 1, &err_));
    assert_true(one == (float)comm_size(comm));
    for (size_t i = 0; i < REQUESTS; i++) {
        size_t at = (i * 37) % REQUESTS; /* ended in another order than begun */
        OK(comm_wait(comm, requests[at], &err_));
        expect_sums(data[at], counts[at % (COUNTS - 1)]);
        free(data[at]);
        comm_poll(comm);
    }
}

static void test_comm__a_long_lived_request_among_short_ones(void **state)
{
    (void)state;
    float *old = fill(COUNT_MOST, exact_value);
    struct comm_request *oldest, *request;
    OK(comm_all_reduce_start(comm, old, COUNT_MOST, &oldest, &err_));
    float *previous = NULL;
    struct comm_request *previous_request = NULL;
    for (size_t i = 0; i < 500; i++) {
        float *data = fill(65, exact_value);
        OK(comm_all_reduce_start(comm, data, 65, &request, &err_));
        comm_poll(comm);
        if (previous_request) {
            OK(comm_wait(comm, previous_request, &err_));
            expect_sums(previous, 65);
            free(previous);
        }
        previous = data;
        previous_request = request;
    }
    OK(comm_wait(comm, previous_request, &err_));
    expect_sums(previous, 65);
    free(previous);
    OK(comm_wait(comm, oldest, &err_));
    expect_sums(old, COUNT_MOST);
    free(old);
}

static void test_comm__all_gather(void **state)
{
    (void)state;
    size_t ranks = (size_t)comm_size(comm);
    for (size_t c = 0; c < COUNTS; c++) {
        size_t count = counts[c];
        float *in = fill(count, rough_value);
        float *out = malloc((ranks * count + 1) * sizeof(*out));
        assert_non_null(out);
        out[ranks * count] = SENTINEL;
        OK(comm_all_gather(comm, in, out, count * sizeof(*in), &err_));
        for (size_t i = 0; i < ranks * count; i++)
            assert_true(out[i] == rough_value((int)(i / count), i % count));
        assert_true(out[ranks * count] == SENTINEL);
        free(in);
        free(out);
    }
}

static void test_comm__reduce_scatter(void **state)
{
    (void)state;
    size_t ranks = (size_t)comm_size(comm), mine = (size_t)comm_rank(comm);
    for (size_t c = 0; c < COUNTS; c++) {
        size_t count = counts[c];
        float *in = fill(ranks * count, exact_value);
        float *out = malloc((count + 1) * sizeof(*out));
        assert_non_null(out);
        out[count] = SENTINEL;
        OK(comm_reduce_scatter(comm, in, out, count, &err_));
        for (size_t i = 0; i < count; i++)
            assert_true(out[i] == exact_sum(mine * count + i));
        assert_true(out[count] == SENTINEL);
        free(in);
        free(out);
    }
}

/* Small chunks stand for counts above INT_MAX: every collective again. */
static void test_comm__counts_beyond_one_call_go_in_chunks(void **state)
{
    static const size_t chunks[] = {1, 7, 64, 999};
    size_t whole = comm->chunk_count;
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        size_t kept = chunks[i] < 64 ? 8 : COUNTS - 1;
        struct comm_request *request;
        comm->chunk_count = chunks[i];
        for (size_t c = 0; c < kept; c++) {
            float *data = fill(counts[c], exact_value);
            OK(comm_all_reduce_start(comm, data, counts[c], &request, &err_));
            comm_poll(comm);
            OK(comm_wait(comm, request, &err_));
            expect_sums(data, counts[c]);
            free(data);
        }
        test_comm__all_reduce_f64_and_max(state);
        if (chunks[i] >= 64) {
            test_comm__broadcast_from_every_root(state);
            test_comm__all_reduce_sum(state);
            test_comm__all_gather(state);
            test_comm__reduce_scatter(state);
        }
    }
    comm->chunk_count = whole;
}

static void test_comm__gather_bytes_of_unequal_ranks(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        size_t mine = counts[(c + (size_t)comm_rank(comm)) % COUNTS];
        size_t sizes[64];
        unsigned char *data = malloc(mine + 1);
        assert_non_null(data);
        for (size_t i = 0; i < mine; i++)
            data[i] = (unsigned char)(i + (size_t)comm_rank(comm) * 100);
        void *all = data; /* not NULL before */
        OK(comm_gather_bytes(comm, data, mine, &all, c % 2 ? sizes : NULL, &err_));
        if (comm_rank(comm) != 0) {
            assert_null(all);
        } else {
            const unsigned char *at = all;
            assert_non_null(all);
            for (size_t rank = 0; rank < (size_t)comm_size(comm); rank++) {
                size_t bytes = counts[(c + rank) % COUNTS];
                if (c % 2)
                    assert_int_equal(sizes[rank], bytes);
                for (size_t i = 0; i < bytes; i++)
                    assert_int_equal(*at++, (unsigned char)(i + rank * 100));
            }
        }
        free(all);
        free(data);
    }
}

static void test_comm__gather_beyond_int_is_refused_by_all(void **state)
{
    (void)state;
    if (comm_launched_ranks() == 0)
        return;
    struct error err = {0};
    void *out = NULL;
    char data = 0;
    /* Never read: the sizes alone are refused. */
    assert_int_equal(comm_gather_bytes(comm, &data, (size_t)INT_MAX + 1, &out, NULL, &err),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(err.message, "2147483647"));
    assert_int_equal(comm_gather_bytes(comm, &data, SIZE_MAX, &out, NULL, &err),
                     STATUS_UNSUPPORTED);
    if (comm_size(comm) > 1)
        assert_int_equal(comm_gather_bytes(comm, &data, (size_t)INT_MAX / 2 + 1, &out, NULL, &err),
                         STATUS_UNSUPPORTED);
    assert_null(out);
    OK(comm_barrier(comm, &err_)); /* the group still works */
}

static void test_comm__send_and_receive_around_the_ring(void **state)
{
    (void)state;
    int size = comm_size(comm), rank = comm_rank(comm);
    if (size == 1)
        return;
    int next = (rank + 1) % size, before = (rank + size - 1) % size;
    size_t whole = comm->chunk_count;
    for (size_t c = 0; c < 2 * COUNTS; c++) {
        size_t count = counts[c % COUNTS];
        comm->chunk_count = c < COUNTS ? whole : 1009; /* the second time in pieces */
        float *out = fill(count, rough_value);
        float *in = malloc((count + 1) * sizeof(*in));
        assert_non_null(in);
        if (rank == 0)
            OK(comm_send(comm, out, count * sizeof(*out), next, &err_));
        OK(comm_receive(comm, in, count * sizeof(*in), before, &err_));
        if (rank != 0)
            OK(comm_send(comm, out, count * sizeof(*out), next, &err_));
        for (size_t i = 0; i < count; i++)
            assert_true(in[i] == rough_value(before, i));
        free(out);
        free(in);
    }
    comm->chunk_count = whole;
}

static void test_comm__errors_are_returned(void **state)
{
    (void)state;
    struct error err = {0};
    char bytes[16] = {0};
    if (comm_size(comm) == 1) {
        assert_int_equal(comm_send(comm, bytes, 1, 0, &err), STATUS_INVALID);
        assert_int_equal(comm_receive(comm, bytes, 1, 0, &err), STATUS_INVALID);
        return;
    }
    assert_int_equal(comm_send(comm, bytes, 1, 99, &err), STATUS_FAILED);
    assert_non_null(strstr(err.message, "send: MPI: "));
    assert_non_null(strstr(err.message, "MPI_ERR_RANK"));
    if (comm_rank(comm) == 0) {
        OK(comm_send(comm, bytes, 8, 1, &err_));
        OK(comm_send(comm, bytes, 16, 1, &err_));
    } else if (comm_rank(comm) == 1) {
        assert_int_equal(comm_receive(comm, bytes, 16, 0, &err), STATUS_FAILED);
        assert_non_null(strstr(err.message, "8 bytes came from rank 0 where one of 16"));
        assert_int_equal(comm_receive(comm, bytes, 8, 0, &err), STATUS_FAILED);
        assert_non_null(strstr(err.message, "MPI_ERR_TRUNCATE"));
    }
    OK(comm_barrier(comm, &err_));
}

/* Requests that nobody waited for must neither hang nor leak when the group is closed; afterwards
 * MPI is over in this process. */
static void test_comm__close_ends_what_is_under_way(void **state)
{
    (void)state;
    float *data[3];
    for (size_t i = 0; i < 3; i++) {
        struct comm_request *forgotten;
        data[i] = fill(1000, exact_value);
        OK(comm_all_reduce_start(comm, data[i], 1000, &forgotten, &err_));
    }
    bool with_mpi = comm_launched_ranks() > 0;
    comm_close(comm);
    comm = NULL;
    comm_close(NULL);
    for (size_t i = 0; i < 3; i++)
        free(data[i]);
    struct error err = {0};
    struct comm *again = NULL;
    enum status status = comm_open(&again, &err);
    assert_int_equal(status, with_mpi ? STATUS_UNSUPPORTED : STATUS_OK);
    if (with_mpi)
        assert_non_null(strstr(err.message, "cannot be started again"));
    comm_close(again);
}

int main(void)
{
    struct error err;
    if (comm_open(&comm, &err) != STATUS_OK) {
        fprintf(stderr, "comm_open: %s\n", err.message);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comm__group_is_as_launched),
        cmocka_unit_test(test_comm__broadcast_from_every_root),
        cmocka_unit_test(test_comm__all_reduce_sum),
        cmocka_unit_test(test_comm__all_reduce_f64_and_max),
        cmocka_unit_test(test_comm__sums_have_the_same_bits_everywhere),
        cmocka_unit_test(test_comm__many_requests_in_flight),
        cmocka_unit_test(test_comm__a_long_lived_request_among_short_ones),
        cmocka_unit_test(test_comm__all_gather),
        cmocka_unit_test(test_comm__reduce_scatter),
        cmocka_unit_test(test_comm__counts_beyond_one_call_go_in_chunks),
        cmocka_unit_test(test_comm__gather_bytes_of_unequal_ranks),
        cmocka_unit_test(test_comm__gather_beyond_int_is_refused_by_all),
        cmocka_unit_test(test_comm__send_and_receive_around_the_ring),
        cmocka_unit_test(test_comm__errors_are_returned),
    };
    const struct CMUnitTest last[] = {
        cmocka_unit_test(test_comm__close_ends_what_is_under_way),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    if (failures != 0)
        return failures;
    return cmocka_run_group_tests(last, NULL, NULL);
}
