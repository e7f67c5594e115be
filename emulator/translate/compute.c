/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integer operations of the IR on plain numbers. Everything is total: shift counts wrap, divisions follow their rule.
 */
#include <assert.h>
#include "emulator/translate/compute.h"

uint64_t ir_extend(uint64_t x, unsigned bits, bool is_signed)
{
    if (bits >= 64)
        return x;
    unsigned shift = 64 - bits;
    return is_signed ? (uint64_t)((int64_t)(x << shift) >> shift) : x << shift >> shift;
}

bool ir_compute_condition(enum ir_cond cond, enum ir_type type, uint64_t x, uint64_t y)
{
    unsigned bits = type == IR_I32 ? 32 : 64;
    int64_t sx = (int64_t)ir_extend(x, bits, true), sy = (int64_t)ir_extend(y, bits, true);
    uint64_t ux = ir_extend(x, bits, false), uy = ir_extend(y, bits, false);
    switch (cond) {
    case IR_EQ: return ux == uy;
    case IR_NE: return ux != uy;
    case IR_LT_S: return sx < sy;
    case IR_GE_S: return sx >= sy;
    case IR_LE_S: return sx <= sy;
    case IR_GT_S: return sx > sy;
    case IR_LT_U: return ux < uy;
    case IR_GE_U: return ux >= uy;
    case IR_LE_U: return ux <= uy;
    case IR_GT_U: return ux > uy;
    case IR_CONDS: break;
    }
    assert(!"condition");
    return false;
}

/* Signed 64-bit division covers the 32-bit one: sign-extended operands cannot overflow except in the I64 case. */
static uint64_t divide(enum ir_opcode op, enum ir_type type, uint64_t x, uint64_t y, enum ir_division rule)
{
    bool is_signed = op == IR_OP_div_s || op == IR_OP_rem_s, quotient = op == IR_OP_div_s || op == IR_OP_div_u;
    unsigned bits = type == IR_I32 ? 32 : 64;
    x = ir_extend(x, bits, is_signed);
    y = ir_extend(y, bits, is_signed);
    if (y == 0)
        return !quotient ? x : rule == IR_DIVISION_RISCV ? UINT64_MAX : 0;
    if (!is_signed)
        return quotient ? x / y : x % y;
    if (y == UINT64_MAX) /* by -1, without the overflow trap of the host */
        return quotient ? 0 - x : 0;
    return quotient ? (uint64_t)((int64_t)x / (int64_t)y) : (uint64_t)((int64_t)x % (int64_t)y);
}

static uint64_t multiply_high(enum ir_opcode op, unsigned bits, uint64_t x, uint64_t y)
{
    bool sx = op != IR_OP_mulh_u, sy = op == IR_OP_mulh_s;
    x = ir_extend(x, bits, sx);
    y = ir_extend(y, bits, sy);
    __int128 wide_x = sx ? (__int128)(int64_t)x : (__int128)x, wide_y = sy ? (__int128)(int64_t)y : (__int128)y;
    return (uint64_t)((unsigned __int128)wide_x * (unsigned __int128)wide_y >> bits);
}

static uint64_t smaller(enum ir_opcode op, enum ir_type type, uint64_t x, uint64_t y)
{
    switch (op) {
    case IR_OP_min_s: return ir_compute_condition(IR_LT_S, type, x, y) ? x : y;
    case IR_OP_max_s: return ir_compute_condition(IR_LT_S, type, x, y) ? y : x;
    case IR_OP_min_u: return ir_compute_condition(IR_LT_U, type, x, y) ? x : y;
    default: return ir_compute_condition(IR_LT_U, type, x, y) ? y : x;
    }
}

static uint64_t compute_wide(enum ir_opcode op, enum ir_type type, uint64_t x, uint64_t y, uint64_t imm)
{
    unsigned bits = type == IR_I32 ? 32 : 64, count = (unsigned)y & (bits - 1);
    uint64_t ux = ir_extend(x, bits, false);
    switch (op) {
    case IR_OP_add: return x + y;
    case IR_OP_sub: return x - y;
    case IR_OP_mul: return x * y;
    case IR_OP_mulh_s:
    case IR_OP_mulh_u:
    case IR_OP_mulh_su: return multiply_high(op, bits, x, y);
    case IR_OP_div_s:
    case IR_OP_div_u:
    case IR_OP_rem_s:
    case IR_OP_rem_u: return divide(op, type, x, y, (enum ir_division)imm);
    case IR_OP_and: return x & y;
    case IR_OP_or: return x | y;
    case IR_OP_xor: return x ^ y;
    case IR_OP_andn: return x & ~y;
    case IR_OP_shl: return x << count;
    case IR_OP_shr: return ux >> count;
    case IR_OP_sar: return (uint64_t)((int64_t)ir_extend(x, bits, true) >> count);
    case IR_OP_rotl: return count ? ux << count | ux >> (bits - count) : ux;
    case IR_OP_rotr: return count ? ux >> count | ux << (bits - count) : ux;
    case IR_OP_min_s:
    case IR_OP_max_s:
    case IR_OP_min_u:
    case IR_OP_max_u: return smaller(op, type, x, y);
    case IR_OP_sext: return ir_extend(x, (unsigned)imm, true);
    case IR_OP_zext: return ir_extend(x, (unsigned)imm, false);
    case IR_OP_clz: return ux ? (unsigned)__builtin_clzll(ux) - (64 - bits) : bits;
    case IR_OP_ctz: return ux ? (unsigned)__builtin_ctzll(ux) : bits;
    case IR_OP_popcount: return (unsigned)__builtin_popcountll(ux);
    case IR_OP_bswap: return type == IR_I32 ? __builtin_bswap32((uint32_t)x) : __builtin_bswap64(x);
    default: break;
    }
    assert(!"integer operation");
    return 0;
}

uint64_t ir_compute(enum ir_opcode op, enum ir_type type, uint64_t x, uint64_t y, uint64_t imm)
{
    return ir_extend(compute_wide(op, type, x, y, imm), type == IR_I32 ? 32 : 64, false);
}

uint64_t ir_compute_amo(enum ir_amo amo, unsigned size_log2, uint64_t old, uint64_t operand)
{
    unsigned bits = 8u << size_log2;
    int64_t so = (int64_t)ir_extend(old, bits, true), sv = (int64_t)ir_extend(operand, bits, true);
    uint64_t uo = ir_extend(old, bits, false), uv = ir_extend(operand, bits, false);
    switch (amo) {
    case IR_AMO_SWAP: return uv;
    case IR_AMO_ADD: return ir_extend(uo + uv, bits, false);
    case IR_AMO_AND: return uo & uv;
    case IR_AMO_OR: return uo | uv;
    case IR_AMO_XOR: return uo ^ uv;
    case IR_AMO_MIN_S: return so < sv ? uo : uv;
    case IR_AMO_MAX_S: return so > sv ? uo : uv;
    case IR_AMO_MIN_U: return uo < uv ? uo : uv;
    case IR_AMO_MAX_U: return uo > uv ? uo : uv;
    }
    assert(!"atomic operation");
    return 0;
}
