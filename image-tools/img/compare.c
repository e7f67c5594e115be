/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img compare: do two images have the same content? Where both are known to read as zeroes nothing is read. Several
 * pieces are compared at the same time; they are handed out in order, and after a difference no more of them, so the
 * lowest offset found is the first difference.
 *
 * The part by which one image is longer must read as zeroes, unless the comparison is strict: then sizes and allocation
 * must be the same too.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/co.h"
#include "base/is_zero.h"
#include "base/log.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/progress.h"

#define PIECE (1 * MiB)
#define WORKERS 8
#define SECTOR 512 /* differences are reported at multiples of this */

enum { STATUS_SAME, STATUS_DIFFERENT, STATUS_OPEN_FAILED, STATUS_MAP_FAILED, STATUS_READ_FAILED };

struct compare_options {
    const char *format, *second_format, *cache;
    bool progress, quiet, strict, force_share, image_opts, confined;
    struct texts objects;
};

static const struct tool_option compare_options[] = {
    OPTION_ROW_TEXT('f', "a-format", "FMT", struct compare_options, format, "format of the first image"),
    OPTION_ROW_TEXT('F', "b-format", "FMT", struct compare_options, second_format, "format of the second image"),
    OPTION_ROW_FLAG('s', "strict", struct compare_options, strict, "sizes and allocation must be the same, too"),
    OPTION_ROW_TEXT('T', "cache", "MODE", struct compare_options, cache,
                    "cache mode to open the images with (default: writeback)"),
    OPTION_ROW_FLAG('p', "progress", struct compare_options, progress, "show progress"),
    OPTION_ROW_FLAG('q', "quiet", struct compare_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct compare_options, force_share,
                    "open the images even if another program is writing to them"),
    OPTION_ROW_FLAG(0, "confined", struct compare_options, confined,
                    "parse the images in a process of its own that can do nothing else"),
    OPTION_ROW_FLAG(0, "image-opts", struct compare_options, image_opts, "the FILEs are driver=FORMAT,..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct compare_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct comparison {
    struct edge *edges[2];
    const char *names[2];
    bool strict;
    uint64_t next, common, end; /* pieces are handed out from `next`; beyond `common` only the longer one exists */
    struct co_group group;
    struct co_mutex lock; /* of handing out */
    uint64_t difference;  /* UINT64_MAX: none so far */
    bool status_differs;  /* the difference is one of allocation */
    int failure;          /* exit status */
    struct progress progress;
};

/* A piece to be compared by reading. `single`: which of the two to check for zeroes, -1 for both against each other. */
struct piece {
    uint64_t offset, length;
    int single;
};

static void found_difference(struct comparison *all, uint64_t offset, bool of_status)
{
    if (offset >= all->difference)
        return;
    all->difference = offset;
    all->status_differs = of_status;
}

static void found_failure(struct comparison *all, int status, const char *what, int which, uint64_t offset, int error)
{
    if (!all->failure)
        log_error("%s of '%s' at offset %" PRIu64 " failed: %s", what, all->names[which], offset, strerror(-error));
    all->failure = status;
}

static int ask_status(struct comparison *all, int which, uint64_t offset, uint64_t length, struct block_status *status)
{
    int result = block_status(all->edges[which], offset, length, BLOCK_STATUS_PRECISE, status);
    if (result < 0)
        found_failure(all, STATUS_MAP_FAILED, "Reading the map", which, offset, result);
    return result;
}

/* Looks at the maps from all->next on. true: `piece` must be read. false: go on, or the end. Holds all->lock. */
static bool find_piece(struct comparison *all, struct piece *piece)
{
    struct block_status status[2];
    uint64_t offset = all->next;
    bool is_common = offset < all->common;
    uint64_t length = (is_common ? all->common : all->end) - offset;
    int longer = all->edges[0]->child->size > all->common ? 0 : 1;
    for (int which = 0; which < 2; which++) {
        if (!is_common && which != longer)
            continue;
        if (ask_status(all, which, offset, length, &status[which]) < 0)
            return false;
        length = status[which].length;
    }
    bool is_zero = is_common ? status[0].zero && status[1].zero : status[longer].zero;
    if (!is_zero)
        length = MIN(length, PIECE);
    all->next = offset + length;
    if (is_common && all->strict && status[0].allocated != status[1].allocated) {
        found_difference(all, offset, true);
        return false;
    }
    if (is_zero)
        return false;
    int single = !is_common ? longer : status[0].zero ? 1 : status[1].zero ? 0 : -1;
    *piece = (struct piece){offset, length, single};
    return true;
}

static bool is_done(const struct comparison *all)
{
    return all->failure || all->difference != UINT64_MAX || all->next >= all->end;
}

static bool next_piece(struct comparison *all, struct piece *piece)
{
    bool found = false;
    co_mutex_lock(&all->lock);
    while (!found && !is_done(all)) {
        progress_set(&all->progress, all->next, all->end);
        found = find_piece(all, piece);
    }
    co_mutex_unlock(&all->lock);
    return found;
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += SECTOR) {
        size_t size = MIN(length - at, (uint64_t)SECTOR);
        if (b ? memcmp(a + at, b + at, size) != 0 : !buffer_is_zero(a + at, size))
            return at;
    }
    return length;
}

static bool read_into(struct comparison *all, int which, const struct piece *piece, uint8_t *buffer)
{
    int result = block_read_buffer(all->edges[which], piece->offset, buffer, piece->length);
    if (result < 0)
        found_failure(all, STATUS_READ_FAILED, "Reading", which, piece->offset, result);
    return result >= 0;
}

static bool compare_piece(struct comparison *all, const struct piece *piece, uint8_t *const buffers[2])
{
    if (piece->single >= 0) {
        uint8_t *buffer = buffers[piece->single];
        if (!read_into(all, piece->single, piece, buffer))
            return false;
        if (!buffer_is_zero(buffer, piece->length))
            found_difference(all, piece->offset + first_difference(buffer, NULL, piece->length), false);
        return true;
    }
    if (!read_into(all, 0, piece, buffers[0]) || !read_into(all, 1, piece, buffers[1]))
        return false;
    if (memcmp(buffers[0], buffers[1], piece->length))
        found_difference(all, piece->offset + first_difference(buffers[0], buffers[1], piece->length), false);
    return true;
}

static void worker(void *arg)
{
    struct comparison *all = arg;
    auto_free uint8_t *a = block_alloc_buffer(all->edges[0], PIECE);
    auto_free uint8_t *b = block_alloc_buffer(all->edges[1], PIECE);
    struct piece piece;
    if (!a || !b)
        found_failure(all, STATUS_READ_FAILED, "Reading", 0, all->next, -ENOMEM);
    while (a && b && next_piece(all, &piece)) {
        if (!compare_piece(all, &piece, (uint8_t *const[2]){a, b}))
            break;
    }
}

static int report(const struct comparison *all, bool quiet)
{
    if (all->failure)
        return all->failure;
    if (all->difference == UINT64_MAX) {
        if (!quiet)
            printf("Images are identical.\n");
        return STATUS_SAME;
    }
    if (!quiet && all->status_differs)
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", all->difference);
    else if (!quiet)
        printf("Content mismatch at offset %" PRIu64 "!\n", all->difference);
    return STATUS_DIFFERENT;
}

static int compare_edges(struct tool *tool, struct comparison *all, const struct compare_options *options)
{
    uint64_t sizes[2] = {all->edges[0]->child->size, all->edges[1]->child->size};
    all->strict = options->strict;
    if (sizes[0] != sizes[1] && options->strict) {
        if (!options->quiet)
            printf("Strict mode: Image size mismatch!\n");
        return STATUS_DIFFERENT;
    }
    if (sizes[0] != sizes[1] && !options->quiet)
        printf("Warning: Image size mismatch!\n");
    all->common = MIN(sizes[0], sizes[1]);
    all->end = MAX(sizes[0], sizes[1]);
    all->difference = UINT64_MAX;
    co_mutex_init(&all->lock);
    co_group_init(&all->group);
    progress_start(&all->progress, tool->loop, options->progress && !options->quiet, false);
    for (int i = 0; i < WORKERS; i++)
        co_spawn(tool->loop, &all->group, worker, all);
    co_group_wait(&all->group);
    progress_end(&all->progress, !all->failure);
    return report(all, options->quiet);
}

static int compare_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct compare_options *options = values;
    tool->confined = options->confined;
    const char *formats[2] = {options->format, options->second_format};
    struct comparison all = {0};
    auto_error err = {0};
    bool writethrough;
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    bool ok = !options->cache || tool_cache_mode(options->cache, &mode, &writethrough, &err);
    for (int which = 0; which < 2 && ok; which++) {
        all.names[which] = arguments->items[which];
        all.edges[which] = tool_open(tool, arguments->items[which], options->image_opts, formats[which], &mode,
                                     BLOCK_PERM_CONSISTENT_READ, &err);
        ok = all.edges[which] != NULL;
    }
    int status = ok ? compare_edges(tool, &all, options) : img_fail(&err, STATUS_OPEN_FAILED);
    tool_close(all.edges[0]);
    tool_close(all.edges[1]);
    return status;
}

const struct img_command img_compare = {
    .name = "compare",
    .arguments = "FILE1 FILE2",
    .summary = "Compare the content of two images",
    .details = "Exit status: 0 the same, 1 different, 2 an image cannot be opened, 3 a map cannot be read, 4 data "
               "cannot be read.\n",
    .options = compare_options,
    .values_size = sizeof(struct compare_options),
    .usage_status = STATUS_OPEN_FAILED,
    .min_arguments = 2,
    .max_arguments = 2,
    .run = compare_run,
};
