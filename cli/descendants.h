/* The processes that another one has started, on this host. */
#ifndef TEMPER_CLI_DESCENDANTS_H
#define TEMPER_CLI_DESCENDANTS_H

#include <stddef.h>
#include <sys/types.h>

struct child_count {
    size_t living, zombies; /* a zombie has ended, and its parent has not asked how */
};
struct child_count count_children(pid_t parent);
/* Send SIGKILL to the children of `parent`. */
void kill_children(pid_t parent);
/* From here on, what a child of this process leaves behind when it dies becomes a child of this
 * process, and not of init. */
void adopt_orphans(void);
/* Kill all children of this process and wait until they are gone, for a few seconds at most. */
void end_orphans(void);

#endif
