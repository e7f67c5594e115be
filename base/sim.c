/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated back end: time passes only when nothing is ready, and then jumps to the next timer. All simulated I/O
 * is timers, so a run is a pure function of the seed and the program. Which of the ready coroutines runs next is drawn
 * from the seed, among the first few: choosing from far behind would only cost time to find it.
 *
 * Other threads do not exist here: co_offload() runs its work on the loop's thread, after a delay.
 */
#include "base/sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/sim_private.h"

#define PICK_WINDOW 32

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
    };
    sim->disk = sim_disk_new(sim);
    list_init(&sim->listeners);
    loop->sim = sim;
    return true;
}

static void sim_fini(struct loop *loop)
{
    assert(list_empty(&loop->sim->listeners));
    sim_disk_free(loop->sim->disk);
    free(loop->sim);
}

/* Nothing will ever happen when no timer is armed; only another thread's post could help, so wait for that. */
static void sim_poll(struct loop *loop, int64_t timeout_ns)
{
    if (timeout_ns > 0) {
        loop->sim->now_ns += (uint64_t)timeout_ns;
    } else if (timeout_ns < 0) {
        uint64_t value;
        if (read(loop->wake_fd, &value, sizeof value) < 0)
            assert(errno == EINTR);
    }
}

static void no_descriptors(struct loop *loop, struct loop_watch *watch)
{
    fprintf(stderr, "a simulated loop cannot watch file descriptor %d\n", watch->fd);
    abort();
}

const struct loop_ops loop_simulated_ops = {
    .name = "simulated",
    .init = sim_init,
    .fini = sim_fini,
    .poll = sim_poll,
    .watch_add = no_descriptors,
    .watch_remove = no_descriptors,
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
