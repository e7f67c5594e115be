# SPDX-License-Identifier: Apache-2.0
# Exceptions: causes, mtval, mepc, privilege checks, delegation to S and the way back.
    .include "test.inc"
    test_begin

    step 1 # illegal instructions tell their bits
    faults
    .word 0xffffffff
    trapped 2, any
    ld a0, trap_tval
    li a1, 0xffffffff
    check_same a0, a1

    step 2
    faults
    .half 0
    trapped 2, zero

    step 3 # ebreak
    faults
breakpoint:
    ebreak
    trapped 3, any
    ld a0, trap_epc
    la a1, breakpoint
    check_same a0, a1

    step 4 # environment calls
    faults
    ecall
    trapped 11, zero
    enter 1
    back_to_m 9
    enter 0
    back_to_m 8

    step 5 # nothing there
    li a0, 0x0b000000
    faults
    ld a1, 16(a0)
    trapped 5, any
    addi a2, a0, 16
    ld a1, trap_tval
    check_same a1, a2
    faults
    sw a1, 4(a0)
    trapped 7, any
    addi a2, a0, 4
    ld a1, trap_tval
    check_same a1, a2
    faults
    jr a0
    trapped 1, a0
    ld a1, trap_epc
    check_same a1, a0

    step 6 # misaligned: loads and stores work, atomics do not
    la a0, word
    ld a1, 1(a0)
    li a2, 0x0908070605040302
    check_same a1, a2
    .ifndef ORACLE # QEMU 7.2 calls a misaligned AMO a load
    addi a3, a0, 1
    faults
    amoadd.w a1, a2, (a3)
    trapped 6, a3
    addi a3, a0, 4
    faults
    amoswap.d a1, a2, (a3)
    trapped 6, a3
    addi a3, a0, 2
    faults
    lr.w a1, (a3)
    trapped 4, a3
    .endif

    step 7 # CSRs: read-only, absent, of a higher privilege
    faults
    csrw mhartid, a0
    trapped 2, any
    csrr a0, mhartid
    faults
    csrr a0, 0x5c0
    trapped 2, any
    enter 1
    faults
    csrr a0, mstatus
    trapped 2, any
    enter 0
    faults
    csrr a0, sstatus
    trapped 2, any
    enter 0
    faults
    sret
    trapped 2, any
    enter 1
    faults
    mret
    trapped 2, any

    step 8 # TVM, TW, TSR
    li a0, MSTATUS_TVM | MSTATUS_TW | MSTATUS_TSR
    csrs mstatus, a0
    enter 1
    faults
    csrr a1, satp
    trapped 2, any
    enter 1
    faults
    sfence.vma
    trapped 2, any
    enter 1
    faults
    wfi
    trapped 2, any
    enter 1
    faults
    sret
    trapped 2, any
    csrc mstatus, a0

    step 9 # delegation: U's ecall to S, and back with sret
    li a0, 1 << 8
    csrw medeleg, a0
    la a0, s_handler
    csrw stvec, a0
    li a0, MSTATUS_SIE
    csrs mstatus, a0
    enter 0
    li a5, 0
u_call:
    ecall
    check a5, 77
    back_to_u_done:
    li a5, 1
    ecall # the second one makes S go on to M
    j fail
s_handler:
    csrr a0, scause
    check a0, 8
    csrr a0, stval
    check_same a0, zero
    csrr a0, sstatus
    andi a1, a0, MSTATUS_SPP | MSTATUS_SIE
    check_same a1, zero
    andi a1, a0, MSTATUS_SPIE
    beqz a1, fail
    bnez a5, s_second
    csrr a0, sepc
    la a1, u_call
    check_same a0, a1
    addi a0, a0, 4
    csrw sepc, a0
    li a5, 77
    sret
s_second:
    back_to_m 9

    step 10 # an exception in M is never delegated
    faults
    ecall
    trapped 11, zero

    step 11 # mret puts MPP at U, and clears MPRV when it leaves M
    li a0, MSTATUS_MPRV
    enter 1
    back_to_m 9
    ld a1, trap_status
    li a2, MSTATUS_MPP
    and a1, a1, a2
    li a2, 1 << 11
    check_same a1, a2

    step 12 # WARL: MPP 2 does not exist, medeleg has no bit 11, mepc is even
    .ifndef ORACLE # QEMU 7.2 keeps what was written
    li a0, MSTATUS_MPP
    csrc mstatus, a0
    li a0, 2 << 11
    csrs mstatus, a0
    csrr a1, mstatus
    li a2, MSTATUS_MPP
    and a1, a1, a2
    check_same a1, zero
    li a0, -1
    csrw medeleg, a0
    csrr a0, medeleg
    li a1, 1 << 11
    and a0, a0, a1
    check_same a0, zero
    csrw medeleg, zero
    li a0, 0x80000003
    csrw mepc, a0
    csrr a1, mepc
    li a0, 0x80000002
    check_same a1, a0
    .endif

    pass
    test_end
    .balign 8
word:
    .byte 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
