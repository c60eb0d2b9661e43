/* Starting the ranks of a run, and starting them again when one has died. */
#ifndef TEMPER_CLI_SUPERVISE_H
#define TEMPER_CLI_SUPERVISE_H

#include "cli/cmd_run.h"
#include "cli/launch.h"

/* launch_ranks, and again for up to --max-restarts deaths. A run that died does not stay `running`
 * in the store. */
enum status supervise(const struct run_options *options, struct launch_request *request,
                      struct error *err);

#endif
