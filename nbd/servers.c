/* SPDX-License-Identifier: Apache-2.0 */
/* The NBD servers of a program; see the header. */
#include "nbd/servers.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/list.h"
#include "block/export.h"
#include "crypto/authz.h"
#include "crypto/tls_creds.h"
#include "nbd/internal.h"

struct entry {
    struct list link;
    char *id;                  /* NULL: the one without */
    struct nbd_server *server; /* NULL while it is being started or stopped: the id is taken */
};

struct nbd_servers {
    struct loop *loop;
    struct object_set *objects;
    struct list entries;
};

struct nbd_servers *nbd_servers_new(struct loop *loop, struct object_set *objects)
{
    struct nbd_servers *servers = new (struct nbd_servers);
    servers->loop = loop;
    servers->objects = objects;
    list_init(&servers->entries);
    return servers;
}

void nbd_servers_free(struct nbd_servers *servers)
{
    assert(!servers || list_empty(&servers->entries));
    free(servers);
}

static struct entry *find(const struct nbd_servers *servers, const char *id)
{
    struct entry *entry;
    list_for_each (entry, &servers->entries, link)
        if (id && entry->id ? !strcmp(entry->id, id) : !id && !entry->id)
            return entry;
    return NULL;
}

struct nbd_server *nbd_servers_find(const struct nbd_servers *servers, const char *id)
{
    const struct entry *entry = find(servers, id);
    return entry ? entry->server : NULL;
}

static void entry_free(struct entry *entry)
{
    list_remove(&entry->link);
    free(entry->id);
    free(entry);
}

static bool hold_tls(struct nbd_servers *servers, const struct nbd_server_description *description,
                     struct object **creds, struct object **authz, struct error *err)
{
    *creds = *authz = NULL;
    if (description->tls_authz && !description->tls_creds)
        return fail(err, EINVAL, "'tls-authz' is about who TLS says a client is: 'tls-creds' is missing");
    if (description->tls_creds &&
        !(*creds = tls_creds_hold(servers->objects, description->tls_creds, TLS_CREDS_ENDPOINT_SERVER, err)))
        return false;
    if (description->tls_authz && !(*authz = authz_hold(servers->objects, description->tls_authz, err))) {
        object_release(*creds);
        return false;
    }
    return true;
}

bool nbd_servers_start(struct nbd_servers *servers, const struct nbd_server_description *description, struct error *err)
{
    struct object *creds, *authz;
    if (find(servers, description->id))
        return description->id ? fail(err, EBUSY, "NBD server '%s' already running", description->id)
                               : fail(err, EBUSY, "NBD server already running");
    if (!hold_tls(servers, description, &creds, &authz, err))
        return false;
    struct entry *entry = new (struct entry);
    entry->id = xstrdup(description->id);
    list_append(&servers->entries, &entry->link);
    struct nbd_server *server = nbd_server_new(servers->loop, description->address, &description->limits, err);
    if (!server) {
        entry_free(entry);
        object_release(creds);
        object_release(authz);
        return false;
    }
    nbd_server_set_tls(server, creds, authz);
    entry->server = server;
    return true;
}

static bool is_export_of(const struct block_export *export, const void *server)
{
    return export->driver == &nbd_export_driver && nbd_export_server(export) == server;
}

static void stop(struct entry *entry, struct export_set *exports)
{
    struct nbd_server *server = entry->server;
    entry->server = NULL; /* no new export from here on */
    if (exports)
        export_close_matching(exports, is_export_of, server);
    nbd_server_free(server);
    entry_free(entry);
}

bool nbd_servers_stop(struct nbd_servers *servers, const char *id, struct export_set *exports, struct error *err)
{
    struct entry *entry = find(servers, id);
    if (!entry || !entry->server)
        return id ? fail(err, ENOTCONN, "NBD server '%s' not running", id)
                  : fail(err, ENOTCONN, "NBD server not running");
    stop(entry, exports);
    return true;
}

static struct entry *first_running(const struct nbd_servers *servers)
{
    struct entry *entry;
    list_for_each (entry, &servers->entries, link)
        if (entry->server)
            return entry;
    return NULL;
}

void nbd_servers_stop_all(struct nbd_servers *servers, struct export_set *exports)
{
    for (struct entry *entry; (entry = first_running(servers));)
        stop(entry, exports);
}
