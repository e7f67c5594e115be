/* SPDX-License-Identifier: Apache-2.0 */
/* What boards share: reset, taking apart, plugging. */
#include "emulator/hw/board/board.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "emulator/hw/virtio_device.h"

/* Devices first: once they are reset, nobody but us writes guest memory. */
bool board_reset(struct board *board, struct error *err)
{
    struct device *device;
    machine_lock(board->hw.memory);
    list_for_each (device, &board->hw.devices, link) {
        if (device->ops->reset)
            device->ops->reset(device);
    }
    machine_unlock(board->hw.memory);
    if (!board->place(board, err) || !image_list_write(&board->images, board->hw.memory, err))
        return false;
    for (unsigned i = 0; i < board->cpu_count; i++)
        cpu_reset(board->cpus[i], board->reset_pc);
    return true;
}

void board_free(struct board *board)
{
    if (!board)
        return;
    for (unsigned i = 0; i < board->cpu_count; i++) {
        if (board->cpus[i])
            cpu_stop(board->cpus[i]);
    }
    while (!list_empty(&board->hw.devices)) {
        struct device *last = list_last(&board->hw.devices, struct device, link);
        last->ops->destroy(last);
    }
    for (unsigned i = board->cpu_count; i-- > 0;)
        cpu_free(board->cpus[i]);
    image_list_clear(&board->images);
    physmap_free(board->hw.memory);
    board->free(board);
}

bool board_is_busy(const struct board *board)
{
    struct device *device;
    bool busy = false;
    machine_lock(board->hw.memory);
    list_for_each (device, &board->hw.devices, link)
        busy = busy || (device->ops->busy && device->ops->busy(device));
    machine_unlock(board->hw.memory);
    return busy;
}

static struct device *find_slot(struct board *board, const char *bus, struct error *err)
{
    if (!bus) {
        for (unsigned i = 0; i < board->slot_count; i++) {
            if (virtio_mmio_is_free(board->slots[i]))
                return board->slots[i];
        }
        return fail_null(err, ENOSPC, "the machine has %u virtio slots and all are taken", board->slot_count);
    }
    for (unsigned i = 0; i < board->slot_count; i++) {
        char name[32];
        /* Buses are numbered from the lowest address, slots are taken from the highest. */
        snprintf(name, sizeof name, "virtio-mmio-bus.%u", board->slot_count - 1 - i);
        if (strcmp(name, bus) != 0)
            continue;
        if (!virtio_mmio_is_free(board->slots[i]))
            return fail_null(err, EBUSY, "bus '%s' has a device already", bus);
        return board->slots[i];
    }
    return fail_null(err, ENOENT, "there is no bus '%s': this machine has virtio-mmio-bus.0 to virtio-mmio-bus.%u", bus,
                     board->slot_count - 1);
}

bool board_plug_virtio(struct board *board, struct virtio_device *device, const char *bus, struct error *err)
{
    struct device *slot = find_slot(board, bus, err);
    if (slot && virtio_mmio_plug(slot, device))
        return true;
    device->ops->destroy(device);
    return false;
}
