/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop, the part that all back ends share. One turn:
 *
 *      calls posted by other threads -> timers that are due -> ready coroutines -> submit and wait (one system call)
 *
 * Ready coroutines run until none is ready or a budget is used up; only then is the kernel asked. So everything that a
 * burst of coroutines wants from the kernel goes there together, and coroutines that keep waking each other cannot
 * starve I/O.
 *
 * Posting from other threads: a lock-free stack that the loop empties and reverses. The poster writes to the eventfd
 * only when the loop says that it sleeps; the loop says so before it looks at the stack for the last time, hence one of
 * the two always sees the other.
 */
#include "base/loop.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop_private.h"
#include "base/pool.h"

/* Coroutine switches between two looks at the kernel: some ten microseconds of switching, more of real work. */
#define READY_BUDGET 256

static bool start_backend(struct loop *loop, const struct loop_ops *ops, struct error *err)
{
    loop->ops = ops;
    return ops->init(loop, err);
}

/* Sandboxes and old kernels refuse io_uring in many ways (ENOSYS, EPERM, missing features): then epoll, silently. */
static bool start_auto(struct loop *loop, struct error *err)
{
    const char *choice = getenv("SPINDLE_LOOP");
    if (!choice || !*choice || !strcmp(choice, "auto")) {
        loop->backend = LOOP_URING;
        if (start_backend(loop, &loop_uring_ops, NULL))
            return true;
        loop->backend = LOOP_EPOLL;
        return start_backend(loop, &loop_epoll_ops, err);
    }
    if (!strcmp(choice, "io_uring")) {
        loop->backend = LOOP_URING;
        return start_backend(loop, &loop_uring_ops, err);
    }
    if (!strcmp(choice, "epoll")) {
        loop->backend = LOOP_EPOLL;
        return start_backend(loop, &loop_epoll_ops, err);
    }
    return fail(err, EINVAL, "environment variable SPINDLE_LOOP='%s': expected auto, io_uring or epoll", choice);
}

static bool start(struct loop *loop, enum loop_backend backend, struct error *err)
{
    loop->backend = backend;
    switch (backend) {
    case LOOP_AUTO: return start_auto(loop, err);
    case LOOP_URING: return start_backend(loop, &loop_uring_ops, err);
    case LOOP_EPOLL: return start_backend(loop, &loop_epoll_ops, err);
    case LOOP_SIMULATED: return start_backend(loop, &loop_simulated_ops, err);
    }
    abort();
}

/* The kernel says it as text, "xxxxxxxx-xxxx-...". Read at the start: later a sandbox may not let us. */
static void read_boot_id(uint8_t id[LOOP_BOOT_ID_SIZE])
{
    char text[64] = "";
    auto_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    unsigned digits = 0;
    for (ssize_t i = 0; i < size && digits < 2 * LOOP_BOOT_ID_SIZE; i++) {
        const char *at = text[i] ? strchr("0123456789abcdef", text[i]) : NULL;
        if (at) {
            id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | (at - "0123456789abcdef"));
            digits++;
        }
    }
    if (digits < 2 * LOOP_BOOT_ID_SIZE)
        memset(id, 0, LOOP_BOOT_ID_SIZE);
}

const uint8_t *loop_boot_id(const struct loop *loop)
{
    return loop->boot_id;
}

struct loop *loop_new(enum loop_backend backend, uint64_t seed, struct error *err)
{
    struct loop *loop = new (struct loop);
    list_init(&loop->ready);
    list_init(&loop->coroutines);
    list_init(&loop->co_pool.free);
    loop->use_ucontext = co_context_wants_ucontext();
    co_context_init_thread(&loop->context, loop->use_ucontext);
    loop->seed = seed;
    if (backend == LOOP_SIMULATED)
        loop->boot_id[0] = 1;
    else
        read_boot_id(loop->boot_id);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC);
    if (loop->wake_fd < 0) {
        fail_errno(err, errno, "event loop: eventfd");
    } else if (start(loop, backend, err)) {
        return loop;
    } else {
        close(loop->wake_fd);
    }
    co_context_free(&loop->context);
    free(loop);
    return NULL;
}

static void run_posted(struct loop *loop);

void loop_free(struct loop *loop)
{
    if (!loop)
        return;
    assert(list_empty(&loop->coroutines) && loop_of_thread != loop);
    if (loop->pool)
        pool_free(loop->pool);
    run_posted(loop);
    if (loop->aio)
        aio_free(loop->aio);
    loop->ops->fini(loop);
    co_pool_free(loop);
    co_context_free(&loop->context);
    vec_free(&loop->timers);
    close(loop->wake_fd);
    free(loop);
}

enum loop_backend loop_backend(const struct loop *loop)
{
    return loop->backend;
}

struct loop *loop_current(void)
{
    return loop_of_thread;
}

struct loop_stats loop_stats(const struct loop *loop)
{
    return loop->stats;
}

uint64_t loop_now_ns(const struct loop *loop)
{
    if (unlikely(loop->sim != NULL))
        return sim_now(loop);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t loop_wall_ns(const struct loop *loop)
{
    if (unlikely(loop->sim != NULL))
        return 1700000000u * UINT64_C(1000000000) + sim_now(loop);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- from other threads --- */

void loop_wake(struct loop *loop)
{
    if (!atomic_exchange(&loop->sleeping, false))
        return;
    uint64_t one = 1;
    while (write(loop->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

void loop_post_call(struct loop *loop, struct loop_call *call)
{
    struct loop_call *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);
    do
        call->next = head;
    while (!atomic_compare_exchange_weak(&loop->posted, &head, call));
    loop_wake(loop);
}

struct heap_call {
    struct loop_call call;
    void (*fn)(void *arg);
    void *arg;
};

static void run_heap_call(void *arg)
{
    struct heap_call call = *(struct heap_call *)arg;
    free(arg);
    call.fn(call.arg);
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    struct heap_call *call = new (struct heap_call);
    *call = (struct heap_call){.call = {.fn = run_heap_call, .arg = call}, .fn = fn, .arg = arg};
    loop_post_call(loop, &call->call);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stopped, true);
    loop_wake(loop);
}

static void run_posted(struct loop *loop)
{
    if (!atomic_load_explicit(&loop->posted, memory_order_relaxed))
        return;
    struct loop_call *newest = atomic_exchange(&loop->posted, NULL), *oldest = NULL;
    while (newest) {
        struct loop_call *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct loop_call *call = oldest;
        oldest = call->next; /* the call may free itself */
        call->fn(call->arg);
    }
}

/* --- one turn --- */

static void run_ready(struct loop *loop)
{
    if (loop->sim) {
        while (!list_empty(&loop->ready)) {
            co_resume(sim_pick(loop));
            sim_step_done(loop);
        }
        return;
    }
    for (int budget = READY_BUDGET; budget && !list_empty(&loop->ready); budget--)
        co_resume(list_entry(loop->ready.next, struct co, link));
}

/* How long the kernel may keep us: -1 for ever. */
static int64_t wait_time(struct loop *loop)
{
    if (!list_empty(&loop->ready))
        return 0;
    if (!loop->timers.count)
        return -1;
    uint64_t deadline = loop->timers.items[0]->deadline_ns, now = loop_now_ns(loop);
    return deadline <= now ? 0 : (int64_t)MIN(deadline - now, (uint64_t)INT64_MAX);
}

static void wait_in_kernel(struct loop *loop, int64_t timeout_ns)
{
    if (timeout_ns) {
        atomic_store(&loop->sleeping, true);
        if (atomic_load(&loop->posted) || atomic_load(&loop->stopped))
            timeout_ns = 0;
    }
    loop->ops->poll(loop, timeout_ns);
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
}

/* For loops that poll: first they look. */
static void look_and_wait(struct loop *loop, int64_t timeout_ns)
{
    uint64_t start_ns = loop_now_ns(loop);
    if (!loop_look_for_news(loop, timeout_ns))
        wait_in_kernel(loop, timeout_ns);
    loop_learn_from_wait(loop, loop_now_ns(loop) - start_ns);
}

static void poll_kernel(struct loop *loop, int64_t timeout_ns)
{
    if (likely(!loop->polling.max_ns || !timeout_ns))
        wait_in_kernel(loop, timeout_ns);
    else
        look_and_wait(loop, timeout_ns);
}

enum run_until { UNTIL_STOPPED, UNTIL_IDLE, UNTIL_DONE };

static void run(struct loop *loop, enum run_until until, const bool *done)
{
    struct loop *outer = loop_of_thread;
    assert(outer != loop);
    loop_of_thread = loop;
    while (!(until == UNTIL_DONE ? *done : atomic_load_explicit(&loop->stopped, memory_order_relaxed))) {
        loop->stats.turns++;
        run_posted(loop);
        if (loop->timers.count)
            loop_timers_run(loop, loop_now_ns(loop));
        run_ready(loop);
        if (until == UNTIL_DONE && *done)
            break;
        if (loop->aio)
            aio_flush(loop->aio);
        int64_t timeout_ns = wait_time(loop);
        if (until == UNTIL_IDLE && timeout_ns < 0 && !loop->in_flight && !atomic_load(&loop->posted))
            break;
        poll_kernel(loop, timeout_ns);
    }
    if (until != UNTIL_DONE)
        atomic_store(&loop->stopped, false);
    loop_of_thread = outer;
}

void loop_run(struct loop *loop)
{
    run(loop, UNTIL_STOPPED, NULL);
}

void loop_run_until_idle(struct loop *loop)
{
    run(loop, UNTIL_IDLE, NULL);
}

struct main_call {
    int (*fn)(void *arg);
    void *arg;
    int result;
    bool done;
};

static void run_main_call(void *arg)
{
    struct main_call *call = arg;
    call->result = call->fn(call->arg);
    call->done = true;
}

int loop_run_main(struct loop *loop, int (*fn)(void *arg), void *arg)
{
    struct main_call call = {.fn = fn, .arg = arg};
    co_spawn(loop, NULL, run_main_call, &call);
    run(loop, UNTIL_DONE, &call.done);
    return call.result;
}

struct pool *loop_pool(struct loop *loop)
{
    if (!loop->pool)
        loop->pool = pool_new(0);
    return loop->pool;
}

void loop_watch(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                void (*fn)(void *arg, uint32_t events), void *arg)
{
    *watch = (struct loop_watch){.loop = loop, .fd = fd, .events = events, .fn = fn, .arg = arg};
    loop->ops->watch_add(loop, watch);
}

void loop_unwatch(struct loop_watch *watch)
{
    if (!watch->loop)
        return;
    watch->loop->ops->watch_remove(watch->loop, watch);
    watch->loop = NULL;
}

/* --- waiting for a descriptor --- */

struct fd_wait {
    struct co *co;
    uint32_t events;
};

static void fd_ready(void *arg, uint32_t events)
{
    struct fd_wait *wait = arg;
    wait->events |= events;
    co_wake(wait->co);
}

int loop_wait_fd(struct loop *loop, int fd, uint32_t events)
{
    struct fd_wait wait = {.co = co_self()};
    struct loop_watch watch;
    assert(wait.co && wait.co->loop == loop);
    loop_watch(loop, &watch, fd, events, fd_ready, &wait);
    loop->in_flight++;
    while (!wait.events && !co_interrupted(wait.co))
        co_suspend();
    loop->in_flight--;
    loop_unwatch(&watch);
    return wait.events ? (int)wait.events : -ECANCELED;
}
