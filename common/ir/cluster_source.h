/* Where clusters come from: shared by cluster*.c, not part of the public interface. */
#ifndef TEMPER_IR_CLUSTER_SOURCE_H
#define TEMPER_IR_CLUSTER_SOURCE_H

#include "ir/cluster.h"
#include "ir/fields.h"

/* The largest sizes accepted; a cluster's devices stay below 2^40. */
enum cluster_limit {
    CLUSTER_NODES_MAX = 1 << 20,
    CLUSTER_NODE_DEVICES_MAX = 1 << 16,
};

/* The members of each struct that stand under one key of the file. */
extern const struct field_table cluster_table, node_group_table, device_type_table, link_tier_table;

enum builtin_status {
    BUILTIN_FOUND,
    BUILTIN_UNKNOWN,   /* no such device */
    BUILTIN_PART_NODES /* neither whole nodes nor less than one; `node_devices` says of how many */
};

/* One group of a built-in device in its usual nodes; the name is `name` in the table's spelling. */
enum builtin_status cluster_builtin_make(const char *name, int64_t devices, struct cluster *out,
                                         int64_t *node_devices);
/* "v100-16, v100-32, ..." */
void cluster_builtin_names(struct text *out);

enum status cluster_load_file(struct cluster *out, const char *path, struct error *err);

#endif
