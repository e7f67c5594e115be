/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blkdebug: lets requests fail or wait at chosen moments, for tests of what is above. The moments are events, which the
 * format above tells of (block/event.h). An event makes the inject-error rules that name it active, in place of those
 * that were, then set-state rules change the state in which later rules apply. A request that meets an active rule of
 * its kind and place fails. A breakpoint holds the coroutine that tells of an event until it is resumed by name.
 */
#include "block/filters/blkdebug.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "block/filters/filters.h"

struct breakpoint {
    struct list link;
    char *tag;
    enum blkdebug_event event;
    struct co *waiting; /* NULL: nobody came by yet */
    bool resumed;
};

static struct blkdebug *debug_of(const struct node *node)
{
    return node->state;
}

/* Events ---------------------------------------------------------------------------------------------------------- */

static bool applies(const struct blkdebug *debug, const struct debug_rule *rule, enum blkdebug_event event)
{
    return rule->event == event && (!rule->state || rule->state == debug->state);
}

static void activate(struct blkdebug *debug, enum blkdebug_event event)
{
    struct debug_rule *rule;
    bool any = false;
    list_for_each (rule, &debug->rules, link)
        any |= rule->action == RULE_INJECT && applies(debug, rule, event);
    list_for_each (rule, &debug->rules, link)
        if (any && rule->action == RULE_INJECT)
            rule->active = applies(debug, rule, event);
}

static void change_state(struct blkdebug *debug, enum blkdebug_event event)
{
    int64_t new_state = debug->state;
    struct debug_rule *rule;
    list_for_each (rule, &debug->rules, link)
        if (rule->action == RULE_SET_STATE && applies(debug, rule, event))
            new_state = rule->new_state;
    debug->state = new_state;
}

static void forget_break(struct breakpoint *breakpoint)
{
    list_remove(&breakpoint->link);
    free(breakpoint->tag);
    free(breakpoint);
}

static void wait_at(struct blkdebug *debug, enum blkdebug_event event)
{
    struct breakpoint *breakpoint, *found = NULL;
    list_for_each (breakpoint, &debug->breaks, link)
        if (breakpoint->event == event && !breakpoint->waiting && !found)
            found = breakpoint;
    if (!found)
        return;
    found->waiting = co_self();
    printf("blkdebug: Suspended request '%s'\n", found->tag);
    while (!found->resumed)
        co_suspend();
    printf("blkdebug: Resuming request '%s'\n", found->tag);
    forget_break(found);
}

static void debug_event(struct node *node, enum blkdebug_event event)
{
    struct blkdebug *debug = debug_of(node);
    activate(debug, event);
    change_state(debug, event);
    wait_at(debug, event);
}

/* Breakpoints ----------------------------------------------------------------------------------------------------- */

static void debug_add_break(struct node *node, enum blkdebug_event event, const char *tag)
{
    struct breakpoint *breakpoint = new (struct breakpoint);
    breakpoint->tag = xstrdup(tag);
    breakpoint->event = event;
    list_append(&debug_of(node)->breaks, &breakpoint->link);
}

static void let_go(struct breakpoint *breakpoint)
{
    breakpoint->resumed = true;
    co_wake(breakpoint->waiting);
}

static bool debug_remove_break(struct node *node, const char *tag)
{
    struct breakpoint *breakpoint;
    bool found = false;
    list_for_each_safe (breakpoint, &debug_of(node)->breaks, link) {
        if (strcmp(breakpoint->tag, tag) || breakpoint->resumed)
            continue;
        found = true;
        if (breakpoint->waiting)
            let_go(breakpoint);
        else
            forget_break(breakpoint);
    }
    return found;
}

static struct breakpoint *find_waiting(const struct node *node, const char *tag)
{
    struct breakpoint *breakpoint;
    list_for_each (breakpoint, &debug_of(node)->breaks, link)
        if (breakpoint->waiting && !breakpoint->resumed && !strcmp(breakpoint->tag, tag))
            return breakpoint;
    return NULL;
}

static bool debug_resume(struct node *node, const char *tag)
{
    struct breakpoint *breakpoint = find_waiting(node, tag);
    if (breakpoint)
        let_go(breakpoint);
    return breakpoint != NULL;
}

static bool debug_is_waiting(const struct node *node, const char *tag)
{
    return find_waiting(node, tag) != NULL;
}

/* Requests -------------------------------------------------------------------------------------------------------- */

/* The error that the request is to end with; 0: none. YIELDS. */
static int check(struct node *node, enum blkdebug_io_type type, uint64_t offset, uint64_t length)
{
    struct debug_rule *rule, *found = NULL;
    list_for_each (rule, &debug_of(node)->rules, link) {
        uint64_t place = rule->sector < 0 ? 0 : (uint64_t)rule->sector * 512;
        bool here = rule->sector < 0 || spans_overlap(place, 512, offset, length);
        if (rule->active && (rule->types & 1u << type) && here && !found)
            found = rule;
    }
    if (!found || !found->error)
        return 0;
    int error = found->error;
    bool immediately = found->immediately;
    if (found->once) {
        list_remove(&found->link);
        free(found);
    }
    if (!immediately)
        co_yield ();
    return -error;
}

static int debug_read(struct node *node, uint64_t offset, uint64_t length, struct buffers to, uint32_t flags)
{
    int result = check(node, BLKDEBUG_IO_TYPE_READ, offset, length);
    return result ? result : filter_read(node, offset, length, to, flags);
}

static int debug_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    debug_event(node, BLKDEBUG_EVENT_PWRITEV);
    int result = check(node, BLKDEBUG_IO_TYPE_WRITE, offset, length);
    if (!result)
        result = filter_write(node, offset, length, from, flags);
    debug_event(node, BLKDEBUG_EVENT_PWRITEV_DONE);
    return result;
}

static int debug_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    debug_event(node, BLKDEBUG_EVENT_PWRITEV_ZERO);
    int result = check(node, BLKDEBUG_IO_TYPE_WRITE_ZEROES, offset, length);
    if (!result)
        result = filter_zero(node, offset, length, flags);
    debug_event(node, BLKDEBUG_EVENT_PWRITEV_DONE);
    return result;
}

static int debug_discard(struct node *node, uint64_t offset, uint64_t length)
{
    int result = check(node, BLKDEBUG_IO_TYPE_DISCARD, offset, length);
    return result ? result : filter_discard(node, offset, length);
}

static int debug_flush(struct node *node)
{
    return check(node, BLKDEBUG_IO_TYPE_FLUSH, 0, 0);
}

static int debug_extents(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    *extent = (struct extent){.kind = EXTENT_DATA,
                              .length = length,
                              .child = node->file,
                              .child_offset = offset,
                              .allocated = true,
                              .follow = true};
    return check(node, BLKDEBUG_IO_TYPE_BLOCK_STATUS, offset, length);
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static uint32_t permissions(const enum blkdebug_permission *list, size_t count)
{
    static const uint32_t bits[] = {
        [BLKDEBUG_PERMISSION_CONSISTENT_READ] = BLOCK_PERM_CONSISTENT_READ,
        [BLKDEBUG_PERMISSION_WRITE] = BLOCK_PERM_WRITE,
        [BLKDEBUG_PERMISSION_WRITE_UNCHANGED] = BLOCK_PERM_WRITE_UNCHANGED,
        [BLKDEBUG_PERMISSION_RESIZE] = BLOCK_PERM_RESIZE,
    };
    uint32_t set = 0;
    for (size_t i = 0; i < count; i++)
        set |= bits[list[i]];
    return set;
}

/* Limits of the node below hold, too: it sees the same requests. */
static bool limit(const char *name, uint64_t value, uint64_t align, uint64_t unit, struct error *err)
{
    if (value % align || (unit && value % unit))
        return fail(err, EINVAL, "Cannot meet constraints with %s %" PRIu64 ": expected a multiple of %" PRIu64, name,
                    value, value % align ? align : unit);
    return true;
}

static bool set_limits(struct node *node, const struct blockdev_options_blkdebug *options, struct error *err)
{
    if (options->align && !is_power_of_two(options->align))
        return fail(err, EINVAL, "Cannot meet constraints with align %" PRIu64 ": expected a power of two",
                    options->align);
    uint64_t align = MAX(options->align, (uint64_t)MAX(node->file->child->limits.request_alignment, 1u));
    if (!limit("max-transfer", options->max_transfer, align, 0, err) ||
        !limit("opt-write-zero", options->opt_write_zero, align, 0, err) ||
        !limit("max-write-zero", options->max_write_zero, align, options->opt_write_zero, err) ||
        !limit("opt-discard", options->opt_discard, align, 0, err) ||
        !limit("max-discard", options->max_discard, align, options->opt_discard, err))
        return false;
    node->growable = node->file->child->growable;
    node->limits.request_alignment = options->align ? (uint32_t)options->align : 1;
    node->limits.max_transfer = options->max_transfer;
    node->limits.zero_alignment = options->opt_write_zero;
    node->limits.max_zero = options->max_write_zero;
    node->limits.discard_alignment = options->opt_discard;
    node->limits.max_discard = options->max_discard;
    return true;
}

static void debug_close(struct node *node)
{
    struct blkdebug *debug = debug_of(node);
    struct debug_rule *rule;
    while ((rule = list_first(&debug->rules, struct debug_rule, link))) {
        list_remove(&rule->link);
        free(rule);
    }
    struct breakpoint *breakpoint;
    while ((breakpoint = list_first(&debug->breaks, struct breakpoint, link)))
        forget_break(breakpoint);
}

static bool read_rules(struct node *node, const struct blockdev_options_blkdebug *options, struct error *err)
{
    struct blkdebug *debug = debug_of(node);
    list_init(&debug->rules);
    list_init(&debug->breaks);
    debug->state = 1;
    if (options->config && *options->config && !debug_read_config(debug, options->config, err))
        return false;
    for (size_t i = 0; i < options->n_inject_error; i++)
        debug_add_inject(debug, options->inject_error[i]);
    for (size_t i = 0; i < options->n_set_state; i++)
        debug_add_set_state(debug, options->set_state[i]);
    debug->take = permissions(options->take_child_perms, options->n_take_child_perms);
    debug->unshare = permissions(options->unshare_child_perms, options->n_unshare_child_perms);
    return true;
}

static bool debug_open(struct node *node, struct error *err)
{
    const struct blockdev_options_blkdebug *options = &node->options->u.blkdebug;
    if (read_rules(node, options, err) && filter_open_file(node, options->image, err) && set_limits(node, options, err))
        return true;
    debug_close(node);
    return false;
}

static bool debug_check_perm(struct node *node, uint32_t perm, uint32_t shared, struct error *err)
{
    const struct blkdebug *debug = debug_of(node);
    return edge_check_perm(node->file, perm | debug->take, shared & ~debug->unshare, err);
}

static void debug_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    const struct blkdebug *debug = debug_of(node);
    node_pass_set_perm(node, perm | debug->take, shared & ~debug->unshare);
}

/* blkdebug:CONFIG:IMAGE, where CONFIG may be empty. */
static bool debug_parse_name(const char *name, struct blockdev_options *options, struct error *err)
{
    const char *config = strchr(name, ':') + 1, *image = strchr(config, ':');
    if (!image)
        return fail(err, EINVAL, "blkdebug requires both config file and image path: blkdebug:CONFIG:IMAGE");
    options->driver = BLOCKDEV_DRIVER_BLKDEBUG;
    struct blockdev_options_blkdebug *debug = &options->u.blkdebug;
    debug->config = image == config ? NULL : xasprintf("%.*s", (int)(image - config), config);
    debug->image = blockdev_ref_new();
    debug->image->kind = BLOCKDEV_REF_KIND_DEFINITION;
    debug->image->u.definition = blockdev_options_new();
    debug->image->u.definition->driver = BLOCKDEV_DRIVER_FILE;
    debug->image->u.definition->u.file.filename = xstrdup(image + 1);
    debug->image->u.definition->u.file.locking = ON_OFF_AUTO_AUTO;
    return true;
}

static const struct debug_ops ops = {
    .event = debug_event,
    .add_break = debug_add_break,
    .remove_break = debug_remove_break,
    .resume = debug_resume,
    .is_waiting = debug_is_waiting,
};

static const char *const prefixes[] = {"blkdebug", NULL};

const struct block_driver blkdebug_driver = {
    .name = "blkdebug",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct blkdebug),
    .open = debug_open,
    .close = debug_close,
    .prefixes = prefixes,
    .parse_name = debug_parse_name,
    .read = debug_read,
    .write = debug_write,
    .zero = debug_zero,
    .discard = debug_discard,
    .flush = debug_flush,
    .extents = debug_extents,
    .debug = &ops,
    .check_perm = debug_check_perm,
    .set_perm = debug_set_perm,
    .resize = filter_resize,
};
