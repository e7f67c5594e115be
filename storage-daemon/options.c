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
#include "nbd/servers.h"
#include "objects/object.h"
#include "qmp/schema/address.h"
#include "qmp/schema/keyval.h"
#include "qmp/schema/types.h"
#include "qmp/server.h"
#include "storage-daemon/daemon.h"
#include "storage-daemon/metrics.h"

struct option_type {
    const char *name, *argument, *help; /* argument NULL: takes none */
    char letter;                        /* the short form; 0: none */
    const struct schema_type *type;     /* for `help` as the argument, and for reading it */
    const char *implied_key;
    const struct schema_type *tags; /* an enum: `implied_key` chooses one of its values, and with it the other keys */
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

static bool run_object(struct daemon *daemon, void *value, struct error *err)
{
    return object_add(daemon->objects, value, err) != NULL;
}

static bool run_nbd_server(struct daemon *daemon, void *value, struct error *err)
{
    const struct nbd_server_options *options = value;
    struct stream_address address;
    const struct nbd_server_description description = {
        .id = options->id,
        .address = &address,
        .limits = {.max_connections = options->max_connections, .handshake_seconds = options->handshake_max_seconds},
        .tls_creds = options->tls_creds,
        .tls_authz = options->tls_authz};
    return stream_address_from_schema(options->addr, &address, err) &&
           nbd_servers_start(daemon->nbd_servers, &description, err);
}

static bool run_metrics(struct daemon *daemon, void *value, struct error *err)
{
    const struct metrics_options *options = value;
    struct stream_address address;
    if (!stream_address_from_schema(options->addr, &address, err))
        return false;
    struct metrics_server *server = metrics_server_new(daemon, &address, err);
    if (server)
        vec_push(&daemon->metrics, server);
    return server != NULL;
}

static const struct option_type option_types[] = {
    {"blockdev", "driver=DRIVER,node-name=NAME[,...]",
     "make a block node; 'help' as the argument lists drivers, 'driver=D,help' one's options", 0,
     &blockdev_options_type, "driver", &blockdev_driver_type, run_blockdev},
    {"chardev", "BACKEND,id=ID[,...]", "make a character device for --monitor; 'help' lists kinds", 0,
     &chardev_options_type, "backend", &chardev_backend_kind_type, run_chardev},
    {"export", "type=TYPE,id=ID,node-name=NAME[,...]", "export a node; 'help' lists types, 'type=T,help' one's options",
     0, &block_export_options_type, "type", &block_export_type_type, run_export},
    {"metrics", "addr.type=inet|unix|fd,addr.KEY=VALUE[,...]",
     "answer GET /metrics by HTTP with numbers for monitoring, as Prometheus reads them", 0, &metrics_options_type,
     NULL, NULL, run_metrics},
    {"monitor", "[chardev=]ID[,mode=control][,pretty=on]", "offer QMP on a character device", 0, &monitor_options_type,
     "chardev", NULL, run_monitor},
    {"nbd-server", "addr.type=inet|unix|fd,addr.KEY=VALUE[,...]", "start an NBD server for exports of type nbd", 0,
     &nbd_server_options_type, NULL, NULL, run_nbd_server},
    {.name = "sandbox",
     .argument = WALLS_OPTIONS_HELP,
     .help =
         "what the process gives up before it opens anything (default: on, with network=allow and the rest denied)"},
    {"object", "TYPE,id=ID[,...]", "make an object; 'help' lists types, 'TYPE,help' one's properties", 0,
     &object_options_type, "qom-type", &object_type_type, run_object},
    {.name = "daemonize", .help = "go to the background once everything above is up"},
    {.name = "pidfile", .argument = "PATH", .help = "write the process number to this file once everything is up"},
    {.name = "trace",
     .argument = "GLOB[,...]",
     .help = "switch trace points on (also -T); 'help' lists them",
     .letter = 'T'},
    {.name = "help", .help = "print this text and exit (also -h)", .letter = 'h'},
    {.name = "version", .help = "print the version and exit (also -V)", .letter = 'V'},
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

/* `--OPTION help`, or with a branch that is described then: `--OPTION KEY=VALUE,help`. */
static void print_option_help(const struct option_type *type, const char *text, int *status)
{
    auto_free char *branch = type->tags ? keyval_peek(text, type->implied_key, type->implied_key) : NULL;
    bool only_help = !branch || !strcmp(branch, "help") || !strcmp(branch, "?");
    int value;
    *status = 0;
    if (!only_help && !schema_enum_parse(type->tags, branch, &value)) {
        log_error("--%s: there is no %s '%s'; '--%s help' lists them", type->name, type->implied_key, branch,
                  type->name);
        *status = 1;
        return;
    }
    auto_free char *help = schema_help(type->type, only_help ? NULL : branch);
    printf("--%s %s\n%s", type->name, type->argument, help);
}

/* Reading -------------------------------------------------------------------------------------------------------- */

static void remember(struct daemon *daemon, const struct option_type *type, const char *text)
{
    daemon->options = xrealloc_array(daemon->options, daemon->option_count + 1, sizeof *daemon->options);
    daemon->options[daemon->option_count++] = (struct daemon_option){type, text};
}

static bool take_sandbox(struct daemon *daemon, const char *text, int *status)
{
    auto_error err = {0};
    *status = 0;
    if (walls_options_parse(text, &daemon->walls, &err))
        return true;
    log_error("--sandbox: %s", err.message);
    *status = 1;
    return false;
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
    if (type->type && keyval_wants_help(text)) {
        print_option_help(type, text, status);
        return false;
    }
    if (type->type) {
        remember(daemon, type, text);
    } else if (!strcmp(type->name, "daemonize")) {
        daemon->daemonize = true;
    } else if (!strcmp(type->name, "pidfile")) {
        daemon->pidfile = text;
    } else if (!strcmp(type->name, "sandbox")) {
        return take_sandbox(daemon, text, status);
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
    int found;
    while ((found = getopt_long(argc, argv, "hT:V", longs, NULL)) != -1) {
        int index = found - 256;
        for (int i = 0; i < OPTION_TYPES; i++) {
            if (option_types[i].letter == found)
                index = i;
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
