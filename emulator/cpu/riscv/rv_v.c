/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The V extension, version 1.0 ("The RISC-V Instruction Set Manual", volume I): legality, configuration and calls.
 *
 * vtype is part of the mode, like mstatus.VS: what may not be is found when a block is made, and code for one SEW and
 * LMUL calls the function for exactly that width (vector/). vl is not; loops that set it in every round find the same
 * block again. A vsetvli that changes nothing but vl, as most do, does not even end it.
 *
 * Every vector instruction sets mstatus.VS dirty, as all of them write vstart.
 */
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/rv_v.h"
#include "emulator/cpu/riscv/translate.h"

static struct ir_value nothing(void)
{
    return (struct ir_value){0};
}

/* ---- legality ---- */

/* Is vector state on? false: the block has ended, with an exception or to be made again with VS dirty. */
static bool begin(struct riscv_translation *t, bool needs_vtype)
{
    if (MODE_VS(t->mode) == RISCV_FS_OFF ||
        (needs_vtype && MODE_VS(t->mode) == RISCV_FS_DIRTY && MODE_VTYPE(t->mode) == VECTOR_VILL)) {
        riscv_translate_illegal(t);
        return false;
    }
    if (MODE_VS(t->mode) == RISCV_FS_CLEAN) {
        ir_call(t->ir, HELPER_VECTOR_DIRTY, nothing(), nothing(), nothing());
        ir_exit_runtime(t->ir, TRANSLATE_EXIT_CONTINUE, t->pc);
        return false;
    }
    return true;
}

static unsigned sew_of(const struct riscv_translation *t)
{
    return vector_setting_sew(MODE_VTYPE(t->mode));
}

static int lmul_of(const struct riscv_translation *t)
{
    return vector_setting_lmul(MODE_VTYPE(t->mode));
}

/* A group of registers: log2 of its element's bytes and of its registers. A mask has the width -1, below all. */
struct group {
    unsigned reg;
    int width, emul;
};
enum { WIDTH_MASK = -1 };

static unsigned registers_of(struct group g)
{
    return g.emul > 0 ? 1u << g.emul : 1;
}

static bool is_group(struct group g)
{
    if (g.width == WIDTH_MASK)
        return true;
    return g.width >= 0 && g.width <= 3 && g.emul >= -3 && g.emul <= 3 && g.reg % registers_of(g) == 0;
}

static bool overlap(struct group a, struct group b)
{
    return a.reg < b.reg + registers_of(b) && b.reg < a.reg + registers_of(a);
}

/* Section "Vector Operands": a destination may share registers with a source of its width; of a wider source the
 * lowest; and with a narrower source its own highest ones, unless the source is only a part of a register. */
static bool may_share(struct group to, struct group from)
{
    if (!overlap(to, from) || to.width == from.width)
        return true;
    if (to.width < from.width)
        return to.reg == from.reg;
    return from.emul >= 0 && from.width != WIDTH_MASK && from.reg + registers_of(from) == to.reg + registers_of(to);
}

/* Widths relative to SEW. */
enum relative {
    HALF = -1,
    SAME = 0,
    WIDE = 1,
    QUARTER = -2,
    EIGHTH = -3,
    MASK = 8,
    SINGLE,
    SINGLE_WIDE,
    SIXTEEN,
    NONE
};
enum {
    PLAIN = 0,
    V0_OPERAND = 1,   /* v0 is read as a value: vd may not be it, though vm says nothing of masking */
    MAY_WRITE_V0 = 2, /* even under a mask */
    NO_OVERLAP = 4,   /* of vd with vs2 and vs1 */
    FROM_START = 8,   /* vstart must be 0 */
    TO_REGISTER = 16, /* of the x or f file */
    ACCUMULATES = 32  /* vd is read too */
};
static const struct shape {
    uint8_t rules;
    int8_t vd, vs2, vs1; /* enum relative */
} shapes[SHAPE_COUNT] = {
    [SHAPE_SAME] = {PLAIN, SAME, SAME, SAME},
    [SHAPE_WITH_MASK] = {V0_OPERAND, SAME, SAME, SAME},
    [SHAPE_SPLAT] = {PLAIN, SAME, NONE, SAME},
    [SHAPE_CARRY] = {MAY_WRITE_V0, MASK, SAME, SAME},
    [SHAPE_COMPARE] = {MAY_WRITE_V0, MASK, SAME, SAME},
    [SHAPE_WIDEN] = {PLAIN, WIDE, SAME, SAME},
    [SHAPE_WIDEN_INTO] = {ACCUMULATES, WIDE, SAME, SAME},
    [SHAPE_WIDEN_W] = {PLAIN, WIDE, WIDE, SAME},
    [SHAPE_NARROW] = {PLAIN, SAME, WIDE, SAME},
    [SHAPE_EXTEND_2] = {PLAIN, SAME, HALF, NONE},
    [SHAPE_EXTEND_4] = {PLAIN, SAME, QUARTER, NONE},
    [SHAPE_EXTEND_8] = {PLAIN, SAME, EIGHTH, NONE},
    [SHAPE_UNARY] = {PLAIN, SAME, SAME, NONE},
    [SHAPE_WIDEN_UNARY] = {PLAIN, WIDE, SAME, NONE},
    [SHAPE_NARROW_UNARY] = {PLAIN, SAME, WIDE, NONE},
    [SHAPE_REDUCE] = {MAY_WRITE_V0 | FROM_START, SINGLE, SAME, SINGLE},
    [SHAPE_WIDEN_REDUCE] = {MAY_WRITE_V0 | FROM_START, SINGLE_WIDE, SAME, SINGLE_WIDE},
    [SHAPE_MASKS] = {PLAIN, MASK, MASK, MASK},
    [SHAPE_MASK_TO_X] = {FROM_START | TO_REGISTER, NONE, MASK, NONE},
    [SHAPE_MASK_FIRST] = {FROM_START | NO_OVERLAP, MASK, MASK, NONE},
    [SHAPE_IOTA] = {FROM_START | NO_OVERLAP, SAME, MASK, NONE},
    [SHAPE_ID] = {PLAIN, SAME, NONE, NONE},
    [SHAPE_TO_SCALAR] = {TO_REGISTER, NONE, SINGLE, NONE},
    [SHAPE_FROM_SCALAR] = {PLAIN, SINGLE, NONE, NONE},
    [SHAPE_SLIDE] = {PLAIN, SAME, SAME, NONE}, /* upwards: NO_OVERLAP */
    [SHAPE_GATHER] = {NO_OVERLAP, SAME, SAME, SAME},
    [SHAPE_GATHER_X] = {NO_OVERLAP, SAME, SAME, NONE},
    [SHAPE_GATHER_16] = {NO_OVERLAP, SAME, SAME, SIXTEEN},
    [SHAPE_COMPRESS] = {NO_OVERLAP | FROM_START, SAME, SAME, MASK},
};

static struct group group_of(const struct riscv_translation *t, unsigned reg, int relative)
{
    int sew = (int)sew_of(t), lmul = lmul_of(t);

    switch (relative) {
    case MASK: return (struct group){reg, WIDTH_MASK, 0};
    case SINGLE: return (struct group){reg, sew, 0};
    case SINGLE_WIDE: return (struct group){reg, sew + 1, 0};
    case SIXTEEN: return (struct group){reg, 1, lmul + 1 - sew};
    default: return (struct group){reg, sew + relative, lmul + relative};
    }
}

/* One source against the destination. */
static bool source_is_legal(const struct riscv_translation *t, const struct shape *shape, unsigned rules,
                            struct group to, unsigned reg, int relative)
{
    struct group from = group_of(t, reg, relative);

    if (!is_group(from))
        return false;
    if (shape->vd == NONE || shape->vd == SINGLE || shape->vd == SINGLE_WIDE || relative == SINGLE ||
        relative == SINGLE_WIDE)
        return true; /* scalars in vector registers may lie anywhere */
    return rules & NO_OVERLAP ? !overlap(to, from) : may_share(to, from);
}

/* Instructions without a vm field read as masked (vm 0) where v0 is an operand, and as not masked elsewhere. */
static unsigned vm_of(const struct riscv_translation *t)
{
    return t->bits >> 25 & 1;
}

/* "A vector register cannot be used to provide source operands with more than one EEW": v0 as a mask, vs2, vs1, and vd
 * where it is accumulated into. */
struct sources {
    struct group groups[4];
    unsigned count;
};

static void add_source(struct sources *s, struct group g)
{
    s->groups[s->count++] = g;
}

static bool read_with_one_width(const struct sources *s)
{
    for (unsigned i = 0; i < s->count; i++)
        for (unsigned k = 0; k < i; k++)
            if (s->groups[i].width != s->groups[k].width && overlap(s->groups[i], s->groups[k]))
                return false;
    return true;
}

static bool is_legal(const struct riscv_translation *t, const struct riscv_operands *o, const struct shape *shape,
                     unsigned rules, enum vector_operand source, bool masked)
{
    struct sources sources = {.count = 0};
    struct group to = {0};

    if (shape->vd != NONE) {
        to = group_of(t, o->rd, shape->vd);
        if (!is_group(to))
            return false;
        if ((masked || rules & V0_OPERAND) && !(rules & MAY_WRITE_V0) && to.reg == 0)
            return false;
    }
    if (masked || rules & V0_OPERAND || (shape == &shapes[SHAPE_CARRY] && !vm_of(t)))
        add_source(&sources, (struct group){0, WIDTH_MASK, 0});
    if (rules & ACCUMULATES)
        add_source(&sources, to);
    if (shape->vs2 != NONE) {
        if (!source_is_legal(t, shape, rules, to, o->rs2, shape->vs2))
            return false;
        add_source(&sources, group_of(t, o->rs2, shape->vs2));
    }
    if (source == OPERAND_V) {
        if (!source_is_legal(t, shape, rules, to, o->rs1, shape->vs1))
            return false;
        add_source(&sources, group_of(t, o->rs1, shape->vs1));
    }
    return read_with_one_width(&sources);
}

/* Floats are 32 or 64 bits wide here. Without a legal vtype the answer is left to begin(). */
static bool has_float(struct riscv_translation *t)
{
    if (MODE_VTYPE(t->mode) == VECTOR_VILL || sew_of(t) >= 2)
        return true;
    riscv_translate_illegal(t);
    return false;
}

/* ---- operations ---- */

struct operation {
    unsigned helper, number;
    const vector_row *row;
    enum vector_shape shape;
    enum vector_operand source;
    unsigned more_rules;
};

/* A single that is not NaN-boxed becomes the default NaN, boxed. */
static struct ir_value read_scalar(struct riscv_translation *t, const struct riscv_operands *o,
                                   enum vector_operand source)
{
    switch (source) {
    case OPERAND_X: return riscv_read_x(t, o->rs1);
    case OPERAND_I: return ir_const(t->ir, (uint64_t)o->imm);
    case OPERAND_F:
        if (sew_of(t) == 2)
            return ir_bits(t->ir, IR_I64, ir_box(t->ir, ir_unbox(t->ir, ir_get(t->ir, SLOT_F0 + o->rs1))));
        return ir_get_as(t->ir, SLOT_F0 + o->rs1, IR_I64);
    default: return ir_const(t->ir, 0);
    }
}

static bool needs_mask_bit(const struct riscv_operands *o, const struct operation *op)
{
    return op->shape != SHAPE_WITH_MASK && op->shape != SHAPE_CARRY && !o->vm;
}

static void translate(struct riscv_translation *t, const struct riscv_operands *o, const struct operation *op)
{
    const struct shape *shape = &shapes[op->shape];
    unsigned rules = shape->rules | op->more_rules;
    struct riscv_operands with_vm = *o;
    struct ir_value args, result;

    with_vm.vm = (uint16_t)vm_of(t);
    if (!begin(t, true))
        return;
    if (!op->row[op->number][sew_of(t)] || !is_legal(t, o, shape, rules, op->source, needs_mask_bit(&with_vm, op))) {
        riscv_translate_illegal(t);
        return;
    }
    if (rules & FROM_START)
        ir_call(t->ir, HELPER_VECTOR_FROM_START, ir_const(t->ir, t->bits), nothing(), nothing());
    args = ir_const(t->ir, VECTOR_ARGS(shape->vd == NONE ? 0 : o->rd, op->source == OPERAND_V ? o->rs1 : 0,
                                       shape->vs2 == NONE ? 0 : o->rs2, with_vm.vm, lmul_of(t)));
    result =
        ir_call(t->ir, op->helper, ir_const(t->ir, op->number * 4 + sew_of(t)), args, read_scalar(t, o, op->source));
    if (!(rules & TO_REGISTER))
        return;
    if (op->helper == HELPER_VECTOR_PERMUTE && op->number == VECTOR_MV_FS)
        ir_put(t->ir, SLOT_F0 + o->rd, ir_bits(t->ir, IR_F64, result));
    else
        riscv_write_x(t, o->rd, result);
}

void riscv_vector_integer(struct riscv_translation *t, const struct riscv_operands *o, enum vector_integer op,
                          enum vector_shape shape, enum vector_operand source)
{
    /* vfmv and vfmerge: integers by what they do, but not without FS, nor for widths without a float. */
    if (source == OPERAND_F && (!riscv_fp_begin(t, FP_LOOKS) || !has_float(t)))
        return;
    translate(t, o, &(struct operation){HELPER_VECTOR_INTEGER, op, vector_integer, shape, source, 0});
}

void riscv_vector_permute(struct riscv_translation *t, const struct riscv_operands *o, enum vector_permute op,
                          enum vector_shape shape, enum vector_operand source)
{
    bool up = op == VECTOR_SLIDEUP || op == VECTOR_SLIDE1UP;

    if ((source == OPERAND_F || op == VECTOR_MV_FS) &&
        (!riscv_fp_begin(t, op == VECTOR_MV_FS ? FP_CHANGES : FP_LOOKS) || !has_float(t)))
        return;
    translate(t, o, &(struct operation){HELPER_VECTOR_PERMUTE, op, vector_permute, shape, source, up ? NO_OVERLAP : 0});
}

void riscv_vector_float(struct riscv_translation *t, const struct riscv_operands *o, enum vector_float op,
                        enum vector_shape shape, enum vector_operand source)
{
    if (!riscv_fp_begin(t, FP_CHANGES))
        return;
    if (MODE_FRM(t->mode) == RISCV_FRM_INVALID) {
        riscv_translate_illegal(t);
        return;
    }
    translate(t, o, &(struct operation){HELPER_VECTOR_FLOAT, op, vector_float, shape, source, 0});
}

void riscv_vector_move(struct riscv_translation *t, const struct riscv_operands *o, unsigned registers)
{
    if (!begin(t, true))
        return;
    if (o->rd % registers || o->rs2 % registers) {
        riscv_translate_illegal(t);
        return;
    }
    ir_call(t->ir, HELPER_VECTOR_PERMUTE, ir_const(t->ir, VECTOR_MVR * 4),
            ir_const(t->ir, VECTOR_ARGS(o->rd, sew_of(t), o->rs2, 1, 0)), ir_const(t->ir, registers));
}

/* ---- memory ---- */

static void memory(struct riscv_translation *t, const struct riscv_operands *o, unsigned helper,
                   struct vector_access access, struct ir_value stride)
{
    uint64_t what = 0;

    access.reg = (uint8_t)o->rd;
    access.mmu = riscv_data_mmu(t) & 15;
    memcpy(&what, &access, sizeof(access));
    ir_call(t->ir, helper, ir_const(t->ir, what), riscv_read_x(t, o->rs1), stride);
}

/* Loads and stores with fields: the data's group, and the index's if there is one. */
void riscv_vector_elements(struct riscv_translation *t, const struct riscv_operands *o, enum vector_addressing how,
                           unsigned width, bool is_load)
{
    bool indexed = how == ACCESS_INDEXED;
    unsigned fields = o->nf + 1u, step;
    struct sources sources = {.count = 0};
    struct group data, index = {0};
    bool legal;

    if (!begin(t, true))
        return;
    data = indexed ? group_of(t, o->rd, SAME)
                   : (struct group){o->rd, (int)width, lmul_of(t) + (int)width - (int)sew_of(t)};
    step = registers_of(data);
    legal = is_group(data) && fields * step <= 8 && o->rd + fields * step <= 32;
    if (indexed) {
        index = (struct group){o->rs2, (int)width, lmul_of(t) + (int)width - (int)sew_of(t)};
        legal = legal && is_group(index);
        if (is_load && fields > 1)
            for (unsigned i = 0; i < fields; i++)
                legal = legal && !overlap((struct group){o->rd + i * step, data.width, data.emul}, index);
        else if (is_load)
            legal = legal && may_share(data, index);
    }
    if (is_load && !o->vm && o->rd == 0)
        legal = false;
    if (!o->vm)
        add_source(&sources, (struct group){0, WIDTH_MASK, 0});
    if (indexed)
        add_source(&sources, index);
    if (!is_load)
        add_source(&sources, data);
    legal = legal && read_with_one_width(&sources);
    if (!legal) {
        riscv_translate_illegal(t);
        return;
    }
    memory(t, o, is_load ? HELPER_VECTOR_LOAD : HELPER_VECTOR_STORE,
           (struct vector_access){.addressing = (uint8_t)how,
                                  .index_reg = (uint8_t)(indexed ? o->rs2 : 0),
                                  .width = (uint8_t)data.width,
                                  .index_width = (uint8_t)width,
                                  .fields = (uint8_t)fields,
                                  .registers = (uint8_t)step,
                                  .vm = o->vm & 1},
           how == ACCESS_STRIDED ? riscv_read_x(t, o->rs2) : ir_const(t->ir, (uint64_t)fields << data.width));
}

static void whole_access(struct riscv_translation *t, const struct riscv_operands *o, unsigned helper, unsigned width,
                         unsigned registers)
{
    if (!begin(t, false))
        return;
    if (o->rd % registers) {
        riscv_translate_illegal(t);
        return;
    }
    memory(t, o, helper,
           (struct vector_access){
               .addressing = ACCESS_WHOLE, .width = (uint8_t)width, .fields = (uint8_t)registers, .vm = 1},
           ir_const(t->ir, 1ull << width));
}

void riscv_vector_load_whole(struct riscv_translation *t, const struct riscv_operands *o, unsigned width,
                             unsigned registers)
{
    whole_access(t, o, HELPER_VECTOR_LOAD, width, registers);
}

void riscv_vector_store_whole(struct riscv_translation *t, const struct riscv_operands *o, unsigned registers)
{
    whole_access(t, o, HELPER_VECTOR_STORE, 0, registers);
}

static void mask_access(struct riscv_translation *t, const struct riscv_operands *o, unsigned helper)
{
    if (begin(t, true))
        memory(t, o, helper, (struct vector_access){.addressing = ACCESS_MASK, .fields = 1, .vm = 1},
               ir_const(t->ir, 1));
}

void riscv_vector_load_mask(struct riscv_translation *t, const struct riscv_operands *o)
{
    mask_access(t, o, HELPER_VECTOR_LOAD);
}

void riscv_vector_store_mask(struct riscv_translation *t, const struct riscv_operands *o)
{
    mask_access(t, o, HELPER_VECTOR_STORE);
}

/* ---- configuration ---- */

unsigned vector_setting_of(uint64_t vtype)
{
    unsigned sew = vtype >> 3 & 7;
    int lmul = (int)(vtype & 7) >= 4 ? (int)(vtype & 7) - 8 : (int)(vtype & 7);

    /* ELEN is 64, and a fraction of a register holds an element at least: SEW <= LMUL * ELEN. */
    if (vtype >> 8 || sew > 3 || lmul < -3 || (int)sew > 3 + lmul)
        return VECTOR_VILL;
    return vector_setting(sew, lmul);
}

/* The new vl. `setting` is the new one where it is known now, else -1. */
static void configure(struct riscv_translation *t, const struct riscv_operands *o, struct ir_value vtype,
                      struct ir_value avl, enum vector_avl how, int setting)
{
    struct ir_value vl = ir_call(t->ir, HELPER_VECTOR_SET, vtype, avl, ir_const(t->ir, how));

    riscv_write_x(t, o->rd, vl);
    if (setting < 0 || (unsigned)setting != MODE_VTYPE(t->mode))
        riscv_end_block(t);
}

static enum vector_avl avl_of(const struct riscv_operands *o)
{
    if (o->rs1)
        return VECTOR_AVL_GIVEN;
    return o->rd ? VECTOR_AVL_MOST : VECTOR_AVL_KEPT;
}

void riscv_vector_set_immediate(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (begin(t, false))
        configure(t, o, ir_const(t->ir, (uint64_t)o->imm), riscv_read_x(t, o->rs1), avl_of(o),
                  (int)vector_setting_of((uint64_t)o->imm));
}

void riscv_vector_set_both(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (begin(t, false))
        configure(t, o, ir_const(t->ir, (uint64_t)o->imm), ir_const(t->ir, o->rs1), VECTOR_AVL_GIVEN,
                  (int)vector_setting_of((uint64_t)o->imm));
}

void riscv_vector_set_register(struct riscv_translation *t, const struct riscv_operands *o)
{
    if (begin(t, false))
        configure(t, o, riscv_read_x(t, o->rs2), riscv_read_x(t, o->rs1), avl_of(o), -1);
}

/* ---- helpers ---- */

uint64_t riscv_help_vector_set(void *opaque, uint64_t vtype, uint64_t avl, uint64_t how)
{
    struct cpu_riscv *cpu = opaque;
    struct riscv_vector *v = &cpu->v;
    unsigned setting = vector_setting_of(vtype), old = v->setting;
    uint64_t most = 0;

    if (setting != VECTOR_VILL)
        most = vector_vlmax(vector_setting_sew(setting), vector_setting_lmul(setting));
    v->vl = how == VECTOR_AVL_MOST ? most : MIN(how == VECTOR_AVL_KEPT ? v->vl : avl, most);
    v->vtype = setting == VECTOR_VILL ? 1ull << 63 : vtype;
    v->vstart = 0;
    v->setting = (uint8_t)setting;
    if (setting != old)
        riscv_mode_changed(cpu);
    return v->vl;
}

uint64_t riscv_help_vector_dirty(void *opaque, uint64_t a, uint64_t b, uint64_t c)
{
    struct cpu_riscv *cpu = opaque;

    cpu->mstatus |= MSTATUS_VS;
    riscv_mode_changed(cpu);
    return 0;
}

uint64_t riscv_help_vector_from_start(void *opaque, uint64_t bits, uint64_t b, uint64_t c)
{
    struct cpu_riscv *cpu = opaque;

    if (cpu->v.vstart)
        riscv_raise(cpu, EXC_ILLEGAL_INSTRUCTION, bits);
    return 0;
}

uint64_t riscv_help_vector_integer(void *opaque, uint64_t row, uint64_t args, uint64_t scalar)
{
    return vector_integer[row >> 2][row & 3](&((struct cpu_riscv *)opaque)->v, args, scalar);
}

uint64_t riscv_help_vector_permute(void *opaque, uint64_t row, uint64_t args, uint64_t scalar)
{
    return vector_permute[row >> 2][row & 3](&((struct cpu_riscv *)opaque)->v, args, scalar);
}

uint64_t riscv_help_vector_float(void *opaque, uint64_t row, uint64_t args, uint64_t scalar)
{
    struct cpu_riscv *cpu = opaque;

    uint32_t host = translate_fp_enter(&cpu->tc);

    vector_float[row >> 2][row & 3](&cpu->v, args, scalar);
    translate_fp_leave(&cpu->tc, host);
    if (cpu->v.flags) {
        riscv_set_fflags(cpu, riscv_fflags(cpu) | cpu->v.flags);
        cpu->v.flags = 0;
    }
    return 0;
}
