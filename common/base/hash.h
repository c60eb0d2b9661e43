/* Content hashes: XXH3, the only part of temper that knows xxhash. Not cryptographic. */
#ifndef TEMPER_BASE_HASH_H
#define TEMPER_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { HASH_TEXT_BYTES = 17 };

uint64_t hash_bytes(const void *data, size_t bytes);
/* 16 lower-case hexadecimal digits; returns `text`. */
const char *hash_format(uint64_t hash, char text[HASH_TEXT_BYTES]);

#endif
