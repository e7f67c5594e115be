/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk over NBD, by libnbd: several connections where the server says that is safe, any number of requests in flight,
 * and a connection that breaks is made again while its requests wait.
 *
 * libnbd is a state machine that we drive from the loop: each connection's socket is watched for the directions that it
 * wants. Its callbacks may not call back into libnbd, so a finished request is put on a list and completed after libnbd
 * has returned.
 */
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/loop.h"
#include "emulator/storage/internal.h"

enum { MAX_CONNECTIONS = 4, PREFERRED_BLOCK = 512 };
#define RETRY_NS 200000000ull

struct nbd_disk;

struct connection {
    struct nbd_disk *disk;
    struct nbd_handle *nbd;
    struct loop_watch watch;
    int fd; /* being watched; -1: none */
    uint32_t events;
    struct list in_flight; /* of struct disk_request */
    size_t load;
    struct loop_timer retry;
};

struct nbd_disk {
    struct disk disk;
    struct loop *loop;
    char *id;
    char *path, *host, *port, *export; /* where the server is: a unix socket or host and port */
    struct connection connections[MAX_CONNECTIONS];
    unsigned connection_count;
    struct list waiting;  /* no connection is up */
    struct list finished; /* completed inside libnbd, to be told */
};

/* What libnbd holds of a request. */
struct operation {
    struct connection *connection;
    struct disk_request *request;
    void *bounce; /* for scattered buffers */
    int result;
};

static void connection_update(struct connection *connection);
static void submit(struct disk *disk, struct disk_request *request);

/* Requests ------------------------------------------------------------------------------------------------------- */

/* libnbd's completion: `error` is its errno, 0 for success. Returning 1 retires the command. */
static int on_complete(void *user, int *error)
{
    struct operation *operation = user;
    struct disk_request *request = operation->request;
    if (operation->bounce && request->operation == DISK_READ && !*error)
        iov_from_buffer(request->iov, (int)request->iov_count, 0, operation->bounce, request->length);
    operation->result = -*error;
    operation->connection->load--;
    list_remove(&request->link);
    list_append(&operation->connection->disk->finished, &request->link);
    return 1;
}

static struct operation *operation_new(struct connection *connection, struct disk_request *request)
{
    struct operation *operation = new (struct operation);
    operation->connection = connection;
    operation->request = request;
    request->private_data = operation;
    if (request->iov_count > 1) {
        operation->bounce = try_aligned_alloc(4096, request->length);
        if (!operation->bounce) {
            free(operation);
            return NULL;
        }
        if (request->operation == DISK_WRITE)
            iov_to_buffer(request->iov, (int)request->iov_count, 0, operation->bounce, request->length);
    }
    return operation;
}

static void operation_free(struct disk_request *request)
{
    struct operation *operation = request->private_data;
    request->private_data = NULL;
    free(operation->bounce);
    free(operation);
}

static int64_t issue(struct connection *connection, struct disk_request *request, struct operation *operation)
{
    nbd_completion_callback done = {.callback = on_complete, .user_data = operation};
    uint32_t fua = request->durable && nbd_can_fua(connection->nbd) > 0 ? LIBNBD_CMD_FLAG_FUA : 0;
    void *buffer = operation->bounce ? operation->bounce : request->iov_count ? request->iov[0].iov_base : NULL;
    switch (request->operation) {
    case DISK_READ: return nbd_aio_pread(connection->nbd, buffer, request->length, request->offset, done, 0);
    case DISK_WRITE: return nbd_aio_pwrite(connection->nbd, buffer, request->length, request->offset, done, fua);
    case DISK_FLUSH: return nbd_aio_flush(connection->nbd, done, 0);
    case DISK_DISCARD: return nbd_aio_trim(connection->nbd, request->length, request->offset, done, 0);
    default:
        return nbd_aio_zero(connection->nbd, request->length, request->offset, done,
                            fua | (request->may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE));
    }
}

/* Tells the owners of what libnbd has finished; they may submit again from there. */
static void complete_finished(struct nbd_disk *disk)
{
    struct disk_request *request;
    while ((request = list_first(&disk->finished, struct disk_request, link))) {
        struct operation *operation = request->private_data;
        int result = operation->result;
        list_remove(&request->link);
        operation_free(request);
        request->done(request, result);
    }
}

/* Connections ---------------------------------------------------------------------------------------------------- */

static bool is_up(const struct connection *connection)
{
    return connection->nbd && nbd_aio_is_ready(connection->nbd) > 0;
}

static struct connection *least_loaded(struct nbd_disk *disk)
{
    struct connection *best = NULL;
    for (unsigned i = 0; i < disk->connection_count; i++) {
        struct connection *connection = &disk->connections[i];
        /* a connection that is sending or receiving is as good as an idle one */
        if (connection->nbd && connection->fd >= 0 && nbd_aio_is_connecting(connection->nbd) == 0 &&
            nbd_aio_is_dead(connection->nbd) == 0 && nbd_aio_is_closed(connection->nbd) == 0 &&
            (!best || connection->load < best->load))
            best = connection;
    }
    return best;
}

static void resubmit_waiting(struct nbd_disk *disk)
{
    struct list waiting;
    struct disk_request *request;
    list_init(&waiting);
    while ((request = list_first(&disk->waiting, struct disk_request, link))) {
        list_remove(&request->link);
        list_append(&waiting, &request->link);
    }
    while ((request = list_first(&waiting, struct disk_request, link))) {
        list_remove(&request->link);
        submit(&disk->disk, request);
    }
}

static void unwatch(struct connection *connection)
{
    if (connection->fd >= 0)
        loop_unwatch(&connection->watch);
    connection->fd = -1;
    connection->events = 0;
}

/* The connection is gone: what was in flight waits for another one. libnbd retires its commands with an error when the
 * handle is closed; those completions are ours, not the guest's. */
static void connection_lost(struct connection *connection)
{
    struct nbd_disk *disk = connection->disk;
    struct disk_request *request;
    log_warning("disk '%s': lost the connection to the NBD server: %s", disk->id,
                nbd_get_error() ? nbd_get_error() : "closed");
    unwatch(connection);
    struct list lost;
    list_init(&lost);
    while ((request = list_first(&connection->in_flight, struct disk_request, link))) {
        list_remove(&request->link);
        list_append(&lost, &request->link);
    }
    nbd_close(connection->nbd); /* calls on_complete() for what it still has */
    connection->nbd = NULL;
    connection->load = 0;
    while ((request = list_first(&disk->finished, struct disk_request, link))) {
        struct operation *operation = request->private_data;
        if (operation->connection != connection || operation->result >= 0)
            break;
        list_remove(&request->link);
        list_append(&lost, &request->link);
    }
    while ((request = list_first(&lost, struct disk_request, link))) {
        list_remove(&request->link);
        operation_free(request);
        list_append(&disk->waiting, &request->link);
    }
    loop_timer_arm(disk->loop, &connection->retry, loop_now_ns(disk->loop) + RETRY_NS);
    if (least_loaded(disk))
        resubmit_waiting(disk);
}

static void on_event(void *arg, uint32_t events)
{
    struct connection *connection = arg;
    unsigned wanted = nbd_aio_get_direction(connection->nbd);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && wanted & LIBNBD_AIO_DIRECTION_READ)
        nbd_aio_notify_read(connection->nbd);
    else if (events & EPOLLOUT && wanted & LIBNBD_AIO_DIRECTION_WRITE)
        nbd_aio_notify_write(connection->nbd);
    struct nbd_disk *disk = connection->disk;
    if (nbd_aio_is_dead(connection->nbd) > 0 || nbd_aio_is_closed(connection->nbd) > 0) {
        connection_lost(connection);
    } else {
        connection_update(connection);
        if (is_up(connection) && !list_empty(&disk->waiting))
            resubmit_waiting(disk);
    }
    complete_finished(disk);
}

/* Watches for what libnbd wants to do next. */
static void connection_update(struct connection *connection)
{
    int fd = nbd_aio_get_fd(connection->nbd);
    unsigned direction = nbd_aio_get_direction(connection->nbd);
    uint32_t events =
        (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0);
    if (fd == connection->fd && events == connection->events)
        return;
    unwatch(connection);
    if (fd < 0)
        return;
    connection->fd = fd;
    connection->events = events;
    loop_watch(connection->disk->loop, &connection->watch, fd, events, on_event, connection);
}

static struct nbd_handle *new_handle(struct nbd_disk *disk)
{
    struct nbd_handle *nbd = nbd_create();
    if (nbd && nbd_set_export_name(nbd, disk->export) == 0 && nbd_set_handle_name(nbd, disk->id) == 0)
        return nbd;
    nbd_close(nbd);
    return NULL;
}

static void on_retry(void *arg)
{
    struct connection *connection = arg;
    struct nbd_disk *disk = connection->disk;
    connection->nbd = new_handle(disk);
    int begun = !connection->nbd ? -1
                : disk->path     ? nbd_aio_connect_unix(connection->nbd, disk->path)
                                 : nbd_aio_connect_tcp(connection->nbd, disk->host, disk->port);
    if (begun == 0) {
        connection_update(connection);
        return;
    }
    nbd_close(connection->nbd);
    connection->nbd = NULL;
    loop_timer_arm(disk->loop, &connection->retry, loop_now_ns(disk->loop) + RETRY_NS);
}

/* The disk ------------------------------------------------------------------------------------------------------- */

static void submit(struct disk *base, struct disk_request *request)
{
    struct nbd_disk *disk = container_of(base, struct nbd_disk, disk);
    struct connection *connection = least_loaded(disk);
    if (!connection) {
        list_append(&disk->waiting, &request->link);
        return;
    }
    struct operation *operation = operation_new(connection, request);
    connection->load++;
    list_append(&connection->in_flight, &request->link);
    if (!operation || issue(connection, request, operation) < 0) {
        connection->load--;
        list_remove(&request->link);
        if (operation)
            operation_free(request);
        list_append(&disk->waiting, &request->link); /* the socket's event will say that it is dead */
        return;
    }
    connection_update(connection);
}

static void close_disk(struct disk *base)
{
    struct nbd_disk *disk = container_of(base, struct nbd_disk, disk);
    for (unsigned i = 0; i < disk->connection_count; i++) {
        struct connection *connection = &disk->connections[i];
        loop_timer_cancel(&connection->retry);
        unwatch(connection);
        if (is_up(connection))
            nbd_shutdown(connection->nbd, 0);
        nbd_close(connection->nbd);
    }
    free(disk->id);
    free(disk->path);
    free(disk->host);
    free(disk->port);
    free(disk->export);
    free(disk);
}

static const struct disk_ops nbd_disk_ops = {.submit = submit, .close = close_disk};

static bool connect_one(struct nbd_disk *disk, struct connection *connection, struct error *err)
{
    connection->disk = disk;
    connection->fd = -1;
    connection->retry = (struct loop_timer){.fn = on_retry, .arg = connection};
    list_init(&connection->in_flight);
    connection->nbd = new_handle(disk);
    int result = !connection->nbd ? -1
                 : disk->path     ? nbd_connect_unix(connection->nbd, disk->path)
                                  : nbd_connect_tcp(connection->nbd, disk->host, disk->port);
    if (result < 0)
        return fail(err, nbd_get_errno() ? nbd_get_errno() : EIO, "disk '%s': cannot connect to the NBD server: %s",
                    disk->id, nbd_get_error());
    connection_update(connection);
    return true;
}

static void describe(struct nbd_disk *disk, bool read_only)
{
    struct nbd_handle *nbd = disk->connections[0].nbd;
    struct disk *base = &disk->disk;
    int64_t size = nbd_get_size(nbd), minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM),
            preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED),
            maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
    base->ops = &nbd_disk_ops;
    base->id = disk->id;
    base->block_size = (uint32_t)MAX(minimum, (int64_t)PREFERRED_BLOCK);
    base->size_bytes = round_down((uint64_t)MAX(size, (int64_t)0), base->block_size);
    base->physical_block_size = preferred > 0 && preferred <= 65536 ? (uint32_t)preferred : 0;
    base->max_transfer = maximum > 0 && maximum < UINT32_MAX ? (uint32_t)maximum : 32u << 20;
    base->read_only = read_only || nbd_is_read_only(nbd) > 0;
    base->can_flush = nbd_can_flush(nbd) > 0;
    base->can_discard = nbd_can_trim(nbd) > 0;
    base->can_write_zeroes = nbd_can_zero(nbd) > 0;
}

static bool read_options(struct nbd_disk *disk, const struct json *options, struct error *err)
{
    const struct json *server = json_get(options, "server");
    const char *type = json_string(json_get(server, "type")), *export = json_string(json_get(options, "export"));
    disk->export = xstrdup(export ? export : "");
    disk->path = xstrdup(json_string(json_get(server, "path")));
    disk->host = xstrdup(json_string(json_get(server, "host")));
    disk->port = xstrdup(json_string(json_get(server, "port")));
    if (type && !strcmp(type, "unix") && disk->path)
        return true;
    free(TAKE(disk->path));
    if (type && !strcmp(type, "inet") && disk->host && disk->port)
        return true;
    return fail(err, EINVAL,
                "block device '%s': driver=nbd needs server.type=unix,server.path=... or "
                "server.type=inet,server.host=...,server.port=...",
                disk->id);
}

struct disk *nbd_disk_open(struct loop *loop, const char *id, const struct json *options, bool read_only,
                           struct error *err)
{
    struct nbd_disk *disk = new (struct nbd_disk);
    disk->loop = loop;
    disk->id = xstrdup(id);
    list_init(&disk->waiting);
    list_init(&disk->finished);
    bool good = read_options(disk, options, err);
    for (unsigned wanted = 1; good && disk->connection_count < wanted;) {
        good = connect_one(disk, &disk->connections[disk->connection_count], err);
        disk->connection_count++;
        if (good && nbd_can_multi_conn(disk->connections[0].nbd) > 0)
            wanted = MAX_CONNECTIONS;
    }
    if (!good) {
        close_disk(&disk->disk);
        return NULL;
    }
    describe(disk, read_only);
    return &disk->disk;
}
