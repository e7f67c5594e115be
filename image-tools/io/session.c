/* SPDX-License-Identifier: Apache-2.0 */
/* Commands around the image: open, close, sleep, help, quit. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "block/create.h"
#include "image-tools/io/io.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"

/* Opening --------------------------------------------------------------------------------------------------------- */

static bool read_mode(const struct io_open_options *options, struct open_mode *mode, struct error *err)
{
    bool writethrough;
    enum blockdev_aio_options aio;
    mode->read_only = options->read_only || options->snapshot;
    mode->force_share = options->force_share;
    const char *cache = options->cache ? options->cache : options->no_cache ? "none" : "writeback";
    if (!tool_cache_mode(cache, mode, &writethrough, err))
        return fail_prefix(err, "Invalid cache option: ");
    const char *name = options->aio ? options->aio : options->native_aio ? "native" : NULL;
    if (name && !blockdev_aio_options_parse(name, &aio))
        return fail(err, EINVAL, "Invalid aio option: %s (threads, native or io_uring)", name);
    mode->aio = name ? (int)aio + 1 : 0;
    const char *discard = options->discard ? options->discard : "unmap";
    mode->unmap = !strcmp(discard, "unmap") || !strcmp(discard, "on");
    if (!mode->unmap && strcmp(discard, "ignore") && strcmp(discard, "off"))
        return fail(err, EINVAL, "Invalid discard option: %s (ignore or unmap)", discard);
    if (mode->aio == BLOCKDEV_AIO_OPTIONS_NATIVE + 1 && !mode->direct)
        return fail(err, EINVAL, "aio=native needs cache.direct=on: add -n or -t none");
    return true;
}

/* -o KEY=VALUE,... and the path in one text. Owned. */
static char *join_options(const struct io_open_options *options, const char *path)
{
    auto_strbuf text = {0};
    for (size_t i = 0; i < options->options.count; i++)
        strbuf_printf(&text, "%s%s", i ? "," : "", options->options.items[i]);
    if (path) {
        auto_free char *escaped = keyval_escape(path);
        strbuf_printf(&text, "%sfile.filename=%s", text.length ? "," : "", escaped);
    }
    return strbuf_take(&text);
}

/* A filter above the image, in its place. */
static struct edge *put_copy_on_read(struct io *io, struct edge *image, const struct open_mode *mode, uint32_t perm,
                                     struct error *err)
{
    struct node *node = image->child;
    auto_free char *text = xasprintf("driver=copy-on-read,file=%s", node->name);
    node_ref(node);
    tool_close(image);
    struct edge *edge = tool_open(io->tool, text, true, NULL, mode, perm, err);
    node_unref(node);
    return edge;
}

static struct edge *open_plain(struct io *io, const struct io_open_options *options, const char *path,
                               const struct open_mode *mode, uint32_t perm, struct error *err)
{
    if (!options->options.count)
        return tool_open(io->tool, path, options->image_opts, options->format, mode, perm, err);
    auto_free char *text = join_options(options, path);
    return tool_open(io->tool, text, true, NULL, mode, perm, err);
}

static struct edge *open_edge(struct io *io, const struct io_open_options *options, const char *path, struct error *err)
{
    struct open_mode mode = {0};
    if (!read_mode(options, &mode, err))
        return NULL;
    if (options->snapshot && (options->image_opts || options->options.count))
        return fail_null(err, EINVAL, "-s needs a plain file name, not options");
    if (options->snapshot)
        return tool_open_overlay(io->tool, path, options->format, &mode, err);
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ;
    if (!options->read_only)
        perm |= BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE;
    if (!options->copy_on_read)
        return open_plain(io, options, path, &mode, perm, err);
    if (options->read_only)
        return fail_null(err, EINVAL, "-C and -r exclude each other: what is read would have to be written");
    struct edge *image = open_plain(io, options, path, &mode, 0, err);
    return image ? put_copy_on_read(io, image, &mode, perm, err) : NULL;
}

bool io_open_image(struct io *io, const struct io_open_options *options, const char *path)
{
    auto_error err = {0};
    if (io->edge) {
        log_error("file open already, try 'help close'");
        return false;
    }
    io->edge = open_edge(io, options, path, &err);
    io->read_only = options->read_only;
    if (!io->edge) {
        fail_prefix(&err, "can't open device %s: ", path ? path : "");
        log_failure(&err);
    }
    return io->edge != NULL;
}

void io_close_image(struct io *io)
{
    co_group_wait(&io->requests);
    tool_close(TAKE(io->edge));
}

static const struct tool_option open_options[] = {
    OPTION_ROW_FLAG('r', NULL, struct io_open_options, read_only, "read only"),
    OPTION_ROW_FLAG('s', NULL, struct io_open_options, snapshot, "write to a temporary overlay"),
    OPTION_ROW_FLAG('n', NULL, struct io_open_options, no_cache, "the same as -t none"),
    OPTION_ROW_FLAG('U', NULL, struct io_open_options, force_share, "even if another program is writing to it"),
    OPTION_ROW_FLAG('k', NULL, struct io_open_options, native_aio, "the same as -i native"),
    OPTION_ROW_TEXT('i', NULL, "MODE", struct io_open_options, aio, "threads, native or io_uring"),
    OPTION_ROW_TEXT('t', NULL, "MODE", struct io_open_options, cache, "cache mode (default: writeback)"),
    OPTION_ROW_TEXT('d', NULL, "MODE", struct io_open_options, discard, "ignore or unmap (default: unmap)"),
    OPTION_ROW_TEXTS('o', NULL, "KEY=VALUE,...", struct io_open_options, options, "options of the node"),
    OPTION_ROW_FLAG('C', NULL, struct io_open_options, copy_on_read,
                    "keep what is read from backing images in the image"),
    OPTIONS_END,
};

static bool open_run(struct io *io, void *values, const struct texts *arguments)
{
    struct io_open_options *options = values;
    if (!arguments->count && !options->options.count) {
        printf("open: a file name or -o is needed\n");
        return false;
    }
    return io_open_image(io, options, arguments->count ? arguments->items[0] : NULL);
}

static bool close_run(struct io *io, void *values, const struct texts *arguments)
{
    io_close_image(io);
    return true;
}

/* Others ---------------------------------------------------------------------------------------------------------- */

static bool sleep_run(struct io *io, void *values, const struct texts *arguments)
{
    char *end;
    unsigned long long ms = strtoull(arguments->items[0], &end, 0);
    if (*end || end == arguments->items[0] || ms > UINT64_MAX / 1000000) {
        printf("%s is not a valid number of milliseconds\n", arguments->items[0]);
        return false;
    }
    co_sleep_ns(ms * 1000000);
    return true;
}

/* As a crash would end it: for tests of what is left behind. Output that is ready is not lost with it. */
static bool abort_run(struct io *io, void *values, const struct texts *arguments)
{
    fflush(stdout);
    abort();
}

static bool sigraise_run(struct io *io, void *values, const struct texts *arguments)
{
    char *end;
    long number = strtol(arguments->items[0], &end, 0);
    if (*end || end == arguments->items[0] || number < 1 || number >= NSIG) {
        printf("%s is not a valid signal number\n", arguments->items[0]);
        return false;
    }
    fflush(stdout);
    return raise((int)number) == 0;
}

static bool quit_run(struct io *io, void *values, const struct texts *arguments)
{
    io->quit = true;
    return true;
}

static void print_usage(const struct io_command *command)
{
    bool has_options = command->options->letter != 0;
    printf("%s%s%s%s -- %s\n", command->name, has_options ? " [OPTION]..." : "", *command->arguments ? " " : "",
           command->arguments, command->summary);
}

static bool help_run(struct io *io, void *values, const struct texts *arguments)
{
    for (const struct io_command *const *command = io_commands; *command; command++) {
        if (!arguments->count) {
            print_usage(*command);
            continue;
        }
        if (strcmp((*command)->name, arguments->items[0]))
            continue;
        print_usage(*command);
        if ((*command)->alias)
            printf("Short form: %s\n", (*command)->alias);
        options_print_help(stdout, (*command)->options);
        printf("%s", (*command)->details ? (*command)->details : "");
        return true;
    }
    if (arguments->count) {
        printf("command %s not found\n", arguments->items[0]);
        return false;
    }
    printf("\nUse 'help COMMAND' for its options.\n");
    return true;
}

/* Rows ------------------------------------------------------------------------------------------------------------ */

const struct io_command io_open = {
    .name = "open",
    .alias = "o",
    .arguments = "[FILE]",
    .summary = "open an image for the other commands",
    .details = "Example: 'open -n -o driver=raw disk.img' bypasses the host's cache.\n",
    .options = open_options,
    .values_size = sizeof(struct io_open_options),
    .max_arguments = 1,
    .run = open_run,
};

const struct io_command io_close = {
    .name = "close",
    .alias = "c",
    .arguments = "",
    .summary = "close the image",
    .options = io_no_options,
    .needs_image = true,
    .run = close_run,
};

const struct io_command io_sleep = {
    .name = "sleep",
    .arguments = "MILLISECONDS",
    .summary = "wait; requests that were started go on",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 1,
    .run = sleep_run,
};

const struct io_command io_help = {
    .name = "help",
    .alias = "?",
    .arguments = "[COMMAND]",
    .summary = "list the commands, or explain one",
    .options = io_no_options,
    .max_arguments = 1,
    .run = help_run,
};

const struct io_command io_quit = {
    .name = "quit",
    .alias = "q",
    .arguments = "",
    .summary = "end the program",
    .options = io_no_options,
    .max_arguments = -1,
    .run = quit_run,
};

const struct io_command io_abort = {
    .name = "abort",
    .arguments = "",
    .summary = "end as by a crash",
    .options = io_no_options,
    .run = abort_run,
};

const struct io_command io_sigraise = {
    .name = "sigraise",
    .arguments = "SIGNAL",
    .summary = "send a signal, by its number, to the program itself",
    .options = io_no_options,
    .min_arguments = 1,
    .max_arguments = 1,
    .run = sigraise_run,
};
