/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk over NBD, by libnbd: several connections where the server says that is safe (then a flush on one covers what
 * was finished on all), any number of requests in flight, and a connection that breaks is made again while its requests
 * wait (nbd_connection.c).
 *
 * libnbd's callbacks may not call back into libnbd, and submit() may not complete: so a finished request is put on a
 * list, and nbd_settle() tells its owner after libnbd has returned.
 *
 * What a restart of the server cannot hide: writes that the old server had answered but not yet stored may be missing
 * in the new one, as after a power cut. NBD has no way to learn of that; a server whose process is killed loses what it
 * kept in its own memory, one that is asked to end (SIGTERM) loses nothing.
 */
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "emulator/storage/nbd_internal.h"

enum { PREFERRED_BLOCK = 512, DEFAULT_MAX_TRANSFER = 32 << 20 };
#define MAX_PIECE (1ull << 30) /* of a discard or write of zeroes: lengths have 32 bits on the wire */
#define NS_PER_S 1000000000ull

static struct nbd_disk *nbd_disk_of(struct disk *disk)
{
    return container_of(disk, struct nbd_disk, disk);
}

/* Sending -------------------------------------------------------------------------------------------------------- */

/* libnbd's completion: `error` is its errno, 0 for success. Returning 1 retires the command. */
static int on_complete(void *user, int *error)
{
    struct nbd_operation *operation = user;
    struct connection *connection = operation->connection;
    operation->error = *error;
    connection->load--;
    list_remove(&operation->request->link);
    list_append(&connection->disk->completed, &operation->request->link);
    return 1;
}

static uint32_t zero_flags(const struct disk_request *request, uint32_t fua)
{
    return fua | (request->may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
}

static int64_t issue(struct connection *connection, struct nbd_operation *operation)
{
    const struct disk_request *request = operation->request;
    struct nbd_handle *nbd = connection->nbd;
    nbd_completion_callback done = {.callback = on_complete, .user_data = operation};
    uint32_t fua = request->durable && connection->disk->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
    void *buffer = operation->bounce ? operation->bounce : request->iov_count ? request->iov[0].iov_base : NULL;
    uint64_t offset = request->offset + operation->progress;
    operation->piece = MIN(request->length - operation->progress, MAX_PIECE);
    if (operation->is_flushing)
        return nbd_aio_flush(nbd, done, 0);
    switch (request->operation) {
    case DISK_READ: return nbd_aio_pread(nbd, buffer, request->length, offset, done, 0);
    case DISK_WRITE: return nbd_aio_pwrite(nbd, buffer, request->length, offset, done, fua);
    case DISK_FLUSH: return nbd_aio_flush(nbd, done, 0);
    case DISK_DISCARD: return nbd_aio_trim(nbd, operation->piece, offset, done, 0);
    default: return nbd_aio_zero(nbd, operation->piece, offset, done, zero_flags(request, fua));
    }
}

/* The request is on no list. Never completes it on the spot. */
static void start(struct nbd_disk *disk, struct disk_request *request)
{
    struct nbd_operation *operation = request->private_data;
    struct connection *connection = operation->error ? NULL : nbd_best_connection(disk);
    if (!connection) {
        if (!operation->error && disk->is_failing)
            operation->error = EIO;
        list_append(operation->error ? &disk->completed : &disk->waiting, &request->link);
        if (operation->error)
            nbd_settle_soon(disk);
        return;
    }
    operation->connection = connection;
    connection->load++;
    list_append(&connection->in_flight, &request->link);
    if (issue(connection, operation) < 0) {
        /* libnbd did not take it: because it is dead (wait for another connection), or it is not to be sent at all. */
        int code = nbd_get_errno();
        connection->load--;
        list_remove(&request->link);
        operation->error = nbd_connection_is_dead(connection) ? ENOTCONN : code ? code : EIO;
        list_append(&disk->completed, &request->link);
    }
    if (!list_empty(&disk->completed) || nbd_connection_is_dead(connection))
        nbd_settle_soon(disk);
    else
        nbd_connection_rewatch(connection);
}

static void start_waiting(struct nbd_disk *disk)
{
    struct disk_request *request;
    while ((nbd_best_connection(disk) || disk->is_failing) &&
           (request = list_first(&disk->waiting, struct disk_request, link))) {
        list_remove(&request->link);
        start(disk, request);
    }
}

/* Completing ----------------------------------------------------------------------------------------------------- */

static void finish(struct disk_request *request, int result)
{
    struct nbd_operation *operation = request->private_data;
    if (operation->bounce && request->operation == DISK_READ && !result)
        iov_from_buffer(request->iov, (int)request->iov_count, 0, operation->bounce, request->length);
    request->private_data = NULL;
    free(operation->bounce);
    free(operation);
    request->done(request, result);
}

/* One step of the request is through. False: another one follows. */
static bool is_done(struct nbd_disk *disk, struct nbd_operation *operation)
{
    const struct disk_request *request = operation->request;
    if (operation->is_flushing || request->operation == DISK_FLUSH)
        return true;
    operation->progress += operation->piece;
    if ((request->operation == DISK_DISCARD || request->operation == DISK_WRITE_ZEROES) &&
        operation->progress < request->length)
        return false;
    operation->progress = 0;
    operation->is_flushing = request->durable && request->operation != DISK_READ && !disk->can_fua;
    return !operation->is_flushing;
}

/* ENOTCONN: the connection broke under it; ESHUTDOWN: the server goes down and wants to be asked again elsewhere. */
static bool must_be_repeated(const struct nbd_disk *disk, const struct nbd_operation *operation)
{
    return (operation->error == ENOTCONN || operation->error == ESHUTDOWN) && operation->connection &&
           !disk->is_failing;
}

static void settle_request(struct nbd_disk *disk, struct disk_request *request)
{
    struct nbd_operation *operation = request->private_data;
    list_remove(&request->link);
    if (must_be_repeated(disk, operation)) {
        if (operation->error == ESHUTDOWN && operation->connection->state != CONNECTION_DOWN)
            nbd_connection_lost(operation->connection);
        operation->error = 0;
        operation->connection = NULL;
        list_append(&disk->waiting, &request->link);
    } else if (operation->error) {
        finish(request, operation->error == ENOTCONN || operation->error == ESHUTDOWN ? -EIO : -operation->error);
    } else if (is_done(disk, operation)) {
        finish(request, 0);
    } else {
        start(disk, request);
    }
}

void nbd_settle(struct nbd_disk *disk)
{
    loop_timer_cancel(&disk->settle);
    for (unsigned i = 0; i < disk->connection_count; i++) {
        struct connection *connection = &disk->connections[i];
        if (connection->nbd && (connection->fd < 0 || nbd_connection_is_dead(connection)))
            nbd_connection_lost(connection);
    }
    /* Owners may submit from done(); what fails at once then has its own turn, or one owner could keep us here. */
    struct list batch;
    struct disk_request *request;
    list_init(&batch);
    while ((request = list_first(&disk->completed, struct disk_request, link))) {
        list_remove(&request->link);
        list_append(&batch, &request->link);
    }
    while ((request = list_first(&batch, struct disk_request, link)))
        settle_request(disk, request);
    start_waiting(disk);
}

static void on_settle(void *arg)
{
    nbd_settle(arg);
}

void nbd_settle_soon(struct nbd_disk *disk)
{
    if (!disk->settle.heap_index)
        loop_timer_arm(disk->loop, &disk->settle, loop_now_ns(disk->loop));
}

static void on_out_of_patience(void *arg)
{
    struct nbd_disk *disk = arg;
    log_error("disk '%s': the NBD server has not come back in time (reconnect-delay); the guest's requests fail",
              disk->id);
    disk->is_failing = true;
    nbd_settle(disk);
}

void nbd_disks_give_up(struct list *disks)
{
    struct nbd_disk *disk;
    list_for_each (disk, disks, link) {
        disk->given_up = true;
        if (!nbd_best_connection(disk)) {
            disk->is_failing = true;
            nbd_settle_soon(disk);
        }
    }
}

/* The disk ------------------------------------------------------------------------------------------------------- */

static void submit(struct disk *base, struct disk_request *request)
{
    struct nbd_operation *operation = new (struct nbd_operation);
    operation->request = request;
    request->private_data = operation;
    if (request->iov_count > 1) {
        operation->bounce = try_aligned_alloc(64, request->length);
        if (!operation->bounce)
            operation->error = ENOMEM;
        else if (request->operation == DISK_WRITE)
            iov_to_buffer(request->iov, (int)request->iov_count, 0, operation->bounce, request->length);
    }
    start(nbd_disk_of(base), request);
}

static void close_disk(struct disk *base)
{
    struct nbd_disk *disk = nbd_disk_of(base);
    for (unsigned i = 0; i < disk->connection_count; i++)
        nbd_connection_close(&disk->connections[i]);
    loop_timer_cancel(&disk->patience);
    loop_timer_cancel(&disk->settle);
    list_remove(&disk->link);
    free(disk->id);
    free(disk->path);
    free(disk->host);
    free(disk->port);
    free(disk->export);
    free(disk);
}

static const struct disk_ops nbd_disk_ops = {.submit = submit, .close = close_disk};

/* What can change with a new server; the rest was promised to the guest. */
static void describe_again(struct nbd_disk *disk, struct nbd_handle *nbd, uint64_t size)
{
    struct disk *base = &disk->disk;
    if (!base->read_only && nbd_is_read_only(nbd) > 0)
        log_warning("disk '%s': the NBD server has come back read-only; the guest's writes fail", disk->id);
    if (nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM) > base->block_size)
        log_warning("disk '%s': the NBD server has come back with larger blocks than the guest knows of", disk->id);
    if (size == base->size_bytes)
        return;
    log_info("disk '%s': its size was %llu bytes and is %llu now", disk->id, (unsigned long long)base->size_bytes,
             (unsigned long long)size);
    base->size_bytes = size;
    if (base->resized)
        base->resized(base->owner);
}

void nbd_describe(struct nbd_disk *disk, struct nbd_handle *nbd, bool first)
{
    struct disk *base = &disk->disk;
    int64_t size = nbd_get_size(nbd), minimum = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM),
            preferred = nbd_get_block_size(nbd, LIBNBD_SIZE_PREFERRED),
            maximum = nbd_get_block_size(nbd, LIBNBD_SIZE_MAXIMUM);
    disk->can_fua = nbd_can_fua(nbd) > 0;
    if (first)
        base->block_size = (uint32_t)MAX(minimum, (int64_t)PREFERRED_BLOCK);
    uint64_t whole_blocks = round_down((uint64_t)MAX(size, (int64_t)0), base->block_size);
    if (!first) {
        describe_again(disk, nbd, whole_blocks);
        return;
    }
    base->ops = &nbd_disk_ops;
    base->id = disk->id;
    base->size_bytes = whole_blocks;
    base->physical_block_size = preferred > 0 && preferred <= 65536 ? (uint32_t)preferred : 0;
    base->max_transfer = maximum > 0 ? (uint32_t)MIN(maximum, (int64_t)DEFAULT_MAX_TRANSFER) : DEFAULT_MAX_TRANSFER;
    base->read_only = nbd_is_read_only(nbd) > 0;
    base->can_flush = nbd_can_flush(nbd) > 0;
    base->can_discard = nbd_can_trim(nbd) > 0;
    base->can_write_zeroes = nbd_can_zero(nbd) > 0;
}

/* Opening -------------------------------------------------------------------------------------------------------- */

/* A number of seconds, as text or number. False: there is none. */
static bool read_seconds(const struct json *options, const char *key, uint64_t *ns, struct error *err)
{
    const struct json *value = json_get(options, key);
    const char *text = json_string(value);
    uint64_t seconds = 0;
    char *end = "";
    if (!value)
        return false;
    if (text)
        seconds = strtoull(text, &end, 10);
    bool good = text ? *text && !*end && *text != '-' : json_uint64(value, &seconds);
    if (!good || seconds > UINT32_MAX)
        return fail(err, EINVAL, "'%s' must be a number of seconds", key);
    *ns = seconds * NS_PER_S;
    return true;
}

static bool check_keys(const struct json *options, struct error *err)
{
    static const char *const known[] = {"driver",      "node-name", "server",         "export",       "reconnect-delay",
                                        "read-only",   "discard",   "auto-read-only", "open-timeout", "cache",
                                        "force-share", "path",      "host",           "port"};
    for (struct json_member member = json_first(options); member.key; member = json_next(member)) {
        bool found = false;
        for (size_t i = 0; i < ARRAY_SIZE(known); i++)
            found = found || !strcmp(member.key, known[i]);
        if (!found)
            return fail(err, EINVAL, "driver=nbd knows no option '%s' here", member.key);
    }
    return true;
}

static bool read_server(struct nbd_disk *disk, const struct json *options, struct error *err)
{
    const struct json *server = json_get(options, "server");
    if (!server)
        server = options; /* the short form: path= or host= and port= */
    const char *type = json_string(json_get(server, "type")), *path = json_string(json_get(server, "path"));
    const char *host = json_string(json_get(server, "host")), *port = json_string(json_get(server, "port"));
    if (!type)
        type = path ? "unix" : "inet";
    if (!strcmp(type, "unix") && path && !host && !port) {
        disk->path = xstrdup(path);
        return true;
    }
    if (!strcmp(type, "inet") && host && !path) {
        disk->host = xstrdup(host);
        disk->port = xstrdup(port ? port : "10809");
        return true;
    }
    return fail(err, EINVAL,
                "driver=nbd needs server.type=unix,server.path=PATH or server.type=inet,server.host=HOST,"
                "server.port=PORT");
}

static bool read_options(struct nbd_disk *disk, const struct json *options, uint64_t *open_timeout_ns,
                         struct error *err)
{
    auto_error bad = {0};
    const char *export = json_string(json_get(options, "export"));
    disk->export = xstrdup(export ? export : "");
    disk->has_patience = read_seconds(options, "reconnect-delay", &disk->patience_ns, &bad);
    read_seconds(options, "open-timeout", open_timeout_ns, &bad);
    if (!error_is_set(&bad) && check_keys(options, &bad) && read_server(disk, options, &bad))
        return true;
    error_move(err, &bad);
    return fail_prefix(err, "block device '%s': ", disk->id);
}

static bool connect_first(struct nbd_disk *disk, uint64_t open_timeout_ns, struct error *err)
{
    enum { PAUSE_US = 100000 };
    for (uint64_t waited = 0;; waited += PAUSE_US * 1000ull) {
        auto_error why = {0};
        if (nbd_connection_open(&disk->connections[0], &why))
            return true;
        if (waited >= open_timeout_ns) {
            error_move(err, &why);
            return false;
        }
        usleep(PAUSE_US);
    }
}

static bool connect_all(struct nbd_disk *disk, uint64_t open_timeout_ns, struct error *err)
{
    for (size_t i = 0; i < NBD_MAX_CONNECTIONS; i++)
        nbd_connection_init(&disk->connections[i], disk);
    disk->connection_count = 1;
    if (!connect_first(disk, open_timeout_ns, err))
        return false;
    nbd_describe(disk, disk->connections[0].nbd, true);
    if (nbd_can_multi_conn(disk->connections[0].nbd) <= 0)
        return true;
    /* More are a matter of speed alone: a server that is at its limit of clients is no reason to fail. */
    while (disk->connection_count < NBD_MAX_CONNECTIONS &&
           nbd_connection_open(&disk->connections[disk->connection_count], NULL))
        disk->connection_count++;
    return true;
}

/* As in the ecosystem: a server that refuses writes is an error unless the user has said that it may. */
static bool check_writable(struct nbd_disk *disk, const struct nbd_disk_settings *settings, struct error *err)
{
    bool server_refuses = disk->disk.read_only;
    disk->disk.read_only = server_refuses || settings->read_only;
    return !server_refuses || settings->read_only || settings->auto_read_only ||
           fail(err, EACCES, "block device '%s': the NBD export is read-only: say read-only=on (or auto-read-only=on)",
                disk->id);
}

struct disk *nbd_disk_open(struct loop *loop, struct list *disks, const struct nbd_disk_settings *settings,
                           struct error *err)
{
    struct nbd_disk *disk = new (struct nbd_disk);
    uint64_t open_timeout_ns = 0;
    disk->loop = loop;
    disk->id = xstrdup(settings->id);
    disk->is_private = settings->is_private;
    disk->settle = (struct loop_timer){.fn = on_settle, .arg = disk};
    disk->patience = (struct loop_timer){.fn = on_out_of_patience, .arg = disk};
    list_init(&disk->waiting);
    list_init(&disk->completed);
    if (read_options(disk, settings->options, &open_timeout_ns, err) && connect_all(disk, open_timeout_ns, err) &&
        check_writable(disk, settings, err)) {
        list_append(disks, &disk->link);
        return &disk->disk;
    }
    close_disk(&disk->disk);
    return NULL;
}
