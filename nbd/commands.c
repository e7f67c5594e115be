/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each request does, once the reader has checked it. Each runs in its own coroutine and leaves exactly one reply.
 * Nothing is sent before a request has succeeded as a whole, so a reply never has to be taken back in its middle.
 *
 * What touches the graph is a function of its own, since it happens on the graph's loop (nbd_at_home()), one trip a
 * request; memory, order and replies belong to the connection's.
 */
#include "nbd/internal.h"

/* Reads of this size and more look for holes first: what is not stored is then not sent either. Smaller ones are not
 * worth the look. */
enum { SPARSE_READ = 64 << 10, SPARSE_PIECES = 64 };

static struct edge *edge_of(const struct nbd_request *request)
{
    return request->connection->export->edge;
}

struct piece {
    uint32_t start, length;
    bool hole;
};

/* A read at home: the whole, or as pieces. */
struct read_call {
    struct nbd_request *request;
    int error;
    int count; /* of pieces; 0: none were asked for, or it is all data */
    struct piece *pieces;
};

static int read_part(struct nbd_request *request, uint64_t start, uint64_t length)
{
    return block_read_buffer(edge_of(request), request->offset + start, request->data + start, length);
}

static inline int read_whole(struct nbd_request *request)
{
    int error = nbd_check_span(request);
    return unlikely(error) ? error : read_part(request, 0, request->length);
}

static void read_at_home(void *arg)
{
    struct read_call *call = arg;
    call->error = read_whole(call->request);
}

/* The most frequent of all, so without a detour where none is needed. */
static void run_plain_read(struct nbd_request *request)
{
    struct read_call call = {.request = request};
    if (likely(!request->connection->is_away))
        call.error = read_whole(request);
    else
        nbd_at_home(request, read_at_home, &call);
    if (call.error < 0)
        nbd_reply_error(request, call.error);
    else
        nbd_reply_data(request);
}

/* Splits the request into holes and data; the last piece takes what did not fit. */
static int find_pieces(struct nbd_request *request, struct piece pieces[SPARSE_PIECES])
{
    int count = 0;
    uint64_t done = 0;
    while (done < request->length) {
        struct block_status status;
        bool room = count < SPARSE_PIECES - 1;
        int error =
            room ? block_status(edge_of(request), request->offset + done, request->length - done, 0, &status) : 0;
        if (error < 0)
            return error;
        uint64_t length = room ? status.length : request->length - done;
        bool hole = room && status.zero;
        if (count && pieces[count - 1].hole == hole)
            pieces[count - 1].length += (uint32_t)length;
        else
            pieces[count++] = (struct piece){(uint32_t)done, (uint32_t)length, hole};
        done += length;
    }
    return count;
}

static void sparse_read_at_home(void *arg)
{
    struct read_call *call = arg;
    struct nbd_request *request = call->request;
    call->error = nbd_check_span(request);
    int count = call->error ? 0 : find_pieces(request, call->pieces);
    if (!call->error && (count < 0 || (count == 1 && !call->pieces[0].hole))) {
        call->error = read_part(request, 0, request->length);
        return;
    }
    call->count = count;
    for (int i = 0; i < count && !call->error; i++)
        call->error = call->pieces[i].hole ? 0 : read_part(request, call->pieces[i].start, call->pieces[i].length);
}

static void reply_pieces(struct nbd_request *request, const struct piece *pieces, int count)
{
    if (!nbd_reply_begin(request, (unsigned)count, 0)) {
        nbd_reply_error(request, -ENOMEM);
        return;
    }
    for (int i = 0; i < count; i++) {
        uint64_t offset = request->offset + pieces[i].start;
        if (pieces[i].hole)
            nbd_reply_hole_chunk(request, i == count - 1, offset, pieces[i].length);
        else
            nbd_reply_data_chunk(request, i == count - 1, offset, request->data + pieces[i].start, pieces[i].length);
    }
    nbd_reply_send(request);
}

static void run_sparse_read(struct nbd_request *request)
{
    struct piece pieces[SPARSE_PIECES];
    struct read_call call = {.request = request, .pieces = pieces};
    nbd_at_home(request, sparse_read_at_home, &call);
    if (call.error < 0)
        nbd_reply_error(request, call.error);
    else if (!call.count)
        nbd_reply_data(request);
    else
        reply_pieces(request, call.pieces, call.count);
}

/* From a disk all reads are under way together, as nothing is unsent when they start; from the page cache, which
 * answers at once, they take turns with sending. Whoever comes later waits behind those who wait. */
static void wait_for_sender(struct nbd_connection *connection)
{
    bool others = !list_empty(&connection->sent.waiters);
    while ((others || connection->unsent >= NBD_MAX_UNSENT_BYTES) && !connection->broken) {
        if (co_queue_wait(&connection->sent) < 0)
            return;
        others = false;
    }
}

static void run_read(struct nbd_request *request)
{
    if (request->length >= NBD_LARGE_READ) {
        wait_for_sender(request->connection);
        if (!nbd_request_buffer(request)) {
            nbd_reply_error(request, -ENOMEM);
            return;
        }
    }
    if (request->length >= SPARSE_READ && request->connection->structured && !(request->flags & NBD_CMD_FLAG_DF))
        run_sparse_read(request);
    else
        run_plain_read(request);
}

/* Everything below answers with success or an error, no data, and runs at home. */

static uint32_t durability(const struct nbd_request *request)
{
    return request->flags & NBD_CMD_FLAG_FUA || request->connection->export->writethrough ? REQUEST_FUA : 0;
}

static int run_write(struct nbd_request *request)
{
    return block_write_buffer(edge_of(request), request->offset, request->data, request->length, durability(request));
}

static int run_write_zeroes(struct nbd_request *request)
{
    uint32_t flags = durability(request);
    if (!(request->flags & NBD_CMD_FLAG_NO_HOLE))
        flags |= REQUEST_MAY_UNMAP;
    if (request->flags & NBD_CMD_FLAG_FAST_ZERO)
        flags |= REQUEST_NO_FALLBACK;
    return block_zero(edge_of(request), request->offset, request->length, flags);
}

static int run_trim(struct nbd_request *request)
{
    int error = block_discard(edge_of(request), request->offset, request->length);
    return error < 0 || !durability(request) ? error : block_flush(edge_of(request));
}

static int run_flush(struct nbd_request *request)
{
    return block_flush(edge_of(request));
}

static int run_cache(struct nbd_request *request)
{
    return block_read(edge_of(request), request->offset, request->length, (struct buffers){0}, REQUEST_PREFETCH);
}

/* Dispatch
 * ------------------------------------------------------------------------------------------------------------- */

static int (*const dataless[])(struct nbd_request *request) = {
    [NBD_CMD_WRITE] = run_write,
    [NBD_CMD_FLUSH] = run_flush,
    [NBD_CMD_TRIM] = run_trim,
    [NBD_CMD_CACHE] = run_cache,
    [NBD_CMD_WRITE_ZEROES] = run_write_zeroes,
};

struct dataless_call {
    struct nbd_request *request;
    int error;
};

static void dataless_at_home(void *arg)
{
    struct dataless_call *call = arg;
    struct nbd_request *request = call->request;
    call->error = request->type == NBD_CMD_FLUSH ? 0 : nbd_check_span(request);
    if (likely(!call->error))
        call->error = dataless[request->type](request);
}

static void run_dataless(struct nbd_request *request)
{
    struct dataless_call call = {.request = request};
    nbd_at_home(request, dataless_at_home, &call);
    if (call.error < 0)
        nbd_reply_error(request, call.error);
    else
        nbd_reply_done(request);
}

void nbd_request_run(void *arg)
{
    struct nbd_request *request = arg;
    if (request->type == NBD_CMD_READ) {
        run_read(request);
    } else if (request->type == NBD_CMD_BLOCK_STATUS) {
        nbd_run_block_status(request);
    } else {
        run_dataless(request);
    }
}
