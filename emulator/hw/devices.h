/* SPDX-License-Identifier: Apache-2.0 */
/* The platform devices that boards are built of: one create function a device. Each maps its registers, and fails only
 * when that is not possible. The board's list of devices owns the result. */
#ifndef EMULATOR_HW_DEVICES_H
#define EMULATOR_HW_DEVICES_H

#include "emulator/char/char.h"
#include "emulator/hw/device.h"

/* clint.c: SiFive CLINT: a timer compare register and a software interrupt for each hart. */
#define CLINT_BYTES 0x10000u
#define CLINT_TIMEBASE_HZ 10000000u
struct device *clint_create(struct hw *hw, uint64_t base, struct cpu *const *cpus, unsigned cpu_count,
                            const uint32_t *cpu_intc, struct error *err);

/* plic.c: RISC-V platform-level interrupt controller with a machine and a supervisor context for each hart. */
#define PLIC_BYTES 0x600000u
#define PLIC_SOURCES 95u
struct device *plic_create(struct hw *hw, uint64_t base, uint32_t phandle, struct cpu *const *cpus, unsigned cpu_count,
                           const uint32_t *cpu_intc, struct error *err);
struct irq_input plic_input(struct device *plic, unsigned source);

/* uart16550.c */
struct device *uart16550_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err);
bool uart16550_connect(struct device *uart, struct char_line *line, struct error *err);

/* goldfish_rtc.c */
struct device *goldfish_rtc_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err);

/* sifive_test.c: power off and reset. */
struct device *sifive_test_create(struct hw *hw, uint64_t base, uint32_t phandle, struct error *err);

/* virtio_mmio.c: an empty slot; see virtio_device.h for what can be plugged in. */
struct device *virtio_mmio_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err);

#endif
