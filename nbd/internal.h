/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share: server, export, connection, request. */
#ifndef NBD_INTERNAL_H
#define NBD_INTERNAL_H

#include <sys/uio.h>
#include "base/co.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/stream.h"
#include "base/vec.h"
#include "block/node.h"
#include "block/request.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "objects/object.h"

/* In-flight limits of one connection: what a client that sends without reading can make us hold. */
enum { NBD_MAX_IN_FLIGHT = 256 };
#define NBD_MAX_IN_FLIGHT_BYTES (64ull << 20)
/* Large reads wait, without a buffer, while so much that has been read is not sent yet: what is sent soon is still in
 * the processor's cache, and so is the buffer that it leaves. */
#define NBD_LARGE_READ (64u << 10)
#define NBD_MAX_UNSENT_BYTES (1ull << 20)
/* An idle connection costs little: its receive buffer holds some hundred requests and grows when writes with small
 * payloads come; buffers of requests that are done are kept for the next ones up to a limit. */
enum { NBD_RECEIVE_SMALL = 4 << 10, NBD_RECEIVE_LARGE = 64 << 10, NBD_KEPT_BUFFER = 1 << 20, NBD_KEPT_BYTES = 4 << 20 };

/* What all connections of a server that are served on one loop hold together (room.c): data of requests beyond each
 * connection's own, and buffers that are kept for the next requests. */
#define NBD_OWN_BYTES (1ull << 20)
#define NBD_SHARED_BYTES (256ull << 20)
#define NBD_SHARED_KEPT_BYTES (64ull << 20)
#define NBD_STALL_NS 30000000000ull

struct nbd_room {
    struct loop *loop;
    struct list link;        /* server->rooms */
    struct list connections; /* in transmission on this loop */
    uint64_t free_bytes;     /* of NBD_SHARED_BYTES */
    uint64_t kept_bytes;     /* the sum of the connections' */
    uint64_t stall_ns;       /* NBD_STALL_NS, but for tests */
    struct list waiting;     /* requests in line */
};

struct nbd_server {
    struct loop *loop;
    struct listener *listener; /* NULL once closed */
    struct nbd_server_limits limits;
    struct object *tls_creds, *tls_authz; /* held, or NULL: TLS is not offered, everybody who speaks it may come in */
    struct list exports;
    struct list connections;
    struct co_group group;          /* acceptor and connections */
    struct co_semaphore free_slots; /* max_connections */
    struct nbd_room room;           /* of the server's own loop */
    struct list rooms;              /* of other loops that have served connections */
};

struct nbd_export {
    struct nbd_server *server;
    struct list link;
    char *name, *description;
    struct edge *edge;
    struct loop *loop; /* where its connections are served; what touches the edge happens on the server's */
    bool writable, writethrough, closing;
    bool served; /* a client has got beyond the handshake */
    void (*left)(void *user);
    void *user;
    uint32_t connections; /* that have chosen this export */
    struct co_queue idle; /* woken when connections reaches 0 */
    vec_of(nbd_contexts, struct nbd_context) contexts;
};

/* What block status can tell about an export. The index in export->contexts + 1 is the id on the wire. */
enum nbd_context_kind { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_DEPTH, NBD_CONTEXT_DIRTY };
struct nbd_context {
    enum nbd_context_kind kind;
    char *name;                  /* "base:allocation" */
    struct dirty_bitmap *bitmap; /* busy, and its node referenced, while the export lives */
};

/* Indexes of contexts; none twice. */
vec_of(nbd_selection, uint32_t);

/* Born on the server's loop, where the handshake takes place. Transmission is on the export's loop: there the stream
 * and everything from `loop` on is used meanwhile, while `co` waits; afterwards it comes back to end here. */
struct nbd_connection {
    struct nbd_server *server;
    struct list link;
    struct stream *stream;
    struct co *co;             /* cancelling it ends the connection */
    bool is_away;              /* in transmission on another loop */
    struct nbd_export *export; /* chosen in the handshake, or what the option at hand is about; counted in it */
    bool fixed_newstyle, no_zeroes, structured, has_tls;
    bool extended;                 /* extended headers: `structured` is true then as well */
    struct nbd_selection contexts; /* negotiated for context_export */
    struct nbd_export *context_export;
    void (*left)(void *user); /* of who has attached it; NULL: it has shaken hands itself */
    void *user;

    struct loop *loop;
    struct co *reader; /* `co`, or what it waits for */
    struct nbd_room *common;
    struct list room_link; /* common->connections */
    uint32_t alignment;    /* of buffers */

    /* Receiving: bytes [used, filled) of `buffer` are not parsed yet. */
    uint8_t *buffer;
    size_t used, filled, buffer_size;

    /* In flight. */
    struct co_group requests;
    size_t in_flight;
    uint64_t in_flight_bytes;
    struct co_queue room; /* woken when a request is gone */
    struct list free_requests;
    size_t kept_bytes; /* data buffers of free_requests */
    uint64_t own_bytes, shared_bytes;
    uint64_t progress_ns; /* when shared room was given back, or first taken */
    bool receiving;       /* the payload of a write */

    /* Sending: requests whose replies are ready, in that order. A sender exists while there are any. */
    struct list ready;
    uint64_t unsent;      /* bytes read whose replies are in `ready` or being sent */
    struct co_queue sent; /* woken when a batch is out */
    struct co_group senders;
    bool broken; /* replies cannot be sent any more and are dropped */
};

struct nbd_request {
    struct list link; /* free_requests, in line for room, or ready */
    struct nbd_connection *connection;
    uint16_t flags, type;
    uint64_t cookie, offset, length;
    uint8_t *data;
    size_t data_capacity;
    uint64_t own_room, shared_room; /* what its memory is counted as */
    uint64_t wanted;                /* while it is in line for shared room, */
    struct co_queue turn;           /* until it is its turn */
    struct nbd_selection contexts;  /* block status: those the client asks for in its payload; empty: all negotiated */

    /* The reply: pieces for one sendmsg. Small replies use the inline arrays. */
    struct iovec *reply;
    unsigned reply_count;
    struct iovec reply_inline[2];
    uint8_t head[NBD_EXTENDED_CHUNK_SIZE + 8];
    void *reply_memory; /* longer replies: one allocation for pieces, heads and payload */
    uint8_t *next_head;
};

/* handshake.c: true when an export is chosen and transmission may begin. */
bool nbd_handshake(struct nbd_connection *connection);
struct nbd_export *nbd_find_export(struct nbd_server *server, const char *name, size_t length);
uint16_t nbd_export_flags(const struct nbd_connection *connection, const struct nbd_export *export);

/* server.c: while a connection is in an export, the export stays; closing it disconnects them. */
void nbd_enter_export(struct nbd_connection *connection, struct nbd_export *export);
void nbd_leave_export(struct nbd_connection *connection);
/* The client is gone, and its connection ends as soon as its requests have. The first is for the server's loop, the
 * second for the connection's. */
void nbd_disconnect(struct nbd_connection *connection);
void nbd_hang_up(struct nbd_connection *connection);

/* room.c: room for a request's data or a long reply, to be had before the memory. nbd_room_take() YIELDS; false: the
 * connection has ended. nbd_room_try() is for a buffer that is there, and does not wait. */
void nbd_room_init(struct nbd_room *room, struct loop *loop);
struct nbd_room *nbd_room_of(struct nbd_server *server, struct loop *loop); /* on the server's loop */
bool nbd_room_try(struct nbd_request *request, uint64_t bytes);
bool nbd_room_take(struct nbd_request *request, uint64_t bytes);
void nbd_room_give_back(struct nbd_request *request);
/* The requests of a broken connection do not wait for room any more. */
void nbd_room_leave_line(struct nbd_connection *connection);

/* transmission.c: serves requests until the client leaves or breaks the protocol. On the export's loop, wherever it is
 * called. YIELDS. */
void nbd_transmission(struct nbd_connection *connection);

/* export.c: the server of an export of this type. */
struct block_export;
const struct nbd_server *nbd_export_server(const struct block_export *block_export);

/* context.c: contexts of an export. */
struct nbd_export_options;
bool nbd_contexts_open(struct nbd_export *export, const struct nbd_export_options *options, struct error *err);
void nbd_contexts_close(struct nbd_export *export); /* YIELDS */
/* block_status.c */
void nbd_run_block_status(struct nbd_request *request);

/* Does what touches the graph, on its loop. Without an iothread that is a compare. YIELDS. */
static inline void nbd_at_home(const struct nbd_request *request, void (*fn)(void *arg), void *arg)
{
    if (likely(!request->connection->is_away))
        fn(arg);
    else
        co_call_on(request->connection->server->loop, fn, arg);
}
/* To be looked at there: does the request lie within the export? 0 or -errno. */
static inline int nbd_check_span(const struct nbd_request *request)
{
    const struct node *node = request->connection->export->edge->child;
    if (likely(span_fits(request->offset, request->length, node->size)))
        return 0;
    return request->type == NBD_CMD_WRITE || request->type == NBD_CMD_WRITE_ZEROES ? -ENOSPC : -EINVAL;
}

/* commands.c: carries a request out and leaves its reply; one coroutine a request. */
void nbd_request_run(void *request);

/* reply.c */
void nbd_reply_send(struct nbd_request *request); /* queues what the reply functions below have built */
void nbd_reply_done(struct nbd_request *request); /* success without data */
void nbd_reply_error(struct nbd_request *request, int error);
void nbd_reply_data(struct nbd_request *request); /* the request's data buffer, whole */
/* Longer structured replies: nbd_reply_begin() makes room for `chunks` chunks and returns `payload` bytes that live as
 * long as the reply does (NULL: no memory). Then the chunks in order, the last one with done, then nbd_reply_send(). */
void *nbd_reply_begin(struct nbd_request *request, unsigned chunks, size_t payload);
void nbd_reply_data_chunk(struct nbd_request *request, bool done, uint64_t offset, const void *data, uint32_t length);
void nbd_reply_hole_chunk(struct nbd_request *request, bool done, uint64_t offset, uint32_t length);
void nbd_reply_status_chunk(struct nbd_request *request, bool done, uint32_t context_id, const void *descriptors,
                            uint32_t count);
enum { NBD_DESCRIPTOR = 8, NBD_EXTENDED_DESCRIPTOR = 16 }; /* bytes: length and flags */

/* transmission.c: request memory. nbd_request_buffer() makes the data buffer as long as the request, as soon as there
 * is room for it. YIELDS. false: no memory, or the connection has ended. */
bool nbd_request_buffer(struct nbd_request *request);
void nbd_request_release(struct nbd_request *request);

#endif
