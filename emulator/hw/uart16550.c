/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A UART (National Semiconductor PC16550D data sheet), one byte between registers.
 *
 * The line is as fast as the chardev: baud rates are kept and mean nothing. So a received character is never under way,
 * and the "character timeout" interrupt (characters waiting below the trigger level) is due at once. The transmit FIFO
 * empties into the chardev; only when that is full does the guest see a busy transmitter.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

#define UART_BYTES 0x100u
#define UART_CLOCK_HZ 3686400u
#define FIFO_BYTES 16u

enum { RBR_THR_DLL = 0, IER_DLM = 1, IIR_FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };
enum { IER_RX = 1, IER_THRE = 2, IER_LINE = 4, IER_MODEM = 8 };
enum { IIR_NONE = 0x01, IIR_MODEM = 0x00, IIR_THRE = 0x02, IIR_RX = 0x04, IIR_LINE = 0x06, IIR_TIMEOUT = 0x0c };
enum { IIR_FIFOS_ON = 0xc0 };
enum { FCR_ENABLE = 1, FCR_CLEAR_RX = 2, FCR_CLEAR_TX = 4 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16 };
enum { LSR_READY = 1, LSR_OVERRUN = 2, LSR_BREAK = 0x10, LSR_THRE = 0x20, LSR_IDLE = 0x40, LSR_ERRORS = 0x1e };
enum { MSR_CTS = 0x10, MSR_DSR = 0x20, MSR_RI = 0x40, MSR_DCD = 0x80 };

struct fifo {
    uint8_t bytes[FIFO_BYTES];
    unsigned start, count;
};

struct uart {
    struct device device;
    uint64_t base;
    struct irq_input irq;
    struct char_front front;
    struct fifo rx, tx;
    uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
    bool thre_pending; /* "transmitter empty" has not been acknowledged */
};

/* --- FIFOs ---------------------------------------------------------------------------------------------------------
 */

static unsigned fifo_limit(const struct uart *uart)
{
    return uart->fcr & FCR_ENABLE ? FIFO_BYTES : 1;
}

static void fifo_put(struct fifo *fifo, uint8_t byte)
{
    fifo->bytes[(fifo->start + fifo->count++) % FIFO_BYTES] = byte;
}

static uint8_t fifo_get(struct fifo *fifo)
{
    uint8_t byte = fifo->bytes[fifo->start];
    fifo->start = (fifo->start + 1) % FIFO_BYTES;
    fifo->count--;
    return byte;
}

static unsigned trigger_level(const struct uart *uart)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return uart->fcr & FCR_ENABLE ? levels[uart->fcr >> 6] : 1;
}

/* --- interrupts, in order of priority --------------------------------------------------------------------------------
 */

static uint8_t interrupt_id(const struct uart *uart)
{
    if (uart->ier & IER_LINE && uart->lsr_errors)
        return IIR_LINE;
    if (uart->ier & IER_RX && uart->rx.count)
        return uart->rx.count >= trigger_level(uart) ? IIR_RX : IIR_TIMEOUT;
    if (uart->ier & IER_THRE && uart->thre_pending)
        return IIR_THRE;
    if (uart->ier & IER_MODEM && uart->msr & 0x0f)
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct uart *uart)
{
    irq_set(&uart->irq.irq, interrupt_id(uart) != IIR_NONE);
}

/* --- sending ---------------------------------------------------------------------------------------------------------
 */

static void receive_byte(struct uart *uart, uint8_t byte)
{
    if (uart->rx.count < fifo_limit(uart))
        fifo_put(&uart->rx, byte);
    else
        uart->lsr_errors |= LSR_OVERRUN;
}

static void send_waiting(struct uart *uart)
{
    while (uart->tx.count) {
        if (char_line_write(&uart->front, &uart->tx.bytes[uart->tx.start], 1) == 0)
            return; /* `writable` calls us again */
        fifo_get(&uart->tx);
    }
    uart->thre_pending = true;
}

static void write_thr(struct uart *uart, uint8_t byte)
{
    uart->thre_pending = false;
    if (uart->mcr & MCR_LOOP) {
        receive_byte(uart, byte);
        uart->thre_pending = true;
    } else {
        if (uart->tx.count == FIFO_BYTES)
            fifo_get(&uart->tx); /* the guest did not look: its loss */
        fifo_put(&uart->tx, byte);
        send_waiting(uart);
    }
    update_irq(uart);
}

/* --- modem lines
 * ------------------------------------------------------------------------------------------------------ */

/* Somebody is always there and ready; in loopback the outputs come back as inputs. */
static uint8_t modem_inputs(const struct uart *uart)
{
    if (!(uart->mcr & MCR_LOOP))
        return MSR_CTS | MSR_DSR | MSR_DCD;
    return (uart->mcr & MCR_RTS ? MSR_CTS : 0) | (uart->mcr & MCR_DTR ? MSR_DSR : 0) |
           (uart->mcr & MCR_OUT1 ? MSR_RI : 0) | (uart->mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void update_modem(struct uart *uart)
{
    uint8_t before = uart->msr & 0xf0, now = modem_inputs(uart), changed = (before ^ now) >> 4;
    changed &= ~(now & MSR_RI ? 4 : 0); /* the ring indicator reports its falling edge only */
    uart->msr = now | (uart->msr & 0x0f) | changed;
}

/* --- registers
 * -------------------------------------------------------------------------------------------------------- */

static uint8_t read_rbr(struct uart *uart)
{
    uint8_t byte = uart->rx.count ? fifo_get(&uart->rx) : 0;
    if (uart->rx.count < fifo_limit(uart))
        char_line_accept_input(&uart->front);
    update_irq(uart);
    return byte;
}

static uint64_t uart_read(void *device, uint64_t offset, unsigned size)
{
    struct uart *uart = device;
    bool dlab = uart->lcr & LCR_DLAB;
    uint8_t value;
    switch (offset) {
    case RBR_THR_DLL: return dlab ? uart->dll : read_rbr(uart);
    case IER_DLM: return dlab ? uart->dlm : uart->ier;
    case IIR_FCR:
        value = interrupt_id(uart);
        if (value == IIR_THRE)
            uart->thre_pending = false;
        update_irq(uart);
        return value | (uart->fcr & FCR_ENABLE ? IIR_FIFOS_ON : 0);
    case LCR: return uart->lcr;
    case MCR: return uart->mcr;
    case LSR:
        value = (uart->rx.count ? LSR_READY : 0) | uart->lsr_errors;
        value |= uart->tx.count ? 0 : LSR_THRE | LSR_IDLE;
        uart->lsr_errors = 0;
        update_irq(uart);
        return value;
    case MSR:
        value = uart->msr;
        uart->msr &= 0xf0;
        update_irq(uart);
        return value;
    case SCR: return uart->scr;
    default: return 0;
    }
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    if (value & FCR_CLEAR_RX || (value ^ uart->fcr) & FCR_ENABLE) {
        uart->rx.count = 0;
        char_line_accept_input(&uart->front);
    }
    if (value & FCR_CLEAR_TX || (value ^ uart->fcr) & FCR_ENABLE) {
        uart->tx.count = 0;
        uart->thre_pending = true;
    }
    uart->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 0xc0) : 0;
}

static void write_ier(struct uart *uart, uint8_t value)
{
    /* Enabling the transmitter interrupt while it is empty raises it at once. */
    if (value & IER_THRE && !(uart->ier & IER_THRE) && !uart->tx.count)
        uart->thre_pending = true;
    uart->ier = value & 0x0f;
}

static void uart_write(void *device, uint64_t offset, uint64_t wide, unsigned size)
{
    struct uart *uart = device;
    bool dlab = uart->lcr & LCR_DLAB;
    uint8_t value = (uint8_t)wide;
    switch (offset) {
    case RBR_THR_DLL:
        if (dlab)
            uart->dll = value;
        else
            write_thr(uart, value);
        break;
    case IER_DLM:
        if (dlab)
            uart->dlm = value;
        else
            write_ier(uart, value);
        break;
    case IIR_FCR: write_fcr(uart, value); break;
    case LCR: uart->lcr = value; break;
    case MCR:
        uart->mcr = value & 0x1f;
        update_modem(uart);
        break;
    case SCR: uart->scr = value; break;
    default: break; /* LSR and MSR are read only */
    }
    update_irq(uart);
}

/* --- the chardev's side, on the main loop
 * ------------------------------------------------------------------------------ */

static size_t uart_can_receive(void *owner)
{
    struct uart *uart = owner;
    machine_lock(uart->device.hw->memory);
    size_t room = uart->mcr & MCR_LOOP ? 0 : fifo_limit(uart) - MIN(uart->rx.count, fifo_limit(uart));
    machine_unlock(uart->device.hw->memory);
    return room;
}

static void uart_receive(void *owner, const uint8_t *data, size_t size)
{
    struct uart *uart = owner;
    machine_lock(uart->device.hw->memory);
    for (size_t i = 0; i < size; i++)
        receive_byte(uart, data[i]);
    update_irq(uart);
    machine_unlock(uart->device.hw->memory);
}

static void uart_writable(void *owner)
{
    struct uart *uart = owner;
    machine_lock(uart->device.hw->memory);
    send_waiting(uart);
    update_irq(uart);
    machine_unlock(uart->device.hw->memory);
}

static void uart_event(void *owner, enum char_line_event event)
{
    struct uart *uart = owner;
    if (event != CHAR_LINE_BREAK)
        return;
    machine_lock(uart->device.hw->memory);
    receive_byte(uart, 0);
    uart->lsr_errors |= LSR_BREAK;
    update_irq(uart);
    machine_unlock(uart->device.hw->memory);
}

static const struct char_front_ops uart_front_ops = {uart_can_receive, uart_receive, uart_writable, uart_event};

/* --- life
 * -------------------------------------------------------------------------------------------------------------- */

static void uart_reset(struct device *device)
{
    struct uart *uart = (struct uart *)device;
    uart->ier = uart->fcr = uart->lcr = uart->lsr_errors = uart->scr = uart->dlm = 0;
    uart->dll = 0x0c;
    uart->mcr = MCR_OUT2;
    uart->msr = modem_inputs(uart);
    uart->rx.count = uart->tx.count = 0;
    uart->thre_pending = false;
    update_irq(uart);
    char_line_accept_input(&uart->front);
}

static void uart_destroy(struct device *device)
{
    struct uart *uart = (struct uart *)device;
    char_line_detach(&uart->front);
    device_finish(device);
    free(uart);
}

static void uart_describe(struct device *device, struct device_tree *tree)
{
    struct uart *uart = (struct uart *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    tree_node(tree, path);
    tree_string(tree, path, "compatible", "ns16550a");
    tree_reg(tree, path, uart->base, UART_BYTES);
    tree_u32s(tree, path, "clock-frequency", UART_CLOCK_HZ);
    tree_u32s(tree, path, "interrupt-parent", uart->irq.controller);
    tree_u32s(tree, path, "interrupts", uart->irq.number);
    tree_node(tree, "/chosen");
    tree_string(tree, "/chosen", "stdout-path", path);
}

bool uart16550_connect(struct device *device, struct char_line *line, struct error *err)
{
    struct uart *uart = (struct uart *)device;
    return char_line_attach(line, &uart->front, err);
}

static const struct mmio_ops uart_registers = {uart_read, uart_write, 1, 1};
static const struct device_ops uart_ops = {uart_reset, uart_destroy, uart_describe};

struct device *uart16550_create(struct hw *hw, uint64_t base, struct irq_input irq, struct error *err)
{
    struct uart *uart = new (struct uart);
    uart->base = base;
    uart->irq = irq;
    uart->front.ops = &uart_front_ops;
    uart->front.owner = uart;
    device_init(&uart->device, hw, &uart_ops, "serial", base);
    if (physmap_add_mmio(hw->memory, "serial", base, UART_BYTES, &uart_registers, uart, err))
        return &uart->device;
    uart_destroy(&uart->device);
    return NULL;
}
