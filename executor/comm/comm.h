/* Groups of ranks and their collectives; the only part of temper that knows MPI.
 *
 * Two implementations: impls/self.c (one rank, no MPI at all) and impls/mpi.c. To add one (NCCL,
 * say): fill a `struct comm_ops` and list it in comm.c's table. All calls are collective over the
 * group unless they say otherwise. Sums are added in fp32 and the same bits arrive at every rank. A
 * rank that fails for good calls comm_abort, which ends all ranks. */
#ifndef TEMPER_COMM_COMM_H
#define TEMPER_COMM_COMM_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct comm;         /* a group */
struct comm_request; /* a collective under way */

/* How many ranks a launcher (mpirun, srun) started this process among, from its environment; 0 when
 * none did. Does not initialise MPI. */
int comm_launched_ranks(void);
/* This process's rank as the launcher says; 0 when none did. Does not initialise MPI. */
int comm_launched_rank(void);

/* Join the group of all ranks. Under a launcher: MPI (initialised here, thread level FUNNELED;
 * where it grants SERIALIZED, any thread may call, one at a time). Without one: the self
 * implementation with one rank. */
enum status comm_open(struct comm **out, struct error *err);
/* A group of this rank alone, whatever started the process; not collective. */
enum status comm_open_alone(struct comm **out, struct error *err);
/* NULL allowed; lets requests under way end, then finalises MPI: no group can be opened after it.
 */
void comm_close(struct comm *comm);
/* End every rank of the job with this exit code; does not return under MPI. */
void comm_abort(struct comm *comm, int exit_code);

/* A group of some ranks of `parent`: those that give the same `color` (0 or more), in their order
 * there. Collective over `parent`, which must outlive it; release with comm_close. A group of one
 * rank talks to nobody. To be called before requests are under way: alone of all calls it pushes
 * none. */
enum status comm_split(struct comm *parent, int color, struct comm **out, struct error *err);

int comm_rank(const struct comm *comm);
int comm_size(const struct comm *comm);
int comm_local_size(const struct comm *comm);      /* ranks on this host */
const char *comm_library(const struct comm *comm); /* "Open MPI 4.1.4", "none (one rank)" */

enum status comm_barrier(struct comm *comm, struct error *err);
enum status comm_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                           struct error *err);
/* In place, [count] fp32. */
enum status comm_all_reduce_sum(struct comm *comm, float *data, size_t count, struct error *err);
enum status comm_all_reduce_sum_f64(struct comm *comm, double *data, size_t count,
                                    struct error *err);
enum status comm_all_reduce_max_i64(struct comm *comm, int64_t *data, size_t count,
                                    struct error *err);
/* Likewise the maximum. */
enum status comm_all_reduce_max(struct comm *comm, float *data, size_t count, struct error *err);

/* ---- requests: start now, wait later ----
 *
 * A request progresses in comm_poll and in every waiting call, and ends in comm_wait. Its data is
 * not touched in between. Any number may be under way; every rank of a group starts the same
 * collectives in the same order. Requests of different groups do not hold each other up. */

/* In-place sum. */
enum status comm_all_reduce_start(struct comm *comm, float *data, size_t count,
                                  struct comm_request **out, struct error *err);
/* Over the pieces of base/partition.h with this group's size (`count` as there). After the wait the
 * sum of the block of piece i that this rank owns stands at data + first_i; the rest of the piece
 * is undefined. */
enum status comm_reduce_scatter_start(struct comm *comm, float *data, size_t count,
                                      struct comm_request **out, struct error *err);
/* The same two sums of bf16: the additions are of fp32 in the order of the ranks, and their result
 * is rounded once (to nearest, ties to even). */
enum status comm_all_reduce_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                       struct comm_request **out, struct error *err);
enum status comm_reduce_scatter_bf16_start(struct comm *comm, uint16_t *data, size_t count,
                                           struct comm_request **out, struct error *err);
/* The reverse of a reduce-scatter, of elements of 2 or 4 bytes: each rank has written its own block
 * of each piece in its place (first_i + rank * block_i), and after the wait all blocks are there.
 */
enum status comm_all_gather_start(struct comm *comm, void *data, size_t count, size_t element_bytes,
                                  struct comm_request **out, struct error *err);
/* To and from one rank. A message is met by the receive of the same tag (0 .. 32767) and bytes;
 * messages of one tag between two ranks arrive in order. */
enum status comm_send_start(struct comm *comm, const void *data, size_t bytes, int to, int tag,
                            struct comm_request **out, struct error *err);
enum status comm_receive_start(struct comm *comm, void *data, size_t bytes, int from, int tag,
                               struct comm_request **out, struct error *err);
/* Push all requests of this group, of the groups split from it and of the one that it was split
 * from a little further; cheap, not collective. */
void comm_poll(struct comm *comm);
/* Has it ended? Pushes it on; comm_wait is still due. */
bool comm_test(struct comm *comm, struct comm_request *request);
/* Wait for the request and free it. NULL: nothing to wait for. */
enum status comm_wait(struct comm *comm, struct comm_request *request, struct error *err);
/* Since when (base/clock.h, ns) this process has been waiting inside a call of any group, and for
 * what ("all-reduce"); 0: it is not waiting. May be asked from another thread. */
int64_t comm_waiting_since_ns(const char **call);

/* ---- blocking collectives ---- */

/* out [size * bytes] gathers `bytes` of every rank. */
enum status comm_all_gather(struct comm *comm, const void *in, void *out, size_t bytes,
                            struct error *err);
/* out [count] is this rank's piece of the sum of all `in` [size * count]. */
enum status comm_reduce_scatter(struct comm *comm, const float *in, float *out, size_t count,
                                struct error *err);
/* Gather `bytes` (may differ by rank) of every rank to rank 0, one behind the other. On rank 0,
 * *out (malloc, caller frees) holds all and bytes_by_rank[size] (caller's, may be NULL) the sizes;
 * on other ranks *out is NULL. More than INT_MAX bytes in all: STATUS_UNSUPPORTED on every rank. */
enum status comm_gather_bytes(struct comm *comm, const void *data, size_t bytes, void **out,
                              size_t *bytes_by_rank, struct error *err);
/* Between two ranks; not collective. Both sides name the same `bytes`: a shorter or longer message
 * is STATUS_FAILED at the receiver. A group of one rank has nobody to talk to: STATUS_INVALID. */
enum status comm_send(struct comm *comm, const void *data, size_t bytes, int to, struct error *err);
enum status comm_receive(struct comm *comm, void *data, size_t bytes, int from, struct error *err);

#endif
