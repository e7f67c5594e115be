/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of The RISC-V Instruction Set Manual, volume II (20211203 and the ratified Sstc, Zicbom, Zicboz), under
 * the manual's names. */
#ifndef EMULATOR_CPU_RISCV_BITS_H
#define EMULATOR_CPU_RISCV_BITS_H

#include <stdint.h>

enum riscv_privilege { PRIV_U = 0, PRIV_S = 1, PRIV_M = 3 };

/* mcause and scause: exceptions, by number. */
enum riscv_exception {
    EXC_INSTRUCTION_MISALIGNED = 0,
    EXC_INSTRUCTION_ACCESS = 1,
    EXC_ILLEGAL_INSTRUCTION = 2,
    EXC_BREAKPOINT = 3,
    EXC_LOAD_MISALIGNED = 4,
    EXC_LOAD_ACCESS = 5,
    EXC_STORE_MISALIGNED = 6, /* stores and atomic memory operations */
    EXC_STORE_ACCESS = 7,
    EXC_ECALL_U = 8,
    EXC_ECALL_S = 9,
    EXC_ECALL_M = 11,
    EXC_INSTRUCTION_PAGE = 12,
    EXC_LOAD_PAGE = 13,
    EXC_STORE_PAGE = 15
};
#define CAUSE_INTERRUPT (1ull << 63)

/* Interrupts: bit numbers in mip, mie and mideleg. */
enum riscv_interrupt { IRQ_SSI = 1, IRQ_MSI = 3, IRQ_STI = 5, IRQ_MTI = 7, IRQ_SEI = 9, IRQ_MEI = 11 };
#define MIP(irq) (1ull << (irq))
#define MIP_S (MIP(IRQ_SSI) | MIP(IRQ_STI) | MIP(IRQ_SEI))
#define MIP_M (MIP(IRQ_MSI) | MIP(IRQ_MTI) | MIP(IRQ_MEI))

#define MSTATUS_SIE (1ull << 1)
#define MSTATUS_MIE (1ull << 3)
#define MSTATUS_SPIE (1ull << 5)
#define MSTATUS_MPIE (1ull << 7)
#define MSTATUS_SPP (1ull << 8)
#define MSTATUS_VS (3ull << 9)
#define MSTATUS_VS_SHIFT 9
#define MSTATUS_MPP (3ull << 11)
#define MSTATUS_MPP_SHIFT 11
#define MSTATUS_FS (3ull << 13)
#define MSTATUS_FS_SHIFT 13
#define MSTATUS_MPRV (1ull << 17)
#define MSTATUS_SUM (1ull << 18)
#define MSTATUS_MXR (1ull << 19)
#define MSTATUS_TVM (1ull << 20)
#define MSTATUS_TW (1ull << 21)
#define MSTATUS_TSR (1ull << 22)
#define MSTATUS_UXL_64 (2ull << 32)
#define MSTATUS_SXL_64 (2ull << 34)
#define MSTATUS_SD (1ull << 63)

enum riscv_fs { FS_OFF, FS_INITIAL, FS_CLEAN, FS_DIRTY };

/* menvcfg, senvcfg */
#define ENVCFG_FIOM (1ull << 0)
#define ENVCFG_CBIE (3ull << 4)
#define ENVCFG_CBCFE (1ull << 6)
#define ENVCFG_CBZE (1ull << 7)
#define ENVCFG_STCE (1ull << 63)

#define COUNTEREN_CY (1u << 0)
#define COUNTEREN_TM (1u << 1)
#define COUNTEREN_IR (1u << 2)

#define SATP_MODE_SHIFT 60
#define SATP_ASID_SHIFT 44
#define SATP_ASID_MASK 0xffffull
#define SATP_PPN_MASK ((1ull << 44) - 1)
enum riscv_satp_mode { SATP_BARE = 0, SATP_SV39 = 8, SATP_SV48 = 9 };

/* Page table entries. */
#define PTE_V (1ull << 0)
#define PTE_R (1ull << 1)
#define PTE_W (1ull << 2)
#define PTE_X (1ull << 3)
#define PTE_U (1ull << 4)
#define PTE_G (1ull << 5)
#define PTE_A (1ull << 6)
#define PTE_D (1ull << 7)
#define PTE_PPN_SHIFT 10
#define PTE_RESERVED (0x3ffull << 54) /* 54-60, and N and PBMT, which we do not have */

/* pmpcfg */
#define PMP_R 1u
#define PMP_W 2u
#define PMP_X 4u
#define PMP_A_SHIFT 3
#define PMP_L 0x80u
enum riscv_pmp_a { PMP_OFF, PMP_TOR, PMP_NA4, PMP_NAPOT };

/* misa: MXL = 2 (64 bits) and a letter a bit. */
#define MISA_LETTER(letter) (1ull << ((letter) - 'A'))
#define MISA_VALUE                                                                                                     \
    ((2ull << 62) | MISA_LETTER('I') | MISA_LETTER('M') | MISA_LETTER('A') | MISA_LETTER('F') | MISA_LETTER('D') |     \
     MISA_LETTER('C') | MISA_LETTER('S') | MISA_LETTER('U') | MISA_LETTER('V'))

#endif
