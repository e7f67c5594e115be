/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two halves of an NBD disk: requests (nbd_disk.c) and connections (nbd_connection.c).
 *
 * A request is always in exactly one list: `in_flight` of a connection (libnbd has it), `waiting` of the disk (no
 * connection is up) or `completed` (libnbd is done with it, its owner does not know yet).
 */
#ifndef EMULATOR_STORAGE_NBD_INTERNAL_H
#define EMULATOR_STORAGE_NBD_INTERNAL_H

#include <libnbd.h>
#include "base/loop.h"
#include "emulator/storage/internal.h"

enum { NBD_MAX_CONNECTIONS = 4 };

enum connection_state { CONNECTION_DOWN, CONNECTION_GREETING, CONNECTION_UP };

struct connection {
    struct nbd_disk *disk;
    enum connection_state state;
    struct nbd_handle *nbd; /* NULL exactly when DOWN */
    int fd;                 /* our own duplicate of its socket: libnbd closes that one whenever it likes; -1: none */
    struct loop_watch watch;
    struct list in_flight; /* of struct disk_request */
    size_t load;           /* their number */
    struct loop_timer retry;
};

struct nbd_disk {
    struct disk disk;
    struct list link; /* in the list of open disks */
    struct loop *loop;
    char *id;
    char *path, *host, *port, *export; /* where the server is: a unix socket, or host and port */
    struct connection connections[NBD_MAX_CONNECTIONS];
    unsigned connection_count;
    bool can_fua;             /* as the server said last */
    bool is_private, is_lost; /* no connection is up, and the user has been told */
    bool is_failing;          /* requests that find no connection fail at once */
    bool given_up;            /* and that will not change */
    bool has_patience;        /* reconnect-delay was given */
    uint64_t patience_ns;
    struct loop_timer patience, settle;
    struct list waiting, completed;
};

/* What stands behind a request from submit() to done(). */
struct nbd_operation {
    struct connection *connection; /* that libnbd's completion is about */
    struct disk_request *request;
    void *bounce;      /* one piece of memory for scattered data */
    uint64_t progress; /* bytes that are through: large discards and zeroes go in pieces */
    uint64_t piece;    /* bytes of the piece under way */
    int error;         /* positive errno of what libnbd has finished */
    bool is_flushing;  /* the data is through; this makes it durable where the server has no FUA */
};

/* nbd_connection.c */
void nbd_connection_init(struct connection *connection, struct nbd_disk *disk);
bool nbd_connection_open(struct connection *connection, struct error *err); /* blocks */
void nbd_connection_close(struct connection *connection); /* for good: without a word to the requests in flight */
/* The server or the way to it is gone: requests go back to `waiting`, and the retry timer is set. */
void nbd_connection_lost(struct connection *connection);
bool nbd_connection_is_dead(const struct connection *connection);
void nbd_connection_rewatch(struct connection *connection); /* after each call to libnbd: its wishes may have changed */
struct connection *nbd_best_connection(struct nbd_disk *disk); /* the least loaded that is up; NULL: none */

/* nbd_disk.c */
void nbd_describe(struct nbd_disk *disk, struct nbd_handle *nbd, bool first);
/* Everything that must not happen inside libnbd or submit(): burying the dead, moving what is waiting, completing. */
void nbd_settle(struct nbd_disk *disk);
void nbd_settle_soon(struct nbd_disk *disk);

#endif
