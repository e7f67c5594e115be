/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw: the bytes of another node as they are, all of them or a window [offset, offset + size). Needs of the parents are
 * passed on to the file, so a raw node nobody uses holds no lock.
 *
 * Disks consist of sectors of 512 bytes, files do not: where no size is given, the disk of a file that ends inside a
 * sector reaches to the end of that sector. What is missing there reads as zeroes, and writing it makes the file
 * longer.
 *
 * It moves bytes itself (one addition a request) and also maps, so that block status, copy offload and the like look
 * through it down to the file.
 *
 * The trap: when nobody said "raw" and the format was guessed, a guest could write another format's signature into its
 * first bytes, and the next start would take its disk for an image with a backing file of the guest's choice. So such a
 * node refuses a write after which its head would look like anything but raw.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "block/create.h"
#include "block/probe.h"
#include "block/request.h"
#include "formats/table.h"
#include "qmp/schema/types.h"

#define SECTOR 512ull

struct raw_state {
    uint64_t offset;
    bool has_size; /* a window of fixed size */
};

static bool set_window(struct node *node, const struct blockdev_options_raw *options, struct error *err)
{
    struct raw_state *state = node->state;
    uint64_t available = node->file->child->size;
    if (options->offset > available)
        return fail(err, EINVAL,
                    "node '%s': offset %" PRIu64 " is behind the end of the file, which has %" PRIu64 " bytes",
                    node->name, options->offset, available);
    if (options->has_size && options->size > available - options->offset)
        return fail(err, EINVAL,
                    "node '%s': a window of %" PRIu64 " bytes at offset %" PRIu64
                    " does not fit into the file, which has %" PRIu64 " bytes",
                    node->name, options->size, options->offset, available);
    state->offset = options->offset;
    state->has_size = options->has_size;
    node_set_size(node, options->has_size ? options->size : round_up(available - options->offset, SECTOR));
    return true;
}

/* How much of a span the file has; the rest is the end of the last sector. */
static uint64_t part_in_file(const struct node *node, uint64_t offset, uint64_t length)
{
    const struct raw_state *state = node->state;
    uint64_t available = node->file->child->size - MIN(node->file->child->size, state->offset);
    return offset < available ? MIN(length, available - offset) : 0;
}

/* Whoever may write the disk may write its last sector. */
static uint32_t with_last_sector(const struct node *node, uint32_t perm)
{
    const struct raw_state *state = node->state;
    bool is_odd = node->file && node->file->child->size < state->offset + node->size;
    return is_odd && (perm & BLOCK_PERM_WRITE) ? perm | BLOCK_PERM_RESIZE : perm;
}

static bool raw_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return node_pass_check_perm(node, with_last_sector(node, perm), shared, err);
}

static void raw_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    node_pass_set_perm(node, with_last_sector(node, perm), shared);
}

static void warn_about_guess(const struct node *node)
{
    if (node->probed && !node->read_only)
        log_warning(
            "Image format was not specified for '%s' and probing guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw images, write operations on block 0 "
            "will be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the restrictions.",
            node->filename ? node->filename : node->name);
}

static bool raw_open(struct node *node, struct error *err)
{
    const struct blockdev_options_raw *options = &node->options->u.raw;
    if (!node_open_child(node, "file", options->file, 0, BLOCK_PERM_ALL, err))
        return false;
    if (!set_window(node, options, err))
        return false;
    if (node->file->child->read_only) {
        node->read_only = true;
        node->auto_read_only |= node->file->child->auto_read_only;
    }
    if (node->file->child->filename)
        node->filename = xstrdup(node->file->child->filename);
    node->write_flags = node->zero_flags = REQUEST_FUA | REQUEST_WRITE_UNCHANGED | REQUEST_SERIALISING;
    node->limits.memory_alignment = 1; /* the file's own border pads for it */
    warn_about_guess(node);
    return true;
}

/* Only a guess can say "raw": it is what is left when no signature is known. */
static int raw_probe(const uint8_t *head, size_t size, const char *filename)
{
    return 1;
}

static int raw_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    const struct raw_state *state = node->state;
    if (unlikely(!span_fits(state->offset + offset, length, node->file->child->size))) {
        uint64_t part = part_in_file(node, offset, length);
        iov_set(to.iov, (int)to.count, to.skip + part, 0, length - part);
        length = part;
    }
    return block_read(node->file, state->offset + offset, length, to, flags);
}

/* What the head would be after a write that touches it. */
static int check_head(struct node *node, uint64_t offset, uint64_t length, struct buffers from)
{
    const struct raw_state *state = node->state;
    uint8_t head[PROBE_HEAD_SIZE] = {0};
    size_t size = MIN(node->size, PROBE_HEAD_SIZE);
    int result = block_read_buffer(node->file, state->offset, head, part_in_file(node, 0, size));
    if (result < 0)
        return result;
    size_t part = MIN(length, size - offset);
    if (from.iov)
        iov_to_buffer(from.iov, (int)from.count, from.skip, head + offset, part);
    else
        memset(head + offset, 0, part);
    const struct block_driver *looks_like = probe_head(node->graph, head, size, node->filename);
    return looks_like == node->driver ? 0 : -EPERM;
}

static int raw_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    const struct raw_state *state = node->state;
    if (unlikely(node->probed && offset < MIN(node->size, PROBE_HEAD_SIZE))) {
        int result = check_head(node, offset, length, from);
        if (result < 0)
            return result;
    }
    return block_write(node->file, state->offset + offset, length, from, flags);
}

static int raw_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    const struct raw_state *state = node->state;
    return block_zero(node->file, state->offset + offset, length, flags);
}

static int raw_discard(struct node *node, uint64_t offset, uint64_t length)
{
    const struct raw_state *state = node->state;
    return block_discard(node->file, state->offset + offset, part_in_file(node, offset, length));
}

static int raw_map(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    const struct raw_state *state = node->state;
    *extent = (struct extent){.kind = EXTENT_DATA,
                              .length = length,
                              .child = node->file,
                              .child_offset = state->offset + offset,
                              .allocated = true,
                              .follow = true};
    if (unlikely(!span_fits(state->offset + offset, length, node->file->child->size))) {
        extent->length = part_in_file(node, offset, length);
        if (!extent->length)
            *extent = (struct extent){.kind = EXTENT_ZERO, .length = length, .allocated = true};
    }
    return 0;
}

static bool raw_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                       struct error *err)
{
    const struct raw_state *state = node->state;
    uint64_t end;
    if (state->has_size)
        return fail(err, ENOTSUP, "Cannot resize fixed-size raw disks (node '%s' is a window of %" PRIu64 " bytes)",
                    node->name, node->size);
    if (add_overflows(state->offset, size, &end) || end > INT64_MAX)
        return fail(err, EINVAL, "Disk size %" PRIu64 " too large for the chosen offset %" PRIu64, size, state->offset);
    if (!node_resize(node->file, end, preallocation, exact, err))
        return false;
    node_set_size(node, round_up(node->file->child->size - state->offset, SECTOR));
    return true;
}

static bool raw_reopen_prepare(struct node *node, const struct blockdev_options *options, struct reopen_state **state,
                               struct error *err)
{
    const struct blockdev_options_raw *wanted = &options->u.raw;
    uint64_t available = node->file->child->size;
    uint64_t size = wanted->has_size ? wanted->size : 0;
    if (wanted->offset > available || size > available - wanted->offset)
        return fail(err, EINVAL, "node '%s': the window does not fit into the file, which has %" PRIu64 " bytes",
                    node->name, available);
    *state = (struct reopen_state *)blockdev_options_clone(options);
    return true;
}

static void raw_reopen_commit(struct node *node, struct reopen_state *state)
{
    auto_blockdev_options *options = (struct blockdev_options *)state;
    set_window(node, &options->u.raw, NULL);
}

static void raw_reopen_abort(struct node *node, struct reopen_state *state)
{
    blockdev_options_free((struct blockdev_options *)state);
}

static bool raw_measure(const void *options, struct edge *source, struct image_measure *result, struct error *err)
{
    uint64_t size = ((const struct raw_create_options *)options)->size;
    if (size > (uint64_t)INT64_MAX - SECTOR)
        return fail(err, EFBIG, "a disk of %" PRIu64 " bytes is too large", size);
    result->required = result->fully_allocated = round_up(size, SECTOR);
    return true;
}

/* A raw image is the file that the protocol makes. */
static const struct create_ops raw_create_ops = {.options_type = &raw_create_options_type};

const struct block_driver raw_driver = {
    .name = "raw",
    .kind = DRIVER_FORMAT,
    .instance_size = sizeof(struct raw_state),
    .open = raw_open,
    .probe = raw_probe,
    .read = raw_read,
    .write = raw_write,
    .map = raw_map,
    .zero = raw_zero,
    .discard = raw_discard,
    .reopen_prepare = raw_reopen_prepare,
    .reopen_commit = raw_reopen_commit,
    .reopen_abort = raw_reopen_abort,
    .check_perm = raw_check_perm,
    .set_perm = raw_set_perm,
    .create = &raw_create_ops,
    .measure = raw_measure,
    .resize = raw_resize,
};
