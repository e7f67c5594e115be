/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream socket, unix or TCP, as client or server. A server serves one client at a time; when it leaves, the next one
 * may come. Without a client output vanishes, as on an unplugged serial line.
 */
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/char/char_private.h"

struct socket_state {
    int listen_fd; /* -1: a client */
    char *unlink_path;
    struct loop_watch watch;
    bool watched;
};

static int unix_socket(const struct char_line_options *options, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(options->path) >= sizeof address.sun_path)
        return fail(err, ENAMETOOLONG, "'%s' is too long for a socket's path: at most %zu characters", options->path,
                    sizeof address.sun_path - 1),
               -1;
    strcpy(address.sun_path, options->path);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (options->server)
        unlink(options->path);
    int result = options->server ? bind(fd, (struct sockaddr *)&address, sizeof address)
                                 : connect(fd, (struct sockaddr *)&address, sizeof address);
    if (result < 0)
        return fail_errno(err, errno, "cannot %s '%s'", options->server ? "listen on" : "connect to", options->path),
               -1;
    return TAKE_FD(fd);
}

static int tcp_socket(const struct char_line_options *options, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = options->server ? AI_PASSIVE : 0}, *list = NULL;
    const char *host = options->host && *options->host ? options->host : NULL;
    const char *shown = host ? host : "";
    int result = getaddrinfo(host, options->port, &hints, &list), error = EADDRNOTAVAIL, fd = -1;
    if (result)
        return fail(err, EINVAL, "'%s:%s': %s", shown, options->port, gai_strerror(result)), -1;
    for (struct addrinfo *at = list; at && fd < 0; at = at->ai_next) {
        int one = 1;
        fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol);
        if (fd < 0)
            continue;
        if (options->server)
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if ((options->server ? bind : connect)(fd, at->ai_addr, at->ai_addrlen) < 0) {
            error = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        fail_errno(err, error, "cannot %s '%s:%s'", options->server ? "listen on" : "connect to", shown, options->port);
    return fd;
}

static void start_connection(struct char_line *line, int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* unix sockets refuse: fine */
    char_line_set_nonblocking(fd, NULL);
    char_line_connected(line, fd, fd);
}

static void stop_listening(struct socket_state *state)
{
    if (state->watched)
        loop_unwatch(&state->watch);
    state->watched = false;
}

static void client_waits(void *arg, uint32_t events)
{
    struct char_line *line = arg;
    struct socket_state *state = line->kind;
    int fd = accept4(state->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    stop_listening(state);
    start_connection(line, fd);
}

static void start_listening(struct char_line *line)
{
    struct socket_state *state = line->kind;
    if (!state->watched)
        loop_watch(line->loop, &state->watch, state->listen_fd, EPOLLIN, client_waits, line);
    state->watched = true;
}

static void socket_ended(struct char_line *line)
{
    struct socket_state *state = line->kind;
    char_line_disconnected(line);
    if (state->listen_fd >= 0)
        start_listening(line);
}

static bool serve(struct char_line *line, const struct char_line_options *options, int fd, struct error *err)
{
    struct socket_state *state = line->kind;
    state->listen_fd = fd;
    if (options->path)
        state->unlink_path = xstrdup(options->path);
    if (listen(fd, 1) < 0)
        return fail_errno(err, errno, "cannot listen");
    if (!options->wait) {
        char_line_set_nonblocking(fd, NULL);
        start_listening(line);
        return true;
    }
    log_info("chardev '%s': waiting for a client on %s", options->id, line->description);
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return fail_errno(err, errno, "cannot accept a client");
    char_line_set_nonblocking(fd, NULL);
    start_connection(line, client);
    return true;
}

static bool socket_open(struct char_line *line, const struct char_line_options *options, struct error *err)
{
    struct socket_state *state = line->kind = new (struct socket_state);
    state->listen_fd = -1;
    if (!options->path == !options->port)
        return fail(err, EINVAL, "a socket needs either path=PATH or host=HOST,port=PORT");
    free(line->description);
    const char *suffix = options->server ? ",server=on" : "";
    line->description = options->path
                            ? xasprintf("unix:%s%s", options->path, suffix)
                            : xasprintf("tcp:%s:%s%s", options->host ? options->host : "", options->port, suffix);
    int fd = options->path ? unix_socket(options, err) : tcp_socket(options, err);
    if (fd < 0)
        return false;
    if (options->server)
        return serve(line, options, fd, err);
    start_connection(line, fd);
    return true;
}

static void socket_close(struct char_line *line)
{
    struct socket_state *state = line->kind;
    stop_listening(state);
    if (state->listen_fd >= 0)
        close(state->listen_fd);
    if (state->unlink_path)
        unlink(state->unlink_path);
    free(state->unlink_path);
    free(state);
}

const struct char_line_ops char_line_socket_ops = {.open = socket_open, .ended = socket_ended, .close = socket_close};
