/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-nbd: serves one image to NBD clients, or lists what a server has. Here: the command line. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/background.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/trace.h"
#include "image-tools/nbd/nbd.h"

static const struct tool_option nbd_options[] = {
    OPTION_ROW_TEXT('p', "port", "PORT", struct nbd_options, port, "listen on this TCP port (default: 10809)"),
    OPTION_ROW_TEXT('b', "bind", "ADDRESS", struct nbd_options, bind, "of this interface only (default: 0.0.0.0)"),
    OPTION_ROW_TEXT('k', "socket", "PATH", struct nbd_options, socket, "listen on this UNIX socket"),
    OPTION_ROW_TEXT('e', "shared", "COUNT", struct nbd_options, shared,
                    "serve up to so many clients at the same time (default: 1; 0: any number)"),
    OPTION_ROW_FLAG('t', "persistent", struct nbd_options, persistent, "go on when the last client is gone"),
    OPTION_ROW_FLAG('v', "verbose", struct nbd_options, verbose, "tell about connections"),
    OPTION_ROW_TEXT('x', "export-name", "NAME", struct nbd_options, name, "name of the export (default: empty)"),
    OPTION_ROW_TEXT('D', "description", "TEXT", struct nbd_options, description, "free text about the export"),
    OPTION_ROW_TEXT(0, "handshake-limit", "SECONDS", struct nbd_options, handshake_limit,
                    "drop clients that take longer to begin (default: 10; 0: never)"),
    OPTION_ROW_TEXT('o', "offset", "BYTES", struct nbd_options, offset, "serve the image from here on"),
    OPTION_ROW_FLAG('A', "allocation-depth", struct nbd_options, allocation_depth,
                    "offer the context qemu:allocation-depth"),
    OPTION_ROW_TEXTS('B', "bitmap", "NAME", struct nbd_options, bitmaps,
                     "offer a persistent dirty bitmap as context qemu:dirty-bitmap:NAME; may be repeated"),
    OPTION_ROW_TEXT('c', "connect", "DEVICE", struct nbd_options, connect,
                    "make the image a disk of this machine: /dev/nbd0 (goes to the background, but with -v)"),
    OPTION_ROW_FLAG('d', "disconnect", struct nbd_options, disconnect,
                    "disconnect such a device, given in place of FILE"),
    OPTION_ROW_FLAG('L', "list", struct nbd_options, list, "list the exports of another server (-k, or -b and -p)"),
    OPTION_ROW_TEXTS(0, "object", "TYPE,id=ID[,...]", struct nbd_options, objects,
                     "make an object, such as a secret; 'help' lists types"),
    OPTION_ROW_TEXT(0, "tls-creds", "ID", struct nbd_options, tls_creds, "TLS with the credentials of this --object"),
    OPTION_ROW_TEXT(0, "tls-hostname", "NAME", struct nbd_options, tls_hostname,
                    "with -L: the server's certificate must be for this name (default: that of -b)"),
    OPTION_ROW_TEXT(0, "tls-authz", "ID", struct nbd_options, tls_authz, "who may come in, by this --object"),
    OPTION_ROW_FLAG(0, "fork", struct nbd_options, fork, "go to the background when the server is up"),
    OPTION_ROW_TEXT(0, "pid-file", "PATH", struct nbd_options, pidfile, "write the process number to this file"),
    OPTION_ROW_TEXT(0, "selinux-label", "LABEL", struct nbd_options, selinux_label,
                    "SELinux label of the listening socket"),
    OPTION_ROW_TEXT('f', "format", "FMT", struct nbd_options, format, "format of the image (default: probed)"),
    OPTION_ROW_FLAG('r', "read-only", struct nbd_options, read_only, "clients may not write"),
    OPTION_ROW_FLAG('s', "snapshot", struct nbd_options, temporary, "writes go to a temporary overlay"),
    OPTION_ROW_TEXT('l', "load-snapshot", "SNAPSHOT", struct nbd_options, snapshot,
                    "serve this internal snapshot, read-only: its ID or name, or snapshot.id=ID,snapshot.name=NAME"),
    OPTION_ROW_FLAG('n', "nocache", struct nbd_options, no_cache, "the same as --cache=none"),
    OPTION_ROW_TEXT(0, "cache", "MODE", struct nbd_options, cache, "cache mode (default: writeback)"),
    OPTION_ROW_TEXT(0, "aio", "MODE", struct nbd_options, aio, "threads, native or io_uring"),
    OPTION_ROW_TEXT(0, "discard", "MODE", struct nbd_options, discard, "ignore or unmap (default: unmap)"),
    OPTION_ROW_TEXT(0, "detect-zeroes", "MODE", struct nbd_options, detect_zeroes, "off, on or unmap (default: off)"),
    OPTION_ROW_FLAG(0, "image-opts", struct nbd_options, image_opts, "FILE is driver=FORMAT,file.filename=..."),
    OPTION_ROW_TEXT('T', "trace", "GLOB[,...]", struct nbd_options, trace, "switch trace points on; 'help' lists them"),
    OPTION_ROW_FLAG('V', "version", struct nbd_options, version, "print the version and exit"),
    OPTIONS_END,
};

static void print_help(void)
{
    printf("Usage: %s [OPTION]... FILE\n       %s -c DEVICE [OPTION]... FILE\n       %s -d DEVICE\n       %s -L "
           "[OPTION]...\n"
           "Serves a disk image to NBD clients, makes it a disk of this machine, or lists the exports of a server.\n\n",
           log_program(), log_program(), log_program(), log_program());
    options_print_help(stdout, nbd_options);
    printf("\nWith systemd's socket activation (LISTEN_FDS), it listens on the socket that it is given.\n\n");
    tool_print_formats();
}

static int usage_error(void)
{
    fprintf(stderr, "Try '%s --help' for more information\n", log_program());
    return 1;
}

static int run_in_tool(struct tool *tool)
{
    struct nbd_options *options = tool->arg;
    auto_error err = {0};
    bool helped;
    if (!tool_add_objects(tool, &options->objects, &helped, &err)) {
        log_failure(&err);
        return 1;
    }
    if (helped)
        return 0;
    return options->list ? nbd_list(tool, options) : nbd_serve(tool, options);
}

/* What cannot go together; says so. */
static bool check_usage(const struct nbd_options *options, size_t names)
{
    const char *problem = NULL;
    if (options->list && names)
        problem = "List mode is incompatible with a file name";
    else if (options->list && (options->connect || options->disconnect))
        problem = "List mode is incompatible with device settings";
    else if (options->disconnect && names != 1)
        problem = "Expecting the device that -d is to disconnect";
    else if (!options->list && names != 1)
        problem = "Expecting one image file name";
    else if (options->disconnect && options->connect)
        problem = "-c and -d exclude each other";
    else if (options->connect && options->tls_creds)
        problem = "The kernel does not speak TLS: --tls-creds and -c exclude each other";
    else if (options->tls_hostname && !options->list)
        problem = "--tls-hostname is for clients: it needs -L";
    if (problem)
        log_error("%s", problem);
    return !problem;
}

static int run(int argc, char **argv, struct nbd_options *options)
{
    auto_error err = {0};
    auto_free struct texts rest = {0};
    switch (options_parse(nbd_options, argc, argv, options, &rest, &err)) {
    case OPTIONS_HELP: print_help(); return 0;
    case OPTIONS_BAD: log_failure(&err); return usage_error();
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
    if (options->verbose && !tool_enable_trace("nbd_*"))
        return 1;
    if (!check_usage(options, rest.count))
        return usage_error();
    if (options->disconnect)
        return device_disconnect(rest.items[0]);
    options->image = rest.count ? rest.items[0] : NULL;
    options->fork |= options->connect && !options->verbose;
    options->ready_fd = options->fork && !options->list ? background_begin() : -1;
    if (options->connect && !(options->device = device_begin(options->connect, &err))) {
        log_failure(&err);
        return 1;
    }

    sigset_t ending; /* nbd_serve() reads them from a descriptor */
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    if (!options->list)
        sigprocmask(SIG_BLOCK, &ending, NULL);
    return tool_run_as(options->list ? WALLS_TOOL : WALLS_DAEMON, run_in_tool, options, argc, argv);
}

int main(int argc, char **argv)
{
    struct nbd_options options = {0};
    log_set_program(argv[0]);
    signal(SIGPIPE, SIG_IGN);
    int status = run(argc, argv, &options);
    options_release(nbd_options, &options);
    return fflush(stdout) || ferror(stdout) ? 1 : status;
}
