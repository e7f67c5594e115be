/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much data of requests the whole server holds, on each of the loops that serve its connections (an iothread has
 * room of its own). Each connection has limits of its own, but there may be many, and
 * what is promised to one of them cannot be taken back: a client that sends the head of a write and then nothing holds
 * its buffer for as long as it likes.
 *
 * So data lives in two places. A connection's first NBD_OWN_BYTES are its own: requests that fit there never wait for
 * others, which is why the usual small ones keep their speed whatever somebody else does. Everything else takes room
 * that all connections share, before its buffer is allocated, and waits in one line, first come first served, while
 * there is none.
 *
 * A line needs somebody who sees to it that it moves. When the first in it has waited for NBD_STALL_NS, the client that
 * has kept shared room for the longest while nothing of what it holds was finished is hung up on, if it is the client
 * that we wait for: it does not send its payload, or does not read its replies. Nobody is hung up on while there is
 * room for all.
 */
#include "nbd/internal.h"

#include "base/alloc.h"
#include "base/trace.h"

void nbd_room_init(struct nbd_room *room, struct loop *loop)
{
    *room = (struct nbd_room){.loop = loop, .free_bytes = NBD_SHARED_BYTES, .stall_ns = NBD_STALL_NS};
    list_init(&room->connections);
    list_init(&room->waiting);
}

struct nbd_room *nbd_room_of(struct nbd_server *server, struct loop *loop)
{
    struct nbd_room *room;
    if (loop == server->loop)
        return &server->room;
    list_for_each (room, &server->rooms, link)
        if (room->loop == loop)
            return room;
    room = new (struct nbd_room);
    nbd_room_init(room, loop);
    list_append(&server->rooms, &room->link);
    return room;
}

/* Whether it is the client's turn to do something. */
static bool waits_for_client(const struct nbd_connection *connection)
{
    return connection->receiving || connection->senders.running;
}

static void hang_up_on_stalled(struct nbd_room *room)
{
    struct nbd_connection *connection, *stalled = NULL;
    list_for_each (connection, &room->connections, room_link)
        if (connection->shared_bytes && waits_for_client(connection) &&
            (!stalled || connection->progress_ns < stalled->progress_ns))
            stalled = connection;
    if (!stalled || loop_now_ns(room->loop) - stalled->progress_ns < room->stall_ns)
        return;
    trace(nbd_stalled, "%s: hung up on: others wait for the memory it holds", stalled->stream->peer);
    nbd_hang_up(stalled);
}

static struct nbd_request *first_waiting(const struct nbd_room *room)
{
    return list_first(&room->waiting, struct nbd_request, link);
}

static void wake_first(struct nbd_room *room)
{
    struct nbd_request *first = first_waiting(room);
    if (first && first->wanted <= room->free_bytes)
        co_queue_wake_one(&first->turn);
}

/* YIELDS until the request is the first in the line and there is room. false: the connection has ended. */
static bool wait_in_line(struct nbd_room *room, struct nbd_request *request)
{
    int error = 0;
    list_append(&room->waiting, &request->link);
    while (!request->connection->broken && error != -ECANCELED &&
           (first_waiting(room) != request || request->wanted > room->free_bytes)) {
        error = co_queue_wait_ns(&request->turn, room->stall_ns);
        if (error == -ETIMEDOUT && first_waiting(room) == request)
            hang_up_on_stalled(room);
    }
    list_remove(&request->link);
    return !request->connection->broken && error != -ECANCELED;
}

static void take_shared(struct nbd_request *request, uint64_t bytes)
{
    struct nbd_connection *connection = request->connection;
    if (!connection->shared_bytes)
        connection->progress_ns = loop_now_ns(connection->loop);
    connection->shared_bytes += bytes;
    connection->common->free_bytes -= bytes;
    request->shared_room += bytes;
}

bool nbd_room_try(struct nbd_request *request, uint64_t bytes)
{
    struct nbd_connection *connection = request->connection;
    const struct nbd_room *room = connection->common;
    if (connection->own_bytes + bytes <= NBD_OWN_BYTES) {
        connection->own_bytes += bytes;
        request->own_room += bytes;
        return true;
    }
    if (!list_empty(&room->waiting) || bytes > room->free_bytes)
        return false;
    take_shared(request, bytes);
    return true;
}

bool nbd_room_take(struct nbd_request *request, uint64_t bytes)
{
    struct nbd_room *room = request->connection->common;
    if (nbd_room_try(request, bytes))
        return true;
    request->wanted = bytes;
    bool came_through = wait_in_line(room, request);
    if (came_through)
        take_shared(request, bytes);
    wake_first(room);
    return came_through;
}

void nbd_room_give_back(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    connection->own_bytes -= request->own_room;
    request->own_room = 0;
    if (!request->shared_room)
        return;
    connection->progress_ns = loop_now_ns(connection->loop);
    connection->shared_bytes -= request->shared_room;
    connection->common->free_bytes += request->shared_room;
    request->shared_room = 0;
    wake_first(connection->common);
}

void nbd_room_leave_line(struct nbd_connection *connection)
{
    struct nbd_request *request;
    list_for_each (request, &connection->common->waiting, link)
        if (request->connection == connection)
            co_queue_wake_all(&request->turn);
}
