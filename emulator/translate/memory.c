/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory accesses the slow way: whatever the inline lookup of translated code does not serve comes here (a TLB
 * miss, a straddled page, a device, a page with code in it, a misaligned atomic), and so does the evaluator and every
 * helper.
 *
 * An access that straddles pages has both translated before a byte moves. Naturally aligned accesses to RAM are single
 * host accesses, so other vCPUs see them whole.
 */
#include <string.h>
#include "base/endian.h"
#include "emulator/memory/physmap.h"
#include "emulator/translate/codecache.h"
#include "emulator/translate/compute.h"
#include "emulator/translate/try_access.h"

/* --- Bytes of one page --- */

static bool refuse(struct translate_cpu *tc, uint64_t address, enum translate_access access, bool misaligned)
{
    tc->code->guest->raise_access(tc->cpu, address, access, misaligned);
    tc->exception = 1;
    return false;
}

static void plain_read(const uint8_t *host, unsigned size, void *out)
{
    bool aligned = ((uintptr_t)host & (size - 1)) == 0;
    if (size == 8 && aligned) {
        uint64_t x = __atomic_load_n((const uint64_t *)host, __ATOMIC_RELAXED);
        memcpy(out, &x, sizeof x);
    } else if (size == 4 && aligned) {
        uint32_t x = __atomic_load_n((const uint32_t *)host, __ATOMIC_RELAXED);
        memcpy(out, &x, sizeof x);
    } else if (size == 2 && aligned) {
        uint16_t x = __atomic_load_n((const uint16_t *)host, __ATOMIC_RELAXED);
        memcpy(out, &x, sizeof x);
    } else if (size == 1) {
        *(uint8_t *)out = __atomic_load_n(host, __ATOMIC_RELAXED);
    } else {
        memcpy(out, host, size);
    }
}

static void plain_write(uint8_t *host, unsigned size, const void *in)
{
    bool aligned = ((uintptr_t)host & (size - 1)) == 0;
    if (size == 8 && aligned) {
        uint64_t x;
        memcpy(&x, in, sizeof x);
        __atomic_store_n((uint64_t *)host, x, __ATOMIC_RELAXED);
    } else if (size == 4 && aligned) {
        uint32_t x;
        memcpy(&x, in, sizeof x);
        __atomic_store_n((uint32_t *)host, x, __ATOMIC_RELAXED);
    } else if (size == 2 && aligned) {
        uint16_t x;
        memcpy(&x, in, sizeof x);
        __atomic_store_n((uint16_t *)host, x, __ATOMIC_RELAXED);
    } else if (size == 1) {
        __atomic_store_n(host, *(const uint8_t *)in, __ATOMIC_RELAXED);
    } else {
        memcpy(host, in, size);
    }
}

/* Direct memory can fault although the guest may access it: a file that was cut, a thread that unmaps. */
static bool try_read(const uint8_t *host, unsigned size, void *out)
{
    uint64_t x = 0;
    bool done;
    if ((uintptr_t)host & (size - 1) || size > 8)
        return translate_try_copy(out, host, size) == 0;
    done = size == 8   ? translate_try_load_64(host, &x)
           : size == 4 ? translate_try_load_32(host, &x)
           : size == 2 ? translate_try_load_16(host, &x)
                       : translate_try_load_8(host, &x);
    memcpy(out, &x, size);
    return done;
}

static bool try_write(uint8_t *host, unsigned size, const void *in)
{
    uint64_t x = 0;
    if ((uintptr_t)host & (size - 1) || size > 8)
        return translate_try_copy(host, in, size) == 0;
    memcpy(&x, in, size);
    return size == 8   ? translate_try_store_64(host, x)
           : size == 4 ? translate_try_store_32(host, x)
           : size == 2 ? translate_try_store_16(host, x)
                       : translate_try_store_8(host, x);
}

static bool host_read(struct translate_cpu *tc, uint64_t address, const uint8_t *host, unsigned size, void *out)
{
    if (!tc->code->is_direct) {
        plain_read(host, size, out);
        return true;
    }
    return try_read(host, size, out) || refuse(tc, address, TRANSLATE_READ, false);
}

static bool host_write(struct translate_cpu *tc, uint64_t address, uint8_t *host, unsigned size, const void *in)
{
    if (!tc->code->is_direct) {
        plain_write(host, size, in);
        return true;
    }
    return try_write(host, size, in) || refuse(tc, address, TRANSLATE_WRITE, false);
}

static bool device_read(struct translate_cpu *tc, uint64_t address, uint64_t physical, unsigned size, uint8_t *out)
{
    for (unsigned done = 0; done < size; done += 8) {
        unsigned part = size - done < 8 ? size - done : 8;
        uint64_t value;
        if (!physmap_mmio_read(tc->code->memory, physical + done, part, &value))
            return refuse(tc, address, TRANSLATE_READ, false);
        value = htole64(value);
        memcpy(out + done, &value, part);
    }
    return true;
}

static bool device_write(struct translate_cpu *tc, uint64_t address, uint64_t physical, unsigned size,
                         const uint8_t *in)
{
    for (unsigned done = 0; done < size; done += 8) {
        unsigned part = size - done < 8 ? size - done : 8;
        uint64_t value = 0;
        memcpy(&value, in + done, part);
        if (!physmap_mmio_write(tc->code->memory, physical + done, le64toh(value), part))
            return refuse(tc, address, TRANSLATE_WRITE, false);
    }
    return true;
}

enum { FIRST_WRITE_LIMIT = 32, LAST_WRITE_LIMIT = 1 << 20 };

/* A page that once held code and now is stack or heap would have every write come here until its last old code line is
 * overwritten. So after some writes beside the code all code of the page goes. Where code and data really live together
 * it comes back, and then has twice as many writes before it goes again. */
static bool too_many_writes(struct translate_cpu *tc, uint64_t physical)
{
    uint64_t page = physical & ~(uint64_t)(TRANSLATE_PAGE - 1);
    struct translate_write_counter *c = &tc->write_counters[(page >> TRANSLATE_PAGE_BITS) % TRANSLATE_WRITE_COUNTERS];
    if (c->page != page)
        *c = (struct translate_write_counter){.page = page, .limit = FIRST_WRITE_LIMIT};
    if (++c->count < c->limit)
        return false;
    c->count = 0;
    if (c->limit < LAST_WRITE_LIMIT)
        c->limit *= 2;
    return true;
}

/* After a write to RAM: code there is dropped; a page without code need not come here again. */
static void wrote(struct translate_cpu *tc, uint64_t address, uint64_t physical, unsigned size, unsigned mmu)
{
    struct page_state *state = page_state_of(tc->code, physical);
    struct code_page *page = atomic_load(&state->code);
    if (!page)
        return;
    if (atomic_load(&page->lines) && too_many_writes(tc, physical))
        machine_code_invalidate(tc->code, physical & ~(uint64_t)(TRANSLATE_PAGE - 1), TRANSLATE_PAGE);
    else
        machine_code_invalidate(tc->code, physical, size);
    if (atomic_load(&page->lines) == 0)
        tlb_allow_write(tc, address, mmu);
}

static bool read_piece(struct translate_cpu *tc, uint64_t address, const struct translate_result *at, unsigned size,
                       void *out)
{
    if (!at->host)
        return device_read(tc, address, at->physical, size, out);
    return host_read(tc, address, at->host, size, out);
}

static bool write_piece(struct translate_cpu *tc, uint64_t address, const struct translate_result *at, unsigned size,
                        const void *in, unsigned mmu)
{
    if (!at->host)
        return device_write(tc, address, at->physical, size, in);
    if (at->read_only)
        return true; /* a bus ignores writes to ROM */
    if (!host_write(tc, address, at->host, size, in))
        return false;
    wrote(tc, address, at->physical, size, mmu);
    return true;
}

/* --- Whole accesses --- */

struct pieces {
    struct translate_result at[2];
    unsigned size[2];
    uint64_t second; /* address of the second */
};

static bool find(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, enum translate_access access,
                 struct pieces *p)
{
    unsigned size = 1u << mem.size, left = TRANSLATE_PAGE - (unsigned)(address & (TRANSLATE_PAGE - 1));
    if (mem.align == IR_ALIGN_NATURAL && (address & (size - 1)))
        return refuse(tc, address, access, true);
    p->size[0] = size < left ? size : left;
    p->size[1] = size - p->size[0];
    p->second = address + p->size[0];
    return tlb_access(tc, address, p->size[0], access, mem.mmu, &p->at[0]) &&
           (!p->size[1] || tlb_access(tc, p->second, p->size[1], access, mem.mmu, &p->at[1]));
}

static void swap_bytes(uint8_t *bytes, unsigned size)
{
    for (unsigned i = 0; i < size / 2; i++) {
        uint8_t b = bytes[i];
        bytes[i] = bytes[size - 1 - i];
        bytes[size - 1 - i] = b;
    }
}

bool memory_load(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, void *value)
{
    struct pieces p;
    uint8_t bytes[64];
    if (!find(tc, address, mem, TRANSLATE_READ, &p) || !read_piece(tc, address, &p.at[0], p.size[0], bytes))
        return false;
    if (p.size[1] && !read_piece(tc, p.second, &p.at[1], p.size[1], bytes + p.size[0]))
        return false;
    unsigned size = 1u << mem.size;
    if (mem.big_endian)
        swap_bytes(bytes, size);
    if (size > 8) {
        memcpy(value, bytes, size);
        return true;
    }
    uint64_t x = 0;
    memcpy(&x, bytes, size);
    x = ir_extend(le64toh(x), 8 * size, mem.is_signed);
    memcpy(value, &x, sizeof x);
    return true;
}

bool memory_store(struct translate_cpu *tc, uint64_t address, const void *value, struct ir_mem mem)
{
    struct pieces p;
    uint8_t bytes[64];
    unsigned size = 1u << mem.size;
    memcpy(bytes, value, size);
    if (mem.big_endian)
        swap_bytes(bytes, size);
    return find(tc, address, mem, TRANSLATE_WRITE, &p) &&
           write_piece(tc, address, &p.at[0], p.size[0], bytes, mem.mmu) &&
           (!p.size[1] || write_piece(tc, p.second, &p.at[1], p.size[1], bytes + p.size[0], mem.mmu));
}

bool translate_load(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint64_t *value)
{
    return memory_load(tc, address, mem, value);
}

bool translate_store(struct translate_cpu *tc, uint64_t address, uint64_t value, struct ir_mem mem)
{
    value = htole64(value);
    return memory_store(tc, address, &value, mem);
}

/* --- Atomics --- */

/* Compares and exchanges the low bytes at `host`; *expected becomes what was there. A fault (direct memory only) is
 * recorded. */
static enum translate_try host_cmpxchg(struct translate_cpu *tc, uint64_t address, uint8_t *host, unsigned size_log2,
                                       uint64_t *expected, uint64_t desired)
{
    static int (*const by_size[])(void *at, uint64_t *expected, uint64_t desired) = {
        translate_try_cmpxchg_8, translate_try_cmpxchg_16, translate_try_cmpxchg_32, translate_try_cmpxchg_64};
    enum translate_try result = (enum translate_try)by_size[size_log2](host, expected, desired);
    if (result == TRANSLATE_TRY_FAULT)
        refuse(tc, address, TRANSLATE_WRITE, false);
    return result;
}

/* A plain load and store instead of an atomic: devices, and words that straddle pages or are misaligned. */
static bool plain_update(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint64_t *old,
                         uint64_t expected, bool compare, uint64_t operand)
{
    struct ir_mem raw = mem;
    raw.is_signed = false;
    if (!memory_load(tc, address, raw, old))
        return false;
    if (compare && *old != ir_extend(expected, 8u << mem.size, false))
        return true;
    uint64_t value = compare ? operand : ir_compute_amo((enum ir_amo)mem.amo, mem.size, *old, operand);
    return memory_store(tc, address, &value, raw);
}

/* Where an atomic happens. false: exception. *host NULL: use plain_update(). Writing must be allowed, as for a store.
 */
static bool find_atomic(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint8_t **host,
                        uint64_t *physical)
{
    struct pieces p;
    if (!find(tc, address, mem, TRANSLATE_WRITE, &p))
        return false;
    bool whole = !p.size[1] && (address & ((1u << mem.size) - 1)) == 0;
    *host = whole && p.at[0].host && !p.at[0].read_only ? p.at[0].host : NULL;
    *physical = p.at[0].physical;
    return true;
}

bool memory_cmpxchg(struct translate_cpu *tc, uint64_t address, uint64_t expected, uint64_t desired, struct ir_mem mem,
                    uint64_t *old)
{
    uint8_t *host;
    uint64_t physical;
    if (!find_atomic(tc, address, mem, &host, &physical))
        return false;
    *old = ir_extend(expected, 8u << mem.size, false);
    if (!host) {
        if (!plain_update(tc, address, mem, old, expected, true, desired))
            return false;
    } else {
        enum translate_try done = host_cmpxchg(tc, address, host, mem.size, old, desired);
        if (done == TRANSLATE_TRY_FAULT)
            return false;
        if (done == TRANSLATE_TRY_DONE)
            wrote(tc, address, physical, 1u << mem.size, mem.mmu);
    }
    *old = ir_extend(*old, 8u << mem.size, mem.is_signed);
    return true;
}

bool memory_amo(struct translate_cpu *tc, uint64_t address, uint64_t operand, struct ir_mem mem, uint64_t *old)
{
    uint8_t *host;
    uint64_t physical;
    if (!find_atomic(tc, address, mem, &host, &physical))
        return false;
    if (!host) {
        if (!plain_update(tc, address, mem, old, 0, false, operand))
            return false;
    } else {
        enum translate_try done;
        *old = 0;
        if (!host_read(tc, address, host, 1u << mem.size, old))
            return false;
        do {
            uint64_t desired = ir_compute_amo((enum ir_amo)mem.amo, mem.size, *old, operand);
            done = host_cmpxchg(tc, address, host, mem.size, old, desired);
        } while (done == TRANSLATE_TRY_OTHER);
        if (done == TRANSLATE_TRY_FAULT)
            return false;
        wrote(tc, address, physical, 1u << mem.size, mem.mmu);
    }
    *old = ir_extend(*old, 8u << mem.size, mem.is_signed);
    return true;
}

bool memory_load_reserved(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint64_t *value)
{
    struct ir_mem raw = mem;
    raw.is_signed = false;
    if (!memory_load(tc, address, raw, value))
        return false;
    tc->reserved_address = address;
    tc->reserved_value = *value;
    *value = ir_extend(*value, 8u << mem.size, mem.is_signed);
    return true;
}

bool memory_store_conditional(struct translate_cpu *tc, uint64_t address, uint64_t value, struct ir_mem mem,
                              uint64_t *failed)
{
    uint8_t *host;
    uint64_t physical, old = tc->reserved_value;
    if (!find_atomic(tc, address, mem, &host, &physical))
        return false;
    bool reserved = tc->reserved_address == address;
    tc->reserved_address = UINT64_MAX;
    *failed = 1;
    if (!reserved)
        return true;
    if (!host) {
        mem.is_signed = false;
        if (!plain_update(tc, address, mem, &old, tc->reserved_value, true, value))
            return false;
        *failed = old != ir_extend(tc->reserved_value, 8u << mem.size, false);
    } else {
        enum translate_try done = host_cmpxchg(tc, address, host, mem.size, &old, value);
        if (done != TRANSLATE_TRY_DONE)
            return done != TRANSLATE_TRY_FAULT;
        *failed = 0;
        wrote(tc, address, physical, 1u << mem.size, mem.mmu);
    }
    return true;
}
