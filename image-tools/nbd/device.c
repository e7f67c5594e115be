/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel as a client.
 *
 *      mounted file system ── /dev/nbd0 ── kernel ──socketpair── spindle-nbd ── image
 *                                            ^                        │
 *                                            └──netlink── attendant ──┘ orders
 *
 * There is no handshake: the kernel's end of a socketpair is served from the first byte on (nbd_export_attach()), and
 * the kernel is told what the handshake would have said.
 *
 * Connecting and disconnecting a device takes CAP_SYS_ADMIN, with which a process that reads images could do anything.
 * So a small process is forked first, the attendant. It has that capability, never sees an image, and knows two orders:
 * connect, once, to a disk of this size; and let go. When its orders end without a word, because who gave them was
 * killed, it disconnects the device: a file system on it then gets errors instead of waiting for ever.
 *
 * Without -v the program goes to the background, as people are used to from the ecosystem's, and it ends when the
 * device is disconnected, by whomever.
 */
#include "image-tools/nbd/device.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/stream.h"
#include "block/node.h"
#include "image-tools/nbd/kernel.h"
#include "nbd/server.h"

enum { BLOCK_SIZE = 512, GONE = 'g', DISCONNECT = 'd' };
#define END_NS 10000000000ull /* the kernel fails what is in flight; it has no reason to take long */

struct answer {
    bool ok;
    char message[512], hint[256];
};

struct device {
    struct kernel_device kernel;
    pid_t attendant;
    int control, data; /* to the attendant; to the kernel */
    struct stream *orders;
    bool is_gone; /* disconnected, by whomever */
    void (*left)(void *user);
    void *user;
};

/* The attendant --------------------------------------------------------------------------------------------------- */

static void fill_answer(struct answer *answer, bool ok, const struct error *err)
{
    *answer = (struct answer){.ok = ok};
    snprintf(answer->message, sizeof answer->message, "%s", err->message ? err->message : "");
    snprintf(answer->hint, sizeof answer->hint, "%s", err->hint ? err->hint : "");
}

/* Blocks. False: the orders have ended. */
static bool receive(int fd, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, (char *)buffer + done, size - done);
        if (got == 0 || (got < 0 && errno != EINTR))
            return false;
        done += got > 0 ? (size_t)got : 0;
    }
    return true;
}

/* Who reads the program's output waits for the program to end, not for us. */
static void let_go_of_terminal(void)
{
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && null >= 0; fd++)
        dup2(null, fd);
}

static void attend(struct kernel_device *device, int control, int socket)
{
    auto_error err = {0};
    struct kernel_disk disk;
    struct answer answer;
    char order = DISCONNECT;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    let_go_of_terminal();
    if (!receive(control, &disk, sizeof disk))
        _exit(0);
    fill_answer(&answer, kernel_device_connect(device, &disk, socket, &err), &err);
    close(socket);
    if (write(control, &answer, sizeof answer) != sizeof answer || answer.ok)
        receive(control, &order, 1);
    if (order == DISCONNECT && answer.ok)
        kernel_device_disconnect(device, NULL);
    _exit(0);
}

/* Signals are for the program, which tells the attendant; a terminal sends them to all. */
static void block_signals(void)
{
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGHUP);
    sigprocmask(SIG_BLOCK, &ending, NULL);
}

struct device *device_begin(const char *path, struct error *err)
{
    struct kernel_device kernel;
    int control[2], data[2];
    if (!kernel_device_find(path, &kernel, err))
        return NULL;
    if (kernel_device_is_connected(&kernel)) {
        fail(err, EBUSY, "'%s' is connected already", path);
        return fail_hint(err, "%s -d %s disconnects it", log_program(), path), NULL;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, data) < 0)
        return fail_errno_null(err, errno, "socketpair");
    pid_t attendant = fork();
    if (attendant < 0)
        return fail_errno_null(err, errno, "fork");
    if (!attendant) {
        block_signals();
        close(control[0]);
        close(data[0]);
        attend(&kernel, control[1], data[1]);
    }
    close(control[1]);
    close(data[1]);
    struct device *device = new (struct device);
    *device = (struct device){.kernel = kernel, .attendant = attendant, .control = control[0], .data = data[0]};
    return device;
}

/* The program's side ---------------------------------------------------------------------------------------------- */

static struct kernel_disk describe(const struct device *device, const struct edge *edge, uint16_t flags)
{
    uint64_t size = edge->child->size, rest = size % BLOCK_SIZE;
    if (rest)
        log_warning("'%s' is a multiple of %d bytes: the image's last %" PRIu64 " bytes are not on it",
                    device->kernel.path, BLOCK_SIZE, rest);
    return (struct kernel_disk){.size = size - rest, .block_size = BLOCK_SIZE, .flags = flags};
}

static void on_left(void *user)
{
    struct device *device = user;
    device->is_gone = true;
    device->left(device->user);
}

bool device_connect(struct device *device, struct nbd_export *export, struct edge *edge, void (*left)(void *user),
                    void *user, struct error *err)
{
    struct answer answer;
    struct loop *loop = loop_current();
    device->left = left;
    device->user = user;
    device->orders = stream_from_fd(loop, TAKE_FD(device->control));
    uint16_t flags = nbd_export_attach(export, stream_from_fd(loop, TAKE_FD(device->data)), on_left, device);
    const struct kernel_disk disk = describe(device, edge, flags);
    int error = stream_send_all(device->orders, &disk, sizeof disk);
    if (!error)
        error = stream_recv_all(device->orders, &answer, sizeof answer);
    if (error < 0)
        return fail_errno(err, error, "Cannot connect '%s': its attendant is gone", device->kernel.path);
    if (answer.ok)
        return true;
    fail(err, EIO, "%s", answer.message);
    return !*answer.hint || fail_hint(err, "%s", answer.hint);
}

static void stop_waiting(void *arg)
{
    stream_shutdown(arg);
}

/* Tells the attendant, and waits until it has ended: then so has the device. */
static void dismiss(struct device *device)
{
    struct loop *loop = device->orders->loop;
    struct loop_timer deadline = {.fn = stop_waiting, .arg = device->orders};
    char order = device->is_gone ? GONE : DISCONNECT, byte;
    loop_timer_arm(loop, &deadline, loop_now_ns(loop) + END_NS);
    if (stream_send_all(device->orders, &order, 1) == 0)
        stream_recv(device->orders, &byte, 1);
    loop_timer_cancel(&deadline);
    stream_close(device->orders);
}

void device_end(struct device *device)
{
    if (!device)
        return;
    if (device->orders) {
        dismiss(device);
    } else { /* it never came to that */
        close(device->control);
        close(device->data);
    }
    waitpid(device->attendant, NULL, WNOHANG);
    free(device);
}

int device_disconnect(const char *path)
{
    auto_error err = {0};
    struct kernel_device device;
    if (!kernel_device_find(path, &device, &err) || !kernel_device_disconnect(&device, &err)) {
        log_failure(&err);
        return 1;
    }
    printf("%s disconnected\n", path);
    return 0;
}
