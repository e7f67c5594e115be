/* SPDX-License-Identifier: Apache-2.0 */
/* What socket.c, socket_address.c and the simulation share. Private to base. */
#ifndef BASE_SOCKET_PRIVATE_H
#define BASE_SOCKET_PRIVATE_H

#include <sys/socket.h>
#include "base/stream.h"

/* "127.0.0.1:10809", "[::1]:10809", "unix:/path", "unix:" for an unnamed one. The result is freed by the caller. */
char *socket_name(const struct sockaddr_storage *address, socklen_t length);

/* The simulated counterparts (sim_stream.c). */
bool sim_stream_pair(struct loop *loop, struct stream *pair[2]);
struct stream *sim_stream_connect(struct loop *loop, const struct stream_address *address, struct error *err);

struct listener_ops {
    struct stream *(*accept)(struct listener *listener, int *error);
    void (*close)(struct listener *listener);
};
struct listener {
    const struct listener_ops *ops;
    struct loop *loop;
    char *name;
};
struct listener *sim_listener_new(struct loop *loop, const struct stream_address *address, struct error *err);

#endif
