/* Size of the last-level cache, as Linux describes it. */
#ifndef TEMPER_PROFILER_CACHE_H
#define TEMPER_PROFILER_CACHE_H

#include <stdint.h>

/* Bytes of the largest cache of this host's first core; 32 MiB where sysfs does not tell. */
uint64_t cache_last_level_bytes(void);

#endif
