/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What translated code calls: everything that touches the machine's state beyond the register slots, and the rounding
 * mode that the host does not have. A helper that fails records an exception (riscv_raise) and the instruction has not
 * happened.
 */
#include "emulator/cpu/riscv/translate.h"
#include "emulator/float/float.h"

enum { CACHE_BLOCK = 64 };

static uint64_t illegal(struct cpu_riscv *cpu, uint64_t bits)
{
    riscv_raise(cpu, EXC_ILLEGAL_INSTRUCTION, bits);
    return 0;
}

static uint64_t help_raise(void *opaque, uint64_t cause, uint64_t value, uint64_t unused)
{
    riscv_raise(opaque, (enum riscv_exception)cause, value);
    return 0;
}

/* ---- control and status registers ---- */

static uint64_t help_csr(void *opaque, uint64_t what, uint64_t operand, uint64_t bits)
{
    uint64_t old = 0;

    if (!riscv_csr_access(opaque, what & 0xfff, (enum riscv_csr_operation)(what >> 16), operand, &old))
        return illegal(opaque, bits);
    return old;
}

static uint64_t help_dirty_fs(void *opaque, uint64_t a, uint64_t b, uint64_t c)
{
    struct cpu_riscv *cpu = opaque;

    cpu->mstatus |= MSTATUS_FS;
    riscv_mode_changed(cpu);
    return 0;
}

/* ---- what mstatus and the envcfg registers may trap ---- */

/* A permission that M gives to S, and S to U. */
static bool granted(const struct cpu_riscv *cpu, uint64_t bit)
{
    return cpu->privilege == PRIV_M || ((cpu->menvcfg & bit) && (cpu->privilege == PRIV_S || (cpu->senvcfg & bit)));
}

static bool may(const struct cpu_riscv *cpu, enum riscv_check what)
{
    switch (what) {
    case CHECK_SRET: return cpu->privilege == PRIV_M || !(cpu->mstatus & MSTATUS_TSR);
    case CHECK_WFI: return cpu->privilege == PRIV_M || !(cpu->mstatus & MSTATUS_TW);
    case CHECK_SFENCE_VMA: return cpu->privilege == PRIV_M || !(cpu->mstatus & MSTATUS_TVM);
    case CHECK_CBO_INVAL: return granted(cpu, ENVCFG_CBIE);
    case CHECK_CBO_CLEAN: return granted(cpu, ENVCFG_CBCFE);
    case CHECK_CBO_ZERO: return granted(cpu, ENVCFG_CBZE);
    }
    return false;
}

static uint64_t help_check(void *opaque, uint64_t what, uint64_t bits, uint64_t unused)
{
    return may(opaque, (enum riscv_check)what) ? 0 : illegal(opaque, bits);
}

static uint64_t help_fence_vma(void *opaque, uint64_t address, uint64_t asid, uint64_t given)
{
    riscv_fence_vma(opaque, given & 1 ? &address : NULL, given & 2 ? &asid : NULL);
    return 0;
}

/* A block lies within a page, so only its first store can fault. CBO.CLEAN and friends fault as stores do, but need no
 * more than the right to read; there is no cache to do anything to. */
static uint64_t help_cache_block(void *opaque, uint64_t address, uint64_t zero, uint64_t unused)
{
    struct cpu_riscv *cpu = opaque;
    uint64_t block = address & ~(uint64_t)(CACHE_BLOCK - 1), value;
    unsigned mmu = MODE_DATA_MMU(cpu->tc.mode);

    if (zero) {
        for (unsigned i = 0; i < CACHE_BLOCK; i += 8) {
            if (!translate_store(&cpu->tc, block + i, 0, IR_STORE(3, mmu)))
                return 0;
        }
    } else if (!translate_load(&cpu->tc, block, IR_LOAD_U(0, mmu), &value)) {
        if (cpu->exception_cause == EXC_LOAD_PAGE)
            cpu->exception_cause = EXC_STORE_PAGE;
        else if (cpu->exception_cause == EXC_LOAD_ACCESS)
            cpu->exception_cause = EXC_STORE_ACCESS;
    }
    return 0;
}

/* ---- floating point ---- */

static uint32_t unbox(uint64_t value)
{
    return value >> 32 == 0xffffffff ? (uint32_t)value : 0x7fc00000;
}

static uint64_t box(uint32_t value)
{
    return 0xffffffff00000000ull | value;
}

static uint64_t help_fclass(void *opaque, uint64_t value, uint64_t is_double, uint64_t unused)
{
    return is_double ? f64_class(value) : f32_class(unbox(value));
}

static uint64_t help_rmm_addend(void *opaque, uint64_t value, uint64_t b, uint64_t c)
{
    ((struct cpu_riscv *)opaque)->rmm_addend = value;
    return 0;
}

static unsigned negations(uint64_t operation)
{
    return (operation & RMM_NEGATE_PRODUCT ? FLOAT_NEGATE_PRODUCT : 0) |
           (operation & RMM_NEGATE_ADDEND ? FLOAT_NEGATE_ADDEND : 0);
}

static uint64_t rmm_double(uint64_t operation, uint64_t a, uint64_t b, uint64_t c, struct float_status *status)
{
    switch ((enum riscv_rmm_operation)(operation & 0xff)) {
    case RMM_ADD: return f64_add(a, b, status);
    case RMM_SUB: return f64_sub(a, b, status);
    case RMM_MUL: return f64_mul(a, b, status);
    case RMM_DIV: return f64_div(a, b, status);
    case RMM_SQRT: return f64_sqrt(a, status);
    case RMM_FMA: return f64_fma(a, b, c, negations(operation), status);
    case RMM_CONVERT: return box(f64_to_f32(a, status));
    case RMM_TO_I32: return (uint64_t)(int64_t)f64_to_i32(a, status);
    case RMM_TO_U32: return f64_to_u32(a, status);
    case RMM_TO_I64: return (uint64_t)f64_to_i64(a, status);
    case RMM_TO_U64: return f64_to_u64(a, status);
    case RMM_FROM_I32: return i32_to_f64((int32_t)a, status);
    case RMM_FROM_U32: return u32_to_f64((uint32_t)a, status);
    case RMM_FROM_I64: return i64_to_f64((int64_t)a, status);
    case RMM_FROM_U64: return u64_to_f64(a, status);
    }
    return 0;
}

static uint64_t rmm_single(uint64_t operation, uint64_t a, uint64_t b, uint64_t c, struct float_status *status)
{
    switch ((enum riscv_rmm_operation)(operation & 0xff)) {
    case RMM_ADD: return box(f32_add(unbox(a), unbox(b), status));
    case RMM_SUB: return box(f32_sub(unbox(a), unbox(b), status));
    case RMM_MUL: return box(f32_mul(unbox(a), unbox(b), status));
    case RMM_DIV: return box(f32_div(unbox(a), unbox(b), status));
    case RMM_SQRT: return box(f32_sqrt(unbox(a), status));
    case RMM_FMA: return box(f32_fma(unbox(a), unbox(b), unbox(c), negations(operation), status));
    case RMM_CONVERT: return f32_to_f64(unbox(a), status);
    case RMM_TO_I32: return (uint64_t)(int64_t)f32_to_i32(unbox(a), status);
    case RMM_TO_U32: return f32_to_u32(unbox(a), status);
    case RMM_TO_I64: return (uint64_t)f32_to_i64(unbox(a), status);
    case RMM_TO_U64: return f32_to_u64(unbox(a), status);
    case RMM_FROM_I32: return box(i32_to_f32((int32_t)a, status));
    case RMM_FROM_U32: return box(u32_to_f32((uint32_t)a, status));
    case RMM_FROM_I64: return box(i64_to_f32((int64_t)a, status));
    case RMM_FROM_U64: return box(u64_to_f32(a, status));
    }
    return 0;
}

static uint64_t help_float_rmm(void *opaque, uint64_t operation, uint64_t a, uint64_t b)
{
    struct cpu_riscv *cpu = opaque;
    struct float_status status = {.policy = &float_policy_riscv, .rounding = FLOAT_ROUND_NEAREST_AWAY};
    uint64_t result = operation & RMM_DOUBLE ? rmm_double(operation, a, b, cpu->rmm_addend, &status)
                                             : rmm_single(operation, a, b, cpu->rmm_addend, &status);

    if (status.flags)
        riscv_set_fflags(cpu, riscv_fflags(cpu) | status.flags);
    return result;
}

/* ---- the table ---- */

const struct ir_helper riscv_helpers[HELPER_COUNT] = {
    [HELPER_RAISE] = {.name = "raise", .fn = help_raise, .may_fault = true},
    [HELPER_CSR] = {.name = "csr", .fn = help_csr, .may_fault = true, .may_exit = true, .result = IR_I64},
    [HELPER_CSR_FLOAT] =
        {.name = "csr_float", .fn = help_csr, .may_fault = true, .may_exit = true, .uses_fp = true, .result = IR_I64},
    [HELPER_DIRTY_FS] = {.name = "dirty_fs", .fn = help_dirty_fs},
    [HELPER_CHECK] = {.name = "check", .fn = help_check, .may_fault = true},
    [HELPER_FENCE_VMA] = {.name = "fence_vma", .fn = help_fence_vma},
    [HELPER_CACHE_BLOCK] = {.name = "cache_block", .fn = help_cache_block, .may_fault = true},
    [HELPER_RMM_ADDEND] = {.name = "rmm_addend", .fn = help_rmm_addend},
    [HELPER_FLOAT_RMM] = {.name = "float_rmm", .fn = help_float_rmm, .uses_fp = true, .result = IR_I64},
    [HELPER_VECTOR_INTEGER] = {.name = "vector_integer", .fn = riscv_help_vector_integer},
    [HELPER_VECTOR_PERMUTE] = {.name = "vector_permute", .fn = riscv_help_vector_permute, .result = IR_I64},
    [HELPER_VECTOR_FLOAT] = {.name = "vector_float", .fn = riscv_help_vector_float, .uses_fp = true},
    [HELPER_VECTOR_FROM_START] = {.name = "vector_from_start", .fn = riscv_help_vector_from_start, .may_fault = true},
    [HELPER_VECTOR_SET] = {.name = "vector_set", .fn = riscv_help_vector_set, .result = IR_I64},
    [HELPER_VECTOR_DIRTY] = {.name = "vector_dirty", .fn = riscv_help_vector_dirty},
    [HELPER_VECTOR_LOAD] = {.name = "vector_load", .fn = riscv_help_vector_load, .may_fault = true},
    [HELPER_VECTOR_STORE] = {.name = "vector_store", .fn = riscv_help_vector_store, .may_fault = true},
    [HELPER_FCLASS] = {.name = "fclass", .fn = help_fclass, .pure = true, .result = IR_I64},
};
