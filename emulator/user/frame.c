/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frame of a signal handler as RISC-V's Linux lays it out (arch/riscv/include/uapi/asm/ucontext.h, sigcontext.h):
 * siginfo, then ucontext with the registers as of the interrupted instruction.
 */
#include <string.h>
#include "emulator/user/user.h"

enum { REGISTER_RA = 1, REGISTER_SP = 2, REGISTER_A0 = 10, REGISTER_A1, REGISTER_A2 };

struct guest_stack {
    uint64_t sp;
    int32_t flags, unused;
    uint64_t size;
};
struct extension { /* struct __riscv_ctx_hdr; the size counts the header */
    uint32_t magic, size;
};
struct guest_frame {
    uint8_t info[128];
    struct {
        uint64_t flags, link;
        struct guest_stack stack;
        uint64_t mask;
        uint8_t unused[120];
        uint64_t pad;           /* the registers are aligned to 16 */
        uint64_t registers[32]; /* pc, x1 to x31 */
        uint64_t f[32];
        uint32_t fcsr;
        uint8_t rest[260];      /* the union is as large as quad precision needs */
        struct extension first; /* of those that follow the frame; all zero: none */
    } context;
};
/* What follows when the program has used vectors; extensions end with a header that is zero. */
struct vector_frame {
    struct riscv_user_vectors vectors;
    struct extension end;
    uint64_t pad;
};
enum { VECTOR_MAGIC = 0x53465457 };
_Static_assert(sizeof(struct guest_frame) == USER_FRAME_SIZE, "the ABI's size");
_Static_assert(offsetof(struct guest_frame, context.registers) == 128 + 176, "the ABI's offset");

static bool on_alternate(const struct user_thread *t, uint64_t sp)
{
    return sp > t->alternate_sp && sp - t->alternate_sp <= t->alternate_size;
}

static int stack_flags(const struct user_thread *t, uint64_t sp)
{
    return !t->alternate_size ? SS_DISABLE : on_alternate(t, sp) ? SS_ONSTACK : 0;
}

/* Addresses in it are the guest's already. */
static void fill(struct user_thread *t, struct guest_frame *frame, const siginfo_t *info, uint64_t old_mask)
{
    const struct cpu_riscv *cpu = t->cpu;
    memcpy(frame->info, info, sizeof frame->info);
    frame->context.stack = (struct guest_stack){.sp = t->alternate_sp, .size = t->alternate_size};
    frame->context.stack.flags = t->alternate_flags | stack_flags(t, cpu->x[REGISTER_SP]);
    frame->context.mask = old_mask;
    memcpy(frame->context.registers, cpu->x, sizeof cpu->x);
    frame->context.registers[0] = cpu->tc.pc;
    memcpy(frame->context.f, cpu->f, sizeof cpu->f);
    frame->context.fcsr = riscv_user_fcsr(cpu);
}

static bool push_vectors(struct user_thread *t, uint64_t at)
{
    struct vector_frame vectors = {0};
    riscv_user_get_vectors(t->cpu, &vectors.vectors);
    vectors.vectors.data = at + offsetof(struct vector_frame, vectors.registers);
    return space_write(&t->process->space, at, &vectors, sizeof vectors);
}

/* The registers are read from where they were put, whatever the frame says now. */
static bool pop_vectors(struct user_thread *t, uint64_t at)
{
    struct vector_frame vectors;
    if (!space_read(&t->process->space, &vectors, at, sizeof vectors))
        return false;
    riscv_user_set_vectors(t->cpu, &vectors.vectors);
    return true;
}

bool user_frame_push(struct user_thread *t, int number, const siginfo_t *info, const struct user_action *action,
                     uint64_t old_mask)
{
    struct cpu_riscv *cpu = t->cpu;
    struct guest_frame frame = {0};
    bool has_vectors = riscv_user_has_vectors(cpu);
    uint64_t sp = cpu->x[REGISTER_SP], size = sizeof frame + (has_vectors ? sizeof(struct vector_frame) : 0);
    if ((action->flags & SA_ONSTACK) && stack_flags(t, sp) == 0)
        sp = t->alternate_sp + t->alternate_size;
    else if (on_alternate(t, sp) && !on_alternate(t, sp - size))
        return false; /* the alternate stack is full */
    sp = (sp - size) & ~15ull;
    fill(t, &frame, info, old_mask);
    if (has_vectors) {
        frame.context.first =
            (struct extension){VECTOR_MAGIC, sizeof(struct extension) + sizeof(struct riscv_user_vectors)};
        if (!push_vectors(t, sp + sizeof frame))
            return false;
    }
    if (!space_write(&t->process->space, sp, &frame, sizeof frame))
        return false;
    cpu->x[REGISTER_RA] = t->process->trampoline;
    cpu->x[REGISTER_SP] = sp;
    cpu->x[REGISTER_A0] = (uint64_t)number;
    cpu->x[REGISTER_A1] = sp;
    cpu->x[REGISTER_A2] = sp + offsetof(struct guest_frame, context);
    cpu->tc.pc = action->handler;
    cpu->tc.reserved_address = ~0ull;
    return true;
}

bool user_frame_pop(struct user_thread *t)
{
    struct cpu_riscv *cpu = t->cpu;
    struct guest_frame frame;
    uint64_t at = cpu->x[REGISTER_SP];
    if (!space_read(&t->process->space, &frame, at, sizeof frame))
        return false;
    memcpy(cpu->x + 1, frame.context.registers + 1, sizeof cpu->x - sizeof cpu->x[0]);
    memcpy(cpu->f, frame.context.f, sizeof cpu->f);
    riscv_user_set_fcsr(cpu, frame.context.fcsr);
    if (frame.context.first.magic == VECTOR_MAGIC && !pop_vectors(t, at + sizeof frame))
        return false;
    cpu->tc.pc = frame.context.registers[0] & ~1ull;
    cpu->tc.reserved_address = ~0ull;
    t->alternate_sp = frame.context.stack.sp;
    t->alternate_size = frame.context.stack.flags & SS_DISABLE ? 0 : frame.context.stack.size;
    t->alternate_flags = frame.context.stack.flags & (int)SS_AUTODISARM;
    user_signals_set_mask(t, frame.context.mask);
    return true;
}
