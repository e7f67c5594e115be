/* SPDX-License-Identifier: Apache-2.0 */
/*
 * preallocate: a filter between a format and its file, for file systems to which making a file longer is expensive. A
 * write past the end of the file first makes it longer by `prealloc-size`, in space that is allocated and reads as
 * zeroes; the writes that follow find it there.
 *
 *      0                      size (what the format sees)                file's size, a multiple of prealloc-align
 *      |------- data ---------|- - - - - - - - zeroes - - - - - - - - - -|
 *
 * What was not needed is given back as soon as nobody may write and resize any more: when the format closes, is
 * reopened read-only, or is made inactive. A program that is killed leaves it behind, and it is the file's, then:
 * zeroes behind the last cluster do no harm to a qcow2 image; below a raw disk they make it longer.
 */
#include <inttypes.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "block/create.h"
#include "block/filters/filters.h"
#include "qmp/schema/types.h"

#define BOTH (BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE)

struct preallocate {
    uint64_t align, step;
    bool refused;            /* the file cannot be made longer in this way: not tried again */
    struct co_mutex growing; /* one makes the file longer, the others use it */
};

static struct preallocate *preallocate_of(const struct node *node)
{
    return node->state;
}

static uint64_t file_size(const struct node *node)
{
    return node->file->child->size;
}

/* Growing --------------------------------------------------------------------------------------------------------- */

/* Space for a write that ends at `end`. It is no error when there is none: the write itself will tell. */
static void make_room(struct node *node, uint64_t end)
{
    struct preallocate *state = preallocate_of(node);
    if (end <= file_size(node) || state->refused || (node->file->perm & BOTH) != BOTH)
        return;
    co_mutex_lock(&state->growing);
    uint64_t from = file_size(node), to;
    if (end > from && !state->refused && !add_overflows(end, state->step + state->align, &to) && to <= INT64_MAX) {
        to = (end + state->step + state->align - 1) / state->align * state->align;
        int result = block_zero(node->file, from, to - from, REQUEST_NO_FALLBACK);
        state->refused = result == -ENOTSUP;
    }
    co_mutex_unlock(&state->growing);
}

static int preallocate_write(struct node *node, uint64_t offset, uint64_t length, struct buffers from, uint32_t flags)
{
    make_room(node, offset + length);
    return filter_write(node, offset, length, from, flags);
}

/* Behind the data there are zeroes already. */
static int preallocate_zero(struct node *node, uint64_t offset, uint64_t length, uint32_t flags)
{
    make_room(node, offset + length);
    if (offset >= node->size && offset + length <= file_size(node) && !(flags & REQUEST_FUA))
        return 0;
    return filter_zero(node, offset, length, flags);
}

/* Giving back ----------------------------------------------------------------------------------------------------- */

static bool give_back(struct node *node, struct error *err)
{
    return file_size(node) <= node->size || (node->file->perm & BOTH) != BOTH ||
           node_resize(node->file, node->size, PREALLOCATION_OFF, true, err);
}

/* While it may still do so. A file that keeps its zeroes is too long, not wrong. */
static void preallocate_set_perm(struct node *node, uint32_t perm, uint32_t shared)
{
    if (!node->file)
        return;
    auto_error error = {0};
    if ((perm & BOTH) != BOTH && !give_back(node, &error))
        log_error("node '%s': what was preallocated could not be given back: %s", node->name, error.message);
    node_pass_set_perm(node, perm, shared);
}

static bool preallocate_resize(struct node *node, uint64_t size, enum preallocation preallocation, bool exact,
                               struct error *err)
{
    bool is_there = size > node->size && size <= file_size(node) && preallocation != PREALLOCATION_FULL;
    if (is_there) {
        node_set_size(node, size);
        return true;
    }
    return give_back(node, err) && filter_resize(node, size, preallocation, exact, err);
}

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool check_options(const struct blockdev_options_preallocate *options, struct error *err)
{
    return options->prealloc_align % 512 == 0 ||
           fail(err, EINVAL, "prealloc-align must be a multiple of 512, not %" PRIu64, options->prealloc_align);
}

static void use_options(struct preallocate *state, const struct blockdev_options_preallocate *options)
{
    state->align = options->prealloc_align;
    state->step = options->prealloc_size;
    state->refused = false;
}

static bool preallocate_open(struct node *node, struct error *err)
{
    const struct blockdev_options_preallocate *options = &node->options->u.preallocate;
    if (!check_options(options, err) || !filter_open_file(node, options->file, err))
        return false;
    use_options(preallocate_of(node), options);
    co_mutex_init(&preallocate_of(node)->growing);
    node->growable = node->file->child->growable;
    return true;
}

struct reopen_state {
    struct blockdev_options_preallocate options; /* numbers only */
};

static bool preallocate_reopen_prepare(struct node *node, const struct blockdev_options *options,
                                       struct reopen_state **state, struct error *err)
{
    if (!check_options(&options->u.preallocate, err) || !give_back(node, err))
        return false;
    *state = new (struct reopen_state);
    (*state)->options.prealloc_align = options->u.preallocate.prealloc_align;
    (*state)->options.prealloc_size = options->u.preallocate.prealloc_size;
    return true;
}

static void preallocate_reopen_commit(struct node *node, struct reopen_state *state)
{
    use_options(preallocate_of(node), &state->options);
    free(state);
}

static void preallocate_reopen_abort(struct node *node, struct reopen_state *state)
{
    free(state);
}

const struct block_driver preallocate_driver = {
    .name = "preallocate",
    .kind = DRIVER_FILTER,
    .instance_size = sizeof(struct preallocate),
    .open = preallocate_open,
    .read = filter_read,
    .write = preallocate_write,
    .zero = preallocate_zero,
    .discard = filter_discard,
    .reopen_prepare = preallocate_reopen_prepare,
    .reopen_commit = preallocate_reopen_commit,
    .reopen_abort = preallocate_reopen_abort,
    .check_perm = node_pass_check_perm,
    .set_perm = preallocate_set_perm,
    .resize = preallocate_resize,
};
