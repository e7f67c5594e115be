/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Binary floating point in software: IEEE 754-2019 binary16, binary32 and binary64 with every rounding direction, all
 * five exception flags, and the choices that the standard leaves to an architecture as a policy. Values travel as their
 * bit patterns.
 *
 * This is the slow path behind translated code (host instructions do the common cases) and the oracle in tests. One
 * instance of struct float_status a caller; flags only accumulate. Nothing here uses the host's floating point or
 * yields.
 *
 * Names: f64_add, f32_fma, ... ; conversions are from_to: f64_to_i32, u64_to_f32, f32_to_f64.
 */
#ifndef EMULATOR_FLOAT_FLOAT_H
#define EMULATOR_FLOAT_FLOAT_H

#include <stdbool.h>
#include <stdint.h>

enum float_rounding {
    FLOAT_ROUND_NEAREST_EVEN,
    FLOAT_ROUND_TO_ZERO,
    FLOAT_ROUND_DOWN,
    FLOAT_ROUND_UP,
    FLOAT_ROUND_NEAREST_AWAY, /* RISC-V RMM, Arm FPRounding_TIEAWAY */
    FLOAT_ROUND_ODD,
};

/* The values are those of RISC-V's fflags; other guests translate. */
enum float_flag {
    FLOAT_INEXACT = 1,
    FLOAT_UNDERFLOW = 2,
    FLOAT_OVERFLOW = 4,
    FLOAT_DIVIDE_BY_ZERO = 8,
    FLOAT_INVALID = 16,
};

enum float_nan_rule {
    FLOAT_NAN_DEFAULT,         /* every NaN result is the default NaN (RISC-V, Arm with FPCR.DN) */
    FLOAT_NAN_SIGNALING_FIRST, /* first signaling operand, then first quiet one, quieted (Arm) */
    FLOAT_NAN_FIRST,           /* first operand that is a NaN, quieted (x86 SSE) */
};

enum float_to_int_rule {
    FLOAT_INT_SATURATE_NAN_MAX,  /* RISC-V */
    FLOAT_INT_SATURATE_NAN_ZERO, /* Arm */
    FLOAT_INT_INDEFINITE,        /* x86: only the most negative value (all ones when unsigned) */
};

struct float_policy {
    enum float_nan_rule nan_rule;
    enum float_to_int_rule to_int;
    bool default_nan_negative;     /* x86 */
    bool tininess_before_rounding; /* Arm, Power */
    bool fma_invalid_with_nan;     /* inf * 0 + qNaN raises invalid (RISC-V: yes) */
};

extern const struct float_policy float_policy_riscv;
extern const struct float_policy float_policy_arm;
extern const struct float_policy float_policy_x86;

struct float_status {
    const struct float_policy *policy;
    enum float_rounding rounding;
    uint8_t flags; /* enum float_flag, sticky */
};

/* Bits of f*_class(), the order of RISC-V's fclass. */
enum float_class {
    FLOAT_CLASS_NEGATIVE_INFINITY = 1 << 0,
    FLOAT_CLASS_NEGATIVE_NORMAL = 1 << 1,
    FLOAT_CLASS_NEGATIVE_SUBNORMAL = 1 << 2,
    FLOAT_CLASS_NEGATIVE_ZERO = 1 << 3,
    FLOAT_CLASS_POSITIVE_ZERO = 1 << 4,
    FLOAT_CLASS_POSITIVE_SUBNORMAL = 1 << 5,
    FLOAT_CLASS_POSITIVE_NORMAL = 1 << 6,
    FLOAT_CLASS_POSITIVE_INFINITY = 1 << 7,
    FLOAT_CLASS_SIGNALING_NAN = 1 << 8,
    FLOAT_CLASS_QUIET_NAN = 1 << 9,
};

/* Sign changes of a fused multiply-add: (product ± addend), as the mnemonics fmsub, fnmsub, fnmadd want them. Not
 * applied to NaNs. */
enum float_fma_flags { FLOAT_NEGATE_PRODUCT = 1, FLOAT_NEGATE_ADDEND = 2 };

#define FLOAT_DECLARE(f, type)                                                                                         \
    type f##_add(type a, type b, struct float_status *status);                                                         \
    type f##_sub(type a, type b, struct float_status *status);                                                         \
    type f##_mul(type a, type b, struct float_status *status);                                                         \
    type f##_div(type a, type b, struct float_status *status);                                                         \
    type f##_sqrt(type a, struct float_status *status);                                                                \
    type f##_fma(type a, type b, type c, unsigned negate, struct float_status *status); /* a * b + c, one rounding */  \
    type f##_round_to_integral(type a, bool exact, struct float_status *status);        /* exact: raise inexact */     \
    /* IEEE 754-2019 minimumNumber, maximumNumber: -0 below +0, a number wins over a NaN */                            \
    type f##_min_num(type a, type b, struct float_status *status);                                                     \
    type f##_max_num(type a, type b, struct float_status *status);                                                     \
    bool f##_eq(type a, type b, struct float_status *status); /* quiet: invalid only for signaling NaNs */             \
    bool f##_lt(type a, type b, struct float_status *status); /* signaling: invalid for every NaN */                   \
    bool f##_le(type a, type b, struct float_status *status);                                                          \
    unsigned f##_class(type a); /* one bit of enum float_class */                                                      \
    int32_t f##_to_i32(type a, struct float_status *status);                                                           \
    uint32_t f##_to_u32(type a, struct float_status *status);                                                          \
    int64_t f##_to_i64(type a, struct float_status *status);                                                           \
    uint64_t f##_to_u64(type a, struct float_status *status);                                                          \
    type i32_to_##f(int32_t a, struct float_status *status);                                                           \
    type u32_to_##f(uint32_t a, struct float_status *status);                                                          \
    type i64_to_##f(int64_t a, struct float_status *status);                                                           \
    type u64_to_##f(uint64_t a, struct float_status *status)

FLOAT_DECLARE(f16, uint16_t);
FLOAT_DECLARE(f32, uint32_t);
FLOAT_DECLARE(f64, uint64_t);

uint64_t f32_to_f64(uint32_t a, struct float_status *status);
uint32_t f64_to_f32(uint64_t a, struct float_status *status);
uint32_t f16_to_f32(uint16_t a, struct float_status *status);
uint16_t f32_to_f16(uint32_t a, struct float_status *status);
uint64_t f16_to_f64(uint16_t a, struct float_status *status);
uint16_t f64_to_f16(uint64_t a, struct float_status *status);

#endif
