/* SPDX-License-Identifier: Apache-2.0 */
/* Volume I, "RV32I", "RV64I" and "Zifencei": what the templates of rv_i.decode cannot say. */
#include "emulator/cpu/riscv/translate.h"

enum { REGISTER_RA = 1, REGISTER_T0 = 5 };

/* The calling convention's link registers, which the manual's return-address-stack hints go by. */
static bool is_link(unsigned number)
{
    return number == REGISTER_RA || number == REGISTER_T0;
}

static void link_to(struct riscv_translation *t, unsigned rd)
{
    uint64_t return_pc = t->pc + t->length;

    riscv_write_x(t, rd, ir_const(t->ir, return_pc));
    if (is_link(rd))
        ir_push_return(t->ir, return_pc);
}

/* A forward jump on the page is followed; backward ones leave, for that is where interrupts are looked for. */
void riscv_translate_jal(struct riscv_translation *t, const struct riscv_operands *o)
{
    uint64_t target = t->pc + (uint64_t)o->imm;

    if (o->rd == 0 && target > t->pc && translate_same_page(t->block, target)) {
        t->next_pc = target;
        return;
    }
    link_to(t, o->rd);
    ir_exit_direct(t->ir, target);
}

void riscv_translate_jalr(struct riscv_translation *t, const struct riscv_operands *o)
{
    struct ir_value sum = ir_add(t->ir, riscv_read_x(t, o->rs1), ir_const(t->ir, (uint64_t)o->imm));
    struct ir_value target = ir_and(t->ir, sum, ir_const(t->ir, ~1ull));
    bool is_return = is_link(o->rs1) && o->rd != o->rs1;

    link_to(t, o->rd);
    ir_exit_indirect(t->ir, target, is_return ? IR_HINT_RETURN : IR_HINT_NONE);
}

/* FENCE: the predecessor and successor sets are i, o, r, w from bit 3 down; device accesses count as memory here. */
void riscv_translate_fence(struct riscv_translation *t, const struct riscv_operands *o)
{
    bool before_read = o->rs2 & 0xa, before_write = o->rs2 & 5;
    bool after_read = o->rs1 & 0xa, after_write = o->rs1 & 5;
    unsigned kinds = 0;

    if (before_read && after_read)
        kinds |= IR_FENCE_RR;
    if (before_read && after_write)
        kinds |= IR_FENCE_RW;
    if (before_write && after_read)
        kinds |= IR_FENCE_WR;
    if (before_write && after_write)
        kinds |= IR_FENCE_WW;
    if (kinds)
        ir_fence(t->ir, kinds);
}

/* Stores drop the translations of what they overwrite at once; only this block itself may be stale. (And, for programs,
 * what came in through another mapping of the same memory.) */
void riscv_translate_fence_i(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (t->mode & MODE_USER)
        ir_exit_runtime(t->ir, RISCV_EXIT_FENCE_I, t->next_pc);
    else
        riscv_end_block(t);
}

void riscv_translate_ecall(struct riscv_translation *t, const struct riscv_operands *o)
{
    ir_exit_runtime(t->ir, RISCV_EXIT_ECALL, t->pc);
}

void riscv_translate_ebreak(struct riscv_translation *t, const struct riscv_operands *o)
{
    riscv_translate_exception(t, EXC_BREAKPOINT, t->pc);
}
