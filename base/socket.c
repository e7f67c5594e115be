/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams over connected sockets.
 *
 * On an io_uring loop every receive and send is a submission entry: a server whose coroutines receive the next request
 * while others send replies gets all of it done in one system call a turn. On other loops a call is tried directly and
 * waits for the descriptor only when the kernel has nothing; the watch is edge-triggered and stays registered, so a
 * wait costs no epoll_ctl(2).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/loop_private.h"
#include "base/loop_uring.h"
#include "base/socket_private.h"

#define MAX_FDS 253 /* SCM_MAX_FD of the kernel */
#define MAX_ELEMENTS 1024
#define MAX_TRANSFER (1u << 30) /* lengths of submission entries have 32 bits */

struct socket_stream {
    struct stream stream;
    int fd;
    bool is_down; /* stream_shutdown() was called */
    /* Loops without io_uring: */
    struct loop_watch watch;
    bool is_readable, is_writable; /* an edge came since we last met EAGAIN */
    struct co *receiver, *sender;
};

static struct socket_stream *socket_of(struct stream *stream)
{
    return container_of(stream, struct socket_stream, stream);
}

/* --- direct calls with readiness --- */

static void socket_ready(void *arg, uint32_t events)
{
    struct socket_stream *socket = arg;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        socket->is_readable = true;
        if (socket->receiver)
            co_wake(socket->receiver);
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        socket->is_writable = true;
        if (socket->sender)
            co_wake(socket->sender);
    }
}

static int wait_ready(struct socket_stream *socket, bool *is_ready, struct co **waiter)
{
    struct loop *loop = socket->stream.loop;
    if (!socket->watch.loop)
        loop_watch(loop, &socket->watch, socket->fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, socket_ready, socket);
    struct co *co = co_self();
    assert(co && !*waiter);
    *waiter = co;
    loop->in_flight++;
    while (!*is_ready && !socket->is_down && !co_interrupted(co))
        co_suspend();
    loop->in_flight--;
    *waiter = NULL;
    return *is_ready || socket->is_down ? 0 : -ECANCELED;
}

static ssize_t direct_recvmsg(struct socket_stream *socket, struct msghdr *message)
{
    for (;;) {
        if (co_cancelled())
            return -ECANCELED;
        socket->is_readable = false;
        socket->stream.loop->stats.system_calls++;
        ssize_t n = recvmsg(socket->fd, message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        int code = wait_ready(socket, &socket->is_readable, &socket->receiver);
        if (code)
            return code;
    }
}

static ssize_t direct_sendmsg(struct socket_stream *socket, struct msghdr *message)
{
    for (;;) {
        if (co_cancelled())
            return -ECANCELED;
        socket->is_writable = false;
        socket->stream.loop->stats.system_calls++;
        ssize_t n = sendmsg(socket->fd, message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        int code = wait_ready(socket, &socket->is_writable, &socket->sender);
        if (code)
            return code;
    }
}

/* --- io_uring --- */

/* -EAGAIN: the kernel could not arm its poll just now. */
static bool try_again(int result)
{
    return result == -EINTR || result == -EAGAIN;
}

static ssize_t uring_recv(struct socket_stream *socket, void *buffer, size_t size)
{
    int n;
    do {
        if (co_cancelled())
            return -ECANCELED;
        struct io_uring_sqe *sqe = uring_sqe(socket->stream.loop);
        io_uring_prep_recv(sqe, socket->fd, buffer, MIN(size, (size_t)MAX_TRANSFER), 0);
        n = uring_await_cancellable(socket->stream.loop, sqe);
    } while (try_again(n));
    return n;
}

static ssize_t uring_recvmsg(struct socket_stream *socket, struct msghdr *message)
{
    int n;
    do {
        if (co_cancelled())
            return -ECANCELED;
        struct io_uring_sqe *sqe = uring_sqe(socket->stream.loop);
        io_uring_prep_recvmsg(sqe, socket->fd, message, MSG_CMSG_CLOEXEC);
        n = uring_await_cancellable(socket->stream.loop, sqe);
    } while (try_again(n));
    return n;
}

/* MSG_WAITALL: the kernel itself continues short sends. */
static ssize_t uring_sendmsg(struct socket_stream *socket, struct msghdr *message)
{
    int n;
    do {
        if (co_cancelled())
            return -ECANCELED;
        struct io_uring_sqe *sqe = uring_sqe(socket->stream.loop);
        if (message->msg_iovlen == 1 && !message->msg_control)
            io_uring_prep_send(sqe, socket->fd, message->msg_iov->iov_base,
                               MIN(message->msg_iov->iov_len, (size_t)MAX_TRANSFER), MSG_NOSIGNAL | MSG_WAITALL);
        else
            io_uring_prep_sendmsg(sqe, socket->fd, message, MSG_NOSIGNAL | MSG_WAITALL);
        n = uring_await_cancellable(socket->stream.loop, sqe);
    } while (try_again(n));
    return n;
}

/* --- the stream --- */

static bool has_uring(struct socket_stream *socket)
{
    return loop_backend(socket->stream.loop) == LOOP_URING;
}

static ssize_t receive_message(struct socket_stream *socket, struct msghdr *message)
{
    if (socket->is_down)
        return -ECONNRESET;
    ssize_t n = has_uring(socket) ? uring_recvmsg(socket, message) : direct_recvmsg(socket, message);
    return socket->is_down && n >= 0 ? -ECONNRESET : n;
}

static ssize_t socket_recv(struct stream *stream, void *buffer, size_t size)
{
    struct socket_stream *socket = socket_of(stream);
    if (has_uring(socket) && !socket->is_down) {
        ssize_t n = uring_recv(socket, buffer, size);
        return socket->is_down && n >= 0 ? -ECONNRESET : n;
    }
    struct iovec iov = {buffer, size};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    return receive_message(socket, &message);
}

static ssize_t send_message(struct socket_stream *socket, struct msghdr *message)
{
    if (socket->is_down)
        return -EPIPE;
    return has_uring(socket) ? uring_sendmsg(socket, message) : direct_sendmsg(socket, message);
}

static int socket_sendv(struct stream *stream, struct iovec *iov, int count)
{
    iov_advance(&iov, &count, 0);
    while (count) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)MIN(count, MAX_ELEMENTS)};
        ssize_t n = send_message(socket_of(stream), &message);
        if (n < 0)
            return (int)n;
        iov_advance(&iov, &count, (size_t)n);
    }
    return 0;
}

/* Copies received descriptors out; those for which there is no room are closed. */
static int take_fds(struct msghdr *message, int *fds, int max_fds)
{
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (n < max_fds)
                fds[n++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

static ssize_t socket_recv_fds(struct stream *stream, void *buffer, size_t size, int *fds, int max_fds, int *n_fds)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
    struct iovec iov = {buffer, size};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = receive_message(socket_of(stream), &message);
    if (n >= 0)
        *n_fds = take_fds(&message, fds, max_fds);
    return n;
}

static int socket_send_fds(struct stream *stream, const void *buffer, size_t size, const int *fds, int n_fds)
{
    assert(size && n_fds > 0 && n_fds <= MAX_FDS);
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(MAX_FDS * sizeof(int))] = {0};
    struct iovec iov = {(void *)buffer, size};
    size_t bytes = (size_t)n_fds * sizeof(int);
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(bytes), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, bytes);
    ssize_t n = send_message(socket_of(stream), &message);
    if (n < 0)
        return (int)n;
    return stream_send_all(stream, (const char *)buffer + n, size - (size_t)n);
}

static void socket_shutdown(struct stream *stream)
{
    struct socket_stream *socket = socket_of(stream);
    if (socket->is_down)
        return;
    socket->is_down = true;
    shutdown(socket->fd, SHUT_RDWR); /* fails only when the peer is gone already */
    if (socket->receiver)
        co_wake(socket->receiver);
    if (socket->sender)
        co_wake(socket->sender);
}

static void socket_close(struct stream *stream)
{
    struct socket_stream *socket = socket_of(stream);
    assert(!socket->receiver && !socket->sender);
    loop_unwatch(&socket->watch);
    close(socket->fd);
    free(stream->peer);
    free(socket);
}

static void socket_move(struct stream *stream, struct loop *loop)
{
    struct socket_stream *socket = socket_of(stream);
    (void)loop;
    assert(!socket->receiver && !socket->sender);
    loop_unwatch(&socket->watch);
    socket->is_readable = socket->is_writable = false;
}

static const struct stream_ops socket_stream_ops = {
    .recv = socket_recv,
    .sendv = socket_sendv,
    .recv_fds = socket_recv_fds,
    .send_fds = socket_send_fds,
    .shutdown = socket_shutdown,
    .close = socket_close,
    .move = socket_move,
};

struct stream *stream_from_fd(struct loop *loop, int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    struct socket_stream *socket = new (struct socket_stream);
    bool named = !getpeername(fd, (struct sockaddr *)&address, &length);
    char *peer = named ? socket_name(&address, length) : xasprintf("fd:%d", fd);
    socket->stream = (struct stream){.ops = &socket_stream_ops, .loop = loop, .peer = peer};
    socket->fd = fd;
    return &socket->stream;
}

bool stream_pair(struct loop *loop, struct stream *pair[2], struct error *err)
{
    if (loop->sim)
        return sim_stream_pair(loop, pair);
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return fail_errno(err, errno, "socketpair");
    pair[0] = stream_from_fd(loop, fds[0]);
    pair[1] = stream_from_fd(loop, fds[1]);
    return true;
}
