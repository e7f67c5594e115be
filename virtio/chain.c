/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From descriptors to iovecs: what split and packed rings have in common. Each descriptor is a guest span that may
 * cross regions of host memory, or a table of further descriptors (2.7.5.3, 2.8.7). All that a driver can get wrong
 * about a single descriptor is found here; how far a chain may run is the rings' business.
 */
#include "virtio/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"
#include "virtio/features.h"

void chain_begin(struct virtqueue_element *element, uint16_t id)
{
    element->id = id;
    element->slots = 0;
    element->out_count = element->in_count = 0;
    element->out_bytes = element->in_bytes = 0;
}

void virtqueue_element_release(struct virtqueue_element *element)
{
    free(element->iov);
    free(element->segments);
    *element = (struct virtqueue_element){0};
}

static bool make_room(struct virtqueue_element *element)
{
    uint32_t used = element->out_count + element->in_count;
    if (used < element->capacity)
        return true;
    uint32_t capacity = MAX(8u, element->capacity * 2);
    struct iovec *iov = realloc(element->iov, capacity * sizeof *iov);
    if (iov)
        element->iov = iov;
    struct virtqueue_segment *segments = realloc(element->segments, capacity * sizeof *segments);
    if (segments)
        element->segments = segments;
    if (!iov || !segments)
        return false;
    element->capacity = capacity;
    return true;
}

/* One span of memory. An empty one is legal and adds nothing. */
static int add_span(struct virtqueue *queue, struct virtqueue_element *element, uint64_t address, uint64_t length,
                    bool for_write)
{
    uint64_t end;
    if (add_overflows(address, length, &end))
        return virtqueue_break(queue, "a descriptor wraps around the end of the address space");
    if (!for_write && element->in_count)
        return virtqueue_break(queue, "a descriptor to read stands behind one to write");
    while (length) {
        uint64_t piece = length;
        void *host = queue->memory->ops->translate(queue->memory, address, &piece, for_write);
        if (!host)
            return virtqueue_break(queue, "a descriptor points outside of guest memory");
        if (!make_room(element))
            return -ENOMEM;
        uint32_t place = element->out_count + element->in_count;
        element->iov[place] = (struct iovec){host, piece};
        element->segments[place] = (struct virtqueue_segment){address, piece};
        if (for_write) {
            element->in_count++;
            element->in_bytes += piece;
        } else {
            element->out_count++;
            element->out_bytes += piece;
        }
        address += piece;
        length -= piece;
    }
    return 0;
}

/* A cursor over a table in guest memory, which may itself cross regions of host memory. */
struct table {
    struct virtqueue *queue;
    uint64_t address;
    const uint8_t *host; /* the piece that was found last */
    uint64_t host_start, host_length;
};

static int table_load(struct table *table, uint32_t index, struct virtqueue_descriptor *entry)
{
    uint64_t offset = (uint64_t)index * DESCRIPTOR_BYTES;
    if (!table->host || offset < table->host_start ||
        !span_fits(offset - table->host_start, DESCRIPTOR_BYTES, table->host_length)) {
        struct guest_memory *memory = table->queue->memory;
        uint64_t length = (uint64_t)VIRTQUEUE_MAX_SIZE * DESCRIPTOR_BYTES;
        const uint8_t *host = memory->ops->translate(memory, table->address + offset, &length, false);
        if (!host || length < DESCRIPTOR_BYTES)
            return virtqueue_break(table->queue,
                                   "an indirect table lies outside of guest memory or is torn by its end");
        table->host = host;
        table->host_start = offset;
        table->host_length = length;
    }
    const uint8_t *at = table->host + (offset - table->host_start);
    *entry = table->queue->packed ? packed_load_descriptor(at, 0) : split_load_descriptor(at, 0);
    return 0;
}

/* Split tables are linked through `next` from entry 0; packed ones are taken in order, all entries. */
static int add_indirect(struct virtqueue *queue, struct virtqueue_element *element,
                        const struct virtqueue_descriptor *reference)
{
    uint32_t entries = reference->length / DESCRIPTOR_BYTES;
    uint64_t end;
    if (!(queue->features & VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC)))
        return virtqueue_break(queue, "an indirect descriptor, which was not negotiated");
    if (reference->flags & DESCRIPTOR_NEXT)
        return virtqueue_break(queue, "an indirect descriptor with a next one");
    if (!entries || reference->length % DESCRIPTOR_BYTES)
        return virtqueue_break(queue, "the length of an indirect table is not a multiple of 16");
    if (add_overflows(reference->address, reference->length, &end))
        return virtqueue_break(queue, "an indirect table wraps around the end of the address space");
    uint32_t limit = MAX((uint32_t)queue->size, VIRTQUEUE_MAX_INDIRECT);
    if (queue->packed && entries > limit)
        return virtqueue_break(queue, "an indirect table is too long");

    struct table table = {.queue = queue, .address = reference->address};
    uint32_t index = 0;
    for (uint32_t taken = 0;; taken++) {
        struct virtqueue_descriptor entry;
        if (taken == MIN(entries, limit))
            return virtqueue_break(queue, "the chain in an indirect table loops or is too long");
        int result = table_load(&table, index, &entry);
        if (result)
            return result;
        if (entry.flags & DESCRIPTOR_INDIRECT)
            return virtqueue_break(queue, "an indirect descriptor inside an indirect table");
        result = add_span(queue, element, entry.address, entry.length, entry.flags & DESCRIPTOR_WRITE);
        if (result)
            return result;
        if (queue->packed) {
            if (++index == entries)
                return 0;
        } else {
            if (!(entry.flags & DESCRIPTOR_NEXT))
                return 0;
            index = entry.id_or_next;
            if (index >= entries)
                return virtqueue_break(queue, "an indirect table's chain leaves the table");
        }
    }
}

int chain_add(struct virtqueue *queue, struct virtqueue_element *element, const struct virtqueue_descriptor *entry)
{
    if (entry->flags & DESCRIPTOR_INDIRECT)
        return add_indirect(queue, element, entry);
    return add_span(queue, element, entry->address, entry->length, entry->flags & DESCRIPTOR_WRITE);
}
