# SPDX-License-Identifier: Apache-2.0
# Load-reserved and store-conditional, and that every AMO yields the old value and writes the new one.
    .include "test.inc"
    test_begin
    la s0, word

    step 1 # success
    lr.d a0, (s0)
    addi a0, a0, 1
    sc.d a1, a0, (s0)
    check a1, 0
    ld a2, (s0)
    check_same a0, a2

    step 2 # once only
    sc.d a1, a0, (s0)
    beqz a1, fail

    step 3 # another address
    lr.w a0, (s0)
    addi a3, s0, 64
    sc.w a1, a0, (a3)
    beqz a1, fail

    step 4 # sign extension
    li a0, 0x80000000
    sw a0, (s0)
    lr.w a0, (s0)
    check a0, -0x80000000

    step 5 # a trap in between: software clears with a dummy sc, which fails or not, but then none is left
    lr.w a0, (s0)
    sc.w zero, a0, (s0)
    sc.w a1, a0, (s0)
    beqz a1, fail

    .macro amo instruction, before, operand, after
    li a0, \before
    sd a0, (s0)
    li a1, \operand
    \instruction a2, a1, (s0)
    check_same a2, a0
    ld a3, (s0)
    li a4, \after
    check_same a3, a4
    .endm
    step 6
    amo amoswap.d, 5, 7, 7
    amo amoadd.d, 5, -7, -2
    amo amoxor.d, 0xff, 0x0f, 0xf0
    amo amoand.d, 0xff, 0x3c, 0x3c
    amo amoor.d, 0xf0, 0x3c, 0xfc
    amo amomin.d, -5, 3, -5
    amo amomax.d, -5, 3, 3
    amo amominu.d, -5, 3, 3
    amo amomaxu.d, -5, 3, -5
    step 7 # words leave the upper half alone
    li a0, 0x1122334480000000
    sd a0, (s0)
    li a1, 1
    amoadd.w a2, a1, (s0)
    check a2, -0x80000000
    ld a3, (s0)
    li a4, 0x1122334480000001
    check_same a3, a4
    li a1, 5
    amominu.w.aqrl a2, a1, (s0)
    check a2, -0x7fffffff
    lw a3, (s0)
    check a3, 5
    pass
    test_end
    .balign 128
word:
    .zero 128
