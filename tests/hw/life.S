/* SPDX-License-Identifier: Apache-2.0 */
/* A guest for tests/hw/life_cycle.py: counts its starts in memory outside of its image, says which one it is and which value a
 * word of the image has, then does what the character says that it was built with (ACTION): power off, fail, reset once and
 * then power off, or print mtime for ever. */
    .equ UART, 0x10000000
    .equ TEST, 0x100000
    .equ MTIME, 0x200bff8
    .equ COUNT, 0x80400000
    .globl _start
_start:
    csrr t0, mhartid
park:
    beqz t0, first
    wfi
    j park
first:
    li s0, UART
    li t0, COUNT
    ld s1, 0(t0)
    addi s1, s1, 1
    sd s1, 0(t0)
    la a0, hello
    call print
    addi a0, s1, '0'
    sb a0, 0(s0)
    la a0, word
    lw a1, 0(a0)
    sw zero, 0(a0) /* a reset must bring it back */
    la a0, damaged
    beqz a1, 1f
    la a0, intact
1:  call print
    li t1, TEST
    .if ACTION == 'o'
    li t2, 0x5555
    .elseif ACTION == 'f'
    li t2, 0x73333
    .elseif ACTION == 'r'
    li t2, 0x7777
    li t3, 1
    beq s1, t3, 2f
    li t2, 0x5555
    .elseif ACTION == 'l'
    j loop
    .endif
2:  sw t2, 0(t1)
3:  wfi
    j 3b
loop:
    li t0, MTIME
    ld t1, 0(t0)
    li t2, 20000 /* 2 ms */
    add t2, t2, t1
4:  ld t1, 0(t0)
    bltu t1, t2, 4b
    li a0, '.'
    sb a0, 0(s0)
    j loop
print:
    lbu t0, 0(a0)
    beqz t0, 5f
    sb t0, 0(s0)
    addi a0, a0, 1
    j print
5:  ret
    .balign 4
word:
    .word 0x1234
hello:
    .asciz "start "
intact:
    .asciz " intact\n"
damaged:
    .asciz " damaged\n"
