/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about character devices, for programs that register the module `chardev`. Their options are nested in an
 * older way than those of the command line, which is what the devices are made from. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "qmp/chardev.h"
#include "qmp/internal.h"
#include "qmp/schema/commands.h"

/* Text and all else stays the backend's. */
static void flatten_address(const struct socket_address_legacy *from, struct chardev_socket_options *to)
{
    switch (from->type) {
    case SOCKET_ADDRESS_TYPE_INET:
        to->host = from->u.inet.data->host;
        to->port = from->u.inet.data->port;
        to->has_ipv4 = from->u.inet.data->has_ipv4;
        to->ipv4 = from->u.inet.data->ipv4;
        to->has_ipv6 = from->u.inet.data->has_ipv6;
        to->ipv6 = from->u.inet.data->ipv6;
        break;
    case SOCKET_ADDRESS_TYPE_UNIX: to->path = from->u.unix_.data->path; break;
    case SOCKET_ADDRESS_TYPE_FD: to->fd = from->u.fd.data->str; break;
    default: break;
    }
}

static struct chardev_options flatten(char *id, const struct chardev_backend *backend)
{
    struct chardev_options options = {.backend = backend->type, .id = id};
    if (backend->type == CHARDEV_BACKEND_KIND_STDIO)
        options.u.stdio.signal = backend->u.stdio.data->signal;
    if (backend->type != CHARDEV_BACKEND_KIND_SOCKET)
        return options;
    const struct chardev_socket *socket = backend->u.socket.data;
    struct chardev_socket_options *to = &options.u.socket;
    flatten_address(socket->addr, to);
    to->has_server = true;
    to->server = socket->server;
    to->has_wait = socket->server || (socket->has_wait && socket->wait);
    to->wait = socket->wait;
    to->tls_creds = socket->tls_creds;
    to->tls_authz = socket->tls_authz;
    to->has_reconnect_ms = socket->has_reconnect_ms;
    to->reconnect_ms = socket->reconnect_ms;
    return options;
}

bool qmp_chardev_add(struct qmp_context *context, struct q_chardev_add_arg *arg, struct chardev_return **ret,
                     struct error *err)
{
    const struct chardev_options options = flatten(arg->id, arg->backend);
    if (!qmp_server_add_chardev(context->server, &options, err))
        return false;
    *ret = chardev_return_new();
    return true;
}

bool qmp_chardev_change(struct qmp_context *context, struct q_chardev_change_arg *arg, struct chardev_return **ret,
                        struct error *err)
{
    const struct chardev_options options = flatten(arg->id, arg->backend);
    if (!server_change_chardev(context->server, &options, err))
        return false;
    *ret = chardev_return_new();
    return true;
}

bool qmp_chardev_remove(struct qmp_context *context, struct q_chardev_remove_arg *arg, struct error *err)
{
    return server_remove_chardev(context->server, arg->id, err);
}

bool qmp_query_chardev(struct qmp_context *context, struct chardev_info_list **ret, struct error *err)
{
    const struct qmp_server *server = context->server;
    (void)err;
    *ret = chardev_info_list_new();
    for (size_t i = 0; i < server->chardevs.count; i++) {
        const struct chardev *chardev = server->chardevs.items[i];
        struct chardev_info *info = chardev_info_new();
        info->label = xstrdup(chardev_id(chardev));
        info->filename = chardev_describe(chardev);
        info->frontend_open = server_uses_chardev(server, chardev);
        chardev_info_list_append(*ret, info);
    }
    return true;
}

bool qmp_query_chardev_backends(struct qmp_context *context, struct chardev_backend_info_list **ret, struct error *err)
{
    (void)context, (void)err;
    *ret = chardev_backend_info_list_new();
    for (int kind = 0; kind < CHARDEV_BACKEND_KIND__COUNT; kind++) {
        struct chardev_backend_info *info = chardev_backend_info_new();
        info->name = xstrdup(chardev_backend_kind_name(kind));
        chardev_backend_info_list_append(*ret, info);
    }
    return true;
}
