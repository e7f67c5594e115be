/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Physical memory protection: sixteen entries, four-byte granules (G = 0). The registers are decoded into spans when
 * they are written, so that a check is a short loop over the spans in use.
 */
#ifndef EMULATOR_CPU_RISCV_PMP_H
#define EMULATOR_CPU_RISCV_PMP_H

#include <stdbool.h>
#include <stdint.h>

enum { PMP_ENTRIES = 16 };

struct riscv_pmp {
    uint8_t cfg[PMP_ENTRIES];
    uint64_t address[PMP_ENTRIES]; /* as in the registers: bits 55 to 2 */
    /* Derived: the entries that are on, in order; [first, last] in bytes. */
    struct {
        uint64_t first, last;
        uint8_t cfg;
    } span[PMP_ENTRIES];
    unsigned span_count;
};

/* May code at `privilege` do all of `access` (PMP_R, PMP_W, PMP_X) to [address, address + size)? */
bool riscv_pmp_allows(const struct riscv_pmp *pmp, unsigned privilege, uint64_t address, uint64_t size,
                      unsigned access);

/* What may be done with every byte of the 4 KiB page, as PMP_R | PMP_W | PMP_X. *uniform is false when an entry begins
 * or ends inside the page: then each access has to ask riscv_pmp_allows(). */
unsigned riscv_pmp_page(const struct riscv_pmp *pmp, unsigned privilege, uint64_t page, bool *uniform);

/* The registers, with their WARL rules and locks. `index` of pmpcfg is 0 or 2 (RV64). */
uint64_t riscv_pmp_cfg_read(const struct riscv_pmp *pmp, unsigned index);
void riscv_pmp_cfg_write(struct riscv_pmp *pmp, unsigned index, uint64_t value);
void riscv_pmp_address_write(struct riscv_pmp *pmp, unsigned index, uint64_t value);
void riscv_pmp_reset(struct riscv_pmp *pmp);

#endif
