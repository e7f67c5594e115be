/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list_instructions COUNT SEED BINARY LISTING: writes COUNT random encodings of every instruction in the RISC-V table
 * to BINARY, and a line "address<TAB>disassembly" of each to LISTING.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "emulator/cpu/riscv/riscv.h"

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: %s COUNT SEED BINARY LISTING\n", argv[0]);
        return 2;
    }
    unsigned count = (unsigned)atoi(argv[1]);
    uint64_t state = strtoull(argv[2], NULL, 0) | 1, pc = 0;
    FILE *binary = fopen(argv[3], "wb"), *listing = fopen(argv[4], "w");
    if (!binary || !listing) {
        perror("cannot write");
        return 1;
    }
    for (unsigned insn = RISCV_INSN_NONE + 1; insn < RISCV_INSN_COUNT; insn++) {
        const struct insn_info *info = &riscv_insn_table[insn];
        for (unsigned i = 0; i < count;) {
            uint64_t bits;
            char text[128];
            if (!insn_random(info, next_random(&state), &bits))
                continue;
            fwrite(&bits, info->length, 1, binary);
            riscv_disassemble(pc, (uint32_t)bits, text, sizeof(text));
            fprintf(listing, "%" PRIx64 "\t%s\n", pc, text);
            pc += info->length;
            i++;
        }
    }
    return fclose(binary) || fclose(listing);
}
