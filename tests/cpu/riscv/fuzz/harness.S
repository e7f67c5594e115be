# SPDX-License-Identifier: Apache-2.0
# Runs the generated cases one after the other and writes all their final states out: as a Linux program to standard output,
# on a bare machine (BARE) to the UART. A case's state is x1 to x31, f0 to f31, fcsr, the address of its code, the place
# of a return address, and memory. Its code ends with  ld gp, RETURN(gp); jr gp.
    .equ X, 0
    .equ F, 256
    .equ FCSR, 512
    .equ CODE, 520
    .equ RETURN, 528
    .equ STATE_SIZE, 2048
    .option norelax
    .text
    .globl _start
_start:
    .ifdef BARE
    li t0, 3 << 13
    csrs mstatus, t0
    la t0, unexpected
    csrw mtvec, t0
    .endif
    la gp, states
next:
    la t0, states_end
    bgeu gp, t0, finished
    la t0, current
    sd gp, (t0)
    la t0, save
    sd t0, RETURN(gp)
    ld t0, FCSR(gp)
    fscsr t0
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fld f\n, F + 8 * \n(gp)
    .endr
    .irp n, 1,2,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    ld x\n, X + 8 * \n(gp)
    .endr
    # the jump needs a register: x31 is loaded by the code itself, with ld x31, X + 248(gp)
    ld x31, CODE(gp)
    jr x31
save:
    la gp, current
    ld gp, (gp)
    .irp n, 1,2,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    sd x\n, X + 8 * \n(gp)
    .endr
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fsd f\n, F + 8 * \n(gp)
    .endr
    frcsr t0
    sd t0, FCSR(gp)
    la t0, STATE_SIZE
    add gp, gp, t0
    j next
finished:
    la a1, states
    la a2, states_end
    .ifdef BARE
    li a0, 0x10000000
1:  bgeu a1, a2, 2f
    lbu a3, 5(a0) # room in the transmitter
    andi a3, a3, 0x20
    beqz a3, 1b
    lbu a3, (a1)
    sb a3, (a0)
    addi a1, a1, 1
    j 1b
2:  li a0, 0x100000
    li a1, 0x5555
    sw a1, (a0)
3:  j 3b
    .balign 4
unexpected:
    li a0, 0x100000
    li a1, 0x13333
    sw a1, (a0)
4:  j 4b
    .else
    sub a2, a2, a1
write_more:
    li a0, 1
    li a7, 64
    ecall
    blez a0, 5f
    add a1, a1, a0
    sub a2, a2, a0
    bnez a2, write_more
    li a0, 0
5:  li a7, 94
    ecall
    .endif
    .data
    .balign 8
current:
    .dword 0
    .section .cases, "awx"
    .balign 4096
    .incbin "code.bin"
    .section .states, "aw"
    .balign 4096
states:
    .incbin "states.bin"
states_end:
