# SPDX-License-Identifier: Apache-2.0
# mstatus.FS: off, clean, dirty; fflags and frm; reserved rounding modes.
    .include "test.inc"
    test_begin

    step 1 # off
    li s0, MSTATUS_FS
    csrc mstatus, s0
    faults
    fadd.d fa0, fa1, fa2
    trapped 2, any
    faults
    fmv.x.d a0, fa0
    trapped 2, any
    faults
    csrr a0, fflags
    trapped 2, any
    faults
    fld fa0, (s0)
    trapped 2, any

    step 2 # clean: looking leaves it clean, changing makes it dirty
    li a0, 2 << 13
    csrs mstatus, a0
    fmv.x.d a0, fa0
    csrr a1, mstatus
    and a1, a1, s0
    li a2, 2 << 13
    check_same a1, a2
    fmv.d.x fa0, zero
    csrr a1, mstatus
    and a2, a1, s0
    check_same a2, s0
    bgez a1, fail # SD

    step 3 # flags accumulate, and are written
    csrwi fflags, 0
    li a0, 1
    fcvt.d.l fa0, a0
    li a0, 3
    fcvt.d.l fa1, a0
    fdiv.d fa2, fa0, fa1
    csrr a0, fflags
    check a0, 1
    fmv.d.x fa3, zero
    fdiv.d fa2, fa0, fa3
    csrr a0, fflags
    check a0, 9
    fsub.d fa2, fa2, fa2
    csrr a0, fflags
    check a0, 0x19
    csrwi fflags, 2
    csrr a0, fcsr
    check a0, 2

    step 4 # frm: the five modes round, the others trap
    .macro rounded mode, result
    csrwi frm, \mode
    fdiv.d fa2, fa0, fa1
    fmv.x.d a0, fa2
    li a1, \result
    check_same a0, a1
    .endm
    rounded 0, 0x3fd5555555555555
    rounded 1, 0x3fd5555555555555
    rounded 2, 0x3fd5555555555555
    rounded 3, 0x3fd5555555555556
    rounded 4, 0x3fd5555555555555
    csrr a0, frm
    check a0, 4
    li a0, 5 # 2.5 is a tie
    fcvt.d.l fa4, a0
    li a0, 2
    fcvt.d.l fa5, a0
    fdiv.d fa4, fa4, fa5
    fcvt.l.d a0, fa4
    check a0, 3
    fcvt.l.d a0, fa4, rne
    check a0, 2
    fcvt.l.d a0, fa4, rup
    check a0, 3
    fcvt.l.d a0, fa4, rmm
    check a0, 3
    csrwi frm, 5
    faults
    fadd.d fa2, fa0, fa1
    trapped 2, any
    fadd.d fa2, fa0, fa1, rne
    csrwi frm, 0
    faults
    .word 0x02c5d553 # fadd.d fa0, fa1, fa2 with the reserved rounding mode 5
    trapped 2, any

    step 5 # NaN-boxing: a double read as a single is the default NaN
    li a0, 0x3ff0000000000000
    fmv.d.x fa0, a0
    fadd.s fa1, fa0, fa0
    fmv.x.w a0, fa1
    check a0, 0x7fc00000
    fmv.x.d a0, fa1
    li a1, 0xffffffff7fc00000
    check_same a0, a1
    pass
    test_end
