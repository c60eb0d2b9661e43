#include "cli/supervise.h"

#include "cli/cli.h"
#include "executor/checkpoint.h"
#include "store/store.h"
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A checkpoint that the next start of the ranks can continue from. */
struct restart_point {
    bool is_there;
    int64_t step; /* steps done */
    char folder[PATH_MAX];
};

/* The newest whole checkpoint at `path`. What is wrong with one that is not whole is said when the
 * ranks pass over it. */
static struct restart_point find_point(const char *path)
{
    struct restart_point point = {0};
    struct model model;
    struct error ignored = {0};
    if (path == NULL ||
        checkpoint_model(path, &model, point.folder, sizeof point.folder, &ignored) != STATUS_OK)
        return (struct restart_point){0};
    const char *name = strrchr(point.folder, '/');
    name = name == NULL ? point.folder : name + 1;
    point.is_there = true;
    if (sscanf(name, "step-%" SCNd64, &point.step) != 1)
        point.step = 0;
    return point;
}

static bool same_folder(const char *one, const char *other)
{
    char *one_path = realpath(one, NULL), *other_path = realpath(other, NULL);
    bool same = one_path != NULL && other_path != NULL && strcmp(one_path, other_path) == 0;
    free(one_path);
    free(other_path);
    return same;
}

/* Whatever whole checkpoint is the newest in the folder of --save must be of this run. */
static enum status check_folder(const struct run_options *options, struct error *err)
{
    struct restart_point saved = find_point(options->save);
    if (!saved.is_there)
        return STATUS_OK;
    struct restart_point loaded = find_point(options->load);
    if (loaded.is_there && same_folder(saved.folder, loaded.folder))
        return STATUS_OK;
    return error_set(err, STATUS_USAGE,
                     "--max-restarts: '%s' is there already, and a restart would take it for this "
                     "run's; continue it with --load %s, or --save into another folder",
                     saved.folder, options->save);
}

static void bury_run(const struct run_options *options, int64_t started_unix_ms)
{
    struct store *store = NULL;
    struct error err = {0};
    enum status status = store_open(&store, options->store, STORE_CREATE, &err);
    if (status == STATUS_OK)
        status = store_run_bury(store, started_unix_ms, &err);
    store_close(store);
    if (status != STATUS_OK)
        console_warning("the run that died stays 'running' in the store: %s", err.message);
}

static void tell_restart(const struct run_options *options, const struct launch_end *end,
                         const struct launch_request *next, const struct restart_point *point)
{
    char from[PATH_MAX + 64];
    if (point->is_there)
        snprintf(from, sizeof from, "continues after step %lld, from %s", (long long)point->step,
                 point->folder);
    else if (options->load != NULL || options->initial_weights != NULL)
        snprintf(from, sizeof from, "begins from %s again: %s holds no whole checkpoint",
                 options->load != NULL ? options->load : options->initial_weights, options->save);
    else
        snprintf(from, sizeof from, "begins anew: %s holds no whole checkpoint", options->save);
    console_warning("%s; restart %lld of %lld %s", end->what, (long long)next->restart,
                    (long long)options->max_restarts, from);
}

enum status supervise(const struct run_options *options, struct launch_request *request,
                      struct error *err)
{
    struct launch_end end;
    if (options->max_restarts > 0)
        TRY(check_folder(options, err));
    for (;;) {
        enum status status = launch_ranks(request, &end, err);
        if (status == STATUS_OK)
            return STATUS_OK;
        console_progress_end();
        if (end.what[0] != '\0' && end.run_started_unix_ms != 0)
            bury_run(options, end.run_started_unix_ms);
        if (!end.is_death || request->restart == options->max_restarts)
            return status;
        struct restart_point point = find_point(options->save);
        request->restart++;
        request->resumes = point.is_there;
        tell_restart(options, &end, request, &point);
        *err = (struct error){0};
    }
}
