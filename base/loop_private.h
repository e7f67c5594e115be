/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of base share about a loop and its coroutines. Nobody outside base includes this.
 *
 * A loop is one struct with a table of back-end functions. The generic part (loop.c) owns ready queue, timers, posted
 * calls and the order of a turn; a back end owns how to submit, to wait and to watch.
 */
#ifndef BASE_LOOP_PRIVATE_H
#define BASE_LOOP_PRIVATE_H

#include <stdatomic.h>
#include "base/co.h"
#include "base/co_context.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/vec.h"

struct aio;
struct sim;

/* A function call queued from any thread. Intrusive, so that completions of the worker pool need no memory. */
struct loop_call {
    struct loop_call *next;
    void (*fn)(void *arg);
    void *arg;
};

struct loop_ops {
    const char *name;
    bool (*init)(struct loop *loop, struct error *err);
    void (*fini)(struct loop *loop);
    /* Hands queued work to the kernel and waits at most timeout_ns for something to happen (-1: for ever, 0: only
     * looks). Wakes coroutines whose I/O is complete and calls watches. */
    void (*poll)(struct loop *loop, int64_t timeout_ns);
    /* Would poll() with a timeout of 0 find something? Without a system call; NULL: that cannot be said. */
    bool (*has_news)(struct loop *loop);
    void (*watch_add)(struct loop *loop, struct loop_watch *watch);
    void (*watch_remove)(struct loop *loop, struct loop_watch *watch);
};

extern const struct loop_ops loop_uring_ops, loop_epoll_ops, loop_simulated_ops;

/* Stacks of ended coroutines are kept for the next ones, up to a limit. */
struct co_pool {
    struct list free; /* of struct co */
    size_t free_count, colour;
};

struct loop {
    const struct loop_ops *ops;
    enum loop_backend backend;
    bool use_ucontext;
    uint64_t seed;

    struct list ready;         /* of struct co: first in, first out */
    struct co *running;        /* NULL on the loop's own stack */
    struct co_context context; /* the loop's own stack while a coroutine runs */
    struct list coroutines;    /* every living one; read by tools/gdb */
    struct co_pool co_pool;
    size_t in_flight; /* I/O operations and offloaded work that will wake a coroutine some day */

    vec(struct loop_timer *) timers; /* binary heap, earliest first */
    uint64_t timer_order;

    _Atomic(struct loop_call *) posted; /* newest first */
    atomic_bool sleeping;               /* whoever posts must write to wake_fd */
    atomic_bool stopped;
    int wake_fd; /* eventfd */

    struct loop_polling polling;
    uint64_t poll_ns; /* how long to look at present, up to polling.max_ns */

    struct pool *pool;
    struct aio *aio;
    struct sim *sim;
    struct loop_stats stats;
    uint8_t boot_id[LOOP_BOOT_ID_SIZE];
    uint64_t direct_turn; /* the turn that `direct_count` is about */
    unsigned direct_count;

    void *backend_state;
};

enum co_state { CO_NEW, CO_READY, CO_RUNNING, CO_SUSPENDED, CO_ENDED };

/* Lies at the upper end of its own stack. */
struct co {
    struct co_context context;
    struct loop *loop;
    struct list link;     /* in loop->ready or co_pool.free */
    struct list all_link; /* in loop->coroutines */
    struct co_group *group;
    struct list group_link;
    void (*fn)(void *arg);
    void *arg;
    enum co_state state;
    bool woken;        /* a wake that the next co_suspend() consumes */
    bool resume_wakes; /* CO_READY after a co_suspend(): one more wake adds nothing */
    bool cancelled, shielded;
    void *stack_base; /* the mapping, guard page first */
    size_t stack_size;
};

/* The loop that this thread runs. The one mutable variable of the folder, since co_self() has no argument. */
extern _Thread_local struct loop *loop_of_thread __attribute__((tls_model("initial-exec")));

void co_resume(struct co *co); /* from the loop's own stack */
void co_pool_free(struct loop *loop);

/* Does a wait begin or go on in vain because the running coroutine is cancelled? */
static inline bool co_interrupted(const struct co *co)
{
    return co->cancelled && !co->shielded;
}

void loop_post_call(struct loop *loop, struct loop_call *call); /* any thread; `call` lives until it is called */
void loop_wake(struct loop *loop);                              /* any thread: ends a poll that waits */

void loop_timers_run(struct loop *loop, uint64_t now_ns);

/* loop_poll.c: to be called before the loop says that it sleeps. True: there is something to do. */
bool loop_look_for_news(struct loop *loop, int64_t timeout_ns);
void loop_learn_from_wait(struct loop *loop, uint64_t waited_ns);
void loop_relax(void); /* in a busy loop */

/* May a coroutine do something short at once that would else be submitted? Only so often a turn: one that finds all it
 * wants in the page cache would never let the others hear from the kernel. */
#define DIRECT_OPERATIONS_A_TURN 256
static inline bool loop_may_go_directly(struct loop *loop)
{
    if (loop->direct_turn != loop->stats.turns) {
        loop->direct_turn = loop->stats.turns;
        loop->direct_count = 0;
    }
    return loop->direct_count++ < DIRECT_OPERATIONS_A_TURN;
}

/* libaio, made on first use (io_file_aio.c). */
void aio_flush(struct aio *aio);
void aio_free(struct aio *aio);

/* sim.c */
struct co *sim_pick(struct loop *loop);
void sim_step_done(struct loop *loop); /* a coroutine has run until it waits */
uint64_t sim_now(const struct loop *loop);
void sim_delay(struct loop *loop); /* YIELDS for a random simulated time; not cancellable */
void co_sleep_uncancellable(struct loop *loop, uint64_t duration_ns); /* YIELDS */

#endif
