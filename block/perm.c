/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Permissions: two parents of a node may disagree, and both must hear who the other one is. Each parent says what it
 * needs and what it lets the others do; a change is checked against every other parent and then handed down, since a
 * node's own needs may follow from its parents' (raw), or become locks on a file.
 *
 * A change has two halves. check() takes whatever is new and fails without a trace; apply() records the change and lets
 * go of what is not needed any more. Applying the old values takes a check back.
 */
#include "block/internal.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"

#define PERM_MODIFY (BLOCK_PERM_WRITE | BLOCK_PERM_WRITE_UNCHANGED | BLOCK_PERM_RESIZE)

static const struct {
    uint32_t bit;
    const char *name;
} permission_names[] = {
    {BLOCK_PERM_CONSISTENT_READ, "consistent read"},
    {BLOCK_PERM_WRITE, "write"},
    {BLOCK_PERM_WRITE_UNCHANGED, "write unchanged"},
    {BLOCK_PERM_RESIZE, "resize"},
};

static char *names_of(uint32_t perm)
{
    auto_strbuf text = {0};
    for (size_t i = 0; i < ARRAY_SIZE(permission_names); i++) {
        if (perm & permission_names[i].bit)
            strbuf_printf(&text, "%s%s", text.length ? ", " : "", permission_names[i].name);
    }
    return strbuf_take(&text);
}

/* "node 'top' (as its file)" or what a root edge calls itself. */
static char *name_of(const struct edge *edge)
{
    return edge->parent ? xasprintf("node '%s' (as its %s)", edge->parent->name, edge->role) : xstrdup(edge->role);
}

static bool conflict(const struct edge *needs, const struct edge *refuses, uint32_t perm, struct error *err)
{
    auto_free char *user = name_of(needs), *other = name_of(refuses), *what = names_of(perm);
    return fail(err, EPERM, "Conflicting use of node '%s': %s needs '%s', which %s does not allow others",
                needs->child->name, user, what, other);
}

void node_cumulative_perm(const struct node *node, uint32_t *perm, uint32_t *shared)
{
    *perm = 0;
    *shared = BLOCK_PERM_ALL;
    const struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        *perm |= edge->perm;
        *shared &= edge->shared;
    }
}

/* What a format needs of its backing node follows from what its parents need of it: an overlay whose content nobody
 * relies on (a job fills it, or it is not in use yet) does not mind changes below. */
void perm_for_backing(const struct node *parent, const struct edge *edge, uint32_t perm, uint32_t *backing_perm,
                      uint32_t *backing_shared)
{
    bool is_relied_on = perm & BLOCK_PERM_CONSISTENT_READ;
    *backing_perm = perm & BLOCK_PERM_CONSISTENT_READ;
    *backing_shared = BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    if (!is_relied_on || parent->force_share || (edge && edge->guarded))
        *backing_shared = BLOCK_PERM_ALL;
}

static bool check_below(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    if (node->driver->check_perm && !node->driver->check_perm(node, perm, shared, err))
        return false;
    if (!node->backing || node->driver->kind == DRIVER_FILTER)
        return true;
    uint32_t backing_perm, backing_shared;
    perm_for_backing(node, node->backing, perm, &backing_perm, &backing_shared);
    return edge_check_perm(node->backing, backing_perm, backing_shared, err);
}

/* The parents' needs, as they are recorded, reach those below. */
void perm_apply_below(struct node *node)
{
    uint32_t perm, shared;
    node_cumulative_perm(node, &perm, &shared);
    if (node->driver->set_perm)
        node->driver->set_perm(node, perm, shared);
    if (node->backing && node->driver->kind != DRIVER_FILTER) {
        uint32_t backing_perm, backing_shared;
        perm_for_backing(node, node->backing, perm, &backing_perm, &backing_shared);
        edge_apply_perm(node->backing, backing_perm, backing_shared);
    }
}

static bool check_writable(const struct edge *edge, uint32_t perm, struct error *err)
{
    const struct node *node = edge->child;
    bool may_become_writable = node->auto_read_only && node->driver->check_perm;
    if (!(perm & PERM_MODIFY) || !node->read_only || may_become_writable)
        return true;
    auto_free char *user = name_of(edge);
    return fail(err, EACCES, "Block node '%s' is read-only, but %s needs to write", node->name, user);
}

/* With what its parents have recorded: for nodes whose parents have changed altogether. */
bool perm_check_parents(struct node *node, struct error *err)
{
    uint32_t all_perm, all_shared;
    const struct edge *edge, *other;
    list_for_each (edge, &node->parents, child_link) {
        if (!check_writable(edge, edge->perm, err))
            return false;
        list_for_each (other, &node->parents, child_link) {
            if (other != edge && (edge->perm & ~other->shared))
                return conflict(edge, other, edge->perm & ~other->shared, err);
        }
    }
    node_cumulative_perm(node, &all_perm, &all_shared);
    return check_below(node, all_perm, all_shared, err);
}

bool edge_check_perm(struct edge *edge, uint32_t perm, uint32_t shared, struct error *err)
{
    struct node *node = edge->child;
    if (!check_writable(edge, perm, err))
        return false;
    uint32_t all_perm = perm, all_shared = shared;
    const struct edge *other;
    list_for_each (other, &node->parents, child_link) {
        if (other == edge)
            continue;
        if (perm & ~other->shared)
            return conflict(edge, other, perm & ~other->shared, err);
        if (other->perm & ~shared)
            return conflict(other, edge, other->perm & ~shared, err);
        all_perm |= other->perm;
        all_shared &= other->shared;
    }
    /* The driver may yield. What we are about to get must be visible to those who check meanwhile. */
    uint32_t old_perm = edge->perm, old_shared = edge->shared;
    edge->perm |= perm;
    edge->shared &= shared;
    if (check_below(node, all_perm, all_shared, err))
        return true;
    edge->perm = old_perm;
    edge->shared = old_shared;
    perm_apply_below(node);
    return false;
}

void edge_apply_perm(struct edge *edge, uint32_t perm, uint32_t shared)
{
    edge->perm = perm;
    edge->shared = shared;
    perm_apply_below(edge->child);
}

bool edge_set_perm(struct edge *edge, uint32_t perm, uint32_t shared, struct error *err)
{
    if (!edge_check_perm(edge, perm, shared, err))
        return false;
    edge_apply_perm(edge, perm, shared);
    return true;
}

bool node_pass_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return edge_check_perm(node->file, perm, shared, err);
}

void node_pass_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (!node->file) /* the file edge is being removed */
        return;
    edge_apply_perm(node->file, perm, shared);
    node->read_only = node->options_read_only || node->file->child->read_only;
}
