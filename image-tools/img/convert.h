/* SPDX-License-Identifier: Apache-2.0 */
/* The copying part of `img convert`; options and opening are in convert.c. */
#ifndef IMAGE_TOOLS_IMG_CONVERT_H
#define IMAGE_TOOLS_IMG_CONVERT_H

#include "base/co.h"
#include "base/vec.h"
#include "image-tools/img/progress.h"
#include "image-tools/tool.h"

struct source {
    const char *name;
    struct edge *edge;
    uint64_t start; /* in the target */
};
vec_of(sources, struct source);

struct conversion {
    struct loop *loop;
    struct sources sources; /* one behind the other */
    const char *target_name;
    struct edge *target;
    uint64_t size;

    uint64_t sparse_size;  /* runs of zeroes from this length on are not stored; 0: everything is */
    uint64_t cluster_size; /* the target's unit of allocation; 0: none */
    bool target_is_zero;   /* what is not written reads as zeroes */
    bool keep_backing;     /* what the source's top layer does not have stays in the target's backing file */
    bool compress, offload, out_of_order, salvage, writethrough;
    uint64_t rate; /* bytes a second; 0: no limit */
    unsigned workers;

    /* While it runs. */
    uint64_t granularity, piece_size;
    uint64_t next;        /* pieces are handed out from here */
    struct co_mutex lock; /* of handing out */
    uint64_t next_ticket, turn;
    struct co_queue turns; /* who waits to write in order */
    uint64_t done;
    uint64_t rate_deadline_ns;
    bool failed;
    struct progress progress;
};

/* convert_bitmaps.c: persistent bitmaps of the source. All YIELD. */
bool convert_bitmaps_check(struct edge *source, bool skip_broken, struct error *err);
bool convert_bitmaps(struct edge *source, struct edge *target, struct error *err); /* when the data is there */

/* convert_verify.c: reads the target back and compares it with the sources. YIELDS. */
bool conversion_verify(struct conversion *conversion, struct error *err);

/* Copies everything and flushes the target. False: an error was printed. YIELDS. */
bool conversion_run(struct conversion *conversion, bool show_progress, bool quiet);

#endif
