#include "base/host.h"
#include "base/file.h"
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The value after "key\t: " on its line, or NULL. Ends at the line's end. */
static const char *proc_value(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *line = text; line && *line != '\0'; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) != 0)
            continue;
        const char *value = line + length + strspn(line + length, " \t");
        if (*value == ':')
            return value + 1 + strspn(value + 1, " \t");
    }
    return NULL;
}

/* A whole small file of /proc or /sys, or NULL; free() it. */
static char *proc_read(const char *path)
{
    struct error ignored;
    char *data = NULL;
    size_t bytes = 0;
    return file_read(path, &data, &bytes, &ignored) == STATUS_OK ? data : NULL;
}

static bool line_has_word(const char *line, const char *word)
{
    size_t length = strlen(word);
    const char *end = strchrnul(line, '\n');
    while (line < end) {
        size_t word_bytes = strcspn(line, " \n");
        if (word_bytes == length && memcmp(line, word, length) == 0)
            return true;
        line += word_bytes + 1;
    }
    return false;
}

static void query_cpu(struct host_info *out)
{
    char *info = proc_read("/proc/cpuinfo");
    const char *model = info ? proc_value(info, "model name") : NULL;
    const char *flags = info ? proc_value(info, "flags") : NULL;
    if (!model)
        model = "unknown";
    (void)snprintf(out->cpu, sizeof(out->cpu), "%.*s", (int)strcspn(model, "\n"), model);
    out->has_avx512_bf16 = flags && line_has_word(flags, "avx512_bf16");
    out->has_amx_bf16 = flags && line_has_word(flags, "amx_bf16");
    free(info);
}

/* A host may have more processors than a cpu_set_t holds: grow the set until the call accepts it.
 */
static int affinity_cores(void)
{
    for (size_t processors = 1024; processors <= 1u << 20; processors *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(processors);
        cpu_set_t *set = CPU_ALLOC(processors);
        if (!set)
            break;
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* Whole cores that the control group's CPU quota amounts to, rounded up; 0 without a quota.
 * Version 2 writes "QUOTA PERIOD" or "max PERIOD". */
static int quota_cores(void)
{
    long long quota = 0, period = 0;
    char *limit = proc_read("/sys/fs/cgroup/cpu.max");
    if (limit) {
        char *end = limit;
        quota = strtoll(limit, &end, 10);
        period = strtoll(end, NULL, 10);
    } else {
        char *v1_quota = proc_read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
        char *v1_period = proc_read("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
        quota = v1_quota ? strtoll(v1_quota, NULL, 10) : 0;
        period = v1_period ? strtoll(v1_period, NULL, 10) : 0;
        free(v1_quota);
        free(v1_period);
    }
    free(limit);
    if (quota <= 0 || period <= 0)
        return 0;
    return (int)((quota + period - 1) / period);
}

static uint64_t usable_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t installed = pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
    char *limit = proc_read("/sys/fs/cgroup/memory.max"); /* "max" reads as 0: no limit */
    if (!limit)
        limit = proc_read("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    uint64_t allowed = limit ? strtoull(limit, NULL, 10) : 0;
    free(limit);
    return allowed > 0 && allowed < installed ? allowed : installed;
}

void host_query(struct host_info *out)
{
    struct host_info info = {0};
    struct utsname names;
    const char *name = uname(&names) == 0 ? names.nodename : "unknown";
    (void)snprintf(info.name, sizeof(info.name), "%.*s", (int)sizeof(info.name) - 1, name);
    query_cpu(&info);
    int allowed = affinity_cores(), quota = quota_cores();
    info.cores = quota > 0 && quota < allowed ? quota : allowed;
    info.memory_bytes = usable_memory_bytes();
    *out = info;
}

static uint64_t process_status_bytes(const char *key)
{
    char *status = proc_read("/proc/self/status");
    const char *value = status ? proc_value(status, key) : NULL;
    uint64_t bytes = value ? strtoull(value, NULL, 10) * 1024 : 0; /* the kernel writes kB */
    free(status);
    return bytes;
}

uint64_t host_process_rss_bytes(void)
{
    return process_status_bytes("VmRSS");
}

uint64_t host_process_peak_rss_bytes(void)
{
    return process_status_bytes("VmHWM");
}

void host_reset_peak_rss(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file == NULL)
        return;
    (void)fputs("5", file); /* see proc(5) */
    (void)fclose(file);
}

void host_give_back_free_memory(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}
