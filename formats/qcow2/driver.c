/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing an image, what it tells about itself, and the table of everything the format can do. */
#include "formats/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>
#include "base/alloc.h"
#include "base/log.h"
#include "block/name.h"
#include "formats/qcow2/bitmap_store.h"
#include "formats/qcow2/encryption.h"
#include "formats/qcow2/live.h"
#include "formats/qcow2/trim.h"
#include "formats/qcow2/write_log.h"
#include "qmp/schema/types.h"

/* Bits that promise something about what we do not keep up to date go before the first write. */
static bool clear_autoclear(struct qcow2 *q, struct error *err)
{
    uint64_t kept = q->header.autoclear & (AUTOCLEAR_RAW_DATA | AUTOCLEAR_BITMAPS | AUTOCLEAR_WRITE_LOG);
    if (kept == q->header.autoclear)
        return true;
    q->header.autoclear = kept;
    int result = header_store(q);
    if (!result)
        result = qcow2_barrier(q);
    return !result || fail_errno(err, result, "cannot clear the autoclear feature bits in the header");
}

/* Refcounts of an image that was not closed cannot be trusted: they are made anew from the tables. */
static bool repair_dirty(struct qcow2 *q, struct error *err)
{
    if (!(q->header.incompatible & INCOMPATIBLE_DIRTY))
        return true;
    struct image_check result = {0};
    int status = qcow2_check_state(q, CHECK_REPAIR_LEAKS | CHECK_REPAIR_ERRORS, &result, err);
    if (status < 0)
        return fail_errno(err, status, "cannot repair the refcounts of an image that was not closed properly");
    if (result.check_errors)
        return fail(err, EIO,
                    "the image was not closed properly, and its refcounts cannot be made anew: reading its metadata "
                    "failed in %" PRId64 " places",
                    result.check_errors);
    if (result.corruptions)
        return fail(err, EIO,
                    "the image was not closed properly and has %" PRId64
                    " errors that cannot be repaired: open it read-only to save its data",
                    result.corruptions);
    return true;
}

static void set_node(struct node *node, struct qcow2 *q)
{
    node->size = q->size;
    node->limits.zero_alignment = subcluster_size(q);
    node->limits.discard_alignment = subcluster_size(q);
    node->limits.optimal_transfer = (uint32_t)q->cluster_size;
    if (is_encrypted(q))
        node->limits.request_alignment = 512;
    node->write_flags = REQUEST_FUA;
    node->zero_flags = REQUEST_FUA | REQUEST_MAY_UNMAP;
}

/* A damaged directory of bitmaps keeps nobody from reading the data. */
static bool load_bitmaps(struct qcow2 *q, struct error *err)
{
    auto_error problem = {0};
    if (bitmaps_load(q, log_is_valid(q), &problem) && dirty_log_recover(q, &problem))
        return true;
    if (q->node->read_only) {
        log_warning("image '%s': %s", q->node->filename ? q->node->filename : q->node->name, problem.message);
        return true;
    }
    error_move(err, &problem);
    return false;
}

/* The image as the last program left it, killed or not, without a log. In this order, so that a crash on the way loses
 * nothing: what was logged is in the tables, the bitmaps are stored, only then the log goes. */
static bool recover(struct qcow2 *q, struct error *err)
{
    bool was_dirty = q->header.incompatible & INCOMPATIBLE_DIRTY;
    /* What a killed program wrote and never flushed is what is read and built upon here: a power cut must not take it
     * away again. */
    int result = was_dirty || log_is_valid(q) ? qcow2_barrier(q) : 0;
    if (result)
        return fail_errno(err, result, "cannot flush what the last program wrote");
    if (!log_load(q, err) || !repair_dirty(q, err) || !log_replay(q, was_dirty, err))
        return false;
    return !log_is_valid(q) || (bitmaps_store(q, true, err) && log_drop(q, err));
}

/* Bitmaps are worth a log from the start: a crash finds either unused ones, or a log that knows what they miss. */
static bool begin_use(struct qcow2 *q, struct error *err)
{
    log_init(q);
    int result = 0;
    if (q->bitmaps.count) {
        co_mutex_lock(&q->lock);
        result = log_begin(q);
        co_mutex_unlock(&q->lock);
    }
    return result ? fail_errno(err, result, "cannot begin the write log") : bitmaps_begin_use(q, err);
}

static bool open_state(struct node *node, struct qcow2 *q, struct error *err)
{
    q->node = node;
    if (!children_open(node, q, err) || !qcow2_load(q, err))
        return false;
    set_node(node, q);
    if (!encryption_open(q, node->options->u.qcow2.encrypt, err))
        return false;
    if (!load_bitmaps(q, err))
        return false;
    if (node->read_only)
        return true;
    if (q->header.incompatible & INCOMPATIBLE_CORRUPT) {
        /* Open, so that it can be read and checked; only a repair may write. */
        log_warning("image '%s' is marked as corrupt: it can be read and repaired, writes are refused",
                    node->filename ? node->filename : node->name);
        q->broken = true;
        q->writable = true;
        node->corrupt = true;
        return true;
    }
    q->writable = true;
    return recover(q, err) && clear_autoclear(q, err) && begin_use(q, err);
}

static bool qcow2_open(struct node *node, struct error *err)
{
    struct qcow2 *q = node->state;
    if (open_state(node, q, err))
        return true;
    qcow2_unload(q);
    return false;
}

static void qcow2_close(struct node *node)
{
    struct qcow2 *q = node->state;
    auto_error err = {0};
    if (!q->broken && !bitmaps_store(q, true, &err))
        log_error("closing '%s': %s", node->filename ? node->filename : node->name, err.message);
    int result = qcow2_finish(q);
    if (!result && q->writable && !q->broken && !log_drop(q, &err))
        log_error("closing '%s': %s", node->filename ? node->filename : node->name, err.message);
    co_mutex_lock(&q->lock);
    if (!result)
        result = qcow2_trim_locked(q);
    co_mutex_unlock(&q->lock);
    if (result)
        log_error("cannot write the metadata of '%s' on closing it: %s", node->filename ? node->filename : node->name,
                  strerror(-result));
    qcow2_unload(q);
}

/* Reopening. Becoming read-only finishes the metadata while that is still possible. Becoming writable does what a
 * writable open does, but for repairs: those want the image for themselves. */
struct reopen_state {
    struct blockdev_options *options;
    struct new_caches caches;
};

static void reopen_end(struct reopen_state *state)
{
    blockdev_options_free(state->options);
    cache_destroy(&state->caches.l2);
    cache_destroy(&state->caches.refcount);
    free(state);
}

static bool qcow2_reopen_prepare(struct node *node, const struct blockdev_options *options, struct reopen_state **state,
                                 struct error *err)
{
    struct qcow2 *q = node->state;
    if (node->read_only && !options->read_only && q->header.incompatible & (INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT))
        return fail(
            err, EBUSY,
            "node '%s': the image is marked as %s: it must be repaired (by opening it read-write) before it can "
            "become writable",
            node->name, q->header.incompatible & INCOMPATIBLE_DIRTY ? "dirty" : "corrupt");
    struct reopen_state *now = new (struct reopen_state);
    now->options = blockdev_options_clone(options);
    bool ends = !node->read_only && options->read_only;
    bool ok = options_check_reopen(q, &options->u.qcow2, &now->caches, err) && (!ends || bitmaps_store(q, true, err));
    int result = ok && (ends || now->caches.wanted) ? qcow2_finish(q) : 0;
    if (ok && !result && ends)
        ok = log_drop(q, err);
    if (result)
        ok = fail_errno(err, result, "node '%s': cannot write its metadata", node->name);
    if (ok)
        *state = now;
    else
        reopen_end(now);
    return ok;
}

static void qcow2_reopen_abort(struct node *node, struct reopen_state *state)
{
    struct qcow2 *q = node->state;
    auto_error err = {0};
    if (q->writable && !q->broken && !q->bitmaps_in_use && !begin_use(q, &err)) {
        q->broken = true;
        log_error("node '%s': %s", node->name, err.message);
    }
    reopen_end(state);
}

static void qcow2_reopen_commit(struct node *node, struct reopen_state *state)
{
    struct qcow2 *q = node->state;
    options_reopened(q, &state->options->u.qcow2, &state->caches);
    reopen_end(state);
    bool was_writable = q->writable;
    q->writable = !node->read_only;
    auto_error err = {0};
    if (!q->writable && was_writable)
        bitmaps_set_read_only(q);
    if (q->writable && !was_writable && !(recover(q, &err) && clear_autoclear(q, &err) && begin_use(q, &err))) {
        q->broken = true; /* nothing may be written under bits that promise otherwise */
        log_error("node '%s': %s", node->name, err.message);
    }
}

static int qcow2_probe(const uint8_t *head, size_t size, const char *filename)
{
    if (size < 8 || load_be32(head) != QCOW2_MAGIC)
        return 0;
    uint32_t version = load_be32(head + HEADER_VERSION);
    return version == 2 || version == 3 ? 100 : 0;
}

static int qcow2_flush(struct node *node)
{
    int result = dirty_log_checkpoint(node->state, false);
    if (!result)
        result = qcow2_sync(node->state);
    return result ? result : qcow2_trim_when_idle(node->state);
}

static struct image_info_specific *specific_info(const struct qcow2 *q)
{
    const struct header *h = &q->header;
    struct image_info_specific *specific = image_info_specific_new();
    specific->type = IMAGE_INFO_SPECIFIC_KIND_QCOW2;
    struct image_info_specific_qcow2 *data = specific->u.qcow2.data = image_info_specific_qcow2_new();
    data->compat = xstrdup(h->version >= 3 ? "1.1" : "0.10");
    data->compression_type =
        h->compression_type == COMPRESSION_ZSTD ? QCOW2_COMPRESSION_TYPE_ZSTD : QCOW2_COMPRESSION_TYPE_ZLIB;
    data->refcount_bits = 1ll << h->refcount_order;
    data->encrypt = encryption_info(q);
    if (h->version < 3)
        return specific;
    data->has_lazy_refcounts = true;
    data->lazy_refcounts = h->compatible & COMPATIBLE_LAZY_REFCOUNTS;
    data->has_corrupt = true;
    data->corrupt = h->incompatible & INCOMPATIBLE_CORRUPT;
    data->has_extended_l2 = true;
    data->extended_l2 = q->extended_l2;
    data->has_bitmaps = q->bitmaps.count > 0;
    data->bitmaps = bitmaps_info(q, &data->n_bitmaps);
    data->data_file = xstrdup(h->data_file);
    data->has_data_file_raw = q->external_data;
    data->data_file_raw = q->raw_data;
    return specific;
}

static bool qcow2_info(struct node *node, struct image_facts *facts, struct error *err)
{
    const struct qcow2 *q = node->state;
    facts->cluster_size = q->cluster_size;
    facts->has_dirty_flag = true;
    facts->dirty_flag = q->header.incompatible & INCOMPATIBLE_DIRTY;
    if (q->header.backing_name) {
        facts->backing_filename = xstrdup(q->header.backing_name);
        facts->full_backing_filename = name_resolve(node->filename, q->header.backing_name);
        facts->backing_format = xstrdup(q->header.backing_format);
    }
    facts->encrypted = is_encrypted(q);
    facts->specific = specific_info(q);
    return true;
}

static int64_t qcow2_allocated_size(struct node *node)
{
    struct node *file = node->file->child;
    return file->driver->allocated_size ? file->driver->allocated_size(file) : -ENOTSUP;
}

static unsigned qcow2_caches(const struct node *node, struct cache_numbers caches[CACHES_MAX])
{
    const struct qcow2 *q = node->state;
    caches[0] = cache_tell(&q->l2_cache, "l2");
    caches[1] = cache_tell(&q->refcount_cache, "refcount");
    return 2;
}

const struct block_driver qcow2_driver = {
    .name = "qcow2",
    .kind = DRIVER_FORMAT,
    .instance_size = sizeof(struct qcow2),
    .open = qcow2_open,
    .close = qcow2_close,
    .probe = qcow2_probe,
    .map = qcow2_map,
    .read_encoded = qcow2_read_encoded,
    .prepare_write = qcow2_prepare_write,
    .commit_write = qcow2_commit_write,
    .write_compressed = qcow2_write_compressed,
    .write_encoded = qcow2_write_encoded,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .allocate = qcow2_allocate,
    .flush = qcow2_flush,
    .reopen_prepare = qcow2_reopen_prepare,
    .reopen_commit = qcow2_reopen_commit,
    .reopen_abort = qcow2_reopen_abort,
    .create = &qcow2_create_ops,
    .snapshots = &qcow2_snapshot_ops,
    .bitmaps = &qcow2_bitmap_ops,
    .amend = &qcow2_amend_ops,
    .measure = qcow2_measure,
    .resize = qcow2_resize,
    .check = qcow2_check,
    .live_check = &qcow2_live_check_ops,
    .change_backing = qcow2_change_backing,
    .make_empty = qcow2_make_empty,
    .info = qcow2_info,
    .allocated_size = qcow2_allocated_size,
    .caches = qcow2_caches,
};
