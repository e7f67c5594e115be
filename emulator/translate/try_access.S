/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses to memory that may not be there: what try_access.h promises, for x86-64. None of these functions touches the
 * stack, so the handler of the host's fault only has to set the instruction pointer to the common ways out at the end.
 */
#if defined(__x86_64__)
    .text

    .macro function name
    .globl \name
    .type \name, @function
    .p2align 4
\name:
    .endm

    .globl translate_try_begin, translate_try_end, translate_try_failed
    .globl translate_try_copy_begin, translate_try_copy_end, translate_try_copy_failed
translate_try_begin:

/* bool load(const void *at, uint64_t *value) */
    .macro load name, instruction, register
    function \name
    \instruction (%rdi), \register
    movq %rax, (%rsi)
    movl $1, %eax
    ret
    .endm
    load translate_try_load_8, movzbl, %eax
    load translate_try_load_16, movzwl, %eax
    load translate_try_load_32, movl, %eax
    load translate_try_load_64, movq, %rax

/* bool store(void *at, uint64_t value) */
    .macro store name, instruction, register
    function \name
    \instruction \register, (%rdi)
    movl $1, %eax
    ret
    .endm
    store translate_try_store_8, movb, %sil
    store translate_try_store_16, movw, %si
    store translate_try_store_32, movl, %esi
    store translate_try_store_64, movq, %rsi

/* int cmpxchg(void *at, uint64_t *expected, uint64_t desired): 0 fault, 1 something else was there, 2 done. The fault
 * finds rax at its old value, so the way out clears it. */
    .macro cmpxchg name, desired, narrow
    function \name
    movq (%rsi), %rax
    lock cmpxchg \desired, (%rdi)
    movl $1, %edx
    movl $2, %ecx
    cmove %ecx, %edx
    \narrow
    movq %rax, (%rsi)
    movl %edx, %eax
    ret
    .endm
    cmpxchg translate_try_cmpxchg_8, %dl, "movzbl %al, %eax"
    cmpxchg translate_try_cmpxchg_16, %dx, "movzwl %ax, %eax"
    cmpxchg translate_try_cmpxchg_32, %edx, "movl %eax, %eax"
    cmpxchg translate_try_cmpxchg_64, %rdx, ""

translate_try_end:
    .p2align 4
translate_try_failed:
    xorl %eax, %eax
    ret

/* size_t copy(void *to, const void *from, size_t size): how many bytes were not copied */
    function translate_try_copy
    movq %rdx, %rcx
translate_try_copy_begin:
    rep movsb
translate_try_copy_end:
translate_try_copy_failed:
    movq %rcx, %rax
    ret

#endif
    .section .note.GNU-stack, "", @progbits
