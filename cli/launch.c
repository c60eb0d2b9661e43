#include "cli/launch.h"

#include "cli/cli.h"
#include "cli/relay.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MPIRUN_ARGUMENTS = 16, PROGRAM_PATH_BYTES = 4096 };

static volatile pid_t launcher_pid;
static volatile sig_atomic_t signals_seen;

/* The first signal asks the ranks to end after their step: mpirun hands SIGUSR1 on to them. The
 * second one ends the job. */
static void forward_signal(int signal_number)
{
    (void)signal_number;
    if (launcher_pid > 0)
        kill(launcher_pid, signals_seen++ == 0 ? SIGUSR1 : SIGTERM);
}

static enum status own_path(char path[PROGRAM_PATH_BYTES], struct error *err)
{
    ssize_t bytes = readlink("/proc/self/exe", path, PROGRAM_PATH_BYTES - 1);
    if (bytes <= 0)
        return error_set(err, STATUS_IO, "finding this program's path in /proc/self/exe: %s",
                         strerror(errno));
    path[bytes] = '\0';
    return STATUS_OK;
}

static char **build_arguments(const struct launch_request *request, char *program, char *ranks)
{
    size_t capacity = (size_t)request->argc + MPIRUN_ARGUMENTS;
    char **arguments = calloc(capacity, sizeof *arguments);
    if (arguments == NULL)
        return NULL;
    size_t count = 0;
    arguments[count++] = (char *)"mpirun";
    /* Its banners would bury what the ranks say; when they said nothing, judge_exit speaks. */
    arguments[count++] = (char *)"--quiet";
    if (geteuid() == 0)
        arguments[count++] = (char *)"--allow-run-as-root";
    arguments[count++] = (char *)"--oversubscribe";
    /* Threads of a rank must be free to spread over cores; Open MPI would bind each rank to one. */
    arguments[count++] = (char *)"--bind-to";
    arguments[count++] = (char *)"none";
    arguments[count++] = (char *)"-np";
    arguments[count++] = ranks;
    arguments[count++] = program;
    arguments[count++] = (char *)request->command;
    for (int i = 0; i < request->argc; i++)
        arguments[count++] = request->argv[i];
    return arguments;
}

/* The child: becomes mpirun. */
static void become_mpirun(char **arguments, const struct relay *relay)
{
    if (isatty(STDERR_FILENO))
        setenv("TEMPER_PROGRESS", "1", 1);
    setenv(LAUNCHED_VARIABLE, "1", 1);
    relay_enter(relay);
    /* A group of its own, so that Ctrl-C reaches this program's parent alone; then it may not read
     * from the terminal. When the parent is killed, the job goes with it. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    execvp(arguments[0], arguments);
    fprintf(stderr,
            "temper: cannot start mpirun: %s; install Open MPI (Debian: openmpi-bin) or plan for "
            "one rank\n",
            strerror(errno));
    _exit(1);
}

static enum status judge_exit(int wait_status, const struct launch_request *request,
                              const struct relay *relay, struct error *err)
{
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
    const char *advice = request->on_death == NULL ? "" : request->on_death;
    if (code == 0 && relay->output_lost)
        return error_set(err, STATUS_IO,
                         "writing to standard output failed; the ranks' work is done");
    if (code == 0)
        return STATUS_OK;
    if (!relay->has_spoken && code < 128)
        return error_set(
            err, STATUS_FAILED,
            "mpirun ended with exit code %d and no word from the ranks; `mpirun -np %d "
            "true` shows whether it works here%s%s",
            code, request->ranks, *advice == '\0' ? "" : "; ", advice);
    if (code == 2)
        return STATUS_USAGE;
    if (code == 3)
        return STATUS_INFEASIBLE;
    if (code > 128 && code < 128 + 65)
        return error_set(err, STATUS_FAILED, "a rank died of signal %d (%s)%s%s", code - 128,
                         strsignal(code - 128), *advice == '\0' ? "" : "; ", advice);
    if (code == 1)
        return STATUS_FAILED; /* the rank has said why */
    return error_set(err, STATUS_FAILED, "mpirun ended with exit code %d%s%s", code,
                     *advice == '\0' ? "" : "; ", advice);
}

static enum status spawn_and_wait(char **arguments, const struct launch_request *request,
                                  struct relay *relay, struct error *err)
{
    struct sigaction forward = {.sa_handler = forward_signal};
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        return error_set(err, STATUS_IO, "starting mpirun: fork: %s", strerror(errno));
    if (child == 0)
        become_mpirun(arguments, relay);
    launcher_pid = child;
    sigaction(SIGTERM, &forward, NULL);
    sigaction(SIGINT, &forward, NULL);
    /* Output that nobody reads any more is lost, the training is not. */
    signal(SIGPIPE, SIG_IGN);
    int wait_status = 0;
    TRY(relay_until_exit(relay, child, &wait_status, err));
    launcher_pid = 0;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    return judge_exit(wait_status, request, relay, err);
}

enum status launch_ranks(const struct launch_request *request, struct error *err)
{
    char program[PROGRAM_PATH_BYTES];
    char ranks[16];
    TRY(own_path(program, err));
    snprintf(ranks, sizeof ranks, "%d", request->ranks);
    char **arguments = build_arguments(request, program, ranks);
    if (arguments == NULL)
        return error_memory(err, (unsigned long long)request->argc * sizeof(char *),
                            "mpirun's arguments");
    warn_when_oversubscribed(request->ranks, request->threads);
    struct relay relay;
    enum status status = relay_open(&relay, err);
    if (status == STATUS_OK)
        status = spawn_and_wait(arguments, request, &relay, err);
    relay_close(&relay);
    free(arguments);
    return status;
}
