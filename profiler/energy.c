#include "profiler/energy.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Layout and meaning of the files: Linux Documentation/power/powercap/powercap.rst. */
#define SYSTEM_ROOT   "/sys/class/powercap"
#define DOMAIN_PREFIX "intel-rapl:"

enum { DOMAINS_MAX = 64, PATH_BYTES = 512, NAME_BYTES = 64, SOURCE_BYTES = 512 };

struct domain {
    char path[PATH_BYTES]; /* of its energy_uj */
    uint64_t last_uj;
    uint64_t range_uj; /* the counter starts again at 0 above this */
};

struct energy_meter {
    struct domain domains[DOMAINS_MAX];
    size_t count; /* 0: not available */
    double joules;
    char source[SOURCE_BYTES];
};

/* First line of a small file, without its newline. On failure errno says why. */
static bool read_line(const char *path, char *line, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, line, capacity - 1);
    int cause = errno;
    close(fd);
    errno = cause;
    if (length < 0)
        return false;
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return true;
}

/* On failure errno says why; EINVAL for something that is not a number. */
static bool read_u64(const char *path, uint64_t *value)
{
    char line[NAME_BYTES];
    if (!read_line(path, line, sizeof(line)))
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(line, &end, 10);
    if (errno != 0)
        return false;
    if (!isdigit((unsigned char)line[0]) || *end != '\0') {
        errno = EINVAL;
        return false;
    }
    *value = number;
    return true;
}

static int is_domain(const struct dirent *entry)
{
    return strncmp(entry->d_name, DOMAIN_PREFIX, strlen(DOMAIN_PREFIX)) == 0;
}

/* Packages, and the memory beside them. The core and uncore zones inside a package are part of its
 * counter, dram is not (Intel SDM vol. 3B, "Package RAPL Domain"); psys covers the packages again,
 * and intel-rapl-mmio reads the same package by another way. */
static bool is_counted(const char *entry, const char *name)
{
    bool is_nested = strchr(entry + strlen(DOMAIN_PREFIX), ':') != NULL;
    if (is_nested)
        return strcmp(name, "dram") == 0;
    return strncmp(name, "package", strlen("package")) == 0;
}

static void __attribute__((format(printf, 2, 3)))
say_why(struct energy_meter *meter, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(meter->source, sizeof(meter->source), format, args);
    va_end(args);
}

static void append_source(struct energy_meter *meter, const char *entry, const char *name)
{
    size_t used = strlen(meter->source);
    (void)snprintf(meter->source + used, sizeof(meter->source) - used, "%s%s %s",
                   meter->count == 0 ? "" : ", ", entry, name);
}

/* False when the domain should count but cannot be read: the sum without it would mislead. */
static bool add_domain(struct energy_meter *meter, const char *root, const char *entry)
{
    char path[PATH_BYTES], name[NAME_BYTES];
    struct domain domain = {.last_uj = 0};
    (void)snprintf(path, sizeof(path), "%s/%s/name", root, entry);
    if (!read_line(path, name, sizeof(name)) || !is_counted(entry, name))
        return true;
    (void)snprintf(domain.path, sizeof(domain.path), "%s/%s/energy_uj", root, entry);
    if (!read_u64(domain.path, &domain.last_uj)) {
        say_why(meter, "%s: %s%s", domain.path, strerror(errno),
                errno == EACCES ? " (root may read it)" : "");
        return false;
    }
    (void)snprintf(path, sizeof(path), "%s/%s/max_energy_range_uj", root, entry);
    if (!read_u64(path, &domain.range_uj) || domain.range_uj == 0) {
        say_why(meter, "%s: not a number above zero", path);
        return false;
    }
    append_source(meter, entry, name);
    meter->domains[meter->count++] = domain;
    return true;
}

static void find_domains(struct energy_meter *meter, const char *root)
{
    struct dirent **entries = NULL;
    int count = scandir(root, &entries, is_domain, alphasort);
    if (count < 0) {
        say_why(meter, "%s: %s", root, strerror(errno));
        return;
    }
    bool all_readable = true;
    for (int i = 0; i < count; i++) {
        if (all_readable && meter->count < DOMAINS_MAX)
            all_readable = add_domain(meter, root, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    if (!all_readable)
        meter->count = 0;
    else if (meter->count == 0)
        say_why(meter, "%s: no package energy counter", root);
}

enum status energy_open(struct energy_meter **out, const char *root, struct error *err)
{
    struct energy_meter *meter = calloc(1, sizeof(*meter));
    if (!meter)
        return error_memory(err, sizeof(*meter), "the energy meter");
    find_domains(meter, root ? root : SYSTEM_ROOT);
    *out = meter;
    return STATUS_OK;
}

void energy_close(struct energy_meter *meter)
{
    free(meter);
}

bool energy_available(const struct energy_meter *meter)
{
    return meter->count > 0;
}

const char *energy_source(const struct energy_meter *meter)
{
    return meter->source;
}

static uint64_t counted_uj(const struct domain *domain, uint64_t now_uj)
{
    if (now_uj >= domain->last_uj)
        return now_uj - domain->last_uj;
    if (domain->last_uj > domain->range_uj)
        return now_uj; /* the counter was reset, not wrapped */
    return domain->range_uj - domain->last_uj + now_uj;
}

enum status energy_read_joules(struct energy_meter *meter, double *joules, struct error *err)
{
    if (meter->count == 0)
        return error_set(err, STATUS_UNSUPPORTED, "no energy counter: %s", meter->source);
    for (size_t i = 0; i < meter->count; i++) {
        struct domain *domain = &meter->domains[i];
        uint64_t now_uj = 0;
        if (!read_u64(domain->path, &now_uj))
            return error_set(err, STATUS_IO, "cannot read %s: %s", domain->path, strerror(errno));
        meter->joules += (double)counted_uj(domain, now_uj) * 1e-6;
        domain->last_uj = now_uj;
    }
    *joules = meter->joules;
    return STATUS_OK;
}
