/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses with named descriptors; see the header. */
#include "objects/address.h"

#include <unistd.h>
#include "objects/fds.h"
#include "qmp/schema/address.h"

static bool take_named(struct object_set *objects, const char *name, struct resolved_address *out, struct error *err)
{
    int fd = objects ? fds_take_name(object_set_fds(objects), name) : -1;
    if (fd < 0)
        return fail(err, ENOENT, "File descriptor named '%s' not found (see getfd)", name);
    out->address = (struct stream_address){.kind = SOCKET_FD, .fd = fd};
    out->has_fd = true;
    return true;
}

static bool is_name(const char *text)
{
    return *text && (*text < '0' || *text > '9');
}

bool address_resolve(struct object_set *objects, const struct socket_address *address, struct resolved_address *out,
                     struct error *err)
{
    if (address->type == SOCKET_ADDRESS_TYPE_FD && is_name(address->u.fd.str))
        return take_named(objects, address->u.fd.str, out, err);
    return stream_address_from_schema(address, &out->address, err);
}

bool address_resolve_legacy(struct object_set *objects, const struct socket_address_legacy *address,
                            struct resolved_address *out, struct error *err)
{
    if (address->type == SOCKET_ADDRESS_TYPE_FD && is_name(address->u.fd.data->str))
        return take_named(objects, address->u.fd.data->str, out, err);
    return stream_address_from_legacy(address, &out->address, err);
}

void address_release(struct resolved_address *address)
{
    if (address->has_fd)
        close(address->address.fd);
}
