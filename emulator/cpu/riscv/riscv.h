/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A RISC-V hart: RV64IMAFDCV_Zicsr_Zifencei_Zba_Zbb_Zbs with M, S and U modes, Sv39 and Sv48, sixteen PMP entries,
 * Sstc.
 *
 *   *.decode          the instructions: encoding, operands, meaning; decoder and most of the translation come from them
 *   translate.c       the loop over a block's instructions; rv_*.c and system.c: meanings that need a function, by
 * chapter helpers.c         what translated code calls csr.c             the control and status registers trap.c
 * exceptions, interrupts, returns from them mmu.c pmp.c       address translation and physical memory protection
 *   timer.c           counters and the stimecmp comparator
 *   riscv64.c         the `struct cpu_arch`: reset, run loop, interrupt lines, dump
 *
 * Everything in struct cpu_riscv belongs to the vCPU's thread, except mip_lines, which any thread may change, and what
 * timer.c guards with timer_lock.
 */
#ifndef EMULATOR_CPU_RISCV_RISCV_H
#define EMULATOR_CPU_RISCV_RISCV_H

#include <pthread.h>
#include <stdatomic.h>
#include "emulator/cpu/cpu.h"
#include "emulator/cpu/riscv/bits.h"
#include "emulator/cpu/riscv/insn.h"
#include "emulator/cpu/riscv/pmp.h"
#include "emulator/cpu/riscv/vector/vector.h"
#include "emulator/translate/runtime.h"

struct clock_timer;

enum { RISCV_COUNTERS = 2 /* mcycle, minstret */, RISCV_TABLE_PAGES = 256 };
struct riscv_counter {
    uint64_t offset;     /* value = nanoseconds + offset while it runs */
    uint64_t stopped_at; /* value while mcountinhibit stops it */
};

struct cpu_riscv {
    struct cpu cpu;

    /* Translated code addresses these relative to x[16]; x0 stays 0. */
    uint64_t x[32];
    uint64_t f[32]; /* singles NaN-boxed */

    uint8_t privilege; /* enum riscv_privilege */
    uint8_t frm;       /* as written, the invalid values too; fflags live in tc */

    /* Recorded by riscv_raise(), delivered by the run loop. */
    uint64_t exception_cause, exception_value;

    /* Interrupts: mip = mip_lines | mip_software, without the STIP of the one that does not own it. */
    _Atomic uint64_t mip_lines;
    uint64_t mip_software, mie, mideleg, medeleg;

    uint64_t mstatus; /* writable bits; SD, SXL and UXL are added when read */
    uint64_t mtvec, mscratch, mepc, mcause, mtval, mcounteren, menvcfg, mcountinhibit;
    uint64_t stvec, sscratch, sepc, scause, stval, scounteren, senvcfg, satp;
    struct riscv_pmp pmp;
    struct riscv_counter counter[RISCV_COUNTERS];

    /* Pages of page tables that are RAM and that PMP opens to S, by page number (mmu.c); host NULL: empty. */
    struct riscv_table_page {
        uint64_t page;
        uint8_t *host;
    } table_pages[RISCV_TABLE_PAGES];

    pthread_mutex_t timer_lock; /* guards stimecmp, menvcfg and the STIP line against the timer's callback */
    uint64_t stimecmp;
    struct clock_timer *timer;

    const _Atomic uint8_t *user_pages; /* user mode (user.h): what may be done with each page; NULL: a machine */
    struct riscv_vector v;

    uint64_t rmm_addend; /* third operand of a fused multiply-add in software */

    uint32_t translated[RISCV_INSN_COUNT]; /* how often each instruction was translated: what a workload covers */

    struct translate_cpu tc;
};

static inline struct cpu_riscv *cpu_riscv_of(struct cpu *cpu)
{
    return (struct cpu_riscv *)cpu;
}

extern const struct cpu_arch cpu_arch_riscv64;
extern const struct guest riscv_guest; /* translate.c */

/* The translator's mode word (struct translate_cpu.mode): all state that decoding depends on. */
enum riscv_fs_class { RISCV_FS_OFF, RISCV_FS_CLEAN /* first use must set it dirty */, RISCV_FS_DIRTY };
enum riscv_frm_class { RISCV_FRM_HOST /* 0..3 */, RISCV_FRM_RMM, RISCV_FRM_INVALID };
#define MODE_PRIVILEGE(mode) ((mode)&3)
#define MODE_DATA_MMU(mode) ((mode) >> 2 & 3)
#define MODE_FS(mode) ((mode) >> 4 & 3)
#define MODE_FRM(mode) ((mode) >> 6 & 3)
#define MODE_USER (1u << 8)                  /* a program instead of a machine (user.h) */
#define MODE_VS(mode) ((mode) >> 9 & 3)      /* enum riscv_fs_class */
#define MODE_VTYPE(mode) ((mode) >> 11 & 31) /* rv_v.h */

/* Translation regimes: each has its own TLB, so that a change of privilege or SUM flushes nothing. */
enum riscv_mmu { MMU_U, MMU_S, MMU_S_SUM, MMU_M };

/* Reasons of translate_run() beyond its own. */
enum riscv_exit {
    RISCV_EXIT_ECALL = TRANSLATE_EXIT_GUEST,
    RISCV_EXIT_SRET,
    RISCV_EXIT_MRET,
    RISCV_EXIT_WFI,
    RISCV_EXIT_INTERRUPT, /* one may have become deliverable */
    RISCV_EXIT_FENCE_I    /* user mode only: memory that is written elsewhere may be code here */
};

/* trap.c */
void riscv_raise(struct cpu_riscv *cpu, enum riscv_exception cause, uint64_t value); /* from helpers and the MMU */
void riscv_trap(struct cpu_riscv *cpu, uint64_t cause, uint64_t value); /* enters the handler; tc.pc was its place */
bool riscv_take_interrupt(struct cpu_riscv *cpu);                       /* true when one was delivered */
void riscv_sret(struct cpu_riscv *cpu);
void riscv_mret(struct cpu_riscv *cpu);
uint64_t riscv_mip(const struct cpu_riscv *cpu);
void riscv_interrupts_changed(struct cpu_riscv *cpu); /* mip, mie, mideleg or an enable bit; leaves when one is due */
void riscv_mode_changed(struct cpu_riscv *cpu);       /* privilege, mstatus or frm changed */

/* mmu.c */
void riscv_set_satp(struct cpu_riscv *cpu, uint64_t value); /* a legal value */
void riscv_translation_changed(struct cpu_riscv *cpu);      /* MXR, PMP: forget all cached translations */
void riscv_fence_vma(struct cpu_riscv *cpu, const uint64_t *address, const uint64_t *asid); /* NULL: all */
bool riscv_fill_tlb(void *cpu, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                    struct translate_page *page);
void riscv_raise_access(void *cpu, uint64_t address, enum translate_access access, bool misaligned);

/* Floating-point state, kept where translated code wants it. */
unsigned riscv_fflags(const struct cpu_riscv *cpu);
void riscv_set_fflags(struct cpu_riscv *cpu, unsigned flags);
void riscv_set_frm(struct cpu_riscv *cpu, unsigned frm);

void riscv_vector_reset(struct cpu_riscv *cpu); /* riscv64.c */

/* timer.c */
uint64_t riscv_nanoseconds(const struct cpu_riscv *cpu);
uint64_t riscv_time(const struct cpu_riscv *cpu); /* the time CSR: 10 MHz */
uint64_t riscv_stimecmp(struct cpu_riscv *cpu);
void riscv_set_stimecmp(struct cpu_riscv *cpu, uint64_t value);
void riscv_set_menvcfg(struct cpu_riscv *cpu, uint64_t value);
void riscv_timer_init(struct cpu_riscv *cpu);
void riscv_timer_destroy(struct cpu_riscv *cpu);

/* disassemble.c: one instruction into `text`; returns its length in bytes (2 or 4). */
unsigned riscv_disassemble(uint64_t pc, uint32_t bits, char *text, size_t size);
extern const char *const riscv_x_names[32], *const riscv_f_names[32];

/* Bytes of the instruction that begins with these 16 bits. */
static inline unsigned riscv_length(uint16_t low)
{
    return (low & 3) == 3 ? 4 : 2;
}

#endif
