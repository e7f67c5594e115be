/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chapters "Vector Floating-Point" and the reductions of it, for singles and doubles. float_width.h is the body.
 *
 * Sums, products, quotients, roots and widening are the host's, in the guest's rounding mode; a NaN result becomes the
 * default NaN. Software (emulator/float) does the rest: rounding to nearest with ties away, which no host has, minima,
 * conversions to integers, and a fused multiply-add whose result is a NaN, since hosts differ in whether 0 * inf + qNaN
 * is invalid.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>
#include "emulator/cpu/riscv/vector/loops.h"
#include "emulator/float/float.h"

typedef float __attribute__((may_alias)) vector_f32;
typedef double __attribute__((may_alias)) vector_f64;

static inline struct float_status software(const struct riscv_vector *v)
{
    return (struct float_status){.policy = &float_policy_riscv, .rounding = (enum float_rounding)v->frm};
}

static inline bool in_software(const struct riscv_vector *v)
{
    return v->frm == FLOAT_ROUND_NEAREST_AWAY;
}

#define BITS_OF(bits)                                                                                                  \
    static inline uint##bits##_t bits_of_##bits(vector_f##bits value)                                                  \
    {                                                                                                                  \
        uint##bits##_t result;                                                                                         \
        memcpy(&result, &value, sizeof(result));                                                                       \
        return result;                                                                                                 \
    }                                                                                                                  \
    static inline vector_f##bits float_of_##bits(uint##bits##_t value)                                                 \
    {                                                                                                                  \
        vector_f##bits result;                                                                                         \
        memcpy(&result, &value, sizeof(result));                                                                       \
        return result;                                                                                                 \
    }
BITS_OF(32)
BITS_OF(64)

/* ---- estimates of seven bits: the tables of the manual are the nearest numbers of the middles of the intervals ----
 */

/* 2 / (1 + (i + 1/2) / 128) - 1 in units of 1/128. */
static unsigned reciprocal_7(unsigned index)
{
    unsigned divisor = 257 + 2 * index;
    return (2 * 65536 + divisor) / (2 * divisor) - 128;
}

/* 2 / sqrt(x) - 1 in units of 1/128, x = 1 + (i + 1/2) / 64 of the low six bits, doubled when the seventh is 0. */
static unsigned reciprocal_root_7(unsigned index)
{
    unsigned square = (129 + 2 * (index & 63)) * (index & 64 ? 1 : 2), root = 128;

    /* The nearest integer to 256 * sqrt(128 / square). */
    while ((2 * root + 1) * (2 * root + 1) * (uint64_t)square < 4ull * 65536 * 128)
        root++;
    return root - 128;
}

struct float_shape {
    unsigned exponent_bits, fraction_bits;
};

/* A subnormal becomes a fraction with a leading one and an exponent of 0 or less. */
static int64_t normalize(struct float_shape shape, int64_t exponent, uint64_t *fraction)
{
    if (exponent)
        return exponent;
    while (!(*fraction >> (shape.fraction_bits - 1) & 1)) {
        *fraction <<= 1;
        exponent--;
    }
    *fraction = *fraction << 1 & ((1ull << shape.fraction_bits) - 1);
    return exponent;
}

static uint64_t estimate_root(struct float_shape shape, uint64_t bits)
{
    int64_t bias = (1ll << (shape.exponent_bits - 1)) - 1, exponent = (int64_t)(bits >> shape.fraction_bits);
    uint64_t fraction = bits & ((1ull << shape.fraction_bits) - 1);

    exponent = normalize(shape, exponent, &fraction);
    unsigned index = (unsigned)((exponent & 1) << 6 | fraction >> (shape.fraction_bits - 6));
    int64_t result = (3 * bias - 1 - exponent) >> 1;
    return (uint64_t)result << shape.fraction_bits | (uint64_t)reciprocal_root_7(index) << (shape.fraction_bits - 7);
}

/* Of a positive number; false: it overflows. */
static bool estimate_reciprocal(struct float_shape shape, uint64_t bits, uint64_t *out)
{
    int64_t bias = (1ll << (shape.exponent_bits - 1)) - 1, exponent = (int64_t)(bits >> shape.fraction_bits);
    uint64_t fraction = bits & ((1ull << shape.fraction_bits) - 1), result_fraction;

    exponent = normalize(shape, exponent, &fraction);
    if (exponent < -1)
        return false;
    int64_t result = 2 * bias - 1 - exponent;
    result_fraction = (uint64_t)reciprocal_7((unsigned)(fraction >> (shape.fraction_bits - 7)))
                      << (shape.fraction_bits - 7);
    if (result <= 0) { /* subnormal: the leading one becomes visible */
        result_fraction = (result_fraction >> 1 | 1ull << (shape.fraction_bits - 1)) >> -result;
        result = 0;
    }
    *out = (uint64_t)result << shape.fraction_bits | result_fraction;
    return true;
}

/* ---- both widths ---- */

#define BITS 32
#define WIDE 64
#define HALF 16
#define SHAPE ((struct float_shape){8, 23})
#define DEFAULT_NAN 0x7fc00000u
#include "emulator/cpu/riscv/vector/float_width.h"
#undef BITS
#undef WIDE
#undef HALF
#undef SHAPE
#undef DEFAULT_NAN
#define BITS 64
#define HALF 32
#define SHAPE ((struct float_shape){11, 52})
#define DEFAULT_NAN 0x7ff8000000000000ull
#include "emulator/cpu/riscv/vector/float_width.h"

#define BOTH(name) [VECTOR_##name] = {NULL, NULL, name##_32, name##_64}
#define ONLY_32(name) [VECTOR_##name] = {NULL, NULL, name##_32, NULL}
#define TWO(name) BOTH(name##_VV), BOTH(name##_VX)
#define WIDENING(name) ONLY_32(name##_VV), ONLY_32(name##_VX)
/* Between floats and integers of half their width: named after the float, listed by the narrow width. */
#define HALVES(name) [VECTOR_##name] = {NULL, name##_32, name##_64, NULL}

vector_row vector_float[VECTOR_FLOAT_COUNT] = {
    TWO(FADD),
    TWO(FSUB),
    TWO(FMUL),
    TWO(FDIV),
    TWO(FMIN),
    TWO(FMAX),
    TWO(FSGNJ),
    TWO(FSGNJN),
    TWO(FSGNJX),
    TWO(FMACC),
    TWO(FNMACC),
    TWO(FMSAC),
    TWO(FNMSAC),
    TWO(FMADD),
    TWO(FNMADD),
    TWO(FMSUB),
    TWO(FNMSUB),
    TWO(MFEQ),
    TWO(MFNE),
    TWO(MFLT),
    TWO(MFLE),
    WIDENING(FWADD),
    WIDENING(FWSUB),
    WIDENING(FWADD_W),
    WIDENING(FWSUB_W),
    WIDENING(FWMUL),
    WIDENING(FWMACC),
    WIDENING(FWNMACC),
    WIDENING(FWMSAC),
    WIDENING(FWNMSAC),
    BOTH(FRSUB_VF),
    BOTH(FRDIV_VF),
    BOTH(MFGT_VF),
    BOTH(MFGE_VF),
    BOTH(FSQRT),
    BOTH(FRSQRT7),
    BOTH(FREC7),
    BOTH(FCLASS),
    BOTH(FCVT_XU_F),
    BOTH(FCVT_X_F),
    BOTH(FCVT_F_XU),
    BOTH(FCVT_F_X),
    BOTH(FCVT_RTZ_XU_F),
    BOTH(FCVT_RTZ_X_F),
    ONLY_32(FWCVT_XU_F),
    ONLY_32(FWCVT_X_F),
    ONLY_32(FWCVT_RTZ_XU_F),
    ONLY_32(FWCVT_RTZ_X_F),
    ONLY_32(FWCVT_F_F),
    HALVES(FWCVT_F_XU),
    HALVES(FWCVT_F_X),
    HALVES(FNCVT_XU_F),
    HALVES(FNCVT_X_F),
    HALVES(FNCVT_RTZ_XU_F),
    HALVES(FNCVT_RTZ_X_F),
    ONLY_32(FNCVT_F_XU),
    ONLY_32(FNCVT_F_X),
    ONLY_32(FNCVT_F_F),
    ONLY_32(FNCVT_ROD_F_F),
    BOTH(FREDUSUM),
    BOTH(FREDOSUM),
    BOTH(FREDMIN),
    BOTH(FREDMAX),
    ONLY_32(FWREDUSUM),
    ONLY_32(FWREDOSUM),
};
