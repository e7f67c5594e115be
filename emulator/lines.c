/* SPDX-License-Identifier: Apache-2.0 */
/* The character devices of the command line: see the header. */
#include "emulator/lines.h"

#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "emulator/props.h"
#include "qmp/schema/types.h"

static const char *const kind_names[] = {
    [CHAR_LINE_NULL] = "null",     [CHAR_LINE_STDIO] = "stdio", [CHAR_LINE_FILE] = "file",
    [CHAR_LINE_SOCKET] = "socket", [CHAR_LINE_PTY] = "pty",
};

static void definition_free(struct line_definition *definition)
{
    if (!definition)
        return;
    char_line_free(definition->line);
    free(definition->id);
    free(definition->path);
    free(definition->host);
    free(definition->port);
    free(definition);
}

static void definition_cleanup(struct line_definition **definition)
{
    definition_free(*definition);
}
#define auto_definition __attribute__((cleanup(definition_cleanup))) struct line_definition

void lines_free(struct lines *lines)
{
    struct line_definition **definition;
    vec_for_each (definition, &lines->list)
        definition_free(*definition);
    vec_free(&lines->list);
}

static struct line_definition *lookup(struct lines *lines, const char *id)
{
    struct line_definition **definition;
    vec_for_each (definition, &lines->list) {
        if (!strcmp((*definition)->id, id))
            return *definition;
    }
    return NULL;
}

struct line_definition *lines_find(struct lines *lines, const char *id, struct error *err)
{
    struct line_definition *found = lookup(lines, id);
    if (!found)
        fail(err, ENOENT, "there is no chardev '%s'", id);
    return found;
}

static struct line_definition *definition_new(const char *id, enum char_line_kind kind)
{
    struct line_definition *definition = new (struct line_definition);
    definition->id = xstrdup(id);
    definition->kind = kind;
    definition->signal = definition->wait = true;
    return definition;
}

/* `server` and `wait` with their older spellings, which many scripts still use. */
static void read_socket_flags(struct line_definition *definition, struct props *props)
{
    definition->server = props_bool(props, "server", false);
    bool wait = !props_bool(props, "nowait", false);
    definition->wait = props_bool(props, "wait", wait) && definition->server;
}

static bool publish(struct lines *lines, struct line_definition **definition, struct error *err)
{
    if (lookup(lines, (*definition)->id))
        return fail(err, EEXIST, "chardev '%s' exists already", (*definition)->id);
    vec_push(&lines->list, TAKE(*definition));
    return true;
}

/* --- -chardev
 * ---------------------------------------------------------------------------------------------------------- */

static bool find_kind(const char *name, enum char_line_kind *kind, struct error *err)
{
    for (size_t i = 0; name && i < ARRAY_SIZE(kind_names); i++) {
        if (!strcmp(kind_names[i], name)) {
            *kind = (enum char_line_kind)i;
            return true;
        }
    }
    return fail(err, EINVAL, "-chardev: unknown backend '%s'; there are: null, stdio, file, socket, pty",
                name ? name : "");
}

bool lines_define(struct lines *lines, const char *text, struct error *err)
{
    struct props props;
    enum char_line_kind kind = CHAR_LINE_NULL;
    if (!props_parse(&props, "-chardev", text, "backend", err))
        return false;
    auto_free char *backend = props_string(&props, "backend"), *id = props_string(&props, "id");
    bool ok = find_kind(backend, &kind, err) && (id || fail(err, EINVAL, "-chardev %s: needs id=ID", text));
    auto_definition *definition = ok ? definition_new(id, kind) : NULL;
    if (ok) {
        definition->mux = props_bool(&props, "mux", false);
        switch (kind) {
        case CHAR_LINE_STDIO: definition->signal = props_bool(&props, "signal", true); break;
        case CHAR_LINE_FILE:
            definition->path = props_string(&props, "path");
            definition->append = props_bool(&props, "append", false);
            break;
        case CHAR_LINE_SOCKET:
            definition->path = props_string(&props, "path");
            definition->host = props_string(&props, "host");
            definition->port = props_string(&props, "port");
            read_socket_flags(definition, &props);
            break;
        default: break;
        }
        ok = props_done(&props, "id, mux, signal (stdio), path, append (file), path, host, port, server, wait (socket)",
                        err);
    }
    props_free(&props);
    return ok && publish(lines, &definition, err);
}

/* --- WHERE
 * ---------------------------------------------------------------------------------------------------------------- */

static const char *after(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) ? NULL : text + length;
}

static struct line_definition *parse_socket(const char *option, const char *text, bool is_tcp, const char *label,
                                            struct error *err)
{
    struct props props;
    if (!props_parse(&props, option, text, "where", err))
        return NULL;
    auto_definition *definition = definition_new(label, CHAR_LINE_SOCKET);
    auto_free char *where = props_string(&props, "where");
    char *colon = where && is_tcp ? strrchr(where, ':') : NULL;
    read_socket_flags(definition, &props);
    bool ok = props_done(&props, "server, wait", err);
    props_free(&props);
    if (ok && is_tcp && !colon)
        ok = fail(err, EINVAL, "%s tcp:%s: HOST:PORT is expected", option, text);
    if (!ok)
        return NULL;
    if (is_tcp) {
        definition->host = xstrndup(where, (size_t)(colon - where));
        definition->port = xstrdup(colon + 1);
    } else {
        definition->path = TAKE(where);
    }
    return TAKE(definition);
}

static struct line_definition *parse_new(const char *option, const char *where, const char *label, struct error *err)
{
    const char *rest;
    if (!strcmp(where, "stdio"))
        return definition_new(label, CHAR_LINE_STDIO);
    if (!strcmp(where, "null") || !strcmp(where, "vc") || after(where, "vc:"))
        return definition_new(label, CHAR_LINE_NULL);
    if (!strcmp(where, "pty"))
        return definition_new(label, CHAR_LINE_PTY);
    if ((rest = after(where, "file:"))) {
        struct line_definition *definition = definition_new(label, CHAR_LINE_FILE);
        definition->path = xstrdup(rest);
        return definition;
    }
    if ((rest = after(where, "unix:")))
        return parse_socket(option, rest, false, label, err);
    if ((rest = after(where, "tcp:")))
        return parse_socket(option, rest, true, label, err);
    return fail_null(
        err, EINVAL,
        "%s %s: unknown; there are: stdio, mon:stdio, null, none, pty, file:FILE, unix:PATH, tcp:HOST:PORT, "
        "chardev:ID",
        option, where);
}

struct line_definition *lines_parse_where(struct lines *lines, const char *option, const char *where, const char *label,
                                          bool *with_monitor, struct error *err)
{
    const char *rest = after(where, "mon:");
    *with_monitor = rest;
    if (rest)
        where = rest;
    if ((rest = after(where, "chardev:")))
        return lines_find(lines, rest, err);
    if (!strcmp(where, "none"))
        return NULL;
    auto_definition *definition = parse_new(option, where, label, err);
    if (!definition)
        return NULL;
    if (*with_monitor) {
        definition->mux = true;
        definition->signal = false;
    }
    struct line_definition *published = definition;
    return publish(lines, &definition, err) ? published : NULL;
}

/* --- use
 * --------------------------------------------------------------------------------------------------------------------
 */

static bool claim(struct line_definition *definition, const char *user, struct error *err)
{
    if (definition->line || definition->user)
        return fail(err, EBUSY, "chardev '%s' is in use by %s", definition->id,
                    definition->user ? definition->user : "a serial port or console");
    definition->user = user;
    return true;
}

struct char_line *lines_open(struct lines *lines, struct line_definition *definition, struct error *err)
{
    struct char_line_options options = {
        .kind = definition->kind,
        .id = definition->id,
        .mux = definition->mux,
        .signal = definition->signal,
        .path = definition->path,
        .append = definition->append,
        .host = definition->host,
        .port = definition->port,
        .server = definition->server,
        .wait = definition->wait,
    };
    if (definition->user)
        return fail_null(err, EBUSY, "chardev '%s' is in use by %s", definition->id, definition->user);
    if (!definition->line)
        definition->line = char_line_new(lines->loop, &options, err);
    return definition->line;
}

const char *lines_take_socket(struct line_definition *definition, const char *user, struct error *err)
{
    if (definition->kind != CHAR_LINE_SOCKET || !definition->path || definition->server)
        return fail_null(err, EINVAL, "chardev '%s': %s needs 'socket,path=PATH' that connects (server=off)",
                         definition->id, user);
    return claim(definition, user, err) ? definition->path : NULL;
}

struct chardev_options *lines_take_for_qmp(struct line_definition *definition, struct error *err)
{
    if (!claim(definition, "a QMP monitor", err))
        return NULL;
    struct chardev_options *options = new (struct chardev_options);
    options->id = xstrdup(definition->id);
    switch (definition->kind) {
    case CHAR_LINE_NULL: options->backend = CHARDEV_BACKEND_KIND_NULL; break;
    case CHAR_LINE_STDIO:
        options->backend = CHARDEV_BACKEND_KIND_STDIO;
        options->u.stdio.has_signal = true;
        options->u.stdio.signal = definition->signal;
        break;
    case CHAR_LINE_SOCKET:
        options->backend = CHARDEV_BACKEND_KIND_SOCKET;
        options->u.socket.path = xstrdup(definition->path);
        options->u.socket.host = xstrdup(definition->host);
        options->u.socket.port = xstrdup(definition->port);
        options->u.socket.has_server = options->u.socket.has_wait = true;
        options->u.socket.server = definition->server;
        options->u.socket.wait = definition->wait;
        break;
    default:
        fail(err, EINVAL, "chardev '%s': QMP needs a socket or stdio, not %s", definition->id,
             kind_names[definition->kind]);
        chardev_options_free(options);
        return NULL;
    }
    return options;
}
