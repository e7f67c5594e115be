/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of a system emulator, as far as it can be understood without doing anything: texts are sorted into
 * their places and simple values are read. What an option builds (devices, disks, chardevs) is made from its text
 * later, in the order in which parts depend on each other and not in that of the command line.
 */
#ifndef EMULATOR_OPTIONS_H
#define EMULATOR_OPTIONS_H

#include "base/vec.h"
#include "emulator/cpu/cpu.h"
#include "emulator/hw/board/board.h"
#include "walls/walls.h"

vec_of(text_list, const char *);

/* -drive and -blockdev in their common order: one may refer to the other. */
struct disk_text {
    bool is_drive;
    const char *text;
};
vec_of(disk_text_list, struct disk_text);

struct machine_options {
    const struct board_type *const *boards;  /* what this program has; NULL-terminated */
    const struct cpu_arch *const *cpu_types; /* likewise; the first is the default */

    const struct board_type *board;
    const struct cpu_arch *cpu;
    unsigned cpu_count;
    uint64_t ram_size;
    char *memory_backend, *dumpdtb; /* -machine */
    char *name;
    const char *bios, *kernel, *initrd, *append, *dtb, *pidfile;
    bool nographic, no_defaults, no_reboot, no_shutdown, start_stopped;
    bool display_given;
    struct walls_options walls;
    struct text_list serial, monitor, qmp, mon, chardev, device, object;
    struct disk_text_list disks;
};

/* False: the program ends with *status (after help, or after an error has been reported). */
bool machine_options_parse(struct machine_options *options, int argc, char **argv, int *status);
void machine_options_free(struct machine_options *options);

#endif
