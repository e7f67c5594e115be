/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A board: the address map, the devices that are always there, the boot ROM and the device tree. What a user can plug
 * in
 * (-device) goes into the board's slots. The life cycle (run, stop, reset) is the machine's business
 * (emulator/machine.h).
 */
#ifndef EMULATOR_HW_BOARD_BOARD_H
#define EMULATOR_HW_BOARD_BOARD_H

#include "emulator/char/char.h"
#include "emulator/cpu/cpu.h"
#include "emulator/hw/device.h"
#include "emulator/hw/loader.h"

struct board;
struct virtio_device;

/* What the command line says about a board. Strings are the caller's and outlive the board. */
struct board_config {
    const struct cpu_arch *arch;
    unsigned cpu_count;
    uint64_t ram_size;
    const char *bios; /* a file, "none", or NULL: the firmware that belongs to the board */
    const char *kernel, *initrd, *append, *dtb;
};

struct board_type {
    const char *name, *description;
    unsigned max_cpus;
    unsigned serial_count; /* serial ports */
    uint64_t default_ram;
    struct board *(*create)(struct loop *loop, struct clock *clock, const struct board_config *config,
                            const struct power_control *power, struct error *err);
};
extern const struct board_type board_virt;

struct board {
    const struct board_type *type;
    struct hw hw;
    unsigned cpu_count;
    struct cpu **cpus;
    struct image_list images; /* the device tree is among them, made anew at each reset */
    uint64_t reset_pc;
    struct device *serial[2];
    struct device *slots[32]; /* virtio slots, in the order in which devices without `bus` take them */
    unsigned slot_count;

    void *(*describe)(struct board *board, size_t *size, struct error *err); /* the device tree blob */
    bool (*place)(struct board *board, struct error *err);                   /* images that depend on others */
    void (*free)(struct board *board);
};

/* Devices to their state after power-on, images into memory, CPUs to the reset address. CPUs stand still. */
bool board_reset(struct board *board, struct error *err);
void board_free(struct board *board); /* devices before CPUs before memory */
/* `bus` NULL: the first free slot. The board owns the device then, also after a failure. */
bool board_plug_virtio(struct board *board, struct virtio_device *device, const char *bus, struct error *err);
bool board_is_busy(const struct board *board); /* a device has work in flight */

#endif
