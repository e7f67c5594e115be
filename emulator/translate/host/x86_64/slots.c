/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gets and puts. A pinned slot is a register and a put a move to it, unless the value was computed there; any other
 * slot is memory, written by every put and read when a value is first used. A value that is only where a put is about
 * to write moves away first.
 */
#include "emulator/translate/host/x86_64/emit.h"

static void put_pinned(struct emitter *e, unsigned slot, unsigned pin, unsigned id)
{
    struct value *v = (&e->values[id]);
    if (e->reg_value[pin] != id) {
        x86_leave_pin(e, pin);
        x86_gpr_into(e, pin, id);
        bool was_temp = v->reg < XMM && !is_pin(e, v->reg);
        if (was_temp)
            e->reg_value[v->reg] = 0;
        if (was_temp || v->reg == NO_REG)
            v->reg = (uint8_t)pin;
        e->reg_value[pin] = (uint16_t)id;
    }
    e->slot_value[slot] = (uint16_t)id;
}

/* The memory of the slot is about to change: a value that is only there moves to a register. */
static void leave_home(struct emitter *e, unsigned slot, unsigned but)
{
    unsigned id = e->slot_value[slot];
    e->slot_value[slot] = 0;
    if (!id || id == but || (&e->values[id])->home != slot + 1)
        return;
    if (lives_on(e, id) && (&e->values[id])->reg == NO_REG && (&e->values[id])->spill < 0) {
        if (is_xmm_type(type_of(e, id)))
            x86_xmm(e, id);
        else
            x86_gpr(e, id);
    }
    (&e->values[id])->home = 0;
}

static unsigned log2_size(enum ir_type type)
{
    return (unsigned)__builtin_ctz(ir_type_size(type));
}

static void store_value(struct emitter *e, enum ir_type type, unsigned id, struct x86_mem m)
{
    uint64_t c;
    const struct value *v = (&e->values[id]);
    bool boxed = v->reg == NO_REG && !v->home && v->spill < 0 && e->b->ops[id].op == IR_OP_box;
    if (boxed && ir_type_size(type) == 8) {
        x86_vstore_scalar(&e->o, false, x86_xmm(e, e->b->ops[id].a), m);
        m.disp += 4;
        x86_store_imm(&e->o, 2, -1, m);
    } else if (is_vector_type(type) || (v->reg != NO_REG && v->reg >= XMM)) {
        x86_store_xmm(e, is_xmm_type(type) ? type : type == IR_I32 ? IR_F32 : IR_F64, x86_xmm(e, id), m);
    } else if (x86_const(e, id, &c) && fits32((int64_t)c)) {
        x86_store_imm(&e->o, log2_size(type), (int32_t)c, m);
    } else {
        x86_store(&e->o, log2_size(type), x86_gpr(e, id), m);
    }
}

void x86_put(struct emitter *e, unsigned slot, unsigned id)
{
    unsigned pin = e->layout->pin_of_slot[slot];
    if (pin != PIN_NONE) {
        put_pinned(e, slot, pin, id);
        return;
    }
    uint64_t c;
    enum ir_type type = e->b->slots[slot].type;
    leave_home(e, slot, id);
    store_value(e, type, id, slot_mem(e, slot));
    if (ir_type_size(type) == ir_type_size(type_of(e, id)) && !x86_const(e, id, &c)) {
        e->slot_value[slot] = (uint16_t)id;
        if (!(&e->values[id])->home)
            (&e->values[id])->home = (uint8_t)(slot + 1);
    }
}

void x86_get(struct emitter *e, unsigned slot)
{
    unsigned pin = e->layout->pin_of_slot[slot];
    struct value *v = (&e->values[e->at]);
    enum ir_type type = e->b->slots[slot].type;
    if (pin != PIN_NONE) {
        v->reg = (uint8_t)pin;
        if (!e->reg_value[pin] || !lives_on(e, e->reg_value[pin]))
            e->reg_value[pin] = (uint16_t)e->at;
        else /* the pin's value has an id already (a get of the other type): a copy keeps the bookkeeping simple */
        {
            v->reg = NO_REG;
            unsigned t = x86_temp(e);
            x86_mov_rr(&e->o, true, t, pin);
            x86_define_at(e, t);
        }
    } else if (type == IR_I8 || type == IR_I16) {
        x86_load_extend(&e->o, log2_size(type), false, x86_define_at(e, x86_temp(e)), slot_mem(e, slot));
    } else {
        /* Whoever claimed the slot before keeps its home, too: leave_home() looks at one value only. */
        unsigned before = e->slot_value[slot];
        if (before && lives_on(e, before) && (&e->values[before])->home == slot + 1) {
            if (is_xmm_type(type_of(e, e->at)))
                x86_load_xmm(e, type_of(e, e->at), x86_define_at(e, XMM + x86_xtemp(e)) - XMM, slot_mem(e, slot));
            else
                x86_load(&e->o, ir_type_size(type) == 8, x86_define_at(e, x86_temp(e)), slot_mem(e, slot));
        } else {
            v->home = (uint8_t)(slot + 1);
            e->slot_value[slot] = (uint16_t)e->at;
        }
    }
}

void x86_slot_changes(struct emitter *e, unsigned slot)
{
    unsigned pin = e->layout->pin_of_slot[slot];
    if (pin == PIN_NONE) {
        leave_home(e, slot, 0);
        return;
    }
    x86_evict(e, pin);
    e->slot_value[slot] = 0;
}
