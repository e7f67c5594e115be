/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio console with one port (virtio 1.3, section 5.3): queue 0 takes characters to the guest, queue 1 from it.
 * Several ports (the MULTIPORT feature) are not offered.
 *
 * A buffer of the guest's stays with us while it is not complete: the receive buffer that the next input goes to, and
 * the transmit buffer of which the chardev has not yet taken all.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/iov.h"
#include "base/math.h"
#include "emulator/char/char.h"
#include "emulator/hw/virtio_device.h"

#define QUEUE_SIZE 128u
enum { QUEUE_TO_GUEST = 0, QUEUE_FROM_GUEST = 1 };
enum { VIRTIO_CONSOLE_F_EMERG_WRITE = 2 };
enum { CONFIG_BYTES = 12, CONFIG_EMERGENCY_WRITE = 8 };

struct virtio_console {
    struct virtio_device device;
    struct char_front front;
    struct virtqueue_element rx, tx;
    bool rx_held, tx_held;
    uint64_t tx_done; /* bytes of tx that are written */
};

static uint64_t console_features(struct virtio_device *device)
{
    return VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
}

/* 1: an element is held. Otherwise 0; a lying driver has been told. */
static bool hold(struct virtio_console *console, unsigned queue, struct virtqueue_element *element, bool *held)
{
    struct virtqueue *ring = virtio_device_ring(&console->device, queue);
    if (*held || !console->device.started)
        return *held;
    int result = virtqueue_pop(ring, element);
    if (result == 0 && virtqueue_enable_notify(ring))
        result = virtqueue_pop(ring, element);
    if (result < 0)
        virtio_device_failed(&console->device, ring->broken ? ring->broken : "out of memory");
    *held = result > 0;
    return *held;
}

static void transmit(struct virtio_console *console)
{
    struct virtqueue *ring = virtio_device_ring(&console->device, QUEUE_FROM_GUEST);
    while (hold(console, QUEUE_FROM_GUEST, &console->tx, &console->tx_held)) {
        struct virtqueue_element *tx = &console->tx;
        while (console->tx_done < tx->out_bytes) {
            uint8_t data[1024];
            size_t size = iov_to_buffer(tx->iov, (int)tx->out_count, console->tx_done, data, sizeof data);
            size_t taken = char_line_write(&console->front, data, size);
            console->tx_done += taken;
            if (taken < size)
                return; /* `writable` goes on */
        }
        console->tx_held = false;
        console->tx_done = 0;
        virtqueue_push(ring, tx, 0);
        virtio_device_interrupt(&console->device, QUEUE_FROM_GUEST);
    }
}

static void console_notify(struct virtio_device *device, unsigned queue)
{
    struct virtio_console *console = (struct virtio_console *)device;
    if (queue == QUEUE_FROM_GUEST)
        transmit(console);
    else
        char_line_accept_input(&console->front);
}

static void console_stop(struct virtio_device *device, bool on_cpu)
{
    struct virtio_console *console = (struct virtio_console *)device;
    console->rx_held = console->tx_held = false;
    console->tx_done = 0;
}

static void console_read_config(struct virtio_device *device, void *config)
{
    memset(config, 0, CONFIG_BYTES); /* cols, rows: not known; max_nr_ports: no MULTIPORT */
}

static void console_write_config(struct virtio_device *device, unsigned offset, const void *data, unsigned size)
{
    struct virtio_console *console = (struct virtio_console *)device;
    if (offset == CONFIG_EMERGENCY_WRITE)
        char_line_write(&console->front, data, 1);
}

/* --- the chardev's side, on the main loop
 * ------------------------------------------------------------------------------ */

static size_t console_can_receive(void *owner)
{
    struct virtio_console *console = owner;
    machine_lock(console->device.hw->memory);
    bool held = hold(console, QUEUE_TO_GUEST, &console->rx, &console->rx_held);
    size_t room = held ? MAX(console->rx.in_bytes, 1u) : 0;
    machine_unlock(console->device.hw->memory);
    return room;
}

static void console_receive(void *owner, const uint8_t *data, size_t size)
{
    struct virtio_console *console = owner;
    machine_lock(console->device.hw->memory);
    if (console->rx_held) {
        struct virtqueue_element *rx = &console->rx;
        size_t taken = iov_from_buffer(virtqueue_element_in(rx), (int)rx->in_count, 0, data, size);
        console->rx_held = false;
        virtqueue_push(virtio_device_ring(&console->device, QUEUE_TO_GUEST), rx, taken);
        virtio_device_interrupt(&console->device, QUEUE_TO_GUEST);
    }
    machine_unlock(console->device.hw->memory);
}

static void console_writable(void *owner)
{
    struct virtio_console *console = owner;
    machine_lock(console->device.hw->memory);
    transmit(console);
    machine_unlock(console->device.hw->memory);
}

static const struct char_front_ops front_ops = {console_can_receive, console_receive, console_writable};

static void console_destroy(struct virtio_device *device)
{
    struct virtio_console *console = (struct virtio_console *)device;
    char_line_detach(&console->front);
    virtqueue_element_release(&console->rx);
    virtqueue_element_release(&console->tx);
    virtio_device_finish(device);
    free(console);
}

static const struct virtio_device_ops console_ops = {
    .name = "virtio-serial-device",
    .device_id = VIRTIO_ID_CONSOLE,
    .features = console_features,
    .stop = console_stop,
    .notify = console_notify,
    .config_size = CONFIG_BYTES,
    .read_config = console_read_config,
    .write_config = console_write_config,
    .destroy = console_destroy,
};

bool virtio_console_connect(struct virtio_device *device, struct char_line *line, struct error *err)
{
    struct virtio_console *console = (struct virtio_console *)device;
    if (console->front.line)
        return fail(err, EBUSY, "the console has its chardev already; more than one port is not supported");
    return char_line_attach(line, &console->front, err);
}

struct virtio_device *virtio_console_create(struct hw *hw, const char *id, struct error *err)
{
    struct virtio_console *console = new (struct virtio_console);
    console->front.ops = &front_ops;
    console->front.owner = console;
    virtio_device_init(&console->device, hw, &console_ops, id, 2, QUEUE_SIZE, false);
    return &console->device;
}
