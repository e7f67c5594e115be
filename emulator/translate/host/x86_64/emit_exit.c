/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leaving a block. A direct exit is a jump that first leads to a stub out of line, where its number goes to the run
 * time; once the target is known the jump is patched. Before a jump that goes backwards the attention word is looked at
 * (so every loop does); before a jump to another page, the identity of that page.
 *
 * An indirect exit probes translate_cpu.jumps in line; a return first tries the shadow stack, where the call left the
 * address of its landing: a direct exit to the return address, linked like any other.
 */
#include "emulator/translate/host/x86_64/emit.h"

static uint64_t page_of(uint64_t address)
{
    return address & ~(uint64_t)(TRANSLATE_PAGE - 1);
}

/* Does a jump from the block to that page have to look whether the page is still where it was? Direct memory is always
 * where it was; blocks whose bytes change are killed. */
static bool needs_guard(const struct emitter *e, uint64_t pc)
{
    return !e->code->is_direct && page_of(pc) != page_of(e->block->pc);
}

static struct x86_mem fetch_page_mem(const struct emitter *e, uint64_t pc)
{
    struct x86_mem m = STATE(e, fetch_page);
    m.disp += 4 * (int32_t)fetch_index(page_of(pc));
    return m;
}

/* The stub of an exit; NULL when there are too many exits (the block is then given up, and the cache emptied). */
static struct code_exit *exit_stub(struct emitter *e, uint64_t pc)
{
    struct code_exit *exit = exit_new(e->code, e->block, pc);
    if (!exit)
        return NULL;
    exit->stub = x86_offset(&e->far);
    x86_mov_imm_keep(&e->far, RAX, (uint32_t)(exit - e->code->exits));
    x86_jmp(&e->far, e->layout->thunk[THUNK_EXIT_LINK]);
    return exit;
}

static void jump_to_stub(struct x86_out *o, enum x86_cc cc, uint32_t stub)
{
    uint32_t jump = x86_jcc_forward(o, cc);
    x86_set_target(o, jump, stub);
}

/* The checks and the jump of a direct exit, into `o`. */
static void direct(struct emitter *e, struct x86_out *o, uint64_t pc, bool backwards)
{
    struct code_exit *exit = exit_stub(e, pc);
    if (!exit) {
        e->full = true;
        return;
    }
    if (backwards) {
        x86_alu_mem_imm(o, ALU_CMP, false, MEM(RBP, e->layout->attention), 0);
        jump_to_stub(o, CC_NE, exit->stub);
    }
    if (needs_guard(e, pc)) {
        exit->guard = x86_cmp_mem_imm_patchable(o, fetch_page_mem(e, pc), UINT32_MAX);
        jump_to_stub(o, CC_NE, exit->stub);
    }
    exit->patch = x86_jmp_patchable(o);
    x86_set_target(o, exit->patch, exit->stub);
}

static bool is_backwards(const struct emitter *e, uint64_t pc)
{
    return pc <= e->insn_pc;
}

static void emit_exit_if(struct emitter *e, const struct ir_op *op)
{
    enum x86_cc cc = x86_condition(e, op->a);
    bool plain = !is_backwards(e, op->imm) && !needs_guard(e, op->imm);
    if (!plain) {
        uint32_t skip = x86_jcc_forward(&e->o, cc ^ 1);
        direct(e, &e->o, op->imm, is_backwards(e, op->imm));
        x86_land(&e->o, skip);
        return;
    }
    struct code_exit *exit = exit_stub(e, op->imm);
    if (!exit) {
        e->full = true;
        return;
    }
    exit->patch = x86_jcc_patchable(&e->o, cc);
    x86_set_target(&e->o, exit->patch, exit->stub);
}

/* --- Indirect --- */

static void emit_push_return(struct emitter *e, const struct ir_op *op)
{
    unsigned top = x86_temp(e), t = x86_temp(e);
    struct x86_mem pc = STATE(e, returns), code;
    pc.index = (uint8_t)top;
    code = pc;
    code.disp += (int32_t)offsetof(struct translate_return, code);
    x86_load(&e->o, false, top, STATE(e, return_top));
    x86_alu_imm(&e->o, ALU_ADD, false, top, sizeof(struct translate_return));
    x86_alu_imm(&e->o, ALU_AND, false, top, sizeof(struct translate_return) * (TRANSLATE_RETURNS - 1));
    x86_store(&e->o, 2, top, STATE(e, return_top));
    if (fits32((int64_t)op->imm)) {
        x86_store_imm(&e->o, 3, (int32_t)op->imm, pc);
    } else {
        x86_mov_imm(&e->o, t, op->imm);
        x86_store(&e->o, 3, t, pc);
    }
    struct code_exit *exit = exit_stub(e, op->imm);
    if (!exit) {
        e->full = true;
        return;
    }
    uint32_t landing = x86_offset(&e->far);
    if (needs_guard(e, op->imm)) {
        exit->guard = x86_cmp_mem_imm_patchable(&e->far, fetch_page_mem(e, op->imm), UINT32_MAX);
        jump_to_stub(&e->far, CC_NE, exit->stub);
    }
    exit->patch = x86_jmp_patchable(&e->far);
    x86_set_target(&e->far, exit->patch, exit->stub);
    x86_lea(&e->o, true, t, MEM_CACHE(landing));
    x86_store(&e->o, 3, t, code);
}

static void pop_return(struct emitter *e)
{
    struct x86_mem pc = STATE(e, returns), code;
    pc.index = RCX;
    code = pc;
    code.disp += (int32_t)offsetof(struct translate_return, code);
    x86_load(&e->o, false, RCX, STATE(e, return_top));
    x86_alu_rm(&e->o, ALU_CMP, true, RAX, pc);
    uint32_t miss = x86_jcc_short(&e->o, CC_NE);
    x86_lea(&e->o, false, RDX, MEM(RCX, -(int32_t)sizeof(struct translate_return)));
    x86_alu_imm(&e->o, ALU_AND, false, RDX, sizeof(struct translate_return) * (TRANSLATE_RETURNS - 1));
    x86_store(&e->o, 2, RDX, STATE(e, return_top));
    x86_rm(&e->o, 0, false, 0xff, 4, code, false, 0); /* jmp */
    x86_land_short(&e->o, miss);
}

static void emit_exit_indirect(struct emitter *e, const struct ir_op *op)
{
    _Static_assert(sizeof(struct translate_jump) == 16, "the scaling below");
    unsigned target = x86_gpr(e, op->a); /* nothing lives on behind the exit: registers may be overwritten at will */
    if (target != RAX)
        x86_mov_rr(&e->o, true, RAX, target);
    if (op->imm == IR_HINT_RETURN)
        pop_return(e);
    uint32_t lookup = e->layout->thunk[THUNK_LOOKUP];
    unsigned align = e->layout->guest->pc_align_log2;
    struct x86_mem jump = STATE(e, jumps), key, code;
    jump.index = RCX;
    key = code = jump;
    key.disp += (int32_t)offsetof(struct translate_jump, key);
    code.disp += (int32_t)offsetof(struct translate_jump, code);
    x86_alu_mem_imm(&e->o, ALU_CMP, false, MEM(RBP, e->layout->attention), 0);
    jump_to_stub(&e->o, CC_NE, lookup);
    x86_mov_rr(&e->o, false, RCX, RAX);
    if (align < 4)
        x86_shift_imm(&e->o, SHIFT_SHL, false, RCX, 4 - align);
    x86_alu_imm(&e->o, ALU_AND, false, RCX, (TRANSLATE_JUMPS - 1) << 4);
    x86_alu_rm(&e->o, ALU_CMP, true, RAX, jump);
    jump_to_stub(&e->o, CC_NE, lookup);
    x86_load(&e->o, false, RDX, key);
    x86_alu_rm(&e->o, ALU_CMP, false, RDX, STATE(e, key));
    jump_to_stub(&e->o, CC_NE, lookup);
    x86_load(&e->o, false, RCX, code);
    x86_alu_rm(&e->o, ALU_ADD, true, RCX, STATE(e, code_base));
    x86_rr(&e->o, 0, false, 0xff, 4, RCX, false); /* jmp */
}

static void emit_exit_runtime(struct emitter *e, const struct ir_op *op)
{
    if (fits32((int64_t)op->imm)) {
        x86_store_imm(&e->o, 3, (int32_t)op->imm, STATE(e, pc));
    } else {
        x86_mov_imm(&e->o, RAX, op->imm);
        x86_store(&e->o, 3, RAX, STATE(e, pc));
    }
    x86_mov_imm_keep(&e->o, RAX, op->c);
    x86_jmp(&e->o, e->layout->thunk[THUNK_EXIT]);
}

bool x86_emit_exit(struct emitter *e, const struct ir_op *op)
{
    switch (op->op) {
    case IR_OP_exit_if: emit_exit_if(e, op); break;
    case IR_OP_exit_direct: direct(e, &e->o, op->imm, is_backwards(e, op->imm)); break;
    case IR_OP_exit_indirect: emit_exit_indirect(e, op); break;
    case IR_OP_exit_runtime: emit_exit_runtime(e, op); break;
    case IR_OP_push_return: emit_push_return(e, op); break;
    default: return false;
    }
    return true;
}

/* The header, to which a dead block's entry jumps, and the entry's own check when an instruction straddles pages. */
uint32_t x86_emit_header(struct emitter *e)
{
    while ((x86_offset(&e->o) + 10) % 4)
        x86_byte(&e->o, 0xcc);
    uint32_t header = x86_offset(&e->o);
    x86_mov_imm_keep(&e->o, RAX, CODE_EXIT_IS_BLOCK | (uint32_t)(e->block - e->code->blocks));
    x86_jmp(&e->o, e->layout->thunk[THUNK_EXIT_LINK]);
    uint32_t entry = x86_offset(&e->o);
    assert(entry - header == 10);
    if (e->block->second_page != CODE_NO_PAGE && !e->code->is_direct) {
        x86_cmp_mem_imm_patchable(&e->o, fetch_page_mem(e, (e->block->pc | (TRANSLATE_PAGE - 1)) + 1),
                                  e->block->second_identity);
        jump_to_stub(&e->o, CC_NE, header);
        e->unsupported |= e->block->second_identity == 0;
    }
    return entry;
}
