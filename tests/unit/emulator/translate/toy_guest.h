/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest architecture for the translator's tests. Its instructions are 4 bytes: the number of a builder that the test
 * registered, and an argument. So a test writes IR, not encodings, and yet code lies in guest memory, where it can be
 * overwritten, remapped and faulted on.
 *
 * Memory: 1 MiB of RAM at 1 MiB, a device page at 0x1000. The MMU maps virtual to physical pages through a table in the
 * CPU struct, per address space.
 */
#ifndef TESTS_TOY_GUEST_H
#define TESTS_TOY_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "emulator/memory/physmap.h"
#include "emulator/translate/runtime.h"
#include <cmocka.h>
#undef fail /* base/error.h has a better one */

enum { TOY_RAM = 1 << 20, TOY_DEVICE = 0x1000, TOY_PAGES = 512, TOY_INSNS = 16, TOY_GPRS = 32 };
enum { TOY_X, TOY_F = 32, TOY_V = 64, TOY_B = 72, TOY_W, TOY_SLOTS };
enum toy_fault { TOY_NO_FAULT, TOY_PAGE_FAULT, TOY_ACCESS_FAULT, TOY_MISALIGNED, TOY_HELPER_FAULT };
struct toy;

/* Builds the IR of an instruction. Returns false when it ended the block. */
typedef bool toy_builder(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument);

struct toy {
    _Atomic uint32_t attention;
    struct {
        uint64_t x[TOY_GPRS], f[TOY_GPRS];
        uint64_t v[8][8];
        uint8_t byte;
        uint32_t word;
    } s;
    struct translate_cpu tc;

    struct physmap *memory;
    uint8_t *ram;
    struct machine_code *code;
    toy_builder *insns[TOY_INSNS];
    void *test;

    /* Page tables: virtual page number -> physical page address | permissions, by address space. */
    uint64_t map[2][TOY_PAGES];
    unsigned space;
    bool translate; /* off: identity */
    unsigned fills;
    enum toy_fault fault;
    uint64_t fault_address;
    uint64_t device_reads, device_writes, device_last;
};
enum { TOY_R = 1, TOY_WR = 2, TOY_EX = 4, TOY_GLOBAL = 8, TOY_LARGE = 16 /* of 16 KiB */ };

static inline bool toy_fill(void *cpu, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                            struct translate_page *page)
{
    struct toy *t = cpu;
    t->fills++;
    if (!t->translate) {
        *page =
            (struct translate_page){.physical = address, .read = true, .write = true, .fetch = true, .global = true};
        return true;
    }
    uint64_t number = address >> 12, entry = number < TOY_PAGES ? t->map[t->space][number] : 0;
    unsigned need = access == TRANSLATE_READ ? TOY_R : access == TRANSLATE_WRITE ? TOY_WR : TOY_EX;
    if (!(entry & need)) {
        t->fault = TOY_PAGE_FAULT;
        t->fault_address = address;
        return false;
    }
    *page = (struct translate_page){.physical = (entry & ~0xfffull) | (address & 0xfff)};
    page->read = entry & TOY_R;
    page->write = entry & TOY_WR;
    page->fetch = entry & TOY_EX;
    page->global = entry & TOY_GLOBAL;
    page->size_log2 = entry & TOY_LARGE ? 14 : 12;
    return true;
}

static inline void toy_raise(void *cpu, uint64_t address, enum translate_access access, bool misaligned)
{
    struct toy *t = cpu;
    t->fault = misaligned ? TOY_MISALIGNED : TOY_ACCESS_FAULT;
    t->fault_address = address;
}

static inline void toy_translate(struct translate_block *t)
{
    struct toy *toy = t->cpu;
    uint64_t pc = t->pc, bits;
    for (unsigned n = 0; n < t->max_insns && !ir_is_full(t->ir); n++, pc += 4) {
        if (!translate_fetch(t, pc, 4, &bits)) {
            translate_stop(t, pc);
            return;
        }
        ir_insn_start(t->ir, pc, 4);
        if (!toy->insns[bits & (TOY_INSNS - 1)](t, toy, pc, (unsigned)(bits >> 8)))
            return;
    }
    ir_exit_direct(t->ir, pc);
}

static inline unsigned toy_fetch_mmu(uint32_t mode)
{
    return 0;
}

/* Helpers: one that computes, one that looks at and changes slots, one that faults when asked to. */
static inline uint64_t toy_help_mix(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    return a * 3 + b * 5 + c * 7 + 1;
}
static inline uint64_t toy_help_slots(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct toy *t = cpu;
    t->s.x[5] += a + t->s.x[6];
    t->s.x[20] ^= t->s.x[5];
    return t->s.x[5];
}
static inline uint64_t toy_help_fault(void *cpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct toy *t = cpu;
    if (a & 1) {
        t->fault = TOY_HELPER_FAULT;
        translate_raise(&t->tc);
    }
    return a;
}
enum { TOY_HELP_MIX, TOY_HELP_SLOTS, TOY_HELP_FAULT, TOY_HELPERS };
static const struct ir_helper toy_helpers[TOY_HELPERS] = {
    {.name = "mix", .fn = toy_help_mix, .result = IR_I64, .pure = true},
    {.name = "slots",
     .fn = toy_help_slots,
     .result = IR_I64,
     .reads = {{1ull << 5 | 1ull << 6 | 1ull << 20, 0}},
     .writes = {{1ull << 5 | 1ull << 20, 0}}},
    {.name = "fault", .fn = toy_help_fault, .result = IR_I64, .may_fault = true},
};

#define TOY_XSLOT(n)                                                                                                   \
    {                                                                                                                  \
        "x" #n, offsetof(struct toy, s.x[n]), IR_I64, 0, (n) >= 1 && (n) <= 16 ? (n) : 0                               \
    }
#define TOY_FSLOT(n)                                                                                                   \
    {                                                                                                                  \
        "f" #n, offsetof(struct toy, s.f[n]), IR_I64, 1, 0                                                             \
    }
#define TOY_VSLOT(n)                                                                                                   \
    {                                                                                                                  \
        "v" #n, offsetof(struct toy, s.v[n]), (n) < 3 ? IR_V128 : (n) < 6 ? IR_V256 : IR_V512, 2, 0                    \
    }
#define TOY_8(m, a) m(a##0), m(a##1), m(a##2), m(a##3), m(a##4), m(a##5), m(a##6), m(a##7)
#define TOY_ALL32(m)                                                                                                   \
    m(0), m(1), m(2), m(3), m(4), m(5), m(6), m(7), m(8), m(9), m(10), m(11), m(12), m(13), m(14), m(15), m(16),       \
        m(17), m(18), m(19), m(20), m(21), m(22), m(23), m(24), m(25), m(26), m(27), m(28), m(29), m(30), m(31)
static const struct ir_slot toy_slots[TOY_SLOTS] = {
    TOY_ALL32(TOY_XSLOT),
    TOY_ALL32(TOY_FSLOT),
    TOY_8(TOY_VSLOT, ),
    {"byte", offsetof(struct toy, s.byte), IR_I8, 3, 0},
    {"word", offsetof(struct toy, s.word), IR_I32, 3, 0},
};

static const struct guest toy_guest = {
    .name = "toy",
    .slots = toy_slots,
    .slot_count = TOY_SLOTS,
    .helpers = toy_helpers,
    .helper_count = TOY_HELPERS,
    .base_offset = offsetof(struct toy, s.x) + 128,
    .state_offset = offsetof(struct toy, tc),
    .attention_offset = offsetof(struct toy, attention),
    .pc_align_log2 = 2,
    .mmu_count = 2,
    .translate = toy_translate,
    .fetch_mmu = toy_fetch_mmu,
    .fill_tlb = toy_fill,
    .raise_access = toy_raise,
};

static inline uint64_t toy_device_read(void *device, uint64_t offset, unsigned size)
{
    struct toy *t = device;
    t->device_reads++;
    return 0x1122334455667788 + offset;
}
static inline void toy_device_write(void *device, uint64_t offset, uint64_t value, unsigned size)
{
    struct toy *t = device;
    t->device_writes++;
    t->device_last = value;
}
static const struct mmio_ops toy_device_ops = {.read = toy_device_read, .write = toy_device_write};

static inline struct toy *toy_new(const struct translate_host *host)
{
    struct toy *t = new (struct toy);
    t->memory = physmap_new();
    assert_true(physmap_add_ram(t->memory, "ram", TOY_RAM, TOY_RAM, NULL));
    assert_true(physmap_add_mmio(t->memory, "device", TOY_DEVICE, 0x1000, &toy_device_ops, t, NULL));
    t->ram = physmap_pointer(t->memory, TOY_RAM, TOY_RAM, true);
    t->code = machine_code_new(&toy_guest, t->memory, host, NULL);
    assert_non_null(t->code);
    assert_true(translate_cpu_init(&t->tc, t, t->code, NULL));
    t->tc.pc = TOY_RAM;
    return t;
}

static inline void toy_free(struct toy *t)
{
    translate_cpu_destroy(&t->tc);
    machine_code_free(t->code);
    physmap_free(t->memory);
    free(t);
}

/* Another CPU of the same machine. */
static inline struct toy *toy_second(struct toy *first)
{
    struct toy *t = new (struct toy);
    t->memory = first->memory;
    t->ram = first->ram;
    t->code = first->code;
    memcpy(t->insns, first->insns, sizeof t->insns);
    t->test = first->test;
    assert_true(translate_cpu_init(&t->tc, t, t->code, NULL));
    t->tc.pc = TOY_RAM;
    return t;
}

static inline void toy_second_free(struct toy *t)
{
    translate_cpu_destroy(&t->tc);
    free(t);
}

static inline void toy_poke(struct toy *t, uint64_t physical, unsigned insn, unsigned argument)
{
    uint32_t word = insn | argument << 8;
    memcpy(t->ram + (physical - TOY_RAM), &word, sizeof word);
    physmap_note_write(t->memory, physical, sizeof word);
}

/* The usual last instruction: back to the test. */
static inline bool toy_stop(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    ir_exit_runtime(t->ir, TRANSLATE_EXIT_GUEST, pc + 4);
    return false;
}

#endif
