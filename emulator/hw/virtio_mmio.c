/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio MMIO transport, version 2 (virtio 1.3, section 4.2). A slot without a device shows device id 0, which
 * drivers skip. Registers are 32 bits wide; the configuration space takes any size.
 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"
#include "emulator/hw/virtio_device.h"

#define SLOT_BYTES 0x1000u
#define MAGIC 0x74726976u  /* "virt" */
#define VENDOR 0x4c445053u /* "SPDL" */

enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_SIZE_MAX = 0x034,
    REG_QUEUE_SIZE = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC_LOW = 0x080,
    REG_QUEUE_DESC_HIGH = 0x084,
    REG_QUEUE_DRIVER_LOW = 0x090,
    REG_QUEUE_DRIVER_HIGH = 0x094,
    REG_QUEUE_DEVICE_LOW = 0x0a0,
    REG_QUEUE_DEVICE_HIGH = 0x0a4,
    REG_SHM_LEN_LOW = 0x0b0,
    REG_SHM_BASE_HIGH = 0x0bc,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

struct virtio_mmio {
    struct device device;
    uint64_t base;
    struct irq_input irq;
    struct virtio_device *plugged; /* NULL: an empty slot */
    uint32_t device_features_sel, driver_features_sel, queue_sel;
    uint64_t driver_features;
};

static void update_interrupt(void *transport)
{
    struct virtio_mmio *slot = transport;
    irq_set(&slot->irq.irq, slot->plugged && slot->plugged->isr);
}

static struct virtio_queue *selected_queue(struct virtio_mmio *slot)
{
    return slot->queue_sel < slot->plugged->queue_count ? &slot->plugged->queues[slot->queue_sel] : NULL;
}

static uint32_t select_half(uint64_t value, uint32_t half)
{
    return half == 0 ? (uint32_t)value : half == 1 ? (uint32_t)(value >> 32) : 0;
}

static uint64_t read_register(struct virtio_mmio *slot, uint64_t offset)
{
    struct virtio_device *device = slot->plugged;
    struct virtio_queue *queue = selected_queue(slot);
    switch (offset) {
    case REG_DEVICE_ID: return device->ops->device_id;
    case REG_DEVICE_FEATURES: return select_half(device->offered, slot->device_features_sel);
    case REG_QUEUE_SIZE_MAX: return queue ? queue->max_size : 0;
    case REG_QUEUE_READY: return queue && queue->ready;
    case REG_INTERRUPT_STATUS: return device->isr;
    case REG_STATUS: return device->status;
    case REG_SHM_LEN_LOW ... REG_SHM_BASE_HIGH: return UINT32_MAX; /* there are no shared memory regions */
    case REG_CONFIG_GENERATION: return device->config_generation;
    default: return 0;
    }
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct virtio_mmio *slot = opaque;
    if (offset >= REG_CONFIG)
        return slot->plugged ? virtio_device_read_config(slot->plugged, (unsigned)offset - REG_CONFIG, size) : 0;
    if (size != 4)
        return 0;
    switch (offset) {
    case REG_MAGIC: return MAGIC;
    case REG_VERSION: return 2;
    case REG_VENDOR_ID: return VENDOR;
    default: return slot->plugged ? read_register(slot, offset) : 0;
    }
}

static void set_low(uint64_t *value, uint32_t low)
{
    *value = (*value & ~(uint64_t)UINT32_MAX) | low;
}

static void set_high(uint64_t *value, uint32_t high)
{
    *value = (uint32_t)*value | (uint64_t)high << 32;
}

/* Registers of the selected queue; fixed once it is ready. */
static void write_queue(struct virtio_mmio *slot, uint64_t offset, uint32_t value)
{
    struct virtio_queue *queue = selected_queue(slot);
    if (!queue)
        return;
    if (offset == REG_QUEUE_READY) {
        virtio_device_set_queue_ready(slot->plugged, slot->queue_sel, value & 1);
        return;
    }
    if (queue->ready)
        return;
    switch (offset) {
    case REG_QUEUE_SIZE:
        /* 0 makes the queue refuse to become ready, as does a size that is not a power of two. */
        queue->size = value <= queue->max_size ? (uint16_t)value : 0;
        break;
    case REG_QUEUE_DESC_LOW: set_low(&queue->descriptors, value); break;
    case REG_QUEUE_DESC_HIGH: set_high(&queue->descriptors, value); break;
    case REG_QUEUE_DRIVER_LOW: set_low(&queue->driver, value); break;
    case REG_QUEUE_DRIVER_HIGH: set_high(&queue->driver, value); break;
    case REG_QUEUE_DEVICE_LOW: set_low(&queue->device, value); break;
    case REG_QUEUE_DEVICE_HIGH: set_high(&queue->device, value); break;
    default: break;
    }
}

static void write_register(struct virtio_mmio *slot, uint64_t offset, uint32_t value)
{
    struct virtio_device *device = slot->plugged;
    switch (offset) {
    case REG_DEVICE_FEATURES_SEL: slot->device_features_sel = value; break;
    case REG_DRIVER_FEATURES_SEL: slot->driver_features_sel = value; break;
    case REG_DRIVER_FEATURES:
        if (slot->driver_features_sel == 0)
            set_low(&slot->driver_features, value);
        else if (slot->driver_features_sel == 1)
            set_high(&slot->driver_features, value);
        virtio_device_set_features(device, slot->driver_features);
        break;
    case REG_QUEUE_SEL: slot->queue_sel = value; break;
    case REG_QUEUE_NOTIFY: virtio_device_notify(device, value); break;
    case REG_INTERRUPT_ACK:
        device->isr &= ~(uint8_t)value;
        update_interrupt(slot);
        break;
    case REG_STATUS:
        if (!value)
            slot->driver_features = 0;
        virtio_device_set_status(device, (uint8_t)value);
        break;
    default: write_queue(slot, offset, value); break;
    }
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct virtio_mmio *slot = opaque;
    if (!slot->plugged)
        return;
    if (offset >= REG_CONFIG)
        virtio_device_write_config(slot->plugged, (unsigned)offset - REG_CONFIG, value, size);
    else if (size == 4)
        write_register(slot, offset, (uint32_t)value);
}

static void slot_reset(struct device *device)
{
    struct virtio_mmio *slot = (struct virtio_mmio *)device;
    slot->device_features_sel = slot->driver_features_sel = slot->queue_sel = 0;
    slot->driver_features = 0;
    if (slot->plugged)
        virtio_device_reset(slot->plugged, false);
}

static bool slot_busy(struct device *device)
{
    struct virtio_mmio *slot = (struct virtio_mmio *)device;
    return slot->plugged && slot->plugged->ops->busy && slot->plugged->ops->busy(slot->plugged);
}

static void slot_destroy(struct device *device)
{
    struct virtio_mmio *slot = (struct virtio_mmio *)device;
    if (slot->plugged) {
        virtio_device_reset(slot->plugged, false);
        slot->plugged->ops->destroy(slot->plugged);
    }
    device_finish(device);
    free(slot);
}

static void slot_describe(struct device *device, struct device_tree *tree)
{
    struct virtio_mmio *slot = (struct virtio_mmio *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    tree_node(tree, path);
    tree_string(tree, path, "compatible", "virtio,mmio");
    tree_reg(tree, path, slot->base, SLOT_BYTES);
    tree_u32s(tree, path, "interrupt-parent", slot->irq.controller);
    tree_u32s(tree, path, "interrupts", slot->irq.number);
}

bool virtio_mmio_is_free(const struct device *device)
{
    return !((const struct virtio_mmio *)device)->plugged;
}

bool virtio_mmio_plug(struct device *device, struct virtio_device *plugged)
{
    struct virtio_mmio *slot = (struct virtio_mmio *)device;
    if (slot->plugged)
        return false;
    slot->plugged = plugged;
    plugged->update_interrupt = update_interrupt;
    plugged->transport = slot;
    return true;
}

static const struct mmio_ops slot_registers = {mmio_read, mmio_write, 1, 8};
static const struct device_ops slot_ops = {slot_reset, slot_destroy, slot_describe, slot_busy};

struct device *virtio_mmio_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err)
{
    struct virtio_mmio *slot = new (struct virtio_mmio);
    slot->base = base;
    slot->irq = irq;
    device_init(&slot->device, hw, &slot_ops, "virtio_mmio", base);
    if (physmap_add_mmio(hw->memory, "virtio_mmio", base, SLOT_BYTES, &slot_registers, slot, err))
        return &slot->device;
    slot_destroy(&slot->device);
    return NULL;
}
