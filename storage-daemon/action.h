/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Actions: what `transaction` is made of, and what the commands of the same names do alone. All nodes are drained while
 * actions are prepared, one after the other; then either all of them are committed or, in reverse order, those that
 * were prepared are aborted. clean() comes last, for each that was prepared, or failed to be.
 *
 * prepare() makes the change where it can be taken back in memory, and only checks where it cannot (what must reach an
 * image); commit() then does the rest and cannot fail. All YIELD.
 */
#ifndef STORAGE_DAEMON_ACTION_H
#define STORAGE_DAEMON_ACTION_H

#include "qmp/schema/types.h"
#include "storage-daemon/daemon.h"

struct action;
struct job_transaction;

struct action_type {
    size_t state_size;
    bool (*prepare)(struct action *action, struct error *err);
    /* May be NULL. */
    void (*commit)(struct action *action);
    void (*abort)(struct action *action);
    void (*clean)(struct action *action);
};

struct action {
    const struct action_type *type;
    struct daemon *daemon;
    const void *data; /* of the schema's type */
    struct job_transaction *jobs;
    void *state; /* type->state_size bytes, zeroed */
};

/* One action, as a command. YIELDS. */
bool action_run(struct daemon *daemon, const struct action_type *type, const void *data, struct error *err);

/* Finds a node for a command; the error is the ecosystem's. */
struct node *daemon_find_node(struct daemon *daemon, const char *name, struct error *err);

extern const struct action_type action_abort;
/* action_bitmap.c */
extern const struct action_type action_bitmap_add, action_bitmap_remove, action_bitmap_clear, action_bitmap_enable,
    action_bitmap_disable, action_bitmap_merge;
/* action_snapshot.c */
extern const struct action_type action_snapshot, action_snapshot_sync, action_snapshot_internal;
/* action_backup.c */
extern const struct action_type action_backup, action_drive_backup;

#endif
