/* SPDX-License-Identifier: Apache-2.0 */
/* spindle-storage-daemon: owns disk images and exports them to other processes. */
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/background.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "confined/doorman.h"
#include "confined/worker.h"
#include "formats/table.h"
#include "storage-daemon/daemon.h"
#include "walls/walls.h"

struct signals {
    struct daemon *daemon;
    int fd;
    struct loop_watch watch;
};

static void on_signal(void *arg, uint32_t events)
{
    struct signals *signals = arg;
    struct signalfd_siginfo info;
    (void)events;
    if (read(signals->fd, &info, sizeof info) == sizeof info)
        daemon_quit(signals->daemon);
}

static bool serve(struct daemon *daemon, struct error *err)
{
    if (!daemon_run_options(daemon, err))
        return false;
    auto_free char *pidfile = NULL;
    if (daemon->pidfile && !(pidfile = background_write_pidfile(daemon->pidfile, err)))
        return false;
    if (daemon->ready_fd >= 0)
        background_ready(TAKE_FD(daemon->ready_fd));
    while (!daemon->quitting)
        co_queue_wait_uncancellable(&daemon->quit);
    if (pidfile)
        unlink(pidfile);
    return true;
}

static int daemon_main(void *arg)
{
    struct daemon *daemon = arg;
    auto_error err = {0};
    daemon_open(daemon);
    bool good = serve(daemon, &err);
    if (!good)
        log_failure(&err);
    daemon_close(daemon);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct daemon daemon = {.ready_fd = -1};
    auto_error err = {0};
    int status;
    if (confined_is_worker(argc, argv))
        return confined_worker_main(formats_table);
    log_set_program(argv[0]);
    if (!daemon_parse(&daemon, argc, argv, &status)) {
        free(daemon.options);
        return status;
    }
    if (daemon.daemonize)
        daemon.ready_fd = background_begin();

    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    signal(SIGPIPE, SIG_IGN);

    /* The doorman before the loop and the walls, which are meant for us alone; and both before any image is opened. */
    daemon.doorman = doorman_new(&err);
    daemon.loop = daemon.doorman ? loop_new(LOOP_AUTO, 0, &err) : NULL;
    if (!daemon.loop || !walls_enter(WALLS_DAEMON, &daemon.walls, &err)) {
        log_failure(&err);
        return 1;
    }
    co_queue_init(&daemon.quit);
    struct signals signals = {.daemon = &daemon, .fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK)};
    loop_watch(daemon.loop, &signals.watch, signals.fd, EPOLLIN, on_signal, &signals);
    status = loop_run_main(daemon.loop, daemon_main, &daemon);
    loop_unwatch(&signals.watch);
    close(signals.fd);
    loop_free(daemon.loop);
    doorman_free(daemon.doorman);
    free(daemon.options);
    return status;
}
