/* Collectives in pieces, of which only a few are MPI's at a time. Pieces start in the order of
 * their requests and places, the same at every rank, whatever the timing.
 *
 * Sums of fp32 and bf16, reduce-scatter and all-gather are exchanged between all pairs of ranks by
 * our own messages. Blocks are added in the order of their ranks, element by element: the same bits
 * at every rank, every time, in an all-reduce as in a reduce-scatter, however they were cut. MPI
 * has these calls too, but promises no order of additions; Open MPI's reduce-scatter sends whole
 * pieces to one rank, adds them up there and hands the blocks out; and its calls allocate their
 * buffers anew for each piece, which cost an all-reduce half of its time where malloc gave them
 * back to the system.
 *
 * 28 MiB in pieces of 1 MiB, 4 under way, Open MPI 4.1.4, shared memory, a host of 2 cores, median
 * ms of 31 (two runs for 2 ranks). MPI's all-reduce is Rabenseifner's; its 11 ms are those with
 * memory given back.
 *
 *                              2 ranks           4 ranks on 2 cores
 *   reduce-scatter  blocking   8.4   9.7         10.9
 *                   MPI's      7.7   9.2         18.8
 *                   pairs      3.8   4.4         12.1
 *   all-gather      blocking   3.3   3.7          9.1
 *                   MPI's      3.2   3.6          7.3
 *                   pairs      3.0   3.4          7.2
 *   all-reduce      MPI's      6.1   9.6 (11)    39.9
 *                   pairs      6.2   7.3         33.9 */
#include "executor/comm/impls/mpi_comm.h"

#include "base/bf16.h"
#include "base/clones.h"
#include "base/partition.h"
#include <string.h>

/* 1 MiB of fp32: large enough for bandwidth, small enough to stay in cache between its sum and its
 * copies. */
enum { PIECE_COUNT = PARTITION_PIECE };

/* Tags of blocks, above that of blocking messages. The two rounds of an all-reduce's pieces
 * overtake each other, so that each has its own; by the time a tag comes again, its last messages
 * have long ended, since no rank is more than two windows ahead of another. */
enum { BLOCK_TAG_FIRST = 2, BLOCK_TAG_ROUNDS = 1024 };

static int block_tag(const struct mpi_piece *piece)
{
    size_t round = 2 * (piece->number % BLOCK_TAG_ROUNDS) + (piece->is_summed ? 1 : 0);
    return BLOCK_TAG_FIRST + (int)round;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Elements of a piece, of all ranks' blocks together. */
static size_t piece_count(const struct mpi_comm *mpi)
{
    return least(mpi->base.chunk_count, PIECE_COUNT);
}

/* ---- all-reduce of a few numbers of other types: MPI's ---- */

static size_t all_reduce_pieces(const struct mpi_comm *mpi, const struct mpi_request *request)
{
    return (request->count + piece_count(mpi) - 1) / piece_count(mpi);
}

static void all_reduce_piece(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    struct mpi_request *request = piece->request;
    const struct mpi_message message = {.request = request, .piece = piece, .due_bytes = -1};
    size_t begin = piece->index * piece_count(mpi);
    size_t length = least(request->count - begin, piece_count(mpi));
    MPI_Request handle;
    int code =
        MPI_Iallreduce(MPI_IN_PLACE, request->data + begin * request->element_bytes, (int)length,
                       request->type, request->op, request->lane->ranks, &handle);
    mpi_posted(mpi, &message, code, handle);
}

const struct mpi_work mpi_work_all_reduce = {
    .call = "all-reduce",
    .start = all_reduce_piece,
    .pieces = all_reduce_pieces,
};

/* ---- in blocks: between all pairs ---- */

/* Of one piece rank k's block is elements [first + k * stride, + length), cut off at first + end.
 */
struct blocks {
    size_t first, stride, length, end;
};

static size_t block_length(const struct blocks *blocks, int rank)
{
    size_t begin = (size_t)rank * blocks->stride;
    return begin < blocks->end ? least(blocks->length, blocks->end - begin) : 0;
}

static struct partition partition_of(const struct mpi_comm *mpi, const struct mpi_request *request)
{
    return (struct partition){.count = request->count, .ways = mpi->base.size};
}

/* Elements of one rank in a piece of a collective that is no partition. */
static size_t block_count(const struct mpi_comm *mpi)
{
    size_t count = piece_count(mpi) / (size_t)mpi->base.size;
    return count > 0 ? count : 1;
}

/* A piece of an all-reduce; of a short one some ranks have nothing. */
static struct blocks blocks_to_sum(const struct mpi_comm *mpi, const struct mpi_piece *piece)
{
    size_t begin = piece->index * piece_count(mpi);
    size_t count = least(piece->request->count - begin, piece_count(mpi));
    size_t block = partition_padded(count, mpi->base.size) / (size_t)mpi->base.size;
    return (struct blocks){.first = begin, .stride = block, .length = block, .end = count};
}

static struct blocks blocks_of(const struct mpi_comm *mpi, const struct mpi_piece *piece)
{
    const struct mpi_request *request = piece->request;
    if (request->work == &mpi_work_sum)
        return blocks_to_sum(mpi, piece);
    struct blocks blocks = {.end = SIZE_MAX};
    if (request->is_partition) {
        struct partition partition = partition_of(mpi, request);
        struct partition_piece at = partition_piece_at(&partition, piece->index);
        blocks.first = at.first;
        blocks.stride = blocks.length = at.block;
    } else {
        blocks.first = piece->index * block_count(mpi);
        blocks.stride = request->count;
        blocks.length = least(request->count - blocks.first, block_count(mpi));
    }
    return blocks;
}

static size_t block_pieces(const struct mpi_comm *mpi, const struct mpi_request *request)
{
    struct partition partition = partition_of(mpi, request);
    if (request->is_partition)
        return partition_piece_count(&partition);
    return (request->count + block_count(mpi) - 1) / block_count(mpi);
}

static char *block_at(const struct mpi_request *request, const struct blocks *blocks, int rank)
{
    size_t element = blocks->first + (size_t)rank * blocks->stride;
    return request->data + element * request->element_bytes;
}

/* Where a sum keeps another rank's block: those of lower and of higher ranks in order,
 * without a place for our own. */
static void *scratch_of(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                        const struct blocks *blocks, int rank)
{
    size_t place = (size_t)(rank < mpi->base.rank ? rank : rank - 1);
    return (char *)piece->scratch + place * blocks->length * piece->request->element_bytes;
}

/* Where the messages of an exchange stand. */
struct exchange {
    bool scatters; /* our block comes from everybody and theirs go; else ours goes to everybody */
    void *(*in)(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                const struct blocks *blocks, int from);
    void *(*out)(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                 const struct blocks *blocks, int to);
};

static void exchange_piece(struct mpi_comm *mpi, struct mpi_piece *piece,
                           const struct exchange *exchange)
{
    struct mpi_request *request = piece->request;
    const struct mpi_message message = {.request = request, .piece = piece, .due_bytes = -1};
    const struct blocks blocks = blocks_of(mpi, piece);
    MPI_Comm ranks = request->lane->ranks;
    int size = mpi->base.size, mine = mpi->base.rank;
    for (int step = 1; step < size; step++) {
        int to = (mine + step) % size, from = (mine + size - step) % size;
        int in_count = (int)block_length(&blocks, exchange->scatters ? mine : from);
        int out_count = (int)block_length(&blocks, exchange->scatters ? to : mine);
        MPI_Request handle;
        if (in_count > 0) {
            int code = MPI_Irecv(exchange->in(mpi, piece, &blocks, from), in_count, request->type,
                                 from, block_tag(piece), ranks, &handle);
            mpi_posted(mpi, &message, code, handle);
        }
        if (out_count > 0) {
            int code = MPI_Isend(exchange->out(mpi, piece, &blocks, to), out_count, request->type,
                                 to, block_tag(piece), ranks, &handle);
            mpi_posted(mpi, &message, code, handle);
        }
    }
}

static void *into_scratch(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                          const struct blocks *blocks, int from)
{
    return scratch_of(mpi, piece, blocks, from);
}

static void *at_place(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                      const struct blocks *blocks, int rank)
{
    (void)mpi;
    return block_at(piece->request, blocks, rank);
}

static void *own_place(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                       const struct blocks *blocks, int to)
{
    (void)to;
    return block_at(piece->request, blocks, mpi->base.rank);
}

static void reduce_scatter_piece(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    static const struct exchange theirs = {.scatters = true, .in = into_scratch, .out = at_place};
    exchange_piece(mpi, piece, &theirs);
}

static void all_gather_piece(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    static const struct exchange ours = {.in = at_place, .out = own_place};
    exchange_piece(mpi, piece, &ours);
}

static void add(float *restrict sum, const float *restrict block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += block[i];
}

static void add_two(float *restrict sum, const float *restrict a, const float *restrict b,
                    size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] = a[i] + b[i];
}

/* Additions of two are the same either way round. */
static void add_fp32_blocks(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                            const struct blocks *blocks, float *sum)
{
    int mine = mpi->base.rank, last = mpi->base.size - 1;
    size_t count = block_length(blocks, mine);
    float *own = (float *)(void *)block_at(piece->request, blocks, mine);
    if (last == 0 && sum != own)
        memcpy(sum, own, count * sizeof(*sum));
    if (last == 0)
        return;
    float *so_far = mine == 0 ? own : scratch_of(mpi, piece, blocks, 0);
    if (mine == 0 && sum != own) {
        add_two(sum, own, scratch_of(mpi, piece, blocks, 1), count);
        for (int rank = 2; rank <= last; rank++)
            add(sum, scratch_of(mpi, piece, blocks, rank), count);
        return;
    }
    for (int rank = 1; rank < last; rank++)
        add(so_far, rank == mine ? own : scratch_of(mpi, piece, blocks, rank), count);
    const float *rest = mine == last ? own : scratch_of(mpi, piece, blocks, last);
    if (sum == so_far)
        add(sum, rest, count);
    else if (sum == rest)
        add(sum, so_far, count);
    else
        add_two(sum, so_far, rest, count);
}

enum { SPAN = 512 }; /* of the fp32 of a sum of bf16: in the first-level cache */

CLONES static void add_bf16_span(float *restrict sum, const uint16_t *restrict block, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += float_from_bf16(block[i]);
}

CLONES static void round_span(const float *restrict sum, uint16_t *restrict out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = bf16_from_float(sum[i]);
}

static void add_bf16_blocks(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                            const struct blocks *blocks, uint16_t *sum)
{
    int mine = mpi->base.rank;
    size_t count = block_length(blocks, mine);
    for (size_t begin = 0; begin < count; begin += SPAN) {
        size_t length = least(count - begin, SPAN);
        float all[SPAN] = {0};
        for (int rank = 0; rank < mpi->base.size; rank++) {
            const uint16_t *block = rank == mine ? (void *)block_at(piece->request, blocks, rank)
                                                 : scratch_of(mpi, piece, blocks, rank);
            add_bf16_span(all, block + begin, length);
        }
        round_span(all, sum + begin, length);
    }
}

/* Our block of the piece: those of all ranks added into `sum`, which is our own block itself or
 * overlaps none. */
static void add_blocks(const struct mpi_comm *mpi, const struct mpi_piece *piece,
                       const struct blocks *blocks, char *sum)
{
    if (piece->request->element_bytes == sizeof(uint16_t))
        add_bf16_blocks(mpi, piece, blocks, (uint16_t *)(void *)sum);
    else
        add_fp32_blocks(mpi, piece, blocks, (float *)(void *)sum);
}

static void scatter_sums(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    const struct blocks blocks = blocks_of(mpi, piece);
    /* In place, that is where rank 0's block stood, which has been sent by now. */
    add_blocks(mpi, piece, &blocks,
               piece->request->out + blocks.first * piece->request->element_bytes);
}

/* First our block's sum, then everybody's. */
static void gather_sums(struct mpi_comm *mpi, struct mpi_piece *piece)
{
    const struct blocks blocks = blocks_of(mpi, piece);
    if (piece->is_summed)
        return;
    piece->is_summed = true;
    add_blocks(mpi, piece, &blocks, block_at(piece->request, &blocks, mpi->base.rank));
    all_gather_piece(mpi, piece);
}

const struct mpi_work mpi_work_sum = {
    .call = "all-reduce",
    .adds = true,
    .start = reduce_scatter_piece,
    .advance = gather_sums,
    .pieces = all_reduce_pieces,
};

const struct mpi_work mpi_work_reduce_scatter = {
    .call = "reduce-scatter",
    .adds = true,
    .start = reduce_scatter_piece,
    .advance = scatter_sums,
    .pieces = block_pieces,
};

const struct mpi_work mpi_work_all_gather = {
    .call = "all-gather",
    .start = all_gather_piece,
    .pieces = block_pieces,
};
