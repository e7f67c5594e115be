/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RISC-V platform-level interrupt controller (RISC-V PLIC specification 1.0.0), as SiFive lays it out.
 *
 *     0x000000 + 4 * source               priority, 0 (never) to 7
 *     0x001000 + 4 * word                 pending bits, read only
 *     0x002000 + 0x80 * context           enable bits
 *     0x200000 + 0x1000 * context         threshold: only higher priorities interrupt
 *     0x200004 + 0x1000 * context         claim (read) and complete (write)
 *
 * Context 2 * hart is the hart's machine mode, 2 * hart + 1 its supervisor mode. Sources are level triggered: the
 * gateway turns a level into one request, and looks at the level again when the request is completed. A request stays
 * pending when the level falls before the claim, as the specification says.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/math.h"
#include "emulator/hw/device_tree.h"
#include "emulator/hw/devices.h"

#define WORDS DIV_ROUND_UP(PLIC_SOURCES + 1, 32)
#define MAX_PRIORITY 7u
enum { PRIORITY = 0x0, PENDING = 0x1000, ENABLE = 0x2000, CONTEXT = 0x200000 };
enum { ENABLE_STRIDE = 0x80, CONTEXT_STRIDE = 0x1000 };
enum { LINE_SEI = 9, LINE_MEI = 11 };

struct plic_context {
    struct cpu *cpu;
    unsigned line;
    bool raised;
    uint32_t threshold;
    uint32_t enable[WORDS];
};

struct plic {
    struct device device;
    uint64_t base;
    uint32_t phandle;
    unsigned context_count;
    struct plic_context *contexts;
    uint32_t *intc; /* phandles by hart */
    uint8_t priority[PLIC_SOURCES + 1];
    uint32_t level[WORDS], pending[WORDS], claimed[WORDS];
};

static bool bit_get(const uint32_t *words, unsigned bit)
{
    return words[bit / 32] >> bit % 32 & 1;
}

static void bit_set(uint32_t *words, unsigned bit, bool value)
{
    words[bit / 32] = (words[bit / 32] & ~(1u << bit % 32)) | (uint32_t)value << bit % 32;
}

/* The pending and enabled source of the highest priority above the threshold; the lowest number among equals. 0: none.
 */
static unsigned best_source(const struct plic *plic, const struct plic_context *context)
{
    unsigned best = 0, best_priority = context->threshold;
    for (unsigned word = 0; word < WORDS; word++) {
        for (uint32_t bits = plic->pending[word] & context->enable[word]; bits; bits &= bits - 1) {
            unsigned source = word * 32 + lowest_bit(bits);
            if (plic->priority[source] > best_priority) {
                best = source;
                best_priority = plic->priority[source];
            }
        }
    }
    return best;
}

static void update(struct plic *plic)
{
    for (unsigned i = 0; i < plic->context_count; i++) {
        struct plic_context *context = &plic->contexts[i];
        bool raise = best_source(plic, context) != 0;
        if (raise != context->raised)
            cpu_set_irq(context->cpu, context->line, raise);
        context->raised = raise;
    }
}

/* The gateway: a level becomes a request unless one is already on its way. */
static void gateway(struct plic *plic, unsigned source)
{
    if (bit_get(plic->level, source) && !bit_get(plic->claimed, source))
        bit_set(plic->pending, source, true);
}

static void plic_set_irq(void *target, unsigned source, bool level)
{
    struct plic *plic = target;
    if (bit_get(plic->level, source) == level)
        return;
    bit_set(plic->level, source, level);
    gateway(plic, source);
    update(plic);
}

static uint32_t claim(struct plic *plic, struct plic_context *context)
{
    unsigned source = best_source(plic, context);
    if (source) {
        bit_set(plic->pending, source, false);
        bit_set(plic->claimed, source, true);
        update(plic);
    }
    return source;
}

static void complete(struct plic *plic, const struct plic_context *context, uint32_t source)
{
    /* A completion for a source that is not enabled here is ignored. */
    if (!source || source > PLIC_SOURCES || !bit_get(context->enable, source))
        return;
    bit_set(plic->claimed, source, false);
    gateway(plic, source);
    update(plic);
}

/* Where a register of the per-context parts lies. NULL: nowhere. */
static struct plic_context *find_context(struct plic *plic, uint64_t offset, uint64_t stride, uint64_t *inside)
{
    *inside = offset % stride;
    return offset / stride < plic->context_count ? &plic->contexts[offset / stride] : NULL;
}

static uint64_t plic_read(void *device, uint64_t offset, unsigned size)
{
    struct plic *plic = device;
    uint64_t inside;
    if (offset < PENDING)
        return offset / 4 <= PLIC_SOURCES ? plic->priority[offset / 4] : 0;
    if (offset < ENABLE)
        return (offset - PENDING) / 4 < WORDS ? plic->pending[(offset - PENDING) / 4] : 0;
    if (offset < CONTEXT) {
        struct plic_context *context = find_context(plic, offset - ENABLE, ENABLE_STRIDE, &inside);
        return context && inside / 4 < WORDS ? context->enable[inside / 4] : 0;
    }
    struct plic_context *context = find_context(plic, offset - CONTEXT, CONTEXT_STRIDE, &inside);
    if (context && inside == 0)
        return context->threshold;
    return context && inside == 4 ? claim(plic, context) : 0;
}

static void plic_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct plic *plic = device;
    uint64_t inside;
    if (offset < PENDING) {
        if (offset / 4 && offset / 4 <= PLIC_SOURCES)
            plic->priority[offset / 4] = value & MAX_PRIORITY;
        update(plic);
    } else if (offset >= CONTEXT) {
        struct plic_context *context = find_context(plic, offset - CONTEXT, CONTEXT_STRIDE, &inside);
        if (context && inside == 0) {
            context->threshold = value & MAX_PRIORITY;
            update(plic);
        } else if (context && inside == 4) {
            complete(plic, context, (uint32_t)value);
        }
    } else if (offset >= ENABLE) {
        struct plic_context *context = find_context(plic, offset - ENABLE, ENABLE_STRIDE, &inside);
        if (context && inside / 4 < WORDS) {
            context->enable[inside / 4] = (uint32_t)value & (inside ? UINT32_MAX : ~1u); /* there is no source 0 */
            update(plic);
        }
    }
}

static void plic_reset(struct device *device)
{
    struct plic *plic = (struct plic *)device;
    memset(plic->priority, 0, sizeof plic->priority);
    memset(plic->pending, 0, sizeof plic->pending);
    memset(plic->claimed, 0, sizeof plic->claimed);
    for (unsigned i = 0; i < plic->context_count; i++) {
        plic->contexts[i].threshold = 0;
        memset(plic->contexts[i].enable, 0, sizeof plic->contexts[i].enable);
    }
    for (unsigned source = 1; source <= PLIC_SOURCES; source++)
        gateway(plic, source); /* whoever still drives its line is a request again */
    update(plic);
}

static void plic_destroy(struct device *device)
{
    struct plic *plic = (struct plic *)device;
    device_finish(device);
    free(plic->contexts);
    free(plic->intc);
    free(plic);
}

static void plic_describe(struct device *device, struct device_tree *tree)
{
    struct plic *plic = (struct plic *)device;
    auto_free char *path = xasprintf("/soc/%s", device->name);
    auto_free uint32_t *lines = new_array(uint32_t, 2 * plic->context_count);
    for (unsigned i = 0; i < plic->context_count; i++) {
        lines[2 * i] = plic->intc[i / 2];
        lines[2 * i + 1] = plic->contexts[i].line;
    }
    tree_node(tree, path);
    static const char compatible[] = "sifive,plic-1.0.0\0riscv,plic0";
    tree_strings(tree, path, "compatible", compatible, sizeof compatible);
    tree_reg(tree, path, plic->base, PLIC_BYTES);
    tree_flag(tree, path, "interrupt-controller");
    tree_u32s(tree, path, "#interrupt-cells", 1);
    tree_u32s(tree, path, "#address-cells", 0);
    tree_u32s(tree, path, "riscv,ndev", PLIC_SOURCES);
    tree_u32s(tree, path, "phandle", plic->phandle);
    tree_cells(tree, path, "interrupts-extended", lines, 2 * plic->context_count);
}

struct irq_input plic_input(struct device *device, unsigned source)
{
    struct plic *plic = (struct plic *)device;
    assert(source && source <= PLIC_SOURCES);
    return (struct irq_input){{plic_set_irq, plic, source}, plic->phandle, source};
}

static const struct mmio_ops plic_registers = {plic_read, plic_write, 4, 4};
static const struct device_ops plic_ops = {plic_reset, plic_destroy, plic_describe};

struct device *plic_create(struct hw *hw, uint64_t base, uint32_t phandle, struct cpu *const *cpus, unsigned cpu_count,
                           const uint32_t *cpu_intc, struct error *err)
{
    struct plic *plic = new (struct plic);
    plic->base = base;
    plic->phandle = phandle;
    plic->context_count = 2 * cpu_count;
    plic->contexts = new_array(struct plic_context, plic->context_count);
    plic->intc = xmemdup(cpu_intc, cpu_count * sizeof *cpu_intc);
    for (unsigned i = 0; i < plic->context_count; i++) {
        plic->contexts[i].cpu = cpus[i / 2];
        plic->contexts[i].line = i % 2 ? LINE_SEI : LINE_MEI;
    }
    device_init(&plic->device, hw, &plic_ops, "plic", base);
    if (physmap_add_mmio(hw->memory, "plic", base, PLIC_BYTES, &plic_registers, plic, err))
        return &plic->device;
    plic_destroy(&plic->device);
    return NULL;
}
