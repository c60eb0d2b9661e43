/* What moves an all-reduce on while its ranks compute: nothing, polls between the layers, polls
 * between the kernels, or a thread that polls. Side by side in one run, the ways taken in turn.
 *
 * usage: mpirun -np 2 bench_overlap [ROUNDS]   (default 15)
 *
 * A rank computes about 100 ms on one core, in kernels of about 1 ms that work in the second-level
 * cache; an all-reduce of 28 MiB, the gradients of a block of GPT-2, is under way meanwhile. Prints
 * the median over the rounds of what was left to wait for after computing (exposed), of computing
 * and of both, of the slower rank, and each as a ratio. Start it with as many ranks as there are
 * cores, and with fewer: the thread has a core of its own in the second case only. */
#include "base/clock.h"
#include "base/host.h"
#include "base/stats.h"
#include "executor/comm/comm.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { GRADIENTS = 28 << 18, KERNELS = 100, KERNEL_NS = 1000000, SIDE = 128, ROUNDS_MOST = 1000 };

#define CHECK(call)                                                                                \
    do {                                                                                           \
        struct error err = {0};                                                                    \
        if ((call) != STATUS_OK) {                                                                 \
            fprintf(stderr, "bench_overlap: %s\n", err.message);                                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static const struct way {
    const char *name;
    bool computes, reduces;
    int poll_every;      /* kernels; 0: not between them */
    int thread_sleep_us; /* between the polls of a thread; -1: no thread */
} ways[] = {
    {"computing alone", true, false, 0, -1},
    {"all-reduce alone", false, true, 0, -1},
    {"no progress until the wait", true, true, 0, -1},
    {"poll every 5 ms (layers)", true, true, 5, -1},
    {"poll every 1 ms (kernels)", true, true, 1, -1},
    {"thread, polls without a pause", true, true, 0, 0},
    {"thread, polls every 100 us", true, true, 0, 100},
    {"thread, polls every 1 ms", true, true, 0, 1000},
};

enum { WAYS = sizeof(ways) / sizeof(ways[0]), COMPUTE_ALONE = 0, UNTIL_WAIT = 2 };

struct timing {
    double exposed_s[ROUNDS_MOST], compute_s[ROUNDS_MOST], total_s[ROUNDS_MOST];
};

static struct comm *comm;
static float a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];
static int kernel_rows; /* of c, that take a millisecond */

/* Rows of c += a b. */
static void compute_kernel(void)
{
    for (int n = 0; n < kernel_rows; n++) {
        int i = n % SIDE;
        for (int k = 0; k < SIDE; k++)
            for (int j = 0; j < SIDE; j++)
                c[i][j] += a[i][k] * b[k][j];
    }
}

/* The same work at every rank: as much as the slowest of them does in a millisecond. */
static void calibrate(void)
{
    int64_t best_ns = INT64_MAX;
    kernel_rows = 16 * SIDE;
    for (int i = 0; i < 200; i++) {
        int64_t start_ns = clock_ns();
        compute_kernel();
        int64_t ns = clock_ns() - start_ns;
        best_ns = ns < best_ns ? ns : best_ns;
    }
    CHECK(comm_all_reduce_max_i64(comm, &best_ns, 1, &err));
    kernel_rows = (int)((int64_t)kernel_rows * KERNEL_NS / best_ns) + 1;
}

/* MPI is called from two threads here, never at once: comm_open asks MPI for as much. */
static struct {
    pthread_mutex_t lock;
    pthread_t thread;
    _Atomic bool stops;
    int sleep_us;
} progress = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *poll_on(void *argument)
{
    (void)argument;
    while (!atomic_load(&progress.stops)) {
        pthread_mutex_lock(&progress.lock);
        comm_poll(comm);
        pthread_mutex_unlock(&progress.lock);
        if (progress.sleep_us > 0)
            usleep((useconds_t)progress.sleep_us);
    }
    return NULL;
}

static void thread_begins(int sleep_us)
{
    progress.sleep_us = sleep_us;
    atomic_store(&progress.stops, false);
    if (pthread_create(&progress.thread, NULL, poll_on, NULL) != 0) {
        fprintf(stderr, "bench_overlap: cannot start a thread\n");
        exit(1);
    }
}

static void thread_ends(void)
{
    atomic_store(&progress.stops, true);
    pthread_join(progress.thread, NULL);
}

static double slowest_s(int64_t ns)
{
    CHECK(comm_all_reduce_max_i64(comm, &ns, 1, &err));
    return (double)ns * 1e-9;
}

static void run_way(const struct way *way, float *data, struct timing *timing, int round)
{
    struct comm_request *request = NULL;
    CHECK(comm_barrier(comm, &err));
    int64_t start_ns = clock_ns();
    if (way->reduces)
        CHECK(comm_all_reduce_start(comm, data, GRADIENTS, &request, &err));
    if (way->thread_sleep_us >= 0)
        thread_begins(way->thread_sleep_us);
    for (int i = 0; way->computes && i < KERNELS; i++) {
        compute_kernel();
        if (way->poll_every > 0 && (i + 1) % way->poll_every == 0)
            comm_poll(comm);
    }
    if (way->thread_sleep_us >= 0)
        thread_ends();
    int64_t computed_ns = clock_ns();
    CHECK(comm_wait(comm, request, &err));
    int64_t end_ns = clock_ns();
    timing->compute_s[round] = slowest_s(computed_ns - start_ns);
    timing->exposed_s[round] = slowest_s(end_ns - computed_ns);
    timing->total_s[round] = slowest_s(end_ns - start_ns);
}

static void report(struct timing *timings, int rounds)
{
    double alone_s = stats_median(timings[COMPUTE_ALONE].compute_s, (size_t)rounds);
    double exposed_s = stats_median(timings[UNTIL_WAIT].exposed_s, (size_t)rounds);
    double total_s = stats_median(timings[UNTIL_WAIT].total_s, (size_t)rounds);
    printf("%-30s %10s %7s %10s %7s %10s %7s\n", "median ms; ratio", "exposed", "", "computing", "",
           "both", "");
    for (size_t i = 0; i < WAYS; i++) {
        double exposed = stats_median(timings[i].exposed_s, (size_t)rounds);
        double compute = stats_median(timings[i].compute_s, (size_t)rounds);
        double total = stats_median(timings[i].total_s, (size_t)rounds);
        printf("%-30s %10.2f %7.2f %10.2f %7.2f %10.2f %7.2f\n", ways[i].name, exposed * 1e3,
               exposed / exposed_s, compute * 1e3, compute / alone_s, total * 1e3, total / total_s);
    }
    printf("ratios: exposed and both to \"%s\", computing to \"%s\"\n", ways[UNTIL_WAIT].name,
           ways[COMPUTE_ALONE].name);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 15;
    CHECK(comm_open(&comm, &err));
    if (rounds < 1 || rounds > ROUNDS_MOST || comm_size(comm) < 2) {
        fprintf(stderr, "usage: mpirun -np 2 bench_overlap [ROUNDS]   (1 to %d)\n", ROUNDS_MOST);
        comm_close(comm);
        return 2;
    }
    struct timing *timings = calloc(WAYS, sizeof *timings);
    float *data = calloc(GRADIENTS, sizeof *data);
    if (timings == NULL || data == NULL) {
        fprintf(stderr, "bench_overlap: out of memory\n");
        return 1;
    }
    calibrate();
    for (int round = -1; round < rounds; round++) /* the first is not kept */
        for (size_t i = 0; i < WAYS; i++)
            run_way(&ways[i], data, &timings[i], round < 0 ? 0 : round);
    if (comm_rank(comm) == 0) {
        struct host_info host;
        host_query(&host);
        printf("%d ranks on this host of %d cores, %s, %d rounds\n", comm_local_size(comm),
               host.cores, comm_library(comm), rounds);
        report(timings, rounds);
    }
    free(data);
    free(timings);
    comm_close(comm);
    return 0;
}
