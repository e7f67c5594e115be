/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contexts that an export offers to block status: base:allocation always; qemu:allocation-depth and
 * qemu:dirty-bitmap:NAME (QEMU's "NBD protocol: QEMU contexts") as its options say. A bitmap is busy while it is
 * offered: nobody changes or removes it under a client.
 */
#include "nbd/internal.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "block/dirty_bitmap.h"

static struct nbd_context *add(struct nbd_export *export, enum nbd_context_kind kind, char *name)
{
    vec_push(&export->contexts, ((struct nbd_context){.kind = kind, .name = name}));
    return vec_last(&export->contexts);
}

/* On the node that is exported, or the nearest one below that it overlays. */
static struct dirty_bitmap *find_below(const struct node *node, const char *name)
{
    struct dirty_bitmap *bitmap = NULL;
    for (; node && !bitmap; node = node_backing(node))
        bitmap = dirty_bitmap_find(node, name);
    return bitmap;
}

static struct dirty_bitmap *find_bitmap(const struct nbd_export *export, const struct nbd_bitmap_option *option,
                                        struct error *err)
{
    struct node *node = export->edge->child;
    if (option->node) {
        node = graph_find(node->graph, option->node);
        if (!node)
            return fail_null(err, ENOENT, "bitmap '%s': there is no node '%s'", option->name, option->node);
    }
    struct dirty_bitmap *bitmap = option->node ? dirty_bitmap_find(node, option->name) : find_below(node, option->name);
    return bitmap ? bitmap : fail_null(err, ENOENT, "bitmap '%s' is not found on node '%s'", option->name, node->name);
}

static bool check_bitmap(const struct nbd_export *export, const struct dirty_bitmap *bitmap, struct error *err)
{
    if (!dirty_bitmap_check(bitmap, DIRTY_BITMAP_NOT_BUSY | DIRTY_BITMAP_CONSISTENT, err))
        return false;
    if (bitmap->size != export->edge->child->size)
        return fail(err, EINVAL, "bitmap '%s' covers %llu bytes, the exported node has %llu", bitmap->name,
                    (unsigned long long)bitmap->size, (unsigned long long)export->edge->child->size);
    /* Clients of a read-only export take what they read for settled. */
    if (!export->writable && bitmap->recording && !bitmap->node->read_only)
        return fail(err, EINVAL,
                    "bitmap '%s' is enabled and would change under clients of a read-only export: disable it first",
                    bitmap->name);
    return true;
}

static bool add_bitmap(struct nbd_export *export, const struct nbd_bitmap_option *option, struct error *err)
{
    struct dirty_bitmap *bitmap = find_bitmap(export, option, err);
    if (!bitmap || !check_bitmap(export, bitmap, err))
        return false;
    struct nbd_context *context = add(export, NBD_CONTEXT_DIRTY, xasprintf("qemu:dirty-bitmap:%s", option->name));
    for (size_t i = 0; i + 1 < export->contexts.count; i++)
        if (!strcmp(export->contexts.items[i].name, context->name))
            return fail(err, EEXIST, "two bitmaps are called '%s': clients could not tell them apart", option->name);
    context->bitmap = bitmap;
    bitmap->busy++;
    node_ref(bitmap->node);
    return true;
}

bool nbd_contexts_open(struct nbd_export *export, const struct nbd_export_options *options, struct error *err)
{
    add(export, NBD_CONTEXT_ALLOCATION, xstrdup("base:allocation"));
    if (options->allocation_depth)
        add(export, NBD_CONTEXT_DEPTH, xstrdup("qemu:allocation-depth"));
    for (size_t i = 0; i < options->n_bitmaps; i++)
        if (!add_bitmap(export, &options->bitmaps[i], err))
            return false;
    return true;
}

void nbd_contexts_close(struct nbd_export *export)
{
    struct nbd_context *context;
    vec_for_each (context, &export->contexts) {
        free(context->name);
        if (!context->bitmap)
            continue;
        struct node *node = context->bitmap->node;
        context->bitmap->busy--;
        node_unref(node);
    }
    vec_free(&export->contexts);
}
