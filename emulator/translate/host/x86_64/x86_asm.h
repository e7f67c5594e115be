/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An encoder for the x86-64 instructions that the back end uses: general registers, VEX-encoded SSE/AVX/FMA. One
 * function an encoding form, thin names on top. Displacements and immediates take their shortest form, except where a
 * later patch needs the room (the functions ending in _patchable).
 *
 * Bytes are written through the writable mapping; an address inside the cache is an offset from its start.
 */
#ifndef EMULATOR_TRANSLATE_HOST_X86_64_X86_ASM_H
#define EMULATOR_TRANSLATE_HOST_X86_64_X86_ASM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum x86_reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, NO_REG = 255 };
enum x86_alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
enum x86_shift { SHIFT_ROL = 0, SHIFT_ROR = 1, SHIFT_SHL = 4, SHIFT_SHR = 5, SHIFT_SAR = 7 };
enum x86_cc { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

struct x86_mem {
    uint8_t base, index; /* NO_REG: none. base and index none: relative to the instruction, `disp` is a cache offset */
    uint8_t scale;       /* log2 */
    int32_t disp;
};
#define MEM(base_, disp_) ((struct x86_mem){(uint8_t)(base_), NO_REG, 0, (int32_t)(disp_)})
#define MEM_INDEX(base_, index_, disp_) ((struct x86_mem){(uint8_t)(base_), (uint8_t)(index_), 0, (int32_t)(disp_)})
#define MEM_CACHE(offset_) ((struct x86_mem){NO_REG, NO_REG, 0, (int32_t)(offset_)})

struct x86_out {
    uint8_t *cache; /* writable start of the cache */
    uint8_t *at;
};

static inline uint32_t x86_offset(const struct x86_out *o)
{
    return (uint32_t)(o->at - o->cache);
}
static inline void x86_byte(struct x86_out *o, unsigned byte)
{
    *o->at++ = (uint8_t)byte;
}
static inline void x86_32(struct x86_out *o, uint32_t x)
{
    memcpy(o->at, &x, 4);
    o->at += 4;
}
static inline void x86_64(struct x86_out *o, uint64_t x)
{
    memcpy(o->at, &x, 8);
    o->at += 8;
}
static inline bool fits8(int64_t x)
{
    return x == (int8_t)x;
}
static inline bool fits32(int64_t x)
{
    return x == (int32_t)x;
}

/* ModRM, SIB, displacement. `tail`: bytes of immediate that follow (for instruction-relative addresses). */
static inline void x86_modrm_mem(struct x86_out *o, unsigned reg, struct x86_mem m, unsigned tail)
{
    unsigned r = (reg & 7) << 3;
    if (m.base == NO_REG && m.index == NO_REG) {
        x86_byte(o, r | 5);
        x86_32(o, (uint32_t)m.disp - (x86_offset(o) + 4 + tail));
        return;
    }
    if (m.base == NO_REG) { /* index * scale + disp32 */
        x86_byte(o, r | 4);
        x86_byte(o, (unsigned)m.scale << 6 | (m.index & 7u) << 3 | 5);
        x86_32(o, (uint32_t)m.disp);
        return;
    }
    unsigned mod = m.disp == 0 && (m.base & 7) != RBP ? 0 : fits8(m.disp) ? 0x40 : 0x80;
    if (m.index != NO_REG || (m.base & 7) == RSP) {
        x86_byte(o, mod | r | 4);
        x86_byte(o, (unsigned)m.scale << 6 | (m.index == NO_REG ? 4u : m.index & 7u) << 3 | (m.base & 7u));
    } else {
        x86_byte(o, mod | r | (m.base & 7u));
    }
    if (mod == 0x40)
        x86_byte(o, (uint8_t)m.disp);
    else if (mod == 0x80)
        x86_32(o, (uint32_t)m.disp);
}

static inline void x86_rex(struct x86_out *o, bool w, unsigned reg, unsigned index, unsigned base, bool force)
{
    unsigned rex = 0x40u | (unsigned)w << 3 | (reg != NO_REG && reg & 8 ? 4u : 0) |
                   (index != NO_REG && index & 8 ? 2u : 0) | (base != NO_REG && base & 8 ? 1u : 0);
    if (rex != 0x40 || force)
        x86_byte(o, rex);
}

/* opcode: up to two bytes, 0x0fXX; `prefix` 0 or 0x66, 0xf2, 0xf3, 0xf0. `byte_reg`: a low byte register is named. */
static inline void x86_opcode(struct x86_out *o, unsigned opcode)
{
    if (opcode > 0xffff)
        x86_byte(o, opcode >> 16);
    if (opcode > 0xff)
        x86_byte(o, opcode >> 8 & 0xff);
    x86_byte(o, opcode & 0xff);
}
static inline void x86_rr(struct x86_out *o, unsigned prefix, bool w, unsigned opcode, unsigned reg, unsigned rm,
                          bool byte_reg)
{
    if (prefix)
        x86_byte(o, prefix);
    x86_rex(o, w, reg, NO_REG, rm, byte_reg);
    x86_opcode(o, opcode);
    x86_byte(o, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
static inline void x86_rm(struct x86_out *o, unsigned prefix, bool w, unsigned opcode, unsigned reg, struct x86_mem m,
                          bool byte_reg, unsigned tail)
{
    if (prefix)
        x86_byte(o, prefix);
    x86_rex(o, w, reg, m.index, m.base, byte_reg);
    x86_opcode(o, opcode);
    x86_modrm_mem(o, reg, m, tail);
}

/* --- General registers --- */

static inline void x86_mov_rr(struct x86_out *o, bool w, unsigned to, unsigned from)
{
    x86_rr(o, 0, w, 0x8b, to, from, false);
}
static inline void x86_load(struct x86_out *o, bool w, unsigned to, struct x86_mem m)
{
    x86_rm(o, 0, w, 0x8b, to, m, false, 0);
}
static inline void x86_store(struct x86_out *o, unsigned size_log2, unsigned from, struct x86_mem m)
{
    if (size_log2 == 0)
        x86_rm(o, 0, false, 0x88, from, m, true, 0);
    else
        x86_rm(o, size_log2 == 1 ? 0x66 : 0, size_log2 == 3, 0x89, from, m, false, 0);
}
static inline void x86_store_imm(struct x86_out *o, unsigned size_log2, int32_t imm, struct x86_mem m)
{
    if (size_log2 == 0) {
        x86_rm(o, 0, false, 0xc6, 0, m, false, 1);
        x86_byte(o, (uint8_t)imm);
    } else if (size_log2 == 1) {
        x86_rm(o, 0x66, false, 0xc7, 0, m, false, 2);
        x86_byte(o, (uint8_t)imm);
        x86_byte(o, (uint8_t)(imm >> 8));
    } else {
        x86_rm(o, 0, size_log2 == 3, 0xc7, 0, m, false, 4);
        x86_32(o, (uint32_t)imm);
    }
}
static inline void x86_mov_imm(struct x86_out *o, unsigned to, uint64_t imm)
{
    if (imm == 0) {
        x86_rr(o, 0, false, 0x33, to, to, false); /* xor: callers that need the flags kept use x86_mov_imm_keep */
    } else if (imm <= UINT32_MAX) {
        x86_rex(o, false, NO_REG, NO_REG, to, false);
        x86_byte(o, 0xb8 | (to & 7));
        x86_32(o, (uint32_t)imm);
    } else if (fits32((int64_t)imm)) {
        x86_rr(o, 0, true, 0xc7, 0, to, false);
        x86_32(o, (uint32_t)imm);
    } else {
        x86_rex(o, true, NO_REG, NO_REG, to, false);
        x86_byte(o, 0xb8 | (to & 7));
        x86_64(o, imm);
    }
}
static inline void x86_mov_imm_keep(struct x86_out *o, unsigned to, uint32_t imm)
{
    x86_rex(o, false, NO_REG, NO_REG, to, false);
    x86_byte(o, 0xb8 | (to & 7));
    x86_32(o, imm);
}
static inline void x86_lea(struct x86_out *o, bool w, unsigned to, struct x86_mem m)
{
    x86_rm(o, 0, w, 0x8d, to, m, false, 0);
}
static inline void x86_alu_rr(struct x86_out *o, enum x86_alu op, bool w, unsigned to, unsigned from)
{
    x86_rr(o, 0, w, (unsigned)op << 3 | 3, to, from, false);
}
static inline void x86_alu_rm(struct x86_out *o, enum x86_alu op, bool w, unsigned to, struct x86_mem m)
{
    x86_rm(o, 0, w, (unsigned)op << 3 | 3, to, m, false, 0);
}
static inline void x86_alu_mr(struct x86_out *o, enum x86_alu op, bool w, struct x86_mem m, unsigned from)
{
    x86_rm(o, 0, w, (unsigned)op << 3 | 1, from, m, false, 0);
}
static inline void x86_alu_imm(struct x86_out *o, enum x86_alu op, bool w, unsigned to, int32_t imm)
{
    x86_rr(o, 0, w, fits8(imm) ? 0x83 : 0x81, op, to, false);
    if (fits8(imm))
        x86_byte(o, (uint8_t)imm);
    else
        x86_32(o, (uint32_t)imm);
}
static inline void x86_alu_mem_imm(struct x86_out *o, enum x86_alu op, bool w, struct x86_mem m, int32_t imm)
{
    bool small = fits8(imm);
    x86_rm(o, 0, w, small ? 0x83 : 0x81, op, m, false, small ? 1 : 4);
    if (small)
        x86_byte(o, (uint8_t)imm);
    else
        x86_32(o, (uint32_t)imm);
}
/* Returns the offset of the 32-bit immediate, which does not straddle 8 bytes. */
static inline uint32_t x86_cmp_mem_imm_patchable(struct x86_out *o, struct x86_mem m, uint32_t imm)
{
    /* opcode, modrm, disp32: the immediate begins 6 bytes on (base is never extended here) */
    while ((x86_offset(o) + 6) % 8 > 4)
        x86_byte(o, 0x90);
    x86_byte(o, 0x81);
    x86_byte(o, 0x80 | ALU_CMP << 3 | (m.base & 7u));
    x86_32(o, (uint32_t)m.disp);
    x86_32(o, imm);
    return x86_offset(o) - 4;
}
static inline void x86_test_rr(struct x86_out *o, bool w, unsigned a, unsigned b)
{
    x86_rr(o, 0, w, 0x85, a, b, false);
}
static inline void x86_shift_imm(struct x86_out *o, enum x86_shift op, bool w, unsigned to, unsigned count)
{
    x86_rr(o, 0, w, 0xc1, op, to, false);
    x86_byte(o, count);
}
static inline void x86_shift_cl(struct x86_out *o, enum x86_shift op, bool w, unsigned to)
{
    x86_rr(o, 0, w, 0xd3, op, to, false);
}
static inline void x86_unary(struct x86_out *o, unsigned digit, bool w,
                             unsigned reg) /* f7: 2 not, 3 neg, 4 mul, 5 imul, 6 div, 7 idiv */
{
    x86_rr(o, 0, w, 0xf7, digit, reg, false);
}
static inline void x86_imul(struct x86_out *o, bool w, unsigned to, unsigned from)
{
    x86_rr(o, 0, w, 0x0faf, to, from, false);
}
static inline void x86_imul_imm(struct x86_out *o, bool w, unsigned to, unsigned from, int32_t imm)
{
    x86_rr(o, 0, w, 0x69, to, from, false);
    x86_32(o, (uint32_t)imm);
}
static inline void x86_setcc(struct x86_out *o, enum x86_cc cc, unsigned to)
{
    x86_rr(o, 0, false, 0x0f90u | cc, 0, to, true);
}
static inline void x86_cmov(struct x86_out *o, enum x86_cc cc, bool w, unsigned to, unsigned from)
{
    x86_rr(o, 0, w, 0x0f40u | cc, to, from, false);
}
/* Loads with extension to 64 bits (zero extension of 32 bits is a plain 32-bit load). */
static inline void x86_load_extend(struct x86_out *o, unsigned size_log2, bool is_signed, unsigned to, struct x86_mem m)
{
    static const uint16_t opcode[2][3] = {{0x0fb6, 0x0fb7, 0x8b}, {0x0fbe, 0x0fbf, 0x63}};
    if (size_log2 == 3)
        x86_load(o, true, to, m);
    else
        x86_rm(o, 0, is_signed, opcode[is_signed][size_log2], to, m, false, 0);
}
static inline void x86_extend(struct x86_out *o, unsigned size_log2, bool is_signed, unsigned to, unsigned from)
{
    static const uint16_t opcode[2][3] = {{0x0fb6, 0x0fb7, 0x8b}, {0x0fbe, 0x0fbf, 0x63}};
    x86_rr(o, 0, is_signed, opcode[is_signed][size_log2], to, from, size_log2 == 0);
}
static inline void x86_bswap(struct x86_out *o, bool w, unsigned reg)
{
    x86_rex(o, w, NO_REG, NO_REG, reg, false);
    x86_byte(o, 0x0f);
    x86_byte(o, 0xc8 | (reg & 7));
}
static inline void x86_push(struct x86_out *o, unsigned reg)
{
    x86_rex(o, false, NO_REG, NO_REG, reg, false);
    x86_byte(o, 0x50 | (reg & 7));
}
static inline void x86_pop(struct x86_out *o, unsigned reg)
{
    x86_rex(o, false, NO_REG, NO_REG, reg, false);
    x86_byte(o, 0x58 | (reg & 7));
}

/* --- Jumps; targets are cache offsets --- */

static inline void x86_jmp(struct x86_out *o, uint32_t target)
{
    x86_byte(o, 0xe9);
    x86_32(o, target - (x86_offset(o) + 4));
}
static inline void x86_call(struct x86_out *o, uint32_t target)
{
    x86_byte(o, 0xe8);
    x86_32(o, target - (x86_offset(o) + 4));
}
/* Forward jumps: return where the displacement is, for x86_land(). */
static inline uint32_t x86_jcc_forward(struct x86_out *o, enum x86_cc cc)
{
    x86_byte(o, 0x0f);
    x86_byte(o, 0x80u | cc);
    x86_32(o, 0);
    return x86_offset(o) - 4;
}
static inline uint32_t x86_jmp_forward(struct x86_out *o)
{
    x86_byte(o, 0xe9);
    x86_32(o, 0);
    return x86_offset(o) - 4;
}
static inline uint32_t x86_jcc_short(struct x86_out *o, enum x86_cc cc)
{
    x86_byte(o, 0x70u | cc);
    x86_byte(o, 0);
    return x86_offset(o);
}
static inline uint32_t x86_jmp_short(struct x86_out *o)
{
    x86_byte(o, 0xeb);
    x86_byte(o, 0);
    return x86_offset(o);
}
static inline void x86_land_short(struct x86_out *o, uint32_t after)
{
    o->cache[after - 1] = (uint8_t)(x86_offset(o) - after);
}
static inline void x86_set_target(struct x86_out *o, uint32_t displacement, uint32_t target)
{
    uint32_t relative = target - (displacement + 4);
    memcpy(o->cache + displacement, &relative, 4);
}
static inline void x86_land(struct x86_out *o, uint32_t displacement)
{
    x86_set_target(o, displacement, x86_offset(o));
}
/* Jumps whose displacement can be replaced by one store: it does not straddle 8 bytes. */
static inline uint32_t x86_jmp_patchable(struct x86_out *o)
{
    while ((x86_offset(o) + 1) % 8 > 4)
        x86_byte(o, 0x90);
    return x86_jmp_forward(o);
}
static inline uint32_t x86_jcc_patchable(struct x86_out *o, enum x86_cc cc)
{
    /* A prefix that does nothing here instead of a nop: the comparison before stays next to the jump. */
    while ((x86_offset(o) + 2) % 8 > 4)
        x86_byte(o, 0x3e);
    return x86_jcc_forward(o, cc);
}

/* --- VEX --- */

enum { PP_NONE, PP_66, PP_F3, PP_F2 };
enum { MAP_0F = 1, MAP_0F38, MAP_0F3A };

static inline void x86_vex(struct x86_out *o, unsigned map, unsigned pp, bool w, bool l256, unsigned opcode,
                           unsigned reg, unsigned vvvv, unsigned index, unsigned base)
{
    unsigned r = reg & 8 ? 0 : 0x80, x = index != NO_REG && index & 8 ? 0 : 0x40,
             b = base != NO_REG && base & 8 ? 0 : 0x20;
    unsigned v = (~vvvv & 15) << 3, l = (unsigned)l256 << 2;
    if (map == MAP_0F && !w && x && b) {
        x86_byte(o, 0xc5);
        x86_byte(o, r | v | l | pp);
    } else {
        x86_byte(o, 0xc4);
        x86_byte(o, r | x | b | map);
        x86_byte(o, (unsigned)w << 7 | v | l | pp);
    }
    x86_byte(o, opcode);
}
static inline void x86_vex_rr(struct x86_out *o, unsigned map, unsigned pp, bool w, bool l256, unsigned opcode,
                              unsigned reg, unsigned vvvv, unsigned rm)
{
    x86_vex(o, map, pp, w, l256, opcode, reg, vvvv, NO_REG, rm);
    x86_byte(o, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
static inline void x86_vex_rm(struct x86_out *o, unsigned map, unsigned pp, bool w, bool l256, unsigned opcode,
                              unsigned reg, unsigned vvvv, struct x86_mem m, unsigned tail)
{
    x86_vex(o, map, pp, w, l256, opcode, reg, vvvv, m.index, m.base);
    x86_modrm_mem(o, reg, m, tail);
}
static inline void x86_rorx(struct x86_out *o, unsigned to, unsigned from, unsigned count)
{
    x86_vex_rr(o, MAP_0F3A, PP_F2, true, false, 0xf0, to, 0, from);
    x86_byte(o, count);
}
/* Scalars: f64 chooses sd or ss. Registers 0..15. */
static inline unsigned x86_scalar(bool f64)
{
    return f64 ? PP_F2 : PP_F3;
}
static inline void x86_vmov_xx(struct x86_out *o, unsigned to, unsigned from)
{
    x86_vex_rr(o, MAP_0F, PP_NONE, false, false, 0x28, to, 0, from);
}
static inline void x86_vload_scalar(struct x86_out *o, bool f64, unsigned to, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, x86_scalar(f64), false, false, 0x10, to, 0, m, 0);
}
static inline void x86_vstore_scalar(struct x86_out *o, bool f64, unsigned from, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, x86_scalar(f64), false, false, 0x11, from, 0, m, 0);
}
static inline void x86_vmov_xr(struct x86_out *o, bool w, unsigned to_x, unsigned from_r)
{
    x86_vex_rr(o, MAP_0F, PP_66, w, false, 0x6e, to_x, 0, from_r);
}
static inline void x86_vmov_rx(struct x86_out *o, bool w, unsigned to_r, unsigned from_x)
{
    x86_vex_rr(o, MAP_0F, PP_66, w, false, 0x7e, from_x, 0, to_r);
}
static inline void x86_vucomi(struct x86_out *o, bool f64, bool signals, unsigned a, unsigned b)
{
    x86_vex_rr(o, MAP_0F, f64 ? PP_66 : PP_NONE, false, false, signals ? 0x2f : 0x2e, a, 0, b);
}
static inline void x86_vucomi_mem(struct x86_out *o, bool f64, unsigned a, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, f64 ? PP_66 : PP_NONE, false, false, 0x2e, a, 0, m, 0);
}
static inline void x86_vxor(struct x86_out *o, unsigned to, unsigned a, unsigned b)
{
    x86_vex_rr(o, MAP_0F, PP_NONE, false, false, 0x57, to, a, b);
}
static inline void x86_vector_load(struct x86_out *o, bool l256, unsigned to, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, PP_NONE, false, l256, 0x10, to, 0, m, 0);
}
static inline void x86_vector_store(struct x86_out *o, bool l256, unsigned from, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, PP_NONE, false, l256, 0x11, from, 0, m, 0);
}
static inline void x86_ldmxcsr(struct x86_out *o, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, PP_NONE, false, false, 0xae, 2, 0, m, 0);
}
static inline void x86_stmxcsr(struct x86_out *o, struct x86_mem m)
{
    x86_vex_rm(o, MAP_0F, PP_NONE, false, false, 0xae, 3, 0, m, 0);
}
static inline void x86_vzeroupper(struct x86_out *o)
{
    x86_byte(o, 0xc5);
    x86_byte(o, 0xf8);
    x86_byte(o, 0x77);
}

#endif
