/* SPDX-License-Identifier: Apache-2.0 */
/* What spindle-img does with a closed image, by the same calls into the block layer, in a graph of its own. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "block/create.h"
#include "tests/sim/operations.h"

#define COPY "copy.qcow2"

static struct edge *attach(struct world *world, struct node *node, uint32_t perm)
{
    auto_error err = {0};
    struct edge *edge = node ? edge_attach(NULL, "tool", node, perm, BLOCK_PERM_ALL, &err) : NULL;
    if (node)
        node_unref(node);
    if (node && !edge)
        world_expect(world, false, &err, "using an image");
    return edge;
}

static struct edge *open_image(struct world *world, uint32_t perm)
{
    auto_error err = {0};
    auto_free char *options = world_image_options(world, NULL);
    struct node *node = world_open(world->tool, &err, "%s", options);
    if (!node)
        world_expect(world, false, &err, "opening the image");
    return attach(world, node, BLOCK_PERM_CONSISTENT_READ | perm);
}

/* A tool that has written ends: what it did is there when its flush was good. */
void tool_close_written(struct world *world, struct edge *edge)
{
    uint64_t flush = model_begin_flush(world->model);
    int result = block_flush(edge);
    edge_detach(edge);
    world_expect(world, !result, NULL, "a tool's flush");
    if (world->is_cut)
        return;
    if (result)
        model_break_promises(world->model);
    else
        model_end_flush(world->model, flush);
}

static bool run_check(struct world *world, struct edge *edge, uint32_t repair, struct image_check *result)
{
    auto_error err = {0};
    *result = (struct image_check){0};
    int status = edge->child->driver->check(edge->child, repair, result, &err);
    world_expect(world, !status, &err, "a check");
    if (!status && result->corruptions && !world->is_cut && !world->faulty)
        world_fail(world, "a tool's check finds %" PRId64 " corruptions", result->corruptions);
    return !status;
}

bool tool_check(struct actor *actor)
{
    struct image_check result;
    struct edge *edge = open_image(actor->world, 0);
    world_trace(actor->world, "tool checks");
    if (!edge)
        return true;
    run_check(actor->world, edge, 0, &result);
    edge_detach(edge);
    return true;
}

bool tool_repair(struct actor *actor)
{
    struct world *world = actor->world;
    struct image_check result;
    struct edge *edge = open_image(world, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    world_trace(world, "tool repairs");
    if (!edge)
        return true;
    bool good = run_check(world, edge, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS, &result);
    if (good && result.leaks && !world->is_cut && !world->faulty)
        world_fail(world, "repair leaves %" PRId64 " leaks", result.leaks);
    edge_detach(edge);
    return true;
}

bool tool_resize(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t from = world->kind->size / 2 / SECTOR, most = world->kind->size / SECTOR;
    uint64_t size = (from + world_random(world, most)) * SECTOR;
    bool grows = size > model_size(world->model);
    bool may_preallocate = world->kind->create && !(world->kind->traits & TRAIT_BACKING);
    enum preallocation preallocation =
        grows && may_preallocate && world_random(world, 3) == 0 ? PREALLOCATION_METADATA : PREALLOCATION_OFF;
    struct edge *edge = open_image(world, BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    if (!edge)
        return true;
    if (model_begin_resize(world->model, size)) {
        auto_error err = {0};
        world_trace(world, "tool resizes to %#" PRIx64, size);
        bool good = node_resize(edge, size, preallocation, true, &err);
        if (!world->is_cut)
            model_end_resize(world->model, good ? MODEL_DONE : MODEL_FAILED);
        world_expect(world, good, &err, "a tool's resize");
    }
    tool_close_written(world, edge);
    return true;
}

bool tool_write_compressed(struct actor *actor)
{
    struct world *world = actor->world;
    uint64_t cluster = world->kind->cluster, size = round_down(model_size(world->model), cluster);
    struct edge *edge = open_image(world, BLOCK_PERM_WRITE);
    if (!edge)
        return true;
    auto_free uint8_t *data = xmalloc(cluster);
    world_trace(world, "tool writes compressed clusters");
    for (uint64_t at = 0; at < size && !world->ending; at += cluster) {
        uint32_t stamp = world_stamp(world);
        if (world_random(world, 3) || !model_begin_change(world->model, at, cluster, stamp))
            continue;
        model_fill(data, at, cluster, stamp);
        struct iovec iov = {data, cluster};
        int result = block_write(edge, at, cluster, buffers_of(&iov, 1), REQUEST_COMPRESSED);
        if (!world->is_cut)
            model_end_change(world->model, at, cluster, result ? MODEL_FAILED : MODEL_DONE);
        world_expect(world, !result, NULL, "a tool's compressed write");
    }
    tool_close_written(world, edge);
    return true;
}

static bool is_zero(const uint8_t *data, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++) {
        if (data[i])
            return false;
    }
    return true;
}

bool tool_map(struct actor *actor)
{
    struct world *world = actor->world;
    struct edge *edge = open_image(world, 0);
    if (!edge)
        return true;
    int result = 0;
    uint64_t size = edge->child->size;
    auto_free uint8_t *data = xmalloc(size);
    struct block_status status;
    for (uint64_t at = 0; at < size && !result; at += status.length) {
        result = block_status(edge, at, size - at, BLOCK_STATUS_PRECISE, &status);
        if (!result)
            result = block_read_buffer(edge, at, data, status.length);
        if (!result && status.zero && !is_zero(data, status.length) && !world->is_cut)
            world_fail(world, "the map says that %#" PRIx64 "+%#" PRIx64 " is zero", at, status.length);
    }
    world_expect(world, !result, NULL, "a map");
    edge_detach(edge);
    return true;
}

/* A file that nobody else uses, in every layout. */
bool tool_create(struct actor *actor)
{
    static const char *const options[] = {
        "size=1M",
        "size=256k,cluster_size=512",
        "size=1M,cluster_size=4k,compat=0.10,preallocation=metadata",
        "size=1M,cluster_size=16k,extended_l2=on",
        "size=256k,preallocation=full",
        "size=256k,preallocation=falloc,lazy_refcounts=on",
        "size=64k,cluster_size=1k,refcount_bits=1",
    };
    struct world *world = actor->world;
    auto_error err = {0};
    const char *chosen = options[world_random(world, ARRAY_SIZE(options))];
    world_trace(world, "tool creates an image of %s", chosen);
    bool good = world_create(world->tool, "new.qcow2", chosen, &err);
    world_expect(world, good, &err, "creating an image");
    struct node *node =
        good ? world_open(world->tool, &err, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': 'new.qcow2'}}")
             : NULL;
    if (good && !node)
        world_expect(world, false, &err, "opening an image just made");
    struct edge *edge = attach(world, node, BLOCK_PERM_CONSISTENT_READ);
    struct image_check result;
    if (!edge)
        return true;
    if (run_check(world, edge, 0, &result) && result.leaks && !world->is_cut && !world->faulty)
        world_fail(world, "a new image of %s leaks %" PRId64 " clusters", chosen, result.leaks);
    edge_detach(edge);
    return true;
}

/* --- convert --- */

static struct edge *open_copy(struct graph *graph, struct error *err)
{
    struct node *node =
        world_open(graph, err, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '" COPY "'}}");
    struct edge *edge =
        node ? edge_attach(NULL, "tool", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, err)
             : NULL;
    if (node)
        node_unref(node);
    return edge;
}

static bool copy_disk(struct world *world, struct edge *from, struct convert_state *copy, struct error *err)
{
    auto_free char *options = xasprintf("size=%" PRIu64 ",cluster_size=4k", copy->size);
    if (!world_create(world->tool, COPY, options, err))
        return false;
    struct edge *to = open_copy(world->tool, err);
    if (!to)
        return false;
    bool compress = world_random(world, 2);
    int result = 0;
    for (uint64_t at = 0, n; at < copy->size && !result; at += n) {
        n = MIN(copy->size - at, compress ? 4 * KiB : 64 * KiB);
        struct iovec iov = {copy->bytes + at, n};
        if (!compress)
            result = block_copy(from, at, to, at, n, BLOCK_COPY_TARGET_IS_ZERO);
        else if (!is_zero(copy->bytes + at, n))
            result = block_write(to, at, n, buffers_of(&iov, 1), REQUEST_COMPRESSED);
    }
    if (!result)
        result = block_flush(to);
    copy->is_there = !result && !world->is_cut;
    if (!result && !world->is_cut) {
        auto_free uint8_t *again = xmalloc(copy->size);
        result = block_read_buffer(to, 0, again, copy->size);
        if (!result && !world->is_cut && memcmp(again, copy->bytes, copy->size))
            world_fail(world, "a converted image differs from its source");
    }
    edge_detach(to);
    return !result || fail_errno(err, -result, "copying");
}

bool tool_convert(struct actor *actor)
{
    struct world *world = actor->world;
    struct convert_state *copy = (struct convert_state *)actor->state;
    struct edge *from = open_image(world, 0);
    auto_error err = {0};
    copy->is_there = false;
    if (!from)
        return true;
    world_trace(world, "tool converts");
    copy->size = from->child->size;
    free(copy->bytes);
    copy->bytes = xmalloc(copy->size);
    bool good = block_read_buffer(from, 0, copy->bytes, copy->size) == 0 && copy_disk(world, from, copy, &err);
    world_expect(world, good, &err, "a conversion");
    edge_detach(from);
    return true;
}

void tool_convert_examine(struct examination *e, void *state)
{
    const struct convert_state *copy = (const struct convert_state *)state;
    auto_error err = {0};
    if (!copy->is_there)
        return;
    struct edge *edge = open_copy(e->graph, &err);
    if (!edge)
        examine_fail(e, "the converted image, which was flushed, does not open: %s", err.message);
    struct image_check result = {0};
    auto_free uint8_t *bytes = xmalloc(copy->size);
    int status = edge->child->driver->check(edge->child, 0, &result, &err);
    if (status || result.corruptions || result.leaks)
        examine_fail(e, "the converted image is not clean");
    if (edge->child->size != copy->size || block_read_buffer(edge, 0, bytes, copy->size) ||
        memcmp(bytes, copy->bytes, copy->size))
        examine_fail(e, "the converted image, which was flushed, has lost data");
    edge_detach(edge);
}

void tool_convert_end(void *state)
{
    free(((struct convert_state *)state)->bytes);
}
