#include "executor/ops/attention_tile.h"

#include "executor/ops/impls/tile.h"

static const struct tile_ops *const all[] = {
#ifdef TILE_X86
    &tile_bf16_avx512,
    &tile_fp32_avx512,
    &tile_fp32_avx2,
#endif
    &tile_fp32_portable,
};

const struct tile_ops *tile_ops_for(enum precision precision)
{
    size_t count = sizeof(all) / sizeof(all[0]);
    for (size_t i = 0; i + 1 < count; i++) {
        if ((all[i]->pack == 1 || precision == PRECISION_BF16) && all[i]->is_supported())
            return all[i];
    }
    return all[count - 1];
}

size_t tile_ops_all(const struct tile_ops *const **out)
{
    *out = all;
    return sizeof(all) / sizeof(all[0]);
}
