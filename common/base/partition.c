#include "base/partition.h"

#include <assert.h>

/* Of every piece but the last, which may be shorter. */
static uint64_t full_block(int ways)
{
    uint64_t blocks = (uint64_t)ways * PARTITION_ALIGN;
    uint64_t block = PARTITION_PIECE / blocks * PARTITION_ALIGN;
    return block > 0 ? block : PARTITION_ALIGN; /* more ranks than a piece has room for */
}

uint64_t partition_padded(uint64_t count, int ways)
{
    assert(ways >= 1);
    uint64_t unit = (uint64_t)ways * PARTITION_ALIGN;
    return (count + unit - 1) / unit * unit;
}

uint64_t partition_share(const struct partition *partition)
{
    return partition->count / (uint64_t)partition->ways;
}

size_t partition_piece_count(const struct partition *partition)
{
    uint64_t piece = full_block(partition->ways) * (uint64_t)partition->ways;
    return (size_t)((partition->count + piece - 1) / piece);
}

struct partition_piece partition_piece_at(const struct partition *partition, size_t index)
{
    assert(index < partition_piece_count(partition));
    uint64_t ways = (uint64_t)partition->ways;
    uint64_t block = full_block(partition->ways);
    uint64_t first = index * block * ways;
    uint64_t left = (partition->count - first) / ways;
    return (struct partition_piece){.first = first, .block = left < block ? left : block};
}
