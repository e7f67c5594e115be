/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exports: users of nodes that serve them to other processes. An export type is a table of functions in its own folder;
 * the program lists the types it has, each with the server object it shares (the NBD server), and keeps one export_set.
 *
 * An export holds one root edge. Life: open() starts serving; close() stops taking requests, waits until those in
 * flight are answered, and returns when no coroutine of the export is left. When the node goes away on command, or the
 * client of a one-client export is gone, the driver calls export_close_soon().
 */
#ifndef BLOCK_EXPORT_H
#define BLOCK_EXPORT_H

#include "block/node.h"
#include "qmp/schema/types.h"

struct export_set;

struct block_export {
    const struct export_driver *driver;
    struct export_set *set;
    void *server; /* what the program gave for this type */
    char *id;
    /* Where its clients are served. The node has a loop of its own, its home: what touches the graph happens there
     * (co_call_on()). Without an iothread the two are the same. */
    struct loop *loop;
    void *iothread;    /* held; NULL: none */
    struct edge *edge; /* read, and write when writable; shares everything */
    bool writable;
    bool allow_inactive; /* its node may be, or become, inactive */
    bool writethrough;   /* each write is durable before it is answered */
    bool opening;        /* its driver is still at it; nobody else may close it */
    bool unwanted;       /* somebody wanted to, meanwhile: it closes as soon as it is open */
    bool shutting_down;
    void *state; /* driver->state_size bytes, zeroed */
    struct list link;
};

struct export_driver {
    enum block_export_type type;
    size_t state_size;
    bool
        can_be_inactive; /* serves a node that is inactive, or becomes so: requests fail, nothing else is asked of it */
    /* May yield. A failed one leaves nothing behind. */
    bool (*open)(struct block_export *export, const struct block_export_options *options, struct error *err);
    void (*close)(struct block_export *export); /* YIELDS; see above */
    /* Asked at the node's home, while clients are served elsewhere: what they read changes at home, or is atomic. */
    uint32_t (*clients)(const struct block_export *export); /* how many; NULL: one, when it is in use */
    bool (*in_use)(const struct block_export *export);      /* a client is connected; NULL = never */
    void (*look)(struct block_export *export);              /* brings in_use up to date; may be NULL. YIELDS */
};

struct export_type {
    const struct export_driver *driver;
    void *server;
};

/* `deleted` is told when an export is gone (the event BLOCK_EXPORT_DELETED); may be NULL. `types` ends with a NULL
 * driver and outlives the set. */
struct export_set *export_set_new(struct graph *graph, const struct export_type *types,
                                  void (*deleted)(void *user, const char *id), void *user);
void export_set_free(struct export_set *set); /* must be empty */

/* Where exports find the iothreads that their options name, or (`id` NULL) that were ordered for their node. *loop
 * stays what it is when there is none. Without this, there are none. */
struct export_iothreads {
    bool (*hold)(void *user, const char *id, const struct node *node, struct loop **loop, void **iothread,
                 struct error *err);
    void (*release)(void *iothread);
    void *user;
};
void export_set_offer_iothreads(struct export_set *set, const struct export_iothreads *iothreads);

/* All YIELD, except find and next. */
struct block_export *export_add(struct export_set *set, const struct block_export_options *options, struct error *err);
/* safe (not hard): refused while in use. An export in use ends after the answer, when its requests are done: `deleted`
 * tells. */
bool export_remove(struct export_set *set, const char *id, bool hard, struct error *err);
void export_close_all(struct export_set *set);
void export_close_matching(struct export_set *set, bool (*matches)(const struct block_export *export, const void *user),
                           const void *user);
struct block_export *export_find(const struct export_set *set, const char *id);
struct block_export *export_next(const struct export_set *set, const struct block_export *after);

/* From a driver's own coroutine: closes the export from a coroutine of the set, soon. Does not yield. */
void export_close_soon(struct block_export *export);

#endif
