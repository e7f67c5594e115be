/* SPDX-License-Identifier: Apache-2.0 */
/* img bitmap: changes the persistent dirty bitmaps of an image, by several actions in their order. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "block/dirty_bitmap.h"
#include "block/request.h"
#include "image-tools/img/command.h"

struct bitmap_options {
    const char *format, *granularity, *source, *source_format;
    struct actions actions;
    bool image_opts;
    struct texts objects;
};

static const struct tool_option bitmap_options[] = {
    OPTION_ROW_ACTION(0, "add", NULL, struct bitmap_options, actions, "make the bitmap"),
    OPTION_ROW_ACTION(0, "remove", NULL, struct bitmap_options, actions, "delete it"),
    OPTION_ROW_ACTION(0, "clear", NULL, struct bitmap_options, actions, "mark everything as clean"),
    OPTION_ROW_ACTION(0, "enable", NULL, struct bitmap_options, actions, "record writes from now on"),
    OPTION_ROW_ACTION(0, "disable", NULL, struct bitmap_options, actions, "stop recording"),
    OPTION_ROW_ACTION(0, "merge", "SOURCE", struct bitmap_options, actions,
                      "add what is dirty in the bitmap SOURCE, of this image or of that of -b"),
    OPTION_ROW_TEXT('g', "granularity", "SIZE", struct bitmap_options, granularity,
                    "with --add: bytes that one bit stands for (default: the cluster size, at most 64k)"),
    OPTION_ROW_TEXT('b', "source-file", "FILE", struct bitmap_options, source, "image with the bitmap to merge"),
    OPTION_ROW_TEXT('F', "source-format", "FMT", struct bitmap_options, source_format, "format of that image"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct bitmap_options, format, "format of the image (default: probed)"),
    OPTION_ROW_FLAG(0, "image-opts", struct bitmap_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct bitmap_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct bitmap_change {
    struct edge *edge, *source; /* source: of -b, else the same */
    const char *name;
    uint64_t granularity;
};

static struct dirty_bitmap *find(struct edge *edge, const char *name, unsigned wishes, struct error *err)
{
    struct dirty_bitmap *bitmap = dirty_bitmap_find(edge->child, name);
    if (!bitmap)
        return fail_null(err, ENOENT, "Dirty bitmap '%s' not found", name);
    return dirty_bitmap_check(bitmap, wishes, err) ? bitmap : NULL;
}

static bool add(struct bitmap_change *all, struct error *err)
{
    struct node *node = all->edge->child;
    if (dirty_bitmap_find(node, all->name))
        return fail(err, EEXIST, "Bitmap already exists: %s", all->name);
    if (!node->driver->bitmaps)
        return fail(err, ENOTSUP, "Can't store persistent bitmaps: images of format '%s' cannot have any",
                    node->driver->name);
    if (all->granularity > UINT32_MAX)
        return fail(err, EINVAL, "the granularity must not exceed 2 GiB");
    struct dirty_bitmap *bitmap = dirty_bitmap_new(node, all->name, (uint32_t)all->granularity, err);
    if (!bitmap)
        return false;
    if (!node->driver->bitmaps->can_store(node, all->name, bitmap->granularity, err)) {
        dirty_bitmap_free(bitmap);
        return false;
    }
    bitmap->persistent = bitmap->recording = true;
    return true;
}

static bool remove_bitmap(struct bitmap_change *all, struct error *err)
{
    struct dirty_bitmap *bitmap = find(all->edge, all->name, DIRTY_BITMAP_REMOVABLE, err);
    if (!bitmap)
        return false;
    const struct bitmap_ops *ops = all->edge->child->driver->bitmaps;
    if (bitmap->persistent && ops && !ops->remove(all->edge->child, bitmap, err))
        return false;
    dirty_bitmap_free(bitmap);
    return true;
}

static bool clear(struct bitmap_change *all, struct error *err)
{
    struct dirty_bitmap *bitmap = find(all->edge, all->name, DIRTY_BITMAP_DEFAULT, err);
    if (bitmap)
        dirty_bitmap_clear(bitmap);
    return bitmap != NULL;
}

static bool set_recording(struct bitmap_change *all, bool recording, struct error *err)
{
    struct dirty_bitmap *bitmap = find(all->edge, all->name, DIRTY_BITMAP_DEFAULT, err);
    if (bitmap)
        bitmap->recording = recording;
    return bitmap != NULL;
}

static bool merge(struct bitmap_change *all, const char *source, struct error *err)
{
    struct dirty_bitmap *to = find(all->edge, all->name, DIRTY_BITMAP_DEFAULT, err);
    struct dirty_bitmap *from = to ? find(all->source, source, DIRTY_BITMAP_CONSISTENT, err) : NULL;
    return from && dirty_bitmap_merge(to, from, err);
}

static bool act(struct bitmap_change *all, const struct action *action, struct error *err)
{
    bool ok = !strcmp(action->name, "add")       ? add(all, err)
              : !strcmp(action->name, "remove")  ? remove_bitmap(all, err)
              : !strcmp(action->name, "clear")   ? clear(all, err)
              : !strcmp(action->name, "enable")  ? set_recording(all, true, err)
              : !strcmp(action->name, "disable") ? set_recording(all, false, err)
                                                 : merge(all, action->argument, err);
    return ok || fail_prefix(err, "Operation %s on bitmap %s failed: ", action->name, all->name);
}

static bool is_given(const struct actions *actions, const char *name)
{
    const struct action *action;
    vec_for_each (action, actions) {
        if (!strcmp(action->name, name))
            return true;
    }
    return false;
}

static bool check_combinations(const struct bitmap_options *options)
{
    const char *problem =
        !options->actions.count ? "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
        : options->granularity && !is_given(&options->actions, "add") ? "granularity only supported with --add"
        : options->source && !is_given(&options->actions, "merge")
            ? "Merge bitmap source file only supported with --merge"
        : options->source_format && !options->source ? "-F is only meaningful with -b"
                                                     : NULL;
    if (problem)
        log_error("%s", problem);
    return !problem;
}

static bool change(struct tool *tool, const struct bitmap_options *options, struct bitmap_change *all,
                   struct error *err)
{
    if (options->granularity && !img_size("granularity", options->granularity, &all->granularity, err))
        return false;
    if (options->source) {
        struct open_mode mode = {.read_only = true, .no_backing = true};
        all->source =
            tool_open(tool, options->source, false, options->source_format, &mode, BLOCK_PERM_CONSISTENT_READ, err);
        if (!all->source)
            return false;
    }
    const struct action *action;
    vec_for_each (action, &options->actions) {
        if (!act(all, action, err))
            return false;
    }
    const struct bitmap_ops *ops = all->edge->child->driver->bitmaps;
    if (ops && !ops->store_all(all->edge->child, err))
        return false;
    int result = block_flush(all->edge);
    return !result || fail_errno(err, -result, "Could not write the bitmaps");
}

static int bitmap_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct bitmap_options *options = values;
    auto_error err = {0};
    if (!check_combinations(options))
        return 1;
    struct open_mode mode = {.no_backing = true};
    struct bitmap_change all = {.name = arguments->items[1]};
    all.edge = all.source = tool_open(tool, arguments->items[0], options->image_opts, options->format, &mode,
                                      BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE, &err);
    if (!all.edge)
        return img_fail(&err, 1);
    bool ok = change(tool, options, &all, &err);
    if (all.source != all.edge)
        tool_close(all.source);
    tool_close(all.edge);
    return ok ? 0 : img_fail(&err, 1);
}

const struct img_command img_bitmap = {
    .name = "bitmap",
    .arguments = "FILE BITMAP",
    .summary = "Change a persistent dirty bitmap of an image",
    .details = "Several actions may be given; they are done in their order.\n",
    .options = bitmap_options,
    .values_size = sizeof(struct bitmap_options),
    .min_arguments = 2,
    .max_arguments = 2,
    .run = bitmap_run,
};
