/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket addresses of the schema that may name a descriptor which a client has handed over (objects/fds.h).
 *
 *     auto_resolved struct resolved_address where = {0};
 *     if (!address_resolve(objects, options->addr, &where, err)) ...
 *     listener_new(loop, &where.address, ...) and, when that was good, address_used(&where)
 */
#ifndef OBJECTS_ADDRESS_H
#define OBJECTS_ADDRESS_H

#include "base/stream.h"
#include "objects/object.h"

struct resolved_address {
    struct stream_address address; /* points into the schema's value */
    bool has_fd;                   /* a named descriptor, ours until somebody uses it */
};

/* `objects` may be NULL: there are no named descriptors. */
bool address_resolve(struct object_set *objects, const struct socket_address *address, struct resolved_address *out,
                     struct error *err);
bool address_resolve_legacy(struct object_set *objects, const struct socket_address_legacy *address,
                            struct resolved_address *out, struct error *err);
static inline void address_used(struct resolved_address *address)
{
    address->has_fd = false;
}
void address_release(struct resolved_address *address);
#define auto_resolved __attribute__((cleanup(address_release)))

#endif
