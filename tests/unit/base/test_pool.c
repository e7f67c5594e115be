/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: offloaded work is lost, runs on the wrong thread, or its result is not seen. Run it under TSan.
 */
#include "tests/unit/base/loops.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include "base/pool.h"

struct job {
    struct pool_work work;
    atomic_int *count;
};

static void count_up(void *arg)
{
    atomic_fetch_add(((struct job *)arg)->count, 1);
}

static void pool_finishes_what_was_submitted(void **state)
{
    atomic_int count = 0;
    struct job jobs[1000];
    struct pool *pool = pool_new(3);
    for (int i = 0; i < 1000; i++) {
        jobs[i] = (struct job){.work = {.fn = count_up, .arg = &jobs[i]}, .count = &count};
        pool_submit(pool, &jobs[i].work);
    }
    pool_free(pool);
    assert_int_equal(count, 1000);
    pool_free(pool_new(0)); /* never used: no thread */
}

struct sum {
    const unsigned char *data;
    size_t size;
    uint64_t result;
    pthread_t thread;
};

static void add_bytes(void *arg)
{
    struct sum *sum = arg;
    sum->thread = pthread_self();
    for (size_t i = 0; i < sum->size; i++)
        sum->result += sum->data[i];
}

static void offloader(void *arg)
{
    unsigned char data[1000];
    memset(data, 3, sizeof data);
    for (int i = 0; i < 50; i++) {
        struct sum sum = {.data = data, .size = sizeof data};
        co_offload(add_bytes, &sum);
        assert_int_equal(sum.result, 3000);
        assert_true(is_simulated() == (pthread_equal(sum.thread, pthread_self()) != 0));
    }
    ++*(int *)arg;
}

static int offload_main(void *arg)
{
    int done = 0;
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 40; i++)
        co_spawn(loop_current(), &group, offloader, &done);
    co_group_wait(&group);
    assert_int_equal(done, 40);
    return 0;
}

static void offload_returns_results(void **state)
{
    run_on_loop(state, offload_main, NULL);
}

static void slow(void *arg)
{
    usleep(20000);
    *(bool *)arg = true;
}

static void cancelled_offload(void *arg)
{
    bool finished = false;
    co_offload(slow, &finished);
    assert_true(finished); /* never abandoned: the work uses our stack */
    assert_true(co_cancelled());
}

static int cancel_main(void *arg)
{
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, cancelled_offload, NULL);
    co_yield ();
    co_group_cancel(&group);
    co_group_wait(&group);
    return 0;
}

static void offload_is_waited_out(void **state)
{
    run_on_loop(state, cancel_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_finishes_what_was_submitted),
        ON_EVERY_LOOP(offload_returns_results),
        ON_EVERY_LOOP(offload_is_waited_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
