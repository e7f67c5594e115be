/* SPDX-License-Identifier: Apache-2.0 */
/* Waits until a descriptor can be read (or its other end is gone), and does not let the waiter's cancellation interrupt
 * that: the other side always answers or ends, and an answer left behind would be taken for the next one. YIELDS. */
#ifndef CONFINED_WAIT_H
#define CONFINED_WAIT_H

#include <stdbool.h>
#include <sys/epoll.h>
#include "base/co.h"
#include "base/loop.h"

struct confined_wait {
    struct co *co;
    bool ready;
};

static inline void confined_wait_ready(void *arg, uint32_t events)
{
    struct confined_wait *wait = arg;
    (void)events;
    wait->ready = true;
    co_wake(wait->co);
}

static inline void confined_wait_readable(struct loop *loop, int fd)
{
    struct confined_wait wait = {.co = co_self()};
    struct loop_watch watch = {0};
    loop_watch(loop, &watch, fd, EPOLLIN, confined_wait_ready, &wait);
    while (!wait.ready)
        co_suspend();
    loop_unwatch(&watch);
}

#endif
