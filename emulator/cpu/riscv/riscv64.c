/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hart as the machine sees it: reset, the run loop around translated code, interrupt lines, registers, dump.
 *
 * The run loop is the only place where traps are entered and left. It returns for a request of the machine and to
 * sleep; everything else (exceptions, interrupts, environment calls, trap returns) it deals with and goes on.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/csr.h"
#include "emulator/cpu/riscv/riscv.h"

enum { REGISTER_PC = 64 }; /* in get_register and set_register; 0 to 63 are the slots */

/* ---- floating-point environment ---- */

unsigned riscv_fflags(const struct cpu_riscv *cpu)
{
    return translate_fp_flags(&cpu->tc); /* the same bits */
}

void riscv_set_fflags(struct cpu_riscv *cpu, unsigned flags)
{
    translate_fp_set_flags(&cpu->tc, flags);
}

/* Values that no host rounds by are kept for reading; the mode word has their instructions go elsewhere. */
void riscv_set_frm(struct cpu_riscv *cpu, unsigned frm)
{
    cpu->frm = cpu->v.frm = (uint8_t)frm;
    translate_fp_set_rounding(&cpu->tc, frm < 4 ? (enum ir_rounding)frm : IR_ROUND_NEAREST);
}

/* ---- life ---- */

static bool init(struct cpu *base, struct error *err)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);
    bool owns_code = !base->code;

    if (owns_code) {
        base->code = machine_code_new(&riscv_guest, base->memory, translate_native_host(), err);
        if (!base->code)
            return false;
    }
    if (!translate_cpu_init(&cpu->tc, cpu, base->code, err)) {
        if (owns_code)
            machine_code_free(base->code);
        return false;
    }
    riscv_timer_init(cpu);
    return true;
}

/* SPINDLE_COVERAGE=FILE in the environment: appends a line "name count" for each instruction, of how often it was
 * translated. Tests look whether they meant to cover what they covered. */
static void report_coverage(const struct cpu_riscv *cpu)
{
    const char *path = getenv("SPINDLE_COVERAGE");
    FILE *out = path ? fopen(path, "a") : NULL;

    if (!out)
        return;
    for (unsigned insn = RISCV_INSN_NONE + 1; insn < RISCV_INSN_COUNT; insn++)
        fprintf(out, "%s %u\n", riscv_insn_table[insn].name, cpu->translated[insn]);
    fclose(out);
}

/* The first vCPU owns the machine's code and goes last (cpu.h). */
static void destroy(struct cpu *base)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    report_coverage(cpu);
    riscv_timer_destroy(cpu);
    translate_cpu_destroy(&cpu->tc);
    if (base->index == 0)
        machine_code_free(base->code);
}

void riscv_vector_reset(struct cpu_riscv *cpu)
{
    cpu->v = (struct riscv_vector){.vtype = 1ull << 63, .frm = cpu->frm};
}

static void reset_csrs(struct cpu_riscv *cpu)
{
    cpu->mstatus = 0;
    cpu->mie = cpu->mideleg = cpu->medeleg = cpu->mip_software = 0;
    cpu->mtvec = cpu->mscratch = cpu->mepc = cpu->mcause = cpu->mtval = 0;
    cpu->stvec = cpu->sscratch = cpu->sepc = cpu->scause = cpu->stval = 0;
    cpu->mcounteren = cpu->scounteren = cpu->mcountinhibit = cpu->menvcfg = cpu->senvcfg = 0;
    memset(cpu->counter, 0, sizeof(cpu->counter));
    riscv_pmp_reset(&cpu->pmp);
    riscv_set_satp(cpu, 0);
    riscv_set_stimecmp(cpu, UINT64_MAX);
    riscv_set_frm(cpu, 0);
    riscv_set_fflags(cpu, 0);
    riscv_vector_reset(cpu);
}

static void reset(struct cpu *base, uint64_t pc)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    memset(cpu->x, 0, sizeof(cpu->x));
    memset(cpu->f, 0, sizeof(cpu->f));
    cpu->privilege = PRIV_M;
    cpu->tc.pc = pc;
    cpu->tc.exception = cpu->tc.leave = 0;
    cpu->tc.reserved_address = ~0ull;
    reset_csrs(cpu);
    riscv_translation_changed(cpu);
    riscv_mode_changed(cpu);
}

/* ---- the run loop ---- */

static void deliver_exception(struct cpu_riscv *cpu)
{
    cpu->tc.exception = 0;
    riscv_trap(cpu, cpu->exception_cause, cpu->exception_value);
}

/* true: something is pending that ends a wait, whether it will be taken or not (section 3.3.3). */
static bool wakes(const struct cpu_riscv *cpu)
{
    return riscv_mip(cpu) & cpu->mie;
}

/* Interrupts are looked for after the bit was cleared, so that none is missed. true: somebody wants the vCPU to stop.
 */
static bool attend(struct cpu_riscv *cpu)
{
    return atomic_fetch_and(&cpu->cpu.attention, ~(uint32_t)CPU_ATTENTION_IRQ) & CPU_ATTENTION_STOP;
}

static enum cpu_exit run(struct cpu *base)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    if (attend(cpu))
        return CPU_EXIT_KICK;
    for (;;) {
        riscv_take_interrupt(cpu);
        cpu->tc.leave = 0;
        switch (translate_run(&cpu->tc)) {
        case TRANSLATE_EXIT_ATTENTION:
            if (attend(cpu))
                return CPU_EXIT_KICK;
            break;
        case TRANSLATE_EXIT_EXCEPTION: deliver_exception(cpu); break;
        case RISCV_EXIT_ECALL: riscv_trap(cpu, EXC_ECALL_U + cpu->privilege, 0); break;
        case RISCV_EXIT_SRET: riscv_sret(cpu); break;
        case RISCV_EXIT_MRET: riscv_mret(cpu); break;
        case RISCV_EXIT_INTERRUPT: break;
        case RISCV_EXIT_WFI:
            if (!wakes(cpu))
                return CPU_EXIT_HALT;
            break;
        default: cpu->cpu.fatal = cpu->tc.fatal; return CPU_EXIT_FATAL;
        }
    }
}

static void set_irq(struct cpu *base, unsigned line, bool level)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    if (level)
        atomic_fetch_or(&cpu->mip_lines, MIP(line));
    else
        atomic_fetch_and(&cpu->mip_lines, ~MIP(line));
}

static bool interrupt_ready(struct cpu *base)
{
    return wakes(cpu_riscv_of(base));
}

/* ---- registers ---- */

static uint64_t get_register(struct cpu *base, unsigned number)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    if (number < 32)
        return cpu->x[number];
    if (number < REGISTER_PC)
        return cpu->f[number - 32];
    return number == REGISTER_PC ? cpu->tc.pc : 0;
}

static void set_register(struct cpu *base, unsigned number, uint64_t value)
{
    struct cpu_riscv *cpu = cpu_riscv_of(base);

    if (number > 0 && number < 32)
        cpu->x[number] = value;
    else if (number >= 32 && number < REGISTER_PC)
        cpu->f[number - 32] = value;
    else if (number == REGISTER_PC)
        cpu->tc.pc = value;
}

static void dump(struct cpu *base, FILE *out)
{
    static const uint16_t numbers[] = {CSR_MSTATUS, CSR_MIP,    CSR_MIE,    CSR_MIDELEG, CSR_MEDELEG,
                                       CSR_MTVEC,   CSR_MEPC,   CSR_MCAUSE, CSR_MTVAL,   CSR_STVEC,
                                       CSR_SEPC,    CSR_SCAUSE, CSR_STVAL,  CSR_SATP};
    static const char *const privileges[] = {"U", "S", "?", "M"};
    struct cpu_riscv *cpu = cpu_riscv_of(base);
    char buffer[16];

    fprintf(out, "hart %u  privilege %s  pc %016" PRIx64 "\n", base->index, privileges[cpu->privilege], cpu->tc.pc);
    for (unsigned i = 0; i < 32; i++)
        fprintf(out, " %-4s %016" PRIx64 "%s", riscv_x_names[i], cpu->x[i], i % 4 == 3 ? "\n" : "");
    for (unsigned i = 0; i < ARRAY_SIZE(numbers); i++)
        fprintf(out, " %-8s %016" PRIx64 "%s", riscv_csr_name(numbers[i], buffer, sizeof(buffer)),
                riscv_csr_peek(cpu, numbers[i]), i % 3 == 2 ? "\n" : "");
    fprintf(out, "\n");
    for (unsigned i = 0; i < 32; i++)
        fprintf(out, " %-4s %016" PRIx64 "%s", riscv_f_names[i], cpu->f[i], i % 4 == 3 ? "\n" : "");
}

static const char *const isa_extensions[] = {"i",     "m",        "a",     "f",   "d",   "c",   "v",    "zicntr",
                                             "zicsr", "zifencei", "zihpm", "zba", "zbb", "zbs", "sstc", NULL};

const struct cpu_arch cpu_arch_riscv64 = {
    .name = "riscv64",
    .isa = "rv64imafdcv_zicntr_zicsr_zifencei_zihpm_zba_zbb_zbs_sstc",
    .isa_extensions = isa_extensions,
    .mmu_type = "riscv,sv48",
    .size = sizeof(struct cpu_riscv),
    .init = init,
    .destroy = destroy,
    .reset = reset,
    .run = run,
    .set_irq = set_irq,
    .interrupt_ready = interrupt_ready,
    .dump = dump,
    .get_register = get_register,
    .set_register = set_register,
};
