/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about NBD servers, and the deprecated ones that export on the server without a name. */
#include <string.h>
#include "block/export.h"
#include "block/node.h"
#include "nbd/servers.h"
#include "objects/address.h"
#include "qmp/schema/commands.h"
#include "storage-daemon/daemon.h"

bool qmp_nbd_server_start(struct qmp_context *context, struct q_nbd_server_start_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    auto_resolved struct resolved_address where = {0};
    const struct nbd_server_description description = {
        .id = arg->id,
        .address = &where.address,
        .limits = {.max_connections = arg->max_connections, .handshake_seconds = arg->handshake_max_seconds},
        .tls_creds = arg->tls_creds,
        .tls_authz = arg->tls_authz};
    if (!address_resolve_legacy(daemon->objects, arg->addr, &where, err) ||
        !nbd_servers_start(daemon->nbd_servers, &description, err))
        return false;
    address_used(&where);
    return true;
}

bool qmp_nbd_server_stop(struct qmp_context *context, struct q_nbd_server_stop_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    return nbd_servers_stop(daemon->nbd_servers, arg->id, daemon->exports, err);
}

/* Wishes to write are quietly given up where the node cannot be written, as this command always did. */
bool qmp_nbd_server_add(struct qmp_context *context, struct q_nbd_server_add_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    const struct node *node = graph_find(daemon->graph, arg->device);
    if (!node)
        return fail(err, ENOENT, "Cannot find device='%s' nor node-name='%s'", arg->device, arg->device);
    struct block_dirty_bitmap_or_str bitmap = {.kind = BLOCK_DIRTY_BITMAP_OR_STR_KIND_LOCAL, .u.local = arg->bitmap};
    struct block_dirty_bitmap_or_str *bitmaps[] = {&bitmap};
    const struct block_export_options options = {
        .type = BLOCK_EXPORT_TYPE_NBD,
        .id = arg->name ? arg->name : arg->device,
        .node_name = arg->device,
        .has_writable = true,
        .writable = arg->writable && !node->read_only,
        .u.nbd = {.name = arg->name ? arg->name : arg->device,
                  .description = arg->description,
                  .has_bitmaps = arg->bitmap != NULL,
                  .n_bitmaps = arg->bitmap != NULL,
                  .bitmaps = bitmaps},
    };
    return export_add(daemon->exports, &options, err) != NULL;
}

bool qmp_nbd_server_remove(struct qmp_context *context, struct q_nbd_server_remove_arg *arg, struct error *err)
{
    struct daemon *daemon = context->app;
    const struct block_export *export = export_find(daemon->exports, arg->name);
    if (!export || export->driver->type != BLOCK_EXPORT_TYPE_NBD)
        return fail(err, ENOENT, "Export '%s' is not found", arg->name);
    return export_remove(daemon->exports, arg->name, arg->mode == BLOCK_EXPORT_REMOVE_MODE_HARD, err);
}
