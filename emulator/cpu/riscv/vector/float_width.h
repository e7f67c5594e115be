/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floating-point operations on elements of BITS bits; HALF is the integer width below, WIDE the float above where there
 * is one. Included by float.c only. In expressions a is vs2's element, b vs1's or the scalar, c the old one of vd.
 */
#define F VECTOR_PASTE(vector_f, BITS)
#define U VECTOR_PASTE(vector_u, BITS)
#define S VECTOR_PASTE(vector_s, BITS)
#define UH VECTOR_PASTE(vector_u, HALF)
#define SH VECTOR_PASTE(vector_s, HALF)
#define NAME(op) VECTOR_PASTE(op##_, BITS)
#define SOFT3(f, bits, op) f##bits##_##op
#define SOFT2(bits, op) SOFT3(f, bits, op)
#define SOFT(op) SOFT2(BITS, op) /* f32_add ... */
#define BITS_OF_F VECTOR_PASTE(bits_of_, BITS)
#define F_OF_BITS VECTOR_PASTE(float_of_, BITS)
#if BITS == 32
#define FMA fmaf
#define SQRT sqrtf
#else
#define FMA fma
#define SQRT sqrt
#endif
#define DEFINE(op) static uint64_t NAME(op)(struct riscv_vector * v, uint64_t args, uint64_t scalar)
#define VD ((U *)vector_register(v, VECTOR_VD(args)))
#define VS1 ((const U *)vector_register(v, VECTOR_VS1(args)))
#define VS2 ((const U *)vector_register(v, VECTOR_VS2(args)))

/* A single in an f register that is not NaN-boxed is the default NaN. */
#if BITS == 32
#define SCALAR (scalar >> 32 == 0xffffffff ? (U)scalar : DEFAULT_NAN)
#else
#define SCALAR scalar
#endif

static inline U NAME(canonical)(F value)
{
    return value != value ? DEFAULT_NAN : BITS_OF_F(value);
}
#define CANONICAL NAME(canonical)

/* `host` of floats x, y (of a, b), or `soft` of bits with `status`. */
#define ARITHMETIC_LOOP(host, soft)                                                                                    \
    if (in_software(v)) {                                                                                              \
        struct float_status status = software(v);                                                                      \
        for (uint64_t i = v->vstart; i < v->vl; i++) {                                                                 \
            if (VECTOR_VM(args) || vector_mask_bit(v->reg, i)) {                                                       \
                U a = from[i], b = WITH;                                                                               \
                to[i] = soft;                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
        v->flags |= status.flags;                                                                                      \
        v->vstart = 0;                                                                                                 \
        return 0;                                                                                                      \
    }                                                                                                                  \
    VECTOR_EACH(F x = F_OF_BITS(from[i]); F y = F_OF_BITS(WITH); to[i] = CANONICAL(host);)

#define ARITHMETIC(op, host, soft)                                                                                     \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const U *from = VS2, *with = VS1;                                                                              \
        ARITHMETIC_LOOP(host, soft)                                                                                    \
    }
#define WITH with[i]
ARITHMETIC(FADD, x + y, SOFT(add)(a, b, &status))
ARITHMETIC(FSUB, x - y, SOFT(sub)(a, b, &status))
ARITHMETIC(FMUL, x *y, SOFT(mul)(a, b, &status))
ARITHMETIC(FDIV, x / y, SOFT(div)(a, b, &status))
#undef WITH
#undef ARITHMETIC
#define ARITHMETIC(op, host, soft)                                                                                     \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        U *to = VD, with = SCALAR;                                                                                     \
        const U *from = VS2;                                                                                           \
        ARITHMETIC_LOOP(host, soft)                                                                                    \
    }
#define WITH with
ARITHMETIC(FADD_VX, x + y, SOFT(add)(a, b, &status))
ARITHMETIC(FSUB_VX, x - y, SOFT(sub)(a, b, &status))
ARITHMETIC(FMUL_VX, x *y, SOFT(mul)(a, b, &status))
ARITHMETIC(FDIV_VX, x / y, SOFT(div)(a, b, &status))
ARITHMETIC(FRSUB_VF, y - x, SOFT(sub)(b, a, &status))
ARITHMETIC(FRDIV_VF, y / x, SOFT(div)(b, a, &status))
#undef WITH
#undef ARITHMETIC
#undef ARITHMETIC_LOOP

DEFINE(FSQRT)
{
    U *to = VD;
    const U *from = VS2;

    if (in_software(v)) {
        struct float_status status = software(v);
        for (uint64_t i = v->vstart; i < v->vl; i++)
            if (VECTOR_VM(args) || vector_mask_bit(v->reg, i))
                to[i] = SOFT(sqrt)(from[i], &status);
        v->flags |= status.flags;
        v->vstart = 0;
        return 0;
    }
    VECTOR_EACH(to[i] = CANONICAL(SQRT(F_OF_BITS(from[i])));)
}

/* ---- in software or on bits: `expression` of bits a, b, c and `status` ---- */

#define EACH_SOFT(...)                                                                                                 \
    struct float_status status = software(v);                                                                          \
    for (uint64_t i = v->vstart; i < v->vl; i++) {                                                                     \
        if (VECTOR_VM(args) || vector_mask_bit(v->reg, i)) {                                                           \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    v->flags |= status.flags;                                                                                          \
    v->vstart = 0;                                                                                                     \
    return 0;

#define ON_BITS(op, expression)                                                                                        \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const U *from = VS2, *with = VS1;                                                                              \
        EACH_SOFT(U a = from[i], b = with[i], c = to[i]; (void)c; to[i] = (expression);)                               \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        U *to = VD, b = SCALAR;                                                                                        \
        const U *from = VS2;                                                                                           \
        EACH_SOFT(U a = from[i], c = to[i]; (void)c; to[i] = (expression);)                                            \
    }
#define SIGN ((U)1 << (BITS - 1))

ON_BITS(FMIN, SOFT(min_num)(a, b, &status))
ON_BITS(FMAX, SOFT(max_num)(a, b, &status))
ON_BITS(FSGNJ, (a & ~SIGN) | (b & SIGN))
ON_BITS(FSGNJN, (a & ~SIGN) | (~b & SIGN))
ON_BITS(FSGNJX, a ^ (b & SIGN))

/* x * y + z, with the signs of product and addend changed by `negate` (enum float_fma_flags). */
static inline U NAME(fused)(struct riscv_vector *v, U x, U y, U z, unsigned negate, struct float_status *status)
{
    if (!in_software(v)) {
        U product_sign = negate & FLOAT_NEGATE_PRODUCT ? SIGN : 0,
          addend_sign = negate & FLOAT_NEGATE_ADDEND ? SIGN : 0;
        F result = FMA(F_OF_BITS(x ^ product_sign), F_OF_BITS(y), F_OF_BITS(z ^ addend_sign));
        if (__builtin_expect(result == result, 1))
            return BITS_OF_F(result);
    }
    return SOFT(fma)(x, y, z, negate, status);
}

ON_BITS(FMACC, NAME(fused)(v, b, a, c, 0, &status))
ON_BITS(FNMACC, NAME(fused)(v, b, a, c, FLOAT_NEGATE_PRODUCT | FLOAT_NEGATE_ADDEND, &status))
ON_BITS(FMSAC, NAME(fused)(v, b, a, c, FLOAT_NEGATE_ADDEND, &status))
ON_BITS(FNMSAC, NAME(fused)(v, b, a, c, FLOAT_NEGATE_PRODUCT, &status))
ON_BITS(FMADD, NAME(fused)(v, b, c, a, 0, &status))
ON_BITS(FNMADD, NAME(fused)(v, b, c, a, FLOAT_NEGATE_PRODUCT | FLOAT_NEGATE_ADDEND, &status))
ON_BITS(FMSUB, NAME(fused)(v, b, c, a, FLOAT_NEGATE_ADDEND, &status))
ON_BITS(FNMSUB, NAME(fused)(v, b, c, a, FLOAT_NEGATE_PRODUCT, &status))

/* ---- comparisons: only active elements may raise flags ---- */

#define COMPARE(op, expression)                                                                                        \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        const U *from = VS2, *with = VS1;                                                                              \
        VECTOR_EACH_BIT(true, (touched >> k & 1) && ({                                                                 \
                                  F x = F_OF_BITS(from[i]), y = F_OF_BITS(with[i]);                                    \
                                  expression;                                                                          \
                              }))                                                                                      \
    }                                                                                                                  \
    COMPARE_VX(op##_VX, expression)
#define COMPARE_VX(op, expression)                                                                                     \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        const U *from = VS2;                                                                                           \
        F y = F_OF_BITS(SCALAR);                                                                                       \
        VECTOR_EACH_BIT(true, (touched >> k & 1) && ({                                                                 \
                                  F x = F_OF_BITS(from[i]);                                                            \
                                  expression;                                                                          \
                              }))                                                                                      \
    }

COMPARE(MFEQ, x == y)
COMPARE(MFNE, x != y)
COMPARE(MFLT, x < y)
COMPARE(MFLE, x <= y)
COMPARE_VX(MFGT_VF, x > y)
COMPARE_VX(MFGE_VF, x >= y)

/* ---- one operand ---- */

#define UNARY(op, to_type, from_type, expression)                                                                      \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        to_type *to = (to_type *)VD;                                                                                   \
        const from_type *from = (const from_type *)VS2;                                                                \
        EACH_SOFT(from_type a = from[i]; to[i] = (to_type)(expression);)                                               \
    }
#define TOWARDS_ZERO (status.rounding = FLOAT_ROUND_TO_ZERO, &status)

static inline U NAME(reciprocal_root)(U a, struct float_status *status)
{
    unsigned class = SOFT(class)(a);

    if (class & (FLOAT_CLASS_SIGNALING_NAN | FLOAT_CLASS_NEGATIVE_INFINITY | FLOAT_CLASS_NEGATIVE_NORMAL |
                 FLOAT_CLASS_NEGATIVE_SUBNORMAL))
        status->flags |= FLOAT_INVALID;
    if (class & (FLOAT_CLASS_NEGATIVE_ZERO | FLOAT_CLASS_POSITIVE_ZERO)) {
        status->flags |= FLOAT_DIVIDE_BY_ZERO;
        return (a & SIGN) | (U)((1ull << SHAPE.exponent_bits) - 1) << SHAPE.fraction_bits;
    }
    if (class & FLOAT_CLASS_POSITIVE_INFINITY)
        return 0;
    if (class & (FLOAT_CLASS_POSITIVE_NORMAL | FLOAT_CLASS_POSITIVE_SUBNORMAL))
        return (U)estimate_root(SHAPE, a);
    return DEFAULT_NAN;
}

static inline U NAME(reciprocal)(U a, struct float_status *status)
{
    unsigned class = SOFT(class)(a);
    U sign = a & SIGN, infinity = (U)((1ull << SHAPE.exponent_bits) - 1) << SHAPE.fraction_bits;
    uint64_t result;

    if (class & FLOAT_CLASS_SIGNALING_NAN)
        status->flags |= FLOAT_INVALID;
    if (class & (FLOAT_CLASS_SIGNALING_NAN | FLOAT_CLASS_QUIET_NAN))
        return DEFAULT_NAN;
    if (class & (FLOAT_CLASS_NEGATIVE_INFINITY | FLOAT_CLASS_POSITIVE_INFINITY))
        return sign;
    if (class & (FLOAT_CLASS_NEGATIVE_ZERO | FLOAT_CLASS_POSITIVE_ZERO)) {
        status->flags |= FLOAT_DIVIDE_BY_ZERO;
        return sign | infinity;
    }
    if (estimate_reciprocal(SHAPE, a & ~SIGN, &result))
        return sign | (U)result;
    /* Too small a number: the largest one or infinity, as rounding has it. */
    status->flags |= FLOAT_OVERFLOW | FLOAT_INEXACT;
    bool stays = status->rounding == FLOAT_ROUND_TO_ZERO || (status->rounding == FLOAT_ROUND_DOWN && !sign) ||
                 (status->rounding == FLOAT_ROUND_UP && sign);
    return sign | (infinity - stays);
}

UNARY(FRSQRT7, U, U, NAME(reciprocal_root)(a, &status))
UNARY(FREC7, U, U, NAME(reciprocal)(a, &status))
UNARY(FCLASS, U, U, SOFT(class)(a))

#if BITS == 32
#define TO_UNSIGNED f32_to_u32
#define TO_SIGNED f32_to_i32
#define FROM_UNSIGNED u32_to_f32
#define FROM_SIGNED i32_to_f32
#define HALF_FROM_UNSIGNED u32_to_f32
#define HALF_FROM_SIGNED i32_to_f32
#else
#define TO_UNSIGNED f64_to_u64
#define TO_SIGNED f64_to_i64
#define FROM_UNSIGNED u64_to_f64
#define FROM_SIGNED i64_to_f64
#define HALF_FROM_UNSIGNED u32_to_f64
#define HALF_FROM_SIGNED i32_to_f64
#endif

/* To integers of half the width: through those of the whole one; out of range is invalid, and then not inexact. */
static inline UH NAME(to_half_u)(U a, struct float_status *status)
{
    struct float_status mine = {.policy = status->policy, .rounding = status->rounding};
    uint64_t value = TO_UNSIGNED(a, &mine);

    if (value > (UH)-1) {
        mine.flags = FLOAT_INVALID;
        value = (UH)-1;
    }
    status->flags |= mine.flags;
    return (UH)value;
}

static inline UH NAME(to_half_s)(U a, struct float_status *status)
{
    struct float_status mine = {.policy = status->policy, .rounding = status->rounding};
    int64_t value = TO_SIGNED(a, &mine), limit = 1ll << (HALF - 1);

    if (value < -limit || value >= limit) {
        mine.flags = FLOAT_INVALID;
        value = value < 0 ? -limit : limit - 1;
    }
    status->flags |= mine.flags;
    return (UH)value;
}

UNARY(FCVT_XU_F, U, U, TO_UNSIGNED(a, &status))
UNARY(FCVT_X_F, U, U, TO_SIGNED(a, &status))
UNARY(FCVT_RTZ_XU_F, U, U, TO_UNSIGNED(a, TOWARDS_ZERO))
UNARY(FCVT_RTZ_X_F, U, U, TO_SIGNED(a, TOWARDS_ZERO))
UNARY(FCVT_F_XU, U, U, FROM_UNSIGNED(a, &status))
UNARY(FCVT_F_X, U, U, FROM_SIGNED((S)a, &status))
UNARY(FWCVT_F_XU, U, UH, HALF_FROM_UNSIGNED(a, &status))
UNARY(FWCVT_F_X, U, UH, HALF_FROM_SIGNED((SH)a, &status))
UNARY(FNCVT_XU_F, UH, U, NAME(to_half_u)(a, &status))
UNARY(FNCVT_X_F, UH, U, NAME(to_half_s)(a, &status))
UNARY(FNCVT_RTZ_XU_F, UH, U, NAME(to_half_u)(a, TOWARDS_ZERO))
UNARY(FNCVT_RTZ_X_F, UH, U, NAME(to_half_s)(a, TOWARDS_ZERO))
#undef TO_UNSIGNED
#undef FROM_UNSIGNED
#undef FROM_SIGNED
#undef TO_SIGNED
#undef HALF_FROM_UNSIGNED
#undef HALF_FROM_SIGNED

/* ---- twice the width ---- */

#ifdef WIDE
#define W(x) f32_to_f64(x, &status)
#define UW vector_u64

static inline uint64_t wide_add(struct riscv_vector *v, uint64_t a, uint64_t b, struct float_status *status)
{
    double sum;
    if (in_software(v))
        return f64_add(a, b, status);
    sum = float_of_64(a) + float_of_64(b);
    return sum != sum ? 0x7ff8000000000000ull : bits_of_64(sum);
}

static inline uint64_t wide_mul(struct riscv_vector *v, uint64_t a, uint64_t b, struct float_status *status)
{
    double product;
    if (in_software(v))
        return f64_mul(a, b, status);
    product = float_of_64(a) * float_of_64(b);
    return product != product ? 0x7ff8000000000000ull : bits_of_64(product);
}

static inline uint64_t wide_fused(struct riscv_vector *v, uint64_t x, uint64_t y, uint64_t z, unsigned negate,
                                  struct float_status *status)
{
    uint64_t sign = 1ull << 63;
    double result;

    if (!in_software(v)) {
        result = fma(float_of_64(negate & FLOAT_NEGATE_PRODUCT ? x ^ sign : x), float_of_64(y),
                     float_of_64(negate & FLOAT_NEGATE_ADDEND ? z ^ sign : z));
        if (result == result)
            return bits_of_64(result);
    }
    return f64_fma(x, y, z, negate, status);
}

#define WIDEN(op, a_type, expression)                                                                                  \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        const a_type *from = (const a_type *)VS2;                                                                      \
        const U *with = VS1;                                                                                           \
        EACH_SOFT(a_type a = from[i]; U b = with[i]; UW c = to[i]; (void)c; to[i] = (expression);)                     \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        U b = SCALAR;                                                                                                  \
        const a_type *from = (const a_type *)VS2;                                                                      \
        EACH_SOFT(a_type a = from[i]; UW c = to[i]; (void)c; to[i] = (expression);)                                    \
    }
#define MINUS(x) ((x) ^ 1ull << 63)

WIDEN(FWADD, U, wide_add(v, W(a), W(b), &status))
WIDEN(FWSUB, U, wide_add(v, W(a), MINUS(W(b)), &status))
WIDEN(FWADD_W, UW, wide_add(v, a, W(b), &status))
WIDEN(FWSUB_W, UW, wide_add(v, a, MINUS(W(b)), &status))
WIDEN(FWMUL, U, wide_mul(v, W(a), W(b), &status))
WIDEN(FWMACC, U, wide_fused(v, W(b), W(a), c, 0, &status))
WIDEN(FWNMACC, U, wide_fused(v, W(b), W(a), c, FLOAT_NEGATE_PRODUCT | FLOAT_NEGATE_ADDEND, &status))
WIDEN(FWMSAC, U, wide_fused(v, W(b), W(a), c, FLOAT_NEGATE_ADDEND, &status))
WIDEN(FWNMSAC, U, wide_fused(v, W(b), W(a), c, FLOAT_NEGATE_PRODUCT, &status))

UNARY(FWCVT_XU_F, UW, U, f32_to_u64(a, &status))
UNARY(FWCVT_X_F, UW, U, f32_to_i64(a, &status))
UNARY(FWCVT_RTZ_XU_F, UW, U, f32_to_u64(a, TOWARDS_ZERO))
UNARY(FWCVT_RTZ_X_F, UW, U, f32_to_i64(a, TOWARDS_ZERO))
UNARY(FWCVT_F_F, UW, U, W(a))
UNARY(FNCVT_F_XU, U, UW, u64_to_f32(a, &status))
UNARY(FNCVT_F_X, U, UW, i64_to_f32((int64_t)a, &status))
UNARY(FNCVT_F_F, U, UW, f64_to_f32(a, &status))
UNARY(FNCVT_ROD_F_F, U, UW, f64_to_f32(a, (status.rounding = FLOAT_ROUND_ODD, &status)))
#endif

/* ---- reductions: in order, which the unordered ones may be too ---- */

#define REDUCE(op, sum_type, expression)                                                                               \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        const U *from = VS2;                                                                                           \
        sum_type a = *(const sum_type *)VS1;                                                                           \
        struct float_status status = software(v);                                                                      \
        if (!v->vl)                                                                                                    \
            return 0;                                                                                                  \
        for (uint64_t i = 0; i < v->vl; i++) {                                                                         \
            if (VECTOR_VM(args) || vector_mask_bit(v->reg, i)) {                                                       \
                U b = from[i];                                                                                         \
                a = (expression);                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        v->flags |= status.flags;                                                                                      \
        *(sum_type *)VD = a;                                                                                           \
        return 0;                                                                                                      \
    }

static inline U NAME(plus)(struct riscv_vector *v, U a, U b, struct float_status *status)
{
    return in_software(v) ? SOFT(add)(a, b, status) : CANONICAL(F_OF_BITS(a) + F_OF_BITS(b));
}

REDUCE(FREDUSUM, U, NAME(plus)(v, a, b, &status))
REDUCE(FREDOSUM, U, NAME(plus)(v, a, b, &status))
REDUCE(FREDMIN, U, SOFT(min_num)(a, b, &status))
REDUCE(FREDMAX, U, SOFT(max_num)(a, b, &status))
#ifdef WIDE
REDUCE(FWREDUSUM, UW, wide_add(v, a, W(b), &status))
REDUCE(FWREDOSUM, UW, wide_add(v, a, W(b), &status))
#undef W
#undef UW
#undef WIDEN
#undef MINUS
#endif

#undef F
#undef U
#undef S
#undef UH
#undef SH
#undef NAME
#undef SOFT
#undef SOFT2
#undef SOFT3
#undef BITS_OF_F
#undef F_OF_BITS
#undef FMA
#undef SQRT
#undef DEFINE
#undef VD
#undef VS1
#undef VS2
#undef SCALAR
#undef CANONICAL
#undef EACH_SOFT
#undef ON_BITS
#undef SIGN
#undef COMPARE
#undef COMPARE_VX
#undef UNARY
#undef TOWARDS_ZERO
#undef REDUCE
