/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses; see the header. */
#include "qmp/schema/address.h"

#include <stdlib.h>

static bool from_fd(const struct fd_socket_address *address, struct stream_address *out, struct error *err)
{
    char *end;
    errno = 0;
    long number = strtol(address->str, &end, 10);
    if (errno || end == address->str || *end || number < 0 || number > INT32_MAX)
        return fail(err, EINVAL, "socket address: expected the number of an open file descriptor, found '%s'",
                    address->str);
    *out = (struct stream_address){.kind = SOCKET_FD, .fd = (int)number};
    return true;
}

/* One family switched on leaves the other out unless it is switched on too; one switched off leaves the other. */
static bool from_inet(const struct inet_socket_address *address, struct stream_address *out, struct error *err)
{
    bool some_on = (address->has_ipv4 && address->ipv4) || (address->has_ipv6 && address->ipv6);
    bool use_ipv4 = address->has_ipv4 ? address->ipv4 : !some_on;
    bool use_ipv6 = address->has_ipv6 ? address->ipv6 : !some_on;
    if (!use_ipv4 && !use_ipv6)
        return fail(err, EINVAL, "socket address %s:%s: with both IPv4 and IPv6 switched off nothing is left",
                    address->host, address->port);
    *out = (struct stream_address){.kind = SOCKET_INET,
                                   .host = address->host,
                                   .port = address->port,
                                   .ipv4_only = !use_ipv6,
                                   .ipv6_only = !use_ipv4};
    return true;
}

static bool from_unix(const struct unix_socket_address *address, struct stream_address *out)
{
    *out = (struct stream_address){.kind = SOCKET_UNIX, .path = address->path};
    return true;
}

bool stream_address_from_schema(const struct socket_address *address, struct stream_address *out, struct error *err)
{
    switch (address->type) {
    case SOCKET_ADDRESS_TYPE_INET: return from_inet(&address->u.inet, out, err);
    case SOCKET_ADDRESS_TYPE_UNIX: return from_unix(&address->u.unix_, out);
    case SOCKET_ADDRESS_TYPE_FD: return from_fd(&address->u.fd, out, err);
    case SOCKET_ADDRESS_TYPE__COUNT: break;
    }
    return fail(err, EINVAL, "socket address: unknown type");
}

bool stream_address_from_legacy(const struct socket_address_legacy *address, struct stream_address *out,
                                struct error *err)
{
    switch (address->type) {
    case SOCKET_ADDRESS_TYPE_INET: return from_inet(address->u.inet.data, out, err);
    case SOCKET_ADDRESS_TYPE_UNIX: return from_unix(address->u.unix_.data, out);
    case SOCKET_ADDRESS_TYPE_FD: return from_fd(address->u.fd.data, out, err);
    case SOCKET_ADDRESS_TYPE__COUNT: break;
    }
    return fail(err, EINVAL, "socket address: unknown type");
}
