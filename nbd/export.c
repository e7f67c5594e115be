/* SPDX-License-Identifier: Apache-2.0 */
/* The export type `nbd`: ties an export of the NBD server to the program's set of exports. */
#include "block/export.h"
#include "nbd/internal.h"
#include "qmp/schema/types.h"

struct nbd_export_state {
    struct nbd_export *export;
};

static bool open_export(struct block_export *block_export, const struct block_export_options *options,
                        struct error *err)
{
    struct nbd_export_state *state = block_export->state;
    struct nbd_server *server = *(struct nbd_server **)block_export->server;
    if (!server)
        return fail(err, ENOTCONN, "NBD server not running: start it first (--nbd-server, nbd-server-start)");
    struct nbd_export_options nbd_options = {
        .name = options->u.nbd.name ? options->u.nbd.name : options->node_name,
        .description = options->u.nbd.description,
        .writable = block_export->writable,
        .writethrough = block_export->writethrough,
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

const struct export_driver nbd_export_driver = {
    .type = BLOCK_EXPORT_TYPE_NBD,
    .state_size = sizeof(struct nbd_export_state),
    .open = open_export,
    .close = close_export,
    .in_use = in_use,
};
