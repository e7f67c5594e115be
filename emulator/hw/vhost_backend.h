/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The other end of a vhost device: a process that works on the guest's virtqueues itself. The device model keeps the
 * guest-visible registers and the configuration space, and hands queues over through this interface. Implemented by
 * emulator/storage as a vhost-user front end on a unix socket.
 *
 * Calls block until the peer has answered (the implementation has a timeout and then fails): a guest that resets its
 * device must find the queues idle when its register write returns. They come from a vCPU's or the main loop's thread,
 * always with the machine lock held, so one at a time; an implementation uses neither that lock nor the loop inside
 * them. Events (`config_changed`, `disconnected`, `connected`) are called on the main loop's thread without the machine
 * lock.
 *
 * Order: connected; get_features; set_features and set_memory before the first queue_start; queue_stop of each before
 * another set_memory. The record of requests in flight (vhost-user's inflight region) is the implementation's business:
 * it asks for one on the first queue_start after `forget`, and hands it to a restarted peer by itself.
 */
#ifndef EMULATOR_HW_VHOST_BACKEND_H
#define EMULATOR_HW_VHOST_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct vhost_backend;

/* One RAM block of the machine. */
struct vhost_memory_region {
    uint64_t guest_base, size; /* guest-physical */
    void *host;                /* our mapping: ring addresses are given in this space */
    int fd;                    /* memfd, shared; stays open and ours */
    uint64_t fd_offset;
};

/* One virtqueue. Pointers are our own, inside one of the regions. */
struct vhost_queue {
    uint16_t size;
    uint32_t base; /* as in virtqueue_base_encode(): where the peer goes on */
    void *descriptors, *driver, *device;
    int kick_fd,
        call_fd; /* eventfds, ours; the guest's notification arrives in one, interrupts are asked for in the other */
};

struct vhost_backend_ops {
    /* What the peer offers: virtio feature bits, device-specific ones included. False: not connected or broken. */
    bool (*get_features)(struct vhost_backend *backend, uint64_t *features, struct error *err);
    bool (*set_features)(struct vhost_backend *backend, uint64_t features, struct error *err);
    /* The driver has reset the device: what was in flight will never be asked for. Also while not connected. */
    void (*forget)(struct vhost_backend *backend);
    uint16_t (*max_queues)(struct vhost_backend *backend); /* at least 1 */
    bool (*set_memory)(struct vhost_backend *backend, const struct vhost_memory_region *regions, size_t count,
                       struct error *err);
    /* `count` is the number of queues in the device: the inflight region is shared by all. */
    bool (*queue_start)(struct vhost_backend *backend, uint16_t index, uint16_t count, const struct vhost_queue *queue,
                        struct error *err);
    /* The peer is done with the queue when this returns true; *base says where it stopped. */
    bool (*queue_stop)(struct vhost_backend *backend, uint16_t index, uint32_t *base, struct error *err);
    /* The device's configuration space, from its beginning. */
    bool (*get_config)(struct vhost_backend *backend, void *config, size_t size, struct error *err);
    bool (*set_config)(struct vhost_backend *backend, uint32_t offset, const void *data, size_t size,
                       struct error *err);
    void (*close)(struct vhost_backend *backend); /* frees */
};

struct vhost_backend_events {
    void (*config_changed)(void *owner);
    void (*disconnected)(void *owner); /* the peer is gone; calls fail until `connected` */
    void (*connected)(void *owner);    /* it is back: the device starts its queues again */
};

struct vhost_backend {
    const struct vhost_backend_ops *ops;
    const char *id; /* of the -chardev, for messages */
    bool is_connected;
    const struct vhost_backend_events *events; /* set by the device; NULL before */
    void *owner;
};

#endif
