/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stack switch: the part of coroutines that knows the processor and the sanitizers. Private to base.
 *
 * A context is a place to come back to. Two implementations are chosen per loop at run time: a few lines of assembly
 * (co_switch_x86_64.S, co_switch_aarch64.S), and ucontext(3) for other processors and for tests
 * (SPINDLE_COROUTINES=ucontext). Both keep callee-saved registers and the floating-point control words; neither touches
 * the signal mask by intent (ucontext does, at the cost of a system call a switch).
 */
#ifndef BASE_CO_CONTEXT_H
#define BASE_CO_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <ucontext.h>

#if defined(__x86_64__) || defined(__aarch64__)
#define CO_HAVE_ASSEMBLY 1
#else
#define CO_HAVE_ASSEMBLY 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif
#ifndef CO_ASAN
#define CO_ASAN 0
#endif

#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#ifndef CO_TSAN
#define CO_TSAN 0
#endif

struct co_context {
    void *sp;             /* assembly: the stack pointer while we are away */
    ucontext_t *ucontext; /* owned; NULL: this context uses assembly */
    /* What the sanitizers are told on each switch. */
    const void *stack_base; /* lowest address; unknown (NULL) for a thread's own stack until we have left it once */
    size_t stack_size;
    void *tsan_fiber;
};

bool co_context_wants_ucontext(void); /* no assembly for this processor, or the environment asks */

/* The context of the running thread's own stack, to be switched away from. */
void co_context_init_thread(struct co_context *context, bool ucontext);

/* A context that, when first switched to, calls entry(arg) on the stack [base, base + size). `entry` never returns: it
 * leaves by co_context_switch(..., true). `top` may be lower than base + size: what lies above belongs to the caller.
 */
void co_context_init(struct co_context *context, bool ucontext, void *base, size_t size, void *top,
                     void (*entry)(void *arg), void *arg);
void co_context_free(struct co_context *context);

/* Leaves `from` and continues `to`; returns when somebody switches back. `from_ends`: nobody will. */
void co_context_switch(struct co_context *from, struct co_context *to, bool from_ends);

/* The first thing entry() does: completes the switch that brought us here. */
void co_context_entered(struct co_context *self, struct co_context *from);

#endif
