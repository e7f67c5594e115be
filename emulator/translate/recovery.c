/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and reading recovery maps; what they are: recovery.h.
 *
 * One walk over the block keeps two views of the slots: `now`, after all puts so far, and `start`, as of the last
 * ir_insn_start. Sets of slots remember where the views may differ from each other and from the map written last, so
 * the work is in proportion to the puts, not to the number of slots. The walk is done twice, first to count the bytes.
 */
#include <assert.h>
#include <string.h>
#include "base/alloc.h"
#include "emulator/translate/recovery.h"

/* --- Numbers --- */

static uint64_t fold_sign(uint64_t difference) /* small either way becomes small */
{
    return difference << 1 ^ (0 - (difference >> 63));
}

static uint64_t unfold_sign(uint64_t folded)
{
    return folded >> 1 ^ (0 - (folded & 1));
}

static uint64_t read_number(const uint8_t **at)
{
    uint64_t number = 0;
    unsigned shift = 0;
    uint8_t byte;
    do {
        byte = *(*at)++;
        number |= (uint64_t)(byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    return number;
}

/* --- Making --- */

struct walk {
    const struct ir_block *b;
    uint8_t *out; /* NULL: count only */
    uint32_t size;
    uint16_t maps;
    uint64_t insn_pc;
    uint16_t now[IR_MAX_SLOTS], start[IR_MAX_SLOTS];
    struct ir_slots fresh;       /* put since the last ir_insn_start: where now and start may differ */
    struct ir_slots maybe;       /* where now or start may differ from `last` */
    struct ir_recovery_map last; /* written */
};

static void write_number(struct walk *w, uint64_t number)
{
    do {
        uint8_t more = number > 0x7f ? 0x80 : 0;
        if (w->out)
            w->out[w->size] = (uint8_t)(number & 0x7f) | more;
        w->size++;
        number >>= 7;
    } while (number);
}

static void write_changes(struct walk *w, const uint16_t *view, unsigned op)
{
    unsigned before = ~0u; /* so that slot 0 is at distance 1 */
    for (unsigned word = 0; word < IR_MAX_SLOTS / 64; word++) {
        for (uint64_t left = w->maybe.bits[word]; left; left &= left - 1) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
            if (view[slot] == w->last.value[slot])
                continue;
            write_number(w, slot - before);
            write_number(w, view[slot] ? op - view[slot] : 0);
            w->last.value[slot] = view[slot];
            before = slot;
        }
    }
    write_number(w, 0);
}

static void write_map(struct walk *w, const uint16_t *view, unsigned op)
{
    write_number(w, op - w->last.op);
    write_number(w, fold_sign(w->insn_pc - w->last.pc));
    write_changes(w, view, op);
    w->last.op = (uint16_t)op;
    w->last.pc = w->insn_pc;
    w->maps++;
    w->maybe = w->fresh; /* the other view may be next */
}

static void add(struct ir_slots *set, unsigned slot)
{
    set->bits[slot / 64] |= 1ull << slot % 64;
}

static void start_insn(struct walk *w, uint64_t pc)
{
    w->insn_pc = pc;
    for (unsigned word = 0; word < IR_MAX_SLOTS / 64; word++) {
        for (uint64_t left = w->fresh.bits[word]; left; left &= left - 1) {
            unsigned slot = word * 64 + (unsigned)__builtin_ctzll(left);
            w->start[slot] = w->now[slot];
        }
    }
    w->fresh = IR_SLOTS_NONE;
}

static void note_put(struct walk *w, unsigned slot, unsigned value)
{
    w->now[slot] = (uint16_t)value;
    add(&w->fresh, slot);
    add(&w->maybe, slot);
}

/* What the helper looks at and changes has been written before the call. */
static void note_call(struct walk *w, const struct ir_helper *helper)
{
    for (unsigned slot = 0; slot < w->b->slot_count; slot++) {
        if (!ir_slots_has(&helper->reads, slot) && !ir_slots_has(&helper->writes, slot))
            continue;
        w->now[slot] = w->start[slot] = 0;
        add(&w->maybe, slot);
    }
}

static void walk(struct walk *w, const struct ir_block *b, uint64_t pc)
{
    *w = (struct walk){.b = b, .out = w->out, .insn_pc = pc, .last.pc = pc};
    for (unsigned i = 1; i < b->count; i++) {
        const struct ir_op *op = &b->ops[i];
        unsigned properties = ir_op_info[op->op].properties;
        if (op->op == IR_OP_insn) {
            start_insn(w, op->imm);
        } else if (op->op == IR_OP_put) {
            note_put(w, (unsigned)op->imm, op->a);
        } else if (op->op == IR_OP_call) {
            const struct ir_helper *helper = &b->helpers[op->imm];
            note_call(w, helper);
            if (helper->may_fault)
                write_map(w, w->start, i);
        } else if (properties & IR_FLT) {
            write_map(w, w->start, i);
        } else if (properties & IR_SEE) {
            write_map(w, w->now, i);
        }
    }
}

struct ir_recovery *ir_recovery_new(const struct ir_block *b, uint64_t pc)
{
    struct walk w = {.out = NULL};
    walk(&w, b, pc);
    uint32_t size = w.size;
    struct ir_recovery *r = xmalloc(sizeof *r + size);
    *r = (struct ir_recovery){.size = size, .maps = w.maps, .slot_count = b->slot_count, .pc = pc};
    w.out = r->bytes;
    walk(&w, b, pc);
    assert(w.size == size);
    return r;
}

/* --- Reading --- */

void ir_recovery_start(const struct ir_recovery *r, struct ir_recovery_cursor *cursor)
{
    *cursor = (struct ir_recovery_cursor){.map.pc = r->pc, .at = r->bytes, .end = r->bytes + r->size};
}

bool ir_recovery_next(struct ir_recovery_cursor *cursor)
{
    if (cursor->at == cursor->end)
        return false;
    struct ir_recovery_map *map = &cursor->map;
    map->op += (uint16_t)read_number(&cursor->at);
    map->pc += unfold_sign(read_number(&cursor->at));
    uint64_t distance;
    for (unsigned slot = ~0u; (distance = read_number(&cursor->at));) {
        slot += (unsigned)distance;
        uint64_t back = read_number(&cursor->at);
        map->value[slot] = back ? (uint16_t)(map->op - back) : 0;
    }
    return true;
}

bool ir_recovery_find(const struct ir_recovery *r, unsigned op, struct ir_recovery_map *map)
{
    struct ir_recovery_cursor cursor;
    ir_recovery_start(r, &cursor);
    while (ir_recovery_next(&cursor)) {
        if (cursor.map.op >= op) {
            *map = cursor.map;
            return map->op == op;
        }
    }
    return false;
}

void ir_recovery_print(const struct ir_recovery *r, const struct ir_block *b, FILE *out)
{
    struct ir_recovery_cursor cursor;
    ir_recovery_start(r, &cursor);
    while (ir_recovery_next(&cursor)) {
        fprintf(out, "recover %%%u pc=#0x%llx", cursor.map.op, (unsigned long long)cursor.map.pc);
        for (unsigned slot = 0; slot < r->slot_count; slot++) {
            if (cursor.map.value[slot])
                fprintf(out, " %s=%%%u", b->slots[slot].name, cursor.map.value[slot]);
        }
        fputc('\n', out);
    }
}
