/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blockdev-create: an image made as a job. The options are those of the drivers' own creation (`-o` of the tools), in
 * the spelling of QMP: nodes take the place of file names.
 */
#include "block/create.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/cleanup.h"
#include "block/driver.h"
#include "block/jobs/private.h"
#include "block/request.h"

struct create {
    struct graph *graph;
    struct blockdev_create_options *options;
};

static bool create_file(struct graph *graph, const struct blockdev_create_options_file *options, struct error *err)
{
    const struct block_driver *driver = create_protocol(graph, options->filename, err);
    if (!driver || !driver->create)
        return fail(err, ENOTSUP, "'%s' cannot be created", options->filename);
    auto_raw_create_options *raw = raw_create_options_new();
    raw->has_size = true;
    raw->size = options->size;
    raw->preallocation = options->preallocation;
    raw->nocow = options->nocow;
    raw->extent_size_hint = options->extent_size_hint;
    return driver->create->create_file(graph, options->filename, raw, err);
}

/* A node that is there, or one that exists for the time being. */
static struct edge *use_node(struct graph *graph, const struct blockdev_ref *ref, struct error *err)
{
    bool is_named = ref->kind == BLOCKDEV_REF_KIND_REFERENCE;
    struct node *node = is_named ? find_node(graph, ref->u.reference, err) : node_open(graph, ref->u.definition, err);
    if (!node)
        return NULL;
    struct edge *edge =
        edge_attach(NULL, "blockdev-create", node, BLOCK_PERM_CONSISTENT_READ | BLOCK_PERM_WRITE | BLOCK_PERM_RESIZE,
                    BLOCK_PERM_CONSISTENT_READ, err);
    if (!is_named)
        node_unref(node);
    return edge;
}

static struct qcow2_create_options *qcow2_options(const struct blockdev_create_options_qcow2 *options)
{
    struct qcow2_create_options *own = qcow2_create_options_new();
    own->has_size = true;
    own->size = options->size;
    own->compat = options->version == BLOCKDEV_QCOW2_VERSION_V2 ? QCOW2_COMPAT_V2 : QCOW2_COMPAT_V3;
    own->backing_file = xstrdup(options->backing_file);
    own->backing_fmt = options->has_backing_fmt ? xstrdup(blockdev_driver_name(options->backing_fmt)) : NULL;
    own->cluster_size = options->cluster_size;
    own->preallocation = options->preallocation;
    own->lazy_refcounts = options->lazy_refcounts;
    own->refcount_bits = options->refcount_bits;
    own->compression_type = options->compression_type;
    own->extended_l2 = options->extended_l2;
    own->data_file_raw = options->data_file_raw;
    own->encrypt = options->encrypt ? qcow2_encryption_create_options_clone(options->encrypt) : NULL;
    return own;
}

static bool create_in_node(struct graph *graph, const struct block_driver *driver, struct edge *file, void *options,
                           struct error *err)
{
    const char *filename = file->child->filename ? file->child->filename : file->child->name;
    if (!driver->create->create_format(graph, file, filename, options, err))
        return false;
    int result = block_flush(file);
    return !result || fail_errno(err, result, "Could not flush '%s'", filename);
}

static bool create_qcow2(struct graph *graph, const struct blockdev_create_options_qcow2 *options, struct error *err)
{
    const struct block_driver *driver = graph_driver(graph, "qcow2");
    if (options->size % 512)
        return fail(err, EINVAL, "Image size must be a multiple of 512 bytes");
    auto_qcow2_create_options *own = qcow2_options(options);
    struct edge *data_file = options->data_file ? use_node(graph, options->data_file, err) : NULL;
    if (options->data_file && !data_file)
        return false;
    if (data_file)
        own->data_file = xstrdup(data_file->child->filename);
    edge_detach(data_file); /* the format makes or takes it by its name */
    struct edge *file = use_node(graph, options->file, err);
    bool ok = file && create_in_node(graph, driver, file, own, err);
    edge_detach(file);
    return ok;
}

/* Both begin with the same base. */
static struct luks_image_create_options *luks_options(const struct blockdev_create_options_luks *options)
{
    struct luks_image_create_options *own = luks_image_create_options_new();
    struct luks_create_options *base = luks_create_options_clone((const struct luks_create_options *)options);
    memcpy(own, base, sizeof *base);
    free(base); /* what it owned is in `own` now */
    own->has_size = true;
    own->size = options->size;
    own->has_preallocation = options->has_preallocation && !options->header;
    own->preallocation = own->has_preallocation ? options->preallocation : PREALLOC_MODE_OFF;
    own->detached_header = options->header != NULL;
    return own;
}

static bool create_luks(struct graph *graph, const struct blockdev_create_options_luks *options, struct error *err)
{
    const struct block_driver *driver = graph_driver(graph, "luks");
    auto_luks_image_create_options *own = luks_options(options);
    struct edge *file = use_node(graph, options->file, err);
    struct edge *header = file && options->header ? use_node(graph, options->header, err) : NULL;
    bool ok = file && (header || !options->header);
    if (ok && header)
        ok = node_resize(file, options->size, (enum preallocation)options->preallocation, true, err);
    ok = ok && create_in_node(graph, driver, header ? header : file, own, err);
    edge_detach(header);
    edge_detach(file);
    return ok;
}

static bool create_image(struct create *create, struct error *err)
{
    const struct blockdev_create_options *options = create->options;
    switch (options->driver) {
    case BLOCKDEV_DRIVER_FILE: return create_file(create->graph, &options->u.file, err);
    case BLOCKDEV_DRIVER_LUKS: return create_luks(create->graph, &options->u.luks, err);
    default: return create_qcow2(create->graph, &options->u.qcow2, err);
    }
}

static int create_run(struct job *job, struct error *err)
{
    struct create *create = job->state;
    job->total = 1;
    bool ok = create_image(create, err);
    job->progress = 1;
    return ok ? 0 : -(err->code ? err->code : EIO);
}

static void create_clean(struct job *job)
{
    struct create *create = job->state;
    blockdev_create_options_free(create->options);
    create->options = NULL;
}

static const struct job_driver create_driver = {
    .type = JOB_TYPE_CREATE,
    .state_size = sizeof(struct create),
    .run = create_run,
    .clean = create_clean,
};

struct job *create_job_new(struct job_set *set, struct graph *graph, const char *id,
                           const struct blockdev_create_options *options, struct error *err)
{
    if (options->driver != BLOCKDEV_DRIVER_FILE && options->driver != BLOCKDEV_DRIVER_QCOW2 &&
        options->driver != BLOCKDEV_DRIVER_LUKS)
        return fail_null(err, ENOTSUP, "Driver '%s' does not support blockdev-create",
                         blockdev_driver_name(options->driver));
    if (!graph_driver(graph, blockdev_driver_name(options->driver)))
        return fail_null(err, ENOTSUP, "Driver '%s' is not part of this program",
                         blockdev_driver_name(options->driver));
    struct job *job = job_new(set, &create_driver, &(struct job_options){.id = id, .manual_dismiss = true}, err);
    if (!job)
        return NULL;
    struct create *create = job->state;
    create->graph = graph;
    create->options = blockdev_create_options_clone(options);
    return job;
}
