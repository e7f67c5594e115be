# SPDX-License-Identifier: Apache-2.0
# Physical memory protection: modes, priority, locks, S and M, parts of a page, and WARL.
    .include "test.inc"
    test_begin
    la s0, page
    la s1, words

    step 1 # S reads and writes through the entry that lets everything
    enter 1
    sd s1, (s0)
    ld a0, (s0)
    back_to_m 9

    step 2 # the lower entry wins: the page becomes read-only (NAPOT), M is not concerned
    csrr s2, pmpaddr0
    csrr s3, pmpcfg0
    srli a0, s0, 2
    ori a0, a0, 0x1ff # 4 KiB
    csrw pmpaddr0, a0
    csrw pmpaddr1, s2
    li a1, 0x1f19
    csrw pmpcfg0, a1
    sfence.vma
    sd s0, (s0)
    enter 1
    ld a0, 8(s0)
    faults
    sd a0, 16(s0)
    trapped 7, any
    ld a0, trap_tval
    addi a1, s0, 16
    check_same a0, a1

    step 3 # nothing: loads and fetches fail
    li a1, 0x1f18
    csrw pmpcfg0, a1
    sfence.vma
    enter 1
    faults
    ld a0, 8(s0)
    trapped 5, any
    enter 1
    faults
    jr s0
    trapped 1, s0

    step 4 # TOR within a page: [page + 64, page + 128) is closed
    addi a0, s0, 64
    srli a0, a0, 2
    csrw pmpaddr0, a0
    addi a0, s0, 128
    srli a0, a0, 2
    csrw pmpaddr1, a0
    csrw pmpaddr2, s2
    li a1, 0x1f0800
    csrw pmpcfg0, a1
    sfence.vma
    enter 1
    ld a0, 56(s0)
    sd a0, 128(s0)
    faults
    ld a0, 64(s0)
    trapped 5, any
    enter 1
    faults
    sb a0, 127(s0)
    trapped 7, any
    enter 1
    lw a0, 60(s0)
    faults
    ld a0, 60(s0) # straddles the border
    trapped 5, any

    step 5 # NA4
    addi a0, s0, 32
    srli a0, a0, 2
    csrw pmpaddr0, a0
    csrw pmpaddr1, s2
    li a1, 0x1f10
    csrw pmpcfg0, a1
    sfence.vma
    enter 1
    lw a0, 28(s0)
    lw a0, 36(s0)
    faults
    lw a0, 32(s0)
    trapped 5, any

    step 6 # MPRV: M's loads with S's rights
    li a0, MSTATUS_MPP
    csrc mstatus, a0
    li a0, 1 << 11
    csrs mstatus, a0
    li a0, MSTATUS_MPRV
    csrs mstatus, a0
    faults
    lw a1, 32(s0)
    trapped 5, any
    li a0, MSTATUS_MPRV
    csrc mstatus, a0
    lw a1, 32(s0)

    step 7 # nothing matches: S has no access, M has
    csrw pmpcfg0, zero
    sfence.vma
    lw a1, 32(s0)
    li t0, 0x1f
    csrw pmpaddr0, s2
    csrw pmpcfg0, t0
    sfence.vma

    step 8 # locked entries bind M, and stay until reset
    srli a0, s0, 2
    ori a0, a0, 0x1ff
    csrw pmpaddr4, a0
    csrw pmpaddr0, zero
    li a1, 0x99 << 32 # L, NAPOT, R
    csrw pmpcfg0, a1
    sfence.vma
    ld a0, (s0)
    faults
    sd a0, (s0)
    trapped 7, any
    csrw pmpcfg0, zero
    csrr a0, pmpcfg0
    li a1, 0x99 << 32
    check_same a0, a1
    csrr a0, pmpaddr4
    csrw pmpaddr4, zero
    csrr a1, pmpaddr4
    check_same a0, a1
    pass
    test_end

    .balign 4096
page:
    .zero 4096
words:
    .dword 1, 2
