/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From instructions to IR: the loop over a block, and the guest's description for the translator.
 *
 * A block follows fall-through past conditional branches (their taken side leaves), and forward jumps within the page.
 * It ends with the page, with a call, return or other computed jump, and where the mode may change.
 *
 * The pinned registers are those that compiled code names most; a count over Debian's kernel text puts a5 (297 000
 * times in 3 MiB), sp, a4, a0, ra, s1, s0, a3, a1 and a2 in front. The numbers are ranks: a host takes as many as it
 * can hold.
 */
#include "base/math.h"
#include "emulator/cpu/riscv/translate.h"

/* ---- slots ---- */

enum { GROUP_X, GROUP_F, GROUP_CSR };

#define X(number, name_, pin_)                                                                                         \
    [SLOT_X0 + (number)] = {                                                                                           \
        .name = name_, .offset = offsetof(struct cpu_riscv, x[number]), .type = IR_I64, .group = GROUP_X, .pin = pin_}
#define F(number, name_)                                                                                               \
    [SLOT_F0 +                                                                                                         \
        (number)] = {.name = name_, .offset = offsetof(struct cpu_riscv, f[number]), .type = IR_F64, .group = GROUP_F}
#define C(slot, member) [slot] = {#member, offsetof(struct cpu_riscv, member), IR_I64, GROUP_CSR}

const struct ir_slot riscv_slots[SLOT_COUNT] = {
    X(0, "zero", 0),
    X(1, "ra", 5),
    X(2, "sp", 2),
    X(3, "gp", 0),
    X(4, "tp", 16),
    X(5, "t0", 0),
    X(6, "t1", 15),
    X(7, "t2", 0),
    X(8, "s0", 7),
    X(9, "s1", 6),
    X(10, "a0", 4),
    X(11, "a1", 9),
    X(12, "a2", 10),
    X(13, "a3", 8),
    X(14, "a4", 3),
    X(15, "a5", 1),
    X(16, "a6", 14),
    X(17, "a7", 0),
    X(18, "s2", 11),
    X(19, "s3", 12),
    X(20, "s4", 13),
    X(21, "s5", 0),
    X(22, "s6", 0),
    X(23, "s7", 0),
    X(24, "s8", 0),
    X(25, "s9", 0),
    X(26, "s10", 0),
    X(27, "s11", 0),
    X(28, "t3", 0),
    X(29, "t4", 0),
    X(30, "t5", 0),
    X(31, "t6", 0),
    F(0, "ft0"),
    F(1, "ft1"),
    F(2, "ft2"),
    F(3, "ft3"),
    F(4, "ft4"),
    F(5, "ft5"),
    F(6, "ft6"),
    F(7, "ft7"),
    F(8, "fs0"),
    F(9, "fs1"),
    F(10, "fa0"),
    F(11, "fa1"),
    F(12, "fa2"),
    F(13, "fa3"),
    F(14, "fa4"),
    F(15, "fa5"),
    F(16, "fa6"),
    F(17, "fa7"),
    F(18, "fs2"),
    F(19, "fs3"),
    F(20, "fs4"),
    F(21, "fs5"),
    F(22, "fs6"),
    F(23, "fs7"),
    F(24, "fs8"),
    F(25, "fs9"),
    F(26, "fs10"),
    F(27, "fs11"),
    F(28, "ft8"),
    F(29, "ft9"),
    F(30, "ft10"),
    F(31, "ft11"),
    C(SLOT_SSCRATCH, sscratch),
    C(SLOT_SEPC, sepc),
    C(SLOT_SCAUSE, scause),
    C(SLOT_STVAL, stval),
    C(SLOT_MSCRATCH, mscratch),
    C(SLOT_MEPC, mepc),
    C(SLOT_MCAUSE, mcause),
    C(SLOT_MTVAL, mtval),
};

/* ---- ends ---- */

void riscv_translate_exception(struct riscv_translation *t, enum riscv_exception cause, uint64_t value)
{
    ir_call(t->ir, HELPER_RAISE, ir_const(t->ir, cause), ir_const(t->ir, value), (struct ir_value){0});
    ir_exit_runtime(t->ir, TRANSLATE_EXIT_CONTINUE, t->pc); /* not reached: the helper leaves */
}

void riscv_translate_illegal(struct riscv_translation *t)
{
    riscv_translate_exception(t, EXC_ILLEGAL_INSTRUCTION, t->bits);
}

void riscv_end_block(struct riscv_translation *t)
{
    ir_exit_runtime(t->ir, TRANSLATE_EXIT_CONTINUE, t->next_pc);
}

/* ---- the block ---- */

static bool fetch(struct riscv_translation *t)
{
    uint64_t bits;

    if (!translate_fetch(t->block, t->pc, 2, &bits))
        return false;
    t->length = riscv_length((uint16_t)bits);
    if (t->length == 4 && !translate_fetch(t->block, t->pc, 4, &bits))
        return false;
    t->bits = (uint32_t)bits;
    t->next_pc = t->pc + t->length;
    return true;
}

static void translate_one(struct riscv_translation *t)
{
    struct cpu_riscv *cpu = t->block->cpu;
    struct riscv_operands operands;
    enum riscv_insn insn =
        t->length == 2 ? riscv_decode_16(t->bits, ~0ull, &operands) : riscv_decode_32(t->bits, ~0ull, &operands);

    ir_insn_start(t->ir, t->pc, t->length);
    cpu->translated[insn]++;
    if (insn == RISCV_INSN_NONE)
        riscv_translate_illegal(t);
    else
        riscv_translators[insn](t, &operands);
}

void riscv_translate_block(struct translate_block *block)
{
    struct riscv_translation t = {.ir = block->ir, .block = block, .mode = block->mode, .pc = block->pc};

    for (unsigned i = 0; i < block->max_insns && !ir_is_full(t.ir); i++) {
        if (!fetch(&t)) {
            translate_stop(block, t.pc);
            return;
        }
        translate_one(&t);
        if (ir_is_ended(t.ir))
            return;
        t.pc = t.next_pc;
    }
    ir_exit_direct(t.ir, t.pc);
}

static unsigned fetch_mmu(uint32_t mode)
{
    static const uint8_t mmus[] = {[PRIV_U] = MMU_U, [PRIV_S] = MMU_S, [PRIV_M] = MMU_M};

    return mmus[MODE_PRIVILEGE(mode)];
}

const struct guest riscv_guest = {
    .name = "riscv64",
    .slots = riscv_slots,
    .helpers = riscv_helpers,
    .slot_count = SLOT_COUNT,
    .helper_count = HELPER_COUNT,
    .base_offset = offsetof(struct cpu_riscv, x) + 128,
    .state_offset = offsetof(struct cpu_riscv, tc),
    .attention_offset = offsetof(struct cpu_riscv, cpu.attention),
    .pc_align_log2 = 1,
    .mmu_count = 4,
    .translate = riscv_translate_block,
    .fetch_mmu = fetch_mmu,
    .fill_tlb = riscv_fill_tlb,
    .raise_access = riscv_raise_access,
};
