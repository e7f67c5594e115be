/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files through Linux AIO (libaio), which is asynchronous with O_DIRECT only. Requests of a turn are submitted together
 * before the loop sleeps; completions arrive by an eventfd that the loop watches. The kernel's queue has a fixed depth:
 * what does not fit waits in ours. Works on every back end.
 */
#include <assert.h>
#include <libaio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/io_file_private.h"
#include "base/loop_private.h"

#define DEPTH 128

struct aio {
    io_context_t context;
    int event_fd;
    struct loop *loop;
    struct loop_watch watch;
    struct list queued; /* of struct aio_op: not yet given to the kernel */
    size_t submitted;   /* the kernel has them */
};

struct aio_op {
    struct iocb iocb;
    struct list link;
    struct co *co;
    int64_t result;
    bool done;
};

static void finish(struct aio_op *op, int64_t result)
{
    op->result = result;
    op->done = true;
    co_wake(op->co);
}

static void completed(void *arg, uint32_t events)
{
    struct aio *aio = arg;
    uint64_t value;
    if (read(aio->event_fd, &value, sizeof value) < 0)
        return;
    struct io_event done[DEPTH];
    struct timespec now = {0};
    int n = io_getevents(aio->context, 0, DEPTH, done, &now);
    for (int i = 0; i < n; i++) {
        aio->submitted--;
        finish(container_of(done[i].obj, struct aio_op, iocb), (int64_t)done[i].res);
    }
}

bool aio_start(struct loop *loop, struct error *err)
{
    if (loop->aio)
        return true;
    auto_free struct aio *aio = new (struct aio);
    int code = io_setup(DEPTH, &aio->context);
    if (code < 0)
        return fail_errno(err, code, "I/O engine native (libaio): io_setup");
    aio->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (aio->event_fd < 0) {
        io_destroy(aio->context);
        return fail_errno(err, errno, "I/O engine native (libaio): eventfd");
    }
    aio->loop = loop;
    list_init(&aio->queued);
    loop_watch(loop, &aio->watch, aio->event_fd, EPOLLIN, completed, aio);
    loop->aio = TAKE(aio);
    return true;
}

void aio_free(struct aio *aio)
{
    assert(!aio->submitted && list_empty(&aio->queued));
    loop_unwatch(&aio->watch);
    io_destroy(aio->context);
    close(aio->event_fd);
    free(aio);
}

/* Takes up to a call's worth off the queue; false when nothing can go now. */
static bool submit_some(struct aio *aio)
{
    struct iocb *batch[DEPTH];
    long count = 0;
    struct aio_op *op;
    list_for_each (op, &aio->queued, link) {
        if (aio->submitted + (size_t)count >= DEPTH)
            break;
        batch[count++] = &op->iocb;
    }
    if (!count)
        return false;
    aio->loop->stats.system_calls++;
    int n = io_submit(aio->context, count, batch);
    if (n == -EAGAIN && aio->submitted)
        return false; /* a completion will make room */
    if (n < 0) {      /* the first one is refused */
        op = container_of(batch[0], struct aio_op, iocb);
        list_remove(&op->link);
        finish(op, n);
        return true;
    }
    for (int i = 0; i < n; i++)
        list_remove(&container_of(batch[i], struct aio_op, iocb)->link);
    aio->submitted += (size_t)n;
    return n > 0;
}

void aio_flush(struct aio *aio)
{
    while (!list_empty(&aio->queued) && submit_some(aio))
        ;
}

static int64_t await(struct io_file *file, struct aio_op *op)
{
    struct aio *aio = file->loop->aio;
    op->co = co_self();
    io_set_eventfd(&op->iocb, aio->event_fd);
    list_append(&aio->queued, &op->link);
    file->loop->stats.operations++;
    file->loop->in_flight++;
    while (!op->done)
        co_suspend();
    file->loop->in_flight--;
    return op->result;
}

static int64_t native_readv(struct io_file *file, const struct iovec *iov, int count, uint64_t offset)
{
    struct aio_op op = {0};
    io_prep_preadv(&op.iocb, file->fd, iov, count, (long long)offset);
    return await(file, &op);
}

static int64_t native_writev(struct io_file *file, const struct iovec *iov, int count, uint64_t offset, bool durable)
{
    struct aio_op op = {0};
    io_prep_pwritev(&op.iocb, file->fd, iov, count, (long long)offset);
    op.iocb.aio_rw_flags = durable ? RWF_DSYNC : 0;
    return await(file, &op);
}

/* IOCB_CMD_FDSYNC runs on a kernel worker and is missing in older kernels; ours are as good. */
static int native_datasync(struct io_file *file)
{
    return io_engine_threads.datasync(file);
}

const struct io_engine_ops io_engine_native = {
    .name = "native",
    .readv = native_readv,
    .writev = native_writev,
    .datasync = native_datasync,
};
