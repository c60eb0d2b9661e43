/* The collectives of gradients and parameters between the ranks of one host, against what the ranks
 * need for the copies and additions alone: by size, interleaved, so that a busy machine is as busy
 * for each. Open MPI's parameters come from the environment (OMPI_MCA_...).
 *
 * usage: mpirun -np 2 bench_collectives [ROUNDS [SIZES]]   (default 15, and all 6 from 64 KiB)
 *
 * Prints, by bytes of fp32, the shortest time over the rounds of the slowest rank. "copies" is what
 * the ranks at once take to copy and add up, in their own memory, what a rank receives: an
 * all-gather copies (n-1)/n of the bytes, a reduce-scatter also adds them, an all-reduce does
 * both. */
#include "base/clock.h"
#include "base/host.h"
#include "base/partition.h"
#include "executor/comm/comm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MOST = 1000, SMALLEST = 1 << 14, SIZES = 6, STEP = 4, REPEAT_COUNT = 1 << 18 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        if ((call) != STATUS_OK) {                                                                 \
            fprintf(stderr, "bench_collectives: %s\n", err.message);                               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static struct comm *comm;

/* [count] fp32 each, of which bf16 take half; `count` can be split over the ranks. */
struct arrays {
    float *data, *other;
    size_t count;
};

static void wait_for(struct comm_request *request)
{
    CHECK(comm_wait(comm, request, &err));
}

static void copy(const struct arrays *arrays)
{
    size_t received = arrays->count - arrays->count / (size_t)comm_size(comm);
    memcpy(arrays->other, arrays->data, received * sizeof(float));
}

static void add(const struct arrays *arrays)
{
    size_t received = arrays->count - arrays->count / (size_t)comm_size(comm);
    for (size_t i = 0; i < received; i++)
        arrays->other[i] += arrays->data[i];
}

static void all_gather(const struct arrays *arrays)
{
    struct comm_request *request;
    CHECK(comm_all_gather_start(comm, arrays->data, arrays->count, sizeof(float), &request, &err));
    wait_for(request);
}

static void reduce_scatter(const struct arrays *arrays)
{
    struct comm_request *request;
    CHECK(comm_reduce_scatter_start(comm, arrays->data, arrays->count, &request, &err));
    wait_for(request);
}

static void reduce_scatter_bf16(const struct arrays *arrays)
{
    struct comm_request *request;
    uint16_t *data = (uint16_t *)(void *)arrays->data;
    CHECK(comm_reduce_scatter_bf16_start(comm, data, arrays->count, &request, &err));
    wait_for(request);
}

static void all_reduce(const struct arrays *arrays)
{
    struct comm_request *request;
    CHECK(comm_all_reduce_start(comm, arrays->data, arrays->count, &request, &err));
    wait_for(request);
}

static void all_reduce_bf16(const struct arrays *arrays)
{
    struct comm_request *request;
    uint16_t *data = (uint16_t *)(void *)arrays->data;
    CHECK(comm_all_reduce_bf16_start(comm, data, arrays->count, &request, &err));
    wait_for(request);
}

enum {
    WAY_COPY,
    WAY_ADD,
    WAY_GATHER,
    WAY_SCATTER,
    WAY_SCATTER_16,
    WAY_REDUCE,
    WAY_REDUCE_16,
    WAYS
};

static void (*const ways[WAYS])(const struct arrays *) = {
    copy, add, all_gather, reduce_scatter, reduce_scatter_bf16, all_reduce, all_reduce_bf16,
};

/* Of the slowest rank. Short ones are repeated. */
static double time_s(int way, const struct arrays *arrays)
{
    size_t repeats = REPEAT_COUNT / arrays->count;
    if (repeats == 0)
        repeats = 1;
    CHECK(comm_barrier(comm, &err));
    int64_t start_ns = clock_ns();
    for (size_t i = 0; i < repeats; i++)
        ways[way](arrays);
    int64_t ns = clock_ns() - start_ns;
    CHECK(comm_all_reduce_max_i64(comm, &ns, 1, &err));
    return (double)ns * 1e-9 / (double)repeats;
}

static void report(double best_s[SIZES][WAYS], size_t sizes)
{
    printf("%10s %17s %26s %26s\n", "", "all-gather", "reduce-scatter", "all-reduce");
    printf("%10s %8s %8s %8s %8s %8s %8s %8s %8s\n", "ms", "copies", "fp32", "copies", "fp32",
           "bf16", "copies", "fp32", "bf16");
    size_t kib = SMALLEST * sizeof(float) / 1024;
    for (size_t s = 0; s < sizes; s++, kib *= STEP) {
        const double *of = best_s[s];
        double sum_s = of[WAY_COPY] + of[WAY_ADD];
        printf("%6zu KiB %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f\n", kib,
               of[WAY_COPY] * 1e3, of[WAY_GATHER] * 1e3, sum_s * 1e3, of[WAY_SCATTER] * 1e3,
               of[WAY_SCATTER_16] * 1e3, (sum_s + of[WAY_COPY]) * 1e3, of[WAY_REDUCE] * 1e3,
               of[WAY_REDUCE_16] * 1e3);
    }
}

static void run(struct arrays arrays, int rounds, size_t sizes)
{
    static double best_s[SIZES][WAYS];
    for (int round = -1; round < rounds; round++) { /* the first is not kept */
        size_t count = SMALLEST;
        for (size_t s = 0; s < sizes; s++, count *= STEP)
            for (int way = 0; way < WAYS; way++) {
                arrays.count = partition_padded(count, comm_size(comm));
                double s_now = time_s(way, &arrays);
                if (round <= 0 || s_now < best_s[s][way])
                    best_s[s][way] = s_now;
            }
    }
    if (comm_rank(comm) == 0)
        report(best_s, sizes);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15, sizes = argc > 2 ? atoi(argv[2]) : SIZES;
    CHECK(comm_open(&comm, &err));
    if (rounds < 1 || rounds > ROUNDS_MOST || sizes < 1 || sizes > SIZES || comm_size(comm) < 2) {
        fprintf(stderr, "usage: mpirun -np 2 bench_collectives [ROUNDS [SIZES]]   (1 to %d, %d)\n",
                ROUNDS_MOST, SIZES);
        comm_close(comm);
        return 2;
    }
    size_t most = SMALLEST;
    for (int s = 1; s < SIZES; s++)
        most *= STEP;
    most = partition_padded(most, comm_size(comm));
    struct arrays arrays = {.data = calloc(most, sizeof(float)),
                            .other = calloc(most, sizeof(float))};
    if (arrays.data == NULL || arrays.other == NULL) {
        fprintf(stderr, "bench_collectives: out of memory\n");
        return 1;
    }
    memset(arrays.data, 0, most * sizeof(float)); /* memory of its own, and no sum that grows */
    memset(arrays.other, 0, most * sizeof(float));
    if (comm_rank(comm) == 0) {
        struct host_info host;
        host_query(&host);
        printf("%d ranks on this host of %d cores, %s, shortest of %d rounds\n",
               comm_local_size(comm), host.cores, comm_library(comm), rounds);
    }
    run(arrays, rounds, (size_t)sizes);
    free(arrays.data);
    free(arrays.other);
    comm_close(comm);
    return 0;
}
