/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The private storage daemon: a child process that owns the images of this machine.
 *
 * It is told everything over QMP on a socket pair that no one else can reach. Its export sockets are made here, before
 * it starts, and their names are gone from the file system before anybody could use them: we keep a handle of each (an
 * O_PATH descriptor, which connect(2) takes by way of /proc/self/fd), the child inherits the listening ends. So there
 * is nothing to clean up, not even when this process is killed. What else the child loses: emulator/storage/sandbox.h.
 *
 * It ends when we end. When it ends before us, the machine's disks are gone in the middle of work, as after a power
 * cut; it is not started again under the running guest, because writes that it had answered but not yet stored would
 * silently be missing from then on. The owner is told and ends the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/vec.h"
#include "emulator/storage/internal.h"
#include "emulator/storage/sandbox.h"

enum { ANSWER_TIMEOUT_MS = 30000, STOP_TIMEOUT_MS = 60000, MAX_ANSWER = 64 << 20 };
enum { FIRST_ENDPOINT_FD = 4 }; /* in the child: 3 is its monitor */

/* A listening socket without a name. */
struct endpoint {
    int listening; /* the child's end; -1 once it has it */
    int handle;    /* O_PATH */
};

struct private_daemon {
    pid_t pid;     /* 0: has ended and been waited for */
    int pidfd, fd; /* the process; its monitor. -1: none */
    bool broken;   /* an answer did not come in time: the conversation is out of step */
    struct loop_watch end_watch, event_watch;
    vec(struct endpoint) endpoints;
    void (*on_death)(void *arg, const char *how);
    void *arg;
    struct json_stream *answers;
    char buffer[65536];
    const char *data; /* received, not yet parsed */
    size_t length;
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

/* Endpoints ------------------------------------------------------------------------------------------------------ */

static bool open_endpoint(struct endpoint *endpoint, const char *folder, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/s", folder);
    endpoint->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (endpoint->listening < 0 || bind(endpoint->listening, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(endpoint->listening, SOMAXCONN) < 0)
        return fail_errno(err, errno, "cannot make a socket in '%s'", folder);
    endpoint->handle = open(address.sun_path, O_PATH | O_CLOEXEC);
    int code = errno;
    unlink(address.sun_path);
    return endpoint->handle >= 0 || fail_errno(err, code, "cannot open the socket in '%s'", folder);
}

static bool open_endpoints(struct private_daemon *daemon, size_t count, struct error *err)
{
    const char *base = getenv("XDG_RUNTIME_DIR");
    if (!base || access(base, W_OK | X_OK) || strlen(base) > 60) /* names of sockets are short: 107 bytes */
        base = "/tmp";
    auto_free char *folder = xasprintf("%s/spindle-XXXXXX", base);
    if (!mkdtemp(folder))
        return fail_errno(err, errno, "cannot make a private folder '%s'", folder);
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        struct endpoint endpoint = {-1, -1};
        good = open_endpoint(&endpoint, folder, err);
        vec_push(&daemon->endpoints, endpoint);
    }
    rmdir(folder);
    return good;
}

static void close_listening(struct private_daemon *daemon)
{
    for (size_t i = 0; i < daemon->endpoints.count; i++) {
        if (daemon->endpoints.items[i].listening >= 0)
            close(TAKE_FD(daemon->endpoints.items[i].listening));
    }
}

char *private_daemon_connect_path(const struct private_daemon *daemon, size_t endpoint)
{
    return xasprintf("/proc/self/fd/%d", daemon->endpoints.items[endpoint].handle);
}

char *private_daemon_listen_fd(size_t endpoint)
{
    return xasprintf("%zu", FIRST_ENDPOINT_FD + endpoint);
}

/* QMP, blocking -------------------------------------------------------------------------------------------------- */

/* The next value that is complete in what has been received; NULL without an error: more is needed. */
static struct json *parse_next(struct private_daemon *daemon, struct error *err)
{
    struct json *value = NULL;
    json_stream_read(daemon->answers, &daemon->data, &daemon->length, &value, err);
    return value;
}

/* 1: something came; 0: nothing was there (only with `flags` MSG_DONTWAIT); -1: the daemon has ended. */
static int receive_more(struct private_daemon *daemon, int flags)
{
    ssize_t got;
    do {
        got = recv(daemon->fd, daemon->buffer, sizeof daemon->buffer, flags);
    } while (got < 0 && errno == EINTR);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
    daemon->data = daemon->buffer;
    daemon->length = (size_t)got;
    return 1;
}

static int wait_readable(int fd, int timeout_ms)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&readable, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready;
}

static struct json *next_value(struct private_daemon *daemon, struct error *err)
{
    for (;;) {
        auto_error broken = {0};
        struct json *value = parse_next(daemon, &broken);
        if (value)
            return value;
        if (!error_is_set(&broken) && wait_readable(daemon->fd, ANSWER_TIMEOUT_MS) == 0)
            fail(&broken, ETIMEDOUT, "the private storage daemon has not answered for %d s", ANSWER_TIMEOUT_MS / 1000);
        if (!error_is_set(&broken) && receive_more(daemon, 0) < 0)
            fail(&broken, EPIPE, "the private storage daemon has ended");
        if (error_is_set(&broken)) {
            daemon->broken = true;
            error_move(err, &broken);
            return NULL;
        }
    }
}

/* What the user should hear of; the rest is for management, which has a monitor of its own. */
static void report_event(const struct json *event)
{
    const char *name = json_string(json_get(event, "event"));
    if (!name || strcmp(name, "BLOCK_IMAGE_CORRUPTED"))
        return;
    const struct json *data = json_get(event, "data");
    const char *node = json_string(json_get(data, "node-name")), *message = json_string(json_get(data, "msg"));
    log_error("block device '%s': the image is damaged: %s", node ? node : "?", message ? message : "?");
}

/* Nobody waits for an answer: these are events. Left unread, they would fill the socket and then the daemon's memory.
 */
static void on_events(void *arg, uint32_t events)
{
    struct private_daemon *daemon = arg;
    do { /* first what came behind the last answer */
        struct json *value;
        while ((value = parse_next(daemon, NULL))) {
            report_event(value);
            json_free(value);
        }
    } while (receive_more(daemon, MSG_DONTWAIT) > 0);
    if (events & (EPOLLHUP | EPOLLRDHUP))
        loop_unwatch(&daemon->event_watch); /* the other watch tells of the end */
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
    while (!daemon->broken && sent < length) {
        ssize_t part = send(daemon->fd, line + sent, length - sent, MSG_NOSIGNAL);
        if (part < 0 && errno != EINTR)
            daemon->broken = true;
        sent += part > 0 ? (size_t)part : 0;
    }
    return !daemon->broken;
}

struct json *private_daemon_command(struct private_daemon *daemon, const char *name, struct json *arguments,
                                    struct error *err)
{
    if (!send_command(daemon, name, arguments))
        return fail_null(err, EPIPE, "the private storage daemon has ended");
    for (;;) {
        struct json *answer = next_value(daemon, err);
        if (!answer)
            return NULL;
        struct json *result = json_take(answer, "return");
        const struct json *error = json_get(answer, "error");
        const char *description = json_string(json_get(error, "desc"));
        if (!result && error)
            fail(err, EINVAL, "%s", description ? description : name);
        if (!result && !error)
            report_event(answer);
        bool done = result || error;
        json_free(answer);
        if (done)
            return result;
    }
}

/* Life ----------------------------------------------------------------------------------------------------------- */

/* Waits for a child that has ended and says how, in words. */
static char *reap(struct private_daemon *daemon)
{
    int status = 0;
    pid_t got;
    do {
        got = waitpid(daemon->pid, &status, 0);
    } while (got < 0 && errno == EINTR);
    daemon->pid = 0;
    if (WIFSIGNALED(status))
        return xasprintf("was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    return xasprintf("ended with status %d", WEXITSTATUS(status));
}

static void on_end(void *arg, uint32_t events)
{
    struct private_daemon *daemon = arg;
    (void)events;
    loop_unwatch(&daemon->end_watch);
    loop_unwatch(&daemon->event_watch);
    auto_free char *how = reap(daemon);
    daemon->broken = true;
    daemon->on_death(daemon->arg, how);
}

static bool start_process(struct private_daemon *daemon, const char *program, bool network, struct error *err)
{
    static const char monitor[] = "socket,id=private,fd=3,server=off";
    char *const argv[] = {"spindle-storage-daemon",
                          "--sandbox",
                          network ? "on" : "on,network=deny",
                          "--chardev",
                          (char *)monitor,
                          "--monitor",
                          "private",
                          NULL};
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(err, errno, "cannot make a socket pair");
    daemon->fd = pair[0];
    vec(int) fds = {0};
    vec_push(&fds, pair[1]);
    for (size_t i = 0; i < daemon->endpoints.count; i++)
        vec_push(&fds, daemon->endpoints.items[i].listening);
    struct sandbox sandbox = {
        .program = program, .argv = argv, .fds = fds.items, .fd_count = fds.count, .out = -1, .keep_network = network};
    daemon->pid = sandbox_spawn(&sandbox, err);
    vec_free(&fds);
    close(pair[1]);
    close_listening(daemon);
    if (daemon->pid < 0) {
        daemon->pid = 0;
        return false;
    }
    daemon->pidfd = pidfd_open(daemon->pid, 0);
    return daemon->pidfd >= 0 || fail_errno(err, errno, "cannot watch the process");
}

static bool greet(struct private_daemon *daemon, struct error *err)
{
    struct json *greeting = next_value(daemon, err);
    json_free(greeting);
    struct json *ready = greeting ? private_daemon_command(daemon, "qmp_capabilities", NULL, err) : NULL;
    bool good = ready != NULL;
    json_free(ready);
    return good;
}

struct private_daemon *private_daemon_start(const struct private_daemon_settings *settings, struct error *err)
{
    auto_free char *program = storage_program_path("spindle-storage-daemon");
    struct private_daemon *daemon = new (struct private_daemon);
    daemon->fd = daemon->pidfd = -1;
    daemon->answers = json_stream_new(MAX_ANSWER);
    daemon->on_death = settings->on_death;
    daemon->arg = settings->arg;
    if (open_endpoints(daemon, settings->endpoints, err) && start_process(daemon, program, settings->network, err) &&
        greet(daemon, err)) {
        loop_watch(settings->loop, &daemon->end_watch, daemon->pidfd, EPOLLIN, on_end, daemon);
        loop_watch(settings->loop, &daemon->event_watch, daemon->fd, EPOLLIN | EPOLLRDHUP, on_events, daemon);
        return daemon;
    }
    fail_prefix(err, "private storage daemon ('%s'): ", program);
    private_daemon_stop(daemon);
    return NULL;
}

/* A child that hangs is killed in the end: its images are as after a power cut, no worse. */
static void wait_for_end(struct private_daemon *daemon)
{
    if (daemon->pidfd >= 0 && wait_readable(daemon->pidfd, STOP_TIMEOUT_MS) == 0) {
        log_warning("the private storage daemon did not end within %d s and is killed", STOP_TIMEOUT_MS / 1000);
        kill(daemon->pid, SIGKILL);
    }
    free(reap(daemon));
}

void private_daemon_stop(struct private_daemon *daemon)
{
    loop_unwatch(&daemon->end_watch);
    loop_unwatch(&daemon->event_watch);
    if (daemon->pid > 0) {
        struct json *answer = private_daemon_command(daemon, "quit", NULL, NULL);
        if (!answer)
            kill(daemon->pid, SIGTERM);
        json_free(answer);
        wait_for_end(daemon);
    }
    if (daemon->fd >= 0)
        close(daemon->fd);
    if (daemon->pidfd >= 0)
        close(daemon->pidfd);
    close_listening(daemon);
    for (size_t i = 0; i < daemon->endpoints.count; i++) {
        if (daemon->endpoints.items[i].handle >= 0)
            close(daemon->endpoints.items[i].handle);
    }
    vec_free(&daemon->endpoints);
    json_stream_free(daemon->answers);
    free(daemon);
}
