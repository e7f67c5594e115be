/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The software TLB: filling, tags, flushing, and the fetch side.
 *
 * An entry is tagged with its page and a small number, the context, that stands for (regime, address space, flush
 * epoch). Translated code compares with translate_cpu.context[regime]; taking a fresh number flushes a regime at once,
 * and going back to the number of an address space seen before finds its entries again. Numbers run out after 2046
 * flushes: then the tables are wiped, which costs some microseconds. A regime that was not used since its last fresh
 * number keeps it.
 *
 * Global pages. Every regime has a shared number, used by all address spaces as long as they have put only global pages
 * under it (a kernel's regime, typically). The first page that is not global gives the current address space a number
 * of its own.
 *
 * The fetch side has contexts of its own, by the same rules: what a pc means is cached in translate_cpu.jumps (compared
 * with .key, which contains the fetch context) and fetch_page, which is small enough to be cleared.
 */
#include <string.h>
#include "emulator/translate/codecache.h"

enum { ENTRY_IS_MEMORY = 1, ENTRY_IS_WRITABLE = 2 }; /* in translate_tlb_entry.physical */
#define PAGE_MASK (~(uint64_t)(TRANSLATE_PAGE - 1))

static unsigned entry_index(uint64_t address)
{
    return (unsigned)(address >> TRANSLATE_PAGE_BITS) & (TRANSLATE_TLB_ENTRIES - 1);
}

/* --- Fetch context --- */

static void update_key(struct translate_cpu *tc)
{
    unsigned mmu = tc->code->guest->fetch_mmu(tc->mode);
    tc->key = (uint32_t)tc->private->fetch_context[mmu] << 16 | (tc->mode & 0xffff);
}

static void clear_returns(struct translate_cpu *tc)
{
    memset(tc->returns, 0xff, sizeof tc->returns); /* an odd pc: no return matches */
}

void tlb_forget_code(struct translate_cpu *tc)
{
    memset(tc->jumps, 0, sizeof tc->jumps); /* key 0 is never current */
    memset(tc->fetch_page, 0, sizeof tc->fetch_page);
    clear_returns(tc);
    tc->private->fetch_epoch++; /* identities are given out anew */
    tc->exit_link = 0;
}

static uint16_t fresh_fetch(struct translate_cpu *tc)
{
    struct translate_private *p = tc->private;
    if (p->next_fetch == UINT16_MAX) { /* no entries are left: numbers start again */
        memset(tc->jumps, 0, sizeof tc->jumps);
        for (p->next_fetch = 0; p->next_fetch < TRANSLATE_MMUS; p->next_fetch++)
            p->fetch_context[p->next_fetch] = p->fetch_shared[p->next_fetch] = p->next_fetch + 1;
        for (unsigned i = 0; i < CONTEXT_MAP; i++)
            p->map[i].valid = false;
    }
    return ++p->next_fetch;
}

/* The fetch contexts were changed. */
static void use_fetch_contexts(struct translate_cpu *tc)
{
    memset(tc->fetch_page, 0, sizeof tc->fetch_page);
    clear_returns(tc);
    update_key(tc);
}

/* Nothing that any address space executed is known any more. */
static void refresh_fetch(struct translate_cpu *tc)
{
    struct translate_private *p = tc->private;
    uint16_t fresh[TRANSLATE_MMUS];
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++)
        fresh[mmu] = fresh_fetch(tc);
    for (unsigned i = 0; i < CONTEXT_MAP; i++)
        memcpy(p->map[i].fetch, fresh, sizeof fresh);
    memcpy(p->fetch_shared, fresh, sizeof fresh);
    memcpy(p->fetch_context, fresh, sizeof fresh);
    memset(p->fetch_filter, 0, sizeof p->fetch_filter);
    p->fetch_epoch++;
    use_fetch_contexts(tc);
}

void translate_set_mode(struct translate_cpu *tc, uint32_t mode)
{
    if (tc->mode == mode)
        return;
    tc->mode = mode;
    clear_returns(tc);
    update_key(tc);
}

/* --- Tags --- */

static void forget_address_spaces(struct translate_private *p)
{
    for (unsigned i = 0; i < CONTEXT_MAP; i++)
        p->map[i].valid = false;
}

static uint16_t fresh_tag(struct translate_cpu *tc)
{
    return (uint16_t)(++tc->private->next_tag << TRANSLATE_CONTEXT_SHIFT);
}

static void share_fresh_tag(struct translate_cpu *tc, unsigned mmu)
{
    struct translate_private *p = tc->private;
    if (p->used[mmu] || !p->shared[mmu]) {
        p->shared[mmu] = fresh_tag(tc);
        p->used[mmu] = false;
    }
    tc->context[mmu] = p->shared[mmu];
}

/* Context 0 is never current. Other vCPUs may be looking at the entry (protect_entry()). */
static void forget_entry(struct translate_tlb_entry *entry)
{
    atomic_store_explicit(&entry->read, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->write, 0, memory_order_relaxed);
    atomic_store_explicit(&entry->physical, 0, memory_order_relaxed);
}

static void wipe(struct translate_cpu *tc)
{
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++) {
        for (unsigned i = 0; i < TRANSLATE_TLB_ENTRIES; i++)
            forget_entry(&tc->tlb[mmu][i]);
    }
    tc->private->next_tag = 0;
    forget_address_spaces(tc->private);
    memset(tc->private->shared, 0, sizeof tc->private->shared);
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++)
        share_fresh_tag(tc, mmu);
}

/* Makes sure that `count` numbers can be had; after a wipe all current ones are fresh already. */
static bool tags_left(struct translate_cpu *tc, unsigned count)
{
    if (tc->private->next_tag + count < TRANSLATE_CONTEXTS)
        return true;
    wipe(tc);
    return false;
}

static void forget_large(struct translate_private *p)
{
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++) {
        for (unsigned i = 0; i < LARGE_RANGES; i++)
            p->large[mmu][i] = (struct large_range){UINT64_MAX, 0};
    }
}

static bool is_in_large(const struct translate_private *p, unsigned mmu, uint64_t address)
{
    for (unsigned i = 0; i < LARGE_RANGES; i++) {
        if (address >= p->large[mmu][i].low && address <= p->large[mmu][i].high)
            return true;
    }
    return false;
}

void tlb_init(struct translate_cpu *tc)
{
    tc->direct_size = tc->code->direct.size;
    if (!tc->code->is_direct) /* else it is never looked at */
        wipe(tc);
    forget_large(tc->private);
    refresh_fetch(tc);
}

void translate_flush_all(struct translate_cpu *tc)
{
    forget_address_spaces(tc->private);
    bool left = tags_left(tc, TRANSLATE_MMUS);
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++) {
        if (left)
            share_fresh_tag(tc, mmu);
    }
    forget_large(tc->private);
    refresh_fetch(tc);
}

void translate_flush_mmu(struct translate_cpu *tc, unsigned mmu)
{
    forget_address_spaces(tc->private);
    if (tags_left(tc, 1))
        share_fresh_tag(tc, mmu);
    refresh_fetch(tc);
}

static void remember_address_space(struct translate_cpu *tc)
{
    struct translate_private *p = tc->private;
    struct context *c = &p->map[p->asid % CONTEXT_MAP];
    *c = (struct context){.asid = p->asid, .valid = true};
    memcpy(c->fetch, p->fetch_context, sizeof c->fetch);
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++)
        c->tags[mmu] = (uint16_t)tc->context[mmu];
}

void translate_set_asid(struct translate_cpu *tc, uint32_t asid)
{
    struct translate_private *p = tc->private;
    if (asid == p->asid)
        return;
    remember_address_space(tc);
    p->asid = asid;
    const struct context *c = &p->map[asid % CONTEXT_MAP];
    bool known = c->valid && c->asid == asid;
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++)
        tc->context[mmu] = known ? c->tags[mmu] : p->shared[mmu];
    memcpy(p->fetch_context, known ? c->fetch : p->fetch_shared, sizeof p->fetch_context);
    use_fetch_contexts(tc);
}

void translate_flush_asid(struct translate_cpu *tc, uint32_t asid)
{
    struct translate_private *p = tc->private;
    if (asid != p->asid) {
        p->map[asid % CONTEXT_MAP].valid = false;
        return;
    }
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++)
        tc->context[mmu] = p->shared[mmu];
    memcpy(p->fetch_context, p->fetch_shared, sizeof p->fetch_context);
    use_fetch_contexts(tc);
}

/* The current address space puts its first page that is not global under this regime. */
static void leave_shared(struct translate_cpu *tc, unsigned mmu)
{
    if (tc->context[mmu] != tc->private->shared[mmu])
        return;
    tags_left(tc, 1);
    tc->context[mmu] = fresh_tag(tc);
}

/* --- Flushing one page --- */

static uint64_t filter_bit(uint64_t page_address, unsigned *word)
{
    uint64_t number = page_address >> TRANSLATE_PAGE_BITS;
    unsigned hash = (unsigned)(number ^ number >> 12) & 4095;
    *word = hash / 64;
    return 1ull << hash % 64;
}

void translate_flush_page(struct translate_cpu *tc, uint64_t address)
{
    struct translate_private *p = tc->private;
    uint64_t page = address & PAGE_MASK;
    for (unsigned mmu = 0; mmu < TRANSLATE_MMUS; mmu++) {
        if (is_in_large(p, mmu, address)) {
            translate_flush_all(tc);
            return;
        }
        struct translate_tlb_entry *entry = &tc->tlb[mmu][entry_index(page)];
        atomic_store_explicit(&entry->read, 0, memory_order_relaxed);
        atomic_store_explicit(&entry->write, 0, memory_order_relaxed);
    }
    unsigned word;
    uint64_t bit = filter_bit(page, &word);
    if (p->fetch_filter[word] & bit)
        refresh_fetch(tc); /* other address spaces may have run the page, too */
}

/* --- Filling --- */

static void note_large(struct translate_cpu *tc, unsigned mmu, uint64_t address, unsigned size_log2)
{
    enum { NEAR = 64 << 20 }; /* neighbours are taken together */
    if (size_log2 <= TRANSLATE_PAGE_BITS)
        return;
    struct large_range *into = tc->private->large[mmu], *unused = NULL;
    uint64_t low = address >> size_log2 << size_log2, high = low + ((1ull << size_log2) - 1);
    for (unsigned i = 0; i < LARGE_RANGES; i++) {
        struct large_range *r = &tc->private->large[mmu][i];
        if (r->low > r->high)
            unused = r;
        else if (low - r->low + NEAR <= r->high - r->low + 2 * (uint64_t)NEAR) {
            into = r;
            unused = NULL;
            break;
        }
    }
    if (unused)
        *unused = (struct large_range){low, high};
    into = unused ? unused : into;
    into->low = low < into->low ? low : into->low;
    into->high = high > into->high ? high : into->high;
}

static bool page_has_code(struct page_state *state)
{
    struct code_page *page = atomic_load(&state->code);
    return page && atomic_load(&page->lines);
}

static uint32_t writer_number(const struct translate_cpu *tc, unsigned mmu, unsigned index)
{
    return 1 + (tc->private->index << 14 | mmu << 12 | index);
}

static struct translate_tlb_entry *writer_entry(struct machine_code *code, uint32_t writer,
                                                struct translate_cpu **owner)
{
    uint32_t number = writer - 1;
    for (*owner = code->cpus; *owner; *owner = (*owner)->private->next) {
        if ((*owner)->private->index == number >> 14)
            return &(*owner)->tlb[number >> 12 & 3][number & 4095];
    }
    return NULL;
}

/* Notes that this entry will write the page without asking. */
static void note_writer(struct translate_cpu *tc, struct page_state *state, uint64_t page, uint32_t writer)
{
    uint32_t before = atomic_load(&state->writer);
    if (before == writer || before == WRITER_MANY)
        return;
    if (before && (before - 1) >> 14 == tc->private->index) {
        /* Ours, and its entry may since have gone to another page. */
        const struct translate_tlb_entry *old = &tc->tlb[(before - 1) >> 12 & 3][(before - 1) & 4095];
        uint64_t old_page = atomic_load_explicit(&old->physical, memory_order_relaxed) & PAGE_MASK;
        if (old_page != page && atomic_compare_exchange_strong(&state->writer, &before, writer))
            return;
    }
    uint32_t none = 0;
    if (!atomic_compare_exchange_strong(&state->writer, &none, writer))
        atomic_store(&state->writer, WRITER_MANY);
}

static void insert(struct translate_cpu *tc, uint64_t address, unsigned mmu, const struct translate_page *page,
                   struct code_range *range, struct page_state *state)
{
    if (!page->global)
        leave_shared(tc, mmu);
    tc->private->used[mmu] = true;
    note_large(tc, mmu, address, page->size_log2);
    unsigned index = entry_index(address);
    struct translate_tlb_entry *entry = &tc->tlb[mmu][index];
    uint64_t tag = (address & PAGE_MASK) | tc->context[mmu], physical = page->physical & PAGE_MASK;
    /* Order matters for tlb_protect() on another thread: forget the old page, say who writes the new one, then allow.
     */
    atomic_store(&entry->write, 0);
    atomic_store(&entry->read, 0);
    uint64_t bits = (range ? ENTRY_IS_MEMORY : 0) | (range && range->writable ? ENTRY_IS_WRITABLE : 0);
    atomic_store_explicit(&entry->physical, physical | bits, memory_order_relaxed);
    entry->addend = range ? (uint64_t)(uintptr_t)range->host + (physical - range->base) - (address & PAGE_MASK) : 0;
    if (page->read)
        atomic_store_explicit(&entry->read, range ? tag : tag | TRANSLATE_TLB_SLOW, memory_order_relaxed);
    if (!page->write)
        return;
    if (!range || !range->writable) {
        atomic_store_explicit(&entry->write, tag | TRANSLATE_TLB_SLOW, memory_order_relaxed);
        return;
    }
    note_writer(tc, state, physical, writer_number(tc, mmu, index));
    atomic_store(&entry->write, page_has_code(state) ? tag | TRANSLATE_TLB_SLOW : tag);
    if (page_has_code(state))
        atomic_store(&entry->write, tag | TRANSLATE_TLB_SLOW);
}

/* The page's lines were set before. An owner whose new page is not seen here yet has its last look at them, after it
 * allowed the write, still to come: hence sequentially consistent. */
static void protect_entry(struct translate_tlb_entry *entry, uint64_t page)
{
    if ((atomic_load(&entry->physical) & PAGE_MASK) == page)
        atomic_fetch_or(&entry->write, TRANSLATE_TLB_SLOW);
}

void tlb_protect(struct machine_code *code, uint64_t page, struct page_state *state)
{
    if (code->is_direct) {
        code->direct.protect_code(code->direct.arg, page);
        return;
    }
    uint32_t writer = atomic_exchange(&state->writer, 0);
    struct translate_cpu *tc;
    if (writer && writer != WRITER_MANY) {
        struct translate_tlb_entry *entry = writer_entry(code, writer, &tc);
        if (entry)
            protect_entry(entry, page);
        return;
    }
    for (tc = writer ? code->cpus : NULL; tc; tc = tc->private->next) {
        for (unsigned mmu = 0; mmu < code->guest->mmu_count; mmu++) {
            for (unsigned i = 0; i < TRANSLATE_TLB_ENTRIES; i++)
                protect_entry(&tc->tlb[mmu][i], page);
        }
    }
}

/* Nothing is cached: translated code does not come here, and the answer may change any time. */
static bool direct_access(struct translate_cpu *tc, uint64_t address, unsigned size, enum translate_access access,
                          unsigned mmu, struct translate_result *result)
{
    struct translate_page page = {0};
    if (!tc->code->guest->fill_tlb(tc->cpu, address, size, access, mmu, &page)) {
        tc->exception = 1;
        return false;
    }
    *result = (struct translate_result){.host = tc->code->direct.base + address, .physical = address};
    return true;
}

bool tlb_access(struct translate_cpu *tc, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                struct translate_result *result)
{
    if (tc->code->is_direct)
        return direct_access(tc, address, size, access, mmu, result);
    struct translate_tlb_entry *entry = &tc->tlb[mmu][entry_index(address)];
    uint64_t tag = atomic_load_explicit(access == TRANSLATE_WRITE ? &entry->write : &entry->read, memory_order_relaxed);
    if ((tag & ~(uint64_t)TRANSLATE_TLB_SLOW) == ((address & PAGE_MASK) | tc->context[mmu])) {
        uint64_t physical = atomic_load_explicit(&entry->physical, memory_order_relaxed);
        result->physical = (physical & PAGE_MASK) | (address & ~PAGE_MASK);
        result->host = physical & ENTRY_IS_MEMORY ? (uint8_t *)(uintptr_t)(address + entry->addend) : NULL;
        result->read_only = !(physical & ENTRY_IS_WRITABLE);
        return true;
    }
    struct translate_page page = {0};
    if (!tc->code->guest->fill_tlb(tc->cpu, address, size, access, mmu, &page)) {
        tc->exception = 1;
        return false;
    }
    struct code_range *range = code_range_of(tc->code, page.physical);
    if (!page.partial)
        insert(tc, address, mmu, &page, range, range ? page_state_of(tc->code, page.physical) : NULL);
    result->physical = page.physical;
    result->host = range ? range->host + (page.physical - range->base) : NULL;
    result->read_only = range && !range->writable;
    return true;
}

void tlb_allow_write(struct translate_cpu *tc, uint64_t address, unsigned mmu)
{
    if (tc->code->is_direct)
        return;
    struct translate_tlb_entry *entry = &tc->tlb[mmu][entry_index(address)];
    /* The next write fills the entry anew and finds no code on the page. One that is fast already stays: it was filled
     * by this very write, maybe. */
    if (atomic_load(&entry->write) & TRANSLATE_TLB_SLOW)
        atomic_store(&entry->write, 0);
}

/* --- Fetching --- */

/* The current address space executes its first page that is not global under this regime. */
static void leave_shared_fetch(struct translate_cpu *tc, unsigned mmu)
{
    if (tc->private->fetch_context[mmu] != tc->private->fetch_shared[mmu])
        return;
    uint16_t fresh = fresh_fetch(tc);
    tc->private->fetch_context[mmu] = fresh;
    update_key(tc);
}

static bool fill_fetch(struct translate_cpu *tc, uint64_t pc, unsigned mmu, struct fetch_entry *entry)
{
    const struct guest *guest = tc->code->guest;
    struct translate_page page = {0};
    if (!guest->fill_tlb(tc->cpu, pc, 1u << guest->pc_align_log2, TRANSLATE_FETCH, mmu, &page)) {
        tc->exception = 1;
        return false;
    }
    struct code_range *range = code_range_of(tc->code, page.physical);
    if (!range) {
        guest->raise_access(tc->cpu, pc, TRANSLATE_FETCH, false);
        tc->exception = 1;
        return false;
    }
    uint64_t physical = page.physical & PAGE_MASK;
    pthread_mutex_lock(&tc->code->lock);
    uint32_t identity = page_identity_of(tc->code, pc & PAGE_MASK, physical, mmu);
    pthread_mutex_unlock(&tc->code->lock);
    *entry = (struct fetch_entry){.page = pc & PAGE_MASK, .physical = physical, .identity = identity};
    entry->host = range->host + (physical - range->base);
    entry->mmu = (uint8_t)mmu;
    entry->partial = page.partial;
    entry->global = page.global && !page.partial;
    entry->epoch = tc->private->fetch_epoch;
    unsigned word;
    uint64_t bit = filter_bit(entry->page, &word);
    tc->private->fetch_filter[word] |= bit;
    note_large(tc, mmu, pc, page.size_log2);
    return true;
}

/* Under machine_code.lock, so that what is allowed to be executed stays so until the block is made. */
static struct fetch_entry *direct_fetch(struct translate_cpu *tc, uint64_t pc, unsigned mmu, struct fetch_entry *entry)
{
    const struct guest *guest = tc->code->guest;
    struct translate_page page = {0};
    if (!guest->fill_tlb(tc->cpu, pc, 1u << guest->pc_align_log2, TRANSLATE_FETCH, mmu, &page)) {
        tc->exception = 1;
        return NULL;
    }
    uint64_t start = pc & PAGE_MASK;
    *entry = (struct fetch_entry){.page = start, .physical = start, .identity = 1};
    entry->host = tc->code->direct.base + start;
    return entry;
}

struct fetch_entry *tlb_fetch(struct translate_cpu *tc, uint64_t pc)
{
    unsigned mmu = tc->code->guest->fetch_mmu(tc->mode), index = fetch_index(pc & PAGE_MASK);
    struct fetch_entry *entry = &tc->private->fetch[index];
    if (tc->code->is_direct)
        return direct_fetch(tc, pc, mmu, entry);
    bool ours = entry->identity && entry->page == (pc & PAGE_MASK) && entry->mmu == mmu;
    if (ours && tc->fetch_page[index] == entry->identity)
        return entry;
    /* fetch_page was emptied for another address space, where a global page is still the same. */
    bool still = ours && entry->global && entry->epoch == tc->private->fetch_epoch;
    if (!still && !fill_fetch(tc, pc, mmu, entry))
        return NULL;
    if (!entry->global)
        leave_shared_fetch(tc, mmu);
    tc->fetch_page[index] = entry->partial ? 0 : entry->identity;
    return entry;
}
