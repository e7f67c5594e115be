/* SPDX-License-Identifier: Apache-2.0 */
/* An NBD client (doc/proto.md of the NetworkBlockDevice project): fixed newstyle, simple replies, as many requests
 * under way as there are hands, answers in any order. */
#include "tests/sim/port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/endian.h"
#include "base/stream.h"
#include "nbd/protocol.h"
#include "tests/sim/world.h"

struct request {
    struct list link; /* port->waiting */
    uint64_t cookie;
    void *data; /* of a read */
    uint64_t length;
    int result;
    bool done;
    struct co *co;
};

struct nbd_port {
    struct port port;
    struct stream *stream;
    struct co_group reader;
    struct co_mutex sending;
    struct list waiting;
    uint64_t last_cookie;
    bool connecting;
};

static struct nbd_port *of(struct port *port)
{
    return container_of(port, struct nbd_port, port);
}

static void finish(struct request *request, int result)
{
    request->result = result;
    request->done = true;
    list_remove(&request->link);
    co_wake(request->co);
}

static int error_of(uint32_t error)
{
    switch (error) {
    case 0: return 0;
    case NBD_ENOSPC: return -ENOSPC;
    case NBD_EINVAL: return -EINVAL;
    case NBD_ENOTSUP: return -ENOTSUP;
    case NBD_ESHUTDOWN: return -ESHUTDOWN;
    default: return -EIO;
    }
}

static bool read_reply(struct nbd_port *nbd)
{
    uint8_t head[NBD_SIMPLE_REPLY_SIZE];
    if (stream_recv_all(nbd->stream, head, sizeof head))
        return false;
    uint64_t cookie = load_be64(head + 8);
    struct request *request, *found = NULL;
    list_for_each (request, &nbd->waiting, link) {
        if (request->cookie == cookie)
            found = request;
    }
    if (load_be32(head) != NBD_SIMPLE_REPLY_MAGIC || !found)
        world_fail(nbd->port.world, "%s: an answer that nobody waits for, cookie %llu", nbd->port.name,
                   (unsigned long long)cookie);
    int result = error_of(load_be32(head + 4));
    if (!result && found->data && stream_recv_all(nbd->stream, found->data, found->length))
        return false;
    finish(found, result);
    return true;
}

static void read_replies(void *arg)
{
    struct nbd_port *nbd = (struct nbd_port *)arg;
    while (read_reply(nbd))
        ;
    nbd->port.connected = false;
    struct request *request;
    while ((request = list_first(&nbd->waiting, struct request, link)))
        finish(request, -ENOTCONN);
}

static int nbd_io(struct port *port, enum io_kind kind, unsigned flags, uint64_t offset, uint64_t length, void *data)
{
    static const uint16_t commands[] = {[IO_READ] = NBD_CMD_READ,
                                        [IO_WRITE] = NBD_CMD_WRITE,
                                        [IO_ZERO] = NBD_CMD_WRITE_ZEROES,
                                        [IO_DISCARD] = NBD_CMD_TRIM,
                                        [IO_FLUSH] = NBD_CMD_FLUSH};
    struct nbd_port *nbd = of(port);
    uint16_t wire_flags = flags & IO_FUA ? NBD_CMD_FLAG_FUA : 0;
    if (kind == IO_ZERO && !(flags & IO_MAY_UNMAP))
        wire_flags |= NBD_CMD_FLAG_NO_HOLE;
    uint8_t head[NBD_REQUEST_SIZE];
    struct request request = {.cookie = ++nbd->last_cookie, .data = kind == IO_READ ? data : NULL, .length = length};
    store_be32(head, NBD_REQUEST_MAGIC);
    store_be16(head + 4, wire_flags);
    store_be16(head + 6, commands[kind]);
    store_be64(head + 8, request.cookie);
    store_be64(head + 16, offset);
    store_be32(head + 24, (uint32_t)length);
    struct iovec iov[2] = {{head, sizeof head}, {data, length}};
    int code = 0;
    co_mutex_lock(&nbd->sending);
    if (nbd->port.connected) {
        request.co = co_self();
        list_append(&nbd->waiting, &request.link);
        code = stream_sendv(nbd->stream, iov, kind == IO_WRITE ? 2 : 1);
    } else {
        request.result = -ENOTCONN;
        request.done = true;
    }
    co_mutex_unlock(&nbd->sending);
    if (code && !request.done)
        stream_shutdown(nbd->stream); /* the reader tells everybody */
    while (!request.done)
        co_suspend();
    return request.result;
}

/* --- connecting --- */

static bool go(struct stream *stream)
{
    static const char name[] = NODE;
    uint8_t greeting[18], client_flags[4], option[NBD_OPTION_SIZE + 4 + sizeof name - 1 + 2];
    if (stream_recv_all(stream, greeting, sizeof greeting))
        return false;
    store_be32(client_flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    store_be64(option, NBD_OPTION_MAGIC);
    store_be32(option + 8, NBD_OPT_GO);
    store_be32(option + 12, sizeof option - NBD_OPTION_SIZE);
    store_be32(option + 16, sizeof name - 1);
    memcpy(option + 20, name, sizeof name - 1);
    store_be16(option + 20 + sizeof name - 1, 0);
    if (stream_send_all(stream, client_flags, sizeof client_flags) || stream_send_all(stream, option, sizeof option))
        return false;
    for (;;) {
        uint8_t head[NBD_OPTION_REPLY_SIZE], skipped[256];
        if (stream_recv_all(stream, head, sizeof head))
            return false;
        uint32_t type = load_be32(head + 12);
        for (uint32_t left = load_be32(head + 16), n; left; left -= n) {
            n = MIN(left, (uint32_t)sizeof skipped);
            if (stream_recv_all(stream, skipped, n))
                return false;
        }
        if (type == NBD_REP_ACK)
            return true;
        if (type & NBD_REP_ERROR(0))
            return false;
    }
}

static bool nbd_connect(struct port *port)
{
    struct nbd_port *nbd = of(port);
    if (nbd->connecting || port->connected)
        return port->connected; /* another hand does it, or has done it */
    nbd->connecting = true;
    co_group_wait(&nbd->reader);
    stream_close(TAKE(nbd->stream));
    const struct stream_address address = {.kind = SOCKET_UNIX, .path = "nbd.sock"};
    nbd->stream = stream_connect(port->world->loop, &address, NULL);
    bool good = nbd->stream && go(nbd->stream);
    world_trace(port->world, "%s connects: %s", port->name, good ? "yes" : "no");
    if (good) {
        port->connected = true;
        co_spawn(port->world->loop, &nbd->reader, read_replies, nbd);
    } else {
        stream_close(TAKE(nbd->stream));
    }
    nbd->connecting = false;
    return good;
}

static void nbd_break(struct port *port)
{
    if (port->connected)
        sim_stream_break(of(port)->stream);
}

static void nbd_free(struct port *port)
{
    struct nbd_port *nbd = of(port);
    if (nbd->stream)
        stream_shutdown(nbd->stream);
    co_group_wait(&nbd->reader);
    stream_close(nbd->stream);
    free(nbd);
}

static const struct port_ops nbd_ops = {
    .io = nbd_io, .connect = nbd_connect, .break_line = nbd_break, .free = nbd_free};

struct port *nbd_port_new(struct world *world, unsigned number)
{
    struct nbd_port *nbd = new (struct nbd_port);
    nbd->port = (struct port){
        .ops = &nbd_ops, .world = world, .flags = IO_FUA | IO_MAY_UNMAP, .max_request = 1 << 20, .hands = 3};
    snprintf(nbd->port.name, sizeof nbd->port.name, "nbd%u", number);
    list_init(&nbd->waiting);
    co_group_init(&nbd->reader);
    co_mutex_init(&nbd->sending);
    if (nbd_connect(&nbd->port))
        return &nbd->port;
    nbd_free(&nbd->port);
    return NULL;
}
