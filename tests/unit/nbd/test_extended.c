/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: extended headers: lengths of 64 bits, every reply with the long head, payloads of block status;
 * contexts for dirty bitmaps and allocation depth, in both kinds of headers. */
#include "tests/unit/nbd/client.h"

#include "block/dirty_bitmap.h"

struct reply {
    uint16_t flags, type;
    uint64_t cookie, offset, length;
    uint8_t data[4096];
};

static void put_extended(struct stream *client, uint16_t flags, uint16_t type, uint64_t offset, uint64_t length)
{
    uint8_t wire[NBD_EXTENDED_REQUEST_SIZE];
    store_be32(wire, NBD_EXTENDED_REQUEST_MAGIC);
    store_be16(wire + 4, flags);
    store_be16(wire + 6, type);
    store_be64(wire + 8, 0xc00c1e);
    store_be64(wire + 16, offset);
    store_be64(wire + 24, length);
    put(client, wire, sizeof wire);
}

static void get_extended(struct stream *client, struct reply *reply)
{
    uint8_t head[NBD_EXTENDED_CHUNK_SIZE];
    get(client, head, sizeof head);
    assert_int_equal(load_be32(head), NBD_EXTENDED_REPLY_MAGIC);
    *reply = (struct reply){.flags = load_be16(head + 4),
                            .type = load_be16(head + 6),
                            .cookie = load_be64(head + 8),
                            .offset = load_be64(head + 16),
                            .length = load_be64(head + 24)};
    assert_int_equal(reply->cookie, 0xc00c1e);
    assert_true(reply->length <= sizeof reply->data);
    if (reply->length)
        get(client, reply->data, reply->length);
}

/* The error of a request that returns no data. */
static uint32_t run_extended(struct stream *client, uint16_t flags, uint16_t type, uint64_t offset, uint64_t length)
{
    struct reply reply;
    put_extended(client, flags, type, offset, length);
    get_extended(client, &reply);
    assert_int_equal(reply.flags, NBD_REPLY_FLAG_DONE);
    assert_int_equal(reply.offset, offset);
    if (reply.type == NBD_REPLY_TYPE_NONE)
        return 0;
    assert_int_equal(reply.type, NBD_REPLY_TYPE_ERROR);
    return load_be32(reply.data);
}

static void leave(struct stream *client)
{
    put_extended(client, 0, NBD_CMD_DISC, 0, 0);
    expect_hang_up(client);
}

static struct stream *begin_extended(struct world *world, unsigned count, const char *const *queries)
{
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    uint8_t data[512];
    unsigned found;
    assert_int_equal(ask(client, NBD_OPT_EXTENDED_HEADERS, "x", 1, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0, NULL), NBD_REP_ACK);
    assert_int_equal(ask(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0, NULL), NBD_REP_ERR_INVALID);
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ERR_EXT_HEADER_REQD);
    if (count) {
        uint32_t length = context_data(data, "disk", count, queries);
        assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
        assert_int_equal(found, count);
    }
    struct option_answer answer;
    put_option(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL));
    assert_int_equal(get_answer(client, NBD_OPT_GO, &answer), NBD_REP_INFO);
    bool has_payload_flag = load_be16(answer.data + 10) & NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    assert_true(has_payload_flag == (count > 0));
    assert_int_equal(get_answer(client, NBD_OPT_GO, &answer), NBD_REP_ACK);
    return client;
}

static void commands(struct world *world)
{
    struct stream *client = begin_extended(world, 0, NULL);
    struct reply reply;
    uint8_t data[512];
    memset(data, 'e', sizeof data);
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN | NBD_CMD_FLAG_FUA, NBD_CMD_WRITE, 4096, sizeof data);
    put(client, data, sizeof data);
    get_extended(client, &reply);
    assert_true(reply.type == NBD_REPLY_TYPE_NONE && reply.flags == NBD_REPLY_FLAG_DONE && !reply.length);
    put_extended(client, 0, NBD_CMD_READ, 4096, sizeof data);
    get_extended(client, &reply);
    assert_int_equal(reply.type, NBD_REPLY_TYPE_OFFSET_DATA);
    assert_int_equal(reply.offset, 4096);
    assert_int_equal(reply.length, 8 + sizeof data);
    assert_memory_equal(reply.data + 8, data, sizeof data);
    assert_int_equal(run_extended(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    assert_int_equal(run_extended(client, 0, NBD_CMD_WRITE_ZEROES, 0, DISK_SIZE), 0);
    assert_int_equal(run_extended(client, 0, NBD_CMD_TRIM, 0, DISK_SIZE), 0);
    assert_int_equal(world->memory->data[4096], 0);

    /* Lengths that do not fit 32 bits, or the disk. */
    assert_int_equal(run_extended(client, 0, NBD_CMD_READ, 0, 1ull << 32), NBD_EINVAL);
    assert_int_equal(run_extended(client, 0, NBD_CMD_WRITE_ZEROES, 0, 1ull << 40), NBD_ENOSPC);
    assert_int_equal(run_extended(client, 0, NBD_CMD_TRIM, 4096, UINT64_MAX), NBD_EINVAL);
    assert_int_equal(run_extended(client, 0, NBD_CMD_WRITE_ZEROES, UINT64_MAX, UINT64_MAX), NBD_ENOSPC);
    /* A write without its payload, a payload without a use: read over, refused, and we stay in step. */
    assert_int_equal(run_extended(client, 0, NBD_CMD_WRITE, 0, 512), NBD_EINVAL);
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ, 0, sizeof data);
    put(client, data, sizeof data);
    get_extended(client, &reply);
    assert_true(reply.type == NBD_REPLY_TYPE_ERROR && load_be32(reply.data) == NBD_EINVAL);
    assert_int_equal(run_extended(client, 0, NBD_CMD_BLOCK_STATUS, 0, 512), NBD_EINVAL); /* no context */
    assert_int_equal(run_extended(client, 0, 99, 0, 512), NBD_EINVAL);
    assert_int_equal(run_extended(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    leave(client);

    client = begin_extended(world, 0, NULL);
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, 0, 1ull << 33); /* nobody takes such a payload */
    expect_hang_up(client);
    client = begin_extended(world, 0, NULL);
    put_request(client, 0, NBD_CMD_READ, 1, 0, 512); /* a compact request: short, then with the wrong magic */
    put(client, "....", 4);
    expect_hang_up(client);
}
WORLD_TEST(commands)

static void refuses_export_name(struct world *world)
{
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    assert_int_equal(ask(client, NBD_OPT_EXTENDED_HEADERS, NULL, 0, NULL), NBD_REP_ACK);
    put_option(client, NBD_OPT_EXPORT_NAME, "disk", 4);
    expect_hang_up(client);
}
WORLD_TEST(refuses_export_name)

/* Contexts -------------------------------------------------------------------------------------------------------- */

static const char *const all_contexts[] = {"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0",
                                           "qemu:dirty-bitmap:b1"};

/* The world's export is replaced by one with everything: two bitmaps with something dirty in them. */
static void offer_everything(struct world *world)
{
    static const struct nbd_bitmap_option bitmaps[] = {{NULL, "b0"}, {"disk", "b1"}};
    const struct nbd_export_options options = {
        .name = "disk", .writable = true, .allocation_depth = true, .bitmaps = bitmaps, .n_bitmaps = 2};
    struct node *node = world->edge->child;
    close_export_of(world);
    struct dirty_bitmap *b0 = dirty_bitmap_new(node, "b0", 65536, NULL), *b1 = dirty_bitmap_new(node, "b1", 4096, NULL);
    dirty_bitmap_set(b0, 65536, 65536);
    dirty_bitmap_set(b1, 8192, 4096);
    struct error err = {0};
    world->export = nbd_export_new(world->server, &options, world->edge, &err);
    assert_null(err.message);
    assert_int_equal(b0->busy, 1);
    assert_int_equal(b1->busy, 1);
}

static void lists_contexts(struct world *world)
{
    static const struct {
        const char *query;
        unsigned listed, set;
    } queries[] = {{"base:", 1, 0},
                   {"qemu:", 3, 0},
                   {"qemu:dirty-bitmap:", 2, 0},
                   {"qemu:dirty-bitmap:b0", 1, 1},
                   {"qemu:dirty-bitmap:b", 0, 0},
                   {"qemu:allocation-depth", 1, 1},
                   {"q", 0, 0}};
    offer_everything(world);
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    uint8_t data[512];
    unsigned found;
    uint32_t length = context_data(data, "disk", 0, NULL);
    assert_int_equal(ask(client, NBD_OPT_LIST_META_CONTEXT, data, length, &found), NBD_REP_ACK);
    assert_int_equal(found, 4);
    for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
        length = context_data(data, "disk", 1, &queries[i].query);
        assert_int_equal(ask(client, NBD_OPT_LIST_META_CONTEXT, data, length, &found), NBD_REP_ACK);
        assert_int_equal(found, queries[i].listed);
        assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, &found), NBD_REP_ACK);
        assert_int_equal(found, queries[i].set);
    }
    hang_up(client);
    wait_for_no_connection(world);
    struct node *node = world->edge->child;
    close_export_of(world);
    assert_int_equal(dirty_bitmap_find(node, "b0")->busy, 0);
}
WORLD_TEST(lists_contexts)

static void expect_extents(const struct reply *reply, uint32_t id, unsigned count, const uint64_t *expected)
{
    assert_int_equal(reply->type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
    assert_int_equal(load_be32(reply->data), id);
    assert_int_equal(load_be32(reply->data + 4), count);
    assert_int_equal(reply->length, 8 + 16 * count);
    for (unsigned i = 0; i < 2 * count; i++)
        assert_int_equal(load_be64(reply->data + 8 + 8 * i), expected[i]);
}

static void status_of_all(struct world *world)
{
    offer_everything(world);
    struct stream *client = begin_extended(world, 4, all_contexts);
    struct reply reply;
    put_extended(client, 0, NBD_CMD_BLOCK_STATUS, 0, DISK_SIZE);
    get_extended(client, &reply);
    assert_int_equal(load_be32(reply.data), 1);
    get_extended(client, &reply);
    expect_extents(&reply, 2, 1, (const uint64_t[]){DISK_SIZE, 1});
    get_extended(client, &reply);
    expect_extents(&reply, 3, 3, (const uint64_t[]){65536, 0, 65536, 1, DISK_SIZE - 131072, 0});
    assert_int_equal(reply.flags, 0);
    get_extended(client, &reply);
    expect_extents(&reply, 4, 3, (const uint64_t[]){8192, 0, 4096, 1, DISK_SIZE - 12288, 0});
    assert_int_equal(reply.flags, NBD_REPLY_FLAG_DONE);
    /* One extent of each, not longer than asked for. */
    put_extended(client, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 8192, 1000);
    for (int i = 0; i < 4; i++)
        get_extended(client, &reply);
    expect_extents(&reply, 4, 1, (const uint64_t[]){1000, 1});
    /* A write is seen at once. */
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_WRITE, 1 << 20, 4);
    put(client, "here", 4);
    get_extended(client, &reply);
    put_extended(client, 0, NBD_CMD_BLOCK_STATUS, 1 << 20, 8192);
    for (int i = 0; i < 4; i++)
        get_extended(client, &reply);
    expect_extents(&reply, 4, 2, (const uint64_t[]){4096, 1, 4096, 0});
    leave(client);
}
WORLD_TEST(status_of_all)

static void put_filtered(struct stream *client, uint64_t effect, unsigned count, const uint32_t *ids, unsigned extra)
{
    uint8_t payload[64] = {0};
    store_be64(payload, effect);
    for (unsigned i = 0; i < count; i++)
        store_be32(payload + 8 + 4 * i, ids[i]);
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_BLOCK_STATUS, 0, 8 + 4 * count + extra);
    put(client, payload, 8 + 4 * count + extra);
}

static void filtered_status(struct world *world)
{
    offer_everything(world);
    struct stream *client = begin_extended(world, 4, all_contexts);
    struct reply reply;
    put_filtered(client, DISK_SIZE, 2, (const uint32_t[]){4, 2}, 0);
    get_extended(client, &reply);
    expect_extents(&reply, 4, 3, (const uint64_t[]){8192, 0, 4096, 1, DISK_SIZE - 12288, 0});
    get_extended(client, &reply);
    expect_extents(&reply, 2, 1, (const uint64_t[]){DISK_SIZE, 1});
    assert_int_equal(reply.flags, NBD_REPLY_FLAG_DONE);
    static const struct {
        uint64_t effect;
        unsigned count, extra;
        uint32_t ids[5];
    } wrong[] = {{4096, 0, 0, {0}},          {4096, 1, 0, {5}},       {4096, 1, 0, {0}},
                 {4096, 2, 0, {1, 1}},       {4096, 1, 3, {1}},       {0, 1, 0, {1}},
                 {DISK_SIZE + 1, 1, 0, {1}}, {UINT64_MAX, 1, 0, {1}}, {4096, 5, 0, {1, 2, 3}}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        put_filtered(client, wrong[i].effect, wrong[i].count, wrong[i].ids, wrong[i].extra);
        get_extended(client, &reply);
        assert_int_equal(reply.type, NBD_REPLY_TYPE_ERROR);
        assert_int_equal(load_be32(reply.data), NBD_EINVAL);
    }
    put_extended(client, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_BLOCK_STATUS, 0, 3); /* too short for anything */
    put(client, "abc", 3);
    get_extended(client, &reply);
    assert_int_equal(reply.type, NBD_REPLY_TYPE_ERROR);
    assert_int_equal(run_extended(client, 0, NBD_CMD_FLUSH, 0, 0), 0); /* in step */
    leave(client);
}
WORLD_TEST(filtered_status)

/* The same contexts for a client that knows structured replies only. */
static void structured_status(struct world *world)
{
    offer_everything(world);
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    uint8_t data[512], extents[4 + 24];
    assert_int_equal(ask(client, NBD_OPT_STRUCTURED_REPLY, NULL, 0, NULL), NBD_REP_ACK);
    uint32_t length = context_data(data, "disk", 1, all_contexts + 2);
    assert_int_equal(ask(client, NBD_OPT_SET_META_CONTEXT, data, length, NULL), NBD_REP_ACK);
    assert_int_equal(ask(client, NBD_OPT_GO, data, info_data(data, "disk", 0, NULL), NULL), NBD_REP_ACK);
    put_request(client, 0, NBD_CMD_BLOCK_STATUS, 3, 0, 1 << 20);
    struct chunk chunk = get_chunk(client);
    assert_true(chunk.type == NBD_REPLY_TYPE_BLOCK_STATUS && chunk.length == sizeof extents);
    get(client, extents, sizeof extents);
    const uint32_t expected[] = {3, 65536, 0, 65536, 1, (1 << 20) - 131072, 0};
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
        assert_int_equal(load_be32(extents + 4 * i), expected[i]);
    hang_up(client);
}
WORLD_TEST(structured_status)

static void refuses_bitmaps(struct world *world)
{
    struct nbd_bitmap_option bitmaps[] = {{NULL, "b0"}, {NULL, "b0"}};
    struct nbd_export_options options = {.name = "other", .bitmaps = bitmaps, .n_bitmaps = 1, .writable = true};
    struct error err = {0};
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    assert_non_null(strstr(err.message, "bitmap 'b0' is not found"));
    error_clear(&err);
    struct dirty_bitmap *b0 = dirty_bitmap_new(world->edge->child, "b0", 0, NULL);
    b0->recording = true;
    options.writable = false;
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    assert_non_null(strstr(err.message, "disable it first"));
    error_clear(&err);
    options.writable = true;
    options.n_bitmaps = 2;
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    error_clear(&err);
    assert_int_equal(b0->busy, 0);
    bitmaps[0].node = "nowhere";
    assert_null(nbd_export_new(world->server, &options, world->edge, &err));
    error_clear(&err);
}
WORLD_TEST(refuses_bitmaps)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_commands),        ON_EVERY_LOOP(test_refuses_export_name),
        ON_EVERY_LOOP(test_lists_contexts),  ON_EVERY_LOOP(test_status_of_all),
        ON_EVERY_LOOP(test_filtered_status), ON_EVERY_LOOP(test_structured_status),
        ON_EVERY_LOOP(test_refuses_bitmaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
