/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-io: sends single requests to an image, by commands on its command line or from standard input. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/trace.h"
#include "image-tools/io/io.h"

struct io_options {
    struct io_open_options open;
    struct texts commands;
    const char *trace;
    bool misalign, version;
    struct texts objects;
};

static const struct tool_option io_options[] = {
    OPTION_ROW_TEXTS('c', "cmd", "COMMAND", struct io_options, commands,
                     "run this command; may be repeated (default: read commands from standard input)"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct io_options, open.format, "format of the image (default: probed)"),
    OPTION_ROW_FLAG('r', "read-only", struct io_options, open.read_only, "open the image read-only"),
    OPTION_ROW_FLAG('s', "snapshot", struct io_options, open.snapshot, "write to a temporary overlay"),
    OPTION_ROW_FLAG('n', "nocache", struct io_options, open.no_cache, "the same as -t none"),
    OPTION_ROW_FLAG('m', "misalign", struct io_options, misalign, "use buffers that direct I/O cannot use as they are"),
    OPTION_ROW_FLAG('k', "native-aio", struct io_options, open.native_aio, "the same as -i native"),
    OPTION_ROW_TEXT('i', "aio", "MODE", struct io_options, open.aio, "threads, native or io_uring"),
    OPTION_ROW_TEXT('t', "cache", "MODE", struct io_options, open.cache, "cache mode (default: writeback)"),
    OPTION_ROW_TEXT('d', "discard", "MODE", struct io_options, open.discard, "ignore or unmap (default: unmap)"),
    OPTION_ROW_FLAG('U', "force-share", struct io_options, open.force_share,
                    "open the image even if another program is writing to it"),
    OPTION_ROW_FLAG(0, "image-opts", struct io_options, open.image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXT('T', "trace", "GLOB[,...]", struct io_options, trace, "switch trace points on; 'help' lists them"),
    OPTION_ROW_FLAG('V', "version", struct io_options, version, "print the version and exit"),
    OPTION_ROW_FLAG('C', "copy-on-read", struct io_options, open.copy_on_read,
                    "keep what is read from backing images in the image"),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct io_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTIONS_END,
};

struct invocation {
    struct io_options *options;
    const char *path; /* NULL: none */
};

static void print_help(void)
{
    printf("Usage: %s [OPTION]... [-c COMMAND]... [FILE]\nSends requests to a disk image.\n\n", log_program());
    options_print_help(stdout, io_options);
    printf("\n'%s -c help' lists the commands.\n", log_program());
}

/* A line from standard input, read on the worker pool so that requests in flight go on. */
struct line_read {
    char *line;
    size_t capacity;
    ssize_t length;
};

static void read_line(void *arg)
{
    struct line_read *read = arg;
    read->length = getline(&read->line, &read->capacity, stdin);
}

static bool run_interactive(struct io *io)
{
    struct line_read read = {0};
    bool good = true;
    while (!io->quit) {
        printf("%s> ", log_program());
        fflush(stdout);
        co_offload(read_line, &read);
        if (read.length < 0)
            break;
        good &= io_run_line(io, read.line);
    }
    free(read.line);
    return good;
}

static bool run_commands(struct io *io, const struct texts *commands)
{
    bool good = true;
    const char **line;
    if (!commands->count)
        return run_interactive(io);
    vec_for_each (line, commands) {
        if (!io->quit)
            good &= io_run_line(io, *line);
    }
    return good;
}

static int io_main(struct tool *tool)
{
    const struct invocation *invocation = tool->arg;
    struct io io = {.tool = tool, .misalign = invocation->options->misalign};
    auto_error err = {0};
    bool helped;
    co_group_init(&io.requests);
    if (!tool_add_objects(tool, &invocation->options->objects, &helped, &err)) {
        log_failure(&err);
        return 1;
    }
    if (helped)
        return 0;
    if (invocation->path && !io_open_image(&io, &invocation->options->open, invocation->path))
        return 1;
    bool good = run_commands(&io, &invocation->options->commands);
    io_close_image(&io);
    return good && !io.request_failed ? 0 : 1;
}

static int run(int argc, char **argv, struct io_options *options)
{
    auto_error err = {0};
    auto_free struct texts rest = {0};
    switch (options_parse(io_options, argc, argv, options, &rest, &err)) {
    case OPTIONS_HELP: print_help(); return 0;
    case OPTIONS_BAD:
        log_failure(&err);
        fprintf(stderr, "Try '%s --help' for more information\n", log_program());
        return 1;
    case OPTIONS_GOOD: break;
    }
    if (options->version) {
        tool_print_version();
        return 0;
    }
    if (options->trace && !strcmp(options->trace, "help")) {
        trace_list(stdout);
        return 0;
    }
    if (options->trace && !tool_enable_trace(options->trace))
        return 1;
    if (rest.count > 1) {
        log_error("Only one image file can be given");
        return 1;
    }
    struct invocation invocation = {options, rest.count ? rest.items[0] : NULL};
    return tool_run(io_main, &invocation, argc, argv);
}

int main(int argc, char **argv)
{
    struct io_options options = {0};
    if (tool_is_worker(argc, argv))
        return tool_worker_main();
    log_set_program(argv[0]);
    signal(SIGPIPE, SIG_IGN);
    int status = run(argc, argv, &options);
    options_release(io_options, &options);
    return fflush(stdout) || ferror(stdout) ? 1 : status;
}
