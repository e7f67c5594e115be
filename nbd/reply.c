/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies, and the sender of a connection: requests that are done queue up in `ready`, one coroutine sends as many as
 * there are in one system call. While it is sending, more get ready; so the busier the connection, the bigger the
 * batches. The sender is born with the first reply, behind whatever else is ready to run (its replies join the batch),
 * and ends with the last, so that an idle connection has no stack for it.
 */
#include "nbd/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/endian.h"
#include "base/trace.h"

enum { SEND_PIECES = 256 };

/* Sending
 * -------------------------------------------------------------------------------------------------------------- */

/* Moves requests from `ready` to `batch` until the pieces are full; at least one. Returns the number of pieces. */
static int gather(struct nbd_connection *connection, struct list *batch, struct iovec pieces[SEND_PIECES])
{
    unsigned count = 0;
    struct nbd_request *request;
    while ((request = list_first(&connection->ready, struct nbd_request, link))) {
        if (count && count + request->reply_count > SEND_PIECES)
            break;
        list_remove(&request->link);
        list_append(batch, &request->link);
        if (request->reply_count > SEND_PIECES)
            return -1; /* alone in its batch, sent from its own array */
        memcpy(pieces + count, request->reply, request->reply_count * sizeof *pieces);
        count += request->reply_count;
    }
    return (int)count;
}

static void send_batch(struct nbd_connection *connection)
{
    struct iovec pieces[SEND_PIECES];
    struct list batch;
    list_init(&batch);
    int count = gather(connection, &batch, pieces);
    if (!connection->broken) {
        struct nbd_request *first = list_first(&batch, struct nbd_request, link);
        int result = count < 0 ? stream_sendv(connection->stream, first->reply, (int)first->reply_count)
                               : stream_sendv(connection->stream, pieces, count);
        if (result < 0) {
            trace(nbd_send_failed, "%s: %s", connection->stream->peer, strerror(-result));
            connection->broken = true; /* replies are dropped from here on; the reader finds out too */
            stream_shutdown(connection->stream);
        }
    }
    struct nbd_request *request;
    list_for_each_safe (request, &batch, link) {
        list_remove(&request->link);
        if (request->type == NBD_CMD_READ)
            connection->unsent -= request->length;
        nbd_request_release(request);
    }
    co_queue_wake_all(&connection->sent);
    if (connection->broken) {
        co_queue_wake_all(&connection->room);
        nbd_room_leave_line(connection);
    }
}

static void sender_run(void *arg)
{
    struct nbd_connection *connection = arg;
    while (!list_empty(&connection->ready))
        send_batch(connection);
}

void nbd_reply_send(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    list_append(&connection->ready, &request->link);
    if (request->type == NBD_CMD_READ)
        connection->unsent += request->length;
    if (!connection->senders.running)
        co_spawn(connection->loop, &connection->senders, sender_run, connection);
}

/* Building
 * ------------------------------------------------------------------------------------------------------------- */

static uint32_t wire_error(int error)
{
    switch (error < 0 ? -error : error) {
    case 0: return 0;
    case EPERM:
    case EROFS:
    case EACCES: return NBD_EPERM;
    case ENOMEM: return NBD_ENOMEM;
    case EINVAL: return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT: return NBD_ENOSPC;
    case EOVERFLOW: return NBD_EOVERFLOW;
    case ENOTSUP: return NBD_ENOTSUP;
    case ESHUTDOWN:
    case ECANCELED: return NBD_ESHUTDOWN;
    default: return NBD_EIO;
    }
}

static size_t put_simple(uint8_t *head, const struct nbd_request *request, uint32_t error)
{
    store_be32(head, NBD_SIMPLE_REPLY_MAGIC);
    store_be32(head + 4, error);
    store_be64(head + 8, request->cookie);
    return NBD_SIMPLE_REPLY_SIZE;
}

static size_t put_chunk(uint8_t *head, const struct nbd_request *request, uint16_t flags, uint16_t type,
                        uint32_t length)
{
    bool extended = request->connection->extended;
    store_be32(head, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    store_be16(head + 4, flags);
    store_be16(head + 6, type);
    store_be64(head + 8, request->cookie);
    if (likely(!extended)) {
        store_be32(head + 16, length);
        return NBD_CHUNK_SIZE;
    }
    store_be64(head + 16, request->offset);
    store_be64(head + 24, length);
    return NBD_EXTENDED_CHUNK_SIZE;
}

void nbd_reply_done(struct nbd_request *request)
{
    request->reply = request->reply_inline;
    request->reply_count = 1;
    /* A simple reply is allowed for everything that returns no data, structured replies negotiated or not; only
     * extended headers want their own. */
    size_t size = request->connection->extended
                      ? put_chunk(request->head, request, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0)
                      : put_simple(request->head, request, 0);
    request->reply[0] = (struct iovec){request->head, size};
    nbd_reply_send(request);
}

void nbd_reply_error(struct nbd_request *request, int error)
{
    request->reply = request->reply_inline;
    request->reply_count = 1;
    size_t size;
    if (request->connection->structured) {
        size = put_chunk(request->head, request, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, 6);
        store_be32(request->head + size, wire_error(error));
        store_be16(request->head + size + 4, 0);
        size += 6;
    } else {
        size = put_simple(request->head, request, wire_error(error));
    }
    request->reply[0] = (struct iovec){request->head, size};
    nbd_reply_send(request);
}

void nbd_reply_data(struct nbd_request *request)
{
    size_t size;
    if (request->connection->structured) {
        size = put_chunk(request->head, request, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA,
                         8 + (uint32_t)request->length);
        store_be64(request->head + size, request->offset);
        size += 8;
    } else {
        size = put_simple(request->head, request, 0);
    }
    request->reply = request->reply_inline;
    request->reply[0] = (struct iovec){request->head, size};
    request->reply[1] = (struct iovec){request->data, request->length};
    request->reply_count = 2;
    nbd_reply_send(request);
}

/* Longer replies live in one allocation: the pieces (two a chunk at most), a head for each chunk, and the caller's
 * payload. */
enum { CHUNK_HEAD = NBD_EXTENDED_CHUNK_SIZE + 12 };

void *nbd_reply_begin(struct nbd_request *request, unsigned chunks, size_t payload)
{
    size_t pieces_size = 2 * chunks * sizeof(struct iovec), heads_size = (size_t)chunks * CHUNK_HEAD;
    request->reply_memory = try_calloc(1, pieces_size + heads_size + payload);
    if (!request->reply_memory)
        return NULL;
    request->reply = request->reply_memory;
    request->reply_count = 0;
    request->next_head = (uint8_t *)request->reply_memory + pieces_size;
    return request->next_head + heads_size;
}

static uint8_t *add_head(struct nbd_request *request, unsigned type, bool done, uint32_t fixed, uint32_t length)
{
    uint8_t *head = request->next_head;
    request->next_head += CHUNK_HEAD;
    size_t size = put_chunk(head, request, done ? NBD_REPLY_FLAG_DONE : 0, (uint16_t)type, fixed + length);
    request->reply[request->reply_count++] = (struct iovec){head, size + fixed};
    return head + size;
}

void nbd_reply_data_chunk(struct nbd_request *request, bool done, uint64_t offset, const void *data, uint32_t length)
{
    store_be64(add_head(request, NBD_REPLY_TYPE_OFFSET_DATA, done, 8, length), offset);
    request->reply[request->reply_count++] = (struct iovec){(void *)data, length};
}

void nbd_reply_hole_chunk(struct nbd_request *request, bool done, uint64_t offset, uint32_t length)
{
    uint8_t *fields = add_head(request, NBD_REPLY_TYPE_OFFSET_HOLE, done, 12, 0);
    store_be64(fields, offset);
    store_be32(fields + 8, length);
}

void nbd_reply_status_chunk(struct nbd_request *request, bool done, uint32_t context_id, const void *descriptors,
                            uint32_t count)
{
    uint32_t length = count * NBD_DESCRIPTOR;
    if (request->connection->extended) {
        length = count * NBD_EXTENDED_DESCRIPTOR;
        uint8_t *fields = add_head(request, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, done, 8, length);
        store_be32(fields, context_id);
        store_be32(fields + 4, count);
    } else {
        store_be32(add_head(request, NBD_REPLY_TYPE_BLOCK_STATUS, done, 4, length), context_id);
    }
    request->reply[request->reply_count++] = (struct iovec){(void *)descriptors, length};
}
