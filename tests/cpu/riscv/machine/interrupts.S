# SPDX-License-Identifier: Apache-2.0
# Interrupts: enabling, priority, delegation, vectors, the stimecmp timer, WFI.
    .include "test.inc"
    test_begin
    li s0, 1 << 63

    step 1 # masked by MIE in M, taken when it is set
    csrwi mip, 2
    csrwi mie, 2
    csrr a0, mip
    andi a0, a0, 2
    check a0, 2
    faults
    csrsi mstatus, MSTATUS_MIE
    nop
    trapped (1<<63)+1, zero
    ld a0, trap_status
    andi a0, a0, MSTATUS_MPIE
    beqz a0, fail

    step 2 # MSI, MTI and MEI come before SEI, SSI, STI; SEI before SSI
    csrci mstatus, MSTATUS_MIE
    li a0, (1 << 9) | (1 << 5) | 2
    csrs mip, a0
    csrs mie, a0
    .ifndef ORACLE # QEMU 7.2 takes the lowest number first
    faults
    csrsi mstatus, MSTATUS_MIE
    nop
    trapped (1<<63)+9, zero
    csrci mstatus, MSTATUS_MIE
    .endif
    li a0, 1 << 9
    csrc mip, a0
    faults
    csrsi mstatus, MSTATUS_MIE
    nop
    trapped (1<<63)+1, zero
    csrci mstatus, MSTATUS_MIE
    csrci mip, 2
    faults
    csrsi mstatus, MSTATUS_MIE
    nop
    trapped (1<<63)+5, zero
    csrci mstatus, MSTATUS_MIE

    step 3 # M interrupts are enabled below M whatever MIE says
    faults
    enter 1
    nop
    trapped (1<<63)+5, zero
    li a0, (1 << 5)
    csrc mip, a0

    step 4 # delegated: masked by SIE in S, taken in S; not in M
    li a0, 0x222
    csrw mideleg, a0
    la a0, vectors
    ori a0, a0, 1
    csrw stvec, a0
    li a0, 0x222
    csrw mie, a0
    csrwi mip, 2
    csrsi mstatus, MSTATUS_MIE # does not concern M
    nop
    csrci mstatus, MSTATUS_MIE
    csrci mstatus, MSTATUS_SIE
    enter 1
    li a5, 0
    csrr a0, sip
    check a0, 2
    csrr a0, sie
    check a0, 0x222
    check a5, 0
    csrsi sstatus, MSTATUS_SIE
    nop
    check a5, 1
    csrr a0, sip
    check a0, 0
    back_to_m 9

    step 5 # the timer: stimecmp in the past at once, in the future later, WFI waits for it
    li a0, 1 << 63
    csrs menvcfg, a0
    li a0, 2
    csrs mcounteren, a0
    li a0, -1
    csrw 0x14d, a0
    csrr a0, mip
    andi a0, a0, 0x20
    check a0, 0
    csrw 0x14d, zero
    csrr a0, mip
    andi a0, a0, 0x20
    check a0, 0x20
    li a0, -1
    csrw 0x14d, a0
    enter 1
    csrsi sstatus, MSTATUS_SIE
    li a5, 0
    rdtime a1
    li a2, 20000 # 2 ms
    add a1, a1, a2
    csrw 0x14d, a1
wait:
    wfi
    beqz a5, wait
    check a5, 5
    rdtime a2
    bltu a2, a1, fail

    step 6 # the same without WFI: a loop is interrupted
    li a5, 0
    rdtime a1
    li a2, 20000
    add a1, a1, a2
    csrw 0x14d, a1
spin:
    beqz a5, spin
    check a5, 5

    step 7 # WFI wakes for an interrupt that is enabled in sie although SIE is clear, and goes on
    csrci sstatus, MSTATUS_SIE
    rdtime a1
    li a2, 20000
    add a1, a1, a2
    csrw 0x14d, a1
    li a5, 0
    wfi
    check a5, 0
    csrr a0, sip
    andi a0, a0, 0x20
    check a0, 0x20
    csrsi sstatus, MSTATUS_SIE
    nop
    check a5, 5

    step 8 # without STCE the register is not for S
    back_to_m 9
    li a0, 1 << 63
    csrc menvcfg, a0
    enter 1
    faults
    csrr a0, 0x14d
    trapped 2, any

    step 9 # mideleg has the S interrupts only
    li a0, -1
    csrw mideleg, a0
    csrr a0, mideleg
    li a1, 0x888
    and a0, a0, a1
    check_same a0, zero
    pass

    .balign 64
vectors:
    j fail
    .balign 4
    j on_software
    .balign 4
    j fail
    .balign 4
    j fail
    .balign 4
    j fail
    .balign 4
    j on_timer
    .balign 4
on_software:
    csrci sip, 2
    li a5, 1
    sret
    .balign 4
on_timer:
    li a5, -1
    csrw 0x14d, a5
    li a5, 5
    sret
    test_end
