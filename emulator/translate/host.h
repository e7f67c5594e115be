/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a host back end gives the run time: compile a block, enter code, and patch it while other vCPUs run it.
 *
 * The back end writes into the code cache through `rw` addresses and code is executed at `rx` addresses; the two are
 * mappings of the same pages. Every function runs under the machine's translation lock, except enter().
 *
 * Patching rules, so that no vCPU has to stop: a block's entry begins with an instruction of at least two bytes, and
 * killing it replaces these two bytes, atomically, by a short jump to its header, which leaves to the run time; an exit
 * is a jump whose 32-bit displacement does not straddle 8 bytes and is replaced by one store. Code memory is
 * reused only when no vCPU is in translated code.
 */
#ifndef EMULATOR_TRANSLATE_HOST_H
#define EMULATOR_TRANSLATE_HOST_H

#include "emulator/translate/runtime.h"

struct code_block;
struct code_exit;

struct translate_host {
    const char *name;
    /* Is this processor good enough? Emits the entry and exit paths at the start of the (empty) cache. */
    bool (*prepare)(struct machine_code *code, struct error *err);
    void (*unprepare)(struct machine_code *code);
    void (*begin_cpu)(struct translate_cpu *tc);
    /* Emits `ir` for `block`; fills in block->code and its exits. false: the cache is full. */
    bool (*compile)(struct machine_code *code, const struct ir_block *ir, struct code_block *block);
    /* Runs from `entry` until an exit; returns the reason, tc->exit_link the exit that may be linked (or 0). */
    unsigned (*enter)(struct translate_cpu *tc, uint64_t entry);
    void (*link)(struct machine_code *code, struct code_exit *exit, struct code_block *target);
    void (*unlink)(struct machine_code *code, struct code_exit *exit);
    void (*kill)(struct machine_code *code, struct code_block *block);
    /* A fault of the host: if it happened in translated code, changes the context so that this code is left. */
    bool (*recover)(struct translate_cpu *tc, void *ucontext, enum translate_recovery how);
};

#endif
