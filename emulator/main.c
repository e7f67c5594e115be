/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-system-riscv64: emulates a whole machine. What this program consists of (boards, processors) stands here. */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "emulator/cpu/riscv/riscv.h"
#include "emulator/machine.h"

static const struct board_type *const boards[] = {&board_virt, NULL};
static const struct cpu_arch *const cpu_types[] = {&cpu_arch_riscv64, NULL};

struct signals {
    struct machine *machine;
    int fd;
    struct loop_watch watch;
};

static void on_signal(void *arg, uint32_t events)
{
    struct signals *signals = arg;
    struct signalfd_siginfo info;
    if (read(signals->fd, &info, sizeof info) != sizeof info)
        return;
    log_info("terminating on signal %u from pid %u", info.ssi_signo, info.ssi_pid);
    machine_request_shutdown(signals->machine, SHUTDOWN_CAUSE_HOST_SIGNAL, 0);
}

static int run(struct machine *machine)
{
    auto_error err = {0};
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);

    machine->loop = loop_new(LOOP_AUTO, 0, &err);
    if (!machine->loop) {
        log_error("%s", err.message);
        return 1;
    }
    struct signals signals = {.machine = machine, .fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK)};
    loop_watch(machine->loop, &signals.watch, signals.fd, EPOLLIN, on_signal, &signals);
    int status = loop_run_main(machine->loop, machine_main, machine);
    loop_unwatch(&signals.watch);
    close(signals.fd);
    loop_free(machine->loop);
    return status;
}

int main(int argc, char **argv)
{
    struct machine_options options = {.boards = boards, .cpu_types = cpu_types};
    struct machine machine = {.options = &options};
    int status = 1;
    log_set_program(argv[0]);
    if (machine_options_parse(&options, argc, argv, &status))
        status = run(&machine);
    machine_options_free(&options);
    return status;
}
