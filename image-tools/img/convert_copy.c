/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying the content of images into another one.
 *
 * The target is cut into pieces that begin and end at its own granularity (a cluster, so that nothing has to be read
 * back and merged). A few workers, each a coroutine with a buffer, take one piece after the other: under a lock, the
 * maps of the sources are asked what comes next, so that zeroes are passed over without being read. What a map calls
 * data is read, looked through for zero blocks, and written.
 *
 *     sources  |data data|zero . . . . |data |zero|data        map says
 *     pieces   |  1 |  2 | - passed -  |  3 |  4  |            unit: granularity
 *
 * Writes start in the order of the pieces (unless out_of_order), so that a format which allocates as it is written lays
 * the target out in order; they need not end in order, several are in flight. Compressed clusters are packed on the
 * worker pool, one by each worker, and are stored as they get ready.
 */
#include "image-tools/img/convert.h"

#include <inttypes.h>
#include <string.h>
#include "base/cleanup.h"
#include "base/is_zero.h"
#include "base/log.h"
#include "block/request.h"

#define PIECE (512 * KiB) /* small enough that a few of them stay in the processor's cache between read and write */
#define OFFLOAD_PIECE (16 * MiB) /* no buffer needed */
#define SALVAGE_UNIT 512

enum piece_kind { PIECE_DATA, PIECE_ZERO };

struct piece {
    enum piece_kind kind;
    uint64_t offset, length, ticket;
};

static void conversion_fail(struct conversion *all, const char *doing, const char *name, uint64_t offset, int error)
{
    if (!all->failed)
        log_error("error while %s '%s' at byte %" PRIu64 ": %s", doing, name, offset, strerror(-error));
    all->failed = true;
    co_queue_wake_all(&all->turns);
}

/* Sources --------------------------------------------------------------------------------------------------------- */

static const struct source *source_at(const struct conversion *all, uint64_t offset)
{
    const struct source *source = vec_last(&all->sources);
    while (source->start > offset || source->edge->child->size == 0)
        source--;
    return source;
}

static int read_piece(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length);

/* Halves what cannot be read until only the broken sectors are left, which become zeroes. */
static int salvage(struct conversion *all, const struct source *source, uint64_t offset, uint8_t *buffer,
                   uint64_t length, int error)
{
    if (length <= SALVAGE_UNIT) {
        log_warning("error while reading '%s' at byte %" PRIu64 ": %s; the target gets zeroes there", source->name,
                    offset - source->start, strerror(-error));
        memset(buffer, 0, length);
        return 0;
    }
    uint64_t half = MAX(round_down(length / 2, SALVAGE_UNIT), (uint64_t)SALVAGE_UNIT);
    int result = read_piece(all, offset, buffer, half);
    return result < 0 ? result : read_piece(all, offset + half, buffer + half, length - half);
}

/* A span of the target, from as many sources as it touches. */
static int read_piece(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    while (length) {
        const struct source *source = source_at(all, offset);
        uint64_t inside = offset - source->start;
        uint64_t here = MIN(length, source->edge->child->size - inside);
        int result = block_read_buffer(source->edge, inside, buffer, here);
        if (result < 0 && all->salvage)
            result = salvage(all, source, offset, buffer, here, result);
        if (result < 0) {
            conversion_fail(all, "reading", source->name, inside, result);
            return result;
        }
        offset += here;
        buffer += here;
        length -= here;
    }
    return 0;
}

/* Handing out ----------------------------------------------------------------------------------------------------- */

enum verdict { VERDICT_COPY, VERDICT_ZERO, VERDICT_SKIP, VERDICT_FAILED };

/* What is at all->next, and for how many bytes. */
static enum verdict ask_map(struct conversion *all, uint64_t *length)
{
    const struct source *source = source_at(all, all->next);
    uint64_t inside = all->next - source->start;
    *length = source->edge->child->size - inside;
    if (!all->sparse_size && !all->keep_backing)
        return VERDICT_COPY;
    struct block_status status;
    uint32_t flags = BLOCK_STATUS_PRECISE | (all->keep_backing ? (uint32_t)BLOCK_STATUS_TOP_ONLY : 0);
    int result = block_status(source->edge, inside, *length, flags, &status);
    if (result < 0 && all->salvage)
        return VERDICT_COPY;
    if (result < 0) {
        conversion_fail(all, "reading the map of", source->name, inside, result);
        return VERDICT_FAILED;
    }
    *length = status.length;
    if (all->keep_backing && !status.allocated)
        return VERDICT_SKIP;
    return status.zero && all->sparse_size ? VERDICT_ZERO : VERDICT_COPY;
}

static void add_done(struct conversion *all, uint64_t length)
{
    all->done += length;
    progress_set(&all->progress, all->done, all->size);
}

/* Under the lock. true: there is something to do. false: some bytes were passed over, or it failed. */
static bool find_piece(struct conversion *all, struct piece *piece)
{
    uint64_t length, rest = all->size - all->next;
    enum verdict verdict = ask_map(all, &length);
    if (verdict == VERDICT_FAILED)
        return false;
    /* Whole units only, but for the end. What shares a unit with data is data. */
    if (verdict != VERDICT_COPY && length < rest)
        length -= length % all->granularity;
    if (verdict != VERDICT_COPY && !length) {
        verdict = VERDICT_COPY;
        length = 1;
    }
    if (verdict == VERDICT_COPY)
        length = MIN(DIV_ROUND_UP(MIN(length, all->piece_size), all->granularity) * all->granularity, rest);
    bool pass = verdict == VERDICT_SKIP || (verdict == VERDICT_ZERO && all->target_is_zero);
    *piece = (struct piece){verdict == VERDICT_ZERO ? PIECE_ZERO : PIECE_DATA, all->next, length, all->next_ticket};
    all->next += length;
    if (pass)
        add_done(all, length);
    else
        all->next_ticket++;
    return !pass;
}

static bool next_piece(struct conversion *all, struct piece *piece)
{
    bool found = false;
    co_mutex_lock(&all->lock);
    while (!found && !all->failed && all->next < all->size)
        found = find_piece(all, piece);
    co_mutex_unlock(&all->lock);
    return found;
}

/* Writing --------------------------------------------------------------------------------------------------------- */

/* Our turn has come when all earlier pieces have begun to write. It is passed on at once: whoever is woken runs after
 * our write was given to the target. */
static void take_turn(struct conversion *all, uint64_t ticket)
{
    if (all->out_of_order)
        return;
    while (all->turn != ticket && !all->failed)
        co_queue_wait_uncancellable(&all->turns);
    all->turn++;
    co_queue_wake_all(&all->turns);
}

/* Makes a span of the target read as zeroes; what does so already is left alone. */
static int zero_target(struct conversion *all, uint64_t offset, uint64_t length)
{
    while (length && !all->target_is_zero) {
        /* On a backing file, zeroes are stored even where it reads as zeroes too: that is what the source says. */
        struct block_status status = {.length = length};
        int result = 0;
        if (!all->keep_backing)
            result = block_status(all->target, offset, length, BLOCK_STATUS_PRECISE, &status);
        if (result < 0)
            status = (struct block_status){.length = length};
        if (!status.zero) {
            result = block_zero(all->target, offset, status.length,
                                REQUEST_MAY_UNMAP | (all->writethrough ? (uint32_t)REQUEST_FUA : 0));
            if (result < 0)
                return result;
        }
        offset += status.length;
        length -= status.length;
    }
    return 0;
}

static int write_data(struct conversion *all, uint64_t offset, uint8_t *buffer, uint64_t length)
{
    uint32_t flags =
        (all->compress ? (uint32_t)REQUEST_COMPRESSED : 0) | (all->writethrough ? (uint32_t)REQUEST_FUA : 0);
    return block_write_buffer(all->target, offset, buffer, length, flags);
}

/* Runs of data and of zeroes, by units of the granularity. */
static int write_runs(struct conversion *all, const struct piece *piece, uint8_t *buffer)
{
    uint64_t at = 0;
    while (at < piece->length) {
        bool is_zero = false;
        uint64_t length = piece->length - at;
        if (all->sparse_size)
            length = buffer_zero_run(buffer + at, length, all->granularity, &is_zero);
        int result = is_zero ? zero_target(all, piece->offset + at, length)
                             : write_data(all, piece->offset + at, buffer + at, length);
        if (result < 0) {
            conversion_fail(all, "writing", all->target_name, piece->offset + at, result);
            return result;
        }
        at += length;
    }
    return 0;
}

/* Lets the kernel copy, where the piece lies in one source. */
static bool try_offload(struct conversion *all, const struct piece *piece)
{
    const struct source *source = source_at(all, piece->offset);
    uint64_t inside = piece->offset - source->start;
    if (!all->offload || !span_fits(inside, piece->length, source->edge->child->size))
        return false;
    uint32_t flags = BLOCK_COPY_OFFLOAD | (all->target_is_zero ? (uint32_t)BLOCK_COPY_TARGET_IS_ZERO : 0);
    return block_copy(source->edge, inside, all->target, piece->offset, piece->length, flags) >= 0;
}

static void limit_rate(struct conversion *all, uint64_t length)
{
    if (!all->rate)
        return;
    uint64_t now = loop_now_ns(all->loop);
    uint64_t start = MAX(now, all->rate_deadline_ns);
    all->rate_deadline_ns = start + (uint64_t)((double)length * 1e9 / (double)all->rate);
    if (start > now)
        co_sleep_ns(start - now);
}

static void copy_piece(struct conversion *all, const struct piece *piece, uint8_t *buffer)
{
    int result = 0;
    if (piece->kind == PIECE_DATA)
        limit_rate(all, piece->length);
    if (piece->kind == PIECE_ZERO) {
        take_turn(all, piece->ticket);
        result = zero_target(all, piece->offset, piece->length);
        if (result < 0)
            conversion_fail(all, "writing zeroes to", all->target_name, piece->offset, result);
    } else if (all->offload && try_offload(all, piece)) {
        take_turn(all, piece->ticket);
    } else {
        result = read_piece(all, piece->offset, buffer, piece->length);
        if (result >= 0) {
            take_turn(all, piece->ticket);
            result = all->failed ? 0 : write_runs(all, piece, buffer);
        }
    }
    if (result >= 0)
        add_done(all, piece->length);
}

static void worker(void *arg)
{
    struct conversion *all = arg;
    auto_free uint8_t *buffer = try_aligned_alloc(4096, all->piece_size);
    struct piece piece;
    if (!buffer) {
        conversion_fail(all, "allocating a buffer for", all->target_name, 0, -ENOMEM);
        return;
    }
    while (next_piece(all, &piece))
        copy_piece(all, &piece, buffer);
}

/* Frame ----------------------------------------------------------------------------------------------------------- */

static void choose_sizes(struct conversion *all)
{
    uint64_t unit = all->cluster_size ? all->cluster_size : 4096;
    all->granularity = unit;
    if (all->sparse_size > unit && !all->compress)
        all->granularity = DIV_ROUND_UP(all->sparse_size, unit) * unit;
    uint64_t piece = all->compress ? all->granularity : all->offload ? OFFLOAD_PIECE : PIECE;
    all->piece_size = DIV_ROUND_UP(MAX(piece, all->granularity), all->granularity) * all->granularity;
}

bool conversion_run(struct conversion *all, bool show_progress, bool quiet)
{
    struct co_group group;
    choose_sizes(all);
    co_mutex_init(&all->lock);
    co_queue_init(&all->turns);
    co_group_init(&group);
    progress_start(&all->progress, all->loop, show_progress, !quiet);
    for (unsigned i = 0; i < all->workers; i++)
        co_spawn(all->loop, &group, worker, all);
    co_group_wait(&group);
    int result = all->failed ? 0 : block_flush(all->target);
    if (result < 0)
        conversion_fail(all, "flushing", all->target_name, all->size, result);
    progress_end(&all->progress, !all->failed);
    return !all->failed;
}
