/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random instructions of the toy guest: every kind of operation, on operands that hit corner cases often, faults and
 * devices now and then. The same seed builds the same IR.
 */
#ifndef TESTS_RANDOM_IR_H
#define TESTS_RANDOM_IR_H

#include "tests/unit/emulator/translate/toy_guest.h"

struct random {
    uint64_t s;
};

static inline uint64_t next(struct random *r)
{
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return r->s * 0x2545f4914f6cdd1d;
}

static inline unsigned below(struct random *r, unsigned n)
{
    return (unsigned)((next(r) >> 33) % n);
}

static inline uint64_t interesting(struct random *r)
{
    static const uint64_t some[] = {0,
                                    1,
                                    2,
                                    7,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    0xffffffffffffffff,
                                    0xffffffff80000000};
    switch (below(r, 4)) {
    case 0: return some[below(r, sizeof some / sizeof some[0])];
    case 1: return (uint64_t)(int64_t)(int8_t)next(r);
    case 2: return (uint32_t)next(r);
    default: return next(r);
    }
}

static inline uint64_t interesting_f64(struct random *r)
{
    static const uint64_t some[] = {0,
                                    0x8000000000000000,
                                    0x3ff0000000000000,
                                    0xbff0000000000000,
                                    0x7ff0000000000000,
                                    0xfff0000000000000,
                                    0x7ff8000000000000,
                                    0x7ff0000000000001,
                                    0xfff8000000000123,
                                    0x0010000000000000,
                                    0x000fffffffffffff,
                                    0x0000000000000001,
                                    0x7fefffffffffffff,
                                    0x41dfffffffc00000,
                                    0x41e0000000000000,
                                    0xc1e0000000200000,
                                    0x43e0000000000000,
                                    0xc3e0000000000000,
                                    0x41efffffffe80000,
                                    0xbfe0000000000000,
                                    0x43f0000000000000,
                                    0xffffffff3f800000,
                                    0xffffffff7f800001,
                                    0xffffffff7fc00000,
                                    0xffffffff80000000,
                                    0xffffffff00000000,
                                    0xffffffff00000001,
                                    0xffffffff7f7fffff,
                                    0xffffffff4f000000,
                                    0xffffffffcf000000,
                                    0xffffffff5f000000,
                                    0xffffffff7f800000,
                                    0xffffffffff800000};
    switch (below(r, 5)) {
    case 0:
    case 1: return some[below(r, sizeof some / sizeof some[0])];
    case 2: return 0xffffffff00000000 | (uint32_t)next(r);
    case 3: { /* an ordinary number */
        double d = (double)(int64_t)next(r) / (double)(1ull << below(r, 63));
        uint64_t bits;
        memcpy(&bits, &d, sizeof bits);
        return bits;
    }
    default: return next(r);
    }
}

/* --- Random IR --- */

struct pool {
    struct ir_block *b;
    struct random r;
    struct ir_value i64[32], i32[8], f64[8], f32[8], v128[4], v256[4];
    unsigned i64s, i32s, f64s, f32s, v128s, v256s;
    unsigned kinds; /* 0 integer, 1 and memory, 2 and floating point, 3 and vectors */
};

#define PICK(name, fallback)                                                                                           \
    static inline struct ir_value name(struct pool *p)                                                                 \
    {                                                                                                                  \
        return p->name##s && below(&p->r, 3) ? p->name[below(&p->r, p->name##s)] : (fallback);                         \
    }                                                                                                                  \
    static inline void add_##name(struct pool *p, struct ir_value v)                                                   \
    {                                                                                                                  \
        unsigned max = sizeof p->name / sizeof p->name[0];                                                             \
        if (p->name##s < max)                                                                                          \
            p->name[p->name##s++] = v;                                                                                 \
        else                                                                                                           \
            p->name[below(&p->r, max)] = v;                                                                            \
    }

static inline struct ir_value leaf64(struct pool *p)
{
    return below(&p->r, 4) ? ir_get(p->b, TOY_X + below(&p->r, 24)) : ir_const(p->b, interesting(&p->r));
}
PICK(i64, leaf64(p))
static inline struct ir_value leaf32(struct pool *p)
{
    return below(&p->r, 2) ? ir_get(p->b, TOY_W) : ir_add32(p->b, i64(p), i64(p));
}
PICK(i32, leaf32(p))
PICK(f64, ir_get_as(p->b, TOY_F + below(&p->r, 8), IR_F64))
PICK(f32, ir_unbox(p->b, ir_get(p->b, TOY_F + 8 + below(&p->r, 8))))
PICK(v128, ir_get(p->b, TOY_V + below(&p->r, 3)))
PICK(v256, ir_get(p->b, TOY_V + 3 + below(&p->r, 3)))

static inline void random_integer(struct pool *p)
{
    static const uint8_t ops[] = {IR_OP_add,    IR_OP_add,     IR_OP_sub,   IR_OP_mul,   IR_OP_mulh_s,
                                  IR_OP_mulh_u, IR_OP_mulh_su, IR_OP_and,   IR_OP_or,    IR_OP_xor,
                                  IR_OP_andn,   IR_OP_shl,     IR_OP_shr,   IR_OP_sar,   IR_OP_rotl,
                                  IR_OP_rotr,   IR_OP_min_s,   IR_OP_max_s, IR_OP_min_u, IR_OP_max_u};
    static const uint8_t unary[] = {IR_OP_clz, IR_OP_ctz, IR_OP_popcount, IR_OP_bswap};
    struct ir_block *b = p->b;
    struct random *r = &p->r;
    switch (below(r, 12)) {
    case 0: add_i64(p, ir_set(b, below(r, IR_CONDS), i64(p), i64(p))); break;
    case 1: add_i64(p, ir_set32(b, below(r, IR_CONDS), i64(p), i32(p))); break;
    case 2:
        add_i64(p, ir_select(b, below(r, 2) ? i64(p) : ir_set(b, below(r, IR_CONDS), i64(p), i64(p)), i64(p), i64(p)));
        break;
    case 3:
        add_i64(p, below(r, 2) ? ir_sext(b, i64(p), 8u << below(r, 3)) : ir_zext(b, i64(p), 8u << below(r, 3)));
        break;
    case 4: add_i64(p, below(r, 2) ? ir_sext(b, i32(p), 32) : ir_zext(b, i32(p), 32)); break;
    case 5: add_i64(p, ir_divide(b, IR_OP_div_s + below(r, 4), IR_I64, i64(p), i64(p), below(r, 2))); break;
    case 6:
        add_i64(p, ir_sext(b, ir_divide(b, IR_OP_div_s + below(r, 4), IR_I32, i64(p), i32(p), below(r, 2)), 32));
        break;
    case 7: add_i64(p, ir_unary(b, unary[below(r, 4)], IR_I64, i64(p))); break;
    case 8: add_i32(p, ir_unary(b, unary[below(r, 4)], IR_I32, i64(p))); break;
    case 9: add_i32(p, ir_binary(b, ops[below(r, sizeof ops)], IR_I32, i64(p), i32(p))); break;
    default: add_i64(p, ir_binary(b, ops[below(r, sizeof ops)], IR_I64, i64(p), i64(p)));
    }
}

static inline struct ir_value random_address(struct pool *p)
{
    struct ir_block *b = p->b;
    struct ir_value offset = ir_and(b, i64(p), ir_const(b, below(&p->r, 8) ? 0x7fff8 : 0x7ffff));
    struct ir_value a = ir_add(b, offset, ir_const(b, TOY_RAM + 0x10000));
    switch (below(&p->r, 64)) {
    case 0: a = ir_const(b, TOY_DEVICE + 8 * below(&p->r, 64)); break;
    case 1: a = ir_const(b, 0x70000000); break;
    case 2: a = i64(p); break;
    default: break;
    }
    return below(&p->r, 2) ? ir_add(b, a, ir_const(b, (uint64_t)(int64_t)(int8_t)next(&p->r))) : a;
}

static inline void random_structure(struct pool *p);
static inline void random_memory(struct pool *p)
{
    struct ir_block *b = p->b;
    struct random *r = &p->r;
    struct ir_mem mem = {
        .size = below(r, 4), .is_signed = below(r, 2), .big_endian = below(r, 8) == 0, .mmu = below(r, 2)};
    mem.align = below(r, 4) == 0;
    struct ir_mem atomic = {
        .size = below(r, 6) ? 2 + below(r, 2) : below(r, 4), .is_signed = true, .align = below(r, 8) != 0};
    switch (below(r, 14)) {
    case 12:
    case 13: random_structure(p); break;
    case 0: add_i64(p, ir_amo(b, below(r, 9), random_address(p), i64(p), atomic)); break;
    case 1: ir_amo(b, below(r, 9), random_address(p), i64(p), atomic); break;
    case 2: add_i64(p, ir_cmpxchg(b, random_address(p), i64(p), i64(p), atomic)); break;
    case 3: {
        struct ir_value a = random_address(p), v = ir_load_reserved(b, a, atomic);
        add_i64(p, ir_store_conditional(b, below(r, 4) ? a : random_address(p), ir_add(b, v, i64(p)), atomic));
        break;
    }
    case 4: ir_fence(b, below(r, 16)); break;
    case 5:
    case 6:
    case 7: ir_store(b, random_address(p), i64(p), mem); break;
    default: add_i64(p, ir_load(b, random_address(p), mem));
    }
}

/* Several accesses at one base, as of a structure or a stack frame; sometimes across the end of a page. */
static inline void random_structure(struct pool *p)
{
    struct ir_block *b = p->b;
    struct random *r = &p->r;
    struct ir_value base = random_address(p);
    if (below(r, 3) == 0)
        base = ir_or(b, base, ir_const(b, 0xf80));
    for (unsigned n = 2 + below(r, 6); n > 0; n--) {
        struct ir_value a = ir_add(b, base, ir_const(b, (uint64_t)(int64_t)((int8_t)next(r) * (below(r, 8) ? 1 : 9))));
        struct ir_mem mem = {.size = below(r, 4), .is_signed = below(r, 2), .mmu = below(r, 16) == 0};
        if (below(r, 3))
            add_i64(p, ir_load(b, a, mem));
        else
            ir_store(b, a, i64(p), mem);
        if (below(r, 3) == 0)
            ir_put(b, TOY_X + below(r, 24), i64(p));
        if (below(r, 4) == 0)
            random_integer(p);
    }
}

static inline void random_call(struct pool *p)
{
    switch (below(&p->r, 3)) {
    case 0: add_i64(p, ir_call(p->b, TOY_HELP_MIX, i64(p), i64(p), i64(p))); break;
    case 1: add_i64(p, ir_call(p->b, TOY_HELP_SLOTS, i64(p), (struct ir_value){0}, (struct ir_value){0})); break;
    default: {
        struct ir_value a = below(&p->r, 8) ? ir_and(p->b, i64(p), ir_const(p->b, ~1ull)) : i64(p);
        add_i64(p, ir_call(p->b, TOY_HELP_FAULT, a, i64(p), (struct ir_value){0}));
    }
    }
}

static inline void random_fp(struct pool *p, bool f64_type)
{
    static const uint8_t ops[] = {IR_OP_fadd, IR_OP_fsub, IR_OP_fmul, IR_OP_fdiv, IR_OP_fmin, IR_OP_fmax};
    struct ir_block *b = p->b;
    struct random *r = &p->r;
    enum ir_type type = f64_type ? IR_F64 : IR_F32;
    struct ir_value (*pick)(struct pool *) = f64_type ? f64 : f32;
    void (*add)(struct pool *, struct ir_value) = f64_type ? add_f64 : add_f32;
    struct ir_fp fp = {.round = below(r, 3) ? IR_ROUND_DYNAMIC : below(r, 4)};
    struct ir_mem mem = {.size = f64_type ? 3 : 2};
    switch (below(r, 14)) {
    case 0: add(p, ir_fsqrt(b, type, pick(p), fp)); break;
    case 1:
        fp.negate_product = below(r, 2);
        fp.negate_c = below(r, 2);
        add(p, ir_fma(b, type, pick(p), pick(p), pick(p), fp));
        break;
    case 2: add_i64(p, ir_fcmp(b, below(r, 6), type, pick(p), pick(p))); break;
    case 3: {
        bool wide = below(r, 2);
        struct ir_value v = ir_f_to_i(b, wide ? IR_I64 : IR_I32, below(r, 2), type, pick(p), fp);
        add_i64(p, wide ? v : ir_sext(b, v, 32));
        break;
    }
    case 4:
        add(p, below(r, 2) ? ir_i_to_f(b, type, IR_I64, below(r, 2), i64(p), fp)
                           : ir_i_to_f(b, type, IR_I32, below(r, 2), i64(p), fp));
        break;
    case 5: add_f32(p, ir_f_to_f(b, IR_F32, IR_F64, f64(p), fp)); break;
    case 6: add_f64(p, ir_f_to_f(b, IR_F64, IR_F32, f32(p), fp)); break;
    case 7: add(p, ir_load_as(b, type, random_address(p), mem)); break;
    case 8: ir_store(b, random_address(p), pick(p), mem); break;
    case 9:
        if (f64_type)
            add_f64(p, ir_bits(b, IR_F64, i64(p)));
        else
            add_f32(p, ir_bits(b, IR_F32, i64(p)));
        break;
    case 10: add_i64(p, f64_type ? ir_bits(b, IR_I64, f64(p)) : ir_sext(b, ir_bits(b, IR_I32, f32(p)), 32)); break;
    case 11:
        if (below(r, 4) == 0)
            ir_fp_set_rounding(b, ir_and(b, i64(p), ir_const(b, 3)));
        else if (below(r, 4) == 0)
            ir_fp_set_flags(b, ir_and(b, i64(p), ir_const(b, 31)));
        else
            add_i64(p, ir_fp_flags(b));
        break;
    default: add(p, ir_fp2(b, ops[below(r, sizeof ops)], type, pick(p), pick(p), fp));
    }
}

static inline void random_vector(struct pool *p)
{
    struct ir_block *b = p->b;
    struct random *r = &p->r;
    bool wide = below(r, 2);
    enum ir_type type = wide ? IR_V256 : IR_V128;
    struct ir_value x = wide ? v256(p) : v128(p), y = wide ? v256(p) : v128(p), z;
    struct ir_mem mem = {.size = wide ? 5 : 4};
    switch (below(r, 5)) {
    case 0: z = ir_load_as(b, type, random_address(p), mem); break;
    case 1: z = ir_vsplat(b, type, below(r, 4), i64(p)); break;
    case 2: ir_store(b, random_address(p), x, mem); return;
    default: z = ir_vector2(b, IR_OP_vadd + below(r, 5), type, below(r, 4), x, y);
    }
    if (wide)
        add_v256(p, z);
    else
        add_v128(p, z);
}

static inline void random_put(struct pool *p)
{
    struct random *r = &p->r;
    switch (below(r, p->kinds >= 2 ? 8 : 5)) {
    case 5: ir_put(p->b, TOY_F + below(r, 8), f64(p)); break;
    case 6: ir_put(p->b, TOY_F + 8 + below(r, 8), ir_box(p->b, f32(p))); break;
    case 7:
        if (p->kinds < 3)
            break;
        if (below(r, 2))
            ir_put(p->b, TOY_V + below(r, 3), v128(p));
        else
            ir_put(p->b, TOY_V + 3 + below(r, 3), v256(p));
        break;
    case 0: ir_put(p->b, below(r, 2) ? TOY_B : TOY_W, below(r, 2) ? i64(p) : i32(p)); break;
    default: ir_put(p->b, TOY_X + below(r, 24), i64(p));
    }
}

struct plan {
    uint64_t seed;
    unsigned kinds;
};

static inline bool build_random(struct translate_block *t, struct toy *toy, uint64_t pc, unsigned argument)
{
    const struct plan *plan = toy->test;
    struct pool p = {.b = t->ir, .r = {plan->seed + argument * 0x9e3779b97f4a7c15ull + 1}, .kinds = plan->kinds};
    unsigned steps = 1 + below(&p.r, 14);
    next(&p.r);
    for (unsigned i = 0; i < steps && !ir_is_full(t->ir); i++) {
        unsigned what = below(&p.r, 10);
        if (what < 3)
            random_put(&p);
        else if (what < 5 || p.kinds == 0)
            random_integer(&p);
        else if (what == 5)
            random_call(&p);
        else if (what == 6 || p.kinds == 1)
            random_memory(&p);
        else if (what < 9 || p.kinds == 2)
            random_fp(&p, below(&p.r, 2));
        else
            random_vector(&p);
        if (below(&p.r, 40) == 0)
            ir_exit_if(t->ir, ir_set(t->ir, below(&p.r, IR_CONDS), i64(&p), i64(&p)),
                       TOY_RAM + 4 * (argument + 1 + below(&p.r, 8 - argument)));
    }
    return true;
}

#endif
