/* SPDX-License-Identifier: Apache-2.0 */
/*
 * img rebase: puts an image on another backing file.
 *
 * The safe way keeps what a guest reads: where the image itself has nothing and the old and the new backing file
 * differ, the old content is copied into the image first; the name in the header changes last, when all of that is
 * durable. A crash before leaves an image on its old backing file, merely larger. Where the new backing file is a part
 * of the old chain, what comes from there need not be compared.
 *
 * The unsafe way (-u) changes the name and looks at nothing.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/is_zero.h"
#include "base/log.h"
#include "base/math.h"
#include "block/create.h"
#include "block/query.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/progress.h"

#define PIECE (2 * MiB)

struct rebase_options {
    const char *format, *backing, *backing_format, *cache, *source_cache;
    bool unsafe, progress, quiet, force_share, image_opts, compress;
    struct texts objects;
};

static const struct tool_option rebase_options[] = {
    OPTION_ROW_TEXT('b', "backing", "FILE", struct rebase_options, backing,
                    "the new backing file; \"\": none, the image becomes independent"),
    OPTION_ROW_TEXT('F', "backing-format", "FMT", struct rebase_options, backing_format, "its format"),
    OPTION_ROW_TEXT('B', NULL, "FMT", struct rebase_options, backing_format, "the same as -F"),
    OPTION_ROW_FLAG('u', "backing-unsafe", struct rebase_options, unsafe,
                    "only change the name: the content is the same already, or the old backing file was moved"),
    OPTION_ROW_FLAG('c', "compress", struct rebase_options, compress, "compress what is copied into the image"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct rebase_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct rebase_options, cache, "cache mode of the image (default: writeback)"),
    OPTION_ROW_TEXT('T', "backing-cache", "MODE", struct rebase_options, source_cache,
                    "cache mode of the new backing file (default: writeback)"),
    OPTION_ROW_TEXT(0, "source-cache", "MODE", struct rebase_options, source_cache, "the same as --backing-cache"),
    OPTION_ROW_FLAG('p', "progress", struct rebase_options, progress, "show progress (default on a terminal)"),
    OPTION_ROW_FLAG('q', "quiet", struct rebase_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG('U', "force-share", struct rebase_options, force_share,
                    "open the new backing file even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "image-opts", struct rebase_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct rebase_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct rebase {
    struct edge *image, *now; /* now: the new backing file, NULL: none */
    struct node *common;      /* of the old chain: the same image as `now`; NULL: none */
    uint64_t unit;            /* what the image allocates at least */
    bool compress;
    uint8_t *old_data, *new_data;
};

/* The bytes of a backing edge; zeroes behind its end, and without one. */
static int read_below(struct edge *below, uint64_t offset, uint64_t length, uint8_t *buffer)
{
    uint64_t size = below ? below->child->size : 0;
    uint64_t there = offset < size ? MIN(length, size - offset) : 0;
    memset(buffer + there, 0, length - there);
    return there ? block_read_buffer(below, offset, buffer, there) : 0;
}

static int status_below(struct edge *below, uint64_t offset, uint64_t length, struct block_status *status)
{
    uint64_t size = below ? below->child->size : 0;
    if (offset < size)
        return block_status(below, offset, MIN(length, size - offset), BLOCK_STATUS_PRECISE, status);
    *status = (struct block_status){.length = length, .zero = true};
    return 0;
}

/* Does the old chain have these bytes from the image that is the new backing file, or from below it? */
static bool comes_from_common(const struct rebase *all, const struct block_status *status)
{
    if (!all->common)
        return false;
    unsigned depth = 0;
    for (struct node *node = all->image->child->backing->child; node && node != all->common; node = node_backing(node))
        depth++;
    return status->depth >= depth;
}

/* Compression takes whole clusters; what is less (of a cluster that the image has in part) is written as it is. */
static int write_old(struct rebase *all, uint64_t offset, const uint8_t *data, uint64_t length)
{
    bool is_whole = offset % all->unit == 0 && (length == all->unit || offset + length == all->image->child->size);
    if (buffer_is_zero(data, length))
        return block_zero(all->image, offset, length, REQUEST_MAY_UNMAP);
    return block_write_buffer(all->image, offset, data, length,
                              all->compress && is_whole ? (uint32_t)REQUEST_COMPRESSED : 0);
}

/* Copies the units in which old and new differ, each run of them by one write. */
static int copy_differences(struct rebase *all, uint64_t offset, uint64_t length)
{
    int result = read_below(all->image->child->backing, offset, length, all->old_data);
    if (!result)
        result = read_below(all->now, offset, length, all->new_data);
    uint64_t run = 0; /* length of the run in front of `at` */
    for (uint64_t at = 0; at <= length && !result;) {
        uint64_t unit = MIN(all->unit - (offset + at) % all->unit, length - at);
        bool differs = unit && memcmp(all->old_data + at, all->new_data + at, unit);
        bool one_by_one = all->compress && run;
        if (run && (!differs || one_by_one)) {
            result = write_old(all, offset + at - run, all->old_data + at - run, run);
            run = 0;
        }
        if (differs)
            run += unit;
        if (!unit)
            break;
        at += unit;
    }
    return result;
}

/* One piece from `offset` on; *done: its length. */
static int rebase_piece(struct rebase *all, uint64_t offset, uint64_t *done)
{
    struct block_status mine, old, new;
    uint64_t length = all->image->child->size - offset;
    int result = block_status(all->image, offset, length, BLOCK_STATUS_TOP_ONLY, &mine);
    *done = mine.length;
    if (result < 0 || mine.allocated)
        return result;
    result = status_below(all->image->child->backing, offset, mine.length, &old);
    if (result < 0)
        return result;
    *done = old.length;
    if (comes_from_common(all, &old))
        return 0;
    result = status_below(all->now, offset, old.length, &new);
    if (result < 0)
        return result;
    *done = MIN(old.length, new.length);
    if (old.zero && new.zero)
        return 0;
    /* Whole units, though the map may change inside one. */
    uint64_t end = MIN(round_up(offset + MIN(*done, PIECE), all->unit), offset + mine.length);
    *done = MIN(end - offset, PIECE);
    return copy_differences(all, offset, *done);
}

static bool copy_all(struct rebase *all, struct progress *progress, struct error *err)
{
    uint64_t size = all->image->child->size;
    for (uint64_t offset = 0, done; offset < size; offset += done) {
        int result = rebase_piece(all, offset, &done);
        if (result < 0)
            return fail_errno(err, -result, "error while rebasing at offset %" PRIu64, offset);
        progress_set(progress, offset + done, size);
    }
    int result = block_flush(all->image);
    return !result || fail_errno(err, -result, "error while flushing the image");
}

static struct node *find_common(struct node *old, const struct node *now)
{
    const struct node *file = now->file ? now->file->child : now;
    for (; old; old = node_backing(old)) {
        const struct node *its_file = old->file ? old->file->child : old;
        if (file->host_inode && file->host_inode == its_file->host_inode && file->host_device == its_file->host_device)
            return old;
    }
    return NULL;
}

static bool open_new_backing(struct tool *tool, const struct rebase_options *options, struct rebase *all,
                             struct error *err)
{
    bool writethrough;
    struct open_mode mode = {.read_only = true, .force_share = options->force_share};
    if (options->source_cache && !tool_cache_mode(options->source_cache, &mode, &writethrough, err))
        return false;
    if (!*options->backing)
        return true;
    auto_free char *name = name_resolve(all->image->child->filename, options->backing);
    all->now = tool_open(tool, name, false, options->backing_format, &mode, BLOCK_PERM_CONSISTENT_READ, err);
    if (!all->now)
        return fail_prefix(err, "Could not open new backing file '%s': ", options->backing);
    if (all->image->child->backing)
        all->common = find_common(all->image->child->backing->child, all->now->child);
    return true;
}

static bool rebase_safely(struct tool *tool, const struct rebase_options *options, struct rebase *all,
                          struct error *err)
{
    if (!open_new_backing(tool, options, all, err))
        return false;
    struct progress progress = {0};
    all->unit = MAX(all->image->child->limits.zero_alignment, 4096u);
    uint64_t cluster = node_cluster_size(all->image->child);
    if (all->compress)
        all->unit = MAX(cluster, 4096u);
    auto_free uint8_t *old_data = block_alloc_buffer(all->image, PIECE);
    auto_free uint8_t *new_data = block_alloc_buffer(all->image, PIECE);
    if (!old_data || !new_data)
        return fail(err, ENOMEM, "out of memory for buffers");
    all->old_data = old_data;
    all->new_data = new_data;
    progress_start(&progress, tool->loop, options->progress && !options->quiet, !options->quiet);
    bool ok = copy_all(all, &progress, err);
    progress_end(&progress, ok);
    return ok;
}

static bool change_name(struct edge *image, const struct rebase_options *options, struct error *err)
{
    struct node *node = image->child;
    const char *name = *options->backing ? options->backing : NULL;
    bool ok = false;
    if (!node->driver->change_backing)
        fail(err, ENOTSUP, "Operation not supported (images of format '%s' have no backing file)", node->driver->name);
    else if (name && !options->backing_format)
        fail(err, EINVAL, "backing format must be specified");
    else
        ok = node->driver->change_backing(node, name, options->backing_format, err);
    return ok || fail_prefix(err, "Could not change the backing file to '%s': ", options->backing);
}

static bool check_options(struct tool *tool, const struct rebase_options *options, struct error *err)
{
    if (!options->backing && !options->unsafe)
        return fail(err, EINVAL, "Must specify backing file (-b) or use unsafe mode (-u)");
    if (options->backing_format && !graph_driver(tool->graph, options->backing_format))
        return fail(err, EINVAL, "Invalid format name: '%s'", options->backing_format);
    if (options->compress && options->unsafe)
        return fail(err, EINVAL, "-c has no effect with -u: nothing is copied");
    return true;
}

static int rebase_run(struct tool *tool, void *values, const struct texts *arguments)
{
    struct rebase_options *options = values;
    auto_error err = {0};
    bool writethrough;
    struct open_mode mode = {.unmap = true, .no_backing = options->unsafe};
    struct rebase all = {.compress = options->compress};
    if (!check_options(tool, options, &err) ||
        (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, &err)))
        return img_fail(&err, 1);
    if (!options->backing)
        options->backing = "";
    all.image = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode,
                          BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, &err);
    if (!all.image)
        return img_fail(&err, 1);
    bool can = all.image->child->driver->change_backing != NULL;
    if (all.compress && !node_compresses(all.image->child))
        can = fail(&err, ENOTSUP, "Compression not supported for this file format");
    bool ok = !error_is_set(&err) && (options->unsafe || !can || rebase_safely(tool, options, &all, &err)) &&
              change_name(all.image, options, &err);
    tool_close(all.now);
    tool_close(all.image);
    return ok ? 0 : img_fail(&err, 1);
}

const struct img_command img_rebase = {
    .name = "rebase",
    .arguments = "FILE",
    .summary = "Put an image on another backing file",
    .details = "Without -u, what a guest reads stays the same: what the backing files differ in is copied into FILE.\n"
               "A relative name of the backing file is looked up from FILE's folder.\n",
    .options = rebase_options,
    .values_size = sizeof(struct rebase_options),
    .min_arguments = 1,
    .max_arguments = 1,
    .run = rebase_run,
};
