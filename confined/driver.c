/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node driver `confined`: a read-only image whose format is parsed by a worker process (confined/worker.c). What
 * the worker tells (confined/protocol.h) is validated (confined/validate.c); the bytes of the guest's disk are read by
 * us, from the file, where the worker says they are, but for encoded ones, which come through the shared buffer.
 *
 *        parent                            worker process
 *          |                                  format driver
 *     [confined] --- questions, answers --->  over a descriptor
 *       |      \                              that can be read
 *     file   backing (named by the user; what the image names is told and not followed)
 *
 * The worst that a malicious image can do is to have its disk read as different bytes of its own file: everything else
 * is refused here. A worker that lies or does not answer makes the node fail for ever (-EIO); one that just ends is
 * started again, once.
 *
 * An answer of MAP has up to 127 extents, and the last ones are kept, so reading from one end to the other asks once
 * for 127 extents, not once for each.
 */
#include "confined/driver.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/iov.h"
#include "base/log.h"
#include "base/math.h"
#include "base/trace.h"
#include "block/name.h"
#include "block/request.h"
#include "confined/link.h"
#include "qmp/schema/json.h"
#include "qmp/schema/types.h"

enum { WINDOWS = 16, CHECK_PATIENCE = 120 };

/* The extents of one answer: extents[i] begins at starts[i]. */
struct window {
    uint64_t starts[CONFINED_EXTENTS + 1]; /* one more: the end */
    struct confined_extent extents[CONFINED_EXTENTS];
    uint32_t count; /* 0: not in use */
    uint64_t used;  /* when, by `clock` */
};

struct confined_state {
    struct confined_link *link;
    struct confined_settings settings;
    struct confined_facts facts;
    struct co_mutex lock; /* one question at a time; guards all but the windows, which only change without a yield */
    bool restarted, dead;
    struct window *windows; /* of WINDOWS */
    uint64_t clock;
};

/* The worker ----------------------------------------------------------------------------------------------------- */

/* The image's file, opened anew for reading only: the worker must not get what may be written. */
static int open_image(struct node *node, struct error *err)
{
    const struct node *file = node->file->child;
    bool is_file = !strcmp(file->driver->name, "file") || !strcmp(file->driver->name, "host_device");
    if (!is_file || !file->filename) {
        fail(err, ENOTSUP,
             "node '%s': the file of a confined image must be one of this host (file or host_device), not %s",
             node->name, file->driver->name);
        return -1;
    }
    int fd = open(file->filename, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        fail_errno(err, errno, "cannot open '%s'", file->filename);
    return fd;
}

static bool same_file(const struct node *file, int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !file->host_inode)
        return true;
    return S_ISBLK(st.st_mode) ? st.st_rdev == file->host_device
                               : st.st_ino == file->host_inode && st.st_dev == file->host_device;
}

static bool ask(struct confined_link *link, struct confined_question *question, unsigned patience, struct error *err)
{
    if (!confined_link_ask(link, question, patience, err))
        return false;
    const struct confined_answer *answer = &link->answer;
    if (!answer->result)
        return true;
    return *answer->u.message ? fail(err, -answer->result, "%s", answer->u.message)
                              : fail_errno(err, -answer->result, "the image cannot be read");
}

static bool start_worker(struct node *node, struct confined_facts *facts, struct error *err)
{
    struct confined_state *state = node->state;
    const struct blockdev_options_confined *options = &node->options->u.confined;
    auto_close int image = open_image(node, err);
    if (image < 0)
        return false;
    if (!same_file(node->file->child, image))
        return fail(err, ESTALE, "'%s' is another file now", node->file->child->filename);
    state->link = confined_link_new(doorman_of(node->driver), node->loop, image, &state->settings, err);
    if (!state->link)
        return false;
    state->link->limits.file_size = node->file->child->size;
    struct confined_question question = {.op = CONFINED_OPEN,
                                         .flags = node->metadata_only ? CONFINED_METADATA_ONLY : 0};
    if (options->format)
        strncpy(question.format, options->format, sizeof question.format - 1);
    if (!ask(state->link, &question, 1, err))
        return false;
    *facts = state->link->answer.u.facts;
    state->link->limits.size = facts->size;
    return true;
}

static void stop_worker(struct confined_state *state)
{
    confined_link_free(TAKE(state->link));
}

static bool restart(struct node *node, struct error *err)
{
    struct confined_state *state = node->state;
    struct confined_facts facts;
    stop_worker(state);
    if (!start_worker(node, &facts, err))
        return false;
    return !memcmp(&facts, &state->facts, sizeof facts) ||
           fail(err, EPROTO, "the image has changed under the confined worker");
}

/* A question with everything around it. The answer is in state->link->answer as long as the lock is held. 0 or -errno;
 * `err` may be NULL. */
static int question_worker(struct node *node, struct confined_question *question, unsigned patience, struct error *err)
{
    struct confined_state *state = node->state;
    auto_error cause = {0};
    if (state->dead)
        return fail(err, EIO, "node '%s': its confined worker is no more", node->name), -EIO;
    bool good = confined_link_ask(state->link, question, patience, &cause);
    if (!good && cause.code == EPIPE && !state->restarted) {
        log_warning("node '%s': the confined worker has ended and is started again, this once", node->name);
        error_clear(&cause);
        state->restarted = true;
        good = restart(node, &cause) && confined_link_ask(state->link, question, patience, &cause);
    }
    if (good)
        return state->link->answer.result;
    state->dead = true;
    if (state->link)
        stop_worker(state);
    log_error("node '%s' cannot be read any more: %s", node->name, cause.message);
    fail(err, EIO, "node '%s': %s", node->name, cause.message);
    return -EIO;
}

/* Mapping -------------------------------------------------------------------------------------------------------- */

static struct window *find_window(struct confined_state *state, uint64_t offset)
{
    for (int i = 0; i < WINDOWS; i++) {
        struct window *window = &state->windows[i];
        if (window->count && offset >= window->starts[0] && offset < window->starts[window->count])
            return window;
    }
    return NULL;
}

static void keep_answer(struct confined_state *state, uint64_t offset, const struct confined_answer *answer)
{
    struct window *window = &state->windows[0];
    for (int i = 1; i < WINDOWS; i++) {
        if (state->windows[i].used < window->used)
            window = &state->windows[i];
    }
    window->count = answer->count;
    for (uint32_t i = 0; i < answer->count; i++) {
        window->starts[i] = offset;
        window->extents[i] = answer->u.extents[i];
        offset += answer->u.extents[i].length;
    }
    window->starts[window->count] = offset;
}

static void extent_from_window(struct node *node, struct window *window, uint64_t offset, uint64_t length,
                               struct extent *extent)
{
    uint32_t low = 0, high = window->count; /* starts[low] <= offset < starts[high] */
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (window->starts[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    const struct confined_extent *found = &window->extents[low];
    uint64_t skip = offset - window->starts[low];
    bool placed = found->flags & CONFINED_PLACED;
    *extent = (struct extent){
        .kind = (enum extent_kind)found->kind,
        .length = MIN(found->length - skip, length),
        .child = placed ? node->file : NULL,
        .child_offset = placed ? found->host_offset + skip : 0,
        .allocated = found->flags & CONFINED_ALLOCATED,
        .follow = found->flags & CONFINED_FOLLOW,
    };
}

static int confined_map(struct node *node, uint64_t offset, uint64_t length, struct extent *extent)
{
    struct confined_state *state = node->state;
    struct window *window = find_window(state, offset);
    if (unlikely(!window)) {
        with_co_lock (&state->lock) {
            window = find_window(state, offset); /* somebody else may have asked meanwhile */
            struct confined_question question = {.op = CONFINED_MAP, .offset = offset, .length = length};
            int result = window ? 0 : question_worker(node, &question, 1, NULL);
            if (result < 0)
                return result;
            if (!window)
                keep_answer(state, offset, &state->link->answer);
        }
        window = find_window(state, offset);
        if (!window)
            return -EIO; /* cannot be: it was just kept */
    }
    window->used = ++state->clock;
    extent_from_window(node, window, offset, length, extent);
    return 0;
}

static int confined_read_encoded(struct node *node, uint64_t offset, uint64_t length, const struct extent *extent,
                                 struct buffers to)
{
    struct confined_state *state = node->state;
    for (uint64_t done = 0; done < length;) {
        uint64_t part = MIN(length - done, CONFINED_BUFFER_SIZE);
        with_co_lock (&state->lock) {
            struct confined_question question = {.op = CONFINED_READ, .offset = offset + done, .length = part};
            int result = question_worker(node, &question, 1, NULL);
            if (result < 0)
                return result;
            iov_from_buffer(to.iov, (int)to.count, to.skip + done, state->link->buffer, part);
        }
        done += part;
    }
    return 0;
}

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool open_backing(struct node *node, struct error *err)
{
    const struct confined_state *state = node->state;
    const struct blockdev_ref_or_null *backing = node->options->u.confined.backing;
    bool has_backing = state->facts.flags & CONFINED_HAS_BACKING;
    if (!backing) {
        if (!has_backing || node->metadata_only)
            return true;
        return fail(err, EINVAL,
                    "the image names a backing file, '%s', which a confined image does not follow: give the node as "
                    "'backing' (or null, to read zeroes in its place)",
                    state->facts.backing_name);
    }
    uint32_t shared = node->force_share ? BLOCK_PERM_ALL : BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    return node_open_backing(node, backing, BLOCK_PERM_CONSISTENT_READ, shared, err) ||
           fail_prefix(err, "backing file: ");
}

static bool open_all(struct node *node, struct error *err)
{
    struct confined_state *state = node->state;
    const struct blockdev_options_confined *options = &node->options->u.confined;
    if (!node->read_only && !node->auto_read_only)
        return fail(err, EROFS, "a confined image cannot be written: use read-only=on");
    if (loop_backend(node->loop) == LOOP_SIMULATED)
        return fail(err, ENOTSUP, "there are no processes in a simulation");
    node->read_only = true;
    uint32_t shared = node->force_share ? BLOCK_PERM_ALL : BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    if (!node_open_child(node, "file", options->file, BLOCK_PERM_CONSISTENT_READ, shared, err))
        return false;
    state->settings = (struct confined_settings){.memory_limit = options->memory_limit,
                                                 .timeout_ns = options->timeout * 1000000000ull};
    if (!start_worker(node, &state->facts, err) || !open_backing(node, err))
        return false;
    node->size = state->facts.size;
    if (node->file->child->filename)
        node->filename = xstrdup(node->file->child->filename);
    return true;
}

static bool confined_open(struct node *node, struct error *err)
{
    struct confined_state *state = node->state;
    co_mutex_init(&state->lock);
    state->windows = new_array(struct window, WINDOWS);
    if (open_all(node, err))
        return true;
    stop_worker(state);
    free(state->windows);
    return false;
}

static void confined_close(struct node *node)
{
    struct confined_state *state = node->state;
    stop_worker(state);
    free(state->windows);
}

/* Description ---------------------------------------------------------------------------------------------------- */

static char *text_or_null(const char *text)
{
    return *text ? xstrdup(text) : NULL;
}

/* JSON from the worker is read like any that comes from outside, by the schema. */
static bool read_specific(struct node *node, struct image_facts *facts, struct error *err)
{
    struct confined_state *state = node->state;
    with_co_lock (&state->lock) {
        struct confined_question question = {.op = CONFINED_INFO};
        int result = question_worker(node, &question, 1, err);
        if (result < 0)
            return fail_errno(err, result, "node '%s'", node->name);
        size_t length = state->link->answer.count;
        if (!length)
            return true;
        auto_free char *text = xcalloc(1, length + 1);
        memcpy(text, state->link->buffer, length); /* once: the worker may change it while we look */
        auto_json *json = confined_validate_text(text, length + 1) ? json_parse(text, length, err) : NULL;
        return json ? image_info_specific_from_json(json, &facts->specific, err)
                    : fail(err, EPROTO, "node '%s': the confined worker described its format in what is not JSON",
                           node->name);
    }
    return true;
}

static bool confined_info(struct node *node, struct image_facts *facts, struct error *err)
{
    const struct confined_state *state = node->state;
    const struct confined_facts *told = &state->facts;
    if (!read_specific(node, facts, err))
        return false;
    facts->cluster_size = told->cluster_size;
    facts->has_dirty_flag = told->flags & CONFINED_HAS_DIRTY_FLAG;
    facts->dirty_flag = told->flags & CONFINED_DIRTY;
    facts->compressed = told->flags & CONFINED_COMPRESSED;
    facts->encrypted = told->flags & CONFINED_ENCRYPTED;
    facts->backing_filename = text_or_null(told->backing_name);
    facts->backing_format = text_or_null(told->backing_format);
    if (facts->backing_filename)
        facts->full_backing_filename = name_resolve(node->filename, facts->backing_filename);
    return true;
}

static int confined_check(struct node *node, uint32_t repair, struct image_check *result, struct error *err)
{
    struct confined_state *state = node->state;
    if (repair)
        return fail(err, EROFS, "a confined image cannot be repaired"), -EROFS;
    with_co_lock (&state->lock) {
        struct confined_question question = {.op = CONFINED_CHECK};
        int code = question_worker(node, &question, CHECK_PATIENCE, err);
        if (code < 0) {
            if (state->link && *state->link->answer.u.message)
                fail(err, -code, "%s", state->link->answer.u.message);
            return code;
        }
        const int64_t *counters = state->link->answer.u.counters;
        result->image_end_offset = counters[CONFINED_IMAGE_END];
        result->total_clusters = counters[CONFINED_TOTAL];
        result->check_errors = counters[CONFINED_CHECK_ERRORS];
        result->allocated_clusters = counters[CONFINED_ALLOCATED_CLUSTERS];
        result->fragmented_clusters = counters[CONFINED_FRAGMENTED];
        result->compressed_clusters = counters[CONFINED_COMPRESSED_CLUSTERS];
        result->leaks = counters[CONFINED_LEAKS];
        result->corruptions = counters[CONFINED_CORRUPTIONS];
    }
    return 0;
}

static int64_t confined_allocated_size(struct node *node)
{
    struct node *file = node->file->child;
    return file->driver->allocated_size ? file->driver->allocated_size(file) : -ENOTSUP;
}

const char *confined_format(const struct node *node)
{
    const struct confined_state *state = node->state;
    return node->driver->open == confined_open ? state->facts.format : NULL;
}

bool confined_can_check(const struct node *node)
{
    const struct confined_state *state = node->state;
    return state->facts.flags & CONFINED_CAN_CHECK;
}

const struct block_driver confined_driver = {
    .name = "confined",
    .kind = DRIVER_FORMAT,
    .instance_size = sizeof(struct confined_state),
    .open = confined_open,
    .close = confined_close,
    .map = confined_map,
    .read_encoded = confined_read_encoded,
    .check = confined_check,
    .info = confined_info,
    .allocated_size = confined_allocated_size,
};
