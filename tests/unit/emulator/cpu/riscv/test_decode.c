/* SPDX-License-Identifier: Apache-2.0 */
/*
 * If this fails, the generated RISC-V decoder and the table it came from disagree, or the extensions do not gate.
 * links: emulator/translate/host/x86_64
 */
#include "emulator/cpu/riscv/riscv.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

static enum riscv_insn decode(uint64_t bits, uint64_t extensions, struct riscv_operands *operands)
{
    return riscv_length((uint16_t)bits) == 2 ? riscv_decode_16(bits, extensions, operands)
                                             : riscv_decode_32(bits, extensions, operands);
}

/* What the table encodes is decoded as the same instruction. */
static void encodings_come_back(void **state)
{
    uint64_t random = 20260101;

    for (unsigned insn = RISCV_INSN_NONE + 1; insn < RISCV_INSN_COUNT; insn++) {
        const struct insn_info *info = &riscv_insn_table[insn];
        for (unsigned i = 0; i < 200; i++) {
            struct riscv_operands operands;
            uint64_t bits;
            if (!insn_random(info, next_random(&random), &bits))
                continue;
            assert_int_equal(riscv_length((uint16_t)bits), info->length);
            assert_int_equal(decode(bits, ~0ull, &operands), insn);
            assert_int_equal(decode(bits, ~info->extension, &operands), RISCV_INSN_NONE);
        }
    }
}

/* Whatever is decoded matches exactly one row; what is not, none. */
static void random_words_match_the_table(void **state)
{
    uint64_t random = 42;

    for (unsigned i = 0; i < 200000; i++) {
        uint64_t word = next_random(&random);
        uint64_t bits = riscv_length((uint16_t)word) == 2 ? (uint16_t)word : (uint32_t)word;
        struct riscv_operands operands;
        unsigned matches = 0, last = RISCV_INSN_NONE;
        for (unsigned insn = RISCV_INSN_NONE + 1; insn < RISCV_INSN_COUNT; insn++) {
            if (riscv_insn_table[insn].length == riscv_length((uint16_t)bits) &&
                insn_matches(&riscv_insn_table[insn], bits)) {
                matches++;
                last = insn;
            }
        }
        assert_true(matches <= 1);
        assert_int_equal(decode(bits, ~0ull, &operands), last);
    }
}

static void immediates_are_put_together(void **state)
{
    struct riscv_operands o;

    assert_int_equal(decode(0xfe000ee3, ~0ull, &o), RISCV_INSN_BEQ); /* beq zero, zero, -4 */
    assert_int_equal(o.imm, -4);
    assert_int_equal(decode(0xff9ff06f, ~0ull, &o), RISCV_INSN_JAL); /* j -8 */
    assert_int_equal(o.imm, -8);
    assert_int_equal(decode(0x800002b7, ~0ull, &o), RISCV_INSN_LUI); /* lui t0, 0x80000 */
    assert_int_equal(o.imm, -0x80000000ll);
    assert_int_equal(o.rd, 5);
    assert_int_equal(decode(0x7139, ~0ull, &o), RISCV_INSN_C_ADDI16SP); /* addi sp, sp, -64 */
    assert_int_equal(o.imm, -64);
    assert_int_equal(o.rd, 2);
    assert_int_equal(o.rs1, 2);
    assert_int_equal(decode(0x6380, ~0ull, &o), RISCV_INSN_C_LD); /* ld s0, 0(a5) */
    assert_int_equal(o.rd, 8);
    assert_int_equal(o.rs1, 15);
    assert_int_equal(decode(0xf022, ~0ull, &o), RISCV_INSN_C_SDSP); /* sd s0, 32(sp) */
    assert_int_equal(o.imm, 32);
    assert_int_equal(o.rs1, 2);
    assert_int_equal(o.rs2, 8);
    assert_int_equal(decode(0, ~0ull, &o), RISCV_INSN_NONE);
}

static void text(uint64_t pc, uint32_t bits, const char *expected)
{
    char buffer[80];

    riscv_disassemble(pc, bits, buffer, sizeof(buffer));
    assert_string_equal(buffer, expected);
}

static void disassembly_reads_like_the_manual(void **state)
{
    text(0x1000, 0xfe000ee3, "beq\tzero,zero,0xffc");
    text(0, 0x00c5f533, "and\ta0,a1,a2");
    text(0, 0x30529073, "csrrw\tzero,mtvec,t0");
    text(0, 0x02b6a52f, "amoadd.w.rl\ta0,a1,(a3)");
    text(0, 0x00000000, ".2byte\t0x0000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(encodings_come_back),
        cmocka_unit_test(random_words_match_the_table),
        cmocka_unit_test(immediates_are_put_together),
        cmocka_unit_test(disassembly_reads_like_the_manual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
