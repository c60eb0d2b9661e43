#include "cli/descendants.h"

#include "base/clock.h"
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double PATIENCE_S = 3.0;

/* The fourth field of /proc/PID/stat; the second, a name in parentheses, may have blanks. */
static pid_t parent_of(const char *pid)
{
    char path[64], line[512];
    int parent = -1;
    snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    size_t bytes = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[bytes] = '\0';
    const char *name_end = strrchr(line, ')');
    if (name_end == NULL || sscanf(name_end, ") %*c %d", &parent) != 1)
        return -1;
    return parent;
}

void kill_children(pid_t parent)
{
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return;
    for (struct dirent *entry = readdir(processes); entry != NULL; entry = readdir(processes))
        if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' &&
            parent_of(entry->d_name) == parent)
            kill((pid_t)strtol(entry->d_name, NULL, 10), SIGKILL);
    closedir(processes);
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
