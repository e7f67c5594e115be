/* SPDX-License-Identifier: Apache-2.0 */
/* QMP commands that change nodes in use, and those that show what they do. */
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "block/active.h"
#include "block/children.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/job.h"
#include "block/jobs/chain.h"
#include "block/latency.h"
#include "block/node.h"
#include "qmp/schema/commands.h"
#include "qmp/schema/events.h"
#include "qmp/server.h"
#include "storage-daemon/action.h"

/* Changes --------------------------------------------------------------------------------------------------------- */

bool qmp_block_resize(struct qmp_context *context, struct q_block_resize_arg *arg, struct error *err)
{
    if (!arg->device == !arg->node_name)
        return fail(err, EINVAL, "Need exactly one of 'device' and 'node-name'");
    struct node *node = daemon_find_node(context->app, arg->device ? arg->device : arg->node_name, err);
    struct edge *edge =
        node ? edge_attach(NULL, "block_resize", node, BLOCK_PERM_RESIZE | BLOCK_PERM_WRITE, BLOCK_PERM_ALL, err)
             : NULL;
    bool ok = edge && node_resize(edge, (uint64_t)arg->size, PREALLOCATION_OFF, true, err);
    edge_detach(edge);
    return ok;
}

bool qmp_block_set_write_threshold(struct qmp_context *context, struct q_block_set_write_threshold_arg *arg,
                                   struct error *err)
{
    struct node *node = daemon_find_node(context->app, arg->node_name, err);
    if (node)
        node->write_threshold = arg->write_threshold;
    return node != NULL;
}

bool qmp_change_backing_file(struct qmp_context *context, struct q_change_backing_file_arg *arg, struct error *err)
{
    struct node *device = daemon_find_node(context->app, arg->device, err);
    struct node *image = device ? daemon_find_node(context->app, arg->image_node_name, err) : NULL;
    if (!image)
        return false;
    if (!chain_has(device, image))
        return fail(err, EINVAL, "'%s' and image file are not in the same chain", arg->device);
    struct node *backing = node_backing(image);
    if (!backing)
        return fail(err, EINVAL, "not allowing backing file change on an image without a backing file");
    return chain_rename_backing(image, *arg->backing_file ? backing : NULL, arg->backing_file, false, err);
}

bool qmp_blockdev_set_active(struct qmp_context *context, struct q_blockdev_set_active_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    if (!arg->node_name)
        return graph_set_active(daemon->graph, arg->active, err);
    struct node *node = daemon_find_node(daemon, arg->node_name, err);
    return node && (arg->active ? node_activate(node, err) : node_deactivate(node, err));
}

bool qmp_x_blockdev_change(struct qmp_context *context, struct q_x_blockdev_change_arg *arg, struct error *err)
{
    struct node *parent = daemon_find_node(context->app, arg->parent, err);
    if (!parent)
        return false;
    if (!arg->child == !arg->node)
        return fail(err, EINVAL, "Need exactly one of 'child', to take it away, and 'node', to add it");
    if (arg->child)
        return node_remove_child(parent, arg->child, err);
    struct node *child = daemon_find_node(context->app, arg->node, err);
    return child && node_add_child(parent, child, err);
}

/* The graph for people -------------------------------------------------------------------------------------------- */

static void add_permissions(uint32_t perm, enum block_permission_name **names, size_t *count)
{
    static const struct {
        uint32_t bit;
        enum block_permission_name name;
    } all[] = {
        {BLOCK_PERM_CONSISTENT_READ, BLOCK_PERMISSION_NAME_CONSISTENT_READ},
        {BLOCK_PERM_WRITE, BLOCK_PERMISSION_NAME_WRITE},
        {BLOCK_PERM_WRITE_UNCHANGED, BLOCK_PERMISSION_NAME_WRITE_UNCHANGED},
        {BLOCK_PERM_RESIZE, BLOCK_PERMISSION_NAME_RESIZE},
    };
    *names = new_array(enum block_permission_name, ARRAY_SIZE(all));
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        if (perm & all[i].bit)
            (*names)[(*count)++] = all[i].name;
    }
}

/* Corners are known by their place in memory: unique, and gone with the answer. */
static uint64_t add_corner(struct x_dbg_block_graph *graph, const void *object, enum x_dbg_block_graph_node_type type,
                           const char *name)
{
    struct x_dbg_block_graph_node *corner = x_dbg_block_graph_node_new();
    corner->id = (uint64_t)(uintptr_t)object;
    corner->type = type;
    corner->name = xstrdup(name);
    schema_list_append(&graph->n_nodes, (void ***)&graph->nodes, corner);
    return corner->id;
}

static void add_edge(struct x_dbg_block_graph *graph, const struct edge *edge)
{
    struct x_dbg_block_graph_edge *line = x_dbg_block_graph_edge_new();
    bool is_job = !edge->parent && !strncmp(edge->role, "job ", 4);
    line->parent = edge->parent ? (uint64_t)(uintptr_t)edge->parent
                                : add_corner(graph, edge,
                                             is_job ? X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_JOB
                                                    : X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_BACKEND,
                                             edge->role);
    line->child = (uint64_t)(uintptr_t)edge->child;
    line->name = xstrdup(edge->parent ? edge->role : "root");
    add_permissions(edge->perm, &line->perm, &line->n_perm);
    add_permissions(edge->shared, &line->shared_perm, &line->n_shared_perm);
    schema_list_append(&graph->n_edges, (void ***)&graph->edges, line);
}

bool qmp_x_debug_query_block_graph(struct qmp_context *context, struct x_dbg_block_graph **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct x_dbg_block_graph *graph = x_dbg_block_graph_new();
    for (struct node *node = graph_next(daemon->graph, NULL); node; node = graph_next(daemon->graph, node)) {
        add_corner(graph, node, X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_DRIVER, node->name);
        struct edge *edge;
        list_for_each (edge, &node->parents, child_link)
            add_edge(graph, edge);
    }
    *ret = graph;
    return true;
}

/* Statistics ------------------------------------------------------------------------------------------------------ */

static struct block_latency_histogram_info *query_histogram(const struct latency_histogram *histogram)
{
    if (!histogram)
        return NULL;
    struct block_latency_histogram_info *info = block_latency_histogram_info_new();
    info->n_boundaries = histogram->n_boundaries;
    info->boundaries = xmemdup(histogram->boundaries, histogram->n_boundaries * sizeof *histogram->boundaries);
    info->n_bins = histogram->n_boundaries + 1;
    info->bins = xmemdup(histogram->bins, info->n_bins * sizeof *histogram->bins);
    return info;
}

static struct block_device_stats *query_stats(const struct node *node)
{
    const struct block_stats *stats = &node->stats;
    struct block_device_stats *info = block_device_stats_new();
    info->rd_bytes = (int64_t)stats->read_bytes;
    info->wr_bytes = (int64_t)(stats->write_bytes + stats->zero_bytes);
    info->unmap_bytes = (int64_t)stats->discard_bytes;
    info->rd_operations = (int64_t)stats->read_operations;
    info->wr_operations = (int64_t)(stats->write_operations + stats->zero_operations);
    info->flush_operations = (int64_t)stats->flush_operations;
    info->unmap_operations = (int64_t)stats->discard_operations;
    info->rd_total_time_ns = (int64_t)stats->read_ns;
    info->wr_total_time_ns = (int64_t)stats->write_ns;
    info->flush_total_time_ns = (int64_t)stats->flush_ns;
    info->unmap_total_time_ns = (int64_t)stats->discard_ns;
    info->wr_highest_offset = (int64_t)stats->highest_write_offset;
    info->has_idle_time_ns = stats->last_ns != 0;
    info->idle_time_ns = stats->last_ns ? (int64_t)(loop_now_ns(node->loop) - stats->last_ns) : 0;
    info->failed_rd_operations = (int64_t)(stats->failed_reads - stats->invalid_reads);
    info->failed_wr_operations = (int64_t)(stats->failed_writes - stats->invalid_writes);
    info->failed_flush_operations = (int64_t)stats->failed_flushes;
    info->failed_unmap_operations = (int64_t)(stats->failed_discards - stats->invalid_discards);
    info->invalid_rd_operations = (int64_t)stats->invalid_reads;
    info->invalid_wr_operations = (int64_t)stats->invalid_writes;
    info->invalid_unmap_operations = (int64_t)stats->invalid_discards;
    info->account_invalid = info->account_failed = true;
    info->rd_latency_histogram = query_histogram(stats->histograms[LATENCY_READ]);
    info->wr_latency_histogram = query_histogram(stats->histograms[LATENCY_WRITE]);
    info->flush_latency_histogram = query_histogram(stats->histograms[LATENCY_FLUSH]);
    return info;
}

static struct block_node_stats *query_one(const struct node *node)
{
    struct block_node_stats *info = block_node_stats_new();
    info->node_name = xstrdup(node->name);
    info->stats = query_stats(node);
    if (node->file)
        info->parent = query_one(node->file->child);
    if (node->backing)
        info->backing = query_one(node->backing->child);
    return info;
}

/* Without devices there is nothing to tell unless nodes are asked for. */
bool qmp_query_blockstats(struct qmp_context *context, struct q_query_blockstats_arg *arg,
                          struct block_node_stats_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct block_node_stats_list *list = block_node_stats_list_new();
    for (struct node *node = graph_next(daemon->graph, NULL); arg->query_nodes && node;
         node = graph_next(daemon->graph, node))
        block_node_stats_list_append(list, query_one(node));
    *ret = list;
    return true;
}

bool qmp_query_block(struct qmp_context *context, struct block_info_list **ret, struct error *err)
{
    *ret = block_info_list_new();
    return true;
}

bool qmp_block_latency_histogram_set(struct qmp_context *context, struct q_block_latency_histogram_set_arg *arg,
                                     struct error *err)
{
    struct node *node = daemon_find_node(context->app, arg->id, err);
    if (!node)
        return false;
    const struct {
        bool has;
        const uint64_t *boundaries;
        size_t count;
    } own[] = {
        [LATENCY_READ] = {arg->has_boundaries_read, arg->boundaries_read, arg->n_boundaries_read},
        [LATENCY_WRITE] = {arg->has_boundaries_write, arg->boundaries_write, arg->n_boundaries_write},
        [LATENCY_FLUSH] = {arg->has_boundaries_flush, arg->boundaries_flush, arg->n_boundaries_flush},
    };
    bool none = !arg->has_boundaries;
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        none &= !own[i].has;
    for (size_t i = 0; i < ARRAY_SIZE(own); i++) {
        if (!none && !own[i].has && !arg->has_boundaries)
            continue; /* stays as it is */
        const uint64_t *boundaries = own[i].has ? own[i].boundaries : arg->boundaries;
        size_t count = own[i].has ? own[i].count : arg->n_boundaries;
        if (!latency_set_histogram(node, (enum latency_kind)i, boundaries, count, err))
            return false;
    }
    return true;
}
