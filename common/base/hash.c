#include "base/hash.h"
#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

uint64_t hash_bytes(const void *data, size_t bytes)
{
    return XXH3_64bits(bytes > 0 ? data : "", bytes);
}

const char *hash_format(uint64_t hash, char text[HASH_TEXT_BYTES])
{
    (void)snprintf(text, HASH_TEXT_BYTES, "%016" PRIx64, hash);
    return text;
}
