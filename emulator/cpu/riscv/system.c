/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volume I, "Zicsr", and volume II: instructions that look at or change the machine's state. Privilege is part of the
 * mode that a block is made for, so it is checked here, once; what mstatus and the envcfg registers trap is checked
 * when the instruction runs.
 */
#include "emulator/cpu/riscv/translate.h"

static unsigned privilege(const struct riscv_translation *t)
{
    return MODE_PRIVILEGE(t->mode);
}

static struct ir_value nothing(void)
{
    return (struct ir_value){0};
}

/* ---- Zicsr ---- */

static bool is_float_csr(unsigned number)
{
    return number >= CSR_FFLAGS && number <= CSR_FCSR;
}

/* SIE and MIE cleared in a constant: nothing becomes possible that was not before, so the block goes on. */
static bool only_masks_interrupts(const struct riscv_operands *o, enum riscv_csr_operation operation, bool is_immediate)
{
    return is_immediate && operation == CSR_CLEAR && (o->csr == CSR_SSTATUS || o->csr == CSR_MSTATUS) &&
           !((uint64_t)o->imm & ~(MSTATUS_SIE | MSTATUS_MIE));
}

/* fflags neither decides how code is made nor what it may do, once FS is dirty. */
static bool only_flags(const struct riscv_translation *t, const struct riscv_operands *o)
{
    return o->csr == CSR_FFLAGS && MODE_FS(t->mode) == RISCV_FS_DIRTY;
}

static void csr_access(struct riscv_translation *t, const struct riscv_operands *o, enum riscv_csr_operation operation,
                       struct ir_value operand, bool is_immediate)
{
    unsigned helper = is_float_csr(o->csr) ? HELPER_CSR_FLOAT : HELPER_CSR;
    struct ir_value what = ir_const(t->ir, o->csr | (uint64_t)operation << 16);
    struct ir_value old = ir_call(t->ir, helper, what, operand, ir_const(t->ir, t->bits));

    riscv_write_x(t, o->rd, old);
    if (operation != CSR_READ && riscv_csr_effect(o->csr) != CSR_EFFECT_NONE &&
        !only_masks_interrupts(o, operation, is_immediate) && !only_flags(t, o))
        riscv_end_block(t);
}

void riscv_csr_register(struct riscv_translation *t, const struct riscv_operands *o, enum riscv_csr_operation operation)
{
    if (operation != CSR_WRITE && o->rs1 == 0)
        operation = CSR_READ;
    csr_access(t, o, operation, riscv_read_x(t, o->rs1), false);
}

void riscv_csr_immediate(struct riscv_translation *t, const struct riscv_operands *o,
                         enum riscv_csr_operation operation)
{
    if (operation != CSR_WRITE && o->imm == 0)
        operation = CSR_READ;
    csr_access(t, o, operation, ir_const(t->ir, (uint64_t)o->imm), true);
}

/* ---- trap returns, waiting ---- */

static void check(struct riscv_translation *t, enum riscv_check what)
{
    ir_call(t->ir, HELPER_CHECK, ir_const(t->ir, what), ir_const(t->ir, t->bits), nothing());
}

void riscv_translate_sret(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (privilege(t) < PRIV_S) {
        riscv_translate_illegal(t);
        return;
    }
    check(t, CHECK_SRET);
    ir_exit_runtime(t->ir, RISCV_EXIT_SRET, t->pc);
}

void riscv_translate_mret(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (privilege(t) < PRIV_M)
        riscv_translate_illegal(t);
    else
        ir_exit_runtime(t->ir, RISCV_EXIT_MRET, t->pc);
}

void riscv_translate_wfi(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (privilege(t) < PRIV_S) {
        riscv_translate_illegal(t);
        return;
    }
    check(t, CHECK_WFI);
    ir_exit_runtime(t->ir, RISCV_EXIT_WFI, t->next_pc);
}

/* ---- memory management ---- */

void riscv_translate_sfence_vma(struct riscv_translation *t, const struct riscv_operands *o)
{
    unsigned given = (o->rs1 ? 1 : 0) | (o->rs2 ? 2 : 0);

    if (privilege(t) < PRIV_S) {
        riscv_translate_illegal(t);
        return;
    }
    check(t, CHECK_SFENCE_VMA);
    ir_call(t->ir, HELPER_FENCE_VMA, riscv_read_x(t, o->rs1), riscv_read_x(t, o->rs2), ir_const(t->ir, given));
    riscv_end_block(t);
}

/* ---- cache blocks ---- */

static void cache_block(struct riscv_translation *t, const struct riscv_operands *o, enum riscv_check what, bool zero)
{
    check(t, what);
    ir_call(t->ir, HELPER_CACHE_BLOCK, riscv_read_x(t, o->rs1), ir_const(t->ir, zero), nothing());
}

void riscv_translate_cbo_inval(struct riscv_translation *t, const struct riscv_operands *o)
{
    cache_block(t, o, CHECK_CBO_INVAL, false);
}

void riscv_translate_cbo_clean(struct riscv_translation *t, const struct riscv_operands *o)
{
    cache_block(t, o, CHECK_CBO_CLEAN, false);
}

void riscv_translate_cbo_zero(struct riscv_translation *t, const struct riscv_operands *o)
{
    cache_block(t, o, CHECK_CBO_ZERO, true);
}
