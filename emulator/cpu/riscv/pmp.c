/* SPDX-License-Identifier: Apache-2.0 */
/* Physical memory protection (volume II, section 3.7). See pmp.h. */
#include <string.h>
#include "emulator/cpu/riscv/bits.h"
#include "emulator/cpu/riscv/pmp.h"

#define PMP_ADDRESS_MASK ((1ull << 54) - 1)

static unsigned mode_of(uint8_t cfg)
{
    return cfg >> PMP_A_SHIFT & 3;
}

/* The bytes that entry `index` matches; false when it is off or empty. */
static bool entry_span(const struct riscv_pmp *pmp, unsigned index, uint64_t *first, uint64_t *last)
{
    uint64_t address = pmp->address[index];

    switch (mode_of(pmp->cfg[index])) {
    case PMP_TOR:
        *first = index ? pmp->address[index - 1] << 2 : 0;
        if (*first >= address << 2)
            return false;
        *last = (address << 2) - 1;
        return true;
    case PMP_NA4:
        *first = address << 2;
        *last = *first + 3;
        return true;
    case PMP_NAPOT: {
        /* yyyy...0111 in the register: trailing ones say 2^(ones + 3) bytes. */
        uint64_t size_bits = address ^ (address + 1);
        *first = (address & ~size_bits) << 2;
        *last = *first + (((size_bits << 2) | 3));
        return true;
    }
    default: return false;
    }
}

static void decode(struct riscv_pmp *pmp)
{
    pmp->span_count = 0;
    for (unsigned i = 0; i < PMP_ENTRIES; i++) {
        uint64_t first, last;
        if (!entry_span(pmp, i, &first, &last))
            continue;
        pmp->span[pmp->span_count].first = first;
        pmp->span[pmp->span_count].last = last;
        pmp->span[pmp->span_count].cfg = pmp->cfg[i];
        pmp->span_count++;
    }
}

/* The lowest entry that touches [first, last]; -1 when none does. *whole: does it match every byte? */
static int find(const struct riscv_pmp *pmp, uint64_t first, uint64_t last, bool *whole)
{
    for (unsigned i = 0; i < pmp->span_count; i++) {
        if (pmp->span[i].first > last || pmp->span[i].last < first)
            continue;
        *whole = pmp->span[i].first <= first && pmp->span[i].last >= last;
        return (int)i;
    }
    return -1;
}

static unsigned entry_rights(const struct riscv_pmp *pmp, int entry, unsigned privilege)
{
    if (entry < 0)
        return privilege == PRIV_M ? PMP_R | PMP_W | PMP_X : 0;
    if (privilege == PRIV_M && !(pmp->span[entry].cfg & PMP_L))
        return PMP_R | PMP_W | PMP_X;
    return pmp->span[entry].cfg & (PMP_R | PMP_W | PMP_X);
}

bool riscv_pmp_allows(const struct riscv_pmp *pmp, unsigned privilege, uint64_t address, uint64_t size, unsigned access)
{
    bool whole = true;
    int entry = find(pmp, address, address + size - 1, &whole);

    /* "The matching PMP entry must match all bytes of an access, or the access fails", whatever its rights. */
    return whole && (entry_rights(pmp, entry, privilege) & access) == access;
}

unsigned riscv_pmp_page(const struct riscv_pmp *pmp, unsigned privilege, uint64_t page, bool *uniform)
{
    *uniform = true;
    int entry = find(pmp, page, page + 4095, uniform);
    return entry_rights(pmp, entry, privilege);
}

uint64_t riscv_pmp_cfg_read(const struct riscv_pmp *pmp, unsigned index)
{
    uint64_t value;

    memcpy(&value, &pmp->cfg[index * 4], sizeof(value));
    return value;
}

void riscv_pmp_cfg_write(struct riscv_pmp *pmp, unsigned index, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        uint8_t *cfg = &pmp->cfg[index * 4 + i];
        uint8_t wanted = (uint8_t)(value >> (8 * i)) & (PMP_L | 3 << PMP_A_SHIFT | PMP_X | PMP_W | PMP_R);

        if (*cfg & PMP_L)
            continue;
        if ((wanted & (PMP_R | PMP_W)) == PMP_W) /* reserved: write without read */
            wanted &= (uint8_t)~PMP_W;
        *cfg = wanted;
    }
    decode(pmp);
}

void riscv_pmp_address_write(struct riscv_pmp *pmp, unsigned index, uint64_t value)
{
    bool next_locks = index + 1 < PMP_ENTRIES && (pmp->cfg[index + 1] & PMP_L) &&
                      mode_of(pmp->cfg[index + 1]) == PMP_TOR; /* it is that entry's lower bound */

    if ((pmp->cfg[index] & PMP_L) || next_locks)
        return;
    pmp->address[index] = value & PMP_ADDRESS_MASK;
    decode(pmp);
}

void riscv_pmp_reset(struct riscv_pmp *pmp)
{
    memset(pmp, 0, sizeof(*pmp));
}
