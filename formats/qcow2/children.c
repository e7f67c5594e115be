/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes below an image: the file with the metadata, the external data file, the backing image. Each is what the
 * options say, else what the image itself names.
 */
#include "formats/qcow2/state.h"
#include "block/name.h"
#include "qmp/schema/types.h"

static void file_permissions(const struct node *node, uint32_t *perm, uint32_t *shared)
{
    *perm = BLOCK_PERM_CONSISTENT_READ | (node->read_only ? 0 : BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE);
    /* Metadata is cached: nobody else may change it. */
    *shared = node->force_share ? BLOCK_PERM_ALL : BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
}

static bool open_data_file(struct node *node, struct qcow2 *q, struct error *err)
{
    const struct blockdev_options_qcow2 *options = &node->options->u.qcow2;
    uint32_t perm, shared;
    file_permissions(node, &perm, &shared);
    q->data = node->file;
    if (!(q->header.incompatible & INCOMPATIBLE_DATA_FILE)) {
        if (options->data_file)
            return fail(err, EINVAL, "data-file was given, but the image keeps its data in itself");
        return true;
    }
    if (node->metadata_only)
        return true; /* nobody will ask for data */
    if (options->data_file)
        q->data = node_open_child(node, "data-file", options->data_file, perm, shared, err);
    else if (q->header.data_file)
        q->data = node_open_child_by_name(node, "data-file", q->header.data_file, NULL, perm, shared, err);
    else
        return fail(err, EINVAL, "the image has an external data file and does not name it: give it as data-file");
    return q->data || fail_prefix(err, "external data file: ");
}

static bool open_backing(struct node *node, struct qcow2 *q, struct error *err)
{
    const struct blockdev_options_qcow2 *options = &node->options->u.qcow2;
    uint32_t perm = BLOCK_PERM_CONSISTENT_READ;
    uint32_t shared = BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE_UNCHANGED;
    if (node->force_share)
        shared = BLOCK_PERM_ALL;
    if (options->backing)
        return node_open_backing(node, options->backing, perm, shared, err) || fail_prefix(err, "backing file: ");
    if (!q->header.backing_name)
        return true;
    return node_open_child_by_name(node, "backing", q->header.backing_name, q->header.backing_format, perm, shared,
                                   err) ||
           fail_prefix(err, "backing file '%s': ", q->header.backing_name);
}

bool children_open(struct node *node, struct qcow2 *q, struct error *err)
{
    uint32_t perm, shared;
    file_permissions(node, &perm, &shared);
    q->file = node_open_child(node, "file", node->options->u.qcow2.file, perm, shared, err);
    if (!q->file)
        return false;
    /* The file may have turned read-only (auto-read-only). */
    if (!header_load(q->file, &q->header, err) || !open_data_file(node, q, err))
        return false;
    if (q->header.autoclear & AUTOCLEAR_RAW_DATA && node->options->u.qcow2.backing &&
        node->options->u.qcow2.backing->kind != BLOCKDEV_REF_OR_NULL_KIND_NULL)
        return fail(err, EINVAL, "an image with a raw external data file cannot have a backing file");
    return open_backing(node, q, err);
}
