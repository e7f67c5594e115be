/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: clients together make the server hold data without bound, or those that stall starve the
 * others. */
#include "tests/unit/nbd/client.h"

enum { LARGE = 2 << 20, ROOM = 2 * LARGE }; /* LARGE is more than a connection's own */
#define STALL_NS 100000000ull

static void make_small(struct world *world)
{
    world->server->room.free_bytes = ROOM;
    world->server->room.stall_ns = STALL_NS;
}

static void put_head(struct stream *client)
{
    put_request(client, 0, NBD_CMD_WRITE, 1, 0, LARGE);
}

static void put_payload(struct stream *client)
{
    uint8_t *data = xcalloc(LARGE, 1);
    put(client, data, LARGE);
    free(data);
}

static void expect_all_given_back(struct world *world)
{
    wait_for_no_connection(world);
    assert_int_equal(world->server->room.free_bytes, ROOM);
    assert_int_equal(world->server->room.kept_bytes, 0);
    assert_true(list_empty(&world->server->room.waiting));
}

/* Two hold all the room and send nothing. Small requests do not wait; a large one waits until one of the two is hung up
 * on, and not longer. */
static void stalled_are_hung_up_on(struct world *world)
{
    make_small(world);
    struct stream *first = begin(world, false, false), *second = begin(world, false, false);
    struct stream *good = begin(world, false, false), *small = begin(world, false, false);
    put_head(first);
    co_sleep_ns(10000000);
    put_head(second);
    co_sleep_ns(10000000);
    assert_int_equal(world->server->room.free_bytes, 0);
    put_head(good);
    co_sleep_ns(10000000);
    assert_false(list_empty(&world->server->room.waiting));
    for (int i = 0; i < 10; i++)
        assert_int_equal(run_request(small, 0, NBD_CMD_FLUSH, 0, 0), 0);
    uint8_t data[512] = {0};
    put_request(small, 0, NBD_CMD_WRITE, 7, 0, sizeof data);
    put(small, data, sizeof data);
    assert_int_equal(get_result(small, 7), 0);
    assert_false(list_empty(&world->server->room.waiting));

    put_payload(good);
    assert_int_equal(get_result(good, 1), 0);
    expect_hang_up(first);
    put_payload(second); /* as there is room again, it may take its time */
    assert_int_equal(get_result(second, 1), 0);
    hang_up(second);
    hang_up(good);
    hang_up(small);
    expect_all_given_back(world);
}
WORLD_TEST(stalled_are_hung_up_on)

/* While there is room for all, a client may take as long as it likes. */
static void slow_is_no_crime(struct world *world)
{
    make_small(world);
    struct stream *slow = begin(world, false, false), *other = begin(world, false, false);
    put_head(slow);
    co_sleep_ns(2 * STALL_NS);
    put_head(other);
    put_payload(other);
    assert_int_equal(get_result(other, 1), 0);
    co_sleep_ns(2 * STALL_NS);
    put_payload(slow);
    assert_int_equal(get_result(slow, 1), 0);
    hang_up(slow);
    hang_up(other);
    expect_all_given_back(world);
}
WORLD_TEST(slow_is_no_crime)

/* Replies that nobody reads hold room as well, and a client that leaves the line lets the next one pass. */
static void leave_the_line(struct world *world)
{
    make_small(world);
    world->server->room.stall_ns = 1000 * STALL_NS;
    struct stream *deaf[2], *leaves = begin(world, false, false), *next = begin(world, false, false);
    for (int i = 0; i < 2; i++) {
        deaf[i] = begin(world, false, false);
        put_request(deaf[i], 0, NBD_CMD_READ, 1, 0, LARGE);
    }
    co_sleep_ns(20000000);
    assert_int_equal(world->server->room.free_bytes, 0);
    put_request(leaves, 0, NBD_CMD_READ, 1, 0, LARGE);
    co_sleep_ns(10000000);
    put_head(next);
    co_sleep_ns(10000000);
    assert_ptr_equal(list_first(&world->server->room.waiting, struct nbd_request, link)->type, NBD_CMD_READ);
    stream_close(leaves);
    stream_close(deaf[0]);
    put_payload(next); /* the room was first had by the read that nobody waits for any more */
    assert_int_equal(get_result(next, 1), 0);
    hang_up(next);
    stream_close(deaf[1]);
    expect_all_given_back(world);
}
WORLD_TEST(leave_the_line)

/* An export that goes does not wait for room that is never given back. */
static void export_goes_with_a_line(struct world *world)
{
    make_small(world);
    world->server->room.stall_ns = 1000 * STALL_NS;
    struct stream *clients[5];
    for (int i = 0; i < 5; i++) {
        clients[i] = begin(world, false, false);
        if (i % 2)
            put_head(clients[i]);
        else
            put_request(clients[i], 0, NBD_CMD_READ, 1, 0, LARGE);
    }
    co_sleep_ns(20000000);
    assert_int_equal(world->server->room.free_bytes, 0);
    close_export_of(world);
    for (int i = 0; i < 5; i++)
        stream_close(clients[i]);
    expect_all_given_back(world);
}
WORLD_TEST(export_goes_with_a_line)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_stalled_are_hung_up_on),
        ON_EVERY_LOOP(test_slow_is_no_crime),
        ON_EVERY_LOOP(test_leave_the_line),
        ON_EVERY_LOOP(test_export_goes_with_a_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
