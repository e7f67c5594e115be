/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stack switching: the first frame of a new stack, the ucontext fallback, and the hooks by which AddressSanitizer and
 * ThreadSanitizer follow us from stack to stack. Without sanitizers co_context_switch() is one test and one call.
 *
 * ucontext passes arguments to a new stack as ints; the pointers go through in halves (see makecontext(3)).
 */
#include "base/co_context.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/math.h"

#if CO_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* The floating-point state that the ABI gives a process: all exceptions masked, round to nearest. */
#define DEFAULT_MXCSR 0x1f80
#define DEFAULT_X87 0x037f

/* In co_switch_*.S. */
extern void co_switch_stack(void **save_sp, void *load_sp) __attribute__((visibility("hidden")));
extern void co_switch_start(void) __attribute__((visibility("hidden")));

bool co_context_wants_ucontext(void)
{
    const char *choice = getenv("SPINDLE_COROUTINES");
    return !CO_HAVE_ASSEMBLY || (choice && !strcmp(choice, "ucontext"));
}

void co_context_init_thread(struct co_context *context, bool ucontext)
{
    *context = (struct co_context){.ucontext = ucontext ? new (ucontext_t) : NULL};
}

/* The frame that co_switch_stack() pops when it first arrives: see the layouts in the assembly files. */
static void *first_frame(void *top, void (*entry)(void *arg), void *arg)
{
    uintptr_t end = round_down((uintptr_t)top, 16);
#if defined(__x86_64__)
    /* After the return into co_switch_start() the stack pointer is `end`, aligned to 16 as before any call. */
    uint64_t *frame = (uint64_t *)(end - 64);
    memset(frame, 0, 64);
    const uint32_t default_mxcsr = DEFAULT_MXCSR;
    const uint16_t default_x87 = DEFAULT_X87;
    memcpy((char *)frame, &default_mxcsr, sizeof default_mxcsr);
    memcpy((char *)frame + 4, &default_x87, sizeof default_x87);
    frame[4] = (uintptr_t)entry; /* r12 */
    frame[3] = (uintptr_t)arg;   /* r13 */
    frame[7] = (uintptr_t)co_switch_start;
#elif defined(__aarch64__)
    uint64_t *frame = (uint64_t *)(end - 176);
    memset(frame, 0, 176);
    frame[0] = (uintptr_t)entry; /* x19 */
    frame[1] = (uintptr_t)arg;   /* x20 */
    frame[11] = (uintptr_t)co_switch_start;
#else
    void *frame = (void *)end; /* never used: every context has a ucontext */
#endif
    return frame;
}

static void ucontext_start(unsigned entry_low, unsigned entry_high, unsigned arg_low, unsigned arg_high)
{
    void (*entry)(void *) = (void (*)(void *))(uintptr_t)((uint64_t)entry_high << 32 | entry_low);
    entry((void *)(uintptr_t)((uint64_t)arg_high << 32 | arg_low));
    abort();
}

static ucontext_t *first_ucontext(void *base, void *top, void (*entry)(void *arg), void *arg)
{
    ucontext_t *ucontext = new (ucontext_t);
    if (getcontext(ucontext))
        abort();
#if defined(__x86_64__)
    /* getcontext() has copied our rounding mode; a new stack begins with the default, as in first_frame(). */
    ucontext->uc_mcontext.fpregs->mxcsr = DEFAULT_MXCSR;
    ucontext->uc_mcontext.fpregs->cwd = DEFAULT_X87;
#endif
    ucontext->uc_stack.ss_sp = base;
    ucontext->uc_stack.ss_size = (size_t)((char *)top - (char *)base);
    uint64_t e = (uintptr_t)entry, a = (uintptr_t)arg;
    makecontext(ucontext, (void (*)(void))ucontext_start, 4, (unsigned)e, (unsigned)(e >> 32), (unsigned)a,
                (unsigned)(a >> 32));
    return ucontext;
}

void co_context_init(struct co_context *context, bool ucontext, void *base, size_t size, void *top,
                     void (*entry)(void *arg), void *arg)
{
    *context = (struct co_context){.stack_base = base, .stack_size = size};
    if (ucontext)
        context->ucontext = first_ucontext(base, top, entry, arg);
    else
        context->sp = first_frame(top, entry, arg);
#if CO_TSAN
    context->tsan_fiber = __tsan_create_fiber(0);
#endif
}

void co_context_free(struct co_context *context)
{
    free(context->ucontext);
#if CO_TSAN
    if (context->tsan_fiber && context->stack_base)
        __tsan_destroy_fiber(context->tsan_fiber);
#endif
    *context = (struct co_context){0};
}

static inline void switch_stack(struct co_context *from, struct co_context *to)
{
    if (unlikely(to->ucontext != NULL))
        swapcontext(from->ucontext, to->ucontext);
    else if (CO_HAVE_ASSEMBLY)
        co_switch_stack(&from->sp, to->sp);
}

void co_context_switch(struct co_context *from, struct co_context *to, bool from_ends)
{
#if CO_TSAN
    if (!from->stack_base)
        from->tsan_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
#if CO_ASAN
    void *fake_stack = NULL;
    __sanitizer_start_switch_fiber(from_ends ? NULL : &fake_stack, to->stack_base, to->stack_size);
#endif
    switch_stack(from, to);
#if CO_ASAN
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
}

void co_context_entered(struct co_context *self, struct co_context *from)
{
#if CO_ASAN
    const void *base;
    size_t size;
    __sanitizer_finish_switch_fiber(NULL, &base, &size);
    if (!from->stack_base) {
        from->stack_base = base;
        from->stack_size = size;
    }
#endif
}
