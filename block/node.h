/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node graph. A *node* is one layer of a disk: a file, an image format over a file, a filter over a format. An
 * *edge* says that a parent (another node, an export, a job, a tool) uses a node, in what role and with what
 * permissions. All I/O goes through an edge (block/request.h), so what a parent may do is known and checked in one
 * place.
 *
 *        export "disk"                     tool "img convert"
 *             | (root edge)                     |
 *          [qcow2 "top"] --backing--> [qcow2 "base"]
 *             | file                       | file
 *          [file]                       [file]
 *
 * Ownership: an edge owns one reference of its child; the graph's name table owns one for each node made by
 * blockdev-add ("monitor owned"). A node dies with its last reference: it is flushed, closed, and its own edges are
 * removed. A graph and all its nodes live on one loop and are touched by its thread only. Functions marked YIELDS run
 * in coroutines.
 */
#ifndef BLOCK_NODE_H
#define BLOCK_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/co.h"
#include "base/error.h"
#include "base/list.h"

struct blockdev_options; /* qmp/schema/types.h */
struct blockdev_ref;
struct blockdev_ref_or_null;
struct block_driver;
struct loop;
struct edge;
struct node;

/* What a parent needs (perm) and what it lets the other parents of the same child do (shared). The bit values are those
 * that file locking uses in the ecosystem: consistent-read 0, write 1, resize 3. */
enum block_permission {
    BLOCK_PERM_CONSISTENT_READ = 1 << 0, /* the content read is a consistent state, not somebody's half-done work */
    BLOCK_PERM_WRITE = 1 << 1,
    BLOCK_PERM_WRITE_UNCHANGED = 1 << 2, /* writes that do not change what is read (copy on read) */
    BLOCK_PERM_RESIZE = 1 << 3,
    BLOCK_PERM_ALL = 15,
};

enum block_discard { BLOCK_DISCARD_IGNORE, BLOCK_DISCARD_UNMAP };
enum block_detect_zeroes { BLOCK_DETECT_ZEROES_OFF, BLOCK_DETECT_ZEROES_ON, BLOCK_DETECT_ZEROES_UNMAP };

/* What a driver can take; filled at open, 0 = no limit / no demand. Bytes. */
struct block_limits {
    uint32_t request_alignment; /* offsets, lengths: multiples of this, a power of two; 1 when 0. The request path pads
                                   and splits. */
    uint32_t memory_alignment;  /* of buffers (O_DIRECT) */
    uint64_t max_transfer;
    uint64_t max_zero, zero_alignment; /* preferred granularity of efficient zero writes */
    uint64_t max_discard, discard_alignment;
    uint32_t optimal_transfer;
};

enum { LATENCY_KINDS = 4, LATENCY_BINS = 26 }; /* of block/latency.h */

/* Accounting, per node, of requests that parents made. */
struct block_stats {
    uint64_t read_bytes, write_bytes, discard_bytes, zero_bytes;
    uint64_t read_operations, write_operations, discard_operations, flush_operations, zero_operations;
    uint64_t failed_reads, failed_writes, failed_discards, failed_flushes;
    uint64_t invalid_reads, invalid_writes, invalid_discards; /* refused at the border */
    uint64_t highest_write_offset;
    /* Of requests from outside of the graph only: time they took, and when the last one ended. */
    uint64_t read_ns, write_ns, discard_ns, flush_ns, last_ns;
    struct latency_histogram *histograms[3]; /* of enum latency_kind; NULL: not counted (block/latency.h) */
    uint64_t latencies[LATENCY_KINDS][LATENCY_BINS]; /* all of them: bin i is for what took less than 2^i microseconds */
};

struct node {
    const struct block_driver *driver;
    struct graph *graph;
    struct loop *loop;
    const struct block_driver *inactive; /* its own driver, while it is handed over (block/active.h); else NULL */
    char *name;                          /* node-name; generated ("#block123") when the user gave none */
    char *filename; /* for people and for info: the protocol's file name, or the file child's; may be NULL */
    void *state;    /* the driver's instance, driver->instance_size bytes, zeroed before open */
    struct blockdev_options *options; /* as given, complete; owned */

    uint64_t size; /* bytes a parent sees */
    bool read_only, auto_read_only, force_share, no_flush, direct;
    bool options_read_only; /* what the options say; read_only may also follow from the file (auto-read-only) */
    bool growable;      /* writes past the end make it larger (regular files), for parents with the resize permission */
    bool probed;        /* nobody named the format: it was guessed from the first bytes */
    bool metadata_only; /* only described or checked: a driver opens no external file for the data */
    bool probed_by_image; /* ... and the name of the file came out of an image: may not lead to further files */
    enum block_discard discard;
    enum block_detect_zeroes detect_zeroes;
    struct block_limits limits;
    uint32_t write_flags,
        zero_flags; /* enum request_flags the driver takes itself; the request path emulates the rest */

    struct list children; /* of struct edge, by parent_link */
    struct list parents;  /* of struct edge, by child_link */
    struct edge *file;    /* shortcuts to children with these roles, or NULL */
    struct edge *backing;

    struct node *opener;              /* while it is being opened: the node whose child it becomes; else NULL */
    uint64_t host_device, host_inode; /* protocols: identity of the file on this host; 0 = unknown */

    size_t references;
    bool monitor_owned; /* made by blockdev-add / --blockdev; query-named-block-nodes lists all, blockdev-del takes
                           these */
    struct list graph_link;
    struct list opening_link; /* in graph->opening while the driver opens it */

    /* Request path (block/request.c). */
    size_t in_flight; /* requests that entered this node and have not left it */
    size_t drained;   /* node_drain_begin() calls on this node that are in force */
    size_t quiesced;  /* > 0: requests wait before they enter the graph here; see block/drain.c */
    uint64_t visited;
    struct co_queue drain_queue;  /* who waits for in_flight == 0 */
    struct co_queue resume_queue; /* requests held back by quiesced */
    struct list tracked;          /* in-flight writes, zeroes and discards, in order of arrival */
    size_t serialising;           /* how many of them hold off overlapping ones (read-modify-write, copy) */
    /* A flush with nothing new is free. A driver that changes metadata outside of requests (resize, snapshots) calls
     * node_mark_written(). */
    uint64_t write_generation, flushed_generation;
    bool flushing; /* one flush at a time; later ones join or follow it */
    struct co_queue flush_queue;
    struct block_stats stats;
    uint64_t write_threshold; /* the first write beyond it is reported; 0: none */
    struct list bitmaps;      /* of struct dirty_bitmap, by link: named ones and those of jobs */
    struct job *job;          /* whose source or target it is, or NULL; block/job.h */
    bool corrupt;             /* a fatal corruption was found: writes are refused with -EIO */
};

struct edge {
    struct node *child;
    struct node *parent; /* NULL: a root edge, used by an export, job or tool */
    char *role;          /* "file", "backing", "data-file"; for a root edge who uses it: "export 'disk0'" */
    uint32_t perm, shared;
    /* Backing edge: writes to the child do not change what the parent shows, because a copy-before-write filter keeps
     * the old content in the parent. So they are no conflict. */
    bool guarded;
    /* The child may be inactive (block/active.h); while it is, perm is 0, and this is what the edge needs otherwise. */
    bool allows_inactive;
    uint32_t active_perm, active_shared;
    struct list parent_link, child_link;

    uint64_t read_bytes, write_bytes; /* that went through it, with good results */

    /* Root edges may want to know. May be NULL. */
    void (*resized)(void *user); /* the child's size changed */
    void *user;
};

/* Graph --------------------------------------------------------------------------------------------------------------
 */

struct graph;
/* `drivers` is a NULL-terminated table of drivers that outlive the graph; more tables can be added: a program says
 *     graph = graph_new(loop, protocol_table); graph_add_drivers(graph, formats_table); */
struct graph *graph_new(struct loop *loop, const struct block_driver *const *drivers);
void graph_add_drivers(struct graph *graph, const struct block_driver *const *drivers);
void graph_free(struct graph *graph); /* all nodes must be gone */
/* The program ends: no node waits any longer for what may never come (driver->give_up). */
void graph_give_up(struct graph *graph);
const struct block_driver *graph_driver(const struct graph *graph,
                                        const char *name); /* NULL: no such driver in this program */
const struct block_driver *const *graph_drivers(const struct graph *graph);
struct loop *graph_loop(const struct graph *graph);
/* Nobody outside this program is told of writes through this graph, and whoever kills the program expects to lose what
 * it did not flush: formats need not keep answered writes through a kill. To be said before nodes are opened. */
void graph_set_private(struct graph *graph);
bool graph_is_private(const struct graph *graph);
/* Where drivers find the objects (objects/object.h) that options refer to: secrets, credentials, groups. The set must
 * outlive the graph; NULL while the program has set none. */
struct object_set;
void graph_set_objects(struct graph *graph, struct object_set *objects);
struct object_set *graph_objects(const struct graph *graph);
/* Mounted file systems that this program answers for, by device number. Nodes cannot be opened through them. */
void graph_serve_device(struct graph *graph, uint64_t device);
void graph_stop_serving_device(struct graph *graph, uint64_t device);
bool graph_serves_path(const struct graph *graph, const char *path);
struct node *graph_find(const struct graph *graph, const char *node_name);
struct node *graph_next(const struct graph *graph,
                        const struct node *after); /* all nodes, in order of creation; NULL starts and ends */

/* Events of the graph go to one sink, set by the program (QMP or a log). */
struct graph_events {
    /* BLOCK_IMAGE_CORRUPTED; offset and size are UINT64_MAX when unknown. */
    void (*image_corrupted)(void *user, struct node *node, const char *message, uint64_t offset, uint64_t size,
                            bool fatal);
    /* A write goes beyond node->write_threshold, which is 0 by then. */
    void (*write_threshold)(void *user, struct node *node, uint64_t threshold, uint64_t exceeded_by);
    /* A child of a quorum failed (`result` is -errno) or says something else than most (0), at an operation of enum
     * quorum_op_type; or a request of the quorum failed because too few children agreed. */
    void (*quorum_bad)(void *user, const struct node *child, int operation, int result, uint64_t offset,
                       uint64_t length);
    void (*quorum_failure)(void *user, const struct node *quorum, uint64_t offset, uint64_t length);
    void *user;
};
void graph_set_events(struct graph *graph, const struct graph_events *events);

/* Opening ------------------------------------------------------------------------------------------------------------
 */

/* Opens a node and, recursively, the children its options describe or name. The options stay the caller's (they are
 * cloned). The node comes with one reference for the caller. YIELDS. */
struct node *node_open(struct graph *graph, const struct blockdev_options *options, struct error *err);

/* Opens a filter that only programs put into a graph, by a driver that users cannot name, above `below`. What it needs
 * beyond that, the caller sets up before it puts the filter into use with node_replace(). `name` NULL: one is made up.
 * YIELDS. */
struct node *node_open_filter(const struct block_driver *driver, const char *name, struct node *below,
                              struct error *err);

/* A driver opens or finds a child during its open(); perm/shared as the child role needs. NULL `ref` is an error of the
 * caller. YIELDS. On failure of the driver's open, the children are removed by the caller of open(). */
struct edge *node_open_child(struct node *parent, const char *role, const struct blockdev_ref *ref, uint32_t perm,
                             uint32_t shared, struct error *err);

/* The same for the option `backing`, with which users say that there is no such child: by null, or by an empty name.
 * YIELDS. */
bool node_open_backing(struct node *parent, const struct blockdev_ref_or_null *backing, uint32_t perm, uint32_t shared,
                       struct error *err);

void node_ref(struct node *node);
void node_unref(struct node *node); /* YIELDS when it was the last one (flush, close) */

/* blockdev-add / blockdev-del: as node_open, with the name table's reference; del refuses while other parents use it.
 * YIELDS. */
bool graph_add(struct graph *graph, const struct blockdev_options *options, struct error *err);
bool graph_del(struct graph *graph, const char *node_name, struct error *err);

/* blockdev-reopen: all or nothing over several nodes; options are complete (what is left out becomes the default). The
 * subtrees are drained while it runs. What cannot change is refused by name. YIELDS. */
bool graph_reopen(struct graph *graph, struct blockdev_options *const *options, size_t count, struct error *err);

/* Edges --------------------------------------------------------------------------------------------------------------
 */

/* Attaches a user; fails with a message naming both parties when permissions conflict. `parent` NULL makes a root edge.
 * YIELDS (file locks follow the permissions). */
struct edge *edge_attach(struct node *parent, const char *role, struct node *child, uint32_t perm, uint32_t shared,
                         struct error *err);
void edge_detach(struct edge *edge); /* drops its reference. YIELDS */
bool edge_set_perm(struct edge *edge, uint32_t perm, uint32_t shared, struct error *err);
/* The union of what parents need / the intersection of what they share. */
void node_cumulative_perm(const struct node *node, uint32_t *perm, uint32_t *shared);

/* All parents of `from` use `to` instead, except those that lie below `to` (a filter that is put above `from` goes on
 * using it). Drains both. Fails, without a change, when what the parents need is not to be had of `to`. YIELDS. */
bool node_replace(struct node *from, struct node *to, struct error *err);
/* Changes what a node has for its backing node; NULL: none. Drains it. On failure it is as it was. YIELDS. */
bool node_set_backing(struct node *node, struct node *backing, struct error *err);
bool node_is_below(const struct node *node, const struct node *wanted); /* `wanted` is node or one of its descendants */

/* Drain --------------------------------------------------------------------------------------------------------------
 */

/* Waits until the node, and every node connected with it, has nothing in flight, and holds new requests at the root
 * edges until node_drain_end(). Nests. A coroutine that is itself a request of this part of the graph must not call it.
 * YIELDS. */
void node_drain_begin(struct node *node);
void node_drain_end(struct node *node);

/* Driver's side ------------------------------------------------------------------------------------------------------
 */

/* The driver found metadata that cannot be trusted. Emits the event; a fatal one makes the node refuse writes. Once per
 * node for fatal. */
void node_report_corruption(struct node *node, bool fatal, uint64_t offset, uint64_t size, const char *format, ...)
    PRINTF_LIKE(5, 6);
void node_set_size(struct node *node, uint64_t size); /* tells root edges */

static inline void node_mark_written(struct node *node)
{
    node->write_generation++;
}

/* check_perm and set_perm of a driver whose parents' needs are passed on to its file (raw, filters). */
bool node_pass_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err);
void node_pass_set_perm(struct node *node, uint32_t perm, uint32_t shared);

/* The two halves of edge_set_perm(), for drivers' check_perm and set_perm: check takes what is new (locks) and changes
 * nothing when it fails; apply cannot fail and lets go of what is not needed any more. Calling apply with the old
 * values takes a check back. */
bool edge_check_perm(struct edge *edge, uint32_t perm, uint32_t shared, struct error *err);
void edge_apply_perm(struct edge *edge, uint32_t perm, uint32_t shared);

/* Bytes that a node takes on the host, with the files below it but not its backing chain; -errno when unknown. YIELDS.
 */
int64_t node_allocated_size(struct node *node);

/* Follows filters and backing edges: the node that this one overlays, or NULL. */
struct node *node_backing(const struct node *node);

#endif
