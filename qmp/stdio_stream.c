/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output as one stream.
 *
 * The descriptors are shared with the program that started us (a shell, say), so they are not made non-blocking: we
 * wait until there is something to read, and write no more at once than a pipe that is ready takes (PIPE_BUF). A
 * regular file is always ready, and not every event loop can watch one.
 */
#include "qmp/chardev.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/loop.h"
#include "base/math.h"
#include "base/stream.h"

struct stdio_stream {
    struct stream base;
    bool is_shut;
    bool has_terminal; /* whose settings are to be restored */
    struct termios terminal;
};

static struct stdio_stream *of(struct stream *stream)
{
    return container_of(stream, struct stdio_stream, base);
}

static bool is_regular_file(int fd)
{
    struct stat st;
    return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

static int wait_ready(struct stream *stream, int fd, uint32_t events)
{
    if (of(stream)->is_shut)
        return -EPIPE;
    if (is_regular_file(fd))
        return 0;
    int ready = loop_wait_fd(stream->loop, fd, events);
    return ready < 0 ? ready : 0;
}

static ssize_t stdio_recv(struct stream *stream, void *buffer, size_t size)
{
    int status = wait_ready(stream, STDIN_FILENO, EPOLLIN);
    if (status < 0)
        return status;
    ssize_t length = read(STDIN_FILENO, buffer, size);
    return length < 0 ? -errno : length;
}

static int send_all(struct stream *stream, const char *data, size_t size)
{
    while (size) {
        int status = wait_ready(stream, STDOUT_FILENO, EPOLLOUT);
        if (status < 0)
            return status;
        ssize_t length = write(STDOUT_FILENO, data, MIN(size, (size_t)PIPE_BUF));
        if (length < 0 && errno != EINTR && errno != EAGAIN)
            return -errno;
        if (length > 0) {
            data += length;
            size -= (size_t)length;
        }
    }
    return 0;
}

static int stdio_sendv(struct stream *stream, struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++) {
        int status = send_all(stream, (const char *)iov[i].iov_base, iov[i].iov_len);
        if (status)
            return status;
    }
    return 0;
}

static void stdio_shutdown(struct stream *stream)
{
    of(stream)->is_shut = true;
}

static void stdio_close(struct stream *stream)
{
    struct stdio_stream *stdio = of(stream);
    if (stdio->has_terminal)
        tcsetattr(STDIN_FILENO, TCSANOW, &stdio->terminal);
    free(stream->peer);
    free(stdio);
}

static const struct stream_ops stdio_ops = {
    .recv = stdio_recv,
    .sendv = stdio_sendv,
    .shutdown = stdio_shutdown,
    .close = stdio_close,
};

/* Ctrl-C and its like become input. */
static void take_signals(struct stdio_stream *stdio)
{
    if (tcgetattr(STDIN_FILENO, &stdio->terminal))
        return; /* not a terminal */
    stdio->has_terminal = true;
    struct termios raw = stdio->terminal;
    raw.c_lflag &= ~(tcflag_t)ISIG;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

struct stream *stdio_stream_new(struct loop *loop, bool signals)
{
    struct stdio_stream *stdio = xcalloc(1, sizeof *stdio);
    stdio->base = (struct stream){.ops = &stdio_ops, .loop = loop, .peer = xstrdup("stdio")};
    if (!signals)
        take_signals(stdio);
    return &stdio->base;
}
