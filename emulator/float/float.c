/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Software floating point for binary16/32/64 (IEEE 754-2019).
 *
 * One implementation for all widths: an operand is unpacked into sign, exponent and a 63-bit significand whose integer
 * bit is bit 62,
 *
 *      value = (-1)^sign * significand / 2^62 * 2^exponent        2^62 <= significand < 2^63
 *
 * the operation is done on that with enough bits to the right (at least 10 for binary64) and a sticky lowest bit for
 * everything shifted out ("jamming"), and round_pack() makes the result of the width asked. The functions below take
 * the format as an argument and are always inlined into the public ones, where it is a constant: a template without
 * macros in the arithmetic.
 */
#include "emulator/float/float.h"

#include "base/math.h"

#define INLINE static inline __attribute__((always_inline))

const struct float_policy float_policy_riscv = {
    .nan_rule = FLOAT_NAN_DEFAULT, .to_int = FLOAT_INT_SATURATE_NAN_MAX, .fma_invalid_with_nan = true};
const struct float_policy float_policy_arm = {.nan_rule = FLOAT_NAN_SIGNALING_FIRST,
                                              .to_int = FLOAT_INT_SATURATE_NAN_ZERO,
                                              .tininess_before_rounding = true,
                                              .fma_invalid_with_nan = true};
const struct float_policy float_policy_x86 = {.nan_rule = FLOAT_NAN_FIRST,
                                              .to_int = FLOAT_INT_INDEFINITE,
                                              .default_nan_negative = true,
                                              .fma_invalid_with_nan = false};

struct format {
    int fraction_bits, exponent_bits;
};
#define F16 ((struct format){10, 5})
#define F32 ((struct format){23, 8})
#define F64 ((struct format){52, 11})

enum kind { ZERO, FINITE, INFINITE, QUIET_NAN, SIGNALING_NAN };

struct number {
    enum kind kind;
    bool sign;
    int exponent;
    uint64_t significand; /* FINITE: as above; NaN: the fraction field, moved to bits 61.. */
};

enum { INTEGER_BIT = 62 };
typedef unsigned __int128 uint128;

/* Format arithmetic --------------------------------------------------------------------------------------------------
 */

INLINE int bias(struct format f)
{
    return (1 << (f.exponent_bits - 1)) - 1;
}

INLINE uint64_t sign_mask(struct format f)
{
    return 1ull << (f.fraction_bits + f.exponent_bits);
}

INLINE uint64_t fraction_mask(struct format f)
{
    return (1ull << f.fraction_bits) - 1;
}

INLINE uint64_t exponent_max(struct format f)
{
    return (1ull << f.exponent_bits) - 1;
}

INLINE uint64_t infinity(struct format f, bool sign)
{
    return (sign ? sign_mask(f) : 0) | exponent_max(f) << f.fraction_bits;
}

INLINE uint64_t default_nan(struct format f, const struct float_status *status)
{
    return infinity(f, status->policy->default_nan_negative) | 1ull << (f.fraction_bits - 1);
}

/* Shifts right; what falls out is or-ed into the lowest bit. Any distance. */
INLINE uint64_t shift_right_jam(uint64_t value, unsigned distance)
{
    if (distance == 0)
        return value;
    if (distance > 63)
        return value != 0;
    return value >> distance | ((value & ((1ull << distance) - 1)) != 0);
}

INLINE uint128 shift_right_jam128(uint128 value, unsigned distance)
{
    if (distance == 0)
        return value;
    if (distance > 127)
        return value != 0;
    return value >> distance | ((value & (((uint128)1 << distance) - 1)) != 0);
}

INLINE struct number unpack(struct format f, uint64_t bits)
{
    struct number n = {.sign = bits & sign_mask(f)};
    uint64_t fraction = bits & fraction_mask(f);
    uint64_t exponent = bits >> f.fraction_bits & exponent_max(f);
    if (exponent == exponent_max(f)) {
        n.significand = fraction << (INTEGER_BIT - f.fraction_bits);
        n.kind = !fraction ? INFINITE : fraction >> (f.fraction_bits - 1) ? QUIET_NAN : SIGNALING_NAN;
    } else if (exponent) {
        n.kind = FINITE;
        n.exponent = (int)exponent - bias(f);
        n.significand = 1ull << INTEGER_BIT | fraction << (INTEGER_BIT - f.fraction_bits);
    } else if (fraction) {
        unsigned shift = INTEGER_BIT - highest_bit(fraction);
        n.kind = FINITE;
        n.significand = fraction << shift;
        n.exponent = 1 - bias(f) + INTEGER_BIT - f.fraction_bits - (int)shift;
    }
    return n;
}

/* The amount that decides rounding: what is added before cutting off the bits in `mask`. ROUND_ODD is handled by the
 * caller. */
INLINE uint64_t increment(bool sign, uint64_t significand, uint64_t mask, const struct float_status *status)
{
    uint64_t half = (mask >> 1) + 1;
    switch (status->rounding) {
    case FLOAT_ROUND_NEAREST_EVEN:
        return (significand & (mask | (mask + 1))) == half ? 0 : half; /* a tie on an even number stays */
    case FLOAT_ROUND_NEAREST_AWAY: return half;
    case FLOAT_ROUND_DOWN: return sign ? mask : 0;
    case FLOAT_ROUND_UP: return sign ? 0 : mask;
    default: return 0;
    }
}

INLINE uint64_t round_at(bool sign, uint64_t significand, uint64_t mask, const struct float_status *status)
{
    uint64_t rounded = (significand + increment(sign, significand, mask, status)) & ~mask;
    if (status->rounding == FLOAT_ROUND_ODD && significand & mask)
        rounded |= mask + 1;
    return rounded;
}

INLINE uint64_t overflow(struct format f, bool sign, struct float_status *status)
{
    status->flags |= FLOAT_OVERFLOW | FLOAT_INEXACT;
    bool to_infinity = status->rounding == FLOAT_ROUND_NEAREST_EVEN || status->rounding == FLOAT_ROUND_NEAREST_AWAY ||
                       status->rounding == (sign ? FLOAT_ROUND_DOWN : FLOAT_ROUND_UP);
    return infinity(f, sign) - (to_infinity ? 0 : 1); /* one below infinity is the largest finite number */
}

/* Rounds a finite non-zero value to the format. The lowest bit of the significand is sticky. */
INLINE uint64_t round_pack(struct format f, bool sign, int exponent, uint64_t significand, struct float_status *status)
{
    unsigned cut = INTEGER_BIT - (unsigned)f.fraction_bits;
    uint64_t mask = (1ull << cut) - 1;
    uint64_t sign_bits = sign ? sign_mask(f) : 0;
    int biased = exponent + bias(f);

    if (biased <= 0) {
        /* Tiny after rounding means: with an unbounded exponent it would still round to less than the smallest normal.
         */
        bool tiny = status->policy->tininess_before_rounding || biased < 0 ||
                    round_at(sign, significand, mask, status) < 1ull << (INTEGER_BIT + 1);
        significand = shift_right_jam(significand, (unsigned)(1 - biased));
        uint64_t rounded = round_at(sign, significand, mask, status);
        if (significand & mask)
            status->flags |= FLOAT_INEXACT | (tiny ? FLOAT_UNDERFLOW : 0);
        return sign_bits | rounded >> cut; /* a carry into the integer bit is exactly the smallest normal */
    }
    uint64_t rounded = round_at(sign, significand, mask, status);
    if (rounded >> (INTEGER_BIT + 1)) {
        rounded >>= 1;
        biased++;
    }
    if ((uint64_t)biased >= exponent_max(f))
        return overflow(f, sign, status);
    if (significand & mask)
        status->flags |= FLOAT_INEXACT;
    return sign_bits | (uint64_t)biased << f.fraction_bits | (rounded >> cut & fraction_mask(f));
}

INLINE uint64_t zero(struct format f, bool sign)
{
    return sign ? sign_mask(f) : 0;
}

/* NaNs ---------------------------------------------------------------------------------------------------------------
 */

INLINE bool is_nan(struct number n)
{
    return n.kind >= QUIET_NAN;
}

INLINE uint64_t invalid(struct format f, struct float_status *status)
{
    status->flags |= FLOAT_INVALID;
    return default_nan(f, status);
}

INLINE uint64_t quieted(struct format f, struct number n)
{
    return infinity(f, n.sign) | 1ull << (f.fraction_bits - 1) | n.significand >> (INTEGER_BIT - f.fraction_bits);
}

/* The result of an operation of which at least one operand is a NaN. */
INLINE uint64_t propagate(struct format f, const struct number *operands, int count, struct float_status *status)
{
    const struct number *first = NULL, *signaling = NULL;
    for (int i = 0; i < count; i++) {
        if (is_nan(operands[i]) && !first)
            first = &operands[i];
        if (operands[i].kind == SIGNALING_NAN && !signaling)
            signaling = &operands[i];
    }
    if (signaling)
        status->flags |= FLOAT_INVALID;
    switch (status->policy->nan_rule) {
    case FLOAT_NAN_SIGNALING_FIRST: return quieted(f, signaling ? *signaling : *first);
    case FLOAT_NAN_FIRST: return quieted(f, *first);
    default: return default_nan(f, status);
    }
}

/* Arithmetic ---------------------------------------------------------------------------------------------------------
 */

INLINE bool exact_zero_sign(const struct float_status *status)
{
    return status->rounding == FLOAT_ROUND_DOWN; /* x - x is +0, in round-down -0 (IEEE 754, 6.3) */
}

INLINE uint64_t add_finite(struct format f, struct number a, struct number b, struct float_status *status)
{
    if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand)) {
        struct number swap = a;
        a = b;
        b = swap;
    }
    b.significand = shift_right_jam(b.significand, (unsigned)(a.exponent - b.exponent));
    if (a.sign == b.sign) {
        a.significand += b.significand;
        if (a.significand >> (INTEGER_BIT + 1)) {
            a.significand = shift_right_jam(a.significand, 1);
            a.exponent++;
        }
    } else {
        a.significand -= b.significand;
        if (!a.significand)
            return zero(f, exact_zero_sign(status));
        unsigned shift = INTEGER_BIT - highest_bit(a.significand);
        a.significand <<= shift;
        a.exponent -= (int)shift;
    }
    return round_pack(f, a.sign, a.exponent, a.significand, status);
}

INLINE uint64_t repack(struct format f, struct number n, struct float_status *status)
{
    return n.kind == ZERO       ? zero(f, n.sign)
           : n.kind == INFINITE ? infinity(f, n.sign)
                                : round_pack(f, n.sign, n.exponent, n.significand, status);
}

INLINE uint64_t add(struct format f, uint64_t a_bits, uint64_t b_bits, bool negate_b, struct float_status *status)
{
    struct number n[2] = {unpack(f, a_bits), unpack(f, b_bits)};
    if (is_nan(n[0]) || is_nan(n[1]))
        return propagate(f, n, 2, status);
    n[1].sign ^= negate_b;
    if (n[0].kind == INFINITE || n[1].kind == INFINITE) {
        if (n[0].kind == n[1].kind && n[0].sign != n[1].sign)
            return invalid(f, status);
        return infinity(f, n[0].kind == INFINITE ? n[0].sign : n[1].sign);
    }
    if (n[0].kind == ZERO && n[1].kind == ZERO)
        return zero(f, n[0].sign == n[1].sign ? n[0].sign : exact_zero_sign(status));
    if (n[0].kind == ZERO || n[1].kind == ZERO)
        return repack(f, n[0].kind == ZERO ? n[1] : n[0], status);
    return add_finite(f, n[0], n[1], status);
}

INLINE uint64_t mul(struct format f, uint64_t a_bits, uint64_t b_bits, struct float_status *status)
{
    struct number n[2] = {unpack(f, a_bits), unpack(f, b_bits)};
    bool sign = n[0].sign ^ n[1].sign;
    if (is_nan(n[0]) || is_nan(n[1]))
        return propagate(f, n, 2, status);
    if (n[0].kind == INFINITE || n[1].kind == INFINITE)
        return n[0].kind == ZERO || n[1].kind == ZERO ? invalid(f, status) : infinity(f, sign);
    if (n[0].kind == ZERO || n[1].kind == ZERO)
        return zero(f, sign);
    int exponent = n[0].exponent + n[1].exponent;
    uint64_t significand = (uint64_t)shift_right_jam128((uint128)n[0].significand * n[1].significand, INTEGER_BIT);
    if (significand >> (INTEGER_BIT + 1)) {
        significand = shift_right_jam(significand, 1);
        exponent++;
    }
    return round_pack(f, sign, exponent, significand, status);
}

INLINE uint64_t divide(struct format f, uint64_t a_bits, uint64_t b_bits, struct float_status *status)
{
    struct number n[2] = {unpack(f, a_bits), unpack(f, b_bits)};
    bool sign = n[0].sign ^ n[1].sign;
    if (is_nan(n[0]) || is_nan(n[1]))
        return propagate(f, n, 2, status);
    if (n[0].kind == INFINITE)
        return n[1].kind == INFINITE ? invalid(f, status) : infinity(f, sign);
    if (n[1].kind == INFINITE)
        return zero(f, sign);
    if (n[1].kind == ZERO) {
        if (n[0].kind == ZERO)
            return invalid(f, status);
        status->flags |= FLOAT_DIVIDE_BY_ZERO;
        return infinity(f, sign);
    }
    if (n[0].kind == ZERO)
        return zero(f, sign);
    int exponent = n[0].exponent - n[1].exponent;
    uint128 dividend = (uint128)n[0].significand << INTEGER_BIT;
    if (n[0].significand < n[1].significand) {
        dividend <<= 1;
        exponent--;
    }
    uint64_t quotient = (uint64_t)(dividend / n[1].significand);
    if (dividend % n[1].significand)
        quotient |= 1;
    return round_pack(f, sign, exponent, quotient, status);
}

INLINE uint64_t square_root(struct format f, uint64_t bits, struct float_status *status)
{
    struct number n = unpack(f, bits);
    if (is_nan(n))
        return propagate(f, &n, 1, status);
    if (n.kind == ZERO)
        return bits;
    if (n.sign)
        return invalid(f, status);
    if (n.kind == INFINITE)
        return bits;
    /* With an even exponent, sqrt(s / 2^62 * 2^e) = sqrt(s * 2^62) / 2^62 * 2^(e/2): the integer root of a 126-bit
     * number, digit by digit. */
    uint128 radicand = (uint128)n.significand << (INTEGER_BIT + (n.exponent & 1));
    uint128 root = 0;
    for (int bit = INTEGER_BIT; bit >= 0; bit--) {
        uint128 trial = root | (uint128)1 << bit;
        if (trial * trial <= radicand)
            root = trial;
    }
    uint64_t significand = (uint64_t)root | (root * root != radicand);
    return round_pack(f, false, (n.exponent - (n.exponent & 1)) / 2, significand, status);
}

/* a * b + c with one rounding: the exact product has its integer bit at 124 of 128; the addend is brought to the same
 * scale. */
INLINE uint64_t fused(struct format f, uint64_t a_bits, uint64_t b_bits, uint64_t c_bits, unsigned negate,
                      struct float_status *status)
{
    struct number n[3] = {unpack(f, a_bits), unpack(f, b_bits), unpack(f, c_bits)};
    struct number *a = &n[0], *b = &n[1], *c = &n[2];
    bool infinity_times_zero = (a->kind == INFINITE && b->kind == ZERO) || (a->kind == ZERO && b->kind == INFINITE);
    if (is_nan(*a) || is_nan(*b) || is_nan(*c)) {
        if (infinity_times_zero && status->policy->fma_invalid_with_nan)
            status->flags |= FLOAT_INVALID;
        return propagate(f, n, 3, status);
    }
    if (infinity_times_zero)
        return invalid(f, status);
    bool sign = a->sign ^ b->sign ^ !!(negate & FLOAT_NEGATE_PRODUCT);
    c->sign ^= !!(negate & FLOAT_NEGATE_ADDEND);
    if (a->kind == INFINITE || b->kind == INFINITE)
        return c->kind == INFINITE && c->sign != sign ? invalid(f, status) : infinity(f, sign);
    if (c->kind == INFINITE)
        return infinity(f, c->sign);
    if (a->kind == ZERO || b->kind == ZERO) {
        if (c->kind == ZERO)
            return zero(f, sign == c->sign ? sign : exact_zero_sign(status));
        return repack(f, *c, status);
    }

    enum { PRODUCT_BIT = 2 * INTEGER_BIT };
    int exponent = a->exponent + b->exponent;
    uint128 sum = (uint128)a->significand * b->significand;
    if (c->kind != ZERO) {
        uint128 addend = (uint128)c->significand << INTEGER_BIT;
        int distance = exponent - c->exponent;
        if (distance >= 0) {
            addend = shift_right_jam128(addend, (unsigned)distance);
        } else {
            sum = shift_right_jam128(sum, (unsigned)-distance);
            exponent = c->exponent;
        }
        if (sign == c->sign) {
            sum += addend;
        } else if (sum >= addend) {
            sum -= addend;
        } else {
            sum = addend - sum;
            sign = c->sign;
        }
        if (!sum)
            return zero(f, exact_zero_sign(status));
    }
    uint64_t high = (uint64_t)(sum >> 64);
    int top = high ? 64 + (int)highest_bit(high) : (int)highest_bit((uint64_t)sum);
    exponent += top - PRODUCT_BIT;
    uint64_t significand = top > INTEGER_BIT ? (uint64_t)shift_right_jam128(sum, (unsigned)(top - INTEGER_BIT))
                                             : (uint64_t)(sum << (INTEGER_BIT - top));
    return round_pack(f, sign, exponent, significand, status);
}

/* Comparison ---------------------------------------------------------------------------------------------------------
 */

enum order { LESS, EQUAL, GREATER, UNORDERED };

INLINE enum order compare(struct format f, uint64_t a_bits, uint64_t b_bits, bool quiet, struct float_status *status)
{
    struct number a = unpack(f, a_bits), b = unpack(f, b_bits);
    if (is_nan(a) || is_nan(b)) {
        if (!quiet || a.kind == SIGNALING_NAN || b.kind == SIGNALING_NAN)
            status->flags |= FLOAT_INVALID;
        return UNORDERED;
    }
    if (a.kind == ZERO && b.kind == ZERO)
        return EQUAL;
    if (a.sign != b.sign)
        return a.sign ? LESS : GREATER;
    if (a_bits == b_bits)
        return EQUAL;
    return (a_bits < b_bits) != a.sign ? LESS : GREATER; /* same sign: the patterns are ordered like the magnitudes */
}

INLINE uint64_t min_max(struct format f, uint64_t a_bits, uint64_t b_bits, bool want_max, struct float_status *status)
{
    struct number n[2] = {unpack(f, a_bits), unpack(f, b_bits)};
    if (n[0].kind == SIGNALING_NAN || n[1].kind == SIGNALING_NAN)
        status->flags |= FLOAT_INVALID;
    if (is_nan(n[0]) && is_nan(n[1]))
        return propagate(f, n, 2, status);
    if (is_nan(n[0]) || is_nan(n[1]))
        return is_nan(n[0]) ? b_bits : a_bits;
    enum order order = compare(f, a_bits, b_bits, true, status);
    bool a_is_less = order == LESS || (order == EQUAL && n[0].sign);
    return a_is_less != want_max ? a_bits : b_bits;
}

INLINE unsigned classify(struct format f, uint64_t bits)
{
    struct number n = unpack(f, bits);
    switch (n.kind) {
    case ZERO: return n.sign ? FLOAT_CLASS_NEGATIVE_ZERO : FLOAT_CLASS_POSITIVE_ZERO;
    case INFINITE: return n.sign ? FLOAT_CLASS_NEGATIVE_INFINITY : FLOAT_CLASS_POSITIVE_INFINITY;
    case QUIET_NAN: return FLOAT_CLASS_QUIET_NAN;
    case SIGNALING_NAN: return FLOAT_CLASS_SIGNALING_NAN;
    default: break;
    }
    if (n.exponent < 1 - bias(f))
        return n.sign ? FLOAT_CLASS_NEGATIVE_SUBNORMAL : FLOAT_CLASS_POSITIVE_SUBNORMAL;
    return n.sign ? FLOAT_CLASS_NEGATIVE_NORMAL : FLOAT_CLASS_POSITIVE_NORMAL;
}

/* Conversions --------------------------------------------------------------------------------------------------------
 */

INLINE uint64_t convert(struct format from, struct format to, uint64_t bits, struct float_status *status)
{
    struct number n = unpack(from, bits);
    return is_nan(n) ? propagate(to, &n, 1, status) : repack(to, n, status);
}

/* Integer part and what was cut off: the magnitude rounded to an integer; *inexact tells. The exponent must be
 * below 64. */
INLINE uint64_t rounded_magnitude(struct number n, struct float_status *status, bool *inexact)
{
    /* Put the binary point at bit 2 of a 66-bit fixed-point number, so that half and sticky stay visible for all
     * magnitudes below 2^64. */
    uint128 fixed = (uint128)n.significand << 4;                            /* integer bit at 66 */
    fixed = shift_right_jam128(fixed, (unsigned)MIN(64 - n.exponent, 100)); /* integer bit at 2 + exponent */
    uint64_t whole = (uint64_t)(fixed >> 2);
    unsigned rest = (unsigned)fixed & 3; /* half, sticky */
    *inexact = rest != 0;
    bool up = false;
    switch (status->rounding) {
    case FLOAT_ROUND_NEAREST_EVEN: up = rest == 3 || (rest == 2 && whole & 1); break;
    case FLOAT_ROUND_NEAREST_AWAY: up = rest >= 2; break;
    case FLOAT_ROUND_DOWN: up = rest && n.sign; break;
    case FLOAT_ROUND_UP: up = rest && !n.sign; break;
    case FLOAT_ROUND_ODD: up = rest && !(whole & 1); break;
    default: break;
    }
    if (up && whole == UINT64_MAX)
        *inexact = true; /* cannot happen: a value with a fraction has exponent below 53 */
    return whole + up;
}

INLINE uint64_t round_integral(struct format f, uint64_t bits, bool exact, struct float_status *status)
{
    struct number n = unpack(f, bits);
    if (is_nan(n))
        return propagate(f, &n, 1, status);
    if (n.kind != FINITE || n.exponent >= f.fraction_bits)
        return bits;
    bool inexact;
    uint64_t whole = rounded_magnitude(n, status, &inexact);
    if (inexact && exact)
        status->flags |= FLOAT_INEXACT;
    if (!whole)
        return zero(f, n.sign);
    unsigned top = highest_bit(whole);
    return round_pack(f, n.sign, (int)top, whole << (INTEGER_BIT - top), status);
}

struct integer_range {
    uint64_t max_positive, max_negative; /* largest magnitudes */
    uint64_t indefinite;
};

INLINE uint64_t to_integer(struct format f, uint64_t bits, struct integer_range range, struct float_status *status)
{
    struct number n = unpack(f, bits);
    bool inexact = false;
    uint64_t magnitude = 0;
    bool fits = !is_nan(n) && n.kind != INFINITE && n.exponent < 64;
    if (n.kind == FINITE && fits)
        magnitude = rounded_magnitude(n, status, &inexact);
    if (fits && magnitude <= (n.sign ? range.max_negative : range.max_positive)) {
        if (inexact)
            status->flags |= FLOAT_INEXACT;
        return n.sign ? 0 - magnitude : magnitude;
    }
    status->flags |= FLOAT_INVALID;
    if (status->policy->to_int == FLOAT_INT_INDEFINITE)
        return range.indefinite;
    if (is_nan(n))
        return status->policy->to_int == FLOAT_INT_SATURATE_NAN_MAX ? range.max_positive : 0;
    return n.sign ? 0 - range.max_negative : range.max_positive;
}

INLINE uint64_t from_integer(struct format f, bool sign, uint64_t magnitude, struct float_status *status)
{
    if (!magnitude)
        return 0;
    unsigned top = highest_bit(magnitude);
    uint64_t significand =
        top > INTEGER_BIT ? shift_right_jam(magnitude, top - INTEGER_BIT) : magnitude << (INTEGER_BIT - top);
    return round_pack(f, sign, (int)top, significand, status);
}

#define I32_RANGE ((struct integer_range){INT32_MAX, 1ull << 31, 1ull << 31})
#define U32_RANGE ((struct integer_range){UINT32_MAX, 0, UINT32_MAX})
#define I64_RANGE ((struct integer_range){INT64_MAX, 1ull << 63, 1ull << 63})
#define U64_RANGE ((struct integer_range){UINT64_MAX, 0, UINT64_MAX})

/* The public functions, a set a format -------------------------------------------------------------------------------
 */

#define FLOAT_DEFINE(f, format, type)                                                                                  \
    type f##_add(type a, type b, struct float_status *status)                                                          \
    {                                                                                                                  \
        return (type)add(format, a, b, false, status);                                                                 \
    }                                                                                                                  \
    type f##_sub(type a, type b, struct float_status *status)                                                          \
    {                                                                                                                  \
        return (type)add(format, a, b, true, status);                                                                  \
    }                                                                                                                  \
    type f##_mul(type a, type b, struct float_status *status)                                                          \
    {                                                                                                                  \
        return (type)mul(format, a, b, status);                                                                        \
    }                                                                                                                  \
    type f##_div(type a, type b, struct float_status *status)                                                          \
    {                                                                                                                  \
        return (type)divide(format, a, b, status);                                                                     \
    }                                                                                                                  \
    type f##_sqrt(type a, struct float_status *status)                                                                 \
    {                                                                                                                  \
        return (type)square_root(format, a, status);                                                                   \
    }                                                                                                                  \
    type f##_fma(type a, type b, type c, unsigned negate, struct float_status *status)                                 \
    {                                                                                                                  \
        return (type)fused(format, a, b, c, negate, status);                                                           \
    }                                                                                                                  \
    type f##_round_to_integral(type a, bool exact, struct float_status *status)                                        \
    {                                                                                                                  \
        return (type)round_integral(format, a, exact, status);                                                         \
    }                                                                                                                  \
    type f##_min_num(type a, type b, struct float_status *status)                                                      \
    {                                                                                                                  \
        return (type)min_max(format, a, b, false, status);                                                             \
    }                                                                                                                  \
    type f##_max_num(type a, type b, struct float_status *status)                                                      \
    {                                                                                                                  \
        return (type)min_max(format, a, b, true, status);                                                              \
    }                                                                                                                  \
    bool f##_eq(type a, type b, struct float_status *status)                                                           \
    {                                                                                                                  \
        return compare(format, a, b, true, status) == EQUAL;                                                           \
    }                                                                                                                  \
    bool f##_lt(type a, type b, struct float_status *status)                                                           \
    {                                                                                                                  \
        return compare(format, a, b, false, status) == LESS;                                                           \
    }                                                                                                                  \
    bool f##_le(type a, type b, struct float_status *status)                                                           \
    {                                                                                                                  \
        return compare(format, a, b, false, status) <= EQUAL;                                                          \
    }                                                                                                                  \
    unsigned f##_class(type a)                                                                                         \
    {                                                                                                                  \
        return classify(format, a);                                                                                    \
    }                                                                                                                  \
    int32_t f##_to_i32(type a, struct float_status *status)                                                            \
    {                                                                                                                  \
        return (int32_t)to_integer(format, a, I32_RANGE, status);                                                      \
    }                                                                                                                  \
    uint32_t f##_to_u32(type a, struct float_status *status)                                                           \
    {                                                                                                                  \
        return (uint32_t)to_integer(format, a, U32_RANGE, status);                                                     \
    }                                                                                                                  \
    int64_t f##_to_i64(type a, struct float_status *status)                                                            \
    {                                                                                                                  \
        return (int64_t)to_integer(format, a, I64_RANGE, status);                                                      \
    }                                                                                                                  \
    uint64_t f##_to_u64(type a, struct float_status *status)                                                           \
    {                                                                                                                  \
        return to_integer(format, a, U64_RANGE, status);                                                               \
    }                                                                                                                  \
    type i32_to_##f(int32_t a, struct float_status *status)                                                            \
    {                                                                                                                  \
        return i64_to_##f(a, status);                                                                                  \
    }                                                                                                                  \
    type u32_to_##f(uint32_t a, struct float_status *status)                                                           \
    {                                                                                                                  \
        return (type)from_integer(format, false, a, status);                                                           \
    }                                                                                                                  \
    type i64_to_##f(int64_t a, struct float_status *status)                                                            \
    {                                                                                                                  \
        return (type)from_integer(format, a < 0, a < 0 ? 0 - (uint64_t)a : (uint64_t)a, status);                       \
    }                                                                                                                  \
    type u64_to_##f(uint64_t a, struct float_status *status)                                                           \
    {                                                                                                                  \
        return (type)from_integer(format, false, a, status);                                                           \
    }

FLOAT_DEFINE(f16, F16, uint16_t)
FLOAT_DEFINE(f32, F32, uint32_t)
FLOAT_DEFINE(f64, F64, uint64_t)

uint64_t f32_to_f64(uint32_t a, struct float_status *status)
{
    return convert(F32, F64, a, status);
}

uint32_t f64_to_f32(uint64_t a, struct float_status *status)
{
    return (uint32_t)convert(F64, F32, a, status);
}

uint32_t f16_to_f32(uint16_t a, struct float_status *status)
{
    return (uint32_t)convert(F16, F32, a, status);
}

uint16_t f32_to_f16(uint32_t a, struct float_status *status)
{
    return (uint16_t)convert(F32, F16, a, status);
}

uint64_t f16_to_f64(uint16_t a, struct float_status *status)
{
    return convert(F16, F64, a, status);
}

uint16_t f64_to_f16(uint64_t a, struct float_status *status)
{
    return (uint16_t)convert(F64, F16, a, status);
}
