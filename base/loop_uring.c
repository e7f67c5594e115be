/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring back end.
 *
 * A coroutine fills a submission entry and suspends; the state of the operation is on its stack, `user_data` points
 * there. When nothing is ready any more, one io_uring_enter() submits everything and waits for a first completion.
 * Reads that hit the page cache are complete when that call returns. Reaping only wakes coroutines, so it may happen
 * anywhere, also in the middle of a coroutine that found the submission queue full.
 *
 * The low bits of `user_data` say what a completion belongs to: an operation, a watch, the eventfd by which other
 * threads wake us (a read of it is always queued), or nobody.
 *
 * The ring accepts the operations that we use and no others: no filter of system calls sees what a ring does, so a
 * process that somebody has taken over could otherwise open files and sockets by way of it. Whoever uses a new
 * operation adds it to `operations`.
 *
 * A client that sends its next request as soon as it has the last reply keeps one processor after the other asleep, and
 * waking one costs more than serving the request. So after a number of short waits the loop first looks at shared
 * memory for a while (no system call) before it sleeps; "short waits" below says when.
 *
 * Watches are one-shot polls, queued again after the callback: that is level-triggered, and costs no system call of its
 * own. What the kernel may still mention lives in a small struct that outlives the owner's loop_watch.
 */
#include "base/loop_uring.h"

#include <assert.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "base/alloc.h"
#include "base/loop_private.h"

#define SUBMISSION_ENTRIES 512
#define COMPLETION_ENTRIES 4096

enum { TAG_OP = 0, TAG_WATCH = 1, TAG_EVENTFD = 2, TAG_NONE = 3, TAG_MASK = 3 };

struct uring {
    struct io_uring ring;
    struct io_uring_probe *probe;
    struct list fired;   /* of struct uring_watch: completed polls whose callbacks wait for the turn */
    struct list watches; /* of struct uring_watch: the rest */
    uint64_t eventfd_value;
    bool eventfd_queued;
    bool may_spin; /* shared memory tells of completions that are to be fetched, and there is a second processor */
    unsigned short_waits;       /* how usual they are of late, 0 to SHORT_WAITS_MAX */
    uint64_t operations_before; /* what there was at the last wait */
};

struct uring_op {
    struct co *co;
    int result;
    bool done;
};

struct uring_watch {
    struct list link;
    struct loop_watch *owner; /* NULL after loop_unwatch() */
    uint32_t events;          /* what fired */
    bool queued;              /* the kernel has it */
};

static struct uring *uring_of(struct loop *loop)
{
    return loop->backend_state;
}

/* --- set-up --- */

/* From the best that newer kernels offer to the oldest that is good enough. */
static int open_ring(struct uring *uring)
{
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 6.1 */
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* 5.19 */
        0,
    };
    const unsigned always = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    int code = -ENOSYS;
    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        struct io_uring_params params = {.flags = flags[i] | always, .cq_entries = COMPLETION_ENTRIES};
        code = io_uring_queue_init_params(SUBMISSION_ENTRIES, &uring->ring, &params);
        if (code != -EINVAL)
            break;
    }
    return code;
}

/* Kernels before 5.11 lack waiting with a time limit, polling in place of worker threads, or overflow without loss. */
static bool check_features(struct uring *uring, struct error *err)
{
    const unsigned needed =
        IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
    if ((uring->ring.features & needed) != needed)
        return fail(err, ENOSYS,
                    "io_uring: this kernel's version lacks features that are needed (Linux 5.11 has them)");
    io_uring_register_ring_fd(&uring->ring); /* saves a file look-up a call; older kernels just refuse */
    uring->probe = io_uring_get_probe_ring(&uring->ring);
    return uring->probe || fail(err, ENOSYS, "io_uring: the kernel does not tell its operations");
}

/* Until it is enabled a ring takes restrictions; from then on they are for ever. */
static int restrict_and_enable(struct uring *uring)
{
    static const uint8_t operations[] = {
        IORING_OP_NOP,   IORING_OP_READ,     IORING_OP_READV,        IORING_OP_WRITE, IORING_OP_WRITEV,
        IORING_OP_FSYNC, IORING_OP_POLL_ADD, IORING_OP_POLL_REMOVE,  IORING_OP_RECV,  IORING_OP_RECVMSG,
        IORING_OP_SEND,  IORING_OP_SENDMSG,  IORING_OP_ASYNC_CANCEL,
    };
    struct io_uring_restriction restrictions[ARRAY_SIZE(operations) + 1] = {
        {.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
         .sqe_flags = IOSQE_IO_LINK | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS},
    };
    for (size_t i = 0; i < ARRAY_SIZE(operations); i++)
        restrictions[i + 1] =
            (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = operations[i]};
    int code =
        io_uring_register(uring->ring.ring_fd, IORING_REGISTER_RESTRICTIONS, restrictions, ARRAY_SIZE(restrictions));
    return code ? code : io_uring_register(uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

static int processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static bool uring_init(struct loop *loop, struct error *err)
{
    struct uring *uring = new (struct uring);
    list_init(&uring->fired);
    list_init(&uring->watches);
    int code = open_ring(uring);
    if (code < 0) {
        free(uring);
        return fail_errno(err, code, "io_uring cannot be used here");
    }
    if (!check_features(uring, err)) {
        io_uring_queue_exit(&uring->ring);
        free(uring);
        return false;
    }
    code = restrict_and_enable(uring);
    if (code < 0) {
        io_uring_queue_exit(&uring->ring);
        io_uring_free_probe(uring->probe);
        free(uring);
        return fail_errno(err, code, "io_uring cannot be restricted to what is needed");
    }
    uring->may_spin = uring->ring.flags & IORING_SETUP_TASKRUN_FLAG && processors() > 1;
    loop->backend_state = uring;
    return true;
}

static void free_watches(struct list *list)
{
    struct uring_watch *watch;
    list_for_each_safe (watch, list, link)
        free(watch);
}

static void uring_fini(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    io_uring_queue_exit(&uring->ring);
    io_uring_free_probe(uring->probe);
    free_watches(&uring->fired);
    free_watches(&uring->watches);
    free(uring);
}

/* --- submitting and reaping --- */

static void watch_completed(struct uring *uring, struct uring_watch *watch, int result)
{
    watch->queued = false;
    list_remove(&watch->link);
    if (!watch->owner) {
        free(watch);
        return;
    }
    watch->events = result < 0 ? EPOLLERR : (uint32_t)result;
    list_append(&uring->fired, &watch->link);
}

static void reap(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(&uring->ring, head, cqe)
    {
        void *pointer = (void *)(uintptr_t)(cqe->user_data & ~(uint64_t)TAG_MASK);
        switch (cqe->user_data & TAG_MASK) {
        case TAG_OP: {
            struct uring_op *op = pointer;
            op->result = cqe->res;
            op->done = true;
            co_wake(op->co);
            break;
        }
        case TAG_WATCH: watch_completed(uring, pointer, cqe->res); break;
        case TAG_EVENTFD: uring->eventfd_queued = false; break;
        case TAG_NONE: break;
        }
        seen++;
    }
    io_uring_cq_advance(&uring->ring, seen);
}

struct io_uring_sqe *uring_sqe(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&uring->ring))) {
        loop->stats.system_calls++;
        /* -EBUSY: too many completions wait to be reaped; -EAGAIN: no memory right now. */
        io_uring_submit_and_get_events(&uring->ring);
        reap(loop);
    }
    return sqe;
}

static void set_tag(struct io_uring_sqe *sqe, void *pointer, unsigned tag)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)pointer | tag);
}

static void queue_eventfd(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    if (uring->eventfd_queued)
        return;
    struct io_uring_sqe *sqe = uring_sqe(loop);
    io_uring_prep_read(sqe, loop->wake_fd, &uring->eventfd_value, sizeof uring->eventfd_value, 0);
    set_tag(sqe, NULL, TAG_EVENTFD);
    uring->eventfd_queued = true;
}

static void submit_only(struct loop *loop, struct uring *uring)
{
    if (!io_uring_sq_ready(&uring->ring) && io_uring_cq_ready(&uring->ring))
        return;
    loop->stats.system_calls++;
    io_uring_submit_and_get_events(&uring->ring);
}

static void sleep_in_kernel(struct loop *loop, struct uring *uring, int64_t timeout_ns)
{
    loop->stats.system_calls++;
    if (timeout_ns < 0) {
        io_uring_submit_and_wait(&uring->ring, 1);
        return;
    }
    struct __kernel_timespec time = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct io_uring_cqe *cqe;
    io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1, &time, NULL);
}

/* --- short waits ---
 *
 * Only for the case that gains by it: one client, one request at a time. With more operations between two waits it is
 * better to sleep, as more requests arrive meanwhile and are then served together. And only where the last waits were
 * short: a client that thinks costs us nothing. Whoever else wants this processor gets it (sched_yield). */

enum { SPIN_NS = 50000, SPIN_OPERATIONS = 4, SPIN_FROM = 4, SHORT_WAITS_MAX = 8, LOOKS = 16 };

static bool has_news(struct uring *uring)
{
    return io_uring_cq_ready(&uring->ring) || IO_URING_READ_ONCE(*uring->ring.sq.kflags) & IORING_SQ_TASKRUN;
}

static bool spin(struct loop *loop, struct uring *uring, uint64_t until_ns)
{
    do {
        for (int i = 0; i < LOOKS; i++) {
            if (has_news(uring))
                return true;
            loop_relax();
        }
        sched_yield();
    } while (loop_now_ns(loop) < until_ns);
    return false;
}

static void submit(struct loop *loop, struct uring *uring)
{
    loop->stats.system_calls++;
    io_uring_submit(&uring->ring);
}

static void fetch(struct loop *loop, struct uring *uring)
{
    if (!(IO_URING_READ_ONCE(*uring->ring.sq.kflags) & IORING_SQ_TASKRUN))
        return;
    loop->stats.system_calls++;
    io_uring_get_events(&uring->ring);
}

static void wait_in_lockstep(struct loop *loop, struct uring *uring, int64_t timeout_ns)
{
    uint64_t start_ns = loop_now_ns(loop);
    if (uring->short_waits >= SPIN_FROM && spin(loop, uring, start_ns + SPIN_NS))
        fetch(loop, uring);
    else
        sleep_in_kernel(loop, uring, timeout_ns);
    if (loop_now_ns(loop) - start_ns > SPIN_NS)
        uring->short_waits -= MIN(uring->short_waits, 2u);
    else if (uring->short_waits < SHORT_WAITS_MAX)
        uring->short_waits++;
}

/* What is submitted may be complete at once: then there was no wait, and the operations go on to be counted. */
static void submit_and_wait(struct loop *loop, struct uring *uring, int64_t timeout_ns)
{
    bool has_work = io_uring_sq_ready(&uring->ring);
    if (io_uring_cq_ready(&uring->ring) && !has_work)
        return;
    bool is_lockstep = uring->may_spin && !loop->polling.max_ns &&
                       loop->stats.operations - uring->operations_before <= SPIN_OPERATIONS;
    if (!is_lockstep || (timeout_ns >= 0 && timeout_ns < SPIN_NS)) {
        sleep_in_kernel(loop, uring, timeout_ns);
        if (has_work)
            return;
    } else {
        if (has_work)
            submit(loop, uring);
        if (has_work && has_news(uring)) {
            fetch(loop, uring);
            return;
        }
        wait_in_lockstep(loop, uring, timeout_ns);
    }
    uring->operations_before = loop->stats.operations;
}

/* --- watches --- */

static void queue_watch(struct loop *loop, struct uring_watch *watch)
{
    struct io_uring_sqe *sqe = uring_sqe(loop);
    io_uring_prep_poll_add(sqe, watch->owner->fd, watch->owner->events);
    set_tag(sqe, watch, TAG_WATCH);
    watch->queued = true;
    list_append(&uring_of(loop)->watches, &watch->link);
}

static void uring_watch_add(struct loop *loop, struct loop_watch *owner)
{
    struct uring_watch *watch = new (struct uring_watch);
    watch->owner = owner;
    owner->private_state = (uintptr_t)watch;
    queue_watch(loop, watch);
}

static void uring_watch_remove(struct loop *loop, struct loop_watch *owner)
{
    struct uring_watch *watch = (struct uring_watch *)(uintptr_t)owner->private_state;
    watch->owner = NULL;
    if (!watch->queued) {
        list_remove(&watch->link);
        free(watch);
        return;
    }
    struct io_uring_sqe *sqe = uring_sqe(loop);
    io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)watch | TAG_WATCH);
    set_tag(sqe, NULL, TAG_NONE);
}

/* A callback may remove its own or any other watch, and add new ones. */
static void run_watches(struct loop *loop)
{
    struct uring *uring = uring_of(loop);
    struct uring_watch *watch;
    while ((watch = list_first(&uring->fired, struct uring_watch, link))) {
        list_remove(&watch->link);
        struct loop_watch *owner = watch->owner;
        uint32_t events = watch->events;
        queue_watch(loop, watch);
        owner->fn(owner->arg, events);
    }
}

/* Errors of the calls above (-EINTR, -ETIME, -EBUSY, -EAGAIN) all mean: reap, and come again. */
static void uring_poll(struct loop *loop, int64_t timeout_ns)
{
    struct uring *uring = uring_of(loop);
    if (timeout_ns) {
        queue_eventfd(loop);
        submit_and_wait(loop, uring, timeout_ns);
    } else {
        submit_only(loop, uring);
    }
    reap(loop);
    run_watches(loop);
}

static bool uring_has_news(struct loop *loop)
{
    return has_news(uring_of(loop));
}

/* --- operations --- */

static int await(struct loop *loop, struct io_uring_sqe *sqe, bool cancellable)
{
    struct co *co = co_self();
    assert(co);
    struct uring_op op = {.co = co}, cancel = {.co = co, .done = true};
    set_tag(sqe, &op, TAG_OP);
    loop->stats.operations++;
    loop->in_flight++;
    bool asked = false;
    /* The cancellation is waited for as well: left alone, it might hit a later operation at the same address. */
    while (!op.done || !cancel.done) {
        if (cancellable && !asked && !op.done && co_interrupted(co)) {
            asked = true;
            cancel.done = false;
            sqe = uring_sqe(loop);
            if (op.done) { /* reaped while we looked for an entry, which must be used now */
                io_uring_prep_nop(sqe);
            } else {
                io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)&op, 0);
            }
            set_tag(sqe, &cancel, TAG_OP);
        }
        co_suspend();
    }
    loop->in_flight--;
    return op.result;
}

int uring_await(struct loop *loop, struct io_uring_sqe *sqe)
{
    return await(loop, sqe, false);
}

int uring_await_cancellable(struct loop *loop, struct io_uring_sqe *sqe)
{
    return await(loop, sqe, true);
}

const struct loop_ops loop_uring_ops = {
    .name = "io_uring",
    .init = uring_init,
    .fini = uring_fini,
    .poll = uring_poll,
    .has_news = uring_has_news,
    .watch_add = uring_watch_add,
    .watch_remove = uring_watch_remove,
};
