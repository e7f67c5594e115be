/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: what NBD commands do and how they are answered: data, holes, block status, flags, errors. */
#include "tests/unit/nbd/client.h"

static void expect_bytes(const uint8_t *data, size_t size, int byte)
{
    for (size_t i = 0; i < size; i++)
        assert_int_equal(data[i], byte);
}

static void read_and_write(struct world *world)
{
    struct stream *client = begin(world, false, false);
    uint8_t data[3000], head[NBD_SIMPLE_REPLY_SIZE];
    assert_int_equal(run_write(client, 0, 1234567, sizeof data, 'w'), 0);
    assert_int_equal(world->memory->fua_writes, 0);
    expect_bytes(world->memory->data + 1234567, sizeof data, 'w');
    put_request(client, 0, NBD_CMD_READ, 5, 1234567, sizeof data);
    get(client, head, sizeof head);
    assert_int_equal(load_be32(head), NBD_SIMPLE_REPLY_MAGIC);
    assert_int_equal(load_be32(head + 4), 0);
    assert_int_equal(load_be64(head + 8), 5);
    get(client, data, sizeof data);
    expect_bytes(data, sizeof data, 'w');
    assert_int_equal(run_write(client, NBD_CMD_FLAG_FUA, DISK_SIZE - 1, 1, 'f'), 0);
    assert_int_equal(world->memory->fua_writes + world->memory->flushes, 1);
    assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    assert_true(world->memory->flushes >= 1);
    hang_up(client);
}
WORLD_TEST(read_and_write)

static void structured_read(struct world *world)
{
    struct stream *client = begin(world, true, false);
    memset(world->memory->data + 4096, 'r', 512);
    uint8_t data[512], offset[8];
    put_request(client, NBD_CMD_FLAG_DF, NBD_CMD_READ, 11, 4096, 512);
    struct chunk chunk = get_chunk(client);
    assert_int_equal(chunk.type, NBD_REPLY_TYPE_OFFSET_DATA);
    assert_int_equal(chunk.flags, NBD_REPLY_FLAG_DONE);
    assert_int_equal(chunk.cookie, 11);
    assert_int_equal(chunk.length, 8 + 512);
    get(client, offset, sizeof offset);
    assert_int_equal(load_be64(offset), 4096);
    get(client, data, sizeof data);
    expect_bytes(data, sizeof data, 'r');
    hang_up(client);
}
WORLD_TEST(structured_read)

static void zero_trim_cache(struct world *world)
{
    struct stream *client = begin(world, true, false);
    struct memory *memory = world->memory;
    memset(memory->data, 'x', 65536);
    assert_int_equal(run_request(client, NBD_CMD_FLAG_FUA, NBD_CMD_WRITE_ZEROES, 0, 4096), 0);
    expect_bytes(memory->data, 4096, 0);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(run_request(client, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_WRITE_ZEROES, 4096, 4096), 0);
    expect_bytes(memory->data + 4096, 4096, 0);
    assert_int_equal(run_request(client, 0, NBD_CMD_TRIM, 8192, 4096), 0);
    assert_int_equal(memory->last_discard, 8192);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(run_request(client, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, 8192, 4096), 0);
    assert_int_equal(memory->flushes, 2);
    assert_int_equal(run_request(client, 0, NBD_CMD_CACHE, 0, 65536), 0);
    /* A fast zero that would be slow is refused, and has done nothing. */
    memory->refuse_zero = true;
    memset(memory->data, 'y', 4096);
    assert_int_equal(run_request(client, NBD_CMD_FLAG_FAST_ZERO, NBD_CMD_WRITE_ZEROES, 0, 4096), NBD_ENOTSUP);
    expect_bytes(memory->data, 4096, 'y');
    assert_int_equal(run_request(client, 0, NBD_CMD_WRITE_ZEROES, 0, 4096), 0);
    expect_bytes(memory->data, 4096, 0);
    hang_up(client);
}
WORLD_TEST(zero_trim_cache)

static void errors(struct world *world)
{
    for (int structured = 0; structured < 2; structured++) {
        struct stream *client = begin(world, structured, false);
        const struct {
            uint16_t flags, type;
            uint64_t offset;
            uint32_t length, error;
        } cases[] = {
            {0, NBD_CMD_READ, DISK_SIZE, 1, NBD_EINVAL},
            {0, NBD_CMD_READ, DISK_SIZE - 1, 2, NBD_EINVAL},
            {0, NBD_CMD_READ, UINT64_MAX, 2, NBD_EINVAL},
            {0, NBD_CMD_READ, 0, NBD_MAX_PAYLOAD + 1, NBD_EINVAL},
            {0, NBD_CMD_READ, 0, 0, NBD_EINVAL},
            {NBD_CMD_FLAG_FUA, NBD_CMD_READ, 0, 512, NBD_EINVAL},
            {0x8000, NBD_CMD_FLUSH, 0, 0, NBD_EINVAL},
            {0, NBD_CMD_WRITE_ZEROES, DISK_SIZE - 1, 2, NBD_ENOSPC},
            {0, NBD_CMD_TRIM, DISK_SIZE - 1, 2, NBD_EINVAL},
            {0, NBD_CMD_CACHE, UINT64_MAX, UINT32_MAX, NBD_EINVAL},
            {0, NBD_CMD_BLOCK_STATUS, 0, 4096, NBD_EINVAL}, /* no context was negotiated */
            {0, 9, 0, 0, NBD_EINVAL},
            {0, 0xffff, 0, 0, NBD_EINVAL},
        };
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
            assert_int_equal(run_request(client, cases[i].flags, cases[i].type, cases[i].offset, cases[i].length),
                             cases[i].error);
        if (!structured)
            assert_int_equal(run_request(client, NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, 512), NBD_EINVAL);
        assert_int_equal(run_write(client, 0, DISK_SIZE - 1, 2, 0), NBD_ENOSPC);
        assert_int_equal(run_write(client, NBD_CMD_FLAG_DF, 0, 512, 0), NBD_EINVAL);
        assert_int_equal(run_write(client, 0, 0, 0, 0), 0); /* nothing to do is no error */
        assert_int_equal(world->memory->writes, 0);
        /* The disk's own errors, on both shapes of reply. */
        world->memory->fail_next = -ENOSPC;
        assert_int_equal(run_write(client, 0, 0, 512, 0), NBD_ENOSPC);
        world->memory->fail_next = -EIO;
        assert_int_equal(run_request(client, 0, NBD_CMD_READ, 0, 512), NBD_EIO);
        world->memory->fail_next = -EIO;
        assert_int_equal(run_request(client, 0, NBD_CMD_READ, 0, 65536), NBD_EIO);
        assert_int_equal(run_write(client, 0, 0, 512, 0), 0);
        world->memory->fail_next = -ENOTCONN; /* has no number on the wire */
        assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), NBD_EIO);
        world->memory->writes = 0;
        hang_up(client);
    }
}
WORLD_TEST(errors)

/* A write that is too long is skipped as a whole: the next request is understood. */
static void oversize_write(struct world *world)
{
    struct stream *client = begin(world, false, false);
    size_t size = NBD_MAX_PAYLOAD + 4096;
    uint8_t *data = xcalloc(1, size);
    put_request(client, 0, NBD_CMD_WRITE, 1, 0, (uint32_t)size);
    put(client, data, size);
    free(data);
    assert_int_equal(get_result(client, 1), NBD_EINVAL);
    assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    hang_up(client);
}
WORLD_TEST(oversize_write)

/* Many writes in one send, payloads cut anywhere: the receive buffer's borders do not matter. */
static void batches(struct world *world)
{
    struct stream *client = begin(world, false, false);
    const uint32_t sizes[] = {1, 511, 4096, 5000, 65536 - 28, 65536, 70000, 300000, 28, 3};
    size_t total = 0, at = 0;
    for (size_t i = 0; i < 60; i++)
        total += NBD_REQUEST_SIZE + sizes[i % ARRAY_SIZE(sizes)];
    uint8_t *wire = xmalloc(total);
    uint64_t offset = 0;
    for (size_t i = 0; i < 60; i++) {
        uint32_t size = sizes[i % ARRAY_SIZE(sizes)];
        store_be32(wire + at, NBD_REQUEST_MAGIC);
        store_be16(wire + at + 4, 0);
        store_be16(wire + at + 6, NBD_CMD_WRITE);
        store_be64(wire + at + 8, i);
        store_be64(wire + at + 16, offset);
        store_be32(wire + at + 24, size);
        memset(wire + at + 28, (int)(i + 1), size);
        at += 28 + size;
        offset += size;
    }
    put(client, wire, total);
    free(wire);
    bool seen[60] = {0};
    for (size_t i = 0; i < 60; i++) {
        uint8_t head[NBD_SIMPLE_REPLY_SIZE];
        get(client, head, sizeof head);
        assert_int_equal(load_be32(head + 4), 0);
        assert_true(load_be64(head + 8) < 60 && !seen[load_be64(head + 8)]);
        seen[load_be64(head + 8)] = true;
    }
    offset = 0;
    for (size_t i = 0; i < 60; i++) {
        uint32_t size = sizes[i % ARRAY_SIZE(sizes)];
        assert_int_equal(world->memory->data[offset], i + 1);
        assert_int_equal(world->memory->data[offset + size - 1], i + 1);
        offset += size;
    }
    hang_up(client);
}
WORLD_TEST(batches)

static void read_only_export(struct world *world)
{
    const struct nbd_export_options options = {"ro", NULL, false, false};
    struct nbd_export *export = nbd_export_new(world->server, &options, world->edge, NULL);
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    put_option(client, NBD_OPT_EXPORT_NAME, "ro", 2);
    uint8_t answer[10];
    get(client, answer, sizeof answer);
    assert_true(load_be16(answer + 8) & NBD_FLAG_READ_ONLY);
    assert_false(load_be16(answer + 8) & (NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES));
    assert_int_equal(run_write(client, 0, 0, 512, 1), NBD_EPERM);
    assert_int_equal(run_request(client, 0, NBD_CMD_TRIM, 0, 512), NBD_EPERM);
    assert_int_equal(run_request(client, 0, NBD_CMD_WRITE_ZEROES, 0, 512), NBD_EPERM);
    assert_int_equal(run_request(client, 0, NBD_CMD_FLUSH, 0, 0), 0);
    hang_up(client);
    nbd_export_free(export);
}
WORLD_TEST(read_only_export)

static void writethrough_export(struct world *world)
{
    const struct nbd_export_options options = {"wt", NULL, true, true};
    struct nbd_export *export = nbd_export_new(world->server, &options, world->edge, NULL);
    struct stream *client = greet(world, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    put_option(client, NBD_OPT_EXPORT_NAME, "wt", 2);
    uint8_t answer[10];
    get(client, answer, sizeof answer);
    assert_int_equal(run_write(client, 0, 0, 512, 1), 0);
    assert_int_equal(world->memory->fua_writes + world->memory->flushes, 1);
    assert_int_equal(run_request(client, 0, NBD_CMD_TRIM, 0, 512), 0);
    assert_int_equal(world->memory->fua_writes + world->memory->flushes, 2);
    hang_up(client);
    nbd_export_free(export);
}
WORLD_TEST(writethrough_export)

/* Holes: a mapper of 4 KiB clusters, of which some are written. -----------------------------------------------------
 */

static void open_sparse(struct world *world)
{
    open_world(world, "driver=qcow2,node-name=map,file=disk,cache-size=33554432", (struct nbd_server_limits){0}, true);
    assert_int_equal(write_pattern(world->edge, 2 * 4096, 4096, 'a'), 0);
    assert_int_equal(write_pattern(world->edge, 3 * 4096, 4096, 'b'), 0);
    assert_int_equal(block_zero(world->edge, 5 * 4096, 4096, 0), 0);
}

static int sparse_read(void *arg)
{
    struct world world;
    open_sparse(&world);
    struct stream *client = begin(&world, true, false);
    uint8_t fields[12], *data = xmalloc(65536);
    put_request(client, 0, NBD_CMD_READ, 1, 0, 65536);
    uint64_t at = 0;
    static const struct {
        uint16_t type;
        uint32_t length;
    } expected[] = {{NBD_REPLY_TYPE_OFFSET_HOLE, 8192},
                    {NBD_REPLY_TYPE_OFFSET_DATA, 8192},
                    {NBD_REPLY_TYPE_OFFSET_HOLE, 65536 - 16384}};
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        struct chunk chunk = get_chunk(client);
        assert_int_equal(chunk.type, expected[i].type);
        assert_int_equal(chunk.flags, i == 2 ? NBD_REPLY_FLAG_DONE : 0);
        bool hole = chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE;
        assert_int_equal(chunk.length, hole ? 12 : 8 + expected[i].length);
        get(client, fields, hole ? 12 : 8);
        assert_int_equal(load_be64(fields), at);
        if (hole)
            assert_int_equal(load_be32(fields + 8), expected[i].length);
        else
            get(client, data, expected[i].length);
        at += expected[i].length;
    }
    expect_bytes(data, 4096, 'a');
    expect_bytes(data + 4096, 4096, 'b');
    /* Asked not to be fragmented, it is one piece with zeroes in it. */
    put_request(client, NBD_CMD_FLAG_DF, NBD_CMD_READ, 2, 0, 65536);
    struct chunk chunk = get_chunk(client);
    assert_int_equal(chunk.length, 8 + 65536);
    get(client, fields, 8);
    get(client, data, 65536);
    expect_bytes(data, 8192, 0);
    expect_bytes(data + 8192, 4096, 'a');
    expect_bytes(data + 16384, 4096, 0);
    free(data);
    hang_up(client);
    close_world(&world);
    return 0;
}

/* So many pieces that the reply is longer than one batch of the sender, while others are in flight. */
static int many_pieces(void *arg)
{
    struct world world;
    open_sparse(&world);
    for (unsigned i = 0; i < 1024; i += 2)
        assert_int_equal(write_pattern(world.edge, 4 * MiB + i * 4096, 4096, 'c'), 0);
    struct stream *client = begin(&world, true, true);
    uint8_t *data = xmalloc(4 * MiB);
    for (unsigned request = 0; request < 4; request++)
        put_request(client, 0, NBD_CMD_READ, request, 4 * MiB, 4 * MiB);
    put_request(client, 0, NBD_CMD_BLOCK_STATUS, 9, 4 * MiB, 4 * MiB);
    uint64_t covered[4] = {0};
    unsigned extents = 0;
    for (unsigned done = 0; done < 5;) {
        struct chunk chunk = get_chunk(client);
        done += chunk.flags & NBD_REPLY_FLAG_DONE;
        if (chunk.type == NBD_REPLY_TYPE_BLOCK_STATUS) {
            extents = (chunk.length - 4) / 8;
            get(client, data, chunk.length);
            continue;
        }
        uint8_t fields[12];
        bool hole = chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE;
        get(client, fields, hole ? 12 : 8);
        assert_int_equal(load_be64(fields), 4 * MiB + covered[chunk.cookie]);
        uint32_t length = hole ? load_be32(fields + 8) : chunk.length - 8;
        if (!hole)
            get(client, data, length);
        covered[chunk.cookie] += length;
    }
    for (unsigned request = 0; request < 4; request++)
        assert_int_equal(covered[request], 4 * MiB);
    assert_int_equal(extents, 1024);
    free(data);
    hang_up(client);
    close_world(&world);
    return 0;
}

static uint32_t get_status(struct stream *client, uint64_t cookie, uint8_t *descriptors)
{
    uint8_t id[4];
    struct chunk chunk = get_chunk(client);
    assert_int_equal(chunk.type, NBD_REPLY_TYPE_BLOCK_STATUS);
    assert_int_equal(chunk.cookie, cookie);
    get(client, id, sizeof id);
    assert_int_equal(load_be32(id), NBD_CONTEXT_ALLOCATION + 1);
    get(client, descriptors, chunk.length - 4);
    return (chunk.length - 4) / 8;
}

static int status_of_blocks(void *arg)
{
    struct world world;
    open_sparse(&world);
    struct stream *client = begin(&world, true, true);
    uint8_t descriptors[800];
    put_request(client, 0, NBD_CMD_BLOCK_STATUS, 1, 0, 65536);
    assert_int_equal(get_status(client, 1, descriptors), 3);
    assert_int_equal(load_be32(descriptors), 8192);
    assert_int_equal(load_be32(descriptors + 4), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(load_be32(descriptors + 8), 8192);
    assert_int_equal(load_be32(descriptors + 12), 0);
    assert_int_equal(load_be32(descriptors + 16), 65536 - 16384);
    put_request(client, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_BLOCK_STATUS, 2, 4096, 65536);
    assert_int_equal(get_status(client, 2, descriptors), 1);
    assert_int_equal(load_be32(descriptors), 4096);
    put_request(client, 0, NBD_CMD_BLOCK_STATUS, 3, 3 * 4096 + 1, 1); /* unaligned */
    assert_int_equal(get_status(client, 3, descriptors), 1);
    assert_int_equal(load_be32(descriptors), 1);
    assert_int_equal(run_request(client, 0, NBD_CMD_BLOCK_STATUS, 0, 0), NBD_EINVAL);
    assert_int_equal(run_request(client, 0, NBD_CMD_BLOCK_STATUS, 32 * MiB, 1), NBD_EINVAL);
    hang_up(client);
    close_world(&world);
    return 0;
}

static void test_sparse_read(void **state)
{
    run_on_loop(state, sparse_read, NULL);
}

static void test_many_pieces(void **state)
{
    run_on_loop(state, many_pieces, NULL);
}

static void test_status_of_blocks(void **state)
{
    run_on_loop(state, status_of_blocks, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_EVERY_LOOP(test_read_and_write),   ON_EVERY_LOOP(test_structured_read),
        ON_EVERY_LOOP(test_zero_trim_cache),  ON_EVERY_LOOP(test_errors),
        ON_EVERY_LOOP(test_oversize_write),   ON_EVERY_LOOP(test_batches),
        ON_EVERY_LOOP(test_read_only_export), ON_EVERY_LOOP(test_writethrough_export),
        ON_EVERY_LOOP(test_sparse_read),      ON_EVERY_LOOP(test_many_pieces),
        ON_EVERY_LOOP(test_status_of_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
