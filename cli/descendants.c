#include "cli/descendants.h"

#include "base/clock.h"
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double PATIENCE_S = 3.0;

struct process {
    pid_t pid, parent;
    char state; /* as /proc names it: 'Z' is a zombie */
};

/* The third and fourth field of /proc/PID/stat; the second, a name in parentheses, may have
 * blanks. */
static bool read_process(const char *pid, struct process *out)
{
    char path[64], line[512];
    int parent = 0;
    if (pid[0] < '1' || pid[0] > '9')
        return false;
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t bytes = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[bytes] = '\0';
    const char *name_end = strrchr(line, ')');
    if (name_end == NULL || sscanf(name_end, ") %c %d", &out->state, &parent) != 2)
        return false;
    out->pid = (pid_t)strtol(pid, NULL, 10);
    out->parent = parent;
    return true;
}

static void for_each_child(pid_t parent, void (*act)(void *user, const struct process *),
                           void *user)
{
    struct process process;
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return;
    for (struct dirent *entry = readdir(processes); entry != NULL; entry = readdir(processes))
        if (read_process(entry->d_name, &process) && process.parent == parent)
            act(user, &process);
    closedir(processes);
}

static void count(void *user, const struct process *child)
{
    struct child_count *counts = user;
    *(child->state == 'Z' ? &counts->zombies : &counts->living) += 1;
}

struct child_count count_children(pid_t parent)
{
    struct child_count counts = {0};
    for_each_child(parent, count, &counts);
    return counts;
}

static void kill_it(void *user, const struct process *child)
{
    (void)user;
    kill(child->pid, SIGKILL);
}

void kill_children(pid_t parent)
{
    for_each_child(parent, kill_it, NULL);
}

void adopt_orphans(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

void end_orphans(void)
{
    const struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
    double end_s = clock_s() + PATIENCE_S;
    for (;;) {
        kill_children(getpid());
        pid_t ended;
        do
            ended = waitpid(-1, NULL, WNOHANG);
        while (ended > 0);
        if (ended < 0 ||
            clock_s() > end_s) /* none is left, or one that even SIGKILL does not end */
            return;
        nanosleep(&moment, NULL);
    }
}
