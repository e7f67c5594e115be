/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every device is made of. A device owns its registers, its interrupt line, its reset and its device-tree node,
 * all in one file; it is created by a board (or by -device) with the services of `struct hw`, and sits on the machine's
 * list of devices from then on.
 *
 * Register accesses, interrupts and resets happen with the machine lock held. So does `describe`.
 */
#ifndef EMULATOR_HW_DEVICE_H
#define EMULATOR_HW_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "base/list.h"
#include "emulator/clock/clock.h"
#include "emulator/cpu/cpu.h"
#include "emulator/memory/physmap.h"

struct device;
struct device_tree;
struct loop;

/* The power button's wires: a device asks, the machine acts later on the main loop. Any thread. */
struct power_control {
    void (*shutdown)(void *arg, int exit_status); /* the guest switches the machine off */
    void (*reset)(void *arg);
    void *arg;
};

/* What a device may use. */
struct hw {
    struct physmap *memory;
    struct clock *clock;
    struct loop *loop;
    struct power_control power;
    struct list devices; /* of struct device, in the order of creation */
};

struct device_ops {
    void (*reset)(struct device *device);   /* to the state after power-on; lowers its interrupt */
    void (*destroy)(struct device *device); /* after the vCPUs are gone; frees */
    void (*describe)(struct device *device, struct device_tree *tree); /* its node; NULL: none */
    bool (*busy)(struct device *device); /* work is in flight that touches guest memory; NULL: never */
};

struct device {
    const struct device_ops *ops;
    char *name; /* of its node: "serial@10000000" */
    struct hw *hw;
    struct list link;
};

/* Names the device after its class and address and puts it on the list. */
void device_init(struct device *device, struct hw *hw, const struct device_ops *ops, const char *class, uint64_t base);
void device_finish(struct device *device); /* the common part of destroy() */

/* An interrupt input of a controller, and how the device tree calls it. */
struct irq_input {
    struct irq irq;
    uint32_t controller; /* phandle */
    uint32_t number;
};

#endif
