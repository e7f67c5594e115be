/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vector unit's registers and what vector instructions do to them (the RISC-V "V" extension, version 1.0): all but
 * configuration, legality and memory, which need the hart and stand in ../rv_v.c and ../vector_memory.c.
 *
 * One operation is one function for one element width. Which function an instruction means is known when it is
 * translated, because vtype is part of the translator's mode; what is left for run time is a call with register numbers
 * and vl. Loops over elements are written so that compilers make vector code of them.
 *
 * Registers lie one after the other, so a group (LMUL above 1) is one array, and element i of width w of register r
 * stands at byte r * VLENB + i * w / 8: the layout of the manual, on a little-endian host.
 *
 * Elements that are masked off or beyond vl keep their values, which both "agnostic" and "undisturbed" allow.
 */
#ifndef EMULATOR_CPU_RISCV_VECTOR_VECTOR_H
#define EMULATOR_CPU_RISCV_VECTOR_VECTOR_H

#include <stdbool.h>
#include <stdint.h>

enum { RISCV_VLENB = 16 /* bytes of a register */ };

struct riscv_vector {
    uint64_t vl, vstart;
    uint64_t vtype;  /* as the CSR reads */
    uint8_t vxrm;    /* enum vector_rounding */
    uint8_t vxsat;   /* 0 or 1 */
    uint8_t frm;     /* the guest's rounding mode, which the host's is too as far as it has it */
    uint8_t flags;   /* raised in software; the caller collects them after each operation (enum float_flag) */
    uint8_t setting; /* vtype as the translator's mode holds it: 0 vill, else 1 + sew * 7 + (lmul + 3) */
    _Alignas(64) uint8_t reg[32 * RISCV_VLENB];
};

enum vector_rounding { VECTOR_RNU, VECTOR_RNE, VECTOR_RDN, VECTOR_ROD };

/* Operands of an operation, packed into a constant of translated code. */
#define VECTOR_ARGS(vd, vs1, vs2, vm, lmul)                                                                            \
    ((uint64_t)(vd) | (uint64_t)(vs1) << 5 | (uint64_t)(vs2) << 10 | (uint64_t)(vm) << 15 |                            \
     (uint64_t)((lmul) + 3) << 16)
#define VECTOR_VD(args) ((args)&31)
#define VECTOR_VS1(args) ((args) >> 5 & 31)
#define VECTOR_VS2(args) ((args) >> 10 & 31)
#define VECTOR_VM(args) ((args) >> 15 & 1) /* 1: not masked */
#define VECTOR_LMUL(args) ((int)((args) >> 16 & 7) - 3)

/* Elements of 8 << sew bits in a group. */
static inline uint64_t vector_vlmax(unsigned sew, int lmul)
{
    int shift = lmul - (int)sew;
    return shift >= 0 ? (uint64_t)RISCV_VLENB << shift : (uint64_t)RISCV_VLENB >> -shift;
}

static inline uint8_t *vector_register(struct riscv_vector *v, uint64_t number)
{
    return v->reg + number * RISCV_VLENB;
}

static inline bool vector_mask_bit(const uint8_t *mask, uint64_t i)
{
    return mask[i >> 3] >> (i & 7) & 1;
}

/* `scalar`: an x or f register's bits, or the immediate (sign-extended; unsigned ones zero-extended). The result is
 * that of the instructions that write an x or f register. */
typedef uint64_t vector_function(struct riscv_vector *v, uint64_t args, uint64_t scalar);

/* A chapter's operations by number and SEW (0: 8 bits ... 3: 64); NULL where the manual reserves the width. */
typedef vector_function *const vector_row[4];

/* VV, VX (or VI): vectors of SEW in, vector of SEW out. */
#define VECTOR_INTEGER_TWO(X)                                                                                          \
    X(ADD)                                                                                                             \
    X(SUB)                                                                                                             \
    X(AND) X(OR) X(XOR) X(MINU) X(MIN) X(MAXU) X(MAX) X(SLL) X(SRL) X(SRA) X(MUL) X(MULH) X(MULHU) X(MULHSU) X(DIVU)   \
        X(DIV) X(REMU) X(REM) X(MACC) X(NMSAC) X(MADD) X(NMSUB) X(MERGE) X(ADC) X(SBC) X(MADC) X(MSBC) X(MADC_IN)      \
            X(MSBC_IN) /* mask out; _IN: with a carry in */                                                            \
        X(MSEQ) X(MSNE) X(MSLTU) X(MSLT) X(MSLEU) X(MSLE) X(WADDU) X(WADD) X(WSUBU) X(WSUB) X(WADDU_W) X(WADD_W)       \
            X(WSUBU_W) X(WSUB_W) /* SEW of the narrow operand */                                                       \
        X(WMULU) X(WMUL) X(WMULSU) X(WMACCU) X(WMACC) X(WMACCSU) X(NSRL) X(NSRA) X(SADDU) X(SADD) X(SSUBU) X(SSUB)     \
            X(AADDU) X(AADD) X(ASUBU) X(ASUB) X(SMUL) X(SSRL) X(SSRA) X(NCLIPU) X(NCLIP)
#define VECTOR_INTEGER_ONE(X)                                                                                          \
    X(RSUB_VX)                                                                                                         \
    X(MSGTU_VX)                                                                                                        \
    X(MSGT_VX) X(WMACCUS_VX) X(ZEXT2) X(SEXT2) X(ZEXT4) X(SEXT4) X(ZEXT8) X(SEXT8) X(REDSUM) X(REDAND) X(REDOR)        \
        X(REDXOR) X(REDMINU) X(REDMIN) X(REDMAXU) X(REDMAX) X(WREDSUMU) X(WREDSUM)

#define VECTOR_PERMUTE_OPS(X)                                                                                          \
    X(MAND)                                                                                                            \
    X(MNAND)                                                                                                           \
    X(MANDN) X(MXOR) X(MOR) X(MNOR) X(MORN) X(MXNOR) /* any SEW */                                                     \
        X(CPOP) X(FIRST) X(MSBF) X(MSIF) X(MSOF) X(IOTA) X(ID) X(MV_XS) X(MV_SX) X(SLIDEUP) X(SLIDEDOWN) X(SLIDE1UP)   \
            X(SLIDE1DOWN) X(RGATHER_VV) X(RGATHER_VX) X(RGATHEREI16) X(COMPRESS)                                       \
                X(MVR) /* scalar: how many registers */ X(MV_FS) /* boxes */ X(MV_SF)

#define VECTOR_FLOAT_TWO(X)                                                                                            \
    X(FADD)                                                                                                            \
    X(FSUB)                                                                                                            \
    X(FMUL) X(FDIV) X(FMIN) X(FMAX) X(FSGNJ) X(FSGNJN) X(FSGNJX) X(FMACC) X(FNMACC) X(FMSAC) X(FNMSAC) X(FMADD)        \
        X(FNMADD) X(FMSUB) X(FNMSUB) X(MFEQ) X(MFNE) X(MFLT) X(MFLE) X(FWADD) X(FWSUB) X(FWADD_W) X(FWSUB_W) X(FWMUL)  \
            X(FWMACC) X(FWNMACC) X(FWMSAC) X(FWNMSAC)
#define VECTOR_FLOAT_ONE(X)                                                                                            \
    X(FRSUB_VF)                                                                                                        \
    X(FRDIV_VF)                                                                                                        \
    X(MFGT_VF) X(MFGE_VF) X(FSQRT) X(FRSQRT7) X(FREC7) X(FCLASS) X(FCVT_XU_F) X(FCVT_X_F) X(FCVT_F_XU) X(FCVT_F_X)     \
        X(FCVT_RTZ_XU_F) X(FCVT_RTZ_X_F) X(FWCVT_XU_F) X(FWCVT_X_F) X(FWCVT_F_XU) X(FWCVT_F_X) X(FWCVT_F_F)            \
            X(FWCVT_RTZ_XU_F) X(FWCVT_RTZ_X_F) X(FNCVT_XU_F) X(FNCVT_X_F) X(FNCVT_F_XU) X(FNCVT_F_X) X(FNCVT_F_F)      \
                X(FNCVT_ROD_F_F) X(FNCVT_RTZ_XU_F) X(FNCVT_RTZ_X_F) X(FREDUSUM) X(FREDOSUM) X(FREDMIN) X(FREDMAX)      \
                    X(FWREDUSUM) X(FWREDOSUM)

#define VECTOR_ENUM_TWO(name) VECTOR_##name##_VV, VECTOR_##name##_VX,
#define VECTOR_ENUM_ONE(name) VECTOR_##name,
enum vector_integer { VECTOR_INTEGER_TWO(VECTOR_ENUM_TWO) VECTOR_INTEGER_ONE(VECTOR_ENUM_ONE) VECTOR_INTEGER_COUNT };
enum vector_permute { VECTOR_PERMUTE_OPS(VECTOR_ENUM_ONE) VECTOR_PERMUTE_COUNT };
enum vector_float { VECTOR_FLOAT_TWO(VECTOR_ENUM_TWO) VECTOR_FLOAT_ONE(VECTOR_ENUM_ONE) VECTOR_FLOAT_COUNT };
#undef VECTOR_ENUM_TWO
#undef VECTOR_ENUM_ONE

extern vector_row vector_integer[VECTOR_INTEGER_COUNT];
extern vector_row vector_permute[VECTOR_PERMUTE_COUNT];
/* These use the host's floating point as the guest has set it (translate_fp_enter()). What hosts lack is done in
 * software, which leaves its flags in v->flags. */
extern vector_row vector_float[VECTOR_FLOAT_COUNT];

#endif
