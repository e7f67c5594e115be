/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request block status: for each context that was negotiated (or that the request's payload names) a list of
 * extents and their flags, from the offset asked on. Equal neighbours are one extent. The list may end early: because
 * it is full, or because enough time went into it; the client asks again from there.
 */
#include "nbd/internal.h"

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "block/dirty_bitmap.h"

enum {
    DESCRIPTORS = 4096,   /* in one reply, shared by its contexts; */
    DESCRIPTORS_MIN = 16, /* but each has so many */
    STEPS = 65536,        /* questions to the graph for one list: a large, finely fragmented area is told in parts */
};

struct extents {
    uint8_t *wire; /* where the descriptors go, as the client wants them */
    bool wide;
    uint32_t count, limit;
    uint64_t length; /* of the last one */
    uint32_t flags;
};

/* false: the list is full. */
static bool add(struct extents *extents, uint64_t length, uint32_t flags)
{
    if (extents->count && extents->flags == flags) {
        extents->length += length;
    } else if (extents->count == extents->limit) {
        return false;
    } else {
        extents->length = length;
        extents->flags = flags;
        extents->count++;
    }
    uint32_t index = extents->count - 1;
    if (extents->wide) {
        store_be64(extents->wire + index * NBD_EXTENDED_DESCRIPTOR, extents->length);
        store_be64(extents->wire + index * NBD_EXTENDED_DESCRIPTOR + 8, flags);
    } else {
        store_be32(extents->wire + index * NBD_DESCRIPTOR, (uint32_t)extents->length);
        store_be32(extents->wire + index * NBD_DESCRIPTOR + 4, flags);
    }
    return true;
}

/* How far a status reaches from `offset` on, and its flags. 0 or -errno. */
typedef int (*question)(struct nbd_request *request, const struct nbd_context *context, uint64_t offset,
                        uint64_t length, uint64_t *reach, uint32_t *flags);

static int ask_allocation(struct nbd_request *request, const struct nbd_context *context, uint64_t offset,
                          uint64_t length, uint64_t *reach, uint32_t *flags)
{
    struct block_status status = {0};
    (void)context;
    int error = block_status(request->connection->export->edge, offset, length, BLOCK_STATUS_PRECISE, &status);
    *reach = status.length;
    *flags = (status.data ? 0 : NBD_STATE_HOLE) | (status.zero ? NBD_STATE_ZERO : 0);
    return error;
}

/* 0: no image of the chain has it; 1: the exported one; 2: the one below, and so on. */
static int ask_depth(struct nbd_request *request, const struct nbd_context *context, uint64_t offset, uint64_t length,
                     uint64_t *reach, uint32_t *flags)
{
    struct block_status status = {0};
    (void)context;
    int error = block_status(request->connection->export->edge, offset, length, 0, &status);
    *reach = status.length;
    *flags = status.allocated ? status.depth + 1 : 0;
    return error;
}

/* What a bitmap does not know is dirty: it may say too much, never too little. */
static int ask_dirty(struct nbd_request *request, const struct nbd_context *context, uint64_t offset, uint64_t length,
                     uint64_t *reach, uint32_t *flags)
{
    const struct dirty_bitmap *bitmap = context->bitmap;
    bool dirty = true;
    (void)request;
    *reach = length;
    if (bitmap->bits && offset < bitmap->size)
        *reach = dirty_bitmap_run(bitmap, offset, MIN(length, bitmap->size - offset), &dirty);
    *flags = dirty ? NBD_STATE_DIRTY : 0;
    return 0;
}

static const question questions[] = {
    [NBD_CONTEXT_ALLOCATION] = ask_allocation,
    [NBD_CONTEXT_DEPTH] = ask_depth,
    [NBD_CONTEXT_DIRTY] = ask_dirty,
};

/* At least one extent, or -errno. At home. */
static int find_extents(struct nbd_request *request, const struct nbd_context *context, struct extents *extents)
{
    uint64_t done = 0;
    for (unsigned steps = 0; done < request->length && steps < STEPS; steps++) {
        uint64_t reach = 0;
        uint32_t flags = 0;
        int error =
            questions[context->kind](request, context, request->offset + done, request->length - done, &reach, &flags);
        if (error < 0)
            return extents->count ? 0 : error;
        if (!add(extents, reach, flags))
            break;
        done += reach;
    }
    return 0;
}

struct status_call {
    struct nbd_request *request;
    const struct nbd_selection *chosen;
    uint8_t *room; /* `size` bytes for the extents of each context */
    size_t size;
    uint32_t limit, *counts;
    int error;
};

static void find_at_home(void *arg)
{
    struct status_call *call = arg;
    const struct nbd_connection *connection = call->request->connection;
    call->error = nbd_check_span(call->request);
    for (size_t i = 0; i < call->chosen->count && !call->error; i++) {
        const struct nbd_context *context = &connection->export->contexts.items[call->chosen->items[i]];
        struct extents extents = {
            .wire = call->room + i * call->size, .wide = connection->extended, .limit = call->limit};
        call->error = find_extents(call->request, context, &extents);
        call->counts[i] = extents.count;
    }
}

static void reply(struct status_call *call)
{
    size_t count = call->chosen->count;
    for (size_t i = 0; i < count; i++)
        nbd_reply_status_chunk(call->request, i + 1 == count, call->chosen->items[i] + 1, call->room + i * call->size,
                               call->counts[i]);
    nbd_reply_send(call->request);
}

void nbd_run_block_status(struct nbd_request *request)
{
    struct nbd_connection *connection = request->connection;
    struct status_call call = {.request = request};
    call.chosen = request->contexts.count ? &request->contexts : &connection->contexts;
    size_t count = call.chosen->count;
    call.limit = MAX((uint32_t)DESCRIPTORS / (uint32_t)count, (uint32_t)DESCRIPTORS_MIN);
    if (request->flags & NBD_CMD_FLAG_REQ_ONE)
        call.limit = 1;
    call.size = (size_t)call.limit * (connection->extended ? NBD_EXTENDED_DESCRIPTOR : NBD_DESCRIPTOR);
    if (nbd_room_take(request, call.size * count))
        call.room = nbd_reply_begin(request, (unsigned)count, call.size * count);
    if (!call.room) {
        nbd_reply_error(request, -ENOMEM);
        return;
    }
    auto_free uint32_t *counts = new_array(uint32_t, count);
    call.counts = counts;
    nbd_at_home(request, find_at_home, &call);
    if (call.error < 0)
        nbd_reply_error(request, call.error);
    else
        reply(&call);
}
