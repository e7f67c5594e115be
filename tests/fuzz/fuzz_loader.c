/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken firmware, kernels and device trees. The input is the file. Whatever is accepted must lie inside of the guest's
 * memory, or be refused when it is written there.
 *
 * links: emulator/hw
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "emulator/hw/device_tree.h"
#include "emulator/hw/loader.h"
#include "emulator/memory/physmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_program(const char *path)
{
    struct image_list *list = calloc(1, sizeof *list);
    struct program program;
    struct error err = {0};
    struct physmap *memory = physmap_new();
    physmap_add_ram(memory, "ram", 0x80000000, 0x10000, NULL);
    if (load_program(list, path, 0x80000000, &program, &err)) {
        if (program.end < program.start)
            abort();
        image_list_write(list, memory, NULL);
    } else if (!err.message) {
        abort();
    }
    error_clear(&err);
    image_list_clear(list);
    physmap_free(memory);
    free(list);
}

static void check_tree(const uint8_t *data, size_t size)
{
    struct device_tree *tree = device_tree_from_blob(data, size, NULL);
    if (!tree)
        return;
    tree_node(tree, "/chosen");
    tree_string(tree, "/chosen", "bootargs", "console=ttyS0");
    tree_u64(tree, "/chosen", "linux,initrd-start", 0x88000000);
    size_t out;
    free(device_tree_finish(tree, &out, NULL));
    device_tree_free(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check_program(path);
    close(fd);
    check_tree(data, size);
    return 0;
}
