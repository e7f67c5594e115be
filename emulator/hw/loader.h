/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images for the guest's memory: firmware, kernel, initrd, device tree, boot ROM. They are read once, kept, and written
 * into memory at every reset, because the guest overwrites them while it runs. Files are the user's, yet a broken one
 * must give an error and nothing worse.
 */
#ifndef EMULATOR_HW_LOADER_H
#define EMULATOR_HW_LOADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct physmap;

struct image {
    char *name; /* for messages: the file, or what it is */
    uint64_t address;
    uint64_t size; /* in memory; bytes beyond data_size are zeroed */
    void *data;
    size_t data_size;
};

#define IMAGES_MAX 64u
struct image_list {
    size_t count;
    struct image images[IMAGES_MAX];
};

void image_list_clear(struct image_list *list);
/* Takes `data` over. Fails when it lies on another image or the list is full. */
bool image_list_add(struct image_list *list, const char *name, uint64_t address, void *data, size_t data_size,
                    uint64_t size, struct error *err);
void image_list_remove(struct image_list *list, const char *name); /* all of this name */
/* Fails when a part of an image has no memory behind it. */
bool image_list_write(const struct image_list *list, struct physmap *memory, struct error *err);

/* A whole file; at most `limit` bytes. */
void *load_file(const char *path, size_t limit, size_t *size, struct error *err);

/* What a loaded program looks like in memory. */
struct program {
    uint64_t entry, start, end; /* [start, end) covers all of it */
};
/* An ELF file (RISC-V, 64 bits, little endian) goes where its program headers say; anything else to `address` as it is.
 */
bool load_program(struct image_list *list, const char *path, uint64_t address, struct program *program,
                  struct error *err);

#endif
