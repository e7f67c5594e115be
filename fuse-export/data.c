/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the file: reading, writing, holes, durability. Beyond the end a read gives nothing; a write makes the
 * file larger where the export is growable, and is otherwise cut off at the end (ENOSPC when nothing is left of it), as
 * on a disk.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include "base/cleanup.h"
#include "fuse-export/internal.h"

enum { ZEROES = 1 << 20 };

void served_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset, struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    struct message *message = file->current;
    uint64_t start = (uint64_t)offset, end = file->edge->child->size;
    (void)node, (void)info;
    size = start < end ? MIN(MIN(size, end - start), (size_t)MAX_TRANSFER) : 0;
    struct iovec iov = {message->data, size};
    int result = size ? block_read(file->edge, start, size, buffers_of(&iov, 1), 0) : 0;
    if (result < 0)
        fuse_reply_err(request, -result);
    else
        fuse_reply_buf(request, (const char *)message->data, size);
}

static bool is_synchronous(const struct served_file *file, const struct fuse_file_info *info)
{
    return file->export->writethrough || (info && info->flags & (O_SYNC | O_DSYNC));
}

/* How much of a span there is room for, having made room: 0 or -errno. */
static int make_room(struct served_file *file, uint64_t offset, uint64_t *length)
{
    uint64_t end = file->edge->child->size;
    if (!file->export->writable)
        return -EROFS;
    if (*length > INT64_MAX - offset)
        return -EFBIG;
    if (offset + *length <= end)
        return 0;
    int result = served_grow(file, offset + *length, false);
    if (result != -ENOSPC || offset >= end || file->growable)
        return result;
    *length = end - offset;
    return 0;
}

void served_write(fuse_req_t request, fuse_ino_t node, const char *data, size_t size, off_t offset,
                  struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    uint64_t length = size;
    (void)node;
    int result = size ? make_room(file, (uint64_t)offset, &length) : 0;
    struct iovec iov = {(void *)data, length};
    uint32_t flags = is_synchronous(file, info) ? REQUEST_FUA : 0;
    if (!result && length) {
        co_rwlock_read(&file->content_lock);
        result = block_write(file->edge, (uint64_t)offset, length, buffers_of(&iov, 1), flags);
        co_rwlock_unlock(&file->content_lock);
    }
    if (result < 0) {
        fuse_reply_err(request, -result);
        return;
    }
    served_touch(file);
    fuse_reply_write(request, length);
}

static void flush(fuse_req_t request)
{
    struct served_file *file = fuse_req_userdata(request);
    int result = file->export->writable ? block_flush(file->edge) : 0;
    fuse_reply_err(request, -result);
}

/* close(): more than a file promises, but what was written through a handle that is closed outlives the daemon. */
void served_flush(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *info)
{
    (void)node, (void)info;
    flush(request);
}

void served_fsync(fuse_req_t request, fuse_ino_t node, int only_data, struct fuse_file_info *info)
{
    (void)node, (void)only_data, (void)info;
    flush(request);
}

/* Holes ---------------------------------------------------------------------------------------------------------- */

/* Zeroes that are stored as such: the one way that takes space in every format. */
static int write_zeroes(struct served_file *file, uint64_t offset, uint64_t length)
{
    auto_free void *zeroes = block_alloc_buffer(file->edge, ZEROES);
    if (!zeroes)
        return -ENOMEM;
    memset(zeroes, 0, ZEROES);
    for (uint64_t done = 0; done < length;) {
        size_t step = (size_t)MIN(length - done, (uint64_t)ZEROES);
        int result = block_write_buffer(file->edge, offset + done, zeroes, step, 0);
        if (result < 0)
            return result;
        done += step;
    }
    return 0;
}

/* Plain files below have space for zeroes that the file system only notes down. */
static bool is_plain_file(const struct node *node)
{
    while (node->file && !strcmp(node->driver->name, "raw"))
        node = node->file->child;
    return !strcmp(node->driver->name, "file");
}

/* Space for what has none yet. What reads as zeroes goes on doing so; what is there stays. Writes through this file
 * wait meanwhile (content_lock), so that none comes between finding a hole and filling it. */
static int fill_holes(struct served_file *file, uint64_t offset, uint64_t length)
{
    int allocated = block_allocate(file->edge, offset, length);
    if (allocated != -ENOTSUP)
        return allocated;
    bool plain = is_plain_file(file->edge->child);
    while (length) {
        struct block_status status;
        int result = block_status(file->edge, offset, length, BLOCK_STATUS_PRECISE, &status);
        if (!result && status.zero && !status.data)
            result =
                plain ? block_zero(file->edge, offset, status.length, 0) : write_zeroes(file, offset, status.length);
        if (result < 0)
            return result;
        offset += status.length;
        length -= status.length;
    }
    return 0;
}

static int allocate(struct served_file *file, uint64_t offset, uint64_t length)
{
    co_rwlock_write(&file->content_lock);
    int result = fill_holes(file, offset, length);
    co_rwlock_unlock(&file->content_lock);
    return result;
}

static int zero(struct served_file *file, uint64_t offset, uint64_t length, bool unmap)
{
    uint64_t end = file->edge->child->size;
    if (offset >= end)
        return 0;
    return block_zero(file->edge, offset, MIN(length, end - offset), unmap ? REQUEST_MAY_UNMAP : 0);
}

/* fallocate(2), plain: beyond the end the file grows, with its space. */
static int reserve(struct served_file *file, uint64_t offset, uint64_t length, bool keep_size)
{
    uint64_t end = file->edge->child->size, inside = offset < end ? MIN(length, end - offset) : 0;
    if (offset + length > end && !keep_size) {
        if (!file->growable)
            return -ENOSPC;
        int result = served_grow(file, offset + length, true);
        if (result == -EOPNOTSUPP || result == -EINVAL)
            result = served_grow(file, offset + length, false) ?: allocate(file, end, offset + length - end);
        if (result < 0)
            return result;
    }
    return inside ? allocate(file, offset, inside) : 0;
}

static int zero_range(struct served_file *file, uint64_t offset, uint64_t length, bool keep_size)
{
    if (!keep_size && offset + length > file->edge->child->size) {
        int result = served_grow(file, offset + length, false);
        if (result < 0)
            return result;
    }
    return zero(file, offset, length, false);
}

static int change_space(struct served_file *file, int mode, uint64_t offset, uint64_t length)
{
    bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
    if (!file->export->writable)
        return -EROFS;
    if (!length || length > INT64_MAX - offset)
        return length ? -EFBIG : -EINVAL;
    switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0: return reserve(file, offset, length, keep_size);
    case FALLOC_FL_PUNCH_HOLE: return keep_size ? zero(file, offset, length, true) : -EOPNOTSUPP;
    case FALLOC_FL_ZERO_RANGE: return zero_range(file, offset, length, keep_size);
    default: return -EOPNOTSUPP; /* moving a disk's bytes about */
    }
}

void served_fallocate(fuse_req_t request, fuse_ino_t node, int mode, off_t offset, off_t length,
                      struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    (void)node;
    int result = change_space(file, mode, (uint64_t)offset, (uint64_t)length);
    if (!result && is_synchronous(file, info))
        result = block_flush(file->edge);
    if (!result)
        served_touch(file);
    fuse_reply_err(request, -result);
}

/* The next data or hole at or behind *offset. A hole is what reads as zeroes without being stored as data; there is one
 * at the end of every file. */
static int seek(struct served_file *file, uint64_t *offset, bool for_data)
{
    uint64_t end = file->edge->child->size;
    if (*offset >= end)
        return -ENXIO;
    while (*offset < end) {
        struct block_status status;
        int result = block_status(file->edge, *offset, end - *offset, BLOCK_STATUS_PRECISE, &status);
        if (result < 0)
            return result;
        if (status.zero != for_data)
            return 0;
        *offset += status.length;
        end = MIN(end, file->edge->child->size);
    }
    *offset = end;
    return for_data ? -ENXIO : 0;
}

void served_lseek(fuse_req_t request, fuse_ino_t node, off_t offset, int whence, struct fuse_file_info *info)
{
    struct served_file *file = fuse_req_userdata(request);
    uint64_t place = (uint64_t)offset;
    (void)node, (void)info;
    int result = whence == SEEK_DATA || whence == SEEK_HOLE ? seek(file, &place, whence == SEEK_DATA) : -EINVAL;
    if (result < 0)
        fuse_reply_err(request, -result);
    else
        fuse_reply_lseek(request, (off_t)place);
}
