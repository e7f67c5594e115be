/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: locks let two in, wake out of order or starve writers; semaphores miscount; groups do not wait.
 */
#include "tests/unit/base/loops.h"

#include "base/rng.h"

struct shop {
    struct co_mutex lock, second;
    struct co_rwlock rwlock;
    struct co_semaphore semaphore;
    struct co_queue queue;
    int inside, most_inside, done, next_ticket, served;
    struct rng rng;
};

static void shop_init(struct shop *shop)
{
    *shop = (struct shop){0};
    co_mutex_init(&shop->lock);
    co_mutex_init(&shop->second);
    co_rwlock_init(&shop->rwlock);
    co_semaphore_init(&shop->semaphore, 3);
    co_queue_init(&shop->queue);
    rng_seed(&shop->rng, 5);
}

static void spawn_and_wait(struct shop *shop, void (*fn)(void *), int count)
{
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < count; i++)
        co_spawn(loop_current(), &group, fn, shop);
    co_group_wait(&group);
    assert_int_equal(shop->done, count);
}

static void enter(struct shop *shop, int limit)
{
    shop->inside++;
    assert_true(shop->inside <= limit);
    shop->most_inside = MAX(shop->most_inside, shop->inside);
    co_yield ();
    if (rng_coin(&shop->rng))
        co_sleep_ns(1000);
    shop->inside--;
}

static void mutex_customer(void *arg)
{
    struct shop *shop = arg;
    for (int i = 0; i < 20; i++) {
        int ticket = shop->next_ticket++; /* no yield between this and the lock: tickets are the order of arrival */
        with_co_lock (&shop->lock) {
            assert_int_equal(shop->served++, ticket);
            with_co_lock (&shop->second)
                enter(shop, 1);
        }
    }
    shop->done++;
}

static int mutex_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    spawn_and_wait(&shop, mutex_customer, 10);
    assert_null(shop.lock.owner);
    return 0;
}

static void mutex_is_exclusive_and_fair(void **state)
{
    run_on_loop(state, mutex_main, NULL);
}

static bool return_from_within(struct shop *shop)
{
    with_co_lock (&shop->lock) {
        assert_ptr_equal(shop->lock.owner, co_self());
        return true;
    }
    return false;
}

static int scope_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    assert_true(return_from_within(&shop));
    assert_null(shop.lock.owner);
    int rounds = 0;
    with_co_lock (&shop.lock)
        rounds++;
    assert_int_equal(rounds, 1);
    for (int i = 0; i < 3; i++)
        with_co_lock (&shop.lock) {
            if (i == 1)
                break; /* leaves the block, not the outer loop */
            rounds++;
        }
    assert_int_equal(rounds, 3);
    assert_null(shop.lock.owner);
    return 0;
}

static void lock_scope_ends_by_return_and_break(void **state)
{
    run_on_loop(state, scope_main, NULL);
}

static void reader_or_writer(void *arg)
{
    struct shop *shop = arg;
    for (int i = 0; i < 30; i++) {
        if (rng_below(&shop->rng, 4)) {
            co_rwlock_read(&shop->rwlock);
            assert_false(shop->rwlock.writer);
            enter(shop, 20);
        } else {
            co_rwlock_write(&shop->rwlock);
            assert_int_equal(shop->rwlock.readers, 0);
            enter(shop, 1);
        }
        co_rwlock_unlock(&shop->rwlock);
    }
    shop->done++;
}

static int rwlock_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    spawn_and_wait(&shop, reader_or_writer, 20);
    assert_true(shop.most_inside > 1); /* readers did share */
    assert_int_equal(shop.rwlock.readers, 0);
    assert_false(shop.rwlock.writer);
    return 0;
}

static void rwlock_shares_and_excludes(void **state)
{
    run_on_loop(state, rwlock_main, NULL);
}

static void writer(void *arg)
{
    struct shop *shop = arg;
    co_rwlock_write(&shop->rwlock);
    shop->served = 1;
    co_rwlock_unlock(&shop->rwlock);
}

static void late_reader(void *arg)
{
    struct shop *shop = arg;
    co_rwlock_read(&shop->rwlock);
    assert_int_equal(shop->served, 1); /* the writer was first */
    co_rwlock_unlock(&shop->rwlock);
}

static int starve_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    co_rwlock_read(&shop.rwlock);
    struct co_group group;
    co_group_init(&group);
    co_spawn(loop_current(), &group, writer, &shop);
    while (list_empty(&shop.rwlock.waiters))
        co_yield ();
    co_spawn(loop_current(), &group, late_reader, &shop);
    for (int i = 0; i < 5; i++)
        co_yield ();
    assert_int_equal(shop.served, 0);
    co_rwlock_unlock(&shop.rwlock);
    co_group_wait(&group);
    return 0;
}

static void rwlock_does_not_starve_writers(void **state)
{
    run_on_loop(state, starve_main, NULL);
}

static void semaphore_customer(void *arg)
{
    struct shop *shop = arg;
    for (int i = 0; i < 10; i++) {
        co_semaphore_acquire(&shop->semaphore);
        enter(shop, 3);
        co_semaphore_release(&shop->semaphore);
    }
    shop->done++;
}

static int semaphore_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    spawn_and_wait(&shop, semaphore_customer, 10);
    assert_int_equal(shop.most_inside, 3);
    assert_int_equal(shop.semaphore.available, 3);
    return 0;
}

static void semaphore_limits(void **state)
{
    run_on_loop(state, semaphore_main, NULL);
}

static void queue_customer(void *arg)
{
    struct shop *shop = arg;
    int ticket = shop->next_ticket++;
    assert_int_equal(co_queue_wait(&shop->queue), 0);
    assert_int_equal(shop->served++, ticket);
    shop->done++;
}

static int queue_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    assert_false(co_queue_wake_one(&shop.queue));
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 5; i++)
        co_spawn(loop_current(), &group, queue_customer, &shop);
    while (shop.next_ticket < 5)
        co_yield ();
    assert_true(co_queue_wake_one(&shop.queue));
    while (shop.done < 1)
        co_yield ();
    co_yield ();
    assert_int_equal(shop.done, 1);
    shop.served = 1;
    /* In simulation the woken run in any order, so wake them one by one. */
    while (shop.done < 5) {
        int before = shop.done;
        co_queue_wake_one(&shop.queue);
        while (shop.done == before)
            co_yield ();
    }
    co_group_wait(&group);
    return 0;
}

static void queue_wakes_in_order(void **state)
{
    run_on_loop(state, queue_main, NULL);
}

static void wake_all_later(void *arg)
{
    struct shop *shop = arg;
    co_sleep_ns(2000000);
    co_queue_wake_all(&shop->queue);
}

static int queue_timeout_main(void *arg)
{
    struct shop shop;
    shop_init(&shop);
    struct loop *loop = loop_current();
    uint64_t before = loop_now_ns(loop);
    assert_int_equal(co_queue_wait_ns(&shop.queue, 3000000), -ETIMEDOUT);
    assert_true(loop_now_ns(loop) - before >= 3000000);
    assert_true(list_empty(&shop.queue.waiters));
    co_spawn(loop, NULL, wake_all_later, &shop);
    assert_int_equal(co_queue_wait_ns(&shop.queue, 60000000000), 0);
    assert_true(loop_now_ns(loop) - before < 60000000000);
    return 0;
}

static void queue_wait_times_out(void **state)
{
    run_on_loop(state, queue_timeout_main, NULL);
}

static int empty_group_main(void *arg)
{
    struct co_group group;
    co_group_init(&group);
    co_group_wait(&group); /* nobody: at once */
    return 0;
}

static void empty_group_does_not_wait(void **state)
{
    run_on_loop(state, empty_group_main, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(mutex_is_exclusive_and_fair),
        ON_EVERY_LOOP(lock_scope_ends_by_return_and_break),
        ON_EVERY_LOOP(rwlock_shares_and_excludes),
        ON_EVERY_LOOP(rwlock_does_not_starve_writers),
        ON_EVERY_LOOP(semaphore_limits),
        ON_EVERY_LOOP(queue_wakes_in_order),
        ON_EVERY_LOOP(queue_wait_times_out),
        ON_EVERY_LOOP(empty_group_does_not_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
