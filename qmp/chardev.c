/* SPDX-License-Identifier: Apache-2.0 */
/* Character devices for monitors; the stream of standard input and output is in stdio_stream.c. */
#include "qmp/chardev.h"

#include <stdlib.h>
#include "base/alloc.h"
#include "base/log.h"
#include "base/stream.h"
#include "qmp/schema/address.h"

struct chardev {
    char *id;
    struct loop *loop;
    enum chardev_backend_kind kind;
    bool signals;              /* stdio */
    bool is_used_up;           /* what gives one stream has given it */
    struct listener *listener; /* socket, server */
    struct stream *first;      /* a stream that was there before anybody asked */
};

/* The command line gives the parts of the address side by side; they say which kind it is. */
static bool read_address(const struct chardev_socket_options *options, struct stream_address *out, struct error *err)
{
    bool is_inet = options->host || options->port;
    if (!!options->path + is_inet + !!options->fd != 1)
        return fail(err, EINVAL, "a socket needs exactly one of path, host and port, or fd");
    if (is_inet && (!options->host || !options->port))
        return fail(err, EINVAL, "a TCP socket needs both host and port");
    struct socket_address address = {.type = SOCKET_ADDRESS_TYPE_INET};
    if (options->path)
        address = (struct socket_address){.type = SOCKET_ADDRESS_TYPE_UNIX, .u.unix_.path = options->path};
    else if (options->fd)
        address = (struct socket_address){.type = SOCKET_ADDRESS_TYPE_FD, .u.fd.str = options->fd};
    else
        address.u.inet = (struct inet_socket_address){.host = options->host,
                                                      .port = options->port,
                                                      .has_ipv4 = options->has_ipv4,
                                                      .ipv4 = options->ipv4,
                                                      .has_ipv6 = options->has_ipv6,
                                                      .ipv6 = options->ipv6};
    return stream_address_from_schema(&address, out, err);
}

static bool open_socket(struct chardev *chardev, const struct chardev_socket_options *options, struct error *err)
{
    struct stream_address address;
    if (!read_address(options, &address, err))
        return false;
    if (!options->server) {
        if (options->has_wait)
            return fail(err, EINVAL, "wait is for sockets that listen (server=on)");
        chardev->first = stream_connect(chardev->loop, &address, err);
        return chardev->first;
    }
    chardev->listener = listener_new(chardev->loop, &address, 1, err);
    if (!chardev->listener || !options->wait)
        return chardev->listener;
    log_info("chardev '%s': waiting for a client on %s", chardev->id, listener_name(chardev->listener));
    int status = 0;
    chardev->first = listener_accept(chardev->listener, &status);
    return chardev->first || fail_errno(err, status, "waiting for a client on %s", listener_name(chardev->listener));
}

struct chardev *chardev_open(struct loop *loop, const struct chardev_options *options, struct error *err)
{
    struct chardev *chardev = xcalloc(1, sizeof *chardev);
    chardev->loop = loop;
    chardev->id = xstrdup(options->id);
    chardev->kind = options->backend;
    if (chardev->kind == CHARDEV_BACKEND_KIND_STDIO)
        chardev->signals = options->u.stdio.signal;
    if (chardev->kind == CHARDEV_BACKEND_KIND_SOCKET && !open_socket(chardev, &options->u.socket, err)) {
        fail_prefix(err, "chardev '%s': ", chardev->id);
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
    free(chardev->id);
    free(chardev);
}

const char *chardev_id(const struct chardev *chardev)
{
    return chardev->id;
}

struct stream *chardev_accept(struct chardev *chardev)
{
    struct stream *first = chardev->first;
    chardev->first = NULL;
    if (first)
        return first;
    if (chardev->listener)
        return listener_accept_next(chardev->listener, chardev->id);
    if (chardev->kind != CHARDEV_BACKEND_KIND_STDIO || chardev->is_used_up)
        return NULL;
    chardev->is_used_up = true;
    return stdio_stream_new(chardev->loop, chardev->signals);
}
