/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of NBD exports.
 *
 *     nbd://HOST[:PORT][/EXPORT]              "NBD URI" (NetworkBlockDevice, doc/uri.md)
 *     nbd+unix:///[EXPORT]?socket=PATH
 *     nbd:HOST:PORT[:exportname=EXPORT]       older
 *     nbd:unix:PATH[:exportname=EXPORT]
 *
 * nbds:// and nbds+unix:// mean TLS, whose credentials a name cannot say: they are refused with the way to do it.
 */
#include "protocol/nbd.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/strbuf.h"
#include "qmp/schema/types.h"

#define DEFAULT_PORT "10809"

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* text[0..length) with %XX decoded; NULL when one is wrong, or stands for NUL. */
static char *decode(const char *text, size_t length)
{
    char *out = xmalloc(length + 1), *to = out;
    for (size_t i = 0; i < length; i++) {
        int value = (unsigned char)text[i];
        if (value == '%') {
            int high = i + 2 < length ? hex_digit(text[i + 1]) : -1, low = i + 2 < length ? hex_digit(text[i + 2]) : -1;
            value = high < 0 || low < 0 ? 0 : high * 16 + low;
            i += 2;
        }
        if (!value) {
            free(out);
            return NULL;
        }
        *to++ = (char)value;
    }
    *to = 0;
    return out;
}

static struct socket_address *unix_address(char *path)
{
    struct socket_address *address = socket_address_new();
    address->type = SOCKET_ADDRESS_TYPE_UNIX;
    address->u.unix_.path = path;
    return address;
}

static struct socket_address *inet_address(char *host, char *port)
{
    struct socket_address *address = socket_address_new();
    address->type = SOCKET_ADDRESS_TYPE_INET;
    address->u.inet.host = host;
    address->u.inet.port = port;
    return address;
}

/* URIs ------------------------------------------------------------------------------------------------------------ */

/* "HOST", "HOST:PORT", "[V6]:PORT", perhaps behind "USER@", which means nothing without TLS. */
static bool parse_authority(const char *text, size_t length, struct blockdev_options_nbd *nbd)
{
    const char *at = memchr(text, '@', length), *end = text + length;
    if (at)
        text = at + 1;
    const char *host_end = end;
    if (text < end && *text == '[') {
        host_end = memchr(text, ']', (size_t)(end - text));
        if (!host_end)
            return false;
        text++;
    } else {
        const char *colon = memchr(text, ':', (size_t)(end - text));
        host_end = colon ? colon : end;
    }
    const char *port = host_end < end && *host_end == ']' ? host_end + 1 : host_end;
    if (port < end && *port != ':')
        return false;
    char *host = decode(text, (size_t)(host_end - text));
    if (!host)
        return false;
    if (!*host) {
        free(host);
        host = xstrdup("localhost");
    }
    bool has_port = port + 1 < end;
    nbd->server = inet_address(host, has_port ? xstrndup(port + 1, (size_t)(end - port - 1)) : xstrdup(DEFAULT_PORT));
    return true;
}

/* "socket=PATH", alone or among other parameters. Owned; NULL: there is none. */
static char *socket_parameter(const char *query)
{
    while (query && *query) {
        size_t length = strcspn(query, "&");
        if (!strncmp(query, "socket=", 7))
            return decode(query + 7, length - 7);
        query += length + (query[length] == '&');
    }
    return NULL;
}

static bool parse_uri(const char *name, size_t scheme, struct blockdev_options_nbd *nbd, struct error *err)
{
    const char *authority = name + scheme + strlen("://");
    size_t authority_length = strcspn(authority, "/?#"), rest = strcspn(authority + authority_length, "?#");
    const char *path = authority + authority_length, *query = path[rest] == '?' ? path + rest + 1 : NULL;
    bool is_unix = scheme >= 5 && !memcmp(name + scheme - 5, "+unix", 5);
    bool ok;
    if (!strncmp(name, "nbds", 4))
        return fail(err, EINVAL,
                    "'%s' wants TLS, whose credentials a name cannot give: use --object tls-creds-x509,id=ID,... with "
                    "--image-opts driver=nbd,tls-creds=ID,server.type=...",
                    name);
    if (is_unix) {
        char *socket = socket_parameter(query);
        ok = socket && *socket && !authority_length;
        if (socket)
            nbd->server = unix_address(socket);
    } else {
        ok = parse_authority(authority, authority_length, nbd);
    }
    size_t slash = rest && *path == '/';
    if (ok && rest > slash) {
        nbd->export = decode(path + slash, rest - slash);
        ok = nbd->export != NULL;
    }
    return ok || fail(err, EINVAL, "'%s' is not an NBD URI: nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH",
                      name);
}

/* Older names ----------------------------------------------------------------------------------------------------- */

static bool parse_old(const char *name, struct blockdev_options_nbd *nbd, struct error *err)
{
    static const char mark[] = ":exportname=";
    const char *place = name + strlen("nbd:"), *export = strstr(place, mark);
    size_t length = export ? (size_t)(export - place) : strlen(place);
    if (export)
        nbd->export = xstrdup(export + strlen(mark));
    if (!strncmp(place, "unix:", 5) && length > 5) {
        nbd->server = unix_address(xstrndup(place + 5, length - 5));
        return true;
    }
    const char *colon = memrchr(place, ':', length);
    if (!colon || colon == place || colon + 1 == place + length)
        return fail(err, EINVAL,
                    "'%s' names no NBD server: nbd:HOST:PORT or nbd:unix:PATH, perhaps with :exportname=NAME", name);
    bool in_brackets = *place == '[' && colon[-1] == ']';
    nbd->server = inet_address(xstrndup(place + in_brackets, (size_t)(colon - place) - 2 * in_brackets),
                               xstrndup(colon + 1, (size_t)(place + length - colon - 1)));
    return true;
}

bool nbd_parse_name(const char *name, struct blockdev_options *options, struct error *err)
{
    size_t scheme = strcspn(name, ":");
    options->driver = BLOCKDEV_DRIVER_NBD;
    if (!strncmp(name + scheme, "://", 3))
        return parse_uri(name, scheme, &options->u.nbd, err);
    if (scheme == 3)
        return parse_old(name, &options->u.nbd, err);
    return fail(err, EINVAL, "'%s' is not an NBD URI: '%.*s' is followed by ://", name, (int)scheme, name);
}

static void encode(struct strbuf *to, const char *text)
{
    for (; *text; text++) {
        if (strchr("%?#& ", *text) || (unsigned char)*text < 32)
            strbuf_printf(to, "%%%02x", (unsigned char)*text);
        else
            strbuf_printf(to, "%c", *text);
    }
}

char *nbd_name_of(const struct blockdev_options_nbd *options)
{
    auto_strbuf name = {0};
    const char *export = options->export ? options->export : "";
    if (options->server->type == SOCKET_ADDRESS_TYPE_UNIX) {
        strbuf_append(&name, "nbd+unix:///");
        encode(&name, export);
        strbuf_append(&name, "?socket=");
        encode(&name, options->server->u.unix_.path);
    } else if (options->server->type == SOCKET_ADDRESS_TYPE_INET) {
        const struct inet_socket_address *inet = &options->server->u.inet;
        bool is_v6 = strchr(inet->host, ':');
        strbuf_printf(&name, "nbd://%s%s%s:%s", is_v6 ? "[" : "", inet->host, is_v6 ? "]" : "", inet->port);
        if (*export) {
            strbuf_append(&name, "/");
            encode(&name, export);
        }
    } else {
        strbuf_append(&name, "nbd:");
    }
    return xstrdup(strbuf_text(&name));
}
