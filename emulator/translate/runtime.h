/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running guest code: the translation cache of a machine, the per-vCPU state that translated code leans on, the loop,
 * and the software TLB.
 *
 * struct machine_code is shared by the vCPUs of a machine and made by the first. struct translate_cpu is embedded in
 * the guest's CPU struct. Unless said otherwise, functions taking a translate_cpu belong to that vCPU's thread (call
 * them from helpers, from fill_tlb, or around translate_run()).
 *
 * What ends a block. After changing the mode, the address space, or flushing (fetch side), an instruction ends its
 * block with ir_exit_runtime(TRANSLATE_EXIT_CONTINUE, next pc), so that the next lookup sees the change.
 *
 * SPINDLE_TRANSLATE=eval in the environment runs the IR with the evaluator instead of host code: slow, portable, the
 * oracle. SPINDLE_TRANSLATE=eval-sunk is the evaluator that keeps puts back and relies on recovery maps (recovery.h).
 * SPINDLE_TRANSLATE=dump prints each block's IR, recovery maps and host code to stderr.
 */
#ifndef EMULATOR_TRANSLATE_RUNTIME_H
#define EMULATOR_TRANSLATE_RUNTIME_H

#include <stdatomic.h>
#include "base/error.h"
#include "emulator/translate/guest.h"

struct machine_code;
struct physmap;
struct translate_host;
struct translate_cpu;

/* The back end for this machine's processor (host/<architecture>/); NULL in machine_code_new() means the evaluator. */
const struct translate_host *translate_native_host(void);

struct machine_code *machine_code_new(const struct guest *guest, struct physmap *memory,
                                      const struct translate_host *host, struct error *err);
void machine_code_free(struct machine_code *code); /* after its last vCPU is gone */

/* Direct memory, for programs instead of machines: guest address a, below `size`, is the host's base + a, and the
 * host's page protection is the guest's. Translated code adds the base and nothing else; what the host refuses comes
 * back as TRANSLATE_EXIT_EXCEPTION with translate_cpu.fault_signal set, at the precise instruction.
 * TRANSLATE_DIRECT_GUARD bytes on both sides of the memory must never be accessible. There are no physical addresses:
 * they equal the guest's.
 *
 * fill_tlb() is asked about every fetch of a block and every access that is not made by translated code. Dropping the
 * translations of bytes that change is the business of whoever maps the memory: protect_code() tells it which pages
 * must not be written unseen. */
#define TRANSLATE_DIRECT_GUARD (1ull << 32)
struct translate_direct {
    uint8_t *base;
    uint64_t size;
    void (*protect_code)(void *arg, uint64_t page); /* the page gets its first code; under machine_code_lock() */
    void *arg;
};
struct machine_code *machine_code_new_direct(const struct guest *guest, const struct translate_direct *direct,
                                             const struct translate_host *host, struct error *err);
/* No block is made meanwhile: hold it while memory is unmapped or its protection changes. Recursive. */
void machine_code_lock(struct machine_code *code);
void machine_code_unlock(struct machine_code *code);
/* After fork(), in the child, whose only vCPU this is; the parent forked while holding machine_code_lock(). */
void machine_code_forked(struct machine_code *code, struct translate_cpu *only);
/* In the handler of SIGSEGV and SIGBUS: did translated code of this vCPU fault? Then it will be left at the
 * instruction, once the handler has returned: with the exception, or to do the instruction once more, with the lock
 * held (so that a page that was opened for it cannot be closed again before). */
enum translate_recovery { TRANSLATE_RECOVER_FAULT, TRANSLATE_RECOVER_AGAIN };
bool translate_recover(struct translate_cpu *tc, void *ucontext, enum translate_recovery how);

/* With direct memory *tc is all zero already (fresh from the kernel: most of it will never be touched). */
bool translate_cpu_init(struct translate_cpu *tc, void *cpu, struct machine_code *code, struct error *err);
void translate_cpu_destroy(struct translate_cpu *tc);

enum translate_exit {
    TRANSLATE_EXIT_CONTINUE,  /* never returned by translate_run() */
    TRANSLATE_EXIT_ATTENTION, /* the attention word is set; pc is the next instruction */
    TRANSLATE_EXIT_EXCEPTION, /* fill_tlb, raise_access or a helper recorded one; pc is the faulting instruction */
    TRANSLATE_EXIT_FATAL,     /* the emulator cannot go on: translate_cpu.fatal says why */
    TRANSLATE_EXIT_GUEST = 16 /* and above: the front end's own reasons, from ir_exit_runtime() or a helper */
};
/* Runs from tc->pc in tc->mode until one of the above. */
unsigned translate_run(struct translate_cpu *tc);

/* The mode: up to 16 bits of state that decoding depends on (privilege, FP off, endianness ...). Also ends what the
 * previous mode cached. Bits 16 and up of a block's key are reserved for instrumentation and exact instruction counts.
 */
void translate_set_mode(struct translate_cpu *tc, uint32_t mode);

/* TLB maintenance of this vCPU. All are cheap: a full flush gives the regimes fresh tags and touches no entry. */
void translate_flush_all(struct translate_cpu *tc);
void translate_flush_page(struct translate_cpu *tc, uint64_t address); /* in every address space */
void translate_flush_asid(struct translate_cpu *tc, uint32_t asid);    /* entries that are not global */
/* The address space changed without a flush (satp.ASID written): entries of the former one are kept. */
void translate_set_asid(struct translate_cpu *tc, uint32_t asid);
/* The meaning of regime `mmu` changed (SUM, MXR, MPRV ... if the front end chose not to give them regimes of their
 * own). */
void translate_flush_mmu(struct translate_cpu *tc, unsigned mmu);

/* Code at these physical bytes has changed, or may have (any thread). physmap_note_write() leads here too. */
void machine_code_invalidate(struct machine_code *code, uint64_t physical, uint64_t length);

/* Accesses by helpers, as if by the current instruction; integers, size up to 8 bytes. false: exception recorded. */
bool translate_load(struct translate_cpu *tc, uint64_t address, struct ir_mem mem, uint64_t *value);
bool translate_store(struct translate_cpu *tc, uint64_t address, uint64_t value, struct ir_mem mem);

/* Elements of 1 << log2_size bytes one after the other, as if each were accessed by itself. false: exception recorded;
 * *done bytes (whole elements) were copied before it. */
bool translate_read_run(struct translate_cpu *tc, uint64_t address, void *to, uint64_t length, unsigned log2_size,
                        unsigned mmu, uint64_t *done);
bool translate_write_run(struct translate_cpu *tc, uint64_t address, const void *from, uint64_t length,
                         unsigned log2_size, unsigned mmu, uint64_t *done);

/* For helpers: the instruction did not happen; the caller of translate_run() will deliver what the guest recorded. */
static inline void translate_raise(struct translate_cpu *tc);

/* The guest's FP environment, for helpers with .uses_fp and outside translate_run(). */
unsigned translate_fp_flags(const struct translate_cpu *tc); /* IR_FLAG_* */
void translate_fp_set_flags(struct translate_cpu *tc, unsigned flags);
void translate_fp_set_rounding(struct translate_cpu *tc, enum ir_rounding rounding); /* 0..3 */
enum ir_rounding translate_fp_rounding(const struct translate_cpu *tc);

/* Between these, calls to functions compute with the host's floating point as the guest would: its rounding, its flags.
 * Called by helpers with .uses_fp; enter() returns what leave() wants back. */
uint32_t translate_fp_enter(struct translate_cpu *tc);
void translate_fp_leave(struct translate_cpu *tc, uint32_t host);

/* Figures since start, for benchmarks and the monitor. */
struct translate_statistics {
    uint64_t blocks, guest_insns, guest_bytes, host_bytes, ops; /* translated */
    uint64_t translate_ns;
    uint64_t lookups, links, flushes, invalidated;
    uint64_t evaluated; /* blocks that the back end left to the evaluator */
};
void machine_code_statistics(struct machine_code *code, struct translate_statistics *out);

/* --- What is below is laid out for translated code; others leave it alone except pc, mode, exception, leave, fatal.
 * --- */

enum {
    TRANSLATE_TLB_ENTRIES = 4096,
    TRANSLATE_JUMPS = 4096,
    TRANSLATE_FETCH_PAGES = 1024,
    TRANSLATE_RETURNS = 16,
    /* Low bits of a tag: 0..2 zero, where a required alignment leaves its offending bits; 3..10 the context; 11 sends
     * every access to the slow path. */
    TRANSLATE_CONTEXTS = 255,
    TRANSLATE_CONTEXT_SHIFT = 3,
    TRANSLATE_TLB_SLOW = 1 << 11
};

/* tag: page address | context. A tag never matches when TRANSLATE_TLB_SLOW is set (devices, code pages). */
struct translate_tlb_entry {
    _Atomic uint64_t read, write;
    uint64_t addend;           /* host address = guest address + addend, for RAM */
    _Atomic uint64_t physical; /* page address | TLB_* bits; other vCPUs look whose page it is */
};
struct translate_jump { /* where code for a pc is, right while key == translate_cpu.key */
    uint64_t pc;
    uint32_t key, code;
};
struct translate_return {
    uint64_t pc, code;
};

enum { TRANSLATE_WRITE_COUNTERS = 64 };
struct translate_write_counter { /* writes to data that shares a page with code (memory.c) */
    uint64_t page;
    uint32_t count, limit;
};

struct translate_cpu {
    uint64_t pc;
    uint32_t mode;
    uint32_t exception;         /* non-zero: leave before the current instruction */
    uint32_t leave;             /* non-zero: a helper wants translate_run() to return this reason after the block */
    uint32_t key;               /* current mode and fetch context: changes whenever what a pc means may have */
    uint32_t mxcsr, host_mxcsr; /* x86 hosts: the guest's FP environment, and ours */
    uint64_t host_sp, spill[24];
    uint64_t code_base;
    const void *helper_table;
    void (*slow_access)(void);                 /* the back end's */
    uint64_t reserved_address, reserved_value; /* load-reserved; address ~0: none */
    uint64_t exit_link;                        /* the exit that was taken, for chaining */
    uint64_t direct_size;                      /* direct memory: guest addresses from here on are wild */
    uint64_t fault_address;                    /* direct memory: what the host refused */
    uint32_t fault_signal, fault_code;         /* SIGSEGV or SIGBUS and its si_code; 0: none */
    uint64_t context[TRANSLATE_MMUS];          /* tag bits of this regime's current address space */
    uint32_t return_top;
    struct translate_return returns[TRANSLATE_RETURNS];
    uint32_t fetch_page[TRANSLATE_FETCH_PAGES]; /* identity of the code page behind a virtual page, 0 unknown */
    struct translate_jump jumps[TRANSLATE_JUMPS];
    struct translate_tlb_entry tlb[TRANSLATE_MMUS][TRANSLATE_TLB_ENTRIES];

    struct translate_write_counter write_counters[TRANSLATE_WRITE_COUNTERS];

    void *cpu;
    struct machine_code *code;
    const char *fatal;
    uint64_t slow_accesses;            /* how many were not served in line */
    struct translate_private *private; /* context numbers, large mappings, statistics (tlb.c, loop.c) */
};

static inline void translate_raise(struct translate_cpu *tc)
{
    tc->exception = 1;
}

#endif
