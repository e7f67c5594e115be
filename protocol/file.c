/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and block devices of the host: the bottom of most chains. base/io_file.h asks the kernel (io_uring, Linux AIO,
 * worker threads); this driver brings the block layer's requests into its form. Opening, permissions and reopening are
 * in file_open.c, locks in file_lock.c, holes and sizes in file_space.c, new files in file_create.c.
 */
#include "protocol/file.h"

#include <limits.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

#define LOCAL_IOVS 32

typedef int64_t transfer(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable);

static int64_t read_transfer(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    return io_file_readv(file, iov, count, offset);
}

/* The kernel takes a limited number of elements at once. */
static int64_t transfer_all(transfer *move, struct io_file *file, const struct iovec *iov, int count, uint64_t offset,
                            bool durable)
{
    int64_t total = 0;
    while (count) {
        int part = MIN(count, IOV_MAX);
        uint64_t asked = iov_total(iov, part);
        int64_t result = move(file, iov, part, offset + (uint64_t)total, durable);
        if (result < 0)
            return result;
        total += result;
        if ((uint64_t)result < asked)
            break;
        iov += part;
        count -= part;
    }
    return total;
}

/* Scatter lists of several elements, cut to the request. */
static __attribute__((noinline)) int64_t transfer_slice(transfer *move, struct io_file *file, struct buffers buffers,
                                                        uint64_t length, uint64_t offset, bool durable)
{
    struct iovec local[LOCAL_IOVS];
    auto_free struct iovec *heap = NULL;
    struct iovec *iov = local;
    if (buffers.count > LOCAL_IOVS) {
        heap = try_calloc(buffers.count, sizeof *heap);
        if (!heap)
            return -ENOMEM;
        iov = heap;
    }
    int count = iov_slice(iov, buffers.iov, (int)buffers.count, buffers.skip, length);
    return transfer_all(move, file, iov, count, offset, durable);
}

static inline bool is_one_piece(struct buffers buffers, uint64_t length)
{
    return buffers.iov[0].iov_len >= buffers.skip && buffers.iov[0].iov_len - buffers.skip >= length;
}

static int file_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    struct file_state *state = node->state;
    if (unlikely(flags & REQUEST_PREFETCH))
        return 0; /* the kernel's read-ahead knows better */
    int64_t result;
    if (likely(is_one_piece(to, length))) {
        struct iovec iov = {(uint8_t *)to.iov[0].iov_base + to.skip, length};
        result = io_file_readv(state->file, &iov, 1, offset);
    } else {
        result = transfer_slice(read_transfer, state->file, to, length, offset, false);
    }
    if (unlikely(result < 0))
        return (int)result;
    if (unlikely((uint64_t)result < length)) /* the end of the file */
        iov_set(to.iov, (int)to.count, to.skip + (uint64_t)result, 0, length - (uint64_t)result);
    return 0;
}

static int file_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    struct file_state *state = node->state;
    bool durable = flags & REQUEST_FUA;
    int64_t result;
    if (likely(is_one_piece(from, length))) {
        struct iovec iov = {(uint8_t *)from.iov[0].iov_base + from.skip, length};
        result = io_file_writev(state->file, &iov, 1, offset, durable);
    } else {
        result = transfer_slice(io_file_writev, state->file, from, length, offset, durable);
    }
    if (unlikely(result < 0))
        return (int)result;
    return likely((uint64_t)result == length) ? 0 : -EIO;
}

static int file_flush(struct node *node)
{
    struct file_state *state = node->state;
    if (state->sync_error)
        return state->sync_error;
    int result = io_file_datasync(state->file);
    if (result)
        state->sync_error = result;
    return result;
}

static bool file_info(struct node *node, struct image_facts *facts, struct error *err)
{
    facts->specific = image_info_specific_new();
    facts->specific->type = IMAGE_INFO_SPECIFIC_KIND_FILE;
    facts->specific->u.file.data = image_info_specific_file_new();
    return true;
}

const struct block_driver file_driver = {
    .name = "file",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct file_state),
    .open = file_open,
    .close = file_close,
    .read = file_read,
    .write = file_write,
    .extents = file_extents,
    .zero = file_zero,
    .discard = file_discard,
    .flush = file_flush,
    .copy_range = file_copy_range,
    .reopen_prepare = file_reopen_prepare,
    .reopen_commit = file_reopen_commit,
    .reopen_abort = file_reopen_abort,
    .check_perm = file_check_perm,
    .set_perm = file_set_perm,
    .create = &file_create_ops,
    .resize = file_resize,
    .info = file_info,
    .allocated_size = file_allocated_size,
};

const struct block_driver host_device_driver = {
    .name = "host_device",
    .kind = DRIVER_PROTOCOL,
    .instance_size = sizeof(struct file_state),
    .open = host_device_open,
    .close = file_close,
    .read = file_read,
    .write = file_write,
    .extents = file_extents,
    .zero = file_zero,
    .discard = file_discard,
    .flush = file_flush,
    .copy_range = file_copy_range,
    .reopen_prepare = file_reopen_prepare,
    .reopen_commit = file_reopen_commit,
    .reopen_abort = file_reopen_abort,
    .check_perm = file_check_perm,
    .set_perm = file_set_perm,
    .create = &host_device_create_ops,
    .resize = host_device_resize,
    .current_size = host_device_current_size,
    .zones = &file_zone_ops,
    .info = file_info,
    .allocated_size = file_allocated_size,
};
