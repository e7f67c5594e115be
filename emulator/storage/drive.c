/* SPDX-License-Identifier: Apache-2.0 */
/*
 * -drive: the older, flatter way to name a disk, translated into what -blockdev would have said: a node of the format
 * on a node of the protocol. The file is never opened in this process; where its format is not given, the image tool is
 * asked, behind the same walls as the storage daemon.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "emulator/storage/internal.h"
#include "emulator/storage/sandbox.h"

static void set_text(struct json *object, const char *key, const char *value)
{
    if (value)
        json_set(object, key, json_new_string(value));
}

/* Where the bytes are -------------------------------------------------------------------------------------------- */

static struct json *nbd_node(const char *path, const char *host, const char *port, const char *export)
{
    struct json *node = json_new_object(), *server = json_new_object();
    set_text(server, "type", path ? "unix" : "inet");
    set_text(server, "path", path);
    set_text(server, "host", host);
    set_text(server, "port", port);
    set_text(node, "driver", "nbd");
    json_set(node, "server", server);
    set_text(node, "export", export);
    return node;
}

/* nbd:unix:PATH[:exportname=NAME], nbd:HOST:PORT[:exportname=NAME] */
static struct json *nbd_from_words(const char *text, struct error *err)
{
    static const char mark[] = ":exportname=";
    const char *export = strstr(text, mark);
    auto_free char *place = export ? xstrndup(text, (size_t)(export - text)) : xstrdup(text);
    export = export ? export + strlen(mark) : NULL;
    if (!strncmp(place, "unix:", 5) && place[5])
        return nbd_node(place + 5, NULL, NULL, export);
    char *colon = strrchr(place, ':');
    if (!colon || colon == place || !colon[1])
        return fail_null(err, EINVAL, "'nbd:%s': must be nbd:unix:PATH or nbd:HOST:PORT", text);
    *colon = '\0';
    return nbd_node(NULL, place, colon + 1, export);
}

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 0x20) - 'a' + 10 : -1;
}

/* In place. */
static char *percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        bool coded = *from == '%' && hex_digit(from[1]) >= 0 && hex_digit(from[2]) >= 0;
        *to++ = coded ? (char)(hex_digit(from[1]) * 16 + hex_digit(from[2])) : *from;
        from += coded ? 2 : 0;
    }
    *to = '\0';
    return text;
}

/* nbd://HOST[:PORT]/[EXPORT] and nbd+unix:///[EXPORT]?socket=PATH, as the NBD project's URI specification has them;
 * `text` begins behind the "//". */
static struct json *nbd_from_uri(const char *text, bool is_unix, struct error *err)
{
    auto_free char *host = xstrdup(text);
    char *query = strchr(host, '?');
    if (query)
        *query++ = '\0';
    char *export = strchr(host, '/');
    if (export)
        *export ++ = '\0';
    if (is_unix) {
        if (*host || !query || strncmp(query, "socket=", 7) || !query[7])
            return fail_null(err, EINVAL, "'nbd+unix://%s': must be nbd+unix:///EXPORT?socket=PATH", text);
        return nbd_node(percent_decode(query + 7), NULL, NULL, export ? percent_decode(export) : NULL);
    }
    char *end = host[0] == '[' ? strchr(host, ']') : host; /* an IPv6 address has colons of its own */
    char *port = end ? strchr(end, ':') : NULL;
    if (!end || !*host || query)
        return fail_null(err, EINVAL, "'nbd://%s': must be nbd://HOST[:PORT]/EXPORT", text);
    if (port)
        *port++ = '\0';
    if (host[0] == '[')
        *end = '\0';
    return nbd_node(NULL, host[0] == '[' ? host + 1 : host, port ? port : "10809",
                    export ? percent_decode(export) : NULL);
}

static struct json *file_node(const char *path, const struct storage_drive *drive)
{
    struct json *node = json_new_object();
    set_text(node, "driver", "file");
    set_text(node, "filename", path);
    set_text(node, "aio", drive->aio);
    return node;
}

/* A word and a colon in front name a protocol, as everywhere in the ecosystem; "./" in front makes it a file. */
static struct json *protocol_node(const struct storage_drive *drive, struct error *err)
{
    const char *file = drive->file;
    size_t word = strcspn(file, ":/");
    if (file[word] != ':')
        return file_node(file, drive);
    if (!strncmp(file, "file:", 5))
        return file_node(file + 5, drive);
    if (!strncmp(file, "json:", 5))
        return json_parse(file + 5, strlen(file + 5), err);
    if (!strncmp(file, "nbd://", 6))
        return nbd_from_uri(file + 6, false, err);
    if (!strncmp(file, "nbd+unix://", 11))
        return nbd_from_uri(file + 11, true, err);
    if (!strncmp(file, "nbd:", 4))
        return nbd_from_words(file + 4, err);
    return fail_null(err, EINVAL, "'%s': unknown protocol '%.*s' (a file of that name is ./%s)", file, (int)word, file,
                     file);
}

/* What is there -------------------------------------------------------------------------------------------------- */

static char *read_all(int fd)
{
    enum { LIMIT = 1 << 20 };
    char *text = xmalloc(LIMIT + 1);
    size_t length = 0;
    ssize_t got;
    while (length < LIMIT && ((got = read(fd, text + length, LIMIT - length)) > 0 || (got < 0 && errno == EINTR)))
        length += got > 0 ? (size_t)got : 0;
    text[length] = '\0';
    return text;
}

/* What the image tool says the format of a file is; owned. */
static char *ask_format(const char *file, struct error *err)
{
    auto_free char *program = storage_program_path("spindle-img");
    char *const argv[] = {"spindle-img", "info", "--output=json", "-U", "--", (char *)file, NULL};
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return fail_errno_null(err, errno, "cannot make a pipe");
    struct sandbox sandbox = {.program = program, .argv = argv, .out = out[1]};
    pid_t pid = sandbox_spawn(&sandbox, err);
    close(out[1]);
    auto_free char *text = read_all(out[0]);
    close(out[0]);
    if (pid < 0)
        return NULL;
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    struct json *info = status == 0 ? json_parse(text, strlen(text), NULL) : NULL;
    char *format = xstrdup(json_string(json_get(info, "format")));
    json_free(info);
    return format ? format : fail_null(err, EINVAL, "cannot find out the format of '%s': give it with format=", file);
}

static char *format_of(const struct storage_drive *drive, bool is_file, struct error *err)
{
    if (drive->format)
        return xstrdup(drive->format);
    if (!is_file)
        return fail_null(err, EINVAL, "the format of what is at '%s' must be given with format=", drive->file);
    char *format = ask_format(strncmp(drive->file, "file:", 5) ? drive->file : drive->file + 5, err);
    if (format && !strcmp(format, "raw"))
        log_warning("'%s' looks raw, but no format was given; a guest could make it look like something else at the "
                    "next start: say format=raw",
                    drive->file);
    return format;
}

/* How it is used ------------------------------------------------------------------------------------------------- */

struct cache_mode {
    const char *name;
    bool direct, no_flush, writethrough;
};

static const struct cache_mode *find_cache_mode(const char *name, struct error *err)
{
    static const struct cache_mode modes[] = {{"writeback", false, false, false},   {"none", true, false, false},
                                              {"off", true, false, false},          {"unsafe", false, true, false},
                                              {"writethrough", false, false, true}, {"directsync", true, false, true}};
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
        if (!strcmp(modes[i].name, name ? name : "writeback"))
            return &modes[i];
    }
    return fail_null(err, EINVAL, "cache=%s: must be writeback, none, unsafe, directsync or writethrough", name);
}

static void set_cache(struct json *node, const struct cache_mode *mode)
{
    struct json *cache = json_new_object();
    json_set(cache, "direct", json_new_bool(mode->direct));
    json_set(cache, "no-flush", json_new_bool(mode->no_flush));
    json_set(node, "cache", cache);
}

/* "on" and "off" are the older words. NULL with an error: neither. */
static const char *discard_mode(const char *text, struct error *err)
{
    if (!text || !strcmp(text, "ignore") || !strcmp(text, "off"))
        return "ignore";
    if (!strcmp(text, "unmap") || !strcmp(text, "on"))
        return "unmap";
    return fail_null(err, EINVAL, "discard=%s: must be ignore (off) or unmap (on)", text);
}

static void finish_node(struct json *node, const struct storage_drive *drive, const struct cache_mode *cache,
                        const char *discard)
{
    set_text(node, "discard", discard);
    set_cache(node, cache);
    json_set(node, "read-only", json_new_bool(drive->read_only));
}

/* All -------------------------------------------------------------------------------------------------------------*/

static bool is_driver(const struct json *node, const char *name)
{
    const char *driver = json_string(json_get(node, "driver"));
    return driver && !strcmp(driver, name);
}

static struct json *translate(const struct storage_drive *drive, struct json *file, bool *writethrough,
                              struct error *err)
{
    const char *discard = discard_mode(drive->discard, err);
    const struct cache_mode *cache = find_cache_mode(drive->cache, err);
    auto_free char *format = discard && cache ? format_of(drive, is_driver(file, "file"), err) : NULL;
    if (!format)
        return NULL;
    *writethrough = cache->writethrough;
    if (!strcmp(format, "raw") && is_driver(file, "nbd")) { /* no layer between us and the server */
        set_text(file, "node-name", drive->id);
        json_set(file, "read-only", json_new_bool(drive->read_only));
        return json_clone(file);
    }
    struct json *node = json_new_object();
    set_text(node, "driver", format);
    set_text(node, "node-name", drive->id);
    set_text(node, "detect-zeroes", drive->detect_zeroes);
    finish_node(node, drive, cache, discard);
    finish_node(file, drive, cache, discard);
    json_set(node, "file", json_clone(file));
    return node;
}

struct json *storage_drive_options(const struct storage_drive *drive, bool *writethrough, struct error *err)
{
    if (!drive->file)
        return fail_null(err, EINVAL, "drive '%s': file= is missing", drive->id);
    auto_error why = {0};
    struct json *file = protocol_node(drive, &why);
    struct json *options = file ? translate(drive, file, writethrough, &why) : NULL;
    json_free(file);
    if (options)
        return options;
    error_move(err, &why);
    fail_prefix(err, "drive '%s': ", drive->id);
    return NULL;
}
