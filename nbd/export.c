/* SPDX-License-Identifier: Apache-2.0 */
/* The export type `nbd`: ties an export of an NBD server to the program's set of exports. */
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/export.h"
#include "nbd/internal.h"
#include "nbd/servers.h"
#include "qmp/schema/types.h"

struct nbd_export_state {
    struct nbd_export *export;
};

static struct nbd_server *find_server(const struct nbd_servers *servers, const char *id, struct error *err)
{
    struct nbd_server *server = nbd_servers_find(servers, id);
    if (!server && id)
        return fail_null(err, ENOTCONN, "NBD server '%s' not running: start it first (nbd-server-start)", id);
    if (!server)
        return fail_null(err, ENOTCONN, "NBD server not running: start it first (--nbd-server, nbd-server-start)");
    return server;
}

static struct nbd_bitmap_option bitmap_option(const struct block_dirty_bitmap_or_str *bitmap)
{
    if (bitmap->kind == BLOCK_DIRTY_BITMAP_OR_STR_KIND_LOCAL)
        return (struct nbd_bitmap_option){.name = bitmap->u.local};
    return (struct nbd_bitmap_option){.node = bitmap->u.external->node, .name = bitmap->u.external->name};
}

static bool open_export(struct block_export *block_export, const struct block_export_options *options,
                        struct error *err)
{
    const struct block_export_options_nbd *nbd = &options->u.nbd;
    struct nbd_export_state *state = block_export->state;
    struct nbd_server *server = find_server(block_export->server, nbd->server, err);
    if (!server)
        return false;
    auto_free struct nbd_bitmap_option *bitmaps = new_array(struct nbd_bitmap_option, nbd->n_bitmaps);
    for (size_t i = 0; i < nbd->n_bitmaps; i++)
        bitmaps[i] = bitmap_option(nbd->bitmaps[i]);
    struct nbd_export_options nbd_options = {
        .name = nbd->name ? nbd->name : options->node_name,
        .description = nbd->description,
        .loop = block_export->loop,
        .writable = block_export->writable,
        .writethrough = block_export->writethrough,
        .allocation_depth = nbd->allocation_depth,
        .bitmaps = bitmaps,
        .n_bitmaps = nbd->n_bitmaps,
    };
    state->export = nbd_export_new(server, &nbd_options, block_export->edge, err);
    return state->export != NULL;
}

static void close_export(struct block_export *block_export)
{
    struct nbd_export_state *state = block_export->state;
    nbd_export_free(state->export);
}

static bool in_use(const struct block_export *block_export)
{
    const struct nbd_export_state *state = block_export->state;
    return nbd_export_connections(state->export) > 0;
}

static uint32_t clients(const struct block_export *block_export)
{
    const struct nbd_export_state *state = block_export->state;
    return nbd_export_connections(state->export);
}

const struct nbd_server *nbd_export_server(const struct block_export *block_export)
{
    const struct nbd_export_state *state = block_export->state;
    return state->export ? state->export->server : NULL;
}

const struct export_driver nbd_export_driver = {
    .type = BLOCK_EXPORT_TYPE_NBD,
    .can_be_inactive = true,
    .state_size = sizeof(struct nbd_export_state),
    .open = open_export,
    .close = close_export,
    .in_use = in_use,
    .clients = clients,
};
