/* --arithmetic of `temper plan --cluster`: names of what blocks may compute in. */
#ifndef TEMPER_CLI_CLUSTER_ARITHMETIC_H
#define TEMPER_CLI_CLUSTER_ARITHMETIC_H

#include "ir/cluster.h"
#include "planner/layouts.h"

/* "bf16", "bf16,fp8", "fp8,tf32,bf16": any of fp32, tf32, bf16, fp16 and fp8, none twice. */
enum status cluster_arithmetic_parse(const char *text, struct arithmetic_list *out,
                                     struct error *err);

/* The layouts whose blocks choose among these: `out->arithmetic` and `out->others`. Of fp32 and
 * tf32 they are of the one with the higher peak; of bf16 and fp16 with equal peaks, under software
 * that treats them alike, of the first named. fp8 alone is of itself. STATUS_USAGE: a block is
 * pinned to what is not among the names, or two to what no layout has together. Cluster, framework
 * and pins of `out` are set. */
enum status cluster_arithmetic_take(const struct arithmetic_list *names,
                                    struct layouts_request *out, struct error *err);

#endif
