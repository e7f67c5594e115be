/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of blkdebug, from the options and from a file. */
#ifndef BLOCK_FILTERS_BLKDEBUG_H
#define BLOCK_FILTERS_BLKDEBUG_H

#include "base/co.h"
#include "base/error.h"
#include "base/list.h"
#include "block/event.h"

enum rule_action { RULE_INJECT, RULE_SET_STATE };

struct debug_rule {
    struct list link;
    enum rule_action action;
    enum blkdebug_event event;
    int64_t state; /* 0: any */
    int64_t new_state;
    uint32_t types; /* set of 1 << enum blkdebug_io_type */
    int error;
    int64_t sector; /* -1: any */
    bool once, immediately;
    bool active;
};

struct blkdebug {
    struct list rules;  /* of struct debug_rule */
    struct list breaks; /* of struct breakpoint */
    int64_t state;
    uint32_t take, unshare; /* permissions */
};

void debug_add_inject(struct blkdebug *debug, const struct blkdebug_inject_error_options *options);
void debug_add_set_state(struct blkdebug *debug, const struct blkdebug_set_state_options *options);
bool debug_read_config(struct blkdebug *debug, const char *path, struct error *err);

#endif
