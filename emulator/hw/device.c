/* SPDX-License-Identifier: Apache-2.0 */
/* The common part of devices. */
#include "emulator/hw/device.h"

#include <inttypes.h>
#include "base/alloc.h"

void device_init(struct device *device, struct hw *hw, const struct device_ops *ops, const char *class, uint64_t base)
{
    device->ops = ops;
    device->hw = hw;
    device->name = xasprintf("%s@%" PRIx64, class, base);
    list_append(&hw->devices, &device->link);
}

void device_finish(struct device *device)
{
    list_remove(&device->link);
    free(device->name);
}
