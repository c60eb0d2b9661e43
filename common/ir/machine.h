/* A machine described rather than measured: node groups with their devices, power and price.
 * JSON form in docs/cluster.md; `temper profile --machine FILE` takes the power figures from it. */
#ifndef TEMPER_IR_MACHINE_H
#define TEMPER_IR_MACHINE_H

#include "base/error.h"
#include "ir/quantity.h"
#include <stddef.h>
#include <stdint.h>

enum { MACHINE_NAME_BYTES = 64, MACHINE_GROUPS_MAX = 16, MACHINE_VERSION = 1 };

/* Power of one whole node, watts. Below zero: not given. */
struct power_model {
    double idle_watts;
    double active_watts;
};

struct node_group {
    char name[MACHINE_NAME_BYTES];
    int64_t nodes;
    int64_t devices_per_node;
    uint64_t device_memory_bytes; /* 0: not given */
    struct power_model power;
};

struct machine {
    char name[MACHINE_NAME_BYTES];
    size_t group_count;
    struct node_group groups[MACHINE_GROUPS_MAX];
    double price_per_device_hour; /* below zero: not given */
    double carbon_grams_per_kwh;  /* below zero: not given */
    char carbon_date[16];         /* "2026-11-01"; empty: not given */
};

enum status machine_load(struct machine *out, const char *path, struct error *err);

#endif
