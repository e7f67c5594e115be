/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user back ends that answer anything, to the emulator's front end: an honest daemon whose answers deviate as the
 * input says (common/peer.h): wrong numbers, sizes, missing or surplus descriptors, requests of its own on the second
 * channel. Whatever it answers: each call ends and says why it failed, a configuration or base is inside of what was
 * asked for, and no descriptor is left behind.
 *
 * links: emulator/storage
 *
 * parts: common/peer.c
 */
#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/storage/internal.h"
#include "tests/fuzz/common/peer.h"
#include "virtio/features.h"
#include "virtio/vhost_user.h"

enum { HEAD = 2, MEMORY = 65536 };
enum setting { REPLY_ACK = 1, NO_INFLIGHT = 2, NO_CHANNEL = 4, ANNOUNCES = 8, ASKS_NONSENSE = 16 };

static const struct record_shape shape = {HEAD, fuzz_peer_fresh_deviation};
FUZZ_RECORDS(shape)

struct daemon {
    uint8_t settings;
    int memory, channel;
};

/* ---- the daemon ---- */

static bool receive(int fd, struct vhost_user_message *message, int *passed)
{
    char control[CMSG_SPACE(sizeof(int) * VHOST_USER_MAX_FDS)];
    struct iovec iov = {&message->header, sizeof message->header};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &header, MSG_WAITALL | MSG_CMSG_CLOEXEC);
    struct cmsghdr *ancillary = got > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    *passed = -1;
    for (size_t at = 0; ancillary && at + sizeof(int) <= ancillary->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
        if (*passed >= 0)
            close(*passed);
        memcpy(passed, CMSG_DATA(ancillary) + at, sizeof *passed);
    }
    return got == sizeof message->header && message->header.size <= sizeof message->payload &&
           fuzz_peer_receive(fd, &message->payload, message->header.size);
}

/* Bytes of the honest answer's payload, which is put in place; 0: none. */
static uint32_t answer(struct daemon *daemon, struct vhost_user_message *message, int *passed)
{
    switch (message->header.request) {
    case VHOST_USER_GET_FEATURES:
        message->payload.number = VIRTIO_BIT(VIRTIO_F_VERSION_1) | VIRTIO_BIT(VHOST_USER_F_PROTOCOL_FEATURES);
        return 8;
    case VHOST_USER_GET_PROTOCOL_FEATURES:
        message->payload.number =
            VIRTIO_BIT(VHOST_USER_PROTOCOL_F_MQ) | VIRTIO_BIT(VHOST_USER_PROTOCOL_F_CONFIG) |
            (daemon->settings & REPLY_ACK ? VIRTIO_BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) : 0) |
            (daemon->settings & NO_INFLIGHT ? 0 : VIRTIO_BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD)) |
            (daemon->settings & NO_CHANNEL ? 0 : VIRTIO_BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ));
        return 8;
    case VHOST_USER_GET_QUEUE_NUM: message->payload.number = 4; return 8;
    case VHOST_USER_GET_VRING_BASE: message->payload.state.number = 7; return 8;
    case VHOST_USER_GET_CONFIG: return message->header.size;
    case VHOST_USER_GET_INFLIGHT_FD:
        message->payload.inflight.mmap_size = 4096;
        *passed = daemon->memory;
        return message->header.size;
    default:
        if (!(message->header.flags & VHOST_USER_NEED_REPLY))
            return 0;
        message->payload.number = 0;
        return 8;
    }
}

/* Requests of the daemon's own, which deviate as well. */
static void speak_up(struct fuzz_peer *peer, struct daemon *daemon)
{
    struct vhost_user_header header = {daemon->settings & ASKS_NONSENSE ? 77 : VHOST_USER_BACKEND_CONFIG_CHANGE,
                                       VHOST_USER_VERSION | VHOST_USER_NEED_REPLY, 0};
    if (daemon->channel >= 0 && daemon->settings & ANNOUNCES)
        fuzz_peer_send(peer, daemon->channel, &header, sizeof header, -1);
}

static void serve(struct fuzz_peer *peer, int fd)
{
    struct daemon *daemon = peer->arg;
    struct vhost_user_message message = {0};
    int came;
    daemon->channel = -1;
    while (receive(fd, &message, &came)) {
        int passed = -1;
        if (message.header.request == VHOST_USER_SET_BACKEND_REQ_FD && daemon->channel < 0)
            daemon->channel = TAKE_FD(came);
        if (came >= 0)
            close(TAKE_FD(came));
        uint32_t size = answer(daemon, &message, &passed);
        message.header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
        message.header.size = size;
        if (size && !fuzz_peer_send(peer, fd, &message, sizeof message.header + size, passed))
            break;
        if (message.header.request == VHOST_USER_GET_CONFIG)
            speak_up(peer, daemon);
    }
    if (came >= 0)
        close(came);
    if (daemon->channel >= 0)
        close(daemon->channel);
}

/* ---- the device ---- */

struct device {
    struct vhost_backend *backend;
    struct loop *loop;
    struct loop_timer timer;
    uint8_t *memory;
    int fd, kick, call;
};

static void on_change(void *owner)
{
    struct device *device = owner;
    uint8_t config[60];
    auto_error err = {0};
    FUZZ_CHECK(device->backend->ops->get_config(device->backend, config, sizeof config, &err) || err.message);
}

static void on_loss(void *owner)
{
}

static const struct vhost_backend_events events = {on_change, on_loss, on_loss};

static void on_time(void *arg)
{
    loop_stop(arg);
}

static void run_briefly(struct device *device)
{
    device->timer = (struct loop_timer){.fn = on_time, .arg = device->loop};
    loop_timer_arm(device->loop, &device->timer, loop_now_ns(device->loop) + 1000000);
    loop_run(device->loop);
    loop_timer_cancel(&device->timer);
}

/* Every step is tried, also after one that failed: a device whose daemon is gone goes on asking. */
static void drive(struct device *device)
{
    const struct vhost_backend_ops *ops = device->backend->ops;
    struct vhost_backend *backend = device->backend;
    struct vhost_memory_region region = {0, MEMORY, device->memory, device->fd, 0};
    struct vhost_queue queue = {64,           0,           device->memory, device->memory + 1024, device->memory + 2048,
                                device->kick, device->call};
    uint64_t features = 0;
    uint32_t base;
    uint8_t config[VHOST_USER_MAX_CONFIG];
    struct error err[8] = {0};
    bool good[8];
    good[0] = ops->get_features(backend, &features, &err[0]);
    good[1] = ops->set_features(backend, features, &err[1]);
    good[2] = ops->set_memory(backend, &region, 1, &err[2]);
    good[3] = ops->get_config(backend, config, 60, &err[3]);
    run_briefly(device);
    FUZZ_CHECK(ops->max_queues(backend) <= UINT8_MAX);
    good[4] = ops->queue_start(backend, 0, 1, &queue, &err[4]);
    good[5] = ops->set_config(backend, 4, config, 8, &err[5]);
    good[6] = ops->queue_stop(backend, 0, &base, &err[6]);
    ops->forget(backend);
    good[7] = ops->queue_start(backend, 0, 1, &queue, &err[7]);
    run_briefly(device);
    for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
        FUZZ_CHECK(good[i] || err[i].message);
        error_clear(&err[i]);
    }
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (directory && readdir(directory))
        count++;
    if (directory)
        closedir(directory);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    unsigned before = open_descriptors();
    struct device device = {.loop = loop_new(LOOP_EPOLL, 0, NULL),
                            .fd = memfd_create("guest", MFD_CLOEXEC),
                            .kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                            .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    FUZZ_CHECK(ftruncate(device.fd, MEMORY) == 0);
    device.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, device.fd, 0);
    FUZZ_CHECK(device.memory != MAP_FAILED);
    struct daemon daemon = {.settings = data[0], .memory = device.fd, .channel = -1};
    struct fuzz_peer peer = {.script = records_after(data, size, HEAD), .serve = serve, .arg = &daemon};
    auto_error err = {0};
    fuzz_peer_start(&peer);
    device.backend = vhost_user_open(device.loop, "v", peer.path, data[1] & 1, &err);
    FUZZ_CHECK(device.backend || err.message);
    if (device.backend) {
        device.backend->owner = &device;
        device.backend->events = &events;
        drive(&device);
        device.backend->ops->close(device.backend);
    }
    fuzz_peer_stop(&peer);
    munmap(device.memory, MEMORY);
    close(device.fd);
    close(device.kick);
    close(device.call);
    loop_free(device.loop);
    FUZZ_CHECK(open_descriptors() == before);
    return 0;
}
