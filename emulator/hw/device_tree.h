/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building a flattened device tree (devicetree specification 0.4). A thin layer over libfdt: nodes are named by their
 * full path, the memory grows by itself, and the first failure sticks until device_tree_finish() reports it, so that
 * devices describe themselves in plain lists of properties.
 */
#ifndef EMULATOR_HW_DEVICE_TREE_H
#define EMULATOR_HW_DEVICE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct device_tree;

struct device_tree *device_tree_new(void);
/* A tree that somebody else made (-dtb), to be completed. */
struct device_tree *device_tree_from_blob(const void *blob, size_t size, struct error *err);
void device_tree_free(struct device_tree *tree);

void tree_node(struct device_tree *tree, const char *path); /* the parent exists; an existing node is kept */
void tree_bytes(struct device_tree *tree, const char *path, const char *property, const void *data, size_t size);
void tree_string(struct device_tree *tree, const char *path, const char *property, const char *text);
/* Several strings, each with its terminator: "a\0b"; size without the last one's. */
void tree_strings(struct device_tree *tree, const char *path, const char *property, const char *texts, size_t size);
void tree_flag(struct device_tree *tree, const char *path, const char *property);
void tree_cells(struct device_tree *tree, const char *path, const char *property, const uint32_t *cells, size_t count);
#define tree_u32s(tree, path, property, ...)                                                                           \
    tree_cells(tree, path, property, (const uint32_t[]){__VA_ARGS__},                                                  \
               sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))
void tree_u64(struct device_tree *tree, const char *path, const char *property, uint64_t value);
/* `reg` with two cells each for address and size. */
void tree_reg(struct device_tree *tree, const char *path, uint64_t base, uint64_t size);

/* The blob, packed and owned by the caller; NULL and the first error that occurred. */
void *device_tree_finish(struct device_tree *tree, size_t *size, struct error *err);

#endif
