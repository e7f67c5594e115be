/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: what one loop has done on another one is lost, done on the wrong thread, or seen too early; a
 * cancellation does not arrive, or hits somebody else; a stream does not work on the loop that it was moved to. Run it
 * under TSan. */
#include "tests/unit/base/loops.h"

#include "base/loop_private.h"
#include "base/loop_thread.h"
#include "base/rng.h"
#include "base/stream.h"

static struct loop_thread *new_thread(void)
{
    struct loop_thread *thread = loop_thread_new(loop_current(), "test", NULL);
    assert_non_null(thread);
    return thread;
}

/* --- what arrives --- */

struct visit {
    struct loop *loop;
    struct co *co;
    int *count;
};

static void note(void *arg)
{
    struct visit *visit = arg;
    visit->loop = loop_current();
    visit->co = co_self();
    if (visit->count)
        ++*visit->count;
}

static int call_there_and_here(void *arg)
{
    struct loop_thread *thread = new_thread();
    struct visit there = {0}, here = {0};
    co_call_on(loop_thread_loop(thread), note, &there);
    assert_ptr_equal(there.loop, loop_thread_loop(thread));
    assert_non_null(there.co);
    assert_true(is_simulated() == (there.loop == loop_current()));
    assert_true(is_simulated() == (there.co == co_self()));
    co_call_on(loop_current(), note, &here);
    assert_ptr_equal(here.co, co_self());
    assert_true(loop_thread_id(thread) > 0);
    loop_thread_free(thread);
    loop_thread_free(NULL);
    return 0;
}

static void a_call_runs_on_the_other_loop(void **state)
{
    run_on_loop(state, call_there_and_here, NULL);
}

/* --- many at once, and back again --- */

struct crowd {
    struct loop *home;
    struct loop_thread *threads[2];
    int arrived[2], answered; /* each touched on one loop only, without a lock */
};

struct caller {
    struct crowd *crowd;
    int thread, visits, wanted;
};

static void answer(void *arg)
{
    ++((struct crowd *)arg)->answered;
}

static void arrive(void *arg)
{
    struct caller *caller = arg;
    caller->crowd->arrived[caller->thread]++;
    if (caller->visits % 3 == 0)
        co_yield ();
    if (caller->visits % 2 == 0)
        co_call_on(caller->crowd->home, answer, caller->crowd);
}

static void run_caller(void *arg)
{
    struct caller *caller = arg;
    for (caller->visits = 0; caller->visits < caller->wanted; caller->visits++)
        co_call_on(loop_thread_loop(caller->crowd->threads[caller->thread]), arrive, caller);
}

static int call_in_crowds(void *arg)
{
    enum { CALLERS = 50, VISITS = CO_TSAN ? 20 : 200 }; /* that sanitizer makes a new coroutine expensive */
    struct crowd crowd = {.home = loop_current(), .threads = {new_thread(), new_thread()}};
    struct caller callers[CALLERS];
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){&crowd, i % 2, 0, VISITS};
        co_spawn(loop_current(), &group, run_caller, &callers[i]);
    }
    co_group_wait(&group);
    assert_int_equal(crowd.arrived[0] + crowd.arrived[1], CALLERS * VISITS);
    assert_int_equal(crowd.answered, CALLERS * VISITS / 2);
    loop_thread_free(crowd.threads[0]);
    loop_thread_free(crowd.threads[1]);
    return 0;
}

static void many_calls_at_once_all_arrive(void **state)
{
    run_on_loop(state, call_in_crowds, NULL);
}

/* --- cancelling --- */

struct sleeper {
    struct loop *loop;
    uint64_t sleep_ns;
    int result;
    bool was_cancelled;
};

static void sleep_there(void *arg)
{
    struct sleeper *sleeper = arg;
    sleeper->result = co_sleep_ns(sleeper->sleep_ns);
}

static void run_sleeper(void *arg)
{
    struct sleeper *sleeper = arg;
    co_call_on(sleeper->loop, sleep_there, sleeper);
    sleeper->was_cancelled = co_cancelled();
}

static void spend(uint64_t ns)
{
    assert_int_equal(co_sleep_ns(ns), 0);
}

static int cancel_one(void *arg)
{
    struct loop_thread *thread = new_thread();
    struct sleeper sleeper = {.loop = loop_thread_loop(thread), .sleep_ns = 3600 * 1000000000ull};
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, run_sleeper, &sleeper);
    spend(2000000);
    co_group_cancel(&group);
    co_group_wait(&group);
    assert_int_equal(sleeper.result, -ECANCELED);
    assert_true(sleeper.was_cancelled);

    co_group_init(&group); /* one that is cancelled before it has called */
    sleeper.result = 0;
    co_cancel(co_spawn(loop_current(), &group, run_sleeper, &sleeper));
    co_group_wait(&group);
    assert_int_equal(sleeper.result, -ECANCELED);
    loop_thread_free(thread);
    return 0;
}

static void cancelling_the_caller_cancels_the_call(void **state)
{
    run_on_loop(state, cancel_one, NULL);
}

/* The cancellation and the end of the call meet on their ways. Who calls next must not be hit by it. */
static int cancel_at_bad_times(void *arg)
{
    struct loop_thread *thread = new_thread();
    struct rng rng;
    rng_seed(&rng, 7);
    for (int i = 0; i < 300; i++) {
        struct sleeper sleeper = {.loop = loop_thread_loop(thread), .sleep_ns = rng_below(&rng, 100000)};
        struct sleeper other = {.loop = loop_thread_loop(thread), .sleep_ns = 1000};
        struct co_group group, others;
        co_group_init(&group);
        co_group_init(&others);
        co_spawn(loop_current(), &group, run_sleeper, &sleeper);
        spend(rng_below(&rng, 100000));
        co_group_cancel(&group);
        co_spawn(loop_current(), &others, run_sleeper, &other);
        co_group_wait(&group);
        co_group_wait(&others);
        assert_true(sleeper.result == 0 || sleeper.result == -ECANCELED);
        assert_int_equal(other.result, 0);
    }
    loop_thread_free(thread);
    return 0;
}

static void a_late_cancellation_hits_nobody(void **state)
{
    run_on_loop(state, cancel_at_bad_times, NULL);
}

/* --- streams --- */

struct echo {
    struct stream *stream;
    struct loop *home;
    int lines;
};

static void echo_there(void *arg)
{
    struct echo *echo = arg;
    char line[4];
    for (int i = 0; i < echo->lines; i++) {
        assert_int_equal(stream_recv_all(echo->stream, line, sizeof line), 0);
        assert_int_equal(stream_send_all(echo->stream, line, sizeof line), 0);
    }
    stream_move(echo->stream, echo->home);
}

static void run_echo(void *arg)
{
    struct echo *echo = arg;
    char line[4];
    assert_int_equal(stream_recv_all(echo->stream, line, sizeof line), 0); /* here, */
    struct loop_thread *thread = new_thread();
    stream_move(echo->stream, loop_thread_loop(thread));
    co_call_on(loop_thread_loop(thread), echo_there, echo); /* there, */
    loop_thread_free(thread);
    assert_ptr_equal(echo->stream->loop, loop_current());
    assert_int_equal(stream_send_all(echo->stream, line, sizeof line), 0); /* and here again */
}

static int move_a_stream(void *arg)
{
    struct stream *pair[2];
    assert_true(stream_pair(loop_current(), pair, NULL));
    struct echo echo = {.stream = pair[1], .home = loop_current(), .lines = 100};
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, run_echo, &echo);
    char line[4];
    assert_int_equal(stream_send_all(pair[0], "here", 4), 0);
    for (int i = 0; i < echo.lines; i++) {
        assert_int_equal(stream_send_all(pair[0], "line", 4), 0);
        assert_int_equal(stream_recv_all(pair[0], line, 4), 0);
        assert_memory_equal(line, "line", 4);
    }
    assert_int_equal(stream_recv_all(pair[0], line, 4), 0);
    assert_memory_equal(line, "here", 4);
    co_group_wait(&group);
    stream_close(pair[0]);
    stream_close(pair[1]);
    return 0;
}

static void a_stream_moves_to_another_loop_and_back(void **state)
{
    run_on_loop(state, move_a_stream, NULL);
}

/* --- looking before sleeping --- */

static void the_time_to_look_is_learned(void **state)
{
    struct loop *loop = new_loop(state);
    loop_set_polling(loop, &(struct loop_polling){.max_ns = 20000});
    loop_learn_from_wait(loop, 15000); /* looking longer would have helped */
    assert_int_equal(loop->poll_ns, 4000);
    loop_learn_from_wait(loop, 15000);
    assert_int_equal(loop->poll_ns, 8000);
    loop_learn_from_wait(loop, 7000); /* it helped */
    assert_int_equal(loop->poll_ns, 8000);
    loop_learn_from_wait(loop, 15000);
    loop_learn_from_wait(loop, 17000);
    assert_int_equal(loop->poll_ns, 20000); /* not more */
    loop_learn_from_wait(loop, 30000);      /* a rest */
    assert_int_equal(loop->poll_ns, 0);
    loop_set_polling(loop, &(struct loop_polling){.max_ns = 20000, .grow = 3, .shrink = 4});
    loop_learn_from_wait(loop, 15000);
    loop_learn_from_wait(loop, 15000);
    assert_int_equal(loop->poll_ns, 12000);
    loop_learn_from_wait(loop, 30000);
    assert_int_equal(loop->poll_ns, 3000);
    loop_free(loop);
}

static void set_polling(void *arg)
{
    loop_set_polling(loop_current(), arg);
}

static int call_a_polling_loop(void *arg)
{
    struct loop_thread *thread = new_thread();
    struct loop_polling polling = {.max_ns = 1000000};
    int count = 0;
    struct visit visit = {.count = &count};
    co_call_on(loop_thread_loop(thread), set_polling, &polling);
    for (int i = 0; i < 2000; i++) {
        co_call_on(loop_thread_loop(thread), note, &visit);
        if (i % 100 == 0)
            spend(2000000); /* it goes to sleep */
    }
    assert_int_equal(count, 2000);
    loop_thread_free(thread);
    return 0;
}

static void a_loop_that_polls_misses_nothing(void **state)
{
    run_on_loop(state, call_a_polling_loop, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(a_call_runs_on_the_other_loop),           ON_EVERY_LOOP(many_calls_at_once_all_arrive),
        ON_EVERY_LOOP(cancelling_the_caller_cancels_the_call),  ON_EVERY_LOOP(a_late_cancellation_hits_nobody),
        ON_EVERY_LOOP(a_stream_moves_to_another_loop_and_back), ON_REAL_LOOPS(the_time_to_look_is_learned),
        ON_REAL_LOOPS(a_loop_that_polls_misses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
