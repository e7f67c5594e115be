/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checked border of the block graph: every request of an export, job, tool or driver enters a node here. The
 * request path checks bounds and permissions, pads to the driver's alignment (read-modify-write, serialised), splits to
 * its limits, detects zeroes, emulates zero and discard and FUA, accounts, traces, and counts in-flight requests for
 * drain.
 *
 * All functions YIELD and return 0 or -errno: -EINVAL for a span that wraps, -EIO past the end, -EPERM without
 * permission, -EROFS ... `length` may be any size the caller has buffers for; 0 is a valid no-op.
 */
#ifndef BLOCK_REQUEST_H
#define BLOCK_REQUEST_H

#include "block/driver.h"

int block_read(struct edge *edge, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags);
int block_write(struct edge *edge, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags);
int block_zero(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags);
int block_discard(struct edge *edge, uint64_t offset, uint64_t length);
int block_flush(struct edge *edge);
/* Space for what has none yet; what is read does not change. -ENOTSUP: the driver can give it only with data. */
int block_allocate(struct edge *edge, uint64_t offset, uint64_t length);

/* One plain buffer, for metadata and tools. */
int block_read_buffer(struct edge *edge, uint64_t offset, void *buffer, size_t length);
int block_write_buffer(struct edge *edge, uint64_t offset, const void *buffer, size_t length, uint32_t flags);

/* Block status. Looks through the whole chain below the edge. */
struct block_status {
    uint64_t length; /* bytes that share this status, 1 .. asked length */
    bool data;       /* bytes are stored somewhere */
    bool zero;       /* reads as zeroes */
    bool allocated;  /* some layer of the chain decides it ("present") */
    bool compressed;
    unsigned depth;    /* how many backing steps down the deciding layer is; when none is: the deepest */
    struct node *node; /* holding the data one to one at `offset`; NULL when there is no such place */
    uint64_t offset;
};
enum block_status_flags {
    BLOCK_STATUS_PRECISE = 1 << 0, /* ask protocols about holes inside data extents (SEEK_DATA) */
    BLOCK_STATUS_TOP_ONLY = 1 << 1 /* do not look into backing nodes */
};
int block_status(struct edge *edge, uint64_t offset, uint64_t length, uint32_t flags, struct block_status *status);

/* The same for the layers above `base` (NULL: all of them): what none of them decides is not `allocated`. */
int block_status_above(struct edge *edge, const struct node *base, uint64_t offset, uint64_t length, uint32_t flags,
                       struct block_status *status);

/* What the node takes from the layers between it and `base` (NULL: from all of its backing nodes) becomes its own;
 * parts that read as zeroes and will do so without them are left out. Guests see no change, also when they write
 * meanwhile. Needs the permission to write unchanged. *read_failed (may be NULL) tells what kind of error it was. */
int block_pull(struct edge *edge, const struct node *base, uint64_t offset, uint64_t length, bool *read_failed);

/* Copies between two nodes in the cheapest way that both sides offer: skips zeroes (zeroing the target unless it is
 * known to read zero), copy_file_range / reflink where both sides map to files, else buffers. See block/copy.c. */
enum block_copy_flags { BLOCK_COPY_TARGET_IS_ZERO = 1 << 0, BLOCK_COPY_OFFLOAD = 1 << 1, BLOCK_COPY_COMPRESS = 1 << 2 };
int block_copy(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
               uint32_t flags);
/* The same; after an error, *read_failed tells on which side. */
int block_copy_sides(struct edge *from, uint64_t from_offset, struct edge *to, uint64_t to_offset, uint64_t length,
                     uint32_t flags, bool *read_failed);

/* What direct I/O on the edge's child wants of buffers, in bytes, a power of two. */
uint32_t block_buffer_alignment(const struct edge *edge);
/* Aligned buffer good for direct I/O on the edge's child; NULL when out of memory; free() it. */
void *block_alloc_buffer(struct edge *edge, size_t size);

static inline struct buffers buffers_of(const struct iovec *iov, unsigned count)
{
    return (struct buffers){iov, count, 0};
}

static inline struct buffers buffers_skip(struct buffers buffers, size_t bytes)
{
    buffers.skip += bytes;
    return buffers;
}

#endif
