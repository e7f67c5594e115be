/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to virtio/: what stands in the shared rings, and how to read it once.
 *
 *     split (2.7)                                          packed (2.8)
 *     descriptor  le64 address, le32 length,               descriptor  le64 address, le32 length,
 *                 le16 flags, le16 next                                le16 id, le16 flags
 *     driver      le16 flags, le16 index,                  driver      le16 offset:15 wrap:1, le16 flags
 *                 le16 ring[size], le16 used_event
 *     device      le16 flags, le16 index,                  device      le16 offset:15 wrap:1, le16 flags
 *                 {le32 id, le32 length}[size], le16 avail_event
 */
#ifndef VIRTIO_RING_H
#define VIRTIO_RING_H

#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include "virtio/virtqueue.h"

enum descriptor_flag {
    DESCRIPTOR_NEXT = 1,
    DESCRIPTOR_WRITE = 2,
    DESCRIPTOR_INDIRECT = 4,
    DESCRIPTOR_AVAILABLE = 1 << 7, /* packed */
    DESCRIPTOR_USED = 1 << 15,     /* packed */
};
enum split_flag { SPLIT_AVAILABLE_NO_INTERRUPT = 1, SPLIT_USED_NO_NOTIFY = 1 };
enum packed_event { PACKED_EVENT_ENABLE = 0, PACKED_EVENT_DISABLE = 1, PACKED_EVENT_DESCRIPTOR = 2 };

#define DESCRIPTOR_BYTES 16u

/* Loads happen exactly once, whatever the optimizer thinks. Indirect tables may stand at any address, hence packed. */
#define RING_DEFINE_ACCESS(bits)                                                                                       \
    static inline uint##bits##_t ring_load##bits(const void *area, size_t offset)                                      \
    {                                                                                                                  \
        struct at {                                                                                                    \
            uint##bits##_t value;                                                                                      \
        } __attribute__((packed, may_alias));                                                                          \
        return le##bits##toh(((const volatile struct at *)((const char *)area + offset))->value);                      \
    }                                                                                                                  \
    static inline void ring_store##bits(void *area, size_t offset, uint##bits##_t value)                               \
    {                                                                                                                  \
        struct at {                                                                                                    \
            uint##bits##_t value;                                                                                      \
        } __attribute__((packed, may_alias));                                                                          \
        ((volatile struct at *)((char *)area + offset))->value = htole##bits(value);                                   \
    }

RING_DEFINE_ACCESS(16)
RING_DEFINE_ACCESS(32)
RING_DEFINE_ACCESS(64)

/* Wishes for notification, which the other side changes while we look; 2.7.10 and 2.8.10 have a fence around them. */
static inline uint16_t ring_load16_relaxed(const void *area, size_t offset)
{
    return le16toh(__atomic_load_n((const uint16_t *)((const char *)area + offset), __ATOMIC_RELAXED));
}

static inline void ring_store16_relaxed(void *area, size_t offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)((char *)area + offset), htole16(value), __ATOMIC_RELAXED);
}

/* Indexes and flags that order the rest; the areas' alignment is checked when a queue is configured. */
static inline uint16_t ring_load16_acquire(const void *area, size_t offset)
{
    return le16toh(__atomic_load_n((const uint16_t *)((const char *)area + offset), __ATOMIC_ACQUIRE));
}

static inline void ring_store16_release(void *area, size_t offset, uint16_t value)
{
    __atomic_store_n((uint16_t *)((char *)area + offset), htole16(value), __ATOMIC_RELEASE);
}

static inline struct virtqueue_descriptor split_load_descriptor(const void *table, size_t index)
{
    size_t at = index * DESCRIPTOR_BYTES;
    return (struct virtqueue_descriptor){
        .address = ring_load64(table, at),
        .length = ring_load32(table, at + 8),
        .flags = ring_load16(table, at + 12),
        .id_or_next = ring_load16(table, at + 14),
    };
}

static inline struct virtqueue_descriptor packed_load_descriptor(const void *table, size_t index)
{
    size_t at = index * DESCRIPTOR_BYTES;
    return (struct virtqueue_descriptor){
        .address = ring_load64(table, at),
        .length = ring_load32(table, at + 8),
        .flags = ring_load16(table, at + 14),
        .id_or_next = ring_load16(table, at + 12),
    };
}

/* Marks the queue broken for the first reason given; returns -EPROTO. */
static inline int virtqueue_break(struct virtqueue *queue, const char *reason)
{
    if (!queue->broken)
        queue->broken = reason;
    return -EPROTO;
}

/* The device wrote part of one of its areas: for dirty logs. */
static inline void ring_note_write(struct virtqueue *queue, uint64_t area_address, size_t offset, size_t length)
{
    if (queue->memory->ops->written && area_address)
        queue->memory->ops->written(queue->memory, area_address + offset, length);
}

/* chain.c: an element is emptied, then fed with the descriptors of its chain in order. 0, -EPROTO or -ENOMEM. */
void chain_begin(struct virtqueue_element *element, uint16_t id);
int chain_add(struct virtqueue *queue, struct virtqueue_element *element, const struct virtqueue_descriptor *entry);

/* split.c */
int split_pop(struct virtqueue *queue, struct virtqueue_element *element);
int split_pop_head(struct virtqueue *queue, uint16_t head, struct virtqueue_element *element);
bool split_empty(struct virtqueue *queue);
void split_push(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written);
bool split_should_notify(struct virtqueue *queue);
void split_set_notify(struct virtqueue *queue, bool enable);

/* packed.c */
int packed_pop(struct virtqueue *queue, struct virtqueue_element *element);
bool packed_empty(struct virtqueue *queue);
void packed_push(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written);
bool packed_should_notify(struct virtqueue *queue);
void packed_set_notify(struct virtqueue *queue, bool enable);

/* 2.7.10: has the index moved from `before` to `after` across the event? */
static inline bool ring_event_crossed(uint16_t event, uint16_t after, uint16_t before)
{
    return (uint16_t)(after - event - 1) < (uint16_t)(after - before);
}

#endif
