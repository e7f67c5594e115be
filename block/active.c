/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inactive nodes. To deactivate a node is to close it and keep its name and options; its driver is replaced by one that
 * refuses every request, so that the request path knows nothing of this. An export that allows it stays, with its edge
 * asking for nothing meanwhile.
 *
 * Children that were named follow: before a node becomes active, they do; after it has become inactive, those that no
 * active node uses. Children that were defined inside of it come and go with it.
 */
#include "block/active.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "block/dirty_bitmap.h"
#include "block/internal.h"
#include "qmp/schema/types.h"
#include "qmp/schema/walk.h"

vec_of(name_set, char *);

static int inactive_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    return -EPERM;
}

static int inactive_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    return -EPERM;
}

static int inactive_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    return -EPERM;
}

static bool inactive_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    return !perm ||
           fail(err, EBUSY, "Node '%s' is inactive: it can be used when blockdev-set-active has made it active",
                node->name);
}

static const struct block_driver inactive_driver = {
    .name = "inactive",
    .kind = DRIVER_PROTOCOL,
    .read = inactive_read,
    .write = inactive_write,
    .extents = inactive_extents,
    .check_perm = inactive_check_perm,
};

void node_be_inactive(struct node *node)
{
    node->inactive = node->driver;
    node->driver = &inactive_driver;
}

/* References in options ------------------------------------------------------------------------------------------- */

static void visit_options(struct blockdev_options *options, void (*visit)(struct blockdev_ref *ref, void *user),
                          void *user);

/* The two alternates differ in the order of their kinds. */
static void visit_ref_or_null(struct blockdev_ref_or_null *ref, void (*visit)(struct blockdev_ref *ref, void *user),
                              void *user)
{
    struct blockdev_ref plain = {0};
    if (ref->kind == BLOCKDEV_REF_OR_NULL_KIND_DEFINITION) {
        visit_options(ref->u.definition, visit, user);
    } else if (ref->kind == BLOCKDEV_REF_OR_NULL_KIND_REFERENCE && *ref->u.reference) {
        plain.kind = BLOCKDEV_REF_KIND_REFERENCE;
        plain.u.reference = ref->u.reference;
        visit(&plain, user);
        ref->kind = plain.kind == BLOCKDEV_REF_KIND_DEFINITION ? BLOCKDEV_REF_OR_NULL_KIND_DEFINITION : ref->kind;
        if (plain.kind == BLOCKDEV_REF_KIND_DEFINITION)
            ref->u.definition = plain.u.definition;
    }
}

static void visit_value(const struct schema_type *type, void *value,
                        void (*visit)(struct blockdev_ref *ref, void *user), void *user)
{
    if (type == &blockdev_ref_or_null_type) {
        visit_ref_or_null(value, visit, user);
    } else if (type == &blockdev_ref_type) {
        struct blockdev_ref *ref = value;
        if (ref->kind == BLOCKDEV_REF_KIND_DEFINITION)
            visit_options(ref->u.definition, visit, user);
        else
            visit(ref, user);
    }
}

/* Every name of a node in the options of one, at any depth. `visit` may put a definition in its place. */
static void visit_options(struct blockdev_options *options, void (*visit)(struct blockdev_ref *ref, void *user),
                          void *user)
{
    const struct schema_type *branch = blockdev_options_type.branches[options->driver].type;
    for (unsigned i = 0; branch && i < branch->n_members; i++) {
        const struct schema_member *member = &branch->members[i];
        bool is_child = member->type == &blockdev_ref_type || member->type == &blockdev_ref_or_null_type;
        if (!is_child || !schema_is_present(member, &options->u))
            continue;
        bool is_list = member->flags & SCHEMA_IS_LIST;
        void **values = is_list ? schema_items(member, &options->u) : schema_slot(member, &options->u);
        size_t count = is_list ? *schema_count(member, &options->u) : 1;
        for (size_t n = 0; n < count; n++)
            visit_value(member->type, values[n], visit, user);
    }
}

static void collect_name(struct blockdev_ref *ref, void *user)
{
    struct name_set *names = user;
    vec_push(names, xstrdup(ref->u.reference));
}

/* In the order of the options; the caller frees the names and the set. */
static struct name_set named_children(const struct node *node)
{
    struct name_set names = {0};
    visit_options(node->options, collect_name, &names);
    return names;
}

static void free_names(struct name_set *names)
{
    char **name;
    vec_for_each (name, names)
        free(*name);
    vec_free(names);
}

/* Looking at an image ---------------------------------------------------------------------------------------------- */

/* Reading without locks, as nobody's node. */
static void only_look(struct blockdev_options *options)
{
    free(TAKE(options->node_name));
    options->has_read_only = options->has_force_share = true;
    options->read_only = options->force_share = true;
    options->has_auto_read_only = options->auto_read_only = false;
    options->active = true;
    options->detect_zeroes = BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF;
}

static void define_inactive(struct blockdev_ref *ref, void *user)
{
    const struct graph *graph = user;
    const struct node *node = graph_find(graph, ref->u.reference);
    if (!node || !node->inactive)
        return;
    struct blockdev_options *definition = blockdev_options_clone(node->options);
    only_look(definition);
    visit_options(definition, define_inactive, user);
    free(ref->u.reference);
    ref->kind = BLOCKDEV_REF_KIND_DEFINITION;
    ref->u.definition = definition;
}

bool graph_look_at(struct graph *graph, const struct blockdev_options *options, uint64_t *size, struct error *err)
{
    auto_blockdev_options *copy = blockdev_options_clone(options);
    only_look(copy);
    visit_options(copy, define_inactive, graph);
    struct node *node = node_open(graph, copy, err);
    if (!node)
        return false;
    *size = node->size;
    node_unref(node);
    return true;
}

/* Handing over ----------------------------------------------------------------------------------------------------- */

static void detach_all(struct node *node)
{
    while (!list_empty(&node->children))
        edge_detach(list_first(&node->children, struct edge, parent_link));
}

/* They are in the image now, and are loaded from it again. */
static void forget_stored_bitmaps(struct node *node)
{
    struct dirty_bitmap *bitmap;
    list_for_each_safe (bitmap, &node->bitmaps, link) {
        if (bitmap->persistent)
            dirty_bitmap_free(bitmap);
    }
}

/* Somebody who needs the node to be active, or NULL. */
static const struct edge *find_user(const struct node *node)
{
    const struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        if (!edge->allows_inactive)
            return edge;
    }
    return NULL;
}

static bool check_users(const struct node *node, struct error *err)
{
    const struct edge *user = find_user(node);
    if (user)
        return fail(err, EBUSY, "Node '%s' cannot be inactive: it is in use by %s%s%s", node->name,
                    user->parent ? "node '" : "", user->parent ? user->parent->name : user->role,
                    user->parent ? "'" : "");
    const struct dirty_bitmap *bitmap;
    list_for_each (bitmap, &node->bitmaps, link) {
        if (bitmap->busy)
            return fail(err, EBUSY, "Node '%s' cannot be inactive: its bitmap '%s' is in use", node->name,
                        bitmap->name ? bitmap->name : "of a job");
    }
    return true;
}

static void rest_users(struct node *node)
{
    struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        edge->active_perm = edge->perm;
        edge->active_shared = edge->shared;
        edge_apply_perm(edge, 0, BLOCK_PERM_ALL);
    }
}

static bool resume_users(struct node *node, struct error *err)
{
    struct edge *edge;
    list_for_each (edge, &node->parents, child_link) {
        if (edge->allows_inactive && !edge_set_perm(edge, edge->active_perm, edge->active_shared, err))
            return false;
    }
    return true;
}

static void become_inactive(struct node *node)
{
    detach_all(node);
    forget_stored_bitmaps(node);
    memset(node->state, 0, node->driver->instance_size);
    free(TAKE(node->filename));
    node_be_inactive(node);
}

static bool close_drained(struct node *node, struct error *err)
{
    int result = node->read_only ? 0 : node_flush(node);
    if (result)
        return fail_errno(err, -result, "Node '%s' could not be flushed", node->name);
    rest_users(node);
    if (node->driver->close)
        node->driver->close(node);
    if (!node->read_only && node->file)
        result = node_flush(node);
    become_inactive(node);
    return !result || fail_errno(err, -result, "Node '%s' is inactive, but could not be flushed", node->name);
}

static bool deactivate_children(struct graph *graph, struct name_set *names, struct error *err)
{
    bool ok = true;
    char **name;
    vec_for_each (name, names) {
        struct node *child = graph_find(graph, *name);
        if (ok && child && !find_user(child))
            ok = node_deactivate(child, err);
    }
    return ok;
}

/* A reopen names children that the node had defined itself. They go with it, so they must be defined again. */
static void define_own(struct blockdev_ref *ref, void *user)
{
    struct node *node = user;
    const struct node *child = graph_find(node->graph, ref->u.reference);
    if (!child || child->monitor_owned || child->parents.next->next != &child->parents)
        return;
    struct blockdev_options *definition = blockdev_options_clone(child->options);
    visit_options(definition, define_own, user);
    free(ref->u.reference);
    ref->kind = BLOCKDEV_REF_KIND_DEFINITION;
    ref->u.definition = definition;
}

bool node_deactivate(struct node *node, struct error *err)
{
    if (node->inactive)
        return true;
    if (!check_users(node, err))
        return false;
    visit_options(node->options, define_own, node);
    struct name_set names = named_children(node);
    node_drain_begin(node);
    bool ok = close_drained(node, err);
    node_drain_end(node);
    ok = ok && deactivate_children(node->graph, &names, err);
    free_names(&names);
    return ok;
}

/* What becomes active here is added to `activated`. */
static bool activate_children(struct node *node, struct name_set *activated, struct error *err)
{
    struct name_set names = named_children(node);
    bool ok = true;
    char **name;
    vec_for_each (name, &names) {
        struct node *child = ok ? graph_find(node->graph, *name) : NULL;
        if (!child || !child->inactive)
            continue;
        ok = node_activate(child, err);
        if (ok)
            vec_push(activated, xstrdup(*name));
    }
    free_names(&names);
    return ok;
}

static bool open_drained(struct node *node, struct error *err)
{
    uint64_t old_size = node->size;
    node->driver = node->inactive;
    if (!node_open_driver(node, err)) {
        detach_all(node);
        memset(node->state, 0, node->driver->instance_size);
        node->driver = &inactive_driver;
        node->size = old_size;
        return false;
    }
    node->inactive = NULL;
    uint64_t size = node->size; /* who had it before may have changed it */
    node->size = old_size;
    node_set_size(node, size);
    if (resume_users(node, err))
        return true;
    struct error ignored = {0};
    (void)close_drained(node, &ignored);
    error_clear(&ignored);
    return false;
}

bool node_activate(struct node *node, struct error *err)
{
    if (!node->inactive)
        return true;
    struct name_set activated = {0};
    bool ok = activate_children(node, &activated, err);
    if (ok) {
        node_drain_begin(node);
        ok = open_drained(node, err);
        node_drain_end(node);
    }
    if (!ok) { /* children must not go on with what they know now, while somebody else has the image */
        struct error ignored = {0};
        (void)deactivate_children(node->graph, &activated, &ignored);
        error_clear(&ignored);
    }
    free_names(&activated);
    return ok;
}

/* The next node that can become what it shall be; NULL: none, and *left says whether there are others. */
static struct node *find_ready(struct graph *graph, bool active, struct node **left)
{
    *left = NULL;
    for (struct node *node = graph_next(graph, NULL); node; node = graph_next(graph, node)) {
        if (!node->monitor_owned || active == !node->inactive)
            continue;
        if (active || !find_user(node))
            return node;
        *left = node;
    }
    return NULL;
}

bool graph_set_active(struct graph *graph, bool active, struct error *err)
{
    struct node *node, *left;
    while ((node = find_ready(graph, active, &left))) {
        if (!(active ? node_activate(node, err) : node_deactivate(node, err)))
            return false;
    }
    return !left || node_deactivate(left, err); /* in use: the error says by whom */
}
