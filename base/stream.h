/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte streams for coroutines: sockets, pairs inside a simulation, later TLS on top of either. One coroutine may
 * receive while another sends; two may not do the same at once. All functions that wait YIELD and end with -ECANCELED
 * when the coroutine is cancelled or with -ECONNRESET / -EPIPE when the peer is gone; SIGPIPE is never raised.
 */
#ifndef BASE_STREAM_H
#define BASE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "base/error.h"

struct loop;
struct stream;

struct stream_ops {
    ssize_t (*recv)(struct stream *stream, void *buffer, size_t size); /* at least 1 byte; 0 = end of stream */
    int (*sendv)(struct stream *stream, struct iovec *iov, int count); /* all of it; may change iov */
    ssize_t (*recv_fds)(struct stream *stream, void *buffer, size_t size, int *fds, int max_fds,
                        int *n_fds); /* may be NULL */
    int (*send_fds)(struct stream *stream, const void *buffer, size_t size, const int *fds,
                    int n_fds);              /* may be NULL */
    void (*shutdown)(struct stream *stream); /* wakes both sides' waiters; later calls fail */
    void (*close)(struct stream *stream);
    void (*move)(struct stream *stream, struct loop *loop); /* may be NULL: nothing to do */
};
struct stream {
    const struct stream_ops *ops;
    struct loop *loop;
    char *peer; /* for messages: "unix:/path", "127.0.0.1:1234" */
};

ssize_t stream_recv(struct stream *stream, void *buffer, size_t size);
int stream_recv_all(struct stream *stream, void *buffer,
                    size_t size); /* 0, -ECONNRESET when it ends early (-ESHUTDOWN: before the first byte) */
int stream_send_all(struct stream *stream, const void *buffer, size_t size);
int stream_sendv(struct stream *stream, struct iovec *iov, int count);
ssize_t stream_recv_fds(struct stream *stream, void *buffer, size_t size, int *fds, int max_fds, int *n_fds);
int stream_send_fds(struct stream *stream, const void *buffer, size_t size, const int *fds, int n_fds);
void stream_shutdown(struct stream *stream);
/* From now on the stream belongs to another loop and its thread. Called on the thread that it has belonged to, while
 * nobody receives or sends. */
void stream_move(struct stream *stream, struct loop *loop);
void stream_close(struct stream *stream);

/* Sockets. Addresses are plain data here; the schema's SocketAddress is turned into one by its users. */
enum socket_kind { SOCKET_UNIX, SOCKET_INET, SOCKET_FD };
struct stream_address {
    enum socket_kind kind;
    const char *path;        /* unix */
    const char *host, *port; /* inet; an empty host means every address; port "0" lets the kernel choose */
    int fd;                  /* an open socket (listening or connected, as the use asks) */
    bool ipv4_only, ipv6_only;
};

struct stream *stream_from_fd(struct loop *loop, int fd); /* a connected socket; takes it over */
struct stream *stream_connect(struct loop *loop, const struct stream_address *address, struct error *err); /* YIELDS */
bool stream_pair(struct loop *loop, struct stream *pair[2],
                 struct error *err); /* simulated in a simulated loop, else socketpair */

struct listener;
struct listener *listener_new(struct loop *loop, const struct stream_address *address, int backlog, struct error *err);
struct stream *listener_accept(struct listener *listener,
                               int *error); /* YIELDS; NULL and -errno in *error when cancelled or closed */
/* The same for servers that go on whatever happens: an error that may pass (no descriptors left) is said once and
 * waited out. NULL when cancelled; the listener may not be closed before that has returned. YIELDS. */
struct stream *listener_accept_next(struct listener *listener, const char *who);
const char *listener_name(const struct listener *listener); /* the address as bound, e.g. "127.0.0.1:10809" */
void listener_close(
    struct listener *listener); /* a waiting accept ends with -ECANCELED; a unix path that we made is removed */

#endif
