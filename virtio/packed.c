/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed virtqueues, virtio 1.3 section 2.8.
 *
 * One ring of descriptors, written by both sides in turn. Each lap has a wrap bit, 1 at first; a descriptor is
 * available when its AVAILABLE flag equals the lap's bit and its USED flag does not, and used when both equal it. A
 * chain takes consecutive descriptors; its last one carries the buffer id. We return a chain by writing one descriptor
 * at our own position and moving on by as many as the chain took. The flags carry the order: loaded with acquire before
 * anything else of a chain, stored with release after all else.
 */
#include "virtio/ring.h"

#include <errno.h>
#include <string.h>
#include "base/math.h"

enum { EVENT_OFFSET = 0, EVENT_FLAGS = 2 };
#define WRAP_BIT 0x8000u

static uint16_t next_place(const struct virtqueue *queue, uint16_t place, uint16_t steps, bool *wrap)
{
    uint32_t next = (uint32_t)place + steps;
    if (next >= queue->size) {
        next -= queue->size;
        *wrap = !*wrap;
    }
    return (uint16_t)next;
}

static uint16_t load_flags(const struct virtqueue *queue, uint16_t place)
{
    return ring_load16_acquire(queue->descriptors, (size_t)place * DESCRIPTOR_BYTES + 14);
}

bool packed_empty(struct virtqueue *queue)
{
    uint16_t flags = load_flags(queue, queue->state.last_avail);
    bool available = flags & DESCRIPTOR_AVAILABLE, used = flags & DESCRIPTOR_USED;
    return !(available == queue->state.avail_wrap && used != queue->state.avail_wrap);
}

static int finish_pop(struct virtqueue *queue, struct virtqueue_element *element, uint16_t count)
{
    element->slots = count;
    queue->in_flight += count;
    if (queue->inflight && queue->inflight->popped)
        queue->inflight->popped(queue->inflight_arg, element->id, queue->scratch, count);
    return 1;
}

int packed_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    if (packed_empty(queue))
        return 0;
    uint16_t place = queue->state.last_avail, count = 0;
    bool wrap = queue->state.avail_wrap;
    struct virtqueue_descriptor entry;
    chain_begin(element, 0);
    do {
        if (queue->in_flight + count >= queue->size)
            return virtqueue_break(queue, "a chain of descriptors is longer than what the ring has left");
        entry = packed_load_descriptor(queue->descriptors, place);
        if (queue->scratch)
            queue->scratch[count] = entry;
        count++;
        int result = chain_add(queue, element, &entry);
        if (result)
            return result;
        place = next_place(queue, place, 1, &wrap);
    } while (entry.flags & DESCRIPTOR_NEXT);
    element->id = entry.id_or_next;
    queue->state.last_avail = place;
    queue->state.avail_wrap = wrap;
    return finish_pop(queue, element, count);
}

int virtqueue_pop_recorded(struct virtqueue *queue, const struct virtqueue_descriptor *descriptors, uint16_t count,
                           struct virtqueue_element *element)
{
    if (queue->broken)
        return -EPROTO;
    if (!queue->packed || !count || queue->in_flight + count > queue->size)
        return virtqueue_break(queue, "the record of requests in flight does not fit the ring");
    chain_begin(element, descriptors[count - 1].id_or_next);
    for (uint16_t i = 0; i < count; i++) {
        int result = chain_add(queue, element, &descriptors[i]);
        if (result)
            return result;
        if (queue->scratch && queue->scratch != descriptors)
            queue->scratch[i] = descriptors[i];
    }
    return finish_pop(queue, element, count);
}

void packed_push(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written)
{
    size_t at = (size_t)queue->state.used * DESCRIPTOR_BYTES;
    uint16_t flags =
        (queue->state.used_wrap ? DESCRIPTOR_AVAILABLE | DESCRIPTOR_USED : 0) | (written ? DESCRIPTOR_WRITE : 0);
    ring_store32(queue->descriptors, at + 8, written);
    ring_store16(queue->descriptors, at + 12, element->id);
    ring_store16_release(queue->descriptors, at + 14, flags);
    ring_note_write(queue, queue->descriptors_address, at, DESCRIPTOR_BYTES);
    queue->state.used = next_place(queue, queue->state.used, element->slots, &queue->state.used_wrap);
}

bool packed_should_notify(struct virtqueue *queue)
{
    uint16_t flags = ring_load16_acquire(queue->driver, EVENT_FLAGS);
    if (flags == PACKED_EVENT_DISABLE)
        return false;
    if (flags != PACKED_EVENT_DESCRIPTOR || !queue->event_index || queue->unsignalled >= queue->size)
        return true;
    uint16_t at = ring_load16_relaxed(queue->driver, EVENT_OFFSET);
    uint16_t event = at & (WRAP_BIT - 1);
    if (!!(at & WRAP_BIT) != queue->state.used_wrap)
        event -= queue->size; /* it lies in the lap before ours */
    return ring_event_crossed(event, queue->state.used, queue->state.used - (uint16_t)queue->unsignalled);
}

void packed_set_notify(struct virtqueue *queue, bool enable)
{
    uint16_t flags = enable ? PACKED_EVENT_ENABLE : PACKED_EVENT_DISABLE;
    if (enable && queue->event_index) {
        ring_store16_relaxed(queue->device, EVENT_OFFSET,
                             queue->state.last_avail | (queue->state.avail_wrap ? WRAP_BIT : 0));
        flags = PACKED_EVENT_DESCRIPTOR;
    }
    ring_store16_release(queue->device, EVENT_FLAGS, flags);
    ring_note_write(queue, queue->device_address, 0, 4);
}
