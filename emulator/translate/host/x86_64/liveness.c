/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backward pass: who is used, and last by whom; which puts are overwritten before anybody can look; which
 * comparisons and additions are part of their only user (a branch, an address); and which values may be computed
 * straight into the pinned register they are put to.
 */
#include "emulator/translate/host/x86_64/emit.h"

struct pass {
    struct emitter *e;
    struct value seen[8]; /* memory operations further down, by base; .home is the mmu */
    unsigned next_seen;
    struct ir_slots overwritten; /* slots put later, with nobody looking in between */
    uint16_t pending[16];        /* by pin: the value put into it next, nobody looking in between */
};

static void use(struct pass *p, unsigned id, unsigned user, bool low_half)
{
    struct value *v = &p->e->values[id];
    v->full_uses |= !low_half;
    if (++v->uses > 1)
        v->fused = false; /* an earlier put or use needs it on its own */
    if (v->last < user)
        v->last = (uint16_t)user;
}

/* Does this operation look at the low 32 bits of operand `which` only? */
static bool reads_low_half(const struct ir_op *op, unsigned which)
{
    struct ir_mem mem;
    if (op->op >= IR_OP_add && op->op <= IR_OP_bswap)
        return op->op == IR_OP_sext || op->op == IR_OP_zext || op->type == IR_I32;
    if (op->op == IR_OP_set)
        return op->type == IR_I32;
    if (op->op != IR_OP_store || which != 1)
        return false;
    memcpy(&mem, &op->imm, sizeof mem);
    return mem.size <= 2;
}

/* An extension whose users all look at the low half is left out: x86_gpr() and the like go to its operand. */
static void skip_extension(struct pass *p, unsigned index)
{
    const struct ir_op *op = &p->e->b->ops[index];
    struct value *v = &p->e->values[index];
    enum ir_type from = type_of(p->e, op->a);
    if ((op->op == IR_OP_sext || op->op == IR_OP_zext) && op->imm == 32 && !v->full_uses &&
        (from == IR_I32 || from == IR_I64))
        v->fused = true;
}

static void everybody_looks(struct pass *p)
{
    p->overwritten = IR_SLOTS_NONE;
    memset(p->pending, 0, sizeof p->pending);
}

static void call_looks(struct pass *p, const struct ir_helper *helper)
{
    if (helper->may_fault || helper->may_exit)
        p->overwritten = IR_SLOTS_NONE;
    for (unsigned i = 0; i < IR_MAX_SLOTS / 64; i++)
        p->overwritten.bits[i] &= ~helper->reads.bits[i];
    memset(p->pending, 0, sizeof p->pending);
}

/* A value that is emitted at its only use needs its operands until then. */
static unsigned user_of_operands(const struct emitter *e, unsigned index)
{
    const struct value *v = &e->values[index];
    return v->fused || e->b->ops[index].op == IR_OP_box ? (v->last > index ? v->last : index) : index;
}

static bool only_quiet_between(const struct ir_block *b, unsigned from, unsigned to)
{
    for (unsigned i = from + 1; i < to; i++) {
        unsigned op = b->ops[i].op;
        if (op != IR_OP_const && op != IR_OP_get && op != IR_OP_insn)
            return false;
    }
    return true;
}

static void fuse_condition(struct pass *p, unsigned user)
{
    const struct ir_block *b = p->e->b;
    unsigned id = b->ops[user].a;
    if (b->ops[id].op == IR_OP_set && p->e->values[id].uses == 1 && only_quiet_between(b, id, user))
        p->e->values[id].fused = true;
}

/* load [x + constant]: the addition is the host's addressing mode. */
static void fuse_address(struct pass *p, unsigned id)
{
    const struct ir_op *op = &p->e->b->ops[id];
    uint64_t c;
    if (op->op == IR_OP_add && op->type == IR_I64 && p->e->values[id].uses == 1 && x86_const(p->e, op->b, &c) &&
        (int64_t)c >= INT32_MIN / 2 && (int64_t)c <= INT32_MAX / 2 && p->e->b->ops[op->a].op != IR_OP_const)
        p->e->values[id].fused = true;
}

/* Loads and stores at the same base can share one lookup. Going backwards, each learns about those behind it. */
static void join_window(struct pass *p, unsigned index, struct ir_mem mem)
{
    struct emitter *e = p->e;
    const struct ir_op *op = &e->b->ops[index];
    unsigned base = op->a;
    uint64_t c = 0;
    if (e->values[base].fused && x86_const(e, e->b->ops[base].b, &c))
        base = e->b->ops[base].a;
    int32_t low = (int32_t)c, high = low + (1 << mem.size);
    struct value *seen = NULL;
    for (unsigned i = 0; i < 8 && !seen; i++) {
        if (p->seen[i].base == base && p->seen[i].home == mem.mmu)
            seen = &p->seen[i];
    }
    if (mem.align != IR_ALIGN_ANY || low < -TRANSLATE_PAGE || high > TRANSLATE_PAGE)
        return;
    bool joins = seen && (seen->high > high ? seen->high : high) - (seen->low < low ? seen->low : low) <= 1024;
    if (!seen)
        seen = &p->seen[p->next_seen++ % 8];
    if (!joins)
        *seen = (struct value){
            .base = (uint16_t)base, .home = mem.mmu, .reaches = (uint16_t)index, .low = low, .high = high};
    seen->low = seen->low < low ? seen->low : low;
    seen->high = seen->high > high ? seen->high : high;
    seen->writes |= op->op == IR_OP_store;
    struct value *v = &e->values[index];
    v->base = seen->reaches > index ? (uint16_t)base : 0;
    v->reaches = seen->reaches;
    v->low = seen->low;
    v->high = seen->high;
    v->writes = seen->writes;
}

static void visit_put(struct pass *p, unsigned index)
{
    const struct ir_op *op = &p->e->b->ops[index];
    unsigned slot = (unsigned)op->imm, pin = p->e->layout->pin_of_slot[slot];
    if (ir_slots_has(&p->overwritten, slot)) {
        p->e->values[index].dead = true;
        return;
    }
    p->overwritten.bits[slot / 64] |= 1ull << slot % 64;
    if (pin != PIN_NONE) {
        p->pending[pin] = op->a;
        if (op->a < index)
            p->e->values[op->a].hint = (uint8_t)(slot + 1);
    }
    use(p, op->a, index, false);
}

static void visit_get(struct pass *p, unsigned index)
{
    unsigned slot = (unsigned)p->e->b->ops[index].imm, pin = p->e->layout->pin_of_slot[slot];
    if (!p->e->values[index].uses) {
        p->e->values[index].dead = true;
        return;
    }
    p->overwritten.bits[slot / 64] &= ~(1ull << slot % 64);
    if (pin != PIN_NONE)
        p->pending[pin] = 0;
}

static bool is_live(const struct emitter *e, const struct ir_op *op, const struct value *v)
{
    if (op->op == IR_OP_call && e->b->helpers[op->imm].pure)
        return v->uses;
    return v->uses || (ir_op_info[op->op].properties & (IR_FX | IR_FP)); /* arithmetic raises flags */
}

static void keep_hint_if_possible(struct pass *p, unsigned index)
{
    struct value *v = &p->e->values[index];
    if (v->hint && p->pending[p->e->layout->pin_of_slot[v->hint - 1]] != index)
        v->hint = 0;
}

static void visit(struct pass *p, unsigned index)
{
    struct emitter *e = p->e;
    const struct ir_op *op = &e->b->ops[index];
    unsigned properties = ir_op_info[op->op].properties;
    if (op->op == IR_OP_put) {
        visit_put(p, index);
        return;
    }
    if (op->op == IR_OP_get) {
        e->values[index].hint = 0;
        visit_get(p, index);
        return;
    }
    if (!is_live(e, op, &e->values[index])) {
        e->values[index].dead = true;
        return;
    }
    keep_hint_if_possible(p, index);
    skip_extension(p, index);
    if (op->op == IR_OP_call)
        memset(p->seen, 0, sizeof p->seen); /* calls use the temporaries */
    if (op->op == IR_OP_call && !e->b->helpers[op->imm].pure)
        call_looks(p, &e->b->helpers[op->imm]);
    else if (op->op != IR_OP_call && (properties & (IR_FLT | IR_SEE)))
        everybody_looks(p);
    const uint16_t operand[3] = {op->a, op->b, op->c};
    unsigned user = user_of_operands(e, index);
    for (unsigned i = 0; i < ir_op_info[op->op].operands; i++)
        use(p, operand[i], user, reads_low_half(op, i));
    if (op->op == IR_OP_exit_if || op->op == IR_OP_select)
        fuse_condition(p, index);
    if (properties & IR_MEM)
        fuse_address(p, op->a);
    if (op->op == IR_OP_load || op->op == IR_OP_store) {
        struct ir_mem mem;
        memcpy(&mem, &op->imm, sizeof mem);
        join_window(p, index, mem);
    }
}

void x86_liveness(struct emitter *e)
{
    struct pass p = {.e = e};
    e->end = 1;
    while (e->end < e->b->count && !(ir_op_info[e->b->ops[e->end].op].properties & IR_END))
        e->end++;
    e->end++;
    assert(e->end <= e->b->count);
    for (unsigned i = 0; i < e->end; i++)
        e->values[i] = (struct value){.reg = NO_REG, .spill = -1};
    for (unsigned i = e->end; i-- > 1;)
        visit(&p, i);
}
