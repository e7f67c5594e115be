/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest time: the host's monotonic clock minus the time during which the machine stood still. Reading it takes no lock,
 * for guests read it all the time: `frozen` holds the time while stopped, and while running `offset` is what to add to
 * the host's clock.
 *
 * Timers stand in one list under a mutex; a machine has one or two for each hart. A single timer of the main loop
 * covers the earliest of them. Another thread that arms an earlier one posts a look at the list to the loop.
 */
#include "emulator/clock/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <time.h>
#include "base/alloc.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/math.h"

#define RUNNING UINT64_MAX                /* in `frozen` */
#define NOT_ARMED UINT64_MAX              /* deadline_ns */
#define LONGEST_NS (3600 * 1000000000ull) /* look again after an hour: no arithmetic overflows */

struct clock {
    struct loop *loop;
    _Atomic uint64_t frozen;
    _Atomic uint64_t offset;

    pthread_mutex_t lock; /* what follows */
    struct list timers;
    uint64_t programmed_ns;       /* what loop_timer waits for; NOT_ARMED when nothing */
    bool look_posted, dead;       /* dead: freed by the look that is still posted */
    struct loop_timer loop_timer; /* the loop's thread only */
};

struct clock_timer {
    struct clock *clock;
    void (*fn)(void *arg);
    void *arg;
    uint64_t deadline_ns;
    struct list link;
};

static uint64_t host_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void look_at_timers(void *arg);

struct clock *clock_new(struct loop *loop)
{
    struct clock *clock = new (struct clock);
    clock->loop = loop;
    clock->programmed_ns = NOT_ARMED;
    clock->loop_timer.fn = look_at_timers;
    clock->loop_timer.arg = clock;
    list_init(&clock->timers);
    pthread_mutex_init(&clock->lock, NULL);
    return clock;
}

void clock_free(struct clock *clock)
{
    if (!clock)
        return;
    if (clock->loop_timer.heap_index)
        loop_timer_cancel(&clock->loop_timer);
    clock->dead = true;
    if (!clock->look_posted)
        free(clock);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

uint64_t clock_now_ns(const struct clock *clock)
{
    uint64_t frozen = atomic_load_explicit(&clock->frozen, memory_order_acquire);
    if (frozen != RUNNING)
        return frozen;
    return host_ns(CLOCK_MONOTONIC) + atomic_load_explicit(&clock->offset, memory_order_relaxed);
}

uint64_t clock_wall_ns(const struct clock *clock)
{
    return host_ns(CLOCK_REALTIME);
}

void clock_random(struct clock *clock, void *buffer, size_t size)
{
    uint8_t *at = buffer;
    while (size) {
        ssize_t got = getrandom(at, size, 0);
        if (got < 0)
            continue; /* EINTR is all it can be: the pool is ready long before we run */
        at += got;
        size -= (size_t)got;
    }
}

void clock_start(struct clock *clock)
{
    uint64_t frozen = atomic_load(&clock->frozen);
    if (frozen == RUNNING)
        return;
    atomic_store(&clock->offset, frozen - host_ns(CLOCK_MONOTONIC));
    atomic_store_explicit(&clock->frozen, RUNNING, memory_order_release);
    look_at_timers(clock);
}

void clock_stop(struct clock *clock)
{
    if (atomic_load(&clock->frozen) == RUNNING)
        atomic_store_explicit(&clock->frozen, clock_now_ns(clock), memory_order_release);
}

/* --- timers ------------------------------------------------------------------------------------------------------- */

/* Lock held. The earliest timer, if one is armed. */
static struct clock_timer *earliest(struct clock *clock)
{
    struct clock_timer *timer, *best = NULL;
    list_for_each (timer, &clock->timers, link) {
        if (timer->deadline_ns != NOT_ARMED && (!best || timer->deadline_ns < best->deadline_ns))
            best = timer;
    }
    return best;
}

/* On the loop's thread: fires what is due, then waits for the next one. */
static void look_at_timers(void *arg)
{
    struct clock *clock = arg;
    pthread_mutex_lock(&clock->lock);
    clock->programmed_ns = NOT_ARMED;
    for (;;) {
        struct clock_timer *timer = earliest(clock);
        if (!timer || atomic_load(&clock->frozen) != RUNNING)
            break;
        uint64_t now = clock_now_ns(clock);
        if (timer->deadline_ns > now) {
            uint64_t wait = MIN(timer->deadline_ns - now, LONGEST_NS);
            clock->programmed_ns = timer->deadline_ns;
            loop_timer_arm(clock->loop, &clock->loop_timer, loop_now_ns(clock->loop) + wait);
            break;
        }
        void (*fn)(void *) = timer->fn;
        void *fn_arg = timer->arg;
        timer->deadline_ns = NOT_ARMED;
        pthread_mutex_unlock(&clock->lock);
        fn(fn_arg);
        pthread_mutex_lock(&clock->lock);
    }
    pthread_mutex_unlock(&clock->lock);
}

static void posted_look(void *arg)
{
    struct clock *clock = arg;
    pthread_mutex_lock(&clock->lock);
    clock->look_posted = false;
    pthread_mutex_unlock(&clock->lock);
    if (clock->dead)
        free(clock);
    else
        look_at_timers(clock);
}

struct clock_timer *clock_timer_new(struct clock *clock, void (*fn)(void *arg), void *arg)
{
    struct clock_timer *timer = new (struct clock_timer);
    timer->clock = clock;
    timer->fn = fn;
    timer->arg = arg;
    timer->deadline_ns = NOT_ARMED;
    pthread_mutex_lock(&clock->lock);
    list_append(&clock->timers, &timer->link);
    pthread_mutex_unlock(&clock->lock);
    return timer;
}

void clock_timer_free(struct clock_timer *timer)
{
    if (!timer)
        return;
    pthread_mutex_lock(&timer->clock->lock);
    list_remove(&timer->link);
    pthread_mutex_unlock(&timer->clock->lock);
    free(timer);
}

void clock_timer_arm(struct clock_timer *timer, uint64_t deadline_ns)
{
    struct clock *clock = timer->clock;
    bool post = false;
    pthread_mutex_lock(&clock->lock);
    timer->deadline_ns = deadline_ns;
    if (deadline_ns < clock->programmed_ns && !clock->look_posted)
        post = clock->look_posted = true;
    pthread_mutex_unlock(&clock->lock);
    if (post)
        loop_post(clock->loop, posted_look, clock);
}

void clock_timer_cancel(struct clock_timer *timer)
{
    pthread_mutex_lock(&timer->clock->lock);
    timer->deadline_ns = NOT_ARMED; /* the loop's timer may fire for nothing once */
    pthread_mutex_unlock(&timer->clock->lock);
}
