/* SPDX-License-Identifier: Apache-2.0 */
/* The set of exports of a program. It owns them; drivers only serve. */
#include "block/export.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/active.h"
#include "block/driver.h"

struct export_set {
    struct graph *graph;
    const struct export_type *types;
    struct export_iothreads iothreads;
    void (*deleted)(void *user, const char *id);
    void *user;
    struct list exports;
    struct co_group closers; /* coroutines of export_close_soon() */
    struct co_queue gone;    /* woken when an export has left the list */
};

struct export_set *export_set_new(struct graph *graph, const struct export_type *types,
                                  void (*deleted)(void *user, const char *id), void *user)
{
    struct export_set *set = new (struct export_set);
    *set = (struct export_set){.graph = graph, .types = types, .deleted = deleted, .user = user};
    list_init(&set->exports);
    co_group_init(&set->closers);
    co_queue_init(&set->gone);
    return set;
}

void export_set_offer_iothreads(struct export_set *set, const struct export_iothreads *iothreads)
{
    set->iothreads = *iothreads;
}

void export_set_free(struct export_set *set)
{
    if (!set)
        return;
    assert(list_empty(&set->exports));
    free(set);
}

struct block_export *export_find(const struct export_set *set, const char *id)
{
    struct block_export *export;
    list_for_each (export, &set->exports, link) {
        if (!strcmp(export->id, id))
            return export;
    }
    return NULL;
}

struct block_export *export_next(const struct export_set *set, const struct block_export *after)
{
    const struct list *next = after ? after->link.next : set->exports.next;
    return next == &set->exports ? NULL : list_entry((struct list *)next, struct block_export, link);
}

static const struct export_type *find_type(const struct export_set *set, enum block_export_type type)
{
    for (const struct export_type *entry = set->types; entry->driver; entry++) {
        if (entry->driver->type == type)
            return entry;
    }
    return NULL;
}

static void export_free(struct block_export *export)
{
    if (export->edge)
        edge_detach(export->edge);
    if (export->iothread)
        export->set->iothreads.release(export->iothread);
    free(export->state);
    free(export->id);
    free(export);
}

static bool attach(struct block_export *export, struct node *node, struct error *err)
{
    auto_free char *user = xasprintf("export '%s'", export->id);
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ | (export->writable ? (uint32_t)BLOCK_PERM_WRITE : 0);
    if (!export->allow_inactive && !node_activate(node, err))
        return false;
    export->edge = edge_attach(NULL, user, node, node->inactive ? 0 : perm, BLOCK_PERM_ALL, err);
    if (!export->edge)
        return false;
    export->edge->allows_inactive = export->allow_inactive;
    export->edge->active_perm = perm;
    export->edge->active_shared = BLOCK_PERM_ALL;
    return true;
}

static bool find_loop(struct block_export *export, const char *iothread, const struct node *node, struct error *err)
{
    const struct export_iothreads *iothreads = &export->set->iothreads;
    export->loop = graph_loop(export->set->graph);
    if (iothreads->hold)
        return iothreads->hold(iothreads->user, iothread, node, &export->loop, &export->iothread, err);
    return !iothread || fail(err, ENOTSUP, "iothread '%s': this program has no iothreads", iothread);
}

/* The second half of closing, after `shutting_down` was set, which nobody sets twice. */
static void finish_close(void *arg)
{
    struct block_export *export = arg;
    struct export_set *set = export->set;
    export->driver->close(export);
    auto_free char *id = TAKE(export->id);
    list_remove(&export->link);
    export_free(export);
    if (set->deleted)
        set->deleted(set->user, id);
    co_queue_wake_all(&set->gone);
}

static void close_in_background(struct block_export *export)
{
    if (export->opening)
        export->unwanted = true;
    if (export->opening || export->shutting_down)
        return; /* on its way out already */
    export->shutting_down = true;
    co_spawn(graph_loop(export->set->graph), &export->set->closers, finish_close, export);
}

struct block_export *export_add(struct export_set *set, const struct block_export_options *options, struct error *err)
{
    const struct export_type *type = find_type(set, options->type);
    if (!type)
        return fail_null(err, ENOTSUP, "Exports of type '%s' are not part of this program",
                         block_export_type_name(options->type));
    if (export_find(set, options->id))
        return fail_null(err, EEXIST, "Block export id '%s' is already in use", options->id);
    struct node *node = graph_find(set->graph, options->node_name);
    if (!node)
        return fail_null(err, ENOENT, "Cannot find a node with node-name '%s'", options->node_name);
    if (options->allow_inactive && !type->driver->can_be_inactive)
        return fail_null(err, ENOTSUP, "Exports of type '%s' need an active node: allow-inactive=on is not for them",
                         block_export_type_name(options->type));

    struct block_export *export = new (struct block_export);
    export->driver = type->driver;
    export->set = set;
    export->server = type->server;
    export->id = xstrdup(options->id);
    export->writable = options->writable;
    export->writethrough = options->writethrough;
    export->allow_inactive = options->allow_inactive;
    export->state = xcalloc(1, type->driver->state_size ? type->driver->state_size : 1);
    list_init(&export->link);
    /* Attaching yields: somebody else may have taken the id meanwhile. Opening may yield too; who wants to close the
     * export then is put off until it is open. */
    bool good = find_loop(export, options->iothread, node, err) && attach(export, node, err);
    if (good && export_find(set, options->id))
        good = fail(err, EEXIST, "Block export id '%s' is already in use", options->id);
    if (good)
        list_append(&set->exports, &export->link);
    export->opening = true;
    good = good && export->driver->open(export, options, err);
    export->opening = false;
    if (!good) {
        list_remove(&export->link);
        export_free(export);
        co_queue_wake_all(&set->gone);
        return NULL;
    }
    if (export->unwanted) {
        close_in_background(export);
        return fail_null(err, ECANCELED, "Export '%s' was closed while it was opened", options->id);
    }
    return export;
}

static void wait_gone(struct export_set *set, const char *id)
{
    auto_free char *name = xstrdup(id); /* the export's own name goes with it */
    while (export_find(set, name) && export_find(set, name)->shutting_down)
        co_queue_wait_uncancellable(&set->gone);
}

/* It may be gone afterwards. YIELDS */
static void look(struct export_set *set, const char *id)
{
    struct block_export *export = export_find(set, id);
    if (export && export->driver->look && !export->opening && !export->shutting_down)
        export->driver->look(export);
}

bool export_remove(struct export_set *set, const char *id, bool hard, struct error *err)
{
    look(set, id);
    struct block_export *export = export_find(set, id);
    if (!export)
        return fail(err, ENOENT, "Export '%s' is not found", id);
    if (export->shutting_down)
        return fail(err, EBUSY, "Export '%s' is already shutting down", id);
    if (export->opening)
        return fail(err, EBUSY, "Export '%s' is still being opened", id);
    if (!hard && export->driver->in_use && export->driver->in_use(export))
        return fail(err, EBUSY, "export '%s' still in use\nUse mode='hard' to force client disconnect", id);
    bool idle = !export->driver->in_use || !export->driver->in_use(export);
    close_in_background(export);
    if (idle) /* no request of a client can keep it: gone in a moment, which saves scripts the wait for the event */
        wait_gone(set, id);
    return true;
}

static struct block_export *first_matching(struct export_set *set,
                                           bool (*matches)(const struct block_export *export, const void *user),
                                           const void *user)
{
    struct block_export *export;
    list_for_each (export, &set->exports, link) {
        if (matches(export, user))
            return export;
    }
    return NULL;
}

/* All at the same time; also waits for those that were on their way out already. */
void export_close_matching(struct export_set *set, bool (*matches)(const struct block_export *export, const void *user),
                           const void *user)
{
    struct block_export *export;
    list_for_each (export, &set->exports, link) {
        if (matches(export, user))
            close_in_background(export);
    }
    while (first_matching(set, matches, user))
        co_queue_wait_uncancellable(&set->gone);
}

static bool is_any(const struct block_export *export, const void *user)
{
    (void)export, (void)user;
    return true;
}

void export_close_all(struct export_set *set)
{
    export_close_matching(set, is_any, NULL);
    co_group_wait(&set->closers);
}

void export_close_soon(struct block_export *export)
{
    close_in_background(export);
}
