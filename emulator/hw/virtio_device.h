/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What virtio devices have in common, whatever transport they sit on: feature negotiation, status, queues,
 * configuration space (virtio 1.3, chapters 2 and 3). A device type fills in `struct virtio_device_ops`; a transport
 * (virtio_mmio.c) turns register accesses into the calls in the second half.
 *
 * Everything runs with the machine lock held.
 */
#ifndef EMULATOR_HW_VIRTIO_DEVICE_H
#define EMULATOR_HW_VIRTIO_DEVICE_H

#include "emulator/hw/device.h"
#include "virtio/features.h"
#include "virtio/guest_memory.h"
#include "virtio/virtqueue.h"

struct virtio_device;

struct virtio_device_ops {
    const char *name; /* "virtio-blk-device", for messages */
    uint32_t device_id;
    /* Feature bits of the device type; those of rings and transport are added by the core. */
    uint64_t (*features)(struct virtio_device *device);
    /* The driver is ready (DRIVER_OK): queues are configured. May be NULL. */
    bool (*start)(struct virtio_device *device, struct error *err);
    /* The driver is gone (reset) after a start: no guest memory may be touched any more when this returns. May be NULL.
     * `on_cpu`: called by a vCPU, so it may machine_wait(); otherwise nothing is in flight (see device_ops.busy). */
    void (*stop)(struct virtio_device *device, bool on_cpu);
    void (*notify)(struct virtio_device *device, unsigned queue); /* the driver rang; only between start and stop */
    size_t config_size;
    void (*read_config)(struct virtio_device *device, void *config); /* all of it */
    void (*write_config)(struct virtio_device *device, unsigned offset, const void *data, unsigned size);
    bool (*busy)(struct virtio_device *device); /* as device_ops.busy */
    void (*destroy)(struct virtio_device *device);
};

struct virtio_queue {
    struct virtqueue ring;
    uint16_t max_size, size;
    uint64_t descriptors, driver, device; /* guest-physical */
    bool ready;
};

struct virtio_device {
    const struct virtio_device_ops *ops;
    struct hw *hw;
    char *id;               /* the user's, or NULL */
    uint64_t ring_features; /* offered about rings; a type may take bits away before the first reset */
    bool needs_reset_reported;

    /* Set by the transport: changes the interrupt line after isr has changed. */
    void (*update_interrupt)(void *transport);
    void *transport;

    uint64_t offered, negotiated;
    uint8_t status;
    uint8_t isr; /* VIRTIO_ISR_* */
    uint32_t config_generation;
    bool started;
    unsigned queue_count;
    struct virtio_queue *queues;
    struct guest_memory memory; /* the machine's, for the queues */
};

enum { VIRTIO_ISR_QUEUE = 1, VIRTIO_ISR_CONFIG = 2 };

/* --- for device types ----------------------------------------------------------------------------------------------
 */
void virtio_device_init(struct virtio_device *device, struct hw *hw, const struct virtio_device_ops *ops,
                        const char *id, unsigned queue_count, uint16_t queue_size, bool offer_packed);
void virtio_device_finish(struct virtio_device *device);
void virtio_device_interrupt(struct virtio_device *device, unsigned queue); /* if the driver wants to know */
void virtio_device_config_changed(struct virtio_device *device);
/* The device cannot go on until the driver resets it; said once to the user. */
void virtio_device_failed(struct virtio_device *device, const char *reason);
static inline struct virtqueue *virtio_device_ring(struct virtio_device *device, unsigned queue)
{
    return &device->queues[queue].ring;
}
static inline bool virtio_device_has(const struct virtio_device *device, unsigned feature)
{
    return device->negotiated & VIRTIO_BIT(feature);
}

/* --- for transports ------------------------------------------------------------------------------------------------
 */
void virtio_device_reset(struct virtio_device *device, bool on_cpu);
void virtio_device_set_status(struct virtio_device *device, uint8_t status);
void virtio_device_set_features(struct virtio_device *device, uint64_t features);
void virtio_device_set_queue_ready(struct virtio_device *device, unsigned queue, bool ready);
void virtio_device_notify(struct virtio_device *device, unsigned queue);
/* Bytes outside of the configuration space read as 0 and ignore writes. */
uint64_t virtio_device_read_config(struct virtio_device *device, unsigned offset, unsigned size);
void virtio_device_write_config(struct virtio_device *device, unsigned offset, uint64_t value, unsigned size);

/* A slot that takes one device; returns false when it is taken. */
bool virtio_mmio_plug(struct device *slot, struct virtio_device *device);
bool virtio_mmio_is_free(const struct device *slot);

/* --- the device types: one create function each ----------------------------------------------------------------------
 */
struct disk;
struct vhost_backend;
struct char_line;

struct virtio_blk_options {
    const char *id, *serial;
    uint16_t num_queues, queue_size; /* 0: the default */
    bool packed;
};
struct virtio_device *virtio_rng_create(struct hw *hw, const char *id, struct error *err);
struct virtio_device *virtio_console_create(struct hw *hw, const char *id, struct error *err);
bool virtio_console_connect(struct virtio_device *console, struct char_line *line, struct error *err);
/* Both take their back end over, also when they fail. */
struct virtio_device *virtio_blk_create(struct hw *hw, struct disk *disk, const struct virtio_blk_options *options,
                                        struct error *err);
struct virtio_device *vhost_user_blk_create(struct hw *hw, struct vhost_backend *backend,
                                            const struct virtio_blk_options *options, struct error *err);

#endif
