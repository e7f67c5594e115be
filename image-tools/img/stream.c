/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pipes hold little: 64 KiB unless they are asked to be larger, and whoever is on the other side runs only while there
 * is something, or room for something. So they are made larger where the host allows it, and one piece of work for a
 * thread goes on until its buffer is done.
 */

#include "image-tools/img/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/co.h"
#include "base/math.h"

#define PIPE_SIZE (1 * MiB)
#define SKIP_PIECE (1 * MiB)

static const uint8_t zeroes[256 * KiB];

bool stream_is_meant(const char *name)
{
    return !strcmp(name, STREAM_NAME);
}

void stream_open_input(struct stream *stream)
{
    struct stat st;
    *stream = (struct stream){.fd = STDIN_FILENO};
    (void)fcntl(stream->fd, F_SETPIPE_SZ, PIPE_SIZE); /* a pipe, if it is one, and as far as this user may */
    off_t now = lseek(stream->fd, 0, SEEK_CUR);
    stream->knows_size = now >= 0 && !fstat(stream->fd, &st) && S_ISREG(st.st_mode);
    stream->size = stream->knows_size && st.st_size > now ? (uint64_t)(st.st_size - now) : 0;
}

bool stream_open_output(struct stream *stream, struct error *err)
{
    struct stat st;
    *stream = (struct stream){.fd = STDOUT_FILENO};
    if (isatty(stream->fd))
        return fail(err, EINVAL, "standard output is a terminal: send an image to a file or to another program");
    (void)fcntl(stream->fd, F_SETPIPE_SZ, PIPE_SIZE);
    int flags = fcntl(stream->fd, F_GETFL);
    off_t now = lseek(stream->fd, 0, SEEK_CUR);
    stream->can_seek = now >= 0 && flags >= 0 && !(flags & O_APPEND) && !fstat(stream->fd, &st) &&
                       S_ISREG(st.st_mode) && st.st_size == now;
    return true;
}

/* For a thread ----------------------------------------------------------------------------------------------------- */

struct transfer {
    int fd;
    short events;
    uint8_t *buffer;
    size_t length, done;
    int error;
};

/* Whoever gave us the descriptor may have made it non-blocking, for all who share it. */
static bool may_go_on(struct transfer *transfer)
{
    if (errno == EINTR)
        return true;
    struct pollfd wait = {.fd = transfer->fd, .events = transfer->events};
    if (errno == EAGAIN && (poll(&wait, 1, -1) >= 0 || errno == EINTR))
        return true;
    transfer->error = errno;
    return false;
}

static void read_all(void *arg)
{
    struct transfer *transfer = arg;
    while (transfer->done < transfer->length) {
        ssize_t got = read(transfer->fd, transfer->buffer + transfer->done, transfer->length - transfer->done);
        if (got > 0)
            transfer->done += (size_t)got;
        else if (got == 0 || !may_go_on(transfer))
            break;
    }
}

static void write_all(void *arg)
{
    struct transfer *transfer = arg;
    while (transfer->done < transfer->length) {
        ssize_t put = write(transfer->fd, transfer->buffer + transfer->done, transfer->length - transfer->done);
        if (put >= 0)
            transfer->done += (size_t)put;
        else if (!may_go_on(transfer))
            break;
    }
}

/* ------------------------------------------------------------------------------------------------------------------ */

int64_t stream_read(struct stream *stream, void *buffer, size_t length)
{
    struct transfer transfer = {.fd = stream->fd, .events = POLLIN, .buffer = buffer, .length = length};
    co_offload(read_all, &transfer);
    stream->position += transfer.done;
    return transfer.error ? -transfer.error : (int64_t)transfer.done;
}

int stream_skip(struct stream *stream, uint64_t length)
{
    auto_free uint8_t *buffer = xmalloc(SKIP_PIECE);
    while (length) {
        size_t piece = MIN(length, SKIP_PIECE);
        int64_t got = stream_read(stream, buffer, piece);
        if (got < 0 || (uint64_t)got < piece)
            return got < 0 ? (int)got : -ENODATA;
        length -= piece;
    }
    return 0;
}

int stream_write(struct stream *stream, const void *buffer, size_t length)
{
    struct transfer transfer = {.fd = stream->fd, .events = POLLOUT, .buffer = (uint8_t *)buffer, .length = length};
    co_offload(write_all, &transfer);
    stream->position += transfer.done;
    stream->in_hole = stream->in_hole && !transfer.done;
    return -transfer.error;
}

int stream_write_zeroes(struct stream *stream, uint64_t length)
{
    int result = 0;
    if (stream->can_seek) {
        if (lseek(stream->fd, (off_t)length, SEEK_CUR) < 0)
            return -errno;
        stream->position += length;
        stream->in_hole = stream->in_hole || length;
        return 0;
    }
    for (size_t piece; length && !result; length -= piece) {
        piece = MIN(length, sizeof zeroes);
        result = stream_write(stream, zeroes, piece);
    }
    return result;
}

int stream_finish(struct stream *stream)
{
    if (!stream->in_hole)
        return 0;
    off_t end = lseek(stream->fd, 0, SEEK_CUR);
    return end < 0 || ftruncate(stream->fd, end) < 0 ? -errno : 0;
}
