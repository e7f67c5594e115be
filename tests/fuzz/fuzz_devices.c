/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile guests at the registers of every device of the `virt` board. The input is a list of accesses, 12 bytes each:
 * where (a device and an offset), which size, read or write, and the value; some write guest memory, so that rings and
 * descriptors get contents. The devices must refuse or bear all of it.
 *
 * links: emulator/hw
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/endian.h"
#include "base/loop.h"
#include "base/math.h"
#include "emulator/hw/devices.h"
#include "emulator/hw/virtio_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM 0x80000000u
#define RAM_SIZE 0x10000u

static bool cpu_init(struct cpu *cpu, struct error *err)
{
    return true;
}
static void cpu_destroy(struct cpu *cpu)
{
}
static void cpu_line(struct cpu *cpu, unsigned line, bool level)
{
}
static const struct cpu_arch arch = {
    .name = "none", .size = sizeof(struct cpu), .init = cpu_init, .destroy = cpu_destroy, .set_irq = cpu_line};

static void power_off(void *arg, int exit_status)
{
}
static void power_reset(void *arg)
{
}

static const struct {
    uint64_t base, size;
} windows[] = {
    {0x2000000, 0x10000}, {0xc000000, 0x600000}, {0x10000000, 0x100}, {0x101000, 0x1000},
    {0x100000, 0x1000},   {0x10001000, 0x200},   {0x10002000, 0x200}, {RAM, RAM_SIZE},
};

static void build(struct hw *hw, struct cpu *cpus[2])
{
    static const uint32_t intc[2] = {1, 2};
    struct device *plic = plic_create(hw, windows[1].base, 3, cpus, 2, intc, NULL);
    clint_create(hw, windows[0].base, cpus, 2, intc, NULL);
    uart16550_create(hw, windows[2].base, plic_input(plic, 10), NULL);
    goldfish_rtc_create(hw, windows[3].base, plic_input(plic, 11), NULL);
    sifive_test_create(hw, windows[4].base, 4, NULL);
    virtio_mmio_plug(virtio_mmio_create(hw, windows[5].base, plic_input(plic, 1), NULL),
                     virtio_rng_create(hw, "r", NULL));
    virtio_mmio_plug(virtio_mmio_create(hw, windows[6].base, plic_input(plic, 2), NULL),
                     virtio_console_create(hw, "c", NULL));
}

static void reset_all(struct hw *hw)
{
    struct device *device;
    machine_lock(hw->memory);
    list_for_each (device, &hw->devices, link) {
        if (device->ops->reset)
            device->ops->reset(device);
    }
    machine_unlock(hw->memory);
}

static void access_one(struct physmap *map, const uint8_t *in)
{
    unsigned window = in[0] % ARRAY_SIZE(windows), bytes = 1u << in[1] % 4;
    uint64_t offset = load_le16(in + 2), value = load_le64(in + 4), ignored;
    if (window == 1)
        offset *= 64; /* the PLIC is wide */
    uint64_t address = windows[window].base + offset % windows[window].size;
    if (windows[window].base == RAM) {
        void *host = physmap_pointer(map, address, 8, true);
        if (host)
            memcpy(host, in + 4, 8);
    } else if (in[1] & 16) {
        physmap_mmio_read(map, address, bytes, &ignored);
    } else {
        physmap_mmio_write(map, address, value, bytes);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct loop *loop = loop_new(LOOP_SIMULATED, 1, NULL);
    struct hw hw = {
        .loop = loop, .memory = physmap_new(), .clock = clock_new(loop), .power = {power_off, power_reset, NULL}};
    list_init(&hw.devices);
    physmap_add_ram(hw.memory, "ram", RAM, RAM_SIZE, NULL);
    struct cpu *cpus[2];
    for (unsigned i = 0; i < 2; i++)
        cpus[i] = cpu_new(&arch, i, hw.memory, hw.clock, NULL, NULL);
    build(&hw, cpus);
    reset_all(&hw);
    for (size_t i = 0; i + 12 <= size && i < 12 * 2000; i += 12)
        access_one(hw.memory, data + i);
    reset_all(&hw);
    while (!list_empty(&hw.devices)) {
        struct device *last = list_last(&hw.devices, struct device, link);
        last->ops->destroy(last);
    }
    for (unsigned i = 0; i < 2; i++)
        cpu_free(cpus[i]);
    clock_free(hw.clock);
    physmap_free(hw.memory);
    loop_free(loop);
    return 0;
}
