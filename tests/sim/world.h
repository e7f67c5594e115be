/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One simulated world: a machine with disks, the storage daemon as users start it (command line, QMP), and the clients
 * that talk to it. Everything that happens follows from the kind of image, the seed and the number of operations; a
 * world of the same three goes the same way again.
 *
 *     guests:  NBD connections, vhost-user queues  --.
 *     operator: QMP commands                        --+--> daemon --> simulated disk --> cuts --> examination
 *     tool: what spindle-img would do beside it     --'
 *
 * A world has several lives. Each begins with the start of the daemon on what the disk holds, and ends with a power
 * cut, a kill or an orderly end, after which the model (model.h) says whether the disk holds what it may. While a life
 * goes on, it is also cut without being disturbed: what a cut would leave is copied to a second loop and examined
 * there.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/co.h"
#include "base/error.h"
#include "base/loop.h"
#include "base/rng.h"
#include "base/sim.h"
#include "block/node.h"
#include "block/request.h"
#include "storage-daemon/daemon.h"
#include "tests/sim/model.h"

struct json;
struct qmp_client;

/* What kind of image a world is about (images.c); operations say which of these they need. */
enum trait {
    TRAIT_QCOW2 = 1 << 0,
    TRAIT_V3 = 1 << 1, /* qcow2 version 3 */
    TRAIT_BACKING = 1 << 2,
    TRAIT_EXTERNAL_DATA = 1 << 3,
    TRAIT_COMPRESSES = 1 << 4, /* takes compressed writes */
    TRAIT_RESIZES = 1 << 5,
    TRAIT_LAZY = 1 << 6,
    TRAIT_KEEPS = 1 << 7, /* what was answered survives a kill without a flush */
    TRAIT_SLOTS = 1 << 8, /* encrypted by LUKS: passphrases come and go */
};

struct image_kind {
    const char *name;
    const char *create; /* -o options of qcow2, or without TRAIT_QCOW2 of luks; NULL: raw */
    const char *open;   /* further members of the node's JSON options, e.g. "'l2-cache-size': 1024" */
    uint64_t size;      /* at the beginning */
    uint32_t cluster;   /* alignment that operations like */
    uint32_t traits;    /* enum trait */
    bool writethrough;  /* exports are made so: every answered write is durable */
    const char *daemon; /* the node's options in the daemon, when there are filters; tools open the image alone */
    bool with_copy;     /* a second file of the same content is there from the beginning */
};
extern const struct image_kind image_kinds[];
const struct image_kind *image_kind_find(const char *name);

/* The names in every world. */
#define IMAGE "disk.img"
#define BACKING "base.qcow2"
#define DATA_FILE "data.raw"
#define SECOND_FILE "second.img"
#define NODE "disk" /* the node that is exported */

struct settings {
    uint64_t operations; /* file operations in one life */
    unsigned lives;
    uint64_t every;    /* one operation in so many is cut ... */
    unsigned lots;     /* ... so many times */
    uint64_t only_at;  /* not 0: cut this operation only */
    unsigned thorough; /* one examination in so many also repairs and writes */
    bool trace, faults, kills;
    const char *only_operation; /* of the table; NULL: all */
};

struct life_stats {
    uint64_t worlds, lives, cuts, kills, operations, requests, commands;
    uint64_t *by_operation; /* one for each row of the table */
};

struct world {
    struct loop *loop, *second; /* `second` is where cuts are examined */
    const struct image_kind *kind;
    const struct settings *settings;
    struct life_stats *stats;
    uint64_t seed;
    struct rng rng; /* of the clients' choices */
    uint64_t trace_hash;
    struct report *report; /* report.c */

    struct model *model;
    uint32_t last_stamp;
    struct daemon daemon;
    struct qmp_client *qmp; /* the operator's; NULL: the daemon does not run */
    struct graph *tool;     /* the graph of the tool's process */
    uint64_t life_ends_at;  /* file operation */
    unsigned life;
    bool ending;        /* clients begin nothing new */
    bool was_killed;    /* this life has ended by a kill */
    bool is_cut;        /* answers count no more */
    bool faulty;        /* this life has disks that fail: errors are no surprise */
    unsigned vanishing; /* commands under way that make exports or nodes go: requests may fail meanwhile */
    void **state;       /* what each row of the table keeps; see operations.h */
};

/* Runs one world to its end. A mistake of the daemon ends the program (world_fail). `trace_hash` (may be NULL) is the
 * same for the same world. */
void world_run(const struct image_kind *kind, uint64_t seed, const struct settings *settings, struct life_stats *stats,
               uint64_t *trace_hash);

/* Says what went wrong, how to see it again, and ends the program with status 1 (planted bugs: 0). */
_Noreturn void world_fail(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
void world_trace(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);

uint64_t world_random(struct world *world, uint64_t limit);
uint32_t world_stamp(struct world *world); /* a new one */

/* For operations. One QMP command, in JSON with single quotes as Python has them: true when it succeeded. */
bool world_command(struct world *world, struct error *err, const char *format, ...) PRINTF_LIKE(3, 4);
/* The same, and its return value; NULL when it failed. */
struct json *world_query(struct world *world, struct error *err, const char *format, ...) PRINTF_LIKE(3, 4);

/* The operator reports what a command said. Errors are mistakes unless disks fail in this life or the cut has come. */
void world_expect(struct world *world, bool good, const struct error *err, const char *what);

/* A graph as programs have it, with the secrets that encrypted kinds ask for: "key", which opens them, and "other". */
struct graph *world_graph(struct loop *loop);
void world_graph_free(struct graph *graph);
/* Opens an image by its JSON options (single quotes) in some graph; one reference for the caller. YIELDS. */
struct node *world_open(struct graph *graph, struct error *err, const char *format, ...) PRINTF_LIKE(3, 4);
/* The options of the world's image: for blockdev-add of the daemon (with `name`; the file's node is `name`-file) and
 * for tools (NULL). To be freed. */
char *world_image_options(const struct world *world, const char *name);
/* Makes a qcow2 image by its -o options, as spindle-img create does. YIELDS. */
bool world_create(struct graph *graph, const char *filename, const char *options, struct error *err);

/* examine.c: looks at what is on the second loop's disks, where a cut was copied to, and compares it with the model.
 * `cut` names the cut in messages, `lot` draws what is done beside. false: the model cannot take over what was found.
 */
enum examine_flags {
    EXAMINE_THOROUGHLY = 1, /* leaks are repaired, and the image is written to again */
    EXAMINE_KILLED = 2,     /* no power was cut */
    EXAMINE_SETTLE = 4,     /* the next life begins with this, and it is durable: the model takes it over */
    EXAMINE_OBSERVE = 8,    /* the next life begins with this, durable or not */
};
struct examination {
    struct world *world;
    struct loop *loop; /* the second one */
    struct graph *graph;
    struct edge *edge; /* the image, open for writing */
    const char *cut;
    uint64_t lot; /* of this cut */
    unsigned flags;
    bool good;
};
bool examine(struct world *world, const char *cut, uint64_t lot, unsigned flags);
/* For rows: a mistake was found. */
_Noreturn void examine_fail(struct examination *e, const char *format, ...) PRINTF_LIKE(2, 3);

#endif
