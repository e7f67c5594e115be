/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop in a thread of its own. Other loops have things done there by co_call_on() and loop_post().
 *
 * A simulated world has one thread and one time: there, the "thread" is the loop beside which it was made, so that what
 * is built of several loops runs in the simulation as well.
 */
#ifndef BASE_LOOP_THREAD_H
#define BASE_LOOP_THREAD_H

#include <stddef.h>
#include <sys/types.h>
#include "base/error.h"

struct loop;
struct loop_thread;

/* `name` is what tools like top(1) show, up to 15 bytes of it. `beside`: the loop of the caller. Returns when the loop
 * runs. */
struct loop_thread *loop_thread_new(struct loop *beside, const char *name, struct error *err);
struct loop *loop_thread_loop(const struct loop_thread *thread);
pid_t loop_thread_id(const struct loop_thread *thread); /* the kernel's */
/* Waits for the thread's end; no coroutine may be left on its loop. NULL is allowed. */
void loop_thread_free(struct loop_thread *thread);

#endif
