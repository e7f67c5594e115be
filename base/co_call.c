/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls to another loop. A coroutine never leaves its loop; what it wants done on another one is carried out there by a
 * second coroutine, while it waits. Both sides only post to each other (loop_post_call(): a lock-free stack, and one
 * write to an eventfd if the other sleeps; so a burst of calls wakes the other loop once).
 *
 *      caller's loop                                  the other loop
 *      co_call_on() --------- start --------------->  spawns the callee, which runs fn(arg)
 *      waits                                          ...
 *      is cancelled --------- cancel -------------->  co_cancel(callee), unless it has ended
 *                  <--------- cancel_seen ----------
 *      returns     <--------- finished -------------  the callee's last act
 *
 * The record of a call lies on the caller's stack: it is left only when nothing of it is on its way any more.
 */
#include <assert.h>
#include "base/loop_private.h"

struct remote_call {
    struct loop_call start, cancel, cancel_seen, finished;
    struct loop *from, *to;
    void (*fn)(void *arg);
    void *arg;
    /* The caller's thread: */
    struct co *caller;
    bool is_finished, was_cancelled, has_seen;
    /* The other thread: */
    struct co *callee;
    bool has_ended;
};

/* On the other loop ----------------------------------------------------------------------------------------------- */

static void callee_run(void *arg)
{
    struct remote_call *call = arg;
    call->fn(call->arg);
    call->has_ended = true;
    loop_post_call(call->from, &call->finished);
}

static void on_start(void *arg)
{
    struct remote_call *call = arg;
    call->callee = co_spawn(call->to, NULL, callee_run, call);
}

static void on_cancel(void *arg)
{
    struct remote_call *call = arg;
    if (!call->has_ended)
        co_cancel(call->callee);
    loop_post_call(call->from, &call->cancel_seen);
}

/* On the caller's ------------------------------------------------------------------------------------------------- */

static void on_cancel_seen(void *arg)
{
    struct remote_call *call = arg;
    call->has_seen = true;
    co_wake(call->caller);
}

static void on_finished(void *arg)
{
    struct remote_call *call = arg;
    call->is_finished = true;
    co_wake(call->caller);
}

static void call_remotely(struct loop *to, void (*fn)(void *arg), void *arg)
{
    struct co *self = co_self();
    struct remote_call call = {.from = self->loop, .to = to, .fn = fn, .arg = arg, .caller = self};
    assert(!self->loop->sim && !to->sim); /* simulated loops know one thread and one time */
    call.start = (struct loop_call){.fn = on_start, .arg = &call};
    call.cancel = (struct loop_call){.fn = on_cancel, .arg = &call};
    call.cancel_seen = (struct loop_call){.fn = on_cancel_seen, .arg = &call};
    call.finished = (struct loop_call){.fn = on_finished, .arg = &call};
    call.from->in_flight++;
    loop_post_call(to, &call.start);
    while (!call.is_finished || call.was_cancelled != call.has_seen) {
        if (!call.is_finished && !call.was_cancelled && co_interrupted(self)) {
            call.was_cancelled = true;
            loop_post_call(to, &call.cancel);
        }
        co_suspend();
    }
    call.from->in_flight--;
}

void co_call_on(struct loop *loop, void (*fn)(void *arg), void *arg)
{
    assert(co_self());
    if (likely(loop == loop_of_thread))
        fn(arg);
    else
        call_remotely(loop, fn, arg);
}
