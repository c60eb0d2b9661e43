#include "executor/comm/binding.h"

#include "base/host.h"
#include <hwloc.h>
#include <stdlib.h>
#include <string.h>

/* How many ranks of this host come before this one. */
static enum status place_on_host(struct comm *comm, int *place, struct error *err)
{
    struct host_info host;
    host_query(&host);
    size_t bytes = sizeof(host.name), size = (size_t)comm_size(comm);
    char *names = calloc(size, bytes);
    enum status status = names != NULL ? STATUS_OK : error_memory(err, size * bytes, "host names");
    if (status == STATUS_OK)
        status = comm_all_gather(comm, host.name, names, bytes, err);
    *place = 0;
    for (int rank = 0; status == STATUS_OK && rank < comm_rank(comm); rank++)
        *place += memcmp(names + (size_t)rank * bytes, host.name, bytes) == 0;
    free(names);
    return status;
}

/* `count` of the units in `allowed`, from unit `first` on in the topology's order. */
static bool take_units(hwloc_topology_t topology, hwloc_const_cpuset_t allowed, int first,
                       int count, hwloc_cpuset_t out)
{
    int seen = 0;
    for (hwloc_obj_t unit = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, NULL);
         unit != NULL && seen < first + count;
         unit = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, unit)) {
        if (!hwloc_bitmap_isincluded(unit->cpuset, allowed))
            continue;
        if (seen >= first && hwloc_bitmap_or(out, out, unit->cpuset) != 0)
            return false;
        seen++;
    }
    return seen == first + count;
}

static bool bind_units(hwloc_topology_t topology, int place, int local_size, int threads)
{
    hwloc_cpuset_t allowed = hwloc_bitmap_alloc(), own = hwloc_bitmap_alloc();
    bool bound = allowed != NULL && own != NULL &&
                 hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) == 0 &&
                 hwloc_bitmap_weight(allowed) == local_size * threads &&
                 take_units(topology, allowed, place * threads, threads, own) &&
                 hwloc_set_cpubind(topology, own, HWLOC_CPUBIND_PROCESS) == 0;
    hwloc_bitmap_free(own);
    hwloc_bitmap_free(allowed);
    return bound;
}

/* Of a kind that the machine does not tell of there is one. */
static bool has_neighbourhoods(hwloc_topology_t topology)
{
    return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) > 1 ||
           hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_L3CACHE) > 1;
}

enum status comm_bind(struct comm *comm, int threads, enum comm_binding binding, bool *bound,
                      struct error *err)
{
    hwloc_topology_t topology;
    int local_size = comm_local_size(comm), place;
    *bound = false;
    TRY(place_on_host(comm, &place, err));
    if (local_size == 1 || place >= local_size || hwloc_topology_init(&topology) != 0)
        return STATUS_OK;
    if (hwloc_topology_load(topology) == 0 &&
        (binding == BIND_ALWAYS || has_neighbourhoods(topology)))
        *bound = bind_units(topology, place, local_size, threads);
    hwloc_topology_destroy(topology);
    return STATUS_OK;
}
