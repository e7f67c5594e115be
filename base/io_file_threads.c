/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files through the worker pool: the engine that works everywhere. A read is first tried on the loop's own thread with
 * RWF_NOWAIT, which answers from the page cache or not at all: two thread hand-overs less for data that is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/co.h"
#include "base/io_file_private.h"
#include "base/loop_private.h"

struct transfer {
    int fd;
    const struct iovec *iov;
    int count;
    uint64_t offset;
    int flags;
    int64_t result;
};

static void do_read(void *arg)
{
    struct transfer *t = arg;
    do
        t->result = preadv(t->fd, t->iov, t->count, (off_t)t->offset);
    while (t->result < 0 && errno == EINTR);
    if (t->result < 0)
        t->result = -errno;
}

static void do_write(void *arg)
{
    struct transfer *t = arg;
    do
        t->result = t->flags ? pwritev2(t->fd, t->iov, t->count, (off_t)t->offset, t->flags)
                             : pwritev(t->fd, t->iov, t->count, (off_t)t->offset);
    while (t->result < 0 && errno == EINTR);
    if (t->result < 0)
        t->result = -errno;
}

static void do_datasync(void *arg)
{
    struct transfer *t = arg;
    do
        t->result = fdatasync(t->fd);
    while (t->result < 0 && errno == EINTR);
    if (t->result < 0)
        t->result = -errno;
}

ssize_t io_file_read_cached(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    if (!file->may_try_nowait || !loop_may_go_directly(file->loop))
        return -EAGAIN;
    file->loop->stats.system_calls++;
    ssize_t n = preadv2(file->fd, iov, count, (off_t)offset, RWF_NOWAIT);
    if (n >= 0) {
        file->loop->direct_count += (unsigned)(n >> 16); /* large ones take their time */
        return n;
    }
    if (errno != EAGAIN && errno != EINTR)
        file->may_try_nowait = false;
    return -EAGAIN;
}

static int64_t threads_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    file->loop->stats.operations++;
    ssize_t n = io_file_read_cached(file, iov, count, offset);
    if (n >= 0)
        return n; /* also when short: the caller comes again for the rest */
    struct transfer t = {.fd = file->fd, .iov = iov, .count = count, .offset = offset};
    co_offload(do_read, &t);
    return t.result;
}

static int64_t threads_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    file->loop->stats.operations++;
    struct transfer t = {
        .fd = file->fd, .iov = iov, .count = count, .offset = offset, .flags = durable ? RWF_DSYNC : 0};
    co_offload(do_write, &t);
    return t.result;
}

static int threads_datasync(struct io_file *file)
{
    file->loop->stats.operations++;
    struct transfer t = {.fd = file->fd};
    co_offload(do_datasync, &t);
    return (int)t.result;
}

const struct io_engine_ops io_engine_threads = {
    .name = "threads",
    .readv = threads_readv,
    .writev = threads_writev,
    .datasync = threads_datasync,
};
