/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chapters "Vector Integer Arithmetic", "Fixed-Point Arithmetic" and "Reduction" of the V extension. integer_width.h is
 * the body for one width, included for each.
 */
#include <stddef.h>
#include "emulator/cpu/riscv/vector/loops.h"

/* What is added to value >> shift (chapter "vxrm"). */
static inline unsigned increment(unsigned __int128 value, unsigned shift, unsigned mode)
{
    unsigned __int128 one = 1, below = value & ((one << shift) - 1);
    bool half = shift && (value >> (shift - 1) & 1), odd = value >> shift & 1;

    if (!shift)
        return 0;
    switch (mode) {
    case VECTOR_RNU: return half;
    case VECTOR_RNE: return half && ((below & ((one << (shift - 1)) - 1)) || odd);
    case VECTOR_ROD: return !odd && below;
    default: return 0;
    }
}

static inline unsigned __int128 scale_u(unsigned __int128 value, unsigned shift, unsigned mode)
{
    return (value >> shift) + increment(value, shift, mode);
}

static inline __int128 scale_s(__int128 value, unsigned shift, unsigned mode)
{
    return (value >> shift) + increment((unsigned __int128)value, shift, mode);
}

/* Clipped to a signed or unsigned number of so many bits; what was clipped is remembered in vxsat. */
static inline __int128 clip_s(struct riscv_vector *v, __int128 value, unsigned bits)
{
    __int128 limit = (__int128)1 << (bits - 1);

    if (value >= -limit && value < limit)
        return value;
    v->vxsat = 1;
    return value < 0 ? -limit : limit - 1;
}

static inline __int128 clip_u(struct riscv_vector *v, __int128 value, unsigned bits)
{
    __int128 limit = (__int128)1 << bits;

    if (value >= 0 && value < limit)
        return value;
    v->vxsat = 1;
    return value < 0 ? 0 : limit - 1;
}

#define BITS 8
#define WIDE 16
#include "emulator/cpu/riscv/vector/integer_width.h"
#undef BITS
#undef WIDE
#define BITS 16
#define WIDE 32
#define HALF 8
#include "emulator/cpu/riscv/vector/integer_width.h"
#undef BITS
#undef WIDE
#undef HALF
#define BITS 32
#define WIDE 64
#define HALF 16
#define QUARTER 8
#include "emulator/cpu/riscv/vector/integer_width.h"
#undef BITS
#undef WIDE
#undef HALF
#undef QUARTER
#define BITS 64
#define HALF 32
#define QUARTER 16
#define EIGHTH 8
#include "emulator/cpu/riscv/vector/integer_width.h"

/* ---- the table: by SEW, which is the narrow width of those that widen or narrow ---- */

#define ALL(name) [VECTOR_##name] = {name##_8, name##_16, name##_32, name##_64}
#define NOT_64(name) [VECTOR_##name] = {name##_8, name##_16, name##_32, NULL}
#define PAIR(name) ALL(name##_VV), ALL(name##_VX)
#define WIDENING(name) NOT_64(name##_VV), NOT_64(name##_VX)

vector_row vector_integer[VECTOR_INTEGER_COUNT] = {
    PAIR(ADD),
    PAIR(SUB),
    PAIR(AND),
    PAIR(OR),
    PAIR(XOR),
    PAIR(MINU),
    PAIR(MIN),
    PAIR(MAXU),
    PAIR(MAX),
    PAIR(SLL),
    PAIR(SRL),
    PAIR(SRA),
    PAIR(MUL),
    PAIR(MULH),
    PAIR(MULHU),
    PAIR(MULHSU),
    PAIR(DIVU),
    PAIR(DIV),
    PAIR(REMU),
    PAIR(REM),
    PAIR(MACC),
    PAIR(NMSAC),
    PAIR(MADD),
    PAIR(NMSUB),
    PAIR(MERGE),
    PAIR(ADC),
    PAIR(SBC),
    PAIR(MADC),
    PAIR(MSBC),
    PAIR(MADC_IN),
    PAIR(MSBC_IN),
    PAIR(MSEQ),
    PAIR(MSNE),
    PAIR(MSLTU),
    PAIR(MSLT),
    PAIR(MSLEU),
    PAIR(MSLE),
    WIDENING(WADDU),
    WIDENING(WADD),
    WIDENING(WSUBU),
    WIDENING(WSUB),
    WIDENING(WADDU_W),
    WIDENING(WADD_W),
    WIDENING(WSUBU_W),
    WIDENING(WSUB_W),
    WIDENING(WMULU),
    WIDENING(WMUL),
    WIDENING(WMULSU),
    WIDENING(WMACCU),
    WIDENING(WMACC),
    WIDENING(WMACCSU),
    WIDENING(NSRL),
    WIDENING(NSRA),
    WIDENING(NCLIPU),
    WIDENING(NCLIP),
    PAIR(SADDU),
    PAIR(SADD),
    PAIR(SSUBU),
    PAIR(SSUB),
    PAIR(AADDU),
    PAIR(AADD),
    PAIR(ASUBU),
    PAIR(ASUB),
    PAIR(SMUL),
    PAIR(SSRL),
    PAIR(SSRA),
    ALL(RSUB_VX),
    ALL(MSGTU_VX),
    ALL(MSGT_VX),
    NOT_64(WMACCUS_VX),
    [VECTOR_ZEXT2] = {NULL, ZEXT2_16, ZEXT2_32, ZEXT2_64},
    [VECTOR_SEXT2] = {NULL, SEXT2_16, SEXT2_32, SEXT2_64},
    [VECTOR_ZEXT4] = {NULL, NULL, ZEXT4_32, ZEXT4_64},
    [VECTOR_SEXT4] = {NULL, NULL, SEXT4_32, SEXT4_64},
    [VECTOR_ZEXT8] = {NULL, NULL, NULL, ZEXT8_64},
    [VECTOR_SEXT8] = {NULL, NULL, NULL, SEXT8_64},
    ALL(REDSUM),
    ALL(REDAND),
    ALL(REDOR),
    ALL(REDXOR),
    ALL(REDMINU),
    ALL(REDMIN),
    ALL(REDMAXU),
    ALL(REDMAX),
    NOT_64(WREDSUMU),
    NOT_64(WREDSUM),
};
