/* Groups split from groups: by itself and under mpirun with 1 to 5 and 8 ranks. The ranks form a
 * grid; its rows and columns overlap in one rank each. */
#include "harness.h"

#include "base/clock.h"
#include "base/partition.h"
#include <unistd.h>

static struct comm *comm, *row, *column;
static int width; /* ranks in a row */

static int rank_in(const struct comm *group, int index)
{
    int mine = comm_rank(comm);
    if (group == row)
        return mine / width * width + index;
    return group == column ? index * width + mine % width : index;
}

static float sum_over(const struct comm *group, size_t index)
{
    float sum = 0;
    for (int i = 0; i < comm_size(group); i++)
        sum += exact_value(rank_in(group, i), index);
    return sum;
}

static int make_grid(void **state)
{
    (void)state;
    int size = comm_size(comm), rank = comm_rank(comm);
    width = size;
    for (int divisor = 2; divisor <= 4; divisor++)
        if (size % divisor == 0 && size > divisor)
            width = divisor;
    OK(comm_split(comm, rank / width, &row, &err_));
    OK(comm_split(comm, 1000 + rank % width, &column, &err_));
    return 0;
}

static int close_grid(void **state)
{
    (void)state;
    comm_close(column);
    comm_close(row);
    return 0;
}

static void test_split__groups_keep_the_order_of_their_parent(void **state)
{
    (void)state;
    int rank = comm_rank(comm), size = comm_size(comm);
    assert_int_equal(comm_size(row), width);
    assert_int_equal(comm_rank(row), rank % width);
    assert_int_equal(comm_size(column), size / width);
    assert_int_equal(comm_rank(column), rank / width);
    assert_int_equal(comm_local_size(row), width);
    const struct comm *groups[] = {row, column};
    for (size_t g = 0; g < 2; g++)
        if (comm_size(groups[g]) == 1)
            assert_string_equal(comm_library(groups[g]), "none (one rank)");
        else
            assert_string_equal(comm_library(groups[g]), comm_library(comm));
}

static void test_split__blocking_calls_stay_in_their_group(void **state)
{
    (void)state;
    struct comm *groups[] = {row, column};
    for (size_t g = 0; g < 2; g++) {
        struct comm *group = groups[g];
        int mine = comm_rank(comm), size = comm_size(group), all[8];
        float *data = filled(mine, 1000, exact_value);
        OK(comm_all_reduce_sum(group, data, 1000, &err_));
        for (size_t i = 0; i < 1000; i++)
            assert_true(data[i] == sum_over(group, i));
        OK(comm_all_gather(group, &mine, all, sizeof(mine), &err_));
        for (int i = 0; i < size; i++)
            assert_int_equal(all[i], rank_in(group, i));
        int from_last = comm_rank(group) == size - 1 ? mine : -1;
        OK(comm_broadcast(group, &from_last, sizeof(from_last), size - 1, &err_));
        assert_int_equal(from_last, rank_in(group, size - 1));
        OK(comm_barrier(group, &err_));
        free(data);
    }
}

enum { BIG = 9 << 18, ROUNDS = 3 }; /* more pieces than a window holds */

/* The ranks of one group agree on its order, but which group comes first differs. */
static void test_split__requests_of_groups_do_not_hold_each_other_up(void **state)
{
    (void)state;
    struct comm *groups[] = {row, column, comm};
    float *data[3][ROUNDS];
    struct comm_request *requests[3][ROUNDS];
    for (int k = 0; k < 3 * ROUNDS; k++) {
        size_t g = (size_t)(k + comm_rank(comm)) % 3, round = (size_t)k / 3;
        data[g][round] = filled(comm_rank(comm), BIG, exact_value);
        OK(comm_all_reduce_start(groups[g], data[g][round], BIG, &requests[g][round], &err_));
    }
    for (int k = 0; k < 3 * ROUNDS; k++) {
        size_t g = (size_t)(k + 2 * comm_rank(comm)) % 3, round = ROUNDS - 1 - (size_t)k / 3;
        OK(comm_wait(groups[g], requests[g][round], &err_));
        for (size_t i = 0; i < BIG; i += 997)
            assert_true(data[g][round][i] == sum_over(groups[g], i));
        assert_true(data[g][round][BIG] == SENTINEL);
        free(data[g][round]);
    }
}

/* Rank 0 blocks where the others come only after they have waited for a request that needs it. */
static void test_split__blocking_calls_push_requests(void **state)
{
    (void)state;
    struct partition partition = {.count = partition_padded(BIG, comm_size(comm)),
                                  .ways = comm_size(comm)};
    struct comm *groups[] = {comm, row, column};
    for (size_t g = 0; g < 3; g++) {
        struct comm *group = groups[g];
        for (int call = 0; call < 3; call++) {
            struct comm_request *request;
            bool waits_first = comm_rank(group) != 0;
            float *data = filled(comm_rank(comm), partition.count, exact_value);
            float one = 1;
            OK(comm_reduce_scatter_start(comm, data, partition.count, &request, &err_));
            if (waits_first)
                OK(comm_wait(comm, request, &err_));
            if (call == 0)
                OK(comm_barrier(group, &err_));
            else if (call == 1)
                OK(comm_all_reduce_sum(group, &one, 1, &err_));
            else
                OK(comm_broadcast(group, &one, sizeof(one), comm_size(group) - 1, &err_));
            if (!waits_first)
                OK(comm_wait(comm, request, &err_));
            struct partition_piece piece = partition_piece_at(&partition, 1);
            size_t own = piece.first + (size_t)comm_rank(comm) * piece.block;
            for (size_t i = 0; i < piece.block; i++)
                assert_true(data[piece.first + i] == sum_over(comm, own + i));
            free(data);
        }
    }
}

/* Nothing but polls of `polled` until the last element of a request of `started` is there. */
static void expect_pushed(struct comm *started, struct comm *polled)
{
    struct comm_request *request;
    float *data = filled(comm_rank(comm), BIG, exact_value);
    const volatile float *last = &data[BIG - 1];
    float due = sum_over(started, BIG - 1);
    OK(comm_all_reduce_start(started, data, BIG, &request, &err_));
    for (double start_s = clock_s(); *last != due && clock_s() - start_s < 20; usleep(10))
        comm_poll(polled);
    assert_true(*last == due);
    OK(comm_wait(started, request, &err_));
    for (size_t i = 0; i < BIG; i += 499)
        assert_true(data[i] == sum_over(started, i));
    free(data);
}

static void test_split__a_poll_pushes_parents_and_children(void **state)
{
    (void)state;
    expect_pushed(comm, comm);
    expect_pushed(comm, row);
    expect_pushed(comm, column); /* of one rank for a prime number of ranks */
    expect_pushed(row, comm);
    expect_pushed(column, comm);
    if (comm_size(comm) > 1) {
        struct comm *alone;
        OK(comm_split(comm, comm_rank(comm), &alone, &err_));
        assert_int_equal(comm_size(alone), 1);
        expect_pushed(comm, alone);
        comm_close(alone);
    }
}

static void test_split__messages_name_ranks_of_their_group(void **state)
{
    (void)state;
    struct comm *groups[] = {row, column};
    for (size_t g = 0; g < 2; g++) {
        struct comm *group = groups[g];
        int size = comm_size(group), mine = comm_rank(comm), received = -1;
        if (size == 1)
            continue;
        int next = (comm_rank(group) + 1) % size, before = (comm_rank(group) + size - 1) % size;
        struct comm_request *send, *receive;
        OK(comm_receive_start(group, &received, sizeof(received), before, 4, &receive, &err_));
        OK(comm_send_start(group, &mine, sizeof(mine), next, 4, &send, &err_));
        OK(comm_wait(group, send, &err_));
        OK(comm_wait(group, receive, &err_));
        assert_int_equal(received, rank_in(group, before));
    }
}

/* A group of a group; closed with requests that nobody waited for. */
static void test_split__groups_split_again_and_close_in_use(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct comm *half;
        struct comm_request *forgotten;
        OK(comm_split(row, comm_rank(row) < (width + 1) / 2 ? 3 : 1, &half, &err_));
        assert_int_equal(comm_size(half),
                         comm_rank(row) < (width + 1) / 2 ? (width + 1) / 2 : width / 2);
        float *data = filled(comm_rank(comm), 5000, exact_value);
        OK(comm_all_reduce_start(half, data, 5000, &forgotten, &err_));
        comm_poll(column);
        comm_close(half);
        free(data);
    }
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
        cmocka_unit_test(test_split__groups_keep_the_order_of_their_parent),
        cmocka_unit_test(test_split__blocking_calls_stay_in_their_group),
        cmocka_unit_test(test_split__requests_of_groups_do_not_hold_each_other_up),
        cmocka_unit_test(test_split__blocking_calls_push_requests),
        cmocka_unit_test(test_split__a_poll_pushes_parents_and_children),
        cmocka_unit_test(test_split__messages_name_ranks_of_their_group),
        cmocka_unit_test(test_split__groups_split_again_and_close_in_use),
    };
    int failures = cmocka_run_group_tests(tests, make_grid, close_grid);
    comm_close(comm);
    return failures;
}
