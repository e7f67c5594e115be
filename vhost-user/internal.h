/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share. One *device* an export; it serves one front end at a time. Everything runs on
 * the export's loop: messages in the connection's coroutine, kicks in watches, each request in a coroutine of its own;
 * what a request asks of the graph is done at the graph's home, which may be another loop (co_call_on()).
 *
 * Memory that the front end shares is mapped through memory.c only. It may lie in every byte of it at any time; the
 * rings are read by virtio/, which checks copies. Mappings change only while no request is in flight
 * (device_quiesce()).
 */
#ifndef VHOST_USER_INTERNAL_H
#define VHOST_USER_INTERNAL_H

#include <stdatomic.h>
#include "base/co.h"
#include "base/error.h"
#include "base/list.h"
#include "base/loop.h"
#include "base/stream.h"
#include "block/export.h"
#include "block/request.h"
#include "virtio/vhost_user.h"
#include "virtio/features.h"
#include "virtio/guest_memory.h"
#include "virtio/virtio_blk.h"
#include "virtio/virtqueue.h"

struct device;

/* A span of a file that a front end has handed over, mapped shared. */
struct mapping {
    uint8_t *base; /* as mmap returned it, page aligned; NULL: not mapped */
    size_t length;
    uint8_t *start; /* the byte asked for, and how many */
    size_t size;
};
bool mapping_open(struct mapping *mapping, int fd, uint64_t offset, uint64_t size, struct error *err);
void mapping_close(struct mapping *mapping);

/* One queue's part of the inflight region (inflight.c). */
struct inflight_queue {
    uint8_t *area;         /* struct inflight_split or inflight_packed; NULL: not recorded */
    uint16_t size;         /* entries */
    uint64_t counter;      /* order of submission */
    uint16_t *entry_of_id; /* packed: buffer id -> head entry, 65536 of them */
    /* What an earlier process left: chains to be taken up again, oldest first. */
    struct inflight_left {
        uint64_t counter;
        uint16_t head;
    } * left;
    unsigned left_count, left_next;
};

struct request {
    struct list link; /* device->free_requests */
    struct queue *queue;
    struct virtqueue_element element;
    struct virtio_blk_request blk;
};

struct queue {
    struct device *device;
    unsigned index;
    struct virtqueue ring;
    uint16_t size;
    struct vhost_user_vring_addresses addresses;
    uint32_t base; /* from SET_VRING_BASE, or where the queue stopped */
    bool has_addresses, enabled, started;
    int kick_fd, call_fd, error_fd;
    struct loop_watch kick;
    struct inflight_queue inflight;
    size_t in_flight;
    bool held; /* the limit of requests in flight is reached: the ring is looked at again when some are done */
    struct co_queue idle; /* woken when in_flight reaches 0 */
};

struct device {
    struct block_export *export;
    struct loop *loop, *home;
    struct edge *edge;         /* to be used at home only */
    atomic_bool has_front_end; /* the one thing of the device that others may read */
    struct virtio_blk_limits limits;
    char serial[VIRTIO_BLK_ID_BYTES + 1];

    struct listener *listener;
    struct co_group group; /* acceptor, which is also the connection's coroutine */
    struct co_group requests;
    struct stream *stream;          /* the front end's connection; NULL: none */
    struct stream *backend_channel; /* for our own messages to the front end; NULL: none */
    struct co_group notifiers;      /* at most one coroutine, which sends on it */
    bool config_changed;            /* the front end is to be told */
    uint64_t warning_time;          /* when counting `warnings` began */
    unsigned warnings;

    uint64_t features, protocol_features;
    struct guest_regions regions;
    struct mapping region_mappings[GUEST_REGIONS_MAX];
    struct mapping inflight_region, log;
    uint16_t queue_count;
    struct queue *queues;
    struct list free_requests;
};

/* message.c. Receiving: 1 a message; 0 the peer hung up in good order; -errno. */
int message_receive(struct stream *stream, struct vhost_user_message *message);
void message_close_fds(struct vhost_user_message *message);
int message_take_fd(struct vhost_user_message *message); /* -1 when there is none (left) */
/* Something that can be waited for and written to without ever blocking us: an eventfd, a pipe or a socket. */
bool message_fd_is_event(int fd);
bool message_reply(struct stream *stream, struct vhost_user_message *message, uint32_t size, int fd);

/* memory.c */
bool memory_set_table(struct device *device, struct vhost_user_message *message, struct error *err);
bool memory_add(struct device *device, const struct vhost_user_region *region, int fd, struct error *err);
bool memory_remove(struct device *device, const struct vhost_user_region *region, struct error *err);
void memory_clear(struct device *device);
bool memory_set_log(struct device *device, const struct vhost_user_log *log, int fd, struct error *err);
void memory_update_logging(struct device *device);

/* inflight.c */
bool inflight_create(struct device *device, struct vhost_user_inflight *description, int *fd, struct error *err);
bool inflight_attach(struct device *device, const struct vhost_user_inflight *description, int fd, struct error *err);
void inflight_detach(struct device *device);
/* When a queue has been configured: finds its record, brings it up to date with the ring, takes the ring's position
 * from it when there are requests to take up again, and sets the hooks. */
bool inflight_start(struct queue *queue, struct error *err);
/* The chains in flight when an earlier process ended, oldest first. Each call pops one: 1, 0 (no more), -EPROTO,
 * -ENOMEM. */
int inflight_resubmit(struct queue *queue, struct virtqueue_element *element);

/* queue.c */
void queue_init(struct queue *queue, struct device *device, unsigned index);
void queue_set_fd(int *slot, int fd);
bool queue_update(struct queue *queue, struct error *err); /* starts it if it is complete and enabled */
void queue_stop(struct queue *queue); /* YIELDS: no request in flight afterwards; base is where it stands */
void queue_reset(struct queue *queue);

/* device.c */
void device_serve(struct device *device); /* one front end, until it leaves. YIELDS */
void device_notify_resize(struct device *device, uint64_t size);
bool device_may_warn(struct device *device); /* a guest or front end must not be able to fill the log */

#endif
