/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The `virt` board of RISC-V: no real machine, but the one that the ecosystem's kernels, firmware and distributions
 * expect.
 *
 * Boot. All harts start in the boot ROM, which puts the hart number into a0, the address of the device tree into a1,
 * the address of OpenSBI's fw_dynamic information into a2, and jumps to the firmware (or, without one, to the kernel).
 * Firmware is at the start of RAM, the kernel at the next 2 MiB behind it, the initrd behind the kernel, the device
 * tree near the end.
 */
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/math.h"
#include "emulator/hw/board/board.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

/* The address map. */
enum {
    ROM_BASE = 0x1000,
    ROM_BYTES = 0xf000,
    TEST_BASE = 0x100000,
    RTC_BASE = 0x101000,
    CLINT_BASE = 0x2000000,
    PLIC_BASE = 0xc000000,
    UART_BASE = 0x10000000,
    VIRTIO_BASE = 0x10001000,
    VIRTIO_STRIDE = 0x1000,
    VIRTIO_SLOTS = 8,
};
#define RAM_BASE UINT64_C(0x80000000)

/* Interrupts of the PLIC. */
enum { IRQ_VIRTIO = 1, IRQ_UART = 10, IRQ_RTC = 11 };

#define MAX_CPUS 64u
#define KERNEL_ALIGNMENT (2 * MiB)
#define INITRD_FAR (128 * MiB) /* how far behind the kernel's start, at most */
#define DEFAULT_FIRMWARE "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
#define TREE_NAME "the device tree"
#define ROM_NAME "the boot ROM"

struct virt {
    struct board board;
    struct board_config config;
    uint32_t *intc; /* phandle of each hart's interrupt controller */
    uint32_t plic_phandle, test_phandle;
    struct program firmware, kernel;
    bool has_firmware, has_kernel;
    uint64_t initrd_start, initrd_end;
    void *user_tree; /* -dtb */
    size_t user_tree_size;
};

static uint32_t cpu_phandle(unsigned index)
{
    return 2 * index + 1;
}

/* --- device tree -----------------------------------------------------------------------------------------------------
 */

static void describe_cpu(struct virt *virt, struct device_tree *tree, unsigned index)
{
    const struct cpu_arch *arch = virt->config.arch;
    auto_free char *path = xasprintf("/cpus/cpu@%x", index);
    auto_free char *intc = xasprintf("%s/interrupt-controller", path);
    auto_free char *core = xasprintf("/cpus/cpu-map/cluster0/core%u", index);
    tree_node(tree, path);
    tree_string(tree, path, "device_type", "cpu");
    tree_u32s(tree, path, "reg", index);
    tree_string(tree, path, "status", "okay");
    tree_string(tree, path, "compatible", "riscv");
    tree_string(tree, path, "riscv,isa", arch->isa);
    if (arch->isa_extensions) {
        char names[1024];
        size_t size = 0;
        for (const char *const *at = arch->isa_extensions; *at && size + strlen(*at) + 1 < sizeof names; at++)
            size += (size_t)(stpcpy(names + size, *at) - (names + size)) + 1;
        tree_string(tree, path, "riscv,isa-base", "rv64i");
        tree_strings(tree, path, "riscv,isa-extensions", names, size);
    }
    tree_string(tree, path, "mmu-type", arch->mmu_type);
    tree_u32s(tree, path, "phandle", cpu_phandle(index));
    tree_node(tree, intc);
    tree_u32s(tree, intc, "#interrupt-cells", 1);
    tree_flag(tree, intc, "interrupt-controller");
    tree_string(tree, intc, "compatible", "riscv,cpu-intc");
    tree_u32s(tree, intc, "phandle", virt->intc[index]);
    tree_node(tree, core);
    tree_u32s(tree, core, "cpu", cpu_phandle(index));
}

static void describe_machine(struct virt *virt, struct device_tree *tree)
{
    auto_free char *memory = xasprintf("/memory@%" PRIx64, RAM_BASE);
    struct device *device;
    tree_u32s(tree, "/", "#address-cells", 2);
    tree_u32s(tree, "/", "#size-cells", 2);
    tree_string(tree, "/", "compatible", "riscv-virtio");
    tree_string(tree, "/", "model", "riscv-virtio,spindle");
    tree_node(tree, "/cpus");
    tree_u32s(tree, "/cpus", "#address-cells", 1);
    tree_u32s(tree, "/cpus", "#size-cells", 0);
    tree_u32s(tree, "/cpus", "timebase-frequency", CLINT_TIMEBASE_HZ);
    tree_node(tree, "/cpus/cpu-map");
    tree_node(tree, "/cpus/cpu-map/cluster0");
    for (unsigned i = virt->config.cpu_count; i-- > 0;) /* libfdt puts a new node in front of its brothers */
        describe_cpu(virt, tree, i);
    tree_node(tree, memory);
    tree_string(tree, memory, "device_type", "memory");
    tree_reg(tree, memory, RAM_BASE, virt->config.ram_size);
    tree_node(tree, "/soc");
    tree_u32s(tree, "/soc", "#address-cells", 2);
    tree_u32s(tree, "/soc", "#size-cells", 2);
    tree_string(tree, "/soc", "compatible", "simple-bus");
    tree_flag(tree, "/soc", "ranges");
    list_for_each (device, &virt->board.hw.devices, link) {
        if (device->ops->describe)
            device->ops->describe(device, tree);
    }
}

static void describe_boot(struct virt *virt, struct device_tree *tree)
{
    uint8_t seed[32];
    tree_node(tree, "/chosen");
    if (virt->config.append)
        tree_string(tree, "/chosen", "bootargs", virt->config.append);
    if (virt->initrd_end) {
        tree_u64(tree, "/chosen", "linux,initrd-start", virt->initrd_start);
        tree_u64(tree, "/chosen", "linux,initrd-end", virt->initrd_end);
    }
    clock_random(virt->board.hw.clock, seed, sizeof seed);
    tree_bytes(tree, "/chosen", "rng-seed", seed, sizeof seed);
}

static void *virt_describe(struct board *board, size_t *size, struct error *err)
{
    struct virt *virt = (struct virt *)board;
    struct device_tree *tree =
        virt->user_tree ? device_tree_from_blob(virt->user_tree, virt->user_tree_size, err) : device_tree_new();
    if (!tree)
        return NULL;
    if (!virt->user_tree)
        describe_machine(virt, tree);
    describe_boot(virt, tree);
    void *blob = device_tree_finish(tree, size, err);
    device_tree_free(tree);
    return blob;
}

/* --- boot ROM --------------------------------------------------------------------------------------------------------
 */

/* The information that OpenSBI's fw_dynamic takes (OpenSBI, docs/firmware/fw_dynamic.md): six doublewords. */
enum { FW_DYNAMIC_MAGIC = 0x4942534f, FW_DYNAMIC_VERSION = 2, FW_DYNAMIC_MODE_S = 1 };

static bool place_rom(struct virt *virt, uint64_t tree_address, struct error *err)
{
    static const uint32_t code[] = {
        0x00000297, /* auipc t0, 0 */
        0x02828613, /* addi  a2, t0, 40      the fw_dynamic information */
        0xf1402573, /* csrr  a0, mhartid */
        0x0202b583, /* ld    a1, 32(t0)      the device tree */
        0x0182b283, /* ld    t0, 24(t0)      where to go */
        0x00028067, /* jr    t0 */
    };
    uint64_t start = virt->has_firmware ? virt->firmware.entry : virt->has_kernel ? virt->kernel.entry : RAM_BASE;
    uint64_t data[] = {
        start,
        tree_address,
        FW_DYNAMIC_MAGIC,
        FW_DYNAMIC_VERSION,
        virt->has_kernel ? virt->kernel.entry : 0,
        FW_DYNAMIC_MODE_S,
        0, /* options */
        0, /* the hart that boots */
    };
    size_t size = sizeof code + sizeof data;
    uint8_t *rom = xmalloc(size);
    for (size_t i = 0; i < ARRAY_SIZE(code); i++)
        store_le32(rom + 4 * i, code[i]);
    for (size_t i = 0; i < ARRAY_SIZE(data); i++)
        store_le64(rom + sizeof code + 8 * i, data[i]);
    image_list_remove(&virt->board.images, ROM_NAME);
    return image_list_add(&virt->board.images, ROM_NAME, ROM_BASE, rom, size, size, err);
}

/* Made at each reset: the tree carries a fresh seed for the guest's random numbers. */
static bool virt_place(struct board *board, struct error *err)
{
    struct virt *virt = (struct virt *)board;
    size_t size;
    void *blob = virt_describe(board, &size, err);
    if (!blob)
        return false;
    /* Below 3 GiB for guests that look with 32 bits; aligned to 2 MiB, which a kernel maps as one page. */
    uint64_t limit = MIN(RAM_BASE + virt->config.ram_size, 3 * GiB);
    uint64_t address = round_down(limit - MIN(size, virt->config.ram_size), 2 * MiB);
    image_list_remove(&board->images, TREE_NAME);
    return image_list_add(&board->images, TREE_NAME, address, blob, size, size, err) && place_rom(virt, address, err);
}

/* --- images ----------------------------------------------------------------------------------------------------------
 */

static bool load_firmware(struct virt *virt, struct error *err)
{
    const char *bios = virt->config.bios;
    if (bios && strcmp(bios, "none") == 0)
        return true;
    bool chosen = bios && strcmp(bios, "default") != 0;
    virt->has_firmware =
        load_program(&virt->board.images, chosen ? bios : DEFAULT_FIRMWARE, RAM_BASE, &virt->firmware, err);
    if (!virt->has_firmware && !chosen)
        fail_prefix(err, "default firmware (Debian package 'opensbi', or choose with -bios FILE, or -bios none): ");
    return virt->has_firmware;
}

static bool load_kernel(struct virt *virt, struct error *err)
{
    if (!virt->config.kernel)
        return true;
    uint64_t firmware_end = virt->has_firmware ? virt->firmware.end : RAM_BASE;
    uint64_t address = round_up(firmware_end, KERNEL_ALIGNMENT);
    virt->has_kernel = load_program(&virt->board.images, virt->config.kernel, address, &virt->kernel, err);
    return virt->has_kernel || fail_prefix(err, "kernel: ");
}

static bool load_initrd(struct virt *virt, struct error *err)
{
    size_t size;
    if (!virt->config.initrd)
        return true;
    if (!virt->has_kernel)
        return fail(err, EINVAL, "-initrd needs -kernel");
    void *data = load_file(virt->config.initrd, virt->config.ram_size, &size, err);
    if (!data)
        return fail_prefix(err, "initrd: ");
    uint64_t start = virt->kernel.start + MIN(virt->config.ram_size / 2, INITRD_FAR);
    start = MAX(start, round_up(virt->kernel.end, KERNEL_ALIGNMENT));
    virt->initrd_start = start;
    virt->initrd_end = start + size;
    return image_list_add(&virt->board.images, virt->config.initrd, start, data, size, size, err);
}

static bool load_images(struct virt *virt, struct error *err)
{
    if (virt->config.dtb) {
        virt->user_tree = load_file(virt->config.dtb, 16 * MiB, &virt->user_tree_size, err);
        if (!virt->user_tree)
            return fail_prefix(err, "device tree: ");
    }
    return load_firmware(virt, err) && load_kernel(virt, err) && load_initrd(virt, err);
}

/* --- building --------------------------------------------------------------------------------------------------------
 */

static bool create_cpus(struct virt *virt, struct error *err)
{
    struct board *board = &virt->board;
    board->cpus = new_array(struct cpu *, virt->config.cpu_count);
    virt->intc = new_array(uint32_t, virt->config.cpu_count);
    board->cpu_count = virt->config.cpu_count;
    for (unsigned i = 0; i < board->cpu_count; i++) {
        virt->intc[i] = cpu_phandle(i) + 1;
        board->cpus[i] = cpu_new(virt->config.arch, i, board->hw.memory, board->hw.clock, board->cpus[0], err);
        if (!board->cpus[i])
            return false;
    }
    virt->plic_phandle = cpu_phandle(board->cpu_count);
    virt->test_phandle = virt->plic_phandle + 1;
    return true;
}

static bool create_devices(struct virt *virt, struct error *err)
{
    struct board *board = &virt->board;
    struct hw *hw = &board->hw;
    struct device *plic =
        plic_create(hw, PLIC_BASE, virt->plic_phandle, board->cpus, board->cpu_count, virt->intc, err);
    if (!plic || !clint_create(hw, CLINT_BASE, board->cpus, board->cpu_count, virt->intc, err) ||
        !sifive_test_create(hw, TEST_BASE, virt->test_phandle, err) ||
        !goldfish_rtc_create(hw, RTC_BASE, plic_input(plic, IRQ_RTC), err))
        return false;
    for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
        struct irq_input irq = plic_input(plic, IRQ_VIRTIO + i);
        struct device *slot = virtio_mmio_create(hw, VIRTIO_BASE + i * VIRTIO_STRIDE, irq, err);
        if (!slot)
            return false;
        board->slots[VIRTIO_SLOTS - 1 - i] = slot; /* the ecosystem fills them from the top */
    }
    board->slot_count = VIRTIO_SLOTS;
    board->serial[0] = uart16550_create(hw, UART_BASE, plic_input(plic, IRQ_UART), err);
    return board->serial[0];
}

static void virt_free(struct board *board)
{
    struct virt *virt = (struct virt *)board;
    free(virt->user_tree);
    free(virt->intc);
    free(board->cpus);
    free(virt);
}

static struct board *virt_create(struct loop *loop, struct clock *clock, const struct board_config *config,
                                 const struct power_control *power, struct error *err)
{
    struct virt *virt = new (struct virt);
    struct board *board = &virt->board;
    virt->config = *config;
    board->type = &board_virt;
    board->hw = (struct hw){.memory = physmap_new(), .clock = clock, .loop = loop, .power = *power};
    list_init(&board->hw.devices);
    board->describe = virt_describe;
    board->place = virt_place;
    board->free = virt_free;
    board->reset_pc = ROM_BASE;
    if (physmap_add_rom(board->hw.memory, "boot ROM", ROM_BASE, ROM_BYTES, err) &&
        physmap_add_ram(board->hw.memory, "ram", RAM_BASE, config->ram_size, err) && create_cpus(virt, err) &&
        create_devices(virt, err) && load_images(virt, err))
        return board;
    board_free(board);
    return NULL;
}

const struct board_type board_virt = {
    .name = "virt",
    .description = "RISC-V VirtIO board",
    .max_cpus = MAX_CPUS,
    .serial_count = 1,
    .default_ram = 128 * MiB,
    .create = virt_create,
};
