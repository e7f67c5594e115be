/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer operations on elements of BITS bits; WIDE, HALF, QUARTER and EIGHTH are the other widths of conversions,
 * where there are such. Included by integer.c only.
 *
 * In an operation's expression a is the element of vs2, b that of vs1, the scalar or the immediate, c the old one of
 * vd; in names: U unsigned, S signed, P at least as wide as int (products of U would be signed ints).
 */
#define U VECTOR_PASTE(vector_u, BITS)
#define S VECTOR_PASTE(vector_s, BITS)
#define NAME(op) VECTOR_PASTE(op##_, BITS)
#if BITS == 64
#define P uint64_t
#define PRODUCT __int128
#define UPRODUCT unsigned __int128
#elif BITS == 32
#define P uint32_t
#define PRODUCT int64_t
#define UPRODUCT uint64_t
#else
#define P uint32_t
#define PRODUCT int32_t
#define UPRODUCT uint32_t
#endif
#define MOST_NEGATIVE ((U)1 << (BITS - 1))

#define DEFINE(op) static uint64_t NAME(op)(struct riscv_vector * v, uint64_t args, uint64_t scalar)
#define VD ((U *)vector_register(v, VECTOR_VD(args)))
#define VS1 ((const U *)vector_register(v, VECTOR_VS1(args)))
#define VS2 ((const U *)vector_register(v, VECTOR_VS2(args)))

/* ---- one width ---- */

#define TWO(op, expression)                                                                                            \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const U *from = VS2, *with = VS1;                                                                              \
        VECTOR_EACH(U a = from[i]; U b = with[i]; U c = to[i]; (void)a; (void)c; to[i] = (U)(expression);)             \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        U *to = VD, b = (U)scalar;                                                                                     \
        const U *from = VS2;                                                                                           \
        VECTOR_EACH(U a = from[i]; U c = to[i]; (void)a; (void)c; to[i] = (U)(expression);)                            \
    }

TWO(ADD, a + b)
TWO(SUB, a - b)
TWO(AND, a &b)
TWO(OR, a | b)
TWO(XOR, a ^ b)
TWO(MINU, a < b ? a : b)
TWO(MIN, (S)a < (S)b ? a : b)
TWO(MAXU, a > b ? a : b)
TWO(MAX, (S)a > (S)b ? a : b)
TWO(SLL, (P)a << (b & (BITS - 1)))
TWO(SRL, a >> (b & (BITS - 1)))
TWO(SRA, (S)a >> (b & (BITS - 1)))
TWO(MUL, (P)a *b)
TWO(MULH, (PRODUCT)(S)a *(S)b >> BITS)
TWO(MULHU, (UPRODUCT)a *b >> BITS)
TWO(MULHSU, (PRODUCT)(S)a *(PRODUCT)b >> BITS)
TWO(DIVU, b ? a / b : (U)-1)
TWO(DIV, !b ? (U)-1 : a == MOST_NEGATIVE && b == (U)-1 ? a : (U)((S)a / (S)b))
TWO(REMU, b ? a % b : a)
TWO(REM, !b ? a : b == (U)-1 ? 0 : (U)((S)a % (S)b))
TWO(MACC, (P)a *b + c)
TWO(NMSAC, c - (P)a * b)
TWO(MADD, (P)b *c + a)
TWO(NMSUB, a - (P)b * c)
TWO(SADDU, (U)(a + b) < a ? (v->vxsat = 1, (U)-1) : a + b)
TWO(SADD, clip_s(v, (__int128)(S)a + (S)b, BITS))
TWO(SSUBU, a < b ? (v->vxsat = 1, 0) : a - b)
TWO(SSUB, clip_s(v, (__int128)(S)a - (S)b, BITS))
TWO(AADDU, scale_u((unsigned __int128)a + b, 1, v->vxrm))
TWO(AADD, scale_s((__int128)(S)a + (S)b, 1, v->vxrm))
TWO(ASUBU, scale_s((__int128)a - b, 1, v->vxrm))
TWO(ASUB, scale_s((__int128)(S)a - (S)b, 1, v->vxrm))
TWO(SMUL, clip_s(v, scale_s((__int128)(S)a *(S)b, BITS - 1, v->vxrm), BITS))
TWO(SSRL, scale_u(a, b &(BITS - 1), v->vxrm))
TWO(SSRA, scale_s((S)a, b &(BITS - 1), v->vxrm))

DEFINE(RSUB_VX)
{
    U *to = VD, b = (U)scalar;
    const U *from = VS2;
    VECTOR_EACH(to[i] = (U)(b - from[i]);)
}

/* ---- v0 as an operand ---- */

#define WITH_MASK(op, expression)                                                                                      \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const U *from = VS2, *with = VS1;                                                                              \
        VECTOR_EACH_WITH_MASK(U a = from[i]; U b = with[i]; (void)a; to[i] = (U)(expression);)                         \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        U *to = VD, b = (U)scalar;                                                                                     \
        const U *from = VS2;                                                                                           \
        VECTOR_EACH_WITH_MASK(U a = from[i]; (void)a; to[i] = (U)(expression);)                                        \
    }

WITH_MASK(MERGE, in || !reads ? b : a) /* unmasked: vmv.v */
WITH_MASK(ADC, a + b + in)
WITH_MASK(SBC, a - b - in)

/* ---- masks out ---- */

#define TO_MASK(op, active_only, expression)                                                                           \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        const U *from = VS2, *with = VS1;                                                                              \
        VECTOR_EACH_BIT(active_only, ({                                                                                \
                            U a = from[i], b = with[i];                                                                \
                            expression;                                                                                \
                        }))                                                                                            \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        const U *from = VS2;                                                                                           \
        U b = (U)scalar;                                                                                               \
        VECTOR_EACH_BIT(active_only, ({                                                                                \
                            U a = from[i];                                                                             \
                            expression;                                                                                \
                        }))                                                                                            \
    }

TO_MASK(MSEQ, true, a == b)
TO_MASK(MSNE, true, a != b)
TO_MASK(MSLTU, true, a < b)
TO_MASK(MSLT, true, (S)a < (S)b)
TO_MASK(MSLEU, true, a <= b)
TO_MASK(MSLE, true, (S)a <= (S)b)
TO_MASK(MADC, false, (UPRODUCT)a + b > (U)-1)
TO_MASK(MSBC, false, a < b)
TO_MASK(MADC_IN, false, (UPRODUCT)a + b + in > (U)-1)
TO_MASK(MSBC_IN, false, a < (UPRODUCT)b + in)

DEFINE(MSGTU_VX)
{
    const U *from = VS2;
    U b = (U)scalar;
    VECTOR_EACH_BIT(true, from[i] > b)
}

DEFINE(MSGT_VX)
{
    const U *from = VS2;
    S b = (S)scalar;
    VECTOR_EACH_BIT(true, (S)from[i] > b)
}

/* ---- wider and narrower ---- */

#ifdef WIDE
#define UW VECTOR_PASTE(vector_u, WIDE)
#define SW VECTOR_PASTE(vector_s, WIDE)
#if WIDE == 64
#define PW uint64_t
#else
#define PW uint32_t
#endif

/* Wide vd, narrow vs2 and vs1. */
#define WIDEN(op, expression)                                                                                          \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        const U *from = VS2, *with = VS1;                                                                              \
        VECTOR_EACH(U a = from[i]; U b = with[i]; UW c = to[i]; (void)c; to[i] = (UW)(expression);)                    \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        U b = (U)scalar;                                                                                               \
        const U *from = VS2;                                                                                           \
        VECTOR_EACH(U a = from[i]; UW c = to[i]; (void)c; to[i] = (UW)(expression);)                                   \
    }
/* Wide vd and vs2, narrow vs1. */
#define WIDEN_W(op, expression)                                                                                        \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        const UW *from = (const UW *)VS2;                                                                              \
        const U *with = VS1;                                                                                           \
        VECTOR_EACH(UW a = from[i]; U b = with[i]; to[i] = (UW)(expression);)                                          \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        UW *to = (UW *)VD;                                                                                             \
        U b = (U)scalar;                                                                                               \
        const UW *from = (const UW *)VS2;                                                                              \
        VECTOR_EACH(UW a = from[i]; to[i] = (UW)(expression);)                                                         \
    }
/* Narrow vd, wide vs2, narrow vs1. */
#define NARROW(op, expression)                                                                                         \
    DEFINE(op##_VV)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const UW *from = (const UW *)VS2;                                                                              \
        const U *with = VS1;                                                                                           \
        VECTOR_EACH(UW a = from[i]; U b = with[i]; to[i] = (U)(expression);)                                           \
    }                                                                                                                  \
    DEFINE(op##_VX)                                                                                                    \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        U b = (U)scalar;                                                                                               \
        const UW *from = (const UW *)VS2;                                                                              \
        VECTOR_EACH(UW a = from[i]; to[i] = (U)(expression);)                                                          \
    }
#define WU(x) ((PW)(x))            /* widened without sign */
#define WS(x) ((PW)(UW)(SW)(S)(x)) /* and with */

WIDEN(WADDU, WU(a) + WU(b))
WIDEN(WADD, WS(a) + WS(b))
WIDEN(WSUBU, WU(a) - WU(b))
WIDEN(WSUB, WS(a) - WS(b))
WIDEN(WMULU, WU(a) * WU(b))
WIDEN(WMUL, WS(a) * WS(b))
WIDEN(WMULSU, WS(a) * WU(b))
WIDEN(WMACCU, c + WU(a) * WU(b))
WIDEN(WMACC, c + WS(a) * WS(b))
WIDEN(WMACCSU, c + WU(a) * WS(b)) /* vs1 is the signed one */
WIDEN_W(WADDU_W, a + WU(b))
WIDEN_W(WADD_W, a + WS(b))
WIDEN_W(WSUBU_W, a - WU(b))
WIDEN_W(WSUB_W, a - WS(b))
NARROW(NSRL, a >> (b & (WIDE - 1)))
NARROW(NSRA, (SW)a >> (b & (WIDE - 1)))
NARROW(NCLIPU, clip_u(v, (__int128)scale_u(a, b &(WIDE - 1), v->vxrm), BITS))
NARROW(NCLIP, clip_s(v, scale_s((SW)a, b &(WIDE - 1), v->vxrm), BITS))

DEFINE(WMACCUS_VX) /* the scalar is the unsigned one */
{
    UW *to = (UW *)VD;
    const U *from = VS2;
    U b = (U)scalar;
    VECTOR_EACH(to[i] = (UW)(to[i] + WS(from[i]) * WU(b));)
}
#endif

#define EXTEND(op, from_type)                                                                                          \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        U *to = VD;                                                                                                    \
        const from_type *from = (const from_type *)VS2;                                                                \
        VECTOR_EACH(to[i] = (U)(S)from[i];)                                                                            \
    }
#ifdef HALF
EXTEND(ZEXT2, VECTOR_PASTE(vector_u, HALF))
EXTEND(SEXT2, VECTOR_PASTE(vector_s, HALF))
#endif
#ifdef QUARTER
EXTEND(ZEXT4, VECTOR_PASTE(vector_u, QUARTER))
EXTEND(SEXT4, VECTOR_PASTE(vector_s, QUARTER))
#endif
#ifdef EIGHTH
EXTEND(ZEXT8, VECTOR_PASTE(vector_u, EIGHTH))
EXTEND(SEXT8, VECTOR_PASTE(vector_s, EIGHTH))
#endif

/* ---- reductions: element 0 of vs1 with all active ones of vs2 ---- */

#define REDUCE(op, sum_type, expression)                                                                               \
    DEFINE(op)                                                                                                         \
    {                                                                                                                  \
        const U *from = VS2;                                                                                           \
        sum_type a = *(const sum_type *)VS1;                                                                           \
        uint64_t count = v->vl;                                                                                        \
        const uint8_t *mask = v->reg;                                                                                  \
        if (!count)                                                                                                    \
            return 0;                                                                                                  \
        if (VECTOR_VM(args)) {                                                                                         \
            for (uint64_t i = 0; i < count; i++) {                                                                     \
                U b = from[i];                                                                                         \
                a = (sum_type)(expression);                                                                            \
            }                                                                                                          \
        } else {                                                                                                       \
            for (uint64_t i = 0; i < count; i++) {                                                                     \
                U b = from[i];                                                                                         \
                if (vector_mask_bit(mask, i))                                                                          \
                    a = (sum_type)(expression);                                                                        \
            }                                                                                                          \
        }                                                                                                              \
        *(sum_type *)VD = a;                                                                                           \
        return 0;                                                                                                      \
    }

REDUCE(REDSUM, U, a + b)
REDUCE(REDAND, U, a &b)
REDUCE(REDOR, U, a | b)
REDUCE(REDXOR, U, a ^ b)
REDUCE(REDMINU, U, a < b ? a : b)
REDUCE(REDMIN, U, (S)a < (S)b ? a : b)
REDUCE(REDMAXU, U, a > b ? a : b)
REDUCE(REDMAX, U, (S)a > (S)b ? a : b)
#ifdef WIDE
REDUCE(WREDSUMU, UW, a + WU(b))
REDUCE(WREDSUM, UW, a + WS(b))
#endif

#undef U
#undef S
#undef NAME
#undef P
#undef PRODUCT
#undef UPRODUCT
#undef MOST_NEGATIVE
#undef DEFINE
#undef VD
#undef VS1
#undef VS2
#undef TWO
#undef WITH_MASK
#undef TO_MASK
#undef EXTEND
#undef REDUCE
#ifdef UW
#undef UW
#undef SW
#undef PW
#undef WIDEN
#undef WIDEN_W
#undef NARROW
#undef WU
#undef WS
#endif
