#include "executor/comm/comm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

/* What a launcher leaves in the environment of the ranks that it starts. A row counts only when all
 * its variables are there and agree: a batch script of SLURM has SLURM_* but no PMI, and so is not
 * itself a rank; a shell that merely inherited one of them is not either. */
static const struct launcher {
    const char *size, *rank;
    const char *marker; /* must be there too; NULL: nothing more is asked */
    int least;          /* fewer ranks than this count as none */
} launchers[] = {
    {.size = "OMPI_COMM_WORLD_SIZE", .rank = "OMPI_COMM_WORLD_RANK"},
    {.size = "PMI_SIZE", .rank = "PMI_RANK"},
    {.size = "SLURM_STEP_NUM_TASKS", .rank = "PMIX_RANK", .marker = "SLURM_STEP_ID"},
    /* srun without PMI: MPI refuses these tasks; uncounted, each would start a whole job. */
    {.size = "SLURM_STEP_NUM_TASKS", .rank = "SLURM_PROCID", .marker = "SLURM_STEP_ID", .least = 2},
};

static bool environment_int(const char *name, int *out)
{
    const char *value = getenv(name);
    if (!value || *value < '0' || *value > '9')
        return false;
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno != 0 || *end != '\0' || number > INT_MAX)
        return false;
    *out = (int)number;
    return true;
}

static bool launched(int *ranks, int *rank)
{
    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++) {
        const struct launcher *launcher = &launchers[i];
        if (launcher->marker && !getenv(launcher->marker))
            continue;
        if (environment_int(launcher->size, ranks) && environment_int(launcher->rank, rank) &&
            *rank < *ranks && *ranks >= launcher->least)
            return true;
    }
    return false;
}

int comm_launched_ranks(void)
{
    int ranks, rank;
    return launched(&ranks, &rank) ? ranks : 0;
}

int comm_launched_rank(void)
{
    int ranks, rank;
    return launched(&ranks, &rank) ? rank : 0;
}
