/* SPDX-License-Identifier: Apache-2.0 */
/* An NBD client that says exactly what a test wants it to say, and a server with one export over a disk in memory, both
 * on the loop at hand. */
#ifndef TESTS_UNIT_NBD_CLIENT_H
#define TESTS_UNIT_NBD_CLIENT_H

#include "tests/unit/block/memory.h"

#include "base/co.h"
#include "base/endian.h"
#include "base/stream.h"
#include "nbd/internal.h"
#include "tests/unit/base/loops.h"

#define DISK_SIZE (64 * MiB)

struct world {
    struct loop *loop;
    struct graph *graph;
    struct edge *edge;
    struct memory *memory;
    struct nbd_server *server;
    struct nbd_export *export;
};

static inline void open_world(struct world *world, const char *node, struct nbd_server_limits limits, bool writable)
{
    *world = (struct world){.loop = loop_current()};
    world->graph = graph_new(world->loop, test_drivers);
    struct node *disk = add_node(world->graph, "driver=null-co,node-name=disk,size=67108864,discard=unmap");
    world->memory = memory_of(disk);
    world->edge = use_node(node ? add_node(world->graph, node) : disk);
    world->server = nbd_server_new(world->loop, NULL, &limits, NULL);
    const struct nbd_export_options options = {"disk", "a disk in memory", writable, false};
    world->export = nbd_export_new(world->server, &options, world->edge, NULL);
    assert_non_null(world->export);
}

static inline void close_export_of(struct world *world)
{
    if (world->export)
        nbd_export_free(world->export);
    world->export = NULL;
}

static inline void close_world(struct world *world)
{
    close_export_of(world);
    nbd_server_free(world->server);
    edge_detach(world->edge);
    for (struct node *node; (node = graph_next(world->graph, NULL));) {
        while (!list_empty(&node->parents))
            node = list_first(&node->parents, struct edge, child_link)->parent;
        delete_node(world->graph, node->name);
    }
    graph_free(world->graph);
}

/* Every test is one function of a world, on every kind of loop. */
#define WORLD_TEST(name)                                                                                               \
    static int name##_main(void *arg)                                                                                  \
    {                                                                                                                  \
        struct world world;                                                                                            \
        (void)arg;                                                                                                     \
        open_world(&world, NULL, (struct nbd_server_limits){.handshake_seconds = 10}, true);                           \
        name(&world);                                                                                                  \
        close_world(&world);                                                                                           \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        run_on_loop(state, name##_main, NULL);                                                                         \
    }

static inline struct stream *connect_to(struct world *world)
{
    struct stream *pair[2];
    assert_true(stream_pair(world->loop, pair, NULL));
    nbd_server_serve(world->server, pair[0]);
    return pair[1];
}

static inline void put(struct stream *client, const void *data, size_t size)
{
    assert_int_equal(stream_send_all(client, data, size), 0);
}

static inline void get(struct stream *client, void *data, size_t size)
{
    assert_int_equal(stream_recv_all(client, data, size), 0);
}

static inline void expect_hang_up(struct stream *client)
{
    uint8_t byte;
    assert_true(stream_recv(client, &byte, 1) <= 0);
    stream_close(client);
}

/* The handshake --------------------------------------------------------------------------------------------------- */

static inline struct stream *greet(struct world *world, uint32_t flags)
{
    struct stream *client = connect_to(world);
    uint8_t greeting[18], answer[4];
    get(client, greeting, sizeof greeting);
    assert_true(load_be64(greeting) == NBD_MAGIC && load_be64(greeting + 8) == NBD_OPTION_MAGIC);
    assert_int_equal(load_be16(greeting + 16), NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    store_be32(answer, flags);
    put(client, answer, sizeof answer);
    return client;
}

static inline void put_option(struct stream *client, uint32_t number, const void *data, uint32_t length)
{
    uint8_t head[NBD_OPTION_SIZE];
    store_be64(head, NBD_OPTION_MAGIC);
    store_be32(head + 8, number);
    store_be32(head + 12, length);
    put(client, head, sizeof head);
    if (data && length)
        put(client, data, length);
}

struct option_answer {
    uint32_t type, length;
    uint8_t data[8192];
};

static inline uint32_t get_answer(struct stream *client, uint32_t number, struct option_answer *answer)
{
    uint8_t head[NBD_OPTION_REPLY_SIZE];
    get(client, head, sizeof head);
    assert_true(load_be64(head) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(load_be32(head + 8), number);
    answer->type = load_be32(head + 12);
    answer->length = load_be32(head + 16);
    assert_true(answer->length < sizeof answer->data);
    memset(answer->data, 0, sizeof answer->data);
    if (answer->length)
        get(client, answer->data, answer->length);
    return answer->type;
}

/* What an option is answered with in the end; pieces on the way are counted in *pieces when that is wanted. */
static inline uint32_t ask(struct stream *client, uint32_t number, const void *data, uint32_t length, unsigned *pieces)
{
    static const uint32_t last = 1u << 31;
    struct option_answer answer;
    unsigned count = 0;
    put_option(client, number, data, length);
    while (get_answer(client, number, &answer) != NBD_REP_ACK && !(answer.type & last))
        count++;
    if (pieces)
        *pieces = count;
    return answer.type;
}

/* Data of INFO and GO: a name and up to 8 information requests. */
static inline uint32_t info_data(uint8_t *data, const char *name, unsigned count, const uint16_t *requests)
{
    uint32_t length = (uint32_t)strlen(name);
    store_be32(data, length);
    memcpy(data + 4, name, length);
    store_be16(data + 4 + length, (uint16_t)count);
    for (unsigned i = 0; i < count; i++)
        store_be16(data + 6 + length + 2 * i, requests[i]);
    return 6 + length + 2 * count;
}

/* Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
static inline uint32_t context_data(uint8_t *data, const char *name, unsigned count, const char *const *queries)
{
    uint32_t length = (uint32_t)strlen(name), at = 8 + length;
    store_be32(data, length);
    memcpy(data + 4, name, length);
    store_be32(data + 4 + length, count);
    for (unsigned i = 0; i < count; i++) {
        uint32_t size = (uint32_t)strlen(queries[i]);
        store_be32(data + at, size);
        memcpy(data + at + 4, queries[i], size);
        at += 4 + size;
    }
    return at;
}

/* A client in transmission. */
static inline struct stream *begin(struct world *world, bool structured, bool contexts)
{
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    uint8_t data[256];
    if (structured)
        assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    if (contexts) {
        uint32_t length = context_data(data, "disk", 1, (const char *const[]){"base:allocation"});
        assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, NULL), NBD_REP_ACK);
    }
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    return client;
}

/* Transmission ---------------------------------------------------------------------------------------------------- */

static inline void put_request(struct stream *client, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                               uint32_t length)
{
    uint8_t wire[NBD_REQUEST_SIZE];
    store_be32(wire, NBD_REQUEST_MAGIC);
    store_be16(wire + 4, flags);
    store_be16(wire + 6, type);
    store_be64(wire + 8, cookie);
    store_be64(wire + 16, offset);
    store_be32(wire + 24, length);
    put(client, wire, sizeof wire);
}

/* The error of a reply without data, simple or structured. */
static inline uint32_t get_result(struct stream *client, uint64_t cookie)
{
    uint8_t head[NBD_CHUNK_SIZE], error[6];
    get(client, head, NBD_SIMPLE_REPLY_SIZE);
    assert_int_equal(load_be64(head + 8), cookie);
    if (load_be32(head) == NBD_SIMPLE_REPLY_MAGIC)
        return load_be32(head + 4);
    assert_int_equal(load_be32(head), NBD_STRUCTURED_REPLY_MAGIC);
    get(client, head + NBD_SIMPLE_REPLY_SIZE, NBD_CHUNK_SIZE - NBD_SIMPLE_REPLY_SIZE);
    assert_int_equal(load_be16(head + 4), NBD_REPLY_FLAG_DONE);
    assert_int_equal(load_be16(head + 6), NBD_REPLY_TYPE_ERROR);
    assert_int_equal(load_be32(head + 16), sizeof error);
    get(client, error, sizeof error);
    return load_be32(error);
}

static inline uint32_t run_request(struct stream *client, uint16_t flags, uint16_t type, uint64_t offset,
                                   uint32_t length)
{
    put_request(client, flags, type, 7, offset, length);
    return get_result(client, 7);
}

static inline uint32_t run_write(struct stream *client, uint16_t flags, uint64_t offset, uint32_t length, int byte)
{
    uint8_t *data = xmalloc(length + 1u);
    memset(data, byte, length);
    put_request(client, flags, NBD_CMD_WRITE, 9, offset, length);
    put(client, data, length);
    free(data);
    return get_result(client, 9);
}

/* One chunk's head; its payload is still to be read. */
struct chunk {
    uint16_t flags, type;
    uint64_t cookie;
    uint32_t length;
};
static inline struct chunk get_chunk(struct stream *client)
{
    uint8_t head[NBD_CHUNK_SIZE];
    get(client, head, sizeof head);
    assert_int_equal(load_be32(head), NBD_STRUCTURED_REPLY_MAGIC);
    return (struct chunk){load_be16(head + 4), load_be16(head + 6), load_be64(head + 8), load_be32(head + 16)};
}

static inline void hang_up(struct stream *client)
{
    put_request(client, 0, NBD_CMD_DISC, 0, 0, 0);
    expect_hang_up(client);
}

static inline void wait_for_no_connection(struct world *world)
{
    while (!list_empty(&world->server->connections))
        co_sleep_ns(1000000);
}

#endif
