/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running machine: its board, its monitors, its disks, and its life.
 *
 *     prelaunch --start--> running <--stop, cont--> paused        reset: from any state and back to it
 *                             |
 *                             +--guest powers off, quit, signal--> the program ends (or `shutdown` with -no-shutdown)
 *
 * One coroutine of the main loop (machine_main) makes the machine, waits for requests and takes it apart. Requests come
 * from anywhere: machine_request_*() only note what is wanted and wake that coroutine. Monitors call the other
 * functions from their own coroutines; the life lock keeps changes of state apart.
 */
#ifndef EMULATOR_MACHINE_H
#define EMULATOR_MACHINE_H

#include <stdatomic.h>
#include "base/co.h"
#include "emulator/lines.h"
#include "emulator/options.h"
#include "qmp/schema/types.h"

struct qmp_server;
struct storage;
struct hmp;

struct machine {
    struct loop *loop;
    const struct machine_options *options;
    struct clock *clock;
    struct board *board;
    struct lines lines;
    struct storage *storage;
    struct qmp_server *qmp;
    vec(struct hmp *) monitors;
    vec(struct virtio_device *) consoles; /* virtio-serial devices, which virtconsole connects to; the board's */
    vec(char *) console_ids;              /* of these, NULL for none */

    struct co_mutex life; /* changes of run_state, reset */
    enum run_state run_state;

    /* Requests: set by any thread, taken by machine_main. */
    _Atomic unsigned requests;
    _Atomic int exit_status;           /* goes with a shutdown by the guest */
    _Atomic enum shutdown_cause cause; /* of the last shutdown request */
    struct co_queue wake;
};

int machine_main(void *machine); /* for loop_run_main(); returns the exit status */

/* Any thread. */
void machine_request_shutdown(struct machine *machine, enum shutdown_cause cause, int exit_status);
void machine_request_reset(struct machine *machine, enum shutdown_cause cause);
void machine_request_powerdown(struct machine *machine);

/* Coroutines; these YIELD. */
void machine_stop(struct machine *machine); /* nothing when it does not run */
bool machine_cont(struct machine *machine, struct error *err);
void machine_dump_cpus(struct machine *machine, FILE *out, bool all);

/* build.c: from options to a machine that has never run. YIELDS. */
bool machine_build(struct machine *machine, struct error *err);
void machine_demolish(struct machine *machine);

/* user_devices.c: one -device. */
bool machine_add_device(struct machine *machine, const char *text, struct error *err);
/* The disk of a -drive with an `if` other than none. */
bool machine_add_virtio_disk(struct machine *machine, const char *drive, struct error *err);

#endif
