/* SPDX-License-Identifier: Apache-2.0 */
/* See chain.h. */
#include "block/jobs/chain.h"

#include <string.h>
#include "base/alloc.h"
#include "block/driver.h"
#include "block/jobs/private.h"

struct node *chain_image(struct node *node)
{
    while (node && node->driver->kind == DRIVER_FILTER && node->file)
        node = node->file->child;
    return node;
}

bool chain_has(struct node *top, struct node *wanted)
{
    wanted = chain_image(wanted);
    for (struct node *node = chain_image(top); node; node = chain_image(node_backing(node))) {
        if (node == wanted)
            return true;
    }
    return false;
}

struct node *chain_bottom(struct node *top)
{
    struct node *node = chain_image(top);
    while (node_backing(node))
        node = chain_image(node_backing(node));
    return node;
}

struct node *chain_find_file(struct node *top, const char *filename)
{
    for (struct node *node = chain_image(top); node; node = chain_image(node_backing(node))) {
        if (node->filename && !strcmp(node->filename, filename))
            return node;
    }
    return NULL;
}

struct node *chain_overlay(struct node *top, const struct node *image)
{
    for (struct node *node = chain_image(top); node; node = chain_image(node_backing(node))) {
        if (chain_image(node_backing(node)) == image)
            return node;
    }
    return NULL;
}

static const char *format_of(const struct node *backing, bool masks_protocol)
{
    bool is_protocol = backing->driver->kind == DRIVER_PROTOCOL;
    return is_protocol && masks_protocol ? "raw" : backing->driver->name;
}

bool chain_rename_backing(struct node *overlay, struct node *backing, const char *name, bool masks_protocol,
                          struct error *err)
{
    if (!overlay->driver->change_backing)
        return true; /* it names none */
    struct made_writable made = {0};
    backing = chain_image(backing);
    if (!make_writable(overlay, &made, err))
        return fail_prefix(err, "The backing file of node '%s' cannot be changed: ", overlay->name);
    bool ok;
    if (backing)
        ok = overlay->driver->change_backing(overlay, name ? name : backing->filename,
                                             format_of(backing, masks_protocol), err);
    else
        ok = overlay->driver->change_backing(overlay, name && *name ? name : NULL, NULL, err);
    make_read_only_again(&made);
    return ok;
}
