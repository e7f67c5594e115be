/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections. libnbd is a state machine that we drive from the loop: each connection's socket is watched for the
 * directions that it wants.
 *
 * A connection that breaks is made again by a timer, for as long as it takes; what happens to the calls meanwhile is
 * the client's business. After the greeting the server is looked at anew: it may have been replaced by one with another
 * size, without FUA, or without support for several connections, where only the first to be up stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "nbd-client/internal.h"

#define RETRY_NS 200000000ull

bool link_is_dead(const struct nbd_link *link)
{
    return nbd_aio_is_dead(link->nbd) > 0 || nbd_aio_is_closed(link->nbd) > 0;
}

struct nbd_link *link_best(struct nbd_client *client)
{
    struct nbd_link *best = NULL;
    for (unsigned i = 0; i < client->link_count; i++) {
        struct nbd_link *link = &client->links[i];
        if (link->state == LINK_UP && (!best || link->load < best->load))
            best = link;
    }
    return best;
}

/* Watching ------------------------------------------------------------------------------------------------------- */

static void unwatch(struct nbd_link *link)
{
    loop_unwatch(&link->watch);
    if (link->fd >= 0)
        close(TAKE_FD(link->fd));
}

static void on_event(void *arg, uint32_t events);

void link_rewatch(struct nbd_link *link)
{
    unsigned direction = nbd_aio_get_direction(link->nbd);
    uint32_t events =
        (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
    bool settled = link->state == LINK_UP && link->fd >= 0;
    if (settled && events == link->watch.events)
        return;
    loop_unwatch(&link->watch);
    if (!settled) { /* during the greeting each turn may be about another socket: the server's next address */
        if (link->fd >= 0)
            close(TAKE_FD(link->fd));
        link->fd = fcntl(nbd_aio_get_fd(link->nbd), F_DUPFD_CLOEXEC, 0);
    }
    if (link->fd >= 0)
        loop_watch(link->client->loop, &link->watch, link->fd, events, on_event, link);
    else
        client_settle_soon(link->client); /* it is dead, or we are out of descriptors: lost in either case */
}

/* Being connected ------------------------------------------------------------------------------------------------ */

void link_describe(struct nbd_client *client, struct nbd_handle *nbd)
{
    struct nbd_client_facts *facts = &client->facts;
    int64_t size = nbd_get_size(nbd), minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM),
            preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED),
            maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
    *facts = (struct nbd_client_facts){
        .size = size > 0 ? (uint64_t)size : 0,
        .block_minimum = minimum > 0 && minimum <= UINT32_MAX ? (uint32_t)minimum : 0,
        .block_preferred = preferred > 0 && preferred <= UINT32_MAX ? (uint32_t)preferred : 0,
        .block_maximum = maximum > 0 && maximum <= UINT32_MAX ? (uint32_t)maximum : 0,
        .read_only = nbd_is_read_only(nbd) > 0,
        .can_flush = nbd_can_flush(nbd) > 0,
        .can_fua = nbd_can_fua(nbd) > 0,
        .can_trim = nbd_can_trim(nbd) > 0,
        .can_zero = nbd_can_zero(nbd) > 0,
        .can_fast_zero = nbd_can_fast_zero(nbd) > 0,
        .can_cache = nbd_can_cache(nbd) > 0,
        .can_multi_conn = nbd_can_multi_conn(nbd) > 0,
    };
    for (unsigned i = 0; client->contexts[i]; i++) {
        if (nbd_can_meta_context(nbd, client->contexts[i]) > 0)
            facts->contexts |= 1u << i;
    }
}

/* The others need not wait for their turn. */
static void begin_others(struct nbd_client *client)
{
    if (client->facts.can_multi_conn && client->opened)
        client->link_count = client->max_links;
    for (unsigned i = 0; i < client->link_count; i++) {
        struct nbd_link *other = &client->links[i];
        if (other->state == LINK_DOWN && (other->retry.heap_index || client->opened))
            loop_timer_arm(client->loop, &other->retry, loop_now_ns(client->loop));
    }
}

static void link_is_up(struct nbd_link *link)
{
    struct nbd_client *client = link->client;
    if (link_best(client) && nbd_can_multi_conn(link->nbd) <= 0) {
        link_close(link); /* a flush on one would not cover the other */
        return;
    }
    link->state = LINK_UP;
    link_describe(client, link->nbd);
    if (client->is_lost)
        log_info("%s: the NBD server is back", client->settings.name);
    client->is_lost = false;
    client->is_failing = client->given_up;
    loop_timer_cancel(&client->patience);
    begin_others(client);
    if (!client->is_open)
        client_opened(client, NULL);
    else if (client->settings.changed)
        client->settings.changed(client->settings.user);
}

static void on_event(void *arg, uint32_t events)
{
    struct nbd_link *link = arg;
    unsigned wanted = nbd_aio_get_direction(link->nbd);
    /* An error or the end of the stream is found out by using the socket in whatever direction libnbd is at. */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && wanted & LIBNBD_AIO_DIRECTION_READ)
        nbd_aio_notify_read(link->nbd);
    else if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && wanted & LIBNBD_AIO_DIRECTION_WRITE)
        nbd_aio_notify_write(link->nbd);
    if (!link_is_dead(link)) {
        if (link->state == LINK_GREETING && nbd_aio_is_ready(link->nbd) > 0)
            link_is_up(link);
        if (link->state != LINK_DOWN)
            link_rewatch(link);
    }
    client_settle(link->client);
}

/* Making and losing ---------------------------------------------------------------------------------------------- */

struct nbd_handle *link_new_handle(const struct nbd_client *client)
{
    const struct nbd_client_settings *settings = &client->settings;
    struct nbd_handle *nbd = nbd_create();
    /* What a failed read leaves in the caller's buffers needs no clearing first. */
    bool ok = nbd && nbd_set_export_name(nbd, settings->export) == 0 && nbd_set_handle_name(nbd, settings->name) == 0 &&
              nbd_set_pread_initialize(nbd, false) == 0;
    for (unsigned i = 0; ok && client->contexts[i]; i++)
        ok = nbd_add_meta_context(nbd, client->contexts[i]) == 0;
    if (ok)
        return nbd;
    nbd_close(nbd);
    return NULL;
}

/* The relay knows better than libnbd, which sees no more than an end. */
bool link_fail(struct nbd_link *link, struct error *err)
{
    const char *name = link->client->settings.name;
    int code = nbd_get_errno();
    const char *text = nbd_get_error();
    if (error_is_set(&link->why)) {
        error_move(err, &link->why);
        return fail_prefix(err, "%s: cannot connect to the NBD server: ", name);
    }
    return fail(err, code ? code : EIO, "%s: cannot connect to the NBD server: %s", name,
                text ? text : "libnbd cannot be set up");
}

bool link_connect(struct nbd_link *link, struct error *err)
{
    const struct nbd_client_settings *settings = &link->client->settings;
    link->nbd = link_new_handle(link->client);
    int result = !link->nbd       ? -1
                 : settings->path ? nbd_connect_unix(link->nbd, settings->path)
                                  : nbd_connect_tcp(link->nbd, settings->host, settings->port);
    if (result == 0) {
        link->state = LINK_UP;
        link_rewatch(link);
        return true;
    }
    link_fail(link, err);
    nbd_close(TAKE(link->nbd));
    return false;
}

/* An attempt that was to open the client has failed. */
static void attempt_failed(struct nbd_link *link)
{
    struct nbd_client *client = link->client;
    if (client->is_open || loop_now_ns(client->loop) < client->open_deadline_ns) {
        loop_timer_arm(client->loop, &link->retry, loop_now_ns(client->loop) + RETRY_NS);
        return;
    }
    auto_error why = {0};
    link_fail(link, &why);
    client_opened(client, &why);
}

static int connect_through_relay(struct nbd_link *link)
{
    int fd = relay_start(link);
    return fd < 0 ? -1 : nbd_aio_connect_socket(link->nbd, fd);
}

bool link_attempt(struct nbd_link *link, bool is_asking)
{
    const struct nbd_client_settings *settings = &link->client->settings;
    link->nbd = link_new_handle(link->client);
    int begun = !link->nbd                                           ? -1
                : is_asking && nbd_set_opt_mode(link->nbd, true) < 0 ? -1
                : settings->tls                                      ? connect_through_relay(link)
                : settings->path                                     ? nbd_aio_connect_unix(link->nbd, settings->path)
                                 : nbd_aio_connect_tcp(link->nbd, settings->host, settings->port);
    if (begun == 0 && !link_is_dead(link))
        return true;
    if (link->nbd)
        nbd_close(TAKE(link->nbd));
    relay_let_go(link);
    return false;
}

void link_begin(struct nbd_link *link)
{
    if (!link_attempt(link, false)) {
        attempt_failed(link);
        return;
    }
    link->state = LINK_GREETING;
    link_rewatch(link);
}

static void on_retry(void *arg)
{
    link_begin(arg);
}

void link_init(struct nbd_link *link, struct nbd_client *client)
{
    link->client = client;
    link->fd = -1;
    link->retry = (struct loop_timer){.fn = on_retry, .arg = link};
    list_init(&link->in_flight);
}

void link_close(struct nbd_link *link)
{
    loop_timer_cancel(&link->retry);
    unwatch(link);
    if (link->nbd && nbd_aio_is_ready(link->nbd) > 0)
        nbd_aio_disconnect(link->nbd, 0); /* tells the server; does not wait for it */
    link->state = LINK_DOWN;
    if (link->nbd)
        nbd_close(TAKE(link->nbd));
    relay_let_go(link);
}

/* libnbd fails commands with ENOTCONN when the socket dies, and forgets them without a word when the handle is closed.
 * Either way they are sent again later. */
void link_lost(struct nbd_link *link)
{
    struct nbd_client *client = link->client;
    struct nbd_call *call;
    link_close(link);
    while ((call = list_first(&link->in_flight, struct nbd_call, link))) {
        list_remove(&call->link);
        list_append(&client->waiting, &call->link);
    }
    link->load = 0;
    if (!client->is_open) {
        attempt_failed(link);
        return;
    }
    if (!client->settings.is_final && !client->given_up)
        loop_timer_arm(client->loop, &link->retry, loop_now_ns(client->loop) + RETRY_NS);
    if (client->is_lost || link_best(client))
        return;
    client->is_lost = true;
    client->is_failing |= client->given_up; /* nobody will come back: what is sent again would wait for ever */
    if (client->settings.is_final) {
        client->is_failing = client->given_up = true;
        return; /* who watches the process has said why */
    }
    log_warning("%s: lost the connection to the NBD server; requests %s", client->settings.name,
                client->is_failing ? "fail" : "wait until it is back");
    if (client->settings.has_patience)
        loop_timer_arm(client->loop, &client->patience, loop_now_ns(client->loop) + client->settings.patience_ns);
}
