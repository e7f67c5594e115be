/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of what happens in a world: one row for each operation on data or metadata. The power is cut while rows
 * run, so an operation is proven when it has its row; a new metadata operation of a writable format, a new job, a new
 * command that writes is not finished without one.
 *
 * To add an operation:
 *
 *   1. Write `run`. It does the thing once, with choices drawn by world_random(), and returns true; or it returns false
 *      without having done anything when it is not possible now (the row is then not counted). It gets the world's
 *      clients by its actor:
 *        BY_GUEST     a hand of an NBD connection or vhost-user device (actor->port); many run at once, so a span of
 *                     the disk is entered in the model before its request and left with the outcome (see guest.c)
 *        BY_OPERATOR  the QMP session: world_command(), world_query(); one at a time, while guests write. Whether an
 *                     error is a mistake is world_expect()'s business. The daemon's own graph (world->daemon.graph) may
 *                     be used for what no command offers yet
 *        BY_TOOL      what spindle-img would do with the closed image, in a graph of its own (world->tool), before
 *                     the daemon starts
 *      The cut may come in every wait. Then world->is_cut is set, everything answers -EIO, and what is answered does
 *      not count any more: `run` cleans up and returns true.
 *   2. If it changes what guests read, tell the model (model_begin_change ... model_end_change, model_begin_resize).
 *   3. If it leaves more behind than the disk's content (a snapshot, a bitmap, another file, a job), write down in
 *      `state` what must be true from when on, and compare in `examine`, which is called after each cut, with the image
 *      open for writing on the second loop; `e->graph` opens others. What was acknowledged and flushed must be there;
 *      what was under way may be there completely or not at all. `settle` is called when a life has ended: what was
 *      found then is certain now.
 *   4. Put the row into the table, with the traits of images that it needs, and run
 *          tests/sim/run --operation NAME --worlds 50
 *      The summary says how often it was carried out. A row that never runs fails the test.
 */
#ifndef TESTS_SIM_OPERATIONS_H
#define TESTS_SIM_OPERATIONS_H

#include "tests/sim/port.h"
#include "tests/sim/world.h"

enum actor_kind { BY_GUEST, BY_OPERATOR, BY_TOOL };

struct actor {
    struct world *world;
    struct port *port; /* BY_GUEST */
    void *state;       /* of the row in this world: `state_size` bytes, zeroes at first */
};

struct operation {
    const char *name; /* --operation */
    const char *what; /* for --list */
    enum actor_kind by;
    unsigned weight;  /* how often, among the rows of the same actor */
    uint32_t needs;   /* enum trait; all of them */
    uint32_t without; /* enum trait; none of them */
    bool (*run)(struct actor *actor);
    size_t state_size;
    void (*examine)(struct examination *e, void *state);
    void (*settle)(struct world *world, void *state);
    void (*end)(void *state); /* frees what `state` points to */
};

extern const struct operation operations[];
extern const size_t operation_count;

/* Draws a row and runs it; false: it was not possible. */
bool operation_run(struct world *world, enum actor_kind by, struct port *port);

void operations_begin(struct world *world);
void operations_examine(struct examination *e);
void operations_settle(struct world *world);
void operations_end(struct world *world);

/* guest.c */
bool guest_write(struct actor *actor);
bool guest_write_clusters(struct actor *actor);
bool guest_write_durable(struct actor *actor);
bool guest_read(struct actor *actor);
bool guest_zero(struct actor *actor);
bool guest_zero_keep(struct actor *actor);
bool guest_discard(struct actor *actor);
bool guest_flush(struct actor *actor);
bool guest_break(struct actor *actor);

/* operator.c */
bool operator_write_compressed(struct actor *actor);
bool operator_resize(struct actor *actor);
bool operator_allocate(struct actor *actor);
bool operator_reopen(struct actor *actor);
bool operator_export(struct actor *actor);
bool operator_second_node(struct actor *actor);
bool operator_query(struct actor *actor);

/* operator_jobs.c */
bool operator_backup(struct actor *actor);
bool operator_mirror(struct actor *actor);
bool operator_bitmap(struct actor *actor);
bool operator_check(struct actor *actor);

/* tool.c */
bool tool_check(struct actor *actor);
bool tool_repair(struct actor *actor);
bool tool_resize(struct actor *actor);
bool tool_write_compressed(struct actor *actor);
bool tool_map(struct actor *actor);
bool tool_create(struct actor *actor);
bool tool_convert(struct actor *actor);
bool tool_snapshot(struct actor *actor); /* tool_qcow2.c */
bool tool_apply(struct actor *actor);
bool tool_amend(struct actor *actor);
bool tool_slots(struct actor *actor);  /* tool_slots.c */
bool tool_commit(struct actor *actor); /* tool_img.c */
bool tool_rebase(struct actor *actor);
struct slots_state {
    enum { OTHER_UNKNOWN, OTHER_OPENS, OTHER_CLOSED } other; /* does the other passphrase open the image? */
    bool is_used;
};
void tool_slots_examine(struct examination *e, void *state);
void tool_close_written(struct world *world, struct edge *edge); /* with a flush */
struct convert_state {
    bool is_there; /* the copy was flushed: from now on it must be this */
    uint64_t size;
    unsigned char *bytes;
};
void tool_convert_examine(struct examination *e, void *state);
void tool_convert_end(void *state);

#endif
