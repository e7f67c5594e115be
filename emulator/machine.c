/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a machine: see the header. */
#include "emulator/machine.h"

#include <stdio.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "emulator/hw/board/board.h"
#include "emulator/storage/storage.h"
#include "qmp/schema/events.h"
#include "qmp/server.h"
#include "walls/walls.h"

enum request { REQUEST_SHUTDOWN = 1, REQUEST_RESET = 2, REQUEST_POWERDOWN = 4 };
#define POLL_NS 100000u

/* --- requests
 * ---------------------------------------------------------------------------------------------------------- */

static void wake_main(void *arg)
{
    struct machine *machine = arg;
    co_queue_wake_all(&machine->wake);
}

static void request(struct machine *machine, enum request what)
{
    atomic_fetch_or(&machine->requests, what);
    loop_post(machine->loop, wake_main, machine);
}

void machine_request_shutdown(struct machine *machine, enum shutdown_cause cause, int exit_status)
{
    atomic_store(&machine->cause, cause);
    atomic_store(&machine->exit_status, exit_status);
    request(machine, REQUEST_SHUTDOWN);
}

void machine_request_reset(struct machine *machine, enum shutdown_cause cause)
{
    atomic_store(&machine->cause, cause);
    request(machine, REQUEST_RESET);
}

void machine_request_powerdown(struct machine *machine)
{
    request(machine, REQUEST_POWERDOWN);
}

static bool by_guest(enum shutdown_cause cause)
{
    return cause == SHUTDOWN_CAUSE_GUEST_SHUTDOWN || cause == SHUTDOWN_CAUSE_GUEST_RESET ||
           cause == SHUTDOWN_CAUSE_GUEST_PANIC;
}

/* --- stop and go
 * --------------------------------------------------------------------------------------------------------- */

static bool all_stopped(const struct board *board)
{
    for (unsigned i = 0; i < board->cpu_count; i++) {
        if (!cpu_is_stopped(board->cpus[i]))
            return false;
    }
    return true;
}

/* A vCPU may wait for a disk in the middle of a register write, and the disk needs this loop: so look now and then
 * instead of waiting for the thread. */
static void stop_cpus(struct machine *machine)
{
    for (unsigned i = 0; i < machine->board->cpu_count; i++)
        cpu_request_stop(machine->board->cpus[i]);
    while (!all_stopped(machine->board))
        co_sleep_ns(POLL_NS);
    clock_stop(machine->clock);
    while (board_is_busy(machine->board))
        co_sleep_ns(POLL_NS);
}

static bool start_cpus(struct machine *machine, struct error *err)
{
    clock_start(machine->clock);
    for (unsigned i = 0; i < machine->board->cpu_count; i++) {
        if (!cpu_start(machine->board->cpus[i], err))
            return false;
    }
    return true;
}

void machine_stop(struct machine *machine)
{
    with_co_lock (&machine->life) {
        if (machine->run_state != RUN_STATE_RUNNING)
            return;
        stop_cpus(machine);
        machine->run_state = RUN_STATE_PAUSED;
        qmp_event_stop(qmp_server_events(machine->qmp));
    }
}

bool machine_cont(struct machine *machine, struct error *err)
{
    with_co_lock (&machine->life) {
        if (machine->run_state == RUN_STATE_RUNNING)
            return true;
        if (machine->run_state == RUN_STATE_SHUTDOWN || machine->run_state == RUN_STATE_INTERNAL_ERROR)
            return fail(err, EINVAL, "the machine has ended; system_reset makes it ready to run again");
        if (!start_cpus(machine, err))
            return false;
        machine->run_state = RUN_STATE_RUNNING;
        qmp_event_resume(qmp_server_events(machine->qmp));
    }
    return true;
}

static bool reset(struct machine *machine, enum shutdown_cause cause, struct error *err)
{
    with_co_lock (&machine->life) {
        bool was_running = machine->run_state == RUN_STATE_RUNNING;
        if (was_running)
            stop_cpus(machine);
        if (!board_reset(machine->board, err))
            return false;
        if (machine->run_state == RUN_STATE_SHUTDOWN || machine->run_state == RUN_STATE_INTERNAL_ERROR)
            machine->run_state = RUN_STATE_PRELAUNCH;
        qmp_event_reset(qmp_server_events(machine->qmp), by_guest(cause), cause);
        return !was_running || start_cpus(machine, err);
    }
    return true;
}

void machine_dump_cpus(struct machine *machine, FILE *out, bool all)
{
    with_co_lock (&machine->life) {
        bool was_running = machine->run_state == RUN_STATE_RUNNING;
        if (was_running)
            stop_cpus(machine);
        for (unsigned i = 0; i < (all ? machine->board->cpu_count : 1); i++) {
            if (all)
                fprintf(out, "CPU#%u\n", i);
            machine->board->cpus[i]->arch->dump(machine->board->cpus[i], out);
        }
        if (was_running)
            start_cpus(machine, NULL);
    }
}

/* --- the main coroutine
 * -------------------------------------------------------------------------------------------------- */

/* True: the program ends. */
static bool shut_down(struct machine *machine, enum shutdown_cause cause)
{
    bool ends = !machine->options->no_shutdown || !by_guest(cause);
    if (ends)
        storage_give_up(machine->storage); /* or a disk server that is away would keep us here */
    with_co_lock (&machine->life) {
        stop_cpus(machine);
        machine->run_state = RUN_STATE_SHUTDOWN;
    }
    qmp_event_shutdown(qmp_server_events(machine->qmp), by_guest(cause), cause);
    if (!ends)
        qmp_event_stop(qmp_server_events(machine->qmp));
    return ends;
}

static bool serve_requests(struct machine *machine, struct error *err)
{
    for (;;) {
        unsigned requests = atomic_exchange(&machine->requests, 0);
        enum shutdown_cause cause = atomic_load(&machine->cause);
        if (requests & REQUEST_RESET && machine->options->no_reboot && by_guest(cause))
            requests = (requests & ~(unsigned)REQUEST_RESET) | REQUEST_SHUTDOWN;
        if (requests & REQUEST_SHUTDOWN && shut_down(machine, cause))
            return true;
        if (requests & REQUEST_RESET && !reset(machine, cause, err))
            return false;
        if (requests & REQUEST_POWERDOWN)
            qmp_event_powerdown(qmp_server_events(machine->qmp));
        if (!requests)
            co_queue_wait_uncancellable(&machine->wake);
    }
}

static bool live(struct machine *machine, struct error *err)
{
    if (!machine_build(machine, err) || !board_reset(machine->board, err))
        return false;
    /* What needs more than a running guest does is there: files are open, the private daemon has been started. */
    if (!walls_enter(WALLS_EMULATOR, &machine->options->walls, err))
        return false;
    machine->run_state = RUN_STATE_PRELAUNCH;
    if (!machine->options->start_stopped && !machine_cont(machine, err))
        return false;
    return serve_requests(machine, err);
}

int machine_main(void *arg)
{
    struct machine *machine = arg;
    auto_error err = {0};
    co_queue_init(&machine->wake);
    co_mutex_init(&machine->life);
    bool good = live(machine, &err);
    if (!good)
        log_error("%s", err.message);
    if (machine->board)
        stop_cpus(machine);
    machine_demolish(machine);
    return good ? atomic_load(&machine->exit_status) : 1;
}
