/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of walls/ share. */
#ifndef WALLS_INTERNAL_H
#define WALLS_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include "walls/walls.h"

/* One row of a list: a call, and on what condition. */
enum walls_condition {
    IF_ANY,           /* always */
    IF_EQUAL,         /* argument == value (32 bits) */
    IF_MASKED,        /* (argument & mask) == value */
    BUT_ERROR,        /* never, but the caller may live: it gets this error (`value`) */
    BUT_ERROR_UNLESS, /* the same where argument != value; the error is EAFNOSUPPORT */
    BUT_ERROR_SET,    /* the same where (argument & mask) == value; the error is EACCES */
};

struct walls_call {
    const char *name;
    enum walls_condition condition;
    unsigned argument;
    uint64_t mask, value;
};

struct walls_list {
    const struct walls_call *calls;
    size_t count;
};

/* calls.c: the lists that make up a role; returns how many (at most WALLS_LISTS). */
enum { WALLS_LISTS = 16 };
size_t walls_lists(enum walls_role role, const struct walls_options *options, struct walls_list *lists);

/* filter.c: from here on the kernel asks the lists. */
bool walls_filter(const struct walls_list *lists, size_t count, struct error *err);

/* drop.c: all but the filter. */
bool walls_drop(enum walls_role role, const struct walls_options *options, struct error *err);

#endif
