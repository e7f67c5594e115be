/* SPDX-License-Identifier: Apache-2.0 */
/* What the user asked for: cache sizes, discards, the guard, lazy refcounts. Without a node (a new image) the defaults.
 */
#include "formats/qcow2/state.h"
#include <inttypes.h>
#include "qmp/schema/types.h"

/* Enough for 256 GiB of disk with clusters of 64 KiB; a smaller disk takes what covers it. */
#define L2_CACHE_DEFAULT (32 * MiB)
#define SLICE_DEFAULT 4096u
#define REFCOUNT_BLOCKS_LEAST 4u

struct cache_sizes {
    uint64_t l2, refcount, slice;
};

/* Memory for the L2 tables of the whole disk. */
static uint64_t l2_bytes_needed(const struct qcow2 *q)
{
    uint64_t clusters = DIV_ROUND_UP(q->size, q->cluster_size);
    return MAX(round_up(clusters * q->l2_entry_size, q->cluster_size), q->cluster_size);
}

static bool choose_cache_sizes(const struct qcow2 *q, const struct blockdev_options_qcow2 *o, struct cache_sizes *sizes,
                               struct error *err)
{
    uint64_t needed = l2_bytes_needed(q), least = REFCOUNT_BLOCKS_LEAST * q->cluster_size;
    *sizes = (struct cache_sizes){MIN(needed, L2_CACHE_DEFAULT), least, MIN(SLICE_DEFAULT, q->cluster_size)};
    if (o && o->has_l2_cache_entry_size) {
        sizes->slice = o->l2_cache_entry_size;
        if (!is_power_of_two(sizes->slice) || sizes->slice > q->cluster_size)
            return fail(err, EINVAL,
                        "l2-cache-entry-size is %" PRIu64
                        ": it must be a power of two from 512 to the cluster size %" PRIu64,
                        sizes->slice, q->cluster_size);
    }
    if (o && o->has_cache_size) {
        if (o->has_l2_cache_size && o->has_refcount_cache_size)
            return fail(err, EINVAL, "of cache-size, l2-cache-size and refcount-cache-size only two can be given");
        if ((o->has_l2_cache_size && o->l2_cache_size > o->cache_size) ||
            (o->has_refcount_cache_size && o->refcount_cache_size > o->cache_size))
            return fail(err, EINVAL, "l2-cache-size and refcount-cache-size must not exceed cache-size %" PRIu64,
                        o->cache_size);
        if (o->has_l2_cache_size) {
            sizes->l2 = o->l2_cache_size;
            sizes->refcount = o->cache_size - o->l2_cache_size;
        } else {
            sizes->refcount = o->has_refcount_cache_size ? o->refcount_cache_size : MIN(least, o->cache_size);
            sizes->l2 = MIN(o->cache_size - sizes->refcount, needed);
        }
        return true;
    }
    if (o && o->has_l2_cache_size)
        sizes->l2 = MIN(o->l2_cache_size, MAX(needed, 2 * sizes->slice));
    if (o && o->has_refcount_cache_size)
        sizes->refcount = o->refcount_cache_size;
    return true;
}

static uint32_t template_types(enum qcow2_overlap_check_mode mode)
{
    switch (mode) {
    case QCOW2_OVERLAP_CHECK_MODE_NONE: return 0;
    case QCOW2_OVERLAP_CHECK_MODE_CONSTANT: return OVERLAP_CONSTANT;
    case QCOW2_OVERLAP_CHECK_MODE_ALL: return OVERLAP_ALL;
    default: return OVERLAP_CACHED;
    }
}

static uint32_t with_flag(uint32_t types, bool has, bool on, enum overlap_type type)
{
    return !has ? types : on ? types | type : types & ~(uint32_t)type;
}

static uint32_t overlap_types(const struct qcow2_overlap_checks *checks)
{
    if (!checks)
        return OVERLAP_CACHED;
    if (checks->kind == QCOW2_OVERLAP_CHECKS_KIND_MODE)
        return template_types(checks->u.mode);
    const struct qcow2_overlap_check_flags *f = checks->u.flags;
    uint32_t types = template_types(f->template);
    types = with_flag(types, f->has_main_header, f->main_header, OVERLAP_HEADER);
    types = with_flag(types, f->has_active_l1, f->active_l1, OVERLAP_ACTIVE_L1);
    types = with_flag(types, f->has_active_l2, f->active_l2, OVERLAP_ACTIVE_L2);
    types = with_flag(types, f->has_refcount_table, f->refcount_table, OVERLAP_REFTABLE);
    types = with_flag(types, f->has_refcount_block, f->refcount_block, OVERLAP_REFBLOCK);
    types = with_flag(types, f->has_snapshot_table, f->snapshot_table, OVERLAP_SNAPSHOT_TABLE);
    types = with_flag(types, f->has_inactive_l1, f->inactive_l1, OVERLAP_INACTIVE_L1);
    types = with_flag(types, f->has_inactive_l2, f->inactive_l2, OVERLAP_INACTIVE_L2);
    return with_flag(types, f->has_bitmap_directory, f->bitmap_directory, OVERLAP_BITMAP_DIRECTORY);
}

static bool check_version(const struct qcow2 *q, const struct blockdev_options_qcow2 *o, struct error *err)
{
    const char *newer = !o                                           ? NULL
                        : o->has_lazy_refcounts && o->lazy_refcounts ? "lazy-refcounts=on"
                        : o->discard_no_unref                        ? "discard-no-unref=on"
                                                                     : NULL;
    return !newer || q->header.version >= 3 ||
           fail(err, EINVAL, "%s needs a version 3 image (compat 1.1), this one has version 2", newer);
}

/* What can change while the image is open. */
static void apply_switches(struct qcow2 *q, const struct blockdev_options_qcow2 *o)
{
    bool unmap = q->node && q->node->discard == BLOCK_DISCARD_UNMAP;
    q->pass_discard[FREE_REQUEST] = o && o->has_pass_discard_request ? o->pass_discard_request : unmap;
    q->pass_discard[FREE_SNAPSHOT] = !o || !o->has_pass_discard_snapshot || o->pass_discard_snapshot;
    q->pass_discard[FREE_OTHER] = o && o->pass_discard_other;
    q->pass_discard[FREE_CUT] = true;
    q->discard_no_unref = o && o->discard_no_unref;
    q->lazy_refcounts =
        o && o->has_lazy_refcounts ? o->lazy_refcounts : (q->header.compatible & COMPATIBLE_LAZY_REFCOUNTS) != 0;
    q->overlap_types = overlap_types(o ? o->overlap_check : NULL);
}

static bool make_caches(const struct qcow2 *q, const struct cache_sizes *sizes, struct cache *l2,
                        struct cache *refcount, struct error *err)
{
    if (cache_init(l2, q->file, (uint32_t)sizes->slice, sizes->l2) &&
        cache_init(refcount, q->file, (uint32_t)q->cluster_size,
                   MAX(sizes->refcount, REFCOUNT_BLOCKS_LEAST * q->cluster_size))) {
        l2->load_event = BLKDEBUG_EVENT_L2_LOAD;
        l2->write_event = BLKDEBUG_EVENT_L2_UPDATE;
        refcount->load_event = BLKDEBUG_EVENT_REFBLOCK_LOAD;
        refcount->write_event = BLKDEBUG_EVENT_REFBLOCK_UPDATE;
        return true;
    }
    cache_destroy(l2);
    cache_destroy(refcount);
    return fail(err, ENOMEM, "out of memory for metadata caches");
}

/* Metadata that nobody looks at gives its memory back, now and then. */
static void on_clean(void *arg)
{
    struct qcow2 *q = arg;
    cache_clean(&q->l2_cache);
    cache_clean(&q->refcount_cache);
    loop_timer_arm(q->node->loop, &q->clean_timer, loop_now_ns(q->node->loop) + q->clean_interval_ns);
}

static void arm_cleaning(struct qcow2 *q, const struct blockdev_options_qcow2 *o)
{
    loop_timer_cancel(&q->clean_timer);
    q->clean_timer.fn = on_clean;
    q->clean_timer.arg = q;
    q->clean_interval_ns = o ? o->cache_clean_interval * 1000000000ull : 0;
    if (q->clean_interval_ns)
        loop_timer_arm(q->node->loop, &q->clean_timer, loop_now_ns(q->node->loop) + q->clean_interval_ns);
}

bool options_check_reopen(const struct qcow2 *q, const struct blockdev_options_qcow2 *now, struct new_caches *caches,
                          struct error *err)
{
    const struct blockdev_options_qcow2 *old = &q->node->options->u.qcow2;
    struct cache_sizes before, after;
    if (!check_version(q, now, err) || !choose_cache_sizes(q, old, &before, NULL) ||
        !choose_cache_sizes(q, now, &after, err))
        return false;
    caches->wanted = before.l2 != after.l2 || before.refcount != after.refcount || before.slice != after.slice;
    caches->slice_bits = lowest_bit(after.slice);
    return !caches->wanted || make_caches(q, &after, &caches->l2, &caches->refcount, err);
}

void options_reopened(struct qcow2 *q, const struct blockdev_options_qcow2 *now, struct new_caches *caches)
{
    apply_switches(q, now);
    arm_cleaning(q, now);
    if (!caches->wanted)
        return;
    cache_destroy(&q->l2_cache);
    cache_destroy(&q->refcount_cache);
    q->l2_cache = caches->l2;
    q->refcount_cache = caches->refcount;
    co_queue_init(&q->l2_cache.loads); /* they moved, and nobody waits */
    co_queue_init(&q->refcount_cache.loads);
    q->slice_bits = caches->slice_bits;
    *caches = (struct new_caches){0};
}

bool options_apply(struct qcow2 *q, struct error *err)
{
    const struct blockdev_options_qcow2 *o = q->node ? &q->node->options->u.qcow2 : NULL;
    struct cache_sizes sizes;
    if (!check_version(q, o, err) || !choose_cache_sizes(q, o, &sizes, err))
        return false;
    apply_switches(q, o);
    q->slice_bits = lowest_bit(sizes.slice);
    if (!make_caches(q, &sizes, &q->l2_cache, &q->refcount_cache, err))
        return false;
    arm_cleaning(q, o);
    return true;
}
