#include "cli/launch.h"

#include "base/clock.h"
#include "cli/cli.h"
#include "cli/descendants.h"
#include "cli/relay.h"
#include "cli/watch.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MPIRUN_ARGUMENTS = 24, PROGRAM_PATH_BYTES = 4096, SIGNALS_END = 65 };
enum { ENVIRONMENT_LIST_BYTES = 4096 };

/* What mpirun has to end ranks by itself. */
static const double END_GRACE_S = 4.0;
/* How often mpirun's children are looked at, and for how long it may leave one of them unreaped. It
 * does that at once, unless it hangs: Open MPI 4's can, on a lock of PMIx, when a rank dies while
 * it connects to it. */
static const double CHILDREN_LOOK_S = 0.5, REAP_GRACE_S = 3.0;

static volatile pid_t launcher_pid;
static volatile sig_atomic_t signals_seen;

/* One start of the ranks. */
struct job {
    const struct launch_request *request;
    struct relay relay;
    struct watch watch;
    struct launch_end *end;
    int dead_rank, dead_signal;         /* as mpirun says; rank -1: it has named none */
    char hung[WATCH_TEXT_BYTES];        /* which rank hangs; empty: none */
    double ending_since_s;              /* 0: nobody has ended the ranks */
    double children_looked_s, reaped_s; /* looked at mpirun's children; found none unreaped */
    bool mpirun_hangs;
};

/* The first signal asks the ranks to end after their step: mpirun hands SIGUSR1 on to them. The
 * second one ends the job. */
static void forward_signal(int signal_number)
{
    int code = errno; /* of what was interrupted */
    (void)signal_number;
    if (launcher_pid > 0)
        kill(launcher_pid, signals_seen++ == 0 ? SIGUSR1 : SIGTERM);
    errno = code;
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

static size_t add_mpirun(char *ranks, char **arguments)
{
    size_t count = 0;
    arguments[count++] = (char *)"mpirun";
    if (geteuid() == 0)
        arguments[count++] = (char *)"--allow-run-as-root";
    arguments[count++] = (char *)"--oversubscribe";
    /* Threads of a rank must be free to spread over cores; Open MPI would bind each rank to one. */
    arguments[count++] = (char *)"--bind-to";
    arguments[count++] = (char *)"none";
    arguments[count++] = (char *)"-np";
    arguments[count++] = ranks;
    return count;
}

static char **build_arguments(const struct launch_request *request, char *program, char *ranks)
{
    size_t capacity = (size_t)request->argc + MPIRUN_ARGUMENTS;
    char **arguments = calloc(capacity, sizeof *arguments);
    if (arguments == NULL)
        return NULL;
    size_t count = request->ranks > 1 ? add_mpirun(ranks, arguments) : 0;
    arguments[count++] = program;
    arguments[count++] = (char *)request->command;
    for (int i = 0; i < request->argc; i++)
        arguments[count++] = request->argv[i];
    return arguments;
}

/* mpirun gives its environment to ranks on this host; to others only what this list names. (Not by
 * -x: Open MPI refuses that beside a list of the user's own.) */
static void pass_on(const char *names)
{
    static const char list_name[] = "OMPI_MCA_mca_base_env_list";
    char list[ENVIRONMENT_LIST_BYTES];
    const char *own = getenv(list_name);
    bool has_own = own != NULL && own[0] != '\0';
    int bytes =
        snprintf(list, sizeof list, "%s%s%s", has_own ? own : "", has_own ? ";" : "", names);
    if (bytes > 0 && (size_t)bytes < sizeof list)
        setenv(list_name, list, 1);
}

static void set_variables(const struct launch_request *request)
{
    char restart[24];
    if (isatty(STDERR_FILENO))
        setenv("TEMPER_PROGRESS", "1", 1);
    setenv(LAUNCHED_VARIABLE, "1", 1);
    /* Else Open MPI counts messages that hear_banner has taken away. */
    setenv("OMPI_MCA_orte_base_help_aggregate", "0", 0);
    /* Messages up to this size cross shared memory without a rendezvous; longer ones are copied by
     * the kernel out of the other rank, at no cost to it while it computes (docs/benchmarks.md). */
    setenv("OMPI_MCA_btl_vader_eager_limit", "65536", 0);
    setenv("OMPI_MCA_btl_vader_max_send_size", "65536", 0);
    unsetenv(RESTART_VARIABLE);
    unsetenv(RESUME_VARIABLE);
    snprintf(restart, sizeof restart, "%lld", (long long)request->restart);
    if (request->restart > 0)
        setenv(RESTART_VARIABLE, restart, 1);
    if (request->resumes)
        setenv(RESUME_VARIABLE, "1", 1);
    pass_on(LAUNCHED_VARIABLE);
    if (request->restart > 0)
        pass_on(RESTART_VARIABLE);
    if (request->resumes)
        pass_on(RESUME_VARIABLE);
}

/* The child: becomes mpirun, or the only rank. */
static void become_mpirun(char **arguments, const struct job *job, pid_t parent)
{
    set_variables(job->request);
    relay_enter(&job->relay);
    /* A group of its own, so that Ctrl-C reaches this program's parent alone; then it may not read
     * from the terminal. When the parent is killed, the job goes with it. */
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1); /* killed before the line above */
    /* Ignored by the parent from its first start of ranks on. */
    signal(SIGPIPE, SIG_DFL);
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0)
        dup2(nothing, STDIN_FILENO);
    execvp(arguments[0], arguments);
    fprintf(stderr,
            "temper: cannot start %s: %s; install Open MPI (Debian: openmpi-bin) or plan for "
            "one rank\n",
            arguments[0], strerror(errno));
    _exit(1);
}

/* ---- what the ranks and mpirun say ---- */

static void hear_sign(void *user, const char *line)
{
    struct job *job = user;
    struct pulse_sign sign;
    if (pulse_parse(line, &sign))
        watch_hear(&job->watch, &sign, clock_s());
    else
        (void)pulse_parse_run(line, &job->end->run_started_unix_ms);
}

/* Open MPI 4 and 5 word it alike. */
static bool hear_named_rank(struct job *job, const char *text)
{
    static const char words[] = "noticed that process rank ";
    int rank = -1, signal_number = 0;
    const char *who = strstr(text, words);
    const char *how = who == NULL ? NULL : strstr(who, "exited on signal ");
    if (how == NULL || sscanf(how, "exited on signal %d", &signal_number) != 1 ||
        sscanf(who + sizeof(words) - 1, "%d", &rank) != 1)
        return false;
    if (job->dead_rank < 0) {
        job->dead_rank = rank;
        job->dead_signal = signal_number;
    }
    return true;
}

/* What mpirun says of a rank that ended badly adds nothing to what the rank or judge_exit says. */
static bool hear_banner(void *user, const char *text)
{
    static const char *const needless[] = {"Primary job", "MPI_ABORT was invoked",
                                           "exited with non-zero status",
                                           "noticed that the job aborted"};
    for (size_t i = 0; i < COUNT_OF(needless); i++)
        if (strstr(text, needless[i]) != NULL)
            return true;
    return hear_named_rank(user, text);
}

static bool hangs(struct job *job, double now_s)
{
    double since_s = now_s - job->children_looked_s;
    if (job->request->ranks == 1 || since_s < CHILDREN_LOOK_S)
        return false;
    job->children_looked_s = now_s;
    /* A first look, or one after this program was stopped, and perhaps mpirun with it. */
    if (since_s > REAP_GRACE_S || count_children(launcher_pid).zombies == 0)
        job->reaped_s = now_s;
    return now_s - job->reaped_s > REAP_GRACE_S;
}

/* mpirun asks its ranks to end and kills those that do not. Where it does not get round to it, what
 * is on this host is killed from here, and daemons on others end when their mpirun is gone. */
static void look_after(void *user)
{
    struct job *job = user;
    double now_s = clock_s();
    if (!job->mpirun_hangs && hangs(job, now_s)) {
        job->mpirun_hangs = true;
        kill_children(launcher_pid);
        kill(launcher_pid, SIGKILL);
    } else if (job->ending_since_s == 0 && watch_judge(&job->watch, now_s, job->hung)) {
        job->ending_since_s = now_s;
        kill(launcher_pid, SIGTERM);
    } else if (job->ending_since_s > 0 && now_s - job->ending_since_s > END_GRACE_S) {
        kill_children(launcher_pid);
        kill(launcher_pid, SIGKILL);
    }
}

/* ---- the end ---- */

static enum status tell_death(struct job *job, struct error *err)
{
    const char *advice = job->request->on_death == NULL ? "" : job->request->on_death;
    job->end->is_death = !launch_interrupted();
    return error_set(err, STATUS_FAILED, "%s%s%s", job->end->what, *advice == '\0' ? "" : "; ",
                     advice);
}

static void describe_dead_rank(const struct job *job, int rank, int signal_number)
{
    int64_t step = watch_step(&job->watch, rank);
    char where[64] = "";
    if (step > 0)
        snprintf(where, sizeof where, ", last heard of at step %lld", (long long)step);
    else if (job->watch.is_begun)
        snprintf(where, sizeof where, " before its first step");
    snprintf(job->end->what, sizeof job->end->what, "rank %d died of signal %d (%s)%s", rank,
             signal_number, strsignal(signal_number), where);
}

/* Whether a rank, or mpirun itself, died or hung; end->what says which. */
static bool is_death(const struct job *job, int wait_status)
{
    struct launch_end *end = job->end;
    int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0;
    if (job->hung[0] != '\0')
        snprintf(end->what, sizeof end->what, "%s; all ranks were ended", job->hung);
    else if (job->dead_rank >= 0)
        describe_dead_rank(job, job->dead_rank, job->dead_signal);
    else if (job->mpirun_hangs)
        snprintf(end->what, sizeof end->what,
                 "a rank died%s, and mpirun hung; all ranks were ended",
                 job->watch.is_begun ? "" : " while starting");
    else if (WIFSIGNALED(wait_status) && job->request->ranks == 1)
        describe_dead_rank(job, 0, WTERMSIG(wait_status));
    else if (WIFSIGNALED(wait_status))
        snprintf(end->what, sizeof end->what, "mpirun died of signal %d (%s)",
                 WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
    else if (code > 128 && code < 128 + SIGNALS_END && job->request->ranks > 1)
        snprintf(end->what, sizeof end->what, "a rank died of signal %d (%s)", code - 128,
                 strsignal(code - 128));
    else
        return false;
    return true;
}

static enum status judge_exit(struct job *job, int wait_status, struct error *err)
{
    const char *advice = job->request->on_death == NULL ? "" : job->request->on_death;
    if (is_death(job, wait_status))
        return tell_death(job, err);
    int code = WEXITSTATUS(wait_status);
    if (code == 0 && job->relay.output_lost)
        return error_set(err, STATUS_IO,
                         "writing to standard output failed; the ranks' work is done");
    if (code == 0)
        return STATUS_OK;
    if (!job->relay.has_spoken)
        return error_set(
            err, STATUS_FAILED,
            "mpirun ended with exit code %d and no word from the ranks; `mpirun -np %d "
            "true` shows whether it works here%s%s",
            code, job->request->ranks, *advice == '\0' ? "" : "; ", advice);
    if (code == 2)
        return STATUS_USAGE;
    if (code == 3)
        return STATUS_INFEASIBLE;
    if (code == 1)
        return STATUS_FAILED; /* the rank has said why */
    return error_set(err, STATUS_FAILED, "mpirun ended with exit code %d%s%s", code,
                     *advice == '\0' ? "" : "; ", advice);
}

static enum status spawn_and_wait(char **arguments, struct job *job, struct error *err)
{
    struct sigaction forward = {.sa_handler = forward_signal};
    fflush(stdout);
    adopt_orphans();
    pid_t parent = getpid(), child = fork();
    if (child < 0)
        return error_set(err, STATUS_IO, "starting mpirun: fork: %s", strerror(errno));
    if (child == 0)
        become_mpirun(arguments, job, parent);
    launcher_pid = child;
    sigaction(SIGTERM, &forward, NULL);
    sigaction(SIGINT, &forward, NULL);
    /* Output that nobody reads any more is lost, the training is not. */
    signal(SIGPIPE, SIG_IGN);
    int wait_status = 0;
    enum status status = relay_until_exit(&job->relay, child, &wait_status, err);
    launcher_pid = 0;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    end_orphans();
    TRY(status);
    return judge_exit(job, wait_status, err);
}

enum status launch_ranks(const struct launch_request *request, struct launch_end *end,
                         struct error *err)
{
    char program[PROGRAM_PATH_BYTES];
    char ranks[16];
    struct launch_end unwanted = {0};
    struct job job = {.request = request, .end = end == NULL ? &unwanted : end, .dead_rank = -1};
    struct relay_listener listener = {
        .user = &job, .sign = hear_sign, .banner = hear_banner, .tick = look_after};
    *job.end = (struct launch_end){0};
    TRY(own_path(program, err));
    snprintf(ranks, sizeof ranks, "%d", request->ranks);
    char **arguments = build_arguments(request, program, ranks);
    if (arguments == NULL)
        return error_memory(err, (unsigned long long)request->argc * sizeof(char *),
                            "mpirun's arguments");
    if (request->restart == 0)
        warn_when_oversubscribed(request->ranks, request->threads);
    enum status status = watch_open(&job.watch, request->ranks, (double)request->timeout_s, err);
    if (status == STATUS_OK)
        status = relay_open(&job.relay, &listener, err);
    if (status == STATUS_OK) {
        status = spawn_and_wait(arguments, &job, err);
        relay_close(&job.relay);
    }
    watch_close(&job.watch);
    free(arguments);
    return status;
}

bool launch_interrupted(void)
{
    return signals_seen > 0;
}
