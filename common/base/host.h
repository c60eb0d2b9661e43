/* What this machine and process are: names, cores, memory in use. Linux. */
#ifndef TEMPER_BASE_HOST_H
#define TEMPER_BASE_HOST_H

#include <stdbool.h>
#include <stdint.h>

struct host_info {
    char name[64]; /* uname -n */
    char cpu[96];  /* model name */
    int cores;     /* that this process may use: its affinity, and its control group's CPU quota */
    uint64_t memory_bytes; /* installed, or what the control group allows if that is less */
    bool has_avx512_bf16, has_amx_bf16;
};

void host_query(struct host_info *out);
/* Of this process, 0 if unknown. The kernel keeps the peak in per-core batches: it may be some
 * hundreds of KiB a core below the truth. */
uint64_t host_process_rss_bytes(void);      /* resident now (VmRSS) */
uint64_t host_process_peak_rss_bytes(void); /* the most so far (VmHWM) */
/* The peak counts from here on; where the kernel does not let a process do that, nothing changes.
 */
void host_reset_peak_rss(void);
/* What free() keeps for later goes back to the system, where the C library can do that. */
void host_give_back_free_memory(void);

#endif
