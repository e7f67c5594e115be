/* SPDX-License-Identifier: Apache-2.0 */
/* Volume I, "B": what the templates of rv_b.decode cannot say. */
#include "emulator/cpu/riscv/translate.h"

/* ORC.B: every byte becomes 0xff unless it is 0. The sum carries into a byte's top bit when its low seven bits are not
 * all clear, so `high` holds the top bit of every byte that is not 0; (high - (high >> 7)) | high spreads it downwards.
 */
void riscv_translate_orc_b(struct riscv_translation *t, const struct riscv_operands *o)
{
    struct ir_block *b = t->ir;
    struct ir_value low_bits = ir_const(b, 0x7f7f7f7f7f7f7f7full), top_bits = ir_const(b, 0x8080808080808080ull);
    struct ir_value value = riscv_read_x(t, o->rs1);
    struct ir_value sum = ir_add(b, ir_and(b, value, low_bits), low_bits);
    struct ir_value high = ir_and(b, ir_or(b, sum, value), top_bits);
    struct ir_value spread = ir_sub(b, high, ir_shr(b, high, ir_const(b, 7)));

    riscv_write_x(t, o->rd, ir_or(b, spread, high));
}
