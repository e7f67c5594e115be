/* SPDX-License-Identifier: Apache-2.0 */
/* Timers: a binary heap of pointers into the owners' structs, ordered by deadline, then by the order of arming. */
#include "base/loop_private.h"

static bool earlier(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->order < b->order;
}

static void place(struct loop *loop, size_t at, struct loop_timer *timer)
{
    loop->timers.items[at] = timer;
    timer->heap_index = at + 1;
}

static void sift_up(struct loop *loop, size_t at, struct loop_timer *timer)
{
    while (at) {
        size_t parent = (at - 1) / 2;
        if (!earlier(timer, loop->timers.items[parent]))
            break;
        place(loop, at, loop->timers.items[parent]);
        at = parent;
    }
    place(loop, at, timer);
}

static void sift_down(struct loop *loop, size_t at, struct loop_timer *timer)
{
    size_t count = loop->timers.count;
    for (size_t child; (child = at * 2 + 1) < count; at = child) {
        if (child + 1 < count && earlier(loop->timers.items[child + 1], loop->timers.items[child]))
            child++;
        if (!earlier(loop->timers.items[child], timer))
            break;
        place(loop, at, loop->timers.items[child]);
    }
    place(loop, at, timer);
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
    loop_timer_cancel(timer);
    timer->loop = loop;
    timer->deadline_ns = deadline_ns;
    timer->order = loop->timer_order++;
    vec_push(&loop->timers, timer);
    sift_up(loop, loop->timers.count - 1, timer);
}

void loop_timer_cancel(struct loop_timer *timer)
{
    if (!timer->heap_index)
        return;
    struct loop *loop = timer->loop;
    size_t at = timer->heap_index - 1;
    timer->heap_index = 0;
    struct loop_timer *last = vec_pop(&loop->timers);
    if (last == timer)
        return;
    if (at && earlier(last, loop->timers.items[(at - 1) / 2]))
        sift_up(loop, at, last);
    else
        sift_down(loop, at, last);
}

/* Fires what is due. A timer armed by a callback for now or earlier waits for the next turn, so that I/O is not starved
 * by timers that re-arm themselves. */
void loop_timers_run(struct loop *loop, uint64_t now_ns)
{
    uint64_t born_before = loop->timer_order;
    while (loop->timers.count) {
        struct loop_timer *timer = loop->timers.items[0];
        if (timer->deadline_ns > now_ns || timer->order >= born_before)
            return;
        loop_timer_cancel(timer);
        timer->fn(timer->arg);
    }
}
