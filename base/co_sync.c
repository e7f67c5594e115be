/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks, semaphores, wait queues and groups, all made of suspend and wake. A waiter is a node on the waiting
 * coroutine's stack. Whoever releases hands over: it takes the first waiter off the list and marks it granted before it
 * wakes it, so that nobody can slip in between and order is first come, first served.
 */
#include "base/co.h"

#include <assert.h>
#include "base/loop_private.h"

struct waiter {
    struct list link;
    struct co *co;
    bool granted;
    bool exclusive; /* co_rwlock: wants to write */
};

/* Not inlined: the compiler would see the address of a local go into the list, and not see grant() take it out. */
static __attribute__((noinline)) void enqueue(struct list *waiters, struct waiter *waiter)
{
    waiter->co = co_self();
    assert(waiter->co);
    list_append(waiters, &waiter->link);
}

static void wait_granted(struct list *waiters, struct waiter *waiter)
{
    enqueue(waiters, waiter);
    while (!waiter->granted)
        co_suspend();
}

static void grant(struct waiter *waiter)
{
    list_remove(&waiter->link);
    waiter->granted = true;
    co_wake(waiter->co);
}

/* --- mutex --- */

void co_mutex_init(struct co_mutex *mutex)
{
    mutex->owner = NULL;
    list_init(&mutex->waiters);
}

void co_mutex_lock(struct co_mutex *mutex)
{
    struct co *self = co_self();
    assert(self && mutex->owner != self);
    if (!mutex->owner) {
        mutex->owner = self;
        return;
    }
    struct waiter waiter = {0};
    wait_granted(&mutex->waiters, &waiter);
    assert(mutex->owner == self);
}

void co_mutex_unlock(struct co_mutex *mutex)
{
    assert(mutex->owner == co_self());
    struct waiter *next = list_first(&mutex->waiters, struct waiter, link);
    mutex->owner = next ? next->co : NULL;
    if (next)
        grant(next);
}

/* --- shared/exclusive lock: newcomers queue behind a waiting writer --- */

void co_rwlock_init(struct co_rwlock *lock)
{
    lock->readers = 0;
    lock->writer = false;
    list_init(&lock->waiters);
}

void co_rwlock_read(struct co_rwlock *lock)
{
    if (!lock->writer && list_empty(&lock->waiters)) {
        lock->readers++;
        return;
    }
    struct waiter waiter = {0};
    wait_granted(&lock->waiters, &waiter);
}

void co_rwlock_write(struct co_rwlock *lock)
{
    if (!lock->writer && !lock->readers) {
        lock->writer = true;
        return;
    }
    struct waiter waiter = {.exclusive = true};
    wait_granted(&lock->waiters, &waiter);
}

void co_rwlock_unlock(struct co_rwlock *lock)
{
    assert(lock->writer || lock->readers);
    if (lock->writer)
        lock->writer = false;
    else
        lock->readers--;
    struct waiter *next;
    while (!lock->writer && (next = list_first(&lock->waiters, struct waiter, link))) {
        if (next->exclusive && lock->readers)
            return;
        if (next->exclusive)
            lock->writer = true;
        else
            lock->readers++;
        grant(next);
    }
}

/* --- semaphore --- */

void co_semaphore_init(struct co_semaphore *semaphore, size_t count)
{
    semaphore->available = count;
    list_init(&semaphore->waiters);
}

void co_semaphore_acquire(struct co_semaphore *semaphore)
{
    if (semaphore->available) {
        semaphore->available--;
        return;
    }
    struct waiter waiter = {0};
    wait_granted(&semaphore->waiters, &waiter);
}

void co_semaphore_release(struct co_semaphore *semaphore)
{
    struct waiter *next = list_first(&semaphore->waiters, struct waiter, link);
    if (next)
        grant(next);
    else
        semaphore->available++;
}

/* --- wait queue --- */

void co_queue_init(struct co_queue *queue)
{
    list_init(&queue->waiters);
}

int co_queue_wait(struct co_queue *queue)
{
    struct waiter waiter = {0};
    enqueue(&queue->waiters, &waiter);
    while (!waiter.granted && !co_interrupted(waiter.co))
        co_suspend();
    list_remove(&waiter.link);
    return waiter.granted ? 0 : -ECANCELED;
}

void co_queue_wait_uncancellable(struct co_queue *queue)
{
    struct waiter waiter = {0};
    wait_granted(&queue->waiters, &waiter);
}

static void wake_late(void *arg)
{
    co_wake(arg);
}

int co_queue_wait_ns(struct co_queue *queue, uint64_t timeout_ns)
{
    struct waiter waiter = {0};
    enqueue(&queue->waiters, &waiter);
    struct loop *loop = waiter.co->loop;
    struct loop_timer timer = {.fn = wake_late, .arg = waiter.co};
    loop_timer_arm(loop, &timer, loop_now_ns(loop) + timeout_ns);
    while (!waiter.granted && timer.heap_index && !co_interrupted(waiter.co))
        co_suspend();
    bool late = !timer.heap_index;
    loop_timer_cancel(&timer);
    list_remove(&waiter.link);
    return waiter.granted ? 0 : late ? -ETIMEDOUT : -ECANCELED;
}

bool co_queue_wake_one(struct co_queue *queue)
{
    struct waiter *next = list_first(&queue->waiters, struct waiter, link);
    if (next)
        grant(next);
    return next != NULL;
}

void co_queue_wake_all(struct co_queue *queue)
{
    while (co_queue_wake_one(queue))
        ;
}

/* --- group --- */

void co_group_init(struct co_group *group)
{
    group->running = 0;
    group->cancelled = false;
    list_init(&group->members);
    co_queue_init(&group->queue);
}

void co_group_cancel(struct co_group *group)
{
    group->cancelled = true;
    struct co *co;
    list_for_each (co, &group->members, group_link)
        co_cancel(co);
}

void co_group_wait(struct co_group *group)
{
    assert(!co_self() || co_self()->group != group);
    while (group->running)
        co_queue_wait_uncancellable(&group->queue);
}
