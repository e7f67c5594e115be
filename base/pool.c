/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads, and co_offload() on top of them.
 *
 * One queue under one lock: work here is a system call or thousands of bytes of computation, so the lock is not what
 * costs. A submitter makes a thread only when nobody is idle. Signals are blocked in the workers: they belong to the
 * loops.
 */
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/loop_private.h"

struct pool {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wanted;
    struct pool_work *first, **end;
    size_t queued, idle, busy, max_threads;
    vec(pthread_t) threads;
    bool closing;
};

static size_t default_limit(void)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors > 4 ? (size_t)processors : 4;
}

struct pool *pool_new(size_t max_threads)
{
    struct pool *pool = new (struct pool);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wanted, NULL);
    pool->end = &pool->first;
    pool->max_threads = max_threads ? max_threads : default_limit();
    return pool;
}

static struct pool_work *next_work(struct pool *pool)
{
    while ((!pool->first && !pool->closing) || (pool->first && pool->busy >= pool->max_threads)) {
        pool->idle++;
        pthread_cond_wait(&pool->wanted, &pool->lock);
        pool->idle--;
    }
    struct pool_work *work = pool->first;
    if (work) {
        pool->first = work->next;
        if (!pool->first)
            pool->end = &pool->first;
        pool->queued--;
        pool->busy++;
    }
    return work;
}

static void *worker(void *arg)
{
    struct pool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (struct pool_work *work; (work = next_work(pool));) {
        pthread_mutex_unlock(&pool->lock);
        work->fn(work->arg); /* may free the work */
        pthread_mutex_lock(&pool->lock);
        if (pool->busy-- == pool->max_threads && pool->first)
            pthread_cond_signal(&pool->wanted); /* somebody rests because of the limit */
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Called with the lock held. Without any thread the pool could never do what it promised. */
static void add_thread(struct pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int code = pthread_create(&thread, NULL, worker, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!code) {
        pthread_setname_np(thread, "worker");
        vec_push(&pool->threads, thread);
    } else if (!pool->threads.count) {
        fprintf(stderr, "cannot start a worker thread: %s\n", strerror(code));
        abort();
    }
}

void pool_set_limits(struct pool *pool, size_t min_threads, size_t max_threads)
{
    pthread_mutex_lock(&pool->lock);
    pool->max_threads = max_threads ? max_threads : default_limit();
    while (pool->threads.count < min_threads && pool->threads.count < pool->max_threads)
        add_thread(pool);
    pthread_cond_broadcast(&pool->wanted); /* who rests may work again */
    pthread_mutex_unlock(&pool->lock);
}

void pool_submit(struct pool *pool, struct pool_work *work)
{
    pthread_mutex_lock(&pool->lock);
    work->next = NULL;
    *pool->end = work;
    pool->end = &work->next;
    pool->queued++;
    if (pool->queued > pool->idle && pool->threads.count < pool->max_threads)
        add_thread(pool);
    pthread_cond_signal(&pool->wanted);
    pthread_mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_broadcast(&pool->wanted);
    pthread_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->threads.count; i++)
        pthread_join(pool->threads.items[i], NULL);
    vec_free(&pool->threads);
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* --- co_offload --- */

struct offload {
    struct pool_work work;
    struct loop_call finished;
    struct co *co;
    void (*fn)(void *arg);
    void *arg;
    bool done; /* written and read on the loop's thread only */
};

static void offload_finished(void *arg)
{
    struct offload *offload = arg;
    offload->done = true;
    co_wake(offload->co);
}

static void offload_work(void *arg)
{
    struct offload *offload = arg;
    offload->fn(offload->arg);
    loop_post_call(offload->co->loop, &offload->finished);
}

/* In simulation: a delay drawn from the seed, then the work, on this thread. */
static void offload_simulated(void (*fn)(void *arg), void *arg)
{
    sim_delay(co_self()->loop);
    fn(arg);
}

void co_offload(void (*fn)(void *arg), void *arg)
{
    struct co *co = co_self();
    assert(co);
    struct loop *loop = co->loop;
    if (loop->sim) {
        offload_simulated(fn, arg);
        return;
    }
    struct offload offload = {.co = co, .fn = fn, .arg = arg};
    offload.work = (struct pool_work){.fn = offload_work, .arg = &offload};
    offload.finished = (struct loop_call){.fn = offload_finished, .arg = &offload};
    loop->in_flight++;
    pool_submit(loop_pool(loop), &offload.work);
    while (!offload.done)
        co_suspend();
    loop->in_flight--;
}
