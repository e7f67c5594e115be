/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New images. Only the least is laid out by hand: header, one cluster of refcount table, one refcount block. Then the
 * image is opened like any other and grown to its size, so that allocation, tables of any size and preallocation are
 * the code that runs later too. That it is encrypted is said last, by a header that is laid out once more: what comes
 * before may not look for keys.
 */
#include "block/create.h"
#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/name.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/state.h"
#include "qmp/schema/types.h"

bool qcow2_check_create_options(const struct qcow2_create_options *o, uint32_t version, struct error *err)
{
    if (!is_power_of_two(o->cluster_size) || o->cluster_size < 512 || o->cluster_size > 2 * MiB)
        return fail(err, EINVAL, "cluster_size is %" PRIu64 ": it must be a power of two from 512 to 2 MiB",
                    o->cluster_size);
    if (o->refcount_bits < 1 || o->refcount_bits > 64 || !is_power_of_two((uint64_t)o->refcount_bits))
        return fail(err, EINVAL, "refcount_bits is %" PRId64 ": it must be 1, 2, 4, 8, 16, 32 or 64", o->refcount_bits);
    if (o->extended_l2 && o->cluster_size < 1ull << CLUSTER_BITS_MIN_EXTENDED)
        return fail(err, EINVAL, "cluster_size is %" PRIu64 ": with extended_l2=on it must be at least 16384",
                    o->cluster_size);
    if (o->data_file_raw && !o->data_file)
        return fail(err, EINVAL, "data_file_raw=on needs data_file");
    if (o->data_file_raw && o->backing_file)
        return fail(err, EINVAL, "an image has either a backing file or a raw external data file");
    if (o->backing_fmt && !o->backing_file)
        return fail(err, EINVAL, "backing_fmt was given without backing_file");
    if (o->backing_file && o->preallocation != PREALLOC_MODE_OFF && !o->extended_l2)
        return fail(err, EINVAL, "preallocation and a backing file go together only with extended_l2=on");
    if (!encryption_check_options(o, err))
        return false;
    if (version >= 3)
        return true;
    const char *newer = o->lazy_refcounts                                    ? "lazy_refcounts=on"
                        : o->extended_l2                                     ? "extended_l2=on"
                        : o->data_file                                       ? "data_file"
                        : o->refcount_bits != 16                             ? "a refcount_bits other than 16"
                        : o->compression_type != QCOW2_COMPRESSION_TYPE_ZLIB ? "compression_type=zstd"
                                                                             : NULL;
    return !newer || fail(err, EINVAL, "%s needs compat=1.1 (version 3) or newer", newer);
}

static struct header new_header(const struct qcow2_create_options *o, uint32_t version)
{
    bool zstd = o->compression_type == QCOW2_COMPRESSION_TYPE_ZSTD;
    return (struct header){
        .version = version,
        .cluster_bits = lowest_bit(o->cluster_size),
        .refcount_order = lowest_bit((uint64_t)o->refcount_bits),
        .compression_type = zstd ? COMPRESSION_ZSTD : COMPRESSION_DEFLATE,
        .incompatible = (zstd ? INCOMPATIBLE_COMPRESSION : 0) | (o->extended_l2 ? INCOMPATIBLE_EXTENDED_L2 : 0) |
                        (o->data_file ? INCOMPATIBLE_DATA_FILE : 0),
        .compatible = o->lazy_refcounts ? COMPATIBLE_LAZY_REFCOUNTS : 0,
        .autoclear = o->data_file_raw ? AUTOCLEAR_RAW_DATA : 0,
        .reftable_offset = o->cluster_size,
        .reftable_clusters = 1,
        .backing_name = o->backing_file,
        .backing_format = o->backing_fmt,
        .data_file = o->data_file,
    };
}

/* Writes a cluster whose bytes behind `used` are zero. What a growing file has not yet, reads as zeroes. */
static int write_cluster(struct edge *file, uint64_t offset, const uint8_t *cluster, uint64_t used,
                         uint64_t cluster_size)
{
    bool is_fresh = file->child->growable && offset >= file->child->size;
    return block_write_buffer(file, offset, cluster, is_fresh ? round_up(used, 512) : cluster_size, 0);
}

/* Header, refcount table, refcount block: an image of size 0. */
static bool write_seed(struct edge *file, const struct header *header, struct error *err)
{
    uint64_t cluster_size = 1ull << header->cluster_bits;
    auto_free uint8_t *cluster = block_alloc_buffer(file, cluster_size);
    if (!cluster)
        return fail(err, ENOMEM, "out of memory for a new image");
    uint64_t used;
    if (!header_format(header, cluster, &used, err))
        return false;
    int result = write_cluster(file, 0, cluster, used, cluster_size);
    memset(cluster, 0, cluster_size);
    store_be64(cluster, 2 * cluster_size);
    if (!result)
        result = write_cluster(file, cluster_size, cluster, 8, cluster_size);
    memset(cluster, 0, cluster_size);
    for (uint64_t i = 0; i < 3; i++)
        refcount_write(cluster, header->refcount_order, i, 1);
    if (!result)
        result = write_cluster(file, 2 * cluster_size, cluster, 3 * 8, cluster_size);
    return !result || fail_errno(err, result, "cannot write a new image");
}

/* The name of a new file is lost with a power cut unless the file was flushed: an image that names it is not made
 * before. */
static bool make_durable(struct graph *graph, const char *filename, struct error *err)
{
    struct open_mode mode = {0};
    struct node *node = node_open_filename(graph, filename, "raw", &mode, err);
    struct edge *edge = node ? edge_attach(NULL, "create", node, BLOCK_PERM_WRITE, BLOCK_PERM_ALL, err) : NULL;
    int result = 0;
    if (edge) {
        node_mark_written(node);
        node_mark_written(node->file->child);
        result = block_flush(edge);
        edge_detach(edge);
    }
    if (node)
        node_unref(node);
    return edge && (!result || fail_errno(err, result, "cannot flush '%s'", filename));
}

static bool create_data_file(struct graph *graph, const char *filename, const struct qcow2_create_options *o,
                             uint64_t size, struct error *err)
{
    const struct block_driver *raw = graph_driver(graph, "raw");
    if (!raw)
        return fail(err, ENOTSUP, "an external data file needs the raw driver, which this program does not have");
    auto_raw_create_options *options = raw_create_options_new();
    options->has_size = true;
    options->size = size;
    options->has_preallocation = true;
    options->preallocation = o->preallocation == PREALLOC_MODE_METADATA ? PREALLOC_MODE_OFF : o->preallocation;
    auto_free char *resolved = name_resolve(filename, o->data_file);
    return (image_create(graph, resolved, raw, options, err) && make_durable(graph, resolved, err)) ||
           fail_prefix(err, "external data file: ");
}

/* Without a size the disk is as large as its backing file. */
static bool find_size(struct graph *graph, const char *filename, const struct qcow2_create_options *o, uint64_t *size,
                      struct error *err)
{
    *size = o->size;
    if (o->has_size || !o->backing_file)
        return o->has_size || fail(err, EINVAL, "the size of the new image is missing");
    auto_free char *resolved = name_resolve(filename, o->backing_file);
    struct open_mode mode = {.read_only = true, .metadata_only = true};
    struct node *backing = node_open_filename(graph, resolved, o->backing_fmt, &mode, err);
    if (!backing)
        return fail_prefix(err, "backing file '%s': ", o->backing_file);
    *size = backing->size;
    node_unref(backing);
    return true;
}

/* The header of an image that has everything else. */
static int finish_header(struct qcow2 *q)
{
    uint64_t used;
    if (!is_encrypted(q))
        return header_store(q);
    auto_free uint8_t *cluster = block_alloc_buffer(q->file, q->cluster_size);
    if (!cluster)
        return -ENOMEM;
    auto_error err = {0};
    if (!header_format(&q->header, cluster, &used, &err))
        return -err.code;
    return block_write_buffer(q->file, 0, cluster, q->cluster_size, 0);
}

static bool grow_seed(struct graph *graph, struct qcow2 *q, const struct qcow2_create_options *o, uint64_t size,
                      struct error *err)
{
    uint64_t entries = MAX(DIV_ROUND_UP(size, l2_span(q)), (uint64_t)1);
    if (entries > L1_BYTES_MAX / 8)
        return fail(err, EFBIG,
                    "a disk of %" PRIu64 " bytes is too large for clusters of %" PRIu64 " bytes: at most %" PRIu64
                    " bytes are possible",
                    size, q->cluster_size, (uint64_t)(l2_span(q) * (L1_BYTES_MAX / 8)));
    co_mutex_lock(&q->lock);
    int result = l1_grow(q, entries);
    co_mutex_unlock(&q->lock);
    if (result)
        return fail_errno(err, result, "cannot make the L1 table");
    q->size = q->header.size = size;
    if (!encryption_create(q, graph_objects(graph), o, err))
        return false;
    enum preallocation mode = (enum preallocation)o->preallocation;
    if (q->external_data && (q->raw_data || mode != PREALLOCATION_OFF))
        mode = PREALLOCATION_METADATA; /* the data file has its own */
    if (!qcow2_preallocate(q, 0, size, mode, err))
        return false;
    result = qcow2_finish(q);
    if (!result)
        result = finish_header(q);
    q->is_new = false;
    if (!result)
        result = qcow2_barrier(q);
    return !result || fail_errno(err, result, "cannot write the new image");
}

static bool create_format(struct graph *graph, struct edge *file, const char *filename, void *options,
                          struct error *err)
{
    const struct qcow2_create_options *o = options;
    uint32_t version = o->compat == QCOW2_COMPAT_V2 || o->compat == QCOW2_COMPAT_0_10 ? 2 : 3;
    uint64_t size;
    if (!qcow2_check_create_options(o, version, err) || !find_size(graph, filename, o, &size, err))
        return false;
    if (size % 512)
        size = round_up(size, 512);
    struct header header = new_header(o, version);
    if ((o->data_file && !create_data_file(graph, filename, o, size, err)) || !write_seed(file, &header, err))
        return false;
    auto_free struct qcow2 *q = new (struct qcow2);
    q->file = q->data = file;
    q->writable = q->is_new = true;
    bool ok = header_load(file, &q->header, err) && qcow2_load(q, err);
    q->lazy_refcounts = false; /* a new image is clean */
    ok = ok && grow_seed(graph, q, o, size, err);
    qcow2_unload(q);
    return ok;
}

const struct create_ops qcow2_create_ops = {.options_type = &qcow2_create_options_type, .create_format = create_format};
