/* SPDX-License-Identifier: Apache-2.0 */
/* Disks by name: which daemon a -drive or -blockdev belongs to, and the exports that the devices take from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/storage/internal.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

enum { NBD_ENDPOINT = 0, FIRST_VHOST_ENDPOINT = 1 };

struct storage *storage_new(struct loop *loop)
{
    struct storage *storage = new (struct storage);
    storage->loop = loop;
    list_init(&storage->sources);
    list_init(&storage->disks);
    return storage;
}

void storage_on_lost(struct storage *storage, void (*fn)(void *arg), void *arg)
{
    storage->lost = fn;
    storage->lost_arg = arg;
}

void storage_give_up(struct storage *storage)
{
    nbd_disks_give_up(&storage->disks);
}

void storage_free(struct storage *storage)
{
    struct source *source;
    if (storage->daemon)
        private_daemon_stop(storage->daemon);
    list_for_each_safe (source, &storage->sources, link) {
        json_free(source->options);
        free(source->id);
        free(source);
    }
    free(storage);
}

static struct source *find_source(const struct storage *storage, const char *id)
{
    struct source *source;
    list_for_each (source, &storage->sources, link) {
        if (!strcmp(source->id, id))
            return source;
    }
    return NULL;
}

bool storage_has(const struct storage *storage, const char *id)
{
    return find_source(storage, id) != NULL;
}

/* Options -------------------------------------------------------------------------------------------------------- */

/* Options of ours may come as text (key=value) or as what they are (JSON). */
static bool is_on(const struct json *value)
{
    const char *text = json_string(value);
    return text ? !strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "y")
                : value && json_kind(value) == JSON_BOOL && json_boolean(value);
}

/* Takes `options`. */
static struct source *add_source(struct storage *storage, struct json *options, struct error *err)
{
    const char *driver = json_string(json_get(options, "driver")), *id = json_string(json_get(options, "node-name"));
    bool good = true;
    if (!driver || !id)
        good = fail(err, EINVAL, "a block device needs '%s'", driver ? "node-name" : "driver");
    else if (find_source(storage, id))
        good = fail(err, EEXIST, "there is already a block device '%s'", id);
    if (!good) {
        json_free(options);
        return NULL;
    }
    struct source *source = new (struct source);
    source->id = xstrdup(id);
    source->options = options;
    source->is_nbd = !strcmp(driver, "nbd");
    source->read_only = is_on(json_get(options, "read-only"));
    list_append(&storage->sources, &source->link);
    return source;
}

/* `key=value` has no types. The schema knows them for what a daemon takes; driver=nbd is ours and reads strings. */
static struct json *typed_options(const char *text, struct error *err)
{
    auto_free char *driver = keyval_peek(text, "driver", "driver");
    if (driver && !strcmp(driver, "nbd"))
        return keyval_parse(text, "driver", err);
    struct blockdev_options *options;
    if (!blockdev_options_from_keyval(text, "driver", &options, err))
        return NULL;
    struct json *json = blockdev_options_to_json(options);
    blockdev_options_free(options);
    return json;
}

bool storage_add_blockdev(struct storage *storage, const char *text, struct error *err)
{
    struct json *options = text[0] == '{' ? json_parse(text, strlen(text), err) : typed_options(text, err);
    return options && add_source(storage, options, err);
}

bool storage_add_drive(struct storage *storage, const struct storage_drive *drive, struct error *err)
{
    bool writethrough = false;
    struct json *options = storage_drive_options(drive, &writethrough, err);
    struct source *source = options ? add_source(storage, options, err) : NULL;
    if (source)
        source->writethrough = writethrough;
    return source;
}

/* The private daemon --------------------------------------------------------------------------------------------- */

/* Does some value inside say `text`? References to other nodes are plain strings. */
static bool mentions(const struct json *options, const char *text)
{
    for (struct json_member member = json_first(options); member.key; member = json_next(member)) {
        const char *value = json_string(member.value);
        if (value ? !strcmp(value, text) && strcmp(member.key, "node-name") && strcmp(member.key, "driver")
                  : mentions(member.value, text))
            return true;
    }
    return false;
}

/* A source of driver=nbd that a format stands on is the daemon's business like the format. */
static void place_sources(struct storage *storage)
{
    struct source *source, *other;
    size_t endpoint = FIRST_VHOST_ENDPOINT;
    list_for_each (source, &storage->sources, link) {
        source->endpoint = endpoint++;
        list_for_each (other, &storage->sources, link) {
            if (source->is_nbd && other != source && mentions(other->options, source->id))
                source->is_nbd = false;
        }
    }
}

/* Whether a node, or one below it, lies on another machine. Names of drivers that stay at home are told by what they
 * read: files and nothing. Sockets in the file system work without a network. */
static bool needs_network(const struct json *options)
{
    static const char *const remote[] = {"nbd",   "http", "https", "ftp", "ftps",
                                         "iscsi", "nfs",  "rbd",   "ssh", "gluster"};
    const char *driver = json_string(json_get(options, "driver"));
    for (size_t i = 0; driver && i < ARRAY_SIZE(remote); i++) {
        if (!strcmp(driver, remote[i]))
            return strcmp(driver, "nbd") || json_get(json_get(options, "server"), "host");
    }
    for (struct json_member member = json_first(options); member.key; member = json_next(member)) {
        if (json_kind(member.value) == JSON_OBJECT && needs_network(member.value))
            return true;
    }
    return false;
}

static void daemon_died(void *arg, const char *how)
{
    struct storage *storage = arg;
    log_error("the private storage daemon %s: the machine's disks are gone, as after a power cut", how);
    nbd_disks_give_up(&storage->disks);
    if (storage->lost)
        storage->lost(storage->lost_arg);
}

static bool hand_over(struct storage *storage, struct source *source, struct error *err)
{
    if (source->handed_over)
        return true;
    struct json *answer = private_daemon_command(storage->daemon, "blockdev-add", json_clone(source->options), err);
    source->handed_over = answer != NULL;
    json_free(answer);
    return source->handed_over || fail_prefix(err, "block device '%s': ", source->id);
}

/* With all sources, in their order: later ones may stand on earlier ones. */
static bool need_daemon(struct storage *storage, struct error *err)
{
    struct source *source;
    struct private_daemon_settings settings = {
        .loop = storage->loop, .endpoints = FIRST_VHOST_ENDPOINT, .on_death = daemon_died, .arg = storage};
    if (storage->daemon)
        return true;
    list_for_each (source, &storage->sources, link) {
        settings.endpoints++;
        settings.network = settings.network || (!source->is_nbd && needs_network(source->options));
    }
    storage->daemon = private_daemon_start(&settings, err);
    if (!storage->daemon)
        return false;
    list_for_each (source, &storage->sources, link) {
        if (!source->is_nbd && !hand_over(storage, source, err))
            return false;
    }
    return true;
}

/* Opening -------------------------------------------------------------------------------------------------------- */

/* All sources are known by now: devices come after them. */
static struct source *need_source(struct storage *storage, const char *id, struct error *err)
{
    place_sources(storage);
    struct source *source = find_source(storage, id);
    return source ? source : fail_null(err, ENOENT, "there is no -drive or -blockdev '%s'", id);
}

static void set_text(struct json *object, const char *key, const char *value)
{
    json_set(object, key, json_new_string(value));
}

/* The listening socket of an endpoint, as the daemon knows it. */
static struct json *listen_address(size_t endpoint)
{
    auto_free char *fd = private_daemon_listen_fd(endpoint);
    struct json *address = json_new_object();
    set_text(address, "type", "fd");
    set_text(address, "str", fd);
    return address;
}

/* Takes `arguments`. */
static bool add_export(struct storage *storage, struct source *source, struct json *arguments, const char *type,
                       struct error *err)
{
    if (source->is_exported) {
        json_free(arguments);
        return fail(err, EBUSY, "block device '%s': another device has it already", source->id);
    }
    set_text(arguments, "type", type);
    set_text(arguments, "id", source->id);
    set_text(arguments, "node-name", source->id);
    json_set(arguments, "writable", json_new_bool(!source->read_only));
    json_set(arguments, "writethrough", json_new_bool(source->writethrough));
    struct json *answer = private_daemon_command(storage->daemon, "block-export-add", arguments, err);
    source->is_exported = answer != NULL;
    json_free(answer);
    return source->is_exported || fail_prefix(err, "block device '%s': ", source->id);
}

struct vhost_backend *storage_open_vhost(struct storage *storage, const char *id, unsigned queues, struct error *err)
{
    struct source *source = need_source(storage, id, err);
    if (!source || source->is_nbd || !need_daemon(storage, err))
        return NULL;
    struct json *arguments = json_new_object();
    json_set(arguments, "num-queues", json_new_uint(queues));
    json_set(arguments, "addr", listen_address(source->endpoint));
    if (!add_export(storage, source, arguments, "vhost-user-blk", err))
        return NULL;
    auto_free char *path = private_daemon_connect_path(storage->daemon, source->endpoint);
    return vhost_user_open(storage->loop, id, path, true, err);
}

/* The private daemon's NBD server starts with its first use. */
static bool need_nbd_server(struct storage *storage, struct error *err)
{
    if (storage->has_nbd_server)
        return true;
    struct json *wrapped = json_new_object(), *arguments = json_new_object();
    struct json *address = listen_address(NBD_ENDPOINT), *data = json_new_object();
    set_text(data, "str", json_string(json_get(address, "str")));
    json_free(address);
    set_text(wrapped, "type", "fd");
    json_set(wrapped, "data", data);
    json_set(arguments, "addr", wrapped);
    struct json *answer = private_daemon_command(storage->daemon, "nbd-server-start", arguments, err);
    storage->has_nbd_server = answer != NULL;
    json_free(answer);
    return storage->has_nbd_server;
}

static struct disk *open_private_disk(struct storage *storage, struct source *source, struct error *err)
{
    if (!need_daemon(storage, err) || !need_nbd_server(storage, err) ||
        !add_export(storage, source, json_new_object(), "nbd", err))
        return NULL;
    auto_free char *path = private_daemon_connect_path(storage->daemon, NBD_ENDPOINT);
    struct json *options = json_new_object(), *server = json_new_object();
    set_text(server, "type", "unix");
    set_text(server, "path", path);
    json_set(options, "server", server);
    set_text(options, "export", source->id);
    struct nbd_disk_settings settings = {
        .id = source->id, .options = options, .read_only = source->read_only, .is_private = true};
    struct disk *disk = nbd_disk_open(storage->loop, &storage->disks, &settings, err);
    json_free(options);
    return disk;
}

struct disk *storage_open_disk(struct storage *storage, const char *id, struct error *err)
{
    struct source *source = need_source(storage, id, err);
    if (!source)
        return NULL;
    if (!source->is_nbd)
        return open_private_disk(storage, source, err);
    struct nbd_disk_settings settings = {.id = id,
                                         .options = source->options,
                                         .read_only = source->read_only,
                                         .auto_read_only = is_on(json_get(source->options, "auto-read-only"))};
    return nbd_disk_open(storage->loop, &storage->disks, &settings, err);
}

struct vhost_backend *storage_connect_vhost(struct storage *storage, const char *id, const char *path,
                                            struct error *err)
{
    return vhost_user_open(storage->loop, id, path, false, err);
}
