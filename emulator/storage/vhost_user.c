/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user front end: implements the device model's vhost_backend (emulator/hw/vhost_backend.h) on a unix socket to a
 * storage daemon.
 *
 * Calls block with a timeout, as that interface wants. The loop watches the socket only for the peer's end, and the
 * second channel for "the configuration has changed". When the peer goes away, a timer tries to reach it again; the
 * record of requests in flight lies in memory that we keep, so a restarted daemon answers what its predecessor left
 * open.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "emulator/storage/internal.h"
#include "virtio/features.h"
#include "virtio/vhost_user.h"

enum { ANSWER_TIMEOUT_MS = 10000 };
#define RECONNECT_NS 100000000ull

#define WANTED_PROTOCOL_FEATURES                                                                                       \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                              \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |                     \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ))

struct front_end {
    struct vhost_backend backend;
    struct loop *loop;
    char *id, *path;
    int fd, channel; /* -1: not connected; the channel on which the peer makes requests */
    struct loop_watch watch, channel_watch;
    struct loop_timer reconnect;
    uint64_t features, protocol_features;
    uint16_t max_queues;
    int inflight_fd; /* kept over reconnects; -1: none */
    struct vhost_user_inflight inflight;
    bool inflight_sent; /* on this connection */
    bool stopped_clean; /* every queue has been stopped in order: the record holds nothing that a new driver needs */
};

static struct front_end *front_end_of(struct vhost_backend *backend)
{
    return container_of(backend, struct front_end, backend);
}

/* Messages ------------------------------------------------------------------------------------------------------- */

static bool lost(struct front_end *front, struct error *err, const char *what)
{
    return fail(err, EPIPE, "vhost-user '%s' at '%s': %s", front->id, front->path, what);
}

static bool send_message(struct front_end *front, uint32_t request, uint32_t flags, const void *payload, uint32_t size,
                         const int *fds, int n_fds, struct error *err)
{
    struct vhost_user_header header = {request, VHOST_USER_VERSION | flags, size};
    struct iovec iov[2] = {{&header, sizeof header}, {(void *)payload, size}};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VHOST_USER_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = size ? 2 : 1};
    if (n_fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
        struct cmsghdr *ancillary = CMSG_FIRSTHDR(&message);
        ancillary->cmsg_level = SOL_SOCKET;
        ancillary->cmsg_type = SCM_RIGHTS;
        ancillary->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
        memcpy(CMSG_DATA(ancillary), fds, (size_t)n_fds * sizeof(int));
    }
    ssize_t sent;
    do {
        sent = front->fd < 0 ? -1 : sendmsg(front->fd, &message, MSG_NOSIGNAL);
    } while (sent < 0 && front->fd >= 0 && errno == EINTR);
    return sent == (ssize_t)(sizeof header + size) || lost(front, err, "the daemon is gone");
}

static bool receive(struct front_end *front, void *buffer, size_t size, int *fd, struct error *err)
{
    size_t done = 0;
    while (done < size) {
        struct pollfd readable = {.fd = front->fd, .events = POLLIN};
        int ready = poll(&readable, 1, ANSWER_TIMEOUT_MS);
        if (ready == 0)
            return lost(front, err, "the daemon does not answer");
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {(char *)buffer + done, size - done};
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control};
        ssize_t got = ready < 0 ? -1 : recvmsg(front->fd, &message, MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return lost(front, err, "the daemon has hung up");
        struct cmsghdr *ancillary = CMSG_FIRSTHDR(&message);
        if (ancillary && ancillary->cmsg_type == SCM_RIGHTS) {
            int came;
            memcpy(&came, CMSG_DATA(ancillary), sizeof came);
            if (fd && *fd < 0)
                *fd = came;
            else
                close(came);
        }
        done += (size_t)got;
    }
    return true;
}

/* The answer to `request`, whose payload must have exactly `size` bytes. */
static bool receive_answer(struct front_end *front, uint32_t request, void *payload, uint32_t size, int *fd,
                           struct error *err)
{
    struct vhost_user_header header;
    if (!receive(front, &header, sizeof header, fd, err))
        return false;
    if (header.request != request || !(header.flags & VHOST_USER_REPLY) || header.size != size)
        return lost(front, err, "the daemon's answer does not fit the question");
    return receive(front, payload, size, NULL, err);
}

static bool ask(struct front_end *front, uint32_t request, uint64_t *answer, struct error *err)
{
    return send_message(front, request, 0, NULL, 0, NULL, 0, err) &&
           receive_answer(front, request, answer, sizeof *answer, NULL, err);
}

/* A message without an answer of its own; where the peer can acknowledge, we wait for it. */
static bool tell(struct front_end *front, uint32_t request, const void *payload, uint32_t size, const int *fds,
                 int n_fds, struct error *err)
{
    bool acknowledged = front->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK);
    uint64_t verdict = 0;
    if (!send_message(front, request, acknowledged ? VHOST_USER_NEED_REPLY : 0, payload, size, fds, n_fds, err))
        return false;
    if (acknowledged && !receive_answer(front, request, &verdict, sizeof verdict, NULL, err))
        return false;
    return !verdict || lost(front, err, "the daemon refused a setting");
}

static bool tell_number(struct front_end *front, uint32_t request, uint64_t number, struct error *err)
{
    return tell(front, request, &number, sizeof number, NULL, 0, err);
}

/* Connection ----------------------------------------------------------------------------------------------------- */

static void disconnect(struct front_end *front)
{
    if (front->fd >= 0) {
        loop_unwatch(&front->watch);
        close(TAKE_FD(front->fd));
    }
    if (front->channel >= 0) {
        loop_unwatch(&front->channel_watch);
        close(TAKE_FD(front->channel));
    }
    front->inflight_sent = false;
    front->backend.is_connected = false;
}

static void try_again_later(struct front_end *front)
{
    loop_timer_arm(front->loop, &front->reconnect, loop_now_ns(front->loop) + RECONNECT_NS);
}

/* Watched for the peer's end only: what can be read belongs to a call, which may be in progress on a vCPU's thread. */
static void on_socket(void *arg, uint32_t events)
{
    struct front_end *front = arg;
    if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        return;
    log_warning("vhost-user '%s': the daemon at '%s' is gone; waiting for it to come back", front->id, front->path);
    disconnect(front);
    if (front->backend.events)
        front->backend.events->disconnected(front->backend.owner);
    try_again_later(front);
}

static void on_channel(void *arg, uint32_t events)
{
    struct front_end *front = arg;
    struct vhost_user_header header;
    (void)events;
    ssize_t got = recv(front->channel, &header, sizeof header, MSG_DONTWAIT);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            loop_unwatch(&front->channel_watch);
            close(TAKE_FD(front->channel));
        }
        return;
    }
    if (got == sizeof header && header.request == VHOST_USER_BACKEND_CONFIG_CHANGE && front->backend.events)
        front->backend.events->config_changed(front->backend.owner);
}

static int connect_socket(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path)
        return fail(err, ENAMETOOLONG, "socket path '%s': at most %zu bytes are possible", path,
                    sizeof address.sun_path - 1),
               -1;
    strcpy(address.sun_path, path);
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        return fail_errno(err, errno, "cannot connect to '%s'", path), -1;
    return TAKE_FD(fd);
}

static bool offer_channel(struct front_end *front, struct error *err)
{
    int pair[2];
    if (!(front->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ)))
        return true;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(err, errno, "cannot make a socket pair");
    bool good = tell(front, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1, err);
    close(pair[1]);
    if (!good) {
        close(pair[0]);
        return false;
    }
    front->channel = pair[0];
    loop_watch(front->loop, &front->channel_watch, front->channel, EPOLLIN, on_channel, front);
    return true;
}

static bool negotiate(struct front_end *front, struct error *err)
{
    uint64_t features, protocol_features, queues = 1;
    if (!ask(front, VHOST_USER_GET_FEATURES, &features, err))
        return false;
    if (!(features & VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
        return lost(front, err,
                    "the daemon is too old: it has no protocol features, so it cannot tell the disk's size");
    if (!ask(front, VHOST_USER_GET_PROTOCOL_FEATURES, &protocol_features, err))
        return false;
    front->protocol_features = 0; /* none is in force while this one is told */
    if (!tell_number(front, VHOST_USER_SET_PROTOCOL_FEATURES, protocol_features & WANTED_PROTOCOL_FEATURES, err))
        return false;
    front->protocol_features = protocol_features & WANTED_PROTOCOL_FEATURES;
    if (!(front->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG)))
        return lost(front, err, "the daemon cannot tell the disk's size (protocol feature CONFIG)");
    if (front->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) &&
        !ask(front, VHOST_USER_GET_QUEUE_NUM, &queues, err))
        return false;
    front->max_queues = (uint16_t)MIN(queues, (uint64_t)UINT8_MAX);
    return tell(front, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0, err) && offer_channel(front, err);
}

static bool connect_and_negotiate(struct front_end *front, struct error *err)
{
    front->fd = connect_socket(front->path, err);
    if (front->fd < 0)
        return false;
    loop_watch(front->loop, &front->watch, front->fd, EPOLLRDHUP, on_socket, front);
    if (!negotiate(front, err)) {
        disconnect(front);
        return false;
    }
    front->backend.is_connected = true;
    return true;
}

static void on_reconnect(void *arg)
{
    struct front_end *front = arg;
    if (!connect_and_negotiate(front, NULL)) {
        try_again_later(front);
        return;
    }
    log_info("vhost-user '%s': the daemon at '%s' is back", front->id, front->path);
    if (front->backend.events)
        front->backend.events->connected(front->backend.owner);
}

/* The interface -------------------------------------------------------------------------------------------------- */

static bool get_features(struct vhost_backend *backend, uint64_t *features, struct error *err)
{
    if (!ask(front_end_of(backend), VHOST_USER_GET_FEATURES, features, err))
        return false;
    *features &=
        ~(VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES) | VIRTIO_BIT(VHOST_F_LOG_ALL)); /* between the two of us */
    return true;
}

static bool set_features(struct vhost_backend *backend, uint64_t features, struct error *err)
{
    struct front_end *front = front_end_of(backend);
    if (front->inflight_fd >= 0 && (front->stopped_clean || front->features != features)) {
        close(TAKE_FD(front->inflight_fd));
        front->inflight_sent = false;
    }
    front->features = features;
    return tell_number(front, VHOST_USER_SET_FEATURES, features | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES), err);
}

static uint16_t max_queues(struct vhost_backend *backend)
{
    return front_end_of(backend)->max_queues;
}

static bool set_memory(struct vhost_backend *backend, const struct vhost_memory_region *regions, size_t count,
                       struct error *err)
{
    struct vhost_user_memory table = {.count = (uint32_t)count};
    int fds[VHOST_USER_MAX_FDS];
    if (count > VHOST_USER_MAX_FDS)
        return fail(err, E2BIG, "%zu memory regions: vhost-user passes at most %d at once", count, VHOST_USER_MAX_FDS);
    for (size_t i = 0; i < count; i++) {
        fds[i] = regions[i].fd;
        table.regions[i] = (struct vhost_user_region){.guest_address = regions[i].guest_base,
                                                      .size = regions[i].size,
                                                      .user_address = (uintptr_t)regions[i].host,
                                                      .mmap_offset = regions[i].fd_offset};
    }
    uint32_t size = (uint32_t)(offsetof(struct vhost_user_memory, regions) + count * sizeof table.regions[0]);
    return tell(front_end_of(backend), VHOST_USER_SET_MEM_TABLE, &table, size, fds, (int)count, err);
}

/* A record of requests in flight: asked for once, handed to each new peer. */
static bool set_inflight(struct front_end *front, uint16_t queues, uint16_t queue_size, struct error *err)
{
    if (!(front->protocol_features & VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) || front->inflight_sent)
        return true;
    enum { DESCRIPTION_SIZE = offsetof(struct vhost_user_inflight, queue_size) + sizeof(uint16_t) };
    if (front->inflight_fd < 0) {
        struct vhost_user_inflight wanted = {.num_queues = queues, .queue_size = queue_size};
        struct vhost_user_header header;
        if (!send_message(front, VHOST_USER_GET_INFLIGHT_FD, 0, &wanted, DESCRIPTION_SIZE, NULL, 0, err) ||
            !receive(front, &header, sizeof header, &front->inflight_fd, err))
            return false;
        if (header.request != VHOST_USER_GET_INFLIGHT_FD || header.size < DESCRIPTION_SIZE ||
            header.size > sizeof front->inflight)
            return lost(front, err, "the daemon's answer does not fit the question");
        if (!receive(front, &front->inflight, header.size, NULL, err))
            return false;
        if (front->inflight_fd < 0)
            return lost(front, err, "the daemon gave no memory for requests in flight");
    }
    front->inflight.num_queues = queues;
    front->inflight.queue_size = queue_size;
    front->inflight_sent =
        tell(front, VHOST_USER_SET_INFLIGHT_FD, &front->inflight, DESCRIPTION_SIZE, &front->inflight_fd, 1, err);
    return front->inflight_sent;
}

static bool set_vring_fd(struct front_end *front, uint32_t request, uint16_t index, int fd, struct error *err)
{
    uint64_t number = index;
    return tell(front, request, &number, sizeof number, &fd, 1, err);
}

static bool queue_start(struct vhost_backend *backend, uint16_t index, uint16_t count, const struct vhost_queue *queue,
                        struct error *err)
{
    struct front_end *front = front_end_of(backend);
    struct vhost_user_vring_state size = {index, queue->size}, base = {index, queue->base}, enable = {index, 1};
    struct vhost_user_vring_addresses addresses = {.index = index,
                                                   .descriptors = (uintptr_t)queue->descriptors,
                                                   .available = (uintptr_t)queue->driver,
                                                   .used = (uintptr_t)queue->device};
    front->stopped_clean = false;
    return set_inflight(front, count, queue->size, err) &&
           tell(front, VHOST_USER_SET_VRING_NUM, &size, sizeof size, NULL, 0, err) &&
           tell(front, VHOST_USER_SET_VRING_BASE, &base, sizeof base, NULL, 0, err) &&
           tell(front, VHOST_USER_SET_VRING_ADDR, &addresses, sizeof addresses, NULL, 0, err) &&
           set_vring_fd(front, VHOST_USER_SET_VRING_CALL, index, queue->call_fd, err) &&
           set_vring_fd(front, VHOST_USER_SET_VRING_KICK, index, queue->kick_fd, err) &&
           tell(front, VHOST_USER_SET_VRING_ENABLE, &enable, sizeof enable, NULL, 0, err);
}

static bool queue_stop(struct vhost_backend *backend, uint16_t index, uint32_t *base, struct error *err)
{
    struct front_end *front = front_end_of(backend);
    struct vhost_user_vring_state state = {index, 0};
    if (!send_message(front, VHOST_USER_GET_VRING_BASE, 0, &state, sizeof state, NULL, 0, err) ||
        !receive_answer(front, VHOST_USER_GET_VRING_BASE, &state, sizeof state, NULL, err))
        return false;
    *base = state.number;
    front->stopped_clean = true;
    return true;
}

static bool get_config(struct vhost_backend *backend, void *config, size_t size, struct error *err)
{
    struct front_end *front = front_end_of(backend);
    struct vhost_user_config message = {.size = (uint32_t)MIN(size, (size_t)VHOST_USER_MAX_CONFIG)};
    uint32_t length = (uint32_t)offsetof(struct vhost_user_config, data) + message.size;
    if (!send_message(front, VHOST_USER_GET_CONFIG, 0, &message, length, NULL, 0, err) ||
        !receive_answer(front, VHOST_USER_GET_CONFIG, &message, length, NULL, err))
        return false;
    memcpy(config, message.data, MIN(size, (size_t)VHOST_USER_MAX_CONFIG));
    return true;
}

static bool set_config(struct vhost_backend *backend, uint32_t offset, const void *data, size_t size, struct error *err)
{
    struct vhost_user_config message = {.offset = offset, .size = (uint32_t)size};
    if (size > sizeof message.data)
        return fail(err, EINVAL, "configuration space: %zu bytes at once are too many", size);
    memcpy(message.data, data, size);
    return tell(front_end_of(backend), VHOST_USER_SET_CONFIG, &message,
                (uint32_t)(offsetof(struct vhost_user_config, data) + size), NULL, 0, err);
}

static void close_front_end(struct vhost_backend *backend)
{
    struct front_end *front = front_end_of(backend);
    loop_timer_cancel(&front->reconnect);
    disconnect(front);
    if (front->inflight_fd >= 0)
        close(front->inflight_fd);
    free(front->id);
    free(front->path);
    free(front);
}

static const struct vhost_backend_ops front_end_ops = {
    .get_features = get_features,
    .set_features = set_features,
    .max_queues = max_queues,
    .set_memory = set_memory,
    .queue_start = queue_start,
    .queue_stop = queue_stop,
    .get_config = get_config,
    .set_config = set_config,
    .close = close_front_end,
};

struct vhost_backend *vhost_user_open(struct loop *loop, const char *id, const char *path, struct error *err)
{
    struct front_end *front = new (struct front_end);
    front->loop = loop;
    front->id = xstrdup(id);
    front->path = xstrdup(path);
    front->fd = front->channel = front->inflight_fd = -1;
    front->backend.ops = &front_end_ops;
    front->backend.id = front->id;
    front->reconnect = (struct loop_timer){.fn = on_reconnect, .arg = front};
    if (connect_and_negotiate(front, err))
        return &front->backend;
    close_front_end(&front->backend);
    return NULL;
}
