/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues, virtio 1.3 section 2.7.
 *
 * The driver puts heads of chains in the available ring and moves its index; we put {head, bytes written} in the used
 * ring and move ours. Both indexes run freely over 16 bits. Ordering: the available index is loaded with acquire before
 * the entries it covers are read, the used index is stored with release after its entry; between changing what we want
 * to be told and looking whether it has already happened stands a full barrier, on both sides.
 */
#include "virtio/ring.h"

#include <errno.h>
#include <string.h>
#include "base/math.h"

/* Offsets in the driver and device areas. */
enum { RING_FLAGS = 0, RING_INDEX = 2, RING_ENTRIES = 4 };

static size_t used_event_offset(const struct virtqueue *queue)
{
    return RING_ENTRIES + 2u * queue->size;
}

static size_t avail_event_offset(const struct virtqueue *queue)
{
    return RING_ENTRIES + 8u * queue->size;
}

bool split_empty(struct virtqueue *queue)
{
    return ring_load16_acquire(queue->driver, RING_INDEX) == queue->state.last_avail;
}

/* Follows a chain through the descriptor table. It can be no longer than the table. */
int split_pop_head(struct virtqueue *queue, uint16_t head, struct virtqueue_element *element)
{
    uint16_t index = head, count = 0;
    chain_begin(element, head);
    if (queue->in_flight >= queue->size)
        return virtqueue_break(queue, "more chains are available than the ring has descriptors");
    for (;;) {
        if (index >= queue->size)
            return virtqueue_break(queue, count ? "a descriptor's next one is outside of the table"
                                                : "the head of a chain is outside of the descriptor table");
        if (count == queue->size)
            return virtqueue_break(queue, "a chain of descriptors loops");
        struct virtqueue_descriptor entry = split_load_descriptor(queue->descriptors, index);
        if (queue->scratch)
            queue->scratch[count] = entry;
        count++;
        int result = chain_add(queue, element, &entry);
        if (result)
            return result;
        if (!(entry.flags & DESCRIPTOR_NEXT))
            break;
        index = entry.id_or_next;
    }
    element->slots = 1;
    queue->in_flight++;
    if (queue->inflight && queue->inflight->popped)
        queue->inflight->popped(queue->inflight_arg, head, queue->scratch, count);
    return 1;
}

int split_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    uint16_t waiting = ring_load16_acquire(queue->driver, RING_INDEX) - queue->state.last_avail;
    if (!waiting)
        return 0;
    if (waiting > queue->size)
        return virtqueue_break(queue, "the available index has moved by more than the ring's size");
    uint16_t place = queue->state.last_avail & (queue->size - 1);
    uint16_t head = ring_load16(queue->driver, RING_ENTRIES + 2u * place);
    int result = split_pop_head(queue, head, element);
    if (result == 1)
        queue->state.last_avail++;
    return result;
}

void split_push(struct virtqueue *queue, const struct virtqueue_element *element, uint32_t written)
{
    size_t entry = RING_ENTRIES + 8u * (queue->state.used & (queue->size - 1));
    ring_store32(queue->device, entry, element->id);
    ring_store32(queue->device, entry + 4, written);
    queue->state.used++;
    ring_store16_release(queue->device, RING_INDEX, queue->state.used);
    ring_note_write(queue, queue->device_address, entry, 8);
    ring_note_write(queue, queue->device_address, RING_INDEX, 2);
}

bool split_should_notify(struct virtqueue *queue)
{
    if (!queue->event_index)
        return !(ring_load16_relaxed(queue->driver, RING_FLAGS) & SPLIT_AVAILABLE_NO_INTERRUPT);
    uint16_t event = ring_load16_relaxed(queue->driver, used_event_offset(queue));
    uint16_t before = queue->state.used - (uint16_t)queue->unsignalled;
    return queue->unsignalled > UINT16_MAX || ring_event_crossed(event, queue->state.used, before);
}

void split_set_notify(struct virtqueue *queue, bool enable)
{
    if (!queue->event_index) {
        ring_store16_relaxed(queue->device, RING_FLAGS, enable ? 0 : SPLIT_USED_NO_NOTIFY);
        ring_note_write(queue, queue->device_address, RING_FLAGS, 2);
    } else if (enable) {
        /* Disabling needs nothing: the driver notifies once it passes the event, which then lies behind it. */
        ring_store16_relaxed(queue->device, avail_event_offset(queue), queue->state.last_avail);
        ring_note_write(queue, queue->device_address, avail_event_offset(queue), 2);
    }
}
