/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls. libnbd's callbacks may not call back into libnbd, and submit() may not complete: so a finished call is put on
 * a list, and client_settle() tells its owner after libnbd has returned.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "nbd-client/internal.h"

#define MAX_PIECE (1ull << 30) /* of a trim or write of zeroes: lengths have 32 bits on the wire */

/* Sending -------------------------------------------------------------------------------------------------------- */

/* libnbd's completion: `error` is its errno, 0 for success. Returning 1 retires the command. */
static int on_complete(void *user, int *error)
{
    struct nbd_call *call = user;
    struct nbd_link *link = call->sent_on;
    call->error = *error;
    link->load--;
    list_remove(&call->link);
    list_append(&link->client->completed, &call->link);
    return 1;
}

/* Extents of a context, from call->offset on; the server may say less or more than was asked. */
static int on_extents(void *user, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    struct nbd_call *call = user;
    if (strcmp(context, call->context) || offset != call->offset)
        return 0;
    call->extent_count = 0;
    for (size_t i = 0; i + 1 < count && call->extent_count < call->extent_room; i += 2) {
        if (entries[i])
            call->extents[call->extent_count++] = (struct nbd_call_extent){entries[i], entries[i + 1]};
    }
    return 0;
}

static uint32_t call_flags(const struct nbd_client *client, const struct nbd_call *call)
{
    uint32_t flags = call->durable && client->facts.can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
    if (call->kind == NBD_CALL_ZERO && !call->may_unmap)
        flags |= LIBNBD_CMD_FLAG_NO_HOLE;
    if (call->kind == NBD_CALL_ZERO && call->no_fallback)
        flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    return flags;
}

static int64_t issue(struct nbd_link *link, struct nbd_call *call)
{
    struct nbd_handle *nbd = link->nbd;
    nbd_completion_callback done = {.callback = on_complete, .user_data = call};
    nbd_extent_callback extents = {.callback = on_extents, .user_data = call};
    uint32_t flags = call_flags(link->client, call);
    void *buffer = call->bounce ? call->bounce : call->iov_count ? call->iov[0].iov_base : NULL;
    uint64_t offset = call->offset + call->progress;
    call->piece = call->length - call->progress < MAX_PIECE ? call->length - call->progress : MAX_PIECE;
    if (call->is_flushing)
        return nbd_aio_flush(nbd, done, 0);
    switch (call->kind) {
    case NBD_CALL_READ: return nbd_aio_pread(nbd, buffer, call->length, offset, done, 0);
    case NBD_CALL_WRITE: return nbd_aio_pwrite(nbd, buffer, call->length, offset, done, flags);
    case NBD_CALL_FLUSH: return nbd_aio_flush(nbd, done, 0);
    case NBD_CALL_TRIM: return nbd_aio_trim(nbd, call->piece, offset, done, flags);
    case NBD_CALL_ZERO: return nbd_aio_zero(nbd, call->piece, offset, done, flags);
    case NBD_CALL_STATUS: return nbd_aio_block_status(nbd, call->piece, offset, extents, done, 0);
    }
    return -1;
}

/* The call is on no list. Never completes it on the spot. */
static void start(struct nbd_client *client, struct nbd_call *call)
{
    struct nbd_link *link = call->error ? NULL : link_best(client);
    if (!link) {
        if (!call->error && client->is_failing)
            call->error = EIO;
        list_append(call->error ? &client->completed : &client->waiting, &call->link);
        if (call->error)
            client_settle_soon(client);
        return;
    }
    call->sent_on = link;
    link->load++;
    list_append(&link->in_flight, &call->link);
    if (issue(link, call) < 0) {
        /* libnbd did not take it: because it is dead (wait for another connection), or it is not to be sent at all. */
        int code = nbd_get_errno();
        link->load--;
        list_remove(&call->link);
        call->error = link_is_dead(link) ? ENOTCONN : code ? code : EIO;
        list_append(&client->completed, &call->link);
    }
    if (!list_empty(&client->completed) || link_is_dead(link))
        client_settle_soon(client);
    else
        link_rewatch(link);
}

static void start_waiting(struct nbd_client *client)
{
    struct nbd_call *call;
    while ((link_best(client) || client->is_failing) && (call = list_first(&client->waiting, struct nbd_call, link))) {
        list_remove(&call->link);
        start(client, call);
    }
}

/* Completing ----------------------------------------------------------------------------------------------------- */

static void finish(struct nbd_call *call, int result)
{
    if (call->bounce && call->kind == NBD_CALL_READ && !result)
        iov_from_buffer(call->iov, (int)call->iov_count, 0, call->bounce, call->length);
    free(TAKE(call->bounce));
    call->done(call, result);
}

/* One step of the call is through. False: another one follows. */
static bool is_done(struct nbd_client *client, struct nbd_call *call)
{
    if (call->is_flushing || call->kind == NBD_CALL_FLUSH)
        return true;
    call->progress += call->piece;
    if ((call->kind == NBD_CALL_TRIM || call->kind == NBD_CALL_ZERO) && call->progress < call->length)
        return false;
    call->progress = 0;
    bool changes = call->kind == NBD_CALL_WRITE || call->kind == NBD_CALL_ZERO || call->kind == NBD_CALL_TRIM;
    call->is_flushing = call->durable && changes && !client->facts.can_fua;
    return !call->is_flushing;
}

/* ENOTCONN: the connection broke under it; ESHUTDOWN: the server goes down and wants to be asked again elsewhere. */
static bool is_gone(int error)
{
    return error == ENOTCONN || error == ESHUTDOWN;
}

static void settle_call(struct nbd_client *client, struct nbd_call *call)
{
    list_remove(&call->link);
    if (is_gone(call->error) && call->sent_on && !client->is_failing) {
        if (call->error == ESHUTDOWN && call->sent_on->state != LINK_DOWN)
            link_lost(call->sent_on);
        call->error = 0;
        call->sent_on = NULL;
        list_append(&client->waiting, &call->link);
    } else if (call->error) {
        finish(call, is_gone(call->error) ? -EIO : -call->error);
    } else if (is_done(client, call)) {
        finish(call, 0);
    } else {
        start(client, call);
    }
}

void client_settle(struct nbd_client *client)
{
    loop_timer_cancel(&client->settle);
    for (unsigned i = 0; i < client->link_count; i++) {
        struct nbd_link *link = &client->links[i];
        if (link->nbd && (link->fd < 0 || link_is_dead(link)))
            link_lost(link);
    }
    /* Owners may submit from done(); what fails at once then has its own turn, or one owner could keep us here. */
    struct list batch;
    struct nbd_call *call;
    list_init(&batch);
    while ((call = list_first(&client->completed, struct nbd_call, link))) {
        list_remove(&call->link);
        list_append(&batch, &call->link);
    }
    while ((call = list_first(&batch, struct nbd_call, link)))
        settle_call(client, call);
    start_waiting(client);
}

static void on_settle(void *arg)
{
    client_settle(arg);
}

void client_settle_soon(struct nbd_client *client)
{
    if (!client->settle.heap_index)
        loop_timer_arm(client->loop, &client->settle, loop_now_ns(client->loop));
}

static void on_out_of_patience(void *arg)
{
    struct nbd_client *client = arg;
    log_error("%s: the NBD server has not come back in time (reconnect-delay); requests fail", client->settings.name);
    client->is_failing = true;
    client_settle(client);
}

void nbd_client_give_up(struct nbd_client *client)
{
    client->given_up = true;
    if (!link_best(client)) {
        client->is_failing = true;
        client_settle_soon(client);
    }
}

void nbd_client_submit(struct nbd_client *client, struct nbd_call *call)
{
    call->sent_on = NULL;
    call->bounce = NULL;
    call->progress = call->piece = 0;
    call->error = 0;
    call->is_flushing = false;
    if (call->iov_count > 1) {
        call->bounce = try_aligned_alloc(64, call->length);
        if (!call->bounce)
            call->error = ENOMEM;
        else if (call->kind == NBD_CALL_WRITE)
            iov_to_buffer(call->iov, (int)call->iov_count, 0, call->bounce, call->length);
    }
    start(client, call);
}

/* Opening and closing --------------------------------------------------------------------------------------------- */

struct nbd_client *client_new(struct loop *loop, const struct nbd_client_settings *settings)
{
    struct nbd_client *client = new (struct nbd_client);
    client->loop = loop;
    client->settings = *settings;
    struct nbd_client_settings *own = &client->settings;
    own->name = xstrdup(settings->name);
    own->path = xstrdup(settings->path);
    own->host = xstrdup(settings->host);
    own->port = xstrdup(settings->port);
    own->export = xstrdup(settings->export ? settings->export : "");
    own->contexts = NULL;
    for (unsigned i = 0; settings->contexts && i < MAX_CONTEXTS && settings->contexts[i]; i++)
        client->contexts[i] = xstrdup(settings->contexts[i]);
    client->max_links = settings->max_connections ? settings->max_connections : DEFAULT_LINKS;
    if (client->max_links > MAX_LINKS)
        client->max_links = MAX_LINKS;
    client->settle = (struct loop_timer){.fn = on_settle, .arg = client};
    client->patience = (struct loop_timer){.fn = on_out_of_patience, .arg = client};
    client->open_deadline_ns = loop_now_ns(loop) + settings->open_timeout_ns;
    list_init(&client->waiting);
    list_init(&client->completed);
    co_group_init(&client->relays);
    for (unsigned i = 0; i < MAX_LINKS; i++)
        link_init(&client->links[i], client);
    client->link_count = 1;
    return client;
}

void nbd_client_close(struct nbd_client *client)
{
    struct nbd_client_settings *own = &client->settings;
    for (unsigned i = 0; i < MAX_LINKS; i++) {
        link_close(&client->links[i]);
        error_clear(&client->links[i].why);
    }
    loop_timer_cancel(&client->patience);
    loop_timer_cancel(&client->settle);
    co_group_wait(&client->relays);
    const char *const owned[] = {own->name, own->path, own->host, own->port, own->export};
    for (size_t i = 0; i < ARRAY_SIZE(owned); i++)
        free((char *)owned[i]);
    for (unsigned i = 0; client->contexts[i]; i++)
        free(client->contexts[i]);
    free(client);
}

static bool connect_first(struct nbd_client *client, struct error *err)
{
    enum { PAUSE_US = 100000 };
    for (uint64_t waited = 0;; waited += PAUSE_US * 1000ull) {
        auto_error why = {0};
        if (link_connect(&client->links[0], &why))
            return true;
        if (waited >= client->settings.open_timeout_ns) {
            error_move(err, &why);
            return false;
        }
        usleep(PAUSE_US);
    }
}

struct nbd_client *nbd_client_open(struct loop *loop, const struct nbd_client_settings *settings, struct error *err)
{
    struct nbd_client *client = client_new(loop, settings);
    if (!connect_first(client, err)) {
        nbd_client_close(client);
        return NULL;
    }
    client->is_open = true;
    link_describe(client, client->links[0].nbd);
    /* More are a matter of speed alone: a server that is at its limit of clients is no reason to fail. */
    while (client->facts.can_multi_conn && client->link_count < client->max_links &&
           link_connect(&client->links[client->link_count], NULL))
        client->link_count++;
    return client;
}

struct nbd_client *nbd_client_start(struct loop *loop, const struct nbd_client_settings *settings,
                                    void (*opened)(void *user, struct error *failure))
{
    struct nbd_client *client = client_new(loop, settings);
    client->opened = opened;
    loop_timer_arm(loop, &client->links[0].retry, loop_now_ns(loop)); /* not from inside this call */
    return client;
}

void client_opened(struct nbd_client *client, struct error *failure)
{
    void (*opened)(void *user, struct error *failure) = TAKE(client->opened);
    client->is_open = !failure;
    if (opened)
        opened(client->settings.user, failure);
}

const struct nbd_client_facts *nbd_client_facts(const struct nbd_client *client)
{
    return &client->facts;
}
