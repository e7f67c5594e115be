/* SPDX-License-Identifier: Apache-2.0 */
/* What spindle-img does with the metadata of a closed qcow2 image: internal snapshots, amend. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "block/create.h"
#include "qmp/schema/types.h"
#include "tests/sim/operations.h"

static struct edge *open_writable(struct world *world)
{
    auto_error err = {0};
    auto_free char *options = world_image_options(world, NULL);
    struct node *node = world_open(world->tool, &err, "%s", options);
    struct edge *edge = NULL;
    if (node) {
        edge = edge_attach(NULL, "tool", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                           BLOCK_PERM_ALL, &err);
        node_unref(node);
    }
    if (!edge)
        world_expect(world, false, &err, "opening the image");
    return edge;
}

static void free_list(struct internal_snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
}

/* Names are all the same: a snapshot is known by its ID. */
static bool remove_one(struct world *world, struct node *node, struct error *err)
{
    struct internal_snapshot *list = NULL;
    size_t count = 0;
    bool good = node->driver->snapshots->list(node, &list, &count, err);
    if (good && count)
        good = node->driver->snapshots->remove(node, list[world_random(world, count)].id, err);
    free_list(list, count);
    return good;
}

bool tool_snapshot(struct actor *actor)
{
    struct world *world = actor->world;
    struct edge *edge = open_writable(world);
    if (!edge)
        return true;
    auto_error err = {0};
    bool removes = world_random(world, 2);
    world_trace(world, "tool %s a snapshot", removes ? "deletes" : "creates");
    node_drain_begin(edge->child);
    bool good = removes ? remove_one(world, edge->child, &err)
                        : edge->child->driver->snapshots->create(edge->child, "taken", &err);
    node_drain_end(edge->child);
    if (err.code != ERANGE) /* counts of one bit cannot */
        world_expect(world, good, &err, "a snapshot");
    edge_detach(edge);
    return true;
}

/* --- apply --- */

struct span {
    uint64_t at, length;
};

static bool write_stamp(struct world *world, struct edge *edge, struct span span, uint32_t stamp)
{
    if (!model_begin_change(world->model, span.at, span.length, stamp))
        return false; /* these sectors have too many versions */
    auto_free uint8_t *data = xmalloc(span.length);
    model_fill(data, span.at, span.length, stamp);
    int result = block_write_buffer(edge, span.at, data, span.length, 0);
    if (!world->is_cut)
        model_end_change(world->model, span.at, span.length, result ? MODEL_FAILED : MODEL_DONE);
    world_expect(world, !result, NULL, "a tool's write");
    return !result;
}

/* The newest snapshot is the last of the list. */
static bool apply_newest(struct node *node, bool removes, struct error *err)
{
    struct internal_snapshot *list = NULL;
    size_t count = 0;
    bool good = node->driver->snapshots->list(node, &list, &count, err) &&
                (count || fail(err, ENOENT, "the snapshot just taken is not in the list")) &&
                node->driver->snapshots->apply(node, list[count - 1].id, err);
    if (good && removes)
        (void)node->driver->snapshots->remove(node, list[count - 1].id, NULL);
    free_list(list, count);
    return good;
}

/* The span goes back to what it was; for the model that is one more change. */
static void go_back(struct world *world, struct edge *edge, struct span span, uint32_t stamp)
{
    auto_error err = {0};
    if (!model_begin_change(world->model, span.at, span.length, stamp))
        return;
    node_drain_begin(edge->child);
    bool good = apply_newest(edge->child, world_random(world, 2), &err);
    node_drain_end(edge->child);
    if (!world->is_cut)
        model_end_change(world->model, span.at, span.length, good ? MODEL_DONE : MODEL_FAILED);
    world_expect(world, good, &err, "applying a snapshot");
}

bool tool_apply(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t cluster = world->kind->cluster, clusters = model_size(world->model) / cluster;
    uint64_t first = clusters ? world_random(world, clusters) : 0;
    struct span span = {first * cluster, MIN(1 + world_random(world, 4), clusters - first) * cluster};
    uint32_t before = world_stamp(world), after = world_stamp(world);
    struct edge *edge = clusters ? open_writable(world) : NULL;
    if (!edge)
        return clusters;
    world_trace(world, "tool takes a snapshot of %#" PRIx64 "+%#" PRIx64 ", and applies it", span.at, span.length);
    if (write_stamp(world, edge, span, before)) {
        auto_error err = {0};
        node_drain_begin(edge->child);
        bool good = edge->child->driver->snapshots->create(edge->child, "taken", &err);
        node_drain_end(edge->child);
        if (err.code != ERANGE) /* counts of one bit cannot */
            world_expect(world, good, &err, "a snapshot");
        if (good && write_stamp(world, edge, span, after))
            go_back(world, edge, span, before);
    }
    tool_close_written(world, edge);
    return true;
}

static void no_progress(void *user, uint64_t done, uint64_t total)
{
}

bool tool_amend(struct actor *actor)
{
    struct world *world = actor->world;
    struct edge *edge = open_writable(world);
    if (!edge)
        return true;
    auto_error err = {0};
    /* An image that is not lazy stays so: what may be found after a cut depends on it. */
    struct qcow2_amend_options options = {.has_refcount_bits = world_random(world, 3) > 0,
                                          .refcount_bits = 16 << world_random(world, 3),
                                          .has_lazy_refcounts =
                                              world->kind->traits & TRAIT_LAZY && world_random(world, 2),
                                          .lazy_refcounts = world_random(world, 2)};
    world_trace(world, "tool amends");
    node_drain_begin(edge->child);
    bool good = edge->child->driver->amend->amend(edge->child, &options, false, no_progress, NULL, &err);
    node_drain_end(edge->child);
    world_expect(world, good, &err, "an amendment");
    edge_detach(edge);
    return true;
}
