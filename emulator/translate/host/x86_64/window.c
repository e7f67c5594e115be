/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows: results of TLB lookups that several accesses of a block share (emit_mem.c uses them, liveness.c finds who
 * may). A window lives in a temporary register under a number behind the values; when the register is wanted for
 * something else it is forgotten, and the next access looks up again.
 */
#include "emulator/translate/host/x86_64/emit.h"

struct window *x86_window_find(struct emitter *e, unsigned base, unsigned mmu, unsigned *reg)
{
    for (unsigned i = 0; i < WINDOWS; i++) {
        if (e->windows[i].base != base || !base || e->windows[i].mmu != mmu)
            continue;
        for (unsigned t = 0; t < X86_TEMPS; t++) {
            if (e->reg_value[x86_temps[t]] == WINDOW_ID + i) {
                *reg = x86_temps[t];
                e->locked |= 1u << *reg;
                return &e->windows[i];
            }
        }
    }
    return NULL;
}

struct window *x86_window_new(struct emitter *e, unsigned base, unsigned reaches, unsigned reg)
{
    unsigned best = 0;
    for (unsigned i = 1; i < WINDOWS; i++) { /* a free one, or that which is used least long */
        if (e->windows[best].base &&
            (!e->windows[i].base || e->values[WINDOW_ID + i].last < e->values[WINDOW_ID + best].last))
            best = i;
    }
    x86_window_drop(e, best);
    e->windows[best].base = (uint16_t)base;
    e->values[WINDOW_ID + best] = (struct value){.reg = (uint8_t)reg, .spill = -1, .last = (uint16_t)reaches};
    e->reg_value[reg] = (uint16_t)(WINDOW_ID + best);
    return &e->windows[best];
}

void x86_window_drop(struct emitter *e, unsigned number)
{
    e->windows[number].base = 0;
    for (unsigned t = 0; t < X86_TEMPS; t++) {
        if (e->reg_value[x86_temps[t]] == WINDOW_ID + number)
            e->reg_value[x86_temps[t]] = 0;
    }
}
