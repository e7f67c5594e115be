# SPDX-License-Identifier: Apache-2.0
# Two harts: atomic counters, a lock of LR and SC, store buffering with fences, code written by the other hart.
# smp: 2
    .include "test.inc"
    .equ ROUNDS, 20000
    test_begin
    csrr s0, mhartid
    la s1, shared
    li s2, ROUNDS
    li s3, 2

    # both meet at barrier \number
    .macro meet number
    li t0, 1
    addi t1, s1, 256 + 64 * \number
    amoadd.d zero, t0, (t1)
1:  ld t0, (t1)
    bltu t0, s3, 1b
    fence rw, rw
    .endm

    step 1 # AMOs
    meet 0
1:  li t0, 1
    amoadd.d zero, t0, (s1)
    addi t2, s1, 8
    li t0, 3
    amoadd.w.aqrl zero, t0, (t2)
    addi s2, s2, -1
    bnez s2, 1b
    meet 1
    ld a0, (s1)
    check a0, 2 * ROUNDS
    lw a0, 8(s1)
    check a0, 6 * ROUNDS

    step 2 # a lock around a plain counter
    li s2, ROUNDS
    addi s4, s1, 64
2:  lr.w.aq t0, (s4)
    bnez t0, 2b
    li t1, 1
    sc.w.rl t0, t1, (s4)
    bnez t0, 2b
    fence r, rw
    ld t0, 128(s1)
    addi t0, t0, 1
    sd t0, 128(s1)
    fence rw, w
    sw zero, (s4)
    addi s2, s2, -1
    bnez s2, 2b
    meet 2
    ld a0, 128(s1)
    check a0, 2 * ROUNDS

    step 3 # store buffering: with a full fence one of the two sees the other's store
    li s2, 1000
    addi s5, s1, 192 # x of hart 0, y of hart 1, and what each saw
3:  slli t0, s0, 3
    add s6, s5, t0 # mine
    xori t1, t0, 8
    add s7, s5, t1 # the other's
    sd s2, (s6)
    fence rw, rw
    ld a0, (s7)
    sd a0, 16(s6)
    # meet again, on a counter that only grows
    li t0, 1
    addi t1, s1, 32
    amoadd.d t2, t0, (t1)
    li t3, 1001
    sub t3, t3, s2
    slli t3, t3, 2
    addi t4, t3, -2
4:  ld t0, (t1)
    bltu t0, t4, 4b
    ld a1, 16(s5)
    ld a2, 24(s5)
    sub a1, a1, s2
    sub a2, a2, s2
    snez a1, a1
    snez a2, a2
    and a1, a1, a2
    bnez a1, fail # both saw the value of the round before
    li t0, 1
    amoadd.d t2, t0, (t1)
5:  ld t0, (t1)
    bltu t0, t3, 5b
    addi s2, s2, -1
    bnez s2, 3b

    step 4 # hart 0 writes code, hart 1 runs it after a fence.i of its own
    bnez s0, runner
9:  ld t0, 56(s1) # it has run the old code
    beqz t0, 9b
    la t0, patched
    lw t1, replacement
    sw t1, (t0)
    fence w, w
    li t1, 1
    sd t1, 40(s1)
6:  ld t0, 48(s1)
    beqz t0, 6b
    check t0, 2
    pass
runner:
    jal patched
    check a0, 1
    sd a0, 56(s1)
7:  ld t0, 40(s1)
    beqz t0, 7b
    fence r, r
    fence.i
    jal patched
    sd a0, 48(s1)
8:  j 8b

    .option push
    .option norvc
    .balign 64
patched:
    li a0, 1
    ret
    .option pop
    test_end
    .option norvc
    .balign 4
replacement:
    li a0, 2
    .balign 4096
shared:
    .zero 4096
