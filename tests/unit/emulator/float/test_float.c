/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, guest programs get wrong floating-point results or flags.
 * The host's FPU is the oracle: it agrees with the RISC-V policy in everything but the pattern of NaNs (tininess after
 * rounding on both). What the host cannot do (round to nearest away, tininess before rounding, binary16) is checked
 * against exact examples.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "emulator/float/float.h"

#define MXCSR_MASKED 0x1f80u
static const unsigned host_rounding[4] = {0, 3u << 13, 1u << 13, 2u << 13}; /* our order: even, zero, down, up */

static uint64_t rng_state = 42;

static uint64_t random64(void)
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* Operands that reach the corners: special exponents, few fraction bits, neighbours of powers of two. */
static uint64_t operand(int fraction_bits, int exponent_bits)
{
    uint64_t r = random64();
    uint64_t all = (1ull << exponent_bits) - 1, bias = all >> 1;
    uint64_t exponents[] = {0,
                            0,
                            1,
                            all,
                            all - 1,
                            bias,
                            bias + (r >> 8 & 31) - 16,
                            bias + (uint64_t)fraction_bits + (r >> 9 & 3),
                            random64() & all,
                            2,
                            bias - (uint64_t)fraction_bits,
                            bias + 63,
                            bias + 31,
                            bias + 62,
                            random64() & all,
                            bias + (r >> 10 & 127) - 64};
    uint64_t fraction = random64();
    switch (r >> 4 & 7) {
    case 0: fraction = 0; break;
    case 1: fraction = ~0ull; break;
    case 2: fraction = 1; break;
    case 3: fraction = 1ull << (random64() % (unsigned)fraction_bits); break;
    case 4: fraction = ~0ull << (random64() % (unsigned)fraction_bits); break;
    default: break;
    }
    return (r >> 3 & 1) << (fraction_bits + exponent_bits) | (exponents[r >> 56 & 15] & all) << fraction_bits |
           (fraction & ((1ull << fraction_bits) - 1));
}

static uint8_t host_flags(unsigned csr)
{
    return (uint8_t)((csr >> 5 & 1) | (csr >> 4 & 1) << 1 | (csr >> 3 & 1) << 2 | (csr >> 2 & 1) << 3 | (csr & 1) << 4);
}

#define WITH_HOST(mode, flags, ...)                                                                                    \
    do {                                                                                                               \
        _mm_setcsr(MXCSR_MASKED | host_rounding[mode]);                                                                \
        __asm__ volatile("" ::: "memory");                                                                             \
        __VA_ARGS__;                                                                                                   \
        __asm__ volatile("" ::: "memory");                                                                             \
        (flags) = host_flags(_mm_getcsr());                                                                            \
        _mm_setcsr(MXCSR_MASKED);                                                                                      \
    } while (0)

enum operation { ADD, SUB, MUL, DIV, SQRT, FMA, EQ, LT, LE, TO_I32, TO_I64, FROM_I64, FROM_I32, WIDTH, OPERATIONS };

#define DEFINE_CHECK(name, f, type, real, suffix, scalar, fb, eb, other_type, other_convert)                           \
    __attribute__((target("fma"))) static void name(enum operation op, unsigned mode)                                  \
    {                                                                                                                  \
        struct float_status status = {.policy = &float_policy_riscv, .rounding = mode};                                \
        type a = (type)operand(fb, eb), b = (type)operand(fb, eb), c = (type)operand(fb, eb);                          \
        volatile real x, y, z, r = 0;                                                                                  \
        memcpy((void *)&x, &a, sizeof a);                                                                              \
        memcpy((void *)&y, &b, sizeof b);                                                                              \
        memcpy((void *)&z, &c, sizeof c);                                                                              \
        uint8_t flags = 0;                                                                                             \
        type ours = 0;                                                                                                 \
        int64_t ours_int = 0, host_int = 0;                                                                            \
        bool integer = false;                                                                                          \
        switch (op) {                                                                                                  \
        case ADD:                                                                                                      \
            WITH_HOST(mode, flags, r = x + y);                                                                         \
            ours = f##_add(a, b, &status);                                                                             \
            break;                                                                                                     \
        case SUB:                                                                                                      \
            WITH_HOST(mode, flags, r = x - y);                                                                         \
            ours = f##_sub(a, b, &status);                                                                             \
            break;                                                                                                     \
        case MUL:                                                                                                      \
            WITH_HOST(mode, flags, r = x * y);                                                                         \
            ours = f##_mul(a, b, &status);                                                                             \
            break;                                                                                                     \
        case DIV:                                                                                                      \
            WITH_HOST(mode, flags, r = x / y);                                                                         \
            ours = f##_div(a, b, &status);                                                                             \
            break;                                                                                                     \
        case SQRT:                                                                                                     \
            WITH_HOST(mode, flags, r = scalar(_mm_sqrt_p##suffix(_mm_set_s##suffix(x))));                              \
            ours = f##_sqrt(a, &status);                                                                               \
            break;                                                                                                     \
        case FMA: {                                                                                                    \
            WITH_HOST(                                                                                                 \
                mode, flags,                                                                                           \
                r = scalar(_mm_fmadd_s##suffix(_mm_set_s##suffix(x), _mm_set_s##suffix(y), _mm_set_s##suffix(z))));    \
            ours = f##_fma(a, b, c, 0, &status);                                                                       \
            /* Only RISC-V raises invalid for inf * 0 + qNaN. */                                                       \
            if (isnan(z) && ((isinf(x) && y == 0) || (x == 0 && isinf(y))))                                            \
                flags |= FLOAT_INVALID;                                                                                \
            break;                                                                                                     \
        }                                                                                                              \
        case EQ:                                                                                                       \
            WITH_HOST(mode, flags, host_int = _mm_ucomieq_s##suffix(_mm_set_s##suffix(x), _mm_set_s##suffix(y)));      \
            integer = true;                                                                                            \
            ours_int = f##_eq(a, b, &status);                                                                          \
            if (isnan(x) || isnan(y))                                                                                  \
                host_int = 0;                                                                                          \
            break;                                                                                                     \
        case LT:                                                                                                       \
            WITH_HOST(mode, flags, host_int = _mm_comilt_s##suffix(_mm_set_s##suffix(x), _mm_set_s##suffix(y)));       \
            integer = true;                                                                                            \
            ours_int = f##_lt(a, b, &status);                                                                          \
            if (isnan(x) || isnan(y))                                                                                  \
                host_int = 0;                                                                                          \
            break;                                                                                                     \
        case LE:                                                                                                       \
            WITH_HOST(mode, flags, host_int = _mm_comile_s##suffix(_mm_set_s##suffix(x), _mm_set_s##suffix(y)));       \
            integer = true;                                                                                            \
            ours_int = f##_le(a, b, &status);                                                                          \
            if (isnan(x) || isnan(y))                                                                                  \
                host_int = 0;                                                                                          \
            break;                                                                                                     \
        case TO_I32:                                                                                                   \
            WITH_HOST(mode, flags, host_int = _mm_cvts##suffix##_si32(_mm_set_s##suffix(x)));                          \
            integer = true;                                                                                            \
            status.policy = &float_policy_x86;                                                                         \
            ours_int = f##_to_i32(a, &status);                                                                         \
            break;                                                                                                     \
        case TO_I64:                                                                                                   \
            WITH_HOST(mode, flags, host_int = _mm_cvts##suffix##_si64(_mm_set_s##suffix(x)));                          \
            integer = true;                                                                                            \
            status.policy = &float_policy_x86;                                                                         \
            ours_int = f##_to_i64(a, &status);                                                                         \
            break;                                                                                                     \
        case FROM_I64: {                                                                                               \
            volatile int64_t i = (int64_t)(random64() >> (random64() & 63)) * (random64() & 1 ? 1 : -1);               \
            WITH_HOST(mode, flags, r = (real)i);                                                                       \
            ours = i64_to_##f(i, &status);                                                                             \
            break;                                                                                                     \
        }                                                                                                              \
        case FROM_I32: {                                                                                               \
            volatile int32_t i = (int32_t)random64();                                                                  \
            WITH_HOST(mode, flags, r = (real)i);                                                                       \
            ours = i32_to_##f(i, &status);                                                                             \
            break;                                                                                                     \
        }                                                                                                              \
        case WIDTH: {                                                                                                  \
            volatile other_type w = 0;                                                                                 \
            WITH_HOST(mode, flags, w = (other_type)x);                                                                 \
            uint64_t wide = other_convert(a, &status), host_bits = 0;                                                  \
            memcpy(&host_bits, (void *)&w, sizeof w);                                                                  \
            if (!isnan(x))                                                                                             \
                assert_int_equal(wide, host_bits);                                                                     \
            assert_int_equal(status.flags, flags);                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
        default: return;                                                                                               \
        }                                                                                                              \
        type host;                                                                                                     \
        memcpy(&host, (void *)&r, sizeof host);                                                                        \
        bool nan_result = isnan(r) && !integer;                                                                        \
        if (nan_result ? ours != ((((1ull << eb) - 1) << fb) | 1ull << (fb - 1))                                       \
            : integer  ? ours_int != host_int                                                                          \
                       : ours != host)                                                                                  \
            fail_msg(#f " op %d mode %u: %llx %llx %llx: ours %llx host %llx (int %lld %lld)", op, mode,               \
                     (unsigned long long)a, (unsigned long long)b, (unsigned long long)c, (unsigned long long)ours,    \
                     (unsigned long long)host, (long long)ours_int, (long long)host_int);                              \
        if (status.flags != flags)                                                                                     \
            fail_msg(#f " op %d mode %u: %llx %llx %llx: flags ours %x host %x", op, mode, (unsigned long long)a,      \
                     (unsigned long long)b, (unsigned long long)c, status.flags, flags);                               \
    }

DEFINE_CHECK(check_f64, f64, uint64_t, double, d, _mm_cvtsd_f64, 52, 11, float, f64_to_f32)
DEFINE_CHECK(check_f32, f32, uint32_t, float, s, _mm_cvtss_f32, 23, 8, double, f32_to_f64)

static void agrees_with_host(void **state)
{
    (void)state;
    for (int round = 0; round < 60000; round++)
        for (unsigned mode = 0; mode < 4; mode++)
            for (enum operation op = 0; op < OPERATIONS; op++) {
                check_f64(op, mode);
                check_f32(op, mode);
            }
}

static void nearest_away(void **state)
{
    (void)state;
    struct float_status status = {.policy = &float_policy_riscv, .rounding = FLOAT_ROUND_NEAREST_AWAY};
    assert_int_equal(f64_to_i32(0x3fe0000000000000, &status), 1);  /* 0.5 */
    assert_int_equal(f64_to_i32(0x4004000000000000, &status), 3);  /* 2.5 */
    assert_int_equal(f64_to_i32(0xc004000000000000, &status), -3); /* -2.5 */
    assert_int_equal(status.flags, FLOAT_INEXACT);
    status.flags = 0;
    assert_int_equal(f32_add(0x4b800000, 0x3f800000, &status), 0x4b800001);         /* 2^24 + 1 is a tie, goes up */
    assert_int_equal(f32_round_to_integral(0x3fc00000, true, &status), 0x40000000); /* 1.5 -> 2 */
}

static void saturation(void **state)
{
    (void)state;
    struct float_status status = {.policy = &float_policy_riscv};
    assert_int_equal(f64_to_i32(0x7ff8000000000000, &status), INT32_MAX);
    assert_int_equal(f64_to_u64(0xfff0000000000000, &status), 0);
    assert_true(f64_to_u64(0x43f0000000000000, &status) == UINT64_MAX); /* 2^64 */
    assert_int_equal(status.flags, FLOAT_INVALID);
    status.flags = 0;
    assert_true(f64_to_u64(0x43efffffffffffff, &status) == 0xfffffffffffff800);
    assert_int_equal(f64_to_u32(0xbfd0000000000000, &status), 0); /* -0.25 rounds to -0: in range */
    assert_int_equal(status.flags, FLOAT_INEXACT);
    status.policy = &float_policy_arm;
    assert_int_equal(f32_to_i64(0x7fc00000, &status), 0);
}

static void tininess(void **state)
{
    (void)state;
    /* (1 - 2^-53) * 2^-1022 rounds up to the smallest normal number: tiny before rounding; after rounding with an
     * unbounded exponent it is still 0.111..1 (53 ones fit), so it is tiny there too. One more bit makes the
     * difference. */
    uint64_t smallest = 0x0010000000000000, below_one = 0x3fefffffffffffff;
    struct float_status after = {.policy = &float_policy_riscv}, before = {.policy = &float_policy_arm};
    assert_true(f64_mul(smallest, below_one, &after) == smallest);
    assert_int_equal(after.flags, FLOAT_INEXACT | FLOAT_UNDERFLOW);
    /* 2^-1022 - 2^-1074 * 2^-3 by fma: exact value rounds to 2^-1022 even with unbounded exponent. */
    uint64_t tiny = 1, eighth = 0xbfc0000000000000;
    after.flags = before.flags = 0;
    assert_true(f64_fma(tiny, eighth, smallest, 0, &after) == smallest);
    assert_int_equal(after.flags, FLOAT_INEXACT);
    assert_true(f64_fma(tiny, eighth, smallest, 0, &before) == smallest);
    assert_int_equal(before.flags, FLOAT_INEXACT | FLOAT_UNDERFLOW);
}

static void nan_policies(void **state)
{
    (void)state;
    struct float_status arm = {.policy = &float_policy_arm}, x86 = {.policy = &float_policy_x86},
                        riscv = {.policy = &float_policy_riscv};
    uint64_t quiet = 0x7ff8000000000123, signaling = 0xfff0000000000456;
    assert_true(f64_add(quiet, signaling, &arm) == 0xfff8000000000456);
    assert_true(f64_add(quiet, signaling, &x86) == quiet);
    assert_true(f64_add(quiet, signaling, &riscv) == 0x7ff8000000000000);
    assert_int_equal(arm.flags & x86.flags & riscv.flags, FLOAT_INVALID);
    assert_true(f64_sub(0x7ff0000000000000, 0x7ff0000000000000, &x86) == 0xfff8000000000000);
}

static void min_max_and_class(void **state)
{
    (void)state;
    struct float_status status = {.policy = &float_policy_riscv};
    assert_true(f64_min_num(0, 1ull << 63, &status) == 1ull << 63);
    assert_int_equal(f64_max_num(0, 1ull << 63, &status), 0);
    assert_int_equal(f32_min_num(0x7fc00000, 0x3f800000, &status), 0x3f800000);
    assert_int_equal(status.flags, 0);
    assert_int_equal(f32_max_num(0x7f800001, 0x3f800000, &status), 0x3f800000);
    assert_int_equal(status.flags, FLOAT_INVALID);
    const uint32_t classes[10] = {0xff800000, 0xbf800000, 0x80000001, 0x80000000, 0,
                                  1,          0x3f800000, 0x7f800000, 0x7f800001, 0x7fc00000};
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(f32_class(classes[i]), 1u << i);
}

/* Every binary16 value goes to binary32 and binary64 and back unchanged; sums agree with sums in binary64 rounded once
 * (exact there). */
static void half_precision(void **state)
{
    (void)state;
    struct float_status status = {.policy = &float_policy_riscv};
    for (uint32_t a = 0; a < 0x10000; a++) {
        if ((a & 0x7fff) > 0x7c00)
            continue;
        assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)a, &status), &status), a);
        assert_int_equal(f64_to_f16(f16_to_f64((uint16_t)a, &status), &status), a);
        uint16_t b = (uint16_t)random64();
        if ((b & 0x7fff) > 0x7c00)
            continue;
        struct float_status wide = {.policy = &float_policy_riscv}, narrow = wide;
        uint16_t expected = f64_to_f16(f64_mul(f16_to_f64((uint16_t)a, &wide), f16_to_f64(b, &wide), &wide), &wide);
        assert_int_equal(f16_mul((uint16_t)a, b, &narrow), expected);
        assert_int_equal(narrow.flags, wide.flags);
    }
    assert_int_equal(status.flags, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_host), cmocka_unit_test(nearest_away), cmocka_unit_test(saturation),
        cmocka_unit_test(tininess),         cmocka_unit_test(nan_policies), cmocka_unit_test(min_max_and_class),
        cmocka_unit_test(half_precision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
