/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack switch for aarch64, AAPCS64: callee-saved are x19-x29, the link register, the low halves of v8-v15, and the
 * floating-point control register.
 *
 * Frame that a context away leaves on its stack, from its saved stack pointer upwards:
 *      0 x19-x28 (80 bytes)   80 x29   88 x30   96 d8-d15 (64 bytes)   160 fpcr   168 unused
 */
#ifdef __aarch64__
        .text

        // void co_switch_stack(void **save_sp, void *load_sp)
        .globl  co_switch_stack
        .hidden co_switch_stack
        .type   co_switch_stack, %function
        .p2align 4
co_switch_stack:
        .cfi_startproc
        sub     sp, sp, #176
        .cfi_adjust_cfa_offset 176
        stp     x19, x20, [sp, #0]
        stp     x21, x22, [sp, #16]
        stp     x23, x24, [sp, #32]
        stp     x25, x26, [sp, #48]
        stp     x27, x28, [sp, #64]
        stp     x29, x30, [sp, #80]
        .cfi_rel_offset x29, 80
        .cfi_rel_offset x30, 88
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mrs     x9, fpcr
        str     x9, [sp, #160]

        mov     x10, sp
        str     x10, [x0]
        mov     sp, x1

        ldr     x10, [sp, #160]
        cmp     x9, x10
        b.eq    1f
        msr     fpcr, x10
1:      ldp     x19, x20, [sp, #0]
        ldp     x21, x22, [sp, #16]
        ldp     x23, x24, [sp, #32]
        ldp     x25, x26, [sp, #48]
        ldp     x27, x28, [sp, #64]
        ldp     x29, x30, [sp, #80]
        ldp     d8, d9, [sp, #96]
        ldp     d10, d11, [sp, #112]
        ldp     d12, d13, [sp, #128]
        ldp     d14, d15, [sp, #144]
        add     sp, sp, #176
        .cfi_adjust_cfa_offset -176
        br      x30     // not ret, which would be predicted by the calls of the stack we left
        .cfi_endproc
        .size   co_switch_stack, . - co_switch_stack

        // Where a new stack begins: x19 holds the function, x20 its argument. No caller: backtraces end here.
        .globl  co_switch_start
        .hidden co_switch_start
        .type   co_switch_start, %function
        .p2align 4
co_switch_start:
        .cfi_startproc
        .cfi_undefined x30
        mov     x0, x20
        blr     x19
        brk     #0
        .cfi_endproc
        .size   co_switch_start, . - co_switch_start
#endif
        .section .note.GNU-stack, "", %progbits
