/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Backing images are opened read-only. A job that must write one (the base of a commit, an overlay further down whose
 * header names another backing file) has it reopened with its files, by the way of blockdev-reopen: with its own
 * options, but for read-only.
 */
#include "block/jobs/private.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/driver.h"

static bool needs_reopen(const struct node *node)
{
    return node->options_read_only;
}

static struct blockdev_ref *reference_to(const struct node *node)
{
    struct blockdev_ref *ref = blockdev_ref_new();
    ref->kind = BLOCKDEV_REF_KIND_REFERENCE;
    ref->u.reference = xstrdup(node->name);
    return ref;
}

static const struct node *child_of(const struct node *node, const char *role)
{
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        if (!strcmp(edge->role, role))
            return edge->child;
    }
    return NULL;
}

/* Children that were defined inside the options are nodes by now, and are referred to. The backing node stays what it
 * is: absent. */
static void refer_to_children(const struct node *node, struct blockdev_options *options)
{
    if (node->driver->kind == DRIVER_PROTOCOL || !node->file)
        return;
    struct blockdev_options_generic_format *format = (void *)&options->u;
    blockdev_ref_free(format->file);
    format->file = reference_to(node->file->child);
    if (options->driver != BLOCKDEV_DRIVER_QCOW2)
        return;
    struct blockdev_options_qcow2 *qcow2 = &options->u.qcow2;
    const struct node *data_file = child_of(node, "data-file");
    blockdev_ref_or_null_free(TAKE(qcow2->backing));
    blockdev_ref_free(TAKE(qcow2->data_file));
    if (data_file)
        qcow2->data_file = reference_to(data_file);
}

static struct blockdev_options *options_for(const struct node *node, bool read_only)
{
    struct blockdev_options *options = blockdev_options_clone(node->options);
    if (!options->node_name)
        options->node_name = xstrdup(node->name);
    options->has_read_only = true;
    options->read_only = read_only;
    refer_to_children(node, options);
    return options;
}

static bool reopen_one(struct node *node, bool read_only, struct error *err)
{
    auto_blockdev_options *options = options_for(node, read_only);
    return graph_reopen(node->graph, &options, 1, err);
}

static void collect(struct made_writable *made, struct node *node)
{
    if (needs_reopen(node) && made->count < ARRAY_SIZE(made->nodes)) {
        node_ref(node);
        made->nodes[made->count++] = node;
    }
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        if (edge != node->backing)
            collect(made, edge->child);
    }
}

/* Files first: the image above takes the permission to write as soon as it is writable. */
bool make_writable(struct node *node, struct made_writable *made, struct error *err)
{
    collect(made, node);
    for (unsigned i = made->count; i > 0; i--) {
        if (reopen_one(made->nodes[i - 1], false, err))
            continue;
        for (; i < made->count; i++)
            reopen_one(made->nodes[i], true, NULL);
        stay_writable(made);
        return false;
    }
    return true;
}

void stay_writable(struct made_writable *made)
{
    for (unsigned i = 0; i < made->count; i++)
        node_unref(made->nodes[i]);
    made->count = 0;
}

void make_read_only_again(struct made_writable *made)
{
    auto_error err = {0};
    for (unsigned i = 0; i < made->count; i++) {
        if (!reopen_one(made->nodes[i], true, &err)) {
            log_error("%s", err.message);
            break;
        }
    }
    stay_writable(made);
}
