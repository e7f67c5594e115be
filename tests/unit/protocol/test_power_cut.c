/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: what was flushed, or written with FUA, is not there after a power cut; or the simulated disk
 * keeps everything anyway, and the test proves nothing. */
#include "tests/unit/base/loops.h"

#include <stdio.h>
#include "base/sim.h"
#include "block/request.h"
#include "protocol/table.h"
#include "qmp/schema/types.h"

#define BLOCK 4096
#define BLOCKS 64

enum promise { NOTHING, WRITTEN, DURABLE };

struct run {
    struct loop *loop;
    enum promise promises[BLOCKS];
    unsigned lost; /* written blocks without a promise that the power cut took */
};

static struct edge *open_disk(struct graph *graph)
{
    auto_error err = {0};
    struct blockdev_options *options = NULL;
    assert_true(blockdev_options_from_keyval("driver=file,filename=disk", NULL, &options, &err));
    struct node *node = node_open(graph, options, &err);
    assert_non_null(node);
    struct edge *edge =
        edge_attach(NULL, "test", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, &err);
    assert_non_null(edge);
    node_unref(node);
    blockdev_options_free(options);
    return edge;
}

static int write_some(void *arg)
{
    struct run *run = arg;
    struct graph *graph = graph_new(run->loop, protocol_table);
    struct edge *edge = open_disk(graph);
    uint8_t block[BLOCK];
    for (int i = 0; i < BLOCKS; i++) {
        memset(block, i + 1, sizeof block);
        uint32_t flags = i % 5 == 1 ? REQUEST_FUA : 0;
        assert_int_equal(block_write_buffer(edge, (uint64_t)i * BLOCK, block, sizeof block, flags), 0);
        run->promises[i] = flags ? DURABLE : WRITTEN;
        if (i == 20) {
            assert_int_equal(block_flush(edge), 0);
            for (int k = 0; k <= i; k++)
                run->promises[k] = DURABLE;
        }
    }
    sim_crash(run->loop, sim_random(run->loop, 1000)); /* before closing, which flushes */
    assert_int_not_equal(block_read_buffer(edge, 0, block, sizeof block), 0);
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

static int check_what_is_left(void *arg)
{
    struct run *run = arg;
    struct graph *graph = graph_new(run->loop, protocol_table);
    struct edge *edge = open_disk(graph);
    for (int i = 0; i < BLOCKS; i++) {
        uint8_t block[BLOCK], expected[BLOCK];
        memset(expected, i + 1, sizeof expected);
        assert_int_equal(block_read_buffer(edge, (uint64_t)i * BLOCK, block, sizeof block), 0);
        if (run->promises[i] == DURABLE)
            assert_memory_equal(block, expected, sizeof block);
        else
            run->lost += memcmp(block, expected, sizeof block) != 0;
    }
    edge_detach(edge);
    graph_free(graph);
    return 0;
}

static void promises_are_kept(void **state)
{
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct error err = {0};
        struct run run = {.loop = loop_new(LOOP_SIMULATED, seed, &err)};
        static const uint8_t empty[BLOCKS * BLOCK];
        sim_file_put(run.loop, "disk", empty, sizeof empty);
        assert_int_equal(loop_run_main(run.loop, write_some, &run), 0);
        assert_int_equal(loop_run_main(run.loop, check_what_is_left, &run), 0);
        loop_free(run.loop);
        lost += run.lost;
    }
    assert_true(lost > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(promises_are_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
