/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated back end: time passes only when nothing is ready, and then jumps to the next timer. All simulated I/O
 * is timers, so a run is a pure function of the seed and the program. Which of the ready coroutines runs next is drawn
 * from the seed, among the first few: choosing from far behind would only cost time to find it.
 *
 * Other threads do not exist here: co_offload() runs its work on the loop's thread, after a delay.
 *
 * Descriptors can be watched when whoever makes them ready runs on this loop, too (an eventfd between a daemon and its
 * front end): then readiness is a function of the run like everything else, if only the kernel is asked at fixed
 * points. That is once a turn, without waiting; what is found ready is told after a random delay, once more looked at
 * then.
 */
#include "base/sim.h"

#include <assert.h>
#include <stdio.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/sim_private.h"

#define PICK_WINDOW 32
#define LOOK_MAX 64 /* descriptors that the kernel is asked about at once */

static bool sim_init(struct loop *loop, struct error *err)
{
    struct sim *sim = new (struct sim);
    rng_seed(&sim->rng, loop->seed);
    sim->now_ns = 1000000000; /* not zero, so that "a little earlier" is possible */
    sim->config = (struct sim_config){
        .disk_low_ns = 20000,
        .disk_high_ns = 200000,
        .work_low_ns = 1000,
        .work_high_ns = 100000,
        .stream_low_ns = 5000,
        .stream_high_ns = 50000,
        .stream_chunk = 64 * KiB,
        .stream_window = 256 * KiB,
        .disk_capacity = UINT64_MAX,
        .stall_low_ns = 10000000,
        .stall_high_ns = 300000000,
    };
    sim->disk = sim_disk_new(sim);
    list_init(&sim->listeners);
    list_init(&sim->watches);
    loop->sim = sim;
    return true;
}

static void sim_fini(struct loop *loop)
{
    assert(list_empty(&loop->sim->listeners) && list_empty(&loop->sim->watches));
    sim_disk_free(loop->sim->disk);
    free(loop->sim);
}

/* --- watches --- */

struct sim_watch {
    struct list link;
    struct loop_watch *watch;
    struct loop_timer told; /* armed: found ready, and about to be told */
};

static struct pollfd poll_fd_of(const struct loop_watch *watch)
{
    return (struct pollfd){.fd = watch->fd, .events = (short)(watch->events & (EPOLLIN | EPOLLOUT | EPOLLPRI))};
}

static void tell(void *arg)
{
    struct sim_watch *own = arg;
    struct loop_watch *watch = own->watch;
    struct pollfd fd = poll_fd_of(watch);
    if (poll(&fd, 1, 0) > 0)                         /* the numbers of poll and epoll are the same */
        watch->fn(watch->arg, (uint32_t)fd.revents); /* may remove the watch, and `own` with it */
}

static void watch_add(struct loop *loop, struct loop_watch *watch)
{
    if (watch->events & EPOLLET) {
        fprintf(stderr, "a simulated loop cannot watch edges of file descriptor %d\n", watch->fd);
        abort();
    }
    struct sim_watch *own = new (struct sim_watch);
    own->watch = watch;
    own->told = (struct loop_timer){.loop = loop, .fn = tell, .arg = own};
    watch->private_state = (uintptr_t)own;
    list_append(&loop->sim->watches, &own->link);
}

static void watch_remove(struct loop *loop, struct loop_watch *watch)
{
    struct sim_watch *own = (struct sim_watch *)(uintptr_t)watch->private_state;
    (void)loop;
    loop_timer_cancel(&own->told);
    list_remove(&own->link);
    free(own);
}

/* true: something was found that had not been found before. */
static bool look_at_watches(struct loop *loop)
{
    struct sim *sim = loop->sim;
    struct sim_watch *own, *asked[LOOK_MAX];
    struct pollfd fds[LOOK_MAX];
    unsigned count = 0;
    list_for_each (own, &sim->watches, link) {
        if (own->told.heap_index || count == LOOK_MAX)
            continue;
        asked[count] = own;
        fds[count++] = poll_fd_of(own->watch);
    }
    if (!count || poll(fds, count, 0) <= 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (fds[i].revents)
            loop_timer_arm(loop, &asked[i]->told,
                           sim->now_ns + sim_draw(sim, sim->config.stream_low_ns, sim->config.stream_high_ns));
    }
    return true;
}

/* Nothing will ever happen when no timer is armed; only another thread's post could help, so wait for that. */
static void sim_poll(struct loop *loop, int64_t timeout_ns)
{
    if (look_at_watches(loop))
        return; /* its timer may be the next one */
    if (timeout_ns > 0) {
        loop->sim->now_ns += (uint64_t)timeout_ns;
    } else if (timeout_ns < 0) {
        uint64_t value;
        if (read(loop->wake_fd, &value, sizeof value) < 0)
            assert(errno == EINTR);
    }
}

const struct loop_ops loop_simulated_ops = {
    .name = "simulated",
    .init = sim_init,
    .fini = sim_fini,
    .poll = sim_poll,
    .watch_add = watch_add,
    .watch_remove = watch_remove,
};

uint64_t sim_now(const struct loop *loop)
{
    return loop->sim->now_ns;
}

struct co *sim_pick(struct loop *loop)
{
    size_t window = 0;
    for (struct list *at = loop->ready.next; at != &loop->ready && window < PICK_WINDOW; at = at->next)
        window++;
    struct list *at = loop->ready.next;
    for (uint64_t skip = rng_below(&loop->sim->rng, window); skip; skip--)
        at = at->next;
    return list_entry(at, struct co, link);
}

void sim_step_done(struct loop *loop)
{
    struct sim *sim = loop->sim;
    if (!sim->observer || sim->observed == sim_operations(loop))
        return;
    sim->observed = sim_operations(loop);
    sim->observer(sim->observer_arg);
}

void sim_observe(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    loop->sim->observer = fn;
    loop->sim->observer_arg = arg;
    loop->sim->observed = sim_operations(loop);
}

void sim_delay(struct loop *loop)
{
    struct sim *sim = loop->sim;
    co_sleep_uncancellable(loop, sim_draw(sim, sim->config.work_low_ns, sim->config.work_high_ns));
}

struct sim_config *sim_config(struct loop *loop)
{
    return &loop->sim->config;
}

uint64_t sim_random(struct loop *loop, uint64_t limit)
{
    return rng_below(&loop->sim->rng, limit);
}
