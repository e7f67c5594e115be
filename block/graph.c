/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: how they are made from options, named, found, referred to, and how they die. A node becomes visible in the
 * graph only when its driver has opened it completely; until then only its own coroutine knows it. Options describe
 * trees: drivers open their children from within open(), which comes back here, one `opener` deeper.
 *
 * A child that is defined inside its parent's options takes over what its parent was told about writing and caching,
 * unless it says otherwise; a child that is referred to by name is as it is.
 */
#include "block/internal.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "block/active.h"
#include "block/dirty_bitmap.h"
#include "block/latency.h"
#include "qmp/schema/types.h"

#define MAX_DEPTH 200 /* of nested nodes: backing chains beyond this are refused */
#define MAX_NODE_NAME 31

struct graph *graph_new(struct loop *loop, const struct block_driver *const *drivers)
{
    struct graph *graph = new (struct graph);
    graph->loop = loop;
    list_init(&graph->nodes);
    list_init(&graph->opening);
    graph_add_drivers(graph, drivers);
    return graph;
}

void graph_add_drivers(struct graph *graph, const struct block_driver *const *drivers)
{
    size_t more = 0;
    while (drivers[more])
        more++;
    graph->drivers = xrealloc_array(graph->drivers, graph->n_drivers + more + 1, sizeof *graph->drivers);
    memcpy(graph->drivers + graph->n_drivers, drivers, (more + 1) * sizeof *graph->drivers);
    graph->n_drivers += more;
}

void graph_give_up(struct graph *graph)
{
    struct node *node;
    list_for_each (node, &graph->nodes, graph_link) {
        if (node->driver->give_up)
            node->driver->give_up(node);
    }
    list_for_each (node, &graph->opening, opening_link) {
        if (node->driver->give_up)
            node->driver->give_up(node);
    }
}

void graph_free(struct graph *graph)
{
    if (!graph)
        return;
    assert(list_empty(&graph->nodes));
    free(graph->drivers);
    free(graph->served);
    free(graph);
}

const struct block_driver *graph_driver(const struct graph *graph, const char *name)
{
    for (const struct block_driver **driver = graph->drivers; *driver; driver++) {
        if (!strcmp((*driver)->name, name))
            return *driver;
    }
    return NULL;
}

const struct block_driver *const *graph_drivers(const struct graph *graph)
{
    return graph->drivers;
}

struct loop *graph_loop(const struct graph *graph)
{
    return graph->loop;
}

void graph_set_private(struct graph *graph)
{
    graph->is_private = true;
}

bool graph_is_private(const struct graph *graph)
{
    return graph->is_private;
}

void graph_set_objects(struct graph *graph, struct object_set *objects)
{
    graph->objects = objects;
}

struct object_set *graph_objects(const struct graph *graph)
{
    return graph->objects;
}

struct node *graph_find(const struct graph *graph, const char *node_name)
{
    struct node *node;
    list_for_each (node, &graph->nodes, graph_link) {
        if (!strcmp(node->name, node_name))
            return node;
    }
    return NULL;
}

struct node *graph_next(const struct graph *graph, const struct node *after)
{
    const struct list *next = after ? after->graph_link.next : graph->nodes.next;
    return next == &graph->nodes ? NULL : list_entry((struct list *)next, struct node, graph_link);
}

void graph_set_events(struct graph *graph, const struct graph_events *events)
{
    graph->events = *events;
}

/* Names ----------------------------------------------------------------------------------------------------------- */

static bool name_is_valid(const char *name)
{
    if (!isalpha((unsigned char)name[0]) || strlen(name) > MAX_NODE_NAME)
        return false;
    for (const char *c = name; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("-._", *c))
            return false;
    }
    return true;
}

static bool check_name(const struct graph *graph, const char *name, struct error *err)
{
    if (!name_is_valid(name))
        return fail(err, EINVAL,
                    "Invalid node-name '%s': it must begin with a letter, have at most %d characters, and consist of "
                    "letters, digits, '-', '.' and '_'",
                    name, MAX_NODE_NAME);
    if (graph_find(graph, name))
        return fail(err, EEXIST, "There is already a node with node-name '%s'", name);
    return true;
}

/* Options --------------------------------------------------------------------------------------------------------- */

bool node_apply_options(struct node *node, const struct blockdev_options *options, struct error *err)
{
    if (options->force_share && !options->read_only)
        return fail(err, EINVAL, "node '%s': force-share=on can only be used with read-only images", node->name);
    if (options->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP &&
        options->discard != BLOCKDEV_DISCARD_OPTIONS_UNMAP)
        return fail(err, EINVAL, "node '%s': detect-zeroes=unmap needs discard=unmap", node->name);
    node->read_only = node->options_read_only = options->read_only;
    node->auto_read_only = options->auto_read_only;
    node->force_share = options->force_share;
    node->direct = options->cache && options->cache->direct;
    node->no_flush = options->cache && options->cache->no_flush;
    node->discard = options->discard == BLOCKDEV_DISCARD_OPTIONS_UNMAP ? BLOCK_DISCARD_UNMAP : BLOCK_DISCARD_IGNORE;
    node->detect_zeroes = options->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP ? BLOCK_DETECT_ZEROES_UNMAP
                          : options->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_ON  ? BLOCK_DETECT_ZEROES_ON
                                                                                         : BLOCK_DETECT_ZEROES_OFF;
    return true;
}

static void inherit_cache(const struct node *parent, struct blockdev_options *child)
{
    if (!child->cache)
        child->cache = blockdev_cache_options_new();
    if (!child->cache->has_direct) {
        child->cache->has_direct = true;
        child->cache->direct = parent->direct;
    }
    if (!child->cache->has_no_flush) {
        child->cache->has_no_flush = true;
        child->cache->no_flush = parent->no_flush;
    }
}

struct blockdev_options *graph_inherit(const struct node *parent, const char *role,
                                       const struct blockdev_options *options)
{
    bool is_backing = !strcmp(role, "backing");
    struct blockdev_options *child = blockdev_options_clone(options);
    inherit_cache(parent, child);
    if (!child->has_read_only) {
        child->has_read_only = true;
        child->read_only = is_backing || parent->read_only;
    }
    if (!child->has_auto_read_only && !is_backing) {
        child->has_auto_read_only = true;
        child->auto_read_only = parent->auto_read_only;
    }
    if (!child->has_force_share) {
        child->has_force_share = true;
        child->force_share = parent->force_share && child->read_only;
    }
    if (!child->has_discard && !is_backing) {
        /* The format decides what it gives back; what it then passes down is meant. */
        child->has_discard = true;
        child->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
    return child;
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static struct node *node_new(struct graph *graph, const struct block_driver *driver,
                             const struct blockdev_options *options)
{
    struct node *node = new (struct node);
    node->graph = graph;
    node->driver = driver;
    node->loop = graph->loop;
    node->options = blockdev_options_clone(options);
    node->name = options->node_name ? xstrdup(options->node_name) : xasprintf("#block%03u", graph->next_id++);
    node->state = xcalloc(1, driver->instance_size ? driver->instance_size : 1);
    node->references = 1;
    /* An earlier program may have been killed with writes that were answered and never flushed: a guest that has gone
     * on and flushes now means those, too. So the first flush is never free. */
    node->write_generation = 1;
    list_init(&node->children);
    list_init(&node->parents);
    list_init(&node->graph_link);
    list_init(&node->opening_link);
    list_init(&node->tracked);
    list_init(&node->bitmaps);
    co_queue_init(&node->drain_queue);
    co_queue_init(&node->resume_queue);
    co_queue_init(&node->flush_queue);
    return node;
}

static void detach_children(struct node *node)
{
    while (!list_empty(&node->children))
        edge_detach(list_first(&node->children, struct edge, parent_link));
}

static void node_free(struct node *node)
{
    detach_children(node);
    assert(list_empty(&node->parents));
    blockdev_options_free(node->options);
    dirty_bitmaps_free(node);
    latency_free(node);
    free(node->state);
    free(node->filename);
    free(node->name);
    free(node);
}

/* The limits that a driver left at "no demand" become values that the request path can compute with. */
static void complete_limits(struct node *node)
{
    struct block_limits *limits = &node->limits;
    if (!limits->request_alignment)
        limits->request_alignment = 1;
    if (!limits->memory_alignment)
        limits->memory_alignment = 1;
    assert(is_power_of_two(limits->request_alignment) && is_power_of_two(limits->memory_alignment));
}

static bool check_depth(const struct node *opener, struct error *err)
{
    unsigned depth = 0;
    for (const struct node *node = opener; node; node = node->opener) {
        if (++depth > MAX_DEPTH)
            return fail(err, ELOOP, "The chain of images is more than %d levels deep", MAX_DEPTH);
    }
    return true;
}

bool node_open_driver(struct node *node, struct error *err)
{
    if (!node_apply_options(node, node->options, err))
        return false;
    list_append(&node->graph->opening, &node->opening_link);
    bool opened = node->driver->open(node, err);
    list_remove(&node->opening_link);
    if (!opened)
        return false;
    if (!node->filename && node->file)
        node->filename = xstrdup(node->file->child->filename);
    complete_limits(node);
    return true;
}

static struct node *open_with(struct graph *graph, const struct block_driver *driver,
                              const struct blockdev_options *options, const struct open_context *context,
                              struct error *err)
{
    if (options->node_name && !check_name(graph, options->node_name, err))
        return NULL;
    if (!check_depth(context->opener, err))
        return NULL;

    struct node *node = node_new(graph, driver, options);
    node->opener = context->opener;
    node->probed = context->probed;
    node->probed_by_image = context->probed_by_image;
    node->metadata_only = context->metadata_only;
    /* Opening yields: the name may have been taken meanwhile, also by one of the node's own children. */
    if (!node_open_driver(node, err) || (options->node_name && !check_name(graph, options->node_name, err))) {
        node_free(node);
        return NULL;
    }
    list_append(&graph->nodes, &node->graph_link);
    return node;
}

struct node *graph_open(struct graph *graph, const struct blockdev_options *options, const struct open_context *context,
                        struct error *err)
{
    const char *driver_name = blockdev_driver_name(options->driver);
    const struct block_driver *driver = graph_driver(graph, driver_name);
    if (!driver)
        return fail_null(err, ENOTSUP, "Driver '%s' is not part of this program", driver_name);
    return open_with(graph, driver, options, context, err);
}

struct node *node_open(struct graph *graph, const struct blockdev_options *options, struct error *err)
{
    return graph_open(graph, options, &(struct open_context){0}, err);
}

/* Its options are those of a filter with nothing but a file: they serve as those of raw. */
struct node *node_open_filter(const struct block_driver *driver, const char *name, struct node *below,
                              struct error *err)
{
    auto_blockdev_options *options = blockdev_options_new();
    options->driver = BLOCKDEV_DRIVER_RAW;
    options->node_name = xstrdup(name);
    options->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    options->u.raw.file = blockdev_ref_new();
    options->u.raw.file->kind = BLOCKDEV_REF_KIND_REFERENCE;
    options->u.raw.file->u.reference = xstrdup(below->name);
    return open_with(below->graph, driver, options, &(struct open_context){0}, err);
}

struct node *graph_resolve(struct graph *graph, const struct blockdev_ref *ref, const struct open_context *context,
                           struct error *err)
{
    if (ref->kind == BLOCKDEV_REF_KIND_DEFINITION)
        return graph_open(graph, ref->u.definition, context, err);
    struct node *node = graph_find(graph, ref->u.reference);
    if (!node)
        return fail_null(err, ENOENT, "Cannot find a node with node-name '%s'", ref->u.reference);
    node_ref(node);
    return node;
}

struct edge *node_open_child(struct node *parent, const char *role, const struct blockdev_ref *ref, uint32_t perm,
                             uint32_t shared, struct error *err)
{
    struct open_context context = {.opener = parent};
    struct node *child;
    if (ref->kind == BLOCKDEV_REF_KIND_DEFINITION) {
        auto_blockdev_options *options = graph_inherit(parent, role, ref->u.definition);
        child = graph_open(parent->graph, options, &context, err);
    } else {
        child = graph_resolve(parent->graph, ref, &context, err);
    }
    if (!child)
        return NULL;
    return graph_attach_child(parent, role, child, perm, shared, err);
}

bool node_open_backing(struct node *parent, const struct blockdev_ref_or_null *backing, uint32_t perm, uint32_t shared,
                       struct error *err)
{
    struct blockdev_ref ref = {0};
    switch (backing->kind) {
    case BLOCKDEV_REF_OR_NULL_KIND_NULL: return true;
    case BLOCKDEV_REF_OR_NULL_KIND_REFERENCE:
        if (!*backing->u.reference)
            return true;
        ref.kind = BLOCKDEV_REF_KIND_REFERENCE;
        ref.u.reference = backing->u.reference;
        break;
    case BLOCKDEV_REF_OR_NULL_KIND_DEFINITION:
        ref.kind = BLOCKDEV_REF_KIND_DEFINITION;
        ref.u.definition = backing->u.definition;
        break;
    }
    return node_open_child(parent, "backing", &ref, perm, shared, err) != NULL;
}

/* A file that one of the images above already lies in would make the chain endless. */
static bool check_loop(const struct node *parent, const struct node *child, struct error *err)
{
    if (!child->host_inode)
        return true;
    for (const struct node *above = parent->opener; above; above = above->opener) {
        const struct node *file = above->file ? above->file->child : NULL;
        if (file && file->host_device == child->host_device && file->host_inode == child->host_inode)
            return fail(err, ELOOP, "The backing chain loops: '%s' is an image of the chain that already lies above",
                        child->filename);
    }
    return true;
}

struct edge *graph_attach_child(struct node *parent, const char *role, struct node *child, uint32_t perm,
                                uint32_t shared, struct error *err)
{
    struct edge *edge = NULL;
    if (strcmp(role, "file") || check_loop(parent, child, err))
        edge = edge_attach(parent, role, child, perm, shared, err);
    /* The edge has a reference of its own now. */
    child->opener = NULL;
    node_unref(child);
    return edge;
}

/* The end of a node ----------------------------------------------------------------------------------------------- */

void node_ref(struct node *node)
{
    node->references++;
}

void node_unref(struct node *node)
{
    assert(node->references);
    if (--node->references)
        return;
    list_remove(&node->graph_link); /* nobody finds it any more; what follows may yield */
    int result = node->read_only ? 0 : node_flush(node);
    if (node->driver->close)
        node->driver->close(node);
    if (!node->read_only && !result && node->file)
        result = node_flush(node); /* closing may have written metadata */
    if (result)
        log_error("node '%s': flush on close failed: %s", node->name, strerror(-result));
    node_free(node);
}

/* Monitor-owned nodes --------------------------------------------------------------------------------------------- */

/* It has a size from the beginning: what uses it will ask. */
static struct node *make_inactive(struct graph *graph, const struct blockdev_options *options, struct error *err)
{
    uint64_t size;
    if (!graph_look_at(graph, options, &size, err) || !check_name(graph, options->node_name, err))
        return NULL;
    struct node *node = node_new(graph, graph_driver(graph, blockdev_driver_name(options->driver)), options);
    if (!node_apply_options(node, options, err)) {
        node_free(node);
        return NULL;
    }
    node->size = size;
    complete_limits(node);
    node_be_inactive(node);
    list_append(&graph->nodes, &node->graph_link);
    return node;
}

bool graph_add(struct graph *graph, const struct blockdev_options *options, struct error *err)
{
    if (!options->node_name)
        return fail(err, EINVAL, "'node-name' must be specified for the root node");
    struct node *node = options->active ? node_open(graph, options, err) : make_inactive(graph, options, err);
    if (!node)
        return false;
    node->monitor_owned = true;
    return true;
}

bool graph_del(struct graph *graph, const char *node_name, struct error *err)
{
    struct node *node = graph_find(graph, node_name);
    if (!node)
        return fail(err, ENOENT, "Failed to find node with node-name='%s'", node_name);
    if (!node->monitor_owned)
        return fail(err, EBUSY, "Node %s is not owned by the monitor", node_name);
    const struct edge *user = list_first(&node->parents, struct edge, child_link);
    if (user && user->parent)
        return fail(err, EBUSY, "Node %s is in use: it is the %s of node '%s'", node_name, user->role,
                    user->parent->name);
    if (user)
        return fail(err, EBUSY, "Node %s is in use by %s", node_name, user->role);
    if (node->references > 1)
        return fail(err, EBUSY, "Node %s is in use", node_name);
    node_unref(node);
    return true;
}

/* Driver's side --------------------------------------------------------------------------------------------------- */

void node_report_corruption(struct node *node, bool fatal, uint64_t offset, uint64_t size, const char *format, ...)
{
    if (node->corrupt && fatal)
        return;
    node->corrupt |= fatal;
    va_list args;
    va_start(args, format);
    auto_free char *message = xvasprintf(format, args);
    va_end(args);
    const struct graph_events *events = &node->graph->events;
    if (events->image_corrupted)
        events->image_corrupted(events->user, node, message, offset, size, fatal);
    else
        log_error("node '%s': image is corrupt: %s", node->name, message);
}

void node_set_size(struct node *node, uint64_t size)
{
    if (node->size == size)
        return;
    node->size = size;
    dirty_bitmaps_resize(node);
    struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        if (!edge->parent && edge->resized)
            edge->resized(edge->user);
    }
}

int64_t node_allocated_size(struct node *node)
{
    if (node->driver->allocated_size)
        return node->driver->allocated_size(node);
    int64_t total = 0;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        int64_t size = edge == node->backing ? 0 : node_allocated_size(edge->child);
        if (size < 0)
            return size;
        total += size;
    }
    return list_empty(&node->children) ? -ENOTSUP : total;
}

struct node *node_backing(const struct node *node)
{
    while (node->driver->kind == DRIVER_FILTER && node->file)
        node = node->file->child;
    return node->backing ? node->backing->child : NULL;
}
