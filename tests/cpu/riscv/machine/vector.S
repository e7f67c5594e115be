# SPDX-License-Identifier: Apache-2.0
# oracle: -cpu rv64,v=true,vlen=128,elen=64,vext_spec=v1.0
# Vectors: mstatus.VS, the CSRs, vtype and vl, faults in the middle of a vector, what is reserved; and the conversions that QEMU 7.2
# ends itself at (ORACLE leaves them out).
    .include "test.inc"
    .option arch, +v
    .equ MSTATUS_VS, 3 << 9
    .equ RAM_END, RAM + (256 << 20)
    test_begin

    step 1 # off
    li s0, MSTATUS_VS
    csrc mstatus, s0
    faults
    vadd.vv v1, v2, v3
    trapped 2, any
    faults
    vsetvli a0, a1, e8, m1, ta, ma
    trapped 2, any
    faults
    csrr a0, vl
    trapped 2, any
    faults
    vle8.v v1, (s0)
    trapped 2, any

    step 2 # clean becomes dirty
    li a0, 2 << 9
    csrs mstatus, a0
    vsetivli a0, 3, e64, m2, ta, mu
    check a0, 3
    csrr a1, mstatus
    and a2, a1, s0
    check_same a2, s0
    bgez a1, fail # SD

    step 3 # vl, vtype, vlenb
    csrr a0, vlenb
    check a0, 16
    csrr a0, vl
    check a0, 3
    csrr a0, vtype
    check a0, 0x59
    vsetvli a0, zero, e8, m8, tu, ma
    check a0, 128
    vsetvli zero, zero, e16, m8, tu, ma # keeps vl, as far as VLMAX goes
    vsetvli a0, zero, e32, mf2, tu, mu
    check a0, 2
    li a0, 0xc0 # e8, m1 by a register
    li a1, 1000
    vsetvl a2, a1, a0
    check a2, 16
    vsetvli a0, a1, e64, mf2, tu, mu # half a register holds none: vill
    check a0, 0
    csrr a0, vtype
    li a1, 1 << 63
    check_same a0, a1
    faults
    vadd.vv v1, v2, v3
    trapped 2, any
    la a0, doubles
    vl1re8.v v1, (a0) # needs no vtype
    faults
    csrw vl, zero
    trapped 2, any

    step 4 # vcsr is vxrm and vxsat
    csrwi vxrm, 3
    csrwi vxsat, 1
    csrr a0, vcsr
    check a0, 7
    csrwi vcsr, 2
    csrr a0, vxrm
    check a0, 1
    csrr a0, vxsat
    check a0, 0
    csrwi vstart, 5
    csrr a0, vstart
    check a0, 5
    vsetivli zero, 4, e32, m1, tu, mu
    csrr a0, vstart
    check a0, 0

    step 5 # elements below vstart stay, and vstart is 0 again
    vmv.v.i v1, 1
    vmv.v.i v2, 7
    csrwi vstart, 2
    vadd.vv v2, v1, v1
    csrr a0, vstart
    check a0, 0
    vmv.x.s a0, v2
    check a0, 7
    vslidedown.vi v3, v2, 2
    vmv.x.s a0, v3
    check a0, 2
    csrwi vstart, 1 # a reduction cannot begin in the middle
    faults
    vredsum.vs v3, v1, v2
    trapped 2, any
    csrwi vstart, 0

    step 6 # a fault in the middle: vstart says where, and what came before is there
    li a0, RAM_END - 16
    li a1, 11
    sd a1, 0(a0)
    sd a1, 8(a0)
    vsetivli zero, 4, e64, m2, tu, mu
    vmv.v.i v4, 3
    li a2, RAM_END
    faults
    vle64.v v4, (a0)
    trapped 5, a2
    csrr a3, vstart
    check a3, 2
    csrwi vstart, 0
    vmv.x.s a3, v4
    check a3, 11
    vslidedown.vi v6, v4, 2
    vmv.x.s a3, v6
    check a3, 3
    faults
    vse64.v v4, (a0)
    trapped 7, a2
    csrr a3, vstart
    check a3, 2
    csrwi vstart, 0
    li a4, 8 # strided, and by index
    faults
    vlse64.v v4, (a0), a4
    trapped 5, a2
    csrr a3, vstart
    check a3, 2
    csrwi vstart, 0

    step 7 # fault-only-first: the vector ends there, unless it is the first
    vle64ff.v v4, (a0)
    csrr a3, vl
    check a3, 2
    csrr a3, vstart
    check a3, 0
    vsetivli zero, 4, e64, m2, tu, mu
    faults
    vle64ff.v v4, (a2)
    trapped 5, a2
    csrwi vstart, 0

    step 8 # reserved: groups that are not aligned, masked writes of v0, floats of 16 bits, a rounding mode that is none
    faults
    vadd.vv v1, v2, v4
    trapped 2, any
    faults
    vadd.vv v0, v2, v4, v0.t
    trapped 2, any
    faults
    vwadd.vv v4, v6, v8 # elements of 128 bits
    trapped 2, any
    .ifndef ORACLE
    vsetivli zero, 4, e16, m1, tu, mu
    li t0, MSTATUS_FS
    csrs mstatus, t0
    faults
    vfadd.vv v1, v2, v3
    trapped 2, any
    .endif
    li t0, MSTATUS_FS
    csrs mstatus, t0
    vsetivli zero, 2, e32, m1, tu, mu
    csrwi frm, 5
    faults
    vfadd.vv v1, v2, v3
    trapped 2, any
    csrwi frm, 0
    csrc mstatus, t0
    faults
    vfadd.vv v1, v2, v3
    trapped 2, any
    csrs mstatus, t0

    .ifndef ORACLE
    step 9 # conversions with a rounding of their own
    la a0, singles
    vle32.v v1, (a0)
    vfcvt.rtz.x.f.v v2, v1
    vmv.x.s a0, v2
    check a0, 2
    vslidedown.vi v3, v2, 1
    vmv.x.s a0, v3
    check a0, -2
    vfcvt.rtz.xu.f.v v2, v1
    vslidedown.vi v3, v2, 1
    vmv.x.s a0, v3
    check a0, 0
    csrr a0, fflags
    check a0, 0x11
    vfwcvt.rtz.x.f.v v4, v1
    vsetivli zero, 2, e64, m1, tu, mu
    vslidedown.vi v3, v4, 1
    vmv.x.s a0, v3
    check a0, -2
    la a0, doubles
    vle64.v v1, (a0)
    vsetivli zero, 2, e32, mf2, tu, mu
    vfncvt.rtz.x.f.w v2, v1
    vmv.x.s a0, v2
    li a1, 0x7fffffff
    check_same a0, a1
    vfncvt.rod.f.f.w v2, v1 # to odd: an inexact result has its last bit set
    vslidedown.vi v3, v2, 1
    vmv.x.s a0, v3
    li a1, 0x3f800001
    check_same a0, a1
    .endif
    pass
    test_end

    .balign 8
singles:
    .word 0x4039999a, 0xc0399999 # 2.9, -2.9
doubles:
    .dword 0x7e37e43c8800759c, 0x3ff0000000000001 # 1e300, 1 + 2^-52
