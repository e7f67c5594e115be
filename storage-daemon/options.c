/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line. It is read twice: first only for form, help and what concerns the whole process; then every option
 * is carried out in its place, because later ones use what earlier ones made (a node before its export).
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/trace.h"
#include "block/export.h"
#include "block/node.h"
#include "nbd/server.h"
#include "qmp/schema/address.h"
#include "qmp/schema/types.h"
#include "qmp/server.h"
#include "storage-daemon/daemon.h"

struct option_type {
    const char *name, *argument, *help; /* argument NULL: takes none */
    const struct schema_type *type;     /* for `help` as the argument, and for reading it */
    const char *implied_key;
    bool (*run)(struct daemon *daemon, void *value, struct error *err);
};

struct daemon_option {
    const struct option_type *type;
    const char *text;
};

/* Carrying out --------------------------------------------------------------------------------------------------- */

static bool run_blockdev(struct daemon *daemon, void *value, struct error *err)
{
    struct blockdev_options *options = value;
    if (!options->node_name)
        return fail(err, EINVAL, "'node-name' must be given: nothing could refer to the node without it");
    return graph_add(daemon->graph, options, err);
}

static bool run_chardev(struct daemon *daemon, void *value, struct error *err)
{
    return qmp_server_add_chardev(daemon->qmp, value, err);
}

static bool run_export(struct daemon *daemon, void *value, struct error *err)
{
    return export_add(daemon->exports, value, err) != NULL;
}

static bool run_monitor(struct daemon *daemon, void *value, struct error *err)
{
    return qmp_server_add_monitor(daemon->qmp, value, err);
}

static bool run_nbd_server(struct daemon *daemon, void *value, struct error *err)
{
    const struct nbd_server_options *options = value;
    struct stream_address address;
    return stream_address_from_schema(options->addr, &address, err) &&
           daemon_start_nbd(daemon, &address, options->max_connections, options->handshake_max_seconds, err);
}

static const struct option_type option_types[] = {
    {"blockdev", "driver=DRIVER,node-name=NAME[,...]",
     "make a block node; 'help' as the argument lists drivers, 'driver=D,help' one's options", &blockdev_options_type,
     "driver", run_blockdev},
    {"chardev", "BACKEND,id=ID[,...]", "make a character device for --monitor", &chardev_options_type, "backend",
     run_chardev},
    {"export", "type=TYPE,id=ID,node-name=NAME[,...]", "export a node; 'help' lists types, 'type=T,help' one's options",
     &block_export_options_type, "type", run_export},
    {"monitor", "[chardev=]ID[,mode=control][,pretty=on]", "offer QMP on a character device", &monitor_options_type,
     "chardev", run_monitor},
    {"nbd-server", "addr.type=inet|unix|fd,addr.KEY=VALUE[,...]", "start the NBD server for exports of type nbd",
     &nbd_server_options_type, NULL, run_nbd_server},
    {"daemonize", NULL, "go to the background once everything above is up", NULL, NULL, NULL},
    {"pidfile", "PATH", "write the process number to this file once everything is up", NULL, NULL, NULL},
    {"trace", "GLOB[,...]", "switch trace points on (also -T); 'help' lists them", NULL, NULL, NULL},
    {"help", NULL, "print this text and exit (also -h)", NULL, NULL, NULL},
    {"version", NULL, "print the version and exit (also -V)", NULL, NULL, NULL},
};
enum { OPTION_TYPES = ARRAY_SIZE(option_types) };

static void print_help(void)
{
    printf("Usage: %s [options]\n"
           "Serves disk images: builds a graph of block nodes, exports nodes to other processes, and takes commands by "
           "QMP.\n"
           "Options are carried out from left to right, so what an option refers to must stand before it.\n\n",
           log_program());
    for (int i = 0; i < OPTION_TYPES; i++)
        printf("  --%s%s%s\n      %s\n", option_types[i].name, option_types[i].argument ? " " : "",
               option_types[i].argument ? option_types[i].argument : "", option_types[i].help);
    printf("\nEvery argument of KEY=VALUE pairs may also be given as a JSON object.\n\nExample: serve a qcow2 image by "
           "NBD\n"
           "  %s --blockdev file,node-name=f,filename=disk.qcow2 --blockdev qcow2,node-name=disk,file=f \\\n"
           "      --nbd-server addr.type=unix,addr.path=nbd.sock --export nbd,id=e,node-name=disk,writable=on\n",
           log_program());
}

/* "help", or "KEY=VALUE,help" where KEY selects a branch. */
static bool print_option_help(const struct option_type *type, const char *text)
{
    const char *comma = strrchr(text, ',');
    if (strcmp(comma ? comma + 1 : text, "help") && strcmp(comma ? comma + 1 : text, "?"))
        return false;
    auto_free char *branch = comma ? xstrndup(text, (size_t)(comma - text)) : NULL;
    char *value = branch ? strchr(branch, '=') : NULL;
    auto_free char *help = schema_help(type->type, value ? value + 1 : branch);
    printf("--%s:\n%s", type->name, help);
    return true;
}

/* Reading -------------------------------------------------------------------------------------------------------- */

static void remember(struct daemon *daemon, const struct option_type *type, const char *text)
{
    daemon->options = xrealloc_array(daemon->options, daemon->option_count + 1, sizeof *daemon->options);
    daemon->options[daemon->option_count++] = (struct daemon_option){type, text};
}

static bool take_trace(const char *globs, int *status)
{
    auto_error err = {0};
    *status = 0;
    if (!strcmp(globs, "help")) {
        trace_list(stdout);
        return false;
    }
    if (trace_enable(globs, &err))
        return true;
    log_error("--trace: %s", err.message);
    *status = 1;
    return false;
}

/* One option that getopt has found. true: go on. */
static bool take_option(struct daemon *daemon, const struct option_type *type, const char *text, int *status)
{
    *status = 0;
    if (type->type) {
        if (print_option_help(type, text))
            return false;
        remember(daemon, type, text);
    } else if (!strcmp(type->name, "daemonize")) {
        daemon->daemonize = true;
    } else if (!strcmp(type->name, "pidfile")) {
        daemon->pidfile = text;
    } else if (!strcmp(type->name, "trace")) {
        return take_trace(text, status);
    } else if (!strcmp(type->name, "help")) {
        print_help();
        return false;
    } else {
        printf("%s version 10.0.0 (spindle %s)\n", log_program(), SPINDLE_VERSION);
        return false;
    }
    return true;
}

bool daemon_parse(struct daemon *daemon, int argc, char **argv, int *status)
{
    struct option longs[OPTION_TYPES + 1] = {0};
    for (int i = 0; i < OPTION_TYPES; i++)
        longs[i] = (struct option){option_types[i].name, option_types[i].argument ? required_argument : no_argument,
                                   NULL, 256 + i};
    const struct {
        int letter, index;
    } shorts[] = {{'T', 7}, {'h', 8}, {'V', 9}};
    int found;
    while ((found = getopt_long(argc, argv, "hT:V", longs, NULL)) != -1) {
        int index = found - 256;
        for (size_t i = 0; i < ARRAY_SIZE(shorts); i++) {
            if (shorts[i].letter == found)
                index = shorts[i].index;
        }
        if (index < 0) {
            fprintf(stderr, "Try '%s --help' for the options.\n", log_program());
            *status = 1;
            return false;
        }
        if (!take_option(daemon, &option_types[index], optarg, status))
            return false;
    }
    if (optind < argc) {
        log_error("unexpected argument '%s': everything is given by options, see '%s --help'", argv[optind],
                  log_program());
        *status = 1;
        return false;
    }
    return true;
}

bool daemon_run_options(struct daemon *daemon, struct error *err)
{
    for (size_t i = 0; i < daemon->option_count && !daemon->quitting; i++) {
        const struct option_type *type = daemon->options[i].type;
        void *value = NULL;
        bool good = schema_read_text(type->type, daemon->options[i].text, type->implied_key, &value, err) &&
                    type->run(daemon, value, err);
        schema_free(type->type, value);
        if (!good)
            return fail_prefix(err, "--%s %s: ", type->name, daemon->options[i].text);
    }
    return true;
}
