/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating point of the evaluator: C arithmetic under the guest's rounding mode, with the host's exception flags
 * cleared before and collected after each operation. The host's own rounding mode and flags are put back. Operands pass
 * through volatile variables, so that the compiler neither folds nor moves the arithmetic.
 *
 * The guest's environment is kept in translate_cpu.mxcsr, in the layout of that x86 register, on every host: flags in
 * bits 0..5 (invalid, denormal, divide by zero, overflow, underflow, inexact), rounding in bits 13..14.
 */
#include <assert.h>
#include <fenv.h>
#include <math.h>
#include <string.h>
#include "emulator/translate/compute.h"
#include "emulator/translate/eval.h"
#include "emulator/translate/runtime.h"

/* --- The environment --- */

enum { MX_INVALID = 1, MX_DENORMAL = 2, MX_DIVZERO = 4, MX_OVERFLOW = 8, MX_UNDERFLOW = 16, MX_INEXACT = 32 };
static const uint8_t mxcsr_rounding[4] = {0 /* nearest */, 3 /* zero */, 1 /* down */, 2 /* up */};

unsigned translate_fp_flags(const struct translate_cpu *tc)
{
    uint32_t m = tc->mxcsr;
    return (m & MX_INVALID ? IR_FLAG_INVALID : 0) | (m & MX_DIVZERO ? IR_FLAG_DIVZERO : 0) |
           (m & MX_OVERFLOW ? IR_FLAG_OVERFLOW : 0) | (m & MX_UNDERFLOW ? IR_FLAG_UNDERFLOW : 0) |
           (m & MX_INEXACT ? IR_FLAG_INEXACT : 0);
}

static uint32_t mxcsr_flags(unsigned flags)
{
    return (flags & IR_FLAG_INVALID ? MX_INVALID : 0u) | (flags & IR_FLAG_DIVZERO ? MX_DIVZERO : 0u) |
           (flags & IR_FLAG_OVERFLOW ? MX_OVERFLOW : 0u) | (flags & IR_FLAG_UNDERFLOW ? MX_UNDERFLOW : 0u) |
           (flags & IR_FLAG_INEXACT ? MX_INEXACT : 0u);
}

void translate_fp_set_flags(struct translate_cpu *tc, unsigned flags)
{
    tc->mxcsr = (tc->mxcsr & ~0x3fu) | mxcsr_flags(flags);
}

void translate_fp_set_rounding(struct translate_cpu *tc, enum ir_rounding rounding)
{
    assert(rounding <= IR_ROUND_UP);
    tc->mxcsr = (tc->mxcsr & ~0x6000u) | (uint32_t)mxcsr_rounding[rounding] << 13;
}

enum ir_rounding translate_fp_rounding(const struct translate_cpu *tc)
{
    static const uint8_t rounding[4] = {IR_ROUND_NEAREST, IR_ROUND_DOWN, IR_ROUND_UP, IR_ROUND_ZERO};
    return (enum ir_rounding)rounding[tc->mxcsr >> 13 & 3];
}

#ifdef __SSE__
uint32_t translate_fp_enter(struct translate_cpu *tc)
{
    uint32_t host = __builtin_ia32_stmxcsr();

    __builtin_ia32_ldmxcsr(tc->mxcsr);
    return host;
}

void translate_fp_leave(struct translate_cpu *tc, uint32_t host)
{
    tc->mxcsr = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(host);
}
#else
uint32_t translate_fp_enter(struct translate_cpu *tc)
{
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    int host = fegetround();

    feclearexcept(FE_ALL_EXCEPT);
    fesetround(modes[translate_fp_rounding(tc)]);
    return (uint32_t)host;
}

void translate_fp_leave(struct translate_cpu *tc, uint32_t host)
{
    tc->mxcsr |= mxcsr_flags(host_flags());
    fesetround((int)host);
}
#endif

/* --- Numbers --- */

static double f64_of(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static float f32_of(uint64_t bits)
{
    float f;
    uint32_t low = (uint32_t)bits;
    memcpy(&f, &low, sizeof f);
    return f;
}

static uint64_t bits_of_f64(double d)
{
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static uint64_t bits_of_f32(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static bool is_nan(enum ir_type type, uint64_t x)
{
    return type == IR_F32 ? (x & 0x7fffffff) > 0x7f800000 : (x & INT64_MAX) > 0x7ff0000000000000;
}

static bool is_signalling(enum ir_type type, uint64_t x)
{
    return is_nan(type, x) && !(type == IR_F32 ? x >> 22 & 1 : x >> 51 & 1);
}

static uint64_t default_nan(enum ir_type type)
{
    return type == IR_F32 ? 0x7fc00000 : 0x7ff8000000000000;
}

static uint64_t quieted(enum ir_type type, uint64_t x)
{
    return type == IR_F32 ? x | 1u << 22 : x | 1ull << 51;
}

static uint64_t sign_bit(enum ir_type type)
{
    return type == IR_F32 ? 1ull << 31 : 1ull << 63;
}

/* --- Arithmetic; `extra` collects exceptions that C does not raise for us --- */

static uint64_t arithmetic64(const struct ir_op *op, uint64_t x, uint64_t y, uint64_t z)
{
    volatile double a = f64_of(x), b = f64_of(y), c = f64_of(z), r;
    switch (op->op) {
    case IR_OP_fadd: r = a + b; break;
    case IR_OP_fsub: r = a - b; break;
    case IR_OP_fmul: r = a * b; break;
    case IR_OP_fdiv: r = a / b; break;
    case IR_OP_fsqrt: r = sqrt(a); break;
    default: r = fma(a, b, c); break;
    }
    return bits_of_f64(r);
}

static uint64_t arithmetic32(const struct ir_op *op, uint64_t x, uint64_t y, uint64_t z)
{
    volatile float a = f32_of(x), b = f32_of(y), c = f32_of(z), r;
    switch (op->op) {
    case IR_OP_fadd: r = a + b; break;
    case IR_OP_fsub: r = a - b; break;
    case IR_OP_fmul: r = a * b; break;
    case IR_OP_fdiv: r = a / b; break;
    case IR_OP_fsqrt: r = sqrtf(a); break;
    default: r = fmaf(a, b, c); break;
    }
    return bits_of_f32(r);
}

static uint64_t nan_result(const struct ir_op *op, struct ir_fp fp, uint64_t x, uint64_t y, uint64_t z)
{
    unsigned operands = ir_op_info[op->op].operands;
    if (fp.nan == IR_NAN_X86) {
        if (is_nan(op->type, x))
            return quieted(op->type, x);
        if (operands > 1 && is_nan(op->type, y))
            return quieted(op->type, y);
        if (operands > 2 && is_nan(op->type, z))
            return quieted(op->type, z);
        return default_nan(op->type) | sign_bit(op->type);
    }
    return default_nan(op->type);
}

static uint64_t arithmetic(const struct ir_op *op, struct ir_fp fp, uint64_t x, uint64_t y, uint64_t z, unsigned *extra)
{
    uint64_t px = fp.negate_product ? x ^ sign_bit(op->type) : x, pz = fp.negate_c ? z ^ sign_bit(op->type) : z;
    uint64_t r = op->type == IR_F32 ? arithmetic32(op, px, y, pz) : arithmetic64(op, px, y, pz);
    /* Infinity times zero plus a quiet NaN: IEEE leaves invalid to the implementation; x86's FMA does not raise it and
     * neither does C's fma(), RISC-V requires it. */
    bool zero_times_infinity = false;
    if (op->op == IR_OP_fma) {
        uint64_t ax = x & ~sign_bit(op->type), ay = y & ~sign_bit(op->type);
        uint64_t infinity = op->type == IR_F32 ? 0x7f800000 : 0x7ff0000000000000;
        if (op->type == IR_F32) {
            ax &= UINT32_MAX;
            ay &= UINT32_MAX;
        }
        zero_times_infinity = (ax == 0 && ay == infinity) || (ax == infinity && ay == 0);
    }
    if (zero_times_infinity && fp.nan == IR_NAN_DEFAULT)
        *extra |= IR_FLAG_INVALID;
    return is_nan(op->type, r) ? nan_result(op, fp, x, y, z) : r;
}

static bool less(enum ir_type type, uint64_t x, uint64_t y)
{
    return type == IR_F32 ? f32_of(x) < f32_of(y) : f64_of(x) < f64_of(y);
}

static uint64_t smaller_or_larger(const struct ir_op *op, uint64_t x, uint64_t y, unsigned *extra)
{
    enum ir_type type = op->type;
    if (is_signalling(type, x) || is_signalling(type, y))
        *extra |= IR_FLAG_INVALID;
    if (is_nan(type, x))
        return is_nan(type, y) ? default_nan(type) : y;
    if (is_nan(type, y))
        return x;
    bool x_first = less(type, x, y) || (!less(type, y, x) && (x & sign_bit(type))); /* -0 before +0 */
    return (op->op == IR_OP_fmin) == x_first ? x : y;
}

static uint64_t compare(enum ir_type type, struct ir_fp fp, uint64_t x, uint64_t y, unsigned *extra)
{
    bool signals = fp.cond == IR_FLT_S || fp.cond == IR_FLE_S;
    if (is_signalling(type, x) || is_signalling(type, y) || (signals && (is_nan(type, x) || is_nan(type, y))))
        *extra |= IR_FLAG_INVALID;
    if (is_nan(type, x) || is_nan(type, y))
        return fp.cond == IR_FUNORDERED_Q;
    switch (fp.cond) {
    case IR_FEQ_Q: return !less(type, x, y) && !less(type, y, x);
    case IR_FLT_S:
    case IR_FLT_Q: return less(type, x, y);
    case IR_FLE_S:
    case IR_FLE_Q: return !less(type, y, x);
    default: return 0;
    }
}

/* --- Conversions --- */

static uint64_t to_integer(const struct ir_op *op, struct ir_fp fp, uint64_t x, unsigned *extra)
{
    unsigned bits = op->type == IR_I32 ? 32 : 64;
    volatile double a = fp.other == IR_F32 ? f32_of(x) : f64_of(x);
    uint64_t largest = fp.is_unsigned ? UINT64_MAX >> (64 - bits) : UINT64_MAX >> (65 - bits);
    uint64_t smallest = fp.is_unsigned ? 0 : ~largest;
    if (is_nan(fp.other, x)) {
        *extra |= IR_FLAG_INVALID;
        return ir_extend(largest, bits, false);
    }
    double r = nearbyint(a); /* under the operation's rounding; raises nothing */
    double limit = ldexp(1.0, (int)bits - !fp.is_unsigned), floor_of = fp.is_unsigned ? 0.0 : -limit;
    if (r >= limit || r < floor_of) {
        *extra |= IR_FLAG_INVALID;
        return ir_extend(r < 0 ? smallest : largest, bits, false);
    }
    if (r != a)
        *extra |= IR_FLAG_INEXACT;
    return ir_extend(fp.is_unsigned ? (uint64_t)r : (uint64_t)(int64_t)r, bits, false);
}

static uint64_t from_integer(const struct ir_op *op, struct ir_fp fp, uint64_t x)
{
    x = ir_extend(x, fp.other == IR_I32 ? 32 : 64, !fp.is_unsigned);
    volatile uint64_t u = x;
    volatile int64_t s = (int64_t)x;
    if (op->type == IR_F32) {
        volatile float r = fp.is_unsigned ? (float)u : (float)s;
        return bits_of_f32(r);
    }
    volatile double r = fp.is_unsigned ? (double)u : (double)s;
    return bits_of_f64(r);
}

/* The compiler's way to convert an unsigned number of 64 bits halves it first (keeping the lost bit), which is right in
 * every rounding mode except for zero: 0 + 0 rounds to -0 downwards in some sequences. Be explicit. */
static uint64_t from_unsigned(const struct ir_op *op, struct ir_fp fp, uint64_t x)
{
    if (!fp.is_unsigned || fp.other == IR_I32 || x <= INT64_MAX) {
        struct ir_fp as_signed = fp;
        if (fp.is_unsigned && fp.other == IR_I32)
            x = (uint32_t)x;
        as_signed.is_unsigned = false;
        as_signed.other = fp.is_unsigned ? IR_I64 : fp.other;
        return from_integer(op, as_signed, x);
    }
    fp.is_unsigned = false;
    uint64_t half = from_integer(op, fp, x >> 1 | (x & 1));
    return half + (op->type == IR_F32 ? 1ull << 23 : 1ull << 52); /* times two: the exponent cannot overflow */
}

static uint64_t convert(const struct ir_op *op, struct ir_fp fp, uint64_t x, unsigned *extra)
{
    if (is_nan(fp.other, x)) {
        if (is_signalling(fp.other, x))
            *extra |= IR_FLAG_INVALID;
        if (fp.nan == IR_NAN_DEFAULT)
            return default_nan(op->type);
    }
    if (op->type == IR_F32) {
        volatile double a = f64_of(x);
        volatile float r = (float)a;
        return bits_of_f32(r);
    }
    volatile float a = f32_of(x);
    volatile double r = a;
    return bits_of_f64(r);
}

/* --- One operation --- */

static void set_host_rounding(enum ir_rounding rounding)
{
    static const int host[4] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    fesetround(host[rounding & 3]);
}

static unsigned host_flags(void)
{
    int raised = fetestexcept(FE_ALL_EXCEPT);
    return (raised & FE_INVALID ? IR_FLAG_INVALID : 0) | (raised & FE_DIVBYZERO ? IR_FLAG_DIVZERO : 0) |
           (raised & FE_OVERFLOW ? IR_FLAG_OVERFLOW : 0) | (raised & FE_UNDERFLOW ? IR_FLAG_UNDERFLOW : 0) |
           (raised & FE_INEXACT ? IR_FLAG_INEXACT : 0);
}

void ir_evaluate_fp(struct translate_cpu *tc, const struct ir_block *b, const struct ir_op *op, union ir_number *result,
                    const union ir_number *x, const union ir_number *y, const union ir_number *z)
{
    struct ir_fp fp;
    memcpy(&fp, &op->imm, sizeof fp);
    unsigned extra = 0;
    bool host_raises = true; /* comparisons above use C's operators only for their answer */
    fenv_t saved;
    feholdexcept(&saved);
    set_host_rounding(fp.round == IR_ROUND_DYNAMIC ? translate_fp_rounding(tc) : fp.round);
    switch (op->op) {
    case IR_OP_fmin:
    case IR_OP_fmax:
        result->i = smaller_or_larger(op, x->i, y->i, &extra);
        host_raises = false;
        break;
    case IR_OP_fcmp:
        result->i = compare(op->type, fp, x->i, y->i, &extra);
        host_raises = false;
        break;
    case IR_OP_f_to_i:
        result->i = to_integer(op, fp, x->i, &extra);
        host_raises = false;
        break;
    case IR_OP_i_to_f: result->i = from_unsigned(op, fp, x->i); break;
    case IR_OP_f_to_f: result->i = convert(op, fp, x->i, &extra); break;
    default: result->i = arithmetic(op, fp, x->i, y->i, z->i, &extra);
    }
    if (op->type == IR_F32)
        result->i = (uint32_t)result->i;
    unsigned raised = extra | (host_raises ? host_flags() : 0);
    fesetenv(&saved);
    tc->mxcsr |= mxcsr_flags(raised);
}
