/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of the vhost-user socket: a 12-byte header, a payload, and file descriptors that travel with the header. A
 * payload longer than the longest known one, a wrong version or too many descriptors end the connection.
 */
#include <string.h>
#include <sys/stat.h>
#include "base/cleanup.h"
#include "base/trace.h"
#include "vhost-user/internal.h"

void message_close_fds(struct vhost_user_message *message)
{
    for (int i = 0; i < message->fd_count; i++) {
        if (message->fds[i] >= 0)
            close(message->fds[i]);
    }
    message->fd_count = 0;
}

int message_take_fd(struct vhost_user_message *message)
{
    for (int i = 0; i < message->fd_count; i++) {
        if (message->fds[i] >= 0)
            return TAKE_FD(message->fds[i]);
    }
    return -1;
}

bool message_fd_is_event(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return false;
    mode_t kind = st.st_mode & S_IFMT; /* none: an eventfd and its like */
    return !kind || kind == S_IFIFO || kind == S_IFSOCK;
}

int message_receive(struct stream *stream, struct vhost_user_message *message)
{
    memset(message, 0, sizeof *message);
    ssize_t got = stream_recv_fds(stream, &message->header, sizeof message->header, message->fds, VHOST_USER_MAX_FDS,
                                  &message->fd_count);
    if (got <= 0)
        return (int)got;
    size_t rest = sizeof message->header - (size_t)got;
    int error = rest ? stream_recv_all(stream, (uint8_t *)&message->header + got, rest) : 0;
    if (!error && ((message->header.flags & VHOST_USER_VERSION_MASK) != VHOST_USER_VERSION ||
                   message->header.size > sizeof message->payload))
        error = -EPROTO;
    if (!error && message->header.size)
        error = stream_recv_all(stream, message->payload.bytes, message->header.size);
    if (error < 0) {
        message_close_fds(message);
        return error;
    }
    trace(vhost_user_message, "%s: request %u flags %#x size %u fds %d", stream->peer, message->header.request,
          message->header.flags, message->header.size, message->fd_count);
    return 1;
}

bool message_reply(struct stream *stream, struct vhost_user_message *message, uint32_t size, int fd)
{
    message->header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
    message->header.size = size;
    return stream_send_fds(stream, message, sizeof message->header + size, &fd, fd >= 0) == 0;
}
