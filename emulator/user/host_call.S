/* SPDX-License-Identifier: Apache-2.0 */
/*
 * int64_t user_host_call(volatile uint32_t *stop, long number, const uint64_t arguments[6])
 *
 * A system call that no signal can slip by: the handler finds a thread between the two labels and knows that its call
 * has not begun; it moves it to the exit, and the guest's handler runs first. A signal that comes later interrupts the
 * call itself.
 */
#if defined(__x86_64__)
    .text
    .globl user_host_call, user_host_call_begin, user_host_call_end, user_host_call_interrupted
    .type user_host_call, @function
    .p2align 4
user_host_call:
    movq %rdi, %rcx
    movq %rsi, %rax
    movq %rdx, %r11
    movq (%r11), %rdi
    movq 8(%r11), %rsi
    movq 16(%r11), %rdx
    movq 24(%r11), %r10
    movq 32(%r11), %r8
    movq 40(%r11), %r9
user_host_call_begin:
    cmpl $0, (%rcx)
    jne user_host_call_interrupted
    syscall
user_host_call_end:
    ret
user_host_call_interrupted:
    movq $-512, %rax
    ret
    .size user_host_call, . - user_host_call

    .globl user_signal_restorer
    .type user_signal_restorer, @function
    .p2align 4
user_signal_restorer:
    movl $15, %eax /* rt_sigreturn */
    syscall
    .size user_signal_restorer, . - user_signal_restorer
#endif
    .section .note.GNU-stack, "", @progbits
