/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks of a machine: finding, publishing, linking and dropping them. See codecache.h for the rules; everything
 * here runs under machine_code.lock except the first look of machine_code_invalidate().
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "emulator/translate/codecache.h"

/* --- Pages --- */

struct code_range *code_range_of(struct machine_code *code, uint64_t physical)
{
    for (unsigned i = 0; i < code->range_count; i++) {
        struct code_range *range = &code->ranges[i];
        if (physical - range->base < range->size)
            return range;
    }
    return NULL;
}

struct page_state *page_state_of(struct machine_code *code, uint64_t physical)
{
    struct code_range *range = code_range_of(code, physical);
    return range ? &range->pages[(physical - range->base) >> TRANSLATE_PAGE_BITS] : NULL;
}

static uint64_t page_of(uint64_t address)
{
    return address & ~(uint64_t)(TRANSLATE_PAGE - 1);
}

struct code_page *page_expect_code(struct machine_code *code, uint64_t physical)
{
    struct page_state *state = page_state_of(code, physical);
    struct code_page *page = atomic_load(&state->code);
    if (!page) {
        page = new (struct code_page);
        atomic_store(&state->code, page);
    }
    bool first = atomic_exchange(&page->lines, UINT64_MAX) == 0;
    if (first)
        tlb_protect(code, page_of(physical), state);
    return page;
}

static unsigned which_page(const struct code_block *block, uint64_t physical)
{
    return page_of(block->physical) == page_of(physical) ? 0 : 1;
}

void page_settle(struct machine_code *code, uint64_t physical)
{
    struct code_page *page = atomic_load(&page_state_of(code, physical)->code);
    uint64_t lines = 0;
    for (struct code_block *b = page->blocks; b; b = b->page_next[which_page(b, physical)])
        lines |= b->lines[which_page(b, physical)];
    atomic_store(&page->lines, lines);
}

uint32_t page_identity_of(struct machine_code *code, uint64_t page, uint64_t physical, unsigned mmu)
{
    uint64_t mix = (page ^ physical * 3 ^ mmu << 13) >> TRANSLATE_PAGE_BITS;
    uint32_t *head = &code->identity_hash[(mix ^ mix >> 12) & 4095];
    for (uint32_t id = *head; id; id = code->identities[id].next) {
        const struct page_identity *known = &code->identities[id];
        if (known->page == page && known->physical == physical && known->mmu == mmu)
            return id;
    }
    if (code->identity_count == CODE_MAX_IDENTITIES)
        return 0;
    uint32_t id = code->identity_count++;
    code->identities[id] =
        (struct page_identity){.page = page, .physical = physical, .next = *head, .mmu = (uint8_t)mmu};
    *head = id;
    return id;
}

/* --- Blocks --- */

static struct code_block **bucket(struct machine_code *code, uint64_t pc, uint64_t physical)
{
    uint64_t mix = (physical >> code->guest->pc_align_log2) ^ (pc >> TRANSLATE_PAGE_BITS) * 0x9e37;
    return &code->hash[(mix ^ mix >> 16) & (CODE_HASH - 1)];
}

struct code_block *block_find(struct machine_code *code, uint64_t pc, uint64_t physical, uint32_t key)
{
    struct code_block *b = *bucket(code, pc, physical);
    while (b && (b->pc != pc || b->physical != physical || b->key != key))
        b = b->hash_next;
    return b;
}

struct code_block *block_new(struct machine_code *code)
{
    if (code->block_count == CODE_MAX_BLOCKS)
        return NULL;
    struct code_block *block = &code->blocks[code->block_count];
    *block = (struct code_block){.second_page = CODE_NO_PAGE, .exits = code->exit_count};
    return block; /* counted when published */
}

static void page_add(struct machine_code *code, uint64_t physical, struct code_block *block, unsigned which)
{
    struct code_page *page = atomic_load(&page_state_of(code, physical)->code);
    block->page_next[which] = page->blocks;
    page->blocks = block;
}

void block_publish(struct machine_code *code, struct code_block *block)
{
    struct code_block **head = bucket(code, block->pc, block->physical);
    block->hash_next = *head;
    *head = block;
    page_add(code, block->physical, block, 0);
    if (block->second_page != CODE_NO_PAGE)
        page_add(code, block->second_page, block, 1);
    code->block_count++;
}

/* --- Links --- */

struct code_exit *exit_new(struct machine_code *code, struct code_block *from, uint64_t pc)
{
    if (code->exit_count == CODE_MAX_EXITS)
        return NULL;
    struct code_exit *exit = &code->exits[code->exit_count++];
    *exit = (struct code_exit){.from = from, .pc = pc};
    from->exit_count++;
    return exit;
}

void exit_link(struct machine_code *code, struct code_exit *exit, struct code_block *target)
{
    if (exit->target || exit->from->dead || target->dead)
        return;
    exit->target = target;
    exit->next = target->into;
    exit->link = &target->into;
    if (exit->next)
        exit->next->link = &exit->next;
    target->into = exit;
    code->host->link(code, exit, target);
    code->statistics.links++;
}

static void exit_forget(struct code_exit *exit)
{
    *exit->link = exit->next;
    if (exit->next)
        exit->next->link = exit->link;
    exit->target = NULL;
}

/* --- Dropping --- */

static void page_remove(struct machine_code *code, uint64_t physical, struct code_block *block)
{
    struct code_page *page = atomic_load(&page_state_of(code, physical)->code);
    struct code_block **at = &page->blocks;
    while (*at != block)
        at = &(*at)->page_next[which_page(*at, physical)];
    *at = block->page_next[which_page(block, physical)];
}

static void hash_remove(struct machine_code *code, struct code_block *block)
{
    struct code_block **at = bucket(code, block->pc, block->physical);
    while (*at != block)
        at = &(*at)->hash_next;
    *at = block->hash_next;
}

void block_kill(struct machine_code *code, struct code_block *block)
{
    block->dead = true;
    hash_remove(code, block);
    page_remove(code, block->physical, block);
    if (block->second_page != CODE_NO_PAGE)
        page_remove(code, block->second_page, block);
    if (code->host) {
        code->host->kill(code, block);
        while (block->into) {
            struct code_exit *exit = block->into;
            exit_forget(exit);
            code->host->unlink(code, exit);
        }
        for (uint32_t i = 0; i < block->exit_count; i++) {
            if (code->exits[block->exits + i].target)
                exit_forget(&code->exits[block->exits + i]);
        }
    }
    code->statistics.invalidated++;
}

static uint64_t lines_of(uint64_t first, uint64_t last) /* offsets in a page, inclusive */
{
    unsigned low = (unsigned)(first / CODE_LINE), high = (unsigned)(last / CODE_LINE);
    return UINT64_MAX << low & UINT64_MAX >> (63 - high);
}

static void invalidate_page(struct machine_code *code, uint64_t page_address, struct code_page *page, uint64_t lines)
{
    pthread_mutex_lock(&code->lock);
    struct code_block *next;
    for (struct code_block *b = page->blocks; b; b = next) {
        unsigned which = which_page(b, page_address);
        next = b->page_next[which];
        if (b->lines[which] & lines)
            block_kill(code, b);
    }
    page_settle(code, page_address);
    pthread_mutex_unlock(&code->lock);
}

void machine_code_invalidate(struct machine_code *code, uint64_t physical, uint64_t length)
{
    uint64_t end = physical + length;
    while (physical < end) {
        uint64_t page_address = page_of(physical), page_end = page_address + TRANSLATE_PAGE;
        uint64_t stop = end < page_end ? end : page_end;
        struct page_state *state = page_state_of(code, physical);
        struct code_page *page = state ? atomic_load(&state->code) : NULL;
        uint64_t lines = lines_of(physical - page_address, stop - 1 - page_address);
        if (page && (atomic_load(&page->lines) & lines))
            invalidate_page(code, page_address, page, lines);
        physical = stop;
    }
}

void code_empty(struct machine_code *code)
{
    for (uint32_t i = 0; i < code->block_count; i++) {
        struct code_block *block = &code->blocks[i];
        const uint64_t pages[2] = {block->physical, block->second_page};
        for (unsigned which = 0; which < 2 && pages[which] != CODE_NO_PAGE; which++) {
            struct code_page *page = atomic_load(&page_state_of(code, pages[which])->code);
            atomic_store(&page->lines, 0);
            page->blocks = NULL;
        }
        block_forget_ir(block);
    }
    memset(code->hash, 0, sizeof code->hash);
    memset(code->identity_hash, 0, sizeof code->identity_hash);
    code->block_count = 0;
    code->exit_count = 1;
    code->identity_count = 1;
    if (code->host) {
        code->near = code->near_start;
        code->far = code->far_start;
    }
    code->emptied++; /* what each vCPU knows of the old code it forgets itself, when it comes inside */
    code->statistics.flushes++;
}
