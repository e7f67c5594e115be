/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user front end: implements the device model's vhost_backend (emulator/hw/vhost_backend.h) on a unix socket to a
 * storage daemon.
 *
 * Calls block with a timeout, as that interface wants; they come from any thread. `lock` lets one at a time speak, and
 * is never held while the device is told something, because the device calls with the machine lock held. The loop
 * watches the socket only for its end (an answer that a call waits for must not wake it), and the second channel for
 * "the configuration has changed".
 *
 * A peer that is silent, or answers something else than it was asked, is hung up on: later answers would be taken for
 * those of other questions. When the peer is gone, a timer tries to reach it again. A new connection counts only once
 * its first answer is there, and that one is waited for in the loop: a daemon that is up but busy, or serves another
 * machine, must not stop this one. The record of requests in flight lies in memory that we keep, so a restarted daemon
 * answers what its predecessor left open.
 *
 * What that record cannot hide: writes that a killed daemon had answered but kept in its own memory (tables of a qcow2
 * image) are missing in the next one, and the guest does not learn of it. One that is asked to end loses nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
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

/* A queue stops when its last request is through, which storage far away may take long for. */
enum { ANSWER_TIMEOUT_MS = 10000, STOP_TIMEOUT_MS = 60000 };
#define RECONNECT_NS 100000000ull

#define WANTED_PROTOCOL_FEATURES                                                                                       \
    (VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                              \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) |                     \
     VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ))

struct front_end {
    struct vhost_backend backend;
    struct loop *loop;
    char *id, *path;
    bool is_private;      /* the peer is a child of ours: when it is gone, it is gone for good */
    pthread_mutex_t lock; /* all below; taken inside the machine lock */
    int fd, channel;      /* -1: not connected; the channel on which the peer makes requests */
    int timeout_ms;       /* of the call under way */
    struct loop_watch watch, channel_watch;
    struct loop_timer reconnect;
    uint64_t features, protocol_features;
    uint16_t max_queues;
    int inflight_fd; /* kept over reconnects; -1: none */
    struct vhost_user_inflight inflight;
    bool inflight_sent; /* on this connection */
};

static struct front_end *front_end_of(struct vhost_backend *backend)
{
    return container_of(backend, struct front_end, backend);
}

/* Messages ------------------------------------------------------------------------------------------------------- */

static bool refused(struct front_end *front, struct error *err, const char *what)
{
    return fail(err, EPROTO, "vhost-user '%s' at '%s': %s", front->id, front->path, what);
}

/* The conversation cannot go on. The end of the socket wakes the loop, which does the rest. */
static bool lost(struct front_end *front, struct error *err, const char *what)
{
    front->backend.is_connected = false;
    if (front->fd >= 0)
        shutdown(front->fd, SHUT_RDWR);
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
        int ready = front->fd < 0 ? -1 : poll(&readable, 1, front->timeout_ms);
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
        if (got < 0 && front->fd >= 0 && errno == EINTR)
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
    return !verdict || refused(front, err, "the daemon refused a setting");
}

static bool tell_number(struct front_end *front, uint32_t request, uint64_t number, struct error *err)
{
    return tell(front, request, &number, sizeof number, NULL, 0, err);
}

/* Connection ----------------------------------------------------------------------------------------------------- */

static void disconnect(struct front_end *front)
{
    loop_unwatch(&front->watch);
    if (front->fd >= 0)
        close(TAKE_FD(front->fd));
    loop_unwatch(&front->channel_watch);
    if (front->channel >= 0)
        close(TAKE_FD(front->channel));
    front->inflight_sent = false;
    front->backend.is_connected = false;
}

static void try_again_later(struct front_end *front)
{
    loop_timer_arm(front->loop, &front->reconnect, loop_now_ns(front->loop) + RECONNECT_NS);
}

/* The end of the socket, whoever brought it about. */
static void on_end(void *arg, uint32_t events)
{
    struct front_end *front = arg;
    (void)events;
    pthread_mutex_lock(&front->lock); /* a call under way hears of the end by itself */
    disconnect(front);
    pthread_mutex_unlock(&front->lock);
    if (!front->is_private) { /* of our child's end its own watch tells */
        log_warning("vhost-user '%s': the daemon at '%s' is gone; the guest's requests wait until it is back",
                    front->id, front->path);
        try_again_later(front);
    }
    if (front->backend.events)
        front->backend.events->disconnected(front->backend.owner);
}

static void close_channel(struct front_end *front)
{
    loop_unwatch(&front->channel_watch);
    close(TAKE_FD(front->channel));
}

/* The answer that a daemon may want to its request; it comes before what we do about it, or both would wait. */
static bool answer_on_channel(struct front_end *front, const struct vhost_user_header *request, uint64_t verdict)
{
    struct {
        struct vhost_user_header header;
        uint64_t verdict;
    } __attribute__((packed))
    answer = {{request->request, VHOST_USER_VERSION | VHOST_USER_REPLY, sizeof verdict}, verdict};
    return send(front->channel, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof answer;
}

static void on_channel(void *arg, uint32_t events)
{
    struct front_end *front = arg;
    struct vhost_user_header header;
    (void)events;
    ssize_t got = recv(front->channel, &header, sizeof header, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    /* There is one request that we announced to understand, and it has no payload. */
    bool known = got == sizeof header && header.request == VHOST_USER_BACKEND_CONFIG_CHANGE && !header.size;
    if (got > 0 && !known)
        log_warning("vhost-user '%s': the daemon at '%s' asks for something unknown; it is not listened to any more",
                    front->id, front->path);
    if (!known || (header.flags & VHOST_USER_NEED_REPLY && !answer_on_channel(front, &header, 0))) {
        close_channel(front);
        return;
    }
    if (front->backend.events)
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
    auto_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) /* EAGAIN: its backlog is full */
        return fail_errno(err, errno, "cannot connect to '%s'", path), -1;
    fcntl(fd, F_SETFL, 0); /* calls block */
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

/* What follows the answer to GET_FEATURES. */
static bool negotiate(struct front_end *front, struct error *err)
{
    uint64_t features, protocol_features, queues = 1;
    if (!receive_answer(front, VHOST_USER_GET_FEATURES, &features, sizeof features, NULL, err))
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

/* Connects and asks the first question. */
static bool begin_connection(struct front_end *front, struct error *err)
{
    front->fd = connect_socket(front->path, err);
    front->timeout_ms = ANSWER_TIMEOUT_MS;
    return front->fd >= 0 && send_message(front, VHOST_USER_GET_FEATURES, 0, NULL, 0, NULL, 0, err);
}

static bool complete_connection(struct front_end *front, struct error *err)
{
    loop_unwatch(&front->watch);
    if (!negotiate(front, err))
        return false;
    loop_watch(front->loop, &front->watch, front->fd, EPOLLRDHUP, on_end, front);
    front->backend.is_connected = true;
    return true;
}

/* The first answer of a daemon that is back, or the end of the attempt. */
static void on_first_answer(void *arg, uint32_t events)
{
    struct front_end *front = arg;
    auto_error err = {0};
    (void)events;
    pthread_mutex_lock(&front->lock);
    bool good = complete_connection(front, &err);
    if (!good)
        disconnect(front);
    pthread_mutex_unlock(&front->lock);
    if (!good) {
        try_again_later(front);
        return;
    }
    log_info("vhost-user '%s': the daemon at '%s' is back", front->id, front->path);
    if (front->backend.events)
        front->backend.events->connected(front->backend.owner);
}

static void on_reconnect(void *arg)
{
    struct front_end *front = arg;
    pthread_mutex_lock(&front->lock);
    if (begin_connection(front, NULL)) {
        loop_watch(front->loop, &front->watch, front->fd, EPOLLIN | EPOLLRDHUP, on_first_answer, front);
    } else {
        disconnect(front);
        try_again_later(front);
    }
    pthread_mutex_unlock(&front->lock);
}

/* The interface -------------------------------------------------------------------------------------------------- */

/* Begins a call: nobody else speaks until the end of the scope. False with an error when there is nobody to speak to.
 */
static struct front_end *enter(struct vhost_backend *backend, int timeout_ms)
{
    struct front_end *front = front_end_of(backend);
    pthread_mutex_lock(&front->lock);
    front->timeout_ms = timeout_ms;
    return front;
}

static void leave(struct front_end **front)
{
    pthread_mutex_unlock(&(*front)->lock);
}
#define auto_leave __attribute__((cleanup(leave))) struct front_end

static bool is_there(struct front_end *front, struct error *err)
{
    return front->backend.is_connected ||
           fail(err, ENOTCONN, "vhost-user '%s' at '%s': the daemon is gone", front->id, front->path);
}

static bool get_features(struct vhost_backend *backend, uint64_t *features, struct error *err)
{
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    if (!is_there(front, err) || !ask(front, VHOST_USER_GET_FEATURES, features, err))
        return false;
    *features &=
        ~(VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES) | VIRTIO_BIT(VHOST_F_LOG_ALL)); /* between the two of us */
    return true;
}

static bool set_features(struct vhost_backend *backend, uint64_t features, struct error *err)
{
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    return is_there(front, err) &&
           tell_number(front, VHOST_USER_SET_FEATURES, features | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES), err);
}

/* A new driver has new rings: what the record says is about the old ones. */
static void forget(struct vhost_backend *backend)
{
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    if (front->inflight_fd >= 0)
        close(TAKE_FD(front->inflight_fd));
    front->inflight_sent = false;
}

static uint16_t max_queues(struct vhost_backend *backend)
{
    return front_end_of(backend)->max_queues;
}

static bool set_memory(struct vhost_backend *backend, const struct vhost_memory_region *regions, size_t count,
                       struct error *err)
{
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
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
    return is_there(front, err) && tell(front, VHOST_USER_SET_MEM_TABLE, &table, size, fds, (int)count, err);
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
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    struct vhost_user_vring_state size = {index, queue->size}, base = {index, queue->base}, enable = {index, 1};
    struct vhost_user_vring_addresses addresses = {.index = index,
                                                   .descriptors = (uintptr_t)queue->descriptors,
                                                   .available = (uintptr_t)queue->driver,
                                                   .used = (uintptr_t)queue->device};
    return is_there(front, err) && set_inflight(front, count, queue->size, err) &&
           tell(front, VHOST_USER_SET_VRING_NUM, &size, sizeof size, NULL, 0, err) &&
           tell(front, VHOST_USER_SET_VRING_BASE, &base, sizeof base, NULL, 0, err) &&
           tell(front, VHOST_USER_SET_VRING_ADDR, &addresses, sizeof addresses, NULL, 0, err) &&
           set_vring_fd(front, VHOST_USER_SET_VRING_CALL, index, queue->call_fd, err) &&
           set_vring_fd(front, VHOST_USER_SET_VRING_KICK, index, queue->kick_fd, err) &&
           tell(front, VHOST_USER_SET_VRING_ENABLE, &enable, sizeof enable, NULL, 0, err);
}

static bool queue_stop(struct vhost_backend *backend, uint16_t index, uint32_t *base, struct error *err)
{
    auto_leave *front = enter(backend, STOP_TIMEOUT_MS);
    struct vhost_user_vring_state state = {index, 0};
    if (!is_there(front, err) ||
        !send_message(front, VHOST_USER_GET_VRING_BASE, 0, &state, sizeof state, NULL, 0, err) ||
        !receive_answer(front, VHOST_USER_GET_VRING_BASE, &state, sizeof state, NULL, err))
        return false;
    *base = state.number;
    return true;
}

static bool get_config(struct vhost_backend *backend, void *config, size_t size, struct error *err)
{
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    struct vhost_user_config message = {.size = (uint32_t)MIN(size, (size_t)VHOST_USER_MAX_CONFIG)};
    uint32_t length = (uint32_t)offsetof(struct vhost_user_config, data) + message.size;
    if (!is_there(front, err) || !send_message(front, VHOST_USER_GET_CONFIG, 0, &message, length, NULL, 0, err) ||
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
    auto_leave *front = enter(backend, ANSWER_TIMEOUT_MS);
    return is_there(front, err) && tell(front, VHOST_USER_SET_CONFIG, &message,
                                        (uint32_t)(offsetof(struct vhost_user_config, data) + size), NULL, 0, err);
}

static void close_front_end(struct vhost_backend *backend)
{
    struct front_end *front = front_end_of(backend);
    loop_timer_cancel(&front->reconnect);
    disconnect(front);
    if (front->inflight_fd >= 0)
        close(front->inflight_fd);
    pthread_mutex_destroy(&front->lock);
    free(front->id);
    free(front->path);
    free(front);
}

static const struct vhost_backend_ops front_end_ops = {
    .get_features = get_features,
    .set_features = set_features,
    .forget = forget,
    .max_queues = max_queues,
    .set_memory = set_memory,
    .queue_start = queue_start,
    .queue_stop = queue_stop,
    .get_config = get_config,
    .set_config = set_config,
    .close = close_front_end,
};

struct vhost_backend *vhost_user_open(struct loop *loop, const char *id, const char *path, bool is_private,
                                      struct error *err)
{
    struct front_end *front = new (struct front_end);
    front->loop = loop;
    front->id = xstrdup(id);
    front->path = xstrdup(path);
    front->is_private = is_private;
    front->fd = front->channel = front->inflight_fd = -1;
    front->backend.ops = &front_end_ops;
    front->backend.id = front->id;
    front->reconnect = (struct loop_timer){.fn = on_reconnect, .arg = front};
    pthread_mutex_init(&front->lock, NULL);
    if (begin_connection(front, err) && complete_connection(front, err))
        return &front->backend;
    close_front_end(&front->backend);
    return NULL;
}
