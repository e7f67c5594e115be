/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files through io_uring. One element goes as a plain read or write, which spares the kernel copying the vector.
 *
 * Large reads first take what the page cache has, without the ring: there they would all be carried out before anybody
 * could use the first one's data, which by then have left the processor's cache.
 */
#include <fcntl.h>
#include <sys/uio.h>
#include "base/io_file_private.h"
#include "base/iov.h"
#include "base/loop_private.h"
#include "base/loop_uring.h"

#define LARGE_READ (64u << 10)

static int64_t uring_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    int result;
    if (iov_total(iov, count) >= LARGE_READ) {
        ssize_t n = io_file_read_cached(file, iov, count, offset);
        if (n > 0) {
            file->loop->stats.operations++;
            return n;
        }
    }
    do {
        struct io_uring_sqe *sqe = uring_sqe(file->loop);
        if (count == 1)
            io_uring_prep_read(sqe, file->fd, iov->iov_base, (unsigned)iov->iov_len, offset);
        else
            io_uring_prep_readv(sqe, file->fd, iov, (unsigned)count, offset);
        result = uring_await(file->loop, sqe);
    } while (result == -EINTR || result == -EAGAIN);
    return result;
}

static int64_t uring_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    int result;
    do {
        struct io_uring_sqe *sqe = uring_sqe(file->loop);
        if (count == 1)
            io_uring_prep_write(sqe, file->fd, iov->iov_base, (unsigned)iov->iov_len, offset);
        else
            io_uring_prep_writev(sqe, file->fd, iov, (unsigned)count, offset);
        sqe->rw_flags = durable ? RWF_DSYNC : 0;
        result = uring_await(file->loop, sqe);
    } while (result == -EINTR || result == -EAGAIN);
    return result;
}

static int uring_datasync(struct io_file *file)
{
    int result;
    do {
        struct io_uring_sqe *sqe = uring_sqe(file->loop);
        io_uring_prep_fsync(sqe, file->fd, IORING_FSYNC_DATASYNC);
        result = uring_await(file->loop, sqe);
    } while (result == -EINTR);
    return result;
}

const struct io_engine_ops io_engine_uring = {
    .name = "io_uring",
    .readv = uring_readv,
    .writev = uring_writev,
    .datasync = uring_datasync,
};
