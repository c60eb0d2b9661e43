/* cmocka needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/partition.h"
#include "base/rng.h"
#include <stdbool.h>

static void check_tiles(const struct partition *partition)
{
    uint64_t ways = (uint64_t)partition->ways, at = 0, owned = 0;
    bool fits = ways * PARTITION_ALIGN <= PARTITION_PIECE;
    for (size_t i = 0; i < partition_piece_count(partition); i++) {
        struct partition_piece piece = partition_piece_at(partition, i);
        assert_true(piece.first == at);
        assert_true(piece.block > 0 && piece.block % PARTITION_ALIGN == 0);
        assert_true(piece.block * ways <= PARTITION_PIECE ||
                    (!fits && piece.block == PARTITION_ALIGN));
        assert_true(piece.first / ways == owned); /* where the block stands in a shard */
        at += piece.block * ways;
        owned += piece.block;
    }
    assert_true(at == partition->count);
    assert_true(owned == partition_share(partition));
}

static void test_partition__pieces_tile_the_array_and_blocks_the_shard(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 5000; seed++) {
        int ways = 1 + (int)rng_below(seed, 0, 0, seed % 50 == 0 ? 40000 : 40);
        uint64_t count = rng_below(seed, 0, 1, 3 * PARTITION_PIECE);
        struct partition partition = {.count = partition_padded(count, ways), .ways = ways};
        uint64_t unit = (uint64_t)ways * PARTITION_ALIGN;
        assert_true(partition.count >= count && partition.count < count + unit);
        assert_true(partition.count % unit == 0);
        check_tiles(&partition);
    }
}

static void test_partition__an_empty_array_has_no_pieces(void **state)
{
    (void)state;
    struct partition partition = {.count = partition_padded(0, 3), .ways = 3};
    assert_true(partition.count == 0);
    assert_true(partition_piece_count(&partition) == 0);
    assert_true(partition_share(&partition) == 0);
}

/* Three ranks: a full piece has 3 * 16 * floor(2^18 / 48) = 3 * 87376 = 262128 elements. */
static void test_partition__three_ranks_by_hand(void **state)
{
    (void)state;
    struct partition partition = {.count = partition_padded(300000, 3), .ways = 3};
    assert_int_equal(partition.count, 300000);
    assert_int_equal(partition_share(&partition), 100000);
    assert_int_equal(partition_piece_count(&partition), 2);
    assert_int_equal(partition_piece_at(&partition, 0).first, 0);
    assert_int_equal(partition_piece_at(&partition, 0).block, 87376);
    assert_int_equal(partition_piece_at(&partition, 1).first, 262128);
    assert_int_equal(partition_piece_at(&partition, 1).block, 12624);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition__pieces_tile_the_array_and_blocks_the_shard),
        cmocka_unit_test(test_partition__an_empty_array_has_no_pieces),
        cmocka_unit_test(test_partition__three_ranks_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
