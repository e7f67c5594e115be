/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: connections, exports and servers that end while requests are in flight, clients that send and
 * do not read, many clients: memory is used after it was freed, requests are lost, or something waits for ever. */
#include <malloc.h>
#include "tests/unit/nbd/client.h"

/* 64 writes are on their way when the export goes. All of them end before it does, and the client is hung up on. */
static void export_goes(struct world *world)
{
    struct stream *client = begin(world, true, false);
    uint8_t data[512] = {1};
    world->memory->delay_ns = 20000000;
    for (unsigned i = 0; i < 64; i++) {
        put_request(client, 0, NBD_CMD_WRITE, i, i * 4096, sizeof data);
        put(client, data, sizeof data);
    }
    co_sleep_ns(5000000);
    assert_true(world->memory->writes > 0);
    close_export_of(world);
    unsigned writes = world->memory->writes;
    co_sleep_ns(50000000);
    assert_int_equal(world->memory->writes, writes);
    stream_close(client);
    assert_true(list_empty(&world->server->connections));
}
WORLD_TEST(export_goes)

/* The client goes: what it asked for is carried out all the same, and nothing is left of it. */
static void client_goes(struct world *world)
{
    struct stream *client = begin(world, true, false);
    uint8_t data[512];
    memset(data, 'd', sizeof data);
    world->memory->delay_ns = 10000000;
    for (unsigned i = 0; i < 64; i++) {
        put_request(client, 0, NBD_CMD_WRITE, i, i * 4096, sizeof data);
        put(client, data, sizeof data);
    }
    while (world->memory->writes < 64)
        co_sleep_ns(1000000);
    stream_close(client);
    wait_for_no_connection(world);
    for (unsigned i = 0; i < 64; i++)
        assert_int_equal(world->memory->data[i * 4096 + 511], 'd');
    assert_int_equal(world->export->connections, 0);
}
WORLD_TEST(client_goes)

/* A client says it disconnects behind its requests: they are answered first. */
static void disconnect_behind_requests(struct world *world)
{
    struct stream *client = begin(world, false, false);
    world->memory->delay_ns = 10000000;
    for (unsigned i = 0; i < 16; i++)
        put_request(client, 0, NBD_CMD_FLUSH, i, 0, 0);
    put_request(client, 0, NBD_CMD_DISC, 99, 0, 0);
    for (unsigned i = 0; i < 16; i++) {
        uint8_t head[NBD_SIMPLE_REPLY_SIZE];
        get(client, head, sizeof head);
        assert_int_equal(load_be32(head + 4), 0);
    }
    expect_hang_up(client);
}
WORLD_TEST(disconnect_behind_requests)

/* The server goes while clients are in the middle of a request's payload, of the handshake, and of a reply. */
static void server_goes(struct world *world)
{
    struct stream *in_payload = begin(world, false, false), *in_handshake = connect_to(world);
    struct stream *in_option = greet(world, 3), *in_reply = begin(world, false, false);
    uint8_t half[256] = {0};
    put_request(in_payload, 0, NBD_CMD_WRITE, 1, 0, 512);
    put(in_payload, half, sizeof half);
    put(in_option, half, 8);
    for (unsigned i = 0; i < 64; i++)
        put_request(in_reply, 0, NBD_CMD_READ, i, 0, 1 << 20); /* nobody reads: the sender is stuck */
    co_sleep_ns(20000000);
    close_export_of(world);
    nbd_server_free(world->server);
    world->server = nbd_server_new(world->loop, NULL, &(struct nbd_server_limits){0}, NULL);
    stream_close(in_payload);
    stream_close(in_handshake);
    stream_close(in_option);
    stream_close(in_reply);
}
WORLD_TEST(server_goes)

/* A client that sends and never reads is held to the limits; others are served meanwhile. */
struct flood {
    struct stream *client;
    bool ended;
};

static void send_forever(void *arg)
{
    struct flood *flood = arg;
    uint8_t wire[NBD_REQUEST_SIZE];
    store_be32(wire, NBD_REQUEST_MAGIC);
    store_be16(wire + 4, 0);
    store_be16(wire + 6, NBD_CMD_READ);
    store_be64(wire + 16, 0);
    store_be32(wire + 24, 1 << 20);
    while (stream_send_all(flood->client, wire, sizeof wire) == 0)
        ;
    flood->ended = true;
}

static void greedy_client(struct world *world)
{
    struct flood flood = {.client = begin(world, false, false)};
    struct co_group group;
    co_group_init(&group);
    co_spawn(world->loop, &group, send_forever, &flood);
    struct stream *other = begin(world, false, false);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(run_request(other, 0, NBD_CMD_FLUSH, 0, 0), 0);
        co_sleep_ns(2000000);
        struct nbd_connection *connection;
        list_for_each (connection, &world->server->connections, link) {
            assert_true(connection->in_flight <= NBD_MAX_IN_FLIGHT);
            assert_true(connection->in_flight_bytes <= NBD_MAX_IN_FLIGHT_BYTES);
        }
    }
    hang_up(other);
    co_group_cancel(&group);
    stream_shutdown(flood.client);
    co_group_wait(&group);
    stream_close(flood.client);
    wait_for_no_connection(world);
}
WORLD_TEST(greedy_client)

/* Buffers of a burst of large requests do not stay for ever. */
static void burst_leaves_little(struct world *world)
{
    struct stream *client = begin(world, false, false);
    uint8_t *data = xmalloc(256 << 10), head[NBD_SIMPLE_REPLY_SIZE];
    for (unsigned i = 0; i < 64; i++)
        put_request(client, 0, NBD_CMD_READ, i, 0, 256 << 10);
    for (unsigned i = 0; i < 64; i++) {
        get(client, head, sizeof head);
        get(client, data, 256 << 10);
    }
    free(data);
    assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    struct nbd_connection *connection = list_first(&world->server->connections, struct nbd_connection, link);
    assert_true(connection->kept_bytes <= NBD_KEPT_BYTES);
    hang_up(client);
}
WORLD_TEST(burst_leaves_little)

/* An export is deleted while a client does not take the answer to NBD_OPT_INFO. */
static void ask_forever(void *arg)
{
    struct flood *flood = arg;
    uint8_t wire[NBD_OPTION_SIZE + 64];
    const uint16_t requests[] = {NBD_INFO_NAME, NBD_INFO_DESCRIPTION};
    uint32_t length = info_data(wire + NBD_OPTION_SIZE, "disk", 2, requests);
    store_be64(wire, NBD_OPTION_MAGIC);
    store_be32(wire + 8, NBD_OPT_INFO);
    store_be32(wire + 12, length);
    while (stream_send_all(flood->client, wire, NBD_OPTION_SIZE + length) == 0)
        ;
    flood->ended = true;
}

static void export_goes_in_negotiation(struct world *world)
{
    struct flood flood = {.client = greet(world, 3)};
    struct co_group group;
    co_group_init(&group);
    co_spawn(world->loop, &group, ask_forever, &flood);
    co_sleep_ns(50000000); /* both sides are stuck now */
    assert_false(flood.ended);
    close_export_of(world); /* hangs up on whoever is at it */
    co_group_wait(&group);
    stream_close(flood.client);
}
WORLD_TEST(export_goes_in_negotiation)

/* A thousand clients that sit there cost little each. */
enum { IDLE_CLIENTS = 1000 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
size_t __sanitizer_get_current_allocated_bytes(void);
static size_t heap_in_use(void)
{
    return __sanitizer_get_current_allocated_bytes();
}
#else
static size_t heap_in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}
#endif

static void idle_clients(struct world *world)
{
    struct stream **clients = new_array(struct stream *, IDLE_CLIENTS);
    struct stream *first = begin(world, true, false); /* what is made once is made now */
    size_t before = heap_in_use();
    for (int i = 0; i < IDLE_CLIENTS; i++) {
        clients[i] = begin(world, true, false);
        assert_int_equal(run_request(clients[i], 0, NBD_CMD_FLUSH, 0, 0), 0);
    }
    size_t each = (heap_in_use() - before) / IDLE_CLIENTS;
    print_message("heap of one idle client and its connection: %zu bytes\n", each);
    assert_true(each > 0 && each < 16384);
    for (int i = 0; i < IDLE_CLIENTS; i++)
        stream_close(clients[i]);
    free(clients);
    hang_up(first);
    wait_for_no_connection(world);
}
WORLD_TEST(idle_clients)

/* Slots are given back, whatever a connection comes to. */
static int limited(void *arg)
{
    struct world world;
    open_world(&world, NULL, (struct nbd_server_limits){.max_connections = 2}, true);
    for (int i = 0; i < 20; i++) {
        struct stream *a = begin(&world, false, false), *b = greet(&world, 3);
        assert_int_equal(world.server->free_slots.available, 0);
        stream_close(b);
        hang_up(a);
        wait_for_no_connection(&world);
    }
    assert_int_equal(world.server->free_slots.available, 2);
    close_world(&world);
    return 0;
}

static void test_limited(void **state)
{
    run_on_loop(state, limited, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_export_goes),
        ON_EVERY_LOOP(test_client_goes),
        ON_EVERY_LOOP(test_disconnect_behind_requests),
        ON_EVERY_LOOP(test_server_goes),
        ON_EVERY_LOOP(test_greedy_client),
        ON_EVERY_LOOP(test_burst_leaves_little),
        ON_EVERY_LOOP(test_export_goes_in_negotiation),
        ON_REAL_LOOPS(test_idle_clients),
        ON_EVERY_LOOP(test_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
