/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads for slow pure work and for system calls that block. Threads are made on demand up to a limit and stay
 * until the pool is freed. Coroutines use co_offload(); this interface is for work that tells its owner in another way.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>

struct pool;

/* Intrusive: the owner keeps it until fn was called. */
struct pool_work {
    struct pool_work *next;
    void (*fn)(void *arg); /* on a worker thread */
    void *arg;
};

struct pool *pool_new(size_t max_threads); /* 0: the number of processors, at least 4 */
/* Threads that are there at once, and how many may work at the same time (0: the default of pool_new()). Threads that
 * exist beyond a smaller limit rest. */
void pool_set_limits(struct pool *pool, size_t min_threads, size_t max_threads);
void pool_submit(struct pool *pool, struct pool_work *work);
void pool_free(struct pool *pool); /* finishes what was submitted, then ends the threads */

#endif
