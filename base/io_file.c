/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files for coroutines: opening, the loops that finish short transfers, and the rare operations, which run on the
 * worker pool whatever the engine (they are slow, and the kernel has no asynchronous form of most).
 */
#include "base/io_file_private.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/fault.h"
#include "base/iov.h"
#include "base/loop_private.h"

/* The kernel takes IOV_MAX elements and a little under 2 GiB a call. */
#define MAX_ELEMENTS 1024
#define MAX_TRANSFER (1u << 30)

/* --- opening --- */

static bool choose_engine(struct io_file *file, enum io_engine engine, struct error *err)
{
    bool has_uring = loop_backend(file->loop) == LOOP_URING;
    switch (engine) {
    case IO_ENGINE_AUTO: file->engine = has_uring ? &io_engine_uring : &io_engine_threads; return true;
    case IO_ENGINE_THREADS: file->engine = &io_engine_threads; return true;
    case IO_ENGINE_URING:
        if (!has_uring)
            return fail(err, ENOSYS, "I/O engine io_uring: not available here, use threads or native");
        file->engine = &io_engine_uring;
        return true;
    case IO_ENGINE_NATIVE:
        if (!file->is_direct)
            return fail(err, EINVAL, "I/O engine native (libaio): needs direct I/O (O_DIRECT, cache.direct=on)");
        file->engine = &io_engine_native;
        return aio_start(file->loop, err);
    }
    return fail(err, EINVAL, "I/O engine %d: unknown", (int)engine);
}

static const struct io_file_ops kernel_file_ops;

struct io_file *io_file_from_fd(struct loop *loop, int fd, enum io_engine engine, struct error *err)
{
    auto_close int owned = fd;
    struct stat st;
    if (fstat(fd, &st))
        return fail_errno_null(err, errno, "file descriptor %d", fd);
    auto_free struct io_file *file = new (struct io_file);
    *file = (struct io_file){.ops = &kernel_file_ops,
                             .loop = loop,
                             .fd = fd,
                             .is_block_device = S_ISBLK(st.st_mode),
                             .is_direct = fcntl(fd, F_GETFL) & O_DIRECT};
    file->may_try_nowait = !file->is_direct; /* without a page cache it would wait for the device after all */
    if (!choose_engine(file, engine, err))
        return NULL;
    TAKE_FD(owned);
    return TAKE(file);
}

struct open_call {
    const char *path;
    int flags;
    mode_t mode;
    int result;
};

static void do_open(void *arg)
{
    struct open_call *call = arg;
    do
        call->result = open(call->path, call->flags | O_CLOEXEC, call->mode);
    while (call->result < 0 && errno == EINTR);
    if (call->result < 0)
        call->result = -errno;
}

struct io_file *io_file_open(struct loop *loop, const char *path, int flags, mode_t mode, enum io_engine engine,
                             struct error *err)
{
    struct open_call call = {path, flags, mode, fault_error(FAULT_OPEN)};
    if (call.result < 0)
        return fail_errno_null(err, call.result, "cannot open '%s'", path);
    if (loop->sim)
        return sim_file_open(loop, path, flags, err);
    if (co_self())
        co_offload(do_open, &call);
    else
        do_open(&call);
    if (call.result < 0)
        return fail_errno_null(err, call.result, "cannot open '%s'", path);
    struct io_file *file = io_file_from_fd(loop, call.result, engine, err);
    if (!file)
        fail_prefix(err, "cannot open '%s': ", path);
    return file;
}

void io_file_close(struct io_file *file)
{
    if (!file)
        return;
    file->ops->close(file);
    free(file);
}

int io_file_fd(const struct io_file *file)
{
    return file->fd;
}

/* --- transfers: the first attempt nearly always does it all --- */

static bool fits_one_call(int count, size_t total)
{
    return count <= MAX_ELEMENTS && total <= MAX_TRANSFER;
}

/* What is left after `done` bytes, as much as one call takes. The result is freed by the caller. */
static struct iovec *rest(const struct iovec *iov, int count, size_t done, int *rest_count)
{
    struct iovec *part = new_array(struct iovec, (size_t)count);
    *rest_count = MIN(iov_slice(part, iov, count, done, MAX_TRANSFER), MAX_ELEMENTS);
    return part;
}

/* One attempt of the engine; a test may have ordered that it fails or moves less. */
struct attempt {
    struct io_file *file;
    const struct iovec *iov;
    int count;
    uint64_t offset;
    bool durable;
};

static int64_t attempt_read(const struct attempt *a)
{
    return a->file->engine->readv(a->file, a->iov, a->count, a->offset);
}

static int64_t attempt_write(const struct attempt *a)
{
    return a->file->engine->writev(a->file, a->iov, a->count, a->offset, a->durable);
}

static int64_t attempt_half(int64_t (*fn)(const struct attempt *attempt), const struct attempt *whole)
{
    size_t half = iov_total(whole->iov, whole->count) / 2;
    half = whole->file->is_direct ? round_down(half, 4096) : half;
    auto_free struct iovec *part = new_array(struct iovec, (size_t)whole->count);
    struct attempt attempt = *whole;
    attempt.count = iov_slice(part, whole->iov, whole->count, 0, half);
    attempt.iov = part;
    return fn(half ? &attempt : whole);
}

static int64_t try_transfer(enum fault_kind kind, int64_t (*fn)(const struct attempt *attempt),
                            const struct attempt *attempt)
{
    struct fault fault = fault_next(kind);
    if (fault.error && !fault.is_late)
        return fault.error;
    int64_t n = fault.is_short ? attempt_half(fn, attempt) : fn(attempt);
    return fault.error ? fault.error : n;
}

static int64_t engine_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    return try_transfer(FAULT_READ, attempt_read, &(struct attempt){file, iov, count, offset});
}

static int64_t engine_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    return try_transfer(FAULT_WRITE, attempt_write, &(struct attempt){file, iov, count, offset, durable});
}

static int64_t readv_rest(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, size_t done,
                          size_t total)
{
    while (done < total && !(file->is_direct && done % 512)) {
        int part_count;
        auto_free struct iovec *part = rest(iov, count, done, &part_count);
        int64_t n = engine_readv(file, part, part_count, offset + done);
        if (n < 0)
            return n;
        if (!n)
            break; /* end of file */
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t io_file_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    size_t total = iov_total(iov, count), done = 0;
    if (fits_one_call(count, total)) {
        int64_t n = engine_readv(file, iov, count, offset);
        if (n <= 0 || (size_t)n == total)
            return n;
        done = (size_t)n;
    }
    return readv_rest(file, iov, count, offset, done, total);
}

static int64_t writev_rest(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable,
                           size_t done, size_t total)
{
    while (done < total) {
        int part_count;
        auto_free struct iovec *part = rest(iov, count, done, &part_count);
        int64_t n = engine_writev(file, part, part_count, offset + done, durable);
        if (n < 0)
            return n;
        if (!n)
            return -EIO;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int64_t io_file_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    size_t total = iov_total(iov, count), done = 0;
    if (!total)
        return 0;
    if (fits_one_call(count, total)) {
        int64_t n = engine_writev(file, iov, count, offset, durable);
        if (n < 0 || (size_t)n == total)
            return n;
        done = (size_t)n;
    }
    return writev_rest(file, iov, count, offset, durable, done, total);
}

int io_file_datasync(struct io_file *file)
{
    return FAULTY(SYNC, file->engine->datasync(file));
}

/* --- the rare operations of kernel files, on the worker pool --- */

struct rare_call {
    struct io_file *file, *to;
    int mode;
    unsigned long request;
    uint64_t offset, to_offset, length;
    int64_t result;
};

static void on_pool(void (*fn)(void *arg), struct rare_call *call)
{
    if (co_self())
        co_offload(fn, call);
    else
        fn(call);
}

static void do_fallocate(void *arg)
{
    struct rare_call *call = arg;
    int code;
    do
        code = fallocate(call->file->fd, call->mode, (off_t)call->offset, (off_t)call->length) ? -errno : 0;
    while (code == -EINTR);
    call->result = code;
}

static int kernel_fallocate(struct io_file *file, int mode, uint64_t offset, uint64_t length)
{
    struct rare_call call = {.file = file, .mode = mode, .offset = offset, .length = length};
    on_pool(do_fallocate, &call);
    return (int)call.result;
}

static void do_truncate(void *arg)
{
    struct rare_call *call = arg;
    int code;
    do
        code = ftruncate(call->file->fd, (off_t)call->length) ? -errno : 0;
    while (code == -EINTR);
    call->result = code;
}

static int kernel_truncate(struct io_file *file, uint64_t size)
{
    struct rare_call call = {.file = file, .length = size};
    on_pool(do_truncate, &call);
    return (int)call.result;
}

static void do_copy_range(void *arg)
{
    struct rare_call *call = arg;
    off64_t from = (off64_t)call->offset, to = (off64_t)call->to_offset;
    ssize_t n;
    do
        n = copy_file_range(call->file->fd, &from, call->to->fd, &to, MIN(call->length, (uint64_t)MAX_TRANSFER), 0);
    while (n < 0 && errno == EINTR);
    call->result = n < 0 ? -errno : n;
}

static int64_t kernel_copy_range(struct io_file *from, uint64_t from_offset, struct io_file *to, uint64_t to_offset,
                                 uint64_t length)
{
    if (to->fd < 0)
        return -EXDEV;
    struct rare_call call = {.file = from, .to = to, .offset = from_offset, .to_offset = to_offset, .length = length};
    on_pool(do_copy_range, &call);
    return call.result;
}

static void do_device_range(void *arg)
{
    struct rare_call *call = arg;
    uint64_t range[2] = {call->offset, call->length};
    call->result = ioctl(call->file->fd, call->request, range) ? -errno : 0;
}

static int kernel_device_range(struct io_file *file, unsigned long request, uint64_t offset, uint64_t length)
{
    if (!file->is_block_device)
        return -ENOTSUP;
    struct rare_call call = {.file = file, .request = request, .offset = offset, .length = length};
    on_pool(do_device_range, &call);
    return (int)call.result;
}

static int kernel_stat(struct io_file *file, struct stat *st)
{
    if (fstat(file->fd, st))
        return -errno;
    uint64_t size;
    if (S_ISBLK(st->st_mode)) {
        if (ioctl(file->fd, BLKGETSIZE64, &size))
            return -errno;
        st->st_size = (off_t)size;
    }
    return 0;
}

static int64_t kernel_seek(struct io_file *file, uint64_t offset, int whence)
{
    off_t found = lseek(file->fd, (off_t)offset, whence);
    return found < 0 ? -errno : found;
}

static int kernel_lock(struct io_file *file, uint64_t start, uint64_t length, int type, bool test)
{
    struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)start, .l_len = (off_t)length};
    if (fcntl(file->fd, test ? F_OFD_GETLK : F_OFD_SETLK, &lock))
        return errno == EACCES ? -EAGAIN : -errno;
    return test && lock.l_type != F_UNLCK ? -EAGAIN : 0;
}

static void kernel_close(struct io_file *file)
{
    close(file->fd);
}

static const struct io_file_ops kernel_file_ops = {
    .close = kernel_close,
    .fallocate = kernel_fallocate,
    .truncate = kernel_truncate,
    .copy_range = kernel_copy_range,
    .stat = kernel_stat,
    .seek = kernel_seek,
    .lock = kernel_lock,
    .device_range = kernel_device_range,
};

/* --- the public names --- */

int io_file_fallocate(struct io_file *file, int mode, uint64_t offset, uint64_t length)
{
    return FAULTY(FALLOCATE, file->ops->fallocate(file, mode, offset, length));
}

int io_file_truncate(struct io_file *file, uint64_t size)
{
    return FAULTY(TRUNCATE, file->ops->truncate(file, size));
}

int64_t io_file_copy_range(struct io_file *from, uint64_t from_offset, struct io_file *to, uint64_t to_offset,
                           uint64_t length)
{
    return FAULTY(COPY, from->ops->copy_range(from, from_offset, to, to_offset, length));
}

int io_file_discard_device(struct io_file *file, uint64_t offset, uint64_t length)
{
    return file->ops->device_range(file, BLKDISCARD, offset, length);
}

int io_file_zero_device(struct io_file *file, uint64_t offset, uint64_t length)
{
    return file->ops->device_range(file, BLKZEROOUT, offset, length);
}

int io_file_stat(struct io_file *file, struct stat *st)
{
    return FAULTY(STAT, file->ops->stat(file, st));
}

int64_t io_file_size(struct io_file *file)
{
    struct stat st;
    int code = io_file_stat(file, &st);
    return code < 0 ? code : st.st_size;
}

int64_t io_file_seek_data(struct io_file *file, uint64_t offset)
{
    return FAULTY(SEEK, file->ops->seek(file, offset, SEEK_DATA));
}

int64_t io_file_seek_hole(struct io_file *file, uint64_t offset)
{
    return FAULTY(SEEK, file->ops->seek(file, offset, SEEK_HOLE));
}

int io_file_lock(struct io_file *file, uint64_t start, uint64_t length, bool exclusive)
{
    return FAULTY(LOCK, file->ops->lock(file, start, length, exclusive ? F_WRLCK : F_RDLCK, false));
}

int io_file_unlock(struct io_file *file, uint64_t start, uint64_t length)
{
    return file->ops->lock(file, start, length, F_UNLCK, false);
}

int io_file_lock_test(struct io_file *file, uint64_t start, uint64_t length, bool exclusive)
{
    return FAULTY(LOCK, file->ops->lock(file, start, length, exclusive ? F_WRLCK : F_RDLCK, true));
}
