/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: the data loops of image formats read from the wrong layer, lose old bytes around a write, or
 * report a wrong block status. */
#include "tests/unit/block/memory.h"

#define DISK (96 * KiB)

struct chain {
    struct node *base_file, *base, *top_file, *top;
    struct edge *edge;
    uint8_t *oracle;
    struct loop *loop;
};

/* top (96 KiB) over base (50000 bytes, so that it ends inside a cluster). */
static void make_chain(struct graph *graph, struct chain *chain)
{
    chain->loop = loop_current();
    chain->oracle = xcalloc(1, DISK);
    chain->base_file = add_node(graph, "driver=null-co,node-name=base-file,size=1M");
    chain->base = add_node(graph, "driver=qcow2,node-name=base,file=base-file,cache-size=50000");
    struct edge *writer = use_node(chain->base);
    for (uint64_t at = 0; at < 50000; at += 3 * TOY_CLUSTER) {
        size_t length = MIN(50000 - at, 2 * TOY_CLUSTER);
        memset(chain->oracle + at, (int)(at / TOY_CLUSTER) + 1, length);
        assert_int_equal(write_pattern(writer, at, length, (int)(at / TOY_CLUSTER) + 1), 0);
    }
    edge_detach(writer);
    chain->top_file = add_node(graph, "driver=null-co,node-name=top-file,size=1M");
    chain->top = add_node(graph, "driver=qcow2,node-name=top,file=top-file,backing=base,cache-size=98304");
    chain->edge = use_node(chain->top);
}

static void drop_chain(struct graph *graph, struct chain *chain)
{
    edge_detach(chain->edge);
    delete_node(graph, "top");
    delete_node(graph, "top-file");
    delete_node(graph, "base");
    delete_node(graph, "base-file");
    free(chain->oracle);
}

static void check_all(struct chain *chain)
{
    auto_free uint8_t *buffer = xmalloc(DISK);
    assert_int_equal(block_read_buffer(chain->edge, 0, buffer, DISK), 0);
    assert_memory_equal(buffer, chain->oracle, DISK);
    for (int i = 0; i < 50; i++) {
        uint64_t offset = sim_random(chain->loop, DISK), length = 1 + sim_random(chain->loop, DISK - offset);
        memset(buffer, 0xee, length);
        assert_int_equal(block_read_buffer(chain->edge, offset, buffer, length), 0);
        assert_memory_equal(buffer, chain->oracle + offset, length);
    }
}

static int reads_fall_through(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    check_all(&chain);
    memory_of(chain.base_file)->delay_ns = 5000;
    check_all(&chain);
    memory_of(chain.base_file)->fail_next = -EILSEQ;
    auto_free uint8_t *buffer = xmalloc(DISK);
    assert_int_equal(block_read_buffer(chain.edge, 0, buffer, DISK), -EILSEQ);
    drop_chain(graph, &chain);
    return 0;
}

struct writer {
    struct chain *chain;
    uint64_t start, length;
};

static void write_randomly(void *arg)
{
    struct writer *writer = arg;
    struct chain *chain = writer->chain;
    for (int i = 0; i < 25; i++) {
        uint64_t offset = writer->start + sim_random(chain->loop, writer->length);
        uint64_t length = 1 + sim_random(chain->loop, writer->start + writer->length - offset);
        int byte = (int)sim_random(chain->loop, 256);
        if (i % 5 == 4) {
            byte = 0;
            assert_int_equal(block_zero(chain->edge, offset, length, 0), 0);
        } else {
            assert_int_equal(write_pattern(chain->edge, offset, length, byte), 0);
        }
        memset(chain->oracle + offset, byte, length);
    }
}

/* Writers in stripes that share clusters with their neighbours. */
static int copy_on_write(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    toy_of(chain.top)->gap = sim_random(chain.loop, 2);
    /* Either a file that grows as it is written, or a device full of old bytes, which must never be seen. */
    chain.top_file->growable = sim_random(chain.loop, 2);
    if (chain.top_file->growable)
        node_set_size(chain.top_file, 0);
    else
        memset(memory_of(chain.top_file)->data, 0xaa, memory_of(chain.top_file)->capacity);
    memory_of(chain.top_file)->delay_ns = 10000;
    memory_of(chain.base_file)->delay_ns = 3000;
    struct writer writers[6];
    struct co_group group;
    co_group_init(&group);
    for (size_t i = 0; i < ARRAY_SIZE(writers); i++) {
        writers[i] = (struct writer){&chain, i * 16000, 16000};
        co_spawn(chain.loop, &group, write_randomly, &writers[i]);
    }
    co_group_wait(&group);
    check_all(&chain);
    const struct toy *toy = toy_of(chain.top);
    assert_true(toy->copies > 0);
    assert_int_equal(toy->prepared, toy->committed);
    drop_chain(graph, &chain);
    return 0;
}

/* Each layer has one cluster, so that a read of the whole disk is cut in two by every one of them. */
static int deep_chains_are_cut(void *graph)
{
    enum { LAYERS = 120 };
    struct edge *edge = NULL;
    for (int i = 0; i < LAYERS; i++) {
        auto_free char *file = xasprintf("driver=null-co,node-name=file%d,size=64k", i);
        auto_free char *backing = i ? xasprintf(",backing=layer%d", i - 1) : xstrdup("");
        auto_free char *layer =
            xasprintf("driver=qcow2,node-name=layer%d,file=file%d,cache-size=512k%s", i, i, backing);
        add_node(graph, file);
        edge_detach(edge);
        edge = use_node(add_node(graph, layer));
        assert_int_equal(write_pattern(edge, (uint64_t)(LAYERS - 1 - i) * TOY_CLUSTER, TOY_CLUSTER, i + 1), 0);
    }
    auto_free uint8_t *buffer = xmalloc(LAYERS * TOY_CLUSTER);
    assert_int_equal(block_read_buffer(edge, 0, buffer, LAYERS * TOY_CLUSTER), 0);
    for (size_t i = 0; i < LAYERS; i++)
        assert_int_equal(buffer[i * TOY_CLUSTER + 5], LAYERS - i);
    edge_detach(edge);
    for (int i = LAYERS - 1; i >= 0; i--) {
        auto_free char *file = xasprintf("file%d", i), *layer = xasprintf("layer%d", i);
        delete_node(graph, layer);
        delete_node(graph, file);
    }
    return 0;
}

static int plans_are_joined(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    struct memory *memory = memory_of(chain.top_file);
    memory->writes = 0;
    assert_int_equal(write_pattern(chain.edge, 0, 6 * TOY_CLUSTER, 9), 0);
    assert_int_equal(memory->writes, 1); /* six new clusters in a row */
    toy_of(chain.top)->gap = 1;
    memory->writes = 0;
    assert_int_equal(write_pattern(chain.edge, 6 * TOY_CLUSTER, 10 * TOY_CLUSTER, 8), 0);
    assert_int_equal(memory->writes, 10);
    assert_true(has_pattern(chain.edge, 0, 6 * TOY_CLUSTER, 9));
    assert_true(has_pattern(chain.edge, 6 * TOY_CLUSTER, 10 * TOY_CLUSTER, 8));
    memory->reads = 0;
    assert_true(has_pattern(chain.edge, 0, 6 * TOY_CLUSTER, 9));
    assert_int_equal(memory->reads, 1);
    drop_chain(graph, &chain);
    return 0;
}

static int failed_write_is_undone(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    struct toy *toy = toy_of(chain.top);
    memory_of(chain.top_file)->fail_next = -ENOSPC;
    assert_int_equal(write_pattern(chain.edge, 100, 2 * TOY_CLUSTER, 9), -ENOSPC);
    assert_int_equal(toy->undone, toy->prepared);
    check_all(&chain);                            /* as before */
    memory_of(chain.base_file)->fail_next = -EIO; /* the read of old bytes */
    assert_int_equal(write_pattern(chain.edge, 100, 100, 9), -EIO);
    check_all(&chain);
    for (size_t i = 0; i < toy->count; i++)
        assert_false(toy->busy[i]);
    drop_chain(graph, &chain);
    return 0;
}

/* A failed write leaves bytes behind the end of the file; whoever gets that space next must not show them. */
static int leftovers_stay_hidden(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=0");
    file->growable = true;
    struct edge *edge = use_node(add_node(graph, "driver=qcow2,node-name=fmt,file=m,cache-size=65536"));
    memory_of(file)->fail_next = -ENOSPC;
    assert_int_equal(write_pattern(edge, 0, TOY_CLUSTER, 9), -ENOSPC);
    assert_true(has_pattern(edge, 0, TOY_CLUSTER, 0));
    assert_int_equal(write_pattern(edge, 5 * TOY_CLUSTER + 3000, 100, 8), 0);
    assert_true(has_pattern(edge, 5 * TOY_CLUSTER, 3000, 0));
    assert_true(has_pattern(edge, 5 * TOY_CLUSTER + 3000, 100, 8));
    assert_true(has_pattern(edge, 5 * TOY_CLUSTER + 3100, TOY_CLUSTER - 3100, 0));
    edge_detach(edge);
    delete_node(graph, "fmt");
    delete_node(graph, "m");
    return 0;
}

static int status_of_chain(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    assert_int_equal(write_pattern(chain.edge, 0, TOY_CLUSTER, 9), 0);
    assert_int_equal(block_zero(chain.edge, TOY_CLUSTER, TOY_CLUSTER, 0), 0);
    struct block_status status;

    assert_int_equal(block_status(chain.edge, 0, DISK, 0, &status), 0);
    assert_int_equal(status.length, TOY_CLUSTER);
    assert_true(status.data && status.allocated && !status.zero);
    assert_int_equal(status.depth, 0);
    assert_ptr_equal(status.node, chain.top_file);
    assert_int_equal(status.offset, 0);

    assert_int_equal(block_status(chain.edge, TOY_CLUSTER + 10, DISK - 5000, 0, &status), 0);
    assert_int_equal(status.length, TOY_CLUSTER - 10);
    assert_true(!status.data && status.allocated && status.zero);
    assert_null(status.node);

    assert_int_equal(block_status(chain.edge, 3 * TOY_CLUSTER, DISK - 3 * TOY_CLUSTER, 0, &status), 0);
    assert_int_equal(status.depth, 1);
    assert_ptr_equal(status.node, chain.base_file);
    assert_true(status.data && status.allocated);

    assert_int_equal(block_status(chain.edge, 5 * TOY_CLUSTER, TOY_CLUSTER, 0, &status), 0);
    assert_int_equal(status.depth, 1);
    assert_true(status.zero && !status.allocated && !status.data);

    /* Behind the end of the base: nobody's, and the layer above answers. */
    assert_int_equal(block_status(chain.edge, 50000, DISK - 50000, 0, &status), 0);
    assert_int_equal(status.depth, 0);
    assert_true(status.zero && !status.allocated);

    assert_int_equal(block_status(chain.edge, 3 * TOY_CLUSTER, TOY_CLUSTER, BLOCK_STATUS_TOP_ONLY, &status), 0);
    assert_true(!status.allocated && !status.data && !status.zero);
    assert_int_equal(block_status(chain.edge, DISK, 1, 0, &status), -EIO);
    drop_chain(graph, &chain);
    return 0;
}

static int status_through_filter(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    edge_detach(chain.edge);
    chain.edge = use_node(add_node(graph, "driver=raw,node-name=filter,file=top"));
    struct block_status status;
    assert_int_equal(block_status(chain.edge, 3 * TOY_CLUSTER, TOY_CLUSTER, 0, &status), 0);
    assert_int_equal(status.depth, 1); /* a filter is no backing step */
    assert_ptr_equal(status.node, chain.base_file);
    assert_ptr_equal(node_backing(chain.edge->child), chain.base);
    check_all(&chain);
    struct edge *edge = chain.edge;
    chain.edge = use_node(chain.top);
    edge_detach(edge);
    delete_node(graph, "filter");
    drop_chain(graph, &chain);
    return 0;
}

static int copies_of_chains(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    assert_int_equal(write_pattern(chain.edge, 7 * TOY_CLUSTER, TOY_CLUSTER, 77), 0);
    memset(chain.oracle + 7 * TOY_CLUSTER, 77, TOY_CLUSTER);
    struct node *target = add_node(graph, "driver=null-co,node-name=target,size=98304");
    struct edge *to = use_node(target);
    memset(memory_of(target)->data, 0xdd, DISK);
    assert_int_equal(block_copy(chain.edge, 0, to, 0, DISK, BLOCK_COPY_OFFLOAD), 0);
    assert_memory_equal(memory_of(target)->data, chain.oracle, DISK);
    assert_true(memory_of(target)->zeroes > 0);

    memset(memory_of(target)->data, 0, DISK);
    memory_of(target)->zeroes = 0;
    assert_int_equal(block_copy(chain.edge, 0, to, 0, DISK, BLOCK_COPY_TARGET_IS_ZERO), 0);
    assert_memory_equal(memory_of(target)->data, chain.oracle, DISK);
    assert_int_equal(memory_of(target)->zeroes, 0);

    memory_of(target)->fail_next = -ENOSPC;
    assert_int_equal(block_copy(chain.edge, 0, to, 0, DISK, 0), -ENOSPC);
    assert_int_equal(block_copy(chain.edge, 0, to, 0, DISK + 1, 0), -EIO);
    edge_detach(to);
    delete_node(graph, "target");
    drop_chain(graph, &chain);
    return 0;
}

static int flush_goes_down(void *graph)
{
    struct chain chain;
    make_chain(graph, &chain);
    assert_int_equal(block_flush(chain.edge), 0); /* what opening wrote, if anything */
    unsigned toy_before = toy_of(chain.top)->flushes;
    unsigned before = memory_of(chain.top_file)->flushes, base_before = memory_of(chain.base_file)->flushes;
    assert_int_equal(write_pattern(chain.edge, 0, 512, 1), 0);
    assert_int_equal(block_flush(chain.edge), 0);
    assert_int_equal(memory_of(chain.top_file)->flushes, before + 1);
    assert_int_equal(memory_of(chain.base_file)->flushes, base_before); /* the backing node was never written by us */
    assert_int_equal(toy_of(chain.top)->flushes, toy_before + 1);
    drop_chain(graph, &chain);
    return 0;
}

SIMULATED(reads_fall_through)
SIMULATED(deep_chains_are_cut)
SIMULATED(plans_are_joined)
SIMULATED(failed_write_is_undone)
SIMULATED(leftovers_stay_hidden)
SIMULATED(status_of_chain)
SIMULATED(status_through_filter)
SIMULATED(copies_of_chains)
SIMULATED(flush_goes_down)

static void copy_on_write_in_any_order(void **state)
{
    for (uint64_t seed = 0; seed < 20; seed++)
        run_simulated(copy_on_write, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_fall_through_simulated),     cmocka_unit_test(copy_on_write_in_any_order),
        cmocka_unit_test(deep_chains_are_cut_simulated),    cmocka_unit_test(plans_are_joined_simulated),
        cmocka_unit_test(failed_write_is_undone_simulated), cmocka_unit_test(leftovers_stay_hidden_simulated),
        cmocka_unit_test(status_of_chain_simulated),        cmocka_unit_test(status_through_filter_simulated),
        cmocka_unit_test(copies_of_chains_simulated),       cmocka_unit_test(flush_goes_down_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
