/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goldfish real-time clock: the time of day in nanoseconds, and one alarm. (Android emulator documentation,
 * GOLDFISH-VIRTUAL-HARDWARE, section "Goldfish timer".)
 *
 *     0x00 TIME_LOW         reading latches the time; writing sets it, with TIME_HIGH written before
 *     0x04 TIME_HIGH
 *     0x08 ALARM_LOW        writing arms the alarm, with ALARM_HIGH written before
 *     0x0c ALARM_HIGH
 *     0x10 IRQ_ENABLED      bit 0
 *     0x14 CLEAR_ALARM      writing disarms
 *     0x18 ALARM_STATUS     1 while armed
 *     0x1c CLEAR_INTERRUPT  writing lowers the interrupt
 *
 * The guest's setting is an offset to the host's time of day, kept until the emulator ends.
 */
#include "base/alloc.h"
#include "base/cleanup.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

enum {
    TIME_LOW = 0x00,
    TIME_HIGH = 0x04,
    ALARM_LOW = 0x08,
    ALARM_HIGH = 0x0c,
    IRQ_ENABLED = 0x10,
    CLEAR_ALARM = 0x14,
    ALARM_STATUS = 0x18,
    CLEAR_INTERRUPT = 0x1c
};
#define RTC_BYTES 0x1000u

struct goldfish_rtc {
    struct device device;
    uint64_t base;
    struct irq_input irq;
    struct clock_timer *timer;
    uint64_t offset_ns; /* guest's time of day minus the host's */
    uint32_t time_high; /* latched by TIME_LOW, or written for it */
    uint64_t alarm_ns;
    uint32_t alarm_high;
    bool alarm_armed, irq_enabled, irq_pending;
};

static uint64_t now_ns(const struct goldfish_rtc *rtc)
{
    return clock_wall_ns(rtc->device.hw->clock) + rtc->offset_ns;
}

static void update_irq(struct goldfish_rtc *rtc)
{
    irq_set(&rtc->irq.irq, rtc->irq_pending && rtc->irq_enabled);
}

static void update_alarm(struct goldfish_rtc *rtc)
{
    uint64_t now = now_ns(rtc);
    if (!rtc->alarm_armed) {
        clock_timer_cancel(rtc->timer);
    } else if (rtc->alarm_ns <= now) {
        rtc->alarm_armed = false;
        rtc->irq_pending = true;
        update_irq(rtc);
    } else {
        /* In guest time, which stands still with the machine: the alarm is then looked at again and re-armed. */
        uint64_t wait = rtc->alarm_ns - now, guest_now = clock_now_ns(rtc->device.hw->clock);
        clock_timer_arm(rtc->timer, wait < UINT64_MAX / 2 ? guest_now + wait : UINT64_MAX - 1);
    }
}

static void alarm_due(void *arg)
{
    struct goldfish_rtc *rtc = arg;
    machine_lock(rtc->device.hw->memory);
    update_alarm(rtc);
    machine_unlock(rtc->device.hw->memory);
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
    struct goldfish_rtc *rtc = device;
    switch (offset) {
    case TIME_LOW: {
        uint64_t now = now_ns(rtc);
        rtc->time_high = (uint32_t)(now >> 32);
        return (uint32_t)now;
    }
    case TIME_HIGH: return rtc->time_high;
    case ALARM_LOW: return (uint32_t)rtc->alarm_ns;
    case ALARM_HIGH: return rtc->alarm_ns >> 32;
    case IRQ_ENABLED: return rtc->irq_enabled;
    case ALARM_STATUS: return rtc->alarm_armed;
    default: return 0;
    }
}

static void rtc_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct goldfish_rtc *rtc = device;
    switch (offset) {
    case TIME_LOW:
        rtc->offset_ns = ((uint64_t)rtc->time_high << 32 | value) - clock_wall_ns(rtc->device.hw->clock);
        update_alarm(rtc);
        break;
    case TIME_HIGH: rtc->time_high = (uint32_t)value; break;
    case ALARM_LOW:
        rtc->alarm_ns = (uint64_t)rtc->alarm_high << 32 | value;
        rtc->alarm_armed = true;
        update_alarm(rtc);
        break;
    case ALARM_HIGH: rtc->alarm_high = (uint32_t)value; break;
    case IRQ_ENABLED:
        rtc->irq_enabled = value & 1;
        update_irq(rtc);
        break;
    case CLEAR_ALARM:
        rtc->alarm_armed = false;
        update_alarm(rtc);
        break;
    case CLEAR_INTERRUPT:
        rtc->irq_pending = false;
        update_irq(rtc);
        break;
    default: break;
    }
}

static void rtc_reset(struct device *device)
{
    struct goldfish_rtc *rtc = (struct goldfish_rtc *)device;
    rtc->alarm_ns = 0;
    rtc->alarm_high = 0;
    rtc->alarm_armed = rtc->irq_enabled = rtc->irq_pending = false;
    update_alarm(rtc);
    update_irq(rtc);
}

static void rtc_destroy(struct device *device)
{
    struct goldfish_rtc *rtc = (struct goldfish_rtc *)device;
    clock_timer_free(rtc->timer);
    device_finish(device);
    free(rtc);
}

static void rtc_describe(struct device *device, struct device_tree *tree)
{
    struct goldfish_rtc *rtc = (struct goldfish_rtc *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    tree_node(tree, path);
    tree_string(tree, path, "compatible", "google,goldfish-rtc");
    tree_reg(tree, path, rtc->base, RTC_BYTES);
    tree_u32s(tree, path, "interrupt-parent", rtc->irq.controller);
    tree_u32s(tree, path, "interrupts", rtc->irq.number);
}

static const struct mmio_ops rtc_registers = {rtc_read, rtc_write, 4, 4};
static const struct device_ops rtc_ops = {rtc_reset, rtc_destroy, rtc_describe};

struct device *goldfish_rtc_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err)
{
    struct goldfish_rtc *rtc = new (struct goldfish_rtc);
    rtc->base = base;
    rtc->irq = irq;
    rtc->timer = clock_timer_new(hw->clock, alarm_due, rtc);
    device_init(&rtc->device, hw, &rtc_ops, "rtc", base);
    if (physmap_add_mmio(hw->memory, "rtc", base, RTC_BYTES, &rtc_registers, rtc, err))
        return &rtc->device;
    rtc_destroy(&rtc->device);
    return NULL;
}
