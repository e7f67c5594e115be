/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SiFive test finisher: one register by which a guest ends the machine. 0x5555 powers off with status 0, 0x3333 with
 * the status in the upper half, 0x7777 resets. The device tree offers it as a system controller with `syscon-poweroff`
 * and `syscon-reboot` nodes, which is how operating systems and firmware use it.
 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

#define TEST_BYTES 0x1000u
enum { FINISHER_FAIL = 0x3333, FINISHER_PASS = 0x5555, FINISHER_RESET = 0x7777 };

struct sifive_test {
    struct device device;
    uint64_t base;
    uint32_t phandle;
};

static uint64_t test_read(void *device, uint64_t offset, unsigned size)
{
    return 0;
}

static void test_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct sifive_test *test = device;
    const struct power_control *power = &test->device.hw->power;
    if (offset != 0)
        return;
    switch (value & 0xffff) {
    case FINISHER_PASS: power->shutdown(power->arg, 0); break;
    case FINISHER_FAIL: power->shutdown(power->arg, (int)(value >> 16 & 0xffff)); break;
    case FINISHER_RESET: power->reset(power->arg); break;
    default: break;
    }
}

static void test_destroy(struct device *device)
{
    device_finish(device);
    free(device);
}

static void describe_action(struct device_tree *tree, const char *path, const char *compatible, uint32_t regmap,
                            uint32_t value)
{
    tree_node(tree, path);
    tree_string(tree, path, "compatible", compatible);
    tree_u32s(tree, path, "regmap", regmap);
    tree_u32s(tree, path, "offset", 0);
    tree_u32s(tree, path, "value", value);
}

static void test_describe(struct device *device, struct device_tree *tree)
{
    struct sifive_test *test = (struct sifive_test *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    tree_node(tree, path);
    static const char compatible[] = "sifive,test1\0sifive,test0\0syscon";
    tree_strings(tree, path, "compatible", compatible, sizeof compatible);
    tree_reg(tree, path, test->base, TEST_BYTES);
    tree_u32s(tree, path, "phandle", test->phandle);
    describe_action(tree, "/reboot", "syscon-reboot", test->phandle, FINISHER_RESET);
    describe_action(tree, "/poweroff", "syscon-poweroff", test->phandle, FINISHER_PASS);
}

static const struct mmio_ops test_registers = {test_read, test_write, 1, 4};
static const struct device_ops test_ops = {NULL, test_destroy, test_describe};

struct device *sifive_test_create(struct hw *hw, uint64_t base, uint32_t phandle, struct error *err)
{
    struct sifive_test *test = new (struct sifive_test);
    test->base = base;
    test->phandle = phandle;
    device_init(&test->device, hw, &test_ops, "test", base);
    if (physmap_add_mmio(hw->memory, "test", base, TEST_BYTES, &test_registers, test, err))
        return &test->device;
    test_destroy(&test->device);
    return NULL;
}
