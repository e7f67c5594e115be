/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's QMP commands: each finds the thing it is about and calls the folder that owns it. */
#include "base/alloc.h"
#include "block/export.h"
#include "block/node.h"
#include "block/query.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/iothreads.h"

/* Nodes ---------------------------------------------------------------------------------------------------------- */

bool qmp_blockdev_add(struct qmp_context *context, struct blockdev_options *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    if (!arg->node_name)
        return fail(err, EINVAL, "'node-name' must be specified for the root node");
    return graph_add(daemon->graph, arg, err);
}

bool qmp_blockdev_del(struct qmp_context *context, struct q_blockdev_del_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    if (!graph_del(daemon->graph, arg->node_name, err))
        return false;
    iothreads_forget_node(daemon->iothreads, arg->node_name);
    return true;
}

bool qmp_blockdev_reopen(struct qmp_context *context, struct q_blockdev_reopen_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return graph_reopen(daemon->graph, arg->options, arg->n_options, err);
}

bool qmp_query_named_block_nodes(struct qmp_context *context, struct q_query_named_block_nodes_arg *arg,
                                 struct block_device_info_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct block_device_info_list *list = new (struct block_device_info_list);
    struct node *next, *first = graph_next(daemon->graph, NULL);
    if (first)
        node_ref(first); /* describing it yields */
    for (struct node *node = first; node; node = next) {
        struct block_device_info *info = node_query_device(node, arg->flat, err);
        next = info ? graph_next(daemon->graph, node) : NULL;
        if (next)
            node_ref(next); /* letting go of this one may yield, too */
        node_unref(node);
        if (!info) {
            block_device_info_list_free(list);
            return false;
        }
        list->items = xrealloc_array(list->items, list->n + 1, sizeof *list->items);
        list->items[list->n++] = info;
    }
    *ret = list;
    return true;
}

/* Exports -------------------------------------------------------------------------------------------------------- */

bool qmp_block_export_add(struct qmp_context *context, struct block_export_options *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return export_add(daemon->exports, arg, err) != NULL;
}

bool qmp_block_export_del(struct qmp_context *context, struct q_block_export_del_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return export_remove(daemon->exports, arg->id, arg->mode == BLOCK_EXPORT_REMOVE_MODE_HARD, err);
}

bool qmp_query_block_exports(struct qmp_context *context, struct block_export_info_list **ret, struct error *err)
{
    struct daemon *daemon = context->app;
    struct block_export_info_list *list = new (struct block_export_info_list);
    for (struct block_export *export = export_next(daemon->exports, NULL); export;
         export = export_next(daemon->exports, export)) {
        struct block_export_info *info = new (struct block_export_info);
        info->id = xstrdup(export->id);
        info->type = export->driver->type;
        info->node_name = xstrdup(export->edge->child->name);
        info->shutting_down = export->shutting_down;
        list->items = xrealloc_array(list->items, list->n + 1, sizeof *list->items);
        list->items[list->n++] = info;
    }
    *ret = list;
    return true;
}
