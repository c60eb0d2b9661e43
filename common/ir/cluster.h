/* A cluster as it is described rather than measured: node groups, what a device can do at most and
 * how much of that work of a size reaches, links by tier, power, price. The file format is
 * docs/cluster.md.
 *
 * Who only wants power and price may leave out what planning needs (memory, peaks, curves, tiers),
 * and the other way round: 0 stands for what is not given, NAN for a price or an intensity, which
 * may well be 0. Who needs a figure asks cluster_check_planning first. */
#ifndef TEMPER_IR_CLUSTER_H
#define TEMPER_IR_CLUSTER_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What matrix products are computed in. Sums are kept in fp32. */
enum arithmetic {
    ARITHMETIC_FP32,
    ARITHMETIC_TF32,
    ARITHMETIC_BF16,
    ARITHMETIC_FP16,
    ARITHMETIC_FP8,
    ARITHMETIC_COUNT
};
const char *arithmetic_name(enum arithmetic arithmetic); /* "fp32", "tf32", ... */
bool arithmetic_parse(const char *name, enum arithmetic *out);
/* Some of them, none twice. */
struct arithmetic_list {
    enum arithmetic items[ARITHMETIC_COUNT];
    size_t count;
};

/* What a device does, by what bounds it. */
enum operation {
    OPERATION_MATMUL,    /* size: FLOPs of one product; share of the peak rate */
    OPERATION_ATTENTION, /* fused (Dao et al. 2022); size: FLOPs of one call; share of the peak rate
                          */
    OPERATION_MEMORY,    /* elementwise and norms; size: bytes moved; share of the memory's rate */
    OPERATION_COUNT
};
const char *operation_name(enum operation operation); /* "matmul", "attention", "memory" */

enum { CURVE_POINTS_MAX = 16 };

/* Share of a peak that work of a size reaches: between points linear in the logarithm of the size,
 * beyond them that of the nearest. Sizes ascend; 0 < share <= 1. */
struct efficiency_curve {
    size_t count; /* > 0 */
    double size[CURVE_POINTS_MAX], share[CURVE_POINTS_MAX];
    double log_size[CURVE_POINTS_MAX]; /* of each size; needed where there are several points */
    double per_log[CURVE_POINTS_MAX];  /* 1 / (log_size[i + 1] - log_size[i]), likewise */
};
/* Appends a point; there is room. */
void efficiency_curve_add(struct efficiency_curve *curve, double size, double share);
double efficiency_at(const struct efficiency_curve *curve, double size);
/* No more than that, and ten times faster: the smaller of the points on either side. */
double efficiency_floor(const struct efficiency_curve *curve, double size);

enum { CLUSTER_NAME_BYTES = 64, CLUSTER_SOURCE_BYTES = 256 };

struct device_type {
    char name[CLUSTER_NAME_BYTES];
    uint64_t memory_bytes;               /* that a process can have, as the driver reports it */
    double peak_flops[ARITHMETIC_COUNT]; /* dense, FLOP/s; 0: it has none such */
    double memory_bytes_s;               /* read + written */
    double launch_s;                     /* from one small kernel to the next */
    /* Of the host that the device stands in, its share while all devices of the node do the same;
     * 0: not given, nothing is planned to wait there. */
    double host_bytes_s;        /* of the link to it, each direction */
    double host_memory_bytes_s; /* read + written, as an optimizer's step on the host reaches it */
    uint64_t host_memory_bytes;
    double idle_w, peak_w; /* idle_w <= peak_w; a CPU host is a node of one device */
    double unlimited_w;    /* of products at full clock, were peak_w no limit; 0: not known */
    double price_hour;     /* of one device, in the cluster's currency; NAN: not given */
    struct efficiency_curve efficiency[OPERATION_COUNT];
    char source[CLUSTER_SOURCE_BYTES]; /* of the figures */
};

/* Links that join domains of so many neighbouring devices: 8 in a node, all in the cluster. */
struct link_tier {
    char name[CLUSTER_NAME_BYTES]; /* "nvlink", "infiniband" */
    int64_t devices;               /* of one domain */
    double latency_s;              /* of one message */
    double bytes_s; /* of one device in one direction, while all of its node send as well */
    double share;   /* of that which large collectives reach, 0 < share <= 1 */
    char source[CLUSTER_SOURCE_BYTES];
};

enum { CLUSTER_TIERS_MAX = 4, CLUSTER_GROUPS_MAX = 8 };

/* Identical nodes. Devices are numbered node by node: neighbours in number are close. */
struct node_group {
    struct device_type device;
    int64_t nodes;
    int64_t node_devices; /* of each node */
    /* Narrowest domain first; each divides the next; the last joins the group. */
    struct link_tier tiers[CLUSTER_TIERS_MAX];
    size_t tier_count;
};

struct cluster {
    char name[CLUSTER_NAME_BYTES];
    struct node_group groups[CLUSTER_GROUPS_MAX];
    size_t group_count;
    char currency[8];     /* "USD"; empty: no prices */
    char price_date[16];  /* of the prices, YYYY-MM-DD; empty: not given */
    double carbon_g_kwh;  /* grams of CO2 equivalent; NAN: not given */
    char carbon_date[16]; /* of that figure, YYYY-MM-DD */
};

enum { CLUSTER_VERSION = 1 };

/* `source` is a built-in device and how many ("h100x1024", "a100-80x16": whole nodes, or less than
 * one), if need be with another network than the usual one ("a100-80x384@opa-4x100", see
 * cluster_set_network), or the path of a cluster file. Errors name file and key and list the
 * built-in names. */
enum status cluster_load(struct cluster *out, const char *source, struct error *err);
/* Of a built-in device type in its usual nodes. False: unknown, or neither whole nodes nor less
 * than one. Published runs write the names in many ways ("A100-SXM-80GB", "a100_80gb", "A100"):
 * case and punctuation do not matter, the words "SXM", "GB" and "NVL" neither; "A100" alone is the
 * 80 GB one. */
bool cluster_of_device(const char *device_name, int64_t devices, struct cluster *out);
/* Joins the nodes by another network: kind (ib, roce, opa, eth), adapters of a node and Gb/s of
 * each: "ib-8x200", "opa-4x100". Nothing to do where the devices share one domain without it.
 * False: no such network. */
bool cluster_set_network(struct cluster *cluster, const char *network);
/* Every relation between what is given; messages name `where` and the key. */
enum status cluster_validate(const struct cluster *cluster, const char *where, struct error *err);
/* Is the peak of `a` below that of `b` on every device? */
bool cluster_is_slower_in(const struct cluster *cluster, enum arithmetic a, enum arithmetic b);
/* Is all there that predicting time and memory in this arithmetic needs? STATUS_INVALID names
 * `where` and the first key that is missing. `cluster` has passed cluster_validate. */
enum status cluster_check_planning(const struct cluster *cluster, enum arithmetic arithmetic,
                                   const char *where, struct error *err);
enum status cluster_write_json(const struct cluster *cluster, struct text *out, struct error *err);

size_t cluster_builtin_count(void);
const char *cluster_builtin_name(size_t index); /* "a100-80", "h100", ... */

int64_t cluster_devices(const struct cluster *cluster); /* of all groups */
uint64_t cluster_hash(const struct cluster *cluster);   /* of all but the name */
/* The narrowest tier that joins groups of `ways` devices which stand `apart` numbers from each
 * other. Such groups fill blocks of ways * apart neighbours: a tier's domains hold them all when
 * they divide into such blocks. Else the last tier; NULL of a group without tiers. */
const struct link_tier *node_group_tier(const struct node_group *group, int64_t ways,
                                        int64_t apart);

#endif
