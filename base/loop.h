/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread, one loop. It runs ready coroutines, timers, completions of I/O and functions posted by
 * other threads. Back ends are chosen at run time: io_uring (liburing) where the kernel allows it, else epoll with
 * libaio and the worker pool; and the *simulated* loop, where time is virtual, the order of ready work is drawn from a
 * seed and files and streams are simulated (base/sim.h). Code above this folder cannot tell which one it runs on.
 *
 * Ownership: a loop is created, run and freed by one thread. Only loop_post() and loop_stop() may be called from other
 * threads. A loop does not survive fork(2): daemonize first. Order: ready coroutines run first in, first out (shuffled
 * by the seed in simulation); I/O that they start is handed to the kernel in one system call a turn, not one a request.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/list.h"

struct loop;
struct co;
struct pool;

enum loop_backend {
    LOOP_AUTO, /* io_uring when it works here, else epoll; SPINDLE_LOOP=epoll|io_uring in the environment overrides */
    LOOP_URING,
    LOOP_EPOLL,
    LOOP_SIMULATED,
};

/* `seed` matters for LOOP_SIMULATED only. NULL and an error when the back end asked for cannot be had. */
struct loop *loop_new(enum loop_backend backend, uint64_t seed, struct error *err);
void loop_free(struct loop *loop); /* no coroutine may be left on it */
enum loop_backend loop_backend(const struct loop *loop);

/* Runs until loop_stop(), or (loop_run_until_idle) until nothing is ready, no I/O is in flight and no timer is armed.
 */
void loop_run(struct loop *loop);
void loop_run_until_idle(struct loop *loop);
void loop_stop(struct loop *loop); /* any thread */

/* Runs fn(arg) in a coroutine on a loop and returns its value when it has ended: how a program's main enters coroutine
 * land. */
int loop_run_main(struct loop *loop, int (*fn)(void *arg), void *arg);

/* The loop of the calling thread, NULL outside loop_run*(). */
struct loop *loop_current(void);

/* Calls fn(arg) on the loop's thread, soon. Any thread; never blocks for long; order of posts from one thread is kept.
 */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Monotonic nanoseconds; virtual in simulation. */
uint64_t loop_now_ns(const struct loop *loop);

/* Nanoseconds since 1970, for time stamps that people read; in simulation a function of virtual time. */
uint64_t loop_wall_ns(const struct loop *loop);

/* Names the present life of this machine: what the page cache held under one ID is still there under the same ID, also
 * when the program that wrote it was killed. All zero: not known. In simulation a power cut begins a new life. */
enum { LOOP_BOOT_ID_SIZE = 16 };
const uint8_t *loop_boot_id(const struct loop *loop);

/* How long the loop looks for news by itself before it sleeps, which spares whoever has some the waking of a thread.
 * Adaptive: the time grows after waits that a longer look would have caught, up to max_ns, and shrinks after long ones.
 * max_ns 0 (as it is without this call): the loop sleeps at once, but for what a back end does by itself. On the loop's
 * own thread. */
struct loop_polling {
    uint64_t max_ns;
    unsigned grow, shrink; /* factor and divisor; 0: doubles, and back to nothing */
};
void loop_set_polling(struct loop *loop, const struct loop_polling *polling);

/* The worker pool for slow pure work and blocking calls, made on first use, its size limited to the machine's
 * processors (at least 4). In simulation work runs at a simulated delay on the loop's own thread. */
struct pool *loop_pool(struct loop *loop);

/* A timer calls fn(arg) once on its loop; arming an armed timer moves it. The struct is the owner's; zero it before the
 * first use. */
struct loop_timer {
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
    uint64_t deadline_ns;
    uint64_t order;    /* timers of one deadline fire in the order they were armed */
    size_t heap_index; /* 0 = not armed; else position + 1 in the loop's heap */
};

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns);
void loop_timer_cancel(struct loop_timer *timer);

/* A watch calls fn(arg, events) on its loop whenever the descriptor has one of the epoll events asked for (level
 * triggered). The struct is the owner's and must stay until loop_unwatch(). Removing it from within its own callback is
 * allowed. */
struct loop_watch {
    struct loop *loop;
    int fd;
    uint32_t events;
    void (*fn)(void *arg, uint32_t events);
    void *arg;
    struct list link;
    uint64_t private_state;
};

void loop_watch(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                void (*fn)(void *arg, uint32_t events), void *arg);
void loop_unwatch(struct loop_watch *watch);

/* The same once, for a coroutine: the events that the descriptor has, or -ECANCELED. YIELDS. */
int loop_wait_fd(struct loop *loop, int fd, uint32_t events);

/* Counters for benchmarks and `query-` commands: system calls that submit or wait, I/O operations submitted, coroutine
 * switches. */
struct loop_stats {
    uint64_t turns, system_calls, operations, switches;
};
struct loop_stats loop_stats(const struct loop *loop);

#endif
