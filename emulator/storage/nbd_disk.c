/* SPDX-License-Identifier: Apache-2.0 */
/* A disk over NBD: the emulator's disk interface on top of nbd-client/. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/storage/internal.h"
#include "nbd-client/client.h"

enum { PREFERRED_BLOCK = 512, DEFAULT_MAX_TRANSFER = 32 << 20 };
#define NS_PER_S 1000000000ull

struct nbd_disk {
    struct disk disk;
    struct list link; /* in the list of open disks */
    char *id;
    struct nbd_client *client; /* NULL: not connected yet */
};

static struct nbd_disk *nbd_disk_of(struct disk *disk)
{
    return container_of(disk, struct nbd_disk, disk);
}

/* Requests ------------------------------------------------------------------------------------------------------- */

static void on_done(struct nbd_call *call, int result)
{
    struct disk_request *request = call->owner;
    request->private_data = NULL;
    free(call);
    request->done(request, result);
}

static enum nbd_call_kind call_kind(enum disk_operation operation)
{
    switch (operation) {
    case DISK_READ: return NBD_CALL_READ;
    case DISK_WRITE: return NBD_CALL_WRITE;
    case DISK_FLUSH: return NBD_CALL_FLUSH;
    case DISK_DISCARD: return NBD_CALL_TRIM;
    case DISK_WRITE_ZEROES: return NBD_CALL_ZERO;
    }
    return NBD_CALL_FLUSH;
}

static void submit(struct disk *base, struct disk_request *request)
{
    struct nbd_call *call = request->private_data = new (struct nbd_call);
    *call = (struct nbd_call){
        .kind = call_kind(request->operation),
        .offset = request->offset,
        .length = request->length,
        .iov = request->iov,
        .iov_count = request->operation == DISK_READ || request->operation == DISK_WRITE ? request->iov_count : 0,
        .durable = request->durable,
        .may_unmap = request->may_unmap,
        .done = on_done,
        .owner = request,
    };
    nbd_client_submit(nbd_disk_of(base)->client, call);
}

void nbd_disks_give_up(struct list *disks)
{
    struct nbd_disk *disk;
    list_for_each (disk, disks, link)
        nbd_client_give_up(disk->client);
}

/* The disk ------------------------------------------------------------------------------------------------------- */

static void close_disk(struct disk *base)
{
    struct nbd_disk *disk = nbd_disk_of(base);
    if (disk->client)
        nbd_client_close(disk->client);
    if (list_linked(&disk->link))
        list_remove(&disk->link);
    free(disk->id);
    free(disk);
}

static const struct disk_ops nbd_disk_ops = {.submit = submit, .close = close_disk};

/* What can change with a new server; the rest was promised to the guest. */
static void on_changed(void *user)
{
    struct nbd_disk *disk = user;
    struct disk *base = &disk->disk;
    const struct nbd_client_facts *facts = nbd_client_facts(disk->client);
    uint64_t size = round_down(facts->size, base->block_size);
    if (!base->read_only && facts->read_only)
        log_warning("disk '%s': the NBD server has come back read-only; the guest's writes fail", disk->id);
    if (facts->block_minimum > base->block_size)
        log_warning("disk '%s': the NBD server has come back with larger blocks than the guest knows of", disk->id);
    if (size == base->size_bytes)
        return;
    log_info("disk '%s': its size was %llu bytes and is %llu now", disk->id, (unsigned long long)base->size_bytes,
             (unsigned long long)size);
    base->size_bytes = size;
    if (base->resized)
        base->resized(base->owner);
}

static void describe(struct nbd_disk *disk)
{
    struct disk *base = &disk->disk;
    const struct nbd_client_facts *facts = nbd_client_facts(disk->client);
    uint32_t maximum = facts->block_maximum;
    base->block_size = MAX(facts->block_minimum, (uint32_t)PREFERRED_BLOCK);
    base->ops = &nbd_disk_ops;
    base->id = disk->id;
    base->size_bytes = round_down(facts->size, base->block_size);
    base->physical_block_size = facts->block_preferred <= 65536 ? facts->block_preferred : 0;
    base->max_transfer = maximum ? MIN(maximum, (uint32_t)DEFAULT_MAX_TRANSFER) : DEFAULT_MAX_TRANSFER;
    base->read_only = facts->read_only;
    base->can_flush = facts->can_flush;
    base->can_discard = facts->can_trim;
    base->can_write_zeroes = facts->can_zero;
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

static bool read_server(struct nbd_client_settings *client, const struct json *options, struct error *err)
{
    const struct json *server = json_get(options, "server");
    if (!server)
        server = options; /* the short form: path= or host= and port= */
    const char *type = json_string(json_get(server, "type")), *path = json_string(json_get(server, "path"));
    const char *host = json_string(json_get(server, "host")), *port = json_string(json_get(server, "port"));
    if (!type)
        type = path ? "unix" : "inet";
    if (!strcmp(type, "unix") && path && !host && !port) {
        client->path = path;
        return true;
    }
    if (!strcmp(type, "inet") && host && !path) {
        client->host = host;
        client->port = port ? port : "10809";
        return true;
    }
    return fail(err, EINVAL,
                "driver=nbd needs server.type=unix,server.path=PATH or server.type=inet,server.host=HOST,"
                "server.port=PORT");
}

static bool read_options(const struct nbd_disk *disk, const struct json *options, struct nbd_client_settings *client,
                         struct error *err)
{
    auto_error bad = {0};
    client->export = json_string(json_get(options, "export"));
    client->has_patience = read_seconds(options, "reconnect-delay", &client->patience_ns, &bad);
    read_seconds(options, "open-timeout", &client->open_timeout_ns, &bad);
    if (!error_is_set(&bad) && check_keys(options, &bad) && read_server(client, options, &bad))
        return true;
    error_move(err, &bad);
    return fail_prefix(err, "block device '%s': ", disk->id);
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

static bool connect_disk(struct loop *loop, struct nbd_disk *disk, const struct nbd_disk_settings *settings,
                         struct error *err)
{
    auto_free char *name = xasprintf("disk '%s'", disk->id);
    struct nbd_client_settings client = {
        .name = name, .is_final = settings->is_private, .changed = on_changed, .user = disk};
    if (!read_options(disk, settings->options, &client, err))
        return false;
    disk->client = nbd_client_open(loop, &client, err);
    if (!disk->client)
        return false;
    describe(disk);
    return check_writable(disk, settings, err);
}

struct disk *nbd_disk_open(struct loop *loop, struct list *disks, const struct nbd_disk_settings *settings,
                           struct error *err)
{
    struct nbd_disk *disk = new (struct nbd_disk);
    disk->id = xstrdup(settings->id);
    if (connect_disk(loop, disk, settings, err)) {
        list_append(disks, &disk->link);
        return &disk->disk;
    }
    close_disk(&disk->disk);
    return NULL;
}
