/* How ZeRO splits a flat array over ranks: in pieces, of each of which every rank owns one block.
 *
 * Piece i begins at element `first` and holds `ways` blocks of `block` elements; rank k owns
 * [first + k * block, first + (k + 1) * block). A rank's blocks one behind the other are its shard,
 * in which the block of this piece begins at first / ways. Pieces are contiguous, so that each is
 * one collective of a size that hides well, and every rank owns as much as any other. */
#ifndef TEMPER_BASE_PARTITION_H
#define TEMPER_BASE_PARTITION_H

#include <stddef.h>
#include <stdint.h>

/* A piece has at most this many elements, rounded down to whole blocks; a block is a multiple of
 * PARTITION_ALIGN elements. */
enum { PARTITION_PIECE = 1 << 18, PARTITION_ALIGN = 16 };

struct partition {
    uint64_t count; /* elements of the array: a multiple of ways * PARTITION_ALIGN */
    int ways;       /* ranks, 1 or more */
};

struct partition_piece {
    uint64_t first, block;
};

/* `count` rounded up to what can be split `ways` ways. */
uint64_t partition_padded(uint64_t count, int ways);
/* Elements that each rank owns: count / ways. */
uint64_t partition_share(const struct partition *partition);
size_t partition_piece_count(const struct partition *partition);
struct partition_piece partition_piece_at(const struct partition *partition, size_t index);

#endif
