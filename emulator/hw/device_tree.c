/* SPDX-License-Identifier: Apache-2.0 */
/* Building a device tree: see the header. The only file that includes libfdt. */
#include "emulator/hw/device_tree.h"

#include <libfdt.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/endian.h"

struct device_tree {
    void *blob;
    int size;
    struct error first;
};

static bool grow(struct device_tree *tree)
{
    int size = tree->size * 2;
    void *blob = realloc(tree->blob, (size_t)size);
    if (!blob)
        return false;
    tree->blob = blob;
    tree->size = size;
    return fdt_open_into(blob, blob, size) == 0;
}

struct device_tree *device_tree_new(void)
{
    struct device_tree *tree = new (struct device_tree);
    tree->size = 8192;
    tree->blob = xmalloc((size_t)tree->size);
    int result = fdt_create_empty_tree(tree->blob, tree->size);
    if (result)
        fail(&tree->first, ENOMEM, "device tree: %s", fdt_strerror(result));
    return tree;
}

struct device_tree *device_tree_from_blob(const void *blob, size_t size, struct error *err)
{
    int result = size > INT32_MAX / 4 ? -FDT_ERR_BADSTRUCTURE : fdt_check_full(blob, size);
    if (result)
        return fail_null(err, EINVAL, "not a device tree blob: %s", fdt_strerror(result));
    struct device_tree *tree = new (struct device_tree);
    tree->size = (int)size + 8192;
    tree->blob = xmalloc((size_t)tree->size);
    fdt_open_into(blob, tree->blob, tree->size);
    return tree;
}

void device_tree_free(struct device_tree *tree)
{
    if (!tree)
        return;
    error_clear(&tree->first);
    free(tree->blob);
    free(tree);
}

static bool broken(const struct device_tree *tree)
{
    return error_is_set(&tree->first);
}

/* Node offset, or -1 after noting the failure. */
static int find(struct device_tree *tree, const char *path)
{
    int node = fdt_path_offset(tree->blob, path);
    if (node < 0)
        fail(&tree->first, EINVAL, "device tree node '%s': %s", path, fdt_strerror(node));
    return node;
}

void tree_node(struct device_tree *tree, const char *path)
{
    if (broken(tree) || fdt_path_offset(tree->blob, path) >= 0)
        return;
    const char *name = strrchr(path, '/');
    auto_free char *parent = xstrndup(path, name == path ? 1 : (size_t)(name - path));
    int result;
    do {
        int node = find(tree, parent);
        if (node < 0)
            return;
        result = fdt_add_subnode(tree->blob, node, name + 1);
    } while (result == -FDT_ERR_NOSPACE && grow(tree));
    if (result < 0)
        fail(&tree->first, EINVAL, "device tree node '%s': %s", path, fdt_strerror(result));
}

void tree_bytes(struct device_tree *tree, const char *path, const char *property, const void *data, size_t size)
{
    if (broken(tree))
        return;
    int result;
    do {
        int node = find(tree, path);
        if (node < 0)
            return;
        result = fdt_setprop(tree->blob, node, property, data, (int)size);
    } while (result == -FDT_ERR_NOSPACE && grow(tree));
    if (result < 0)
        fail(&tree->first, EINVAL, "device tree property '%s' of '%s': %s", property, path, fdt_strerror(result));
}

void tree_string(struct device_tree *tree, const char *path, const char *property, const char *text)
{
    tree_bytes(tree, path, property, text, strlen(text) + 1);
}

void tree_strings(struct device_tree *tree, const char *path, const char *property, const char *texts, size_t size)
{
    tree_bytes(tree, path, property, texts, size);
}

void tree_flag(struct device_tree *tree, const char *path, const char *property)
{
    tree_bytes(tree, path, property, NULL, 0);
}

void tree_cells(struct device_tree *tree, const char *path, const char *property, const uint32_t *cells, size_t count)
{
    auto_free uint32_t *swapped = new_array(uint32_t, count + 1);
    for (size_t i = 0; i < count; i++)
        store_be32(&swapped[i], cells[i]);
    tree_bytes(tree, path, property, swapped, count * sizeof *swapped);
}

void tree_u64(struct device_tree *tree, const char *path, const char *property, uint64_t value)
{
    tree_u32s(tree, path, property, (uint32_t)(value >> 32), (uint32_t)value);
}

void tree_reg(struct device_tree *tree, const char *path, uint64_t base, uint64_t size)
{
    tree_u32s(tree, path, "reg", (uint32_t)(base >> 32), (uint32_t)base, (uint32_t)(size >> 32), (uint32_t)size);
}

void *device_tree_finish(struct device_tree *tree, size_t *size, struct error *err)
{
    if (broken(tree)) {
        error_move(err, &tree->first);
        return NULL;
    }
    fdt_pack(tree->blob);
    *size = fdt_totalsize(tree->blob);
    return TAKE(tree->blob);
}
