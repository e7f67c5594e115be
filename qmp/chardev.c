/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character devices for monitors; the stream of standard input and output is in stdio_stream.c.
 *
 * Behind a socket there may be TLS: a client that has connected is a stream only when its handshake is done, for which
 * it has HANDSHAKE_NS. While it takes that time others wait, as they do while it is served: a monitor has one session
 * at a time.
 */
#include "qmp/chardev.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/stream.h"
#include "qmp/internal.h"
#include "qmp/schema/address.h"

#define HANDSHAKE_NS UINT64_C(10000000000)

struct chardev {
    struct qmp_server *server;
    struct loop *loop;
    struct chardev_options *options;
    bool is_used_up;           /* what gives one stream has given it */
    struct listener *listener; /* socket, server */
    struct stream *first;      /* a stream that was there before anybody asked */
    void *tls;                 /* held from the services, or NULL */
};

static const char *id_of(const struct chardev *chardev)
{
    return chardev->options->id;
}

static const struct chardev_socket_options *socket_of(const struct chardev *chardev)
{
    return &chardev->options->u.socket;
}

/* Addresses ------------------------------------------------------------------------------------------------------ */

/* The name of a descriptor that a client has handed over, once; everything else is a number. */
static bool read_fd(struct qmp_server *server, char *text, struct stream_address *out, struct error *err)
{
    if (server->services.take_fd && *text && (*text < '0' || *text > '9')) {
        int fd = server->services.take_fd(server->app, text);
        *out = (struct stream_address){.kind = SOCKET_FD, .fd = fd};
        return fd >= 0 || fail(err, ENOENT, "file descriptor named '%s' not found (see getfd)", text);
    }
    struct socket_address address = {.type = SOCKET_ADDRESS_TYPE_FD, .u.fd.str = text};
    return stream_address_from_schema(&address, out, err);
}

/* The command line gives the parts of the address side by side; they say which kind it is. */
static bool read_address(struct chardev *chardev, struct stream_address *out, struct error *err)
{
    const struct chardev_socket_options *options = socket_of(chardev);
    bool is_inet = options->host || options->port;
    if (!!options->path + is_inet + !!options->fd != 1)
        return fail(err, EINVAL, "a socket needs exactly one of path, host and port, or fd");
    if (is_inet && (!options->host || !options->port))
        return fail(err, EINVAL, "a TCP socket needs both host and port");
    if (options->fd)
        return read_fd(chardev->server, options->fd, out, err);
    struct socket_address address = {.type = SOCKET_ADDRESS_TYPE_INET};
    if (options->path)
        address = (struct socket_address){.type = SOCKET_ADDRESS_TYPE_UNIX, .u.unix_.path = options->path};
    else
        address.u.inet = (struct inet_socket_address){.host = options->host,
                                                      .port = options->port,
                                                      .has_ipv4 = options->has_ipv4,
                                                      .ipv4 = options->ipv4,
                                                      .has_ipv6 = options->has_ipv6,
                                                      .ipv6 = options->ipv6};
    return stream_address_from_schema(&address, out, err);
}

/* Streams -------------------------------------------------------------------------------------------------------- */

static void too_slow(void *arg)
{
    stream_shutdown(arg);
}

/* The stream that a user gets; NULL and an error when the peer does not pass the handshake. */
static struct stream *secure(struct chardev *chardev, struct stream *stream, struct error *err)
{
    if (!stream || !chardev->tls)
        return stream;
    struct loop_timer deadline = {.fn = too_slow, .arg = stream};
    loop_timer_arm(chardev->loop, &deadline, loop_now_ns(chardev->loop) + HANDSHAKE_NS);
    stream = chardev->server->services.start_tls(chardev->tls, stream, socket_of(chardev)->host, err);
    loop_timer_cancel(&deadline);
    return stream;
}

static struct stream *connect_once(struct chardev *chardev, struct error *err)
{
    struct stream_address address;
    return read_address(chardev, &address, err) ? secure(chardev, stream_connect(chardev->loop, &address, err), err)
                                                : NULL;
}

/* The next client that is let in. */
static struct stream *accept_client(struct chardev *chardev, struct error *err)
{
    for (;;) {
        struct stream *stream = listener_accept_next(chardev->listener, id_of(chardev));
        if (!stream) {
            fail_errno(err, ECANCELED, "waiting for a client on %s", listener_name(chardev->listener));
            return NULL;
        }
        auto_error refused = {0};
        stream = secure(chardev, stream, &refused);
        if (stream)
            return stream;
        log_warning("chardev '%s': %s", id_of(chardev), refused.message);
    }
}

/* Tries until it works, or the coroutine is cancelled. */
static struct stream *reconnect(struct chardev *chardev)
{
    uint64_t pause_ns = (uint64_t)socket_of(chardev)->reconnect_ms * 1000000;
    for (bool again = chardev->is_used_up;; again = true) {
        if (again && co_sleep_ns(pause_ns))
            return NULL;
        chardev->is_used_up = true;
        struct stream *stream = connect_once(chardev, NULL);
        if (stream || co_cancelled())
            return stream;
    }
}

struct stream *chardev_accept(struct chardev *chardev)
{
    if (chardev->first) {
        chardev->is_used_up = true;
        return TAKE(chardev->first);
    }
    if (chardev->listener)
        return accept_client(chardev, NULL);
    if (chardev->options->backend == CHARDEV_BACKEND_KIND_SOCKET && socket_of(chardev)->reconnect_ms)
        return reconnect(chardev);
    if (chardev->options->backend != CHARDEV_BACKEND_KIND_STDIO || chardev->is_used_up)
        return NULL;
    chardev->is_used_up = true;
    return stdio_stream_new(chardev->loop, chardev->options->u.stdio.signal);
}

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool hold_tls(struct chardev *chardev, struct error *err)
{
    const struct chardev_socket_options *options = socket_of(chardev);
    const struct chardev_services *services = &chardev->server->services;
    if (!options->tls_creds)
        return !options->tls_authz ||
               fail(err, EINVAL, "tls-authz is about who TLS says a client is: tls-creds is missing");
    if (options->tls_authz && !options->server)
        return fail(err, EINVAL, "tls-authz is for sockets that listen (server=on)");
    if (!services->hold_tls)
        return fail(err, ENOTSUP, "this program has no TLS for its character devices");
    chardev->tls =
        services->hold_tls(chardev->server->app, options->tls_creds, options->tls_authz, options->server, err);
    return chardev->tls;
}

static bool open_socket(struct chardev *chardev, struct error *err)
{
    const struct chardev_socket_options *options = socket_of(chardev);
    struct stream_address address;
    if (!hold_tls(chardev, err))
        return false;
    if (!options->server) {
        if (options->has_wait)
            return fail(err, EINVAL, "wait is for sockets that listen (server=on)");
        if (options->reconnect_ms)
            return options->fd ? fail(err, EINVAL, "a socket that was handed over cannot be connected again") : true;
        chardev->first = connect_once(chardev, err);
        return chardev->first;
    }
    if (options->reconnect_ms)
        return fail(err, EINVAL, "reconnect-ms is for sockets that connect (server=off)");
    if (!read_address(chardev, &address, err))
        return false;
    chardev->listener = listener_new(chardev->loop, &address, 1, err);
    if (!chardev->listener || !options->wait)
        return chardev->listener;
    log_info("chardev '%s': waiting for a client on %s", id_of(chardev), listener_name(chardev->listener));
    chardev->first = accept_client(chardev, err);
    return chardev->first;
}

struct chardev *chardev_open(struct qmp_server *server, const struct chardev_options *options, struct error *err)
{
    struct chardev *chardev = xcalloc(1, sizeof *chardev);
    chardev->server = server;
    chardev->loop = server->loop;
    chardev->options = chardev_options_clone(options);
    if (options->backend == CHARDEV_BACKEND_KIND_SOCKET && !open_socket(chardev, err)) {
        fail_prefix(err, "chardev '%s': ", id_of(chardev));
        chardev_close(chardev);
        return NULL;
    }
    return chardev;
}

void chardev_close(struct chardev *chardev)
{
    if (!chardev)
        return;
    if (chardev->first)
        stream_close(chardev->first);
    if (chardev->listener)
        listener_close(chardev->listener);
    if (chardev->tls)
        chardev->server->services.release_tls(chardev->tls);
    chardev_options_free(chardev->options);
    free(chardev);
}

const char *chardev_id(const struct chardev *chardev)
{
    return id_of(chardev);
}

char *chardev_describe(const struct chardev *chardev)
{
    const struct chardev_socket_options *options = socket_of(chardev);
    if (chardev->options->backend != CHARDEV_BACKEND_KIND_SOCKET)
        return xstrdup(chardev_backend_kind_name(chardev->options->backend));
    if (chardev->listener)
        return xasprintf("%s%s,server=on", options->host ? "tcp:" : "", listener_name(chardev->listener));
    if (options->path)
        return xasprintf("unix:%s", options->path);
    return options->fd ? xasprintf("fd:%s", options->fd) : xasprintf("tcp:%s:%s", options->host, options->port);
}
