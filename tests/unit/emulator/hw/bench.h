/* SPDX-License-Identifier: Apache-2.0 */
/* A test bench for devices: memory, clock, loop, and processors that only remember their interrupt lines. Tests poke
 * registers through the address map, as a guest does. */
#ifndef TESTS_UNIT_EMULATOR_HW_BENCH_H
#define TESTS_UNIT_EMULATOR_HW_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"
#include <cmocka.h> /* last: its fail() would hide ours */

#define RAM 0x80000000u
#define RAM_SIZE 0x100000u

/* An architecture that executes nothing. */
struct line_cpu {
    struct cpu cpu;
    _Atomic uint32_t lines;
};
static bool line_cpu_init(struct cpu *cpu, struct error *err)
{
    return true;
}
static void line_cpu_destroy(struct cpu *cpu)
{
}
static void line_cpu_set_irq(struct cpu *cpu, unsigned line, bool level)
{
    struct line_cpu *self = (struct line_cpu *)cpu;
    if (level)
        atomic_fetch_or(&self->lines, 1u << line);
    else
        atomic_fetch_and(&self->lines, ~(1u << line));
}
static const struct cpu_arch line_cpu_arch = {
    .name = "lines",
    .size = sizeof(struct line_cpu),
    .init = line_cpu_init,
    .destroy = line_cpu_destroy,
    .set_irq = line_cpu_set_irq,
};

struct bench {
    struct loop *loop;
    struct hw hw;
    struct cpu *cpus[2];
    uint32_t intc[2];
    int shutdowns, resets, exit_status;
    bool irq; /* what the device under test drives */
    struct irq_input input;
    struct loop_timer timer;
};

static void bench_irq(void *target, unsigned number, bool level)
{
    ((struct bench *)target)->irq = level;
}
static void bench_shutdown(void *arg, int exit_status)
{
    ((struct bench *)arg)->shutdowns++;
    ((struct bench *)arg)->exit_status = exit_status;
}
static void bench_reset(void *arg)
{
    ((struct bench *)arg)->resets++;
}

static inline void bench_start(struct bench *bench)
{
    struct error err = {0};
    memset(bench, 0, sizeof *bench);
    bench->loop = loop_new(LOOP_AUTO, 0, &err);
    assert_non_null(bench->loop);
    bench->hw.loop = bench->loop;
    bench->hw.memory = physmap_new();
    bench->hw.clock = clock_new(bench->loop);
    bench->hw.power = (struct power_control){bench_shutdown, bench_reset, bench};
    list_init(&bench->hw.devices);
    assert_true(physmap_add_ram(bench->hw.memory, "ram", RAM, RAM_SIZE, &err));
    for (unsigned i = 0; i < 2; i++) {
        bench->cpus[i] = cpu_new(&line_cpu_arch, i, bench->hw.memory, bench->hw.clock, bench->cpus[0], &err);
        bench->intc[i] = 10 + i;
    }
    bench->input = (struct irq_input){{bench_irq, bench, 1}, 99, 1};
}

static inline void bench_reset_devices(struct bench *bench)
{
    struct device *device;
    machine_lock(bench->hw.memory);
    list_for_each (device, &bench->hw.devices, link) {
        if (device->ops->reset)
            device->ops->reset(device);
    }
    machine_unlock(bench->hw.memory);
}

static inline void bench_stop(struct bench *bench)
{
    while (!list_empty(&bench->hw.devices)) {
        struct device *last = list_last(&bench->hw.devices, struct device, link);
        last->ops->destroy(last);
    }
    for (unsigned i = 0; i < 2; i++)
        cpu_free(bench->cpus[i]);
    clock_free(bench->hw.clock);
    physmap_free(bench->hw.memory);
    loop_free(bench->loop);
}

static void bench_stop_loop(void *arg)
{
    loop_stop(arg);
}

/* Lets the main loop work for a while. */
static inline void bench_run_ms(struct bench *bench, unsigned ms)
{
    bench->timer.fn = bench_stop_loop;
    bench->timer.arg = bench->loop;
    loop_timer_arm(bench->loop, &bench->timer, loop_now_ns(bench->loop) + ms * 1000000ull);
    loop_run(bench->loop);
}

/* Until the condition holds, at most two seconds. */
#define bench_run_until(bench, condition)                                                                              \
    do {                                                                                                               \
        for (int bench_tries = 0; bench_tries < 400 && !(condition); bench_tries++)                                    \
            bench_run_ms((bench), 5);                                                                                  \
        assert_true(condition);                                                                                        \
    } while (0)

static inline uint32_t lines(struct bench *bench, unsigned cpu)
{
    return ((struct line_cpu *)bench->cpus[cpu])->lines;
}

static inline uint64_t peek(struct bench *bench, uint64_t address, unsigned size)
{
    uint64_t value = 0xdead;
    assert_true(physmap_mmio_read(bench->hw.memory, address, size, &value));
    return value;
}
static inline uint32_t peek32(struct bench *bench, uint64_t address)
{
    return (uint32_t)peek(bench, address, 4);
}
static inline void poke(struct bench *bench, uint64_t address, uint64_t value, unsigned size)
{
    assert_true(physmap_mmio_write(bench->hw.memory, address, value, size));
}
static inline void poke32(struct bench *bench, uint64_t address, uint32_t value)
{
    poke(bench, address, value, 4);
}
static inline void *ram(struct bench *bench, uint64_t address)
{
    return physmap_pointer(bench->hw.memory, address, 1, true);
}

#endif
