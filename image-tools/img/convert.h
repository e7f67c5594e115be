/* SPDX-License-Identifier: Apache-2.0 */
/* The copying part of `img convert`; options and opening are in convert.c. */
#ifndef IMAGE_TOOLS_IMG_CONVERT_H
#define IMAGE_TOOLS_IMG_CONVERT_H

#include "base/co.h"
#include "base/vec.h"
#include "image-tools/img/progress.h"
#include "image-tools/img/stream.h"
#include "image-tools/tool.h"

struct source {
    const char *name;
    struct edge *edge;
    uint64_t start; /* in the target */
};
vec_of(sources, struct source);

/* A part of the target, as it is handed out. */
enum piece_kind { PIECE_DATA, PIECE_ZERO };

struct piece {
    enum piece_kind kind;
    uint64_t offset, length, ticket;
};
vec_of(pieces, struct piece);

struct conversion {
    struct loop *loop;
    struct sources sources; /* one behind the other */
    const char *target_name;
    struct edge *target;
    uint64_t size;
    struct stream *input;  /* the source is a stream, and the size is what came so far; else NULL */
    struct stream *output; /* the target is a stream, and there is no edge; else NULL */
    struct pieces *plan;   /* what is to be stored is known already; else NULL */
    bool may_grow;         /* with an input stream: the target's size follows from it */

    uint64_t sparse_size;  /* runs of zeroes from this length on are not stored; 0: everything is */
    uint64_t cluster_size; /* the target's unit of allocation; 0: none */
    bool target_is_zero;   /* what is not written reads as zeroes */
    bool keep_backing;     /* what the source's top layer does not have stays in the target's backing file */
    bool compress, offload, out_of_order, salvage, writethrough;
    uint64_t rate; /* bytes a second; 0: no limit */
    unsigned workers;

    /* While it runs. */
    uint64_t granularity, piece_size;
    uint64_t next; /* pieces are handed out from here */
    size_t next_planned;
    struct co_mutex lock; /* of handing out */
    uint64_t *in_work;    /* offset of each worker's piece, UINT64_MAX for none */
    uint64_t next_ticket, turn;
    struct co_queue turns; /* who waits to write in order */
    uint64_t done;
    uint64_t rate_deadline_ns;
    bool failed;
    bool stopped; /* somebody asked to end early */
    bool peeking; /* an error of a source is not one of the conversion */
    struct co_mutex growing;
    unsigned started; /* workers */
    struct progress progress;
};

/* convert_bitmaps.c: persistent bitmaps of the source. All YIELD. */
bool convert_bitmaps_check(struct edge *source, bool skip_broken, struct error *err);
bool convert_bitmaps(struct edge *source, struct edge *target, struct error *err); /* when the data is there */

/* convert_verify.c: reads the target back and compares it with the sources. YIELDS. */
bool conversion_verify(struct conversion *conversion, struct error *err);

/* Copies everything and flushes the target. False: it was stopped, or an error was printed. YIELDS. */
struct resume;
bool conversion_run(struct conversion *conversion, struct resume *resume, bool show_progress, bool quiet);
void conversion_fail(struct conversion *conversion, const char *doing, const char *name, uint64_t offset, int error);
/* What is in work is ended, and nothing more begun. */
void conversion_stop(struct conversion *conversion);
/* Pieces begin at multiples of this. */
uint64_t conversion_granularity(const struct conversion *conversion);
/* Everything below was given to the target. */
uint64_t conversion_stored(const struct conversion *conversion);
/* Reads what belongs at an offset of the target; false: a source has an error there. YIELDS. */
bool conversion_peek(struct conversion *conversion, uint64_t offset, uint8_t *buffer, uint64_t length);
/* Finds out what is to be stored, without reading data. False: an error was printed. YIELDS. */
bool conversion_plan(struct conversion *conversion, struct pieces *plan);

#endif
