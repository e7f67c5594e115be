/* SPDX-License-Identifier: Apache-2.0 */
/* img amend: changes the options that an image was created with, in place. */
#include <stdio.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "block/request.h"
#include "image-tools/img/command.h"
#include "image-tools/img/new_image.h"
#include "image-tools/img/progress.h"
#include "qmp/schema/json.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/schema.h"

struct amend_options {
    const char *format, *cache;
    struct texts options;
    bool image_opts, progress, quiet, force;
    struct texts objects;
};

static const struct tool_option amend_options[] = {
    OPTION_ROW_TEXTS('o', "options", "KEY=VALUE[,...]", struct amend_options, options,
                     "what is to change; '-f FMT -o help' lists what can"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct amend_options, format, "format of the image (default: probed)"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct amend_options, cache,
                    "cache mode to open the image with (default: writeback)"),
    OPTION_ROW_FLAG(0, "force", struct amend_options, force, "allow what can make the data unreadable"),
    OPTION_ROW_FLAG('p', "progress", struct amend_options, progress, "show progress (default on a terminal)"),
    OPTION_ROW_FLAG('q', "quiet", struct amend_options, quiet, "print nothing but errors"),
    OPTION_ROW_FLAG(0, "image-opts", struct amend_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct amend_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

static bool can_amend(const struct block_driver *driver, struct error *err)
{
    return driver->amend || fail(err, ENOTSUP, "Format driver '%s' does not support option amendment", driver->name);
}

static bool print_amend_help(struct tool *tool, const struct amend_options *options, struct error *err)
{
    const struct block_driver *driver = new_image_format(tool, options->format, err);
    if (!driver || !can_amend(driver, err))
        return false;
    auto_free char *help = schema_help(driver->amend->options_type, NULL);
    printf("Amend options for '%s':\n%s", driver->name, help);
    return true;
}

static void on_progress(void *user, uint64_t done, uint64_t total)
{
    progress_set(user, done, total);
}

static bool amend(struct edge *edge, const struct amend_options *options, struct progress *progress, struct error *err)
{
    const struct block_driver *driver = edge->child->driver;
    void *changes = NULL;
    if (!can_amend(driver, err))
        return false;
    auto_json *tree = new_image_join(&options->options, err);
    if (!tree || !schema_read(driver->amend->options_type, tree, SCHEMA_INPUT_KEYVAL, &changes, err))
        return false;
    node_drain_begin(edge->child);
    bool ok = driver->amend->amend(edge->child, changes, options->force, on_progress, progress, err);
    node_drain_end(edge->child);
    schema_free(driver->amend->options_type, changes);
    int result = ok ? block_flush(edge) : 0;
    return ok && (!result || fail_errno(err, -result, "Could not write the image"));
}

static int amend_image(struct tool *tool, const struct amend_options *options, const char *name)
{
    auto_error err = {0};
    bool writethrough;
    struct open_mode mode = {.unmap = true};
    if (options->cache && !tool_cache_mode(options->cache, &mode, &writethrough, &err))
        return img_fail(&err, 1);
    struct edge *edge = tool_open(tool, name, options->image_opts, options->format, &mode,
                                  BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE, &err);
    if (!edge)
        return img_fail(&err, 1);
    struct progress progress = {0};
    progress_start(&progress, tool->loop, options->progress && !options->quiet, !options->quiet);
    bool ok = amend(edge, options, &progress, &err);
    progress_end(&progress, ok);
    tool_close(edge);
    return ok ? 0 : img_fail(&err, 1);
}

static int amend_run(struct tool *tool, void *values, const struct texts *arguments)
{
    const struct amend_options *options = values;
    auto_error err = {0};
    if (!options->options.count) {
        log_error("Must specify options (-o)");
        return 1;
    }
    for (size_t i = 0; i < options->options.count; i++) {
        if (!keyval_wants_help(options->options.items[i]))
            continue;
        if (!options->format) {
            log_error("'-o help' needs -f FMT: each format has its own options");
            return 1;
        }
        return print_amend_help(tool, options, &err) ? 0 : img_fail(&err, 1);
    }
    if (!arguments->count) {
        log_error("Expecting one image file name");
        return 1;
    }
    return amend_image(tool, options, arguments->items[0]);
}

const struct img_command img_amend = {
    .name = "amend",
    .arguments = "FILE",
    .summary = "Change the options of an image",
    .options = amend_options,
    .values_size = sizeof(struct amend_options),
    .max_arguments = 1,
    .run = amend_run,
};
