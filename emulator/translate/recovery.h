/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery maps: where the guest's state is when a block is left in the middle.
 *
 * A put says that a slot now has a value; nobody sees whether the slot in the CPU struct has it already, until somebody
 * looks: after a fault, after an exit, or in a helper. So a back end may keep a put back ("sink" it) as long as it can
 * say, at each operation that may leave the block, which values the slots then have. That is what a map says:
 * slot -> value, and the guest pc of the instruction.
 *
 *   load, store, atomics, helpers that may fault    the state as of the last ir_insn_start: the instruction has not
 *                                                   happened
 *   exit_if, exit_direct, exit_indirect, ...        the state as of the operation, the puts of its own instruction
 *                                                   included
 *
 * A map names only slots whose latest put may have been kept back; all others are right in the CPU struct. Helpers see
 * the CPU struct itself: before a call the slots that the helper reads or writes have to be written (writes, too: it
 * may leave one as it was), and from then on no map names them until they are put again. A helper that may exit but not
 * fault has no map: it leaves where the block ends.
 *
 * Who uses this. Tier 1, the fast compiler in host/, does every put before the next operation that may fault (its home
 * for the most used slots is a host register, so a put is cheap), and needs nothing but the pc of the instruction. A
 * second tier that optimises whole regions keeps values in registers across faulting operations, drops puts that are
 * overwritten before the region ends, and writes what the map names on the cold paths only: in the stub of a side exit,
 * and when a fault has been taken. The evaluator can work that way now (ir_evaluate_sunk(), SPINDLE_TRANSLATE=
 * eval-sunk), so the maps are known to be right before a compiler depends on them.
 *
 * What the maps do not cover: what is not a slot. Memory, the FP flags and the rounding mode change where the operation
 * stands. And they do not undo. An instruction that lets a helper write slots, or see its puts, before its last
 * faulting operation breaks the rule of ir.h, and the state of its beginning is gone.
 *
 * Encoding: one byte string a block, each map as its difference from the map before: operation (distance), pc (signed
 * distance), then the slots that changed, in ascending order, with their values: distance from the slot before, 0 ends
 * the list; distance from the operation back to the value, 0 for a slot that the map no longer names. All numbers are
 * LEB128. A map like the one before takes three bytes. Finding one reads the string from its start, which is
 * fast enough for a fault; a compiler walks along with a cursor.
 */
#ifndef EMULATOR_TRANSLATE_RECOVERY_H
#define EMULATOR_TRANSLATE_RECOVERY_H

#include <stdio.h>
#include "emulator/translate/ir.h"

struct ir_recovery {
    uint32_t size;       /* of bytes */
    uint16_t maps;       /* how many */
    uint16_t slot_count; /* of the block */
    uint64_t pc;         /* of the block */
    uint8_t bytes[];
};

struct ir_recovery_map {
    uint64_t pc;                  /* of the instruction */
    uint16_t op;                  /* the operation that may leave */
    uint16_t value[IR_MAX_SLOTS]; /* of a slot; 0: the CPU struct has it */
};

struct ir_recovery_cursor {
    struct ir_recovery_map map;
    const uint8_t *at, *end;
};

/* Of a finished block that starts at `pc`. Released with free(). */
struct ir_recovery *ir_recovery_new(const struct ir_block *b, uint64_t pc);

/* The map of the operation with this number. false: it cannot leave the block. */
bool ir_recovery_find(const struct ir_recovery *r, unsigned op, struct ir_recovery_map *map);

/* All maps, in the order of operations: start, then next until it returns false. */
void ir_recovery_start(const struct ir_recovery *r, struct ir_recovery_cursor *cursor);
bool ir_recovery_next(struct ir_recovery_cursor *cursor);

/* For people, one map a line: "recover %7 pc=#0x80000000 x11=%5 x12=%4". */
void ir_recovery_print(const struct ir_recovery *r, const struct ir_block *b, FILE *out);

#endif
