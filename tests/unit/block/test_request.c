/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: the border of the block layer lets through what it must not, or changes bytes while padding,
 * splitting, zeroing, discarding or flushing. */
#include "tests/unit/block/memory.h"

#define SIZE (64 * KiB)

static int bounds(void *graph)
{
    struct edge *edge = use_node(add_node(graph, "driver=null-co,node-name=m,size=65536"));
    uint8_t byte = 1;
    assert_int_equal(block_read_buffer(edge, SIZE - 1, &byte, 1), 0);
    assert_int_equal(block_read_buffer(edge, SIZE, &byte, 1), -EIO);
    assert_int_equal(block_read_buffer(edge, SIZE - 1, &byte, 2), -EIO);
    assert_int_equal(block_read_buffer(edge, UINT64_MAX, &byte, 1), -EINVAL);
    assert_int_equal(block_write_buffer(edge, SIZE, &byte, 1, 0), -EIO);
    assert_int_equal(block_write_buffer(edge, UINT64_MAX, &byte, 1, 0), -EINVAL);
    assert_int_equal(block_zero(edge, SIZE - 1, 2, 0), -EIO);
    assert_int_equal(block_discard(edge, 1, SIZE), -EIO);
    assert_int_equal(block_read_buffer(edge, SIZE, &byte, 0), 0);
    struct memory *memory = memory_of(edge->child);
    assert_int_equal(memory->reads, 1);
    assert_int_equal(memory->writes + memory->zeroes + memory->discards, 0);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int permission_to_write(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct edge *reader = edge_attach(NULL, "reader", node, BLOCK_PERM_CONSISTENT_READ, BLOCK_PERM_ALL, NULL);
    uint8_t byte = 1;
    assert_int_equal(block_write_buffer(reader, 0, &byte, 1, 0), -EPERM);
    assert_int_equal(block_zero(reader, 0, 1, 0), -EPERM);
    assert_int_equal(block_discard(reader, 0, 1), -EPERM);
    edge_detach(reader);
    struct edge *edge = use_node(node);
    node_report_corruption(node, true, 0, 512, "test of a %s", "report");
    assert_int_equal(block_write_buffer(edge, 0, &byte, 1, 0), -EIO);
    assert_int_equal(block_read_buffer(edge, 0, &byte, 1), 0);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

/* Random unaligned requests from several coroutines, each in a stripe of its own that shares blocks with its
 * neighbours: only serialised read-modify-write keeps the stripes apart. */
struct stripes {
    struct edge *edge;
    uint8_t *oracle;
    struct loop *loop;
};
struct stripe {
    struct stripes *all;
    uint64_t start, length;
};

static void write_stripe(void *arg)
{
    struct stripe *stripe = arg;
    struct stripes *all = stripe->all;
    for (int i = 0; i < 60; i++) {
        uint64_t offset = stripe->start + sim_random(all->loop, stripe->length);
        uint64_t length = 1 + sim_random(all->loop, stripe->start + stripe->length - offset);
        int byte = (int)sim_random(all->loop, 256);
        memset(all->oracle + offset, byte, length);
        if (i % 7 == 6) {
            memset(all->oracle + offset, 0, length);
            assert_int_equal(block_zero(all->edge, offset, length, 0), 0);
        } else {
            assert_int_equal(write_pattern(all->edge, offset, length, byte), 0);
        }
    }
}

static int read_modify_write(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    node->limits.request_alignment = 512;
    node->limits.memory_alignment = 512;
    node->limits.max_transfer = 2048;
    memory_of(node)->delay_ns = 10000;
    struct stripes all = {use_node(node), xcalloc(1, SIZE), loop_current()};
    struct stripe stripes[8];
    struct co_group group;
    co_group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(stripes); i++) {
        stripes[i] = (struct stripe){&all, 100 + i * 777, 777};
        co_spawn(all.loop, &group, write_stripe, &stripes[i]);
    }
    co_group_wait(&group);
    assert_memory_equal(memory_of(node)->data, all.oracle, SIZE);
    assert_true(memory_of(node)->largest <= 2048);
    assert_true(list_empty(&node->tracked));
    assert_int_equal(node->serialising, 0);

    /* Reads of every alignment see the same bytes. */
    for (int i = 0; i < 200; i++) {
        uint8_t buffer[3000];
        uint64_t offset = sim_random(all.loop, 8000), length = 1 + sim_random(all.loop, sizeof buffer - 1);
        assert_int_equal(block_read_buffer(all.edge, offset, buffer, length), 0);
        assert_memory_equal(buffer, all.oracle + offset, length);
    }
    free(all.oracle);
    edge_detach(all.edge);
    delete_node(graph, "m");
    return 0;
}

static int scatter_lists(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    node->limits.request_alignment = 512;
    struct edge *edge = use_node(node);
    uint8_t pieces[5][1000];
    struct iovec iov[5];
    for (int i = 0; i < 5; i++) {
        memset(pieces[i], i + 1, sizeof pieces[i]);
        iov[i] = (struct iovec){pieces[i], sizeof pieces[i]};
    }
    assert_int_equal(block_write(edge, 10, 4000, buffers_skip(buffers_of(iov, 5), 500), 0), 0);
    const uint8_t *data = memory_of(node)->data;
    assert_int_equal(data[9], 0);
    assert_int_equal(data[10], 1);
    assert_int_equal(data[509], 1);
    assert_int_equal(data[510], 2);
    assert_int_equal(data[4009], 5);
    assert_int_equal(data[4010], 0);
    uint8_t back[4000];
    struct iovec halves[2] = {{back, 1}, {back + 1, sizeof back - 1}};
    assert_int_equal(block_read(edge, 10, sizeof back, buffers_of(halves, 2), 0), 0);
    assert_memory_equal(back, data + 10, sizeof back);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int flush_generations(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct memory *memory = memory_of(node);
    struct edge *edge = use_node(node);
    uint8_t bytes[4096] = {1};
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes,
                     1); /* another process may have left something in caches: the first is never free */
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 1); /* nothing was written */
    write_pattern(edge, 0, 512, 1);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 2);
    memory->fail_flush = -ENOSPC;
    write_pattern(edge, 0, 512, 1);
    assert_int_equal(block_flush(edge), -ENOSPC);
    assert_int_equal(block_flush(edge), -ENOSPC); /* still owed */
    assert_int_equal(node->stats.failed_flushes, 2);
    memory->fail_flush = 0;
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 5);
    memory->fail_next = -EIO;
    assert_int_equal(block_write_buffer(edge, 0, bytes, sizeof bytes, 0), -EIO);
    assert_int_equal(block_flush(edge), 0); /* a part of it may be there */
    assert_int_equal(memory->flushes, 6);
    memory->fail_next = -EIO;
    assert_int_equal(block_zero(edge, 0, 8192, 0), -EIO);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory->flushes, 7);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static void one_flush(void *arg)
{
    assert_int_equal(block_flush(arg), 0);
}

static int flushes_join(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct memory *memory = memory_of(node);
    struct edge *edge = use_node(node);
    write_pattern(edge, 0, 512, 1);
    memory->delay_ns = 1000000;
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 10; i++)
        co_spawn(loop_current(), &group, one_flush, edge);
    co_group_wait(&group);
    assert_int_equal(memory->flushes, 1);
    memory->delay_ns = 0;
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int fua(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct memory *memory = memory_of(node);
    struct edge *edge = use_node(node);
    uint8_t sector[512] = {1};
    assert_int_equal(block_write_buffer(edge, 0, sector, 512, REQUEST_FUA), 0);
    assert_int_equal(memory->fua_writes, 1);
    assert_int_equal(memory->flushes, 0);
    node->write_flags = 0; /* now it must be emulated */
    assert_int_equal(block_write_buffer(edge, 0, sector, 512, REQUEST_FUA), 0);
    assert_int_equal(memory->fua_writes, 1);
    assert_int_equal(memory->flushes, 1);
    assert_int_equal(block_zero(edge, 0, 512, REQUEST_FUA), 0);
    assert_int_equal(memory->flushes, 2);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int no_flush(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536,cache.no-flush=on");
    struct edge *edge = use_node(node);
    uint8_t sector[512] = {1};
    assert_int_equal(block_write_buffer(edge, 0, sector, 512, REQUEST_FUA), 0);
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(memory_of(node)->fua_writes + memory_of(node)->flushes, 0);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int zero_is_emulated(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=8M");
    struct memory *memory = memory_of(node);
    struct edge *edge = use_node(node);
    write_pattern(edge, 0, 4 * MiB, 7);
    node->limits.zero_alignment = 4096;
    node->limits.max_zero = 1 * MiB;
    memory->writes = 0;
    /* Both ends are written, the middle is zeroed in pieces. */
    assert_int_equal(block_zero(edge, 1000, 3 * MiB, 0), 0);
    assert_int_equal(memory->writes, 2);
    assert_int_equal(memory->zeroes, 3);
    assert_true(has_pattern(edge, 0, 1000, 7));
    assert_true(has_pattern(edge, 1000, 3 * MiB, 0));
    assert_true(has_pattern(edge, 1000 + 3 * MiB, 1000, 7));
    assert_int_equal(block_zero(edge, 1000, 3 * MiB, REQUEST_NO_FALLBACK), -ENOTSUP);

    memory->refuse_zero = true;
    assert_int_equal(block_zero(edge, 4096, 4096, REQUEST_NO_FALLBACK), -ENOTSUP);
    write_pattern(edge, 0, 4 * MiB, 7);
    assert_int_equal(block_zero(edge, 500, 2 * MiB + 1, 0), 0);
    assert_true(has_pattern(edge, 0, 500, 7));
    assert_true(has_pattern(edge, 500, 2 * MiB + 1, 0));
    assert_true(has_pattern(edge, 500 + 2 * MiB + 1, 5000, 7));
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

static int detect_zeroes(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536,detect-zeroes=on");
    struct memory *memory = memory_of(node);
    struct edge *edge = use_node(node);
    write_pattern(edge, 0, 8192, 3);
    assert_int_equal(write_pattern(edge, 4096, 4096, 0), 0);
    assert_int_equal(memory->writes, 1);
    assert_int_equal(memory->zeroes, 1);
    assert_true(has_pattern(edge, 0, 4096, 3));
    assert_true(has_pattern(edge, 4096, 4096, 0));
    uint8_t zeroes[512] = {0};
    assert_int_equal(block_write_buffer(edge, 0, zeroes, sizeof zeroes, REQUEST_FUA), 0);
    assert_int_equal(memory->flushes, 1); /* the write that became a zero request is durable all the same */
    edge_detach(edge);
    delete_node(graph, "m");
    free(add_fails(graph, "driver=null-co,node-name=m,size=65536,detect-zeroes=unmap"));
    return 0;
}

static int discard_is_a_hint(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=ignoring,size=65536");
    struct edge *edge = use_node(node);
    assert_int_equal(block_discard(edge, 0, 65536), 0);
    assert_int_equal(memory_of(node)->discards, 0);
    edge_detach(edge);

    node = add_node(graph, "driver=null-co,node-name=m,size=65000,discard=unmap");
    node->limits.discard_alignment = 4096;
    edge = use_node(node);
    assert_int_equal(block_discard(edge, 100, 10000), 0);
    assert_int_equal(memory_of(node)->last_discard, 4096);
    assert_int_equal(memory_of(node)->last_discard_length, 4096);
    assert_int_equal(block_discard(edge, 4095, 3), 0); /* nothing whole is left */
    assert_int_equal(memory_of(node)->discards, 1);
    assert_int_equal(block_discard(edge, 60000, 5000), 0); /* up to the end, as it is */
    assert_int_equal(memory_of(node)->last_discard, 61440);
    assert_int_equal(memory_of(node)->last_discard_length, 3560);
    edge_detach(edge);
    delete_node(graph, "ignoring");
    delete_node(graph, "m");
    return 0;
}

static int accounting(void *graph)
{
    struct node *node = add_node(graph, "driver=null-co,node-name=m,size=65536,discard=unmap");
    struct edge *edge = use_node(node);
    write_pattern(edge, 512, 1024, 1);
    has_pattern(edge, 0, 100, 0);
    memory_of(node)->fail_next = -EIO;
    assert_int_equal(write_pattern(edge, 0, 10, 1), -EIO);
    memory_of(node)->fail_next = -ENOMEM;
    assert_false(has_pattern(edge, 0, 10, 0));
    block_zero(edge, 0, 512, 0);
    block_discard(edge, 0, 4096);
    const struct block_stats *stats = &node->stats;
    assert_int_equal(stats->write_bytes, 1024);
    assert_int_equal(stats->write_operations, 1);
    assert_int_equal(stats->failed_writes, 1);
    assert_int_equal(stats->read_bytes, 100);
    assert_int_equal(stats->failed_reads, 1);
    assert_int_equal(stats->zero_bytes, 512);
    assert_int_equal(stats->discard_bytes, 4096);
    assert_int_equal(stats->highest_write_offset, 1536);
    assert_int_equal(node->in_flight, 0);
    edge_detach(edge);
    delete_node(graph, "m");
    return 0;
}

SIMULATED(bounds)
SIMULATED(permission_to_write)
SIMULATED(scatter_lists)
SIMULATED(flush_generations)
SIMULATED(flushes_join)
SIMULATED(fua)
SIMULATED(no_flush)
SIMULATED(zero_is_emulated)
SIMULATED(detect_zeroes)
SIMULATED(discard_is_a_hint)
SIMULATED(accounting)

static void read_modify_write_in_any_order(void **state)
{
    for (uint64_t seed = 0; seed < 20; seed++)
        run_simulated(read_modify_write, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_simulated),
        cmocka_unit_test(permission_to_write_simulated),
        cmocka_unit_test(read_modify_write_in_any_order),
        cmocka_unit_test(scatter_lists_simulated),
        cmocka_unit_test(flush_generations_simulated),
        cmocka_unit_test(flushes_join_simulated),
        cmocka_unit_test(fua_simulated),
        cmocka_unit_test(no_flush_simulated),
        cmocka_unit_test(zero_is_emulated_simulated),
        cmocka_unit_test(detect_zeroes_simulated),
        cmocka_unit_test(discard_is_a_hint_simulated),
        cmocka_unit_test(accounting_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
