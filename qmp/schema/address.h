/* SPDX-License-Identifier: Apache-2.0 */
/* The schema's socket addresses as base/stream.h takes them. The result points into the schema's value. */
#ifndef QMP_SCHEMA_ADDRESS_H
#define QMP_SCHEMA_ADDRESS_H

#include "base/stream.h"
#include "qmp/schema/types.h"

bool stream_address_from_schema(const struct socket_address *address, struct stream_address *out, struct error *err);

/* The older nesting (SocketAddressLegacy). */
bool stream_address_from_legacy(const struct socket_address_legacy *address, struct stream_address *out,
                                struct error *err);

#endif
