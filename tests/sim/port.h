/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A way for a guest's requests into the daemon: one NBD connection, or one vhost-user queue. Several coroutines (hands)
 * may use a port at once. A port whose connection breaks makes a new one when it is asked to.
 */
#ifndef TESTS_SIM_PORT_H
#define TESTS_SIM_PORT_H

#include <stdbool.h>
#include <stdint.h>

struct world;

enum io_kind { IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD, IO_FLUSH };
enum io_flag { IO_FUA = 1, IO_MAY_UNMAP = 2 };

struct port;
struct port_ops {
    /* 0, a negative errno value as the other side told it, or -ENOTCONN: the connection broke, nobody knows. YIELDS. */
    int (*io)(struct port *port, enum io_kind kind, unsigned flags, uint64_t offset, uint64_t length, void *data);
    bool (*connect)(struct port *port); /* again, after it broke; false: the daemon does not take it. YIELDS */
    void (*break_line)(struct port *port);
    void (*free)(struct port *port); /* no request may be under way. YIELDS */
};

struct port {
    const struct port_ops *ops;
    struct world *world;
    char name[16];
    bool connected;
    unsigned flags;       /* enum io_flag that it can express */
    uint64_t max_request; /* bytes of one request */
    unsigned hands;       /* how many coroutines use it */
};

/* Both YIELD and give NULL when the daemon does not take them (a cut in the middle). */
struct port *nbd_port_new(struct world *world, unsigned number);
struct port *vhost_port_new(struct world *world, unsigned queues, bool packed);

#endif
