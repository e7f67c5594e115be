/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation: Sv39 and Sv48 (volume II, sections 4.3.2, 4.4, 4.5), then physical memory protection. The result
 * fills the translator's TLB; nothing here is on the path of an access that hits.
 *
 * Accessed and dirty bits are set by the walk, atomically, as hardware that updates them does: a page table entry that
 * changed meanwhile starts the walk again. A page whose dirty bit is clear is entered read-only, so that the first
 * store comes back here.
 */
#include <stdatomic.h>
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/riscv.h"
#include "emulator/memory/physmap.h"

enum { LEVEL_BITS = 9, SV39_LEVELS = 3, SV48_LEVELS = 4 };

enum walk_result { WALK_OK, WALK_PAGE_FAULT, WALK_ACCESS_FAULT, WALK_AGAIN };

struct walk {
    struct cpu_riscv *cpu;
    uint64_t address;
    enum translate_access access;
    bool user, sum; /* the privilege that the access is made with */
    uint64_t pte, pte_address;
    unsigned level;
};

void riscv_set_satp(struct cpu_riscv *cpu, uint64_t value)
{
    /* "Changing satp.MODE from Bare to other modes and vice versa also takes effect immediately." */
    bool mode_changed = (cpu->satp ^ value) >> SATP_MODE_SHIFT != 0;

    cpu->satp = value;
    translate_set_asid(&cpu->tc, value >> SATP_ASID_SHIFT & SATP_ASID_MASK);
    if (mode_changed)
        translate_flush_all(&cpu->tc);
}

void riscv_translation_changed(struct cpu_riscv *cpu)
{
    memset(cpu->table_pages, 0, sizeof(cpu->table_pages));
    translate_flush_all(&cpu->tc);
}

void riscv_fence_vma(struct cpu_riscv *cpu, const uint64_t *address, const uint64_t *asid)
{
    if (address)
        translate_flush_page(&cpu->tc, *address); /* of every address space: more than asked is allowed */
    else if (asid)
        translate_flush_asid(&cpu->tc, *asid & SATP_ASID_MASK);
    else
        translate_flush_all(&cpu->tc);
}

/* ---- faults ---- */

static void raise_page_fault(struct cpu_riscv *cpu, uint64_t address, enum translate_access access)
{
    static const enum riscv_exception causes[] = {
        [TRANSLATE_READ] = EXC_LOAD_PAGE, [TRANSLATE_WRITE] = EXC_STORE_PAGE, [TRANSLATE_FETCH] = EXC_INSTRUCTION_PAGE};

    riscv_raise(cpu, causes[access], address);
}

void riscv_raise_access(void *opaque, uint64_t address, enum translate_access access, bool misaligned)
{
    static const enum riscv_exception causes[2][3] = {{[TRANSLATE_READ] = EXC_LOAD_ACCESS,
                                                       [TRANSLATE_WRITE] = EXC_STORE_ACCESS,
                                                       [TRANSLATE_FETCH] = EXC_INSTRUCTION_ACCESS},
                                                      {[TRANSLATE_READ] = EXC_LOAD_MISALIGNED,
                                                       [TRANSLATE_WRITE] = EXC_STORE_MISALIGNED,
                                                       [TRANSLATE_FETCH] = EXC_INSTRUCTION_MISALIGNED}};

    riscv_raise(opaque, causes[misaligned][access], address);
}

/* ---- the walk ---- */

static bool is_leaf(uint64_t pte)
{
    return pte & (PTE_R | PTE_X);
}

/* A page all of which is RAM that S may read and write; walks ask for the same few pages all the time. */
static uint8_t *known_table_page(struct cpu_riscv *cpu, uint64_t page)
{
    struct riscv_table_page *entry = &cpu->table_pages[(page >> TRANSLATE_PAGE_BITS) % RISCV_TABLE_PAGES];
    bool uniform;

    if (likely(entry->page == page && entry->host))
        return entry->host;
    if ((~riscv_pmp_page(&cpu->pmp, PRIV_S, page, &uniform) & (PMP_R | PMP_W)) || !uniform)
        return NULL;
    *entry = (struct riscv_table_page){page, physmap_pointer(cpu->cpu.memory, page, TRANSLATE_PAGE, true)};
    return entry->host;
}

/* Page tables are read and written with S's rights (section 3.7.2); NULL: access fault. */
static uint64_t *pte_pointer(struct cpu_riscv *cpu, uint64_t address, bool for_write)
{
    uint8_t *host = known_table_page(cpu, round_down(address, TRANSLATE_PAGE));

    if (likely(host))
        return (uint64_t *)(host + address % TRANSLATE_PAGE);
    if (!riscv_pmp_allows(&cpu->pmp, PRIV_S, address, sizeof(uint64_t), for_write ? PMP_R | PMP_W : PMP_R))
        return NULL;
    return physmap_pointer(cpu->cpu.memory, address, sizeof(uint64_t), for_write);
}

/* Steps 1 to 4 of section 4.3.2: down to a leaf. */
static enum walk_result find_leaf(struct walk *w, unsigned levels)
{
    struct cpu_riscv *cpu = w->cpu;
    uint64_t table = (cpu->satp & SATP_PPN_MASK) << TRANSLATE_PAGE_BITS;

    for (w->level = levels; w->level-- > 0;) {
        unsigned shift = TRANSLATE_PAGE_BITS + LEVEL_BITS * w->level;
        uint64_t *entry;

        w->pte_address = table + (w->address >> shift & ((1u << LEVEL_BITS) - 1)) * sizeof(uint64_t);
        entry = pte_pointer(cpu, w->pte_address, false);
        if (!entry)
            return WALK_ACCESS_FAULT;
        w->pte = __atomic_load_n(entry, __ATOMIC_ACQUIRE);
        if (!(w->pte & PTE_V) || (w->pte & (PTE_R | PTE_W)) == PTE_W || (w->pte & PTE_RESERVED))
            return WALK_PAGE_FAULT;
        if (is_leaf(w->pte))
            return WALK_OK;
        if (w->pte & (PTE_U | PTE_A | PTE_D)) /* reserved in pointers to the next level */
            return WALK_PAGE_FAULT;
        table = w->pte >> PTE_PPN_SHIFT << TRANSLATE_PAGE_BITS;
    }
    return WALK_PAGE_FAULT;
}

static bool readable(const struct walk *w)
{
    return (w->pte & PTE_R) || ((w->pte & PTE_X) && (w->cpu->mstatus & MSTATUS_MXR));
}

/* Step 5: the leaf's permissions. */
static bool permits(const struct walk *w)
{
    if (w->user ? !(w->pte & PTE_U) : (w->pte & PTE_U) && (!w->sum || w->access == TRANSLATE_FETCH))
        return false;
    switch (w->access) {
    case TRANSLATE_READ: return readable(w);
    case TRANSLATE_WRITE: return w->pte & PTE_W;
    case TRANSLATE_FETCH: return w->pte & PTE_X;
    }
    return false;
}

/* Step 7: sets A, and D for a store, unless the entry changed since we read it. */
static enum walk_result set_accessed_dirty(struct walk *w)
{
    uint64_t wanted = w->pte | PTE_A | (w->access == TRANSLATE_WRITE ? PTE_D : 0);
    uint64_t *entry;

    if (wanted == w->pte)
        return WALK_OK;
    entry = pte_pointer(w->cpu, w->pte_address, true);
    if (!entry)
        return WALK_ACCESS_FAULT;
    if (!__atomic_compare_exchange_n(entry, &w->pte, wanted, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        return WALK_AGAIN;
    physmap_note_write(w->cpu->cpu.memory, w->pte_address, sizeof(uint64_t));
    w->pte = wanted;
    return WALK_OK;
}

/* Are the bits above the highest translated one copies of it? */
static bool is_canonical(uint64_t address, unsigned levels)
{
    unsigned unused = 64 - (TRANSLATE_PAGE_BITS + LEVEL_BITS * levels);

    return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

static enum walk_result walk(struct walk *w, unsigned levels, struct translate_page *page)
{
    uint64_t span, base;
    enum walk_result result;

    if (!is_canonical(w->address, levels))
        return WALK_PAGE_FAULT;
    result = find_leaf(w, levels);
    if (result != WALK_OK)
        return result;
    if (!permits(w))
        return WALK_PAGE_FAULT;
    span = 1ull << (TRANSLATE_PAGE_BITS + LEVEL_BITS * w->level);
    base = (w->pte & ~PTE_RESERVED) >> PTE_PPN_SHIFT << TRANSLATE_PAGE_BITS;
    if (!is_aligned(base, span)) /* step 6: misaligned superpage */
        return WALK_PAGE_FAULT;
    result = set_accessed_dirty(w);
    if (result != WALK_OK)
        return result;
    page->physical = base | (w->address & (span - 1));
    page->size_log2 = (uint8_t)(TRANSLATE_PAGE_BITS + LEVEL_BITS * w->level);
    page->global = w->pte & PTE_G;
    page->read = readable(w);
    page->write = (w->pte & PTE_W) && (w->pte & PTE_D);
    page->fetch = (w->pte & PTE_X) && (w->user || !(w->pte & PTE_U));
    return WALK_OK;
}

/* ---- the result ---- */

static void identity(uint64_t address, struct translate_page *page)
{
    *page = (struct translate_page){.physical = address,
                                    .read = true,
                                    .write = true,
                                    .fetch = true,
                                    .global = true,
                                    .size_log2 = TRANSLATE_PAGE_BITS};
}

/* Takes away what PMP forbids; false when that includes the access itself. */
static bool protect(struct cpu_riscv *cpu, unsigned privilege, unsigned size, enum translate_access access,
                    struct translate_page *page)
{
    static const unsigned needed[] = {[TRANSLATE_READ] = PMP_R, [TRANSLATE_WRITE] = PMP_W, [TRANSLATE_FETCH] = PMP_X};
    bool uniform;
    unsigned rights = riscv_pmp_page(&cpu->pmp, privilege, round_down(page->physical, TRANSLATE_PAGE), &uniform);

    if (!uniform) {
        page->partial = true;
        return riscv_pmp_allows(&cpu->pmp, privilege, page->physical, size, needed[access]);
    }
    page->read = page->read && (rights & PMP_R);
    page->write = page->write && (rights & PMP_W);
    page->fetch = page->fetch && (rights & PMP_X);
    return rights & needed[access];
}

bool riscv_fill_tlb(void *opaque, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                    struct translate_page *page)
{
    struct cpu_riscv *cpu = opaque;
    unsigned mode = (unsigned)(cpu->satp >> SATP_MODE_SHIFT);
    enum walk_result result;

    identity(address, page);
    if (mmu != MMU_M && mode != SATP_BARE) {
        do {
            struct walk w = {
                .cpu = cpu, .address = address, .access = access, .user = mmu == MMU_U, .sum = mmu == MMU_S_SUM};
            result = walk(&w, mode == SATP_SV39 ? SV39_LEVELS : SV48_LEVELS, page);
        } while (result == WALK_AGAIN);
        if (result == WALK_PAGE_FAULT) {
            raise_page_fault(cpu, address, access);
            return false;
        }
        if (result == WALK_ACCESS_FAULT) {
            riscv_raise_access(cpu, address, access, false);
            return false;
        }
    }
    if (!protect(cpu, mmu == MMU_M ? PRIV_M : PRIV_S, size, access, page)) {
        riscv_raise_access(cpu, address, access, false);
        return false;
    }
    return true;
}
