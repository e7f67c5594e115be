# SPDX-License-Identifier: Apache-2.0
# Code that is overwritten: other code with FENCE.I, the next instruction, a loop's own body, and through the page tables' back.
    .include "test.inc"
    test_begin

    step 1 # call, patch, fence, call
    jal patched
    check a0, 1
    la s0, patched
    lw s1, replacement
    sw s1, (s0)
    fence.i
    jal patched
    check a0, 2

    step 2 # the instruction just ahead
    la s0, ahead
    lw s1, replacement_ahead
    li a0, 0
    sw s1, (s0)
    fence.i
    .option push
    .option norvc
    .balign 4
ahead:
    li a0, 1
    .option pop
    check a0, 5

    step 3 # a thousand generations
    li s2, 1000
    la s0, patched
    lw s1, base
again:
    slli a1, s2, 20
    or a1, a1, s1
    sw a1, (s0)
    fence.i
    jal patched
    check_same a0, s2
    addi s2, s2, -1
    bnez s2, again
    pass

    .option push
    .option norvc
    .balign 4
patched:
    li a0, 1
    ret
    .option pop
    test_end
    .option norvc
    .balign 4
replacement:
    li a0, 2
replacement_ahead:
    li a0, 5
base:
    li a0, 0
