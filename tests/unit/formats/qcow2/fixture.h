/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images on a simulated disk, through the real block layer and the real file driver: made, opened by JSON options, and
 * compared with a plain array of bytes that knows what must be read. Everything runs in a coroutine of a simulated
 * loop, so a seed fixes the whole run.
 */
#ifndef TESTS_UNIT_FORMATS_QCOW2_FIXTURE_H
#define TESTS_UNIT_FORMATS_QCOW2_FIXTURE_H

#include "tests/unit/base/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/sim.h"
#include "block/create.h"
#include "block/name.h"
#include "block/request.h"
#include "crypto/objects.h"
#include "formats/qcow2/qcow2.h"
#include "formats/qcow2/state.h"
#include "formats/table.h"
#include "objects/object.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

#define IMAGE "test.qcow2"

/* cmocka's fail_msg() calls a macro that has the name of a function of ours. */
#define fail_with(...)                                                                                                 \
    do {                                                                                                               \
        print_error(__VA_ARGS__);                                                                                      \
        print_error("\n");                                                                                             \
        _fail(__FILE__, __LINE__);                                                                                     \
    } while (0)

struct world {
    struct loop *loop;
    struct graph *graph;
    struct object_set *objects; /* secrets "one" and "two" */
    struct edge *edge;          /* of the image, NULL while it is closed */
    uint64_t random;
};

static const struct block_driver *const fixture_drivers[] = {&qcow2_driver, &raw_driver, NULL};

static inline void world_init(struct world *world, uint64_t seed)
{
    auto_error err = {0};
    *world = (struct world){.loop = loop_new(LOOP_SIMULATED, seed, &err), .random = seed * 2 + 1};
    assert_non_null(world->loop);
}

/* Called in the loop: a graph dies with a crash, the disk does not. */
static inline void world_graph(struct world *world)
{
    world->graph = graph_new(world->loop, protocol_table);
    graph_add_drivers(world->graph, fixture_drivers);
    world->objects = object_set_new(world->loop);
    object_set_add_kinds(world->objects, crypto_object_kinds);
    assert_true(object_add_text(world->objects, "secret,id=one,data=first passphrase", NULL));
    assert_true(object_add_text(world->objects, "secret,id=two,data=second passphrase", NULL));
    graph_set_objects(world->graph, world->objects);
}

static inline uint64_t world_random(struct world *world, uint64_t limit)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (world->random * 0x2545f4914f6cdd1dull >> 11) % limit;
}

static inline bool try_create(struct world *world, const char *name, const char *keyval, struct error *err)
{
    auto_qcow2_create_options *options = NULL;
    if (!qcow2_create_options_from_keyval(keyval, NULL, &options, err))
        return false;
    return image_create(world->graph, name, &qcow2_driver, options, err);
}

static inline void create(struct world *world, const char *name, const char *keyval)
{
    auto_error err = {0};
    if (!try_create(world, name, keyval, &err))
        fail_with("create %s (%s): %s", name, keyval, err.message);
}

/* `extra`: more members of the JSON object, such as ", 'l2-cache-size': 1024". */
static inline bool try_open(struct world *world, const char *name, bool writable, const char *extra, struct error *err)
{
    auto_free char *text =
        xasprintf("{'driver': 'qcow2', 'read-only': %s, 'discard': 'unmap', 'file': {'driver': 'file', "
                  "'read-only': %s, 'discard': 'unmap', 'filename': '%s'}%s}",
                  writable ? "false" : "true", writable ? "false" : "true", name, extra);
    auto_json *json = json_parse(text, strlen(text), err);
    auto_blockdev_options *options = NULL;
    if (!json || !blockdev_options_from_json(json, &options, err))
        return false;
    struct node *node = node_open(world->graph, options, err);
    if (!node)
        return false;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (writable ? BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE : 0);
    world->edge = edge_attach(NULL, "test", node, perm, BLOCK_PERM_ALL, err);
    node_unref(node);
    return world->edge != NULL;
}

static inline void open_image(struct world *world, const char *name, bool writable, const char *extra)
{
    auto_error err = {0};
    if (!try_open(world, name, writable, extra, &err))
        fail_with("open %s%s: %s", name, extra, err.message);
}

static inline void close_image(struct world *world)
{
    edge_detach(TAKE(world->edge));
}

static inline struct qcow2 *state_of(const struct world *world)
{
    return world->edge->child->state;
}

static inline struct image_check check(struct world *world, uint32_t repair)
{
    struct image_check result = {0};
    auto_error err = {0};
    int status = qcow2_driver.check(world->edge->child, repair, &result, &err);
    if (status)
        fail_with("check: %s", err.message);
    return result;
}

static inline void assert_clean(struct world *world, bool leaks_allowed, const char *when)
{
    struct image_check result = check(world, 0);
    if (result.corruptions || result.check_errors || (result.leaks && !leaks_allowed))
        fail_with("%s: %" PRId64 " corruptions, %" PRId64 " leaks, %" PRId64 " errors", when, result.corruptions,
                  result.leaks, result.check_errors);
}

/* Writes the image to a real file for a look from outside. */
static inline void dump(struct world *world, const char *name, const char *path)
{
    size_t size;
    auto_free void *data = sim_file_get(world->loop, name, &size);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fwrite(data, 1, size, file);
    fclose(file);
}

struct world_main {
    struct world *world;
    void (*fn)(struct world *world, void *arg);
    void *arg;
};

static inline int world_entry(void *arg)
{
    struct world_main *m = arg;
    world_graph(m->world);
    m->fn(m->world, m->arg);
    if (m->world->edge)
        close_image(m->world);
    graph_free(TAKE(m->world->graph));
    object_set_free(TAKE(m->world->objects));
    return 0;
}

static inline void world_run(struct world *world, void (*fn)(struct world *world, void *arg), void *arg)
{
    struct world_main m = {world, fn, arg};
    loop_run_main(world->loop, world_entry, &m);
}

static inline void in_world(uint64_t seed, void (*fn)(struct world *world, void *arg), void *arg)
{
    struct world world;
    world_init(&world, seed);
    world_run(&world, fn, arg);
    loop_free(world.loop);
}

#endif
