/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions and answers: see the header.
 *
 * Time. An answer has a deadline; when it passes we shut our end of the socket down and kill the worker, so the wait
 * ends whatever the worker does. Between questions a worker has nothing to compute: it gets processor time as long as
 * it is asked, namely as much as has passed since its start and a minute more (one thread cannot have used more), and
 * is ended by the kernel when it goes on for longer on its own.
 *
 * The buffer is sealed: the worker can neither shrink it (reading it would then end us) nor grow it.
 */
#include "confined/link.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "confined/wait.h"

#define SECOND_NS UINT64_C(1000000000)
enum { GRANT_SECONDS = 60, GRANT_EVERY_SECONDS = 10 };

static void end_worker(struct confined_link *link)
{
    shutdown(link->fd, SHUT_RDWR);
    pidfd_send_signal(link->process, SIGKILL, NULL, 0);
}

static void on_deadline(void *arg)
{
    struct confined_link *link = arg;
    link->timed_out = true;
    end_worker(link);
}

/* A memory file of the buffer's size; -1 on error. */
static int make_buffer(struct confined_link *link, struct error *err)
{
    auto_close int fd = memfd_create("confined", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, CONFINED_BUFFER_SIZE) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        fail_errno(err, errno, "cannot make a shared buffer");
        return -1;
    }
    void *memory = mmap(NULL, CONFINED_BUFFER_SIZE, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        fail_errno(err, errno, "cannot map a shared buffer");
        return -1;
    }
    link->buffer = memory;
    return TAKE_FD(fd);
}

static bool start(struct confined_link *link, struct doorman *doorman, int image, struct error *err)
{
    int pair[2];
    auto_close int buffer = make_buffer(link, err);
    if (buffer < 0)
        return false;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(err, errno, "cannot make a socket pair");
    link->fd = pair[0];
    auto_close int theirs = pair[1];
    const struct doorman_worker worker = {.image = image,
                                          .socket = theirs,
                                          .buffer = buffer,
                                          .memory_limit = link->settings.memory_limit,
                                          .cpu_seconds = GRANT_SECONDS};
    link->started_ns = link->granted_ns = loop_now_ns(link->loop);
    link->process = doorman_start_worker(doorman, link->loop, &worker, &link->number, err);
    return link->process >= 0;
}

struct confined_link *confined_link_new(struct doorman *doorman, struct loop *loop, int image,
                                        const struct confined_settings *settings, struct error *err)
{
    struct confined_link *link = new (struct confined_link);
    *link = (struct confined_link){.loop = loop, .settings = *settings, .fd = -1, .process = -1};
    if (start(link, doorman, image, err))
        return link;
    confined_link_free(link);
    return NULL;
}

void confined_link_free(struct confined_link *link)
{
    if (!link)
        return;
    loop_timer_cancel(&link->deadline);
    if (link->process >= 0) {
        end_worker(link);
        close(link->process);
    }
    if (link->fd >= 0)
        close(link->fd);
    if (link->buffer)
        munmap(link->buffer, CONFINED_BUFFER_SIZE);
    free(link);
}

static void grant_time(struct confined_link *link)
{
    uint64_t now = loop_now_ns(link->loop);
    if (now - link->granted_ns < GRANT_EVERY_SECONDS * SECOND_NS)
        return;
    struct rlimit time = {(now - link->started_ns) / SECOND_NS + GRANT_SECONDS, RLIM_INFINITY};
    if (pidfd_send_signal(link->process, 0, NULL, 0) == 0) /* else the number may be somebody else's by now */
        prlimit(link->number, RLIMIT_CPU, &time, NULL);
    link->granted_ns = now;
}

static bool send_question(struct confined_link *link, const struct confined_question *question)
{
    ssize_t sent;
    do { /* the socket is empty: nothing was asked that is not answered */
        sent = send(link->fd, question, sizeof *question, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)sizeof *question;
}

/* Bytes received; 0: the worker has ended. */
static size_t receive_answer(struct confined_link *link, unsigned patience)
{
    ssize_t got;
    link->deadline.fn = on_deadline;
    link->deadline.arg = link;
    loop_timer_arm(link->loop, &link->deadline, loop_now_ns(link->loop) + link->settings.timeout_ns * patience);
    for (;;) {
        got = recv(link->fd, &link->answer, sizeof link->answer, MSG_DONTWAIT | MSG_TRUNC);
        if (got >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
        confined_wait_readable(link->loop, link->fd);
    }
    loop_timer_cancel(&link->deadline);
    return got < 0 || link->timed_out ? 0 : (size_t)got;
}

bool confined_link_ask(struct confined_link *link, struct confined_question *question, unsigned patience,
                       struct error *err)
{
    question->sequence = ++link->sequence;
    link->questions++;
    grant_time(link);
    size_t got = send_question(link, question) ? receive_answer(link, patience) : 0;
    if (link->timed_out)
        return fail(err, ETIMEDOUT, "the confined worker has not answered for %" PRIu64 " s and was ended",
                    link->settings.timeout_ns * patience / SECOND_NS);
    if (!got)
        return fail(err, EPIPE, "the confined worker has ended");
    auto_error lie = {0};
    if (confined_validate(question, &link->answer, got, &link->limits, &lie))
        return true;
    end_worker(link);
    return fail(err, EPROTO, "the confined worker gave an impossible answer and was ended: %s", lie.message);
}
