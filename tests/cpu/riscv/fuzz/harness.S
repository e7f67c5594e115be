# SPDX-License-Identifier: Apache-2.0
# Runs the generated cases one after the other and writes all their final states out: as a Linux program to standard output,
# on a bare machine (BARE) to the UART. A case's state is x1 to x31, f0 to f31, fcsr, the address of its code, the place
# of a return address, and memory. Its code ends with  ld gp, RETURN(gp); jr gp.
#
# With VECTOR a state goes on with v0 to v31 (of 128 bits), vl, vtype, vcsr, and how many instructions were illegal: those
# are skipped.
    .equ X, 0
    .equ F, 256
    .equ FCSR, 512
    .equ CODE, 520
    .equ RETURN, 528
    .ifdef VECTOR
    .option arch, +v
    .equ STATE_SIZE, 4096
    .equ V, 2048
    .equ VL, 2560
    .equ VTYPE, 2568
    .equ VCSR, 2576
    .equ ILLEGAL, 2584
    .else
    .equ STATE_SIZE, 2048
    .endif
    .option norelax
    .text
    .globl _start
_start:
    .ifdef BARE
    li t0, 3 << 13 | 3 << 9
    csrs mstatus, t0
    la t0, unexpected
    csrw mtvec, t0
    .else
    .ifdef VECTOR
    li a0, 4 # SIGILL
    la a1, action
    li a2, 0
    li a3, 8
    li a7, 134 # rt_sigaction
    ecall
    la a0, stack
    li a1, 0
    li a7, 132 # sigaltstack: x2 is a case's own
    ecall
    .endif
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
    .ifdef VECTOR
    li t1, V
    add t1, t1, gp
    ld t0, VCSR - V(t1)
    csrw vcsr, t0
    .irp n, 0,8,16,24
    vl8re8.v v\n, (t1)
    addi t1, t1, 128
    .endr
    ld t0, VTYPE - V - 512(t1)
    ld t1, VL - V - 512(t1)
    vsetvl zero, t1, t0
    .endif
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
    .ifdef VECTOR
    li t1, V
    add t1, t1, gp
    csrr t0, vl
    sd t0, VL - V(t1)
    csrr t0, vtype
    sd t0, VTYPE - V(t1)
    csrr t0, vcsr
    sd t0, VCSR - V(t1)
    .irp n, 0,8,16,24
    vs8r.v v\n, (t1)
    addi t1, t1, 128
    .endr
    .endif
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
    .ifdef VECTOR
    csrw mscratch, gp
    csrr gp, mcause
    addi gp, gp, -2
    bnez gp, 4f
    csrr gp, mepc
    addi gp, gp, 4
    csrw mepc, gp
    csrw mcause, t0
    la gp, current
    ld gp, (gp)
    li t0, ILLEGAL
    add gp, gp, t0
    ld t0, (gp)
    addi t0, t0, 1
    sd t0, (gp)
    csrr t0, mcause
    csrr gp, mscratch
    mret
4:
    .endif
    li a0, 0x100000
    li a1, 0x13333
    sw a1, (a0)
5:  j 5b
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
    .ifndef BARE
    .ifdef VECTOR
handler: # (signal, siginfo, ucontext): pc is the first of uc_mcontext
    ld t0, 176(a2)
    addi t0, t0, 4
    sd t0, 176(a2)
    la t0, current
    ld t0, (t0)
    li t1, ILLEGAL
    add t0, t0, t1
    ld t1, (t0)
    addi t1, t1, 1
    sd t1, (t0)
    ret
    .data
    .balign 8
action: # struct sigaction of the kernel: handler, flags (SA_SIGINFO, SA_NODEFER, SA_ONSTACK), mask
    .dword handler, 0x48000004, 0
stack: # stack_t
    .dword stack_memory, 0, 65536
    .bss
    .balign 16
stack_memory:
    .skip 65536
    .endif
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
