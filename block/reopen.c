/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blockdev-reopen: new options for nodes that are in use, all or none. In order, with everything drained:
 *
 *     1. what can be changed at all is checked, and drivers prepare (a file is opened anew beside the old one);
 *     2. generic options take effect, then children change (permissions of the file of a format that becomes writable
 *        or read-only, the backing node), each step remembered;
 *     3. users of the nodes are checked against what has become of them;
 *     4. drivers commit; or, after any failure, the steps are taken back in reverse and drivers abort.
 *
 * Children are named by reference: an option may say which node is the backing node, not describe a new one.
 */
#include "block/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "qmp/schema/types.h"

/* What the generic options make of a node. */
struct generic_state {
    bool read_only, options_read_only, auto_read_only, force_share, no_flush, direct;
    enum block_discard discard;
    enum block_detect_zeroes detect_zeroes;
};

struct change {
    struct node *node;
    const struct blockdev_options *options;
    struct reopen_state *driver_state;
    bool prepared, switched;
    struct generic_state before;
    bool perm_changed;
    uint32_t file_perm, file_shared; /* before */
    bool backing_changed;
    struct node *new_backing; /* holds a reference while the change is open; NULL = none */
    struct node *old_backing; /* likewise */
    uint32_t backing_perm, backing_shared;
};

static struct generic_state save_generic(const struct node *node)
{
    return (struct generic_state){node->read_only,   node->options_read_only, node->auto_read_only,
                                  node->force_share, node->no_flush,          node->direct,
                                  node->discard,     node->detect_zeroes};
}

static void restore_generic(struct node *node, const struct generic_state *state)
{
    node->read_only = state->read_only;
    node->options_read_only = state->options_read_only;
    node->auto_read_only = state->auto_read_only;
    node->force_share = state->force_share;
    node->no_flush = state->no_flush;
    node->direct = state->direct;
    node->discard = state->discard;
    node->detect_zeroes = state->detect_zeroes;
}

static bool is_format_with_own_needs(const struct node *node)
{
    return node->driver->kind == DRIVER_FORMAT && node->file && !node->driver->check_perm;
}

/* Children -------------------------------------------------------------------------------------------------------- */

static bool has_member(const struct blockdev_options *options, const char *name)
{
    const struct schema_type *branch = blockdev_options_type.branches[options->driver].type;
    for (unsigned i = 0; branch && i < branch->n_members; i++) {
        if (!strcmp(branch->members[i].name, name))
            return true;
    }
    return false;
}

static bool check_file_option(const struct node *node, const struct blockdev_options *options, struct error *err)
{
    if (!node->file || !has_member(options, "file"))
        return true;
    const struct blockdev_ref *ref = ((const struct blockdev_options_generic_format *)&options->u)->file;
    if (ref->kind != BLOCKDEV_REF_KIND_REFERENCE)
        return fail(err, EINVAL, "node '%s': in a reopen, 'file' must be the node-name of its file ('%s')", node->name,
                    node->file->child->name);
    if (strcmp(ref->u.reference, node->file->child->name))
        return fail(err, EINVAL, "Cannot change the option 'file' of node '%s' from '%s' to '%s'", node->name,
                    node->file->child->name, ref->u.reference);
    return true;
}

static bool check_backing_option(struct change *change, struct error *err)
{
    struct node *node = change->node;
    if (!has_member(change->options, "backing"))
        return true;
    const struct blockdev_ref_or_null *ref =
        ((const struct blockdev_options_generic_cow_format *)&change->options->u)->backing;
    if (!ref)
        return true; /* stays as it is */
    struct node *wanted = NULL;
    if (ref->kind == BLOCKDEV_REF_OR_NULL_KIND_DEFINITION)
        return fail(err, EINVAL, "node '%s': in a reopen, 'backing' must be null or the node-name of an existing node",
                    node->name);
    if (ref->kind == BLOCKDEV_REF_OR_NULL_KIND_REFERENCE && ref->u.reference[0]) {
        wanted = graph_find(node->graph, ref->u.reference);
        if (!wanted)
            return fail(err, ENOENT, "Cannot find a node with node-name '%s'", ref->u.reference);
        if (node_is_below(wanted, node))
            return fail(err, ELOOP, "Making '%s' a backing child of '%s' would create a cycle", wanted->name,
                        node->name);
    }
    struct node *now = node->backing ? node->backing->child : NULL;
    if (wanted == now)
        return true;
    change->backing_changed = true;
    change->new_backing = wanted;
    change->old_backing = now;
    if (wanted)
        node_ref(wanted);
    if (now)
        node_ref(now);
    change->backing_perm = node->backing ? node->backing->perm : (uint32_t)BLOCK_PERM_CONSISTENT_READ;
    change->backing_shared =
        node->backing ? node->backing->shared : (uint32_t)(BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED);
    return true;
}

static bool set_backing(struct change *change, struct node *backing, struct error *err)
{
    struct node *node = change->node;
    edge_detach(node->backing);
    return !backing || edge_attach(node, "backing", backing, change->backing_perm, change->backing_shared, err) != NULL;
}

/* Steps ----------------------------------------------------------------------------------------------------------- */

static bool prepare(struct change *change, struct error *err)
{
    struct node *node = change->node;
    if (strcmp(blockdev_driver_name(change->options->driver), node->driver->name))
        return fail(err, EINVAL, "Cannot change the option 'driver' of node '%s' from '%s' to '%s'", node->name,
                    node->driver->name, blockdev_driver_name(change->options->driver));
    if (!check_file_option(node, change->options, err) || !check_backing_option(change, err))
        return false;
    if (!node->read_only && change->options->read_only) {
        int result = node_flush(node);
        if (result)
            return fail_errno(err, -result, "node '%s': flush before becoming read-only failed", node->name);
    }
    if (node->driver->reopen_prepare &&
        !node->driver->reopen_prepare(node, change->options, &change->driver_state, err))
        return false;
    change->prepared = true;
    return true;
}

/* A format writes metadata on its own account while it is writable. */
static bool set_file_needs(struct change *change, struct error *err)
{
    struct node *node = change->node;
    if (!is_format_with_own_needs(node) || node->read_only == change->before.read_only)
        return true;
    struct edge *file = node->file;
    uint32_t modify = BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    uint32_t perm = node->read_only ? file->perm & ~modify : file->perm | modify;
    uint32_t old_perm = file->perm, old_shared = file->shared;
    if (!edge_set_perm(file, perm, file->shared & ~modify, err))
        return false;
    change->perm_changed = true;
    change->file_perm = old_perm;
    change->file_shared = old_shared;
    return true;
}

static bool switch_over(struct change *change, struct error *err)
{
    struct node *node = change->node;
    change->before = save_generic(node);
    change->switched = true;
    if (!node_apply_options(node, change->options, err))
        return false;
    if (change->backing_changed && !set_backing(change, change->new_backing, err))
        return false;
    return true;
}

/* Nobody may be left writing to what has become read-only. */
static bool check_users(const struct change *change, struct error *err)
{
    const struct node *node = change->node;
    uint32_t modify = BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    const struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        if (node->read_only && (edge->perm & modify))
            return fail(err, EBUSY, "Cannot make block node '%s' read-only: %s%s%s is writing to it", node->name,
                        edge->parent ? "node '" : "", edge->parent ? edge->parent->name : edge->role,
                        edge->parent ? "'" : "");
    }
    return true;
}

static void commit(struct change *change)
{
    struct node *node = change->node;
    if (node->driver->reopen_commit)
        node->driver->reopen_commit(node, change->driver_state);
    blockdev_options_free(node->options);
    node->options = blockdev_options_clone(change->options);
    if (!node->limits.request_alignment)
        node->limits.request_alignment = 1;
    if (!node->limits.memory_alignment)
        node->limits.memory_alignment = 1;
}

static void take_back(struct change *change)
{
    struct node *node = change->node;
    if (change->switched)
        restore_generic(node, &change->before);
    if (change->perm_changed)
        edge_apply_perm(node->file, change->file_perm, change->file_shared);
    if (change->switched && change->backing_changed)
        set_backing(change, change->old_backing, NULL); /* was there a moment ago, drained since */
    if (change->prepared && node->driver->reopen_abort)
        node->driver->reopen_abort(node, change->driver_state);
}

static bool run(struct change *changes, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!prepare(&changes[i], err))
            return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!switch_over(&changes[i], err))
            return false;
    }
    /* All nodes are what they will be; now needs and users must fit. Those that become read-only let go first. */
    for (int becomes_writable = 0; becomes_writable < 2; becomes_writable++) {
        for (size_t i = 0; i < count; i++) {
            if (changes[i].node->read_only != becomes_writable && !set_file_needs(&changes[i], err))
                return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (!check_users(&changes[i], err))
            return false;
    }
    return true;
}

static bool find_nodes(struct graph *graph, struct blockdev_options *const *options, size_t count,
                       struct change *changes, struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!options[i]->node_name)
            return fail(err, EINVAL, "Every entry of 'options' needs a 'node-name'");
        changes[i].options = options[i];
        changes[i].node = graph_find(graph, options[i]->node_name);
        if (!changes[i].node)
            return fail(err, ENOENT, "Failed to find node with node-name='%s'", options[i]->node_name);
        for (size_t j = 0; j < i; j++) {
            if (changes[j].node == changes[i].node)
                return fail(err, EINVAL, "Node '%s' is listed twice", options[i]->node_name);
        }
    }
    return true;
}

bool graph_reopen(struct graph *graph, struct blockdev_options *const *options, size_t count, struct error *err)
{
    auto_free struct change *changes = new_array(struct change, count + 1);
    if (!find_nodes(graph, options, count, changes, err))
        return false;
    for (size_t i = 0; i < count; i++)
        node_drain_begin(changes[i].node);
    bool ok = run(changes, count, err);
    for (size_t i = 0; ok && i < count; i++)
        commit(&changes[i]);
    for (size_t i = count; !ok && i > 0; i--)
        take_back(&changes[i - 1]);
    for (size_t i = count; i > 0; i--)
        node_drain_end(changes[i - 1].node);
    for (size_t i = 0; i < count; i++) {
        if (changes[i].new_backing)
            node_unref(changes[i].new_backing);
        if (changes[i].old_backing)
            node_unref(changes[i].old_backing);
    }
    return ok;
}
