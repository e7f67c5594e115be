/* SPDX-License-Identifier: Apache-2.0 */
/* Disks by name: which daemon a -drive or -blockdev belongs to, and the exports that the devices take from it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/storage/internal.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

struct storage *storage_new(struct loop *loop)
{
    struct storage *storage = new (struct storage);
    storage->loop = loop;
    list_init(&storage->sources);
    return storage;
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

static bool is_on(const struct json *value)
{
    const char *text = json_string(value);
    return text ? !strcmp(text, "on") || !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "y")
                : value && json_kind(value) == JSON_BOOL && json_boolean(value);
}

/* Takes `options`. */
static bool add_source(struct storage *storage, struct json *options, struct error *err)
{
    const char *driver = json_string(json_get(options, "driver")), *id = json_string(json_get(options, "node-name"));
    if (!driver || !id)
        fail(err, EINVAL, "a block device needs '%s'", driver ? "node-name" : "driver");
    else if (find_source(storage, id))
        fail(err, EEXIST, "there is already a block device '%s'", id);
    if (error_is_set(err) || !driver || !id) {
        json_free(options);
        return false;
    }
    struct source *source = new (struct source);
    source->id = xstrdup(id);
    source->options = options;
    source->is_nbd = !strcmp(driver, "nbd");
    source->read_only = is_on(json_get(options, "read-only"));
    list_append(&storage->sources, &source->link);
    return true;
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

/* What the image tool says the format of a file is; owned. The file is never opened in this process. */
static char *ask_format(const char *file, struct error *err)
{
    auto_free char *program = storage_program_path("spindle-img");
    int out[2];
    if (pipe(out) < 0)
        return fail_errno_null(err, errno, "cannot ask for the format of '%s'", file);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        execlp(program, "spindle-img", "info", "--output=json", "-U", "--", file, NULL);
        _exit(127);
    }
    close(out[1]);
    char text[65536];
    size_t length = 0;
    ssize_t got;
    while (length < sizeof text && (got = read(out[0], text + length, sizeof text - length)) > 0)
        length += (size_t)got;
    close(out[0]);
    int status = -1;
    if (pid > 0)
        waitpid(pid, &status, 0);
    struct json *info = status == 0 ? json_parse(text, length, NULL) : NULL;
    const char *format = json_string(json_get(info, "format"));
    char *result = xstrdup(format);
    json_free(info);
    return result ? result : fail_null(err, EINVAL, "cannot find out the format of '%s': give it with format=", file);
}

static void set_text(struct json *object, const char *key, const char *value)
{
    if (value)
        json_set(object, key, json_new_string(value));
}

/* QEMU's cache modes, as direct and no-flush. Write-through is the export's affair. */
static bool set_cache(struct json *options, const char *mode, struct error *err)
{
    static const struct {
        const char *name;
        bool direct, no_flush;
    } modes[] = {{"writeback", false, false}, {"none", true, false}, {"unsafe", false, true}};
    if (!mode)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (strcmp(modes[i].name, mode))
            continue;
        struct json *cache = json_new_object();
        json_set(cache, "direct", json_new_bool(modes[i].direct));
        json_set(cache, "no-flush", json_new_bool(modes[i].no_flush));
        json_set(options, "cache", cache);
        return true;
    }
    return fail(err, EINVAL, "cache=%s: must be writeback, none or unsafe", mode);
}

bool storage_add_drive(struct storage *storage, const struct storage_drive *drive, struct error *err)
{
    if (!drive->file)
        return fail(err, EINVAL, "drive '%s': file= is missing", drive->id);
    auto_free char *probed = drive->format ? NULL : ask_format(drive->file, err);
    const char *format = drive->format ? drive->format : probed;
    if (!format)
        return false;
    if (probed && !strcmp(probed, "raw"))
        log_warning("Image format was not specified for '%s' and it looks like raw. A guest could make it look like "
                    "something else at the "
                    "next start: say format=raw.",
                    drive->file);
    struct json *file = json_new_object(), *options = json_new_object();
    set_text(file, "driver", "file");
    set_text(file, "filename", drive->file);
    set_text(file, "aio", drive->aio);
    set_text(file, "discard", drive->discard);
    bool good = set_cache(file, drive->cache, err);
    set_text(options, "driver", format);
    set_text(options, "node-name", drive->id);
    set_text(options, "discard", drive->discard);
    good = set_cache(options, drive->cache, err) && good;
    json_set(options, "read-only", json_new_bool(drive->read_only));
    json_set(options, "file", file);
    if (good)
        return add_source(storage, options, err);
    json_free(options);
    return false;
}

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool hand_over(struct storage *storage, struct source *source, struct error *err)
{
    if (source->handed_over)
        return true;
    struct json *answer = private_daemon_command(storage->daemon, "blockdev-add", json_clone(source->options), err);
    source->handed_over = answer != NULL;
    json_free(answer);
    return source->handed_over || fail_prefix(err, "block device '%s': ", source->id);
}

/* All sources, in their order: later ones may stand on earlier ones. */
static bool start_daemon(struct storage *storage, struct error *err)
{
    struct source *source;
    if (!storage->daemon) {
        storage->daemon = private_daemon_start(err);
        if (!storage->daemon)
            return false;
    }
    list_for_each (source, &storage->sources, link) {
        if (!source->is_nbd && !hand_over(storage, source, err))
            return false;
    }
    return true;
}

static struct source *need_source(struct storage *storage, const char *id, struct error *err)
{
    struct source *source = find_source(storage, id);
    return source ? source : fail_null(err, ENOENT, "there is no -drive or -blockdev '%s'", id);
}

static struct json *unix_address(const char *path)
{
    struct json *address = json_new_object();
    set_text(address, "type", "unix");
    set_text(address, "path", path);
    return address;
}

static bool add_export(struct storage *storage, const struct source *source, struct json *arguments, const char *type,
                       struct error *err)
{
    auto_free char *id = xasprintf("%s-%s", source->id, type);
    set_text(arguments, "type", type);
    set_text(arguments, "id", id);
    set_text(arguments, "node-name", source->id);
    json_set(arguments, "writable", json_new_bool(!source->read_only));
    struct json *answer = private_daemon_command(storage->daemon, "block-export-add", arguments, err);
    json_free(answer);
    return answer || fail_prefix(err, "block device '%s': ", source->id);
}

struct vhost_backend *storage_open_vhost(struct storage *storage, const char *id, unsigned queues, struct error *err)
{
    struct source *source = need_source(storage, id, err);
    if (!source || source->is_nbd || !start_daemon(storage, err))
        return NULL;
    auto_free char *path = private_daemon_path(storage->daemon, id);
    struct json *arguments = json_new_object();
    json_set(arguments, "num-queues", json_new_uint(queues));
    json_set(arguments, "addr", unix_address(path));
    if (!add_export(storage, source, arguments, "vhost-user-blk", err))
        return NULL;
    return vhost_user_open(storage->loop, id, path, err);
}

/* The private daemon's NBD server starts with its first use. */
static char *nbd_socket(struct storage *storage, struct error *err)
{
    char *path = private_daemon_path(storage->daemon, "nbd");
    if (access(path, F_OK) == 0)
        return path;
    struct json *data = json_new_object(), *address = json_new_object(), *arguments = json_new_object();
    set_text(data, "path", path);
    set_text(address, "type", "unix");
    json_set(address, "data", data);
    json_set(arguments, "addr", address);
    struct json *answer = private_daemon_command(storage->daemon, "nbd-server-start", arguments, err);
    json_free(answer);
    if (answer)
        return path;
    free(path);
    return NULL;
}

struct disk *storage_open_disk(struct storage *storage, const char *id, struct error *err)
{
    struct source *source = need_source(storage, id, err);
    if (!source)
        return NULL;
    if (source->is_nbd)
        return nbd_disk_open(storage->loop, id, source->options, source->read_only, err);
    if (!start_daemon(storage, err))
        return NULL;
    auto_free char *path = nbd_socket(storage, err);
    if (!path || !add_export(storage, source, json_new_object(), "nbd", err))
        return NULL;
    struct json *options = json_new_object();
    json_set(options, "server", unix_address(path));
    set_text(options, "export", id);
    struct disk *disk = nbd_disk_open(storage->loop, id, options, source->read_only, err);
    json_free(options);
    return disk;
}

struct vhost_backend *storage_connect_vhost(struct storage *storage, const char *id, const char *path,
                                            struct error *err)
{
    return vhost_user_open(storage->loop, id, path, err);
}
