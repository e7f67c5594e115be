/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking a server what it has: its exports, and what each can do. libnbd is held in the phase of options
 * (nbd_set_opt_mode) and asked one at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
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

static bool fail_list(struct nbd_client *client, const char *what, int code, struct error *err)
{
    struct nbd_link *link = &client->links[0];
    if (error_is_set(&link->why))
        error_move(err, &link->why);
    else
        fail(err, code ? code : EIO, "%s", nbd_get_error() ? nbd_get_error() : strerror(code ? code : EIO));
    return fail_prefix(err, "%s: ", what);
}

/* Waiting for libnbd ---------------------------------------------------------------------------------------------- */

/* One turn. False: the connection is dead, or we are told to stop. YIELDS. */
static bool turn(struct nbd_client *client)
{
    struct nbd_handle *nbd = client->links[0].nbd;
    unsigned direction = nbd_aio_get_direction(nbd);
    uint32_t wanted =
        (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
    int events = link_is_dead(&client->links[0]) ? -1 : loop_wait_fd(client->loop, nbd_aio_get_fd(nbd), wanted);
    if (events < 0)
        return false;
    if (direction & LIBNBD_AIO_DIRECTION_READ && (uint32_t)events & ~(uint32_t)EPOLLOUT)
        nbd_aio_notify_read(nbd);
    else
        nbd_aio_notify_write(nbd);
    return true;
}

/* An option's answer: 0 or an errno; -1 as long as there is none. */
static int on_answer(void *user, int *error)
{
    int *answer = user;
    *answer = *error;
    return 1;
}

/* Asked an option, which may have failed at once; 0 or an errno. YIELDS. */
static int wait_for_answer(struct nbd_client *client, int asked, const int *answer)
{
    if (asked < 0)
        return nbd_get_errno() ? nbd_get_errno() : EIO;
    while (*answer < 0) {
        if (!turn(client))
            return ENOTCONN;
    }
    return *answer;
}

static int list_names(struct nbd_client *client, struct names *names)
{
    int answer = -1;
    nbd_list_callback each = {.callback = on_export, .user_data = names};
    nbd_completion_callback done = {.callback = on_answer, .user_data = &answer};
    return wait_for_answer(client, nbd_aio_opt_list(client->links[0].nbd, each, done), &answer);
}

static int ask_info(struct nbd_client *client)
{
    int answer = -1;
    nbd_completion_callback done = {.callback = on_answer, .user_data = &answer};
    return wait_for_answer(client, nbd_aio_opt_info(client->links[0].nbd, done), &answer);
}

static int list_contexts(struct nbd_client *client, struct nbd_listed_export *export)
{
    int answer = -1;
    nbd_context_callback each = {.callback = on_context, .user_data = export};
    nbd_completion_callback done = {.callback = on_answer, .user_data = &answer};
    return wait_for_answer(client, nbd_aio_opt_list_meta_context(client->links[0].nbd, each, done), &answer);
}

/* Listing --------------------------------------------------------------------------------------------------------- */

static bool connect_for_options(struct nbd_client *client, struct error *err)
{
    struct nbd_link *link = &client->links[0];
    if (!link_attempt(link, true))
        return fail_list(client, "Failed to connect", nbd_get_errno(), err);
    while (nbd_aio_is_negotiating(link->nbd) <= 0) {
        if (!turn(client))
            return fail_list(client, "Failed to connect", nbd_get_errno(), err);
    }
    return true;
}

/* One export by NBD_OPT_INFO. */
static bool describe_export(struct nbd_client *client, char *name, char *description, const struct nbd_listing *listing,
                            struct error *err)
{
    struct nbd_handle *nbd = client->links[0].nbd;
    struct nbd_listed_export export = {.name = name, .description = description && *description ? description : NULL};
    int error = nbd_set_export_name(nbd, name) < 0 ? nbd_get_errno() : ask_info(client);
    if (!error) {
        link_describe(client, nbd);
        export.facts = client->facts;
        export.can_df = nbd_can_df(nbd) > 0;
        export.is_known = true;
        error = list_contexts(client, &export);
    }
    /* A server need not describe what it lists, nor know contexts. */
    bool ok = !error || (error != ENOTCONN && !link_is_dead(&client->links[0]));
    if (ok)
        listing->tell(listing->user, &export);
    else
        fail_list(client, name, error, err);
    for (size_t i = 0; i < export.context_count; i++)
        free(export.contexts[i]);
    free(export.contexts);
    return ok;
}

static bool list_all(struct nbd_client *client, struct names *names, const struct nbd_listing *listing,
                     struct error *err)
{
    if (!connect_for_options(client, err))
        return false;
    int error = list_names(client, names);
    if (error)
        return fail_list(client, "Failed to list exports", error, err);
    listing->begin(listing->user, names->names.count);
    bool ok = true;
    for (size_t i = 0; ok && i < names->names.count; i++)
        ok = describe_export(client, names->names.items[i], names->descriptions.items[i], listing, err);
    nbd_aio_opt_abort(client->links[0].nbd);
    while (ok && turn(client))
        continue; /* until the server has hung up */
    return ok;
}

bool nbd_client_list(struct loop *loop, const struct nbd_client_settings *settings, const struct nbd_listing *listing,
                     struct error *err)
{
    struct nbd_client *client = client_new(loop, settings);
    struct names names = {0};
    bool ok = list_all(client, &names, listing, err);
    for (size_t i = 0; i < names.names.count; i++) {
        free(names.names.items[i]);
        free(names.descriptions.items[i]);
    }
    vec_free(&names.names);
    vec_free(&names.descriptions);
    nbd_client_close(client);
    return ok;
}
