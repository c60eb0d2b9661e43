#include "profiler/cache.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LEVELS_MAX = 8, PATH_BYTES = 96, LINE_BYTES = 32 };

#define FALLBACK_BYTES (UINT64_C(32) << 20)

/* "32768K"; 0 when there is no such file. */
static uint64_t cache_bytes(int index)
{
    char path[PATH_BYTES], line[LINE_BYTES];
    (void)snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char *read = fgets(line, sizeof(line), file);
    (void)fclose(file);
    if (!read)
        return 0;
    char *unit = NULL;
    uint64_t size = strtoull(line, &unit, 10);
    return *unit == 'M' ? size << 20 : *unit == 'K' ? size << 10 : size;
}

uint64_t cache_last_level_bytes(void)
{
    uint64_t largest = 0;
    for (int index = 0; index < LEVELS_MAX; index++) {
        uint64_t bytes = cache_bytes(index);
        largest = bytes > largest ? bytes : largest;
    }
    return largest > 0 ? largest : FALLBACK_BYTES;
}
