/* SPDX-License-Identifier: Apache-2.0 */
/* What both kinds of ring share: configuration, state, the notice of writes, and when to notify. The rings themselves
 * are in split.c and packed.c, chains of descriptors in chain.c. */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"
#include "virtio/features.h"
#include "virtio/ring.h"

/* --- configuration -------------------------------------------------------------------------------------------- */

void virtqueue_init(struct virtqueue *queue, struct guest_memory *memory)
{
    *queue = (struct virtqueue){.memory = memory};
}

void virtqueue_destroy(struct virtqueue *queue)
{
    free(queue->scratch);
    virtqueue_init(queue, queue->memory);
}

struct virtqueue_layout virtqueue_layout(uint16_t size, bool packed)
{
    if (packed)
        return (struct virtqueue_layout){{16u * size, 4, 4}, {16, 4, 4}};
    return (struct virtqueue_layout){{16u * size, 6 + 2u * size, 6 + 8u * size}, {16, 2, 4}};
}

static bool check_size(uint16_t size, bool packed, struct error *err)
{
    if (!size || size > VIRTQUEUE_MAX_SIZE)
        return fail(err, EINVAL, "queue size %u: must be from 1 to %u", size, VIRTQUEUE_MAX_SIZE);
    if (!packed && !is_power_of_two(size))
        return fail(err, EINVAL, "queue size %u: must be a power of two for a split ring", size);
    return true;
}

static const char *const area_names[3] = {"descriptor", "driver", "device"};

bool virtqueue_configure_pointers(struct virtqueue *queue, uint64_t features, uint16_t size, void *descriptors,
                                  void *driver, void *device, uint64_t descriptors_address, uint64_t device_address,
                                  struct error *err)
{
    bool packed = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    void *areas[3] = {descriptors, driver, device};
    struct virtqueue_layout layout = virtqueue_layout(size, packed);
    if (!check_size(size, packed, err))
        return false;
    for (int i = 0; i < 3; i++) {
        if (!areas[i] || !is_aligned((uintptr_t)areas[i], layout.alignment[i]))
            return fail(err, EINVAL, "the queue's %s area is not aligned to %u bytes", area_names[i],
                        layout.alignment[i]);
    }
    virtqueue_destroy(queue);
    queue->features = features;
    queue->size = size;
    queue->packed = packed;
    queue->event_index = features & VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
    queue->descriptors = descriptors;
    queue->driver = driver;
    queue->device = device;
    queue->descriptors_address = descriptors_address;
    queue->device_address = device_address;
    queue->state.avail_wrap = queue->state.used_wrap = packed;
    return true;
}

bool virtqueue_configure(struct virtqueue *queue, uint64_t features, uint16_t size, uint64_t descriptors,
                         uint64_t driver, uint64_t device, struct error *err)
{
    bool packed = features & VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    uint64_t addresses[3] = {descriptors, driver, device};
    void *areas[3];
    if (!check_size(size, packed, err))
        return false;
    struct virtqueue_layout layout = virtqueue_layout(size, packed);
    for (int i = 0; i < 3; i++) {
        bool for_write = i == 2 || (i == 0 && packed);
        areas[i] = guest_memory_pointer(queue->memory, addresses[i], layout.size[i], for_write);
        if (!areas[i])
            return fail(err, EINVAL, "the queue's %s area at 0x%" PRIx64 " (%" PRIu64 " bytes) is not in guest memory",
                        area_names[i], addresses[i], layout.size[i]);
    }
    return virtqueue_configure_pointers(queue, features, size, areas[0], areas[1], areas[2], descriptors, device, err);
}

/* --- state ---------------------------------------------------------------------------------------------------- */

struct virtqueue_state virtqueue_save(const struct virtqueue *queue)
{
    return queue->state;
}

bool virtqueue_restore(struct virtqueue *queue, struct virtqueue_state state, struct error *err)
{
    if (queue->packed && (state.last_avail >= queue->size || state.used >= queue->size))
        return fail(err, EINVAL, "ring positions %u and %u: must be below the queue's size %u", state.last_avail,
                    state.used, queue->size);
    queue->state = state;
    queue->in_flight = 0;
    queue->unsignalled = 0;
    queue->signal_anyway = true;
    return true;
}

void virtqueue_load_used(struct virtqueue *queue)
{
    if (queue->size && !queue->packed)
        queue->state.used = ring_load16_acquire(queue->device, 2);
}

uint32_t virtqueue_base_encode(const struct virtqueue *queue, struct virtqueue_state state)
{
    if (!queue->packed)
        return state.last_avail;
    return state.last_avail | (uint32_t)state.avail_wrap << 15 | (uint32_t)state.used << 16 |
           (uint32_t)state.used_wrap << 31;
}

struct virtqueue_state virtqueue_base_decode(bool packed, uint32_t base)
{
    if (!packed)
        return (struct virtqueue_state){.last_avail = (uint16_t)base, .used = (uint16_t)base};
    return (struct virtqueue_state){
        .last_avail = base & 0x7fff,
        .avail_wrap = base >> 15 & 1,
        .used = base >> 16 & 0x7fff,
        .used_wrap = base >> 31,
    };
}

bool virtqueue_set_inflight(struct virtqueue *queue, const struct virtqueue_inflight_ops *ops, void *arg)
{
    free(queue->scratch);
    queue->scratch = NULL;
    queue->inflight = NULL;
    if (!ops)
        return true;
    queue->scratch = try_calloc(queue->size, sizeof *queue->scratch);
    if (!queue->scratch)
        return false;
    queue->inflight = ops;
    queue->inflight_arg = arg;
    return true;
}

/* --- chains out and back -------------------------------------------------------------------------------------- */

int virtqueue_pop(struct virtqueue *queue, struct virtqueue_element *element)
{
    if (queue->broken)
        return -EPROTO;
    if (!queue->size)
        return 0;
    return queue->packed ? packed_pop(queue, element) : split_pop(queue, element);
}

int virtqueue_pop_head(struct virtqueue *queue, uint16_t head, struct virtqueue_element *element)
{
    if (queue->broken)
        return -EPROTO;
    if (!queue->size || queue->packed)
        return virtqueue_break(queue, "the record of requests in flight is for another kind of ring");
    return split_pop_head(queue, head, element);
}

bool virtqueue_empty(struct virtqueue *queue)
{
    if (queue->broken || !queue->size)
        return true;
    return queue->packed ? packed_empty(queue) : split_empty(queue);
}

static void note_data_written(struct virtqueue *queue, const struct virtqueue_element *element, uint64_t written)
{
    for (uint32_t i = 0; i < element->in_count && written; i++) {
        const struct virtqueue_segment *segment = &element->segments[element->out_count + i];
        uint64_t length = MIN(written, segment->length);
        queue->memory->ops->written(queue->memory, segment->address, length);
        written -= length;
    }
}

void virtqueue_push(struct virtqueue *queue, struct virtqueue_element *element, uint64_t written)
{
    if (!queue->size)
        return; /* the queue was reset under the request: nobody waits for it */
    written = MIN(written, element->in_bytes);
    if (queue->memory->ops->written)
        note_data_written(queue, element, written);
    if (queue->inflight && queue->inflight->completing)
        queue->inflight->completing(queue->inflight_arg, element->id);
    /* The field has 32 bits; a chain may have more. */
    uint32_t reported = (uint32_t)MIN(written, (uint64_t)UINT32_MAX);
    if (queue->packed)
        packed_push(queue, element, reported);
    else
        split_push(queue, element, reported);
    queue->in_flight -= MIN(queue->in_flight, (uint32_t)element->slots);
    queue->unsignalled += MIN((uint32_t)element->slots, UINT32_MAX - queue->unsignalled);
    if (queue->inflight && queue->inflight->completed)
        queue->inflight->completed(queue->inflight_arg, element->id, queue->state.used, queue->state.used_wrap);
}

/* --- notifications -------------------------------------------------------------------------------------------- */

bool virtqueue_should_notify(struct virtqueue *queue)
{
    if (!queue->size || !queue->unsignalled)
        return false;
    /* Used entries first, then the driver's wish: it publishes its wish first and then looks for used entries. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    bool wanted = queue->signal_anyway || (queue->packed ? packed_should_notify(queue) : split_should_notify(queue));
    queue->signal_anyway = false;
    queue->unsignalled = 0;
    return wanted;
}

void virtqueue_disable_notify(struct virtqueue *queue)
{
    if (!queue->size || queue->notify_disabled)
        return;
    queue->notify_disabled = true;
    if (queue->packed)
        packed_set_notify(queue, false);
    else
        split_set_notify(queue, false);
}

bool virtqueue_enable_notify(struct virtqueue *queue)
{
    if (!queue->size)
        return false;
    queue->notify_disabled = false;
    if (queue->packed)
        packed_set_notify(queue, true);
    else
        split_set_notify(queue, true);
    /* Our wish first, then a look at the ring: the driver does the opposite. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return !virtqueue_empty(queue);
}
