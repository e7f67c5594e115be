/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stackful coroutines. A coroutine is born on a loop and dies there; it never moves to another thread. Code that may
 * yield is called from coroutines only. Between two yields memory is ours alone; across a yield hold a co_mutex or look
 * again.
 *
 * Everything here is called on the loop's own thread, except where it says otherwise. Functions marked YIELDS may let
 * other coroutines run; the rest never do.
 */
#ifndef BASE_CO_H
#define BASE_CO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/list.h"

struct loop;
struct co;

/* Wait queue: wake one or all of the coroutines that wait for some condition. */
struct co_queue {
    struct list waiters;
};

/* A group counts the coroutines of one owner (a connection, a job, an export), so that the owner can cancel them and
 * wait. */
struct co_group {
    size_t running;
    bool cancelled;
    struct list members;   /* of struct co */
    struct co_queue queue; /* who waits for the last of them */
};

void co_group_init(struct co_group *group);
void co_group_cancel(struct co_group *group); /* cancels each member, also those spawned into it later */
void co_group_wait(struct co_group *group);   /* YIELDS until running == 0 */

/* Makes a coroutine that runs fn(arg) from the loop's ready queue, after what is ready already. `group` may be NULL. */
struct co *co_spawn(struct loop *loop, struct co_group *group, void (*fn)(void *arg), void *arg);

struct co *co_self(void); /* NULL outside a coroutine */

/* The two primitives from which everything that waits is built. Each co_wake() lets the next or current co_suspend() of
 * that coroutine return; wakes do not add up (one pending wake is remembered). Whoever suspends must check its
 * condition again. */
void co_suspend(void); /* YIELDS */
void co_wake(struct co *co);
void co_yield (void); /* YIELDS: to the end of the ready queue */

/* Cancellation: sets the flag and wakes. Waits that can be abandoned (sleep, poll, accept, recv, send on streams, event
 * waits) then return -ECANCELED; file I/O and mutexes are waited out. The flag stays set until the coroutine ends. */
void co_cancel(struct co *co);
bool co_cancelled(void);

/* A coroutine can shield a clean-up section from its own cancellation. */
void co_set_cancellable(bool cancellable);

int co_sleep_ns(uint64_t duration_ns); /* YIELDS. 0 or -ECANCELED */

/* Runs fn(arg) on the worker pool. fn must not touch anything but what `arg` points at, which no one else uses
 * meanwhile. YIELDS. */
void co_offload(void (*fn)(void *arg), void *arg);

/* Runs fn(arg) in a coroutine on another loop of this process, and waits until it has returned; on the caller's own loop
 * that is a plain call. Cancelling the caller cancels fn there. Whoever calls sees to it that the other loop runs until
 * then. The caller's memory may be used by fn, as long as no one else uses it meanwhile. YIELDS. */
void co_call_on(struct loop *loop, void (*fn)(void *arg), void *arg);

/* Mutex: fair, first come first served. Not recursive. Lock order is documented where mutexes are declared. */
struct co_mutex {
    struct co *owner;
    struct list waiters;
};
void co_mutex_init(struct co_mutex *mutex);
void co_mutex_lock(struct co_mutex *mutex); /* YIELDS when it is held */
void co_mutex_unlock(struct co_mutex *mutex);

static inline void co_mutex_unlock_cleanup(struct co_mutex **mutex)
{
    if (*mutex)
        co_mutex_unlock(*mutex);
}
static inline struct co_mutex *co_mutex_lock_scope(struct co_mutex *mutex)
{
    co_mutex_lock(mutex);
    return mutex;
}
/* with_co_lock(&image->lock) { ... } unlocks however the block is left, return included. Such blocks may be nested:
 * each has names of its own. */
#define with_co_lock(mutex) WITH_CO_LOCK_NAMED(mutex, __COUNTER__)
#define WITH_CO_LOCK_NAMED(mutex, n) WITH_CO_LOCK_PASTED(mutex, n)
#define WITH_CO_LOCK_PASTED(mutex, n)                                                                                  \
    for (struct co_mutex * co_lock_scope_##n                                                                           \
             __attribute__((cleanup(co_mutex_unlock_cleanup))) = co_mutex_lock_scope(mutex),                           \
             *co_lock_once_##n = co_lock_scope_##n;                                                                    \
         co_lock_once_##n; co_lock_once_##n = NULL)

/* Shared/exclusive lock, writers are not starved. */
struct co_rwlock {
    size_t readers;
    bool writer;
    struct list waiters;
};
void co_rwlock_init(struct co_rwlock *lock);
void co_rwlock_read(struct co_rwlock *lock);  /* YIELDS */
void co_rwlock_write(struct co_rwlock *lock); /* YIELDS */
void co_rwlock_unlock(struct co_rwlock *lock);

/* Counting semaphore: limits how many requests are in flight. */
struct co_semaphore {
    size_t available;
    struct list waiters;
};
void co_semaphore_init(struct co_semaphore *semaphore, size_t count);
void co_semaphore_acquire(struct co_semaphore *semaphore); /* YIELDS when none is available */
void co_semaphore_release(struct co_semaphore *semaphore);

/* struct co_queue, above: wake one or all of the coroutines that wait for some condition. */
void co_queue_init(struct co_queue *queue);
int co_queue_wait(struct co_queue *queue);                         /* YIELDS. 0 or -ECANCELED */
int co_queue_wait_ns(struct co_queue *queue, uint64_t timeout_ns); /* YIELDS. 0, -ETIMEDOUT or -ECANCELED */
void co_queue_wait_uncancellable(struct co_queue *queue);
bool co_queue_wake_one(struct co_queue *queue);
void co_queue_wake_all(struct co_queue *queue);

#endif
