/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of a connection in transmission: takes requests off the wire, checks them and starts a coroutine for each.
 *
 * One receive call fills the buffer, often with many requests; payloads of writes that have not arrived yet are
 * received straight into the request's own buffer. The reader stops taking requests while too much is in flight (count
 * or bytes), which is also what bounds the memory that a client which sends but does not read can hold: a request
 * counts until its reply is sent.
 */
#include "nbd/internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/endian.h"
#include "base/trace.h"

/* Requests' memory
 * ----------------------------------------------------------------------------------------------------- */

static void drop_buffer(struct nbd_request *request)
{
    free(request->data);
    request->data = NULL;
    request->data_capacity = 0;
    nbd_room_give_back(request);
}

/* A buffer that an earlier request has left is counted as what it is, or goes. */
static void mind_old_buffer(struct nbd_request *request)
{
    if (request->data_capacity && !nbd_room_try(request, request->data_capacity))
        drop_buffer(request);
}

static struct nbd_request *request_new(struct nbd_connection *connection)
{
    while (connection->in_flight >= NBD_MAX_IN_FLIGHT && !connection->broken)
        if (co_queue_wait(&connection->room) < 0)
            return NULL;
    struct nbd_request *request = list_first(&connection->free_requests, struct nbd_request, link);
    if (request) {
        list_remove(&request->link);
        connection->kept_bytes -= request->data_capacity;
        connection->common->kept_bytes -= request->data_capacity;
    } else {
        request = new (struct nbd_request);
        request->connection = connection;
        co_queue_init(&request->turn);
    }
    request->reply = request->reply_inline;
    connection->in_flight++;
    mind_old_buffer(request);
    return request;
}

/* The buffer of the request that was sent last is still in the processor's cache. */
static void take_spare(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    struct nbd_request *spare = list_first(&connection->free_requests, struct nbd_request, link);
    if (!spare || spare->data_capacity < request->length)
        return;
    request->data = TAKE(spare->data);
    request->data_capacity = spare->data_capacity;
    spare->data_capacity = 0;
    connection->kept_bytes -= request->data_capacity;
    connection->common->kept_bytes -= request->data_capacity;
    mind_old_buffer(request);
}

/* What the nodes want may change while they are in use. Away from them we keep to what they wanted at first: a buffer
 * that is not aligned as they like is copied. */
static void *allocate_data(const struct nbd_connection *connection, uint64_t length)
{
    if (likely(!connection->is_away))
        return block_alloc_buffer(connection->export->edge, length);
    return try_aligned_alloc(connection->alignment, length);
}

bool nbd_request_buffer(struct nbd_request *request)
{
    if (request->data_capacity >= request->length)
        return true;
    drop_buffer(request);
    take_spare(request);
    if (request->data_capacity)
        return true;
    if (!nbd_room_take(request, request->length))
        return false;
    request->data = allocate_data(request->connection, request->length);
    request->data_capacity = request->data ? request->length : 0;
    return request->data;
}

/* Counts the data in; waits while too many bytes are in flight. A large read gets its room and its buffer when it is
 * its turn. false: no memory or disconnected. */
static bool request_reserve(struct nbd_request *request, uint64_t length)
{
    struct nbd_connection *connection = request->connection;
    while (connection->in_flight_bytes && connection->in_flight_bytes + length > NBD_MAX_IN_FLIGHT_BYTES &&
           !connection->broken)
        if (co_queue_wait(&connection->room) < 0)
            return false;
    if (!length)
        return true;
    bool at_once = request->type != NBD_CMD_READ || length < NBD_LARGE_READ;
    if (at_once && !nbd_request_buffer(request))
        return false;
    connection->in_flight_bytes += length;
    return true;
}

void nbd_request_release(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    if (request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE)
        connection->in_flight_bytes -= request->length;
    if (request->reply_memory) {
        free(request->reply_memory);
        request->reply_memory = NULL;
    }
    vec_clear(&request->contexts);
    struct nbd_room *room = connection->common;
    if (request->data_capacity > NBD_KEPT_BUFFER || connection->kept_bytes + request->data_capacity > NBD_KEPT_BYTES ||
        room->kept_bytes + request->data_capacity > NBD_SHARED_KEPT_BYTES) {
        free(request->data);
        request->data = NULL;
        request->data_capacity = 0;
    }
    connection->kept_bytes += request->data_capacity;
    room->kept_bytes += request->data_capacity;
    nbd_room_give_back(request);
    connection->in_flight--;
    list_prepend(&connection->free_requests, &request->link);
    co_queue_wake_one(&connection->room);
}

/* Receiving
 * ------------------------------------------------------------------------------------------------------------ */

/* Called with every byte parsed. Without memory for a larger buffer the small one goes on. */
static void grow_buffer(struct nbd_connection *connection)
{
    uint8_t *larger = malloc(NBD_RECEIVE_LARGE);
    if (!larger)
        return;
    free(connection->buffer);
    connection->buffer = larger;
    connection->buffer_size = NBD_RECEIVE_LARGE;
    connection->used = connection->filled = 0;
}

/* Makes `size` unparsed bytes available in the buffer; size is far below the buffer's. */
static bool fill(struct nbd_connection *connection, size_t size)
{
    if (connection->filled - connection->used >= size)
        return true;
    if (connection->used) {
        connection->filled -= connection->used;
        memmove(connection->buffer, connection->buffer + connection->used, connection->filled);
        connection->used = 0;
    }
    while (connection->filled < size) {
        ssize_t got = stream_recv(connection->stream, connection->buffer + connection->filled,
                                  connection->buffer_size - connection->filled);
        if (got <= 0)
            return false;
        connection->filled += (size_t)got;
    }
    return true;
}

/* Takes `size` payload bytes: what is in the buffer, then straight from the stream. `to` NULL throws them away. */
static bool receive_payload(struct nbd_connection *connection, uint8_t *to, size_t size)
{
    size_t part = MIN(size, connection->filled - connection->used);
    if (to)
        memcpy(to, connection->buffer + connection->used, part);
    connection->used += part;
    size -= part;
    if (!size)
        return true;
    if (connection->buffer_size == NBD_RECEIVE_SMALL)
        grow_buffer(connection);
    if (to)
        return stream_recv_all(connection->stream, to + part, size) == 0;
    while (size) {
        if (!fill(connection, 1))
            return false;
        part = MIN(size, connection->filled - connection->used);
        connection->used += part;
        size -= part;
    }
    return true;
}

/* Checking
 * ------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint16_t flags; /* allowed */
    bool writes;
} command_table[] = {
    [NBD_CMD_READ] = {"read", NBD_CMD_FLAG_DF, false},
    [NBD_CMD_WRITE] = {"write", NBD_CMD_FLAG_FUA, true},
    [NBD_CMD_DISC] = {"disconnect", NBD_CMD_FLAG_FUA, false},
    [NBD_CMD_FLUSH] = {"flush", NBD_CMD_FLAG_FUA, false},
    [NBD_CMD_TRIM] = {"trim", NBD_CMD_FLAG_FUA, true},
    [NBD_CMD_CACHE] = {"cache", NBD_CMD_FLAG_FUA, false},
    [NBD_CMD_WRITE_ZEROES] = {"write zeroes", NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true},
    [NBD_CMD_BLOCK_STATUS] = {"block status", NBD_CMD_FLAG_REQ_ONE, false}, /* and a payload, if extended */
};

/* 0, or the -errno that answers the request. Whether it lies within the export is seen where the node is. */
static int check_request(const struct nbd_connection *connection, const struct nbd_request *request)
{
    const struct nbd_export *export = connection->export;
    if (request->type >= ARRAY_SIZE(command_table))
        return -EINVAL;
    if (request->flags & ~command_table[request->type].flags)
        return -EINVAL;
    if (request->flags & NBD_CMD_FLAG_DF && !connection->structured)
        return -EINVAL;
    if (command_table[request->type].writes && !export->writable)
        return -EPERM;
    if ((request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE) && request->length > NBD_MAX_PAYLOAD)
        return -EINVAL;
    if (!request->length && (request->type == NBD_CMD_READ || request->type == NBD_CMD_BLOCK_STATUS))
        return -EINVAL; /* the protocol leaves it open; an empty read is a client's mistake */
    if (request->type == NBD_CMD_BLOCK_STATUS && !connection->contexts.count)
        return -EINVAL;
    return 0;
}

/* Payloads of extended requests
 * ---------------------------------------------------------------------------------------- */

/* Which contexts a block status asks for: the effect length, then their ids. What makes no sense is read all the same,
 * so that we stay in step. false: the connection has ended. */
static bool receive_contexts(struct nbd_connection *connection, struct nbd_request *request, uint64_t size, int *error)
{
    uint8_t word[8];
    uint64_t ids = (size - 8) / 4;
    if (size < 8 || (size - 8) % 4 || !ids || ids > connection->contexts.count) {
        *error = -EINVAL;
        return receive_payload(connection, NULL, size);
    }
    if (!receive_payload(connection, word, 8))
        return false;
    request->length = load_be64(word);
    for (uint64_t i = 0; i < ids; i++) {
        if (!receive_payload(connection, word, 4))
            return false;
        uint32_t index = load_be32(word) - 1;
        bool negotiated = false, again = false;
        for (size_t c = 0; c < connection->contexts.count; c++)
            negotiated = negotiated || connection->contexts.items[c] == index;
        for (size_t c = 0; c < request->contexts.count; c++)
            again = again || request->contexts.items[c] == index;
        if (!negotiated || again)
            *error = -EINVAL;
        else
            vec_push(&request->contexts, index);
    }
    return true;
}

/* Makes of an extended request what it would be as a compact one. Writes must say that a payload follows, block status
 * may have one, nothing else has. false: the connection has ended. */
static bool take_payload_flag(struct nbd_connection *connection, struct nbd_request *request, int *error)
{
    bool has_payload = request->flags & NBD_CMD_FLAG_PAYLOAD_LEN;
    request->flags &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
    if (request->type == NBD_CMD_WRITE) {
        if (!has_payload)
            *error = -EINVAL;
        return !has_payload || request->length <= NBD_MAX_PAYLOAD;
    }
    if (!has_payload)
        return true;
    if (request->length > NBD_MAX_PAYLOAD)
        return false;
    if (request->type == NBD_CMD_BLOCK_STATUS)
        return receive_contexts(connection, request, request->length, error);
    *error = -EINVAL;
    return receive_payload(connection, NULL, request->length);
}

/* One request. false ends the connection: the client left, broke the framing, or asked for it. */
static bool next_request(struct nbd_connection *connection)
{
    size_t head_size = likely(!connection->extended) ? NBD_REQUEST_SIZE : NBD_EXTENDED_REQUEST_SIZE;
    if (!fill(connection, head_size))
        return false;
    const uint8_t *wire = connection->buffer + connection->used;
    if (load_be32(wire) != (likely(!connection->extended) ? NBD_REQUEST_MAGIC : NBD_EXTENDED_REQUEST_MAGIC))
        return false;
    uint16_t flags = load_be16(wire + 4), type = load_be16(wire + 6);
    uint64_t cookie = load_be64(wire + 8), offset = load_be64(wire + 16);
    uint64_t length = likely(!connection->extended) ? load_be32(wire + 24) : load_be64(wire + 24);
    connection->used += head_size;
    if (type == NBD_CMD_DISC)
        return false;

    struct nbd_request *request = request_new(connection);
    if (!request)
        return false;
    request->flags = flags;
    request->type = type;
    request->cookie = cookie;
    request->offset = offset;
    request->length = length;
    trace(nbd_request, "%s: %s flags %#x offset %" PRIu64 " length %" PRIu64, connection->stream->peer,
          type < ARRAY_SIZE(command_table) ? command_table[type].name : "?", flags, offset, length);

    int error = 0;
    bool has_payload = type == NBD_CMD_WRITE;
    if (unlikely(connection->extended)) {
        has_payload = has_payload && flags & NBD_CMD_FLAG_PAYLOAD_LEN;
        if (!take_payload_flag(connection, request, &error)) {
            request->length = 0; /* nothing was reserved */
            nbd_request_release(request);
            return false;
        }
    }
    if (!error)
        error = check_request(connection, request);
    bool has_data = type == NBD_CMD_READ || type == NBD_CMD_WRITE;
    if (has_data && (error || !request_reserve(request, length))) {
        if (!error)
            error = -ENOMEM;
        request->length = 0; /* nothing was reserved */
    }
    connection->receiving = has_payload;
    if (has_payload && !receive_payload(connection, error ? NULL : request->data, length)) {
        nbd_request_release(request);
        return false;
    }
    connection->receiving = false;
    if (error)
        nbd_reply_error(request, error);
    else
        co_spawn(connection->loop, &connection->requests, nbd_request_run, request);
    return !connection->broken;
}

static void forget_requests(struct nbd_connection *connection)
{
    struct nbd_request *request;
    list_for_each_safe (request, &connection->free_requests, link) {
        list_remove(&request->link);
        connection->common->kept_bytes -= request->data_capacity;
        vec_free(&request->contexts);
        free(request->data);
        free(request);
    }
    connection->kept_bytes = 0;
    free(TAKE(connection->buffer));
}

/* On the connection's loop. */
static void serve(void *arg)
{
    struct nbd_connection *connection = arg;
    connection->reader = co_self();
    list_append(&connection->common->connections, &connection->room_link);
    connection->buffer_size = NBD_RECEIVE_SMALL;
    connection->buffer = xmalloc(connection->buffer_size);
    while (next_request(connection))
        ;
    connection->receiving = false;
    if (co_cancelled()) {
        connection->broken = true; /* nobody is to be told any more */
        stream_shutdown(connection->stream);
    }
    if (connection->broken)
        nbd_room_leave_line(connection);
    co_group_wait(&connection->requests); /* what was asked is carried out, also when the client is gone */
    co_group_wait(&connection->senders);
    list_remove(&connection->room_link);
    forget_requests(connection);
    stream_move(connection->stream, connection->server->loop);
}

void nbd_transmission(struct nbd_connection *connection)
{
    struct nbd_server *server = connection->server;
    struct nbd_export *export = connection->export;
    connection->is_away = export->loop != server->loop;
    connection->common = nbd_room_of(server, export->loop);
    connection->alignment = block_buffer_alignment(export->edge);
    connection->loop = export->loop;
    stream_move(connection->stream, export->loop);
    co_call_on(export->loop, serve, connection);
    connection->is_away = false;
    connection->loop = server->loop;
}
