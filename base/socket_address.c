/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From addresses to sockets: resolve, connect, listen, accept. None of it is hot, so it uses plain system calls and
 * waits with loop_wait_fd() or watches. Names are resolved on the worker pool, since getaddrinfo(3) blocks.
 *
 * A listener has a socket for every address that its name resolves to ("localhost" is two). The path of a unix socket
 * on which nobody listens any more is taken over; one that is alive is an error.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop_private.h"
#include "base/socket_private.h"

/* --- names --- */

char *socket_name(const struct sockaddr_storage *address, socklen_t length)
{
    if (address->ss_family == AF_UNIX) {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        size_t room =
            length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
        return xasprintf("unix:%.*s", (int)strnlen(un->sun_path, room), un->sun_path);
    }
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo((const struct sockaddr *)address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return xstrdup("unknown address");
    return address->ss_family == AF_INET6 ? xasprintf("[%s]:%s", host, port) : xasprintf("%s:%s", host, port);
}

static char *address_text(const struct stream_address *address)
{
    switch (address->kind) {
    case SOCKET_UNIX: return xasprintf("unix:%s", address->path);
    case SOCKET_INET: return xasprintf("%s:%s", address->host ? address->host : "", address->port);
    case SOCKET_FD: return xasprintf("fd:%d", address->fd);
    }
    abort();
}

static bool fill_unix(struct sockaddr_un *un, const char *path, struct error *err)
{
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof un->sun_path)
        return fail(err, ENAMETOOLONG, "unix socket path '%s': %zu bytes, at most %zu are possible", path, strlen(path),
                    sizeof un->sun_path - 1);
    if (!*path)
        return fail(err, EINVAL, "unix socket path: must not be empty");
    strcpy(un->sun_path, path);
    return true;
}

struct resolve_call {
    const char *host, *port;
    struct addrinfo hints, *result;
    int code;
};

static void do_resolve(void *arg)
{
    struct resolve_call *call = arg;
    call->code = getaddrinfo(call->host, call->port, &call->hints, &call->result);
}

static struct addrinfo *resolve(const struct stream_address *address, int flags, struct error *err)
{
    if (address->ipv4_only && address->ipv6_only)
        return fail_null(err, EINVAL, "address '%s:%s': neither IPv4 nor IPv6 is allowed", address->host,
                         address->port);
    size_t digits = strspn(address->port, "0123456789");
    if (digits && !address->port[digits] && (digits > 5 || atoi(address->port) > UINT16_MAX))
        return fail_null(err, EINVAL, "port '%s': must be at most 65535", address->port); /* getaddrinfo() cuts it */
    struct resolve_call call = {
        .host = address->host && *address->host ? address->host : NULL,
        .port = address->port,
        .hints = {.ai_family = address->ipv4_only   ? AF_INET
                               : address->ipv6_only ? AF_INET6
                                                    : AF_UNSPEC,
                  .ai_socktype = SOCK_STREAM,
                  .ai_flags = flags},
    };
    if (co_self())
        co_offload(do_resolve, &call);
    else
        do_resolve(&call);
    if (call.code)
        return fail_null(err, call.code == EAI_SYSTEM ? errno : ENOENT, "cannot resolve address '%s:%s': %s",
                         address->host ? address->host : "", address->port, gai_strerror(call.code));
    return call.result;
}

static void cleanup_addrinfo(struct addrinfo **list)
{
    if (*list)
        freeaddrinfo(*list);
}
#define auto_addrinfo __attribute__((cleanup(cleanup_addrinfo))) struct addrinfo

/* Requests and replies are small and must not wait for each other. */
static void set_no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not a TCP socket: no harm */
}

/* --- connecting --- */

/* How long to wait before a unix socket whose listener's backlog is full is tried again. */
#define BACKLOG_RETRY_NS 10000000

static int connect_fd(struct loop *loop, int fd, const struct sockaddr *address, socklen_t length)
{
    while (connect(fd, address, length)) {
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN) {
            int code = co_sleep_ns(BACKLOG_RETRY_NS);
            if (code)
                return code;
            continue;
        }
        if (errno != EINPROGRESS)
            return -errno;
        int events = loop_wait_fd(loop, fd, EPOLLOUT);
        if (events < 0)
            return events;
        int code;
        socklen_t size = sizeof code;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size);
        return -code;
    }
    return 0;
}

static struct stream *connect_to(struct loop *loop, const struct sockaddr *address, socklen_t length, int *code)
{
    auto_close int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *code = fd < 0 ? -errno : FAULTY(CONNECT, connect_fd(loop, fd, address, length));
    if (*code)
        return NULL;
    if (address->sa_family != AF_UNIX)
        set_no_delay(fd);
    return stream_from_fd(loop, TAKE_FD(fd));
}

static struct stream *connect_inet(struct loop *loop, const struct stream_address *address, struct error *err)
{
    auto_addrinfo *list = resolve(address, AI_ADDRCONFIG, err);
    int code = -ENOENT;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        struct stream *stream = connect_to(loop, a->ai_addr, a->ai_addrlen, &code);
        if (stream)
            return stream;
        if (code == -ECANCELED)
            break;
    }
    if (!list)
        return NULL;
    return fail_errno_null(err, code, "cannot connect to '%s:%s'", address->host ? address->host : "", address->port);
}

static struct stream *connect_unix(struct loop *loop, const struct stream_address *address, struct error *err)
{
    struct sockaddr_un un;
    if (!fill_unix(&un, address->path, err))
        return NULL;
    int code;
    struct stream *stream = connect_to(loop, (struct sockaddr *)&un, sizeof un, &code);
    return stream ? stream : fail_errno_null(err, code, "cannot connect to unix socket '%s'", address->path);
}

struct stream *stream_connect(struct loop *loop, const struct stream_address *address, struct error *err)
{
    if (loop->sim)
        return sim_stream_connect(loop, address, err);
    switch (address->kind) {
    case SOCKET_UNIX: return connect_unix(loop, address, err);
    case SOCKET_INET: return connect_inet(loop, address, err);
    case SOCKET_FD: return stream_from_fd(loop, address->fd);
    }
    abort();
}

/* --- listening --- */

#define MAX_SOCKETS 8

struct socket_listener {
    struct listener listener;
    int fds[MAX_SOCKETS];
    int count;
    char *path_to_remove;
    bool closed;
    struct accept_wait *waiting; /* a list by `next`: who must hear of the close */
};

/* On the stack of an accepting coroutine; `listener` becomes NULL when the listener is closed under it. */
struct accept_wait {
    struct accept_wait *next;
    struct socket_listener *listener;
    struct co *co;
    bool fired;
};

static const struct listener_ops socket_listener_ops;

static void close_sockets(struct socket_listener *listener)
{
    for (int i = 0; i < listener->count; i++)
        close(listener->fds[i]);
    listener->count = 0;
}

static bool start_listening(struct socket_listener *listener, int fd, int backlog, struct error *err)
{
    auto_close int owned = fd;
    if (listen(fd, backlog > 0 ? backlog : SOMAXCONN))
        return fail_errno(err, errno, "cannot listen");
    listener->fds[listener->count++] = TAKE_FD(owned);
    return true;
}

/* Nobody accepts at this path: what a program that was killed leaves behind. */
static bool is_stale(const struct sockaddr_un *un)
{
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)un, sizeof *un) && errno == ECONNREFUSED;
}

/* 0 or a positive errno value; EADDRINUSE: somebody is listening there. */
static int bind_unix(int fd, const struct sockaddr_un *un)
{
    if (!bind(fd, (const struct sockaddr *)un, sizeof *un))
        return 0;
    if (errno != EADDRINUSE)
        return errno;
    if (!is_stale(un) || unlink(un->sun_path))
        return EADDRINUSE;
    return bind(fd, (const struct sockaddr *)un, sizeof *un) ? errno : 0;
}

/* A process that was killed is heard of for a moment longer, until the kernel has ended its I/O: a path is taken only
 * when somebody has listened there for a second. */
#define TAKEN_RETRY_NS 20000000
#define TAKEN_RETRIES 50

static bool listen_unix(struct socket_listener *listener, const struct stream_address *address, int backlog,
                        struct error *err)
{
    struct sockaddr_un un;
    if (!fill_unix(&un, address->path, err))
        return false;
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail_errno(err, errno, "unix socket '%s'", address->path);
    int code = bind_unix(fd, &un);
    for (int i = 0; code == EADDRINUSE && i < TAKEN_RETRIES && co_self() && !co_sleep_ns(TAKEN_RETRY_NS); i++)
        code = bind_unix(fd, &un);
    if (code)
        return fail_errno(err, code, "cannot listen on unix socket '%s'", address->path);
    listener->path_to_remove = xstrdup(address->path);
    return start_listening(listener, TAKE_FD(fd), backlog, err);
}

static void set_port(struct sockaddr *address, in_port_t port)
{
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = port;
    else
        ((struct sockaddr_in *)address)->sin_port = port;
}

static in_port_t port_of(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                          : ((const struct sockaddr_in *)address)->sin_port;
}

/* 0 or -errno. */
static int listen_inet_one(struct socket_listener *listener, const struct addrinfo *a, int backlog)
{
    auto_close int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on); /* IPv4 has a socket of its own */
    /* Port 0: all sockets get the port that the kernel chose for the first. */
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    if (listener->count && !getsockname(listener->fds[0], (struct sockaddr *)&bound, &length))
        set_port(a->ai_addr, port_of(&bound));
    if (bind(fd, a->ai_addr, a->ai_addrlen))
        return -errno;
    if (listen(fd, backlog > 0 ? backlog : SOMAXCONN))
        return -errno;
    listener->fds[listener->count++] = TAKE_FD(fd);
    return 0;
}

static bool listen_inet(struct socket_listener *listener, const struct stream_address *address, int backlog,
                        struct error *err)
{
    auto_addrinfo *list = resolve(address, AI_PASSIVE, err);
    if (!list)
        return false;
    int code = 0;
    for (struct addrinfo *a = list; a && listener->count < MAX_SOCKETS; a = a->ai_next) {
        int result = listen_inet_one(listener, a, backlog);
        /* A machine without IPv6 still resolves to its addresses; a port in use is an error for any of them. */
        if (result == -EADDRINUSE || (result && !listener->count))
            code = result;
        if (result == -EADDRINUSE)
            break;
    }
    if (code == -EADDRINUSE || !listener->count)
        return fail_errno(err, code, "cannot listen on '%s:%s'", address->host ? address->host : "", address->port);
    return true;
}

static bool listen_any(struct socket_listener *listener, const struct stream_address *address, int backlog,
                       struct error *err)
{
    switch (address->kind) {
    case SOCKET_UNIX: return listen_unix(listener, address, backlog, err);
    case SOCKET_INET: return listen_inet(listener, address, backlog, err);
    case SOCKET_FD: {
        int listening = 0;
        socklen_t size = sizeof listening;
        if (getsockopt(address->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size))
            return fail_errno(err, errno, "file descriptor %d", address->fd);
        if (!listening)
            return fail(err, EINVAL, "file descriptor %d: not a listening socket", address->fd);
        /* Who hands it over has made it to block; another process may take the connection that we were told of. */
        fcntl(address->fd, F_SETFL, fcntl(address->fd, F_GETFL) | O_NONBLOCK);
        listener->fds[listener->count++] = address->fd;
        return true;
    }
    }
    abort();
}

struct listener *listener_new(struct loop *loop, const struct stream_address *address, int backlog, struct error *err)
{
    if (loop->sim)
        return sim_listener_new(loop, address, err);
    int failure = fault_error(FAULT_LISTEN);
    if (failure)
        return fail_errno_null(err, failure, "cannot listen");
    struct socket_listener *listener = new (struct socket_listener);
    listener->listener = (struct listener){.ops = &socket_listener_ops, .loop = loop};
    if (!listen_any(listener, address, backlog, err)) {
        close_sockets(listener);
        free(listener->path_to_remove);
        free(listener);
        return NULL;
    }
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    bool known = !getsockname(listener->fds[0], (struct sockaddr *)&bound, &length);
    listener->listener.name = known ? socket_name(&bound, length) : address_text(address);
    return &listener->listener;
}

/* --- accepting --- */

static void may_accept(void *arg, uint32_t events)
{
    struct accept_wait *wait = arg;
    wait->fired = true;
    co_wake(wait->co);
}

static void unlink_wait(struct accept_wait *wait)
{
    struct accept_wait **at = &wait->listener->waiting;
    while (*at != wait)
        at = &(*at)->next;
    *at = wait->next;
}

/* 0 when it is worth trying again, else -ECANCELED. */
static int wait_for_connection(struct socket_listener *listener)
{
    struct loop *loop = listener->listener.loop;
    struct accept_wait wait = {.next = listener->waiting, .listener = listener, .co = co_self()};
    struct loop_watch watches[MAX_SOCKETS];
    int count = listener->count;
    assert(wait.co);
    listener->waiting = &wait;
    for (int i = 0; i < count; i++)
        loop_watch(loop, &watches[i], listener->fds[i], EPOLLIN, may_accept, &wait);
    loop->in_flight++;
    while (!wait.fired && wait.listener && !co_interrupted(wait.co))
        co_suspend();
    loop->in_flight--;
    for (int i = 0; i < count; i++)
        loop_unwatch(&watches[i]);
    if (!wait.listener)
        return -ECANCELED;
    unlink_wait(&wait);
    return wait.fired ? 0 : -ECANCELED;
}

/* Errors of the connection that was being made, not of the listener (accept(2)). */
static bool is_passing(int code)
{
    return code == EINTR || code == ECONNABORTED || code == EPROTO || code == ENETDOWN || code == ENOPROTOOPT ||
           code == EHOSTDOWN || code == EHOSTUNREACH || code == ENETUNREACH;
}

/* A connection that is there already; -1 and *code == 0 when there is none. */
static int accept_now(struct socket_listener *listener, int *code)
{
    *code = fault_error(FAULT_ACCEPT);
    if (*code)
        return -1;
    for (int i = 0; i < listener->count; i++) {
        int fd;
        do
            fd = accept4(listener->fds[i], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        while (fd < 0 && is_passing(errno));
        if (fd >= 0)
            return fd;
        if (errno != EAGAIN)
            *code = -errno;
    }
    return -1;
}

static struct stream *socket_accept(struct listener *base, int *error)
{
    struct socket_listener *listener = container_of(base, struct socket_listener, listener);
    struct loop *loop = base->loop;
    for (;;) {
        *error = co_cancelled() ? -ECANCELED : 0;
        int fd = *error ? -1 : accept_now(listener, error);
        if (fd >= 0) {
            set_no_delay(fd);
            return stream_from_fd(loop, fd);
        }
        if (!*error)
            *error = wait_for_connection(listener);
        if (*error)
            return NULL;
    }
}

static void socket_listener_close(struct listener *base)
{
    struct socket_listener *listener = container_of(base, struct socket_listener, listener);
    for (struct accept_wait *wait = listener->waiting, *next; wait; wait = next) {
        next = wait->next;
        wait->listener = NULL;
        co_wake(wait->co);
    }
    close_sockets(listener);
    if (listener->path_to_remove)
        unlink(listener->path_to_remove);
    free(listener->path_to_remove);
    free(base->name);
    free(listener);
}

static const struct listener_ops socket_listener_ops = {
    .accept = socket_accept,
    .close = socket_listener_close,
};

struct stream *listener_accept(struct listener *listener, int *error)
{
    return listener->ops->accept(listener, error);
}

/* How long to wait when there is no descriptor, or no memory, for one more connection. */
#define ACCEPT_RETRY_NS 100000000

struct stream *listener_accept_next(struct listener *listener, const char *who)
{
    for (bool warned = false;; warned = true) {
        int error = 0;
        struct stream *stream = listener_accept(listener, &error);
        if (stream || error == -ECANCELED)
            return stream;
        if (!warned)
            log_warning("%s: cannot accept a connection at %s: %s", who, listener_name(listener), strerror(-error));
        if (co_sleep_ns(ACCEPT_RETRY_NS))
            return NULL;
    }
}

const char *listener_name(const struct listener *listener)
{
    return listener->name;
}

void listener_close(struct listener *listener)
{
    if (listener)
        listener->ops->close(listener);
}
