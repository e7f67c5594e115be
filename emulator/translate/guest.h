/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest architecture gives the translator: its slot table, its helpers, how to decode a block into IR, and how
 * its MMU translates. One `const struct guest` an architecture; instance state lives in the guest's own CPU struct,
 * which embeds a struct translate_cpu (runtime.h).
 */
#ifndef EMULATOR_TRANSLATE_GUEST_H
#define EMULATOR_TRANSLATE_GUEST_H

#include "emulator/translate/ir.h"

enum translate_access { TRANSLATE_READ, TRANSLATE_WRITE, TRANSLATE_FETCH };

enum { TRANSLATE_PAGE_BITS = 12, TRANSLATE_PAGE = 1 << TRANSLATE_PAGE_BITS, TRANSLATE_MMUS = 4 };

/* What the guest's MMU says of an address. */
struct translate_page {
    uint64_t physical;       /* of the byte asked for */
    bool read, write, fetch; /* more than asked for is welcome, but say write only when no dirty bit is left to set */
    bool global;             /* the same in every address space (G bit, or no translation at all) */
    bool partial; /* the answer holds for the bytes asked for only (PMP finer than a page): asked again each time */
    uint8_t size_log2; /* of the mapping: 12; 21, 30 ... so that flushing one address of it flushes all */
};

/* One translation under way, as the front end sees it. */
struct translate_block {
    struct ir_block *ir;
    uint64_t pc;        /* first instruction */
    uint32_t mode;      /* translate_cpu.mode when the block is made: all that decoding may depend on */
    unsigned max_insns; /* end the block after so many (1 when single-stepping) */
    void *cpu;
    struct translate_fetch *fetch;
};

/* Fetch all bytes of an instruction before its ir_insn_start().
 *
 * Instruction bytes at pc, little endian, size 2 or 4 (1 for byte-coded guests). false: they cannot be had in this
 * block, because they lie in the next page and this is not the block's first instruction (or because fetching them
 * faults): call translate_stop(t, pc_of_the_instruction) and return. */
bool translate_fetch(struct translate_block *t, uint64_t pc, unsigned size, uint64_t *bits);
void translate_stop(struct translate_block *t, uint64_t pc);
/* Is `pc` on the block's page, so that decoding may follow an unconditional jump there? */
bool translate_same_page(const struct translate_block *t, uint64_t pc);

struct guest {
    const char *name;
    const struct ir_slot *slots;
    const struct ir_helper *helpers;
    uint16_t slot_count, helper_count;

    /* Offsets in the guest's CPU struct. Translated code keeps one pointer, `base`, to cpu + base_offset; slots within
     * -128..127 of it are the cheapest to reach: for an array of 32 registers of 8 bytes, the array's start + 128. */
    uint32_t base_offset;
    uint32_t state_offset;     /* struct translate_cpu */
    uint32_t attention_offset; /* uint32_t: non-zero makes translated code leave at the next loop back edge */

    uint8_t pc_align_log2; /* of instructions: 1 for RISC-V with C */
    uint8_t mmu_count;     /* translation regimes used in struct ir_mem.mmu, at most TRANSLATE_MMUS */

    /* Decode from t->pc and append IR until the block ends: an extended basic block, following fall-through and
     * unconditional direct jumps within the page, at most t->max_insns instructions. It must end with an exit. */
    void (*translate)(struct translate_block *t);

    /* The regime for instruction fetch in this mode. */
    unsigned (*fetch_mmu)(uint32_t mode);

    /* Walk the page tables. true: *page is filled in. false: the guest's exception (page fault, access fault) has been
     * recorded in the CPU struct for delivery by the caller of translate_run(), which will see TRANSLATE_EXIT_EXCEPTION
     * with translate_cpu.pc at the instruction. Sets accessed and dirty bits, checks permissions and PMP. */
    bool (*fill_tlb)(void *cpu, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                     struct translate_page *page);

    /* Record the exception of an access that the MMU allowed but that went wrong: nothing there or a device refused it
     * (misaligned false), or IR_ALIGN_NATURAL was violated (misaligned true). */
    void (*raise_access)(void *cpu, uint64_t address, enum translate_access access, bool misaligned);
};

#endif
