/* SPDX-License-Identifier: Apache-2.0 */
/* Progress is printed when it moved by a hundredth, so that output costs nothing against the work. */
#include "image-tools/img/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static void print(struct progress *progress)
{
    if (progress->as_json)
        printf("{\"done\": %" PRIu64 ", \"total\": %" PRIu64 "}\n", progress->done, progress->total);
    else
        printf("    (%3.2f/100%%)\r", progress->percent);
    fflush(stdout);
    progress->printed = progress->percent;
}

static void on_signal(void *arg, uint32_t events)
{
    struct progress *progress = arg;
    struct signalfd_siginfo info;
    while (read(progress->signal_fd, &info, sizeof info) == sizeof info)
        fprintf(stderr, "    (%3.2f/100%%)\n", progress->percent);
}

static void watch_signal(struct progress *progress, struct loop *loop)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    progress->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (progress->signal_fd >= 0)
        loop_watch(loop, &progress->watch, progress->signal_fd, EPOLLIN, on_signal, progress);
}

void progress_start(struct progress *progress, struct loop *loop, bool wanted, bool automatic)
{
    *progress =
        (struct progress){.as_json = progress->as_json, .shown = wanted || (automatic && isatty(STDOUT_FILENO))};
    watch_signal(progress, loop);
    if (progress->shown)
        print(progress);
}

void progress_set(struct progress *progress, uint64_t done, uint64_t total)
{
    progress->done = done;
    progress->total = total;
    progress->percent = total ? (double)done * 100 / (double)total : 100;
    if (progress->shown && progress->percent - progress->printed >= 1)
        print(progress);
}

void progress_end(struct progress *progress, bool success)
{
    if (success) {
        progress->percent = 100;
        progress->done = progress->total;
    }
    if (progress->shown && progress->printed < progress->percent)
        print(progress);
    if (progress->shown && !progress->as_json)
        printf("\n");
    if (progress->signal_fd >= 0) {
        loop_unwatch(&progress->watch);
        close(progress->signal_fd);
    }
}
