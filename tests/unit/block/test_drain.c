/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: something moves below a drained node, or a request waits for ever. */
#include "tests/unit/block/memory.h"

struct load {
    struct edge *edge;
    struct loop *loop;
    unsigned done;
    bool stop;
};

static void keep_writing(void *arg)
{
    struct load *load = arg;
    while (!load->stop) {
        uint64_t offset = sim_random(load->loop, 60000);
        assert_int_equal(write_pattern(load->edge, offset, 1 + sim_random(load->loop, 5000), 1), 0);
        load->done++;
    }
}

static int requests_wait(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=1M");
    struct node *top = add_node(graph, "driver=qcow2,node-name=fmt,file=m,cache-size=65536");
    memory_of(file)->delay_ns = 50000;
    struct load load = {use_node(top), loop_current(), 0, false};
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 6; i++)
        co_spawn(load.loop, &group, keep_writing, &load);
    for (int i = 0; i < 10; i++) {
        co_sleep_ns(300000);
        bool only_file = i & 1;
        struct node *drained = only_file ? file : top;
        node_drain_begin(drained);
        assert_int_equal(file->in_flight, 0);
        if (!only_file)
            assert_int_equal(top->in_flight, 0);
        unsigned writes = memory_of(file)->writes;
        co_sleep_ns(1000000);
        assert_int_equal(memory_of(file)->writes, writes);
        node_drain_begin(top); /* nests, and overlaps with the other */
        node_drain_end(top);
        co_sleep_ns(1000000);
        assert_int_equal(memory_of(file)->writes, writes);
        unsigned done = load.done;
        node_drain_end(drained);
        co_sleep_ns(300000);
        assert_true(load.done > done); /* it goes on */
    }
    load.stop = true;
    co_group_wait(&group);
    assert_int_equal(file->quiesced, 0);
    assert_int_equal(top->quiesced, 0);
    edge_detach(load.edge);
    delete_node(graph, "fmt");
    delete_node(graph, "m");
    return 0;
}

/* What becomes connected with a drained node shares its drain, and what leaves it goes on. */
static int graph_changes_while_drained(void *graph)
{
    struct node *file = add_node(graph, "driver=null-co,node-name=m,size=65536");
    struct node *other = add_node(graph, "driver=null-co,node-name=o,size=65536");
    struct node *filter = add_node(graph, "driver=raw,node-name=f,file=m");
    struct edge *user = use_node(other);
    node_drain_begin(file);
    assert_int_equal(filter->quiesced, 1); /* it could ask the file */
    node_drain_begin(filter);
    assert_int_equal(other->quiesced, 0);
    struct edge *edge = edge_attach(filter, "backing", other, 0, BLOCK_PERM_ALL, NULL);
    assert_int_equal(other->quiesced, 2);
    node_drain_end(filter);
    assert_int_equal(other->quiesced, 1);

    struct load load = {user, loop_current(), 0, false};
    struct co_group group;
    co_group_init(&group);
    co_spawn(load.loop, &group, keep_writing, &load);
    co_sleep_ns(1000000);
    assert_int_equal(load.done, 0);
    memory_of(other)->delay_ns = 1000;
    edge_detach(edge);
    co_sleep_ns(1000000);
    assert_true(load.done > 0);
    load.stop = true;
    co_group_wait(&group);
    assert_int_equal(other->quiesced, 0);
    assert_int_equal(filter->quiesced, 1);
    node_drain_end(file);
    assert_int_equal(filter->quiesced + file->quiesced, 0);
    edge_detach(user);
    delete_node(graph, "f");
    delete_node(graph, "o");
    delete_node(graph, "m");
    return 0;
}

SIMULATED(graph_changes_while_drained)

static void requests_wait_in_any_order(void **state)
{
    for (uint64_t seed = 0; seed < 10; seed++)
        run_simulated(requests_wait, seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_wait_in_any_order),
        cmocka_unit_test(graph_changes_while_drained_simulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
