# SPDX-License-Identifier: Apache-2.0
# Counting zeros of zero, of words, and the edges of Zbb that random values seldom meet.
    .include "test.inc"
    .option arch, +zba, +zbb, +zbs
    .macro unary instruction, value, result
    li a0, \value
    \instruction a1, a0
    li a2, \result
    check_same a1, a2
    .endm
    test_begin
    step 1
    unary clz, 0, 64
    unary ctz, 0, 64
    unary clzw, 0, 32
    unary clzw, -1, 0
    unary clzw, 0x1ffffffff, 0
    unary cpop, -1, 64
    unary cpopw, -1, 32
    .ifndef ORACLE # QEMU 7.2: 63
    unary ctzw, 0, 32
    unary ctzw, 0x8000000000000000, 32
    .endif
    unary ctzw, 0x80000000, 31
    step 2
    unary orc.b, 0x0100800000ff7f01, 0xff00ff0000ffffff
    unary orc.b, 0, 0
    unary orc.b, -1, -1
    unary rev8, 0x0102030405060708, 0x0807060504030201
    unary sext.b, 0x80, -128
    unary sext.h, 0x8000, -32768
    unary zext.h, -1, 0xffff
    step 3
    li a0, 1
    li a1, 127
    rol a2, a0, a1
    li a3, 1 << 63
    check_same a2, a3
    li a1, 33
    rorw a2, a0, a1
    li a3, -0x80000000
    check_same a2, a3
    li a1, 64
    bset a2, zero, a1
    check a2, 1
    pass
    test_end
