/* SPDX-License-Identifier: Apache-2.0 */
/* Progress is printed when it moved by a hundredth, so that output costs nothing against the work. */
#include "image-tools/img/progress.h"

#include <inttypes.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/math.h"
#include "base/size.h"

#define STEP (16 * MiB) /* where there is no hundredth */

static void print_text(const struct progress *progress, FILE *out, char end)
{
    char size[FORMAT_SIZE_MAX];
    if (progress->total == PROGRESS_UNKNOWN)
        fprintf(out, "    (%s)%c", format_size(size, progress->done), end);
    else
        fprintf(out, "    (%3.2f/100%%)%c", progress->percent, end);
}

static void print(struct progress *progress)
{
    if (!progress->as_json)
        print_text(progress, progress->out, '\r');
    else if (progress->total == PROGRESS_UNKNOWN)
        fprintf(progress->out, "{\"done\": %" PRIu64 ", \"total\": null}\n", progress->done);
    else
        fprintf(progress->out, "{\"done\": %" PRIu64 ", \"total\": %" PRIu64 "}\n", progress->done, progress->total);
    fflush(progress->out);
    progress->printed = progress->percent;
    progress->printed_bytes = progress->done;
}

static void on_signal(void *arg, uint32_t events)
{
    struct progress *progress = arg;
    struct signalfd_siginfo info;
    while (read(progress->signal_fd, &info, sizeof info) == sizeof info)
        print_text(progress, stderr, '\n');
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
    FILE *out = progress->out ? progress->out : stdout;
    bool shown = wanted || (automatic && isatty(fileno(out)));
    *progress = (struct progress){.out = out, .as_json = progress->as_json, .shown = shown};
    watch_signal(progress, loop);
    if (progress->shown)
        print(progress);
}

static bool has_moved(const struct progress *progress)
{
    if (progress->total == PROGRESS_UNKNOWN)
        return progress->done - progress->printed_bytes >= STEP;
    return progress->percent - progress->printed >= 1;
}

void progress_set(struct progress *progress, uint64_t done, uint64_t total)
{
    progress->done = done;
    progress->total = total;
    progress->percent = total ? (double)done * 100 / (double)total : 100;
    if (progress->shown && has_moved(progress))
        print(progress);
}

void progress_end(struct progress *progress, bool success)
{
    if (success && progress->total == PROGRESS_UNKNOWN)
        progress->total = progress->done;
    if (success) {
        progress->percent = 100;
        progress->done = progress->total;
    }
    if (progress->shown && progress->printed < progress->percent)
        print(progress);
    if (progress->shown && !progress->as_json)
        fprintf(progress->out, "\n");
    if (progress->signal_fd >= 0) {
        loop_unwatch(&progress->watch);
        close(progress->signal_fd);
    }
}
