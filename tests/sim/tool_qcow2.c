/* SPDX-License-Identifier: Apache-2.0 */
/* What spindle-img does with the metadata of a closed qcow2 image: internal snapshots, amend. None of it changes the disk. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
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

/* Names are all the same: a snapshot is known by its ID. */
static bool remove_one(struct world *world, struct node *node, struct error *err)
{
    struct internal_snapshot *list = NULL;
    size_t count = 0;
    bool good = node->driver->snapshots->list(node, &list, &count, err);
    if (good && count)
        good = node->driver->snapshots->remove(node, list[world_random(world, count)].id, err);
    for (size_t i = 0; i < count; i++) {
        free(list[i].id);
        free(list[i].name);
    }
    free(list);
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
                                          .has_lazy_refcounts = world->kind->traits & TRAIT_LAZY && world_random(world, 2),
                                          .lazy_refcounts = world_random(world, 2)};
    world_trace(world, "tool amends");
    node_drain_begin(edge->child);
    bool good = edge->child->driver->amend->amend(edge->child, &options, false, no_progress, NULL, &err);
    node_drain_end(edge->child);
    world_expect(world, good, &err, "an amendment");
    edge_detach(edge);
    return true;
}
