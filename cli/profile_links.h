/* What `temper profile` says of the links between ranks: by group, how long a small message takes
 * and how fast a large one is, and whether it stays on one host. */
#ifndef TEMPER_CLI_PROFILE_LINKS_H
#define TEMPER_CLI_PROFILE_LINKS_H

#include "base/json.h"
#include "store/store.h"

/* A table of all groups, then a line for each placement that sets two ranks of one host against two
 * of different hosts; nothing where there are no links. */
void print_links(const struct measurement_list *list);
/* The same as an array "links". */
void write_links(const struct measurement_list *list, struct jout *out);

#endif
