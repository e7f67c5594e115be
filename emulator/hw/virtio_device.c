/* SPDX-License-Identifier: Apache-2.0 */
/* The core of virtio devices: see the header. */
#include "emulator/hw/virtio_device.h"

#include <string.h>
#include "base/alloc.h"
#include "base/log.h"
#include "base/math.h"

/* --- guest memory over the machine's address map -------------------------------------------------------------------
 */

static void *memory_translate(struct guest_memory *memory, uint64_t address, uint64_t *length, bool for_write)
{
    struct virtio_device *device = container_of(memory, struct virtio_device, memory);
    const struct physmap_range *range = physmap_find(device->hw->memory, address);
    if (!range || range->kind != PHYSMAP_RAM)
        return NULL;
    uint64_t offset = address - range->base;
    *length = MIN(*length, range->size - offset);
    return range->host + offset;
}

static void memory_written(struct guest_memory *memory, uint64_t address, uint64_t length)
{
    struct virtio_device *device = container_of(memory, struct virtio_device, memory);
    physmap_note_write(device->hw->memory, address, length);
}

static const struct guest_memory_ops memory_ops = {memory_translate, memory_written};

/* --- for device types ----------------------------------------------------------------------------------------------
 */

void virtio_device_init(struct virtio_device *device, struct hw *hw, const struct virtio_device_ops *ops,
                        const char *id, unsigned queue_count, uint16_t queue_size, bool offer_packed)
{
    device->ops = ops;
    device->hw = hw;
    device->id = xstrdup(id);
    device->ring_features = VIRTIO_BIT(VIRTIO_F_INDIRECT_DESC) | VIRTIO_BIT(VIRTIO_F_EVENT_IDX);
    if (offer_packed)
        device->ring_features |= VIRTIO_BIT(VIRTIO_F_RING_PACKED);
    device->memory.ops = &memory_ops;
    device->queue_count = queue_count;
    device->queues = new_array(struct virtio_queue, queue_count);
    for (unsigned i = 0; i < queue_count; i++) {
        device->queues[i].max_size = queue_size;
        virtqueue_init(&device->queues[i].ring, &device->memory);
    }
}

void virtio_device_finish(struct virtio_device *device)
{
    for (unsigned i = 0; i < device->queue_count; i++)
        virtqueue_destroy(&device->queues[i].ring);
    free(device->queues);
    free(device->id);
}

static void raise(struct virtio_device *device, uint8_t bits)
{
    device->isr |= bits;
    if (device->update_interrupt)
        device->update_interrupt(device->transport);
}

void virtio_device_interrupt(struct virtio_device *device, unsigned queue)
{
    if (virtqueue_should_notify(&device->queues[queue].ring))
        raise(device, VIRTIO_ISR_QUEUE);
}

void virtio_device_config_changed(struct virtio_device *device)
{
    device->config_generation++;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        raise(device, VIRTIO_ISR_CONFIG);
}

void virtio_device_failed(struct virtio_device *device, const char *reason)
{
    if (!device->needs_reset_reported)
        log_warning("%s%s%s: stopped until the guest resets it: %s", device->ops->name, device->id ? " " : "",
                    device->id ? device->id : "", reason);
    device->needs_reset_reported = true;
    device->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (device->status & VIRTIO_STATUS_DRIVER_OK)
        raise(device, VIRTIO_ISR_CONFIG);
}

/* --- for transports ------------------------------------------------------------------------------------------------
 */

void virtio_device_reset(struct virtio_device *device, bool on_cpu)
{
    bool was_started = device->started;
    device->started = false;
    device->status = 0;
    if (was_started && device->ops->stop)
        device->ops->stop(device, on_cpu);
    for (unsigned i = 0; i < device->queue_count; i++) {
        struct virtio_queue *queue = &device->queues[i];
        virtqueue_destroy(&queue->ring);
        queue->size = queue->max_size;
        queue->descriptors = queue->driver = queue->device = 0;
        queue->ready = false;
    }
    device->negotiated = 0;
    device->offered = device->ops->features(device) | device->ring_features | VIRTIO_BIT(VIRTIO_F_VERSION_1);
    device->isr = 0;
    device->needs_reset_reported = false;
    if (device->update_interrupt)
        device->update_interrupt(device->transport);
}

void virtio_device_set_features(struct virtio_device *device, uint64_t features)
{
    if (!(device->status & VIRTIO_STATUS_FEATURES_OK))
        device->negotiated = features;
}

static void start(struct virtio_device *device)
{
    struct error err = {0};
    device->started = true;
    if (!device->ops->start || device->ops->start(device, &err))
        return;
    device->started = false;
    virtio_device_failed(device, err.message);
    error_clear(&err);
}

void virtio_device_set_status(struct virtio_device *device, uint8_t status)
{
    if (!status) {
        virtio_device_reset(device, true);
        return;
    }
    uint8_t added = status & ~device->status;
    /* The driver asks whether its choice of features will do; we answer by keeping the bit or not (3.1.1). */
    if (added & VIRTIO_STATUS_FEATURES_OK &&
        (device->negotiated & ~device->offered || !virtio_device_has(device, VIRTIO_F_VERSION_1)))
        status &= ~VIRTIO_STATUS_FEATURES_OK;
    device->status = status | (device->status & VIRTIO_STATUS_NEEDS_RESET);
    if (added & VIRTIO_STATUS_DRIVER_OK && status & VIRTIO_STATUS_FEATURES_OK && !device->started)
        start(device);
}

void virtio_device_set_queue_ready(struct virtio_device *device, unsigned index, bool ready)
{
    struct virtio_queue *queue = &device->queues[index];
    struct error err = {0};
    if (ready == queue->ready || device->started)
        return; /* a running queue stops with the device only: VIRTIO_F_RING_RESET is not offered */
    if (!ready) {
        virtqueue_destroy(&queue->ring);
        queue->ready = false;
        return;
    }
    queue->ready = virtqueue_configure(&queue->ring, device->negotiated, queue->size, queue->descriptors, queue->driver,
                                       queue->device, &err);
    if (!queue->ready)
        virtio_device_failed(device, err.message);
    error_clear(&err);
}

void virtio_device_notify(struct virtio_device *device, unsigned queue)
{
    if (device->started && queue < device->queue_count && device->queues[queue].ready)
        device->ops->notify(device, queue);
}

#define MAX_CONFIG_BYTES 256u

uint64_t virtio_device_read_config(struct virtio_device *device, unsigned offset, unsigned size)
{
    uint8_t config[MAX_CONFIG_BYTES + 8] = {0};
    uint64_t value = 0;
    assert(device->ops->config_size <= MAX_CONFIG_BYTES);
    if (!device->ops->read_config || offset >= device->ops->config_size)
        return 0;
    device->ops->read_config(device, config);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)config[offset + i] << 8 * i;
    return value;
}

void virtio_device_write_config(struct virtio_device *device, unsigned offset, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    if (!device->ops->write_config || !span_fits(offset, size, device->ops->config_size))
        return;
    for (unsigned i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
    device->ops->write_config(device, offset, bytes, size);
}
