/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections of an NBD disk. libnbd is a state machine that we drive from the loop: each connection's socket is
 * watched for the directions that it wants.
 *
 * A connection that breaks is made again by a timer, for as long as it takes; what happens to the requests meanwhile is
 * the disk's business. After the greeting the server is looked at anew: it may have been replaced by one with another
 * size, without FUA, or without support for several connections, where only the first to be up stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/storage/nbd_internal.h"

#define RETRY_NS 200000000ull

bool nbd_connection_is_dead(const struct connection *connection)
{
    return nbd_aio_is_dead(connection->nbd) > 0 || nbd_aio_is_closed(connection->nbd) > 0;
}

struct connection *nbd_best_connection(struct nbd_disk *disk)
{
    struct connection *best = NULL;
    for (unsigned i = 0; i < disk->connection_count; i++) {
        struct connection *connection = &disk->connections[i];
        if (connection->state == CONNECTION_UP && (!best || connection->load < best->load))
            best = connection;
    }
    return best;
}

/* Watching ------------------------------------------------------------------------------------------------------- */

static void unwatch(struct connection *connection)
{
    loop_unwatch(&connection->watch);
    if (connection->fd >= 0)
        close(TAKE_FD(connection->fd));
}

static void on_event(void *arg, uint32_t events);

void nbd_connection_rewatch(struct connection *connection)
{
    unsigned direction = nbd_aio_get_direction(connection->nbd);
    uint32_t events =
        (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
    bool settled = connection->state == CONNECTION_UP && connection->fd >= 0;
    if (settled && events == connection->watch.events)
        return;
    loop_unwatch(&connection->watch);
    if (!settled) { /* during the greeting each turn may be about another socket: the server's next address */
        if (connection->fd >= 0)
            close(TAKE_FD(connection->fd));
        connection->fd = fcntl(nbd_aio_get_fd(connection->nbd), F_DUPFD_CLOEXEC, 0);
    }
    if (connection->fd >= 0)
        loop_watch(connection->disk->loop, &connection->watch, connection->fd, events, on_event, connection);
    else
        nbd_settle_soon(connection->disk); /* it is dead, or we are out of descriptors: lost in either case */
}

/* Being connected ------------------------------------------------------------------------------------------------ */

static bool other_is_up(const struct connection *connection)
{
    const struct nbd_disk *disk = connection->disk;
    for (unsigned i = 0; i < disk->connection_count; i++) {
        if (&disk->connections[i] != connection && disk->connections[i].state == CONNECTION_UP)
            return true;
    }
    return false;
}

static void connection_is_up(struct connection *connection)
{
    struct nbd_disk *disk = connection->disk;
    if (other_is_up(connection) && nbd_can_multi_conn(connection->nbd) <= 0) {
        nbd_connection_close(connection); /* a flush on one would not cover the other */
        return;
    }
    connection->state = CONNECTION_UP;
    nbd_describe(disk, connection->nbd, false);
    if (disk->is_lost)
        log_info("disk '%s': the NBD server is back", disk->id);
    disk->is_lost = false;
    disk->is_failing = disk->given_up;
    loop_timer_cancel(&disk->patience);
    for (unsigned i = 0; i < disk->connection_count; i++) { /* no need to wait for the others' turn */
        struct connection *other = &disk->connections[i];
        if (other->state == CONNECTION_DOWN && other->retry.heap_index)
            loop_timer_arm(disk->loop, &other->retry, loop_now_ns(disk->loop));
    }
}

static void on_event(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    unsigned wanted = nbd_aio_get_direction(connection->nbd);
    /* An error or the end of the stream is found out by using the socket in whatever direction libnbd is at. */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && wanted & LIBNBD_AIO_DIRECTION_READ)
        nbd_aio_notify_read(connection->nbd);
    else if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && wanted & LIBNBD_AIO_DIRECTION_WRITE)
        nbd_aio_notify_write(connection->nbd);
    if (!nbd_connection_is_dead(connection)) {
        bool is_greeting = connection->state == CONNECTION_GREETING;
        if (is_greeting && nbd_aio_is_ready(connection->nbd) > 0)
            connection_is_up(connection);
        if (connection->state != CONNECTION_DOWN)
            nbd_connection_rewatch(connection);
    }
    nbd_settle(connection->disk);
}

/* Making and losing ---------------------------------------------------------------------------------------------- */

static struct nbd_handle *new_handle(const struct nbd_disk *disk)
{
    struct nbd_handle *nbd = nbd_create();
    /* Buffers are the guest's memory: what a failed read leaves there needs no clearing first. */
    if (nbd && nbd_set_export_name(nbd, disk->export) == 0 && nbd_set_handle_name(nbd, disk->id) == 0 &&
        nbd_set_pread_initialize(nbd, false) == 0)
        return nbd;
    nbd_close(nbd);
    return NULL;
}

bool nbd_connection_open(struct connection *connection, struct error *err)
{
    struct nbd_disk *disk = connection->disk;
    connection->nbd = new_handle(disk);
    int result = !connection->nbd ? -1
                 : disk->path     ? nbd_connect_unix(connection->nbd, disk->path)
                                  : nbd_connect_tcp(connection->nbd, disk->host, disk->port);
    if (result == 0) {
        connection->state = CONNECTION_UP;
        nbd_connection_rewatch(connection);
        return true;
    }
    int code = nbd_get_errno();
    const char *text = nbd_get_error();
    fail(err, code ? code : EIO, "disk '%s': cannot connect to the NBD server: %s", disk->id,
         text ? text : "libnbd cannot be set up");
    nbd_close(TAKE(connection->nbd));
    return false;
}

static void on_retry(void *arg)
{
    struct connection *connection = arg;
    struct nbd_disk *disk = connection->disk;
    connection->nbd = new_handle(disk);
    int begun = !connection->nbd ? -1
                : disk->path     ? nbd_aio_connect_unix(connection->nbd, disk->path)
                                 : nbd_aio_connect_tcp(connection->nbd, disk->host, disk->port);
    if (begun < 0 || nbd_connection_is_dead(connection)) {
        nbd_close(TAKE(connection->nbd));
        loop_timer_arm(disk->loop, &connection->retry, loop_now_ns(disk->loop) + RETRY_NS);
        return;
    }
    connection->state = CONNECTION_GREETING;
    nbd_connection_rewatch(connection);
}

void nbd_connection_init(struct connection *connection, struct nbd_disk *disk)
{
    connection->disk = disk;
    connection->fd = -1;
    connection->retry = (struct loop_timer){.fn = on_retry, .arg = connection};
    list_init(&connection->in_flight);
}

void nbd_connection_close(struct connection *connection)
{
    loop_timer_cancel(&connection->retry);
    unwatch(connection);
    if (connection->nbd && nbd_aio_is_ready(connection->nbd) > 0)
        nbd_aio_disconnect(connection->nbd, 0); /* tells the server; does not wait for it */
    connection->state = CONNECTION_DOWN;
    nbd_close(TAKE(connection->nbd));
}

/* libnbd fails commands with ENOTCONN when the socket dies, and forgets them without a word when the handle is closed.
 * Either way they are sent again later. That is right for each: none has been reported, so the guest orders nothing
 * behind them, and doing any of them twice has the effect of doing it once. */
void nbd_connection_lost(struct connection *connection)
{
    struct nbd_disk *disk = connection->disk;
    struct disk_request *request;
    nbd_connection_close(connection);
    while ((request = list_first(&connection->in_flight, struct disk_request, link))) {
        list_remove(&request->link);
        list_append(&disk->waiting, &request->link);
    }
    connection->load = 0;
    if (!disk->is_private && !disk->given_up)
        loop_timer_arm(disk->loop, &connection->retry, loop_now_ns(disk->loop) + RETRY_NS);
    if (disk->is_lost || nbd_best_connection(disk))
        return;
    disk->is_lost = true;
    if (disk->is_private) {
        disk->is_failing = disk->given_up = true;
        return; /* who watches the process has said why */
    }
    log_warning("disk '%s': lost the connection to the NBD server; the guest's requests %s", disk->id,
                disk->is_failing ? "fail" : "wait until it is back");
    if (disk->has_patience)
        loop_timer_arm(disk->loop, &disk->patience, loop_now_ns(disk->loop) + disk->patience_ns);
}
