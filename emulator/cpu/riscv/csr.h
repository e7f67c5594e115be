/* SPDX-License-Identifier: Apache-2.0 */
/* Control and status registers: one table (csr.c), reached by the Zicsr instructions, the dump and the tests. */
#ifndef EMULATOR_CPU_RISCV_CSR_H
#define EMULATOR_CPU_RISCV_CSR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cpu_riscv;

enum riscv_csr_number {
    CSR_FFLAGS = 0x001,
    CSR_FRM = 0x002,
    CSR_FCSR = 0x003,
    CSR_VSTART = 0x008,
    CSR_VXSAT = 0x009,
    CSR_VXRM = 0x00a,
    CSR_VCSR = 0x00f,
    CSR_SSTATUS = 0x100,
    CSR_SIE = 0x104,
    CSR_STVEC = 0x105,
    CSR_SCOUNTEREN = 0x106,
    CSR_SENVCFG = 0x10a,
    CSR_SSCRATCH = 0x140,
    CSR_SEPC = 0x141,
    CSR_SCAUSE = 0x142,
    CSR_STVAL = 0x143,
    CSR_SIP = 0x144,
    CSR_STIMECMP = 0x14d,
    CSR_SATP = 0x180,
    CSR_MSTATUS = 0x300,
    CSR_MISA = 0x301,
    CSR_MEDELEG = 0x302,
    CSR_MIDELEG = 0x303,
    CSR_MIE = 0x304,
    CSR_MTVEC = 0x305,
    CSR_MCOUNTEREN = 0x306,
    CSR_MENVCFG = 0x30a,
    CSR_MCOUNTINHIBIT = 0x320,
    CSR_MHPMEVENT3 = 0x323,
    CSR_MSCRATCH = 0x340,
    CSR_MEPC = 0x341,
    CSR_MCAUSE = 0x342,
    CSR_MTVAL = 0x343,
    CSR_MIP = 0x344,
    CSR_PMPCFG0 = 0x3a0,
    CSR_PMPCFG2 = 0x3a2,
    CSR_PMPADDR0 = 0x3b0,
    CSR_MCYCLE = 0xb00,
    CSR_MINSTRET = 0xb02,
    CSR_MHPMCOUNTER3 = 0xb03,
    CSR_CYCLE = 0xc00,
    CSR_TIME = 0xc01,
    CSR_INSTRET = 0xc02,
    CSR_HPMCOUNTER3 = 0xc03,
    CSR_VL = 0xc20,
    CSR_VTYPE = 0xc21,
    CSR_VLENB = 0xc22,
    CSR_MVENDORID = 0xf11,
    CSR_MARCHID = 0xf12,
    CSR_MIMPID = 0xf13,
    CSR_MHARTID = 0xf14,
    CSR_MCONFIGPTR = 0xf15
};

/* What the bits of the operand do to the register. */
enum riscv_csr_operation { CSR_READ, CSR_WRITE, CSR_SET, CSR_CLEAR };

/* What a write can change beyond its register; the translated code looks at it to know what to look up again. */
enum riscv_csr_effect {
    CSR_EFFECT_NONE,
    CSR_EFFECT_STATE /* mode, address translation or interrupts: go back to the run loop */
};

/* Does the instruction, and stores the old value in *old (not read when the register has read side effects and the
 * instruction discards it; none of ours has). false: illegal instruction. */
bool riscv_csr_access(struct cpu_riscv *cpu, unsigned number, enum riscv_csr_operation operation, uint64_t operand,
                      uint64_t *old);

enum riscv_csr_effect riscv_csr_effect(unsigned number);

/* The assembler's name, written into `buffer` when it carries a number; NULL when there is no such register. */
const char *riscv_csr_name(unsigned number, char *buffer, size_t size);

/* Values without access checks, for dumps. */
uint64_t riscv_csr_peek(struct cpu_riscv *cpu, unsigned number);

#endif
