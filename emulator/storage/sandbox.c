/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting a child behind walls: see the header.
 *
 * Between fork and exec only plain system calls are made, on what was prepared before: other threads may have held the
 * allocator's locks. A pipe that closes itself with a successful exec carries the number of the error otherwise.
 */
#include "emulator/storage/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/cleanup.h"

enum { FIRST_FD = 3 };

/* For user name spaces: we are in there who we are outside. */
struct identity {
    char user_map[32], group_map[32];
};

static struct identity our_identity(void)
{
    struct identity identity;
    snprintf(identity.user_map, sizeof identity.user_map, "%u %u 1", geteuid(), geteuid());
    snprintf(identity.group_map, sizeof identity.group_map, "%u %u 1", getegid(), getegid());
    return identity;
}

/* The child ------------------------------------------------------------------------------------------------------ */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return good;
}

/* Root may do this at once, and keeps its rights on other users' files. Everybody else needs a user name space around
 * it; where those are switched off, the other walls must do. */
static void leave_network(const struct identity *identity)
{
    if (unshare(CLONE_NEWNET | CLONE_NEWIPC) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) < 0)
        return;
    /* Without the maps the child would be nobody, and opening its images would say so. */
    if (write_text("/proc/self/setgroups", "deny") && write_text("/proc/self/uid_map", identity->user_map))
        write_text("/proc/self/gid_map", identity->group_map);
}

/* Moves the named descriptors to 3, 4, ..., the report behind them, and closes the rest. False with errno. */
static bool arrange_descriptors(const struct sandbox *sandbox, int *report)
{
    int beyond = FIRST_FD + (int)sandbox->fd_count, moved[64];
    for (size_t i = 0; i < sandbox->fd_count; i++) {
        moved[i] = fcntl(sandbox->fds[i], F_DUPFD_CLOEXEC, beyond + 1); /* out of the way of all targets */
        if (moved[i] < 0)
            return false;
    }
    int out = sandbox->out >= 0 ? fcntl(sandbox->out, F_DUPFD_CLOEXEC, beyond + 1) : -1;
    int high = fcntl(*report, F_DUPFD_CLOEXEC, beyond + 1);
    if (high < 0 || (sandbox->out >= 0 && out < 0))
        return false;
    *report = high;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out >= 0 ? out : null, 1) < 0)
        return false;
    for (size_t i = 0; i < sandbox->fd_count; i++) {
        if (dup2(moved[i], FIRST_FD + (int)i) < 0)
            return false;
    }
    if (dup3(high, beyond, O_CLOEXEC) < 0)
        return false;
    *report = beyond;
    return close_range((unsigned)beyond + 1, ~0u, 0) == 0;
}

_Noreturn static void run_child(const struct sandbox *sandbox, const struct identity *identity, pid_t parent,
                                int report)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    if (!sandbox->keep_network)
        leave_network(identity);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* after the name spaces: a change of credentials would take it back */
    if (getppid() != parent)
        _exit(1); /* the parent died before we asked for the signal */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && arrange_descriptors(sandbox, &report))
        execvp(sandbox->program, sandbox->argv);
    int code = errno;
    ssize_t written = write(report, &code, sizeof code);
    _exit(written == sizeof code ? 127 : 126);
}

/* The parent ----------------------------------------------------------------------------------------------------- */

/* What the child says went wrong; 0: it runs. */
static int read_report(int fd)
{
    int code = 0;
    ssize_t got;
    do {
        got = read(fd, &code, sizeof code);
    } while (got < 0 && errno == EINTR);
    return got == sizeof code ? code : 0;
}

pid_t sandbox_spawn(const struct sandbox *sandbox, struct error *err)
{
    int report[2];
    if (sandbox->fd_count > 64)
        return fail(err, E2BIG, "%zu descriptors for one child: at most 64", sandbox->fd_count), -1;
    if (pipe2(report, O_CLOEXEC) < 0)
        return fail_errno(err, errno, "cannot make a pipe"), -1;
    struct identity identity = our_identity();
    pid_t parent = getpid(), pid = fork();
    int code = errno;
    if (pid == 0)
        run_child(sandbox, &identity, parent, report[1]);
    close(report[1]);
    if (pid > 0)
        code = read_report(report[0]);
    close(report[0]);
    if (pid > 0 && !code)
        return pid;
    if (pid > 0)
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    return fail_errno(err, code, "cannot start '%s'", sandbox->program), -1;
}
