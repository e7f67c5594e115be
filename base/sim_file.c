/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Simulated files as io_files. An operation takes its time in two halves with its effect between them, so effects of
 * operations in flight interleave, and a crash may come before the effect, or after it but before the program knows.
 * After a power cut every operation of a file that was open answers -EIO; nothing it touches then belongs to it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/io_file_private.h"
#include "base/iov.h"
#include "base/sim_disk.h"

#define SECTOR 512u

/* One opening of a file. */
struct sim_handle {
    struct io_file io;
    struct sim_disk *disk;
    struct sim_file *file;
    uint64_t power_cycle; /* the disk's when we were opened */
    bool may_read, may_write, is_dsync;
};

static struct sim_handle *handle_of(struct io_file *io)
{
    return container_of(io, struct sim_handle, io);
}

static int check_power(const struct sim_handle *handle)
{
    return handle->power_cycle == handle->disk->power_cycle ? 0 : -EIO;
}

/* Half of an operation's time. */
static int spend_time(struct sim_handle *handle)
{
    struct sim *sim = handle->disk->sim;
    uint64_t time_ns = sim_draw(sim, sim->config.disk_low_ns, sim->config.disk_high_ns) / 2;
    time_ns += sim_stall(sim, sim->config.disk_stall_one_in);
    if (!check_power(handle))
        co_sleep_uncancellable(handle->io.loop, time_ns);
    return check_power(handle);
}

/* The second half of a change's time. A crash frees the change, so it is touched only while the power stays on. */
static int complete(struct sim_handle *handle, struct change *change, bool durable)
{
    int code = spend_time(handle);
    if (code)
        return code;
    change->complete = true;
    change->durable = durable || handle->is_dsync;
    return 0;
}

/* --- data --- */

static int64_t file_readv(struct io_file *io, const struct iovec *iov, int count, uint64_t offset)
{
    struct sim_handle *handle = handle_of(io);
    struct image *image = &handle->file->seen;
    if (!handle->may_read)
        return -EBADF;
    int failure = sim_disk_begin(handle->disk, handle->file, SIM_READ);
    int code = spend_time(handle);
    if (code || failure)
        return code ? code : failure;
    uint64_t wanted = offset < image->size ? MIN((uint64_t)iov_total(iov, count), image->size - offset) : 0;
    for (uint64_t done = 0; done < wanted; iov++) {
        uint64_t n = MIN((uint64_t)iov->iov_len, wanted - done);
        image_read(image, offset + done, iov->iov_base, n);
        done += n;
    }
    code = spend_time(handle);
    return code ? code : (int64_t)wanted;
}

static bool has_space(struct sim_handle *handle, uint64_t offset, uint64_t length)
{
    uint64_t capacity = handle->disk->sim->config.disk_capacity;
    if (capacity == UINT64_MAX)
        return true;
    return image_allocation_needed(&handle->file->seen, offset, length) + sim_disk_allocated(handle->disk) <= capacity;
}

static struct change *write_iov(struct sim_handle *handle, const struct iovec *iov, int count, uint64_t offset,
                                uint64_t length)
{
    auto_free void *data = xmalloc(length);
    iov_to_buffer(iov, count, 0, data, length);
    return sim_change(handle->file, CHANGE_WRITE, offset, length, data);
}

static int64_t file_writev(struct io_file *io, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    struct sim_handle *handle = handle_of(io);
    if (!handle->may_write)
        return -EBADF;
    uint64_t length = iov_total(iov, count);
    int failure = sim_disk_begin(handle->disk, handle->file, SIM_WRITE);
    int code = spend_time(handle);
    if (code)
        return code;
    if (!failure && !has_space(handle, offset, length))
        return -ENOSPC;
    if (failure) {
        uint64_t end = round_down(offset + rng_below(&handle->disk->sim->rng, length + 1), SECTOR);
        length = end > offset ? end - offset : 0;
        if (length)
            write_iov(handle, iov, count, offset, length)->complete = true;
        return failure;
    }
    struct change *change = write_iov(handle, iov, count, offset, length);
    code = complete(handle, change, durable);
    return code ? code : (int64_t)length;
}

static int file_datasync(struct io_file *io)
{
    struct sim_handle *handle = handle_of(io);
    int failure = sim_disk_begin(handle->disk, handle->file, SIM_SYNC);
    int code = check_power(handle);
    if (code)
        return code;
    uint64_t sync = sim_sync_begin(handle->file);
    code = spend_time(handle);
    if (!code && !failure)
        sim_sync_end(handle->file, sync);
    else if (!code && handle->disk->sim->config.sync_failure_loses)
        sim_sync_lose(handle->file, sync, &handle->disk->sim->rng);
    if (!code)
        code = spend_time(handle);
    return code ? code : failure;
}

static const struct io_engine_ops io_engine_simulated = {
    .name = "simulated",
    .readv = file_readv,
    .writev = file_writev,
    .datasync = file_datasync,
};

/* --- size and allocation --- */

static int start_change(struct sim_handle *handle, unsigned operation)
{
    if (!handle->may_write)
        return -EBADF;
    int failure = sim_disk_begin(handle->disk, handle->file, operation);
    int code = spend_time(handle);
    return code ? code : failure;
}

static int file_truncate(struct io_file *io, uint64_t size)
{
    struct sim_handle *handle = handle_of(io);
    int code = start_change(handle, SIM_TRUNCATE);
    return code ? code : complete(handle, sim_change(handle->file, CHANGE_SIZE, size, 0, NULL), false);
}

/* A range beyond the end of the file is cut off, but for allocation. */
static uint64_t inside(const struct image *image, uint64_t offset, uint64_t length)
{
    return offset < image->size ? MIN(length, image->size - offset) : 0;
}

static int file_fallocate(struct io_file *io, int mode, uint64_t offset, uint64_t length)
{
    struct sim_handle *handle = handle_of(io);
    struct sim_file *file = handle->file;
    enum change_kind kind = mode & FALLOC_FL_PUNCH_HOLE   ? CHANGE_PUNCH
                            : mode & FALLOC_FL_ZERO_RANGE ? CHANGE_ZERO
                                                          : CHANGE_ALLOCATE;
    if (mode & ~(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
        return -EOPNOTSUPP;
    if (!length)
        return -EINVAL;
    int code = start_change(handle, SIM_FALLOCATE);
    if (code)
        return code;
    if (kind != CHANGE_PUNCH && !has_space(handle, offset, length))
        return -ENOSPC;
    if (!(mode & FALLOC_FL_KEEP_SIZE) && offset + length > file->seen.size)
        sim_change(file, CHANGE_SIZE, offset + length, 0, NULL)->complete = true;
    if (kind != CHANGE_ALLOCATE)
        length = inside(&file->seen, offset, length);
    return complete(handle, sim_change(file, kind, offset, length, NULL), false);
}

static int64_t file_copy_range(struct io_file *from, uint64_t from_offset, struct io_file *to, uint64_t to_offset,
                               uint64_t length)
{
    if (to->ops != from->ops)
        return -EXDEV;
    auto_free void *data = try_calloc(1, length = MIN(length, 1 * MiB));
    if (!data)
        return -ENOMEM;
    struct iovec iov = {data, length};
    int64_t n = file_readv(from, &iov, 1, from_offset);
    iov.iov_len = n > 0 ? (size_t)n : 0;
    return n <= 0 ? n : file_writev(to, &iov, 1, to_offset, false);
}

static int file_stat(struct io_file *io, struct stat *st)
{
    struct sim_handle *handle = handle_of(io);
    struct sim_file *file = handle->file;
    *st = (struct stat){.st_mode = S_IFREG | 0600,
                        .st_ino = file->inode,
                        .st_nlink = !file->removed,
                        .st_size = (off_t)file->seen.size,
                        .st_blksize = IMAGE_PAGE,
                        .st_blocks = (blkcnt_t)(image_allocated(&file->seen) / 512)};
    return check_power(handle);
}

static int64_t file_seek(struct io_file *io, uint64_t offset, int whence)
{
    struct sim_handle *handle = handle_of(io);
    struct image *image = &handle->file->seen;
    if (check_power(handle))
        return -EIO;
    if (offset >= image->size)
        return -ENXIO;
    uint64_t found = image_next(image, offset, whence == SEEK_DATA);
    return whence == SEEK_DATA && found == image->size ? -ENXIO : (int64_t)found;
}

/* --- locks: by opening, as F_OFD_SETLK has them --- */

static bool conflicts(struct sim_file *file, const struct sim_lock *wanted)
{
    const struct sim_lock *lock;
    vec_for_each (lock, &file->locks) {
        bool overlap = lock->start < wanted->end && wanted->start < lock->end;
        if (overlap && lock->owner != wanted->owner && (lock->exclusive || wanted->exclusive))
            return true;
    }
    return false;
}

/* Removes what an owner holds in a span; what sticks out on either side stays. */
static void release_span(struct sim_file *file, const struct io_file *owner, uint64_t start, uint64_t end)
{
    for (size_t i = file->locks.count; i-- > 0;) {
        struct sim_lock lock = file->locks.items[i];
        if (lock.owner != owner || lock.start >= end || start >= lock.end)
            continue;
        vec_remove(&file->locks, i);
        if (lock.start < start)
            vec_push(&file->locks, ((struct sim_lock){owner, lock.start, start, lock.exclusive}));
        if (lock.end > end)
            vec_push(&file->locks, ((struct sim_lock){owner, end, lock.end, lock.exclusive}));
    }
}

static int file_lock(struct io_file *io, uint64_t start, uint64_t length, int type, bool test)
{
    struct sim_handle *handle = handle_of(io);
    uint64_t end = length ? start + length : UINT64_MAX; /* length 0: to the end, as fcntl(2) has it */
    struct sim_lock lock = {io, start, end, type == F_WRLCK};
    if (check_power(handle))
        return -EIO;
    if (type != F_UNLCK && conflicts(handle->file, &lock))
        return -EAGAIN;
    if (test)
        return 0;
    release_span(handle->file, io, start, end);
    if (type != F_UNLCK)
        vec_push(&handle->file->locks, lock);
    return 0;
}

static int file_device_range(struct io_file *io, unsigned long request, uint64_t offset, uint64_t length)
{
    return -ENOTSUP;
}

/* --- opening --- */

static void file_close(struct io_file *io)
{
    struct sim_handle *handle = handle_of(io);
    release_span(handle->file, io, 0, UINT64_MAX);
    sim_file_release(handle->file);
}

static const struct io_file_ops sim_file_ops = {
    .close = file_close,
    .fallocate = file_fallocate,
    .truncate = file_truncate,
    .copy_range = file_copy_range,
    .stat = file_stat,
    .seek = file_seek,
    .lock = file_lock,
    .device_range = file_device_range,
};

struct io_file *sim_file_open(struct loop *loop, const char *path, int flags, struct error *err)
{
    struct sim_disk *disk = loop->sim->disk;
    sim_delay(loop);
    struct sim_file *file = sim_disk_find(disk, path);
    if (!file && !(flags & O_CREAT))
        return fail_errno_null(err, ENOENT, "cannot open '%s'", path);
    if (file && (flags & O_CREAT) && (flags & O_EXCL))
        return fail_errno_null(err, EEXIST, "cannot open '%s'", path);
    if (!file)
        file = sim_disk_create(disk, path);
    else if (flags & O_TRUNC)
        sim_change(file, CHANGE_SIZE, 0, 0, NULL)->complete = true;
    struct sim_handle *handle = new (struct sim_handle);
    int access = flags & O_ACCMODE;
    *handle = (struct sim_handle){
        .io = {.engine = &io_engine_simulated, .ops = &sim_file_ops, .loop = loop, .fd = -1},
        .disk = disk,
        .file = file,
        .power_cycle = disk->power_cycle,
        .may_read = access != O_WRONLY,
        .may_write = access != O_RDONLY,
        .is_dsync = flags & O_DSYNC,
    };
    file->open_count++;
    return &handle->io;
}
