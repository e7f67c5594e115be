/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: what all kinds share. The kinds are sockets (socket.c) and simulated pairs (sim_stream.c). */
#include "base/stream.h"

#include <errno.h>
#include "base/fault.h"
#include "base/math.h"

/* A test may have ordered that it fails or brings less. */
static ssize_t receive(struct stream *stream, void *buffer, size_t size)
{
    struct fault fault = fault_next(FAULT_RECV);
    if (fault.error)
        return fault.error;
    return stream->ops->recv(stream, buffer, fault.is_short ? MAX(size / 2, (size_t)1) : size);
}

ssize_t stream_recv(struct stream *stream, void *buffer, size_t size)
{
    return receive(stream, buffer, size);
}

int stream_recv_all(struct stream *stream, void *buffer, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = receive(stream, (char *)buffer + done, size - done);
        if (n < 0)
            return (int)n;
        if (!n)
            return done ? -ECONNRESET : -ESHUTDOWN;
        done += (size_t)n;
    }
    return 0;
}

int stream_send_all(struct stream *stream, const void *buffer, size_t size)
{
    struct iovec iov = {(void *)buffer, size};
    return size ? stream_sendv(stream, &iov, 1) : 0;
}

int stream_sendv(struct stream *stream, struct iovec *iov, int count)
{
    return FAULTY(SEND, stream->ops->sendv(stream, iov, count));
}

ssize_t stream_recv_fds(struct stream *stream, void *buffer, size_t size, int *fds, int max_fds, int *n_fds)
{
    *n_fds = 0;
    if (!stream->ops->recv_fds)
        return receive(stream, buffer, size);
    int failure = fault_error(FAULT_RECV);
    if (failure)
        return failure;
    return stream->ops->recv_fds(stream, buffer, size, fds, max_fds, n_fds);
}

int stream_send_fds(struct stream *stream, const void *buffer, size_t size, const int *fds, int n_fds)
{
    if (!n_fds)
        return stream_send_all(stream, buffer, size);
    if (!stream->ops->send_fds)
        return -EOPNOTSUPP;
    return FAULTY(SEND, stream->ops->send_fds(stream, buffer, size, fds, n_fds));
}

void stream_shutdown(struct stream *stream)
{
    stream->ops->shutdown(stream);
}

void stream_move(struct stream *stream, struct loop *loop)
{
    if (stream->loop == loop)
        return;
    if (stream->ops->move)
        stream->ops->move(stream, loop);
    stream->loop = loop;
}

void stream_close(struct stream *stream)
{
    if (stream)
        stream->ops->close(stream);
}
