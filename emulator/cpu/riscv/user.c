/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hart of user mode; see user.h. Of the machine's parts it has none: no traps, no timer, no page tables. An access
 * is allowed when the page's byte says so; which exception it is otherwise, the kernel's side decides from the address.
 */
#include <string.h>
#include <sys/mman.h>
#include "base/math.h"
#include "emulator/cpu/riscv/translate.h"
#include "emulator/cpu/riscv/user.h"

static uint64_t size_of_cpu(void)
{
    return round_up(sizeof(struct cpu_riscv), TRANSLATE_PAGE);
}

struct cpu_riscv *riscv_user_new(struct machine_code *code, const _Atomic uint8_t *pages, struct clock *clock,
                                 struct error *err)
{
    void *memory = mmap(NULL, size_of_cpu(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct cpu_riscv *cpu = memory;

    if (memory == MAP_FAILED)
        return fail_null(err, ENOMEM, "no memory for a CPU");
    cpu->cpu.clock = clock;
    cpu->cpu.code = code;
    cpu->user_pages = pages;
    cpu->privilege = PRIV_U;
    cpu->mstatus = MSTATUS_FS | 1ull << MSTATUS_VS_SHIFT; /* vectors: on, and not used yet */
    riscv_vector_reset(cpu);
    cpu->mcounteren = cpu->scounteren = COUNTEREN_CY | COUNTEREN_TM | COUNTEREN_IR;
    cpu->menvcfg = cpu->senvcfg = ENVCFG_CBZE | ENVCFG_CBCFE;
    if (!translate_cpu_init(&cpu->tc, cpu, code, err)) {
        munmap(memory, size_of_cpu());
        return NULL;
    }
    riscv_set_frm(cpu, 0);
    riscv_mode_changed(cpu);
    return cpu;
}

void riscv_user_free(struct cpu_riscv *cpu)
{
    if (!cpu)
        return;
    translate_cpu_destroy(&cpu->tc);
    munmap(cpu, size_of_cpu());
}

uint32_t riscv_user_fcsr(const struct cpu_riscv *cpu)
{
    return (uint32_t)cpu->frm << 5 | riscv_fflags(cpu);
}

void riscv_user_set_fcsr(struct cpu_riscv *cpu, uint32_t fcsr)
{
    riscv_set_fflags(cpu, fcsr & 0x1f);
    riscv_set_frm(cpu, fcsr >> 5 & 7);
    riscv_mode_changed(cpu);
}

void riscv_user_copy(struct cpu_riscv *to, const struct cpu_riscv *from)
{
    memcpy(to->x, from->x, sizeof(to->x));
    memcpy(to->f, from->f, sizeof(to->f));
    to->v = from->v;
    to->mstatus = from->mstatus;
    to->tc.pc = from->tc.pc;
    riscv_user_set_fcsr(to, riscv_user_fcsr(from));
}

bool riscv_user_has_vectors(const struct cpu_riscv *cpu)
{
    return (cpu->mstatus & MSTATUS_VS) == MSTATUS_VS;
}

void riscv_user_get_vectors(const struct cpu_riscv *cpu, struct riscv_user_vectors *out)
{
    const struct riscv_vector *v = &cpu->v;

    out->vstart = v->vstart;
    out->vl = v->vl;
    out->vtype = v->vtype;
    out->vcsr = (uint64_t)v->vxrm << 1 | v->vxsat;
    out->vlenb = RISCV_VLENB;
    memcpy(out->registers, v->reg, sizeof(out->registers));
}

/* What a signal handler has written need not be a state that can be: vtype and vl are set as vsetvl does. */
void riscv_user_set_vectors(struct cpu_riscv *cpu, const struct riscv_user_vectors *from)
{
    struct riscv_vector *v = &cpu->v;

    cpu->mstatus |= MSTATUS_VS;
    riscv_help_vector_set(cpu, from->vtype, from->vl, VECTOR_AVL_GIVEN);
    v->vstart = from->vstart & (RISCV_VLENB * 8u - 1);
    v->vxsat = from->vcsr & 1;
    v->vxrm = from->vcsr >> 1 & 3;
    memcpy(v->reg, from->registers, sizeof(from->registers));
    riscv_mode_changed(cpu);
}

static bool fill_tlb(void *opaque, uint64_t address, unsigned size, enum translate_access access, unsigned mmu,
                     struct translate_page *page)
{
    static const struct {
        uint8_t bit;
        enum riscv_exception cause;
    } needs[] = {
        [TRANSLATE_READ] = {RISCV_PAGE_READ, EXC_LOAD_PAGE},
        [TRANSLATE_WRITE] = {RISCV_PAGE_WRITE, EXC_STORE_PAGE},
        [TRANSLATE_FETCH] = {RISCV_PAGE_EXECUTE, EXC_INSTRUCTION_PAGE},
    };
    struct cpu_riscv *cpu = opaque;
    uint8_t bits = 0;

    if (address < cpu->tc.direct_size)
        bits = atomic_load_explicit(&cpu->user_pages[address >> TRANSLATE_PAGE_BITS], memory_order_relaxed);
    if (!(bits & needs[access].bit)) {
        riscv_raise(cpu, needs[access].cause, address);
        return false;
    }
    *page = (struct translate_page){.physical = address, .size_log2 = TRANSLATE_PAGE_BITS, .partial = true};
    return true;
}

static unsigned fetch_mmu(uint32_t mode)
{
    return MMU_U;
}

const struct guest riscv_user_guest = {
    .name = "riscv64",
    .slots = riscv_slots,
    .helpers = riscv_helpers,
    .slot_count = SLOT_COUNT,
    .helper_count = HELPER_COUNT,
    .base_offset = offsetof(struct cpu_riscv, x) + 128,
    .state_offset = offsetof(struct cpu_riscv, tc),
    .attention_offset = offsetof(struct cpu_riscv, cpu.attention),
    .pc_align_log2 = 1,
    .mmu_count = 1,
    .translate = riscv_translate_block,
    .fetch_mmu = fetch_mmu,
    .fill_tlb = fill_tlb,
    .raise_access = riscv_raise_access,
};
