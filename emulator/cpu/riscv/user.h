/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hart for programs instead of machines: always in U mode, floating point on, memory addressed directly
 * (emulator/translate/runtime.h). Whoever runs it is the kernel: translate_run() on its `tc` comes back with
 * RISCV_EXIT_ECALL at an ecall, with RISCV_EXIT_FENCE_I behind a fence.i, and with TRANSLATE_EXIT_EXCEPTION.
 */
#ifndef EMULATOR_CPU_RISCV_USER_H
#define EMULATOR_CPU_RISCV_USER_H

#include "emulator/cpu/riscv/riscv.h"

/* What the guest may do with a page: one byte each, changed by whoever maps memory, read by vCPUs at any time. Other
 * bits are the owner's. */
enum riscv_page_access { RISCV_PAGE_READ = 1, RISCV_PAGE_WRITE = 2, RISCV_PAGE_EXECUTE = 4 };

extern const struct guest riscv_user_guest;

/* Zeroed memory, on pages of its own. `code` was made with riscv_user_guest; `pages` covers its direct memory. */
struct cpu_riscv *riscv_user_new(struct machine_code *code, const _Atomic uint8_t *pages, struct clock *clock,
                                 struct error *err);
void riscv_user_free(struct cpu_riscv *cpu);

/* Registers, pc and floating-point environment of another hart, for a new thread. */
void riscv_user_copy(struct cpu_riscv *to, const struct cpu_riscv *from);

/* The vector unit, once the program has used it: in the order in which signal frames have it. */
struct riscv_user_vectors {
    uint64_t vstart, vl, vtype, vcsr, vlenb;
    uint64_t data; /* where the frame has the registers */
    uint8_t registers[32 * RISCV_VLENB];
};
bool riscv_user_has_vectors(const struct cpu_riscv *cpu);
void riscv_user_get_vectors(const struct cpu_riscv *cpu, struct riscv_user_vectors *out); /* all but `data` */
void riscv_user_set_vectors(struct cpu_riscv *cpu, const struct riscv_user_vectors *from);

/* fcsr: rounding mode and flags. */
uint32_t riscv_user_fcsr(const struct cpu_riscv *cpu);
void riscv_user_set_fcsr(struct cpu_riscv *cpu, uint32_t fcsr);

#endif
