/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Volume I, "Zicsr", and volume II: instructions that look at or change the machine's state. Privilege is part of the
 * mode that a block is made for, so it is checked here, once; what mstatus and the envcfg registers trap is checked
 * when the instruction runs.
 */
#include "base/math.h"
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

/* CSRs that are storage and nothing else are slots: no call, and the block goes on. */
static const struct plain_csr {
    uint16_t number;
    uint8_t slot;
    uint64_t mask; /* writable bits */
} plain_csrs[] = {
    {CSR_SSCRATCH, SLOT_SSCRATCH, ~0ull}, {CSR_SEPC, SLOT_SEPC, ~1ull},         {CSR_SCAUSE, SLOT_SCAUSE, ~0ull},
    {CSR_STVAL, SLOT_STVAL, ~0ull},       {CSR_MSCRATCH, SLOT_MSCRATCH, ~0ull}, {CSR_MEPC, SLOT_MEPC, ~1ull},
    {CSR_MCAUSE, SLOT_MCAUSE, ~0ull},     {CSR_MTVAL, SLOT_MTVAL, ~0ull},
};

static const struct plain_csr *plain_csr(const struct riscv_translation *t, unsigned number)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain_csrs); i++) {
        if (plain_csrs[i].number == number)
            return privilege(t) >= (number >> 8 & 3) ? &plain_csrs[i] : NULL;
    }
    return NULL;
}

static struct ir_value modified(struct riscv_translation *t, enum riscv_csr_operation operation, struct ir_value old,
                                struct ir_value operand)
{
    switch (operation) {
    case CSR_SET: return ir_or(t->ir, old, operand);
    case CSR_CLEAR: return ir_andn(t->ir, old, operand);
    default: return operand;
    }
}

static void plain_access(struct riscv_translation *t, const struct riscv_operands *o, const struct plain_csr *csr,
                         enum riscv_csr_operation operation, struct ir_value operand)
{
    struct ir_value old = ir_get(t->ir, csr->slot);

    if (operation != CSR_READ)
        ir_put(t->ir, csr->slot, ir_and(t->ir, modified(t, operation, old, operand), ir_const(t->ir, csr->mask)));
    riscv_write_x(t, o->rd, old);
}

/* fflags live where the host keeps them. */
static void fflags_access(struct riscv_translation *t, const struct riscv_operands *o,
                          enum riscv_csr_operation operation, struct ir_value operand)
{
    struct ir_value old;

    if (!riscv_fp_begin(t, operation == CSR_READ ? FP_LOOKS : FP_CHANGES))
        return;
    old = ir_fp_flags(t->ir);
    if (operation != CSR_READ)
        ir_fp_set_flags(t->ir, ir_and(t->ir, modified(t, operation, old, operand), ir_const(t->ir, 0x1f)));
    riscv_write_x(t, o->rd, old);
}

/* SIE and MIE cleared in a constant: nothing becomes possible that was not before, so the block goes on. */
static bool only_masks_interrupts(const struct riscv_operands *o, enum riscv_csr_operation operation, bool is_immediate)
{
    return is_immediate && operation == CSR_CLEAR && (o->csr == CSR_SSTATUS || o->csr == CSR_MSTATUS) &&
           !((uint64_t)o->imm & ~(MSTATUS_SIE | MSTATUS_MIE));
}

static void helper_access(struct riscv_translation *t, const struct riscv_operands *o,
                          enum riscv_csr_operation operation, struct ir_value operand, bool is_immediate)
{
    bool is_float = o->csr == CSR_FRM || o->csr == CSR_FCSR;
    struct ir_value what = ir_const(t->ir, o->csr | (uint64_t)operation << 16);
    struct ir_value old =
        ir_call(t->ir, is_float ? HELPER_CSR_FLOAT : HELPER_CSR, what, operand, ir_const(t->ir, t->bits));

    riscv_write_x(t, o->rd, old);
    if (operation != CSR_READ && riscv_csr_effect(o->csr) != CSR_EFFECT_NONE &&
        !only_masks_interrupts(o, operation, is_immediate))
        riscv_end_block(t);
}

static void csr_access(struct riscv_translation *t, const struct riscv_operands *o, enum riscv_csr_operation operation,
                       struct ir_value operand, bool is_immediate)
{
    const struct plain_csr *plain = plain_csr(t, o->csr);

    if (plain)
        plain_access(t, o, plain, operation, operand);
    else if (o->csr == CSR_FFLAGS)
        fflags_access(t, o, operation, operand);
    else
        helper_access(t, o, operation, operand, is_immediate);
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
