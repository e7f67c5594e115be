/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disassembly from the instruction table, in the syntax of the GNU tools without aliases. The words of a row's operand
 * column are field names; the few with a form of their own are in operand_forms[].
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/math.h"
#include "emulator/cpu/riscv/csr.h"
#include "emulator/cpu/riscv/riscv.h"

const char *const riscv_x_names[32] = {"zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "s0", "s1", "a0",
                                       "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
                                       "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
const char *const riscv_f_names[32] = {"ft0", "ft1", "ft2", "ft3", "ft4",  "ft5",  "ft6", "ft7", "fs0",  "fs1", "fa0",
                                       "fa1", "fa2", "fa3", "fa4", "fa5",  "fa6",  "fa7", "fs2", "fs3",  "fs4", "fs5",
                                       "fs6", "fs7", "fs8", "fs9", "fs10", "fs11", "ft8", "ft9", "ft10", "ft11"};

struct writer {
    char *text;
    size_t size, length;
    uint64_t pc, bits;
    const struct insn_info *insn;
};

static void put(struct writer *w, const char *format, ...) PRINTF_LIKE(2, 3);
static void put(struct writer *w, const char *format, ...)
{
    va_list args;
    int written;

    va_start(args, format);
    written = vsnprintf(w->text + w->length, w->size - w->length, format, args);
    va_end(args);
    w->length = MIN(w->length + (size_t)written, w->size - 1);
}

static int64_t field(const struct writer *w, const char *name)
{
    const struct insn_field *found = insn_field_find(w->insn, name);

    return found ? insn_field_get(found, w->bits) : 0;
}

/* ---- operands with a form of their own ---- */

static void put_imm20(struct writer *w)
{
    put(w, "0x%" PRIx64, (uint64_t)field(w, "imm") >> 12 & 0xfffff);
}

static void put_nzimm20(struct writer *w)
{
    put(w, "0x%" PRIx64, (uint64_t)field(w, "nzimm") >> 12 & 0xfffff);
}

static void put_target(struct writer *w)
{
    put(w, "0x%" PRIx64, w->pc + (uint64_t)field(w, "imm"));
}

static void put_shamt(struct writer *w)
{
    put(w, "0x%" PRIx64, (uint64_t)field(w, "shamt"));
}

static void put_csr(struct writer *w)
{
    char buffer[24];
    unsigned number = (unsigned)field(w, "csr");
    const char *name = riscv_csr_name(number, buffer, sizeof(buffer));

    if (name)
        put(w, "%s", name);
    else
        put(w, "0x%x", number);
}

static const char *const rounding_names[8] = {"rne", "rtz", "rdn", "rup", "rmm", "unknown", "unknown", "dyn"};

/* The mode that goes without saying is not shown, and neither is the comma before it. */
static void put_rounding(struct writer *w, int64_t silent)
{
    int64_t rm = field(w, "rm");

    if (rm == silent)
        w->text[--w->length] = '\0';
    else
        put(w, "%s", rounding_names[rm]);
}

static void put_rm(struct writer *w)
{
    put_rounding(w, 7);
}

/* Conversions that never round have 0 here. */
static void put_rmw(struct writer *w)
{
    put_rounding(w, 0);
}

static void put_fence_set(struct writer *w, const char *name)
{
    int64_t set = field(w, name);

    put(w, "%s%s%s%s", set & 8 ? "i" : "", set & 4 ? "o" : "", set & 2 ? "r" : "", set & 1 ? "w" : "");
    if (!set)
        put(w, "unknown");
}

static void put_pred(struct writer *w)
{
    put_fence_set(w, "pred");
}

static void put_succ(struct writer *w)
{
    put_fence_set(w, "succ");
}

static void put_sp(struct writer *w)
{
    put(w, "sp");
}

/* Without a mask nothing is shown, nor the comma before it. */
static void put_vm(struct writer *w)
{
    if (field(w, "vm"))
        w->text[--w->length] = '\0';
    else
        put(w, "v0.t");
}

/* As assemblers write vtype; what they have no words for is a number. */
static void put_vtype(struct writer *w)
{
    static const char *const lmuls[] = {"m1", "m2", "m4", "m8", NULL, "mf8", "mf4", "mf2"};
    unsigned vtype = (unsigned)field(w, "vtype"), sew = vtype >> 3 & 7;

    if (vtype >> 8 || sew > 3 || !lmuls[vtype & 7])
        put(w, "%u", vtype);
    else
        put(w, "e%u,%s,%s,%s", 8u << sew, lmuls[vtype & 7], vtype & 64 ? "ta" : "tu", vtype & 128 ? "ma" : "mu");
}

static void put_v0(struct writer *w)
{
    put(w, "v0");
}

static const struct {
    const char *word;
    void (*put)(struct writer *w);
} operand_forms[] = {
    {"imm20", put_imm20}, {"nzimm20", put_nzimm20}, {"target", put_target}, {"shamt", put_shamt}, {"csr", put_csr},
    {"rm", put_rm},       {"rmw", put_rmw},         {"pred", put_pred},     {"succ", put_succ},   {"sp", put_sp},
    {"vm", put_vm},       {"vtype", put_vtype},     {"v0", put_v0},
};

/* ---- the line ---- */

static void put_field(struct writer *w, const char *word)
{
    const struct insn_field *found = insn_field_find(w->insn, word);
    int64_t value = found ? insn_field_get(found, w->bits) : 0;

    switch (found ? found->kind : INSN_FIELD_UNSIGNED) {
    case INSN_FIELD_X:
    case INSN_FIELD_X_SHORT: put(w, "%s", riscv_x_names[value]); break;
    case INSN_FIELD_V: put(w, "v%" PRId64, value); break;
    case INSN_FIELD_F:
    case INSN_FIELD_F_SHORT: put(w, "%s", riscv_f_names[value]); break;
    default: put(w, "%" PRId64, value); break;
    }
}

static void put_word(struct writer *w, const char *word)
{
    for (unsigned i = 0; i < ARRAY_SIZE(operand_forms); i++) {
        if (!strcmp(word, operand_forms[i].word)) {
            operand_forms[i].put(w);
            return;
        }
    }
    put_field(w, word);
}

static void put_operands(struct writer *w, const char *operands)
{
    while (*operands) {
        char word[16];
        size_t length = 0;

        while (isalnum((unsigned char)operands[length]) && length < sizeof(word) - 1)
            length++;
        if (!length) {
            put(w, "%c", *operands++);
            continue;
        }
        memcpy(word, operands, length);
        word[length] = '\0';
        put_word(w, word);
        operands += length;
    }
}

static void put_ordering(struct writer *w)
{
    static const char *const suffixes[2][2] = {{"", ".rl"}, {".aq", ".aqrl"}};

    put(w, "%s", suffixes[field(w, "aq")][field(w, "rl")]);
}

/* A vector load or store of segments has their number before the "e8", "ei16" ... of its name. */
static void put_name(struct writer *w)
{
    const char *name = w->insn->name, *width = name + strcspn(name, "0123456789");
    int fields = (int)field(w, "nf") + 1;

    if (fields == 1) {
        put(w, "%s", name);
        return;
    }
    width -= width[-1] == 'i' ? 2 : 1;
    put(w, "%.*sseg%d%s", (int)(width - name), name, fields, width);
}

unsigned riscv_disassemble(uint64_t pc, uint32_t bits, char *text, size_t size)
{
    struct riscv_operands operands;
    unsigned length = riscv_length((uint16_t)bits);
    enum riscv_insn number =
        length == 2 ? riscv_decode_16(bits, ~0ull, &operands) : riscv_decode_32(bits, ~0ull, &operands);
    struct writer w = {.text = text, .size = size, .pc = pc, .bits = length == 2 ? (uint16_t)bits : bits};

    if (number == RISCV_INSN_NONE) {
        put(&w, length == 2 ? ".2byte\t0x%04" PRIx64 : ".4byte\t0x%08" PRIx64, w.bits);
        return length;
    }
    w.insn = &riscv_insn_table[number];
    put_name(&w);
    if (insn_field_find(w.insn, "aq"))
        put_ordering(&w);
    if (*w.insn->operands)
        put(&w, "\t");
    put_operands(&w, w.insn->operands);
    return length;
}
