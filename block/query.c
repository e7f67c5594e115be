/* SPDX-License-Identifier: Apache-2.0 */
/* Turns nodes into the descriptions that the schema defines. What only a driver knows comes from its info(). */
#include "block/query.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/dirty_bitmap.h"
#include "block/driver.h"

static const char *name_of(const struct node *node)
{
    return node->filename ? node->filename : "";
}

/* Space on the host: the driver's own answer, else that of the file it stands on. */
static int64_t allocated_size(struct node *node)
{
    while (node) {
        if (node->driver->allocated_size)
            return node->driver->allocated_size(node);
        node = node->file ? node->file->child : NULL;
    }
    return -ENOTSUP;
}

static struct snapshot_info *describe_snapshot(const struct internal_snapshot *snapshot)
{
    struct snapshot_info *info = new (struct snapshot_info);
    info->id = snapshot->id;
    info->name = snapshot->name;
    info->vm_state_size = (int64_t)snapshot->vm_state_size;
    info->date_sec = snapshot->date_s;
    info->date_nsec = snapshot->date_ns;
    info->vm_clock_sec = (int64_t)(snapshot->vm_clock_ns / 1000000000);
    info->vm_clock_nsec = (int64_t)(snapshot->vm_clock_ns % 1000000000);
    info->has_icount = snapshot->icount != UINT64_MAX;
    info->icount = info->has_icount ? (int64_t)snapshot->icount : 0;
    return info;
}

static bool query_snapshots(struct node *node, struct image_info *info, struct error *err)
{
    struct internal_snapshot *snapshots = NULL;
    size_t count = 0;
    if (!node->driver->snapshots)
        return true;
    if (!node->driver->snapshots->list(node, &snapshots, &count, err))
        return false;
    info->has_snapshots = count != 0;
    info->snapshots = count ? new_array(struct snapshot_info *, count) : NULL;
    info->n_snapshots = count;
    for (size_t i = 0; i < count; i++)
        info->snapshots[i] = describe_snapshot(&snapshots[i]); /* takes its strings over */
    free(snapshots);
    return true;
}

static struct image_info *query_one(struct node *node, struct error *err)
{
    struct image_facts facts = {0};
    if (node->driver->info && !node->driver->info(node, &facts, err))
        return fail_prefix(err, "node '%s': ", node->name), NULL;
    struct image_info *info = new (struct image_info);
    int64_t allocated = allocated_size(node);
    info->filename = xstrdup(name_of(node));
    info->format = xstrdup(node->inactive ? node->inactive->name : node->driver->name);
    info->virtual_size = node->size;
    info->has_actual_size = allocated >= 0;
    info->actual_size = allocated >= 0 ? (uint64_t)allocated : 0;
    info->has_cluster_size = facts.cluster_size != 0;
    info->cluster_size = facts.cluster_size;
    info->has_dirty_flag = facts.has_dirty_flag;
    info->dirty_flag = facts.dirty_flag;
    info->has_compressed = info->compressed = facts.compressed;
    info->has_encrypted = info->encrypted = facts.encrypted;
    info->backing_filename = facts.backing_filename;
    info->full_backing_filename = facts.full_backing_filename;
    info->backing_filename_format = facts.backing_format;
    info->format_specific = facts.specific;
    if (query_snapshots(node, info, err))
        return info;
    image_info_free(info);
    return fail_prefix(err, "node '%s': ", node->name), NULL;
}

static void free_facts(struct image_facts *facts)
{
    free(facts->backing_filename);
    free(facts->full_backing_filename);
    free(facts->backing_format);
    image_info_specific_free(facts->specific);
}

uint64_t node_cluster_size(struct node *node)
{
    for (; node; node = node->file ? node->file->child : NULL) {
        struct image_facts facts = {0};
        if (!node->driver->info || !node->driver->info(node, &facts, NULL))
            continue;
        free_facts(&facts);
        if (node->driver->kind == DRIVER_FORMAT)
            return facts.cluster_size;
    }
    return 0;
}

bool node_compresses(struct node *node)
{
    for (; node; node = node->file ? node->file->child : NULL) {
        struct image_facts facts = {0};
        if (!node->driver->write_compressed)
            return false;
        if (node->driver->kind != DRIVER_FORMAT)
            continue;
        if (!node->driver->info || !node->driver->info(node, &facts, NULL))
            return true;
        free_facts(&facts);
        return !facts.encrypted;
    }
    return false;
}

struct image_info *node_query_image(struct node *node, bool with_backing, struct error *err)
{
    struct image_info *top = query_one(node, err), *info = top;
    while (info && with_backing && (node = node_backing(node))) {
        info->backing_image = query_one(node, err);
        info = info->backing_image;
        if (!info) {
            image_info_free(top);
            return NULL;
        }
    }
    return top;
}

struct block_graph_info *node_query_graph(struct node *node, struct error *err)
{
    struct image_info *info = query_one(node, err);
    if (!info)
        return NULL;
    struct block_graph_info *graph = new (struct block_graph_info);
    /* Both types take these members from one base in the schema; what is not owned is copied, the rest moves over. */
#define MOVE(member) (graph->member = info->member, info->member = (__typeof__(info->member)){0})
    MOVE(has_snapshots);
    MOVE(n_snapshots);
    MOVE(snapshots);
    MOVE(backing_filename_format);
    MOVE(virtual_size);
    MOVE(filename);
    MOVE(has_cluster_size);
    MOVE(cluster_size);
    MOVE(format);
    MOVE(has_actual_size);
    MOVE(actual_size);
    MOVE(has_encrypted);
    MOVE(encrypted);
    MOVE(has_compressed);
    MOVE(compressed);
    MOVE(format_specific);
    MOVE(full_backing_filename);
    MOVE(backing_filename);
    MOVE(has_dirty_flag);
    MOVE(dirty_flag);
#undef MOVE
    image_info_free(info);

    size_t count = 0;
    struct edge *edge;
    list_for_each (edge, &node->children, parent_link)
        count++;
    graph->children = new_array(struct block_child_info *, count);
    list_for_each (edge, &node->children, parent_link) {
        if (edge == node->backing)
            continue;
        struct block_child_info *child = new (struct block_child_info);
        graph->children[graph->n_children++] = child;
        child->name = xstrdup(edge->role);
        child->info = node_query_graph(edge->child, err);
        if (!child->info) {
            block_graph_info_free(graph);
            return NULL;
        }
    }
    return graph;
}

static void query_bitmaps(const struct node *node, struct block_device_info *info)
{
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        struct block_dirty_info *dirty = block_dirty_info_new();
        dirty->name = xstrdup(bitmap->name);
        dirty->count = (int64_t)dirty_bitmap_count(bitmap);
        dirty->granularity = bitmap->granularity;
        dirty->recording = bitmap->recording && !bitmap->inconsistent;
        dirty->busy = bitmap->busy != 0;
        dirty->persistent = bitmap->persistent;
        dirty->has_inconsistent = dirty->inconsistent = bitmap->inconsistent;
        schema_list_append(&info->n_dirty_bitmaps, (void ***)&info->dirty_bitmaps, dirty);
        info->has_dirty_bitmaps = true;
    }
}

struct block_device_info *node_query_device(struct node *node, bool flat, struct error *err)
{
    struct image_info *image = node_query_image(node, !flat, err);
    if (!image)
        return NULL;
    struct block_device_info *info = new (struct block_device_info);
    struct node *backing = node_backing(node);
    info->file = xstrdup(name_of(node));
    info->node_name = xstrdup(node->name);
    info->drv = xstrdup(node->inactive ? node->inactive->name : node->driver->name);
    info->ro = node->read_only;
    info->active = !node->inactive;
    info->backing_file = backing ? xstrdup(name_of(backing)) : NULL;
    for (; backing; backing = node_backing(backing))
        info->backing_file_depth++;
    info->detect_zeroes = (enum blockdev_detect_zeroes_options)node->detect_zeroes;
    info->image = image;
    info->encrypted = image->encrypted;
    info->write_threshold = (int64_t)node->write_threshold;
    query_bitmaps(node, info);
    info->cache = new (struct blockdev_cache_info);
    info->cache->writeback = true;
    info->cache->direct = node->direct;
    info->cache->no_flush = node->no_flush;
    return info;
}
