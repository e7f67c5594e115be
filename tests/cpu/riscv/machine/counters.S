# SPDX-License-Identifier: Apache-2.0
# cycle, time and instret move; mcountinhibit stops; mcounteren and scounteren open and close them.
    .include "test.inc"
    test_begin

    step 1
    rdtime a0
    rdcycle a1
    rdinstret a2
    li a3, 200000
1:  addi a3, a3, -1
    bnez a3, 1b
    rdtime a4
    bgeu a0, a4, fail
    rdcycle a4
    bgeu a1, a4, fail
    rdinstret a4
    bgeu a2, a4, fail

    step 2 # stopped, and set
    csrwi mcountinhibit, 5
    csrr a0, mcycle
    csrr a1, minstret
    csrr a2, mcycle
    check_same a0, a2
    csrr a2, minstret
    check_same a1, a2
    li a0, 12345
    csrw mcycle, a0
    csrr a1, cycle
    check_same a0, a1
    csrwi mcountinhibit, 0

    step 3 # closed
    csrw mcounteren, zero
    enter 1
    faults
    rdtime a0
    trapped 2, any
    enter 1
    faults
    rdcycle a0
    trapped 2, any
    li a0, 7
    csrw mcounteren, a0
    csrw scounteren, zero
    enter 1
    rdtime a0
    rdcycle a0
    back_to_m 9
    enter 0
    faults
    rdinstret a0
    trapped 2, any
    li a0, 2
    csrw scounteren, a0
    enter 0
    rdtime a0
    faults
    rdcycle a0
    trapped 2, any

    step 4 # mhartid and friends can be read
    csrr a0, mhartid
    check a0, 0
    csrr a0, mvendorid
    csrr a0, marchid
    csrr a0, mimpid
    csrr a0, misa
    li a1, 1 << 63
    and a1, a0, a1
    beqz a1, fail
    andi a1, a0, 0x2d # A, C, D, F
    check a1, 0x2d
    pass
    test_end
