/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control and status registers (volume II, chapter 2, and the chapters of the single registers).
 *
 * One row a register: its name, who may see it beyond what the number itself says, how it is read and written. A
 * register that is plain storage names its place in the struct and the bits that can be written (its WARL rule).
 * Everything else has a read and a write function, which stand in front of the table in the order of the manual's
 * chapters.
 *
 * The counters count guest nanoseconds, cycle and instret alike: blocks of translated code are not counted one by one.
 * The hardware performance counters 3 to 31 exist and stay zero.
 */
#include <stdio.h>
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/bits.h"
#include "emulator/cpu/riscv/csr.h"
#include "emulator/cpu/riscv/riscv.h"

struct csr {
    const char *name;
    uint16_t numbered; /* not 0: the name is followed by number - numbered */
    uint16_t place;    /* offset in struct cpu_riscv, when read or write are NULL; 0: reads as zero */
    bool has_effect;
    bool (*visible)(struct cpu_riscv *cpu, unsigned number); /* NULL: to everyone with the privilege */
    uint64_t (*read)(struct cpu_riscv *cpu, unsigned number);
    void (*write)(struct cpu_riscv *cpu, unsigned number, uint64_t value);
    uint64_t mask; /* writable bits of `place` when write is NULL */
};

/* ---- who may see what ---- */

static bool visible_float(struct cpu_riscv *cpu, unsigned number)
{
    return (cpu->mstatus & MSTATUS_FS) != 0;
}

static bool visible_counter(struct cpu_riscv *cpu, unsigned number)
{
    uint32_t bit = 1u << (number & 31);

    if (cpu->privilege < PRIV_M && !(cpu->mcounteren & bit))
        return false;
    return cpu->privilege > PRIV_U || (cpu->scounteren & bit);
}

static bool visible_stimecmp(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->privilege == PRIV_M || ((cpu->menvcfg & ENVCFG_STCE) && (cpu->mcounteren & COUNTEREN_TM));
}

static bool visible_satp(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->privilege == PRIV_M || !(cpu->mstatus & MSTATUS_TVM);
}

/* ---- floating point ---- */

static void float_written(struct cpu_riscv *cpu)
{
    cpu->mstatus |= MSTATUS_FS;
    riscv_mode_changed(cpu);
}

static uint64_t read_fflags(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_fflags(cpu);
}

static void write_fflags(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_set_fflags(cpu, value & 0x1f);
    float_written(cpu);
}

static void write_frm(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_set_frm(cpu, value & 7);
    float_written(cpu);
}

static uint64_t read_frm(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->frm;
}

static uint64_t read_fcsr(struct cpu_riscv *cpu, unsigned number)
{
    return (uint64_t)cpu->frm << 5 | riscv_fflags(cpu);
}

static void write_fcsr(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_set_fflags(cpu, value & 0x1f);
    riscv_set_frm(cpu, value >> 5 & 7);
    float_written(cpu);
}

/* ---- vectors ---- */

static bool visible_vector(struct cpu_riscv *cpu, unsigned number)
{
    return (cpu->mstatus & MSTATUS_VS) != 0;
}

static void vector_written(struct cpu_riscv *cpu)
{
    cpu->mstatus |= MSTATUS_VS;
    riscv_mode_changed(cpu);
}

static void write_vstart(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    cpu->v.vstart = value & (RISCV_VLENB * 8u - 1); /* indices of the most elements that there can be */
    vector_written(cpu);
}

static uint64_t read_vcsr(struct cpu_riscv *cpu, unsigned number)
{
    switch (number) {
    case CSR_VXSAT: return cpu->v.vxsat;
    case CSR_VXRM: return cpu->v.vxrm;
    default: return (uint64_t)cpu->v.vxrm << 1 | cpu->v.vxsat;
    }
}

static void write_vcsr(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    if (number != CSR_VXRM)
        cpu->v.vxsat = value & 1;
    if (number != CSR_VXSAT)
        cpu->v.vxrm = (number == CSR_VXRM ? value : value >> 1) & 3;
    vector_written(cpu);
}

static uint64_t read_vlenb(struct cpu_riscv *cpu, unsigned number)
{
    return RISCV_VLENB;
}

/* ---- counters and time ---- */

static uint64_t read_time(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_time(cpu);
}

/* mcycle and minstret, and their read-only shadows cycle and instret. */
static struct riscv_counter *counter_of(struct cpu_riscv *cpu, unsigned number)
{
    return &cpu->counter[number & 31 ? 1 : 0];
}

static uint64_t read_counter(struct cpu_riscv *cpu, unsigned number)
{
    const struct riscv_counter *counter = counter_of(cpu, number);
    bool stands = cpu->mcountinhibit >> (number & 31) & 1;

    return stands ? counter->stopped_at : riscv_nanoseconds(cpu) + counter->offset;
}

static void write_counter(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    struct riscv_counter *counter = counter_of(cpu, number);

    counter->stopped_at = value;
    counter->offset = value - riscv_nanoseconds(cpu);
}

static void write_mcountinhibit(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    static const unsigned numbers[] = {CSR_MCYCLE, CSR_MINSTRET};
    uint64_t now[ARRAY_SIZE(numbers)];

    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        now[i] = read_counter(cpu, numbers[i]);
    cpu->mcountinhibit = value & (COUNTEREN_CY | COUNTEREN_IR);
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        write_counter(cpu, numbers[i], now[i]);
}

static uint64_t read_stimecmp(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_stimecmp(cpu);
}

static void write_stimecmp(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_set_stimecmp(cpu, value);
}

/* ---- status ---- */

#define SSTATUS_WRITABLE                                                                                               \
    (MSTATUS_SIE | MSTATUS_SPIE | MSTATUS_SPP | MSTATUS_FS | MSTATUS_VS | MSTATUS_SUM | MSTATUS_MXR)
#define MSTATUS_WRITABLE                                                                                               \
    (SSTATUS_WRITABLE | MSTATUS_MIE | MSTATUS_MPIE | MSTATUS_MPP | MSTATUS_MPRV | MSTATUS_TVM | MSTATUS_TW |           \
     MSTATUS_TSR)

static uint64_t with_dirty_summary(uint64_t status)
{
    bool dirty = (status & MSTATUS_FS) == MSTATUS_FS || (status & MSTATUS_VS) == MSTATUS_VS;

    return dirty ? status | MSTATUS_SD : status;
}

static uint64_t read_mstatus(struct cpu_riscv *cpu, unsigned number)
{
    return with_dirty_summary(cpu->mstatus) | MSTATUS_UXL_64 | MSTATUS_SXL_64;
}

static uint64_t read_sstatus(struct cpu_riscv *cpu, unsigned number)
{
    return with_dirty_summary(cpu->mstatus & SSTATUS_WRITABLE) | MSTATUS_UXL_64;
}

static void write_mstatus(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    uint64_t old = cpu->mstatus;

    if ((value & MSTATUS_MPP) >> MSTATUS_MPP_SHIFT == 2) /* there is no such privilege: MPP keeps its value */
        value = (value & ~MSTATUS_MPP) | (old & MSTATUS_MPP);
    cpu->mstatus = (old & ~MSTATUS_WRITABLE) | (value & MSTATUS_WRITABLE);
    if ((old ^ cpu->mstatus) & MSTATUS_MXR)
        riscv_translation_changed(cpu);
    riscv_mode_changed(cpu);
}

static void write_sstatus(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    write_mstatus(cpu, number, (cpu->mstatus & ~SSTATUS_WRITABLE) | (value & SSTATUS_WRITABLE));
}

/* ---- interrupts ---- */

static uint64_t read_mip(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_mip(cpu);
}

/* The software's bits: SSIP, SEIP beside the external line, and STIP unless the stimecmp comparator owns it. */
static void write_mip(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    uint64_t writable = MIP(IRQ_SSI) | MIP(IRQ_SEI);

    if (!(cpu->menvcfg & ENVCFG_STCE))
        writable |= MIP(IRQ_STI);
    cpu->mip_software = (cpu->mip_software & ~writable) | (value & writable);
    riscv_interrupts_changed(cpu);
}

static uint64_t read_sip(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_mip(cpu) & cpu->mideleg;
}

static void write_sip(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    uint64_t writable = MIP(IRQ_SSI) & cpu->mideleg;

    cpu->mip_software = (cpu->mip_software & ~writable) | (value & writable);
    riscv_interrupts_changed(cpu);
}

static void write_mie(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    cpu->mie = value & (MIP_S | MIP_M);
    riscv_interrupts_changed(cpu);
}

static uint64_t read_sie(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->mie & cpu->mideleg;
}

static void write_sie(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    write_mie(cpu, number, (cpu->mie & ~cpu->mideleg) | (value & cpu->mideleg));
}

static void write_mideleg(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    cpu->mideleg = value & MIP_S;
    riscv_interrupts_changed(cpu);
}

/* Vectored (1) and direct (0) are the modes there are; a write of another one keeps the old. */
static void write_tvec(uint64_t *tvec, uint64_t value)
{
    *tvec = (value & 2) ? (value & ~3ull) | (*tvec & 1) : value;
}

static void write_mtvec(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    write_tvec(&cpu->mtvec, value);
}

static void write_stvec(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    write_tvec(&cpu->stvec, value);
}

/* ---- configuration ---- */

static uint64_t read_misa(struct cpu_riscv *cpu, unsigned number)
{
    return MISA_VALUE;
}

static uint64_t read_mhartid(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->cpu.index;
}

/* CBIE: 2 is reserved and keeps the old value. */
static uint64_t legal_cbie(uint64_t old, uint64_t value)
{
    return (value & ENVCFG_CBIE) == 2ull << 4 ? (value & ~ENVCFG_CBIE) | (old & ENVCFG_CBIE) : value;
}

#define SENVCFG_WRITABLE (ENVCFG_FIOM | ENVCFG_CBIE | ENVCFG_CBCFE | ENVCFG_CBZE)

static void write_menvcfg(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_set_menvcfg(cpu, legal_cbie(cpu->menvcfg, value) & (SENVCFG_WRITABLE | ENVCFG_STCE));
    riscv_interrupts_changed(cpu);
}

static void write_senvcfg(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    cpu->senvcfg = legal_cbie(cpu->senvcfg, value) & SENVCFG_WRITABLE;
}

/* ---- translation and protection ---- */

static void write_satp(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    unsigned mode = (unsigned)(value >> SATP_MODE_SHIFT);

    if (mode != SATP_BARE && mode != SATP_SV39 && mode != SATP_SV48)
        return; /* "the entire write has no effect" */
    riscv_set_satp(cpu, value);
}

static uint64_t read_pmpcfg(struct cpu_riscv *cpu, unsigned number)
{
    return riscv_pmp_cfg_read(&cpu->pmp, number - CSR_PMPCFG0);
}

static void write_pmpcfg(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_pmp_cfg_write(&cpu->pmp, number - CSR_PMPCFG0, value);
    riscv_translation_changed(cpu);
}

static uint64_t read_pmpaddr(struct cpu_riscv *cpu, unsigned number)
{
    return cpu->pmp.address[number - CSR_PMPADDR0];
}

static void write_pmpaddr(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
    riscv_pmp_address_write(&cpu->pmp, number - CSR_PMPADDR0, value);
    riscv_translation_changed(cpu);
}

/* ---- the table ---- */

#define PLACE(member) .place = offsetof(struct cpu_riscv, member)
#define ANY .mask = ~0ull
#define EFFECT .has_effect = true

static void write_nothing(struct cpu_riscv *cpu, unsigned number, uint64_t value)
{
}

/* clang-format off */
static const struct csr csrs[4096] = {
    [CSR_FFLAGS]     = {"fflags", .read = read_fflags, .write = write_fflags, .visible = visible_float, EFFECT},
    [CSR_FRM]        = {"frm", .read = read_frm, .write = write_frm, .visible = visible_float, EFFECT},
    [CSR_FCSR]       = {"fcsr", .read = read_fcsr, .write = write_fcsr, .visible = visible_float, EFFECT},

    [CSR_VSTART]     = {"vstart", PLACE(v.vstart), .write = write_vstart, .visible = visible_vector, EFFECT},
    [CSR_VXSAT]      = {"vxsat", .read = read_vcsr, .write = write_vcsr, .visible = visible_vector, EFFECT},
    [CSR_VXRM]       = {"vxrm", .read = read_vcsr, .write = write_vcsr, .visible = visible_vector, EFFECT},
    [CSR_VCSR]       = {"vcsr", .read = read_vcsr, .write = write_vcsr, .visible = visible_vector, EFFECT},
    [CSR_VL]         = {"vl", PLACE(v.vl), .visible = visible_vector},
    [CSR_VTYPE]      = {"vtype", PLACE(v.vtype), .visible = visible_vector},
    [CSR_VLENB]      = {"vlenb", .read = read_vlenb, .visible = visible_vector},

    [CSR_CYCLE]      = {"cycle", .read = read_counter, .visible = visible_counter},
    [CSR_TIME]       = {"time", .read = read_time, .visible = visible_counter},
    [CSR_INSTRET]    = {"instret", .read = read_counter, .visible = visible_counter},
    [CSR_HPMCOUNTER3 ... CSR_HPMCOUNTER3 + 28] = {"hpmcounter", CSR_CYCLE, .visible = visible_counter},

    [CSR_SSTATUS]    = {"sstatus", .read = read_sstatus, .write = write_sstatus, EFFECT},
    [CSR_SIE]        = {"sie", .read = read_sie, .write = write_sie, EFFECT},
    [CSR_STVEC]      = {"stvec", PLACE(stvec), .write = write_stvec},
    [CSR_SCOUNTEREN] = {"scounteren", PLACE(scounteren), .mask = 0xffffffff},
    [CSR_SENVCFG]    = {"senvcfg", PLACE(senvcfg), .write = write_senvcfg},
    [CSR_SSCRATCH]   = {"sscratch", PLACE(sscratch), ANY},
    [CSR_SEPC]       = {"sepc", PLACE(sepc), .mask = ~1ull},
    [CSR_SCAUSE]     = {"scause", PLACE(scause), ANY},
    [CSR_STVAL]      = {"stval", PLACE(stval), ANY},
    [CSR_SIP]        = {"sip", .read = read_sip, .write = write_sip, EFFECT},
    [CSR_STIMECMP]   = {"stimecmp", .read = read_stimecmp, .write = write_stimecmp, .visible = visible_stimecmp, EFFECT},
    [CSR_SATP]       = {"satp", PLACE(satp), .write = write_satp, .visible = visible_satp, EFFECT},

    [CSR_MVENDORID]  = {"mvendorid"},
    [CSR_MARCHID]    = {"marchid"},
    [CSR_MIMPID]     = {"mimpid"},
    [CSR_MHARTID]    = {"mhartid", .read = read_mhartid},
    [CSR_MCONFIGPTR] = {"mconfigptr"},

    [CSR_MSTATUS]    = {"mstatus", .read = read_mstatus, .write = write_mstatus, EFFECT},
    [CSR_MISA]       = {"misa", .read = read_misa, .write = write_nothing},
    [CSR_MEDELEG]    = {"medeleg", PLACE(medeleg), .mask = 0xb3ff}, /* all but ecall from M, which cannot come from below */
    [CSR_MIDELEG]    = {"mideleg", PLACE(mideleg), .write = write_mideleg, EFFECT},
    [CSR_MIE]        = {"mie", PLACE(mie), .write = write_mie, EFFECT},
    [CSR_MTVEC]      = {"mtvec", PLACE(mtvec), .write = write_mtvec},
    [CSR_MCOUNTEREN] = {"mcounteren", PLACE(mcounteren), .mask = 0xffffffff},
    [CSR_MENVCFG]    = {"menvcfg", PLACE(menvcfg), .write = write_menvcfg, EFFECT},
    [CSR_MCOUNTINHIBIT] = {"mcountinhibit", PLACE(mcountinhibit), .write = write_mcountinhibit},
    [CSR_MHPMEVENT3 ... CSR_MHPMEVENT3 + 28] = {"mhpmevent", CSR_MHPMEVENT3 - 3},
    [CSR_MSCRATCH]   = {"mscratch", PLACE(mscratch), ANY},
    [CSR_MEPC]       = {"mepc", PLACE(mepc), .mask = ~1ull},
    [CSR_MCAUSE]     = {"mcause", PLACE(mcause), ANY},
    [CSR_MTVAL]      = {"mtval", PLACE(mtval), ANY},
    [CSR_MIP]        = {"mip", .read = read_mip, .write = write_mip, EFFECT},
    [CSR_PMPCFG0]    = {"pmpcfg", CSR_PMPCFG0, .read = read_pmpcfg, .write = write_pmpcfg, EFFECT},
    [CSR_PMPCFG2]    = {"pmpcfg", CSR_PMPCFG0, .read = read_pmpcfg, .write = write_pmpcfg, EFFECT},
    [CSR_PMPADDR0 ... CSR_PMPADDR0 + PMP_ENTRIES - 1] =
                       {"pmpaddr", CSR_PMPADDR0, .read = read_pmpaddr, .write = write_pmpaddr, EFFECT},

    [CSR_MCYCLE]     = {"mcycle", .read = read_counter, .write = write_counter},
    [CSR_MINSTRET]   = {"minstret", .read = read_counter, .write = write_counter},
    [CSR_MHPMCOUNTER3 ... CSR_MHPMCOUNTER3 + 28] = {"mhpmcounter", CSR_MCYCLE},
};
/* clang-format on */

/* ---- access ---- */

static uint64_t *place_of(struct cpu_riscv *cpu, const struct csr *csr)
{
    return (uint64_t *)((char *)cpu + csr->place);
}

static uint64_t value_of(struct cpu_riscv *cpu, const struct csr *csr, unsigned number)
{
    if (csr->read)
        return csr->read(cpu, number);
    return csr->place ? *place_of(cpu, csr) : 0;
}

static void store(struct cpu_riscv *cpu, const struct csr *csr, unsigned number, uint64_t value)
{
    if (csr->write)
        csr->write(cpu, number, value);
    else if (csr->place)
        *place_of(cpu, csr) = (*place_of(cpu, csr) & ~csr->mask) | (value & csr->mask);
}

/* csr[11:10] = 3 says read-only, csr[9:8] is the lowest privilege. */
static bool permitted(struct cpu_riscv *cpu, const struct csr *csr, unsigned number, bool writes)
{
    if (!csr->name || (writes && number >> 10 == 3) || cpu->privilege < (number >> 8 & 3))
        return false;
    return !csr->visible || csr->visible(cpu, number);
}

/* A read-modify-write of mip sees SEIP as software set it, without the external line (section 3.1.9). */
static uint64_t value_to_modify(struct cpu_riscv *cpu, unsigned number, uint64_t old)
{
    if (number == CSR_MIP || number == CSR_SIP)
        return (old & ~MIP(IRQ_SEI)) | (cpu->mip_software & MIP(IRQ_SEI));
    return old;
}

bool riscv_csr_access(struct cpu_riscv *cpu, unsigned number, enum riscv_csr_operation operation, uint64_t operand,
                      uint64_t *old)
{
    const struct csr *csr = &csrs[number];

    if (!permitted(cpu, csr, number, operation != CSR_READ))
        return false;
    *old = value_of(cpu, csr, number);
    switch (operation) {
    case CSR_READ: break;
    case CSR_WRITE: store(cpu, csr, number, operand); break;
    case CSR_SET: store(cpu, csr, number, value_to_modify(cpu, number, *old) | operand); break;
    case CSR_CLEAR: store(cpu, csr, number, value_to_modify(cpu, number, *old) & ~operand); break;
    }
    return true;
}

enum riscv_csr_effect riscv_csr_effect(unsigned number)
{
    return csrs[number].has_effect ? CSR_EFFECT_STATE : CSR_EFFECT_NONE;
}

const char *riscv_csr_name(unsigned number, char *buffer, size_t size)
{
    const struct csr *csr = &csrs[number];

    if (!csr->name || !csr->numbered)
        return csr->name;
    snprintf(buffer, size, "%s%u", csr->name, number - csr->numbered);
    return buffer;
}

uint64_t riscv_csr_peek(struct cpu_riscv *cpu, unsigned number)
{
    return value_of(cpu, &csrs[number], number);
}
