/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exceptions, interrupts and the way back (volume II, sections 3.1.6 to 3.1.9, 3.3.2, 4.1). Exceptions are recorded
 * where they happen (riscv_raise) and delivered by the run loop, so that a trap is entered in exactly one place.
 */
#include "base/math.h"
#include "emulator/cpu/riscv/riscv.h"

void riscv_raise(struct cpu_riscv *cpu, enum riscv_exception cause, uint64_t value)
{
    cpu->exception_cause = cause;
    cpu->exception_value = value;
    translate_raise(&cpu->tc);
}

/* ---- mode ---- */

static unsigned data_mmu(const struct cpu_riscv *cpu)
{
    unsigned privilege = cpu->privilege;

    if (cpu->mstatus & MSTATUS_MPRV && privilege == PRIV_M)
        privilege = (cpu->mstatus & MSTATUS_MPP) >> MSTATUS_MPP_SHIFT;
    if (privilege == PRIV_M)
        return MMU_M;
    if (privilege == PRIV_U)
        return MMU_U;
    return cpu->mstatus & MSTATUS_SUM ? MMU_S_SUM : MMU_S;
}

static unsigned class_of(uint64_t status)
{
    switch (status & 3) {
    case FS_OFF: return RISCV_FS_OFF;
    case FS_DIRTY: return RISCV_FS_DIRTY;
    default: return RISCV_FS_CLEAN;
    }
}

static unsigned frm_class(const struct cpu_riscv *cpu)
{
    if (cpu->frm < 4)
        return RISCV_FRM_HOST;
    return cpu->frm == 4 ? RISCV_FRM_RMM : RISCV_FRM_INVALID;
}

/* vtype matters while the unit is on only. */
static unsigned vector_class(const struct cpu_riscv *cpu)
{
    unsigned class = class_of(cpu->mstatus >> MSTATUS_VS_SHIFT);

    return class == RISCV_FS_OFF ? class << 9 : class << 9 | (unsigned)cpu->v.setting << 11;
}

void riscv_mode_changed(struct cpu_riscv *cpu)
{
    uint32_t mode = cpu->privilege | data_mmu(cpu) << 2 | class_of(cpu->mstatus >> MSTATUS_FS_SHIFT) << 4 |
                    frm_class(cpu) << 6 | vector_class(cpu) | (cpu->user_pages ? MODE_USER : 0);

    if (mode != cpu->tc.mode)
        translate_set_mode(&cpu->tc, mode);
    riscv_interrupts_changed(cpu);
}

/* ---- interrupts ---- */

uint64_t riscv_mip(const struct cpu_riscv *cpu)
{
    uint64_t lines = atomic_load_explicit(&cpu->mip_lines, memory_order_acquire);
    uint64_t software = cpu->mip_software;

    if (cpu->menvcfg & ENVCFG_STCE)
        software &= ~MIP(IRQ_STI);
    else
        lines &= ~MIP(IRQ_STI);
    return lines | software;
}

/* The enabled pending interrupts that the current privilege does not mask. M's come first. */
static uint64_t deliverable(const struct cpu_riscv *cpu)
{
    uint64_t pending = riscv_mip(cpu) & cpu->mie;
    uint64_t for_m, for_s;

    if (likely(!pending))
        return 0;
    for_m = pending & ~cpu->mideleg;
    for_s = pending & cpu->mideleg;
    if (for_m && (cpu->privilege < PRIV_M || (cpu->mstatus & MSTATUS_MIE)))
        return for_m;
    if (for_s && (cpu->privilege < PRIV_S || (cpu->privilege == PRIV_S && (cpu->mstatus & MSTATUS_SIE))))
        return for_s;
    return 0;
}

void riscv_interrupts_changed(struct cpu_riscv *cpu)
{
    if (deliverable(cpu))
        cpu->tc.leave = RISCV_EXIT_INTERRUPT;
}

bool riscv_take_interrupt(struct cpu_riscv *cpu)
{
    static const uint8_t priority[] = {IRQ_MEI, IRQ_MSI, IRQ_MTI, IRQ_SEI, IRQ_SSI, IRQ_STI};
    uint64_t pending = deliverable(cpu);

    if (likely(!pending))
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(priority); i++) {
        if (pending & MIP(priority[i])) {
            riscv_trap(cpu, CAUSE_INTERRUPT | priority[i], 0);
            return true;
        }
    }
    return false;
}

/* ---- traps ---- */

static uint64_t handler(uint64_t tvec, uint64_t cause)
{
    uint64_t base = tvec & ~3ull;

    return (tvec & 1) && (cause & CAUSE_INTERRUPT) ? base + 4 * (cause & 63) : base;
}

static void trap_to_s(struct cpu_riscv *cpu, uint64_t cause, uint64_t value)
{
    uint64_t status = cpu->mstatus & ~(MSTATUS_SPIE | MSTATUS_SIE | MSTATUS_SPP);

    if (cpu->mstatus & MSTATUS_SIE)
        status |= MSTATUS_SPIE;
    if (cpu->privilege == PRIV_S)
        status |= MSTATUS_SPP;
    cpu->mstatus = status;
    cpu->scause = cause;
    cpu->stval = value;
    cpu->sepc = cpu->tc.pc;
    cpu->tc.pc = handler(cpu->stvec, cause);
    cpu->privilege = PRIV_S;
}

static void trap_to_m(struct cpu_riscv *cpu, uint64_t cause, uint64_t value)
{
    uint64_t status = cpu->mstatus & ~(MSTATUS_MPIE | MSTATUS_MIE | MSTATUS_MPP);

    if (cpu->mstatus & MSTATUS_MIE)
        status |= MSTATUS_MPIE;
    cpu->mstatus = status | (uint64_t)cpu->privilege << MSTATUS_MPP_SHIFT;
    cpu->mcause = cause;
    cpu->mtval = value;
    cpu->mepc = cpu->tc.pc;
    cpu->tc.pc = handler(cpu->mtvec, cause);
    cpu->privilege = PRIV_M;
}

void riscv_trap(struct cpu_riscv *cpu, uint64_t cause, uint64_t value)
{
    uint64_t delegated = cause & CAUSE_INTERRUPT ? cpu->mideleg : cpu->medeleg;

    if (cpu->privilege < PRIV_M && (delegated >> (cause & 63) & 1))
        trap_to_s(cpu, cause, value);
    else
        trap_to_m(cpu, cause, value);
    riscv_mode_changed(cpu);
}

/* ---- returns ---- */

void riscv_sret(struct cpu_riscv *cpu)
{
    uint64_t old = cpu->mstatus, status = old & ~(MSTATUS_SIE | MSTATUS_SPP | MSTATUS_MPRV);

    if (old & MSTATUS_SPIE)
        status |= MSTATUS_SIE;
    cpu->mstatus = status | MSTATUS_SPIE;
    cpu->privilege = old & MSTATUS_SPP ? PRIV_S : PRIV_U;
    cpu->tc.pc = cpu->sepc;
    riscv_mode_changed(cpu);
}

void riscv_mret(struct cpu_riscv *cpu)
{
    uint64_t old = cpu->mstatus, status = old & ~(MSTATUS_MIE | MSTATUS_MPP);

    if (old & MSTATUS_MPIE)
        status |= MSTATUS_MIE;
    cpu->privilege = (old & MSTATUS_MPP) >> MSTATUS_MPP_SHIFT;
    if (cpu->privilege != PRIV_M)
        status &= ~MSTATUS_MPRV;
    cpu->mstatus = status | MSTATUS_MPIE;
    cpu->tc.pc = cpu->mepc;
    riscv_mode_changed(cpu);
}
