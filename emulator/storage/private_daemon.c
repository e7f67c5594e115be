/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private storage daemon: a child process that owns the images of this machine.
 *
 * It is told everything over QMP on a socket pair that no one else can reach; its export sockets lie in a folder that
 * only this user may enter. Before it starts it loses what it has no use for: the network (a name space of its own,
 * where the kernel allows one), new privileges, core dumps, and every descriptor of ours. It ends when we end, however
 * we end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/storage/internal.h"

enum { ANSWER_TIMEOUT_MS = 30000, STOP_TIMEOUT_MS = 60000, MAX_ANSWER = 64 << 20 };

struct private_daemon {
    pid_t pid;
    int fd; /* QMP */
    char *folder;
    struct json_stream *answers;
    struct json *greeting;
};

char *storage_program_path(const char *name)
{
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length <= 0)
        return xstrdup(name);
    self[length] = '\0';
    char *slash = strrchr(self, '/');
    char *beside = xasprintf("%.*s/%s", (int)(slash - self), self, name);
    if (access(beside, X_OK) == 0)
        return beside;
    free(beside);
    return xstrdup(name); /* found by PATH */
}

/* The child ------------------------------------------------------------------------------------------------------ */

static void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, text, strlen(text)) < 0) {
        /* without the mapping the files are owned by nobody there; opening them says so */
    }
    close(fd);
}

/* No network and no System V IPC. Where user name spaces are switched off this fails, and the other walls must do. */
static void leave_network(void)
{
    uid_t user = geteuid();
    gid_t group = getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC) < 0)
        return;
    char map[64];
    write_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", user, user);
    write_text("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", group, group);
    write_text("/proc/self/gid_map", map);
}

_Noreturn static void run_child(const char *program, int qmp, pid_t parent)
{
    enum { QMP_FD = 3 };
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1); /* the parent died before we asked for the signal */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is the guest's or the emulator's business */
    setpgid(0, 0);
    leave_network();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(null, 1);
    if (qmp == QMP_FD)
        fcntl(qmp, F_SETFD, 0);
    else
        dup2(qmp, QMP_FD);
    close_range(QMP_FD + 1, ~0u, 0);
    execlp(program, "spindle-storage-daemon", "--chardev", "socket,id=private,fd=3,server=off", "--monitor", "private",
           NULL);
    dprintf(2, "cannot start '%s': %s\n", program, strerror(errno));
    _exit(127);
}

/* QMP, blocking -------------------------------------------------------------------------------------------------- */

static struct json *next_value(struct private_daemon *daemon, int timeout_ms, struct error *err)
{
    char buffer[65536];
    size_t length = 0;
    const char *data = buffer;
    for (;;) {
        struct json *value = NULL;
        switch (json_stream_read(daemon->answers, &data, &length, &value, err)) {
        case JSON_STREAM_VALUE: return value;
        case JSON_STREAM_ERROR: return NULL;
        default: break;
        }
        struct pollfd readable = {.fd = daemon->fd, .events = POLLIN};
        int ready = poll(&readable, 1, timeout_ms);
        if (ready == 0)
            return fail_null(err, ETIMEDOUT, "the private storage daemon does not answer");
        ssize_t got = ready < 0 ? -1 : recv(daemon->fd, buffer, 1, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return fail_null(err, EPIPE, "the private storage daemon has ended");
        data = buffer;
        length = (size_t)got;
    }
}

static bool send_command(struct private_daemon *daemon, const char *name, struct json *arguments)
{
    struct json *request = json_new_object();
    json_set(request, "execute", json_new_string(name));
    if (arguments)
        json_set(request, "arguments", arguments);
    auto_free char *text = json_to_text(request);
    json_free(request);
    auto_free char *line = xasprintf("%s\n", text);
    size_t length = strlen(line), sent = 0;
    while (sent < length) {
        ssize_t part = send(daemon->fd, line + sent, length - sent, MSG_NOSIGNAL);
        if (part < 0 && errno != EINTR)
            return false;
        sent += part > 0 ? (size_t)part : 0;
    }
    return true;
}

struct json *private_daemon_command(struct private_daemon *daemon, const char *name, struct json *arguments,
                                    struct error *err)
{
    if (!send_command(daemon, name, arguments))
        return fail_null(err, EPIPE, "the private storage daemon has ended");
    for (;;) {
        struct json *answer = next_value(daemon, ANSWER_TIMEOUT_MS, err);
        if (!answer)
            return NULL;
        struct json *result = json_take(answer, "return");
        const struct json *error = json_get(answer, "error");
        if (!result && error)
            fail(err, EINVAL, "%s", json_string(json_get(error, "desc")));
        bool done = result || error; /* else an event */
        json_free(answer);
        if (done)
            return result;
    }
}

/* Life ----------------------------------------------------------------------------------------------------------- */

char *private_daemon_path(const struct private_daemon *daemon, const char *name)
{
    return xasprintf("%s/%s", daemon->folder, name);
}

static char *make_folder(struct error *err)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (!base || strlen(base) > 60) /* paths of sockets are short: 107 bytes */
        base = "/tmp";
    char *folder = xasprintf("%s/spindle-XXXXXX", base);
    if (mkdtemp(folder))
        return folder;
    fail_errno(err, errno, "cannot make a private folder '%s'", folder);
    free(folder);
    return NULL;
}

struct private_daemon *private_daemon_start(struct error *err)
{
    int pair[2];
    char *folder = make_folder(err);
    if (!folder)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        fail_errno(err, errno, "cannot make a socket pair for the private storage daemon");
        rmdir(folder);
        free(folder);
        return NULL;
    }
    struct private_daemon *daemon = new (struct private_daemon);
    daemon->folder = folder;
    daemon->fd = pair[0];
    daemon->answers = json_stream_new(MAX_ANSWER);
    auto_free char *program = storage_program_path("spindle-storage-daemon");
    pid_t parent = getpid();
    daemon->pid = fork();
    if (daemon->pid == 0)
        run_child(program, pair[1], parent);
    close(pair[1]);
    struct json *greeting = daemon->pid < 0 ? NULL : next_value(daemon, ANSWER_TIMEOUT_MS, err);
    struct json *ready = greeting ? private_daemon_command(daemon, "qmp_capabilities", NULL, err) : NULL;
    bool good = ready != NULL;
    json_free(greeting);
    json_free(ready);
    if (good)
        return daemon;
    fail_prefix(err, "private storage daemon ('%s'): ", program);
    private_daemon_stop(daemon);
    return NULL;
}

/* Waits for the child; a child that hangs is told so and then killed: its images are as after a power cut, no worse. */
static void wait_for_end(pid_t pid)
{
    for (int waited_ms = 0; waited_ms < STOP_TIMEOUT_MS; waited_ms += 10) {
        if (waitpid(pid, NULL, WNOHANG) != 0)
            return;
        usleep(10000);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void private_daemon_stop(struct private_daemon *daemon)
{
    if (daemon->pid > 0) {
        struct json *answer = private_daemon_command(daemon, "quit", NULL, NULL);
        if (!answer)
            kill(daemon->pid, SIGTERM);
        json_free(answer);
        wait_for_end(daemon->pid);
    }
    close(daemon->fd);
    auto_free char *nbd = private_daemon_path(daemon, "nbd");
    unlink(nbd);
    rmdir(daemon->folder);
    json_stream_free(daemon->answers);
    free(daemon->folder);
    free(daemon);
}
