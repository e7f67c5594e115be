/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken executables for user mode. The input is the file. What is loaded must lie inside of the program's memory and
 * its pages must say what the host's protection says; what is refused must say why.
 *
 * links: emulator/user
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "emulator/user/user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SPACE = 1 << 28 };

/* Every page that the program may read can be read: its file is not shorter than the header says. */
static void read_pages(const struct space *space)
{
    unsigned left = 4096;
    char byte;
    for (uint64_t page = 0; page < space->size / SPACE_PAGE && left; page++) {
        uint8_t bits = atomic_load(&space->pages[page]);
        if (!(bits & RISCV_PAGE_READ))
            continue;
        left--;
        if (!(bits & SPACE_MAPPED) || !space_read(space, &byte, page * SPACE_PAGE, 1))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct user_image *image = calloc(1, sizeof *image);
    struct space space;
    struct error err = {0};
    int fd = memfd_create("program", MFD_CLOEXEC);
    if (!image || write(fd, data, size) != (ssize_t)size || !space_init(&space, NULL))
        abort();
    uint64_t whole = space.size;
    space.size = SPACE; /* small, so that an input with large numbers takes no longer than others */
    space.top = space.ceiling = SPACE - SPACE_PAGE;
    if (user_load(&space, fd, "program", SPACE / 2, image, &err)) {
        if (image->low >= image->high || !space_holds(&space, image->low, image->high - image->low))
            abort();
        read_pages(&space);
    } else if (!err.message) {
        abort();
    }
    error_clear(&err);
    space.size = whole;
    space_free(&space);
    close(fd);
    free(image);
    return 0;
}
