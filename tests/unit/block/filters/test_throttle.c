/* SPDX-License-Identifier: Apache-2.0 */
/* Broken if this fails: throttled requests come too fast, too slowly, in an unfair order, or not at all. */
#include "tests/unit/block/memory.h"

#include "block/filters/table.h"
#include "objects/object.h"

#define SECOND 1000000000ull

struct world {
    struct graph *graph;
    struct object_set *objects;
    uint64_t start_ns;
};

static void begin(struct world *world, void *graph, const char *limits)
{
    struct error err = {0};
    world->graph = graph;
    world->objects = object_set_new(loop_current());
    object_set_add_kinds(world->objects, filter_object_kinds);
    graph_add_drivers(graph, filters_table);
    graph_set_objects(graph, world->objects);
    auto_free char *text = xasprintf("throttle-group,id=g,%s", limits);
    assert_true(object_add_text(world->objects, text, &err));
    world->start_ns = loop_now_ns(loop_current());
}

static void end(struct world *world)
{
    graph_set_objects(world->graph, NULL);
    object_set_free(world->objects);
}

static struct edge *throttled(struct world *world, int number)
{
    auto_free char *disk = xasprintf("driver=null-co,node-name=disk%d,size=16M", number);
    auto_free char *filter = xasprintf("driver=throttle,node-name=t%d,throttle-group=g,file=disk%d", number, number);
    add_node(world->graph, disk);
    return use_node(add_node(world->graph, filter));
}

static void forget(struct world *world, struct edge *edge, int number)
{
    edge_detach(edge);
    auto_free char *disk = xasprintf("disk%d", number), *filter = xasprintf("t%d", number);
    delete_node(world->graph, filter);
    delete_node(world->graph, disk);
}

static double elapsed(const struct world *world)
{
    return (double)(loop_now_ns(loop_current()) - world->start_ns) / (double)SECOND;
}

static void set_limits(struct world *world, const char *json)
{
    struct error err = {0};
    auto_json *value = json_parse(json, strlen(json), &err);
    assert_non_null(value);
    assert_true(object_set_property(object_find(world->objects, "g"), "limits", value, &err));
}

static void near(double value, double expected, double slack)
{
    if (value < expected - slack || value > expected + slack)
        print_error("%f instead of %f +- %f\n", value, expected, slack);
    assert_true(value >= expected - slack && value <= expected + slack);
}

static void write_many(struct edge *edge, int count, size_t length)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(write_pattern(edge, (uint64_t)i * 4096, length, 1), 0);
}

/* 110 operations at 100 per second, of which a tenth of a second comes for free. */
static int rate_of_operations(void *graph)
{
    struct world world;
    begin(&world, graph, "limits.iops-total=100");
    struct edge *edge = throttled(&world, 0);
    write_many(edge, 111, 512);
    near(elapsed(&world), 1.0, 0.02);
    uint8_t byte;
    for (int i = 0; i < 100; i++)
        assert_int_equal(block_read_buffer(edge, 0, &byte, 1), 0);
    near(elapsed(&world), 2.0, 0.02);
    forget(&world, edge, 0);
    end(&world);
    return 0;
}

/* Reading does not pay for writing when the limits are separate; bytes count, and so does the size of an operation. */
static int directions_and_sizes(void *graph)
{
    struct world world;
    begin(&world, graph, "limits.bps-write=1048576,limits.iops-read=10,limits.iops-size=4096");
    struct edge *edge = throttled(&world, 0);
    write_many(edge, 32, 65536); /* 2 MiB */
    near(elapsed(&world), 1.9, 0.08);
    double before = elapsed(&world);
    uint8_t buffer[16384];
    for (int i = 0; i < 11; i++) /* each counts as four */
        assert_int_equal(block_read_buffer(edge, 0, buffer, sizeof buffer), 0);
    near(elapsed(&world) - before, 3.9, 0.1);
    before = elapsed(&world);
    assert_int_equal(block_zero(edge, 0, 2 * MiB, 0), 0);
    assert_int_equal(block_discard(edge, 0, 4096), 0); /* discard=ignore: never gets to the filter */
    assert_int_equal(block_flush(edge), 0);
    assert_int_equal(write_pattern(edge, 0, 512, 1), 0); /* pays for the zeroes */
    near(elapsed(&world) - before, 1.9, 0.1);
    forget(&world, edge, 0);
    end(&world);
    return 0;
}

/* 100 a second, for two seconds up to 300 a second: that is 600 and what leaks out meanwhile, then the long run. */
static int bursts(void *graph)
{
    struct world world;
    begin(&world, graph, "limits.iops-total=100,limits.iops-total-max=300,limits.iops-total-max-length=2");
    struct edge *edge = throttled(&world, 0);
    write_many(edge, 600, 512);
    near(elapsed(&world), 1.9, 0.1); /* at the rate of the burst */
    write_many(edge, 500, 512);
    /* The bucket of 600 leaked at 100 a second: 1100 requests end when 500 have leaked out. */
    near(elapsed(&world), 5.0, 0.1);
    co_sleep_ns(10 * SECOND); /* the bucket is empty again */
    double before = elapsed(&world);
    write_many(edge, 300, 512);
    near(elapsed(&world) - before, 0.9, 0.1);
    forget(&world, edge, 0);
    end(&world);
    return 0;
}

struct load {
    struct edge *edge;
    unsigned done;
    bool *stop;
    bool reads;
};

static void keep_busy(void *arg)
{
    struct load *load = arg;
    uint8_t buffer[512];
    while (!*load->stop) {
        if (load->reads)
            assert_int_equal(block_read_buffer(load->edge, 0, buffer, sizeof buffer), 0);
        else
            assert_int_equal(write_pattern(load->edge, 0, 512, 1), 0);
        load->done++;
    }
}

/* One member has ten requests under way, one has a single one, one only reads: each gets a third. */
static int members_take_turns(void *graph)
{
    struct world world;
    begin(&world, graph, "x-iops-total=300");
    struct edge *edges[3] = {throttled(&world, 0), throttled(&world, 1), throttled(&world, 2)};
    bool stop = false;
    struct load busy = {edges[0], 0, &stop, false}, single = {edges[1], 0, &stop, false};
    struct load reader = {edges[2], 0, &stop, true};
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 10; i++)
        co_spawn(loop_current(), &group, keep_busy, &busy);
    co_spawn(loop_current(), &group, keep_busy, &single);
    co_spawn(loop_current(), &group, keep_busy, &reader);
    co_sleep_ns(10 * SECOND);
    near(busy.done + single.done + reader.done, 3030, 40);
    assert_true(busy.done < 2 * single.done);
    assert_true(single.done > 500);
    assert_true(reader.done > 500);
    /* New limits hold from now on, for those that wait already as well. */
    set_limits(&world, "{\"iops-total\":30}");
    unsigned before = busy.done + single.done + reader.done;
    co_sleep_ns(10 * SECOND);
    near(busy.done + single.done + reader.done - before, 303, 15);
    stop = true;
    set_limits(&world, "{\"iops-total\":0}"); /* no limit: the rest ends at once */
    double last = elapsed(&world);
    co_group_wait(&group);
    near(elapsed(&world) - last, 0, 0.01);
    for (int i = 0; i < 3; i++)
        forget(&world, edges[i], i);
    end(&world);
    return 0;
}

/* Whoever drains does not wait for the limit; nobody is lost. */
static int drain_lets_go(void *graph)
{
    struct world world;
    begin(&world, graph, "limits.iops-total=1");
    struct edge *edge = throttled(&world, 0);
    bool stop = false;
    struct load load = {edge, 0, &stop, false};
    struct co_group group;
    co_group_init(&group);
    for (int i = 0; i < 20; i++)
        co_spawn(loop_current(), &group, keep_busy, &load);
    co_sleep_ns(SECOND / 2);
    unsigned before = load.done;
    double start = elapsed(&world);
    node_drain_begin(edge->child);
    near(elapsed(&world) - start, 0, 0.01);
    assert_true(load.done >= before + 15);
    stop = true;
    node_drain_end(edge->child);
    co_group_wait(&group);
    forget(&world, edge, 0);
    end(&world);
    return 0;
}

/* Another group by reopen, and a group in use that stays. */
static int groups_change(void *graph)
{
    struct world world;
    struct error err = {0};
    begin(&world, graph, "limits.iops-total=1");
    assert_true(object_add_text(world.objects, "throttle-group,id=fast,limits.iops-total=1000", &err));
    struct edge *edge = throttled(&world, 0);
    assert_false(object_remove(world.objects, "g", &err));
    error_clear(&err);
    for (int i = 0; i < 2; i++) {
        struct blockdev_options *options = NULL;
        const char *text = i ? "driver=throttle,node-name=t0,throttle-group=fast,file=disk0"
                             : "driver=throttle,node-name=t0,throttle-group=none,file=disk0";
        assert_true(blockdev_options_from_keyval(text, NULL, &options, &err));
        assert_int_equal(graph_reopen(graph, &options, 1, &err), i);
        if (!i)
            assert_non_null(strstr(err.message, "Throttle group 'none' does not exist"));
        error_clear(&err);
        blockdev_options_free(options);
    }
    assert_true(object_remove(world.objects, "g", &err));
    double start = elapsed(&world);
    write_many(edge, 500, 512);
    near(elapsed(&world) - start, 0.4, 0.02);
    forget(&world, edge, 0);
    end(&world);
    return 0;
}

#define IN_ANY_ORDER(name)                                                                                             \
    static void name##_in_any_order(void **state)                                                                      \
    {                                                                                                                  \
        for (uint64_t seed = 1; seed <= 5; seed++)                                                                     \
            run_simulated(name, seed);                                                                                 \
    }
IN_ANY_ORDER(rate_of_operations)
IN_ANY_ORDER(directions_and_sizes)
IN_ANY_ORDER(bursts)
IN_ANY_ORDER(members_take_turns)
IN_ANY_ORDER(drain_lets_go)
IN_ANY_ORDER(groups_change)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rate_of_operations_in_any_order),
        cmocka_unit_test(directions_and_sizes_in_any_order),
        cmocka_unit_test(bursts_in_any_order),
        cmocka_unit_test(members_take_turns_in_any_order),
        cmocka_unit_test(drain_lets_go_in_any_order),
        cmocka_unit_test(groups_change_in_any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
