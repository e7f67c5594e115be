/* SPDX-License-Identifier: Apache-2.0 */
/*
 * throttle: requests wait until the limits of a throttle group allow them. Writes, zeroes and discards count as writes
 * of their length; a flush never waits, for it moves no data. While the node is drained nothing is held back: whoever
 * drains would wait for requests that wait for their turn. What they take too much is paid for afterwards.
 */
#include "block/filters/filters.h"
#include "block/filters/throttle_group.h"
#include "objects/object.h"
#include "qmp/schema/types.h"

static struct throttle_member *member_of(struct node *node)
{
    return node->state;
}

static bool throttle_open(struct node *node, struct error *err)
{
    const struct blockdev_options_throttle *options = &node->options->u.throttle;
    if (!filter_open_file(node, options->file, err))
        return false;
    node->growable = node->file->child->growable;
    struct object *group = throttle_group_hold(graph_objects(node->graph), options->throttle_group, err);
    if (group)
        throttle_join(member_of(node), group);
    return group != NULL;
}

static void throttle_close(struct node *node)
{
    throttle_leave(member_of(node));
}

static int throttle_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    throttle_request(member_of(node), THROTTLE_READ, length);
    return filter_read(node, offset, length, to, flags);
}

static int throttle_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    throttle_request(member_of(node), THROTTLE_WRITE, length);
    return filter_write(node, offset, length, from, flags);
}

static int throttle_write_compressed(struct node *node, uint64_t offset, uint64_t length, struct buffers from)
{
    throttle_request(member_of(node), THROTTLE_WRITE, length);
    return filter_write_compressed(node, offset, length, from);
}

static int throttle_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    throttle_request(member_of(node), THROTTLE_WRITE, length);
    return filter_zero(node, offset, length, flags);
}

static int throttle_discard(struct node *node, uint64_t offset, uint64_t length)
{
    throttle_request(member_of(node), THROTTLE_WRITE, length);
    return filter_discard(node, offset, length);
}

static void throttle_quiesce(struct node *node, bool quiesced)
{
    throttle_set_unlimited(member_of(node), quiesced);
}

/* Another group: held from the start, so that it cannot go away in between. */
static bool throttle_reopen_prepare(struct node *node, const struct blockdev_options *options,
                                    struct reopen_state **state, struct error *err)
{
    struct object *group = throttle_group_hold(graph_objects(node->graph), options->u.throttle.throttle_group, err);
    *state = (struct reopen_state *)group;
    return group != NULL;
}

static void throttle_reopen_commit(struct node *node, struct reopen_state *state)
{
    throttle_leave(member_of(node));
    throttle_join(member_of(node), (struct object *)state);
}

static void throttle_reopen_abort(struct node *node, struct reopen_state *state)
{
    object_release((struct object *)state);
}

const struct block_driver throttle_driver = {
    .name = "throttle",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct throttle_member),
    .open = throttle_open,
    .close = throttle_close,
    .read = throttle_read,
    .write = throttle_write,
    .write_compressed = throttle_write_compressed,
    .zero = throttle_zero,
    .discard = throttle_discard,
    .quiesce = throttle_quiesce,
    .reopen_prepare = throttle_reopen_prepare,
    .reopen_commit = throttle_reopen_commit,
    .reopen_abort = throttle_reopen_abort,
    .check_perm = node_pass_check_perm,
    .set_perm = node_pass_set_perm,
    .resize = filter_resize,
};
