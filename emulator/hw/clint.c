/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SiFive CLINT (FU540 manual, chapter 9; also the RISC-V ACLINT's MSWI and MTIMER).
 *
 *     0x0000 + 4 * hart   msip       bit 0 raises the hart's machine software interrupt
 *     0x4000 + 8 * hart   mtimecmp   the machine timer interrupt is up while mtime >= mtimecmp
 *     0xbff8              mtime      guest time in ticks of 100 ns
 *
 * mtime is derived from the machine's clock, which the harts' `time` register shows too; writes to it are ignored, for
 * the two must not differ.
 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

enum { MSIP = 0x0, MTIMECMP = 0x4000, MTIME = 0xbff8 };
enum { LINE_MSI = 3, LINE_MTI = 7 };
#define TICK_NS (1000000000u / CLINT_TIMEBASE_HZ)

struct clint_hart {
    struct clint *clint;
    struct cpu *cpu;
    uint32_t intc; /* phandle */
    bool msip;
    uint64_t mtimecmp;
    struct clock_timer *timer;
};

struct clint {
    struct device device;
    uint64_t base;
    unsigned hart_count;
    struct clint_hart *harts;
};

static uint64_t mtime(const struct clint *clint)
{
    return clock_now_ns(clint->device.hw->clock) / TICK_NS;
}

/* Brings the timer interrupt in line with the registers, and the clock's timer with the next change. */
static void update_timer(struct clint_hart *hart)
{
    bool due = mtime(hart->clint) >= hart->mtimecmp;
    cpu_set_irq(hart->cpu, LINE_MTI, due);
    uint64_t deadline_ns;
    if (due || __builtin_mul_overflow(hart->mtimecmp, (uint64_t)TICK_NS, &deadline_ns))
        clock_timer_cancel(hart->timer);
    else
        clock_timer_arm(hart->timer, deadline_ns);
}

static void timer_due(void *arg)
{
    struct clint_hart *hart = arg;
    machine_lock(hart->clint->device.hw->memory);
    update_timer(hart);
    machine_unlock(hart->clint->device.hw->memory);
}

static uint64_t clint_read(void *device, uint64_t offset, unsigned size)
{
    struct clint *clint = device;
    uint64_t value = 0;
    if (offset < 4ull * clint->hart_count && size == 4)
        return clint->harts[offset / 4].msip;
    if (offset >= MTIMECMP && offset < MTIMECMP + 8ull * clint->hart_count)
        value = clint->harts[(offset - MTIMECMP) / 8].mtimecmp;
    else if (offset >= MTIME && offset < MTIME + 8)
        value = mtime(clint);
    return size == 4 && offset & 4 ? value >> 32 : value;
}

static void clint_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct clint *clint = device;
    if (offset < 4ull * clint->hart_count && size == 4) {
        struct clint_hart *hart = &clint->harts[offset / 4];
        hart->msip = value & 1;
        cpu_set_irq(hart->cpu, LINE_MSI, hart->msip);
    } else if (offset >= MTIMECMP && offset < MTIMECMP + 8ull * clint->hart_count) {
        struct clint_hart *hart = &clint->harts[(offset - MTIMECMP) / 8];
        if (size == 8)
            hart->mtimecmp = value;
        else if (offset & 4)
            hart->mtimecmp = (hart->mtimecmp & UINT32_MAX) | value << 32;
        else
            hart->mtimecmp = (hart->mtimecmp & ~(uint64_t)UINT32_MAX) | (uint32_t)value;
        update_timer(hart);
    }
}

static void clint_reset(struct device *device)
{
    struct clint *clint = (struct clint *)device;
    for (unsigned i = 0; i < clint->hart_count; i++) {
        struct clint_hart *hart = &clint->harts[i];
        hart->msip = false;
        hart->mtimecmp = UINT64_MAX;
        cpu_set_irq(hart->cpu, LINE_MSI, false);
        update_timer(hart);
    }
}

static void clint_destroy(struct device *device)
{
    struct clint *clint = (struct clint *)device;
    for (unsigned i = 0; i < clint->hart_count; i++)
        clock_timer_free(clint->harts[i].timer);
    device_finish(device);
    free(clint->harts);
    free(clint);
}

static void clint_describe(struct device *device, struct device_tree *tree)
{
    struct clint *clint = (struct clint *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    auto_free uint32_t *lines = new_array(uint32_t, 4 * clint->hart_count);
    for (unsigned i = 0; i < clint->hart_count; i++) {
        lines[4 * i] = lines[4 * i + 2] = clint->harts[i].intc;
        lines[4 * i + 1] = LINE_MSI;
        lines[4 * i + 3] = LINE_MTI;
    }
    tree_node(tree, path);
    static const char compatible[] = "sifive,clint0\0riscv,clint0";
    tree_strings(tree, path, "compatible", compatible, sizeof compatible);
    tree_reg(tree, path, clint->base, CLINT_BYTES);
    tree_cells(tree, path, "interrupts-extended", lines, 4 * clint->hart_count);
}

static const struct mmio_ops clint_registers = {clint_read, clint_write, 4, 8};
static const struct device_ops clint_ops = {clint_reset, clint_destroy, clint_describe};

struct device *clint_create(struct hw *hw, uint64_t base, struct cpu *const *cpus, unsigned cpu_count,
                            const uint32_t *cpu_intc, struct error *err)
{
    struct clint *clint = new (struct clint);
    clint->base = base;
    clint->hart_count = cpu_count;
    clint->harts = new_array(struct clint_hart, cpu_count);
    device_init(&clint->device, hw, &clint_ops, "clint", base);
    for (unsigned i = 0; i < cpu_count; i++) {
        struct clint_hart *hart = &clint->harts[i];
        *hart = (struct clint_hart){.clint = clint, .cpu = cpus[i], .intc = cpu_intc[i], .mtimecmp = UINT64_MAX};
        hart->timer = clock_timer_new(hw->clock, timer_due, hart);
    }
    if (physmap_add_mmio(hw->memory, "clint", base, CLINT_BYTES, &clint_registers, clint, err))
        return &clint->device;
    clint_destroy(&clint->device);
    return NULL;
}
