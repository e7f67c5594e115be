/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a server what it has: its exports, and what each can do. Blocks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/vec.h"
#include "nbd-client/internal.h"

struct names {
    vec(char *) names;
    vec(char *) descriptions;
};

static int on_export(void *user, const char *name, const char *description)
{
    struct names *names = user;
    vec_push(&names->names, xstrdup(name));
    vec_push(&names->descriptions, xstrdup(description));
    return 0;
}

static int on_context(void *user, const char *name)
{
    struct nbd_listed_export *export = user;
    char **more = realloc(export->contexts, (export->context_count + 1) * sizeof *more);
    if (!more)
        return -1;
    export->contexts = more;
    export->contexts[export->context_count++] = xstrdup(name);
    return 0;
}

static bool fail_list(const char *what, struct error *err)
{
    int code = nbd_get_errno();
    const char *text = nbd_get_error();
    return fail(err, code ? code : EIO, "%s: %s", what, text ? text : "libnbd cannot be set up");
}

static bool connect_for_options(struct nbd_client *client, struct error *err)
{
    const struct nbd_client_settings *settings = &client->settings;
    struct nbd_link *link = &client->links[0];
    link->nbd = link_new_handle(client);
    if (!link->nbd || nbd_set_opt_mode(link->nbd, true) < 0)
        return fail_list("libnbd", err);
    int result = settings->path ? nbd_connect_unix(link->nbd, settings->path)
                                : nbd_connect_tcp(link->nbd, settings->host, settings->port);
    return result == 0 || fail_list("Failed to connect", err);
}

/* One export by NBD_OPT_INFO. */
static bool describe_export(struct nbd_client *client, char *name, char *description, const struct nbd_listing *listing,
                            struct error *err)
{
    struct nbd_handle *nbd = client->links[0].nbd;
    struct nbd_listed_export export = {.name = name, .description = description && *description ? description : NULL};
    nbd_context_callback contexts = {.callback = on_context, .user_data = &export};
    bool ok = nbd_set_export_name(nbd, name) == 0;
    if (ok && nbd_opt_info(nbd) == 0) {
        link_describe(client, nbd);
        export.facts = client->facts;
        export.can_df = nbd_can_df(nbd) > 0;
        export.is_known = true;
        ok = nbd_opt_list_meta_context(nbd, contexts) >= 0 || nbd_get_errno() == ENOTSUP;
    }
    if (ok)
        listing->tell(listing->user, &export);
    else
        fail_list(name, err);
    for (size_t i = 0; i < export.context_count; i++)
        free(export.contexts[i]);
    free(export.contexts);
    return ok;
}

bool nbd_client_list(struct loop *loop, const struct nbd_client_settings *settings, const struct nbd_listing *listing,
                     struct error *err)
{
    struct nbd_client *client = client_new(loop, settings);
    struct names names = {0};
    nbd_list_callback on_each = {.callback = on_export, .user_data = &names};
    bool ok = connect_for_options(client, err);
    if (ok && nbd_opt_list(client->links[0].nbd, on_each) < 0)
        ok = fail_list("Failed to list exports", err);
    if (ok)
        listing->begin(listing->user, names.names.count);
    for (size_t i = 0; i < names.names.count; i++) {
        ok = ok && describe_export(client, names.names.items[i], names.descriptions.items[i], listing, err);
        free(names.names.items[i]);
        free(names.descriptions.items[i]);
    }
    vec_free(&names.names);
    vec_free(&names.descriptions);
    if (client->links[0].nbd)
        nbd_opt_abort(client->links[0].nbd);
    nbd_client_close(client);
    return ok;
}
