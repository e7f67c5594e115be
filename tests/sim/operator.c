/* SPDX-License-Identifier: Apache-2.0 */
/* What the operator does while guests write: commands, and what no command offers yet through the daemon's graph. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "block/create.h"
#include "formats/table.h"
#include "protocol/table.h"
#include "qmp/schema/json.h"
#include "tests/sim/operations.h"

/* A root edge at the node in use, as a job has one. */
static struct edge *attach(struct world *world, uint32_t perm)
{
    struct node *node = graph_find(world->daemon.graph, NODE);
    auto_error err = {0};
    struct edge *edge = node ? edge_attach(NULL, "operator", node, perm, BLOCK_PERM_ALL, &err) : NULL;
    if (!edge)
        world_expect(world, false, &err, "using the node");
    return edge;
}

bool operator_write_compressed(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t cluster = world->kind->cluster, size = model_size(world->model);
    if (size < cluster)
        return false;
    uint64_t offset = world_random(world, size / cluster) * cluster;
    uint32_t stamp = world_stamp(world);
    struct edge *edge = attach(world, BLOCK_PERM_WRITE);
    if (!edge)
        return false;
    bool begun = model_begin_change(world->model, offset, cluster, stamp);
    if (begun) {
        auto_free uint8_t *data = xmalloc(cluster);
        model_fill(data, offset, cluster, stamp);
        struct iovec iov = {data, cluster};
        world_trace(world, "operator writes compressed %#" PRIx64 " stamp %u", offset, stamp);
        int result = block_write(edge, offset, cluster, buffers_of(&iov, 1), REQUEST_COMPRESSED);
        world_trace(world, "operator compressed %#" PRIx64 " -> %d", offset, result);
        if (!world->is_cut)
            model_end_change(world->model, offset, cluster, result ? MODEL_FAILED : MODEL_DONE);
        world_expect(world, !result, NULL, "a compressed write");
    }
    edge_detach(edge);
    return begun;
}

bool operator_resize(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t from = world->kind->size / 2 / SECTOR, most = world->kind->size / SECTOR;
    uint64_t size = (from + world_random(world, most)) * SECTOR;
    struct edge *edge = attach(world, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    if (!edge)
        return false;
    bool begun = model_begin_resize(world->model, size);
    if (begun) {
        auto_error err = {0};
        world_trace(world, "operator resizes to %#" PRIx64, size);
        bool good = node_resize(edge, size, PREALLOCATION_OFF, true, &err);
        world_trace(world, "operator resize -> %s", good ? "good" : err.message);
        if (!world->is_cut)
            model_end_resize(world->model, good ? MODEL_DONE : MODEL_FAILED);
        world_expect(world, good, &err, "a resize");
    }
    edge_detach(edge);
    return begun;
}

struct allocation {
    struct world *world;
    struct edge *edge;
    uint64_t offset, length;
    int result;
};

static void allocate(void *arg)
{
    struct allocation *a = (struct allocation *)arg;
    world_trace(a->world, "operator allocates %#" PRIx64 "+%#" PRIx64, a->offset, a->length);
    a->result = block_allocate(a->edge, a->offset, a->length);
    world_trace(a->world, "operator allocation %#" PRIx64 " -> %d", a->offset, a->result);
}

/* Up to three at once, which may overlap, as a FUSE export is asked for them. Nothing that is read changes, so the
 * model hears nothing of it. */
bool operator_allocate(struct actor *actor)
{
    struct world *world = actor->world;
    struct allocation all[3];
    uint64_t size = model_size(world->model), most = 8 * world->kind->cluster;
    unsigned count = 1 + (unsigned)world_random(world, ARRAY_SIZE(all));
    struct edge *edge = size ? attach(world, BLOCK_PERM_WRITE) : NULL;
    if (!edge)
        return false;
    struct co_group group;
    co_group_init(&group);
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = world_random(world, size / SECTOR) * SECTOR;
        uint64_t length = MIN((1 + world_random(world, most / SECTOR)) * SECTOR, size - offset);
        all[i] = (struct allocation){world, edge, offset, length, 0};
        co_spawn(world->loop, &group, allocate, &all[i]);
    }
    co_group_wait(&group);
    edge_detach(edge);
    for (unsigned i = 0; i < count; i++) {
        if (all[i].result == -ENOTSUP)
            return false;
        world_expect(world, !all[i].result, NULL, "an allocation");
    }
    return true;
}

bool operator_reopen(struct actor *actor)
{
    static const char *const changes[] = {
        "'discard': 'unmap'",
        "'discard': 'ignore'",
        "'discard': 'unmap', 'detect-zeroes': 'unmap'",
        "'discard': 'unmap', 'overlap-check': 'all'",
        "'discard': 'unmap', 'pass-discard-other': true",
        "'discard': 'unmap', 'discard-no-unref': true", /* from here on version 3 only */
        "'discard': 'unmap', 'lazy-refcounts': true",
        "'discard': 'unmap', 'lazy-refcounts': false",
    };
    struct world *world = actor->world;
    auto_error err = {0};
    uint64_t count = ARRAY_SIZE(changes) - (world->kind->traits & TRAIT_V3 ? 0 : 3);
    const char *change = changes[world_random(world, count)];
    bool has_own = *world->kind->open && !strstr(world->kind->open, "discard-no-unref");
    bool good = world_command(world, &err,
                              "{'execute': 'blockdev-reopen', 'arguments': {'options': [{'driver': 'qcow2', "
                              "'node-name': '" NODE "', 'file': '" NODE "-file', %s%s%s}]}}",
                              change, has_own ? ", " : "", has_own ? world->kind->open : "");
    world_expect(world, good, &err, "blockdev-reopen");
    return true;
}

bool operator_export(struct actor *actor)
{
    struct world *world = actor->world;
    auto_error err = {0};
    bool good = world_command(world, &err,
                              "{'execute': 'block-export-add', 'arguments': {'type': 'nbd', 'id': 'extra', "
                              "'node-name': '" NODE "', 'name': 'extra', 'writable': false}}");
    world_expect(world, good, &err, "block-export-add");
    co_sleep_ns(world_random(world, 1000000));
    if (good)
        good = world_command(world, &err, "{'execute': 'block-export-del', 'arguments': {'id': 'extra', 'mode': '%s'}}",
                             world_random(world, 2) ? "hard" : "safe");
    world_expect(world, good, &err, "block-export-del");
    return true;
}

bool operator_second_node(struct actor *actor)
{
    struct world *world = actor->world;
    auto_error err = {0};
    struct graph *graph = graph_new(world->loop, protocol_table);
    graph_add_drivers(graph, formats_table);
    bool good = world_create(graph, "second.qcow2", "size=1M,cluster_size=4k,preallocation=metadata", &err);
    graph_free(graph);
    good = good && world_command(world, &err,
                                 "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2', 'node-name': 'second', "
                                 "'file': {'driver': 'file', 'filename': 'second.qcow2'}}}");
    good = good && world_command(world, &err, "{'execute': 'blockdev-del', 'arguments': {'node-name': 'second'}}");
    world_expect(world, good, &err, "a second node");
    return true;
}

bool operator_query(struct actor *actor)
{
    static const char *const commands[] = {"query-named-block-nodes", "query-block-exports", "query-jobs",
                                           "query-version"};
    struct world *world = actor->world;
    auto_error err = {0};
    bool good = world_command(world, &err, "{'execute': '%s'}", commands[world_random(world, ARRAY_SIZE(commands))]);
    world_expect(world, good, &err, "a query");
    return true;
}
