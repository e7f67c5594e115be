/* SPDX-License-Identifier: Apache-2.0 */
/* For tests that must pass on every kind of loop: ON_EVERY_LOOP(fn) makes one cmocka test of each kind. A kind that
 * this machine does not offer (io_uring in a sandbox) is skipped. */
#ifndef TESTS_UNIT_BASE_LOOPS_H
#define TESTS_UNIT_BASE_LOOPS_H

#include "tests/unit/base/check.h"

#include <stdlib.h>
#include <string.h>
#include "base/co.h"
#include "base/loop.h"
#include "base/math.h"

struct loop_kind {
    enum loop_backend backend;
    bool ucontext;
};

static const struct loop_kind kind_uring = {LOOP_URING, false}, kind_epoll = {LOOP_EPOLL, false},
                              kind_simulated = {LOOP_SIMULATED, false}, kind_ucontext = {LOOP_EPOLL, true};

static inline struct loop *new_loop(void **state)
{
    const struct loop_kind *kind = *state;
    struct error err = {0};
    if (kind->ucontext)
        setenv("SPINDLE_COROUTINES", "ucontext", 1);
    else
        unsetenv("SPINDLE_COROUTINES");
    struct loop *loop = loop_new(kind->backend, 1234, &err);
    if (!loop && kind->backend == LOOP_URING) {
        print_message("skipped: %s\n", err.message);
        error_clear(&err);
        skip();
    }
    assert_non_null(loop);
    return loop;
}

#define ONE_LOOP(fn, kind)                                                                                             \
    {                                                                                                                  \
#fn " on " #kind, fn, NULL, NULL, (void *)&kind                                                                \
    }
#define ON_REAL_LOOPS(fn) ONE_LOOP(fn, kind_uring), ONE_LOOP(fn, kind_epoll)
#define ON_EVERY_LOOP(fn) ON_REAL_LOOPS(fn), ONE_LOOP(fn, kind_simulated), ONE_LOOP(fn, kind_ucontext)

/* Runs fn(arg) as the main coroutine of a new loop of the kind at hand; the loop must be idle afterwards. */
static inline void run_on_loop(void **state, int (*fn)(void *arg), void *arg)
{
    struct loop *loop = new_loop(state);
    assert_int_equal(loop_run_main(loop, fn, arg), 0);
    loop_run_until_idle(loop);
    loop_free(loop);
}

static inline bool is_simulated(void)
{
    return loop_backend(loop_current()) == LOOP_SIMULATED;
}

#endif
