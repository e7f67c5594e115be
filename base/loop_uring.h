/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring operations for coroutines. Private to base. */
#ifndef BASE_LOOP_URING_H
#define BASE_LOOP_URING_H

#include <liburing.h>
#include <stdbool.h>

struct loop;

/* A submission entry to be filled in by the io_uring_prep_* functions; never NULL. Nothing may yield between this and
 * uring_await(). */
struct io_uring_sqe *uring_sqe(struct loop *loop);

/* Submits with the loop's next system call and waits: the result of the operation. A cancellable one ends with
 * -ECANCELED when the coroutine is cancelled, unless it was complete by then. YIELDS. */
int uring_await(struct loop *loop, struct io_uring_sqe *sqe);
int uring_await_cancellable(struct loop *loop, struct io_uring_sqe *sqe);


#endif
