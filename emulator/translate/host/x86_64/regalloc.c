/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where values are, during the forward pass. Greedy: a value gets a free temporary when it is made or first needed in a
 * register; when none is free, the one needed last gives way (to its home slot for free, else to a spill slot).
 *
 * Pinned registers are handed out only through x86_define() (when the value's put follows and nobody looks in between)
 * and x86_put(). Before a pin is overwritten, a value that is only there and still needed moves away.
 */
#include "emulator/translate/host/x86_64/emit.h"

const uint8_t x86_temps[X86_TEMPS] = {RAX, RCX, RDX, RSI, RDI};

void x86_regalloc_begin(struct emitter *e)
{
    memset(e->reg_value, 0, sizeof e->reg_value);
    memset(e->slot_value, 0, sizeof e->slot_value);
    e->locked = 0;
    e->spills = 0;
    e->vector_spills = 0;
    memset(e->windows, 0, sizeof e->windows);
}

static struct value *val(struct emitter *e, unsigned id)
{
    return &e->values[id];
}

bool x86_const(const struct emitter *e, unsigned id, uint64_t *value)
{
    return ir_is_const(e->b, (struct ir_value){(uint16_t)id}, value);
}

/* The value that stands for `id`: behind an extension that was left out, its operand. */
static unsigned behind(const struct emitter *e, unsigned id)
{
    while (e->values[id].fused && (e->b->ops[id].op == IR_OP_sext || e->b->ops[id].op == IR_OP_zext))
        id = e->b->ops[id].a;
    return id;
}

/* --- Memory behind values --- */

static struct x86_mem spill_mem(int spill)
{
    return spill < SPILLS ? MEM(RSP, FRAME_SPILLS + 8 * spill) : MEM(RSP, FRAME_VECTORS + 32 * (spill - SPILLS));
}

bool x86_memory_of(struct emitter *e, unsigned id, struct x86_mem *mem)
{
    id = behind(e, id);
    const struct value *v = val(e, id);
    if (v->reg != NO_REG)
        return false;
    if (v->home)
        *mem = slot_mem(e, v->home - 1u);
    else if (v->spill >= 0)
        *mem = spill_mem(v->spill);
    else
        return false;
    return true;
}

static int spill_new(struct emitter *e, bool vector)
{
    if (vector) {
        int n = __builtin_ffs((int)~e->vector_spills);
        if (n == 0 || n > VECTOR_SPILLS) {
            e->unsupported = true;
            return SPILLS;
        }
        e->vector_spills |= 1u << (n - 1);
        return SPILLS + n - 1;
    }
    int n = __builtin_ffsll((long long)~e->spills);
    if (n == 0) {
        e->unsupported = true;
        return 0;
    }
    e->spills |= 1ull << (n - 1);
    return n - 1;
}

static void spill_free(struct emitter *e, struct value *v)
{
    if (v->spill >= SPILLS)
        e->vector_spills &= ~(1u << (v->spill - SPILLS));
    else if (v->spill >= 0)
        e->spills &= ~(1ull << v->spill);
    v->spill = -1;
}

void x86_store_xmm(struct emitter *e, enum ir_type type, unsigned x, struct x86_mem m)
{
    if (is_vector_type(type))
        x86_vector_store(&e->o, type == IR_V256, x, m);
    else
        x86_vstore_scalar(&e->o, type != IR_F32, x, m);
}

void x86_load_xmm(struct emitter *e, enum ir_type type, unsigned x, struct x86_mem m)
{
    if (is_vector_type(type))
        x86_vector_load(&e->o, type == IR_V256, x, m);
    else
        x86_vload_scalar(&e->o, type != IR_F32, x, m);
}

static void spill(struct emitter *e, unsigned id)
{
    struct value *v = val(e, id);
    enum ir_type type = type_of(e, id);
    if (v->spill >= 0)
        return;
    v->spill = (int8_t)spill_new(e, is_vector_type(type));
    if (v->reg >= XMM)
        x86_store_xmm(e, is_xmm_type(type) ? type : IR_F64, v->reg - XMM, spill_mem(v->spill));
    else
        x86_store(&e->o, 3, v->reg, spill_mem(v->spill));
}

/* --- Making room --- */

/* Another pin that is known to hold the value. */
static unsigned other_pin(const struct emitter *e, unsigned id, unsigned but)
{
    for (unsigned i = 0; i < e->layout->pin_count; i++) {
        unsigned pin = e->layout->pins[i];
        if (pin != but && e->reg_value[pin] == id)
            return pin;
    }
    return NO_REG;
}

/* The value in `r` is about to be lost there. */
void x86_evict(struct emitter *e, unsigned r)
{
    unsigned id = e->reg_value[r];
    e->reg_value[r] = 0;
    if (id >= WINDOW_ID) { /* a window is simply looked up again */
        e->windows[id - WINDOW_ID].base = 0;
        return;
    }
    if (!id || val(e, id)->reg != r)
        return;
    struct value *v = val(e, id);
    if (v->last >= e->at && !v->home && v->spill < 0) {
        unsigned pin = other_pin(e, id, r);
        if (pin != NO_REG) {
            v->reg = (uint8_t)pin;
            return;
        }
        spill(e, id);
    }
    v->reg = NO_REG;
}

static unsigned pick(struct emitter *e, const uint8_t *from, unsigned count, unsigned base)
{
    unsigned best = NO_REG, best_last = 0;
    for (unsigned i = 0; i < count; i++) {
        unsigned r = from ? from[i] : base + i;
        if (e->locked >> r & 1)
            continue;
        unsigned id = e->reg_value[r];
        if (!id)
            return r;
        /* One that has a copy in memory is cheaper to lose. */
        unsigned cost = val(e, id)->last + (val(e, id)->home || val(e, id)->spill >= 0 ? IR_MAX_OPS : 0u);
        if (cost >= best_last) {
            best = r;
            best_last = cost;
        }
    }
    if (best == NO_REG) { /* more operands than registers: let the evaluator have this block */
        e->unsupported = true;
        return base ? base : RAX;
    }
    x86_evict(e, best);
    return best;
}

unsigned x86_temp(struct emitter *e)
{
    unsigned r = pick(e, x86_temps, X86_TEMPS, 0);
    e->locked |= 1u << r;
    return r;
}

unsigned x86_xtemp(struct emitter *e)
{
    unsigned r = pick(e, NULL, 16, XMM);
    e->locked |= 1u << r;
    return r - XMM;
}

unsigned x86_temp_fixed(struct emitter *e, unsigned r)
{
    assert(!(e->locked >> r & 1));
    unsigned id = e->reg_value[r];
    if (id && id < WINDOW_ID && val(e, id)->last >= e->at && !val(e, id)->home && val(e, id)->spill < 0) {
        e->locked |= 1u << r;
        unsigned to = NO_REG; /* move rather than spill, when there is room */
        for (unsigned i = 0; i < X86_TEMPS; i++) {
            if (!(e->locked >> x86_temps[i] & 1) && !e->reg_value[x86_temps[i]])
                to = x86_temps[i];
        }
        if (to != NO_REG) {
            x86_mov_rr(&e->o, true, to, r);
            e->reg_value[to] = (uint16_t)id;
            val(e, id)->reg = (uint8_t)to;
            e->reg_value[r] = 0;
        }
    }
    x86_evict(e, r);
    e->locked |= 1u << r;
    return r;
}

/* --- Operands --- */

static void materialise_box(struct emitter *e, unsigned r, unsigned id)
{
    unsigned x = x86_xmm(e, e->b->ops[id].a), upper = x86_temp(e);
    x86_vmov_rx(&e->o, false, r, x);
    x86_mov_imm(&e->o, upper, 0xffffffff00000000);
    x86_alu_rr(&e->o, ALU_OR, true, r, upper);
}

static void load_gpr(struct emitter *e, unsigned r, unsigned id)
{
    uint64_t c;
    struct x86_mem m;
    const struct value *v = val(e, id);
    if (x86_const(e, id, &c))
        x86_mov_imm(&e->o, r, c);
    else if (v->reg != NO_REG && v->reg >= XMM)
        x86_vmov_rx(&e->o, type_of(e, id) != IR_F32, r, v->reg - XMM);
    else if (v->reg != NO_REG) {
        if (v->reg != r)
            x86_mov_rr(&e->o, true, r, v->reg);
    } else if (x86_memory_of(e, id, &m))
        x86_load(&e->o, ir_type_size(type_of(e, id)) == 8, r, m);
    else if (e->b->ops[id].op == IR_OP_box)
        materialise_box(e, r, id);
    else
        assert(!"value is nowhere");
}

void x86_gpr_into(struct emitter *e, unsigned r, unsigned id)
{
    id = behind(e, id);
    load_gpr(e, r, id);
}

unsigned x86_gpr(struct emitter *e, unsigned id)
{
    id = behind(e, id);
    struct value *v = val(e, id);
    uint64_t c;
    if (v->reg < XMM) {
        e->locked |= 1u << v->reg;
        return v->reg;
    }
    unsigned r = x86_temp(e);
    bool keep = v->reg == NO_REG && !x86_const(e, id, &c);
    load_gpr(e, r, id);
    if (keep) {
        v->reg = (uint8_t)r;
        e->reg_value[r] = (uint16_t)id;
    }
    return r;
}

unsigned x86_xmm(struct emitter *e, unsigned id)
{
    struct value *v = val(e, id);
    struct x86_mem m;
    enum ir_type type = type_of(e, id);
    if (v->reg != NO_REG && v->reg >= XMM) {
        e->locked |= 1u << v->reg;
        return v->reg - XMM;
    }
    bool in_memory = x86_memory_of(e, id, &m);
    if (!in_memory) {
        unsigned r = x86_gpr(e, id), x = x86_xtemp(e);
        x86_vmov_xr(&e->o, type != IR_F32 && type != IR_I32, x, r);
        return x;
    }
    unsigned x = x86_xtemp(e);
    bool narrow = type == IR_I32;
    x86_load_xmm(e, narrow ? IR_F32 : is_xmm_type(type) ? type : IR_F64, x, m);
    if (is_xmm_type(type)) {
        v->reg = (uint8_t)(XMM + x);
        e->reg_value[XMM + x] = (uint16_t)id;
    }
    return x;
}

struct operand x86_operand(struct emitter *e, unsigned id, bool wide)
{
    id = behind(e, id);
    uint64_t c;
    struct x86_mem m;
    if (x86_const(e, id, &c) && (wide ? fits32((int64_t)c) : true))
        return (struct operand){.kind = OPERAND_IMM, .imm = (int32_t)c};
    if (!lives_on(e, id) && x86_memory_of(e, id, &m) && ir_type_size(type_of(e, id)) >= (wide ? 8u : 4u))
        return (struct operand){.kind = OPERAND_MEM, .mem = m};
    return (struct operand){.kind = OPERAND_REG, .reg = (uint8_t)x86_gpr(e, id)};
}

/* --- Results --- */

/* The pin will be overwritten by this operation or right after it; operands of this operation may still read it. */
void x86_leave_pin(struct emitter *e, unsigned pin)
{
    unsigned id = e->reg_value[pin];
    if (!id || val(e, id)->reg != pin || !lives_on(e, id)) {
        e->reg_value[pin] = 0;
        return;
    }
    struct value *v = val(e, id);
    unsigned other = other_pin(e, id, pin);
    if (other != NO_REG)
        v->reg = (uint8_t)other;
    else if (v->home || v->spill >= 0)
        v->reg = NO_REG;
    else {
        unsigned t = x86_temp(e);
        x86_mov_rr(&e->o, true, t, pin);
        v->reg = (uint8_t)t;
        e->reg_value[t] = (uint16_t)id;
    }
    e->reg_value[pin] = 0;
}

static unsigned defined(struct emitter *e, unsigned r)
{
    e->reg_value[r] = (uint16_t)e->at;
    e->values[e->at].reg = (uint8_t)r;
    e->locked |= 1u << r;
    return r;
}

unsigned x86_define_at(struct emitter *e, unsigned r)
{
    return defined(e, r);
}

static unsigned define_hinted(struct emitter *e)
{
    struct value *v = val(e, e->at);
    if (!v->hint)
        return NO_REG;
    unsigned slot = v->hint - 1u, pin = e->layout->pin_of_slot[slot];
    x86_leave_pin(e, pin);
    e->slot_value[slot] = 0;
    return defined(e, pin);
}

unsigned x86_define(struct emitter *e)
{
    unsigned r = define_hinted(e);
    return r != NO_REG ? r : defined(e, x86_temp(e));
}

unsigned x86_define_reusing(struct emitter *e, unsigned id)
{
    id = behind(e, id);
    unsigned r = define_hinted(e);
    if (r != NO_REG)
        return r;
    struct value *v = val(e, id);
    if (v->reg < XMM && !is_pin(e, v->reg) && !lives_on(e, id)) {
        r = v->reg;
        v->reg = NO_REG;
        return defined(e, r);
    }
    return defined(e, x86_temp(e));
}

void x86_result_in(struct emitter *e, unsigned r, bool wide)
{
    e->locked |= 1u << r;
    if (val(e, e->at)->hint)
        x86_mov_rr(&e->o, wide, x86_define(e), r);
    else
        defined(e, r);
}

unsigned x86_define_xmm(struct emitter *e, unsigned reuse)
{
    struct value *v = val(e, reuse);
    if (reuse && v->reg != NO_REG && v->reg >= XMM && !lives_on(e, reuse)) {
        unsigned r = v->reg;
        v->reg = NO_REG;
        return defined(e, r) - XMM;
    }
    return defined(e, XMM + x86_xtemp(e)) - XMM;
}

/* --- Calls and the end of an operation --- */

static void leave_register(struct emitter *e, unsigned r)
{
    unsigned id = e->reg_value[r];
    if (id && id < WINDOW_ID && !lives_on(e, id)) { /* an operand that has been copied already */
        val(e, id)->reg = NO_REG;
        e->reg_value[r] = 0;
    }
    x86_evict(e, r);
}

void x86_before_call(struct emitter *e)
{
    for (unsigned i = 0; i < X86_TEMPS; i++)
        leave_register(e, x86_temps[i]);
    for (unsigned x = XMM; x < REGS; x++)
        leave_register(e, x);
}

void x86_spill_vectors(struct emitter *e)
{
    for (unsigned x = XMM; x < REGS; x++) {
        if (e->reg_value[x] && type_of(e, e->reg_value[x]) >= IR_V256)
            x86_evict(e, x);
    }
}

static void release_if_dead(struct emitter *e, unsigned id)
{
    struct value *v = val(e, id);
    if (!id || lives_on(e, id))
        return;
    if (v->reg != NO_REG && e->reg_value[v->reg] == id && !is_pin(e, v->reg)) {
        e->reg_value[v->reg] = 0;
        v->reg = NO_REG;
    }
    spill_free(e, v);
}

/* Operands of operations that are emitted at their use die with them. */
static void release_operand(struct emitter *e, unsigned id)
{
    const struct ir_op *op = &e->b->ops[id];
    release_if_dead(e, id);
    if (!e->values[id].fused && op->op != IR_OP_box)
        return;
    release_operand(e, op->a);
    if (ir_op_info[op->op].operands > 1)
        release_operand(e, op->b);
}

void x86_end_op(struct emitter *e)
{
    const struct ir_op *op = &e->b->ops[e->at];
    const uint16_t operand[3] = {op->a, op->b, op->c};
    e->locked = 0;
    for (unsigned i = 0; i < WINDOWS; i++) {
        if (e->windows[i].base && !lives_on(e, WINDOW_ID + i))
            x86_window_drop(e, i);
    }
    for (unsigned i = 0; i < ir_op_info[op->op].operands; i++)
        release_operand(e, operand[i]);
    release_if_dead(e, e->at);
}
