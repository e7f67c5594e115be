/* SPDX-License-Identifier: Apache-2.0 */
/* If these fail, guest timers fire early, late or never, or time runs while the machine stands still. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/loop.h"
#include "emulator/clock/clock.h"
#include <cmocka.h>

#define MS 1000000ull

static void stop(void *arg)
{
    loop_stop(arg);
}
static void run_ms(struct loop *loop, unsigned ms)
{
    struct loop_timer timer = {.fn = stop, .arg = loop};
    loop_timer_arm(loop, &timer, loop_now_ns(loop) + ms * MS);
    loop_run(loop);
}

struct shot {
    struct clock *clock;
    struct clock_timer *timer;
    unsigned count;
    uint64_t at, again;
};
static void fire(void *arg)
{
    struct shot *shot = arg;
    shot->at = clock_now_ns(shot->clock);
    __atomic_fetch_add(&shot->count, 1, __ATOMIC_RELEASE);
    if (shot->again)
        clock_timer_arm(shot->timer, shot->at + shot->again);
}

static void test_time(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct clock *clock = clock_new(loop);
    assert_int_equal(clock_now_ns(clock), 0);
    usleep(2000);
    assert_int_equal(clock_now_ns(clock), 0);
    clock_start(clock);
    usleep(3000);
    uint64_t ran = clock_now_ns(clock);
    assert_true(ran >= 3 * MS);
    clock_stop(clock);
    uint64_t stopped = clock_now_ns(clock);
    usleep(20000);
    assert_int_equal(clock_now_ns(clock), stopped);
    clock_start(clock);
    assert_true(clock_now_ns(clock) < stopped + 15 * MS); /* it goes on where it stood */
    clock_free(clock);
    loop_free(loop);
}

static void test_timers(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct clock *clock = clock_new(loop);
    struct shot early = {clock}, late = {clock}, never = {clock}, often = {clock, .again = 2 * MS};
    struct shot *shots[] = {&early, &late, &never, &often};
    for (int i = 0; i < 4; i++)
        shots[i]->timer = clock_timer_new(clock, fire, shots[i]);
    clock_start(clock);
    uint64_t now = clock_now_ns(clock);
    clock_timer_arm(late.timer, now + 30 * MS);
    clock_timer_arm(early.timer, now + 200 * MS);
    clock_timer_arm(early.timer, now + 10 * MS); /* moved */
    clock_timer_arm(never.timer, now + 5 * MS);
    clock_timer_cancel(never.timer);
    clock_timer_arm(often.timer, now);
    run_ms(loop, 60);
    assert_int_equal(early.count, 1);
    assert_true(early.at >= now + 10 * MS);
    assert_int_equal(late.count, 1);
    assert_true(late.at >= now + 30 * MS && late.at < now + 60 * MS);
    assert_int_equal(never.count, 0);
    assert_true(often.count > 5);

    /* far beyond what nanoseconds can be added to */
    clock_timer_arm(never.timer, UINT64_MAX - 1);
    run_ms(loop, 5);
    assert_int_equal(never.count, 0);
    for (int i = 0; i < 4; i++)
        clock_timer_free(shots[i]->timer);
    clock_free(clock);
    loop_free(loop);
}

/* vCPU threads arm timers while the loop sleeps: it must hear of each, at once. */
struct armer {
    struct shot *shot;
    bool *done;
    struct loop *loop;
};
static void *arm_from_thread(void *arg)
{
    struct armer *armer = arg;
    for (int i = 0; i < 200; i++) {
        unsigned before = __atomic_load_n(&armer->shot->count, __ATOMIC_ACQUIRE);
        clock_timer_arm(armer->shot->timer, clock_now_ns(armer->shot->clock) + 100000);
        for (int tries = 0; tries < 20000 && __atomic_load_n(&armer->shot->count, __ATOMIC_ACQUIRE) == before; tries++)
            usleep(50);
        if (__atomic_load_n(&armer->shot->count, __ATOMIC_ACQUIRE) == before) {
            loop_stop(armer->loop);
            return NULL;
        }
    }
    *armer->done = true;
    loop_stop(armer->loop);
    return NULL;
}

static void test_arming_from_threads(void **state)
{
    struct error err = {0};
    struct loop *loop = loop_new(LOOP_AUTO, 0, &err);
    struct clock *clock = clock_new(loop);
    struct shot shot = {clock};
    bool done = false;
    struct armer armer = {&shot, &done, loop};
    pthread_t thread;
    shot.timer = clock_timer_new(clock, fire, &shot);
    clock_start(clock);
    pthread_create(&thread, NULL, arm_from_thread, &armer);
    loop_run(loop);
    pthread_join(thread, NULL);
    assert_true(done);
    clock_timer_free(shot.timer);
    clock_free(clock);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_time), cmocka_unit_test(test_timers),
                                       cmocka_unit_test(test_arming_from_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
