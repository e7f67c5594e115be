/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The storage daemon's state: one graph, its exports, NBD servers, the monitors. The QMP handlers in this folder
 * find it as their context's `app`.
 */
#ifndef STORAGE_DAEMON_DAEMON_H
#define STORAGE_DAEMON_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/co.h"
#include "base/error.h"
#include "base/vec.h"
#include "block/export.h"
#include "walls/walls.h"

struct daemon {
    struct loop *loop;
    struct doorman *doorman; /* outside of our walls */
    struct walls_options walls;
    struct graph *graph;
    struct object_set *objects;
    struct export_type export_types[4]; /* a table: NBD, vhost-user-blk, FUSE, end */
    struct iothreads *iothreads;
    struct export_set *exports;
    struct job_set *jobs;
    struct nbd_servers *nbd_servers;
    vec(struct metrics_server *) metrics;
    uint64_t started_ns; /* since 1970 */
    struct qmp_server *qmp; /* NULL once the daemon has said its last word */
    bool quitting;
    struct co_queue quit; /* woken when `quitting` becomes true */

    /* The command line, in its order. */
    struct daemon_option *options;
    size_t option_count;
    bool daemonize;
    const char *pidfile;
    int ready_fd; /* --daemonize: a byte here tells the waiting parent that everything is up; -1: none */
    int status;
};

/* options.c: reads the command line without acting on it. true: go on; false: exit with *status (help, version,
 * errors). */
bool daemon_parse(struct daemon *daemon, int argc, char **argv, int *status);
/* Carries the options out, left to right. YIELDS. */
bool daemon_run_options(struct daemon *daemon, struct error *err);

/* service.c: starting and stopping what the daemon is made of. All but daemon_quit() YIELD. */
void daemon_open(struct daemon *daemon);
void daemon_close(struct daemon *daemon);
void daemon_quit(void *daemon);

/* chardev_services.c */
struct chardev_services;
extern const struct chardev_services daemon_chardev_services;

/* objects.c: kinds of objects that are about the daemon itself. */
struct object_kind;
extern const struct object_kind *const daemon_object_kinds[];

/* qmp_jobs.c: the jobs of the daemon, whose events go to its monitors. */
struct job_set;
struct job_set *daemon_new_jobs(struct daemon *daemon);

#endif
