/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of a graph in use: another node takes the place of one (a filter that is put above it, an overlay, the copy
 * that a mirror has made), or an overlay gets another backing node. Everything is drained meanwhile, so no request sees
 * half a change. In order: the edges move; the new whole is checked, which takes new locks and fails without a trace;
 * then it is applied, which lets go of old ones; or the edges move back.
 */
#include "block/internal.h"

#include "base/cleanup.h"
#include "base/vec.h"

vec_of(edge_set, struct edge *);

bool node_is_below(const struct node *node, const struct node *wanted)
{
    if (node == wanted)
        return true;
    const struct edge *edge;
    list_for_each (edge, &node->children, parent_link) {
        if (node_is_below(edge->child, wanted))
            return true;
    }
    return false;
}

static struct edge_set edges_to_move(struct node *from, const struct node *to)
{
    struct edge_set set = {0};
    struct edge *edge;
    list_for_each (edge, &from->parents, child_link) {
        if (!edge->parent || !node_is_below(to, edge->parent))
            vec_push(&set, edge);
    }
    return set;
}

static void move(struct edge_set *set, struct node *to)
{
    struct edge **edge;
    vec_for_each (edge, set) {
        list_remove(&(*edge)->child_link);
        (*edge)->child = to;
        list_append(&to->parents, &(*edge)->child_link);
    }
    drain_refresh(to);
}

static void tell_size(struct edge_set *set)
{
    struct edge **edge;
    vec_for_each (edge, set) {
        if (!(*edge)->parent && (*edge)->resized)
            (*edge)->resized((*edge)->user);
    }
}

static bool replace_drained(struct node *from, struct node *to, struct error *err)
{
    auto_free struct edge_set set = edges_to_move(from, to);
    move(&set, to);
    drain_refresh(from);
    /* Where `from` stands above `to` (a filter is taken out), what it does not need any more makes room. */
    if (node_is_below(from, to))
        perm_apply_below(from);
    if (!perm_check_parents(to, err)) {
        move(&set, from);
        drain_refresh(to);
        perm_check_parents(from, NULL); /* had it all a moment ago, drained since */
        perm_apply_below(to);
        perm_apply_below(from);
        return false;
    }
    perm_apply_below(to);
    perm_apply_below(from);
    for (size_t i = 0; i < set.count; i++) {
        node_ref(to);
        node_unref(from); /* the caller has one more */
    }
    if (from->size != to->size)
        tell_size(&set);
    return true;
}

bool node_replace(struct node *from, struct node *to, struct error *err)
{
    node_drain_begin(from);
    node_drain_begin(to);
    bool ok = replace_drained(from, to, err);
    node_drain_end(to);
    node_drain_end(from);
    return ok;
}

bool node_set_backing(struct node *node, struct node *backing, struct error *err)
{
    struct node *old = node->backing ? node->backing->child : NULL;
    if (old == backing)
        return true;
    node_drain_begin(node);
    if (old)
        node_ref(old);
    edge_detach(node->backing);
    bool ok = !backing || edge_attach(node, "backing", backing, 0, BLOCK_PERM_ALL, err);
    if (!ok && old)
        edge_attach(node, "backing", old, 0, BLOCK_PERM_ALL, NULL); /* was there a moment ago, drained since */
    node_drain_end(node);
    if (old)
        node_unref(old);
    return ok;
}
