/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a virtqueue: split and packed rings (virtio 1.3, sections 2.7 and 2.8) with indirect descriptors
 * and event indexes.
 *
 *     while ((n = virtqueue_pop(vq, &element)) > 0) {
 *         ... read from virtqueue_element_out(), fill virtqueue_element_in() ...
 *         virtqueue_push(vq, &element, bytes_filled);
 *     }
 *     if (virtqueue_should_notify(vq)) ring the driver's bell;
 *     if (n < 0) tell the driver that the device needs a reset; vq->broken says why
 *
 * Elements may be pushed in any order, long after they were popped. A driver that lies (indexes that run ahead, chains
 * that loop or leave memory, nested or oversize indirect tables) makes virtqueue_pop() fail with -EPROTO; the queue is
 * then broken and stays so until it is configured again. It never makes us read or write outside of guest memory, loop
 * or wait. Every field is read once and the copy is checked, because the driver may change memory while we look.
 *
 * Threads: one thread at a time uses a queue (its owner serializes pop and push). The driver at the other end runs
 * concurrently, in another thread or process; all ordering towards it is done here. Nothing yields.
 */
#ifndef VIRTIO_VIRTQUEUE_H
#define VIRTIO_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "base/error.h"
#include "virtio/guest_memory.h"

#define VIRTQUEUE_MAX_SIZE 32768u
/* A chain in the ring is bounded by the ring's size; one in an indirect table by this or the ring's size, whichever is
 * greater (drivers do make indirect chains longer than a small ring). */
#define VIRTQUEUE_MAX_INDIRECT 1024u

struct virtqueue;

/* One buffer chain. Zero it before the first use and reuse it: its arrays grow to the largest chain seen. */
struct virtqueue_segment {
    uint64_t address; /* guest-physical */
    uint64_t length;
};
struct virtqueue_element {
    uint16_t id;        /* split: index of the head descriptor; packed: the driver's buffer id */
    uint16_t slots;     /* ring descriptors that the chain takes (packed rings count them) */
    uint32_t out_count; /* pieces the device reads, first in iov */
    uint32_t in_count;  /* pieces the device writes, behind them */
    uint64_t out_bytes, in_bytes;
    struct iovec *iov;                  /* may be trimmed by the owner while it works */
    struct virtqueue_segment *segments; /* what iov was at first, for the notice of writes */
    uint32_t capacity;
};

static inline struct iovec *virtqueue_element_out(struct virtqueue_element *element)
{
    return element->iov;
}
static inline struct iovec *virtqueue_element_in(struct virtqueue_element *element)
{
    return element->iov ? element->iov + element->out_count : NULL; /* an element may be empty */
}
void virtqueue_element_release(struct virtqueue_element *element); /* frees the arrays, not the struct */

/* A descriptor as it stands in the ring, in host byte order; what the inflight record of a packed ring keeps. */
struct virtqueue_descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags;
    uint16_t id_or_next; /* split: next; packed: buffer id */
};

/* Hooks for a record of requests in flight that outlives the process (vhost-user's inflight region). Any may be NULL.
 *   popped: the chain has been taken from the ring; the record says so before the request starts.
 *   completing: the used entry is about to be written.
 *   completed: the used index (split) or the used descriptor's flags (packed) have been published. */
struct virtqueue_inflight_ops {
    void (*popped)(void *arg, uint16_t id, const struct virtqueue_descriptor *descriptors, uint16_t count);
    void (*completing)(void *arg, uint16_t id);
    void (*completed)(void *arg, uint16_t id, uint16_t used_index, bool used_wrap);
};

/* Where the next entries are taken and returned; all that must be kept to stop and resume a queue. */
struct virtqueue_state {
    uint16_t last_avail; /* split: free-running index; packed: position in the ring */
    uint16_t used;
    bool avail_wrap, used_wrap; /* packed only */
};

struct virtqueue {
    struct guest_memory *memory;
    uint64_t features; /* negotiated: INDIRECT_DESC, EVENT_IDX, RING_PACKED are looked at */
    uint16_t size;     /* 0: not configured */
    bool packed, event_index;
    const char *broken; /* why, a literal; NULL while all is well */
    uint32_t in_flight; /* ring slots popped and not yet pushed; never more than `size` */

    /* Host addresses of the three areas, and the guest address of the one that the device writes (0: not told) for the
     * notice of writes. */
    void *descriptors, *driver, *device;
    uint64_t descriptors_address, device_address;

    struct virtqueue_state state;
    uint32_t unsignalled; /* ring slots pushed since virtqueue_should_notify() was last asked */
    bool signal_anyway;   /* resumed from elsewhere: we do not know what the driver has been told */
    bool notify_disabled;

    const struct virtqueue_inflight_ops *inflight;
    void *inflight_arg;
    struct virtqueue_descriptor *scratch; /* `size` entries, for the inflight record; NULL without one */
};

void virtqueue_init(struct virtqueue *queue, struct guest_memory *memory); /* not configured */
void virtqueue_destroy(struct virtqueue *queue);                           /* back to not configured */

/* Bytes that the areas take: [0] descriptor area, [1] driver area (available ring), [2] device area (used ring). */
struct virtqueue_layout {
    uint64_t size[3];
    uint32_t alignment[3];
};
struct virtqueue_layout virtqueue_layout(uint16_t size, bool packed);

/* Configures the queue from guest-physical addresses (virtio-mmio, PCI). The state starts at its beginning. */
bool virtqueue_configure(struct virtqueue *queue, uint64_t features, uint16_t size, uint64_t descriptors,
                         uint64_t driver, uint64_t device, struct error *err);
/* The same from host pointers whose spans the caller has checked against virtqueue_layout() (vhost-user). The guest
 * addresses are for the notice of writes; 0 when not known. */
bool virtqueue_configure_pointers(struct virtqueue *queue, uint64_t features, uint16_t size, void *descriptors,
                                  void *driver, void *device, uint64_t descriptors_address, uint64_t device_address,
                                  struct error *err);

struct virtqueue_state virtqueue_save(const struct virtqueue *queue);
bool virtqueue_restore(struct virtqueue *queue, struct virtqueue_state state, struct error *err);
/* Takes over the used index from shared memory, when only the available index is known (vhost-user SET_VRING_BASE). */
void virtqueue_load_used(struct virtqueue *queue);
/* The number that vhost-user's SET_VRING_BASE and GET_VRING_BASE carry: split: the available index; packed: bits 0-14
 * and 15 available position and wrap counter, bits 16-30 and 31 the used ones. */
uint32_t virtqueue_base_encode(const struct virtqueue *queue, struct virtqueue_state state);
struct virtqueue_state virtqueue_base_decode(bool packed, uint32_t base);

/* False when out of memory. Set while the queue is configured and idle. */
bool virtqueue_set_inflight(struct virtqueue *queue, const struct virtqueue_inflight_ops *ops, void *arg);

/* 1: *element holds a chain; 0: the ring is empty; -EPROTO: the queue is (now) broken; -ENOMEM. */
int virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *element);
/* Takes up a chain again that an earlier process had popped: split rings, by its head. As virtqueue_pop(). */
int virtqueue_pop_head(struct virtqueue *queue, uint16_t head, struct virtqueue_element *element);
/* The same for packed rings, from the descriptors that the inflight record kept. */
int virtqueue_pop_recorded(struct virtqueue *queue, const struct virtqueue_descriptor *descriptors, uint16_t count,
                           struct virtqueue_element *element);
bool virtqueue_empty(struct virtqueue *queue); /* nothing to pop now; true for a broken queue */

/* Gives the chain back with `written` bytes filled from the start of its in-pieces (clamped to what there is). */
void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint64_t written);

/* Does the driver want a notification for what was pushed since this was last asked? */
bool virtqueue_should_notify(struct virtqueue *queue);
/* Ask the driver not to notify us while we poll (a hint). */
void virtqueue_disable_notify(struct virtqueue *queue);
/* Ask for notifications again. True: something came in meanwhile, pop before waiting. */
bool virtqueue_enable_notify(struct virtqueue *queue);

#endif
