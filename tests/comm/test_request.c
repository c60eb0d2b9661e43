/* Requests of one group against brute force, on any number of ranks: by itself and under mpirun
 * with 1 to 5 and 8 ranks. */
#include "harness.h"

#include "base/clock.h"
#include "base/partition.h"
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static struct comm *comm;

/* Elements before they are padded: one block, a piece and its neighbours, several windows. */
static const size_t counts[] = {0, 1, 17, 1000, 100003, PARTITION_PIECE, 300001, (5 << 18) + 1};
enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };

static struct partition split(size_t count)
{
    int ways = comm_size(comm);
    return (struct partition){.count = partition_padded(count, ways), .ways = ways};
}

static float sum_in_rank_order(size_t index, float (*value)(int rank, size_t index))
{
    float sum = value(0, index);
    for (int rank = 1; rank < comm_size(comm); rank++)
        sum += value(rank, index);
    return sum;
}

static float *scattered(const struct partition *partition, float (*value)(int rank, size_t index))
{
    struct comm_request *request;
    float *data = filled(comm_rank(comm), partition->count, value);
    OK(comm_reduce_scatter_start(comm, data, partition->count, &request, &err_));
    OK(comm_wait(comm, request, &err_));
    assert_true(data[partition->count] == SENTINEL);
    return data;
}

/* To the bit: the blocks are added in the order of the ranks, whatever the timing. */
static void test_request__reduce_scatter_adds_in_rank_order(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        struct partition partition = split(counts[c]);
        float *data = scattered(&partition, rough_value);
        for (size_t p = 0; p < partition_piece_count(&partition); p++) {
            struct partition_piece piece = partition_piece_at(&partition, p);
            size_t own = piece.first + (size_t)comm_rank(comm) * piece.block;
            for (size_t i = 0; i < piece.block; i++)
                assert_true(data[piece.first + i] == sum_in_rank_order(own + i, rough_value));
        }
        free(data);
    }
}

static void test_request__all_gather_fills_every_block(void **state)
{
    (void)state;
    for (size_t c = 0; c < 2 * COUNTS; c++) {
        struct partition partition = split(counts[c / 2]);
        size_t width = c % 2 ? 2 : 4, bytes = partition.count * width;
        unsigned char *data = malloc(bytes + 1);
        assert_non_null(data);
        memset(data, 0xEE, bytes);
        data[bytes] = 0x55;
        for (size_t p = 0; p < partition_piece_count(&partition); p++) {
            struct partition_piece piece = partition_piece_at(&partition, p);
            size_t own = (piece.first + (size_t)comm_rank(comm) * piece.block) * width;
            for (size_t i = own; i < own + piece.block * width; i++)
                data[i] = (unsigned char)(i * 7 + i / 251);
        }
        struct comm_request *request;
        OK(comm_all_gather_start(comm, data, partition.count, width, &request, &err_));
        OK(comm_wait(comm, request, &err_));
        for (size_t i = 0; i < bytes; i++)
            assert_int_equal(data[i], (unsigned char)(i * 7 + i / 251));
        assert_int_equal(data[bytes], 0x55);
        free(data);
    }
}

static void test_request__scatter_then_gather_is_all_reduce(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS; c++) {
        struct partition partition = split(counts[c]);
        struct comm_request *gather, *reduce;
        float *data = scattered(&partition, exact_value);
        for (size_t p = 0; p < partition_piece_count(&partition); p++) {
            struct partition_piece piece = partition_piece_at(&partition, p);
            size_t own = piece.first + (size_t)comm_rank(comm) * piece.block;
            memmove(data + own, data + piece.first, piece.block * sizeof(*data));
        }
        float *whole = filled(comm_rank(comm), partition.count, exact_value);
        OK(comm_all_gather_start(comm, data, partition.count, sizeof(*data), &gather, &err_));
        OK(comm_all_reduce_start(comm, whole, partition.count, &reduce, &err_));
        OK(comm_wait(comm, reduce, &err_));
        OK(comm_wait(comm, gather, &err_));
        assert_memory_equal(data, whole, partition.count * sizeof(*data));
        free(whole);
        free(data);
    }
}

/* At all ranks, from one time to the next, and blocking as under way. */
static void test_request__sums_have_the_same_bits_always(void **state)
{
    (void)state;
    for (size_t c = 0; c < COUNTS + 70; c++) {
        size_t count = c < COUNTS ? counts[c] : c - COUNTS;
        float *data[3];
        for (size_t i = 0; i < 3; i++) {
            struct comm_request *request;
            data[i] = filled(comm_rank(comm), count, rough_value);
            if (i == 2)
                OK(comm_all_reduce_sum(comm, data[i], count, &err_));
            else
                OK(comm_all_reduce_start(comm, data[i], count, &request, &err_));
            if (i < 2)
                OK(comm_wait(comm, request, &err_));
        }
        expect_same_bits(comm, data[0], count * sizeof(float));
        assert_memory_equal(data[0], data[1], count * sizeof(float));
        assert_memory_equal(data[0], data[2], count * sizeof(float));
        for (size_t i = 0; i < 3; i++)
            free(data[i]);
    }
}

static void test_request__maximum_is_the_same_everywhere(void **state)
{
    (void)state;
    int size = comm_size(comm), rank = comm_rank(comm);
    enum { COUNT = 1001 };
    float *data = filled(rank, COUNT, rough_value);
    data[3] = rank == size - 1 ? -0.0F : 0.0F;
    data[4] = rank == 0 ? -NAN : 1.0F;
    data[5] = rank == size - 1 ? NAN : INFINITY;
    data[6] = rank == 0 ? -1e30F : -INFINITY;
    data[7] = -1.0F - (float)rank;
    OK(comm_all_reduce_max(comm, data, COUNT, &err_));
    for (size_t i = 8; i < COUNT; i++) {
        float most = rough_value(0, i);
        for (int r = 1; r < size; r++)
            most = fmaxf(most, rough_value(r, i));
        assert_true(data[i] == most);
    }
    assert_true(data[3] == 0.0F && (size == 1 || !signbit(data[3])));
    assert_true(isnan(data[4]) && isnan(data[5]));
    assert_true(data[6] == -1e30F && data[7] == -1.0F);
    assert_true(data[COUNT] == SENTINEL);
    expect_same_bits(comm, data, COUNT * sizeof(*data));
    free(data);
}

static void test_request__kinds_mixed_end_in_any_order(void **state)
{
    (void)state;
    enum { REQUESTS = 24 };
    struct partition partition = split(100003);
    float *data[REQUESTS];
    struct comm_request *requests[REQUESTS];
    for (size_t i = 0; i < REQUESTS; i++) {
        data[i] = filled(comm_rank(comm), partition.count, exact_value);
        if (i % 3 == 0)
            OK(comm_reduce_scatter_start(comm, data[i], partition.count, &requests[i], &err_));
        else if (i % 3 == 1)
            OK(comm_all_gather_start(comm, data[i], partition.count, 4, &requests[i], &err_));
        else
            OK(comm_all_reduce_start(comm, data[i], partition.count, &requests[i], &err_));
    }
    struct partition_piece piece = partition_piece_at(&partition, 0);
    for (size_t i = 0; i < REQUESTS; i++) {
        /* Another order at each rank. */
        size_t at = (i * 5 + (size_t)comm_rank(comm) * 7) % REQUESTS;
        if (i % 2)
            while (!comm_test(comm, requests[at]))
                ;
        OK(comm_wait(comm, requests[at], &err_));
        for (size_t k = 0; k < piece.block; k++) {
            size_t own = (size_t)comm_rank(comm) * piece.block + k;
            if (at % 3 == 0)
                assert_true(data[at][k] == sum_in_rank_order(own, exact_value));
            else if (at % 3 == 1)
                assert_true(data[at][k] == exact_value(0, k));
            else
                assert_true(data[at][k] == sum_in_rank_order(k, exact_value));
        }
        free(data[at]);
    }
}

/* ---- messages ---- */

enum { TAGS = 6, MESSAGE_COUNT_MOST = 70000 };
static const size_t message_counts[TAGS] = {1, 0, 1000, MESSAGE_COUNT_MOST, 3, 4097};
static const int tags[TAGS] = {0, 5, 32767, 5, 7, 1}; /* two of one tag: they keep their order */

static float message_value(int from, int to, size_t message, size_t index)
{
    return exact_value(from * 16 + to, index) + (float)message * 300.0F;
}

struct exchange {
    float *out[8][TAGS], *in[8][TAGS];
    struct comm_request *sends[8][TAGS], *receives[8][TAGS];
};

static void start_sends(struct exchange *exchange, int to)
{
    /* The messages in the order 4, 1, 2, 3, 5, 0: of those with tag 5, 1 stays before 3. */
    static const size_t order[TAGS] = {4, 1, 2, 3, 5, 0};
    for (size_t k = 0; k < TAGS; k++) {
        size_t m = order[k];
        float *out = exchange->out[to][m] = malloc((message_counts[m] + 1) * sizeof(*out));
        assert_non_null(out);
        for (size_t i = 0; i < message_counts[m]; i++)
            out[i] = message_value(comm_rank(comm), to, m, i);
        OK(comm_send_start(comm, out, message_counts[m] * sizeof(*out), to, tags[m],
                           &exchange->sends[to][m], &err_));
    }
}

static void start_receives(struct exchange *exchange, int from)
{
    for (size_t m = 0; m < TAGS; m++) {
        float *in = exchange->in[from][m] = malloc((message_counts[m] + 1) * sizeof(*in));
        assert_non_null(in);
        in[message_counts[m]] = SENTINEL;
        OK(comm_receive_start(comm, in, message_counts[m] * sizeof(*in), from, tags[m],
                              &exchange->receives[from][m], &err_));
    }
}

static void end_exchange(struct exchange *exchange, int other)
{
    for (size_t k = TAGS; k > 0; k--) {
        size_t m = k - 1;
        const float *in = exchange->in[other][m];
        OK(comm_wait(comm, exchange->receives[other][m], &err_));
        for (size_t i = 0; i < message_counts[m]; i++)
            assert_true(in[i] == message_value(other, comm_rank(comm), m, i));
        assert_true(in[message_counts[m]] == SENTINEL);
        OK(comm_wait(comm, exchange->sends[other][m], &err_));
        free(exchange->in[other][m]);
        free(exchange->out[other][m]);
    }
}

/* All pairs; half of the ranks post their receives first, half send first; blocking messages and a
 * collective in between do not meet them. */
static void test_request__messages_meet_by_tag(void **state)
{
    (void)state;
    int size = comm_size(comm), rank = comm_rank(comm);
    size_t whole = comm->chunk_count;
    if (size == 1)
        return;
    for (int round = 0; round < 2; round++) {
        struct exchange exchange;
        float blocking = (float)rank, one = 1;
        comm->chunk_count = round ? 1009 : whole; /* the second time in chunks */
        for (int other = 0; other < size; other++) {
            if (other != rank && rank % 2)
                start_receives(&exchange, other);
            if (other != rank)
                start_sends(&exchange, other);
            if (other != rank && rank % 2 == 0)
                start_receives(&exchange, other);
        }
        if (rank == 0)
            OK(comm_send(comm, &blocking, sizeof(blocking), 1, &err_));
        if (rank == 1)
            OK(comm_receive(comm, &blocking, sizeof(blocking), 0, &err_));
        assert_true(blocking == (rank == 1 ? 0.0F : (float)rank));
        OK(comm_all_reduce_sum(comm, &one, 1, &err_));
        assert_true(one == (float)size);
        for (int other = size - 1; other >= 0; other--)
            if (other != rank)
                end_exchange(&exchange, other);
        comm->chunk_count = whole;
    }
}

static void test_request__wrong_messages_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct comm_request *request = NULL;
    char bytes[16] = {0};
    int rank = comm_rank(comm);
    OK(comm_wait(comm, NULL, &err_));
    if (comm_size(comm) == 1) {
        assert_int_equal(comm_send_start(comm, bytes, 1, 0, 1, &request, &err), STATUS_INVALID);
        assert_int_equal(comm_receive_start(comm, bytes, 1, 0, 1, &request, &err), STATUS_INVALID);
        assert_null(request);
        return;
    }
    OK(comm_send_start(comm, bytes, 1, 99, 1, &request, &err_));
    assert_int_equal(comm_wait(comm, request, &err), STATUS_FAILED);
    assert_non_null(strstr(err.message, "send: MPI: "));
    if (rank == 0) {
        OK(comm_send_start(comm, bytes, 8, 1, 3, &request, &err_));
        OK(comm_wait(comm, request, &err_));
    } else if (rank == 1) {
        OK(comm_receive_start(comm, bytes, 16, 0, 3, &request, &err_));
        assert_int_equal(comm_wait(comm, request, &err), STATUS_FAILED);
        assert_non_null(strstr(err.message, "8 bytes came from rank 0 where one of 16"));
    }
    OK(comm_barrier(comm, &err_));
}

/* ---- waiting ---- */

static _Atomic bool watching;
static _Atomic int64_t seen_since_ns;
static const char *_Atomic seen_call;

static void *watch(void *argument)
{
    (void)argument;
    while (atomic_load(&watching)) {
        const char *call;
        int64_t since_ns = comm_waiting_since_ns(&call);
        if (since_ns != 0) {
            atomic_store(&seen_call, call);
            atomic_store(&seen_since_ns, since_ns);
        }
        usleep(1000);
    }
    return NULL;
}

static void test_request__another_thread_sees_what_is_waited_for(void **state)
{
    (void)state;
    const char *call;
    char byte = 1;
    assert_int_equal(comm_waiting_since_ns(&call), 0);
    if (comm_size(comm) == 1)
        return;
    OK(comm_barrier(comm, &err_));
    if (comm_rank(comm) == 0) {
        struct comm_request *request;
        pthread_t thread;
        OK(comm_receive_start(comm, &byte, 1, 1, 9, &request, &err_));
        atomic_store(&watching, true);
        assert_int_equal(pthread_create(&thread, NULL, watch, NULL), 0);
        int64_t before_ns = clock_ns();
        OK(comm_wait(comm, request, &err_));
        int64_t after_ns = clock_ns();
        atomic_store(&watching, false);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_string_equal(atomic_load(&seen_call), "receive");
        assert_in_range(atomic_load(&seen_since_ns), before_ns, after_ns);
    } else if (comm_rank(comm) == 1) {
        struct comm_request *request;
        usleep(300000);
        OK(comm_send_start(comm, &byte, 1, 0, 9, &request, &err_));
        OK(comm_wait(comm, request, &err_));
    }
    assert_int_equal(comm_waiting_since_ns(&call), 0);
    OK(comm_barrier(comm, &err_));
}

int main(void)
{
    struct error err;
    if (comm_open(&comm, &err) != STATUS_OK) {
        fprintf(stderr, "comm_open: %s\n", err.message);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request__reduce_scatter_adds_in_rank_order),
        cmocka_unit_test(test_request__all_gather_fills_every_block),
        cmocka_unit_test(test_request__scatter_then_gather_is_all_reduce),
        cmocka_unit_test(test_request__sums_have_the_same_bits_always),
        cmocka_unit_test(test_request__maximum_is_the_same_everywhere),
        cmocka_unit_test(test_request__kinds_mixed_end_in_any_order),
        cmocka_unit_test(test_request__messages_meet_by_tag),
        cmocka_unit_test(test_request__wrong_messages_are_refused),
        cmocka_unit_test(test_request__another_thread_sees_what_is_waited_for),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    comm_close(comm);
    return failures;
}
