/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No storage at all: writes vanish, reads give zeroes, or, without read-zeroes, leave the caller's buffer as it is,
 * which makes the request path measurable on its own. Every request may take a given time. The two names are one driver
 * here: an answer never comes from a thread.
 */
#include <string.h>
#include "base/co.h"
#include "base/iov.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

struct null_state {
    uint64_t latency_ns;
    bool read_zeroes;
};

static bool null_open(struct node *node, struct error *err)
{
    struct null_state *state = node->state;
    const struct blockdev_options_null *options =
        node->options->driver == BLOCKDEV_DRIVER_NULL_AIO ? &node->options->u.null_aio : &node->options->u.null_co;
    if (options->size > INT64_MAX)
        return fail(err, EINVAL, "node '%s': size is larger than 2^63 - 1 bytes", node->name);
    node->size = options->size;
    node->write_flags = node->zero_flags = REQUEST_FUA;
    state->latency_ns = options->latency_ns;
    state->read_zeroes = options->read_zeroes;
    return true;
}

static int answer(struct node *node)
{
    struct null_state *state = node->state;
    return state->latency_ns ? co_sleep_ns(state->latency_ns) : 0;
}

static int null_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct null_state *state = node->state;
    if (state->read_zeroes && !(flags & REQUEST_PREFETCH))
        iov_set(to.iov, (int)to.count, to.skip, 0, length);
    return answer(node);
}

static int null_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return answer(node);
}

static int null_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    return answer(node);
}

static int null_discard(struct node *node, uint64_t offset, uint64_t length)
{
    return answer(node);
}

static int null_flush(struct node *node)
{
    return answer(node);
}

static int null_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct null_state *state = node->state;
    *extent = (struct extent){.kind = state->read_zeroes ? EXTENT_ZERO : EXTENT_DATA,
                              .length = length,
                              .child_offset = offset,
                              .allocated = !state->read_zeroes};
    return 0;
}

static bool null_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                        struct error *err)
{
    node_set_size(node, size);
    return true;
}

static int64_t null_allocated_size(struct node *node)
{
    return 0;
}

const struct block_driver null_co_driver = {
    .name = "null-co",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct null_state),
    .open = null_open,
    .read = null_read,
    .write = null_write,
    .extents = null_extents,
    .zero = null_zero,
    .discard = null_discard,
    .flush = null_flush,
    .resize = null_resize,
    .allocated_size = null_allocated_size,
};

const struct block_driver null_aio_driver = {
    .name = "null-aio",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct null_state),
    .open = null_open,
    .read = null_read,
    .write = null_write,
    .extents = null_extents,
    .zero = null_zero,
    .discard = null_discard,
    .flush = null_flush,
    .resize = null_resize,
    .allocated_size = null_allocated_size,
};
